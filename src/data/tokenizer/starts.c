#include "data/tokenizer/starts.h"
#include <string.h>

/* --- classes of 64 bytes ---------------------------------------------------------------------------------- */

static inline uint64_t bits_from(size_t from, size_t count) {
    return (count >= 64 ? ~(uint64_t)0 : ((uint64_t)1 << count) - 1) << from;
}

static void put_class(struct lk__tokenizer_classes *c, unsigned class, unsigned cased, uint64_t bits) {
    if (class == LK__LETTER) c->letter |= bits;
    if (class == LK__NUMBER) c->number |= bits;
    if (class == LK__SPACE) c->space |= bits;
    if (cased == 1) c->upper |= bits;
}

/* True when a run of white space ends in front of text[at] with a word's begin in front of it. */
static bool ends_spaces(const struct lk__tokenizer_starts *s, size_t at) {
    size_t length;
    if (at == s->size) return false;
    enum lk__tokenizer_class class = lk__tokenizer_unit(s->text + at, s->size - at, &length);
    return class != LK__SPACE && (s->pattern != LK__SMOLLM || class != LK__NUMBER);
}

/* Characters above ASCII, one by one: rare in most texts. */
static void classify_wide(struct lk__tokenizer_starts *s, size_t at, struct lk__tokenizer_classes *c) {
    uint64_t left = c->wide;
    if (s->carry) {
        uint64_t bits = bits_from(0, s->carry);
        put_class(c, s->carry_class, s->carry_case, bits);
        c->rest = bits;
        left &= ~bits;
        s->carry = 0;
    }
    while (left) {
        size_t i = (size_t)__builtin_ctzll(left), from = at + i;
        uint32_t code;
        size_t length = lk__tokenizer_utf8_decode(s->text + from, s->size - from, &code);
        enum lk__tokenizer_class class = length ? lk__tokenizer_class_of(code) : LK__OTHER;
        unsigned cased = length && s->pattern == LK__O200K ? lk__tokenizer_case_of(code) : 0;
        if (!length) length = 1;
        put_class(c, class, cased, bits_from(i, length));
        if (length > 1 && i < 63) c->rest |= bits_from(i + 1, length - 1);
        c->hard |= cased == 3;
        left &= ~bits_from(i, length);
        if (i + length > 64) {
            s->carry = i + length - 64;
            s->carry_class = class;
            s->carry_case = cased;
        }
        if (class == LK__SPACE && ends_spaces(s, from + length)) c->inner |= (uint64_t)1 << i;
    }
    c->other = ~(c->letter | c->number | c->space);
}

/* The end of the text is followed by white space, so that no word begins at the last one of a run. */
static inline void classify(struct lk__tokenizer_starts *s, size_t at, int asked, struct lk__tokenizer_classes *c) {
    uint8_t last[64];
    if (at < s->size && s->size - at >= 64) {
        lk__tokenizer_masks(s->text + at, asked, c);
    } else {
        size_t n = at < s->size ? s->size - at : 0;
        memset(last, ' ', sizeof last);
        if (n) memcpy(last, s->text + at, n);
        lk__tokenizer_masks(last, asked, c);
    }
    if (c->wide) classify_wide(s, at, c);
}

static inline uint64_t after(uint64_t now, uint64_t before) {
    return now << 1 | before >> 63;
}

/* --- contractions ----------------------------------------------------------------------------------------- */

/* A word that begins at the quote, byte i of the block, or goes through it, ends `size` bytes behind: nothing begins in
 * between, and a word does at its end. */
static uint64_t end_contraction(struct lk__tokenizer_starts *s, uint64_t starts, size_t i, size_t from, size_t size) {
    size_t end = i + size;
    if (end < 64) return (starts & ~bits_from(from, end - from)) | (uint64_t)1 << end;
    s->set |= (uint64_t)1 << (end - 64);
    if (from >= 64) {
        s->clear |= bits_from(from - 64, end - from);
        return starts;
    }
    s->clear |= bits_from(0, end - 64);
    return starts & ~bits_from(from, 64 - from);
}

