/* Every kernel of every instruction set, and the reference with our own fma, gives the bits of the reference, on plain,
 * hostile and special values and on all lengths around a vector and around the 64 lanes. (Matrix products and attention
 * have tests of their own; here they are compared between the two builds of the reference.) */
#include "base/testing.h"
#include "math/exact.h"
#include "math/kernel_table.h"

static uint64_t state = 0x9e3779b97f4a7c15u;
static uint32_t next(void) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (uint32_t)(state >> 16);
}

enum values { PLAIN, HOSTILE, SPECIAL, VALUES };
static float value(enum values kind) {
    float plain = (float)(next() & 0xfffff) / 131072.0f - 4.0f;
    if (kind == PLAIN) return plain;
    uint32_t what = next() % 64;
    if (what < 4) return 0.0f;
    if (what < 8) return -0.0f;
    if (what < 12) return plain * 0x1p-142f;
    if (what < 16) return plain * 0x1p-70f;
    if (what < 20) return plain * 0x1p6f;
    if (kind == SPECIAL && what == 63 && next() % 4 == 0) {
        static const uint32_t bits[] = {0x7f800000u, 0xff800000u, 0x7fc00000u, 0x7f7fffffu, 0xff7fffffu, 1u};
        return lk__math_float(bits[next() % 6]);
    }
    if (kind == SPECIAL && what == 62 && next() % 4 == 0) return lk__math_float(next());
    return plain;
}

/* The tables under test; the first is the reference that the others must equal. */
static struct lk__math_kernels tables[8];
static const char *names[8];
static int count;

static void collect(void) {
    count = 0;
    const char *isas[8];
    int n = lk_math_isas(isas);
    struct lk_math *m;
    assert_int_equal(lk_math_open(NULL, "ref", &m, NULL), 0);
    tables[count] = m->k, names[count++] = "ref";
    lk_math_close(m);
    tables[count].caches = tables[0].caches;
    lk__math_fill_ref_soft(&tables[count]), names[count++] = "ref with our fma";
    for (int i = 0; i < n; i++) {
        if (strcmp(isas[i], "ref") == 0 || strcmp(isas[i], "blocked") == 0) continue; /* the rest of blocked is ref */
        assert_int_equal(lk_math_open(NULL, isas[i], &m, NULL), 0);
        tables[count] = m->k, names[count++] = isas[i];
        lk_math_close(m);
    }
}

/* Arrays end where their memory ends, so that a sanitizer sees what goes on beyond. */
#define ARRAYS 8
struct arrays {
    float *x[ARRAYS];
    size_t n[ARRAYS];
};
static struct arrays make(size_t count_of, const size_t *n, enum values kind) {
    struct arrays a = {{0}, {0}};
    for (size_t i = 0; i < count_of; i++) {
        a.n[i] = n[i];
        a.x[i] = malloc(n[i] * sizeof(float) + 1);
        for (size_t j = 0; j < n[i]; j++) a.x[i][j] = value(kind);
    }
    return a;
}
static struct arrays copy(const struct arrays *from) {
    struct arrays a = *from;
    for (size_t i = 0; i < ARRAYS; i++) {
        if (!a.x[i]) continue;
        a.x[i] = malloc(a.n[i] * sizeof(float) + 1);
        memcpy(a.x[i], from->x[i], a.n[i] * sizeof(float));
    }
    return a;
}
static void release(struct arrays *a) {
    for (size_t i = 0; i < ARRAYS; i++) free(a->x[i]);
}
static uint32_t bits(float x) {
    return x != x ? 0x7fc00000u : lk__math_bits32(x);
}
static void same(const struct arrays *a, const struct arrays *b, const char *kernel, const char *isa, size_t n) {
    for (size_t i = 0; i < ARRAYS; i++)
        for (size_t j = 0; j < a->n[i]; j++)
            if (bits(a->x[i][j]) != bits(b->x[i][j]))
                fail_msg("%s, %s, n %zu: array %zu element %zu is %a, the reference's %a", kernel, isa, n, i, j,
                         (double)b->x[i][j], (double)a->x[i][j]);
}

