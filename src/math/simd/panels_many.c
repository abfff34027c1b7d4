/* Products of many rows with weights in panels. Rows of x become panels of MR rows, a segment of k behind the other;
 * weights go straight from memory into the micro-kernels, which ask for the next panel's while they multiply. A block of
 * columns is finished segment by segment, so that a segment of x stays in L2 and the block's totals do too. */
#include "math/kernel_table.h"
#include "math/simd/matmul_micro.h"
#include "math/simd/matmul_pack.h"

#define COLUMNS 256 /* of a block */
/* A panel goes through the micro-kernel in parts of so many vectors. */
#define PARTS   ((LK_PANEL / VL + NR_VECTORS - 1) / NR_VECTORS)
#define VECTORS (LK_PANEL / VL / PARTS)

_Static_assert(LK_PANEL == PARTS * VECTORS * VL, "parts are equal");

/* Blocks of rows for the micro-kernel, as equal as they can be: none of two rows beside one of fourteen. */
static size_t blocks_of(size_t rows) {
    return (rows + MR - 1) / MR;
}
static size_t block_begin(size_t rows, size_t blocks, size_t i) {
    size_t more = rows % blocks;
    return i * (rows / blocks) + smaller(i, more);
}

static size_t widened_at(size_t rows, size_t k) {
    return ((rows + MR) * k + 64 + 15) / 16 * 16;
}
static size_t packed_floats(size_t rows, size_t k) {
    /* Panels are padded to MR rows, and the last one written a vector beyond; a segment of weights is widened behind. */
    return widened_at(rows, k) + SEGMENT * LK_PANEL;
}

static void pack(size_t rows, size_t k, const float *x, float *to) {
    size_t blocks = blocks_of(rows);
    for (size_t k0 = 0; k0 < k; k0 += SEGMENT) {
        size_t n = smaller(SEGMENT, k - k0);
        for (size_t i = 0; i < blocks; i++, to += MR * n) {
            size_t from = block_begin(rows, blocks, i), end = block_begin(rows, blocks, i + 1);
            panel_along(MR, end - from, n, x + from * k + k0, k, to, NULL);
        }
    }
}

/* Totals of all rows in one panel: its columns begin at y. */
static void one_segment(size_t rows, size_t n, const float *a, const float *b, const float *next, float *y, size_t ldy,
                        bool first) {
    size_t blocks = blocks_of(rows), lines = n / (blocks * PARTS) + 1;
    for (size_t i = 0; i < blocks; i++, a += MR * n) {
        size_t from = block_begin(rows, blocks, i), here = block_begin(rows, blocks, i + 1) - from;
        for (size_t part = 0; part < PARTS; part++) {
            const float *ask = next + (i * PARTS + part) * lines * LK_PANEL;
            struct lk__math_prefetch prefetch = {ask, ask + lines / 2 * LK_PANEL, LK_PANEL / (blocks * PARTS) + 1};
            lk__math_micro[here - 1][VECTORS - 1](n, a, 1, MR, b + part * VECTORS * VL, LK_PANEL,
                                                  y + from * ldy + part * VECTORS * VL, ldy,
                                                  first ? MICRO_STORE : MICRO_ADD, &prefetch);
        }
    }
}

static void finish(const struct lk_panel_product *p, size_t rows, size_t j) {
    for (size_t r = 0; r < rows && (p->bias || p->residual); r++)
        for (size_t v = j; v < j + LK_PANEL; v += VL) {
            size_t at = r * p->n + v;
            vf y = v_load(p->y + at);
            if (p->bias) y = v_add(y, v_load(p->bias + v));
            if (p->residual) y = v_add(v_load(p->residual + at), y);
            v_store(p->y + at, y);
        }
}

/* n of k of a panel of halves, as floats behind the packed rows. */
static const float *widened(const void *panels, size_t at, size_t n, const float *packed, size_t rows, size_t k) {
    const uint16_t *from = (const uint16_t *)panels + at;
    float *to = (float *)(uintptr_t)packed + widened_at(rows, k);
    for (size_t i = 0; i < n * LK_PANEL; i += VL) v_store(to + i, v_from_bf16(from + i));
    return to;
}

static void multiply(size_t rows, size_t k, const float *packed, const struct lk_panel_product *p, size_t j0, size_t j1) {
    size_t blocks = blocks_of(rows);
    for (size_t block = j0, end; block + LK_PANEL <= j1; block = end) {
        end = smaller(block + COLUMNS, j0 + (j1 - j0) / LK_PANEL * LK_PANEL);
        for (size_t k0 = 0; k0 < k; k0 += SEGMENT) {
            size_t n = smaller(SEGMENT, k - k0);
            for (size_t j = block; j < end; j += LK_PANEL) {
                size_t at = j * k + k0 * LK_PANEL;
                const float *b =
                    p->dtype == LK_BF16 ? widened(p->panels, at, n, packed, rows, k) : (const float *)p->panels + at;
                one_segment(rows, n, packed + blocks * MR * k0, b, p->dtype == LK_BF16 ? b : b + LK_PANEL * k, p->y + j,
                            p->n, k0 == 0);
                if (k0 + n == k) finish(p, rows, j);
            }
        }
    }
}

void LK_ISA_NAME(lk__math_fill_panels_many)(struct lk__math_kernels *);
void LK_ISA_NAME(lk__math_fill_panels_many)(struct lk__math_kernels *k) {
    k->panels_packed_floats = packed_floats;
    k->panels_pack = pack;
    k->panels_multiply_many = multiply;
}
