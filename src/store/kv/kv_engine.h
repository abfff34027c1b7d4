/* The kv seam. kv.c and its neighbours check arguments, cut long keys and keep the cursors' promises; an engine only moves
 * bytes of rows in order. README.md has the drawing. */
#ifndef LK_KV_ENGINE_H
#define LK_KV_ENGINE_H
#include "lockstep/store/kv.h"

/* Row keys that begin with a zero byte are hidden: callers can neither read nor write them, scans pass over them. 0x00 'L'
 * are the layers (layers.c), 0x00 't' is LMDB's clock; an engine may have others of its own. */
#define LK__KV_RESERVED    0x00

#define LK__KV_ROW_KEY_MAX 4096 /* no engine's key_max is larger */

/* Arguments are checked when an engine gets them: row keys are 1 to key_max bytes, values at most LK_KV_VALUE_MAX, writes
 * come in write transactions that have not failed. kv.c marks a transaction as failed after each write that did, and after
 * each LK_ECONFLICT. LK_ENOTFOUND needs no message. */
struct lk_kv_ops {
    const char *name, *scheme; /* "LMDB", "file:" */
    size_t key_max;            /* the longest row key; 40 to LK__KV_ROW_KEY_MAX */

    int (*open)(const char *url, enum lk_access, struct lk_kv **out, struct lk_err *);
    void (*close)(struct lk_kv *);
    int (*begin)(struct lk_kv *, bool write, struct lk_kv_txn **out, struct lk_err *);
    /* Both end and free the transaction. stamped: *timestamp_ms is wanted; of a read transaction, the last one's. */
    int (*commit)(struct lk_kv_txn *, enum lk_durability, bool stamped, int64_t *timestamp_ms, struct lk_err *);
    void (*abort)(struct lk_kv_txn *);
    /* The time that this write transaction will commit with, from now on always the same; of a read transaction, of the
     * last commit that had one. */
    int (*timestamp)(struct lk_kv_txn *, int64_t *out_ms, struct lk_err *);
    /* Of a write transaction that has its time: that becomes at least least_ms. */
    int (*raise)(struct lk_kv_txn *, int64_t least_ms, struct lk_err *);
    /* Of a write transaction that has its time: LK_ECONFLICT if it does not keep others from committing any more, as its
     * connection was lost. Asking also keeps a server from ending it because it idles. NULL: it always does. */
    int (*holds)(struct lk_kv_txn *, struct lk_err *);

    /* The time that leases end by, the same for all who open the store: it does not go back. NULL: all of them are
     * processes of one machine, which has locks. */
    int (*now)(struct lk_kv_txn *, int64_t *out_ms, struct lk_err *);

    /* *value is valid until the transaction ends or writes, or, of get_many, until the next get_many. */
    int (*get)(struct lk_kv_txn *, struct lk_bytes key, struct lk_bytes *value, struct lk_err *);
    /* NULL: kv.c calls get for each. */
    int (*get_many)(struct lk_kv_txn *, const struct lk_bytes *keys, size_t count, struct lk_bytes *values,
                    struct lk_err *);
    int (*put)(struct lk_kv_txn *, struct lk_bytes key, struct lk_bytes value, struct lk_err *);
    int (*remove)(struct lk_kv_txn *, struct lk_bytes key, struct lk_err *);
    /* All rows with from <= key < to (to.size 0: no end), hidden ones too; a bound may be longer than key_max. NULL: kv.c
     * removes one row after the other. */
    int (*remove_range)(struct lk_kv_txn *, struct lk_bytes from, struct lk_bytes to, struct lk_err *);

