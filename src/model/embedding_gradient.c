/* The embedding table's gradient, kept as touched rows: one row for each (grain, token) of a batch, at most as many as
 * tokens. docs/numerics.md sections 3 and 8: a row is the sum over the grain's sequences and their segments of chains of
 * dx; absent rows are +0, so the tree over grains may skip them (no row can be -0: every total starts at +0). */
#include "lockstep/model.h"

#include <string.h>

#define SEGMENT 512
#define NONE    UINT32_MAX

struct row {
    uint32_t grain, token;
    uint32_t first, last; /* positions of the current call, linked through next */
    uint32_t sibling;     /* next row of the same token, grains ascending */
};

struct lk_embedding_gradient {
    uint32_t vocab, width;
    size_t capacity; /* rows, and positions of one call */
    float *sums;     /* (capacity, width) */
    struct row *rows;
    uint32_t row_count;
    uint32_t *newest;                 /* by token: its row of the highest grain, or NONE */
    uint32_t *oldest;                 /* by token: its row of the lowest grain, or NONE */
    uint32_t *next;                   /* by position of the current call */
    uint32_t *touched, touched_count; /* rows of the current call */
    const float *dx;                  /* of the current call */
    uint32_t positions;
    bool add;
    float *table;
};

size_t lk_embedding_gradient_bytes(uint32_t vocab, uint32_t width, size_t tokens) {
    return sizeof(struct lk_embedding_gradient) + tokens * ((size_t)width * 4 + sizeof(struct row) + 8) + (size_t)vocab * 8;
}

int lk_embedding_gradient_create(uint32_t vocab, uint32_t width, size_t tokens, struct lk_embedding_gradient **out,
                                 struct lk_err *err) {
    struct lk_embedding_gradient *e = lk_calloc(1, sizeof *e);
    if (e) {
        e->vocab = vocab;
        e->width = width;
        e->capacity = tokens;
        e->sums = lk_alloc(tokens * width * sizeof(float));
        e->rows = lk_alloc(tokens * sizeof *e->rows);
        e->newest = lk_alloc(vocab * sizeof(uint32_t));
        e->oldest = lk_alloc(vocab * sizeof(uint32_t));
        e->next = lk_alloc(tokens * sizeof(uint32_t));
        e->touched = lk_alloc(tokens * sizeof(uint32_t));
    }
    if (!e || !e->sums || !e->rows || !e->newest || !e->oldest || !e->next || !e->touched) {
        lk_embedding_gradient_free(e);
        return lk_fail(err, LK_ENOMEM, "no memory for the embedding's gradient of %zu tokens x %u", tokens, width);
    }
    *out = e;
    lk_embedding_gradient_begin(e);
    return LK_OK;
}

void lk_embedding_gradient_free(struct lk_embedding_gradient *e) {
    if (!e) return;
    lk_free(e->sums);
    lk_free(e->rows);
    lk_free(e->newest);
    lk_free(e->oldest);
    lk_free(e->next);
    lk_free(e->touched);
    lk_free(e);
}

void lk_embedding_gradient_begin(struct lk_embedding_gradient *e) {
    e->row_count = 0;
    memset(e->newest, 0xff, e->vocab * sizeof(uint32_t));
    memset(e->oldest, 0xff, e->vocab * sizeof(uint32_t));
}

static uint32_t row_of(struct lk_embedding_gradient *e, uint32_t grain, uint32_t token) {
    uint32_t r = e->newest[token];
    if (r != NONE && e->rows[r].grain == grain) return r;
    LK_ASSERT(e->row_count < e->capacity);
    uint32_t fresh = e->row_count++;
    e->rows[fresh] = (struct row){.grain = grain, .token = token, .first = NONE, .last = NONE, .sibling = NONE};
    memset(e->sums + (size_t)fresh * e->width, 0, e->width * sizeof(float));
    if (r == NONE)
        e->oldest[token] = fresh;
    else
        e->rows[r].sibling = fresh;
    e->newest[token] = fresh;
    return fresh;
}

