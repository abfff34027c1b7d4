/* An engine whose n-th call fails, for every n: the caller sees that error, nothing half is there, nothing is lost. */
#include "lockstep/base/progress.h"
#include "store/kv/kv_lmdb.h"
#include "store/kv/testing.h"

/* The calls go to the engine below, but one. Threads that share commits may come here at once. */
static struct {
    const struct lk_kv_ops *below;
    atomic_long calls, fail_at; /* 0: none */
    int code;
} fault;

static bool due(struct lk_err *err) {
    if (atomic_fetch_add(&fault.calls, 1) + 1 != fault.fail_at) return false;
    lk_fail(err, fault.code, "a planted fault");
    return true;
}
static int begin_(struct lk_kv *kv, bool write, struct lk_kv_txn **out, struct lk_err *err) {
    return due(err) ? fault.code : fault.below->begin(kv, write, out, err);
}
static int commit_(struct lk_kv_txn *t, enum lk_durability d, bool stamped, int64_t *ms, struct lk_err *err) {
    if (!due(err)) return fault.below->commit(t, d, stamped, ms, err);
    fault.below->abort(t);
    return fault.code;
}
static int timestamp_(struct lk_kv_txn *t, int64_t *ms, struct lk_err *err) {
    return due(err) ? fault.code : fault.below->timestamp(t, ms, err);
}
static int get_(struct lk_kv_txn *t, struct lk_bytes key, struct lk_bytes *value, struct lk_err *err) {
    return due(err) ? fault.code : fault.below->get(t, key, value, err);
}
static int put_(struct lk_kv_txn *t, struct lk_bytes key, struct lk_bytes value, struct lk_err *err) {
    return due(err) ? fault.code : fault.below->put(t, key, value, err);
}
static int remove_(struct lk_kv_txn *t, struct lk_bytes key, struct lk_err *err) {
    return due(err) ? fault.code : fault.below->remove(t, key, err);
}
static int remove_range_(struct lk_kv_txn *t, struct lk_bytes from, struct lk_bytes to, struct lk_err *err) {
    return due(err) ? fault.code : fault.below->remove_range(t, from, to, err);
}
static int cursor_open_(struct lk_kv_txn *t, struct lk_kv_cursor **out, struct lk_err *err) {
    return due(err) ? fault.code : fault.below->cursor_open(t, out, err);
}
static int cursor_seek_(struct lk_kv_cursor *c, struct lk_bytes key, bool back, struct lk_err *err) {
    return due(err) ? fault.code : fault.below->cursor_seek(c, key, back, err);
}
static int cursor_step_(struct lk_kv_cursor *c, bool back, struct lk_err *err) {
    return due(err) ? fault.code : fault.below->cursor_step(c, back, err);
}

/* Whether an engine's own lk_kv_update begins and ends through its operations, and so meets the faults. */
static bool shares(const struct lk_kv_ops *ops) {
    return ops == &lk__kv_lmdb;
}

static struct lk_kv_ops faulty;
static struct lk_kv *open_faulty(const struct world *w, bool shared) {
    struct lk_kv *kv = world_open(w);
    fault.below = kv->ops;
    faulty = *kv->ops;
    faulty.begin = begin_;
    faulty.commit = commit_;
    faulty.timestamp = timestamp_;
    faulty.get = get_;
    faulty.get_many = NULL;
    faulty.put = put_;
    faulty.remove = remove_;
    faulty.remove_range = faulty.remove_range ? remove_range_ : NULL;
    faulty.cursor_open = cursor_open_;
    faulty.cursor_seek = cursor_seek_;
    faulty.cursor_step = cursor_step_;
    if (!shared) faulty.update = NULL;
    kv->ops = &faulty;
    return kv;
}

/* A bit of everything: long keys, a range, cursors on both sides of a write. The first error ends it. */
static int script(struct lk_kv_txn *t, void *arg, struct lk_err *err) {
    const struct world *w = arg;
    unsigned char key[LK_KV_KEY_MAX];
    struct lk_bytes deep = long_key(key, 3 * w->key_max, 'x'), values[2];
    struct lk_kv_cursor *c;
    int64_t ms;
    int code = lk_kv_put(t, S("a"), S("after"), err);
    if (code == 0) code = lk_kv_put(t, deep, S("after"), err);
    if (code == 0) code = lk__kv_timestamp(t, &ms, err);
    if (code == 0) code = lk_kv_get_many(t, (struct lk_bytes[]){S("b"), deep}, 2, values, err);
    if (code != 0 || (code = lk_kv_cursor_open(t, lk_bytes("", 0), lk_bytes("", 0), &c, err)) != 0) return code;
    code = lk_kv_cursor_first(c, err);
    if (code == 0) code = lk_kv_delete(t, S("b"), err);
    for (; code == 0; code = lk_kv_cursor_next(c, err)) {}
    if (code == LK_ENOTFOUND) code = lk_kv_cursor_last(c, err);
    if (code == 0) code = lk_kv_cursor_previous(c, err);
    lk_kv_cursor_close(c);
    if (code == 0) code = lk_kv_delete_range(t, S("c"), S("e"), err);
    return code == 0 ? lk_kv_delete(t, deep, err) : code;
}

