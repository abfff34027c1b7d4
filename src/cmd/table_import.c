/* lockstep table import: rows of a file, each batch in one transaction with a note of how far the file is read. So what is
 * killed goes on behind its last batch, and each row is imported once. */
#include "table.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define BATCH_ROWS   2000
#define BATCH_BYTES  ((size_t)4 << 20)
#define RECORD_BYTES ((size_t)512 << 20)

static struct {
    int format;
    const char *key, *family;
    struct lk_bytes separator;
    uint64_t timestamp_us;
    bool again;
} wanted;
enum { AUTO, CSV, JSONL };

/* Of a file whose text was read so far. */
struct place {
    uint64_t bytes, lines, rows, cells;
    struct lk_root digest; /* of each line and the digest before it */
    bool done;
};
struct column {
    char family[LK_TABLE_FAMILY_MAX + 1];
    struct lk_buf qualifier;
};
struct record {
    size_t at, size;
    uint64_t line;
};
struct import {
    struct cmd_context *c;
    struct lk_table *table;
    const char *shown;
    char note[80]; /* its name; "": none, as for standard input */
    char separator;
    int64_t timestamp_us;
    struct lk_lines *lines;
    struct lk_digest *hash;
    struct column *columns; /* of CSV */
    size_t column_count, key;
    struct place before, was, now; /* what the table's note said at first, and says */
    struct record records[BATCH_ROWS];
    size_t count;
    struct lk_buf text; /* of the batch */
    struct lk_csv csv;
    struct lk_table_row row;
    struct lk_mutation *cells;
    uint64_t batch_cells;
    struct lk_progress progress;
};

/* --- notes ----------------------------------------------------------------------------------------------- */

static int place_read(struct import *m, struct lk_kv_txn *txn, struct place *out, struct lk_err *err) {
    struct lk_buf text = LK_BUF_INIT;
    const char *digest;
    *out = (struct place){0};
    if (!*m->note) return 0;
    int code = lk_table_note_get(m->table, txn, m->note, &text, err);
    if (code) {
        lk_buf_release(&text);
        return code == LK_ENOTFOUND ? 0 : code;
    }
    json_t *j = lk_json_parse(text.data, text.size, "the table's note of an import", err);
    code = j ? lk_json_get_u64(j, "bytes", "the note", &out->bytes, err) : LK_ECORRUPT;
    if (!code) code = lk_json_get_u64(j, "lines", "the note", &out->lines, err);
    if (!code) code = lk_json_get_u64(j, "rows", "the note", &out->rows, err);
    if (!code) code = lk_json_get_u64(j, "cells", "the note", &out->cells, err);
    if (!code) code = lk_json_get_string(j, "digest", "the note", &digest, err);
    if (!code && !lk_root_parse(digest, &out->digest))
        code = lk_fail(err, LK_ECORRUPT, "a table's note of an import is damaged");
    out->done = json_is_true(json_object_get(j, "done"));
    json_decref(j);
    lk_buf_release(&text);
    return code;
}

static int place_write(struct import *m, struct lk_kv_txn *txn, struct lk_err *err) {
    struct lk_buf text = LK_BUF_INIT;
    char hex[LK_ROOT_HEX];
    const struct place *p = &m->now;
    if (!*m->note) return 0;
    json_t *j = json_pack("{s:s, s:I, s:I, s:I, s:I, s:s, s:b}", "file", m->shown, "bytes", (json_int_t)p->bytes, "lines",
                          (json_int_t)p->lines, "rows", (json_int_t)p->rows, "cells", (json_int_t)p->cells, "digest",
                          lk_root_hex(&p->digest, hex), "done", p->done);
    if (!j) /* a file's name that is no UTF-8 */
        j = json_pack("{s:I, s:I, s:I, s:I, s:s, s:b}", "bytes", (json_int_t)p->bytes, "lines", (json_int_t)p->lines,
                      "rows", (json_int_t)p->rows, "cells", (json_int_t)p->cells, "digest", hex, "done", p->done);
    int code = j ? lk_json_canonical(j, &text, err) : lk_fail(err, LK_ENOMEM, "out of memory for a note");
    if (!code) code = lk_table_note_put(m->table, txn, m->note, table_bytes(&text), err);
    json_decref(j);
    lk_buf_release(&text);
    return code;
}

/* --- a batch --------------------------------------------------------------------------------------------- */

