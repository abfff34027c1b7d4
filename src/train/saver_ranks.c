/* One array of a state written by all ranks: the same bytes, and so the same root, as when one rank writes it. Each writes
 * its own slices of the file; when all have synced, each hashes a share of the leaves; rank 0 puts the root together and
 * names the file. */
#include "saver.h"
#include "shards.h"

#include <string.h>

struct together {
    struct lk_store *store;
    struct lk_comm *comm;
    const struct lk_state *state;
    const float *array;
    bool local;
    struct lk_blob_writer *writer;
    const struct lk__train_region *region; /* while writing */
    int code;                              /* of this rank, to be agreed on */
    struct lk_err *err;
};

static void write_piece(void *arg, const struct lk_tensor *tensor, size_t offset, size_t count, size_t block) {
    struct together *t = arg;
    const struct lk__train_shards *s = t->state->shards;
    size_t packed = lk__train_shards_packed(s->layout, tensor, offset),
           from = t->local ? t->region->local + (offset - t->region->cuts[s->rank]) : offset;
    (void)block;
    if (!t->code)
        t->code = lk_blob_write_at(t->writer, packed * sizeof(float), t->array + from, count * sizeof(float), t->err);
}

static void write_slices(struct together *t) {
    const struct lk__train_shards *s = t->state->shards;
    for (uint32_t i = 0; i < s->region_count && !t->code; i++) {
        t->region = &s->regions[i];
        lk__train_shards_pieces(s->layout, t->region->cuts[s->rank], t->region->cuts[s->rank + 1], write_piece, t);
    }
    if (!t->code) t->code = lk_blob_sync(t->writer, t->err);
}

static int create_or_join(struct together *t, uint64_t size) {
    char name[LK_BLOB_NAME_MAX] = "";
    bool first = lk_comm_rank(t->comm) == 0;
    if (first) t->code = lk_blob_create_sized(t->store->blobs, size, &t->writer, t->err);
    if (first && !t->code) lk_blob_writer_name(t->writer, name);
    if ((t->code = lk_comm_agree(t->comm, "checkpoint's file", t->code, t->err))) return t->code;
    if ((t->code = lk_comm_broadcast(t->comm, "checkpoint's file", name, sizeof name, t->err))) return t->code;
    if (!first) t->code = lk_blob_join(t->store->blobs, name, size, &t->writer, t->err);
    return t->code = lk_comm_agree(t->comm, "checkpoint's file", t->code, t->err);
}

/* This rank's share of the leaves, then everybody's. leaves: (count). offsets: (ranks + 1). */
static int hash_leaves(struct together *t, struct lk_root *leaves, size_t count, size_t *offsets) {
    size_t ranks = (size_t)lk_comm_ranks(t->comm), rank = (size_t)lk_comm_rank(t->comm);
    size_t from = count * rank / ranks, to = count * (rank + 1) / ranks;
    for (size_t k = 0; k <= ranks; k++) offsets[k] = count * k / ranks * sizeof *leaves;
    t->code = lk_blob_leaves(t->writer, from, to - from, leaves + from, t->err);
    if ((t->code = lk_comm_agree(t->comm, "checkpoint's leaves", t->code, t->err))) return t->code;
    return t->code = lk_comm_gather_all(t->comm, "checkpoint's leaves", leaves, offsets, t->err);
}

/* All ranks have the file's writer: each writes, each hashes, rank 0 names it. */
static int write_together(struct together *t, struct lk_root *leaves, size_t count, size_t *offsets, struct lk_root *out) {
    write_slices(t);
    if ((t->code = lk_comm_agree(t->comm, "checkpoint's slices", t->code, t->err))) return t->code;
    if (hash_leaves(t, leaves, count, offsets)) return t->code;
    if (lk_comm_rank(t->comm) == 0) {
        t->code = lk_blob_finish_leaves(t->writer, leaves, out, t->err);
        t->writer = NULL;
    }
    if ((t->code = lk_comm_agree(t->comm, "checkpoint's root", t->code, t->err))) return t->code;
    return t->code = lk_comm_broadcast(t->comm, "checkpoint's root", out, sizeof *out, t->err);
}

int lk__train_put_array_together(struct lk_store *store, struct lk_comm *comm, const struct lk_state *state,
                                 const float *array, bool local, struct lk_root *out, struct lk_err *err) {
    struct together t = {.store = store, .comm = comm, .state = state, .array = array, .local = local, .err = err};
    uint64_t size = state->layout->parameters * sizeof(float);
    size_t count = (size_t)lk_leaf_count(size);
    struct lk_root *leaves = lk_alloc(count * sizeof *leaves);
    size_t *offsets = lk_alloc(((size_t)lk_comm_ranks(comm) + 1) * sizeof *offsets);
    if (!leaves || !offsets) t.code = lk_fail(err, LK_ENOMEM, "no memory for a checkpoint's leaves");
    t.code = lk_comm_agree(comm, "checkpoint", t.code, err);
    if (!t.code && !create_or_join(&t, size)) write_together(&t, leaves, count, offsets, out);
    if (t.writer) lk_blob_abort(t.writer);
    lk_free(leaves);
    lk_free(offsets);
    return t.code;
}
