/* The table of one instruction set. */
#include "math/kernel_table.h"
#include "math/simd/vec.h"

void LK_ISA_NAME(lk__math_fill_matmul)(struct lk__math_kernels *);
void LK_ISA_NAME(lk__math_fill_attention)(struct lk__math_kernels *);

void LK_ISA_NAME(lk__math_fill_elements)(struct lk__math_kernels *);
void LK_ISA_NAME(lk__math_fill_rows)(struct lk__math_kernels *);
void LK_ISA_NAME(lk__math_fill_columns)(struct lk__math_kernels *);
void LK_ISA_NAME(lk__math_fill_normal)(struct lk__math_kernels *);
void LK_ISA_NAME(lk__math_fill_panels)(struct lk__math_kernels *);
void LK_ISA_NAME(lk__math_fill_panels_many)(struct lk__math_kernels *);
void LK_ISA_NAME(lk__math_fill_peak)(struct lk__math_kernels *);
void LK_ISA_NAME(lk__math_fill_quant)(struct lk__math_kernels *);
void LK_ISA_NAME(lk__math_fill_rounding)(struct lk__math_kernels *);

void LK_ISA_NAME(lk__math_fill)(struct lk__math_kernels *k) {
    k->isa = LK_ISA_STRING;
    k->vector = VL;
    LK_ISA_NAME(lk__math_fill_matmul)(k);
    LK_ISA_NAME(lk__math_fill_attention)(k);
    LK_ISA_NAME(lk__math_fill_elements)(k);
    LK_ISA_NAME(lk__math_fill_rows)(k);
    LK_ISA_NAME(lk__math_fill_columns)(k);
    LK_ISA_NAME(lk__math_fill_normal)(k);
    LK_ISA_NAME(lk__math_fill_panels)(k);
    LK_ISA_NAME(lk__math_fill_panels_many)(k);
    LK_ISA_NAME(lk__math_fill_peak)(k);
    LK_ISA_NAME(lk__math_fill_quant)(k);
    LK_ISA_NAME(lk__math_fill_rounding)(k);
}
