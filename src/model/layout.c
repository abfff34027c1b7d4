/* Tensors in canonical order: names, shapes, places, initial values. */
#include "lockstep/math/scalar.h"
#include "lockstep/model/model.h"

#include <stdio.h>
#include <string.h>

#define ALIGN_FLOATS  16
#define HEADS_MOST    65536
#define HEAD_DIM_MOST 1024      /* the reference keeps a head on the stack */
#define CONTEXT_MOST  (1 << 24) /* docs/numerics.md, sin and cos */
#define ROPE_MOST     1e6       /* of a frequency's scaling */
#define TENSOR_MOST                                                                                                        \
    4294967296.0 /* elements: their random numbers are counted in 32 bits (docs/numerics.md, section 10)                   \
                  */

/* The llama family's variants. */
static int check_variants(const struct lk_model_config *c, struct lk_err *err) {
    const char *key = c->qkv_bias          ? "qkv_bias"
                      : c->qk_norm         ? "qk_norm"
                      : c->window          ? "window"
                      : c->rope_factor > 0 ? "rope_factor"
                                           : NULL;
    if (c->family == LK_GPT2 && key) return lk_fail(err, LK_EINVAL, "[model] %s is for the llama family only", key);
    if (!(c->rope_factor == 0 || (c->rope_factor >= 1 && c->rope_factor <= ROPE_MOST)))
        return lk_fail(err, LK_EINVAL, "[model] rope_factor = %g must be 0 (no scaling) or 1 to %g", c->rope_factor,
                       ROPE_MOST);
    if (c->family == LK_LLAMA && c->context > CONTEXT_MOST)
        return lk_fail(err, LK_EINVAL, "[model] context = %u: rotary angles are defined up to %d", c->context,
                       CONTEXT_MOST);
    if (c->rope_factor == 0) return LK_OK;
    if (!(c->rope_low >= 1 / ROPE_MOST && c->rope_low < c->rope_high && c->rope_high <= ROPE_MOST))
        return lk_fail(err, LK_EINVAL, "[model] rope_low = %g must be positive and less than rope_high = %g", c->rope_low,
                       c->rope_high);
    if (!((float)(c->rope_high - c->rope_low) > 0) || c->rope_original == 0)
        return lk_fail(err, LK_EINVAL, "[model] rope_original must be at least 1, rope_high and rope_low further apart");
    return LK_OK;
}

/* What the keys of a run's configuration allow: what is trained must be read again. */
static int check_ranges(const struct lk_model_config *c, struct lk_err *err) {
    const struct {
        const char *key;
        double value, low, high;
    } ranges[] = {{"layers", c->layers, 1, 10000},
                  {"width", c->width, 1, 1048576},
                  {"ffn", c->ffn, 1, 4194304},
                  {"context", c->context, 1, 4194304},
                  {"vocab", c->vocab, 2, 2147483647},
                  {"norm_epsilon", c->norm_epsilon, 1e-30, 1},
                  {"rope_theta", c->family == LK_LLAMA ? c->rope_theta : 1, 1, 1e12},
                  {"init_std", c->init_std, 0, 10}};
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if (!(ranges[i].value >= ranges[i].low && ranges[i].value <= ranges[i].high))
            return lk_fail(err, LK_EINVAL, "[model] %s = %.15g must lie in %.15g .. %.15g", ranges[i].key, ranges[i].value,
                           ranges[i].low, ranges[i].high);
    return LK_OK;
}

