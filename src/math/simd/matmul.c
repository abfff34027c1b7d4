/* Matrix products on vectors: tiles of C, cut so that a tile's packed B (one segment of k) stays in the L2 cache and a
 * packed panel of A in L1. Order of loops inside a tile:
 *
 *   for each group, part, segment of k (512):        one chain of fma each, as the contract says
 *     pack B: 512 x tile columns
 *     for each panel of MICRO_ROWS rows:             pack A just before its use: 14 x 512 floats fit in L1
 *       for each panel of MICRO_COLUMNS columns:     micro-kernel, adds to the tile's totals
 *
 * Totals are kept in scratch, a micro tile's lie together; so edges need no masks, C may be the residual, and the tree over
 * groups (grains) is made tile by tile in cache: a stack of at most log2(groups) + 1 totals. */
#include "math/kernel_table.h"
#include "math/simd/matmul_few.h"
#include "math/simd/matmul_micro.h"
#include "math/simd/matmul_pack.h"

#define TILE_COLUMNS      256
#define TILE_COLUMNS_MOST 512
#define TILE_ROWS_MOST    560
#define TOTALS_FLOATS     (TILE_ROWS_MOST * (TILE_COLUMNS_MOST + MICRO_COLUMNS))
#define AHEAD             8  /* rows asked for ahead */
#define SLACK             64 /* whole vectors may be written past a panel's end */
#define A_PANELS          8  /* of a transposed A, packed at once */
#define A_PANEL           (MICRO_ROWS * SEGMENT + SLACK)
#define A_FLOATS          (A_PANELS * A_PANEL)
#define B_FLOATS          ((384 + MICRO_COLUMNS) * 384 + SLACK) /* more than (256 + ..) x 512 and (512 + ..) x 256 */

static size_t round_up(size_t x, size_t to) {
    return (x + to - 1) / to * to;
}
static size_t smaller(size_t a, size_t b) {
    return a < b ? a : b;
}

static size_t stack_depth(const struct lk_mm *mm) {
    size_t groups = 1, depth = 1;
    bool single = true; /* every group one segment: see joins_sibling */
    for (size_t p = 0; p < mm->part_count; p++) {
        if (p + 1 < mm->part_count) groups += mm->parts[p].ends_group, single &= mm->parts[p].ends_group;
        single &= mm->parts[p].k > 0 && mm->parts[p].k <= SEGMENT;
    }
    for (size_t g = groups; g > 1; g = (g + 1) / 2) depth++;
    return depth - (groups > 1 && single);
}

/* Columns of a tile: packing A costs 1/columns of the work, so as many as leave B half of a 1 MiB L2; a short k leaves room
 * for more, but totals of many groups do not. */
static size_t columns_most(const struct lk_mm *mm, size_t depth) {
    size_t k = 0;
    for (size_t p = 0; p < mm->part_count; p++) k = mm->parts[p].k > k ? mm->parts[p].k : k;
    if (k > 384 || depth > 1) return TILE_COLUMNS;
    return k > 256 ? 384 : TILE_COLUMNS_MOST;
}

/* Part of the time that `threads` lose when that many equal tiles are shared out. */
static float unfair(size_t tiles, size_t threads) {
    return (float)((tiles + threads - 1) / threads * threads) / (float)tiles - 1;
}

/* A guess of a cut's time, 1 for multiplying alone. 10 and 18: packing A took 4% with 256 columns, packing B 3.5% with 512
 * rows, where they come from the third level cache. Tiles that share out evenly over more threads than there are stay even
 * when one thread is held up. */
static float cost(const struct lk_mm *mm, size_t threads, size_t across, size_t down) {
    float packing = 10.0f * (float)across / (float)mm->n + 18.0f * (float)down / (float)mm->m;
    size_t tiles = across * down;
    if (threads == 1) return 1 + packing;
    return (1 + packing) *
           (1 + 0.5f * unfair(tiles, threads) + 0.2f * unfair(tiles, 2 * threads) + 0.05f * unfair(tiles, 4 * threads));
}

