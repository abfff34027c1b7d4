/* Vectors of doubles, VL / 2 of them: all that the sum of squares needs. */
#ifndef LOCKSTEP_MATH_SIMD_VEC_DOUBLE_H
#define LOCKSTEP_MATH_SIMD_VEC_DOUBLE_H
#include "math/simd/vec.h"

#if defined(LK_ISA_avx512)
typedef __m512d vd;
LK_INLINE vd vd_zero(void) {
    return _mm512_setzero_pd();
}
LK_INLINE vd vd_load_floats(const float *p) {
    return _mm512_cvtps_pd(_mm256_loadu_ps(p));
}
LK_INLINE void vd_store(double *p, vd x) {
    _mm512_storeu_pd(p, x);
}
LK_INLINE vd vd_fma(vd a, vd b, vd c) {
    return _mm512_fmadd_pd(a, b, c);
}
#elif defined(LK_ISA_avx2)
typedef __m256d vd;
LK_INLINE vd vd_zero(void) {
    return _mm256_setzero_pd();
}
LK_INLINE vd vd_load_floats(const float *p) {
    return _mm256_cvtps_pd(_mm_loadu_ps(p));
}
LK_INLINE void vd_store(double *p, vd x) {
    _mm256_storeu_pd(p, x);
}
LK_INLINE vd vd_fma(vd a, vd b, vd c) {
    return _mm256_fmadd_pd(a, b, c);
}
#elif defined(LK_ISA_neon)
typedef float64x2_t vd;
LK_INLINE vd vd_zero(void) {
    return vdupq_n_f64(0);
}
LK_INLINE vd vd_load_floats(const float *p) {
    return vcvt_f64_f32(vld1_f32(p));
}
LK_INLINE void vd_store(double *p, vd x) {
    vst1q_f64(p, x);
}
LK_INLINE vd vd_fma(vd a, vd b, vd c) {
    return vfmaq_f64(c, a, b);
}
#endif

#endif
