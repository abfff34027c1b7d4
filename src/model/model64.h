/* Both families once more, in double precision, on the reference's double kernels: an independent model that tests compare
 * the decoder's gradients with, and finite differences with this. Readable, slow, for tests only. */
#ifndef LK_MODEL_MODEL64_H
#define LK_MODEL_MODEL64_H
#include "math/ref/ref.h"
#include "model/testing.h"
#include <math.h>

struct m64_layer {
    double *x, *h1, *mean1, *rstd1, *q, *k, *v, *o, *m, *r, *mid, *h2, *mean2, *rstd2, *gate, *up, *act, *q_raw, *k_raw,
        *q_rstd, *k_rstd;
};
struct m64 {
    const struct lk_layout *l;
    const struct test_batch *b;
    size_t rows, q, kv, width, ffn;
    double *cosines, *sines;
    uint32_t *start; /* the first visible key of each row */
    struct m64_layer *layers;
    double *x_out, *h_out, *mean_out, *rstd_out, *logits, *losses;
    double *memory;
    size_t used, size;
};

static double *m64_take(struct m64 *m, size_t n) {
    double *p = m->memory + m->used;
    m->used += n;
    LK_ASSERT(m->used <= m->size);
    memset(p, 0, n * sizeof *p);
    return p;
}
static const double *m64_tensor(const struct m64 *m, int index, const double *w) {
    return index < 0 ? NULL : w + m->l->tensors[index].offset;
}

/* y = x W' + bias + residual */
static void m64_linear(const struct m64 *m, size_t in, size_t out, const double *x, const double *w, const double *bias,
                       const double *residual, double *y) {
    struct lk__math_ref64_mm_part part = {
        .a = x, .b = w, .a_row = in, .a_col = 1, .b_row = 1, .b_col = in, .k = in, .ends_group = true};
    struct lk__math_ref64_mm mm = {.m = m->rows,
                                   .n = out,
                                   .parts = &part,
                                   .part_count = 1,
                                   .c = y,
                                   .ldc = out,
                                   .bias = bias,
                                   .residual = residual,
                                   .ld_residual = out};
    lk__math_ref64_mm_tile(&mm, 0, m->rows, 0, out, NULL, NULL);
}
/* dx += dy W, dW += dy' x, db += dy */
static void m64_linear_backward(const struct m64 *m, size_t in, size_t out, const double *dy, const double *x,
                                const double *w, double *dx, double *dw, double *db) {
    for (size_t t = 0; t < m->rows; t++)
        for (size_t o = 0; o < out; o++) {
            double d = dy[t * out + o];
            if (db) db[o] += d;
            for (size_t c = 0; c < in; c++) {
                dx[t * in + c] += d * w[o * in + c];
                dw[o * in + c] += d * x[t * in + c];
            }
        }
}

/* The projections' places: separate tensors, or GPT-2's one with rows Q, K, V. */
struct m64_qkv {
    const double *w[3], *b[3];
};
static struct m64_qkv m64_projections(const struct m64 *m, const struct lk_layer_tensors *t, const double *w) {
    if (t->qkv < 0)
        return (struct m64_qkv){{m64_tensor(m, t->q, w), m64_tensor(m, t->k, w), m64_tensor(m, t->v, w)},
                                {m64_tensor(m, t->q_bias, w), m64_tensor(m, t->k_bias, w), m64_tensor(m, t->v_bias, w)}};
    const double *all = m64_tensor(m, t->qkv, w), *bias = m64_tensor(m, t->qkv_bias, w);
    size_t n = m->width;
    return (struct m64_qkv){{all, all + n * n, all + 2 * n * n}, {bias, bias + n, bias + 2 * n}};
}

