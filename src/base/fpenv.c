/* The control word of the floating-point unit: what the numeric contract wants, per thread. */
#include "lockstep/base/thread.h"

#if defined(__x86_64__)
#include <xmmintrin.h>
/* All six exceptions masked, round to nearest even, no FTZ (bit 15), no DAZ (bit 6); the six flags cleared. */
#define WANTED 0x1F80u
#define FLAGS  0x003Fu
static unsigned long long get(void) {
    return _mm_getcsr();
}
static void put(unsigned long long word) {
    _mm_setcsr((unsigned)word);
}
int lk_fpenv_ok(void) {
    return (_mm_getcsr() & ~FLAGS) == WANTED;
}

#elif defined(__aarch64__)
/* FIZ AH NEP, the trap enables, FZ16, RMode, FZ, DN: all zero is IEEE 754's default. */
#define WANTED 0ull
#define MATTER 0x03C89F07ull
static unsigned long long get(void) {
    unsigned long long word;
    __asm__ volatile("mrs %0, fpcr" : "=r"(word));
    return word;
}
static void put(unsigned long long word) {
    __asm__ volatile("msr fpcr, %0" ::"r"(word) : "memory");
}
int lk_fpenv_ok(void) {
    return (get() & MATTER) == WANTED;
}

#else
#include <fenv.h>
#define WANTED FE_TONEAREST
static unsigned long long get(void) {
    return (unsigned long long)fegetround();
}
static void put(unsigned long long word) {
    fesetround((int)word);
}
int lk_fpenv_ok(void) {
    return fegetround() == FE_TONEAREST;
}
#endif

unsigned long long lk_fpenv_set(void) {
    unsigned long long old = get();
    put(WANTED);
    return old;
}

void lk_fpenv_restore(unsigned long long old) {
    put(old);
}
