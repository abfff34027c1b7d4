/* config.json, key by key. Sources: the configuration classes and rope utilities of transformers 5.23.0, whose defaults
 * hold for absent keys, and files of earlier versions (rope_theta and rope_scaling beside rope_parameters). */
#include "huggingface.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { GPT2 = 1, LLAMA = 2, MISTRAL = 4, QWEN2 = 8, QWEN3 = 16 };
#define ROTARY (LLAMA | MISTRAL | QWEN2 | QWEN3)
#define ALL    (GPT2 | ROTARY)
static const struct {
    const char *name, *architecture;
    unsigned bit;
} model_types[] = {{"gpt2", "GPT2LMHeadModel", GPT2},
                   {"llama", "LlamaForCausalLM", LLAMA},
                   {"mistral", "MistralForCausalLM", MISTRAL},
                   {"qwen2", "Qwen2ForCausalLM", QWEN2},
                   {"qwen3", "Qwen3ForCausalLM", QWEN3}};
#define MODEL_TYPES (sizeof model_types / sizeof *model_types)

/* What is read besides lk_model_config's own fields. */
struct parsed {
    struct lk_model_config m;
    uint32_t sliding_window, max_window_layers, n_ctx;
    bool use_sliding_window, no_window; /* no_window: sliding_window is null */
};
enum kind {
    SIZE,      /* a whole number into a uint32_t */
    NUMBER,    /* into a double */
    YES_NO,    /* into a bool */
    MUST_BE,   /* only the value in `value` is computed here */
    SAYS,      /* changes no result */
    DROPOUT,   /* of training only */
    ELSEWHERE, /* read by a function of its own */
};
#define AT(f) offsetof(struct parsed, f)
static const struct {
    const char *name;
    unsigned types;
    enum kind kind;
    size_t at;
    const char *value; /* JSON; '|' between several */
} keys[] = {
    {"n_embd", GPT2, SIZE, AT(m.width), NULL},
    {"n_layer", GPT2, SIZE, AT(m.layers), NULL},
    {"n_head", GPT2, SIZE, AT(m.heads), NULL},
    {"n_inner", GPT2, SIZE, AT(m.ffn), NULL},
    {"n_positions", GPT2, SIZE, AT(m.context), NULL},
    {"n_ctx", GPT2, SIZE, AT(n_ctx), NULL},
    {"layer_norm_epsilon", GPT2, NUMBER, AT(m.norm_epsilon), NULL},
    {"activation_function", GPT2, MUST_BE, 0, "\"gelu_new\"|\"gelu_pytorch_tanh\""},
    {"scale_attn_weights", GPT2, MUST_BE, 0, "true"},
    {"scale_attn_by_inverse_layer_idx", GPT2, MUST_BE, 0, "false"},
    {"add_cross_attention", GPT2, MUST_BE, 0, "false"},
    {"reorder_and_upcast_attn", GPT2, SAYS, 0, NULL}, /* of half precision */
    {"attn_pdrop", GPT2, DROPOUT, 0, NULL},
    {"embd_pdrop", GPT2, DROPOUT, 0, NULL},
    {"resid_pdrop", GPT2, DROPOUT, 0, NULL},
    {"hidden_size", ROTARY, SIZE, AT(m.width), NULL},
    {"num_hidden_layers", ROTARY, SIZE, AT(m.layers), NULL},
    {"num_attention_heads", ROTARY, SIZE, AT(m.heads), NULL},
    {"num_key_value_heads", ROTARY, SIZE, AT(m.kv_heads), NULL},
    {"head_dim", ROTARY, SIZE, AT(m.head_dim), NULL},
    {"intermediate_size", ROTARY, SIZE, AT(m.ffn), NULL},
    {"max_position_embeddings", ROTARY, SIZE, AT(m.context), NULL},
    {"rms_norm_eps", ROTARY, NUMBER, AT(m.norm_epsilon), NULL},
    {"rope_theta", ROTARY, NUMBER, AT(m.rope_theta), NULL},
    {"rope_scaling", ROTARY, ELSEWHERE, 0, NULL},
    {"rope_parameters", ROTARY, ELSEWHERE, 0, NULL},
    {"rope_interleaved", ROTARY, MUST_BE, 0, "false"},
    {"partial_rotary_factor", ROTARY, MUST_BE, 0, "1|1.0"},
    {"hidden_act", ROTARY, MUST_BE, 0, "\"silu\""},
    {"attention_bias", ROTARY, MUST_BE, 0, "false"},
    {"mlp_bias", ROTARY, MUST_BE, 0, "false"},
    {"attention_dropout", ROTARY, DROPOUT, 0, NULL},
    {"pretraining_tp", ROTARY, MUST_BE, 0, "1"},
    {"sliding_window", MISTRAL | QWEN2 | QWEN3, ELSEWHERE, 0, NULL},
    {"use_sliding_window", QWEN2 | QWEN3, YES_NO, AT(use_sliding_window), NULL},
    {"max_window_layers", QWEN2 | QWEN3, SIZE, AT(max_window_layers), NULL},
    {"use_mrope", QWEN2, MUST_BE, 0, "false"},
    {"layer_types", ROTARY, ELSEWHERE, 0, NULL},
    {"is_llama_config", ROTARY, SAYS, 0, NULL},
    {"vocab_size", ALL, SIZE, AT(m.vocab), NULL},
    {"tie_word_embeddings", ALL, YES_NO, AT(m.tied), NULL},
    {"initializer_range", ALL, NUMBER, AT(m.init_std), NULL},
    {"is_encoder_decoder", ALL, MUST_BE, 0, "false"},
    {"is_decoder", ALL, SAYS, 0, NULL},
    {"architectures", ALL, ELSEWHERE, 0, NULL},
    {"model_type", ALL, ELSEWHERE, 0, NULL},
    {"bos_token_id", ALL, ELSEWHERE, 0, NULL},
    {"eos_token_id", ALL, ELSEWHERE, 0, NULL},
    {"tie_encoder_decoder", ALL, MUST_BE, 0, "false"},
    {"add_cross_attention", ROTARY, MUST_BE, 0, "false"},
    {"pruned_heads", ALL, MUST_BE, 0, "{}"},
};
#define KEYS (sizeof keys / sizeof *keys)

