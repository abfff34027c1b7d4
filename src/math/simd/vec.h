/* The thin vector layer: one source, compiled once per instruction set (the Makefile passes LK_ISA=name and LK_ISA_name=1).
 *
 *   ISA      VL (floats a vector)   mask
 *   avx512   16                     16 bits
 *   avx2      8                     a vector of all-ones or zero lanes
 *   neon      4                     the same
 *
 * v_stream stores past the caches where the instruction set can (p at a multiple of the vector's bytes); v_stream_end
 * before another thread reads it.
 *
 * Every operation is one correctly rounded IEEE operation a lane, so a kernel written over it has the same bits everywhere;
 * what differs is only how many lanes go at once. All functions are static inline; include it only from src/math/simd. */
#ifndef LOCKSTEP_MATH_SIMD_VEC_H
#define LOCKSTEP_MATH_SIMD_VEC_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define LK__PASTE2(a, b) a##_##b
#define LK__PASTE(a, b)  LK__PASTE2(a, b)
#define LK_ISA_NAME(x)   LK__PASTE(x, LK_ISA) /* LK_ISA_NAME(lk__math_fill_matmul) is lk__math_fill_matmul_avx512 */
#define LK__STRING2(a)   #a
#define LK__STRING(a)    LK__STRING2(a)
#define LK_ISA_STRING    LK__STRING(LK_ISA)
#define LK_INLINE        static inline __attribute__((always_inline, unused))

/* Before a loop with a constant count whose arrays must become registers. */
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* A table: one operation a line. */
/* clang-format off */
#if defined(LK_ISA_avx512)
#include <immintrin.h>
#define VL 16
typedef __m512 vf;
typedef __m512i vi;
typedef __mmask16 mask;

