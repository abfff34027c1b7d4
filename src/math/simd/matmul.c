/* Matrix products on vectors: the loops of blocked/blocked_matmul.c, which is to be read first, under the same names. What
 * is different is for speed alone:
 *
 *   driver (matmul.c)  3rd and 5th loop: tiles of C, at most MC rows high, shared out to the threads
 *     4th loop           over k by KC: a batch of steps, together at most KC (matmul_steps.h); pack A
 *       5th loop           over the tile's columns by NC: pack B (160 KiB, in L2)
 *         macro-kernel       1st loop over rows by MR, 2nd loop over columns by NR
 *           micro-kernel       one for each step of the batch, then the step's place in the tree
 *
 * The micro-kernel reads an operand where it lies, if it can do that well. An A across k whose rows meet in few sets of
 * the caches is packed. Where A cannot be read so for a reason that holds for B too (see packs), both are, and the loops
 * are BLIS's own:
 *
 *     4th loop           over k by KC
 *       3rd loop           over the tile's rows by MC: pack A, panels of MR rows (half of L2)
 *         5th loop           over the tile's columns by NR: pack B when the first block of rows comes to it (L3)
 *
 * While a micro-kernel runs, it prefetches what the next panel needs. Totals lie in scratch, those of a micro-tile
 * together: so edges need no masks, C may be the residual, and L1 holds the sums of groups. docs/performance.md says what
 * each of these is worth. */
#include "math/simd/matmul_blocking.h"
#include "math/simd/matmul_pack.h"
#include "math/simd/matmul_skinny.h"
#include <stdio.h>

#define STREAM_LEAST (4 << 20) /* floats of C that will not stay in a cache */
/* Strides of packed operands: an odd number of cache lines, which spreads over all sets of the caches. */
#define LD_B     (NC + 16)
#define PANEL_A  (MR * (KC + 3))
#define PANEL_B  (NR * KC + 16)
#define A_FLOATS (((MC_PACKED_MOST > MC_ACROSS ? MC_PACKED_MOST : MC_ACROSS) / MR * PANEL_A + 15) / 16 * 16)
#define B_FLOATS (COLUMNS_PACKED / NR * PANEL_B)
_Static_assert(B_FLOATS >= KC * LD_B, "both ways of packing have room");

/* The tile of C at work: rows [i0, i1), columns [j0, j1); of C' where the product is transposed. */
struct tile {
    const struct lk_mm *mm;
    bool transposed;
    size_t i0, i1, j0, j1, columns; /* columns: rounded up to whole vectors */
    bool packs;                     /* both operands, in panels */
    bool packs_a;                   /* A at least */
    size_t mc;                      /* rows of a block of A; a multiple of MR */
    float *packed_a, *packed_b, *totals;
    size_t depth; /* of the tree's stack */
    size_t block; /* of A: its first row, from i0 */
    bool keeps;   /* all micro-tiles' totals, from batch to batch */
    bool streams; /* C is written past the caches */
    /* Of the batch's steps: A from the block's first row, B from the panel's first column. */
    struct operand a[BATCH_STEPS], b[BATCH_STEPS];
};

static size_t vectors_at(const struct tile *t, size_t j) {
    return smaller(NR_VECTORS, (t->columns - j) / VL);
}

/* The tree's stack of the micro-tile at row i (from i0) and column j (from j0). */
static float *totals_at(const struct tile *t, size_t i, size_t j, size_t width) {
    return t->keeps ? t->totals + t->depth * (j * (t->i1 - t->i0) + i * width) : t->totals;
}

/* Rows i .. i + rows of A in panels, for one step. */
static struct operand panels_of_a(struct tile *t, const struct step *s, struct operand a, size_t i, size_t rows) {
    float *to = t->packed_a + s->at * MR;
    for (size_t r = 0; a.k == 1 && r < rows; r += MR)
        panel_along(MR, smaller(MR, rows - r), s->k, a.x + r * a.step, a.step, to + r / MR * PANEL_A,
                    t->i0 + i + r + 2 * MR <= t->i1 ? a.x + (r + MR) * a.step : NULL);
    if (a.k != 1) panels_across(MR, rows, s->k, a.x, a.k, to, PANEL_A);
    return (struct operand){to, PANEL_A / MR, MR};
}

