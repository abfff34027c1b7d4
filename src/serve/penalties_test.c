/* Biases and penalties against docs/numerics.md, section 10, written down token by token. */
#include "model/testing.h"
#include "penalties.h"
#include <math.h>

enum { TOKENS = 37, IDS = 60 };

static float expected(float z, uint32_t id, const struct lk_penalties *p, const uint32_t *ids, size_t read, size_t drawn) {
    uint32_t there = 0, c = 0;
    for (size_t i = 0; i < p->bias_count; i++)
        if (p->bias[i].id == id) z = z + p->bias[i].bias;
    for (size_t i = 0; i < read + drawn; i++) there += ids[i] == id, c += i >= read && ids[i] == id;
    float r = p->repetition == 0 ? 1 : (float)p->repetition;
    if (there) z = z < 0 ? z * r : z / r;
    if (c) {
        double times = c * p->frequency, all = times + p->presence;
        z = (float)((double)z - all);
    }
    return z;
}

static void logits_are_those_of_the_page(void **state) {
    (void)state;
    struct test_random r = test_random_open("penalties");
    static const double repetitions[] = {0, 1, 1.3, 0.5, 100}, others[] = {0, 0, 0.7, -2, 2, 1e-9};
    static const float values[] = {0.0f, -0.0f, INFINITY, -INFINITY, NAN, 1e-42f};
    for (int n = 0; n < 4000; n++) {
        float x[TOKENS], out[TOKENS];
        uint32_t ids[IDS];
        struct lk__serve_counts counts;
        struct lk_logit_bias bias[5];
        struct lk_penalties p = {bias, test_random_below(&r, 6), repetitions[test_random_below(&r, 5)],
                                 others[test_random_below(&r, 6)], others[test_random_below(&r, 6)]};
        size_t read = test_random_below(&r, IDS / 2), drawn = test_random_below(&r, IDS / 2);
        for (uint32_t i = 0; i < TOKENS; i++)
            x[i] = test_random_below(&r, 8) ? (float)(test_uniform(&r) * 12 - 6) : values[test_random_below(&r, 6)];
        for (size_t i = 0; i < IDS; i++) ids[i] = test_random_below(&r, TOKENS + 3); /* some are no tokens */
        for (uint32_t i = 0; i < 5; i++) bias[i] = (struct lk_logit_bias){i * 7, (float)test_random_below(&r, 201) - 100};
        OK(lk_penalties_check(&p, TOKENS, &test_err));
        bool same = lk_penalties_none(&p);
        memcpy(out, x, sizeof x);
        OK(lk__serve_counts_init(&counts, TOKENS, &test_err));
        for (size_t i = 0; i < read + drawn; i++) lk__serve_counts_add(&counts, ids[i], i >= read);
        lk__serve_penalise(&p, &counts, out);
        lk__serve_counts_release(&counts);
        for (uint32_t i = 0; i < TOKENS; i++) {
            float want = expected(x[i], i, &p, ids, read, drawn);
            if (memcmp(&want, &out[i], 4) && !(want != want && out[i] != out[i]))
                fail_msg("token %u: %a, not %a", i, (double)out[i], (double)want);
        }
        if (same) assert_memory_equal(out, x, sizeof x);
    }
}

static void values_are_checked(void **state) {
    (void)state;
    static const double bad[] = {-0.1, 101, NAN, INFINITY, 1e-60}, far[] = {-2.1, 2.1, NAN, INFINITY};
    struct lk_logit_bias bias[] = {{3, 100}, {9, -100}};
    const struct lk_penalties good = {bias, 2, 1.5, 2, -2};
    struct lk_penalties p = good;
    OK(lk_penalties_check(&good, 10, &test_err));
    OK(lk_penalties_check(&(struct lk_penalties){0}, 1, &test_err));
    assert_true(lk_penalties_none(&(struct lk_penalties){0}) && lk_penalties_none(&(struct lk_penalties){.repetition = 1}));
    assert_false(lk_penalties_none(&(struct lk_penalties){.bias = bias, .bias_count = 1}));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        p = good, p.repetition = bad[i];
        FAILS(lk_penalties_check(&p, 10, &test_err), LK_EINVAL, "repetition penalty");
    }
    for (size_t i = 0; i < sizeof far / sizeof *far; i++) {
        p = good, p.presence = far[i];
        FAILS(lk_penalties_check(&p, 10, &test_err), LK_EINVAL, "presence penalty");
        p = good, p.frequency = far[i];
        FAILS(lk_penalties_check(&p, 10, &test_err), LK_EINVAL, "frequency penalty");
    }
    FAILS(lk_penalties_check(&good, 9, &test_err), LK_EINVAL, "the bias of token 9: the tokenizer has 9 tokens");
    p = good, p.bias_count = LK_LOGIT_BIASES_MOST + 1; /* refused before one is looked at */
    FAILS(lk_penalties_check(&p, 10, &test_err), LK_EINVAL, "1025 biases of tokens are more than 1024");
    bias[1].bias = NAN;
    FAILS(lk_penalties_check(&good, 10, &test_err), LK_EINVAL, "the bias of token 9, nan");
    bias[1] = (struct lk_logit_bias){3, 1};
    FAILS(lk_penalties_check(&good, 10, &test_err), LK_EINVAL, "token 3 has two biases");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_are_those_of_the_page),
        cmocka_unit_test(values_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
