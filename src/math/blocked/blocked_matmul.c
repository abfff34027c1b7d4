/* The matrix product in blocks: the middle rung between ref/ref_matmul.c, which says what an element is, and
 * simd/matmul.c, which is fast. Plain C, no instruction set; its five loops and their names are those of BLIS (Van Zee and
 * van de Geijn, "BLIS: a framework for rapidly instantiating BLAS functionality", 2015):
 *
 *   5th loop    over n by NC
 *     4th loop    over k by KC: pack a panel of B (KC x NC); it stays in L2 or L3 while the rows go by
 *       3rd loop    over m by MC: pack a block of A (MC x KC); it stays in L2 or L1
 *         macro-kernel: 2nd loop over n by NR, 1st loop over m by MR
 *           micro-kernel: MR x NR elements in registers, all of KC
 *
 * Where the contract shows: KC is its segment, so the micro-kernel makes whole chains from +0 and adds each to its total
 * once. Totals are kept beside C, since a group's total waits for its sibling in the tree, and C may be the residual. */
#include "math/ref/ref.h"

#if !LK_REAL_IS_DOUBLE /* the accurate model needs no speed */
void LK__JOIN(lk__math_fill_blocked_, LK_REF)(struct lk__math_kernels *);

enum { MR = 6, NR = 16, MC = 72, NC = 256, KC = LK__SEGMENT };
#define TOTALS_FLOATS ((size_t)1 << 17) /* at least LK__TREE_LEVELS x MR x NC */

struct work {
    float a[MC * KC], b[KC * NC]; /* packed */
    float totals[];               /* (level, row of the tile, NC): level 0 is the bottom of the tree's stack */
};

static size_t smaller(size_t a, size_t b) {
    return a < b ? a : b;
}

/* Panels of `width` rows of x, k ascending: what the micro-kernel reads lies together. Absent rows are zeros. */
static void pack(size_t rows, size_t k, const float *x, size_t row_step, size_t k_step, size_t width, float *to) {
    for (size_t r = 0; r < rows; r += width)
        for (size_t p = 0; p < k; p++)
            for (size_t i = r; i < r + width; i++) *to++ = i < rows ? x[i * row_step + p * k_step] : 0;
}

/* t (m, NR at stride NC) = t + a chain of fma over k for each element; m is MR but at the lower edge. Compilers make
 * vectors of the loop over j, and keep ab in registers once the loop over i is unrolled. */
static inline __attribute__((always_inline)) void micro_kernel(size_t m, size_t k, const float *restrict a,
                                                               const float *restrict b, float *restrict t) {
    float ab[MR][NR] = {{0}};
    for (size_t p = 0; p < k; p++, a += MR, b += NR) {
#pragma GCC unroll 8
        for (size_t i = 0; i < m; i++)
            for (size_t j = 0; j < NR; j++) ab[i][j] = REF(fma)(a[i], b[j], ab[i][j]);
    }
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < NR; j++) t[i * NC + j] = t[i * NC + j] + ab[i][j];
}

static void macro_kernel(size_t m, size_t n, size_t k, const struct work *w, float *t) {
    for (size_t jr = 0; jr < n; jr += NR)       /* 2nd loop */
        for (size_t ir = 0; ir < m; ir += MR) { /* 1st loop */
            const float *a = w->a + ir * k, *b = w->b + jr * k;
            if (m - ir >= MR)
                micro_kernel(MR, k, a, b, t + ir * NC + jr);
            else
                micro_kernel(m - ir, k, a, b, t + ir * NC + jr);
        }
}

/* One segment of one part added to the totals t of rows [i0, i1), columns [jc, jc + n). */
static void add_segment(const struct lk_mm_part *p, size_t pc, size_t i0, size_t i1, size_t jc, size_t n, struct work *w,
                        float *t) {
    size_t k = smaller(KC, p->k - pc);
    pack(n, k, p->b + pc * p->b_row + jc * p->b_col, p->b_col, p->b_row, NR, w->b);
    for (size_t ic = i0; ic < i1; ic += MC) { /* 3rd loop */
        size_t m = smaller(MC, i1 - ic);
        pack(m, k, p->a + ic * p->a_row + pc * p->a_col, p->a_row, p->a_col, MR, w->a);
        macro_kernel(m, n, k, w, t + (ic - i0) * NC);
    }
}

