#include "data/testing.h"
#include "data/tokenizer/internal.h"

static struct lk_buf bytes; /* the 256 bytes as a rank file's lines */

static void put_line(struct lk_buf *b, const char *token, size_t size, unsigned long rank) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t *p = (const uint8_t *)token;
    for (size_t i = 0; i < size; i += 3) {
        size_t n = size - i < 3 ? size - i : 3;
        uint32_t x = (uint32_t)p[i] << 16 | (n > 1 ? (uint32_t)p[i + 1] << 8 : 0) | (n > 2 ? p[i + 2] : 0);
        for (size_t k = 0; k < 4; k++) OK(lk_buf_append(b, k <= n ? &digits[x >> (18 - 6 * k) & 63] : "=", 1));
    }
    OK(lk_buf_printf(b, " %lu\n", rank));
}

static int setup(void **state) {
    (void)state;
    for (unsigned i = 0; i < 256; i++) put_line(&bytes, &(char){(char)i}, 1, i);
    return 0;
}
static int teardown(void **state) {
    (void)state;
    lk_buf_release(&bytes);
    return 0;
}

static int import_lines(const char *lines, const char *pattern, struct lk_tokenizer **t) {
    struct lk_buf file = LK_BUF_INIT;
    OK(lk_buf_append(&file, bytes.data, bytes.size));
    OK(lk_buf_append(&file, lines, strlen(lines)));
    int code = lk_tokenizer_import_ranks(file.data, file.size, "r.tiktoken", pattern, NULL, 0, NULL, t, &test_err);
    lk_buf_release(&file);
    return code;
}

static void damage_is_named_with_its_line(void **state) {
    (void)state;
    static const struct {
        const char *lines, *says;
    } wrong[] = {
        {"YWI=256\n", "r.tiktoken, line 257: it is not base64"},
        {"\n\nYWI= 256\nYW-= 257\n", "r.tiktoken, line 260: the token is no base64"},
        {"YWJ= 256\n", "line 257: the token is no base64"}, /* bits that stand for nothing */
        {"YW=I 256\n", "line 257: the token is no base64"},
        {"YWI 256\n", "line 257: the token is no base64"},
        {"==== 256\n", "line 257: the token is no base64"},
        {" 256\n", "line 257: the token is no base64"},
        {"YWI= \n", "line 257: the rank is no number"},
        {"YWI= -1\n", "line 257: the rank is no number"},
        {"YWI= 256 \n", "line 257: the rank is no number"},
        {"YWI= 99999999999999999999\n", "line 257: the rank is no number"},
        {"YWI= 16777216\n", "line 257: the rank is above"},
        {"YWI= 7\n", "line 257: rank 7 stands in line 8 already"},
        {"YWI= 256\nYWJj 300\nYWI= 280\n", "line 259: the token stands in line 257 already"},
    };
    struct lk_tokenizer *t;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        FAILS(import_lines(wrong[i].lines, "cl100k", &t), LK_EINVAL, wrong[i].says);
        assert_null(t);
    }
    FAILS(import_lines("", "cl100", &t), LK_EINVAL, "there is no pattern cl100; there are gpt2");
    FAILS(lk_tokenizer_import_ranks("YWI= 0\n", 7, "r", "gpt2", NULL, 0, NULL, &t, &test_err), LK_EINVAL,
          "r: a vocabulary of 1");
    struct lk_buf file = LK_BUF_INIT;
    char long_token[1025];
    memset(long_token, 'a', sizeof long_token);
    put_line(&file, long_token, 1025, 0);
    FAILS(lk_tokenizer_import_ranks(file.data, file.size, "r", "gpt2", NULL, 0, NULL, &t, &test_err), LK_EINVAL,
          "more than 1024");
    lk_buf_release(&file);
    struct lk_special at = {lk_bytes("<|x|>", 5), 7};
    FAILS(lk_tokenizer_import_ranks(bytes.data, bytes.size, "r", "gpt2", &at, 1, NULL, &t, &test_err), LK_EINVAL,
          "its id 7 is");
    at.id = 300;
    FAILS(lk_tokenizer_import_ranks(bytes.data, bytes.size, "r", "gpt2", &at, 1, "<|y|>", &t, &test_err), LK_EINVAL,
          "\"<|y|>\"");
    OK(lk_tokenizer_import_ranks(bytes.data, bytes.size, "r", "gpt2", &at, 1, "<|x|>", &t, &test_err));
    assert_int_equal(lk_tokenizer_end(t), 300);
    assert_int_equal(lk_tokenizer_find(t, "<|x|>", 5), 300);
    assert_true(lk_tokenizer_is_special(t, 300) && !lk_tokenizer_is_special(t, 299));
    lk_tokenizer_free(t);
    FAILS(lk_tokenizer_import_ranks("<html><body>", 12, "r", "gpt2", NULL, 0, NULL, &t, &test_err), LK_EINVAL,
          "r is an HTML page");
}