/* Keys that change no result, in files of any type. */
static const char *const harmless[] = {
    /* what a file is and who wrote it; the tensors say their own type */
    "_name_or_path", "_commit_hash", "transformers_version", "transformers.js_config", "torch_dtype", "dtype",
    "use_bfloat16", "unsloth_fixed", "unsloth_version",
    /* how a program computes, and what it returns besides */
    "use_cache", "gradient_checkpointing", "attn_implementation", "_attn_implementation", "_attn_implementation_internal",
    "_attn_implementation_autoset", "_flash_attn_2_enabled", "chunk_size_feed_forward", "torchscript", "output_attentions",
    "output_hidden_states", "output_past", "output_scores", "return_dict", "use_return_dict", "return_dict_in_generate",
    "tf_legacy_loss", "loss_type",
    /* heads that classify, tasks */
    "_num_labels", "num_labels", "id2label", "label2id", "problem_type", "finetuning_task", "task_specific_params",
    "summary_activation", "summary_first_dropout", "summary_hidden_size", "summary_proj_to_labels", "summary_type",
    "summary_use_proj", "n_special", "predict_special_tokens", "cross_attention_hidden_size",
    /* the tokenizer's */
    "tokenizer_class", "prefix", "bos_token", "eos_token", "pad_token", "unk_token", "pad_token_id", "sep_token_id",
    "cls_token_id", "unk_token_id", "decoder_start_token_id",
    /* how older files say the wishes that stand in generation_config.json now */
    "do_sample", "early_stopping", "max_length", "min_length", "max_new_tokens", "num_beams", "num_beam_groups",
    "diversity_penalty", "temperature", "top_k", "top_p", "typical_p", "repetition_penalty", "length_penalty",
    "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids", "num_return_sequences", "suppress_tokens",
    "begin_suppress_tokens", "forced_bos_token_id", "forced_eos_token_id", "remove_invalid_values",
    "exponential_decay_length_penalty"};
#define HARMLESS (sizeof harmless / sizeof *harmless)

static bool is_among(const char *key, const char *const *list, size_t count) {
    while (count && strcmp(list[count - 1], key)) count--;
    return count > 0;
}

struct reader {
    const json_t *config;
    const char *file;
    unsigned type;
    struct parsed p;
    const struct lk__hf_notes *notes;
    struct lk_err *err;
};

