/* Distinct words of texts with their counts, in order of first appearance. */
#ifndef LOCKSTEP_DATA_WORDS_H
#define LOCKSTEP_DATA_WORDS_H
#include "data/tokenizer/pretoken.h"
#include "lockstep/data/tokenizer.h"

struct lk__tokenizer_word {
    uint64_t offset; /* into bytes */
    uint64_t size, count;
};
struct lk__tokenizer_words {
    struct lk__tokenizer_word *words;
    size_t count, capacity;
    struct lk_buf bytes;
    uint64_t *slots; /* index + 1 in the low 40 bits, hash bits above; 0 empty; power of two, at most half full */
    size_t slot_count;
};
/* Counts the words of every line of every text, each line with its newline and taken alone. Same result, in the same order,
 * for any pool. */
int lk__tokenizer_words_count(enum lk__tokenizer_pattern, const struct lk_bytes *texts, size_t count, struct lk_pool *,
                              struct lk__tokenizer_words *out, struct lk_err *);
void lk__tokenizer_words_release(struct lk__tokenizer_words *);

#endif
