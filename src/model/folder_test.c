/* Models out to folders and back: the same roots; what a folder says and we do not compute, by name; every failure on the
 * way leaves nothing. What transformers makes of the folders: tests/peers. */
#include "huggingface.h"
#include "lockstep/base/json.h"
#include "lockstep/data/tokenizer.h"

#include "testing.h"
#include <dirent.h>
#include <errno.h>
#include <sys/stat.h>

struct world {
    char *dir;
    struct lk_store *store;
    struct lk_root tokenizer;
};

static int world_make(void **state) {
    static struct world w;
    struct lk_tokenizer *t;
    struct lk_bytes text = lk_bytes("in the beginning the earth was without form and void", 52);
    w.dir = test_dir_make();
    char *path = test_join(w.dir, "store");
    OK(lk_store_open(path, true, &w.store, &test_err));
    OK(lk_tokenizer_train(&text, 1, 263, NULL, NULL, NULL, &t, &test_err));
    OK(lk_tokenizer_save(w.store, t, &w.tokenizer, &test_err));
    lk_tokenizer_free(t);
    lk_free(path);
    *state = &w;
    return 0;
}
static int world_drop(void **state) {
    struct world *w = *state;
    lk_store_close(w->store);
    test_dir_remove(w->dir);
    return 0;
}

/* Small, odd, and every variant in turn. */
static const struct lk_model_config configs[] = {
    {.family = LK_GPT2,
     .layers = 2,
     .width = 15,
     .heads = 3,
     .kv_heads = 3,
     .head_dim = 5,
     .ffn = 60,
     .context = 9,
     .vocab = 265,
     .tied = true,
     .norm_epsilon = 1e-5,
     .rope_theta = 10000,
     .init_std = 0.02},
    {.family = LK_GPT2,
     .layers = 1,
     .width = 16,
     .heads = 2,
     .kv_heads = 2,
     .head_dim = 8,
     .ffn = 32,
     .context = 16,
     .vocab = 272,
     .tied = false,
     .norm_epsilon = 1e-5,
     .rope_theta = 10000,
     .init_std = 0.02},
    {.family = LK_LLAMA,
     .layers = 2,
     .width = 12,
     .heads = 3,
     .kv_heads = 1,
     .head_dim = 4,
     .ffn = 17,
     .context = 300,
     .vocab = 264,
     .tied = true,
     .norm_epsilon = 1e-6,
     .rope_theta = 5e5,
     .init_std = 0.02,
     .rope_factor = 8,
     .rope_low = 1,
     .rope_high = 4,
     .rope_original = 32},
    {.family = LK_LLAMA,
     .layers = 1,
     .width = 16,
     .heads = 4,
     .kv_heads = 2,
     .head_dim = 6,
     .ffn = 16,
     .context = 64,
     .vocab = 272,
     .tied = false,
     .norm_epsilon = 1e-6,
     .rope_theta = 1e4,
     .init_std = 0.02,
     .window = 7},
    {.family = LK_LLAMA,
     .layers = 1,
     .width = 12,
     .heads = 2,
     .kv_heads = 1,
     .head_dim = 6,
     .ffn = 16,
     .context = 64,
     .vocab = 272,
     .tied = true,
     .norm_epsilon = 1e-6,
     .rope_theta = 1e6,
     .init_std = 0.02,
     .qkv_bias = true},
    {.family = LK_LLAMA,
     .layers = 3,
     .width = 12,
     .heads = 2,
     .kv_heads = 1,
     .head_dim = 10,
     .ffn = 16,
     .context = 64,
     .vocab = 272,
     .tied = true,
     .norm_epsilon = 1e-6,
     .rope_theta = 1e6,
     .init_std = 0.02,
     .qk_norm = true,
     .window = 5},
};
#define CONFIGS (sizeof configs / sizeof *configs)
static const char *const types[CONFIGS] = {"gpt2", "gpt2", "llama", "mistral", "qwen2", "qwen3"};