static void mm_cut(const struct lk_mm *mm, size_t threads, size_t *tile_rows, size_t *tile_columns) {
    if (is_few(mm)) {
        *tile_rows = FEW_ROWS;
        *tile_columns = FEW_COLUMNS;
        return;
    }
    size_t depth = stack_depth(mm), columns = columns_most(mm, depth), across = (mm->n + columns - 1) / columns;
    size_t rows = smaller(TOTALS_FLOATS / (depth * (columns + MICRO_COLUMNS)), TILE_ROWS_MOST) / MICRO_ROWS * MICRO_ROWS;
    if (rows < MICRO_ROWS) rows = MICRO_ROWS;
    size_t down = (mm->m + rows - 1) / rows, best_across = across, best_down = down;
    for (size_t a = across; a < across + 12 && (a == across || mm->n / a >= 64); a++)
        for (size_t d = down; d < down + 8 && (d == down || mm->m / d >= 64); d++)
            if (cost(mm, threads, a, d) < cost(mm, threads, best_across, best_down)) best_across = a, best_down = d;
    *tile_columns = round_up((mm->n + best_across - 1) / best_across, MICRO_COLUMNS);
    *tile_rows = round_up((mm->m + best_down - 1) / best_down, MICRO_ROWS);
}

/* One tile in work. */
struct tile {
    const struct lk_mm *mm;
    size_t i0, i1, j0, j1, columns; /* columns: rounded up to whole vectors */
    float *a, *b;
    float *totals;       /* the group in work */
    size_t size;         /* floats of totals */
    bool fresh;          /* totals hold nothing yet: they stand for +0 */
    const float *next_b; /* what will be packed next, or NULL */
    size_t next_step;    /* its stride that is not 1 */
};

static size_t vectors_at(const struct tile *t, size_t j) {
    return smaller(MICRO_VECTORS, (t->columns - j) / VL);
}

/* k rows of B, k-th row at from + k * ld: a page each, so a row's lines are asked for some rows ahead. */
static void pack_b_across(const struct tile *t, const float *from, size_t ld, size_t kc) {
    size_t n = t->j1 - t->j0, whole = n / MICRO_COLUMNS * MICRO_COLUMNS;
    for (size_t k = 0; k < kc; k++, from += ld) {
        const float *ahead = from + smaller(AHEAD, kc - 1 - k) * ld;
        float *to = t->b + k * MICRO_COLUMNS;
        for (size_t j = 0; j < whole; j += MICRO_COLUMNS, to += kc * MICRO_COLUMNS) {
            for (size_t v = 0; v < MICRO_COLUMNS; v += 16) __builtin_prefetch(ahead + j + v, 0, 3);
            for (size_t v = 0; v < MICRO_COLUMNS; v += VL) v_store(to + v, v_load(from + j + v));
        }
        if (whole == n) continue;
        __builtin_prefetch(ahead + whole, 0, 3);
        to = t->b + whole * kc + k * (t->columns - whole);
        for (size_t j = whole; j < n; j += VL, to += VL) v_store(to, v_load_n(from + j, smaller(VL, n - j)));
    }
}

static void pack_b(const struct tile *t, const struct lk_mm_part *p, size_t k0, size_t kc) {
    const float *from = p->b + k0 * p->b_row + t->j0 * p->b_col;
    if (p->b_col == 1) {
        pack_b_across(t, from, p->b_row, kc);
        return;
    }
    for (size_t j = 0; j < t->columns; j += VL) {
        size_t panel = j / MICRO_COLUMNS * MICRO_COLUMNS, n = smaller(VL, t->j1 - t->j0 - j);
        const float *rows = from + j * p->b_col, *ahead = t->j1 - t->j0 >= j + 2 * VL ? rows + VL * p->b_col : NULL;
        pack_along_vector(kc, n, rows, p->b_col, t->b + panel * kc + (j - panel), vectors_at(t, panel) * VL, ahead);
    }
}

/* A panel: rows i .. i + rows of A: to[k * rows + row]. A last vector that is not full overlaps the next k's place, whose
 * own values are written after it: k ascends, and later vectors go first. */
static void pack_a_along(const struct lk_mm_part *p, size_t i, size_t rows, size_t k0, size_t kc, float *to) {
    const float *from = p->a + i * p->a_row + k0;
    for (size_t v = round_up(rows, VL); v > 0;) {
        v -= VL;
        pack_along_vector(kc, smaller(VL, rows - v), from + v * p->a_row, p->a_row, to + v, rows, NULL);
    }
}

/* Several panels at once: the rows of k are far apart (often pages of their own, in few sets of the caches), so a visit
 * should take all it can. Both what is read and what is written is asked for ahead: eight streams are more than the
 * hardware follows. */
