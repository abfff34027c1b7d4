/* Which checkpoints of a run are kept. Private to src/train. */
#ifndef LOCKSTEP_TRAIN_RETENTION_H
#define LOCKSTEP_TRAIN_RETENTION_H
#include "lockstep/store/lease.h"
#include "lockstep/train/train.h"

struct lk__train_keep {
    uint32_t newest; /* how many; 0: all */
    bool best;       /* and the one with the least held-out loss */
};
/* State roots, on their way out. */
struct lk__train_dropped {
    struct lk_root *list;
    size_t count, capacity;
    int code;
};
/* A checkpoint's row. */
int lk__train_checkpoint_put(struct lk_kv_txn *, const char *run, const struct lk_checkpoint *, struct lk_err *);
/* Of the kept ones in `list` (ascending), the one whose step's evaluation has the least loss, the first among equals;
 * SIZE_MAX: none was evaluated. */
int lk__train_best(struct lk_kv_txn *, const char *run, const struct lk_checkpoint *list, size_t count, size_t *best,
                   struct lk_err *);
/* With a new checkpoint, marks those of `list` (ascending, older) as gone that need not be kept, and adds them to dropped.
 */
int lk__train_retain(struct lk_kv_txn *, const char *run, const struct lk__train_keep *,
                     const struct lk_checkpoint *new_one, struct lk_checkpoint *list, size_t count,
                     struct lk__train_dropped *dropped, struct lk_err *);
/* A checkpoint that can't be loaded no longer counts as kept: it must not push a good one out. Its roots stay for
 * verification. */
int lk__train_checkpoint_drop(struct lk_store *, const char *run, const struct lk_lease *, const struct lk_checkpoint *,
                              struct lk_err *);

#endif
