/* The promise of the batch: whatever else is in it, whatever the schedule, a request's tokens, text and log-probabilities
 * are those of lk_generate alone and of the training forward, by bits. */
#include "inside.h"
#include "lockstep/base/hash.h"
#include "model/decoder.h"
#include "model/testing.h"

enum { REQUESTS = 24, VERSIONS = 2, PROMPT_MOST = 48, DRAWN_MOST = 48, MATHS = 8 };

static const struct lk_model_config configs[] = {
    {LK_LLAMA, 2, 32, 4, 2, 8, 24, 96, 270, true, 1e-5, 10000, 0.02},
    {LK_GPT2, 2, 35, 5, 5, 7, 41, 80, 267, true, 1e-5, 0, 0.02},
    {LK_LLAMA, 1, 36, 6, 2, 18, 50, 96, 270, false, 1e-6, 10000, 0.02, .qk_norm = true},
    {LK_LLAMA, 2, 20, 4, 1, 6, 33, 96, 281, false, 1e-6, 10000, 0.02, .qkv_bias = true, .window = 17},
    {LK_LLAMA, 1, 48, 3, 1, 16, 33, 130, 270, true, 1e-5, 10000, 0.02},
};
#define FLOATS (sizeof configs / sizeof *configs)
/* And models in fewer bits. */
static const struct {
    struct lk_model_config config;
    enum lk_dtype matrices, ends, cache;
} narrow[] = {
    {{LK_LLAMA, 2, 64, 4, 2, 16, 96, 96, 270, false, 1e-5, 10000, 0.02}, LK_Q8, LK_Q8},
    {{LK_LLAMA, 1, 32, 2, 1, 48, 80, 96, 270, true, 1e-5, 10000, 0.02, .qk_norm = true, .window = 17}, LK_Q4, LK_Q8},
    {{LK_GPT2, 1, 64, 4, 4, 16, 128, 96, 267, true, 1e-5, 0, 0.02}, LK_Q4, LK_Q4},
    {{LK_GPT2, 1, 36, 3, 3, 12, 50, 96, 267, true, 1e-5, 0, 0.02}, LK_BF16, LK_BF16},
    {{LK_LLAMA, 2, 64, 3, 1, 32, 96, 96, 270, false, 1e-5, 10000, 0.02, .window = 30}, LK_Q8, LK_Q8, LK_Q8},
    {{LK_GPT2, 1, 64, 2, 2, 32, 50, 96, 267, true, 1e-5, 0, 0.02}, LK_F32, LK_F32, LK_Q8},
};
#define CONFIGS (FLOATS + sizeof narrow / sizeof *narrow)

/* What a request is to say: each token of prompt (but the first) and answer with its log-probabilities, and the text. */
struct answer {
    struct lk_drawn_token tokens[PROMPT_MOST + DRAWN_MOST];
    uint32_t drawn;
    enum lk_request_end end;
    struct lk_buf text;
};
struct question {
    bool formed; /* by the grammar below */
    struct lk_request r;
    uint32_t prompt[PROMPT_MOST];
    struct lk_logit_bias bias;
    struct answer answers[VERSIONS];
};
struct world {
    struct lk_layout layout;
    enum lk_dtype cache;
    float *weights[VERSIONS];
    struct question questions[REQUESTS];
};
static struct lk_tokenizer *tokenizer;
static struct world worlds[CONFIGS];
static struct test_math maths[MATHS];
static int math_count;
static const char *const stops[] = {"the", "c a"};
static struct lk_grammar *grammar;
static struct lk_vocabulary *vocabulary;

/* --- What is to come out: lk_generate's tokens, the training forward's logits ---------------------------------- */

static int hear(void *arg, const char *data, size_t size) {
    OK(lk_buf_append(arg, data, size));
    return 0;
}
struct ids {
    uint32_t count, ids[DRAWN_MOST];
    struct lk_buf *text;
};
static int hear_text(void *arg, const char *data, size_t size) {
    return hear(((struct ids *)arg)->text, data, size);
}
static void hear_id(void *arg, uint32_t id) {
    struct ids *i = arg;
    assert_true(i->count < DRAWN_MOST);
    i->ids[i->count++] = id;
}

