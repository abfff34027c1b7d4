/* One line of .jsonl: {"text": ...} or {"prompt": ..., "response": ...}; other keys are checked to be JSON and skipped.
 * Accepts what jansson accepts with JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, and beyond it numbers of any size and equal
 * keys inside nested objects, neither of which matters here. At most 1,000 keys. */
#ifndef LOCKSTEP_DATA_JSONL_H
#define LOCKSTEP_DATA_JSONL_H
#include "lockstep/err.h"
#include "lockstep/mem.h"
#include <stdbool.h>

struct lk__record {
    size_t prompt_size; /* bytes at the front of the text that are a prompt */
    bool blank;         /* the line has only white space */
};
/* Writes the record's text (prompt, then response) over *text, whose memory is reused. A failure (LK_EINVAL) says what is
 * wrong, without file and line, and gives the byte in the line in *at. LK_ENOMEM. */
int lk__record_parse(const char *line, size_t size, struct lk_buf *text, struct lk__record *out, size_t *at,
                     struct lk_err *);

#endif
