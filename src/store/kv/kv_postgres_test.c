/* The PostgreSQL engine against a real server: opening, rows and cursors beside LMDB's, conflicts, groups, times. */
#include "store/kv/kv_engine.h"
#include "store/kv/postgres_testing.h"
#include <pthread.h>

/* --- URLs ------------------------------------------------------------------------------------------------------ */

static void shown_without_passwords(void **state) {
    static const char *const cases[][2] = {
        {"postgresql://u:secret@h/db", "postgresql://u:***@h/db"},
        {"postgresql://u@h:5432/db?schema=a", "postgresql://u@h:5432/db?schema=a"},
        {"postgresql://u:se/cr?et@h/db", "postgresql://u:***@h/db"},
        {"postgresql://u:se@cret@h/db", "postgresql://u:***@h/db"},
        {"postgresql://h/db?user=u&password=secret&schema=a", "postgresql://h/db?user=u&password=***&schema=a"},
        {"postgresql://h/db?pass%77ord=secret", "postgresql://h/db?pass%77ord=***"},
        {"postgresql://h/db?sslpassword=secret", "postgresql://h/db?sslpassword=***"},
        {"postgresql://h/db?password", "postgresql://h/db?password"},
        {"file:a?password=b", "file:a?password=b"},
        {"./lockstep.d", "./lockstep.d"},
        {"", ""},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *shown = lk_kv_shown(cases[i][0]);
        assert_string_equal(shown, cases[i][1]);
        lk_free(shown);
    }
}

static void opening(void **state) {
    struct lk_kv *kv;
    (void)state;
    NEEDS_SERVER();
    char *fresh = url_with("schema=fresh");
    FAILS(lk_kv_open(fresh, LK_READ, &kv, &test_err), LK_ENOTFOUND, "no store in schema fresh");
    FAILS(lk_kv_open(fresh, LK_WRITE, &kv, &test_err), LK_ENOTFOUND, "no store in schema fresh");
    OK(lk_kv_open(fresh, LK_CREATE, &kv, &test_err));
    put_one(kv, "a", "1");
    lk_kv_close(kv);
    OK(lk_kv_open(fresh, LK_READ, &kv, &test_err));
    struct lk_kv_txn *t;
    FAILS(lk_kv_begin(kv, true, &t, &test_err), LK_EIO, "opened to be read");
    t = begin(kv, false);
    row_is(t, "a", "1");
    lk_kv_abort(t);
    lk_kv_close(kv);
    lk_free(fresh);
    static const char *const wrong[][2] = {{"schema=A", "no name of a schema"},    {"schema=a%22b", "no name of a schema"},
                                           {"schema=pg_x", "no name of a schema"}, {"schema=", "no name of a schema"},
                                           {"deadline_ms=1", "milliseconds"},      {"deadline_ms=x", "milliseconds"},
                                           {"nonsense=1", "no URL as libpq reads"}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char *url = url_with(wrong[i][0]);
        FAILS(lk_kv_open(url, LK_CREATE, &kv, &test_err), LK_EINVAL, wrong[i][1]);
        lk_free(url);
    }
    FAILS(lk_kv_open("postgresql://u:secret@/db?host=/nowhere", LK_READ, &kv, &test_err), LK_EIO, "failed: No such file");
    assert_null(strstr(test_err.message, "secret"));
    FAILS(lk_kv_open("postgresql://u:sec%zzret@/db", LK_READ, &kv, &test_err), LK_EINVAL, "no URL");
    assert_null(strstr(test_err.message, "ret@"));
    char *url = lk_asprintf("postgres://postgres@/nodatabase?host=%s", server_dir);
    FAILS(lk_kv_open(url, LK_READ, &kv, &test_err), LK_EIO, "does not exist");
    lk_free(url);
}

/* --- the same as LMDB ------------------------------------------------------------------------------------------- */

struct pair {
    struct lk_kv *kv[2];
    struct lk_kv_txn *txn[2];
    struct lk_kv_cursor *cursor[2];
};