static float logprob_of(struct lk_math *math, float *logits, uint32_t vocab, uint32_t id) {
    float loss;
    lk_cross_entropy(
        math, &(struct lk_cross_entropy){
                  .rows = 1, .vocab = vocab, .logits = logits, .ld = vocab, .targets = &id, .scale = 1, .loss = &loss});
    return -loss;
}
static void expect_token(struct lk_math *math, float *logits, uint32_t vocab, uint32_t id, uint32_t top,
                         struct lk_drawn_token *t) {
    bool taken[512] = {false};
    *t = (struct lk_drawn_token){.token = {id, logprob_of(math, logits, vocab, id)}, .top_count = top};
    for (uint32_t k = 0; k < top; k++) {
        uint32_t best = UINT32_MAX;
        for (uint32_t i = 0; i < lk_tokenizer_vocab(tokenizer); i++)
            if (!taken[i] && (best == UINT32_MAX || logits[i] > logits[best])) best = i;
        taken[best] = true;
        t->top[k] = (struct lk_logprob){best, logprob_of(math, logits, vocab, best)};
    }
}

/* A decoder for whole texts, and the memory of its panels, where it needs some. */
static struct lk_decoder *whole_texts(const struct world *w, uint32_t version, uint32_t count, void **panels) {
    struct lk_decoder *d;
    bool is = w->layout.narrow;
    OK(lk_decoder_create(&w->layout, maths[0].math, 1, count, is ? LK_INFER : LK_TRAINING, &d, &test_err));
    if (w->cache != LK_F32) OK(lk_decoder_use_cache(d, w->cache, &test_err));
    *panels = is ? lk_alloc(w->layout.panel_bytes) : NULL;
    if (is) assert_true(lk_decoder_fill_panels(d, w->weights[version], *panels));
    if (is) lk_decoder_use_panels(d, w->weights[version], *panels);
    return d;
}

static void expect(const struct world *w, struct question *q, uint32_t version) {
    static const enum lk_request_end ends[] = {LK_REQUEST_LENGTH, LK_REQUEST_END, LK_REQUEST_STOP};
    const struct lk_request *r = &q->r;
    struct answer *a = &q->answers[version];
    struct ids drawn = {.text = &a->text};
    struct lk_generation g = {.finish = LK_FINISH_LENGTH};
    struct lk_math *math = maths[0].math;
    struct lk_matcher *matcher = NULL;
    if (q->formed) OK(lk_matcher_create(grammar, vocabulary, &matcher, &test_err));
    if (r->max_tokens)
        OK(lk_generate(math, &w->layout, w->weights[version], tokenizer, "", 0,
                       &(struct lk_generate_options){.sampling = r->sampling,
                                                     .penalties = r->penalties,
                                                     .max_tokens = r->max_tokens,
                                                     .cache = w->cache,
                                                     .ids = q->prompt,
                                                     .id_count = r->prompt_count,
                                                     .ends = r->ends,
                                                     .end_count = r->end_count,
                                                     .matcher = matcher,
                                                     .stops = r->stops,
                                                     .stop_count = r->stop_count,
                                                     .text = hear_text,
                                                     .token = hear_id,
                                                     .arg = &drawn},
                       &g, &test_err));
    lk_matcher_free(matcher);
    a->end = ends[g.finish];
    a->drawn = drawn.count;
    uint32_t all[PROMPT_MOST + DRAWN_MOST], count = (uint32_t)r->prompt_count + drawn.count, vocab = w->layout.config.vocab;
    memcpy(all, q->prompt, r->prompt_count * 4);
    memcpy(all + r->prompt_count, drawn.ids, drawn.count * 4);
    void *panels;
    struct lk_decoder *d = whole_texts(w, version, count, &panels);
    float *logits = lk_decoder_forward(d, w->weights[version], 1, count, all, NULL);
    for (uint32_t i = 1; i < count; i++)
        expect_token(math, logits + (size_t)(i - 1) * vocab, vocab, all[i], r->top_logprobs, &a->tokens[i]);
    lk_decoder_free(d);
    lk_free(panels);
}

