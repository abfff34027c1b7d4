/* The pool's share of the row and element kernels: each cuts its work into tiles by shape alone, about TILE floats each, so
 * that claiming a tile costs little beside its work, and threads finish at nearly the same time. */
#include "math/exact.h"
#include "math/kernel_table.h"

#define TILE ((size_t)16384)

static size_t smaller(size_t a, size_t b) {
    return a < b ? a : b;
}
static size_t tiles_of(size_t n, size_t tile) {
    return n / tile + (n % tile != 0);
}
/* Rows of n floats that make a tile: several even where each is long, since a kernel is at work on rows that follow one
 * another, but enough tiles for all threads. */
#define ROWS_LEAST 16
static size_t rows_of_tile(size_t n, size_t rows, size_t threads) {
    if (n && n <= TILE / ROWS_LEAST) return TILE / n;
    size_t most = rows / (4 * threads);
    return most < 1 ? 1 : smaller(most, n ? ROWS_LEAST : TILE);
}

/* --- Elements -------------------------------------------------------------------------------------------- */
/* One job for all element kernels; a tile is a whole number of vectors, and of the optimizer's blocks. */
struct elements {
    const struct lk__math_kernels *k;
    void (*run)(const struct elements *, size_t from, size_t n);
    size_t n;
    const float *a, *b, *c;
    float *x, *y, *z;
    float scalar;
    const struct lk_adamw *adamw;
    double *sums;
    int not_finite; /* written by several threads, always with 1 */
};

static void elements_tile(void *arg, size_t tile, int thread) {
    (void)thread;
    const struct elements *e = arg;
    size_t from = tile * TILE;
    e->run(e, from, smaller(TILE, e->n - from));
}
static void elements_run(struct lk_math *m, struct elements *e) {
    e->k = &m->k;
    lk_pool_run(m->pool, tiles_of(e->n, TILE), elements_tile, e);
}

static void run_swiglu(const struct elements *e, size_t i, size_t n) {
    e->k->swiglu_forward(n, e->a + i, e->b + i, e->x + i);
}
void lk_swiglu_forward(struct lk_math *m, size_t n, const float *gate, const float *up, float *out) {
    LK_TIMED(m, ACTIVATION, 0, 3.0 * (double)(n) * sizeof(float));
    elements_run(m, &(struct elements){.run = run_swiglu, .n = n, .a = gate, .b = up, .x = out});
}
static void run_swiglu_back(const struct elements *e, size_t i, size_t n) {
    e->k->swiglu_backward(n, e->a + i, e->b + i, e->c + i, e->x + i, e->y + i);
}
void lk_swiglu_backward(struct lk_math *m, size_t n, const float *gate, const float *up, const float *dout, float *dgate,
                        float *dup) {
    LK_TIMED(m, ACTIVATION_BACKWARD, 0, 5.0 * (double)(n) * sizeof(float));
    elements_run(m,
                 &(struct elements){.run = run_swiglu_back, .n = n, .a = gate, .b = up, .c = dout, .x = dgate, .y = dup});
}
static void run_gelu(const struct elements *e, size_t i, size_t n) {
    e->k->gelu_forward(n, e->a + i, e->x + i);
}
void lk_gelu_forward(struct lk_math *m, size_t n, const float *x, float *out) {
    LK_TIMED(m, ACTIVATION, 0, 2.0 * (double)(n) * sizeof(float));
    elements_run(m, &(struct elements){.run = run_gelu, .n = n, .a = x, .x = out});
}
static void run_gelu_back(const struct elements *e, size_t i, size_t n) {
    e->k->gelu_backward(n, e->a + i, e->b + i, e->x + i);
}
void lk_gelu_backward(struct lk_math *m, size_t n, const float *x, const float *dout, float *dx) {
    LK_TIMED(m, ACTIVATION_BACKWARD, 0, 3.0 * (double)(n) * sizeof(float));
    elements_run(m, &(struct elements){.run = run_gelu_back, .n = n, .a = x, .b = dout, .x = dx});
}
static void run_add(const struct elements *e, size_t i, size_t n) {
    e->k->add(n, e->a + i, e->b + i, e->x + i);
}
void lk_add(struct lk_math *m, size_t n, const float *a, const float *b, float *out) {
    LK_TIMED(m, SUMS, 0, 3.0 * (double)(n) * sizeof(float));
    elements_run(m, &(struct elements){.run = run_add, .n = n, .a = a, .b = b, .x = out});
}
static void run_zero(const struct elements *e, size_t i, size_t n) {
    memset(e->x + i, 0, n * sizeof *e->x);
}
void lk_zero(struct lk_math *m, size_t n, float *x) {
    elements_run(m, &(struct elements){.run = run_zero, .n = n, .x = x});
}

