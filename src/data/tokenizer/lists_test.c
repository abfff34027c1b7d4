/* Tokenizers as the lists of GGUF files: out and back the same, refusals by name. Ids beside llama.cpp: tests/peers. */
#include "data/testing.h"
#include "data/tokenizer/internal.h"
#include "lockstep/base/json.h"

static char directory[64];
static struct lk_store *store;

static int setup(void **state) {
    char url[80];
    (void)state;
    snprintf(directory, sizeof directory, "%s/lk-lists-XXXXXX", temporary_root());
    if (!mkdtemp(directory)) return -1;
    snprintf(url, sizeof url, "file:%s", directory);
    return lk_store_open(url, LK_CREATE, &store, &test_err);
}
static int teardown(void **state) {
    char command[100];
    (void)state;
    lk_store_close(store);
    snprintf(command, sizeof command, "rm -rf %s", directory);
    return system(command);
}

static struct lk_root root_of(const struct lk_tokenizer *t) {
    struct lk_root root;
    OK(lk_tokenizer_save(store, t, &root, &test_err));
    return root;
}

/* Out as lists for some more rows than it has ids, and back. */
static void comes_back(const struct lk_tokenizer *t) {
    struct lk_tokenizer_lists l;
    struct lk_tokenizer *back;
    OK(lk_tokenizer_export_lists(t, lk_tokenizer_vocab(t) + 3, &l, &test_err));
    assert_int_equal(l.types[l.count - 1], LK_LIST_UNUSED);
    assert_false(l.inexact);
    OK(lk_tokenizer_import_lists(&l, "lists", &back, &test_err));
    struct lk_root a = root_of(t), b = root_of(back);
    assert_true(lk_root_equal(&a, &b));
    lk_tokenizer_free(back);
    lk_tokenizer_lists_release(&l);
    FAILS(lk_tokenizer_export_lists(t, lk_tokenizer_vocab(t) - 1, &l, &test_err), LK_EINVAL, "its tokenizer has ids up to");
}

static struct lk_tokenizer *trained(const char *pattern) {
    struct lk_tokenizer *t;
    static const char words[] = "in the beginning, in 1234 the earth was without form 1234 and void; in 12 the deep";
    struct lk_bytes text = lk_bytes(words, sizeof words - 1);
    OK(lk_tokenizer_train_pattern(&text, 1, 277, pattern, NULL, NULL, NULL, &t, &test_err));
    return t;
}

static void bytes_come_back(void **state) {
    static const char *const patterns[] = {"gpt2", "llama3", "qwen2", "smollm"};
    struct lk_tokenizer_lists l;
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        struct lk_tokenizer *t = trained(patterns[i]);
        comes_back(t);
        lk_tokenizer_free(t);
    }
    static const char *const others[] = {"cl100k", "o200k"};
    for (size_t i = 0; i < 2; i++) {
        struct lk_tokenizer *t = trained(others[i]);
        FAILS(lk_tokenizer_export_lists(t, 300, &l, &test_err), LK_EUNSUPPORTED, others[i]);
        lk_tokenizer_free(t);
    }
}

