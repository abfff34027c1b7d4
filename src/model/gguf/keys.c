/* The keys of a GGUF file, each with what it means here. Sources: the format's specification and the keys of its Python
 * package. A key that begins with a dot stands behind the architecture's name. */
#include "model/gguf/keys.h"
#include "lockstep/base/json.h"

#include <stdio.h>
#include <string.h>

enum { GPT2 = 1, LLAMA = 2, QWEN2 = 4, QWEN3 = 8, ROTARY = LLAMA | QWEN2 | QWEN3, ALL = GPT2 | ROTARY };
static const struct {
    const char *name;
    unsigned bit;
} architectures[] = {{"gpt2", GPT2}, {"llama", LLAMA}, {"qwen2", QWEN2}, {"qwen3", QWEN3}};

struct parsed {
    struct lk_model_config m;
    uint32_t value_length, rotated, vocab;
};
enum kind {
    SIZE,      /* a whole number into a uint32_t */
    NUMBER,    /* into a double */
    MUST_BE,   /* only the value in `value` is computed here */
    SAYS,      /* changes no result */
    TOKENIZER, /* read with the tokenizer, or by a function of its own */
};
#define AT(f)   offsetof(struct parsed, f)
#define TOKENS  "tokenizer.ggml."
#define OWN_KEY "lockstep."
static const struct {
    const char *name;
    unsigned architectures;
    enum kind kind;
    size_t at;
    const char *value; /* '|' between several */
} keys[] = {
    {".embedding_length", ALL, SIZE, AT(m.width), NULL},
    {".block_count", ALL, SIZE, AT(m.layers), NULL},
    {".feed_forward_length", ALL, SIZE, AT(m.ffn), NULL},
    {".context_length", ALL, SIZE, AT(m.context), NULL},
    {".vocab_size", ALL, SIZE, AT(vocab), NULL},
    {".attention.head_count", ALL, SIZE, AT(m.heads), NULL},
    {".attention.head_count_kv", ALL, SIZE, AT(m.kv_heads), NULL},
    {".attention.key_length", ALL, SIZE, AT(m.head_dim), NULL},
    {".attention.value_length", ALL, SIZE, AT(value_length), NULL},
    {".attention.layer_norm_epsilon", GPT2, NUMBER, AT(m.norm_epsilon), NULL},
    {".attention.layer_norm_rms_epsilon", ROTARY, NUMBER, AT(m.norm_epsilon), NULL},
    {".attention.sliding_window", ROTARY, SIZE, AT(m.window), NULL},
    {".attention.causal", ALL, MUST_BE, 0, "true"},
    {".attention.max_alibi_bias", ALL, MUST_BE, 0, "0"},
    {".attention.clamp_kqv", ALL, MUST_BE, 0, "0"},
    {".use_parallel_residual", ALL, MUST_BE, 0, "false"},
    {".logit_scale", ALL, MUST_BE, 0, "1"},
    {".expert_count", ALL, MUST_BE, 0, "0"},
    {".expert_used_count", ALL, MUST_BE, 0, "0"},
    {".pooling_type", ALL, SAYS, 0, NULL}, /* of embeddings that a program makes */
    {".tensor_data_layout", LLAMA, MUST_BE, 0, "Meta AI original pth"},
    {".rope.dimension_count", ROTARY, SIZE, AT(rotated), NULL},
    {".rope.freq_base", ROTARY, NUMBER, AT(m.rope_theta), NULL},
    {".rope.scale_linear", ROTARY, MUST_BE, 0, "1"},
    {".rope.scaling.type", ROTARY, MUST_BE, 0, "none|linear"},
    {".rope.scaling.factor", ROTARY, MUST_BE, 0, "1"},
    {".rope.scaling.attn_factor", ROTARY, MUST_BE, 0, "1"},
    {".rope.scaling.original_context_length", ROTARY, SAYS, 0, NULL}, /* with a scaling, which the type refuses */
    {".rope.scaling.finetuned", ROTARY, SAYS, 0, NULL},
    {OWN_KEY "norm_epsilon", ALL, NUMBER, AT(m.norm_epsilon), NULL},
    {OWN_KEY "rope_theta", ROTARY, NUMBER, AT(m.rope_theta), NULL},
    {OWN_KEY "init_std", ALL, NUMBER, AT(m.init_std), NULL},
    {OWN_KEY "rope_factor", ROTARY, NUMBER, AT(m.rope_factor), NULL},
    {OWN_KEY "rope_low", ROTARY, NUMBER, AT(m.rope_low), NULL},
    {OWN_KEY "rope_high", ROTARY, NUMBER, AT(m.rope_high), NULL},
    {OWN_KEY "rope_original", ROTARY, SIZE, AT(m.rope_original), NULL},
    {OWN_KEY "text_begin", ALL, TOKENIZER, 0, NULL},
    {OWN_KEY "end", ALL, TOKENIZER, 0, NULL},
    {"general.architecture", ALL, TOKENIZER, 0, NULL},
    {"general.alignment", ALL, TOKENIZER, 0, NULL},
    {"general.type", ALL, MUST_BE, 0, "model"},
    {"general.quantization_version", ALL, MUST_BE, 0, "2"},
    {"split.count", ALL, MUST_BE, 0, "0|1"},
    {"split.no", ALL, SAYS, 0, NULL},
    {"split.tensors.count", ALL, SAYS, 0, NULL},
    {TOKENS "model", ALL, TOKENIZER, 0, NULL},
    {TOKENS "pre", ALL, TOKENIZER, 0, NULL},
    {TOKENS "tokens", ALL, TOKENIZER, 0, NULL},
    {TOKENS "scores", ALL, TOKENIZER, 0, NULL},
    {TOKENS "token_type", ALL, TOKENIZER, 0, NULL},
    {TOKENS "merges", ALL, TOKENIZER, 0, NULL},
    {TOKENS "bos_token_id", ALL, TOKENIZER, 0, NULL},
    {TOKENS "eos_token_id", ALL, TOKENIZER, 0, NULL},
    {TOKENS "eot_token_id", ALL, TOKENIZER, 0, NULL},
    {TOKENS "eom_token_id", ALL, TOKENIZER, 0, NULL},
    {TOKENS "add_bos_token", ALL, TOKENIZER, 0, NULL},
    {TOKENS "add_eos_token", ALL, TOKENIZER, 0, NULL},
    {TOKENS "add_space_prefix", ALL, TOKENIZER, 0, NULL},
    {TOKENS "add_sep_token", ALL, MUST_BE, 0, "false"},
    {TOKENS "remove_extra_whitespaces", ALL, MUST_BE, 0, "false"},
    {TOKENS "unknown_token_id", ALL, SAYS, 0, NULL},
    {TOKENS "seperator_token_id", ALL, SAYS, 0, NULL}, /* spelled so */
    {TOKENS "padding_token_id", ALL, SAYS, 0, NULL},
    {TOKENS "mask_token_id", ALL, SAYS, 0, NULL},
    {TOKENS "cls_token_id", ALL, SAYS, 0, NULL},
    {TOKENS "prefix_token_id", ALL, SAYS, 0, NULL},
    {TOKENS "suffix_token_id", ALL, SAYS, 0, NULL},
    {TOKENS "middle_token_id", ALL, SAYS, 0, NULL},
    {TOKENS "fim_pre_token_id", ALL, SAYS, 0, NULL},
    {TOKENS "fim_suf_token_id", ALL, SAYS, 0, NULL},
    {TOKENS "fim_mid_token_id", ALL, SAYS, 0, NULL},
    {TOKENS "fim_pad_token_id", ALL, SAYS, 0, NULL},
    {TOKENS "fim_rep_token_id", ALL, SAYS, 0, NULL},
    {TOKENS "fim_sep_token_id", ALL, SAYS, 0, NULL},
    {"tokenizer.huggingface.json", ALL, TOKENIZER, 0, NULL},
    {"tokenizer.chat_template", ALL, TOKENIZER, 0, NULL},
    {"tokenizer.chat_templates", ALL, SAYS, 0, NULL},
};
#define KEYS (sizeof keys / sizeof *keys)
/* What a file is, who made it and how; other templates beside the one that is kept. */
static const char *const harmless[] = {"general.", "quantize.", "tokenizer.chat_template."};

