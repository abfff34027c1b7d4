/* Weights in fewer bits: rounding by the page's rule, and products whose bits are the reference's for every instruction
 * set, number of threads and of rows, and every edge. */
#include "base/testing.h"
#include "math/kernel_table.h"
#include "math/quant.h"

static uint64_t state = 88172645463325252u;
static uint32_t next(void) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (uint32_t)(state >> 16);
}
static float *filled(size_t n, bool wild) {
    float *x = lk_alloc(n * sizeof *x + 1);
    for (size_t i = 0; i < n; i++) {
        uint32_t what = next() % 200;
        x[i] = (float)(next() & 0xffff) / 32768.0f - 1.0f;
        if (what == 0) x[i] = next() & 1 ? 0.0f : -0.0f;
        if (wild && what == 1) x[i] *= 0x1p-120f;
        if (wild && what == 2) x[i] *= 0x1p20f;
    }
    return x;
}

static struct lk_math *open_math(const char *isa, int threads, struct lk_pool **pool) {
    struct lk_math *math;
    OK(lk_pool_open(threads, pool, &test_err));
    OK(lk_math_open(*pool, isa, &math, &test_err));
    return math;
}

/* --- fp16 and rounding ------------------------------------------------------------------------------------- */

static void halves_are_exact_and_rounded(void **unused) {
    (void)unused;
    for (uint32_t h = 0; h < 0x10000; h++) {
        uint16_t x = (uint16_t)h;
        float f = lk__math_half(&x);
        if ((h & 0x7c00) == 0x7c00) continue;
        assert_int_equal(lk__math_to_half(f), h);
        double value = ((h & 0x3ff) + (h & 0x7c00 ? 1024 : 0)) * (h & 0x7c00 ? 1.0 : 2.0);
        for (int e = (h >> 10 & 31); e < 25; e++) value /= 2;
        for (int e = 25; e < (int)(h >> 10 & 31); e++) value *= 2;
        assert_true((double)f == (h & 0x8000 ? -value : value));
        if ((h & 0x7fff) == 0x7bff) continue;
        uint16_t above = (uint16_t)(h + 1); /* towards larger magnitudes: halfway goes to the even one */
        float middle = (float)(((double)f + (double)lk__math_half(&above)) / 2);
        assert_int_equal(lk__math_to_half(middle), h & 1 ? above : h);
        uint32_t u = lk__math_bits32(middle);
        assert_int_equal(lk__math_to_half(lk__math_float(u + 1)), above);
        assert_int_equal(lk__math_to_half(lk__math_float(u - 1)), h);
    }
    assert_int_equal(lk__math_to_half(65519.9f), 0x7bff);
    assert_int_equal(lk__math_to_half(65520.0f), 0x7c00);
    assert_int_equal(lk__math_to_half(-0.0f), 0x8000);
}

