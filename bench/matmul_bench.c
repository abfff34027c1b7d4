/* Matrix products against the FMA peak measured beside them: matmul_bench [threads] [isa] [index of one shape] [rounds] */
#include "bench_machine.h"
#include "bench_peak.h"
#include "lockstep/base/mem.h"
#include "lockstep/math/kernels.h"
#include <stdio.h>
#include <stdlib.h>

enum kind { FORWARD, INPUT, WEIGHT }; /* A B' (weights), A B (input gradient), A' B (weight gradient) */
static const char *const kind_names[] = {"forward", "input", "weight"};
static const struct {
    size_t m, n, k;
    enum kind kind;
    size_t parts; /* of k each; every part is a group where there are several */
} shapes[] = {
    {1024, 2304, 768, FORWARD, 1},  {1024, 768, 768, FORWARD, 1},   {1024, 3072, 768, FORWARD, 1},
    {1024, 768, 3072, FORWARD, 1},  {1024, 50304, 768, FORWARD, 1}, {256, 2304, 768, FORWARD, 1},
    {256, 768, 768, FORWARD, 1},    {256, 3072, 768, FORWARD, 1},   {256, 768, 3072, FORWARD, 1},
    {256, 50304, 768, FORWARD, 1},  {1024, 768, 2304, INPUT, 1},    {1024, 768, 3072, INPUT, 1},
    {1024, 3072, 768, INPUT, 1},    {1024, 768, 50304, INPUT, 1},   {256, 768, 3072, INPUT, 1},
    {2304, 768, 1024, WEIGHT, 1},   {3072, 768, 1024, WEIGHT, 1},   {768, 3072, 1024, WEIGHT, 1},
    {768, 768, 1024, WEIGHT, 1},    {50304, 768, 1024, WEIGHT, 1},  {3072, 768, 64, WEIGHT, 4},
    {768, 768, 64, WEIGHT, 4},      {3072, 768, 256, WEIGHT, 8},    {4096, 256, 256, FORWARD, 1},
    {4096, 768, 256, FORWARD, 1},   {4096, 256, 768, INPUT, 1},     {768, 256, 256, WEIGHT, 8},
    {4096, 384, 384, FORWARD, 1},   {4096, 1152, 384, FORWARD, 1},  {1024, 384, 256, WEIGHT, 8},
    {4096, 4096, 256, FORWARD, 1},  {256, 256, 256, FORWARD, 1},    {512, 512, 512, FORWARD, 1},
    {2048, 2048, 2048, FORWARD, 1}, {1021, 1021, 1021, FORWARD, 1}, {1000, 65, 1000, FORWARD, 1},
    {65, 1000, 1000, FORWARD, 1},   {64, 3072, 768, FORWARD, 1},    {16, 3072, 768, FORWARD, 1},
    {8, 3072, 768, FORWARD, 1},     {1, 3072, 768, FORWARD, 1},     {1, 50304, 768, FORWARD, 1},
    {4, 50304, 768, FORWARD, 1},
};

static float *filled(struct lk_arena *arena, size_t n, unsigned seed) {
    float *x = lk_arena_take(arena, n * sizeof *x);
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)(seed >> 16) / 32768.0f - 1.0f;
    }
    return x;
}

static void one(struct lk_math *math, size_t s, int rounds) {
    size_t m = shapes[s].m, n = shapes[s].n, k = shapes[s].k, parts = shapes[s].parts, all = k * parts;
    struct lk_arena arena;
    if (lk_arena_init(&arena, (m * all + n * all + m * n) * sizeof(float) + 4096)) exit(1);
    float *a = filled(&arena, m * all, 1), *b = filled(&arena, n * all, 2), *c = filled(&arena, m * n, 3);
    struct lk_mm_part part[16];
    for (size_t p = 0; p < parts; p++) {
        part[p] = (struct lk_mm_part){
            .a = a + p * k, .b = b + p * k, .a_row = all, .a_col = 1, .b_row = 1, .b_col = all, .k = k, .ends_group = true};
        if (shapes[s].kind != FORWARD) part[p].b = b + p * k * n, part[p].b_row = n, part[p].b_col = 1;
        if (shapes[s].kind == WEIGHT) part[p].a = a + p * k * m, part[p].a_row = 1, part[p].a_col = m;
    }
    struct lk_mm mm = {.m = m, .n = n, .parts = part, .part_count = parts, .c = c, .ldc = n};
    double work = 2.0 * (double)m * (double)n * (double)all, best = 0, peak = 0, spent = 0;
    for (int r = 0; r < 2 || (r < rounds && spent < 3); r++) {
        double t = seconds_now();
        lk_matmul(math, &mm);
        t = seconds_now() - t;
        spent += t;
        double now = peak_now(lk_math_pool(math), lk_math_isa(math));
        if (work / t > best) best = work / t;
        if (now > peak) peak = now;
    }
    printf("%6zu %6zu %6zu x%zu %-8s %8.1f GF/s %6.1f%% of %6.1f", m, n, k, parts, kind_names[shapes[s].kind], best * 1e-9,
           100 * best / peak, peak * 1e-9);
    if (m <= 16) printf("  reads %.1f GB/s", 4e-9 * (double)n * (double)all * best / work);
    printf("\n");
    fflush(stdout);
    lk_arena_release(&arena);
}

int main(int argc, char **argv) {
    struct machine began = machine_now();
    struct lk_err err = {0};
    struct lk_pool *pool = NULL;
    struct lk_math *math = NULL;
    int threads = argc > 1 ? atoi(argv[1]) : 1;
    if (lk_pool_open(threads, &pool, &err) || lk_math_open(pool, argc > 2 ? argv[2] : NULL, &math, &err)) {
        fprintf(stderr, "matmul_bench: %s\n", err.message);
        return 1;
    }
    printf("%s, %d threads\n     m      n      k\n", lk_math_isa(math), threads);
    size_t only = argc > 3 ? (size_t)atoi(argv[3]) : SIZE_MAX;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        if (only == SIZE_MAX || only == s) one(math, s, argc > 4 ? atoi(argv[4]) : 60);
    lk_math_close(math);
    lk_pool_close(pool);
    return machine_verdict(&began);
}
