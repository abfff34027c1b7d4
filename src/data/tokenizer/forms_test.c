/* The forms of tokenizer.json: ids of texts as Hugging Face's library gives them (tests/golden/tokenizer/make_forms.py),
 * stored, exported, on pools, with offsets, and with every allocation failing. */
#include "data/testing.h"
#include "data/tokenizer/internal.h"

static json_t *forms;
static struct lk_store *store;
static char directory[64];

static int setup(void **state) {
    (void)state;
    size_t size;
    char *text = read_golden("tokenizer/forms.json", &size), url[80];
    forms = lk_json_parse(text, size, "forms.json", &test_err);
    lk_free(text);
    snprintf(directory, sizeof directory, "%s/lk-forms-XXXXXX", temporary_root());
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

static struct lk_tokenizer *import_form(size_t i) {
    struct lk_tokenizer *t;
    char *file = json_dumps(json_object_get(json_array_get(forms, i), "file"), 0);
    OK(lk_tokenizer_import(file, strlen(file), "form.json", &t, &test_err));
    free(file);
    return t;
}

static void check_ids(const struct lk_tokens *have, const json_t *want, const char *what, const char *text) {
    bool same = have->count == json_array_size(want);
    for (size_t i = 0; same && i < have->count; i++) same = have->ids[i] == json_integer_value(json_array_get(want, i));
    if (!same) fail_msg("%s: other ids of \"%s\"", what, text);
}

/* Offsets go from the first byte to the last, and in a text that stays as it is they are the bytes of each token. */
static void check_offsets(const struct lk_tokenizer *t, const char *text, size_t size, const struct lk_tokens *ids,
                          const uint64_t *offsets) {
    if (!ids->count) return;
    assert_int_equal(offsets[0], 0);
    assert_int_equal(offsets[ids->count], size);
    for (size_t i = 0; i < ids->count; i++) {
        struct lk_bytes b = lk_tokenizer_bytes(t, ids->ids[i]);
        assert_true(offsets[i] <= offsets[i + 1]);
        if (t->traits.nfc || t->traits.prefix_space || t->added[ids->ids[i]]) continue;
        assert_int_equal(offsets[i + 1] - offsets[i], b.size);
        assert_memory_equal(text + offsets[i], b.data, b.size);
    }
}

static void check_form(const struct lk_tokenizer *t, size_t form) {
    static const struct {
        const char *key;
        bool special, around;
    } ways[] = {{"plain", false, false}, {"special", true, false}, {"around", true, true}};
    const json_t *texts = json_object_get(json_array_get(forms, form), "texts"), *one;
    size_t i;
    json_array_foreach(texts, i, one) {
        const char *text = json_string_value(json_object_get(one, "text"));
        size_t size = strlen(text);
        for (int w = 0; w < 3; w++) {
            struct lk_tokens ids = {0};
            uint64_t *offsets;
            struct lk_encode_options options = {ways[w].special, ways[w].around, &offsets};
            OK(lk_tokenizer_encode_with(t, text, size, &options, NULL, &ids, &test_err));
            check_ids(&ids, json_object_get(one, ways[w].key), ways[w].key, text);
            check_offsets(t, text, size, &ids, offsets);
            ids.count = 0;
            if (w == 0) OK(lk_tokenizer_encode(t, text, size, NULL, &ids, &test_err));
            if (w == 0) check_ids(&ids, json_object_get(one, "plain"), "encode", text);
            lk_free(offsets);
            lk_tokens_release(&ids);
        }
    }
}

static void forms_give_the_librarys_ids(void **state) {
    (void)state;
    assert_true(json_array_size(forms) >= 7);
    for (size_t i = 0; i < json_array_size(forms); i++) {
        struct lk_tokenizer *t = import_form(i), *again;
        struct lk_buf out = LK_BUF_INIT;
        struct lk_root root, other;
        check_form(t, i);
        OK(lk_tokenizer_save(store, t, &root, &test_err));
        OK(lk_tokenizer_load(store, &root, &again, &test_err));
        check_form(again, i);
        lk_tokenizer_free(again);
        OK(lk_tokenizer_export(t, &out, &test_err));
        OK(lk_tokenizer_import(out.data, out.size, "export", &again, &test_err));
        check_form(again, i);
        OK(lk_tokenizer_save(store, again, &other, &test_err));
        assert_true(lk_root_equal(&root, &other));
        lk_tokenizer_free(again);
        lk_tokenizer_free(t);
        lk_buf_release(&out);
    }
}

/* A large text of the forms' own: one thread, and pools whose pieces are cut. */
static void any_pool_gives_the_same(void **state) {
    (void)state;
    random_begin("any_pool_gives_the_same");
    for (size_t form = 0; form < json_array_size(forms); form++) {
        struct lk_tokenizer *t = import_form(form);
        const json_t *texts = json_object_get(json_array_get(forms, form), "texts");
        struct lk_buf text = LK_BUF_INIT;
        while (text.size < (LK_SANITIZED ? 600000 : 1500000)) {
            const char *one =
                json_string_value(json_object_get(json_array_get(texts, random_below(json_array_size(texts))), "text"));
            uint8_t unit[8];
            OK(lk_buf_append(&text, one, strlen(one)));
            OK(lk_buf_append(&text, unit, put_random_unit(unit)));
        }
        for (int special = 0; special < 2; special++) {
            struct lk_encode_options options = {.special = special};
            struct lk_tokens want = {0};
            OK(lk_tokenizer_encode_with(t, text.data, text.size, &options, NULL, &want, &test_err));
            for (int threads = 1; threads <= 8; threads += LK_SANITIZED ? 5 : 1) {
                struct lk_pool *pool;
                struct lk_tokens have = {0};
                OK(lk_pool_open(threads, &pool, &test_err));
                if (special)
                    OK(lk_tokenizer_encode_with(t, text.data, text.size, &options, pool, &have, &test_err));
                else
                    OK(lk_tokenizer_encode(t, text.data, text.size, pool, &have, &test_err));
                assert_int_equal(have.count, want.count);
                assert_memory_equal(have.ids, want.ids, want.count * sizeof *want.ids);
                lk_tokens_release(&have);
                lk_pool_close(pool);
            }
            lk_tokens_release(&want);
        }
        lk_buf_release(&text);
        lk_tokenizer_free(t);
    }
}

/* A mark, alone or behind other characters above ASCII, is seen at every place of a block. */
static void marks_are_seen_everywhere(void **state) {
    (void)state;
    static const char *const before[] = {"", "\xC3\xA9", "\xE4\xB8\xAD\xC3\xA9", "\xFF"};
    for (size_t size = 1; size < 200; size++)
        for (size_t at = 0; at < size; at++) {
            char text[220];
            const char *front = before[(size + at) % 4];
            size_t n = strlen(front), end = size > at + n + 2 ? size : at + n + 2;
            memset(text, 'a', sizeof text);
            memcpy(text + at, front, n);
            assert_true(lk__tokenizer_nfc_is_normal((const uint8_t *)text, end));
            memcpy(text + at + n, "\xCC\x81", 2);
            assert_false(lk__tokenizer_nfc_is_normal((const uint8_t *)text, end));
        }
}

/* Bytes that are no UTF-8 stand for themselves through all of it. */
static void damage_comes_back(void **state) {
    (void)state;
    random_begin("damage_comes_back");
    for (size_t form = 0; form < json_array_size(forms); form++) {
        struct lk_tokenizer *t = import_form(form);
        for (int i = 0; i < 2000; i++) {
            uint8_t text[200];
            size_t size = random_text(text, 1 + random_below(40));
            for (size_t k = 0; k < size; k++)
                if (text[k] == 'e' || text[k] >= 0xCC) text[k] = 0xFF; /* nothing that NFC changes */
            struct lk_tokens ids = {0};
            struct lk_buf back = LK_BUF_INIT;
            OK(lk_tokenizer_encode(t, text, size, NULL, &ids, &test_err));
            OK(lk_tokenizer_decode(t, ids.ids, ids.count, &back, &test_err));
            size_t space = t->traits.prefix_space && text[0] != ' ';
            assert_int_equal(back.size, size + space);
            assert_memory_equal(back.data + space, text, size);
            lk_tokens_release(&ids);
            lk_buf_release(&back);
        }
        lk_tokenizer_free(t);
    }
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    for (size_t form = 1; form < 4; form++) { /* a space in front, a template, NFC */
        char *file = json_dumps(json_object_get(json_array_get(forms, form), "file"), 0);
        static const char text[] = "e\xCC\x81<|endoftext|>\xCC\x81 a<tool>\xCC\xA7\xCC\x81 the";
        uint64_t imported = 0, encoded = 0;
        for (uint64_t n = 0; n <= imported; n += n < 40 || n + 200 > imported ? 1 : 37) {
            struct lk_tokenizer *t;
            lk__alloc_fail_at(n);
            int code = lk_tokenizer_import(file, strlen(file), "f", &t, &test_err);
            if (!n) imported = lk__alloc_count();
            lk__alloc_fail_at(0);
            if (!n) OK(code);
            if (n) assert_true(code && !t);
            lk_tokenizer_free(t);
        }
        struct lk_tokenizer *t = import_form(form);
        for (uint64_t n = 0; n <= encoded; n++) {
            struct lk_tokens ids = {0};
            uint64_t *offsets = NULL;
            struct lk_encode_options options = {true, true, &offsets};
            struct lk_tokenizer *fresh = n ? import_form(form) : t; /* nothing is kept from the call before */
            lk__alloc_fail_at(n);
            int code = lk_tokenizer_encode_with(fresh, text, sizeof text - 1, &options, NULL, &ids, &test_err);
            if (!n) encoded = lk__alloc_count();
            lk__alloc_fail_at(0);
            if (!n) OK(code);
            if (n && (code != LK_ENOMEM || ids.count || offsets)) fail_msg("form %zu: allocation %d", form, (int)n);
            lk_free(offsets);
            lk_tokens_release(&ids);
            lk_tokenizer_free(fresh);
        }
        free(file);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forms_give_the_librarys_ids), cmocka_unit_test(any_pool_gives_the_same),
        cmocka_unit_test(marks_are_seen_everywhere),   cmocka_unit_test(damage_comes_back),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
