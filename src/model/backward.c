/* Backward pass of the decoder. Buffers are reused as soon as their last reader is done; each reuse is noted. */
#include "decoder.h"
#include "lockstep/math/scalar.h"

struct gradients {
    struct lk_decoder *d;
    const struct lk_row_part *parts;
    size_t part_count;
    bool accumulate;
};

/* out (n) = the sum over rows of y (rows, n), times factor if there is one. */
static void column_sum(const struct gradients *g, size_t n, const float *y, const float *factor,
                       const struct lk_row_part *parts, float *out) {
    lk_column_sum(g->d->math, &(struct lk_column_sum){.n = n,
                                                      .y = y,
                                                      .factor = factor,
                                                      .ldy = n,
                                                      .ld_factor = n,
                                                      .parts = parts,
                                                      .part_count = g->part_count,
                                                      .accumulate = g->accumulate,
                                                      .out = out});
}

/* dW (out, in) = dy' x over the sequences of each grain; db (out) likewise, when there is a bias. */
static void weight_gradient(const struct gradients *g, size_t in, size_t out, const float *dy, const float *x, float *dw,
                            float *db) {
    struct lk_decoder *d = g->d;
    for (size_t i = 0; i < g->part_count; i++) {
        const struct lk_row_part *p = &g->parts[i];
        d->parts[i] = (struct lk_mm_part){.a = dy + p->first * out,
                                          .a_row = 1,
                                          .a_col = out,
                                          .b = x + p->first * in,
                                          .b_row = in,
                                          .b_col = 1,
                                          .k = p->rows,
                                          .ends_group = p->ends_group};
    }
    lk_matmul(d->math, &(struct lk_mm){.m = out,
                                       .n = in,
                                       .parts = d->parts,
                                       .part_count = g->part_count,
                                       .c = dw,
                                       .ldc = in,
                                       .accumulate = g->accumulate});
    if (db) column_sum(g, out, dy, NULL, g->parts, db);
}

struct projection {
    size_t out;
    const float *dy, *w;
};
/* dx (rows, in) = sum of dy W over up to three projections that read the same input: parts in the contract's order. */
static void input_gradient(struct lk_decoder *d, size_t in, const struct projection *p, size_t count, float *dx) {
    struct lk_mm_part parts[3];
    for (size_t i = 0; i < count; i++)
        parts[i] = (struct lk_mm_part){.a = p[i].dy,
                                       .a_row = p[i].out,
                                       .a_col = 1,
                                       .b = p[i].w,
                                       .b_row = in,
                                       .b_col = 1,
                                       .k = p[i].out,
                                       .ends_group = i + 1 == count};
    lk_matmul(d->math, &(struct lk_mm){.m = d->rows, .n = in, .parts = parts, .part_count = count, .c = dx, .ldc = in});
}

/* d->dx = d->dx + norm backward of d->dh; xhat is a buffer that is free by now. first: nothing to add yet. */
static void norm_gradient(const struct gradients *g, const float *x, const float *gain, const float *mean,
                          const float *rstd, bool layer, bool first, float *xhat, float *dgain, float *dbias) {
    struct lk_decoder *d = g->d;
    size_t width = d->layout->config.width;
    lk_norm_backward(d->math, &(struct lk_norm_gradient){.rows = d->rows,
                                                         .n = width,
                                                         .layer = layer,
                                                         .x = x,
                                                         .gain = gain,
                                                         .mean = mean,
                                                         .rstd = rstd,
                                                         .dy = d->dh,
                                                         .dx_add = first ? NULL : d->dx,
                                                         .dx = d->dx,
                                                         .normalised = xhat});
    column_sum(g, width, d->dh, xhat, g->parts, dgain);
    if (dbias) column_sum(g, width, d->dh, NULL, g->parts, dbias);
}

