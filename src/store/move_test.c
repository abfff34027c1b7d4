/* Stores in other places: equal rows and blobs, whatever comes between. */
#include "base/testing.h"
#include "lockstep/base/progress.h"
#include "lockstep/store/census.h"
#include "lockstep/store/move.h"
#include "store/kv/kv_engine.h"
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/mount.h>
#include <sys/stat.h>

#define NONE                                                                                                               \
    (const struct lk_row_kind *const[]) {                                                                                  \
        NULL                                                                                                               \
    }

struct world {
    char *dir, *from, *to;
};
static int setup(void **state) {
    static struct world w;
    w.dir = test_dir_make();
    w.from = test_join(w.dir, "from");
    w.to = test_join(w.dir, "to");
    *state = &w;
    return 0;
}
static int teardown(void **state) {
    struct world *w = *state;
    lk_free(w->from);
    lk_free(w->to);
    test_dir_remove(w->dir);
    return 0;
}
#define MOVE_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

static struct lk_store *open_store(const char *dir, enum lk_access how) {
    struct lk_store *s;
    OK(lk_store_open(dir, how, &s, &test_err));
    return s;
}

/* --- what is moved --------------------------------------------------------------------------------------- */

struct filling {
    int first, count;
    struct lk_root root;
};
/* Rows of all lengths, in and out of order, among them long keys and a large value; names that hold blobs. */
static int put_rows(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    const struct filling *f = arg;
    static char value[2 << 20], key[LK_KV_KEY_MAX];
    int code = 0;
    memset(key, 'k', sizeof key);
    for (int i = f->first; i < f->first + f->count && !code; i++) {
        size_t n = (size_t)snprintf(key, 40, "row/%d/%06d", i % 3, i), size = (size_t)i * 7919 % 300;
        key[n] = 'k';
        if (i % 50 == 0) n = 600 + (size_t)i % 500;
        if (i % 400 == 1) size = sizeof value;
        memset(value, 'a' + i % 26, size);
        code = lk_kv_put(txn, lk_bytes(key, n), lk_bytes(value, size), err);
    }
    char name[40];
    snprintf(name, sizeof name, "m%d", f->first);
    return code ? code : lk_name_put(txn, "model", name, &f->root, err);
}
static void fill(struct lk_store *s, int first, int count) {
    struct filling f = {.first = first, .count = count};
    static char data[3 << 20];
    memset(data, first & 127, sizeof data);
    for (int i = 0; i < 6; i++) {
        memcpy(data, &(int[]){first, i}, 2 * sizeof(int));
        OK(lk_blob_put(s->blobs, data, i ? (size_t)i * 1000 : sizeof data, &f.root, &test_err));
    }
    OK(lk_kv_update(s->kv, put_rows, &f, LK_DURABLE, NULL, &test_err));
}
static void make(const char *dir) {
    struct lk_store *s = open_store(dir, LK_CREATE);
    fill(s, 0, 1300);
    fill(s, 5000, 20);
    struct lk_root none;
    OK(lk_blob_put(s->blobs, "", 0, &none, &test_err));
    lk_store_close(s);
}

static int check_blob(void *arg, const struct lk_root *root, uint64_t size, int64_t modified_ms) {
    struct lk_blob b;
    (void)modified_ms;
    OK(lk_blob_open(arg, root, true, &b, &test_err));
    assert_int_equal(b.size, size);
    lk_blob_close(&b);
    return 0;
}
static int64_t clock_of(struct lk_store *s) {
    struct lk_kv_txn *t;
    int64_t time;
    OK(lk_kv_begin(s->kv, false, &t, &test_err));
    OK(lk_kv_commit(t, LK_LAZY, &time, &test_err));
    return time;
}
/* Opened anew: equal rows by root and number, all blobs of `a` whole in `b`, a clock that is not behind. */
static void equal_stores(const char *a, const char *b) {
    struct lk_store *from = open_store(a, LK_READ), *to = open_store(b, LK_READ);
    struct lk_census one, other;
    OK(lk_store_census(from, NONE, &one, &test_err));
    OK(lk_store_census(to, NONE, &other, &test_err));
    assert_int_equal(one.rows, other.rows);
    assert_true(lk_root_equal(&one.rows_root, &other.rows_root));
    assert_int_equal(one.blobs, other.blobs);
    assert_int_equal(one.blob_bytes, other.blob_bytes);
    OK(lk_blobs_list(to->blobs, -1, check_blob, to->blobs, &test_err));
    assert_true(clock_of(to) >= clock_of(from));
    OK(lk_kv_check(to->kv, &(struct lk_kv_check){0}, &test_err));
    lk_store_close(from);
    lk_store_close(to);
}