static void weights_are_rounded_as_ggml_rounds_them(void **unused) {
    (void)unused;
    struct lk_pool *pool;
    struct lk_math *math = open_math(NULL, 1, &pool);
    float x[32] = {0}, back[32];
    uint8_t q8[34], q4[18];
    for (int i = 0; i < 32; i++) x[i] = (float)(i - 16);
    x[31] = 31.75f; /* scale 0.25 = 0x3400 */
    x[0] = 0.125f, x[1] = -0.125f, x[2] = 0.12499999f;
    OK(lk_quantize(math, LK_Q8, 1, 32, x, q8, &test_err));
    assert_int_equal(q8[0] | q8[1] << 8, 0x3400);
    assert_int_equal((int8_t)q8[2], 1); /* half away from zero */
    assert_int_equal((int8_t)q8[3], -1);
    assert_int_equal((int8_t)q8[4], 0);
    assert_int_equal((int8_t)q8[5], -52);
    assert_int_equal((int8_t)q8[33], 127);
    lk_dequantize(math, LK_Q8, 1, 32, q8, back);
    assert_true(back[31] == 31.75f && back[3] == -13 && back[0] == 0.25f);
    for (int i = 0; i < 32; i++) x[i] = (float)i / 4;
    x[5] = -8; /* the largest has the code 0 */
    OK(lk_quantize(math, LK_Q4, 1, 32, x, q4, &test_err));
    assert_int_equal(q4[0] | q4[1] << 8, 0x3c00);
    assert_int_equal(q4[2 + 5] & 15, 0);
    assert_int_equal(q4[2 + 0], 8 | 12 << 4); /* 0 and 4 */
    assert_int_equal(q4[2 + 15] >> 4, 15);    /* 7.75 is beyond 15 */
    lk_dequantize(math, LK_Q4, 1, 32, q4, back);
    assert_true(back[5] == -8 && back[0] == 0 && back[16] == 4 && back[31] == 7);
    uint16_t half[3];
    OK(lk_quantize(math, LK_BF16, 1, 3, (float[]){1.00390625f, 1.01171875f, -3}, half, &test_err)); /* ties to even */
    assert_true(half[0] == 0x3f80 && half[1] == 0x3f82 && half[2] == 0xc040);
    memset(x, 0, sizeof x);
    OK(lk_quantize(math, LK_Q8, 1, 32, x, q8, &test_err));
    for (int i = 0; i < 34; i++) assert_int_equal(q8[i], 0);
    x[3] = __builtin_nanf("");
    FAILS(lk_quantize(math, LK_Q8, 1, 32, x, q8, &test_err), LK_EINVAL, "infinite, NaN");
    x[3] = 1e9f;
    FAILS(lk_quantize(math, LK_Q4, 1, 32, x, q4, &test_err), LK_EINVAL, "beyond fp16");
    FAILS(lk_quantize(math, LK_BF16, 1, 1, (float[]){3.4e38f}, half, &test_err), LK_EINVAL, "so large");
    assert_int_equal(lk_dtype_row_bytes(LK_Q8, 33), 0);
    lk_math_close(math);
    lk_pool_close(pool);
}

/* --- Products ---------------------------------------------------------------------------------------------- */

#define PRODUCTS 3
struct work {
    size_t rows, k, count, n[PRODUCTS];
    float *x, *bias[PRODUCTS], *residual[PRODUCTS];
    uint8_t *w[PRODUCTS];
    enum lk_dtype dtype[PRODUCTS];
};
/* Weights as blocks of any bytes, -128 too; scales are finite. */
static struct work make(size_t rows, size_t k, size_t count) {
    struct work w = {.rows = rows, .k = k, .count = count, .x = filled(rows * k, true)};
    if (rows > 1 && next() % 4 == 0) w.x[next() % (rows * k)] = next() & 1 ? __builtin_inff() : __builtin_nanf("");
    for (size_t i = 0; i < count; i++) {
        w.dtype[i] = next() & 1 ? LK_Q8 : LK_Q4;
        w.n[i] = 1 + next() % 90;
        size_t block = lk_dtype_row_bytes(w.dtype[i], 32), bytes = w.n[i] * lk_dtype_row_bytes(w.dtype[i], k);
        w.w[i] = lk_alloc(bytes + 1);
        for (size_t b = 0; b < bytes; b++) w.w[i][b] = (uint8_t)(next() % 5 ? next() : 0x80);
        for (size_t b = 1; b < bytes; b += block) w.w[i][b] = (uint8_t)(w.w[i][b] & 0xbf); /* less than 2 */
        w.bias[i] = next() & 1 ? filled(w.n[i], false) : NULL;
        w.residual[i] = next() & 1 ? filled(rows * w.n[i], false) : NULL;
    }
    return w;
}
static void drop(struct work *w) {
    for (size_t i = 0; i < w->count; i++) lk_free(w->w[i]), lk_free(w->bias[i]), lk_free(w->residual[i]);
    lk_free(w->x);
}

