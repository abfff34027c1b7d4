/* Which blobs rows hold; what stops the collector; rows that are committed while it looks; failures. */
#include "base/testing.h"
#include "lockstep/store/gc.h"
#include "lockstep/store/uploads.h"
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>

struct world {
    char *dir;
    struct lk_store *store;
};
static struct lk_blobs *others; /* the store's, of one who announces nothing: a process that has ended since */
static int setup(void **state) {
    static struct world w;
    w.dir = test_dir_make();
    OK(lk_store_open(w.dir, LK_CREATE, &w.store, &test_err));
    char *blobs = test_join(w.dir, "blobs");
    OK(lk_blobs_open(blobs, LK_WRITE, &others, &test_err));
    lk_free(blobs);
    *state = &w;
    return 0;
}
static int teardown(void **state) {
    struct world *w = *state;
    lk_store_close(w->store);
    lk_blobs_close(others);
    test_dir_remove(w->dir);
    return 0;
}

static struct lk_root blob(struct lk_store *s, const char *text) {
    struct lk_root root;
    (void)s;
    OK(lk_blob_put(others, text, strlen(text), &root, &test_err));
    return root;
}
static int put_row(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    const char *const *row = arg;
    return lk_kv_put(txn, lk_bytes(row[0], strlen(row[0])), lk_bytes(row[1], strlen(row[1])), err);
}
static void row(struct lk_store *s, const char *key, const char *value) {
    const char *both[] = {key, value};
    OK(lk_kv_update(s->kv, put_row, (void *)(uintptr_t)both, LK_LAZY, NULL, &test_err));
}

/* Rows "k/NAME" hold what their text names. */
static struct {
    struct lk_store *store;
    const char *key, *value;         /* a row that is committed when the first row is looked at */
    void (*does)(struct lk_store *); /* or this is done, when a row is looked at for so many times */
    int calls;
    struct lk_store *batch;
} meanwhile;
static int text_holds(struct lk_bytes key, struct lk_bytes value, lk_row_tell_fn *tell, void *arg, struct lk_err *err) {
    (void)key;
    if (meanwhile.store && --meanwhile.calls <= 0) {
        struct lk_store *s = meanwhile.store;
        meanwhile.store = NULL;
        if (meanwhile.does)
            meanwhile.does(s);
        else
            row(s, meanwhile.key, meanwhile.value);
        meanwhile.does = NULL;
    }
    if (value.size == 3) return lk_fail(err, LK_ECORRUPT, "the row is damaged");
    return lk_row_tell_hex(value.data, value.size, tell, arg);
}
static const struct lk_row_kind text_rows[] = {{.prefix = "k/", .holds = text_holds}, {.prefix = "k/old/"}, {0}};
static const struct lk_row_kind *const kinds[] = {text_rows, NULL};

struct told {
    uint32_t goes, young;
    char holders[200];
};
static void tell(void *arg, const struct lk_gc_blob *b) {
    struct told *t = arg;
    t->goes += b->goes, t->young += !b->goes && !b->holder;
    if (b->holder && !strstr(t->holders, b->holder))
        snprintf(t->holders + strlen(t->holders), sizeof t->holders - strlen(t->holders), "%s;", b->holder);
}
static struct lk_gc_result collect(struct lk_store *s, int64_t grace_ms, bool dry, struct told *told) {
    struct lk_gc_result r;
    *told = (struct told){0};
    OK(lk_store_gc(s, kinds, &(struct lk_gc_options){grace_ms, dry, tell, told}, &r, &test_err));
    return r;
}

