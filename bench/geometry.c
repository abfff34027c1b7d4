/* One matrix product of ones, or attention, on one thread, for a simulator of caches: bench/geometry.sh. geometry NAME
 * [none]: with `none` it does all but that. Without arguments: the names, with the cycles of FMA at two of 8 floats each.
 */
#include "lockstep/base/mem.h"
#include "lockstep/math/kernels.h"
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    size_t m, n, k;
    bool a_across, b_along;
} products[] = {
    /* Rows 3, 8 and 12 KiB apart, and all kinds of k; some 300 million fma each, seconds of simulation. */
    {"forward", 512, 768, 768, false, true},      {"input", 512, 768, 768, false, false},
    {"weight", 768, 768, 512, true, false},       {"forward-3072", 256, 384, 3072, false, true},
    {"input-3072", 256, 384, 3072, false, false}, {"weight-3072", 3072, 192, 512, true, false},
    {"forward-64", 64, 3072, 768, false, true},   {"forward-2048", 128, 1024, 2048, false, true},
    {"weight-2048", 2048, 256, 512, true, false}, {"odd", 777, 333, 555, true, false},
};
#define PRODUCTS (sizeof products / sizeof *products)

/* Of one sequence and heads of 64 in a row with 12 of them, as GPT-2 has. */
static const struct {
    const char *name;
    uint32_t positions, heads;
    bool backward;
} attentions[] = {
    {"attention-1024", 1024, 2, false}, {"attention-back-256", 256, 4, true}, {"attention-back-1024", 1024, 2, true}};
#define ATTENTIONS (sizeof attentions / sizeof *attentions)
enum { HEAD = 64, WIDTH = 12 * HEAD, ROW = 3 * WIDTH };

static void print_names(void) {
    for (size_t i = 0; i < PRODUCTS; i++)
        printf("%s %zu\n", products[i].name, products[i].m * products[i].n * products[i].k / 16);
    for (size_t i = 0; i < ATTENTIONS; i++) {
        size_t n = attentions[i].positions, pairs = attentions[i].heads * (n * (n + 1) / 2);
        printf("%s %zu\n", attentions[i].name, pairs * HEAD * (attentions[i].backward ? 5 : 2) / 16);
    }
}

static float *ones(size_t n) {
    float *x = lk_alloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = 1;
    return x;
}

static void product(struct lk_math *math, size_t p, bool none) {
    size_t m = products[p].m, n = products[p].n, k = products[p].k;
    struct lk_mm_part part = {.a = ones(m * k),
                              .b = ones(n * k),
                              .a_row = products[p].a_across ? 1 : k,
                              .a_col = products[p].a_across ? m : 1,
                              .b_row = products[p].b_along ? 1 : n,
                              .b_col = products[p].b_along ? k : 1,
                              .k = k,
                              .ends_group = true};
    float *c = lk_calloc(m * n, sizeof *c);
    if (!none) lk_matmul(math, &(struct lk_mm){.m = m, .n = n, .parts = &part, .part_count = 1, .c = c, .ldc = n});
}

static void attention(struct lk_math *math, size_t i, bool none) {
    uint32_t n = attentions[i].positions, heads = attentions[i].heads;
    float *qkv = ones((size_t)n * ROW), *d_qkv = ones((size_t)n * ROW), *dout = ones((size_t)n * WIDTH);
    struct lk_attention a = {.sequences = 1,
                             .queries = n,
                             .heads = heads,
                             .kv_heads = heads,
                             .head_dim = HEAD,
                             .q = qkv,
                             .k = qkv + WIDTH,
                             .v = qkv + 2 * WIDTH,
                             .ldq = ROW,
                             .ldk = ROW,
                             .ldv = ROW,
                             .kv_rows = n,
                             .o = ones((size_t)n * WIDTH),
                             .ldo = WIDTH,
                             .m = ones((size_t)n * heads),
                             .r = ones((size_t)n * heads)};
    if (none) return;
    if (attentions[i].backward)
        lk_attention_backward(
            math, &a,
            &(struct lk_attention_gradient){
                .dout = dout, .ld_dout = WIDTH, .q_scale = 1, .dq = d_qkv, .dk = d_qkv + WIDTH, .dv = d_qkv + 2 * WIDTH});
    else
        lk_attention_forward(math, &a);
}

int main(int argc, char **argv) {
    struct lk_pool *pool;
    struct lk_math *math;
    struct lk_err err = {0};
    if (argc < 2) return print_names(), 0;
    if (lk_pool_open(1, &pool, &err) || lk_math_open(pool, NULL, &math, &err) ||
        lk_math_reserve(math, lk_attention_scratch_bytes(1024, HEAD, true), &err)) {
        fprintf(stderr, "geometry: %s\n", err.message);
        return 1;
    }
    for (size_t i = 0; i < PRODUCTS; i++)
        if (!strcmp(products[i].name, argv[1])) return product(math, i, argc > 2), 0;
    for (size_t i = 0; i < ATTENTIONS; i++)
        if (!strcmp(attentions[i].name, argv[1])) return attention(math, i, argc > 2), 0;
    fprintf(stderr, "geometry: no product %s\n", argv[1]);
    return 1;
}
