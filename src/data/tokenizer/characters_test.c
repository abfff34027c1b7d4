/* SentencePiece's BPE: ids and texts as Hugging Face's library gives them (tests/golden/tokenizer/make_characters.py),
 * exported, stored, cut, on pools, with damaged text, and with every allocation failing. */
#include "data/testing.h"
#include "data/tokenizer/internal.h"

static json_t *forms;
static struct lk_store *store;
static char directory[64];

static int setup(void **state) {
    (void)state;
    size_t size;
    char *text = read_golden("tokenizer/characters.json", &size), url[80];
    forms = lk_json_parse(text, size, "characters.json", &test_err);
    lk_free(text);
    snprintf(directory, sizeof directory, "%s/lk-characters-XXXXXX", temporary_root());
    if (!forms || !mkdtemp(directory)) return -1;
    snprintf(url, sizeof url, "file:%s", directory);
    return lk_store_open(url, LK_CREATE, &store, &test_err);
}
static int teardown(void **state) {
    (void)state;
    json_decref(forms);
    lk_store_close(store);
    char command[100];
    snprintf(command, sizeof command, "rm -rf %s", directory);
    return system(command);
}

static char *file_of(size_t form) {
    return json_dumps(json_object_get(json_array_get(forms, form), "file"), 0);
}

static struct lk_tokenizer *import_form(size_t form) {
    struct lk_tokenizer *t;
    char *file = file_of(form);
    OK(lk_tokenizer_import(file, strlen(file), "form.json", &t, &test_err));
    free(file);
    return t;
}

/* The ids of a text; frees what was there. */
static void encode(const struct lk_tokenizer *t, const char *text, size_t size, bool special, bool around,
                   struct lk_tokens *ids) {
    uint64_t *offsets;
    struct lk_encode_options options = {special, around, &offsets};
    ids->count = 0;
    OK(lk_tokenizer_encode_with(t, text, size, &options, NULL, ids, &test_err));
    for (size_t i = 0; i < ids->count; i++) assert_true(offsets[i] <= offsets[i + 1]);
    if (ids->count) assert_true(offsets[0] == 0 && offsets[ids->count] == size);
    lk_free(offsets);
}

static void check_ids(const struct lk_tokens *have, const json_t *want, const char *what, const char *text) {
    bool same = have->count == json_array_size(want);
    for (size_t i = 0; same && i < have->count; i++) same = have->ids[i] == json_integer_value(json_array_get(want, i));
    if (!same) fail_msg("%s: other ids of \"%s\"", what, text);
}

static void check_form(const struct lk_tokenizer *t, const json_t *texts, const char *what) {
    struct lk_tokens ids = {0};
    struct lk_buf back = LK_BUF_INIT;
    for (size_t i = 0; i < json_array_size(texts); i++) {
        const json_t *one = json_array_get(texts, i);
        const char *text = json_string_value(json_object_get(one, "text"));
        const char *decoded = json_string_value(json_object_get(one, "decoded"));
        encode(t, text, strlen(text), false, false, &ids);
        check_ids(&ids, json_object_get(one, "plain"), what, text);
        encode(t, text, strlen(text), true, true, &ids);
        check_ids(&ids, json_object_get(one, "around"), what, text);
        encode(t, text, strlen(text), true, false, &ids);
        check_ids(&ids, json_object_get(one, "special"), what, text);
        back.size = 0;
        OK(lk_tokenizer_decode(t, ids.ids, ids.count, &back, &test_err));
        assert_int_equal(back.size, strlen(decoded));
        if (back.size) assert_memory_equal(back.data, decoded, back.size);
    }
    lk_tokens_release(&ids);
    lk_buf_release(&back);
}

static void forms_give_the_librarys_ids_and_texts(void **state) {
    (void)state;
    for (size_t form = 0; form < json_array_size(forms); form++) {
        const json_t *texts = json_object_get(json_array_get(forms, form), "texts");
        struct lk_tokenizer *t = import_form(form), *exported, *loaded;
        struct lk_buf file = LK_BUF_INIT;
        struct lk_root root, again;
        assert_false(lk__tokenizer_exact(t));
        assert_string_equal(lk_tokenizer_pattern(t), "none");
        assert_int_equal(lk_tokenizer_end(t), lk_tokenizer_find(t, "</s>", 4));
        check_form(t, texts, "imported");
        OK(lk_tokenizer_export(t, &file, &test_err));
        OK(lk_tokenizer_import(file.data, file.size, "exported.json", &exported, &test_err));
        check_form(exported, texts, "exported");
        OK(lk_tokenizer_save(store, t, &root, &test_err));
        OK(lk_tokenizer_save(store, exported, &again, &test_err));
        assert_memory_equal(&root, &again, sizeof root);
        OK(lk_tokenizer_load(store, &root, &loaded, &test_err));
        check_form(loaded, texts, "loaded");
        lk_tokenizer_free(t);
        lk_tokenizer_free(exported);
        lk_tokenizer_free(loaded);
        lk_buf_release(&file);
    }
}

