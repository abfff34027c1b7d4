/* Skinny products: up to SKINNY_ROWS rows of A with weights that lie along k, as in generation. Each weight is used once a
 * row of A, so the time is that of reading them. They go from memory through a transpose in registers straight into the
 * chains; nothing is packed. */
#ifndef LOCKSTEP_MATH_SIMD_MATMUL_SKINNY_H
#define LOCKSTEP_MATH_SIMD_MATMUL_SKINNY_H
#include "math/kernel_table.h"
#include "math/simd/matmul_micro.h"
#include "math/simd/matmul_pack.h"

#define SKINNY_ROWS     4
#define SKINNY_PREFETCH 96 /* floats of each weight row that are prefetched */

static inline bool is_skinny(const struct lk_mm *mm) {
    const struct lk_mm_part *p = mm->parts;
    return mm->m <= SKINNY_ROWS && mm->part_count == 1 && p->b_row == 1 && p->b_col != 1 && p->a_col == 1 &&
           !mm->accumulate;
}

/* A tile begins cold, since what the tile before prefetched went to another thread's cache: so few tiles, equal ones, and
 * at most some hundred columns where there are many, so that a thread that is held up does not keep the others waiting. */
static inline size_t skinny_columns(const struct lk_mm *mm, size_t threads) {
    size_t turns = (mm->n + 512 * threads - 1) / (512 * threads),
           columns = (mm->n + turns * threads - 1) / (turns * threads);
    return (columns + 15) / 16 * 16;
}

/* VL weight rows at w, `n` of them there, elements [e, e + VL) of k, transposed: r[i] holds element e + i of each row. */
LK_INLINE void skinny_load(const float *w, size_t ld, const size_t n, size_t e, size_t k, vf r[VL]) {
    UNROLL
    for (size_t i = 0; i < VL; i++)
        r[i] = i >= n ? v_zero() : e + VL <= k ? v_load(w + i * ld + e) : v_load_n(w + i * ld + e, k - e);
    v_transpose(r);
}

/* Asks for what comes SKINNY_PREFETCH elements later: in these rows or, past their end, in the next ones. */
LK_INLINE void skinny_prefetch(const float *w, size_t ld, size_t e, size_t k, bool more) {
    size_t at = e + SKINNY_PREFETCH;
    if (at >= k) {
        if (!more || at - k >= k) return;
        w += VL * ld;
        at -= k;
    }
    for (size_t i = 0; i < VL; i++) __builtin_prefetch(w + i * ld + at, 0, 3);
}

/* VL columns (n of them there) of `rows` rows: totals[r]. rows and full are constants at each use. */
LK_INLINE void skinny_block(const struct lk_mm_part *p, const size_t rows, const float *w, const bool full, size_t n,
                            bool more, vf totals[SKINNY_ROWS]) {
    for (size_t r = 0; r < rows; r++) totals[r] = v_zero();
    for (size_t k0 = 0; k0 < p->k; k0 += SEGMENT) {
        size_t end = p->k - k0 < SEGMENT ? p->k : k0 + SEGMENT;
        vf chain[SKINNY_ROWS];
        for (size_t r = 0; r < rows; r++) chain[r] = v_zero();
        for (size_t e = k0; e < end; e += VL) {
            vf x[VL];
            if (e % 16 == 0) skinny_prefetch(w, p->b_col, e, p->k, more);
            skinny_load(w, p->b_col, full ? VL : n, e, end, x);
            size_t here = end - e < VL ? end - e : VL;
            if (here == VL) {
                UNROLL
                for (size_t i = 0; i < VL; i++)
                    for (size_t r = 0; r < rows; r++) chain[r] = v_fma(v_set1(p->a[r * p->a_row + e + i]), x[i], chain[r]);
            } else
                for (size_t i = 0; i < here; i++)
                    for (size_t r = 0; r < rows; r++) chain[r] = v_fma(v_set1(p->a[r * p->a_row + e + i]), x[i], chain[r]);
        }
        for (size_t r = 0; r < rows; r++) totals[r] = v_add(totals[r], chain[r]);
    }
}

LK_INLINE void skinny_rows(const struct lk_mm_part *p, const size_t rows, const float *w, size_t n, bool more, vf *totals) {
    if (n >= VL)
        skinny_block(p, rows, w, true, VL, more, totals);
    else
        skinny_block(p, rows, w, false, n, false, totals);
}

/* Totals of all rows in columns j .. j + VL - 1. */
static void skinny_totals(const struct lk_mm *mm, size_t j, size_t j1, vf totals[SKINNY_ROWS]) {
    const struct lk_mm_part *p = mm->parts;
    const float *w = p->b + j * p->b_col;
    size_t n = j1 - j;
    bool more = mm->n - j >= 2 * VL;
    switch (mm->m) {
    case 1:
        skinny_rows(p, 1, w, n, more, totals);
        break;
    case 2:
        skinny_rows(p, 2, w, n, more, totals);
        break;
    case 3:
        skinny_rows(p, 3, w, n, more, totals);
        break;
    default:
        skinny_rows(p, 4, w, n, more, totals);
        break;
    }
}

#endif
