/* bare OUT STEPS [host]: trains some steps of both families and all variants, odd shapes, on made-up tokens with the real
 * engine and without a store, and writes losses, weights and moments to OUT: equal files are equal bits. The test of NEON
 * builds it for aarch64, where no other library is at hand.
 *
 * host: this thread has flush-to-zero, denormals-are-zero and another rounding set beforehand, as a host program may; OUT
 * must be the same, and the settings are checked to be back after every call. */
#include "../src/train/engine.h"
#include "lockstep/base/hash.h"
#include "lockstep/math/fingerprint.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONTEXT 65
#define VOCAB   1021

/* --- a dataset that is a formula ------------------------------------------------------------------------- */

struct lk_dataset {
    int unused;
};
uint64_t lk_dataset_sequences(const struct lk_dataset *d, enum lk_split split, uint32_t context) {
    (void)d, (void)split, (void)context;
    return 31;
}
static uint32_t token(uint64_t i) {
    uint64_t x = i * 0x9e3779b97f4a7c15ull;
    x ^= x >> 29;
    return (uint32_t)((x * x >> 40) % (i % 3 ? 40 : VOCAB));
}
uint32_t lk_dataset_sequence(const struct lk_dataset *d, enum lk_split split, uint64_t n, uint32_t context,
                             uint32_t *inputs, uint32_t *targets, uint32_t *document_start) {
    uint32_t start = 0;
    (void)d, (void)split;
    for (uint32_t i = 0; i < context; i++) {
        uint64_t at = n * context + i;
        if (at % 23 == 5) start = i;
        inputs[i] = token(at);
        if (targets) targets[i] = at % 11 == 3 ? UINT32_MAX : token(at + 1);
        if (document_start) document_start[i] = start;
    }
    return context;
}
uint64_t lk_dataset_document_at(const struct lk_dataset *d, enum lk_split split, uint64_t at) {
    return (void)d, (void)split, at;
}
int lk_dataset_document(const struct lk_dataset *d, enum lk_split split, uint64_t index, struct lk_document *out,
                        struct lk_err *err) {
    (void)d, (void)split, (void)index, (void)out;
    return lk_fail(err, LK_ENOTFOUND, "no documents here");
}

/* --- the thread's floating-point settings ---------------------------------------------------------------- */

static unsigned long settings(void) {
#if defined(__x86_64__)
    return __builtin_ia32_stmxcsr() & ~0x3fu; /* without the six flags that arithmetic raises */
#elif defined(__aarch64__)
    unsigned long v;
    __asm__ volatile("mrs %0, fpcr" : "=r"(v));
    return v;
#else
    return 0;
#endif
}
static void spoil(void) {
#if defined(__x86_64__)
    __builtin_ia32_ldmxcsr(0x1f80 | 0x8000 | 0x0040 | 0x6000); /* FTZ, DAZ, towards zero */
#elif defined(__aarch64__)
    __asm__ volatile("msr fpcr, %0" : : "r"(3ul << 22 | 1ul << 24)); /* towards zero, FZ */
#endif
}
static unsigned long before;
static void check(int code, const struct lk_err *err, const char *what) {
    if (code) fprintf(stderr, "bare: %s: %s\n", what, err->message);
    if (settings() != before)
        fprintf(stderr, "bare: %s changed the caller's floating-point settings from %lx to %lx\n", what, before,
                settings());
    if (code || settings() != before) exit(1);
}

/* --- training -------------------------------------------------------------------------------------------- */

static struct lk_run_config config_of(uint32_t family, uint32_t steps) {
    struct lk_run_config c = {.seed = 7,
                              .steps = steps,
                              .family = family,
                              .layers = 2,
                              .width = 84,
                              .heads = 7,
                              .kv_heads = 7,
                              .head_dim = 12,
                              .ffn = 101,
                              .context = CONTEXT,
                              .vocab = VOCAB,
                              .tied = false,
                              .norm_epsilon = 1e-5,
                              .rope_theta = 10000,
                              .init_std = 0.02,
                              .sequences = 6,
                              .grains = 3,
                              .micro_batch = 2,
                              .learning_rate = 3e-3,
                              .beta1 = 0.9,
                              .beta2 = 0.95,
                              .epsilon = 1e-8,
                              .weight_decay = 0.1,
                              .clip = 1,
                              .min_ratio = 0.1,
                              .schedule = LK_COSINE,
                              .warmup = 3,
                              .decay = 20};
    if (family == LK_GPT2) c.heads = c.kv_heads = 12, c.head_dim = 7, c.tied = true, c.cross_documents = true;
    return c;
}

