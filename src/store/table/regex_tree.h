/* A parsed pattern, between regex_parse.c and regex.c. */
#ifndef LK_TABLE_REGEX_TREE_H
#define LK_TABLE_REGEX_TREE_H
#include "store/table/regex.h"

/* A set of bytes. */
struct lk__table_byte_set {
    uint64_t bits[4];
};
static inline bool lk__table_byte_set_has(const struct lk__table_byte_set *s, unsigned byte) {
    return s->bits[byte >> 6] >> (byte & 63) & 1;
}
void lk__table_byte_set_add(struct lk__table_byte_set *, unsigned from, unsigned to); /* inclusive */
void lk__table_byte_set_join(struct lk__table_byte_set *, const struct lk__table_byte_set *);
void lk__table_byte_set_negate(struct lk__table_byte_set *);
void lk__table_byte_set_fold(struct lk__table_byte_set *); /* ASCII letters in both cases */
/* Named sets: d, s, w; POSIX classes ("alpha"); Unicode's categories and scripts as far as bytes go. False: no such name.
 */
bool lk__table_byte_set_perl(char name, struct lk__table_byte_set *out);
bool lk__table_byte_set_posix(struct lk_bytes name, struct lk__table_byte_set *out);
bool lk__table_byte_set_unicode(struct lk_bytes name, struct lk__table_byte_set *out);

enum lk__table_regex_kind {
    LK__REGEX_EMPTY, /* matches "" */
    LK__REGEX_SET,
    LK__REGEX_ASSERT,
    LK__REGEX_CAT,
    LK__REGEX_ALT,
    LK__REGEX_REPEAT
};
/* Where an assertion holds. */
enum lk__table_regex_assert {
    LK__REGEX_TEXT_BEGIN,
    LK__REGEX_TEXT_END,
    LK__REGEX_LINE_BEGIN,
    LK__REGEX_LINE_END,
    LK__REGEX_WORD,
    LK__REGEX_NO_WORD
};
#define LK__REGEX_BYTES 256 /* set n < 256 is byte n alone, others are sets[n - 256] */
struct lk__table_regex_node {
    uint8_t kind, assertion;
    uint16_t set;
    uint16_t depth, product; /* of repeats within each other: levels, and how many copies they make */
    int16_t min, max;        /* of LK__REGEX_REPEAT; max -1: no end */
    uint32_t last, before;   /* CAT, ALT, REPEAT: the last part; of a part: the one before it. 0: none (node 0 is EMPTY) */
};
struct lk__table_regex_tree {
    struct lk__table_regex_node *nodes; /* node 0: EMPTY */
    struct lk__table_byte_set *sets;
    uint32_t node_count, node_room, set_count, set_room, root;
};
int lk__table_regex_parse(struct lk_bytes pattern, struct lk__table_regex_tree *, struct lk_err *);
void lk__table_regex_tree_release(struct lk__table_regex_tree *); /* also after a failed parse */

#endif
