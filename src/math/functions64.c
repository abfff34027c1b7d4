/* The double functions of docs/numerics.md, section 9, and the float ones that go through double: log, sin, cos.
 *
 * They use add, subtract, multiply, divide and square root only, no fma: a machine without one computes the same bits at
 * full speed. Compiled once, for every instruction set. */
#include "lockstep/math/scalar.h"
#include "math/exact.h"

/* An unrounded sum h + l, |l| <= ulp(h) / 2. */
struct pair {
    double h, l;
};

static struct pair two_sum(double a, double b) {
    double s = a + b, d = s - a;
    return (struct pair){s, (a - (s - d)) + (b - d)};
}

/* Veltkamp's halves: x = h + l, 26 bits each. */
static struct pair halves(double x) {
    double t = 0x1.0000002p27 * x, h = t - (t - x);
    return (struct pair){h, x - h};
}

/* Dekker's product: h + l = a·b exactly, for numbers far from overflow and underflow. */
static struct pair two_product(double a, double b) {
    struct pair x = halves(a), y = halves(b);
    double p = a * b;
    return (struct pair){p, ((x.h * y.h - p) + x.h * y.l + x.l * y.h) + x.l * y.l};
}

static double power(int n) {
    return lk__math_double((uint64_t)(n + 1023) << 52);
}

#define LOG2E 0x1.71547652b82fep+0
#define LN2_H 0x1.62e42fefa2p-1 /* 41 bits: its product with an exponent is exact */
#define LN2_L 0x1.9ef35793c7673p-41

/* exp(h + l), |l| tiny; the sum of the series to r^14 / 14!, the smallest terms first */
static double exp_pair(double h, double l) {
    static const double c[] = {1.0 / 87178291200.0,
                               1.0 / 6227020800.0,
                               1.0 / 479001600.0,
                               1.0 / 39916800.0,
                               1.0 / 3628800.0,
                               1.0 / 362880.0,
                               1.0 / 40320.0,
                               1.0 / 5040.0,
                               1.0 / 720.0,
                               1.0 / 120.0,
                               1.0 / 24.0,
                               1.0 / 6.0,
                               0.5};
    if (h != h) return h;
    if (h > 710) h = 710, l = 0;
    if (h < -746) h = -746, l = 0;
    double n = (h * LOG2E + 0x1.8p52) - 0x1.8p52;
    double a = h - n * LN2_H, r = a - (n * LN2_L - l);
    double rl = (a - r) - (n * LN2_L - l), s = c[0];
    for (unsigned i = 1; i < sizeof c / sizeof *c; i++) s = s * r + c[i];
    s = 1 + (r + (r * r * s + rl));
    int i = (int)n, half = i / 2;
    return s * power(half) * power(i - half);
}

double lk_exp64(double x) {
    return exp_pair(x, 0);
}

/* log x of a positive finite x as an unrounded sum, to about 2^-60 of it. */
static struct pair log_pair(double x) {
    int k = 0;
    if (x < 0x1p-1022) x *= 0x1p54, k = -54;
    uint64_t u = lk__math_bits64(x);
    k += (int)(u >> 52) - 1023;
    u = (u & 0xfffffffffffffull) | 0x3ffull << 52;
    if (u >= 0x3ff6a09e667f3bcdull) u -= 1ull << 52, k++; /* sqrt 2: m in [sqrt 1/2, sqrt 2) */
    double f = lk__math_double(u) - 1, n = k;
    /* log m = 2 atanh s = 2s + 2s z (1/3 + z/5 + z^2/7 ...), s = f / (2 + f) = sh + sl, z = s^2 */
    struct pair g = two_sum(2, f);
    double sh = f / g.h;
    struct pair p = two_product(sh, g.h);
    double sl = (((f - p.h) - p.l) - sh * g.l) / g.h;
    static const double c[] = {1.0 / 23.0, 1.0 / 21.0, 1.0 / 19.0, 1.0 / 17.0, 1.0 / 15.0, 1.0 / 13.0,
                               1.0 / 11.0, 1.0 / 9.0,  1.0 / 7.0,  1.0 / 5.0,  1.0 / 3.0};
    double z = sh * sh, t = c[0];
    for (unsigned i = 1; i < sizeof c / sizeof *c; i++) t = t * z + c[i];
    double tail = 2 * sl + (2 * sh) * (z * t);
    struct pair a = two_sum(n * LN2_H, 2 * sh);
    double l = a.l + (n * LN2_L + tail);
    double h = a.h + l;
    return (struct pair){h, l - (h - a.h)};
}

