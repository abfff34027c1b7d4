/* Forward pass of the decoder, both families: of a batch, or of further tokens with a cache. */
#include "decoder.h"
#include "lockstep/math/scalar.h"
#include <string.h>

struct lk__model_layer_weights lk__model_layer_weights(const struct lk_layout *l, uint32_t layer, const float *array) {
    const struct lk_layer_tensors *t = &l->layers[layer];
    struct lk__model_layer_weights w = {
        .norm1 = lk__model_tensor(l, t->norm1, array),
        .norm1_bias = lk__model_tensor(l, t->norm1_bias, array),
        .q = lk__model_tensor(l, t->q, array),
        .k = lk__model_tensor(l, t->k, array),
        .v = lk__model_tensor(l, t->v, array),
        .q_bias = lk__model_tensor(l, t->q_bias, array),
        .k_bias = lk__model_tensor(l, t->k_bias, array),
        .v_bias = lk__model_tensor(l, t->v_bias, array),
        .q_norm = lk__model_tensor(l, t->q_norm, array),
        .k_norm = lk__model_tensor(l, t->k_norm, array),
        .o = lk__model_tensor(l, t->o, array),
        .o_bias = lk__model_tensor(l, t->o_bias, array),
        .norm2 = lk__model_tensor(l, t->norm2, array),
        .norm2_bias = lk__model_tensor(l, t->norm2_bias, array),
        .gate = lk__model_tensor(l, t->gate, array),
        .up = lk__model_tensor(l, t->up, array),
        .up_bias = lk__model_tensor(l, t->up_bias, array),
        .down = lk__model_tensor(l, t->down, array),
        .down_bias = lk__model_tensor(l, t->down_bias, array),
    };
    if (t->qkv >= 0) { /* GPT-2 keeps the three projections in one tensor: rows Q, K, V */
        size_t width = l->config.width;
        w.q = lk__model_tensor(l, t->qkv, array);
        w.k = w.q + l->tensors[t->qkv].words / 3;
        w.v = w.k + l->tensors[t->qkv].words / 3;
        w.q_bias = lk__model_tensor(l, t->qkv_bias, array);
        w.k_bias = w.q_bias + width;
        w.v_bias = w.k_bias + width;
    }
    return w;
}

/* --- One layer ------------------------------------------------------------------------------------------------ */

/* y (rows, out) = x (rows, in) W' + bias + residual; W is (out, in). */
struct linear {
    const float *w;
    size_t out;
    const float *bias, *residual;
    float *y;
};
#define LINEARS_MOST 3

/* The tensor of which w is a part. */
static const struct lk_tensor *tensor_of(const struct lk_layout *l, size_t offset) {
    size_t low = 0, high = l->tensor_count;
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        *(l->tensors[middle].offset <= offset ? &low : &high) = middle;
    }
    return &l->tensors[low];
}
/* Where the panels of a matrix at this place lie. */
static size_t panels_at(const struct lk_tensor *t, size_t offset) {
    size_t inside = (offset - t->offset) * sizeof(float); /* GPT-2's q, k, v are parts of one tensor */
    if (t->dtype < LK_Q8 || !inside) return t->panels + inside;
    return t->panels + lk_quant_panels_bytes(t->dtype, inside / lk_dtype_row_bytes(t->dtype, t->shape[1]), t->shape[1]);
}

/* The first `out` columns of l, with these weights. */
static void multiply_floats(struct lk_decoder *d, size_t rows, size_t in, const float *x, const struct linear *l,
                            const float *w, size_t out) {
    struct lk_mm_part part = {
        .a = x, .a_row = in, .a_col = 1, .b = w, .b_row = 1, .b_col = in, .k = in, .ends_group = true};
    lk_matmul(d->math, &(struct lk_mm){.m = rows,
                                       .n = out,
                                       .parts = &part,
                                       .part_count = 1,
                                       .c = l->y,
                                       .ldc = l->out,
                                       .bias = l->bias,
                                       .residual = l->residual,
                                       .ld_residual = l->out});
}