static int move_to(const char *from, const char *to, struct lk_move_result *r) {
    return lk_store_move(&(struct lk_move_place){from, NULL}, &(struct lk_move_place){to, NULL},
                         &(struct lk_move_options){0}, r, &test_err);
}

static void moves_all(void **state) {
    struct world *w = *state;
    struct lk_move_result r;
    make(w->from);
    OK(move_to(w->from, w->to, &r));
    equal_stores(w->from, w->to);
    assert_false(r.resumed);
    assert_int_equal(r.copied_blobs, r.blobs);
    assert_int_equal(r.blobs, 13);
    assert_int_equal(r.rows, r.put_rows);
    assert_int_equal(r.deleted_rows, 0);
    assert_true(r.rows > 1320);
    struct lk_store *s = open_store(w->to, LK_WRITE);
    fill(s, 9000, 10);
    lk_store_close(s);
    FAILS(move_to(w->from, w->to, &r), LK_EEXISTS, "there is a store at");
    char *third = test_join(w->dir, "third"); /* and on from there */
    OK(move_to(w->to, third, &r));
    equal_stores(w->to, third);
    lk_free(third);
}

static void an_empty_store_moves(void **state) {
    struct world *w = *state;
    struct lk_move_result r;
    lk_store_close(open_store(w->from, LK_CREATE));
    OK(move_to(w->from, w->to, &r));
    equal_stores(w->from, w->to);
    assert_int_equal(r.rows + r.blobs, 0);
}

/* The new store's clock does not go back, even where that of the old one is ahead of the day. */
static int far_ahead(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    int code = lk__kv_timestamp_from(txn, *(int64_t *)arg, err);
    return code ? code : lk_kv_put(txn, lk_bytes("late", 4), lk_bytes("", 0), err);
}
static void time_goes_on(void **state) {
    struct world *w = *state;
    struct lk_move_result r;
    int64_t ahead = lk_clock_wall_ms() + 1000000, got;
    make(w->from);
    struct lk_store *s = open_store(w->from, LK_WRITE);
    OK(lk_kv_update(s->kv, far_ahead, &ahead, LK_DURABLE, &got, &test_err));
    assert_int_equal(got, ahead);
    assert_int_equal(clock_of(s), ahead);
    lk_store_close(s);
    OK(move_to(w->from, w->to, &r));
    assert_true(r.timestamp_ms > ahead);
    s = open_store(w->to, LK_READ);
    assert_int_equal(clock_of(s), r.timestamp_ms);
    lk_store_close(s);
    s = open_store(w->from, LK_READ);
    assert_int_equal(clock_of(s), ahead); /* as it was */
    lk_store_close(s);
}

