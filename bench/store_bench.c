/* The store's rows beside LMDB itself, LevelDB and RocksDB: the same work on each, in turns. bench/store.sh compiles and
 * runs it. usage: store_bench DIR ENTRIES ROUNDS */
#include "bench_median.h"
#include "lockstep/base/file.h"
#include "lockstep/base/progress.h"
#include "lockstep/store/kv.h"
#include <inttypes.h>
#include <lmdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef HAVE_LEVELDB
#include <leveldb/c.h>
#endif
#ifdef HAVE_ROCKSDB
#include <rocksdb/c.h>
#endif

#define KEY            16
#define VALUE          100
#define BATCH          1000
#define THREADS        16
#define ROUNDS         15
#define ROWS_OF_A_SEEK 10

static uint32_t entries;
static char values[1 << 20]; /* half of it repeats, as in LevelDB's own benchmark */

struct engine {
    const char *name;
    void *(*open)(const char *dir);
    void (*close)(void *db);
    /* The rows of these numbers in one commit. */
    void (*write)(void *db, const uint32_t *numbers, size_t count, bool sync);
    void *(*reader)(void *db);
    void (*reader_end)(void *reader);
    uint64_t (*scan)(void *reader); /* bytes of all rows */
    uint64_t (*get)(void *reader, const char *key);
    uint64_t (*seek)(void *reader, const char *key); /* ROWS_OF_A_SEEK rows from there on */
};

static void must(bool good, const char *what) {
    if (good) return;
    fprintf(stderr, "store_bench: %s failed\n", what);
    exit(1);
}
static void make_key(uint32_t number, char out[KEY + 1]) {
    snprintf(out, KEY + 1, "%016u", number);
}
static const char *value_of(uint32_t number) {
    return values + (uint64_t)number * 2654435761u % (sizeof values - VALUE);
}

/* --- ours ------------------------------------------------------------------------------------------------ */

struct writing {
    const uint32_t *numbers;
    size_t count;
};
static int write_rows(struct lk_kv_txn *t, void *arg, struct lk_err *err) {
    const struct writing *w = arg;
    char key[KEY + 1];
    int code = 0;
    for (size_t i = 0; i < w->count && !code; i++) {
        make_key(w->numbers[i], key);
        code = lk_kv_put(t, lk_bytes(key, KEY), lk_bytes(value_of(w->numbers[i]), VALUE), err);
    }
    return code;
}
static void *ours_open(const char *dir) {
    char url[4096];
    struct lk_kv *kv;
    snprintf(url, sizeof url, "file:%s", dir);
    must(lk_kv_open(url, LK_CREATE, &kv, NULL) == 0, "lk_kv_open");
    return kv;
}
static void ours_close(void *kv) {
    lk_kv_close(kv);
}
static void ours_write(void *kv, const uint32_t *numbers, size_t count, bool sync) {
    struct writing w = {numbers, count};
    must(lk_kv_update(kv, write_rows, &w, sync ? LK_DURABLE : LK_LAZY, NULL, NULL) == 0, "lk_kv_update");
}
static void *ours_reader(void *kv) {
    struct lk_kv_txn *t;
    struct lk_kv_cursor *c;
    must(lk_kv_begin(kv, false, &t, NULL) == 0, "lk_kv_begin");
    must(lk_kv_cursor_open(t, lk_bytes(NULL, 0), lk_bytes(NULL, 0), &c, NULL) == 0, "lk_kv_cursor_open");
    void **reader = malloc(2 * sizeof *reader);
    reader[0] = t;
    reader[1] = c;
    return reader;
}
static void ours_reader_end(void *r) {
    void **reader = r;
    lk_kv_cursor_close(reader[1]);
    lk_kv_abort(reader[0]);
    free(reader);
}
static uint64_t ours_scan(void *r) {
    struct lk_kv_cursor *c = ((void **)r)[1];
    uint64_t bytes = 0;
    for (int code = lk_kv_cursor_first(c, NULL); code == 0; code = lk_kv_cursor_next(c, NULL))
        bytes += lk_kv_cursor_key(c).size + lk_kv_cursor_value(c).size;
    return bytes;
}
static uint64_t ours_get(void *r, const char *key) {
    struct lk_bytes v;
    return lk_kv_get(((void **)r)[0], lk_bytes(key, KEY), &v, NULL) == 0 ? v.size : 0;
}
static uint64_t ours_seek(void *r, const char *key) {
    struct lk_kv_cursor *c = ((void **)r)[1];
    uint64_t bytes = 0;
    int code = lk_kv_cursor_seek(c, lk_bytes(key, KEY), NULL);
    for (int i = 0; code == 0 && i < ROWS_OF_A_SEEK; i++, code = lk_kv_cursor_next(c, NULL))
        bytes += lk_kv_cursor_value(c).size;
    return bytes;
}

