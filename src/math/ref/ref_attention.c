/* Section 6: attention. Scores are computed again wherever they are needed: this page is for reading, not for speed. */
#include "math/ref/ref.h"

struct view { /* one sequence and query head */
    const real *q, *k, *v;
    size_t ldq, ldk, ldv;
    const uint32_t *pages;
    uint32_t page_positions;
    size_t page_stride;
    const uint32_t *start;
    uint32_t first, d;
};

static struct view view_of(const struct REF_STRUCT(attention) * a, uint32_t sequence, uint32_t head) {
    LK_ASSERT(a->head_dim <= LK__REF_HEAD_DIM_MAX);
    size_t kv = (size_t)(head / (a->heads / a->kv_heads)) * a->head_dim;
    return (struct view){
        .q = a->q + (size_t)sequence * a->queries * a->ldq + (size_t)head * a->head_dim,
        .k = a->k + sequence * a->kv_rows * a->ldk + kv,
        .v = a->v + sequence * a->kv_rows * a->ldv + kv,
        .ldq = a->ldq,
        .ldk = a->ldk,
        .ldv = a->ldv,
        .pages = a->pages,
        .page_positions = a->page_positions,
        .page_stride = a->page_stride,
        .start = a->document_start ? a->document_start + (size_t)sequence * a->queries : NULL,
        .first = a->first,
        .d = a->head_dim,
    };
}

/* The key or value at position j; x is k or v. */
static const real *row_at(const struct view *w, const real *x, size_t ld, uint32_t j) {
    if (!w->pages) return x + (size_t)j * ld;
    return x + w->pages[j / w->page_positions] * w->page_stride + (j % w->page_positions) * ld;
}

/* The matrix product over the head's elements of x(0..d-1) and y(0..d-1). */
static real dot(const real *x, const real *y, uint32_t d) {
    real t = 0;
    for (uint32_t c0 = 0; c0 < d; c0 += LK__SEGMENT) {
        real s = 0;
        for (uint32_t c = c0; c < d && c < c0 + LK__SEGMENT; c++) s = REF(fma)(x[c], y[c], s);
        t = t + s;
    }
    return t;
}

/* Score of query i (counted from a->first) and the key at position j. */
static real score(const struct view *w, uint32_t i, uint32_t j) {
    return dot(w->q + (size_t)i * w->ldq, row_at(w, w->k, w->ldk, j), w->d);
}

/* chain = chain + f·x in the segment; at a segment's end the chain goes into the total. Position `at` of `end`. */
static void accumulate(real *total, real *chain, uint32_t d, real f, const real *x, uint32_t at, uint32_t end) {
    for (uint32_t c = 0; c < d; c++) {
        chain[c] = REF(fma)(f, x[c], chain[c]);
        if ((at + 1) % LK__SEGMENT && at + 1 != end) continue;
        total[c] = total[c] + chain[c];
        chain[c] = 0;
    }
}

void REF(attention_forward)(const struct REF_STRUCT(attention) * a, uint32_t sequence, uint32_t head, uint32_t i0,
                            uint32_t i1, const struct lk_caches *caches, void *scratch) {
    (void)caches, (void)scratch;
    struct view w = view_of(a, sequence, head);
    for (uint32_t i = i0; i < i1; i++) {
        uint32_t at = w.first + i, start = w.start ? w.start[i] : 0;
        real m = score(&w, i, start);
        for (uint32_t j = start + 1; j <= at; j++) m = REF(max)(m, score(&w, i, j));
        real lanes[LK__LANES] = {0}, total[LK__REF_HEAD_DIM_MAX] = {0}, chain[LK__REF_HEAD_DIM_MAX] = {0};
        for (uint32_t j = start; j <= at; j++) {
            real e = REF(softmax_exp)(score(&w, i, j) - m);
            lanes[j % LK__LANES] = lanes[j % LK__LANES] + e;
            accumulate(total, chain, w.d, e, row_at(&w, w.v, w.ldv, j), j, at + 1);
        }
        real r = 1 / REF(lanes_sum)(lanes);
        real *o = a->o + ((size_t)sequence * a->queries + i) * a->ldo + (size_t)head * w.d;
        for (uint32_t c = 0; c < w.d; c++) o[c] = total[c] * r;
        size_t row = ((size_t)sequence * a->heads + head) * a->queries + i;
        if (a->m) a->m[row] = m;
        if (a->r) a->r[row] = r;
    }
}

