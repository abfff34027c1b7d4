/* Rows of tables as lines of JSON. */
#include "lockstep/base/base64.h"
#include "lockstep/base/json_out.h"
#include "lockstep/store/table_text.h"
#include <string.h>

/* --- writing --------------------------------------------------------------------------------------------- */

/* "name":"text", or "name_base64":"..." */
static int put_bytes(struct lk_buf *out, const char *name, struct lk_bytes b) {
    struct lk_json_out json = lk_json_out(out);
    bool text = lk_utf8_valid(b.data, b.size) && !(b.size && memchr(b.data, 0, b.size));
    int code = lk_buf_printf(out, text ? "\"%s\":" : "\"%s_base64\":\"", name);
    if (code || text) {
        if (!code) lk_put_string(&json, b.size ? b.data : "", b.size);
        return code || json.failed ? LK_ENOMEM : 0;
    }
    code = lk_base64_write(out, b);
    return code ? code : lk_buf_append(out, "\"", 1);
}

int lk_table_json_begin(struct lk_buf *out, struct lk_bytes row) {
    int code = lk_buf_append(out, "{", 1);
    if (!code) code = put_bytes(out, "key", row);
    return code ? code : lk_buf_printf(out, ",\"cells\":[");
}

int lk_table_json_cell(struct lk_buf *out, const struct lk_cell *c, bool first) {
    int code = lk_buf_printf(out, "%s{\"family\":\"%s\",", first ? "" : ",", c->family); /* a word of plain letters */
    if (!code) code = put_bytes(out, "qualifier", c->qualifier);
    if (!code) code = lk_buf_printf(out, ",\"timestamp_us\":%lld,", (long long)c->timestamp_us);
    if (!code) code = put_bytes(out, "value", c->value);
    if (!code && c->label) code = lk_buf_printf(out, ",\"label\":\"%s\"", c->label);
    return code ? code : lk_buf_append(out, "}", 1);
}

int lk_table_json_end(struct lk_buf *out) {
    return lk_buf_append(out, "]}\n", 3);
}

/* --- reading --------------------------------------------------------------------------------------------- */

/* row->bytes has room for all of the line, so that it never moves. */
static int take_bytes(struct lk_table_row *row, const json_t *object, const char *name, struct lk_bytes *out,
                      struct lk_err *err) {
    char other[32];
    snprintf(other, sizeof other, "%s_base64", name);
    const json_t *text = json_object_get(object, name), *coded = json_object_get(object, other);
    if (!json_is_string(text ? text : coded) || (text && coded))
        return lk_fail(err, LK_EINVAL, "it needs \"%s\" or \"%s\", one of them, a string", name, other);
    *out = lk_bytes(json_string_value(text), json_string_length(text));
    if (text) return 0;
    size_t at = row->bytes.size;
    if (!lk_base64_read(json_string_value(coded), json_string_length(coded), &row->bytes))
        return lk_fail(err, LK_EINVAL, "\"%s\" is not base64", other);
    *out = lk_bytes(row->bytes.data + at, row->bytes.size - at);
    return 0;
}

static int take_cell(struct lk_table_row *row, const json_t *cell, int64_t timestamp_us, struct lk_err *err) {
    struct lk_mutation *m = &row->cells[row->count];
    const json_t *family = json_object_get(cell, "family"), *time = json_object_get(cell, "timestamp_us");
    *m = (struct lk_mutation){.kind = LK_SET_CELL, .timestamp_us = timestamp_us};
    if (!json_is_object(cell)) return lk_fail(err, LK_EINVAL, "it is no JSON object");
    if (!json_is_string(family) || memchr(json_string_value(family), 0, json_string_length(family)))
        return lk_fail(err, LK_EINVAL, "it needs \"family\", a family's name");
    m->family = json_string_value(family);
    int code = take_bytes(row, cell, "qualifier", &m->qualifier, err);
    if (!code) code = take_bytes(row, cell, "value", &m->value, err);
    if (code) return code;
    if (time && !json_is_integer(time)) return lk_fail(err, LK_EINVAL, "\"timestamp_us\" is no whole number");
    if (time && json_integer_value(time) < 0) return lk_fail(err, LK_EINVAL, "\"timestamp_us\" is negative");
    if (time) m->timestamp_us = json_integer_value(time);
    size_t known = 3 + (time != NULL) + (json_object_get(cell, "label") != NULL); /* a label is none of a stored cell */
    if (json_object_size(cell) != known) return lk_fail(err, LK_EINVAL, "it has keys that are none of a cell's");
    row->count++;
    return 0;
}

static int take_row(struct lk_table_row *row, int64_t timestamp_us, struct lk_err *err) {
    const json_t *cells = json_object_get(row->json, "cells");
    if (!json_is_object(row->json)) return lk_fail(err, LK_EINVAL, "it is no JSON object");
    int code = take_bytes(row, row->json, "key", &row->key, err);
    if (code) return code;
    if (!json_is_array(cells)) return lk_fail(err, LK_EINVAL, "it needs \"cells\", a list");
    if (json_object_size(row->json) != 2) return lk_fail(err, LK_EINVAL, "it has keys that are none of a row's");
    size_t count = json_array_size(cells);
    if (count > row->capacity) {
        struct lk_mutation *more = lk_realloc(row->cells, count * sizeof *more);
        if (!more) return lk_fail(err, LK_ENOMEM, "out of memory for a row of %zu cells", count);
        row->cells = more;
        row->capacity = count;
    }
    for (size_t i = 0; i < count && !code; i++) {
        code = take_cell(row, json_array_get(cells, i), timestamp_us, err);
        if (code) lk_fail_prefix(err, code, "cell %zu", i + 1);
    }
    return code;
}

int lk_table_json_read(struct lk_table_row *row, const char *line, size_t size, int64_t timestamp_us, struct lk_err *err) {
    struct lk_err why = {0};
    json_decref(row->json);
    row->count = row->bytes.size = 0;
    row->json = lk_json_parse_zeros(line, size, "the line", &why);
    if (!row->json) return lk_fail(err, why.code == LK_ENOMEM ? LK_ENOMEM : LK_EINVAL, "%s", why.message);
    if (lk_buf_reserve(&row->bytes, size + 1))
        return lk_fail(err, LK_ENOMEM, "out of memory for a line of %zu bytes", size);
    return take_row(row, timestamp_us, err);
}

void lk_table_row_release(struct lk_table_row *row) {
    json_decref(row->json);
    lk_free(row->cells);
    lk_buf_release(&row->bytes);
    *row = (struct lk_table_row){0};
}
