/* Generation: the tokens that sampling from the training forward gives, text as whole characters, stop texts, full
 * contexts. */
#include "model/testing.h"
#include "penalties.h"

/* A tokenizer of 256 bytes, some pairs, and the end token; a model over it whose draws are nearly free. */
static struct lk_tokenizer *tokenizer;
static struct lk_layout layout;
static float *weights;
static struct test_math math;

static int setup(void **state) {
    (void)state;
    static const char text[] =
        "\xc3\xa9\xc3\xa9\xc3\xa9 \xe2\x82\xac\xe2\x82\xac\xe2\x82\xac abc abc abc the the the stop stop";
    struct lk_bytes b = lk_bytes(text, sizeof text - 1);
    struct test_random r = {99, 0};
    OK(lk_tokenizer_train(&b, 1, 264, NULL, NULL, NULL, &tokenizer, &test_err));
    struct lk_model_config c = {LK_LLAMA, 1, 16, 2, 1, 8, 24, 24, 270, true, 1e-5, 10000, 0.02};
    OK(lk_layout_init(&layout, &c, &test_err));
    weights = lk_alloc(layout.floats * 4);
    test_weights(&r, &layout, 0.3, weights);
    math = test_math_open(NULL, 2);
    return 0;
}
static int teardown(void **state) {
    (void)state;
    test_math_close(&math);
    lk_free(weights);
    lk_layout_release(&layout);
    lk_tokenizer_free(tokenizer);
    return 0;
}

struct heard {
    struct lk_buf text;
    uint32_t pieces, most; /* most: end after so many pieces, 0: never */
    size_t ends[512];      /* of the pieces, in the text */
};
/* Length of the well-formed UTF-8 sequence at p, 0: there is none (Unicode, table 3-7). */
static size_t well_formed(const unsigned char *p, size_t n) {
    size_t size = p[0] < 0x80 ? 1 : p[0] < 0xC2 ? 0 : p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : p[0] < 0xF5 ? 4 : 0;
    if (size == 0 || size > n) return 0;
    for (size_t i = 1; i < size; i++)
        if (p[i] < 0x80 || p[i] > 0xBF) return 0;
    if ((p[0] == 0xE0 && p[1] < 0xA0) || (p[0] == 0xED && p[1] > 0x9F) || (p[0] == 0xF0 && p[1] < 0x90) ||
        (p[0] == 0xF4 && p[1] > 0x8F))
        return 0;
    return size;
}
/* True if a piece ends inside a character that the next one goes on with. */
static bool split(const struct heard *h) {
    uint32_t piece = 0;
    for (size_t i = 0, n; i < h->text.size; i += n ? n : 1) {
        n = well_formed((const unsigned char *)h->text.data + i, h->text.size - i);
        while (piece < h->pieces && h->ends[piece] <= i) piece++;
        if (n && piece < h->pieces && h->ends[piece] < i + n) return true;
    }
    return false;
}
static int hear(void *arg, const char *data, size_t size) {
    struct heard *h = arg;
    OK(lk_buf_append(&h->text, data, size));
    assert_true(size > 0 && h->pieces < 512);
    h->ends[h->pieces++] = h->text.size;
    return h->most && h->pieces >= h->most;
}
static struct lk_generation generate(const char *prompt, struct lk_generate_options o, struct heard *h) {
    struct lk_generation g;
    *h = (struct heard){.most = h->most};
    o.text = hear;
    o.arg = h;
    OK(lk_generate(math.math, &layout, weights, tokenizer, prompt, strlen(prompt), &o, &g, &test_err));
    return g;
}

