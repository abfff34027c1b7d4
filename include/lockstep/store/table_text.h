/* Rows of tables as text: lines of JSON, from which a table is made again to the byte, and CSV. docs/formats.md. */
#ifndef LOCKSTEP_STORE_TABLE_TEXT_H
#define LOCKSTEP_STORE_TABLE_TEXT_H
#include "lockstep/store/table.h"

#ifdef __cplusplus
extern "C" {
#endif

/* --- lines of JSON: {"key":"r","cells":[{"family":"f","qualifier":"q","timestamp_us":1000,"value":"v"}]} ------------
 * Bytes that are no UTF-8, or hold a zero byte, are base64 as key_base64, qualifier_base64, value_base64. */

/* Append to a buffer; the first cell makes the comma of none. All return 0 or LK_ENOMEM. */
int lk_table_json_begin(struct lk_buf *, struct lk_bytes row);
int lk_table_json_cell(struct lk_buf *, const struct lk_cell *, bool first);
int lk_table_json_end(struct lk_buf *); /* with the line's end */

/* A row that was read: its cells as mutations that set them. Until the next read into it, or its release. */
struct lk_table_row {
    struct lk_bytes key;
    struct lk_mutation *cells;
    size_t count, capacity;
    json_t *json;
    struct lk_buf bytes;
};
/* A cell without timestamp_us gets `timestamp_us` (or LK_TABLE_SERVER_TIME). LK_EINVAL: what is wrong with the line, as
 * "cell 3: ..."; whether the table takes such a cell, lk_table_mutate says. LK_ENOMEM. row: zeroed before the first read.
 */
int lk_table_json_read(struct lk_table_row *row, const char *line, size_t size, int64_t timestamp_us, struct lk_err *);
void lk_table_row_release(struct lk_table_row *);

/* --- CSV (RFC 4180), of any bytes ------------------------------------------------------------------------------------ */

struct lk_csv_field {
    struct lk_bytes text;
    bool quoted; /* "" is a text of no bytes, where nothing at all stands for none */
};
struct lk_csv {
    struct lk_csv_field *fields;
    size_t count, capacity;
    struct lk_buf bytes;
};
/* Whether the lines so far, with so many quotes in them, are a whole record: one that ends within quotes is not. */
static inline bool lk_csv_is_whole(size_t quotes) {
    return quotes % 2 == 0;
}
/* Takes one whole record apart, with or without its end (\n or \r\n). LK_EINVAL: a quote where none may be, in which field.
 * LK_ENOMEM. csv: zeroed before the first read. */
int lk_csv_read(struct lk_csv *, struct lk_bytes record, char separator, struct lk_err *);
void lk_csv_release(struct lk_csv *);
/* Appends a field, in quotes where it must be or is empty. LK_ENOMEM. */
int lk_csv_write(struct lk_buf *, struct lk_bytes field, char separator);

#ifdef __cplusplus
}
#endif
#endif
