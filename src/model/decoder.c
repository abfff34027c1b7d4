/* Workspace and forward pass of the decoder, both families. */
#include "decoder.h"
#include "lockstep/math/scalar.h"

#include <string.h>

struct lk__layer_weights lk__layer_weights(const struct lk_layout *l, uint32_t layer, const float *array) {
    const struct lk_layer_tensors *t = &l->layers[layer];
    struct lk__layer_weights w = {
        .norm1 = lk__tensor(l, t->norm1, array),
        .norm1_bias = lk__tensor(l, t->norm1_bias, array),
        .q = lk__tensor(l, t->q, array),
        .k = lk__tensor(l, t->k, array),
        .v = lk__tensor(l, t->v, array),
        .q_bias = lk__tensor(l, t->q_bias, array),
        .k_bias = lk__tensor(l, t->k_bias, array),
        .v_bias = lk__tensor(l, t->v_bias, array),
        .q_norm = lk__tensor(l, t->q_norm, array),
        .k_norm = lk__tensor(l, t->k_norm, array),
        .o = lk__tensor(l, t->o, array),
        .o_bias = lk__tensor(l, t->o_bias, array),
        .norm2 = lk__tensor(l, t->norm2, array),
        .norm2_bias = lk__tensor(l, t->norm2_bias, array),
        .gate = lk__tensor(l, t->gate, array),
        .up = lk__tensor(l, t->up, array),
        .up_bias = lk__tensor(l, t->up_bias, array),
        .down = lk__tensor(l, t->down, array),
        .down_bias = lk__tensor(l, t->down_bias, array),
    };
    if (t->qkv >= 0) { /* GPT-2 keeps the three projections in one tensor: rows Q, K, V */
        size_t width = l->config.width;
        w.q = lk__tensor(l, t->qkv, array);
        w.k = w.q + width * width;
        w.v = w.k + width * width;
        w.q_bias = lk__tensor(l, t->qkv_bias, array);
        w.k_bias = w.q_bias + width;
        w.v_bias = w.k_bias + width;
    }
    return w;
}

/* --- Workspace ------------------------------------------------------------------------------------------- */

/* Counts without an arena (and then without layers), cuts with one: one function gives the size and the places. */
struct cutter {
    struct lk_arena *arena;
    size_t bytes;
};
#define TOO_MUCH (SIZE_MAX / 4) /* what can't be had in any case: no sum of such sizes may come round to a small one */
static float *cut(struct cutter *c, size_t floats) {
    size_t bytes = floats < TOO_MUCH / 8 ? (floats * sizeof(float) + 63) / 64 * 64 : TOO_MUCH;
    c->bytes = bytes < TOO_MUCH - c->bytes ? c->bytes + bytes : TOO_MUCH;
    if (!c->arena) return NULL;
    float *p = lk_arena_take(c->arena, bytes);
    LK_ASSERT(p);
    return p;
}

static void cut_layer(struct cutter *c, const struct lk_model_config *m, size_t rows, bool keep,
                      struct lk__activations *a) {
    size_t q = (size_t)m->heads * m->head_dim, kv = (size_t)m->kv_heads * m->head_dim;
    a->h1 = cut(c, rows * m->width);
    a->mean1 = cut(c, rows);
    a->rstd1 = cut(c, rows);
    a->q = cut(c, rows * q);
    a->k = cut(c, rows * kv);
    a->v = cut(c, rows * kv);
    if (m->qk_norm) {
        a->q_raw = keep ? cut(c, rows * q) : a->q;
        a->k_raw = keep ? cut(c, rows * kv) : NULL;
        a->q_rstd = cut(c, rows * m->heads);
        a->k_rstd = cut(c, rows * m->kv_heads);
    }
    a->o = cut(c, rows * q);
    a->m = cut(c, rows * m->heads);
    a->r = cut(c, rows * m->heads);
    a->x_mid = cut(c, rows * m->width);
    a->h2 = keep ? cut(c, rows * m->width) : a->h1;
    a->mean2 = cut(c, rows);
    a->rstd2 = cut(c, rows);
    a->gate = m->family == LK_LLAMA ? cut(c, rows * m->ffn) : NULL;
    a->up = cut(c, rows * m->ffn);
    a->act = keep ? cut(c, rows * m->ffn) : a->up;
}

