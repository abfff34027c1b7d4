/* Loss, gradients and AdamW against PyTorch (tests/golden/model_golden.py) and transformers (families_golden.py), initial
 * weights against another implementation of docs/numerics.md in Python: those by bits. */
#include "lockstep/base/hash.h"
#include "model/testing.h"
#include <math.h>

#define SEQUENCES 3
#define STEPS     3

struct golden_tensor {
    const char *name;
    double gradient_norm, gradient[3], after[3]; /* elements 0, count / 2, count - 1 */
    double change;                               /* norm of the difference after STEPS updates */
};
struct golden {
    struct lk_model_config config;
    uint64_t seed;
    bool documents;
    const char *digest; /* SHA-256 of the initial tensors' bytes in canonical order */
    double losses[STEPS];
    size_t tensor_count;
    const struct golden_tensor *tensors;
    const char *name;    /* transformers' families only: gains and biases are moved, and there are logits */
    const float *logits; /* (SEQUENCES, vocab), of the last positions */
};
#include "../../tests/golden/families_golden.h"
#include "../../tests/golden/model_golden.h"
static const struct golden *const all[] = {&golden_0, &golden_1, &golden_2, GOLDEN_FAMILIES};
#define CASES (sizeof all / sizeof *all)

static struct test_batch batch_of(const struct golden *g) {
    uint32_t T = g->config.context, V = g->config.vocab;
    size_t n = (size_t)SEQUENCES * T;
    struct test_batch b = {SEQUENCES, T, 0, lk_alloc(n * 4), lk_alloc(n * 4), g->documents ? lk_alloc(n * 4) : NULL};
    for (size_t i = 0; i < n; i++) {
        b.tokens[i] = (uint32_t)((7 * i * i + 3 * i + 1) % V);
        b.targets[i] = i % 6 == 4 ? UINT32_MAX : (uint32_t)((5 * i * i + i + 2) % V);
        if (g->documents) b.start[i] = (uint32_t)(i % T / 5 * 5);
        b.unmasked += b.targets[i] != UINT32_MAX;
    }
    return b;
}

static void near(double x, double y, double scale, double tolerance, const char *tensor, const char *what) {
    if (!(fabs(x - y) <= tolerance * scale)) fail_msg("%s, %s: %.9g, PyTorch has %.9g", tensor, what, x, y);
}

static double norm(const float *x, const float *minus, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        double d = minus ? (double)x[i] - minus[i] : x[i];
        sum += d * d;
    }
    return sqrt(sum);
}

static void initial_weights_have_python_s_bits(void **state) {
    (void)state;
    struct test_math m = test_math_open(NULL, 2);
    for (size_t n = 0; n < CASES; n++) {
        struct lk_layout l;
        struct lk_root digest;
        struct lk_buf bytes = LK_BUF_INIT;
        char hex[LK_ROOT_HEX];
        OK(lk_layout_init(&l, &all[n]->config, &test_err));
        float *w = lk_alloc(l.floats * 4);
        lk_layout_initialise(&l, m.math, all[n]->seed, w);
        for (size_t i = 0; i < l.tensor_count; i++)
            OK(lk_buf_append(&bytes, w + l.tensors[i].offset, l.tensors[i].count * 4));
        lk_sha256(bytes.data, bytes.size, &digest);
        assert_string_equal(lk_root_hex(&digest, hex), all[n]->digest);
        lk_buf_release(&bytes);
        lk_free(w);
        lk_layout_release(&l);
    }
    test_math_close(&m);
}

static const struct test_adamw adamw = {3e-3, 0.9, 0.95, 1e-3, 0.1};

static void check_gradient(const struct golden *golden, const struct lk_layout *l, const float *g) {
    for (size_t i = 0; i < golden->tensor_count; i++) {
        const struct golden_tensor *e = &golden->tensors[i];
        const struct lk_tensor *t = &l->tensors[i];
        const float *x = g + t->offset;
        assert_string_equal(t->name, e->name);
        near(norm(x, NULL, t->count), e->gradient_norm, e->gradient_norm, 3e-6, t->name, "norm of the gradient");
        const size_t at[3] = {0, t->count / 2, t->count - 1};
        for (int k = 0; k < 3; k++) near(x[at[k]], e->gradient[k], e->gradient_norm, 3e-6, t->name, "gradient");
    }
}
static void check_weights(const struct golden *golden, const struct lk_layout *l, const float *w, const float *first) {
    for (size_t i = 0; i < golden->tensor_count; i++) {
        const struct golden_tensor *e = &golden->tensors[i];
        const struct lk_tensor *t = &l->tensors[i];
        near(norm(w + t->offset, first + t->offset, t->count), e->change, e->change, 1e-4, t->name, "norm of the change");
        const size_t at[3] = {0, t->count / 2, t->count - 1};
        for (int k = 0; k < 3; k++)
            near(w[t->offset + at[k]], e->after[k], e->change, 1e-4, t->name, "weight after three updates");
    }
}