static int count_row(void *arg, struct lk_bytes key, struct lk_bytes value) {
    (void)key, (void)value;
    ++*(int *)arg;
    return 0;
}
/* All of the script or none of it. */
static void check(struct lk_kv *kv, bool done) {
    struct lk_kv_txn *t = begin(kv, false);
    int rows = 0;
    row_is(t, "a", done ? "after" : "before");
    row_is(t, "b", done ? NULL : "before");
    row_is(t, "c", done ? NULL : "before");
    row_is(t, "e", "before");
    OK(lk_kv_scan(t, lk_bytes("", 0), lk_bytes("", 0), count_row, &rows, &test_err));
    assert_int_equal(rows, done ? 2 : 5);
    lk_kv_abort(t);
}
static void reset(struct lk_kv *kv) {
    struct lk_kv_txn *t = begin(kv, true);
    OK(lk_kv_delete_range(t, lk_bytes("", 0), lk_bytes("", 0), &test_err));
    for (const char *k = "abcde"; *k; k++) OK(lk_kv_put(t, lk_bytes(k, 1), S("before"), &test_err));
    commit(t);
}

static void each_call_fails(struct world *w, bool shared) {
    static const int codes[] = {LK_EIO, LK_ENOMEM, LK_ECORRUPT};
    struct lk_kv *kv = open_faulty(w, shared);
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        for (long nth = 1;; nth++) {
            reset(kv);
            int64_t ms = -1;
            fault.code = codes[i];
            fault.calls = 0;
            fault.fail_at = nth;
            struct lk_err err = {0};
            int code = lk_kv_update(kv, script, w, LK_LAZY, &ms, &err);
            bool failed = fault.calls >= nth;
            fault.fail_at = 0;
            assert_int_equal(code, failed ? codes[i] : 0);
            if (failed) assert_string_equal(err.message, "a planted fault");
            assert_true(failed == (ms == -1));
            check(kv, !failed);
            if (!failed) break;
            assert_true(nth < 500);
        }
    lk_kv_close(kv);
}

static void every_call_fails(struct world *w) {
    each_call_fails(w, false);
    if (shares(w->kv->ops)) each_call_fails(w, true);
}

/* A conflict is run again, wherever it comes. */
static void each_call_conflicts(struct world *w, bool shared) {
    struct lk_kv *kv = open_faulty(w, shared);
    for (long nth = 1;; nth++) {
        reset(kv);
        fault.code = LK_ECONFLICT;
        fault.calls = 0;
        fault.fail_at = nth;
        OK(lk_kv_update(kv, script, w, LK_LAZY, NULL, &test_err));
        bool met = fault.calls >= nth;
        fault.fail_at = 0;
        check(kv, true);
        if (!met) break;
    }
    lk_kv_close(kv);
}

static void every_call_conflicts(struct world *w) {
    each_call_conflicts(w, false);
    if (shares(w->kv->ops)) each_call_conflicts(w, true);
}

/* --- many calls in one transaction, one of which meets a fault ------------------------------------------------ */

