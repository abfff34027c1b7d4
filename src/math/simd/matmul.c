/* Matrix products on vectors. A tile of C, all of k:
 *
 *   for each batch of steps (at most 512 of k, matmul_steps.h):
 *     for each chunk of 64 columns:                  its B where it lies, or a copy, 160 KiB, in L2
 *       for each panel of MICRO_ROWS rows:           its A where it lies, from L2 or L3
 *         for each panel of MICRO_COLUMNS columns:   the block's steps, a micro-kernel each, and their place in the tree
 *
 * What the next chunk reads is asked for meanwhile. Totals are kept in scratch, those of a block together; so edges need no
 * masks, C may be the residual, and sums of groups are made in L1. */
#include "math/simd/matmul_cut.h"
#include "math/simd/matmul_few.h"
#include "math/simd/matmul_pack.h"

#define STREAM_LEAST (4 << 20) /* floats of C that will not stay in a cache */
/* Rows of what is copied: an odd number of lines, which spreads over all sets of the caches. */
#define LD_B     (CHUNK + 16)
#define LD_A     (ROWS_ACROSS / 32 * 32 + 48)
#define A_FLOATS (SEGMENT * LD_A)
#define B_FLOATS (SEGMENT * LD_B)

/* One tile in work: rows [i0, i1) and columns [j0, j1) of C, or of C' when it is turned. */
struct tile {
    const struct lk_mm *mm;
    bool turned;
    size_t i0, i1, j0, j1, columns; /* columns: rounded up to whole vectors */
    float *copied_a, *copied_b, *totals;
    size_t depth;                                  /* of the stack of totals */
    bool keeps;                                    /* totals of all blocks, since there are several batches */
    bool streams;                                  /* C goes past the caches */
    struct operand a[BATCH_STEPS], b[BATCH_STEPS]; /* of the steps in work: from row i0; from the chunk's first column */
};

static size_t vectors_at(const struct tile *t, size_t j) {
    return smaller(MICRO_VECTORS, (t->columns - j) / VL);
}

/* The stack of totals of the block at row i (from i0) and column j (from j0). */
static float *totals_at(const struct tile *t, size_t i, size_t j, size_t width) {
    return t->keeps ? t->totals + t->depth * (j * (t->i1 - t->i0) + i * width) : t->totals;
}

/* The tile's A of a batch: where it lies, or a copy. */
static void take_a(struct tile *t, const struct batch *batch) {
    size_t rows = t->i1 - t->i0;
    for (size_t q = 0; q < batch->count; q++) {
        const struct step *s = &batch->steps[q];
        struct operand a = operand_a(s->part, t->turned);
        a.x += t->i0 * a.step + s->k0 * a.k;
        t->a[q] = a;
        if (a.k == 1 || (MICRO_ROWS > 8 && !collide(a.k)) || rows > ROWS_ACROSS) continue;
        t->a[q] = (struct operand){t->copied_a + s->at * LD_A, 1, LD_A};
        copy_rows(s->k, rows, a.x, a.k, t->copied_a + s->at * LD_A, LD_A);
    }
}

/* B of a batch's columns j .. j + n: where it lies if that is whole vectors along a row; else a copy, turned if need be. */
static void take_b(struct tile *t, const struct batch *batch, size_t j, size_t n) {
    for (size_t q = 0; q < batch->count; q++) {
        const struct step *s = &batch->steps[q];
        struct operand b = operand_b(s->part, t->turned);
        b.x += (t->j0 + j) * b.step + s->k0 * b.k;
        t->b[q] = b;
        if (b.k != 1 && n % VL == 0 && !collide(b.k)) continue;
        float *to = t->copied_b + s->at * LD_B;
        t->b[q] = (struct operand){to, 1, LD_B};
        if (b.k != 1) copy_rows(s->k, n, b.x, b.k, to, LD_B);
        for (size_t v = 0; b.k == 1 && v < n; v += VL)
            pack_along_vector(s->k, smaller(VL, n - v), b.x + v * b.step, b.step, to + v, LD_B,
                              n - v >= 2 * VL ? b.x + (v + VL) * b.step : NULL);
    }
}

#define VECTORS_OF(block, v) for (size_t v = 0; v < (block)->size; v += VL)
/* Rows i .. i + rows, columns j .. j + width of the tile. */
struct block {
    size_t i, rows, j, width, size;
    float *totals;
};

/* What the n-th micro-kernel on a chunk asks for: of the next chunk of B two rows along k, or two lines of each k; after
 * that, the next panel of A, where it lies across k, and the block's totals. */
