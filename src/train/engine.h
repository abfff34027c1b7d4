/* One deterministic step, and the buffers it needs. Private to src/train. */
#ifndef LOCKSTEP_TRAIN_ENGINE_H
#define LOCKSTEP_TRAIN_ENGINE_H
#include "lockstep/cluster/comm.h"
#include "lockstep/train/train.h"

/* --- Grains: units, the tree, ranks ---------------------------------------------------------------------- */
struct lk__range { /* grains [first, end) */
    uint32_t first, end;
};
struct lk__node { /* of the grains' tree */
    uint32_t level, index;
};
/* A unit is what one pass processes: whole grains that make up one node of the tree, or a part of one grain. */
struct lk__unit {
    uint32_t first, sequences; /* in the batch */
    struct lk__node node;
    bool begins, ends; /* first and last unit of its node (always both for whole grains) */
};
/* Cuts the range of a batch's grains into units of at most micro_batch sequences (0: as many as possible). *units with
 * lk_free. */
int lk__units_make(uint32_t sequences, uint32_t grains, struct lk__range, uint32_t micro_batch, struct lk__unit **units,
                   uint32_t *count, struct lk_err *);
/* Gradient buffers that a walk over the units needs at once (the depth of the stack of tree nodes). */
uint32_t lk__units_buffers(const struct lk__unit *units, uint32_t count, uint32_t grains);

/* Whole gradients as nodes of the tree, arriving in ascending order: entry i of the stack is in buffer i. */
#define LK__TREE_DEPTH 64 /* nodes of a range of 2^32 grains */
struct lk__tree {
    uint32_t depth, grains;
    struct lk__node nodes[LK__TREE_DEPTH];
};
void lk__tree_begin(struct lk__tree *, uint32_t grains);
/* The next node's gradient is in buffer `depth`; steps: which buffers are to be added now (at most LK__TREE_DEPTH); returns
 * how many. When all grains have come, depth is 1. */
uint32_t lk__tree_push(struct lk__tree *, struct lk__node, struct lk_tree_step *steps);
/* What is left of the stack when all of a range has come, in order: the partial sums that it sends. nodes: LK__TREE_DEPTH.
 */
uint32_t lk__range_nodes(struct lk__range, uint32_t grains, struct lk__node *nodes);

/* Which grains each rank gets: bounds (ranks + 1). Of all ways, the one whose slowest rank, max(compute, traffic), is
 * fastest, then the one with the fewest partial sums. grain_seconds: computing one grain; sum_seconds: sending and adding
 * one partial sum. */
int lk__share_grains(uint32_t grains, uint32_t ranks, double grain_seconds, double sum_seconds, uint32_t *bounds,
                     struct lk_err *);

/* --- Shards: which rank sums and updates which elements -------------------------------------------------- */
/* A region is what one stage of the backward pass finishes: consecutive tensors. Each is cut into one slice a rank, on the
 * boundaries of blocks, so that every rank has its share of the work at every stage. */
struct lk__region {
    size_t begin, end;  /* floats in a parameter array */
    uint32_t stage;     /* of lk_decoder_backward */
    bool embedding;     /* the table of embeddings: complete only with the touched rows */
    bool dense;         /* has a gradient of its own beside the touched rows */
    const size_t *cuts; /* (ranks + 1): rank r has [cuts[r], cuts[r + 1]) */
    size_t local;       /* where the moments of this rank's slice begin in its arrays */
};
struct lk__shards {
    const struct lk_layout *layout;
    int rank, ranks;
    struct lk__region *regions; /* by place */
    uint32_t region_count, stages;
    size_t *cuts;
    size_t floats; /* of this rank, padding included: the size of its moments */
    size_t blocks; /* of the whole model */
};
int lk__shards_init(struct lk__shards *, const struct lk_layout *, int rank, int ranks, struct lk_err *);
void lk__shards_release(struct lk__shards *);
/* Calls fn for each piece of a tensor in [begin, end), which lie on boundaries of blocks, ascending. block: the piece's
 * first block in the whole model. */
typedef void lk__piece_fn(void *arg, const struct lk_tensor *, size_t offset, size_t count, size_t block);
void lk__shards_pieces(const struct lk_layout *, size_t begin, size_t end, lk__piece_fn *fn, void *arg);

