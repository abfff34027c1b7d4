/* The work of key-value benchmarks, named as db_bench names it: `lockstep kv bench` does it on a store of ours,
 * bench/store_bench.c on others' beside it. One program includes it once. */
#ifndef LOCKSTEP_CMD_KV_WORK_H
#define LOCKSTEP_CMD_KV_WORK_H
#include "lockstep/base/progress.h"
#include "lockstep/base/thread.h"
#include "lockstep/store/kv.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORK_DIGITS  16 /* of a key, behind the prefix */
#define WORK_PREFIX  24
#define WORK_KEY     (WORK_PREFIX + WORK_DIGITS + 1)
#define WORK_SEEK    10 /* rows that are read from where a seek comes to */
#define WORK_BATCH   10000
#define WORK_VALUE   ((size_t)1 << 20) /* the largest value */
#define WORK_THREADS 256

static struct {
    char prefix[WORK_PREFIX]; /* of all keys */
    uint32_t entries, reads;  /* reads: at random */
    uint32_t batch, value;    /* rows of a commit, bytes of a value */
} work;
static char work_values[WORK_VALUE + (1 << 20)]; /* half of it repeats, as in LevelDB's own benchmark */

/* What fails gives false, NULL or 0, and `work` is not done. */
struct work_engine {
    const char *name;
    void *(*open)(const char *place);
    void (*close)(void *db);
    /* The rows of these numbers in one commit. */
    bool (*write)(void *db, const uint32_t *numbers, size_t count, bool sync);
    void *(*reader)(void *db);
    void (*reader_end)(void *reader);
    uint64_t (*scan)(void *reader); /* bytes of all rows */
    uint64_t (*get)(void *reader, const char *key);
    uint64_t (*seek)(void *reader, const char *key); /* the values of WORK_SEEK rows from there on */
};

static uint32_t work_random(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((*state >> 33) % work.entries);
}
static void work_begin(void) {
    uint64_t state = 7;
    for (size_t i = 0; i < sizeof work_values; i++)
        work_values[i] = i % 100 < 50 ? (char)(work_random(&state) >> 3) : work_values[i - 50];
}
static size_t work_key(uint32_t number, char out[WORK_KEY]) {
    return (size_t)snprintf(out, WORK_KEY, "%s%016u", work.prefix, number);
}
static const char *work_value(uint32_t number) {
    return work_values + (uint64_t)number * 2654435761u % (sizeof work_values - work.value);
}
/* One to one below `entries`: a walk by a step that has no factor of it. */
static uint32_t work_shuffled(uint32_t i) {
    uint64_t step = 2654435761u % work.entries | 1, a = work.entries, b = step;
    while (b != 1) { /* until the greatest common divisor is 1 */
        for (a = work.entries, b = step; a % b;) {
            uint64_t rest = a % b;
            a = b, b = rest;
        }
        if (b != 1) step += 2;
    }
    return (uint32_t)((i * step + 12345) % work.entries);
}
static double work_us(uint64_t since_ns, uint64_t count) {
    return (double)(lk_clock_ns() - since_ns) / 1e3 / (double)count;
}

/* --- ours ------------------------------------------------------------------------------------------------ */

static struct lk_err work_err; /* the first one */
static pthread_mutex_t work_mutex = PTHREAD_MUTEX_INITIALIZER;
static bool work_failed(int code, const struct lk_err *err) {
    pthread_mutex_lock(&work_mutex);
    if (code && !work_err.code) work_err = *err, work_err.code = code;
    pthread_mutex_unlock(&work_mutex);
    return code != 0;
}

