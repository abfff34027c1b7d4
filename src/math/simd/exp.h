/* exp, the softmax exponential and tanh on vectors: docs/numerics.md, section 9; ref/ref_functions.c is the same on
 * scalars. */
#ifndef LOCKSTEP_MATH_SIMD_EXP_H
#define LOCKSTEP_MATH_SIMD_EXP_H
#include "math/simd/vec.h"

#define LK__MAGIC      0x1.8p23f /* adding it rounds to an integer, which the sum's last bits hold */
#define LK__MAGIC_BITS 0x4b400000
#define LK__LN2_H      (-0x1.62e43p-1f) /* the negatives, as both fmas want them */
#define LK__LN2_L      0x1.05c61p-29f

/* exp(x) = s 2^n: returns s, and the magic sum that holds n. */
LK_INLINE vf lk__vexp_parts(vf x, vf *sum) {
    vf t = v_fma(x, v_set1(0x1.715476p+0f), v_set1(LK__MAGIC)), n = v_sub(t, v_set1(LK__MAGIC));
    vf r = v_fma(n, v_set1(LK__LN2_H), x);
    r = v_fma(n, v_set1(LK__LN2_L), r);
    vf s = v_set1(0x1.6a4d3ep-10f);
    s = v_fma(s, r, v_set1(0x1.123984p-7f));
    s = v_fma(s, r, v_set1(0x1.5558bp-5f));
    s = v_fma(s, r, v_set1(0x1.555492p-3f));
    s = v_fma(s, r, v_set1(0x1.fffffcp-2f));
    s = v_fma(s, r, v_set1(1.0f));
    *sum = t;
    return v_fma(s, r, v_set1(1.0f));
}

/* 2^n from the magic sum, -126 <= n <= 127; anything for other n. */
LK_INLINE vf lk__vpower(vf sum) {
    return vi_as_float(vi_add(vi_shl(v_as_int(sum), 23), vi_set1(0x3f800000)));
}

/* The whole range. NaN: both comparisons and every operation keep it. */
LK_INLINE vf lk__vexp(vf x) {
    x = v_select(v_lt(v_set1(89.0f), x), v_set1(89.0f), x);
    x = v_select(v_lt(x, v_set1(-104.0f)), v_set1(-104.0f), x);
    vf t, s = lk__vexp_parts(x, &t);
#if defined(LK_ISA_avx512)
    return _mm512_scalef_ps(s, v_sub(t, v_set1(LK__MAGIC)));
#else
    /* Two factors: the first product is exact, the second rounds once, to a denormal too. */
    vi n = vi_sub(v_as_int(t), vi_set1(LK__MAGIC_BITS)), half = vi_shr(n, 1);
    vf p = vi_as_float(vi_shl(vi_add(half, vi_set1(127)), 23));
    vf q = vi_as_float(vi_shl(vi_add(vi_sub(n, half), vi_set1(127)), 23));
    return v_mul(v_mul(s, p), q);
#endif
}

/* The softmax exponential of x <= 0 or NaN, which is all that softmax ever asks for: no overflow and no denormals. */
LK_INLINE vf lk__vsexp(vf x) {
    vf t, s = lk__vexp_parts(x, &t);
    vf y = v_mul(s, lk__vpower(t));
#if defined(LK_ISA_avx512)
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, v_set1(-64.0f), _CMP_NLT_UQ), y);
#else
    return v_select(v_lt(x, v_set1(-64.0f)), v_zero(), y);
#endif
}

LK_INLINE vf lk__vtanh(vf x) {
    vf a = v_abs(x), magic = v_set1(LK__MAGIC), one = v_set1(1.0f);
    a = v_select(v_lt(v_set1(10.0f), a), v_set1(10.0f), a);
    vf t = v_fma(a, v_set1(0x1.715476p+1f), magic), n = v_sub(t, magic);
    vf r0 = v_fma(n, v_set1(LK__LN2_H), v_add(a, a));
    vf r = v_fma(n, v_set1(LK__LN2_L), r0);
    vf rl = v_fma(n, v_set1(LK__LN2_L), v_sub(r0, r));
    vf q = v_set1(0x1.9df74ep-13f); /* one degree more than exp's: expm1 cancels below 1 */
    q = v_fma(q, r, v_set1(0x1.6d4cc0p-10f));
    q = v_fma(q, r, v_set1(0x1.11131p-7f));
    q = v_fma(q, r, v_set1(0x1.5554e8p-5f));
    q = v_fma(q, r, v_set1(0x1.555554p-3f));
    q = v_fma(q, r, v_set1(0.5f));
    vf p = v_fma(v_mul(r, r), q, rl);
    vf s = lk__vpower(t), below = v_sub(s, one), above = v_add(s, one);
    vf e = v_fma(s, r, below), el = v_fma(s, p, v_fma(s, r, v_sub(below, e)));
    vf d0 = v_fma(s, r, above), d1 = v_fma(s, p, v_fma(s, r, v_sub(above, d0)));
    vf h = v_add(e, el), hl = v_sub(el, v_sub(h, e));
    vf d = v_add(d0, d1), dl = v_sub(d1, v_sub(d, d0));
    vf inverse = v_div(one, d), y = v_mul(h, inverse), minus = v_neg(y);
    vf rest = v_fma(minus, dl, v_add(hl, v_fma(minus, d, h)));
    y = v_fma(rest, inverse, y);
    /* From 4 on 1 - 2 / d is as exact; above 8 it must be this, since 2^n + 1 is rounded there. */
    y = v_select(v_lt(v_set1(4.0f), a), v_fma(v_set1(-2.0f), inverse, one), y);
    return vi_as_float(vi_or(v_as_int(y), vi_and(v_as_int(x), vi_set1(INT32_MIN))));
}

#endif
