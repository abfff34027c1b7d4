/* config.json: what absent and null keys mean, both spellings, what is not computed by name, unknown keys all at once. */
#include "huggingface.h"
#include "lockstep/base/json.h"

#include "testing.h"

static const char
    llama[] = "\"model_type\":\"llama\",\"hidden_size\":8,\"num_hidden_layers\":2,\"num_attention_heads\":2,"
              "\"intermediate_size\":16,\"max_position_embeddings\":32,\"vocab_size\":99",
    mistral[] = "\"model_type\":\"mistral\",\"hidden_size\":64,\"num_hidden_layers\":2,\"num_attention_heads\":8,"
                "\"intermediate_size\":16,\"max_position_embeddings\":32,\"vocab_size\":99",
    qwen2[] = "\"model_type\":\"qwen2\",\"hidden_size\":64,\"num_hidden_layers\":2,\"num_attention_heads\":32,"
              "\"intermediate_size\":16,\"max_position_embeddings\":32,\"vocab_size\":99",
    gpt2[] = "\"model_type\":\"gpt2\",\"n_embd\":8,\"n_layer\":2,\"n_head\":2,\"n_positions\":32,\"vocab_size\":99";

static char *last_note;
static void note(void *arg, const char *text) {
    (void)arg;
    lk_free(last_note);
    last_note = lk_strdup(text);
}

static int read_config(const char *begin, const char *rest, struct lk__model_hf_config *out) {
    static const char *const ignore[] = {"of_no_meaning"};
    char *text = lk_asprintf("{%s%s%s}", begin, *rest ? "," : "", rest);
    json_t *v = lk_json_parse(text, strlen(text), "test", &test_err);
    if (!v) fail_msg("%s: %s", text, test_err.message);
    static const struct lk__model_hf_notes notes = {note, NULL};
    int code = lk__model_hf_config_read(v, "config.json", ignore, 1, &notes, out, &test_err);
    json_decref(v);
    lk_free(text);
    return code;
}

static void absent_keys_have_the_classes_defaults(void **state) {
    struct lk__model_hf_config c;
    (void)state;
    OK(read_config(llama, "", &c));
    assert_true(c.model.kv_heads == 2 && c.model.head_dim == 4 && !c.model.tied && c.model.norm_epsilon == 1e-6);
    assert_true(c.model.rope_theta == 10000 && c.model.window == 0 && c.stop_count == 0 && c.begin == UINT32_MAX);
    OK(read_config(mistral, "", &c));
    assert_true(c.model.kv_heads == 8 && c.model.window == 4096);
    OK(read_config(mistral, "\"sliding_window\":null", &c));
    assert_int_equal(c.model.window, 0);
    OK(read_config(qwen2, "\"sliding_window\":16", &c));
    assert_true(c.model.kv_heads == 32 && c.model.window == 0 && c.model.qkv_bias && !c.model.qk_norm);
    OK(read_config(qwen2, "\"sliding_window\":16,\"use_sliding_window\":true,\"max_window_layers\":0", &c));
    assert_int_equal(c.model.window, 16);
    OK(read_config(gpt2, "\"n_inner\":null,\"eos_token_id\":98,\"bos_token_id\":7", &c));
    assert_true(c.model.ffn == 32 && c.model.tied && c.model.norm_epsilon == 1e-5 && c.stop_count == 1 && c.stops[0] == 98);
    assert_int_equal(c.begin, 7);
}

static void harmless_keys_pass_and_unknown_ones_come_at_once(void **state) {
    struct lk__model_hf_config c;
    (void)state;
    OK(read_config(gpt2,
                   "\"_num_labels\":1,\"id2label\":{\"0\":\"LABEL_0\"},\"label2id\":{\"LABEL_0\":0},\"n_special\":0,"
                   "\"output_past\":true,\"predict_special_tokens\":true,\"summary_type\":\"cls_index\","
                   "\"task_specific_params\":{\"text-generation\":{\"do_sample\":true}}",
                   &c));
    OK(read_config(
        llama,
        "\"unsloth_fixed\":true,\"unsloth_version\":\"2025.1\",\"torch_dtype\":\"bfloat16\",\"use_cache\":true,"
        "\"attn_implementation\":\"sdpa\",\"_name_or_path\":\"x\",\"transformers_version\":\"5\",\"pruned_heads\":{}",
        &c));
    FAILS(read_config(llama, "\"new_a\":1,\"of_no_meaning\":2,\"new_b\":null,\"new_c\":[],\"new_d\":{}", &c),
          LK_EUNSUPPORTED,
          "the keys new_a, new_c and new_d are not known here, so they may change what the model computes; if they do not, "
          "import with --ignore new_a --ignore new_c --ignore new_d");
    FAILS(read_config(llama, "\"new_a\":1", &c), LK_EUNSUPPORTED,
          "the key new_a is not known here, so it may change what the model computes; if it does not, import with --ignore "
          "new_a");
    FAILS(read_config(llama, "\"pruned_heads\":{\"1\":[0]}", &c), LK_EUNSUPPORTED, "pruned_heads");
    OK(read_config(llama, "\"rope_scaling\":{\"rope_type\":null,\"factor\":null}", &c));
    assert_true(c.model.rope_factor == 0);
    OK(read_config(llama, "\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":null}", &c));
    assert_true(c.model.rope_theta == 10000);
}

static void both_spellings_of_rope_are_read(void **state) {
    static const char *const spellings[] = {
        "\"rope_theta\":500000.0,\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,"
        "\"high_freq_factor\":4.0,\"original_max_position_embeddings\":16}",
        "\"rope_parameters\":{\"rope_theta\":500000.0,\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,"
        "\"high_freq_factor\":4.0,\"original_max_position_embeddings\":16}"};
    struct lk__model_hf_config c;
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        OK(read_config(llama, spellings[i], &c));
        assert_true(c.model.rope_theta == 5e5 && c.model.rope_factor == 8 && c.model.rope_low == 1 &&
                    c.model.rope_high == 4 && c.model.rope_original == 16);
    }
    OK(read_config(llama, "\"rope_parameters\":{\"rope_theta\":5.0,\"rope_type\":\"default\"}", &c));
    assert_true(c.model.rope_theta == 5 && c.model.rope_factor == 0);
}