/* Where nothing reads panels of halves (ref): strips of weights, widened. */
static void multiply_halves(struct lk_decoder *d, size_t rows, size_t in, const float *x, const struct linear *l) {
    for (size_t j = 0, n; j < l->out; j += n) {
        struct linear strip = *l;
        n = l->out - j < LK__MODEL_STRIP ? l->out - j : LK__MODEL_STRIP;
        strip.y += j;
        if (l->bias) strip.bias += j;
        if (l->residual) strip.residual += j;
        lk_dequantize(d->math, LK_BF16, n, in, (const uint16_t *)(const void *)l->w + j * in, d->widened);
        multiply_floats(d, rows, in, x, &strip, d->widened, n);
    }
}

/* Layers that read the same x. */
static void linears(struct lk_decoder *d, size_t rows, size_t in, const float *x, const struct linear *l, size_t count) {
    struct lk_panel_product floats[LINEARS_MOST];
    struct lk_quant_product quants[LINEARS_MOST];
    size_t float_count = 0, quant_count = 0;
    for (size_t i = 0; i < count; i++) {
        if (!d->panels) {
            LK_ASSERT(!d->layout->narrow && "weights in fewer bits are read from panels");
            multiply_floats(d, rows, in, x, &l[i], l[i].w, l[i].out);
            continue;
        }
        size_t offset = (size_t)(l[i].w - d->panels_of);
        const struct lk_tensor *t = tensor_of(d->layout, offset);
        const uint8_t *panels = d->panels + panels_at(t, offset);
        if (t->dtype >= LK_Q8)
            quants[quant_count++] = (struct lk_quant_product){panels, l[i].out, l[i].bias, l[i].residual, l[i].y, t->dtype};
        else if (lk_panels_usable(d->math))
            floats[float_count++] = (struct lk_panel_product){panels, l[i].out, l[i].bias, l[i].residual, l[i].y, t->dtype};
        else if (t->dtype == LK_BF16)
            multiply_halves(d, rows, in, x, &l[i]);
        else
            multiply_floats(d, rows, in, x, &l[i], l[i].w, l[i].out);
    }
    if (float_count) lk_panels_multiply(d->math, rows, in, x, floats, float_count);
    if (!quant_count) return;
    lk_quantize_activations(d->math, rows, in, x, d->quantized);
    lk_quant_multiply(d->math, rows, in, d->quantized, quants, quant_count);
}
static void linear(struct lk_decoder *d, size_t rows, size_t in, size_t out, const float *x, const float *w,
                   const float *bias, const float *residual, float *y) {
    linears(d, rows, in, x, &(struct linear){w, out, bias, residual, y}, 1);
}

static const float *head_of(const struct lk_layout *l, const float *weights) {
    return lk__model_tensor(l, l->head >= 0 ? l->head : l->embedding, weights);
}

static void fill_one(const struct lk_decoder *d, const float *weights, uint8_t *panels, const float *w, size_t out,
                     size_t in) {
    const struct lk_tensor *t = tensor_of(d->layout, (size_t)(w - weights));
    panels += panels_at(t, (size_t)(w - weights));
    if (t->dtype >= LK_Q8)
        lk_quant_panels_fill(d->math, t->dtype, out, in, w, panels);
    else if (lk_panels_usable(d->math))
        lk_panels_fill(d->math, t->dtype, out, in, w, panels);
}
bool lk_decoder_fill_panels(const struct lk_decoder *d, const float *weights, void *panels) {
    const struct lk_model_config *m = &d->layout->config;
    size_t q = (size_t)m->heads * m->head_dim, kv = (size_t)m->kv_heads * m->head_dim;
    if (!d->layout->narrow && !lk_panels_usable(d->math)) return false;
    for (uint32_t i = 0; i < m->layers; i++) {
        struct lk__model_layer_weights w = lk__model_layer_weights(d->layout, i, weights);
        const struct {
            const float *w;
            size_t out, in;
        } all[] = {{w.q, q, m->width},         {w.k, kv, m->width},      {w.v, kv, m->width},       {w.o, m->width, q},
                   {w.gate, m->ffn, m->width}, {w.up, m->ffn, m->width}, {w.down, m->width, m->ffn}};
        for (size_t j = 0; j < sizeof all / sizeof *all; j++)
            if (all[j].w) fill_one(d, weights, panels, all[j].w, all[j].out, all[j].in);
    }
    fill_one(d, weights, panels, head_of(d->layout, weights), m->vocab, m->width);
    return true;
}

