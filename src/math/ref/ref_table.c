/* The table of the reference. The double build has none: its arguments are doubles. */
#include "lockstep/base/random.h"
#include "math/ref/ref.h"

#if !LK_REAL_IS_DOUBLE
void LK__JOIN(lk__math_fill_ref_, LK_REF)(struct lk__math_kernels *);

static double peak_fma(size_t rounds, float seed) {
    float x[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    rounds = rounds / 16 + 1;
    for (size_t r = 0; r < rounds; r++)
        for (int i = 0; i < 8; i++) x[i] = REF(fma)(x[i], seed, 1 - seed);
    volatile float sink = x[0] + x[1] + x[2] + x[3] + x[4] + x[5] + x[6] + x[7];
    (void)sink;
    return 16.0 * (double)rounds;
}
static void init_normal(uint64_t seed, uint32_t tensor, double deviation, size_t from, size_t n, float *x) {
    for (size_t i = 0; i < n; i++) {
        uint32_t w[4];
        lk_random(seed, LK_PURPOSE_INIT, 0, 0, tensor, (uint32_t)(from + i), w);
        double u1 = (double)((((uint64_t)w[0] << 21) | (w[1] >> 11)) + 1) * 0x1p-53;
        double u2 = (double)(((uint64_t)w[2] << 21) | (w[3] >> 11)) * 0x1p-53;
        double z = lk_sqrt64(-2 * lk_log64(u1)) * lk_cos_turns64(u2);
        x[i] = (float)(z * deviation);
    }
}
static void row_chains(size_t n, const float *x, size_t ldx, uint32_t first, const uint32_t *next, uint32_t positions,
                       bool begins, float *out) {
    for (size_t c = 0; c < n; c++) {
        float total = begins ? 0 : out[c];
        for (uint32_t p = first; p != UINT32_MAX;) {
            uint32_t sequence = p / positions, segment = p % positions / LK__SEGMENT;
            float chain = 0;
            for (; p != UINT32_MAX && p / positions == sequence && p % positions / LK__SEGMENT == segment; p = next[p])
                chain = chain + x[p * ldx + c];
            total = total + chain;
        }
        out[c] = total;
    }
}
static void peak_stream(size_t from, size_t n, const struct lk_stream *s) {
    uint32_t t = 0;
    for (size_t i = from; i < from + n; i++) {
        for (size_t r = 0; r < s->reads; r++) t ^= lk__math_bits32(s->read[r][i]);
        for (size_t w = 0; w < s->writes; w++) s->write[w][i] = s->read[w % s->reads][i];
    }
    volatile uint32_t sink = t;
    (void)sink;
}

void LK__JOIN(lk__math_fill_ref_, LK_REF)(struct lk__math_kernels *k) {
    *k = (struct lk__math_kernels){
        .isa = "ref",
        .vector = 1,
        .caches = k->caches,
        .mm_blocking = REF(mm_blocking),
        .mm_tile = REF(mm_tile),
        .quant_rows = 4,
        .quant_columns = LK_QUANT_PANEL,
        .quant_round = REF(quant_round),
        .quant_activations = REF(quant_activations),
        .quant_fill = REF(quant_fill),
        .quant_multiply = REF(quant_multiply),
        .attention_query_tile = 16,
        .attention_forward = REF(attention_forward),
        .attention_backward = REF(attention_backward),
        .norm_forward = REF(norm_forward),
        .norm_backward = REF(norm_backward),
        .cross_entropy = REF(cross_entropy),
        .rope = REF(rope),
        .column_sum = REF(column_sum),
        .row_chains = row_chains,
        .swiglu_forward = REF(swiglu_forward),
        .swiglu_backward = REF(swiglu_backward),
        .gelu_forward = REF(gelu_forward),
        .gelu_backward = REF(gelu_backward),
        .add = REF(add),
        .scale = REF(scale),
        .exp_n = REF(exp_n),
        .tanh_n = REF(tanh_n),
        .softmax_exp_n = REF(softmax_exp_n),
        .block_squares = REF(block_squares),
        .adamw = REF(adamw),
        .all_finite = REF(all_finite),
        .init_normal = init_normal,
        .peak_fma = peak_fma,
        .peak_stream = peak_stream,
    };
}
#else
typedef int lk__math_ref_table_is_float_only;
#endif
