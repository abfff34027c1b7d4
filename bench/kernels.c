/* Row and element kernels at training's shapes, each beside its floor: the larger of
 *   memory      the same arrays read and written with nothing computed (lk_math_stream), with ordinary stores or with ones
 *               that go past the caches, whichever is faster: the traffic's own bandwidth where the arrays lie;
 *   arithmetic  its fma and mul instructions a vector (counted from src/math/simd, one for each v_fma and v_mul of a pass;
 *               adds, comparisons and integers have ports of their own here) over the measured FMA peak, and its divisions
 *               and roots over the divider's measured rate.
 * Kernel and floor run in turns, as often; medians. usage: kernels [threads [isa [part of a name]]] */
#include "lockstep/math/kernels.h"
#include "bench_machine.h"
#include "bench_median.h"
#include "bench_peak.h"
#include "lockstep/base/mem.h"
#include "lockstep/math/measure.h"
#include "lockstep/model/model.h"
#include <stdio.h>

#define ROUNDS_MOST 200

static struct lk_math *math;
static struct lk_pool *pool;

/* --- Shapes ---------------------------------------------------------------------------------------------- */
static const struct shape {
    const char *name;
    bool llama;
    uint32_t sequences, context, width, heads, ffn, vocab;
    size_t parameters;
} shapes[] = {
    {"gpt2 124M, 4 x 256", false, 4, 256, 768, 12, 3072, 50304, 40000000},
    {"gpt2 124M, 1 x 1024", false, 1, 1024, 768, 12, 3072, 50304, 40000000},
    {"gpt2 14M, 16 x 256", false, 16, 256, 384, 6, 1536, 8192, 14000000},
    {"llama 14M, 16 x 256", true, 16, 256, 384, 6, 1024, 8192, 14000000},
};
static const struct shape *s;
static size_t rows, n; /* tokens; elements of the kernel at hand */
static float *a[4], *table, mean[4096], rstd[4096], losses[4096];
static double *squares;
static uint32_t ids[4096];
static struct lk_row_part parts[16];
static struct lk_embedding_gradient *scatter;
static double sink;

/* --- Kernels: what training calls, in place where training is ---------------------------------------------- */
static void layer_norm(void) {
    lk_norm_forward(math, &(struct lk_norm){.rows = rows,
                                            .n = s->width,
                                            .x = a[0],
                                            .gain = table,
                                            .bias = table,
                                            .epsilon = 1e-5f,
                                            .y = a[1],
                                            .mean = mean,
                                            .rstd = rstd});
}
static void norm_back(bool layer) {
    lk_norm_backward(math, &(struct lk_norm_gradient){.rows = rows,
                                                      .n = s->width,
                                                      .layer = layer,
                                                      .x = a[2],
                                                      .gain = table,
                                                      .mean = layer ? mean : NULL,
                                                      .rstd = rstd,
                                                      .dy = a[3],
                                                      .dx_add = a[0],
                                                      .dx = a[0],
                                                      .normalised = a[1]});
}
static void layer_norm_back(void) {
    norm_back(true);
}
static void rms_norm(void) {
    lk_norm_forward(math,
                    &(struct lk_norm){
                        .rows = rows, .n = s->width, .x = a[0], .gain = table, .epsilon = 1e-5f, .y = a[1], .rstd = rstd});
}
static void rms_norm_back(void) {
    norm_back(false);
}
static void gelu(void) {
    lk_gelu_forward(math, n, a[0], a[1]);
}
static void gelu_back(void) {
    lk_gelu_backward(math, n, a[1], a[0], a[0]);
}
static void swiglu(void) {
    lk_swiglu_forward(math, n, a[0], a[1], a[2]);
}
static void swiglu_back(void) {
    lk_swiglu_backward(math, n, a[0], a[1], a[2], a[0], a[1]);
}
static void cross_entropy(bool gradient) {
    lk_cross_entropy(math, &(struct lk_cross_entropy){.rows = rows,
                                                      .vocab = s->vocab,
                                                      .logits = a[0],
                                                      .ld = s->vocab,
                                                      .targets = ids,
                                                      .scale = 1e-3f,
                                                      .gradient = gradient,
                                                      .loss = losses});
}
static void loss(void) {
    cross_entropy(true);
}
static void loss_alone(void) {
    cross_entropy(false);
}
static void softmax_exp(void) {
    lk_softmax_exp_n(math, n, a[0], 2, a[1]);
}
static void rope(void) {
    lk_rope(math, &(struct lk_rope){.rows = rows,
                                    .heads = s->heads,
                                    .head_dim = s->width / s->heads,
                                    .positions = s->context,
                                    .cos_table = table,
                                    .sin_table = table + 65536,
                                    .scale = 1,
                                    .x = a[0],
                                    .ldx = s->width});
}
static void scale(void) {
    lk_scale_rows(math, rows, s->width, 0.999f, a[0], s->width);
}
static void gather(void) {
    lk_embed(math, &(struct lk_embed){.rows = rows,
                                      .n = s->width,
                                      .ids = ids,
                                      .table = table,
                                      .positions_table = s->llama ? NULL : a[0],
                                      .positions = s->context,
                                      .out = a[2]});
}
static void scatter_add(void) {
    lk_embedding_gradient_begin(scatter);
    for (uint32_t i = 0; i < s->sequences; i++)
        lk_embedding_gradient_add(scatter, math, i, 1, s->context, ids + i * s->context,
                                  a[0] + (size_t)i * s->context * s->width);
}
static void bias_gradient(void) {
    lk_column_sum(math,
                  &(struct lk_column_sum){
                      .n = n / rows, .y = a[0], .ldy = n / rows, .parts = parts, .part_count = s->sequences, .out = a[3]});
}
static void gain_gradient(void) {
    lk_column_sum(math, &(struct lk_column_sum){.n = s->width,
                                                .y = a[0],
                                                .ldy = s->width,
                                                .factor = a[1],
                                                .ld_factor = s->width,
                                                .parts = parts,
                                                .part_count = s->sequences,
                                                .out = a[3]});
}
static void add(void) {
    lk_add(math, n, a[0], a[1], a[0]);
}
static void norm_squares(void) {
    lk_block_squares(math, n, a[0], squares);
    sink += squares[0];
}
static void adamw(void) {
    static const struct lk_adamw step = {0.9f, 0.1f, 0.95f, 0.05f, -1e-6f, 1, 1e-8f, 0.9999f, 0.999f};
    lk_adamw_step(math, &step, n, a[0], a[3], a[1], a[2]);
}