static void cut_all(struct cutter *c, struct lk_decoder *d) {
    const struct lk_model_config *m = &d->layout->config;
    size_t rows = (size_t)d->max_sequences * d->max_positions;
    size_t q = (size_t)m->heads * m->head_dim, kv = (size_t)m->kv_heads * m->head_dim;
    bool train = d->mode != LK_INFER;
    for (uint32_t i = 0; i < m->layers; i++) {
        struct lk__activations counted, *a = d->layers ? &d->layers[i] : &counted;
        if (i == 0 || d->mode == LK_TRAINING)
            cut_layer(c, m, rows, train, a);
        else if (d->layers)
            *a = d->layers[0];
        if (i == 0 || train) a->x = cut(c, rows * m->width);
    }
    d->x_out = train ? cut(c, rows * m->width) : d->layers ? d->layers[0].x : NULL;
    d->h_out = cut(c, rows * m->width);
    d->mean_out = cut(c, rows);
    d->rstd_out = cut(c, rows);
    d->logits = cut(c, rows * m->vocab);
    if (m->family == LK_LLAMA) {
        d->frequencies = cut(c, m->head_dim / 2);
        d->cos_table = cut(c, (size_t)m->context * m->head_dim / 2);
        d->sin_table = cut(c, (size_t)m->context * m->head_dim / 2);
    }
    if (m->window) d->start = (uint32_t *)cut(c, rows > m->context ? rows : m->context);
    if (!train) return;
    d->dx = cut(c, rows * m->width);
    d->dh = cut(c, rows * m->width);
    d->dout = cut(c, rows * q);
    d->dq = cut(c, rows * q);
    d->dk = cut(c, rows * kv);
    d->dv = cut(c, rows * kv);
}

size_t lk_decoder_bytes(const struct lk_layout *layout, uint32_t sequences, uint32_t positions, enum lk_decoder_mode mode) {
    struct lk_decoder d = {.layout = layout, .mode = mode, .max_sequences = sequences, .max_positions = positions};
    struct cutter c = {0};
    cut_all(&c, &d);
    return c.bytes;
}

size_t lk_decoder_scratch_bytes(const struct lk_layout *layout, uint32_t positions, enum lk_decoder_mode mode) {
    return lk_attention_scratch_bytes(positions, layout->config.head_dim, mode != LK_INFER);
}

int lk_decoder_create(const struct lk_layout *layout, struct lk_math *math, uint32_t sequences, uint32_t positions,
                      enum lk_decoder_mode mode, struct lk_decoder **out, struct lk_err *err) {
    LK_NUMERIC_SCOPE();
    LK_ASSERT(sequences > 0 && positions > 0 && positions <= layout->config.context);
    size_t bytes = lk_decoder_bytes(layout, sequences, positions, mode);
    struct lk_decoder *d = lk_calloc(1, sizeof *d);
    if (!d) return lk_fail(err, LK_ENOMEM, "no memory for a decoder");
    d->layout = layout;
    d->math = math;
    d->mode = mode;
    d->max_sequences = sequences;
    d->max_positions = positions;
    d->parts = lk_alloc(sequences * sizeof *d->parts);
    d->other_parts = lk_alloc(sequences * sizeof *d->other_parts);
    d->layers = lk_calloc(layout->config.layers, sizeof *d->layers);
    if (!d->parts || !d->other_parts || !d->layers || lk_arena_init(&d->arena, bytes)) {
        lk_decoder_free(d);
        return lk_fail(err, LK_ENOMEM, "no memory for the activations of %u sequences of %u positions (%zu MB)", sequences,
                       positions, bytes / 1000000);
    }
    struct cutter c = {.arena = &d->arena};
    cut_all(&c, d);
    const struct lk_model_config *m = &layout->config;
    struct lk_rope_scaling scaling = {m->rope_factor, m->rope_low, m->rope_high, m->rope_original};
    if (d->frequencies) lk_rope_frequencies(m->head_dim, m->rope_theta, &scaling, d->frequencies);
    int code = lk_math_reserve(math, lk_decoder_scratch_bytes(layout, m->context, mode), err);
    if (code) {
        lk_decoder_free(d);
        return code;
    }
    *out = d;
    return LK_OK;
}

void lk_decoder_free(struct lk_decoder *d) {
    if (!d) return;
    lk_arena_release(&d->arena);
    lk_free(d->layers);
    lk_free(d->parts);
    lk_free(d->other_parts);
    lk_free(d);
}

