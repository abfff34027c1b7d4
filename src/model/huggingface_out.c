/* A model's configuration as a config.json, and how the tensors beside it lie. */
#include "huggingface_keys.h"

#include <string.h>

static bool computes(unsigned type, const struct lk_model_config *m) {
    if (m->family == LK_GPT2) return type == LK__HF_GPT2;
    if (type == LK__HF_GPT2 || (m->qkv_bias != (type == LK__HF_QWEN2)) || (m->qk_norm != (type == LK__HF_QWEN3)))
        return false;
    return type != LK__HF_LLAMA || !m->window;
}

const char *lk__model_hf_type(const struct lk_model_config *m, const char *wanted) {
    const char *plainest = NULL;
    for (size_t i = LK__HF_MODEL_TYPES; i-- > 0;) {
        if (!computes(lk__model_hf_types[i].bit, m)) continue;
        plainest = lk__model_hf_types[i].name;
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

json_t *lk__model_hf_config_write(const struct lk_model *model, const char *type, enum lk_dtype dtype) {
    const struct lk_model_config *m = &model->layout.config;
    static const char *const dtypes[] = {"float32", "bfloat16", "float16"};
    json_t *c = m->family == LK_GPT2 ? write_gpt2(m) : write_rotary(m, type);
    const char *architecture = NULL;
    for (size_t i = 0; i < LK__HF_MODEL_TYPES; i++)
        if (strcmp(lk__model_hf_types[i].name, type) == 0) architecture = lk__model_hf_types[i].architecture;
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

bool lk__model_hf_transposed(const struct lk_layout *l, const struct lk_tensor *t) {
    return l->config.family == LK_GPT2 && t->dims == 2 && strncmp(t->name, "h.", 2) == 0;
}
