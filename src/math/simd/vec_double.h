/* Vectors of VL / 2 doubles or 64-bit integers: what the sum of squares and the initial weights need. */
#ifndef LOCKSTEP_MATH_SIMD_VEC_DOUBLE_H
#define LOCKSTEP_MATH_SIMD_VEC_DOUBLE_H
#include "math/simd/vec.h"

#define DL (VL / 2)

/* vd_select: where a < b, else. vu_mul: of the low halves, 32 bits each. vd_store_floats: rounded once. */
/* clang-format off */
#if defined(LK_ISA_avx512)
typedef __m512d vd;
typedef __m512i vu;
LK_INLINE vd vd_load_floats(const float *p) { return _mm512_cvtps_pd(_mm256_loadu_ps(p)); }
LK_INLINE void vd_store_floats(float *p, vd x) { _mm256_storeu_ps(p, _mm512_cvtpd_ps(x)); }
LK_INLINE vd vd_load(const double *p) { return _mm512_loadu_pd(p); }
LK_INLINE void vd_store(double *p, vd x) { _mm512_storeu_pd(p, x); }
LK_INLINE vd vd_set1(double x) { return _mm512_set1_pd(x); }
LK_INLINE vd vd_add(vd a, vd b) { return _mm512_add_pd(a, b); }
LK_INLINE vd vd_sub(vd a, vd b) { return _mm512_sub_pd(a, b); }
LK_INLINE vd vd_mul(vd a, vd b) { return _mm512_mul_pd(a, b); }
LK_INLINE vd vd_div(vd a, vd b) { return _mm512_div_pd(a, b); }
LK_INLINE vd vd_sqrt(vd a) { return _mm512_sqrt_pd(a); }
LK_INLINE vd vd_fma(vd a, vd b, vd c) { return _mm512_fmadd_pd(a, b, c); }
LK_INLINE vd vd_select(vd a, vd b, vd yes, vd no) { return _mm512_mask_blend_pd(_mm512_cmp_pd_mask(a, b, _CMP_LT_OQ), no, yes); }
LK_INLINE vu vd_bits(vd a) { return _mm512_castpd_si512(a); }
LK_INLINE vd vu_double(vu a) { return _mm512_castsi512_pd(a); }
LK_INLINE vu vu_set1(uint64_t x) { return _mm512_set1_epi64((long long)x); }
LK_INLINE vu vu_load(const uint64_t *p) { return _mm512_loadu_si512((const void *)p); }
LK_INLINE vu vu_add(vu a, vu b) { return _mm512_add_epi64(a, b); }
LK_INLINE vu vu_and(vu a, vu b) { return _mm512_and_si512(a, b); }
LK_INLINE vu vu_or(vu a, vu b) { return _mm512_or_si512(a, b); }
LK_INLINE vu vu_xor3(vu a, vu b, vu c) { return _mm512_ternarylogic_epi64(a, b, c, 0x96); }
LK_INLINE vu vu_mul(vu a, vu b) { return _mm512_mul_epu32(a, b); }
#define vu_shr(a, n) _mm512_srli_epi64(a, n)
#elif defined(LK_ISA_avx2)
typedef __m256d vd;
typedef __m256i vu;
LK_INLINE vd vd_load_floats(const float *p) { return _mm256_cvtps_pd(_mm_loadu_ps(p)); }
LK_INLINE void vd_store_floats(float *p, vd x) { _mm_storeu_ps(p, _mm256_cvtpd_ps(x)); }
LK_INLINE vd vd_load(const double *p) { return _mm256_loadu_pd(p); }
LK_INLINE void vd_store(double *p, vd x) { _mm256_storeu_pd(p, x); }
LK_INLINE vd vd_set1(double x) { return _mm256_set1_pd(x); }
LK_INLINE vd vd_add(vd a, vd b) { return _mm256_add_pd(a, b); }
LK_INLINE vd vd_sub(vd a, vd b) { return _mm256_sub_pd(a, b); }
LK_INLINE vd vd_mul(vd a, vd b) { return _mm256_mul_pd(a, b); }
LK_INLINE vd vd_div(vd a, vd b) { return _mm256_div_pd(a, b); }
LK_INLINE vd vd_sqrt(vd a) { return _mm256_sqrt_pd(a); }
LK_INLINE vd vd_fma(vd a, vd b, vd c) { return _mm256_fmadd_pd(a, b, c); }
LK_INLINE vd vd_select(vd a, vd b, vd yes, vd no) { return _mm256_blendv_pd(no, yes, _mm256_cmp_pd(a, b, _CMP_LT_OQ)); }
LK_INLINE vu vd_bits(vd a) { return _mm256_castpd_si256(a); }
LK_INLINE vd vu_double(vu a) { return _mm256_castsi256_pd(a); }
LK_INLINE vu vu_set1(uint64_t x) { return _mm256_set1_epi64x((long long)x); }
LK_INLINE vu vu_load(const uint64_t *p) { return _mm256_loadu_si256((const void *)p); }
LK_INLINE vu vu_add(vu a, vu b) { return _mm256_add_epi64(a, b); }
LK_INLINE vu vu_and(vu a, vu b) { return _mm256_and_si256(a, b); }
LK_INLINE vu vu_or(vu a, vu b) { return _mm256_or_si256(a, b); }
LK_INLINE vu vu_xor3(vu a, vu b, vu c) { return _mm256_xor_si256(_mm256_xor_si256(a, b), c); }
LK_INLINE vu vu_mul(vu a, vu b) { return _mm256_mul_epu32(a, b); }
#define vu_shr(a, n) _mm256_srli_epi64(a, n)
#elif defined(LK_ISA_neon)
typedef float64x2_t vd;
typedef uint64x2_t vu;
LK_INLINE vd vd_load_floats(const float *p) { return vcvt_f64_f32(vld1_f32(p)); }
LK_INLINE void vd_store_floats(float *p, vd x) { vst1_f32(p, vcvt_f32_f64(x)); }
LK_INLINE vd vd_load(const double *p) { return vld1q_f64(p); }
LK_INLINE void vd_store(double *p, vd x) { vst1q_f64(p, x); }
LK_INLINE vd vd_set1(double x) { return vdupq_n_f64(x); }
LK_INLINE vd vd_add(vd a, vd b) { return vaddq_f64(a, b); }
LK_INLINE vd vd_sub(vd a, vd b) { return vsubq_f64(a, b); }
LK_INLINE vd vd_mul(vd a, vd b) { return vmulq_f64(a, b); }
LK_INLINE vd vd_div(vd a, vd b) { return vdivq_f64(a, b); }
LK_INLINE vd vd_sqrt(vd a) { return vsqrtq_f64(a); }
LK_INLINE vd vd_fma(vd a, vd b, vd c) { return vfmaq_f64(c, a, b); }
LK_INLINE vd vd_select(vd a, vd b, vd yes, vd no) { return vbslq_f64(vcltq_f64(a, b), yes, no); }
LK_INLINE vu vd_bits(vd a) { return vreinterpretq_u64_f64(a); }
LK_INLINE vd vu_double(vu a) { return vreinterpretq_f64_u64(a); }
LK_INLINE vu vu_set1(uint64_t x) { return vdupq_n_u64(x); }
LK_INLINE vu vu_load(const uint64_t *p) { return vld1q_u64(p); }
LK_INLINE vu vu_add(vu a, vu b) { return vaddq_u64(a, b); }
LK_INLINE vu vu_and(vu a, vu b) { return vandq_u64(a, b); }
LK_INLINE vu vu_or(vu a, vu b) { return vorrq_u64(a, b); }
LK_INLINE vu vu_xor3(vu a, vu b, vu c) { return veorq_u64(veorq_u64(a, b), c); }
LK_INLINE vu vu_mul(vu a, vu b) { return vmull_u32(vmovn_u64(a), vmovn_u64(b)); }
#define vu_shr(a, n) vshrq_n_u64(a, n)
#endif
/* clang-format on */

#endif
