/* JSON written value by value onto a buffer, without a tree. Compact; commas come by themselves. */
#ifndef LOCKSTEP_JSON_OUT_H
#define LOCKSTEP_JSON_OUT_H
#include "lockstep/base/mem.h"
#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Missing memory is remembered in `failed`, and what was written then is worth nothing: look once, at the end. */
struct lk_json_out {
    struct lk_buf *to;
    bool failed, comma;
};
static inline struct lk_json_out lk_json_out(struct lk_buf *to) {
    struct lk_json_out o = {to, false, false};
    return o;
}
/* open: '{' or '['; close: '}' or ']'. */
void lk_put_open(struct lk_json_out *, char open);
void lk_put_close(struct lk_json_out *, char close);
/* The next value is this key's. Keys are plain text of the program's own. */
void lk_put_key(struct lk_json_out *, const char *key);
/* The string that was just written is a key. */
void lk_put_after_key(struct lk_json_out *);
bool lk_utf8_valid(const void *data, size_t size);
/* Bytes that are no UTF-8 become U+FFFD, one for each maximal part of a sequence (Unicode, 3.9). */
void lk_put_string(struct lk_json_out *, const void *data, size_t size);
void lk_put_text(struct lk_json_out *, const char *text); /* NULL: null */
void lk_put_integer(struct lk_json_out *, long long);
void lk_put_unsigned(struct lk_json_out *, unsigned long long);
/* The shortest that reads back as the same value; NaN and infinities: null. */
void lk_put_double(struct lk_json_out *, double);
void lk_put_float(struct lk_json_out *, float); /* as a float */
void lk_put_bool(struct lk_json_out *, bool);
void lk_put_null(struct lk_json_out *);
void lk_put_raw(struct lk_json_out *, const void *json, size_t size); /* a value that is JSON already */

#ifdef __cplusplus
}
#endif
#endif
