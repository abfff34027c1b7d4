/* The embedding table's gradient, kept as touched rows: one row for each (grain, token) of a batch, at most as many as
 * tokens. docs/numerics.md sections 3 and 8: a row is the sum over the grain's sequences and their segments of chains of
 * dx; absent rows are +0, so the tree over grains may skip them (no row can be -0: every total starts at +0). Each rank
 * combines what is within its own grains; the owner of a piece of the table combines the ranks' rows. */
#include "lockstep/cluster/comm.h"
#include "lockstep/model/model.h"

#include <string.h>

#define NONE UINT32_MAX

struct row {
    uint32_t grain, token;
    uint32_t last;    /* position of the current call, NONE: not touched by it */
    uint32_t sibling; /* next row of the same token, grains ascending */
};

struct lk_embedding_gradient {
    uint32_t vocab, width;
    size_t capacity; /* rows, and positions of one call */
    char *memory;    /* the list for others: sums first */
    bool own_memory;
    float *sums; /* (capacity, width) */
    struct row *rows;
    uint32_t row_count;
    uint32_t *newest;                        /* by token: its row of the highest grain, or NONE */
    uint32_t *oldest;                        /* by token: its row of the lowest grain, or NONE */
    uint32_t *next;                          /* by position of the current call: the token's next one */
    uint32_t *touched, touched_count;        /* rows of the current call */
    uint32_t *starts;                        /* of each: its first position */
    bool *fresh;                             /* of each: no call before this one has touched it */
    uint32_t first_grain, end_grain, grains; /* while combining */
};

/* --- Memory ---------------------------------------------------------------------------------------------- */

static size_t sums_bytes(uint32_t width, size_t tokens) {
    return (tokens * width * sizeof(float) + 63) / 64 * 64;
}
size_t lk_embedding_rows_bytes(uint32_t width, size_t tokens) {
    return sums_bytes(width, tokens) + (1 + 3 * tokens) * sizeof(uint32_t);
}

struct lk_embedding_rows lk_embedding_rows_at(void *memory, uint32_t width, size_t tokens) {
    uint32_t *list = (uint32_t *)(void *)((char *)memory + sums_bytes(width, tokens));
    return (struct lk_embedding_rows){
        .count = list[0], .tokens = list + 1, .grains = list + 1 + tokens, .index = list + 1 + 2 * tokens, .sums = memory};
}

size_t lk_embedding_gradient_bytes(uint32_t vocab, uint32_t width, size_t tokens) {
    return sizeof(struct lk_embedding_gradient) + lk_embedding_rows_bytes(width, tokens) +
           tokens * (sizeof(struct row) + 12 + sizeof(bool)) + (size_t)vocab * 8;
}

int lk_embedding_gradient_create(uint32_t vocab, uint32_t width, size_t tokens, void *memory,
                                 struct lk_embedding_gradient **out, struct lk_err *err) {
    struct lk_embedding_gradient *e = lk_calloc(1, sizeof *e);
    if (e) {
        e->vocab = vocab;
        e->width = width;
        e->capacity = tokens;
        e->own_memory = memory == NULL;
        e->memory = memory ? memory : lk_alloc(lk_embedding_rows_bytes(width, tokens));
        e->sums = (float *)(void *)e->memory;
        e->rows = lk_alloc(tokens * sizeof *e->rows);
        e->newest = lk_alloc(vocab * sizeof(uint32_t));
        e->oldest = lk_alloc(vocab * sizeof(uint32_t));
        e->next = lk_alloc(tokens * sizeof(uint32_t));
        e->touched = lk_alloc(tokens * sizeof(uint32_t));
        e->starts = lk_alloc(tokens * sizeof(uint32_t));
        e->fresh = lk_alloc(tokens * sizeof(bool));
    }
    if (!e || !e->sums || !e->rows || !e->newest || !e->oldest || !e->next || !e->touched || !e->starts || !e->fresh) {
        lk_embedding_gradient_free(e);
        return lk_fail(err, LK_ENOMEM, "no memory for the embedding's gradient of %zu tokens x %u", tokens, width);
    }
    *out = e;
    lk_embedding_gradient_begin(e);
    return LK_OK;
}

