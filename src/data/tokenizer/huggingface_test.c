#include "data/testing.h"
#include "data/tokenizer/internal.h"

static char *json;
static size_t json_size;

static int setup(void **state) {
    (void)state;
    json = read_golden("tokenizer/trained.json", &json_size);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    lk_free(json);
    return 0;
}

/* The golden file with its first `from` replaced; import must fail with code and say part, or succeed (code 0). */
static void edited(const char *from, const char *to, int code, const char *part) {
    const char *at = strstr(json, from);
    struct lk_buf b = LK_BUF_INIT;
    struct lk_tokenizer *t;
    if (!at) fail_msg("the golden file has no %s", from);
    OK(lk_buf_append(&b, json, (size_t)(at - json)));
    OK(lk_buf_append(&b, to, strlen(to)));
    OK(lk_buf_append(&b, at + strlen(from), strlen(at + strlen(from))));
    if (code)
        FAILS(lk_tokenizer_import(b.data, b.size, "t.json", &t, &test_err), code, part);
    else
        OK(lk_tokenizer_import(b.data, b.size, "t.json", &t, &test_err));
    if (code) assert_null(t);
    lk_tokenizer_free(t);
    lk_buf_release(&b);
}

static void what_would_differ_is_refused_by_name(void **state) {
    (void)state;
    edited("\"type\":\"BPE\"", "\"type\":\"WordPiece\"", LK_EUNSUPPORTED, "its model is WordPiece, not BPE");
    edited("\"normalizer\":null", "\"normalizer\":{\"type\":\"NFKC\"}", LK_EUNSUPPORTED, "its normalizer is NFKC");
    edited("\"truncation\":null", "\"truncation\":{\"max_length\":5}", LK_EUNSUPPORTED, "it has a truncation");
    edited("\"padding\":null", "\"padding\":{}", LK_EUNSUPPORTED, "it has a padding");
    edited("\"use_regex\":true", "\"use_regex\":false", LK_EUNSUPPORTED, "use_regex off");
    edited("{\"type\":\"ByteLevel\"", "{\"type\":\"Whitespace\"", LK_EUNSUPPORTED, "its pre_tokenizer is Whitespace");
    edited("\"post_processor\":null", "\"post_processor\":{\"type\":\"TemplateProcessing\"}", LK_EUNSUPPORTED,
           "not tokens around");
    edited("\"post_processor\":null", "\"post_processor\":{\"type\":\"RobertaProcessing\"}", LK_EUNSUPPORTED,
           "its post_processor is RobertaProcessing");
    edited("\"decoder\":null", "\"decoder\":{\"type\":\"Metaspace\"}", LK_EUNSUPPORTED, "its decoder is Metaspace");
    edited("\"dropout\":null", "\"dropout\":0.1", LK_EUNSUPPORTED, "dropout");
    edited("\"continuing_subword_prefix\":null", "\"continuing_subword_prefix\":\"##\"", LK_EUNSUPPORTED,
           "continuing_subword_prefix");
    edited("\"end_of_word_suffix\":null", "\"end_of_word_suffix\":\"</w>\"", LK_EUNSUPPORTED, "end_of_word_suffix");
    edited("\"byte_fallback\":false", "\"byte_fallback\":true", LK_EUNSUPPORTED, "its pre_tokenizer is ByteLevel, which");
    edited("\"single_word\":false", "\"single_word\":true", LK_EUNSUPPORTED, "has single_word on");
    edited("\"version\":\"1.0\"", "\"version\":\"2.0\"", LK_EUNSUPPORTED, "version");
    edited("\"dropout\"", "\"temperature\":1,\"dropout\"", LK_EUNSUPPORTED, "the model has the key \"temperature\"");
    edited("\"version\"", "\"extra\":[],\"version\"", LK_EUNSUPPORTED, "the file has the key \"extra\"");
}

static void what_cannot_matter_is_read(void **state) {
    (void)state;
    edited("\"continuing_subword_prefix\":null", "\"continuing_subword_prefix\":\"\"", 0, "");
    edited("\"dropout\":null", "\"dropout\":0.0", 0, "");
    edited("\"type\":\"BPE\",", "", 0, "");
    edited("\"unk_token\":null", "\"unk_token\":\"<|endoftext|>\"", 0, "");
    edited("\"fuse_unk\":false", "\"fuse_unk\":true", 0, "");
    edited("\"ignore_merges\":false", "\"ignore_merges\":true", 0, "");
    edited("\"post_processor\":null", "\"post_processor\":{\"type\":\"ByteLevel\",\"trim_offsets\":false}", 0, "");
    edited("\"decoder\":null", "\"decoder\":{\"type\":\"ByteLevel\"}", 0, "");
    edited("{", "\xEF\xBB\xBF{", 0, ""); /* a byte order mark */
    edited("\"single_word\":false", "\"single_word\":null", 0, "");
    edited("\"ignore_merges\":false", "\"ignore_merges\":null,\"of_2027\":null", 0, "");
}