double lk_log64(double x) {
    if (x == 0) return -__builtin_inf();
    if (!(x > 0)) return __builtin_nan("");
    if (x == __builtin_inf()) return x;
    return log_pair(x).h;
}

double lk_pow64(double base, double exponent) {
    if (exponent == 0) return 1;
    if (base == 0 && exponent > 0) return 0;
    if (!(base > 0) || base - base != 0 || exponent - exponent != 0) return __builtin_nan("");
    struct pair y = log_pair(base);
    double h = exponent * y.h;
    if (!(h < 800 && h > -800)) return exp_pair(h, 0);
    struct pair p = two_product(exponent, y.h);
    return exp_pair(p.h, p.l + exponent * y.l);
}

double lk_sqrt64(double x) {
    return __builtin_sqrt(x);
}

/* The series of sin and cos on |r| <= pi/4 (and a little more). */
static double sin_series(double r) {
    static const double c[] = {1.0 / 355687428096000.0, -1.0 / 1307674368000.0, 1.0 / 6227020800.0, -1.0 / 39916800.0,
                               1.0 / 362880.0,          -1.0 / 5040.0,          1.0 / 120.0,        -1.0 / 6.0};
    double z = r * r, s = c[0];
    for (unsigned i = 1; i < sizeof c / sizeof *c; i++) s = s * z + c[i];
    return r + r * (z * s);
}
static double cos_series(double r) {
    static const double c[] = {1.0 / 20922789888000.0, -1.0 / 87178291200.0, 1.0 / 479001600.0, -1.0 / 3628800.0,
                               1.0 / 40320.0,          -1.0 / 720.0,         1.0 / 24.0};
    double z = r * r, s = c[0];
    for (unsigned i = 1; i < sizeof c / sizeof *c; i++) s = s * z + c[i];
    return 1 - (0.5 * z - z * z * s);
}

double lk_cos_turns64(double turns) {
    double a = turns < 0 ? -turns : turns;
    if (!(a < 0x1p52)) return a - a == 0 ? 1 : __builtin_nan(""); /* such numbers are whole turns */
    double f = a - (double)(int64_t)a;
    if (f > 0.5) f = 1 - f;
    const double two_pi = 0x1.921fb54442d18p+2;
    if (f <= 0.125) return cos_series(two_pi * f);
    if (f < 0.375) return sin_series(two_pi * (0.25 - f));
    return -cos_series(two_pi * (0.5 - f));
}

/* sin or cos of a double |x| <= 2^24 that is a float: n·PI2_1 and n·PI2_2 are exact. */
static double sin_or_cos(double x, int quarter) {
    if (!(x >= -0x1p24 && x <= 0x1p24)) return __builtin_nan("");
    double n = (x * 0x1.45f306dc9c883p-1 + 0x1.8p52) - 0x1.8p52;
    double r = ((x - n * 0x1.921fb54p+0) - n * 0x1.10b461p-30) - n * 0x1.a62633145c06ep-58;
    int q = ((int)n + quarter) & 3;
    double y = q & 1 ? cos_series(r) : sin_series(r);
    return q & 2 ? -y : y;
}

float lk_log(float x) {
    return (float)lk_log64((double)x);
}
float lk_sin(float x) {
    return x == 0 ? x : (float)sin_or_cos((double)x, 0);
}
float lk_cos(float x) {
    return (float)sin_or_cos((double)x, 1);
}