static void train(struct lk_math *math, struct lk_run_config c, FILE *out) {
    struct lk_err err = {0};
    struct lk_layout layout;
    struct lk_model_config m = {.family = (enum lk_family)c.family,
                                .layers = c.layers,
                                .width = c.width,
                                .heads = c.heads,
                                .kv_heads = c.kv_heads,
                                .head_dim = c.head_dim,
                                .ffn = c.ffn,
                                .context = c.context,
                                .vocab = c.vocab,
                                .tied = c.tied,
                                .norm_epsilon = c.norm_epsilon,
                                .rope_theta = c.rope_theta,
                                .init_std = c.init_std,
                                .qkv_bias = c.qkv_bias,
                                .qk_norm = c.qk_norm,
                                .window = c.window,
                                .rope_factor = c.rope_factor,
                                .rope_low = c.rope_low,
                                .rope_high = c.rope_high,
                                .rope_original = c.rope_original};
    struct lk_dataset dataset = {0};
    struct lk__train_engine engine;
    check(lk_layout_init(&layout, &m, &err), &err, "layout");
    struct lk_state state;
    check(lk__train_engine_open(&engine, &c, &layout, math, NULL, &dataset, c.micro_batch, &err), &err, "engine");
    check(lk__train_engine_state(&engine, &state, &err), &err, "state");
    lk_layout_initialise(&layout, math, c.seed, state.weights);
    check(0, &err, "initial weights");
    for (uint32_t step = 0; step < c.steps; step++) {
        struct lk_ledger_row row;
        check(lk__train_engine_gradient(&engine, &state, &row, &err), &err, "gradient");
        check(lk__train_engine_update(&engine, &state, &row, &err), &err, "update");
        double values[3] = {row.loss, row.gradient_norm, row.learning_rate};
        fwrite(values, sizeof values, 1, out);
        if (step == 0 || step + 1 == c.steps)
            fprintf(stderr, "%s: step %u loss %.6f\n", c.family == LK_LLAMA ? "llama" : "gpt2", step + 1, row.loss);
    }
    fwrite(state.weights, sizeof(float), layout.floats, out);
    fwrite(state.moments1, sizeof(float), layout.floats, out);
    fwrite(state.moments2, sizeof(float), layout.floats, out);
    lk_state_release(&state);
    lk__train_engine_close(&engine);
    lk_layout_release(&layout);
}

/* Numbers of the range that flushing to zero would lose. */
static void small_numbers(struct lk_math *math, FILE *out) {
    enum { N = 1000 };
    static float x[N], y[N], g[N], m[N], v[N];
    uint32_t bits = 1;
    for (int i = 0; i < N; i++, bits = bits * 5 / 4 + 1) {
        bits &= 0x00ffffff;
        memcpy(x + i, &bits, 4);
        g[i] = x[i];
    }
    lk_add(math, N, x, g, y);
    check(0, NULL, "add");
    fwrite(y, sizeof y, 1, out);
    struct lk_adamw a = {.beta1 = 0.9f,
                         .one_minus_beta1 = 0.1f,
                         .beta2 = 0.95f,
                         .one_minus_beta2 = 0.05f,
                         .step = -1e-3f,
                         .v_scale = 1,
                         .epsilon = 1e-30f,
                         .keep = 0.5f,
                         .clip = 1};
    lk_adamw_step(math, &a, N, x, g, m, v);
    check(0, NULL, "adamw");
    fwrite(x, sizeof x, 1, out);
    fwrite(m, sizeof m, 1, out);
    struct lk_mm_part part = {
        .a = g, .b = y, .a_row = 40, .a_col = 1, .b_row = 1, .b_col = 40, .k = 40, .ends_group = true};
    lk_matmul(math,
              &(struct lk_mm){
                  .m = 20, .n = 20, .parts = &part, .part_count = 1, .c = m, .ldc = 20, .residual = g, .ld_residual = 20});
    check(0, NULL, "matmul");
    fwrite(m, sizeof m, 1, out);
    lk_exp_n(math, N, g, y);
    lk_softmax_exp_n(math, N, g, 50, x);
    check(0, NULL, "exp");
    fwrite(y, sizeof y, 1, out);
    fwrite(x, sizeof x, 1, out);
}

int main(int argc, char **argv) {
    struct lk_err err = {0};
    struct lk_pool *pool;
    struct lk_math *math;
    struct lk_root fingerprint;
    bool host = argc > 3 && strcmp(argv[3], "host") == 0;
    uint32_t steps = argc > 2 ? (uint32_t)atoi(argv[2]) : 0;
    FILE *out = steps > 0 ? fopen(argv[1], "wb") : NULL;
    if (!out) return 2;
    if (host) spoil();
    before = settings();
    check(lk_pool_open(2, &pool, &err), &err, "threads");
    check(lk_math_open(pool, NULL, &math, &err), &err, "kernels");
    fprintf(stderr, "bare: %s kernels\n", lk_math_isa(math));
    train(math, config_of(LK_LLAMA, steps), out);
    train(math, config_of(LK_GPT2, steps), out);
    struct lk_run_config other = config_of(LK_LLAMA, steps);
    other.kv_heads = 1, other.tied = true, other.recompute = true, other.micro_batch = 6,
    other.steps = steps > 3 ? 3 : steps;
    train(math, other, out);
    other.qkv_bias = other.qk_norm = true, other.window = 20, other.micro_batch = 2;
    other.rope_factor = 8, other.rope_low = 1, other.rope_high = 4, other.rope_original = 30;
    train(math, other, out);
    small_numbers(math, out);
    check(lk_math_fingerprint(math, &fingerprint, &err), &err, "fingerprint");
    fwrite(&fingerprint, sizeof fingerprint, 1, out);
    lk_math_close(math);
    lk_pool_close(pool);
    check(0, NULL, "close");
    return fclose(out) ? 1 : 0;
}