/* Where an element of a parameter array lies when tensors follow each other without padding, as in blobs. */
size_t lk__shards_packed(const struct lk_layout *, const struct lk_tensor *, size_t offset);

/* The state of one rank: its own slices of the moments; weights are borrowed. shared: all ranks have the same ones, so that
 * each writes its slices only. */
static inline uint32_t lk__state_step(const struct lk_state *s) { /* of the run */
    return (uint32_t)(s->updates - s->before);
}
/* [model] from: finds it, fills in the configuration's model, notes roots. The tokenizer must be the dataset's. */
int lk__run_begin_from(struct lk_store *, struct lk_run *, void (*warning)(void *arg, const char *message), void *arg,
                       struct lk_err *);
json_t *lk__run_initial_json(const struct lk_run *); /* of the record; a new reference */
int lk__run_initial_read(const json_t *, struct lk_run *, struct lk_err *);
int lk__run_initial_check(struct lk_store *, const struct lk_run *, struct lk_err *); /* the blobs are still there */
/* What the run's step 0 has: initial weights from its seed, or those it was given. `fill`: this process writes the weights,
 * where several share them. */
int lk__state_begin(struct lk_store *, struct lk_math *, const struct lk_run *, bool fill, struct lk_state *,
                    struct lk_err *);
/* All weights, or this rank's slices of shared ones, from a blob. */
int lk__weights_load(struct lk_store *, const struct lk_root *, const struct lk_state *, struct lk_err *);
int lk__state_init_shard(struct lk_state *, const struct lk__shards *, float *weights, bool shared, struct lk_err *);

/* --- Reduction over ranks -------------------------------------------------------------------------------- */
struct lk__reduce;
/* bounds: grains of each rank. buffers: how many gradients this rank keeps at once. tokens: the most positions of this
 * rank's grains. weights: a parameter array that all ranks share, or this rank's own where messages must do. Collective. */
int lk__reduce_open(struct lk_comm *, struct lk_math *, const struct lk__shards *, uint32_t grains, const uint32_t *bounds,
                    uint32_t buffers, size_t tokens, struct lk__reduce **out, struct lk_err *);
void lk__reduce_close(struct lk__reduce *);        /* collective */
bool lk__reduce_shared(const struct lk__reduce *); /* through shared memory, not by messages */
float *lk__reduce_weights(struct lk__reduce *);
float **lk__reduce_buffers(struct lk__reduce *);      /* (buffers): gradients of this rank */
void *lk__reduce_embedding_rows(struct lk__reduce *); /* memory for lk_embedding_gradient_create */
/* A step: begin; stage_done as this rank's partial sums are complete in buffers 0 .. ; then finish, after which this rank's
 * slices of buffer 0 hold the whole sum, and block_squares (all blocks of the model) is complete on every rank. */
void lk__reduce_begin(struct lk__reduce *, double *block_squares);
int lk__reduce_stage_done(struct lk__reduce *, uint32_t stage, struct lk_err *);
int lk__reduce_finish(struct lk__reduce *, const struct lk_embedding_rows *, struct lk_err *);
/* After this rank has written its slices of the weights: all have all of them. */
int lk__reduce_weights_ready(struct lk__reduce *, struct lk_err *);
/* Bytes that open takes on this rank, for the memory plan: gradients, weights (this rank's share where they are shared),
 * and what messages need. */
void lk__reduce_bytes(const struct lk__shards *, bool shared, uint32_t grains, const uint32_t *bounds, uint32_t buffers,
                      size_t tokens, uint64_t *weights_bytes, uint64_t *gradient_bytes);

