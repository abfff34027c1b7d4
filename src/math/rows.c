/* The pool's share of the row and element kernels: each cuts its work into tiles by shape alone, about TILE floats each, so
 * that a tile's work is long against the claiming of one and short against the whole. */
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
    const struct lk__kernels *k;
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
    const struct lk__kernels *k;
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
    const struct lk__kernels *k;
    void (*run)(const struct rows *, size_t row, size_t rows);
    size_t rows, n, tile, ld;
    const float *x, *gain, *bias, *mean, *rstd, *dy, *dx_add;
    float *y, *mean_out, *rstd_out, *normalised;
    float scalar;
    bool flag;
    const uint32_t *ids;
    uint32_t heads, head_dim, positions, first;
};

static void rows_tile(void *arg, size_t tile, int thread) {
    (void)thread;
    const struct rows *r = arg;
    size_t from = tile * r->tile;
    r->run(r, from, smaller(r->tile, r->rows - from));
}
static void rows_run(struct lk_math *m, struct rows *r) {
    r->k = &m->k;
    r->tile = rows_of_tile(r->n, r->rows, (size_t)lk_pool_threads(m->pool));
    lk_pool_run(m->pool, tiles_of(r->rows, r->tile), rows_tile, r);
}

static void run_norm(const struct rows *r, size_t row, size_t rows) {
    size_t at = row * r->n;
    r->k->norm_forward(rows, r->n, r->x + at, r->gain, r->bias, r->scalar, r->y + at,
                       r->mean_out ? r->mean_out + row : NULL, r->rstd_out + row);
}
void lk_norm_forward(struct lk_math *m, size_t rows, size_t n, const float *x, const float *gain, const float *bias,
                     float eps, float *y, float *mean, float *rstd) {
    LK_TIMED(m, NORM, 0, 2.0 * (double)(rows * n) * sizeof(float));
    LK_ASSERT(!bias || mean);
    rows_run(m, &(struct rows){.run = run_norm,
                               .rows = rows,
                               .n = n,
                               .x = x,
                               .gain = gain,
                               .bias = bias,
                               .scalar = eps,
                               .y = y,
                               .mean_out = mean,
                               .rstd_out = rstd});
}
static void run_norm_back(const struct rows *r, size_t row, size_t rows) {
    size_t at = row * r->n;
    r->k->norm_backward(rows, r->n, r->x + at, r->gain, r->flag ? r->mean + row : NULL, r->rstd + row, r->flag, r->dy + at,
                        r->dx_add ? r->dx_add + at : NULL, r->y + at, r->normalised ? r->normalised + at : NULL);
}
void lk_norm_backward(struct lk_math *m, size_t rows, size_t n, const float *x, const float *gain, const float *mean,
                      const float *rstd, bool layer, const float *dy, const float *dx_add, float *dx, float *normalised) {
    LK_TIMED(m, NORM_BACKWARD, 0, (3.0 + (dx_add != NULL) + (normalised != NULL)) * (double)(rows * n) * sizeof(float));
    rows_run(m, &(struct rows){.run = run_norm_back,
                               .rows = rows,
                               .n = n,
                               .x = x,
                               .gain = gain,
                               .mean = mean,
                               .rstd = rstd,
                               .flag = layer,
                               .dy = dy,
                               .dx_add = dx_add,
                               .y = dx,
                               .normalised = normalised});
}

static void run_rope(const struct rows *r, size_t row, size_t rows) {
    r->k->rope(rows, row, r->heads, r->head_dim, r->positions, r->first, r->x, r->gain, r->scalar, r->flag,
               r->y + row * r->ld, r->ld);
}
void lk_rope(struct lk_math *m, size_t rows, uint32_t heads, uint32_t head_dim, uint32_t positions, uint32_t first,
             const float *cos_table, const float *sin_table, float scale, bool inverse, float *x, size_t ldx) {
    LK_TIMED(m, ROTARY, 0, 2.0 * (double)rows * heads * head_dim * sizeof(float));
    LK_ASSERT(head_dim % 2 == 0 && positions > 0);
    rows_run(m, &(struct rows){.run = run_rope,
                               .rows = rows,
                               .n = (size_t)heads * head_dim,
                               .x = cos_table,
                               .gain = sin_table,
                               .scalar = scale,
                               .flag = inverse,
                               .y = x,
                               .ld = ldx,
                               .heads = heads,
                               .head_dim = head_dim,
                               .positions = positions,
                               .first = first});
}
static void run_scale(const struct rows *r, size_t row, size_t rows) {
    for (size_t i = row; i < row + rows; i++) r->k->scale(r->n, r->scalar, r->y + i * r->ld);
}
void lk_scale_rows(struct lk_math *m, size_t rows, size_t n, float scale, float *x, size_t ldx) {
    LK_TIMED(m, ROTARY, 0, 2.0 * (double)(rows * n) * sizeof(float));
    rows_run(m, &(struct rows){.run = run_scale, .rows = rows, .n = n, .scalar = scale, .y = x, .ld = ldx});
}

