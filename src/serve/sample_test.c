/* Sampling against docs/numerics.md, section 10, written down with a plain sort. */
#include "lockstep/math/scalar.h"
#include "lockstep/serve/generate.h"
#include "model/testing.h"
#include <math.h>

static struct test_math math;
static int setup(void **state) {
    (void)state;
    math = test_math_open(NULL, 2);
    return 0;
}
static int teardown(void **state) {
    (void)state;
    test_math_close(&math);
    return 0;
}

struct ranked {
    float x;
    uint32_t id;
};
static int by_rank(const void *a, const void *b) {
    const struct ranked *p = a, *q = b;
    if (p->x != q->x) return p->x > q->x ? -1 : 1;
    return p->id < q->id ? -1 : 1;
}

static uint32_t expected(const float *logits, uint32_t n, const struct lk_sampling *s, uint32_t position) {
    struct ranked *r = lk_alloc(n * sizeof *r);
    uint32_t w[4], best = 0, token;
    for (uint32_t i = 0; i < n; i++)
        if (logits[i] > logits[best]) best = i;
    for (uint32_t i = 0; i < n; i++) r[i] = (struct ranked){logits[i] / (float)s->temperature, i};
    if (s->temperature == 0) {
        lk_free(r);
        return best;
    }
    float *x = lk_alloc(n * sizeof *x);
    for (uint32_t i = 0; i < n; i++) x[i] = r[i].x;
    qsort(r, n, sizeof *r, by_rank);
    float first = r[0].x;
    if (first - first != 0) {
        lk_free(x);
        lk_free(r);
        return best;
    }
    uint32_t kept = s->top_k && s->top_k < n ? s->top_k : n;
    double all = 0, sum, running = 0;
    if (kept == n)
        for (uint32_t i = 0; i < n; i++) all += lk_softmax_exp(x[i] - first);
    else
        for (uint32_t i = 0; i < kept; i++) all += lk_softmax_exp(r[i].x - first);
    sum = all;
    if (s->top_p < 1) {
        uint32_t smallest = 0;
        for (sum = 0; smallest < kept;) {
            sum += lk_softmax_exp(r[smallest++].x - first);
            if (!(sum < s->top_p * all)) break;
        }
        kept = smallest;
    }
    if (s->min_p > 0) {
        uint32_t likely = 0;
        for (sum = 0; likely < kept && !(lk_softmax_exp(r[likely].x - first) < s->min_p); likely++)
            sum += lk_softmax_exp(r[likely].x - first);
        kept = likely;
    }
    lk_random(s->seed, LK_PURPOSE_SAMPLE, position, s->choice, 0, 0, w);
    double u = (double)(((uint64_t)w[0] << 21) + (w[1] >> 11)) * 0x1p-53;
    token = r[kept - 1].id;
    for (uint32_t i = 0; i < kept; i++) {
        running += lk_softmax_exp(r[i].x - first);
        if (running > u * sum) {
            token = r[i].id;
            break;
        }
    }
    lk_free(x);
    lk_free(r);
    return token;
}

/* Logits with ties, signed zeros, values so far down that their share is +0. */
static void fill(struct test_random *r, float *x, uint32_t n) {
    uint32_t kind = test_random_below(r, 7);
    for (uint32_t i = 0; i < n; i++) {
        x[i] = (float)(test_uniform(r) * 12 - 6);
        if (kind == 1) x[i] = (float)test_random_below(r, 4) - 2; /* many ties */
        if (kind == 2) x[i] = test_random_below(r, 2) ? 0.0f : -0.0f;
        if (kind == 3 && test_random_below(r, 3)) x[i] -= 300;
        if (kind == 4) x[i] = x[i] * 40;
        if (kind == 5) x[i] = x[i] * 1e-42f; /* they differ by denormals */
        if (kind == 6 && test_random_below(r, 3)) x[i] = test_random_below(r, 2) ? -INFINITY : 5.5f;
    }
}

