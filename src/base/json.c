#include "lockstep/base/json.h"
#include "lockstep/base/file.h"
#include <string.h>

static json_t *parse(const char *text, size_t size, const char *name, size_t flags, struct lk_err *err) {
    json_error_t e;
    size_t bom = lk_skip_bom(text, size);
    json_t *value = json_loadb(text + bom, size - bom, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | flags, &e);
    if (value) return value;
    const char *instead = lk_file_instead(text, size);
    if (instead) {
        lk_fail(err, LK_EINVAL, "%s is %s", name, instead);
        return NULL;
    }
    /* Out of memory, jansson mostly gives no text at all (and a text about the token it could not store otherwise). */
    if (json_error_code(&e) == json_error_out_of_memory || !e.text[0])
        lk_fail(err, LK_ENOMEM, "out of memory parsing %s", name);
    else
        lk_fail(err, LK_EINVAL, "%s:%d:%d: not valid JSON at byte %d: %s", name, e.line, e.column, e.position, e.text);
    return NULL;
}
json_t *lk_json_parse(const char *text, size_t size, const char *name, struct lk_err *err) {
    return parse(text, size, name, 0, err);
}
json_t *lk_json_parse_zeros(const char *text, size_t size, const char *name, struct lk_err *err) {
    return parse(text, size, name, JSON_ALLOW_NUL, err);
}

/* --- canonical text -------------------------------------------------------------------------------------- */

#define DEPTH_MAX 2048

static int check(const json_t *value, int depth, struct lk_err *err) {
    if (depth > DEPTH_MAX) return lk_fail(err, LK_EINVAL, "JSON nested deeper than %d has no canonical text", DEPTH_MAX);
    if (json_is_real(value))
        return lk_fail(err, LK_EINVAL, "the real number %.17g has no canonical JSON text; store it as a hexadecimal string",
                       json_real_value(value));
    int code = 0;
    if (json_is_array(value)) {
        for (size_t i = 0; code == 0 && i < json_array_size(value); i++)
            code = check(json_array_get(value, i), depth + 1, err);
    } else if (json_is_object(value)) {
        const char *key;
        json_t *item;
        json_object_foreach((json_t *)(uintptr_t)value, key, item) {
            code = check(item, depth + 1, err);
            if (code != 0) return code;
        }
    }
    return code;
}

/* jansson forgets a callback's failure inside an object's key, so the failure is kept here. */
struct sink {
    struct lk_buf *out;
    bool failed;
};
static int append(const char *data, size_t size, void *arg) {
    struct sink *s = arg;
    s->failed |= lk_buf_append(s->out, data, size) != 0;
    return s->failed ? -1 : 0;
}

int lk_json_canonical(const json_t *value, struct lk_buf *out, struct lk_err *err) {
    int code = check(value, 0, err);
    if (code != 0) return code;
    size_t start = out->size;
    struct sink sink = {.out = out};
    int dumped = json_dump_callback(value, append, &sink, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY);
    if (dumped == 0 && !sink.failed) return 0;
    out->size = start;
    if (out->data) out->data[start] = 0;
    return lk_fail(err, LK_ENOMEM, "out of memory writing JSON");
}

/* --- floats ---------------------------------------------------------------------------------------------- */

#define FLOAT_TEXT 40

static void format_float(double value, char *out) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint64_t fraction = bits & 0xFFFFFFFFFFFFFull;
    int exponent = (int)(bits >> 52 & 0x7FF);
    if (exponent == 0x7FF && fraction) {
        strcpy(out, "nan");
        return;
    }
    if (bits >> 63) *out++ = '-';
    if (exponent == 0x7FF) {
        strcpy(out, "inf");
        return;
    }
    if (exponent == 0 && fraction == 0) {
        strcpy(out, "0x0p+0");
        return;
    }
    if (exponent == 0) { /* subnormal: shift the leading one into place */
        exponent = 1;
        while (!(fraction >> 52)) fraction <<= 1, exponent--;
        fraction &= 0xFFFFFFFFFFFFFull;
    }
    memcpy(out, "0x1", 3), out += 3;
    if (fraction) *out++ = '.';
    for (; fraction; fraction = fraction << 4 & 0xFFFFFFFFFFFFFull) *out++ = "0123456789abcdef"[fraction >> 48];
    exponent -= 1023;
    *out++ = 'p';
    *out++ = exponent < 0 ? '-' : '+';
    snprintf(out, 12, "%d", exponent < 0 ? -exponent : exponent);
}

