/* The floor as a whole: dispatch, the fingerprint, the numeric environment, reductions. */
#include "base/testing.h"
#include "lockstep/base/hash.h"
#include "lockstep/base/mem.h"
#include "lockstep/math/fingerprint.h"
#include "math/kernel_table.h"

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

static void fingerprint(const char *isa, int threads, char hex[LK_ROOT_HEX], char blocks[LK_ROOT_HEX]) {
    struct lk_pool *pool = NULL;
    struct lk_math *m;
    struct lk_root root;
    struct lk_err err;
    assert_int_equal(lk_pool_open(threads, &pool, &err), 0);
    assert_int_equal(lk_math_open(pool, isa, &m, &err), 0);
    assert_string_equal(lk_math_isa(m), isa);
    assert_int_equal(lk_math_fingerprint(m, &root, &err), 0);
    lk_root_hex(&root, hex);
    assert_int_equal(lk_math_fingerprint_blocks(m, &root, &err), 0);
    lk_root_hex(&root, blocks);
    lk_math_close(m);
    lk_pool_close(pool);
}

/* docs/numerics.md, "Test vectors"; changes with every change of a rounding. */
static const char known[] = "b7359e23ebe3283f381918bbac47df44d2267d555d8f4079740d80d62667bfbd";
static const char known_blocks[] = "e8f147abe93b3d8b20edebc031022bd64d76e7823ae3a67341abf94112d44a63"; /* section 14 */

static void fingerprint_is_the_same_everywhere(void **unused) {
    (void)unused;
    const char *isas[8];
    int n = lk_math_isas(isas);
    for (int i = 0; i < n; i++)
        for (int threads = 1; threads <= (strcmp(isas[i], "ref") ? 5 : 2); threads += 1 + (threads > 2)) {
            char hex[LK_ROOT_HEX], blocks[LK_ROOT_HEX];
            fingerprint(isas[i], threads, hex, blocks);
            assert_string_equal(hex, known);
            assert_string_equal(blocks, known_blocks);
        }
}

static void isa_is_chosen_by_name(void **unused) {
    (void)unused;
    struct lk_math *m;
    struct lk_err err;
    const char *isas[8];
    int n = lk_math_isas(isas);
    assert_true(n >= 1 && strcmp(isas[n - 1], "ref") == 0);
    assert_int_equal(lk_math_open(NULL, "sse9", &m, &err), LK_EUNSUPPORTED);
    assert_null(m);
    assert_non_null(strstr(err.message, "sse9"));
    assert_non_null(strstr(err.message, "ref"));
    const char *before = getenv("LOCKSTEP_ISA");
    char *kept = before ? strdup(before) : NULL;
    setenv("LOCKSTEP_ISA", "ref", 1);
    assert_int_equal(lk_math_open(NULL, NULL, &m, &err), 0);
    assert_string_equal(lk_math_isa(m), "ref");
    lk_math_close(m);
    setenv("LOCKSTEP_ISA", "", 1);
    assert_int_equal(lk_math_open(NULL, NULL, &m, &err), 0);
    assert_string_equal(lk_math_isa(m), isas[0]);
    lk_math_close(m);
    setenv("LOCKSTEP_ISA", "mmx", 1);
    assert_int_equal(lk_math_open(NULL, NULL, &m, &err), LK_EUNSUPPORTED);
    if (kept)
        setenv("LOCKSTEP_ISA", kept, 1);
    else
        unsetenv("LOCKSTEP_ISA");
    free(kept);
}

static void failing_memory_is_reported(void **unused) {
    (void)unused;
    struct lk_math *m;
    struct lk_err err;
    for (uint64_t nth = 1; nth <= 2; nth++) {
        lk__alloc_fail_at(nth);
        int code = lk_math_open(NULL, NULL, &m, &err);
        lk__alloc_fail_at(0);
        if (code == 0)
            lk_math_close(m);
        else
            assert_int_equal(code, LK_ENOMEM);
    }
    assert_int_equal(lk_math_open(NULL, NULL, &m, &err), 0);
    size_t before = lk_math_scratch_bytes(m);
    assert_int_equal(lk_math_reserve(m, SIZE_MAX - 10, &err), LK_ENOMEM);
    assert_int_equal(lk_math_scratch_bytes(m), before); /* what was there is still there */
    assert_int_equal(lk_math_reserve(m, before + 100000, &err), 0);
    assert_true(lk_math_scratch_bytes(m) > before);
    lk_math_close(m);
}