static size_t random_key(struct test_random *r, char *out) {
    size_t size = 1 + test_random_below(r, 3);
    if (test_random_below(r, 12) == 0) size = 2590 + test_random_below(r, 20);
    if (test_random_below(r, 12) == 0) size = 500 + test_random_below(r, 20);
    for (size_t i = 0; i < size; i++) out[i] = i < 3 ? "abc\xff"[test_random_below(r, 4)] : 'x';
    return size;
}
static void same(struct lk_bytes a, struct lk_bytes b) {
    assert_int_equal(a.size, b.size);
    if (a.size) assert_memory_equal(a.data, b.data, a.size);
}
static void both_read(struct pair *p, struct lk_bytes key) {
    struct lk_bytes v[2] = {{0}, {0}};
    int code = lk_kv_get(p->txn[0], key, &v[0], &test_err);
    assert_int_equal(lk_kv_get(p->txn[1], key, &v[1], &test_err), code);
    same(v[0], v[1]);
}
static void both_read_many(struct pair *p, struct test_random *r) {
    char text[8][2700];
    struct lk_bytes keys[8], v[2][8];
    for (int i = 0; i < 8; i++) keys[i] = lk_bytes(text[i], random_key(r, text[i]));
    for (int e = 0; e < 2; e++) OK(lk_kv_get_many(p->txn[e], keys, 8, v[e], &test_err));
    for (int i = 0; i < 8; i++) {
        assert_int_equal(!v[0][i].data, !v[1][i].data);
        same(v[0][i], v[1][i]);
    }
}
static void both_move(struct pair *p, struct test_random *r, struct lk_bytes key) {
    int code[2], move = (int)test_random_below(r, 10);
    for (int e = 0; e < 2; e++) {
        struct lk_kv_cursor *c = p->cursor[e];
        code[e] = move == 0   ? lk_kv_cursor_first(c, &test_err)
                  : move == 1 ? lk_kv_cursor_last(c, &test_err)
                  : move == 2 ? lk_kv_cursor_seek(c, key, &test_err)
                  : move == 3 ? lk_kv_cursor_seek_back(c, key, &test_err)
                  : move < 7  ? lk_kv_cursor_next(c, &test_err)
                              : lk_kv_cursor_previous(c, &test_err);
        assert_true(code[e] == 0 || code[e] == LK_ENOTFOUND);
    }
    assert_int_equal(code[0], code[1]);
    if (code[0] != 0) return;
    same(lk_kv_cursor_key(p->cursor[0]), lk_kv_cursor_key(p->cursor[1]));
    same(lk_kv_cursor_value(p->cursor[0]), lk_kv_cursor_value(p->cursor[1]));
}
static void both_write(struct pair *p, struct test_random *r, struct lk_bytes key, const char *large) {
    char to[2700];
    int what = (int)test_random_below(r, 10);
    size_t size = test_random_below(r, 40) == 0 ? 3 << 20 : test_random_below(r, 300);
    struct lk_bytes end = lk_bytes(to, random_key(r, to));
    uint32_t at = test_random_below(r, 1000);
    for (int e = 0; e < 2; e++) {
        if (what < 7)
            OK(lk_kv_put(p->txn[e], key, lk_bytes(large + at, size), &test_err));
        else if (what < 9)
            OK(lk_kv_delete(p->txn[e], key, &test_err));
        else
            OK(lk_kv_delete_range(p->txn[e], key, end, &test_err));
    }
}
static int list_row(void *arg, struct lk_bytes key, struct lk_bytes value) {
    struct lk_buf *out = arg;
    return lk_buf_append(out, key.data, key.size) || lk_buf_append(out, "=", 1) ||
           lk_buf_append(out, value.data, value.size);
}
static void equals_lmdb(void **state) {
    NEEDS_SERVER();
    struct test_random r = test_random_open("equals_lmdb");
    struct pair p = {{open_at(*state), open_with("schema=equal")}, {0}, {0}};
    char key[2700], *large = lk_alloc(4 << 20);
    for (size_t i = 0; i < 4 << 20; i++) large[i] = (char)(i * 2654435761u >> 24);
    for (int turn = 0; turn < 40; turn++) {
        bool write = turn % 4 != 3;
        for (int e = 0; e < 2; e++) p.txn[e] = begin(p.kv[e], write);
        for (int e = 0; e < 2; e++) OK(lk_kv_cursor_open(p.txn[e], S(""), S(""), &p.cursor[e], &test_err));
        for (int i = 0; i < 60; i++) {
            struct lk_bytes k = lk_bytes(key, random_key(&r, key));
            int what = (int)test_random_below(&r, 4);
            if (what == 0) both_read(&p, k);
            if (what == 1 && test_random_below(&r, 4) == 0) both_read_many(&p, &r);
            if (what == 2 || (what == 3 && !write)) both_move(&p, &r, k);
            if (what == 3 && write) both_write(&p, &r, k, large);
        }
        struct lk_buf all[2] = {LK_BUF_INIT, LK_BUF_INIT};
        bool keep = test_random_below(&r, 4) != 0;
        for (int e = 0; e < 2; e++) {
            OK(lk_kv_scan(p.txn[e], S(""), S(""), list_row, &all[e], &test_err));
            lk_kv_cursor_close(p.cursor[e]);
            if (keep)
                OK(lk_kv_commit(p.txn[e], LK_DURABLE, NULL, &test_err));
            else
                lk_kv_abort(p.txn[e]);
        }
        same(lk_bytes(all[0].data, all[0].size), lk_bytes(all[1].data, all[1].size));
        for (int e = 0; e < 2; e++) lk_buf_release(&all[e]);
    }
    lk_free(large);
    for (int e = 0; e < 2; e++) lk_kv_close(p.kv[e]);
}

