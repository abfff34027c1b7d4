/* The kv seam. kv.c checks arguments, keeps the reserved rows and calls an engine; an engine only moves bytes. */
#ifndef LK_KV_ENGINE_H
#define LK_KV_ENGINE_H
#include "lockstep/store/kv.h"

/* Keys that begin with a zero byte belong to kv.c: callers can neither read nor write them, scans pass over them. */
#define LK__KV_RESERVED 0x00

struct lk_kv_ops {
    const char *name, *scheme; /* "LMDB", "file:" */
    /* where: the URL after the scheme. */
    int (*open)(const char *where, enum lk_access, struct lk_kv **out, struct lk_err *);
    void (*close)(struct lk_kv *);
    int (*begin)(struct lk_kv *, bool write, struct lk_kv_txn **out, struct lk_err *);
    /* Both end and free the transaction. */
    int (*commit)(struct lk_kv_txn *, enum lk_durability, struct lk_err *);
    void (*abort)(struct lk_kv_txn *);
    int (*get)(struct lk_kv_txn *, struct lk_bytes key, struct lk_bytes *value, struct lk_err *);
    int (*put)(struct lk_kv_txn *, struct lk_bytes key, struct lk_bytes value, struct lk_err *);
    int (*remove)(struct lk_kv_txn *, struct lk_bytes key, struct lk_err *);
    int (*scan)(struct lk_kv_txn *, struct lk_bytes from, struct lk_bytes to, lk_kv_scan_fn *fn, void *arg,
                struct lk_err *);
};

/* The first member of an engine's own structs. */
struct lk_kv {
    const struct lk_kv_ops *ops;
};
struct lk_kv_txn {
    struct lk_kv *kv;
    bool write;
    bool dirty;           /* something was written */
    bool failed;          /* a write failed: only abort, or a commit that says so, is possible */
    int64_t timestamp_ms; /* 0: not asked for yet */
};

extern const struct lk_kv_ops lk__kv_lmdb;

/* The time this write transaction will commit with (in a read transaction: of the last commit that had one). */
int lk__kv_timestamp(struct lk_kv_txn *, int64_t *out_ms, struct lk_err *);

/* What a statfs type means for a database in a memory map: the network file system's name, or NULL; *refuse is false for
 * those that only may be remote (9p, FUSE). */
const char *lk__kv_network_fs(long type, bool *refuse);

#endif
