/* Tensors in canonical order: names, shapes, places; initial values; impossible configurations. */
#include "model/testing.h"
#include <math.h>

static const struct lk_model_config llama = {LK_LLAMA, 2, 12, 4, 2, 4, 10, 7, 13, false, 1e-5, 10000, 0.02};
static const struct lk_model_config gpt2 = {LK_GPT2, 2, 14, 2, 2, 7, 10, 6, 11, true, 1e-5, 0, 0.02};

struct expected {
    const char *name;
    uint32_t rows, columns; /* columns 0: a vector */
    double constant, deviation;
};

static void check(const struct lk_model_config *c, const struct expected *e, size_t count) {
    struct lk_layout l;
    size_t parameters = 0, at = 0;
    OK(lk_layout_init(&l, c, &test_err));
    assert_int_equal(l.tensor_count, count);
    for (size_t i = 0; i < count; i++) {
        const struct lk_tensor *t = &l.tensors[i];
        size_t n = (size_t)e[i].rows * (e[i].columns ? e[i].columns : 1);
        assert_string_equal(t->name, e[i].name);
        assert_int_equal(t->dims, e[i].columns ? 2 : 1);
        assert_int_equal(t->shape[0], e[i].rows);
        assert_int_equal(t->shape[1], e[i].columns ? e[i].columns : 1);
        assert_int_equal(t->count, n);
        assert_int_equal(t->offset, at);
        assert_int_equal(t->offset % 16, 0);
        assert_int_equal(t->decay, e[i].columns != 0);
        assert_true(t->deviation == e[i].deviation && t->constant == (float)e[i].constant);
        parameters += n;
        at += (n + 15) / 16 * 16;
    }
    assert_int_equal(l.parameters, parameters);
    assert_int_equal(l.floats, at);
    lk_layout_pack(&l);
    for (size_t i = 0; i + 1 < count; i++)
        assert_int_equal(l.tensors[i].offset + l.tensors[i].count, l.tensors[i + 1].offset);
    assert_int_equal(l.floats, parameters);
    lk_layout_release(&l);
}

static void llama_has_hugging_face_names_in_order(void **state) {
    (void)state;
    const double std = 0.02, out = 0.02 / 2; /* sqrt(2 * 2 layers) */
    check(&llama,
          (struct expected[]){{"model.embed_tokens.weight", 13, 12, 0, std},
                              {"model.layers.0.input_layernorm.weight", 12, 0, 1, 0},
                              {"model.layers.0.self_attn.q_proj.weight", 16, 12, 0, std},
                              {"model.layers.0.self_attn.k_proj.weight", 8, 12, 0, std},
                              {"model.layers.0.self_attn.v_proj.weight", 8, 12, 0, std},
                              {"model.layers.0.self_attn.o_proj.weight", 12, 16, 0, out},
                              {"model.layers.0.post_attention_layernorm.weight", 12, 0, 1, 0},
                              {"model.layers.0.mlp.gate_proj.weight", 10, 12, 0, std},
                              {"model.layers.0.mlp.up_proj.weight", 10, 12, 0, std},
                              {"model.layers.0.mlp.down_proj.weight", 12, 10, 0, out},
                              {"model.layers.1.input_layernorm.weight", 12, 0, 1, 0},
                              {"model.layers.1.self_attn.q_proj.weight", 16, 12, 0, std},
                              {"model.layers.1.self_attn.k_proj.weight", 8, 12, 0, std},
                              {"model.layers.1.self_attn.v_proj.weight", 8, 12, 0, std},
                              {"model.layers.1.self_attn.o_proj.weight", 12, 16, 0, out},
                              {"model.layers.1.post_attention_layernorm.weight", 12, 0, 1, 0},
                              {"model.layers.1.mlp.gate_proj.weight", 10, 12, 0, std},
                              {"model.layers.1.mlp.up_proj.weight", 10, 12, 0, std},
                              {"model.layers.1.mlp.down_proj.weight", 12, 10, 0, out},
                              {"model.norm.weight", 12, 0, 1, 0},
                              {"lm_head.weight", 13, 12, 0, std}},
          21);
}