static int refuse(const struct reader *r, const char *key, const char *why) {
    return lk_fail(r->err, LK_EUNSUPPORTED, "%s: %s %s", r->file, key, why);
}

/* A value as text for messages. */
static const char *show(const json_t *v, char out[64]) {
    char *text = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
    snprintf(out, 64, "%s", text ? text : "?");
    free(text);
    return out;
}

static int read_size(const struct reader *r, const char *key, const json_t *v, uint32_t *out) {
    if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > INT32_MAX)
        return lk_fail(r->err, LK_EINVAL, "%s: %s is no whole number from 0 to %d", r->file, key, INT32_MAX);
    *out = (uint32_t)json_integer_value(v);
    return LK_OK;
}

static int read_number(const struct reader *r, const char *key, const json_t *v, double *out) {
    if (!json_is_number(v)) return lk_fail(r->err, LK_EINVAL, "%s: %s is no number", r->file, key);
    *out = json_number_value(v);
    return LK_OK;
}

static int must_be(const struct reader *r, const char *key, const json_t *v, const char *values) {
    char text[64], why[200];
    show(v, text);
    for (const char *p = values;; p++) {
        size_t n = strcspn(p, "|");
        if (strlen(text) == n && strncmp(text, p, n) == 0) return LK_OK;
        p += n;
        if (!*p) break;
    }
    snprintf(why, sizeof why, "= %s is not computed here, only %s", text, values);
    return refuse(r, key, why);
}

static int read_key(struct reader *r, size_t i, const json_t *v) {
    void *field = (char *)&r->p + keys[i].at;
    char text[160];
    switch (keys[i].kind) {
    case SIZE:
        return read_size(r, keys[i].name, v, field);
    case NUMBER:
        return read_number(r, keys[i].name, v, field);
    case YES_NO:
        if (!json_is_boolean(v)) return lk_fail(r->err, LK_EINVAL, "%s: %s is not true or false", r->file, keys[i].name);
        *(bool *)field = json_is_true(v);
        return LK_OK;
    case MUST_BE:
        return must_be(r, keys[i].name, v, keys[i].value);
    case DROPOUT:
        if (!json_is_number(v)) return lk_fail(r->err, LK_EINVAL, "%s: %s is no number", r->file, keys[i].name);
        if (json_number_value(v) != 0 && r->notes && r->notes->note) {
            snprintf(text, sizeof text, "%s = %g: a dropout of training; training goes on without", keys[i].name,
                     json_number_value(v));
            r->notes->note(r->notes->arg, text);
        }
        return LK_OK;
    default:
        return LK_OK;
    }
}

/* All of them in one message, which can be acted on once. */
static int refuse_unknown(const struct reader *r, const json_t *unknown) {
    struct lk_buf names = LK_BUF_INIT, options = LK_BUF_INIT;
    size_t n = json_array_size(unknown);
    int bad = 0;
    for (size_t i = 0; i < n && !bad; i++) {
        const char *key = json_string_value(json_array_get(unknown, i));
        bad = lk_buf_printf(&names, "%s%.60s", i == 0 ? "" : i + 1 < n ? ", " : " and ", key);
        if (!bad) bad = lk_buf_printf(&options, " --ignore %.60s", key);
    }
    int code =
        bad ? lk_fail(r->err, LK_ENOMEM, "%s: no memory", r->file)
            : lk_fail(r->err, LK_EUNSUPPORTED,
                      "%s: the key%s %s %s not known here, so %s may change what the model computes; if %s not, import "
                      "with%s",
                      r->file, n > 1 ? "s" : "", names.data, n > 1 ? "are" : "is", n > 1 ? "they" : "it",
                      n > 1 ? "they do" : "it does", options.data);
    lk_buf_release(&names);
    lk_buf_release(&options);
    return code;
}

static int read_keys(struct reader *r, const char *const *ignore, size_t ignore_count) {
    const char *key;
    json_t *value, *unknown = json_array();
    int code = unknown ? LK_OK : lk_fail(r->err, LK_ENOMEM, "%s: no memory", r->file);
    json_object_foreach((json_t *)(uintptr_t)r->config, key, value) {
        size_t i = 0;
        if (code) break;
        while (i < KEYS && (strcmp(keys[i].name, key) || !(keys[i].types & r->type))) i++;
        if (json_is_null(value)) continue;
        if (i < KEYS)
            code = read_key(r, i, value);
        else if (!is_among(key, harmless, HARMLESS) && !is_among(key, ignore, ignore_count) &&
                 json_array_append_new(unknown, json_string(key)))
            code = lk_fail(r->err, LK_ENOMEM, "%s: no memory", r->file);
    }
    if (!code && json_array_size(unknown)) code = refuse_unknown(r, unknown);
    json_decref(unknown);
    return code;
}