/* A program that flushes denormals to zero gets the contract's bits, and its own setting back. */
static void host_environment_is_kept_and_not_used(void **unused) {
    (void)unused;
#if defined(__x86_64__)
    unsigned hostile = 0x1f80u | 0x8040u | _MM_ROUND_UP, old = _mm_getcsr();
    const char *isas[8];
    int n = lk_math_isas(isas);
    for (int i = 0; i < n; i++) {
        char hex[LK_ROOT_HEX], blocks[LK_ROOT_HEX];
        _mm_setcsr(hostile);
        fingerprint(isas[i], 3, hex, blocks);
        unsigned after = _mm_getcsr();
        _mm_setcsr(old);
        assert_string_equal(hex, known);
        assert_int_equal(after & ~0x3fu, hostile);
    }
#else
    skip();
#endif
}

static void tree_sum_follows_the_grains(void **unused) {
    (void)unused;
    /* 1e16 + 1 is 1e16: the order shows. */
    double five[] = {1e16, 1, 1, 1, -1e16};
    assert_true(lk_tree_sum(5, five) == ((1e16 + 1) + (1 + 1.0)) + -1e16);
    double three[] = {1, 1e16, 1}, one[] = {7};
    assert_true(lk_tree_sum(3, three) == (1 + 1e16) + 1);
    assert_true(lk_tree_sum(1, one) == 7);
}

/* Arrays: 1 to 9 sources, sizes around blocks and pieces, the result beside or in one of them, against the sum of doubles'
 * rule. */
static void tree_add_follows_the_grains(void **unused) {
    (void)unused;
    enum { SOURCES = 9, MOST = 2 * LK_BLOCK + 515 };
    static float x[SOURCES][MOST], out[MOST], want[MOST];
    static const size_t sizes[] = {1, 511, 512, 513, LK_BLOCK, LK_BLOCK + 1, MOST};
    struct lk_pool *pool;
    struct lk_math *m;
    assert_int_equal(lk_pool_open(3, &pool, NULL), 0);
    assert_int_equal(lk_math_open(pool, NULL, &m, NULL), 0);
    for (uint32_t sources = 1; sources <= SOURCES; sources++) {
        struct lk_tree_step steps[SOURCES];
        const float *pointers[SOURCES];
        uint32_t made = 0, depth = 0, size[SOURCES];
        for (uint32_t i = 0; i < sources; i++) { /* as a binary counter carries, then from the right */
            pointers[i] = x[i];
            for (size[depth++] = 1; depth > 1 && size[depth - 1] == size[depth - 2]; depth--, made++) {
                steps[made] = (struct lk_tree_step){depth - 2, depth - 1};
                size[depth - 2] *= 2;
            }
        }
        for (; depth > 1; depth--) steps[made++] = (struct lk_tree_step){depth - 2, depth - 1};
        for (size_t n = 0; n < sizeof sizes / sizeof *sizes; n++)
            for (int inside = 0; inside < 2; inside++) {
                double squares[3] = {-1, -1, -1}, expected[3];
                for (uint32_t i = 0; i < sources; i++)
                    for (size_t k = 0; k < MOST; k++)
                        x[i][k] = (float)((double)((i * 7919 + k * 104729) % 65521) / 65521 - 0.5);
                for (size_t k = 0; k < sizes[n]; k++) {
                    float v[SOURCES];
                    for (uint32_t i = 0; i < sources; i++) v[i] = x[i][k];
                    for (uint32_t left = sources; left > 1; left = left / 2 + left % 2)
                        for (uint32_t i = 0; i < left / 2 + left % 2; i++)
                            v[i] = 2 * i + 1 < left ? v[2 * i] + v[2 * i + 1] : v[2 * i];
                    want[k] = v[0];
                }
                float *to = inside ? x[sources / 2] : out;
                lk_tree_add(m, sizes[n], pointers, sources, steps, to, squares);
                assert_memory_equal(to, want, sizes[n] * sizeof *want);
                lk_block_squares(m, sizes[n], want, expected);
                assert_memory_equal(squares, expected, (sizes[n] + LK_BLOCK - 1) / LK_BLOCK * sizeof *squares);
            }
    }
    lk_math_close(m);
    lk_pool_close(pool);
}