static void ask(struct test_random *r, const struct world *w, struct question *q) {
    static const uint32_t begins[3] = {7, 7, 100};
    uint32_t vocab = lk_tokenizer_vocab(tokenizer), end = lk_tokenizer_end(tokenizer);
    uint32_t n = 1 + test_random_below(r, PROMPT_MOST), same = test_random_below(r, n + 1), begin = test_random_below(r, 3);
    for (uint32_t i = 0; i < n; i++) { /* prompts that begin alike, and repeat themselves */
        q->prompt[i] = i < same ? (begins[begin] + i * i / 3) % 90 : test_random_below(r, vocab);
        if (q->prompt[i] == end) q->prompt[i] = 1;
    }
    q->bias = (struct lk_logit_bias){test_random_below(r, vocab), 3};
    q->formed = test_random_below(r, 4) == 0;
    bool penalties = test_random_below(r, 3) == 0, tells = test_random_below(r, 2);
    q->r = (struct lk_request){
        .prompt = q->prompt,
        .prompt_count = n,
        .max_tokens = test_random_below(r, 12) ? 1 + test_random_below(r, DRAWN_MOST) : 0,
        .sampling = {.temperature = test_random_below(r, 3) ? test_uniform(r) * 1.5 : 0,
                     .top_k = test_random_below(r, 2) ? 0 : 20,
                     .top_p = test_random_below(r, 2) ? 1 : 0.8,
                     .min_p = test_random_below(r, 3) ? 0 : 0.05,
                     .seed = test_random_below(r, 1000),
                     .choice = test_random_below(r, 3)},
        .stops = stops,
        .stop_count = test_random_below(r, 3),
        .logprobs = tells,
        .prompt_logprobs = tells && test_random_below(r, 3) == 0,
        .top_logprobs = tells ? test_random_below(r, 6) : 0,
    };
    if (penalties) q->r.penalties = (struct lk_penalties){&q->bias, 1, 1.2, 0.3, 0.2};
    if (n + q->r.max_tokens > w->layout.config.context) q->r.max_tokens = w->layout.config.context - n;
}

static int setup(void **state) {
    (void)state;
    static const char text[] = "abc abc abc the the the cat sat on a mat, and the cat sat";
    struct lk_bytes b = lk_bytes(text, sizeof text - 1);
    struct test_random r = test_random_open("questions");
    const char *isas[8];
    int isa_count = lk_math_isas(isas);
    OK(lk_tokenizer_train(&b, 1, 264, NULL, NULL, NULL, &tokenizer, &test_err));
    static const char gbnf[] = "root ::= (\"the \" (\"cat\" | [a-f]+ | \"mat\") \", \"){2,5} [0-9]? \"end\"";
    OK(lk_grammar_from_gbnf(gbnf, sizeof gbnf - 1, &grammar, &test_err));
    OK(lk_vocabulary_create(tokenizer, NULL, 0, NULL, &vocabulary, &test_err));
    for (int i = 0; i < isa_count && math_count + 2 <= MATHS; i++)
        for (int threads = 1; threads <= 2; threads++) maths[math_count++] = test_math_open(isas[i], threads);
    for (size_t c = 0; c < CONFIGS; c++) {
        struct world *w = &worlds[c];
        w->cache = c < FLOATS ? LK_F32 : narrow[c - FLOATS].cache;
        for (int v = 0; v < VERSIONS; v++) {
            struct lk_layout wide;
            OK(lk_layout_init(&wide, c < FLOATS ? &configs[c] : &narrow[c - FLOATS].config, &test_err));
            float *weights = lk_alloc(wide.floats * 4);
            test_weights(&r, &wide, 0.25, weights);
            if (v == 0) OK(lk_layout_init(&w->layout, &wide.config, &test_err));
            if (v == 0 && c >= FLOATS) lk_layout_narrow(&w->layout, narrow[c - FLOATS].matrices, narrow[c - FLOATS].ends);
            w->weights[v] = c < FLOATS ? weights : lk_alloc(w->layout.floats * 4);
            if (c >= FLOATS) {
                test_narrow(maths[0].math, &wide, weights, &w->layout, w->weights[v]);
                lk_free(weights);
            }
            lk_layout_release(&wide);
        }
        for (int q = 0; q < REQUESTS; q++) {
            ask(&r, w, &w->questions[q]);
            for (uint32_t v = 0; v < VERSIONS; v++) expect(w, &w->questions[q], v);
        }
    }
    return 0;
}
static int teardown(void **state) {
    (void)state;
    for (size_t c = 0; c < CONFIGS; c++) {
        for (int q = 0; q < REQUESTS; q++)
            for (int v = 0; v < VERSIONS; v++) lk_buf_release(&worlds[c].questions[q].answers[v].text);
        for (int v = 0; v < VERSIONS; v++) lk_free(worlds[c].weights[v]);
        lk_layout_release(&worlds[c].layout);
    }
    for (int i = 0; i < math_count; i++) test_math_close(&maths[i]);
    lk_vocabulary_free(vocabulary);
    lk_grammar_free(grammar);
    lk_tokenizer_free(tokenizer);
    return 0;
}