static void pack_a_across(const struct lk_mm_part *p, size_t i, size_t rows, size_t k0, size_t kc, float *to) {
    const float *from = p->a + i + k0 * p->a_col;
    size_t whole = rows / MICRO_ROWS * MICRO_ROWS, rest = rows - whole;
    for (size_t k = 0; k < kc; k++, from += p->a_col) {
        const float *ahead = from + smaller(AHEAD, kc - 1 - k) * p->a_col;
        float *panel = to + k * MICRO_ROWS;
        for (size_t r = 0; r < rows; r += 16) __builtin_prefetch(ahead + r, 0, 3);
        for (size_t r = 0; r < whole; r += MICRO_ROWS, panel += A_PANEL) {
            __builtin_prefetch(panel + AHEAD * MICRO_ROWS, 1, 3);
            for (size_t v = (MICRO_ROWS - 1) / VL * VL + VL; v > 0;) {
                v -= VL;
                v_store(panel + v, v_load_n(from + r + v, smaller(VL, MICRO_ROWS - v)));
            }
        }
        if (!rest) continue;
        panel = to + whole / MICRO_ROWS * A_PANEL + k * rest;
        for (size_t v = round_up(rest, VL); v > 0;) {
            v -= VL;
            v_store(panel + v, v_load_n(from + whole + v, smaller(VL, rest - v)));
        }
    }
}

/* Packs what row panel i needs, unless it is there; returns it. */
static const float *panel_of_a(const struct tile *t, const struct lk_mm_part *p, size_t i, size_t k0, size_t kc) {
    if (p->a_col == 1) {
        pack_a_along(p, i, smaller(MICRO_ROWS, t->i1 - i), k0, kc, t->a);
        return t->a;
    }
    size_t at = (i - t->i0) / MICRO_ROWS % A_PANELS;
    if (at == 0) pack_a_across(p, i, smaller(A_PANELS * MICRO_ROWS, t->i1 - i), k0, kc, t->a);
    return t->a + at * A_PANEL;
}

/* What the n-th micro-kernel before row panel i asks for: two rows of A, or a line of each k where A is transposed; before
 * the first panel of the next segment, two lines of each row of its B. */
static struct lk__ahead ask_ahead(const struct tile *t, const struct lk_mm_part *p, size_t i, size_t n, size_t k0,
                                  const float *hot) {
    if (i >= t->i1 && t->next_b && 32 * n < SEGMENT)
        return (struct lk__ahead){t->next_b + 32 * n, t->next_b + 32 * n + 16, t->next_step};
    const float *from = p->a + i * p->a_row + k0 * p->a_col;
    if (p->a_col == 1) {
        if (i + 2 * n + 1 >= t->i1 || 2 * n >= MICRO_ROWS) return (struct lk__ahead){hot, hot, 0};
        return (struct lk__ahead){from + 2 * n * p->a_row, from + (2 * n + 1) * p->a_row, 1};
    }
    if ((i - t->i0) / MICRO_ROWS % A_PANELS || i + 16 * n >= t->i1) return (struct lk__ahead){hot, hot, 0};
    return (struct lk__ahead){from + 16 * n, from + 16 * n, p->a_col};
}

/* The lines of C that this panel will be written to. */
static void prefetch_c(const struct tile *t, size_t i, size_t rows, size_t j, size_t columns) {
    float *c = t->mm->c + i * t->mm->ldc + t->j0 + j;
    for (size_t r = 0; r < rows; r++)
        for (size_t v = 0; v < columns; v += 16) __builtin_prefetch(c + r * t->mm->ldc + v, 1, 3);
}

static void finish(const struct tile *t, size_t i, size_t rows);

