/* What the driver and the kernels of weights in fewer bits share. Private to src/math. */
#ifndef LOCKSTEP_MATH_PRIVATE_QUANT_H
#define LOCKSTEP_MATH_PRIVATE_QUANT_H
#include "lockstep/math/quant.h"
#include "math/exact.h"

#define LK__QUANT_LEAST 0x1p-100f /* a block whose numbers are all smaller is a block of zeros */

/* Activations lie in groups of up to `quant_rows` rows, as equal as they can be: for each block of k a record of the
 * group's rows, their bytes, their scales, and the sums of their bytes times -128 and times -8, which take back what
 * weights that are stored without a sign have too much. */
#define LK__QUANT_RECORD (LK_QUANT_BLOCK + sizeof(float) + 2 * sizeof(int32_t)) /* bytes of one row */
struct lk__math_quant_group {
    size_t rows;
    const uint8_t *records;
};
/* Bytes of a panel's scales, and of the panel. */
static inline size_t lk__math_quant_scales(size_t k) {
    return (k / LK_QUANT_BLOCK * LK_QUANT_PANEL * 2 + 63) / 64 * 64;
}
static inline size_t lk__math_quant_panel(enum lk_dtype dtype, size_t k) {
    return lk__math_quant_scales(k) + LK_QUANT_PANEL * k / (dtype == LK_Q8 ? 1 : 2);
}
static inline size_t lk__math_quant_groups(size_t rows, size_t most) {
    return (rows + most - 1) / most;
}
static inline size_t lk__math_quant_begin(size_t rows, size_t groups, size_t i) {
    size_t more = rows % groups;
    return i * (rows / groups) + (i < more ? i : more);
}

/* One row; see lk_dequantize. */
void lk__math_widen(enum lk_dtype, size_t k, const uint8_t *w, float *out);

/* An fp16 number as a float, exactly. */
static inline float lk__math_half(const void *p) {
    uint16_t h;
    memcpy(&h, p, sizeof h);
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 1023;
    if (exponent == 31) return lk__math_float(sign | 0x7f800000 | fraction << 13 | (fraction ? 0x400000 : 0));
    if (exponent) return lk__math_float(sign | (exponent + 112) << 23 | fraction << 13);
    float x = (float)fraction * 0x1p-24f;
    return lk__math_float(sign | lk__math_bits32(x));
}
/* A row of LK_Q8, one rounding each. */
static inline void lk__math_widen_q8(size_t k, const uint8_t *w, float *out) {
    for (; k; k -= LK_QUANT_BLOCK, w += 2 + LK_QUANT_BLOCK, out += LK_QUANT_BLOCK) {
        float scale = lk__math_half(w);
        for (size_t i = 0; i < LK_QUANT_BLOCK; i++) out[i] = scale * (float)(int8_t)w[2 + i];
    }
}
/* To fp16, to the nearest, ties to even; x is finite. */
static inline uint16_t lk__math_to_half(float x) {
    uint32_t u = lk__math_bits32(x), sign = u >> 16 & 0x8000, m = u & 0x7fffffff;
    if (m >= 0x477ff000) return (uint16_t)(sign | 0x7c00); /* 65520 and more */
    if (m < 0x38800000) {                                  /* below 2^-14: in units of 2^-24 */
        volatile float y = lk__math_float(m) + 0.5f;       /* 0.5's last bit is 2^-24 */
        return (uint16_t)(sign | (lk__math_bits32(y) - 0x3f000000));
    }
    m += 0xfff + (m >> 13 & 1);
    return (uint16_t)(sign | (m - 0x38000000) >> 13);
}

#endif