/* A of a batch, rows i .. i + rows: where it lies, or packed. */
static void pack_a(struct tile *t, const struct batch *batch, size_t i, size_t rows) {
    for (size_t q = 0; q < batch->count; q++) {
        const struct step *s = &batch->steps[q];
        struct operand a = operand_a(s->part, t->transposed);
        a.x += (t->i0 + i) * a.step + s->k0 * a.k;
        t->a[q] = t->packs_a ? panels_of_a(t, s, a, i, rows) : a;
    }
}

/* Columns j .. j + n (<= NR) of B as a panel; `fresh` unless an earlier block of rows has made it. */
static void panel_of_b(struct tile *t, const struct batch *batch, size_t j, size_t n, bool fresh) {
    for (size_t q = 0; q < batch->count; q++) {
        const struct step *s = &batch->steps[q];
        struct operand b = operand_b(s->part, t->transposed);
        float *to = t->packed_b + (t->mc < t->i1 - t->i0 ? j / NR * PANEL_B : 0) + s->at * NR;
        t->b[q] = (struct operand){to, 1, NR};
        if (!fresh) continue;
        size_t columns = smaller(n, t->j1 - t->j0 - j);
        b.x += (t->j0 + j) * b.step + s->k0 * b.k;
        if (b.k == 1)
            panel_along(NR, columns, s->k, b.x, b.step, to, NULL);
        else
            panels_across(NR, columns, s->k, b.x, b.k, to, 0);
    }
}

/* B of a batch, columns j .. j + n: where it lies if its rows are whole vectors; else packed, transposed if need be. */
static void pack_b(struct tile *t, const struct batch *batch, size_t j, size_t n) {
    for (size_t q = 0; q < batch->count; q++) {
        const struct step *s = &batch->steps[q];
        struct operand b = operand_b(s->part, t->transposed);
        b.x += (t->j0 + j) * b.step + s->k0 * b.k;
        t->b[q] = b;
        if (b.k != 1 && n % VL == 0 && !same_sets(b.k)) continue;
        float *to = t->packed_b + s->at * LD_B;
        t->b[q] = (struct operand){to, 1, LD_B};
        if (b.k != 1) copy_rows(s->k, n, b.x, b.k, to, LD_B);
        for (size_t v = 0; b.k == 1 && v < n; v += VL)
            pack_along_vector(s->k, smaller(VL, n - v), b.x + v * b.step, b.step, to + v, LD_B,
                              n - v >= 2 * VL ? b.x + (v + VL) * b.step : NULL);
    }
}

#define VECTORS_OF(tile, v) for (size_t v = 0; v < (tile)->size; v += VL)
/* Rows i .. i + rows, columns j .. j + width of the tile: MR x NR, or less at its edges. */
struct microtile {
    size_t i, rows, j, width, size;
    float *totals;
};

/* What the n-th micro-kernel of a macro-kernel prefetches: of the next panel of B two rows along k, or a cache line of each
 * k, or what is packed of it; after that, the next panel of A, where it lies across k, or the micro-tile's totals. */
static struct lk__math_prefetch next_prefetch(const struct tile *t, const struct step *s, const struct microtile *x,
                                              const struct step *next, size_t next_j, size_t n, const float *totals) {
    struct operand b = operand_b((next ? next : s)->part, t->transposed), a = operand_a(s->part, t->transposed);
    const float *from = b.x + (t->j0 + next_j) * b.step + (next ? next : s)->k0 * b.k;
    size_t columns = next_j < t->j1 - t->j0 ? smaller(t->packs ? NR : NC, t->j1 - t->j0 - next_j) : 0;
    if (t->block && !next) {
        const float *packed = t->packed_b + next_j / NR * PANEL_B + 2 * KC * n;
        bool there = columns && 2 * n < NR;
        return (struct lk__math_prefetch){packed, packed + KC, 2 * there};
    }
    if (b.k == 1 && 2 * n + 1 < columns)
        return (struct lk__math_prefetch){from + 2 * n * b.step, from + (2 * n + 1) * b.step, 2};
    if (b.k != 1 && 16 * n < columns) return (struct lk__math_prefetch){from + 16 * n, from + 16 * n + b.k, 2 * b.k};
    if (!t->packs_a && a.k != 1 && x->j % NC == 0) {
        from = a.x + t->i0 + x->i + MR + s->k0 * a.k;
        return (struct lk__math_prefetch){from, from + a.k, 2 * a.k};
    }
    return (struct lk__math_prefetch){totals, totals + 16, t->keeps ? 32 : 0};
}