int lk_model_config_check(const struct lk_model_config *c, struct lk_err *err) {
    if (c->layers == 0 || c->width == 0 || c->heads == 0 || c->ffn == 0 || c->context == 0 || c->vocab < 2)
        return lk_fail(err, LK_EINVAL,
                       "[model] layers, width, heads, ffn and context must be at least 1 and vocab at least 2");
    if (c->kv_heads == 0 || c->heads % c->kv_heads != 0)
        return lk_fail(err, LK_EINVAL, "[model] kv_heads = %u must divide heads = %u", c->kv_heads, c->heads);
    if (c->head_dim == 0)
        return lk_fail(err, LK_EINVAL, "[model] heads = %u must divide width = %u, or set head_dim", c->heads, c->width);
    if (c->family == LK_LLAMA && c->head_dim % 2 != 0)
        return lk_fail(
            err, LK_EINVAL,
            "[model] the llama family rotates pairs, so the head size must be even; it is %u (width %u / heads %u)",
            c->head_dim, c->width, c->heads);
    if (c->family == LK_GPT2 && (c->kv_heads != c->heads || c->heads * c->head_dim != c->width))
        return lk_fail(err, LK_EINVAL,
                       "[model] the gpt2 family has kv_heads = heads and heads times the head size = width");
    if (c->head_dim > HEAD_DIM_MOST || c->heads > HEADS_MOST)
        return lk_fail(err, LK_EINVAL, "[model] heads = %u of size %u: at most %d of at most %d", c->heads, c->head_dim,
                       HEADS_MOST, HEAD_DIM_MOST);
    int code = check_ranges(c, err);
    if (!code) code = check_variants(c, err);
    if (code) return code;
    double parameters = (double)c->vocab * c->width * (c->tied ? 1 : 2) +
                        (double)c->layers * ((double)c->width * c->head_dim * (2.0 * c->heads + 2.0 * c->kv_heads) +
                                             3.0 * c->width * c->ffn);
    if (parameters > 1e11)
        return lk_fail(err, LK_EINVAL, "[model] about %.3g parameters: more than 1e11 are not supported", parameters);
    double rows = c->vocab, q = (double)c->heads * c->head_dim;
    rows = rows > c->ffn ? rows : c->ffn;
    rows = rows > q ? rows : q;
    if (c->family == LK_GPT2) rows = rows > c->context ? rows : c->context;
    if (c->family == LK_GPT2) rows = rows > 3.0 * c->width ? rows : 3.0 * c->width;
    if (rows * c->width > TENSOR_MOST)
        return lk_fail(err, LK_EINVAL, "[model] width = %u makes a matrix of %.0f elements: at most %.0f", c->width,
                       rows * c->width, TENSOR_MOST);
    if (!((float)c->norm_epsilon > 0) || !(c->init_std > 0) || (c->family == LK_LLAMA && !(c->rope_theta > 1)))
        return lk_fail(err, LK_EINVAL, "[model] norm_epsilon and init_std must be positive, rope_theta greater than 1");
    return LK_OK;
}

/* Adds one tensor; columns 0 makes a vector. deviation 0: filled with constant. */
static int add(struct lk_layout *l, const char *name, uint32_t rows, uint32_t columns, double deviation, float constant) {
    struct lk_tensor *t = &l->tensors[l->tensor_count];
    snprintf(t->name, sizeof t->name, "%s", name);
    t->dims = columns ? 2 : 1;
    t->shape[0] = rows;
    t->shape[1] = columns ? columns : 1;
    t->count = t->words = (size_t)rows * (columns ? columns : 1);
    t->decay = columns != 0;
    t->deviation = deviation;
    t->constant = constant;
    l->parameters += t->count;
    return (int)l->tensor_count++;
}

static int add_in(struct lk_layout *l, const char *prefix, uint32_t layer, const char *name, uint32_t rows,
                  uint32_t columns, double deviation, float constant) {
    char full[64];
    snprintf(full, sizeof full, "%s.%u.%s", prefix, layer, name);
    return add(l, full, rows, columns, deviation, constant);
}

