/* The data caches of a core: kernels choose their blocks by them. */
#ifndef LOCKSTEP_CACHES_H
#define LOCKSTEP_CACHES_H
#include "lockstep/base/err.h"
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct lk_cache {
    size_t bytes, ways; /* bytes: a core's share, where several cores have one cache */
};
enum lk_caches_from {
    LK_CACHES_ASSUMED, /* nobody says */
    LK_CACHES_SYSTEM,  /* /sys/devices/system/cpu */
    LK_CACHES_CPUID,   /* the processor itself */
    LK_CACHES_GIVEN,   /* LOCKSTEP_CACHES */
};
struct lk_caches {
    struct lk_cache l1, l2;
    enum lk_caches_from from;
};
#define LK_CACHE_LINE 64 /* bytes */

/* Those of the processor that the caller runs on, or what the environment variable LOCKSTEP_CACHES says: size and ways of
 * L1 and L2, as in 32K/8,512K/8. LK_EINVAL: it says something else. */
int lk_caches_here(struct lk_caches *out, struct lk_err *);

#ifdef __cplusplus
}
#endif
#endif
