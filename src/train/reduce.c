/* The sum of all ranks' gradients: a reduce-scatter that keeps the grains' tree. Each rank keeps its partial sums (nodes of
 * the tree) where they are; the owner of a slice adds all ranks' partial sums of it in the tree's order, as soon as a stage
 * of the backward pass is complete everywhere. On one machine it reads them in the other ranks' memory, otherwise from
 * messages. Weights are gathered (or, in shared memory, simply there) after the update. Why no bit depends on any of it:
 * README.md. */
#include "reduce_inside.h"

#include <string.h>

/* --- Opening --------------------------------------------------------------------------------------------- */

static int list_partials(struct lk__train_reduce *r, uint32_t grains, const uint32_t *bounds, struct lk_err *err) {
    struct lk__train_node nodes[LK__TRAIN_TREE_DEPTH];
    struct lk__train_tree tree;
    struct lk_tree_step steps[LK__TRAIN_TREE_DEPTH];
    uint32_t count = 0, made = 0;
    for (int k = 0; k < r->ranks; k++)
        count += lk__train_range_nodes((struct lk__train_range){bounds[k], bounds[k + 1]}, grains, nodes);
    if (count > LK_TREE_SOURCES)
        return lk_fail(err, LK_EUNSUPPORTED, "%d ranks make %u partial sums of %u grains, more than %d", r->ranks, count,
                       grains, LK_TREE_SOURCES);
    r->partials = lk_alloc(count * sizeof *r->partials);
    r->steps = lk_alloc(count * sizeof *r->steps);
    r->sources = lk_alloc(count * sizeof *r->sources);
    if (!r->partials || !r->steps || !r->sources) return lk_fail(err, LK_ENOMEM, "no memory for the plan of the reduction");
    lk__train_tree_begin(&tree, grains);
    for (int k = 0; k < r->ranks; k++) {
        uint32_t n = lk__train_range_nodes((struct lk__train_range){bounds[k], bounds[k + 1]}, grains, nodes);
        for (uint32_t i = 0; i < n; i++) {
            r->partials[r->partial_count++] = (struct lk__train_partial){k, i};
            uint32_t adds = lk__train_tree_push(&tree, nodes[i], steps);
            memcpy(r->steps + made, steps, adds * sizeof *steps);
            made += adds;
        }
        if (k == r->rank) r->mine = n;
    }
    LK_ASSERT(tree.depth == 1 && made + 1 == count);
    return LK_OK;
}

static void add_blocks(void *arg, const struct lk_tensor *tensor, size_t offset, size_t count, size_t block) {
    struct lk__train_reduce *r = arg;
    (void)tensor, (void)offset;
    for (size_t i = 0; i * LK_BLOCK < count; i++) r->packed[r->packed_at[r->ranks]++] = (uint32_t)(block + i);
}

/* Blocks in the order in which gathering brings them: rank by rank, region by region. */
static int list_blocks(struct lk__train_reduce *r, struct lk_err *err) {
    const struct lk__train_shards *s = r->shards;
    r->packed = lk_alloc(s->blocks * sizeof *r->packed);
    r->packed_squares = lk_alloc(s->blocks * sizeof *r->packed_squares);
    r->packed_at = lk_calloc((size_t)r->ranks + 1, sizeof *r->packed_at);
    r->order = lk_alloc(s->region_count * sizeof *r->order);
    if (!r->packed || !r->packed_squares || !r->packed_at || !r->order)
        return lk_fail(err, LK_ENOMEM, "no memory for the plan of the reduction");
    for (int k = 0; k < r->ranks; k++) {
        r->packed_at[k] = r->packed_at[r->ranks];
        for (uint32_t i = 0; i < s->region_count; i++)
            lk__train_shards_pieces(s->layout, s->regions[i].cuts[k], s->regions[i].cuts[k + 1], add_blocks, r);
    }
    LK_ASSERT(r->packed_at[r->ranks] == s->blocks);
    uint32_t n = 0;
    for (uint32_t stage = 0; stage < s->stages; stage++)
        for (uint32_t i = 0; i < s->region_count; i++)
            if (s->regions[i].stage == stage) r->order[n++] = i;
    LK_ASSERT(n == s->region_count);
    return LK_OK;
}

