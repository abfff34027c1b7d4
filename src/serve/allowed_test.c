/* Draws from some ids: as if there were no others, whatever their logits are; -infinity is never drawn either. */
#include "lockstep/serve/generate.h"
#include "model/testing.h"
#include <math.h>

#define TOKENS 300

static struct test_math math;
static int setup(void **state) {
    (void)state;
    math = test_math_open(NULL, 1);
    return 0;
}
static int teardown(void **state) {
    (void)state;
    test_math_close(&math);
    return 0;
}

static struct lk_sampling random_sampling(struct test_random *r, uint64_t seed) {
    static const double temperatures[] = {0, 0.3, 1, 2}, top_ps[] = {1, 0.9, 0.5, 0}, min_ps[] = {0, 0.1, 0.9};
    return (struct lk_sampling){.temperature = temperatures[test_random_below(r, 4)],
                                .top_k = test_random_below(r, 2) ? test_random_below(r, 40) : 0,
                                .top_p = top_ps[test_random_below(r, 4)],
                                .min_p = min_ps[test_random_below(r, 3)],
                                .seed = seed};
}

static void others_do_not_matter(void **state) {
    (void)state;
    struct test_random r = test_random_open("others_do_not_matter");
    void *workspace = lk_alloc(lk_sample_allowed_bytes(TOKENS));
    for (int i = 0; i < 6000; i++) {
        float logits[TOKENS], other[TOKENS], infinite[TOKENS];
        uint64_t allowed[(TOKENS + 63) / 64] = {0};
        uint32_t tokens = 1 + test_random_below(&r, TOKENS), count = 0, every = 1 + test_random_below(&r, 40);
        for (uint32_t id = 0; id < tokens; id++) {
            static const float odd[] = {NAN, INFINITY, -INFINITY, 1e30f};
            logits[id] = (float)test_random_below(&r, 64) / 4 - 8;
            bool in = test_random_below(&r, every) == 0;
            allowed[id / 64] |= (uint64_t)in << id % 64;
            count += in;
            other[id] = in ? logits[id] : odd[test_random_below(&r, 4)];
            infinite[id] = in ? logits[id] : -INFINITY;
        }
        struct lk_sampling s = random_sampling(&r, (uint64_t)i);
        uint32_t place = test_random_below(&r, 1000);
        uint32_t id = lk_sample_allowed(math.math, logits, tokens, allowed, &s, place, workspace);
        assert_int_equal(lk_sample_allowed(math.math, other, tokens, allowed, &s, place, workspace), id);
        assert_int_equal(id == UINT32_MAX, count == 0);
        if (!count) continue;
        assert_true(id < tokens && allowed[id / 64] >> id % 64 & 1);
        if (count == tokens) assert_int_equal(id, lk_sample_token(math.math, logits, tokens, &s, place, workspace));
        uint32_t drawn = lk_sample_token(math.math, infinite, tokens, &s, place, workspace);
        assert_true(infinite[drawn] != -INFINITY);
        assert_int_equal(drawn, id); /* what is infinitely unlikely adds nothing, and is behind all others */
    }
    lk_free(workspace);
}

/* With nothing but NaN and -infinity among the allowed, the lowest id of them. */
static void one_is_always_drawn(void **state) {
    (void)state;
    void *workspace = lk_alloc(lk_sample_allowed_bytes(TOKENS));
    float logits[TOKENS];
    uint64_t allowed[(TOKENS + 63) / 64] = {0};
    allowed[1] = 0xF0;
    for (int i = 0; i < TOKENS; i++) logits[i] = i >= 68 && i < 72 ? (i == 69 ? NAN : -INFINITY) : 1;
    for (int t = 0; t < 2; t++) {
        struct lk_sampling s = {.temperature = t, .top_p = 1};
        assert_int_equal(lk_sample_allowed(math.math, logits, TOKENS, allowed, &s, 3, workspace), 68);
    }
    lk_free(workspace);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(others_do_not_matter), cmocka_unit_test(one_is_always_drawn)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
