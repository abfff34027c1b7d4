/* decode = prefill = training forward, by bits, and everything that must change no bit changes none. */
#include "model/decoder.h"
#include "model/testing.h"

static const struct lk_model_config configs[] = {
    {LK_LLAMA, 2, 84, 12, 3, 6, 50, 130, 97, true, 1e-5, 10000, 0.02},
    {LK_LLAMA, 3, 20, 2, 1, 10, 33, 65, 41, false, 1e-6, 500, 0.02},
    {LK_GPT2, 2, 84, 12, 12, 7, 90, 130, 97, true, 1e-5, 0, 0.02},
    {LK_GPT2, 1, 9, 3, 3, 3, 11, 65, 23, false, 1e-5, 0, 0.02},
    {LK_LLAMA, 2, 42, 6, 2, 14, 50, 130, 97, true, 1e-6, 10000, 0.02, .qkv_bias = true},
    {LK_LLAMA, 2, 36, 4, 2, 18, 50, 130, 97, false, 1e-6, 10000, 0.02, .qk_norm = true},
    {LK_LLAMA, 2, 20, 4, 1, 6, 33, 130, 41, false, 1e-6, 10000, 0.02, .window = 33},
    {LK_LLAMA, 2, 20, 2, 2, 12, 33, 130, 41, true, 1e-5, 500000, 0.02, false, false, 0, 8, 1, 4, 32},
    {LK_LLAMA, 3, 20, 6, 2, 10, 33, 130, 41, false, 1e-5, 10000, 0.02, true, true, 20, 8, 1, 4, 32},
    {LK_LLAMA, 2, 20, 6, 3, 32, 33, 130, 41, true, 1e-5, 10000, 0.02, .window = 50},
    {LK_GPT2, 1, 64, 1, 1, 64, 33, 65, 23, true, 1e-5, 0, 0.02},
};
#define CONFIGS (sizeof configs / sizeof *configs)

struct setup {
    struct lk_layout layout;
    float *w;
    uint32_t *tokens; /* context */
};
static void make(struct setup *s, struct test_random *r, const struct lk_model_config *c) {
    OK(lk_layout_init(&s->layout, c, &test_err));
    if (test_random_below(r, 2)) lk_layout_pack(&s->layout);
    s->w = lk_alloc(s->layout.floats * 4);
    s->tokens = lk_alloc(c->context * 4);
    test_weights(r, &s->layout, 0.2, s->w);
    for (uint32_t t = 0; t < c->context; t++) s->tokens[t] = test_random_below(r, c->vocab);
}
static void drop(struct setup *s) {
    lk_free(s->w);
    lk_free(s->tokens);
    lk_layout_release(&s->layout);
}

/* Logits (context, vocab) of the training forward; with keys and values in 8 bits, of the forward alone. */
static float *training_logits(const struct setup *s, struct lk_math *math, enum lk_dtype cache) {
    const struct lk_model_config *c = &s->layout.config;
    size_t size = (size_t)c->context * c->vocab * 4;
    struct lk_decoder *d;
    float *out = lk_alloc(size);
    OK(lk_decoder_create(&s->layout, math, 1, c->context, cache == LK_F32 ? LK_TRAINING : LK_INFER, &d, &test_err));
    if (cache != LK_F32) OK(lk_decoder_use_cache(d, cache, &test_err));
    memcpy(out, lk_decoder_forward(d, s->w, 1, c->context, s->tokens, NULL), size);
    lk_decoder_free(d);
    return out;
}

/* Several copies of the context read in random chunks, 1 to `chunk` positions at a time, each as far as chance has it;
 * their pages are taken as they are needed, from a shuffled heap. `wanted` of each chunk's rows are computed and compared.
 */
