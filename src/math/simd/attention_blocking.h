/* The sizes that attention goes by, from the caches. They change its time and no bit. */
#ifndef LOCKSTEP_MATH_SIMD_ATTENTION_BLOCKING_H
#define LOCKSTEP_MATH_SIMD_ATTENTION_BLOCKING_H
#include "lockstep/base/caches.h"
#include "math/simd/attention_scratch.h"
#include "math/simd/matmul_micro.h"

#define PART_STEP  (2 * MR)                                 /* whole panels, and whole groups of exponentials */
#define PART_LEAST round_up(ATTENTION_KEYS + MR, PART_STEP) /* queries; see key_gradients */

/* Bytes of K and V of one head from which on they come from beyond L2 for each tile of queries: it has the rest for scores,
 * output, and what is asked for ahead. From there on tiles have two blocks of queries, which go through K and V together.
 */
static inline size_t forward_streams(const struct lk_caches *c) {
    return c->l2.bytes / 2;
}

/* At most so many queries go together through a block of keys, backward: P and dS, which each step leaves to the next, take
 * a quarter of L2 or less, unless those of the least number of queries take more. Besides them it has the block of keys and
 * its gradients (80 KiB where d = 64); the queries' own panels only pass, from one end to the other, which the hardware
 * sees. Smaller parts cost more ends of chains. */
static inline size_t backward_part(const struct lk_caches *c) {
    size_t queries = c->l2.bytes / 4 / (2 * ATTENTION_KEYS * sizeof(float));
    if (queries >= SEGMENT) return SEGMENT;
    queries = queries / PART_STEP * PART_STEP;
    return queries > PART_LEAST ? queries : PART_LEAST;
}

#endif