/* --- conflicts --------------------------------------------------------------------------------------------------- */

/* Two write transactions that both read before either commits; what each does is a letter for the key a or b: r reads, w
 * writes, d deletes, s scans a to c. Whether the second may commit. */
static void do_it(struct lk_kv_txn *t, const char *what) {
    struct lk_bytes v;
    for (; *what; what += 2) {
        struct lk_bytes key = lk_bytes(what + 1, 1);
        struct lk_buf all = LK_BUF_INIT;
        if (*what == 'r') lk_kv_get(t, key, &v, NULL);
        if (*what == 'w') OK(lk_kv_put(t, key, S("new"), &test_err));
        if (*what == 'd') OK(lk_kv_delete(t, key, &test_err));
        if (*what == 'D') OK(lk_kv_delete_range(t, S("a"), S("c"), &test_err));
        if (*what == 's') OK(lk_kv_scan(t, S("a"), S("c"), list_row, &all, &test_err));
        lk_buf_release(&all);
    }
}
static void conflicts(void **state) {
    static const struct {
        const char *before, *first, *second;
        bool both;
    } cases[] = {
        {"wawb", "rawa", "rawa", false},     /* lost update */
        {"wawb", "rarbwa", "rarbwb", false}, /* write skew */
        {"wawb", "rawb", "rbwa", false},     /* the same, each reads what the other writes */
        {"", "rawb", "rbwa", false},         /* of absent keys */
        {"", "s_wa", "s_wb", false},         /* phantoms */
        {"wa", "wb", "s_wa", false},         /* a row that came */
        {"wawb", "db", "s_wa", false},       /* one that went */
        {"wawb", "dbwb", "rbwa", false},     /* one that went and came */
        {"wawb", "D_", "rawx", false},       /* a range that went */
        {"wawb", "rawa", "rbwb", true},      /* nothing in common */
        {"wawb", "wa", "wa", true},          /* blind writes */
        {"", "wa", "da", true},              /* a blind delete of what was not there */
        {"", "da", "wa", true},
        {"wawb", "rawb", "rawb", true}, /* both read a; b is written blindly */
        {"wawb", "ra", "rawa", true},   /* the first only reads */
        {"wawbwd", "s_wa", "wd", true}, /* outside of the range */
    };
    (void)state;
    NEEDS_SERVER();
    struct lk_kv *kv = open_with("schema=conflicts"), *other = open_with("schema=conflicts");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct lk_kv_txn *t = begin(kv, true), *u;
        OK(lk_kv_delete_range(t, S(""), S(""), &test_err));
        commit(t);
        t = begin(kv, true);
        do_it(t, cases[i].before);
        commit(t);
        t = begin(kv, true), u = begin(i % 2 ? kv : other, true);
        do_it(t, cases[i].first), do_it(u, cases[i].second);
        OK(lk_kv_commit(t, LK_DURABLE, NULL, &test_err));
        int code = lk_kv_commit(u, LK_DURABLE, NULL, &test_err);
        if (code != (cases[i].both ? 0 : LK_ECONFLICT))
            fail_msg("%s, then %s: %d, %s", cases[i].first, cases[i].second, code, test_err.message);
    }
    lk_kv_close(other);
    lk_kv_close(kv);
}

static void own_writes_do_not_conflict(void **state) {
    struct lk_kv_txn *t;
    struct lk_bytes v;
    (void)state;
    NEEDS_SERVER();
    struct lk_kv *kv = open_with("schema=own");
    t = begin(kv, true);
    put(t, "a", "1");
    row_is(t, "a", "1");
    OK(lk_kv_delete(t, S("a"), &test_err));
    row_is(t, "a", NULL);
    put(t, "b", "2");
    put_one(kv, "a", "other"); /* the first read nothing of it */
    commit(t);
    t = begin(kv, false);
    row_is(t, "a", NULL);
    row_is(t, "b", "2");
    lk_kv_abort(t);
    t = begin(kv, true);
    FAILS(lk_kv_get(t, S("none"), &v, &test_err), LK_ENOTFOUND, "");
    put_one(kv, "unlike", "1");
    put(t, "c", "3");
    commit(t);
    lk_kv_close(kv);
}

/* --- time --------------------------------------------------------------------------------------------------------- */