enum { COPIES = 4 };
static void read_in_chunks(struct test_random *r, const struct setup *s, struct lk_math *math, uint32_t chunk,
                           enum lk_dtype dtype, const float *expected) {
    const struct lk_model_config *c = &s->layout.config;
    struct lk_decoder *d;
    struct lk_attention_cache cache;
    static const uint32_t sizes[] = {1, 3, 16, 64, 1000};
    uint32_t page = sizes[test_random_below(r, 5)], most = (c->context + page - 1) / page, used[COPIES] = {0}, taken = 0;
    uint32_t *heap = lk_alloc(COPIES * most * 4), *pages = lk_alloc(COPIES * most * 4), done = 0;
    void *panels = lk_alloc(s->layout.panel_bytes);
    OK(lk_decoder_create(&s->layout, math, COPIES * chunk, COPIES * chunk, LK_EXTEND, &d, &test_err));
    if (test_random_below(r, 2) && lk_decoder_fill_panels(d, s->w, panels)) lk_decoder_use_panels(d, s->w, panels);
    OK(lk_decoder_use_cache(d, dtype, &test_err));
    OK(lk_attention_cache_init(&cache, &s->layout, dtype, page, COPIES * most, &test_err));
    memset(cache.data, 0xff, lk_attention_cache_bytes(&s->layout, dtype, page, COPIES * most)); /* NaN */
    for (uint32_t i = 0; i < COPIES * most; i++) {
        uint32_t j = test_random_below(r, i + 1);
        heap[i] = heap[j], heap[j] = i;
    }
    while (done < COPIES) {
        struct lk_extension e[COPIES];
        uint32_t count = 0, of[COPIES];
        for (uint32_t q = 0; q < COPIES; q++) {
            uint32_t left = c->context - used[q], n;
            if (!left || test_random_below(r, 4) == 0) continue;
            n = 1 + test_random_below(r, left < chunk ? left : chunk);
            for (uint32_t at = (used[q] + page - 1) / page; at * page < used[q] + n; at++)
                pages[q * most + at] = heap[taken++];
            of[count] = q;
            e[count++] = (struct lk_extension){s->tokens + used[q], pages + q * most, used[q], n,
                                               test_random_below(r, 3) ? n : test_random_below(r, n + 1)};
        }
        if (!count) continue;
        const float *logits = lk_decoder_extend(d, s->w, &cache, e, count);
        for (uint32_t q = 0; q < count; q++) {
            for (uint32_t i = e[q].first + e[q].count - e[q].wanted; i < e[q].first + e[q].count; i++, logits += c->vocab)
                if (memcmp(logits, expected + (size_t)i * c->vocab, c->vocab * 4))
                    fail_msg("%s, cache in %s, chunk of %u at %u, pages of %u: position %u differs", test_family(c->family),
                             lk_dtype_name(dtype), e[q].count, e[q].first, page, i);
            done += (used[of[q]] += e[q].count) == c->context;
        }
    }
    lk_decoder_free(d);
    lk_free(panels);
    lk_free(heap);
    lk_free(pages);
    lk_attention_cache_release(&cache);
}

static void decode_is_prefill_is_forward(struct test_random *r, const struct setup *s, enum lk_dtype cache) {
    const char *isas[8];
    int count = lk_math_isas(isas);
    const struct lk_model_config *c = &s->layout.config;
    size_t bytes = (size_t)c->context * c->vocab * 4;
    struct test_math first = test_math_open("ref", 1);
    float *expected = training_logits(s, first.math, cache), *floats = training_logits(s, first.math, LK_F32);
    assert_true((memcmp(expected, floats, bytes) == 0) == (cache == LK_F32));
    for (int k = 0; k < count; k++)
        for (int threads = 1; threads <= 3; threads += 2) {
            struct test_math m = test_math_open(isas[k], threads);
            float *logits = training_logits(s, m.math, cache);
            assert_memory_equal(logits, expected, bytes);
            lk_free(logits);
            const uint32_t chunks[] = {1, 2, 7, 64, c->context};
            for (size_t j = 0; j < 5; j++)
                if (j == 4 || isas[k][0] != 'r' || threads == 1) read_in_chunks(r, s, m.math, chunks[j], cache, expected);
            test_math_close(&m);
        }
    lk_free(expected);
    lk_free(floats);
    test_math_close(&first);
}
static void decode_equals_prefill_equals_training(void **state) {
    (void)state;
    struct test_random r = test_random_open("chunks");
    for (size_t n = 0; n < CONFIGS; n++) {
        struct setup s;
        make(&s, &r, &configs[n]);
        decode_is_prefill_is_forward(&r, &s, LK_F32);
        if (configs[n].head_dim % LK_QUANT_BLOCK == 0) decode_is_prefill_is_forward(&r, &s, LK_Q8);
        drop(&s);
    }
}

