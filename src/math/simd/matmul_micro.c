/* The micro-kernels: one template, one instance for each number of rows and vectors, so that edges of a matrix cost what
 * they compute and no more. */
#include "math/simd/matmul_micro.h"

/* The compiler knows nothing of x from here on: it would work out all addresses of the end before the loop, and the
 * pointers in vectors, which costs a tenth of a short segment. */
#define FORGET(x) __asm__("" : "+r"(x))
/* Rows that are worth a second loop. */
#define ACROSS(rows) (3 * (rows) >= 2 * MR)

/* One row's chains, one k. Where registers are few, as assembler: gcc 12 moves and spills the sums of a loop that is
 * unrolled, and a load that it hoists costs a register more than there is. */
LK_INLINE void micro_row(const int vectors, const float *a, const vf row[NR_VECTORS], vf s[NR_VECTORS]) {
#if defined(LK_ISA_avx2)
    if (vectors == 2) {
        vf x;
        __asm__ volatile("vbroadcastss %3, %2\n\tvfmadd231ps %4, %2, %0\n\tvfmadd231ps %5, %2, %1"
                         : "+x"(s[0]), "+x"(s[1]), "=&x"(x)
                         : "m"(*a), "x"(row[0]), "x"(row[1]));
        return;
    }
#endif
    vf x = v_set1(*a);
    UNROLL
    for (int j = 0; j < vectors; j++) s[j] = v_fma(x, row[j], s[j]);
}
LK_INLINE void load_row(const int vectors, const float *b, vf row[NR_VECTORS]) {
    UNROLL
    for (int j = 0; j < vectors; j++) row[j] = v_load(b + j * VL);
}

/* Operands where they lie: every third row of A has a pointer, the two after it are a scaled index away. */
LK_INLINE void chains_in_place(const int rows, const int vectors, size_t k, const float *a, size_t a_row, size_t a_col,
                               const float *b, size_t ldb, struct lk__math_prefetch next, vf s[MR][NR_VECTORS]) {
    vf row[NR_VECTORS];
    const float *third[(MR + 2) / 3];
    UNROLL
    for (int i = 0; i < rows; i += 3) {
        third[i / 3] = a;
        a += 3 * a_row;
        FORGET(a);
    }
    for (; k; k--, b += ldb) {
        load_row(vectors, b, row);
        __builtin_prefetch(next.p, 0, 2);
        next = (struct lk__math_prefetch){next.q, next.p + next.step, next.step};
        UNROLL
        for (int i = 0; i < rows; i++) micro_row(vectors, third[i / 3] + (size_t)(i % 3) * a_row, row, s[i]);
        UNROLL
        for (int i = 0; i < rows; i += 3) third[i / 3] += a_col;
    }
}

/* A across k: one pointer for all rows, four k a turn, so addresses cost little beside what they compute; nothing where
 * both are whole panels, since a_col and ldb are then constants. */
LK_INLINE void chains_across(const int rows, const int vectors, const bool panels, size_t k, const float *a, size_t a_col,
                             const float *b, size_t ldb, struct lk__math_prefetch next, vf s[MR][NR_VECTORS]) {
    vf row[NR_VECTORS];
    size_t b_third = 3 * ldb;
    if (!panels) FORGET(b_third);
    for (; k >= 4; k -= 4, b += 4 * ldb) {
        UNROLL
        for (int u = 0; u < 4; u++, a += a_col) {
            if (!panels) FORGET(a);
            load_row(vectors, b + (u == 3 ? b_third : (size_t)u * ldb), row);
            __builtin_prefetch(u % 2 ? next.q : next.p, 0, 2);
            UNROLL
            for (int r = 0; r < rows; r++) micro_row(vectors, a + r, row, s[r]);
            if (u % 2) next.p += next.step, next.q += next.step;
        }
    }
    for (; k; k--, a += a_col, b += ldb) {
        load_row(vectors, b, row);
        UNROLL
        for (int r = 0; r < rows; r++) micro_row(vectors, a + r, row, s[r]);
    }
}

LK_INLINE void micro_kernel(const int rows, const int vectors, size_t k, const float *a, size_t a_row, size_t a_col,
                            const float *b, size_t ldb, float *t, size_t ldt, enum lk__math_micro_mode mode,
                            const struct lk__math_prefetch *prefetch) {
    vf s[MR][NR_VECTORS];
    UNROLL
    for (int i = 0; i < rows; i++) {
        UNROLL
        for (int j = 0; j < vectors; j++) s[i][j] = mode == MICRO_RESUME ? v_load(t + (size_t)i * ldt + j * VL) : v_zero();
    }
    if (rows == MR && a_row == 1 && a_col == MR && ldb == NR)
        chains_across(rows, vectors, true, k, a, MR, b, NR, *prefetch, s);
    else if (ACROSS(rows) && a_row == 1)
        chains_across(rows, vectors, false, k, a, a_col, b, ldb, *prefetch, s);
    else
        chains_in_place(rows, vectors, k, a, a_row, a_col, b, ldb, *prefetch, s);
    FORGET(ldt);
    UNROLL
    for (int i = 0; i < rows; i++) {
        UNROLL
        for (int j = 0; j < vectors; j++) {
            float *to = t + (size_t)i * ldt + j * VL;
            v_store(to, mode == MICRO_RESUME ? s[i][j] : v_add(mode == MICRO_ADD ? v_load(to) : v_zero(), s[i][j]));
        }
    }
}

#define INSTANCE(rows, vectors)                                                                                            \
    static void micro_##rows##_##vectors(size_t k, const float *a, size_t a_row, size_t a_col, const float *b, size_t ldb, \
                                         float *t, size_t ldt, enum lk__math_micro_mode mode,                              \
                                         const struct lk__math_prefetch *prefetch) {                                       \
        micro_kernel(rows, vectors, k, a, a_row, a_col, b, ldb, t, ldt, mode, prefetch);                                   \
    }
#if NR_VECTORS == 2
#define INSTANCES(rows) INSTANCE(rows, 1) INSTANCE(rows, 2)
#define NAMES(rows)                                                                                                        \
    { micro_##rows##_1, micro_##rows##_2 }
#else
#define INSTANCES(rows) INSTANCE(rows, 1) INSTANCE(rows, 2) INSTANCE(rows, 3)
#define NAMES(rows)                                                                                                        \
    { micro_##rows##_1, micro_##rows##_2, micro_##rows##_3 }
#endif

/* clang-format off */
INSTANCES(1) INSTANCES(2) INSTANCES(3) INSTANCES(4) INSTANCES(5) INSTANCES(6)
#if MR > 6
INSTANCES(7) INSTANCES(8)
#endif
#if MR > 8
INSTANCES(9) INSTANCES(10) INSTANCES(11) INSTANCES(12) INSTANCES(13) INSTANCES(14)
#endif

lk__math_micro_fn *const lk__math_micro[MR][NR_VECTORS] = {
    NAMES(1), NAMES(2), NAMES(3), NAMES(4), NAMES(5), NAMES(6),
#if MR > 6
    NAMES(7), NAMES(8),
#endif
#if MR > 8
    NAMES(9), NAMES(10), NAMES(11), NAMES(12), NAMES(13), NAMES(14),
#endif
};
/* clang-format on */
