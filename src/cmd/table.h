/* What the files of `lockstep table` share. Keys and values stand in arguments as in `lockstep kv` (kv.h). */
#ifndef LOCKSTEP_CMD_TABLE_H
#define LOCKSTEP_CMD_TABLE_H
#include "kv.h"
#include "lockstep/store/table_text.h"

static inline struct lk_bytes table_bytes(const struct lk_buf *b) {
    return lk_bytes(b->data ? b->data : "", b->size);
}

/* Opens the store and a table of it. CMD_FAILED with a message. */
int table_open(struct cmd_context *, const char *name, enum lk_access, struct lk_table **);
/* A read transaction; at the time of the pin (NULL: none, 0), which must be there. */
int table_begin(struct cmd_context *, const char *pin, struct lk_kv_txn **, int64_t *pinned_ms);
/* LK_ENOTFOUND: no pin of this name; the message names those that there are. */
int table_pin_time(struct lk_store *, const char *pin, int64_t *out_ms, struct lk_err *);

/* On stderr; work of less than a few seconds shows nothing. */
void table_progress_begin(struct lk_progress *);

/* --- which rows and cells -------------------------------------------------------------------------------- */

extern struct table_wanted {
    const char *start, *end, *prefix, *regex, *filter, *pin;
    struct cmd_list families, columns;
    uint64_t limit;
    uint32_t latest;
    bool reversed, keys_only;
} table_wanted;
#define TABLE_PIN CMD_STRING("--pin", "PIN", &table_wanted.pin, NULL, "as this pin sees the table, not as it is now")
#define TABLE_ROWS                                                                                                         \
    CMD_STRING("--start", "ROW", &table_wanted.start, NULL, "begin at this row"),                                          \
        CMD_STRING("--end", "ROW", &table_wanted.end, NULL, "end before this row"),                                        \
        CMD_STRING("--prefix", "ROW", &table_wanted.prefix, NULL, "only rows whose keys begin so"),                        \
        CMD_STRING("--regex", "R", &table_wanted.regex, NULL, "only rows whose whole keys match this (RE2's syntax)")
#define TABLE_CELLS                                                                                                        \
    CMD_LIST("--families", "R,...", &table_wanted.families, "only families that match one of these patterns"),             \
        CMD_LIST("--columns", "FAMILY:R,...", &table_wanted.columns,                                                       \
                 "only columns that match one of these: a family, and a pattern of the qualifier (RE2's syntax)"),         \
        CMD_U32("--latest", "N", &table_wanted.latest, 1, INT32_MAX, NULL, "of a column only the N newest cells"),         \
        CMD_STRING("--filter", "TEXT", &table_wanted.filter, NULL,                                                         \
                   "a filter, such as 'family(\"cf.*\") | latest(1)': docs/tables.md")

/* The options above as a read. CMD_OK, or CMD_USAGE or CMD_FAILED with a message. */
struct table_query {
    struct lk_table_read read;
    struct lk_table_range range;
    struct lk_filter_program *filter;
    struct lk_buf from, to;
};
/* rows_only: only which rows there are is asked for, of each one cell is enough. */
int table_query_make(const struct cmd_context *, struct table_query *, bool rows_only);
void table_query_release(struct table_query *);

/* --- cells as text --------------------------------------------------------------------------------------- */

/* "FAMILY:QUALIFIER", and behind it "=VALUE" and "@TIMESTAMP" (of a cell that is set; both must then be wanted). */
struct table_column {
    char family[LK_TABLE_FAMILY_MAX + 1];
    struct lk_buf qualifier, value;
    bool has_qualifier;
    int64_t timestamp_us; /* LK_TABLE_SERVER_TIME where none stands there */
};
int table_column_take(const struct cmd_context *, const char *text, bool cell, struct table_column *out);
void table_column_release(struct table_column *);
/* "2026/11/29-12:00:01.002000", UTC; returns out. */
const char *table_time(int64_t us, char out[40]);

/* Prints rows on standard output: as cbt does, or a line of JSON for each. */
struct table_printer {
    bool json, keys_only, open; /* open: a row's line has begun */
    uint64_t cells;             /* of the row */
    struct lk_buf line;
    struct lk_err *err;
};
int table_print_cell(void *printer, const struct lk_cell *);
int table_print_row_end(void *printer, struct lk_bytes row, bool told);

#endif