static void damage_is_named(void **state) {
    (void)state;
    struct lk_tokenizer *t;
    edited("\"!\":0", "\"!\":-1", LK_EINVAL, "the id of token \"!\"");
    edited("\"!\":0", "\"!\":\"0\"", LK_EINVAL, "the id of token \"!\"");
    edited("\"!\":0", "\"!\":4000000000", LK_EINVAL, "the id of token \"!\"");
    edited("\"!\":0", "\"!\":1", LK_EINVAL, "id 1 is given to both");
    edited("\"!\":0,", "", LK_EINVAL, "no token for byte 0x21");
    edited("\"!\":0", "\"!\":0,\"\xE4\xB8\xAD\":998", LK_EINVAL, "is given to both");
    edited("\"!\":0", "\"!\":0,\"\xE4\xB8\xAD\":1001", LK_EUNSUPPORTED, "a character that stands for no byte");
    edited("\"added_tokens\":[", "\"added_tokens\":[{\"id\":0,\"content\":\"!\"},", LK_EUNSUPPORTED,
           "added token \"!\" is the vocab's token of byte 0x21");
    edited("\"merges\":[", "\"merges\":[[\"a\",\"b\",\"c\"],", LK_EINVAL, "merges[0] is neither");
    edited("\"merges\":[", "\"merges\":[7,", LK_EINVAL, "merges[0] is neither");
    edited("\"merges\":[", "\"merges\":[\"a b c\",", LK_EINVAL, "merges[0] is neither");
    edited("\"merges\":[", "\"merges\":[[\"\",\"b\"],", LK_EINVAL, "merges[0] is neither");
    edited("\"merges\":[", "\"merges\":[\"\xC3\xBF \xC3\xBE\",", LK_EINVAL, "merges[0] needs the token");
    edited("\"merges\":[", "\"merges\":{},\"m\":[", LK_EUNSUPPORTED, "\"m\"");
    edited("\"id\":999", "\"id\":5", LK_EINVAL, "is given to both");
    edited("\"content\":\"<|endoftext|>\"", "\"content\":\"\"", LK_EINVAL, "added_tokens[0] has no content");
    /* found by the fuzzer: one looked for in the text, one in the normalized text */
    edited("\"added_tokens\":[", "\"added_tokens\":[{\"id\":1000,\"content\":\"<|endoftext|>\",\"normalized\":true},",
           LK_EINVAL, "added tokens 1000 and 999 have the same text");
    edited("\"added_tokens\":[", "\"added_tokens\":[{\"id\":1000,\"content\":\" x\",\"lstrip\":true},", LK_EUNSUPPORTED,
           "begins or ends with a space");
    FAILS(lk_tokenizer_import("version https://git-lfs.github.com/spec/v1\n", 43, "t.json", &t, &test_err), LK_EINVAL,
          "t.json is a Git LFS pointer");
    FAILS(lk_tokenizer_import("\n<!DOCTYPE html>", 16, "t.json", &t, &test_err), LK_EINVAL, "t.json is an HTML page");
    static const char *const whole[] = {"",
                                        "null",
                                        "[]",
                                        "{}",
                                        "{\"model\":5}",
                                        "{\"version\":\"1.0\",\"model\":{}}",
                                        "\xFF",
                                        "{\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]},\"version\":\"1.0\"}"};
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++) {
        test_err.message[0] = 0;
        assert_true(lk_tokenizer_import(whole[i], strlen(whole[i]), "t.json", &t, &test_err) < 0);
        assert_non_null(strstr(test_err.message, "t.json"));
    }
    for (size_t n = 0; n < json_size; n += json_size / 97)
        assert_true(lk_tokenizer_import(json, n, "t.json", &t, &test_err) < 0);
}