const struct lk__gguf_own lk__gguf_own[LK__GGUF_OWN] = {
    {OWN_KEY "norm_epsilon", offsetof(struct lk_model_config, norm_epsilon)},
    {OWN_KEY "rope_theta", offsetof(struct lk_model_config, rope_theta)},
    {OWN_KEY "init_std", offsetof(struct lk_model_config, init_std)},
    {OWN_KEY "rope_factor", offsetof(struct lk_model_config, rope_factor)},
    {OWN_KEY "rope_low", offsetof(struct lk_model_config, rope_low)},
    {OWN_KEY "rope_high", offsetof(struct lk_model_config, rope_high)}};

struct reader {
    const struct lk__gguf *g;
    const char *file;
    const struct lk_model_import *options;
    unsigned architecture;
    const char *name; /* of the architecture */
    struct parsed p;
    struct lk_err *err;
};

/* --- One key --------------------------------------------------------------------------------------------- */

/* A value as text for messages and comparisons. */
static const char *show(const struct lk__gguf_value *v, char out[64]) {
    struct lk_bytes text;
    uint64_t whole;
    double real;
    bool truth;
    if (lk__gguf_whole(v, &whole))
        snprintf(out, 64, "%llu", (unsigned long long)whole);
    else if (lk__gguf_real(v, &real))
        snprintf(out, 64, "%.9g", real);
    else if (lk__gguf_truth(v, &truth))
        snprintf(out, 64, "%s", truth ? "true" : "false");
    else if (lk__gguf_text(v, &text))
        snprintf(out, 64, "%.*s", text.size > 60 ? 60 : (int)text.size, (const char *)text.data);
    else
        snprintf(out, 64, "%s", v->kind == LK__GGUF_ARRAY ? "an array" : "another number");
    return out;
}

