/* Attention forward on vectors. A task is one head and a range of queries, and goes through tiles of blocks of NR queries:
 *
 *   S' (keys x queries) = K q'               micro-kernels; all visible keys, since the maximum must be exact before the
 *                                            first exp
 *   m, E = sexp(S' - m), l, r = 1 / l        queries are lanes: rows of S' are vectors, the 64 virtual lanes are 64 rows
 *   O (queries x d) = E V                    E' lies as the micro-kernel's A already; segments of 512 absolute positions
 *
 * K and V become panels as the tiles come to them; what the next tile reads is asked for while this one multiplies.
 * Scratch: K and V of one head and one tile's scores: linear in the context. */
#include "math/simd/attention_blocking.h"
#include "math/simd/attention_common.h"
#include <stdio.h>

#define QUERIES     NR
#define VECTORS     NR_VECTORS
#define FEW_QUERIES 8                             /* attention_few.c takes less time for these */
#define RANGE       (16 * ATTENTION_QUERIES)      /* queries a task: it copies K and V once */
#define NEXT_ROWS   64                            /* of the next head */
#define BLOCKS      (ATTENTION_QUERIES / QUERIES) /* of a tile, at most */

/* Maxima of the scores seen so far, by the machine's max, which is fast but loses NaN and does not order zeros. Where
 * either could matter, the exact maximum is computed again. */
struct maxima {
    vf m[VECTORS];
    mask nan[VECTORS];
};

/* A block: n queries from i, at positions first .. end - 1; keys [low, end) matter, [all_from, first] are visible to all.
 */
struct block {
    size_t i, n, vectors, ld, first, end, low, all_from;
    vi position[VECTORS], start[VECTORS];
    struct maxima seen;
    float *s, *qp, *o, *m, *r;
};

/* Keys and values from key low: where they lie, in pages or together, or in panels of MR keys and NR columns. */
struct work {
    const struct lk_attention *a;
    size_t d, low, keys;    /* keys [low, low + keys) */
    const float *q, *k, *v; /* k and v: of key low, or with pages where these are counted from */
    const uint32_t *start;  /* of query 0, or NULL */
    bool panels;
    float *k_panels, *v_panels, *lanes, *k_rows; /* k_rows: MR of them from several pages */
    size_t there;                                /* keys that are in panels */
    size_t asked, begin, last;                   /* queries whose rows have been asked for; the range */
    size_t more, next_kv;         /* rows of the next head that are asked for; where its keys are, from these */
    float *m_out, *r_out, *o_out; /* of query 0 */
};

/* Key low + j counted from k and v: rows, and floats of pages before them. */
LK_INLINE size_t row_of(const struct work *w, size_t j, size_t *page) {
    if (!w->a->pages) return *page = 0, j;
    uint32_t at = (uint32_t)(w->low + j), positions = w->a->page_positions;
    *page = w->a->pages[at / positions] * w->a->page_stride;
    return at % positions;
}
LK_INLINE const float *key(const struct work *w, size_t j) {
    size_t page, row = row_of(w, j, &page);
    return w->k + page + row * w->a->ldk;
}
LK_INLINE const float *value(const struct work *w, size_t j) {
    size_t page, row = row_of(w, j, &page);
    return w->v + page + row * w->a->ldv;
}
/* The rows from low + j on that lie together, up to low + end. */
LK_INLINE size_t together(const struct work *w, size_t j, size_t end) {
    uint32_t positions = w->a->page_positions;
    return w->a->pages ? smaller(end - j, positions - (uint32_t)(w->low + j) % positions) : end - j;
}