/* Weights of 16 bits each, so that every type of file can hold them. */
static struct lk_root put_weights(struct world *w, const struct lk_model_config *c, float scale) {
    struct lk_layout l;
    struct lk_root root;
    struct lk_blob_writer *writer;
    struct test_random r = {7, 0};
    OK(lk_layout_init(&l, c, &test_err));
    OK(lk_blob_create(w->store->blobs, &writer, &test_err));
    for (size_t i = 0; i < l.parameters; i++) {
        float x = scale * (float)((int)test_random_below(&r, 255) - 127) / 64;
        OK(lk_blob_write(writer, &x, sizeof x, &test_err));
    }
    OK(lk_blob_finish(writer, &root, &test_err));
    lk_layout_release(&l);
    return root;
}

static void open_model(struct world *w, const struct lk_model_config *c, float scale, struct lk_model *out) {
    struct lk_root weights = put_weights(w, c, scale);
    uint32_t stops[] = {262, 3};
    OK(lk_model_open(w->store,
                     lk_model_manifest(&(struct lk_model_parts){.config = c,
                                                                .weights = &weights,
                                                                .tokenizer = &w->tokenizer,
                                                                .stops = stops,
                                                                .stop_count = 2,
                                                                .begin = 262,
                                                                .text_begin = UINT32_MAX}),
                     true, out, &test_err));
}

static int import_from(struct world *w, const char *dir, const struct lk_model_import *o, struct lk_root *root) {
    static const struct lk_model_import plain;
    return lk_model_import(w->store, dir, o ? o : &plain, root, &test_err);
}

static void out_and_back_is_the_same(void **state) {
    struct world *w = *state;
    for (size_t i = 0; i < CONFIGS; i++)
        for (int dtype = LK_F32; dtype <= LK_F16; dtype++) {
            struct lk_model m, back;
            struct lk_root root;
            char *dir = test_join(w->dir, "out");
            open_model(w, &configs[i], 1, &m);
            OK(lk_model_export(w->store, &m, &(struct lk_model_export){.dtype = (enum lk_dtype)dtype}, dir, &test_err));
            FAILS(lk_model_export(w->store, &m, &(struct lk_model_export){.dtype = (enum lk_dtype)dtype}, dir, &test_err),
                  LK_EEXISTS, "no empty folder");
            OK(import_from(w, dir, NULL, &root));
            OK(lk_model_open_root(w->store, &root, true, &back, &test_err));
            assert_true(lk_root_equal(&m.weights_root, &back.weights_root));
            assert_memory_equal(m.weights, back.weights, m.layout.floats * sizeof(float));
            assert_memory_equal(&m.layout.config, &back.layout.config, sizeof m.layout.config);
            assert_true(back.has_tokenizer && lk_root_equal(&back.tokenizer_root, &w->tokenizer));
            assert_true(back.stop_count == 2 && back.stops[0] == 262 && back.stops[1] == 3 && back.begin == 262);
            assert_string_equal(json_string_value(json_object_get(back.manifest, "type")), types[i]);
            lk_model_close(&back);
            lk_model_close(&m);
            test_dir_remove(dir);
        }
}

static void what_float16_cannot_hold_is_no_export(void **state) {
    struct world *w = *state;
    struct lk_model m;
    char *dir = test_join(w->dir, "large");
    open_model(w, &configs[0], 1e6f, &m);
    FAILS(lk_model_export(w->store, &m, &(struct lk_model_export){.dtype = LK_F16}, dir, &test_err), LK_EINVAL,
          "tensor wte.weight has a value too large for F16");
    assert_false(lk_file_exists(dir));
    OK(lk_model_export(w->store, &m, &(struct lk_model_export){.dtype = LK_BF16}, dir, &test_err));
    lk_model_close(&m);
    test_dir_remove(dir);
}

/* --- llm.c ----------------------------------------------------------------------------------------------- */

