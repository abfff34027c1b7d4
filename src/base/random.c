#include "lockstep/base/random.h"
#include "lockstep/base/err.h"

/* Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3 (SC'11). */
void lk_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3], k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53u * c0, b = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)b;
        c2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

void lk_random(uint64_t seed, enum lk_purpose purpose, uint32_t step, uint32_t sample, uint32_t layer, uint32_t element,
               uint32_t out[4]) {
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32) ^ (uint32_t)purpose << 24};
    uint32_t counter[4] = {element, layer, sample, step};
    lk_philox(counter, key, out);
}

uint64_t lk_permute(uint64_t seed, uint32_t epoch, uint64_t n, uint64_t index) {
    LK_ASSERT(n >= 1 && index < n);
    int half_bits = 1; /* the network permutes [0, 4^half_bits), the least such range that holds n */
    while (half_bits < 32 && (n - 1) >> 2 * half_bits != 0) half_bits++;
    uint64_t mask = ((uint64_t)1 << half_bits) - 1, x = index;
    do { /* walk the cycle until it is in range again; under 4 turns on average */
        uint64_t left = x >> half_bits, right = x & mask;
        for (uint32_t round = 0; round < 4; round++) {
            uint32_t word[4];
            lk_random(seed, LK_PURPOSE_SHUFFLE, epoch, round, 0, (uint32_t)right, word);
            uint64_t next = left ^ (word[0] & mask);
            left = right;
            right = next;
        }
        x = left << half_bits | right;
    } while (x >= n);
    return x;
}
