/* Section 9 of docs/numerics.md: exp and tanh have the same bits in every instruction set and with our own fma; exp, tanh,
 * log, sin, cos are within one ulp. A stride through all 2^32 floats here; `functions_test all` (make test-exhaustive)
 * takes every one. The judge is libm's double function, whose own error of less than an ulp of double is 2^-28 of ours;
 * where that could matter, within 2^-20 ulp of the bound, MPFR decides. */
#include "base/testing.h"
#include "math/exact.h"
#include "math/kernel_table.h"
#include <math.h>

#ifdef LK_MPFR
#include <mpfr.h>
#endif

#define CHUNK 65536u

static uint64_t stride = 2003;
static struct lk__math_kernels tables[8];
static int count;

enum function { EXP, TANH, LOG, SIN, COS, FUNCTIONS };
static const char *const names[] = {"exp", "tanh", "log", "sin", "cos"};

static double judge(enum function f, double x) {
    switch (f) {
    case EXP:
        return exp(x);
    case TANH:
        return tanh(x);
    case LOG:
        return log(x);
    case SIN:
        return sin(x);
    default:
        return cos(x);
    }
}
static float ours(enum function f, float x) {
    return f == LOG ? lk_log(x) : f == SIN ? lk_sin(x) : lk_cos(x);
}

#ifdef LK_MPFR
/* |y - f(x)| in ulps of the true value, to 200 bits. */
static double exact_error(enum function f, float x, float y, int exponent) {
    mpfr_t t;
    mpfr_init2(t, 200);
    mpfr_set_flt(t, x, MPFR_RNDN);
    if (f == EXP) mpfr_exp(t, t, MPFR_RNDN);
    if (f == TANH) mpfr_tanh(t, t, MPFR_RNDN);
    if (f == LOG) mpfr_log(t, t, MPFR_RNDN);
    if (f == SIN) mpfr_sin(t, t, MPFR_RNDN);
    if (f == COS) mpfr_cos(t, t, MPFR_RNDN);
    mpfr_sub_d(t, t, (double)y, MPFR_RNDN);
    mpfr_mul_2si(t, t, -exponent, MPFR_RNDN);
    double e = fabs(mpfr_get_d(t, MPFR_RNDA));
    mpfr_clear(t);
    mpfr_free_cache();
    return e;
}
#else
static double exact_error(enum function f, float x, float y, int exponent) {
    (void)f, (void)x, (void)y, (void)exponent;
    return 2; /* `make test-exhaustive` has MPFR */
}
#endif

/* The error of y = f(x) in ulps: of the float format at the true value, 2^-149 at least. */
static double error_of(enum function f, float x, float y, unsigned long *doubtful) {
    if ((f == SIN || f == COS) && !(fabsf(x) <= 0x1p24f)) return isnan(y) ? 0 : INFINITY; /* the stated range */
    double t = judge(f, (double)x);
    if (isnan(t)) return isnan(y) ? 0 : INFINITY;
    if (isinf(t) || fabs(t) >= 0x1.ffffffp127) return (float)t == y ? 0 : INFINITY;
    if (isnan(y) || isinf(y)) return INFINITY;
    int exponent = -149;
    if (fabs(t) >= 0x1p-126) exponent = (int)(lk__math_bits64(t) >> 52 & 0x7ff) - 1023 - 23;
    double e = fabs((double)y - t) * lk__math_double((uint64_t)(1023 - exponent) << 52);
    if (fabs(e - 1) < 0x1p-20) {
        ++*doubtful;
        e = exact_error(f, x, y, exponent);
    }
    return e;
}

struct sweep {
    enum function f;
    double worst[256];
    float at[256];
    unsigned long doubtful[256], unequal[256];
    float first_unequal[256];
};