static struct lk__math_ref64_attention m64_attention(const struct m64 *m, const struct m64_layer *a) {
    const struct lk_model_config *c = &m->l->config;
    return (struct lk__math_ref64_attention){.sequences = m->b->sequences,
                                             .queries = m->b->positions,
                                             .heads = c->heads,
                                             .kv_heads = c->kv_heads,
                                             .head_dim = c->head_dim,
                                             .q = a->q,
                                             .k = a->k,
                                             .v = a->v,
                                             .ldq = m->q,
                                             .ldk = m->kv,
                                             .ldv = m->kv,
                                             .kv_rows = m->b->positions,
                                             .document_start = m->start,
                                             .o = a->o,
                                             .ldo = m->q,
                                             .m = a->m,
                                             .r = a->r};
}

static void m64_rotate(const struct m64 *m, bool inverse, uint32_t heads, double *x) {
    const struct lk_model_config *c = &m->l->config;
    if (c->family == LK_LLAMA)
        lk__math_ref64_rope(m->rows, 0, heads, c->head_dim, m->b->positions, 0, m->cosines, m->sines, 1, inverse, x,
                            (size_t)heads * c->head_dim);
}

/* Each head of raw, (rows, heads * d), normalised; without a gain the same numbers. */
static void m64_head_norm(const struct m64 *m, uint32_t heads, const double *raw, const double *gain, double *y,
                          double *rstd) {
    const struct lk_model_config *c = &m->l->config;
    if (gain)
        lk__math_ref64_norm_forward(m->rows * heads, c->head_dim, 1, raw, gain, NULL, c->norm_epsilon, y, NULL, rstd);
    else
        memcpy(y, raw, m->rows * heads * c->head_dim * sizeof *y);
}
/* dy becomes the gradient of raw; the gain's gradient. */
static void m64_head_norm_backward(struct m64 *m, uint32_t heads, const double *raw, const double *gain, const double *rstd,
                                   double *dy, double *dgain) {
    size_t d = m->l->config.head_dim, n = m->rows * heads, mark = m->used;
    if (!gain) return;
    double *dx = m64_take(m, n * d);
    for (size_t i = 0; i < n * d; i++) dgain[i % d] += dy[i] * raw[i] * rstd[i / d];
    lk__math_ref64_norm_backward(n, d, 1, raw, gain, NULL, rstd, false, dy, NULL, dx, NULL);
    memcpy(dy, dx, n * d * sizeof *dy);
    m->used = mark;
}

static void m64_layer_forward(struct m64 *m, uint32_t layer, const double *w, double *x_next) {
    const struct lk_model_config *c = &m->l->config;
    const struct lk_layer_tensors *t = &m->l->layers[layer];
    struct m64_layer *a = &m->layers[layer];
    struct m64_qkv p = m64_projections(m, t, w);
    lk__math_ref64_norm_forward(m->rows, m->width, 1, a->x, m64_tensor(m, t->norm1, w), m64_tensor(m, t->norm1_bias, w),
                                c->norm_epsilon, a->h1, a->mean1, a->rstd1);
    m64_linear(m, m->width, m->q, a->h1, p.w[0], p.b[0], NULL, a->q_raw);
    m64_linear(m, m->width, m->kv, a->h1, p.w[1], p.b[1], NULL, a->k_raw);
    m64_head_norm(m, c->heads, a->q_raw, m64_tensor(m, t->q_norm, w), a->q, a->q_rstd);
    m64_head_norm(m, c->kv_heads, a->k_raw, m64_tensor(m, t->k_norm, w), a->k, a->k_rstd);
    m64_linear(m, m->width, m->kv, a->h1, p.w[2], p.b[2], NULL, a->v);
    m64_rotate(m, false, c->heads, a->q);
    m64_rotate(m, false, c->kv_heads, a->k);
    lk__math_ref64_scale(m->rows * m->q, 1 / sqrt(c->head_dim), a->q);
    struct lk__math_ref64_attention at = m64_attention(m, a);
    for (uint32_t s = 0; s < at.sequences; s++)
        for (uint32_t h = 0; h < c->heads; h++) lk__math_ref64_attention_forward(&at, s, h, 0, at.queries, NULL, NULL);
    m64_linear(m, m->q, m->width, a->o, m64_tensor(m, t->o, w), m64_tensor(m, t->o_bias, w), a->x, a->mid);
    lk__math_ref64_norm_forward(m->rows, m->width, 1, a->mid, m64_tensor(m, t->norm2, w), m64_tensor(m, t->norm2_bias, w),
                                c->norm_epsilon, a->h2, a->mean2, a->rstd2);
    m64_linear(m, m->width, m->ffn, a->h2, m64_tensor(m, t->up, w), m64_tensor(m, t->up_bias, w), NULL, a->up);
    if (c->family == LK_LLAMA) {
        m64_linear(m, m->width, m->ffn, a->h2, m64_tensor(m, t->gate, w), NULL, NULL, a->gate);
        lk__math_ref64_swiglu_forward(m->rows * m->ffn, a->gate, a->up, a->act);
    } else
        lk__math_ref64_gelu_forward(m->rows * m->ffn, a->up, a->act);
    m64_linear(m, m->ffn, m->width, a->act, m64_tensor(m, t->down, w), m64_tensor(m, t->down_bias, w), a->mid, x_next);
}

