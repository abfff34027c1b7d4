/* Measures the machine's peaks: what `doctor` prints and what kernels are judged by. */
#include "lockstep/base/mem.h"
#include "math/kernel_table.h"
#include <string.h>
#include <time.h>

#define READ_BYTES ((size_t)256 << 20) /* well beyond the last cache */
#define CHUNK      ((size_t)1 << 20)
#define TILE       ((size_t)16384) /* floats, as the kernels' own */
#define ROUNDS     ((size_t)200000)

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

struct job {
    const struct lk__math_kernels *k;
    const float *x;
    void *memory;
    double work;
};
static void fma_tile(void *arg, size_t tile, int thread) {
    (void)tile, (void)thread;
    struct job *j = arg;
    double flops = j->k->peak_fma(ROUNDS, 0.5f);
    if (tile == 0) j->work = flops;
}
static void read_tile(void *arg, size_t tile, int thread) {
    (void)thread;
    const struct job *j = arg;
    const struct lk_stream s = {.reads = 1, .read = {j->x}};
    j->k->peak_stream(tile * (CHUNK / sizeof(float)), CHUNK / sizeof(float), &s);
}

static void copy_tile(void *arg, size_t tile, int thread) {
    (void)thread;
    const struct job *j = arg;
    float *half = (float *)(void *)((char *)j->memory + READ_BYTES / 2);
    memcpy(half + tile * (CHUNK / sizeof(float)), j->x + tile * (CHUNK / sizeof(float)), CHUNK);
}

struct stream {
    const struct lk__math_kernels *k;
    const struct lk_stream *s;
};
static void stream_tile(void *arg, size_t tile, int thread) {
    (void)thread;
    const struct stream *t = arg;
    size_t from = tile * TILE, left = t->s->n - from;
    t->k->peak_stream(from, left < TILE ? left : TILE, t->s);
}
void lk_math_stream(struct lk_math *m, const struct lk_stream *s) {
    struct stream t = {&m->k, s};
    lk_pool_run(m->pool, (s->n + TILE - 1) / TILE, stream_tile, &t);
}

/* Best of the repetitions that fit the time, at least two: other work on the machine only ever slows one down. */
static double best(struct lk_pool *pool, size_t tiles, lk_tile_fn *fn, struct job *j, double seconds) {
    double least = 0, end = now() + seconds;
    for (int i = 0; i < 2 || now() < end; i++) {
        double start = now();
        lk_pool_run(pool, tiles, fn, j);
        double t = now() - start;
        if (least == 0 || t < least) least = t;
    }
    return least > 0 ? least : 1e-9;
}

void lk_math_measure(struct lk_math *m, double seconds, struct lk_peaks *out) {
    struct job j = {.k = &m->k};
    struct lk_arena memory;
    size_t threads = (size_t)lk_pool_threads(m->pool);
    *out = (struct lk_peaks){0};
    double t = best(NULL, 1, fma_tile, &j, seconds / 4);
    out->fma_flops_one = j.work / t;
    /* Several tiles a thread, so that one that is late does not count twice. */
    t = best(m->pool, 4 * threads, fma_tile, &j, seconds / 4);
    out->fma_flops_all = j.work * (double)(4 * threads) / t;
    if (lk_arena_init(&memory, READ_BYTES)) return;
    memset(memory.base, 1, READ_BYTES);
    j.x = (const float *)(const void *)memory.base;
    out->read_bytes_one = (double)READ_BYTES / best(NULL, READ_BYTES / CHUNK, read_tile, &j, seconds / 4);
    out->read_bytes_all = (double)READ_BYTES / best(m->pool, READ_BYTES / CHUNK, read_tile, &j, seconds / 4);
    j.memory = memory.base;
    out->copy_bytes_all = (double)READ_BYTES / 2 / best(m->pool, READ_BYTES / 2 / CHUNK, copy_tile, &j, seconds / 8);
    lk_arena_release(&memory);
}
