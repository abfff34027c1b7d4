/* lockstep table read|lookup|count */
#include "table.h"

#include <inttypes.h>
#include <string.h>

/* rows with a cell; fills *stats. */
static int read_table(struct cmd_context *c, struct table_query *q, const struct lk_table_sink *sink, struct lk_err *why,
                      struct lk_table_read_stats *stats) {
    struct lk_table *t;
    struct lk_kv_txn *txn;
    int code = table_open(c, c->arguments[0], LK_READ, &t);
    if (!code) code = table_begin(c, table_wanted.pin, &txn, &q->read.pinned_ms);
    if (!code) {
        if (lk_table_read(t, txn, &q->read, sink, stats, why)) code = cmd_fail(why);
        lk_kv_abort(txn);
    }
    lk_table_close(t);
    return code;
}

static int print_rows(struct cmd_context *c, struct table_query *q, struct lk_table_read_stats *stats) {
    struct lk_err err = {0};
    struct table_printer p = {.json = c->json, .keys_only = table_wanted.keys_only, .err = &err};
    struct lk_table_sink sink = {table_print_cell, table_print_row_end, &p};
    int code = read_table(c, q, &sink, &err, stats);
    lk_buf_release(&p.line);
    return code;
}

static int read_rows(struct cmd_context *c) {
    struct table_query q;
    struct lk_table_read_stats stats = {0};
    int code = table_query_make(c, &q, table_wanted.keys_only);
    if (!code) code = print_rows(c, &q, &stats);
    table_query_release(&q);
    return code;
}
#define PRINTED                                                                                                            \
    "A row is its key and a line for each cell: FAMILY:QUALIFIER @ TIME (UTC), its value below. \\\\, \\t, \\n, \\r and "  \
    "\\xNN stand for bytes that would not be seen, here and in arguments. With --json a line for each row, as `lockstep "  \
    "table export` writes it."
const struct cmd cmd_table_read = {
    "table read",
    "TABLE",
    1,
    1,
    "Print rows in the order of their keys.",
    (const struct cmd_option[]){
        TABLE_ROWS, TABLE_CELLS, CMD_U64("--limit", "N", &table_wanted.limit, 1, INT64_MAX, NULL, "N rows at most"),
        CMD_FLAG("--reversed", &table_wanted.reversed, "from the last row to the first"),
        CMD_FLAG("--keys-only", &table_wanted.keys_only, "only the rows' keys"), TABLE_PIN, KV_FORM, CMD_END},
    PRINTED,
    read_rows,
};

static int lookup(struct cmd_context *c) {
    struct lk_err err;
    struct table_query q;
    struct lk_buf row = LK_BUF_INIT;
    struct lk_table_read_stats stats = {0};
    char shown[80];
    int code = table_query_make(c, &q, table_wanted.keys_only);
    if (!code) code = kv_take(c, c->arguments[1], &row);
    struct lk_bytes key = table_bytes(&row);
    q.read.rows = &key;
    q.read.row_count = 1;
    if (!code) code = print_rows(c, &q, &stats);
    if (!code && !stats.rows)
        code = cmd_fail((lk_fail(&err, LK_ENOTFOUND, "no row \"%s\" in %s%s", kv_shown(key, shown, sizeof shown),
                                 c->arguments[0], q.filter ? " with such cells" : "; `lockstep table read` lists its rows"),
                         &err));
    lk_buf_release(&row);
    table_query_release(&q);
    return code;
}
const struct cmd cmd_table_lookup = {
    "table lookup",
    "TABLE ROW",
    2,
    2,
    "Print one row.",
    (const struct cmd_option[]){TABLE_CELLS, TABLE_PIN, KV_FORM, CMD_END},
    PRINTED " Exit 1 where there is no such row.",
    lookup,
};

/* --- count ----------------------------------------------------------------------------------------------- */

static bool count_cells;
static int no_cell(void *arg, const struct lk_cell *cell) {
    (void)arg;
    (void)cell;
    return 0;
}
static int count(struct cmd_context *c) {
    struct lk_err err = {0};
    struct table_query q;
    struct lk_table_read_stats stats = {0};
    struct lk_table_sink sink = {no_cell, NULL, NULL};
    int code = table_query_make(c, &q, !count_cells);
    if (!code) code = read_table(c, &q, &sink, &err, &stats);
    table_query_release(&q);
    if (code) return code;
    if (c->json)
        return cmd_print_json(
            count_cells ? json_pack("{s:I, s:I}", "rows", (json_int_t)stats.rows, "cells", (json_int_t)stats.cells)
                        : json_pack("{s:I}", "rows", (json_int_t)stats.rows));
    if (count_cells)
        printf("%" PRIu64 " rows, %" PRIu64 " cells\n", stats.rows, stats.cells);
    else
        printf("%" PRIu64 "\n", stats.rows);
    return CMD_OK;
}
const struct cmd cmd_table_count = {
    "table count",
    "TABLE",
    1,
    1,
    "Count rows.",
    (const struct cmd_option[]){TABLE_ROWS, TABLE_CELLS, CMD_FLAG("--cells", &count_cells, "cells too"), TABLE_PIN, KV_FORM,
                                CMD_END},
    NULL,
    count,
};
