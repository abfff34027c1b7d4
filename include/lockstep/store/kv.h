/* An ordered, transactional, crash-safe map from keys to values: as if one client at a time.
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

#define LK_KV_KEY_MAX   511 /* bytes, at least 1; keys that begin with a zero byte are reserved */
#define LK_KV_VALUE_MAX ((size_t)1 << 20)

struct lk_kv;
struct lk_kv_txn;

/* How a kv, blobs or a store are opened. */
enum lk_access {
    LK_READ,  /* what is there; no permission to write is needed, and nothing is made */
    LK_WRITE, /* what is there, to change it: LK_EIO at once where that is not permitted */
    LK_CREATE /* made if absent, to change it */
};

/* url: "file:DIR" (LMDB in DIR/kv; a network file system is refused by name). A directory may be opened several times in a
 * process; the handles share one environment. Not usable in a forked child, which opens its own.
 * LK_READ by a user who may not write DIR/kv reads without locks, as nobody would see them. Rows that were read are those
 * of one commit all the same: when a writer elsewhere gets so far ahead that it may reuse the pages of this snapshot (two
 * commits after the begin), the next read is LK_EBUSY, and to begin again is all it takes. A value that lk_kv_get gave
 * should then be used or copied at once. LK_EINVAL: the URL names no directory. LK_EUNSUPPORTED: no engine for it, or a
 * network file system. LK_ENOTFOUND: absent (not with LK_CREATE). LK_EIO: no permission, or the disk failed. LK_ECORRUPT:
 * DIR/kv holds something else. LK_ENOMEM: no memory, or too little address space (the message names the limit). */
int lk_kv_open(const char *url, enum lk_access, struct lk_kv **out, struct lk_err *);
void lk_kv_close(struct lk_kv *);

/* One write transaction at a time (a second waits; on the same thread: LK_EBUSY); reads see the state at their begin. A
 * transaction belongs to its thread. A read transaction sees no later commit and should be short.
 * LK_EBUSY: this thread has a write transaction already, 1,024 readers are at work, or another process has grown the store
 * past what this one has mapped, and this one's other transactions must end first. LK_EIO: a write, but this user may
 * only read; or the disk failed. LK_ENOMEM. */
int lk_kv_begin(struct lk_kv *, bool write, struct lk_kv_txn **out, struct lk_err *);
enum lk_durability {
    LK_DURABLE, /* survives power loss when commit returns */
    LK_LAZY     /* survives a killed process when commit returns; power loss may undo it (never half of it), until the next
                   durable commit */
};
/* Ends the transaction in any case.
 * LK_EIO: a full disk or map, a limit on a file's size, a disk that failed, or an earlier write of this transaction that
 * did: nothing was changed. LK_ECORRUPT: the store's clock is damaged. LK_ENOMEM. *timestamp_ms (may be NULL): strictly
 * increasing commit time of this store, max(last + 1, clock). */
int lk_kv_commit(struct lk_kv_txn *, enum lk_durability, int64_t *timestamp_ms, struct lk_err *);
void lk_kv_abort(struct lk_kv_txn *);

/* *value points into the store until the transaction ends or writes.
 * LK_ENOTFOUND: absent. LK_EINVAL: a key of no bytes, of more than LK_KV_KEY_MAX, or reserved. LK_EBUSY: a writer got ahead
 * of a reader that may not lock (lk_kv_open). LK_EIO, LK_ECORRUPT: the disk failed, the file is damaged. */
int lk_kv_get(struct lk_kv_txn *, struct lk_bytes key, struct lk_bytes *value, struct lk_err *);
/* LK_EINVAL: the key, as above, a value over LK_KV_VALUE_MAX, or a read transaction. LK_EIO: the disk or the map is full,
 * or an earlier write of this transaction failed; only to end it is left. LK_ENOMEM, LK_ECORRUPT. */
int lk_kv_put(struct lk_kv_txn *, struct lk_bytes key, struct lk_bytes value, struct lk_err *);
int lk_kv_delete(struct lk_kv_txn *, struct lk_bytes key, struct lk_err *); /* as lk_kv_put; absent is no error */
/* Calls fn for each pair with from <= key < to in bytewise order (to.size 0: no end); fn returning non-zero ends the scan
 * and is returned. fn must not write to the transaction. LK_EBUSY, LK_EIO, LK_ECORRUPT: as lk_kv_get. LK_ENOMEM. */
typedef int lk_kv_scan_fn(void *arg, struct lk_bytes key, struct lk_bytes value);
int lk_kv_scan(struct lk_kv_txn *, struct lk_bytes from, struct lk_bytes to, lk_kv_scan_fn *fn, void *arg, struct lk_err *);

#ifdef __cplusplus
}
#endif
#endif
