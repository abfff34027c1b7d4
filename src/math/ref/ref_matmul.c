/* Sections 2 and 8: the matrix product, element by element. */
#include "math/ref/ref.h"

void REF(mm_blocking)(const struct REF_STRUCT(mm) * mm, size_t threads, const struct lk_caches *caches, size_t *tile_rows,
                      size_t *tile_columns, bool *transposed) {
    (void)mm, (void)threads, (void)caches;
    *tile_rows = *tile_columns = 64, *transposed = false;
}

/* One part's segments added to the total t. */
static real add_part(const struct REF_STRUCT(mm_part) * p, size_t i, size_t j, real t) {
    for (size_t k0 = 0; k0 < p->k; k0 += LK__SEGMENT) {
        size_t k1 = k0 + LK__SEGMENT < p->k ? k0 + LK__SEGMENT : p->k;
        real s = 0;
        for (size_t k = k0; k < k1; k++)
            s = REF(fma)(p->a[i * p->a_row + k * p->a_col], p->b[k * p->b_row + j * p->b_col], s);
        t = t + s;
    }
    return t;
}

static real element(const struct REF_STRUCT(mm) * mm, size_t i, size_t j) {
    /* The tree over groups: a stack of finished nodes, one for each bit that is set in the number of groups so far. */
    real stack[LK__TREE_LEVELS];
    size_t nodes = 0, groups = 0;
    real t = mm->accumulate ? mm->c[i * mm->ldc + j] : 0;
    for (size_t p = 0; p < mm->part_count; p++) {
        t = add_part(&mm->parts[p], i, j, t);
        if (!mm->parts[p].ends_group && p + 1 < mm->part_count) continue;
        for (size_t g = groups++; g & 1; g >>= 1) t = stack[--nodes] + t;
        stack[nodes++] = t;
        t = 0;
    }
    if (!nodes) return t;
    t = stack[--nodes];
    while (nodes) t = stack[--nodes] + t;
    return t;
}

void REF(mm_tile)(const struct REF_STRUCT(mm) * mm, size_t i0, size_t i1, size_t j0, size_t j1,
                  const struct lk_caches *caches, void *scratch) {
    (void)caches, (void)scratch;
    for (size_t i = i0; i < i1; i++)
        for (size_t j = j0; j < j1; j++) {
            real t = element(mm, i, j);
            if (mm->bias) t = t + mm->bias[j];
            if (mm->residual) t = mm->residual[i * mm->ld_residual + j] + t;
            mm->c[i * mm->ldc + j] = t;
        }
}

void REF(column_sum)(size_t n, const real *y, size_t ldy, const real *factor, size_t ld_factor,
                     const struct lk_row_part *parts, size_t part_count, bool accumulate, real *out) {
    for (size_t j = 0; j < n; j++) {
        real stack[LK__TREE_LEVELS];
        size_t nodes = 0, groups = 0;
        real t = accumulate ? out[j] : 0;
        for (size_t p = 0; p < part_count; p++) {
            real s = 0;
            for (size_t row = 0; row < parts[p].rows; row++) {
                size_t at = parts[p].first + row;
                s = factor ? REF(fma)(factor[at * ld_factor + j], y[at * ldy + j], s) : s + y[at * ldy + j];
                if ((row + 1) % LK__SEGMENT == 0 || row + 1 == parts[p].rows) {
                    t = t + s;
                    s = 0;
                }
            }
            if (!parts[p].ends_group && p + 1 < part_count) continue;
            for (size_t g = groups++; g & 1; g >>= 1) t = stack[--nodes] + t;
            stack[nodes++] = t;
            t = 0;
        }
        if (nodes) t = stack[--nodes];
        while (nodes) t = stack[--nodes] + t;
        out[j] = t;
    }
}