/* What processes do in the old store is nothing of the new one's. */
static void doings_stay(void **state) {
    static const char *const own[] = {"r/lease/run/x", "r/sweep/blobs", "u/7/1"};
    struct world *w = *state;
    struct lk_move_result r;
    make(w->from);
    char *url = lk_asprintf("file:%s", w->from), *other = lk_asprintf("file:%s", w->to);
    struct lk_kv *kv;
    struct lk_kv_txn *t;
    struct lk_bytes value;
    OK(lk_kv_open(url, LK_WRITE, &kv, &test_err));
    OK(lk_kv_begin(kv, true, &t, &test_err));
    for (int i = 0; i < 3; i++) OK(lk_kv_put(t, lk_bytes(own[i], strlen(own[i])), lk_bytes("{}", 2), &test_err));
    OK(lk_kv_commit(t, LK_DURABLE, NULL, &test_err));
    lk_kv_close(kv);
    OK(move_to(w->from, w->to, &r));
    OK(lk_kv_open(other, LK_READ, &kv, &test_err));
    OK(lk_kv_begin(kv, false, &t, &test_err));
    for (int i = 0; i < 3; i++)
        assert_int_equal(lk_kv_get(t, lk_bytes(own[i], strlen(own[i])), &value, &test_err), LK_ENOTFOUND);
    lk_kv_abort(t);
    lk_kv_close(kv);
    lk_free(url);
    lk_free(other);
}

/* --- what is refused ------------------------------------------------------------------------------------- */

static void refusals(void **state) {
    struct world *w = *state;
    struct lk_move_result r;
    struct lk_lease *lease;
    struct lk_kv *kv;
    make(w->from);
    FAILS(move_to(w->to, w->from, &r), LK_ENOTFOUND, "there is no store at");
    FAILS(move_to(w->from, w->from, &r), LK_EINVAL, "both stores would have their blobs");
    char *blobs = test_join(w->from, "blobs"), *url = lk_asprintf("file:%s", w->to);
    FAILS(lk_store_move(&(struct lk_move_place){w->from, NULL}, &(struct lk_move_place){w->to, blobs},
                        &(struct lk_move_options){0}, &r, &test_err),
          LK_EINVAL, "name another place");
    lk_free(blobs);
    struct lk_store *s = open_store(w->from, LK_WRITE);
    OK(lk_lease_acquire(s, "run", "busy", &lease, &test_err));
    char process[40];
    snprintf(process, sizeof process, "process %ld", (long)getpid());
    FAILS(move_to(w->from, w->to, &r), LK_EBUSY, process);
    assert_non_null(strstr(test_err.message, "run/busy"));
    lk_lease_release(lease, true);
    OK(lk_lease_acquire(s, "other", "thing", &lease, &test_err));
    FAILS(move_to(w->from, w->to, &r), LK_EBUSY, "other/thing");
    lk_lease_release(lease, true);
    lk_store_close(s);
    OK(lk_kv_open(url, LK_CREATE, &kv, &test_err));
    struct lk_kv_txn *t;
    OK(lk_kv_begin(kv, true, &t, &test_err));
    OK(lk_kv_put(t, lk_bytes("own", 3), lk_bytes("", 0), &test_err));
    OK(lk_kv_commit(t, LK_DURABLE, NULL, &test_err));
    FAILS(move_to(w->from, w->to, &r), LK_EEXISTS, "rows that are no store's");
    lk_kv_close(kv);
    lk_free(url);
    char *third = test_join(w->dir, "third"), *theirs = test_join(third, "blobs"); /* blobs of somebody else's */
    struct lk_blobs *b;
    struct lk_root root;
    OK(lk_blobs_open(theirs, LK_CREATE, &b, &test_err));
    OK(lk_blob_put(b, "theirs", 6, &root, &test_err));
    lk_blobs_close(b);
    FAILS(move_to(w->from, third, &r), LK_EEXISTS, "1 blobs that are not of");
    lk_free(third);
    lk_free(theirs);
}

/* --- stopped, killed, gone on with ----------------------------------------------------------------------- */

