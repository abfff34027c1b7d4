/* How sources become documents: what is held out, what is left out, where texts begin and end; which of it enters a root.
 */
#include "data/dataset/job.h"
#include "data/source.h"
#include "data/testing.h"
#include "data/tokenizer/internal.h"

static char dir[64];
static struct lk_store *store;
/* bytes as tokens; the same with a token in front of every text; with a space in front of those that begin with none */
static struct lk_root bytes_root, begin_root, prefix_root;
#define END   256u
#define BEGIN 257u

static void make_tokenizer(bool begin, enum lk__tokenizer_prefix prefix, struct lk_root *root) {
    uint64_t offset[259] = {0};
    uint8_t bytes[512], added[258] = {[END] = 1, [BEGIN] = 1};
    size_t size = 0;
    struct lk__tokenizer_traits traits = {
        .end = END, .before = begin ? BEGIN : LK__NO_ID, .after = LK__NO_ID, .prefix_space = prefix};
    for (uint32_t id = 0; id < 258; id++) {
        const char *text = id == END ? LK_TOKEN_END : "<s>";
        if (id < 256)
            bytes[size++] = (uint8_t)id;
        else
            memcpy(bytes + size, text, strlen(text)), size += strlen(text);
        offset[id + 1] = size;
    }
    struct lk__tokenizer_definition definition = {
        .vocab = 258, .offset = offset, .bytes = bytes, .added = added, .traits = &traits};
    struct lk_tokenizer *t;
    OK(lk__tokenizer_make(&definition, "bytes", &t, &test_err));
    OK(lk_tokenizer_save(store, t, root, &test_err));
    lk_tokenizer_free(t);
}

static int setup(void **state) {
    (void)state;
    snprintf(dir, sizeof dir, "%s/lk-reading-XXXXXX", temporary_root());
    assert_non_null(mkdtemp(dir));
    OK(lk_store_open(dir, LK_CREATE, &store, &test_err));
    make_tokenizer(false, LK__PREFIX_NONE, &bytes_root);
    make_tokenizer(true, LK__PREFIX_NONE, &begin_root);
    make_tokenizer(false, LK__PREFIX_UNLESS, &prefix_root);
    return 0;
}
static int teardown(void **state) {
    (void)state;
    lk_store_close(store);
    return lk_dir_remove(dir, &test_err);
}

static const char *file(const char *name, const char *text) {
    static char paths[8][160];
    static int next;
    char *path = paths[next++ & 7];
    snprintf(path, 160, "%s/%s", dir, name);
    OK(lk_file_write_atomic(path, text, strlen(text), &test_err));
    return path;
}

static char notes[8192];
static void take_note(void *arg, const char *text) {
    (void)arg;
    size_t n = strlen(notes);
    snprintf(notes + n, sizeof notes - n, "%s\n", text);
}
static bool noted(const char *text) {
    if (strstr(notes, text)) return true;
    print_message("no note \"%s\" in:\n%s", text, notes);
    return false;
}

static int build(const struct lk_root *tokenizer, const struct lk_dataset_options *o, size_t count,
                 const char *const *paths, struct lk_root *root) {
    struct lk_dataset_source sources[8];
    struct lk_dataset_options mine = *o;
    mine.source.note = take_note;
    notes[0] = 0;
    for (size_t i = 0; i < count; i++) sources[i].path = paths[i];
    return lk_dataset_build(store, sources, count, tokenizer, &mine, NULL, root, &test_err);
}

static struct lk_dataset *built(const struct lk_root *tokenizer, const struct lk_dataset_options *o, size_t count,
                                const char *const *paths) {
    struct lk_root root;
    struct lk_dataset *d;
    OK(build(tokenizer, o, count, paths, &root));
    OK(lk_dataset_verify(store, &root, &test_err));
    OK(lk_dataset_open(store, &root, true, &d, &test_err));
    return d;
}

static const json_t *recipe(const struct lk_dataset *d) {
    return json_object_get(lk_dataset_manifest(d), "recipe");
}

/* The texts of a split's documents, each with | behind it; the end token stands for no text. */
static const char *texts(const struct lk_dataset *d, enum lk_split split) {
    static char all[65536];
    size_t n = 0;
    for (uint64_t i = 1; i < lk_dataset_tokens(d, split); i++) {
        uint32_t id = lk__dataset_token_at(d, &d->splits[split], i);
        n += (size_t)snprintf(all + n, sizeof all - n, id == END ? "|" : id == BEGIN ? "<s>" : "%c", (int)id);
    }
    all[n] = 0;
    return all;
}