static size_t rows_offset(const struct lk__train_reduce *r, int rank) {
    return r->sizes[rank].buffers * r->shards->layout->floats * sizeof(float);
}
static size_t memory_bytes(const struct lk__train_reduce *r, int rank) {
    return rows_offset(r, rank) + lk_embedding_rows_bytes(r->shards->layout->config.width, r->sizes[rank].tokens);
}

/* Memory that all see, where that is possible, else this rank's own. */
static int take_memory(struct lk__train_reduce *r, struct lk_err *err) {
    const struct lk_layout *l = r->shards->layout;
    size_t weights = l->floats * sizeof(float);
    int code = lk_comm_share(r->comm, "weights", r->rank == 0 ? weights : 1, &r->weights_memory, err);
    if (code == LK_OK) {
        r->shared = true;
        r->weights = r->weights_memory.all[0];
        code = lk_comm_share(r->comm, "gradients", memory_bytes(r, r->rank), &r->memory, err);
    } else if (code == LK_EUNSUPPORTED) {
        r->weights = lk_calloc(1, weights);
        r->memory.mine = lk_calloc(1, memory_bytes(r, r->rank));
        code = r->weights && r->memory.mine ? lk__train_messages_open(r, err)
                                            : lk_fail(err, LK_ENOMEM, "no memory for gradients");
    }
    if (code) return lk_fail_prefix(err, code, "%u gradient buffers and weights of %zu MB", r->buffers, weights / 1000000);
    for (uint32_t i = 0; i < r->buffers; i++) r->own[i] = (float *)r->memory.mine + i * l->floats;
    return LK_OK;
}

int lk__train_reduce_open(struct lk_comm *comm, struct lk_math *math, const struct lk__train_shards *shards,
                          uint32_t grains, const uint32_t *bounds, uint32_t buffers, size_t tokens,
                          struct lk__train_reduce **out, struct lk_err *err) {
    struct lk__train_reduce *r = lk_calloc(1, sizeof *r);
    size_t ranks = (size_t)shards->ranks;
    if (r) {
        *r = (struct lk__train_reduce){
            .comm = comm, .math = math, .shards = shards, .rank = shards->rank, .ranks = shards->ranks, .buffers = buffers};
        r->own = lk_alloc(buffers * sizeof *r->own);
        r->sizes = lk_calloc(ranks, sizeof *r->sizes);
        r->rows = lk_calloc(ranks, sizeof *r->rows);
    }
    int code = r && r->own && r->sizes && r->rows ? LK_OK : lk_fail(err, LK_ENOMEM, "no memory for the reduction");
    if (!code) code = list_partials(r, grains, bounds, err);
    if (!code) code = list_blocks(r, err);
    code = lk_comm_agree(comm, "opening the reduction", code, err);
    if (!code) {
        size_t offsets[LK_RANKS_MAX + 1];
        for (size_t k = 0; k <= ranks; k++) offsets[k] = k * sizeof *r->sizes;
        r->sizes[r->rank].buffers = buffers;
        r->sizes[r->rank].tokens = tokens;
        code = lk_comm_gather_all(comm, "sizes of gradients", r->sizes, offsets, err);
        if (!code) code = take_memory(r, err);
        code = lk_comm_agree(comm, "memory for gradients", code, err);
    }
    if (code) {
        lk__train_reduce_close(r);
        return code;
    }
    *out = r;
    return LK_OK;
}

void lk__train_reduce_close(struct lk__train_reduce *r) {
    if (!r) return;
    lk__train_messages_close(r->messages, r->ranks);
    if (r->shared) {
        if (r->memory.mine) lk_comm_unshare(r->comm, &r->memory);
        lk_comm_unshare(r->comm, &r->weights_memory);
    } else {
        lk_free(r->weights);
        lk_free(r->memory.mine);
    }
    lk_free(r->own);
    lk_free(r->sizes);
    lk_free(r->rows);
    lk_free(r->partials);
    lk_free(r->steps);
    lk_free(r->sources);
    lk_free(r->packed);
    lk_free(r->packed_squares);
    lk_free(r->packed_at);
    lk_free(r->order);
    lk_free(r);
}

