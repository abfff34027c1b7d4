/* Models out to GGUF files and back: the same roots, bytes and configuration; what a file says and we do not compute, by
 * name; every failure on the way leaves nothing. What llama.cpp makes of the files: tests/peers. */
#include "model/files_testing.h"
#include "model/gguf/keys.h"
#include <math.h>

#define COMMON .context = 64, .vocab = 272, .norm_epsilon = 1e-6, .init_std = 0.02
/* Every family and variant, with rows of whole blocks, of none, and of both. */
static const struct lk_model_config configs[] = {
    {COMMON, .family = LK_GPT2, .rope_theta = 1e4, .layers = 2, .width = 32, .heads = 2, .kv_heads = 2, .head_dim = 16,
     .ffn = 64, .tied = true},
    {COMMON, .family = LK_GPT2, .rope_theta = 1e4, .layers = 1, .width = 15, .heads = 3, .kv_heads = 3, .head_dim = 5,
     .ffn = 60},
    {COMMON, .family = LK_LLAMA, .rope_theta = 5e5, .layers = 2, .width = 64, .heads = 4, .kv_heads = 2, .head_dim = 8,
     .ffn = 33, .rope_factor = 8, .rope_low = 1, .rope_high = 4, .rope_original = 32},
    {COMMON, .family = LK_LLAMA, .rope_theta = 5e5, .layers = 1, .width = 32, .heads = 4, .kv_heads = 1, .head_dim = 6,
     .ffn = 96, .window = 7, .tied = true},
    {COMMON, .family = LK_LLAMA, .rope_theta = 5e5, .layers = 1, .width = 12, .heads = 2, .kv_heads = 1, .head_dim = 6,
     .ffn = 32, .qkv_bias = true},
    {COMMON, .family = LK_LLAMA, .rope_theta = 5e5, .layers = 3, .width = 32, .heads = 2, .kv_heads = 1, .head_dim = 10,
     .ffn = 32, .qk_norm = true, .tied = true},
};
#define CONFIGS (sizeof configs / sizeof *configs)
static const char *const types[CONFIGS] = {"gpt2", "gpt2", "llama", "mistral", "qwen2", "qwen3"};

static int import_from(struct world *w, const char *path, const struct lk_model_import *o, struct lk_root *root) {
    static const struct lk_model_import plain;
    return lk_model_import_gguf(w->store, path, o ? o : &plain, root, &test_err);
}
static int export_to(struct world *w, const struct lk_model *m, enum lk_dtype dtype, const char *path) {
    return lk_model_export_gguf(w->store, m, &(struct lk_model_export){.dtype = dtype}, path, &test_err);
}

static struct lk_buf read_all(const char *path) {
    struct lk_buf f = LK_BUF_INIT;
    OK(lk_file_read(path, 1 << 24, &f, &test_err));
    return f;
}
static void write_all(const char *path, const struct lk_buf *f) {
    OK(lk_file_write_atomic(path, f->data, f->size, &test_err));
}
/* The first `from` of the file replaced by `to`, of the same length. */
static void edit(const char *path, const char *from, const char *to) {
    struct lk_buf f = read_all(path);
    char *at = memmem(f.data, f.size, from, strlen(from));
    if (!at) fail_msg("the file has no %s", from);
    assert_int_equal(strlen(from), strlen(to));
    memcpy(at, to, strlen(to));
    write_all(path, &f);
    lk_buf_release(&f);
}
/* The bytes behind a text in the file. */
static void set_behind(const char *path, const char *text, size_t skip, const void *bytes, size_t size) {
    struct lk_buf f = read_all(path);
    char *at = memmem(f.data, f.size, text, strlen(text));
    assert_non_null(at);
    memcpy(at + strlen(text) + skip, bytes, size);
    write_all(path, &f);
    lk_buf_release(&f);
}

static void same_bytes(const char *a, const char *b) {
    struct lk_buf x = read_all(a), y = read_all(b);
    assert_int_equal(x.size, y.size);
    assert_memory_equal(x.data, y.data, x.size);
    lk_buf_release(&x), lk_buf_release(&y);
}

