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

/* Threads that share commits: what each was told is committed is there after a kill, and what was in flight is there whole
 * or not at all. */
#define SHARERS 4
struct share {
    int32_t thread, number;
};
struct sharer {
    struct lk_kv *kv;
    int report;
    struct share now;
};
static void share_key(char out[32], char side, struct share s) {
    snprintf(out, 32, "%c/%d/%08d", side, s.thread, s.number);
}
static int put_both(struct lk_kv_txn *t, void *arg, struct lk_err *err) {
    const struct share *s = arg;
    char key[32];
    int code = 0;
    for (char side = 'a'; side <= 'b' && !code; side++) {
        share_key(key, side, *s);
        code = lk_kv_put(t, S(key), lk_bytes(s, sizeof *s), err);
    }
    return code;
}
static void *share_commits(void *arg) {
    struct sharer *s = arg;
    for (s->now.number = 0;; s->now.number++) {
        if (lk_kv_update(s->kv, put_both, &s->now, s->now.number % 3 ? LK_LAZY : LK_DURABLE, NULL, NULL) != 0) _exit(1);
        if (write(s->report, &s->now, sizeof s->now) != sizeof s->now) _exit(2);
    }
    return NULL;
}
static void share_until_killed(const char *dir, int report) {
    pthread_t threads[SHARERS];
    struct sharer sharers[SHARERS];
    struct lk_kv *kv = open_at(dir);
    for (int i = 0; i < SHARERS; i++) {
        sharers[i] = (struct sharer){kv, report, {i, 0}};
        pthread_create(&threads[i], NULL, share_commits, &sharers[i]);
    }
    for (;;) pause();
}
/* How many rows of a thread are there without a gap. */
static int32_t count_shares(struct lk_kv_txn *t, char side, int thread) {
    struct share s = {thread, 0};
    struct lk_bytes v;
    char key[32];
    for (;; s.number++) {
        share_key(key, side, s);
        if (lk_kv_get(t, S(key), &v, NULL) != 0) return s.number;
        assert_int_equal(v.size, sizeof s);
        assert_memory_equal(v.data, &s, sizeof s);
    }
}
static void killed_while_commits_are_shared(void **state) {
    if (LK_TSAN) skip(); /* fork */
    struct test_random r = test_random_open("killed_while_commits_are_shared");
    for (int turn = 0; turn < 12; turn++) {
        int pipes[2], status;
        int32_t told[SHARERS] = {0};
        assert_int_equal(pipe(pipes), 0);
        fflush(NULL);
        pid_t pid = fork();
        if (pid == 0) share_until_killed(*state, pipes[1]);
        close(pipes[1]);
        usleep(2000 + test_random_below(&r, 30000));
        kill(pid, SIGKILL);
        for (struct share s; read(pipes[0], &s, sizeof s) == sizeof s;) told[s.thread] = s.number + 1;
        close(pipes[0]);
        waitpid(pid, &status, 0);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        struct lk_kv *kv = open_at(*state);
        struct lk_kv_txn *t = begin(kv, true);
        for (int i = 0; i < SHARERS; i++) {
            int32_t a = count_shares(t, 'a', i), b = count_shares(t, 'b', i);
            assert_int_equal(a, b);
            assert_true(a >= told[i] && a <= told[i] + 1);
        }
        OK(lk_kv_delete_range(t, S("a"), S("c"), &test_err));
        commit(t);
        lk_kv_close(kv);
    }
}

/* The snapshot of a reader that was killed is nobody's: a process that goes on writing uses its pages again. */
static void a_killed_reader_holds_no_pages(void **state) {
    if (LK_TSAN) skip(); /* fork */
    int ready[2], begun[2], status;
    char byte = 0;
    assert_int_equal(pipe(ready) | pipe(begun), 0);
    pid_t pid = fork();
    if (pid == 0) {
        if (read(ready[0], &byte, 1) != 1) _exit(1);
        struct lk_kv_txn *r = begin(open_at(*state), false);
        row_is(r, "a", "1");
        if (write(begun[1], &byte, 1) != 1) _exit(1);
        pause();
        _exit(1);
    }
    struct lk_kv *kv = open_at(*state);
    put_one(kv, "a", "1");
    assert_int_equal(write(ready[1], &byte, 1), 1);
    assert_int_equal(read(begun[0], &byte, 1), 1);
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    static char value[3000];
    for (int i = 0; i < 2000; i++) {
        struct lk_kv_txn *w = begin(kv, true);
        OK(lk_kv_put(w, S("b"), lk_bytes(value, sizeof value), &test_err));
        OK(lk_kv_commit(w, LK_LAZY, NULL, &test_err));
    }
    struct lk_kv_stats s;
    OK(lk_kv_stats(kv, &s, &test_err));
    assert_in_range(s.size_bytes, 1, (size_t)8 << 20); /* of 2,000 commits that keep all: 32 MiB */
    lk_kv_close(kv);
    for (int i = 0; i < 2; i++) close(ready[i]), close(begun[i]);
}

int main(void) {
    lk_log_quiet(true); /* a test directory may be on 9p */
    const struct CMUnitTest tests[] = {
        TEST_IN_DIR(snapshots_and_aborts),
        TEST_IN_DIR(misuse),
        TEST_IN_DIR(not_a_database),
        TEST_IN_DIR(network_file_systems),
        TEST_IN_DIR(times_strictly_increase),
        TEST_IN_DIR(writers_wait_for_each_other),
        TEST_IN_DIR(another_process_writes),
        TEST_IN_DIR(killed_at_random_points),
        TEST_IN_DIR(killed_while_commits_are_shared),
        TEST_IN_DIR(a_killed_reader_holds_no_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