static void run_exp(const struct elements *e, size_t i, size_t n) {
    e->k->exp_n(n, e->a + i, e->x + i);
}
void lk_exp_n(struct lk_math *m, size_t n, const float *x, float *y) {
    elements_run(m, &(struct elements){.run = run_exp, .n = n, .a = x, .x = y});
}
static void run_tanh(const struct elements *e, size_t i, size_t n) {
    e->k->tanh_n(n, e->a + i, e->x + i);
}
void lk_tanh_n(struct lk_math *m, size_t n, const float *x, float *y) {
    elements_run(m, &(struct elements){.run = run_tanh, .n = n, .a = x, .x = y});
}
static void run_softmax_exp(const struct elements *e, size_t i, size_t n) {
    e->k->softmax_exp_n(n, e->a + i, e->scalar, e->x + i);
}
void lk_softmax_exp_n(struct lk_math *m, size_t n, const float *x, float subtract, float *y) {
    elements_run(m, &(struct elements){.run = run_softmax_exp, .n = n, .a = x, .x = y, .scalar = subtract});
}
static void run_adamw(const struct elements *e, size_t i, size_t n) {
    e->k->adamw(e->adamw, n, e->x + i, e->a + i, e->y + i, e->z + i);
}
void lk_adamw_step(struct lk_math *m, const struct lk_adamw *adamw, size_t n, float *w, const float *g, float *m1,
                   float *v) {
    LK_TIMED(m, OPTIMIZER, 0, 7.0 * (double)(n) * sizeof(float));
    elements_run(m, &(struct elements){.run = run_adamw, .n = n, .a = g, .x = w, .y = m1, .z = v, .adamw = adamw});
}
static void run_finite(const struct elements *e, size_t i, size_t n) {
    if (!e->k->all_finite(n, e->a + i)) __atomic_store_n((int *)&e->not_finite, 1, __ATOMIC_RELAXED);
}
bool lk_all_finite(struct lk_math *m, size_t n, const float *x) {
    struct elements e = {.run = run_finite, .n = n, .a = x};
    elements_run(m, &e);
    return !e.not_finite;
}

_Static_assert(TILE % LK_BLOCK == 0, "a tile holds whole blocks");
static void run_squares(const struct elements *e, size_t from, size_t n) {
    for (size_t i = 0; i < n; i += LK_BLOCK)
        e->sums[(from + i) / LK_BLOCK] = e->k->block_squares(smaller(LK_BLOCK, n - i), e->a + from + i);
}
void lk_block_squares(struct lk_math *m, size_t n, const float *x, double *sums) {
    LK_TIMED(m, SUMS, 0, 1.0 * (double)(n) * sizeof(float));
    elements_run(m, &(struct elements){.run = run_squares, .n = n, .a = x, .sums = sums});
}

/* --- Initialisation -------------------------------------------------------------------------------------- */
struct init {
    const struct lk__math_kernels *k;
    uint64_t seed;
    uint32_t tensor;
    double deviation;
    size_t n;
    float *x;
};
static void init_tile(void *arg, size_t tile, int thread) {
    (void)thread;
    const struct init *t = arg;
    size_t from = tile * TILE;
    t->k->init_normal(t->seed, t->tensor, t->deviation, from, smaller(TILE, t->n - from), t->x + from);
}
void lk_init_normal(struct lk_math *m, uint64_t seed, uint32_t tensor, double deviation, size_t n, float *x) {
    LK_ASSERT(n <= (size_t)UINT32_MAX + 1);
    struct init t = {&m->k, seed, tensor, deviation, n, x};
    lk_pool_run(m->pool, tiles_of(n, TILE), init_tile, &t);
}

