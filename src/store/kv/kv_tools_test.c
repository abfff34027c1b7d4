/* LMDB's whole file: statistics, copies, compaction, readers that died. */
#include "lockstep/base/progress.h"
#include "store/kv/kv_lmdb.h"
#include "store/kv/testing.h"
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/stat.h>

#define ROWS 2000

static off_t file_size(const char *dir) {
    char *path = test_join(dir, "kv/data.mdb");
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    lk_free(path);
    return st.st_size;
}
static void put_rows(struct lk_kv *kv, int first, int count) {
    static const char value[1500];
    struct lk_kv_txn *t = begin(kv, true);
    for (int i = first; i < first + count; i++) {
        char key[16];
        snprintf(key, sizeof key, "row%06d", i);
        OK(lk_kv_put(t, S(key), lk_bytes(value, sizeof value), &test_err));
    }
    commit(t);
}
static void delete_rows(struct lk_kv *kv, const char *from, const char *to) {
    struct lk_kv_txn *t = begin(kv, true);
    OK(lk_kv_delete_range(t, S(from), S(to), &test_err));
    commit(t);
}
static int count_row(void *arg, struct lk_bytes key, struct lk_bytes value) {
    (void)key, (void)value;
    ++*(int *)arg;
    return 0;
}
static int rows_of(struct lk_kv *kv) {
    struct lk_kv_txn *t = begin(kv, false);
    int n = 0;
    OK(lk_kv_scan(t, lk_bytes("", 0), lk_bytes("", 0), count_row, &n, &test_err));
    lk_kv_abort(t);
    return n;
}
static struct lk_kv_stats stats_of(struct lk_kv *kv) {
    struct lk_kv_stats s;
    OK(lk_kv_stats(kv, &s, &test_err));
    return s;
}

static void statistics(void **state) {
    struct lk_kv *kv = open_at(*state);
    put_rows(kv, 0, ROWS);
    struct lk_kv_stats full = stats_of(kv);
    assert_string_equal(full.engine, "LMDB");
    assert_int_equal(full.rows, ROWS);
    assert_true(full.size_bytes > ROWS * 1500 && full.size_bytes <= (uint64_t)file_size(*state));
    assert_true(full.depth >= 2);
    assert_true(full.limit_bytes > full.size_bytes);
    assert_int_equal(full.readers, 0);
    struct lk_kv_txn *r = begin(kv, false);
    assert_int_equal(stats_of(kv).readers, 1);
    lk_kv_abort(r);
    delete_rows(kv, "row", "rox");
    struct lk_kv_stats emptied = stats_of(kv);
    assert_int_equal(emptied.rows, 0);
    assert_true(emptied.free_bytes > full.size_bytes / 2);
    lk_kv_close(kv);
}

/* --- copies ---------------------------------------------------------------------------------------------- */

struct pairs {
    struct lk_kv *kv;
    atomic_bool stop;
};
static int write_pair(struct lk_kv_txn *t, void *arg, struct lk_err *err) {
    int code = lk_kv_put(t, S("a"), lk_bytes(arg, 4), err);
    return code ? code : lk_kv_put(t, S("z"), lk_bytes(arg, 4), err);
}
static void *write_pairs(void *arg) {
    struct pairs *p = arg;
    for (int32_t i = 0; !atomic_load(&p->stop); i++)
        if (lk_kv_update(p->kv, write_pair, &i, LK_LAZY, NULL, NULL) != 0) return (void *)1;
    return NULL;
}
/* Copies made while somebody writes are whole: both rows of a pair are alike. */
static void copies(void **state) {
    struct lk_kv *kv = open_at(*state);
    struct pairs p = {kv, false};
    pthread_t writer;
    void *result;
    put_rows(kv, 0, ROWS);
    delete_rows(kv, "row000", "row001500");
    assert_int_equal(pthread_create(&writer, NULL, write_pairs, &p), 0);
    off_t sizes[2];
    for (int i = 0; i < 6; i++) {
        char name[16];
        snprintf(name, sizeof name, "copy%d", i);
        char *dir = test_join(*state, name);
        OK(lk_kv_copy(kv, dir, i % 2, &test_err));
        FAILS(lk_kv_copy(kv, dir, i % 2, &test_err), LK_EEXISTS, "name another folder");
        sizes[i % 2] = file_size(dir);
        struct lk_kv *copy = open_at(dir);
        struct lk_kv_txn *t = begin(copy, true);
        struct lk_bytes a, z;
        if (i > 0 || lk_kv_get(t, S("a"), &a, NULL) == 0) {
            OK(lk_kv_get(t, S("a"), &a, &test_err));
            OK(lk_kv_get(t, S("z"), &z, &test_err));
            assert_memory_equal(a.data, z.data, 4);
        }
        put(t, "own", "row");
        commit(t);
        assert_in_range(rows_of(copy), 501, 503);
        lk_kv_close(copy);
        lk_free(dir);
    }
    assert_true(sizes[1] < sizes[0]);
    atomic_store(&p.stop, true);
    pthread_join(writer, &result);
    assert_null(result);
    struct lk_kv_txn *t = begin(kv, true);
    char *dir = test_join(*state, "never");
    FAILS(lk_kv_copy(kv, dir, false, &test_err), LK_EBUSY, "would wait");
    lk_kv_abort(t);
    FAILS(lk_kv_copy(kv, "/proc/none", false, &test_err), LK_EIO, "/proc/none");
    lk_free(dir);
    lk_kv_close(kv);
}

