/* How the grains of a batch are shared among ranks and cut into passes, and the tree over their gradients. None of it
 * changes a bit (docs/numerics.md, section 8; the proof is in README.md). */
#include "units.h"

#include "lockstep/base/mem.h"

/* --- Nodes of the tree: (level, index) covers the grains [index 2^level, (index + 1) 2^level) that there are ------------
 */

static uint64_t node_end(struct lk__train_node n, uint32_t grains) {
    uint64_t end = ((uint64_t)n.index + 1) << n.level;
    return end < grains ? end : grains;
}

/* The largest node that begins at `grain`, ends at or before `end` and has at most `most` grains (at least one is taken).
 */
static struct lk__train_node largest_node(uint32_t grain, uint32_t end, uint32_t most, uint32_t grains) {
    struct lk__train_node n = {0, grain};
    for (;;) {
        struct lk__train_node up = {n.level + 1, n.index / 2};
        if (n.index % 2 || node_end(n, grains) == grains || node_end(up, grains) > end ||
            node_end(up, grains) - grain > most)
            return n;
        n = up;
    }
}

/* --- Units ----------------------------------------------------------------------------------------------- */

int lk__train_units_make(uint32_t sequences, uint32_t grains, struct lk__train_range range, uint32_t micro_batch,
                         struct lk__train_unit **out, uint32_t *count, struct lk_err *err) {
    uint32_t size = sequences / grains, mine = (range.end - range.first) * size, n = 0;
    if (micro_batch == 0 || micro_batch > mine) micro_batch = mine;
    struct lk__train_unit *u = lk_alloc(mine * sizeof *u);
    if (!u) return lk_fail(err, LK_ENOMEM, "no memory for the batch's plan");
    for (uint32_t g = range.first; g < range.end;) {
        struct lk__train_node node = largest_node(g, range.end, micro_batch >= size ? micro_batch / size : 1, grains);
        uint32_t k = (uint32_t)(node_end(node, grains) - g), all = k * size;
        for (uint32_t s = 0; s < all; s += micro_batch) { /* one pass, or several through one grain */
            uint32_t left = all - s < micro_batch ? all - s : micro_batch;
            u[n++] = (struct lk__train_unit){
                .first = g * size + s, .sequences = left, .node = node, .begins = s == 0, .ends = s + left == all};
        }
        g += k;
    }
    *out = u;
    *count = n;
    return LK_OK;
}

/* --- The stack ------------------------------------------------------------------------------------------- */

void lk__train_tree_begin(struct lk__train_tree *t, uint32_t grains) {
    t->depth = 0;
    t->grains = grains;
}

uint32_t lk__train_tree_push(struct lk__train_tree *t, struct lk__train_node node, struct lk_tree_step *steps) {
    uint32_t count = 0;
    LK_ASSERT(t->depth < LK__TRAIN_TREE_DEPTH);
    t->nodes[t->depth++] = node;
    for (;;) {
        struct lk__train_node *b = &t->nodes[t->depth - 1], *a = b - 1;
        if (t->depth < 2) break;
        /* A left child without a right sibling passes through to the level above. */
        while (b->level < a->level && b->index % 2 == 0 && node_end(*b, t->grains) == t->grains)
            *b = (struct lk__train_node){b->level + 1, b->index / 2};
        if (a->level != b->level || a->index % 2 || a->index + 1 != b->index) break;
        *a = (struct lk__train_node){a->level + 1, a->index / 2};
        t->depth--;
        steps[count++] = (struct lk_tree_step){t->depth - 1, t->depth};
    }
    return count;
}

uint32_t lk__train_units_buffers(const struct lk__train_unit *units, uint32_t count, uint32_t grains) {
    struct lk__train_tree t;
    struct lk_tree_step steps[LK__TRAIN_TREE_DEPTH];
    uint32_t most = 1;
    lk__train_tree_begin(&t, grains);
    for (uint32_t i = 0; i < count; i++) {
        if (t.depth + 1 > most) most = t.depth + 1;
        if (units[i].ends) lk__train_tree_push(&t, units[i].node, steps);
    }
    return most;
}

