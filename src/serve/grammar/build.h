/* A grammar while it is read: rules whose bodies are expressions over bytes and characters. Errors stick: the first one is
 * kept, later calls do nothing and return 0, and lk__grammar_compile says it. */
#ifndef LOCKSTEP_SERVE_GRAMMAR_BUILD_H
#define LOCKSTEP_SERVE_GRAMMAR_BUILD_H
#include "lockstep/base/err.h"
#include "lockstep/base/mem.h"
#include "lockstep/serve/grammar.h"
#include <stdbool.h>
#include <stdint.h>

#define LK__GRAMMAR_DEPTH_MOST  256    /* of groups, objects, arrays */
#define LK__GRAMMAR_REPEAT_MOST 100000 /* a number of repetition */
#define LK__GRAMMAR_RULES_MOST  50000
#define LK__GRAMMAR_EXPRS_MOST  ((size_t)2 << 20)
#define LK__GRAMMAR_UNLIMITED   UINT32_MAX
#define LK__GRAMMAR_LAST_CHAR   0x10FFFFu

/* An array that grows. */
struct lk__grammar_array {
    void *data;
    size_t count, capacity;
};
/* Room for `more` of `size` bytes each behind the last; NULL: no memory. Does not count them. */
void *lk__grammar_room(struct lk__grammar_array *, size_t more, size_t size);

enum lk__grammar_kind {
    LK__GRAMMAR_LITERAL,  /* bytes [first, first + count) of text; none: the empty text */
    LK__GRAMMAR_CLASS,    /* one character of ranges [first, first + count); none: nothing matches */
    LK__GRAMMAR_SEQUENCE, /* kids [first, first + count) */
    LK__GRAMMAR_CHOICE,   /* one of these kids; of none: nothing matches */
    LK__GRAMMAR_REPEAT,   /* the one kid, least to most times */
    LK__GRAMMAR_CALL      /* of the rule `first` */
};
struct lk__grammar_expr {
    enum lk__grammar_kind kind;
    uint32_t first, count, least, most;
};
struct lk__grammar_range {
    uint32_t first, last; /* characters */
};
struct lk__grammar_rule {
    char *name; /* for messages; may be NULL */
    uint32_t body;
    bool apart; /* kept as a rule of its own, so that all its callers share states and masks */
};
struct lk__grammar_build {
    struct lk__grammar_array exprs, kids, text, ranges, rules;
    struct lk_err *err;
    int code;
};

void lk__grammar_build_init(struct lk__grammar_build *, struct lk_err *);
void lk__grammar_build_release(struct lk__grammar_build *);
/* Fails for good, unless it has failed before; returns the code that sticks. */
int lk__grammar_fail(struct lk__grammar_build *, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

uint32_t lk__grammar_literal(struct lk__grammar_build *, const void *bytes, size_t size);
uint32_t lk__grammar_string(struct lk__grammar_build *, const char *text);
uint32_t lk__grammar_char(struct lk__grammar_build *, uint32_t character);
/* ranges: in any order, may overlap; sorted in place. Surrogates are left out: they are no characters. */
uint32_t lk__grammar_class(struct lk__grammar_build *, struct lk__grammar_range *ranges, size_t count, bool negated);
/* The ranges in order, disjoint; returns how many. out: room for count + 2. ranges: sorted in place. */
size_t lk__grammar_ranges(struct lk__grammar_range *ranges, size_t count, bool negated, struct lk__grammar_range *out);
uint32_t lk__grammar_sequence(struct lk__grammar_build *, const uint32_t *kids, size_t count);
uint32_t lk__grammar_choice(struct lk__grammar_build *, const uint32_t *kids, size_t count);
uint32_t lk__grammar_repeat(struct lk__grammar_build *, uint32_t kid, uint32_t least, uint32_t most);
uint32_t lk__grammar_call(struct lk__grammar_build *, uint32_t rule);
/* A new rule; its body is set later. name may be NULL. */
uint32_t lk__grammar_rule(struct lk__grammar_build *, const char *name, size_t size, bool apart);
void lk__grammar_body(struct lk__grammar_build *, uint32_t rule, uint32_t expr);
#define LK__GRAMMAR_SEQ(b, ...)                                                                                            \
    lk__grammar_sequence(b, (const uint32_t[]){__VA_ARGS__}, sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))
#define LK__GRAMMAR_ANY(b, ...)                                                                                            \
    lk__grammar_choice(b, (const uint32_t[]){__VA_ARGS__}, sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

/* regex.c: a regular expression (ECMA-262's, the part that docs/structured-output.md names) as the inside of a JSON string.
 * path: of the keyword, for messages. any: any character of a JSON string. */
uint32_t lk__grammar_regex(struct lk__grammar_build *, const char *pattern, size_t size, const char *path, uint32_t any);
/* One of these characters as JSON strings have it: itself, or escaped where it must be. U+0000 is left out. */
uint32_t lk__grammar_json_class(struct lk__grammar_build *, struct lk__grammar_range *ranges, size_t count, bool negated);

/* schema_number.c: JSON's numbers from least to most, in units of 10^-places, that are multiples of `multiple` of these. */
struct lk__grammar_span {
    int64_t least, most;
    uint32_t places, multiple;
};
#define LK__GRAMMAR_NUMBER_MOST 999999999999999999 /* 18 digits */
uint32_t lk__grammar_numbers(struct lk__grammar_build *, const struct lk__grammar_span *);

static inline struct lk__grammar_expr *lk__grammar_expr_at(const struct lk__grammar_build *b, uint32_t i) {
    return (struct lk__grammar_expr *)b->exprs.data + i;
}
static inline struct lk__grammar_rule *lk__grammar_rule_at(const struct lk__grammar_build *b, uint32_t i) {
    return (struct lk__grammar_rule *)b->rules.data + i;
}
static inline const uint32_t *lk__grammar_kids(const struct lk__grammar_build *b, const struct lk__grammar_expr *e) {
    return (const uint32_t *)b->kids.data + e->first;
}

/* What analysis finds out about an expression. */
enum {
    LK__GRAMMAR_PRODUCTIVE = 1,
    LK__GRAMMAR_NULLABLE = 2,
    LK__GRAMMAR_LONGER = 4
}; /* LONGER: matches one byte or more */
/* flags, sizes: one of each rule. sizes: states of its automaton, about, with all that can be put into it, or 0: it is left
 * apart. */
int lk__grammar_analyse(struct lk__grammar_build *, uint8_t *flags, uint32_t *sizes);
unsigned lk__grammar_flags(const struct lk__grammar_build *, const uint8_t *flags, uint32_t expr);

int lk__grammar_compile(struct lk__grammar_build *, uint32_t root, struct lk_grammar **out);

#endif
