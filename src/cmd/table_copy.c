/* lockstep table copy: the cells of a pinned state into a new table, here or in another store, in batches with a note of
 * how far they are. The new table has no rules while it is written, so that all cells are there when the digests are
 * compared. */
#include "table.h"

#include "lockstep/base/base64.h"
#include <inttypes.h>
#include <string.h>

#define BATCH_ROWS  1000
#define BATCH_BYTES ((size_t)8 << 20)
#define BATCH_CELLS 100000
#define LEASE_MS    (24 * 3600 * 1000)
#define NOTE        "copy"

static struct { const char *store, *blobs; } wanted;

struct item { /* a cell of the batch; places in its bytes */
    size_t row, row_size, qualifier, qualifier_size, value, value_size;
    int64_t timestamp_us;
    char family[LK_TABLE_FAMILY_MAX + 1];
};
struct family {
    char name[LK_TABLE_FAMILY_MAX + 1], *gc;
    bool zstd;
};
struct copy {
    struct cmd_context *c;
    struct lk_store *to_store;
    struct lk_table *from, *to;
    char pin[48]; /* our own; "": the user's */
    int64_t pinned_ms;
    struct family families[LK_TABLE_FAMILIES_MAX];
    size_t family_count;
    struct item *items;
    size_t count, rows;
    struct lk_buf bytes, row; /* row: the last one of which a cell was read */
    uint64_t in_row, skip;    /* its cells that were read; those to pass over, which are written already */
    uint64_t all_rows, all_cells;
    struct lk_mutation *mutations;
    struct lk_progress progress;
    struct lk_err *err;
};

static int no_memory(struct lk_err *err) {
    return lk_fail(err, LK_ENOMEM, "out of memory copying a table");
}

/* --- reading a batch ------------------------------------------------------------------------------------- */

static int put_bytes(struct copy *x, struct lk_bytes b, size_t *at, size_t *size) {
    *at = x->bytes.size;
    *size = b.size;
    return lk_buf_append(&x->bytes, b.data, b.size);
}
static int take_cell(void *arg, const struct lk_cell *cell) {
    struct copy *x = arg;
    if (x->skip) return x->skip--, 0;
    bool same = x->in_row && x->row.size == cell->row.size && memcmp(x->row.data, cell->row.data, cell->row.size) == 0;
    if (x->count == BATCH_CELLS || x->bytes.size >= BATCH_BYTES) return 1; /* within a row */
    if (!same) x->in_row = x->row.size = 0;
    struct item *i = &x->items[x->count++];
    i->timestamp_us = cell->timestamp_us;
    snprintf(i->family, sizeof i->family, "%s", cell->family);
    int code = same ? 0 : lk_buf_append(&x->row, cell->row.data, cell->row.size);
    if (!code) code = put_bytes(x, cell->row, &i->row, &i->row_size);
    if (!code) code = put_bytes(x, cell->qualifier, &i->qualifier, &i->qualifier_size);
    if (!code) code = put_bytes(x, cell->value, &i->value, &i->value_size);
    x->in_row++;
    return code ? no_memory(x->err) : 0;
}
static int end_row(void *arg, struct lk_bytes row, bool told) {
    struct copy *x = arg;
    (void)row;
    x->rows += told;
    return x->rows >= BATCH_ROWS || x->bytes.size >= BATCH_BYTES;
}
/* Goes on within the last row. *more: there may be others. */
static int read_batch(struct copy *x, bool *more, struct lk_err *err) {
    struct lk_buf from = LK_BUF_INIT;
    struct lk_kv_txn *txn;
    int code = lk_buf_append(&from, x->row.data ? x->row.data : "", x->row.size) ? no_memory(err) : 0;
    struct lk_table_range range = {.from = x->row.size ? table_bytes(&from) : lk_bytes(NULL, 0)};
    struct lk_table_read read = {.ranges = &range, .range_count = x->row.size ? 1 : 0, .pinned_ms = x->pinned_ms};
    struct lk_table_sink sink = {take_cell, end_row, x};
    x->count = x->rows = x->bytes.size = 0;
    x->skip = x->in_row;
    if (!code) code = lk_kv_begin(x->c->store->kv, false, &txn, err);
    if (!code) {
        code = lk_table_read(x->from, txn, &read, &sink, NULL, err);
        lk_kv_abort(txn);
    }
    lk_buf_release(&from);
    *more = code > 0;
    return code < 0 ? code : 0;
}

