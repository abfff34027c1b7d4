/* The math floor: every float result that Lockstep computes, with the bits that docs/numerics.md defines.
 *
 * A struct lk_math holds the thread pool, the kernels chosen for this CPU and scratch memory for each thread. What it does:
 *   kernels.h      matrix products, attention, and all other operations on rows and elements
 *   scalar.h       functions of one number, which need no lk_math
 *   measure.h      the machine's peaks, and where the time goes
 *   fingerprint.h  a hash of what every kernel computes
 * One caller at a time per lk_math. */
#ifndef LOCKSTEP_MATH_H
#define LOCKSTEP_MATH_H
#include "lockstep/base/err.h"
#include "lockstep/base/thread.h"
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct lk_math;

/* isa: NULL = LOCKSTEP_ISA or the best this CPU has; "ref" (the specification in plain scalar C), "blocked" (ref with
 * products in blocks, what a CPU without a vector set below gets), "avx2", "avx512", "neon" force one. Unknown or not on
 * this CPU: LK_EUNSUPPORTED that lists those which are. LK_EINVAL: LOCKSTEP_CACHES (see lk_caches_here) is wrong.
 * LK_ENOMEM. The pool is borrowed. */
int lk_math_open(struct lk_pool *, const char *isa, struct lk_math **out, struct lk_err *);
void lk_math_close(struct lk_math *);
const char *lk_math_isa(const struct lk_math *); /* "ref", "avx2", ... */
struct lk_pool *lk_math_pool(const struct lk_math *);
/* The instruction sets compiled in that this CPU has, best first; returns their number (at most 8). */
int lk_math_isas(const char *out[8]);
/* Scratch for each thread: lk_math_open reserves what matrix products need; attention needs lk_attention_scratch_bytes,
 * which the caller reserves once before. */
int lk_math_reserve(struct lk_math *, size_t bytes_per_thread, struct lk_err *);
size_t lk_math_scratch_bytes(const struct lk_math *); /* all that this lk_math holds, for the memory plan */

#ifdef __cplusplus
}
#endif
#endif
