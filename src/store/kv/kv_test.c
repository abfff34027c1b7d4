#include "lockstep/base/progress.h"
#include "store/kv/kv_engine.h"
#include "store/kv/testing.h"
#include <pthread.h>
#include <signal.h>

static void snapshots_and_aborts(void **state) {
    struct lk_kv *kv = open_at(*state);
    struct lk_kv_txn *w = begin(kv, true);
    put(w, "a", "1");
    row_is(w, "a", "1");
    struct lk_kv_txn *r = begin(kv, false);
    row_is(r, "a", NULL);
    commit(w);
    row_is(r, "a", NULL); /* as at its begin */
    lk_kv_abort(r);
    w = begin(kv, true);
    put(w, "a", "2");
    assert_int_equal(lk_kv_delete(w, S("a"), NULL), 0);
    assert_int_equal(lk_kv_delete(w, S("never"), NULL), 0);
    row_is(w, "a", NULL);
    lk_kv_abort(w);
    r = begin(kv, false);
    row_is(r, "a", "1");
    lk_kv_abort(r);
    lk_kv_close(kv);
    kv = open_at(*state);
    r = begin(kv, false);
    row_is(r, "a", "1");
    assert_int_equal(lk_kv_commit(r, LK_DURABLE, NULL, NULL), 0);
    lk_kv_close(kv);
    lk_kv_close(NULL);
    lk_kv_abort(NULL);
}

static void misuse(void **state) {
    struct lk_kv *kv = open_at(*state), *other;
    struct lk_err e;
    struct lk_kv_txn *w = begin(kv, true), *second;
    assert_int_equal(lk_kv_begin(kv, true, &second, &e), LK_EBUSY); /* else it would wait for itself */
    lk_kv_abort(w);
    lk_kv_close(kv);
    assert_int_equal(lk_kv_open("etcd://host/db", LK_CREATE, &other, &e), LK_EUNSUPPORTED);
    assert_non_null(strstr(e.message, "file:DIR"));
    assert_int_equal(lk_kv_open("file:", LK_CREATE, &other, &e), LK_EINVAL);
    assert_int_equal(lk_kv_open("file:/proc/none", LK_CREATE, &other, &e), LK_EIO);
}

static void not_a_database(void **state) {
    char *dir = test_join(*state, "kv"), *path = test_join(dir, "data.mdb"), *url = lk_asprintf("file:%s", (char *)*state);
    char garbage[20000];
    struct lk_err e;
    struct lk_kv *kv;
    memset(garbage, 'g', sizeof garbage);
    assert_int_equal(lk_dir_make(dir, &e), 0);
    assert_int_equal(lk_file_write_atomic(path, garbage, sizeof garbage, &e), 0);
    assert_int_equal(lk_kv_open(url, LK_CREATE, &kv, &e), LK_ECORRUPT);
    assert_non_null(strstr(e.message, dir));
    lk_free(dir);
    lk_free(path);
    lk_free(url);
}

static void network_file_systems(void **state) {
    (void)state;
    bool refuse;
    assert_string_equal(lk__kv_network_fs(0x6969, &refuse), "NFS");
    assert_true(refuse);
    assert_string_equal(lk__kv_network_fs((long)(int)0xFF534D42, &refuse), "CIFS"); /* sign-extended too */
    assert_true(refuse);
    assert_string_equal(lk__kv_network_fs(0x01021997, &refuse), "9p");
    assert_false(refuse);
    assert_null(lk__kv_network_fs(0xEF53, &refuse)); /* ext4 */
    assert_false(refuse);
}

