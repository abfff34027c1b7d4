/* Masks against a recogniser that shares nothing with the engine; the way back; copies; threads; faults. */
#include "lockstep/base/thread.h"
#include "serve/grammar/recogniser.h"
#include "serve/grammar/testing.h"

static struct lk_tokenizer *tokenizer; /* of the alphabet's characters, in pieces of any length */
static struct lk_vocabulary *vocabulary;
static uint32_t end;

static struct lk_tokenizer *of_alphabet(struct test_random *r, uint32_t merges) {
    struct lk_buf text = LK_BUF_INIT;
    char c[4];
    for (int i = 0; i < 4000; i++) {
        OK(lk_buf_append(&text, c, utf8(alphabet[test_random_below(r, 6)], c)));
        if (test_random_below(r, 9) == 0) OK(lk_buf_append(&text, " ", 1));
    }
    struct lk_tokenizer *t = test_tokenizer(text.data, text.size, merges);
    lk_buf_release(&text);
    return t;
}
static int setup(void **state) {
    (void)state;
    struct test_random r = {7, 0};
    test_bytes_open();
    tokenizer = of_alphabet(&r, 120);
    OK(lk_vocabulary_create(tokenizer, NULL, 0, NULL, &vocabulary, &test_err));
    end = lk_tokenizer_end(tokenizer);
    return 0;
}
static int teardown(void **state) {
    (void)state;
    test_bytes_close();
    lk_vocabulary_free(vocabulary);
    lk_tokenizer_free(tokenizer);
    return 0;
}

static bool has(const uint64_t *bits, uint32_t id) {
    return bits[id / 64] >> id % 64 & 1;
}

/* Every token's bit: the text so far and its bytes may become a text; nothing is asked of bytes that can't come. */
static void check_mask(const struct random_grammar *g, const struct lk_tokenizer *t, const struct lk_buf *text,
                       const uint64_t *bits, const char *grammar) {
    struct lk_buf longer = LK_BUF_INIT;
    char byte[256] = {0};
    for (uint32_t id = 0; id < lk_tokenizer_vocab(t); id++) {
        if (id == lk_tokenizer_end(t)) continue;
        struct lk_bytes b = lk_tokenizer_bytes(t, id);
        uint8_t first = *(const uint8_t *)b.data;
        if (text->size + b.size > LONG) continue;
        longer.size = 0;
        OK(lk_buf_append(&longer, text->data, text->size));
        OK(lk_buf_append(&longer, &first, 1));
        if (!byte[first]) byte[first] = recognise(g, longer.data, longer.size);
        char is = byte[first];
        if (b.size > 1 && is != 'n') {
            OK(lk_buf_append(&longer, (const char *)b.data + 1, b.size - 1));
            is = recognise(g, longer.data, longer.size);
        }
        if (has(bits, id) != (is != 'n'))
            fail_msg("after \"%.*s\" token \"%.*s\" is %s, yet '%c', of\n%s", (int)text->size, text->data, (int)b.size,
                     (const char *)b.data, has(bits, id) ? "allowed" : "forbidden", is, grammar);
    }
    lk_buf_release(&longer);
}

/* One of the tokens of a mask; UINT32_MAX: there is none. */
static uint32_t any_of(struct test_random *r, const uint64_t *bits, uint32_t tokens) {
    uint32_t count = 0, chosen = UINT32_MAX;
    for (uint32_t id = 0; id < tokens; id++)
        if (has(bits, id) && test_random_below(r, ++count) == 0) chosen = id;
    return chosen;
}

static void walk(struct test_random *r, const struct random_grammar *g, struct lk_grammar *grammar, const char *printed) {
    struct lk_matcher *m;
    struct lk_buf text = LK_BUF_INIT;
    uint64_t bits[16];
    OK(lk_matcher_create(grammar, vocabulary, &m, &test_err));
    for (int step = 0; step < 7; step++) {
        OK(lk_matcher_mask(m, bits, &test_err));
        char is = recognise(g, text.data, text.size);
        assert_int_equal(has(bits, end), is == 'y');
        assert_int_equal(lk_matcher_complete(m), is == 'y');
        check_mask(g, tokenizer, &text, bits, printed);
        bits[end / 64] &= ~((uint64_t)1 << end % 64);
        uint32_t id = any_of(r, bits, lk_tokenizer_vocab(tokenizer));
        assert_int_equal(id == UINT32_MAX, lk_matcher_done(m));
        if (id == UINT32_MAX) break;
        struct lk_bytes b = lk_tokenizer_bytes(tokenizer, id);
        if (text.size + b.size > LONG - 16) break;
        OK(lk_matcher_accept(m, id, &test_err));
        OK(lk_buf_append(&text, b.data, b.size));
    }
    lk_matcher_free(m);
    lk_buf_release(&text);
}

