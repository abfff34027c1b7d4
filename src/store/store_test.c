#include "base/testing.h"
#include "lockstep/base/progress.h"
#include "lockstep/store/store.h"

static struct lk_store *open_at(const char *dir) {
    struct lk_store *s;
    struct lk_err e;
    if (lk_store_open(dir, LK_CREATE, &s, &e) != 0) fail_msg("%s", e.message);
    return s;
}
static struct lk_kv_txn *begin(struct lk_store *s, bool write) {
    struct lk_kv_txn *txn;
    assert_int_equal(lk_kv_begin(s->kv, write, &txn, NULL), 0);
    return txn;
}
static void commit(struct lk_kv_txn *txn) {
    assert_int_equal(lk_kv_commit(txn, LK_DURABLE, NULL, NULL), 0);
}
static struct lk_root root_of(const char *text) {
    struct lk_root root;
    lk_root_of(text, strlen(text), &root);
    return root;
}

static void opening(void **state) {
    struct lk_store *s;
    struct lk_err e;
    char *dir = test_join(*state, "lockstep.d"), *url = lk_asprintf("file:%s", dir);
    assert_int_equal(lk_store_open(dir, LK_READ, &s, &e), LK_ENOTFOUND);
    assert_non_null(strstr(e.message, dir));
    assert_non_null(strstr(e.message, "dataset build"));
    assert_false(lk_file_exists(dir)); /* looking makes nothing */
    assert_int_equal(lk_store_open(url, LK_CREATE, &s, &e), 0);
    assert_string_equal(s->dir, dir);
    assert_string_equal(s->url, url);
    lk_store_close(s);
    assert_int_equal(lk_store_open(dir, LK_READ, &s, &e), 0);
    lk_store_close(s);
    lk_store_close(NULL);
    assert_int_equal(lk_store_open("postgresql://h/db", LK_CREATE, &s, &e), LK_EINVAL);
    assert_non_null(strstr(e.message, "--blobs DIR"));
    assert_int_equal(lk_store_open("mysql://u:secret@h/db", LK_CREATE, &s, &e), LK_EUNSUPPORTED);
    assert_non_null(strstr(e.message, "file:DIR"));
    assert_null(strstr(e.message, "secret"));
    assert_int_equal(lk_store_open("s3://b/p", LK_CREATE, &s, &e), LK_EUNSUPPORTED);
    assert_int_equal(lk_store_open("file:", LK_CREATE, &s, &e), LK_EINVAL);
    assert_int_equal(lk_store_open("", LK_CREATE, &s, &e), LK_EINVAL);
    lk_free(dir);
    lk_free(url);
}

static void only_the_blobs(void **state) {
    struct lk_store *s;
    struct lk_err e;
    char *dir = test_join(*state, "lockstep.d"), *url = lk_asprintf("file:%s", dir), *kv = test_join(dir, "kv");
    assert_int_equal(lk_store_open_blobs(url, NULL, &s, &e), LK_ENOTFOUND);
    assert_null(s);
    assert_non_null(strstr(e.message, "there is no store at"));
    assert_false(lk_file_exists(dir)); /* looking makes nothing */
    assert_int_equal(lk_store_open_blobs("postgresql://h/db", NULL, &s, &e), LK_EINVAL);
    assert_int_equal(lk_store_open_blobs("file:", NULL, &s, &e), LK_EINVAL);
    lk_store_close(open_at(dir));
    assert_int_equal(lk_dir_remove(kv, &e), 0); /* it is on another machine */
    assert_int_equal(lk_store_open_blobs(url, NULL, &s, &e), 0);
    assert_null(s->kv);
    assert_string_equal(s->dir, dir);
    json_t *j = json_pack("{s:i}", "a", 1), *again;
    struct lk_root root;
    assert_int_equal(lk_manifest_put(s, j, &root, &e), 0);
    assert_int_equal(lk_manifest_get(s, &root, "x", &again, &e), 0);
    assert_true(json_equal(j, again));
    json_decref(j);
    json_decref(again);
    lk_store_close(s);
    s = NULL;
    FAIL_EACH_ALLOCATION((lk_store_close(s), s = NULL, lk_store_open_blobs(url, NULL, &s, &e)));
    lk_store_close(s);
    assert_false(lk_file_exists(kv));
    lk_free(dir);
    lk_free(url);
    lk_free(kv);
}