static void ffn_backward(const struct gradients *g, struct lk__model_activations *a,
                         const struct lk__model_layer_weights *w, const struct lk__model_layer_weights *dw) {
    struct lk_decoder *d = g->d;
    const struct lk_model_config *m = &d->layout->config;
    weight_gradient(g, m->ffn, m->width, d->dx, a->act, dw->down, dw->down_bias);
    input_gradient(d, m->ffn, &(struct projection){m->width, d->dx, w->down}, 1, a->act); /* act becomes its own gradient */
    if (m->family == LK_LLAMA) {
        lk_swiglu_backward(d->math, d->rows * m->ffn, a->gate, a->up, a->act, a->gate, a->up); /* gate, up become theirs */
        weight_gradient(g, m->width, m->ffn, a->gate, a->h2, dw->gate, NULL);
        weight_gradient(g, m->width, m->ffn, a->up, a->h2, dw->up, NULL);
        input_gradient(d, m->width, (struct projection[]){{m->ffn, a->gate, w->gate}, {m->ffn, a->up, w->up}}, 2, d->dh);
    } else {
        lk_gelu_backward(d->math, d->rows * m->ffn, a->up, a->act, a->act);
        weight_gradient(g, m->width, m->ffn, a->act, a->h2, dw->up, dw->up_bias);
        input_gradient(d, m->width, &(struct projection){m->ffn, a->act, w->up}, 1, d->dh);
    }
    norm_gradient(g, a->x_mid, w->norm2, a->mean2, a->rstd2, w->norm2_bias != NULL, false, a->h2, dw->norm2,
                  dw->norm2_bias);
}

/* Norm's backward of the heads of q or k, (rows, heads * d): dx from dy, the gain's gradient. raw becomes the normalised
 * input. A head is a row: parts hold `heads` times as many. */
static void head_norm_gradient(const struct gradients *g, uint32_t heads, const float *gain, const float *rstd, float *raw,
                               const float *dy, float *dx, float *dgain) {
    struct lk_decoder *d = g->d;
    size_t n = d->layout->config.head_dim;
    lk_norm_backward(
        d->math,
        &(struct lk_norm_gradient){
            .rows = d->rows * heads, .n = n, .x = raw, .gain = gain, .rstd = rstd, .dy = dy, .dx = dx, .normalised = raw});
    for (size_t i = 0; i < g->part_count; i++)
        d->other_parts[i] = (struct lk_row_part){
            .first = g->parts[i].first * heads, .rows = g->parts[i].rows * heads, .ends_group = g->parts[i].ends_group};
    column_sum(g, n, dy, raw, d->other_parts, dgain);
}

static void attention_backward(const struct gradients *g, struct lk__model_activations *a,
                               const struct lk__model_layer_weights *w, const struct lk__model_layer_weights *dw) {
    struct lk_decoder *d = g->d;
    const struct lk_model_config *m = &d->layout->config;
    size_t q = (size_t)m->heads * m->head_dim, kv = (size_t)m->kv_heads * m->head_dim;
    weight_gradient(g, q, m->width, d->dx, a->o, dw->o, dw->o_bias);
    input_gradient(d, q, &(struct projection){m->width, d->dx, w->o}, 1, d->dout);
    struct lk_attention attention = {.sequences = d->sequences,
                                     .queries = d->positions,
                                     .heads = m->heads,
                                     .kv_heads = m->kv_heads,
                                     .head_dim = m->head_dim,
                                     .q = a->q,
                                     .k = a->k,
                                     .v = a->v,
                                     .ldq = q,
                                     .ldk = kv,
                                     .ldv = kv,
                                     .kv_rows = d->positions,
                                     .document_start = d->first_key,
                                     .o = a->o,
                                     .ldo = q,
                                     .m = a->m,
                                     .r = a->r};
    lk_attention_backward(d->math, &attention,
                          &(struct lk_attention_gradient){.dout = d->dout,
                                                          .ld_dout = q,
                                                          .q_scale = (float)(1.0 / lk_sqrt64(m->head_dim)),
                                                          .dq = d->dq,
                                                          .dk = d->dk,
                                                          .dv = d->dv});
    if (m->family == LK_LLAMA) {
        struct lk_rope rope = {.rows = d->rows,
                               .heads = m->heads,
                               .head_dim = m->head_dim,
                               .positions = d->positions,
                               .cos_table = d->cos_table,
                               .sin_table = d->sin_table,
                               .scale = 1,
                               .inverse = true,
                               .x = d->dq,
                               .ldx = q};
        lk_rope(d->math, &rope);
        rope.heads = m->kv_heads, rope.x = d->dk, rope.ldx = kv;
        lk_rope(d->math, &rope);
    }
    float *dq = d->dq, *dk = d->dk;
    if (m->qk_norm) { /* q and k become the gradients of what was normalised */
        head_norm_gradient(g, m->heads, w->q_norm, a->q_rstd, a->q_raw, d->dq, dq = a->q, dw->q_norm);
        head_norm_gradient(g, m->kv_heads, w->k_norm, a->k_rstd, a->k_raw, d->dk, dk = a->k, dw->k_norm);
    }
    weight_gradient(g, m->width, q, dq, a->h1, dw->q, dw->q_bias);
    weight_gradient(g, m->width, kv, dk, a->h1, dw->k, dw->k_bias);
    weight_gradient(g, m->width, kv, d->dv, a->h1, dw->v, dw->v_bias);
    input_gradient(d, m->width, (struct projection[]){{q, dq, w->q}, {kv, dk, w->k}, {kv, d->dv, w->v}}, 3, d->dh);
    norm_gradient(g, a->x, w->norm1, a->mean1, a->rstd1, w->norm1_bias != NULL, false, a->h1, dw->norm1, dw->norm1_bias);
}

