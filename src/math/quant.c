/* Weights in fewer bits: rounds rows, shares rows and panels out to the pool. A column is one chain of one thread. */
#include "math/panel_shares.h"

#include <stdatomic.h>

static const char *const names[] = {[LK_F32] = "f32", [LK_BF16] = "bf16", [LK_F16] = "f16", [LK_Q8] = "q8", [LK_Q4] = "q4"};
const char *lk_dtype_name(enum lk_dtype dtype) {
    return names[dtype];
}
bool lk_dtype_named(const char *name, enum lk_dtype *out) {
    for (int i = LK_F32; i <= LK_Q4; i++)
        if (strcmp(names[i], name) == 0) {
            *out = (enum lk_dtype)i;
            return true;
        }
    return false;
}

size_t lk_dtype_row_bytes(enum lk_dtype dtype, size_t k) {
    if (dtype == LK_F32) return k * 4;
    if (dtype < LK_Q8) return k * 2;
    return k % LK_QUANT_BLOCK ? 0 : k / LK_QUANT_BLOCK * (dtype == LK_Q8 ? 34 : 18);
}

/* --- Rounding ------------------------------------------------------------------------------------------------ */

/* Rows of a piece of work: enough that claiming one costs nothing. */
static size_t piece_rows(size_t k) {
    return 1 + ((size_t)64 << 10) / (k + 1);
}
static size_t pieces(size_t rows, size_t k) {
    return (rows + piece_rows(k) - 1) / piece_rows(k);
}

struct rounding {
    const struct lk__math_kernels *kernels;
    enum lk_dtype dtype;
    size_t rows, k;
    const float *x;
    uint8_t *out;
    atomic_bool bad;
};
static void round_rows(void *arg, size_t piece, int thread) {
    struct rounding *r = arg;
    size_t bytes = lk_dtype_row_bytes(r->dtype, r->k), n = piece_rows(r->k);
    (void)thread;
    for (size_t row = piece * n; row < smaller(r->rows, (piece + 1) * n); row++)
        if (!r->kernels->quant_round(r->dtype, r->k, r->x + row * r->k, r->out + row * bytes)) r->bad = true;
}
int lk_quantize(struct lk_math *math, enum lk_dtype dtype, size_t rows, size_t k, const float *x, void *out,
                struct lk_err *err) {
    struct rounding r = {.kernels = &math->k, .dtype = dtype, .rows = rows, .k = k, .x = x, .out = out};
    LK_ASSERT((!k || lk_dtype_row_bytes(dtype, k)) && "lk_quantize: rows of whole blocks");
    lk_pool_run(math->pool, pieces(rows, k), round_rows, &r);
    return r.bad ? lk_fail(err, LK_EINVAL, "a number is infinite, NaN, or so large that its block's scale is beyond fp16")
                 : LK_OK;
}

struct widening {
    enum lk_dtype dtype;
    size_t rows, k;
    const uint8_t *w;
    float *out;
};
static void widen_q4(const uint8_t *p, float *out) {
    float scale = lk__math_half(p);
    p += 2;
    for (size_t i = 0; i < LK_QUANT_BLOCK / 2; i++) {
        out[i] = scale * (float)((p[i] & 15) - 8);
        out[i + LK_QUANT_BLOCK / 2] = scale * (float)((p[i] >> 4) - 8);
    }
}
void lk__math_widen(enum lk_dtype dtype, size_t k, const uint8_t *w, float *out) {
    if (dtype == LK_F32) memcpy(out, w, 4 * k);
    for (size_t i = 0; (dtype == LK_BF16 || dtype == LK_F16) && i < k; i++) {
        uint16_t half;
        memcpy(&half, w + 2 * i, 2);
        out[i] = dtype == LK_F16 ? lk__math_half(&half) : lk__math_float((uint32_t)half << 16);
    }
    if (dtype == LK_Q8) lk__math_widen_q8(k, w, out);
    for (size_t i = 0; dtype == LK_Q4 && i < k; i += LK_QUANT_BLOCK, w += lk_dtype_row_bytes(dtype, LK_QUANT_BLOCK))
        widen_q4(w, out + i);
}
static void widen_rows(void *arg, size_t piece, int thread) {
    const struct widening *r = arg;
    size_t bytes = lk_dtype_row_bytes(r->dtype, r->k), n = piece_rows(r->k);
    (void)thread;
    for (size_t row = piece * n; row < smaller(r->rows, (piece + 1) * n); row++)
        lk__math_widen(r->dtype, r->k, r->w + row * bytes, r->out + row * r->k);
}
void lk_dequantize(struct lk_math *math, enum lk_dtype dtype, size_t rows, size_t k, const void *w, float *out) {
    struct widening r = {dtype, rows, k, w, out};
    lk_pool_run(math->pool, pieces(rows, k), widen_rows, &r);
}

