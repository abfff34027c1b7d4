/* Which blobs are reached from rows: what the collector and pins share. Private to src/store. */
#ifndef LOCKSTEP_STORE_MARKS_H
#define LOCKSTEP_STORE_MARKS_H
#include "lockstep/store/gc.h"

#define LK__STORE_UNKNOWN "nothing was removed, since what is still needed is not known"

/* {.store, .kinds, .texts = LK_BUF_INIT, .absent = LK_BUF_INIT} at first. */
struct lk__store_marks {
    struct lk_store *store;
    lk_row_kinds kinds;
    const char *failed; /* how messages begin; NULL: LK__STORE_UNKNOWN */
    bool content;       /* rows of the store's own doing (aside) do not count */
    bool explains;      /* keeps what rows are, for lk__store_marks_holder */
    bool (*skips)(void *arg, struct lk_bytes key, struct lk_bytes value); /* rows that count no more; NULL: none */
    void *arg;
    struct lk_root *list; /* in order of discovery; the first `done` have been looked into */
    uint32_t *holder;     /* of each: where its row's text begins in `texts` */
    size_t count, done, capacity;
    uint32_t *slots; /* open addressing, index + 1 */
    size_t slot_count;
    struct lk_buf texts;  /* what rows are, each ended by a zero */
    struct lk_buf absent; /* uint32_t: which ones of the list were not there when they were looked into */
    uint32_t row;         /* where that of the row begins that marks now */
};

/* All fail with LK_ENOMEM and a message, besides what they say. */
int lk__store_marks_add(struct lk__store_marks *, const struct lk_root *, struct lk_err *);
bool lk__store_marks_has(const struct lk__store_marks *, const struct lk_root *);
/* Of a root that is marked. */
const char *lk__store_marks_holder(const struct lk__store_marks *, const struct lk_root *);
/* Marks what rows need; kinds that need nothing are passed over. LK_EUNSUPPORTED: a row of no kind. LK_ECORRUPT. */
int lk__store_marks_rows(struct lk__store_marks *, struct lk_kv_txn *, struct lk_err *);
/* Marks what manifests among the marked blobs name; those that were not there are looked for again. */
int lk__store_marks_children(struct lk__store_marks *, struct lk_err *);
/* Rows of a snapshot, without children. */
int lk__store_marks_snapshot(struct lk__store_marks *, struct lk_err *);
void lk__store_marks_release(struct lk__store_marks *);

#endif
