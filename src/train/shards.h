/* Which rank sums and updates which elements. Private to src/train. */
#ifndef LOCKSTEP_TRAIN_SHARDS_H
#define LOCKSTEP_TRAIN_SHARDS_H
#include "lockstep/model/model.h"

/* A region is what one stage of the backward pass finishes: consecutive tensors. Each is cut into one slice a rank, on the
 * boundaries of blocks, so that every rank has its share of the work at every stage. */
struct lk__train_region {
    size_t begin, end;  /* floats in a parameter array */
    uint32_t stage;     /* of lk_decoder_backward */
    bool embedding;     /* the table of embeddings: complete only with the touched rows */
    bool dense;         /* has a gradient of its own beside the touched rows */
    const size_t *cuts; /* (ranks + 1): rank r has [cuts[r], cuts[r + 1]) */
    size_t local;       /* where the moments of this rank's slice begin in its arrays */
};
struct lk__train_shards {
    const struct lk_layout *layout;
    int rank, ranks;
    struct lk__train_region *regions; /* by place */
    uint32_t region_count, stages;
    size_t *cuts;
    size_t floats; /* of this rank, padding included: the size of its moments */
    size_t blocks; /* of the whole model */
};
int lk__train_shards_init(struct lk__train_shards *, const struct lk_layout *, int rank, int ranks, struct lk_err *);
void lk__train_shards_release(struct lk__train_shards *);
/* Calls fn for each piece of a tensor in [begin, end), which lie on boundaries of blocks, ascending. block: the piece's
 * first block in the whole model. */
typedef void lk__train_piece_fn(void *arg, const struct lk_tensor *, size_t offset, size_t count, size_t block);
void lk__train_shards_pieces(const struct lk_layout *, size_t begin, size_t end, lk__train_piece_fn *fn, void *arg);

/* Where an element of a parameter array lies when tensors follow each other without padding, as in blobs. */
size_t lk__train_shards_packed(const struct lk_layout *, const struct lk_tensor *, size_t offset);

#endif
