/* Products with weights in panels give the bits of lk_matmul, for every instruction set, thread count and edge. */
#include "base/testing.h"
#include "lockstep/math/kernels.h"

static uint64_t state = 88172645463325252u;
static uint32_t next(void) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (uint32_t)(state >> 16);
}
/* Both zeros and wild exponents, so that another order of adding shows. */
static float *filled(size_t n) {
    float *x = lk_alloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++) {
        uint32_t what = next() % 20;
        x[i] = (float)(next() & 0xffff) / 32768.0f - 1.0f;
        if (what == 0) x[i] = next() & 1 ? 0.0f : -0.0f;
        if (what == 1) x[i] *= 0x1p-140f;
        if (what == 2) x[i] *= 0x1p20f;
    }
    return x;
}

#define PRODUCTS 3
/* Products of n[i] columns that share x, once as lk_matmul and once from panels. */
static void compare(struct lk_math *math, size_t rows, size_t k, const size_t n[PRODUCTS], size_t count) {
    struct lk_panel_product products[PRODUCTS];
    float *x = filled(rows * k), *w[PRODUCTS], *panels[PRODUCTS], *bias[PRODUCTS], *residual[PRODUCTS], *expected[PRODUCTS];
    for (size_t i = 0; i < count; i++) {
        enum lk_dtype dtype = next() & 1 ? LK_F32 : LK_BF16;
        struct lk_err err;
        w[i] = filled(n[i] * k);
        uint16_t *halves = lk_alloc(n[i] * k * 2); /* lk_matmul gets what they stand for */
        assert_int_equal(lk_quantize(math, LK_BF16, n[i], k, w[i], halves, &err), 0);
        if (dtype == LK_BF16) lk_dequantize(math, LK_BF16, n[i], k, halves, w[i]);
        panels[i] = lk_alloc(n[i] * k * 4);
        bias[i] = next() & 1 ? filled(n[i]) : NULL;
        residual[i] = next() & 1 ? filled(rows * n[i]) : NULL;
        expected[i] = lk_alloc(rows * n[i] * 4);
        struct lk_mm_part part = {
            .a = x, .a_row = k, .a_col = 1, .b = w[i], .b_row = 1, .b_col = k, .k = k, .ends_group = true};
        lk_matmul(math, &(struct lk_mm){.m = rows,
                                        .n = n[i],
                                        .parts = &part,
                                        .part_count = 1,
                                        .c = expected[i],
                                        .ldc = n[i],
                                        .bias = bias[i],
                                        .residual = residual[i],
                                        .ld_residual = n[i]});
        lk_panels_fill(math, dtype, n[i], k, dtype == LK_BF16 ? (void *)halves : w[i], panels[i]);
        lk_free(halves);
        products[i] = (struct lk_panel_product){panels[i], n[i], bias[i], residual[i], lk_calloc(rows * n[i], 4), dtype};
    }
    lk_panels_multiply(math, rows, k, x, products, count);
    for (size_t i = 0; i < count; i++) {
        if (memcmp(products[i].y, expected[i], rows * n[i] * 4))
            fail_msg("%s: %zu rows, k %zu, product %zu of %zu columns differs", lk_math_isa(math), rows, k, i, n[i]);
        lk_free(w[i]), lk_free(panels[i]), lk_free(bias[i]), lk_free(residual[i]), lk_free(expected[i]);
        lk_free(products[i].y);
    }
    lk_free(x);
}

static void bits_are_those_of_matmul(void **unused) {
    (void)unused;
    const char *isas[8];
    const size_t ks[] = {1, 15, 16, 511, 512, 513, 1030};
    int count = lk_math_isas(isas), used = 0;
    struct lk_err err;
    for (int i = 0; i < count; i++)
        for (int threads = 1; threads <= 3; threads++) {
            struct lk_pool *pool;
            struct lk_math *math;
            assert_int_equal(lk_pool_open(threads, &pool, &err), 0);
            assert_int_equal(lk_math_open(pool, isas[i], &math, &err), 0);
            if (lk_panels_usable(math)) {
                assert_int_equal(lk_math_reserve(math, lk_panels_scratch_bytes(math, 1030), &err), 0);
                used++;
                for (int round = 0; round < 60; round++) {
                    size_t n[PRODUCTS] = {1 + next() % 200, 1 + next() % 40, 16 * (1 + next() % 20)};
                    compare(math, 1 + (size_t)round % LK_PANEL_ROWS, ks[next() % 7], n, 1 + next() % PRODUCTS);
                    if (round % 3 == 0)
                        compare(math, 9 + next() % (round % 2 ? 40 : 400), ks[next() % 7], n, 1 + next() % PRODUCTS);
                }
                compare(math, 1, 700, (size_t[PRODUCTS]){2000, 16, 1999}, 3); /* many tiles */
            }
            lk_math_close(math);
            lk_pool_close(pool);
        }
    assert_true(used > 0 || count == 1);
}

int main(void) {
    state += 0x9E3779B97F4A7C15u * test_seed("products from panels");
    const struct CMUnitTest tests[] = {cmocka_unit_test(bits_are_those_of_matmul)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