/* Contractions at quotes where a word begins. */
static uint64_t contract(struct lk__tokenizer_starts *s, uint64_t starts, uint64_t quotes, bool any_case) {
    for (; quotes; quotes &= quotes - 1) {
        size_t i = (size_t)__builtin_ctzll(quotes), left = s->size - s->at - i;
        const uint8_t *p = s->text + s->at + i;
        size_t n = any_case ? lk__tokenizer_contraction_any_case(p, left) : lk__tokenizer_contraction(p, left);
        if (n) starts = end_contraction(s, starts, i, i + 1, n);
    }
    return starts;
}

/* Contractions at quotes behind letters, to which they belong, unless the letters are those of a contraction. */
static uint64_t contract_letters(struct lk__tokenizer_starts *s, uint64_t starts, uint64_t quotes) {
    for (; quotes; quotes &= quotes - 1) {
        size_t i = (size_t)__builtin_ctzll(quotes), at = s->at + i;
        size_t n = at == s->contracted ? 0 : lk__tokenizer_contraction_any_case(s->text + at, s->size - at);
        if (!n) continue;
        starts = end_contraction(s, starts, i, i, n);
        s->contracted = at + n;
    }
    return starts;
}

/* --- gpt2, smollm ----------------------------------------------------------------------------------------- */

static inline uint64_t starts_of_gpt2(struct lk__tokenizer_starts *s, bool digits) {
    const struct lk__tokenizer_classes *c = s->now, *b = s->before;
    uint64_t ends = digits ? c->space | c->number : c->space,
             next = digits ? s->next->space | s->next->number : s->next->space;
    uint64_t after_space = after(c->space, b->space), before_ends = ends >> 1 | next << 63;
    uint64_t same = (c->letter & after(c->letter, b->letter)) | (c->number & after(c->number, b->number)) |
                    (c->other & after(c->other, b->other));
    uint64_t last = (~c->wide & ~before_ends) | c->inner; /* the last white space of a run, if it is one */
    if (s->lines) last &= ~c->newline;
    uint64_t space = c->space & (~after_space | last);
    uint64_t text = ~c->space & ((after_space & ~after(c->blank, b->blank)) | (~after_space & ~same));
    return space | text | (digits ? c->number & ~c->rest : 0);
}

/* --- cl100k, llama3, qwen2, o200k ------------------------------------------------------------------------- */

/* Every marker moves behind the character on which it is; *carry: one that comes in, one that goes out. */
static inline uint64_t behind(uint64_t markers, uint64_t rest, uint64_t *carry) {
    uint64_t moved = markers << 1 | *carry;
    *carry = markers >> 63;
    if (!rest) return moved;
    *carry |= __builtin_add_overflow(moved, rest, &moved); /* through the rest of a character to its end */
    return moved & ~rest;
}

/* Begins of groups of up to three digits. */
static inline uint64_t starts_of_digits(struct lk__tokenizer_starts *s) {
    const struct lk__tokenizer_classes *c = s->now;
    uint64_t starts = c->number & ~after(c->number, s->before->number), third = starts, *d = s->digits;
    if (!(starts | d[0] | d[1] | d[2])) return 0;
    uint64_t in[3] = {d[0], d[1], d[2]}, out[3] = {0};
    do {
        for (int k = 0; k < 3; k++) {
            third = behind(third, c->rest, &in[k]) & c->number;
            out[k] |= in[k];
            in[k] = 0;
        }
        starts |= third;
    } while (third);
    memcpy(d, out, sizeof out);
    return starts;
}

