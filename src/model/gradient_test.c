/* The gradients are right: the double model against finite differences, the decoder against the double model. */
#include "model/model64.h"

static const struct shape {
    struct lk_model_config config;
    uint32_t sequences, positions, grains;
    bool documents;
} shapes[] = {
    {{LK_LLAMA, 2, 10, 4, 2, 4, 9, 7, 13, true, 1e-5, 10000, 0.02}, 2, 7, 1, false},
    {{LK_LLAMA, 1, 9, 3, 1, 6, 11, 9, 17, false, 1e-5, 500, 0.02}, 2, 9, 2, true},
    {{LK_GPT2, 1, 21, 3, 3, 7, 15, 6, 11, true, 1e-5, 0, 0.02}, 3, 6, 3, true},
    {{LK_GPT2, 2, 7, 1, 1, 7, 10, 8, 12, false, 1e-5, 0, 0.02}, 2, 5, 1, false},
    {{LK_LLAMA, 2, 10, 4, 2, 4, 9, 7, 13, true, 1e-5, 10000, 0.02, .qkv_bias = true}, 2, 7, 1, false},
    {{LK_LLAMA, 1, 9, 3, 1, 6, 11, 9, 17, false, 1e-5, 500, 0.02, .qk_norm = true}, 2, 9, 2, true},
    {{LK_LLAMA, 2, 10, 2, 1, 4, 9, 9, 13, false, 1e-5, 10000, 0.02, .window = 4}, 2, 9, 1, false},
    {{LK_LLAMA, 1, 10, 2, 2, 12, 9, 20, 13, true, 1e-5, 100, 0.02, false, false, 0, 8, 1, 4, 16}, 1, 20, 1, false},
    {{LK_LLAMA, 2, 9, 4, 2, 6, 9, 12, 13, false, 1e-5, 100, 0.02, true, true, 3, 4, 1, 3, 8}, 3, 12, 3, true},
    /* too large for differences of every weight */
    {{LK_LLAMA, 2, 84, 12, 4, 10, 90, 65, 1021, true, 1e-5, 10000, 0.02}, 3, 65, 3, true},
    {{LK_GPT2, 2, 84, 12, 12, 7, 130, 65, 509, true, 1e-5, 0, 0.02}, 2, 65, 2, false},
    {{LK_LLAMA, 2, 84, 12, 4, 10, 90, 65, 257, false, 1e-6, 10000, 0.02, true, true, 17, 8, 1, 4, 24}, 3, 65, 3, true},
};
#define SMALL  9
#define SHAPES (sizeof shapes / sizeof *shapes)

struct problem {
    struct lk_layout layout;
    struct test_batch batch;
    struct m64 *model;
    float *w32;
    double *w, *g, loss;
};
static void make(struct problem *p, const struct shape *s, struct test_random *r, double deviation) {
    OK(lk_layout_init(&p->layout, &s->config, &test_err));
    p->batch = test_batch_make(r, s->sequences, s->positions, s->config.vocab, s->documents);
    p->model = m64_create(&p->layout, &p->batch);
    p->w32 = lk_calloc(p->layout.floats, sizeof(float));
    p->w = lk_calloc(p->layout.floats, sizeof(double));
    p->g = lk_calloc(p->layout.floats, sizeof(double));
    test_weights(r, &p->layout, deviation, p->w32);
    for (size_t i = 0; i < p->layout.floats; i++) p->w[i] = p->w32[i];
    p->loss = m64_loss(p->model, p->w, true);
    m64_backward(p->model, p->w, p->g);
}
static void drop(struct problem *p) {
    m64_free(p->model);
    test_batch_free(&p->batch);
    lk_free(p->w32);
    lk_free(p->w);
    lk_free(p->g);
    lk_layout_release(&p->layout);
}

static double greatest(const double *x, size_t n) {
    double most = 0;
    for (size_t i = 0; i < n; i++) most = fabs(x[i]) > most ? fabs(x[i]) : most;
    return most;
}

/* Relative to scale. A step that is too large for a steep place, or too small for a flat one, errs; a wrong gradient errs
 * at every step. */
static double difference_error(struct problem *p, size_t j, double scale) {
    static const double steps[] = {1e-5, 1e-6, 1e-4, 1e-7};
    double was = p->w[j], best = INFINITY;
    for (size_t k = 0; k < 4 && !(best < 1e-7); k++) {
        p->w[j] = was + steps[k];
        double up = m64_loss(p->model, p->w, false);
        p->w[j] = was - steps[k];
        double down = m64_loss(p->model, p->w, false), error = fabs((up - down) / (2 * steps[k]) - p->g[j]) / scale;
        best = error < best ? error : best;
    }
    p->w[j] = was;
    return best;
}