/* All steps of the batch on one micro-tile, whose columns begin `from` columns into the panel of B. */
static void run_micro_kernels(const struct tile *t, const struct batch *batch, const struct microtile *x, size_t from,
                              const struct step *next, size_t next_j, size_t n) {
    for (size_t q = 0; q < batch->count; q++) {
        const struct step *s = &batch->steps[q];
        struct operand a = t->a[q], b = t->b[q];
        float *total = x->totals + s->level * x->size;
        struct lk__math_prefetch prefetch = next_prefetch(t, s, x, next, next_j, n, total);
        lk__math_micro[x->rows - 1][x->width / VL - 1](s->k, a.x + (x->i - t->block) * a.step, t->packs_a ? 1 : a.step, a.k,
                                                       b.x + from, b.k, total, x->width, s->add ? MICRO_ADD : MICRO_STORE,
                                                       &prefetch);
        for (unsigned m = 0; m < s->merges; m++, total -= x->size)
            VECTORS_OF(x, v) v_store(total - x->size + v, v_add(v_load(total - x->size + v), v_load(total + v)));
    }
}

/* The cache lines of C that the micro-tile will be stored to. */
static void prefetch_c(const struct tile *t, const struct microtile *x) {
    size_t i = t->i0 + x->i, j = t->j0 + x->j, rows = x->rows, columns = x->width;
    if (t->transposed) i = t->j0 + x->j, j = t->i0 + x->i, rows = smaller(x->width, t->j1 - i), columns = x->rows;
    for (size_t r = 0; r < rows; r++)
        for (size_t v = 0; v < columns; v += 16) __builtin_prefetch(t->mm->c + (i + r) * t->mm->ldc + j + v, 1, 3);
}

