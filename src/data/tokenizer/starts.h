/* Where the words of a text begin. With GPT-2's pattern they are found 64 bytes at a time with masks of bits instead of a
 * look at each byte (README.md, "Begins of words by masks"), with the others by lk__tokenizer_word_end, word by word, but
 * for runs of letters where the pattern has these as they are. */
#ifndef LOCKSTEP_DATA_STARTS_H
#define LOCKSTEP_DATA_STARTS_H
#include "data/tokenizer/pretoken.h"

/* One bit a byte. Bytes of a longer sequence have the class of its character. */
struct lk__tokenizer_classes {
    uint64_t letter, number, space, blank; /* blank: U+0020 */
    uint64_t quote, newline;
    uint64_t inner; /* a white space, of more bytes than one, that another follows: no word begins at its end */
    uint64_t wide;  /* bytes above ASCII */
};

struct lk__tokenizer_starts {
    const uint8_t *text;
    size_t size, at; /* at: the block of `now`, or a word */
    enum lk__tokenizer_pattern pattern;
    bool lines;      /* every line is a text of its own */
    size_t line_end; /* of the line with `at`, where a pattern other than GPT-2's looks no further */
    size_t block;    /* of `now`, word by word */
    struct lk__tokenizer_classes before, now, next;
    uint64_t clear, set;  /* for the next block: what a contraction at the end of the last one does to it */
    size_t carry;         /* bytes of a character that began in `next` and goes on behind it */
    unsigned carry_class; /* its class */
};
void lk__tokenizer_starts_begin(struct lk__tokenizer_starts *, enum lk__tokenizer_pattern, const void *text, size_t size,
                                bool lines);

#define LK__STARTS_MORE 63
/* Writes the positions at which words begin, ascending, the first of all 0: until there are `room` of them and up to
 * LK__STARTS_MORE beyond, so out has room for room + LK__STARTS_MORE. Fewer: the end of the text. */
size_t lk__tokenizer_starts_next(struct lk__tokenizer_starts *, size_t *out, size_t room);

#endif
