/* What the files of a move share. Private to src/store. */
#ifndef LOCKSTEP_STORE_PRIVATE_MOVE_H
#define LOCKSTEP_STORE_PRIVATE_MOVE_H
#include "lockstep/store/move.h"

struct lk__store_move {
    struct lk_store *from, *to;
    const struct lk_move_options *options;
    struct lk_move_result *result;
    struct lk_move_status status;
    struct lk_buf marker;   /* the row "format" of `to` while this call is the one that fills it */
    struct lk_kv_txn *last; /* of `from`, which keeps others from committing there; NULL: not yet */
    uint64_t told_ns;
};

/* Now and then: says where the move is. LK_ESTOPPED, or LK_ECONFLICT: m->last does not hold any more. */
int lk__store_move_tick(struct lk__store_move *, struct lk_err *);
/* LK_EBUSY: `to` is another call's by now. In a transaction of `to`. */
int lk__store_move_check(const struct lk__store_move *, struct lk_kv_txn *to, struct lk_err *);
/* Copies the blobs that `to` lacks. */
int lk__store_move_blobs(struct lk__store_move *, struct lk_err *);
/* *strange: how many blobs `to` has and `from` has not; one: such a root. */
int lk__store_move_strange_blobs(struct lk__store_move *, uint64_t *strange, struct lk_root *one, struct lk_err *);
/* Makes the rows of `to` those of `from`: of the transaction m->last, else of several snapshots. *changes: how many were
 * not equal; 0 says that all were, and then the result has their number and root. */
int lk__store_move_rows(struct lk__store_move *, uint64_t *changes, struct lk_err *);

#endif
