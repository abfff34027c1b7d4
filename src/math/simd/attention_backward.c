/* Attention backward on vectors. A task is one sequence and kv head. For each query head of the group, for each segment of
 * 512 queries, for each block of 64 keys up to the diagonal, for each part of the queries, all or as many as suit L2
 * (attention_blocking.h):
 *
 *   S = q K', dP = do V' (queries x keys)      micro-kernels over d
 *   P = sexp(S - m) r, dS = P (dP - D)         in place
 *   dV += P' do, dK += dS' q (keys x d)        k is the part; chains wait in scratch for the next part, the last adds them
 *   dQ = dS K (queries x d)                    k is the block's keys: the chain waits in scratch for the next block
 *
 * The block divides 512, so dQ's chains end where the contract ends them. Nothing is larger than positions x d. */
#include "math/simd/attention_blocking.h"
#include "math/simd/attention_common.h"

#define KEYS ATTENTION_KEYS
#define ROWS LK__EXPS /* whose exponentials go together */

struct work {
    const struct lk_attention *a;
    size_t d, dp, positions;                   /* dp: d in whole vectors */
    const float *q, *k, *v, *o, *dout, *m, *r; /* of this head, position 0 */
    const uint32_t *start;
    size_t ld_dout;
    float *dk, *dv;             /* totals (positions, dp) */
    bool first_head;            /* no head before it has set the totals of a segment's own keys */
    float *dk_chain, *dv_chain; /* (KEYS, dp), where the queries are in parts */
    size_t q0, rows;            /* the segment of queries */
    size_t i0, i1;              /* the part: queries [i0, i1) of the segment */
    float *qb, *db, *kb;        /* q, do, K of the block as B */
    float *q_panels, *d_panels; /* q, do as A */
    float *row;                 /* D */
    float *chain, *total;       /* dQ (rows, dp) */
    bool totals;                /* of dQ hold something */
    float *kt, *vt;             /* the block: K', V' (d, keys) */
    float *p, *ds;              /* (i1 - i0, KEYS) */
};

/* Rows from x in panels of MR. */
static void panels_of(size_t rows, size_t d, const float *x, size_t ldx, float *to) {
    for (size_t i = 0; i < rows; i += MR)
        panel_along(MR, smaller(MR, rows - i), d, x + i * ldx, ldx, to + i * d,
                    i + 2 * MR <= rows ? x + (i + MR) * ldx : NULL);
}

static void begin_queries(struct work *w) {
    const float *q = w->q + w->q0 * w->a->ldq, *dout = w->dout + w->q0 * w->ld_dout, *o = w->o + w->q0 * w->a->ldo;
    column_panels(0, w->rows, w->d, q, w->a->ldq, w->qb, w->rows);
    column_panels(0, w->rows, w->d, dout, w->ld_dout, w->db, w->rows);
    panels_of(w->rows, w->d, q, w->a->ldq, w->q_panels);
    panels_of(w->rows, w->d, dout, w->ld_dout, w->d_panels);
    for (size_t row = 0; row < w->rows; row++, dout += w->ld_dout, o += w->a->ldo) {
        vf lanes[LANE_VECTORS];
        for (size_t e = 0; e < LANE_VECTORS; e++) lanes[e] = v_zero();
        for (size_t c = 0; c < w->d && row + PREFETCH_ROWS < w->rows; c += 16)
            __builtin_prefetch(o + PREFETCH_ROWS * w->a->ldo + c, 0, 3);
        EACH_LANE_VECTOR(w->d, { lanes[e] = v_fma(load(dout + i, c), load(o + i, c), lanes[e]); });
        w->row[row] = v_sum64(lanes);
    }
    w->totals = false;
}

LK_INLINE vf ended(bool before, const float *total, const float *chain) {
    return v_add(before ? v_load(total) : v_zero(), v_load(chain));
}

/* dQ's chains end, at key positions that are multiples of 512. */
static void end_chains(struct work *w) {
    for (size_t e = 0; e < w->rows * w->dp; e += VL) v_store(w->total + e, ended(w->totals, w->total + e, w->chain + e));
    w->totals = true;
}

