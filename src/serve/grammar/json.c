/* The rules of JSON itself, on one line with the white space of Python's json.dumps. */
#include "serve/grammar/schema.h"
#include <string.h>

static uint32_t range(struct lk__grammar_build *b, uint32_t first, uint32_t last) {
    struct lk__grammar_range r = {first, last};
    return lk__grammar_class(b, &r, 1, false);
}
static uint32_t set(struct lk__grammar_build *b, const char *characters) {
    struct lk__grammar_range r[32];
    size_t n = strlen(characters);
    for (size_t i = 0; i < n; i++) r[i].first = r[i].last = (uint8_t)characters[i];
    return lk__grammar_class(b, r, n, false);
}
/* The rule that *known numbers, made by `make` when it is first called. */
static uint32_t shared(struct lk__grammar_schema *s, uint32_t *known, const char *name, bool apart,
                       uint32_t (*make)(struct lk__grammar_schema *)) {
    if (!*known) {
        uint32_t rule = lk__grammar_rule(s->b, name, strlen(name), apart);
        if (s->b->code) return 0;
        *known = rule + 1;
        lk__grammar_body(s->b, rule, make(s));
    }
    return lk__grammar_call(s->b, *known - 1);
}

/* \uHHHH of a character but U+0000: what is no surrogate, or a pair of them. */
static uint32_t hexadecimal(struct lk__grammar_build *b) {
    uint32_t h = set(b, "0123456789abcdefABCDEF"), d = set(b, "dD"), zero = range(b, '0', '0');
    uint32_t not_zero = set(b, "123456789abcdefABCDEF");
    uint32_t high = set(b, "89abAB"), low = set(b, "cdefCDEF"), plain = set(b, "123456789abcefABCEF");
    uint32_t kids[] = {LK__GRAMMAR_SEQ(b, plain, h, h, h),
                       LK__GRAMMAR_SEQ(b, zero, not_zero, h, h),
                       LK__GRAMMAR_SEQ(b, zero, zero, not_zero, h),
                       LK__GRAMMAR_SEQ(b, zero, zero, zero, not_zero),
                       LK__GRAMMAR_SEQ(b, d, range(b, '0', '7'), h, h),
                       LK__GRAMMAR_SEQ(b, d, high, h, h, lk__grammar_string(b, "\\u"), d, low, h, h)};
    return LK__GRAMMAR_SEQ(b, range(b, 'u', 'u'), lk__grammar_choice(b, kids, sizeof kids / sizeof *kids));
}
static uint32_t make_character(struct lk__grammar_schema *s) {
    struct lk__grammar_build *b = s->b;
    struct lk__grammar_range plain[] = {{0x20, 0x21}, {0x23, 0x5B}, {0x5D, LK__GRAMMAR_LAST_CHAR}};
    uint32_t escape = LK__GRAMMAR_ANY(b, set(b, "\"\\/bfnrt"), hexadecimal(b));
    return LK__GRAMMAR_ANY(b, lk__grammar_class(b, plain, 3, false),
                           LK__GRAMMAR_SEQ(b, lk__grammar_string(b, "\\"), escape));
}
static uint32_t make_string(struct lk__grammar_schema *s) {
    uint32_t quote = lk__grammar_string(s->b, "\"");
    return LK__GRAMMAR_SEQ(s->b, quote, lk__grammar_repeat(s->b, make_character(s), 0, LK__GRAMMAR_UNLIMITED), quote);
}
static uint32_t make_integer(struct lk__grammar_schema *s) {
    struct lk__grammar_build *b = s->b;
    uint32_t digits = LK__GRAMMAR_SEQ(b, range(b, '1', '9'), lk__grammar_repeat(b, range(b, '0', '9'), 0, 17));
    uint32_t sign = lk__grammar_repeat(b, lk__grammar_string(b, "-"), 0, 1);
    return LK__GRAMMAR_ANY(b, lk__grammar_string(b, "0"), LK__GRAMMAR_SEQ(b, sign, digits));
}
/* So few digits that each is a finite double. */
static uint32_t make_number(struct lk__grammar_schema *s) {
    struct lk__grammar_build *b = s->b;
    uint32_t digit = range(b, '0', '9');
    uint32_t whole = LK__GRAMMAR_ANY(b, lk__grammar_string(b, "0"),
                                     LK__GRAMMAR_SEQ(b, range(b, '1', '9'), lk__grammar_repeat(b, digit, 0, 15)));
    uint32_t fraction = LK__GRAMMAR_SEQ(b, lk__grammar_string(b, "."), lk__grammar_repeat(b, digit, 1, 16));
    uint32_t power =
        LK__GRAMMAR_SEQ(b, set(b, "eE"), lk__grammar_repeat(b, set(b, "+-"), 0, 1), lk__grammar_repeat(b, digit, 1, 2));
    return LK__GRAMMAR_SEQ(b, lk__grammar_repeat(b, lk__grammar_string(b, "-"), 0, 1), whole,
                           lk__grammar_repeat(b, fraction, 0, 1), lk__grammar_repeat(b, power, 0, 1));
}
/* first, or nothing, then more of it behind ", ". */
static uint32_t list(struct lk__grammar_build *b, const char *begin, uint32_t part, const char *end) {
    uint32_t more = LK__GRAMMAR_SEQ(b, lk__grammar_string(b, ", "), part);
    uint32_t all = LK__GRAMMAR_SEQ(b, part, lk__grammar_repeat(b, more, 0, LK__GRAMMAR_UNLIMITED));
    return LK__GRAMMAR_SEQ(b, lk__grammar_string(b, begin), lk__grammar_repeat(b, all, 0, 1), lk__grammar_string(b, end));
}
static uint32_t make_object(struct lk__grammar_schema *s) {
    uint32_t colon = lk__grammar_string(s->b, ": ");
    return list(s->b, "{", LK__GRAMMAR_SEQ(s->b, lk__grammar_json_string(s), colon, lk__grammar_json_value(s)), "}");
}
static uint32_t make_value(struct lk__grammar_schema *s) {
    struct lk__grammar_build *b = s->b;
    uint32_t kids[] = {lk__grammar_json_string(s),
                       lk__grammar_json_number(s),
                       lk__grammar_string(b, "true"),
                       lk__grammar_string(b, "false"),
                       lk__grammar_string(b, "null"),
                       lk__grammar_json_object(s),
                       list(b, "[", lk__grammar_json_value(s), "]")};
    return lk__grammar_choice(b, kids, sizeof kids / sizeof *kids);
}

uint32_t lk__grammar_json_character(struct lk__grammar_schema *s) {
    return make_character(s); /* each in its place: a rule would return after every character */
}
uint32_t lk__grammar_json_string(struct lk__grammar_schema *s) {
    return shared(s, &s->string, "string", true, make_string);
}
uint32_t lk__grammar_json_integer(struct lk__grammar_schema *s) {
    return shared(s, &s->integer, "integer", true, make_integer);
}
uint32_t lk__grammar_json_number(struct lk__grammar_schema *s) {
    return shared(s, &s->number, "number", true, make_number);
}
uint32_t lk__grammar_json_value(struct lk__grammar_schema *s) {
    return shared(s, &s->value, "value", true, make_value);
}
uint32_t lk__grammar_json_object(struct lk__grammar_schema *s) {
    return shared(s, &s->object, "object", true, make_object);
}

int lk_grammar_json_object(struct lk_grammar **out, struct lk_err *err) {
    struct lk__grammar_build b;
    struct lk__grammar_schema s = {.b = &b};
    lk__grammar_build_init(&b, err);
    lk__grammar_json_object(&s);
    int code = lk__grammar_compile(&b, s.object - 1, out);
    lk__grammar_build_release(&b);
    return code;
}
