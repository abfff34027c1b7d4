/* lockstep table set|delete */
#include "table.h"

#include <inttypes.h>
#include <string.h>

/* --- set ------------------------------------------------------------------------------------------------- */

static int set_cells(struct cmd_context *c, struct table_column *columns, struct lk_mutation *cells, size_t count) {
    struct lk_err err = {0};
    struct lk_buf row = LK_BUF_INIT;
    struct lk_table *t = NULL;
    int code = kv_take(c, c->arguments[1], &row);
    for (size_t i = 0; i < count && !code; i++) {
        code = table_column_take(c, c->arguments[i + 2], true, &columns[i]);
        cells[i] = (struct lk_mutation){.kind = LK_SET_CELL,
                                        .family = columns[i].family,
                                        .qualifier = table_bytes(&columns[i].qualifier),
                                        .value = table_bytes(&columns[i].value),
                                        .timestamp_us = columns[i].timestamp_us};
    }
    if (!code) code = table_open(c, c->arguments[0], LK_WRITE, &t);
    if (!code && lk_table_apply(t, table_bytes(&row), cells, count, LK_DURABLE, &err)) code = cmd_fail(&err);
    lk_table_close(t);
    lk_buf_release(&row);
    return code;
}
static int set(struct cmd_context *c) {
    struct lk_err err;
    size_t count = (size_t)c->argument_count - 2;
    struct table_column *columns = lk_calloc(count, sizeof *columns);
    struct lk_mutation *cells = lk_calloc(count, sizeof *cells);
    int code = columns && cells ? set_cells(c, columns, cells, count)
                                : cmd_fail((lk_fail(&err, LK_ENOMEM, "out of memory for %zu cells", count), &err));
    for (size_t i = 0; i < count && columns; i++) table_column_release(&columns[i]);
    lk_free(columns);
    lk_free(cells);
    return code;
}
const struct cmd cmd_table_set = {
    "table set",
    "TABLE ROW FAMILY:QUALIFIER=VALUE[@TIMESTAMP]...",
    3,
    -1,
    "Set cells of one row, all at once or none.",
    (const struct cmd_option[]){KV_FORM, CMD_END},
    "TIMESTAMP: microseconds since 1970, a multiple of 1,000; the store's clock gives it where it is left out. \\\\, \\t, "
    "\\n, \\r and \\xNN stand for bytes: \\x3d for = in a qualifier, \\x40 for an @ before digits at a value's end.",
    set,
};

/* --- delete ---------------------------------------------------------------------------------------------- */

static struct {
    uint64_t from_us, to_us;
    bool all;
} deleting;

#define ROWS 1000
struct keys {
    struct lk_buf bytes;
    size_t sizes[ROWS], count;
};
static int take_key(void *arg, struct lk_bytes row, bool told) {
    struct keys *k = arg;
    if (!told) return 0;
    if (lk_buf_append(&k->bytes, row.data, row.size)) return LK_ENOMEM;
    k->sizes[k->count++] = row.size;
    return k->count == ROWS;
}
static int no_cell(void *arg, const struct lk_cell *cell) {
    (void)arg;
    (void)cell;
    return 0;
}
/* The next rows of the range. */
static int next_keys(struct lk_table *t, struct lk_store *s, const struct lk_table_read *read, struct keys *k,
                     struct lk_err *err) {
    struct lk_kv_txn *txn;
    struct lk_table_sink sink = {no_cell, take_key, k};
    k->count = k->bytes.size = 0;
    int code = lk_kv_begin(s->kv, false, &txn, err);
    if (code) return code;
    code = lk_table_read(t, txn, read, &sink, NULL, err);
    lk_kv_abort(txn);
    return code > 0 ? 0 : code;
}

static int delete_keys(struct lk_table *t, const struct keys *k, struct lk_err *err) {
    static const struct lk_mutation whole = {.kind = LK_DELETE_FROM_ROW};
    static struct lk_table_entry entries[ROWS];
    size_t at = 0;
    for (size_t i = 0; i < k->count; at += k->sizes[i++])
        entries[i] = (struct lk_table_entry){lk_bytes(k->bytes.data + at, k->sizes[i]), &whole, 1, 0, {0}};
    int code = lk_table_apply_many(t, entries, k->count, LK_DURABLE, err);
    for (size_t i = 0; i < k->count && !code; i++)
        if (entries[i].code) code = lk_fail(err, entries[i].code, "%s", entries[i].err.message);
    return code;
}