static void block_begin(const struct work *w, size_t i, size_t n, struct block *t) {
    t->i = i, t->n = n, t->vectors = (n + VL - 1) / VL, t->ld = t->vectors * VL;
    t->first = w->a->first + i, t->end = t->first + n;
    int32_t start[QUERIES] = {0};
    t->low = w->start ? SIZE_MAX : 0, t->all_from = 0;
    for (size_t q = 0; w->start && q < QUERIES; q++) {
        size_t of = w->start[i + smaller(q, n - 1)];
        start[q] = (int32_t)of;
        t->low = smaller(t->low, of), t->all_from = larger(t->all_from, of);
    }
    for (size_t v = 0; v < VECTORS; v++) {
        t->start[v] = vi_load(start + v * VL);
        t->position[v] = vi_add(vi_set1((int32_t)(t->first + v * VL)), lane_numbers());
        t->seen.m[v] = v_set1(-__builtin_inff()), t->seen.nan[v] = v_lt(t->seen.m[v], t->seen.m[v]);
    }
    for (size_t v = 0; v < n; v += VL)
        pack_along_vector(w->d, smaller(VL, n - v), w->q + (i + v) * w->a->ldq, w->a->ldq, t->qp + v, t->ld, NULL);
}

static void key_panel(const struct work *w, size_t j, size_t rows, const float *next) {
    const float *k = key(w, j);
    size_t ldk = w->a->ldk;
    if (together(w, j, j + rows) < rows) {
        for (size_t r = 0; r < rows; r++) memcpy(w->k_rows + r * w->d, key(w, j + r), w->d * sizeof *k);
        k = w->k_rows, ldk = w->d, next = NULL;
    }
    panel_along(MR, rows, w->d, k, ldk, w->k_panels + j * w->d, next);
}

/* Keys and values up to key `end` become panels. A panel of keys that was not whole is made again. */
static void panels_up_to(struct work *w, size_t end) {
    end -= w->low;
    for (size_t j = w->there / MR * MR; j < end; j += MR) {
        bool next = j + 2 * MR <= end && together(w, j, end) >= 2 * MR;
        key_panel(w, j, smaller(MR, end - j), next ? key(w, j + MR) : NULL);
    }
    for (size_t j = w->there, n; j < end; j += n) {
        n = together(w, j, end);
        column_panels(j, j + n, w->d, value(w, j), w->a->ldv, w->v_panels, w->keys);
    }
    w->there = end;
}

/* Asks for some rows more of what the next tile reads and writes, and at the end those of the next head, which is this
 * thread's next task, or not: a micro-kernel has time for as much. A head's part of a row is too short for the hardware to
 * follow. */
static void ask_ahead(struct work *w, size_t rows, size_t until) {
    for (size_t n = 0; n < rows && w->asked < until; n++, w->asked++) {
        bool here = w->asked < w->last;
        size_t i = here ? w->asked : w->asked - w->last + w->begin, d = here ? 0 : w->d, kv = here ? 0 : w->next_kv;
        size_t j = w->a->first + i - w->low;
        const float *q = w->q + i * w->a->ldq + d, *k = key(w, j) + kv, *v = value(w, j) + kv;
        const float *o = w->o_out + i * w->a->ldo + d;
        for (size_t e = 0; e < w->d; e += 16) {
            __builtin_prefetch(q + e, 0, 2), __builtin_prefetch(k + e, 0, 2), __builtin_prefetch(v + e, 0, 2);
            __builtin_prefetch(o + e, 1, 2);
        }
    }
}

LK_INLINE mask hidden(const struct block *t, size_t v, size_t key) {
    vi j = vi_set1((int32_t)key);
    return m_or(vi_lt(j, t->start[v]), vi_lt(t->position[v], j));
}

static void maxima_exact(const struct work *w, struct block *t) {
    for (size_t v = 0; v < t->vectors; v++) {
        vf m = v_set1(-__builtin_inff());
        for (size_t j = t->low; j < t->end; j++) {
            vf x = v_load(t->s + (j - w->low) * t->ld + v * VL);
            m = v_max(m, v_select(hidden(t, v, j), v_set1(-__builtin_inff()), x));
        }
        t->seen.m[v] = m;
    }
}