/* SentencePiece's, with every way to make a piece; then with one of them less, which scores can't say. */
static char *characters_json(bool all, const char *before_text) {
    static const char *const merges[] = {"i n", "t h", "h e", "th e", "t he", "\xE2\x96\x81 in", "\xE2\x96\x81 the"};
    struct lk_buf b = LK_BUF_INIT;
    uint32_t id = 3;
    OK(lk_buf_printf(
        &b,
        "{\"version\":\"1.0\",\"added_tokens\":[{\"id\":0,\"content\":\"<unk>\",\"special\":true},"
        "{\"id\":1,\"content\":\"<s>\",\"special\":true},{\"id\":2,\"content\":\"</s>\",\"special\":true}],"
        "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[%s{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},"
        "\"content\":\"\xE2\x96\x81\"}]},\"pre_tokenizer\":null,\"post_processor\":{\"type\":\"TemplateProcessing\","
        "\"single\":[{\"SpecialToken\":{\"id\":\"<s>\",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],"
        "\"special_tokens\":{\"<s>\":{\"id\":\"<s>\",\"ids\":[1],\"tokens\":[\"<s>\"]}}},"
        "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"\xE2\x96\x81\"},"
        "\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}%s]},"
        "\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"vocab\":{\"<unk>\":0,\"<s>\":1,\"</s>\":2",
        before_text, *before_text ? ",{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}" : ""));
    for (unsigned byte = 0; byte < 256; byte++) OK(lk_buf_printf(&b, ",\"<0x%02X>\":%u", byte, id++));
    static const char *const vocab[] = {"in", "th", "he", "the", "\xE2\x96\x81in", "\xE2\x96\x81the", "i",
                                        "n",  "t",  "h",  "e",   "\xE2\x96\x81"};
    for (size_t i = 0; i < sizeof vocab / sizeof *vocab; i++) OK(lk_buf_printf(&b, ",\"%s\":%u", vocab[i], id++));
    OK(lk_buf_printf(&b, "},\"merges\":["));
    bool first = true;
    for (size_t i = 0; i < sizeof merges / sizeof *merges; i++) {
        if (!all && i == 4) continue;
        OK(lk_buf_printf(&b, "%s\"%s\"", first ? "" : ",", merges[i]));
        first = false;
    }
    OK(lk_buf_printf(&b, "]}}"));
    return b.data;
}

static void characters_come_back(void **state) {
    static const char *const before[] = {"", "{\"type\":\"Prepend\",\"prepend\":\"\xE2\x96\x81\"},"};
    struct lk_tokenizer *t;
    struct lk_tokenizer_lists l;
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        char *json = characters_json(true, before[i]);
        OK(lk_tokenizer_import(json, strlen(json), "t.json", &t, &test_err));
        comes_back(t);
        OK(lk_tokenizer_export_lists(t, 300, &l, &test_err));
        assert_true(l.before == 1 && l.end == 2 && l.space_prefix == (i == 1) && l.types[0] == LK_LIST_UNKNOWN);
        assert_true(l.types[3] == LK_LIST_BYTE && l.scores[259] == -1 && l.scores[262] == -4);
        lk_tokenizer_lists_release(&l);
        lk_tokenizer_free(t);
        lk_free(json);
    }
    char *json = characters_json(false, before[0]);
    OK(lk_tokenizer_import(json, strlen(json), "t.json", &t, &test_err));
    FAILS(lk_tokenizer_export_lists(t, 300, &l, &test_err), LK_EUNSUPPORTED, "does not merge tokens");
    lk_tokenizer_free(t);
    lk_free(json);
}

/* What lists cannot say is told, or refused. */
static void what_lists_cannot_say(void **state) {
    size_t size;
    char *json = read_golden("tokenizer/trained.json", &size), *at;
    static const struct {
        const char *from, *to;
        bool inexact;
    } edits[] = {{"\"normalizer\":null", "\"normalizer\":{\"type\":\"NFC\"}", true},
                 {"\"lstrip\":false", "\"lstrip\":true", true},
                 {"\"add_prefix_space\":false", "\"add_prefix_space\":true", false}};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct lk_buf b = LK_BUF_INIT;
        struct lk_tokenizer *t;
        struct lk_tokenizer_lists l;
        assert_non_null(at = strstr(json, edits[i].from));
        OK(lk_buf_printf(&b, "%.*s%s%s", (int)(at - json), json, edits[i].to, at + strlen(edits[i].from)));
        OK(lk_tokenizer_import(b.data, b.size, "t.json", &t, &test_err));
        if (edits[i].inexact) {
            OK(lk_tokenizer_export_lists(t, lk_tokenizer_vocab(t), &l, &test_err));
            assert_true(l.inexact);
            lk_tokenizer_lists_release(&l);
        } else
            FAILS(lk_tokenizer_export_lists(t, lk_tokenizer_vocab(t), &l, &test_err), LK_EUNSUPPORTED,
                  "puts a space in front");
        lk_tokenizer_free(t);
        lk_buf_release(&b);
    }
    lk_free(json);
}

