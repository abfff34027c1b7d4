/* The keys of a config.json, each with what it means here. Sources: the configuration classes and rope utilities of
 * transformers 5.23.0, whose defaults hold for absent keys, and files of earlier versions (rope_theta and rope_scaling
 * beside rope_parameters). */
#include "huggingface_keys.h"

#include <stdio.h>
#include <string.h>

#define ALL (LK__HF_GPT2 | LK__HF_ROTARY)
enum kind {
    SIZE,      /* a whole number into a uint32_t */
    NUMBER,    /* into a double */
    YES_NO,    /* into a bool */
    MUST_BE,   /* only the value in `value` is computed here */
    SAYS,      /* changes no result */
    DROPOUT,   /* of training only */
    ELSEWHERE, /* read by a function of its own */
};
#define AT(f) offsetof(struct lk__model_hf_parsed, f)
static const struct {
    const char *name;
    unsigned types;
    enum kind kind;
    size_t at;
    const char *value; /* JSON; '|' between several */
} keys[] = {
    {"n_embd", LK__HF_GPT2, SIZE, AT(m.width), NULL},
    {"n_layer", LK__HF_GPT2, SIZE, AT(m.layers), NULL},
    {"n_head", LK__HF_GPT2, SIZE, AT(m.heads), NULL},
    {"n_inner", LK__HF_GPT2, SIZE, AT(m.ffn), NULL},
    {"n_positions", LK__HF_GPT2, SIZE, AT(m.context), NULL},
    {"n_ctx", LK__HF_GPT2, SIZE, AT(n_ctx), NULL},
    {"layer_norm_epsilon", LK__HF_GPT2, NUMBER, AT(m.norm_epsilon), NULL},
    {"activation_function", LK__HF_GPT2, MUST_BE, 0, "\"gelu_new\"|\"gelu_pytorch_tanh\""},
    {"scale_attn_weights", LK__HF_GPT2, MUST_BE, 0, "true"},
    {"scale_attn_by_inverse_layer_idx", LK__HF_GPT2, MUST_BE, 0, "false"},
    {"add_cross_attention", LK__HF_GPT2, MUST_BE, 0, "false"},
    {"reorder_and_upcast_attn", LK__HF_GPT2, SAYS, 0, NULL}, /* of half precision */
    {"attn_pdrop", LK__HF_GPT2, DROPOUT, 0, NULL},
    {"embd_pdrop", LK__HF_GPT2, DROPOUT, 0, NULL},
    {"resid_pdrop", LK__HF_GPT2, DROPOUT, 0, NULL},
    {"hidden_size", LK__HF_ROTARY, SIZE, AT(m.width), NULL},
    {"num_hidden_layers", LK__HF_ROTARY, SIZE, AT(m.layers), NULL},
    {"num_attention_heads", LK__HF_ROTARY, SIZE, AT(m.heads), NULL},
    {"num_key_value_heads", LK__HF_ROTARY, SIZE, AT(m.kv_heads), NULL},
    {"head_dim", LK__HF_ROTARY, SIZE, AT(m.head_dim), NULL},
    {"intermediate_size", LK__HF_ROTARY, SIZE, AT(m.ffn), NULL},
    {"max_position_embeddings", LK__HF_ROTARY, SIZE, AT(m.context), NULL},
    {"rms_norm_eps", LK__HF_ROTARY, NUMBER, AT(m.norm_epsilon), NULL},
    {"rope_theta", LK__HF_ROTARY, NUMBER, AT(m.rope_theta), NULL},
    {"rope_scaling", LK__HF_ROTARY, ELSEWHERE, 0, NULL},
    {"rope_parameters", LK__HF_ROTARY, ELSEWHERE, 0, NULL},
    {"rope_interleaved", LK__HF_ROTARY, MUST_BE, 0, "false"},
    {"partial_rotary_factor", LK__HF_ROTARY, MUST_BE, 0, "1|1.0"},
    {"hidden_act", LK__HF_ROTARY, MUST_BE, 0, "\"silu\""},
    {"attention_bias", LK__HF_ROTARY, MUST_BE, 0, "false"},
    {"mlp_bias", LK__HF_ROTARY, MUST_BE, 0, "false"},
    {"attention_dropout", LK__HF_ROTARY, DROPOUT, 0, NULL},
    {"pretraining_tp", LK__HF_ROTARY, MUST_BE, 0, "1"},
    {"sliding_window", LK__HF_MISTRAL | LK__HF_QWEN2 | LK__HF_QWEN3, ELSEWHERE, 0, NULL},
    {"use_sliding_window", LK__HF_QWEN2 | LK__HF_QWEN3, YES_NO, AT(use_sliding_window), NULL},
    {"max_window_layers", LK__HF_QWEN2 | LK__HF_QWEN3, SIZE, AT(max_window_layers), NULL},
    {"use_mrope", LK__HF_QWEN2, MUST_BE, 0, "false"},
    {"layer_types", LK__HF_ROTARY, ELSEWHERE, 0, NULL},
    {"is_llama_config", LK__HF_ROTARY, SAYS, 0, NULL},
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
    {"add_cross_attention", LK__HF_ROTARY, MUST_BE, 0, "false"},
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

int lk__model_hf_refuse(const struct lk__model_hf_reader *r, const char *key, const char *why) {
    return lk_fail(r->err, LK_EUNSUPPORTED, "%s: %s %s", r->file, key, why);
}

/* A value as text for messages. */
static const char *show(const json_t *v, char out[64]) {
    char *text = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
    snprintf(out, 64, "%s", text ? text : "?");
    free(text);
    return out;
}

int lk__model_hf_read_size(const struct lk__model_hf_reader *r, const char *key, const json_t *v, uint32_t *out) {
    if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > INT32_MAX)
        return lk_fail(r->err, LK_EINVAL, "%s: %s is no whole number from 0 to %d", r->file, key, INT32_MAX);
    *out = (uint32_t)json_integer_value(v);
    return LK_OK;
}