LK_INLINE vf v_load(const float *p) { return _mm512_loadu_ps(p); }
LK_INLINE void v_store(float *p, vf x) { _mm512_storeu_ps(p, x); }
LK_INLINE mask m_first(size_t n) { return (mask)((1u << n) - 1u); } /* the first n lanes, n <= VL */
LK_INLINE vf v_load_n(const float *p, size_t n) { return _mm512_maskz_loadu_ps(m_first(n), p); }
LK_INLINE void v_stream(float *p, vf x) { _mm512_stream_ps(p, x); }
LK_INLINE void v_stream_end(void) { _mm_sfence(); }
LK_INLINE void v_store_n(float *p, vf x, size_t n) { _mm512_mask_storeu_ps(p, m_first(n), x); }
LK_INLINE vf v_set1(float x) { return _mm512_set1_ps(x); }
LK_INLINE vf v_zero(void) { return _mm512_setzero_ps(); }
LK_INLINE vf v_add(vf a, vf b) { return _mm512_add_ps(a, b); }
LK_INLINE vf v_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
LK_INLINE vf v_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
LK_INLINE vf v_div(vf a, vf b) { return _mm512_div_ps(a, b); }
LK_INLINE vf v_sqrt(vf a) { return _mm512_sqrt_ps(a); }
LK_INLINE vf v_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
LK_INLINE vf v_fnma(vf a, vf b, vf c) { return _mm512_fnmadd_ps(a, b, c); } /* fma(-a, b, c) */
LK_INLINE vf v_fms(vf a, vf b, vf c) { return _mm512_fmsub_ps(a, b, c); }   /* fma(a, b, -c) */
LK_INLINE vf v_round(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
LK_INLINE vi v_as_int(vf a) { return _mm512_castps_si512(a); }
LK_INLINE vf vi_as_float(vi a) { return _mm512_castsi512_ps(a); }
LK_INLINE vi v_to_int(vf a) { return _mm512_cvtps_epi32(a); }
LK_INLINE vf vi_to_float(vi a) { return _mm512_cvtepi32_ps(a); }
LK_INLINE vf v_from_half(const void *p) { return _mm512_cvtph_ps(_mm256_loadu_si256(p)); } /* VL fp16 numbers */
LK_INLINE vf v_from_bf16(const void *p) { /* VL numbers */
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p)), 16));
}
LK_INLINE vi vi_set1(int32_t x) { return _mm512_set1_epi32(x); }
LK_INLINE vi vi_load(const int32_t *p) { return _mm512_loadu_si512((const void *)p); }
LK_INLINE void vi_store(int32_t *p, vi x) { _mm512_storeu_si512((void *)p, x); }
LK_INLINE vi vi_add(vi a, vi b) { return _mm512_add_epi32(a, b); }
LK_INLINE vi vi_sub(vi a, vi b) { return _mm512_sub_epi32(a, b); }
LK_INLINE vi vi_and(vi a, vi b) { return _mm512_and_si512(a, b); }
LK_INLINE vi vi_or(vi a, vi b) { return _mm512_or_si512(a, b); }
LK_INLINE vi vi_xor(vi a, vi b) { return _mm512_xor_si512(a, b); }
#define vi_shl(a, n) _mm512_slli_epi32(a, n)
#define vi_shr(a, n) _mm512_srai_epi32(a, n)   /* copies the sign */
#define vi_shr_u(a, n) _mm512_srli_epi32(a, n) /* fills with zeros */
LK_INLINE mask vi_eq(vi a, vi b) { return _mm512_cmpeq_epi32_mask(a, b); }
LK_INLINE mask vi_lt(vi a, vi b) { return _mm512_cmplt_epi32_mask(a, b); }
LK_INLINE mask v_lt(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
LK_INLINE mask v_le(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ); }
LK_INLINE mask v_eq(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
LK_INLINE mask v_unordered(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_UNORD_Q); }
LK_INLINE mask m_and(mask a, mask b) { return (mask)(a & b); }
LK_INLINE mask m_or(mask a, mask b) { return (mask)(a | b); }
LK_INLINE mask m_not(mask a) { return (mask)~a; }
LK_INLINE int m_any(mask a) { return a != 0; }
LK_INLINE int m_all(mask a) { return a == 0xffff; }
LK_INLINE vf v_select(mask m, vf yes, vf no) { return _mm512_mask_blend_ps(m, no, yes); }
LK_INLINE vi vi_select(mask m, vi yes, vi no) { return _mm512_mask_blend_epi32(m, no, yes); }
LK_INLINE mask v_not_less(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_NLT_UQ); } /* NaN: true */
LK_INLINE vf v_mul_or_zero(mask m, vf a, vf b) { return _mm512_maskz_mul_ps(m, a, b); } /* +0 where m is false */
LK_INLINE vf v_max_any(vf a, vf b) { return _mm512_max_ps(a, b); } /* b if either is NaN or both are zeros */
LK_INLINE vf v_min_any(vf a, vf b) { return _mm512_min_ps(a, b); }
LK_INLINE vf v_or_sign(vf a, vf sign) { /* a, not negative, with the sign of the other */
    return vi_as_float(_mm512_ternarylogic_epi32(v_as_int(a), v_as_int(sign), vi_set1(INT32_MIN), 0xf8));
}
/* The contract's pairs (j, j + 8) .. (j, j + 1) inside one vector, then + (+0). */
LK_INLINE float v_sum_lanes(vf x) {
    __m256 a = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    b = _mm_add_ss(b, _mm_shuffle_ps(b, b, 1));
    return _mm_cvtss_f32(b) + 0.0f;
}

#elif defined(LK_ISA_avx2)
#include <immintrin.h>
#define VL 8
typedef __m256 vf;
typedef __m256i vi;
typedef __m256 mask;