/* --- Rows ------------------------------------------------------------------------------------------------ */
struct rows {
    const struct lk__math_kernels *k;
    void (*run)(const struct lk__math_kernels *, const void *call, size_t row, size_t rows);
    const void *call; /* the caller's struct */
    size_t rows, tile;
};

static void rows_tile(void *arg, size_t tile, int thread) {
    (void)thread;
    const struct rows *r = arg;
    size_t from = tile * r->tile;
    r->run(r->k, r->call, from, smaller(r->tile, r->rows - from));
}
static void rows_run(struct lk_math *m, size_t rows, size_t n, const void *call,
                     void (*run)(const struct lk__math_kernels *, const void *call, size_t row, size_t rows)) {
    struct rows r = {&m->k, run, call, rows, rows_of_tile(n, rows, (size_t)lk_pool_threads(m->pool))};
    lk_pool_run(m->pool, tiles_of(rows, r.tile), rows_tile, &r);
}

/* So many rows that what a pass reads of them (forward x, backward x and dy) takes a quarter of L1: fewer do not hide the
 * end of a row's sum, which is a chain of dependent operations; of more the last pass no longer finds all in L1. */
static size_t norm_batch(const struct lk_caches *caches, size_t n, size_t arrays) {
    size_t rows = n ? caches->l1.bytes / 4 / (n * arrays * sizeof(float)) : 1;
    return rows < 1 ? 1 : smaller(rows, LK__NORM_BATCH);
}
static void run_norm(const struct lk__math_kernels *k, const void *call, size_t row, size_t rows) {
    const struct lk_norm *t = call;
    size_t at = row * t->n;
    k->norm_forward(rows, t->n, norm_batch(&k->caches, t->n, 1), t->x + at, t->gain, t->bias, t->epsilon, t->y + at,
                    t->mean ? t->mean + row : NULL, t->rstd + row);
}
void lk_norm_forward(struct lk_math *m, const struct lk_norm *t) {
    LK_TIMED(m, NORM, 0, 2.0 * (double)(t->rows * t->n) * sizeof(float));
    LK_ASSERT(!t->bias || t->mean);
    rows_run(m, t->rows, t->n, t, run_norm);
}
static void run_norm_gradient(const struct lk__math_kernels *k, const void *call, size_t row, size_t rows) {
    const struct lk_norm_gradient *t = call;
    size_t at = row * t->n;
    k->norm_backward(rows, t->n, norm_batch(&k->caches, t->n, 2), t->x + at, t->gain, t->layer ? t->mean + row : NULL,
                     t->rstd + row, t->layer, t->dy + at, t->dx_add ? t->dx_add + at : NULL, t->dx + at,
                     t->normalised ? t->normalised + at : NULL);
}
void lk_norm_backward(struct lk_math *m, const struct lk_norm_gradient *t) {
    LK_TIMED(m, NORM_BACKWARD, 0,
             (3.0 + (t->dx_add != NULL) + (t->normalised != NULL)) * (double)(t->rows * t->n) * sizeof(float));
    LK_ASSERT(!t->layer || t->mean);
    rows_run(m, t->rows, t->n, t, run_norm_gradient);
}

static void run_rope(const struct lk__math_kernels *k, const void *call, size_t row, size_t rows) {
    const struct lk_rope *t = call;
    for (size_t i = row, n; t->at && i < row + rows; i += n) { /* rows of following positions go together */
        for (n = 1; i + n < row + rows && t->at[i + n] == t->at[i] + n;) n++;
        k->rope(n, 0, t->heads, t->head_dim, (uint32_t)n, t->at[i], t->cos_table, t->sin_table, t->scale, t->inverse,
                t->x + i * t->ldx, t->ldx);
    }
    if (t->at) return;
    k->rope(rows, row, t->heads, t->head_dim, t->positions, t->first, t->cos_table, t->sin_table, t->scale, t->inverse,
            t->x + row * t->ldx, t->ldx);
}
void lk_rope(struct lk_math *m, const struct lk_rope *t) {
    LK_TIMED(m, ROTARY, 0, 2.0 * (double)t->rows * t->heads * t->head_dim * sizeof(float));
    LK_ASSERT(t->head_dim % 2 == 0 && (t->positions > 0 || t->at));
    rows_run(m, t->rows, (size_t)t->heads * t->head_dim, t, run_rope);
}

