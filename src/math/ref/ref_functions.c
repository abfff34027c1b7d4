/* Section 9 of docs/numerics.md: exp, the softmax exponential and tanh; section 4: maxima and the end of a row sum. */
#include "math/ref/ref.h"

#if LK_REAL_IS_DOUBLE
double REF(exp)(double x) {
    return lk_exp64(x);
}
double REF(log)(double x) {
    return lk_log64(x);
}
double REF(tanh)(double x) {
    double a = x < 0 ? -x : x, y;
    if (a < 0.25) { /* expm1(2a) by its series: 1 - 2 / (exp + 1) would cancel */
        double t = 2 * a, term = t, e = 0;
        for (int k = 2; k < 24; k++) {
            e += term;
            term = term * t / k;
        }
        y = e / (e + 2);
    } else if (a < 30) {
        y = 1 - 2 / (lk_exp64(2 * a) + 1);
    } else {
        y = a == a ? 1 : a;
    }
    return x < 0 ? -y : y;
}

#else
/* 2^n for -126 <= n <= 127 */
static float power(int n) {
    return lk__math_float((uint32_t)(n + 127) << 23);
}

float REF(exp)(float x) {
    if (x != x) return x;
    if (x > 89.0f) x = 89.0f;      /* overflows to infinity below */
    if (x < -104.0f) x = -104.0f;  /* rounds to +0 below */
    const float magic = 0x1.8p23f; /* the sum's last bits are the nearest integer */
    float n = REF(fma)(x, 0x1.715476p+0f, magic) - magic;
    float r = REF(fma)(n, -0x1.62e43p-1f, x);
    r = REF(fma)(n, 0x1.05c61p-29f, r);
    float s = 0x1.6a4d3ep-10f;
    s = REF(fma)(s, r, 0x1.123984p-7f);
    s = REF(fma)(s, r, 0x1.5558bp-5f);
    s = REF(fma)(s, r, 0x1.555492p-3f);
    s = REF(fma)(s, r, 0x1.fffffcp-2f);
    s = REF(fma)(s, r, 1.0f);
    s = REF(fma)(s, r, 1.0f);
    /* s · 2^n rounded once: the first product is exact. */
    int i = (int)n, half = i / 2;
    return s * power(half) * power(i - half);
}

float REF(tanh)(float x) {
    float a = lk__math_float(lk__math_bits32(x) & 0x7fffffffu);
    if (a > 10.0f) a = 10.0f;
    if (a != a) return x;
    /* expm1(2a) = 2^n (1 + r + p) - 1 with 2a = n ln2 + r, r and p unrounded sums of a large and a small part. */
    const float magic = 0x1.8p23f;
    float n = REF(fma)(a, 0x1.715476p+1f, magic) - magic;
    float r0 = REF(fma)(n, -0x1.62e43p-1f, a + a);
    float r = REF(fma)(n, 0x1.05c61p-29f, r0);
    float rl = REF(fma)(n, 0x1.05c61p-29f, r0 - r);
    float q = 0x1.9df74ep-13f; /* one degree more than exp's: expm1 cancels below 1 */
    q = REF(fma)(q, r, 0x1.6d4cc0p-10f);
    q = REF(fma)(q, r, 0x1.11131p-7f);
    q = REF(fma)(q, r, 0x1.5554e8p-5f);
    q = REF(fma)(q, r, 0x1.555554p-3f);
    q = REF(fma)(q, r, 0.5f);
    float p = REF(fma)(r * r, q, rl);
    float s = power((int)n), below = s - 1.0f, above = s + 1.0f;
    /* numerator h + hl = expm1(2a), denominator d + dl = expm1(2a) + 2 */
    float e = REF(fma)(s, r, below);
    float el = REF(fma)(s, p, REF(fma)(s, r, below - e));
    float d0 = REF(fma)(s, r, above);
    float d1 = REF(fma)(s, p, REF(fma)(s, r, above - d0));
    float h = e + el, hl = el - (h - e);
    float d = d0 + d1, dl = d1 - (d - d0);
    float inverse = 1.0f / d, t = h * inverse;
    float rest = REF(fma)(-t, dl, hl + REF(fma)(-t, d, h));
    float y = REF(fma)(rest, inverse, t);
    /* From 4 on 1 - 2 / d is as exact; above 8 it must be this, since 2^n + 1 is rounded there. */
    if (a > 4.0f) y = REF(fma)(-2.0f, inverse, 1.0f);
    return lk__math_float(lk__math_bits32(y) | (lk__math_bits32(x) & 0x80000000u));
}

float REF(log)(float x) {
    return lk_log(x);
}
#endif

real REF(softmax_exp)(real x) {
    return x < -64 ? 0 : REF(exp)(x);
}

real REF(max)(real a, real b) {
    if (a != a) return a;
    if (b != b) return b;
    if (a == b) return a == 0 ? a + b : a; /* +0 + -0 = +0, the greater zero */
    return a > b ? a : b;
}

real REF(lanes_sum)(real lanes[LK__LANES]) {
    for (int h = LK__LANES / 2; h > 0; h /= 2)
        for (int j = 0; j < h; j++) lanes[j] = lanes[j] + lanes[j + h];
    return lanes[0] + 0;
}
