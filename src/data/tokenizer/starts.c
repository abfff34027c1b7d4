#include "data/tokenizer/starts.h"
#include <string.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

/* --- classes of 64 bytes ---------------------------------------------------------------------------------- */

#if defined(__SSE2__)
static inline __m128i load16(const uint8_t *p) {
    __m128i x;
    memcpy(&x, p, sizeof x);
    return x;
}
/* Bytes of x from `first` on, `count` of them. */
static inline uint64_t in_range(__m128i x, int first, int count) {
    __m128i moved = _mm_add_epi8(x, _mm_set1_epi8((char)(-128 - first)));
    return (uint32_t)_mm_movemask_epi8(_mm_cmplt_epi8(moved, _mm_set1_epi8((char)(-128 + count))));
}
static inline uint64_t equal(__m128i x, char to) {
    return (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(x, _mm_set1_epi8(to)));
}
static inline void classify_ascii(const uint8_t *p, struct lk__tokenizer_classes *c) {
    for (int i = 0; i < 64; i += 16) {
        __m128i x = load16(p + i);
        c->letter |= in_range(_mm_or_si128(x, _mm_set1_epi8(0x20)), 'a', 26) << i;
        c->number |= in_range(x, '0', 10) << i;
        c->space |= in_range(x, '\t', 5) << i;
        c->blank |= equal(x, ' ') << i;
        c->quote |= equal(x, '\'') << i;
        c->newline |= equal(x, '\n') << i;
        c->wide |= (uint64_t)(uint32_t)_mm_movemask_epi8(x) << i;
    }
    c->space |= c->blank;
}
#else
/* The high bits of 8 bytes as 8 bits. */
static inline uint64_t gather(uint64_t high) {
    return (high >> 7) * 0x0102040810204080u >> 56;
}
static inline uint64_t in_range(uint64_t low7, uint64_t ascii, int first, int count) {
    const uint64_t ones = 0x0101010101010101u, high = 0x8080808080808080u;
    uint64_t from = low7 + (uint64_t)(0x80 - first) * ones, past = low7 + (uint64_t)(0x80 - first - count) * ones;
    return gather(from & ~past & ascii & high);
}
static inline void classify_ascii(const uint8_t *p, struct lk__tokenizer_classes *c) {
    const uint64_t ones = 0x0101010101010101u, high = 0x8080808080808080u;
    for (int i = 0; i < 64; i += 8) {
        uint64_t x = 0;
        for (int k = 0; k < 8; k++) x |= (uint64_t)p[i + k] << (8 * k);
        uint64_t low7 = x & ~high, ascii = ~x;
        c->letter |= in_range(low7 | 0x20 * ones, ascii, 'a', 26) << i;
        c->number |= in_range(low7, ascii, '0', 10) << i;
        c->space |= in_range(low7, ascii, '\t', 5) << i;
        c->blank |= in_range(low7, ascii, ' ', 1) << i;
        c->quote |= in_range(low7, ascii, '\'', 1) << i;
        c->newline |= in_range(low7, ascii, '\n', 1) << i;
        c->wide |= gather(x & high) << i;
    }
    c->space |= c->blank;
}
#endif

static inline uint64_t bits_from(size_t from, size_t count) {
    return (count >= 64 ? ~(uint64_t)0 : ((uint64_t)1 << count) - 1) << from;
}

static void put_class(struct lk__tokenizer_classes *c, unsigned class, uint64_t bits) {
    if (class == LK__LETTER) c->letter |= bits;
    if (class == LK__NUMBER) c->number |= bits;
    if (class == LK__SPACE) c->space |= bits;
}

/* Characters above ASCII, one by one: rare in most texts. */
static void classify_wide(struct lk__tokenizer_starts *s, size_t at, struct lk__tokenizer_classes *c) {
    uint64_t left = c->wide;
    if (s->carry) {
        uint64_t bits = bits_from(0, s->carry);
        put_class(c, s->carry_class, bits);
        left &= ~bits;
        s->carry = 0;
    }
    while (left) {
        size_t i = (size_t)__builtin_ctzll(left), from = at + i, length, next;
        enum lk__tokenizer_class class = lk__tokenizer_unit(s->text + from, s->size - from, &length);
        put_class(c, class, bits_from(i, length));
        left &= ~bits_from(i, length);
        if (i + length > 64) {
            s->carry = i + length - 64;
            s->carry_class = class;
        }
        if (class != LK__SPACE) continue;
        from += length;
        if (from == s->size || lk__tokenizer_unit(s->text + from, s->size - from, &next) == LK__SPACE) continue;
        c->inner |= (uint64_t)1 << i;
    }
}

/* The end of the text is followed by white space, so that no word begins at the last one of a run. */
static void classify(struct lk__tokenizer_starts *s, size_t at, struct lk__tokenizer_classes *c) {
    uint8_t last[64];
    *c = (struct lk__tokenizer_classes){0};
    if (at < s->size && s->size - at >= 64) {
        classify_ascii(s->text + at, c);
    } else {
        size_t n = at < s->size ? s->size - at : 0;
        memset(last, ' ', sizeof last);
        if (n) memcpy(last, s->text + at, n);
        classify_ascii(last, c);
    }
    if (c->wide) classify_wide(s, at, c);
}