/* A cache in 8 bits wants whole blocks, and there is none in other formats. */
static void caches_that_are_none(void **state) {
    (void)state;
    struct lk_layout l;
    struct lk_attention_cache cache;
    OK(lk_layout_init(&l, &configs[0], &test_err));
    FAILS(lk_attention_cache_init(&cache, &l, LK_Q8, 8, 1, &test_err), LK_EUNSUPPORTED,
          "want heads of a multiple of 32 numbers; the model's have 6");
    FAILS(lk_attention_cache_init(&cache, &l, LK_Q4, 8, 1, &test_err), LK_EUNSUPPORTED, "f32 or q8, not in q4");
    lk_attention_cache_release(&cache);
    lk_layout_release(&l);
}

/* A batch's rows are those of its sequences alone; a decoder made for more gives the same. */
static void batch_and_capacity_change_nothing(void **state) {
    (void)state;
    struct test_random r = test_random_open("batch");
    struct test_math m = test_math_open(NULL, 2);
    for (size_t n = 0; n < CONFIGS; n++) {
        const struct lk_model_config *c = &configs[n];
        struct setup s;
        struct lk_decoder *all, *one;
        make(&s, &r, c);
        struct test_batch b = test_batch_make(&r, 3, 37, c->vocab, true);
        OK(lk_decoder_create(&s.layout, m.math, 5, c->context, LK_INFER, &all, &test_err));
        OK(lk_decoder_create(&s.layout, m.math, 1, 37, LK_RECOMPUTE, &one, &test_err));
        size_t size = (size_t)37 * c->vocab;
        float *logits = lk_alloc(3 * size * 4);
        memcpy(logits, lk_decoder_forward(all, s.w, 3, 37, b.tokens, b.start), 3 * size * 4);
        for (uint32_t i = 0; i < 3; i++)
            assert_memory_equal(lk_decoder_forward(one, s.w, 1, 37, b.tokens + i * 37, b.start + i * 37), logits + i * size,
                                size * 4);
        lk_free(logits);
        lk_decoder_free(all);
        lk_decoder_free(one);
        test_batch_free(&b);
        drop(&s);
    }
    test_math_close(&m);
}

/* Gradients: kept or recomputed activations, every ISA, threads: the same bits. Another number of grains: others. */
static void recompute_isa_and_threads_change_no_gradient(void **state) {
    (void)state;
    struct test_random r = test_random_open("gradients");
    const char *isas[8];
    int count = lk_math_isas(isas);
    for (size_t n = 0; n < CONFIGS; n++) {
        struct setup s;
        make(&s, &r, &configs[n]);
        struct test_batch b = test_batch_make(&r, 6, 65, configs[n].vocab, n % 2);
        size_t bytes = s.layout.floats * 4;
        float *expected = lk_alloc(bytes), *g = lk_alloc(bytes);
        struct test_math first = test_math_open("ref", 2);
        double loss = test_gradient(first.math, &s.layout, LK_TRAINING, s.w, &b, 3, expected);
        for (int k = 0; k < count; k++)
            for (int mode = LK_TRAINING; mode <= LK_RECOMPUTE; mode++) {
                struct test_math m = test_math_open(isas[k], 1 + (k + mode) % 3);
                assert_true(test_gradient(m.math, &s.layout, (enum lk_decoder_mode)mode, s.w, &b, 3, g) == loss);
                assert_memory_equal(g, expected, bytes);
                test_math_close(&m);
            }
        test_gradient(first.math, &s.layout, LK_TRAINING, s.w, &b, 2, g);
        assert_memory_not_equal(g, expected, bytes);
        lk_free(expected);
        lk_free(g);
        test_math_close(&first);
        test_batch_free(&b);
        drop(&s);
    }
}

