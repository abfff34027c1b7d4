/* SHA-256 (FIPS 180-4) without allocation: by the processor's instructions where we know them (x86-64), else in plain C,
 * which stands in when libcrypto cannot get memory, so that hashing never fails. */
#ifndef LK_SHA256_H
#define LK_SHA256_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lk__sha256 {
    uint32_t state[8];
    uint64_t size;
    uint8_t block[64];
};
void lk__sha256_init(struct lk__sha256 *);
void lk__sha256_update(struct lk__sha256 *, const void *data, size_t size);
void lk__sha256_final(struct lk__sha256 *, uint8_t out[32]);
/* `size` bytes to each of two, in little more than the time of one where lk__sha256_fast says so. */
void lk__sha256_update_pair(struct lk__sha256 *a, const void *data_a, struct lk__sha256 *b, const void *data_b,
                            size_t size);

/* The processor's instructions are used: then this is as fast as libcrypto, and two at once nearly twice as fast. */
bool lk__sha256_fast(void);
/* For tests: false puts libcrypto and plain C in their place; true takes them again where there are any. */
void lk__sha256_allow_fast(bool allow);

extern const uint32_t lk__sha256_constants[64];
#if defined(__x86_64__)
bool lk__sha256_x86_here(void);
void lk__sha256_x86(uint32_t state[8], const uint8_t *in, size_t blocks);
void lk__sha256_x86_pair(uint32_t a[8], const uint8_t *in_a, uint32_t b[8], const uint8_t *in_b, size_t blocks);
#endif

#endif
