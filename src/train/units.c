/* How a batch is cut into passes, and the tree over their gradients. Neither changes a bit (docs/numerics.md, section 8).
 */
#include "engine.h"

int lk__units_make(uint32_t sequences, uint32_t grains, uint32_t micro_batch, struct lk__unit **out, uint32_t *count,
                   struct lk_err *err) {
    uint32_t size = sequences / grains, n = 0;
    if (micro_batch == 0 || micro_batch > sequences) micro_batch = sequences;
    struct lk__unit *u = lk_alloc(sequences * sizeof *u);
    if (!u) return lk_fail(err, LK_ENOMEM, "no memory for the batch's plan");
    if (micro_batch == sequences) {
        u[n++] = (struct lk__unit){.sequences = sequences, .grains = grains, .begins = true, .ends = true};
    } else if (micro_batch >= size) { /* the largest whole node of the tree that fits, from left to right */
        for (uint32_t g = 0; g < grains;) {
            uint32_t k = 1;
            while (g % (2 * k) == 0 && g + 2 * k <= grains && 2 * k <= micro_batch / size) k *= 2;
            u[n++] = (struct lk__unit){
                .first = g * size, .sequences = k * size, .grain = g, .grains = k, .begins = true, .ends = true};
            g += k;
        }
    } else {
        for (uint32_t g = 0; g < grains; g++)
            for (uint32_t s = 0; s < size; s += micro_batch) {
                uint32_t left = size - s < micro_batch ? size - s : micro_batch;
                u[n++] = (struct lk__unit){.first = g * size + s,
                                           .sequences = left,
                                           .grain = g,
                                           .grains = 1,
                                           .begins = s == 0,
                                           .ends = s + left == size};
            }
    }
    *out = u;
    *count = n;
    return LK_OK;
}

void lk__tree_begin(struct lk__tree *t) {
    t->depth = 0;
}

float *lk__tree_top(const struct lk__tree *t) {
    return t->buffers[t->depth];
}

/* Records a node and merges complete pairs; returns how often the two topmost buffers are to be added. */
static uint32_t push(struct lk__tree *t, uint32_t grain, uint32_t grains) {
    uint32_t level = 0, merges = 0;
    while ((2u << level) <= grains) level++;
    t->level[t->depth] = level;
    t->index[t->depth++] = grain >> level;
    while (t->depth > 1) {
        uint32_t a = t->depth - 2, b = t->depth - 1;
        if (t->level[a] != t->level[b] || t->index[a] % 2 || t->index[a] + 1 != t->index[b]) break;
        t->level[a]++;
        t->index[a] /= 2;
        t->depth--;
        merges++;
    }
    return merges;
}

uint32_t lk__units_buffers(const struct lk__unit *units, uint32_t count) {
    struct lk__tree t = {0};
    uint32_t most = 1;
    for (uint32_t i = 0; i < count; i++) {
        if (t.depth + 1 > most) most = t.depth + 1;
        if (units[i].ends) push(&t, units[i].grain, units[i].grains);
    }
    return most;
}

void lk__tree_push(struct lk__tree *t, struct lk_math *math, size_t floats, uint32_t grain, uint32_t grains) {
    uint32_t top = t->depth, merges = push(t, grain, grains);
    for (; merges > 0; merges--, top--) lk_add(math, floats, t->buffers[top - 1], t->buffers[top], t->buffers[top - 1]);
}

void lk__tree_finish(struct lk__tree *t, struct lk_math *math, size_t floats) {
    for (; t->depth > 1;
         t->depth--) /* a missing right child passes the left one up, so what is left joins from the right */
        lk_add(math, floats, t->buffers[t->depth - 2], t->buffers[t->depth - 1], t->buffers[t->depth - 2]);
}
