/* An ordered, transactional, crash-safe map from keys to values: as if one client at a time, on every engine.
 * Engines stand behind struct lk_kv_ops (src/store/kv/kv_engine.h); nothing else knows which one is open. */
#ifndef LOCKSTEP_KV_H
#define LOCKSTEP_KV_H
#include "lockstep/base/err.h"
#include "lockstep/base/mem.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LK_KV_KEY_MAX   8192 /* bytes, at least 1; keys that begin with a zero byte are reserved */
#define LK_KV_VALUE_MAX ((size_t)100 << 20)

struct lk_kv;
struct lk_kv_txn;
struct lk_kv_cursor;

/* How a kv, blobs or a store are opened. */
enum lk_access {
    LK_READ,  /* what is there; no permission to write is needed, and nothing is made */
    LK_WRITE, /* what is there, to change it: LK_EIO at once where that is not permitted */
    LK_CREATE /* made if absent, to change it */
};

/* url: "file:DIR" (LMDB in DIR/kv; a network file system is refused by name), or "memory:" and "memory:NAME" (in this
 * process only: gone when its last handle is closed; without NAME each opening is another one). A directory may be opened
 * several times in a process; the handles share one environment. Not usable in a forked child, which opens its own.
 * LK_READ by a user who may not write DIR/kv reads without locks, as nobody would see them. Rows that were read are those
 * of one commit all the same: when a writer elsewhere gets so far ahead that it may reuse the pages of this snapshot (two
 * commits after the begin), the next read is LK_EBUSY, and to begin again is all it takes. A value that lk_kv_get gave
 * should then be used or copied at once. LK_EINVAL: the URL names no directory. LK_EUNSUPPORTED: no engine for it, or a
 * network file system. LK_ENOTFOUND: absent (not with LK_CREATE). LK_EIO: no permission, or the disk failed. LK_ECORRUPT:
 * DIR/kv holds something else. LK_ENOMEM: no memory, or too little address space (the message names the limit). */
int lk_kv_open(const char *url, enum lk_access, struct lk_kv **out, struct lk_err *);
void lk_kv_close(struct lk_kv *);
/* The URL (of a kv, blobs or a store) as people may see it, without a password; the caller frees it. NULL: no memory. */
char *lk_kv_shown(const char *url);

/* --- transactions ----------------------------------------------------------------------------------------
 * Strictly serializable: write transactions are as if one came after the other, in the order of their commits, and what
 * begins after a commit has returned, in any process, includes it. A read transaction sees the state at its begin.
 * LK_ECONFLICT, from any call in a write transaction or its commit: another one came between, nothing was changed, run it
 * again (lk_kv_update does). LMDB and memory never say so: there a second write transaction waits for the first. */

/* A transaction belongs to its thread and should be short. A write transaction sees its own writes.
 * LK_EBUSY: this thread has a write transaction already, 1,024 readers are at work, or another process has grown the store
 * past what this one has mapped, and this one's other transactions must end first. LK_EIO: a write, but this user may
 * only read; or the disk failed. LK_ENOMEM. */
int lk_kv_begin(struct lk_kv *, bool write, struct lk_kv_txn **out, struct lk_err *);
enum lk_durability {
    LK_DURABLE, /* survives power loss when commit returns */
    LK_LAZY     /* survives a killed process when commit returns; power loss may undo it (never half of it), until the next
                   durable commit */
};
/* Ends the transaction in any case; its cursors are closed before.
 * LK_EIO: a full disk or map, a limit on a file's size, a disk that failed, or an earlier write of this transaction that
 * did: nothing was changed. LK_ECONFLICT. LK_ECORRUPT: the store's clock is damaged. LK_ENOMEM. *timestamp_ms (may be
 * NULL): strictly increasing commit time of this store, max(last + 1, clock), in the order of the commits. Of a read
 * transaction: the time of the last commit that asked for one. */
