/* JSON in the text of Python's json.dumps, which models have seen their tools in. */
#include "lockstep/base/json.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int put(struct lk_buf *out, const char *text) {
    return lk_buf_append(out, text, strlen(text));
}

static int put_string(struct lk_buf *out, const char *text, size_t size) {
    static const char plain[] = "\"\\\b\f\n\r\t", names[] = "\"\\bfnrt";
    int code = put(out, "\"");
    size_t done = 0;
    for (size_t i = 0; i < size && !code; i++) {
        unsigned char c = (unsigned char)text[i];
        const char *known = c ? strchr(plain, c) : NULL;
        if (!known && c >= 0x20) continue;
        code = lk_buf_append(out, text + done, i - done);
        if (!code) code = known ? lk_buf_printf(out, "\\%c", names[known - plain]) : lk_buf_printf(out, "\\u%04x", c);
        done = i + 1;
    }
    if (!code) code = lk_buf_append(out, text + done, size - done);
    return code ? code : put(out, "\"");
}

/* --- Real numbers ---------------------------------------------------------------------------------------------------- */

/* The fewest digits that give x back, and the decimal exponent of the first. At a power of two the nearest number of so
 * many digits may lie on the narrow side and not come back, though the next greater one does. */
static int shortest(double x, char digits[20], int *exponent) {
    char text[40];
    for (int n = 1;; n++) {
        snprintf(text, sizeof text, "%.*e", n - 1, x);
        for (int up = 0; up < 2; up++) {
            char *e = strchr(text, 'e');
            if (up) { /* one more in the last place; from 9 to 10 there would have been fewer digits */
                if (e[-1] == '9' || e[-1] == '.') break;
                e[-1]++;
            }
            if (strtod(text, NULL) != x && n < 17) continue;
            *exponent = atoi(e + 1);
            digits[0] = text[0];
            memcpy(digits + 1, text + 2, n > 1 ? (size_t)(n - 1) : 0);
            return n;
        }
    }
}

static int put_real(struct lk_buf *out, double x) {
    char digits[20], text[64];
    int exponent, at = 0, n = shortest(x <= 0 ? 0 - x : x, digits, &exponent);
    if (x < 0 || (x == 0 && 1 / x < 0)) text[at++] = '-';
    if (exponent < -4 || exponent >= 16) { /* Python's repr */
        text[at++] = digits[0];
        if (n > 1) at += snprintf(text + at, 24, ".%.*s", n - 1, digits + 1);
        snprintf(text + at, 8, "e%+03d", exponent);
    } else if (exponent < 0)
        snprintf(text + at, 40, "0.%.*s%.*s", -exponent - 1, "0000", n, digits);
    else if (n <= exponent + 1)
        snprintf(text + at, 40, "%.*s%.*s.0", n, digits, exponent + 1 - n, "0000000000000000");
    else
        snprintf(text + at, 40, "%.*s.%.*s", exponent + 1, digits, n - exponent - 1, digits + exponent + 1);
    return put(out, text);
}

/* --- Values ---------------------------------------------------------------------------------------------------------- */

static int put_line(struct lk_buf *out, unsigned indent, unsigned level) {
    return indent ? lk_buf_printf(out, "\n%*s", (int)(indent * level), "") : LK_OK;
}

static int put_value(const json_t *v, unsigned indent, unsigned level, struct lk_buf *out);

/* first: none stands before it. */
static int put_item(const char *key, size_t key_size, const json_t *v, bool first, unsigned indent, unsigned level,
                    struct lk_buf *out) {
    int code = first ? LK_OK : put(out, indent ? "," : ", ");
    if (!code) code = put_line(out, indent, level);
    if (!code && key) code = put_string(out, key, key_size);
    if (!code && key) code = put(out, ": ");
    return code ? code : put_value(v, indent, level, out);
}

static int put_object(const json_t *v, unsigned indent, unsigned level, struct lk_buf *out) {
    bool first = true;
    int code = put(out, "{");
    void *at = json_object_iter((json_t *)v);
    for (; at && !code; at = json_object_iter_next((json_t *)v, at), first = false) {
        const char *key = json_object_iter_key(at);
        code = put_item(key, strlen(key), json_object_iter_value(at), first, indent, level + 1, out);
    }
    if (!code && !first) code = put_line(out, indent, level);
    return code ? code : put(out, "}");
}

static int put_array(const json_t *v, unsigned indent, unsigned level, struct lk_buf *out) {
    size_t count = json_array_size(v);
    int code = put(out, "[");
    for (size_t i = 0; i < count && !code; i++) code = put_item(NULL, 0, json_array_get(v, i), !i, indent, level + 1, out);
    if (!code && count) code = put_line(out, indent, level);
    return code ? code : put(out, "]");
}

static int put_value(const json_t *v, unsigned indent, unsigned level, struct lk_buf *out) {
    if (json_is_object(v)) return put_object(v, indent, level, out);
    if (json_is_array(v)) return put_array(v, indent, level, out);
    if (json_is_string(v)) return put_string(out, json_string_value(v), json_string_length(v));
    if (json_is_integer(v)) return lk_buf_printf(out, "%lld", (long long)json_integer_value(v));
    if (json_is_real(v)) return put_real(out, json_real_value(v));
    return put(out, json_is_true(v) ? "true" : json_is_false(v) ? "false" : "null");
}

int lk_json_python(const json_t *value, unsigned indent, struct lk_buf *out) {
    return put_value(value, indent, 0, out);
}
