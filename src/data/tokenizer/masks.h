/* Which of 64 bytes are what: a mask of 64 bits for each class, bytes above ASCII apart. SSE2 on x86, else eight bytes at a
 * time in a register. Functions in line, so that a pattern pays for the masks that it asks for. */
#ifndef LOCKSTEP_DATA_MASKS_H
#define LOCKSTEP_DATA_MASKS_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

/* One bit a byte. Bytes of a longer sequence have the class of its character. */
struct lk__tokenizer_classes {
    uint64_t letter, number, space, other; /* each byte is one of these */
    uint64_t blank;                        /* U+0020 */
    uint64_t newline, breaks;              /* \n; \r or \n */
    uint64_t quote, slash, upper;          /* upper: letters that are upper case only */
    uint64_t inner; /* the first byte of a white space, of more bytes than one, that ends a run: a word begins there */
    uint64_t wide;  /* bytes above ASCII */
    uint64_t rest;  /* bytes of a character behind its first */
    uint64_t hard;  /* not 0: o200k's letters need another look than a mask's */
};

#if defined(__SSE2__)
typedef __m128i lk__tokenizer_mask_bytes;
#define LK__MASK_STEP 16
static inline lk__tokenizer_mask_bytes lk__tokenizer_mask_load(const uint8_t *p) {
    __m128i x;
    memcpy(&x, p, sizeof x);
    return x;
}
/* Bytes of x from `first` on, `count` of them. */
static inline uint64_t lk__tokenizer_mask_range(lk__tokenizer_mask_bytes x, int first, int count) {
    __m128i moved = _mm_add_epi8(x, _mm_set1_epi8((char)(-128 - first)));
    return (uint32_t)_mm_movemask_epi8(_mm_cmplt_epi8(moved, _mm_set1_epi8((char)(-128 + count))));
}
static inline uint64_t lk__tokenizer_mask_equal(lk__tokenizer_mask_bytes x, char to) {
    return (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(x, _mm_set1_epi8(to)));
}
static inline lk__tokenizer_mask_bytes lk__tokenizer_mask_small(lk__tokenizer_mask_bytes x) {
    return _mm_or_si128(x, _mm_set1_epi8(0x20));
}
static inline uint64_t lk__tokenizer_mask_wide(lk__tokenizer_mask_bytes x) {
    return (uint32_t)_mm_movemask_epi8(x);
}
#else
typedef uint64_t lk__tokenizer_mask_bytes;
#define LK__MASK_STEP 8
#define LK__MASK_ONES ((uint64_t)0x0101010101010101u)
#define LK__MASK_HIGH ((uint64_t)0x8080808080808080u)
static inline lk__tokenizer_mask_bytes lk__tokenizer_mask_load(const uint8_t *p) {
    uint64_t x = 0;
    for (int k = 0; k < 8; k++) x |= (uint64_t)p[k] << (8 * k);
    return x;
}
/* The high bits of 8 bytes as 8 bits. */
static inline uint64_t lk__tokenizer_mask_gather(uint64_t high) {
    return (high >> 7) * 0x0102040810204080u >> 56;
}
static inline uint64_t lk__tokenizer_mask_range(lk__tokenizer_mask_bytes x, int first, int count) {
    uint64_t low7 = x & ~LK__MASK_HIGH, from = low7 + (uint64_t)(0x80 - first) * LK__MASK_ONES,
             past = low7 + (uint64_t)(0x80 - first - count) * LK__MASK_ONES;
    return lk__tokenizer_mask_gather(from & ~past & ~x & LK__MASK_HIGH);
}
static inline uint64_t lk__tokenizer_mask_equal(lk__tokenizer_mask_bytes x, char to) {
    return lk__tokenizer_mask_range(x, to, 1);
}
static inline lk__tokenizer_mask_bytes lk__tokenizer_mask_small(lk__tokenizer_mask_bytes x) {
    return x | 0x20 * LK__MASK_ONES;
}
static inline uint64_t lk__tokenizer_mask_wide(lk__tokenizer_mask_bytes x) {
    return lk__tokenizer_mask_gather(x & LK__MASK_HIGH);
}
#endif

/* Masks of 64 bytes; unrolled, since a loop would keep all masks at once and spill them. */
#define LK__MASK_STEPS(mask)                                                                                               \
    uint64_t all = 0;                                                                                                      \
    _Pragma("GCC unroll 8") for (int i = 0; i < 64; i += LK__MASK_STEP) {                                                  \
        lk__tokenizer_mask_bytes x = lk__tokenizer_mask_load(p + i);                                                       \
        all |= (mask) << i;                                                                                                \
    }                                                                                                                      \
    return all
static inline uint64_t lk__tokenizer_masks_letter(const uint8_t *p) {
    LK__MASK_STEPS(lk__tokenizer_mask_range(lk__tokenizer_mask_small(x), 'a', 26));
}
static inline uint64_t lk__tokenizer_masks_range(const uint8_t *p, int first, int count) {
    LK__MASK_STEPS(lk__tokenizer_mask_range(x, first, count));
}
static inline uint64_t lk__tokenizer_masks_equal(const uint8_t *p, char to) {
    LK__MASK_STEPS(lk__tokenizer_mask_equal(x, to));
}
static inline uint64_t lk__tokenizer_masks_wide(const uint8_t *p) {
    LK__MASK_STEPS(lk__tokenizer_mask_wide(x));
}

/* What a pattern asks for besides; a constant where it is called. */
enum { LK__MASK_BREAKS = 1, LK__MASK_CASES = 2 };

/* All of ASCII in *c; bytes above it are `wide` and of no class yet. */
static inline void lk__tokenizer_masks(const uint8_t *p, int asked, struct lk__tokenizer_classes *c) {
    c->letter = lk__tokenizer_masks_letter(p);
    c->number = lk__tokenizer_masks_range(p, '0', 10);
    c->blank = lk__tokenizer_masks_equal(p, ' ');
    c->space = lk__tokenizer_masks_range(p, '\t', 5) | c->blank;
    c->other = ~(c->letter | c->number | c->space);
    c->quote = lk__tokenizer_masks_equal(p, '\'');
    c->newline = lk__tokenizer_masks_equal(p, '\n');
    c->wide = lk__tokenizer_masks_wide(p);
    c->inner = c->rest = c->hard = 0;
    c->breaks = asked & LK__MASK_BREAKS ? c->newline | lk__tokenizer_masks_equal(p, '\r') : 0;
    c->slash = asked & LK__MASK_CASES ? lk__tokenizer_masks_equal(p, '/') : 0;
    c->upper = asked & LK__MASK_CASES ? lk__tokenizer_masks_range(p, 'A', 26) : 0;
}

#endif