int lk_kv_commit(struct lk_kv_txn *, enum lk_durability, int64_t *timestamp_ms, struct lk_err *);
void lk_kv_abort(struct lk_kv_txn *);

/* Runs fn in a write transaction and commits it; what LK_ECONFLICT ends is run again, for up to 30 s. fn returning
 * non-zero: nothing is changed and that is returned. fn may run several times, also on another thread of this process
 * (calls of many threads share one commit and one sync), so it keeps nothing from one run to the next, takes no lock that a
 * caller holds, and begins no other write transaction. LK_EBUSY: this thread has a write transaction open. Else as
 * lk_kv_begin and lk_kv_commit. Threads: any number. */
typedef int lk_kv_update_fn(struct lk_kv_txn *, void *arg, struct lk_err *);
int lk_kv_update(struct lk_kv *, lk_kv_update_fn *fn, void *arg, enum lk_durability, int64_t *timestamp_ms,
                 struct lk_err *);

/* --- rows ------------------------------------------------------------------------------------------------ */

/* *value points into the store until the transaction ends or writes.
 * LK_ENOTFOUND: absent. LK_EINVAL: a key of no bytes, of more than LK_KV_KEY_MAX, or reserved. LK_EBUSY: a writer got ahead
 * of a reader that may not lock (lk_kv_open). LK_EIO, LK_ECORRUPT: the disk failed, the file is damaged. LK_ECONFLICT.
 * LK_ENOMEM. */
int lk_kv_get(struct lk_kv_txn *, struct lk_bytes key, struct lk_bytes *value, struct lk_err *);
/* All of them at once, in one round trip where there are any; values: (count), absent ones with data NULL. */
int lk_kv_get_many(struct lk_kv_txn *, const struct lk_bytes *keys, size_t count, struct lk_bytes *values, struct lk_err *);
/* value must not point into the store: a write may move what it points to. LK_EINVAL: the key, as above, a value over
 * LK_KV_VALUE_MAX, or a read transaction. LK_EIO: the disk or the map is full, or an earlier write of this transaction
 * failed; only to end it is left. LK_ECONFLICT, LK_ENOMEM, LK_ECORRUPT. */
int lk_kv_put(struct lk_kv_txn *, struct lk_bytes key, struct lk_bytes value, struct lk_err *);
int lk_kv_delete(struct lk_kv_txn *, struct lk_bytes key, struct lk_err *); /* as lk_kv_put; absent is fine */
/* Deletes from <= key < to; to.size 0: no end. Bounds: any bytes up to LK_KV_KEY_MAX. */
int lk_kv_delete_range(struct lk_kv_txn *, struct lk_bytes from, struct lk_bytes to, struct lk_err *);

/* --- in order --------------------------------------------------------------------------------------------
 * Bytewise (memcmp), a key before those that it begins. */

/* Calls fn for each pair with from <= key < to (to.size 0: no end); fn returning non-zero ends the scan and is returned.
 * fn must not write to the transaction. Errors as of lk_kv_get. */
typedef int lk_kv_scan_fn(void *arg, struct lk_bytes key, struct lk_bytes value);
int lk_kv_scan(struct lk_kv_txn *, struct lk_bytes from, struct lk_bytes to, lk_kv_scan_fn *fn, void *arg, struct lk_err *);

/* A cursor over from <= key < to (to.size 0: no end); the bounds are copied. It stands on a row or nowhere: at first, after
 * LK_ENOTFOUND and after any other error nowhere. LK_EINVAL: a bound over LK_KV_KEY_MAX. */
int lk_kv_cursor_open(struct lk_kv_txn *, struct lk_bytes from, struct lk_bytes to, struct lk_kv_cursor **out,
                      struct lk_err *);
void lk_kv_cursor_close(struct lk_kv_cursor *); /* before the transaction ends */
/* 0: it stands on a row now. LK_ENOTFOUND: no such row within the bounds. Else as lk_kv_get.
 * next and previous from nowhere: LK_ENOTFOUND; first, last and the seeks place it anew. Where the transaction wrote since,
 * next goes to the first row behind the key that the cursor stood on, also if that row is gone; previous likewise. */