static int apply(struct import *m, struct lk_kv_txn *txn, struct lk_bytes key, const struct lk_mutation *cells,
                 size_t count, struct lk_err *err) {
    int code = 0;
    for (size_t i = 0; i < count && !code; i += LK_TABLE_MUTATIONS_MAX) {
        size_t n = count - i < LK_TABLE_MUTATIONS_MAX ? count - i : LK_TABLE_MUTATIONS_MAX;
        code = lk_table_mutate(m->table, txn, key, cells + i, n, err);
    }
    m->batch_cells += count;
    return code;
}

static int apply_csv(struct import *m, struct lk_kv_txn *txn, struct lk_bytes text, struct lk_err *err) {
    size_t n = 0;
    int code = lk_csv_read(&m->csv, text, m->separator, err);
    if (code) return code;
    if (m->csv.count != m->column_count)
        return lk_fail(err, LK_EINVAL, "%zu fields, where the header has %zu", m->csv.count, m->column_count);
    for (size_t i = 0; i < m->column_count; i++) {
        const struct lk_csv_field *f = &m->csv.fields[i];
        if (i == m->key || (!f->text.size && !f->quoted)) continue;
        m->cells[n++] = (struct lk_mutation){.kind = LK_SET_CELL,
                                             .family = m->columns[i].family,
                                             .qualifier = table_bytes(&m->columns[i].qualifier),
                                             .value = f->text,
                                             .timestamp_us = m->timestamp_us};
    }
    return apply(m, txn, m->csv.fields[m->key].text, m->cells, n, err);
}

static int write_batch(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    struct import *m = arg;
    struct place there;
    int code = place_read(m, txn, &there, err);
    if (!code && *m->note && (there.bytes != m->was.bytes || there.done != m->was.done))
        code = lk_fail(err, LK_EBUSY, "another import of %s into %s is at work", m->shown, lk_table_name(m->table));
    m->batch_cells = 0;
    for (size_t i = 0; i < m->count && !code; i++) {
        const struct record *r = &m->records[i];
        struct lk_bytes text = lk_bytes(m->text.data + r->at, r->size);
        if (m->columns) {
            code = apply_csv(m, txn, text, err);
        } else {
            code = lk_table_json_read(&m->row, text.data, text.size, m->timestamp_us, err);
            if (!code) code = apply(m, txn, m->row.key, m->row.cells, m->row.count, err);
        }
        if (code) lk_fail_prefix(err, code, "%s:%" PRIu64, m->shown, r->line);
    }
    uint64_t rows = m->now.rows, cells = m->now.cells;
    m->now.rows += m->count;
    m->now.cells += m->batch_cells;
    if (!code) code = place_write(m, txn, err);
    m->now.rows = rows;
    m->now.cells = cells;
    return code;
}

static int write_through(struct import *m, bool last, struct lk_err *err) {
    m->now.done = last;
    int code = lk_kv_update(m->c->store->kv, write_batch, m, last ? LK_DURABLE : LK_LAZY, NULL, err);
    if (code) return code;
    m->now.rows += m->count;
    m->now.cells += m->batch_cells;
    m->was = m->now;
    return 0;
}

/* The batch's rows into the table, unless an earlier import has done that. */
static int end_batch(struct import *m, bool last, struct lk_err *err) {
    bool passed = m->now.bytes <= m->was.bytes;
    if (last && m->now.bytes < m->was.bytes)
        return lk_fail(err, LK_EINVAL,
                       "%s ends at byte %" PRIu64
                       ", before the place to which it was imported into %s; --again imports all "
                       "of it",
                       m->shown, m->now.bytes, lk_table_name(m->table));
    if (passed) m->count = 0;
    int code = !passed || (last && !m->was.done) ? write_through(m, last, err) : 0;
    m->count = m->text.size = 0;
    return code;
}

/* --- records of the file --------------------------------------------------------------------------------- */

/* The digest goes line by line, so that it does not depend on where batches, or earlier imports, ended. */
static int pass_line(struct import *m, struct lk_bytes line, struct lk_err *err) {
    struct place *now = &m->now;
    now->bytes += line.size;
    now->lines++;
    lk_digest_update(m->hash, now->digest.bytes, sizeof now->digest.bytes);
    lk_digest_update(m->hash, line.data, line.size);
    lk_digest_final(m->hash, &now->digest);
    if (now->bytes != m->was.bytes) return 0;
    now->rows = m->was.rows;
    now->cells = m->was.cells;
    if (lk_root_equal(&now->digest, &m->was.digest)) return 0;
    return lk_fail(err, LK_EINVAL,
                   "%s is not the file any more whose first %" PRIu64
                   " lines were imported into %s; --again imports all of "
                   "it",
                   m->shown, m->was.lines, lk_table_name(m->table));
}