static int must_be(const struct reader *r, const struct lk__gguf_value *v, const char *values) {
    char text[64];
    show(v, text);
    for (const char *p = values;; p++) {
        size_t n = strcspn(p, "|");
        if (strlen(text) == n && strncmp(text, p, n) == 0) return LK_OK;
        p += n;
        if (!*p) break;
    }
    if (strcmp(v->key, "split.count") == 0)
        return lk_fail(r->err, LK_EUNSUPPORTED,
                       "%s is one of %s files of a model: join them with llama-gguf-split --merge, and import that",
                       r->file, text);
    return lk_fail(r->err, LK_EUNSUPPORTED, "%s: %s = %s is not computed here, only %s", r->file, v->key, text, values);
}

static int read_key(struct reader *r, size_t i, const struct lk__gguf_value *v) {
    void *field = (char *)&r->p + keys[i].at;
    uint64_t whole;
    switch (keys[i].kind) {
    case SIZE:
        if (!lk__gguf_whole(v, &whole) || whole > INT32_MAX)
            return lk_fail(r->err, LK_EINVAL, "%s: %s is no whole number from 0 to %d", r->file, v->key, INT32_MAX);
        *(uint32_t *)field = (uint32_t)whole;
        return LK_OK;
    case NUMBER:
        return lk__gguf_real(v, field) ? LK_OK : lk_fail(r->err, LK_EINVAL, "%s: %s is no number", r->file, v->key);
    case MUST_BE:
        return must_be(r, v, keys[i].value);
    default:
        return LK_OK;
    }
}

static bool begins_with(const char *text, const char *begin) {
    return strncmp(text, begin, strlen(begin)) == 0;
}

/* Whether keys[i] is called so in files of this architecture. */
static bool is_key(const struct reader *r, size_t i, const char *key) {
    size_t n = strlen(r->name);
    if (!(keys[i].architectures & r->architecture)) return false;
    if (*keys[i].name != '.') return strcmp(keys[i].name, key) == 0;
    return strncmp(key, r->name, n) == 0 && strcmp(key + n, keys[i].name) == 0;
}

static bool is_passed_over(const struct reader *r, const char *key) {
    const struct lk_model_import *o = r->options;
    for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++)
        if (begins_with(key, harmless[i])) return true;
    for (size_t i = 0; i < o->ignore_count; i++)
        if (strcmp(key, o->ignore[i]) == 0) return true;
    return false;
}

/* --- All of them ----------------------------------------------------------------------------------------- */

/* In one message, which can be acted on once. */
static int refuse_unknown(const struct reader *r, const struct lk_buf *names, const struct lk_buf *options) {
    return lk_fail(r->err, LK_EUNSUPPORTED,
                   "%s: these keys are not known here, so they may change what the model computes: %s; if they do not, "
                   "import with%s",
                   r->file, names->data, options->data);
}