LK_INLINE vf v_load(const float *p) { return _mm256_loadu_ps(p); }
LK_INLINE void v_store(float *p, vf x) { _mm256_storeu_ps(p, x); }
LK_INLINE mask m_first(size_t n) {
    return _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)));
}
LK_INLINE vf v_load_n(const float *p, size_t n) { return _mm256_maskload_ps(p, _mm256_castps_si256(m_first(n))); }
LK_INLINE void v_stream(float *p, vf x) { _mm256_stream_ps(p, x); }
LK_INLINE void v_stream_end(void) { _mm_sfence(); }
LK_INLINE void v_store_n(float *p, vf x, size_t n) { _mm256_maskstore_ps(p, _mm256_castps_si256(m_first(n)), x); }
LK_INLINE vf v_set1(float x) { return _mm256_set1_ps(x); }
LK_INLINE vf v_zero(void) { return _mm256_setzero_ps(); }
LK_INLINE vf v_add(vf a, vf b) { return _mm256_add_ps(a, b); }
LK_INLINE vf v_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
LK_INLINE vf v_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
LK_INLINE vf v_div(vf a, vf b) { return _mm256_div_ps(a, b); }
LK_INLINE vf v_sqrt(vf a) { return _mm256_sqrt_ps(a); }
LK_INLINE vf v_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
LK_INLINE vf v_fnma(vf a, vf b, vf c) { return _mm256_fnmadd_ps(a, b, c); }
LK_INLINE vf v_fms(vf a, vf b, vf c) { return _mm256_fmsub_ps(a, b, c); }
LK_INLINE vf v_round(vf a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
LK_INLINE vi v_as_int(vf a) { return _mm256_castps_si256(a); }
LK_INLINE vf vi_as_float(vi a) { return _mm256_castsi256_ps(a); }
LK_INLINE vi v_to_int(vf a) { return _mm256_cvtps_epi32(a); }
LK_INLINE vf vi_to_float(vi a) { return _mm256_cvtepi32_ps(a); }
LK_INLINE vf v_from_half(const void *p) { return _mm256_cvtph_ps(_mm_loadu_si128(p)); }
LK_INLINE vf v_from_bf16(const void *p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(p)), 16));
}
LK_INLINE vi vi_set1(int32_t x) { return _mm256_set1_epi32(x); }
LK_INLINE vi vi_load(const int32_t *p) { return _mm256_loadu_si256((const __m256i *)(const void *)p); }
LK_INLINE void vi_store(int32_t *p, vi x) { _mm256_storeu_si256((__m256i *)(void *)p, x); }
LK_INLINE vi vi_add(vi a, vi b) { return _mm256_add_epi32(a, b); }
LK_INLINE vi vi_sub(vi a, vi b) { return _mm256_sub_epi32(a, b); }
LK_INLINE vi vi_and(vi a, vi b) { return _mm256_and_si256(a, b); }
LK_INLINE vi vi_or(vi a, vi b) { return _mm256_or_si256(a, b); }
LK_INLINE vi vi_xor(vi a, vi b) { return _mm256_xor_si256(a, b); }
#define vi_shl(a, n) _mm256_slli_epi32(a, n)
#define vi_shr(a, n) _mm256_srai_epi32(a, n)
#define vi_shr_u(a, n) _mm256_srli_epi32(a, n)
LK_INLINE mask vi_eq(vi a, vi b) { return _mm256_castsi256_ps(_mm256_cmpeq_epi32(a, b)); }
LK_INLINE mask vi_lt(vi a, vi b) { return _mm256_castsi256_ps(_mm256_cmpgt_epi32(b, a)); }
LK_INLINE mask v_lt(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
LK_INLINE mask v_le(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_LE_OQ); }
LK_INLINE mask v_eq(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
LK_INLINE mask v_unordered(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_UNORD_Q); }
LK_INLINE mask m_and(mask a, mask b) { return _mm256_and_ps(a, b); }
LK_INLINE mask m_or(mask a, mask b) { return _mm256_or_ps(a, b); }
LK_INLINE mask m_not(mask a) { return _mm256_castsi256_ps(_mm256_xor_si256(_mm256_castps_si256(a), _mm256_set1_epi32(-1))); }
LK_INLINE int m_any(mask a) { return _mm256_movemask_ps(a) != 0; }
LK_INLINE int m_all(mask a) { return _mm256_movemask_ps(a) == 0xff; }
LK_INLINE vf v_select(mask m, vf yes, vf no) { return _mm256_blendv_ps(no, yes, m); }
LK_INLINE vi vi_select(mask m, vi yes, vi no) {
    return _mm256_castps_si256(_mm256_blendv_ps(_mm256_castsi256_ps(no), _mm256_castsi256_ps(yes), m));
}
LK_INLINE mask v_not_less(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_NLT_UQ); }
LK_INLINE vf v_mul_or_zero(mask m, vf a, vf b) { return _mm256_and_ps(m, _mm256_mul_ps(a, b)); }
LK_INLINE vf v_max_any(vf a, vf b) { return _mm256_max_ps(a, b); }
LK_INLINE vf v_min_any(vf a, vf b) { return _mm256_min_ps(a, b); }
LK_INLINE vf v_or_sign(vf a, vf sign) { return _mm256_or_ps(a, _mm256_and_ps(sign, _mm256_set1_ps(-0.0f))); }
LK_INLINE float v_sum_lanes(vf x) {
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    b = _mm_add_ss(b, _mm_shuffle_ps(b, b, 1));
    return _mm_cvtss_f32(b) + 0.0f;
}