/* Whether the totals of dK and dV hold something of the block of keys. */
LK_INLINE bool has_totals(const struct work *w, size_t j0) {
    return !w->first_head || j0 / SEGMENT < w->q0 / SEGMENT;
}

/* The chains of dK and dV of n keys from j0 end. */
static void end_key_chains(const struct work *w, size_t j0, size_t n) {
    bool before = has_totals(w, j0);
    float *dk = w->dk + j0 * w->dp, *dv = w->dv + j0 * w->dp;
    for (size_t e = 0; e < n * w->dp; e += VL)
        v_store(dv + e, ended(before, dv + e, w->dv_chain + e)), v_store(dk + e, ended(before, dk + e, w->dk_chain + e));
}

static void pack_keys(struct work *w, size_t j0, size_t n) {
    const float *k = w->k + j0 * w->a->ldk, *v = w->v + j0 * w->a->ldv;
    for (size_t c = 0; c < n; c += NR) {
        size_t width = smaller(NR, round_up(n - c, VL));
        for (size_t e = 0; e < width; e += VL) {
            size_t count = smaller(VL, n - c - e), at = c + e;
            pack_along_vector(w->d, count, k + at * w->a->ldk, w->a->ldk, w->kt + c * w->d + e, width, NULL);
            pack_along_vector(w->d, count, v + at * w->a->ldv, w->a->ldv, w->vt + c * w->d + e, width, NULL);
        }
    }
    column_panels(0, n, w->d, k, w->a->ldk, w->kb, n);
}

/* S into p and dP into ds; what lies wholly above the diagonal is left out. */
static void scores(const struct work *w, size_t j0, size_t n) {
    for (size_t c = 0; c < n; c += NR) {
        size_t width = smaller(NR, round_up(n - c, VL)), above = j0 + c > w->q0 ? (j0 + c - w->q0) / MR * MR : 0;
        for (size_t i = larger(w->i0, above); i < w->i1; i += MR) {
            size_t height = smaller(MR, w->i1 - i), to = (i - w->i0) * KEYS + c;
            size_t here = smaller(width, round_up(w->q0 + i + height - j0 - c, VL));
            dot_product(height, here, w->d, w->q_panels + i * w->d, 1, MR, w->kt + c * w->d, width, w->p + to, KEYS);
            dot_product(height, here, w->d, w->d_panels + i * w->d, 1, MR, w->vt + c * w->d, width, w->ds + to, KEYS);
        }
    }
}

/* P and dS of VL keys from position `from` (column c of the block) and `count` queries from i of the segment. */
LK_INLINE void weigh(const struct work *w, size_t i, const int count, size_t from, size_t c, const bool masked) {
    const float *m = w->m + w->q0 + i, *r = w->r + w->q0 + i, *row = w->row + i;
    float *p = w->p + (i - w->i0) * KEYS + c, *ds = w->ds + (i - w->i0) * KEYS + c;
    vi key = vi_add(vi_set1((int32_t)from), lane_numbers());
    vf e[ROWS];
    LK__ALL e[j] = v_sub(v_load(p + j * KEYS), v_set1(m[j]));
    lk__math_vsexps(e, count);
    LK__ALL {
        vf d = v_sub(v_load(ds + j * KEYS), v_set1(row[j]));
        e[j] = v_mul(e[j], v_set1(r[j])), d = v_mul(e[j], d);
        if (masked) {
            size_t at = w->q0 + i + (size_t)j;
            mask hidden = m_or(vi_lt(key, vi_set1(w->start ? (int32_t)w->start[at] : 0)), vi_lt(vi_set1((int32_t)at), key));
            e[j] = v_select(hidden, v_zero(), e[j]), d = v_select(hidden, v_zero(), d);
        }
        v_store(p + j * KEYS, e[j]), v_store(ds + j * KEYS, d);
    }
}

