/* Generation against the memory's speed: decode_bench [threads] [gpt2|llama] [tokens] [prompt tokens] [isa]
 * lk_generate with random weights of 124M parameters and a tokenizer of 50,257 tokens, sampling as `lockstep generate`
 * does. After each token all weights are read once by the plain loop of `lockstep doctor`, so both see the same moment of
 * the machine. The prompt's rate is set beside the forward pass of training over as many tokens. */
#include "bench_machine.h"
#include "bench_median.h"
#include "bench_model.h"
#include "lockstep/math/measure.h"
#include "lockstep/serve/generate.h"

struct bench {
    struct bench_model m;
    double *token_s, *read_s, began; /* began: 0 until the first token was drawn */
    size_t count;
};

static double read_all(struct bench *b) {
    double t = seconds_now();
    lk_math_stream(b->m.math, &(struct lk_stream){.n = b->m.layout.floats, .reads = 1, .read = {b->m.weights}});
    return seconds_now() - t;
}

/* The first token's time is the prompt's. */
static void drawn(void *arg, uint32_t id) {
    struct bench *b = arg;
    (void)id;
    if (b->began != 0) {
        b->token_s[b->count] = seconds_now() - b->began;
        b->read_s[b->count++] = read_all(b);
    }
    b->began = seconds_now();
}

static struct lk_generation generate(struct bench *b, const char *prompt, size_t size, uint32_t tokens) {
    struct lk_err err = {0};
    struct lk_generation g;
    struct lk_generate_options o = {.sampling = {.temperature = 0.8, .top_p = 0.95, .seed = 1},
                                    .max_tokens = tokens,
                                    .panels = true,
                                    .token = drawn,
                                    .arg = b};
    b->began = 0;
    if (lk_generate(b->m.math, &b->m.layout, b->m.weights, b->m.tokenizer, prompt, size, &o, &g, &err)) stop(&err);
    return g;
}

/* What a token reads: every weight but the tables of which it takes one row. */
static double weight_bytes(const struct lk_layout *l) {
    double words = 0;
    for (int i = 0; i < (int)l->tensor_count; i++)
        if (i != l->positions && (i != l->embedding || l->head < 0)) words += (double)l->tensors[i].words;
    return words * sizeof(float);
}

static void decode(struct bench *b, uint32_t tokens) {
    uint32_t got = 0;
    b->token_s = lk_alloc(tokens * sizeof(double));
    b->read_s = lk_alloc(tokens * sizeof(double));
    got = generate(b, "one two", 7, tokens).tokens;
    double bytes = weight_bytes(&b->m.layout), all = (double)b->m.layout.floats * sizeof(float),
           token = median(b->token_s, b->count), read = median(b->read_s, b->count);
    printf(
        "decode   %5u tokens  %7.2f ms a token, %6.1f tokens/s  %6.2f GB/s of weights; reading alone %6.2f GB/s: %.1f%%\n",
        got, token * 1e3, 1 / token, bytes / token * 1e-9, all / read * 1e-9, 100 * (bytes / token) / (all / read));
    lk_free(b->token_s);
    lk_free(b->read_s);
}

/* The forward pass as training runs it, logits of every position and all. */
static double forward(struct bench *b, uint32_t positions) {
    struct lk_err err = {0};
    struct lk_decoder *d;
    uint32_t *ids = lk_calloc(positions, sizeof *ids);
    if (!ids || lk_decoder_create(&b->m.layout, b->m.math, 1, positions, LK_TRAINING, &d, &err)) stop(&err);
    unsigned seed = 3;
    for (uint32_t i = 0; i < positions; i++) ids[i] = next(&seed) % 50257;
    double t = 0;
    for (int i = 0; i < 2; i++) { /* the first time touches the memory */
        t = seconds_now();
        lk_decoder_forward(d, b->m.weights, 1, positions, ids, NULL);
        t = seconds_now() - t;
    }
    lk_decoder_free(d);
    lk_free(ids);
    return positions / t;
}

static void prefill(struct bench *b, const struct lk_buf *text, uint32_t wanted) {
    struct lk_err err = {0};
    struct lk_tokens ids = {0};
    double read[5], trained[5];
    size_t size = 0, step = 16;
    do { /* the least text of so many tokens */
        ids.count = 0;
        size += step;
        if (lk_tokenizer_encode(b->m.tokenizer, text->data, size, NULL, &ids, &err)) stop(&err);
    } while (ids.count + 1 < wanted);
    lk_tokens_release(&ids);
    uint32_t tokens = 0;
    for (int i = 0; i < 5; i++) {
        struct lk_generation g = generate(b, text->data, size - (ids.count + 1 > wanted ? step : 0), 1);
        tokens = g.prompt_tokens;
        read[i] = tokens / g.prompt_seconds;
        trained[i] = forward(b, wanted);
    }
    double a = median(read, 5), t = median(trained, 5);
    printf("prefill  %5u tokens  %7.1f tokens/s; training's forward pass %7.1f tokens/s: %.1f%%\n", tokens, a, t,
           100 * a / t);
}

