/* One deterministic step, and the buffers it needs. Private to src/train. */
#ifndef LOCKSTEP_TRAIN_ENGINE_H
#define LOCKSTEP_TRAIN_ENGINE_H
#include "lockstep/train.h"

/* A unit is what one pass processes: whole grains that make up one node of the tree, or a part of one grain. */
struct lk__unit {
    uint32_t first, sequences; /* in the batch */
    uint32_t grain, grains;    /* the grains it touches */
    bool begins, ends;         /* first and last unit of its node (always both for whole grains) */
};
/* Cuts a batch into units of at most micro_batch sequences. *units with lk_free. */
int lk__units_make(uint32_t sequences, uint32_t grains, uint32_t micro_batch, struct lk__unit **units, uint32_t *count,
                   struct lk_err *);
/* Gradient buffers that a walk over the units needs at once (the depth of the stack of tree nodes). */
uint32_t lk__units_buffers(const struct lk__unit *units, uint32_t count);

/* The grains' tree over whole gradients, nodes arriving in ascending order: a stack of buffers. */
struct lk__tree {
    float **buffers;
    uint32_t depth;
    uint32_t level[32], index[32];
};
void lk__tree_begin(struct lk__tree *);
float *lk__tree_top(const struct lk__tree *); /* where the next node's gradient goes */
void lk__tree_push(struct lk__tree *, struct lk_math *, size_t floats, uint32_t grain, uint32_t grains);
void lk__tree_finish(struct lk__tree *, struct lk_math *, size_t floats); /* the sum is in buffers[0] */

struct lk__engine {
    const struct lk_run_config *config;
    const struct lk_layout *layout;
    struct lk_math *math;
    const struct lk_dataset *dataset;
    uint64_t sequences_in_dataset;
    struct lk_decoder *decoder;
    struct lk_embedding_gradient *embedding;
    struct lk__unit *units;
    uint32_t unit_count, buffer_count;
    struct lk__tree tree;
    uint32_t *inputs, *targets, *document_start; /* (sequences, context) */
    uint64_t *sample_index;                      /* (sequences): which sequence of the dataset */
    float *losses;                               /* (sequences, context) */
    double *grain_loss, *block_sums;
    struct lk_row_part *parts;
    size_t block_count;
    struct lk_tensor *tensors;
};
/* micro_batch as the plan chose it. All but weights and moments is allocated here. */
int lk__engine_open(struct lk__engine *, const struct lk_run_config *, const struct lk_layout *, struct lk_math *,
                    const struct lk_dataset *, uint32_t micro_batch, struct lk_err *);
void lk__engine_close(struct lk__engine *);
/* Loss and gradient (in tree.buffers[0]) of the batch that starts at state->samples; changes nothing in the state. */
int lk__engine_gradient(struct lk__engine *, const struct lk_state *, struct lk_ledger_row *row, struct lk_err *);
/* The optimizer's update; row->step, learning_rate are filled. */
void lk__engine_update(struct lk__engine *, struct lk_state *, struct lk_ledger_row *row);
/* A message for a step whose loss or gradient is not finite: step, tensor, document. */
int lk__engine_blame(struct lk__engine *, const struct lk_state *, uint32_t step, struct lk_err *);

/* The manifest that names a state (new reference, NULL: no memory) and the state root it has. */
json_t *lk__state_manifest(const struct lk_state *, const struct lk_root *weights, const struct lk_root *moments1,
                           const struct lk_root *moments2);
int lk__state_roots(const struct lk_state *, struct lk_root *weights, struct lk_root *state, struct lk_err *);

/* lk_evaluate with a decoder that is there already. */
int lk__evaluate(struct lk_decoder *, uint32_t max_sequences, const struct lk_layout *, struct lk_math *,
                 const float *weights, const struct lk_dataset *, uint32_t context, bool cross_documents,
                 uint32_t sequences, struct lk_eval_row *out, struct lk_err *);
/* Fails when all targets it would look at are masked: better known before the first step than after the last. */
int lk__evaluate_check(const struct lk_dataset *, uint32_t context, uint32_t sequences, struct lk_err *);

/* --- Checkpoints: written while the next forward and backward run ---------------------------------------- */
struct lk__ledger;
struct lk__saver;
/* A thread that writes one checkpoint at a time and then commits it with the ledger rows that are due. */
int lk__saver_open(struct lk_store *, const char *run, uint32_t keep, struct lk__ledger *, struct lk__saver **out,
                   struct lk_err *);
/* Starts; the state must not change until lk__saver_wait returns. record: the run's record, updated in the same transaction
 * (stolen). */
int lk__saver_start(struct lk__saver *, const struct lk_state *, uint32_t step, json_t *record, struct lk_err *);
/* Waits; *saved (may be NULL) is true when a checkpoint was finished since the last wait, described in *out. */
int lk__saver_wait(struct lk__saver *, bool *saved, struct lk_checkpoint *out, struct lk_err *);
void lk__saver_close(struct lk__saver *);
/* A checkpoint that can't be loaded no longer counts as kept: it must not push a good one out. Its roots stay for
 * verification. */
int lk__checkpoint_drop(struct lk_store *, const char *run, const struct lk_checkpoint *, struct lk_err *);

/* --- Ledger ---------------------------------------------------------------------------------------------- */
/* Rows are buffered and committed lazily a few times a second; the saver makes them durable. Thread-safe. */
int lk__ledger_open(struct lk_store *, const char *run, struct lk__ledger **out, struct lk_err *);
void lk__ledger_close(struct lk__ledger *); /* what is buffered is dropped: flush first */
/* Room for one row, so that the next append keeps it whatever happens: called before the state changes. */
int lk__ledger_reserve(struct lk__ledger *, struct lk_err *);
/* A step executed again must equal its old row: LK_EDIVERGED otherwise. The row stays buffered when writing it fails. */
int lk__ledger_append(struct lk__ledger *, const struct lk_ledger_row *, struct lk_err *);
int lk__ledger_append_eval(struct lk__ledger *, const struct lk_eval_row *, struct lk_err *);
int lk__ledger_flush(struct lk__ledger *, struct lk_err *);
/* Puts the buffered rows into an open write transaction. */
int lk__ledger_write(struct lk__ledger *, struct lk_kv_txn *, struct lk_err *);
/* "" when equal in the deterministic columns, else which column differs and both values. */
void lk__ledger_compare(const struct lk_ledger_row *old, const struct lk_ledger_row *new_row, char *what, size_t size);

/* Keys of per-run rows: "<letter>/NAME/" and the step as 4 bytes big-endian. */
size_t lk__step_key(char *key, char letter, const char *run, uint32_t step);

/* --- Runs ------------------------------------------------------------------------------------------------ */
/* The lock file of a run: held (flock) by the process that trains it. */
int lk__run_lock(struct lk_store *, const char *name, int *fd, struct lk_err *);
void lk__run_lock_remove(struct lk_store *, const char *name); /* by its holder, when there is no run (any more) */
void lk__run_unlock(int fd);
bool lk__run_locked(struct lk_store *, const char *name);

#endif