void lk_decoder_use_panels(struct lk_decoder *d, const float *weights, const void *panels) {
    d->panels = panels;
    d->panels_of = weights;
}

/* Keys and values of the pass go to the cache; each sequence's queries read its own pages. */
static void attend_in_pages(struct lk_decoder *d, uint32_t layer, const struct lk__model_pass *p,
                            const struct lk_attention *all) {
    const struct lk_model_config *m = &d->layout->config;
    size_t kv = (size_t)m->kv_heads * m->head_dim, part = p->cache->page_positions * p->cache->row_words, row = 0;
    float *k = p->cache->data + (size_t)layer * 2 * part;
    void (*keep)(struct lk_math *, size_t, size_t, const float *, const size_t *, float *) =
        p->cache->dtype == LK_Q8 ? lk_quantize_scatter : lk_scatter_rows;
    keep(d->math, p->rows, kv, all->k, d->place, k);
    keep(d->math, p->rows, kv, all->v, d->place, k + part);
    for (uint32_t i = 0; i < p->extension_count; row += p->extensions[i++].count) {
        const struct lk_extension *e = &p->extensions[i];
        struct lk_attention *a = &d->attentions[i];
        *a = *all;
        a->sequences = 1, a->queries = e->count, a->first = e->first;
        a->q += row * a->ldq, a->o += row * a->ldo, a->k = k, a->v = k + part, a->m = a->r = NULL;
        a->pages = e->pages, a->page_positions = p->cache->page_positions, a->page_stride = p->cache->page_words;
        a->kv_dtype = p->cache->dtype, a->ldk = a->ldv = p->cache->row_words;
        if (p->first_key) a->document_start = p->first_key + row;
    }
    lk_attention_forward_many(d->math, d->attentions, p->extension_count);
}

static void attention_forward(struct lk_decoder *d, const struct lk__model_layer_weights *w, uint32_t layer,
                              const struct lk__model_pass *p) {
    const struct lk_model_config *m = &d->layout->config;
    struct lk__model_activations *a = &d->layers[layer];
    size_t q = (size_t)m->heads * m->head_dim, kv = (size_t)m->kv_heads * m->head_dim;
    float *q_raw = a->q_raw ? a->q_raw : a->q, *k_raw = a->k_raw ? a->k_raw : a->k;
    const struct linear qkv[] = {
        {w->q, q, w->q_bias, NULL, q_raw}, {w->k, kv, w->k_bias, NULL, k_raw}, {w->v, kv, w->v_bias, NULL, a->v}};
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
        norm.rows = p->rows * m->kv_heads, norm.x = k_raw, norm.gain = w->k_norm, norm.y = a->k, norm.rstd = a->k_rstd;
        lk_norm_forward(d->math, &norm);
    }
    float scale = (float)(1.0 / lk_sqrt64(m->head_dim));
    if (m->family == LK_LLAMA) {
        struct lk_rope rope = {.rows = p->rows,
                               .heads = m->heads,
                               .head_dim = m->head_dim,
                               .positions = p->queries,
                               .at = p->cache ? d->at : NULL,
                               .cos_table = d->cos_table,
                               .sin_table = d->sin_table,
                               .scale = scale,
                               .x = a->q,
                               .ldx = q};
        lk_rope(d->math, &rope);
        rope.heads = m->kv_heads, rope.scale = 1, rope.x = a->k, rope.ldx = kv;
        lk_rope(d->math, &rope);
    } else
        lk_scale_rows(d->math, p->rows, q, scale, a->q, q);
    struct lk_attention attention = {.sequences = p->sequences,
                                     .queries = p->queries,
                                     .heads = m->heads,
                                     .kv_heads = m->kv_heads,
                                     .head_dim = m->head_dim,
                                     .q = a->q,
                                     .k = a->k,
                                     .v = a->v,
                                     .ldq = q,
                                     .ldk = kv,
                                     .ldv = kv,
                                     .kv_rows = p->queries,
                                     .document_start = p->first_key,
                                     .o = a->o,
                                     .ldo = q,
                                     .m = a->m,
                                     .r = a->r};
    if (p->cache) {
        attend_in_pages(d, layer, p, &attention);
        return;
    }
    if (d->cache_dtype == LK_Q8) {
        lk_quantize_through(d->math, p->rows, kv, a->k);
        lk_quantize_through(d->math, p->rows, kv, a->v);
    }
    lk_attention_forward(d->math, &attention);
}