static void rows_keep_what_they_reach(void **state) {
    struct lk_store *s = ((struct world *)*state)->store;
    char hex[LK_ROOT_HEX], text[200];
    struct lk_root leaf = blob(s, "a leaf"), old = blob(s, "held by a row that holds nothing"), named = blob(s, "named");
    struct told told;
    snprintf(text, sizeof text, "{\"leaf\": \"%s\"}", lk_root_hex(&leaf, hex));
    struct lk_root manifest = blob(s, text);
    row(s, "k/one", lk_root_hex(&manifest, hex));
    row(s, "k/old/one", lk_root_hex(&old, hex)); /* the longest prefix counts */
    OK(lk_store_name_put(s, "thing", "name", &named, &test_err));
    blob(s, "an orphan");
    struct lk_gc_result r = collect(s, 3600000, true, &told);
    assert_true(r.blobs == 0 && r.kept == 5 && told.young == 2 && told.goes == 0);
    r = collect(s, 0, true, &told);
    assert_true(r.blobs == 2 && r.kept == 3 && told.goes == 2);
    assert_true(strstr(told.holders, "k/one;") && strstr(told.holders, "thing name;"));
    r = collect(s, 0, false, &told);
    assert_true(r.blobs == 2 && r.kept == 3 && r.bytes == strlen("an orphan") + 32);
    assert_true(lk_blob_exists(s->blobs, &leaf) && !lk_blob_exists(s->blobs, &old));
    r = collect(s, 0, false, &told);
    assert_true(r.blobs == 0 && r.kept == 3);
}

static void what_is_not_known_stops_it(void **state) {
    struct lk_store *s = ((struct world *)*state)->store;
    struct lk_root orphan = blob(s, "an orphan");
    struct lk_gc_result r;
    const struct lk_gc_options now = {.grace_ms = 0};
    row(s, "unknown\x01row", "x");
    FAILS(lk_store_gc(s, kinds, &now, &r, &test_err), LK_EUNSUPPORTED, "the row \"unknown\\x01row\" is of no kind");
    row(s, "formatted", "x"); /* "format" is all of a key, or nothing of it */
    FAILS(lk_store_gc(s, kinds, &now, &r, &test_err), LK_EUNSUPPORTED, "the row \"formatted\" is of no kind");
    FAILS(lk_store_gc_dropped(s, kinds, &orphan, 1, &test_err), LK_EUNSUPPORTED, "nothing was removed");
    assert_true(lk_blob_exists(s->blobs, &orphan));
}

static void damage_stops_it(void **state) {
    struct lk_store *s = ((struct world *)*state)->store;
    struct lk_root orphan = blob(s, "an orphan");
    struct lk_gc_result r;
    const struct lk_gc_options now = {.grace_ms = 0};
    row(s, "k/bad", "bad");
    FAILS(lk_store_gc(s, kinds, &now, &r, &test_err), LK_ECORRUPT, "nothing was removed, since");
    row(s, "k/bad", "good");
    row(s, "n/thing/torn", "less than a root");
    FAILS(lk_store_gc(s, kinds, &now, &r, &test_err), LK_ECORRUPT, "the row of the name thing/torn has 16 bytes");
    assert_true(lk_blob_exists(s->blobs, &orphan));
}

static void a_row_that_comes_meanwhile_counts(void **state) {
    struct lk_store *s = ((struct world *)*state)->store;
    char hex[LK_ROOT_HEX];
    struct lk_root late = blob(s, "named while it was looked for"), orphan = blob(s, "an orphan");
    struct told told;
    row(s, "k/first", "nothing");
    meanwhile.key = "k/late", meanwhile.value = lk_root_hex(&late, hex), meanwhile.store = s;
    struct lk_gc_result r = collect(s, 0, false, &told);
    assert_true(r.blobs == 1 && r.kept == 1);
    assert_true(lk_blob_exists(s->blobs, &late) && !lk_blob_exists(s->blobs, &orphan));
}

/* A writer finds its blob there when the collector has chosen it already. */
static void find_again(struct lk_store *s) {
    blob(s, "an old blob");
}
static void a_blob_that_is_found_meanwhile_stays(void **state) {
    struct world *w = *state;
    struct lk_root old = blob(w->store, "an old blob");
    char path[4096];
    const struct timespec before[2] = {{time(NULL) - 100000, 0}, {time(NULL) - 100000, 0}};
    struct told told;
    row(w->store, "k/first", "nothing");
    assert_int_equal(utimensat(AT_FDCWD, lk_blob_path(w->store->blobs, &old, path), before, 0), 0);
    meanwhile.does = find_again, meanwhile.calls = 2, meanwhile.store = w->store; /* the second look at the rows */
    struct lk_gc_result r = collect(w->store, 3600000, false, &told);
    assert_true(!meanwhile.store && r.blobs == 0 && r.kept == 1 && lk_blob_exists(w->store->blobs, &old));
    assert_int_equal(utimensat(AT_FDCWD, path, before, 0), 0);
    r = collect(w->store, 3600000, false, &told);
    assert_true(r.blobs == 1 && !lk_blob_exists(w->store->blobs, &old));
}