static void unknown_formats_are_refused(void **state) {
    struct lk_store *s = open_at(*state);
    struct lk_kv_txn *w = begin(s, true);
    assert_int_equal(lk_kv_put(w, lk_bytes("format", 6), lk_bytes("17", 2), NULL), 0);
    commit(w);
    lk_store_close(s);
    struct lk_err e;
    assert_int_equal(lk_store_open(*state, LK_CREATE, &s, &e), LK_EUNSUPPORTED);
    assert_non_null(strstr(e.message, "\"17\""));
    assert_null(s);
    /* And rows without a format are someone else's. */
    char *dir = test_join(*state, "other"), *url = lk_asprintf("file:%s", dir);
    struct lk_kv *kv;
    struct lk_kv_txn *txn;
    assert_int_equal(lk_kv_open(url, LK_CREATE, &kv, &e), 0);
    assert_int_equal(lk_kv_begin(kv, true, &txn, &e), 0);
    assert_int_equal(lk_kv_put(txn, lk_bytes("x", 1), lk_bytes("y", 1), &e), 0);
    commit(txn);
    lk_kv_close(kv);
    assert_int_equal(lk_store_open(dir, LK_CREATE, &s, &e), LK_ECORRUPT);
    assert_int_equal(lk_store_open(dir, LK_READ, &s, &e), LK_ECORRUPT);
    lk_free(dir);
    lk_free(url);
}