/* Adds one row's positions: chains by (sequence, segment) of 64 columns at a time, so that the chain stays in registers. */
static void add_row(struct lk_embedding_gradient *e, uint32_t r) {
    struct row *row = &e->rows[r];
    uint32_t width = e->width;
    float *total = e->sums + (size_t)r * width;
    for (uint32_t c0 = 0; c0 < width; c0 += 64) {
        uint32_t n = width - c0 < 64 ? width - c0 : 64;
        for (uint32_t p = row->first; p != NONE;) {
            uint32_t sequence = p / e->positions, segment = p % e->positions / SEGMENT;
            float chain[64] = {0};
            do {
                const float *x = e->dx + (size_t)p * width + c0;
                for (uint32_t c = 0; c < n; c++) chain[c] = chain[c] + x[c];
                p = e->next[p];
            } while (p != NONE && p / e->positions == sequence && p % e->positions / SEGMENT == segment);
            for (uint32_t c = 0; c < n; c++) total[c0 + c] = total[c0 + c] + chain[c];
        }
    }
    row->first = row->last = NONE;
}

static void add_tile(void *arg, size_t tile, int thread) {
    (void)thread;
    struct lk_embedding_gradient *e = arg;
    size_t end = (tile + 1) * 16 < e->touched_count ? (tile + 1) * 16 : e->touched_count;
    for (size_t i = tile * 16; i < end; i++) add_row(e, e->touched[i]);
}

void lk_embedding_gradient_add(struct lk_embedding_gradient *e, struct lk_math *math, uint32_t grain, uint32_t sequences,
                               uint32_t positions, const uint32_t *tokens, const float *dx) {
    uint32_t n = sequences * positions;
    e->dx = dx;
    e->positions = positions;
    e->touched_count = 0;
    for (uint32_t p = 0; p < n; p++) {
        LK_ASSERT(tokens[p] < e->vocab);
        uint32_t r = row_of(e, grain, tokens[p]);
        struct row *row = &e->rows[r];
        e->next[p] = NONE;
        if (row->first == NONE) {
            row->first = p;
            e->touched[e->touched_count++] = r;
        } else
            e->next[row->last] = p;
        row->last = p;
    }
    lk_pool_run(lk_math_pool(math), (e->touched_count + 15) / 16, add_tile, e);
}

/* The tree over one token's grains, absent grains skipped: at each level neighbours under one node are added. */
static void finish_token(struct lk_embedding_gradient *e, uint32_t token) {
    uint32_t width = e->width;
    float *out = e->table + (size_t)token * width;
    uint32_t head = e->oldest[token];
    if (head == NONE) {
        if (!e->add) memset(out, 0, width * sizeof(float));
        return;
    }
    for (uint32_t level = 1; e->rows[head].sibling != NONE; level++) {
        for (uint32_t r = head; r != NONE; r = e->rows[r].sibling) {
            uint32_t s = e->rows[r].sibling;
            if (s == NONE || e->rows[r].grain >> level != e->rows[s].grain >> level) continue;
            float *left = e->sums + (size_t)r * width;
            const float *right = e->sums + (size_t)s * width;
            for (uint32_t c = 0; c < width; c++) left[c] = left[c] + right[c];
            e->rows[r].sibling = e->rows[s].sibling;
        }
    }
    const float *sum = e->sums + (size_t)head * width;
    for (uint32_t c = 0; c < width; c++) out[c] = e->add ? sum[c] + out[c] : sum[c];
}

static void finish_tile(void *arg, size_t tile, int thread) {
    (void)thread;
    struct lk_embedding_gradient *e = arg;
    uint32_t end = (tile + 1) * 64 < e->vocab ? (uint32_t)(tile + 1) * 64 : e->vocab;
    for (uint32_t t = (uint32_t)tile * 64; t < end; t++) finish_token(e, t);
}

void lk_embedding_gradient_finish(struct lk_embedding_gradient *e, struct lk_math *math, bool add, float *table) {
    e->add = add;
    e->table = table;
    lk_pool_run(lk_math_pool(math), (e->vocab + 63) / 64, finish_tile, e);
}