/* --- Forward --------------------------------------------------------------------------------------------- */

/* y (rows, out) = x (rows, in) W' + bias + residual; W is (out, in). */
struct linear {
    const float *w;
    size_t out;
    const float *bias, *residual;
    float *y;
};
#define LINEARS_MOST 3

/* Layers that read the same x. */
static void linears(struct lk_decoder *d, size_t rows, size_t in, const float *x, const struct linear *l, size_t count) {
    if (d->panels && rows <= LK_PANEL_ROWS) {
        struct lk_panel_product products[LINEARS_MOST];
        for (size_t i = 0; i < count; i++)
            products[i] =
                (struct lk_panel_product){d->panels + (l[i].w - d->panels_of), l[i].out, l[i].bias, l[i].residual, l[i].y};
        lk_panels_multiply(d->math, rows, in, x, products, count);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        struct lk_mm_part part = {
            .a = x, .a_row = in, .a_col = 1, .b = l[i].w, .b_row = 1, .b_col = in, .k = in, .ends_group = true};
        lk_matmul(d->math, &(struct lk_mm){.m = rows,
                                           .n = l[i].out,
                                           .parts = &part,
                                           .part_count = 1,
                                           .c = l[i].y,
                                           .ldc = l[i].out,
                                           .bias = l[i].bias,
                                           .residual = l[i].residual,
                                           .ld_residual = l[i].out});
    }
}
static void linear(struct lk_decoder *d, size_t rows, size_t in, size_t out, const float *x, const float *w,
                   const float *bias, const float *residual, float *y) {
    linears(d, rows, in, x, &(struct linear){w, out, bias, residual, y}, 1);
}

static const float *head_of(const struct lk_layout *l, const float *weights) {
    return lk__tensor(l, l->head >= 0 ? l->head : l->embedding, weights);
}

bool lk_decoder_use_panels(struct lk_decoder *d, const float *weights, float *panels) {
    const struct lk_model_config *m = &d->layout->config;
    size_t q = (size_t)m->heads * m->head_dim, kv = (size_t)m->kv_heads * m->head_dim;
    if (!lk_panels_usable(d->math)) return false;
    for (uint32_t i = 0; i < m->layers; i++) {
        struct lk__layer_weights w = lk__layer_weights(d->layout, i, weights);
        const struct {
            const float *w;
            size_t out, in;
        } all[] = {{w.q, q, m->width},         {w.k, kv, m->width},      {w.v, kv, m->width},       {w.o, m->width, q},
                   {w.gate, m->ffn, m->width}, {w.up, m->ffn, m->width}, {w.down, m->width, m->ffn}};
        for (size_t j = 0; j < sizeof all / sizeof *all; j++)
            if (all[j].w) lk_panels_fill(d->math, all[j].out, all[j].in, all[j].w, panels + (all[j].w - weights));
    }
    const float *head = head_of(d->layout, weights);
    lk_panels_fill(d->math, m->vocab, m->width, head, panels + (head - weights));
    d->panels = panels;
    d->panels_of = weights;
    return true;
}