/* Appends the next record to the batch's text. LK_ENOTFOUND: the end. */
static int next_record(struct import *m, bool csv, struct record *r, struct lk_err *err) {
    struct lk_bytes line;
    size_t quotes = 0;
    int code;
    *r = (struct record){m->text.size, 0, m->now.lines + 1};
    do {
        code = lk_lines_next(m->lines, &line, err);
        if (code == LK_ENOTFOUND && r->size) return 0; /* the quote that is missing is lk_csv_read's to tell */
        if (code) return code;
        if (m->now.bytes < m->was.bytes && m->now.bytes + line.size > m->was.bytes)
            return lk_fail(err, LK_EINVAL,
                           "%s:%" PRIu64 " is longer than it was when it was imported into %s; --again imports all of the "
                           "file",
                           m->shown, m->now.lines + 1, lk_table_name(m->table));
        if (r->size + line.size > RECORD_BYTES)
            return lk_fail(err, LK_EINVAL, "%s:%" PRIu64 ": a record of more than %zu MiB%s", m->shown, r->line,
                           RECORD_BYTES >> 20, csv ? "; its closing quote may be missing" : "");
        if (lk_buf_append(&m->text, line.data, line.size))
            return lk_fail(err, LK_ENOMEM, "%s:%" PRIu64 ": out of memory", m->shown, r->line);
        r->size += line.size;
        if ((code = pass_line(m, line, err))) return code;
        for (const char *p = line.data, *end = p + line.size; csv && (p = memchr(p, '"', (size_t)(end - p))); p++) quotes++;
    } while (csv && !lk_csv_is_whole(quotes));
    return 0;
}

static bool is_blank(const struct import *m, const struct record *r) {
    const char *p = m->text.data + r->at;
    for (size_t i = 0; i < r->size; i++)
        if (!strchr(m->columns ? "\r\n" : " \t\r\n", p[i]) || !p[i]) return false;
    return true;
}

static void show(struct import *m) {
    uint64_t done, size;
    lk_lines_progress(m->lines, &done, &size);
    const char *doing = m->now.bytes < m->was.bytes ? "passing over what was imported" : "imported";
    if (size)
        lk_progress_show(&m->progress, false, "%s: %s, %" PRIu64 " rows, %.0f%% of the file", m->shown, doing, m->now.rows,
                         100 * (double)(done < size ? done : size) / (double)size);
    else
        lk_progress_show(&m->progress, false, "%s: %s, %" PRIu64 " rows", m->shown, doing, m->now.rows);
}

static int read_all(struct import *m, struct lk_err *err) {
    int code = 0;
    while (!code && !cmd_interrupted()) {
        struct record *r = &m->records[m->count];
        code = next_record(m, m->columns != NULL, r, err);
        if (code == LK_ENOTFOUND) return end_batch(m, true, err);
        m->count += !code && !is_blank(m, r);
        bool full = m->count == BATCH_ROWS || m->text.size >= BATCH_BYTES || m->now.bytes == m->was.bytes;
        if (!code && full) code = end_batch(m, false, err);
        show(m);
    }
    return code;
}

/* --- the header of CSV ----------------------------------------------------------------------------------- */

static int take_column(struct import *m, size_t i, struct lk_bytes name, struct lk_err *err) {
    const char *text = name.data, *colon = name.size ? memchr(text, ':', name.size) : NULL;
    size_t family = colon ? (size_t)(colon - text) : 0;
    struct column *column = &m->columns[i];
    char shown[80];
    if (!colon && !wanted.family)
        return lk_fail(err, LK_EINVAL,
                       "the header's column \"%s\" has no family: name it FAMILY:QUALIFIER, or give --family for those "
                       "without",
                       kv_shown(name, shown, sizeof shown));
    if (family > LK_TABLE_FAMILY_MAX || (!colon && strlen(wanted.family) > LK_TABLE_FAMILY_MAX))
        return lk_fail(err, LK_EINVAL, "the header's column \"%s\": a family has %d characters at most",
                       kv_shown(name, shown, sizeof shown), LK_TABLE_FAMILY_MAX);
    if (colon)
        memcpy(column->family, text, family);
    else
        snprintf(column->family, sizeof column->family, "%s", wanted.family);
    size_t skip = colon ? family + 1 : 0;
    return lk_buf_append(&column->qualifier, text + skip, name.size - skip) ? lk_fail(err, LK_ENOMEM, "out of memory") : 0;
}

