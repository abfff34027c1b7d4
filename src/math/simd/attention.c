/* Attention forward on vectors. A task is one head and a range of queries, and goes through tiles of NR queries:
 *
 *   S' (keys x queries) = K q'               micro-kernels; all visible keys, since the maximum must be exact before the
 *                                            first exp
 *   m, E = sexp(S' - m), l, r = 1 / l        queries are lanes: rows of S' are vectors, the 64 virtual lanes are 64 rows
 *   O (queries x d) = E V                    E' lies as the micro-kernel's A already; segments of 512 absolute positions
 *
 * Scratch: K and V of one head and one tile's scores: linear in the context. */
#include "math/simd/attention_common.h"

#define QUERIES NR
#define VECTORS NR_VECTORS
#define RANGE   (16 * ATTENTION_QUERIES) /* queries a task: it copies K and V once */

struct work {
    const struct lk_attention *a;
    uint32_t head, i;    /* first query of the tile */
    size_t d, low, keys; /* keys [low, low + keys) */
    const float *q;
    const uint32_t *start; /* of query 0, or NULL */
    struct rows k, v;      /* from key low */
    float *s, *qp, *o, *lanes, *m, *r;
    float *m_out, *r_out, *o_out; /* of query 0 */
};

/* A tile: n queries at positions first .. first + n - 1; keys [low, first + n) matter, [all_from, first] are visible to
 * all. */
struct tile {
    size_t n, vectors, ld, first, low, all_from;
    vi position[VECTORS], start[VECTORS];
};

static void tile_begin(const struct work *w, size_t n, struct tile *t) {
    t->n = n, t->vectors = (n + VL - 1) / VL, t->ld = t->vectors * VL, t->first = w->a->first + w->i;
    int32_t start[QUERIES];
    t->low = SIZE_MAX, t->all_from = 0;
    for (size_t q = 0; q < QUERIES; q++) {
        size_t of = w->start ? w->start[w->i + smaller(q, n - 1)] : 0;
        start[q] = (int32_t)of;
        t->low = smaller(t->low, of), t->all_from = larger(t->all_from, of);
    }
    for (size_t v = 0; v < VECTORS; v++) {
        t->start[v] = vi_load(start + v * VL);
        t->position[v] = vi_add(vi_set1((int32_t)(t->first + v * VL)), lane_numbers());
    }
}

LK_INLINE mask hidden(const struct tile *t, size_t v, size_t key) {
    vi j = vi_set1((int32_t)key);
    return m_or(vi_lt(j, t->start[v]), vi_lt(t->position[v], j));
}
LK_INLINE bool all_see(const struct tile *t, size_t key) {
    return key >= t->all_from && key <= t->first;
}

static void maxima_exact(const struct work *w, const struct tile *t) {
    for (size_t v = 0; v < t->vectors; v++) {
        vf m = v_set1(-__builtin_inff());
        for (size_t j = t->low; j < t->first + t->n; j++) {
            vf x = v_load(w->s + (j - w->low) * t->ld + v * VL);
            m = v_max(m, v_select(hidden(t, v, j), v_set1(-__builtin_inff()), x));
        }
        v_store(w->m + v * VL, m);
    }
}

/* Maxima of the scores seen so far, by the machine's max, which is fast but loses NaN and does not order zeros. Where
 * either could matter, the exact maximum is computed again. */
struct maxima {
    vf m[VECTORS];
    mask nan[VECTORS];
};

