/* SIGKILL at random points, of processes that write to a table, compact it, pin it and compare pins: no acknowledged row is
 * lost, none is there half, and what a pin sees never changes. LOCKSTEP_TEST_SECONDS: for how long on each engine (1). */
#include "lockstep/base/hash.h"
#include "lockstep/base/progress.h"
#include "store/table/testing.h"
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#define PROCESSES 4
#define ROWS      20 /* of each writer, overwritten in turn */
#define COLUMNS   5

/* Shared with all processes. */
struct told {
    atomic_int done[PROCESSES]; /* the writer's last acknowledged number */
    atomic_int compactions, pins, diffs;
};

#define MUST(x)                                                                                                            \
    do {                                                                                                                   \
        if ((x) != 0) fprintf(stderr, "%s: %s\n", #x, test_err.message), _exit(2);                                         \
    } while (0)

static struct lk_bytes row_of(int writer, int n, char out[32]) {
    snprintf(out, 32, "w%d/%02d", writer, n % ROWS);
    return S(out);
}

/* --- what a process does --------------------------------------------------------------------------------- */

struct child {
    struct lk_store store;
    struct lk_table *table;
    struct told *told;
    int number, first;
};

/* Number n in every column of a row, and each seventh time the row is deleted before. */
static void write_row(struct child *c, int n) {
    struct lk_mutation m[COLUMNS + 1];
    char value[16], columns[COLUMNS][8], row[32];
    size_t count = 0;
    snprintf(value, sizeof value, "%d", n);
    if (n % 7 == 0) m[count++] = (struct lk_mutation){.kind = LK_DELETE_FROM_ROW};
    for (int k = 0; k < COLUMNS; k++) {
        snprintf(columns[k], sizeof columns[k], "c%d", k);
        m[count++] = set_cell(k % 2 ? "odd" : "even", columns[k], (int64_t)n * 1000, value);
    }
    MUST(lk_table_apply(c->table, row_of(c->number, n, row), m, count, LK_LAZY, &test_err));
    atomic_store(&c->told->done[c->number], n);
}
static void *write_rows(void *arg) {
    struct child *c = arg;
    for (int n = c->first;; n++) write_row(c, n);
    return NULL;
}

static int count_change(void *arg, const struct lk_cell *before, const struct lk_cell *after) {
    (void)before, (void)after;
    ++*(int *)arg;
    return 0;
}
static struct lk_root digest(struct lk_store *s, struct lk_table *t, int64_t at_ms) {
    struct lk_kv_txn *txn;
    struct lk_root root = {{0}};
    MUST(lk_kv_begin(s->kv, false, &txn, &test_err));
    MUST(lk_table_digest(t, txn, at_ms, &root, NULL, &test_err));
    lk_kv_abort(txn);
    return root;
}
static void pin_and_compare(struct child *c) {
    static const char *const tables[] = {"t"};
    char name[64];
    int64_t at;
    int changes = 0;
    struct lk_kv_txn *txn;
    snprintf(name, sizeof name, "p%ld-%d", (long)getpid(), atomic_fetch_add(&c->told->pins, 1));
    MUST(lk_table_pin(&c->store, name, tables, 1, 2000, &at, &test_err));
    struct lk_root one = digest(&c->store, c->table, at);
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    struct lk_root two = digest(&c->store, c->table, at);
    if (!lk_root_equal(&one, &two)) fprintf(stderr, "what the pin %s sees has changed\n", name), _exit(3);
    MUST(lk_kv_begin(c->store.kv, false, &txn, &test_err));
    MUST(lk_table_diff(c->table, txn, at, 0, count_change, &changes, &test_err));
    lk_kv_abort(txn);
    atomic_fetch_add(&c->told->diffs, changes > 0);
    MUST(lk_table_pin_release(&c->store, name, &test_err));
}
static void run_child(const char *url, struct told *told, int number) {
    struct child c = {.told = told, .number = number};
    struct lk_table_compact_result r;
    pthread_t writer;
    MUST(lk_kv_open(url, LK_WRITE, &c.store.kv, &test_err));
    MUST(lk_table_open(&c.store, "t", &c.table, &test_err));
    c.first = atomic_load(&told->done[number]) + 1;
    MUST(pthread_create(&writer, NULL, write_rows, &c));
    for (;;) {
        pin_and_compare(&c);
        int code = lk_table_compact(c.table, NULL, NULL, &r, &test_err);
        if (code != LK_ENOTFOUND) MUST(code);
        atomic_fetch_add(&told->compactions, 1);
    }
}

/* --- what must be there ---------------------------------------------------------------------------------- */

struct row {
    int number, cells, writer;
    bool torn;
};
static int look(void *arg, const struct lk_cell *c) {
    struct row *r = arg;
    int n = atoi((const char *)c->value.data);
    if (r->cells++ == 0) r->number = n;
    r->torn |= n != r->number || c->timestamp_us != (int64_t)n * 1000;
    return 0;
}
static int copy_value(void *arg, const struct lk_cell *c) { /* a text that ends */
    char value[16] = "";
    memcpy(value, c->value.data, c->value.size);
    struct lk_cell copy = *c;
    copy.value.data = value;
    return look(arg, &copy);
}
/* A row has one number in all columns; those of the last ROWS numbers that were told are there. */
static void check(const char *url, struct told *told) {
    struct lk_store s = {0};
    struct lk_filter newest = {.kind = LK_FILTER_COLUMN_LIMIT, .count = 1};
    struct lk_filter_program *filter;
    OK(lk_filter_compile(&newest, &filter, &test_err));
    OK(lk_kv_open(url, LK_WRITE, &s.kv, &test_err));
    struct lk_table *t = table_of(&s, "t");
    int told_before[PROCESSES]; /* the snapshot, beside which the others go on */
    for (int w = 0; w < PROCESSES; w++) told_before[w] = atomic_load(&told->done[w]);
    struct lk_kv_txn *txn = begin(s.kv, false);
    for (int w = 0; w < PROCESSES; w++) {
        int done = told_before[w];
        for (int n = done > ROWS ? done - ROWS + 1 : 1; n <= done; n++) {
            struct row r = {.number = 0};
            char name[32];
            struct lk_bytes key = row_of(w, n, name);
            struct lk_table_read read = {.rows = &key, .row_count = 1, .filter = filter};
            OK(lk_table_read(t, txn, &read, &(struct lk_table_sink){copy_value, NULL, &r}, NULL, &test_err));
            if (r.cells != COLUMNS || r.torn || r.number < n)
                fail_msg("row %s: %d cells of number %d%s, told was %d", name, r.cells, r.number,
                         r.torn ? " and others" : "", n);
        }
    }
    lk_kv_abort(txn);
    OK(lk_kv_check(s.kv, &(struct lk_kv_check){0}, &test_err));
    lk_table_close(t);
    lk_filter_free(filter);
    lk_kv_close(s.kv);
}

/* --- killing --------------------------------------------------------------------------------------------- */

static pid_t start(const char *url, struct told *told, int number) {
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* when the test fails */
        run_child(url, told, number);
        _exit(0);
    }
    return pid;
}
static void kill_one(pid_t pid) {
    int status;
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!WIFSIGNALED(status)) fail_msg("a process ended by itself with status %d", WEXITSTATUS(status));
}