/* --- words ------------------------------------------------------------------------------------------------ */

/* The definition: characters or their bytes, then the leftmost pair of the lowest rank, again and again. */
static size_t merge_by_definition(const struct lk_tokenizer *t, const uint8_t *word, size_t size, uint32_t *ids) {
    size_t n = 0;
    for (size_t at = 0, length; at < size; at += length)
        n += lk__tokenizer_unit_ids(t, word + at, size - at, ids + n, &length);
    for (;;) {
        uint32_t low = LK__NO_ID, rank;
        size_t best = 0;
        for (size_t i = 0; i + 1 < n; i++)
            if ((rank = lk__tokenizer_pair_rank(t, ids[i], ids[i + 1])) < low) low = rank, best = i;
        if (low == LK__NO_ID) return n;
        ids[best] = t->merges[low].id;
        memmove(ids + best + 1, ids + best + 2, (--n - best - 1) * sizeof *ids);
    }
}

/* Text of characters that are tokens, that are none, and of damaged ones. */
static size_t mixed_text(uint64_t *seed, char *text, size_t room) {
    static const char *const some[] = {" ",
                                       " ",
                                       "  ",
                                       "the ",
                                       "a",
                                       "b",
                                       "s",
                                       "e",
                                       "t",
                                       "\xE4\xB8\xAD\xE6\x96\x87",
                                       "\xE2\x96\x80",
                                       "\xC3\xA9",
                                       "\xF0\x9F\x98\x80",
                                       "\xE2\x96",
                                       "\x80",
                                       "\xF0\x9F",
                                       "\xFF",
                                       "<",
                                       "\n",
                                       "q"};
    size_t size = 0;
    for (size_t n; size + 8 < room; size += n) {
        *seed = *seed * 6364136223846793005u + 1442695040888963407u;
        const char *piece = some[(*seed >> 33) % (sizeof some / sizeof *some)];
        n = strlen(piece);
        memcpy(text + size, piece, n);
    }
    return size;
}

static void cuts_and_ways_to_merge_change_no_ids(void **state) {
    (void)state;
    uint64_t seed = 7;
    char text[3000];
    uint32_t want[3000], have[3000], whole[3000];
    for (size_t form = 0; form < json_array_size(forms); form++) {
        struct lk_tokenizer *t = import_form(form);
        struct lk__tokenizer_scratch scratch = {0};
        struct lk__tokenizer_encoder *e = lk__tokenizer_encoder_create(t);
        assert_non_null(e);
        for (int round = 0; round < 60; round++) {
            size_t size = mixed_text(&seed, text, round % 3 ? 60 : sizeof text), cuts = 0, joined = 0;
            const uint8_t *p = (const uint8_t *)text;
            struct lk_tokens ids = {0};
            size_t n = merge_by_definition(t, p, size, want);
            assert_int_equal(lk__tokenizer_bpe(t, &scratch, p, size, whole), n);
            assert_memory_equal(whole, want, n * sizeof *want);
            for (size_t at = 0, end; at < size; at = end, cuts++) {
                end = lk__tokenizer_plain_cut(t, p, at, size);
                joined += merge_by_definition(t, p + at, end - at, have + joined);
            }
            if (size > 100) assert_true(cuts > 10);
            assert_int_equal(joined, n);
            assert_memory_equal(have, want, n * sizeof *want);
            OK(lk__tokenizer_encoder_words(e, text, size, &ids, &test_err));
            assert_int_equal(ids.count, n);
            assert_memory_equal(ids.ids, want, n * sizeof *want);
            lk_tokens_release(&ids);
        }
        lk__tokenizer_encoder_free(e);
        lk_free(scratch.memory);
        lk_tokenizer_free(t);
    }
}