static void valid_names(void **state) {
    (void)state;
    char name[130];
    memset(name, 'a', 128);
    name[128] = 0;
    assert_true(lk_name_valid(name));
    strcpy(name + 128, "a");
    assert_false(lk_name_valid(name));
    static const char *const good[] = {"a", "A-b_c.9", "_", "0"}, *const bad[] = {"",    ".a",       "-a", "a/b",
                                                                                  "a b", "\xc3\xa4", "a\n"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) assert_true(lk_name_valid(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) assert_false(lk_name_valid(bad[i]));
}

struct history {
    int rows, deleted;
    int64_t last;
};
static int on_history(void *arg, struct lk_bytes key, struct lk_bytes value) {
    struct history *h = arg;
    assert_int_equal(key.size, strlen("h/dataset/bible/") + 8);
    int64_t t = 0;
    for (int i = 0; i < 8; i++) t = t << 8 | ((const unsigned char *)key.data)[key.size - 8 + (size_t)i];
    assert_true(t > h->last);
    h->last = t;
    h->rows++;
    if (value.size == 0)
        h->deleted++;
    else
        assert_int_equal(value.size, 32);
    return 0;
}
static void names_keep_their_history(void **state) {
    struct lk_store *s = open_at(*state);
    struct lk_root a = root_of("a"), b = root_of("b"), found;
    int64_t before = lk_clock_wall_ms();
    assert_int_equal(lk_store_name_put(s, "dataset", "bible", &a, NULL), 0);
    assert_int_equal(lk_store_name_put(s, "dataset", "bible", &a, NULL), 0); /* no change, no row */
    assert_int_equal(lk_store_name_put(s, "dataset", "bible", &b, NULL), 0);
    assert_int_equal(lk_store_name_put(s, "dataset", "bible2", &b, NULL), 0);
    assert_int_equal(lk_store_name_get(s, "dataset", "bible", &found, NULL), 0);
    assert_true(lk_root_equal(&found, &b));
    struct lk_kv_txn *w = begin(s, true);
    assert_int_equal(lk_name_delete(w, "dataset", "bible", NULL), 0);
    commit(w);
    assert_int_equal(lk_store_name_get(s, "dataset", "bible", &found, NULL), LK_ENOTFOUND);
    struct lk_kv_txn *r = begin(s, false);
    struct history h = {.last = before - 1};
    assert_int_equal(
        lk_kv_scan(r, lk_bytes("h/dataset/bible/", 16), lk_bytes("h/dataset/bible0", 16), on_history, &h, NULL), 0);
    assert_int_equal(h.rows, 3);
    assert_int_equal(h.deleted, 1);
    lk_kv_abort(r);
    lk_store_close(s);
}

static void says_nothing_like(struct lk_store *s, const char *kind, const char *name, const char *message) {
    struct lk_root root;
    struct lk_err e;
    assert_int_equal(lk_store_name_get(s, kind, name, &root, &e), LK_ENOTFOUND);
    if (!strstr(e.message, message)) fail_msg("\"%s\" is not in \"%s\"", message, e.message);
}
static void suggestions(void **state) {
    struct lk_store *s = open_at(*state);
    struct lk_root root = root_of("a");
    struct lk_err e;
    says_nothing_like(s, "dataset", "x", "there is no dataset named \"x\"; the store has none");
    lk_store_name_put(s, "dataset", "bible", &root, NULL);
    says_nothing_like(s, "dataset", "bibel", "did you mean \"bible\"?");
    says_nothing_like(s, "dataset", "wikipedia", "; there is bible");
    lk_store_name_put(s, "dataset", "genesis", &root, NULL);
    lk_store_name_put(s, "dataset", "exodus", &root, NULL);
    lk_store_name_put(s, "dataset", "zz", &root, NULL);
    lk_store_name_put(s, "datasets", "wikipedia", &root, NULL); /* another kind */
    says_nothing_like(s, "dataset", "wikipedia", "; there are bible, exodus, genesis and more");
    struct lk_kv_txn *w = begin(s, true);
    json_t *j = NULL;
    assert_int_equal(lk_name_delete(w, "dataset", "exodis", &e), LK_ENOTFOUND);
    assert_non_null(strstr(e.message, "did you mean \"exodus\"?"));
    assert_int_equal(lk_record_get(w, "run", "r1", &j, &e), LK_ENOTFOUND);
    assert_int_equal(lk_name_get(w, "dataset", "none", &root, NULL), LK_ENOTFOUND);
    assert_int_equal(lk_name_put(w, "dataset", "../x", &root, &e), LK_EINVAL);
    assert_non_null(strstr(e.message, "../x"));
    assert_int_equal(lk_name_put(w, "data set", "x", &root, &e), LK_EINVAL);
    lk_kv_abort(w);
    lk_store_close(s);
}

static int collect_name(void *arg, const char *name, const struct lk_root *root) {
    (void)root;
    return lk_buf_printf(arg, "%s ", name);
}
static int collect_record(void *arg, const char *name, json_t *record) {
    if (!record) return lk_buf_printf(arg, "%s=? ", name);
    return lk_buf_printf(arg, "%s=%d ", name, (int)json_integer_value(json_object_get(record, "n")));
}
static void lists(void **state) {
    struct lk_store *s = open_at(*state);
    struct lk_kv_txn *w = begin(s, true);
    struct lk_root root = root_of("a");
    struct lk_buf b = LK_BUF_INIT;
    static const char *const names[] = {"zeta", "a", "b.c", "Z"};
    for (int i = 0; i < 4; i++) {
        json_t *j = json_pack("{s:i}", "n", i);
        assert_int_equal(lk_name_put(w, "run", names[i], &root, NULL), 0);
        assert_int_equal(lk_record_put(w, "run", names[i], j, NULL), 0);
        assert_int_equal(lk_record_put(w, "runs", "x", j, NULL), 0);
        json_decref(j);
    }
    assert_int_equal(lk_name_list(w, "run", collect_name, &b, NULL), 0);
    assert_string_equal(b.data, "Z a b.c zeta ");
    b.size = 0;
    assert_int_equal(lk_record_list(w, "run", collect_record, &b, NULL), 0);
    assert_string_equal(b.data, "Z=3 a=1 b.c=2 zeta=0 ");
    assert_int_equal(lk_record_delete(w, "run", "a", NULL), 0);
    assert_int_equal(lk_record_delete(w, "run", "a", NULL), 0);
    b.size = 0;
    assert_int_equal(lk_record_list(w, "run", collect_record, &b, NULL), 0);
    assert_string_equal(b.data, "Z=3 b.c=2 zeta=0 ");
    lk_buf_release(&b);
    commit(w);
    lk_store_close(s);
}

static void records(void **state) {
    struct lk_store *s = open_at(*state);
    struct lk_kv_txn *w = begin(s, true);
    struct lk_err e;
    struct lk_bytes v;
    json_t *j = json_pack("{s:i,s:[s,b]}", "z", 1, "a", "x", 1), *found, *real = json_pack("[f]", 1.5);
    assert_int_equal(lk_record_put(w, "run", "r/000001@5", j, &e), 0);
    assert_int_equal(lk_kv_get(w, lk_bytes("r/run/r/000001@5", 16), &v, &e), 0);
    assert_int_equal(v.size, strlen("{\"a\":[\"x\",true],\"z\":1}"));
    assert_memory_equal(v.data, "{\"a\":[\"x\",true],\"z\":1}", v.size);
    assert_int_equal(lk_record_get(w, "run", "r/000001@5", &found, &e), 0);
    assert_true(json_equal(j, found));
    json_decref(found);
    assert_int_equal(lk_record_put(w, "run", "x", real, &e), LK_EINVAL);
    assert_int_equal(lk_record_put(w, "run", "x y", j, &e), LK_EINVAL);
    assert_int_equal(lk_record_put(w, "run", "", j, &e), LK_EINVAL);
    static const char *const damaged[] = {"[]", "null", "{"}; /* JSON that is no object is no record either */
    for (int i = 0; i < 3; i++) {
        assert_int_equal(lk_kv_put(w, lk_bytes("r/run/bad", 9), lk_bytes(damaged[i], strlen(damaged[i])), &e), 0);
        assert_int_equal(lk_record_get(w, "run", "bad", &found, &e), LK_ECORRUPT);
        assert_non_null(strstr(e.message, "run bad"));
        assert_null(found);
    }
    struct lk_buf b = LK_BUF_INIT;
    assert_int_equal(lk_record_list(w, "run", collect_record, &b, &e), 0); /* the others are there */
    assert_string_equal(b.data, "bad=? r/000001@5=0 ");
    lk_buf_release(&b);
    struct lk_root root;
    assert_int_equal(lk_kv_put(w, lk_bytes("n/run/bad", 9), lk_bytes("{", 1), &e), 0);
    assert_int_equal(lk_name_get(w, "run", "bad", &root, &e), LK_ECORRUPT);
    assert_int_equal(lk_name_list(w, "run", collect_name, &b, &e), LK_ECORRUPT);
    json_decref(j);
    json_decref(real);
    lk_kv_abort(w);
    lk_store_close(s);
}

static void manifests(void **state) {
    struct lk_store *s = open_at(*state);
    struct lk_err e;
    struct lk_root root, same, text;
    json_t *a = json_pack("{s:i,s:s}", "b", 1, "a", "x"), *b = json_pack("{s:s,s:i}", "a", "x", "b", 1), *found;
    assert_int_equal(lk_manifest_put(s, a, &root, &e), 0);
    assert_int_equal(lk_manifest_put(s, b, &same, &e), 0);
    assert_true(lk_root_equal(&root, &same));
    text = root_of("{\"a\":\"x\",\"b\":1}");
    assert_true(lk_root_equal(&root, &text));
    assert_int_equal(lk_manifest_get(s, &root, "dataset d", &found, &e), 0);
    assert_true(json_equal(a, found));
    json_decref(found);
    assert_int_equal(lk_blob_put(s->blobs, "not json", 8, &text, &e), 0);
    assert_int_equal(lk_manifest_get(s, &text, "dataset d", &found, &e), LK_ECORRUPT);
    assert_non_null(strstr(e.message, "dataset d"));
    text = root_of("absent");
    assert_int_equal(lk_manifest_get(s, &text, "dataset d", &found, &e), LK_ENOTFOUND);
    assert_memory_equal(e.message, "dataset d: ", 11);
    json_decref(a);
    json_decref(b);
    lk_store_close(s);
}

static int use(const char *dir, struct lk_store **out) {
    struct lk_root root, found;
    struct lk_kv_txn *w = NULL;
    int code = lk_store_open(dir, LK_CREATE, out, NULL);
    if (code != 0) return code;
    struct lk_store *s = *out;
    json_t *j = json_pack("{s:i}", "a", 1), *back = NULL;
    if (!j) code = LK_ENOMEM;
    if (code == 0) code = lk_manifest_put(s, j, &root, NULL);
    if (code == 0) code = lk_kv_begin(s->kv, true, &w, NULL);
    if (code == 0) code = lk_name_put(w, "model", "m", &root, NULL);
    if (code == 0) code = lk_record_put(w, "model", "m", j, NULL);
    if (code == 0) code = lk_record_get(w, "model", "m", &back, NULL);
    json_decref(j);
    json_decref(back);
    if (code == 0)
        code = lk_kv_commit(w, LK_DURABLE, NULL, NULL);
    else
        lk_kv_abort(w);
    if (code == 0) code = lk_store_name_get(s, "model", "m", &found, NULL);
    if (code == 0) code = lk_manifest_get(s, &found, "m", &back, NULL);
    if (code == 0) json_decref(back);
    /* jansson calls a string that it could not store a syntax error, which makes the stored text look damaged. */
    return code == LK_ECORRUPT ? LK_ENOMEM : code;
}
/* A close that has no memory to end its announcements leaves them to the collector. */
static void out_of_memory(void **state) {
    json_set_alloc_funcs(lk_alloc, lk_free);
    for (uint64_t nth = 1, made = 1; made >= nth; nth++) {
        struct lk_store *s = NULL;
        lk__alloc_fail_at(nth);
        int code = use(*state, &s);
        made = lk__alloc_count();
        lk__alloc_fail_at(0);
        lk_store_close(s);
        assert_int_equal(code, made < nth ? LK_OK : LK_ENOMEM);
    }
    json_set_alloc_funcs(malloc, free);
}

int main(void) {
    lk_log_quiet(true);
    const struct CMUnitTest tests[] = {
        TEST_IN_DIR(opening),
        TEST_IN_DIR(only_the_blobs),
        TEST_IN_DIR(unknown_formats_are_refused),
        TEST_IN_DIR(valid_names),
        TEST_IN_DIR(names_keep_their_history),
        TEST_IN_DIR(suggestions),
        TEST_IN_DIR(lists),
        TEST_IN_DIR(records),
        TEST_IN_DIR(manifests),
        TEST_IN_DIR(out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