/* --- writing it ------------------------------------------------------------------------------------------ */

static int put_note(struct copy *x, struct lk_kv_txn *txn, struct lk_err *err) {
    struct lk_buf text = LK_BUF_INIT, row = LK_BUF_INIT;
    int code = lk_base64_write(&row, table_bytes(&x->row));
    json_t *j = code ? NULL
                     : json_pack("{s:s, s:I, s:s, s:I, s:I}", "of", lk_table_name(x->from), "pinned_ms",
                                 (json_int_t)x->pinned_ms, "row_base64", row.data ? row.data : "", "in_row",
                                 (json_int_t)x->in_row, "cells", (json_int_t)x->all_cells);
    code = j ? lk_json_canonical(j, &text, err) : no_memory(err);
    if (!code) code = lk_table_note_put(x->to, txn, NOTE, table_bytes(&text), err);
    json_decref(j);
    lk_buf_release(&text);
    lk_buf_release(&row);
    return code;
}
static int write_batch(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    struct copy *x = arg;
    const char *bytes = x->bytes.data;
    int code = 0;
    for (size_t i = 0, n; i < x->count && !code; i += n) {
        const struct item *first = &x->items[i];
        for (n = 0; i + n < x->count; n++) {
            const struct item *k = &x->items[i + n];
            if (k->row_size != first->row_size || memcmp(bytes + k->row, bytes + first->row, k->row_size) != 0) break;
            x->mutations[n] = (struct lk_mutation){.kind = LK_SET_CELL,
                                                   .family = k->family,
                                                   .qualifier = lk_bytes(bytes + k->qualifier, k->qualifier_size),
                                                   .value = lk_bytes(bytes + k->value, k->value_size),
                                                   .timestamp_us = k->timestamp_us};
        }
        code = lk_table_mutate(x->to, txn, lk_bytes(bytes + first->row, first->row_size), x->mutations, n, err);
    }
    return code ? code : put_note(x, txn, err);
}
static int drop_note(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    struct copy *x = arg;
    return lk_table_note_put(x->to, txn, NOTE, lk_bytes(NULL, 0), err);
}

static int copy_cells(struct copy *x, struct lk_err *err) {
    bool more = true;
    int code = 0;
    while (!code && more && !cmd_interrupted()) {
        code = read_batch(x, &more, err);
        if (code || !x->count) continue;
        x->all_rows += x->rows;
        x->all_cells += x->count;
        code = lk_kv_update(x->to_store->kv, write_batch, x, LK_LAZY, NULL, err);
        lk_progress_show(&x->progress, false, "%" PRIu64 " cells copied", x->all_cells);
    }
    return code;
}

/* --- begin and end --------------------------------------------------------------------------------------- */

static int take_family(void *arg, const struct lk_table_family *f) {
    struct copy *x = arg;
    struct family *to = &x->families[x->family_count++];
    snprintf(to->name, sizeof to->name, "%s", f->name);
    to->gc = f->gc ? lk_strdup(f->gc) : NULL;
    to->zstd = f->zstd;
    return f->gc && !to->gc ? no_memory(x->err) : 0;
}

/* How far an earlier copy of the same pin got. */
static int read_note(struct copy *x, const char *name, struct lk_err *err) {
    struct lk_buf text = LK_BUF_INIT;
    struct lk_kv_txn *txn;
    int code = lk_kv_begin(x->to_store->kv, false, &txn, err);
    if (code) return code;
    code = lk_table_note_get(x->to, txn, NOTE, &text, err);
    lk_kv_abort(txn);
    json_t *j = code ? NULL : lk_json_parse(text.data, text.size, "the note", NULL);
    const char *of = json_string_value(json_object_get(j, "of")),
               *row = json_string_value(json_object_get(j, "row_base64"));
    bool same = of && strcmp(of, lk_table_name(x->from)) == 0 &&
                json_integer_value(json_object_get(j, "pinned_ms")) == x->pinned_ms;
    if (!code && same && row && lk_base64_read(row, strlen(row), &x->row)) {
        x->in_row = (uint64_t)json_integer_value(json_object_get(j, "in_row"));
        x->all_cells = (uint64_t)json_integer_value(json_object_get(j, "cells"));
        fprintf(stderr, "going on behind %" PRIu64 " cells that are in %s\n", x->all_cells, name);
    } else if (!code || code == LK_ENOTFOUND) {
        code = lk_fail(err, LK_EEXISTS, "there is a table \"%s\" already%s; drop it, or give another name", name,
                       code ? "" : ", which an earlier copy of another table or pin has left unfinished");
    }
    json_decref(j);
    lk_buf_release(&text);
    return code;
}

