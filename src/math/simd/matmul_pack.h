/* Packing: operands are copied into the order in which the micro-kernels read them, k ascending, a row of vectors each.
 * Both layouts of an operand occur (see lk_mm): along k (the k of one row lie together, so blocks of VL x VL are transposed
 * in registers) and across k (plain copies). */
#ifndef LOCKSTEP_MATH_SIMD_MATMUL_PACK_H
#define LOCKSTEP_MATH_SIMD_MATMUL_PACK_H
#include "math/simd/vec.h"
#include <stdbool.h>

/* r becomes its transpose. */
LK_INLINE void v_transpose(vf r[VL]) {
#if defined(LK_ISA_avx512)
    vf t[VL];
    UNROLL
    for (int i = 0; i < 8; i++) { /* pairs of rows */
        t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    UNROLL
    for (int i = 0; i < 4; i++) { /* fours: r[4 i + c] holds column c of each 128-bit part of rows 4 i .. 4 i + 3 */
        __m512d a = _mm512_castps_pd(t[4 * i]), b = _mm512_castps_pd(t[4 * i + 1]);
        __m512d c = _mm512_castps_pd(t[4 * i + 2]), d = _mm512_castps_pd(t[4 * i + 3]);
        r[4 * i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
        r[4 * i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
        r[4 * i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
        r[4 * i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
    }
    UNROLL
    for (int c = 0; c < 4; c++) { /* the 128-bit parts */
        vf a = _mm512_shuffle_f32x4(r[c], r[4 + c], 0x88), b = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0x88);
        vf d = _mm512_shuffle_f32x4(r[c], r[4 + c], 0xdd), e = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0xdd);
        t[c] = _mm512_shuffle_f32x4(a, b, 0x88);
        t[8 + c] = _mm512_shuffle_f32x4(a, b, 0xdd);
        t[4 + c] = _mm512_shuffle_f32x4(d, e, 0x88);
        t[12 + c] = _mm512_shuffle_f32x4(d, e, 0xdd);
    }
    UNROLL
    for (int i = 0; i < VL; i++) r[i] = t[i];
#elif defined(LK_ISA_avx2)
    vf t[VL];
    UNROLL
    for (int i = 0; i < 4; i++) {
        t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    UNROLL
    for (int i = 0; i < 2; i++) {
        __m256d a = _mm256_castps_pd(t[4 * i]), b = _mm256_castps_pd(t[4 * i + 1]);
        __m256d c = _mm256_castps_pd(t[4 * i + 2]), d = _mm256_castps_pd(t[4 * i + 3]);
        r[4 * i] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, c));
        r[4 * i + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, c));
        r[4 * i + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(b, d));
        r[4 * i + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(b, d));
    }
    UNROLL
    for (int c = 0; c < 4; c++) {
        t[c] = _mm256_permute2f128_ps(r[c], r[4 + c], 0x20);
        t[4 + c] = _mm256_permute2f128_ps(r[c], r[4 + c], 0x31);
    }
    UNROLL
    for (int i = 0; i < VL; i++) r[i] = t[i];
#else
    float64x2_t a = vreinterpretq_f64_f32(vtrn1q_f32(r[0], r[1])), b = vreinterpretq_f64_f32(vtrn2q_f32(r[0], r[1]));
    float64x2_t c = vreinterpretq_f64_f32(vtrn1q_f32(r[2], r[3])), d = vreinterpretq_f64_f32(vtrn2q_f32(r[2], r[3]));
    r[0] = vreinterpretq_f32_f64(vtrn1q_f64(a, c)), r[1] = vreinterpretq_f32_f64(vtrn1q_f64(b, d));
    r[2] = vreinterpretq_f32_f64(vtrn2q_f64(a, c)), r[3] = vreinterpretq_f32_f64(vtrn2q_f64(b, d));
#endif
}

LK_INLINE void pack_along_whole(size_t k, const float *x, size_t ldx, float *to, size_t ldto, const float *next) {
    for (size_t e = 0; e < k; e += VL) {
        size_t n = k - e < VL ? k - e : VL;
        vf r[VL];
        if (next && e % 16 == 0) /* a line is 16 floats */
            for (size_t i = 0; i < VL; i++) __builtin_prefetch(next + i * ldx + e, 0, 2);
        UNROLL
        for (size_t i = 0; i < VL; i++) r[i] = n == VL ? v_load(x + i * ldx + e) : v_load_n(x + i * ldx + e, n);
        v_transpose(r);
        UNROLL
        for (size_t i = 0; i < VL; i++)
            if (i < n) v_store(to + (e + i) * ldto, r[i]);
    }
}

/* Transposes `rows` (<= VL) rows at x, stride ldx, of k elements: to[e * ldto + row]. Writes whole vectors (absent rows as
 * zeros). next: rows of the same shape that will be packed next, or NULL; they are prefetched, since the hardware's own
 * prefetch is slow to see streams of 2 KiB. */
LK_INLINE void pack_along_vector(size_t k, size_t rows, const float *x, size_t ldx, float *to, size_t ldto,
                                 const float *next) {
    if (rows == VL)
        pack_along_whole(k, x, ldx, to, ldto, next);
    else /* an edge: the rows come one by one */
        for (size_t e = 0; e < k; e++) {
            float r[VL] = {0};
            for (size_t i = 0; i < rows; i++) r[i] = x[i * ldx + e];
            v_store(to + e * ldto, v_load(r));
        }
}

/* Copies `rows` rows of n floats, ldx apart, to rows of whole vectors, ldto apart; what is missing of a vector is zeros. */
LK_INLINE void copy_rows(size_t rows, size_t n, const float *x, size_t ldx, float *to, size_t ldto) {
    for (size_t r = 0; r < rows; r++, x += ldx, to += ldto) {
        const float *next = x + (rows - 1 - r < 8 ? rows - 1 - r : 8) * ldx; /* rows are far apart, often a page each */
        for (size_t v = 0; v + VL <= n; v += VL) {
            if (v % 16 == 0) __builtin_prefetch(next + v, 0, 3);
            v_store(to + v, v_load(x + v));
        }
        if (n % VL) v_store(to + n / VL * VL, v_load_n(x + n / VL * VL, n % VL));
    }
}

/* Panels: `width` rows of an operand side by side, element (r, e) at to[e * width + r], as a micro-kernel of MR rows reads
 * A and one of NR columns reads B. */

LK_INLINE void panel_along_rows(const size_t width, const bool all, size_t rows, size_t k, const float *x, size_t ldx,
                                float *to, const float *next) {
    for (size_t g = 0; g < width; g += VL) {
        const size_t here = width - g < VL ? width - g : VL; /* rows of the panel in this vector */
        size_t there = all ? here : rows < g ? 0 : rows - g < here ? rows - g : here;
        for (size_t e = 0; e < k; e += VL) {
            size_t n = k - e < VL ? k - e : VL;
            vf r[VL];
            if (next && e % 16 == 0)
                for (size_t i = 0; i < here; i++) __builtin_prefetch(next + (g + i) * ldx + e, 0, 2);
            UNROLL
            for (size_t i = 0; i < VL; i++) {
                const float *from = x + (g + i) * ldx + e;
                r[i] = i >= here || i >= there ? v_zero() : n == VL ? v_load(from) : v_load_n(from, n);
            }
            v_transpose(r);
            UNROLL
            for (size_t i = 0; i < VL; i++)
                if (i < n) v_store(to + (e + i) * width + g, r[i]);
        }
    }
}

/* One panel of rows that lie along k, `rows` (<= width) of them there; the others become zeros. width: whole vectors, or
 * less than one. Then each vector's end is written to the place of the next k, whose turn comes later, and the last one's
 * past the panel, which has VL - width floats more. next: as in pack_along_vector. */
LK_INLINE void panel_along(const size_t width, size_t rows, size_t k, const float *x, size_t ldx, float *to,
                           const float *next) {
    if (rows == width)
        panel_along_rows(width, true, width, k, x, ldx, to, next);
    else
        panel_along_rows(width, false, rows, k, x, ldx, to, NULL);
}

/* Panels, `apart` floats from one to the next, of `rows` rows that lie across k, side by side in memory: what is read is
 * long. */
LK_INLINE void panels_across(const size_t width, size_t rows, size_t k, const float *x, size_t ldx, float *to,
                             size_t apart) {
    const size_t vectors = (width + VL - 1) / VL * VL;
    for (size_t e = 0; e < k; e++, x += ldx, to += width) {
        const float *next = x + (k - 1 - e < 8 ? k - 1 - e : 8) * ldx;
        float *panel = to;
        size_t r = 0;
        for (size_t l = 0; l < rows; l += 16) __builtin_prefetch(next + l, 0, 3);
        for (; r + vectors <= rows; r += width, panel += apart) {
            UNROLL
            for (size_t v = 0; v < vectors; v += VL) v_store(panel + v, v_load(x + r + v));
        }
        for (; r < rows; r += width, panel += apart)
            for (size_t v = 0; v < width; v += VL)
                v_store(panel + v, r + v < rows ? v_load_n(x + r + v, rows - r - v < VL ? rows - r - v : VL) : v_zero());
    }
}

#endif