/* However a file system can name a file: with a leftover of one who was killed, and twice. */
static void every_way_to_a_name(void **state) {
    struct lk_kv *kv = open_at(*state);
    put_one(kv, "a", "1");
    for (int way = LK__KV_LMDB_NOREPLACE; way <= LK__KV_LMDB_RENAME; way++) {
        char name[16];
        struct lk__kv_lmdb_new n, late;
        lk__kv_lmdb_naming = (enum lk__kv_lmdb_naming)way;
        snprintf(name, sizeof name, "way%d", way);
        char *dir = test_join(*state, name), *kv_dir = test_join(dir, "kv"), *left = test_join(kv_dir, "new/data.mdb");
        char *folder = test_join(kv_dir, "new");
        OK(lk_dir_make(folder, &test_err));
        OK(lk_file_write_atomic(left, "half", 4, &test_err));
        OK(lk_kv_copy(kv, dir, way % 2, &test_err));
        FAILS(lk_kv_copy(kv, dir, way % 2, &test_err), LK_EEXISTS, "name another folder");
        struct lk_kv *copy = open_at(dir); /* also a folder that has none yet */
        assert_int_equal(rows_of(copy), 1);
        lk_kv_close(copy);
        assert_false(lk_file_exists(folder));
        /* whoever comes second, though the name was free when it began */
        char *data = test_join(kv_dir, "data.mdb"), *moved = test_join(kv_dir, "moved");
        assert_int_equal(rename(data, moved), 0);
        OK(lk__kv_lmdb_new_open(&n, kv_dir, &test_err));
        OK(lk_file_write_atomic(n.path, "late", 4, &test_err));
        assert_int_equal(rename(moved, data), 0);
        FAILS(lk__kv_lmdb_new_settle(&n, &test_err), LK_EEXISTS, "name another folder");
        lk__kv_lmdb_new_close(&n);
        FAILS(lk__kv_lmdb_new_open(&late, kv_dir, &test_err), LK_EEXISTS, "exists already");
        assert_false(lk_file_exists(folder));
        copy = open_at(dir);
        assert_int_equal(rows_of(copy), 1);
        lk_kv_close(copy);
        lk_free(dir), lk_free(kv_dir), lk_free(left), lk_free(folder), lk_free(data), lk_free(moved);
        dir = lk_asprintf("%s/made%d", (char *)*state, way);
        copy = open_at(dir);
        put_one(copy, "b", "2");
        lk_kv_close(copy);
        lk_free(dir);
    }
    lk__kv_lmdb_naming = LK__KV_LMDB_NOREPLACE;
    lk_kv_close(kv);
}
/* A copy that is killed at any moment leaves nothing that keeps the next one, of the same process number or not. */
static void copy_for_ever(void *arg) {
    struct lk_kv *kv = open_at(arg);
    for (int i = 0;; i++) {
        char name[32];
        snprintf(name, sizeof name, "killed%d", i);
        char *dir = test_join(arg, name);
        if (lk_kv_copy(kv, dir, i % 2, &test_err) != 0 && test_err.code != LK_EEXISTS) _exit(1);
        lk_free(dir);
    }
}
static void killed_copies(void **state) {
    if (LK_TSAN) skip(); /* fork */
    struct test_random r = test_random_open("killed_copies");
    struct lk_kv *kv = open_at(*state);
    put_rows(kv, 0, ROWS / 4);
    for (int turn = 0; turn < 8; turn++) {
        fflush(NULL);
        pid_t pid = fork();
        if (pid == 0) copy_for_ever(*state);
        usleep(2000 + test_random_below(&r, 20000));
        kill(pid, SIGKILL);
        int status;
        waitpid(pid, &status, 0);
        assert_true(WIFSIGNALED(status));
        int done = 0, code = 0;
        for (; done < 10000 && code != 1; done++) { /* each copy is whole, and the half one is made anew */
            char *dir = lk_asprintf("%s/killed%d", (char *)*state, done);
            bool began = lk_file_exists(dir);
            code = lk_kv_copy(kv, dir, false, &test_err);
            if (code != 0 && code != LK_EEXISTS) fail_msg("%s", test_err.message);
            struct lk_kv *copy = open_at(dir);
            assert_int_equal(rows_of(copy), ROWS / 4);
            lk_kv_close(copy);
            OK(lk_dir_remove(dir, &test_err));
            lk_free(dir);
            if (!began) break;
        }
    }
    lk_kv_close(kv);
}