/* --- LMDB itself ----------------------------------------------------------------------------------------- */

struct lmdb {
    MDB_env *env;
    MDB_dbi dbi;
};
static void *lmdb_open(const char *dir) {
    struct lmdb *db = malloc(sizeof *db);
    MDB_txn *t;
    must(lk_dir_make(dir, NULL) == 0 && mdb_env_create(&db->env) == 0 &&
             mdb_env_set_mapsize(db->env, (size_t)64 << 30) == 0 && mdb_env_open(db->env, dir, MDB_NOTLS, 0666) == 0 &&
             mdb_txn_begin(db->env, NULL, 0, &t) == 0 && mdb_dbi_open(t, NULL, 0, &db->dbi) == 0 && mdb_txn_commit(t) == 0,
         "mdb_env_open");
    return db;
}
static void lmdb_close(void *p) {
    mdb_env_close(((struct lmdb *)p)->env);
    free(p);
}
static void lmdb_write(void *p, const uint32_t *numbers, size_t count, bool sync) {
    struct lmdb *db = p;
    MDB_txn *t;
    char key[KEY + 1];
    mdb_env_set_flags(db->env, MDB_NOMETASYNC, !sync);
    must(mdb_txn_begin(db->env, NULL, 0, &t) == 0, "mdb_txn_begin");
    for (size_t i = 0; i < count; i++) {
        make_key(numbers[i], key);
        MDB_val k = {KEY, key}, v = {VALUE, (void *)(uintptr_t)value_of(numbers[i])};
        must(mdb_put(t, db->dbi, &k, &v, 0) == 0, "mdb_put");
    }
    must(mdb_txn_commit(t) == 0, "mdb_txn_commit");
}
struct lmdb_reader {
    MDB_txn *txn;
    MDB_cursor *cursor;
    MDB_dbi dbi;
};
static void *lmdb_reader(void *p) {
    struct lmdb *db = p;
    struct lmdb_reader *r = malloc(sizeof *r);
    r->dbi = db->dbi;
    must(mdb_txn_begin(db->env, NULL, MDB_RDONLY, &r->txn) == 0 && mdb_cursor_open(r->txn, db->dbi, &r->cursor) == 0,
         "mdb_cursor_open");
    return r;
}
static void lmdb_reader_end(void *p) {
    struct lmdb_reader *r = p;
    mdb_cursor_close(r->cursor);
    mdb_txn_abort(r->txn);
    free(r);
}
static uint64_t lmdb_scan(void *p) {
    struct lmdb_reader *r = p;
    MDB_val k, v;
    uint64_t bytes = 0;
    for (int code = mdb_cursor_get(r->cursor, &k, &v, MDB_FIRST); code == 0;
         code = mdb_cursor_get(r->cursor, &k, &v, MDB_NEXT))
        bytes += k.mv_size + v.mv_size;
    return bytes;
}
static uint64_t lmdb_get(void *p, const char *key) {
    struct lmdb_reader *r = p;
    MDB_val k = {KEY, (void *)(uintptr_t)key}, v;
    return mdb_get(r->txn, r->dbi, &k, &v) == 0 ? v.mv_size : 0;
}
static uint64_t lmdb_seek(void *p, const char *key) {
    struct lmdb_reader *r = p;
    MDB_val k = {KEY, (void *)(uintptr_t)key}, v;
    uint64_t bytes = 0;
    int code = mdb_cursor_get(r->cursor, &k, &v, MDB_SET_RANGE);
    for (int i = 0; code == 0 && i < ROWS_OF_A_SEEK; i++, code = mdb_cursor_get(r->cursor, &k, &v, MDB_NEXT))
        bytes += v.mv_size;
    return bytes;
}

