/* exp, the softmax exponential and tanh on vectors: docs/numerics.md, section 9; ref/ref_functions.c is the same on
 * scalars. */
#ifndef LOCKSTEP_MATH_SIMD_EXP_H
#define LOCKSTEP_MATH_SIMD_EXP_H
#include "math/simd/each.h"

#define LK__MAGIC      0x1.8p23f /* adding it rounds to an integer, which the sum's last bits hold */
#define LK__MAGIC_BITS 0x4b400000
#define LK__LN2_H      (-0x1.62e43p-1f) /* the negatives, as both fmas want them */
#define LK__LN2_L      0x1.05c61p-29f

/* Functions of `count` vectors at once, in place: each step is made for all vectors before the next step. A vector's steps
 * depend on each other, so one vector alone leaves the units idle for most of the time. With the vectors one after another
 * the processor would not find the independent work either: its window is shorter than one vector's steps. count is a
 * constant, 1 .. LK__GROUP. */
#define LK__GROUP (VL == 8 ? 4 : 8) /* more do not fit the registers */
#define LK__EXPS  4                 /* enough for exp, whose chain is shorter */

/* exp(x) = s 2^n: x becomes s, sum the magic sum that holds n. */
LK_INLINE void lk__math_vexp_parts(vf *x, vf *sum, const int count) {
    vf n[LK__GROUP], r[LK__GROUP];
    LK__ALL sum[j] = v_fma(x[j], v_set1(0x1.715476p+0f), v_set1(LK__MAGIC));
    LK__ALL n[j] = v_sub(sum[j], v_set1(LK__MAGIC));
    LK__ALL r[j] = v_fma(n[j], v_set1(LK__LN2_H), x[j]);
    LK__ALL r[j] = v_fma(n[j], v_set1(LK__LN2_L), r[j]);
    LK__ALL x[j] = v_fma(v_set1(0x1.6a4d3ep-10f), r[j], v_set1(0x1.123984p-7f));
    LK__ALL x[j] = v_fma(x[j], r[j], v_set1(0x1.5558bp-5f));
    LK__ALL x[j] = v_fma(x[j], r[j], v_set1(0x1.555492p-3f));
    LK__ALL x[j] = v_fma(x[j], r[j], v_set1(0x1.fffffcp-2f));
    LK__ALL x[j] = v_fma(x[j], r[j], v_set1(1.0f));
    LK__ALL x[j] = v_fma(x[j], r[j], v_set1(1.0f));
}

/* 2^n from the magic sum, -126 <= n <= 127; anything for other n. */
LK_INLINE vf lk__math_vpower(vf sum) {
    return vi_as_float(vi_add(vi_shl(v_as_int(sum), 23), vi_set1(0x3f800000)));
}

/* exp on the whole range. A NaN stays one: both limits and every operation keep it. Without AVX-512's instruction, 2^n can
 * be too great or too small for one float; that is rare, and the whole group then multiplies by two factors. */
LK_INLINE void lk__math_vexps(vf *x, const int count) {
    vf t[LK__GROUP];
#if defined(LK_ISA_avx512)
    LK__ALL x[j] = v_max_any(v_set1(-104.0f), v_min_any(v_set1(89.0f), x[j]));
    lk__math_vexp_parts(x, t, count);
    LK__ALL x[j] = _mm512_scalef_ps(x[j], v_sub(t[j], v_set1(LK__MAGIC)));
#else
    mask near = v_lt(v_abs(x[0]), v_set1(87.0f));
    for (int j = 1; j < count; j++) near = m_and(near, v_lt(v_abs(x[j]), v_set1(87.0f)));
    if (__builtin_expect(m_all(near), 1)) {
        lk__math_vexp_parts(x, t, count);
        LK__ALL x[j] = v_mul(x[j], lk__math_vpower(t[j]));
        return;
    }
    LK__ALL x[j] = v_max_any(v_set1(-104.0f), v_min_any(v_set1(89.0f), x[j]));
    lk__math_vexp_parts(x, t, count);
    LK__ALL { /* two factors: the first product is exact, the second rounds once, to a denormal too */
        vi n = vi_sub(v_as_int(t[j]), vi_set1(LK__MAGIC_BITS)), half = vi_shr(n, 1);
        vf p = vi_as_float(vi_shl(vi_add(half, vi_set1(127)), 23));
        vf q = vi_as_float(vi_shl(vi_add(vi_sub(n, half), vi_set1(127)), 23));
        x[j] = v_mul(v_mul(x[j], p), q);
    }
#endif
}