static void out_and_back_is_the_same(void **state) {
    struct world *w = *state;
    char *path = test_join(w->dir, "out.gguf"), *again = test_join(w->dir, "again.gguf");
    for (size_t i = 0; i < CONFIGS; i++)
        for (int dtype = LK_F32; dtype <= LK_F16; dtype++) {
            struct lk_model m, back;
            struct lk_root root;
            world_model(w, &configs[i], 1, &m);
            OK(export_to(w, &m, (enum lk_dtype)dtype, path));
            FAILS(export_to(w, &m, (enum lk_dtype)dtype, path), LK_EEXISTS, "remove it");
            OK(import_from(w, path, NULL, &root));
            OK(lk_model_open_root(w->store, &root, true, &back, &test_err));
            assert_true(lk_root_equal(&m.weights_root, &back.weights_root));
            assert_memory_equal(&m.layout.config, &back.layout.config, sizeof m.layout.config);
            assert_true(back.has_tokenizer && lk_root_equal(&back.tokenizer_root, &w->tokenizer));
            assert_true(back.stop_count == 2 && back.stops[0] == 262 && back.stops[1] == 3 && back.begin == 262);
            assert_true(back.text_begin == 262 && !back.layout.narrow);
            assert_string_equal(json_string_value(json_object_get(back.manifest, "type")), types[i]);
            OK(export_to(w, &back, (enum lk_dtype)dtype, again));
            same_bytes(path, again);
            lk_model_close(&back);
            lk_model_close(&m);
            unlink(path), unlink(again);
        }
    lk_free(path), lk_free(again);
}

/* Blocks are taken and written as they are; a model without any is one of floats. */
static void blocks_stay(void **state) {
    struct world *w = *state;
    char *path = test_join(w->dir, "narrow.gguf"), *again = test_join(w->dir, "again.gguf");
    struct test_math math = test_math_open(NULL, 1);
    for (size_t i = 0; i < CONFIGS; i++)
        for (int k = 0; k < 4; k++) {
            struct lk_model m, narrow, back;
            struct lk_root root;
            const struct lk_model_quantize how = {k & 1 ? LK_Q4 : LK_Q8, k & 2 ? LK_F32 : LK_Q8, NULL, NULL};
            world_model(w, &configs[i], 1, &m);
            OK(lk_model_quantize(math.math, w->store, &m, &how, &root, &test_err));
            OK(lk_model_open_root(w->store, &root, true, &narrow, &test_err));
            assert_true(narrow.has_narrow_from && lk_root_equal(&narrow.narrow_from, &m.weights_root));
            FAILS(export_to(w, &narrow, LK_F16, path), LK_EINVAL, "go out as they are: leave --dtype out");
            OK(export_to(w, &narrow, LK_F32, path));
            OK(import_from(w, path, NULL, &root));
            OK(lk_model_open_root(w->store, &root, true, &back, &test_err));
            bool blocks = false;
            for (size_t j = 0; j < narrow.layout.tensor_count; j++) {
                bool end = (int)j == narrow.layout.embedding || (int)j == narrow.layout.head;
                blocks |= narrow.layout.tensors[j].dtype != LK_F32 && !end;
            }
            assert_int_equal(back.layout.narrow, blocks);
            assert_false(back.has_narrow_from);
            if (blocks) assert_true(lk_root_equal(&narrow.weights_root, &back.weights_root));
            OK(export_to(w, &back, LK_F32, again));
            if (blocks) same_bytes(path, again);
            unlink(path), unlink(again);
            lk_model_close(&back), lk_model_close(&narrow), lk_model_close(&m);
        }
    test_math_close(&math);
    lk_free(path), lk_free(again);
}

/* In 16 bits: the file of the rounded floats, which come back as floats. */
static void halves_go_out_as_they_are(void **state) {
    struct world *w = *state;
    char *path = test_join(w->dir, "half.gguf"), *rounded = test_join(w->dir, "rounded.gguf");
    struct test_math math = test_math_open(NULL, 1);
    for (size_t i = 0; i < CONFIGS; i += 5) { /* rows of even length */
        struct lk_model m, narrow, back;
        struct lk_root root;
        world_model(w, &configs[i], 1, &m);
        OK(lk_model_quantize(math.math, w->store, &m, &(struct lk_model_quantize){LK_BF16, LK_BF16, NULL, NULL}, &root,
                             &test_err));
        OK(lk_model_open_root(w->store, &root, true, &narrow, &test_err));
        OK(export_to(w, &narrow, LK_F32, path));
        OK(export_to(w, &m, LK_BF16, rounded));
        struct lk_buf a = read_all(path), b = read_all(rounded);
        const char *name = memmem(a.data, a.size, "general.name", 12); /* which holds the root */
        assert_int_equal(a.size, b.size);
        memcpy(b.data + (name - a.data), name, 60);
        assert_memory_equal(a.data, b.data, a.size);
        OK(import_from(w, path, NULL, &root));
        OK(lk_model_open_root(w->store, &root, true, &back, &test_err));
        assert_true(lk_root_equal(&m.weights_root, &back.weights_root)); /* its weights have few bits */
        lk_buf_release(&a), lk_buf_release(&b);
        lk_model_close(&m), lk_model_close(&narrow), lk_model_close(&back);
        unlink(path), unlink(rounded);
    }
    test_math_close(&math);
    lk_free(path), lk_free(rounded);
}

