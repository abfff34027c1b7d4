/* Records of CSV, field by field. */
#include "lockstep/store/table_text.h"
#include <string.h>

static int no_memory(struct lk_err *err) {
    return lk_fail(err, LK_ENOMEM, "out of memory for a record of CSV");
}

static int add_field(struct lk_csv *csv, struct lk_bytes text, bool quoted, struct lk_err *err) {
    if (csv->count == csv->capacity) {
        size_t capacity = csv->capacity ? 2 * csv->capacity : 16;
        struct lk_csv_field *more = lk_realloc(csv->fields, capacity * sizeof *more);
        if (!more) return no_memory(err);
        csv->fields = more;
        csv->capacity = capacity;
    }
    csv->fields[csv->count++] = (struct lk_csv_field){text, quoted};
    return 0;
}

/* p stands behind the opening quote. *after: behind the closing one. csv->bytes has room for all of it. */
static int read_quoted(struct lk_csv *csv, const char *p, const char *end, const char **after, struct lk_err *err) {
    size_t at = csv->bytes.size;
    for (;;) {
        const char *quote = p < end ? memchr(p, '"', (size_t)(end - p)) : NULL;
        if (!quote) return lk_fail(err, LK_EINVAL, "field %zu: its closing quote is missing", csv->count + 1);
        bool twice = quote + 1 < end && quote[1] == '"';
        if (lk_buf_append(&csv->bytes, p, (size_t)(quote - p) + twice)) return no_memory(err);
        p = quote + 1 + twice;
        if (twice) continue;
        *after = p;
        return add_field(csv, lk_bytes(csv->bytes.data + at, csv->bytes.size - at), true, err);
    }
}

int lk_csv_read(struct lk_csv *csv, struct lk_bytes record, char separator, struct lk_err *err) {
    const char *p = record.data, *end = p + record.size;
    csv->count = csv->bytes.size = 0;
    if (p < end && end[-1] == '\n') end--;
    if (p < end && end[-1] == '\r') end--;
    if (lk_buf_reserve(&csv->bytes, record.size + 1)) return no_memory(err);
    for (;;) {
        const char *after = end;
        int code = 0;
        if (p < end && *p == '"') {
            code = read_quoted(csv, p + 1, end, &after, err);
        } else {
            after = p < end ? memchr(p, separator, (size_t)(end - p)) : NULL;
            if (!after) after = end;
            if (p < after && memchr(p, '"', (size_t)(after - p)))
                return lk_fail(err, LK_EINVAL, "field %zu: a quote within a field that does not begin with one",
                               csv->count + 1);
            code = add_field(csv, lk_bytes(p, (size_t)(after - p)), false, err);
        }
        if (code || after == end) return code;
        if (*after != separator)
            return lk_fail(err, LK_EINVAL, "field %zu: something stands behind its closing quote", csv->count);
        p = after + 1;
    }
}

void lk_csv_release(struct lk_csv *csv) {
    lk_free(csv->fields);
    lk_buf_release(&csv->bytes);
    *csv = (struct lk_csv){0};
}

int lk_csv_write(struct lk_buf *out, struct lk_bytes field, char separator) {
    const char *p = field.data, *end = p + field.size;
    bool plain = field.size > 0 && *p != ' ' && end[-1] != ' ';
    for (const char *c = p; c < end && plain; c++) plain = *c != '"' && *c != '\n' && *c != '\r' && *c != separator;
    if (plain) return lk_buf_append(out, p, field.size);
    int code = lk_buf_append(out, "\"", 1);
    while (!code && p < end) {
        const char *quote = memchr(p, '"', (size_t)(end - p));
        size_t size = (size_t)((quote ? quote + 1 : end) - p);
        code = lk_buf_append(out, p, size);
        if (!code && quote) code = lk_buf_append(out, "\"", 1);
        p += size;
    }
    return code ? code : lk_buf_append(out, "\"", 1);
}
