#include "lockstep/dataset.h"
#include "lockstep/file.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[64];
static struct lk_store *store;
static struct lk_root tokenizer;
static struct lk_err err;

#define OK(x)                                                                                                              \
    do {                                                                                                                   \
        int code_ = (x);                                                                                                   \
        if (code_) fail_msg("%s: %s", #x, err.message);                                                                    \
    } while (0)

static const char text[] = "In the beginning was the word, and the word was a word.\nA second line of words, and words.\n"
                           "The third line is the last line, and it is held out.\n";

static int setup(void **state) {
    (void)state;
    strcpy(dir, "/tmp/lk-dataset-XXXXXX");
    assert_non_null(mkdtemp(dir));
    OK(lk_store_open(dir, true, &store, &err));
    struct lk_bytes b = lk_bytes(text, sizeof text - 1);
    struct lk_tokenizer *t;
    OK(lk_tokenizer_train(&b, 1, 280, NULL, NULL, NULL, &t, &err));
    OK(lk_tokenizer_save(store, t, &tokenizer, &err));
    lk_tokenizer_free(t);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    lk_store_close(store);
    return lk_dir_remove(dir, &err);
}

static char *file(const char *name, const void *data, size_t size) {
    char *path = lk_asprintf("%s/%s", dir, name);
    OK(lk_file_write_atomic(path, data, size, &err));
    return path;
}

static int build(const char *path, double holdout, struct lk_root *out) {
    struct lk_dataset_source s = {path};
    struct lk_dataset_options o = {.holdout = holdout, .tokenizer_name = "t"};
    return lk_dataset_build(store, &s, 1, &tokenizer, &o, NULL, out, &err);
}

static void plain_text_is_cut_after_a_line(void **state) {
    (void)state;
    char *path = file("a.txt", text, sizeof text - 1);
    struct lk_root root;
    struct lk_dataset *d;
    OK(build(path, 0.4, &root));
    OK(lk_dataset_verify(store, &root, &err));
    OK(lk_dataset_open(store, &root, true, &d, &err));
    const char *last = strstr(text, "The third");
    assert_int_equal(lk_dataset_bytes(d, LK_TRAIN), last - text);
    assert_int_equal(lk_dataset_bytes(d, LK_HELD_OUT), strlen(last));
    assert_int_equal(lk_dataset_documents(d, LK_TRAIN), 1);
    uint32_t in[8], target[8], start[8];
    uint64_t n = lk_dataset_sequences(d, LK_HELD_OUT, 8), seen = 1;
    for (uint64_t i = 0; i < n; i++) {
        uint32_t count = lk_dataset_sequence(d, LK_HELD_OUT, i, 8, in, target, start);
        assert_true(count == 8 || i == n - 1);
        seen += count;
        if (i == 0) assert_int_equal(in[0], 279);
        if (i == n - 1) assert_int_equal(target[count - 1], 279);
    }
    assert_int_equal(seen, lk_dataset_tokens(d, LK_HELD_OUT));
    assert_int_equal(lk_dataset_sequences(d, LK_TRAIN, 8), (lk_dataset_tokens(d, LK_TRAIN) - 1) / 8);
    lk_dataset_close(d);
    lk_free(path);
}

static void records_have_masks_and_lines(void **state) {
    (void)state;
    static const char lines[] =
        "{\"text\": \"the word\\nand \\u00e9\"}\n\n{\"prompt\": \"the line\", \"response\": \" was\"}\n"
        "{\"other\": [1, {\"a\": null}], \"text\": \"last line\"}\n";
    char *path = file("b.jsonl", lines, sizeof lines - 1);
    struct lk_root root;
    struct lk_dataset *d;
    struct lk_document doc;
    OK(build(path, 0, &root));
    OK(lk_dataset_verify(store, &root, &err));
    OK(lk_dataset_open(store, &root, false, &d, &err));
    assert_int_equal(lk_dataset_documents(d, LK_TRAIN), 3);
    assert_int_equal(lk_dataset_tokens(d, LK_HELD_OUT), 0);
    OK(lk_dataset_document(d, LK_TRAIN, 1, &doc, &err));
    assert_int_equal(doc.line, 3);
    assert_string_equal(doc.source_path, "b.jsonl");
    assert_int_equal(doc.size_bytes, strlen("the line was"));
    uint32_t in[200], target[200], start[200];
    uint32_t context = (uint32_t)lk_dataset_tokens(d, LK_TRAIN) - 1;
    assert_int_equal(lk_dataset_sequence(d, LK_TRAIN, 0, context, in, target, start), context);
    uint64_t b, e;
    for (uint64_t at = doc.token_begin; at < doc.token_end; at++) {
        OK(lk_dataset_byte_range(d, LK_TRAIN, 1, at, at + 1, &b, &e, &err));
        assert_int_equal(target[at - 1] == UINT32_MAX, e <= strlen("the line"));
        assert_int_equal(start[at], doc.token_begin - 1);
        assert_int_equal(lk_dataset_document_at(d, LK_TRAIN, at), 1);
    }
    assert_int_equal(target[doc.token_end - 1], 279);
    assert_int_equal(lk_dataset_document_at(d, LK_TRAIN, 0), 0);
    lk_dataset_close(d);
    lk_free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_text_is_cut_after_a_line),
        cmocka_unit_test(records_have_masks_and_lines),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
