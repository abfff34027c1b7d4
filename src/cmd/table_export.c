/* lockstep table export: to standard output in one read; to a file in pieces of a pinned state, with a note in the store of
 * how long the file is and which row stands last in it, so that what is killed goes on there. */
#include "table.h"

#include "lockstep/base/base64.h"
#include "lockstep/base/file.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define PIECE_BYTES ((uint64_t)64 << 20)
#define PIECE_NS    UINT64_C(5000000000)
#define LINE_BYTES  ((size_t)8 << 20) /* a row that is wider takes several lines */
#define COLUMNS_MAX 100000
#define LEASE_MS    (24 * 3600 * 1000)

static struct {
    int format;
    struct lk_bytes separator;
} wanted;
enum { AUTO, CSV, JSONL };

struct column {
    char *family;
    struct lk_buf qualifier;
    size_t at, size; /* of the row's value, in `values` */
    bool there;
};
struct export {
    struct cmd_context *c;
    struct lk_table *table;
    struct table_query query;
    char separator;
    bool csv;
    struct column *columns; /* of CSV, in the order of a row's cells */
    size_t column_count, column_room;
    struct lk_buf values, line, row; /* row: the last one that was looked at */
    FILE *out;
    char *part; /* the file that is written; NULL: standard output */
    char note[80];
    char pin[48]; /* our own; "": the user's */
    uint64_t bytes, rows, cells, piece_end, piece_ns;
    bool open;
    struct lk_progress progress;
    struct lk_err *err;
};

static int no_memory(struct export *x) {
    return lk_fail(x->err, LK_ENOMEM, "out of memory exporting a table");
}
static int write_out(struct export *x) {
    if (fwrite(x->line.data ? x->line.data : "", 1, x->line.size, x->out) != x->line.size)
        return lk_fail_errno(x->err, "cannot write to %s", x->part ? x->part : "standard output");
    x->bytes += x->line.size;
    x->line.size = 0;
    return 0;
}

/* --- lines of JSON --------------------------------------------------------------------------------------- */

static int json_cell(struct export *x, const struct lk_cell *cell) {
    bool first = !x->open;
    int code = first ? lk_table_json_begin(&x->line, cell->row) : 0;
    if (!code) code = lk_table_json_cell(&x->line, cell, first);
    x->open = true;
    if (!code && x->line.size > LINE_BYTES) {
        code = lk_table_json_end(&x->line);
        x->open = false;
        if (!code) return write_out(x);
    }
    return code ? no_memory(x) : 0;
}

/* --- CSV ------------------------------------------------------------------------------------------------- */

