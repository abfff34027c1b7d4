/* Exact building blocks: bits of numbers, the software fma, and the double functions that all instruction sets share. */
#ifndef LOCKSTEP_MATH_EXACT_H
#define LOCKSTEP_MATH_EXACT_H
#include <float.h>
#include <stdint.h>
#include <string.h>

#if defined(__FAST_MATH__) || (defined(__FLT_EVAL_METHOD__) && __FLT_EVAL_METHOD__ != 0)
#error "docs/numerics.md, section 1: no fast math, and floats are evaluated as floats"
#endif

static inline uint32_t lk__math_bits32(float x) {
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}
static inline float lk__math_float(uint32_t u) {
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}
static inline uint64_t lk__math_bits64(double x) {
    uint64_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}
static inline double lk__math_double(uint64_t u) {
    double x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* fma in software. The product of two floats is exact in double. The sum with c is rounded to odd (the last bit of an
 * inexact result is set), which keeps what the second rounding, to float, must know: 53 bits are more than 24 + 2, and
 * float's denormals are normal doubles (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums"). */
static inline float lk__math_soft_fma(float a, float b, float c) {
    double p = (double)a * (double)b, d = (double)c, s = p + d;
    uint64_t u = lk__math_bits64(s);
    if ((u >> 52 & 0x7ff) == 0x7ff || s == 0) return (float)s; /* a sum of 0 is exact: p is normal or 0 */
    double dd = s - p, e = (p - (s - dd)) + (d - dd);          /* two-sum: s + e = p + d exactly */
    if (e != 0 && !(u & 1)) u += ((e > 0) == (s > 0)) ? 1 : (uint64_t)-1;
    return (float)lk__math_double(u);
}

/* True when this CPU has a hardware fma that ref_fma was compiled for. */
int lk__math_cpu_has_fma(void);

#endif