/* One grain in pieces, accumulating, equals the grain at once. */
static void accumulating_sequences_changes_no_gradient(void **state) {
    (void)state;
    struct test_random r = test_random_open("pieces");
    struct test_math m = test_math_open(NULL, 2);
    for (size_t n = 0; n < CONFIGS; n++) {
        const struct lk_model_config *c = &configs[n];
        struct setup s;
        make(&s, &r, c);
        struct test_batch b = test_batch_make(&r, 5, c->context, c->vocab, true);
        size_t vocab = c->vocab, tail = s.layout.floats - s.layout.tensors[1].offset; /* all but the embedding table */
        float *whole = lk_alloc(s.layout.floats * 4), *g = lk_alloc(s.layout.floats * 4), losses[5 * 130];
        test_gradient(m.math, &s.layout, LK_TRAINING, s.w, &b, 1, whole);
        struct lk_decoder *d;
        OK(lk_decoder_create(&s.layout, m.math, 2, c->context, LK_TRAINING, &d, &test_err));
        memset(g, 0, s.layout.floats * 4);
        for (uint32_t at = 0; at < 5; at += 2) {
            uint32_t k = at + 2 <= 5 ? 2 : 1;
            size_t first = (size_t)at * c->context, rows = (size_t)k * c->context;
            struct lk_row_part parts[2] = {{0, c->context, k == 1}, {c->context, c->context, true}};
            float *logits = lk_decoder_forward(d, s.w, k, c->context, b.tokens + first, b.start + first);
            lk_cross_entropy(m.math, &(struct lk_cross_entropy){.rows = rows,
                                                                .vocab = vocab,
                                                                .logits = logits,
                                                                .ld = vocab,
                                                                .targets = b.targets + first,
                                                                .scale = (float)(1.0 / b.unmasked),
                                                                .gradient = true,
                                                                .loss = losses});
            lk_decoder_backward(d, s.w, parts, k, at > 0, g, NULL, NULL);
        }
        assert_memory_equal(g + s.layout.tensors[1].offset, whole + s.layout.tensors[1].offset, tail * 4);
        lk_decoder_free(d);
        lk_free(whole);
        lk_free(g);
        test_batch_free(&b);
        drop(&s);
    }
    test_math_close(&m);
}

/* A window is a mask of the first keys and nothing else: the bits of a model without one that is told these keys. */
static void a_window_hides_keys(void **state) {
    (void)state;
    struct test_random r = test_random_open("window");
    enum { T = 70 };
    for (int n = 0; n < 12; n++) {
        static const uint32_t windows[] = {1, 2, T - 1, T, T + 1, 19};
        struct lk_model_config c = {LK_LLAMA, 2, 20, 4, 2, 6, 33, T, 41, true, 1e-6, 10000, 0.02};
        struct setup plain;
        make(&plain, &r, &c);
        struct lk_layout windowed;
        c.window = windows[n % 6];
        OK(lk_layout_init(&windowed, &c, &test_err));
        if (plain.layout.floats == plain.layout.parameters) lk_layout_pack(&windowed);
        struct test_batch b = test_batch_make(&r, 2, T, c.vocab, n >= 6), told = b;
        told.start = lk_alloc(2 * T * sizeof *told.start);
        size_t hidden = 0; /* pairs */
        for (uint32_t i = 0; i < 2 * T; i++) {
            uint32_t least = i % T < c.window ? 0 : i % T - c.window + 1, document = b.start ? b.start[i] : 0;
            told.start[i] = least > document ? least : document;
            hidden += told.start[i] - document;
        }
        float *g = lk_alloc(windowed.floats * 4), *expected = lk_alloc(windowed.floats * 4);
        struct test_math m = test_math_open(n % 2 ? "ref" : NULL, 2);
        double loss = test_gradient(m.math, &windowed, LK_TRAINING, plain.w, &b, 2, g);
        assert_true(test_gradient(m.math, &plain.layout, LK_RECOMPUTE, plain.w, &told, 2, expected) == loss);
        assert_memory_equal(g, expected, windowed.floats * 4);
        test_gradient(m.math, &plain.layout, LK_TRAINING, plain.w, &b, 2, expected);
        bool differs = memcmp(g, expected, windowed.floats * 4) != 0;
        assert_true(hidden || !differs);
        if (hidden >= 100) assert_true(differs); /* a few pairs may have no target, or next to no weight */
        test_math_close(&m);
        lk_free(g);
        lk_free(expected);
        lk_free(told.start);
        test_batch_free(&b);
        lk_layout_release(&windowed);
        drop(&plain);
    }
}

