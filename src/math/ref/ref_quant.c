/* Weights in fewer bits, by the page's rule (docs/numerics.md, section 14). Panels of the reference are the rows
 * themselves. */
#include "math/quant.h"
#include "math/ref/ref.h"

#if !LK_REAL_IS_DOUBLE
void REF(quant_fill)(enum lk_dtype dtype, size_t n, size_t k, const uint8_t *w, uint8_t *panel) {
    memcpy(panel, w, n * lk_dtype_row_bytes(dtype, k));
}

static float magnitude(float x) {
    return lk__math_float(lk__math_bits32(x) & 0x7fffffff);
}
/* To the nearest whole number, halves to the even one; |x| < 2^22. */
static float nearest(float x) {
    float big = x < 0 ? -0x1.8p23f : 0x1.8p23f;
    volatile float sum = x + big;
    return sum - big;
}

/* ggml's reference rounds halves away from zero. |x| < 2^22. */
static int away(float x) {
    int whole = (int)x;
    float rest = x - (float)whole;
    return whole + (rest >= 0.5f) - (rest <= -0.5f);
}
static float inverse_of(float scale) {
    float inverse = scale != 0 ? 1.0f / scale : 0;
    return magnitude(inverse) < __builtin_inff() ? inverse : 0;
}
static bool round_q8(const float *x, uint8_t *out) {
    float most = 0;
    for (size_t i = 0; i < LK_QUANT_BLOCK; i++) most = magnitude(x[i]) > most ? magnitude(x[i]) : most;
    float scale = most / 127.0f, inverse = inverse_of(scale);
    uint16_t half = lk__math_to_half(scale);
    memcpy(out, &half, 2);
    for (size_t i = 0; i < LK_QUANT_BLOCK; i++) out[2 + i] = (uint8_t)(int8_t)away(x[i] * inverse);
    return half < 0x7c00;
}
static bool round_q4(const float *x, uint8_t *out) {
    float most = 0, of = 0;
    for (size_t i = 0; i < LK_QUANT_BLOCK; i++)
        if (magnitude(x[i]) > most) most = magnitude(x[i]), of = x[i];
    float scale = of / -8.0f, inverse = inverse_of(scale);
    uint16_t half = lk__math_to_half(scale);
    memcpy(out, &half, 2);
    for (size_t i = 0; i < LK_QUANT_BLOCK / 2; i++) {
        int low = (int)(x[i] * inverse + 8.5f), high = (int)(x[i + LK_QUANT_BLOCK / 2] * inverse + 8.5f);
        out[2 + i] = (uint8_t)((low > 15 ? 15 : low) | (high > 15 ? 15 : high) << 4);
    }
    return (half & 0x7fff) < 0x7c00;
}
bool REF(quant_round)(enum lk_dtype dtype, size_t k, const float *x, uint8_t *out) {
    bool good = true;
    for (size_t i = 0; i < k; i++) good &= magnitude(x[i]) < __builtin_inff();
    if (!good) return false;
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
    for (size_t b = 0; dtype >= LK_Q8 && b < k / LK_QUANT_BLOCK; b++, x += LK_QUANT_BLOCK)
        good &= dtype == LK_Q8 ? round_q8(x, out + 34 * b) : round_q4(x, out + 18 * b);
    return good;
}

static void one_block(const float *x, int8_t *q, float *scale, int32_t sums[2]) {
    float most = 0;
    bool finite = true;
    for (size_t i = 0; i < LK_QUANT_BLOCK; i++) {
        float m = magnitude(x[i]);
        finite &= m < __builtin_inff();
        if (m > most) most = m;
    }
    bool some = finite && most >= LK__QUANT_LEAST;
    float inverse = some ? 127.0f / most : 0;
    int32_t sum = 0;
    *scale = !finite ? lk__math_float(0x7fc00000) : some ? most / 127.0f : 0;
    for (size_t i = 0; i < LK_QUANT_BLOCK; i++) {
        q[i] = finite ? (int8_t)nearest(x[i] * inverse) : 0;
        sum += q[i];
    }
    sums[0] = -128 * sum, sums[1] = -8 * sum;
}
void REF(quant_activations)(size_t rows, size_t k, const float *x, uint8_t *records) {
    for (size_t b = 0; b < k / LK_QUANT_BLOCK; b++, records += rows * LK__QUANT_RECORD)
        for (size_t r = 0; r < rows; r++) {
            float scale;
            int32_t sums[2];
            one_block(x + r * k + b * LK_QUANT_BLOCK, (int8_t *)records + r * LK_QUANT_BLOCK, &scale, sums);
            uint8_t *behind = records + rows * LK_QUANT_BLOCK;
            memcpy(behind + 4 * r, &scale, 4);
            memcpy(behind + 4 * (rows + r), &sums[0], 4);
            memcpy(behind + 4 * (2 * rows + r), &sums[1], 4);
        }
}

static int weight(enum lk_dtype dtype, const uint8_t *block, size_t i) {
    if (dtype == LK_Q8) return (int8_t)block[2 + i];
    return (i < 16 ? block[2 + i] & 15 : block[2 + i - 16] >> 4) - 8;
}

static float element(const struct lk__math_quant_group *x, size_t r, size_t k, enum lk_dtype dtype, const uint8_t *block) {
    const uint8_t *record = x->records;
    float total = 0;
    for (size_t b = 0; b < k / LK_QUANT_BLOCK;) {
        float chain = 0;
        for (size_t end = b + LK__SEGMENT / LK_QUANT_BLOCK; b < end && b < k / LK_QUANT_BLOCK; b++) {
            const int8_t *q = (const int8_t *)record + r * LK_QUANT_BLOCK;
            float scale;
            int32_t sum = 0;
            for (size_t i = 0; i < LK_QUANT_BLOCK; i++) sum += weight(dtype, block, i) * q[i];
            memcpy(&scale, record + x->rows * LK_QUANT_BLOCK + 4 * r, 4);
            chain = REF(fma)((float)sum, lk__math_half(block) * scale, chain);
            record += x->rows * LK__QUANT_RECORD, block += lk_dtype_row_bytes(dtype, LK_QUANT_BLOCK);
        }
        total = total + chain;
    }
    return total;
}
void REF(quant_multiply)(const struct lk__math_quant_group *x, size_t k, const struct lk_quant_product *p, size_t j0,
                         size_t j1) {
    size_t row_bytes = lk_dtype_row_bytes(p->dtype, k);
    for (size_t r = 0; r < x->rows; r++)
        for (size_t j = j0; j < j1; j++) {
            const uint8_t *panel = (const uint8_t *)p->panels + j / LK_QUANT_PANEL * lk__math_quant_panel(p->dtype, k);
            float total = element(x, r, k, p->dtype, panel + j % LK_QUANT_PANEL * row_bytes);
            if (p->bias) total = total + p->bias[j];
            if (p->residual) total = p->residual[r * p->n + j] + total;
            p->y[r * p->n + j] = total;
        }
}
#endif
