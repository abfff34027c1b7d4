/* What reduce.c and reduce_messages.c share. Private to them. */
#ifndef LOCKSTEP_TRAIN_REDUCE_INSIDE_H
#define LOCKSTEP_TRAIN_REDUCE_INSIDE_H
#include "reduce.h"
#include "units.h"

/* A partial sum: what a rank's stack holds at `place` when all its grains are done. */
struct lk__train_partial {
    int rank;
    uint32_t place;
};
/* What a rank keeps in its memory. Ranks gather it as bytes, so it has no padding. */
struct lk__train_sizes {
    uint64_t buffers, tokens;
};
struct lk__train_reduce {
    struct lk_comm *comm;
    struct lk_math *math;
    const struct lk__train_shards *shards;
    int rank, ranks;
    bool shared;
    uint32_t buffers;
    struct lk__train_partial *partials; /* of all ranks, in the tree's order */
    uint32_t partial_count, mine;       /* mine: how many of them are this rank's */
    struct lk_tree_step *steps;         /* partial_count - 1 */
    const float **sources;              /* (partial_count), of the piece at hand */

    /* A rank's memory: its gradients, then its list of touched rows. */
    struct lk_shared memory, weights_memory;
    float *weights;
    float **own;                    /* (buffers) */
    struct lk__train_sizes *sizes;  /* (ranks) */
    struct lk_embedding_rows *rows; /* (ranks), while finishing */

    /* A step. Marks ascend: begun is the one before its first stage, a stage's is begun + 1 + stage. */
    uint64_t begun;
    uint32_t *order;          /* regions by stage */
    uint32_t started, summed; /* of order: gradients complete here; summed over all ranks */
    double *squares;
    uint32_t *packed;  /* blocks by rank, region, place */
    size_t *packed_at; /* (ranks + 1): where each rank's begin */
    double *packed_squares;

    struct lk__train_messages *messages; /* NULL where memory is shared */
};

struct lk__train_messages;
uint64_t lk__train_messages_bytes(const struct lk__train_shards *, uint32_t partials, uint32_t mine, size_t tokens);
int lk__train_messages_open(struct lk__train_reduce *, struct lk_err *);
void lk__train_messages_close(struct lk__train_messages *, int ranks);
/* Begins to send this rank's partial sums of a region and to receive the others'. */
int lk__train_messages_start(struct lk__train_reduce *, uint32_t region, struct lk_err *);
/* Whether all partial sums of a region are here; wait: until they are. */
int lk__train_messages_arrived(struct lk__train_reduce *, uint32_t region, bool wait, bool *arrived, struct lk_err *);
/* Where a foreign partial sum's floats of this rank's slice of a region were put. */
const float *lk__train_messages_slice(const struct lk__train_reduce *, uint32_t region, uint32_t partial);
/* Touched rows of the pieces of the table: fills rows of all other ranks. */
int lk__train_messages_rows(struct lk__train_reduce *, const struct lk_embedding_rows *mine, struct lk_err *);
/* All transfers of the step are done. */
int lk__train_messages_finish(struct lk__train_reduce *, struct lk_err *);
int lk__train_messages_weights(struct lk__train_reduce *, struct lk_err *);

#endif