static uint32_t word_at(const struct lk_buf *b, size_t i) {
    const unsigned char *p = (const unsigned char *)b->data + 4 * i;
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* As llm.c reads it: 256 numbers, then tensors kind by kind, the embedding padded to 384 rows. */
static void llmc_reads_its_checkpoint(void **state) {
    struct world *w = *state;
    struct lk_model m;
    struct lk_buf f = LK_BUF_INIT;
    char *path = test_join(w->dir, "model.bin");
    open_model(w, &configs[0], 1, &m);
    OK(lk_model_export_llmc(&m, &(struct lk_model_export){.dtype = LK_F32}, path, &test_err));
    OK(lk_file_read(path, 1 << 24, &f, &test_err));
    const struct lk_model_config *c = &configs[0];
    const uint32_t header[] = {20240326, 3, c->context, c->vocab, c->layers, c->heads, c->width, 384};
    for (size_t i = 0; i < 256; i++) assert_int_equal(word_at(&f, i), i < 8 ? header[i] : 0);
    size_t C = c->width, L = c->layers, at = 1024, floats = 384 * C + c->context * C + L * (12 * C * C + 13 * C) + 2 * C;
    assert_int_equal(f.size, 1024 + 4 * floats);
    const struct lk_layout *l = &m.layout;
    assert_memory_equal(f.data + at, m.weights + l->tensors[l->embedding].offset, 4 * c->vocab * C);
    at += 4 * c->vocab * C;
    for (size_t i = 0; i < 4 * (384 - c->vocab) * C; i++) assert_int_equal(f.data[at + i], 0);
    at = 1024 + 4 * 384 * C;
    assert_memory_equal(f.data + at, m.weights + l->tensors[l->positions].offset, 4 * c->context * C);
    at += 4 * (c->context * C + 2 * L * C); /* behind the first norms: qkv of both layers */
    for (size_t i = 0; i < L; i++, at += 4 * 3 * C * C)
        assert_memory_equal(f.data + at, m.weights + l->tensors[l->layers[i].qkv].offset, 4 * 3 * C * C);
    assert_memory_equal(f.data + f.size - 4 * C, m.weights + l->tensors[l->norm_bias].offset, 4 * C);
    FAILS(lk_model_export_llmc(&m, &(struct lk_model_export){.dtype = LK_BF16}, path, &test_err), LK_EEXISTS, "remove it");
    assert_int_equal(unlink(path), 0);
    OK(lk_model_export_llmc(&m, &(struct lk_model_export){.dtype = LK_BF16}, path, &test_err));
    lk_buf_release(&f);
    f = (struct lk_buf)LK_BUF_INIT;
    OK(lk_file_read(path, 1 << 24, &f, &test_err));
    assert_int_equal(word_at(&f, 1), 5);
    assert_int_equal(f.size, 1024 + 2 * floats);
    FAILS(lk_model_export_llmc(&m, &(struct lk_model_export){.dtype = LK_F16}, path, &test_err), LK_EUNSUPPORTED, "no f16");
    lk_model_close(&m);
    open_model(w, &configs[2], 1, &m);
    FAILS(lk_model_export_llmc(&m, &(struct lk_model_export){.dtype = LK_F32}, path, &test_err), LK_EUNSUPPORTED,
          "GPT-2 only");
    lk_model_close(&m);
    lk_buf_release(&f);
    lk_free(path);
}

/* --- config.json ----------------------------------------------------------------------------------------- */

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

static int read_config(const char *begin, const char *rest, struct lk__hf_config *out) {
    static const char *const ignore[] = {"of_no_meaning"};
    char *text = lk_asprintf("{%s%s%s}", begin, *rest ? "," : "", rest);
    json_t *v = lk_json_parse(text, strlen(text), "test", &test_err);
    if (!v) fail_msg("%s: %s", text, test_err.message);
    int code = lk__hf_config_read(v, "config.json", ignore, 1, note, NULL, out, &test_err);
    json_decref(v);
    lk_free(text);
    return code;
}

static void absent_keys_have_the_classes_defaults(void **state) {
    struct lk__hf_config c;
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

static void both_spellings_of_rope_are_read(void **state) {
    static const char *const spellings[] = {
        "\"rope_theta\":500000.0,\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,"
        "\"high_freq_factor\":4.0,\"original_max_position_embeddings\":16}",
        "\"rope_parameters\":{\"rope_theta\":500000.0,\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,"
        "\"high_freq_factor\":4.0,\"original_max_position_embeddings\":16}"};
    struct lk__hf_config c;
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
    struct lk__hf_config c;
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
    OK(read_config(llama, "\"of_no_meaning\":3,\"quantization_config\":null", &c));
    OK(read_config(gpt2, "\"attn_pdrop\":0.25", &c));
    assert_non_null(strstr(last_note, "attn_pdrop = 0.25"));
    lk_free(last_note);
    last_note = NULL;
}

/* --- Folders that are not what they say ------------------------------------------------------------------ */

static void put_file(const char *dir, const char *name, const char *text, size_t size) {
    char *path = test_join(dir, name);
    OK(lk_file_write_atomic(path, text, size, &test_err));
    lk_free(path);
}
/* The folder's safetensors file with `from` replaced by `to`, of the same length. */
static void edit(const char *dir, const char *name, const char *from, const char *to) {
    struct lk_buf f = LK_BUF_INIT;
    char *path = test_join(dir, name);
    OK(lk_file_read(path, 1 << 24, &f, &test_err));
    char *at = memmem(f.data, f.size, from, strlen(from));
    assert_non_null(at);
    assert_int_equal(strlen(from), strlen(to));
    memcpy(at, to, strlen(to));
    put_file(dir, name, f.data, f.size);
    lk_buf_release(&f);
    lk_free(path);
}

static void bad_folders_are_refused(void **state) {
    struct world *w = *state;
    struct lk_model m;
    struct lk_root root;
    char *dir = test_join(w->dir, "bad");
    FAILS(import_from(w, "/no/such/folder", NULL, &root), LK_ENOTFOUND, "no config.json");
    open_model(w, &configs[0], 1, &m);
    OK(lk_model_export(w->store, &m, &(struct lk_model_export){.dtype = LK_F32}, dir, &test_err));
    edit(dir, "model.safetensors", "transformer.h.1.ln_1.bias", "transformer.h.1.ln_7.bias");
    FAILS(import_from(w, dir, NULL, &root), LK_EINVAL, "tensor h.1.ln_1.bias is missing");
    edit(dir, "model.safetensors", "transformer.h.1.ln_7.bias", "transformer.h.1.ln_1.bias");
    edit(dir, "model.safetensors", "[15,45]", "[45,15]");
    FAILS(import_from(w, dir, NULL, &root), LK_EINVAL, "has the shape (45, 15), config.json wants (15, 45)");
    edit(dir, "model.safetensors", "[45,15]", "[15,45]");
    edit(dir, "config.json", "\"n_layer\": 2", "\"n_layer\": 1");
    FAILS(import_from(w, dir, NULL, &root), LK_EUNSUPPORTED, "is no part of the model that config.json describes");
    edit(dir, "config.json", "\"n_layer\": 1", "\"n_layer\": 2");
    edit(dir, "config.json", "\"vocab_size\": 265", "\"vocab_size\": 262");
    FAILS(import_from(w, dir, NULL, &root), LK_EINVAL, "the tokenizer has ids up to 262");
    FAILS(import_from(w, dir, &(struct lk_model_import){.no_tokenizer = true}, &root), LK_EINVAL,
          "has the shape (265, 15)");
    edit(dir, "config.json", "\"vocab_size\": 262", "\"vocab_size\": 265");
    OK(import_from(w, dir, NULL, &root));
    char *tokenizer = test_join(dir, "tokenizer.json"), *weights = test_join(dir, "model.safetensors");
    assert_int_equal(unlink(tokenizer), 0);
    FAILS(import_from(w, dir, NULL, &root), LK_ENOTFOUND, "has no tokenizer.json");
    OK(import_from(w, dir, &(struct lk_model_import){.tokenizer = &w->tokenizer}, &root));
    assert_int_equal(truncate(weights, 3000), 0);
    FAILS(import_from(w, dir, &(struct lk_model_import){.no_tokenizer = true}, &root), LK_ECORRUPT, "model.safetensors");
    assert_int_equal(unlink(weights), 0);
    FAILS(import_from(w, dir, &(struct lk_model_import){.no_tokenizer = true}, &root), LK_ENOTFOUND, "save_pretrained");
    static const char outside[] = "{\"weight_map\":{\"a\":\"../x.safetensors\"}}";
    put_file(dir, "model.safetensors.index.json", outside, sizeof outside - 1);
    FAILS(import_from(w, dir, &(struct lk_model_import){.no_tokenizer = true}, &root), LK_EINVAL,
          "no name of a file beside it");
    lk_free(tokenizer);
    lk_free(weights);
    lk_model_close(&m);
    test_dir_remove(dir);
}

/* --- Failures -------------------------------------------------------------------------------------------- */

static int entries(const char *dir) {
    DIR *d = opendir(dir);
    int n = 0;
    for (struct dirent *e; (e = readdir(d));) n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static void same_file(const char *a, const char *b, const char *name) {
    struct lk_buf x = LK_BUF_INIT, y = LK_BUF_INIT;
    char *p = test_join(a, name), *q = test_join(b, name);
    OK(lk_file_read(p, 1 << 24, &x, &test_err));
    OK(lk_file_read(q, 1 << 24, &y, &test_err));
    assert_int_equal(x.size, y.size);
    assert_memory_equal(x.data, y.data, x.size);
    lk_buf_release(&x), lk_buf_release(&y);
    lk_free(p), lk_free(q);
}

static void every_failure_leaves_nothing(void **state) {
    struct world *w = *state;
    struct lk_model m;
    struct lk_root root;
    char *top = test_join(w->dir, "faults"), *dir = lk_asprintf("%s/out", top);
    open_model(w, &configs[0], 1, &m);
    char *whole = test_join(w->dir, "whole");
    static const char *const files[] = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
                                        "model.safetensors"};
    OK(lk_dir_make(top, &test_err));
    OK(lk_model_export(w->store, &m, &(struct lk_model_export){.dtype = LK_F32}, whole, &test_err));
    json_set_alloc_funcs(lk_alloc, lk_free); /* JSON's memory too */
    for (int error = 0; error < 2; error++)
        for (uint64_t nth = 1;; nth++) { /* memory, then the disk */
            assert_in_range(nth, 1, 5000);
            if (error)
                lk_file_fail_at(nth, ENOSPC);
            else
                lk_alloc_fail_at(nth);
            int code = lk_model_export(w->store, &m, &(struct lk_model_export){.dtype = LK_F32}, dir, &test_err);
            bool done = error ? lk_file_call_count() < nth : lk_alloc_count() < nth;
            lk_file_fail_at(0, 0);
            lk_alloc_fail_at(0);
            for (size_t i = 0; i < sizeof files / sizeof *files && !code; i++)
                same_file(whole, dir, files[i]); /* a success is a whole one */
            if (!code) lk_dir_remove(dir, NULL);
            if (done) {
                OK(code);
                break;
            }
            if (code && lk_file_exists(dir)) /* only the folder's own fsync comes after the rename */
                assert_true(error && lk_dir_remove(dir, NULL) == 0);
            assert_int_equal(entries(top), 0);
        }
    json_set_alloc_funcs(malloc, free);
    test_dir_remove(whole);
    OK(lk_model_export(w->store, &m, &(struct lk_model_export){.dtype = LK_F32}, dir, &test_err));
    FAIL_EACH_ALLOCATION(import_from(w, dir, NULL, &root));
    for (uint64_t nth = 1;; nth++) {
        lk_file_fail_at(nth, EIO);
        int code = import_from(w, dir, NULL, &root);
        bool done = lk_file_call_count() < nth;
        lk_file_fail_at(0, 0);
        if (done) {
            OK(code);
            break;
        }
    }
    struct lk_model back;
    OK(lk_model_open_root(w->store, &root, true, &back, &test_err));
    assert_true(lk_root_equal(&m.weights_root, &back.weights_root));
    lk_model_close(&back);
    lk_model_close(&m);
    lk_free(dir);
    test_dir_remove(top);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(out_and_back_is_the_same),        cmocka_unit_test(what_float16_cannot_hold_is_no_export),
        cmocka_unit_test(llmc_reads_its_checkpoint),       cmocka_unit_test(absent_keys_have_the_classes_defaults),
        cmocka_unit_test(both_spellings_of_rope_are_read), cmocka_unit_test(what_is_not_computed_is_named),
        cmocka_unit_test(bad_folders_are_refused),         cmocka_unit_test(every_failure_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, world_make, world_drop);
}