static char *numbered_lines(int from, int to) {
    struct lk_buf b = LK_BUF_INIT;
    for (int i = from; i < to; i++) OK(lk_buf_printf(&b, "{\"text\": \"document %d\"}\n", i));
    return b.data;
}

/* --- what is held out -------------------------------------------------------------------------------------- */

static bool is_held_out(const char *held, int i) {
    char want[32];
    snprintf(want, sizeof want, "document %d|", i);
    const char *at = strstr(held, want);
    return at && (at == held || at[-1] == '|');
}

static void documents_are_held_out_by_seed_and_text(void **state) {
    (void)state;
    char *one = numbered_lines(0, 1000), *two = numbered_lines(900, 1500);
    struct lk_dataset_options o = {.holdout = 0.1, .holdout_by = LK_HOLDOUT_DOCUMENT, .holdout_seed = 7};
    const char *a[] = {file("one.jsonl", one)}, *b[] = {file("two.jsonl", two), a[0]};
    struct lk_dataset *d = built(&bytes_root, &o, 1, a);
    char *held = lk_strdup(texts(d, LK_HELD_OUT));
    uint64_t count = lk_dataset_documents(d, LK_HELD_OUT);
    assert_in_range(count, 70, 130); /* 3 standard deviations about 100 */
    assert_string_equal(json_string_value(json_object_get(recipe(d), "holdout_by")), "document");
    assert_string_equal(json_string_value(json_object_get(recipe(d), "holdout_seed")), "7");
    for (int i = 0; i < 1000; i++) { /* the rule, from its words alone */
        uint8_t all[56] = "lockstep holdout";
        char text[32];
        struct lk_root digest, number;
        int n = snprintf(text, sizeof text, "document %d", i);
        all[16] = 7;
        lk_sha256(text, (size_t)n, &digest);
        memcpy(all + 24, digest.bytes, 32);
        lk_sha256(all, sizeof all, &number);
        bool want = (double)lk__dataset_get_u64(number.bytes) < 0.1 * 18446744073709551616.0;
        if (is_held_out(held, i) != want) fail_msg("document %d", i);
    }
    lk_dataset_close(d);
    d = built(&bytes_root, &o, 2, b); /* another source changes nothing, a document that is there twice goes one way */
    const char *more = texts(d, LK_HELD_OUT);
    for (int i = 0; i < 1000; i++) assert_int_equal(is_held_out(more, i), is_held_out(held, i));
    lk_dataset_close(d);
    o.holdout_seed = 8;
    d = built(&bytes_root, &o, 1, a);
    assert_string_not_equal(texts(d, LK_HELD_OUT), held);
    lk_dataset_close(d);
    lk_free(held), lk_free(one), lk_free(two);
}

static void few_documents_leave_one_for_each_split(void **state) {
    (void)state;
    struct lk_dataset_options o = {.holdout = 0.01, .holdout_by = LK_HOLDOUT_DOCUMENT, .holdout_seed = 1};
    const char *paths[] = {file("a.txt", "one"), file("b.txt", "two"), file("c.txt", "three")};
    struct lk_dataset *d = built(&bytes_root, &o, 3, paths);
    assert_int_equal(lk_dataset_documents(d, LK_HELD_OUT), 1);
    assert_int_equal(lk_dataset_documents(d, LK_TRAIN), 2);
    lk_dataset_close(d);
    struct lk_root root;
    const char *same[] = {paths[0], file("d.txt", "one")};
    FAILS(build(&bytes_root, &o, 2, same, &root), LK_EINVAL, "leaves no document held out (2 in all, 6 bytes, all equal,");
}

/* Under either rule one text alone gives its end, so that its root is as it was; a large text among others gives its own.
 */
