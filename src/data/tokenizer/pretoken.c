#include "data/tokenizer/pretoken.h"
#include <string.h>

/* Classes of ASCII; 4 marks a byte of a longer sequence or a stray one. */
enum { MULTI = 4 };
#define O LK__OTHER
#define L LK__LETTER
#define N LK__NUMBER
#define S LK__SPACE
#define M MULTI
/* clang-format off */
static const uint8_t byte_class[256] = {
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

size_t lk__utf8_decode(const uint8_t *p, size_t size, uint32_t *c) {
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

enum lk__class lk__unit(const uint8_t *p, size_t size, size_t *length) {
    if (p[0] < 0x80) {
        *length = 1;
        return (enum lk__class)byte_class[p[0]];
    }
    uint32_t c;
    *length = lk__utf8_decode(p, size, &c);
    if (*length) return lk__class_of(c);
    *length = 1;
    return LK__OTHER;
}

/* End of the run of `class` from text[at]. */
static size_t run_end(const uint8_t *text, size_t at, size_t size, enum lk__class class) {
    while (at < size) {
        uint8_t k = byte_class[text[at]];
        if (k == (uint8_t) class) {
            at++;
            continue;
        }
        if (k != MULTI) break;
        size_t length;
        if (lk__unit(text + at, size - at, &length) != class) break;
        at += length;
    }
    return at;
}

/* \s+(?!\S)|\s+ : all of the run at the end of the text, else all but its last unit, else its one unit. */
static size_t space_end(const uint8_t *text, size_t at, size_t size) {
    size_t end = at, last = at;
    while (end < size) {
        size_t length;
        if (lk__unit(text + end, size - end, &length) != LK__SPACE) break;
        last = end;
        end += length;
    }
    if (end == size || last == at) return end;
    return last;
}

size_t lk__contraction(const uint8_t *p, size_t size) {
    if (size < 2) return 0;
    if (p[1] == 's' || p[1] == 't' || p[1] == 'm' || p[1] == 'd') return 2;
    if (size < 3) return 0;
    if (p[1] == 'l') return p[2] == 'l' ? 3 : 0;
    return (p[1] == 'r' || p[1] == 'v') && p[2] == 'e' ? 3 : 0;
}

size_t lk__word_end(const uint8_t *text, size_t at, size_t size) {
    size_t length, from = at;
    if (text[at] == '\'') {
        length = lk__contraction(text + at, size - at);
        if (length) return at + length;
    } else if (text[at] == ' ') {
        from = at + 1;
        if (from == size) return from;
    }
    enum lk__class class = lk__unit(text + from, size - from, &length);
    if (class == LK__SPACE) return space_end(text, at, size);
    return run_end(text, from + length, size, class);
}

bool lk__cut_is_safe(const uint8_t *text, size_t at, size_t size) {
    if (continues(text[at])) return false;
    size_t length;
    enum lk__class before = LK__OTHER;
    for (size_t k = 1; k <= 4 && k <= at; k++) {
        if (continues(text[at - k])) continue;
        enum lk__class class = lk__unit(text + at - k, k, &length);
        if (length == k) before = class;
        break;
    }
    if (before == LK__SPACE) return false;
    enum lk__class after = lk__unit(text + at, size - at, &length);
    switch (after) {
    case LK__SPACE:
        return true;
    case LK__NUMBER:
        return before != LK__NUMBER;
    case LK__OTHER:
        return before != LK__OTHER;
    case LK__LETTER:
        return before == LK__NUMBER; /* other, letter may be a contraction */
    }
    return false;
}

size_t lk__next_cut(const uint8_t *text, size_t from, size_t size) {
    for (size_t at = from + 1; at < size; at++)
        if (lk__cut_is_safe(text, at, size)) return at;
    return size;
}