/* n elements of C from totals y: bias, then residual. */
LK_INLINE void store_vector(const struct lk_mm *mm, vf y, size_t row, size_t column, size_t n) {
    float *c = mm->c + row * mm->ldc + column;
    const float *residual = mm->residual ? mm->residual + row * mm->ld_residual + column : NULL;
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

static void store_edge(const struct tile *t, const struct microtile *x) {
    for (size_t r = 0; r < x->rows; r++)
        for (size_t v = 0; v < x->width; v += VL) {
            size_t column = t->j0 + x->j + v;
            store_vector(t->mm, v_load(x->totals + r * x->width + v), t->i0 + x->i + r, column,
                         smaller(VL, t->j1 - column));
        }
}

/* A whole micro-tile; bias, residual and streams are constants at each use. */
LK_INLINE void store_whole(const struct tile *t, const struct microtile *x, const bool bias, const bool residual,
                           const bool streams) {
    const struct lk_mm *mm = t->mm;
    size_t row = t->i0 + x->i, column = t->j0 + x->j;
    float *c = mm->c + row * mm->ldc + column;
    const float *from = x->totals, *add = residual ? mm->residual + row * mm->ld_residual + column : NULL;
    vf b[NR_VECTORS];
    UNROLL
    for (size_t v = 0; v < NR_VECTORS; v++) b[v] = bias ? v_load(mm->bias + column + v * VL) : v_zero();
    for (size_t r = 0; r < x->rows; r++, c += mm->ldc, from += NR) {
        UNROLL
        for (size_t v = 0; v < NR_VECTORS; v++) {
            vf y = v_load(from + v * VL);
            if (bias) y = v_add(y, b[v]);
            if (residual) y = v_add(v_load(add + r * mm->ld_residual + v * VL), y);
            if (streams)
                v_stream(c + v * VL, y);
            else
                v_store(c + v * VL, y);
        }
    }
}

static void store(const struct tile *t, const struct microtile *x) {
    if (x->j + NR > t->j1 - t->j0)
        store_edge(t, x);
    else if (t->mm->residual)
        t->mm->bias ? store_whole(t, x, true, true, false) : store_whole(t, x, false, true, false);
    else if (t->mm->bias)
        t->streams ? store_whole(t, x, true, false, true) : store_whole(t, x, true, false, false);
    else
        t->streams ? store_whole(t, x, false, false, true) : store_whole(t, x, false, false, false);
}

static void store_transposed(const struct tile *t, const struct microtile *x) {
    for (size_t r = 0; r < x->rows; r += VL)
        for (size_t v = 0; v < x->width; v += VL) {
            size_t rows = smaller(VL, x->rows - r), row = t->j0 + x->j + v, columns = smaller(VL, t->j1 - row);
            vf y[VL];
            UNROLL
            for (size_t e = 0; e < VL; e++) y[e] = e < rows ? v_load(x->totals + (r + e) * x->width + v) : v_zero();
            v_transpose(y);
            for (size_t e = 0; e < columns; e++) store_vector(t->mm, y[e], row + e, t->i0 + x->i + r, rows);
        }
}

static void load_microtile(const struct tile *t, const struct microtile *x) {
    for (size_t r = 0; r < x->rows; r++)
        for (size_t v = 0; v < x->width; v += VL) {
            size_t column = t->j0 + x->j + v;
            v_store(x->totals + r * x->width + v,
                    v_load_n(t->mm->c + (t->i0 + x->i + r) * t->mm->ldc + column, smaller(VL, t->j1 - column)));
        }
}

/* Columns j .. j + n of the tile, a block of rows, one batch of k. The next panel of B begins at column next_j, in the next
 * batch if `next`, its first step, is given. */
static void macro_kernel(struct tile *t, const struct batch *batch, size_t rows, size_t j, size_t n,
                         const struct step *next, size_t next_j) {
    size_t micro = 0;
    if (t->packs)
        panel_of_b(t, batch, j, n, t->block == 0);
    else
        pack_b(t, batch, j, n);
    for (size_t i = t->block; i < t->block + rows; i += MR)
        for (size_t v = 0; v < n; v += NR) {
            struct microtile x = {.i = i, .rows = smaller(MR, t->block + rows - i), .j = j + v};
            x.width = vectors_at(t, x.j) * VL, x.size = x.rows * x.width;
            x.totals = totals_at(t, i, x.j, x.width);
            if (batch->first && t->mm->accumulate) load_microtile(t, &x);
            if (batch->last && !t->streams) prefetch_c(t, &x);
            run_micro_kernels(t, batch, &x, v, next, next_j, micro++);
            if (!batch->last) continue;
            if (t->transposed)
                store_transposed(t, &x);
            else
                store(t, &x);
        }
}

/* The tile's rows in equal blocks of whole panels. */
static void cut_blocks(struct tile *t, const struct lk_caches *caches) {
    size_t panels = (t->i1 - t->i0 + MR - 1) / MR, most = t->packs ? mc_packed(caches) / MR : panels;
    size_t blocks = (panels + most - 1) / most;
    t->mc = (panels + blocks - 1) / blocks * MR;
}

static void run_tile(struct tile *t, const struct lk_caches *caches, void *scratch) {
    struct operand a = operand_a(t->mm->parts, t->transposed);
    t->packs = packs(t->mm, t->transposed, caches);
    t->packs_a = t->packs || (a.k != 1 && same_sets(a.k) && t->i1 - t->i0 <= MC_ACROSS);
    cut_blocks(t, caches);
    t->columns = round_up(t->j1 - t->j0, VL);
    t->packed_a = scratch, t->packed_b = t->packed_a + A_FLOATS, t->totals = t->packed_b + B_FLOATS;
    size_t nc = t->packs ? NR : NC, rows = t->i1 - t->i0;
    t->depth = stack_depth(t->mm), t->keeps = !is_one_batch(t->mm);
    t->streams = !t->transposed && !t->mm->residual && (uintptr_t)t->mm->c % 64 == 0 && t->mm->ldc % 16 == 0 &&
                 t->mm->m * t->mm->n >= STREAM_LEAST;
    struct cursor cursor = cursor_begin(t->mm);
    for (struct batch batch; next_batch(&cursor, &batch);) {
        struct cursor after = cursor;
        struct step next;
        bool more = next_step(&after, &next);
        for (t->block = 0; t->block < rows; t->block += t->mc) {
            size_t here = smaller(t->mc, rows - t->block);
            pack_a(t, &batch, t->block, here);
            for (size_t j = 0; j < t->columns; j += nc) {
                size_t n = smaller(nc, t->j1 - t->j0 - j);
                bool end = j + nc >= t->columns, ahead = end && more && t->block + t->mc >= rows;
                macro_kernel(t, &batch, here, j, n, ahead ? &next : NULL, ahead ? 0 : j + nc);
            }
        }
    }
    if (t->streams) v_stream_end();
}

static void skinny_tile(const struct lk_mm *mm, size_t j0, size_t j1) {
    for (size_t j = j0; j < j1; j += VL) {
        vf totals[SKINNY_ROWS];
        skinny_totals(mm, j, j1, totals);
        for (size_t r = 0; r < mm->m; r++) store_vector(mm, totals[r], r, j, smaller(VL, j1 - j));
    }
}

static void mm_tile(const struct lk_mm *mm, size_t i0, size_t i1, size_t j0, size_t j1, const struct lk_caches *caches,
                    void *scratch) {
    if (is_skinny(mm)) {
        skinny_tile(mm, j0, j1);
        return;
    }
    run_tile(&(struct tile){.mm = mm, .i0 = i0, .i1 = i1, .j0 = j0, .j1 = j1}, caches, scratch);
}
static void mm_tile_transposed(const struct lk_mm *mm, size_t i0, size_t i1, size_t j0, size_t j1,
                               const struct lk_caches *caches, void *scratch) {
    run_tile(&(struct tile){.mm = mm, .transposed = true, .i0 = j0, .i1 = j1, .j0 = i0, .j1 = i1}, caches, scratch);
}

static void mm_blocking(const struct lk_mm *mm, size_t threads, const struct lk_caches *caches, size_t *tile_rows,
                        size_t *tile_columns, bool *transposed) {
    struct blocking blocking = is_skinny(mm) ? (struct blocking){SKINNY_ROWS, skinny_columns(mm, threads), false}
                                             : choose_blocking(mm, threads, caches);
    *tile_rows = blocking.rows, *tile_columns = blocking.columns, *transposed = blocking.transposed;
}

static void mm_scheme(const struct lk_caches *c, char *out, size_t size) {
    const char *why = MR <= 8 ? "micro-tiles are small" : c->l2.bytes < L2_IN_PLACE ? "L2 has less than 1 MiB" : NULL;
    if (why)
        snprintf(out, size, "%d x %d micro-tiles, %zu rows packed in L2, as %s", MR, NR, mc_packed(c), why);
    else
        snprintf(out, size, "%d x %d micro-tiles, rows in place, or %zu packed where they meet in L1", MR, NR,
                 mc_packed(c));
}

void LK_ISA_NAME(lk__math_fill_matmul)(struct lk__math_kernels *);
void LK_ISA_NAME(lk__math_fill_matmul)(struct lk__math_kernels *k) {
    k->mm_scratch_bytes = (A_FLOATS + B_FLOATS + TOTALS_FLOATS) * sizeof(float);
    k->mm_blocking = mm_blocking, k->mm_scheme = mm_scheme;
    k->mm_tile = mm_tile, k->mm_tile_transposed = mm_tile_transposed;
}
