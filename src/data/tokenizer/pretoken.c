#include "data/tokenizer/pretoken.h"
#include <string.h>

#define O LK__OTHER
#define L LK__LETTER
#define N LK__NUMBER
#define S LK__SPACE
#define M LK__MULTI
/* clang-format off */
const uint8_t lk__tokenizer_byte_class[256] = {
    O, O, O, O, O, O, O, O, O, S, S, S, S, S, O, O, O, O, O, O, O, O, O, O, O, O, O, O, O, O, O, O,
    S, O, O, O, O, O, O, O, O, O, O, O, O, O, O, O, N, N, N, N, N, N, N, N, N, N, O, O, O, O, O, O,
    O, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, O, O, O, O, O,
    O, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, O, O, O, O, O,
    M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M,
    M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M,
    M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M,
    M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M,
};
/* clang-format on */
#undef O
#undef L
#undef N
#undef S
#undef M

static bool continues(uint8_t b) {
    return (b & 0xC0) == 0x80;
}

size_t lk__tokenizer_utf8_decode(const uint8_t *p, size_t size, uint32_t *c) {
    uint8_t a = p[0];
    if (a < 0x80) {
        *c = a;
        return 1;
    }
    if (a < 0xC2 || a > 0xF4 || size < 2 || !continues(p[1])) return 0;
    if (a < 0xE0) {
        *c = (uint32_t)(a & 0x1F) << 6 | (p[1] & 0x3F);
        return 2;
    }
    if (size < 3 || !continues(p[2])) return 0;
    if (a < 0xF0) {
        if ((a == 0xE0 && p[1] < 0xA0) || (a == 0xED && p[1] > 0x9F)) return 0; /* overlong, surrogate */
        *c = (uint32_t)(a & 0x0F) << 12 | (uint32_t)(p[1] & 0x3F) << 6 | (p[2] & 0x3F);
        return 3;
    }
    if ((a == 0xF0 && p[1] < 0x90) || (a == 0xF4 && p[1] > 0x8F)) return 0; /* overlong, above U+10FFFF */
    if (size < 4 || !continues(p[3])) return 0;
    *c = (uint32_t)(a & 0x07) << 18 | (uint32_t)(p[1] & 0x3F) << 12 | (uint32_t)(p[2] & 0x3F) << 6 | (p[3] & 0x3F);
    return 4;
}

enum lk__tokenizer_class lk__tokenizer_unit(const uint8_t *p, size_t size, size_t *length) {
    if (p[0] < 0x80) {
        *length = 1;
        return (enum lk__tokenizer_class)lk__tokenizer_byte_class[p[0]];
    }
    uint32_t c;
    *length = lk__tokenizer_utf8_decode(p, size, &c);
    if (*length) return lk__tokenizer_class_of(c);
    *length = 1;
    return LK__OTHER;
}

size_t lk__tokenizer_run_end(const uint8_t *text, size_t at, size_t size, enum lk__tokenizer_class class) {
    while (at < size) {
        uint8_t k = lk__tokenizer_byte_class[text[at]];
        if (k == (uint8_t) class) {
            at++;
            continue;
        }
        if (k != LK__MULTI) break;
        size_t length;
        if (lk__tokenizer_unit(text + at, size - at, &length) != class) break;
        at += length;
    }
    return at;
}

/* \s+(?!\S)|\s+ : all of the run at the end of the text, else all but its last unit, else its one unit. */
static size_t space_end(const uint8_t *text, size_t at, size_t size) {
    size_t end = at, last = at;
    while (end < size) {
        size_t length;
        if (lk__tokenizer_unit(text + end, size - end, &length) != LK__SPACE) break;
        last = end;
        end += length;
    }
    if (end == size || last == at) return end;
    return last;
}

size_t lk__tokenizer_contraction(const uint8_t *p, size_t size) {
    if (size < 2) return 0;
    if (p[1] == 's' || p[1] == 't' || p[1] == 'm' || p[1] == 'd') return 2;
    if (size < 3) return 0;
    if (p[1] == 'l') return p[2] == 'l' ? 3 : 0;
    return (p[1] == 'r' || p[1] == 'v') && p[2] == 'e' ? 3 : 0;
}

size_t lk__tokenizer_word_end_gpt2(const uint8_t *text, size_t at, size_t size) {
    size_t length, from = at;
    if (text[at] == '\'') {
        length = lk__tokenizer_contraction(text + at, size - at);
        if (length) return at + length;
    } else if (text[at] == ' ') {
        from = at + 1;
        if (from == size) return from;
    }
    enum lk__tokenizer_class class = lk__tokenizer_unit(text + from, size - from, &length);
    if (class == LK__SPACE) return space_end(text, at, size);
    return lk__tokenizer_run_end(text, from + length, size, class);
}

/* The class of the unit that ends at text[at], seen from behind. */
static enum lk__tokenizer_class class_before(const uint8_t *text, size_t at) {
    size_t length;
    for (size_t k = 1; k <= 4 && k <= at; k++) {
        if (continues(text[at - k])) continue;
        enum lk__tokenizer_class class = lk__tokenizer_unit(text + at - k, k, &length);
        return length == k ? class : LK__OTHER;
    }
    return LK__OTHER;
}

bool lk__tokenizer_cut_is_safe(enum lk__tokenizer_pattern pattern, const uint8_t *text, size_t at, size_t size) {
    if (continues(text[at])) return false;
    size_t length;
    enum lk__tokenizer_class before = class_before(text, at), after = lk__tokenizer_unit(text + at, size - at, &length);
    if (before == LK__SPACE) /* white space with a newline at its end is a word, or goes with the signs in front of it */
        return pattern != LK__GPT2 && pattern != LK__SMOLLM && (text[at - 1] == '\n' || text[at - 1] == '\r') &&
               (after == LK__LETTER || after == LK__NUMBER);
    if (after == LK__NUMBER) return before != LK__NUMBER;
    if (pattern != LK__GPT2) { /* a newline may belong to the signs in front of it, a mark or a quote to the letters */
        if (before == LK__NUMBER) return true;
        return after == LK__SPACE &&
               (before == LK__LETTER || pattern == LK__SMOLLM || (text[at] != '\r' && text[at] != '\n'));
    }
    if (after == LK__SPACE) return true;
    if (after == LK__OTHER) return before != LK__OTHER;
    return before == LK__NUMBER; /* other, letter may be a contraction */
}

size_t lk__tokenizer_next_cut(enum lk__tokenizer_pattern pattern, const uint8_t *text, size_t from, size_t size) {
    for (size_t at = from + 1; at < size; at++)
        if (lk__tokenizer_cut_is_safe(pattern, text, at, size)) return at;
    return size;
}