/* Goes on with keys [j, end) of vector v; the last panel of scores, so they are in L1. */
LK_INLINE void see(const struct work *w, const struct block *t, struct maxima *mx, const int v, size_t j, size_t end) {
    const vf least = v_set1(-__builtin_inff());
    const float *s = t->s + (j - w->low) * t->ld + v * VL;
    if (j >= t->all_from && end <= t->first + 1) {
        for (; j + 2 <= end; j += 2, s += 2 * t->ld) {
            vf x = v_load(s), y = v_load(s + t->ld);
            mx->m[v] = v_max_any(v_max_any(x, y), mx->m[v]), mx->nan[v] = m_or(mx->nan[v], v_unordered(x, y));
        }
    }
    for (; j < end; j++, s += t->ld) {
        vf x = v_select(hidden(t, (size_t)v, j), least, v_load(s));
        mx->m[v] = v_max_any(x, mx->m[v]), mx->nan[v] = m_or(mx->nan[v], v_unordered(x, x));
    }
}

/* Of n rows that lie together, so many go through a micro-kernel at once that the last one, too, has enough chains. */
static size_t rows_in_place(size_t n) {
    return n > MR && n < 2 * MR ? (n + 1) / 2 : smaller(MR, n);
}

/* S' of keys [from, to) and its maxima. Vectors of queries that come before all keys of a panel are left out: their scores
 * stay whatever they are, and hidden. */
static void scores(struct work *w, struct block *t, size_t from, size_t to, size_t until) {
    struct maxima mx = t->seen;
    size_t row = w->panels ? 1 : w->a->ldk, column = w->panels ? MR : 1, end = smaller(to, t->end) - w->low, rows;
    for (size_t j = w->panels ? (from - w->low) / MR * MR : from - w->low; j < end; j += rows) {
        rows = w->panels ? smaller(MR, end - j) : rows_in_place(together(w, j, end));
        size_t begin = larger(w->low + j, from), v = w->low + j > t->first ? (w->low + j - t->first) / VL * VL : 0;
        const float *k = w->panels ? w->k_panels + j * w->d : key(w, j);
        dot_product(rows, t->ld - v, w->d, k, row, column, t->qp + v, t->ld, t->s + j * t->ld + v, t->ld);
        UNROLL
        for (int e = 0; e < VECTORS; e++)
            if (e < (int)t->vectors && e * VL >= (int)v) see(w, t, &mx, e, begin, w->low + j + rows);
        if (w->panels) ask_ahead(w, 3, until);
    }
    t->seen = mx;
}

static void maxima_end(const struct work *w, struct block *t) {
    bool again = false;
    for (size_t v = 0; v < t->vectors; v++) {
        mask doubt = m_or(t->seen.nan[v], v_eq(t->seen.m[v], v_zero()));
        again |= m_any(m_and(doubt, m_first(smaller(VL, t->n - v * VL))));
    }
    if (again) maxima_exact(w, t);
    for (size_t v = 0; v < t->vectors; v++) v_store(t->m + v * VL, t->seen.m[v]);
}

/* E in place of S' for two keys, added to their lanes; vectors before `from` come before the keys. */
LK_INLINE void weigh_two(const struct work *w, const struct block *t, size_t j, const int from, const bool masked) {
    const int vectors = VECTORS - from;
    vf e[2 * VECTORS];
    float *s = t->s + (j - w->low) * QUERIES, *lane = w->lanes + j % 64 * QUERIES;
    UNROLL
    for (int v = 0; v < 2 * vectors; v++) {
        int of = from + v % vectors;
        e[v] = v_sub(v_load(s + v / vectors * QUERIES + of * VL), t->seen.m[of]);
    }
    lk__math_vsexps(e, 2 * vectors);
    if (masked) {
        UNROLL
        for (int v = 0; v < 2 * vectors; v++)
            e[v] = v_select(hidden(t, (size_t)(from + v % vectors), j + (size_t)(v / vectors)), v_zero(), e[v]);
    }
    UNROLL
    for (int v = 0; v < 2 * from; v++) v_store(s + v / from * QUERIES + v % from * VL, v_zero());
    UNROLL
    for (int v = 0; v < 2 * vectors; v++) {
        int at = v / vectors * QUERIES + (from + v % vectors) * VL;
        v_store(s + at, e[v]), v_store(lane + at, v_add(v_load(lane + at), e[v]));
    }
}