struct scaling {
    size_t n, ldx;
    float scale, *x;
};
static void run_scale(const struct lk__math_kernels *k, const void *call, size_t row, size_t rows) {
    const struct scaling *t = call;
    for (size_t i = row; i < row + rows; i++) k->scale(t->n, t->scale, t->x + i * t->ldx);
}
void lk_scale_rows(struct lk_math *m, size_t rows, size_t n, float scale, float *x, size_t ldx) {
    LK_TIMED(m, ROTARY, 0, 2.0 * (double)(rows * n) * sizeof(float));
    rows_run(m, rows, n, &(struct scaling){n, ldx, scale, x}, run_scale);
}

static void run_loss(const struct lk__math_kernels *k, const void *call, size_t row, size_t rows) {
    const struct lk_cross_entropy *t = call;
    k->cross_entropy(rows, t->vocab, t->logits + row * t->ld, t->ld, t->targets + row, t->scale, t->gradient,
                     t->loss + row);
}
void lk_cross_entropy(struct lk_math *m, const struct lk_cross_entropy *t) {
    LK_TIMED(m, LOSS, 0, (t->gradient ? 2.0 : 1.0) * (double)(t->rows * t->vocab) * sizeof(float));
    rows_run(m, t->rows, t->vocab, t, run_loss);
}

static void run_embed_blocks(const struct lk__math_kernels *k, const void *call, size_t row, size_t rows) {
    const struct lk_embed *t = call;
    size_t bytes = lk_dtype_row_bytes(t->dtype, t->n);
    for (size_t i = row; i < row + rows; i++) {
        float *out = t->out + i * t->n;
        lk__math_widen(t->dtype, t->n, (const uint8_t *)(const void *)t->table + t->ids[i] * bytes, out);
        size_t position = !t->positions_table ? 0 : t->at ? t->at[i] : t->first + i % t->positions;
        if (t->positions_table) k->add(t->n, out, t->positions_table + position * t->n, out);
    }
}
#define GATHER_AHEAD 2 /* rows */
static void run_embed(const struct lk__math_kernels *k, const void *call, size_t row, size_t rows) {
    const struct lk_embed *t = call;
    for (size_t i = row; i < row + rows; i++) {
        const float *from = t->table + t->ids[i] * t->n;
        if (i + GATHER_AHEAD < row + rows) { /* the hardware cannot guess that address */
            const float *next = t->table + t->ids[i + GATHER_AHEAD] * t->n;
            for (size_t c = 0; c < t->n; c += 16) __builtin_prefetch(next + c);
        }
        size_t position = !t->positions_table ? 0 : t->at ? t->at[i] : t->first + i % t->positions;
        if (t->positions_table)
            k->add(t->n, from, t->positions_table + position * t->n, t->out + i * t->n);
        else
            memcpy(t->out + i * t->n, from, t->n * sizeof *from);
    }
}
void lk_embed(struct lk_math *m, const struct lk_embed *t) {
    LK_TIMED(m, EMBEDDING, 0, 2.0 * (double)(t->rows * t->n) * sizeof(float));
    rows_run(m, t->rows, t->n, t, t->dtype == LK_F32 ? run_embed : run_embed_blocks);
}

struct scattering {
    size_t n;
    const float *x;
    const size_t *place;
    float *to;
};
static void run_scatter(const struct lk__math_kernels *k, const void *call, size_t row, size_t rows) {
    const struct scattering *t = call;
    (void)k;
    for (size_t i = row; i < row + rows; i++) memcpy(t->to + t->place[i], t->x + i * t->n, t->n * sizeof *t->x);
}
void lk_scatter_rows(struct lk_math *m, size_t rows, size_t n, const float *x, const size_t *place, float *to) {
    LK_TIMED(m, EMBEDDING, 0, 2.0 * (double)(rows * n) * sizeof(float));
    rows_run(m, rows, n, &(struct scattering){n, x, place, to}, run_scatter);
}

