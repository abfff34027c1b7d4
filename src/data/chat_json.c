/* JSON as Python's json.dumps(ensure_ascii=False) writes it, which is what templates put into prompts. */
#include "data/chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int put(struct lk_buf *out, const char *text) {
    return lk_buf_append(out, text, strlen(text));
}

static int put_string(struct lk_buf *out, const char *s, size_t size) {
    static const char named[] = "\"\"\\\\\nn\rr\tt\ff\bb"; /* a character and its name */
    int code = put(out, "\"");
    for (size_t i = 0; i < size && !code; i++) {
        unsigned char c = (unsigned char)s[i];
        const char *n = named;
        while (*n && (unsigned char)*n != c) n += 2;
        if (c && *n)
            code = lk_buf_printf(out, "\\%c", n[1]);
        else if (c < 32)
            code = lk_buf_printf(out, "\\u%04x", c);
        else
            code = lk_buf_append(out, s + i, 1);
    }
    return code ? code : put(out, "\"");
}

/* Python's repr: the fewest digits that read back the same; with an exponent below 1e-4 and from 1e16 on. */
static int put_real(struct lk_buf *out, double x) {
    char text[64], digits[32];
    int precision = 0, exponent = 0;
    do snprintf(text, sizeof text, "%.*e", precision, x);
    while (strtod(text, NULL) != x && ++precision < 17);
    exponent = atoi(strchr(text, 'e') + 1);
    size_t n = 0;
    for (const char *c = text; *c != 'e'; c++)
        if (*c >= '0' && *c <= '9') digits[n++] = *c;
    while (n > 1 && digits[n - 1] == '0') n--;
    int code = text[0] == '-' ? put(out, "-") : 0;
    if (exponent < -4 || exponent >= 16)
        return code ? code
                    : lk_buf_printf(out, "%c%s%.*se%c%02d", digits[0], n > 1 ? "." : "", (int)n - 1, digits + 1,
                                    exponent < 0 ? '-' : '+', abs(exponent));
    if (exponent < 0) return code ? code : lk_buf_printf(out, "0.%.*s%.*s", -exponent - 1, "000", (int)n, digits);
    for (int i = 0; i <= exponent && !code; i++) code = lk_buf_append(out, i < (int)n ? &digits[i] : "0", 1);
    if (code || (size_t)exponent + 1 >= n) return code ? code : put(out, ".0");
    return lk_buf_printf(out, ".%.*s", (int)n - exponent - 1, digits + exponent + 1);
}

static int put_line(struct lk_buf *out, int indent, int depth) {
    return indent ? lk_buf_printf(out, "\n%*s", indent * depth, "") : 0;
}
static int put_value(const json_t *v, int indent, int depth, struct lk_buf *out) {
    const char *key, *between = indent ? "," : ", ";
    json_t *value;
    size_t done = 0, i;
    int code = 0;
    if (json_is_string(v)) return put_string(out, json_string_value(v), json_string_length(v));
    if (json_is_integer(v)) return lk_buf_printf(out, "%lld", (long long)json_integer_value(v));
    if (json_is_real(v)) return put_real(out, json_real_value(v));
    if (!json_is_object(v) && !json_is_array(v))
        return put(out, json_is_true(v) ? "true" : json_is_false(v) ? "false" : "null");
    bool object = json_is_object(v);
    if (!(object ? json_object_size(v) : json_array_size(v))) return put(out, object ? "{}" : "[]");
    code = put(out, object ? "{" : "[");
    if (object) {
        json_object_foreach((json_t *)(uintptr_t)v, key, value) {
            if (!code && done++) code = put(out, between);
            if (!code) code = put_line(out, indent, depth + 1);
            if (!code) code = put_string(out, key, strlen(key));
            if (!code) code = put(out, ": ");
            if (!code) code = put_value(value, indent, depth + 1, out);
        }
    } else
        json_array_foreach(v, i, value) {
            if (!code && i) code = put(out, between);
            if (!code) code = put_line(out, indent, depth + 1);
            if (!code) code = put_value(value, indent, depth + 1, out);
        }
    if (!code) code = put_line(out, indent, depth);
    return code ? code : put(out, object ? "}" : "]");
}

int lk__data_json_dump(const json_t *v, int indent, struct lk_buf *out) {
    return put_value(v, indent, 0, out) ? LK_ENOMEM : LK_OK;
}
