/* The table of the reference. The double build has none: its arguments are doubles. */
#include "math/ref/ref.h"

#if !LK_REAL_IS_DOUBLE
void LK__JOIN(lk__fill_ref_, LK_REF)(struct lk__kernels *);

static double peak_fma(size_t rounds, float seed) {
    float x[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    rounds = rounds / 16 + 1;
    for (size_t r = 0; r < rounds; r++)
        for (int i = 0; i < 8; i++) x[i] = REF(fma)(x[i], seed, 1 - seed);
    volatile float sink = x[0] + x[1] + x[2] + x[3] + x[4] + x[5] + x[6] + x[7];
    (void)sink;
    return 16.0 * (double)rounds;
}
static void peak_read(size_t n, const float *x) {
    uint32_t t = 0;
    for (size_t i = 0; i < n; i++) t ^= lk__bits32(x[i]);
    volatile uint32_t sink = t;
    (void)sink;
}

void LK__JOIN(lk__fill_ref_, LK_REF)(struct lk__kernels *k) {
    *k = (struct lk__kernels){
        .isa = "ref",
        .vector = 1,
        .mm_cut = REF(mm_cut),
        .mm_tile = REF(mm_tile),
        .attention_query_tile = 16,
        .attention_forward = REF(attention_forward),
        .attention_backward = REF(attention_backward),
        .norm_forward = REF(norm_forward),
        .norm_backward = REF(norm_backward),
        .cross_entropy = REF(cross_entropy),
        .rope = REF(rope),
        .column_sum = REF(column_sum),
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
        .peak_fma = peak_fma,
        .peak_read = peak_read,
    };
}
#else
typedef int lk__ref_table_is_float_only;
#endif