static void llama_tensors(struct lk_layout *l) {
    const struct lk_model_config *c = &l->config;
    const char *p = "model.layers";
    double std = c->init_std, residual = c->init_std / lk_sqrt64(2.0 * c->layers);
    uint32_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
    l->embedding = add(l, "model.embed_tokens.weight", c->vocab, c->width, std, 0);
    for (uint32_t i = 0; i < c->layers; i++) {
        struct lk_layer_tensors *t = &l->layers[i];
        t->norm1 = add_in(l, p, i, "input_layernorm.weight", c->width, 0, 0, 1);
        t->q = add_in(l, p, i, "self_attn.q_proj.weight", q, c->width, std, 0);
        if (c->qkv_bias) t->q_bias = add_in(l, p, i, "self_attn.q_proj.bias", q, 0, 0, 0);
        t->k = add_in(l, p, i, "self_attn.k_proj.weight", kv, c->width, std, 0);
        if (c->qkv_bias) t->k_bias = add_in(l, p, i, "self_attn.k_proj.bias", kv, 0, 0, 0);
        t->v = add_in(l, p, i, "self_attn.v_proj.weight", kv, c->width, std, 0);
        if (c->qkv_bias) t->v_bias = add_in(l, p, i, "self_attn.v_proj.bias", kv, 0, 0, 0);
        if (c->qk_norm) t->q_norm = add_in(l, p, i, "self_attn.q_norm.weight", c->head_dim, 0, 0, 1);
        if (c->qk_norm) t->k_norm = add_in(l, p, i, "self_attn.k_norm.weight", c->head_dim, 0, 0, 1);
        t->o = add_in(l, p, i, "self_attn.o_proj.weight", c->width, q, residual, 0);
        t->norm2 = add_in(l, p, i, "post_attention_layernorm.weight", c->width, 0, 0, 1);
        t->gate = add_in(l, p, i, "mlp.gate_proj.weight", c->ffn, c->width, std, 0);
        t->up = add_in(l, p, i, "mlp.up_proj.weight", c->ffn, c->width, std, 0);
        t->down = add_in(l, p, i, "mlp.down_proj.weight", c->width, c->ffn, residual, 0);
    }
    l->norm = add(l, "model.norm.weight", c->width, 0, 0, 1);
    if (!c->tied) l->head = add(l, "lm_head.weight", c->vocab, c->width, std, 0);
}

static void gpt2_tensors(struct lk_layout *l) {
    const struct lk_model_config *c = &l->config;
    const char *p = "h";
    double std = c->init_std, residual = c->init_std / lk_sqrt64(2.0 * c->layers);
    l->embedding = add(l, "wte.weight", c->vocab, c->width, std, 0);
    l->positions = add(l, "wpe.weight", c->context, c->width, std, 0);
    for (uint32_t i = 0; i < c->layers; i++) {
        struct lk_layer_tensors *t = &l->layers[i];
        t->norm1 = add_in(l, p, i, "ln_1.weight", c->width, 0, 0, 1);
        t->norm1_bias = add_in(l, p, i, "ln_1.bias", c->width, 0, 0, 0);
        t->qkv = add_in(l, p, i, "attn.c_attn.weight", 3 * c->width, c->width, std, 0);
        t->qkv_bias = add_in(l, p, i, "attn.c_attn.bias", 3 * c->width, 0, 0, 0);
        t->o = add_in(l, p, i, "attn.c_proj.weight", c->width, c->width, residual, 0);
        t->o_bias = add_in(l, p, i, "attn.c_proj.bias", c->width, 0, 0, 0);
        t->norm2 = add_in(l, p, i, "ln_2.weight", c->width, 0, 0, 1);
        t->norm2_bias = add_in(l, p, i, "ln_2.bias", c->width, 0, 0, 0);
        t->up = add_in(l, p, i, "mlp.c_fc.weight", c->ffn, c->width, std, 0);
        t->up_bias = add_in(l, p, i, "mlp.c_fc.bias", c->ffn, 0, 0, 0);
        t->down = add_in(l, p, i, "mlp.c_proj.weight", c->width, c->ffn, residual, 0);
        t->down_bias = add_in(l, p, i, "mlp.c_proj.bias", c->width, 0, 0, 0);
    }
    l->norm = add(l, "ln_f.weight", c->width, 0, 0, 1);
    l->norm_bias = add(l, "ln_f.bias", c->width, 0, 0, 0);
    if (!c->tied) l->head = add(l, "lm_head.weight", c->vocab, c->width, std, 0);
}

