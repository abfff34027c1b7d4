/* Fixed work for counting instructions: bench/instructions.sh. One kernel, named by its argument, on one thread. */
#include "lockstep/base/mem.h"
#include "lockstep/math/kernels.h"

#include <stdio.h>
#include <string.h>

#define FLOATS ((size_t)1 << 20)
static float *a, *b, *c, *d;
static struct lk_math *math;

static void product(size_t m, size_t n, size_t k, bool a_across, bool b_along) {
    struct lk_mm_part part = {.a = a,
                              .b = b,
                              .a_row = a_across ? 1 : k,
                              .a_col = a_across ? m : 1,
                              .b_row = b_along ? 1 : n,
                              .b_col = b_along ? k : 1,
                              .k = k,
                              .ends_group = true};
    lk_matmul(math, &(struct lk_mm){.m = m, .n = n, .parts = &part, .part_count = 1, .c = c, .ldc = n});
}
static void matmul_forward(void) {
    product(128, 512, 512, false, true);
}
static void matmul_input(void) {
    product(128, 512, 512, false, false);
}
static void matmul_weight(void) {
    product(512, 512, 128, true, false);
}
static void matmul_decode(void) {
    product(1, 1024, 768, false, true);
}
static struct lk_attention attention_of(void) {
    return (struct lk_attention){.sequences = 1,
                                 .queries = 256,
                                 .heads = 4,
                                 .kv_heads = 4,
                                 .head_dim = 64,
                                 .q = a,
                                 .k = a + 65536,
                                 .v = a + 131072,
                                 .ldq = 256,
                                 .ldk = 256,
                                 .ldv = 256,
                                 .kv_rows = 256,
                                 .o = c,
                                 .ldo = 256,
                                 .m = c + 65536,
                                 .r = c + 65536 + 1024};
}
static void attention_forward(void) {
    struct lk_attention x = attention_of();
    lk_attention_forward(math, &x);
}
static void attention_backward(void) {
    struct lk_attention x = attention_of();
    lk_attention_backward(math, &x,
                          &(struct lk_attention_gradient){
                              .dout = b, .ld_dout = 256, .q_scale = 0.125f, .dq = d, .dk = d + 65536, .dv = d + 131072});
}
static void norm(void) {
    lk_norm_forward(math, &(struct lk_norm){.rows = 256,
                                            .n = 768,
                                            .x = a,
                                            .gain = b,
                                            .bias = b + 768,
                                            .epsilon = 1e-5f,
                                            .y = c,
                                            .mean = d,
                                            .rstd = d + 256});
    lk_norm_backward(math, &(struct lk_norm_gradient){.rows = 256,
                                                      .n = 768,
                                                      .layer = true,
                                                      .x = a,
                                                      .gain = b,
                                                      .mean = d,
                                                      .rstd = d + 256,
                                                      .dy = c,
                                                      .dx = c,
                                                      .normalised = c + 196608});
}
static void activations(void) {
    lk_gelu_forward(math, FLOATS / 8, a, c);
    lk_gelu_backward(math, FLOATS / 8, a, c, c);
    lk_swiglu_forward(math, FLOATS / 8, a, b, c);
    lk_swiglu_backward(math, FLOATS / 8, a, b, c, c, d);
}
static void loss(void) {
    static uint32_t ids[16];
    lk_cross_entropy(math, &(struct lk_cross_entropy){.rows = 16,
                                                      .vocab = 50304,
                                                      .logits = c,
                                                      .ld = 50304,
                                                      .targets = ids,
                                                      .scale = 1e-3f,
                                                      .gradient = true,
                                                      .loss = d});
}
static void optimizer(void) {
    double sums[FLOATS / LK_BLOCK];
    struct lk_adamw step = {.beta1 = 0.9f,
                            .one_minus_beta1 = 0.1f,
                            .beta2 = 0.95f,
                            .one_minus_beta2 = 0.05f,
                            .step = -1e-3f,
                            .v_scale = 1,
                            .epsilon = 1e-8f,
                            .keep = 1,
                            .clip = 1};
    lk_block_squares(math, FLOATS, a, sums);
    lk_adamw_step(math, &step, FLOATS, c, a, b, d);
}
static void column_sum(void) {
    struct lk_row_part part = {.rows = 512, .ends_group = true};
    lk_column_sum(math, &(struct lk_column_sum){.n = 768, .y = a, .ldy = 768, .parts = &part, .part_count = 1, .out = c});
}
static void none(void) {}

static const struct {
    const char *name;
    void (*run)(void);
} kernels[] = {{"none", none},
               {"matmul-forward", matmul_forward},
               {"matmul-input", matmul_input},
               {"matmul-weight", matmul_weight},
               {"matmul-decode", matmul_decode},
               {"attention-forward", attention_forward},
               {"attention-backward", attention_backward},
               {"norm", norm},
               {"activations", activations},
               {"loss", loss},
               {"optimizer", optimizer},
               {"column-sum", column_sum}};

int main(int argc, char **argv) {
    struct lk_pool *pool;
    struct lk_err err = {0};
    if (argc < 2) {
        for (size_t i = 1; i < sizeof kernels / sizeof *kernels; i++) puts(kernels[i].name);
        return 0;
    }
    if (lk_pool_open(1, &pool, &err) || lk_math_open(pool, NULL, &math, &err) ||
        lk_math_reserve(math, lk_attention_scratch_bytes(256, 64, true), &err)) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    float **all[] = {&a, &b, &c, &d};
    for (int i = 0; i < 4; i++) {
        *all[i] = lk_alloc(FLOATS * sizeof(float));
        memset(*all[i], 0x3c, FLOATS * sizeof(float)); /* 0.0115 everywhere */
    }
    for (size_t i = 0; i < sizeof kernels / sizeof *kernels; i++)
        if (!strcmp(argv[1], kernels[i].name)) return kernels[i].run(), 0;
    fprintf(stderr, "no kernel %s\n", argv[1]);
    return 2;
}
