/* What benchmarks of generation share: a model of random parameters and a tokenizer of 50,257 tokens. */
#ifndef LOCKSTEP_BENCH_MODEL_H
#define LOCKSTEP_BENCH_MODEL_H
#include "lockstep/base/mem.h"
#include "lockstep/base/progress.h"
#include "lockstep/data/tokenizer.h"
#include "lockstep/math/kernels.h"
#include "lockstep/math/math.h"
#include "lockstep/model/model.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORDS 400000

struct bench_model {
    struct lk_math *math;
    struct lk_layout layout;
    float *weights;
    struct lk_tokenizer *tokenizer;
};

static inline double seconds_now(void) {
    return 1e-9 * (double)lk_clock_ns();
}
static inline void stop(const struct lk_err *err) {
    fprintf(stderr, "bench: %s\n", err->message);
    exit(1);
}

static inline unsigned next(unsigned *seed) {
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

/* Words of random letters: as many different pairs as a vocabulary of GPT-2's size wants. */
static inline void make_tokenizer(struct bench_model *b, struct lk_buf *text) {
    struct lk_err err = {0};
    unsigned seed = 1;
    for (int i = 0; i < WORDS; i++) {
        char word[16];
        size_t n = 2 + next(&seed) % 8;
        for (size_t j = 0; j < n; j++) word[j] = (char)('a' + next(&seed) % 26);
        word[n] = ' ';
        if (lk_buf_append(text, word, n + 1)) exit(1);
    }
    struct lk_bytes all = lk_bytes(text->data, text->size);
    if (lk_tokenizer_train(&all, 1, 50257, lk_math_pool(b->math), NULL, NULL, &b->tokenizer, &err)) stop(&err);
}

/* gpt2 (124M), llama (114M), llama135: the shape of SmolLM2-135M with the rows of the others. */
static inline void make_model(struct bench_model *b, const char *shape, uint32_t context) {
    struct lk_err err = {0};
    struct lk_model_config gpt2 = {LK_GPT2, 12, 768, 12, 12, 64, 3072, context, 50304, true, 1e-5, 10000, 0.02};
    struct lk_model_config llama = {LK_LLAMA, 12, 768, 12, 4, 64, 2048, context, 50304, true, 1e-5, 10000, 0.02};
    struct lk_model_config llama135 = {LK_LLAMA, 30, 576, 9, 3, 64, 1536, context, 50304, true, 1e-5, 10000, 0.02};
    struct lk_model_config *config = !strcmp(shape, "gpt2") ? &gpt2 : !strcmp(shape, "llama135") ? &llama135 : &llama;
    if (lk_layout_init(&b->layout, config, &err)) stop(&err);
    b->weights = lk_alloc(b->layout.floats * sizeof(float));
    if (!b->weights) exit(1);
    memset(b->weights, 0, b->layout.floats * sizeof(float));
    unsigned seed = 7;
    for (size_t t = 0; t < b->layout.tensor_count; t++) {
        const struct lk_tensor *tensor = &b->layout.tensors[t];
        for (size_t i = 0; i < tensor->count; i++)
            b->weights[tensor->offset + i] = (float)tensor->constant + ((float)next(&seed) / (1 << 23) - 1) * 0.03f;
    }
}

/* Logits that differ as a trained model's do (a standard deviation of about 3), so that sampling has its usual work. */
static inline void sharpen(struct bench_model *b) {
    const struct lk_tensor *gain = &b->layout.tensors[b->layout.norm];
    for (size_t i = 0; i < gain->count; i++) b->weights[gain->offset + i] *= 6;
}

/* The model in fewer bits, where BENCH_DTYPE says so (q8, q4, bf16): embedding and head as --to of model quantize has them.
 */
static inline void narrow(struct bench_model *b) {
    const char *name = getenv("BENCH_DTYPE");
    enum lk_dtype dtype;
    struct lk_layout to;
    struct lk_err err = {0};
    if (!name || !*name || !lk_dtype_named(name, &dtype) || dtype == LK_F32) return;
    if (lk_layout_init(&to, &b->layout.config, &err)) stop(&err);
    lk_layout_narrow(&to, dtype, dtype == LK_Q4 ? LK_Q8 : dtype);
    float *w = lk_calloc(to.floats, sizeof *w);
    for (size_t i = 0; i < to.tensor_count; i++) {
        const struct lk_tensor *t = &to.tensors[i];
        size_t columns = t->dims == 2 ? t->shape[1] : t->count;
        if (lk_quantize(b->math, t->dtype, t->count / columns, columns, b->weights + b->layout.tensors[i].offset,
                        w + t->offset, &err))
            stop(&err);
    }
    lk_free(b->weights);
    lk_layout_release(&b->layout);
    b->layout = to, b->weights = w;
}

#endif
