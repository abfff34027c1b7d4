/* Which rank sums and updates which elements: slices of regions, on the boundaries of blocks (ZeRO, Rajbhandari et al.
 * 2020, stage 1). Nothing here changes a bit: every element is summed, scaled and updated by exactly one rank, in the
 * contract's order. */
#include "shards.h"

static size_t blocks_of(const struct lk_tensor *t) {
    return (t->count + LK_BLOCK - 1) / LK_BLOCK;
}

/* The boundary of a block that is nearest to `target`, within the region [begin, end) of tensors first .. last. */
static size_t nearest_cut(const struct lk_layout *l, size_t first, size_t last, size_t end, size_t target) {
    size_t i = first;
    while (i < last && l->tensors[i + 1].offset <= target) i++;
    const struct lk_tensor *t = &l->tensors[i];
    size_t block = (target - t->offset + LK_BLOCK / 2) / LK_BLOCK;
    if (block < blocks_of(t)) return t->offset + block * LK_BLOCK;
    return i < last ? l->tensors[i + 1].offset : end;
}

struct maker {
    struct lk__train_shards *s;
    size_t *cuts; /* of the next region */
};

/* The region of tensors first .. last, cut into slices of nearly equal size. */
static struct lk__train_region *add_region(struct maker *m, size_t first, size_t last, uint32_t stage) {
    struct lk__train_shards *s = m->s;
    const struct lk_layout *l = s->layout;
    struct lk__train_region *r = &s->regions[s->region_count++];
    *r = (struct lk__train_region){.begin = l->tensors[first].offset,
                                   .end = last + 1 < l->tensor_count ? l->tensors[last + 1].offset : l->floats,
                                   .stage = stage,
                                   .dense = true,
                                   .cuts = m->cuts,
                                   .local = s->floats};
    size_t floats = r->end - r->begin, ranks = (size_t)s->ranks;
    m->cuts[0] = r->begin;
    for (size_t k = 1; k < ranks; k++) {
        size_t cut = nearest_cut(l, first, last, r->end, r->begin + floats / ranks * k + floats % ranks * k / ranks);
        m->cuts[k] = cut > m->cuts[k - 1] ? cut : m->cuts[k - 1];
    }
    m->cuts[ranks] = r->end;
    s->floats += r->cuts[s->rank + 1] - r->cuts[s->rank];
    for (size_t i = first; i <= last; i++) s->blocks += blocks_of(&l->tensors[i]);
    m->cuts += ranks + 1;
    return r;
}

int lk__train_shards_init(struct lk__train_shards *s, const struct lk_layout *l, int rank, int ranks, struct lk_err *err) {
    uint32_t layers = l->config.layers;
    *s = (struct lk__train_shards){.layout = l, .rank = rank, .ranks = ranks, .stages = layers + 2};
    s->regions = lk_calloc(layers + 3, sizeof *s->regions);
    s->cuts = lk_calloc((size_t)(layers + 3) * (size_t)(ranks + 1), sizeof *s->cuts);
    if (!s->regions || !s->cuts) {
        lk__train_shards_release(s);
        return lk_fail(err, LK_ENOMEM, "no memory for the shards of %d ranks", ranks);
    }
    struct maker m = {s, s->cuts};
    struct lk__train_region *table = add_region(&m, (size_t)l->embedding, (size_t)l->embedding, 0);
    table->embedding = true;
    table->dense = l->head < 0;
    if (l->positions >= 0) add_region(&m, (size_t)l->positions, (size_t)l->positions, layers + 1);
    for (uint32_t i = 0; i < layers; i++) {
        int next = i + 1 < layers ? l->layers[i + 1].norm1 : l->norm;
        add_region(&m, (size_t)l->layers[i].norm1, (size_t)next - 1, layers - i);
    }
    add_region(&m, (size_t)l->norm, l->tensor_count - 1, 0);
    LK_ASSERT(s->regions[s->region_count - 1].end == l->floats && s->regions[0].begin == 0);
    return LK_OK;
}

void lk__train_shards_release(struct lk__train_shards *s) {
    lk_free(s->regions);
    lk_free(s->cuts);
    *s = (struct lk__train_shards){0};
}

void lk__train_shards_pieces(const struct lk_layout *l, size_t begin, size_t end, lk__train_piece_fn *fn, void *arg) {
    size_t block = 0;
    for (size_t i = 0; i < l->tensor_count; block += blocks_of(&l->tensors[i++])) {
        const struct lk_tensor *t = &l->tensors[i];
        size_t from = t->offset > begin ? t->offset : begin, to = t->offset + t->count < end ? t->offset + t->count : end;
        if (from < to) fn(arg, t, from, to - from, block + (from - t->offset) / LK_BLOCK);
    }
}

size_t lk__train_shards_packed(const struct lk_layout *l, const struct lk_tensor *tensor, size_t offset) {
    size_t packed = offset - tensor->offset;
    for (const struct lk_tensor *t = l->tensors; t < tensor; t++) packed += t->count;
    return packed;
}