/* Learned positions: a sequence is one row of positions * width, so the gradient is a column sum over sequences. */
static void position_gradient(const struct gradients *g, float *out) {
    struct lk_decoder *d = g->d;
    size_t n = (size_t)d->positions * d->layout->config.width,
           all = (size_t)d->layout->config.context * d->layout->config.width;
    for (size_t i = 0; i < g->part_count; i++)
        d->other_parts[i] = (struct lk_row_part){
            .first = g->parts[i].first / d->positions, .rows = 1, .ends_group = g->parts[i].ends_group};
    column_sum(g, n, d->dx, NULL, d->other_parts, out);
    if (!g->accumulate && n < all) lk_zero(d->math, all - n, out + n);
}

const float *lk_decoder_backward(struct lk_decoder *d, const float *weights, const struct lk_row_part *parts,
                                 size_t part_count, bool accumulate, float *gradient, lk_stage_fn *stage, void *arg) {
    LK_NUMERIC_SCOPE();
    LK_ASSERT(d->mode != LK_INFER && part_count <= d->max_sequences);
    const struct lk_layout *l = d->layout;
    const struct lk_model_config *m = &l->config;
    struct gradients g = {.d = d, .parts = parts, .part_count = part_count, .accumulate = accumulate};
    int head = l->head >= 0 ? l->head : l->embedding;
    weight_gradient(&g, m->width, m->vocab, d->logits, d->h_out, lk__model_tensor(l, head, gradient), NULL);
    input_gradient(d, m->width, &(struct projection){m->vocab, d->logits, lk__model_tensor(l, head, weights)}, 1, d->dh);
    norm_gradient(&g, d->x_out, lk__model_tensor(l, l->norm, weights), d->mean_out, d->rstd_out, l->norm_bias >= 0, true,
                  d->h_out, lk__model_tensor(l, l->norm, gradient), lk__model_tensor(l, l->norm_bias, gradient));
    if (stage) stage(arg, 0);
    for (uint32_t i = m->layers; i-- > 0;) {
        struct lk__model_activations *a = &d->layers[i];
        struct lk__model_layer_weights w = lk__model_layer_weights(l, i, weights),
                                       dw = lk__model_layer_weights(l, i, gradient);
        if (d->mode == LK_RECOMPUTE &&
            i + 1 < m->layers) { /* the layer's output goes to a buffer that its backward overwrites anyway */
            struct lk__model_pass pass = {
                .sequences = d->sequences, .queries = d->positions, .rows = d->rows, .first_key = d->first_key};
            lk__model_layer_forward(d, weights, i, &pass, d->dh);
        }
        ffn_backward(&g, a, &w, &dw);
        attention_backward(&g, a, &w, &dw);
        if (stage) stage(arg, m->layers - i);
    }
    if (l->positions >= 0) position_gradient(&g, lk__model_tensor(l, l->positions, gradient));
    if (stage) stage(arg, m->layers + 1);
    return d->dx;
}