#define OTHER_TENSORS 5  /* at most, outside the layers */
#define LAYER_TENSORS 14 /* at most */
/* Where tensors lie, one behind the other at multiples of so many words, and the panels of those that products read. */
static void place(struct lk_layout *l, size_t align) {
    l->floats = l->panel_bytes = 0;
    for (size_t i = 0; i < l->tensor_count; i++) {
        struct lk_tensor *t = &l->tensors[i];
        bool read = t->dims == 2 && (int)i != l->positions && ((int)i != l->embedding || l->head < 0);
        t->offset = l->floats;
        l->floats += (t->words + align - 1) / align * align;
        t->panels = l->panel_bytes;
        size_t bytes =
            t->dtype >= LK_Q8 ? lk_quant_panels_bytes(t->dtype, t->shape[0], t->shape[1]) : t->words * sizeof(float);
        if (read) l->panel_bytes += (bytes + 63) / 64 * 64;
    }
}

int lk_layout_init(struct lk_layout *l, const struct lk_model_config *c, struct lk_err *err) {
    LK_NUMERIC_SCOPE();
    int code = lk_model_config_check(c, err);
    if (code) return code;
    *l = (struct lk_layout){.config = *c, .embedding = -1, .positions = -1, .norm = -1, .norm_bias = -1, .head = -1};
    l->tensors = lk_calloc(OTHER_TENSORS + LAYER_TENSORS * (size_t)c->layers, sizeof *l->tensors);
    l->layers = lk_alloc(c->layers * sizeof *l->layers);
    if (!l->tensors || !l->layers) {
        lk_layout_release(l);
        return lk_fail(err, LK_ENOMEM, "no memory for the table of tensors");
    }
    memset(l->layers, 0xff, c->layers * sizeof *l->layers); /* all -1 */
    if (c->family == LK_LLAMA)
        llama_tensors(l);
    else
        gpt2_tensors(l);
    place(l, ALIGN_FLOATS);
    return LK_OK;
}

void lk_layout_pack(struct lk_layout *l) {
    place(l, 1);
}
void lk_layout_narrow(struct lk_layout *l, enum lk_dtype matrices, enum lk_dtype ends) {
    for (size_t i = 0; i < l->tensor_count; i++) {
        struct lk_tensor *t = &l->tensors[i];
        enum lk_dtype f = (int)i == l->embedding || (int)i == l->head ? ends : matrices;
        size_t row = t->dims == 2 && (int)i != l->positions ? lk_dtype_row_bytes(f, t->shape[1]) : 0;
        if (row % 4 && f < LK_Q8) row = 0; /* parts of tensors begin at whole words */
        t->dtype = row ? f : LK_F32;
        t->words = row ? (t->shape[0] * row + 3) / 4 : t->count;
    }
    l->narrow = true;
    place(l, ALIGN_FLOATS);
}

void lk_layout_release(struct lk_layout *l) {
    lk_free(l->tensors);
    lk_free(l->layers);
    *l = (struct lk_layout){0};
}

void lk_layout_initialise(const struct lk_layout *l, struct lk_math *math, uint64_t seed, float *w) {
    LK_NUMERIC_SCOPE();
    lk_zero(math, l->floats, w);
    for (size_t i = 0; i < l->tensor_count; i++) {
        const struct lk_tensor *t = &l->tensors[i];
        if (t->deviation > 0)
            lk_init_normal(math, seed, (uint32_t)i, t->deviation, t->count, w + t->offset);
        else
            for (size_t j = 0; j < t->count; j++) w[t->offset + j] = t->constant;
    }
}

double lk_model_flops(const struct lk_model_config *c, uint64_t sequences, uint32_t positions) {
    double tokens = (double)sequences * positions, q = (double)c->heads * c->head_dim,
           kv = (double)c->kv_heads * c->head_dim;
    double matrices = (double)c->width * (2 * q + 2 * kv) + (c->family == LK_LLAMA ? 3.0 : 2.0) * c->width * c->ffn;
    double hidden = c->window && positions > c->window ? positions - c->window : 0; /* keys, of the last position */
    double visible = (positions + 1.0 - hidden * (hidden + 1.0) / positions) / 2.0; /* keys, of the mean position */
    double attention = 2.0 * q * visible;                                           /* q.k and E v */
    return 2.0 * tokens * (c->layers * (matrices + attention) + (double)c->vocab * c->width);
}
