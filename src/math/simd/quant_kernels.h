/* Products with weights in blocks. A panel has 16 columns: first the scales of all blocks (16 fp16 each), then the blocks,
 * each in groups of four k: 16 columns of 4 bytes, so that one vector has four k of VL columns and meets four bytes of a
 * row, repeated. Of Q4 a group's halves are two groups: k [4 g, 4 g + 4) and 16 further on.
 *
 * Whoever includes this has defined, for its instruction set:
 *   DOT8(sum, w, x)  sum of four products a lane, added: w as stored in a panel of Q8, x signed
 *   DOT4(sum, w, x)  the same of Q4: w from 0 to 15
 *   FLIP             bits that are flipped in stored bytes of Q8, and
 *   ZERO8            what they then have too much: 0 or 128
 * and QUANT_NAME(x), the names of its copy. */
#include "math/kernel_table.h"
#include "math/simd/vec.h"

#define PANEL   LK_QUANT_PANEL
#define BLOCK   LK_QUANT_BLOCK
#define VECTORS (PANEL / VL)
#define GROUPS  (BLOCK / 4)
#define SEGMENT (512 / BLOCK) /* blocks of a chain */
#define SCALES  (PANEL * 2)   /* bytes of a block's scales */
/* Rows of a group, and panels side by side: sums and chains fill the registers. With fewer rows more panels, whose streams
 * and chains then hide the latencies. */
#define ROWS (VL == 16 ? 6 : VL == 8 ? 2 : 4)
#define SIDE (VL == 16 ? 2 : 1)

static size_t smaller(size_t a, size_t b) {
    return a < b ? a : b;
}
static size_t values_bytes(enum lk_dtype dtype) {
    return PANEL * BLOCK / (dtype == LK_Q8 ? 1 : 2);
}
/* Words of four k go to their places. */
static void fill(enum lk_dtype dtype, size_t n, size_t k, const void *w, void *panel) {
    size_t row = lk_dtype_row_bytes(dtype, k), block = lk_dtype_row_bytes(dtype, BLOCK), words = (block - 2) / 4;
    uint8_t *values = (uint8_t *)panel + lk__math_quant_scales(k);
    const uint32_t flip = dtype == LK_Q8 ? 0x01010101u * FLIP : 0;
    memset(panel, 0, n < PANEL ? lk__math_quant_panel(dtype, k) : lk__math_quant_scales(k));
    for (size_t b = 0; b < k / BLOCK; b++, values += values_bytes(dtype))
        for (size_t j = 0; j < n; j++) {
            const uint8_t *from = (const uint8_t *)w + j * row + b * block;
            memcpy((uint8_t *)panel + b * SCALES + 2 * j, from, 2);
            for (size_t i = 0; i < words; i++) {
                uint32_t four;
                memcpy(&four, from + 2 + 4 * i, 4);
                four ^= flip;
                memcpy(values + i * 4 * PANEL + 4 * j, &four, 4);
            }
        }
}

LK_INLINE vi four(const void *p) { /* of a row, in every lane */
    int32_t x;
    memcpy(&x, p, 4);
    return vi_set1(x);
}
LK_INLINE vi values_at(const uint8_t *p) {
    return vi_load((const int32_t *)(const void *)p);
}

LK_INLINE float float_at(const uint8_t *p) {
    float x;
    memcpy(&x, p, 4);
    return x;
}

/* One block of `rows` rows and `side` panels, which are `stride` bytes apart, onto the chains: rows x columns. */
LK_INLINE void one_block(const bool q4, const size_t rows, const size_t side, const uint8_t *record, const uint8_t *scales,
                         const uint8_t *values, size_t stride, vf *chain) {
    const size_t columns = side * VECTORS, groups = q4 ? GROUPS / 2 : GROUPS;
    const uint8_t *behind = record + rows * BLOCK;
    vi sum[16];
    UNROLL
    for (size_t r = 0; r < rows; r++) {
        UNROLL
        for (size_t c = 0; c < columns; c++)
            sum[r * columns + c] = q4      ? four(behind + 4 * (2 * rows + r))
                                   : ZERO8 ? four(behind + 4 * (rows + r))
                                           : vi_set1(0);
    }
    UNROLL
    for (size_t g = 0; g < groups; g++) {
        vi low[4], high[4];
        UNROLL
        for (size_t c = 0; c < columns; c++) {
            low[c] = values_at(values + c / VECTORS * stride + g * 4 * PANEL + c % VECTORS * VL * 4);
            if (q4)
                high[c] = vi_and(vi_shr_u(low[c], 4), vi_set1(0x0f0f0f0f)), low[c] = vi_and(low[c], vi_set1(0x0f0f0f0f));
        }
        UNROLL
        for (size_t r = 0; r < rows; r++) {
            vi x = four(record + r * BLOCK + g * 4), behind_x = q4 ? four(record + r * BLOCK + BLOCK / 2 + g * 4) : x;
            UNROLL
            for (size_t c = 0; c < columns; c++) {
                vi *s = &sum[r * columns + c];
                *s = q4 ? DOT4(DOT4(*s, low[c], x), high[c], behind_x) : DOT8(*s, low[c], x);
            }
        }
    }
    UNROLL
    for (size_t c = 0; c < columns; c++) {
        vf scale = v_from_half(scales + c / VECTORS * stride + c % VECTORS * VL * 2);
        UNROLL
        for (size_t r = 0; r < rows; r++) {
            vf *y = &chain[r * columns + c], s = v_mul(scale, v_set1(float_at(behind + 4 * r)));
            *y = v_fma(vi_to_float(sum[r * columns + c]), s, *y);
        }
    }
}

