/* The key-value engine where the machine says no: permissions, a full disk, little address space, no memory. */
#include "lockstep/base/progress.h"
#include "store/kv/testing.h"
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>

/* This process has little address space, so that another makes the store larger than its map, again and again: whoever
 * begins when nobody else is at work moves the map, away from nobody. */
#define LARGE_ROWS 5
#define MIB        ((size_t)1 << 20)
struct larger {
    const char *dir;
    rlim_t space;
    int rows;
};
static void write_large(void *arg) {
    struct larger *l = arg;
    setrlimit(RLIMIT_AS, &(struct rlimit){l->space, l->space});
    struct lk_kv *kv = open_at(l->dir);
    char *value = lk_calloc(1, MIB);
    struct lk_kv_txn *w = begin(kv, true);
    for (int i = l->rows; i < l->rows + LARGE_ROWS; i++)
        if (lk_kv_put(w, lk_bytes(&(int){i + 1}, sizeof i), lk_bytes(value, MIB), NULL) != 0) _exit(1);
    commit(w);
    lk_kv_close(kv);
    lk_free(value);
}
struct large_reader {
    struct lk_kv *kv;
    int rows;
    pthread_barrier_t *start;
};
static void *read_large(void *arg) {
    struct large_reader *l = arg;
    struct lk_bytes v;
    struct lk_err e;
    pthread_barrier_wait(l->start);
    for (int turn = 0; turn < 100;) {
        struct lk_kv_txn *t;
        int key = 1 + turn % l->rows, code = lk_kv_begin(l->kv, false, &t, &e);
        if (code == LK_EBUSY) continue;
        if (code == 0) code = lk_kv_get(t, lk_bytes(&key, sizeof key), &v, &e);
        if (code != 0) return print_error("row %d of %d: %s\n", key, l->rows, e.message), (void *)1;
        if (v.size != MIB || ((const char *)v.data)[MIB - 1] != 0) return (void *)2;
        lk_kv_abort(t);
        turn++;
    }
    return NULL;
}
static void a_map_moves_away_from_nobody(void **state) {
    if (LK_SANITIZED) skip(); /* needs terabytes of address space */
    struct rlimit all, few;
    pthread_t threads[4];
    pthread_barrier_t start;
    pthread_barrier_init(&start, NULL, 4);
    assert_int_equal(getrlimit(RLIMIT_AS, &all), 0);
    few = (struct rlimit){(rlim_t)400 << 20, all.rlim_max};
    mallopt(M_ARENA_MAX, 1); /* each thread's takes 64 MiB */
    assert_int_equal(setrlimit(RLIMIT_AS, &few), 0);
    struct lk_kv *kv = open_at(*state);
    struct lk_kv_txn *t, *old = begin(kv, false);
    struct lk_err e;
    for (int rows = 0; rows < 24 * LARGE_ROWS; rows += LARGE_ROWS) {
        struct larger larger = {*state, all.rlim_cur, rows};
        struct large_reader reader = {kv, rows + LARGE_ROWS, &start};
        assert_int_equal(test_fork(write_large, &larger), 0);
        if (rows >= 32) { /* the map's first MiB */
            assert_int_equal(lk_kv_begin(kv, false, &t, &e), LK_EBUSY);
            assert_non_null(strstr(e.message, "try again"));
        }
        lk_kv_abort(old);
        for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&threads[i], NULL, read_large, &reader), 0);
        for (int i = 0; i < 4; i++) {
            void *result;
            pthread_join(threads[i], &result);
            assert_null(result);
        }
        old = begin(kv, false);
    }
    lk_kv_abort(old);
    lk_kv_close(kv);
    pthread_barrier_destroy(&start);
    assert_int_equal(setrlimit(RLIMIT_AS, &all), 0);
}

/* --- may only read ---------------------------------------------------------------------------------------- */

