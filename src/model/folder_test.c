/* Models out to folders and back: the same roots; what a folder says and we do not compute, by name; every failure on the
 * way leaves nothing. What transformers makes of the folders: tests/peers. */
#include "huggingface.h"
#include "model/files_testing.h"
#include <sys/stat.h>

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
            world_model(w, &configs[i], 1, &m);
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
    world_model(w, &configs[0], 1e6f, &m);
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
    world_model(w, &configs[0], 1, &m);
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
    world_model(w, &configs[2], 1, &m);
    FAILS(lk_model_export_llmc(&m, &(struct lk_model_export){.dtype = LK_F32}, path, &test_err), LK_EUNSUPPORTED,
          "GPT-2 only");
    lk_model_close(&m);
    lk_buf_release(&f);
    lk_free(path);
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

static void bad_folders_are_refused(void **state) {
    struct world *w = *state;
    struct lk_model m;
    struct lk_root root;
    char *dir = test_join(w->dir, "bad");
    FAILS(import_from(w, "/no/such/folder", NULL, &root), LK_ENOTFOUND, "no config.json");
    world_model(w, &configs[0], 1, &m);
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
    static const struct {
        const char *text, *says;
    } instead[] = {{"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 548105171\n", "is a Git LFS pointer"},
                   {"<!doctype html><title>Log in</title>", "is an HTML page"}};
    for (size_t i = 0; i < 2; i++) {
        put_file(dir, "model.safetensors", instead[i].text, strlen(instead[i].text));
        FAILS(import_from(w, dir, &(struct lk_model_import){.no_tokenizer = true}, &root), LK_EINVAL, instead[i].says);
    }
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

/* Both files hold all tensors. */
static void a_tensor_in_two_files_is_refused(void **state) {
    static const char index[] = "{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\"}}";
    struct world *w = *state;
    struct lk_buf f = LK_BUF_INIT;
    struct lk_model m;
    struct lk_root root;
    char *dir = test_join(w->dir, "twice"), *weights = test_join(dir, "model.safetensors");
    world_model(w, &configs[2], 1, &m);
    OK(lk_model_export(w->store, &m, &(struct lk_model_export){.dtype = LK_F32}, dir, &test_err));
    OK(lk_file_read(weights, 1 << 24, &f, &test_err));
    put_file(dir, "one.safetensors", f.data, f.size);
    put_file(dir, "two.safetensors", f.data, f.size);
    put_file(dir, "model.safetensors.index.json", index, sizeof index - 1);
    assert_int_equal(unlink(weights), 0);
    FAILS(import_from(w, dir, NULL, &root), LK_EINVAL, "stands in two files, one.safetensors and two.safetensors");
    lk_buf_release(&f);
    lk_free(weights);
    lk_model_close(&m);
    test_dir_remove(dir);
}

/* --- What a folder says of texts ------------------------------------------------------------------------- */

static bool has(const char *dir, const char *name, const char *part) {
    struct lk_buf f = LK_BUF_INIT;
    char *path = test_join(dir, name);
    OK(lk_file_read(path, 1 << 24, &f, &test_err));
    bool found = memmem(f.data, f.size, part, strlen(part)) != NULL;
    lk_buf_release(&f);
    lk_free(path);
    return found;
}

/* A model trained here on conversations: its folder begins texts with the end token, has the template, and ends where an
 * answer ends. It comes back with its tokenizer's own root, and goes out again the same. */
static void a_folder_begins_chats_and_ends_as_here(void **state) {
    struct world *w = *state;
    struct lk_model m, back;
    struct lk_root weights = world_weights(w, &configs[3], 1), tokenizer = world_chat_tokenizer(w), root;
    char *dir = test_join(w->dir, "chat"), *again = test_join(w->dir, "again");
    OK(lk_model_open(w->store,
                     lk_model_manifest(&(struct lk_model_parts){.config = &configs[3],
                                                                .weights = &weights,
                                                                .tokenizer = &tokenizer,
                                                                .begin = UINT32_MAX,
                                                                .text_begin = UINT32_MAX,
                                                                .chat = LK_CHATML}),
                     true, &m, &test_err));
    assert_int_equal(m.chat, LK_CHATML);
    OK(lk_model_export(w->store, &m, &(struct lk_model_export){.dtype = LK_F32}, dir, &test_err));
    assert_true(has(dir, "tokenizer.json", "\"ids\": [262], \"tokens\": [\"<|endoftext|>\"]"));
    assert_true(has(dir, "tokenizer_config.json", "<|im_start|>") && has(dir, "chat_template.jinja", "<|im_start|>"));
    assert_true(has(dir, "generation_config.json", "262,\n    264"));
    OK(import_from(w, dir, NULL, &root));
    OK(lk_model_open_root(w->store, &root, true, &back, &test_err));
    assert_true(lk_root_equal(&back.tokenizer_root, &tokenizer));
    assert_true(back.text_begin == 262 && back.begin == 262 && back.stop_count == 2 && back.stops[1] == 264);
    assert_int_equal(back.chat, LK_CHATML);
    OK(lk_model_export(w->store, &back, &(struct lk_model_export){.dtype = LK_F32}, again, &test_err));
    static const char *const files[] = {"tokenizer.json", "tokenizer_config.json", "generation_config.json",
                                        "chat_template.jinja", "config.json"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) same_file(dir, again, files[i]);
    test_dir_remove(again);
    back.chat =
        LK_CHAT_QWEN25; /* as in a run from it on conversations of another template, of which there is no Jinja here */
    again = test_join(w->dir, "again");
    OK(lk_model_export(w->store, &back, &(struct lk_model_export){.dtype = LK_F32}, again, &test_err));
    assert_true(has(again, "tokenizer_config.json", "eos_token") && !has(again, "tokenizer_config.json", "chat_template"));
    char *jinja = test_join(again, "chat_template.jinja");
    assert_int_not_equal(access(jinja, F_OK), 0);
    lk_free(jinja);
    lk_model_close(&m);
    lk_model_close(&back);
    test_dir_remove(dir);
    test_dir_remove(again);
}

/* A file whose ids the tokenizers library would not give is no tokenizer to learn with; one that a model of before was kept
 * with is replaced when it goes out, as is one that is another tokenizer's. */
static void a_kept_tokenizer_is_the_models(void **state) {
    struct world *w = *state;
    struct lk_model m, back;
    struct lk_root root, tokenizer = world_chat_tokenizer(w);
    char *dir = test_join(w->dir, "kept"), *again = test_join(w->dir, "again");
    world_model(w, &configs[1], 1, &m);
    OK(lk_model_export(w->store, &m, &(struct lk_model_export){.dtype = LK_F32}, dir, &test_err));
    edit(dir, "tokenizer.json", "\"id\": 262, \"content\"", "\"id\": 270, \"content\"");
    edit(dir, "tokenizer.json", "\"<|endoftext|>\": 262", "\"<>endoftext<>\": 262");
    edit(dir, "tokenizer.json", "\"ids\": [262]", "\"ids\": [270]");
    FAILS(import_from(w, dir, NULL, &root), LK_EUNSUPPORTED, "says that its id is 270");
    edit(dir, "tokenizer.json", "\"ids\": [270]", "\"ids\": [262]");
    edit(dir, "tokenizer.json", "\"id\": 270, \"content\"", "\"id\": 262, \"content\"");
    edit(dir, "tokenizer.json", "\"<>endoftext<>\": 262", "\"<|endoftext|>\": 262");
    OK(import_from(w, dir, NULL, &root));
    OK(lk_model_open_root(w->store, &root, true, &back, &test_err));
    back.tokenizer_root = tokenizer; /* as in a run from it on a dataset of another tokenizer */
    OK(lk_model_export(w->store, &back, &(struct lk_model_export){.dtype = LK_F32}, again, &test_err));
    assert_true(has(again, "tokenizer.json", "<|im_end|>"));
    lk_model_close(&m);
    lk_model_close(&back);
    test_dir_remove(dir);
    test_dir_remove(again);
}

static void a_stopped_export_leaves_nothing(void **state) {
    struct world *w = *state;
    struct lk_model m;
    int calls = 0;
    char *top = test_join(w->dir, "stopped"), *dir = test_join(top, "out");
    OK(lk_dir_make(top, &test_err));
    world_model(w, &configs[0], 1, &m);
    FAILS(lk_model_export(w->store, &m, &(struct lk_model_export){LK_F32, test_stop, &calls}, dir, &test_err), LK_ESTOPPED,
          "nothing was written");
    calls = 0;
    FAILS(lk_model_export_llmc(&m, &(struct lk_model_export){LK_F32, test_stop, &calls}, dir, &test_err), LK_ESTOPPED,
          "nothing was written");
    assert_int_equal(test_dir_entries(top), 0);
    lk_model_close(&m);
    lk_free(dir);
    test_dir_remove(top);
}

/* --- Failures -------------------------------------------------------------------------------------------- */

struct exported {
    struct world *w;
    struct lk_model *m;
    const char *dir, *whole;
};
static int export_again(void *arg) {
    struct exported *e = arg;
    return lk_model_export(e->w->store, e->m, &(struct lk_model_export){.dtype = LK_F32}, e->dir, &test_err);
}
static void check_folder(void *arg) {
    static const char *const files[] = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
                                        "model.safetensors"};
    const struct exported *e = arg;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) same_file(e->whole, e->dir, files[i]);
}
static int remove_folder(const char *dir) {
    return lk_dir_remove(dir, NULL);
}
static void every_failure_leaves_nothing(void **state) {
    struct world *w = *state;
    struct lk_model m;
    struct lk_root root;
    char *top = test_join(w->dir, "faults"), *dir = lk_asprintf("%s/out", top);
    world_model(w, &configs[0], 1, &m);
    char *whole = test_join(w->dir, "whole");
    OK(lk_dir_make(top, &test_err));
    OK(lk_model_export(w->store, &m, &(struct lk_model_export){.dtype = LK_F32}, whole, &test_err));
    json_set_alloc_funcs(lk_alloc, lk_free); /* JSON's memory too */
    struct exported e = {w, &m, dir, whole};
    test_each_failure(&(struct test_failing){top, dir, export_again, check_folder, remove_folder, &e});
    json_set_alloc_funcs(malloc, free);
    test_dir_remove(whole);
    OK(lk_model_export(w->store, &m, &(struct lk_model_export){.dtype = LK_F32}, dir, &test_err));
    FAIL_EACH_ALLOCATION(import_from(w, dir, NULL, &root));
    for (uint64_t nth = 1;; nth++) {
        lk__file_fail_at(nth, EIO);
        int code = import_from(w, dir, NULL, &root);
        bool done = lk__file_call_count() < nth;
        lk__file_fail_at(0, 0);
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
        cmocka_unit_test(out_and_back_is_the_same),
        cmocka_unit_test(what_float16_cannot_hold_is_no_export),
        cmocka_unit_test(llmc_reads_its_checkpoint),
        cmocka_unit_test(bad_folders_are_refused),
        cmocka_unit_test(every_failure_leaves_nothing),
        cmocka_unit_test(a_tensor_in_two_files_is_refused),
        cmocka_unit_test(a_folder_begins_chats_and_ends_as_here),
        cmocka_unit_test(a_kept_tokenizer_is_the_models),
        cmocka_unit_test(a_stopped_export_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, world_make, world_drop);
}
