/* The memory of a decoder: one arena of activations and gradients; the cache of keys and values. */
#include "decoder.h"
#include "lockstep/math/scalar.h"

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
                      struct lk__model_activations *a) {
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
    bool train = d->mode == LK_TRAINING || d->mode == LK_RECOMPUTE, extend = d->mode == LK_EXTEND;
    size_t rows = extend ? d->max_positions : (size_t)d->max_sequences * d->max_positions;
    size_t out_rows = extend ? d->max_sequences : rows;
    size_t q = (size_t)m->heads * m->head_dim, kv = (size_t)m->kv_heads * m->head_dim;
    for (uint32_t i = 0; i < m->layers; i++) {
        struct lk__model_activations counted, *a = d->layers ? &d->layers[i] : &counted;
        if (i == 0 || d->mode == LK_TRAINING)
            cut_layer(c, m, rows, train, a);
        else if (d->layers)
            *a = d->layers[0];
        if (i == 0 || train) a->x = cut(c, rows * m->width);
    }
    d->x_out = train ? cut(c, rows * m->width) : d->layers ? d->layers[0].x : NULL;
    d->h_out = cut(c, out_rows * m->width);
    d->mean_out = cut(c, out_rows);
    d->rstd_out = cut(c, out_rows);
    d->logits = cut(c, out_rows * m->vocab);
    if (m->family == LK_LLAMA) {
        d->frequencies = cut(c, m->head_dim / 2);
        d->cos_table = cut(c, (size_t)m->context * m->head_dim / 2);
        d->sin_table = cut(c, (size_t)m->context * m->head_dim / 2);
    }
    if (m->window) d->start = (uint32_t *)cut(c, rows);
    if (d->layout->narrow) {
        size_t widest = m->ffn > m->width ? m->ffn : m->width;
        d->widened = cut(c, LK__MODEL_STRIP * (widest > q ? widest : q));
        d->quantized = cut(c, lk_quantized_bytes(rows, ((widest > q ? widest : q) + 31) / 32 * 32) / sizeof(float));
    }
    if (extend) {
        d->ids = (uint32_t *)cut(c, rows);
        d->at = (uint32_t *)cut(c, rows);
        d->place = (size_t *)cut(c, rows * (sizeof *d->place / sizeof(float)));
    }
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
    return lk_attention_scratch_bytes(positions, layout->config.head_dim, mode == LK_TRAINING || mode == LK_RECOMPUTE);
}

int lk_decoder_create(const struct lk_layout *layout, struct lk_math *math, uint32_t sequences, uint32_t positions,
                      enum lk_decoder_mode mode, struct lk_decoder **out, struct lk_err *err) {
    LK_NUMERIC_SCOPE();
    LK_ASSERT(sequences > 0 && positions > 0 && (mode == LK_EXTEND || positions <= layout->config.context));
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
    if (mode == LK_EXTEND) d->attentions = lk_alloc(positions * sizeof *d->attentions);
    if (!d->parts || !d->other_parts || !d->layers || (mode == LK_EXTEND && !d->attentions) ||
        lk_arena_init(&d->arena, bytes)) {
        lk_decoder_free(d);
        return lk_fail(err, LK_ENOMEM, "no memory for the activations of %u sequences of %u positions (%zu MB)",
                       mode == LK_EXTEND ? 1 : sequences, positions, bytes / 1000000);
    }
    struct cutter c = {.arena = &d->arena};
    cut_all(&c, d);
    const struct lk_model_config *m = &layout->config;
    struct lk_rope_scaling scaling = {m->rope_factor, m->rope_low, m->rope_high, m->rope_original};
    if (d->frequencies) lk_rope_frequencies(m->head_dim, m->rope_theta, &scaling, d->frequencies);
    size_t scratch = lk_decoder_scratch_bytes(layout, m->context, mode), width = m->ffn > m->width ? m->ffn : m->width;
    size_t q = (size_t)m->heads * m->head_dim, panels = lk_panels_scratch_bytes(math, q > width ? q : width);
    if ((mode == LK_EXTEND || layout->narrow) && panels > scratch) scratch = panels;
    int code = lk_math_reserve(math, scratch, err);
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
    lk_free(d->attentions);
    lk_free(d);
}

static size_t row_words(const struct lk_layout *layout, enum lk_dtype dtype) {
    return (lk_dtype_row_bytes(dtype, (size_t)layout->config.kv_heads * layout->config.head_dim) + 3) / 4;
}
static size_t page_words(const struct lk_layout *layout, enum lk_dtype dtype, uint32_t page_positions) {
    return (size_t)layout->config.layers * 2 * page_positions * row_words(layout, dtype);
}

size_t lk_attention_cache_bytes(const struct lk_layout *layout, enum lk_dtype dtype, uint32_t page_positions,
                                uint32_t pages) {
    return page_words(layout, dtype, page_positions) * pages * sizeof(float);
}

static int check_cache(const struct lk_layout *layout, enum lk_dtype dtype, struct lk_err *err) {
    if (dtype == LK_F32 || (dtype == LK_Q8 && layout->config.head_dim % LK_QUANT_BLOCK == 0)) return LK_OK;
    if (dtype != LK_Q8)
        return lk_fail(err, LK_EUNSUPPORTED, "keys and values are kept in f32 or q8, not in %s", lk_dtype_name(dtype));
    return lk_fail(err, LK_EUNSUPPORTED,
                   "keys and values in q8 want heads of a multiple of %d numbers; the model's have %u", LK_QUANT_BLOCK,
                   layout->config.head_dim);
}

int lk_decoder_use_cache(struct lk_decoder *d, enum lk_dtype dtype, struct lk_err *err) {
    const struct lk_model_config *m = &d->layout->config;
    int code = check_cache(d->layout, dtype, err);
    LK_ASSERT(d->mode == LK_EXTEND || d->mode == LK_INFER);
    if (!code && dtype == LK_Q8)
        code = lk_math_reserve(d->math,
                               lk_decoder_scratch_bytes(d->layout, m->context, d->mode) +
                                   lk_attention_widened_bytes(m->context, m->head_dim),
                               err);
    if (!code) d->cache_dtype = dtype;
    return code;
}

int lk_attention_cache_init(struct lk_attention_cache *cache, const struct lk_layout *layout, enum lk_dtype dtype,
                            uint32_t page_positions, uint32_t pages, struct lk_err *err) {
    *cache = (struct lk_attention_cache){0};
    int code = check_cache(layout, dtype, err);
    if (code) return code;
    *cache = (struct lk_attention_cache){.dtype = dtype,
                                         .page_positions = page_positions,
                                         .pages = pages,
                                         .row_words = row_words(layout, dtype),
                                         .page_words = page_words(layout, dtype, page_positions)};
    size_t bytes;
    bool fits = !__builtin_mul_overflow(cache->page_words * sizeof(float), (size_t)pages, &bytes);
    if (fits && !lk_arena_init(&cache->memory, bytes)) cache->data = lk_arena_take(&cache->memory, bytes);
    return cache->data ? LK_OK
                       : lk_fail(err, LK_ENOMEM, "no memory for the keys and values of %zu positions",
                                 (size_t)page_positions * pages);
}

void lk_attention_cache_release(struct lk_attention_cache *cache) {
    lk_arena_release(&cache->memory);
    *cache = (struct lk_attention_cache){0};
}