/* The last product, 1 to 8 rows at once, as when so many sequences are served; in turns with reading its weights. */
static void rows_at_once(struct bench *b) {
    enum { ROUNDS = 21, K = 768, N = 50304 };
    static const size_t rows[] = {1, 2, 4, 8};
    float *panels = lk_alloc((size_t)N * K * sizeof *panels), *x = lk_calloc(8 * K, sizeof *x),
          *y = lk_alloc(8 * N * sizeof *y);
    double took[4][ROUNDS], read[ROUNDS];
    if (!panels || !x || !y || !lk_panels_usable(b->m.math)) exit(1);
    lk_panels_fill(b->m.math, LK_F32, N, K, b->m.weights + b->m.layout.tensors[b->m.layout.embedding].offset, panels);
    struct lk_panel_product product = {.panels = panels, .n = N, .y = y};
    for (int r = 0; r < ROUNDS; r++) {
        double t = seconds_now();
        lk_math_stream(b->m.math, &(struct lk_stream){.n = (size_t)N * K, .reads = 1, .read = {panels}});
        read[r] = seconds_now() - t;
        for (int i = 0; i < 4; i++) {
            t = seconds_now();
            lk_panels_multiply(b->m.math, rows[i], K, x, &product, 1);
            took[i][r] = seconds_now() - t;
        }
    }
    double one = median(took[0], ROUNDS), alone = median(read, ROUNDS);
    for (int i = 0; i < 4; i++) {
        double t = median(took[i], ROUNDS);
        printf("logits   %5zu rows    %7.2f ms, %6.1f%% of the read bandwidth, %.2f times as long as one row\n", rows[i],
               t * 1e3, 100 * alone / t, t / one);
    }
    lk_free(panels), lk_free(x), lk_free(y);
}

static void profile(struct bench *b, uint32_t tokens) {
    struct lk_err err = {0};
    struct lk_generate_options o = {
        .sampling = {.temperature = 0.8, .top_p = 0.95, .seed = 1}, .max_tokens = tokens + 1, .panels = true};
    struct lk_generation g;
    if (lk_math_profile(b->m.math, &err)) stop(&err);
    if (lk_generate(b->m.math, &b->m.layout, b->m.weights, b->m.tokenizer, "", 0, &o, &g, &err)) stop(&err);
    const struct lk_kernel_time *t = lk_math_profiled(b->m.math);
    double rest = (g.seconds + g.prompt_seconds) * 1e3 / tokens;
    for (int i = 0; i < LK_KERNELS; i++) {
        if (!t[i].calls) continue;
        double ms = (double)t[i].ns * 1e-6 / tokens;
        rest -= ms;
        printf("  %-16s %7.3f ms a token, %5.1f calls, waiting %5.3f ms\n", lk_kernel_name(i), ms,
               (double)t[i].calls / tokens,
               (double)t[i].idle_ns * 1e-6 / tokens / lk_pool_threads(lk_math_pool(b->m.math)));
    }
    printf("  %-16s %7.3f ms a token: sampling, text, calls\n", "the rest", rest);
    lk_math_profile_pause(b->m.math, true);
}

int main(int argc, char **argv) {
    struct machine began = machine_now();
    struct lk_err err = {0};
    struct bench b = {0};
    struct lk_pool *pool = NULL;
    struct lk_buf text = LK_BUF_INIT;
    int threads = argc > 1 ? atoi(argv[1]) : 2;
    const char *shape = argc > 2 ? argv[2] : "gpt2";
    uint32_t tokens = argc > 3 ? (uint32_t)atoi(argv[3]) : 200, prompt = argc > 4 ? (uint32_t)atoi(argv[4]) : 512;
    if (lk_pool_open(threads, &pool, &err) || lk_math_open(pool, argc > 5 ? argv[5] : NULL, &b.m.math, &err)) stop(&err);
    make_tokenizer(&b.m, &text);
    make_model(&b.m, shape, 1024);
    sharpen(&b.m);
    narrow(&b.m);
    printf("%s, %.1fM parameters, %s, %d threads\n", shape, (double)b.m.layout.parameters * 1e-6, lk_math_isa(b.m.math),
           threads);
    if (tokens) decode(&b, tokens);
    if (prompt && !b.m.layout.narrow) { /* training has no such weights */
        b.token_s = b.read_s = NULL;
        prefill(&b, &text, prompt);
        rows_at_once(&b);
    }
    if (tokens) profile(&b, tokens < 50 ? tokens : 50);
    lk_buf_release(&text);
    lk_free(b.m.weights);
    lk_layout_release(&b.m.layout);
    lk_tokenizer_free(b.m.tokenizer);
    lk_math_close(b.m.math);
    lk_pool_close(pool);
    return machine_verdict(&began);
}