/* Goes on with keys [j, end) of vector v; the last panel of scores, so they are in L1. */
LK_INLINE void see(const struct work *w, const struct tile *t, struct maxima *mx, const int v, size_t j, size_t end) {
    const vf least = v_set1(-__builtin_inff());
    const float *s = w->s + (j - w->low) * t->ld + v * VL;
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

/* S' and its maxima. */
static void scores(const struct work *w, const struct tile *t) {
    for (size_t v = 0; v < t->n; v += VL)
        pack_along_vector(w->d, smaller(VL, t->n - v), w->q + (w->i + v) * w->a->ldq, w->a->ldq, w->qp + v, t->ld, NULL);
    const vf least = v_set1(-__builtin_inff());
    struct maxima mx;
    for (int v = 0; v < VECTORS; v++) mx.m[v] = least, mx.nan[v] = v_lt(least, least);
    size_t end = t->first + t->n - w->low;
    for (size_t j = (t->low - w->low) / MR * MR; j < end; j += MR) {
        size_t rows = smaller(MR, end - j), from = larger(w->low + j, t->low);
        dot_product(rows, t->ld, w->d, w->k.x + j * w->k.ld, w->k.ld, w->qp, w->s + j * t->ld, t->ld);
        UNROLL
        for (int v = 0; v < VECTORS; v++)
            if (v < (int)t->vectors) see(w, t, &mx, v, from, w->low + j + rows);
    }
    bool again = false;
    for (size_t v = 0; v < t->vectors; v++) {
        v_store(w->m + v * VL, mx.m[v]);
        mask doubt = m_or(mx.nan[v], v_eq(mx.m[v], v_zero()));
        again |= m_any(m_and(doubt, m_first(smaller(VL, t->n - v * VL))));
    }
    if (again) maxima_exact(w, t);
}

/* E in place of S' for two keys that all queries see, added to their lanes. */
LK_INLINE void weigh_two(const struct work *w, size_t j, const vf m[VECTORS]) {
    vf e[2 * VECTORS];
    float *s = w->s + (j - w->low) * QUERIES, *lane = w->lanes + j % 64 * QUERIES;
    UNROLL
    for (int v = 0; v < 2 * VECTORS; v++) e[v] = v_sub(v_load(s + v * VL), m[v % VECTORS]);
    lk__math_vsexps(e, 2 * VECTORS);
    UNROLL
    for (int v = 0; v < 2 * VECTORS; v++)
        v_store(s + v * VL, e[v]), v_store(lane + v * VL, v_add(v_load(lane + v * VL), e[v]));
}

/* E in place of S', and r. */
static void weights(const struct work *w, const struct tile *t) {
    memset(w->lanes, 0, 64 * t->ld * sizeof *w->lanes);
    vf m[VECTORS];
    for (size_t v = 0; v < t->vectors; v++) m[v] = v_load(w->m + v * VL);
    for (size_t j = t->low, end = t->first + t->n; j < end; j++) {
        while (t->ld == QUERIES && j % 2 == 0 && all_see(t, j) && all_see(t, j + 1)) weigh_two(w, j, m), j += 2;
        if (j >= end) break;
        float *s = w->s + (j - w->low) * t->ld, *lane = w->lanes + j % 64 * t->ld;
        for (size_t v = 0; v < t->vectors; v++) {
            vf e = v_select(hidden(t, v, j), v_zero(), lk__math_vsexp(v_sub(v_load(s + v * VL), m[v])));
            v_store(s + v * VL, e);
            v_store(lane + v * VL, v_add(v_load(lane + v * VL), e));
        }
    }
    for (size_t h = 32; h; h /= 2)
        for (size_t e = 0; e < h * t->ld; e += VL)
            v_store(w->lanes + e, v_add(v_load(w->lanes + e), v_load(w->lanes + h * t->ld + e)));
    for (size_t v = 0; v < t->ld; v += VL) v_store(w->r + v, v_div(v_set1(1), v_add(v_load(w->lanes + v), v_zero())));
}

static void output(const struct work *w, const struct tile *t) {
    size_t ldo = round_up(w->d, VL), panels = (t->n + MR - 1) / MR, height = (t->n + panels - 1) / panels;
    for (size_t q = 0; q < t->n; q += height) {
        size_t rows = smaller(height, t->n - q), end = t->first + q + rows;
        for (size_t j = t->low, next; j < end; j = next) {
            next = smaller(end, (j / SEGMENT + 1) * SEGMENT);
            product(rows, w->d, next - j, w->s + (j - w->low) * t->ld + q, 1, t->ld, w->v, j - w->low, w->o + q * ldo, ldo,
                    j == t->low ? MICRO_STORE : MICRO_ADD);
        }
    }
    for (size_t q = 0; q < t->n; q++) {
        vf r = v_set1(w->r[q]);
        float *o = w->o_out + (w->i + q) * w->a->ldo;
        for (size_t c = 0; c < w->d; c += 16) __builtin_prefetch(o + w->a->ldo + c, 1, 3);
        for (size_t c = 0; c < w->d; c += VL)
            store_up_to(o + c, v_mul(v_load(w->o + q * ldo + c), r), smaller(VL, w->d - c));
    }
    if (w->m_out) memcpy(w->m_out + w->i, w->m, t->n * sizeof *w->m);
    if (w->r_out) memcpy(w->r_out + w->i, w->r, t->n * sizeof *w->r);
}

static void attention_forward(const struct lk_attention *a, uint32_t sequence, uint32_t head, uint32_t i0, uint32_t i1,
                              void *scratch) {
    size_t d = a->head_dim, kv = (size_t)(head / (a->heads / a->kv_heads)) * d, queries = (size_t)sequence * a->queries;
    size_t state = ((size_t)sequence * a->heads + head) * a->queries;
    struct work w = {.a = a, .head = head, .d = d};
    w.q = a->q + queries * a->ldq + head * d;
    w.o_out = a->o + queries * a->ldo + head * d;
    w.m_out = a->m ? a->m + state : NULL, w.r_out = a->r ? a->r + state : NULL;
    if (a->document_start) w.start = a->document_start + (size_t)sequence * (a->first + a->queries) + a->first;
    w.low = w.start ? a->first + i1 : 0;
    for (uint32_t i = i0; w.start && i < i1; i++) w.low = smaller(w.low, w.start[i]);
    w.keys = a->first + i1 - w.low;

    float *from = scratch;
    float *k_copy = take(&from, w.keys * round_up(d, VL)), *v_copy = take(&from, w.keys * round_up(d, VL));
    w.s = take(&from, w.keys * QUERIES), w.qp = take(&from, d * QUERIES + ATTENTION_SLACK);
    w.o = take(&from, QUERIES * round_up(d, VL)), w.lanes = take(&from, 64 * QUERIES);
    w.m = take(&from, QUERIES), w.r = take(&from, QUERIES);
    size_t row = sequence * a->kv_rows + w.low;
    const float *k = a->k + row * a->ldk + kv, *v = a->v + row * a->ldv + kv;
    /* Rows that lie far apart share sets of the caches and evict each other; from several tiles on a copy pays. */
    w.k = i1 - i0 > QUERIES ? copied_rows(w.keys, d, k, a->ldk, k_copy) : take_rows(w.keys, d, k, a->ldk, k_copy);
    w.v = i1 - i0 > QUERIES ? copied_rows(w.keys, d, v, a->ldv, v_copy) : take_rows(w.keys, d, v, a->ldv, v_copy);
    for (w.i = i0; w.i < i1; w.i += QUERIES) {
        struct tile t;
        tile_begin(&w, smaller(QUERIES, i1 - w.i), &t);
        scores(&w, &t);
        weights(&w, &t);
        output(&w, &t);
    }
}

void LK_ISA_NAME(lk__math_fill_attention)(struct lk__math_kernels *);
void LK_ISA_NAME(lk__math_attention_backward)(const struct lk_attention *, const float *dout, size_t ld_dout, float q_scale,
                                              float *dq, float *dk, float *dv, uint32_t sequence, uint32_t kv_head,
                                              void *scratch);
void LK_ISA_NAME(lk__math_fill_attention)(struct lk__math_kernels *k) {
    k->attention_query_tile = RANGE;
    k->attention_forward = attention_forward;
    k->attention_backward = LK_ISA_NAME(lk__math_attention_backward);
}
