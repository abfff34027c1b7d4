/* The block sizes of a product, and which operand is A. Both change its time and no bit.
 *
 * The micro-kernel reads A anywhere, B along rows of whole vectors: B that lies along k is copied, once a tile. Where both
 * operands lie along k, as in x W', either may be B, since C' = B' A' is the same product. */
#ifndef LOCKSTEP_MATH_SIMD_MATMUL_BLOCKING_H
#define LOCKSTEP_MATH_SIMD_MATMUL_BLOCKING_H
#include "math/simd/matmul_steps.h"

#define NC            (64 / NR * NR) /* columns of a packed panel of B */
#define MC            1176           /* of a tile: its A, 512 of k, stays in the caches while the columns go by */
#define MC_ACROSS     294            /* the same where A lies across k: in L2 */
#define COLUMNS       768            /* of a tile: B comes from the caches again for each panel of rows */
#define TOTALS_FLOATS (400 * 1024)
#define L2_IN_PLACE   ((size_t)1 << 20) /* bytes of L2 that reading in place needs: see packs */
/* Where everything is packed. */
#define MC_PACKED_MOST (252 / MR * MR)
#define COLUMNS_PACKED (1024 / NR * NR) /* of a tile: packed B of all blocks of rows, in L3 */

struct blocking {
    size_t rows, columns; /* of C */
    bool transposed;
};

/* Rows of A that are packed at once: half of L2 at a KC of 512. */
static inline size_t mc_packed(const struct lk_caches *c) {
    size_t rows = c->l2.bytes / (2 * KC * sizeof(float)) / MR * MR;
    return rows < 2 * MR ? 2 * MR : smaller(rows, MC_PACKED_MOST);
}

/* Element (i, k) of A or (j, k) of B. */
struct operand {
    const float *x;
    size_t step, k;
};

static inline struct operand operand_a(const struct lk_mm_part *p, bool transposed) {
    return transposed ? (struct operand){p->b, p->b_col, p->b_row} : (struct operand){p->a, p->a_row, p->a_col};
}
static inline struct operand operand_b(const struct lk_mm_part *p, bool transposed) {
    return operand_a(p, !transposed);
}

/* How many of `rows` rows, `apart` floats from one to the next, begin in one set of the cache. */
static inline size_t rows_in_a_set(size_t rows, size_t apart, const struct lk_cache *c) {
    size_t sets = c->bytes / c->ways / LK_CACHE_LINE, lines = apart * sizeof(float) / LK_CACHE_LINE, a = sets, b = lines;
    while (b) {
        size_t rest = a % b;
        a = b, b = rest;
    }
    return a ? (rows * a + sets - 1) / sets : rows; /* a is now the greatest common divisor */
}

/* Whether A and B are packed, both. If not, A is read where it lies, which is better where
 * - a micro-tile is large enough that the addresses of its rows cost little beside its fma, and that it uses most of a line
 *   of an A across k;
 * - and L1 holds the line of each of its rows for the 16 k that it lasts;
 * - and L2 holds what is read again: a panel of B (160 KiB), the block of A that it meets (600 KiB where A lies across k)
 *   and what is prefetched, all of whose rows are far apart and fall unevenly into the sets.
 * One panel of B needs no such L2, and an A along k that is read once pays for no packing. */
static inline bool packs(const struct lk_mm *mm, bool transposed, const struct lk_caches *c) {
    struct operand a = operand_a(mm->parts, transposed);
    bool small = MR <= 8 || c->l2.bytes < L2_IN_PLACE; /* the micro-tile, or L2 */
    if (a.k != 1) return small;
    return (small && (transposed ? mm->m : mm->n) > NC) || 2 * rows_in_a_set(MR, a.step, &c->l1) > c->l1.ways;
}

/* Part of the time that threads wait for the last of them, when tiles of m x n go round; the last of a row or column is
 * smaller. Few tiles a thread suffer most when one thread is held up. */
static float waiting(size_t m, size_t n, size_t rows, size_t columns, size_t threads) {
    enum { MOST = 16 };
    float load[MOST] = {0}, most = 0;
    size_t tiles = 0;
    if (threads == 1) return 0;
    for (size_t j = 0; j < n; j += columns)
        for (size_t i = 0; i < m; i += rows, tiles++)
            load[tiles % smaller(threads, MOST)] += (float)smaller(rows, m - i) * (float)smaller(columns, n - j);
    for (size_t t = 0; t < smaller(threads, MOST); t++) most = load[t] > most ? load[t] : most;
    if (threads > MOST) most = (float)rows * (float)columns * (float)((tiles + threads - 1) / threads);
    return most * (float)threads / ((float)m * (float)n) - 1 + 0.05f * (float)threads / (float)tiles;
}

/* The best tiles for one choice of B; returns a guess of their time, 1 for multiplying alone. The constants were measured:
 * fetching and copying B costs as much as so many rows of the product, fetching A as so many columns. */
static float block_one_way(const struct lk_mm *mm, size_t threads, const struct lk_caches *caches, bool transposed,
                           struct blocking *blocking) {
    size_t m = transposed ? mm->n : mm->m, n = transposed ? mm->m : mm->n;
    bool b_along = operand_b(mm->parts, transposed).k == 1;
    size_t totals = is_one_batch(mm) ? SIZE_MAX : TOTALS_FLOATS / stack_depth(mm);
    struct operand a = operand_a(mm->parts, transposed);
    bool packed = packs(mm, transposed, caches);
    float b_rows = b_along ? 8.0f : 4.0f, a_columns = packed ? (a.k == 1 ? 8.0f : 4.0f) : a.k != 1 ? 6.0f : 1.0f;
    size_t most = smaller(a.k != 1 && !packed ? MC_ACROSS : MC, totals / (4 * NC) / MR * MR);
    if (most < MR) most = MR;
    size_t down = (m + most - 1) / most;
    float least = __builtin_inff();
    for (size_t d = down; d < down + 6 && (d == down || m / d >= 4 * MR); d++) {
        size_t rows = round_up((m + d - 1) / d, MR);
        size_t columns = smaller(packed ? COLUMNS_PACKED : COLUMNS, totals / rows / NR * NR),
               across = (n + columns - 1) / columns;
        for (size_t c = across; c < across + 10 && (c == across || n / c >= NC); c++) {
            float fetching = b_rows / (float)rows + a_columns * (float)c / (float)n;
            size_t width = round_up((n + c - 1) / c, NR);
            float time = (1 + fetching) * (1 + waiting(m, n, rows, width, threads));
            if (time >= least) continue;
            least = time;
            *blocking = (struct blocking){transposed ? width : rows, transposed ? rows : width, transposed};
        }
    }
    return least * (float)round_up(n, VL) / (float)n;
}

static struct blocking choose_blocking(const struct lk_mm *mm, size_t threads, const struct lk_caches *caches) {
    struct blocking blocking, transposed;
    float time = block_one_way(mm, threads, caches, false, &blocking);
    bool either = operand_a(mm->parts, false).k == 1 && operand_b(mm->parts, false).k == 1 && !mm->accumulate;
    if (either && 1.05f * block_one_way(mm, threads, caches, true, &transposed) < time)
        return transposed; /* C is transposed when it is stored */
    return blocking;
}

#endif