static int delete_rows(struct cmd_context *c, struct lk_table *t, struct table_query *q, uint64_t *rows) {
    struct lk_err err = {0};
    struct keys *k = lk_calloc(1, sizeof *k);
    struct lk_progress progress;
    int code = k ? 0 : lk_fail(&err, LK_ENOMEM, "out of memory");
    table_progress_begin(&progress);
    cmd_catch_signals();
    while (!code && !cmd_interrupted()) {
        code = next_keys(t, c->store, &q->read, k, &err);
        if (code || !k->count) break;
        code = delete_keys(t, k, &err);
        if (!code) *rows += k->count;
        lk_progress_show(&progress, false, "%" PRIu64 " rows deleted", *rows);
    }
    if (progress.line_open) lk_progress_end(&progress);
    if (k) lk_buf_release(&k->bytes);
    lk_free(k);
    if (code) return cmd_fail(&err);
    if (!cmd_interrupted()) return CMD_OK;
    fprintf(stderr, "lockstep: stopped after %" PRIu64 " rows; the same command deletes the rest\n", *rows);
    return CMD_FAILED;
}

static int delete_columns(struct cmd_context *c, struct lk_table *t) {
    struct lk_err err = {0};
    struct table_column *columns = lk_calloc((size_t)c->argument_count, sizeof *columns);
    struct lk_mutation *list = lk_calloc((size_t)c->argument_count, sizeof *list);
    struct lk_buf row = LK_BUF_INIT;
    size_t count = (size_t)c->argument_count - 2;
    int code =
        columns && list ? kv_take(c, c->arguments[1], &row) : cmd_fail((lk_fail(&err, LK_ENOMEM, "out of memory"), &err));
    for (size_t i = 0; i < count && !code; i++) {
        code = table_column_take(c, c->arguments[i + 2], false, &columns[i]);
        list[i] = (struct lk_mutation){.kind = columns[i].has_qualifier ? LK_DELETE_FROM_COLUMN : LK_DELETE_FROM_FAMILY,
                                       .family = columns[i].family,
                                       .qualifier = table_bytes(&columns[i].qualifier),
                                       .from_us = (int64_t)deleting.from_us,
                                       .to_us = (int64_t)deleting.to_us};
        if (!code && !columns[i].has_qualifier && (deleting.from_us || deleting.to_us))
            code = cmd_usage_error(c, "--from and --to are for FAMILY:QUALIFIER, not for all of %s", columns[i].family);
    }
    if (!code && !count) list[count++].kind = LK_DELETE_FROM_ROW;
    if (!code && lk_table_apply(t, table_bytes(&row), list, count, LK_DURABLE, &err)) code = cmd_fail(&err);
    for (int i = 0; i < c->argument_count && columns; i++) table_column_release(&columns[i]);
    lk_free(columns);
    lk_free(list);
    lk_buf_release(&row);
    return code;
}

static int delete (struct cmd_context *c) {
    struct lk_table *t = NULL;
    struct table_query q = {0};
    uint64_t rows = 0;
    bool many = table_wanted.prefix || deleting.all;
    if (many && (c->argument_count > 1 || (table_wanted.prefix && deleting.all)))
        return cmd_usage_error(c, "ROW, --prefix or --all: one of them");
    if (!many && c->argument_count < 2) return cmd_usage_error(c, "ROW is missing, or --prefix, or --all");
    if ((deleting.from_us || deleting.to_us) && c->argument_count < 3)
        return cmd_usage_error(c, "--from and --to are for a column: give ROW FAMILY:QUALIFIER");
    int code = many ? table_query_make(c, &q, false) : CMD_OK;
    if (!code && table_wanted.prefix && !q.from.size)
        code = cmd_usage_error(c, "--prefix of nothing is every row; give --all for that");
    if (!code) code = table_open(c, c->arguments[0], LK_WRITE, &t);
    if (!code) code = many ? delete_rows(c, t, &q, &rows) : delete_columns(c, t);
    lk_table_close(t);
    table_query_release(&q);
    if (code || !many) return code;
    if (c->json) return cmd_print_json(json_pack("{s:I}", "deleted", (json_int_t)rows));
    printf("deleted %" PRIu64 " %s\n", rows, rows == 1 ? "row" : "rows");
    return CMD_OK;
}
const struct cmd cmd_table_delete = {
    "table delete",
    "TABLE [ROW] [FAMILY[:QUALIFIER]]...",
    1,
    -1,
    "Delete a row, families or columns of it, or all rows of a range.",
    (const struct cmd_option[]){
        CMD_U64("--from", "US", &deleting.from_us, 0, INT64_MAX, NULL, "of a column only cells of this time and later"),
        CMD_U64("--to", "US", &deleting.to_us, 1, INT64_MAX, NULL, "of a column only cells before this time"),
        CMD_STRING("--prefix", "ROW", &table_wanted.prefix, NULL, "all rows whose keys begin so"),
        CMD_FLAG("--all", &deleting.all, "all rows"), KV_FORM, CMD_END},
    "What is named of one row goes at once or not at all; rows of --prefix and --all go 1,000 at a time.",
    delete,
};