/* llama's rows of Q and K stand in the file as rotary pairs. */
static void rows_lie_as_llama_cpp_has_them(void **state) {
    (void)state;
    struct lk_layout l;
    static const size_t want[8] = {0, 2, 4, 6, 1, 3, 5, 7};
    char name[LK__GGUF_NAME];
    OK(lk_layout_init(&l, &configs[2], &test_err));
    for (size_t row = 0; row < 32; row++) {
        assert_int_equal(lk__gguf_row(&l, &l.tensors[l.layers[0].q], row), row / 8 * 8 + want[row % 8]);
        assert_int_equal(lk__gguf_row(&l, &l.tensors[l.layers[0].v], row % 16), row % 16);
    }
    lk__gguf_tensor_name(l.tensors[l.layers[1].down].name, name);
    assert_string_equal(name, "blk.1.ffn_down.weight");
    lk_layout_release(&l);
    OK(lk_layout_init(&l, &configs[5], &test_err));
    for (size_t row = 0; row < 20; row++) assert_int_equal(lk__gguf_row(&l, &l.tensors[l.layers[0].q], row), row);
    lk_layout_release(&l);
}

/* Factors alone say a scaling that gives them. */
static void scalings_are_found(void **state) {
    (void)state;
    struct test_random r = test_random_open("scalings");
    int found = 0;
    for (int i = 0; i < 200; i++) {
        struct lk_model_config c = configs[2];
        float factors[512], again[512];
        c.head_dim = 32 + 2 * test_random_below(&r, 49);
        c.rope_theta = i % 2 ? 500000 : 10000;
        c.rope_factor = (double[]){8, 32, 4}[i % 3];
        c.rope_low = 1 + i % 2;
        c.rope_high = c.rope_low + 1 + test_random_below(&r, 4);
        c.rope_original = 64 << test_random_below(&r, 8);
        lk__gguf_rope_factors(&c, factors);
        c.rope_factor = c.rope_low = c.rope_high = 0;
        c.rope_original = 0;
        if (lk__gguf_rope_find(factors, "x.gguf", &c, &test_err)) continue;
        found++;
        if (!(c.rope_factor > 0)) { /* none is scaled */
            for (uint32_t k = 0; k < c.head_dim / 2; k++) assert_true(factors[k] == 1);
            continue;
        }
        lk__gguf_rope_factors(&c, again);
        for (uint32_t k = 0; k < c.head_dim / 2; k++) assert_true(fabsf(again[k] - factors[k]) <= 2e-5f * factors[k]);
    }
    assert_in_range(found, 190, 200);
    struct lk_model_config c = configs[2];
    c.rope_factor = 0;
    static const float odd[4] = {1, 3, 2, 8}, ones[4] = {1, 1, 1, 1};
    FAILS(lk__gguf_rope_find(odd, "x.gguf", &c, &test_err), LK_EUNSUPPORTED, "rope_freqs.weight holds factors");
    OK(lk__gguf_rope_find(ones, "x.gguf", &c, &test_err));
    assert_true(c.rope_factor == 0);
}