static struct lk__ahead ask_ahead(const struct tile *t, const struct step *s, const struct block *x,
                                  const struct step *next, size_t next_j, size_t n, const float *totals) {
    struct operand b = operand_b((next ? next : s)->part, t->turned), a = operand_a(s->part, t->turned);
    const float *from = b.x + (t->j0 + next_j) * b.step + (next ? next : s)->k0 * b.k;
    size_t columns = next_j < t->j1 - t->j0 ? smaller(CHUNK, t->j1 - t->j0 - next_j) : 0;
    if (b.k == 1 && 2 * n + 1 < columns)
        return (struct lk__ahead){from + 2 * n * b.step, from + (2 * n + 1) * b.step, 1, 1};
    if (b.k != 1 && 32 * n < columns) return (struct lk__ahead){from + 32 * n, from + 32 * n + 16, b.k, b.k};
    struct lk__ahead ahead = {totals, totals, 0, t->keeps ? 16 : 0};
    if (a.k != 1 && !collide(a.k) && x->j % CHUNK == 0)
        ahead.p = a.x + t->i0 + x->i + MICRO_ROWS + s->k0 * a.k, ahead.p_step = a.k;
    return ahead;
}

/* The block's steps; its columns begin `from` columns into the chunk. */
static void run_steps(const struct tile *t, const struct batch *batch, const struct block *x, size_t from,
                      const struct step *next, size_t next_j, size_t n) {
    for (size_t q = 0; q < batch->count; q++) {
        const struct step *s = &batch->steps[q];
        struct operand a = t->a[q], b = t->b[q];
        float *total = x->totals + s->level * x->size;
        struct lk__ahead ahead = ask_ahead(t, s, x, next, next_j, n, total);
        lk__micro[x->rows - 1][x->width / VL - 1](s->k, a.x + x->i * a.step, a.step, a.k, b.x + from, b.k, total, x->width,
                                                  s->add ? MICRO_ADD : MICRO_STORE, &ahead);
        for (unsigned m = 0; m < s->merges; m++, total -= x->size)
            VECTORS_OF(x, v) v_store(total - x->size + v, v_add(v_load(total - x->size + v), v_load(total + v)));
    }
}

/* The lines of C that the block will be written to. */
static void prefetch_c(const struct tile *t, const struct block *x) {
    size_t i = t->i0 + x->i, j = t->j0 + x->j, rows = x->rows, columns = x->width;
    if (t->turned) i = t->j0 + x->j, j = t->i0 + x->i, rows = smaller(x->width, t->j1 - i), columns = x->rows;
    for (size_t r = 0; r < rows; r++)
        for (size_t v = 0; v < columns; v += 16) __builtin_prefetch(t->mm->c + (i + r) * t->mm->ldc + j + v, 1, 3);
}

