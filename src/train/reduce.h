/* The sum of gradients over ranks. Private to src/train. */
#ifndef LOCKSTEP_TRAIN_REDUCE_H
#define LOCKSTEP_TRAIN_REDUCE_H
#include "lockstep/cluster/comm.h"
#include "shards.h"

struct lk__train_reduce;
/* bounds: grains of each rank. buffers: how many gradients this rank keeps at once. tokens: the most positions of this
 * rank's grains. weights: a parameter array that all ranks share, or this rank's own where messages must do. Collective. */
int lk__train_reduce_open(struct lk_comm *, struct lk_math *, const struct lk__train_shards *, uint32_t grains,
                          const uint32_t *bounds, uint32_t buffers, size_t tokens, struct lk__train_reduce **out,
                          struct lk_err *);
void lk__train_reduce_close(struct lk__train_reduce *);        /* collective */
bool lk__train_reduce_shared(const struct lk__train_reduce *); /* through shared memory, not by messages */
float *lk__train_reduce_weights(struct lk__train_reduce *);
float **lk__train_reduce_buffers(struct lk__train_reduce *);      /* (buffers): gradients of this rank */
void *lk__train_reduce_embedding_rows(struct lk__train_reduce *); /* memory for lk_embedding_gradient_create */
/* A step: begin; stage_done as this rank's partial sums are complete in buffers 0 .. ; then finish, after which this rank's
 * slices of buffer 0 hold the whole sum, and block_squares (all blocks of the model) is complete on every rank. */
void lk__train_reduce_begin(struct lk__train_reduce *, double *block_squares);
int lk__train_reduce_stage_done(struct lk__train_reduce *, uint32_t stage, struct lk_err *);
int lk__train_reduce_finish(struct lk__train_reduce *, const struct lk_embedding_rows *, struct lk_err *);
/* After this rank has written its slices of the weights: all have all of them. */
int lk__train_reduce_weights_ready(struct lk__train_reduce *, struct lk_err *);
/* Bytes that open takes on this rank, for the memory plan: gradients, weights (this rank's share where they are shared),
 * and what messages need. */
void lk__train_reduce_bytes(const struct lk__train_shards *, bool shared, uint32_t grains, const uint32_t *bounds,
                            uint32_t buffers, size_t tokens, uint64_t *weights_bytes, uint64_t *gradient_bytes);

#endif