void lk_embedding_gradient_free(struct lk_embedding_gradient *e) {
    if (!e) return;
    if (e->own_memory) lk_free(e->memory);
    lk_free(e->rows);
    lk_free(e->newest);
    lk_free(e->oldest);
    lk_free(e->next);
    lk_free(e->touched);
    lk_free(e->starts);
    lk_free(e->fresh);
    lk_free(e);
}

/* --- Adding ---------------------------------------------------------------------------------------------- */

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
    e->rows[fresh] = (struct row){.grain = grain, .token = token, .last = NONE, .sibling = NONE};
    if (r == NONE)
        e->oldest[token] = fresh;
    else
        e->rows[r].sibling = fresh;
    e->newest[token] = fresh;
    return fresh;
}

void lk_embedding_gradient_add(struct lk_embedding_gradient *e, struct lk_math *math, uint32_t grain, uint32_t sequences,
                               uint32_t positions, const uint32_t *tokens, const float *dx) {
    uint32_t n = sequences * positions;
    e->touched_count = 0;
    for (uint32_t p = 0; p < n; p++) {
        LK_ASSERT(tokens[p] < e->vocab);
        uint32_t before = e->row_count, r = row_of(e, grain, tokens[p]);
        struct row *row = &e->rows[r];
        e->next[p] = NONE;
        if (row->last == NONE) {
            e->starts[e->touched_count] = p;
            e->fresh[e->touched_count] = r == before;
            e->touched[e->touched_count++] = r;
        } else
            e->next[row->last] = p;
        row->last = p;
    }
    for (uint32_t i = 0; i < e->touched_count; i++) e->rows[e->touched[i]].last = NONE;
    lk_row_chains(math, &(struct lk_row_chains){.n = e->width,
                                                .lists = e->touched_count,
                                                .x = dx,
                                                .positions = positions,
                                                .first = e->starts,
                                                .next = e->next,
                                                .target = e->touched,
                                                .begins = e->fresh,
                                                .sums = e->sums});
}

/* --- The tree over one token's rows, absent grains skipped ------------------------------------------------------- */

#define NEVER 64  /* the level of neighbours that must not be joined here */
#define DEPTH 128 /* 32 levels that wait, and as many complete nodes of a rank's range again on either side of it */

/* Rows come in ascending order of grains and wait on a stack until their right neighbour is complete. Two neighbours belong
 * to the two sides of the node at the level of the highest bit in which their grains differ; on the stack those levels
 * descend. */
struct fold {
    float *sum[DEPTH];
    uint32_t id[DEPTH], grain[DEPTH], level[DEPTH]; /* level: of the join with the entry below */
    uint32_t depth, columns;
};

static void fold_join(struct fold *f, uint32_t below_level) {
    while (f->depth > 1 && f->level[f->depth - 1] < below_level) {
        float *left = f->sum[f->depth - 2];
        const float *right = f->sum[--f->depth];
        for (uint32_t c = 0; c < f->columns; c++) left[c] = left[c] + right[c];
    }
}
static void fold_push(struct fold *f, float *sum, uint32_t id, uint32_t grain, uint32_t level) {
    if (f->depth) fold_join(f, level);
    LK_ASSERT(f->depth < DEPTH);
    f->sum[f->depth] = sum;
    f->id[f->depth] = id;
    f->grain[f->depth] = grain;
    f->level[f->depth++] = level;
}
static uint32_t level_of(uint32_t a, uint32_t b) {
    return 32 - (uint32_t)__builtin_clz(a ^ b);
}

/* Only nodes that lie wholly within this rank's grains are its own to complete. */
static uint32_t own_level(const struct lk_embedding_gradient *e, uint32_t a, uint32_t b) {
    uint32_t level = level_of(a, b);
    uint64_t begin = (uint64_t)a >> level << level, end = begin + (1ull << level);
    if (end > e->grains) end = e->grains;
    return begin >= e->first_grain && end <= e->end_grain ? level : NEVER;
}

static void combine_token(struct lk_embedding_gradient *e, uint32_t token) {
    struct fold f;
    f.depth = 0;
    f.columns = e->width;
    for (uint32_t r = e->oldest[token]; r != NONE; r = e->rows[r].sibling)
        fold_push(&f, e->sums + (size_t)r * e->width, r, e->rows[r].grain,
                  f.depth ? own_level(e, f.grain[f.depth - 1], e->rows[r].grain) : NEVER);
    fold_join(&f, NEVER);
    for (uint32_t i = 0; i < f.depth; i++) e->rows[f.id[i]].sibling = i + 1 < f.depth ? f.id[i + 1] : NONE;
}

