/* Matrix products on vectors: tiles of C, cut so that a tile's packed B (one segment of k) stays in the L2 cache and a packed
 * panel of A in L1. Order of loops inside a tile:
 *
 *   for each group, part, segment of k (512):        one chain of fma each, as the contract says
 *     pack B: 512 x tile columns
 *     for each panel of MICRO_ROWS rows:             pack A just before its use: 14 x 512 floats fit in L1
 *       for each panel of MICRO_COLUMNS columns:     micro-kernel, adds to the tile's totals
 *
 * Totals are kept in scratch, a micro tile's lie together; so edges need no masks, C may be the residual, and the tree over
 * groups (grains) is made tile by tile in cache: a stack of at most log2(groups) + 1 totals. */
#include "math/kernel_table.h"
#include "math/simd/matmul_micro.h"
#include "math/simd/matmul_pack.h"

#define TILE_COLUMNS 256
#define TILE_ROWS_MOST 512
#define TOTALS_FLOATS (TILE_ROWS_MOST * TILE_COLUMNS * 2)
#define SLACK 64 /* whole vectors may be written past a panel's end */
#define A_FLOATS (MICRO_ROWS * SEGMENT + SLACK)
#define B_FLOATS ((TILE_COLUMNS + MICRO_COLUMNS) * SEGMENT + SLACK)

static size_t round_up(size_t x, size_t to) { return (x + to - 1) / to * to; }
static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

static size_t stack_depth(const struct lk_mm *mm) {
    size_t groups = 1, depth = 1;
    for (size_t p = 0; p + 1 < mm->part_count; p++) groups += mm->parts[p].ends_group;
    for (; groups > 1; groups = (groups + 1) / 2) depth++;
    return depth;
}

static void mm_cut(const struct lk_mm *mm, size_t *tile_rows, size_t *tile_columns) {
    size_t across = (mm->n + TILE_COLUMNS - 1) / TILE_COLUMNS;
    *tile_columns = round_up((mm->n + across - 1) / across, MICRO_COLUMNS);
    size_t most = TOTALS_FLOATS / (stack_depth(mm) * *tile_columns) / MICRO_ROWS * MICRO_ROWS;
    if (most < MICRO_ROWS) most = MICRO_ROWS;
    size_t down = (mm->m + smaller(most, TILE_ROWS_MOST) - 1) / smaller(most, TILE_ROWS_MOST);
    /* A few tiles a thread at least, unless they get so flat that packing B shows. */
    while (across * down < 16 && mm->m / (down + 1) >= 192) down++;
    *tile_rows = round_up((mm->m + down - 1) / down, MICRO_ROWS);
}

/* One tile in work. */
struct tile {
    const struct lk_mm *mm;
    size_t i0, i1, j0, j1, columns; /* columns: rounded up to whole vectors */
    float *a, *b;
    float *totals;    /* the group in work */
    size_t size;      /* floats of totals */
    bool fresh;       /* totals hold nothing yet: they stand for +0 */
};

static size_t vectors_at(const struct tile *t, size_t j) { return smaller(MICRO_VECTORS, (t->columns - j) / VL); }

static void pack_b(const struct tile *t, const struct lk_mm_part *p, size_t k0, size_t kc) {
    const float *from = p->b + k0 * p->b_row;
    for (size_t j = 0; j < t->columns; j += MICRO_COLUMNS) {
        size_t ldb = vectors_at(t, j) * VL;
        float *to = t->b + j * kc;
        for (size_t v = 0; v < ldb; v += VL) {
            size_t column = t->j0 + j + v, n = smaller(VL, t->j1 - column);
            if (p->b_col == 1) {
                if (n == VL)
                    for (size_t k = 0; k < kc; k++) v_store(to + k * ldb + v, v_load(from + k * p->b_row + column));
                else
                    for (size_t k = 0; k < kc; k++) v_store(to + k * ldb + v, v_load_n(from + k * p->b_row + column, n));
            } else
                pack_along_vector(kc, n, from + column * p->b_col, p->b_col, to + v, ldb);
        }
    }
}

/* Rows i .. i + rows of A: a[k * rows + row]. A last vector that is not full overlaps the next k's place, whose own values
 * are written after it: k ascends, and later vectors go first. */
static void pack_a(const struct tile *t, const struct lk_mm_part *p, size_t i, size_t rows, size_t k0, size_t kc) {
    const float *from = p->a + i * p->a_row + k0 * p->a_col;
    for (size_t v = round_up(rows, VL); v > 0;) {
        v -= VL;
        size_t n = smaller(VL, rows - v);
        if (p->a_col == 1)
            pack_along_vector(kc, n, from + v * p->a_row, p->a_row, t->a + v, rows);
        else
            for (size_t k = 0; k < kc; k++) v_store(t->a + k * rows + v, v_load_n(from + k * p->a_col + v, n));
    }
}

