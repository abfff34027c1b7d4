/* The machine's peaks, measured with the instruction set's own vectors: long independent chains of fma, and plain reading.
 */
#include "math/kernel_table.h"
#include "math/simd/vec.h"

void LK_ISA_NAME(lk__fill_peak)(struct lk__kernels *);

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

static void peak_read(size_t n, const float *x) {
    vi t[8];
    for (int i = 0; i < 8; i++) t[i] = vi_set1(0);
    for (size_t i = 0; i + 8 * VL <= n; i += 8 * VL) {
        _Pragma("GCC unroll 8") for (size_t j = 0; j < 8; j++) t[j] = vi_xor(t[j], v_as_int(v_load(x + i + j * VL)));
    }
    for (int i = 1; i < 8; i++) t[0] = vi_xor(t[0], t[i]);
    int32_t out[VL];
    vi_store(out, t[0]);
    volatile int32_t sink = out[0];
    (void)sink;
}

void LK_ISA_NAME(lk__fill_peak)(struct lk__kernels *k) {
    k->peak_fma = peak_fma;
    k->peak_read = peak_read;
}
