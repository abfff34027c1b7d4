/* Products of a few rows with weights in panels: shares panels out and gives them to the pool. A column is one chain of one
 * thread, so neither threads nor panels change a bit. */
#include "math/panel_shares.h"

#define TILE_FLOATS ((size_t)48 << 10)

bool lk_panels_usable(const struct lk_math *math) {
    return math->k.panels_multiply != NULL;
}

struct filling {
    lk__math_fill_fn *fill;
    enum lk_dtype dtype;
    size_t n, k, row_bytes, panel_bytes;
    const uint8_t *w;
    uint8_t *panels;
};
static void fill_panel(void *arg, size_t panel, int thread) {
    const struct filling *f = arg;
    size_t row = panel * LK_PANEL;
    (void)thread;
    f->fill(f->dtype, smaller(LK_PANEL, f->n - row), f->k, f->w + row * f->row_bytes, f->panels + panel * f->panel_bytes);
}
void lk__math_fill_panels(struct lk_math *math, lk__math_fill_fn *fill, size_t panel_bytes, enum lk_dtype dtype, size_t n,
                          size_t k, const void *w, void *panels) {
    struct filling f = {fill, dtype, n, k, lk_dtype_row_bytes(dtype, k), panel_bytes, w, panels};
    lk_pool_run(math->pool, panels_of(n), fill_panel, &f);
}
void lk_panels_fill(struct lk_math *math, enum lk_dtype dtype, size_t n, size_t k, const void *w, void *panels) {
    LK_ASSERT(lk_panels_usable(math) && "lk_panels_fill: see lk_panels_usable");
    lk__math_fill_panels(math, math->k.panels_fill, LK_PANEL * lk_dtype_row_bytes(dtype, k), dtype, n, k, w, panels);
}

/* Panels of a tile, at most: few enough that a thread that is held up keeps the others waiting for microseconds, enough
 * that claiming one costs nothing; and whole turns of the kernel's four side by side. */
static size_t tile_panels(size_t k) {
    size_t panels = TILE_FLOATS / (LK_PANEL * (k ? k : 1)) / 4 * 4;
    return panels ? panels : 4;
}

/* Rows whose panels of one segment take half of L2; blocks of rows are equal. */
static size_t block_rows(const struct lk__math_kernels *k) {
    size_t rows = k->caches.l2.bytes / 2 / (512 * sizeof(float));
    return rows < 48 ? 48 : rows;
}

size_t lk_panels_scratch_bytes(const struct lk_math *math, size_t k) {
    return math->k.panels_packed_floats ? math->k.panels_packed_floats(block_rows(&math->k), k) * sizeof(float) : 0;
}

struct job {
    struct lk_math *math;
    size_t rows, k, count, panels, tiles, row_blocks;
    const float *x;
    const struct lk_panel_product *products;
};

/* Rows from `row` on of columns [j0, j1) of one product. */
static void few_rows(const struct job *job, const struct lk_panel_product *p, size_t row, size_t rows, size_t j0,
                     size_t j1) {
    for (size_t end = row + rows, n; row < end; row += n) {
        struct lk_panel_product here = *p;
        n = smaller(LK_PANEL_ROWS, end - row);
        here.y += row * p->n;
        if (p->residual) here.residual += row * p->n;
        job->math->k.panels_multiply(n, job->k, job->x + row * job->k, &here, j0, j1);
    }
}
static void many_rows(const struct job *job, const struct lk_panel_product *p, size_t row, size_t rows, size_t j0,
                      size_t j1, const float *packed) {
    struct lk_panel_product here = *p;
    size_t whole = j0 + (j1 - j0) / LK_PANEL * LK_PANEL;
    here.y += row * p->n;
    if (p->residual) here.residual += row * p->n;
    job->math->k.panels_multiply_many(rows, job->k, packed, &here, j0, whole);
    if (whole < j1) few_rows(job, p, row, rows, whole, j1);
}

/* A tile is a share of all panels, whatever product they belong to, and a block of rows. */
static void multiply_tile(void *arg, size_t tile, int thread) {
    const struct job *job = arg;
    size_t block = tile / job->tiles, j0, j1;
    struct lk__math_share share = lk__math_share(job->panels, tile % job->tiles, job->tiles);
    size_t row = job->rows * block / job->row_blocks, rows = job->rows * (block + 1) / job->row_blocks - row;
    float *packed = rows > LK_PANEL_ROWS ? lk__math_scratch(job->math, thread) : NULL;
    if (packed) job->math->k.panels_pack(rows, job->k, job->x + row * job->k, packed);
    for (size_t i = 0; i < job->count; i++) {
        const struct lk_panel_product *p = &job->products[i];
        if (!lk__math_share_columns(&share, p->n, &j0, &j1)) continue;
        if (packed)
            many_rows(job, p, row, rows, j0, j1, packed);
        else
            few_rows(job, p, row, rows, j0, j1);
    }
}

void lk_panels_multiply(struct lk_math *math, size_t rows, size_t k, const float *x,
                        const struct lk_panel_product *products, size_t count) {
    struct job job = {.math = math, .rows = rows, .k = k, .count = count, .row_blocks = 1, .x = x, .products = products};
    LK_ASSERT(lk_panels_usable(math) && "lk_panels_multiply");
    double columns = 0;
    for (size_t i = 0; i < count; i++) job.panels += panels_of(products[i].n), columns += (double)products[i].n;
    LK_TIMED(math, MATMUL_FORWARD, 2.0 * (double)(rows * k) * columns,
             ((double)(rows * k) + (double)(k + rows) * columns) * sizeof(float));
    if (!rows || !job.panels) return;
    size_t threads = (size_t)lk_pool_threads(math->pool);
    if (rows > LK_PANEL_ROWS) {
        LK_ASSERT(math->scratch_bytes >= lk_panels_scratch_bytes(math, k));
        job.row_blocks = (rows + block_rows(&math->k) - 1) / block_rows(&math->k);
        job.tiles = smaller(job.panels, threads > 1 ? 2 * threads : 1); /* each packs its rows: not many */
    } else
        job.tiles = lk__math_shares(job.panels, threads, tile_panels(k));
    lk_pool_run(math->pool, job.tiles * job.row_blocks, multiply_tile, &job);
}