/* The mean loss of the batch at weights w; activations stay for m64_backward. gradient: the logits become their gradient.
 */
static double m64_loss(struct m64 *m, const double *w, bool gradient) {
    const struct lk_model_config *c = &m->l->config;
    const double *table = m64_tensor(m, m->l->embedding, w), *positions = m64_tensor(m, m->l->positions, w);
    for (size_t i = 0; i < m->rows * m->width; i++) {
        size_t row = i / m->width, column = i % m->width;
        m->layers[0].x[i] = table[m->b->tokens[row] * m->width + column];
        if (positions) m->layers[0].x[i] += positions[row % m->b->positions * m->width + column];
    }
    for (uint32_t i = 0; i < c->layers; i++) m64_layer_forward(m, i, w, i + 1 < c->layers ? m->layers[i + 1].x : m->x_out);
    lk__math_ref64_norm_forward(m->rows, m->width, 1, m->x_out, m64_tensor(m, m->l->norm, w),
                                m64_tensor(m, m->l->norm_bias, w), c->norm_epsilon, m->h_out, m->mean_out, m->rstd_out);
    m64_linear(m, m->width, c->vocab, m->h_out, m->l->head < 0 ? table : m64_tensor(m, m->l->head, w), NULL, NULL,
               m->logits);
    lk__math_ref64_cross_entropy(m->rows, c->vocab, m->logits, c->vocab, m->b->targets, 1.0 / m->b->unmasked, gradient,
                                 m->losses);
    double sum = 0;
    for (size_t i = 0; i < m->rows; i++) sum += m->losses[i];
    return sum / m->b->unmasked;
}

/* dx = dx + norm backward of dh; the gain's and bias's gradients. */
static void m64_norm_backward(struct m64 *m, const double *x, int gain, int bias, const double *mean, const double *rstd,
                              const double *dh, const double *w, double *dx, double *g) {
    double *xhat = m64_take(m, m->rows * m->width);
    struct lk_row_part all = {.first = 0, .rows = m->rows, .ends_group = true};
    lk__math_ref64_norm_backward(m->rows, m->width, 1, x, m64_tensor(m, gain, w), mean, rstd, bias >= 0, dh, dx, dx, xhat);
    lk__math_ref64_column_sum(m->width, dh, m->width, xhat, m->width, &all, 1, false, (double *)m64_tensor(m, gain, g));
    if (bias >= 0)
        lk__math_ref64_column_sum(m->width, dh, m->width, NULL, 0, &all, 1, false, (double *)m64_tensor(m, bias, g));
}