/* Runs one kernel with every table on the same arrays; all of them may be written. */
typedef void run_fn(const struct lk__math_kernels *, struct arrays *, size_t n, int variant);
static void compare(const char *kernel, run_fn *run, size_t count_of, const size_t *sizes, size_t n, int variant,
                    enum values kind) {
    struct arrays start = make(count_of, sizes, kind), first = copy(&start);
    run(&tables[0], &first, n, variant);
    for (int t = 1; t < count; t++) {
        struct arrays other = copy(&start);
        run(&tables[t], &other, n, variant);
        same(&first, &other, kernel, names[t], n);
        release(&other);
    }
    release(&start), release(&first);
}

/* --- Elements -------------------------------------------------------------------------------------------- */
static void run_swiglu(const struct lk__math_kernels *k, struct arrays *a, size_t n, int v) {
    if (v == 0)
        k->swiglu_forward(n, a->x[0], a->x[1], a->x[2]);
    else if (v == 1)
        k->swiglu_backward(n, a->x[0], a->x[1], a->x[2], a->x[3], a->x[4]);
    else
        k->swiglu_backward(n, a->x[0], a->x[1], a->x[2], a->x[0], a->x[1]); /* in place */
}
static void run_gelu(const struct lk__math_kernels *k, struct arrays *a, size_t n, int v) {
    if (v == 0)
        k->gelu_forward(n, a->x[0], a->x[1]);
    else
        k->gelu_backward(n, a->x[0], a->x[1], v == 1 ? a->x[2] : a->x[1]);
}
static void run_simple(const struct lk__math_kernels *k, struct arrays *a, size_t n, int v) {
    if (v == 0) k->add(n, a->x[0], a->x[1], a->x[2]);
    if (v == 1) k->add(n, a->x[0], a->x[1], a->x[0]);
    if (v == 2) k->scale(n, 0.3f, a->x[0]);
    if (v == 3) k->exp_n(n, a->x[0], a->x[1]);
    if (v == 4) k->tanh_n(n, a->x[0], a->x[1]);
    if (v == 5) k->softmax_exp_n(n, a->x[0], 2.5f, a->x[1]);
    if (v == 6) a->x[0][0] = k->all_finite(n, a->x[1]);
    if (v >= 8) k->init_normal(0x123456789abcull + n, 7, 0.02, (size_t)(v - 8) * 0x7ffff000u, n, a->x[0]);
    if (v == 7) {
        double sum = k->block_squares(n < LK_BLOCK ? n : LK_BLOCK, a->x[0]);
        if (sum != sum) sum = 0;
        memcpy(a->x[1], &sum, n >= 2 ? sizeof sum : 4 * n);
    }
}
static void run_adamw(const struct lk__math_kernels *k, struct arrays *a, size_t n, int v) {
    struct lk_adamw s = {0.9f, 0.1f, 0.95f, 0.05f, -1e-3f, 1.7f, 1e-8f, v & 1 ? 0.999f : 1.0f, v & 2 ? 0.7f : 1.0f};
    for (size_t i = 0; i < n; i++) /* v is a mean of squares: not negative */
        a->x[3][i] = lk__math_float(lk__math_bits32(a->x[3][i]) & 0x7fffffffu);
    k->adamw(&s, n, a->x[0], a->x[1], a->x[2], a->x[3]);
}

static size_t length(size_t i) {
    return i < 200 ? i + 1 : i < 206 ? 500 + next() % 9000 : 4096;
}

static void elements_are_equal(void **unused) {
    (void)unused;
    for (size_t i = 0; i < 208; i++)
        for (enum values kind = 0; kind < VALUES; kind++) {
            size_t n = length(i), sizes[] = {n, n, n, n, n};
            for (int v = 0; v < 3; v++) compare("swiglu", run_swiglu, 5, sizes, n, v, kind);
            for (int v = 0; v < 3; v++) compare("gelu", run_gelu, 3, sizes, n, v, kind);
            for (int v = 0; v < 10; v++) compare("element kernel", run_simple, 3, sizes, n, v, kind);
            for (int v = 0; v < 4; v++) compare("adamw", run_adamw, 4, sizes, n, v, kind);
        }
}

