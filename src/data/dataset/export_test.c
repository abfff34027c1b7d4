/* Exported files byte by byte where it matters, and every failure on the way: all files or none, never a part under a name.
 * tests/e2e/export_test.sh reads them as llm.c, Megatron-LM and numpy do. */
#include "data/dataset/internal.h"
#include "data/testing.h"
#include <dirent.h>
#include <errno.h>

static char dir[64], out[80];
static struct lk_store *store;

static const char lines[] =
    "{\"text\": \"one two three\"}\n{\"text\": \"four five\"}\n{\"text\": \"six\"}\n{\"text\": \"seven eight nine ten\"}\n";
static const char prompts[] =
    "{\"prompt\": \"one two\", \"response\": \" three\"}\n{\"prompt\": \"four\", \"response\": \" five\"}\n";

static int setup(void **state) {
    (void)state;
    snprintf(dir, sizeof dir, "%s/lk-export-XXXXXX", temporary_root());
    assert_non_null(mkdtemp(dir));
    snprintf(out, sizeof out, "%s/out", dir);
    OK(lk_store_open(dir, LK_CREATE, &store, &test_err));
    return 0;
}
static int teardown(void **state) {
    (void)state;
    lk_store_close(store);
    return lk_dir_remove(dir, &test_err);
}

/* A tokenizer of bytes; its end token has id `end`, so that the vocabulary is end + 1 with holes. */
static struct lk_root byte_tokenizer(uint32_t end) {
    struct lk_bytes text = lk_bytes("a", 1);
    struct lk_buf json = LK_BUF_INIT;
    struct lk_tokenizer *t;
    struct lk_root root;
    OK(lk_tokenizer_train(&text, 1, 257, NULL, NULL, NULL, &t, &test_err));
    OK(lk_tokenizer_export(t, &json, &test_err));
    lk_tokenizer_free(t);
    json_t *all = lk_json_parse(json.data, json.size, "tokenizer.json", &test_err), *token;
    size_t i;
    json_object_set_new(json_object_get(json_object_get(all, "model"), "vocab"), LK_TOKEN_END, json_integer(end));
    json_array_foreach(json_object_get(all, "added_tokens"), i, token) json_object_set_new(token, "id", json_integer(end));
    char *changed = json_dumps(all, 0);
    OK(lk_tokenizer_import(changed, strlen(changed), "changed", &t, &test_err));
    assert_int_equal(lk_tokenizer_vocab(t), end + 1);
    OK(lk_tokenizer_save(store, t, &root, &test_err));
    lk_tokenizer_free(t);
    free(changed);
    json_decref(all);
    lk_buf_release(&json);
    return root;
}

static struct lk_dataset *dataset(const char *text, double holdout, uint32_t end) {
    char path[96];
    struct lk_root tokenizer = byte_tokenizer(end), root;
    struct lk_dataset_options o = {.holdout = holdout, .tokenizer_name = "bytes"};
    struct lk_dataset_source source = {path};
    struct lk_dataset *d;
    snprintf(path, sizeof path, "%s/in.jsonl", dir);
    OK(lk_file_write_atomic(path, text, strlen(text), &test_err));
    OK(lk_dataset_build(store, &source, 1, &tokenizer, &o, NULL, &root, &test_err));
    OK(lk_dataset_open(store, &root, true, &d, &test_err));
    return d;
}

/* Names in the folder, temporaries too; -1: no folder. */
static int names(void) {
    int n = -1;
    DIR *d = opendir(out);
    if (!d) return -1;
    for (struct dirent *e; (e = readdir(d));) n += e->d_name[0] != '.' || e->d_name[1] == 'd';
    closedir(d);
    return n + 1;
}
static uint64_t number(const struct lk_map *m, size_t at, int bytes) {
    uint64_t v = 0;
    assert_true(at + (size_t)bytes <= m->size);
    for (int i = 0; i < bytes; i++) v |= (uint64_t)m->data[at + (size_t)i] << (8 * i);
    return v;
}
static struct lk_map map(const char *name) {
    char path[128];
    struct lk_map m;
    snprintf(path, sizeof path, "%s/%s", out, name);
    OK(lk_map_open(path, &m, &test_err));
    return m;
}

static void shards_are_the_stream_without_its_last_token(void **state) {
    (void)state;
    struct lk_dataset *d = dataset(lines, 0.4, 256);
    for (uint64_t shard = 1; shard <= 64; shard *= 4) {
        struct lk_dataset_export_options o = {.format = LK_DATASET_LLMC, .splits = {true}, .shard_tokens = shard};
        OK(lk_dataset_export(d, out, "d", &o, &test_err));
        uint64_t total = lk_dataset_tokens(d, LK_TRAIN) - 1, at = 0;
        assert_int_equal(names(), (total + shard - 1) / shard);
        for (uint32_t n = 0; at < total; n++) {
            char name[32];
            snprintf(name, sizeof name, "d_train_%06u.bin", n);
            struct lk_map m = map(name);
            assert_int_equal(number(&m, 0, 4), 20240520);
            assert_int_equal(number(&m, 4, 4), 1);
            uint64_t count = number(&m, 8, 4);
            assert_int_equal(m.size, 1024 + 2 * count);
            assert_int_equal(count, total - at < shard ? total - at : shard);
            for (uint64_t i = 0; i < count; i++, at++)
                assert_int_equal(number(&m, 1024 + 2 * i, 2), lk__dataset_token_at(d, &d->splits[0], at));
            lk_map_close(&m);
        }
        OK(lk_dir_remove(out, &test_err));
    }
    lk_dataset_close(d);
}