/* The same for all of the part, ROWS queries at a time. Pairs above the diagonal weigh nothing. */
static void weights(const struct work *w, size_t j0, size_t n) {
    for (size_t i = w->i0, rows; i < w->i1; i += rows) {
        size_t first = w->q0 + i, last_start = 0;
        rows = w->i1 - i >= ROWS ? ROWS : 1;
        for (size_t q = 0; w->start && q < rows; q++) last_start = larger(last_start, w->start[first + q]);
        for (size_t c = 0; c < n; c += VL) {
            size_t j = j0 + c;
            if (j >= first + rows)
                for (size_t q = i - w->i0; q < i - w->i0 + rows; q++)
                    v_store(w->p + q * KEYS + c, v_zero()), v_store(w->ds + q * KEYS + c, v_zero());
            else if (rows == 1)
                weigh(w, i, 1, j, c, true);
            else if (j >= last_start && j + VL - 1 <= first)
                weigh(w, i, ROWS, j, c, false);
            else
                weigh(w, i, ROWS, j, c, true);
        }
    }
}

/* n rows of dV or dK from key c of the block: P' do or dS' q, summed over the queries from i of the segment. */
LK_INLINE void key_gradient(const struct work *w, const float *p, size_t c, size_t n, size_t i, const float *b, float *t,
                            enum lk__math_micro_mode mode) {
    product(n, w->d, w->i1 - i, p + (i - w->i0) * KEYS + c, 1, KEYS, b, w->rows, i, t + c * w->dp, w->dp, mode);
}

/* dV and dK. Every part but the last has at least KEYS + MR queries, so the first reaches the diagonal of every key of the
 * block: with it all chains begin. */
static void key_gradients(const struct work *w, size_t j0, size_t n, bool first, bool last) {
    bool parts = !first || !last;
    float *dv = parts ? w->dv_chain : w->dv + j0 * w->dp, *dk = parts ? w->dk_chain : w->dk + j0 * w->dp;
    enum lk__math_micro_mode mode = !first ? MICRO_RESUME : !last || !has_totals(w, j0) ? MICRO_STORE : MICRO_ADD;
    for (size_t c = 0; c < n; c += MR) {
        size_t height = smaller(MR, n - c), i = larger(j0 + c > w->q0 ? j0 + c - w->q0 : 0, w->i0);
        key_gradient(w, w->p, c, height, i, w->db, dv, mode);
        key_gradient(w, w->ds, c, height, i, w->qb, dk, mode);
    }
    if (parts && last) end_key_chains(w, j0, n);
}

/* dQ; `begins`: its chains, with the first keys and where the contract says so. */
static void query_gradients(const struct work *w, size_t j0, size_t n, bool begins) {
    for (size_t i = w->i0; i < w->i1; i += MR) {
        size_t height = smaller(MR, w->i1 - i);
        product(height, w->d, smaller(n, w->q0 + i + height - j0), w->ds + (i - w->i0) * KEYS, KEYS, 1, w->kb, n, 0,
                w->chain + i * w->dp, w->dp, begins ? MICRO_STORE : MICRO_RESUME);
    }
}

/* Queries [from, rows) of the segment with n keys from j0, in parts of equal size, `most` at most. */
static void one_key_block(struct work *w, size_t from, size_t j0, size_t n, size_t most, bool begins) {
    size_t all = w->rows - from, parts = (all + most - 1) / most;
    size_t step = larger(round_up((all + parts - 1) / parts, PART_STEP), PART_LEAST);
    pack_keys(w, j0, n);
    for (w->i0 = from; w->i0 < w->rows; w->i0 = w->i1) {
        w->i1 = smaller(w->i0 + step, w->rows);
        scores(w, j0, n);
        weights(w, j0, n);
        key_gradients(w, j0, n, w->i0 == from, w->i1 == w->rows);
        query_gradients(w, j0, n, begins);
    }
}

/* Row i of x + 0, times a factor, to `to`; asks for the rows after it, which lie far apart. */
LK_INLINE void store_row(const struct work *w, size_t i, size_t rows, const float *x, float factor, float *to, size_t ld) {
    for (size_t c = 0; c < w->d && i + PREFETCH_ROWS < rows; c += 16)
        __builtin_prefetch(to + (i + PREFETCH_ROWS) * ld + c, 1, 3);
    x += i * w->dp, to += i * ld;
    size_t c = 0;
    for (; c + VL <= w->d; c += VL) v_store(to + c, v_mul(ended(false, NULL, x + c), v_set1(factor)));
    if (c < w->d) v_store_n(to + c, v_mul(ended(false, NULL, x + c), v_set1(factor)), w->d - c);
}