/* --- Rotary positions ------------------------------------------------------------------------------------ */

/* Whether the key is there for transformers: {} counts as absent. */
static bool said(const json_t *rope) {
    return rope && !json_is_null(rope) && !(json_is_object(rope) && !json_object_size(rope));
}

static int read_rope(struct reader *r, const char *name) {
    static const char *const number_names[] = {"rope_theta", "factor", "low_freq_factor", "high_freq_factor"};
    struct lk_model_config *m = &r->p.m;
    double *const numbers[] = {&m->rope_theta, &m->rope_factor, &m->rope_low, &m->rope_high};
    const json_t *rope = json_object_get(r->config, name);
    const char *key;
    json_t *value;
    char full[100];
    if (!said(rope)) return LK_OK;
    if (!json_is_object(rope)) return lk_fail(r->err, LK_EINVAL, "%s: %s is no object", r->file, name);
    const json_t *type = json_object_get(rope, "rope_type");
    if (!type || json_is_null(type)) type = json_object_get(rope, "type"); /* its name before transformers 4.43 */
    const char *word = type && !json_is_null(type) ? json_string_value(type) : "default";
    bool llama3 = word && strcmp(word, "llama3") == 0;
    snprintf(full, sizeof full, "%s.rope_type", name);
    if (!llama3 && (!word || strcmp(word, "default"))) return must_be(r, full, type, "\"default\"|\"llama3\"");
    json_object_foreach((json_t *)(uintptr_t)rope, key, value) {
        size_t i = 0;
        int code = LK_OK;
        if (json_is_null(value)) continue;
        snprintf(full, sizeof full, "%s.%.60s", name, key);
        while (i < 4 && strcmp(number_names[i], key)) i++;
        if (i < 4 && (i == 0 || llama3))
            code = read_number(r, full, value, numbers[i]);
        else if (llama3 && strcmp(key, "original_max_position_embeddings") == 0)
            code = read_size(r, full, value, &m->rope_original);
        else if (strcmp(key, "partial_rotary_factor") == 0)
            code = must_be(r, full, value, "1|1.0");
        else if (strcmp(key, "rope_type") && strcmp(key, "type"))
            code = refuse(r, full, "is not known here");
        if (code) return code;
    }
    if (llama3 && (!(m->rope_factor > 0) || !(m->rope_low > 0) || !(m->rope_high > m->rope_low) || !m->rope_original))
        return lk_fail(r->err, LK_EINVAL,
                       "%s: %s of type llama3 wants factor, low_freq_factor, a greater high_freq_factor and "
                       "original_max_position_embeddings",
                       r->file, name);
    return LK_OK;
}

/* --- The window ------------------------------------------------------------------------------------------ */

/* How many layers see a window only; the first of them is looked at by the caller where it is not all. */
static int read_window(struct reader *r) {
    struct parsed *p = &r->p;
    const json_t *window = json_object_get(r->config, "sliding_window"), *types = json_object_get(r->config, "layer_types");
    uint32_t size = 4096; /* the classes' default */
    if (r->type & (GPT2 | LLAMA)) size = 0;
    if (json_is_null(window)) size = 0;
    int code = window && !json_is_null(window) ? read_size(r, "sliding_window", window, &size) : LK_OK;
    if (code) return code;
    bool some = r->type == MISTRAL || (p->use_sliding_window && p->max_window_layers < p->m.layers);
    bool all = r->type == MISTRAL || p->max_window_layers == 0;
    if (json_is_array(types)) {
        size_t sliding = 0;
        for (size_t i = 0; i < json_array_size(types); i++) {
            const char *word = json_string_value(json_array_get(types, i));
            bool is = word && strcmp(word, "sliding_attention") == 0;
            if (!is && (!word || strcmp(word, "full_attention")))
                return refuse(r, "layer_types", "names a type of attention that is not known here");
            sliding += is;
        }
        if (json_array_size(types) != p->m.layers)
            return lk_fail(r->err, LK_EINVAL, "%s: layer_types has %zu entries for %u layers", r->file,
                           json_array_size(types), p->m.layers);
        some = sliding > 0;
        all = sliding == p->m.layers;
    }
    if (!some || json_is_null(window)) return LK_OK;
    if (!size && !(r->type & (GPT2 | LLAMA))) return refuse(r, "sliding_window", "= 0 lets nothing be seen");
    if (!size) return LK_OK;
    if (!all)
        return refuse(r, json_is_array(types) ? "layer_types" : "max_window_layers",
                      "gives only some layers a window; all or none is computed here");
    p->m.window = size;
    return LK_OK;
}