struct backward { /* what of query i the backward pass needs again and again */
    struct view w;
    const real *dout, *o, *m, *r;
    size_t ld_dout, ldo;
};

static struct backward backward_of(const struct REF_STRUCT(attention) * a, const real *dout, size_t ld_dout,
                                   uint32_t sequence, uint32_t head) {
    size_t row = (size_t)sequence * a->queries, column = (size_t)head * a->head_dim;
    size_t state = ((size_t)sequence * a->heads + head) * a->queries;
    return (struct backward){view_of(a, sequence, head),
                             dout + row * ld_dout + column,
                             a->o + row * a->ldo + column,
                             a->m + state,
                             a->r + state,
                             ld_dout,
                             a->ldo};
}

/* P(i, j) and dS(i, j) */
static void weights(const struct backward *b, uint32_t i, uint32_t j, real *p, real *ds) {
    const real *dout = b->dout + (size_t)i * b->ld_dout, *o = b->o + (size_t)i * b->ldo;
    real lanes[LK__LANES] = {0};
    for (uint32_t c = 0; c < b->w.d; c++) lanes[c % LK__LANES] = REF(fma)(dout[c], o[c], lanes[c % LK__LANES]);
    real row = REF(lanes_sum)(lanes), dp = dot(dout, b->w.v + (size_t)j * b->w.ldv, b->w.d);
    *p = REF(softmax_exp)(score(&b->w, i, j) - b->m[i]) * b->r[i];
    *ds = *p * (dp - row);
}

static void gradient_q(const struct REF_STRUCT(attention) * a, const struct backward *b, real q_scale, real *dq) {
    for (uint32_t i = 0; i < a->queries; i++) {
        real total[LK__REF_HEAD_DIM_MAX] = {0}, chain[LK__REF_HEAD_DIM_MAX] = {0};
        for (uint32_t j = b->w.start ? b->w.start[i] : 0; j <= i; j++) {
            real p, ds;
            weights(b, i, j, &p, &ds);
            accumulate(total, chain, b->w.d, ds, b->w.k + (size_t)j * b->w.ldk, j, i + 1);
        }
        for (uint32_t c = 0; c < b->w.d; c++) dq[(size_t)i * b->w.ldq + c] = total[c] * q_scale;
    }
}

void REF(attention_backward)(const struct REF_STRUCT(attention) * a, const real *dout, size_t ld_dout, real q_scale,
                             real *dq, real *dk, real *dv, uint32_t sequence, uint32_t kv_head,
                             const struct lk_caches *caches, void *scratch) {
    (void)caches, (void)scratch;
    LK_ASSERT(a->first == 0);
    uint32_t group = a->heads / a->kv_heads, d = a->head_dim;
    for (uint32_t head = kv_head * group; head < (kv_head + 1) * group; head++) {
        struct backward b = backward_of(a, dout, ld_dout, sequence, head);
        gradient_q(a, &b, q_scale, dq + (size_t)sequence * a->queries * a->ldq + (size_t)head * d);
    }
    for (uint32_t j = 0; j < a->queries; j++) {
        real tk[LK__REF_HEAD_DIM_MAX] = {0}, tv[LK__REF_HEAD_DIM_MAX] = {0};
        for (uint32_t head = kv_head * group; head < (kv_head + 1) * group; head++) {
            struct backward b = backward_of(a, dout, ld_dout, sequence, head);
            real ck[LK__REF_HEAD_DIM_MAX] = {0}, cv[LK__REF_HEAD_DIM_MAX] = {0};
            for (uint32_t i = j; i < a->queries; i++) {
                real p = 0, ds = 0;
                if (!b.w.start || b.w.start[i] <= j) weights(&b, i, j, &p, &ds);
                accumulate(tv, cv, d, p, b.dout + (size_t)i * ld_dout, i, a->queries);
                accumulate(tk, ck, d, ds, b.w.q + (size_t)i * a->ldq, i, a->queries);
            }
        }
        size_t row = sequence * a->kv_rows + j;
        for (uint32_t c = 0; c < d; c++) {
            dk[row * a->ldk + (size_t)kv_head * d + c] = tk[c];
            dv[row * a->ldv + (size_t)kv_head * d + c] = tv[c];
        }
    }
}
