/* The micro-kernels of matrix products, shared by matmul.c and attention.c of one instruction set.
 *
 * A micro-kernel makes one segment (docs/numerics.md, section 2) of a micro-tile of C that lives in registers: `rows` x
 * `vectors` accumulators, each a chain of fma over k ascending from +0. Then it adds the micro-tile to totals in memory. */
#ifndef LOCKSTEP_MATH_SIMD_MATMUL_MICRO_H
#define LOCKSTEP_MATH_SIMD_MATMUL_MICRO_H
#include "math/simd/vec.h"
#include <stdbool.h>

/* The micro-tile: accumulators + B vectors + one broadcast of A fit the register file (32, 16, 32 registers). */
#if defined(LK_ISA_avx512)
#define MR         14
#define NR_VECTORS 2
#elif defined(LK_ISA_avx2)
#define MR         6
#define NR_VECTORS 2
#else
#define MR         8
#define NR_VECTORS 3
#endif
#define NR      (NR_VECTORS * VL)
#define SEGMENT 512     /* the contract's */
#define KC      SEGMENT /* a micro-kernel makes whole chains */

/* What becomes of t, a micro-tile in memory, and the chain s. */
enum lk__math_micro_mode {
    MICRO_STORE,  /* s starts at +0; t = +0 + s */
    MICRO_ADD,    /* s starts at +0; t = t + s */
    MICRO_RESUME, /* t is itself an unfinished chain: s starts at t; t = s */
};
static inline size_t round_up(size_t x, size_t to) {
    return (x + to - 1) / to * to;
}
static inline size_t smaller(size_t a, size_t b) {
    return a < b ? a : b;
}
/* Rows so many floats apart, a multiple of 4 KiB, fall into the same few sets of the caches; at 4 KiB itself the
 * hardware's prefetch makes up for it. */
static inline bool same_sets(size_t apart) {
    return apart > 1024 && apart % 1024 == 0;
}

/* What the caller will read next: two streams, of which each k in turn prefetches a cache line into L2 and goes on a step.
 * A micro-kernel leaves most load slots unused, so this is free; a loop of prefetches between the kernels costs more than
 * it saves. */
struct lk__math_prefetch {
    const float *p, *q;
    size_t step; /* floats */
};
/* A(i, k) is a[i * a_row + k * a_col]: A is read where it lies, as the hardware follows its rows as well as a packed panel.
 * Row k of B starts at b[k * ldb] and has whole vectors; t(i, j) is t[i * ldt + j]. */
typedef void lk__math_micro_fn(size_t k, const float *a, size_t a_row, size_t a_col, const float *b, size_t ldb, float *t,
                               size_t ldt, enum lk__math_micro_mode mode, const struct lk__math_prefetch *prefetch);
#define lk__math_micro LK_ISA_NAME(lk__math_micro)
extern lk__math_micro_fn *const lk__math_micro[MR][NR_VECTORS]; /* [rows - 1][vectors - 1] */

#endif
