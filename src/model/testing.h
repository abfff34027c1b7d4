/* What the tests of this floor and of train and serve share: small models, random weights and batches, one gradient. */
#ifndef LK_MODEL_TESTING_H
#define LK_MODEL_TESTING_H
#include "base/testing.h"
#include "lockstep/math/scalar.h"
#include "lockstep/model/model.h"

static inline double test_uniform(struct test_random *r) {
    return (test_random_below(r, 1u << 24) + 0.5) / (1u << 24);
}

/* About normal numbers for matrices, gains about 1, biases about 0: no term of a gradient is hidden by a special value. */
static inline void test_weights(struct test_random *r, const struct lk_layout *l, double deviation, float *w) {
    memset(w, 0, l->floats * sizeof *w);
    for (size_t i = 0; i < l->tensor_count; i++)
        for (size_t j = 0; j < l->tensors[i].count; j++) {
            double z = test_uniform(r) + test_uniform(r) + test_uniform(r) + test_uniform(r) - 2;
            w[l->tensors[i].offset + j] = (float)(l->tensors[i].constant + 1.7 * deviation * z);
        }
}

/* The same weights as a narrow layout has them. */
static inline void test_narrow(struct lk_math *math, const struct lk_layout *from, const float *w,
                               const struct lk_layout *to, float *out) {
    memset(out, 0, to->floats * sizeof *out);
    for (size_t i = 0; i < to->tensor_count; i++) {
        const struct lk_tensor *t = &to->tensors[i];
        size_t columns = t->dims == 2 ? t->shape[1] : t->count;
        OK(lk_quantize(math, t->dtype, t->count / columns, columns, w + from->tensors[i].offset, out + t->offset,
                       &test_err));
    }
}

struct test_batch {
    uint32_t sequences, positions, unmasked;
    uint32_t *tokens, *targets, *start; /* (sequences, positions); start is NULL without documents */
};
static inline struct test_batch test_batch_make(struct test_random *r, uint32_t sequences, uint32_t positions,
                                                uint32_t vocab, bool documents) {
    size_t n = (size_t)sequences * positions;
    struct test_batch b = {sequences, positions, 0, lk_alloc(n * 4), lk_alloc(n * 4), documents ? lk_alloc(n * 4) : NULL};
    for (size_t i = 0; i < n; i++) {
        bool first = i % positions == 0;
        b.tokens[i] = test_random_below(r, 4) ? test_random_below(r, vocab) : vocab / 2; /* one token often */
        b.targets[i] = test_random_below(r, 6) ? test_random_below(r, vocab) : UINT32_MAX;
        if (i == 0) b.targets[i] = 1;
        bool begins = i % positions == positions / 2 || test_random_below(r, 4) == 0; /* at least two a sequence */
        if (documents) b.start[i] = first ? 0 : begins ? (uint32_t)(i % positions) : b.start[i - 1];
        b.unmasked += b.targets[i] != UINT32_MAX;
    }
    return b;
}
static inline void test_batch_free(struct test_batch *b) {
    lk_free(b->tokens);
    lk_free(b->targets);
    lk_free(b->start);
}

/* The gradient of a batch of `grains` grains through the decoder, in passes of one (node of the tree or) whole batch. g:
 * floats of the layout. Returns the sum of the losses divided by their number. */
static inline double test_gradient(struct lk_math *math, const struct lk_layout *l, enum lk_decoder_mode mode,
                                   const float *w, const struct test_batch *b, uint32_t grains, float *g) {
    struct lk_decoder *d;
    struct lk_embedding_gradient *e;
    size_t rows = (size_t)b->sequences * b->positions, vocab = l->config.vocab, per = b->sequences / grains;
    struct lk_row_part *parts = lk_alloc(b->sequences * sizeof *parts);
    float *losses = lk_alloc(rows * sizeof *losses);
    OK(lk_decoder_create(l, math, b->sequences, b->positions, mode, &d, &test_err));
    OK(lk_embedding_gradient_create(l->config.vocab, l->config.width, rows, NULL, &e, &test_err));
    for (uint32_t s = 0; s < b->sequences; s++)
        parts[s] =
            (struct lk_row_part){.first = (size_t)s * b->positions, .rows = b->positions, .ends_group = (s + 1) % per == 0};
    float *logits = lk_decoder_forward(d, w, b->sequences, b->positions, b->tokens, b->start);
    lk_cross_entropy(math, &(struct lk_cross_entropy){.rows = rows,
                                                      .vocab = vocab,
                                                      .logits = logits,
                                                      .ld = vocab,
                                                      .targets = b->targets,
                                                      .scale = (float)(1.0 / b->unmasked),
                                                      .gradient = true,
                                                      .loss = losses});
    memset(g, 0, l->floats * sizeof *g);
    const float *dx = lk_decoder_backward(d, w, parts, b->sequences, false, g, NULL, NULL);
    for (uint32_t i = 0; i < grains; i++) {
        size_t at = i * per * b->positions;
        lk_embedding_gradient_add(e, math, i, (uint32_t)per, b->positions, b->tokens + at, dx + at * l->config.width);
    }
    struct lk_embedding_rows touched = lk_embedding_gradient_list(e, math, 0, grains, grains);
    lk_embedding_rows_finish(math, l->config.width, &touched, 1, 0, vocab * l->config.width, l->head < 0,
                             g + l->tensors[l->embedding].offset);
    double sum = 0;
    for (size_t i = 0; i < rows; i++) sum += losses[i];
    lk_free(parts);
    lk_free(losses);
    lk_decoder_free(d);
    lk_embedding_gradient_free(e);
    return sum / b->unmasked;
}

/* One update by AdamW, `step` from 1. */
struct test_adamw {
    double rate, beta1, beta2, epsilon, decay;
};
static inline void test_adamw(const struct lk_layout *l, struct lk_math *math, int step, const struct test_adamw *o,
                              const float *g, float *w, float *m, float *v) {
    for (size_t i = 0; i < l->tensor_count; i++) {
        const struct lk_tensor *t = &l->tensors[i];
        struct lk_adamw a = {(float)o->beta1,
                             (float)(1 - o->beta1),
                             (float)o->beta2,
                             (float)(1 - o->beta2),
                             (float)(-o->rate / (1 - lk_pow64(o->beta1, step))),
                             (float)(1 / lk_sqrt64(1 - lk_pow64(o->beta2, step))),
                             (float)o->epsilon,
                             t->decay ? (float)(1 - o->rate * o->decay) : 1,
                             1};
        lk_adamw_step(math, &a, t->count, w + t->offset, g + t->offset, m + t->offset, v + t->offset);
    }
}

/* A pool and its math, closed together. */
struct test_math {
    struct lk_pool *pool;
    struct lk_math *math;
};
static inline struct test_math test_math_open(const char *isa, int threads) {
    struct test_math t;
    OK(lk_pool_open(threads, &t.pool, &test_err));
    OK(lk_math_open(t.pool, isa, &t.math, &test_err));
    return t;
}
static inline void test_math_close(struct test_math *t) {
    lk_math_close(t->math);
    lk_pool_close(t->pool);
}

static inline const char *test_family(uint32_t family) {
    return family == LK_LLAMA ? "llama" : "gpt2";
}

#endif