static void times_strictly_increase(void **state) {
    struct lk_kv *kv = open_at(*state);
    int64_t last = 0, before = lk_clock_wall_ms();
    for (int i = 0; i < 300; i++) {
        struct lk_kv_txn *w = begin(kv, true);
        int64_t early = 0, t;
        put(w, "k", "v");
        if (i % 2) assert_int_equal(lk__kv_timestamp(w, &early, NULL), 0);
        assert_int_equal(lk_kv_commit(w, i % 3 ? LK_LAZY : LK_DURABLE, &t, NULL), 0);
        if (i % 2) assert_int_equal(t, early);
        assert_true(t > last);
        assert_true(t >= before);
        last = t;
    }
    lk_kv_close(kv);
    kv = open_at(*state);
    struct lk_kv_txn *r = begin(kv, false);
    int64_t t;
    assert_int_equal(lk_kv_commit(r, LK_DURABLE, &t, NULL), 0); /* a reader learns the last one */
    assert_int_equal(t, last);
    lk_kv_close(kv);
}

/* --- against a model ------------------------------------------------------------------------------------- */

#define ROWS 400
struct row {
    unsigned char key[8];
    size_t size;
    uint32_t value; /* also gives the stored size */
    bool used;
};
struct model {
    struct row rows[ROWS]; /* sorted by key */
    size_t count;
};

static int compare(const unsigned char *a, size_t an, const unsigned char *b, size_t bn) {
    int c = memcmp(a, b, an < bn ? an : bn);
    return c ? c : (an > bn) - (an < bn);
}
static size_t lower(const struct model *m, const unsigned char *key, size_t size) {
    size_t i = 0;
    while (i < m->count && compare(m->rows[i].key, m->rows[i].size, key, size) < 0) i++;
    return i;
}
static bool at(const struct model *m, size_t i, const unsigned char *key, size_t size) {
    return i < m->count && compare(m->rows[i].key, m->rows[i].size, key, size) == 0;
}
static size_t random_key(struct test_random *r, unsigned char *key) {
    static const unsigned char alphabet[] = {1, 'a', 'b', 0xff, 0};
    size_t n = 1 + test_random_below(r, 4);
    for (size_t i = 0; i < n; i++) key[i] = alphabet[test_random_below(r, i ? 5 : 4)];
    return n;
}
static size_t value_size(uint32_t value) {
    return value % 50 == 7 ? 20000 : 4 + value % 300;
}

struct scan {
    const struct model *m;
    size_t i;
    size_t stop_after;
};
static int check_row(void *arg, struct lk_bytes key, struct lk_bytes value) {
    struct scan *s = arg;
    assert_true(s->i < s->m->count);
    const struct row *row = &s->m->rows[s->i++];
    assert_int_equal(key.size, row->size);
    assert_memory_equal(key.data, row->key, row->size);
    assert_int_equal(value.size, value_size(row->value));
    assert_memory_equal(value.data, &row->value, 4);
    return s->stop_after && --s->stop_after == 0 ? 77 : 0;
}
static void check_scan(struct lk_kv_txn *txn, const struct model *m, struct test_random *r) {
    unsigned char from[8], to[8];
    size_t from_size = test_random_below(r, 3) ? random_key(r, from) : 0,
           to_size = test_random_below(r, 3) ? random_key(r, to) : 0;
    struct scan s = {.m = m, .i = from_size ? lower(m, from, from_size) : 0};
    size_t end = to_size ? lower(m, to, to_size) : m->count;
    if (end < s.i) end = s.i;
    if (end > s.i && test_random_below(r, 4) == 0) {
        s.stop_after = 1 + test_random_below(r, (uint32_t)(end - s.i));
        end = s.i + s.stop_after;
        assert_int_equal(lk_kv_scan(txn, lk_bytes(from, from_size), lk_bytes(to, to_size), check_row, &s, NULL), 77);
    } else {
        assert_int_equal(lk_kv_scan(txn, lk_bytes(from, from_size), lk_bytes(to, to_size), check_row, &s, NULL), 0);
    }
    assert_int_equal(s.i, end);
}