/* Gains and biases as families_golden.py moves them, so that none is 1 or 0. */
static void move_vectors(const struct lk_layout *l, float *w) {
    for (size_t i = 0; i < l->tensor_count; i++)
        for (size_t j = 0; l->tensors[i].dims == 1 && j < l->tensors[i].count; j++) {
            float *x = &w[l->tensors[i].offset + j];
            *x = (float)((double)*x + ((int)((7 * j + 3) % 11) - 5) * 0.02);
        }
}

/* A token at a time, as generation does. */
static void check_logits(const struct golden *golden, const struct lk_layout *l, struct lk_math *math, const float *w,
                         const uint32_t *tokens) {
    uint32_t T = golden->config.context, V = golden->config.vocab;
    struct lk_decoder *d;
    OK(lk_decoder_create(l, math, 1, T, LK_EXTEND, &d, &test_err));
    for (uint32_t s = 0; s < SEQUENCES; s++) {
        struct lk_attention_cache cache;
        const float *x = NULL, *theirs = golden->logits + s * V;
        OK(lk_attention_cache_init(&cache, l, LK_F32, T, 1, &test_err));
        for (uint32_t t = 0; t < T; t++)
            x = lk_decoder_extend(d, w, &cache, &(struct lk_extension){tokens + s * T + t, (uint32_t[]){0}, t, 1, 1}, 1);
        double scale = norm(theirs, NULL, V) / sqrt(V);
        for (uint32_t i = 0; i < V; i++) near(x[i], theirs[i], scale, 1e-5, golden->name, "logit");
        lk_attention_cache_release(&cache);
    }
    lk_decoder_free(d);
}

static void loss_gradient_and_updates_are_pytorch_s(void **state) {
    (void)state;
    const char *isas[8];
    int count = lk_math_isas(isas);
    for (size_t n = 0; n < CASES * (size_t)count; n++) {
        const struct golden *golden = all[n % CASES];
        struct test_math m = test_math_open(isas[n / CASES], 2);
        struct lk_layout l;
        OK(lk_layout_init(&l, &golden->config, &test_err));
        assert_int_equal(l.tensor_count, golden->tensor_count);
        struct test_batch b = batch_of(golden);
        float *w = lk_calloc(l.floats, 4), *g = lk_calloc(l.floats, 4), *m1 = lk_calloc(l.floats, 4),
              *m2 = lk_calloc(l.floats, 4);
        float *first = lk_calloc(l.floats, 4);
        lk_layout_initialise(&l, m.math, golden->seed, w);
        if (golden->name) move_vectors(&l, w);
        if (golden->name) check_logits(golden, &l, m.math, w, b.tokens);
        memcpy(first, w, l.floats * 4);
        for (int step = 1; step <= STEPS; step++) {
            double loss =
                test_gradient(m.math, &l, step == 2 ? LK_RECOMPUTE : LK_TRAINING, w, &b, step == 1 ? 1 : SEQUENCES, g);
            near(loss, golden->losses[step - 1], golden->losses[step - 1], 2e-6,
                 golden->name ? golden->name : test_family(golden->config.family), "loss");
            if (step == 1) check_gradient(golden, &l, g);
            test_adamw(&l, m.math, step, &adamw, g, w, m1, m2);
        }
        check_weights(golden, &l, w, first);
        lk_free(w);
        lk_free(g);
        lk_free(m1);
        lk_free(m2);
        lk_free(first);
        test_batch_free(&b);
        lk_layout_release(&l);
        test_math_close(&m);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(initial_weights_have_python_s_bits),
        cmocka_unit_test(loss_gradient_and_updates_are_pytorch_s),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