static int read_keys(struct reader *r) {
    struct lk_buf names = LK_BUF_INIT, options = LK_BUF_INIT;
    bool other = r->options->no_tokenizer || r->options->tokenizer;
    int code = LK_OK;
    for (size_t k = 0; k < r->g->value_count && !code; k++) {
        const struct lk__gguf_value *v = &r->g->values[k];
        size_t i = 0;
        if (other && begins_with(v->key, "tokenizer.")) continue;
        while (i < KEYS && !is_key(r, i, v->key)) i++;
        bool ignored = i == KEYS && is_passed_over(r, v->key);
        if (i < KEYS)
            code = read_key(r, i, v);
        else if (!ignored && (lk_buf_printf(&names, "%s%.80s", names.size ? ", " : "", v->key) ||
                              lk_buf_printf(&options, " --ignore %.80s", v->key)))
            code = lk_fail(r->err, LK_ENOMEM, "%s: no memory", r->file);
    }
    if (!code && names.size) code = refuse_unknown(r, &names, &options);
    lk_buf_release(&names);
    lk_buf_release(&options);
    return code;
}

static int read_architecture(struct reader *r) {
    const struct lk__gguf_value *v = lk__gguf_value(r->g, "general.architecture");
    struct lk_bytes text = {0};
    if (!v || !lk__gguf_text(v, &text)) return lk_fail(r->err, LK_EINVAL, "%s: it has no general.architecture", r->file);
    for (size_t i = 0; i < sizeof architectures / sizeof *architectures; i++)
        if (strlen(architectures[i].name) == text.size && !memcmp(text.data, architectures[i].name, text.size)) {
            r->architecture = architectures[i].bit;
            r->name = architectures[i].name;
            return LK_OK;
        }
    return lk_fail(r->err, LK_EUNSUPPORTED,
                   "%s: general.architecture = \"%.*s\" is not computed here; gpt2, llama, qwen2 and qwen3 are", r->file,
                   text.size > 60 ? 60 : (int)text.size, (const char *)text.data);
}