#define SHARERS 6
struct sharer {
    struct lk_kv *kv;
    char key[2];
    int code;
};
static int put_twice(struct lk_kv_txn *t, void *arg, struct lk_err *err) {
    const struct sharer *s = arg;
    char second[3] = {s->key[0], '2', 0};
    int code = lk_kv_put(t, S(s->key), S("mine"), err);
    return code == 0 ? lk_kv_put(t, S(second), S("mine"), err) : code;
}
static void *share(void *arg) {
    struct sharer *s = arg;
    struct lk_err err;
    s->code = lk_kv_update(s->kv, put_twice, s, LK_DURABLE, NULL, &err);
    return NULL;
}
/* The first leads a transaction of its own and waits for the write lock; the others come into the queue behind it. */
static void queue_is(struct lk_kv *kv, size_t want) {
    struct lk__kv_lmdb_env *env = ((struct lk__kv_lmdb *)kv)->env;
    for (size_t queued = SIZE_MAX; queued != want; sched_yield()) {
        pthread_mutex_lock(&env->queue_lock);
        queued = env->queued;
        pthread_mutex_unlock(&env->queue_lock);
    }
}
static void share_all(struct lk_kv *kv, struct sharer sharers[SHARERS], long fail_at) {
    pthread_t threads[SHARERS];
    struct lk_kv_txn *held = begin(kv, true);
    OK(lk_kv_delete_range(held, lk_bytes("", 0), lk_bytes("", 0), &test_err));
    fault.calls = 0, fault.fail_at = 0;
    for (size_t i = 0; i < SHARERS; i++) {
        sharers[i] = (struct sharer){.kv = kv, .key = {(char)('a' + i)}};
        assert_int_equal(pthread_create(&threads[i], NULL, share, &sharers[i]), 0);
        if (i == 0)
            while (fault.calls < 1) sched_yield(); /* it begins */
        queue_is(kv, i);
    }
    fault.calls = 0, fault.fail_at = fail_at;
    OK(fault.below->commit(held, LK_LAZY, false, NULL, &test_err));
    for (size_t i = 0; i < SHARERS; i++) assert_int_equal(pthread_join(threads[i], NULL), 0);
}
/* Whatever fails, in whichever of the calls: those that say 0 are there, whole, and nothing else is. */
static void one_of_many_fails(struct world *w) {
    if (!shares(w->kv->ops)) return;
    struct lk_kv *kv = open_faulty(w, true);
    long failures = 0, nth = 1;
    for (bool met = true; met; nth++) {
        struct sharer sharers[SHARERS];
        fault.code = nth % 3 ? LK_EIO : LK_ECONFLICT;
        share_all(kv, sharers, nth);
        met = fault.calls >= nth;
        fault.fail_at = 0;
        struct lk_kv_txn *t = begin(kv, false);
        int failed = 0;
        for (size_t i = 0; i < SHARERS; i++) {
            const char *value = sharers[i].code == 0 ? "mine" : NULL;
            row_is(t, sharers[i].key, value);
            row_is(t, (char[]){sharers[i].key[0], '2', 0}, value);
            failed += !value;
        }
        lk_kv_abort(t);
        assert_true(failed <= (fault.code == LK_EIO && met));
        failures += failed;
    }
    /* Those that were first in their transaction; the others were run again, alone, where nothing fails any more. */
    assert_true(failures > 0 && nth > 2 * SHARERS);
    lk_kv_close(kv);
}

/* After a failed write only the end is left, and it says so. */
static void a_failed_write_ends_the_transaction(struct world *w) {
    struct lk_kv *kv = open_faulty(w, false);
    struct lk_kv_txn *t = begin(kv, true);
    fault.calls = 0, fault.fail_at = 1, fault.code = LK_EIO;
    FAILS(lk_kv_put(t, S("a"), S("1"), &test_err), LK_EIO, "planted");
    fault.fail_at = 0;
    FAILS(lk_kv_put(t, S("b"), S("2"), &test_err), LK_EIO, "nothing of it");
    FAILS(lk_kv_delete(t, S("b"), &test_err), LK_EIO, "nothing of it");
    FAILS(lk_kv_delete_range(t, S("b"), S("c"), &test_err), LK_EIO, "nothing of it");
    FAILS(lk_kv_commit(t, LK_DURABLE, NULL, &test_err), LK_EIO, "nothing of it");
    t = begin(kv, true);
    fault.calls = 0, fault.fail_at = 1, fault.code = LK_ECONFLICT;
    struct lk_bytes v;
    FAILS(lk_kv_get(t, S("a"), &v, &test_err), LK_ECONFLICT, "planted");
    FAILS(lk_kv_put(t, S("b"), S("2"), &test_err), LK_ECONFLICT, "run it again");
    FAILS(lk_kv_commit(t, LK_DURABLE, NULL, &test_err), LK_ECONFLICT, "run it again");
    fault.fail_at = 0;
    lk_kv_close(kv);
}

/* Memory that runs out in each place of the floor and of the engine. */
static int run_script(struct world *w) {
    struct lk_err err = {0};
    return lk_kv_update(w->kv, script, w, LK_LAZY, NULL, &err);
}
static void out_of_memory(struct world *w) {
    reset(w->kv);
    for (uint64_t nth = 1;; nth++) {
        lk__alloc_fail_at(nth);
        int code = run_script(w);
        uint64_t made = lk__alloc_count();
        lk__alloc_fail_at(0);
        if (made < nth) {
            assert_int_equal(code, 0);
            break;
        }
        assert_int_equal(code, LK_ENOMEM);
        check(w->kv, false);
    }
    check(w->kv, true);
}

int main(void) {
    lk_log_quiet(true);
    const struct CMUnitTest tests[] = {
        WORLD_TEST(every_call_fails),  WORLD_TEST(every_call_conflicts),
        WORLD_TEST(one_of_many_fails), WORLD_TEST(a_failed_write_ends_the_transaction),
        WORLD_TEST(out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