static void variants_have_hugging_face_names_in_order(void **state) {
    (void)state;
    const double std = 0.02, out = 0.02 / sqrt(2);
    struct lk_model_config c = llama;
    c.layers = 1, c.tied = true, c.qkv_bias = c.qk_norm = true;
    check(&c,
          (struct expected[]){{"model.embed_tokens.weight", 13, 12, 0, std},
                              {"model.layers.0.input_layernorm.weight", 12, 0, 1, 0},
                              {"model.layers.0.self_attn.q_proj.weight", 16, 12, 0, std},
                              {"model.layers.0.self_attn.q_proj.bias", 16, 0, 0, 0},
                              {"model.layers.0.self_attn.k_proj.weight", 8, 12, 0, std},
                              {"model.layers.0.self_attn.k_proj.bias", 8, 0, 0, 0},
                              {"model.layers.0.self_attn.v_proj.weight", 8, 12, 0, std},
                              {"model.layers.0.self_attn.v_proj.bias", 8, 0, 0, 0},
                              {"model.layers.0.self_attn.q_norm.weight", 4, 0, 1, 0},
                              {"model.layers.0.self_attn.k_norm.weight", 4, 0, 1, 0},
                              {"model.layers.0.self_attn.o_proj.weight", 12, 16, 0, out},
                              {"model.layers.0.post_attention_layernorm.weight", 12, 0, 1, 0},
                              {"model.layers.0.mlp.gate_proj.weight", 10, 12, 0, std},
                              {"model.layers.0.mlp.up_proj.weight", 10, 12, 0, std},
                              {"model.layers.0.mlp.down_proj.weight", 12, 10, 0, out},
                              {"model.norm.weight", 12, 0, 1, 0}},
          16);
}

static void gpt2_has_hugging_face_names_in_order(void **state) {
    (void)state;
    const double std = 0.02, out = 0.02 / 2;
    struct expected e[29];
    char names[24][40];
    size_t n = 0;
    e[n++] = (struct expected){"wte.weight", 11, 14, 0, std};
    e[n++] = (struct expected){"wpe.weight", 6, 14, 0, std};
    const struct expected layer[12] = {{"ln_1.weight", 14, 0, 1, 0},           {"ln_1.bias", 14, 0, 0, 0},
                                       {"attn.c_attn.weight", 42, 14, 0, std}, {"attn.c_attn.bias", 42, 0, 0, 0},
                                       {"attn.c_proj.weight", 14, 14, 0, out}, {"attn.c_proj.bias", 14, 0, 0, 0},
                                       {"ln_2.weight", 14, 0, 1, 0},           {"ln_2.bias", 14, 0, 0, 0},
                                       {"mlp.c_fc.weight", 10, 14, 0, std},    {"mlp.c_fc.bias", 10, 0, 0, 0},
                                       {"mlp.c_proj.weight", 14, 10, 0, out},  {"mlp.c_proj.bias", 14, 0, 0, 0}};
    for (int l = 0; l < 2; l++)
        for (int i = 0; i < 12; i++) {
            snprintf(names[12 * l + i], sizeof names[0], "h.%d.%s", l, layer[i].name);
            e[n] = layer[i];
            e[n++].name = names[12 * l + i];
        }
    e[n++] = (struct expected){"ln_f.weight", 14, 0, 1, 0};
    e[n++] = (struct expected){"ln_f.bias", 14, 0, 0, 0};
    check(&gpt2, e, n);
}

static void initial_values_depend_on_seed_and_tensor_only(void **state) {
    (void)state;
    struct lk_layout l;
    OK(lk_layout_init(&l, &llama, &test_err));
    size_t bytes = l.floats * sizeof(float);
    float *a = lk_alloc(bytes), *b = lk_alloc(bytes);
    struct test_math one = test_math_open("ref", 1), many = test_math_open(NULL, 3);
    memset(a, 0xff, bytes); /* padding has to become zero */
    lk_layout_initialise(&l, one.math, 7, a);
    lk_layout_initialise(&l, many.math, 7, b);
    assert_memory_equal(a, b, bytes);
    double squares = 0;
    size_t n = 0;
    for (size_t i = 0; i < l.tensor_count; i++) {
        const struct lk_tensor *t = &l.tensors[i];
        for (size_t j = 0; j < t->count; j++) {
            float x = a[t->offset + j];
            if (t->deviation > 0)
                squares += x * x / (t->deviation * t->deviation), n++;
            else
                assert_true(x == t->constant);
        }
        for (size_t j = t->offset + t->count; j % 16; j++) assert_true(a[j] == 0);
    }
    assert_true(fabs(squares / (double)n - 1) < 0.1); /* 1,668 normal numbers: five deviations are 0.17 */
    lk_layout_initialise(&l, one.math, 8, b);
    assert_memory_not_equal(a, b, bytes);
    lk_free(a);
    lk_free(b);
    test_math_close(&one);
    test_math_close(&many);
    lk_layout_release(&l);
}