/* --- Columns --------------------------------------------------------------------------------------------- */
#define COLUMNS ((size_t)512) /* a tile, or less where there are more threads than such tiles */
struct columns {
    const struct lk__math_kernels *k;
    const struct lk_column_sum *call;
    size_t tile;
};
static void columns_tile(void *arg, size_t tile, int thread) {
    (void)thread;
    const struct columns *c = arg;
    const struct lk_column_sum *t = c->call;
    size_t j = tile * c->tile;
    c->k->column_sum(smaller(c->tile, t->n - j), t->y + j, t->ldy, t->factor ? t->factor + j : NULL, t->ld_factor, t->parts,
                     t->part_count, t->accumulate, t->out + j);
}
static double column_bytes(const struct lk_column_sum *t) {
    double rows = 0;
    for (size_t i = 0; i < t->part_count; i++) rows += (double)t->parts[i].rows;
    return (t->factor ? 2.0 : 1.0) * rows * (double)t->n * sizeof(float);
}
void lk_column_sum(struct lk_math *m, const struct lk_column_sum *t) {
    LK_TIMED(m, COLUMN_SUM, 0, column_bytes(t));
    /* Whole cache lines, and as many tiles as can be shared out evenly. */
    size_t threads = (size_t)lk_pool_threads(m->pool), rounds = tiles_of(t->n, COLUMNS * threads),
           tile = t->n ? tiles_of(tiles_of(t->n, rounds * threads), 16) * 16 : COLUMNS;
    struct columns c = {&m->k, t, tile};
    lk_pool_run(m->pool, tiles_of(t->n, tile), columns_tile, &c);
}

#define LISTS ((size_t)16) /* a tile */
struct chains {
    const struct lk__math_kernels *k;
    const struct lk_row_chains *call;
};
static void chains_tile(void *arg, size_t tile, int thread) {
    (void)thread;
    const struct chains *c = arg;
    const struct lk_row_chains *t = c->call;
    size_t end = smaller(t->lists, (tile + 1) * LISTS);
    for (size_t i = tile * LISTS; i < end; i++)
        c->k->row_chains(t->n, t->x, t->n, t->first[i], t->next, t->positions, t->begins[i], t->sums + t->target[i] * t->n);
}
void lk_row_chains(struct lk_math *m, const struct lk_row_chains *t) {
    /* At least these bytes: rows that repeat are read too. */
    LK_TIMED(m, EMBEDDING, 0, 2.0 * (double)(t->lists * t->n) * sizeof(float));
    struct chains c = {&m->k, t};
    lk_pool_run(m->pool, tiles_of(t->lists, LISTS), chains_tile, &c);
}

/* --- Rotary tables --------------------------------------------------------------------------------------- */
static float scaled(float frequency, const struct lk_rope_scaling *s) {
    float factor = (float)s->factor, original = (float)s->original, length = 1 / frequency * (float)0x1.921fb54442d18p+2;
    if (length > (float)(s->original / s->low)) return frequency / factor;
    if (length < (float)(s->original / s->high)) return frequency;
    float smooth = (1 / length * original - (float)s->low) / (float)(s->high - s->low);
    return (1 - smooth) * frequency / factor + smooth * frequency;
}

void lk_rope_frequencies(uint32_t head_dim, double theta, const struct lk_rope_scaling *scaling, float *frequencies) {
    LK_ASSERT(head_dim % 2 == 0 && (scaling->factor == 0 || scaling->low < scaling->high));
    unsigned long long old = lk_fpenv_set();
    for (size_t i = 0; i < head_dim / 2; i++) {
        float frequency = (float)(1 / lk_pow64(theta, (double)(2 * i) / (double)head_dim));
        frequencies[i] = scaling->factor > 0 ? scaled(frequency, scaling) : frequency;
    }
    lk_fpenv_restore(old);
}

void lk_rope_tables(uint32_t half, const float *frequencies, uint32_t first, uint32_t end, float *cos_out, float *sin_out) {
    unsigned long long old = lk_fpenv_set();
    for (size_t t = first; t < end; t++)
        for (size_t i = 0; i < half; i++) {
            float angle = (float)t * frequencies[i];
            cos_out[t * half + i] = lk_cos(angle);
            sin_out[t * half + i] = lk_sin(angle);
        }
    lk_fpenv_restore(old);
}
