/* clang -fsanitize=fuzzer,address: a file that `lockstep table import` reads: a line of JSON, a record of CSV. Whatever is
 * refused says why; whatever is taken is written and read again as the same. */
#include "lockstep/base/json_out.h"
#include "lockstep/store/table_text.h"
#include <stdlib.h>
#include <string.h>

static bool same(struct lk_bytes a, struct lk_bytes b) {
    return a.size == b.size && (!a.size || memcmp(a.data, b.data, a.size) == 0);
}

static void check_json(const char *data, size_t size) {
    struct lk_err err = {0};
    struct lk_table_row row = {0}, again = {0};
    struct lk_buf line = LK_BUF_INIT;
    if (lk_table_json_read(&row, data, size, 1000, &err)) {
        if (!err.message[0]) abort();
    } else {
        bool plain = true; /* families' names are words; others are written by nobody */
        if (lk_table_json_begin(&line, row.key)) abort();
        for (size_t i = 0; i < row.count; i++) {
            const struct lk_mutation *m = &row.cells[i];
            struct lk_cell cell = {row.key, m->family, m->qualifier, m->timestamp_us, m->value, NULL};
            for (const char *p = m->family; *p; p++) plain = plain && *p > ' ' && *p != '"' && *p != '\\';
            if (lk_table_json_cell(&line, &cell, i == 0)) abort();
        }
        if (lk_table_json_end(&line)) abort();
        if (plain) {
            if (lk_table_json_read(&again, line.data, line.size, 7, &err) || again.count != row.count) abort();
            if (!same(row.key, again.key)) abort();
            for (size_t i = 0; i < row.count; i++) {
                const struct lk_mutation *a = &row.cells[i], *b = &again.cells[i];
                if (strcmp(a->family, b->family) || a->timestamp_us != b->timestamp_us) abort();
                if (!same(a->qualifier, b->qualifier) || !same(a->value, b->value)) abort();
            }
        }
    }
    lk_buf_release(&line);
    lk_table_row_release(&row);
    lk_table_row_release(&again);
}

static void check_csv(const char *data, size_t size, char separator) {
    struct lk_err err = {0};
    struct lk_csv csv = {0}, again = {0};
    struct lk_buf line = LK_BUF_INIT;
    if (lk_csv_read(&csv, lk_bytes(data, size), separator, &err)) {
        if (!err.message[0]) abort();
    } else {
        for (size_t i = 0; i < csv.count; i++) {
            if (i && lk_buf_append(&line, &separator, 1)) abort();
            bool none = !csv.fields[i].text.size && !csv.fields[i].quoted;
            if (!none && lk_csv_write(&line, csv.fields[i].text, separator)) abort();
        }
        if (lk_csv_read(&again, lk_bytes(line.data ? line.data : "", line.size), separator, &err)) abort();
        if (again.count != csv.count) abort();
        for (size_t i = 0; i < csv.count; i++)
            if (!same(csv.fields[i].text, again.fields[i].text)) abort();
    }
    lk_buf_release(&line);
    lk_csv_release(&csv);
    lk_csv_release(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    check_json((const char *)data, size);
    check_csv((const char *)data, size, ',');
    check_csv((const char *)data, size, '\t');
    return 0;
}
