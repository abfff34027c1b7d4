/* The reference: plain scalar C that follows docs/numerics.md line by line.
 *
 * The same source is compiled three times: LK_REF=fma (the machine's fma), LK_REF=soft (ours, for machines without one)
 * and LK_REF=real64 (real = double), the accurate model that tests compare with. The float kernels are called
 * lk__math_ref_fma_* and lk__math_ref_soft_* and are reached through the kernel table; the double ones are called
 * lk__math_ref64_* and are declared here for tests, with the same arguments where every float is a double. */
#ifndef LOCKSTEP_MATH_REF_H
#define LOCKSTEP_MATH_REF_H
#include "math/exact.h"
#include "math/kernel_table.h"

#define LK__JOIN2(a, b) a##b
#define LK__JOIN(a, b)  LK__JOIN2(a, b)

#if !defined(LK_REF) || defined(LK_REF_real64)
/* The double build, or a test that calls it. */
#define LK_REAL_IS_DOUBLE 1
typedef double real;
#define REF(name)        lk__math_ref64_##name
#define REF_STRUCT(name) lk__math_ref64_##name
#define RC(x)            (x) /* a constant of the contract: not rounded to float */
#else
typedef float real;
#define REF(name)        LK__JOIN(LK__JOIN(lk__math_ref_, LK_REF), LK__JOIN(_, name))
#define REF_STRUCT(name) lk_##name
#define RC(x)            ((float)(x))
#endif

#if LK_REAL_IS_DOUBLE
struct lk__math_ref64_mm_part {
    const double *a, *b;
    size_t a_row, a_col, b_row, b_col, k;
    bool ends_group;
};
struct lk__math_ref64_mm {
    size_t m, n;
    const struct lk__math_ref64_mm_part *parts;
    size_t part_count;
    double *c;
    size_t ldc;
    bool accumulate;
    const double *bias, *residual;
    size_t ld_residual;
};
struct lk__math_ref64_attention {
    uint32_t sequences, queries, first, heads, kv_heads, head_dim;
    const double *q, *k, *v;
    size_t ldq, ldk, ldv, kv_rows;
    const uint32_t *document_start;
    double *o;
    size_t ldo;
    double *m, *r;
    const uint32_t *pages;
    uint32_t page_positions;
    size_t page_stride;
};
#endif

/* Longest head that the reference's attention takes; the other kernels have the same limit. */
#define LK__REF_HEAD_DIM_MAX 1024
#define LK__SEGMENT          512
#define LK__LANES            64
#define LK__TREE_LEVELS      64 /* of the stack that combines groups: 2^64 of them */

/* Scalars. */
static inline real REF(fma)(real a, real b, real c) {
#if LK_REAL_IS_DOUBLE
    return a * b + c; /* the accurate model: one rounding more or less is nothing that a test of accuracy could see */
#elif defined(LK_REF_fma)
    return __builtin_fmaf(a, b, c);
#else
    return lk__math_soft_fma(a, b, c);
#endif
}
static inline real REF(sqrt)(real x) {
#if LK_REAL_IS_DOUBLE
    return __builtin_sqrt(x);
#else
    return __builtin_sqrtf(x);
#endif
}
real REF(exp)(real x);
real REF(softmax_exp)(real x);
real REF(tanh)(real x);
real REF(log)(real x);
real REF(max)(real a, real b);
/* Section 4: the end of a row sum. */
real REF(lanes_sum)(real lanes[LK__LANES]);

/* Kernels: kernel_table.h says what each does. */
void REF(mm_blocking)(const struct REF_STRUCT(mm) *, size_t threads, const struct lk_caches *, size_t *tile_rows,
                      size_t *tile_columns, bool *transposed);
#if !LK_REAL_IS_DOUBLE
bool REF(quant_round)(enum lk_dtype, size_t k, const float *x, uint8_t *out);
void REF(quant_activations)(size_t rows, size_t k, const float *x, uint8_t *records);
void REF(quant_fill)(enum lk_dtype, size_t n, size_t k, const void *w, void *panel);
void REF(quant_multiply)(const struct lk__math_quant_group *, size_t k, const struct lk_quant_product *, size_t j0,
                         size_t j1);
#endif
void REF(mm_tile)(const struct REF_STRUCT(mm) *, size_t i0, size_t i1, size_t j0, size_t j1, const struct lk_caches *,
                  void *scratch);
void REF(attention_forward)(const struct REF_STRUCT(attention) *, uint32_t sequence, uint32_t head, uint32_t i0,
                            uint32_t i1, const struct lk_caches *, void *scratch);
void REF(attention_backward)(const struct REF_STRUCT(attention) *, const real *dout, size_t ld_dout, real q_scale, real *dq,
                             real *dk, real *dv, uint32_t sequence, uint32_t kv_head, const struct lk_caches *,
                             void *scratch);
void REF(norm_forward)(size_t rows, size_t n, size_t batch, const real *x, const real *gain, const real *bias, real eps,
                       real *y, real *mean, real *rstd);
void REF(norm_backward)(size_t rows, size_t n, size_t batch, const real *x, const real *gain, const real *mean,
                        const real *rstd, bool layer, const real *dy, const real *dx_add, real *dx, real *normalised);
void REF(cross_entropy)(size_t rows, size_t vocab, real *logits, size_t ld, const uint32_t *targets, real scale,
                        bool gradient, real *loss);
void REF(rope)(size_t rows, size_t row0, uint32_t heads, uint32_t head_dim, uint32_t positions, uint32_t first,
               const real *cos_table, const real *sin_table, real scale, bool inverse, real *x, size_t ldx);
void REF(column_sum)(size_t n, const real *y, size_t ldy, const real *factor, size_t ld_factor,
                     const struct lk_row_part *parts, size_t part_count, bool accumulate, real *out);
void REF(swiglu_forward)(size_t n, const real *gate, const real *up, real *out);
void REF(swiglu_backward)(size_t n, const real *gate, const real *up, const real *dout, real *dgate, real *dup);
void REF(gelu_forward)(size_t n, const real *x, real *out);
void REF(gelu_backward)(size_t n, const real *x, const real *dout, real *dx);
void REF(add)(size_t n, const real *a, const real *b, real *out);
void REF(scale)(size_t n, real scale, real *x);
void REF(exp_n)(size_t n, const real *x, real *y);
void REF(tanh_n)(size_t n, const real *x, real *y);
void REF(softmax_exp_n)(size_t n, const real *x, real subtract, real *y);
double REF(block_squares)(size_t n, const real *x);
void REF(adamw)(const struct lk_adamw *, size_t n, real *w, const real *g, real *m, real *v);
bool REF(all_finite)(size_t n, const real *x);

#endif
