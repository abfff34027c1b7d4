/* Rounding to fewer bits, the plain source as this instruction set's vectors. */
#include "math/kernel_table.h"
#include "math/simd/vec.h"

#define ROUND_NAME(x) LK_ISA_NAME(lk__math_##x)
bool LK_ISA_NAME(lk__math_quant_round)(enum lk_dtype, size_t k, const float *x, uint8_t *out);
void LK_ISA_NAME(lk__math_quant_activations)(size_t rows, size_t k, const float *x, uint8_t *records);
#include "math/quant_round.h"

void LK_ISA_NAME(lk__math_fill_rounding)(struct lk__math_kernels *);
void LK_ISA_NAME(lk__math_fill_rounding)(struct lk__math_kernels *k) {
    k->quant_round = ROUND_NAME(quant_round);
    k->quant_activations = ROUND_NAME(quant_activations);
}
