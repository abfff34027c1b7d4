#include "data/testing.h"
#include "data/tokenizer/internal.h"
#include <errno.h>
#include <sys/stat.h>

static char dir[64];
static struct lk_store *store;
static struct lk_tokenizer *golden;

static int setup(void **state) {
    (void)state;
    size_t size;
    char *json = read_golden("tokenizer/trained.json", &size);
    OK(lk_tokenizer_import(json, size, "trained.json", &golden, &test_err));
    lk_free(json);
    snprintf(dir, sizeof dir, "%s/lk-tokenizer-XXXXXX", temporary_root());
    assert_non_null(mkdtemp(dir));
    OK(lk_store_open(dir, LK_CREATE, &store, &test_err));
    return 0;
}

static int teardown(void **state) {
    (void)state;
    lk_tokenizer_free(golden);
    lk_store_close(store);
    return lk_dir_remove(dir, &test_err);
}

static void a_loaded_tokenizer_is_the_saved_one(void **state) {
    (void)state;
    struct lk_root root, again;
    struct lk_tokenizer *t;
    OK(lk_tokenizer_save(store, golden, &root, &test_err));
    OK(lk_tokenizer_load(store, &root, &t, &test_err));
    assert_int_equal(t->vocab, golden->vocab);
    assert_int_equal(t->traits.end, golden->traits.end);
    assert_int_equal(t->merge_count, golden->merge_count);
    assert_int_equal(t->added_count, 1);
    assert_memory_equal(t->merges, golden->merges, t->merge_count * sizeof *t->merges);
    assert_memory_equal(t->bytes, golden->bytes, (size_t)t->offset[t->vocab]);
    OK(lk_tokenizer_save(store, t, &again, &test_err));
    assert_true(lk_root_equal(&root, &again));
    lk_tokenizer_free(t);
}

/* Another value in the manifest: refused with words that say what. */
static void changed(const char *key, json_t *value, int code, const char *part) {
    struct lk_root root, other;
    struct lk_tokenizer *t;
    json_t *m;
    OK(lk_tokenizer_save(store, golden, &root, &test_err));
    OK(lk_manifest_get(store, &root, "tokenizer", &m, &test_err));
    assert_int_equal(value ? json_object_set_new(m, key, value) : json_object_del(m, key), 0);
    OK(lk_manifest_put(store, m, &other, &test_err));
    json_decref(m);
    FAILS(lk_tokenizer_load(store, &other, &t, &test_err), code, part);
    assert_null(t);
}

static void other_manifests_are_refused(void **state) {
    (void)state;
    char hex[LK_ROOT_HEX];
    struct lk_root small;
    OK(lk_blob_put(store->blobs, "abc", 3, &small, &test_err));
    lk_root_hex(&small, hex);
    changed("format", json_string("lockstep-tokenizer-9"), LK_EUNSUPPORTED, "lockstep-tokenizer-9");
    changed("pattern", json_string("cl99k"), LK_EUNSUPPORTED, "cl99k");
    changed("added", json_integer(1), LK_ECORRUPT, "added");
    changed("added", json_pack("[[i,i]]", 5000, 2), LK_ECORRUPT, "added[0]");
    changed("added", json_pack("[[i,i]]", 999, 2), LK_ECORRUPT, "added[0]"); /* special, but its kind says no */
    changed("normalizer", json_string("nfd"), LK_EUNSUPPORTED, "nfd");
    changed("end", json_integer(1000), LK_ECORRUPT, "end is no id");
    changed("before", json_string("a"), LK_ECORRUPT, "before is no id");
    changed("unicode", json_string("15.0.0"), LK_EUNSUPPORTED, "15.0.0");
    changed("invalid_utf8", json_string("drop"), LK_EUNSUPPORTED, "drop");
    changed("vocab", json_integer(999), LK_ECORRUPT, "vocabulary of 999");
    changed("vocab", json_integer(-1), LK_EINVAL, "vocab");
    changed("merge_count", json_integer(1), LK_ECORRUPT, "merges");
    changed("merge_count", json_integer(INT64_MAX), LK_ECORRUPT, "merges");
    changed("tokens", json_string(hex), LK_ECORRUPT, "tokens");
    changed("merges", json_string(hex), LK_ECORRUPT, "merges");
    changed("merges", json_string("abc"), LK_ECORRUPT, "no root");
    changed("merges", NULL, LK_EINVAL, "merges");
    changed("special", json_integer(1), LK_ECORRUPT, "special");
    changed("special", json_pack("[i]", 5000), LK_ECORRUPT, "special[0]");
    memset(&small, 7, sizeof small);
    changed("tokens", json_string(lk_root_hex(&small, hex)), LK_ENOTFOUND, "its tokens");
}