static int compare(const struct column *k, const struct lk_cell *cell) {
    int c = strcmp(k->family, cell->family);
    if (c) return c;
    size_t n = k->qualifier.size < cell->qualifier.size ? k->qualifier.size : cell->qualifier.size;
    c = n ? memcmp(k->qualifier.data, cell->qualifier.data, n) : 0;
    return c ? c : k->qualifier.size < cell->qualifier.size ? -1 : k->qualifier.size > cell->qualifier.size;
}
static size_t place_of(const struct export *x, const struct lk_cell *cell, bool *there) {
    size_t low = 0, high = x->column_count;
    for (*there = false; low < high;) {
        size_t mid = (low + high) / 2;
        int c = compare(&x->columns[mid], cell);
        if (c == 0) return *there = true, mid;
        if (c < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}
static int add_column(void *arg, const struct lk_cell *cell) {
    struct export *x = arg;
    bool there;
    size_t i = place_of(x, cell, &there);
    if (there) return 0;
    if (x->column_count == COLUMNS_MAX)
        return lk_fail(x->err, LK_EINVAL, "the rows have more than %d columns; choose some with --columns, or export jsonl",
                       COLUMNS_MAX);
    if (x->column_count == x->column_room) {
        size_t room = x->column_room ? 2 * x->column_room : 64;
        struct column *more = lk_realloc(x->columns, room * sizeof *more);
        if (!more) return no_memory(x);
        x->columns = more;
        x->column_room = room;
    }
    struct column k = {.family = lk_strdup(cell->family)};
    if (!k.family || lk_buf_append(&k.qualifier, cell->qualifier.data, cell->qualifier.size)) {
        lk_free(k.family);
        return no_memory(x);
    }
    memmove(x->columns + i + 1, x->columns + i, (x->column_count - i) * sizeof k);
    x->columns[i] = k;
    x->column_count++;
    return cmd_interrupted() ? 1 : 0;
}

static int csv_header(struct export *x) {
    struct lk_buf name = LK_BUF_INIT;
    int code = lk_csv_write(&x->line, lk_bytes("key", 3), x->separator);
    for (size_t i = 0; i < x->column_count && !code; i++) {
        name.size = 0;
        code = lk_buf_printf(&name, "%s:", x->columns[i].family);
        if (!code) code = lk_buf_append(&name, table_bytes(&x->columns[i].qualifier).data, x->columns[i].qualifier.size);
        if (!code) code = lk_buf_append(&x->line, &x->separator, 1);
        if (!code) code = lk_csv_write(&x->line, table_bytes(&name), x->separator);
    }
    if (!code) code = lk_buf_append(&x->line, "\n", 1);
    lk_buf_release(&name);
    return code ? no_memory(x) : write_out(x);
}
/* The newest cell of each column, which comes first. */
static int csv_cell(struct export *x, const struct lk_cell *cell) {
    bool known;
    size_t i = place_of(x, cell, &known);
    if (!known || x->columns[i].there) return 0;
    x->columns[i].there = true;
    x->columns[i].at = x->values.size;
    x->columns[i].size = cell->value.size;
    x->cells++;
    return lk_buf_append(&x->values, cell->value.data, cell->value.size) ? no_memory(x) : 0;
}
static int csv_row(struct export *x, struct lk_bytes row) {
    int code = lk_csv_write(&x->line, row, x->separator);
    for (size_t i = 0; i < x->column_count && !code; i++) {
        struct column *k = &x->columns[i];
        code = lk_buf_append(&x->line, &x->separator, 1);
        if (!code && k->there)
            code = lk_csv_write(&x->line, lk_bytes((x->values.data ? x->values.data : "") + k->at, k->size), x->separator);
        k->there = false;
    }
    x->values.size = 0;
    return code ? code : lk_buf_append(&x->line, "\n", 1);
}

/* --- rows ------------------------------------------------------------------------------------------------ */

static int take_cell(void *arg, const struct lk_cell *cell) {
    struct export *x = arg;
    x->cells += !x->csv;
    return x->csv ? csv_cell(x, cell) : json_cell(x, cell);
}
static int end_row(void *arg, struct lk_bytes row, bool told) {
    struct export *x = arg;
    int code = 0;
    if (told && x->csv) code = csv_row(x, row);
    if (told && x->open) code = lk_table_json_end(&x->line);
    x->open = false;
    x->rows += told;
    x->row.size = 0;
    if (!code) code = lk_buf_append(&x->row, row.data, row.size);
    if (code) return no_memory(x);
    code = write_out(x);
    lk_progress_show(&x->progress, false, "%" PRIu64 " rows, %.1f MB", x->rows, (double)x->bytes / 1e6);
    if (code) return code;
    return cmd_interrupted() || (x->part && (x->bytes >= x->piece_end || lk_clock_ns() > x->piece_ns));
}
/* Rows behind the last one. 0: the end; 1: a piece. */
static int read_piece(struct export *x, const struct lk_table_sink *sink, struct lk_err *err) {
    struct lk_table_read read = x->query.read;
    struct lk_table_range range = x->query.range;
    struct lk_buf last = LK_BUF_INIT;
    struct lk_kv_txn *txn;
    x->piece_end = x->bytes + PIECE_BYTES;
    x->piece_ns = lk_clock_ns() + PIECE_NS;
    int code = lk_kv_begin(x->c->store->kv, false, &txn, err);
    if (!code && x->row.size && sink->row_end) {
        if (lk_buf_append(&last, x->row.data, x->row.size)) code = no_memory(x);
        range.from = table_bytes(&last);
        range.from_open = true;
        read.ranges = &range;
        read.range_count = 1;
        if (code) lk_kv_abort(txn);
    }
    if (!code) {
        code = lk_table_read(x->table, txn, &read, sink, NULL, err);
        lk_kv_abort(txn);
    }
    lk_buf_release(&last);
    return code;
}

/* --- the note -------------------------------------------------------------------------------------------- */

/* All that decides what is written: what goes on with a file must be the same. */
static json_t *options_json(const struct export *x) {
    const struct table_wanted *w = &table_wanted;
    struct lk_buf text = LK_BUF_INIT;
    struct lk_root digest;
    char hex[LK_ROOT_HEX];
    const char *texts[] = {w->start, w->end, w->prefix, w->regex, w->filter, w->pin};
    for (size_t i = 0; i < 6; i++) lk_buf_printf(&text, "%zu %s\n", i, texts[i] ? texts[i] : "");
    for (size_t i = 0; i < w->families.count; i++) lk_buf_printf(&text, "f %s\n", w->families.items[i]);
    for (size_t i = 0; i < w->columns.count; i++) lk_buf_printf(&text, "c %s\n", w->columns.items[i]);
    lk_buf_printf(&text, "%u %d %d %d %d\n", w->latest, x->csv, x->separator, kv_form.hex, kv_form.base64);
    lk_sha256(text.data ? text.data : "", text.size, &digest);
    lk_buf_release(&text);
    return json_string(lk_root_hex(&digest, hex));
}

static int put_note(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    struct export *x = arg;
    struct lk_buf text = LK_BUF_INIT, row = LK_BUF_INIT;
    int code = lk_base64_write(&row, table_bytes(&x->row));
    json_t *j =
        code ? NULL
             : json_pack("{s:I, s:I, s:I, s:s, s:s, s:o, s:I}", "bytes", (json_int_t)x->bytes, "rows", (json_int_t)x->rows,
                         "cells", (json_int_t)x->cells, "pin", x->pin, "row_base64", row.data ? row.data : "", "options",
                         options_json(x), "pinned_ms", (json_int_t)x->query.read.pinned_ms);
    code = j ? lk_json_canonical(j, &text, err) : lk_fail(err, LK_ENOMEM, "out of memory for a note");
    if (!code) code = lk_table_note_put(x->table, txn, x->note, table_bytes(&text), err);
    json_decref(j);
    lk_buf_release(&text);
    lk_buf_release(&row);
    return code;
}
static int drop_note(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    struct export *x = arg;
    return lk_table_note_put(x->table, txn, x->note, lk_bytes(NULL, 0), err);
}

/* Whether the note fits: then the file is cut to what it says, and everything goes on there. */
static bool take_note(struct export *x, const json_t *j) {
    const char *pin = json_string_value(json_object_get(j, "pin")),
               *row = json_string_value(json_object_get(j, "row_base64"));
    json_int_t bytes = json_integer_value(json_object_get(j, "bytes"));
    json_int_t at = json_integer_value(json_object_get(j, "pinned_ms"));
    json_t *options = options_json(x);
    bool same = pin && row && json_equal(options, json_object_get(j, "options"));
    int64_t there = 0;
    json_decref(options);
    const char *name = same && *pin ? pin : table_wanted.pin;
    if (!same || !name || table_pin_time(x->c->store, name, &there, NULL) || there != at) return false;
    off_t size = lseek(fileno(x->out), 0, SEEK_END);
    if (size < bytes || ftruncate(fileno(x->out), (off_t)bytes) || fseeko(x->out, 0, SEEK_END)) return false;
    if (!lk_base64_read(row, strlen(row), &x->row)) return false;
    x->query.read.pinned_ms = at;
    snprintf(x->pin, sizeof x->pin, "%s", pin);
    x->bytes = (uint64_t)bytes;
    x->rows = (uint64_t)json_integer_value(json_object_get(j, "rows"));
    x->cells = (uint64_t)json_integer_value(json_object_get(j, "cells"));
    return true;
}

static int begin_file(struct export *x, struct lk_err *err) {
    const char *table = lk_table_name(x->table);
    int64_t at = 0;
    x->bytes = x->rows = x->cells = x->row.size = 0;
    if (ftruncate(fileno(x->out), 0) || fseeko(x->out, 0, SEEK_SET))
        return lk_fail_errno(err, "cannot write to %s", x->part);
    *x->pin = 0;
    if (table_wanted.pin) return table_pin_time(x->c->store, table_wanted.pin, &x->query.read.pinned_ms, err);
    snprintf(x->pin, sizeof x->pin, "export/%.32s", x->note + strlen("export/"));
    int code = lk_table_pin_release(x->c->store, x->pin, err); /* of a killed one that left no note */
    if (!code || code == LK_ENOTFOUND) code = lk_table_pin(x->c->store, x->pin, &table, 1, LEASE_MS, &at, err);
    x->query.read.pinned_ms = at;
    return code;
}

static int resume_or_begin(struct export *x, struct lk_err *err) {
    struct lk_buf text = LK_BUF_INIT;
    struct lk_kv_txn *txn;
    bool resumed = false;
    int code = lk_kv_begin(x->c->store->kv, false, &txn, err);
    if (code) return code;
    code = lk_table_note_get(x->table, txn, x->note, &text, err);
    lk_kv_abort(txn);
    if (!code) {
        json_t *j = lk_json_parse(text.data, text.size, "the note", NULL);
        resumed = take_note(x, j);
        json_decref(j);
    }
    lk_buf_release(&text);
    if (code && code != LK_ENOTFOUND) return code;
    code = resumed ? 0 : begin_file(x, err);
    if (resumed && x->rows) fprintf(stderr, "going on behind %" PRIu64 " rows that are in %s\n", x->rows, x->part);
    return code;
}

/* --- to a file ------------------------------------------------------------------------------------------- */

static int save(struct export *x, struct lk_err *err) {
    if (fflush(x->out) || fdatasync(fileno(x->out))) return lk_fail_errno(err, "cannot write to %s", x->part);
    int code = lk_kv_update(x->c->store->kv, put_note, x, LK_DURABLE, NULL, err);
    if (!code && *x->pin) code = lk_table_pin_renew(x->c->store, x->pin, LEASE_MS, err);
    return code;
}
static int finish(struct export *x, const char *path, struct lk_err *err) {
    if (fflush(x->out) || fsync(fileno(x->out))) return lk_fail_errno(err, "cannot write to %s", x->part);
    if (rename(x->part, path)) return lk_fail_errno(err, "cannot rename %s", x->part);
    int code = lk_kv_update(x->c->store->kv, drop_note, x, LK_DURABLE, NULL, err);
    if (!code && *x->pin) code = lk_table_pin_release(x->c->store, x->pin, err);
    return code;
}

static int find_columns(struct export *x, struct lk_err *err) {
    struct lk_table_sink sink = {add_column, NULL, x};
    return x->csv ? read_piece(x, &sink, err) : 0;
}

static int to_file(struct export *x, const char *path, struct lk_err *err) {
    struct lk_table_sink sink = {take_cell, end_row, x};
    struct lk_root name;
    char hex[LK_ROOT_HEX], *whole;
    x->part = lk_asprintf("%s.part", path);
    int fd = x->part ? open(x->part, O_RDWR | O_CREAT | O_CLOEXEC, 0666) : -1;
    if (fd < 0) return x->part ? lk_fail_errno(err, "cannot write to %s", x->part) : no_memory(x);
    x->out = fdopen(fd, "r+");
    if (!x->out) return close(fd), no_memory(x);
    if (flock(fd, LOCK_EX | LOCK_NB)) return lk_fail(err, LK_EBUSY, "another export writes %s", x->part);
    if (!(whole = realpath(x->part, NULL))) return lk_fail_errno(err, "cannot find %s", x->part);
    lk_sha256(whole, strlen(whole), &name);
    free(whole);
    snprintf(x->note, sizeof x->note, "export/%s", lk_root_hex(&name, hex));
    int code = resume_or_begin(x, err);
    if (!code) code = find_columns(x, err);
    if (!code && x->csv && !x->bytes) code = csv_header(x);
    if (!code) code = save(x, err);
    while (!code && !cmd_interrupted()) {
        code = read_piece(x, &sink, err);
        if (code < 0) break;
        bool more = code > 0;
        code = more ? save(x, err) : 0;
        if (!code && !more) return finish(x, path, err);
    }
    return code < 0 ? code : 0;
}

static int to_output(struct export *x, struct lk_err *err) {
    struct lk_table_sink columns = {add_column, NULL, x}, sink = {take_cell, end_row, x};
    struct lk_kv_txn *txn;
    x->out = stdout;
    int code = table_begin(x->c, table_wanted.pin, &txn, &x->query.read.pinned_ms) ? LK_ENOTFOUND : 0;
    if (code) return code;
    if (x->csv) code = lk_table_read(x->table, txn, &x->query.read, &columns, NULL, err);
    if (!code && x->csv) code = csv_header(x);
    if (!code) code = lk_table_read(x->table, txn, &x->query.read, &sink, NULL, err);
    lk_kv_abort(txn);
    return code < 0 ? code : 0;
}

/* --- the command ----------------------------------------------------------------------------------------- */

static void release(struct export *x) {
    for (size_t i = 0; i < x->column_count; i++) {
        lk_free(x->columns[i].family);
        lk_buf_release(&x->columns[i].qualifier);
    }
    lk_free(x->columns);
    lk_buf_release(&x->values);
    lk_buf_release(&x->line);
    lk_buf_release(&x->row);
    if (x->part && x->out) fclose(x->out);
    lk_free(x->part);
    table_query_release(&x->query);
    lk_table_close(x->table);
}

static int run(struct export *x, const char *path) {
    struct cmd_context *c = x->c;
    struct lk_err err = {0};
    x->err = &err;
    if (x->csv) table_wanted.latest = 1;
    int code = table_query_make(c, &x->query, false);
    if (!code) code = table_open(c, c->arguments[0], path ? LK_WRITE : LK_READ, &x->table);
    if (code) return code;
    table_progress_begin(&x->progress);
    if (path) cmd_catch_signals();
    int failed = path ? to_file(x, path, &err) : to_output(x, &err);
    if (x->progress.line_open) lk_progress_end(&x->progress);
    if (failed && err.code) cmd_fail(&err);
    if (failed || (path && cmd_interrupted())) {
        if (path && x->rows) fprintf(stderr, "lockstep: the same command goes on with %s\n", x->part);
        return CMD_FAILED;
    }
    if (!path) return CMD_OK;
    if (c->json)
        return cmd_print_json(json_pack("{s:I, s:I, s:I}", "rows", (json_int_t)x->rows, "cells", (json_int_t)x->cells,
                                        "bytes", (json_int_t)x->bytes));
    printf("exported %" PRIu64 " rows, %" PRIu64 " cells to %s\n", x->rows, x->cells, path);
    return CMD_OK;
}

static bool named(const char *path, const char *ending) {
    size_t n = strlen(ending), size = strlen(path);
    return size > n && strcmp(path + size - n, ending) == 0;
}
static int export(struct cmd_context *c) {
    const char *path = c->argument_count > 1 && strcmp(c->arguments[1], "-") ? c->arguments[1] : NULL;
    bool tsv = path && named(path, ".tsv");
    struct export x = {.c = c, .separator = tsv ? '\t' : ','};
    int format = wanted.format ? wanted.format : tsv || (path && named(path, ".csv")) ? CSV : JSONL;
    x.csv = format == CSV;
    if (wanted.separator.size > 1) return cmd_usage_error(c, "--separator is one byte");
    if (wanted.separator.size) x.separator = *(const char *)wanted.separator.data;
    if (strchr("\"\r\n", x.separator)) return cmd_usage_error(c, "--separator cannot be a quote or a line end");
    int code = run(&x, path);
    release(&x);
    return code;
}
const struct cmd cmd_table_export = {
    "table export",
    "TABLE [FILE]",
    1,
    2,
    "Write a table's rows as lines of JSON or CSV, to a file or standard output.",
    (const struct cmd_option[]){
        CMD_CHOICE("--format", &wanted.format, "auto|csv|jsonl", "auto", "auto goes by the file's name, and is jsonl else"),
        CMD_CALL("--separator", "C", &wanted.separator, cmd_take_text, NULL,
                 "CSV: what stands between fields; a comma by default, a tab for .tsv"),
        TABLE_ROWS, TABLE_CELLS, TABLE_PIN, KV_FORM, CMD_END},
    "Lines of JSON hold every cell with its time, and `lockstep table import` makes the same table of them. CSV holds the "
    "newest cell of each column. One state of the table: that of --pin, or of the beginning. A file is written as "
    "FILE.part "
    "and renamed at the end; until then a pin of a day, which is renewed, holds the state, and the same command goes on "
    "with "
    "what was stopped or killed.",
    export,
};