/* Four calls share a transaction: the second removes the row of a blob, the third drops the blob, the fourth dies, and so
 * the row is there again. */
static struct lk_root shared_root;
static int delete_holder(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    (void)arg;
    return lk_kv_delete(txn, lk_bytes("k/holder", 8), err);
}
static int die(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    (void)txn, (void)arg, (void)err;
    _exit(7);
}
static void *calls(void *arg) {
    struct lk_store *s = meanwhile.batch;
    switch (*(int *)arg) {
    case 0:
        row(s, "k/waits", "y");
        break;
    case 1:
        lk_kv_update(s->kv, delete_holder, NULL, LK_DURABLE, NULL, NULL);
        break;
    case 2:
        lk_store_gc_dropped(s, kinds, &shared_root, 1, NULL);
        break;
    default:
        lk_kv_update(s->kv, die, NULL, LK_DURABLE, NULL, NULL);
    }
    return NULL;
}
static void a_shared_transaction_that_dies_removes_nothing(void **state) {
    struct world *w = *state;
    char hex[LK_ROOT_HEX];
    int status, order[] = {0, 1, 2, 3};
    shared_root = blob(w->store, "needed");
    row(w->store, "k/holder", lk_root_hex(&shared_root, hex));
    pid_t child = fork();
    if (!child) {
        struct lk_kv_txn *t;
        pthread_t threads[4];
        if (lk_store_open(w->dir, LK_WRITE, &meanwhile.batch, NULL) || lk_kv_begin(meanwhile.batch->kv, true, &t, NULL))
            _exit(1);
        for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, calls, &order[i]), usleep(50000);
        lk_kv_abort(t);
        pthread_join(threads[3], NULL);
        _exit(2);
    }
    waitpid(child, &status, 0);
    assert_int_equal(WEXITSTATUS(status), 7);
    struct lk_kv_txn *t;
    struct lk_bytes value;
    OK(lk_kv_begin(w->store->kv, false, &t, &test_err));
    OK(lk_kv_get(t, lk_bytes("k/holder", 8), &value, &test_err));
    lk_kv_abort(t);
    assert_true(lk_blob_exists(w->store->blobs, &shared_root));
}

