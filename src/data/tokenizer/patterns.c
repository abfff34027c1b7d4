/* The words of every pattern but GPT-2's (pretoken.c). Each alternative of the expressions below is met with one look at a
 * unit or two; README.md, "Patterns". */
#include "data/tokenizer/pretoken.h"
#include <string.h>

const char *const lk__tokenizer_pattern_names[LK__PATTERN_COUNT] = {"gpt2", "cl100k", "o200k", "llama3", "qwen2", "smollm"};

#define QUOTED   "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define LETTERS  "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+"
#define SIGNS    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
#define SPACES   "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define UPPER    "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER    "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define NO_BREAK "[^\\r\\n\\p{L}\\p{N}]?"
#define O200K                                                                                                              \
    NO_BREAK UPPER "*" LOWER "+" QUOTED "?|" NO_BREAK UPPER "+" LOWER "*" QUOTED "?|\\p{N}{1,3}"                           \
                   "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*" SPACES

/* As tokenizer.json says them: Oniguruma, which reads tokenizer.json's expressions, knows no {1,3}+ and another $. */
const char *const lk__tokenizer_pattern_files[LK__PATTERN_COUNT] = {
    "'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
    QUOTED LETTERS "|\\p{N}{1,3}" SIGNS "|\\s+\\z" SPACES,
    O200K,
    QUOTED LETTERS "|\\p{N}{1,3}" SIGNS SPACES,
    QUOTED LETTERS "|\\p{N}" SIGNS SPACES,
    NULL, /* Digits and ByteLevel */
};

enum lk__tokenizer_pattern lk__tokenizer_pattern_find(const char *name) {
    for (int i = 0; i < LK__PATTERN_COUNT; i++)
        if (!strcmp(name, lk__tokenizer_pattern_names[i])) return (enum lk__tokenizer_pattern)i;
    return LK__PATTERN_COUNT;
}

size_t lk__tokenizer_contraction_any_case(const uint8_t *p, size_t size) {
    if (size < 2) return 0;
    uint8_t a = p[1] | 0x20,
            b = size > 2 ? p[2] | 0x20 : 0; /* a letter's two cases, and no other byte, become the small one */
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
    if (p[1] == 0xC5 && size > 2 && p[2] == 0xBF) return 3; /* U+017F, long s */
    if (a == 'l') return b == 'l' ? 3 : 0;
    return (a == 'r' || a == 'v') && b == 'e' ? 3 : 0;
}

/* lk__tokenizer_unit and lk__tokenizer_run_end with ASCII, most of most texts, in line. */
static inline enum lk__tokenizer_class unit_at(const uint8_t *text, size_t at, size_t size, size_t *length) {
    *length = 1;
    return text[at] < 0x80 ? (enum lk__tokenizer_class)lk__tokenizer_byte_class[text[at]]
                           : lk__tokenizer_unit(text + at, size - at, length);
}
static inline size_t run_end(const uint8_t *text, size_t at, size_t size, enum lk__tokenizer_class class) {
    while (at < size && lk__tokenizer_byte_class[text[at]] == (uint8_t) class) at++;
    return at < size && text[at] >= 0x80 ? lk__tokenizer_run_end(text, at, size, class) : at;
}

static inline bool is_break(uint8_t b) {
    return b == '\r' || b == '\n';
}

/* The class at text[at], or none at the end of the text. */
#define AT_END ((enum lk__tokenizer_class)9)
static inline enum lk__tokenizer_class class_at(const uint8_t *text, size_t at, size_t size, size_t *length) {
    *length = 0;
    return at < size ? unit_at(text, at, size, length) : AT_END;
}

/* \p{N}{1,most}, the first of them ending at `at`. */
static size_t numbers_end(const uint8_t *text, size_t at, size_t size, int most) {
    size_t length;
    for (int i = 1; i < most && class_at(text, at, size, &length) == LK__NUMBER; i++) at += length;
    return at;
}

/* [^\s\p{L}\p{N}]*[\r\n]* or, with slash, [^\s\p{L}\p{N}]*[\r\n/]* */
static size_t signs_end(const uint8_t *text, size_t at, size_t size, bool slash) {
    at = run_end(text, at, size, LK__OTHER);
    while (at < size && (is_break(text[at]) || (slash && text[at] == '/'))) at++;
    return at;
}

/* \s*[\r\n]+|\s+(?!\S)|\s+ : to the last newline of the run; without one, all of it at the end of the text, else all but
 * its last unit, else its one unit. whole_at_end: \s++$ stands in front. before_number: \s+(?=\p{N}) does. */
static size_t spaces_end(const uint8_t *text, size_t at, size_t size, bool breaks, bool whole_at_end, bool before_number) {
    size_t end = at, last = at, newline = 0, length;
    enum lk__tokenizer_class class;
    while ((class = class_at(text, end, size, &length)) == LK__SPACE) {
        last = end;
        end += length;
        if (is_break(text[last])) newline = end;
    }
    if (whole_at_end && end == size) return end;
    if (breaks && newline) return newline;
    if (end == size || last == at || (before_number && class == LK__NUMBER)) return end;
    return last;
}