static bool stop_at_once(void *arg) {
    return --*(int *)arg < 0;
}
static int move_until(struct world *w, int *calls, struct lk_move_result *r) {
    struct lk_move_options o = {.stop = stop_at_once, .arg = calls, .threads = 1};
    return lk_store_move(&(struct lk_move_place){w->from, NULL}, &(struct lk_move_place){w->to, NULL}, &o, r, &test_err);
}
static void stopped_and_gone_on_with(void **state) {
    struct world *w = *state;
    struct lk_move_result r;
    struct lk_store *s;
    make(w->from);
    FAILS(move_until(w, &(int){0}, &r), LK_ESTOPPED, "goes on with it");
    FAILS(lk_store_open(w->to, LK_READ, &s, &test_err), LK_EBUSY, "is being moved from file:");
    FAILS(lk_store_open(w->to, LK_CREATE, &s, &test_err), LK_EBUSY, w->from);
    char *third = test_join(w->dir, "third");
    FAILS(move_to(w->to, third, &r), LK_EBUSY, "is being moved");
    make(third);
    FAILS(move_to(third, w->to, &r), LK_EEXISTS, "half of a move from");
    lk_free(third);
    s = open_store(w->from, LK_WRITE); /* rows that were changed and are gone since */
    struct lk_kv_txn *t;
    OK(lk_kv_begin(s->kv, true, &t, &test_err));
    OK(lk_kv_delete_range(t, lk_bytes("row/1", 5), lk_bytes("row/2", 5), &test_err));
    OK(lk_kv_put(t, lk_bytes("row/0/000003", 12), lk_bytes("changed", 7), &test_err));
    OK(lk_kv_put(t, lk_bytes("a", 1), lk_bytes("first", 5), &test_err));
    OK(lk_kv_commit(t, LK_DURABLE, NULL, &test_err));
    lk_store_close(s);
    OK(move_to(w->from, w->to, &r));
    assert_true(r.resumed);
    equal_stores(w->from, w->to);
}
/* Half of it is there, and is made to differ in every way: a row more in front, between and behind, others, fewer. */
static void what_is_there_is_made_equal(void **state) {
    struct world *w = *state;
    struct lk_move_result r;
    make(w->from);
    for (int calls = 1;; calls += 2) {
        int left = calls, code = move_until(w, &left, &r);
        if (code == 0) break;
        assert_int_equal(code, LK_ESTOPPED);
        char *url = lk_asprintf("file:%s", w->to);
        struct lk_kv *kv;
        struct lk_kv_txn *t;
        OK(lk_kv_open(url, LK_WRITE, &kv, &test_err));
        OK(lk_kv_begin(kv, true, &t, &test_err));
        static const char *const keys[] = {"A", "format", "g", "row/0/0", "row/0/000600", "row/0/000600x", "zz"};
        for (size_t i = 0; i < 7; i++)
            if (strcmp(keys[i], "format") != 0)
                OK(lk_kv_put(t, lk_bytes(keys[i], strlen(keys[i])), lk_bytes("strange", 7), &test_err));
        OK(lk_kv_delete_range(t, lk_bytes("row/2/0003", 10), lk_bytes("row/2/0006", 10), &test_err));
        OK(lk_kv_commit(t, LK_LAZY, NULL, &test_err));
        lk_kv_close(kv);
        lk_free(url);
        assert_in_range(calls, 0, 200);
    }
    assert_true(r.deleted_rows > 0);
    equal_stores(w->from, w->to);
}

static void killed_at_random_points(void **state) {
    struct world *w = *state;
    struct lk_move_result r;
    uint64_t seed = test_seed("killed");
    if (LK_TSAN) skip(); /* fork */
    make(w->from);
    uint64_t began = lk_clock_ns();
    char *whole = test_join(w->dir, "whole");
    OK(move_to(w->from, whole, &r)); /* how long it takes */
    uint64_t took_us = (lk_clock_ns() - began) / 1000 + 1;
    for (int turn = 0; turn < 25; turn++) {
        for (int kills = 0; kills < 3; kills++) {
            fflush(NULL);
            pid_t pid = fork();
            if (pid == 0) _exit(move_to(w->from, w->to, &r) ? 1 : 0);
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            usleep((useconds_t)((seed >> 33) % took_us));
            kill(pid, SIGKILL);
            int status;
            waitpid(pid, &status, 0);
            if (WIFEXITED(status)) break;
        }
        int code = move_to(w->from, w->to, &r);
        if (code != LK_EEXISTS) OK(code); /* that: the last one was killed when all was done */
        equal_stores(w->from, w->to);
        OK(lk_dir_remove(w->to, &test_err));
    }
    lk_free(whole);
}

