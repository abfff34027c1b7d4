/* Drawing a token of 50,257 logits, one thread: sample_bench [isa [draws]]
 * Microseconds a draw (medians) and a sum of the ids drawn, which no build and no instruction set may change. Peaked logits
 * are normal ones as a trained model's (a standard deviation of 3) with three ids far above, flat ones lie within 0.1. */
#include "bench_machine.h"
#include "bench_median.h"
#include "lockstep/base/mem.h"
#include "lockstep/base/progress.h"
#include "lockstep/math/math.h"
#include "lockstep/serve/generate.h"
#include <string.h>

#define TOKENS     50257
#define DRAWS_MOST 4000

static double chance(unsigned *seed) {
    *seed = *seed * 1664525u + 1013904223u;
    return (*seed >> 8) * 0x1p-24;
}
/* Twelve uniform numbers make one that is nearly normal. */
static double normal(unsigned *seed) {
    double sum = -6;
    for (int i = 0; i < 12; i++) sum += chance(seed);
    return sum;
}
enum shape { PEAKED, NORMAL, FLAT, SHAPES };
static void fill(float *x, enum shape shape) {
    unsigned seed = 5 + shape;
    for (int i = 0; i < TOKENS; i++) x[i] = (float)(shape == FLAT ? 0.1 * chance(&seed) : 3 * normal(&seed));
    for (int i = 0; i < 3 && shape == PEAKED; i++) x[7000 * (i + 1)] = 22 - (float)i;
}

int main(int argc, char **argv) {
    static const char *const names[SHAPES] = {"peaked", "normal", "flat"};
    static const struct {
        const char *name;
        struct lk_sampling s;
    } cases[] = {{"top-p 0.95", {.temperature = 1, .top_p = 0.95}},
                 {"top-k 40", {.temperature = 1, .top_k = 40, .top_p = 1}},
                 {"top-k 40, top-p", {.temperature = 0.8, .top_k = 40, .top_p = 0.95}},
                 {"min-p 0.05", {.temperature = 1, .top_p = 1, .min_p = 0.05}},
                 {"everything", {.temperature = 1, .top_p = 1}},
                 {"top-k 20,000", {.temperature = 1, .top_k = 20000, .top_p = 0.95}},
                 {"greedy", {.temperature = 0, .top_p = 1}}};
    struct machine began = machine_now();
    struct lk_err err = {0};
    struct lk_pool *pool = NULL;
    struct lk_math *math = NULL;
    int draws = argc > 2 ? atoi(argv[2]) : 300;
    if (draws < 1 || draws > DRAWS_MOST) draws = DRAWS_MOST;
    if (lk_pool_open(1, &pool, &err) || lk_math_open(pool, argc > 1 ? argv[1] : NULL, &math, &err)) {
        fprintf(stderr, "sample_bench: %s\n", err.message);
        return 1;
    }
    float *x = lk_alloc(TOKENS * sizeof *x);
    void *workspace = lk_alloc(lk_sample_bytes(TOKENS));
    double *took = lk_alloc((size_t)draws * sizeof *took);
    if (!x || !workspace || !took) return 1;
    for (int shape = 0; shape < SHAPES; shape++) {
        fill(x, shape);
        for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
            unsigned long long ids = 0;
            for (int i = 0; i < draws; i++) {
                uint64_t t = lk_clock_ns();
                uint32_t id = lk_sample_token(math, x, TOKENS, &cases[c].s, (uint32_t)i, workspace);
                took[i] = 1e-3 * (double)(lk_clock_ns() - t);
                ids += (uint64_t)(i + 1) * id;
            }
            double middle = median(took, (size_t)draws);
            printf("%-7s %-16s %7.1f us   least %7.1f   ids %llu\n", names[shape], cases[c].name, middle, took[0], ids);
        }
    }
    lk_free(x), lk_free(workspace), lk_free(took);
    lk_math_close(math);
    lk_pool_close(pool);
    return machine_verdict(&began);
}