/* --- Rows ------------------------------------------------------------------------------------------------ */
static size_t row_count, batch;
static void run_norm(const struct lk__math_kernels *k, struct arrays *a, size_t n, int v) {
    bool layer = v & 1;
    /* 0 x, 1 gain, 2 bias, 3 dy, 4 y and dx_add, 5 dx, 6 normalised, 7 mean and rstd */
    float *mean = a->x[7], *rstd = a->x[7] + row_count;
    k->norm_forward(row_count, n, batch, a->x[0], a->x[1], layer ? a->x[2] : NULL, 1e-5f, a->x[4], mean, rstd);
    k->norm_backward(row_count, n, batch, a->x[0], a->x[1], mean, rstd, layer, a->x[3], v & 2 ? a->x[4] : NULL,
                     v & 4 ? a->x[4] : a->x[5],
                     v & 8   ? a->x[0]
                     : v & 2 ? a->x[6]
                             : NULL);
    if (v & 8) k->norm_forward(row_count, n, batch, a->x[3], a->x[1], layer ? a->x[2] : NULL, 1e-5f, a->x[3], mean, rstd);
}
static void run_loss(const struct lk__math_kernels *k, struct arrays *a, size_t n, int v) {
    uint32_t targets[8];
    for (size_t i = 0; i < row_count; i++) targets[i] = i == 1 ? UINT32_MAX : (uint32_t)((i * 7 + 3) % n);
    k->cross_entropy(row_count, n, a->x[0], n + 3, targets, 0.01f, v, a->x[1]);
}
static void run_rope(const struct lk__math_kernels *k, struct arrays *a, size_t n, int v) {
    /* n pairs a head; 3 heads, 5 positions */
    k->rope(row_count, 2, 3, (uint32_t)(2 * n), 5, 4, a->x[0], a->x[1], v & 1 ? 0.125f : 1.0f, v & 2, a->x[2], 6 * n + 1);
}
static void run_columns(const struct lk__math_kernels *k, struct arrays *a, size_t n, int v) {
    struct lk_row_part parts[9];
    size_t at = 0, groups = (size_t)(v >> 2);
    for (size_t p = 0; p < 9; p++) {
        size_t rows = p == 4 ? 515 : p == 7 ? 0 : p * 3;
        parts[p] = (struct lk_row_part){at, rows, groups && (p + 1) * groups / 9 != p * groups / 9};
        at += rows;
    }
    k->column_sum(n, a->x[0], n + 2, v & 1 ? a->x[1] : NULL, n, parts, 9, groups < 2 && (v & 2), a->x[2]);
}
#define COLUMN_ROWS (515 + 3 * (1 + 2 + 3 + 5 + 6 + 8))

static void rows_are_equal(void **unused) {
    (void)unused;
    for (size_t i = 0; i < 204; i++)
        for (enum values kind = 0; kind < VALUES; kind++) {
            size_t n = length(i);
            row_count = 1 + next() % (n < 200 ? 40 : 6); /* several batches, the last not whole */
            batch = 1 + next() % (next() % 2 ? 3 : LK__NORM_BATCH);
            size_t all = row_count * n;
            for (int v = 0; v < 12; v++)
                compare("norm", run_norm, 8, (size_t[]){all, n, n, all, all, all, all, 2 * row_count}, n, v, kind);
            row_count = 1 + next() % 3;
            for (int v = 0; v < 2; v++)
                compare("loss", run_loss, 2, (size_t[]){row_count * (n + 3), row_count}, n, v, kind);
            if (n > 1000) continue;
            for (int v = 0; v < 4; v++)
                compare("rope", run_rope, 3, (size_t[]){9 * n, 9 * n, row_count * (6 * n + 1)}, n, v, kind);
        }
}

static void column_sums_are_equal(void **unused) {
    (void)unused;
    for (size_t n = 1; n <= 1100; n += n < 36 ? 1 : n < 70 ? 11 : 487)
        for (enum values kind = 0; kind < VALUES; kind++)
            for (int v = 0; v < 24; v += 1 + (n > 4)) {
                if (v >> 2 == 5) continue;
                compare("column sum", run_columns, 3, (size_t[]){COLUMN_ROWS * (n + 2), COLUMN_ROWS * n, n}, n, v, kind);
            }
}

/* Rows of lists over sequences of CHAIN_POSITIONS: v & 1 begins; step v / 2 rows apart, so that lists end in one segment,
 * leap over one, or have a single row. */