static void m64_layer_backward(struct m64 *m, uint32_t layer, const double *w, double *dx, double *g) {
    const struct lk_model_config *c = &m->l->config;
    const struct lk_layer_tensors *t = &m->l->layers[layer];
    struct m64_layer *a = &m->layers[layer];
    size_t mark = m->used, rows = m->rows, inner = rows * m->ffn;
    double *dact = m64_take(m, inner), *dup = m64_take(m, inner), *dgate = m64_take(m, inner),
           *dh = m64_take(m, rows * m->width);
    m64_linear_backward(m, m->ffn, m->width, dx, a->act, m64_tensor(m, t->down, w), dact,
                        (double *)m64_tensor(m, t->down, g), (double *)m64_tensor(m, t->down_bias, g));
    if (c->family == LK_LLAMA) {
        lk__math_ref64_swiglu_backward(inner, a->gate, a->up, dact, dgate, dup);
        m64_linear_backward(m, m->width, m->ffn, dgate, a->h2, m64_tensor(m, t->gate, w), dh,
                            (double *)m64_tensor(m, t->gate, g), NULL);
    } else
        lk__math_ref64_gelu_backward(inner, a->up, dact, dup);
    m64_linear_backward(m, m->width, m->ffn, dup, a->h2, m64_tensor(m, t->up, w), dh, (double *)m64_tensor(m, t->up, g),
                        (double *)m64_tensor(m, t->up_bias, g));
    m64_norm_backward(m, a->mid, t->norm2, t->norm2_bias, a->mean2, a->rstd2, dh, w, dx, g);
    double *dout = m64_take(m, rows * m->q), *dq = m64_take(m, rows * m->q), *dk = m64_take(m, rows * m->kv),
           *dv = m64_take(m, rows * m->kv);
    m64_linear_backward(m, m->q, m->width, dx, a->o, m64_tensor(m, t->o, w), dout, (double *)m64_tensor(m, t->o, g),
                        (double *)m64_tensor(m, t->o_bias, g));
    struct lk__math_ref64_attention at = m64_attention(m, a);
    for (uint32_t s = 0; s < at.sequences; s++)
        for (uint32_t h = 0; h < c->kv_heads; h++)
            lk__math_ref64_attention_backward(&at, dout, m->q, 1 / sqrt(c->head_dim), dq, dk, dv, s, h, NULL, NULL);
    m64_rotate(m, true, c->heads, dq);
    m64_rotate(m, true, c->kv_heads, dk);
    m64_head_norm_backward(m, c->heads, a->q_raw, m64_tensor(m, t->q_norm, w), a->q_rstd, dq,
                           (double *)m64_tensor(m, t->q_norm, g));
    m64_head_norm_backward(m, c->kv_heads, a->k_raw, m64_tensor(m, t->k_norm, w), a->k_rstd, dk,
                           (double *)m64_tensor(m, t->k_norm, g));
    struct m64_qkv p = m64_projections(m, t, w), dp = m64_projections(m, t, g);
    const double *dy[3] = {dq, dk, dv};
    dh = m64_take(m, rows * m->width);
    for (int i = 0; i < 3; i++)
        m64_linear_backward(m, m->width, i ? m->kv : m->q, dy[i], a->h1, p.w[i], dh, (double *)dp.w[i], (double *)dp.b[i]);
    m64_norm_backward(m, a->x, t->norm1, t->norm1_bias, a->mean1, a->rstd1, dh, w, dx, g);
    m->used = mark;
}

/* Gradient of m64_loss(m, w, true), which comes first. g: floats of the layout, zero at the start. */
static void m64_backward(struct m64 *m, const double *w, double *g) {
    const struct lk_layout *l = m->l;
    size_t mark = m->used;
    int head = l->head < 0 ? l->embedding : l->head;
    double *dh = m64_take(m, m->rows * m->width), *dx = m64_take(m, m->rows * m->width);
    m64_linear_backward(m, m->width, l->config.vocab, m->logits, m->h_out, m64_tensor(m, head, w), dh,
                        (double *)m64_tensor(m, head, g), NULL);
    m64_norm_backward(m, m->x_out, l->norm, l->norm_bias, m->mean_out, m->rstd_out, dh, w, dx, g);
    for (uint32_t i = l->config.layers; i-- > 0;) m64_layer_backward(m, i, w, dx, g);
    for (size_t i = 0; i < m->rows * m->width; i++) {
        size_t row = i / m->width, column = i % m->width;
        ((double *)m64_tensor(m, l->embedding, g))[m->b->tokens[row] * m->width + column] += dx[i];
        if (l->positions >= 0)
            ((double *)m64_tensor(m, l->positions, g))[row % m->b->positions * m->width + column] += dx[i];
    }
    m->used = mark;
}