/* n elements of C from totals y. */
LK_INLINE void finish_vector(const struct lk_mm *mm, vf y, size_t row, size_t column, size_t n) {
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

static void finish_edge(const struct tile *t, const struct block *x) {
    for (size_t r = 0; r < x->rows; r++)
        for (size_t v = 0; v < x->width; v += VL) {
            size_t column = t->j0 + x->j + v;
            finish_vector(t->mm, v_load(x->totals + r * x->width + v), t->i0 + x->i + r, column,
                          smaller(VL, t->j1 - column));
        }
}

/* Whole panels; bias and residual are constants at each use. */
LK_INLINE void finish_whole(const struct tile *t, const struct block *x, const bool bias, const bool residual,
                            const bool streams) {
    const struct lk_mm *mm = t->mm;
    size_t row = t->i0 + x->i, column = t->j0 + x->j;
    float *c = mm->c + row * mm->ldc + column;
    const float *from = x->totals, *add = residual ? mm->residual + row * mm->ld_residual + column : NULL;
    vf b[MICRO_VECTORS];
    UNROLL
    for (size_t v = 0; v < MICRO_VECTORS; v++) b[v] = bias ? v_load(mm->bias + column + v * VL) : v_zero();
    for (size_t r = 0; r < x->rows; r++, c += mm->ldc, from += MICRO_COLUMNS) {
        UNROLL
        for (size_t v = 0; v < MICRO_VECTORS; v++) {
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

static void finish(const struct tile *t, const struct block *x) {
    if (x->j + MICRO_COLUMNS > t->j1 - t->j0)
        finish_edge(t, x);
    else if (t->mm->residual)
        t->mm->bias ? finish_whole(t, x, true, true, false) : finish_whole(t, x, false, true, false);
    else if (t->mm->bias)
        t->streams ? finish_whole(t, x, true, false, true) : finish_whole(t, x, true, false, false);
    else
        t->streams ? finish_whole(t, x, false, false, true) : finish_whole(t, x, false, false, false);
}

static void finish_turned(const struct tile *t, const struct block *x) {
    for (size_t r = 0; r < x->rows; r += VL)
        for (size_t v = 0; v < x->width; v += VL) {
            size_t rows = smaller(VL, x->rows - r), row = t->j0 + x->j + v, columns = smaller(VL, t->j1 - row);
            vf y[VL];
            UNROLL
            for (size_t e = 0; e < VL; e++) y[e] = e < rows ? v_load(x->totals + (r + e) * x->width + v) : v_zero();
            v_transpose(y);
            for (size_t e = 0; e < columns; e++) finish_vector(t->mm, y[e], row + e, t->i0 + x->i + r, rows);
        }
}

static void load_block(const struct tile *t, const struct block *x) {
    for (size_t r = 0; r < x->rows; r++)
        for (size_t v = 0; v < x->width; v += VL) {
            size_t column = t->j0 + x->j + v;
            v_store(x->totals + r * x->width + v,
                    v_load_n(t->mm->c + (t->i0 + x->i + r) * t->mm->ldc + column, smaller(VL, t->j1 - column)));
        }
}

/* Columns j .. j + n, all rows. The next chunk begins at column next_j, of the next batch if `next`, its first step, is
 * given. */
static void run_chunk(struct tile *t, const struct batch *batch, size_t j, size_t n, const struct step *next,
                      size_t next_j) {
    size_t micro = 0;
    take_b(t, batch, j, n);
    for (size_t i = 0; i < t->i1 - t->i0; i += MICRO_ROWS)
        for (size_t v = 0; v < n; v += MICRO_COLUMNS) {
            struct block x = {.i = i, .rows = smaller(MICRO_ROWS, t->i1 - t->i0 - i), .j = j + v};
            x.width = vectors_at(t, x.j) * VL, x.size = x.rows * x.width;
            x.totals = totals_at(t, i, x.j, x.width);
            if (batch->first && t->mm->accumulate) load_block(t, &x);
            if (batch->last && !t->streams) prefetch_c(t, &x);
            run_steps(t, batch, &x, v, next, next_j, micro++);
            if (!batch->last) continue;
            if (t->turned)
                finish_turned(t, &x);
            else
                finish(t, &x);
        }
}

static void run_tile(struct tile *t, void *scratch) {
    t->columns = round_up(t->j1 - t->j0, VL);
    t->copied_a = scratch, t->copied_b = t->copied_a + A_FLOATS, t->totals = t->copied_b + B_FLOATS;
    t->depth = stack_depth(t->mm), t->keeps = !is_one_batch(t->mm);
    t->streams = !t->turned && !t->mm->residual && (uintptr_t)t->mm->c % 64 == 0 && t->mm->ldc % 16 == 0 &&
                 t->mm->m * t->mm->n >= STREAM_LEAST;
    struct walk walk = walk_begin(t->mm);
    for (struct batch batch; next_batch(&walk, &batch);) {
        struct walk after = walk;
        struct step next;
        bool more = next_step(&after, &next);
        take_a(t, &batch);
        for (size_t j = 0; j < t->columns; j += CHUNK) {
            size_t n = smaller(CHUNK, t->j1 - t->j0 - j);
            bool end = j + CHUNK >= t->columns;
            run_chunk(t, &batch, j, n, end && more ? &next : NULL, end && more ? 0 : j + CHUNK);
        }
    }
    if (t->streams) v_stream_end();
}

static void few_tile(const struct lk_mm *mm, size_t j0, size_t j1) {
    for (size_t j = j0; j < j1; j += VL) {
        vf totals[FEW_ROWS];
        few_totals(mm, j, j1, totals);
        for (size_t r = 0; r < mm->m; r++) finish_vector(mm, totals[r], r, j, smaller(VL, j1 - j));
    }
}

static void mm_tile(const struct lk_mm *mm, size_t i0, size_t i1, size_t j0, size_t j1, void *scratch) {
    if (is_few(mm)) {
        few_tile(mm, j0, j1);
        return;
    }
    run_tile(&(struct tile){.mm = mm, .i0 = i0, .i1 = i1, .j0 = j0, .j1 = j1}, scratch);
}
static void mm_tile_turned(const struct lk_mm *mm, size_t i0, size_t i1, size_t j0, size_t j1, void *scratch) {
    run_tile(&(struct tile){.mm = mm, .turned = true, .i0 = j0, .i1 = j1, .j0 = i0, .j1 = i1}, scratch);
}

static void mm_cut(const struct lk_mm *mm, size_t threads, size_t *tile_rows, size_t *tile_columns, bool *turned) {
    struct cut cut = is_few(mm) ? (struct cut){FEW_ROWS, few_columns(mm, threads), false} : cut_tiles(mm, threads);
    *tile_rows = cut.rows, *tile_columns = cut.columns, *turned = cut.turned;
}

void LK_ISA_NAME(lk__fill_matmul)(struct lk__kernels *);
void LK_ISA_NAME(lk__fill_matmul)(struct lk__kernels *k) {
    k->mm_scratch_bytes = (A_FLOATS + B_FLOATS + TOTALS_FLOATS) * sizeof(float);
    k->mm_cut = mm_cut;
    k->mm_tile = mm_tile, k->mm_tile_turned = mm_tile_turned;
}