/* What must be said, and what an absent key means. */
static int complete(struct reader *r) {
    struct lk_model_config *m = &r->p.m;
    const struct lk__gguf_tensor *table = lk__gguf_tensor(r->g, "token_embd.weight"),
                                 *head = lk__gguf_tensor(r->g, "output.weight");
    const struct {
        bool there;
        const char *key;
    } needed[] = {{m->width, "embedding_length"},
                  {m->layers, "block_count"},
                  {m->heads, "attention.head_count"},
                  {m->context, "context_length"},
                  {m->ffn, "feed_forward_length"},
                  {m->norm_epsilon > 0,
                   r->architecture == GPT2 ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon"}};
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++)
        if (!needed[i].there)
            return lk_fail(r->err, LK_EINVAL, "%s: %s.%s is missing or 0", r->file, r->name, needed[i].key);
    if (!table) return lk_fail(r->err, LK_EINVAL, "%s: tensor token_embd.weight is missing", r->file);
    if (table->shape[1] > INT32_MAX || (r->p.vocab && r->p.vocab != table->shape[1]))
        return lk_fail(r->err, LK_EINVAL, "%s: token_embd.weight has %llu rows, %s.vocab_size says %u", r->file,
                       (unsigned long long)table->shape[1], r->name, r->p.vocab);
    m->vocab = (uint32_t)table->shape[1];
    /* Some files hold a tied table twice. */
    m->tied = !head || (head->type == table->type && head->bytes == table->bytes && head->shape[0] == table->shape[0] &&
                        !memcmp(head->data, table->data, table->bytes));
    if (!m->kv_heads) m->kv_heads = m->heads;
    if (!m->head_dim && m->width % m->heads == 0) m->head_dim = m->width / m->heads;
    if ((r->p.value_length && r->p.value_length != m->head_dim) || (r->p.rotated && r->p.rotated != m->head_dim))
        return lk_fail(r->err, LK_EUNSUPPORTED, "%s: %s.%s = %u is not computed here, only the size of a head, %u", r->file,
                       r->name,
                       r->p.rotated && r->p.rotated != m->head_dim ? "rope.dimension_count" : "attention.value_length",
                       r->p.rotated && r->p.rotated != m->head_dim ? r->p.rotated : r->p.value_length, m->head_dim);
    return LK_OK;
}

static int read_rope(struct reader *r) {
    struct lk__gguf_tensor *t = r->architecture == GPT2 ? NULL : lk__gguf_tensor(r->g, LK__GGUF_ROPE);
    struct lk_model_config *m = &r->p.m;
    float factors[512]; /* half the greatest head */
    if (!t && m->rope_factor > 0) return lk_fail(r->err, LK_EINVAL, "%s: tensor " LK__GGUF_ROPE " is missing", r->file);
    if (!t) return LK_OK;
    if (t->type != LK__GGUF_F32 || t->dims != 1 || t->shape[0] != m->head_dim / 2)
        return lk_fail(r->err, LK_EINVAL, "%s: tensor " LK__GGUF_ROPE " is not F32 of half a head's size, %u", r->file,
                       m->head_dim / 2);
    if (t->shape[0] > 512 || !lk__gguf_to_f32(t->type, t->data, t->shape[0], factors))
        return lk_fail(r->err, LK_EINVAL, "%s: tensor " LK__GGUF_ROPE " has an infinite value or NaN", r->file);
    t->used = true;
    return lk__gguf_rope_find(factors, r->file, m, r->err);
}

/* UINT32_MAX: the key is absent, or the model has no row for it, which is told. */
static int read_id(const struct reader *r, const char *key, uint32_t *out) {
    const struct lk__gguf_value *v = lk__gguf_value(r->g, key);
    const struct lk_model_import *o = r->options;
    uint64_t id;
    char text[200], value[64];
    *out = UINT32_MAX;
    if (!v) return LK_OK;
    bool whole = lk__gguf_whole(v, &id);
    if (!whole && v->kind != LK__GGUF_I32) return lk_fail(r->err, LK_EINVAL, "%s: %s is no token's number", r->file, key);
    if (whole && id < r->p.m.vocab) *out = (uint32_t)id;
    if (*out != UINT32_MAX || !whole || !o->note) return LK_OK;
    snprintf(text, sizeof text, "%s = %s is left out: the model has ids up to %u", key, show(v, value), r->p.m.vocab - 1);
    o->note(o->arg, text);
    return LK_OK;
}

static int read_ids(const struct reader *r, struct lk__gguf_config *out) {
    static const char *const stops[] = {TOKENS "eos_token_id", TOKENS "eot_token_id", TOKENS "eom_token_id"};
    int code = read_id(r, TOKENS "bos_token_id", &out->begin);
    for (size_t i = 0; i < 3 && !code; i++) {
        uint32_t id;
        code = read_id(r, stops[i], &id);
        bool there = id == UINT32_MAX;
        for (size_t j = 0; j < out->stop_count; j++) there |= out->stops[j] == id;
        if (!there) out->stops[out->stop_count++] = id;
    }
    if (!code) code = read_id(r, OWN_KEY "text_begin", &out->text_begin);
    return code ? code : read_id(r, OWN_KEY "end", &out->end);
}

int lk__gguf_config_read(const struct lk__gguf *g, const char *file, const struct lk_model_import *options,
                         struct lk__gguf_config *out, struct lk_err *err) {
    struct reader r = {.g = g, .file = file, .options = options, .err = err};
    *out = (struct lk__gguf_config){.begin = UINT32_MAX, .text_begin = UINT32_MAX, .end = UINT32_MAX};
    int code = read_architecture(&r);
    if (code) return code;
    r.p.m = (struct lk_model_config){.family = r.architecture == GPT2 ? LK_GPT2 : LK_LLAMA,
                                     .rope_theta = 10000,
                                     .init_std = 0.02,
                                     .qkv_bias = r.architecture == QWEN2,
                                     .qk_norm = r.architecture == QWEN3};
    code = read_keys(&r);
    if (!code) code = complete(&r);
    if (code) return code;
    if ((code = lk_model_config_check(&r.p.m, err))) return lk_fail_prefix(err, code, "%s", file);
    code = read_rope(&r);
    if (!code) code = read_ids(&r, out);
    out->model = r.p.m;
    out->architecture = r.name;
    return code;
}
