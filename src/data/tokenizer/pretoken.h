/* The GPT-2 pattern without a regex engine:
 *   '(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 * How each alternative is met, the rule for invalid UTF-8 and the proof of the cut points: README.md. */
#ifndef LOCKSTEP_DATA_PRETOKEN_H
#define LOCKSTEP_DATA_PRETOKEN_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum lk__class { LK__OTHER = 0, LK__LETTER = 1, LK__NUMBER = 2, LK__SPACE = 3 };

extern const char lk__unicode_version[];
extern const uint32_t lk__unicode_end; /* code points from here on are LK__OTHER */
extern const uint8_t lk__unicode_block[];
extern const uint8_t lk__unicode_class[][32];

static inline enum lk__class lk__class_of(uint32_t c) {
    if (c >= lk__unicode_end) return LK__OTHER;
    return (enum lk__class)(lk__unicode_class[lk__unicode_block[c >> 7]][(c & 127) >> 2] >> ((c & 3) * 2) & 3);
}

/* The unit at text[0..size), size >= 1: its class, and in *length the bytes of a well-formed sequence (Unicode table 3-7),
 * or 1 for a byte at which none starts, which is LK__OTHER. */
enum lk__class lk__unit(const uint8_t *text, size_t size, size_t *length);

/* Length of the well-formed sequence at text[0..size), 0 if none starts here; its code point in *c. */
size_t lk__utf8_decode(const uint8_t *text, size_t size, uint32_t *c);

/* Length of the contraction at text[0] == '\'', or 0 if it is none. */
size_t lk__contraction(const uint8_t *text, size_t size);

/* End of the word that starts at text[at], at < size: at < result <= size. */
size_t lk__word_end(const uint8_t *text, size_t at, size_t size);

/* True when a word surely ends before text[at], 0 < at < size, whatever stands elsewhere, and the words before and after
 * are those of the two pieces taken alone. */
bool lk__cut_is_safe(const uint8_t *text, size_t at, size_t size);
/* The first safe cut in (from, size), or size. */
size_t lk__next_cut(const uint8_t *text, size_t from, size_t size);

#endif