/* Drawn one by one from the training forward of all tokens so far: only while they fit the context. */
static void tokens_are_those_of_the_training_forward(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < 12; seed++) {
        struct lk_sampling s = {.temperature = seed % 4 ? 1.3 : 0,
                                .top_k = seed % 3 ? 0 : 50,
                                .top_p = seed % 2 ? 1 : 0.9,
                                .min_p = seed % 5 ? 0 : 0.1,
                                .seed = seed,
                                .choice = seed % 3};
        const struct lk_logit_bias bias = {3, 2};
        const struct lk_penalties penalties = {&bias, 1, 1.3, 0.2, 0.4}, none = {0};
        struct heard h = {0};
        struct lk_tokens all = {0};
        struct lk_decoder *d;
        void *workspace = lk_alloc(lk_sample_bytes(270));
        uint32_t end = lk_tokenizer_end(tokenizer), tokens[24], n = 1, drawn = 0;
        struct lk_generation g =
            generate("the abc",
                     (struct lk_generate_options){
                         .sampling = s, .penalties = seed < 6 ? none : penalties, .max_tokens = 16, .panels = seed % 2},
                     &h);
        OK(lk_decoder_create(&layout, math.math, 1, 24, LK_TRAINING, &d, &test_err));
        OK(lk_tokenizer_encode(tokenizer, "the abc", 7, NULL, &all, &test_err));
        tokens[0] = end; /* what a document begins with */
        for (size_t i = 0; i < all.count; i++) tokens[n++] = all.ids[i];
        uint32_t prompt = n;
        while (n < 24 && drawn < 16) {
            float *logits = lk_decoder_forward(d, weights, 1, n, tokens, NULL) + (size_t)(n - 1) * 270;
            uint32_t vocab = lk_tokenizer_vocab(tokenizer);
            struct lk__serve_counts counts;
            OK(lk__serve_counts_init(&counts, vocab, &test_err));
            for (uint32_t i = 0; i < n; i++) lk__serve_counts_add(&counts, tokens[i], i >= prompt);
            if (seed >= 6) lk__serve_penalise(&penalties, &counts, logits);
            lk__serve_counts_release(&counts);
            tokens[n] = lk_sample_token(math.math, logits, vocab, &s, n, workspace);
            drawn++;
            if (tokens[n] == end) break;
            n++;
        }
        struct lk_buf text = LK_BUF_INIT;
        OK(lk_tokenizer_decode(tokenizer, tokens + prompt, n - prompt, &text, &test_err));
        assert_true(h.text.size >= text.size); /* the context may have been emptied and generation gone on */
        if (text.size) assert_memory_equal(h.text.data, text.data, text.size);
        assert_true(g.prompt_tokens == prompt && g.tokens >= drawn && !split(&h));
        lk_buf_release(&text);
        lk_buf_release(&h.text);
        lk_tokens_release(&all);
        lk_free(workspace);
        lk_decoder_free(d);
    }
}

static void penalties_are_checked(void **state) {
    (void)state;
    struct lk_generation g;
    struct lk_generate_options o = {.penalties = {.presence = 3}, .max_tokens = 1};
    FAILS(lk_generate(math.math, &layout, weights, tokenizer, "a", 1, &o, &g, &test_err), LK_EINVAL, "presence penalty 3");
}

static void a_seed_gives_one_text(void **state) {
    (void)state;
    struct heard a = {0}, b = {0}, c = {0};
    struct lk_generate_options o = {.sampling = {1.2, 0, 1, 7}, .max_tokens = 60};
    generate("abc", o, &a);
    generate("abc", o, &b);
    o.sampling.seed = 8;
    generate("abc", o, &c);
    assert_true(a.text.size == b.text.size && a.text.size > 0);
    assert_memory_equal(a.text.data, b.text.data, a.text.size);
    assert_true(a.text.size != c.text.size || memcmp(a.text.data, c.text.data, a.text.size) != 0);
    lk_buf_release(&a.text);
    lk_buf_release(&b.text);
    lk_buf_release(&c.text);
}

/* Longer than the context, and a prompt longer than it: nothing is written beyond the cache (sanitizers watch), the count
 * is right. */
