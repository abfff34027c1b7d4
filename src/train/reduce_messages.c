/* The reduction where ranks see no memory of each other: partial sums, touched rows and weights as messages. Between two
 * ranks they are begun in one order: regions by stage, then places; then rows; then weights. */
#include "reduce_inside.h"

#include <string.h>

struct lk__train_messages {
    float *staging;                /* (foreign partial sums, floats of this rank's slices) */
    uint32_t foreign, first;       /* how many; partials before `first` come before this rank's own */
    struct lk_transfer **receives; /* (regions, foreign) */
    struct lk_transfer **sends;    /* (regions, ranks, mine) */
    struct lk_transfer **others;   /* (regions, ranks, 2): weights; rows use the first ranks * 2 */
    uint32_t *counts;              /* (ranks, ranks): rows from, to */
    size_t *offsets;               /* (ranks + 1) for gathering counts */
    char **row_buffers;            /* (2, ranks): sent, received */
    uint32_t *identity;            /* 0, 1, 2 ... */
    uint32_t identity_count;
};

static size_t slice(const struct lk__train_region *region, int rank) {
    return region->cuts[rank + 1] - region->cuts[rank];
}

static size_t rows_bytes(uint32_t count, uint32_t width) {
    return (size_t)count * (2 * sizeof(uint32_t) + width * sizeof(float));
}

/* Staging for others' partial sums; touched rows that go, at most this rank's, and that come, at most one a token of its
 * slice from each foreign partial sum. */
uint64_t lk__train_messages_bytes(const struct lk__train_shards *s, uint32_t partials, uint32_t mine, size_t tokens) {
    const struct lk__train_region *table = &s->regions[0];
    uint64_t foreign = partials - mine, width = s->layout->config.width, rows = slice(table, s->rank) / width + 2;
    return foreign * s->floats * sizeof(float) + rows_bytes(1, (uint32_t)width) * (tokens + foreign * rows);
}

int lk__train_messages_open(struct lk__train_reduce *r, struct lk_err *err) {
    struct lk__train_messages *m = r->messages = lk_calloc(1, sizeof *m);
    size_t regions = r->shards->region_count, ranks = (size_t)r->ranks;
    if (!m) return lk_fail(err, LK_ENOMEM, "no memory for messages");
    m->foreign = r->partial_count - r->mine;
    while (m->first < r->partial_count && r->partials[m->first].rank < r->rank) m->first++;
    m->staging = lk_alloc(m->foreign * r->shards->floats * sizeof(float));
    m->receives = lk_calloc(regions * m->foreign, sizeof *m->receives);
    m->sends = lk_calloc(regions * ranks * r->mine, sizeof *m->sends);
    m->others = lk_calloc((regions + 1) * ranks * 2, sizeof *m->others);
    m->counts = lk_calloc(ranks * ranks, sizeof *m->counts);
    m->offsets = lk_alloc((ranks + 1) * sizeof *m->offsets);
    m->row_buffers = lk_calloc(2 * ranks, sizeof *m->row_buffers);
    if (!m->staging || !m->receives || !m->sends || !m->others || !m->counts || !m->offsets || !m->row_buffers)
        return lk_fail(err, LK_ENOMEM, "no memory for messages of gradients (%zu MB)",
                       m->foreign * r->shards->floats * sizeof(float) / 1000000);
    for (size_t k = 0; k <= ranks; k++) m->offsets[k] = k * ranks * sizeof *m->counts;
    return LK_OK;
}

static void free_rows(struct lk__train_messages *m, int ranks) {
    for (int i = 0; m->row_buffers && i < 2 * ranks; i++) {
        lk_free(m->row_buffers[i]);
        m->row_buffers[i] = NULL;
    }
}

void lk__train_messages_close(struct lk__train_messages *m, int ranks) {
    if (!m) return;
    free_rows(m, ranks);
    lk_free(m->staging);
    lk_free(m->receives);
    lk_free(m->sends);
    lk_free(m->others);
    lk_free(m->counts);
    lk_free(m->offsets);
    lk_free(m->row_buffers);
    lk_free(m->identity);
    lk_free(m);
}

