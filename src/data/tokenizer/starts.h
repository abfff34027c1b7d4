/* Where the words of a text begin, found 64 bytes at a time with masks of bits instead of a look at each byte. README.md,
 * "Begins of words by masks". */
#ifndef LOCKSTEP_DATA_STARTS_H
#define LOCKSTEP_DATA_STARTS_H
#include "data/tokenizer/masks.h"
#include "data/tokenizer/pretoken.h"

struct lk__tokenizer_starts {
    const uint8_t *text;
    size_t size, at; /* at: of the block `now` */
    enum lk__tokenizer_pattern pattern;
    bool lines;                                                   /* every line is a text of its own */
    struct lk__tokenizer_classes blocks[3], *before, *now, *next; /* the pointers go round */
    uint64_t clear, set; /* for the next block: what a contraction at the end of the last one does to it */
    uint64_t absorbed;   /* 1: the last block ends in newlines that belong to signs, and such go on in the next one */
    uint64_t lone;       /* 1: a sign that a word begins with ends with the last block */
    uint64_t digits[3];  /* 1: so does the first, second, third digit of a group */
    size_t contracted;   /* where the last contraction ended that belongs to letters */
    size_t open;         /* the last begin that was written */
    size_t patience;     /* bytes to walk word by word at the next hard block */
    size_t carry;        /* bytes of a character that began in `next` and goes on behind it */
    unsigned carry_class, carry_case; /* that character's */
};
void lk__tokenizer_starts_begin(struct lk__tokenizer_starts *, enum lk__tokenizer_pattern, const void *text, size_t size,
                                bool lines);

#define LK__STARTS_MORE 63
/* Writes the positions at which words begin, ascending, the first of all 0: until there are `room` of them and up to
 * LK__STARTS_MORE beyond, so out has room for room + LK__STARTS_MORE. Fewer: the end of the text. */
size_t lk__tokenizer_starts_next(struct lk__tokenizer_starts *, size_t *out, size_t room);

#endif
