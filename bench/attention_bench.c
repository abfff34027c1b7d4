/* Attention against the FMA peak measured beside it; only visible pairs count: 4 d operations a pair forward, 10 d
 * backward. attention_bench [threads] [isa] [index of one shape] [rounds]
 *
 * attention_bench [threads] [isa] decode [rounds]: the last query of each context beside reading its keys and values once,
 * by head and by kv head in turns. Keys and values lie in pages of 32 and come from memory, as those of a model's layers
 * do: each call takes the next of more layers than caches hold. */
#include "bench_machine.h"
#include "bench_peak.h"
#include "lockstep/base/mem.h"
#include "lockstep/math/kernels.h"
#include "lockstep/math/measure.h"
#include "math/kernel_table.h"
#include <stdio.h>
#include <stdlib.h>

static const struct {
    uint32_t sequences, queries, first, heads, kv_heads, d;
} shapes[] = {
    {1, 1024, 0, 12, 12, 64}, {4, 256, 0, 12, 12, 64},  {4, 64, 0, 12, 12, 64},  {16, 256, 0, 4, 4, 64},
    {16, 256, 0, 6, 2, 64},   {1, 2048, 0, 12, 4, 64},  {1, 4096, 0, 4, 4, 64},  {1, 8192, 0, 2, 2, 64},
    {1, 1024, 0, 6, 6, 128},  {1, 2048, 0, 4, 4, 128},  {1, 1000, 0, 6, 6, 80},  {8, 65, 0, 12, 12, 7},
    {1, 1, 1023, 12, 12, 64}, {1, 1, 4095, 12, 12, 64}, {8, 1, 1023, 12, 4, 64}, {1, 64, 960, 12, 12, 64},
};

static float *filled(struct lk_arena *arena, size_t n, unsigned seed) {
    float *x = lk_arena_take(arena, n * sizeof *x);
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)(seed >> 16) / 32768.0f - 1.0f;
    }
    return x;
}

static double time_one(struct lk_math *math, const struct lk_attention *a, const float *dout, float *dqkv) {
    double t = seconds_now();
    if (dout)
        lk_attention_backward(math, a,
                              &(struct lk_attention_gradient){.dout = dout,
                                                              .ld_dout = a->ldo,
                                                              .q_scale = 0.125f,
                                                              .dq = dqkv,
                                                              .dk = dqkv + (size_t)a->heads * a->head_dim,
                                                              .dv = dqkv + (size_t)(a->heads + a->kv_heads) * a->head_dim});
    else
        lk_attention_forward(math, a);
    return seconds_now() - t;
}

static void one(struct lk_math *math, size_t s, int rounds) {
    uint32_t n = shapes[s].queries, all = n + shapes[s].first, heads = shapes[s].heads, kv_heads = shapes[s].kv_heads,
             d = shapes[s].d;
    size_t row = (size_t)(heads + 2 * kv_heads) * d, rows = (size_t)shapes[s].sequences * all, width = (size_t)heads * d;
    struct lk_arena arena;
    if (lk_arena_init(&arena, (2 * rows * row + 2 * rows * width + 2 * rows * heads) * sizeof(float) + 4096)) exit(1);
    float *qkv = filled(&arena, rows * row, 1), *dqkv = filled(&arena, rows * row, 2), *o = filled(&arena, rows * width, 3);
    float *dout = filled(&arena, rows * width, 4), *m = filled(&arena, rows * heads, 5),
          *r = filled(&arena, rows * heads, 6);
    struct lk_attention a = {.sequences = shapes[s].sequences,
                             .queries = n,
                             .first = shapes[s].first,
                             .heads = heads,
                             .kv_heads = kv_heads,
                             .head_dim = d,
                             .q = qkv,
                             .k = qkv + width,
                             .v = qkv + width + (size_t)kv_heads * d,
                             .ldq = row,
                             .ldk = row,
                             .ldv = row,
                             .kv_rows = all,
                             .o = o,
                             .ldo = width,
                             .m = m,
                             .r = r};
    double pairs = (double)a.sequences * heads * ((double)n * a.first + (double)n * (n + 1) / 2);
    for (int backward = 0; backward <= (a.first == 0); backward++) {
        double work = pairs * d * (backward ? 10 : 4), best = 0, peak = 0, spent = 0;
        for (int round = 0; round < 2 || (round < rounds && spent < 3); round++) {
            double t = time_one(math, &a, backward ? dout : NULL, dqkv);
            spent += t;
            double now = peak_now(lk_math_pool(math), lk_math_isa(math));
            if (work / t > best) best = work / t;
            if (now > peak) peak = now;
        }
        printf("%3u x %5u at %5u heads %2u/%2u d %3u %-8s %8.1f GF/s %6.1f%%  %.3f ms\n", a.sequences, n, a.first, heads,
               kv_heads, d, backward ? "backward" : "forward", best * 1e-9, 100 * best / peak, 1e3 * work / best);
        fflush(stdout);
    }
    lk_arena_release(&arena);
}

#define PAGE         32
#define DECODE_BYTES (size_t)(192 << 20) /* of all layers */
#define SEQUENCES    8

struct decode {
    uint32_t sequences, context, heads, kv_heads, queries, layers, layer;
    size_t floats;              /* of a layer */
    float *kv, *q, *o, *blocks; /* blocks: of LK_Q8, the same numbers */
    uint32_t *pages;
};