static void large_vocabularies_take_four_bytes(void **state) {
    (void)state;
    static const uint32_t ends[] = {65498, 65499, 65535, 65536}; /* vocabulary one more */
    for (int k = 0; k < 4; k++) {
        struct lk_dataset *d = dataset(lines, 0.4, ends[k]);
        for (int format = 0; format < 3; format++)
            OK(lk_dataset_export(d, out, "d", &(struct lk_dataset_export_options){.format = (enum lk_dataset_format)format},
                                 &test_err));
        bool wide = ends[k] == 65536, megatron_wide = ends[k] >= 65499;
        struct lk_map m = map("d_train_000000.bin");
        assert_int_equal(number(&m, 0, 4), wide ? 20240801 : 20240520);
        assert_int_equal(number(&m, 4, 4), wide ? 7 : 1);
        assert_int_equal(m.size, 1024 + number(&m, 8, 4) * (wide ? 4 : 2));
        assert_int_equal(number(&m, 1024, wide ? 4 : 2), ends[k]);
        lk_map_close(&m);
        m = map("d_train.idx");
        assert_int_equal(number(&m, 17, 1), megatron_wide ? 4 : 8);
        assert_int_equal(number(&m, 18, 8), lk_dataset_documents(d, LK_TRAIN));
        lk_map_close(&m);
        m = map("d_train.bin");
        assert_int_equal(m.size, (lk_dataset_tokens(d, LK_TRAIN) - 1) * (megatron_wide ? 4 : 2));
        assert_int_equal(number(&m, m.size - (megatron_wide ? 4 : 2), megatron_wide ? 4 : 2), ends[k]);
        lk_map_close(&m);
        m = map("d_val.npy");
        assert_non_null(memmem(m.data, 64, wide ? "'<u4'" : "'<u2'", 5));
        assert_int_equal(m.size, 10 + number(&m, 8, 2) + lk_dataset_tokens(d, LK_HELD_OUT) * (wide ? 4 : 2));
        lk_map_close(&m);
        lk_dataset_close(d);
        OK(lk_dir_remove(out, &test_err));
    }
}

static int stop(void *arg, uint64_t done, uint64_t total) {
    assert_true(done <= total);
    return (*(int *)arg)-- == 0;
}

static void what_cannot_be_is_said(void **state) {
    (void)state;
    struct lk_dataset *d = dataset(prompts, 0, 256), *all_train = dataset(lines, 0, 256);
    struct lk_dataset_export_options o = {.format = LK_DATASET_MEGATRON};
    FAILS(lk_dataset_export(d, out, "d", &o, &test_err), LK_EUNSUPPORTED, "loss masks");
    assert_int_equal(names(), -1); /* no folder either */
    o.format = LK_DATASET_LLMC;
    FAILS(lk_dataset_export(d, out, "d", &o, &test_err), LK_EUNSUPPORTED, "npy");
    o.without_masks = true;
    OK(lk_dataset_export(d, out, "d", &o, &test_err));
    FAILS(lk_dataset_export(d, out, "d", &o, &test_err), LK_EEXISTS, "d_train_000000.bin exists");
    assert_int_equal(names(), 1);
    OK(lk_dir_remove(out, &test_err));
    FAILS(lk_dataset_export(d, out, "a/b", &o, &test_err), LK_EINVAL, "a/b");
    o.splits[LK_HELD_OUT] = true;
    FAILS(lk_dataset_export(all_train, out, "d", &o, &test_err), LK_EINVAL, "held_out");
    o = (struct lk_dataset_export_options){.format = LK_DATASET_LLMC, .shard_tokens = (uint64_t)1 << 31};
    FAILS(lk_dataset_export(all_train, out, "d", &o, &test_err), LK_EINVAL, "2147483647");
    assert_int_equal(names(), -1);
    int left = 1;
    o = (struct lk_dataset_export_options){.format = LK_DATASET_LLMC, .shard_tokens = 10, .progress = stop, .arg = &left};
    FAILS(lk_dataset_export(all_train, out, "d", &o, &test_err), LK_ESTOPPED, "nothing");
    assert_int_equal(names(), -1);
    lk_dataset_close(d);
    lk_dataset_close(all_train);
}

static void a_failure_leaves_nothing(void **state) {
    (void)state;
    struct lk_dataset *d = dataset(lines, 0.4, 256);
    for (int format = 0; format < 3; format++) {
        struct lk_dataset_export_options o = {.format = (enum lk_dataset_format)format, .shard_tokens = format ? 0 : 20};
        for (int kind = 0; kind < 2; kind++)
            for (uint64_t n = 1;; n++) {
                assert_in_range(n, 1, 300);
                kind ? lk__file_fail_at(n, ENOSPC) : lk__alloc_fail_at(n);
                int code = lk_dataset_export(d, out, "d", &o, &test_err);
                bool reached = (kind ? lk__file_call_count() : lk__alloc_count()) >= n;
                lk__file_fail_at(0, 0);
                lk__alloc_fail_at(0);
                if (!reached) {
                    assert_int_equal(code, 0);
                    assert_true(names() >= 4);
                    OK(lk_dir_remove(out, &test_err));
                    break;
                }
                assert_int_not_equal(code, 0);
                if (kind) assert_non_null(strstr(test_err.message, "No space left"));
                assert_int_equal(names(), -1);
            }
    }
    lk_dataset_close(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shards_are_the_stream_without_its_last_token),
        cmocka_unit_test(large_vocabularies_take_four_bytes),
        cmocka_unit_test(what_cannot_be_is_said),
        cmocka_unit_test(a_failure_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