static void m64_cut(struct m64 *m) {
    const struct lk_model_config *c = &m->l->config;
    size_t rows = m->rows, heads = rows * c->heads;
    for (uint32_t i = 0; i < c->layers; i++)
        m->layers[i] = (struct m64_layer){m64_take(m, rows * m->width),
                                          m64_take(m, rows * m->width),
                                          m64_take(m, rows),
                                          m64_take(m, rows),
                                          m64_take(m, rows * m->q),
                                          m64_take(m, rows * m->kv),
                                          m64_take(m, rows * m->kv),
                                          m64_take(m, rows * m->q),
                                          m64_take(m, heads),
                                          m64_take(m, heads),
                                          m64_take(m, rows * m->width),
                                          m64_take(m, rows * m->width),
                                          m64_take(m, rows),
                                          m64_take(m, rows),
                                          m64_take(m, rows * m->ffn),
                                          m64_take(m, rows * m->ffn),
                                          m64_take(m, rows * m->ffn),
                                          m64_take(m, rows * m->q),
                                          m64_take(m, rows * m->kv),
                                          m64_take(m, heads),
                                          m64_take(m, rows * c->kv_heads)};
    m->x_out = m64_take(m, rows * m->width);
    m->h_out = m64_take(m, rows * m->width);
    m->mean_out = m64_take(m, rows);
    m->rstd_out = m64_take(m, rows);
    m->logits = m64_take(m, rows * c->vocab);
    m->losses = m64_take(m, rows);
}

/* Of pair i. Llama 3.1: a pair that turns fewer than `low` times within the original positions turns slower by the factor,
 * one that turns more than `high` times as it was, others in between. */
static double m64_frequency(const struct lk_model_config *c, uint32_t i) {
    double frequency = pow(c->rope_theta, -2.0 * i / c->head_dim), turns = c->rope_original * frequency / (2 * acos(-1)),
           share = (turns - c->rope_low) / (c->rope_high - c->rope_low);
    if (c->rope_factor == 0 || share >= 1) return frequency;
    return share <= 0 ? frequency / c->rope_factor : frequency * (share + (1 - share) / c->rope_factor);
}

static struct m64 *m64_create(const struct lk_layout *l, const struct test_batch *b) {
    const struct lk_model_config *c = &l->config;
    struct m64 *m = lk_calloc(1, sizeof *m);
    *m = (struct m64){.l = l,
                      .b = b,
                      .rows = (size_t)b->sequences * b->positions,
                      .width = c->width,
                      .ffn = c->ffn,
                      .q = (size_t)c->heads * c->head_dim,
                      .kv = (size_t)c->kv_heads * c->head_dim};
    m->layers = lk_calloc(c->layers, sizeof *m->layers);
    size_t half = (size_t)b->positions * c->head_dim;
    m->size = 2 * half + (c->layers + 1) * m->rows * (12 * m->width + 6 * (m->q + m->kv) + 6 * m->ffn + 4 * c->heads + 8) +
              m->rows * c->vocab;
    m->memory = lk_alloc(m->size * sizeof(double));
    m->cosines = m64_take(m, half);
    m->sines = m64_take(m, half);
    for (uint32_t t = 0; t < b->positions; t++)
        for (uint32_t i = 0; i < c->head_dim / 2; i++) {
            double angle = t * m64_frequency(c, i);
            m->cosines[t * (c->head_dim / 2) + i] = cos(angle);
            m->sines[t * (c->head_dim / 2) + i] = sin(angle);
        }
    m64_cut(m);
    m->start = lk_calloc(m->rows, sizeof *m->start);
    for (size_t row = 0; row < m->rows; row++) {
        uint32_t at = (uint32_t)(row % b->positions), first = b->start ? b->start[row] : 0;
        while (c->window && at - first >= c->window) first++;
        m->start[row] = first;
    }
    return m;
}
static void m64_free(struct m64 *m) {
    lk_free(m->memory);
    lk_free(m->start);
    lk_free(m->layers);
    lk_free(m);
}

#endif
