/* SHA-256 and RFC 6962 roots over 1 MiB leaves, by the processor's instructions where we know them, else by libcrypto.
 * Two whole leaves in one call are hashed at once, in half of the time.
 *   leaf  = SHA-256(0x00 || up to 1,048,576 bytes)        node = SHA-256(0x01 || left || right)
 *   MTH   = RFC 6962 section 2.1 over the leaves (MTH of nothing = SHA-256 of nothing)
 *   root  = SHA-256(0x02 || length as u64 little-endian || MTH)                                   */
#ifndef LOCKSTEP_HASH_H
#define LOCKSTEP_HASH_H
#include "lockstep/base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LK_LEAF_BYTES ((size_t)1 << 20)
#define LK_ROOT_HEX   65 /* 64 digits and the zero byte */

struct lk_root {
    uint8_t bytes[32];
};
bool lk_root_equal(const struct lk_root *, const struct lk_root *);
/* Lower-case hexadecimal; out has LK_ROOT_HEX bytes; returns out. */
char *lk_root_hex(const struct lk_root *, char *out);
/* 64 hexadecimal digits, nothing else; false otherwise. */
bool lk_root_parse(const char *hex, struct lk_root *out);

void lk_sha256(const void *data, size_t size, struct lk_root *out);
/* The same of data that comes piece by piece. */
struct lk_digest;
struct lk_digest *lk_digest_create(void); /* NULL: out of memory */
void lk_digest_update(struct lk_digest *, const void *data, size_t size);
void lk_digest_final(struct lk_digest *, struct lk_root *out); /* begins anew: the digest can be used again */
void lk_digest_free(struct lk_digest *);                       /* NULL is fine */
/* The root of one piece of memory. */
void lk_root_of(const void *data, size_t size, struct lk_root *out);

/* The same root from parts that were hashed apart: leaf i of a whole of `size` bytes is its bytes [i MiB, (i + 1) MiB), the
 * last one shorter. Threads: any. */
static inline uint64_t lk_leaf_count(uint64_t size) {
    return size / LK_LEAF_BYTES + (size % LK_LEAF_BYTES != 0);
}
/* One leaf; size at most LK_LEAF_BYTES. */
void lk_leaf_hash(const void *data, size_t size, struct lk_root *out);
/* All leaves of a piece that begins where a leaf does; leaves: (lk_leaf_count(size)). Of 2 MiB and more it hashes two at
 * once. */
void lk_leaf_hashes(const void *data, size_t size, struct lk_root *leaves);
/* leaves: (count), in order; count is lk_leaf_count(size), anything else is an assertion. */
void lk_root_of_leaves(const struct lk_root *leaves, size_t count, uint64_t size, struct lk_root *out);

/* Streaming; about 2 KiB of state, no other allocation. Hashing itself never fails. */
struct lk_hasher;
struct lk_hasher *lk_hasher_create(void); /* NULL: out of memory */
void lk_hasher_update(struct lk_hasher *, const void *data, size_t size);
void lk_hasher_final(struct lk_hasher *, struct lk_root *out); /* resets: the hasher can be used again */
void lk_hasher_free(struct lk_hasher *);

#ifdef __cplusplus
}
#endif
#endif