static void masks_are_those_of_brute_force(void **state) {
    (void)state;
    struct test_random r = test_random_open("masks_are_those_of_brute_force");
    const char *wanted = getenv("LOCKSTEP_GRAMMARS");
    int walked = 0, grammars = wanted ? atoi(wanted) : 12;
    for (int i = 0; i < grammars; i++) {
        struct random_grammar g;
        struct lk_grammar *grammar;
        struct lk_buf text = LK_BUF_INIT;
        random_grammar(&g, &r);
        print_grammar(&g, &text);
        if (lk_grammar_from_gbnf(text.data, text.size, &grammar, &test_err)) {
            if (recognise(&g, "", 0) != 'n') fail_msg("%s\n%s", test_err.message, text.data);
        } else {
            if (recognise(&g, "", 0) == 'n') fail_msg("there is no text of\n%s", text.data);
            for (int k = 0; k < 2; k++) walk(&r, &g, grammar, text.data);
            walked++;
            lk_grammar_free(grammar);
        }
        lk_buf_release(&text);
    }
    assert_true(walked > grammars / 4);
}

/* --- the way back ------------------------------------------------------------------------------------------ */

static const char nested[] =
    "root ::= \"(\" root \")\" root | [a-c\xc3\xa9]{0,3} l\nl ::= \"a\" | \"a\" \"b\" l | l \"c\"\n";

static void rollback_and_copies_are_as_if_nothing_had_been(void **state) {
    (void)state;
    struct test_random r = test_random_open("rollback_and_copies_are_as_if_nothing_had_been");
    struct lk_grammar *g;
    struct lk_matcher *m, *copy;
    static uint64_t masks[601][8];
    uint64_t bits[8];
    uint32_t count = 0, ids[600];
    OK(lk_grammar_from_gbnf(nested, sizeof nested - 1, &g, &test_err));
    OK(lk_matcher_create(g, test_bytes, &m, &test_err));
    size_t bytes = lk_vocabulary_words(test_bytes) * 8;
    OK(lk_matcher_mask(m, masks[0], &test_err));
    for (int step = 0; step < 4000; step++) {
        if (test_random_below(&r, 3) || !count) {
            uint32_t id = any_of(&r, masks[count], lk_vocabulary_tokens(test_bytes));
            if (test_random_below(&r, 6) == 0)
                FAILS(lk_matcher_accept(m, test_byte_id['z'], &test_err), LK_EINVAL, "may not come");
            if (id == UINT32_MAX || count == 600) continue;
            OK(lk_matcher_accept(m, id, &test_err));
            ids[count++] = id;
            OK(lk_matcher_mask(m, masks[count], &test_err));
        } else {
            uint32_t most = lk_matcher_undo(m), back = test_random_below(&r, most + 1);
            assert_true(most >= (count < LK_MATCHER_UNDO ? count : LK_MATCHER_UNDO));
            FAILS(lk_matcher_rollback(m, most + 1, &test_err), LK_EINVAL, "can't be taken back");
            if (back > 3 && test_random_below(&r, 4)) back %= 4;
            OK(lk_matcher_rollback(m, back, &test_err));
            count -= back;
        }
        OK(lk_matcher_mask(m, bits, &test_err));
        assert_memory_equal(bits, masks[count], bytes);
        if (step % 50) continue;
        OK(lk_matcher_copy(m, &copy, &test_err));
        OK(lk_matcher_mask(copy, bits, &test_err));
        assert_memory_equal(bits, masks[count], bytes);
        uint32_t id = any_of(&r, bits, lk_vocabulary_tokens(test_bytes));
        if (id != UINT32_MAX) OK(lk_matcher_accept(copy, id, &test_err));
        lk_matcher_free(copy);
        OK(lk_matcher_create(g, test_bytes, &copy, &test_err)); /* anew, from all tokens */
        for (uint32_t i = 0; i < count; i++) OK(lk_matcher_accept(copy, ids[i], &test_err));
        OK(lk_matcher_mask(copy, bits, &test_err));
        assert_memory_equal(bits, masks[count], bytes);
        lk_matcher_free(copy);
    }
    lk_matcher_free(m);
    lk_grammar_free(g);
}