/* A token that no merges reach: only ignore_merges gives it. */
static void ignore_merges_takes_whole_words(void **state) {
    (void)state;
    const char *at = strstr(json, "\"merges\":["), *end = strchr(at, ']');
    assert_non_null(end);
    char *copy = lk_strdup(json), *first = strstr(copy, "\"merges\":[") + 10;
    bool pair_form = *first == '[';
    char *after = strchr(first, pair_form ? ']' : ',') + (pair_form ? 2 : 1);
    memmove(first, after, strlen(after) + 1); /* the first merge is gone */
    struct lk_tokenizer *t, *whole;
    struct lk_tokens ids = {0};
    OK(lk_tokenizer_import(copy, strlen(copy), "t.json", &t, &test_err));
    char *flag = strstr(copy, "\"ignore_merges\":false");
    memcpy(flag, "\"ignore_merges\":true ", 21);
    OK(lk_tokenizer_import(copy, strlen(copy), "t.json", &whole, &test_err));
    assert_false(t->traits.whole_words);
    assert_true(whole->traits.whole_words);
    uint32_t lost = 0;
    for (uint32_t id = 0; id < t->vocab && !lost; id++) {
        struct lk_bytes b = lk_tokenizer_bytes(t, id);
        ids.count = 0;
        OK(lk_tokenizer_encode(t, b.data, b.size, NULL, &ids, &test_err));
        if (ids.count == 2 && !t->added[id]) lost = id;
    }
    struct lk_bytes b = lk_tokenizer_bytes(t, lost);
    ids.count = 0;
    OK(lk_tokenizer_encode(whole, b.data, b.size, NULL, &ids, &test_err));
    assert_int_equal(ids.count, 1);
    assert_int_equal(ids.ids[0], lost);
    lk_tokens_release(&ids);
    lk_tokenizer_free(t);
    lk_tokenizer_free(whole);
    lk_free(copy);
}

static void both_forms_of_merges_are_equal(void **state) {
    (void)state;
    struct lk_tokenizer *a, *b;
    struct lk_buf out = LK_BUF_INIT, again = LK_BUF_INIT;
    OK(lk_tokenizer_import(json, json_size, "a", &a, &test_err)); /* ["a","b"] */
    OK(lk_tokenizer_export(a, &out, &test_err));                  /* "a b" */
    OK(lk_tokenizer_import(out.data, out.size, "b", &b, &test_err));
    assert_int_equal(a->vocab, b->vocab);
    assert_int_equal(a->traits.end, b->traits.end);
    assert_int_equal(a->merge_count, b->merge_count);
    assert_memory_equal(a->merges, b->merges, a->merge_count * sizeof *a->merges);
    assert_memory_equal(a->bytes, b->bytes, (size_t)a->offset[a->vocab]);
    OK(lk_tokenizer_export(b, &again, &test_err));
    assert_int_equal(out.size, again.size);
    assert_memory_equal(out.data, again.data, out.size);
    lk_tokenizer_free(a);
    lk_tokenizer_free(b);
    lk_buf_release(&out);
    lk_buf_release(&again);
}

/* Ids of one's own, a hole, and special tokens whose text JSON must escape. */
static void ids_are_kept(void **state) {
    (void)state;
    struct lk_buf b = LK_BUF_INIT, out = LK_BUF_INIT;
    struct lk_tokenizer *t, *again;
    OK(lk_buf_printf(&b, "{\"version\":\"1.0\",\"added_tokens\":[{\"id\":2000,\"content\":\"<\\\"\\\\\\n\\u00e9>\","
                         "\"special\":true}],\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"
                         "\"model\":{\"type\":\"BPE\",\"vocab\":{\"ab\":7,\"abc\":3"));
    for (unsigned i = 0; i < 256; i++) {
        uint8_t c[4];
        size_t n = put_utf8(lk__tokenizer_byte_to_char((uint8_t)i), c);
        OK(lk_buf_printf(&b, ",\"%s%.*s\":%u", c[0] == '"' || c[0] == '\\' ? "\\" : "", (int)n, c, 1000 + i));
    }
    OK(lk_buf_printf(&b, "},\"merges\":[\"a b\",[\"ab\",\"c\"]]}}"));
    OK(lk_tokenizer_import(b.data, b.size, "own", &t, &test_err));
    assert_int_equal(lk_tokenizer_vocab(t), 2001);
    assert_int_equal(lk_tokenizer_end(t), UINT32_MAX);
    assert_int_equal(lk_tokenizer_bytes(t, 5).size, 0);
    assert_int_equal(lk_tokenizer_bytes(t, 2000).size, 7);
    struct lk_tokens ids = {0};
    OK(lk_tokenizer_encode(t, "abcabd", 6, NULL, &ids, &test_err));
    assert_int_equal(ids.count, 3);
    assert_int_equal(ids.ids[0], 3);
    assert_int_equal(ids.ids[1], 7);
    assert_int_equal(ids.ids[2], 1000 + 'd');
    OK(lk_tokenizer_export(t, &out, &test_err));
    OK(lk_tokenizer_import(out.data, out.size, "own again", &again, &test_err));
    assert_memory_equal(lk_tokenizer_bytes(again, 2000).data, "<\"\\\n\xC3\xA9>", 7);
    lk_tokenizer_free(again);
    lk_tokenizer_free(t);
    lk_tokens_release(&ids);
    lk_buf_release(&b);
    lk_buf_release(&out);
}

/* Hugging Face's library numbers added tokens itself: 1000 and 1001 where this file says 1100 and 1101. In an exported file
 * they are what they are here. */