static void refuse(struct lk_model_config c, const char *part) {
    struct lk_layout l;
    FAILS(lk_layout_init(&l, &c, &test_err), LK_EINVAL, part);
}
static void impossible_configurations_name_their_keys(void **state) {
    (void)state;
    struct lk_model_config c = llama;
#define WITH(change, part) (c = llama, change, refuse(c, part))
    WITH(c.layers = 0, "layers");
    WITH(c.vocab = 1, "vocab");
    WITH(c.kv_heads = 3, "kv_heads = 3 must divide heads = 4");
    WITH(c.kv_heads = 0, "kv_heads");
    WITH(c.head_dim = 0, "heads = 4 must divide width = 12");
    WITH(c.head_dim = 5, "even; it is 5");
    WITH(c.norm_epsilon = 0, "norm_epsilon");
    WITH(c.init_std = -1, "init_std");
    WITH(c.rope_theta = 1, "rope_theta");
    WITH((c.vocab = 2000000000, c.width = 1048576), "parameters");
    WITH((c.vocab = 60000000, c.width = 84), "5040000000 elements");
    WITH((c.width = 2, c.heads = c.kv_heads = 65536, c.head_dim = 65536), "at most 1024");
    WITH(c.norm_epsilon = 1e-60, "norm_epsilon");
    WITH((c = gpt2, c.kv_heads = 1), "gpt2");
    WITH((c = gpt2, c.head_dim = 6), "gpt2");
    WITH((c = gpt2, c.qkv_bias = true), "qkv_bias is for the llama family");
    WITH((c = gpt2, c.qk_norm = true), "qk_norm is for the llama family");
    WITH((c = gpt2, c.window = 3), "window is for the llama family");
    WITH((c = gpt2, c.rope_factor = 8), "rope_factor is for the llama family");
    WITH(c.context = (1 << 24) + 1, "context = 16777217");
    WITH(c.rope_factor = 0.5, "rope_factor = 0.5");
    WITH(c.rope_factor = NAN, "rope_factor = nan");
    WITH((c.rope_factor = 8, c.rope_low = 4, c.rope_high = 4, c.rope_original = 9), "less than rope_high = 4");
    WITH((c.rope_factor = 8, c.rope_low = 0, c.rope_high = 4, c.rope_original = 9), "rope_low = 0");
    WITH((c.rope_factor = 8, c.rope_low = 1, c.rope_high = 4), "rope_original");
}

static int make_and_release(void) {
    struct lk_layout l;
    int code = lk_layout_init(&l, &gpt2, &test_err);
    if (!code) lk_layout_release(&l);
    return code;
}
static void no_memory_is_said(void **state) {
    (void)state;
    FAIL_EACH_ALLOCATION(make_and_release());
}

static void flops_are_those_of_the_products(void **state) {
    (void)state;
    /* one layer: q, o (16 x 12), k, v (8 x 12), three of 10 x 12; attention: 2 * 16 * (visible keys: 1 + 2 + ... + 7 of 7)
     */
    double expected = 0;
    for (int t = 0; t < 7; t++)
        expected += 2 * (2.0 * (2 * 16 * 12 + 2 * 8 * 12 + 3 * 10 * 12) + 2.0 * 2 * 16 * (t + 1)) + 2.0 * 13 * 12;
    assert_true(lk_model_flops(&llama, 1, 7) == expected);
    assert_true(lk_model_flops(&llama, 3, 7) == 3 * expected);
    struct lk_model_config c = llama;
    for (c.window = 1; c.window < 9; c.window++) { /* at the last 7 - window positions keys are hidden: 1, 2, ... */
        double less = expected;
        for (uint32_t t = c.window; t < 7; t++) less -= 2 * 2.0 * 2 * 16 * (t + 1 - c.window);
        assert_true(fabs(lk_model_flops(&c, 1, 7) - less) < 1e-9 * less);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(llama_has_hugging_face_names_in_order),
        cmocka_unit_test(variants_have_hugging_face_names_in_order),
        cmocka_unit_test(gpt2_has_hugging_face_names_in_order),
        cmocka_unit_test(initial_values_depend_on_seed_and_tensor_only),
        cmocka_unit_test(impossible_configurations_name_their_keys),
        cmocka_unit_test(no_memory_is_said),
        cmocka_unit_test(flops_are_those_of_the_products),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