static void killed(const char *url) {
    static const char *const families[] = {"even", "maxversions=2", "odd", "maxversions=1", NULL};
    struct test_random r = test_random_open("table_kill");
    const char *seconds = getenv("LOCKSTEP_TEST_SECONDS");
    uint64_t end = lk_clock_ns() + (uint64_t)(seconds ? atoi(seconds) : 1) * 1000000000u;
    struct told *told = mmap(NULL, sizeof *told, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(told, MAP_FAILED);
    struct lk_store s = {0};
    OK(lk_kv_open(url, LK_CREATE, &s.kv, &test_err));
    OK(lk_kv_update(s.kv, erase_all, NULL, LK_LAZY, NULL, &test_err));
    make_table(&s, "t", families);
    lk_kv_close(s.kv);
    pid_t pids[PROCESSES];
    int kills = 0;
    for (int i = 0; i < PROCESSES; i++) pids[i] = start(url, told, i);
    do {
        nanosleep(&(struct timespec){.tv_nsec = 5000000 + (long)test_random_below(&r, 150000000)}, NULL);
        size_t i = test_random_below(&r, PROCESSES);
        kill_one(pids[i]);
        kills++;
        check(url, told);
        pids[i] = start(url, told, (int)i);
    } while (lk_clock_ns() < end);
    for (int i = 0; i < PROCESSES; i++) kill_one(pids[i]);
    check(url, told);
    int rows = 0;
    for (int i = 0; i < PROCESSES; i++) rows += atomic_load(&told->done[i]);
    print_message("  %d kills, %d rows, %d pins, %d compactions\n", kills, rows, atomic_load(&told->pins),
                  atomic_load(&told->compactions));
    assert_true(rows > 0);
    munmap(told, sizeof *told);
}

static void on_lmdb(void **state) {
    (void)state;
    if (LK_TSAN) skip(); /* fork */
    char *dir = test_dir_make(), *url = lk_asprintf("file:%s", dir);
    killed(url);
    lk_free(url);
    test_dir_remove(dir);
}
static void on_the_given_store(void **state) {
    const char *url = getenv("LOCKSTEP_TEST_KV");
    (void)state;
    if (LK_TSAN || !url || !*url) skip();
    killed(url);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(on_lmdb), cmocka_unit_test(on_the_given_store)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
