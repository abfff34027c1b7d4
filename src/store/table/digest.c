/* The root of a table's cells, and what changed between two pins. */
#include "lockstep/base/hash.h"
#include "lockstep/base/mem.h"
#include "store/kv/kv_engine.h"
#include "store/table/cells.h"
#include <stdlib.h>
#include <string.h>

/* --- digest ---------------------------------------------------------------------------------------------- */

static void number(struct lk_hasher *h, uint64_t n, size_t bytes) {
    unsigned char b[8];
    for (size_t i = 0; i < bytes; i++) b[i] = (unsigned char)(n >> 8 * i);
    lk_hasher_update(h, b, bytes);
}
static void part(struct lk_hasher *h, const void *data, size_t size) {
    number(h, size, 4);
    if (size) lk_hasher_update(h, data, size);
}
static int hash_cell(void *arg, const struct lk_cell *cell) {
    part(arg, cell->row.data, cell->row.size);
    part(arg, cell->family, strlen(cell->family));
    part(arg, cell->qualifier.data, cell->qualifier.size);
    number(arg, (uint64_t)cell->timestamp_us, 8);
    part(arg, cell->value.data, cell->value.size);
    return 0;
}

int lk_table_digest(struct lk_table *t, struct lk_kv_txn *txn, int64_t pinned_ms, struct lk_root *out,
                    struct lk_table_read_stats *stats, struct lk_err *err) {
    struct lk_hasher *h = lk_hasher_create();
    if (!h) return lk_fail(err, LK_ENOMEM, "out of memory hashing a table");
    struct lk_table_read read = {.pinned_ms = pinned_ms};
    struct lk_table_sink sink = {hash_cell, NULL, h};
    int code = lk_table_read(t, txn, &read, &sink, stats, err);
    if (code == 0) lk_hasher_final(h, out);
    lk_hasher_free(h);
    return code;
}

/* --- which rows were written between two pins -------------------------------------------------------------
 * The log has them by the pin that they were written behind, and then by key: one cursor for each such pin, merged. */

struct log {
    struct behind {
        struct lk_kv_cursor *cursor;
        int64_t pin_ms; /* once it comes to rows of another pin, it is at its end */
    } * pins;
    size_t count;
    struct lk_buf row; /* of the key: through the row's end */
};
#define LOG_HEAD (LK__KEY_PREFIX + 8)

static int log_key(struct lk_buf *key, const struct lk__table_schema *s, int64_t since, struct lk_err *err) {
    int code = lk__table_key_begin(key, s->id, LK__LOG, err);
    return code ? code : lk__table_key_ascending(key, since, err);
}

/* The row that the cursor stands on; data NULL: it is at its end. */
static int row_of(const struct behind *b, struct lk_bytes *out, struct lk_err *err) {
    struct lk_bytes key = lk_kv_cursor_key(b->cursor);
    *out = lk_bytes(NULL, 0);
    if (key.size == 0) return 0;
    if (key.size <= LOG_HEAD) return lk_fail(err, LK_ECORRUPT, "a table's log has a row that is none");
    const unsigned char *p = key.data;
    if (lk__table_read_ascending(p + LK__KEY_PREFIX) == b->pin_ms) *out = lk_bytes(p + LOG_HEAD, key.size - LOG_HEAD);
    return 0;
}

static void log_close(struct log *l) {
    for (size_t i = 0; i < l->count; i++) lk_kv_cursor_close(l->pins[i].cursor);
    lk_free(l->pins);
    lk_buf_release(&l->row);
}

/* A cursor at the first row that was written behind the pin of `from` or later, before `to`. LK_ENOTFOUND: there is none.
 */
