/* Serving without the network: batch_bench [threads] [llama|gpt2|llama135] [isa] [decode]
 * The batch of `lockstep serve` on random weights of 114M to 135M parameters; with `decode` only the first: tokens a second
 * of 1, 2, 4, 8, 16 and 32 texts together, reading prompts of 512 and 4,096 tokens, a prompt that was read before, what one
 * text pays for another's prompt. Lines for machines: "KEY VALUE" with seconds or tokens a second, with
 * LOCKSTEP_BENCH_PLAIN set. */
#include "bench_machine.h"
#include "bench_median.h"
#include "bench_model.h"
#include "lockstep/math/measure.h"
#include "lockstep/serve/batch.h"

#define CONTEXT 8192
#define ROUNDS  3

static struct bench_model model;
static struct lk_batch *batch;
static bool plain;

static void report(const char *key, double value, const char *unit) {
    if (plain)
        printf("%s %.9g\n", key, value);
    else
        printf("%-34s %10.4g %s\n", key, value, unit);
    fflush(stdout);
}

struct text {
    double asked, first, last, worst; /* seconds: when; worst: the longest between two tokens */
    uint32_t tokens;
    struct lk_request_result result;
    bool done;
};
static int heard(void *arg, const struct lk_drawn_token *t, bool prompt) {
    struct text *x = arg;
    double now = seconds_now();
    (void)t, (void)prompt;
    if (!x->tokens++)
        x->first = now;
    else if (now - x->last > x->worst)
        x->worst = now - x->last;
    x->last = now;
    return 0;
}
static void ended(void *arg, const struct lk_request_result *r) {
    struct text *x = arg;
    x->result = *r, x->done = true;
}
/* Random tokens: no text has anything to guess from. */
static void ask(struct text *x, uint32_t prompt, uint32_t tokens, unsigned seed) {
    struct lk_err err = {0};
    static uint32_t ids[CONTEXT];
    for (uint32_t i = 0; i < prompt; i++) ids[i] = next(&seed) % 50257;
    *x = (struct text){.asked = seconds_now()};
    struct lk_request r = {.prompt = ids,
                           .prompt_count = prompt,
                           .max_tokens = tokens,
                           .sampling = {.temperature = 0.8, .top_p = 0.95, .seed = seed},
                           .ignore_end = true,
                           .token = heard,
                           .done = ended,
                           .arg = x};
    if (lk_batch_submit(batch, &r, NULL, &err)) stop(&err);
}
static void run(const struct text *until) {
    while (!until->done && lk_batch_step(batch)) continue;
}
static void run_all(void) {
    while (lk_batch_step(batch)) continue;
}

/* Tokens a second of n texts together, their prompts of 16 tokens left out. */
static void streams(uint32_t n, uint32_t tokens) {
    struct text x[32];
    double rate[ROUNDS], read[ROUNDS];
    char key[40];
    for (int r = 0; r < ROUNDS; r++) {
        for (uint32_t i = 0; i < n; i++) ask(&x[i], 16, tokens, 1000u * (unsigned)r + i + 7);
        run_all();
        double first = 0, last = 0;
        for (uint32_t i = 0; i < n; i++) {
            first = x[i].first > first ? x[i].first : first;
            last = x[i].last > last ? x[i].last : last;
        }
        rate[r] = n * (tokens - 1) / (last - first);
        double t = seconds_now();
        lk_math_stream(model.math, &(struct lk_stream){.n = model.layout.floats, .reads = 1, .read = {model.weights}});
        read[r] = (double)model.layout.floats * sizeof(float) / (seconds_now() - t);
    }
    snprintf(key, sizeof key, "decode_%u", n);
    report(key, median(rate, ROUNDS), "tokens/s");
    if (n == 1) report("read_bandwidth", median(read, ROUNDS) * 1e-9, "GB/s");
}

static void prompts(uint32_t n) {
    struct text x;
    double rate[ROUNDS], again[ROUNDS];
    char key[40];
    for (int r = 0; r < ROUNDS; r++) {
        ask(&x, n, 1, 77u * (unsigned)r + n);
        run(&x);
        rate[r] = n / (x.first - x.asked);
        ask(&x, n, 1, 77u * (unsigned)r + n);
        run(&x);
        again[r] = (x.first - x.asked) * rate[r] / n;
    }
    snprintf(key, sizeof key, "prefill_%u", n);
    report(key, median(rate, ROUNDS), "tokens/s");
    snprintf(key, sizeof key, "cached_%u", n);
    report(key, 100 * median(again, ROUNDS), "% of its time when it is read again");
}

/* Seven texts are drawn while prompts of 512 come, one after another. */
static void first_under_load(void) {
    enum { COMING = 12 };
    struct text drawn[7], coming[COMING];
    double first[COMING], worst = 0;
    for (int i = 0; i < 7; i++) ask(&drawn[i], 16, 2000, 500u + (unsigned)i);
    for (int i = 0; i < 20; i++) lk_batch_step(batch);
    for (int i = 0; i < COMING; i++) {
        ask(&coming[i], 512, 16, 900u + (unsigned)i);
        run(&coming[i]);
        first[i] = coming[i].first - coming[i].asked;
    }
    for (int i = 0; i < 7; i++) worst = drawn[i].worst > worst ? drawn[i].worst : worst;
    lk_batch_close(batch);
    batch = NULL;
    report("first_token_p50", median(first, COMING), "s, prompts of 512 beside 7 texts");
    report("first_token_worst", first[COMING - 1], "s"); /* median has sorted them */
    report("between_tokens_worst", worst, "s, of the 7");
}

int main(int argc, char **argv) {
    struct machine began = machine_now();
    struct lk_err err = {0};
    struct lk_pool *pool = NULL;
    struct lk_buf text = LK_BUF_INIT;
    int threads = argc > 1 ? atoi(argv[1]) : 2;
    plain = getenv("LOCKSTEP_BENCH_PLAIN") != NULL;
    if (lk_pool_open(threads, &pool, &err) || lk_math_open(pool, argc > 3 && *argv[3] ? argv[3] : NULL, &model.math, &err))
        stop(&err);
    make_tokenizer(&model, &text);
    make_model(&model, argc > 2 ? argv[2] : "llama", CONTEXT);
    sharpen(&model);
    narrow(&model);
    struct lk_batch_options o = {.slots = 32, .pages = 3 * CONTEXT / 32, .queue = 64, .draft = 7, .panels = true};
    struct lk_batch_weights w = {&model.layout, model.weights, NULL, NULL};
    if (lk_batch_open(model.math, model.tokenizer, &w, &o, &batch, &err)) stop(&err);
    streams(1, 8); /* memory is touched */
    for (uint32_t n = 1; n <= 32; n *= 2) streams(n, n > 8 ? 40 : 60);
    if (argc < 5) {
        prompts(512);
        prompts(2000);
        prompts(4096);
        first_under_load();
    }
    lk_batch_close(batch);
    lk_buf_release(&text);
    lk_free(model.weights);
    lk_layout_release(&model.layout);
    lk_tokenizer_free(model.tokenizer);
    lk_math_close(model.math);
    lk_pool_close(pool);
    return plain ? 0 : machine_verdict(&began);
}
