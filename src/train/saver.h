/* Checkpoints: written while the next forward and backward run. Private to src/train. */
#ifndef LOCKSTEP_TRAIN_SAVER_H
#define LOCKSTEP_TRAIN_SAVER_H
#include "ledger.h"
#include "retention.h"

struct lk__train_saver;
/* A smaller array stays in the page cache, for whoever reads the checkpoint next. Tests lower it. */
extern size_t lk__train_past_cache_bytes;
/* A thread that writes one checkpoint at a time and then commits it with the ledger rows that are due. All ranks write,
 * rank 0 commits; ledger: NULL on the others. Collective. */
int lk__train_saver_open(struct lk_store *, const char *run, struct lk__train_keep, struct lk__train_ledger *,
                         struct lk_comm *, struct lk__train_saver **out, struct lk_err *);
/* One of a state's arrays (local: this rank's slices only) as a blob that all ranks write together. Collective. */
int lk__train_put_array_together(struct lk_store *, struct lk_comm *, const struct lk_state *, const float *array,
                                 bool local, struct lk_root *out, struct lk_err *);
/* Starts; the state must not change until lk__train_saver_wait has returned on all ranks. record: the run's record, updated
 * in the same transaction (stolen; NULL on other ranks than 0). drop_older: checkpoints that need not be kept any
 * more go. */
int lk__train_saver_start(struct lk__train_saver *, const struct lk_state *, uint32_t step, json_t *record, bool drop_older,
                          struct lk_err *);
/* Waits; *saved (may be NULL) is true when a checkpoint was finished since the last wait, described in *out. */
int lk__train_saver_wait(struct lk__train_saver *, bool *saved, struct lk_checkpoint *out, struct lk_err *);
void lk__train_saver_close(struct lk__train_saver *);

#endif