static void attention_forward(struct lk_decoder *d, const struct lk__layer_weights *w, uint32_t layer,
                              const struct lk__pass *p) {
    const struct lk_model_config *m = &d->layout->config;
    struct lk__activations *a = &d->layers[layer];
    size_t q = (size_t)m->heads * m->head_dim, kv = (size_t)m->kv_heads * m->head_dim;
    float *k = a->k, *v = a->v, *k_all = k, *v_all = v;
    size_t kv_rows = p->queries;
    if (p->cache) {
        kv_rows = p->cache->positions;
        k_all = p->cache->data + (size_t)layer * 2 * kv_rows * kv;
        v_all = k_all + kv_rows * kv;
        k = k_all + (size_t)p->first * kv;
        v = v_all + (size_t)p->first * kv;
    }
    float *q_raw = a->q_raw ? a->q_raw : a->q, *k_raw = a->k_raw ? a->k_raw : k;
    const struct linear qkv[] = {
        {w->q, q, w->q_bias, NULL, q_raw}, {w->k, kv, w->k_bias, NULL, k_raw}, {w->v, kv, w->v_bias, NULL, v}};
    linears(d, p->rows, m->width, a->h1, qkv, 3);
    if (m->qk_norm) { /* a head is a row */
        struct lk_norm norm = {.rows = p->rows * m->heads,
                               .n = m->head_dim,
                               .x = q_raw,
                               .gain = w->q_norm,
                               .epsilon = (float)m->norm_epsilon,
                               .y = a->q,
                               .rstd = a->q_rstd};
        lk_norm_forward(d->math, &norm);
        norm.rows = p->rows * m->kv_heads, norm.x = k_raw, norm.gain = w->k_norm, norm.y = k, norm.rstd = a->k_rstd;
        lk_norm_forward(d->math, &norm);
    }
    float scale = (float)(1.0 / lk_sqrt64(m->head_dim));
    if (m->family == LK_LLAMA) {
        struct lk_rope rope = {.rows = p->rows,
                               .heads = m->heads,
                               .head_dim = m->head_dim,
                               .positions = p->queries,
                               .first = p->first,
                               .cos_table = d->cos_table,
                               .sin_table = d->sin_table,
                               .scale = scale,
                               .x = a->q,
                               .ldx = q};
        lk_rope(d->math, &rope);
        rope.heads = m->kv_heads, rope.scale = 1, rope.x = k, rope.ldx = kv;
        lk_rope(d->math, &rope);
    } else
        lk_scale_rows(d->math, p->rows, q, scale, a->q, q);
    lk_attention_forward(d->math, &(struct lk_attention){.sequences = p->sequences,
                                                         .queries = p->queries,
                                                         .first = p->first,
                                                         .heads = m->heads,
                                                         .kv_heads = m->kv_heads,
                                                         .head_dim = m->head_dim,
                                                         .q = a->q,
                                                         .k = k_all,
                                                         .v = v_all,
                                                         .ldq = q,
                                                         .ldk = kv,
                                                         .ldv = kv,
                                                         .kv_rows = kv_rows,
                                                         .document_start = p->first_key,
                                                         .o = a->o,
                                                         .ldo = q,
                                                         .m = a->m,
                                                         .r = a->r});
}

void lk__layer_forward(struct lk_decoder *d, const float *weights, uint32_t layer, const struct lk__pass *p,
                       float *x_next) {
    const struct lk_model_config *m = &d->layout->config;
    struct lk__activations *a = &d->layers[layer];
    struct lk__layer_weights w = lk__layer_weights(d->layout, layer, weights);
    size_t rows = p->rows, q = (size_t)m->heads * m->head_dim;
    struct lk_norm norm = {.rows = rows,
                           .n = m->width,
                           .x = a->x,
                           .gain = w.norm1,
                           .bias = w.norm1_bias,
                           .epsilon = (float)m->norm_epsilon,
                           .y = a->h1,
                           .mean = a->mean1,
                           .rstd = a->rstd1};
    lk_norm_forward(d->math, &norm);
    attention_forward(d, &w, layer, p);
    linear(d, rows, q, m->width, a->o, w.o, w.o_bias, a->x, a->x_mid);
    norm.x = a->x_mid, norm.gain = w.norm2, norm.bias = w.norm2_bias, norm.y = a->h2, norm.mean = a->mean2,
    norm.rstd = a->rstd2;
    lk_norm_forward(d->math, &norm);
    if (m->family == LK_LLAMA) {
        const struct linear both[] = {{w.gate, m->ffn, NULL, NULL, a->gate}, {w.up, m->ffn, NULL, NULL, a->up}};
        linears(d, rows, m->width, a->h2, both, 2);
        lk_swiglu_forward(d->math, rows * m->ffn, a->gate, a->up, a->act);
    } else {
        linear(d, rows, m->width, m->ffn, a->h2, w.up, w.up_bias, NULL, a->up);
        lk_gelu_forward(d->math, rows * m->ffn, a->up, a->act);
    }
    linear(d, rows, m->ffn, m->width, a->act, w.down, w.down_bias, a->x_mid, x_next);
}

/* What a pass needs to know of its positions: angles, and the first keys that they see. */
static void positions_ready(struct lk_decoder *d, struct lk__pass *p) {
    const struct lk_model_config *m = &d->layout->config;
    uint32_t end = p->first + p->queries, half = m->head_dim / 2;
    if (d->cos_table && end > d->turned) {
        LK_ASSERT(end <= m->context);
        lk_rope_tables(half, d->frequencies, d->turned, end, d->cos_table, d->sin_table);
        d->turned = end;
    }
    if (!m->window || m->window >= end) return;
    for (uint32_t s = 0; s < p->sequences; s++)
        for (uint32_t i = p->first; i < end; i++) {
            size_t at = (size_t)s * end + i;
            uint32_t first = i >= m->window ? i - m->window + 1 : 0, document = p->first_key ? p->first_key[at] : 0;
            d->start[at] = first > document ? first : document;
        }
    p->first_key = d->start;
}

