/* Products with weights in 8 and 4 bits beside those of floats: quant_bench [threads] [isa]
 * Few rows: beside reading the same bytes, in turns, since the time is that of reading. Many rows: operations a second. */
#include "bench_machine.h"
#include "bench_median.h"
#include "bench_model.h"
#include "lockstep/math/kernels.h"
#include "lockstep/math/measure.h"
#include "lockstep/math/quant.h"

#define ROUNDS 15

static float *random_floats(size_t n) {
    unsigned seed = 7;
    float *x = lk_alloc(n * sizeof *x);
    if (!x) exit(1);
    for (size_t i = 0; i < n; i++) x[i] = (float)(next(&seed) % 2001) / 1000.0f - 1.0f;
    return x;
}

struct bench {
    struct lk_math *math;
    size_t n, k;
    float *w, *x, *y;
    void *panels[LK_Q4 + 1], *quantized;
    size_t bytes[LK_Q4 + 1];
};
static double multiply(struct bench *b, enum lk_dtype f, size_t rows) {
    double t = seconds_now();
    if (f == LK_F32) {
        lk_panels_multiply(b->math, rows, b->k, b->x, &(struct lk_panel_product){b->panels[f], b->n, NULL, NULL, b->y}, 1);
    } else {
        lk_quantize_activations(b->math, rows, b->k, b->x, b->quantized);
        lk_quant_multiply(b->math, rows, b->k, b->quantized,
                          &(struct lk_quant_product){b->panels[f], b->n, NULL, NULL, b->y, f}, 1);
    }
    return seconds_now() - t;
}
static double read_bytes(struct bench *b, enum lk_dtype f) {
    double t = seconds_now();
    lk_math_stream(b->math, &(struct lk_stream){.n = b->bytes[f] / 4, .reads = 1, .read = {b->panels[f]}});
    return seconds_now() - t;
}

static const enum lk_dtype dtypes[] = {LK_F32, LK_Q8, LK_Q4};
static const char *const names[] = {[LK_F32] = "f32", [LK_Q8] = "q8", [LK_Q4] = "q4"};
static void prepare(struct bench *b, size_t n, size_t k, size_t rows) {
    struct lk_err err = {0};
    b->n = n, b->k = k;
    b->w = random_floats(n * k), b->x = random_floats(rows * k), b->y = lk_alloc(rows * n * sizeof(float));
    b->quantized = lk_alloc(lk_quantized_bytes(rows, k));
    if (lk_math_reserve(b->math, lk_panels_scratch_bytes(b->math, k), &err)) stop(&err);
    for (size_t i = 0; i < 3; i++) {
        enum lk_dtype f = formats[i];
        b->bytes[f] = f == LK_F32 ? n * k * 4 : lk_quant_panels_bytes(f, n, k);
        b->panels[f] = lk_alloc(b->bytes[f]);
        void *rounded = f == LK_F32 ? NULL : lk_alloc(n * lk_dtype_row_bytes(f, k));
        if (f == LK_F32)
            lk_panels_fill(b->math, n, k, b->w, b->panels[f]);
        else {
            double t = seconds_now();
            if (lk_quantize(b->math, f, n, k, b->w, rounded, &err)) stop(&err);
            t = seconds_now() - t;
            lk_quant_panels_fill(b->math, f, n, k, rounded, b->panels[f]);
            printf("rounding to %s: %.2f GB/s of floats\n", names[f], 4e-9 * (double)(n * k) / t);
        }
        lk_free(rounded);
    }
}
static void drop(struct bench *b) {
    for (size_t i = 0; i < 3; i++) lk_free(b->panels[formats[i]]);
    lk_free(b->w), lk_free(b->x), lk_free(b->y), lk_free(b->quantized);
}

static void few_rows(struct bench *b) {
    prepare(b, 50304, 768, 8);
    for (size_t rows = 1; rows <= 8; rows *= 2)
        for (size_t i = 0; i < 3; i++) {
            double took[ROUNDS], read[ROUNDS];
            for (int r = 0; r < ROUNDS; r++) took[r] = multiply(b, formats[i], rows), read[r] = read_bytes(b, formats[i]);
            double t = median(took, ROUNDS), m = median(read, ROUNDS);
            printf("%zu row%s %-3s %8.3f ms  %6.2f GB/s of weights; reading alone %6.2f GB/s: %.1f%%\n", rows,
                   rows > 1 ? "s" : " ", names[formats[i]], 1e3 * t, 1e-9 * (double)b->bytes[formats[i]] / t,
                   1e-9 * (double)b->bytes[formats[i]] / m, 100 * m / t);
        }
    drop(b);
}
static void many_rows(struct bench *b) {
    prepare(b, 3072, 768, 512);
    double took[3][ROUNDS];
    for (int r = 0; r < ROUNDS; r++)
        for (size_t i = 0; i < 3; i++) took[i][r] = multiply(b, formats[i], 512);
    for (size_t i = 0; i < 3; i++) {
        double t = median(took[i], ROUNDS), f = median(took[0], ROUNDS);
        printf("512 rows %-3s %8.3f ms  %7.1f G operations/s, %.2f times f32\n", names[formats[i]], 1e3 * t,
               2e-9 * 512 * 3072 * 768 / t, f / t);
    }
    drop(b);
}

int main(int argc, char **argv) {
    struct lk_err err = {0};
    struct lk_pool *pool;
    struct bench b = {0};
    if (lk_pool_open(argc > 1 ? atoi(argv[1]) : 2, &pool, &err) || lk_math_open(pool, argc > 2 ? argv[2] : NULL, &b.math, &err))
        stop(&err);
    few_rows(&b);
    many_rows(&b);
    lk_math_close(b.math);
    lk_pool_close(pool);
    return 0;
}