/* A long context costs what is read of it. */
static void angles_are_made_when_they_are_needed(void **state) {
    (void)state;
    struct test_random r = test_random_open("long");
    struct test_math m = test_math_open(NULL, 1);
    const struct lk_model_config c = {LK_LLAMA, 1, 8, 1, 1, 64, 8, 1 << 20, 11, true, 1e-6, 500000, 0.02};
    struct lk_layout l;
    struct lk_decoder *d;
    struct lk_attention_cache cache;
    OK(lk_layout_init(&l, &c, &test_err));
    float *w = lk_alloc(l.floats * 4);
    test_weights(&r, &l, 0.2, w);
    OK(lk_decoder_create(&l, m.math, 1, 4, LK_EXTEND, &d, &test_err));
    OK(lk_attention_cache_init(&cache, &l, LK_F32, 8, 1, &test_err));
    assert_int_equal(d->turned, 0);
    for (uint32_t used = 0; used < 8; used += 4) {
        struct lk_extension e = {(uint32_t[]){1, 2, 3, 4}, (uint32_t[]){0}, used, 4, 1};
        lk_decoder_extend(d, w, &cache, &e, 1);
        assert_int_equal(d->turned, used + 4);
    }
    lk_attention_cache_release(&cache);
    lk_decoder_free(d);
    lk_free(w);
    lk_layout_release(&l);
    test_math_close(&m);
}

static int make_and_free(const struct lk_layout *l, struct lk_math *math, enum lk_decoder_mode mode) {
    struct lk_decoder *d;
    struct lk_attention_cache cache;
    int code = lk_decoder_create(l, math, 2, 9, mode, &d, &test_err);
    if (code) return code;
    lk_decoder_free(d);
    if ((code = lk_attention_cache_init(&cache, l, LK_F32, 3, 3, &test_err))) return code;
    lk_attention_cache_release(&cache);
    return LK_OK;
}
/* With a fresh lk_math, so that its scratch has to grow. */
static int open_and_make(const struct lk_layout *l, enum lk_decoder_mode mode) {
    struct test_math m;
    int code = lk_pool_open(1, &m.pool, &test_err);
    if (code) return code;
    if (!(code = lk_math_open(m.pool, NULL, &m.math, &test_err))) {
        code = make_and_free(l, m.math, mode);
        lk_math_close(m.math);
    }
    lk_pool_close(m.pool);
    return code;
}
static void no_memory_is_said(void **state) {
    (void)state;
    struct lk_layout l;
    OK(lk_layout_init(&l, &configs[CONFIGS - 1], &test_err));
    for (int mode = LK_INFER; mode <= LK_EXTEND; mode++)
        FAIL_EACH_ALLOCATION(open_and_make(&l, (enum lk_decoder_mode)mode));
    lk_layout_release(&l);
}

/* lk_decoder_bytes is what create takes, and recomputing takes less. */
static void bytes_are_known_before(void **state) {
    (void)state;
    struct test_math m = test_math_open(NULL, 1);
    for (size_t n = 0; n < CONFIGS; n++) {
        struct lk_layout l;
        size_t bytes[3];
        OK(lk_layout_init(&l, &configs[n], &test_err));
        for (int mode = LK_INFER; mode <= LK_RECOMPUTE; mode++)
            bytes[mode] = lk_decoder_bytes(&l, 4, 65, (enum lk_decoder_mode)mode);
        assert_true(bytes[LK_INFER] < bytes[LK_RECOMPUTE] && bytes[LK_RECOMPUTE] <= bytes[LK_TRAINING]);
        if (configs[n].layers > 1) assert_true(bytes[LK_RECOMPUTE] < bytes[LK_TRAINING]);
        lk_layout_release(&l);
    }
    test_math_close(&m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decode_equals_prefill_equals_training),
        cmocka_unit_test(caches_that_are_none),
        cmocka_unit_test(batch_and_capacity_change_nothing),
        cmocka_unit_test(recompute_isa_and_threads_change_no_gradient),
        cmocka_unit_test(accumulating_sequences_changes_no_gradient),
        cmocka_unit_test(a_window_hides_keys),
        cmocka_unit_test(angles_are_made_when_they_are_needed),
        cmocka_unit_test(no_memory_is_said),
        cmocka_unit_test(bytes_are_known_before),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
