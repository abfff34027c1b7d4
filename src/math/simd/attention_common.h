/* What both directions of attention share: scratch layout, packing, products of panels. */
#ifndef LOCKSTEP_MATH_SIMD_ATTENTION_COMMON_H
#define LOCKSTEP_MATH_SIMD_ATTENTION_COMMON_H
#include "math/kernel_table.h"
#include "math/simd/attention_scratch.h"
#include "math/simd/exp.h"
#include "math/simd/matmul_micro.h"
#include "math/simd/matmul_pack.h"

#define PREFETCH_ROWS 16 /* rows that are prefetched: a head's part of a row is too short for the hardware to follow */

LK_INLINE size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

LK_INLINE float *take(float **scratch, size_t floats) {
    float *p = *scratch;
    *scratch = p + round_up(floats, 16);
    return p;
}

/* A head's rows in whole vectors, as operands of products. */
struct rows {
    const float *x;
    size_t ld;
};
LK_INLINE struct rows copied_rows(size_t rows, size_t d, const float *x, size_t ldx, float *copy) {
    copy_rows(rows, d, x, ldx, copy, round_up(d, VL));
    return (struct rows){copy, round_up(d, VL)};
}
/* Where they lie, unless they are not whole vectors or fall into few sets of the caches. */
LK_INLINE struct rows take_rows(size_t rows, size_t d, const float *x, size_t ldx, float *copy) {
    if (d % VL == 0 && !same_sets(ldx)) return (struct rows){x, ldx};
    return copied_rows(rows, d, x, ldx, copy);
}

/* t (rows, columns) with A(i, k) at a[i * a_row + k * a_col], and k rows of B from row `first`. */
LK_INLINE void product(size_t rows, size_t columns, size_t k, const float *a, size_t a_row, size_t a_col, struct rows b,
                       size_t first, float *t, size_t ldt, enum lk__math_micro_mode mode) {
    for (size_t c = 0; c < columns; c += NR) {
        size_t width = smaller(NR, round_up(columns - c, VL));
        lk__math_micro[rows - 1][width / VL - 1](k, a, a_row, a_col, b.x + first * b.ld + c, b.ld, t + c, ldt, mode,
                                                 &(struct lk__math_prefetch){a, b.x, 0});
    }
}

/* Rows of A, lda apart, times one panel of columns, over the head's d elements: more than 512 are several segments. */
LK_INLINE void dot_product(size_t rows, size_t width, size_t d, const float *a, size_t lda, const float *b, float *t,
                           size_t ldt) {
    for (size_t e = 0; e < d; e += SEGMENT)
        lk__math_micro[rows - 1][width / VL - 1](smaller(SEGMENT, d - e), a + e, lda, 1, b + e * width, width, t, ldt,
                                                 e ? MICRO_ADD : MICRO_STORE, &(struct lk__math_prefetch){a, b, 0});
}

/* n <= VL floats; whole vectors are the common case. */
LK_INLINE void store_up_to(float *p, vf x, size_t n) {
    if (n == VL)
        v_store(p, x);
    else
        v_store_n(p, x, n);
}

LK_INLINE vi lane_numbers(void) {
    static const int32_t n[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return vi_load(n);
}

#endif