/* Every weight. With a step of 1e-5 the central difference's own error is about 1e-9 where the loss is not steep. */
static void double_model_equals_finite_differences(void **state) {
    (void)state;
    struct test_random r = test_random_open("differences");
    for (size_t n = 0; n < SMALL; n++) {
        struct problem p;
        double worst = 0;
        make(&p, &shapes[n], &r, 0.4);
        for (size_t i = 0; i < p.layout.tensor_count; i++) {
            const struct lk_tensor *t = &p.layout.tensors[i];
            double scale = greatest(p.g + t->offset, t->count) + 1e-3;
            for (size_t j = t->offset; j < t->offset + t->count; j++) {
                double error = difference_error(&p, j, scale);
                if (!(error < 1e-6))
                    fail_msg("shape %zu, %s element %zu: gradient %g is off by %g of the greatest", n, t->name,
                             j - t->offset, p.g[j], error);
                worst = error > worst ? error : worst;
            }
        }
        print_message("%s, %zu parameters: greatest error %.1e of a tensor's greatest gradient\n",
                      test_family(shapes[n].config.family), p.layout.parameters, worst);
        drop(&p);
    }
}

/* The decoder in float, every ISA: each element within 1e-4 of its tensor's greatest gradient (about 1e-6; random weights
 * now and then make an ill-conditioned model), the loss within 1e-6. */
static void decoder_is_near_the_double_model(void **state) {
    (void)state;
    struct test_random r = test_random_open("float against double");
    const char *isas[8];
    int count = lk_math_isas(isas);
    for (size_t n = 0; n < SHAPES; n++) {
        struct problem p;
        make(&p, &shapes[n], &r, n < SMALL ? 0.4 : 0.08);
        float *g = lk_alloc(p.layout.floats * sizeof *g);
        double worst = 0;
        for (int k = 0; k<count; k += count - 1> 0 ? count - 1 : 1) { /* the best, and ref */
            struct test_math m = test_math_open(isas[k], 2);
            double loss = test_gradient(m.math, &p.layout, LK_TRAINING, p.w32, &p.batch, shapes[n].grains, g);
            assert_true(fabs(loss - p.loss) < 1e-6 * fabs(p.loss));
            for (size_t i = 0; i < p.layout.tensor_count; i++) {
                const struct lk_tensor *t = &p.layout.tensors[i];
                double scale = greatest(p.g + t->offset, t->count) + 1e-6;
                for (size_t j = t->offset; j < t->offset + t->count; j++) {
                    double error = fabs(g[j] - p.g[j]) / scale;
                    if (!(error < 1e-4))
                        fail_msg("shape %zu, %s, %s element %zu: %g, not %g", n, isas[k], t->name, j - t->offset, g[j],
                                 p.g[j]);
                    worst = error > worst ? error : worst;
                }
            }
            test_math_close(&m);
        }
        print_message("%s, %zu parameters: greatest error %.1e of a tensor's greatest gradient\n",
                      test_family(shapes[n].config.family), p.layout.parameters, worst);
        lk_free(g);
        drop(&p);
    }
}

/* The test can see: a wrong target or an ignored document moves the gradient far beyond the tolerance. */
static void a_wrong_batch_is_seen(void **state) {
    (void)state;
    struct test_random r = test_random_open("control");
    struct problem p;
    make(&p, &shapes[1], &r, 0.4);
    struct test_math m = test_math_open(NULL, 1);
    float *g = lk_alloc(p.layout.floats * sizeof *g);
    uint32_t *start = p.batch.start;
    p.batch.start = NULL;
    double most = 0, loss = test_gradient(m.math, &p.layout, LK_TRAINING, p.w32, &p.batch, 1, g);
    for (size_t i = 0; i < p.layout.floats; i++) most = fabs(g[i] - p.g[i]) > most ? fabs(g[i] - p.g[i]) : most;
    assert_true(most > 1e-3 && loss != p.loss);
    p.batch.start = start;
    lk_free(g);
    test_math_close(&m);
    drop(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(double_model_equals_finite_differences),
        cmocka_unit_test(decoder_is_near_the_double_model),
        cmocka_unit_test(a_wrong_batch_is_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