#define NOBODY 65534
static int ignore_row(void *arg, struct lk_bytes key, struct lk_bytes value) {
    (void)arg, (void)key, (void)value;
    return 0;
}
struct stranger {
    const char *dir;
    int go, done; /* pipes: a byte from the writer lets the next read begin, a byte back says that it was right */
};
#define DISLIKED 5
static int wait_for_commit(void *arg, struct lk_bytes key, struct lk_bytes value) {
    struct stranger *s = arg;
    char c;
    (void)key, (void)value;
    return write(s->done, "", 1) == 1 && read(s->go, &c, 1) == 1 ? DISLIKED : 0;
}
static void read_as_nobody(void *arg) {
    struct stranger *s = arg;
    struct lk_kv *kv;
    struct lk_kv_txn *txn;
    struct lk_bytes v;
    struct lk_err e;
    char url[4096];
    snprintf(url, sizeof url, "file:%s", s->dir);
    if (setgid(NOBODY) != 0 || setuid(NOBODY) != 0) _exit(77);
    if (lk_kv_open(url, LK_WRITE, &kv, &e) != LK_EIO || !strstr(e.message, "can only be read")) _exit(1);
    if (lk_kv_open(url, LK_READ, &kv, &e) != 0) _exit(2);
    if (lk_kv_begin(kv, true, &txn, &e) != LK_EIO || !strstr(e.message, "no permission to write")) _exit(3);
    if (lk_kv_begin(kv, false, &txn, &e) != 0) _exit(4);
    if (lk_kv_get(txn, S("n"), &v, &e) != 0 || v.size != 1 || memcmp(v.data, "0", 1) != 0) _exit(5);
    for (int commits = 1; commits <= 2; commits++) {
        /* The second time the writer gets ahead while a row is looked at: then what its reader makes of it counts for
         * nothing. */
        if (commits == 1 && wait_for_commit(s, S("n"), S("")) != DISLIKED) _exit(6);
        int scan = lk_kv_scan(txn, S("a"), S("z"), commits == 1 ? ignore_row : wait_for_commit, s, NULL);
        int code = lk_kv_get(txn, S("n"), &v, &e);
        /* One commit leaves the snapshot whole; after two its pages may be written upon. */
        if (commits == 1 && (code != 0 || memcmp(v.data, "0", 1) != 0 || scan != 0)) _exit(7);
        if (commits == 2 && (code != LK_EBUSY || !strstr(e.message, "try again") || scan != LK_EBUSY)) _exit(8);
    }
    lk_kv_abort(txn);
    if (lk_kv_begin(kv, false, &txn, &e) != 0) _exit(9);
    if (lk_kv_get(txn, S("n"), &v, &e) != 0 || memcmp(v.data, "2", 1) != 0) _exit(10);
    lk_kv_abort(txn);
    lk_kv_close(kv);
    _exit(0);
}
/* A user without permission to write, beside a writer. */
static void may_only_read(void **state) {
    int go[2], done[2], status = 0;
    char c;
    if (LK_TSAN || geteuid() != 0) skip(); /* fork; who else could write, when we may not? */
    struct lk_kv *kv = open_at(*state);
    put_one(kv, "n", "0");
    lk_kv_close(kv);
    assert_int_equal(chmod(*state, 0755), 0);
    assert_int_equal(pipe(go) + pipe(done), 0);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) read_as_nobody(&(struct stranger){*state, go[0], done[1]});
    close(done[1]);
    kv = open_at(*state);
    for (int commits = 1; commits <= 2 && read(done[0], &c, 1) == 1; commits++) {
        put_one(kv, "n", commits == 1 ? "1" : "2");
        assert_int_equal(write(go[1], "", 1), 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    close(done[0]), close(go[0]), close(go[1]);
    lk_kv_close(kv);
}

static void fill_the_disk(void *dir) {
    struct rlimit limit = {300000, 300000};
    struct lk_err e;
    char *value = lk_calloc(1, 100000);
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &limit);
    struct lk_kv *kv = open_at(dir);
    int code = 0, wrote = 0;
    for (int i = 0; code == 0 && i < 10; i++) {
        struct lk_kv_txn *w = begin(kv, true);
        char key[8];
        snprintf(key, sizeof key, "big%d", i);
        code = lk_kv_put(w, S(key), lk_bytes(value, 100000), &e);
        if (code == 0) code = lk_kv_put(w, S("last"), S(key), &e);
        if (code == 0)
            code = lk_kv_commit(w, i % 2 ? LK_LAZY : LK_DURABLE, NULL, &e);
        else
            lk_kv_abort(w);
        wrote += code == 0;
    }
    if (code != LK_EIO || !strstr(e.message, "nothing was changed")) _exit(1);
    /* The last good state is there, and small writes still work. */
    char expected[16];
    snprintf(expected, sizeof expected, "big%d", wrote - 1);
    struct lk_kv_txn *w = begin(kv, true);
    row_is(w, "last", expected);
    row_is(w, "old", "kept");
    put(w, "small", "fits");
    commit(w);
    lk_kv_close(kv);
    lk_free(value);
    _exit(0);
}
static void a_full_disk_changes_nothing(void **state) {
    if (LK_TSAN) skip(); /* fork */
    struct lk_kv *kv = open_at(*state);
    struct lk_kv_txn *w = begin(kv, true);
    put(w, "old", "kept");
    commit(w);
    lk_kv_close(kv);
    assert_int_equal(test_fork(fill_the_disk, *state), 0);
    kv = open_at(*state);
    struct lk_kv_txn *r = begin(kv, false);
    row_is(r, "old", "kept");
    row_is(r, "small", "fits");
    lk_kv_abort(r);
    lk_kv_close(kv);
}

