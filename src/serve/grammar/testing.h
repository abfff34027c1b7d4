/* What the tests of grammars share: texts fed byte by byte, and vocabularies. */
#ifndef LOCKSTEP_SERVE_GRAMMAR_TESTING_H
#define LOCKSTEP_SERVE_GRAMMAR_TESTING_H
#include "base/testing.h"
#include "lockstep/serve/grammar.h"

/* Bytes, `merges` pairs of what this text has, and an end token. */
static inline struct lk_tokenizer *test_tokenizer(const char *text, size_t size, uint32_t merges) {
    struct lk_bytes b = lk_bytes(text, size);
    struct lk_tokenizer *t = NULL;
    for (; lk_tokenizer_train(&b, 1, 257 + merges, NULL, NULL, NULL, &t, &test_err); merges--) assert_true(merges > 0);
    return t;
}
static struct lk_vocabulary *test_bytes; /* of single bytes */
static uint32_t test_byte_id[256], test_end;

static inline void test_bytes_open(void) {
    struct lk_tokenizer *t = test_tokenizer("abc", 3, 0);
    OK(lk_vocabulary_create(t, NULL, 0, NULL, &test_bytes, &test_err));
    test_end = lk_tokenizer_end(t);
    for (uint32_t id = 0; id < lk_tokenizer_vocab(t); id++)
        if (id != test_end) test_byte_id[*(const uint8_t *)lk_tokenizer_bytes(t, id).data] = id;
    lk_tokenizer_free(t);
}
static inline void test_bytes_close(void) {
    lk_vocabulary_free(test_bytes);
}
static inline int test_bytes_setup(void **state) {
    (void)state;
    test_bytes_open();
    return 0;
}
static inline int test_bytes_teardown(void **state) {
    (void)state;
    test_bytes_close();
    return 0;
}

/* How a text stands in a grammar: 'y' it is one, 'p' it may become one, 'n' neither. */
static inline char test_text(struct lk_grammar *g, const char *text, size_t size) {
    struct lk_matcher *m;
    char answer = 0;
    OK(lk_matcher_create(g, test_bytes, &m, &test_err));
    for (size_t i = 0; i < size && !answer; i++)
        if (lk_matcher_accept(m, test_byte_id[(uint8_t)text[i]], &test_err)) answer = 'n';
    if (!answer) answer = lk_matcher_complete(m) ? 'y' : 'p';
    lk_matcher_free(m);
    return answer;
}
#define TEXT_IS(g, text, want)                                                                                             \
    do {                                                                                                                   \
        char is_ = test_text(g, text, strlen(text));                                                                       \
        if (is_ != (want)) fail_msg("%s: '%c', not '%c'", text, is_, want);                                                \
    } while (0)

#endif