enum { WIDTH, FFN, VOCAB, PARAMETERS };
enum { BOTH, GPT2, LLAMA };
static const struct kernel {
    const char *name;
    int family, size;
    void (*run)(void);
    size_t reads, writes; /* arrays; those that are updated count in both */
    bool update;          /* what is written has been read */
    double fma, fma_avx2; /* fma and mul a vector; without the exponent instruction of AVX-512 */
    int divisions, roots;
    int restore; /* arrays that would run into denormals or infinities, were they used again as they are */
} kernels[] = {
    {"layer norm", GPT2, WIDTH, layer_norm, 1, 1, false, 3, 3, 0, 0, 0},
    {"layer norm backward", GPT2, WIDTH, layer_norm_back, 3, 2, true, 8, 8, 0, 0, 0},
    {"RMS norm", LLAMA, WIDTH, rms_norm, 1, 1, false, 3, 3, 0, 0, 0},
    {"RMS norm backward", LLAMA, WIDTH, rms_norm_back, 3, 2, true, 7, 7, 0, 0, 0},
    {"GELU", GPT2, FFN, gelu, 1, 1, false, 27, 27, 1, 0, 0},
    {"GELU backward", GPT2, FFN, gelu_back, 2, 1, true, 32, 32, 1, 0, 1},
    {"SwiGLU", LLAMA, FFN, swiglu, 2, 1, false, 11, 13, 1, 0, 0},
    {"SwiGLU backward", LLAMA, FFN, swiglu_back, 3, 2, true, 15, 17, 1, 0, 2},
    {"softmax exp", BOTH, FFN, softmax_exp, 1, 1, false, 9, 11, 0, 0, 0},
    {"loss", BOTH, VOCAB, loss_alone, 1, 0, false, 10, 10, 0, 0, 0},
    {"loss and its gradient", BOTH, VOCAB, loss, 1, 1, true, 12, 12, 0, 0, 0},
    {"rotary positions", LLAMA, WIDTH, rope, 1, 1, true, 3, 3, 0, 0, 0},
    {"scaling of q", GPT2, WIDTH, scale, 1, 1, true, 1, 1, 0, 0, 0},
    {"embedding rows", LLAMA, WIDTH, gather, 1, 1, false, 0, 0, 0, 0, 0},
    {"embedding rows", GPT2, WIDTH, gather, 2, 1, false, 0, 0, 0, 0, 0},
    {"embedding gradient", BOTH, WIDTH, scatter_add, 1, 1, false, 0, 0, 0, 0, 0},
    {"bias gradient, width", GPT2, WIDTH, bias_gradient, 1, 0, false, 0, 0, 0, 0, 0},
    {"bias gradient, hidden", GPT2, FFN, bias_gradient, 1, 0, false, 0, 0, 0, 0, 0},
    {"gain gradient", BOTH, WIDTH, gain_gradient, 2, 0, false, 1, 1, 0, 0, 0},
    {"add", BOTH, PARAMETERS, add, 2, 1, true, 0, 0, 0, 0, 0},
    {"squares of the norm", BOTH, PARAMETERS, norm_squares, 1, 0, false, 2, 2, 0, 0, 0},
    {"AdamW", BOTH, PARAMETERS, adamw, 4, 3, true, 9, 9, 1, 1, 0},
};

