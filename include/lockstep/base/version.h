/* Which Lockstep a program runs with. */
#ifndef LOCKSTEP_VERSION_H
#define LOCKSTEP_VERSION_H

#ifdef __cplusplus
extern "C" {
#endif

/* The library's version, "0.1.0": with the shared library the one that was loaded. Static text. */
const char *lk_version(void);

#ifdef __cplusplus
}
#endif
#endif
