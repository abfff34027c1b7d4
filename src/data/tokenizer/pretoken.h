/* How a text is cut into words: the regular expressions of the tokenizers in use, without a regex engine. What they are,
 * how each alternative is met, the rule for invalid UTF-8 and the proof of the cut points: README.md. */
#ifndef LOCKSTEP_DATA_PRETOKEN_H
#define LOCKSTEP_DATA_PRETOKEN_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum lk__tokenizer_class { LK__OTHER = 0, LK__LETTER = 1, LK__NUMBER = 2, LK__SPACE = 3 };

extern const char lk__tokenizer_unicode_version[];
extern const uint32_t lk__tokenizer_unicode_end; /* code points from here on are LK__OTHER */
extern const uint8_t lk__tokenizer_unicode_block[];
extern const uint8_t lk__tokenizer_unicode_class[][32];
extern const uint32_t lk__tokenizer_unicode_case_end;
extern const uint16_t lk__tokenizer_unicode_case_block[];
extern const uint8_t lk__tokenizer_unicode_case[][32];

static inline enum lk__tokenizer_class lk__tokenizer_class_of(uint32_t c) {
    if (c >= lk__tokenizer_unicode_end) return LK__OTHER;
    return (enum lk__tokenizer_class)(
        lk__tokenizer_unicode_class[lk__tokenizer_unicode_block[c >> 7]][(c & 127) >> 2] >> ((c & 3) * 2) & 3);
}

/* For o200k: 1 upper (Lu, Lt), 2 lower (Ll), 3 both (Lm, Lo, M), 0 neither. */
static inline unsigned lk__tokenizer_case_of(uint32_t c) {
    if (c >= lk__tokenizer_unicode_case_end) return 0;
    return lk__tokenizer_unicode_case[lk__tokenizer_unicode_case_block[c >> 7]][(c & 127) >> 2] >> ((c & 3) * 2) & 3;
}

/* Names in the order of LK_PATTERNS. */
enum lk__tokenizer_pattern { LK__GPT2, LK__CL100K, LK__O200K, LK__LLAMA3, LK__QWEN2, LK__SMOLLM, LK__PATTERN_COUNT };
extern const char *const lk__tokenizer_pattern_names[LK__PATTERN_COUNT];
extern const char *const lk__tokenizer_pattern_files[LK__PATTERN_COUNT]; /* the expression in a tokenizer.json */
enum lk__tokenizer_pattern lk__tokenizer_pattern_find(const char *name); /* LK__PATTERN_COUNT: there is none */

/* Classes of ASCII; LK__MULTI marks a byte of a longer sequence or a stray one. */
enum { LK__MULTI = 4 };
extern const uint8_t lk__tokenizer_byte_class[256];

/* The unit at text[0..size), size >= 1: its class, and in *length the bytes of a well-formed sequence (Unicode table 3-7),
 * or 1 for a byte at which none starts, which is LK__OTHER. */
enum lk__tokenizer_class lk__tokenizer_unit(const uint8_t *text, size_t size, size_t *length);

/* Length of the well-formed sequence at text[0..size), 0 if none starts here; its code point in *c. */
size_t lk__tokenizer_utf8_decode(const uint8_t *text, size_t size, uint32_t *c);
bool lk__tokenizer_is_utf8(const void *text, size_t size);

/* Length of the contraction at text[0] == '\'', or 0 if it is none. */
size_t lk__tokenizer_contraction(const uint8_t *text, size_t size);

/* The same in any case, as (?i:...) has it: U+017F is an s. */
size_t lk__tokenizer_contraction_any_case(const uint8_t *text, size_t size);
/* End of the run of `class` from text[at]. */
size_t lk__tokenizer_run_end(const uint8_t *text, size_t at, size_t size, enum lk__tokenizer_class class);

/* End of the word that starts at text[at], at < size: at < result <= size. */
size_t lk__tokenizer_word_end(enum lk__tokenizer_pattern, const uint8_t *text, size_t at, size_t size);
size_t lk__tokenizer_word_end_gpt2(const uint8_t *text, size_t at, size_t size);

/* True when a word surely ends before text[at], 0 < at < size, whatever stands elsewhere, and the words before and after
 * are those of the two pieces taken alone. */
bool lk__tokenizer_cut_is_safe(enum lk__tokenizer_pattern, const uint8_t *text, size_t at, size_t size);
/* The first safe cut in (from, size), or size. */
size_t lk__tokenizer_next_cut(enum lk__tokenizer_pattern, const uint8_t *text, size_t from, size_t size);

#endif
