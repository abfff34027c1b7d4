/* Random transactions of several processes and threads at once, on LMDB and on a real PostgreSQL: their history is strictly
 * serializable, and timestamps agree. LOCKSTEP_TEST_SECONDS: how long on each (2). */
#include "store/kv/history.h"
#include "store/kv/postgres_testing.h"
#include <pthread.h>

#define PROCESSES 3
#define THREADS   3
#define KEYS      1000

struct worker {
    struct lk_kv *kv;
    int number, next_value, turn;
    bool calm;
    struct test_random r;
    struct history h;
    int txn;
};

static struct lk_bytes key_of(char out[8], char kind, int number) {
    snprintf(out, 8, "%c%03d", kind, number % KEYS);
    return S(out);
}
/* Keys that all work on for a while, and then on others: some are absent, some have long lists. Calm transactions have keys
 * of their own, which soon are all there, and neither scan nor ask for the time: engines may let them run beside each
 * other. */
static int some_key(struct worker *w) {
    return w->calm ? KEYS - 6 + (int)test_random_below(&w->r, 4) : w->turn / 10 + (int)test_random_below(&w->r, 4);
}

static int read_list(struct worker *w, struct lk_kv_txn *t, int key, struct lk_buf *list, struct lk_err *err) {
    char name[8];
    struct lk_bytes v;
    int code = lk_kv_get(t, key_of(name, 'L', key), &v, err);
    list->size = 0;
    if (code == 0) lk_buf_append(list, v.data, v.size);
    if (code != 0 && code != LK_ENOTFOUND) return code;
    history_do(&w->h, w->txn, HISTORY_READ_LIST, 2 * (key % KEYS), (int *)(void *)list->data,
               (int)(list->size / sizeof(int)));
    return 0;
}
static int append(struct worker *w, struct lk_kv_txn *t, int key, struct lk_err *err) {
    char name[8];
    struct lk_buf list = LK_BUF_INIT;
    int value = w->next_value++, code = read_list(w, t, key, &list, err);
    if (code == 0) {
        lk_buf_append(&list, &value, sizeof value);
        code = lk_kv_put(t, key_of(name, 'L', key), lk_bytes(list.data, list.size), err);
        history_do(&w->h, w->txn, HISTORY_APPEND, 2 * (key % KEYS), &value, 1);
    }
    lk_buf_release(&list);
    return code;
}
static int use_register(struct worker *w, struct lk_kv_txn *t, int key, bool write, struct lk_err *err) {
    char name[8];
    struct lk_bytes v;
    int old = 0, value, code = lk_kv_get(t, key_of(name, 'R', key), &v, err);
    if (code == 0) memcpy(&old, v.data, sizeof old);
    if (code != 0 && code != LK_ENOTFOUND) return code;
    history_do(&w->h, w->txn, HISTORY_READ, 2 * (key % KEYS) + 1, &old, 1);
    if (!write) return 0;
    value = w->next_value++;
    history_do(&w->h, w->txn, HISTORY_WRITE, 2 * (key % KEYS) + 1, &value, 1);
    return lk_kv_put(t, key_of(name, 'R', key), lk_bytes(&value, sizeof value), err);
}

struct scan {
    struct worker *w;
    int next;
};
static int scan_row(void *arg, struct lk_bytes key, struct lk_bytes value) {
    struct scan *s = arg;
    char digits[8] = "";
    memcpy(digits, (const char *)key.data + 1, key.size - 1);
    int number = atoi(digits);
    for (; s->next < number; s->next++) history_do(&s->w->h, s->w->txn, HISTORY_READ_LIST, 2 * s->next, NULL, 0);
    int *list = malloc(value.size);
    memcpy(list, value.data, value.size);
    history_do(&s->w->h, s->w->txn, HISTORY_READ_LIST, 2 * number, list, (int)(value.size / sizeof(int)));
    free(list);
    s->next = number + 1;
    return 0;
}
static int scan_lists(struct worker *w, struct lk_kv_txn *t, int key, int count, struct lk_err *err) {
    char from[8], to[8];
    key %= KEYS;
    if (key + count > KEYS - 1) key = 0;
    struct scan s = {w, key};
    int code = lk_kv_scan(t, key_of(from, 'L', key), key_of(to, 'L', key + count), scan_row, &s, err);
    for (; code == 0 && s.next < key + count; s.next++) history_do(&w->h, w->txn, HISTORY_READ_LIST, 2 * s.next, NULL, 0);
    return code;
}