static void weigh_one(const struct work *w, const struct block *t, size_t j) {
    float *s = t->s + (j - w->low) * t->ld, *lane = w->lanes + j % 64 * t->ld;
    for (size_t v = 0; v < t->vectors; v++) {
        vf e = v_select(hidden(t, v, j), v_zero(), lk__math_vsexp(v_sub(v_load(s + v * VL), t->seen.m[v])));
        v_store(s + v * VL, e);
        v_store(lane + v * VL, v_add(v_load(lane + v * VL), e));
    }
}

/* r of l, the sum of the 64 lanes in two levels of its tree at a time. From lane `count` (4, 16 or 64) on all are +0, which
 * changes none of these sums. */
static void sum_lanes(const struct work *w, struct block *t, size_t count) {
    for (size_t h = count / 4 * t->ld; h >= t->ld; h /= 4)
        for (float *x = w->lanes; x < w->lanes + h; x += VL)
            v_store(x, v_add(v_add(v_load(x), v_load(x + 2 * h)), v_add(v_load(x + h), v_load(x + 3 * h))));
    for (size_t v = 0; v < t->ld; v += VL) v_store(t->r + v, v_div(v_set1(1), v_add(v_load(w->lanes + v), v_zero())));
}

/* E in place of S', and r. */
static void weights(const struct work *w, struct block *t) {
    size_t keys = t->low % 64 ? 64 : t->end - t->low, count = keys > 16 ? 64 : keys > 4 ? 16 : 4;
    for (size_t e = 0; e < count * t->ld; e += 4 * VL) { /* which is no call of memset: too short for that */
        UNROLL
        for (size_t v = 0; v < 4; v++) v_store(w->lanes + e + v * VL, v_zero());
    }
    for (size_t j = t->low, keys_here; j < t->end; j += keys_here) {
        keys_here = t->ld == QUERIES && j % 2 == 0 && j + 2 <= t->end ? 2 : 1;
        if (keys_here == 1)
            weigh_one(w, t, j);
        else if (j >= t->first + VL) /* the first vector's queries come before */
            weigh_two(w, t, j, 1, true);
        else if (j < t->all_from || j >= t->first)
            weigh_two(w, t, j, 0, true);
        else
            for (keys_here = 0; j < t->first; j += 2) weigh_two(w, t, j, 0, false);
    }
    sum_lanes(w, t, count);
}

/* Columns c .. c + width of O for rows from query q on and keys [j, end), whose values lie in several pages: their chain
 * goes on from page to page. */
static void sum_pages(const struct work *w, const struct block *t, size_t q, size_t rows, size_t c, size_t width, size_t j,
                      size_t end, float *o, size_t ldo) {
    _Alignas(64) float chain[MR * NR];
    bool first = w->low + j == t->low;
    for (size_t e = 0; e < rows * NR; e += VL) v_store(chain + e, v_zero());
    for (size_t n; j < end; j += n) {
        const float *v = value(w, j) + c, *s = t->s + j * t->ld + q;
        n = together(w, j, end);
        lk__math_micro[rows - 1][width / VL - 1](n, s, 1, t->ld, v, w->a->ldv, chain, NR, MICRO_RESUME,
                                                 &(struct lk__math_prefetch){s, v, 0});
    }
    for (size_t r = 0; r < rows; r++)
        for (size_t e = 0; e < width; e += VL)
            v_store(o + r * ldo + e, v_add(first ? v_zero() : v_load(o + r * ldo + e), v_load(chain + r * NR + e)));
}

