/* The test vectors of docs/numerics.md, section 11, in every instruction set. `vectors_test print` writes that section's
 * list. */
#include "base/testing.h"
#include "math/exact.h"
#include "math/kernel_table.h"

static const struct {
    const char *name;
    uint64_t bits;
} known[] = {
#include "math/vectors.inc"
};
#define KNOWN (sizeof known / sizeof *known)

static size_t at;
static int printing;
static void result(const char *name, uint64_t bits) {
    if (printing) {
        printf("    {\"%s\", 0x%llx},\n", name, (unsigned long long)bits);
        return;
    }
    assert_true(at < KNOWN);
    assert_string_equal(known[at].name, name);
    if (known[at].bits != bits)
        fail_msg("%s: %llx, known %llx", name, (unsigned long long)bits, (unsigned long long)known[at].bits);
    at++;
}
static void result32(const char *name, float x) {
    result(name, lk__math_bits32(x));
}
static void result64(const char *name, double x) {
    result(name, lk__math_bits64(x));
}

static void functions(struct lk_math *m) {
    result32("exp(1)", lk_exp(1)), result32("exp(-0.1)", lk_exp(-0.1f)), result32("exp(-100)", lk_exp(-100));
    result32("exp(88.7)", lk_exp(88.7f)), result32("sexp(-63.5)", lk_softmax_exp(-63.5f));
    result32("sexp(-64)", lk_softmax_exp(-64)), result32("sexp(-64.00001)", lk_softmax_exp(-64.00001f));
    result32("tanh(0.2)", lk_tanh(0.2f)), result32("tanh(-1)", lk_tanh(-1)), result32("tanh(8.5)", lk_tanh(8.5f));
    result32("log(10)", lk_log(10)), result32("log(0.9999)", lk_log(0.9999f));
    result32("sin(1000)", lk_sin(1000)), result32("cos(1000)", lk_cos(1000)), result32("cos(1e7)", lk_cos(1e7f));
    result64("exp64(1)", lk_exp64(1)), result64("exp64(-700.25)", lk_exp64(-700.25));
    result64("log64(10)", lk_log64(10)), result64("log64(0x1p-53)", lk_log64(0x1p-53));
    result64("pow64(0.999, 12345)", lk_pow64(0.999, 12345)), result64("pow64(10000, 0.21875)", lk_pow64(10000, 0.21875));
    result64("cos_turns64(0.2)", lk_cos_turns64(0.2)), result64("cos_turns64(0.9)", lk_cos_turns64(0.9));
    float x[4], c[8], s[8];
    lk_init_normal(m, 42, 3, 0.02, 4, x);
    result32("initial value, seed 42, tensor 3, deviation 0.02, element 0", x[0]), result32("the same, element 3", x[3]);
    lk_rope_frequencies(8, 10000, &(struct lk_rope_scaling){0}, x);
    lk_rope_tables(4, x, 0, 2, c, s);
    result32("rope cos, theta 10000, d 8, t 1, i 1", c[5]), result32("rope sin, the same", s[5]);
    float frequencies[64];
    lk_rope_frequencies(128, 500000, &(struct lk_rope_scaling){8, 1, 4, 8192}, frequencies);
    result32("scaled frequency, theta 500000, d 128, F 8, L 1, H 4, N 8192, i 20", frequencies[20]);
    result32("the same, i 30", frequencies[30]), result32("the same, i 40", frequencies[40]);
}

