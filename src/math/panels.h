/* The seam of src/math/panels.c: what an instruction set does for products of a few rows. Private to src/math. */
#ifndef LOCKSTEP_MATH_PANELS_H
#define LOCKSTEP_MATH_PANELS_H
#include "lockstep/kernels.h"

struct lk__panel_kernels {
    /* n (<= LK_PANEL) rows of W, k long, into one panel (k, n). */
    void (*fill)(size_t n, size_t k, const float *w, float *panel);
    /* Columns [j0, j1) of a product; j0 is a panel's first column. */
    void (*multiply)(size_t rows, size_t k, const float *x, const struct lk_panel_product *, size_t j0, size_t j1);
};
extern const struct lk__panel_kernels lk__panels_avx2, lk__panels_avx512, lk__panels_neon;

#endif
