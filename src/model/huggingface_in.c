/* A config.json as a model's configuration: type, rotary positions, window, the tokens around a text. */
#include "huggingface_keys.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

const struct lk__model_hf_type_entry lk__model_hf_types[LK__HF_MODEL_TYPES] = {
    {"gpt2", "GPT2LMHeadModel", LK__HF_GPT2},
    {"llama", "LlamaForCausalLM", LK__HF_LLAMA},
    {"mistral", "MistralForCausalLM", LK__HF_MISTRAL},
    {"qwen2", "Qwen2ForCausalLM", LK__HF_QWEN2},
    {"qwen3", "Qwen3ForCausalLM", LK__HF_QWEN3}};

/* --- Rotary positions ------------------------------------------------------------------------------------ */

/* Whether the key is there for transformers: {} counts as absent. */
static bool said(const json_t *rope) {
    return rope && !json_is_null(rope) && !(json_is_object(rope) && !json_object_size(rope));
}

static int read_rope(struct lk__model_hf_reader *r, const char *name) {
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
    if (!llama3 && (!word || strcmp(word, "default"))) return lk__model_hf_must_be(r, full, type, "\"default\"|\"llama3\"");
    json_object_foreach((json_t *)(uintptr_t)rope, key, value) {
        size_t i = 0;
        int code = LK_OK;
        if (json_is_null(value)) continue;
        snprintf(full, sizeof full, "%s.%.60s", name, key);
        while (i < 4 && strcmp(number_names[i], key)) i++;
        if (i < 4 && (i == 0 || llama3))
            code = lk__model_hf_read_number(r, full, value, numbers[i]);
        else if (llama3 && strcmp(key, "original_max_position_embeddings") == 0)
            code = lk__model_hf_read_size(r, full, value, &m->rope_original);
        else if (strcmp(key, "partial_rotary_factor") == 0)
            code = lk__model_hf_must_be(r, full, value, "1|1.0");
        else if (strcmp(key, "rope_type") && strcmp(key, "type"))
            code = lk__model_hf_refuse(r, full, "is not known here");
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
static int read_window(struct lk__model_hf_reader *r) {
    struct lk__model_hf_parsed *p = &r->p;
    const json_t *window = json_object_get(r->config, "sliding_window"), *types = json_object_get(r->config, "layer_types");
    uint32_t size = 4096; /* the classes' default */
    if (r->type & (LK__HF_GPT2 | LK__HF_LLAMA)) size = 0;
    if (json_is_null(window)) size = 0;
    int code = window && !json_is_null(window) ? lk__model_hf_read_size(r, "sliding_window", window, &size) : LK_OK;
    if (code) return code;
    bool some = r->type == LK__HF_MISTRAL || (p->use_sliding_window && p->max_window_layers < p->m.layers);
    bool all = r->type == LK__HF_MISTRAL || p->max_window_layers == 0;
    if (json_is_array(types)) {
        size_t sliding = 0;
        for (size_t i = 0; i < json_array_size(types); i++) {
            const char *word = json_string_value(json_array_get(types, i));
            bool is = word && strcmp(word, "sliding_attention") == 0;
            if (!is && (!word || strcmp(word, "full_attention")))
                return lk__model_hf_refuse(r, "layer_types", "names a type of attention that is not known here");
            sliding += is;
        }
        if (json_array_size(types) != p->m.layers)
            return lk_fail(r->err, LK_EINVAL, "%s: layer_types has %zu entries for %u layers", r->file,
                           json_array_size(types), p->m.layers);
        some = sliding > 0;
        all = sliding == p->m.layers;
    }
    if (!some || json_is_null(window)) return LK_OK;
    if (!size && !(r->type & (LK__HF_GPT2 | LK__HF_LLAMA)))
        return lk__model_hf_refuse(r, "sliding_window", "= 0 lets nothing be seen");
    if (!size) return LK_OK;
    if (!all)
        return lk__model_hf_refuse(r, json_is_array(types) ? "layer_types" : "max_window_layers",
                                   "gives only some layers a window; all or none is computed here");
    p->m.window = size;
    return LK_OK;
}

/* --- The whole ------------------------------------------------------------------------------------------- */

static int read_type(struct lk__model_hf_reader *r, const char **name) {
    const char *type = json_string_value(json_object_get(r->config, "model_type"));
    const json_t *architectures = json_object_get(r->config, "architectures");
    for (size_t i = 0; type && i < LK__HF_MODEL_TYPES; i++) {
        if (strcmp(type, lk__model_hf_types[i].name)) continue;
        r->type = lk__model_hf_types[i].bit;
        *name = lk__model_hf_types[i].name;
        const char *a = json_string_value(json_array_get(architectures, 0));
        bool absent = !architectures || json_is_null(architectures) ||
                      (json_is_array(architectures) && !json_array_size(architectures));
        if (absent || (a && strcmp(a, lk__model_hf_types[i].architecture) == 0)) return LK_OK;
        return lk_fail(r->err, LK_EUNSUPPORTED, "%s: architectures = [\"%.60s\"] is not computed here, only %s", r->file,
                       a ? a : "?", lk__model_hf_types[i].architecture);
    }
    return lk_fail(r->err, LK_EUNSUPPORTED,
                   "%s: model_type = \"%.60s\" is not computed here; gpt2, llama, mistral, qwen2 and qwen3 are", r->file,
                   type ? type : "");
}

/* What must be said, and what an absent key means. */
static int complete(struct lk__model_hf_reader *r) {
    struct lk__model_hf_parsed *p = &r->p;
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
    if (p->n_ctx && p->n_ctx != m->context) return lk__model_hf_refuse(r, "n_ctx", "differs from n_positions");
    if (!m->kv_heads) m->kv_heads = m->heads; /* the key is null, or not of this type */
    if (!m->head_dim && m->width % m->heads == 0) m->head_dim = m->width / m->heads;
    if (!m->ffn) m->ffn = 4 * m->width;
    return LK_OK;
}

/* *id: UINT32_MAX when there is no such row, which is told. */
static int read_id(const struct lk__model_hf_notes *notes, const json_t *v, const char *file, const char *key,
                   uint32_t vocab, uint32_t *id, struct lk_err *err) {
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

int lk__model_hf_stops(const json_t *eos, const char *file, const struct lk__model_hf_notes *notes,
                       struct lk__model_hf_config *c, struct lk_err *err) {
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

int lk__model_hf_config_read(const json_t *config, const char *file, const char *const *ignore, size_t ignore_count,
                             const struct lk__model_hf_notes *notes, struct lk__model_hf_config *out, struct lk_err *err) {
    struct lk__model_hf_reader r = {.config = config, .file = file, .notes = notes, .err = err};
    *out = (struct lk__model_hf_config){.begin = UINT32_MAX};
    if (!json_is_object(config)) return lk_fail(err, LK_EINVAL, "%s: no JSON object", file);
    int code = read_type(&r, &out->type);
    if (code) return code;
    r.p.max_window_layers = 28; /* the classes' defaults */
    r.p.m = (struct lk_model_config){.family = r.type == LK__HF_GPT2 ? LK_GPT2 : LK_LLAMA,
                                     .tied = r.type == LK__HF_GPT2,
                                     .norm_epsilon = r.type == LK__HF_GPT2 ? 1e-5 : 1e-6,
                                     .rope_theta = 10000,
                                     .init_std = 0.02,
                                     .qkv_bias = r.type == LK__HF_QWEN2,
                                     .qk_norm = r.type == LK__HF_QWEN3};
    if (r.type & (LK__HF_MISTRAL | LK__HF_QWEN2 | LK__HF_QWEN3) && !json_object_get(config, "num_key_value_heads"))
        r.p.m.kv_heads = r.type == LK__HF_MISTRAL ? 8 : 32;
    if (r.type == LK__HF_QWEN3 && !json_object_get(config, "head_dim")) r.p.m.head_dim = 128;
    code = lk__model_hf_read_keys(&r, ignore, ignore_count);
    if (!code && said(json_object_get(config, "rope_scaling")) && said(json_object_get(config, "rope_parameters")))
        code = lk__model_hf_refuse(&r, "rope_scaling",
                                   "stands beside rope_parameters, and versions of transformers differ in which they take");
    if (!code) code = read_rope(&r, "rope_scaling");
    if (!code) code = read_rope(&r, "rope_parameters");
    if (!code) code = complete(&r);
    if (!code) code = read_window(&r);
    if (code) return code;
    out->model = r.p.m;
    const json_t *begin = json_object_get(config, "bos_token_id");
    code = lk__model_hf_stops(json_object_get(config, "eos_token_id"), file, notes, out, err);
    if (!code && begin && !json_is_null(begin))
        code = read_id(notes, begin, file, "bos_token_id", out->model.vocab, &out->begin, err);
    if (code) return code;
    code = lk_model_config_check(&out->model, err);
    return code ? lk_fail_prefix(err, code, "%s", file) : LK_OK;
}

int lk__model_hf_file(const char *path, bool *there, struct lk_err *err) {
    struct stat s;
    *there = lstat(path, &s) == 0;
    if (!*there) return errno == ENOENT ? LK_OK : lk_fail_errno(err, "cannot look at %s", path);
    if (stat(path, &s)) return lk_fail(err, LK_EIO, "cannot follow the link %s: %s", path, strerror(errno));
    return S_ISREG(s.st_mode) ? LK_OK : lk_fail(err, LK_EINVAL, "%s is no regular file", path);
}