/* --- The whole ------------------------------------------------------------------------------------------- */

static int read_type(struct reader *r, const char **name) {
    const char *type = json_string_value(json_object_get(r->config, "model_type"));
    const json_t *architectures = json_object_get(r->config, "architectures");
    for (size_t i = 0; type && i < MODEL_TYPES; i++) {
        if (strcmp(type, model_types[i].name)) continue;
        r->type = model_types[i].bit;
        *name = model_types[i].name;
        const char *a = json_string_value(json_array_get(architectures, 0));
        bool absent = !architectures || json_is_null(architectures) ||
                      (json_is_array(architectures) && !json_array_size(architectures));
        if (absent || (a && strcmp(a, model_types[i].architecture) == 0)) return LK_OK;
        return lk_fail(r->err, LK_EUNSUPPORTED, "%s: architectures = [\"%.60s\"] is not computed here, only %s", r->file,
                       a ? a : "?", model_types[i].architecture);
    }
    return lk_fail(r->err, LK_EUNSUPPORTED,
                   "%s: model_type = \"%.60s\" is not computed here; gpt2, llama, mistral, qwen2 and qwen3 are", r->file,
                   type ? type : "");
}

/* What must be said, and what an absent key means. */
static int complete(struct reader *r) {
    struct parsed *p = &r->p;
    struct lk_model_config *m = &p->m;
    const struct {
        uint32_t value;
        const char *gpt2, *others;
    } needed[] = {{m->width, "n_embd", "hidden_size"},         {m->layers, "n_layer", "num_hidden_layers"},
                  {m->heads, "n_head", "num_attention_heads"}, {m->context, "n_positions", "max_position_embeddings"},
                  {m->vocab, "vocab_size", "vocab_size"},      {m->family == LK_GPT2 || m->ffn, NULL, "intermediate_size"}};
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++)
        if (!needed[i].value)
            return lk_fail(r->err, LK_EINVAL, "%s: %s is missing or 0", r->file,
                           m->family == LK_GPT2 ? needed[i].gpt2 : needed[i].others);
    if (p->n_ctx && p->n_ctx != m->context) return refuse(r, "n_ctx", "differs from n_positions");
    if (!m->kv_heads) m->kv_heads = m->heads; /* the key is null, or not of this type */
    if (!m->head_dim && m->width % m->heads == 0) m->head_dim = m->width / m->heads;
    if (!m->ffn) m->ffn = 4 * m->width;
    return LK_OK;
}

int lk__hf_file(const char *path, bool *there, struct lk_err *err) {
    struct stat s;
    *there = lstat(path, &s) == 0;
    if (!*there) return errno == ENOENT ? LK_OK : lk_fail_errno(err, "cannot look at %s", path);
    if (stat(path, &s)) return lk_fail(err, LK_EIO, "cannot follow the link %s: %s", path, strerror(errno));
    return S_ISREG(s.st_mode) ? LK_OK : lk_fail(err, LK_EINVAL, "%s is no regular file", path);
}

/* *id: UINT32_MAX when there is no such row, which is told. */
static int read_id(const struct lk__hf_notes *notes, const json_t *v, const char *file, const char *key, uint32_t vocab,
                   uint32_t *id, struct lk_err *err) {
    char text[300];
    if (!json_is_integer(v)) return lk_fail(err, LK_EINVAL, "%s: %s is no token's number", file, key);
    json_int_t n = json_integer_value(v);
    *id = n >= 0 && n < (json_int_t)vocab ? (uint32_t)n : UINT32_MAX;
    if (*id != UINT32_MAX || n == -1 || !notes || !notes->note) return LK_OK; /* -1 says none in some files */
    snprintf(text, sizeof text, "%.150s: %s = %lld is left out: the model has ids up to %u", file, key, (long long)n,
             vocab - 1);
    notes->note(notes->arg, text);
    return LK_OK;
}

