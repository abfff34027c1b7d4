/* What a run begins with. Private to src/train. */
#ifndef LOCKSTEP_TRAIN_INITIAL_H
#define LOCKSTEP_TRAIN_INITIAL_H
#include "lockstep/train/train.h"

/* [model] from: finds it, fills in the configuration's model, notes roots. The tokenizer must be the dataset's. */
struct lk__train_origin {
    struct lk_store *store;
    bool dry; /* nothing is stored */
    void (*warning)(void *arg, const char *message);
    void *arg;
};
int lk__train_run_begin_from(const struct lk__train_origin *, struct lk_run *, struct lk_err *);
json_t *lk__train_run_initial_json(const struct lk_run *); /* of the record; a new reference */
int lk__train_run_initial_read(const json_t *, struct lk_run *, struct lk_err *);
/* Records of older releases do not say how many samples came before the run: then the state that it began with does. */
int lk__train_run_initial_complete(struct lk_store *, struct lk_run *, struct lk_err *);
/* The blobs are still there; in the transaction (NULL: none) that writes the run's record, they stay with it. */
int lk__train_run_initial_check(struct lk_store *, struct lk_kv_txn *, const struct lk_run *, struct lk_err *);
/* What the run's step 0 has: initial weights from its seed, or those it was given. `fill`: this process writes the weights,
 * where several share them. */
int lk__train_state_begin(struct lk_store *, struct lk_math *, const struct lk_run *, bool fill, struct lk_state *,
                          struct lk_err *);

#endif
