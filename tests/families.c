/* families IN OUT: one model given as numbers; writes its logits, loss, gradient and the weights after one AdamW step.
 * tests/peers/families_peers.py writes IN, and compares OUT with what transformers computes.
 *
 * IN: 27 doubles (the order of struct input), then weights in canonical order (float), tokens and targets (sequences x
 * positions, uint32). OUT: loss (double), then in float: logits, gradient and new weights in canonical order. The logits
 * are made twice, by the training pass and a few tokens at a time with a cache; other bits are an error. */
#include "model/testing.h"
#include <math.h>

struct input {
    double family, layers, width, heads, kv_heads, head_dim, ffn, context, vocab, tied, norm_epsilon, rope_theta, qkv_bias,
        qk_norm, window, rope_factor, rope_low, rope_high, rope_original, sequences, positions, rate, beta1, beta2, epsilon,
        decay, threads;
};

static struct lk_model_config config_of(const struct input *in) {
    return (struct lk_model_config){.family = (enum lk_family)in->family,
                                    .layers = (uint32_t)in->layers,
                                    .width = (uint32_t)in->width,
                                    .heads = (uint32_t)in->heads,
                                    .kv_heads = (uint32_t)in->kv_heads,
                                    .head_dim = (uint32_t)in->head_dim,
                                    .ffn = (uint32_t)in->ffn,
                                    .context = (uint32_t)in->context,
                                    .vocab = (uint32_t)in->vocab,
                                    .tied = in->tied != 0,
                                    .norm_epsilon = in->norm_epsilon,
                                    .rope_theta = in->rope_theta,
                                    .init_std = 0.02,
                                    .qkv_bias = in->qkv_bias != 0,
                                    .qk_norm = in->qk_norm != 0,
                                    .window = (uint32_t)in->window,
                                    .rope_factor = in->rope_factor,
                                    .rope_low = in->rope_low,
                                    .rope_high = in->rope_high,
                                    .rope_original = (uint32_t)in->rope_original};
}

static void read_all(FILE *f, void *to, size_t size, size_t count) {
    if (fread(to, size, count, f) != count) fail_msg("the input is too short");
}
static void tensors_out(FILE *f, const struct lk_layout *l, const float *x) {
    for (size_t i = 0; i < l->tensor_count; i++) fwrite(x + l->tensors[i].offset, 4, l->tensors[i].count, f);
}

static void logits_of(const struct lk_layout *l, struct lk_math *math, const struct test_batch *b, const float *w,
                      float *logits) {
    struct lk_decoder *d, *further;
    uint32_t T = b->positions, V = l->config.vocab;
    OK(lk_decoder_create(l, math, b->sequences, T, LK_INFER, &d, &test_err));
    memcpy(logits, lk_decoder_forward(d, w, b->sequences, T, b->tokens, NULL), (size_t)b->sequences * T * V * 4);
    OK(lk_decoder_create(l, math, 7, 7, LK_EXTEND, &further, &test_err));
    for (uint32_t s = 0; s < b->sequences; s++) {
        struct lk_attention_cache cache;
        OK(lk_attention_cache_init(&cache, l, LK_F32, T, 1, &test_err));
        for (uint32_t n = 1, used = 0; used < T; used += n, n = n % 7 + 1) {
            if (n > T - used) n = T - used;
            size_t at = (size_t)s * T + used;
            struct lk_extension e = {b->tokens + at, (uint32_t[]){0}, used, n, n};
            const float *more = lk_decoder_extend(further, w, &cache, &e, 1);
            if (memcmp(more, logits + at * V, (size_t)n * V * 4)) fail_msg("%u tokens at %u: other logits", n, used);
        }
        lk_attention_cache_release(&cache);
    }
    lk_decoder_free(further);
    lk_decoder_free(d);
}

static void run(FILE *from, FILE *to) {
    struct input in;
    struct lk_layout l;
    read_all(from, &in, sizeof in, 1);
    struct lk_model_config c = config_of(&in);
    OK(lk_layout_init(&l, &c, &test_err));
    struct test_batch b = {.sequences = (uint32_t)in.sequences, .positions = (uint32_t)in.positions};
    size_t rows = (size_t)b.sequences * b.positions;
    b.tokens = lk_alloc(rows * 4), b.targets = lk_alloc(rows * 4);
    float *w = lk_calloc(l.floats, 4), *g = lk_calloc(l.floats, 4), *m = lk_calloc(l.floats, 4),
          *v = lk_calloc(l.floats, 4), *logits = lk_alloc(rows * c.vocab * 4);
    for (size_t i = 0; i < l.tensor_count; i++) read_all(from, w + l.tensors[i].offset, 4, l.tensors[i].count);
    read_all(from, b.tokens, 4, rows);
    read_all(from, b.targets, 4, rows);
    for (size_t i = 0; i < rows; i++) b.unmasked += b.targets[i] != UINT32_MAX;
    struct test_math math = test_math_open(NULL, (int)in.threads);
    logits_of(&l, math.math, &b, w, logits);
    double loss = test_gradient(math.math, &l, LK_TRAINING, w, &b, 1, g);
    test_adamw(&l, math.math, 1, &(struct test_adamw){in.rate, in.beta1, in.beta2, in.epsilon, in.decay}, g, w, m, v);
    fwrite(&loss, sizeof loss, 1, to);
    fwrite(logits, 4, rows * c.vocab, to);
    tensors_out(to, &l, g);
    tensors_out(to, &l, w);
    float *all[] = {w, g, m, v, logits};
    for (size_t i = 0; i < 5; i++) lk_free(all[i]);
    test_batch_free(&b);
    lk_layout_release(&l);
    test_math_close(&math);
}

static const char *const *paths;
static void work(void **state) {
    (void)state;
    FILE *from = fopen(paths[1], "rb"), *to = fopen(paths[2], "wb");
    assert_non_null(from);
    assert_non_null(to);
    run(from, to);
    fclose(from);
    assert_int_equal(fclose(to), 0);
}
int main(int argc, char **argv) {
    if (argc != 3) return 2;
    paths = (const char *const *)argv;
    const struct CMUnitTest tests[] = {cmocka_unit_test(work)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
