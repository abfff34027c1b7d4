/* The store's rows beside LMDB itself, LevelDB and RocksDB: the same work on each, in turns. bench/store.sh compiles and
 * runs it. usage: store_bench DIR ENTRIES ROUNDS */
#include "bench_median.h"
#include "cmd/kv_work.h"
#include "lockstep/base/file.h"
#include <inttypes.h>
#include <lmdb.h>
#ifdef HAVE_LEVELDB
#include <leveldb/c.h>
#endif
#ifdef HAVE_ROCKSDB
#include <rocksdb/c.h>
#endif

#define KEY     16
#define VALUE   100
#define THREADS 16
#define ROUNDS  15

static void must(bool good, const char *what) {
    if (good) return;
    fprintf(stderr, "store_bench: %s failed%s%s\n", what, work_err.code ? ": " : "", work_err.message);
    exit(1);
}

static void *kv_open(const char *dir) {
    char url[5100];
    snprintf(url, sizeof url, "file:%s", dir);
    return ours_open(url);
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
static bool lmdb_write(void *p, const uint32_t *numbers, size_t count, bool sync) {
    struct lmdb *db = p;
    MDB_txn *t;
    char key[WORK_KEY];
    mdb_env_set_flags(db->env, MDB_NOMETASYNC, !sync);
    must(mdb_txn_begin(db->env, NULL, 0, &t) == 0, "mdb_txn_begin");
    for (size_t i = 0; i < count; i++) {
        work_key(numbers[i], key);
        MDB_val k = {KEY, key}, v = {VALUE, (void *)(uintptr_t)work_value(numbers[i])};
        must(mdb_put(t, db->dbi, &k, &v, 0) == 0, "mdb_put");
    }
    return mdb_txn_commit(t) == 0;
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
    for (int i = 0; code == 0 && i < WORK_SEEK; i++, code = mdb_cursor_get(r->cursor, &k, &v, MDB_NEXT)) bytes += v.mv_size;
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
    static bool L##_bench_write(void *db, const uint32_t *numbers, size_t count, bool sync) {                              \
        char key[WORK_KEY], *err = NULL;                                                                                   \
        L##_writebatch_t *b = L##_writebatch_create();                                                                     \
        L##_writeoptions_t *o = L##_writeoptions_create();                                                                 \
        L##_writeoptions_set_sync(o, sync);                                                                                \
        for (size_t i = 0; i < count; i++) {                                                                               \
            work_key(numbers[i], key);                                                                                     \
            L##_writebatch_put(b, key, KEY, work_value(numbers[i]), VALUE);                                                \
        }                                                                                                                  \
        L##_write(db, o, b, &err);                                                                                         \
        must(!err, err);                                                                                                   \
        L##_writeoptions_destroy(o);                                                                                       \
        L##_writebatch_destroy(b);                                                                                         \
        return true;                                                                                                       \
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
        for (int i = 0; i < WORK_SEEK && L##_iter_valid(r->iterator); i++, L##_iter_next(r->iterator)) {                   \
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

static const struct work_engine engines[] = {
    {"lockstep", kv_open, ours_close, ours_write, ours_reader, ours_reader_end, ours_scan, ours_get, ours_seek},
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

/* The median of three: one pass is short. */
static double read_all(const struct work_engine *e, void *db) {
    double us[3];
    for (int i = 0; i < 3; i++) us[i] = work_read_all(e, db);
    return median(us, 3);
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

static void one_round(const struct work_engine *e, const char *dir, double us[WORKS]) {
    char a[5000], b[5000], c[5000];
    snprintf(a, sizeof a, "%s/a", dir);
    snprintf(b, sizeof b, "%s/b", dir);
    snprintf(c, sizeof c, "%s/c", dir);
    void *db = e->open(a);
    must(db != NULL, "opening");
    us[FILL_SEQ] = work_fill(e, db, work.entries, true, false);
    us[READ_SEQ] = read_all(e, db);
    us[READ_RANDOM] = work_read_some(e, db, false);
    us[SEEK_RANDOM] = work_read_some(e, db, true);
    us[SYNC_ONE] = work_commit(e, db, 1, 300);
    us[SYNC_MANY] = work_commit(e, db, THREADS, 300);
    e->close(db);
    us[OPEN] = work_open(e, a);
    db = e->open(b);
    us[FILL_SEQ_SYNC] = work_fill(e, db, work.entries, true, true);
    e->close(db);
    db = e->open(c);
    us[FILL_RANDOM] = work_fill(e, db, work.entries, false, false);
    e->close(db);
    lk_dir_remove(dir, NULL);
    for (int w = 0; w < WORKS; w++) must(us[w] >= 0, work_names[w]);
}

int main(int argc, char **argv) {
    static double us[ENGINES][WORKS][ROUNDS];
    if (argc != 4) return 2;
    work.entries = (uint32_t)strtoul(argv[2], NULL, 10);
    work.reads = work.entries < 200000 ? work.entries : 200000, work.batch = 1000, work.value = VALUE;
    int rounds = atoi(argv[3]);
    must(work.entries >= 1000 && rounds >= 1 && rounds <= ROUNDS, "reading the arguments");
    work_begin();
    for (int round = 0; round < rounds; round++)
        for (size_t i = 0; i < ENGINES; i++) {
            size_t which = (i + (size_t)round) % ENGINES; /* in turns, each first once */
            double now[WORKS];
            char dir[4096];
            snprintf(dir, sizeof dir, "%s/%s", argv[1], engines[which].name);
            one_round(&engines[which], dir, now);
            for (int w = 0; w < WORKS; w++) us[which][w][round] = now[w];
        }
    printf("%" PRIu32 " entries of %d + %d bytes, us a row, median of %d\n%-38s", work.entries, KEY, VALUE, rounds, "");
    for (size_t i = 0; i < ENGINES; i++) printf("%12s", engines[i].name);
    putchar('\n');
    for (int w = 0; w < WORKS; w++) {
        printf("%-38s", work_names[w]);
        for (size_t i = 0; i < ENGINES; i++) printf("%12.3f", median(us[i][w], (size_t)rounds));
        putchar('\n');
    }
    return 0;
}