static int any_cell(void *arg, const struct lk_cell *cell) {
    (void)cell;
    *(bool *)arg = true;
    return 1;
}
/* So it is when a copy was killed before its first note. */
static int is_empty(struct copy *x, bool *out, struct lk_err *err) {
    struct lk_kv_txn *txn;
    bool any = false;
    int code = lk_kv_begin(x->to_store->kv, false, &txn, err);
    if (code) return code;
    code = lk_table_read(x->to, txn, &(struct lk_table_read){0}, &(struct lk_table_sink){any_cell, NULL, &any}, NULL, err);
    lk_kv_abort(txn);
    *out = !any;
    return code < 0 ? code : 0;
}
static int open_destination(struct copy *x, const char *name, struct lk_err *err) {
    struct lk_table_family list[LK_TABLE_FAMILIES_MAX];
    bool empty;
    int code = lk_table_open(x->to_store, name, &x->to, err);
    if (!code && (code = is_empty(x, &empty, err)) == 0)
        return empty ? lk_kv_update(x->to_store->kv, write_batch, x, LK_DURABLE, NULL, err) : read_note(x, name, err);
    if (code != LK_ENOTFOUND) return code;
    for (size_t i = 0; i < x->family_count; i++)
        list[i] = (struct lk_table_family){x->families[i].name, NULL, x->families[i].zstd};
    code = lk_table_create(x->to_store, name, list, x->family_count, err);
    if (!code) code = lk_table_open(x->to_store, name, &x->to, err);
    return code ? code : lk_kv_update(x->to_store->kv, write_batch, x, LK_DURABLE, NULL, err); /* the note alone */
}

/* The user's pin, or one of our own, which an earlier copy may have left. */
static int open_source(struct copy *x, const char *to, struct lk_err *err) {
    const char *from = lk_table_name(x->from);
    struct lk_root name;
    struct lk_kv_txn *txn;
    char hex[LK_ROOT_HEX];
    if (!table_wanted.pin) {
        char *text = lk_asprintf("%s %s %s", from, x->to_store->url ? x->to_store->url : "", to);
        if (!text) return no_memory(err);
        lk_sha256(text, strlen(text), &name);
        lk_free(text);
        snprintf(x->pin, sizeof x->pin, "copy/%.32s", lk_root_hex(&name, hex));
    }
    int code = table_pin_time(x->c->store, *x->pin ? x->pin : table_wanted.pin, &x->pinned_ms, err);
    if (code == LK_ENOTFOUND && *x->pin) code = lk_table_pin(x->c->store, x->pin, &from, 1, LEASE_MS, &x->pinned_ms, err);
    if (!code) code = lk_kv_begin(x->c->store->kv, false, &txn, err);
    if (code) return code;
    code = lk_table_families_at(x->from, txn, x->pinned_ms, take_family, x, err);
    lk_kv_abort(txn);
    return code;
}

static int digest_of(struct lk_store *s, struct lk_table *t, int64_t pinned_ms, struct lk_root *out,
                     struct lk_table_read_stats *stats, struct lk_err *err) {
    struct lk_kv_txn *txn;
    int code = lk_kv_begin(s->kv, false, &txn, err);
    if (code) return code;
    code = lk_table_digest(t, txn, pinned_ms, out, stats, err);
    lk_kv_abort(txn);
    return code;
}
/* Compares, and gives the new table its rules. */
static int finish(struct copy *x, const char *name, struct lk_root *digest, struct lk_table_read_stats *stats,
                  struct lk_err *err) {
    struct lk_table_change changes[LK_TABLE_FAMILIES_MAX];
    struct lk_root there;
    int code = digest_of(x->c->store, x->from, x->pinned_ms, digest, stats, err);
    if (!code) code = digest_of(x->to_store, x->to, 0, &there, stats, err);
    if (!code && !lk_root_equal(digest, &there))
        code =
            lk_fail(err, LK_EDIVERGED, "the copy %s has other cells than %s: somebody wrote to it; drop it and copy again",
                    name, lk_table_name(x->from));
    for (size_t i = 0; i < x->family_count; i++)
        changes[i] =
            (struct lk_table_change){LK_TABLE_UPDATE_FAMILY, {x->families[i].name, x->families[i].gc, x->families[i].zstd}};
    if (!code && x->family_count) code = lk_table_alter(x->to_store, name, changes, x->family_count, err);
    if (!code) code = lk_kv_update(x->to_store->kv, drop_note, x, LK_DURABLE, NULL, err);
    if (!code && *x->pin) code = lk_table_pin_release(x->c->store, x->pin, err);
    return code;
}

