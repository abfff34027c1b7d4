/* Matrix products: every ISA and thread count gives the bits of the contract, written down here once more, naively. */
#include "base/testing.h"
#include "lockstep/math/kernels.h"

static uint64_t state = 88172645463325252u;
static uint32_t next(void) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (uint32_t)(state >> 16);
}
static size_t between(size_t low, size_t high) {
    return low + next() % (high - low + 1);
}

enum values { PLAIN, HOSTILE, SPECIAL };
/* HOSTILE: wild exponents, denormals, both zeros, so that every other order of adding shows. SPECIAL: infinities and NaN
 * too. */
static float value(enum values kind) {
    float plain = (float)(next() & 0xffff) / 32768.0f - 1.0f;
    if (kind == PLAIN) return plain;
    uint32_t what = next() % 100;
    if (what < 5) return 0.0f;
    if (what < 10) return -0.0f;
    if (what < 20) return plain * 0x1p-140f;
    if (what < 30) return plain * 0x1p-75f;
    if (what < 40) return plain * 0x1p20f;
    if (kind == SPECIAL && what == 99 && next() % 30 == 0) {
        uint32_t bits[3] = {0x7f800000u, 0xff800000u, 0x7fc00000u};
        float x;
        memcpy(&x, &bits[next() % 3], 4);
        return x;
    }
    return plain;
}

static uint32_t bits_of(float x) {
    uint32_t b;
    memcpy(&b, &x, 4);
    return x != x ? 0x7fc00000u : b;
}

/* A product with all that belongs to it; the operands end where their memory ends, so that a sanitizer sees what reads on.
 */
struct product {
    struct lk_mm mm;
    struct lk_mm_part parts[16];
    float *a[16], *b[16], *c, *bias, *residual;
    size_t c_size;
};

static float *filled(size_t n, enum values kind) {
    float *x = aligned_alloc(64, n * sizeof *x / 64 * 64 + 64);
    for (size_t i = 0; i < n; i++) x[i] = value(kind);
    return x;
}

static unsigned pads = 4; /* rows are up to pads - 1 elements longer than they need be */

/* layout bit 0: A transposed, bit 1: B transposed. epilogue bit 0 bias, bit 1 residual, bit 2 residual is C, bit 3
 * accumulate */
static void make(struct product *p, size_t m, size_t n, size_t parts, size_t k_most, size_t groups, int layout,
                 int epilogue, enum values kind) {
    memset(p, 0, sizeof *p);
    p->mm = (struct lk_mm){.m = m, .n = n, .parts = p->parts, .part_count = parts, .ldc = n + next() % pads};
    for (size_t q = 0; q < parts; q++) {
        size_t k = q ? between(0, k_most) : k_most, pad_a = next() % pads, pad_b = next() % pads;
        bool at = layout & 1, bt = layout & 2;
        size_t lda = (at ? m : k) + pad_a, ldb = (bt ? k : n) + pad_b;
        p->a[q] = filled((at ? k : m) * lda, kind), p->b[q] = filled((bt ? n : k) * ldb, kind);
        p->parts[q] = (struct lk_mm_part){.a = p->a[q],
                                          .b = p->b[q],
                                          .a_row = at ? 1 : lda,
                                          .a_col = at ? lda : 1,
                                          .b_row = bt ? 1 : ldb,
                                          .b_col = bt ? ldb : 1,
                                          .k = k,
                                          .ends_group = (q + 1) * groups / parts != q * groups / parts};
    }
    if (groups == 1) p->parts[parts - 1].ends_group = next() & 1; /* the last part always does */
    p->c_size = (m - 1) * p->mm.ldc + n;
    p->c = filled(p->c_size, kind), p->mm.c = p->c;
    if (epilogue & 1) p->mm.bias = p->bias = filled(n, kind);
    if (epilogue & 2) {
        p->mm.ld_residual = n + 3;
        p->mm.residual = p->residual = filled(m * (n + 3), kind);
    }
    if (epilogue & 4) p->mm.residual = p->c, p->mm.ld_residual = p->mm.ldc;
    p->mm.accumulate = epilogue & 8 && groups == 1;
    for (size_t i = 0; p->mm.accumulate && i < p->c_size; i++)
        if (p->c[i] == 0) p->c[i] = 0; /* totals are never -0 */
}

static void drop(struct product *p) {
    for (int q = 0; q < 16; q++) free(p->a[q]), free(p->b[q]);
    free(p->c), free(p->bias), free(p->residual);
}

