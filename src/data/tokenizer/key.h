/* Words of up to 15 bytes as two numbers: the bytes, zero-padded, and their number in the last one. */
#ifndef LOCKSTEP_DATA_KEY_H
#define LOCKSTEP_DATA_KEY_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define LK__KEY_BYTES 15
/* Bytes of a key by the size of its word, and the size in the last one; [0] is for longer words and equals no key. */
struct lk__tokenizer_key_mask {
    uint64_t low, high, size;
};
#define LK__ONES(n) (((uint64_t)1 << (8 * (n))) - 1)
#define LK__SHORT(n)                                                                                                       \
    { LK__ONES(n), 0, (uint64_t)(n) << 56 }
#define LK__LONGER(n)                                                                                                      \
    { ~(uint64_t)0, LK__ONES((n)-8), (uint64_t)(n) << 56 }
static const struct lk__tokenizer_key_mask lk__tokenizer_key_masks[LK__KEY_BYTES + 1] = {
    {0, 0, 1},      LK__SHORT(1),   LK__SHORT(2),   LK__SHORT(3),  LK__SHORT(4),   LK__SHORT(5),
    LK__SHORT(6),   LK__SHORT(7),   LK__LONGER(8),  LK__LONGER(9), LK__LONGER(10), LK__LONGER(11),
    LK__LONGER(12), LK__LONGER(13), LK__LONGER(14), LK__LONGER(15)};

/* sixteen: 16 readable bytes, the word at their begin. */
static inline void lk__tokenizer_key(const uint8_t *sixteen, size_t size, uint64_t *low, uint64_t *high) {
    const struct lk__tokenizer_key_mask *m = &lk__tokenizer_key_masks[size <= LK__KEY_BYTES ? size : 0];
    memcpy(low, sixteen, 8);
    memcpy(high, sixteen + 8, 8);
    *low &= m->low;
    *high = (*high & m->high) | m->size;
}

static inline uint64_t lk__tokenizer_key_hash(uint64_t low, uint64_t high) {
    return low * 0x9E3779B97F4A7C15u + high * 0xD6E8FEB86659FD93u; /* only the upper bits are well mixed */
}

/* Of a word of any size; all bits are well mixed. */
static inline uint64_t lk__tokenizer_word_hash(const uint8_t *p, size_t size) {
    uint64_t h = size * 0x9E3779B97F4A7C15u, x = 0;
    const uint8_t *end = p + size;
    for (; end - p > 8; p += 8) {
        memcpy(&x, p, 8);
        h = (h ^ x) * 0xD6E8FEB86659FD93u;
        h ^= h >> 32;
    }
    if (size >= 8)
        memcpy(&x, end - 8, 8); /* overlaps what was hashed, instead of a shorter last step */
    else
        memcpy(&x, p, size);
    h = (h ^ x) * 0xD6E8FEB86659FD93u;
    return h ^ h >> 32;
}

#endif