/* --- The step -------------------------------------------------------------------------------------------- */
struct lk__engine {
    const struct lk_run_config *config;
    const struct lk_layout *layout;
    struct lk_math *math;
    struct lk_comm *comm, *own_comm; /* own_comm: what open made, if anything */
    const struct lk_dataset *dataset;
    uint64_t sequences_in_dataset;
    struct lk_decoder *decoder;
    struct lk_embedding_gradient *embedding;
    struct lk__shards shards;
    struct lk__reduce *reduce;
    uint32_t *bounds;        /* (ranks + 1): grains of each rank */
    struct lk__range grains; /* of this rank */
    struct lk__unit *units;
    uint32_t unit_count, buffer_count;
    float **buffers;
    struct lk__tree tree;
    struct lk_tree_step merges[LK__TREE_DEPTH]; /* of the last unit: made stage by stage */
    uint32_t merge_count;
    int stage_code;
    struct lk_err *stage_err;
    uint32_t *inputs, *targets, *document_start; /* (sequences, context) */
    uint64_t *sample_index;                      /* (sequences): which sequence of the dataset */
    float *losses;                               /* (sequences, context) */
    double *grain_loss, *block_sums;
    size_t *loss_offsets; /* (ranks + 1): bytes of each rank's grain_loss */
    struct lk_row_part *parts;
    struct lk_tensor *tensors;
};
/* Which grains each of the ranks gets, for a run of this shape: bounds (ranks + 1). */
int lk__engine_bounds(const struct lk_run_config *, const struct lk_layout *, int ranks, uint32_t *bounds, struct lk_err *);
/* comm: NULL: alone. micro_batch as the plan chose it. All but the moments is allocated here. Collective. */
int lk__engine_open(struct lk__engine *, const struct lk_run_config *, const struct lk_layout *, struct lk_math *,
                    struct lk_comm *, const struct lk_dataset *, uint32_t micro_batch, struct lk_err *);
void lk__engine_close(struct lk__engine *);
/* A state for this engine: its weights are the engine's, its moments this rank's slices. */
int lk__engine_state(struct lk__engine *, struct lk_state *, struct lk_err *);
/* Loss and gradient (of this rank's slices, in buffers[0]) of the batch that starts at state->samples; changes nothing in
 * the state. Collective; fails on all ranks alike. */
int lk__engine_gradient(struct lk__engine *, const struct lk_state *, struct lk_ledger_row *row, struct lk_err *);
/* The optimizer's update; row->step, learning_rate are filled. Collective; it fails only with the transport. */
int lk__engine_update(struct lk__engine *, struct lk_state *, struct lk_ledger_row *row, struct lk_err *);
/* A message for a step whose loss or gradient is not finite: step, tensor, document. */
int lk__engine_blame(struct lk__engine *, const struct lk_state *, uint32_t step, struct lk_err *);

/* The manifest that names a state (new reference, NULL: no memory) and the state root it has. */
json_t *lk__state_manifest(const struct lk_state *, const struct lk_root *weights, const struct lk_root *moments1,
                           const struct lk_root *moments2);
int lk__state_roots(const struct lk_state *, struct lk_root *weights, struct lk_root *state, struct lk_err *);

/* lk_evaluate with a decoder (for at_once sequences) that is there already, shared among ranks. Collective. */
struct lk__evaluation {
    struct lk_decoder *decoder;
    uint32_t at_once;
    const struct lk_layout *layout;
    struct lk_math *math;
    struct lk_comm *comm;
    const float *weights;
    const struct lk_dataset *dataset;
    uint32_t context;
    bool cross_documents;
};
int lk__evaluate(const struct lk__evaluation *, uint32_t sequences, struct lk_eval_row *out, struct lk_err *);
/* Fails when all targets it would look at are masked: better known before the first step than after the last. */
int lk__evaluate_check(const struct lk_dataset *, uint32_t context, uint32_t sequences, struct lk_err *);

/* --- Checkpoints: written while the next forward and backward run ---------------------------------------- */
struct lk__ledger;
struct lk__saver;
/* A smaller array stays in the page cache, for whoever reads the checkpoint next. Tests lower it. */
extern size_t lk__past_cache_bytes;
/* A thread that writes one checkpoint at a time and then commits it with the ledger rows that are due. All ranks write,
 * rank 0 commits; ledger: NULL on the others. Collective. */
int lk__saver_open(struct lk_store *, const char *run, uint32_t keep, struct lk__ledger *, struct lk_comm *,
                   struct lk__saver **out, struct lk_err *);
/* One of a state's arrays (local: this rank's slices only) as a blob that all ranks write together. Collective. */
int lk__put_array_together(struct lk_store *, struct lk_comm *, const struct lk_state *, const float *array, bool local,
                           struct lk_root *out, struct lk_err *);
/* Starts; the state must not change until lk__saver_wait has returned on all ranks. record: the run's record, updated in
 * the same transaction (stolen; NULL on other ranks than 0). */
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
/* The run that a record describes; released by lk_run_close. */
int lk__run_from_record(const json_t *record, struct lk_run *out, struct lk_err *);

#endif
