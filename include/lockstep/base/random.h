/* Philox4x32-10 (Salmon et al., SC'11): counter-based random numbers. Layout of key and counter: docs/numerics.md. */
#ifndef LOCKSTEP_RANDOM_H
#define LOCKSTEP_RANDOM_H
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* out[4] = Philox4x32-10(counter[4], key[2]) */
void lk_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

enum lk_purpose { LK_PURPOSE_INIT = 1, LK_PURPOSE_SHUFFLE = 2, LK_PURPOSE_SAMPLE = 3, LK_PURPOSE_VERIFY = 4 };
/* key = { low 32 bits of seed, high 32 bits of seed ^ purpose << 24 }; counter = { element, layer, sample, step }. */
void lk_random(uint64_t seed, enum lk_purpose purpose, uint32_t step, uint32_t sample, uint32_t layer, uint32_t element,
               uint32_t out[4]);
/* A permutation of [0, n) (n >= 1) keyed by (seed, epoch): a Feistel network of 4 rounds with cycle walking. */
uint64_t lk_permute(uint64_t seed, uint32_t epoch, uint64_t n, uint64_t index);

#ifdef __cplusplus
}
#endif
#endif