/* --- Requests that are asked ----------------------------------------------------------------------------------- */

struct asked {
    const struct world *w;
    const struct question *q;
    uint32_t version, prompt_tokens, drawn, leaves_at; /* leaves_at: the token at which its caller has enough */
    uint64_t id;
    bool cancelled, done;
    struct lk_matcher *matcher;
    struct lk_buf text;
    char what[160];
};

static int take_token(void *arg, const struct lk_drawn_token *t, bool prompt) {
    struct asked *a = arg;
    const struct answer *want = &a->q->answers[a->version];
    assert_false(a->done);
    uint32_t at = prompt ? ++a->prompt_tokens : (uint32_t)a->q->r.prompt_count + a->drawn++;
    const struct lk_drawn_token *w = &want->tokens[at];
    if (t->token.id != w->token.id) fail_msg("%s: token %u is %u, not %u", a->what, at, t->token.id, w->token.id);
    if (a->q->r.logprobs && memcmp(&t->token.logprob, &w->token.logprob, 4))
        fail_msg("%s: token %u has %a, not %a", a->what, at, (double)t->token.logprob, (double)w->token.logprob);
    assert_int_equal(t->top_count, w->top_count);
    if (memcmp(t->top, w->top, t->top_count * sizeof *t->top)) fail_msg("%s: token %u: other likeliest", a->what, at);
    return !prompt && a->drawn == a->leaves_at;
}
static int take_piece(void *arg, const char *data, size_t size) {
    return hear(&((struct asked *)arg)->text, data, size);
}
static void take_end(void *arg, const struct lk_request_result *r) {
    struct asked *a = arg;
    const struct answer *want = &a->q->answers[a->version];
    assert_false(a->done);
    a->done = true;
    bool whole = r->end != LK_REQUEST_CANCELLED;
    if (!whole) assert_true(a->cancelled || a->drawn == a->leaves_at);
    if (whole && (r->end != want->end || a->drawn != want->drawn))
        fail_msg("%s: ends by %d after %u tokens, not by %d after %u", a->what, r->end, a->drawn, want->end, want->drawn);
    if (whole && a->q->r.prompt_logprobs) assert_int_equal(a->prompt_tokens, a->q->r.prompt_count - 1);
    if (whole) assert_int_equal(a->text.size, want->text.size);
    assert_true(a->text.size <= want->text.size && r->tokens == a->drawn);
    assert_int_equal(r->prompt_tokens, r->waited_ns ? a->q->r.prompt_count : 0); /* one that never ran read nothing */
    if (a->text.size) assert_memory_equal(a->text.data, want->text.data, a->text.size);
    lk_buf_release(&a->text);
    lk_matcher_free(a->matcher);
}

static uint32_t any_chunk(void *arg, uint32_t most) {
    struct test_random *r = arg;
    return test_random_below(r, 3) ? test_random_below(r, most + 1) : test_random_below(r, most < 4 ? most + 1 : 5);
}
static bool sometimes(void *arg) {
    return test_random_below(arg, 2);
}
static void released(void *arg) {
    ++*(int *)arg;
}

struct seen {
    uint64_t preempted, cached, accepted, cancelled, swaps;
};