static int read_header(struct import *m, struct lk_err *err) {
    struct record r;
    bool found = !wanted.key;
    int code = next_record(m, true, &r, err);
    if (code == LK_ENOTFOUND) return lk_fail(err, LK_EINVAL, "%s is empty: CSV begins with a header", m->shown);
    if (!code) code = lk_csv_read(&m->csv, lk_bytes(m->text.data, m->text.size), m->separator, err);
    if (code) return lk_fail_prefix(err, code, "%s:1", m->shown);
    m->column_count = m->csv.count;
    m->columns = lk_calloc(m->column_count, sizeof *m->columns);
    m->cells = lk_calloc(m->column_count, sizeof *m->cells);
    if (!m->columns || !m->cells) return lk_fail(err, LK_ENOMEM, "out of memory for %zu columns", m->column_count);
    for (size_t i = 0; i < m->column_count && !found; i++) {
        struct lk_bytes name = m->csv.fields[i].text;
        found = name.size == strlen(wanted.key) && memcmp(name.data, wanted.key, name.size) == 0;
        if (found) m->key = i;
    }
    if (!found) return lk_fail(err, LK_EINVAL, "%s:1: the header has no column \"%s\"", m->shown, wanted.key);
    for (size_t i = 0; i < m->column_count && !code; i++)
        if (i != m->key) code = take_column(m, i, m->csv.fields[i].text, err);
    return code ? lk_fail_prefix(err, code, "%s:1", m->shown) : 0; /* its text is the first batch's begin */
}

/* --- the whole ------------------------------------------------------------------------------------------- */

static bool ends_with(const char *text, size_t size, const char *ending) {
    size_t n = strlen(ending);
    return size > n && strncmp(text + size - n, ending, n) == 0;
}
/* By the name, also before .gz and its like. */
static int format_of(const char *path, char *separator) {
    static const char *const packed[] = {".gz", ".zst", ".xz", ".bz2"};
    size_t size = strlen(path);
    for (size_t i = 0; i < 4; i++)
        if (ends_with(path, size, packed[i])) {
            size -= strlen(packed[i]);
            break;
        }
    bool tsv = ends_with(path, size, ".tsv");
    if (tsv) *separator = '\t';
    if (tsv || ends_with(path, size, ".csv")) return CSV;
    return ends_with(path, size, ".jsonl") || ends_with(path, size, ".ndjson") || ends_with(path, size, ".json") ? JSONL
                                                                                                                 : AUTO;
}

static int begin(struct import *m, const char *path, struct lk_err *err) {
    struct lk_kv_txn *txn;
    char *whole = strcmp(path, "-") == 0 ? NULL : realpath(path, NULL), hex[LK_ROOT_HEX];
    struct lk_root name;
    if (whole) {
        lk_sha256(whole, strlen(whole), &name);
        snprintf(m->note, sizeof m->note, "import/%s", lk_root_hex(&name, hex));
    }
    free(whole);
    int code = lk_kv_begin(m->c->store->kv, false, &txn, err);
    if (!code) {
        code = place_read(m, txn, &m->was, err);
        lk_kv_abort(txn);
    }
    return code;
}

static int forget(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    struct import *m = arg;
    return *m->note ? lk_table_note_put(m->table, txn, m->note, lk_bytes(NULL, 0), err) : 0;
}

static int run(struct import *m, const char *path, bool csv, struct lk_err *err) {
    struct lk_source_options how = {.format = csv ? LK_FORMAT_TEXT : LK_FORMAT_JSONL};
    int code = begin(m, path, err);
    if (!code && wanted.again) {
        code = lk_kv_update(m->c->store->kv, forget, m, LK_DURABLE, NULL, err);
        m->was = (struct place){0};
    }
    m->before = m->was;
    m->hash = lk_digest_create();
    if (!code && !m->hash) code = lk_fail(err, LK_ENOMEM, "out of memory");
    if (!code) code = lk_lines_open(path, m->c->store->dir, &how, &m->lines, err);
    if (!code && csv) code = read_header(m, err);
    return code ? code : read_all(m, err);
}

