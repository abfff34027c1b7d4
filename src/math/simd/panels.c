/* Products of up to eight rows with weights in panels of 16 columns, k by k. The weights lie in the order in which they are
 * read, so memory delivers at its full speed, and each vector goes into its fma as it is. With one row, several panels at
 * once: their independent chains hide the latency of fma. */
#include "math/kernel_table.h"
#include "math/simd/matmul_micro.h"
#include "math/simd/matmul_pack.h"

#define VECTORS (LK_PANEL / VL) /* of a panel */
/* Panels side by side for one row and for several: chains enough, and registers enough. */
#define SIDE      (VL == 4 ? 2 : 4)
#define SIDE_ROWS (VL == 16 ? 2 : 1)
/* Rows whose chains fit the registers. More go through the weights in turns, TURN of k each, which stay in L1. */
#define GROUP (VL == 16 ? 8 : 4)
#define TURN  32

_Static_assert(LK_PANEL % VL == 0, "panels are whole vectors");
_Static_assert(LK_PANEL_ROWS == 8, "multiply has a case for each number of rows");

/* Numbers of panels, from the i-th on. */
LK_INLINE vf weights(const bool half, const void *w, size_t i) {
    return half ? v_from_bf16((const uint16_t *)w + i) : v_load((const float *)w + i);
}
LK_INLINE vf weights_n(const bool half, const void *w, size_t i, size_t n) {
    if (!half) return v_load_n((const float *)w + i, n);
    uint16_t some[VL] = {0};
    memcpy(some, (const uint16_t *)w + i, 2 * n);
    return v_from_bf16(some);
}

/* k [e, end) of the chains of `rows` (<= GROUP) rows. ahead: where several groups take turns, each prefetches half of the
 * next turn's weights, which begins so many floats behind this turn's; while weights come from L1, the hardware itself
 * prefetches nothing from memory. 0: one group, no prefetch. */
LK_INLINE void go_on(const bool half, const size_t rows, const size_t side, size_t k, const float *x, const void *w,
                     size_t e, size_t end, const size_t ahead, vf *chains) {
    const size_t columns = side * VECTORS;
    vf chain[GROUP * SIDE * VECTORS];
    UNROLL
    for (size_t c = 0; c < rows * columns; c++) chain[c] = chains[c];
    const size_t bytes = half ? 2 : 4;
    const char *next = (const char *)w + (e * LK_PANEL + ahead) * bytes;
    for (; e < end; e++, next += LK_PANEL / 2 * bytes) {
        for (size_t s = 0; ahead && s < side; s++) __builtin_prefetch(next + s * LK_PANEL * k * bytes, 0, 3);
        UNROLL
        for (size_t r = 0; r < rows; r++) {
            vf a = v_set1(x[r * k + e]);
            UNROLL
            for (size_t c = 0; c < columns; c++) {
                size_t from = c / VECTORS * LK_PANEL * k + e * LK_PANEL + c % VECTORS * VL;
                chain[r * columns + c] = v_fma(a, weights(half, w, from), chain[r * columns + c]);
            }
        }
    }
    UNROLL
    for (size_t c = 0; c < rows * columns; c++) chains[c] = chain[c];
}

/* Totals of `rows` rows in `side` whole panels, which lie one after the other. rows and side are constants at each use. */
LK_INLINE void whole(const bool half, const size_t rows, const size_t side, size_t k, const float *x, const void *w,
                     vf totals[LK_PANEL_ROWS * SIDE * VECTORS]) {
    const size_t columns = side * VECTORS, turn = rows > GROUP ? TURN : SEGMENT;
    for (size_t c = 0; c < rows * columns; c++) totals[c] = v_zero();
    for (size_t k0 = 0; k0 < k; k0 += SEGMENT) {
        size_t end = smaller(k, k0 + SEGMENT);
        vf chain[LK_PANEL_ROWS * SIDE * VECTORS];
        for (size_t c = 0; c < rows * columns; c++) chain[c] = v_zero();
        for (size_t e = k0; e < end; e += turn) {
            size_t to = smaller(end, e + turn);
            if (rows <= GROUP) {
                go_on(half, rows, side, k, x, w, e, to, 0, chain);
                continue;
            }
            go_on(half, GROUP, side, k, x, w, e, to, TURN * LK_PANEL, chain);
            go_on(half, rows - GROUP, side, k, x + GROUP * k, w, e, to, TURN * LK_PANEL * 3 / 2, chain + GROUP * columns);
        }
        for (size_t c = 0; c < rows * columns; c++) totals[c] = v_add(totals[c], chain[c]);
    }
}

