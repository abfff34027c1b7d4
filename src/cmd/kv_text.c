/* Keys and values of `lockstep kv` as text and as JSON. */
#include "kv.h"

#include "lockstep/base/base64.h"
#include "lockstep/base/json_out.h"
#include <stdlib.h>
#include <string.h>

struct kv_form kv_form;
bool kv_force;

/* --- bytes as text --------------------------------------------------------------------------------------- */

static int digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool hex_read(const char *text, struct lk_buf *out) {
    for (const char *p = text; *p; p += 2) {
        int high = digit(p[0]), low = p[0] ? digit(p[1]) : -1;
        if (high < 0 || low < 0 || lk_buf_append(out, &(char){(char)(high << 4 | low)}, 1)) return false;
    }
    return true;
}

static const char escapes[] = "\\tnr", meanings[] = "\\\t\n\r";

static bool text_read(const char *text, struct lk_buf *out) {
    for (const char *p = text; *p; p++) {
        char c = *p;
        if (c == '\\') {
            const char *known = p[1] ? strchr(escapes, p[1]) : NULL;
            bool hex = p[1] == 'x' && digit(p[2]) >= 0 && digit(p[3]) >= 0;
            if (!known && !hex) return false;
            c = known ? meanings[known - escapes] : (char)(digit(p[2]) << 4 | digit(p[3]));
            p += known ? 1 : 3;
        }
        if (lk_buf_append(out, &c, 1)) return false;
    }
    return true;
}

static int text_write(struct lk_buf *out, struct lk_bytes b) {
    const char *p = b.data;
    bool utf8 = lk_utf8_valid(b.data, b.size);
    int code = 0;
    for (size_t i = 0; i < b.size && !code; i++) {
        const char *known = p[i] ? strchr(meanings, p[i]) : NULL;
        if (known)
            code = lk_buf_printf(out, "\\%c", escapes[known - meanings]);
        else if ((unsigned char)p[i] < 0x20 || p[i] == 0x7f || ((unsigned char)p[i] >= 0x80 && !utf8))
            code = lk_buf_printf(out, "\\x%02x", (unsigned char)p[i]);
        else
            code = lk_buf_append(out, p + i, 1);
    }
    return code;
}

int kv_take(const struct cmd_context *c, const char *text, struct lk_buf *out) {
    if (kv_form.hex && kv_form.base64) return cmd_usage_error(c, "--hex and --base64: one of them");
    if (kv_form.hex)
        return hex_read(text, out) ? CMD_OK : cmd_usage_error(c, "\"%s\" is not pairs of hexadecimal digits", text);
    if (kv_form.base64)
        return lk_base64_read(text, strlen(text), out) ? CMD_OK : cmd_usage_error(c, "\"%s\" is not base64", text);
    if (text_read(text, out)) return CMD_OK;
    return cmd_usage_error(c, "\"%s\": a backslash is \\\\; \\t, \\n, \\r and \\xNN stand for other bytes", text);
}

int kv_write(struct lk_buf *out, struct lk_bytes b) {
    int code = 0;
    if (kv_form.base64) return lk_base64_write(out, b);
    if (!kv_form.hex) return text_write(out, b);
    for (size_t i = 0; i < b.size && !code; i++) code = lk_buf_printf(out, "%02x", ((const unsigned char *)b.data)[i]);
    return code;
}

const char *kv_shown(struct lk_bytes b, char *out, size_t size) {
    struct lk_buf text = LK_BUF_INIT;
    kv_write(&text, b);
    snprintf(out, size, "%s", text.data ? text.data : "");
    if (text.size >= size) memcpy(out + size - 4, "...", 4);
    lk_buf_release(&text);
    return out;
}

/* --- rows as JSON: docs/formats.md ------------------------------------------------------------------------- */

/* Text, if that gives the same bytes again; else base64. */
static int member(struct lk_buf *out, const char *name, struct lk_bytes b) {
    if (!lk_utf8_valid(b.data, b.size) || (b.size && memchr(b.data, 0, b.size))) {
        int code = lk_buf_printf(out, "\"%s_base64\":\"", name);
        if (!code) code = lk_base64_write(out, b);
        return code ? code : lk_buf_append(out, "\"", 1);
    }
    json_t *text = json_stringn(b.size ? b.data : "", b.size);
    char *quoted = text ? json_dumps(text, JSON_ENCODE_ANY) : NULL;
    int code = quoted ? lk_buf_printf(out, "\"%s\":", name) : LK_ENOMEM;
    if (!code) code = lk_buf_append(out, quoted, strlen(quoted));
    free(quoted);
    json_decref(text);
    return code;
}