static void draws_are_those_of_a_plain_sort(void **state) {
    (void)state;
    struct test_random r = test_random_open("sampling");
    static const double temperatures[] = {0, 0.3, 0.7, 1, 1.7, 5}, top_ps[] = {1, 0.95, 0.5, 0.1, 1e-9, 0},
                        min_ps[] = {0, 0, 0.05, 0.3, 1e-12, 1e-38, 1};
    for (int n = 0; n < 9000; n++) {
        uint32_t vocab = 1 + test_random_below(&r, n % 1000 == 999 ? 90000
                                                   : n % 50        ? 40
                                                                   : 3000),
                 ks[] = {0, 1, 2, vocab / 2, vocab, vocab + 5};
        float *x = lk_alloc(vocab * 4);
        void *workspace = lk_alloc(lk_sample_bytes(vocab));
        struct lk_sampling s = {temperatures[test_random_below(&r, 6)],
                                ks[test_random_below(&r, 6)],
                                top_ps[test_random_below(&r, 6)],
                                (uint64_t)test_random_below(&r, 1000) << 20 | test_random_below(&r, 1000),
                                min_ps[test_random_below(&r, 7)],
                                n % 3 ? 0 : test_random_below(&r, 5)};
        fill(&r, x, vocab);
        for (uint32_t position = 0; position < 4; position++) {
            uint32_t token = lk_sample_token(math.math, x, vocab, &s, position * 77, workspace),
                     wanted = expected(x, vocab, &s, position * 77);
            if (token != wanted)
                fail_msg("%u tokens, temperature %g, top-k %u, top-p %g, min-p %g: token %u, not %u", vocab, s.temperature,
                         s.top_k, s.top_p, s.min_p, token, wanted);
        }
        lk_free(x);
        lk_free(workspace);
    }
}

/* A share that ends top-p exactly at a rank, or a rounding beside it: sums of buckets can't tell, those of the page can. */
static void shares_at_the_edge_are_those_of_the_page(void **state) {
    (void)state;
    enum { MOST = 3000 };
    static float x[MOST];
    static struct ranked ranks[MOST];
    struct test_random r = test_random_open("edges");
    void *workspace = lk_alloc(lk_sample_bytes(MOST));
    for (int n = 0; n < 3000; n++) {
        uint32_t vocab = 5 + test_random_below(&r, n % 20 ? 60 : MOST - 5), last = 1 + test_random_below(&r, 4);
        struct lk_sampling s = {.temperature = 1, .seed = test_random_below(&r, 1000)};
        double all = 0, sum = 0;
        fill(&r, x, vocab);
        for (uint32_t i = 0; i < vocab; i++) ranks[i] = (struct ranked){x[i], i};
        qsort(ranks, vocab, sizeof *ranks, by_rank);
        for (uint32_t i = 0; i < vocab; i++) all += lk_softmax_exp(x[i] - ranks[0].x);
        for (uint32_t i = 0; i < last; i++) sum += lk_softmax_exp(ranks[i].x - ranks[0].x);
        s.top_p = sum / all + (test_random_below(&r, 3) - 1.0) * 0x1p-53;
        if (!(s.top_p <= 1)) s.top_p = 1;
        for (uint32_t position = 0; position < 8; position++)
            assert_int_equal(lk_sample_token(math.math, x, vocab, &s, position, workspace),
                             expected(x, vocab, &s, position));
    }
    lk_free(workspace);
}

static void greedy_ties_go_to_the_lowest_id(void **state) {
    (void)state;
    assert_true(lk_sample_bytes(6) <= 96 * sizeof(uint64_t));
    const float x[] = {-1, 3, 2, 3, -5, 3}, zeros[] = {-0.0f, 0.0f, -0.0f};
    uint64_t workspace[96];
    struct lk_sampling s = {.top_p = 1};
    assert_int_equal(lk_sample_token(math.math, x, 6, &s, 0, workspace), 1);
    assert_int_equal(lk_sample_token(math.math, zeros, 3, &s, 0, workspace), 0);
    s = (struct lk_sampling){.temperature = 1, .top_k = 1, .top_p = 1};
    for (uint32_t p = 0; p < 50; p++) {
        assert_int_equal(lk_sample_token(math.math, x, 6, &s, p, workspace), 1);
        assert_int_equal(lk_sample_token(math.math, zeros, 3, &s, p, workspace), 0);
    }
    /* so near to 0 that a logit divided by it is infinite */
    const float low[] = {-7, -3, -5};
    static const double near[] = {1e-300, 1e-50, 1e-44, 1e-39};
    for (size_t i = 0; i < sizeof near / sizeof *near; i++) {
        s = (struct lk_sampling){.temperature = near[i], .top_p = 0.95};
        assert_int_equal(lk_sample_token(math.math, x, 6, &s, 9, workspace), 1);
        assert_int_equal(lk_sample_token(math.math, low, 3, &s, 9, workspace), 1);
    }
}