enum way { STREAM, HEADS, KV_HEADS, BLOCKS, WAYS };
static double decode_call(struct lk_math *math, struct decode *t, enum way way) {
    const size_t words = way == BLOCKS ? 17 : 64; /* of a head's row */
    const float *kv = way == BLOCKS ? t->blocks + t->layer * (t->floats / 64 * words) : t->kv + t->layer * t->floats;
    size_t pages = t->context / PAGE, row = (size_t)t->kv_heads * words, width = (size_t)t->heads * 64;
    struct lk_attention a[SEQUENCES];
    t->layer = (t->layer + 1) % t->layers;
    for (uint32_t i = 0; i < t->sequences; i++)
        a[i] = (struct lk_attention){.sequences = 1,
                                     .queries = t->queries,
                                     .first = t->context - t->queries,
                                     .heads = t->heads,
                                     .kv_heads = t->kv_heads,
                                     .head_dim = 64,
                                     .q = t->q + i * t->queries * width,
                                     .k = kv,
                                     .v = kv + PAGE * row,
                                     .ldq = width,
                                     .ldk = row,
                                     .ldv = row,
                                     .o = t->o + i * t->queries * width,
                                     .ldo = width,
                                     .pages = t->pages + i * pages,
                                     .page_positions = PAGE,
                                     .page_stride = 2 * PAGE * row,
                                     .kv_dtype = way == BLOCKS ? LK_Q8 : LK_F32};
    double began = seconds_now();
    if (way == STREAM)
        lk_math_stream(math, &(struct lk_stream){.n = t->floats, .reads = 1, .read = {kv}});
    else
        lk_attention_forward_many(math, a, t->sequences);
    return seconds_now() - began;
}

/* The least times of rounds of calls, in turns. */
static void decode_one(struct lk_math *math, struct decode t, int rounds) {
    size_t pages = (size_t)t.sequences * t.context / PAGE, width = (size_t)t.sequences * t.queries * t.heads * 64;
    t.floats = pages * 2 * PAGE * t.kv_heads * 64;
    t.layers = (uint32_t)(DECODE_BYTES / (t.floats * sizeof(float)) + 1);
    struct lk_arena arena;
    size_t all = t.layers * t.floats;
    if (lk_arena_init(&arena, (all + all / 64 * 17 + 2 * width + pages) * sizeof(float) + 4096)) exit(1);
    t.kv = filled(&arena, t.layers * t.floats, 1), t.q = filled(&arena, width, 2), t.o = filled(&arena, width, 3);
    t.pages = lk_arena_take(&arena, pages * sizeof *t.pages);
    t.blocks = lk_arena_take(&arena, all / 64 * 17 * sizeof(float));
    if (lk_quantize(math, LK_Q8, all / 64, 64, t.kv, t.blocks, NULL)) exit(1);
    for (size_t i = 0; i < pages; i++) t.pages[i] = (uint32_t)i;
    double best[WAYS] = {1, 1, 1, 1}, spent = 0;
    uint32_t few = math->k.attention_few_queries, calls = t.layers < 30 ? t.layers : 30;
    for (int round = 0; round < 3 || (round < rounds && spent < 6); round++)
        for (enum way way = STREAM; way < WAYS; way++) {
            double sum = 0;
            math->k.attention_few_queries = way >= KV_HEADS ? UINT32_MAX : 0;
            for (uint32_t i = 0; i < calls; i++) sum += decode_call(math, &t, way);
            if (sum / calls < best[way]) best[way] = sum / calls;
            spent += sum;
        }
    math->k.attention_few_queries = few;
    printf("%u x %u of %4u heads %2u/%2u  floor %7.3f ms  by head %7.3f (%4.1fx)  by kv head %7.3f (%4.1fx)  in q8 %7.3f\n",
           t.sequences, t.queries, t.context, t.heads, t.kv_heads, 1e3 * best[STREAM], 1e3 * best[HEADS],
           best[HEADS] / best[STREAM], 1e3 * best[KV_HEADS], best[KV_HEADS] / best[STREAM], 1e3 * best[BLOCKS]);
    fflush(stdout);
    lk_arena_release(&arena);
}
static void decode(struct lk_math *math, int rounds) {
    static const uint32_t heads[][2] = {{9, 3}, {12, 12}}, contexts[] = {128, 512, 2048, 8192}, queries[] = {1, 4, 8, 12};
    for (int h = 0; h < 2; h++)
        for (uint32_t sequences = 1; sequences <= SEQUENCES; sequences += SEQUENCES - 1)
            for (int c = 0; c < 4; c++) {
                struct decode t = {sequences, contexts[c], heads[h][0], heads[h][1], 1};
                decode_one(math, t, rounds);
            }
    for (int h = 0; h < 2; h++)
        for (int q = 1; q < 4; q++) decode_one(math, (struct decode){1, 512, heads[h][0], heads[h][1], queries[q]}, rounds);
}

int main(int argc, char **argv) {
    struct machine began = machine_now();
    struct lk_err err = {0};
    struct lk_pool *pool = NULL;
    struct lk_math *math = NULL;
    int threads = argc > 1 ? atoi(argv[1]) : 1;
    if (lk_pool_open(threads, &pool, &err) || lk_math_open(pool, argc > 2 ? argv[2] : NULL, &math, &err) ||
        lk_math_reserve(math, lk_attention_scratch_bytes(8192, 128, true) + lk_attention_widened_bytes(8192, 64), &err)) {
        fprintf(stderr, "attention_bench: %s\n", err.message);
        return 1;
    }
    printf("%s, %d threads\n", lk_math_isa(math), threads);
    bool decoding = argc > 3 && !strcmp(argv[3], "decode");
    if (decoding) decode(math, argc > 4 ? atoi(argv[4]) : 60);
    size_t only = decoding ? SIZE_MAX - 1 : argc > 3 ? (size_t)atoi(argv[3]) : SIZE_MAX;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        if (only == SIZE_MAX || only == s) one(math, s, argc > 4 ? atoi(argv[4]) : 60);
    lk_math_close(math);
    lk_pool_close(pool);
    return machine_verdict(&began);
}