static void bad_lists_are_refused(void **state) {
    struct lk_tokenizer *t = trained("gpt2"), *back;
    struct lk_tokenizer_lists l;
    (void)state;
    OK(lk_tokenizer_export_lists(t, lk_tokenizer_vocab(t), &l, &test_err));
    const struct lk_tokenizer_lists whole = l;
    struct lk_bytes token = l.tokens[5], merge = l.merges[0];
#define REFUSED(code, says, change, undo)                                                                                  \
    do {                                                                                                                   \
        change;                                                                                                            \
        FAILS(lk_tokenizer_import_lists(&l, "x.gguf", &back, &test_err), code, says);                                      \
        assert_non_null(strstr(test_err.message, "x.gguf"));                                                               \
        assert_null(back);                                                                                                 \
        undo;                                                                                                              \
        l = whole;                                                                                                         \
    } while (0)
    REFUSED(LK_EUNSUPPORTED, "tokenizer.ggml.model = \"bert\"", l.model = "bert", );
    REFUSED(LK_EUNSUPPORTED, "tokenizer.ggml.pre = \"default\"", l.pattern = "default", );
    REFUSED(LK_EUNSUPPORTED, "tokenizer.ggml.pre is missing", l.pattern = NULL, );
    REFUSED(LK_EUNSUPPORTED, "token 5 has type 7", l.types[5] = 7, l.types[5] = 1);
    REFUSED(LK_EUNSUPPORTED, "token 5 has type 6", l.types[5] = 6, l.types[5] = 1);
    REFUSED(LK_EINVAL, "tokens 4 and 5 have the same text", l.tokens[5] = l.tokens[4], l.tokens[5] = token);
    REFUSED(LK_EUNSUPPORTED, "token 5 is no text in UTF-8", l.tokens[5] = lk_bytes("\xFF", 1), l.tokens[5] = token);
    REFUSED(LK_EUNSUPPORTED, "token 5 is no text", l.tokens[5] = lk_bytes("a\0b", 3), l.tokens[5] = token);
    REFUSED(LK_EINVAL, "no token for byte", l.types[5] = LK_LIST_UNUSED, l.types[5] = 1);
    REFUSED(LK_EINVAL, "merge 0 is no text", l.merges[0] = lk_bytes("\xC3 a", 3), l.merges[0] = merge);
    REFUSED(LK_EINVAL, "merges[0]", l.merges[0] = lk_bytes("abc", 3), l.merges[0] = merge);
    REFUSED(LK_EUNSUPPORTED, "is not one added token", l.before = 5, );
    REFUSED(LK_EINVAL, "no tokenizer.ggml.scores", (l.model = "llama", l.scores = NULL), );
    REFUSED(LK_EINVAL, "score of token 5", (l.model = "llama", l.scores[5] = 1.0f / 0.0f), l.scores[5] = 0);
    OK(lk_tokenizer_import_lists(&l, "x.gguf", &back, &test_err));
    lk_tokenizer_free(back);
    json_set_alloc_funcs(lk_alloc, lk_free);
    FAIL_EACH_ALLOCATION(lk_tokenizer_import_lists(&l, "x.gguf", &back, &test_err));
    lk_tokenizer_free(back);
    lk_tokenizer_lists_release(&l);
    FAIL_EACH_ALLOCATION(lk_tokenizer_export_lists(t, lk_tokenizer_vocab(t), &l, &test_err));
    json_set_alloc_funcs(malloc, free);
    lk_tokenizer_lists_release(&l);
    lk_tokenizer_free(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_come_back),
        cmocka_unit_test(characters_come_back),
        cmocka_unit_test(what_lists_cannot_say),
        cmocka_unit_test(bad_lists_are_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
