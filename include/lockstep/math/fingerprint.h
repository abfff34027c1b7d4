/* One hash of everything that the math floor computes. */
#ifndef LOCKSTEP_MATH_FINGERPRINT_H
#define LOCKSTEP_MATH_FINGERPRINT_H
#include "lockstep/base/hash.h"
#include "lockstep/math/math.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Runs every kernel on fixed inputs; the SHA-256 of all outputs, equal on all healthy machines, ISAs and thread counts. */
int lk_math_fingerprint(struct lk_math *, struct lk_root *out, struct lk_err *);
/* The same of what computes in fewer bits: docs/numerics.md, section 14. */
int lk_math_fingerprint_blocks(struct lk_math *, struct lk_root *out, struct lk_err *);

#ifdef __cplusplus
}
#endif
#endif