static void sweep_tile(void *arg, size_t tile, int thread) {
    struct sweep *s = arg;
    static _Thread_local float x[CHUNK], y[CHUNK], z[CHUNK];
    uint64_t from = (uint64_t)tile * CHUNK;
    size_t n = 0;
    for (; n < CHUNK && (from + n) * stride < (uint64_t)1 << 32; n++)
        x[n] = lk__math_float((uint32_t)((from + n) * stride));
    for (int t = 0; t < count && s->f <= TANH; t++) {
        float *to = t ? z : y;
        (s->f == EXP ? tables[t].exp_n : tables[t].tanh_n)(n, x, to);
        for (size_t i = 0; t && i < n; i++)
            if (lk__math_bits32(y[i]) != lk__math_bits32(z[i]) && !(y[i] != y[i] && z[i] != z[i]) && !s->unequal[thread]++)
                s->first_unequal[thread] = x[i];
    }
    for (size_t i = 0; i < n && s->f > TANH; i++) y[i] = ours(s->f, x[i]);
    for (size_t i = 0; i < n; i++) {
        double e = error_of(s->f, x[i], y[i], &s->doubtful[thread]);
        if (e > s->worst[thread]) s->worst[thread] = e, s->at[thread] = x[i];
    }
}

static void all_inputs(void **state) {
    enum function f = *(enum function *)*state;
    static struct sweep s;
    memset(&s, 0, sizeof s);
    s.f = f;
    struct lk_pool *pool;
    int threads = lk_threads_default();
    assert_int_equal(lk_pool_open(threads, &pool, NULL), 0);
    lk_pool_run(pool, (size_t)((((uint64_t)1 << 32) / stride + CHUNK) / CHUNK), sweep_tile, &s);
    lk_pool_close(pool);
    for (int i = 1; i < threads; i++) {
        if (s.worst[i] > s.worst[0]) s.worst[0] = s.worst[i], s.at[0] = s.at[i];
        if (!s.unequal[0]) s.first_unequal[0] = s.first_unequal[i];
        s.doubtful[0] += s.doubtful[i];
        s.unequal[0] += s.unequal[i];
    }
    print_message("%-4s max %.5f ulp at %a; %lu judged by MPFR; %lu unequal\n", names[f], s.worst[0], (double)s.at[0],
                  s.doubtful[0], s.unequal[0]);
    if (s.unequal[0]) fail_msg("%s: instruction sets differ, first at %a", names[f], (double)s.first_unequal[0]);
    assert_true(s.worst[0] <= 1);
}

/* --- Doubles and special values --------------------------------------------------------------------------------------- */
static uint64_t random_state = 88172645463325252u;
static double uniform(void) {
    random_state ^= random_state << 13, random_state ^= random_state >> 7, random_state ^= random_state << 17;
    return (double)(random_state >> 11) * 0x1p-53;
}
static double relative(double y, long double t) {
    return (double)fabsl((y - t) / t);
}
static void keep(double *worst, double e) {
    if (!(e <= *worst)) *worst = e;
}

static void doubles_are_accurate(void **unused) {
    (void)unused;
    if (sizeof(long double) == sizeof(double)) skip();
    double e = 0, l = 0, c = 0, p = 0, near_one = 0;
    for (int i = 0; i < 200000; i++) {
        double u = uniform(), x = (u - 0.5) * 1400, y = (0.5 + u) * ldexp(1, (int)(uniform() * 200) - 100),
               b = 0.9 + 0.1 * u;
        keep(&e, relative(lk_exp64(x), expl((long double)x)));
        keep(&l, relative(lk_log64(y), logl((long double)y)));
        double close = 1 + (u - 0.5) * 0x1p-10;
        keep(&near_one, relative(lk_log64(close), logl((long double)close)));
        /* within an eighth of a turn of 0 the cosine has no zero, so that a relative error makes sense */
        double turns = (u - 0.5) * 0.25 + (i % 3);
        keep(&c, relative(lk_cos_turns64(turns), cosl(8 * atanl(1) * (long double)(turns - (i % 3)))));
        double t = floor(uniform() * 5000);
        keep(&p, relative(lk_pow64(b, t), powl((long double)b, (long double)t)));
        double base = 500000, exponent = (double)(i % 64) / 64;
        keep(&p, relative(lk_pow64(base, exponent), powl((long double)base, (long double)exponent)));
    }
    print_message("exp64 %.2g  log64 %.2g (near 1 %.2g)  cos_turns64 %.2g  pow64 %.2g relative\n", e, l, near_one, c, p);
    assert_true(e < 2.3e-16 && l < 2.3e-16 && near_one < 2.3e-16 && c < 4e-16 && p < 4e-16);
}