static void add(size_t n, float *to, const float *x) {
    for (size_t i = 0; i < n; i++) to[i] = to[i] + x[i];
}

/* Bias and residual: rows [i0, i1), columns [jc, jc + n) of C from their totals. */
static void store(const struct lk_mm *mm, size_t i0, size_t i1, size_t jc, size_t n, const float *t) {
    for (size_t i = i0; i < i1; i++, t += NC)
        for (size_t j = 0; j < n; j++) {
            float y = t[j];
            if (mm->bias) y = y + mm->bias[jc + j];
            if (mm->residual) y = mm->residual[i * mm->ld_residual + jc + j] + y;
            mm->c[i * mm->ldc + jc + j] = y;
        }
}

/* Rows that the totals hold: those of a tile, in whole micro-kernels. */
static size_t padded(size_t rows) {
    return (rows + MR - 1) / MR * MR;
}

static void mm_tile(const struct lk_mm *mm, size_t i0, size_t i1, size_t j0, size_t j1, const struct lk_caches *caches,
                    void *scratch) {
    (void)caches;
    struct work *w = scratch;
    size_t size = padded(i1 - i0) * NC;
    for (size_t jc = j0; jc < j1; jc += NC) { /* 5th loop */
        size_t n = smaller(NC, j1 - jc), groups = 0;
        float *top = w->totals; /* of the stack: the group at work; below it finished ones, as in ref_matmul.c */
        memset(top, 0, size * sizeof *top);
        for (size_t i = i0; mm->accumulate && i < i1; i++)
            memcpy(top + (i - i0) * NC, mm->c + i * mm->ldc + jc, n * sizeof *top);
        for (size_t q = 0; q < mm->part_count; q++) { /* 4th loop: parts, and their segments */
            const struct lk_mm_part *p = &mm->parts[q];
            for (size_t pc = 0; pc < p->k; pc += KC) add_segment(p, pc, i0, i1, jc, n, w, top);
            bool last = q + 1 == mm->part_count;
            if (!p->ends_group && !last) continue;
            for (size_t g = groups++; g & 1; g >>= 1, top -= size) add(size, top - size, top);
            if (!last) memset(top += size, 0, size * sizeof *top);
        }
        for (; top > w->totals; top -= size) add(size, top - size, top);
        store(mm, i0, i1, jc, n, w->totals);
    }
}

/* The driver's tiles are the 5th and 3rd loop cut once more, for the threads: one NC wide, as high as the totals hold. */
static void mm_blocking(const struct lk_mm *mm, size_t threads, const struct lk_caches *caches, size_t *tile_rows,
                        size_t *tile_columns, bool *transposed) {
    (void)caches;
    size_t groups = 1, levels = 1;
    for (size_t q = 0; q + 1 < mm->part_count; q++) groups += mm->parts[q].ends_group;
    for (size_t g = groups; g > 1; g = (g + 1) / 2) levels++;
    size_t most = TOTALS_FLOATS / NC / levels / MR * MR, across = (mm->n + NC - 1) / NC;
    size_t share = padded((mm->m * across + threads - 1) / threads); /* rows of a tile if each thread has one */
    *tile_rows = smaller(most, share), *tile_columns = NC, *transposed = false;
}

void LK__JOIN(lk__math_fill_blocked_, LK_REF)(struct lk__math_kernels *k) {
    LK__JOIN(lk__math_fill_ref_, LK_REF)(k);
    k->isa = "blocked";
    k->mm_scratch_bytes = sizeof(struct work) + TOTALS_FLOATS * sizeof(float);
    k->mm_blocking = mm_blocking, k->mm_tile = mm_tile;
}
#else
typedef int lk__math_blocked_matmul_is_float_only;
#endif