/* --- LevelDB and RocksDB: one C API, two prefixes ---------------------------------------------------------- */

#define LEVEL_ENGINE(L)                                                                                                    \
    struct L##_reader {                                                                                                    \
        L##_t *db;                                                                                                         \
        L##_readoptions_t *options;                                                                                        \
        L##_iterator_t *iterator;                                                                                          \
    };                                                                                                                     \
    static void *L##_bench_open(const char *dir) {                                                                         \
        char *err = NULL;                                                                                                  \
        L##_options_t *o = L##_options_create();                                                                           \
        L##_options_set_create_if_missing(o, 1);                                                                           \
        must(lk_dir_make(dir, NULL) == 0, dir);                                                                            \
        L##_t *db = L##_open(o, dir, &err);                                                                                \
        must(!err, err);                                                                                                   \
        L##_options_destroy(o);                                                                                            \
        return db;                                                                                                         \
    }                                                                                                                      \
    static void L##_bench_close(void *db) {                                                                                \
        L##_close(db);                                                                                                     \
    }                                                                                                                      \
    static void L##_bench_write(void *db, const uint32_t *numbers, size_t count, bool sync) {                              \
        char key[KEY + 1], *err = NULL;                                                                                    \
        L##_writebatch_t *b = L##_writebatch_create();                                                                     \
        L##_writeoptions_t *o = L##_writeoptions_create();                                                                 \
        L##_writeoptions_set_sync(o, sync);                                                                                \
        for (size_t i = 0; i < count; i++) {                                                                               \
            make_key(numbers[i], key);                                                                                     \
            L##_writebatch_put(b, key, KEY, value_of(numbers[i]), VALUE);                                                  \
        }                                                                                                                  \
        L##_write(db, o, b, &err);                                                                                         \
        must(!err, err);                                                                                                   \
        L##_writeoptions_destroy(o);                                                                                       \
        L##_writebatch_destroy(b);                                                                                         \
    }                                                                                                                      \
    static void *L##_bench_reader(void *db) {                                                                              \
        struct L##_reader *r = malloc(sizeof *r);                                                                          \
        r->db = db;                                                                                                        \
        r->options = L##_readoptions_create();                                                                             \
        r->iterator = L##_create_iterator(db, r->options);                                                                 \
        return r;                                                                                                          \
    }                                                                                                                      \
    static void L##_bench_reader_end(void *p) {                                                                            \
        struct L##_reader *r = p;                                                                                          \
        L##_iter_destroy(r->iterator);                                                                                     \
        L##_readoptions_destroy(r->options);                                                                               \
        free(r);                                                                                                           \
    }                                                                                                                      \
    static uint64_t L##_bench_scan(void *p) {                                                                              \
        struct L##_reader *r = p;                                                                                          \
        uint64_t bytes = 0;                                                                                                \
        size_t k, v;                                                                                                       \
        for (L##_iter_seek_to_first(r->iterator); L##_iter_valid(r->iterator); L##_iter_next(r->iterator)) {               \
            L##_iter_key(r->iterator, &k);                                                                                 \
            L##_iter_value(r->iterator, &v);                                                                               \
            bytes += k + v;                                                                                                \
        }                                                                                                                  \
        return bytes;                                                                                                      \
    }                                                                                                                      \
    static uint64_t L##_bench_get(void *p, const char *key) {                                                              \
        struct L##_reader *r = p;                                                                                          \
        char *err = NULL;                                                                                                  \
        size_t size = 0;                                                                                                   \
        char *value = L##_get(r->db, r->options, key, KEY, &size, &err);                                                   \
        must(!err, err);                                                                                                   \
        L##_free(value);                                                                                                   \
        return value ? size : 0;                                                                                           \
    }                                                                                                                      \
    static uint64_t L##_bench_seek(void *p, const char *key) {                                                             \
        struct L##_reader *r = p;                                                                                          \
        uint64_t bytes = 0;                                                                                                \
        size_t v;                                                                                                          \
        L##_iter_seek(r->iterator, key, KEY);                                                                              \
        for (int i = 0; i < ROWS_OF_A_SEEK && L##_iter_valid(r->iterator); i++, L##_iter_next(r->iterator)) {              \
            L##_iter_value(r->iterator, &v);                                                                               \
            bytes += v;                                                                                                    \
        }                                                                                                                  \
        return bytes;                                                                                                      \
    }