/* --- in place -------------------------------------------------------------------------------------------- */

static void add_a_row(void *dir) {
    struct lk_kv *kv = open_at(dir);
    put_one(kv, "child", "1");
    lk_kv_close(kv);
}
static void compacts(void **state) {
    struct lk_kv *kv = open_at(*state), *second = open_at(*state);
    int64_t before = 0, after = 0;
    put_rows(kv, 0, ROWS);
    delete_rows(kv, "row000", "row001900");
    struct lk_kv_txn *t = begin(kv, true);
    put(t, "timed", "1");
    OK(lk_kv_commit(t, LK_DURABLE, &before, &test_err));
    off_t large = file_size(*state);
    t = begin(second, false);
    FAILS(lk_kv_compact(kv, &test_err), LK_EBUSY, "1 transactions");
    lk_kv_abort(t);
    for (int round = 0; round < 3; round++) {
        OK(lk_kv_compact(kv, &test_err));
        assert_true(file_size(*state) < large / 4);
        assert_int_equal(rows_of(second), 101 + (round > 0)); /* the other handle goes on */
        assert_int_equal(stats_of(second).timestamp_ms, round ? after : before);
        if (!LK_TSAN && round == 0) assert_int_equal(test_fork(add_a_row, *state), 0);
        if (LK_TSAN && round == 0) put_one(kv, "child", "1");
        assert_int_equal(rows_of(kv), 102);
        t = begin(kv, true);
        put(t, "timed", "2");
        OK(lk_kv_commit(t, LK_DURABLE, &after, &test_err));
        assert_true(after > before);
    }
    lk_kv_close(kv);
    lk_kv_close(second);
    kv = open_at(*state);
    assert_int_equal(rows_of(kv), 102);
    lk_kv_close(kv);
}