struct ours_write {
    const uint32_t *numbers;
    size_t count;
};
static int ours_put(struct lk_kv_txn *t, void *arg, struct lk_err *err) {
    const struct ours_write *w = arg;
    char key[WORK_KEY];
    int code = 0;
    for (size_t i = 0; i < w->count && !code; i++) {
        size_t n = work_key(w->numbers[i], key);
        code = lk_kv_put(t, lk_bytes(key, n), lk_bytes(work_value(w->numbers[i]), work.value), err);
    }
    return code;
}
static void *ours_open(const char *url) {
    struct lk_kv *kv;
    struct lk_err err = {0};
    return work_failed(lk_kv_open(url, LK_CREATE, &kv, &err), &err) ? NULL : kv;
}
static void ours_close(void *kv) {
    lk_kv_close(kv);
}
static bool ours_write(void *kv, const uint32_t *numbers, size_t count, bool sync) {
    struct ours_write w = {numbers, count};
    struct lk_err err = {0};
    return !work_failed(lk_kv_update(kv, ours_put, &w, sync ? LK_DURABLE : LK_LAZY, NULL, &err), &err);
}
struct ours_reader {
    struct lk_kv_txn *txn;
    struct lk_kv_cursor *cursor;
};
static void ours_reader_end(void *reader) {
    struct ours_reader *r = reader;
    lk_kv_cursor_close(r->cursor);
    lk_kv_abort(r->txn);
    free(r);
}
static void *ours_reader(void *kv) {
    struct ours_reader *r = calloc(1, sizeof *r);
    struct lk_err err = {0};
    unsigned char end[WORK_PREFIX];
    size_t size = 0, n = strlen(work.prefix);
    lk_kv_prefix_end(lk_bytes(work.prefix, n), end, &size);
    int code = r ? lk_kv_begin(kv, false, &r->txn, &err) : lk_fail(&err, LK_ENOMEM, "out of memory");
    if (!code) code = lk_kv_cursor_open(r->txn, lk_bytes(work.prefix, n), lk_bytes(end, size), &r->cursor, &err);
    if (!work_failed(code, &err)) return r;
    if (r) ours_reader_end(r);
    return NULL;
}
static uint64_t ours_scan(void *reader) {
    struct lk_kv_cursor *c = ((struct ours_reader *)reader)->cursor;
    struct lk_err err = {0};
    uint64_t bytes = 0;
    int code = lk_kv_cursor_first(c, &err);
    for (; !code; code = lk_kv_cursor_next(c, &err)) bytes += lk_kv_cursor_key(c).size + lk_kv_cursor_value(c).size;
    return code == LK_ENOTFOUND || !work_failed(code, &err) ? bytes : 0;
}
static uint64_t ours_get(void *reader, const char *key) {
    struct lk_bytes v;
    struct lk_err err = {0};
    int code = lk_kv_get(((struct ours_reader *)reader)->txn, lk_bytes(key, strlen(key)), &v, &err);
    return work_failed(code, &err) ? 0 : v.size;
}
static uint64_t ours_seek(void *reader, const char *key) {
    struct lk_kv_cursor *c = ((struct ours_reader *)reader)->cursor;
    struct lk_err err = {0};
    uint64_t bytes = 0;
    int code = lk_kv_cursor_seek(c, lk_bytes(key, strlen(key)), &err);
    for (int i = 0; !code && i < WORK_SEEK; i++, code = lk_kv_cursor_next(c, &err)) bytes += lk_kv_cursor_value(c).size;
    return code == 0 || code == LK_ENOTFOUND || !work_failed(code, &err) ? bytes : 0;
}
static const struct work_engine work_ours = {"lockstep",      ours_open, ours_close, ours_write, ours_reader,
                                             ours_reader_end, ours_scan, ours_get,   ours_seek};

/* --- work: us a row; below 0: it failed -------------------------------------------------------------------- */

static double work_fill(const struct work_engine *e, void *db, uint32_t count, bool in_order, bool sync) {
    static uint32_t numbers[WORK_BATCH];
    uint64_t begun = lk_clock_ns();
    for (uint32_t i = 0; i < count; i += work.batch) {
        uint32_t n = count - i < work.batch ? count - i : work.batch;
        for (uint32_t k = 0; k < n; k++) numbers[k] = in_order ? i + k : work_shuffled(i + k);
        if (!e->write(db, numbers, n, sync)) return -1;
    }
    return work_us(begun, count);
}
static double work_read_all(const struct work_engine *e, void *db) {
    void *r = e->reader(db);
    uint64_t begun = lk_clock_ns(), bytes = r ? e->scan(r) : 0;
    double us = work_us(begun, work.entries);
    if (r) e->reader_end(r);
    return bytes == (uint64_t)work.entries * (strlen(work.prefix) + WORK_DIGITS + work.value) ? us : -1;
}
static double work_read_some(const struct work_engine *e, void *db, bool seek) {
    void *r = e->reader(db);
    uint64_t state = 42, begun = lk_clock_ns();
    uint32_t found = 0;
    char key[WORK_KEY];
    for (uint32_t i = 0; r && i < work.reads && found == i; i++) {
        work_key(work_random(&state), key);
        found += seek ? e->seek(r, key) >= work.value : e->get(r, key) == work.value;
    }
    double us = work_us(begun, work.reads);
    if (r) e->reader_end(r);
    return r && found == work.reads ? us : -1;
}

struct work_writer {
    const struct work_engine *engine;
    void *db;
    uint32_t first, count;
    bool good;
};
static void *work_commit_each(void *arg) {
    struct work_writer *w = arg;
    w->good = true;
    for (uint32_t i = 0; i < w->count && w->good; i++) {
        uint32_t number = work_shuffled((w->first + i) % work.entries);
        w->good = w->engine->write(w->db, &number, 1, true);
    }
    return NULL;
}
/* Synced commits of a row each. */
static double work_commit(const struct work_engine *e, void *db, int threads, uint32_t each) {
    pthread_t ids[WORK_THREADS];
    struct work_writer writers[WORK_THREADS];
    bool good = true;
    int started = 0;
    uint64_t begun = lk_clock_ns();
    for (; started < threads && good; started += good) {
        writers[started] = (struct work_writer){e, db, (uint32_t)started * each, each, false};
        good = lk_thread_start(&ids[started], work_commit_each, &writers[started]) == 0;
    }
    for (int i = 0; i < started; i++) pthread_join(ids[i], NULL), good = good && writers[i].good;
    return good ? work_us(begun, (uint64_t)threads * each) : -1;
}
static double work_open(const struct work_engine *e, const char *place) {
    char key[WORK_KEY];
    work_key(7 % work.entries, key);
    uint64_t begun = lk_clock_ns();
    void *db = e->open(place), *r = db ? e->reader(db) : NULL;
    bool good = r && e->get(r, key) == work.value;
    if (r) e->reader_end(r);
    if (db) e->close(db);
    return good ? work_us(begun, 1) : -1;
}

#endif
