/* Rewrites JSON so that each record is one line; no byte changes its place. */
#ifndef LOCKSTEP_DATA_LINES_H
#define LOCKSTEP_DATA_LINES_H
#include "data/source.h"

struct lk__data_lines {
    enum lk__data_shape shape;
    uint64_t at;    /* bytes so far */
    uint64_t depth; /* of open brackets, the list's own not counted */
    bool string, escaped;
    bool open, closed; /* the list has begun, has ended */
    bool any;          /* something stands behind the last separator */
    bool some;         /* the list holds a record */
};
/* How records lie, by the begin of a file: a list if the first character is [, VALUES if the first record goes over the
 * end of its line. */
enum lk__data_shape lk__data_lines_shape(const uint8_t *head, size_t size);
/* Rewrites the next bytes in place. LK_EINVAL, without the file's name: what stands between the records of a list is wrong.
 */
int lk__data_lines_next(struct lk__data_lines *, uint8_t *data, size_t size, struct lk_err *);
/* At the end of the text. */
int lk__data_lines_finish(const struct lk__data_lines *, struct lk_err *);

#endif