/* The last panel of fewer columns: n <= VL of them from column v on, at stride ld. */
static vf part(bool half, size_t k, const float *x, const void *w, size_t from, size_t ld, size_t n) {
    vf total = v_zero();
    for (size_t k0 = 0; k0 < k; k0 += SEGMENT) {
        size_t end = smaller(k, k0 + SEGMENT);
        vf chain = v_zero();
        for (size_t e = k0; e < end; e++) chain = v_fma(v_set1(x[e]), weights_n(half, w, from + e * ld, n), chain);
        total = v_add(total, chain);
    }
    return total;
}

LK_INLINE void finish(const struct lk_panel_product *p, size_t row, size_t column, vf y, size_t n) {
    size_t at = row * p->n + column;
    if (n == VL) {
        if (p->bias) y = v_add(y, v_load(p->bias + column));
        if (p->residual) y = v_add(v_load(p->residual + at), y);
        v_store(p->y + at, y);
    } else {
        if (p->bias) y = v_add(y, v_load_n(p->bias + column, n));
        if (p->residual) y = v_add(v_load_n(p->residual + at, n), y);
        v_store_n(p->y + at, y, n);
    }
}

LK_INLINE const void *panel_at(const bool half, const struct lk_panel_product *p, size_t i) {
    return (const char *)p->panels + i * (half ? 2 : 4);
}
LK_INLINE void whole_panels(const bool half, const size_t rows, const size_t side, size_t k, const float *x,
                            const struct lk_panel_product *p, size_t j) {
    vf totals[LK_PANEL_ROWS * SIDE * VECTORS];
    whole(half, rows, side, k, x, panel_at(half, p, j * k), totals);
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < side * VECTORS; c++) finish(p, r, j + c * VL, totals[r * side * VECTORS + c], VL);
}

/* Whole panels from column j on, as many as fit, `side` at a time while they do; returns where they end. */
LK_INLINE size_t several(const bool half, const size_t rows, const size_t side, size_t k, const float *x,
                         const struct lk_panel_product *p, size_t j, size_t j1) {
    for (; j + side * LK_PANEL <= j1; j += side * LK_PANEL) whole_panels(half, rows, side, k, x, p, j);
    for (; j + LK_PANEL <= j1; j += LK_PANEL) whole_panels(half, rows, 1, k, x, p, j);
    return j;
}

LK_INLINE void multiply_dtype(const bool half, size_t rows, size_t k, const float *x, const struct lk_panel_product *p,
                              size_t j0, size_t j1) {
    size_t j = j0;
#define CASE(n)                                                                                                            \
    case n:                                                                                                                \
        j = several(half, n, n == 1 ? SIDE : SIDE_ROWS, k, x, p, j0, j1);                                                  \
        break;
    switch (rows) { CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) }
#undef CASE
    for (size_t r = 0; r < rows; r++)
        for (size_t v = j; v < j1; v += VL)
            finish(p, r, v, part(half, k, x + r * k, p->panels, j * k + (v - j), j1 - j, smaller(VL, j1 - v)),
                   smaller(VL, j1 - v));
}

static void multiply(size_t rows, size_t k, const float *x, const struct lk_panel_product *p, size_t j0, size_t j1) {
    if (p->dtype == LK_BF16)
        multiply_dtype(true, rows, k, x, p, j0, j1);
    else
        multiply_dtype(false, rows, k, x, p, j0, j1);
}

static void fill_floats(size_t n, size_t k, const float *w, float *panel) {
    size_t whole_k = n == LK_PANEL ? k / VL * VL : 0;
    for (size_t e = 0; e < whole_k; e += VL)
        for (size_t v = 0; v < LK_PANEL; v += VL) {
            vf r[VL];
            UNROLL
            for (size_t i = 0; i < VL; i++) r[i] = v_load(w + (v + i) * k + e);
            v_transpose(r);
            UNROLL
            for (size_t i = 0; i < VL; i++) v_store(panel + (e + i) * LK_PANEL + v, r[i]);
        }
    for (size_t e = whole_k; e < k; e++)
        for (size_t i = 0; i < n; i++) panel[e * n + i] = w[i * k + e];
}
static void fill(enum lk_dtype dtype, size_t n, size_t k, const void *w, void *panel) {
    if (dtype == LK_F32) {
        fill_floats(n, k, w, panel);
        return;
    }
    const uint16_t *from = w;
    uint16_t *to = panel;
    for (size_t e = 0; e < k; e++)
        for (size_t i = 0; i < n; i++) to[e * n + i] = from[i * k + e];
}

void LK_ISA_NAME(lk__math_fill_panels)(struct lk__math_kernels *);
void LK_ISA_NAME(lk__math_fill_panels)(struct lk__math_kernels *k) {
    k->panels_fill = fill;
    k->panels_multiply = multiply;
}