static void exported_ids_are_the_librarys(void **state) {
    static const char more[] = ",{\"id\":1100,\"content\":\"<|a|>\",\"special\":true},{\"id\":1101,\"content\":\"<|b|>\"}]";
    (void)state;
    const char *end = strchr(strstr(json, "\"added_tokens\":["), ']');
    struct lk_buf b = LK_BUF_INIT, out = LK_BUF_INIT;
    struct lk_tokenizer *t, *again;
    OK(lk_tokenizer_check_ids(json, json_size, "t.json", &test_err));
    OK(lk_buf_append(&b, json, (size_t)(end - json)));
    OK(lk_buf_append(&b, more, strlen(more)));
    OK(lk_buf_append(&b, end + 1, strlen(end + 1)));
    FAILS(lk_tokenizer_check_ids(b.data, b.size, "t.json", &test_err), LK_EUNSUPPORTED,
          "\"<|a|>\" says that its id is 1100, but the tokenizers library does not go by that number and gives it 1000");
    OK(lk_tokenizer_import(b.data, b.size, "t.json", &t, &test_err));
    assert_int_equal(lk_tokenizer_find(t, "<|b|>", 5), 1101);
    OK(lk_tokenizer_export(t, &out, &test_err));
    OK(lk_tokenizer_check_ids(out.data, out.size, "out", &test_err));
    OK(lk_tokenizer_import(out.data, out.size, "out", &again, &test_err));
    assert_int_equal(lk_tokenizer_find(again, "<|b|>", 5), 1101);
    lk_tokenizer_free(t);
    lk_tokenizer_free(again);
    lk_buf_release(&b);
    lk_buf_release(&out);
}

/* A folder's template puts the token that begins a text in front, and the tokenizer comes back as it was. */
static void a_begin_is_the_folders_not_the_tokenizers(void **state) {
    (void)state;
    struct lk_tokenizer *t, *again;
    struct lk_buf plain = LK_BUF_INIT, begin = LK_BUF_INIT, back = LK_BUF_INIT;
    OK(lk_tokenizer_import(json, json_size, "t.json", &t, &test_err));
    assert_int_equal(lk_tokenizer_text_begin(t), UINT32_MAX);
    OK(lk_tokenizer_export(t, &plain, &test_err));
    OK(lk_tokenizer_export_begin(t, 999, &begin, &test_err));
    assert_non_null(strstr(begin.data, "\"ids\": [999], \"tokens\": [\"<|endoftext|>\"]"));
    OK(lk_tokenizer_import(begin.data, begin.size, "begin", &again, &test_err));
    assert_int_equal(lk_tokenizer_text_begin(again), 999);
    assert_int_equal(lk_tokenizer_begin(again), UINT32_MAX);
    OK(lk_tokenizer_export(again, &back, &test_err));
    assert_string_equal(back.data, plain.data);
    lk_tokenizer_free(t);
    lk_tokenizer_free(again);
    lk_buf_release(&plain);
    lk_buf_release(&begin);
    lk_buf_release(&back);
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    struct lk_tokenizer *t;
    struct lk_buf out = LK_BUF_INIT;
    lk__alloc_fail_at(0);
    OK(lk_tokenizer_import(json, json_size, "t.json", &t, &test_err));
    uint64_t count = lk__alloc_count();
    OK(lk_tokenizer_export(t, &out, &test_err));
    uint64_t exported = lk__alloc_count() - count;
    lk_buf_release(&out);
    for (uint64_t n = 1; n <= count; n += n < 300 || n + 300 > count ? 1 : 97) {
        struct lk_tokenizer *none;
        lk__alloc_fail_at(n);
        int code = lk_tokenizer_import(json, json_size, "t.json", &none, &test_err);
        lk__alloc_fail_at(0);
        if (code == 0) fail_msg("allocation %llu failed and nobody saw it", (unsigned long long)n);
        assert_null(none);
    }
    for (uint64_t n = 1; n <= exported; n++) {
        lk__alloc_fail_at(n);
        FAILS(lk_tokenizer_export(t, &out, &test_err), LK_ENOMEM, "out of memory");
        lk__alloc_fail_at(0);
        lk_buf_release(&out);
    }
    lk_tokenizer_free(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_would_differ_is_refused_by_name),
        cmocka_unit_test(what_cannot_matter_is_read),
        cmocka_unit_test(damage_is_named),
        cmocka_unit_test(ignore_merges_takes_whole_words),
        cmocka_unit_test(both_forms_of_merges_are_equal),
        cmocka_unit_test(ids_are_kept),
        cmocka_unit_test(exported_ids_are_the_librarys),
        cmocka_unit_test(a_begin_is_the_folders_not_the_tokenizers),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