/* docs/numerics.md, sections 2 and 8, one element. segment: 512; other values are negative controls. */
static float element(const struct lk_mm *mm, size_t i, size_t j, size_t segment) {
    float totals[16];
    size_t groups = 0;
    float t = mm->accumulate ? mm->c[i * mm->ldc + j] : 0.0f;
    for (size_t q = 0; q < mm->part_count; q++) {
        const struct lk_mm_part *p = &mm->parts[q];
        for (size_t k0 = 0; k0 < p->k; k0 += segment) {
            float s = 0;
            for (size_t k = k0; k < p->k && k < k0 + segment; k++)
                s = __builtin_fmaf(p->a[i * p->a_row + k * p->a_col], p->b[k * p->b_row + j * p->b_col], s);
            t = t + s;
        }
        if (p->ends_group || q + 1 == mm->part_count) totals[groups++] = t, t = 0;
    }
    for (; groups > 1; groups = (groups + 1) / 2)
        for (size_t g = 0; g < groups; g += 2) totals[g / 2] = g + 1 < groups ? totals[g] + totals[g + 1] : totals[g];
    t = totals[0];
    if (mm->bias) t = t + mm->bias[j];
    if (mm->residual) t = mm->residual[i * mm->ld_residual + j] + t;
    return t;
}

static float *expect(const struct product *p, size_t segment) {
    float *c = malloc(p->c_size * sizeof *c);
    memcpy(c, p->c, p->c_size * sizeof *c);
    for (size_t i = 0; i < p->mm.m; i++)
        for (size_t j = 0; j < p->mm.n; j++) c[i * p->mm.ldc + j] = element(&p->mm, i, j, segment);
    return c;
}

static size_t differing(const float *x, const float *y, size_t n) {
    size_t d = 0;
    for (size_t i = 0; i < n; i++) d += bits_of(x[i]) != bits_of(y[i]);
    return d;
}

static struct lk_pool *pools[9];
static struct {
    const char *isa, *caches;
    int threads;
    struct lk_math *math;
} maths[64];
static int math_count;

static int open_all(void **unused) {
    (void)unused;
    /* Those of this machine with several numbers of threads; a usual small core; many blocks in every product. */
    static const struct {
        const char *caches;
        int threads;
    } ways[] = {{"", 1}, {"", 2}, {"", 3}, {"", 8}, {"32K/8,512K/8", 1}, {"4K/2,32K/4", 2}};
    const char *isas[8];
    int count = lk_math_isas(isas);
    for (int threads = 1; threads <= 8; threads++)
        if (lk_pool_open(threads, &pools[threads], NULL)) return 1;
    for (int i = 0; i < count; i++)
        for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
            if (*ways[w].caches && i >= count - 2) continue; /* blocked and ref look at no caches */
            setenv("LOCKSTEP_CACHES", ways[w].caches, 1);
            maths[math_count].isa = isas[i], maths[math_count].caches = ways[w].caches;
            maths[math_count].threads = ways[w].threads;
            if (lk_math_open(pools[ways[w].threads], isas[i], &maths[math_count].math, NULL)) return 1;
            math_count++;
        }
    unsetenv("LOCKSTEP_CACHES");
    return 0;
}

static int close_all(void **unused) {
    (void)unused;
    for (int i = 0; i < math_count; i++) lk_math_close(maths[i].math);
    for (int threads = 1; threads <= 8; threads++) lk_pool_close(pools[threads]);
    return 0;
}

/* Destroys nothing: C is put back after each run. */
static void check(struct product *p, int most) {
    float *want = expect(p, 512), *before = malloc(p->c_size * sizeof *before);
    memcpy(before, p->c, p->c_size * sizeof *before);
    for (int i = 0; i < math_count && i < most; i++) {
        lk_matmul(maths[i].math, &p->mm);
        size_t d = differing(want, p->c, p->c_size);
        if (d)
            fail_msg("%s, caches %s, %d threads: %zu of %zu values differ: m %zu n %zu parts %zu k %zu a_row %zu b_row %zu "
                     "bias %d "
                     "residual %d "
                     "accumulate %d",
                     maths[i].isa, maths[i].caches, maths[i].threads, d, p->c_size, p->mm.m, p->mm.n, p->mm.part_count,
                     p->parts[0].k, p->parts[0].a_row, p->parts[0].b_row, p->mm.bias != NULL, p->mm.residual != NULL,
                     p->mm.accumulate);
        memcpy(p->c, before, p->c_size * sizeof *before);
    }
    free(want), free(before);
}

