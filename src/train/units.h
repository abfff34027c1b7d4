/* How the grains of a batch are shared among ranks and cut into passes, and the tree over their gradients. Private to
 * src/train. */
#ifndef LOCKSTEP_TRAIN_UNITS_H
#define LOCKSTEP_TRAIN_UNITS_H
#include "lockstep/base/err.h"
#include "lockstep/math/kernels.h"

struct lk__train_range { /* grains [first, end) */
    uint32_t first, end;
};
struct lk__train_node { /* of the grains' tree */
    uint32_t level, index;
};
/* A unit is what one pass processes: whole grains that make up one node of the tree, or a part of one grain. */
struct lk__train_unit {
    uint32_t first, sequences; /* in the batch */
    struct lk__train_node node;
    bool begins, ends; /* first and last unit of its node (always both for whole grains) */
};
/* Cuts the range of a batch's grains into units of at most micro_batch sequences (0: as many as possible). *units with
 * lk_free. */
int lk__train_units_make(uint32_t sequences, uint32_t grains, struct lk__train_range, uint32_t micro_batch,
                         struct lk__train_unit **units, uint32_t *count, struct lk_err *);
/* Gradient buffers that a walk over the units needs at once (the depth of the stack of tree nodes). */
uint32_t lk__train_units_buffers(const struct lk__train_unit *units, uint32_t count, uint32_t grains);

/* Whole gradients as nodes of the tree, arriving in ascending order: entry i of the stack is in buffer i. */
#define LK__TRAIN_TREE_DEPTH 64 /* nodes of a range of 2^32 grains */
struct lk__train_tree {
    uint32_t depth, grains;
    struct lk__train_node nodes[LK__TRAIN_TREE_DEPTH];
};
void lk__train_tree_begin(struct lk__train_tree *, uint32_t grains);
/* The next node's gradient is in buffer `depth`; steps: which buffers are to be added now (at most LK__TRAIN_TREE_DEPTH);
 * returns how many. When all grains have come, depth is 1. */
uint32_t lk__train_tree_push(struct lk__train_tree *, struct lk__train_node, struct lk_tree_step *steps);
/* What is left of the stack when all of a range has come, in order: the partial sums that it sends. nodes:
 * LK__TRAIN_TREE_DEPTH.
 */
uint32_t lk__train_range_nodes(struct lk__train_range, uint32_t grains, struct lk__train_node *nodes);

/* Which grains each rank gets: bounds (ranks + 1). Of all ways, the one whose slowest rank, max(compute, traffic), is
 * fastest, then the one with the fewest partial sums. grain_seconds: computing one grain; sum_seconds: sending and adding
 * one partial sum. */
int lk__train_share_grains(uint32_t grains, uint32_t ranks, double grain_seconds, double sum_seconds, uint32_t *bounds,
                           struct lk_err *);

#endif
