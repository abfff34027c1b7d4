/* One deterministic step, and the buffers it needs. Private to src/train. */
#ifndef LOCKSTEP_TRAIN_ENGINE_H
#define LOCKSTEP_TRAIN_ENGINE_H
#include "reduce.h"
#include "state.h"
#include "units.h"

struct lk__train_engine {
    const struct lk_run_config *config;
    const struct lk_layout *layout;
    struct lk_math *math;
    struct lk_comm *comm, *own_comm; /* own_comm: what open made, if anything */
    const struct lk_dataset *dataset;
    uint64_t sequences_in_dataset;
    struct lk_decoder *decoder;
    struct lk_embedding_gradient *embedding;
    struct lk__train_shards shards;
    struct lk__train_reduce *reduce;
    uint32_t *bounds;              /* (ranks + 1): grains of each rank */
    struct lk__train_range grains; /* of this rank */
    struct lk__train_unit *units;
    uint32_t unit_count, buffer_count;
    float **buffers;
    struct lk__train_tree tree;
    struct lk_tree_step merges[LK__TRAIN_TREE_DEPTH]; /* of the last unit: made stage by stage */
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
int lk__train_engine_bounds(const struct lk_run_config *, const struct lk_layout *, int ranks, uint32_t *bounds,
                            struct lk_err *);
/* comm: NULL: alone. micro_batch as the plan chose it. All but the moments is allocated here. Collective. */
int lk__train_engine_open(struct lk__train_engine *, const struct lk_run_config *, const struct lk_layout *,
                          struct lk_math *, struct lk_comm *, const struct lk_dataset *, uint32_t micro_batch,
                          struct lk_err *);
void lk__train_engine_close(struct lk__train_engine *);
/* A state for this engine: its weights are the engine's, its moments this rank's slices. */
int lk__train_engine_state(struct lk__train_engine *, struct lk_state *, struct lk_err *);
/* Loss and gradient (of this rank's slices, in buffers[0]) of the batch that starts at state->samples; changes nothing in
 * the state. Collective; fails on all ranks alike. */
int lk__train_engine_gradient(struct lk__train_engine *, const struct lk_state *, struct lk_ledger_row *row,
                              struct lk_err *);
/* The optimizer's update; row->step, learning_rate are filled. A row without tokens makes none: only the count of samples
 * moves on. Collective; it fails only with the transport. */
int lk__train_engine_update(struct lk__train_engine *, struct lk_state *, struct lk_ledger_row *row, struct lk_err *);
/* "document 3 (talk.jsonl line 4)": the training document that a token lies in. */
void lk__train_document_text(const struct lk_dataset *, uint64_t token, char *out, size_t size);
/* A message for a step whose loss or gradient is not finite: step, tensor, document. */
int lk__train_engine_blame(struct lk__train_engine *, const struct lk_state *, uint32_t step, struct lk_err *);

#endif