static float *pass_forward(struct lk_decoder *d, const float *weights, const struct lk__pass *p, const uint32_t *tokens,
                           uint32_t wanted) {
    const struct lk_layout *l = d->layout;
    const struct lk_model_config *m = &l->config;
    const float *table = lk__tensor(l, l->embedding, weights);
    lk_embed(d->math, &(struct lk_embed){.rows = p->rows,
                                         .n = m->width,
                                         .ids = tokens,
                                         .table = table,
                                         .positions_table = lk__tensor(l, l->positions, weights),
                                         .positions = p->queries,
                                         .first = p->first,
                                         .out = d->layers[0].x});
    for (uint32_t i = 0; i < m->layers; i++)
        lk__layer_forward(d, weights, i, p, i + 1 < m->layers ? d->layers[i + 1].x : d->x_out);
    size_t skip = p->rows - wanted;
    lk_norm_forward(d->math, &(struct lk_norm){.rows = wanted,
                                               .n = m->width,
                                               .x = d->x_out + skip * m->width,
                                               .gain = lk__tensor(l, l->norm, weights),
                                               .bias = lk__tensor(l, l->norm_bias, weights),
                                               .epsilon = (float)m->norm_epsilon,
                                               .y = d->h_out,
                                               .mean = d->mean_out,
                                               .rstd = d->rstd_out});
    linear(d, wanted, m->width, m->vocab, d->h_out, head_of(l, weights), NULL, NULL, d->logits);
    return d->logits;
}

float *lk_decoder_forward(struct lk_decoder *d, const float *weights, uint32_t sequences, uint32_t positions,
                          const uint32_t *tokens, const uint32_t *document_start) {
    LK_NUMERIC_SCOPE();
    LK_ASSERT(sequences > 0 && positions > 0 && positions <= d->layout->config.context);
    LK_ASSERT((size_t)sequences * positions <= (size_t)d->max_sequences * d->max_positions);
    d->sequences = sequences;
    d->positions = positions;
    d->tokens = tokens;
    d->rows = (size_t)sequences * positions;
    struct lk__pass pass = {.sequences = sequences, .queries = positions, .rows = d->rows, .first_key = document_start};
    positions_ready(d, &pass);
    d->first_key = pass.first_key;
    return pass_forward(d, weights, &pass, tokens, (uint32_t)d->rows);
}

/* --- Generation ------------------------------------------------------------------------------------------ */

int lk_attention_cache_init(struct lk_attention_cache *cache, const struct lk_layout *layout, uint32_t positions,
                            struct lk_err *err) {
    const struct lk_model_config *m = &layout->config;
    size_t row = (size_t)m->kv_heads * m->head_dim;
    *cache = (struct lk_attention_cache){.positions = positions};
    cache->data = lk_calloc((size_t)m->layers * 2 * positions * row, sizeof(float));
    return cache->data ? LK_OK : lk_fail(err, LK_ENOMEM, "no memory for the keys and values of %u positions", positions);
}

void lk_attention_cache_release(struct lk_attention_cache *cache) {
    lk_free(cache->data);
    *cache = (struct lk_attention_cache){0};
}

float *lk_decoder_extend(struct lk_decoder *d, const float *weights, struct lk_attention_cache *cache, uint32_t count,
                         const uint32_t *tokens, uint32_t wanted) {
    LK_NUMERIC_SCOPE();
    LK_ASSERT(d->mode == LK_INFER && count > 0 && wanted > 0 && wanted <= count);
    LK_ASSERT(!d->panels || d->panels_of == weights);
    LK_ASSERT(count <= d->max_sequences * d->max_positions && cache->used + count <= cache->positions);
    struct lk__pass pass = {.sequences = 1, .queries = count, .first = cache->used, .rows = count, .cache = cache};
    positions_ready(d, &pass);
    float *logits = pass_forward(d, weights, &pass, tokens, wanted);
    cache->used += count;
    return logits;
}