static void what_is_not_computed_is_refused(void **state) {
    struct world *w = *state;
    struct lk_model m;
    struct lk_root root;
    char *path = test_join(w->dir, "bad.gguf");
    const uint32_t nan = 0x7fc00000, two = 2, q6 = 14, q8 = 8, many = 300;
    static const struct lk_model_import none = {.no_tokenizer = true};
    static const char *const key[] = {"llama.context_lengtX"};
    const struct {
        const char *from, *to;
        int code;
        const char *says;
    } edits[] = {
        {"llama.context_length", "llama.context_lengtX", LK_EUNSUPPORTED, "--ignore llama.context_lengtX"},
        {"llama.block_count", "llama.block_counX", LK_EUNSUPPORTED, "not known here"},
        {"tokenizer.ggml.pre", "tokenizer.ggml.prX", LK_EUNSUPPORTED, "tokenizer.ggml.prX"},
        {"gpt-2", "tekke", LK_EUNSUPPORTED, "tokenizer.ggml.pre = \"tekke\""},
        {"blk.1.attn_norm.weight", "blk.1.attn_norX.weight", LK_EINVAL, "tensor blk.1.attn_norm.weight is missing"},
        {"rope_freqs.weight", "rope_freqX.weight", LK_EINVAL, "tensor rope_freqs.weight is missing"},
        {"general.type", "general.tyqe", 0, ""},
        {"model", "lorax", LK_EUNSUPPORTED, "general.type = lorax is not computed here"},
        {"lockstep.end", "lockstep.enX", LK_EUNSUPPORTED, "lockstep.enX"},
    };
    world_model(w, &configs[2], 1, &m);
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
        OK(export_to(w, &m, LK_F32, path));
        edit(path, edits[i].from, edits[i].to);
        if (edits[i].code)
            FAILS(import_from(w, path, NULL, &root), edits[i].code, edits[i].says);
        else
            OK(import_from(w, path, NULL, &root));
        if (i == 0)
            FAILS(import_from(w, path, &(struct lk_model_import){.ignore = key, .ignore_count = 1}, &root), LK_EINVAL,
                  "llama.context_length is missing");
        if (i == 2) OK(import_from(w, path, &none, &root));
        if (i == 3) OK(import_from(w, path, &(struct lk_model_import){.tokenizer = &w->tokenizer}, &root));
        unlink(path);
    }
    OK(export_to(w, &m, LK_F32, path));
    edit(path, "llama.attention.head_count", "gpt2x.attention.head_count");
    FAILS(import_from(w, path, NULL, &root), LK_EUNSUPPORTED, "gpt2x.attention.head_count");
    unlink(path);
    OK(export_to(w, &m, LK_F32, path));
    set_behind(path, "llama.vocab_size", 4, &many, 4);
    FAILS(import_from(w, path, NULL, &root), LK_EINVAL, "token_embd.weight has 272 rows, llama.vocab_size says 300");
    set_behind(path, "llama.vocab_size", 4, &(uint32_t){272}, 4);
    set_behind(path, "blk.0.ffn_norm.weight", 4, &two, 4);
    FAILS(import_from(w, path, NULL, &root), LK_EINVAL, "tensor blk.0.ffn_norm.weight has the shape (2, 1, 1, 1)");
    set_behind(path, "blk.0.ffn_norm.weight", 4, &(uint32_t){64}, 4);
    set_behind(path, "blk.0.ffn_gate.weight", 20, &q8, 4);
    FAILS(import_from(w, path, NULL, &root), LK_EUNSUPPORTED, "has type F32, other matrices of the layers Q8_0");
    set_behind(path, "blk.0.ffn_gate.weight", 20, &(uint32_t){0}, 4);
    set_behind(path, "blk.0.attn_norm.weight", 12, &(uint32_t){8}, 4);
    FAILS(import_from(w, path, NULL, &root), LK_EUNSUPPORTED,
          "tensor blk.0.attn_norm.weight has type Q8_0, which is not read");
    set_behind(path, "blk.0.attn_norm.weight", 12, &(uint32_t){0}, 4);
    OK(import_from(w, path, NULL, &root));
    struct lk_buf f = read_all(path);
    memcpy(f.data + f.size - 32, &nan, 4); /* the last tensor is rope_freqs */
    write_all(path, &f);
    FAILS(import_from(w, path, NULL, &root), LK_EINVAL, "rope_freqs.weight has an infinite value or NaN");
    lk_buf_release(&f);
    unlink(path);
    lk_model_close(&m);
    world_model(w, &configs[0], 1, &m);
    OK(export_to(w, &m, LK_F32, path));
    f = read_all(path);
    memcpy(f.data + f.size - 4, &nan, 4);
    write_all(path, &f);
    lk_buf_release(&f);
    FAILS(import_from(w, path, NULL, &root), LK_EINVAL, "tensor output_norm.bias has an infinite value or NaN");
    set_behind(path, "token_embd.weight", 20, &q6, 4);
    FAILS(import_from(w, path, NULL, &root), LK_ECORRUPT, "rows of no whole blocks");
    FAILS(import_from(w, "/no/such/file", NULL, &root), LK_ENOTFOUND, "there is no file /no/such/file");
    unlink(path);
    lk_model_close(&m);
    lk_free(path);
}

static bool has(const char *path, const char *part) {
    struct lk_buf f = read_all(path);
    bool found = memmem(f.data, f.size, part, strlen(part)) != NULL;
    lk_buf_release(&f);
    return found;
}

/* A model trained here on conversations: its file begins texts with the end token, has the template, and ends where an
 * answer ends. It comes back with its tokenizer's own root, goes out again the same, and as a folder with its template. */