static int log_add(struct log *l, struct lk_kv_txn *txn, const struct lk__table_schema *s, int64_t from, int64_t to,
                   struct lk_err *err) {
    struct lk_buf a = LK_BUF_INIT, b = LK_BUF_INIT;
    struct behind *more = lk_realloc(l->pins, (l->count + 1) * sizeof *more), *new = more ? &more[l->count] : NULL;
    int code = more ? 0 : lk_fail(err, LK_ENOMEM, "out of memory comparing pins");
    if (more) l->pins = more;
    if (code == 0) code = log_key(&a, s, from, err);
    if (code == 0) code = log_key(&b, s, to, err);
    if (code == 0) code = lk_kv_cursor_open(txn, lk__table_bytes(&a), lk__table_bytes(&b), &new->cursor, err);
    if (code == 0) {
        l->count++; /* closed with the others, whatever comes */
        code = lk_kv_cursor_first(new->cursor, err);
    }
    struct lk_bytes key = code == 0 ? lk_kv_cursor_key(new->cursor) : lk_bytes(NULL, 0);
    if (code == 0 && key.size <= LOG_HEAD) code = lk_fail(err, LK_ECORRUPT, "a table's log has a row that is none");
    if (code == 0) new->pin_ms = lk__table_read_ascending((const unsigned char *)key.data + LK__KEY_PREFIX);
    lk_buf_release(&a);
    lk_buf_release(&b);
    return code;
}
static int log_open(struct log *l, struct lk_kv_txn *txn, const struct lk__table_schema *s, int64_t from, int64_t to,
                    struct lk_err *err) {
    int code = 0;
    *l = (struct log){0};
    while (code == 0 && from < to) {
        code = log_add(l, txn, s, from, to, err);
        if (code == 0) from = l->pins[l->count - 1].pin_ms + 1;
    }
    if (code == 0 || code == LK_ENOTFOUND) return 0;
    log_close(l);
    return code;
}

/* The least row that is next in any of the cursors, to l->row. LK_ENOTFOUND: none is left. */
static int log_next(struct log *l, struct lk_err *err) {
    struct lk_bytes least = {0}, row;
    int code = 0;
    for (size_t i = 0; i < l->count && code == 0; i++) {
        code = row_of(&l->pins[i], &row, err);
        if (row.data && (!least.data || lk__kv_compare(row, least) < 0)) least = row;
    }
    if (code == 0 && !least.data) return LK_ENOTFOUND;
    if (code == 0) code = lk__table_set(&l->row, least, err);
    for (size_t i = 0; i < l->count && code == 0; i++) {
        code = row_of(&l->pins[i], &row, err);
        if (code != 0 || !row.data || lk__kv_compare(row, lk__table_bytes(&l->row)) != 0) continue;
        code = lk_kv_cursor_next(l->pins[i].cursor, err);
        if (code == LK_ENOTFOUND) code = 0;
    }
    return code;
}

/* --- their cells ----------------------------------------------------------------------------------------- */

static int compare_cells(const struct lk_cell *a, const struct lk_cell *b) {
    int c = strcmp(a->family, b->family);
    if (!c) c = lk__kv_compare(a->qualifier, b->qualifier);
    return c ? c : (a->timestamp_us < b->timestamp_us) - (a->timestamp_us > b->timestamp_us);
}

/* To the row whose key, from the row on, is this; *on: it has a cell. */
static int to_row(struct lk__table_cells *c, const struct lk_buf *row, bool *on, struct lk_err *err) {
    struct lk_buf key = LK_BUF_INIT;
    int code = lk__table_key_begin(&key, c->schema->id, LK__CELLS, err);
    if (code == 0 && lk_buf_append(&key, row->data, row->size) != 0)
        code = lk_fail(err, LK_ENOMEM, "out of memory comparing pins");
    if (code == 0) code = lk__table_cells_row(c, lk__table_bytes(&key), err);
    if (code == 0) code = lk__table_cells_next(c, err);
    *on = code == 0;
    lk_buf_release(&key);
    return code == LK_ENOTFOUND ? 0 : code;
}
static int onwards(struct lk__table_cells *c, bool *on, struct lk_err *err) {
    int code = lk__table_cells_next(c, err);
    *on = code == 0;
    return code == LK_ENOTFOUND ? 0 : code;
}

struct diff {
    struct lk__table_cells a, b;
    lk_table_diff_fn *fn;
    void *arg;
    bool stop; /* fn has ended it */
};
static int diff_row(struct diff *d, const struct lk_buf *row, struct lk_err *err) {
    bool a, b;
    int code = to_row(&d->a, row, &a, err);
    if (code == 0) code = to_row(&d->b, row, &b, err);
    while (code == 0 && (a || b)) {
        int c = !b ? -1 : !a ? 1 : compare_cells(&d->a.cell, &d->b.cell);
        bool same = c == 0 && lk__kv_compare(d->a.cell.value, d->b.cell.value) == 0;
        if (!same) code = d->fn(d->arg, c <= 0 ? &d->a.cell : NULL, c >= 0 ? &d->b.cell : NULL);
        d->stop = code != 0;
        if (code == 0 && c <= 0) code = onwards(&d->a, &a, err);
        if (code == 0 && c >= 0) code = onwards(&d->b, &b, err);
    }
    return code;
}