static void any_pool_gives_the_same(void **state) {
    (void)state;
    size_t room = (size_t)3 << 20;
    char *text = lk_alloc(room);
    uint64_t seed = 9;
    size_t size = mixed_text(&seed, text, room);
    for (size_t form = 0; form < json_array_size(forms); form += 3) {
        struct lk_tokenizer *t = import_form(form);
        struct lk_tokens one = {0}, many = {0};
        struct lk_pool *pool;
        OK(lk_pool_open(3, &pool, &test_err));
        OK(lk_tokenizer_encode(t, text, size, NULL, &one, &test_err));
        OK(lk_tokenizer_encode(t, text, size, pool, &many, &test_err));
        assert_int_equal(one.count, many.count);
        assert_memory_equal(one.ids, many.ids, one.count * sizeof *one.ids);
        lk_pool_close(pool);
        lk_tokens_release(&one);
        lk_tokens_release(&many);
        lk_tokenizer_free(t);
    }
    lk_free(text);
}

/* Bytes of no character come back as they were, behind the space that the tokenizer puts in front. */
static void damage_comes_back(void **state) {
    (void)state;
    static const char text[] = "a\xFF\xE2\x96 \xC3\xF0\x9F\x98 x\x80";
    for (size_t form = 0; form < json_array_size(forms); form++) {
        struct lk_tokenizer *t = import_form(form);
        struct lk_tokens ids = {0};
        struct lk_buf back = LK_BUF_INIT;
        encode(t, text, sizeof text - 1, false, false, &ids);
        OK(lk_tokenizer_decode(t, ids.ids, ids.count, &back, &test_err));
        assert_int_equal(back.size, sizeof text - 1);
        assert_memory_equal(back.data, text, back.size);
        lk_tokens_release(&ids);
        lk_buf_release(&back);
        lk_tokenizer_free(t);
    }
}

/* --- what is refused -------------------------------------------------------------------------------------- */

static void edited(size_t form, const char *from, const char *to, int code, const char *part) {
    char *file = file_of(form), *at = strstr(file, from);
    struct lk_buf b = LK_BUF_INIT;
    struct lk_tokenizer *t;
    if (!at) fail_msg("the file has no %s", from);
    OK(lk_buf_append(&b, file, (size_t)(at - file)));
    OK(lk_buf_append(&b, to, strlen(to)));
    OK(lk_buf_append(&b, at + strlen(from), strlen(at + strlen(from))));
    FAILS(lk_tokenizer_import(b.data, b.size, "t.json", &t, &test_err), code, part);
    assert_null(t);
    lk_buf_release(&b);
    free(file);
}

static void what_would_differ_is_refused_by_name(void **state) {
    (void)state;
    edited(0, "\"type\": \"Prepend\"", "\"type\": \"Lowercase\"", LK_EUNSUPPORTED, "its normalizer is Lowercase");
    edited(0, "\"content\": \"\xE2\x96\x81\"", "\"content\": \"_\"", LK_EUNSUPPORTED, "its normalizer is not a Prepend");
    edited(0, "\"pre_tokenizer\": null", "\"pre_tokenizer\": {\"type\": \"Whitespace\"}", LK_EUNSUPPORTED,
           "its pre_tokenizer is Whitespace");
    edited(0, "\"pre_tokenizer\": null",
           "\"pre_tokenizer\": {\"type\": \"Metaspace\", \"replacement\": \"\xE2\x96\x81\", \"split\": false}",
           LK_EUNSUPPORTED, "behind a normalizer");
    edited(3, "\"split\": false", "\"split\": true", LK_EUNSUPPORTED, "its Metaspace has split on");
    edited(3, "\"prepend_scheme\": \"first\"", "\"prepend_scheme\": \"last\"", LK_EUNSUPPORTED,
           "none of always, first and never");
    edited(3, "\"prepend_scheme\": \"first\"", "\"prepend_scheme\": \"first\", \"add_prefix_space\": false",
           LK_EUNSUPPORTED, "contradict each other");
    edited(3, "\"replacement\": \"\xE2\x96\x81\"", "\"replacement\": \"_\"", LK_EUNSUPPORTED, "replacement is not U+2581");
    edited(0, "\"type\": \"ByteFallback\"", "\"type\": \"ByteLevel\"", LK_EUNSUPPORTED, "its decoder is not Replace");
    edited(0, "\"ignore_merges\": false", "\"ignore_merges\": true", LK_EUNSUPPORTED, "byte_fallback and ignore_merges");
    edited(0, "\"<0x00>\"", "\"<0x0>\"", LK_EUNSUPPORTED, "no token <0x00>");
    edited(0, "\"<0x41>\"", "\"<0x041>\"", LK_EUNSUPPORTED, "not <0x41>; tokens of bytes must follow");
    edited(0, "\"a\": ", "\"a b\": ", LK_EUNSUPPORTED, "has a space");
}