static void texts_give_their_ends(void **state) {
    (void)state;
    struct lk_dataset_options tail = {.holdout = 0.2}, by = {.holdout = 0.2, .holdout_by = LK_HOLDOUT_DOCUMENT};
    const char *alone[] = {file("alone.txt", "1\n2\n3\n4\n5\n")};
    struct lk_root a, b;
    OK(build(&bytes_root, &tail, 1, alone, &a));
    OK(build(&bytes_root, &by, 1, alone, &b));
    assert_true(lk_root_equal(&a, &b));
    struct lk_buf large = LK_BUF_INIT;
    for (int i = 0; i < 8000; i++) OK(lk_buf_printf(&large, "%d\n", i));
    const char *two[] = {file("large.txt", large.data), file("large2.txt", large.data)};
    struct lk_dataset *d = built(&bytes_root, &by, 2, two);
    assert_int_equal(lk_dataset_documents(d, LK_TRAIN), 2);
    assert_int_equal(lk_dataset_documents(d, LK_HELD_OUT), 2);
    for (uint64_t i = 0; i < 2; i++) {
        struct lk_document doc;
        OK(lk_dataset_document(d, LK_HELD_OUT, i, &doc, &test_err));
        assert_int_equal(doc.source, i);
        assert_in_range(doc.size_bytes, large.size / 5 - 10, large.size / 5);
    }
    lk_dataset_close(d);
    lk_buf_release(&large);
    static const struct { /* README.md: from a share of 4,096 bytes on */
        size_t size;
        uint64_t documents;
    } sizes[] = {{8191, 2}, {8192, 3}};
    for (size_t i = 0; i < 2; i++) {
        struct lk_buf text = LK_BUF_INIT;
        while (text.size < sizes[i].size) OK(lk_buf_append(&text, "0123456\n", 8));
        text.data[sizes[i].size] = 0;
        const char *paths[] = {file("share.txt", text.data), file("other.txt", "other")};
        by.holdout = 0.5;
        d = built(&bytes_root, &by, 2, paths);
        assert_int_equal(lk_dataset_documents(d, LK_TRAIN) + lk_dataset_documents(d, LK_HELD_OUT), sizes[i].documents);
        lk_dataset_close(d);
        lk_buf_release(&text);
    }
}

/* --- what is left out -------------------------------------------------------------------------------------- */

static const char some_bad[] = "{\"text\": \"a\"}\n{\"text\": 3}\n{\"text\": \"\"}\n{oops\n{\"text\": \"b\"}\n";

static void bad_records_can_be_left_out(void **state) {
    (void)state;
    struct lk_root root;
    struct lk_dataset_options o = {0};
    const char *paths[] = {file("bad.jsonl", some_bad)};
    FAILS(build(&bytes_root, &o, 1, paths, &root), LK_EINVAL,
          "bad.jsonl:2: byte 23: \"text\" is not a string (--skip-bad N");
    o.source.skip_bad = 1;
    FAILS(build(&bytes_root, &o, 1, paths, &root), LK_EINVAL, "more than 1 bad records");
    assert_non_null(strstr(test_err.message, "bad.jsonl:2: byte 23"));
    o.source.skip_bad = 5;
    struct lk_dataset *d = built(&bytes_root, &o, 1, paths);
    assert_string_equal(texts(d, LK_TRAIN), "a|b|");
    assert_int_equal(json_integer_value(json_object_get(lk_dataset_manifest(d), "bad_count")), 2);
    assert_string_equal(json_string_value(json_object_get(recipe(d), "skip_bad")), "5");
    assert_true(noted("left out: ") && noted("bad.jsonl:4: byte ") && noted("2 bad records left out"));
    assert_true(noted("1 empty document left out"));
    lk_dataset_close(d);
    struct lk_root a, b; /* nothing was bad: nothing enters the root */
    const char *good[] = {
        file("good.jsonl", "{\"text\": \"a\"}\n{\"text\": null, \"prompt\": \"p\", \"response\": \"r\"}\n")};
    OK(build(&bytes_root, &o, 1, good, &a));
    o.source.skip_bad = 0;
    OK(build(&bytes_root, &o, 1, good, &b));
    assert_true(lk_root_equal(&a, &b));
}

/* --- what a file is ---------------------------------------------------------------------------------------- */