/* One schedule: options, arrivals, cancels, swaps by chance. */
static void schedule(struct test_random *r, const struct world *w, struct seen *seen) {
    static const uint32_t sizes[] = {1, 2, 3, 5, 8, 16, 64, 200};
    static struct asked asked[64];
    uint32_t count = 1 + test_random_below(r, 40), sent = 0, version = 0, page = sizes[test_random_below(r, 8)], most = 0;
    for (int q = 0; q < REQUESTS; q++) {
        uint32_t n = (uint32_t)w->questions[q].r.prompt_count + w->questions[q].r.max_tokens;
        most = n > most ? n : most;
    }
    uint32_t least = (most + page - 1) / page, slots = 1 + test_random_below(r, test_random_below(r, 2) ? 4 : 32);
    struct lk_batch_options o = {.slots = slots,
                                 .page_positions = page,
                                 .pages = least + test_random_below(r, test_random_below(r, 2) ? 3 : 6 * least + 1),
                                 .rows = slots + test_random_below(r, 70),
                                 .queue = 64,
                                 .cache = w->cache,
                                 .draft = test_random_below(r, 2) ? test_random_below(r, LK__DRAFT_MOST + 1) : 0,
                                 .panels = test_random_below(r, 2)};
    struct lk_batch *b;
    struct test_math *m = &maths[test_random_below(r, (uint32_t)math_count)];
    int released_count = 0, borrowed = 1;
    struct lk_batch_weights weights = {&w->layout, w->weights[0], released, &released_count};
    OK(lk_batch_open(m->math, tokenizer, &weights, &o, &b, &test_err));
    b->chunk = any_chunk, b->chunk_arg = r, b->force_draft = sometimes;
    b->no_sharing = test_random_below(r, 8) == 0;
    bool busy = true;
    for (int steps = 0; busy || sent < count; steps++) {
        if (steps > 20000) fail_msg("no end after %d steps", steps);
        while (sent < count && test_random_below(r, 3) == 0) {
            struct asked *a = &asked[sent];
            const struct question *q = &w->questions[test_random_below(r, REQUESTS)];
            *a = (struct asked){.w = w, .q = q, .version = version};
            if (test_random_below(r, 6) == 0) a->leaves_at = 1 + test_random_below(r, 10);
            snprintf(a->what, sizeof a->what, "request %u of %u, weights %u, slots %u, pages %u of %u, rows %u, draft %u",
                     sent, count, version, o.slots, o.pages, page, o.rows, o.draft);
            struct lk_request request = q->r;
            request.token = take_token, request.text = take_piece, request.done = take_end, request.arg = a;
            request.owner = test_random_below(r, 3);
            if (q->formed) OK(lk_matcher_create(grammar, vocabulary, &a->matcher, &test_err));
            request.matcher = a->matcher;
            OK(lk_batch_submit(b, &request, &a->id, &test_err));
            sent++;
        }
        if (sent && test_random_below(r, 20) == 0) {
            struct asked *a = &asked[test_random_below(r, sent)];
            seen->cancelled += !a->done;
            if (!a->done) a->cancelled = true;
            lk_batch_cancel(b, a->id);
        }
        if (test_random_below(r, 60) == 0) {
            version = !version, weights.weights = w->weights[version], borrowed++, seen->swaps++;
            OK(lk_batch_swap(b, &weights, &test_err));
        }
        busy = lk_batch_step(b);
    }
    for (uint32_t i = 0; i < sent; i++) assert_true(asked[i].done);
    struct lk_batch_state s;
    lk_batch_state(b, &s);
    assert_true(s.running == 0 && s.waiting == 0 && s.requests == sent && s.free_pages + s.cached_pages == o.pages);
    assert_int_equal(released_count, borrowed - 1);
    seen->preempted += s.preempted, seen->cached += s.cached_tokens, seen->accepted += s.accepted;
    lk_batch_close(b);
    assert_int_equal(released_count, borrowed);
}

static void schedules_change_no_bit(void **state) {
    (void)state;
    const char *text = getenv("LOCKSTEP_SCHEDULES");
    long count = text ? strtol(text, NULL, 10) : 250;
    struct test_random r = test_random_open("schedules");
    struct seen seen = {0};
    for (long i = 0; i < count; i++) schedule(&r, &worlds[i % (long)CONFIGS], &seen);
    printf("%ld schedules: %llu put back, %llu tokens cached, %llu guessed, %llu cancelled, %llu swaps\n", count,
           (unsigned long long)seen.preempted, (unsigned long long)seen.cached, (unsigned long long)seen.accepted,
           (unsigned long long)seen.cancelled, (unsigned long long)seen.swaps);
    assert_true(seen.preempted > 0 && seen.cached > 0 && seen.accepted > 0 && seen.cancelled > 0 && seen.swaps > 0);
}