static void damaged_manifests_are_refused(void **state) {
    (void)state;
    static const char *const edits[][3] = {
        {"\"first_byte\":3", "\"first_byte\":4", "is not the token of byte 0x00"},
        {"\"first_byte\":3", "\"first_byte\":99999999", "first_byte is no id"},
        {"\"spaces\":\"normalizer\"", "\"spaces\":\"other\"", "characters.spaces"},
        {"\"spaces\":\"normalizer\"", "\"spaces\":\"metaspace\"", "do not fit together"},
        {"\"prefix_space\":\"each\"", "\"prefix_space\":\"some\"", "prefix_space is not known"},
        {"\"prefix_space\":\"each\"", "\"prefix_space\":\"first\"", "do not fit together"},
        {"\"pattern\":\"none\"", "\"pattern\":\"gpt2\"", "none beside characters"},
    };
    struct lk_tokenizer *t = import_form(0), *loaded;
    struct lk_root root, damaged;
    json_t *m;
    OK(lk_tokenizer_save(store, t, &root, &test_err));
    OK(lk_manifest_get(store, &root, "it", &m, &test_err));
    char *text = json_dumps(m, JSON_COMPACT);
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
        char *at = strstr(text, edits[i][0]);
        if (!at) fail_msg("no %s in %s", edits[i][0], text);
        char *other = lk_asprintf("%.*s%s%s", (int)(at - text), text, edits[i][1], at + strlen(edits[i][0]));
        json_t *changed = json_loads(other, 0, NULL);
        OK(lk_manifest_put(store, changed, &damaged, &test_err));
        int code = lk_tokenizer_load(store, &damaged, &loaded, &test_err);
        if (!code || !strstr(test_err.message, edits[i][2])) fail_msg("%s: %d %s", edits[i][1], code, test_err.message);
        json_decref(changed);
        lk_free(other);
    }
    free(text);
    json_decref(m);
    lk_tokenizer_free(t);
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    static const char text[] = "the \xE2\x96\x81<s> a\xF0\x9F\x98\x80<s>";
    for (size_t form = 1; form < 4; form += 2) {
        char *file = file_of(form);
        uint64_t imported = 0, encoded = 0;
        for (uint64_t n = 0; n <= imported; n += n < 40 || n + 60 > imported ? 1 : 37) {
            struct lk_tokenizer *t;
            lk__alloc_fail_at(n);
            int code = lk_tokenizer_import(file, strlen(file), "f", &t, &test_err);
            if (!n) imported = lk__alloc_count();
            lk__alloc_fail_at(0);
            assert_true(n ? code && !t : !code);
            lk_tokenizer_free(t);
        }
        for (uint64_t n = 0; n <= encoded; n++) {
            struct lk_tokens ids = {0};
            uint64_t *offsets = NULL;
            struct lk_encode_options options = {true, true, &offsets};
            struct lk_tokenizer *fresh = import_form(form); /* nothing is kept from the call before */
            lk__alloc_fail_at(n);
            int code = lk_tokenizer_encode_with(fresh, text, sizeof text - 1, &options, NULL, &ids, &test_err);
            if (!n) encoded = lk__alloc_count();
            lk__alloc_fail_at(0);
            assert_true(n ? code == LK_ENOMEM && !ids.count && !offsets : !code);
            lk_free(offsets);
            lk_tokens_release(&ids);
            lk_tokenizer_free(fresh);
        }
        free(file);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forms_give_the_librarys_ids_and_texts),
        cmocka_unit_test(cuts_and_ways_to_merge_change_no_ids),
        cmocka_unit_test(any_pool_gives_the_same),
        cmocka_unit_test(damage_comes_back),
        cmocka_unit_test(what_would_differ_is_refused_by_name),
        cmocka_unit_test(damaged_manifests_are_refused),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