/* --- Floors ---------------------------------------------------------------------------------------------- */
static void stream(const struct kernel *k, bool past_caches) {
    struct lk_stream t = {.n = n, .reads = k->reads, .writes = k->writes, .past_caches = past_caches};
    for (size_t i = 0; i < k->reads; i++) t.read[i] = a[i];
    for (size_t i = 0; i < k->writes; i++) t.write[i] = k->update ? a[i] : a[k->reads + i];
    lk_math_stream(math, &t);
}

/* Seconds of one vector's division and root, and of an fma, on one thread. */
static double vector_floats, division, root, fma_seconds;

#if defined(__x86_64__)
#define DIVIDER(NAME, TARGET, V, OP, IN_REGISTER)                                                                          \
    __attribute__((target(TARGET))) static void NAME(void *arg, size_t tile, int thread) {                                 \
        V x[8], t;                                                                                                         \
        memset(x, 0x3f, sizeof x);                                                                                         \
        for (int r = 0; r < 4000; r++) _Pragma("GCC unroll 8") for (int i = 0; i < 8; i++) {                               \
                __asm__ volatile("" : IN_REGISTER(x[i]));                                                                  \
                t = OP;                                                                                                    \
                __asm__ volatile("" : IN_REGISTER(t));                                                                     \
            }                                                                                                              \
        (void)arg, (void)tile, (void)thread;                                                                               \
    }
DIVIDER(divide512, "avx512f", __m512, _mm512_div_ps(x[7 - i], x[i]), IN_REGISTER)
DIVIDER(divide256, "avx2,fma", __m256, _mm256_div_ps(x[7 - i], x[i]), IN_YMM)
DIVIDER(root512, "avx512f", __m512, _mm512_sqrt_ps(x[i]), IN_REGISTER)
DIVIDER(root256, "avx2,fma", __m256, _mm256_sqrt_ps(x[i]), IN_YMM)
static double rate(lk_tile_fn *fn) {
    double best = 1;
    for (int i = 0; i < 20; i++) {
        double t = seconds_now();
        fn(NULL, 0, 0);
        t = seconds_now() - t;
        if (t < best) best = t;
    }
    return best / (4000 * 8);
}
static void measure_divider(const char *isa) {
    bool wide = strcmp(isa, "avx512") == 0;
    division = rate(wide ? divide512 : divide256);
    root = rate(wide ? root512 : root256);
}
#else
static void measure_divider(const char *isa) {
    (void)isa;
}
#endif

static void measure_arithmetic(void) {
    const char *isa = lk_math_isa(math);
    double peak = 0;
    vector_floats = strcmp(isa, "avx512") == 0 ? 16 : strcmp(isa, "avx2") == 0 ? 8 : 4;
    for (int i = 0; i < 20; i++) {
        double p = peak_now(NULL, isa);
        if (p > peak) peak = p;
    }
    fma_seconds = 2 * vector_floats / peak;
    measure_divider(isa);
}