struct other {
    const char *dir;
    int ready, go;
};
/* Holds the store open, and a snapshot, until told to end. */
static void hold(const struct other *o) {
    struct lk_kv *kv = open_at(o->dir);
    begin(kv, false);
    char c;
    if (write(o->ready, "", 1) != 1 || read(o->go, &c, 1) < 0) _exit(1);
    _exit(0);
}
static pid_t start_other(const char *dir, int *ready, int *go) {
    int up[2], down[2];
    char c;
    assert_int_equal(pipe(up) + pipe(down), 0);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        close(up[0]), close(down[1]);
        hold(&(struct other){dir, up[1], down[0]});
    }
    close(up[1]), close(down[0]);
    assert_int_equal(read(up[0], &c, 1), 1);
    *ready = up[0];
    *go = down[1];
    return pid;
}
static void others_keep_it_from_compacting(void **state) {
    int ready, go, status;
    if (LK_TSAN) skip(); /* fork */
    struct lk_kv *kv = open_at(*state);
    put_rows(kv, 0, ROWS);
    delete_rows(kv, "row000", "row001900");
    lk_kv_close(kv);
    pid_t pid = start_other(*state, &ready, &go);
    kv = open_at(*state);
    off_t large = file_size(*state);
    FAILS(lk_kv_compact(kv, &test_err), LK_EBUSY, "another process has");
    assert_int_equal(file_size(*state), large);
    assert_int_equal(rows_of(kv), 100);
    put_one(kv, "still", "works");
    /* a killed one does not: and its snapshot holds pages back until somebody looks */
    assert_int_equal(stats_of(kv).readers, 1);
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    struct lk_kv_stats s = stats_of(kv);
    assert_int_equal(s.readers_dead, 1);
    assert_int_equal(s.readers, 0);
    OK(lk_kv_compact(kv, &test_err));
    assert_true(file_size(*state) < large / 4);
    assert_int_equal(rows_of(kv), 101);
    close(ready), close(go);
    lk_kv_close(kv);
}

/* Many open, write and close while one compacts as often as it may: nothing is lost. */
#define PROCESSES 4
#define TURNS     60
struct crowd {
    const char *dir;
    int number;
};
static int add_one(struct lk_kv_txn *t, void *key, struct lk_err *err) {
    struct lk_bytes v;
    int32_t n = 0;
    int code = lk_kv_get(t, S((const char *)key), &v, err);
    if (code == 0) memcpy(&n, v.data, 4);
    n++;
    return code && code != LK_ENOTFOUND ? code : lk_kv_put(t, S((const char *)key), lk_bytes(&n, 4), err);
}
static void come_and_go(void *arg) {
    const struct crowd *c = arg;
    char url[4096];
    snprintf(url, sizeof url, "file:%s", c->dir);
    for (int i = 0; i < TURNS;) {
        struct lk_kv *kv;
        int code = lk_kv_open(url, LK_WRITE, &kv, &test_err);
        if (code == LK_EIO) continue; /* came while the lock file was empty */
        if (code != 0) fprintf(stderr, "%s\n", test_err.message), _exit(1);
        char key[] = {(char)('a' + i % 3), 0};
        if (lk_kv_update(kv, add_one, key, LK_LAZY, NULL, NULL) != 0) _exit(2);
        if (c->number == 0) {
            code = lk_kv_compact(kv, &test_err);
            if (code != 0 && code != LK_EBUSY) fprintf(stderr, "%s\n", test_err.message), _exit(3);
        }
        lk_kv_close(kv);
        i++;
    }
    _exit(0);
}
static void a_crowd_comes_and_goes(void **state) {
    pid_t pids[PROCESSES];
    if (LK_TSAN) skip(); /* fork */
    lk_kv_close(open_at(*state));
    fflush(NULL);
    for (int i = 0; i < PROCESSES; i++)
        if ((pids[i] = fork()) == 0) come_and_go(&(struct crowd){*state, i});
    for (int i = 0; i < PROCESSES; i++) {
        int status;
        waitpid(pids[i], &status, 0);
        assert_int_equal(status, 0);
    }
    struct lk_kv *kv = open_at(*state);
    struct lk_kv_txn *t = begin(kv, false);
    for (const char *k = "abc"; *k; k++) {
        struct lk_bytes v;
        int32_t n;
        OK(lk_kv_get(t, lk_bytes(k, 1), &v, &test_err));
        memcpy(&n, v.data, 4);
        assert_int_equal(n, PROCESSES * TURNS / 3);
    }
    lk_kv_abort(t);
    lk_kv_close(kv);
}

int main(void) {
    lk_log_quiet(true); /* a test directory may be on 9p */
    const struct CMUnitTest tests[] = {
        TEST_IN_DIR(statistics),
        TEST_IN_DIR(copies),
        TEST_IN_DIR(every_way_to_a_name),
        TEST_IN_DIR(killed_copies),
        TEST_IN_DIR(compacts),
        TEST_IN_DIR(others_keep_it_from_compacting),
        TEST_IN_DIR(a_crowd_comes_and_goes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