/* What a process puts stays until it closes the store or is gone, whatever its age; a name takes it over. */
static struct lk_root put(struct lk_store *s, const char *text) {
    struct lk_root root;
    OK(lk_blob_put(s->blobs, text, strlen(text), &root, &test_err));
    return root;
}
static void what_is_being_put_stays(void **state) {
    struct world *w = *state;
    struct lk_store *own;
    struct told told;
    OK(lk_store_open(w->dir, LK_WRITE, &own, &test_err));
    struct lk_root orphan = blob(w->store, "found"), found = put(own, "found"), one = put(own, "one"),
                   two = put(own, "two");
    assert_true(lk_root_equal(&orphan, &found));
    struct lk_gc_result r = collect(w->store, 0, true, &told);
    assert_true(r.blobs == 0 && r.kept == 3 && strstr(told.holders, "being put by process"));
    OK(lk_store_gc_dropped(w->store, kinds, &two, 1, &test_err));
    assert_true(collect(w->store, 0, false, &told).blobs == 0);
    OK(lk_store_name_put(own, "thing", "one", &one, &test_err));
    lk_store_close(own);
    assert_true(collect(w->store, 0, false, &told).blobs == 2);
    assert_true(lk_blob_exists(w->store->blobs, &one) && !lk_blob_exists(w->store->blobs, &two));
}
static int name_two(struct lk_kv_txn *t, void *arg, struct lk_err *err) {
    const struct lk_root *roots = arg;
    int code = lk_uploads_named(meanwhile.batch, t, roots, 2, err);
    return code ? code : lk_name_put(t, "thing", "kept", &roots[0], err);
}
static void what_is_named_is_held_by_its_name(void **state) {
    struct world *w = *state;
    struct told told;
    struct lk_root roots[] = {put(w->store, "kept"), put(w->store, "dropped")};
    meanwhile.batch = w->store;
    OK(lk_kv_update(w->store->kv, name_two, roots, LK_DURABLE, NULL, &test_err));
    lk_uploads_forget(w->store, roots, 2);
    assert_true(collect(w->store, 0, false, &told).blobs == 1 && lk_blob_exists(w->store->blobs, &roots[0]));
}
static void a_killed_writer_holds_nothing(void **state) {
    struct world *w = *state;
    struct told told;
    int ready[2];
    char c;
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    if (!child) {
        struct lk_store *own;
        struct lk_root root;
        _exit(lk_store_open(w->dir, LK_WRITE, &own, NULL) || lk_blob_put(own->blobs, "x", 1, &root, NULL) ||
              write(ready[1], "x", 1) != 1 || pause());
    }
    assert_int_equal(read(ready[0], &c, 1), 1);
    assert_true(collect(w->store, 0, false, &told).blobs == 0);
    kill(child, SIGSTOP); /* standing still is not being gone */
    assert_true(collect(w->store, 0, false, &told).blobs == 0);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    assert_true(collect(w->store, 0, true, &told).blobs == 1);
    assert_true(collect(w->store, 0, false, &told).blobs == 1);
    close(ready[0]), close(ready[1]);
}
static void what_is_dropped_goes_unless_it_is_needed(void **state) {
    struct lk_store *s = ((struct world *)*state)->store;
    char hex[LK_ROOT_HEX], a[200], b[200];
    struct lk_root shared = blob(s, "shared"), own = blob(s, "own"), other = blob(s, "an orphan that nobody asked about");
    snprintf(a, sizeof a, "{\"x\": \"%s\", ", lk_root_hex(&shared, hex));
    snprintf(a + strlen(a), sizeof a - strlen(a), "\"y\": \"%s\"}", lk_root_hex(&own, hex));
    snprintf(b, sizeof b, "{\"x\": \"%s\"}", lk_root_hex(&shared, hex));
    struct lk_root dropped = blob(s, a), kept = blob(s, b);
    row(s, "k/kept", lk_root_hex(&kept, hex));
    OK(lk_store_gc_dropped(s, kinds, &dropped, 1, &test_err));
    assert_true(lk_blob_exists(s->blobs, &shared) && lk_blob_exists(s->blobs, &kept) && lk_blob_exists(s->blobs, &other));
    assert_false(lk_blob_exists(s->blobs, &own) || lk_blob_exists(s->blobs, &dropped));
    OK(lk_store_gc_dropped(s, kinds, &dropped, 1, &test_err)); /* twice is no error */
    OK(lk_store_gc_dropped(s, kinds, NULL, 0, &test_err));
}

static void memory_that_fails_removes_nothing_needed(void **state) {
    struct lk_store *s = ((struct world *)*state)->store;
    char hex[LK_ROOT_HEX];
    struct lk_root needed = blob(s, "needed");
    struct lk_gc_result r;
    row(s, "k/one", lk_root_hex(&needed, hex));
    for (uint64_t nth = 1, made = 1; made >= nth; nth++) {
        blob(s, "an orphan");
        lk__alloc_fail_at(nth);
        int code = lk_store_gc(s, kinds, &(struct lk_gc_options){.grace_ms = 0}, &r, &test_err);
        made = lk__alloc_count();
        lk__alloc_fail_at(0);
        assert_true(code == LK_ENOMEM || (code == LK_OK && r.blobs == 1));
        assert_true(lk_blob_exists(s->blobs, &needed));
    }
}

int main(void) {
#define WITH_STORE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        WITH_STORE(rows_keep_what_they_reach),
        WITH_STORE(what_is_not_known_stops_it),
        WITH_STORE(damage_stops_it),
        WITH_STORE(a_row_that_comes_meanwhile_counts),
        WITH_STORE(a_blob_that_is_found_meanwhile_stays),
        WITH_STORE(a_shared_transaction_that_dies_removes_nothing),
        WITH_STORE(what_is_being_put_stays),
        WITH_STORE(what_is_named_is_held_by_its_name),
        WITH_STORE(a_killed_writer_holds_nothing),
        WITH_STORE(what_is_dropped_goes_unless_it_is_needed),
        WITH_STORE(memory_that_fails_removes_nothing_needed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
