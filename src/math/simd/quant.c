/* Products with weights in blocks, for what every CPU of an instruction set has. Bytes are multiplied by bytes into 16
 * bits: |w| (up to 128) by x with w's sign (x is never -128), so two products are at most 32,512 and no sum of two
 * saturates. */
#include "math/simd/vec.h"

#if defined(LK_ISA_avx512)
LK_INLINE vi add_pairs(vi sum, vi pairs) {
    return vi_add(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
}
LK_INLINE vi dot8(vi sum, vi w, vi x) {
    vi signed_x = _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(w), _mm512_setzero_si512(), x);
    return add_pairs(sum, _mm512_maddubs_epi16(_mm512_abs_epi8(w), signed_x));
}
LK_INLINE vi dot4(vi sum, vi w, vi x) {
    return add_pairs(sum, _mm512_maddubs_epi16(w, x));
}
#elif defined(LK_ISA_avx2)
LK_INLINE vi add_pairs(vi sum, vi pairs) {
    return vi_add(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
LK_INLINE vi dot8(vi sum, vi w, vi x) {
    return add_pairs(sum, _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w)));
}
LK_INLINE vi dot4(vi sum, vi w, vi x) {
    return add_pairs(sum, _mm256_maddubs_epi16(w, x));
}
#else
LK_INLINE vi dot8(vi sum, vi w, vi x) {
    int8x16_t a = vreinterpretq_s8_s32(w), b = vreinterpretq_s8_s32(x);
    int16x8_t low = vmull_s8(vget_low_s8(a), vget_low_s8(b)), high = vmull_high_s8(a, b);
    return vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)) + sum;
}
#define dot4 dot8
#endif

#define DOT8          dot8
#define DOT4          dot4
#define FLIP          0
#define ZERO8         0
#define QUANT_NAME(x) LK_ISA_NAME(x)
#include "math/simd/quant_kernels.h"