static void release(struct import *m) {
    lk_lines_close(m->lines);
    lk_digest_free(m->hash);
    for (size_t i = 0; i < m->column_count && m->columns; i++) lk_buf_release(&m->columns[i].qualifier);
    lk_free(m->columns);
    lk_free(m->cells);
    lk_buf_release(&m->text);
    lk_csv_release(&m->csv);
    lk_table_row_release(&m->row);
    lk_free(m);
}

static int report(struct import *m, const struct place *before, int code, const struct lk_err *err) {
    const char *table = lk_table_name(m->table);
    if (code || cmd_interrupted()) {
        if (code) cmd_fail(err);
        fprintf(stderr, "%s%" PRIu64 " rows of it are in %s; the same command goes on behind them\n",
                code ? "" : "lockstep: stopped; ", m->was.rows, table);
        return CMD_FAILED;
    }
    uint64_t rows = m->now.rows - before->rows, cells = m->now.cells - before->cells;
    if (m->c->json)
        return cmd_print_json(json_pack("{s:I, s:I, s:I}", "rows", (json_int_t)rows, "cells", (json_int_t)cells,
                                        "imported_before", (json_int_t)before->rows));
    printf("imported %" PRIu64 " rows, %" PRIu64 " cells into %s", rows, cells, table);
    if (before->rows) printf("; %" PRIu64 " rows were there from before (--again imports all)", before->rows);
    putchar('\n');
    return CMD_OK;
}

static int import(struct cmd_context *c) {
    struct lk_err err = {0};
    const char *path = c->argument_count > 1 ? c->arguments[1] : "-";
    char separator = ',';
    int format = format_of(path, &separator);
    if (wanted.format) format = wanted.format;
    if (!format) return cmd_usage_error(c, "%s: give --format csv or jsonl, the name does not tell", path);
    if (wanted.separator.size > 1) return cmd_usage_error(c, "--separator is one byte");
    if (wanted.separator.size) separator = *(const char *)wanted.separator.data;
    if (strchr("\"\r\n", separator)) return cmd_usage_error(c, "--separator cannot be a quote or a line end");
    struct import *m = lk_calloc(1, sizeof *m);
    if (!m) return cmd_fail((lk_fail(&err, LK_ENOMEM, "out of memory"), &err));
    m->c = c;
    m->shown = strcmp(path, "-") ? path : "standard input";
    m->separator = separator;
    m->timestamp_us = cmd_given(c, &wanted.timestamp_us) ? (int64_t)wanted.timestamp_us : LK_TABLE_SERVER_TIME;
    table_progress_begin(&m->progress);
    int code = table_open(c, c->arguments[0], LK_WRITE, &m->table);
    if (!code) {
        cmd_catch_signals();
        code = run(m, path, format == CSV, &err);
        if (m->progress.line_open) lk_progress_end(&m->progress);
        code = report(m, &m->before, code, &err);
    }
    lk_table_close(m->table);
    release(m);
    return code;
}
const struct cmd cmd_table_import = {
    "table import",
    "TABLE [FILE]",
    1,
    2,
    "Set the cells of a file of CSV or lines of JSON (standard input without FILE).",
    (const struct cmd_option[]){
        CMD_CHOICE("--format", &wanted.format, "auto|csv|jsonl", "auto", "what the file is; auto goes by its name"),
        CMD_STRING("--key", "COLUMN", &wanted.key, NULL, "CSV: the column of the rows' keys; the first one by default"),
        CMD_STRING("--family", "FAMILY", &wanted.family, NULL, "CSV: of columns whose names have none"),
        CMD_CALL("--separator", "C", &wanted.separator, cmd_take_text, NULL,
                 "CSV: what stands between fields; a comma by default, a tab for .tsv"),
        CMD_U64("--timestamp", "US", &wanted.timestamp_us, 0, INT64_MAX, NULL,
                "of cells that have none; the store's clock gives it by default"),
        CMD_FLAG("--again", &wanted.again, "import all of a file that was imported before"), CMD_END},
    "CSV begins with a header of columns FAMILY:QUALIFIER; nothing between two commas is no cell, \"\" one of no bytes. "
    "Lines of JSON are those of `lockstep table export`. Packed files (gzip, zstd, xz, bzip2) are unpacked. The table "
    "remembers in the same transactions how far a file was read: what was stopped or killed goes on there, a row is "
    "imported once, and of a file that has grown only what is new.",
    import,
};