#elif defined(LK_ISA_neon)
#include <arm_neon.h>
#define VL 4
typedef float32x4_t vf;
typedef int32x4_t vi;
typedef uint32x4_t mask;

LK_INLINE vf v_load(const float *p) { return vld1q_f32(p); }
LK_INLINE void v_store(float *p, vf x) { vst1q_f32(p, x); }
LK_INLINE mask m_first(size_t n) {
    static const uint32_t index[4] = {0, 1, 2, 3};
    return vcltq_u32(vld1q_u32(index), vdupq_n_u32((uint32_t)n));
}
LK_INLINE vf v_load_n(const float *p, size_t n) {
    float t[4] = {0, 0, 0, 0};
    memcpy(t, p, n * sizeof *p);
    return vld1q_f32(t);
}
LK_INLINE void v_stream(float *p, vf x) { vst1q_f32(p, x); }
LK_INLINE void v_stream_end(void) {}
LK_INLINE void v_store_n(float *p, vf x, size_t n) {
    float t[4];
    vst1q_f32(t, x);
    memcpy(p, t, n * sizeof *p);
}
LK_INLINE vf v_set1(float x) { return vdupq_n_f32(x); }
LK_INLINE vf v_zero(void) { return vdupq_n_f32(0); }
LK_INLINE vf v_add(vf a, vf b) { return vaddq_f32(a, b); }
LK_INLINE vf v_sub(vf a, vf b) { return vsubq_f32(a, b); }
LK_INLINE vf v_mul(vf a, vf b) { return vmulq_f32(a, b); }
LK_INLINE vf v_div(vf a, vf b) { return vdivq_f32(a, b); }
LK_INLINE vf v_sqrt(vf a) { return vsqrtq_f32(a); }
LK_INLINE vf v_fma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
LK_INLINE vf v_fnma(vf a, vf b, vf c) { return vfmsq_f32(c, a, b); }
LK_INLINE vf v_fms(vf a, vf b, vf c) { return vfmaq_f32(vnegq_f32(c), a, b); }
LK_INLINE vf v_round(vf a) { return vrndnq_f32(a); }
LK_INLINE vi v_as_int(vf a) { return vreinterpretq_s32_f32(a); }
LK_INLINE vf vi_as_float(vi a) { return vreinterpretq_f32_s32(a); }
LK_INLINE vi v_to_int(vf a) { return vcvtnq_s32_f32(a); }
LK_INLINE vf vi_to_float(vi a) { return vcvtq_f32_s32(a); }
LK_INLINE vf v_from_half(const void *p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
LK_INLINE vf v_from_bf16(const void *p) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16)); }
LK_INLINE vi vi_set1(int32_t x) { return vdupq_n_s32(x); }
LK_INLINE vi vi_load(const int32_t *p) { return vld1q_s32(p); }
LK_INLINE void vi_store(int32_t *p, vi x) { vst1q_s32(p, x); }
LK_INLINE vi vi_add(vi a, vi b) { return vaddq_s32(a, b); }
LK_INLINE vi vi_sub(vi a, vi b) { return vsubq_s32(a, b); }
LK_INLINE vi vi_and(vi a, vi b) { return vandq_s32(a, b); }
LK_INLINE vi vi_or(vi a, vi b) { return vorrq_s32(a, b); }
LK_INLINE vi vi_xor(vi a, vi b) { return veorq_s32(a, b); }
#define vi_shl(a, n) vshlq_n_s32(a, n)
#define vi_shr(a, n) vshrq_n_s32(a, n)
#define vi_shr_u(a, n) vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_s32(a), n))
LK_INLINE mask vi_eq(vi a, vi b) { return vceqq_s32(a, b); }
LK_INLINE mask vi_lt(vi a, vi b) { return vcltq_s32(a, b); }
LK_INLINE mask v_lt(vf a, vf b) { return vcltq_f32(a, b); }
LK_INLINE mask v_le(vf a, vf b) { return vcleq_f32(a, b); }
LK_INLINE mask v_eq(vf a, vf b) { return vceqq_f32(a, b); }
LK_INLINE mask v_unordered(vf a, vf b) { return vmvnq_u32(vandq_u32(vceqq_f32(a, a), vceqq_f32(b, b))); }
LK_INLINE mask m_and(mask a, mask b) { return vandq_u32(a, b); }
LK_INLINE mask m_or(mask a, mask b) { return vorrq_u32(a, b); }
LK_INLINE mask m_not(mask a) { return vmvnq_u32(a); }
LK_INLINE int m_any(mask a) { return vmaxvq_u32(a) != 0; }
LK_INLINE int m_all(mask a) { return vminvq_u32(a) != 0; }
LK_INLINE vf v_select(mask m, vf yes, vf no) { return vbslq_f32(m, yes, no); }
LK_INLINE vi vi_select(mask m, vi yes, vi no) { return vbslq_s32(m, yes, no); }
LK_INLINE mask v_not_less(vf a, vf b) { return vmvnq_u32(vcltq_f32(a, b)); }
LK_INLINE vf v_mul_or_zero(mask m, vf a, vf b) { return vreinterpretq_f32_u32(vandq_u32(m, vreinterpretq_u32_f32(vmulq_f32(a, b)))); }
LK_INLINE vf v_max_any(vf a, vf b) { return vmaxq_f32(a, b); }
LK_INLINE vf v_min_any(vf a, vf b) { return vminq_f32(a, b); }
LK_INLINE vf v_or_sign(vf a, vf sign) {
    return vreinterpretq_f32_u32(vorrq_u32(vreinterpretq_u32_f32(a), vandq_u32(vreinterpretq_u32_f32(sign), vdupq_n_u32(0x80000000u))));
}
LK_INLINE float v_sum_lanes(vf x) {
    float32x2_t b = vadd_f32(vget_low_f32(x), vget_high_f32(x));
    return (vget_lane_f32(b, 0) + vget_lane_f32(b, 1)) + 0.0f;
}