/* Of two at once one ends by itself, and the store is whole. */
static void *move_beside(void *arg) {
    struct world *w = arg;
    struct lk_move_result r;
    struct lk_err err;
    struct lk_move_options o = {0};
    int code = lk_store_move(&(struct lk_move_place){w->from, NULL}, &(struct lk_move_place){w->to, NULL}, &o, &r, &err);
    return (void *)(intptr_t)code;
}
static void two_at_once(void **state) {
    struct world *w = *state;
    make(w->from);
    for (int turn = 0; turn < 4; turn++) {
        pthread_t threads[2];
        void *codes[2];
        for (int i = 0; i < 2; i++) assert_int_equal(pthread_create(&threads[i], NULL, move_beside, w), 0);
        for (int i = 0; i < 2; i++) pthread_join(threads[i], &codes[i]);
        int done = 0;
        for (int i = 0; i < 2; i++) {
            intptr_t code = (intptr_t)codes[i];
            assert_true(code == 0 || code == LK_EBUSY || code == LK_EEXISTS);
            done += code == 0;
        }
        assert_int_equal(done, 1);
        equal_stores(w->from, w->to);
        OK(lk_dir_remove(w->to, &test_err));
    }
}

/* --- damage, full disks ---------------------------------------------------------------------------------- */

static void a_damaged_blob_stops_it(void **state) {
    struct world *w = *state;
    struct lk_move_result r;
    struct lk_root root;
    char path[4096], hex[LK_ROOT_HEX];
    make(w->from);
    struct lk_store *s = open_store(w->from, LK_WRITE);
    OK(lk_blob_put(s->blobs, "to be damaged", 13, &root, &test_err));
    lk_blob_path(s->blobs, &root, path);
    lk_root_hex(&root, hex);
    assert_int_equal(chmod(path, 0644), 0);
    int fd = open(path, O_WRONLY);
    assert_int_equal(pwrite(fd, "T", 1, 0), 1);
    close(fd);
    FAILS(move_to(w->from, w->to, &r), LK_ECORRUPT, hex + 2);
    assert_non_null(strstr(test_err.message, "goes on where it was"));
    OK(lk_blob_put(s->blobs, "to be damaged", 13, &root, &test_err)); /* heals it */
    lk_store_close(s);
    OK(move_to(w->from, w->to, &r));
    assert_true(r.resumed);
    equal_stores(w->from, w->to);
}

/* In a place of 6 MiB, then a larger one. */
static void move_to_a_small_disk(void *arg) {
    struct world *w = arg;
    struct lk_move_result r;
    if (unshare(CLONE_NEWNS) && unshare(CLONE_NEWUSER | CLONE_NEWNS)) _exit(77);
    if (mkdir(w->to, 0777) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
        mount("small", w->to, "tmpfs", 0, "size=6m"))
        _exit(77);
    for (int i = 0; i < 2; i++) {
        int code = move_to(w->from, w->to, &r);
        if (code != LK_EIO || !strstr(test_err.message, "No space left"))
            fprintf(stderr, "%s\n", test_err.message), _exit(1);
    }
    if (mount("small", w->to, "tmpfs", MS_REMOUNT, "size=64m")) _exit(2);
    if (move_to(w->from, w->to, &r)) fprintf(stderr, "%s\n", test_err.message), _exit(3);
    equal_stores(w->from, w->to);
    umount(w->to);
    _exit(r.resumed ? 0 : 4);
}
static void a_full_disk(void **state) {
    struct world *w = *state;
    if (LK_TSAN) skip(); /* fork */
    make(w->from);
    int status = test_fork(move_to_a_small_disk, w);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) skip();
    assert_int_equal(status, 0);
}

