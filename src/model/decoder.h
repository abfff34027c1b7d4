/* The decoder's workspace, shared by its forward and backward passes. Private to src/model. */
#ifndef LOCKSTEP_MODEL_DECODER_H
#define LOCKSTEP_MODEL_DECODER_H
#include "lockstep/model/model.h"

#define LK__MODEL_STRIP 64

/* One layer's activations; rows = sequences * positions. */
struct lk__model_activations {
    float *x; /* (rows, width) the layer's input */
    float *h1, *mean1, *rstd1;
    float *q, *k, *v; /* (rows, heads * d), (rows, kv_heads * d) twice */
    float *q_raw, *k_raw, *q_rstd,
        *k_rstd;      /* with qk_norm: before it (in inference q and k), a value for each head of a row */
    float *o, *m, *r; /* (rows, heads * d); (sequences, heads, positions) twice */
    float *x_mid;     /* (rows, width) after attention */
    float *h2, *mean2, *rstd2;
    float *gate, *up; /* (rows, ffn); gate only in the llama family */
    float *act;       /* (rows, ffn) */
};

struct lk_decoder {
    const struct lk_layout *layout;
    struct lk_math *math;
    enum lk_decoder_mode mode;
    uint32_t max_sequences, max_positions;
    struct lk_arena arena;
    struct lk__model_activations *layers; /* one a layer; without LK_TRAINING they share all but x */
    float *x_out, *h_out, *mean_out, *rstd_out;
    float *logits;
    float *frequencies, *cos_table,
        *sin_table; /* (d / 2), (context, d / 2) twice, of which `turned` positions are filled */
    uint32_t turned;
    uint32_t *start; /* with a window: the first visible keys of a pass */
    /* extending */
    uint32_t *ids, *at;              /* (rows) tokens and positions */
    size_t *place;                   /* (rows) where a row of layer 0's keys goes, in floats from the cache's begin */
    struct lk_attention *attentions; /* (rows) one a sequence */
    /* backward */
    float *dx, *dh, *dout, *dq, *dk, *dv;
    struct lk_mm_part *parts;        /* max_sequences */
    struct lk_row_part *other_parts; /* max_sequences, for sums over other rows than positions */
    const uint8_t *panels;           /* NULL, or of these weights' matrices */
    const float *panels_of;
    enum lk_dtype cache_dtype; /* of keys and values */
    void *quantized;           /* rows of activations, for a narrow layout */
    float *widened;            /* (LK__MODEL_STRIP, the widest input) weights */
    /* the last pass */
    uint32_t sequences, positions;
    const uint32_t *tokens, *first_key; /* first_key: as lk_attention's document_start */
    size_t rows;
};

/* A layer's tensors in one parameter or gradient array; NULL where the family has none. */
struct lk__model_layer_weights {
    float *norm1, *norm1_bias, *q, *k, *v, *q_bias, *k_bias, *v_bias, *q_norm, *k_norm, *o, *o_bias, *norm2, *norm2_bias,
        *gate, *up, *up_bias, *down, *down_bias;
};
struct lk__model_layer_weights lk__model_layer_weights(const struct lk_layout *, uint32_t layer, const float *array);
static inline float *lk__model_tensor(const struct lk_layout *l, int index, const float *array) {
    return index < 0 ? NULL : (float *)array + l->tensors[index].offset;
}
/* Rows are either whole sequences of `queries` positions, or those of extensions: then keys and values go to a cache. */
struct lk__model_pass {
    uint32_t sequences, queries;
    size_t rows;
    const uint32_t *first_key;              /* (rows) or NULL */
    const struct lk_attention_cache *cache; /* NULL without extensions */
    const struct lk_extension *extensions;
    uint32_t extension_count;
};
/* One layer's forward: reads a->x, writes the layer's output to x_next (which may be a->x). */
void lk__model_layer_forward(struct lk_decoder *, const float *weights, uint32_t layer, const struct lk__model_pass *,
                             float *x_next);

#endif
