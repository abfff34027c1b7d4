/* Which sanitizers this build has: LK_ASAN, LK_TSAN, and LK_SANITIZED for either, each 0 or 1. They slow a program down and
 * take terabytes of address space. Every floor may include this; it is not installed. */
#ifndef LOCKSTEP_BASE_SANITIZERS_H
#define LOCKSTEP_BASE_SANITIZERS_H

#if defined(__has_feature) /* Clang */
#define LK__HAS_SANITIZER(name) __has_feature(name)
#else
#define LK__HAS_SANITIZER(name) 0
#endif

#if defined(__SANITIZE_ADDRESS__) || LK__HAS_SANITIZER(address_sanitizer)
#define LK_ASAN 1
#else
#define LK_ASAN 0
#endif
#if defined(__SANITIZE_THREAD__) || LK__HAS_SANITIZER(thread_sanitizer)
#define LK_TSAN 1
#else
#define LK_TSAN 0
#endif
#define LK_SANITIZED (LK_ASAN || LK_TSAN)

#endif
