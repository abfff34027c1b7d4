/* One matrix product of ones on one thread, for a simulator of caches: bench/geometry.sh. geometry NAME [none]: with `none`
 * it does all but the product. Without arguments: the names, with the product's m, n and k. */
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

int main(int argc, char **argv) {
    if (argc < 2) {
        for (size_t i = 0; i < PRODUCTS; i++)
            printf("%s %zu %zu %zu\n", products[i].name, products[i].m, products[i].n, products[i].k);
        return 0;
    }
    size_t p = 0;
    while (p < PRODUCTS && strcmp(products[p].name, argv[1]) != 0) p++;
    struct lk_pool *pool;
    struct lk_math *math;
    struct lk_err err = {0};
    if (p == PRODUCTS || lk_pool_open(1, &pool, &err) || lk_math_open(pool, NULL, &math, &err)) {
        fprintf(stderr, "geometry: no product %s, or: %s\n", argv[1], err.message);
        return 1;
    }
    size_t m = products[p].m, n = products[p].n, k = products[p].k;
    float *a = lk_alloc(m * k * sizeof *a), *b = lk_alloc(n * k * sizeof *b), *c = lk_calloc(m * n, sizeof *c);
    for (size_t i = 0; i < m * k; i++) a[i] = 1;
    for (size_t i = 0; i < n * k; i++) b[i] = 1;
    struct lk_mm_part part = {.a = a,
                              .b = b,
                              .a_row = products[p].a_across ? 1 : k,
                              .a_col = products[p].a_across ? m : 1,
                              .b_row = products[p].b_along ? 1 : n,
                              .b_col = products[p].b_along ? k : 1,
                              .k = k,
                              .ends_group = true};
    if (argc < 3) lk_matmul(math, &(struct lk_mm){.m = m, .n = n, .parts = &part, .part_count = 1, .c = c, .ldc = n});
    return 0;
}