int lk__hf_stops(const json_t *eos, const char *file, const struct lk__hf_notes *notes, struct lk__hf_config *c,
                 struct lk_err *err) {
    size_t n = json_is_array(eos) ? json_array_size(eos) : eos && !json_is_null(eos);
    for (size_t i = 0; i < n; i++) {
        uint32_t id = UINT32_MAX;
        int code = read_id(notes, json_is_array(eos) ? json_array_get(eos, i) : eos, file, "eos_token_id", c->model.vocab,
                           &id, err);
        if (code) return code;
        bool there = id == UINT32_MAX;
        for (size_t j = 0; j < c->stop_count; j++) there |= c->stops[j] == id;
        if (there) continue;
        if (c->stop_count == LK_MODEL_STOPS)
            return lk_fail(err, LK_EUNSUPPORTED, "%s: eos_token_id has more than %d ids", file, LK_MODEL_STOPS);
        c->stops[c->stop_count++] = id;
    }
    return LK_OK;
}

int lk__hf_config_read(const json_t *config, const char *file, const char *const *ignore, size_t ignore_count,
                       const struct lk__hf_notes *notes, struct lk__hf_config *out, struct lk_err *err) {
    struct reader r = {.config = config, .file = file, .notes = notes, .err = err};
    *out = (struct lk__hf_config){.begin = UINT32_MAX};
    if (!json_is_object(config)) return lk_fail(err, LK_EINVAL, "%s: no JSON object", file);
    int code = read_type(&r, &out->type);
    if (code) return code;
    r.p.max_window_layers = 28; /* the classes' defaults */
    r.p.m = (struct lk_model_config){.family = r.type == GPT2 ? LK_GPT2 : LK_LLAMA,
                                     .tied = r.type == GPT2,
                                     .norm_epsilon = r.type == GPT2 ? 1e-5 : 1e-6,
                                     .rope_theta = 10000,
                                     .init_std = 0.02,
                                     .qkv_bias = r.type == QWEN2,
                                     .qk_norm = r.type == QWEN3};
    if (r.type & (MISTRAL | QWEN2 | QWEN3) && !json_object_get(config, "num_key_value_heads"))
        r.p.m.kv_heads = r.type == MISTRAL ? 8 : 32;
    if (r.type == QWEN3 && !json_object_get(config, "head_dim")) r.p.m.head_dim = 128;
    code = read_keys(&r, ignore, ignore_count);
    if (!code && said(json_object_get(config, "rope_scaling")) && said(json_object_get(config, "rope_parameters")))
        code = refuse(&r, "rope_scaling",
                      "stands beside rope_parameters, and versions of transformers differ in which they take");
    if (!code) code = read_rope(&r, "rope_scaling");
    if (!code) code = read_rope(&r, "rope_parameters");
    if (!code) code = complete(&r);
    if (!code) code = read_window(&r);
    if (code) return code;
    out->model = r.p.m;
    const json_t *begin = json_object_get(config, "bos_token_id");
    code = lk__hf_stops(json_object_get(config, "eos_token_id"), file, notes, out, err);
    if (!code && begin && !json_is_null(begin))
        code = read_id(notes, begin, file, "bos_token_id", out->model.vocab, &out->begin, err);
    if (code) return code;
    code = lk_model_config_check(&out->model, err);
    return code ? lk_fail_prefix(err, code, "%s", file) : LK_OK;
}

/* --- Writing --------------------------------------------------------------------------------------------- */

static bool computes(unsigned type, const struct lk_model_config *m) {
    if (m->family == LK_GPT2) return type == GPT2;
    if (type == GPT2 || (m->qkv_bias != (type == QWEN2)) || (m->qk_norm != (type == QWEN3))) return false;
    return type != LLAMA || !m->window;
}

const char *lk__hf_type(const struct lk_model_config *m, const char *wanted) {
    const char *plainest = NULL;
    for (size_t i = MODEL_TYPES; i-- > 0;) {
        if (!computes(model_types[i].bit, m)) continue;
        plainest = model_types[i].name;
        if (wanted && strcmp(wanted, plainest) == 0) return plainest;
    }
    return plainest;
}

