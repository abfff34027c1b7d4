/* Weights in fewer bits, by the page's rule (docs/numerics.md, section 14). Panels of the reference are the rows
 * themselves. */
#include "math/quant.h"
#include "math/ref/ref.h"

#if !LK_REAL_IS_DOUBLE
#define ROUND_NAME(name) REF(name)
#include "math/quant_round.h"

void REF(quant_fill)(enum lk_dtype dtype, size_t n, size_t k, const void *w, void *panel) {
    memcpy(panel, w, n * lk_dtype_row_bytes(dtype, k));
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