static int some_work(struct worker *w, struct lk_kv_txn *t, bool write, struct lk_err *err) {
    int code = 0;
    for (uint32_t n = 1 + test_random_below(&w->r, 4); n > 0 && code == 0; n--) {
        struct lk_buf list = LK_BUF_INIT;
        int what = (int)test_random_below(&w->r, w->calm ? 5 : 6), key = some_key(w);
        bool writes = write && what < 3;
        if (what == 0 || what == 1)
            code = writes ? append(w, t, key, err) : read_list(w, t, key, &list, err);
        else if (what == 5)
            code = scan_lists(w, t, key, 3, err);
        else
            code = use_register(w, t, key, writes, err);
        lk_buf_release(&list);
    }
    return code;
}

/* May run again: what the last run noted is forgotten. */
struct closure {
    struct worker *w;
    int items, values;
};
static int run_closure(struct lk_kv_txn *t, void *arg, struct lk_err *err) {
    struct closure *c = arg;
    c->w->h.item_count = c->items, c->w->h.value_count = c->values;
    return some_work(c->w, t, true, err);
}

static void one_transaction(struct worker *w) {
    struct lk_kv_txn *t;
    struct lk_err e;
    int kind = (int)test_random_below(&w->r, 4), code; /* 0: reads, 1: an update, else by hand */
    w->calm = test_random_below(&w->r, 2);
    bool stamped = !w->calm && test_random_below(&w->r, 2);
    enum lk_durability durability = test_random_below(&w->r, 2) ? LK_LAZY : LK_DURABLE;
    int64_t stamp = 0, *want = stamped ? &stamp : NULL;
    w->txn = history_begin(&w->h, lk_clock_ns());
    if (kind == 1) {
        struct closure c = {w, w->h.item_count, w->h.value_count};
        code = lk_kv_update(w->kv, run_closure, &c, durability, want, &e);
    } else {
        code = lk_kv_begin(w->kv, kind != 0, &t, &e);
        if (code == 0) {
            code = some_work(w, t, kind != 0, &e);
            if (code == 0)
                code = lk_kv_commit(t, durability, want, &e);
            else
                lk_kv_abort(t);
        }
    }
    if (code != 0 && code != LK_ECONFLICT) print_error("%s\n", e.message), exit(3);
    w->h.txns[w->txn].reads_only = kind == 0;
    history_end(&w->h, w->txn, lk_clock_ns(), code == 0 ? HISTORY_COMMITTED : HISTORY_ABORTED, stamp);
}

static uint64_t until_ns;
static void *work(void *arg) {
    struct worker *w = arg;
    while (lk_clock_ns() < until_ns) {
        w->turn++;
        one_transaction(w);
    }
    return NULL;
}

/* --- files of histories ------------------------------------------------------------------------------------------- */

static void save(const struct history *h, const char *path) {
    FILE *f = fopen(path, "w");
    int counts[3] = {h->txn_count, h->item_count, h->value_count};
    fwrite(counts, sizeof counts, 1, f);
    fwrite(h->txns, sizeof *h->txns, (size_t)counts[0], f);
    fwrite(h->items, sizeof *h->items, (size_t)counts[1], f);
    fwrite(h->values, sizeof *h->values, (size_t)counts[2], f);
    if (fclose(f) != 0) exit(4);
}
static void load(struct history *h, const char *path) {
    FILE *f = fopen(path, "r");
    int counts[3], txn_base = h->txn_count, value_base = h->value_count, value;
    struct history_txn t;
    struct history_item it;
    assert_non_null(f);
    assert_int_equal(fread(counts, sizeof counts, 1, f), 1);
    for (int i = 0; i < counts[0]; i++) {
        assert_int_equal(fread(&t, sizeof t, 1, f), 1);
        HISTORY_PUSH(h, txn, t);
    }
    for (int i = 0; i < counts[1]; i++) {
        assert_int_equal(fread(&it, sizeof it, 1, f), 1);
        it.txn += txn_base, it.first += value_base;
        HISTORY_PUSH(h, item, it);
    }
    for (int i = 0; i < counts[2]; i++) {
        assert_int_equal(fread(&value, sizeof value, 1, f), 1);
        HISTORY_PUSH(h, value, value);
    }
    fclose(f);
}