/* Whether a cell can come or go without its row being written: by its age, or since a rule or a family was altered, be it
 * back again, as a compaction may have been in between. */
static bool ages(const struct lk_gc_rule *r) {
    if (r->kind == LK_GC_MAX_AGE) return true;
    for (size_t i = 0; i < r->part_count; i++)
        if (ages(&r->parts[i])) return true;
    return false;
}
static bool all_is_logged(const struct lk__table_schema *a, const struct lk__table_schema *b) {
    for (size_t i = 0; i < a->family_count; i++)
        if (ages(&a->families[i].rule)) return false;
    return a->family_count == b->family_count && a->altered == b->altered;
}

/* All rows of both: row is the last one, of no bytes at first, and becomes the next one. */
static int either_next(struct diff *d, struct lk_buf *row, struct lk_err *err) {
    struct lk_buf key = LK_BUF_INIT;
    struct lk_bytes least = {0};
    struct lk__table_cells *both[] = {&d->a, &d->b};
    int code = lk__table_key_begin(&key, d->a.schema->id, LK__CELLS, err);
    if (code == 0 && lk_buf_append(&key, row->data, row->size) != 0)
        code = lk_fail(err, LK_ENOMEM, "out of memory comparing pins");
    if (code == 0 && row->size) code = lk__table_key_past_part(&key, err);
    for (int i = 0; i < 2 && code == 0; i++) {
        code = lk__table_cells_seek(both[i], lk_bytes(key.data, key.size), err);
        if (code == 0 && (!least.data || lk__kv_compare(lk__table_row_part(both[i]->row), least) < 0))
            least = lk__table_row_part(both[i]->row);
        if (code == LK_ENOTFOUND) code = 0;
    }
    row->size = 0;
    if (code == 0 && !least.data) code = LK_ENOTFOUND;
    if (code == 0 && lk_buf_append(row, least.data, least.size) != 0)
        code = lk_fail(err, LK_ENOMEM, "out of memory comparing pins");
    lk_buf_release(&key);
    return code;
}

static int diff_all(struct diff *d, struct lk_err *err) {
    struct lk_buf row = LK_BUF_INIT;
    int code;
    while ((code = either_next(d, &row, err)) == 0)
        if ((code = diff_row(d, &row, err)) != 0) break;
    bool end = code == LK_ENOTFOUND && !d->stop;
    lk_buf_release(&row);
    return end ? 0 : code;
}
static int diff_logged(struct diff *d, struct lk_kv_txn *txn, int64_t from_ms, int64_t to_ms, struct lk_err *err) {
    struct log rows;
    int code = log_open(&rows, txn, d->a.schema, from_ms, to_ms ? to_ms : INT64_MAX, err);
    if (code != 0) return code;
    while ((code = log_next(&rows, err)) == 0)
        if ((code = diff_row(d, &rows.row, err)) != 0) break;
    bool end = code == LK_ENOTFOUND && !d->stop;
    log_close(&rows);
    return end ? 0 : code;
}

int lk_table_diff(struct lk_table *t, struct lk_kv_txn *txn, int64_t from_ms, int64_t to_ms, lk_table_diff_fn *fn,
                  void *arg, struct lk_err *err) {
    struct lk_table_read_stats stats = {0};
    struct diff d = {.fn = fn, .arg = arg};
    if (from_ms <= 0 || (to_ms != 0 && to_ms < from_ms))
        return lk_fail(err, LK_EINVAL, "a difference goes from a pin to a later one");
    int code = lk__table_cells_open(&d.a, t, txn, from_ms, &stats, err);
    if (code != 0) return code;
    code = lk__table_cells_open(&d.b, t, txn, to_ms, &stats, err);
    if (code == 0) {
        code = all_is_logged(d.a.schema, d.b.schema) ? diff_logged(&d, txn, from_ms, to_ms, err) : diff_all(&d, err);
        lk__table_cells_close(&d.b);
    }
    lk__table_cells_close(&d.a);
    return code;
}