/* All products' numbers, one after the other. */
static float *run(struct lk_math *math, const struct work *w, size_t *size) {
    struct lk_quant_product p[PRODUCTS];
    void *x = lk_alloc(lk_quantized_bytes(w->rows, w->k) + 1), *panels[PRODUCTS];
    *size = 0;
    for (size_t i = 0; i < w->count; i++) *size += w->rows * w->n[i];
    float *y = lk_calloc(*size + 1, sizeof *y), *at = y;
    for (size_t i = 0; i < w->count; at += w->rows * w->n[i++]) {
        panels[i] = lk_alloc(lk_quant_panels_bytes(w->dtype[i], w->n[i], w->k) + 1);
        lk_quant_panels_fill(math, w->dtype[i], w->n[i], w->k, w->w[i], panels[i]);
        p[i] = (struct lk_quant_product){panels[i], w->n[i], w->bias[i], w->residual[i], at, w->dtype[i]};
    }
    lk_quantize_activations(math, w->rows, w->k, w->x, x);
    lk_quant_multiply(math, w->rows, w->k, x, p, w->count);
    for (size_t i = 0; i < w->count; i++) lk_free(panels[i]);
    lk_free(x);
    return y;
}
static bool same(const float *a, const float *b, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (lk__math_bits32(a[i]) != lk__math_bits32(b[i]) && (a[i] == a[i] || b[i] == b[i])) return false;
    return true;
}

/* The best kernels of a set, and those for CPUs without dot products of bytes. */
static void compare(struct lk_math *math, struct lk_math *ref) {
    const size_t ks[] = {32, 64, 512, 544, 1120};
    for (int round = 0; round < 60; round++) {
        struct work w = make(1 + next() % (round % 4 ? 14 : 130), ks[next() % 5], 1 + next() % PRODUCTS);
        size_t size;
        float *got = run(math, &w, &size), *want = run(ref, &w, &size);
        if (!same(got, want, size)) fail_msg("%s: %zu rows, k %zu differ", lk_math_isa(math), w.rows, w.k);
        lk_free(got), lk_free(want);
        drop(&w);
    }
}
static void bits_are_those_of_the_reference(void **unused) {
    (void)unused;
    const char *isas[8];
    int count = lk_math_isas(isas);
    struct lk_pool *one, *pool;
    struct lk_math *ref = open_math("ref", 1, &one);
    for (int i = 0; i < count; i++)
        for (int threads = 1; threads <= 3; threads++) {
            struct lk_math *math = open_math(isas[i], threads, &pool);
            compare(math, ref);
#if defined(__x86_64__)
            if (!strcmp(isas[i], "avx512")) lk__math_fill_avx512(&math->k);
            if (!strcmp(isas[i], "avx2")) lk__math_fill_avx2(&math->k);
            compare(math, ref);
#elif defined(__aarch64__)
            if (!strcmp(isas[i], "neon")) lk__math_fill_neon(&math->k);
            compare(math, ref);
#endif
            lk_math_close(math);
            lk_pool_close(pool);
        }
    lk_math_close(ref);
    lk_pool_close(one);
}

/* A row has the same bits whatever rows are beside it. */
static void rows_do_not_know_each_other(void **unused) {
    (void)unused;
    struct lk_pool *pool;
    struct lk_math *math = open_math(NULL, 2, &pool);
    struct work w = make(37, 544, 1);
    size_t size, one;
    float *all = run(math, &w, &size);
    for (size_t r = 0; r < w.rows; r++) {
        struct work alone = w;
        alone.rows = 1, alone.x += r * w.k;
        if (w.residual[0]) alone.residual[0] += r * w.n[0];
        float *y = run(math, &alone, &one);
        assert_true(same(y, all + r * w.n[0], w.n[0]));
        lk_free(y);
    }
    lk_free(all);
    drop(&w);
    lk_math_close(math);
    lk_pool_close(pool);
}

