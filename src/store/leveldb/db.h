/* What the files of the shim share: a database, states that are read, keys as rows. README.md says why. */
#ifndef LK_LEVELDB_DB_H
#define LK_LEVELDB_DB_H
#include "lockstep/leveldb.h"
#include "lockstep/store/kv.h"
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/types.h>

/* Rows: ':' and the key; "#leveldb" says what it is. */
#define LK__LEVELDB_ROW     ':'
#define LK__LEVELDB_KEY_MAX (LK_KV_KEY_MAX - 1)

struct leveldb_t {
    struct lk_kv *kv;
    char *dir;
    int lock;                    /* a descriptor of the folder, locked */
    pid_t pid;                   /* a forked child leaves the lock alone */
    atomic_int references;       /* the opener's, and one for each state */
    leveldb_comparator_t *order; /* NULL: bytewise */
};

/* A state that is read, by a snapshot and the iterators over it, or by one iterator. Its transaction is used by one thread
 * at a time. */
struct leveldb_snapshot_t {
    leveldb_t *db;
    struct lk_kv_txn *txn; /* NULL: it could not be had, why says why */
    struct lk_err why;
    atomic_int references;
    pthread_mutex_t lock;
};

struct leveldb_comparator_t {
    void *state;
    void (*destructor)(void *);
    int (*compare)(void *, const char *, size_t, const char *, size_t);
    const char *(*name)(void *);
};
struct leveldb_options_t {
    bool create_if_missing, error_if_exists;
    leveldb_comparator_t *comparator;
};
struct leveldb_readoptions_t {
    const leveldb_snapshot_t *snapshot;
};
struct leveldb_writeoptions_t {
    bool sync;
};
/* Writes one behind the other: struct lk__leveldb_write, row key, value. */
struct leveldb_writebatch_t {
    struct lk_buf writes;
    bool incomplete; /* memory was out */
};
struct lk__leveldb_write {
    size_t key_size, value_size; /* of the row's key, with its first byte */
    bool is_delete;
};

/* Says *err to a program of LevelDB's. */
void lk__leveldb_fail(char **errptr, const struct lk_err *);

/* The row of a key, in out; of one that is too long its first bytes are there, and the size tells. */
struct lk_bytes lk__leveldb_row(unsigned char out[LK_KV_KEY_MAX], const char *key, size_t size);
struct lk_bytes lk__leveldb_cut(struct lk_bytes row); /* these first bytes */
static inline struct lk_bytes lk__leveldb_key(struct lk_bytes row) {
    return lk_bytes((const char *)row.data + 1, row.size - 1);
}
/* A cursor over all keys. */
int lk__leveldb_cursor(struct lk_kv_txn *, struct lk_kv_cursor **out, struct lk_err *);
/* To the first row whose key is >= key. */
int lk__leveldb_seek(struct lk_kv_cursor *, const char *key, size_t size, struct lk_err *);
/* LK_EUNSUPPORTED: the database's own order puts this key elsewhere among those that are there than bytes do. */
int lk__leveldb_check_order(const leveldb_t *, struct lk_kv_txn *, const char *key, size_t size, struct lk_err *);

/* Never NULL. */
struct leveldb_snapshot_t *lk__leveldb_state(leveldb_t *);
void lk__leveldb_state_release(struct leveldb_snapshot_t *);
void lk__leveldb_release(leveldb_t *);

#endif