#else
#error "vec.h: compile with -DLK_ISA=name -DLK_ISA_name=1, name one of avx512, avx2, neon"
#endif
/* clang-format on */

#define LANE_VECTORS (64 / VL) /* vectors that hold the contract's 64 virtual lanes; vector e holds lanes e VL .. */

LK_INLINE vf v_neg(vf a) {
    return vi_as_float(vi_xor(v_as_int(a), vi_set1(INT32_MIN)));
}
LK_INLINE vf v_abs(vf a) {
    return vi_as_float(vi_and(v_as_int(a), vi_set1(INT32_MAX)));
}
LK_INLINE vf v_copysign(vf magnitude, vf sign) {
    vi s = vi_set1(INT32_MIN);
    return vi_as_float(vi_or(vi_and(v_as_int(sign), s), v_as_int(v_abs(magnitude))));
}

/* The contract's max: NaN if either is NaN, +0 greater than -0. */
LK_INLINE vf v_max(vf a, vf b) {
#if defined(LK_ISA_neon)
    return vmaxq_f32(a, b);
#else
    /* Equal lanes have equal bits or are zeros: the and of both is then +0 unless both are -0. */
    vf t = v_select(v_eq(a, b), vi_as_float(vi_and(v_as_int(a), v_as_int(b))), v_max_any(a, b));
    return v_select(v_unordered(a, a), a, t); /* NaN in b: v_max_any has chosen b */
#endif
}
LK_INLINE float v_max_lanes(vf x) {
    float t[VL];
    v_store(t, x);
    for (int h = VL / 2; h; h /= 2)
        for (int j = 0; j < h; j++) {
            float a = t[j], b = t[j + h];
            /* a + b of two zeros is +0 unless both are -0, and NaN if either is. */
            t[j] = a > b ? a : b > a ? b : a == b ? (a == 0 ? a + b : a) : a + b;
        }
    return t[0];
}

/* 64 lanes -> scalar in the contract's order; the vectors are left unchanged. */
LK_INLINE float v_sum64(const vf lanes[LANE_VECTORS]) {
    vf t[LANE_VECTORS];
    for (int e = 0; e < LANE_VECTORS; e++) t[e] = lanes[e];
    for (int h = LANE_VECTORS / 2; h; h /= 2)
        for (int e = 0; e < h; e++) t[e] = v_add(t[e], t[e + h]);
    return v_sum_lanes(t[0]);
}

#endif
