/* Sums over tokens (docs/numerics.md, section 3): a block of columns in registers, all rows of all parts below one another.
 */
#include "math/kernel_table.h"
#include "math/simd/each.h"

void LK_ISA_NAME(lk__math_fill_columns)(struct lk__math_kernels *);

#define SEGMENT 512
/* Columns at once: two kilobytes of each row, so that the hardware sees a stream and prefetches it. */
#define BLOCK    512
#define TOGETHER 8 /* rows added to a chain while it is in a register */
#define LEVELS   33

struct block {
    const float *y, *factor;
    size_t ldy, ld_factor, columns; /* 1 .. BLOCK */
};

/* s = the chain of `rows` rows that follows what is in s already. */
LK_INLINE void add_rows(const struct block *b, size_t row, const int rows, const bool with_factor, float *s) {
    const float *y = b->y + row * b->ldy, *f = with_factor ? b->factor + row * b->ld_factor : NULL;
    EACH_GROUP(b->columns, 4, {
        vf t[4];
        LK__ALL t[j] = v_load(s + AT(j));
        UNROLL for (int r = 0; r < rows; r++) {
            const float *yr = y + (size_t)r * b->ldy, *fr = with_factor ? f + (size_t)r * b->ld_factor : NULL;
            LK__ALL t[j] =
                with_factor ? v_fma(load(fr + AT(j), c), load(yr + AT(j), c), t[j]) : v_add(t[j], load(yr + AT(j), c));
        }
        LK__ALL v_store(s + AT(j), t[j]);
    });
}

/* t += the segments of one part. */
LK_INLINE void add_part(const struct block *b, const struct lk_row_part *part, const bool with_factor, float *t) {
    float s[BLOCK] __attribute__((aligned(64)));
    for (size_t r0 = 0; r0 < part->rows; r0 += SEGMENT) {
        size_t end = part->rows - r0 < SEGMENT ? part->rows : r0 + SEGMENT, r = r0;
        memset(s, 0, sizeof s);
        for (; r + TOGETHER <= end; r += TOGETHER) add_rows(b, part->first + r, TOGETHER, with_factor, s);
        for (; r < end; r++) add_rows(b, part->first + r, 1, with_factor, s);
        for (size_t i = 0; i < b->columns; i += VL) v_store(t + i, v_add(v_load(t + i), v_load(s + i)));
    }
}

/* One block; rows of the stack and of t are whole vectors, what lies beyond the columns is zero. */
static void sum_block(const struct block *b, const struct lk_row_part *parts, size_t part_count, bool accumulate,
                      float stack[][BLOCK], float *out) {
    /* The grains' tree: finished nodes, one for each bit that is set in the number of groups so far. */
    size_t nodes = 0, groups = 0;
    float *t = stack[0];
    memset(t, 0, BLOCK * sizeof *t);
    if (accumulate) memcpy(t, out, b->columns * sizeof *t);
    for (size_t p = 0; p < part_count; p++) {
        if (b->factor)
            add_part(b, &parts[p], true, t);
        else
            add_part(b, &parts[p], false, t);
        bool last = p + 1 == part_count;
        if (!parts[p].ends_group && !last) continue;
        size_t joins = last ? nodes : 0;
        for (size_t g = groups++; g & 1 && !last; g >>= 1) joins++;
        for (; joins; joins--, nodes--, t = stack[nodes])
            for (size_t i = 0; i < b->columns; i += VL)
                v_store(stack[nodes - 1] + i, v_add(v_load(stack[nodes - 1] + i), v_load(t + i)));
        if (last) break;
        t = stack[++nodes];
        memset(t, 0, BLOCK * sizeof *t);
    }
    memcpy(out, t, b->columns * sizeof *t);
}

static void column_sum(size_t n, const float *y, size_t ldy, const float *factor, size_t ld_factor,
                       const struct lk_row_part *parts, size_t part_count, bool accumulate, float *out) {
    float stack[LEVELS][BLOCK] __attribute__((aligned(64)));
    for (size_t j = 0; j < n; j += BLOCK) {
        struct block b = {y + j, factor ? factor + j : NULL, ldy, ld_factor, n - j < BLOCK ? n - j : BLOCK};
        sum_block(&b, parts, part_count, accumulate, stack, out + j);
    }
}

/* Vectors of columns at once. The next ones go through the list again; the cache has its rows by then. */
#define CHAIN 4
static void row_chains(size_t n, const float *x, size_t ldx, uint32_t first, const uint32_t *next, uint32_t positions,
                       bool begins, float *out) {
    if (next[first] == UINT32_MAX) { /* most lists have one row; its chain is 0 + that row */
        const float *row = x + (size_t)first * ldx;
        EACH_GROUP(
            n, CHAIN, LK__ALL {
                vf chain = v_add(v_zero(), load(row + AT(j), c));
                store(out + AT(j), v_add(begins ? v_zero() : load(out + AT(j), c), chain), c);
            });
        return;
    }
    EACH_GROUP(n, CHAIN, {
        vf total[CHAIN];
        LK__ALL total[j] = begins ? v_zero() : load(out + AT(j), c);
        for (uint32_t p = first; p != UINT32_MAX;) {
            uint32_t sequence = p / positions, position = p % positions,
                     start = p - position + position / SEGMENT * SEGMENT;
            uint32_t left = positions - (start - sequence * positions), end = start + (left < SEGMENT ? left : SEGMENT);
            vf chain[CHAIN];
            LK__ALL chain[j] = v_zero();
            for (; p < end; p = next[p]) /* the end of the list is no row of any segment */
                LK__ALL chain[j] = v_add(chain[j], load(x + (size_t)p * ldx + AT(j), c));
            LK__ALL total[j] = v_add(total[j], chain[j]);
        }
        LK__ALL store(out + AT(j), total[j], c);
    });
}

void LK_ISA_NAME(lk__math_fill_columns)(struct lk__math_kernels *k) {
    k->row_chains = row_chains;
    k->column_sum = column_sum;
}