bool lk__train_reduce_shared(const struct lk__train_reduce *r) {
    return r->shared;
}
float *lk__train_reduce_weights(struct lk__train_reduce *r) {
    return r->weights;
}
float **lk__train_reduce_buffers(struct lk__train_reduce *r) {
    return r->own;
}
void *lk__train_reduce_embedding_rows(struct lk__train_reduce *r) {
    return (char *)r->memory.mine + rows_offset(r, r->rank);
}

/* --- One region ------------------------------------------------------------------------------------------ */

struct summing {
    struct lk__train_reduce *r;
    uint32_t region;
    bool squares;
};

static void sum_piece(void *arg, const struct lk_tensor *tensor, size_t offset, size_t count, size_t block) {
    struct summing *s = arg;
    struct lk__train_reduce *r = s->r;
    const struct lk__train_region *region = &r->shards->regions[s->region];
    (void)tensor;
    for (uint32_t i = 0; i < r->partial_count; i++) {
        const struct lk__train_partial *p = &r->partials[i];
        if (p->rank == r->rank)
            r->sources[i] = r->own[p->place] + offset;
        else if (r->shared)
            r->sources[i] = (const float *)r->memory.all[p->rank] + p->place * r->shards->layout->floats + offset;
        else
            r->sources[i] = lk__train_messages_slice(r, s->region, i) + (offset - region->cuts[r->rank]);
    }
    lk_tree_add(r->math, count, r->sources, r->partial_count, r->steps, r->own[0] + offset,
                s->squares ? r->squares + block : NULL);
}

static void sum_region(struct lk__train_reduce *r, uint32_t index) {
    const struct lk__train_region *region = &r->shards->regions[index];
    struct summing s = {r, index, !region->embedding};
    if (region->dense)
        lk__train_shards_pieces(r->shards->layout, region->cuts[r->rank], region->cuts[r->rank + 1], sum_piece, &s);
}

static int is_here(struct lk__train_reduce *r, uint32_t index, bool wait, bool *here, struct lk_err *err) {
    const struct lk__train_region *region = &r->shards->regions[index];
    *here = true;
    if (!region->dense) return LK_OK;
    if (r->messages) return lk__train_messages_arrived(r, index, wait, here, err);
    uint64_t mark = r->begun + 1 + region->stage;
    for (int k = 0; k < r->ranks && *here; k++) {
        if (k == r->rank) continue;
        if (wait) {
            int code = lk_comm_wait_mark(r->comm, "partial sums", k, mark, err);
            if (code) return code;
        } else
            *here = lk_comm_marked(r->comm, k) >= mark;
    }
    return LK_OK;
}

/* Sums what is complete everywhere; wait: all that was started. */
static int advance(struct lk__train_reduce *r, bool wait, struct lk_err *err) {
    bool here = true;
    while (r->summed < r->started) {
        int code = is_here(r, r->order[r->summed], wait, &here, err);
        if (code) return code;
        if (!here) break;
        sum_region(r, r->order[r->summed++]);
    }
    return LK_OK;
}

/* --- A step ---------------------------------------------------------------------------------------------- */

void lk__train_reduce_begin(struct lk__train_reduce *r, double *block_squares) {
    r->squares = block_squares;
    r->started = r->summed = 0;
}

int lk__train_reduce_stage_done(struct lk__train_reduce *r, uint32_t stage, struct lk_err *err) {
    const struct lk__train_shards *s = r->shards;
    if (!r->messages) lk_comm_mark(r->comm, r->begun + 1 + stage);
    for (; r->started < s->region_count && s->regions[r->order[r->started]].stage == stage; r->started++) {
        int code = r->messages ? lk__train_messages_start(r, r->order[r->started], err) : LK_OK;
        if (code) return code;
    }
    return advance(r, false, err);
}

static void square_piece(void *arg, const struct lk_tensor *tensor, size_t offset, size_t count, size_t block) {
    struct lk__train_reduce *r = arg;
    (void)tensor;
    lk_block_squares(r->math, count, r->own[0] + offset, r->squares + block);
}

