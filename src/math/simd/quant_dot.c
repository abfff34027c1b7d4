/* The same with instructions that add four products of bytes to 32 bits at once and never saturate. x86's vpdpbusd takes an
 * unsigned and a signed byte; weights are the unsigned ones: their sign bit is flipped, which adds 128 to each. Arm's sdot
 * takes two signed ones. */
#include "math/simd/vec.h"

#if defined(LK_ISA_avx512) && defined(__AVX512VNNI__)
#define HAS_DOT 1
LK_INLINE vi dot(vi sum, vi w, vi x) {
    return _mm512_dpbusd_epi32(sum, w, x);
}
#elif defined(LK_ISA_avx2) && defined(__AVXVNNI__)
#define HAS_DOT 1
LK_INLINE vi dot(vi sum, vi w, vi x) {
    return _mm256_dpbusd_avx_epi32(sum, w, x);
}
#elif defined(LK_ISA_neon) && defined(__ARM_FEATURE_DOTPROD)
#define HAS_DOT 1
LK_INLINE vi dot(vi sum, vi w, vi x) {
    return vdotq_s32(sum, vreinterpretq_s8_s32(w), vreinterpretq_s8_s32(x));
}
#endif

#if HAS_DOT
#define DOT8 dot
#define DOT4 dot
#if defined(LK_ISA_neon)
#define FLIP  0
#define ZERO8 0
#else
#define FLIP  0x80
#define ZERO8 128
#endif
#define QUANT_NAME(x) LK__PASTE(LK_ISA_NAME(x), dot)
#include "math/simd/quant_kernels.h"
#else
#include "math/kernel_table.h"
void LK__PASTE(LK_ISA_NAME(lk__math_fill_quant), dot)(struct lk__math_kernels *);
void LK__PASTE(LK_ISA_NAME(lk__math_fill_quant), dot)(struct lk__math_kernels *k) {
    (void)k; /* the compiler knows no such instructions */
}
#endif
