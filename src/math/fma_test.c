/* Our own fma against the machine's, on cases made to be hard: ties, cancellation, results among the denormals, double
 * rounding. */
#include "base/testing.h"
#include "math/exact.h"

#if defined(__x86_64__)
__attribute__((target("fma"))) static float machine_fma(float a, float b, float c) {
    return __builtin_fmaf(a, b, c);
}
#elif defined(__aarch64__)
static float machine_fma(float a, float b, float c) {
    return __builtin_fmaf(a, b, c);
}
#else
static float machine_fma(float a, float b, float c) {
    return lk__math_soft_fma(a, b, c);
}
#endif

static uint64_t state = 0x853c49e6748fea9bu;
static uint32_t next(void) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (uint32_t)(state >> 13);
}
/* A float with `bits` significant bits and an exponent in [low, high]. */
static float number(int bits, int low, int high) {
    uint32_t exponent = (uint32_t)(low + (int)(next() % (uint32_t)(high - low + 1)) + 127);
    return lk__math_float((next() & 1) << 31 | exponent << 23 | (next() & (0x7fffffu << (24 - bits) & 0x7fffffu)));
}

static void check(float a, float b, float c) {
    float soft = lk__math_soft_fma(a, b, c), machine = machine_fma(a, b, c);
    if (soft != soft && machine != machine) return;
    if (lk__math_bits32(soft) != lk__math_bits32(machine))
        fail_msg("fma(%a, %a, %a): ours %a, the machine's %a", (double)a, (double)b, (double)c, (double)soft,
                 (double)machine);
}

static void our_fma_is_exact(void **unused) {
    (void)unused;
    if (!lk__math_cpu_has_fma()) skip();
    for (int i = 0; i < 1500000; i++) {
        check(lk__math_float(next()), lk__math_float(next()), lk__math_float(next()));
        /* products that nearly cancel */
        float a = number(24, -60, 60), b = number(24, -60, 60), p = -(a * b);
        check(a, b, p);
        check(a, b, lk__math_float(lk__math_bits32(p) + next() % 5 - 2));
        /* short factors: the exact sum lies on a tie, or a hair beside it */
        a = number(12, -20, 20), b = number(13, -20, 20);
        check(a, b, number(24, -30, 40));
        check(a, b, number(3, -60, 60));
        /* c half an ulp or just a hair: double rounding would err */
        check(number(24, 0, 1), number(24, 0, 1), number(2, -50, -20));
        check(number(2, -60, -20), number(2, -10, 10), number(24, 0, 1));
        /* denormal results and operands */
        check(number(24, -80, -60), number(24, -75, -60), number(24, -127, -120));
        check(number(24, -126, -100), number(24, -50, 0), lk__math_float(next() & 0x807fffffu));
        check(lk__math_float(next() & 0x807fffffu), number(24, -3, 20), lk__math_float(next() & 0x80ffffffu));
        /* near overflow */
        check(number(24, 60, 64), number(24, 60, 64), number(24, 100, 127));
    }
}

static void special_values_of_fma(void **unused) {
    (void)unused;
    if (!lk__math_cpu_has_fma()) skip();
    static const uint32_t bits[] = {0,           0x80000000u, 1,          0x80000001u, 0x7fffff,    0x800000,
                                    0x3f800000,  0xbf800000u, 0x3f800001, 0x7f7fffff,  0xff7fffffu, 0x7f800000,
                                    0xff800000u, 0x7fc00000,  0x33800000, 0x4b800000};
    size_t n = sizeof bits / sizeof *bits;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++)
            for (size_t k = 0; k < n; k++) check(lk__math_float(bits[i]), lk__math_float(bits[j]), lk__math_float(bits[k]));
}

int main(void) {
    state += 0x9E3779B97F4A7C15u * test_seed("fma");
    const struct CMUnitTest tests[] = {cmocka_unit_test(our_fma_is_exact), cmocka_unit_test(special_values_of_fma)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
