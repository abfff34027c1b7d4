/* The machine's peaks, measured with the instruction set's own vectors: long independent chains of fma, and memory read and
 * written with nothing computed. */
#include "math/kernel_table.h"
#include "math/simd/vec.h"

void LK_ISA_NAME(lk__math_fill_peak)(struct lk__math_kernels *);

#define CHAINS (VL == 16 ? 24 : VL == 8 ? 12 : 24) /* more than latency x units, fewer than the registers */

static double peak_fma(size_t rounds, float seed) {
    vf x[CHAINS], a = v_set1(seed), b = v_set1(1 - seed);
    for (int i = 0; i < CHAINS; i++) x[i] = v_set1((float)i);
    for (size_t r = 0; r < rounds; r++) {
        _Pragma("GCC unroll 24") for (int i = 0; i < CHAINS; i++) x[i] = v_fma(x[i], a, b);
    }
    vf sum = v_zero();
    for (int i = 0; i < CHAINS; i++) sum = v_add(sum, x[i]);
    volatile float sink = v_sum_lanes(sum); /* the work must not be optimised away */
    (void)sink;
    return 2.0 * CHAINS * VL * (double)rounds;
}

/* All counts are constants in each copy. */
LK_INLINE void stream(size_t from, size_t n, const struct lk_stream *s, const size_t reads, const size_t writes,
                      const bool past) {
    const float *in[LK_STREAM_READS] = {0};
    float *out[LK_STREAM_WRITES] = {0};
    vi t[4];
    for (size_t r = 0; r < reads; r++) in[r] = s->read[r] + from;
    for (size_t w = 0; w < writes; w++) out[w] = s->write[w] + from;
    for (size_t j = 0; j < 4; j++) t[j] = vi_set1(0);
    for (size_t i = 0; i + 4 * VL <= n; i += 4 * VL) {
        _Pragma("GCC unroll 4") for (size_t j = 0; j < 4; j++) {
            vf x[LK_STREAM_READS];
            _Pragma("GCC unroll 4") for (size_t r = 0; r < reads; r++) {
                x[r] = v_load(in[r] + i + j * VL);
                if (r >= writes) t[j] = vi_xor(t[j], v_as_int(x[r])); /* what is not written must not be left out */
            }
            _Pragma("GCC unroll 4") for (size_t w = 0; w < writes; w++) {
                if (past)
                    v_stream(out[w] + i + j * VL, x[w % reads]);
                else
                    v_store(out[w] + i + j * VL, x[w % reads]);
            }
        }
    }
    if (past) v_stream_end();
    int32_t kept[VL];
    vi_store(kept, vi_xor(vi_xor(t[0], t[1]), vi_xor(t[2], t[3])));
    volatile int32_t sink = kept[0];
    (void)sink;
}

static void peak_stream(size_t from, size_t n, const struct lk_stream *s) {
#define CASE(r, w)                                                                                                         \
    case (r)*8 + (w):                                                                                                      \
        if (s->past_caches)                                                                                                \
            stream(from, n, s, r, w, true);                                                                                \
        else                                                                                                               \
            stream(from, n, s, r, w, false);                                                                               \
        break;
    switch (s->reads * 8 + s->writes) {
        CASE(1, 0)
        CASE(1, 1)
        CASE(2, 0)
        CASE(2, 1)
        CASE(2, 2)
        CASE(3, 1)
        CASE(3, 2)
        CASE(4, 3)
    default:
        LK_ASSERT(!"a traffic that nobody measures");
    }
}

void LK_ISA_NAME(lk__math_fill_peak)(struct lk__math_kernels *k) {
    k->peak_fma = peak_fma;
    k->peak_stream = peak_stream;
}
