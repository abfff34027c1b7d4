/* One line of .jsonl: {"text": ...}, {"prompt": ..., "response": ...} or {"messages": [...]}; other keys are checked to be
 * JSON and skipped, and so is a key whose value is null.
 * Accepts what jansson accepts with JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, and beyond it numbers of any size and equal
 * keys inside nested objects, neither of which matters here. At most 1,000 keys. */
#ifndef LOCKSTEP_DATA_JSONL_H
#define LOCKSTEP_DATA_JSONL_H
#include "lockstep/base/err.h"
#include "lockstep/base/mem.h"
#include <stdbool.h>

struct lk__data_record_keys {
    const char *text, *messages; /* the one key that was chosen (at most one of the two), or NULL */
    bool conversations;          /* there is a template: a record with "messages" and another text is ambiguous */
};
struct lk__data_record {
    size_t prompt_size;   /* bytes at the front of the text that are a prompt */
    bool blank;           /* the line has only white space */
    bool tools;           /* beside its messages there is a "tools" that is not empty */
    const char *messages; /* "messages": a JSON array in the line, whose text lk__data_messages_parse gives; else NULL */
    size_t messages_size;
};
struct lk__data_message { /* places in the text */
    size_t role, role_size, content, content_size;
};
/* Writes the record's text (prompt, then response) over *text, whose memory is reused. A failure (LK_EINVAL) says what is
 * wrong, without file and line, and gives the byte in the line in *at. LK_ENOMEM. */
int lk__data_record_parse(const char *line, size_t size, const struct lk__data_record_keys *, struct lk_buf *text,
                          struct lk__data_record *out, size_t *at, struct lk_err *);
/* The array of a record: {"role": ..., "content": ...} each, nothing else but nulls. Roles and contents go to *text, struct
 * lk__data_message to *messages, both written over. Errors as above; at: in the array. */
int lk__data_messages_parse(const char *array, size_t size, struct lk_buf *text, struct lk_buf *messages, size_t *at,
                            struct lk_err *);

#endif
