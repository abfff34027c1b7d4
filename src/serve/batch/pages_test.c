/* Pages by chance, beside a list of who should have which: no page has two owners, none is lost, what is found by its
 * tokens has these tokens, and the least recently used go first. */
#include "base/testing.h"
#include "pages.h"

enum { PAGES = 12, POSITIONS = 3, SEQUENCES = 5, DEPTH = 6 };

struct sequence {
    uint32_t version, count, shared, pages[DEPTH], tokens[DEPTH * POSITIONS];
};
/* What is written in a page, by whoever had it last. */
struct content {
    uint32_t version, depth, tokens[DEPTH * POSITIONS];
};

static void check(const struct lk__batch_pages *p, const struct sequence *s) {
    uint32_t own[PAGES] = {0}, read[PAGES] = {0}, used = 0;
    for (int i = 0; i < SEQUENCES; i++)
        for (uint32_t j = 0; j < s[i].count; j++) (j < s[i].shared ? read : own)[s[i].pages[j]]++;
    for (int i = 0; i < PAGES; i++) {
        assert_true(own[i] <= 1 && !(own[i] && read[i]));
        used += own[i] || read[i];
    }
    assert_int_equal(lk__batch_pages_available(p), PAGES - used);
    assert_true(lk__batch_pages_cached(p) <= PAGES - used);
}

static void drop(struct lk__batch_pages *p, struct sequence *s) {
    for (uint32_t i = s->shared; i < s->count; i++) lk__batch_pages_give_back(p, s->pages[i]);
    lk__batch_pages_drop(p, s->pages, s->shared);
    s->count = s->shared = 0;
}

static void pages_have_one_owner_or_are_shared(void **state) {
    (void)state;
    struct test_random r = test_random_open("pages");
    struct lk__batch_pages *p;
    struct sequence s[SEQUENCES] = {0};
    struct content content[PAGES] = {0};
    uint32_t found = 0, refused = 0;
    OK(lk__batch_pages_create(PAGES, POSITIONS, &p, &test_err));
    for (int n = 0; n < 200000; n++) {
        struct sequence *q = &s[test_random_below(&r, SEQUENCES)];
        uint32_t what = test_random_below(&r, 8);
        if (!q->count && what < 4) { /* a new text, of few tokens, so that many begin alike */
            q->version = test_random_below(&r, 2);
            for (int i = 0; i < DEPTH * POSITIONS; i++)
                q->tokens[i] = test_random_below(&r, 8) ? 1 : test_random_below(&r, 3);
            uint32_t known = test_random_below(&r, DEPTH * POSITIONS + 1);
            uint32_t there = lk__batch_pages_matching(p, q->version, q->tokens, known);
            q->count = q->shared = lk__batch_pages_match(p, q->version, q->tokens, known, q->pages);
            assert_int_equal(there, q->count);
            assert_true(q->count <= known / POSITIONS);
            for (uint32_t i = 0; i < q->count; i++) {
                const struct content *c = &content[q->pages[i]];
                assert_true(c->version == q->version && c->depth == i);
                assert_memory_equal(c->tokens, q->tokens, (i + 1) * POSITIONS * 4);
            }
            found += q->count;
        } else if (what < 6 && q->count < DEPTH) { /* one page more, full at once or not */
            uint32_t page = lk__batch_pages_take(p);
            if (page == PAGE_NONE) {
                refused++;
                continue;
            }
            q->pages[q->count++] = page;
        } else if (what == 6 && q->shared < q->count) { /* the first one of its own is full */
            uint32_t i = q->shared++, page = q->pages[i];
            struct content c = {q->version, i, {0}};
            memcpy(c.tokens, q->tokens, (i + 1) * POSITIONS * 4);
            content[page] = c;
            q->pages[i] =
                lk__batch_pages_share(p, q->version, i ? q->pages[i - 1] : PAGE_NONE, q->tokens + i * POSITIONS, page);
            assert_memory_equal(&content[q->pages[i]], &c, sizeof c);
        } else if (what == 7)
            drop(p, q);
        check(p, s);
    }
    assert_true(found > 1000 && refused > 1000);
    for (int i = 0; i < SEQUENCES; i++) drop(p, &s[i]);
    assert_int_equal(lk__batch_pages_available(p), PAGES);
    lk__batch_pages_free(p);
}

/* Fills a page with one token for all positions behind `before`. */
static uint32_t put(struct lk__batch_pages *p, uint32_t before, uint32_t token) {
    uint32_t tokens[POSITIONS] = {token, token, token}, page = lk__batch_pages_take(p);
    assert_int_not_equal(page, PAGE_NONE);
    return lk__batch_pages_share(p, 0, before, tokens, page);
}
static bool there(const struct lk__batch_pages *p, uint32_t a, uint32_t b) {
    uint32_t tokens[2 * POSITIONS] = {a, a, a, b, b, b};
    return lk__batch_pages_matching(p, 0, tokens, b ? 2 * POSITIONS : POSITIONS) == (b ? 2 : 1);
}

static void the_least_recently_used_goes_first(void **state) {
    (void)state;
    struct lk__batch_pages *p;
    uint32_t a[2], b[1], again[2], tokens[2 * POSITIONS] = {1, 1, 1, 2, 2, 2};
    OK(lk__batch_pages_create(3, POSITIONS, &p, &test_err));
    a[0] = put(p, PAGE_NONE, 1), a[1] = put(p, a[0], 2), b[0] = put(p, PAGE_NONE, 3);
    lk__batch_pages_drop(p, a, 2);
    lk__batch_pages_drop(p, b, 1);
    assert_int_equal(lk__batch_pages_cached(p), 3);
    assert_true(there(p, 1, 2) && there(p, 3, 0));
    assert_int_equal(lk__batch_pages_match(p, 0, tokens, 2 * POSITIONS, again), 2); /* used again: 3 is the oldest now */
    lk__batch_pages_drop(p, again, 2);
    lk__batch_pages_give_back(p, lk__batch_pages_take(p));
    assert_true(there(p, 1, 2) && !there(p, 3, 0));
    uint32_t x = lk__batch_pages_take(p), y = lk__batch_pages_take(p); /* the free one, then the end of 1, 2 */
    assert_true(there(p, 1, 0) && !there(p, 1, 2));
    assert_int_equal(y, a[1]);
    lk__batch_pages_give_back(p, x);
    lk__batch_pages_give_back(p, y);
    lk__batch_pages_free(p);
}

static int create_and_free(void) {
    struct lk__batch_pages *p;
    int code = lk__batch_pages_create(5, 4, &p, &test_err);
    if (!code) lk__batch_pages_free(p);
    return code;
}
static void no_memory_is_said(void **state) {
    (void)state;
    FAIL_EACH_ALLOCATION(create_and_free());
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_have_one_owner_or_are_shared),
        cmocka_unit_test(the_least_recently_used_goes_first),
        cmocka_unit_test(no_memory_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