static void add_segment(struct tile *t, const struct lk_mm_part *p, size_t k0, size_t kc) {
    pack_b(t, p, k0, kc);
    for (size_t i = t->i0; i < t->i1; i += MICRO_ROWS) {
        size_t rows = smaller(MICRO_ROWS, t->i1 - i);
        float *totals = t->totals + (i - t->i0) * t->columns;
        pack_a(t, p, i, rows, k0, kc);
        for (size_t j = 0; j < t->columns; j += MICRO_COLUMNS) {
            size_t vectors = vectors_at(t, j);
            lk__micro[rows - 1][vectors - 1](kc, t->a, rows, t->b + j * kc, vectors * VL, totals + j * rows, vectors * VL,
                                             t->fresh ? MICRO_STORE : MICRO_ADD);
        }
    }
    t->fresh = false;
}

/* One vector of totals and its n elements of C. */
LK_INLINE void load_vector(const struct lk_mm *mm, float *x, size_t row, size_t column, size_t n) {
    v_store(x, v_load_n(mm->c + row * mm->ldc + column, n));
}

LK_INLINE void finish_vector(const struct lk_mm *mm, float *x, size_t row, size_t column, size_t n) {
    float *c = mm->c + row * mm->ldc + column;
    const float *residual = mm->residual ? mm->residual + row * mm->ld_residual + column : NULL;
    vf y = v_load(x);
    if (n == VL) {
        if (mm->bias) y = v_add(y, v_load(mm->bias + column));
        if (residual) y = v_add(v_load(residual), y);
        v_store(c, y);
    } else {
        if (mm->bias) y = v_add(y, v_load_n(mm->bias + column, n));
        if (residual) y = v_add(v_load_n(residual, n), y);
        v_store_n(c, y, n);
    }
}

typedef void vector_fn(const struct lk_mm *mm, float *x, size_t row, size_t column, size_t n);

LK_INLINE void each_vector(const struct tile *t, vector_fn *fn) {
    for (size_t i = t->i0; i < t->i1; i += MICRO_ROWS) {
        size_t rows = smaller(MICRO_ROWS, t->i1 - i);
        for (size_t r = 0; r < rows; r++)
            for (size_t j = 0; j < t->columns; j += VL) {
                size_t panel = j / MICRO_COLUMNS * MICRO_COLUMNS, ld = vectors_at(t, panel) * VL, column = t->j0 + j;
                float *x = t->totals + (i - t->i0) * t->columns + panel * rows + r * ld + (j - panel);
                fn(t->mm, x, i + r, column, smaller(VL, t->j1 - column));
            }
    }
}

static void load_totals(struct tile *t) {
    each_vector(t, load_vector);
    t->fresh = false;
}

static void finish(const struct tile *t) { each_vector(t, finish_vector); }

static void add_totals(const struct tile *t, float *left, const float *right) {
    for (size_t e = 0; e < t->size; e += VL) v_store(left + e, v_add(v_load(left + e), v_load(right + e)));
}

static void mm_tile(const struct lk_mm *mm, size_t i0, size_t i1, size_t j0, size_t j1, void *scratch) {
    struct tile t = {.mm = mm, .i0 = i0, .i1 = i1, .j0 = j0, .j1 = j1, .columns = round_up(j1 - j0, VL), .fresh = true};
    t.a = scratch, t.b = t.a + A_FLOATS, t.totals = t.b + B_FLOATS;
    t.size = (i1 - i0) * t.columns;
    if (mm->accumulate) load_totals(&t);
    size_t groups = 0; /* finished; below t.totals lies one total for each one bit of it */
    for (size_t q = 0; q < mm->part_count; q++) {
        const struct lk_mm_part *p = &mm->parts[q];
        for (size_t k0 = 0; k0 < p->k; k0 += SEGMENT) add_segment(&t, p, k0, smaller(SEGMENT, p->k - k0));
        bool last = q + 1 == mm->part_count;
        if (!p->ends_group && !last) continue;
        if (t.fresh) memset(t.totals, 0, t.size * sizeof *t.totals);
        for (size_t bits = groups++; bits & 1; bits >>= 1) {
            add_totals(&t, t.totals - t.size, t.totals);
            t.totals -= t.size;
        }
        if (!last) t.totals += t.size, t.fresh = true;
    }
    /* What is left has no right sibling: it passes up until it is one. */
    for (float *bottom = t.b + B_FLOATS; t.totals > bottom; t.totals -= t.size) add_totals(&t, t.totals - t.size, t.totals);
    finish(&t);
}

void LK_ISA_NAME(lk__fill_matmul)(struct lk__kernels *);
void LK_ISA_NAME(lk__fill_matmul)(struct lk__kernels *k) {
    k->mm_scratch_bytes = (A_FLOATS + B_FLOATS + TOTALS_FLOATS + SLACK) * sizeof(float);
    k->mm_cut = mm_cut;
    k->mm_tile = mm_tile;
}
