/* Rounding to fewer bits, in plain C whose loops compilers turn into vectors: every operation is one of the page's.
 * Included by whoever defines ROUND_NAME(x), the names of its copy. */
#include "math/kernel_table.h"

#define BLOCK LK_QUANT_BLOCK
/* Added to a float below 2^22 in magnitude and taken away again, it leaves the nearest whole number, halves to the even
 * one. */
#define WHOLE 0x1.8p23f

/* The bits of the greatest magnitude: in order as unsigned numbers, with infinities and NaN above all others. */
static inline uint32_t most_bits(const float *x) {
    uint32_t most = 0;
    for (size_t i = 0; i < BLOCK; i++) {
        uint32_t m = lk__math_bits32(x[i]) & 0x7fffffff;
        most = m > most ? m : most;
    }
    return most;
}
static inline float inverse_of(float scale) {
    float inverse = scale != 0 ? 1.0f / scale : 0;
    return (lk__math_bits32(inverse) & 0x7fffffff) < 0x7f800000 ? inverse : 0;
}

/* --- Weights ---------------------------------------------------------------------------------------------- */

/* Blocks whose greatest magnitude has these bits. ggml's reference rounds halves away from zero. */
static inline bool round_q8(const float *x, uint32_t most, uint8_t *out) {
    float scale = lk__math_float(most) / 127.0f, inverse = inverse_of(scale);
    uint16_t half = lk__math_to_half(scale);
    memcpy(out, &half, 2);
    for (size_t i = 0; i < BLOCK; i++) {
        float t = x[i] * inverse;
        int32_t whole = (int32_t)t;
        float rest = t - (float)whole;
        out[2 + i] = (uint8_t)(int8_t)(whole + (rest >= 0.5f) - (rest <= -0.5f));
    }
    return half < 0x7c00;
}
static inline bool round_q4(const float *x, uint32_t most, uint8_t *out) {
    uint32_t first = BLOCK, code[BLOCK];
    for (uint32_t i = 0; i < BLOCK; i++) {
        uint32_t at = (lk__math_bits32(x[i]) & 0x7fffffff) == most ? i : BLOCK;
        first = at < first ? at : first;
    }
    float scale = x[first] / -8.0f, inverse = inverse_of(scale);
    uint16_t half = lk__math_to_half(scale);
    memcpy(out, &half, 2);
    for (size_t i = 0; i < BLOCK; i++) {
        float t = x[i] * inverse;
        int32_t c = (int32_t)(t + 8.5f);
        code[i] = (uint32_t)(c > 15 ? 15 : c);
    }
    for (size_t i = 0; i < BLOCK / 2; i++) out[2 + i] = (uint8_t)(code[i] | code[i + BLOCK / 2] << 4);
    return (half & 0x7fff) < 0x7c00;
}
static bool round_plain(enum lk_dtype dtype, size_t k, const float *x, uint8_t *out) {
    uint32_t most = 0;
    for (size_t i = 0; i < k; i++) {
        uint32_t m = lk__math_bits32(x[i]) & 0x7fffffff;
        most = m > most ? m : most;
    }
    bool good = most < 0x7f800000;
    if (dtype == LK_F32) memcpy(out, x, 4 * k);
    for (size_t i = 0; dtype == LK_BF16 && i < k; i++) {
        uint32_t u = lk__math_bits32(x[i]);
        uint16_t half = (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
        good &= (half & 0x7f80) != 0x7f80;
        memcpy(out + 2 * i, &half, 2);
    }
    for (size_t i = 0; dtype == LK_F16 && i < k; i++) {
        uint16_t half = lk__math_to_half(x[i]);
        good &= (half & 0x7c00) != 0x7c00;
        memcpy(out + 2 * i, &half, 2);
    }
    return good;
}
bool ROUND_NAME(quant_round)(enum lk_dtype dtype, size_t k, const float *x, uint8_t *out) {
    if (dtype < LK_Q8) return round_plain(dtype, k, x, out);
    bool good = true;
    size_t bytes = dtype == LK_Q8 ? 34 : 18;
    for (size_t b = 0; b < k / BLOCK; b++, x += BLOCK, out += bytes) {
        uint32_t most = most_bits(x);
        if (most >= 0x7f800000) return false;
        good &= dtype == LK_Q8 ? round_q8(x, most, out) : round_q4(x, most, out);
    }
    return good;
}

/* --- Activations ------------------------------------------------------------------------------------------ */

static inline void one_activation_block(const float *x, int8_t *q, float *scale, int32_t sums[2]) {
    uint32_t bits = most_bits(x);
    float most = lk__math_float(bits);
    bool finite = bits < 0x7f800000, some = finite && most >= LK__QUANT_LEAST;
    float inverse = some ? 127.0f / most : 0;
    int32_t sum = 0;
    *scale = !finite ? lk__math_float(0x7fc00000) : some ? most / 127.0f : 0;
    if (!some) {
        memset(q, 0, BLOCK);
        sums[0] = sums[1] = 0;
        return;
    }
    for (size_t i = 0; i < BLOCK; i++) {
        int32_t a = (int32_t)((x[i] * inverse + WHOLE) - WHOLE);
        q[i] = (int8_t)a;
        sum += a;
    }
    sums[0] = -128 * sum, sums[1] = -8 * sum;
}
void ROUND_NAME(quant_activations)(size_t rows, size_t k, const float *x, uint8_t *records) {
    for (size_t b = 0; b < k / BLOCK; b++, records += rows * LK__QUANT_RECORD)
        for (size_t r = 0; r < rows; r++) {
            float scale;
            int32_t sums[2];
            one_activation_block(x + r * k + b * BLOCK, (int8_t *)records + r * BLOCK, &scale, sums);
            uint8_t *behind = records + rows * BLOCK;
            memcpy(behind + 4 * r, &scale, 4);
            memcpy(behind + 4 * (rows + r), &sums[0], 4);
            memcpy(behind + 4 * (2 * rows + r), &sums[1], 4);
        }
}
#undef BLOCK