static void an_end_token_ends_and_can_be_taken_back(void **state) {
    (void)state;
    struct lk_grammar *g;
    struct lk_matcher *m;
    uint64_t bits[16], zero[16] = {0};
    OK(lk_grammar_from_gbnf("root ::= \"a\"+", 13, &g, &test_err));
    OK(lk_matcher_create(g, test_bytes, &m, &test_err));
    FAILS(lk_matcher_accept(m, test_end, &test_err), LK_EINVAL, "does not allow it here");
    FAILS(lk_matcher_accept(m, 70000, &test_err), LK_EINVAL, "token 70000 may not come");
    OK(lk_matcher_accept(m, test_byte_id['a'], &test_err));
    assert_true(lk_matcher_complete(m) && !lk_matcher_done(m));
    OK(lk_matcher_accept(m, test_end, &test_err));
    OK(lk_matcher_mask(m, bits, &test_err));
    assert_memory_equal(bits, zero, lk_vocabulary_words(test_bytes) * 8);
    FAILS(lk_matcher_accept(m, test_byte_id['a'], &test_err), LK_EINVAL, "the text has ended");
    assert_true(lk_matcher_done(m));
    OK(lk_matcher_rollback(m, 1, &test_err));
    assert_false(lk_matcher_done(m));
    OK(lk_matcher_accept(m, test_byte_id['a'], &test_err));
    lk_matcher_free(m);
    lk_grammar_free(g);
    FAILS(lk_vocabulary_create(tokenizer, (const uint32_t[]){99999}, 1, NULL, &(struct lk_vocabulary *){NULL}, &test_err),
          LK_EINVAL, "end token 99999");
}

/* Long texts do not keep what nobody can return to. */
static void long_texts_take_little_memory(void **state) {
    (void)state;
    static const char list[] = "root ::= l\nl ::= \"a\" | \"a\" \",\" l | m\nm ::= m \"b\" | \"(\" l \")\"\n";
    struct lk_grammar *g;
    struct lk_matcher *m;
    OK(lk_grammar_from_gbnf(list, sizeof list - 1, &g, &test_err));
    OK(lk_matcher_create(g, test_bytes, &m, &test_err));
    uint64_t peak = 0;
    for (int i = 0; i < 200000; i++) {
        OK(lk_matcher_accept(m, test_byte_id[i % 2 ? ',' : 'a'], &test_err));
        if (i == 20000) peak = lk_memory_peak_bytes();
    }
    if (!LK_ASAN && !LK_TSAN) assert_true(lk_memory_peak_bytes() < peak + (2 << 20)); /* they keep what was freed */
    lk_matcher_free(m);
    lk_grammar_free(g);
}

/* --- vocabularies, threads, faults --------------------------------------------------------------------------- */

static void a_grammar_knows_its_size(void **state) {
    (void)state;
    struct lk_grammar *g, *large;
    struct lk_matcher *m;
    uint64_t bits[16];
    static const char small[] = "root ::= [a-z]{1,20}", more[] = "root ::= [a-z]{1,2000}";
    OK(lk_grammar_from_gbnf(small, sizeof small - 1, &g, &test_err));
    OK(lk_grammar_from_gbnf(more, sizeof more - 1, &large, &test_err));
    assert_true(lk_grammar_bytes(large) > 50 * lk_grammar_bytes(g) && lk_grammar_bytes(large) < 1 << 20);
    size_t before = lk_grammar_bytes(g);
    OK(lk_matcher_create(g, vocabulary, &m, &test_err));
    size_t with = lk_grammar_bytes(g);
    OK(lk_matcher_mask(m, bits, &test_err));
    assert_true(with > before && lk_grammar_bytes(g) > with);
    lk_matcher_free(m);
    lk_grammar_free(g);
    lk_grammar_free(large);
}

static void bytes_that_no_token_has_are_an_error(void **state) {
    (void)state;
    struct lk_grammar *g;
    struct lk_matcher *m;
    struct lk_vocabulary *v;
    uint64_t bits[16];
    OK(lk_grammar_from_gbnf("root ::= \"az\"", 13, &g, &test_err));
    /* z's token ends texts here, so no token of texts has its byte */
    struct lk_tokenizer *t = test_tokenizer("abc", 3, 0);
    OK(lk_vocabulary_create(t, &test_byte_id['z'], 1, NULL, &v, &test_err));
    OK(lk_matcher_create(g, v, &m, &test_err));
    OK(lk_matcher_mask(m, bits, &test_err));
    OK(lk_matcher_accept(m, test_byte_id['a'], &test_err));
    assert_null(lk_matcher_stuck(m));
    FAILS(lk_matcher_mask(m, bits, &test_err), LK_EUNSUPPORTED, "no token for the bytes");
    assert_non_null(strstr(lk_matcher_stuck(m), "no token for the bytes"));
    lk_matcher_free(m);
    lk_vocabulary_free(v);
    lk_tokenizer_free(t);
    lk_grammar_free(g);
}

