/* Blobs that no row names yet: how the collector knows that they are needed. A store that is opened to be changed announces
 * by itself each blob that is put into it, before the blob is there, in a row that holds it until the store is closed or
 * the process is gone. What is here is for those who keep a store open for long, or point at blobs that others put. */
#ifndef LOCKSTEP_STORE_UPLOADS_H
#define LOCKSTEP_STORE_UPLOADS_H
#include "lockstep/store/store.h"

#ifdef __cplusplus
extern "C" {
#endif

/* In the transaction that names what this process put: LK_ENOTFOUND, the announcements are gone, because this process was
 * away for longer than a lease lasts, or a server lost them; so the blobs may be gone, too: put them again. In a store of
 * one machine that can't be, and nothing is read. */
int lk_uploads_check(struct lk_store *, struct lk_kv_txn *, struct lk_err *);
/* The same, and these blobs are held by this transaction's rows from now on, not by the announcement. After its commit:
 * lk_uploads_forget. What the process has not put is passed over. */
int lk_uploads_named(struct lk_store *, struct lk_kv_txn *, const struct lk_root *, size_t count, struct lk_err *);
void lk_uploads_forget(struct lk_store *, const struct lk_root *, size_t count);

/* Holds a blob that is there, as if this process had put it. LK_ENOTFOUND: it is gone, or going. */
int lk_uploads_hold(struct lk_store *, const struct lk_root *, struct lk_err *);
/* In the transaction that points at blobs which others put: LK_ENOTFOUND, one of them is gone, or going. Else they are
 * there when the transaction commits, and stay as long as its rows. */
int lk_store_still_there(struct lk_store *, struct lk_kv_txn *, const struct lk_root *, size_t count, struct lk_err *);

#ifdef __cplusplus
}
#endif
#endif