/* --- One kernel ------------------------------------------------------------------------------------------ */
static void show(const struct kernel *k) {
    double t[3][ROUNDS_MOST], end = seconds_now() + 0.25;
    bool can_pass = k->writes > 0;
    int count = 0;
    size_t sizes[] = {rows * s->width, rows * s->ffn, rows * s->vocab, s->parameters};
    n = sizes[k->size];
    for (; count < ROUNDS_MOST && (count < 7 || seconds_now() < end); count++) {
        stream(k, false); /* so that all three find in the caches what a pass over these arrays leaves there */
        for (int i = 0; i < k->restore; i++)
            lk_math_stream(math, &(struct lk_stream){.n = n, .reads = 1, .writes = 1, .read = {a[3]}, .write = {a[i]}});
        for (int what = 0; what < 3; what++) {
            double start = seconds_now();
            if (what == 0)
                k->run();
            else if (what == 1 || can_pass)
                stream(k, what == 2);
            t[what][count] = seconds_now() - start;
        }
    }
    double ours = median(t[0], count), memory = median(t[1], count), past = median(t[2], count);
    if (can_pass && past < memory) memory = past;
    double vectors = (double)n / vector_floats / lk_pool_threads(pool),
           fma = vectors * fma_seconds * (vector_floats < 16 ? k->fma_avx2 : k->fma),
           divider = vectors * (k->divisions * division + k->roots * root), arithmetic = fma > divider ? fma : divider,
           floor_ = memory > arithmetic ? memory : arithmetic;
    printf("%-22s %10.4f %10.4f %10.4f %10.4f  %-10s %6.0f%%\n", k->name, 1e3 * ours, 1e3 * memory, 1e3 * fma,
           1e3 * divider,
           memory > arithmetic ? "memory"
           : fma > divider     ? "fma"
                               : "divider",
           100 * floor_ / ours);
}

static void fill(size_t floats) {
    for (int i = 0; i < 4; i++)
        for (size_t k = 0; k < floats; k++)
            a[i][k] = (float)((k * 7919 + (size_t)i * 31) % 1000) * 0.004f - (i == 2 ? 0 : 2.0f);
}

int main(int argc, char **argv) {
    struct machine began = machine_now();
    struct lk_err err = {0};
    struct lk_arena memory;
    int threads = argc > 1 ? atoi(argv[1]) : lk_threads_default();
    size_t floats = (size_t)1024 * 50304, table_floats = (size_t)50304 * 768;
    if (lk_pool_open(threads, &pool, &err) || lk_math_open(pool, argc > 2 ? argv[2] : NULL, &math, &err)) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    squares = malloc(floats / LK_BLOCK * sizeof *squares + sizeof *squares);
    if (!squares || lk_arena_init(&memory, (4 * floats + table_floats) * sizeof(float) + 4096)) return 1;
    for (int i = 0; i < 4; i++) a[i] = lk_arena_take(&memory, floats * sizeof(float));
    table = lk_arena_take(&memory, table_floats * sizeof(float));
    for (size_t i = 0; i < table_floats; i++) table[i] = (float)(i % 100) * 0.01f;
    unsigned long long old = lk_fpenv_set();
    measure_arithmetic();
    printf("%s, %d thread%s: %.0f Gflop/s a thread; a division %.1f and a root %.1f times an fma\n", lk_math_isa(math),
           threads, threads == 1 ? "" : "s", 2e-9 * vector_floats / fma_seconds, division / fma_seconds,
           root / fma_seconds);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        s = &shapes[i];
        rows = (size_t)s->sequences * s->context;
        for (size_t k = 0; k < rows; k++) ids[k] = (uint32_t)(k * 40503u % s->vocab);
        for (uint32_t k = 0; k < s->sequences; k++)
            parts[k] = (struct lk_row_part){(size_t)k * s->context, s->context, true};
        if (lk_embedding_gradient_create(s->vocab, s->width, rows, NULL, &scatter, &err)) return 1;
        printf("\n%-22s %10s %10s %10s %10s  %-10s %7s\n", s->name, "ms", "memory", "fma", "divider", "floor", "share");
        for (size_t k = 0; k < sizeof kernels / sizeof *kernels; k++) {
            if (kernels[k].family == (s->llama ? GPT2 : LLAMA) || (argc > 3 && !strstr(kernels[k].name, argv[3]))) continue;
            fill(floats);
            show(&kernels[k]);
        }
        lk_embedding_gradient_free(scatter);
    }
    lk_fpenv_restore(old);
    lk_arena_release(&memory);
    free(squares);
    lk_math_close(math);
    lk_pool_close(pool);
    return machine_verdict(&began);
}
