/* Packing: operands are copied into the order in which the micro-kernels read them, k ascending, a row of vectors each.
 * Both layouts of an operand occur (see lk_mm): along k (the k of one row lie together, so blocks of VL x VL are transposed in
 * registers) and across k (plain copies). */
#ifndef LOCKSTEP_MATH_SIMD_MATMUL_PACK_H
#define LOCKSTEP_MATH_SIMD_MATMUL_PACK_H
#include "math/simd/vec.h"

/* r becomes its transpose. */
LK_INLINE void v_transpose(vf r[VL]) {
#if defined(LK_ISA_avx512)
    vf t[VL];
    for (int i = 0; i < 8; i++) { /* pairs of rows */
        t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 4; i++) { /* fours: r[4 i + c] holds column c of each 128-bit part of rows 4 i .. 4 i + 3 */
        __m512d a = _mm512_castps_pd(t[4 * i]), b = _mm512_castps_pd(t[4 * i + 1]);
        __m512d c = _mm512_castps_pd(t[4 * i + 2]), d = _mm512_castps_pd(t[4 * i + 3]);
        r[4 * i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
        r[4 * i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
        r[4 * i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
        r[4 * i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
    }
    for (int c = 0; c < 4; c++) { /* the 128-bit parts */
        vf a = _mm512_shuffle_f32x4(r[c], r[4 + c], 0x88), b = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0x88);
        vf d = _mm512_shuffle_f32x4(r[c], r[4 + c], 0xdd), e = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0xdd);
        t[c] = _mm512_shuffle_f32x4(a, b, 0x88);
        t[8 + c] = _mm512_shuffle_f32x4(a, b, 0xdd);
        t[4 + c] = _mm512_shuffle_f32x4(d, e, 0x88);
        t[12 + c] = _mm512_shuffle_f32x4(d, e, 0xdd);
    }
    for (int i = 0; i < VL; i++) r[i] = t[i];
#elif defined(LK_ISA_avx2)
    vf t[VL];
    for (int i = 0; i < 4; i++) {
        t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 2; i++) {
        __m256d a = _mm256_castps_pd(t[4 * i]), b = _mm256_castps_pd(t[4 * i + 1]);
        __m256d c = _mm256_castps_pd(t[4 * i + 2]), d = _mm256_castps_pd(t[4 * i + 3]);
        r[4 * i] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, c));
        r[4 * i + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, c));
        r[4 * i + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(b, d));
        r[4 * i + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(b, d));
    }
    for (int c = 0; c < 4; c++) {
        t[c] = _mm256_permute2f128_ps(r[c], r[4 + c], 0x20);
        t[4 + c] = _mm256_permute2f128_ps(r[c], r[4 + c], 0x31);
    }
    for (int i = 0; i < VL; i++) r[i] = t[i];
#else
    float64x2_t a = vreinterpretq_f64_f32(vtrn1q_f32(r[0], r[1])), b = vreinterpretq_f64_f32(vtrn2q_f32(r[0], r[1]));
    float64x2_t c = vreinterpretq_f64_f32(vtrn1q_f32(r[2], r[3])), d = vreinterpretq_f64_f32(vtrn2q_f32(r[2], r[3]));
    r[0] = vreinterpretq_f32_f64(vtrn1q_f64(a, c)), r[1] = vreinterpretq_f32_f64(vtrn1q_f64(b, d));
    r[2] = vreinterpretq_f32_f64(vtrn2q_f64(a, c)), r[3] = vreinterpretq_f32_f64(vtrn2q_f64(b, d));
#endif
}

/* Transposes `rows` (<= VL) rows at x, stride ldx, of k elements: to[e * ldto + row]. Writes whole vectors, absent rows as
 * zeros, so the next panel's columns must be written after this one's. to needs VL - 1 floats of slack at its end. */
LK_INLINE void pack_along_vector(size_t k, size_t rows, const float *x, size_t ldx, float *to, size_t ldto) {
    size_t e = 0;
    for (; e + VL <= k; e += VL) {
        vf r[VL];
        if (rows == VL) {
            for (size_t i = 0; i < VL; i++) r[i] = v_load(x + i * ldx + e);
        } else {
            for (size_t i = 0; i < VL; i++) r[i] = i < rows ? v_load(x + i * ldx + e) : v_zero();
        }
        v_transpose(r);
        for (size_t i = 0; i < VL; i++) v_store(to + (e + i) * ldto, r[i]);
    }
    if (e < k) {
        vf r[VL];
        for (size_t i = 0; i < VL; i++) r[i] = i < rows ? v_load_n(x + i * ldx + e, k - e) : v_zero();
        v_transpose(r);
        for (size_t i = 0; i < k - e; i++) v_store(to + (e + i) * ldto, r[i]);
    }
}

#endif
