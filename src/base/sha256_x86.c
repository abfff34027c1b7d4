/* SHA-256 by x86-64's instructions for it (SHA-NI), of one text or of two at once. Two rounds take 4 cycles and begin every
 * second cycle: one text, whose rounds wait for each other, leaves half of the unit idle, so that the second is free. */
#include "base/sha256.h"
#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>

bool lk__sha256_x86_here(void) {
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_SSSE3) || !(c & bit_SSE4_1)) return false;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && b & bit_SHA;
}

#define TARGET    __attribute__((target("sha,sse4.1,ssse3")))
#define EACH_TEXT _Pragma("GCC unroll 2") for (int t = 0; t < texts; t++)

/* The instructions want the state as A B E F and C D G H, highest word first. `texts` is a constant to the compiler. */
TARGET static inline __attribute__((always_inline)) void run(uint32_t *const state[2], const uint8_t *const in[2],
                                                             size_t count, const int texts) {
    const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    __m128i abef[2], cdgh[2];
    EACH_TEXT {
        __m128i cdab = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)state[t]), 0xb1);
        __m128i efgh = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(state[t] + 4)), 0x1b);
        abef[t] = _mm_alignr_epi8(cdab, efgh, 8);
        cdgh[t] = _mm_blend_epi16(efgh, cdab, 0xf0);
    }
    for (size_t block = 0; block < count; block++) {
        __m128i w[2][4], before[2][2];
        EACH_TEXT before[t][0] = abef[t], before[t][1] = cdgh[t];
        _Pragma("GCC unroll 16") for (int r = 0; r < 16; r++) { /* four rounds */
            EACH_TEXT {
                __m128i *v = w[t], x;
                if (r < 4) {
                    x = _mm_loadu_si128((const __m128i *)(in[t] + 64 * block + 16 * (size_t)r));
                    x = _mm_shuffle_epi8(x, big_endian);
                } else {
                    x = _mm_sha256msg1_epu32(v[r & 3], v[(r + 1) & 3]);
                    x = _mm_add_epi32(x, _mm_alignr_epi8(v[(r + 3) & 3], v[(r + 2) & 3], 4));
                    x = _mm_sha256msg2_epu32(x, v[(r + 3) & 3]);
                }
                v[r & 3] = x;
                x = _mm_add_epi32(x, _mm_loadu_si128((const __m128i *)(lk__sha256_constants + 4 * r)));
                cdgh[t] = _mm_sha256rnds2_epu32(cdgh[t], abef[t], x);
                abef[t] = _mm_sha256rnds2_epu32(abef[t], cdgh[t], _mm_shuffle_epi32(x, 0x0e));
            }
        }
        EACH_TEXT {
            abef[t] = _mm_add_epi32(abef[t], before[t][0]);
            cdgh[t] = _mm_add_epi32(cdgh[t], before[t][1]);
        }
    }
    EACH_TEXT {
        __m128i feba = _mm_shuffle_epi32(abef[t], 0x1b), dchg = _mm_shuffle_epi32(cdgh[t], 0xb1);
        _mm_storeu_si128((__m128i *)state[t], _mm_blend_epi16(feba, dchg, 0xf0));
        _mm_storeu_si128((__m128i *)(state[t] + 4), _mm_alignr_epi8(dchg, feba, 8));
    }
}

TARGET void lk__sha256_x86(uint32_t state[8], const uint8_t *in, size_t count) {
    run((uint32_t *const[2]){state, NULL}, (const uint8_t *const[2]){in, NULL}, count, 1);
}
TARGET void lk__sha256_x86_pair(uint32_t a[8], const uint8_t *in_a, uint32_t b[8], const uint8_t *in_b, size_t count) {
    run((uint32_t *const[2]){a, b}, (const uint8_t *const[2]){in_a, in_b}, count, 2);
}
#endif