/* O of keys [from, to), which are of one segment. */
static void sum_values(const struct work *w, const struct block *t, size_t from, size_t to) {
    size_t ldo = round_up(w->d, VL), panels = (t->n + MR - 1) / MR, height = (t->n + panels - 1) / panels;
    for (size_t q = 0; q < t->n; q += height) {
        size_t rows = smaller(height, t->n - q), end = smaller(to, t->first + q + rows), j = from - w->low;
        for (size_t c = 0; c < w->d && from < end; c += NR) {
            size_t width = smaller(NR, round_up(w->d - c, VL)), ldv = w->panels ? width : w->a->ldv;
            float *o = t->o + q * ldo + c;
            if (!w->panels && together(w, j, end - w->low) < end - from) {
                sum_pages(w, t, q, rows, c, width, j, end - w->low, o, ldo);
                continue;
            }
            const float *v = w->panels ? w->v_panels + c * w->keys + j * ldv : value(w, j) + c, *s = t->s + j * t->ld + q;
            lk__math_micro[rows - 1][width / VL - 1](end - from, s, 1, t->ld, v, ldv, o, ldo,
                                                     from == t->low ? MICRO_STORE : MICRO_ADD,
                                                     &(struct lk__math_prefetch){s, v, 0});
        }
    }
}

static void output(const struct work *w, const struct block *t) {
    size_t ldo = round_up(w->d, VL);
    for (size_t q = 0; q < t->n; q++) {
        vf r = v_set1(t->r[q]);
        float *o = w->o_out + (t->i + q) * w->a->ldo;
        size_t c = 0;
        for (; c + VL <= w->d; c += VL) v_store(o + c, v_mul(v_load(t->o + q * ldo + c), r));
        if (c < w->d) v_store_n(o + c, v_mul(v_load(t->o + q * ldo + c), r), w->d - c);
    }
    if (w->m_out) memcpy(w->m_out + t->i, t->m, t->n * sizeof *t->m);
    if (w->r_out) memcpy(w->r_out + t->i, t->r, t->n * sizeof *t->r);
}

/* Queries i .. i + n. Long contexts go through the caches once for all blocks of a tile, a segment of keys at a time. */
static void run_tile(struct work *w, struct block blocks[BLOCKS], size_t i, size_t n) {
    size_t count = (n + QUERIES - 1) / QUERIES, low = SIZE_MAX, end = w->a->first + i + n,
           until = i + n < w->last ? smaller(i + 2 * n, w->last) : w->last + w->more;
    for (size_t b = 0; b < count; b++) {
        block_begin(w, i + b * QUERIES, smaller(QUERIES, n - b * QUERIES), &blocks[b]);
        low = smaller(low, blocks[b].low);
    }
    if (w->panels) panels_up_to(w, end);
    w->asked = larger(w->asked, i + n);
    for (size_t j = low, next; j < end; j = next) {
        next = smaller(end, (j / SEGMENT + 1) * SEGMENT);
        for (size_t b = 0; b < count; b++) scores(w, &blocks[b], larger(j, blocks[b].low), next, until);
    }
    for (size_t b = 0; b < count; b++) maxima_end(w, &blocks[b]), weights(w, &blocks[b]);
    for (size_t j = low, next; j < end; j = next) {
        next = smaller(end, (j / SEGMENT + 1) * SEGMENT);
        for (size_t b = 0; b < count; b++) sum_values(w, &blocks[b], larger(j, blocks[b].low), next);
    }
    for (size_t b = 0; b < count; b++) output(w, &blocks[b]);
}