int lk__model_hf_read_number(const struct lk__model_hf_reader *r, const char *key, const json_t *v, double *out) {
    if (!json_is_number(v)) return lk_fail(r->err, LK_EINVAL, "%s: %s is no number", r->file, key);
    *out = json_number_value(v);
    return LK_OK;
}

int lk__model_hf_must_be(const struct lk__model_hf_reader *r, const char *key, const json_t *v, const char *values) {
    char text[64], why[200];
    show(v, text);
    for (const char *p = values;; p++) {
        size_t n = strcspn(p, "|");
        if (strlen(text) == n && strncmp(text, p, n) == 0) return LK_OK;
        p += n;
        if (!*p) break;
    }
    snprintf(why, sizeof why, "= %s is not computed here, only %s", text, values);
    return lk__model_hf_refuse(r, key, why);
}

static int read_key(struct lk__model_hf_reader *r, size_t i, const json_t *v) {
    void *field = (char *)&r->p + keys[i].at;
    char text[160];
    switch (keys[i].kind) {
    case SIZE:
        return lk__model_hf_read_size(r, keys[i].name, v, field);
    case NUMBER:
        return lk__model_hf_read_number(r, keys[i].name, v, field);
    case YES_NO:
        if (!json_is_boolean(v)) return lk_fail(r->err, LK_EINVAL, "%s: %s is not true or false", r->file, keys[i].name);
        *(bool *)field = json_is_true(v);
        return LK_OK;
    case MUST_BE:
        return lk__model_hf_must_be(r, keys[i].name, v, keys[i].value);
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
static int refuse_unknown(const struct lk__model_hf_reader *r, const json_t *unknown) {
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

int lk__model_hf_read_keys(struct lk__model_hf_reader *r, const char *const *ignore, size_t ignore_count) {
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