static void run_loss(const struct rows *r, size_t row, size_t rows) {
    r->k->cross_entropy(rows, r->n, r->y + row * r->ld, r->ld, r->ids + row, r->scalar, r->flag, r->rstd_out + row);
}
void lk_cross_entropy(struct lk_math *m, size_t rows, size_t vocab, float *logits, size_t ld, const uint32_t *targets,
                      float scale, bool gradient, float *loss) {
    LK_TIMED(m, LOSS, 0, (gradient ? 2.0 : 1.0) * (double)(rows * vocab) * sizeof(float));
    rows_run(m, &(struct rows){.run = run_loss,
                               .rows = rows,
                               .n = vocab,
                               .y = logits,
                               .ld = ld,
                               .ids = targets,
                               .scalar = scale,
                               .flag = gradient,
                               .rstd_out = loss});
}

#define GATHER_AHEAD 2 /* rows */
static void run_embed(const struct rows *r, size_t row, size_t rows) {
    for (size_t i = row; i < row + rows; i++) {
        const float *from = r->x + r->ids[i] * r->n;
        if (i + GATHER_AHEAD < row + rows) { /* no processor guesses where that is */
            const float *next = r->x + r->ids[i + GATHER_AHEAD] * r->n;
            for (size_t c = 0; c < r->n; c += 16) __builtin_prefetch(next + c);
        }
        if (r->gain)
            r->k->add(r->n, from, r->gain + (r->first + i % r->positions) * r->n, r->y + i * r->n);
        else
            memcpy(r->y + i * r->n, from, r->n * sizeof *from);
    }
}
void lk_embed(struct lk_math *m, size_t rows, size_t n, const uint32_t *ids, const float *table,
              const float *positions_table, uint32_t positions, uint32_t first, float *out) {
    LK_TIMED(m, EMBEDDING, 0, 2.0 * (double)(rows * n) * sizeof(float));
    rows_run(m, &(struct rows){.run = run_embed,
                               .rows = rows,
                               .n = n,
                               .ids = ids,
                               .x = table,
                               .gain = positions_table,
                               .positions = positions,
                               .first = first,
                               .y = out});
}

/* --- Columns --------------------------------------------------------------------------------------------- */
#define COLUMNS ((size_t)512) /* a tile, or less where there are more threads than such tiles */
struct columns {
    const struct lk__kernels *k;
    size_t n, tile, ldy, ld_factor, part_count;
    const float *y, *factor;
    const struct lk_row_part *parts;
    bool accumulate;
    float *out;
};
static void columns_tile(void *arg, size_t tile, int thread) {
    (void)thread;
    const struct columns *c = arg;
    size_t j = tile * c->tile;
    c->k->column_sum(smaller(c->tile, c->n - j), c->y + j, c->ldy, c->factor ? c->factor + j : NULL, c->ld_factor, c->parts,
                     c->part_count, c->accumulate, c->out + j);
}
static double column_bytes(size_t n, const float *factor, const struct lk_row_part *parts, size_t part_count) {
    double rows = 0;
    for (size_t i = 0; i < part_count; i++) rows += (double)parts[i].rows;
    return (factor ? 2.0 : 1.0) * rows * (double)n * sizeof(float);
}
void lk_column_sum(struct lk_math *m, size_t n, const float *y, size_t ldy, const float *factor, size_t ld_factor,
                   const struct lk_row_part *parts, size_t part_count, bool accumulate, float *out) {
    LK_TIMED(m, COLUMN_SUM, 0, column_bytes(n, factor, parts, part_count));
    /* Whole cache lines, and as many tiles as can be shared out evenly. */
    size_t threads = (size_t)lk_pool_threads(m->pool), rounds = tiles_of(n, COLUMNS * threads),
           tile = n ? tiles_of(tiles_of(n, rounds * threads), 16) * 16 : COLUMNS;
    struct columns c = {&m->k, n, tile, ldy, ld_factor, part_count, y, factor, parts, accumulate, out};
    lk_pool_run(m->pool, tiles_of(n, tile), columns_tile, &c);
}

struct chains {
    const struct lk__kernels *k;
    size_t n, lists, tile;
    const float *x;
    uint32_t positions;
    const uint32_t *first, *next, *target;
    const bool *begins;
    float *sums;
};
static void chains_tile(void *arg, size_t tile, int thread) {
    (void)thread;
    const struct chains *c = arg;
    size_t end = smaller(c->lists, (tile + 1) * c->tile);
    for (size_t i = tile * c->tile; i < end; i++)
        c->k->row_chains(c->n, c->x, c->n, c->first[i], c->next, c->positions, c->begins[i], c->sums + c->target[i] * c->n);
}
void lk_row_chains(struct lk_math *m, size_t n, const float *x, uint32_t positions, size_t lists, const uint32_t *first,
                   const uint32_t *next, const uint32_t *target, const bool *begins, float *sums) {
    LK_TIMED(m, EMBEDDING, 0, 2.0 * (double)(lists * n) * sizeof(float)); /* at least: rows that repeat are read too */
    struct chains c = {&m->k, n, lists, 16, x, positions, first, next, target, begins, sums};
    lk_pool_run(m->pool, tiles_of(lists, c.tile), chains_tile, &c);
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
