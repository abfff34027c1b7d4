/* Which rows a store has, which blobs they hold, and removing the blobs that none holds. */
#ifndef LOCKSTEP_STORE_GC_H
#define LOCKSTEP_STORE_GC_H
#include "lockstep/store/store.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Each floor describes the rows that it writes. A row is of the kind whose prefix is the longest that its key begins with.
 * holds: tells the roots of the blobs that the row needs, or returns LK_ECORRUPT with a message: that can't be told. What
 * tell returns, unless 0, is to be returned. NULL: rows of this kind need none, and are not even read.
 * print: says to people what the row is, as "checkpoint of run demo at step 700".
 * Keys that begin with user/ are for rows of users' own, which hold nothing. */
typedef int lk_row_tell_fn(void *arg, const struct lk_root *);
struct lk_row_kind {
    const char *prefix;
    const char *name; /* what rows of this kind are, as "runs" */
    bool whole;       /* the prefix is all of the key */
    bool aside;       /* the row is about the store's own doing, and no part of what a pin holds */
    int (*holds)(struct lk_bytes key, struct lk_bytes value, lk_row_tell_fn *tell, void *arg, struct lk_err *);
    int (*print)(struct lk_bytes key, struct lk_bytes value, struct lk_buf *out);
};
/* Several floors' kinds: tables, each ended by a NULL prefix; the list ended by NULL. The store's own (names, their
 * histories, leases, pins, the format) are always known besides. */
typedef const struct lk_row_kind *const *lk_row_kinds;
/* NULL: of none. */
const struct lk_row_kind *lk_row_kind_of(lk_row_kinds, struct lk_bytes key);
/* For holds of JSON rows: every string of 64 hexadecimal digits, in text that is JSON. */
int lk_row_tell_hex(const char *text, size_t size, lk_row_tell_fn *tell, void *arg);

struct lk_gc_blob {
    struct lk_root root;
    uint64_t size_bytes;
    int64_t age_ms;
    bool goes;
    const char *holder; /* the row that needs it; NULL: none, so it goes or is only too young */
};
struct lk_gc_options {
    int64_t grace_ms; /* what is younger stays: its writer may be about to name it */
    bool dry_run;
    void (*tell)(void *arg, const struct lk_gc_blob *); /* of a dry run: each blob; NULL: none */
    void *arg;
};
struct lk_gc_result {
    uint64_t blobs, bytes;     /* removed, or that would be */
    uint64_t kept, kept_bytes; /* needed, or younger than the grace period */
};
/* Removes blobs that no row reaches and that are older than the grace period. A blob that is a JSON object is a manifest
 * and reaches every root that its text holds. The blobs go in a write transaction that looks at all rows, and at each
 * blob's age, once more: one whose row is committed meanwhile stays, and so does one that a writer has just found there.
 * When what is needed can't be told, nothing is removed: LK_ECORRUPT (a damaged row or manifest), LK_EUNSUPPORTED (a row
 * of no kind that is known), LK_EIO, LK_EBUSY (of lk_kv_begin), LK_ENOMEM. LK_EIO also for a blob that could not be
 * removed; those before it are gone, what is needed is there. */
int lk_store_gc(struct lk_store *, lk_row_kinds, const struct lk_gc_options *, struct lk_gc_result *out, struct lk_err *);
/* Of these roots and what they reach, removes what no row reaches, whatever its age. Errors as above. */
int lk_store_gc_dropped(struct lk_store *, lk_row_kinds, const struct lk_root *roots, size_t count, struct lk_err *);

#ifdef __cplusplus
}
#endif
#endif
