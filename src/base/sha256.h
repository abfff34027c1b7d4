/* SHA-256 (FIPS 180-4) without allocation: stands in when libcrypto cannot get memory, so that hashing never fails. */
#ifndef LK_SHA256_H
#define LK_SHA256_H
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

#endif
