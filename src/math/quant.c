/* Weights in fewer bits: rounds rows, shares rows and panels out to the pool. A column is one chain of one thread. */
#include "math/quant.h"
#include "math/kernel_table.h"

#include <stdatomic.h>

static size_t smaller(size_t a, size_t b) {
    return a < b ? a : b;
}

size_t lk_format_row_bytes(enum lk_format format, size_t k) {
    if (format == LK_F32) return k * 4;
    if (format == LK_BF16) return k * 2;
    return k % LK_QUANT_BLOCK ? 0 : k / LK_QUANT_BLOCK * (format == LK_Q8 ? 34 : 18);
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
    enum lk_format format;
    size_t rows, k;
    const float *x;
    uint8_t *out;
    atomic_bool bad;
};
static void round_rows(void *arg, size_t piece, int thread) {
    struct rounding *r = arg;
    size_t bytes = lk_format_row_bytes(r->format, r->k), n = piece_rows(r->k);
    (void)thread;
    for (size_t row = piece * n; row < smaller(r->rows, (piece + 1) * n); row++)
        if (!r->kernels->quant_round(r->format, r->k, r->x + row * r->k, r->out + row * bytes)) r->bad = true;
}
int lk_quantize(struct lk_math *math, enum lk_format format, size_t rows, size_t k, const float *x, void *out,
                struct lk_err *err) {
    struct rounding r = {.kernels = &math->k, .format = format, .rows = rows, .k = k, .x = x, .out = out};
    LK_ASSERT((!k || lk_format_row_bytes(format, k)) && "lk_quantize: rows of whole blocks");
    lk_pool_run(math->pool, pieces(rows, k), round_rows, &r);
    return r.bad ? lk_fail(err, LK_EINVAL, "a number is infinite, NaN, or so large that its block's scale is beyond fp16")
                 : LK_OK;
}

struct widening {
    enum lk_format format;
    size_t rows, k;
    const uint8_t *w;
    float *out;
};
static void widen_block(enum lk_format format, const uint8_t *p, float *out) {
    float scale = lk__math_half(p);
    p += 2;
    for (size_t i = 0; format == LK_Q8 && i < LK_QUANT_BLOCK; i++) out[i] = scale * (float)(int8_t)p[i];
    for (size_t i = 0; format == LK_Q4 && i < LK_QUANT_BLOCK / 2; i++) {
        out[i] = scale * (float)((p[i] & 15) - 8);
        out[i + LK_QUANT_BLOCK / 2] = scale * (float)((p[i] >> 4) - 8);
    }
}
static void widen_rows(void *arg, size_t piece, int thread) {
    const struct widening *r = arg;
    size_t bytes = lk_format_row_bytes(r->format, r->k), n = piece_rows(r->k);
    size_t block = lk_format_row_bytes(r->format, LK_QUANT_BLOCK);
    (void)thread;
    for (size_t row = piece * n; row < smaller(r->rows, (piece + 1) * n); row++) {
        const uint8_t *w = r->w + row * bytes;
        float *out = r->out + row * r->k;
        if (r->format == LK_F32) memcpy(out, w, bytes);
        for (size_t i = 0; r->format == LK_BF16 && i < r->k; i++) {
            uint16_t half;
            memcpy(&half, w + 2 * i, 2);
            out[i] = lk__math_float((uint32_t)half << 16);
        }
        for (size_t i = 0; r->format >= LK_Q8 && i < r->k; i += LK_QUANT_BLOCK, w += block)
            widen_block(r->format, w, out + i);
    }
}
void lk_dequantize(struct lk_math *math, enum lk_format format, size_t rows, size_t k, const void *w, float *out) {
    struct widening r = {format, rows, k, w, out};
    lk_pool_run(math->pool, pieces(rows, k), widen_rows, &r);
}

/* --- Activations --------------------------------------------------------------------------------------------- */

static size_t blocks_of(size_t k) {
    return k / LK_QUANT_BLOCK;
}
size_t lk_quantized_bytes(size_t rows, size_t k) {
    return rows * (k + blocks_of(k) * (sizeof(float) + sizeof(int32_t)));
}
static struct lk__math_quantized parts_of(const void *memory, size_t rows, size_t k) {
    const int8_t *q = memory;
    const float *d = (const float *)(const void *)(q + rows * k);
    return (struct lk__math_quantized){q, d, (const int32_t *)(const void *)(d + rows * blocks_of(k))};
}