static int wait_all(struct lk__train_reduce *r, struct lk_transfer **list, size_t count, struct lk_err *err) {
    int code = LK_OK;
    for (size_t i = 0; i < count && !code; i++)
        if (list[i]) code = lk_comm_test(r->comm, &list[i], true, err);
    return code;
}

/* --- Partial sums ---------------------------------------------------------------------------------------- */

const float *lk__train_messages_slice(const struct lk__train_reduce *r, uint32_t region, uint32_t partial) {
    const struct lk__train_messages *m = r->messages;
    uint32_t foreign = partial < m->first ? partial : partial - r->mine;
    return m->staging + foreign * r->shards->floats + r->shards->regions[region].local;
}

int lk__train_messages_start(struct lk__train_reduce *r, uint32_t index, struct lk_err *err) {
    struct lk__train_messages *m = r->messages;
    const struct lk__train_region *region = &r->shards->regions[index];
    int code = LK_OK;
    if (!region->dense) return LK_OK;
    for (uint32_t i = 0; i < r->partial_count && !code; i++) {
        const struct lk__train_partial *p = &r->partials[i];
        if (p->rank == r->rank || !slice(region, r->rank)) continue;
        uint32_t foreign = i < m->first ? i : i - r->mine;
        code = lk_comm_receive(r->comm, "partial sums", p->rank, (float *)lk__train_messages_slice(r, index, i),
                               slice(region, r->rank) * sizeof(float), &m->receives[index * m->foreign + foreign], err);
    }
    for (int k = 0; k < r->ranks && !code; k++)
        for (uint32_t i = 0; i < r->mine && k != r->rank && slice(region, k) && !code; i++)
            code = lk_comm_send(r->comm, "partial sums", k, r->own[i] + region->cuts[k], slice(region, k) * sizeof(float),
                                &m->sends[(index * (size_t)r->ranks + (size_t)k) * r->mine + i], err);
    return code;
}

int lk__train_messages_arrived(struct lk__train_reduce *r, uint32_t index, bool wait, bool *arrived, struct lk_err *err) {
    struct lk__train_messages *m = r->messages;
    struct lk_transfer **list = m->receives + index * m->foreign;
    *arrived = true;
    for (uint32_t i = 0; i < m->foreign; i++) {
        int code = list[i] ? lk_comm_test(r->comm, &list[i], wait, err) : LK_OK;
        if (code) return code;
        if (list[i]) *arrived = false;
    }
    return LK_OK;
}

int lk__train_messages_finish(struct lk__train_reduce *r, struct lk_err *err) {
    struct lk__train_messages *m = r->messages;
    size_t regions = r->shards->region_count, ranks = (size_t)r->ranks;
    int code = wait_all(r, m->sends, regions * ranks * r->mine, err);
    if (!code) code = wait_all(r, m->others, 2 * ranks, err);
    free_rows(m, r->ranks);
    return code;
}

/* --- Touched rows ----------------------------------------------------------------------------------------
 * A message has tokens, grains, then whole rows, even where a slice has only a part of the first and the last one. */

/* Rows of `mine` that belong to rank k's slice of the table: [*from, *to). */
static void rows_of(const struct lk__train_reduce *r, const struct lk_embedding_rows *mine, int k, uint32_t *from,
                    uint32_t *to) {
    const struct lk__train_region *table = &r->shards->regions[0];
    uint32_t width = r->shards->layout->config.width;
    size_t begin = table->cuts[k] - table->begin, end = table->cuts[k + 1] - table->begin;
    *from = *to = 0;
    if (begin == end) return;
    *from = lk_embedding_rows_find(mine, (uint32_t)(begin / width));
    *to = lk_embedding_rows_find(mine, (uint32_t)((end - 1) / width + 1));
}

static void pack_rows(const struct lk_embedding_rows *mine, uint32_t from, uint32_t count, uint32_t width, char *out) {
    memcpy(out, mine->tokens + from, count * sizeof(uint32_t));
    memcpy(out + count * sizeof(uint32_t), mine->grains + from, count * sizeof(uint32_t));
    char *sums = out + 2 * count * sizeof(uint32_t);
    for (uint32_t i = 0; i < count; i++)
        memcpy(sums + (size_t)i * width * sizeof(float), mine->sums + (size_t)mine->index[from + i] * width,
               width * sizeof(float));
}