static void a_file_begins_chats_and_ends_as_here(void **state) {
    struct world *w = *state;
    struct lk_model m, back;
    struct lk_root root, tokenizer = world_chat_tokenizer(w);
    char *path = test_join(w->dir, "chat.gguf"), *again = test_join(w->dir, "again.gguf"), *dir = test_join(w->dir, "chat");
    world_model(w, &configs[2], 1, &m);
    m.tokenizer_root = tokenizer;
    m.chat = LK_CHATML;
    m.begin = UINT32_MAX;
    m.stop_count = 0;
    json_object_set_new(m.manifest, "type", json_null());
    OK(export_to(w, &m, LK_F32, path));
    assert_true(has(path, lk_chat_jinja(LK_CHATML)));
    OK(import_from(w, path, NULL, &root));
    OK(lk_model_open_root(w->store, &root, true, &back, &test_err));
    assert_int_equal(back.chat, LK_CHATML);
    assert_true(lk_root_equal(&back.tokenizer_root, &tokenizer));
    assert_true(back.text_begin == 262 && back.begin == 262 && back.stop_count == 2 && back.stops[1] == 264);
    OK(export_to(w, &back, LK_F32, again));
    same_bytes(path, again);
    OK(lk_model_export(w->store, &back, &(struct lk_model_export){.dtype = LK_F32}, dir, &test_err));
    char *template = test_join(dir, "chat_template.jinja");
    assert_true(has(template, lk_chat_jinja(LK_CHATML)));
    lk_model_close(&m), lk_model_close(&back);
    unlink(path), unlink(again);
    lk_free(path), lk_free(again), lk_free(template);
    test_dir_remove(dir);
}

struct exported {
    struct world *w;
    struct lk_model *m;
    const char *path, *whole;
};
static int export_again(void *arg) {
    const struct exported *e = arg;
    return export_to(e->w, e->m, LK_F32, e->path);
}
static void check_file(void *arg) {
    const struct exported *e = arg;
    same_bytes(e->whole, e->path);
}
static void every_failure_leaves_nothing(void **state) {
    struct world *w = *state;
    struct lk_model m, narrow;
    struct lk_root root;
    int calls = 0;
    char *top = test_join(w->dir, "faults"), *path = lk_asprintf("%s/x.gguf", top),
         *whole = test_join(w->dir, "whole.gguf");
    struct test_math math = test_math_open(NULL, 1);
    OK(lk_dir_make(top, &test_err));
    world_model(w, &configs[3], 1, &m);
    OK(lk_model_quantize(math.math, w->store, &m, &(struct lk_model_quantize){LK_Q8, LK_Q8, NULL, NULL}, &root, &test_err));
    OK(lk_model_open_root(w->store, &root, true, &narrow, &test_err));
    FAILS(lk_model_export_gguf(w->store, &m, &(struct lk_model_export){LK_F32, test_stop, &calls}, path, &test_err),
          LK_ESTOPPED, "nothing was written");
    assert_int_equal(test_dir_entries(top), 0);
    OK(export_to(w, &narrow, LK_F32, whole));
    json_set_alloc_funcs(lk_alloc, lk_free); /* JSON's memory too */
    struct exported e = {w, &narrow, path, whole};
    test_each_failure(&(struct test_failing){top, path, export_again, check_file, unlink, &e});
    struct lk_root first;
    OK(import_from(w, whole, NULL, &first));
    for (uint64_t nth = 1, made = 1; made >= nth; nth++) { /* where it is done without, the model is the same */
        assert_in_range(nth, 1, 10000);
        lk__alloc_fail_at(nth);
        int code = import_from(w, whole, NULL, &root);
        made = lk__alloc_count();
        lk__alloc_fail_at(0);
        assert_true(code ? made >= nth && code == LK_ENOMEM : lk_root_equal(&root, &first));
    }
    json_set_alloc_funcs(malloc, free);
    calls = 0;
    FAILS(import_from(w, whole, &(struct lk_model_import){.progress = test_stop, .arg = &calls}, &root), LK_ESTOPPED,
          "nothing was kept");
    lk_model_close(&m), lk_model_close(&narrow);
    test_math_close(&math);
    lk_free(path), lk_free(whole);
    test_dir_remove(top);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(out_and_back_is_the_same),
        cmocka_unit_test(blocks_stay),
        cmocka_unit_test(halves_go_out_as_they_are),
        cmocka_unit_test(rows_lie_as_llama_cpp_has_them),
        cmocka_unit_test(scalings_are_found),
        cmocka_unit_test(what_is_not_computed_is_refused),
        cmocka_unit_test(a_file_begins_chats_and_ends_as_here),
        cmocka_unit_test(every_failure_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, world_make, world_drop);
}