/* The rows that tokens touched, from all ranks, onto this rank's slice of the table. */
static int finish_table(struct lk__train_reduce *r, const struct lk_embedding_rows *mine, struct lk_err *err) {
    const struct lk_layout *l = r->shards->layout;
    const struct lk__train_region *table = &r->shards->regions[0];
    size_t begin = table->cuts[r->rank], end = table->cuts[r->rank + 1], elements = l->tensors[l->embedding].count;
    LK_ASSERT(table->embedding && table->begin == l->tensors[l->embedding].offset);
    r->rows[r->rank] = *mine;
    if (r->messages) {
        int code = lk__train_messages_rows(r, mine, err);
        if (code) return code;
    } else {
        uint64_t mark = r->begun + 1 + r->shards->stages;
        lk_comm_mark(r->comm, mark);
        for (int k = 0; k < r->ranks; k++) {
            int code = k == r->rank ? LK_OK : lk_comm_wait_mark(r->comm, "touched rows", k, mark, err);
            if (code) return code;
            if (k == r->rank) continue;
            r->rows[k] =
                lk_embedding_rows_at((char *)r->memory.all[k] + rows_offset(r, k), l->config.width, r->sizes[k].tokens);
        }
    }
    if (end > table->begin + elements) end = table->begin + elements;
    if (begin < end)
        lk_embedding_rows_finish(r->math, l->config.width, r->rows, (size_t)r->ranks, begin - table->begin, end - begin,
                                 table->dense, r->own[0] + table->begin);
    lk__train_shards_pieces(l, begin, end, square_piece, r);
    return LK_OK;
}

/* Also the step's fence: whoever is past it knows that all have read what they wanted of its buffers and rows, and may
 * write there again. */
static int gather_squares(struct lk__train_reduce *r, struct lk_err *err) {
    size_t bytes[LK_RANKS_MAX + 1];
    if (r->ranks == 1) return LK_OK;
    for (int k = 0; k <= r->ranks; k++) bytes[k] = r->packed_at[k] * sizeof(double);
    for (size_t i = r->packed_at[r->rank]; i < r->packed_at[r->rank + 1]; i++)
        r->packed_squares[i] = r->squares[r->packed[i]];
    int code = lk_comm_gather_all(r->comm, "squares of gradients", r->packed_squares, bytes, err);
    for (size_t i = 0; i < r->packed_at[r->ranks] && !code; i++) r->squares[r->packed[i]] = r->packed_squares[i];
    return code;
}

int lk__train_reduce_finish(struct lk__train_reduce *r, const struct lk_embedding_rows *rows, struct lk_err *err) {
    LK_ASSERT(r->started == r->shards->region_count);
    int code = advance(r, true, err);
    if (!code) code = finish_table(r, rows, err);
    if (!code) code = gather_squares(r, err);
    if (!code && r->messages) code = lk__train_messages_finish(r, err);
    r->begun += 2 + r->shards->stages;
    return code;
}

int lk__train_reduce_weights_ready(struct lk__train_reduce *r, struct lk_err *err) {
    return r->messages ? lk__train_messages_weights(r, err) : lk_comm_barrier(r->comm, "weights", err);
}

void lk__train_reduce_bytes(const struct lk__train_shards *s, bool shared, uint32_t grains, const uint32_t *bounds,
                            uint32_t buffers, size_t tokens, uint64_t *weights, uint64_t *gradients) {
    struct lk__train_node nodes[LK__TRAIN_TREE_DEPTH];
    uint64_t array = s->layout->floats * sizeof(float);
    uint32_t all = 0, mine = 0;
    for (int k = 0; k < s->ranks; k++) {
        uint32_t n = lk__train_range_nodes((struct lk__train_range){bounds[k], bounds[k + 1]}, grains, nodes);
        all += n;
        if (k == s->rank) mine = n;
    }
    *weights = shared ? array / (uint64_t)s->ranks : array;
    *gradients = buffers * array + (shared ? 0 : lk__train_messages_bytes(s, all, mine, tokens));
}