/* One root over all that all requests say, and how often they were told it. */
struct told {
    struct lk_buf bytes;
    uint32_t done;
};
static int tell_token(void *arg, const struct lk_drawn_token *t, bool prompt) {
    struct told *told = arg;
    (void)prompt;
    OK(lk_buf_append(&told->bytes, &t->token, sizeof t->token));
    OK(lk_buf_append(&told->bytes, t->top, t->top_count * sizeof *t->top));
    return 0;
}
static void tell_end(void *arg, const struct lk_request_result *r) {
    struct told *told = arg;
    OK(lk_buf_append(&told->bytes, &r->end, sizeof r->end));
    told->done++;
}
static struct lk_root root_of(const struct world *w, const float *weights, struct lk_math *math,
                              struct lk_batch_options o) {
    struct told told[REQUESTS] = {0};
    struct lk_buf all = LK_BUF_INIT;
    struct lk_batch *b;
    struct lk_root root;
    OK(lk_batch_open(math, tokenizer, &(struct lk_batch_weights){&w->layout, weights, NULL, NULL}, &o, &b, &test_err));
    for (int q = 0; q < REQUESTS; q++) {
        struct lk_request r = w->questions[q].r;
        r.logprobs = true, r.token = tell_token, r.done = tell_end, r.arg = &told[q];
        OK(lk_batch_submit(b, &r, NULL, &test_err));
    }
    while (lk_batch_step(b)) continue;
    for (int q = 0; q < REQUESTS; q++) {
        assert_int_equal(told[q].done, 1);
        OK(lk_buf_append(&all, told[q].bytes.data, told[q].bytes.size));
        lk_buf_release(&told[q].bytes);
    }
    lk_batch_close(b);
    lk_root_of(all.data, all.size, &root);
    lk_buf_release(&all);
    return root;
}

static void one_weight_s_last_bit_changes_the_root(void **state) {
    (void)state;
    const struct world *w = &worlds[0];
    struct lk_batch_options few = {.slots = 1, .pages = 200, .page_positions = 5, .queue = 64},
                            many = {.slots = 32, .pages = 400, .queue = 64, .draft = 4, .panels = true};
    struct lk_root one = root_of(w, w->weights[0], maths[0].math, few),
                   other = root_of(w, w->weights[0], maths[math_count - 1].math, many);
    assert_memory_equal(&one, &other, sizeof one);
    size_t at = w->layout.tensors[w->layout.layers[0].v].offset;
    uint32_t bits;
    memcpy(&bits, w->weights[0] + at, 4), bits ^= 1, memcpy(w->weights[0] + at, &bits, 4);
    other = root_of(w, w->weights[0], maths[0].math, many);
    bits ^= 1, memcpy(w->weights[0] + at, &bits, 4);
    assert_memory_not_equal(&one, &other, sizeof one);
}

static void count_end(void *arg, const struct lk_request_result *r) {
    uint32_t *ends = arg;
    ends[r->end]++;
}

static float wanted_mean[64];
static uint32_t means;
static void compare_mean(void *arg, const float *mean) {
    const struct world *w = arg;
    means++;
    assert_memory_equal(mean, wanted_mean, w->layout.config.width * 4);
}

/* Whatever the chunks and the neighbours: the mean of the training forward's last norm. */
static void embeddings_are_means_of_the_training_forward(void **state) {
    (void)state;
    struct test_random r = test_random_open("embeddings");
    for (int n = 0; n < 60; n++) {
        const struct world *w = &worlds[n % (int)CONFIGS];
        const struct question *q = &w->questions[test_random_below(&r, REQUESTS)];
        uint32_t width = w->layout.config.width, count = (uint32_t)q->r.prompt_count, ends[6] = {0};
        struct lk_math *math = maths[n % math_count].math;
        void *panels;
        struct lk_decoder *d = whole_texts(w, 0, count, &panels);
        lk_decoder_forward(d, w->weights[0], 1, count, q->prompt, NULL);
        for (uint32_t c = 0; c < width; c++) {
            double sum = 0;
            for (uint32_t i = 0; i < count; i++) sum += (double)d->h_out[(size_t)i * width + c];
            wanted_mean[c] = (float)(sum / count);
        }
        lk_decoder_free(d);
        lk_free(panels);
        struct lk_batch_options o = {
            .slots = 4, .page_positions = 7, .pages = 60, .rows = 40, .queue = 8, .panels = n % 2, .cache = w->cache};
        struct lk_batch *b;
        OK(lk_batch_open(math, tokenizer, &(struct lk_batch_weights){&w->layout, w->weights[0], NULL, NULL}, &o, &b,
                         &test_err));
        b->chunk = any_chunk, b->chunk_arg = &r;
        struct lk_request asks = {.prompt = q->prompt,
                                  .prompt_count = count,
                                  .embedding = compare_mean,
                                  .arg = (void *)(uintptr_t)w},
                          other = w->questions[3].r;
        other.done = count_end, other.arg = ends;
        OK(lk_batch_submit(b, &other, NULL, &test_err));
        OK(lk_batch_submit(b, &asks, NULL, &test_err));
        OK(lk_batch_submit(b, &asks, NULL, &test_err));
        while (lk_batch_step(b)) continue;
        lk_batch_close(b);
    }
    assert_int_equal(means, 120);
}