/* --- begins ----------------------------------------------------------------------------------------------- */

/* Contractions at quotes where a word begins: the letter behind the quote begins none, what follows begins one. */
static uint64_t contract(struct lk__tokenizer_starts *s, uint64_t starts, uint64_t quotes) {
    for (; quotes; quotes &= quotes - 1) {
        size_t i = (size_t)__builtin_ctzll(quotes), n = lk__tokenizer_contraction(s->text + s->at + i, s->size - s->at - i);
        if (!n) continue;
        if (i + 1 < 64)
            starts &= ~((uint64_t)2 << i);
        else
            s->clear = 1;
        if (i + n < 64)
            starts |= (uint64_t)1 << (i + n);
        else
            s->set |= (uint64_t)1 << (i + n - 64);
    }
    return starts;
}

static inline uint64_t after(uint64_t now, uint64_t before) {
    return now << 1 | before >> 63;
}
static inline uint64_t other(const struct lk__tokenizer_classes *c) {
    return ~(c->letter | c->number | c->space);
}

static inline uint64_t block_starts(struct lk__tokenizer_starts *s) {
    const struct lk__tokenizer_classes *c = &s->now, *b = &s->before;
    uint64_t after_space = after(c->space, b->space), before_space = c->space >> 1 | s->next.space << 63;
    uint64_t same = (c->letter & after(c->letter, b->letter)) | (c->number & after(c->number, b->number)) |
                    (other(c) & after(other(c), other(b)));
    uint64_t last = (~c->wide & ~before_space) | c->inner; /* the last white space of a run, if it is one */
    if (s->lines) last &= ~c->newline;
    uint64_t space = c->space & (~after_space | last);
    uint64_t text = ~c->space & ((after_space & ~after(c->blank, b->blank)) | (~after_space & ~same));
    uint64_t starts = space | text;
    if (s->lines) starts |= after(c->newline, b->newline);
    starts = (starts & ~s->clear) | s->set;
    s->clear = s->set = 0;
    return starts & c->quote ? contract(s, starts, starts & c->quote) : starts;
}

/* --- word by word ----------------------------------------------------------------------------------------- */

/* Patterns of which `\p{L}+` with one unit in front is a word, whatever the letters' case. */
static bool has_letter_runs(enum lk__tokenizer_pattern p) {
    return p == LK__CL100K || p == LK__LLAMA3 || p == LK__QWEN2;
}

void lk__tokenizer_starts_begin(struct lk__tokenizer_starts *s, enum lk__tokenizer_pattern pattern, const void *text,
                                size_t size, bool lines) {
    *s = (struct lk__tokenizer_starts){.text = text, .size = size, .pattern = pattern, .lines = lines};
    s->line_end = lines ? 0 : size;
    s->set = 1; /* a text begins with a word */
    if (pattern != LK__GPT2 && !has_letter_runs(pattern)) return;
    classify(s, 0, &s->now);
    classify(s, 64, &s->next);
}

static inline void next_block(struct lk__tokenizer_starts *s) {
    s->block += 64;
    s->now = s->next;
    classify(s, s->block + 64, &s->next);
}

/* End of the word at `at` if it is letters, or a space and letters: most words are; else 0. */
static inline size_t letters_end(struct lk__tokenizer_starts *s, size_t at) {
    while (at - s->block >= 64) next_block(s);
    if (s->now.blank >> (at - s->block) & 1 && ++at - s->block == 64) next_block(s);
    uint64_t others = ~s->now.letter >> (at - s->block);
    if (others & 1) return 0;
    while (!others) {
        next_block(s);
        at = s->block;
        others = ~s->now.letter;
    }
    return at + (size_t)__builtin_ctzll(others);
}

static size_t next_by_words(struct lk__tokenizer_starts *s, size_t *out, size_t room) {
    size_t n = 0, end;
    bool runs = has_letter_runs(s->pattern);
    while (n < room && s->at < s->size) {
        if (s->at == s->line_end) {
            const uint8_t *newline = memchr(s->text + s->at, '\n', s->size - s->at);
            s->line_end = newline ? (size_t)(newline - s->text) + 1 : s->size;
        }
        out[n++] = s->at;
        end = runs ? letters_end(s, s->at) : 0;
        s->at = end ? end : lk__tokenizer_word_end(s->pattern, s->text, s->at, s->line_end);
    }
    return n;
}

size_t lk__tokenizer_starts_next(struct lk__tokenizer_starts *s, size_t *out, size_t room) {
    size_t n = 0;
    if (s->pattern != LK__GPT2) return next_by_words(s, out, room);
    while (n < room && s->at < s->size) {
        uint64_t starts = block_starts(s);
        if (s->size - s->at < 64) starts &= bits_from(0, s->size - s->at);
        for (; starts; starts &= starts - 1) out[n++] = s->at + (size_t)__builtin_ctzll(starts);
        s->at += 64;
        s->before = s->now;
        s->now = s->next;
        classify(s, s->at + 64, &s->next);
    }
    return n;
}