LK_INLINE void finish(const struct lk_quant_product *p, size_t row, size_t j, vf y, size_t n) {
    size_t at = row * p->n + j;
    if (n >= VL) {
        if (p->bias) y = v_add(y, v_load(p->bias + j));
        if (p->residual) y = v_add(v_load(p->residual + at), y);
        v_store(p->y + at, y);
    } else if (n) {
        if (p->bias) y = v_add(y, v_load_n(p->bias + j, n));
        if (p->residual) y = v_add(v_load_n(p->residual + at, n), y);
        v_store_n(p->y + at, y, n);
    }
}

/* All of k for a group and `side` panels. rows and side are constants at each use. */
LK_INLINE void whole(const bool q4, const size_t rows, const size_t side, size_t k, const uint8_t *record,
                     const struct lk_quant_product *p, size_t j, size_t j1) {
    const size_t columns = side * VECTORS, block = q4 ? PANEL * BLOCK / 2 : PANEL * BLOCK;
    size_t stride = lk__math_quant_panel(q4 ? LK_Q4 : LK_Q8, k);
    const uint8_t *scales = (const uint8_t *)p->panels + j / PANEL * stride, *values = scales + lk__math_quant_scales(k);
    vf total[16];
    for (size_t c = 0; c < rows * columns; c++) total[c] = v_zero();
    for (size_t b = 0; b < k / BLOCK;) {
        vf chain[16];
        UNROLL
        for (size_t c = 0; c < rows * columns; c++) chain[c] = v_zero();
        for (size_t end = smaller(b + SEGMENT, k / BLOCK); b < end; b++) {
            one_block(q4, rows, side, record, scales, values, stride, chain);
            record += rows * LK__QUANT_RECORD, scales += SCALES, values += block;
        }
        UNROLL
        for (size_t c = 0; c < rows * columns; c++) total[c] = v_add(total[c], chain[c]);
    }
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < columns; c++) {
            size_t from = j + c / VECTORS * PANEL + c % VECTORS * VL;
            finish(p, r, from, total[r * columns + c], from < j1 ? j1 - from : 0);
        }
}

/* Panels from j on for a constant number of rows; several side by side while there are so many. */
LK_INLINE void panels(const bool q4, const size_t rows, const size_t side, size_t k, const uint8_t *record,
                      const struct lk_quant_product *p, size_t j, size_t j1) {
    for (; j + side * PANEL <= j1; j += side * PANEL) whole(q4, rows, side, k, record, p, j, j1);
    for (; j < j1; j += PANEL) whole(q4, rows, 1, k, record, p, j, j1);
}

#define CASE(n)                                                                                                            \
    case n:                                                                                                                \
        panels(q4, n, VL == 16 && n == 1 ? 4 : SIDE, k, x->records, p, j0, j1);                                            \
        break;
LK_INLINE void multiply_format(const bool q4, const struct lk__math_quant_group *x, size_t k,
                               const struct lk_quant_product *p, size_t j0, size_t j1) {
    switch (x->rows) {
        CASE(1)
        CASE(2)
#if VL != 8
        CASE(3)
        CASE(4)
#endif
#if VL == 16
        CASE(5)
        CASE(6)
#endif
    }
}
#undef CASE
static void multiply(const struct lk__math_quant_group *x, size_t k, const struct lk_quant_product *p, size_t j0,
                     size_t j1) {
    if (p->dtype == LK_Q8)
        multiply_format(false, x, k, p, j0, j1);
    else
        multiply_format(true, x, k, p, j0, j1);
}

void QUANT_NAME(lk__math_fill_quant)(struct lk__math_kernels *);
void QUANT_NAME(lk__math_fill_quant)(struct lk__math_kernels *k) {
    k->quant_rows = ROWS, k->quant_columns = SIDE * PANEL;
    k->quant_fill = fill;
    k->quant_multiply = multiply;
}
