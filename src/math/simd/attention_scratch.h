/* Floats of scratch that attention needs a thread, an upper bound for every instruction set: plain C, for the driver too.
 */
#ifndef LOCKSTEP_MATH_SIMD_ATTENTION_SCRATCH_H
#define LOCKSTEP_MATH_SIMD_ATTENTION_SCRATCH_H
#include <stddef.h>

#define ATTENTION_QUERIES 32 /* the widest tile of queries, forward */
#define ATTENTION_FEW_ROWS                                                                                                 \
    16                     /* of one kv head, where there are few queries: at most so many go through its keys together */
#define ATTENTION_KEYS  64 /* a block of keys, backward; divides 512 */
#define ATTENTION_SLACK 64 /* packing writes whole vectors; each piece is rounded up to 16 floats */

static inline size_t attention_padded(size_t head_dim) {
    return (head_dim + 15) / 16 * 16;
}

static inline size_t attention_few_floats(size_t positions, size_t head_dim) {
    size_t d = attention_padded(head_dim);
    return ATTENTION_FEW_ROWS * (positions + 2 * 64 + 48) /* scores from a multiple of 64 on; the last panel of keys */
           + (3 * ATTENTION_FEW_ROWS + 2 * 48) * d        /* q, o, chains; keys or values, widened and transposed */
           + ATTENTION_SLACK;
}

static inline size_t attention_forward_floats(size_t positions, size_t head_dim) {
    size_t d = attention_padded(head_dim), few = attention_few_floats(positions, head_dim);
    size_t many = positions * (2 * d + ATTENTION_QUERIES) /* K, V, scores */
                  + 2 * 14 * d                            /* the last panel of K, one of rows from two pages */
                  + (2 * d + 64 + 8) * ATTENTION_QUERIES  /* q, o, lanes, m and r */
                  + 16 * ATTENTION_SLACK;
    return few > many ? few : many;
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