/* Frequencies are the softmax's; another seed or position draws another sequence. */
static void frequencies_follow_the_logits(void **state) {
    (void)state;
    const float x[] = {0, 1, 2, -1};
    const double share[] = {0.08714432, 0.23688282, 0.64391426, 0.03205860};
    uint64_t workspace[96];
    uint32_t count[4] = {0}, same = 0;
    struct lk_sampling s = {.temperature = 1, .top_p = 1, .seed = 5}, other = {.temperature = 1, .top_p = 1, .seed = 6};
    for (uint32_t p = 0; p < 20000; p++) {
        uint32_t t = lk_sample_token(math.math, x, 4, &s, p, workspace);
        count[t]++;
        same += t == lk_sample_token(math.math, x, 4, &other, p, workspace);
    }
    for (int i = 0; i < 4; i++) { /* five standard deviations are below 0.018 */
        double off = count[i] / 20000.0 - share[i];
        assert_true(off < 0.018 && off > -0.018);
    }
    assert_true(same < 11000); /* 0.479 expected */
    other = s, other.choice = 1, same = 0;
    for (uint32_t p = 0; p < 20000; p++)
        same +=
            lk_sample_token(math.math, x, 4, &s, p, workspace) == lk_sample_token(math.math, x, 4, &other, p, workspace);
    assert_true(same < 11000);
}

/* What min-p keeps is never less likely than it says, and all of it is drawn; 1 keeps the likeliest alone. */
static void min_p_cuts_by_the_likeliest(void **state) {
    (void)state;
    const float x[] = {0, 1, 2, -1, 2}; /* 0.135, 0.368, 1, 0.050, 1 times the likeliest */
    static const struct {
        double min_p;
        uint32_t drawn; /* bit i: id i */
    } cases[] = {{0, 31}, {0.04, 31}, {0.06, 23}, {0.13, 23}, {0.14, 22}, {0.37, 20}, {1, 20}};
    uint64_t workspace[96];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct lk_sampling s = {.temperature = 1, .top_p = 1, .min_p = cases[i].min_p, .seed = 3};
        uint32_t drawn = 0;
        for (uint32_t p = 0; p < 2000; p++) drawn |= 1u << lk_sample_token(math.math, x, 5, &s, p, workspace);
        assert_int_equal(drawn, cases[i].drawn);
    }
}

static void values_are_checked(void **state) {
    (void)state;
    const struct lk_sampling good = {.temperature = 1, .top_p = 1, .min_p = 1};
    struct lk_sampling s = good;
    OK(lk_sampling_check(&s, &test_err));
    OK(lk_sampling_check(&(struct lk_sampling){0}, &test_err));
    static const double bad[] = {-0.1, 1.1, NAN, INFINITY};
    for (int i = 0; i < 4; i++) {
        s = good, s.min_p = bad[i];
        FAILS(lk_sampling_check(&s, &test_err), LK_EINVAL, "min_p");
        s = good, s.top_p = bad[i];
        FAILS(lk_sampling_check(&s, &test_err), LK_EINVAL, "top_p");
    }
    s = good, s.temperature = -1;
    FAILS(lk_sampling_check(&s, &test_err), LK_EINVAL, "temperature -1 is not 0 or more");
    s = good, s.temperature = NAN;
    FAILS(lk_sampling_check(&s, &test_err), LK_EINVAL, "temperature");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(draws_are_those_of_a_plain_sort), cmocka_unit_test(shares_at_the_edge_are_those_of_the_page),
        cmocka_unit_test(greedy_ties_go_to_the_lowest_id), cmocka_unit_test(frequencies_follow_the_logits),
        cmocka_unit_test(min_p_cuts_by_the_likeliest),     cmocka_unit_test(values_are_checked),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