uint32_t lk__train_range_nodes(struct lk__train_range range, uint32_t grains, struct lk__train_node *nodes) {
    uint32_t count = 0;
    for (uint32_t g = range.first; g < range.end; count++) {
        nodes[count] = largest_node(g, range.end, grains, grains);
        g = (uint32_t)node_end(nodes[count], grains);
    }
    return count;
}

/* --- Sharing --------------------------------------------------------------------------------------------- */

/* What a rank with these grains takes: it computes them, and sends and sums its partial sums meanwhile. */
static double cost_of(struct lk__train_range range, uint32_t grains, double grain_seconds, double sum_seconds) {
    struct lk__train_node nodes[LK__TRAIN_TREE_DEPTH];
    double compute = (range.end - range.first) * grain_seconds,
           traffic = lk__train_range_nodes(range, grains, nodes) * sum_seconds;
    return compute > traffic ? compute : traffic;
}

struct cell {
    double cost;   /* of the slowest rank so far; < 0: cannot be */
    uint32_t sums; /* of all ranks so far: among equals, the fewest */
    uint32_t from; /* which boundary before */
};
static bool better(const struct cell *a, const struct cell *b) {
    return b->cost < 0 || a->cost < b->cost || (a->cost == b->cost && a->sums < b->sums);
}

/* Each boundary is looked for among the BOUNDARIES around its even place: enough to reach any whole subtree that helps.
 * Dynamic programming over (ranks so far, boundary). */
#define WINDOW     32
#define BOUNDARIES (2 * WINDOW + 1)

/* The grain of choice `i` for the boundary after `rank` ranks, or -1. */
static int64_t boundary(uint32_t grains, uint32_t ranks, uint32_t rank, uint32_t i) {
    int64_t at = (int64_t)((uint64_t)grains * rank / ranks) + (int64_t)i - WINDOW;
    return at >= rank && at <= (int64_t)(grains - (ranks - rank)) && (rank > 0 || at == 0) ? at : -1;
}

int lk__train_share_grains(uint32_t grains, uint32_t ranks, double grain_seconds, double sum_seconds, uint32_t *bounds,
                           struct lk_err *err) {
    struct lk__train_node nodes[LK__TRAIN_TREE_DEPTH];
    LK_ASSERT(ranks >= 1 && ranks <= grains);
    struct cell(*cells)[BOUNDARIES] = lk_alloc((ranks + 1) * sizeof *cells);
    if (!cells) return lk_fail(err, LK_ENOMEM, "no memory to share %u grains among %u ranks", grains, ranks);
    for (uint32_t r = 0; r <= ranks; r++)
        for (uint32_t i = 0; i < BOUNDARIES; i++) cells[r][i].cost = r ? -1 : boundary(grains, ranks, 0, i);
    for (uint32_t r = 0; r < ranks; r++)
        for (uint32_t i = 0; i < BOUNDARIES; i++)
            for (uint32_t k = 0; k < BOUNDARIES && cells[r][i].cost >= 0; k++) {
                int64_t first = boundary(grains, ranks, r, i), end = boundary(grains, ranks, r + 1, k);
                if (end <= first) continue;
                struct lk__train_range range = {(uint32_t)first, (uint32_t)end};
                double cost = cost_of(range, grains, grain_seconds, sum_seconds);
                struct cell c = {.cost = cost > cells[r][i].cost ? cost : cells[r][i].cost,
                                 .sums = (r ? cells[r][i].sums : 0) + lk__train_range_nodes(range, grains, nodes),
                                 .from = i};
                if (better(&c, &cells[r + 1][k])) cells[r + 1][k] = c;
            }
    uint32_t at = WINDOW; /* the last boundary is the end itself */
    for (uint32_t r = ranks; r > 0; at = cells[r--][at].from) bounds[r] = (uint32_t)boundary(grains, ranks, r, at);
    bounds[0] = 0;
    lk_free(cells);
    return LK_OK;
}