static int change_rows(struct lk_kv *kv, int first, int count, bool remove, struct lk_err *err) {
    static const char value[1000];
    struct lk_kv_txn *w = begin(kv, true);
    int code = 0;
    for (int i = first; code == 0 && i < first + count; i++) {
        char key[16];
        snprintf(key, sizeof key, "row%04d", i); /* rows of a run stand side by side */
        code = remove ? lk_kv_delete(w, S(key), err) : lk_kv_put(w, S(key), lk_bytes(value, sizeof value), err);
    }
    if (code == 0) return lk_kv_commit(w, LK_DURABLE, NULL, err);
    lk_kv_abort(w);
    return code;
}
/* A full disk of our own, where the kernel lets us mount one. Exit 77: it does not. The rows come in one transaction, so
 * that LMDB has no free pages: a write fails, but deleting does not, again and again. */
static void delete_on_a_full_disk(void *dir) {
    if (unshare(CLONE_NEWNS) && unshare(CLONE_NEWUSER | CLONE_NEWNS)) _exit(77);
    if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) || mount("small", dir, "tmpfs", 0, "size=8m")) _exit(77);
    char *filler = test_join(dir, "filler"), *reserve = test_join(dir, "kv/reserve");
    static const char zeros[4096];
    struct lk_kv *kv = open_at(dir);
    struct lk_err e;
    struct stat st;
    if (change_rows(kv, 0, 2000, false, &e) != 0) _exit(1);
    FILE *f = fopen(filler, "wb");
    while (fwrite(zeros, 1, sizeof zeros, f) == sizeof zeros && fflush(f) == 0) {}
    fclose(f);
    if (change_rows(kv, 3000, 100, false, &e) != LK_EIO || !strstr(e.message, "No space left")) _exit(2);
    for (int first = 0; first < 2000; first += 500) {
        if (change_rows(kv, first, 500, true, &e) != 0) fprintf(stderr, "%s\n", e.message), _exit(3);
        lk_kv_close(kv);
        kv = open_at(dir);
    }
    unlink(filler);
    lk_kv_close(kv);
    kv = open_at(dir); /* takes the room again */
    if (stat(reserve, &st) != 0 || st.st_blocks < 1024) _exit(4);
    lk_kv_close(kv);
    umount(dir);
    _exit(0);
}
static void deleting_works_on_a_full_disk(void **state) {
    if (LK_TSAN) skip(); /* fork */
    int status = test_fork(delete_on_a_full_disk, *state);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
        print_message("no right to mount a small disk here\n");
        skip();
    }
    assert_int_equal(status, 0);
}

static void a_pipe_in_place_of_the_reserve_is_let_alone(void **state) {
    char *reserve = test_join(*state, "kv/reserve");
    lk_kv_close(open_at(*state));
    unlink(reserve);
    assert_int_equal(mkfifo(reserve, 0666), 0);
    alarm(20); /* no waiting for who reads it */
    lk_kv_close(open_at(*state));
    alarm(0);
    lk_free(reserve);
}