/* --- Keys and values ----------------------------------------------------------------------------------------- */

struct keeping {
    const struct lk__math_kernels *kernels;
    size_t rows, k;
    const float *x;
    const size_t *place; /* NULL: back to where they were */
    float *out;
};
static void keep_block(const struct lk__math_kernels *kernels, const float *x, uint8_t *out) {
    static const uint8_t nan[34] = {0, 0x7e};
    if (!kernels->quant_round(LK_Q8, LK_QUANT_BLOCK, x, out)) memcpy(out, nan, sizeof nan);
}
static void keep_rows(void *arg, size_t piece, int thread) {
    const struct keeping *r = arg;
    size_t n = piece_rows(r->k);
    (void)thread;
    for (size_t row = piece * n; row < smaller(r->rows, (piece + 1) * n); row++)
        for (size_t b = 0; b < r->k / LK_QUANT_BLOCK; b++) {
            uint8_t block[34], *to = r->place ? (uint8_t *)(r->out + r->place[row]) + 34 * b : block;
            size_t at = row * r->k + b * LK_QUANT_BLOCK;
            keep_block(r->kernels, r->x + at, to);
            if (!r->place) lk__math_widen_q8(LK_QUANT_BLOCK, block, r->out + at);
        }
}
void lk_quantize_scatter(struct lk_math *math, size_t rows, size_t k, const float *x, const size_t *place, float *out) {
    struct keeping r = {&math->k, rows, k, x, place, out};
    LK_ASSERT(k % LK_QUANT_BLOCK == 0 && "lk_quantize_scatter: rows of whole blocks");
    LK_TIMED(math, EMBEDDING, 0, (double)(rows * k) * (sizeof(float) + 34.0 / LK_QUANT_BLOCK));
    lk_pool_run(math->pool, pieces(rows, k), keep_rows, &r);
}
void lk_quantize_through(struct lk_math *math, size_t rows, size_t k, float *x) {
    struct keeping r = {&math->k, rows, k, x, NULL, x};
    LK_ASSERT(k % LK_QUANT_BLOCK == 0 && "lk_quantize_through: rows of whole blocks");
    lk_pool_run(math->pool, pieces(rows, k), keep_rows, &r);
}

/* --- Activations --------------------------------------------------------------------------------------------- */

static size_t blocks_of(size_t k) {
    return k / LK_QUANT_BLOCK;
}
size_t lk_quantized_bytes(size_t rows, size_t k) {
    return rows * blocks_of(k) * LK__QUANT_RECORD;
}

struct activations {
    const struct lk__math_kernels *kernels;
    size_t rows, k, groups, a_piece;
    const float *x;
    uint8_t *to;
};
static void activation_groups(void *arg, size_t piece, int thread) {
    const struct activations *a = arg;
    (void)thread;
    for (size_t i = piece * a->a_piece; i < smaller(a->groups, (piece + 1) * a->a_piece); i++) {
        size_t row = lk__math_quant_begin(a->rows, a->groups, i);
        a->kernels->quant_activations(lk__math_quant_begin(a->rows, a->groups, i + 1) - row, a->k, a->x + row * a->k,
                                      a->to + row * blocks_of(a->k) * LK__QUANT_RECORD);
    }
}
void lk_quantize_activations(struct lk_math *math, size_t rows, size_t k, const float *x, void *memory) {
    struct activations a = {.kernels = &math->k, .rows = rows, .k = k, .x = x, .to = memory};
    LK_ASSERT(k % LK_QUANT_BLOCK == 0 && "lk_quantize_activations: rows of whole blocks");
    a.groups = lk__math_quant_groups(rows, math->k.quant_rows);
    a.a_piece = 1 + 16384 / (math->k.quant_rows * (k + 1));
    lk_pool_run(math->pool, (a.groups + a.a_piece - 1) / a.a_piece, activation_groups, &a);
}