static void random_shapes(void **unused) {
    (void)unused;
    struct product p;
    for (int round = 0; round < 400; round++) {
        size_t parts = round % 3 ? 1 : between(1, 12), groups = round % 2 ? 1 : between(1, parts);
        make(&p, between(1, round % 5 ? 60 : 200), between(1, round % 7 ? 80 : 200), parts,
             between(1, parts > 1 ? 70 : 130), groups, round & 3, (int)(next() & 15), round % 4 ? HOSTILE : SPECIAL);
        check(&p, math_count);
        drop(&p);
    }
}

static void several_segments(void **unused) {
    (void)unused;
    struct product p;
    const size_t ks[] = {511, 512, 513, 1024, 1025, 1600};
    for (int round = 0; round < 48; round++) {
        make(&p, between(1, 40), between(1, 70), between(1, 3), ks[round % 6], 1, round & 3, (int)(next() & 15), HOSTILE);
        check(&p, math_count);
        drop(&p);
    }
}

static void groups_tree(void **unused) {
    (void)unused;
    struct product p;
    for (size_t groups = 1; groups <= 13; groups++) {
        make(&p, 33, 50, groups, 65, groups, (int)groups & 3, (int)groups & 7, HOSTILE);
        check(&p, math_count);
        drop(&p);
    }
}

static void few_rows(void **unused) {
    (void)unused;
    struct product p;
    for (size_t m = 1; m <= 20; m++)
        for (int layout = 0; layout < 4; layout++) {
            make(&p, m, between(1, 700), 1, between(1, 1200), 1, layout, (int)(next() & 15), m & 1 ? HOSTILE : SPECIAL);
            check(&p, math_count);
            drop(&p);
        }
}

static void more_than_one_tile(void **unused) {
    (void)unused;
    struct product p;
    for (int layout = 0; layout < 4; layout++) {
        make(&p, 531, 600, layout == 1 ? 3 : 1, layout == 1 ? 40 : 70, layout == 1 ? 3 : 1, layout, layout * 2, HOSTILE);
        check(&p, math_count);
        drop(&p);
    }
}

/* Operands that are read where they lie, or copied since their rows are a multiple of 4 KiB apart; either operand as the
 * one whose rows are vectors; steps of many parts at once; a C that goes past the caches. */
static void ways_of_reading(void **unused) {
    (void)unused;
    static const struct {
        size_t m, n, parts, k, groups;
    } shapes[] = {{300, 512, 1, 40, 1},  {512, 96, 2, 560, 1},  {2048, 40, 1, 20, 1}, {20, 1024, 1, 600, 1},
                  {700, 9, 1, 90, 1},    {9, 700, 1, 1030, 1},  {60, 96, 13, 3, 1},   {60, 100, 16, 1, 16},
                  {130, 160, 7, 200, 7}, {130, 160, 9, 200, 3}, {2049, 2048, 1, 2, 1}};
    struct product p;
    pads = 1;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int layout = 0; layout < 4; layout++) {
            size_t groups = shapes[s].groups;
            make(&p, shapes[s].m, shapes[s].n, shapes[s].parts, shapes[s].k, groups, layout, layout, HOSTILE);
            check(&p, math_count);
            drop(&p);
        }
    pads = 4;
}

/* Empty sums are +0, also where a whole group has no elements. */
static void empty(void **unused) {
    (void)unused;
    struct product p;
    make(&p, 5, 40, 3, 0, 3, 0, 0, PLAIN);
    p.parts[1].k = 0;
    check(&p, math_count);
    drop(&p);
}

/* The test can see: another segment length or the other order of k gives other bits. */
static void negative_control(void **unused) {
    (void)unused;
    struct product p;
    make(&p, 20, 30, 1, 1100, 1, 0, 0, PLAIN);
    float *right = expect(&p, 512), *wrong = expect(&p, 256);
    assert_true(differing(right, wrong, p.c_size) > 300);
    free(right), free(wrong);
    drop(&p);
}

int main(void) {
    state += 0x9E3779B97F4A7C15u * test_seed("matrix products");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_shapes), cmocka_unit_test(several_segments),   cmocka_unit_test(groups_tree),
        cmocka_unit_test(few_rows),      cmocka_unit_test(more_than_one_tile), cmocka_unit_test(ways_of_reading),
        cmocka_unit_test(empty),         cmocka_unit_test(negative_control),
    };
    return cmocka_run_group_tests_name("matmul", tests, open_all, close_all);
}
