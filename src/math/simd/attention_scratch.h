/* Floats of scratch that attention needs a thread, an upper bound for every instruction set: plain C, for the driver too.
 */
#ifndef LOCKSTEP_MATH_SIMD_ATTENTION_SCRATCH_H
#define LOCKSTEP_MATH_SIMD_ATTENTION_SCRATCH_H
#include <stddef.h>

#define ATTENTION_QUERIES 32 /* the widest tile of queries, forward */
#define ATTENTION_KEYS    64 /* a block of keys, backward; divides 512 */
#define ATTENTION_SLACK   64 /* packing writes whole vectors; each piece is rounded up to 16 floats */

static inline size_t attention_padded(size_t head_dim) {
    return (head_dim + 15) / 16 * 16;
}

static inline size_t attention_forward_floats(size_t positions, size_t head_dim) {
    size_t d = attention_padded(head_dim);
    return positions * (2 * d + ATTENTION_QUERIES) /* K, V, scores */
           + 2 * 14 * d                            /* the last panel of K, one of rows from two pages */
           + (2 * d + 64 + 8) * ATTENTION_QUERIES  /* q, o, lanes, m and r */
           + 16 * ATTENTION_SLACK;
}

static inline size_t attention_backward_floats(size_t positions, size_t head_dim) {
    size_t d = attention_padded(head_dim), rows = positions < 512 ? positions : 512;
    return positions * 2 * d           /* dK, dV */
           + rows * (4 * d + 1)        /* q and do, dQ twice, D */
           + (rows + 14) * 2 * d       /* q and do in panels */
           + ATTENTION_KEYS * 5 * d    /* K in both orders, V, chains of dK and dV */
           + 2 * ATTENTION_KEYS * rows /* P, dS */
           + 24 * ATTENTION_SLACK;
}

#endif