static void a_full_context_goes_on(void **state) {
    (void)state;
    char prompt[400];
    for (int length = 0; length < 399; length += 19) {
        memset(prompt, 'q', (size_t)length);
        prompt[length] = 0;
        struct heard h = {0};
        struct lk_generation g =
            generate(prompt, (struct lk_generate_options){.sampling = {1, 0, 1, (uint64_t)length}, .max_tokens = 80}, &h);
        assert_true(g.finish == LK_FINISH_END || (g.finish == LK_FINISH_LENGTH && g.tokens == 80));
        assert_int_equal(g.prompt_tokens, length + 1);
        assert_false(split(&h));
        lk_buf_release(&h.text);
    }
    struct heard h = {0};
    struct lk_generation g = generate("abc", (struct lk_generate_options){.sampling = {1, 0, 1, 1}}, &h);
    assert_true(g.tokens == 0 && h.pieces == 0);
    h.most = 3;
    g = generate("abc", (struct lk_generate_options){.sampling = {1, 0, 1, 1}, .max_tokens = 50}, &h);
    assert_true(g.finish == LK_FINISH_CALLER && h.pieces == 3);
    lk_buf_release(&h.text);
}

/* The whole text of a generation is known from a run without stops; with a stop cut from its middle it must end just before
 * that. */
static void stop_texts_end_the_text_before_them(void **state) {
    (void)state;
    struct test_random r = test_random_open("stops");
    for (int n = 0; n < 150; n++) {
        struct lk_generate_options o = {.sampling = {1.1, 0, 1, (uint64_t)n}, .max_tokens = 40};
        struct heard whole = {0}, cut = {0};
        generate("the", o, &whole);
        if (whole.text.size < 12) {
            lk_buf_release(&whole.text);
            continue;
        }
        char stop[16];
        const char *stops[3] = {"never in there, never", stop, "neither is this"};
        size_t size = 1 + test_random_below(&r, 6), at = test_random_below(&r, (uint32_t)(whole.text.size - size));
        memcpy(stop, whole.text.data + at, size);
        stop[size] = 0;
        size = strlen(stop);
        if (size) {
            const char *found = memmem(whole.text.data, whole.text.size, stop, size);
            o.stops = stops;
            o.stop_count = 3;
            struct lk_generation g = generate("the", o, &cut);
            assert_int_equal(g.finish, LK_FINISH_STOP);
            assert_int_equal(cut.text.size, found - whole.text.data);
            if (cut.text.size) assert_memory_equal(cut.text.data, whole.text.data, cut.text.size);
            lk_buf_release(&cut.text);
        }
        lk_buf_release(&whole.text);
    }
}

/* All pieces but the last end between characters, and together they are the text of the tokens. */
static void characters_are_never_split(void **state) {
    (void)state;
    uint32_t pieces = 0;
    for (uint64_t seed = 0; seed < 60; seed++) {
        struct heard h = {0};
        const char *stops[] = {"\xc3\xa9\xc3\xa9\xc3", "zzzz"};
        struct lk_generate_options o = {
            .sampling = {2, 0, 1, seed}, .max_tokens = 50, .stops = stops, .stop_count = seed % 3};
        struct lk_generation g = generate("\xe2\x82\xac", o, &h);
        assert_false(split(&h));
        assert_true(g.tokens <= 50);
        pieces += h.pieces;
        lk_buf_release(&h.text);
    }
    assert_true(pieces > 500);
}

static int generate_something(void) {
    struct lk_generation g;
    struct lk_generate_options o = {.sampling = {1, 0, 1, 3}, .max_tokens = 70};
    return lk_generate(math.math, &layout, weights, tokenizer, "the stop", 8, &o, &g, &test_err);
}
static void no_memory_is_said(void **state) {
    (void)state;
    FAIL_EACH_ALLOCATION(generate_something());
}

/* One allocation after the other fails: an error, or (the panels) the same text without it. */
static void without_memory_for_panels_the_text_is_the_same(void **state) {
    (void)state;
    struct heard h = {0}, wanted = {0};
    struct lk_generate_options o = {.sampling = {1, 0, 1, 3}, .max_tokens = 30, .panels = true, .text = hear};
    struct lk_generation g;
    generate("the stop", o, &wanted);
    uint32_t same = 0, failed = 0;
    for (uint64_t nth = 1;; nth++) {
        h.text.size = h.pieces = 0;
        lk_buf_reserve(&h.text, 4096);
        o.arg = &h;
        lk__alloc_fail_at(nth);
        int code = lk_generate(math.math, &layout, weights, tokenizer, "the stop", 8, &o, &g, &test_err);
        bool over = lk__alloc_count() < nth;
        lk__alloc_fail_at(0);
        if (code)
            assert_int_equal(code, LK_ENOMEM), failed++;
        else
            assert_memory_equal(h.text.data, wanted.text.data, wanted.text.size), same++;
        if (over) break;
    }
    assert_true(same == (lk_panels_usable(math.math) ? 2 : 1) && failed > 4);
    lk_buf_release(&h.text);
    lk_buf_release(&wanted.text);
}