/* a(i) = (i mod 13 - 6) / 10, b(i) = (i mod 7 - 2) / 10, both divided in float */
static void kernels(struct lk_math *m) {
    enum { N = 1100 };
    static float a[N], b[N], y[N], z[N];
    for (int i = 0; i < N; i++) a[i] = (float)(i % 13 - 6) / 10.0f, b[i] = (float)(i % 7 - 2) / 10.0f;
    struct lk_mm_part parts[2] = {{a, b, N, 1, 1, N, N, true}, {a, b, N, 1, 1, N, 600, true}};
    struct lk_mm mm = {.m = 1, .n = 1, .parts = parts, .part_count = 1, .c = y, .ldc = 1};
    lk_matmul(m, &mm);
    result32("product a b, k 1100", y[0]);
    mm.part_count = 2, parts[0].ends_group = false;
    lk_matmul(m, &mm);
    result32("the same, a second part of k 600", y[0]);
    float mean, rstd;
    lk_norm_forward(m, &(struct lk_norm){
                           .rows = 1, .n = 100, .x = a, .gain = b, .epsilon = 1e-5f, .y = y, .mean = &mean, .rstd = &rstd});
    result32("RMSNorm of a, gain b, 100 wide, eps 1e-5: r", rstd), result32("element 7", y[7]);
    lk_norm_backward(m,
                     &(struct lk_norm_gradient){.rows = 1, .n = 100, .x = a, .gain = b, .rstd = &rstd, .dy = b, .dx = z});
    result32("backward of dy = b: element 7", z[7]);
    lk_norm_forward(
        m, &(struct lk_norm){
               .rows = 1, .n = 100, .x = a, .gain = b, .bias = b, .epsilon = 1e-5f, .y = y, .mean = &mean, .rstd = &rstd});
    result32("LayerNorm, bias b: mean", mean), result32("r", rstd), result32("element 7", y[7]);
    lk_norm_backward(
        m, &(struct lk_norm_gradient){
               .rows = 1, .n = 100, .layer = true, .x = a, .gain = b, .mean = &mean, .rstd = &rstd, .dy = b, .dx = z});
    result32("backward of dy = b: element 7", z[7]);
    lk_swiglu_forward(m, 100, a, b, y);
    result32("SwiGLU of gate a, up b: element 4", y[4]);
    lk_gelu_forward(m, 100, a, y);
    result32("GELU of a: element 4", y[4]);
    lk_gelu_backward(m, 100, a, b, y);
    result32("backward of dy = b: element 4", y[4]);
    memcpy(y, a, sizeof y);
    float loss;
    uint32_t target = 5;
    lk_cross_entropy(m, &(struct lk_cross_entropy){.rows = 1,
                                                   .vocab = 100,
                                                   .logits = y,
                                                   .ld = 100,
                                                   .targets = &target,
                                                   .scale = 0.125f,
                                                   .gradient = true,
                                                   .loss = &loss});
    result32("loss of logits a, 100 of them, target 5", loss), result32("gradient with w 1/8: element 4", y[4]),
        result32("element 5", y[5]);
    double sum;
    lk_block_squares(m, 100, a, &sum);
    result64("squares of a, 100 of them", sum);
    struct lk_attention at_ = {1, 100, 0, 1, 1, 10, a, b, a, 10, 10, 10, 100, NULL, y, 10, NULL, NULL};
    lk_attention_forward(m, &at_);
    result32("attention, 100 positions, d 10, q = v = a, k = b, by rows: position 99, element 3", y[993]);
}

/* Section 14. The weights' first row is b, the second one a, from 0 on; the activations are a. */
static void fewer_bits(struct lk_math *m) {
    enum { K = 1088, ROW = K / 32 * 34 };
    static float rows[2 * K], x[K], wide[32], y[2];
    static const char *const names[][4] = {{"q8 block of a: scale", "code 0", "code 31", "q8 product of a and b, k 1088"},
                                           {"q4 block of a: scale", "byte 0", "byte 15", "q4 product of a and b, k 1088"}};
    uint8_t blocks[2 * ROW], *panels = lk_alloc(lk_quant_panels_bytes(LK_Q8, 2, K)), *records;
    for (int i = 0; i < K; i++) x[i] = rows[K + i] = (float)(i % 13 - 6) / 10.0f, rows[i] = (float)(i % 7 - 2) / 10.0f;
    records = lk_alloc(lk_quantized_bytes(1, K));
    for (enum lk_dtype f = LK_Q8; f <= LK_Q4; f++) {
        const char *const *name = names[f - LK_Q8];
        size_t bytes = lk_dtype_row_bytes(f, K);
        assert_int_equal(lk_quantize(m, f, 2, K, rows, blocks, NULL), 0);
        const uint8_t *a = blocks + bytes;
        result(name[0], (uint64_t)(a[0] | a[1] << 8)), result(name[1], a[2]);
        result(name[2], a[lk_dtype_row_bytes(f, 32) - 1]);
        lk_dequantize(m, f, 1, 32, a, wide);
        result32("its number 4, widened", wide[4]);
        lk_quant_panels_fill(m, f, 2, K, blocks, panels);
        lk_quantize_activations(m, 1, K, x, records);
        lk_quant_multiply(m, 1, K, records, &(struct lk_quant_product){panels, 2, NULL, NULL, y, f}, 1);
        result32(name[3], y[0]), result32("the same of a and a", y[1]);
    }
    lk_free(panels), lk_free(records);
}

static void vectors_are_known(void **unused) {
    (void)unused;
    const char *isas[8];
    int n = printing ? 1 : lk_math_isas(isas);
    for (int i = 0; i < n; i++) {
        struct lk_math *m;
        at = 0;
        assert_int_equal(lk_math_open(NULL, printing ? "ref" : isas[i], &m, NULL), 0);
        assert_int_equal(lk_math_reserve(m, lk_attention_scratch_bytes(100, 10, true), NULL), 0);
        functions(m);
        kernels(m);
        fewer_bits(m);
        lk_math_close(m);
        assert_true(printing || at == KNOWN);
    }
}

int main(int argc, char **argv) {
    printing = argc > 1 && strcmp(argv[1], "print") == 0;
    if (printing) {
        vectors_are_known(NULL);
        return 0;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(vectors_are_known)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
