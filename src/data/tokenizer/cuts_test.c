/* Places where a text may be cut: in random texts for every golden tokenizer, each alone and all together, ids are those of
 * the whole. */
#include "data/testing.h"
#include "data/tokenizer/internal.h"

struct form {
    char name[64];
    struct lk_tokenizer *t;
    size_t cuts;
};
static struct form forms[32];
static size_t form_count;

static void add_forms(const char *golden) {
    size_t size, i;
    char *text = read_golden(golden, &size);
    json_t *all = lk_json_parse(text, size, golden, &test_err), *one;
    assert_non_null(all);
    json_array_foreach(all, i, one) {
        struct form *f = &forms[form_count++];
        char *file = json_dumps(json_object_get(one, "file"), 0);
        assert_true(form_count <= sizeof forms / sizeof *forms);
        snprintf(f->name, sizeof f->name, "%s %zu", golden, i);
        OK(lk_tokenizer_import(file, strlen(file), f->name, &f->t, &test_err));
        free(file);
    }
    json_decref(all);
    lk_free(text);
}

static int setup(void **state) {
    (void)state;
    add_forms("tokenizer/forms.json");
    add_forms("tokenizer/characters.json");
    return 0;
}
static int teardown(void **state) {
    (void)state;
    for (size_t i = 0; i < form_count; i++) lk_tokenizer_free(forms[i].t);
    return 0;
}

/* Up to 16 bytes: a unit, an added token or the begin of one, a mark, a syllable in its letters. */
static size_t put_trouble(uint8_t *out) {
    static const char *const some[] = {"<tool>",
                                       "<mask>",
                                       "<|end",
                                       "<|endoftext|>",
                                       "[INST]",
                                       "xyz",
                                       "\xC3\xA9x y",
                                       "\xC3\xA9xzy",
                                       "</s>",
                                       "<unk>",
                                       " ",
                                       "  ",
                                       "\xE2\x96\x81",
                                       "\n",
                                       "the ",
                                       " of",
                                       "12",
                                       "e\xCC\x81",
                                       "a\xCC\xA8\xCC\x81",
                                       "\xCC\x81",
                                       "\xE1\x84\x80\xE1\x85\xA1",
                                       "\xE1\x86\xA8",
                                       "\xE4\xB8\xAD\xE6\x96\x87",
                                       "\xE3\x80\x82",
                                       "\xE2\x84\xAB",
                                       "=\xCC\xB8",
                                       "\xE2\x96",
                                       "\x81"};
    size_t n = random_below(3);
    if (n == 0) return put_random_unit(out);
    const char *p = some[random_below(sizeof some / sizeof *some)];
    n = n == 1 ? strlen(p) : 1 + random_below(strlen(p));
    memcpy(out, p, n);
    return n;
}

static void check_same(const struct form *f, const struct lk_tokens *have, const struct lk_tokens *want, const char *what,
                       size_t at, const uint8_t *text, size_t size) {
    if (have->count == want->count && !memcmp(have->ids, want->ids, want->count * sizeof *want->ids)) return;
    for (size_t i = 0; i < size; i++) fprintf(stderr, "%02x%s", text[i], i + 1 == at ? " | " : " ");
    fail_msg("%s: %s at %zu changes ids", f->name, what, at);
}

/* One text, in two pieces at every place and in all pieces at once. */
static void check_text(struct form *f, struct lk__tokenizer_encoder *e, const uint8_t *text, size_t size) {
    struct lk_tokens want = {0}, two = {0}, all = {0};
    size_t done = 0;
    OK(lk__tokenizer_encoder_run(e, text, size, false, &want, &test_err));
    for (size_t at = 0; at < size;) {
        at = lk__tokenizer_cut(f->t, text, at, size);
        OK(lk__tokenizer_encoder_run(e, text + done, at - done, done > 0, &all, &test_err));
        done = at;
        if (at == size) break;
        f->cuts++;
        two.count = 0;
        OK(lk__tokenizer_encoder_run(e, text, at, false, &two, &test_err));
        OK(lk__tokenizer_encoder_run(e, text + at, size - at, true, &two, &test_err));
        check_same(f, &two, &want, "a cut", at, text, size);
    }
    check_same(f, &all, &want, "all cuts", size, text, size);
    lk_tokens_release(&want);
    lk_tokens_release(&two);
    lk_tokens_release(&all);
}

static void cuts_change_no_ids(void **state) {
    (void)state;
    uint8_t text[1024];
    random_begin("cuts");
    for (size_t i = 0; i < form_count; i++) {
        struct form *f = &forms[i];
        struct lk__tokenizer_encoder *e = lk__tokenizer_encoder_create(f->t);
        assert_non_null(e);
        for (int round = 0; round < 2000; round++) {
            size_t size = 0, units = 1 + random_below(20);
            while (units--) size += put_trouble(text + size);
            check_text(f, e, text, size);
        }
        if (f->cuts < 1000) fail_msg("%s: %zu cuts in 2000 texts", f->name, f->cuts);
        lk__tokenizer_encoder_free(e);
    }
}

/* Between two cuts of a common text lie few bytes, so that a document of any size is encoded in little memory. */
static void texts_have_cuts(void **state) {
    (void)state;
    static const char *const texts[] = {
        "It was the best of times, it was the worst of times.\nNow what I want is, Facts. ",
        "\xE6\xB7\xB7\xE6\xB2\x8C\xE6\x9C\xAA\xE5\x88\x86\xE5\xA4\xA9\xE5\x9C\xB0\xE4\xB9\xB1\xE3\x80\x82\n",
        "Voil\xC3\xA0 l'\xC3\xA9t\xC3\xA9, e\xCC\x81t\xC3\xA9 o\xC3\xB9 ",
    };
    for (size_t i = 0; i < form_count; i++)
        for (size_t k = 0; k < sizeof texts / sizeof *texts; k++) {
            size_t n = strlen(texts[k]), size = n * 40, cuts = 0;
            uint8_t *text = lk_alloc(size);
            for (size_t at = 0; at < size; at += n) memcpy(text + at, texts[k], n);
            for (size_t at = 0; (at = lk__tokenizer_cut(forms[i].t, text, at, size)) < size;) cuts++;
            if (cuts < 30) fail_msg("%s: %zu cuts in text %zu", forms[i].name, cuts, k);
            lk_free(text);
        }
}

/* A token that takes the spaces beside it may take those behind a cut. */
static void strips_forbid_cuts(void **state) {
    (void)state;
    static const char text[] = "one two three <tool>  four";
    struct lk_tokenizer *t = forms[0].t;
    uint32_t id = 0;
    while (lk_tokenizer_bytes(t, id).size != 6 || memcmp(lk_tokenizer_bytes(t, id).data, "<tool>", 6)) id++;
    assert_true(lk__tokenizer_cut(t, (const uint8_t *)text, 0, strlen(text)) < strlen(text));
    t->added[id] |= LK__RSTRIP;
    t->cuttable = lk__tokenizer_cuts_allowed(t);
    assert_int_equal(lk__tokenizer_cut(t, (const uint8_t *)text, 0, strlen(text)), strlen(text));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(cuts_change_no_ids), cmocka_unit_test(texts_have_cuts),
                                       cmocka_unit_test(strips_forbid_cuts)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
