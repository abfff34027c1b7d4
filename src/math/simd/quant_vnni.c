/* The same with vpdpbusd, which adds four products of an unsigned and a signed byte to 32 bits at once, and never
 * saturates. Weights are the unsigned ones: their sign bit is flipped, which adds 128 to each. */
#include "math/simd/vec.h"

#if defined(LK_ISA_avx512) && defined(__AVX512VNNI__)
#define HAS_VNNI 1
LK_INLINE vi dot(vi sum, vi w, vi x) {
    return _mm512_dpbusd_epi32(sum, w, x);
}
#elif defined(LK_ISA_avx2) && defined(__AVXVNNI__)
#define HAS_VNNI 1
LK_INLINE vi dot(vi sum, vi w, vi x) {
    return _mm256_dpbusd_avx_epi32(sum, w, x);
}
#endif

#if HAS_VNNI
#define DOT8          dot
#define DOT4          dot
#define FLIP          0x80
#define ZERO8         128
#define QUANT_NAME(x) LK__PASTE(LK_ISA_NAME(x), vnni)
#include "math/simd/quant_kernels.h"
#else
#include "math/kernel_table.h"
void LK__PASTE(LK_ISA_NAME(lk__math_fill_quant), vnni)(struct lk__math_kernels *);
void LK__PASTE(LK_ISA_NAME(lk__math_fill_quant), vnni)(struct lk__math_kernels *k) {
    (void)k; /* the compiler knows no such instructions */
}
#endif