void lk__model_layer_forward(struct lk_decoder *d, const float *weights, uint32_t layer, const struct lk__model_pass *p,
                             float *x_next) {
    const struct lk_model_config *m = &d->layout->config;
    struct lk__model_activations *a = &d->layers[layer];
    struct lk__model_layer_weights w = lk__model_layer_weights(d->layout, layer, weights);
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

/* --- All layers ----------------------------------------------------------------------------------------------- */

/* Rotary angles of positions before `end`. */
static void turn_up_to(struct lk_decoder *d, uint32_t end) {
    const struct lk_model_config *m = &d->layout->config;
    LK_ASSERT(end <= m->context);
    if (!d->cos_table || end <= d->turned) return;
    lk_rope_tables(m->head_dim / 2, d->frequencies, d->turned, end, d->cos_table, d->sin_table);
    d->turned = end;
}

/* The first key that position i sees through the window. */
static uint32_t window_begin(const struct lk_model_config *m, uint32_t i) {
    return m->window && i >= m->window ? i - m->window + 1 : 0;
}

/* The wanted rows' logits. Those of extensions are brought together first. */
static float *logits_of(struct lk_decoder *d, const float *weights, const struct lk__model_pass *p) {
    const struct lk_layout *l = d->layout;
    const struct lk_model_config *m = &l->config;
    size_t wanted = p->cache ? 0 : p->rows, row = 0;
    struct lk_norm norm = {.n = m->width,
                           .gain = lk__model_tensor(l, l->norm, weights),
                           .bias = lk__model_tensor(l, l->norm_bias, weights),
                           .epsilon = (float)m->norm_epsilon};
    for (uint32_t i = 0; i < p->extension_count; i++) {
        const struct lk_extension *e = &p->extensions[i];
        const float *x = d->x_out + row * m->width;
        row += e->count;
        if (e->hidden) {
            norm.rows = e->count, norm.x = x, norm.y = e->hidden, norm.mean = d->layers[0].mean1,
            norm.rstd = d->layers[0].rstd1;
            lk_norm_forward(d->math, &norm);
        }
        memmove(d->x_out + wanted * m->width, d->x_out + (row - e->wanted) * m->width,
                (size_t)e->wanted * m->width * sizeof(float));
        wanted += e->wanted;
    }
    if (!wanted) return d->logits;
    norm.rows = wanted, norm.x = d->x_out, norm.y = d->h_out, norm.mean = d->mean_out, norm.rstd = d->rstd_out;
    lk_norm_forward(d->math, &norm);
    linear(d, wanted, m->width, m->vocab, d->h_out, head_of(l, weights), NULL, NULL, d->logits);
    return d->logits;
}

static float *pass_forward(struct lk_decoder *d, const float *weights, const struct lk__model_pass *p,
                           const uint32_t *tokens) {
    const struct lk_layout *l = d->layout;
    const struct lk_model_config *m = &l->config;
    const float *table = lk__model_tensor(l, l->embedding, weights);
    lk_embed(d->math, &(struct lk_embed){.rows = p->rows,
                                         .n = m->width,
                                         .ids = tokens,
                                         .table = table,
                                         .dtype = l->tensors[l->embedding].dtype,
                                         .positions_table = lk__model_tensor(l, l->positions, weights),
                                         .positions = p->queries,
                                         .at = p->cache ? d->at : NULL,
                                         .out = d->layers[0].x});
    for (uint32_t i = 0; i < m->layers; i++)
        lk__model_layer_forward(d, weights, i, p, i + 1 < m->layers ? d->layers[i + 1].x : d->x_out);
    return logits_of(d, weights, p);
}

float *lk_decoder_forward(struct lk_decoder *d, const float *weights, uint32_t sequences, uint32_t positions,
                          const uint32_t *tokens, const uint32_t *document_start) {
    LK_NUMERIC_SCOPE();
    const struct lk_model_config *m = &d->layout->config;
    LK_ASSERT(d->mode != LK_EXTEND && sequences > 0 && positions > 0 && positions <= m->context);
    LK_ASSERT((size_t)sequences * positions <= (size_t)d->max_sequences * d->max_positions);
    d->sequences = sequences;
    d->positions = positions;
    d->tokens = tokens;
    d->rows = (size_t)sequences * positions;
    d->first_key = document_start;
    turn_up_to(d, positions);
    if (m->window && m->window < positions) {
        for (size_t row = 0; row < d->rows; row++) {
            uint32_t window = window_begin(m, (uint32_t)(row % positions)),
                     document = document_start ? document_start[row] : 0;
            d->start[row] = window > document ? window : document;
        }
        d->first_key = d->start;
    }
    struct lk__model_pass pass = {.sequences = sequences, .queries = positions, .rows = d->rows, .first_key = d->first_key};
    return pass_forward(d, weights, &pass, tokens);
}

/* What the rows of extensions have each: a token, a position, a place in the cache, the first key that is seen. */
static void extension_rows(struct lk_decoder *d, struct lk__model_pass *p) {
    const struct lk_model_config *m = &d->layout->config;
    size_t wanted = 0;
    uint32_t page = p->cache->page_positions;
    for (uint32_t i = 0; i < p->extension_count; i++) {
        const struct lk_extension *e = &p->extensions[i];
        LK_ASSERT(e->count > 0 && e->wanted <= e->count && p->rows + e->count <= d->max_positions);
        turn_up_to(d, e->first + e->count);
        for (uint32_t j = e->first; j < e->first + e->count; j++, p->rows++) {
            LK_ASSERT(e->pages[j / page] < p->cache->pages);
            d->place[p->rows] = e->pages[j / page] * p->cache->page_words + j % page * p->cache->row_words;
            d->at[p->rows] = j;
            d->ids[p->rows] = e->tokens[j - e->first];
            if (m->window) d->start[p->rows] = window_begin(m, j);
        }
        wanted += e->wanted;
    }
    LK_ASSERT(wanted <= d->max_sequences);
    p->first_key = d->start;
}

float *lk_decoder_extend(struct lk_decoder *d, const float *weights, const struct lk_attention_cache *cache,
                         const struct lk_extension *extensions, uint32_t count) {
    LK_NUMERIC_SCOPE();
    LK_ASSERT(d->mode == LK_EXTEND && count > 0 && (!d->panels || d->panels_of == weights));
    LK_ASSERT(d->cache_dtype == cache->dtype && "lk_decoder_extend: see lk_decoder_use_cache");
    struct lk__model_pass pass = {.cache = cache, .extensions = extensions, .extension_count = count};
    extension_rows(d, &pass);
    return pass_forward(d, weights, &pass, d->ids);
}