static void run_process(const char *url, const char *dir, int process, uint64_t seed) {
    struct worker w[THREADS];
    pthread_t threads[THREADS];
    struct lk_kv *kv;
    struct lk_err e;
    if (lk_kv_open(url, LK_WRITE, &kv, &e) != 0) print_error("%s\n", e.message), _exit(2);
    for (int i = 0; i < THREADS; i++) {
        int number = process * THREADS + i;
        w[i] = (struct worker){
            .kv = kv, .number = number, .next_value = 1 + number * 10000000, .r = {seed + (uint64_t)number, 0}};
        pthread_create(&threads[i], NULL, work, &w[i]);
    }
    for (int i = 0; i < THREADS; i++) {
        char path[4200];
        pthread_join(threads[i], NULL);
        snprintf(path, sizeof path, "%s/history.%d", dir, w[i].number);
        save(&w[i].h, path);
    }
    lk_kv_close(kv);
    _exit(0);
}

static void check_on(const char *url, const char *dir) {
    struct test_random r = test_random_open("histories");
    struct worker last = {.r = r};
    pid_t pids[PROCESSES];
    uint64_t seed = test_random_u64(&r);
    const char *seconds = getenv("LOCKSTEP_TEST_SECONDS");
    OK(lk_kv_open(url, LK_CREATE, &last.kv, &test_err));
    until_ns = lk_clock_ns() + (uint64_t)(seconds ? atoi(seconds) : 2) * 1000000000u;
    fflush(NULL);
    for (int i = 0; i < PROCESSES; i++)
        if ((pids[i] = fork()) == 0) run_process(url, dir, i, seed);
    for (int i = 0; i < PROCESSES; i++) {
        int status;
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_int_equal(status, 0);
    }
    for (int i = 0; i < PROCESSES * THREADS; i++) {
        char path[4200];
        snprintf(path, sizeof path, "%s/history.%d", dir, i);
        load(&last.h, path);
    }
    int aborted = 0;
    for (int i = 0; i < last.h.txn_count; i++) aborted += last.h.txns[i].outcome == HISTORY_ABORTED;
    print_message("  %.12s: %d transactions, %d of them met others and were aborted\n", url, last.h.txn_count, aborted);
    struct lk_kv_txn *t = begin(last.kv, false);
    last.txn = history_begin(&last.h, lk_clock_ns());
    OK(scan_lists(&last, t, 0, KEYS - 1, &test_err));
    lk_kv_abort(t);
    history_end(&last.h, last.txn, lk_clock_ns(), HISTORY_COMMITTED, 0);
    const char *problem = history_check(&last.h);
    if (problem) fail_msg("%s", problem);
    assert_true(last.h.txn_count > 50);
    history_release(&last.h);
    lk_kv_close(last.kv);
}

static void on_lmdb(void **state) {
    if (LK_TSAN) skip(); /* fork */
    char *url = lk_asprintf("file:%s", (char *)*state);
    check_on(url, *state);
    lk_free(url);
}
static void on_postgres(void **state) {
    if (LK_TSAN) skip();
    NEEDS_SERVER();
    char *url = url_with("schema=histories");
    check_on(url, *state);
    lk_free(url);
}

int main(void) {
    lk_log_quiet(true);
    const struct CMUnitTest tests[] = {TEST_IN_DIR(on_lmdb), TEST_IN_DIR(on_postgres)};
    return cmocka_run_group_tests(tests, server_setup, server_teardown);
}