static json_t *write_rope(const struct lk_model_config *m) {
    if (!(m->rope_factor > 0)) return json_null();
    return json_pack("{s:s, s:f, s:f, s:f, s:i}", "rope_type", "llama3", "factor", m->rope_factor, "low_freq_factor",
                     m->rope_low, "high_freq_factor", m->rope_high, "original_max_position_embeddings",
                     (int)m->rope_original);
}

static json_t *write_gpt2(const struct lk_model_config *m) {
    return json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:f, s:f, s:f, s:f}", "activation_function", "gelu_new", "n_embd",
                     (int)m->width, "n_layer", (int)m->layers, "n_head", (int)m->heads, "n_inner", (int)m->ffn,
                     "n_positions", (int)m->context, "layer_norm_epsilon", m->norm_epsilon, "attn_pdrop", 0.0, "embd_pdrop",
                     0.0, "resid_pdrop", 0.0);
}

static json_t *write_rotary(const struct lk_model_config *m, const char *type) {
    json_t *c =
        json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:f, s:o, s:f}", "hidden_act", "silu", "hidden_size",
                  (int)m->width, "num_hidden_layers", (int)m->layers, "num_attention_heads", (int)m->heads,
                  "num_key_value_heads", (int)m->kv_heads, "head_dim", (int)m->head_dim, "intermediate_size", (int)m->ffn,
                  "max_position_embeddings", (int)m->context, "rms_norm_eps", m->norm_epsilon, "rope_theta", m->rope_theta,
                  "rope_scaling", write_rope(m), "attention_dropout", 0.0);
    bool bad = !c;
    if (!bad && strcmp(type, "qwen2") == 0 && m->head_dim * m->heads == m->width) json_object_del(c, "head_dim");
    if (!bad && strcmp(type, "llama"))
        bad = json_object_set_new(c, "sliding_window", m->window ? json_integer(m->window) : json_null());
    if (!bad && (strcmp(type, "qwen2") == 0 || strcmp(type, "qwen3") == 0)) {
        bad = json_object_set_new(c, "use_sliding_window", json_boolean(m->window > 0)) ||
              json_object_set_new(c, "max_window_layers", json_integer(m->window ? 0 : m->layers));
    }
    if (!bad && (strcmp(type, "llama") == 0 || strcmp(type, "qwen3") == 0))
        bad = json_object_set_new(c, "attention_bias", json_false());
    if (!bad && strcmp(type, "llama") == 0) bad = json_object_set_new(c, "mlp_bias", json_false());
    if (!bad) return c;
    json_decref(c);
    return NULL;
}

static json_t *write_stops(const uint32_t *stops, size_t count) {
    if (!count) return json_null();
    if (count == 1) return json_integer(stops[0]);
    json_t *all = json_array();
    for (size_t i = 0; i < count; i++)
        if (json_array_append_new(all, json_integer(stops[i]))) {
            json_decref(all);
            return NULL;
        }
    return all;
}

json_t *lk__hf_config_write(const struct lk_model *model, const char *type, enum lk_dtype dtype) {
    const struct lk_model_config *m = &model->layout.config;
    static const char *const dtypes[] = {"float32", "bfloat16", "float16"};
    json_t *c = m->family == LK_GPT2 ? write_gpt2(m) : write_rotary(m, type);
    const char *architecture = NULL;
    for (size_t i = 0; i < MODEL_TYPES; i++)
        if (strcmp(model_types[i].name, type) == 0) architecture = model_types[i].architecture;
    json_t *common = json_pack("{s:[s], s:s, s:i, s:b, s:f, s:s, s:b, s:o, s:o}", "architectures", architecture,
                               "model_type", type, "vocab_size", (int)m->vocab, "tie_word_embeddings", m->tied,
                               "initializer_range", m->init_std, "torch_dtype", dtypes[dtype], "use_cache", true,
                               "bos_token_id", model->begin == UINT32_MAX ? json_null() : json_integer(model->begin),
                               "eos_token_id", write_stops(model->stops, model->stop_count));
    bool bad = !c || !common || json_object_update(c, common);
    json_decref(common);
    if (!bad) return c;
    json_decref(c);
    return NULL;
}

bool lk__hf_transposed(const struct lk_layout *l, const struct lk_tensor *t) {
    return l->config.family == LK_GPT2 && t->dims == 2 && strncmp(t->name, "h.", 2) == 0;
}
