/* Weights in fewer bits, and products with them: docs/numerics.md, section 14. Blocks are those of GGUF (ggml's Q8_0,
 * Q4_0), byte for byte; sums within a block are whole numbers, so they have no order. Bits are equal for every instruction
 * set, number of threads and of rows at once. */
#ifndef LOCKSTEP_MATH_QUANT_H
#define LOCKSTEP_MATH_QUANT_H
#include "lockstep/math/math.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* How the numbers of a tensor are stored. A block is 32 numbers of a row:
 *   LK_Q8   34 bytes: an fp16 scale, then 32 signed bytes.    number i = scale * byte i
 *   LK_Q4   18 bytes: an fp16 scale, then 16 bytes.           number i = scale * (low half of byte i - 8); i + 16: high
 * half All are little-endian. */
enum lk_dtype { LK_F32, LK_BF16, LK_F16, LK_Q8, LK_Q4 };
#define LK_QUANT_BLOCK 32
const char *lk_dtype_name(enum lk_dtype);                  /* "f32", "bf16", "f16", "q8", "q4" */
bool lk_dtype_named(const char *name, enum lk_dtype *out); /* false: none is called so */
/* Bytes of a row of k numbers; 0: k is no multiple of LK_QUANT_BLOCK, and the format wants one. */
size_t lk_dtype_row_bytes(enum lk_dtype, size_t k);

/* Rounds rows of x (rows, k) into a format. LK_EINVAL: a number is no finite one, or a scale is beyond fp16. */
int lk_quantize(struct lk_math *, enum lk_dtype, size_t rows, size_t k, const float *x, void *out, struct lk_err *);
/* The numbers that rows stand for: exact for LK_BF16 and LK_F16, one rounding each for blocks. */
void lk_dequantize(struct lk_math *, enum lk_dtype, size_t rows, size_t k, const void *w, float *out);

/* Keys and values in LK_Q8 (docs/numerics.md, section 14): as lk_quantize, but a block that it refuses becomes one that
 * stands for NaN. Row i of x (rows, k) goes to the words that begin at out + place[i]; or x itself becomes what its blocks
 * stand for. */
void lk_quantize_scatter(struct lk_math *, size_t rows, size_t k, const float *x, const size_t *place, float *out);
void lk_quantize_through(struct lk_math *, size_t rows, size_t k, float *x);

/* Rows of activations in blocks: 32 signed bytes, a float scale, two 32-bit sums. memory: lk_quantized_bytes of them. */
size_t lk_quantized_bytes(size_t rows, size_t k);
void lk_quantize_activations(struct lk_math *, size_t rows, size_t k, const float *x, void *memory);

/* Panels of 16 rows of W (n, k), as lk_panels_* of floats have them, in the order in which this instruction set reads them.
 * LK_Q8 or LK_Q4; they take what W takes, and less than 64 bytes a panel more. 64-byte aligned memory is fastest. */
#define LK_QUANT_PANEL 16
size_t lk_quant_panels_bytes(enum lk_dtype, size_t n, size_t k);
void lk_quant_panels_fill(struct lk_math *, enum lk_dtype, size_t n, size_t k, const void *w, void *panels);
/* For each product, which share the rows that lk_quantize_activations left in x: y (rows, n) = x W' + bias (n, or NULL),
 * then residual (rows, n, or NULL) + that. */
struct lk_quant_product {
    const void *panels;
    size_t n;
    const float *bias, *residual;
    float *y;
    enum lk_dtype dtype;
};
void lk_quant_multiply(struct lk_math *, size_t rows, size_t k, const void *x, const struct lk_quant_product *,
                       size_t count);

#ifdef __cplusplus
}
#endif
#endif