static void change(struct lk_kv_txn *txn, struct model *m, struct test_random *r) {
    static char value[20000];
    unsigned char key[8];
    size_t size = random_key(r, key), i = lower(m, key, size);
    bool there = at(m, i, key, size);
    struct lk_bytes found;
    assert_int_equal(lk_kv_get(txn, lk_bytes(key, size), &found, NULL), there ? 0 : LK_ENOTFOUND);
    if (test_random_below(r, 3) == 0) {
        assert_int_equal(lk_kv_delete(txn, lk_bytes(key, size), NULL), 0);
        if (there) memmove(&m->rows[i], &m->rows[i + 1], (--m->count - i) * sizeof *m->rows);
    } else if (there || m->count < ROWS) {
        uint32_t v = test_random_below(r, UINT32_MAX);
        memcpy(value, &v, 4);
        assert_int_equal(lk_kv_put(txn, lk_bytes(key, size), lk_bytes(value, value_size(v)), NULL), 0);
        if (!there) memmove(&m->rows[i + 1], &m->rows[i], (m->count++ - i) * sizeof *m->rows);
        memcpy(m->rows[i].key, key, size);
        m->rows[i].size = size;
        m->rows[i].value = v;
    }
}

static void equals_a_sorted_array(void **state) {
    struct test_random r = test_random_open("equals_a_sorted_array");
    struct model *now = lk_calloc(1, sizeof *now), *draft = lk_calloc(1, sizeof *draft), *old = lk_calloc(1, sizeof *old);
    struct lk_kv *kv = open_at(*state);
    struct lk_kv_txn *reader = NULL;
    for (int turn = 0; turn < 300; turn++) {
        struct lk_kv_txn *w = begin(kv, true);
        *draft = *now;
        for (uint32_t n = test_random_below(&r, 30); n > 0; n--) change(w, draft, &r);
        check_scan(w, draft, &r);
        int64_t t;
        switch (test_random_below(&r, 4)) {
        case 0:
            lk_kv_abort(w);
            break;
        case 1:
            assert_int_equal(lk_kv_commit(w, LK_DURABLE, &t, NULL), 0);
            *now = *draft;
            break;
        default:
            assert_int_equal(lk_kv_commit(w, LK_LAZY, NULL, NULL), 0);
            *now = *draft;
        }
        if (reader) check_scan(reader, old, &r); /* an old snapshot stays as it was */
        if (turn % 7 == 0) {
            lk_kv_abort(reader);
            reader = begin(kv, false);
            *old = *now;
        }
        if (turn % 50 == 49) {
            lk_kv_abort(reader);
            reader = NULL;
            lk_kv_close(kv);
            kv = open_at(*state);
        }
    }
    lk_kv_abort(reader);
    lk_kv_close(kv);
    lk_free(now);
    lk_free(draft);
    lk_free(old);
}

/* --- several at once ------------------------------------------------------------------------------------- */

static void *add_ones(void *arg) {
    struct lk_kv *kv = arg;
    for (int i = 0; i < 50; i++) {
        struct lk_kv_txn *w;
        struct lk_bytes v;
        int32_t n = 0;
        if (lk_kv_begin(kv, true, &w, NULL) != 0) return (void *)1;
        if (lk_kv_get(w, S("n"), &v, NULL) == 0) memcpy(&n, v.data, 4);
        n++;
        if (lk_kv_put(w, S("n"), lk_bytes(&n, 4), NULL) != 0) return (void *)2;
        if (lk_kv_commit(w, LK_LAZY, NULL, NULL) != 0) return (void *)3;
    }
    return NULL;
}
static void writers_wait_for_each_other(void **state) {
    /* Two handles of one store in one process share LMDB's environment; closing one leaves the other alone. */
    struct lk_kv *a = open_at(*state), *b = open_at(*state);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&threads[i], NULL, add_ones, i % 2 ? a : b), 0);
    for (int i = 0; i < 4; i++) {
        void *result;
        pthread_join(threads[i], &result);
        assert_null(result);
    }
    lk_kv_close(a);
    struct lk_kv_txn *r = begin(b, false);
    struct lk_bytes v;
    int32_t n = 0;
    assert_int_equal(lk_kv_get(r, S("n"), &v, NULL), 0);
    memcpy(&n, v.data, 4);
    assert_int_equal(n, 200);
    lk_kv_abort(r);
    lk_kv_close(b);
}

