/* A writer of JSON: see json_out.h. */
#include "lockstep/base/json_out.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void put(struct lk_json_out *o, const void *data, size_t size) {
    o->failed |= lk_buf_append(o->to, data, size) != 0;
}
static void begin_value(struct lk_json_out *o) {
    if (o->comma) put(o, ",", 1);
    o->comma = true;
}

void lk_put_open(struct lk_json_out *o, char open) {
    begin_value(o);
    put(o, &open, 1);
    o->comma = false;
}
void lk_put_close(struct lk_json_out *o, char close) {
    put(o, &close, 1);
    o->comma = true;
}
void lk_put_after_key(struct lk_json_out *o) {
    put(o, ":", 1);
    o->comma = false;
}
void lk_put_key(struct lk_json_out *o, const char *key) {
    lk_put_text(o, key);
    lk_put_after_key(o);
}

/* Length of the well-formed sequence at p (Unicode, table 3-7), or minus that of the maximal part to be replaced. */
static int sequence(const unsigned char *p, size_t n) {
    int size = p[0] < 0xC2 ? 0 : p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : p[0] < 0xF5 ? 4 : 0;
    if (!size) return -1;
    for (int i = 1; i < size; i++) {
        unsigned char low = 0x80, high = 0xBF;
        if (i == 1) {
            if (p[0] == 0xE0) low = 0xA0;
            if (p[0] == 0xED) high = 0x9F;
            if (p[0] == 0xF0) low = 0x90;
            if (p[0] == 0xF4) high = 0x8F;
        }
        if ((size_t)i >= n || p[i] < low || p[i] > high) return -i;
    }
    return size;
}

bool lk_utf8_valid(const void *data, size_t size) {
    const unsigned char *p = data;
    for (size_t i = 0; i < size;) {
        int n = p[i] < 0x80 ? 1 : sequence(p + i, size - i);
        if (n < 0) return false;
        i += (size_t)n;
    }
    return true;
}

void lk_put_string(struct lk_json_out *o, const void *data, size_t size) {
    static const char escapes[] = "btn\0fr"; /* of 8 to 13 */
    const unsigned char *p = data;
    begin_value(o);
    put(o, "\"", 1);
    for (size_t i = 0, plain = 0; i <= size;) {
        unsigned char c = i < size ? p[i] : 0;
        if (i < size && c >= 0x20 && c < 0x80 && c != '"' && c != '\\') {
            i++;
            continue;
        }
        int n = i < size && c >= 0x80 ? sequence(p + i, size - i) : 0;
        if (n > 0) {
            i += (size_t)n;
            continue;
        }
        if (i > plain) put(o, p + plain, i - plain);
        if (i == size) break;
        char text[8];
        if (n < 0)
            put(o, "\xEF\xBF\xBD", 3);
        else if (c == '"' || c == '\\')
            text[0] = '\\', text[1] = (char)c, put(o, text, 2);
        else if (c >= 8 && c <= 13 && c != 11)
            text[0] = '\\', text[1] = escapes[c - 8], put(o, text, 2);
        else
            put(o, text, (size_t)snprintf(text, sizeof text, "\\u%04x", c));
        i += n < 0 ? (size_t)-n : 1;
        plain = i;
    }
    put(o, "\"", 1);
}
void lk_put_text(struct lk_json_out *o, const char *text) {
    if (text)
        lk_put_string(o, text, strlen(text));
    else
        lk_put_null(o);
}

void lk_put_raw(struct lk_json_out *o, const void *json, size_t size) {
    begin_value(o);
    put(o, json, size);
}
void lk_put_null(struct lk_json_out *o) {
    lk_put_raw(o, "null", 4);
}
void lk_put_bool(struct lk_json_out *o, bool b) {
    lk_put_raw(o, b ? "true" : "false", b ? 4 : 5);
}
void lk_put_integer(struct lk_json_out *o, long long x) {
    char text[24];
    lk_put_raw(o, text, (size_t)snprintf(text, sizeof text, "%lld", x));
}
void lk_put_unsigned(struct lk_json_out *o, unsigned long long x) {
    char text[24];
    lk_put_raw(o, text, (size_t)snprintf(text, sizeof text, "%llu", x));
}
void lk_put_double(struct lk_json_out *o, double x) {
    char text[32];
    int n = 0;
    for (int digits = 15; digits <= 17; digits++) {
        n = snprintf(text, sizeof text, "%.*g", digits, x);
        if (strtod(text, NULL) == x) break;
    }
    lk_put_raw(o, isfinite(x) ? text : "null", isfinite(x) ? (size_t)n : 4);
}
void lk_put_float(struct lk_json_out *o, float x) {
    char text[32];
    int n = 0;
    for (int digits = 6; digits <= 9; digits++) {
        n = snprintf(text, sizeof text, "%.*g", digits, (double)x);
        if (strtof(text, NULL) == x) break;
    }
    lk_put_raw(o, isfinite(x) ? text : "null", isfinite(x) ? (size_t)n : 4);
}