static void what_can_t_be_is_refused(void **state) {
    (void)state;
    const struct world *w = &worlds[0];
    struct lk_batch_weights weights = {&w->layout, w->weights[0], NULL, NULL},
                            other = {&worlds[1].layout, worlds[1].weights[0], NULL, NULL};
    struct lk_batch_options good = {.slots = 2, .page_positions = 8, .pages = 10, .queue = 1}, o;
    struct lk_batch *b;
    static const struct {
        struct lk_batch_options o;
        const char *says;
    } options[] = {
        {{.slots = 0, .pages = 9}, "0 slots are not from 1 to 256"},
        {{.slots = 257, .pages = 9}, "257 slots"},
        {{.slots = 9, .rows = 8, .pages = 9}, "a pass of 8 tokens is too small for 9 slots"},
        {{.slots = 1, .draft = 16, .pages = 9}, "16 tokens guessed ahead are more than 15"},
        {{.slots = 1}, "0 pages of 32 positions"},
    };
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        FAILS(lk_batch_open(maths[0].math, tokenizer, &weights, &options[i].o, &b, &test_err), LK_EINVAL, options[i].says);
    o = good;
    OK(lk_batch_open(maths[0].math, tokenizer, &weights, &o, &b, &test_err));
    FAILS(lk_batch_swap(b, &other, &test_err), LK_EINVAL, "of another model");
    uint32_t prompt[100] = {1, 2, 3}, ends[6] = {0}, bad[] = {5, 270};
    static const char *const empty[] = {""};
    struct lk_request r = {.prompt = prompt, .prompt_count = 3, .max_tokens = 4, .done = count_end, .arg = ends}, q = r;
    q.prompt_count = 0;
    FAILS(lk_batch_submit(b, &q, NULL, &test_err), LK_EINVAL, "the prompt has no tokens");
    q = r, q.prompt_count = 96;
    FAILS(lk_batch_submit(b, &q, NULL, &test_err), LK_EINVAL,
          "has 96 tokens; with one to come that is more than the model's context of 96");
    q = r, q.prompt_count = 50, q.max_tokens = 31;
    FAILS(lk_batch_submit(b, &q, NULL, &test_err), LK_EINVAL,
          "50 tokens of prompt and up to 31 more never fit into memory for 80 positions");
    q = r, q.prompt = bad, q.prompt_count = 2;
    FAILS(lk_batch_submit(b, &q, NULL, &test_err), LK_EINVAL, "token 1 of the prompt, 270, is none of the model's 270");
    q = r, q.stops = empty, q.stop_count = 1;
    FAILS(lk_batch_submit(b, &q, NULL, &test_err), LK_EINVAL, "a stop text is empty");
    q = r, q.top_logprobs = 21;
    FAILS(lk_batch_submit(b, &q, NULL, &test_err), LK_EINVAL, "21 tokens are more than 20");
    q = r, q.sampling.temperature = -1;
    FAILS(lk_batch_submit(b, &q, NULL, &test_err), LK_EINVAL, "temperature");
    q = r, q.penalties.presence = 3;
    FAILS(lk_batch_submit(b, &q, NULL, &test_err), LK_EINVAL, "presence penalty");

    for (int i = 0; i < 3; i++) OK(lk_batch_submit(b, &r, NULL, &test_err)); /* two slots, one waits */
    FAILS(lk_batch_submit(b, &r, NULL, &test_err), LK_EBUSY, "3 requests are waiting already");
    lk_batch_cancel(b, 77777);
    while (lk_batch_step(b)) continue;
    assert_int_equal(ends[LK_REQUEST_LENGTH] + ends[LK_REQUEST_END], 3);
    q = r, q.deadline_ns = 1;
    OK(lk_batch_submit(b, &q, NULL, &test_err));
    assert_true(lk_batch_step(b));
    assert_int_equal(ends[LK_REQUEST_LATE], 1);
    assert_false(lk_batch_step(b));
    lk_batch_wait(b, 1); /* comes back by itself */
    OK(lk_batch_submit(b, &r, NULL, &test_err));
    lk_batch_wait(b, 1000000); /* there is something to do */
    lk_batch_close(b);
    assert_int_equal(ends[LK_REQUEST_CANCELLED], 1);
}

