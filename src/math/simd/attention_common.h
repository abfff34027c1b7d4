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

/* Rows of a head as B: panels of NR columns (the last one narrower), `rows` long each, filled from row `first` to `end`; x
 * is row `first`. */
LK_INLINE void column_panels(size_t first, size_t end, size_t d, const float *x, size_t ldx, float *to, size_t rows) {
    for (size_t c = 0; c < d; c += NR) {
        float *panel = to + c * rows;
        size_t width = smaller(NR, round_up(d - c, VL));
        if (d - c >= NR)
            copy_rows(end - first, NR, x + c, ldx, panel + first * NR, NR);
        else
            copy_rows(end - first, d - c, x + c, ldx, panel + first * width, width);
    }
}

/* t (rows, columns) with A(i, k) at a[i * a_row + k * a_col], and k rows of B, in panels of b_rows, from row `first`. */
LK_INLINE void product(size_t rows, size_t columns, size_t k, const float *a, size_t a_row, size_t a_col, const float *b,
                       size_t b_rows, size_t first, float *t, size_t ldt, enum lk__math_micro_mode mode) {
    for (size_t c = 0; c < columns; c += NR) {
        size_t width = smaller(NR, round_up(columns - c, VL));
        lk__math_micro[rows - 1][width / VL - 1](k, a, a_row, a_col, b + c * b_rows + first * width, width, t + c, ldt,
                                                 mode, &(struct lk__math_prefetch){a, b, 0});
    }
}

/* Rows of A times one panel of columns, ldb apart, over the head's d elements: more than 512 are several segments. */
LK_INLINE void dot_product(size_t rows, size_t width, size_t d, const float *a, size_t a_row, size_t a_col, const float *b,
                           size_t ldb, float *t, size_t ldt) {
    struct lk__math_prefetch prefetch = {a, b, 0};
    lk__math_micro_fn *micro = lk__math_micro[rows - 1][width / VL - 1];
    micro(smaller(SEGMENT, d), a, a_row, a_col, b, ldb, t, ldt, MICRO_STORE, &prefetch);
    for (size_t e = SEGMENT; e < d; e += SEGMENT)
        micro(smaller(SEGMENT, d - e), a + e * a_col, a_row, a_col, b + e * ldb, ldb, t, ldt, MICRO_ADD, &prefetch);
}

LK_INLINE vi lane_numbers(void) {
    static const int32_t n[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return vi_load(n);
}

#endif