static void one_segment(struct work *w, size_t most, float *dq, float q_scale) {
    begin_queries(w);
    size_t low = w->start ? w->q0 : 0, end = w->q0 + w->rows;
    for (size_t i = w->q0; w->start && i < end; i++) low = smaller(low, w->start[i]);
    low = low / KEYS * KEYS;
    for (size_t j0 = low; j0 < end; j0 += KEYS) {
        if (j0 % SEGMENT == 0 && j0 > low) end_chains(w);
        one_key_block(w, j0 > w->q0 ? (j0 - w->q0) / MR * MR : 0, j0, smaller(KEYS, end - j0), most,
                      j0 == low || j0 % SEGMENT == 0);
    }
    if (w->totals) end_chains(w);
    const float *total = w->totals ? w->total : w->chain;
    for (size_t i = 0; i < w->rows; i++) store_row(w, i, w->rows, total, q_scale, dq + w->q0 * w->a->ldq, w->a->ldq);
}

static void cut_scratch(struct work *w, float *from) {
    size_t rows = smaller(SEGMENT, w->positions), d = w->d, dp = w->dp;
    w->dk = take(&from, w->positions * dp), w->dv = take(&from, w->positions * dp);
    w->qb = take(&from, rows * dp), w->db = take(&from, rows * dp), w->row = take(&from, rows);
    w->q_panels = take(&from, round_up(rows, MR) * d + ATTENTION_SLACK);
    w->d_panels = take(&from, round_up(rows, MR) * d + ATTENTION_SLACK);
    w->chain = take(&from, rows * dp), w->total = take(&from, rows * dp);
    w->kt = take(&from, KEYS * d + ATTENTION_SLACK), w->vt = take(&from, KEYS * d + ATTENTION_SLACK);
    w->kb = take(&from, KEYS * dp), w->dk_chain = take(&from, KEYS * dp), w->dv_chain = take(&from, KEYS * dp);
    w->p = take(&from, rows * KEYS + ATTENTION_SLACK), w->ds = take(&from, rows * KEYS + ATTENTION_SLACK);
}

void LK_ISA_NAME(lk__math_attention_backward)(const struct lk_attention *, const float *dout, size_t ld_dout, float q_scale,
                                              float *dq, float *dk, float *dv, uint32_t sequence, uint32_t kv_head,
                                              const struct lk_caches *, void *scratch);
void LK_ISA_NAME(lk__math_attention_backward)(const struct lk_attention *a, const float *dout, size_t ld_dout,
                                              float q_scale, float *dq, float *dk, float *dv, uint32_t sequence,
                                              uint32_t kv_head, const struct lk_caches *caches, void *scratch) {
    size_t d = a->head_dim, group = a->heads / a->kv_heads, first = (size_t)sequence * a->queries, kv = kv_head * d;
    size_t key_row = sequence * a->kv_rows, most = backward_part(caches);
    struct work w = {.a = a, .d = d, .dp = round_up(d, VL), .positions = a->queries, .ld_dout = ld_dout};
    w.k = a->k + key_row * a->ldk + kv, w.v = a->v + key_row * a->ldv + kv;
    if (a->document_start) w.start = a->document_start + first;
    cut_scratch(&w, scratch);
    for (size_t head = kv_head * group; head < (kv_head + 1) * group; head++) {
        size_t state = ((size_t)sequence * a->heads + head) * a->queries;
        w.q = a->q + first * a->ldq + head * d, w.o = a->o + first * a->ldo + head * d,
        w.dout = dout + first * ld_dout + head * d;
        w.m = a->m + state, w.r = a->r + state, w.first_head = head == kv_head * group;
        for (w.q0 = 0; w.q0 < a->queries; w.q0 += SEGMENT) {
            w.rows = smaller(SEGMENT, a->queries - w.q0);
            one_segment(&w, most, dq + first * a->ldq + head * d, q_scale);
        }
    }
    for (size_t j = 0; j < a->queries; j++) {
        store_row(&w, j, a->queries, w.dk, 1, dk + key_row * a->ldk + kv, a->ldk);
        store_row(&w, j, a->queries, w.dv, 1, dv + key_row * a->ldv + kv, a->ldv);
    }
}