/* The products are near those of the numbers that were rounded. */
static void products_are_near_the_exact_ones(void **unused) {
    (void)unused;
    struct lk_pool *pool;
    struct lk_math *math = open_math(NULL, 1, &pool);
    enum { N = 24, K = 1024 };
    static uint8_t w[N * K / 32 * 34];
    static float wide[N * K], y[N];
    for (int f = LK_Q8; f <= LK_Q4; f++) {
        float *x = filled(K, false), *weights = filled(N * K, false);
        OK(lk_quantize(math, (enum lk_dtype)f, N, K, weights, w, &test_err));
        lk_dequantize(math, (enum lk_dtype)f, N, K, w, wide);
        double worst = 0;
        for (size_t i = 0; i < N * K; i++) {
            double d = (double)wide[i] - (double)weights[i];
            worst = d * d > worst * worst ? d : worst;
        }
        assert_true(worst * worst < (f == LK_Q8 ? 0.0045 * 0.0045 : 0.14 * 0.14));
        void *memory = lk_alloc(lk_quantized_bytes(1, K)),
             *panels = lk_alloc(lk_quant_panels_bytes((enum lk_dtype)f, N, K));
        lk_quantize_activations(math, 1, K, x, memory);
        lk_quant_panels_fill(math, (enum lk_dtype)f, N, K, w, panels);
        lk_quant_multiply(math, 1, K, memory, &(struct lk_quant_product){panels, N, NULL, NULL, y, (enum lk_dtype)f}, 1);
        for (size_t j = 0; j < N; j++) {
            double exact = 0;
            for (size_t i = 0; i < K; i++) exact += (double)wide[j * K + i] * (double)x[i];
            double off = (double)y[j] - exact; /* half a step of 1/127, 1,024 times, by chance */
            assert_true(off * off < 0.25 * 0.25);
        }
        lk_free(x), lk_free(weights), lk_free(memory), lk_free(panels);
    }
    lk_math_close(math);
    lk_pool_close(pool);
}

/* Keys and values: each row to its place, or through its blocks; what weights would be refused for stands for NaN. */
static void keys_are_rounded_block_by_block(void **unused) {
    (void)unused;
    enum { ROWS = 70, K = 96, WORDS = K / 32 * 34 / 4 + 1 };
    static uint8_t blocks[ROWS * K / 32 * 34];
    static float want[ROWS * K], to[2 * ROWS * WORDS];
    size_t place[ROWS];
    float *x = filled(ROWS * K, false), *bad[] = {x + 5 * K + 40, x + 9 * K, x + 69 * K + 95};
    const char *isas[8];
    int count = lk_math_isas(isas);
    for (size_t r = 0; r < ROWS; r++) place[r] = (ROWS - 1 - r) * 2 * WORDS;
    for (size_t i = 0; i < 3; i++) *bad[i] = 0;
    struct lk_pool *pool;
    struct lk_math *math = open_math("ref", 1, &pool);
    OK(lk_quantize(math, LK_Q8, ROWS, K, x, blocks, &test_err));
    lk_math_close(math), lk_pool_close(pool);
    *bad[0] = __builtin_inff(), *bad[1] = __builtin_nanf(""), *bad[2] = 1e9f;
    static const size_t bad_blocks[] = {5 * 3 + 1, 9 * 3, 69 * 3 + 2};
    for (size_t i = 0; i < 3; i++) memset(blocks + bad_blocks[i] * 34, 0, 34), blocks[bad_blocks[i] * 34 + 1] = 0x7e;
    for (int k = 0; k < count; k++) {
        math = open_math(isas[k], 1 + k % 2, &pool);
        float *through = lk_alloc(sizeof want);
        memcpy(through, x, sizeof want);
        lk_dequantize(math, LK_Q8, ROWS, K, blocks, want);
        assert_true(want[5 * K + 32] != want[5 * K + 32] && want[5 * K + 31] == want[5 * K + 31]);
        lk_quantize_scatter(math, ROWS, K, x, place, to);
        for (size_t r = 0; r < ROWS; r++) assert_memory_equal(to + place[r], blocks + r * (K / 32 * 34), K / 32 * 34);
        lk_quantize_through(math, ROWS, K, through);
        assert_true(same(through, want, ROWS * K));
        lk_free(through);
        lk_math_close(math), lk_pool_close(pool);
    }
    lk_free(x);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(halves_are_exact_and_rounded),     cmocka_unit_test(weights_are_rounded_as_ggml_rounds_them),
        cmocka_unit_test(bits_are_those_of_the_reference),  cmocka_unit_test(rows_do_not_know_each_other),
        cmocka_unit_test(products_are_near_the_exact_ones), cmocka_unit_test(keys_are_rounded_block_by_block),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
