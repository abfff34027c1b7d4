/* The state of one rank, and its way to roots and from blobs. Private to src/train. */
#ifndef LOCKSTEP_TRAIN_STATE_H
#define LOCKSTEP_TRAIN_STATE_H
#include "lockstep/train/train.h"
#include "shards.h"

/* The run's step. Samples say it: a step without targets makes no update. */
static inline uint32_t lk__train_state_step(const struct lk_state *s, const struct lk_run_config *c) {
    return (uint32_t)((s->samples - s->samples_before) / c->sequences);
}
/* The state of one rank: its own slices of the moments; weights are borrowed. shared: all ranks have the same ones, so that
 * each writes its slices only. */
int lk__train_state_init_shard(struct lk_state *, const struct lk__train_shards *, float *weights, bool shared,
                               struct lk_err *);
/* All weights, or this rank's slices of shared ones, from a blob. */
int lk__train_weights_load(struct lk_store *, const struct lk_root *, const struct lk_state *, struct lk_err *);
/* The manifest that names a state (new reference, NULL: no memory) and the state root it has. */
json_t *lk__train_state_manifest(const struct lk_state *, const struct lk_root *weights, const struct lk_root *moments1,
                                 const struct lk_root *moments2);
int lk__train_state_roots(const struct lk_state *, struct lk_root *weights, struct lk_root *state, struct lk_err *);

#endif