/* Scratch of the task. */
static void cut_scratch(struct work *w, struct block blocks[BLOCKS], float *from) {
    size_t d = w->d, dp = round_up(d, VL);
    w->k_panels = take(&from, round_up(w->keys, MR) * d + ATTENTION_SLACK), w->v_panels = take(&from, w->keys * dp);
    w->lanes = take(&from, 64 * QUERIES), w->k_rows = take(&from, MR * d);
    for (size_t b = 0; b < BLOCKS; b++) {
        struct block *t = &blocks[b];
        t->s = take(&from, w->keys * QUERIES), t->qp = take(&from, d * QUERIES + ATTENTION_SLACK);
        t->o = take(&from, QUERIES * dp), t->m = take(&from, QUERIES), t->r = take(&from, QUERIES);
    }
}

static void attention_forward(const struct lk_attention *a, uint32_t sequence, uint32_t head, uint32_t i0, uint32_t i1,
                              const struct lk_caches *caches, void *scratch) {
    size_t d = a->head_dim, kv = (size_t)(head / (a->heads / a->kv_heads)) * d, queries = (size_t)sequence * a->queries;
    size_t state = ((size_t)sequence * a->heads + head) * a->queries;
    struct work w = {.a = a, .d = d, .asked = i0, .begin = i0, .last = i1};
    if (head + 1 < a->heads) w.more = smaller(i1 - i0, NEXT_ROWS);
    w.next_kv = (head + 1) % (a->heads / a->kv_heads) ? 0 : d;
    w.q = a->q + queries * a->ldq + head * d;
    w.o_out = a->o + queries * a->ldo + head * d;
    w.m_out = a->m ? a->m + state : NULL, w.r_out = a->r ? a->r + state : NULL;
    if (a->document_start) w.start = a->document_start + (size_t)sequence * a->queries;
    w.low = w.start ? a->first + i1 : 0;
    for (uint32_t i = i0; w.start && i < i1; i++) w.low = smaller(w.low, w.start[i]);
    w.keys = a->first + i1 - w.low;
    size_t row = a->pages ? 0 : sequence * a->kv_rows + w.low;
    w.k = a->k + row * a->ldk + kv, w.v = a->v + row * a->ldv + kv;
    w.panels = i1 - i0 > QUERIES || d % VL || same_sets(a->ldv);

    struct block blocks[BLOCKS];
    cut_scratch(&w, blocks, scratch);
    size_t tile = 2 * w.keys * d * sizeof *w.k < forward_streams(caches) ? QUERIES : BLOCKS * QUERIES;
    if (w.panels) ask_ahead(&w, tile, smaller(i0 + tile, i1));
    for (size_t i = i0; i < i1; i += tile) run_tile(&w, blocks, i, smaller(tile, i1 - i));
}

static void attention_scheme(const struct lk_caches *c, char *out, size_t size) {
    size_t part = backward_part(c);
    char wide[64] = "";
    if (BLOCKS > 1)
        snprintf(wide, sizeof wide, ", %d from %zu KiB of keys and values on", BLOCKS * QUERIES, forward_streams(c) >> 10);
    snprintf(out, size, "%d queries at a time%s; backward %zu, as L2 has %s 1 MiB", QUERIES, wide, part,
             part < SEGMENT ? "less than" : "at least");
}

void LK_ISA_NAME(lk__math_fill_attention)(struct lk__math_kernels *);
void LK_ISA_NAME(lk__math_attention_backward)(const struct lk_attention *, const float *dout, size_t ld_dout, float q_scale,
                                              float *dq, float *dk, float *dv, uint32_t sequence, uint32_t kv_head,
                                              const struct lk_caches *, void *scratch);
void LK_ISA_NAME(lk__math_attention_few)(const struct lk_attention *, uint32_t sequence, uint32_t kv_head, uint32_t row0,
                                         uint32_t row1, void *scratch);
void LK_ISA_NAME(lk__math_fill_attention)(struct lk__math_kernels *k) {
    k->attention_query_tile = RANGE, k->attention_few_queries = FEW_QUERIES;
    k->attention_few = LK_ISA_NAME(lk__math_attention_few);
    k->attention_forward = attention_forward, k->attention_scheme = attention_scheme;
    k->attention_backward = LK_ISA_NAME(lk__math_attention_backward);
}
