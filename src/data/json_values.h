/* JSON in a line, value by value and without a tree. Private to src/data. */
#ifndef LOCKSTEP_DATA_JSON_VALUES_H
#define LOCKSTEP_DATA_JSON_VALUES_H
#include "lockstep/base/err.h"
#include "lockstep/base/mem.h"
#include <stdbool.h>
#include <string.h>

/* Where the reading is: at an error, the byte of it. */
struct lk__data_json {
    const char *at, *end;
    struct lk_err *err;
};

int lk__data_json_fail(struct lk__data_json *, const char *what); /* LK_EINVAL with these words */
void lk__data_json_space(struct lk__data_json *);
bool lk__data_json_is_null(const struct lk__data_json *); /* at the begin of a value: it is null */
/* A string, at its opening quote: appends what it says. out NULL: only checks. */
int lk__data_json_string(struct lk__data_json *, struct lk_buf *out);
/* Checks a value of any kind, of up to 2,047 levels, and goes behind it. Keys of objects are not compared. */
int lk__data_json_skip(struct lk__data_json *);

/* Appends to a buffer; NULL is fine. LK_ENOMEM. */
static inline int lk__data_json_append(struct lk__data_json *p, struct lk_buf *out, const char *data, size_t size) {
    if (!out || !size) return 0;
    if (out->capacity - out->size > size) { /* and the zero byte that stands behind every buffer */
        memcpy(out->data + out->size, data, size);
        out->size += size;
        out->data[out->size] = 0;
        return 0;
    }
    return lk_buf_append(out, data, size) ? lk_fail(p->err, LK_ENOMEM, "out of memory") : 0;
}

#endif