static void the_content_decides_and_old_roots_stay(void **state) {
    (void)state;
    struct lk_dataset_options o = {0};
    const char *lines = "{\"text\": \"a\"}\n{\"text\": \"b\"}\n", *paths[1];
    static const struct {
        const char *name, *text;
        int readers;
        const char *want;
    } cases[] = {{"x.jsonl", NULL, 1, "a|b|"},
                 {"x.ndjson", NULL, 2, "a|b|"},
                 {"X.JSONL", NULL, 2, "a|b|"},
                 {"x.json", "[{\"text\": \"a\"},\n{\"text\":\n\"b\"}]", 2, "a|b|"},
                 {"y.json", "{\n\"text\": \"a\"\n}\n", 2, "a|"},
                 {"y.jsonl", "\xEF\xBB\xBF{\"text\": \"a\"}\n", 2, "a|"},
                 {"y.txt", "\xEF\xBB\xBFtext", 2, "text|"},
                 {"z.txt", "text", 1, "text|"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        paths[0] = file(cases[i].name, cases[i].text ? cases[i].text : lines);
        struct lk_dataset *d = built(&bytes_root, &o, 1, paths);
        if (strcmp(texts(d, LK_TRAIN), cases[i].want)) fail_msg("%s: %s", cases[i].name, texts(d, LK_TRAIN));
        assert_int_equal(json_integer_value(json_object_get(recipe(d), "readers")), cases[i].readers);
        assert_int_equal(json_object_size(recipe(d)), 2);
        lk_dataset_close(d);
    }
    struct lk_root root;
    paths[0] = file("l.json", "[{\"text\": \"a\"},\n\n{\"txt\": \"b\"}]");
    FAILS(build(&bytes_root, &o, 1, paths, &root), LK_EINVAL, "l.json: record 2: byte 15: it has neither");
    o.source.format = LK_FORMAT_JSONL;
    paths[0] = file("forced.txt", lines);
    struct lk_dataset *d = built(&bytes_root, &o, 1, paths);
    assert_string_equal(texts(d, LK_TRAIN), "a|b|");
    assert_string_equal(json_string_value(json_object_get(recipe(d), "format")), "jsonl");
    lk_dataset_close(d);
}

static void texts_are_split_at_a_mark(void **state) {
    (void)state;
    struct lk_dataset_options o = {.source.split_at = lk_bytes("\n--\n", 4)};
    const char *paths[] = {file("s.txt", "one\ntwo\n--\nthree\n--\n\n--\nfour\n--\n")};
    struct lk_dataset *d = built(&bytes_root, &o, 1, paths);
    assert_string_equal(texts(d, LK_TRAIN), "one\ntwo|three|four|");
    assert_int_equal(json_integer_value(json_object_get(lk_dataset_manifest(d), "empty_count")), 1);
    assert_string_equal(json_string_value(json_object_get(recipe(d), "split_at")), "\n--\n");
    struct lk_document doc;
    OK(lk_dataset_document(d, LK_TRAIN, 1, &doc, &test_err));
    assert_int_equal(doc.source_offset, 11);
    assert_int_equal(doc.line, 0);
    lk_dataset_close(d);
    struct lk_buf many = LK_BUF_INIT; /* over several jobs */
    for (int i = 0; i < 60000; i++) OK(lk_buf_printf(&many, "piece %d\n--\n", i));
    paths[0] = file("many.txt", many.data);
    o.holdout = 0.5;
    d = built(&bytes_root, &o, 1, paths);
    assert_int_equal(lk_dataset_documents(d, LK_TRAIN) + lk_dataset_documents(d, LK_HELD_OUT), 60000);
    OK(lk_dataset_document(d, LK_HELD_OUT, 0, &doc, &test_err));
    assert_in_range(doc.source_offset, many.size / 2, many.size / 2 + 20);
    lk_dataset_close(d);
    lk_buf_release(&many);
}

static void keys_choose_what_is_read(void **state) {
    (void)state;
    struct lk_root root;
    struct lk_dataset_options o = {.source.text_key = "content"};
    const char *paths[] = {file("k.jsonl", "{\"content\": \"a\", \"text\": \"no\", \"prompt\": 7}\n")};
    struct lk_dataset *d = built(&bytes_root, &o, 1, paths);
    assert_string_equal(texts(d, LK_TRAIN), "a|");
    assert_string_equal(json_string_value(json_object_get(recipe(d), "text_key")), "content");
    lk_dataset_close(d);
    paths[0] = file("k.jsonl", "{\"text\": \"a\"}\n");
    FAILS(build(&bytes_root, &o, 1, paths, &root), LK_EINVAL, "it has no \"content\"");
    o.source.messages_key = "messages";
    FAILS(build(&bytes_root, &o, 1, paths, &root), LK_EINVAL, "give one of them");
    o = (struct lk_dataset_options){.source.text_key = "\xFFkey"};
    FAILS(build(&bytes_root, &o, 1, paths, &root), LK_EINVAL, "--text-key is not UTF-8");
    o = (struct lk_dataset_options){.source.split_at = lk_bytes("\xE4\xB8", 2)};
    FAILS(build(&bytes_root, &o, 1, paths, &root), LK_EINVAL, "--split-at is not UTF-8");
    paths[0] = file("caf\xE9.txt", "text");
    o = (struct lk_dataset_options){0};
    FAILS(build(&bytes_root, &o, 1, paths, &root), LK_EINVAL, "rename the file");
}

/* --- where texts begin --------------------------------------------------------------------------------------- */

static void texts_begin_as_the_tokenizer_says(void **state) {
    (void)state;
    const char *lines = "{\"text\": \"ab\"}\n{\"prompt\": \"c\", \"response\": \"de\"}\n";
    const char *paths[] = {file("b.jsonl", lines), file("b.txt", "fg")};
    struct lk_dataset_options o = {.bos = LK_BOS_AUTO};
    struct lk_dataset *d = built(&begin_root, &o, 2, paths);
    assert_string_equal(texts(d, LK_TRAIN), "<s>ab|<s>cde|<s>fg|");
    assert_int_equal(json_integer_value(json_object_get(recipe(d), "bos")), BEGIN);
    uint32_t targets[16];
    uint32_t n = lk_dataset_sequence(d, LK_TRAIN, 0, (uint32_t)lk_dataset_tokens(d, LK_TRAIN) - 1, NULL, targets, NULL);
    static const uint32_t want[] = {UINT32_MAX, 'a', 'b',        END, UINT32_MAX, UINT32_MAX, 'd',
                                    'e',        END, UINT32_MAX, 'f', 'g',        END};
    assert_int_equal(n, sizeof want / sizeof *want);
    assert_memory_equal(targets, want, sizeof want);
    lk_dataset_close(d);
    struct lk_root a, b;
    o.bos = LK_BOS_NO; /* as before there was the choice */
    d = built(&begin_root, &o, 2, paths);
    assert_string_equal(texts(d, LK_TRAIN), "ab|cde|fg|");
    assert_null(json_object_get(recipe(d), "bos"));
    lk_dataset_close(d);
    OK(build(&bytes_root, &o, 2, paths, &a)); /* without such a token there is nothing to choose */
    o.bos = LK_BOS_AUTO;
    OK(build(&bytes_root, &o, 2, paths, &b));
    assert_true(lk_root_equal(&a, &b));
    o.bos = LK_BOS_YES;
    FAILS(build(&bytes_root, &o, 2, paths, &b), LK_EINVAL, "has no token that begins a text");
}

/* A document has the space that its tokenizer puts in front, once, however many pieces it is encoded in; U+2581 stays. */
static void spaces_in_front_belong_to_documents(void **state) {
    (void)state;
    static const char line[] = "a line with \xE2\x96\x81 in it\n";
    size_t lines = LK__JOB_BYTES / strlen(line) * 2;
    char *text = lk_calloc(lines + 1, strlen(line));
    for (size_t i = 0; i < lines; i++) memcpy(text + i * strlen(line), line, strlen(line));
    const char *paths[] = {file("prefix.txt", text), file("without.txt", " b"), file("short.jsonl", "{\"text\": \"c\"}\n")};
    struct lk_root root;
    struct lk_dataset *d;
    static const struct lk_dataset_options options = {0};
    OK(build(&prefix_root, &options, 3, paths, &root));
    OK(lk_dataset_verify(store, &root, &test_err));
    OK(lk_dataset_open(store, &root, true, &d, &test_err));
    assert_int_equal(lk_dataset_documents(d, LK_TRAIN), 3);
    assert_int_equal(lk_dataset_bytes(d, LK_TRAIN), 1 + lines * strlen(line) + 2 + 2);
    lk_dataset_close(d);
    lk_free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(spaces_in_front_belong_to_documents),
        cmocka_unit_test(documents_are_held_out_by_seed_and_text),
        cmocka_unit_test(few_documents_leave_one_for_each_split),
        cmocka_unit_test(texts_give_their_ends),
        cmocka_unit_test(bad_records_can_be_left_out),
        cmocka_unit_test(the_content_decides_and_old_roots_stay),
        cmocka_unit_test(texts_are_split_at_a_mark),
        cmocka_unit_test(keys_choose_what_is_read),
        cmocka_unit_test(texts_begin_as_the_tokenizer_says),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