/* --- the command ----------------------------------------------------------------------------------------- */

static int run(struct copy *x) {
    struct cmd_context *c = x->c;
    struct lk_err err = {0};
    struct lk_root digest;
    struct lk_table_read_stats stats;
    char hex[LK_ROOT_HEX];
    const char *to = c->arguments[1];
    x->err = &err;
    bool reads_only = table_wanted.pin && wanted.store;
    int code = table_open(c, c->arguments[0], reads_only ? LK_READ : LK_WRITE, &x->from);
    if (code) return code;
    x->to_store = c->store;
    if (wanted.store && lk_store_open_at(wanted.store, wanted.blobs, LK_CREATE, &x->to_store, &err)) {
        x->to_store = NULL;
        return cmd_fail(&err);
    }
    table_progress_begin(&x->progress);
    cmd_catch_signals();
    int failed = open_source(x, to, &err);
    if (!failed) failed = open_destination(x, to, &err);
    if (failed == LK_EEXISTS && *x->pin) lk_table_pin_release(c->store, x->pin, NULL);
    if (!failed) failed = copy_cells(x, &err);
    if (!failed && !cmd_interrupted()) failed = finish(x, to, &digest, &stats, &err);
    if (x->progress.line_open) lk_progress_end(&x->progress);
    if (failed) return cmd_fail(&err);
    if (cmd_interrupted()) {
        fprintf(stderr, "lockstep: stopped; the same command goes on behind %" PRIu64 " cells\n", x->all_cells);
        return CMD_FAILED;
    }
    lk_root_hex(&digest, hex);
    if (c->json)
        return cmd_print_json(
            json_pack("{s:s, s:I, s:I}", "digest", hex, "rows", (json_int_t)stats.rows, "cells", (json_int_t)stats.cells));
    printf("copied %" PRIu64 " rows, %" PRIu64 " cells to %s; both have the digest %s\n", stats.rows, stats.cells, to, hex);
    return CMD_OK;
}
static int copy(struct cmd_context *c) {
    struct lk_err err;
    struct copy *x = lk_calloc(1, sizeof *x);
    if (wanted.blobs && !wanted.store) return lk_free(x), cmd_usage_error(c, "--to-blobs is for --to-store");
    if (x) x->items = lk_calloc(BATCH_CELLS, sizeof *x->items);
    if (x) x->mutations = lk_calloc(BATCH_CELLS, sizeof *x->mutations);
    int code;
    if (x && x->items && x->mutations) {
        x->c = c;
        code = run(x);
    } else
        code = cmd_fail((no_memory(&err), &err));
    if (!x) return code;
    for (size_t i = 0; i < x->family_count; i++) lk_free(x->families[i].gc);
    lk_table_close(x->from);
    lk_table_close(x->to);
    if (x->to_store != c->store) lk_store_close(x->to_store);
    lk_buf_release(&x->bytes);
    lk_buf_release(&x->row);
    lk_free(x->items);
    lk_free(x->mutations);
    lk_free(x);
    return code;
}
const struct cmd cmd_table_copy = {
    "table copy",
    "TABLE NEW",
    2,
    2,
    "Copy a table to a new one, here or in another store, and compare their digests.",
    (const struct cmd_option[]){
        CMD_STRING("--to-store", "URL", &wanted.store, NULL,
                   "the store of the new table, made if absent; by default the same"),
        CMD_STRING("--to-blobs", "URL", &wanted.blobs, NULL, "where that store keeps what is large, as --blobs"), TABLE_PIN,
        CMD_END},
    "Without --pin a pin of a day holds the state of the beginning while it is copied. What was stopped or killed goes on "
    "with the same command. NEW may be there if it is empty and has TABLE's families. Cells that a rule calls garbage are "
    "not copied; the rules are.",
    copy,
};
