/* Loops over elements a vector at a time. What is left of the last vector is loaded padded with zeros, computed like the
 * others and stored in part. */
#ifndef LOCKSTEP_MATH_SIMD_EACH_H
#define LOCKSTEP_MATH_SIMD_EACH_H
#include "math/simd/vec.h"

LK_INLINE vf load(const float *p, size_t n) {
    return n == VL ? v_load(p) : v_load_n(p, n);
}
LK_INLINE void store(float *p, vf x, size_t n) {
    if (n == VL)
        v_store(p, x);
    else
        v_store_n(p, x, n);
}

/* Prefetches the cache line at p + i, once for all vectors that share it; i is a multiple of VL. */
LK_INLINE void v_prefetch(const float *p, size_t i) {
    if (i % 16 == 0) __builtin_prefetch(p + i, 0, 2);
}

/* for (i, c): c elements from i on, all VL but the last time; c is a constant in the first copy of the body. */
#define EACH_VECTOR(n, ...)                                                                                                \
    do {                                                                                                                   \
        size_t i = 0;                                                                                                      \
        for (; i + VL <= (n); i += VL) {                                                                                   \
            const size_t c = VL;                                                                                           \
            __VA_ARGS__                                                                                                    \
        }                                                                                                                  \
        if (i < (n)) {                                                                                                     \
            const size_t c = (n)-i;                                                                                        \
            __VA_ARGS__                                                                                                    \
        }                                                                                                                  \
    } while (0)

/* for (i, count, c): count vectors from i on, and of the last one (which is also the first when c is not VL) c elements: a
 * group of them for functions that take several at once, then those that are left one by one. */
#define EACH_GROUP(n, group, ...)                                                                                          \
    do {                                                                                                                   \
        size_t i = 0;                                                                                                      \
        for (; i + (group)*VL <= (n); i += (group)*VL) {                                                                   \
            const int count = (group);                                                                                     \
            const size_t c = VL;                                                                                           \
            __VA_ARGS__                                                                                                    \
        }                                                                                                                  \
        for (; i < (n); i += VL) {                                                                                         \
            const int count = 1;                                                                                           \
            const size_t c = (n)-i < VL ? (n)-i : VL;                                                                      \
            __VA_ARGS__                                                                                                    \
        }                                                                                                                  \
    } while (0)

/* In a body of EACH_GROUP: for all vectors j of the group; where vector j begins. */
#define LK__ALL UNROLL for (int j = 0; j < count; j++)
#define AT(j)   (i + (size_t)(j)*VL)

/* for (i, e, c): c elements from i on belong to the 64 lanes' vector e. e and c are constants in the first copy of the body
 * once the inner loop is unrolled, so the lanes stay in registers. */
#define EACH_LANE_VECTOR(n, ...)                                                                                           \
    do {                                                                                                                   \
        size_t i0 = 0;                                                                                                     \
        for (; i0 + 64 <= (n); i0 += 64) {                                                                                 \
            _Pragma("GCC unroll 16") for (size_t e = 0; e < LANE_VECTORS; e++) {                                           \
                const size_t i = i0 + e * VL, c = VL;                                                                      \
                __VA_ARGS__                                                                                                \
            }                                                                                                              \
        }                                                                                                                  \
        _Pragma("GCC unroll 16") for (size_t e = 0; e < LANE_VECTORS; e++) {                                               \
            const size_t i = i0 + e * VL;                                                                                  \
            if (i >= (n)) break;                                                                                           \
            const size_t c = (n)-i < VL ? (n)-i : VL;                                                                      \
            __VA_ARGS__                                                                                                    \
        }                                                                                                                  \
    } while (0)

#endif