#define LEVEL_ROW(NAME, L)                                                                                                 \
    {                                                                                                                      \
        NAME, L##_bench_open, L##_bench_close, L##_bench_write, L##_bench_reader, L##_bench_reader_end, L##_bench_scan,    \
            L##_bench_get, L##_bench_seek                                                                                  \
    }

#ifdef HAVE_LEVELDB
LEVEL_ENGINE(leveldb)
#endif
#ifdef HAVE_ROCKSDB
LEVEL_ENGINE(rocksdb)
#endif

static const struct engine engines[] = {
    {"lockstep", ours_open, ours_close, ours_write, ours_reader, ours_reader_end, ours_scan, ours_get, ours_seek},
    {"LMDB", lmdb_open, lmdb_close, lmdb_write, lmdb_reader, lmdb_reader_end, lmdb_scan, lmdb_get, lmdb_seek},
#ifdef HAVE_LEVELDB
    LEVEL_ROW("LevelDB", leveldb),
#endif
#ifdef HAVE_ROCKSDB
    LEVEL_ROW("RocksDB", rocksdb),
#endif
};
#define ENGINES (sizeof engines / sizeof *engines)

/* --- work ------------------------------------------------------------------------------------------------ */

static uint32_t shuffled(uint32_t i) { /* one to one below `entries`: a walk by a step that has no factor of it */
    uint64_t step = 2654435761u % entries | 1;
    while (entries % step == 0 && step > 1) step += 2;
    return (uint32_t)((i * step + 12345) % entries);
}
static uint32_t random_number(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((*state >> 33) % entries);
}

static double seconds(uint64_t since) {
    return (double)(lk_clock_ns() - since) / 1e9;
}
/* us a row */
static double fill(const struct engine *e, void *db, uint32_t count, bool in_order, bool sync) {
    static uint32_t numbers[BATCH];
    uint64_t begun = lk_clock_ns();
    for (uint32_t i = 0; i < count; i += BATCH) {
        uint32_t n = count - i < BATCH ? count - i : BATCH;
        for (uint32_t k = 0; k < n; k++) numbers[k] = in_order ? i + k : shuffled(i + k);
        e->write(db, numbers, n, sync);
    }
    return seconds(begun) * 1e6 / count;
}
static double read_all(const struct engine *e, void *db) {
    double us[3];
    void *r = e->reader(db);
    for (int i = 0; i < 3; i++) {
        uint64_t begun = lk_clock_ns(), bytes = e->scan(r);
        us[i] = seconds(begun) * 1e6 / entries;
        must(bytes == (uint64_t)entries * (KEY + VALUE), "a scan");
    }
    e->reader_end(r);
    return median(us, 3);
}
static double read_some(const struct engine *e, void *db, bool seek) {
    void *r = e->reader(db);
    uint32_t count = entries < 200000 ? entries : 200000;
    uint64_t state = 42, found = 0, begun = lk_clock_ns();
    char key[KEY + 1];
    for (uint32_t i = 0; i < count; i++) {
        make_key(random_number(&state), key);
        found += seek ? e->seek(r, key) > 0 : e->get(r, key) == VALUE;
    }
    double us = seconds(begun) * 1e6 / count;
    must(found == count, "a read");
    e->reader_end(r);
    return us;
}