static void initial_values_are_fixed(void **unused) {
    (void)unused;
    struct lk_math *m;
    assert_int_equal(lk_math_open(NULL, "ref", &m, NULL), 0);
    static float x[100000];
    lk_init_normal(m, 42, 3, 0.02, 100000, x);
    double sum = 0, squares = 0;
    for (int i = 0; i < 100000; i++) sum += (double)x[i], squares += (double)x[i] * (double)x[i];
    assert_true(sum / 1e5 < 2e-4 && sum / 1e5 > -2e-4);
    assert_true(squares / 1e5 > 3.96e-4 && squares / 1e5 < 4.04e-4);
    lk_math_close(m);
}

static void peaks_are_measured(void **unused) {
    (void)unused;
    struct lk_math *m;
    struct lk_peaks p;
    assert_int_equal(lk_math_open(NULL, NULL, &m, NULL), 0);
    lk_math_measure(m, 0.05, &p);
    assert_true(p.fma_flops_one > 1e7 && p.fma_flops_all > 1e7 && p.read_bytes_one > 1e7 && p.read_bytes_all > 1e7);
    print_message("fma %.1f and %.1f Gflop/s, read %.1f and %.1f GB/s\n", p.fma_flops_one / 1e9, p.fma_flops_all / 1e9,
                  p.read_bytes_one / 1e9, p.read_bytes_all / 1e9);
    lk_math_close(m);
}

/* What doctor says of attention follows the caches; blocked and ref look at none. */
static void sizes_follow_the_caches(void **unused) {
    (void)unused;
    static const struct {
        const char *caches, *says;
        unsigned least, most;                                               /* queries */
    } cases[] = {{"32K/8,512K/8", ", as L2 has less than 1 MiB", 240, 256}, /* whole panels of any instruction set */
                 {"48K/12,2048K/16", ", as L2 has at least 1 MiB", 512, 512}};
    const char *isas[8];
    int n = lk_math_isas(isas);
    for (int i = 0; i < n; i++)
        for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
            struct lk_math *m;
            char text[128];
            setenv("LOCKSTEP_CACHES", cases[c].caches, 1);
            assert_int_equal(lk_math_open(NULL, isas[i], &m, NULL), 0);
            lk_math_attention_text(m, text, sizeof text);
            if (i >= n - 2)
                assert_string_equal(text, "pair by pair");
            else {
                const char *backward = strstr(text, "; backward ");
                unsigned queries = backward ? (unsigned)strtoul(backward + strlen("; backward "), NULL, 10) : 0;
                if (!strstr(text, cases[c].says) || queries < cases[c].least || queries > cases[c].most)
                    fail_msg("%s, caches %s: %s", isas[i], cases[c].caches, text);
            }
            lk_math_close(m);
        }
    unsetenv("LOCKSTEP_CACHES");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(isa_is_chosen_by_name),
        cmocka_unit_test(sizes_follow_the_caches),
        cmocka_unit_test(fingerprint_is_the_same_everywhere),
        cmocka_unit_test(host_environment_is_kept_and_not_used),
        cmocka_unit_test(failing_memory_is_reported),
        cmocka_unit_test(tree_sum_follows_the_grains),
        cmocka_unit_test(tree_add_follows_the_grains),
        cmocka_unit_test(initial_values_are_fixed),
        cmocka_unit_test(peaks_are_measured),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