static void times_increase(void **state) {
    struct lk_kv_txn *t;
    int64_t last = 0, now, promised;
    (void)state;
    NEEDS_SERVER();
    struct lk_kv *kv = open_with("schema=times&deadline_ms=1000");
    for (int i = 0; i < 20; i++) {
        t = begin(kv, true);
        if (i % 2) OK(lk__kv_timestamp(t, &promised, &test_err));
        put(t, "a", "1");
        OK(lk_kv_commit(t, i % 3 ? LK_LAZY : LK_DURABLE, &now, &test_err));
        assert_true(now > last);
        if (i % 2) assert_int_equal(now, promised);
        last = now;
    }
    assert_in_range(last, lk_clock_wall_ms() - 5000, lk_clock_wall_ms() + 5000);
    t = begin(kv, false);
    OK(lk_kv_commit(t, LK_DURABLE, &now, &test_err));
    assert_int_equal(now, last);
    /* who holds the time keeps all others waiting, until the deadline */
    t = begin(kv, true);
    OK(lk__kv_timestamp(t, &promised, &test_err));
    struct lk_kv_txn *u = begin(kv, true);
    put(u, "b", "1");
    FAILS(lk_kv_commit(u, LK_DURABLE, NULL, &test_err), LK_EBUSY, "lock timeout");
    put(t, "a", "2");
    OK(lk_kv_commit(t, LK_DURABLE, &now, &test_err));
    assert_int_equal(now, promised);
    t = begin(kv, true); /* one that gives up leaves the time as it was */
    OK(lk__kv_timestamp(t, &promised, &test_err));
    lk_kv_abort(t);
    t = begin(kv, false);
    row_is(t, "a", "2");
    row_is(t, "b", NULL);
    lk_kv_abort(t);
    lk_kv_close(kv);
}

/* --- many ----------------------------------------------------------------------------------------------------------- */

static int add_one(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    struct lk_bytes v;
    int64_t n = 0;
    int code = lk_kv_get(txn, S(arg), &v, err);
    if (code == 0) memcpy(&n, v.data, 8);
    if (code != 0 && code != LK_ENOTFOUND) return code;
    n++;
    return lk_kv_put(txn, S(arg), lk_bytes(&n, 8), err);
}
struct adder {
    struct lk_kv *kv;
    const char *own;
    int turns, failed;
    int64_t last;
};
static void *add_many(void *arg) {
    struct adder *a = arg;
    struct lk_err e;
    for (int i = 0; i < a->turns && !a->failed; i++) {
        int64_t time;
        bool stamped = i % 3 == 0;
        int code = lk_kv_update(a->kv, add_one, (void *)(uintptr_t) "shared", i % 2 ? LK_LAZY : LK_DURABLE,
                                stamped ? &time : NULL, &e);
        if (code == 0) code = lk_kv_update(a->kv, add_one, (void *)(uintptr_t)a->own, LK_DURABLE, NULL, &e);
        if (code != 0) print_error("%s\n", e.message);
        if (stamped && time <= a->last) a->failed = 1;
        if (stamped) a->last = time;
        if (code != 0) a->failed = 1;
    }
    return NULL;
}
static int64_t count_at(struct lk_kv *kv, const char *key) {
    struct lk_bytes v;
    int64_t n = 0;
    struct lk_kv_txn *t = begin(kv, false);
    OK(lk_kv_get(t, S(key), &v, &test_err));
    memcpy(&n, v.data, 8);
    lk_kv_abort(t);
    return n;
}
static void many_threads_add(void **state) {
    static const char *const names[] = {"k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7"};
    struct adder adders[8];
    pthread_t threads[8];
    (void)state;
    NEEDS_SERVER();
    struct lk_kv *kv = open_with("schema=adding"), *other = open_with("schema=adding");
    for (int i = 0; i < 8; i++) {
        adders[i] = (struct adder){i < 4 ? kv : other, names[i], 25, 0, 0};
        assert_int_equal(pthread_create(&threads[i], NULL, add_many, &adders[i]), 0);
    }
    for (int i = 0; i < 8; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < 8; i++) {
        assert_false(adders[i].failed);
        assert_int_equal(count_at(kv, names[i]), 25);
    }
    assert_int_equal(count_at(kv, "shared"), 200);
    lk_kv_close(other);
    lk_kv_close(kv);
}

int main(void) {
    lk_log_quiet(true);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shown_without_passwords),
        cmocka_unit_test(opening),
        TEST_IN_DIR(equals_lmdb),
        cmocka_unit_test(conflicts),
        cmocka_unit_test(own_writes_do_not_conflict),
        cmocka_unit_test(times_increase),
        cmocka_unit_test(many_threads_add),
    };
    return cmocka_run_group_tests(tests, server_setup, server_teardown);
}
