/* The floor as a whole: dispatch, the fingerprint, the numeric environment, reductions. */
#include "lockstep/hash.h"
#include "lockstep/mem.h"
#include "math/kernel_table.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

static void fingerprint(const char *isa, int threads, char hex[LK_ROOT_HEX]) {
    struct lk_pool *pool = NULL;
    struct lk_math *m;
    struct lk_root root;
    struct lk_err err;
    assert_int_equal(lk_pool_open(threads, &pool, &err), 0);
    assert_int_equal(lk_math_open(pool, isa, &m, &err), 0);
    assert_string_equal(lk_math_isa(m), isa);
    assert_int_equal(lk_math_fingerprint(m, &root, &err), 0);
    lk_root_hex(&root, hex);
    lk_math_close(m);
    lk_pool_close(pool);
}

/* docs/numerics.md, "Test vectors"; changes with every change of a rounding. */
static const char known[] = "b7359e23ebe3283f381918bbac47df44d2267d555d8f4079740d80d62667bfbd";

static void fingerprint_is_the_same_everywhere(void **unused) {
    (void)unused;
    const char *isas[8];
    int n = lk_math_isas(isas);
    for (int i = 0; i < n; i++)
        for (int threads = 1; threads <= (strcmp(isas[i], "ref") ? 5 : 2); threads += 1 + (threads > 2)) {
            char hex[LK_ROOT_HEX];
            fingerprint(isas[i], threads, hex);
            assert_string_equal(hex, known);
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
        lk_alloc_fail_at(nth);
        int rc = lk_math_open(NULL, NULL, &m, &err);
        lk_alloc_fail_at(0);
        if (rc == 0)
            lk_math_close(m);
        else
            assert_int_equal(rc, LK_ENOMEM);
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
        char hex[LK_ROOT_HEX];
        _mm_setcsr(hostile);
        fingerprint(isas[i], 3, hex);
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(isa_is_chosen_by_name),
        cmocka_unit_test(fingerprint_is_the_same_everywhere),
        cmocka_unit_test(host_environment_is_kept_and_not_used),
        cmocka_unit_test(failing_memory_is_reported),
        cmocka_unit_test(tree_sum_follows_the_grains),
        cmocka_unit_test(initial_values_are_fixed),
        cmocka_unit_test(peaks_are_measured),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
