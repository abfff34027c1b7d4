/* The table of one instruction set. */
#include "math/kernel_table.h"
#include "math/simd/vec.h"

void LK_ISA_NAME(lk__fill_matmul)(struct lk__kernels *);
void LK_ISA_NAME(lk__fill_attention)(struct lk__kernels *);

void LK_ISA_NAME(lk__fill_elements)(struct lk__kernels *);
void LK_ISA_NAME(lk__fill_rows)(struct lk__kernels *);
void LK_ISA_NAME(lk__fill_columns)(struct lk__kernels *);
void LK_ISA_NAME(lk__fill_normal)(struct lk__kernels *);
void LK_ISA_NAME(lk__fill_panels)(struct lk__kernels *);
void LK_ISA_NAME(lk__fill_peak)(struct lk__kernels *);

void LK_ISA_NAME(lk__fill)(struct lk__kernels *k) {
    k->isa = LK_ISA_STRING;
    k->vector = VL;
    LK_ISA_NAME(lk__fill_matmul)(k);
    LK_ISA_NAME(lk__fill_attention)(k);
    LK_ISA_NAME(lk__fill_elements)(k);
    LK_ISA_NAME(lk__fill_rows)(k);
    LK_ISA_NAME(lk__fill_columns)(k);
    LK_ISA_NAME(lk__fill_normal)(k);
    LK_ISA_NAME(lk__fill_panels)(k);
    LK_ISA_NAME(lk__fill_peak)(k);
}