/* Flips a bit in the middle of a blob's file. */
static void flip(const struct lk_root *root) {
    char path[4096];
    lk_blob_path(store->blobs, root, path);
    chmod(path, 0644);
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    long middle = ftell(f) / 2;
    assert_int_equal(fseek(f, middle, SEEK_SET), 0);
    int c = fgetc(f);
    assert_int_equal(fseek(f, middle, SEEK_SET), 0);
    fputc(c ^ 4, f);
    fclose(f);
}

static void a_flipped_bit_is_found(void **state) {
    (void)state;
    static const char *const parts[] = {"tokens", "merges", NULL};
    for (int i = 0; i < 3; i++) {
        struct lk_root root, part;
        struct lk_tokenizer *t;
        json_t *m;
        OK(lk_tokenizer_save(store, golden, &root, &test_err));
        OK(lk_manifest_get(store, &root, "tokenizer", &m, &test_err));
        part = root;
        if (parts[i]) assert_true(lk_root_parse(json_string_value(json_object_get(m, parts[i])), &part));
        json_decref(m);
        flip(&part);
        int code = lk_tokenizer_load(store, &root, &t, &test_err);
        assert_int_equal(code, LK_ECORRUPT);
        if (parts[i]) assert_non_null(strstr(test_err.message, parts[i]));
        assert_null(t);
        OK(lk_blob_delete(store->blobs, &part, &test_err));
    }
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    struct lk_root root;
    struct lk_tokenizer *t;
    lk__alloc_fail_at(0);
    OK(lk_tokenizer_save(store, golden, &root, &test_err));
    uint64_t saving = lk__alloc_count();
    OK(lk_tokenizer_load(store, &root, &t, &test_err));
    uint64_t loading = lk__alloc_count() - saving;
    lk_tokenizer_free(t);
    for (uint64_t n = 1; n <= saving; n++) {
        struct lk_root other;
        lk__alloc_fail_at(n);
        int code = lk_tokenizer_save(store, golden, &other, &test_err);
        lk__alloc_fail_at(0);
        if (!code) assert_true(lk_root_equal(&root, &other));
    }
    for (uint64_t n = 1; n <= loading; n++) {
        lk__alloc_fail_at(n);
        int code = lk_tokenizer_load(store, &root, &t, &test_err);
        lk__alloc_fail_at(0);
        if (!code) fail_msg("allocation %llu failed and nobody saw it", (unsigned long long)n);
        assert_null(t);
    }
}

static void every_system_call_may_fail(void **state) {
    (void)state;
    struct lk_root root;
    OK(lk_tokenizer_save(store, golden, &root, &test_err));
    for (uint64_t n = 1; n < 60; n++) {
        struct lk_tokenizer *t;
        struct lk_root other;
        json_t *m;
        OK(lk_manifest_get(store, &root, "tokenizer", &m, &test_err)); /* so that everything is written again */
        struct lk_root parts[3] = {root};
        assert_true(lk_root_parse(json_string_value(json_object_get(m, "tokens")), &parts[1]));
        assert_true(lk_root_parse(json_string_value(json_object_get(m, "merges")), &parts[2]));
        json_decref(m);
        for (int i = 0; i < 3; i++) OK(lk_blob_delete(store->blobs, &parts[i], &test_err));
        lk__file_fail_at(n, ENOSPC);
        int code = lk_tokenizer_save(store, golden, &other, &test_err);
        bool reached = lk__file_call_count() >= n;
        lk__file_fail_at(0, 0);
        if (code) assert_int_equal(code, LK_EIO);
        OK(lk_tokenizer_save(store, golden, &root, &test_err));
        OK(lk_tokenizer_load(store, &root, &t, &test_err));
        lk_tokenizer_free(t);
        if (!reached) break;
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_loaded_tokenizer_is_the_saved_one),
        cmocka_unit_test(other_manifests_are_refused),
        cmocka_unit_test(a_flipped_bit_is_found),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(every_system_call_may_fail),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