static void combine_tile(void *arg, size_t tile, int thread) {
    (void)thread;
    struct lk_embedding_gradient *e = arg;
    uint32_t end = (tile + 1) * 64 < e->vocab ? (uint32_t)(tile + 1) * 64 : e->vocab;
    for (uint32_t t = (uint32_t)tile * 64; t < end; t++) combine_token(e, t);
}

struct lk_embedding_rows lk_embedding_gradient_list(struct lk_embedding_gradient *e, struct lk_math *math,
                                                    uint32_t first_grain, uint32_t end_grain, uint32_t grains) {
    e->first_grain = first_grain;
    e->end_grain = end_grain;
    e->grains = grains;
    lk_pool_run(lk_math_pool(math), (e->vocab + 63) / 64, combine_tile, e);
    uint32_t *count = (uint32_t *)(void *)(e->memory + sums_bytes(e->width, e->capacity)), *tokens = count + 1,
             *of_grain = tokens + e->capacity, *index = of_grain + e->capacity;
    *count = 0;
    for (uint32_t t = 0; t < e->vocab; t++)
        for (uint32_t r = e->oldest[t]; r != NONE; r = e->rows[r].sibling) {
            tokens[*count] = t;
            of_grain[*count] = e->rows[r].grain;
            index[(*count)++] = r;
        }
    return lk_embedding_rows_at(e->memory, e->width, e->capacity);
}

/* --- The table ------------------------------------------------------------------------------------------- */

uint32_t lk_embedding_rows_find(const struct lk_embedding_rows *rows, uint32_t token) {
    uint32_t low = 0, high = rows->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (rows->tokens[middle] < token)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct finish {
    const struct lk_embedding_rows *rows;
    size_t ranks, first, end; /* elements of the table */
    uint32_t width;
    bool add;
    float *table;
};

static void finish_token(const struct finish *j, uint32_t token, uint32_t *cursor) {
    size_t begin = (size_t)token * j->width, from = begin < j->first ? j->first : begin,
           to = begin + j->width < j->end ? begin + j->width : j->end;
    float *out = j->table + from;
    struct fold f;
    f.depth = 0;
    f.columns = (uint32_t)(to - from);
    for (size_t r = 0; r < j->ranks; r++)
        for (const struct lk_embedding_rows *rows = &j->rows[r];
             cursor[r] < rows->count && rows->tokens[cursor[r]] == token; cursor[r]++) {
            uint32_t grain = rows->grains[cursor[r]];
            fold_push(&f, rows->sums + (size_t)rows->index[cursor[r]] * j->width + (from - begin), 0, grain,
                      f.depth ? level_of(f.grain[f.depth - 1], grain) : NEVER);
        }
    fold_join(&f, NEVER);
    if (f.depth)
        for (uint32_t c = 0; c < f.columns; c++) out[c] = j->add ? f.sum[0][c] + out[c] : f.sum[0][c];
    else if (!j->add)
        memset(out, 0, f.columns * sizeof(float));
}

static void finish_tile(void *arg, size_t tile, int thread) {
    (void)thread;
    const struct finish *j = arg;
    uint32_t cursor[LK_RANKS_MAX];
    size_t first = j->first / j->width + tile * 64, last = (j->end - 1) / j->width;
    for (size_t r = 0; r < j->ranks; r++) cursor[r] = lk_embedding_rows_find(&j->rows[r], (uint32_t)first);
    for (size_t t = first; t < first + 64 && t <= last; t++) finish_token(j, (uint32_t)t, cursor);
}

void lk_embedding_rows_finish(struct lk_math *math, uint32_t width, const struct lk_embedding_rows *rows, size_t ranks,
                              size_t first, size_t count, bool add, float *table) {
    LK_ASSERT(ranks >= 1 && ranks <= LK_RANKS_MAX);
    if (!count) return;
    struct finish j = {rows, ranks, first, first + count, width, add, table};
    lk_pool_run(lk_math_pool(math), ((first + count - 1) / width - first / width) / 64 + 1, finish_tile, &j);
}