/* cl100k, llama3, qwen2. */
static inline size_t word_end_llama(const uint8_t *text, size_t at, size_t size, int digits, bool whole_at_end) {
    size_t length, next_length;
    if (text[at] == '\'' && (length = lk__tokenizer_contraction_any_case(text + at, size - at))) return at + length;
    enum lk__tokenizer_class class = unit_at(text, at, size, &length);
    size_t next = at + length;
    if (class == LK__LETTER) return run_end(text, next, size, LK__LETTER);
    if (class == LK__NUMBER) return numbers_end(text, next, size, digits);
    enum lk__tokenizer_class after = class_at(text, next, size, &next_length);
    if (after == LK__LETTER && !is_break(text[at])) return run_end(text, next + next_length, size, LK__LETTER);
    if (class == LK__OTHER || (text[at] == ' ' && after == LK__OTHER)) return signs_end(text, next, size, false);
    return spaces_end(text, at, size, true, whole_at_end, false);
}

/* Digits alone, then GPT-2's pattern on what stands between them. */
static size_t word_end_smollm(const uint8_t *text, size_t at, size_t size) {
    size_t length, next_length;
    if (text[at] == '\'' && (length = lk__tokenizer_contraction(text + at, size - at))) return at + length;
    enum lk__tokenizer_class class = unit_at(text, at, size, &length);
    size_t next = at + length;
    if (class == LK__NUMBER) return next;
    if (text[at] == ' ') {
        class = class_at(text, next, size, &next_length);
        if (class == LK__LETTER || class == LK__OTHER)
            next += next_length;
        else
            class = LK__SPACE;
    }
    return class == LK__SPACE ? spaces_end(text, at, size, false, false, true) : run_end(text, next, size, class);
}

/* --- o200k ------------------------------------------------------------------------------------------------ */

static unsigned case_at(const uint8_t *text, size_t at, size_t size, size_t *length) {
    uint32_t c;
    *length = 0;
    if (at == size) return 0;
    if (text[at] < 0x80) {
        *length = 1;
        return lk__tokenizer_byte_class[text[at]] != LK__LETTER ? 0 : text[at] < 'a' ? 1 : 2;
    }
    *length = lk__tokenizer_utf8_decode(text + at, size - at, &c);
    return *length ? lk__tokenizer_case_of(c) : 0;
}

/* End of UPPER*LOWER+ from `at`, or 0 if it does not match there; *upper: end of UPPER*, for UPPER+LOWER*, which is tried
 * only where the first fails, and there no LOWER follows. */
static size_t letters_end(const uint8_t *text, size_t at, size_t size, size_t *upper) {
    size_t length, last_both = 0;
    unsigned kind;
    while ((kind = case_at(text, at, size, &length)) & 1) {
        at += length;
        if (kind == 3) last_both = at; /* where UPPER* could give one back to LOWER+ */
    }
    *upper = at;
    if (!kind) return last_both;
    while (case_at(text, at, size, &length) & 2) at += length;
    return at;
}

static size_t with_contraction(const uint8_t *text, size_t at, size_t size) {
    return at < size && text[at] == '\'' ? at + lk__tokenizer_contraction_any_case(text + at, size - at) : at;
}

static size_t word_end_o200k(const uint8_t *text, size_t at, size_t size) {
    size_t length, upper, end = 0, next_length;
    enum lk__tokenizer_class class = unit_at(text, at, size, &length);
    size_t next = at + length;
    if (class == LK__NUMBER) return numbers_end(text, next, size, 3);
    if (class == LK__LETTER) {
        end = letters_end(text, at, size, &upper);
        return with_contraction(text, end ? end : upper, size);
    }
    if (!is_break(text[at])) {
        end = letters_end(text, next, size, &upper);
        if (!end && case_at(text, at, size, &length)) { /* a mark: no prefix, but a letter */
            size_t ignored;
            end = letters_end(text, at, size, &ignored);
        }
        if (!end && upper > next) end = upper;
    }
    if (end) return with_contraction(text, end, size);
    if (class == LK__OTHER) return signs_end(text, next, size, true);
    if (text[at] == ' ' && class_at(text, next, size, &next_length) == LK__OTHER) return signs_end(text, next, size, true);
    return spaces_end(text, at, size, true, false, false);
}

size_t lk__tokenizer_word_end(enum lk__tokenizer_pattern pattern, const uint8_t *text, size_t at, size_t size) {
    switch (pattern) {
    case LK__CL100K:
        return word_end_llama(text, at, size, 3, true);
    case LK__LLAMA3:
        return word_end_llama(text, at, size, 3, false);
    case LK__QWEN2:
        return word_end_llama(text, at, size, 1, false);
    case LK__O200K:
        return word_end_o200k(text, at, size);
    case LK__SMOLLM:
        return word_end_smollm(text, at, size);
    case LK__GPT2:
    case LK__PATTERN_COUNT:
        break;
    }
    return lk__tokenizer_word_end_gpt2(text, at, size);
}