/* Memory for all that comes and goes; index i of a received row is i. */
static int take_rows(struct lk__train_reduce *r, struct lk_err *err) {
    struct lk__train_messages *m = r->messages;
    uint32_t width = r->shards->layout->config.width, most = 0;
    for (int k = 0; k < r->ranks; k++) {
        uint32_t out = m->counts[r->rank * r->ranks + k], in = m->counts[k * r->ranks + r->rank];
        if (k == r->rank) continue;
        m->row_buffers[k] = lk_alloc(rows_bytes(out, width));
        m->row_buffers[r->ranks + k] = lk_alloc(rows_bytes(in, width));
        if (!m->row_buffers[k] || !m->row_buffers[r->ranks + k])
            return lk_fail(err, LK_ENOMEM, "no memory for touched rows");
        if (in > most) most = in;
    }
    if (most <= m->identity_count) return LK_OK;
    lk_free(m->identity);
    m->identity = lk_alloc(most * sizeof *m->identity);
    m->identity_count = m->identity ? most : 0;
    for (uint32_t i = 0; i < m->identity_count; i++) m->identity[i] = i;
    return m->identity ? LK_OK : lk_fail(err, LK_ENOMEM, "no memory for touched rows");
}

int lk__train_messages_rows(struct lk__train_reduce *r, const struct lk_embedding_rows *mine, struct lk_err *err) {
    struct lk__train_messages *m = r->messages;
    uint32_t width = r->shards->layout->config.width, from, to;
    free_rows(m, r->ranks);
    for (int k = 0; k < r->ranks; k++) {
        rows_of(r, mine, k, &from, &to);
        m->counts[r->rank * r->ranks + k] = to - from;
    }
    int code = lk_comm_gather_all(r->comm, "numbers of touched rows", m->counts, m->offsets, err);
    if (code) return code;
    if ((code = lk_comm_agree(r->comm, "touched rows", take_rows(r, err), err))) return code;
    for (int k = 0; k < r->ranks && !code; k++) {
        uint32_t in = m->counts[k * r->ranks + r->rank];
        char *buffer = m->row_buffers[r->ranks + k];
        if (k == r->rank) continue;
        r->rows[k] = (struct lk_embedding_rows){.count = in,
                                                .tokens = (uint32_t *)(void *)buffer,
                                                .grains = (uint32_t *)(void *)buffer + in,
                                                .index = m->identity,
                                                .sums = (float *)(void *)buffer + 2 * in};
        if (in) code = lk_comm_receive(r->comm, "touched rows", k, buffer, rows_bytes(in, width), &m->others[2 * k], err);
    }
    for (int k = 0; k < r->ranks && !code; k++) {
        uint32_t out = m->counts[r->rank * r->ranks + k];
        if (k == r->rank || !out) continue;
        rows_of(r, mine, k, &from, &to);
        pack_rows(mine, from, out, width, m->row_buffers[k]);
        code =
            lk_comm_send(r->comm, "touched rows", k, m->row_buffers[k], rows_bytes(out, width), &m->others[2 * k + 1], err);
    }
    for (int k = 0; k < r->ranks && !code; k++) code = wait_all(r, &m->others[2 * k], 1, err);
    return code;
}

/* --- Weights --------------------------------------------------------------------------------------------- */

int lk__train_messages_weights(struct lk__train_reduce *r, struct lk_err *err) {
    struct lk__train_messages *m = r->messages;
    size_t ranks = (size_t)r->ranks;
    int code = LK_OK;
    for (uint32_t i = 0; i < r->shards->region_count; i++) {
        const struct lk__train_region *region = &r->shards->regions[i];
        for (int k = 0; k < r->ranks && !code; k++) {
            struct lk_transfer **pair = &m->others[(i * ranks + (size_t)k) * 2];
            if (k == r->rank) continue;
            if (slice(region, k))
                code = lk_comm_receive(r->comm, "weights", k, r->weights + region->cuts[k],
                                       slice(region, k) * sizeof(float), &pair[0], err);
            if (!code && slice(region, r->rank))
                code = lk_comm_send(r->comm, "weights", k, r->weights + region->cuts[r->rank],
                                    slice(region, r->rank) * sizeof(float), &pair[1], err);
        }
    }
    return code ? code : wait_all(r, m->others, r->shards->region_count * ranks * 2, err);
}