int lk_kv_cursor_first(struct lk_kv_cursor *, struct lk_err *);
int lk_kv_cursor_last(struct lk_kv_cursor *, struct lk_err *);
int lk_kv_cursor_next(struct lk_kv_cursor *, struct lk_err *);
int lk_kv_cursor_previous(struct lk_kv_cursor *, struct lk_err *);
int lk_kv_cursor_seek(struct lk_kv_cursor *, struct lk_bytes key, struct lk_err *);      /* the first row >= key */
int lk_kv_cursor_seek_back(struct lk_kv_cursor *, struct lk_bytes key, struct lk_err *); /* the last row <= key */
/* Of the row that it stands on; until the cursor moves or the transaction writes or ends. Nowhere: no bytes. */
static inline struct lk_bytes lk_kv_cursor_key(const struct lk_kv_cursor *);
static inline struct lk_bytes lk_kv_cursor_value(const struct lk_kv_cursor *);

/* What every cursor begins with, so that to look at a row is no call; not to be used else. */
struct lk_kv_row {
    struct lk_bytes key, value;
};
static inline struct lk_bytes lk_kv_cursor_key(const struct lk_kv_cursor *c) {
    return ((const struct lk_kv_row *)c)->key;
}
static inline struct lk_bytes lk_kv_cursor_value(const struct lk_kv_cursor *c) {
    return ((const struct lk_kv_row *)c)->value;
}

/* The first key behind all keys that begin with prefix, the `to` of a range of them. out: (prefix.size). False: there is
 * none (the prefix is empty or all 0xff): the range has no end. */
bool lk_kv_prefix_end(struct lk_bytes prefix, unsigned char *out, size_t *size);

/* --- the whole ------------------------------------------------------------------------------------------- */

struct lk_kv_stats {
    const char *engine;    /* "LMDB" */
    uint64_t rows;         /* as the engine counts them: with a clock's row, and a few more for keys that are long for it */
    uint64_t size_bytes;   /* on the disk, or in memory */
    uint64_t free_bytes;   /* of these: to be used again by later writes */
    uint64_t limit_bytes;  /* it cannot grow past this; 0: not known */
    uint32_t depth;        /* of its tree; 0: not known */
    uint32_t readers;      /* transactions that read now, of all processes; 0 where it is not known */
    uint32_t readers_dead; /* slots of killed readers, which were cleared just now */
    int64_t timestamp_ms;  /* of the last commit that asked for one, 0: none yet */
};
int lk_kv_stats(struct lk_kv *, struct lk_kv_stats *out, struct lk_err *);
struct lk_kv_check {
    uint64_t rows, key_bytes, value_bytes;
    uint64_t layers; /* of keys that are too long for the engine's rows */
};
/* Reads every row, forwards and backwards, in one snapshot: they are in order and of sizes that are possible, and every row
 * that holds a part of a long key can be reached. LK_ECORRUPT: what is not so. Else as lk_kv_get. */
int lk_kv_check(struct lk_kv *, struct lk_kv_check *out, struct lk_err *);
/* Writes a snapshot beside, while others go on reading and writing: "file:dir" opens it. Synced; nothing is there half.
 * compact: without free pages, in the order of the keys, which takes longer. LK_EEXISTS: dir holds rows already.
 * LK_EUNSUPPORTED: an engine with tools of its own, which the message names. LK_EIO, LK_ENOMEM. */
int lk_kv_copy(struct lk_kv *, const char *dir, bool compact, struct lk_err *);
/* Gives free pages back to the disk, in place. LK_EBUSY: another process has the store open, or this one has transactions;
 * nothing was changed. LK_EUNSUPPORTED as above. LK_EIO: there is no room for the compact copy, or the disk failed. */
int lk_kv_compact(struct lk_kv *, struct lk_err *);

#ifdef __cplusplus
}
#endif
#endif
