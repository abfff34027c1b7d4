/* The FMA peak of an instruction set, by a loop that touches no memory; run beside what is measured, since clocks wander.
 */
#ifndef LOCKSTEP_BENCH_PEAK_H
#define LOCKSTEP_BENCH_PEAK_H
#include "lockstep/base/thread.h"
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* BENCH_CLOCK=cpu counts this process's CPU time instead: for one thread on a machine that others use too. */
static double seconds_now(void) {
    struct timespec t;
    clock_gettime(getenv("BENCH_CLOCK") ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#define PEAK_ROUNDS 30000
#define PEAK_CHAINS 12 /* latency 4, two pipes: 8 would do */
#define PEAK_LOOP(V, FMA, ONE, OUT)                                                                                        \
    V s[PEAK_CHAINS], x = ONE(0.999f), y = ONE(0.001f);                                                                    \
    _Pragma("GCC unroll 12") for (int i = 0; i < PEAK_CHAINS; i++) s[i] = y;                                               \
    for (int r = 0; r < PEAK_ROUNDS; r++) {                                                                                \
        _Pragma("GCC unroll 12") for (int i = 0; i < PEAK_CHAINS; i++) {                                                   \
            s[i] = FMA;                                                                                                    \
            __asm__ volatile("" : OUT(s[i]));                                                                              \
        }                                                                                                                  \
    }                                                                                                                      \
    _Pragma("GCC unroll 12") for (int i = 1; i < PEAK_CHAINS; i++) s[0] += s[i];                                           \
    volatile float sink = ((float *)s)[0];                                                                                 \
    (void)sink;

#if defined(__x86_64__)
#include <immintrin.h>
__attribute__((target("avx512f"))) static void peak_avx512(void *arg, size_t tile, int thread) {
    (void)arg, (void)tile, (void)thread;
#define IN_REGISTER(v) "+v"(v)
    PEAK_LOOP(__m512, _mm512_fmadd_ps(s[i], x, y), _mm512_set1_ps, IN_REGISTER)
}
__attribute__((target("avx2,fma"))) static void peak_avx2(void *arg, size_t tile, int thread) {
    (void)arg, (void)tile, (void)thread;
#define IN_YMM(v) "+x"(v)
    PEAK_LOOP(__m256, _mm256_fmadd_ps(s[i], x, y), _mm256_set1_ps, IN_YMM)
}
#else
#include <arm_neon.h>
static void peak_neon(void *arg, size_t tile, int thread) {
    (void)arg, (void)tile, (void)thread;
#define IN_REGISTER(v) "+w"(v)
    PEAK_LOOP(float32x4_t, vfmaq_f32(y, s[i], x), vdupq_n_f32, IN_REGISTER)
}
#endif

/* Operations a second of all threads of the pool together. */
static double peak_now(struct lk_pool *pool, const char *isa) {
    int threads = lk_pool_threads(pool);
#if defined(__x86_64__)
    double floats = strcmp(isa, "avx512") == 0 ? 16 : 8;
    lk_tile_fn *fn = floats == 16 ? peak_avx512 : peak_avx2;
#else
    double floats = 4;
    lk_tile_fn *fn = peak_neon;
    (void)isa;
#endif
    double t = seconds_now();
    lk_pool_run(pool, (size_t)threads * 4, fn, NULL);
    return threads * 4.0 * PEAK_ROUNDS * PEAK_CHAINS * 2 * floats / (seconds_now() - t);
}

#endif
