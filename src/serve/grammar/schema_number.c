/* Numbers between bounds, digit by digit: a prefix either equals that of a bound so far (it is tight there) or is free of
 * it. */
#include "serve/grammar/build.h"
#include <string.h>

#define DIGITS 19

struct spell {
    struct lk__grammar_build *b;
    uint32_t places, multiple, whole;         /* whole: digits before the point */
    char least[DIGITS + 1], most[DIGITS + 1]; /* of whole + places digits */
    uint32_t *rules;                          /* of (digits left, remainder): rule + 1 */
};

static uint32_t digit(struct lk__grammar_build *b, int first, int last) {
    struct lk__grammar_range r = {(uint32_t)('0' + first), (uint32_t)('0' + last)};
    return lk__grammar_class(b, &r, 1, false);
}

/* What follows where no bound matters, `left` digits of the whole part and the fraction. */
static uint32_t unbound(struct spell *s, uint32_t left) {
    struct lk__grammar_build *b = s->b;
    uint32_t any = digit(b, 0, 9), whole = lk__grammar_repeat(b, any, left, left);
    if (!s->places) return whole;
    uint32_t fraction = LK__GRAMMAR_SEQ(b, lk__grammar_string(b, "."), lk__grammar_repeat(b, any, 1, s->places));
    return LK__GRAMMAR_SEQ(b, whole, lk__grammar_repeat(b, fraction, 0, 1));
}

static uint32_t spell(struct spell *s, uint32_t at, bool low, bool high, uint32_t remainder);

/* A rule for `left` digits that bring the remainder to 0. */
static uint32_t unbound_multiple(struct spell *s, uint32_t left, uint32_t remainder) {
    uint32_t *known = &s->rules[left * s->multiple + remainder];
    if (!*known) {
        uint32_t kids[10], rule = lk__grammar_rule(s->b, NULL, 0, false);
        if (s->b->code) return 0;
        *known = rule + 1;
        for (uint32_t d = 0; d < 10 && left; d++)
            kids[d] = LK__GRAMMAR_SEQ(s->b, digit(s->b, (int)d, (int)d),
                                      unbound_multiple(s, left - 1, (10 * remainder + d) % s->multiple));
        if (left)
            lk__grammar_body(s->b, rule, lk__grammar_choice(s->b, kids, 10));
        else
            lk__grammar_body(s->b, rule, lk__grammar_choice(s->b, kids, 0)); /* nothing, unless: */
        if (!left && !remainder) lk__grammar_body(s->b, rule, lk__grammar_string(s->b, ""));
    }
    return s->b->code ? 0 : lk__grammar_call(s->b, *known - 1);
}

/* The digits from `at` on. */
static uint32_t digits(struct spell *s, uint32_t at, bool low, bool high, uint32_t remainder) {
    int first = low ? s->least[at] - '0' : 0, last = high ? s->most[at] - '0' : 9;
    uint32_t kids[12], count = 0;
    for (int d = first; d <= last && !s->b->code; d++) {
        bool tight_low = low && d == first, tight_high = high && d == last;
        int to = d;
        if (!tight_low && !tight_high && s->multiple == 1) to = high ? last - 1 : 9; /* all in between are alike */
        uint32_t next = (10 * remainder + (uint32_t)d) % s->multiple;
        kids[count++] = LK__GRAMMAR_SEQ(s->b, digit(s->b, d, to), spell(s, at + 1, tight_low, tight_high, next));
        d = to;
    }
    return lk__grammar_choice(s->b, kids, count);
}

static bool zeros(const char *text) {
    return strspn(text, "0") == strlen(text);
}

/* What may follow the digits before `at`, the end included. */
static uint32_t spell(struct spell *s, uint32_t at, bool low, bool high, uint32_t remainder) {
    struct lk__grammar_build *b = s->b;
    uint32_t all = s->whole + s->places, kids[2], count = 0;
    if (b->code) return 0;
    if (!low && !high && s->multiple > 1) return unbound_multiple(s, all - at, remainder);
    if (!low && !high && at <= s->whole) return unbound(s, s->whole - at);
    if (!low && !high) return lk__grammar_repeat(b, digit(b, 0, 9), 0, all - at);
    if (at < s->whole) return digits(s, at, low, high, remainder);
    if ((!low || zeros(s->least + at)) && !remainder) kids[count++] = lk__grammar_string(b, "");
    if (at < all) {
        uint32_t more = digits(s, at, low, high, remainder);
        kids[count++] = at == s->whole ? LK__GRAMMAR_SEQ(b, lk__grammar_string(b, "."), more) : more;
    }
    return lk__grammar_choice(b, kids, count);
}

static void print(int64_t value, uint32_t digits, char *out) {
    for (out[digits] = 0; digits-- > 0; value /= 10) out[digits] = (char)('0' + value % 10);
}

/* Those that are not negative. */
static uint32_t positive(struct spell *s, int64_t least, int64_t most) {
    uint32_t kids[DIGITS], count = 0;
    int64_t unit = 1, first, last;
    for (uint32_t i = 0; i < s->places; i++) unit *= 10;
    first = 0;
    last = 10 * unit - 1; /* one digit before the point */
    for (s->whole = 1; s->whole + s->places <= DIGITS - 1 && first <= most; s->whole++) {
        int64_t from = least > first ? least : first, to = most < last ? most : last;
        if (from <= to) {
            print(from, s->whole + s->places, s->least);
            print(to, s->whole + s->places, s->most);
            kids[count++] = spell(s, 0, true, true, 0);
        }
        first = last + 1;
        if (last > LK__GRAMMAR_NUMBER_MOST / 10) break;
        last = 10 * last + 9;
    }
    return lk__grammar_choice(s->b, kids, count);
}

uint32_t lk__grammar_numbers(struct lk__grammar_build *b, const struct lk__grammar_span *span) {
    struct spell s = {.b = b, .places = span->places, .multiple = span->multiple};
    uint32_t kids[2], count = 0;
    if (span->multiple > 1 && !(s.rules = lk_calloc((size_t)DIGITS * span->multiple, sizeof *s.rules)))
        return lk__grammar_fail(b, LK_ENOMEM, "no memory for a grammar"), 0;
    if (span->most >= 0) kids[count++] = positive(&s, span->least > 0 ? span->least : 0, span->most);
    if (span->least < 0)
        kids[count++] =
            LK__GRAMMAR_SEQ(b, lk__grammar_string(b, "-"), positive(&s, span->most < 0 ? -span->most : 1, -span->least));
    lk_free(s.rules);
    return lk__grammar_choice(b, kids, count);
}