/* An allocation that the system can't keep is not tried. */
static void panels_need_memory_that_is_there(void **state) {
    (void)state;
    struct heard heard[2] = {{.text = LK_BUF_INIT}, {.text = LK_BUF_INIT}};
    struct lk_generate_options o = {.sampling = {1, 0, 1, 3}, .max_tokens = 30, .panels = true, .text = hear};
    struct lk_generation g;
    uint64_t made[2];
    char bytes[40];
    snprintf(bytes, sizeof bytes, "%zu", layout.floats * sizeof(float)); /* without a margin */
    for (int tight = 0; tight < 2; tight++) {
        OK(lk_buf_reserve(&heard[tight].text, 4096));
        o.arg = &heard[tight];
        if (tight) setenv("LOCKSTEP_MEMORY_BYTES", bytes, 1);
        lk__alloc_fail_at(UINT64_MAX); /* counts */
        OK(lk_generate(math.math, &layout, weights, tokenizer, "the stop", 8, &o, &g, &test_err));
        made[tight] = lk__alloc_count();
        lk__alloc_fail_at(0);
    }
    unsetenv("LOCKSTEP_MEMORY_BYTES");
    assert_int_equal(made[0] - made[1], lk_panels_usable(math.math));
    assert_int_equal(heard[0].text.size, heard[1].text.size);
    assert_memory_equal(heard[0].text.data, heard[1].text.data, heard[0].text.size);
    for (int i = 0; i < 2; i++) lk_buf_release(&heard[i].text);
}

/* A text of the grammar, whatever the model would say; the end token where it may end, and only there. */
static void a_grammar_is_kept(void **state) {
    (void)state;
    static const char gbnf[] = "root ::= (\"the \" | \"abc\" | [\xc3\xa0-\xc3\xbf]){2,4} \".\"";
    struct lk_grammar *g;
    struct lk_vocabulary *v;
    struct heard h = {0}, again = {0};
    struct lk_penalties penalties = {.repetition = 1.5};
    OK(lk_grammar_from_gbnf(gbnf, sizeof gbnf - 1, &g, &test_err));
    OK(lk_vocabulary_create(tokenizer, NULL, 0, NULL, &v, &test_err));
    uint32_t end = lk_tokenizer_end(tokenizer);
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct lk_matcher *m[2];
        struct lk_generate_options o = {.sampling = {.temperature = seed % 5, .top_p = 0.9, .seed = seed},
                                        .max_tokens = 40};
        if (seed % 2) o.penalties = penalties;
        for (int i = 0; i < 2; i++) {
            OK(lk_matcher_create(g, v, &m[i], &test_err));
            o.matcher = m[i];
            struct lk_generation out = generate("stop", o, i ? &again : &h);
            assert_int_equal(out.finish, LK_FINISH_END);
            assert_true(lk_matcher_done(m[i]));
        }
        assert_int_equal(h.text.size, again.text.size);
        assert_memory_equal(h.text.data, again.text.data, h.text.size);
        assert_int_equal(h.text.data[h.text.size - 1], '.');
        size_t parts = 0, at = 0;
        for (; at + 1 < h.text.size; parts++) {
            bool the = !memcmp(h.text.data + at, "the ", 4), abc = !memcmp(h.text.data + at, "abc", 3);
            if (!the && !abc) assert_int_equal((uint8_t)h.text.data[at], 0xC3);
            at += the ? 4 : abc ? 3 : 2;
        }
        assert_true(at + 1 == h.text.size && parts >= 2 && parts <= 4);
        for (int i = 0; i < 2; i++) lk_matcher_free(m[i]);
        lk_buf_release(&h.text);
        lk_buf_release(&again.text);
    }
    /* complete with the last token that may be drawn: not cut */
    struct lk_matcher *m;
    OK(lk_matcher_create(g, v, &m, &test_err));
    struct lk_generate_options o = {.max_tokens = 1, .matcher = m};
    for (struct heard piece = {0}; !lk_matcher_done(m); lk_buf_release(&piece.text)) {
        enum lk_finish finish = generate("a", o, &piece).finish;
        assert_int_equal(finish, lk_matcher_done(m) ? LK_FINISH_STOP : LK_FINISH_LENGTH);
    }
    FAILS(lk_matcher_accept(m, 0, &test_err), LK_EINVAL, "may not come");
    OK(lk_matcher_accept(m, end, &test_err));
    lk_matcher_free(m);
    lk_vocabulary_free(v);
    lk_grammar_free(g);
}