/* The softmax exponential of x <= 0 or NaN, which is all that softmax ever asks for: no overflow and no denormals. */
LK_INLINE void lk__math_vsexps(vf *x, const int count) {
    vf t[LK__GROUP];
    mask keep[LK__GROUP];
    LK__ALL keep[j] = v_not_less(x[j], v_set1(-64.0f));
    lk__math_vexp_parts(x, t, count);
    LK__ALL x[j] = v_mul_or_zero(keep[j], x[j], lk__math_vpower(t[j]));
}

/* h + hl is expm1(2|x|) = e^r 2^n - 1 with e^r = 1 + (r + p), and d + dl that + 2. */
LK_INLINE void lk__math_vtanhs(vf *x, const int count) {
    vf s[LK__GROUP], r[LK__GROUP], p[LK__GROUP], q[LK__GROUP], h[LK__GROUP], hl[LK__GROUP], d[LK__GROUP], dl[LK__GROUP];
    vf magic = v_set1(LK__MAGIC), one = v_set1(1.0f);
    LK__ALL r[j] = v_min_any(v_set1(10.0f), v_abs(x[j]));
    LK__ALL s[j] = v_fma(r[j], v_set1(0x1.715476p+1f), magic);
    LK__ALL q[j] = v_sub(s[j], magic);
    LK__ALL p[j] = v_fma(q[j], v_set1(LK__LN2_H), v_add(r[j], r[j]));
    LK__ALL r[j] = v_fma(q[j], v_set1(LK__LN2_L), p[j]);
    LK__ALL p[j] = v_fma(q[j], v_set1(LK__LN2_L), v_sub(p[j], r[j]));
    /* one degree more than exp's: expm1 cancels below 1 */
    LK__ALL q[j] = v_fma(v_set1(0x1.9df74ep-13f), r[j], v_set1(0x1.6d4cc0p-10f));
    LK__ALL q[j] = v_fma(q[j], r[j], v_set1(0x1.11131p-7f));
    LK__ALL q[j] = v_fma(q[j], r[j], v_set1(0x1.5554e8p-5f));
    LK__ALL q[j] = v_fma(q[j], r[j], v_set1(0x1.555554p-3f));
    LK__ALL q[j] = v_fma(q[j], r[j], v_set1(0.5f));
    LK__ALL p[j] = v_fma(v_mul(r[j], r[j]), q[j], p[j]);
    LK__ALL s[j] = lk__math_vpower(s[j]);
    LK__ALL {
        vf below = v_sub(s[j], one), above = v_add(s[j], one);
        vf e = v_fma(s[j], r[j], below), el = v_fma(s[j], p[j], v_fma(s[j], r[j], v_sub(below, e)));
        vf d0 = v_fma(s[j], r[j], above), d1 = v_fma(s[j], p[j], v_fma(s[j], r[j], v_sub(above, d0)));
        h[j] = v_add(e, el);
        hl[j] = v_sub(el, v_sub(h[j], e));
        d[j] = v_add(d0, d1);
        dl[j] = v_sub(d1, v_sub(d[j], d0));
    }
    LK__ALL s[j] = v_div(one, d[j]);
    LK__ALL {
        vf y = v_mul(h[j], s[j]), rest = v_fnma(y, dl[j], v_add(hl[j], v_fnma(y, d[j], h[j])));
        y = v_fma(rest, s[j], y);
        /* From 4 on 1 - 2 / d is as exact; above 8 it must be this, since 2^n + 1 is rounded there. */
        y = v_select(v_lt(v_set1(4.0f), v_abs(x[j])), v_sub(one, v_add(s[j], s[j])), y);
        x[j] = v_or_sign(y, x[j]);
    }
}

LK_INLINE vf lk__math_vexp(vf x) {
    lk__math_vexps(&x, 1);
    return x;
}
LK_INLINE vf lk__math_vsexp(vf x) {
    lk__math_vsexps(&x, 1);
    return x;
}
#endif