/* A byte order mark in front, lines that end in \r\n: the same tokenizer. */
static void files_of_windows_are_read(void **state) {
    (void)state;
    struct lk_buf file = LK_BUF_INIT;
    struct lk_tokenizer *t;
    OK(lk_buf_append(&file, "\xEF\xBB\xBF", 3));
    for (size_t i = 0; i < bytes.size; i++)
        OK(lk_buf_append(&file, bytes.data[i] == '\n' ? "\r\n" : &bytes.data[i], bytes.data[i] == '\n' ? 2 : 1));
    OK(lk_tokenizer_import_ranks(file.data, file.size, "r", "gpt2", NULL, 0, NULL, &t, &test_err));
    assert_int_equal(lk_tokenizer_vocab(t), 256);
    lk_tokenizer_free(t);
    lk_buf_release(&file);
}

/* The vocab of an exported file holds a special token only where its number gives it its id, and never one that is a word.
 */
static void holes_go_out_to_the_library(void **state) {
    (void)state;
    struct lk_special special = {lk_bytes("<|x|>", 5), 256};
    struct lk_tokenizer *t;
    for (int hole = 0; hole < 2; hole++) {
        struct lk_buf out = LK_BUF_INIT;
        special.id = hole ? 300 : 256;
        OK(lk_tokenizer_import_ranks(bytes.data, bytes.size, "r", "gpt2", &special, 1, NULL, &t, &test_err));
        OK(lk_tokenizer_export(t, &out, &test_err));
        OK(lk_tokenizer_check_ids(out.data, out.size, "out", &test_err));
        assert_int_equal(strstr(out.data, "\"<|x|>\": 300") != NULL, hole);
        lk_tokenizer_free(t);
        lk_buf_release(&out);
    }
    struct lk_buf out = LK_BUF_INIT;
    special.text = lk_bytes("word", 4);
    OK(lk_tokenizer_import_ranks(bytes.data, bytes.size, "r", "gpt2", &special, 1, NULL, &t, &test_err));
    FAILS(lk_tokenizer_export(t, &out, &test_err), LK_EUNSUPPORTED, "the added token \"word\" is one word");
    lk_tokenizer_free(t);
    lk_buf_release(&out);
}

/* The definition: any two neighbours whose bytes are a token, the lowest rank first, leftmost first; a word that is a token
 * is that token. */
#define TOKENS 60
struct vocabulary {
    char text[TOKENS][9];
    uint32_t rank[TOKENS];
    size_t count;
};

static uint32_t rank_of(const struct vocabulary *v, const char *p, size_t size) {
    if (size == 1) return (uint8_t)*p;
    for (size_t i = 0; i < v->count; i++)
        if (strlen(v->text[i]) == size && !memcmp(v->text[i], p, size)) return v->rank[i];
    return LK__NO_ID;
}

