/* Row and element kernels: time an element in cache and in memory on one thread, beside what reading and writing memory at
 * the measured speed would take. `make bench-kernels`; LOCKSTEP_ISA chooses the instruction set. */
#include "lockstep/mem.h"
#include "math/kernel_table.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static struct lk__kernels k;
static float *x[7];
static double read_bytes;
#define WIDTH ((size_t)768)

typedef void run_fn(size_t n, size_t at);
static void swiglu(size_t n, size_t i) {
    k.swiglu_forward(n, x[0] + i, x[1] + i, x[2] + i);
}
static void swiglu_back(size_t n, size_t i) {
    k.swiglu_backward(n, x[0] + i, x[1] + i, x[2] + i, x[3] + i, x[4] + i);
}
static void gelu(size_t n, size_t i) {
    k.gelu_forward(n, x[0] + i, x[1] + i);
}
static void gelu_back(size_t n, size_t i) {
    k.gelu_backward(n, x[0] + i, x[1] + i, x[2] + i);
}
static void add(size_t n, size_t i) {
    k.add(n, x[0] + i, x[1] + i, x[2] + i);
}
static void exp_n(size_t n, size_t i) {
    k.exp_n(n, x[0] + i, x[1] + i);
}
static void sexp_n(size_t n, size_t i) {
    k.softmax_exp_n(n, x[0] + i, 2, x[1] + i);
}
static void tanh_n(size_t n, size_t i) {
    k.tanh_n(n, x[0] + i, x[1] + i);
}
static void finite(size_t n, size_t i) {
    k.all_finite(n, x[0] + i);
}
static void squares(size_t n, size_t i) {
    static volatile double sink;
    for (size_t b = 0; b < n; b += LK_BLOCK) sink = k.block_squares(n - b < LK_BLOCK ? n - b : LK_BLOCK, x[0] + i + b);
    (void)sink;
}
static void adamw(size_t n, size_t i) {
    static const struct lk_adamw a = {0.9f, 0.1f, 0.95f, 0.05f, -1e-6f, 1, 1e-8f, 0.9999f, 1};
    k.adamw(&a, n, x[0] + i, x[1] + i, x[5] + i, x[6] + i);
}
static float mean[65536], rstd[65536];
static void rms(size_t n, size_t i) {
    k.norm_forward(n / WIDTH, WIDTH, x[0] + i, x[1], NULL, 1e-5f, x[2] + i, mean, rstd);
}
static void rms_back(size_t n, size_t i) {
    k.norm_backward(n / WIDTH, WIDTH, x[0] + i, x[1], mean, rstd, false, x[2] + i, x[3] + i, x[3] + i, x[4] + i);
}
static void layer(size_t n, size_t i) {
    k.norm_forward(n / WIDTH, WIDTH, x[0] + i, x[1], x[1], 1e-5f, x[2] + i, mean, rstd);
}
static void layer_back(size_t n, size_t i) {
    k.norm_backward(n / WIDTH, WIDTH, x[0] + i, x[1], mean, rstd, true, x[2] + i, x[3] + i, x[3] + i, x[4] + i);
}
static void loss(size_t n, size_t i) {
    static uint32_t target = 5;
    float out;
    k.cross_entropy(1, n, x[0] + i, n, &target, 1, true, &out);
}
static void rope(size_t n, size_t i) {
    k.rope(n / WIDTH, i / WIDTH, 12, 64, 64, 0, x[1], x[2], 0.125f, false, x[0] + i, WIDTH);
}
static void columns(size_t n, size_t i) {
    struct lk_row_part part = {0, n / WIDTH, true};
    for (size_t j = 0; j < WIDTH; j += 64) k.column_sum(64, x[0] + i + j, WIDTH, NULL, 0, &part, 1, false, x[3] + j);
}
static void columns_gain(size_t n, size_t i) {
    struct lk_row_part part = {0, n / WIDTH, true};
    for (size_t j = 0; j < WIDTH; j += 64)
        k.column_sum(64, x[0] + i + j, WIDTH, x[1] + i + j, WIDTH, &part, 1, false, x[3] + j);
}

static const struct {
    const char *name;
    run_fn *run;
    double streams; /* floats read or written an element; a write also reads its line */
} kernels[] = {
    {"rmsnorm", rms, 3},
    {"rmsnorm backward", rms_back, 7},
    {"layernorm", layer, 3},
    {"layernorm backward", layer_back, 7},
    {"swiglu", swiglu, 4},
    {"swiglu backward", swiglu_back, 7},
    {"gelu", gelu, 3},
    {"gelu backward", gelu_back, 4},
    {"cross entropy", loss, 2},
    {"rope", rope, 2},
    {"column sum", columns, 1},
    {"column sum, gain", columns_gain, 2},
    {"add", add, 4},
    {"exp", exp_n, 3},
    {"softmax exp", sexp_n, 3},
    {"tanh", tanh_n, 3},
    {"adamw", adamw, 7},
    {"block squares", squares, 1},
    {"all finite", finite, 1},
};

/* ns an element: pieces of n elements through `total` of them, the best of several times. */
static double measure(run_fn *run, size_t n, size_t total) {
    double best = 1e9, end = now() + 0.15;
    for (int turn = 0; turn < 3 || now() < end; turn++) {
        double start = now();
        for (size_t i = 0; i + n <= total; i += n) run(n, total > n ? i : 0);
        double t = (now() - start) / (double)(total / n * n);
        if (t < best) best = t;
    }
    return best * 1e9;
}
static double in_cache(run_fn *run) {
    double best = 1e9;
    for (int turn = 0; turn < 15; turn++) {
        double start = now();
        for (int i = 0; i < 40; i++) run(6 * WIDTH, 0);
        double t = (now() - start) / (40.0 * 6 * (double)WIDTH);
        if (t < best) best = t;
    }
    return best * 1e9;
}

int main(void) {
    struct lk_math *m;
    struct lk_err err;
    struct lk_peaks peaks;
    if (lk_math_open(NULL, NULL, &m, &err)) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    k = m->k;
    lk_fpenv_set();
    lk_math_measure(m, 1, &peaks);
    read_bytes = peaks.read_bytes_one;
    size_t total = ((size_t)96 << 20) / sizeof(float) / WIDTH * WIDTH;
    for (int a = 0; a < 7; a++) {
        x[a] = aligned_alloc(64, total * sizeof(float) + 4096);
        if (!x[a]) return 1;
        for (size_t i = 0; i < total; i++)
            x[a][i] = (float)((i * 7919 + (size_t)a * 31) % 1000) * 0.004f - (a < 5 ? 2.0f : 0.0f);
    }
    printf("%s: fma %.0f Gflop/s, reading %.1f GB/s, one thread\n", lk_math_isa(m), peaks.fma_flops_one * 1e-9,
           read_bytes * 1e-9);
    printf("%-20s %12s %12s %12s %8s\n", "kernel", "cache ns", "memory ns", "its floor", "share");
    for (size_t i = 0; i < sizeof kernels / sizeof *kernels; i++) {
        double c = in_cache(kernels[i].run), t = measure(kernels[i].run, 21 * WIDTH, total),
               floor_ns = kernels[i].streams * 4e9 / read_bytes;
        printf("%-20s %12.3f %12.3f %12.3f %7.0f%%\n", kernels[i].name, c, t, floor_ns,
               100 * (floor_ns > c ? floor_ns : c) / t);
    }
    lk_math_close(m);
    return 0;
}
