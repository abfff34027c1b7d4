/* SIGKILL at random points, of processes that write rows and blobs, and of PostgreSQL's server: nothing that was
 * acknowledged is lost, nothing is there half. LOCKSTEP_TEST_SECONDS: for how long on each of the four; else for
 * ROUND kills of each. An argument: the name of one. */
#include "lockstep/base/progress.h"
#include "lockstep/store/blob.h"
#include "store/blob/s3_mock.h"
#include "store/kv/postgres_testing.h"
#include "store/some_rows.h"
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>

#define PROCESSES 4
#define THREADS   2
#define WRITERS   (PROCESSES * THREADS)
#define ROUND     8    /* kills; the last one is of all */
#define ROOTS     4096 /* that one process may acknowledge in its life */

/* Shared with all processes. */
struct told {
    atomic_int durable[WRITERS], any[WRITERS]; /* number of the writer's last acknowledged transaction */
    atomic_int count[PROCESSES];
    struct lk_root roots[PROCESSES][ROOTS];
    atomic_int copies, compactions;
};
static uint64_t seed;

static struct told *tell(void) {
    struct told *t = mmap(NULL, sizeof *t, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(t, MAP_FAILED);
    return t;
}
static uint64_t end_ns(void) {
    const char *seconds = getenv("LOCKSTEP_TEST_SECONDS");
    return lk_clock_ns() + (uint64_t)(seconds ? atoi(seconds) : 0) * 1000000000u;
}
#define MUST(x)                                                                                                            \
    do {                                                                                                                   \
        if ((x) != 0) fprintf(stderr, "%s: %s\n", #x, test_err.message), _exit(2);                                         \
    } while (0)

/* --- rows ----------------------------------------------------------------------------------------------------------- */

struct writer {
    struct lk_kv *kv;
    struct told *told;
    int number, next; /* next: filled by its transaction */
};
/* The writer's n-th transaction follows from n alone, so whoever finds n in the store knows all of its rows. */
static int nth(struct lk_kv_txn *t, int writer, int n, struct lk_err *err) {
    struct test_random r = {seed + (uint64_t)writer * 1000003u + (uint64_t)n * 7919u, 0};
    char key[32];
    int code = 0;
    for (char side = 'a'; side <= 'b' && code == 0; side++) {
        snprintf(key, sizeof key, "%c/%d", side, writer);
        code = lk_kv_put(t, S(key), lk_bytes(&n, sizeof n), err);
    }
    for (uint32_t i = 1 + test_random_below(&r, 4); code == 0 && i > 0; i--) code = some_row(t, &r, writer, 300000, err);
    return code;
}
static int number_of(struct lk_kv_txn *t, char side, int writer, int *n, struct lk_err *err) {
    struct lk_bytes v;
    char key[32];
    snprintf(key, sizeof key, "%c/%d", side, writer);
    int code = lk_kv_get(t, S(key), &v, err);
    *n = 0;
    if (code == 0) memcpy(n, v.data, sizeof *n);
    return code == LK_ENOTFOUND ? 0 : code;
}
static int next_one(struct lk_kv_txn *t, void *arg, struct lk_err *err) {
    struct writer *w = arg;
    int code = number_of(t, 'a', w->number, &w->next, err);
    w->next++;
    return code == 0 ? nth(t, w->number, w->next, err) : code;
}
static void *write_rows(void *arg) {
    struct writer *w = arg;
    struct lk_err e;
    for (int i = 0;; i++) {
        bool durable = i % 2;
        int64_t time;
        int code = lk_kv_update(w->kv, next_one, w, durable ? LK_DURABLE : LK_LAZY, i % 5 ? NULL : &time, &e);
        if (code != 0 && strstr(e.message, "unknown")) continue; /* PostgreSQL, whose server is killed as well */
        if (code != 0) fprintf(stderr, "%s\n", e.message), _exit(2);
        atomic_store(&w->told->any[w->number], w->next);
        if (durable) atomic_store(&w->told->durable[w->number], w->next);
    }
    return NULL;
}
/* -1: the server is gone, and the snapshot with it. */
static int same_number(struct lk_kv_txn *t, int writer) {
    int a, b, code = number_of(t, 'a', writer, &a, &test_err);
    if (code == 0) code = number_of(t, 'b', writer, &b, &test_err);
    if (code == LK_EBUSY) return -1;
    MUST(code);
    if (a != b) fprintf(stderr, "half a transaction is seen: %d, %d\n", a, b), _exit(3);
    return a;
}
/* Beside the writers: snapshots by cursors, copies, compactions where nobody else is there. */
static void read_along(struct lk_kv *kv, struct told *told, const char *dir, int process) {
    for (int turn = 0;; turn++) {
        struct lk_kv_txn *t;
        struct lk_kv_cursor *c;
        if (lk_kv_begin(kv, false, &t, &test_err) != 0) continue;
        for (int w = 0; w < WRITERS; w++) {
            int first = same_number(t, w), code = 0, again;
            if (w == process && first >= 0) {
                MUST(lk_kv_cursor_open(t, S("d/"), S("d0"), &c, &test_err));
                for (code = lk_kv_cursor_last(c, &test_err); code == 0;) code = lk_kv_cursor_previous(c, &test_err);
                lk_kv_cursor_close(c);
            }
            again = same_number(t, w);
            if (again != first && again >= 0) fprintf(stderr, "a snapshot moves\n"), _exit(3);
        }
        lk_kv_abort(t);
        if (dir && turn % 8 == process) {
            char *to = lk_asprintf("%s/copy%d", dir, process);
            int code = lk_kv_copy(kv, to, turn % 2, &test_err);
            if (code != 0 && code != LK_EEXISTS) MUST(code);
            atomic_fetch_add(&told->copies, code == 0);
            lk_free(to);
        }
        if (dir && lk_kv_compact(kv, &test_err) == 0) atomic_fetch_add(&told->compactions, 1);
        usleep(1000);
    }
}
static void be_killed(const char *url, struct told *told, const char *dir, int process) {
    struct writer w[THREADS];
    pthread_t threads[THREADS];
    struct lk_kv *kv;
    int code;
    lk_log_quiet(true);
    do code = lk_kv_open(url, LK_WRITE, &kv, &test_err);
    while (code == LK_EIO); /* the server is away, or a lock file empty while somebody compacts */
    MUST(code);
    for (int i = 0; i < THREADS; i++) {
        w[i] = (struct writer){kv, told, process * THREADS + i, 0};
        pthread_create(&threads[i], NULL, write_rows, &w[i]);
    }
    read_along(kv, told, dir, process);
}

static int add_row(void *arg, struct lk_bytes key, struct lk_bytes value) {
    uint64_t sizes[2] = {key.size, value.size};
    lk_hasher_update(arg, sizes, sizeof sizes);
    lk_hasher_update(arg, key.data, key.size);
    lk_hasher_update(arg, value.data, value.size);
    return 0;
}
static struct lk_root rows_root(struct lk_kv_txn *t, int writer) {
    struct lk_hasher *h = lk_hasher_create();
    struct lk_root root;
    char from[32], to[32];
    snprintf(from, sizeof from, "d/%d/", writer);
    snprintf(to, sizeof to, "d/%d0", writer);
    OK(lk_kv_scan(t, S(from), S(to), add_row, h, &test_err));
    lk_hasher_final(h, &root);
    lk_hasher_free(h);
    return root;
}
/* What each writer's rows are after n transactions, kept in memory; n only grows. */
struct models {
    struct lk_kv *kv;
    int n[WRITERS];
};
static void advance(struct models *m, int writer, int n) {
    for (; m->n[writer] < n; m->n[writer]++) {
        struct lk_kv_txn *t = begin(m->kv, true);
        OK(nth(t, writer, m->n[writer] + 1, &test_err));
        commit(t);
    }
}
/* lost: lazy commits may be lost with a server. The other writers go on. */
static void check_rows(const char *url, struct told *told, struct models *m, bool lost, bool all) {
    struct lk_kv *kv;
    struct lk_kv_check whole;
    int least[WRITERS];
    for (int w = 0; w < WRITERS; w++) least[w] = lost ? atomic_load(&told->durable[w]) : atomic_load(&told->any[w]);
    int code;
    do code = lk_kv_open(url, LK_WRITE, &kv, &test_err);
    while (code == LK_EIO && strstr(test_err.message, "lock.mdb"));
    OK(code);
    struct lk_kv_txn *t = begin(kv, false), *u;
    for (int w = 0; w < WRITERS; w++) {
        int a, b;
        OK(number_of(t, 'a', w, &a, &test_err));
        OK(number_of(t, 'b', w, &b, &test_err));
        assert_int_equal(a, b);
        if (a < least[w]) fail_msg("writer %d: %d transactions, %d were acknowledged", w, a, least[w]);
        if (a < m->n[w]) fail_msg("writer %d: %d transactions, and %d were seen before", w, a, m->n[w]);
        advance(m, w, a);
        u = begin(m->kv, false);
        struct lk_root is = rows_root(t, w), should = rows_root(u, w);
        lk_kv_abort(u);
        if (!lk_root_equal(&is, &should)) fail_msg("writer %d: its rows are not those after %d transactions", w, a);
    }
    lk_kv_abort(t);
    if (all) OK(lk_kv_check(kv, &whole, &test_err));
    lk_kv_close(kv);
}
/* Copies that there are are whole; they are removed, so that others come. */
static void check_copies(const char *dir, int process) {
    char *to = lk_asprintf("%s/copy%d", dir, process), *data = lk_asprintf("%s/kv/data.mdb", to);
    if (lk_file_exists(data)) {
        struct lk_kv_check whole;
        struct lk_kv *kv = open_at(to);
        struct lk_kv_txn *t = begin(kv, false);
        for (int w = 0; w < WRITERS; w++) {
            int a, b;
            OK(number_of(t, 'a', w, &a, &test_err));
            OK(number_of(t, 'b', w, &b, &test_err));
            assert_int_equal(a, b);
        }
        lk_kv_abort(t);
        OK(lk_kv_check(kv, &whole, &test_err));
        lk_kv_close(kv);
        OK(lk_dir_remove(to, &test_err));
    }
    lk_free(to), lk_free(data);
}
static void kill_one(pid_t pid) {
    int status;
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!WIFSIGNALED(status)) fail_msg("a writer ended by itself, with status %x", (unsigned)status);
}
static void kill_writers(const char *url, const char *dir, bool server) {
    struct test_random r = test_random_open("kill");
    struct told *told = tell();
    struct models m = {NULL, {0}};
    struct lk_kv *kv;
    pid_t pids[PROCESSES] = {0};
    int kills = 0, servers = 0, sum = 0;
    seed = r.seed;
    OK(lk_kv_open("memory:", LK_CREATE, &m.kv, &test_err));
    OK(lk_kv_open(url, LK_CREATE, &kv, &test_err));
    lk_kv_close(kv);
    fflush(NULL);
    for (uint64_t end = end_ns(); lk_clock_ns() < end || kills < ROUND; kills++) {
        for (int i = 0; i < PROCESSES; i++)
            if (!pids[i] && (pids[i] = fork()) == 0) be_killed(url, told, dir, i);
        usleep(5000 + test_random_below(&r, 100000));
        if (kills % ROUND == ROUND - 1) /* all; then one alone, which may compact */
            for (int i = 1; i < PROCESSES; i++) kill_one(pids[i]), pids[i] = 0;
        if (kills % ROUND == ROUND - 1) usleep(test_random_below(&r, 60000));
        int victim = kills % ROUND == ROUND - 1 ? 0 : (int)test_random_below(&r, PROCESSES);
        kill_one(pids[victim]), pids[victim] = 0;
        if (server && kills % 5 == 4) {
            servers++;
            assert_int_equal(server_do("kill", NULL), 0);
            assert_int_equal(server_do("start", NULL), 0);
        }
        check_rows(url, told, &m, server, kills % ROUND == ROUND - 1);
        if (dir) check_copies(dir, victim);
    }
    for (int i = 0; i < PROCESSES; i++)
        if (pids[i]) kill_one(pids[i]);
    check_rows(url, told, &m, server, true);
    for (int w = 0; w < WRITERS; w++) sum += m.n[w];
    print_message("%d kills of a writer, %d of the server, %d transactions, %d copies, %d compactions\n", kills, servers,
                  sum, atomic_load(&told->copies), atomic_load(&told->compactions));
    assert_true(sum > 20);
    lk_kv_close(m.kv);
    munmap(told, sizeof *told);
}
static void lmdb(void **state) {
    if (LK_TSAN) skip(); /* fork */
    char *url = lk_asprintf("file:%s", (char *)*state);
    kill_writers(url, *state, false);
    lk_free(url);
}
static void postgres(void **state) {
    (void)state;
    if (LK_TSAN) skip();
    NEEDS_SERVER();
    char *url = url_with("schema=kill");
    kill_writers(url, NULL, true);
    lk_free(url);
}

/* --- blobs ---------------------------------------------------------------------------------------------------------- */

static void put_blobs(const char *url, struct told *told, int process, uint64_t number) {
    static const size_t sizes[] = {0, 100, 5000, 200000, ((size_t)2 << 20) + 77, (size_t)9 << 20};
    struct test_random r = {seed + number, 0};
    struct lk_blobs *b;
    unsigned char *bytes = malloc(sizes[5]);
    lk_log_quiet(true);
    MUST(lk_blobs_open(url, LK_WRITE, &b, &test_err));
    lk_blobs_use_threads(b, 1);
    for (int i = 0; i < ROOTS; i++) {
        size_t size = sizes[test_random_below(&r, test_random_below(&r, 8) ? 4 : 6)];
        uint64_t x = test_random_u64(&r);
        struct lk_blob_writer *w;
        struct lk_root root;
        struct lk_blob blob;
        for (size_t j = 0; j < size; j++)
            bytes[j] = (unsigned char)(x = x * 6364136223846793005u + 1442695040888963407u, x >> 56);
        MUST(lk_blob_create(b, &w, &test_err));
        if (i % 2) lk_blob_past_cache(w);
        MUST(lk_blob_write(w, bytes, size, &test_err));
        MUST(lk_blob_finish(w, &root, &test_err));
        told->roots[process][i] = root;
        atomic_store(&told->count[process], i + 1);
        MUST(lk_blob_open(b, &root, true, &blob, &test_err)); /* S3: from the cache, which others empty */
        lk_blob_close(&blob);
    }
    pause();
}
struct listing {
    struct lk_blobs *b;
    int count;
};
static int verify_and_remove(void *arg, const struct lk_root *root, uint64_t size, int64_t modified) {
    struct listing *l = arg;
    struct lk_blob blob;
    (void)size, (void)modified;
    int code = lk_blob_open(l->b, root, true, &blob, &test_err);
    lk_blob_close(&blob);
    l->count++;
    return code ? code : lk_blob_delete(l->b, root, &test_err);
}
/* children_cache: of S3; ours is another, so that we look at the server. */
static void kill_putters(const char *url, const char *children_cache) {
    struct test_random r = test_random_open("kill");
    struct told *told = tell();
    struct listing l = {NULL, 0};
    pid_t pids[PROCESSES] = {0};
    int kills = 0, acknowledged = 0;
    seed = r.seed;
    OK(lk_blobs_open(url, LK_CREATE, &l.b, &test_err));
    fflush(NULL);
    for (uint64_t end = end_ns(); lk_clock_ns() < end || kills == 0 || kills % ROUND != 0;) {
        for (int i = 0; i < PROCESSES; i++) {
            if (pids[i]) continue;
            atomic_store(&told->count[i], 0);
            pids[i] = fork();
            if (pids[i] == 0 && children_cache) setenv("LOCKSTEP_CACHE", children_cache, 1);
            if (pids[i] == 0) put_blobs(url, told, i, (uint64_t)kills * 977u + (uint64_t)i * 31u);
        }
        usleep(5000 + test_random_below(&r, 100000));
        int last = ++kills % ROUND == 0 ? PROCESSES : 1, victim = last > 1 ? 0 : (int)test_random_below(&r, PROCESSES);
        for (int i = victim; i < victim + last; i++) {
            kill_one(pids[i]), pids[i] = 0;
            for (int j = 0; j < atomic_load(&told->count[i]); j++, acknowledged++) {
                struct lk_blob blob;
                OK(lk_blob_open(l.b, &told->roots[i][j], true, &blob, &test_err));
                lk_blob_close(&blob);
            }
        }
        if (last == 1) continue;
        OK(lk_blobs_list(l.b, 0, verify_and_remove, &l, &test_err)); /* nobody writes: all that has a name is whole */
    }
    print_message("%d kills, %d blobs acknowledged, %d seen\n", kills, acknowledged, l.count);
    assert_true(acknowledged > 5);
    lk_blobs_close(l.b);
    munmap(told, sizeof *told);
}
static void blobs_in_a_folder(void **state) {
    if (LK_TSAN) skip();
    char *url = lk_asprintf("file:%s/blobs", (char *)*state);
    kill_putters(url, NULL);
    lk_free(url);
}
static void blobs_in_a_bucket(void **state) {
    if (LK_TSAN) skip();
    char *ours = test_join(*state, "ours"), *theirs = test_join(*state, "theirs");
    mock_open();
    mock_reset();
    setenv("LOCKSTEP_CACHE", ours, 1);
    setenv("LOCKSTEP_CACHE_LIMIT", "40M", 1);
    kill_putters("s3://bucket/killed", theirs);
    assert_null(mock.uploads);
    mock_close();
    lk_free(ours), lk_free(theirs);
}

int main(int argc, char **argv) {
    lk_log_quiet(true);
    if (argc > 1) cmocka_set_test_filter(argv[1]); /* one of them */
    const struct CMUnitTest tests[] = {
        TEST_IN_DIR(lmdb),
        cmocka_unit_test(postgres),
        TEST_IN_DIR(blobs_in_a_folder),
        TEST_IN_DIR(blobs_in_a_bucket),
    };
    return cmocka_run_group_tests(tests, server_setup, server_teardown);
}