/* --- Panels -------------------------------------------------------------------------------------------------- */

size_t lk_quant_panels_bytes(enum lk_dtype dtype, size_t n, size_t k) {
    return panels_of(n) * lk__math_quant_panel(dtype, k);
}
void lk_quant_panels_fill(struct lk_math *math, enum lk_dtype dtype, size_t n, size_t k, const void *w, void *panels) {
    LK_ASSERT(dtype >= LK_Q8 && k % LK_QUANT_BLOCK == 0 && "lk_quant_panels_fill");
    lk__math_fill_panels(math, math->k.quant_fill, lk__math_quant_panel(dtype, k), dtype, n, k, w, panels);
}

/* --- Products ------------------------------------------------------------------------------------------------ */

/* Bytes of weights of a tile: as few as a thread may be held up for, as many as claiming one costs nothing. */
#define TILE_BYTES ((size_t)96 << 10)
#define BLOCK_ROWS 96 /* rows whose records stay in L2 while panels go by */

struct job {
    const struct lk__math_kernels *kernels;
    size_t rows, k, count, panels, tiles, groups, row_blocks;
    const uint8_t *x;
    const struct lk_quant_product *products;
};
/* Panels from column j0 on of groups [from, to): a panel meets all groups before the next one. */
static void multiply_groups(const struct job *job, const struct lk_quant_product *p, size_t from, size_t to, size_t j0,
                            size_t j1) {
    size_t step = to - from > 1 ? job->kernels->quant_columns : j1 - j0;
    for (size_t j = j0; j < j1; j += step)
        for (size_t i = from; i < to; i++) {
            size_t row = lk__math_quant_begin(job->rows, job->groups, i);
            struct lk__math_quant_group group = {lk__math_quant_begin(job->rows, job->groups, i + 1) - row,
                                                 job->x + row * blocks_of(job->k) * LK__QUANT_RECORD};
            struct lk_quant_product here = *p;
            here.y += row * p->n;
            if (p->residual) here.residual += row * p->n;
            job->kernels->quant_multiply(&group, job->k, &here, j, smaller(j1, j + step));
        }
}
/* A tile is a share of all panels, whatever product they belong to, and a block of rows. */
static void multiply_tile(void *arg, size_t tile, int thread) {
    const struct job *job = arg;
    size_t block = tile / job->tiles, j0, j1;
    struct lk__math_share share = lk__math_share(job->panels, tile % job->tiles, job->tiles);
    size_t first = job->groups * block / job->row_blocks, end = job->groups * (block + 1) / job->row_blocks;
    (void)thread;
    for (size_t i = 0; i < job->count; i++)
        if (lk__math_share_columns(&share, job->products[i].n, &j0, &j1))
            multiply_groups(job, &job->products[i], first, end, j0, j1);
}

void lk_quant_multiply(struct lk_math *math, size_t rows, size_t k, const void *x, const struct lk_quant_product *products,
                       size_t count) {
    struct job job = {.kernels = &math->k, .rows = rows, .k = k, .count = count, .x = x, .products = products};
    double bytes = 0, columns = 0;
    for (size_t i = 0; i < count; i++) {
        job.panels += panels_of(products[i].n), columns += (double)products[i].n;
        bytes += (double)products[i].n * (double)lk_dtype_row_bytes(products[i].dtype, k);
    }
    LK_TIMED(math, MATMUL_FORWARD, 2.0 * (double)(rows * k) * columns,
             bytes + (double)(rows * k) + 4.0 * (double)rows * columns);
    if (!rows || !job.panels) return;
    size_t threads = (size_t)lk_pool_threads(math->pool);
    job.groups = lk__math_quant_groups(rows, math->k.quant_rows);
    job.row_blocks = smaller(job.groups, (rows + BLOCK_ROWS - 1) / BLOCK_ROWS);
    job.tiles = lk__math_shares(job.panels, threads, TILE_BYTES / (LK_QUANT_PANEL * (k + 1)) / 4 * 4 + 4);
    lk_pool_run(math->pool, job.tiles * job.row_blocks, multiply_tile, &job);
}