struct job {
    struct lk_grammar *grammar;
    uint64_t masks[40][16];
};
static void follow(void *arg, size_t tile, int thread) {
    struct job *job = (struct job *)arg + tile;
    struct test_random r = {5, 0};
    struct lk_matcher *m;
    struct lk_err err;
    (void)thread;
    if (lk_matcher_create(job->grammar, vocabulary, &m, &err)) abort();
    for (int i = 0; i < 40; i++) {
        if (lk_matcher_mask(m, job->masks[i], &err)) abort();
        uint32_t id = any_of(&r, job->masks[i], lk_vocabulary_tokens(vocabulary));
        if (id == UINT32_MAX || lk_matcher_accept(m, id, &err)) break;
    }
    lk_matcher_free(m);
}
static void threads_share_a_grammar(void **state) {
    (void)state;
    struct lk_pool *pool;
    struct job *jobs = lk_calloc(16, sizeof *jobs);
    struct lk_grammar *g;
    OK(lk_pool_open(4, &pool, &test_err));
    for (int round = 0; round < 20; round++) {
        OK(lk_grammar_from_gbnf(nested, sizeof nested - 1, &g, &test_err));
        for (int i = 0; i < 16; i++) jobs[i].grammar = g;
        lk_pool_run(pool, 16, follow, jobs);
        for (int i = 1; i < 16; i++) assert_memory_equal(jobs[i].masks, jobs[0].masks, sizeof jobs->masks);
        lk_grammar_free(g);
    }
    lk_pool_close(pool);
    lk_free(jobs);
}

static int vocabulary_and_way(void) {
    struct lk_vocabulary *v = NULL;
    struct lk_matcher *m = NULL, *copy = NULL;
    struct lk_grammar *g = NULL;
    uint64_t bits[16];
    int code = lk_grammar_from_gbnf(nested, sizeof nested - 1, &g, &test_err);
    if (!code) code = lk_vocabulary_create(tokenizer, NULL, 0, NULL, &v, &test_err);
    if (!code) code = lk_matcher_create(g, v, &m, &test_err);
    for (int i = 0; i < 150 && !code; i++) {
        code = lk_matcher_mask(m, bits, &test_err);
        for (int again = 0; again < 2 && !code; again++) {
            if (again) code = lk_matcher_rollback(m, 1, &test_err);
            if (!code) code = lk_matcher_accept(m, test_byte_id['('], &test_err);
        }
    }
    if (!code) code = lk_matcher_copy(m, &copy, &test_err);
    lk_matcher_free(copy);
    lk_matcher_free(m);
    lk_vocabulary_free(v);
    lk_grammar_free(g);
    return code;
}
static void no_memory_is_said(void **state) {
    (void)state;
    /* test_bytes' ids are those of bytes in `tokenizer` too. Forgetting goes on without memory: not every failure is one.
     */
    for (uint64_t nth = 1;; nth++) {
        lk__alloc_fail_at(nth);
        int code = vocabulary_and_way();
        uint64_t made = lk__alloc_count();
        lk__alloc_fail_at(0);
        if (made < nth) {
            assert_int_equal(code, 0);
            break;
        }
        assert_true(code == 0 || code == LK_ENOMEM);
    }
}

/* A failed call changes nothing: the same token is taken afterwards, and masks are what they would have been. */
static void a_failed_call_changes_nothing(void **state) {
    (void)state;
    struct lk_grammar *g;
    struct lk_matcher *m, *other;
    uint64_t bits[16], wanted[16];
    int failed = 0;
    OK(lk_grammar_from_gbnf(nested, sizeof nested - 1, &g, &test_err));
    OK(lk_matcher_create(g, vocabulary, &m, &test_err));
    OK(lk_matcher_create(g, vocabulary, &other, &test_err));
    for (int i = 0; i < 300; i++) {
        OK(lk_matcher_accept(other, test_byte_id['('], &test_err));
        OK(lk_matcher_mask(other, wanted, &test_err));
        lk__alloc_fail_at(1);
        int code = lk_matcher_accept(m, test_byte_id['('], &test_err);
        lk__alloc_fail_at(0);
        failed += code != 0;
        if (code) OK(lk_matcher_accept(m, test_byte_id['('], &test_err));
        OK(lk_matcher_mask(m, bits, &test_err));
        assert_memory_equal(bits, wanted, lk_vocabulary_words(vocabulary) * 8);
    }
    assert_true(failed > 3);
    lk_matcher_free(m);
    lk_matcher_free(other);
    lk_grammar_free(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(masks_are_those_of_brute_force),
        cmocka_unit_test(rollback_and_copies_are_as_if_nothing_had_been),
        cmocka_unit_test(an_end_token_ends_and_can_be_taken_back),
        cmocka_unit_test(long_texts_take_little_memory),
        cmocka_unit_test(a_grammar_knows_its_size),
        cmocka_unit_test(bytes_that_no_token_has_are_an_error),
        cmocka_unit_test(threads_share_a_grammar),
        cmocka_unit_test(no_memory_is_said),
        cmocka_unit_test(a_failed_call_changes_nothing),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
