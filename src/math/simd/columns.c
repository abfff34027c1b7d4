/* Sums over tokens (docs/numerics.md, section 3): a block of columns in registers, all rows of all parts below one another.
 */
#include "math/kernel_table.h"
#include "math/simd/vec.h"

void LK_ISA_NAME(lk__fill_columns)(struct lk__kernels *);

#define SEGMENT 512
#define VECTORS (32 / VL > 4 ? 32 / VL : 4) /* chains at once: enough to hide the latency of fma */
#define LEVELS  64

struct block {
    const float *y, *factor;
    size_t ldy, ld_factor, last; /* elements of the last vector */
};

LK_INLINE vf load(const float *p, size_t v, size_t vectors, size_t last) {
    return v + 1 < vectors || last == VL ? v_load(p + v * VL) : v_load_n(p + v * VL, last);
}

/* t += the segments of one part, vectors a constant. */
LK_INLINE void add_part(const struct block *b, const struct lk_row_part *part, const size_t vectors, const bool with_factor,
                        vf *t) {
    const float *y = b->y + part->first * b->ldy, *f = with_factor ? b->factor + part->first * b->ld_factor : NULL;
    for (size_t r0 = 0; r0 < part->rows; r0 += SEGMENT) {
        size_t end = part->rows - r0 < SEGMENT ? part->rows : r0 + SEGMENT;
        vf s[VECTORS];
        for (size_t v = 0; v < vectors; v++) s[v] = v_zero();
        for (size_t r = r0; r < end; r++) {
            for (size_t v = 0; v < vectors; v++) {
                vf x = load(y, v, vectors, b->last);
                s[v] = with_factor ? v_fma(load(f, v, vectors, b->last), x, s[v]) : v_add(s[v], x);
            }
            y += b->ldy;
            if (with_factor) f += b->ld_factor;
        }
        for (size_t v = 0; v < vectors; v++) t[v] = v_add(t[v], s[v]);
    }
}

LK_INLINE void sum_block(const struct block *b, const struct lk_row_part *parts, size_t part_count, const size_t vectors,
                         const bool accumulate, float *out) {
    /* The grains' tree: finished nodes, one for each bit that is set in the number of groups so far. */
    vf stack[LEVELS][VECTORS], t[VECTORS];
    size_t nodes = 0, groups = 0;
    for (size_t v = 0; v < vectors; v++) t[v] = accumulate ? load(out, v, vectors, b->last) : v_zero();
    for (size_t p = 0; p < part_count; p++) {
        if (b->factor)
            add_part(b, &parts[p], vectors, true, t);
        else
            add_part(b, &parts[p], vectors, false, t);
        bool last = p + 1 == part_count;
        if (!parts[p].ends_group && !last) continue;
        for (size_t g = groups++; g & 1; g >>= 1, nodes--)
            for (size_t v = 0; v < vectors; v++) t[v] = v_add(stack[nodes - 1][v], t[v]);
        if (last) break;
        for (size_t v = 0; v < vectors; v++) {
            stack[nodes][v] = t[v];
            t[v] = v_zero();
        }
        nodes++;
    }
    for (; nodes; nodes--)
        for (size_t v = 0; v < vectors; v++) t[v] = v_add(stack[nodes - 1][v], t[v]);
    for (size_t v = 0; v < vectors; v++) {
        if (v + 1 < vectors || b->last == VL)
            v_store(out + v * VL, t[v]);
        else
            v_store_n(out + v * VL, t[v], b->last);
    }
}

static void column_sum(size_t n, const float *y, size_t ldy, const float *factor, size_t ld_factor,
                       const struct lk_row_part *parts, size_t part_count, bool accumulate, float *out) {
    size_t j = 0;
    for (; j + VECTORS * VL <= n; j += VECTORS * VL) {
        struct block b = {y + j, factor ? factor + j : NULL, ldy, ld_factor, VL};
        sum_block(&b, parts, part_count, VECTORS, accumulate, out + j);
    }
    for (; j < n; j += VL) {
        struct block b = {y + j, factor ? factor + j : NULL, ldy, ld_factor, n - j < VL ? n - j : VL};
        sum_block(&b, parts, part_count, 1, accumulate, out + j);
    }
}

void LK_ISA_NAME(lk__fill_columns)(struct lk__kernels *k) {
    k->column_sum = column_sum;
}
