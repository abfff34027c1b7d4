/* JSON: jansson's values, with messages that say where, canonical text, and checked getters. */
#ifndef LOCKSTEP_JSON_H
#define LOCKSTEP_JSON_H
#include "lockstep/base/err.h"
#include "lockstep/base/mem.h"
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Parses exactly one value from text[0..size); a failure names `name`, line and column, and byte. Duplicate keys and
 * nesting deeper than jansson's limit are refused. NULL on failure. */
json_t *lk_json_parse(const char *text, size_t size, const char *name, struct lk_err *);
/* The same where strings may hold zero characters (\u0000): who reads them minds their lengths. */
json_t *lk_json_parse_zeros(const char *text, size_t size, const char *name, struct lk_err *);
/* Canonical text: keys sorted bytewise, no white space, strings as jansson's compact UTF-8 output, no real numbers (floats
 * are strings in C99 hexadecimal, see lk_json_float). Appends to out. */
int lk_json_canonical(const json_t *, struct lk_buf *out, struct lk_err *);
/* The text that Python's json.dumps(value, ensure_ascii=False, indent=indent or None) gives: keys in their order, ", " and
 * ": ", or one item a line behind `indent` spaces a level; control characters as \u001f; real numbers as repr writes them.
 * Appends to out; LK_ENOMEM. */
int lk_json_python(const json_t *, unsigned indent, struct lk_buf *out);
/* A double as its exact hexadecimal string ("0x1.8p+1"), normalised: the shortest mantissa, lower case. Own code, no libc
 * difference. */
json_t *lk_json_float(double value);
int lk_json_float_parse(const json_t *, double *out); /* 0, or LK_EINVAL */

/* Checked getters for objects: missing or wrong type is LK_EINVAL that names `what` and the key. Strings are borrowed. */
int lk_json_get_string(const json_t *object, const char *key, const char *what, const char **out, struct lk_err *);
int lk_json_get_u64(const json_t *object, const char *key, const char *what, uint64_t *out, struct lk_err *);

#ifdef __cplusplus
}
#endif
#endif