/* Newlines behind signs belong to these, in o200k slashes behind such newlines too. */
static inline void absorb(struct lk__tokenizer_starts *s, bool slashes) {
    struct lk__tokenizer_classes *c = s->now;
    uint64_t all = slashes ? c->breaks | c->slash : c->breaks, through = s->lines ? all & ~c->newline : all;
    uint64_t from = (c->breaks & after(c->other, s->before->other)) | s->absorbed;
    uint64_t absorbed = ((((from & through) + through) ^ through) | from) & all;
    s->absorbed = (absorbed & through) >> 63;
    c->space &= ~absorbed;
    c->other &= ~absorbed;
}

/* A run of white space without newlines goes on behind this block; true if its begin is none of a word: a newline follows,
 * or the text ends and its white space is one word. */
static bool run_joins(const struct lk__tokenizer_starts *s) {
    uint64_t end = ~s->next->space | s->next->breaks;
    size_t length;
    if (end) return s->next->breaks >> __builtin_ctzll(end) & 1;
    for (size_t at = s->at + 128 + s->carry; at < s->size; at += length) {
        if (s->text[at] == '\n' || s->text[at] == '\r') return true;
        if (lk__tokenizer_unit(s->text + at, s->size - at, &length) != LK__SPACE) return false;
    }
    return s->pattern == LK__CL100K;
}

/* Begins of white space behind the last newline of a run; plain: white space that is no newline. What begins for another
 * reason may be missing. */
static inline uint64_t starts_behind_breaks(const struct lk__tokenizer_starts *s, uint64_t plain) {
    uint64_t starts = plain & after(s->now->breaks, s->before->breaks), ends;
    if (!starts) return 0;
    bool open = __builtin_add_overflow(plain, starts, &ends); /* a carry runs to the end of each run with a begin */
    for (ends &= s->now->breaks; ends; ends &= ends - 1) {    /* there is a later newline */
        uint64_t below = starts & ((ends & -ends) - 1);
        starts ^= (uint64_t)1 << (63 - __builtin_clzll(below));
    }
    if (open && run_joins(s)) starts ^= (uint64_t)1 << (63 - __builtin_clzll(starts));
    return starts;
}

static inline uint64_t starts_of_llama(struct lk__tokenizer_starts *s, enum lk__tokenizer_pattern pattern) {
    struct lk__tokenizer_classes *c = s->now;
    const struct lk__tokenizer_classes *b = s->before;
    uint64_t before_space = c->space >> 1 | s->next->space << 63;
    absorb(s, pattern == LK__O200K);
    uint64_t plain = c->space & ~c->breaks;
    uint64_t space = c->space & ~after(c->space, b->space);
    space |= starts_behind_breaks(s, plain);
    space |= (plain & ~c->wide & ~before_space) | c->inner; /* the last one may go in front of letters or signs */
    uint64_t sign = c->other & ~after(c->other, b->other) & ~after(c->blank, b->blank);
    uint64_t letter = c->letter & ~after(c->letter, b->letter) & ~after(plain, b->space & ~b->breaks) &
                      ~behind(sign, c->rest, &s->lone); /* one sign in front belongs to the letters */
    if (pattern == LK__O200K) letter |= c->upper & after(c->letter & ~c->upper, b->letter & ~b->upper);
    return space | sign | letter | (pattern == LK__QWEN2 ? c->number & ~c->rest : starts_of_digits(s));
}

/* --- blocks ----------------------------------------------------------------------------------------------- */

static inline uint64_t block_starts(struct lk__tokenizer_starts *s, enum lk__tokenizer_pattern pattern) {
    bool small = pattern == LK__GPT2 || pattern == LK__SMOLLM;
    uint64_t starts = small ? starts_of_gpt2(s, pattern == LK__SMOLLM) : starts_of_llama(s, pattern);
    if (s->lines) starts |= after(s->now->newline, s->before->newline);
    starts = (starts & ~s->clear) | s->set;
    s->clear = s->set = 0;
    uint64_t quotes = s->now->quote;
    if (!quotes) return starts;
    if (pattern == LK__O200K) return contract_letters(s, starts, quotes & after(s->now->letter, s->before->letter));
    return contract(s, starts, starts & quotes, !small);
}