/* Who asks for much is not before who asks for little; within one, the first comes first. */
struct order {
    uint32_t owners[40], numbers[40], count;
};
struct one_of {
    struct order *order;
    uint32_t owner, number;
};
static void note_end(void *arg, const struct lk_request_result *r) {
    struct one_of *o = arg;
    (void)r;
    o->order->owners[o->order->count] = o->owner, o->order->numbers[o->order->count++] = o->number;
}
static void owners_take_turns(void **state) {
    (void)state;
    const struct world *w = &worlds[0];
    struct lk_batch_options o = {.slots = 1, .pages = 40, .queue = 64};
    struct lk_batch *b;
    struct order order = {.count = 0};
    struct one_of all[24];
    OK(lk_batch_open(maths[0].math, tokenizer, &(struct lk_batch_weights){&w->layout, w->weights[0], NULL, NULL}, &o, &b,
                     &test_err));
    for (uint32_t i = 0; i < 24; i++) { /* twenty of owner 1, then two each of 2 and 3; all of one size */
        all[i] = (struct one_of){&order, i < 20 ? 1 : i < 22 ? 2 : 3, i};
        struct lk_request r = {.prompt = (uint32_t[]){i + 1},
                               .prompt_count = 1,
                               .max_tokens = 5,
                               .ignore_end = true,
                               .owner = all[i].owner,
                               .done = note_end,
                               .arg = &all[i]};
        OK(lk_batch_submit(b, &r, NULL, &test_err));
    }
    while (lk_batch_step(b)) continue;
    lk_batch_close(b);
    assert_int_equal(order.count, 24);
    uint32_t last[4] = {0}, of_others = 0;
    for (uint32_t i = 0; i < 24; i++) {
        assert_true(order.numbers[i] >= last[order.owners[i]]);
        last[order.owners[i]] = order.numbers[i];
        of_others += i < 7 && order.owners[i] != 1;
    }
    assert_int_equal(of_others, 4); /* the last that came, among the first seven */
}

static int open_and_ask(void) {
    const struct world *w = &worlds[0];
    struct lk_batch_weights weights = {&w->layout, w->weights[0], NULL, NULL};
    struct lk_batch_options o = {.slots = 2, .page_positions = 8, .pages = 40, .queue = 9, .panels = true};
    struct lk_batch *b;
    uint32_t ends[6] = {0}, asked = 0;
    int code = lk_batch_open(maths[0].math, tokenizer, &weights, &o, &b, &test_err);
    if (code) return code;
    for (int i = 0; i < 4 && !code; i++) {
        struct lk_request r = w->questions[i].r;
        r.done = count_end, r.arg = ends, r.owner = (uint32_t)i;
        if (!(code = lk_batch_submit(b, &r, NULL, &test_err))) asked++;
    }
    if (!code) code = lk_batch_swap(b, &weights, &test_err);
    while (lk_batch_step(b)) continue;
    lk_batch_close(b);
    uint32_t all = 0;
    for (int i = 0; i < 6; i++) all += ends[i];
    assert_int_equal(all, asked);
    return code ? code : ends[LK_REQUEST_FAILED] ? LK_ENOMEM : LK_OK;
}

static void no_memory_ends_what_has_none(void **state) {
    (void)state;
    OK(open_and_ask());
    for (uint64_t at = 1, over = 0; !over; at++) {
        lk__alloc_fail_at(at);
        int code = open_and_ask();
        over = lk__alloc_count() < at;
        lk__alloc_fail_at(0);
        if (code && code != LK_ENOMEM) fail_msg("allocation %llu: %d", (unsigned long long)at, code);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(schedules_change_no_bit),
        cmocka_unit_test(one_weight_s_last_bit_changes_the_root),
        cmocka_unit_test(embeddings_are_means_of_the_training_forward),
        cmocka_unit_test(what_can_t_be_is_refused),
        cmocka_unit_test(owners_take_turns),
        cmocka_unit_test(no_memory_ends_what_has_none),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
