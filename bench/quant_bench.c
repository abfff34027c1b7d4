/* Products with weights in 8 and 4 bits beside those of floats: quant_bench [threads] [isa]
 * Few rows: beside reading the same bytes, in turns, since the time is that of reading. Many rows: operations a second. */
#include "bench_machine.h"
#include "bench_median.h"
#include "bench_model.h"
#include "lockstep/math/kernels.h"
#include "lockstep/math/measure.h"
#include "lockstep/math/quant.h"

#define ROUNDS 15

static const enum lk_dtype dtypes[] = {LK_F32, LK_Q8, LK_Q4};

static float *random_floats(size_t n) {
    unsigned seed = 7;
    float *x = lk_alloc(n * sizeof *x);
    if (!x) exit(1);
    for (size_t i = 0; i < n; i++) x[i] = (float)(next(&seed) % 2001) / 1000.0f - 1.0f;
    return x;
}

struct bench {
    struct lk_math *math;
    size_t n, k, bytes;
    float *x, *y;
    void *panels, *quantized;
};
static double multiply(struct bench *b, enum lk_dtype f, size_t rows) {
    double t = seconds_now();
    if (f == LK_F32) {
        lk_panels_multiply(b->math, rows, b->k, b->x, &(struct lk_panel_product){b->panels, b->n, NULL, NULL, b->y}, 1);
    } else {
        lk_quantize_activations(b->math, rows, b->k, b->x, b->quantized);
        lk_quant_multiply(b->math, rows, b->k, b->quantized,
                          &(struct lk_quant_product){b->panels, b->n, NULL, NULL, b->y, f}, 1);
    }
    return seconds_now() - t;
}
static double read_bytes(struct bench *b) {
    double t = seconds_now();
    lk_math_stream(b->math, &(struct lk_stream){.n = b->bytes / 4, .reads = 1, .read = {b->panels}});
    return seconds_now() - t;
}

/* One format's panels of n rows of k numbers: the same rows again and again. */
static void prepare(struct bench *b, enum lk_dtype f, size_t n, size_t k, size_t rows) {
    struct lk_err err = {0};
    enum { ROWS = 4096 };
    float *w = random_floats(ROWS * k);
    b->n = n, b->k = k;
    b->x = random_floats(rows * k), b->y = lk_alloc(rows * n * sizeof(float));
    b->quantized = lk_alloc(lk_quantized_bytes(rows, k));
    if (lk_math_reserve(b->math, lk_panels_scratch_bytes(b->math, k), &err)) stop(&err);
    b->bytes = f == LK_F32 ? n * k * 4 : lk_quant_panels_bytes(f, n, k);
    char *panels = b->panels = lk_alloc(b->bytes);
    void *rounded = lk_alloc(ROWS * k * 4);
    if (f != LK_F32 && lk_quantize(b->math, f, ROWS, k, w, rounded, &err)) stop(&err);
    for (size_t i = 0, m; i < n; i += m) {
        m = n - i < ROWS ? n - i : ROWS;
        if (f == LK_F32)
            lk_panels_fill(b->math, LK_F32, m, k, w, panels + i * k * 4);
        else
            lk_quant_panels_fill(b->math, f, m, k, rounded, panels + lk_quant_panels_bytes(f, i, k));
    }
    lk_free(rounded);
    lk_free(w);
}
static void drop(struct bench *b) {
    lk_free(b->panels), lk_free(b->x), lk_free(b->y), lk_free(b->quantized);
}

static void rounding(struct bench *b, enum lk_dtype f) {
    enum { N = 4096, K = 4096 };
    struct lk_err err = {0};
    float *w = random_floats((size_t)N * K);
    void *out = lk_calloc((size_t)N * K, 4);
    double took[5], read[5];
    for (int r = 0; r < 5; r++) {
        double t = seconds_now();
        if (lk_quantize(b->math, f, N, K, w, out, &err)) stop(&err);
        took[r] = seconds_now() - t;
        t = seconds_now();
        lk_math_stream(b->math, &(struct lk_stream){.n = (size_t)N * K, .reads = 1, .read = {w}});
        read[r] = seconds_now() - t;
    }
    double t = median(took, 5), m = median(read, 5);
    printf("rounding to %s: %.2f GB/s of floats; reading alone %.2f GB/s: %.1f%%\n", lk_dtype_name(f), 4e-9 * N * K / t,
           4e-9 * N * K / m, 100 * m / t);
    lk_free(w), lk_free(out);
}
static void few_rows(struct bench *b, enum lk_dtype f) {
    prepare(b, f, (f == LK_F32 ? 1 : f == LK_Q8 ? 4 : 8) * (size_t)50304, 768, 8);
    for (size_t rows = 1; rows <= 8; rows *= 2) {
        double took[ROUNDS], read[ROUNDS];
        for (int r = 0; r < ROUNDS; r++) took[r] = multiply(b, f, rows), read[r] = read_bytes(b);
        double t = median(took, ROUNDS), m = median(read, ROUNDS);
        printf("%zu row%s %-3s %8.3f ms  %6.2f GB/s of weights; reading alone %6.2f GB/s: %.1f%%\n", rows,
               rows > 1 ? "s" : " ", lk_dtype_name(f), 1e3 * t, 1e-9 * (double)b->bytes / t, 1e-9 * (double)b->bytes / m,
               100 * m / t);
    }
    drop(b);
}
static void many_rows(struct bench *b) {
    double first = 0;
    for (size_t i = 0; i < 3; i++) {
        double took[ROUNDS];
        prepare(b, dtypes[i], 3072, 768, 512);
        for (int r = 0; r < ROUNDS; r++) took[r] = multiply(b, dtypes[i], 512);
        drop(b);
        double t = median(took, ROUNDS);
        first = i ? first : t;
        printf("512 rows %-3s %8.3f ms  %7.1f G operations/s, %.2f times f32\n", lk_dtype_name(dtypes[i]), 1e3 * t,
               2e-9 * 512 * 3072 * 768 / t, first / t);
    }
}

int main(int argc, char **argv) {
    struct lk_err err = {0};
    struct lk_pool *pool;
    struct bench b = {0};
    if (lk_pool_open(argc > 1 ? atoi(argv[1]) : 2, &pool, &err) ||
        lk_math_open(pool, argc > 2 ? argv[2] : NULL, &b.math, &err))
        stop(&err);
    struct machine before = machine_now();
    rounding(&b, LK_Q8);
    rounding(&b, LK_Q4);
    for (size_t i = 0; i < 3; i++) few_rows(&b, dtypes[i]);
    many_rows(&b);
    lk_math_close(b.math);
    lk_pool_close(pool);
    return machine_verdict(&before);
}