    /* Over all rows, hidden ones too. After a write of the transaction a cursor is only moved by cursor_seek. Both moves: 0
     * with c->key and c->value set (valid until the next move or write), or LK_ENOTFOUND, after which only a seek comes. */
    int (*cursor_open)(struct lk_kv_txn *, struct lk_kv_cursor **out, struct lk_err *);
    void (*cursor_close)(struct lk_kv_cursor *);
    /* back false: the first row >= key; true: the last row < key, and of key.size 0 the last of all. */
    int (*cursor_seek)(struct lk_kv_cursor *, struct lk_bytes key, bool back, struct lk_err *);
    int (*cursor_step)(struct lk_kv_cursor *, bool back, struct lk_err *);

    /* A number that read transactions of this process have in common only if they see the same; 0: not known. NULL: never
     * known. */
    uint64_t (*state)(struct lk_kv_txn *);
    /* LK_EBUSY: what this read transaction has read may not be of one state any more. NULL: it always is. */
    int (*check)(struct lk_kv_txn *, struct lk_err *);
    /* lk_kv_update, where the engine shares commits. NULL: lk__kv_update_alone. */
    int (*update)(struct lk_kv *, lk_kv_update_fn *, void *arg, enum lk_durability, int64_t *timestamp_ms, struct lk_err *);
    /* NULL: not supported, and `tools` says what does it. */
    int (*stats)(struct lk_kv *, struct lk_kv_stats *out, struct lk_err *);
    int (*copy)(struct lk_kv *, const char *dir, bool compact, struct lk_err *);
    int (*compact)(struct lk_kv *, struct lk_err *);
    const char *copies, *compacts; /* what does it instead, as "VACUUM FULL"; NULL: nothing does */
};

/* The first member of an engine's own structs. kv.c fills ops, kv and write after the engine's open, begin and cursor_open;
 * an engine that calls itself may fill them before. */
struct lk_kv {
    const struct lk_kv_ops *ops;
};
struct lk__kv_cursor;
struct lk_kv_txn {
    struct lk_kv *kv;
    bool write;
    bool dirty;                    /* something was written */
    int failed;                    /* not 0: the error of a write, or LK_ECONFLICT of anything; only to end it is left */
    struct lk__kv_cursor *cursors; /* of callers, open now (kv_cursor.c) */
};
/* Of engines, and the first member of those that callers have. */
struct lk_kv_cursor {
    union {
        struct lk_kv_row row; /* first, as kv.h tells callers */
        struct {
            struct lk_bytes key, value;
        };
    };
    struct lk_kv_txn *txn;
};

extern const struct lk_kv_ops lk__kv_lmdb, lk__kv_memory, lk__kv_postgres, lk__kv_postgres_short;

/* The time this write transaction will commit with (in a read transaction: of the last commit that had one). */
int lk__kv_timestamp(struct lk_kv_txn *, int64_t *out_ms, struct lk_err *);
/* The same of a write transaction, and at least least_ms. */
int lk__kv_timestamp_from(struct lk_kv_txn *, int64_t least_ms, struct lk_err *);
/* After lk__kv_timestamp in a write transaction: 0 as long as nobody else can commit, LK_ECONFLICT from then on. */
int lk__kv_holds(struct lk_kv_txn *, struct lk_err *);
/* For engines that run lk_kv_update's functions themselves: sets what every new transaction has; after the function, says
 * what kept it from being committed, or 0. */
void lk__kv_txn_init(struct lk_kv *, bool write, struct lk_kv_txn *);
int lk__kv_txn_check(const struct lk_kv_txn *, struct lk_err *);
/* begin, fn, commit, and again after LK_ECONFLICT until the deadline. */
int lk__kv_update_alone(struct lk_kv *, lk_kv_update_fn *, void *arg, enum lk_durability, int64_t *timestamp_ms,
                        struct lk_err *);
/* Bytewise, a prefix before what it begins. */
int lk__kv_compare(struct lk_bytes a, struct lk_bytes b);

/* What a statfs type means for a database in a memory map: the network file system's name, or NULL; *refuse is false for
 * those that only may be remote (9p, FUSE). */
const char *lk__kv_network_fs(long type, bool *refuse);

#endif
