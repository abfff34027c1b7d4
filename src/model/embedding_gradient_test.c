/* The touched-rows gradient of the embedding against the contract written as a dense double loop, by bits. */
#include "model/testing.h"

#define SEGMENT 512

struct batch {
    uint32_t vocab, width, grains, per, positions; /* per: sequences in a grain */
    uint32_t *tokens;
    float *dx;
};

/* docs/numerics.md, section 3: row e, column c of one grain. */
static float grain_sum(const struct batch *b, uint32_t grain, uint32_t e, uint32_t c) {
    float total = 0;
    for (uint32_t s = grain * b->per; s < (grain + 1) * b->per; s++)
        for (uint32_t p0 = 0; p0 < b->positions; p0 += SEGMENT) {
            float chain = 0;
            for (uint32_t p = p0; p < b->positions && p < p0 + SEGMENT; p++) {
                size_t at = (size_t)s * b->positions + p;
                if (b->tokens[at] == e) chain = chain + b->dx[at * b->width + c];
            }
            total = total + chain;
        }
    return total;
}
/* Section 8: node (level, index) of the tree; false: no such node. */
static bool node(const struct batch *b, uint32_t level, uint32_t index, uint32_t e, uint32_t c, float *out) {
    float right;
    if ((uint64_t)index << level >= b->grains) return false;
    if (level == 0) {
        *out = grain_sum(b, index, e, c);
        return true;
    }
    node(b, level - 1, 2 * index, e, c, out);
    if (node(b, level - 1, 2 * index + 1, e, c, &right)) *out = *out + right;
    return true;
}

static struct batch make(struct test_random *r, uint32_t vocab, uint32_t width, uint32_t grains, uint32_t per,
                         uint32_t positions) {
    size_t n = (size_t)grains * per * positions;
    struct batch b = {vocab, width, grains, per, positions, lk_alloc(n * 4), lk_alloc(n * width * 4)};
    for (size_t i = 0; i < n; i++) b.tokens[i] = test_random_below(r, test_random_below(r, 3) ? (vocab + 2) / 3 : vocab);
    for (size_t i = 0; i < n * width; i++) {
        b.dx[i] = (float)(test_uniform(r) * 2 - 1) * (test_random_below(r, 5) ? 1.0f : 0x1p-20f);
        if (test_random_below(r, 50) == 0) b.dx[i] = -0.0f;
    }
    return b;
}

/* The batch in random pieces: several calls a grain, as micro-batches make them. */
static void add_in_pieces(struct test_random *r, struct lk_embedding_gradient *e, struct lk_math *math,
                          const struct batch *b) {
    for (uint32_t g = 0; g < b->grains; g++)
        for (uint32_t s = 0; s < b->per;) {
            uint32_t n = 1 + test_random_below(r, b->per - s);
            size_t at = (size_t)(g * b->per + s) * b->positions;
            lk_embedding_gradient_add(e, math, g, n, b->positions, b->tokens + at, b->dx + at * b->width);
            s += n;
        }
}

static void rows_equal_the_dense_loop(void **state) {
    (void)state;
    static const uint32_t cases[][5] = {
        {7, 3, 1, 1, 5}, {31, 84, 3, 2, 65}, {1021, 5, 8, 1, 33}, {3, 70, 5, 1, 600}, {2, 1, 2, 2, 1100}};
    struct test_random r = test_random_open("embedding");
    struct test_math m = test_math_open(NULL, 3);
    for (uint32_t n = 0; n < 5 + 12; n++) {
        struct batch b = n < 5 ? make(&r, cases[n][0], cases[n][1], cases[n][2], cases[n][3], cases[n][4])
                               : make(&r, 5 + n, 4, n - 4, 1 + n % 3, 1 + test_random_below(&r, 40)); /* 1 .. 12 grains */
        size_t size = (size_t)b.vocab * b.width;
        float *table = lk_alloc(size * 4), *other = lk_alloc(size * 4);
        struct lk_embedding_gradient *e;
        OK(lk_embedding_gradient_create(b.vocab, b.width, (size_t)b.grains * b.per * b.positions, NULL, &e, &test_err));
        for (int add = 0; add < 2; add++) { /* the second time in the same object: begin has to forget */
            for (size_t i = 0; i < size; i++) table[i] = other[i] = (float)test_uniform(&r);
            lk_embedding_gradient_begin(e);
            add_in_pieces(&r, e, m.math, &b);
            struct lk_embedding_rows rows = lk_embedding_gradient_list(e, m.math, 0, b.grains, b.grains);
            lk_embedding_rows_finish(m.math, b.width, &rows, 1, 0, size, add, table);
            for (uint32_t t = 0; t < b.vocab; t++)
                for (uint32_t c = 0; c < b.width; c++) {
                    float sum = 0, *x = &other[(size_t)t * b.width + c];
                    assert_true(node(&b, 5, 0, t, c, &sum));
                    *x = add ? sum + *x : sum;
                }
            assert_memory_equal(table, other, size * 4);
        }
        lk_embedding_gradient_free(e);
        lk_free(table);
        lk_free(other);
        lk_free(b.tokens);
        lk_free(b.dx);
    }
    test_math_close(&m);
}

static int make_and_free(void) {
    struct lk_embedding_gradient *e;
    int code = lk_embedding_gradient_create(100, 8, 50, NULL, &e, &test_err);
    if (!code) lk_embedding_gradient_free(e);
    return code;
}
static void no_memory_is_said(void **state) {
    (void)state;
    FAIL_EACH_ALLOCATION(make_and_free());
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(rows_equal_the_dense_loop), cmocka_unit_test(no_memory_is_said)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