/* Calls that share a commit: one wants more than the file may hold, and only that one fails. */
#define WRITERS 6
struct writer {
    struct lk_kv *kv;
    int number, turn;
};
static int put_small_or_large(struct lk_kv_txn *t, void *arg, struct lk_err *err) {
    struct writer *w = arg;
    static const char large[3 * MIB];
    char key[32];
    snprintf(key, sizeof key, "%d/%d", w->number, w->turn);
    return lk_kv_put(t, S(key), lk_bytes(large, w->number == 0 ? sizeof large : 10), err);
}
static void *write_rows(void *arg) {
    struct writer *w = arg;
    struct lk_err e = {0};
    for (w->turn = 0; w->turn < 50; w->turn++) {
        int code = lk_kv_update(w->kv, put_small_or_large, w, LK_LAZY, NULL, &e);
        if (code != (w->number == 0 ? LK_EIO : 0)) return (void *)1;
        if (w->number == 0 && !strstr(e.message, "nothing was changed")) return (void *)2;
    }
    return NULL;
}
static void share_a_small_file(void *dir) {
    pthread_t threads[WRITERS];
    struct writer writers[WRITERS];
    void *result;
    struct rlimit limit = {2 * MIB, 2 * MIB};
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &limit);
    struct lk_kv *kv = open_at(dir);
    for (int i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){kv, i, 0};
        pthread_create(&threads[i], NULL, write_rows, &writers[i]);
    }
    for (int i = 0; i < WRITERS; i++) {
        pthread_join(threads[i], &result);
        if (result) _exit(10 * i + (int)(intptr_t)result);
    }
    struct lk_kv_txn *t = begin(kv, false);
    for (int i = 1; i < WRITERS; i++)
        for (int turn = 0; turn < 50; turn++) {
            char key[32];
            struct lk_bytes v;
            snprintf(key, sizeof key, "%d/%d", i, turn);
            if (lk_kv_get(t, S(key), &v, NULL) != 0) _exit(100);
        }
    lk_kv_abort(t);
    lk_kv_close(kv);
}
static void a_call_that_is_too_large_fails_alone(void **state) {
    if (LK_TSAN) skip(); /* fork */
    assert_int_equal(test_fork(share_a_small_file, *state), 0);
}

static void little_address_space(void *dir) {
    struct rlimit limit = {(rlim_t)3 << 30, (rlim_t)3 << 30};
    setrlimit(RLIMIT_AS, &limit);
    struct lk_kv *kv = open_at(dir);
    put_one(kv, "child", "1");
    lk_kv_close(kv);
}
static void fits_a_limited_address_space(void **state) {
    if (LK_SANITIZED) skip(); /* needs terabytes of it */
    assert_int_equal(test_fork(little_address_space, *state), 0);
}

static int use(const char *url) {
    struct lk_kv *kv;
    struct lk_kv_txn *txn;
    int64_t t;
    int code = lk_kv_open(url, LK_CREATE, &kv, NULL);
    if (code != 0) return code;
    code = lk_kv_begin(kv, true, &txn, NULL);
    if (code == 0) {
        code = lk_kv_put(txn, S("a"), S("b"), NULL);
        if (code == 0)
            code = lk_kv_commit(txn, LK_LAZY, &t, NULL);
        else
            lk_kv_abort(txn);
    }
    lk_kv_close(kv);
    return code;
}
static void out_of_memory(void **state) {
    char *url = lk_asprintf("file:%s/new", (char *)*state);
    FAIL_EACH_ALLOCATION(use(url));
    lk_free(url);
}
int main(void) {
    lk_log_quiet(true); /* a test directory may be on 9p */
    const struct CMUnitTest tests[] = {
        TEST_IN_DIR(a_map_moves_away_from_nobody), /* before other threads have taken address space */
        TEST_IN_DIR(may_only_read),
        TEST_IN_DIR(a_full_disk_changes_nothing),
        TEST_IN_DIR(deleting_works_on_a_full_disk),
        TEST_IN_DIR(a_pipe_in_place_of_the_reserve_is_let_alone),
        TEST_IN_DIR(a_call_that_is_too_large_fails_alone),
        TEST_IN_DIR(fits_a_limited_address_space),
        TEST_IN_DIR(out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