struct writer {
    const struct engine *engine;
    void *db;
    uint32_t first, count;
};
static void *commit_each(void *arg) {
    struct writer *w = arg;
    for (uint32_t i = 0; i < w->count; i++) {
        uint32_t number = shuffled((w->first + i) % entries);
        w->engine->write(w->db, &number, 1, true);
    }
    return NULL;
}
static double commit_together(const struct engine *e, void *db, int threads, uint32_t each) {
    pthread_t ids[THREADS];
    struct writer writers[THREADS];
    uint64_t begun = lk_clock_ns();
    for (int i = 0; i < threads; i++) {
        writers[i] = (struct writer){e, db, (uint32_t)i * each, each};
        must(pthread_create(&ids[i], NULL, commit_each, &writers[i]) == 0, "a thread");
    }
    for (int i = 0; i < threads; i++) pthread_join(ids[i], NULL);
    return seconds(begun) * 1e6 / (threads * each);
}
static double open_get_close(const struct engine *e, const char *dir) {
    char key[KEY + 1];
    make_key(7, key);
    uint64_t begun = lk_clock_ns();
    void *db = e->open(dir), *r = e->reader(db);
    must(e->get(r, key) == VALUE, "a read");
    e->reader_end(r);
    e->close(db);
    return seconds(begun) * 1e6;
}

enum work { FILL_SEQ, FILL_SEQ_SYNC, FILL_RANDOM, READ_SEQ, READ_RANDOM, SEEK_RANDOM, SYNC_ONE, SYNC_MANY, OPEN, WORKS };
static const char *const work_names[WORKS] = {
    "write in order, 1,000 a commit",
    "the same, each commit synced",
    "write in random order, 1,000 a commit",
    "read all in order",
    "get at random",
    "seek at random, read 10",
    "synced commits of one row, 1 thread",
    "synced commits of one row, 16 threads",
    "open, get, close",
};

static void one_round(const struct engine *e, const char *dir, double us[WORKS]) {
    char a[5000], b[5000], c[5000];
    snprintf(a, sizeof a, "%s/a", dir);
    snprintf(b, sizeof b, "%s/b", dir);
    snprintf(c, sizeof c, "%s/c", dir);
    void *db = e->open(a);
    us[FILL_SEQ] = fill(e, db, entries, true, false);
    us[READ_SEQ] = read_all(e, db);
    us[READ_RANDOM] = read_some(e, db, false);
    us[SEEK_RANDOM] = read_some(e, db, true);
    us[SYNC_ONE] = commit_together(e, db, 1, 300);
    us[SYNC_MANY] = commit_together(e, db, THREADS, 300);
    e->close(db);
    us[OPEN] = open_get_close(e, a);
    db = e->open(b);
    us[FILL_SEQ_SYNC] = fill(e, db, entries, true, true);
    e->close(db);
    db = e->open(c);
    us[FILL_RANDOM] = fill(e, db, entries, false, false);
    e->close(db);
    lk_dir_remove(dir, NULL);
}

int main(int argc, char **argv) {
    static double us[ENGINES][WORKS][ROUNDS];
    if (argc != 4) return 2;
    entries = (uint32_t)strtoul(argv[2], NULL, 10);
    int rounds = atoi(argv[3]);
    must(entries >= 1000 && rounds >= 1 && rounds <= ROUNDS, "reading the arguments");
    uint64_t state = 7;
    for (size_t i = 0; i < sizeof values; i++)
        values[i] = i % VALUE < VALUE / 2 ? (char)(random_number(&state) >> 3) : values[i - VALUE / 2];
    for (int round = 0; round < rounds; round++)
        for (size_t i = 0; i < ENGINES; i++) {
            size_t which = (i + (size_t)round) % ENGINES; /* in turns, each first once */
            double now[WORKS];
            char dir[4096];
            snprintf(dir, sizeof dir, "%s/%s", argv[1], engines[which].name);
            one_round(&engines[which], dir, now);
            for (int w = 0; w < WORKS; w++) us[which][w][round] = now[w];
        }
    printf("%" PRIu32 " entries of %d + %d bytes, us a row, median of %d\n%-38s", entries, KEY, VALUE, rounds, "");
    for (size_t i = 0; i < ENGINES; i++) printf("%12s", engines[i].name);
    putchar('\n');
    for (int w = 0; w < WORKS; w++) {
        printf("%-38s", work_names[w]);
        for (size_t i = 0; i < ENGINES; i++) printf("%12.3f", median(us[i][w], (size_t)rounds));
        putchar('\n');
    }
    return 0;
}