#define CHAIN_POSITIONS 1100u
#define CHAIN_ROWS      (2 * CHAIN_POSITIONS)
static void run_chains(const struct lk__math_kernels *k, struct arrays *a, size_t n, int v) {
    static const uint32_t steps[] = {1, 3, 97, 511, 512, 513, 1100, 5000};
    static uint32_t next[CHAIN_ROWS];
    uint32_t step = steps[v / 2], first = step < 600 ? 509 : 3;
    for (uint32_t i = 0; i < CHAIN_ROWS; i++) next[i] = i + step < CHAIN_ROWS ? i + step : UINT32_MAX;
    k->row_chains(n, a->x[0], n + 1, first, next, CHAIN_POSITIONS, v & 1, a->x[1]);
}
static void row_chains_are_equal(void **unused) {
    (void)unused;
    for (size_t n = 1; n <= 140; n += n < 20 ? 1 : 17)
        for (enum values kind = 0; kind < VALUES; kind++)
            for (int v = 0; v < 16; v += 1 + (n > 4 && n % 2))
                compare("row chains", run_chains, 2, (size_t[]){CHAIN_ROWS * (n + 1), n}, n, v, kind);
}

/* --- The two builds of plain C ---------------------------------------------------------------------------------- */
#define PRODUCT_ROWS 15
/* v + 1 groups, the last one with a part of two segments. */
static void run_product(const struct lk__math_kernels *k, struct arrays *a, size_t n, int v) {
    struct lk_mm_part parts[4];
    for (int p = 0; p <= v; p++) parts[p] = (struct lk_mm_part){a->x[0], a->x[1], 600, 1, 1, 600, p < v ? 90 : 600, true};
    struct lk_mm mm = {.m = PRODUCT_ROWS, .n = n, .parts = parts, .part_count = (size_t)v + 1, .c = a->x[2], .ldc = n};
    mm.bias = a->x[3];
    void *scratch = aligned_alloc(64, k->mm_scratch_bytes / 64 * 64 + 64);
    k->mm_tile(&mm, 0, PRODUCT_ROWS, 0, n, &k->caches, scratch);
    free(scratch);
}
static void run_attention(const struct lk__math_kernels *k, struct arrays *a, size_t n, int v) {
    (void)v;
    uint32_t t = (uint32_t)n;
    struct lk_attention at = {1,  t, 0, 2, 1,    6,       a->x[0], a->x[1], a->x[2],
                              12, 6, 6, n, NULL, a->x[3], 12,      a->x[4], a->x[4] + 2 * n};
    for (uint32_t h = 0; h < 2; h++) k->attention_forward(&at, 0, h, 0, t, &k->caches, NULL);
    k->attention_backward(&at, a->x[5], 12, 0.4f, a->x[6], a->x[7], a->x[7] + 6 * n, 0, 0, &k->caches, NULL);
}
static void reference_is_equal_with_our_fma(void **unused) {
    (void)unused;
    int all = count;
    struct lk__math_kernels third = tables[2];
    const char *third_name = names[2];
    lk__math_fill_blocked_soft(&tables[2]), names[2] = "blocked with our fma";
    count = 3;
    for (enum values kind = 0; kind < VALUES; kind++) {
        for (int v = 0; v < 4; v++)
            compare("product", run_product, 4, (size_t[]){PRODUCT_ROWS * 600, 37 * 600, PRODUCT_ROWS * 37, 37}, 37, v,
                    kind);
        for (size_t t = 1; t < 30; t += 7)
            compare("attention", run_attention, 8, (size_t[]){12 * t, 6 * t, 6 * t, 12 * t, 4 * t, 12 * t, 12 * t, 12 * t},
                    t, 0, kind);
    }
    tables[2] = third, names[2] = third_name;
    count = all;
}

int main(void) {
    state += 0x9E3779B97F4A7C15u * test_seed("kernels");
    lk_fpenv_set();
    collect();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(elements_are_equal),
        cmocka_unit_test(rows_are_equal),
        cmocka_unit_test(column_sums_are_equal),
        cmocka_unit_test(row_chains_are_equal),
        cmocka_unit_test(reference_is_equal_with_our_fma),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