/* last: this segment completes C, each panel of rows is finished while its totals are in L1. */
static void add_segment(struct tile *t, const struct lk_mm_part *p, size_t k0, size_t kc, bool last) {
    pack_b(t, p, k0, kc);
    for (size_t i = t->i0; i < t->i1; i += MICRO_ROWS) {
        size_t rows = smaller(MICRO_ROWS, t->i1 - i);
        float *totals = t->totals + (i - t->i0) * t->columns;
        const float *a = panel_of_a(t, p, i, k0, kc);
        for (size_t j = 0; j < t->columns; j += MICRO_COLUMNS) {
            size_t vectors = vectors_at(t, j);
            if (last) prefetch_c(t, i, rows, j, vectors * VL);
            struct lk__ahead ahead = ask_ahead(t, p, i + MICRO_ROWS, j / MICRO_COLUMNS, k0, a);
            lk__micro[rows - 1][vectors - 1](kc, a, rows, t->b + j * kc, vectors * VL, totals + j * rows, vectors * VL,
                                             t->fresh ? MICRO_STORE : MICRO_ADD, &ahead);
        }
        if (last) finish(t, i, rows);
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

/* Rows i .. i + rows: a panel. */
LK_INLINE void each_vector(const struct tile *t, size_t i, size_t rows, vector_fn *fn) {
    for (size_t r = 0; r < rows; r++)
        for (size_t j = 0; j < t->columns; j += VL) {
            size_t panel = j / MICRO_COLUMNS * MICRO_COLUMNS, ld = vectors_at(t, panel) * VL, column = t->j0 + j;
            float *x = t->totals + (i - t->i0) * t->columns + panel * rows + r * ld + (j - panel);
            fn(t->mm, x, i + r, column, smaller(VL, t->j1 - column));
        }
}

static void load_totals(struct tile *t) {
    for (size_t i = t->i0; i < t->i1; i += MICRO_ROWS) each_vector(t, i, smaller(MICRO_ROWS, t->i1 - i), load_vector);
    t->fresh = false;
}

static void finish(const struct tile *t, size_t i, size_t rows) {
    each_vector(t, i, rows, finish_vector);
}

static void add_totals(const struct tile *t, float *left, const float *right) {
    for (size_t e = 0; e < t->size; e += VL) v_store(left + e, v_add(v_load(left + e), v_load(right + e)));
}

/* A group of one segment that is a right child adds it to its left sibling at once: t + (+0 + s) is t + s, since no total
 * is ever -0. With grains of one short sequence that halves the traffic of totals. */
static bool joins_sibling(const struct lk_mm *mm, size_t q, size_t groups) {
    bool alone = (q == 0 || mm->parts[q - 1].ends_group) && (mm->parts[q].ends_group || q + 1 == mm->part_count);
    return groups & 1 && alone && mm->parts[q].k > 0 && mm->parts[q].k <= SEGMENT;
}

static void few_tile(const struct lk_mm *mm, size_t j0, size_t j1) {
    for (size_t j = j0; j < j1; j += VL) {
        vf totals[FEW_ROWS];
        float x[VL];
        few_totals(mm, j, j1, totals);
        for (size_t r = 0; r < mm->m; r++) {
            v_store(x, totals[r]);
            finish_vector(mm, x, r, j, smaller(VL, j1 - j));
        }
    }
}

static void mm_tile(const struct lk_mm *mm, size_t i0, size_t i1, size_t j0, size_t j1, void *scratch) {
    if (is_few(mm)) {
        few_tile(mm, j0, j1);
        return;
    }
    struct tile t = {.mm = mm, .i0 = i0, .i1 = i1, .j0 = j0, .j1 = j1, .columns = round_up(j1 - j0, VL), .fresh = true};
    t.a = scratch, t.b = t.a + A_FLOATS, t.totals = t.b + B_FLOATS;
    t.size = (i1 - i0) * t.columns;
    if (mm->accumulate) load_totals(&t);
    size_t groups = 0; /* finished; below t.totals lies one total for each one bit of it */
    for (size_t q = 0; q < mm->part_count; q++) {
        const struct lk_mm_part *p = &mm->parts[q];
        bool last = q + 1 == mm->part_count;
        bool joins = joins_sibling(mm, q, groups);
        if (joins) t.totals -= t.size, t.fresh = false;
        for (size_t k0 = 0; k0 < p->k; k0 += SEGMENT) {
            const struct lk_mm_part *next = k0 + SEGMENT < p->k ? p : last ? NULL : p + 1;
            t.next_b = next && next->b_col == 1 ? next->b + j0 + (next == p ? (k0 + SEGMENT) * p->b_row : 0) : NULL;
            t.next_step = t.next_b ? next->b_row : 0;
            add_segment(&t, p, k0, smaller(SEGMENT, p->k - k0), last && !groups && k0 + SEGMENT >= p->k);
        }
        if (last && !groups && p->k) return;
        if (!p->ends_group && !last) continue;
        if (t.fresh) memset(t.totals, 0, t.size * sizeof *t.totals);
        for (size_t bits = groups++; bits & 1; bits >>= 1, joins = false) {
            if (joins) continue;
            add_totals(&t, t.totals - t.size, t.totals);
            t.totals -= t.size;
        }
        if (!last) t.totals += t.size, t.fresh = true;
    }
    /* What is left has no right sibling: it passes up until it is one. */
    for (float *bottom = t.b + B_FLOATS; t.totals > bottom; t.totals -= t.size) add_totals(&t, t.totals - t.size, t.totals);
    for (size_t i = i0; i < i1; i += MICRO_ROWS) finish(&t, i, smaller(MICRO_ROWS, i1 - i));
}

void LK_ISA_NAME(lk__fill_matmul)(struct lk__kernels *);
void LK_ISA_NAME(lk__fill_matmul)(struct lk__kernels *k) {
    k->mm_scratch_bytes = (A_FLOATS + B_FLOATS + TOTALS_FLOATS + SLACK) * sizeof(float);
    k->mm_cut = mm_cut;
    k->mm_tile = mm_tile;
}
