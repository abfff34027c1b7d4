/* A compiled pattern, between regex.c, which makes it, and regex_run.c. */
#ifndef LK_TABLE_REGEX_PROGRAM_H
#define LK_TABLE_REGEX_PROGRAM_H
#include "store/table/regex_tree.h"

enum lk__table_regex_op { LK__REGEX_MATCHED, LK__REGEX_BYTE, LK__REGEX_SPLIT, LK__REGEX_IF };
/* BYTE: a byte of `set`, then x. SPLIT: x, and y. IF: x where the assertion holds. State 0 is MATCHED. */
struct lk__table_regex_state {
    uint8_t op, assertion;
    uint16_t set, x, y;
};
/* What a pattern is that comparing bytes decides: head, then any bytes (at least `least` of them), then tail. */
enum lk__table_regex_shape {
    LK__REGEX_AUTOMATON,
    LK__REGEX_WHOLE,    /* head and nothing else */
    LK__REGEX_ANY,      /* head \C* tail */
    LK__REGEX_ANY_LINE, /* head .* tail */
};
struct lk__table_regex {
    enum lk__table_regex_shape shape;
    struct lk_buf head, tail;
    size_t least;
    struct lk_buf choices; /* of AUTOMATON: heads, each with its size (size_t) and whole (bool) before it */
    size_t choice_count;
    struct lk__table_regex_state *states;
    struct lk__table_byte_set *sets;
    uint32_t state_count, set_count;
    uint16_t start;
    bool asserts;            /* it has an IF */
    uint8_t class_of[256];   /* bytes that no set tells apart are of one class */
    uint8_t class_byte[256]; /* (class_count): one byte of each */
    unsigned class_count;
};
static inline bool lk__table_regex_set_has(const struct lk__table_regex *re, unsigned set, unsigned byte) {
    return set < LK__REGEX_BYTES ? set == byte : lk__table_byte_set_has(&re->sets[set - LK__REGEX_BYTES], byte);
}
/* What stands before or after a place, as far as assertions can tell. */
enum lk__table_regex_side { LK__REGEX_EDGE, LK__REGEX_NEWLINE, LK__REGEX_LETTER, LK__REGEX_OTHER };
static inline enum lk__table_regex_side lk__table_regex_side(unsigned byte) {
    if (byte == '\n') return LK__REGEX_NEWLINE;
    bool word = (byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z') || byte == '_';
    return word ? LK__REGEX_LETTER : LK__REGEX_OTHER;
}

#endif