int kv_json_write(struct lk_buf *out, struct lk_bytes key, struct lk_bytes value, bool keys_only) {
    int code = lk_buf_append(out, "{", 1);
    if (!code) code = member(out, "key", key);
    if (!code && !keys_only) code = lk_buf_append(out, ",", 1);
    if (!code && !keys_only) code = member(out, "value", value);
    return code ? code : lk_buf_append(out, "}", 1);
}

static const char *read_member(const json_t *row, const char *name, struct lk_buf *out) {
    static char message[128];
    char other[32];
    snprintf(other, sizeof other, "%s_base64", name);
    const json_t *text = json_object_get(row, name), *coded = json_object_get(row, other);
    snprintf(message, sizeof message, "it needs \"%s\" or \"%s\", one of them, a string", name, other);
    if (!json_is_string(text ? text : coded) || (text && coded)) return message;
    if (text) return lk_buf_append(out, json_string_value(text), json_string_length(text)) ? "out of memory" : NULL;
    snprintf(message, sizeof message, "\"%s\" is not base64", other);
    return lk_base64_read(json_string_value(coded), json_string_length(coded), out) ? NULL : message;
}

const char *kv_json_read(const char *line, size_t size, struct lk_buf *key, struct lk_buf *value) {
    json_error_t e;
    json_t *row = json_loadb(line, size, JSON_REJECT_DUPLICATES, &e);
    key->size = value->size = 0;
    const char *wrong = json_is_object(row) ? read_member(row, "key", key) : "it is no JSON object";
    if (!wrong) wrong = read_member(row, "value", value);
    if (!wrong && json_object_size(row) != 2) wrong = "it has keys that are none of a row's";
    json_decref(row);
    return wrong;
}

/* --- whose rows ------------------------------------------------------------------------------------------ */

static const struct {
    const char *prefix, *what;
} ours[] = {
    {"format", "the store's format"},
    {"n/", "names"},
    {"h/", "the history of names"},
    {"r/", "records"},
    {"l/", "ledgers"},
    {"e/", "evaluations"},
    {"c/", "checkpoints"},
    {"u/", "uploads"},
    {"t/", "tables and pins"},
};
/* A table's cells: 'T', the table's number in four bytes, the first of which is 0 for the first 16 million, a letter. */
static bool is_cell(struct lk_bytes key) {
    const char *k = key.data;
    return key.size >= 6 && k[0] == 'T' && !k[1];
}

/* Whether one of two begins with the other. */
static bool overlap(struct lk_bytes a, const char *b) {
    size_t n = strlen(b) < a.size ? strlen(b) : a.size;
    return !n || memcmp(a.data, b, n) == 0;
}
int kv_check_ours(struct lk_bytes key, struct lk_err *err) {
    char shown[80];
    for (size_t i = 0; i < sizeof ours / sizeof *ours && !kv_force; i++)
        if (key.size >= strlen(ours[i].prefix) && overlap(key, ours[i].prefix) && (i || key.size == 6))
            return lk_fail(err, LK_EINVAL, "the row \"%s\" is one of Lockstep's own (%s); --force changes it all the same",
                           kv_shown(key, shown, sizeof shown), ours[i].what);
    if (!kv_force && is_cell(key))
        return lk_fail(err, LK_EINVAL, "the row \"%s\" is one of Lockstep's own (cells); --force changes it all the same",
                       kv_shown(key, shown, sizeof shown));
    return 0;
}
int kv_check_ours_prefix(struct lk_bytes prefix, struct lk_err *err) {
    char shown[80];
    for (size_t i = 0; i < sizeof ours / sizeof *ours && !kv_force; i++)
        if (overlap(prefix, ours[i].prefix))
            return lk_fail(err, LK_EINVAL,
                           "among the rows that begin with \"%s\" may be Lockstep's own (%s); --force deletes them all the "
                           "same",
                           kv_shown(prefix, shown, sizeof shown), ours[i].what);
    if (!kv_force && prefix.size && overlap(prefix, "T") && (prefix.size == 1 || !((const char *)prefix.data)[1]))
        return lk_fail(err, LK_EINVAL,
                       "among the rows that begin with \"%s\" may be Lockstep's own (cells); --force deletes them all the "
                       "same",
                       kv_shown(prefix, shown, sizeof shown));
    return 0;
}