/* A text begins with a word, and at a word's begin nothing in front of it matters: there a text may begin anew. */
static inline void begin_at(struct lk__tokenizer_starts *s, size_t at, int asked) {
    s->at = at;
    s->before = &s->blocks[0];
    s->now = &s->blocks[1];
    s->next = &s->blocks[2];
    *s->before = (struct lk__tokenizer_classes){0};
    s->clear = s->absorbed = s->lone = s->digits[0] = s->digits[1] = s->digits[2] = 0;
    s->carry = 0;
    s->set = 1;
    classify(s, at, asked, s->now);
    classify(s, at + 64, asked, s->next);
}

static inline void next_block(struct lk__tokenizer_starts *s, int asked) {
    struct lk__tokenizer_classes *free = s->before;
    s->at += 64;
    s->before = s->now;
    s->now = s->next;
    s->next = free;
    classify(s, s->at + 64, asked, s->next);
}

/* Words through a hard block, one by one, and more of them the longer such blocks follow each other. */
static size_t walk_hard(struct lk__tokenizer_starts *s, int asked, size_t *out, size_t room) {
    size_t at = s->set & 1 ? s->at : s->open, end = s->at + 64, line_end = s->lines ? at : s->size, n = 0;
    if (s->patience < 4096) s->patience *= 2;
    if (end < s->at + s->patience) end = s->at + s->patience;
    if (s->set & 1) out[n++] = at;
    for (;;) {
        if (at == line_end) {
            const uint8_t *newline = memchr(s->text + at, '\n', s->size - at);
            line_end = newline ? (size_t)(newline - s->text) + 1 : s->size;
        }
        at = lk__tokenizer_word_end(s->pattern, s->text, at, line_end);
        if (at >= end || n >= room || at == s->size) break;
        out[n++] = at;
    }
    begin_at(s, at, asked);
    return n;
}

static inline size_t next_by_blocks(struct lk__tokenizer_starts *s, enum lk__tokenizer_pattern pattern, int asked,
                                    size_t *out, size_t room) {
    size_t n = 0;
    while (n < room && s->at < s->size) {
        if (pattern == LK__O200K && s->now->hard) {
            n += walk_hard(s, asked, out + n, room - n);
            if (n) s->open = out[n - 1];
            continue;
        }
        uint64_t starts = block_starts(s, pattern);
        size_t at = s->at;
        if (s->size - at < 64) starts &= bits_from(0, s->size - at);
        for (; starts; starts &= starts - 1) out[n++] = at + (size_t)__builtin_ctzll(starts);
        next_block(s, asked);
        if (pattern != LK__O200K) continue;
        if (n) s->open = out[n - 1];
        s->patience = 64;
    }
    return n;
}

void lk__tokenizer_starts_begin(struct lk__tokenizer_starts *s, enum lk__tokenizer_pattern pattern, const void *text,
                                size_t size, bool lines) {
    *s = (struct lk__tokenizer_starts){.text = text, .size = size, .pattern = pattern, .lines = lines, .patience = 64};
    begin_at(s, 0, LK__MASK_BREAKS | LK__MASK_CASES);
}

size_t lk__tokenizer_starts_next(struct lk__tokenizer_starts *s, size_t *out, size_t room) {
    switch (s->pattern) {
    case LK__CL100K:
    case LK__LLAMA3: /* told apart where the text ends */
        return next_by_blocks(s, LK__LLAMA3, LK__MASK_BREAKS, out, room);
    case LK__QWEN2:
        return next_by_blocks(s, LK__QWEN2, LK__MASK_BREAKS, out, room);
    case LK__O200K:
        return next_by_blocks(s, LK__O200K, LK__MASK_BREAKS | LK__MASK_CASES, out, room);
    case LK__SMOLLM:
        return next_by_blocks(s, LK__SMOLLM, 0, out, room);
    case LK__GPT2:
    case LK__PATTERN_COUNT:
        break;
    }
    return next_by_blocks(s, LK__GPT2, 0, out, room);
}