static size_t encode_slowly(const struct vocabulary *v, const char *p, size_t size, uint32_t *ids) {
    size_t begin[64], n = size;
    ids[0] = rank_of(v, p, size);
    if (ids[0] != LK__NO_ID) return 1;
    for (size_t i = 0; i <= size; i++) begin[i] = i;
    for (;;) {
        uint32_t lowest = LK__NO_ID;
        size_t best = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            uint32_t rank = rank_of(v, p + begin[i], begin[i + 2] - begin[i]);
            if (rank < lowest) lowest = rank, best = i;
        }
        if (lowest == LK__NO_ID) break;
        for (size_t i = best + 1; i < n; i++) begin[i] = begin[i + 1];
        n--;
    }
    for (size_t i = 0; i < n; i++) ids[i] = rank_of(v, p + begin[i], begin[i + 1] - begin[i]);
    return n;
}

static void random_files_give_tiktokens_ids(void **state) {
    (void)state;
    random_begin("random_files_give_tiktokens_ids");
    for (int round = 0; round < (LK_SANITIZED ? 200 : 2000); round++) {
        struct vocabulary v = {.count = 0};
        struct lk_buf lines = LK_BUF_INIT;
        struct lk_tokenizer *t;
        size_t letters = 2 + random_below(3), want_count = 1 + random_below(TOKENS);
        for (size_t tries = 0; v.count < want_count && tries < 400; tries++) {
            char *text = v.text[v.count];
            size_t n = 2 + random_below(7);
            for (size_t i = 0; i < n; i++) text[i] = (char)('a' + random_below(letters));
            text[n] = 0;
            if (rank_of(&v, text, n) == LK__NO_ID) v.rank[v.count++] = LK__NO_ID - 1;
        }
        for (size_t i = 0; i < v.count; i++) v.rank[i] = 256 + (uint32_t)i;
        for (size_t i = v.count; i > 1; i--) { /* any order: most of these no training would make */
            size_t k = random_below(i);
            uint32_t x = v.rank[i - 1];
            v.rank[i - 1] = v.rank[k];
            v.rank[k] = x;
        }
        for (size_t i = 0; i < v.count; i++) put_line(&lines, v.text[i], strlen(v.text[i]), v.rank[i]);
        OK(lk_buf_append(&lines, "", 1));
        OK(import_lines(lines.data, "gpt2", &t));
        for (int i = 0; i < 40; i++) {
            char word[60];
            uint32_t want[60];
            struct lk_tokens have = {0};
            size_t n = 1 + random_below(sizeof word);
            for (size_t k = 0; k < n; k++) word[k] = (char)('a' + random_below(letters));
            size_t count = encode_slowly(&v, word, n, want);
            OK(lk_tokenizer_encode(t, word, n, NULL, &have, &test_err));
            if (have.count != count || memcmp(have.ids, want, count * sizeof *want))
                fail_msg("%.*s has other ids", (int)n, word);
            lk_tokens_release(&have);
        }
        lk_tokenizer_free(t);
        lk_buf_release(&lines);
    }
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    struct lk_tokenizer *t;
    struct lk_special end = {lk_bytes("</s>", 4), 2000}; /* the list of tokens grows */
    lk__alloc_fail_at(0);
    OK(lk_tokenizer_import_ranks(bytes.data, bytes.size, "r", "o200k", &end, 1, NULL, &t, &test_err));
    uint64_t count = lk__alloc_count();
    assert_int_equal(lk_tokenizer_end(t), 2000);
    lk_tokenizer_free(t);
    for (uint64_t n = 1; n <= count; n++) {
        lk__alloc_fail_at(n);
        FAILS(lk_tokenizer_import_ranks(bytes.data, bytes.size, "r", "o200k", &end, 1, NULL, &t, &test_err), LK_ENOMEM,
              "out of memory");
        lk__alloc_fail_at(0);
        assert_null(t);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_of_windows_are_read),     cmocka_unit_test(holes_go_out_to_the_library),
        cmocka_unit_test(damage_is_named_with_its_line), cmocka_unit_test(random_files_give_tiktokens_ids),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