json_t *lk_json_float(double value) {
    char text[FLOAT_TEXT];
    format_float(value, text);
    return json_string(text);
}

/* Reads [-]0x1[.h...]p(+|-)d...; false when it is not of that form. Values are checked by formatting them again. */
static bool read_float(const char *s, uint64_t *bits) {
    uint64_t sign = 0, fraction = 0;
    if (*s == '-') sign = (uint64_t)1 << 63, s++;
    if (strcmp(s, "0x0p+0") == 0) {
        *bits = sign;
        return true;
    }
    if (strncmp(s, "0x1", 3) != 0) return false;
    s += 3;
    if (*s == '.') {
        int shift = 48;
        for (s++; (*s >= '0' && *s <= '9') || (*s >= 'a' && *s <= 'f'); s++, shift -= 4) {
            if (shift < 0) return false;
            fraction |= (uint64_t)(*s <= '9' ? *s - '0' : *s - 'a' + 10) << shift;
        }
    }
    if (*s++ != 'p' || (*s != '+' && *s != '-')) return false;
    int negative = *s++ == '-', exponent = 0, digits = 0;
    for (; *s >= '0' && *s <= '9'; s++) {
        if (++digits > 4) return false;
        exponent = exponent * 10 + (*s - '0');
    }
    if (*s || !digits) return false;
    exponent = (negative ? -exponent : exponent) + 1023;
    if (exponent >= 0x7FF) return false;
    if (exponent < 1) {
        if (exponent < -51) return false;
        fraction = (fraction | (uint64_t)1 << 52) >> (1 - exponent);
        exponent = 0;
    }
    *bits = sign | (uint64_t)exponent << 52 | fraction;
    return true;
}

int lk_json_float_parse(const json_t *value, double *out) {
    uint64_t bits;
    const char *text = json_string_value(value);
    char again[FLOAT_TEXT];
    if (!text || !read_float(text, &bits)) return LK_EINVAL;
    double x;
    memcpy(&x, &bits, sizeof x);
    format_float(x, again);
    if (strcmp(text, again) != 0) return LK_EINVAL;
    *out = x;
    return 0;
}

/* --- getters --------------------------------------------------------------------------------------------- */

static const char *type_name(const json_t *value) {
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a real number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "a truth value";
    default:
        return "null";
    }
}

static int wrong(const json_t *object, const char *key, const char *what, const char *wanted, struct lk_err *err) {
    if (!json_is_object(object)) return lk_fail(err, LK_EINVAL, "%s: an object is needed here, to hold \"%s\"", what, key);
    json_t *value = json_object_get(object, key);
    if (!value) return lk_fail(err, LK_EINVAL, "%s: \"%s\" is missing", what, key);
    return lk_fail(err, LK_EINVAL, "%s: \"%s\" must be %s, not %s", what, key, wanted, type_name(value));
}

int lk_json_get_string(const json_t *object, const char *key, const char *what, const char **out, struct lk_err *err) {
    const json_t *value = json_object_get(object, key);
    if (!json_is_string(value)) return wrong(object, key, what, "a string", err);
    *out = json_string_value(value);
    return 0;
}

int lk_json_get_u64(const json_t *object, const char *key, const char *what, uint64_t *out, struct lk_err *err) {
    const json_t *value = json_object_get(object, key);
    if (!json_is_integer(value)) return wrong(object, key, what, "a whole number", err);
    if (json_integer_value(value) < 0)
        return lk_fail(err, LK_EINVAL, "%s: \"%s\" is %lld, it must not be negative", what, key,
                       (long long)json_integer_value(value));
    *out = (uint64_t)json_integer_value(value);
    return 0;
}
