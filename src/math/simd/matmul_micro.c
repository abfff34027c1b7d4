/* The micro-kernels: one template, one instance for each number of rows and vectors, so that edges of a matrix cost what
 * they compute and no more. */
#include "math/simd/matmul_micro.h"

/* The compiler knows nothing of x from here on: it would work out all addresses of the end before the loop, and the
 * pointers in vectors, which costs a tenth of a short segment. */
#define FORGET(x) __asm__("" : "+r"(x))

LK_INLINE void micro_kernel(const int rows, const int vectors, size_t k, const float *a, size_t a_row, size_t a_col,
                            const float *b, size_t ldb, float *t, size_t ldt, enum lk__math_micro_mode mode,
                            const struct lk__math_prefetch *prefetch) {
    const float *next_p = prefetch->p, *next_q = prefetch->q;
    const size_t p_step = prefetch->p_step, q_step = prefetch->q_step;
    vf s[MR][NR_VECTORS];
    const float *third[(MR + 2) / 3]; /* every third row: the two after it are a scaled index away */
    UNROLL
    for (int i = 0; i < rows; i += 3) {
        third[i / 3] = a;
        a += 3 * a_row;
        FORGET(a);
    }
    UNROLL
    for (int i = 0; i < rows; i++) {
        UNROLL
        for (int j = 0; j < vectors; j++) s[i][j] = mode == MICRO_RESUME ? v_load(t + (size_t)i * ldt + j * VL) : v_zero();
    }
    for (; k; k--) {
        __builtin_prefetch(next_p, 0, 2), __builtin_prefetch(next_q, 0, 2);
        next_p += p_step, next_q += q_step;
        vf row[NR_VECTORS];
        UNROLL
        for (int j = 0; j < vectors; j++) row[j] = v_load(b + j * VL);
        UNROLL
        for (int i = 0; i < rows; i++) {
            vf x = v_set1(third[i / 3][(size_t)(i % 3) * a_row]);
            UNROLL
            for (int j = 0; j < vectors; j++) s[i][j] = v_fma(x, row[j], s[i][j]);
        }
        UNROLL
        for (int i = 0; i < rows; i += 3) third[i / 3] += a_col;
        b += ldb;
    }
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
