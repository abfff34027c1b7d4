/* Products of a few rows with weights in panels: shares panels out and gives them to the pool. A column is one chain of one
 * thread, so neither threads nor panels change a bit. */
#include "math/kernel_table.h"

#define TILE_FLOATS ((size_t)48 << 10)

bool lk_panels_usable(const struct lk_math *math) {
    return math->k.panels_multiply != NULL;
}

static size_t smaller(size_t a, size_t b) {
    return a < b ? a : b;
}
static size_t panels_of(size_t n) {
    return (n + LK_PANEL - 1) / LK_PANEL;
}

struct filling {
    const struct lk__math_kernels *kernels;
    size_t n, k;
    const float *w;
    float *panels;
};
static void fill_panel(void *arg, size_t panel, int thread) {
    const struct filling *f = arg;
    size_t j = panel * LK_PANEL;
    (void)thread;
    f->kernels->panels_fill(smaller(LK_PANEL, f->n - j), f->k, f->w + j * f->k, f->panels + j * f->k);
}
void lk_panels_fill(struct lk_math *math, size_t n, size_t k, const float *w, float *panels) {
    struct filling f = {&math->k, n, k, w, panels};
    LK_ASSERT(lk_panels_usable(math) && "lk_panels_fill: see lk_panels_usable");
    lk_pool_run(math->pool, panels_of(n), fill_panel, &f);
}

/* Panels of a tile, at most: few enough that a thread that is held up keeps the others waiting for microseconds, enough
 * that claiming one costs nothing; and whole turns of the kernel's four side by side. */
static size_t tile_panels(size_t k) {
    size_t panels = TILE_FLOATS / (LK_PANEL * (k ? k : 1)) / 4 * 4;
    return panels ? panels : 4;
}

struct job {
    const struct lk__math_kernels *kernels;
    size_t rows, k, count, panels, tiles;
    const float *x;
    const struct lk_panel_product *products;
};
/* Tiles are equal shares of all panels, whatever product they belong to. */
static void multiply_tile(void *arg, size_t tile, int thread) {
    const struct job *job = arg;
    size_t from = job->panels * tile / job->tiles, to = job->panels * (tile + 1) / job->tiles, before = 0;
    (void)thread;
    for (size_t i = 0; i < job->count && before < to; i++) {
        const struct lk_panel_product *p = &job->products[i];
        size_t here = panels_of(p->n), a = from > before ? from - before : 0, b = smaller(to - before, here);
        if (a < b) job->kernels->panels_multiply(job->rows, job->k, job->x, p, a * LK_PANEL, smaller(p->n, b * LK_PANEL));
        before += here;
    }
}

void lk_panels_multiply(struct lk_math *math, size_t rows, size_t k, const float *x,
                        const struct lk_panel_product *products, size_t count) {
    struct job job = {&math->k, rows, k, count, 0, 0, x, products};
    LK_ASSERT(lk_panels_usable(math) && rows <= LK_PANEL_ROWS && "lk_panels_multiply");
    double columns = 0;
    for (size_t i = 0; i < count; i++) job.panels += panels_of(products[i].n), columns += (double)products[i].n;
    LK_TIMED(math, MATMUL_FORWARD, 2.0 * (double)(rows * k) * columns,
             ((double)(rows * k) + (double)(k + rows) * columns) * sizeof(float));
    if (!rows || !job.panels) return;
    size_t share = (size_t)lk_pool_threads(math->pool) * tile_panels(k);
    job.tiles = smaller(job.panels, (job.panels + share - 1) / share * (size_t)lk_pool_threads(math->pool));
    lk_pool_run(math->pool, job.tiles, multiply_tile, &job);
}