struct activations {
    const struct lk__math_kernels *kernels;
    size_t rows, k;
    const float *x;
    struct lk__math_quantized to;
};
static void activation_rows(void *arg, size_t piece, int thread) {
    const struct activations *a = arg;
    size_t n = piece_rows(a->k), blocks = blocks_of(a->k);
    (void)thread;
    for (size_t row = piece * n; row < smaller(a->rows, (piece + 1) * n); row++)
        a->kernels->quant_activations(a->k, a->x + row * a->k, (int8_t *)(uintptr_t)a->to.q + row * a->k,
                                      (float *)(uintptr_t)a->to.d + row * blocks,
                                      (int32_t *)(uintptr_t)a->to.sums + row * blocks);
}
void lk_quantize_activations(struct lk_math *math, size_t rows, size_t k, const float *x, void *memory) {
    struct activations a = {&math->k, rows, k, x, parts_of(memory, rows, k)};
    LK_ASSERT(k % LK_QUANT_BLOCK == 0 && "lk_quantize_activations: rows of whole blocks");
    lk_pool_run(math->pool, pieces(rows, k), activation_rows, &a);
}

/* --- Panels -------------------------------------------------------------------------------------------------- */

static size_t panels_of(size_t n) {
    return (n + LK__QUANT_PANEL - 1) / LK__QUANT_PANEL;
}
size_t lk_quant_panels_bytes(struct lk_math *math, enum lk_format format, size_t n, size_t k) {
    return panels_of(n) * math->k.quant_panel_bytes(format, k);
}

struct filling {
    const struct lk__math_kernels *kernels;
    enum lk_format format;
    size_t n, k;
    const uint8_t *w;
    uint8_t *panels;
};
static void fill_panel(void *arg, size_t panel, int thread) {
    const struct filling *f = arg;
    size_t j = panel * LK__QUANT_PANEL;
    (void)thread;
    f->kernels->quant_fill(f->format, smaller(LK__QUANT_PANEL, f->n - j), f->k,
                           f->w + j * lk_format_row_bytes(f->format, f->k),
                           f->panels + panel * f->kernels->quant_panel_bytes(f->format, f->k));
}
void lk_quant_panels_fill(struct lk_math *math, enum lk_format format, size_t n, size_t k, const void *w, void *panels) {
    struct filling f = {&math->k, format, n, k, w, panels};
    LK_ASSERT(format >= LK_Q8 && k % LK_QUANT_BLOCK == 0 && "lk_quant_panels_fill");
    lk_pool_run(math->pool, panels_of(n), fill_panel, &f);
}

/* --- Products ------------------------------------------------------------------------------------------------ */

#define TILE_BYTES ((size_t)96 << 10) /* of weights: as few as a thread may be held up for, as many as claiming one costs  \
                                       */
#define BLOCK_ROWS 96                 /* rows whose bytes of a segment stay in L2 beside the weights' */

struct job {
    const struct lk__math_kernels *kernels;
    size_t rows, k, count, panels, tiles, row_blocks;
    struct lk__math_quantized x;
    const struct lk_quant_product *products;
};
/* Tiles are equal shares of all panels, whatever product they belong to, of a block of rows. */
static void multiply_tile(void *arg, size_t tile, int thread) {
    const struct job *job = arg;
    size_t block = tile / job->tiles, share = tile % job->tiles, before = 0, blocks = blocks_of(job->k);
    size_t from = job->panels * share / job->tiles, to = job->panels * (share + 1) / job->tiles;
    size_t row = job->rows * block / job->row_blocks, rows = job->rows * (block + 1) / job->row_blocks - row;
    struct lk__math_quantized x = {job->x.q + row * job->k, job->x.d + row * blocks, job->x.sums + row * blocks};
    (void)thread;
    for (size_t i = 0; i < job->count && before < to; i++) {
        struct lk_quant_product here = job->products[i];
        size_t n = panels_of(here.n), a = from > before ? from - before : 0, b = smaller(to - before, n);
        here.y += row * here.n;
        if (here.residual) here.residual += row * here.n;
        if (a < b)
            job->kernels->quant_multiply(rows, job->k, &x, &here, a * LK__QUANT_PANEL,
                                         smaller(here.n, b * LK__QUANT_PANEL));
        before += n;
    }
}

void lk_quant_multiply(struct lk_math *math, size_t rows, size_t k, const void *x, const struct lk_quant_product *products,
                       size_t count) {
    struct job job = {.kernels = &math->k, .rows = rows, .k = k, .count = count, .products = products};
    double bytes = 0, columns = 0;
    for (size_t i = 0; i < count; i++) {
        job.panels += panels_of(products[i].n), columns += (double)products[i].n;
        bytes += (double)products[i].n * (double)lk_format_row_bytes(products[i].format, k);
    }
    LK_TIMED(math, MATMUL_FORWARD, 2.0 * (double)(rows * k) * columns,
             bytes + (double)(rows * k) + 4.0 * (double)rows * columns);
    if (!rows || !job.panels) return;
    job.x = parts_of(x, rows, k);
    size_t threads = (size_t)lk_pool_threads(math->pool);
    size_t share = threads * (TILE_BYTES / (LK__QUANT_PANEL * (k + 1)) / 4 * 4 + 4);
    job.row_blocks = (rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
    job.tiles = smaller(job.panels, (job.panels + share - 1) / share * threads);
    lk_pool_run(math->pool, job.tiles * job.row_blocks, multiply_tile, &job);
}