static void special_values(void **unused) {
    (void)unused;
    float inf = INFINITY, tiny = 0x1p-149f;
    assert_true(lk_exp(inf) == inf && lk_exp(-inf) == 0 && !signbit(lk_exp(-inf)) && lk_exp(0) == 1 && isnan(lk_exp(NAN)));
    assert_true(lk_exp(-103.9f) == tiny && lk_exp(-104) == 0 && lk_exp(88.72f) < inf && lk_exp(88.73f) == inf);
    assert_true(lk_softmax_exp(-64) == lk_exp(-64) && lk_softmax_exp(-64.00001f) == 0 && isnan(lk_softmax_exp(NAN)));
    assert_true(lk_softmax_exp(-inf) == 0);
    assert_true(lk_tanh(inf) == 1 && lk_tanh(-inf) == -1 && lk_tanh(tiny) == tiny && isnan(lk_tanh(NAN)));
    assert_true(lk_tanh(-0.0f) == 0 && signbit(lk_tanh(-0.0f)));
    assert_true(lk_log(0) == -inf && lk_log(-0.0f) == -inf && isnan(lk_log(-1)) && lk_log(inf) == inf && lk_log(1) == 0 &&
                isnan(lk_log(NAN)));
    assert_true(lk_sin(0) == 0 && lk_cos(0) == 1 && isnan(lk_sin(inf)) && isnan(lk_cos(NAN)) &&
                isnan(lk_sin(0x1.000002p24f)));
    assert_true(signbit(lk_sin(-0.0f)));
    assert_true(lk_pow64(0.9, 0) == 1 && lk_pow64(0, 3) == 0 && isnan(lk_pow64(-1, 2)) && lk_pow64(2, 10) == 1024 &&
                lk_pow64(10, -400) == 0);
    assert_true(lk_exp64(-800) == 0 && isinf(lk_exp64(800)) && isnan(lk_exp64(NAN)) && lk_exp64(0) == 1);
    assert_true(isinf(lk_log64(0)) && isnan(lk_log64(-1)) && lk_log64(1) == 0 &&
                relative(lk_log64(0x1p-1070), -1070 * 0.693147180559945309417232L) < 1e-15);
    assert_true(lk_cos_turns64(0) == 1 && lk_cos_turns64(0.5) == -1 && lk_cos_turns64(0.25) == 0 &&
                lk_cos_turns64(1e300) == 1);
    assert_true(lk_sqrt64(2) == sqrt(2) && isnan(lk_cos_turns64(INFINITY)));
}

int main(int argc, char **argv) {
    if (argc > 1) stride = strcmp(argv[1], "all") == 0 ? 1 : strtoull(argv[1], NULL, 10);
    if (stride == 0) return 2;
    const char *isas[8];
    int n = lk_math_isas(isas);
    for (int i = n - 1; i >= 0; i--) { /* ref is the last */
        struct lk_math *m;
        if (lk_math_open(NULL, isas[i], &m, NULL)) return 1;
        tables[count++] = m->k;
        lk_math_close(m);
    }
    lk__math_fill_ref_soft(&tables[count++]);
    static enum function f[FUNCTIONS] = {EXP, TANH, LOG, SIN, COS};
    const struct CMUnitTest tests[] = {
        {"exp", all_inputs, NULL, NULL, &f[EXP]}, {"tanh", all_inputs, NULL, NULL, &f[TANH]},
        {"log", all_inputs, NULL, NULL, &f[LOG]}, {"sin", all_inputs, NULL, NULL, &f[SIN]},
        {"cos", all_inputs, NULL, NULL, &f[COS]}, cmocka_unit_test(doubles_are_accurate),
        cmocka_unit_test(special_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
