/* Normal random numbers, a vector of elements at once: lk_random (docs/numerics.md, section 10) and Box and Muller's
 * transformation with the double functions of section 9 on the range that they have here; functions64.c and ref are the
 * same on scalars. */
#include "lockstep/base/random.h"
#include "math/kernel_table.h"
#include "math/simd/vec_double.h"

void LK_ISA_NAME(lk__math_fill_normal)(struct lk__math_kernels *);

/* c[0] = element, its 64 bits; the words come in the low halves of c. */
LK_INLINE void philox(vu c[4], uint32_t k0, uint32_t k1) {
    const vu low = vu_set1(UINT32_MAX);
    for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
        vu a = vu_mul(vu_set1(0xD2511F53u), c[0]), b = vu_mul(vu_set1(0xCD9E8D57u), c[2]);
        c[0] = vu_xor3(vu_shr(b, 32), c[1], vu_set1(k0));
        c[2] = vu_xor3(vu_shr(a, 32), c[3], vu_set1(k1));
        c[1] = b;
        c[3] = a;
    }
    for (int i = 0; i < 4; i++) c[i] = vu_and(c[i], low);
}

/* An integer below 2^52 as a double. */
LK_INLINE vd number(vu x) {
    return vd_sub(vu_double(vu_or(x, vu_set1(0x4330000000000000ull))), vd_set1(0x1p52));
}
/* (high 2^21 + the upper 21 bits of low + more) 2^-53: every step is exact. */
LK_INLINE vd fraction(vu high, vu low, double more) {
    vd sum = vd_add(vd_mul(number(high), vd_set1(0x1p21)), vd_add(number(vu_shr(low, 11)), vd_set1(more)));
    return vd_mul(sum, vd_set1(0x1p-53));
}

LK_INLINE vd series(const double *c, int count, vd z) {
    vd s = vd_set1(c[0]);
    for (int i = 1; i < count; i++) s = vd_add(vd_mul(s, z), vd_set1(c[i]));
    return s;
}
#define SERIES(c, z) series(c, sizeof c / sizeof *c, z)

/* log64 of 2^-53 <= x <= 1. */
LK_INLINE vd log64(vd x) {
    static const double c[] = {1.0 / 23.0, 1.0 / 21.0, 1.0 / 19.0, 1.0 / 17.0, 1.0 / 15.0, 1.0 / 13.0,
                               1.0 / 11.0, 1.0 / 9.0,  1.0 / 7.0,  1.0 / 5.0,  1.0 / 3.0};
    const vd one = vd_set1(1), root = vd_set1(0x1.6a09e667f3bcdp+0);
    vd m = vu_double(vu_or(vu_and(vd_bits(x), vu_set1(0xfffffffffffffull)), vu_set1(0x3ff0000000000000ull)));
    vd k = vd_sub(number(vu_shr(vd_bits(x), 52)), vd_set1(1023));
    k = vd_select(m, root, k, vd_add(k, one));
    m = vd_select(m, root, m, vd_mul(m, vd_set1(0.5)));
    vd f = vd_sub(m, one), two = vd_set1(2);
    vd gh = vd_add(two, f), d = vd_sub(gh, two), gl = vd_add(vd_sub(two, vd_sub(gh, d)), vd_sub(f, d));
    vd sh = vd_div(f, gh), ph = vd_mul(sh, gh), pl = vd_fma(sh, gh, vd_sub(vd_set1(0), ph));
    vd sl = vd_div(vd_sub(vd_sub(vd_sub(f, ph), pl), vd_mul(sh, gl)), gh);
    vd z = vd_mul(sh, sh), sh2 = vd_mul(two, sh);
    vd tail = vd_add(vd_mul(two, sl), vd_mul(sh2, vd_mul(z, SERIES(c, z))));
    vd kh = vd_mul(k, vd_set1(0x1.62e42fefa2p-1)), ah = vd_add(kh, sh2);
    d = vd_sub(ah, kh);
    vd al = vd_add(vd_sub(kh, vd_sub(ah, d)), vd_sub(sh2, d));
    return vd_add(ah, vd_add(al, vd_add(vd_mul(k, vd_set1(0x1.9ef35793c7673p-41)), tail)));
}

/* cos_turns64 of 0 <= f < 1: both series, and of each element the one that it is. */
LK_INLINE vd cos_turns64(vd f) {
    static const double s[] = {1.0 / 355687428096000.0, -1.0 / 1307674368000.0, 1.0 / 6227020800.0, -1.0 / 39916800.0,
                               1.0 / 362880.0,          -1.0 / 5040.0,          1.0 / 120.0,        -1.0 / 6.0};
    static const double c[] = {1.0 / 20922789888000.0, -1.0 / 87178291200.0, 1.0 / 479001600.0, -1.0 / 3628800.0,
                               1.0 / 40320.0,          -1.0 / 720.0,         1.0 / 24.0};
    const vd zero = vd_set1(0), one = vd_set1(1), half = vd_set1(0.5), eighth = vd_set1(0.125), three = vd_set1(0.375);
    f = vd_select(half, f, vd_sub(one, f), f);
    vd middle = vd_sub(vd_set1(0.25), f), last = vd_sub(half, f);
    vd r = vd_mul(vd_set1(0x1.921fb54442d18p+2), vd_select(eighth, f, vd_select(f, three, middle, last), f));
    vd z = vd_mul(r, r), sine = vd_add(r, vd_mul(r, vd_mul(z, SERIES(s, z))));
    vd cosine = vd_sub(one, vd_sub(vd_mul(half, z), vd_mul(vd_mul(z, z), SERIES(c, z))));
    vd beyond = vd_select(f, three, sine, vd_sub(zero, cosine));
    return vd_select(eighth, f, beyond, cosine);
}

static void init_normal(uint64_t seed, uint32_t tensor, double deviation, size_t from, size_t n, float *x) {
    static const uint64_t index[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    const uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32) ^ (uint32_t)LK_PURPOSE_INIT << 24;
    for (size_t i = 0; i < n; i += DL) {
        vu c[4] = {vu_add(vu_load(index), vu_set1(from + i)), vu_set1(tensor), vu_set1(0), vu_set1(0)};
        philox(c, k0, k1);
        vd radius = vd_sqrt(vd_mul(vd_set1(-2), log64(fraction(c[0], c[1], 1))));
        vd z = vd_mul(vd_mul(radius, cos_turns64(fraction(c[2], c[3], 0))), vd_set1(deviation));
        float last[DL];
        if (n - i >= DL)
            vd_store_floats(x + i, z);
        else {
            vd_store_floats(last, z);
            memcpy(x + i, last, (n - i) * sizeof *x);
        }
    }
}

void LK_ISA_NAME(lk__math_fill_normal)(struct lk__math_kernels *k) {
    k->init_normal = init_normal;
}