static void what_is_not_computed_is_named(void **state) {
    static const struct {
        const char *begin, *rest, *says;
        int code;
    } bad[] = {
        {llama, "\"hidden_act\":\"gelu\"", "hidden_act = \"gelu\" is not computed here", LK_EUNSUPPORTED},
        {llama, "\"attention_bias\":true", "attention_bias", LK_EUNSUPPORTED},
        {llama, "\"mlp_bias\":true", "mlp_bias", LK_EUNSUPPORTED},
        {llama, "\"pretraining_tp\":2", "pretraining_tp", LK_EUNSUPPORTED},
        {llama, "\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4.0}", "rope_scaling.rope_type = \"yarn\"",
         LK_EUNSUPPORTED},
        {llama, "\"rope_scaling\":{\"type\":\"linear\",\"factor\":4.0}", "rope_scaling.rope_type = \"linear\"",
         LK_EUNSUPPORTED},
        {llama, "\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":4.0}", "wants factor", LK_EINVAL},
        {llama, "\"rope_parameters\":{\"rope_type\":\"default\",\"attention_factor\":2.0}",
         "rope_parameters.attention_factor", LK_EUNSUPPORTED},
        {llama, "\"rope_scaling\":7", "rope_scaling is no object", LK_EINVAL},
        {llama, "\"rope_scaling\":{\"rope_type\":\"default\"},\"rope_parameters\":{\"rope_theta\":5.0}",
         "stands beside rope_parameters", LK_EUNSUPPORTED},
        {mistral, "\"sliding_window\":0", "sliding_window = 0", LK_EUNSUPPORTED},
        {llama, "\"eos_token_id\":\"2\"", "eos_token_id is no token's number", LK_EINVAL},
        {llama, "\"eos_token_id\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]", "more than 16", LK_EUNSUPPORTED},
        {gpt2, "\"attn_pdrop\":\"x\"", "attn_pdrop is no number", LK_EINVAL},
        {llama, "\"sliding_window\":4", "sliding_window is not known here", LK_EUNSUPPORTED},
        {llama, "\"quantization_config\":{}", "quantization_config is not known here", LK_EUNSUPPORTED},
        {llama, "\"architectures\":[\"LlamaForSequenceClassification\"]", "LlamaForSequenceClassification",
         LK_EUNSUPPORTED},
        {llama, "\"head_dim\":5", "head", LK_EINVAL},
        {llama, "\"vocab_size\":0.5", "vocab_size", LK_EINVAL},
        {qwen2, "\"use_sliding_window\":true,\"max_window_layers\":1", "max_window_layers", LK_EUNSUPPORTED},
        {qwen2, "\"layer_types\":[\"full_attention\",\"sliding_attention\"]", "layer_types", LK_EUNSUPPORTED},
        {qwen2, "\"layer_types\":[\"full_attention\",\"linear_attention\"]", "layer_types", LK_EUNSUPPORTED},
        {qwen2, "\"layer_types\":[\"full_attention\"]", "layer_types has 1 entries for 2 layers", LK_EINVAL},
        {gpt2, "\"activation_function\":\"gelu\"", "activation_function", LK_EUNSUPPORTED},
        {gpt2, "\"scale_attn_by_inverse_layer_idx\":true", "scale_attn_by_inverse_layer_idx", LK_EUNSUPPORTED},
        {gpt2, "\"n_ctx\":64", "n_ctx", LK_EUNSUPPORTED},
        {"\"model_type\":\"gemma\"", "", "gpt2, llama, mistral, qwen2 and qwen3", LK_EUNSUPPORTED},
        {"\"model_type\":\"llama\"", "", "hidden_size is missing", LK_EINVAL},
    };
    struct lk__model_hf_config c;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char *rest = lk_strdup(bad[i].rest);
        if (strstr(bad[i].rest, "vocab_size")) { /* a key may stand once */
            char *begin = lk_strdup(bad[i].begin);
            *strstr(begin, ",\"vocab_size\"") = 0;
            FAILS(read_config(begin, rest, &c), bad[i].code, bad[i].says);
            lk_free(begin);
        } else
            FAILS(read_config(bad[i].begin, rest, &c), bad[i].code, bad[i].says);
        lk_free(rest);
    }
    OK(read_config(llama, "\"eos_token_id\":[4,99,4],\"bos_token_id\":99,\"rope_scaling\":{}",
                   &c)); /* 99: no row of the model */
    assert_true(c.stop_count == 1 && c.stops[0] == 4 && c.begin == UINT32_MAX);
    assert_string_equal(last_note, "config.json: bos_token_id = 99 is left out: the model has ids up to 98");
    OK(read_config(llama, "\"of_no_meaning\":3,\"quantization_config\":null", &c));
    OK(read_config(gpt2, "\"attn_pdrop\":0.25", &c));
    assert_non_null(strstr(last_note, "attn_pdrop = 0.25"));
    lk_free(last_note);
    last_note = NULL;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(absent_keys_have_the_classes_defaults),
        cmocka_unit_test(harmless_keys_pass_and_unknown_ones_come_at_once),
        cmocka_unit_test(both_spellings_of_rope_are_read),
        cmocka_unit_test(what_is_not_computed_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