static void write_in_child(void *dir) {
    struct lk_kv *kv = open_at(dir);
    put_one(kv, "child", "1");
    lk_kv_close(kv);
}
static void another_process_writes(void **state) {
    if (LK_TSAN) skip(); /* fork */
    struct lk_kv *kv = open_at(*state);
    struct lk_kv_txn *r = begin(kv, false);
    assert_int_equal(test_fork(write_in_child, *state), 0);
    row_is(r, "child", NULL);
    lk_kv_abort(r);
    r = begin(kv, false);
    row_is(r, "child", "1");
    lk_kv_abort(r);
    lk_kv_close(kv);
}

/* --- faults ---------------------------------------------------------------------------------------------- */

struct victim {
    const char *dir;
    int report;
};
/* Commits pairs a = b = i, durably and lazily in turn, and reports each i once it is committed. */
static void commit_pairs(void *arg) {
    struct victim *v = arg;
    struct lk_kv *kv = open_at(v->dir);
    for (int32_t i = 1;; i++) {
        struct lk_kv_txn *w = begin(kv, true);
        char pad[3000] = "";
        lk_kv_put(w, S("a"), lk_bytes(&i, 4), NULL);
        lk_kv_put(w, lk_bytes(&i, 4), lk_bytes(pad, sizeof pad), NULL);
        lk_kv_put(w, S("b"), lk_bytes(&i, 4), NULL);
        if (lk_kv_commit(w, i % 2 ? LK_LAZY : LK_DURABLE, NULL, NULL) != 0) _exit(1);
        if (write(v->report, &i, 4) != 4) _exit(2);
    }
}
static int32_t number_at(struct lk_kv_txn *txn, const char *key) {
    struct lk_bytes v;
    int32_t n = 0;
    if (lk_kv_get(txn, S(key), &v, NULL) == 0) memcpy(&n, v.data, 4);
    return n;
}
static void killed_at_random_points(void **state) {
    if (LK_TSAN) skip(); /* fork */
    struct test_random r = test_random_open("killed_at_random_points");
    for (int turn = 0; turn < 25; turn++) {
        int pipes[2];
        assert_int_equal(pipe(pipes), 0);
        fflush(NULL);
        pid_t pid = fork();
        if (pid == 0) {
            struct victim v = {*state, pipes[1]};
            close(pipes[0]);
            commit_pairs(&v);
        }
        close(pipes[1]);
        usleep(1000 + test_random_below(&r, 20000));
        kill(pid, SIGKILL);
        int32_t reported = 0, n;
        while (read(pipes[0], &n, 4) == 4) reported = n;
        close(pipes[0]);
        int status;
        waitpid(pid, &status, 0);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        struct lk_kv *kv = open_at(*state); /* its lock was the dead one's */
        struct lk_kv_txn *w = begin(kv, true);
        n = number_at(w, "a");
        assert_int_equal(n, number_at(w, "b"));
        assert_true(n >= reported && n <= reported + 1);
        for (int32_t i = 1; i <= reported; i++) lk_kv_delete(w, lk_bytes(&i, 4), NULL);
        lk_kv_delete(w, S("a"), NULL);
        lk_kv_delete(w, S("b"), NULL);
        commit(w);
        lk_kv_close(kv);
    }
}

int main(void) {
    lk_log_quiet(true); /* a test directory may be on 9p */
    const struct CMUnitTest tests[] = {
        TEST_IN_DIR(snapshots_and_aborts),
        TEST_IN_DIR(misuse),
        TEST_IN_DIR(not_a_database),
        TEST_IN_DIR(network_file_systems),
        TEST_IN_DIR(times_strictly_increase),
        TEST_IN_DIR(equals_a_sorted_array),
        TEST_IN_DIR(writers_wait_for_each_other),
        TEST_IN_DIR(another_process_writes),
        TEST_IN_DIR(killed_at_random_points),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