/* --- others at work -------------------------------------------------------------------------------------- */

struct writer {
    struct lk_store *store;
    atomic_bool stop;
    atomic_int acknowledged; /* rows work/N that are there, each with a blob */
    int at_last;             /* that number, when others had to wait */
};
struct work {
    int number;
    struct lk_root root;
};
static int put_work(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    const struct work *k = arg;
    char key[32];
    snprintf(key, sizeof key, "work/%08d", k->number);
    return lk_kv_put(txn, lk_bytes(key, strlen(key)), lk_bytes(k->root.bytes, sizeof k->root.bytes), err);
}
static void *write_on(void *arg) {
    struct writer *w = arg;
    for (struct work k = {0}; !atomic_load(&w->stop); k.number++) {
        if (lk_blob_put(w->store->blobs, &k.number, sizeof k.number, &k.root, NULL)) return arg;
        if (lk_kv_update(w->store->kv, put_work, &k, LK_LAZY, NULL, NULL)) return arg;
        atomic_store(&w->acknowledged, k.number + 1);
    }
    return NULL;
}
static void note_last(void *arg, const struct lk_move_status *s) {
    struct writer *w = arg;
    if (s->last && !w->at_last) w->at_last = atomic_load(&w->acknowledged);
}
/* What the rows say is there, without a gap, with its blobs, and not less than what had been acknowledged. */
static void a_writer_loses_nothing(void **state) {
    struct world *w = *state;
    struct lk_move_result r;
    make(w->from);
    struct writer writer = {.store = open_store(w->from, LK_WRITE)};
    pthread_t thread;
    void *failed;
    assert_int_equal(pthread_create(&thread, NULL, write_on, &writer), 0);
    while (atomic_load(&writer.acknowledged) < 5) usleep(1000);
    int before = atomic_load(&writer.acknowledged);
    struct lk_move_options o = {.tell = note_last, .arg = &writer};
    OK(lk_store_move(&(struct lk_move_place){w->from, NULL}, &(struct lk_move_place){w->to, NULL}, &o, &r, &test_err));
    atomic_store(&writer.stop, true);
    pthread_join(thread, &failed);
    assert_null(failed);
    lk_store_close(writer.store);
    struct lk_store *to = open_store(w->to, LK_READ);
    struct lk_kv_txn *t;
    OK(lk_kv_begin(to->kv, false, &t, &test_err));
    int n = 0;
    for (;; n++) {
        char key[32];
        struct lk_bytes v;
        struct lk_root root;
        struct lk_blob b;
        snprintf(key, sizeof key, "work/%08d", n);
        if (lk_kv_get(t, lk_bytes(key, strlen(key)), &v, NULL)) break;
        memcpy(root.bytes, v.data, sizeof root.bytes);
        OK(lk_blob_open(to->blobs, &root, true, &b, &test_err));
        lk_blob_close(&b);
    }
    lk_kv_abort(t);
    assert_true(n >= before && n >= writer.at_last);
    print_message("  %d rows were written meanwhile, others waited %.3f s\n", n - before, r.waited_s);
    lk_store_close(to);
}

int main(void) {
    lk_log_quiet(true); /* a test directory may be on 9p */
    const struct CMUnitTest tests[] = {
        MOVE_TEST(doings_stay),
        MOVE_TEST(moves_all),
        MOVE_TEST(an_empty_store_moves),
        MOVE_TEST(time_goes_on),
        MOVE_TEST(refusals),
        MOVE_TEST(stopped_and_gone_on_with),
        MOVE_TEST(what_is_there_is_made_equal),
        MOVE_TEST(killed_at_random_points),
        MOVE_TEST(two_at_once),
        MOVE_TEST(a_damaged_blob_stops_it),
        MOVE_TEST(a_full_disk),
        MOVE_TEST(a_writer_loses_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