/* Without an end token a text ends where it is complete and nothing else may come. */
static void without_an_end_token_a_complete_text_ends(void **state) {
    (void)state;
    struct lk_buf json = LK_BUF_INIT;
    struct lk_tokenizer *t;
    struct lk_grammar *g;
    struct lk_vocabulary *v;
    struct lk_matcher *m;
    struct heard h = {0};
    struct lk_generation out;
    OK(lk_tokenizer_export(tokenizer, &json, &test_err));
    for (char *end = json.data; (end = strstr(end, LK_TOKEN_END));) memcpy(end, "<|another_one", 13);
    OK(lk_tokenizer_import(json.data, json.size, "json", &t, &test_err));
    assert_true(lk_tokenizer_end(t) == UINT32_MAX);
    OK(lk_grammar_from_gbnf("root ::= \"ab\" | \"abc\"", 21, &g, &test_err));
    OK(lk_vocabulary_create(t, NULL, 0, NULL, &v, &test_err));
    OK(lk_matcher_create(g, v, &m, &test_err));
    struct lk_generate_options o = {.max_tokens = 9, .matcher = m, .text = hear, .arg = &h};
    OK(lk_generate(math.math, &layout, weights, t, "the", 3, &o, &out, &test_err));
    assert_int_equal(out.finish, LK_FINISH_STOP);
    assert_true(out.tokens < 4 && h.text.size == 3 && !memcmp(h.text.data, "abc", 3)); /* "ab" can go on, so it does */
    lk_matcher_free(m);
    lk_vocabulary_free(v);
    lk_grammar_free(g);
    lk_tokenizer_free(t);
    lk_buf_release(&h.text);
    lk_buf_release(&json);
}

static void a_tokenizer_too_large_is_refused(void **state) {
    (void)state;
    struct lk_model_config c = {LK_LLAMA, 1, 16, 2, 1, 8, 24, 24, 260, true, 1e-5, 10000, 0.02};
    struct lk_layout small;
    struct lk_generation g;
    OK(lk_layout_init(&small, &c, &test_err));
    FAILS(lk_generate(math.math, &small, weights, tokenizer, "", 0, &(struct lk_generate_options){.max_tokens = 1}, &g,
                      &test_err),
          LK_EINVAL, "the tokenizer has 264 tokens, the model only 260");
    lk_layout_release(&small);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_are_those_of_the_training_forward),
        cmocka_unit_test(penalties_are_checked),
        cmocka_unit_test(a_seed_gives_one_text),
        cmocka_unit_test(a_full_context_goes_on),
        cmocka_unit_test(stop_texts_end_the_text_before_them),
        cmocka_unit_test(characters_are_never_split),
        cmocka_unit_test(no_memory_is_said),
        cmocka_unit_test(without_memory_for_panels_the_text_is_the_same),
        cmocka_unit_test(panels_need_memory_that_is_there),
        cmocka_unit_test(a_grammar_is_kept),
        cmocka_unit_test(without_an_end_token_a_complete_text_ends),
        cmocka_unit_test(a_tokenizer_too_large_is_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
