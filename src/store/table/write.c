/* Mutations of rows. */
#include "store/table/write.h"
#include "lockstep/base/mem.h"
#include "store/kv/kv_engine.h"
#include <string.h>

int lk__table_writer_open(struct lk__table_writer *w, struct lk_table *t, struct lk_kv_txn *txn, struct lk_err *err) {
    *w = (struct lk__table_writer){.table = t, .txn = txn};
    return lk__table_schema(t, txn, &w->schema, err);
}

void lk__table_writer_close(struct lk__table_writer *w) {
    struct lk_buf *buffers[] = {&w->key, &w->to, &w->value, &w->past, &w->old};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) lk_buf_release(buffers[i]);
    lk__table_schema_unref(w->schema);
}

int lk__table_writer_time(struct lk__table_writer *w, int64_t *out_us, struct lk_err *err) {
    int64_t ms = 0;
    int code = w->server_us ? 0 : lk__kv_timestamp(w->txn, &ms, err);
    if (code == 0 && !w->server_us) w->server_us = ms * 1000;
    *out_us = w->server_us;
    return code;
}

/* --- what pins see --------------------------------------------------------------------------------------- */

/* A copy in the past of what is about to go, if a pin sees it. */
static int keep(struct lk__table_writer *w, struct lk_bytes key, struct lk_bytes stored, struct lk_err *err) {
    int64_t since;
    int code = lk__table_value_since(stored, &since, err);
    if (code != 0 || since >= w->schema->newest_pin_ms) return code;
    code = lk__table_set(&w->old, stored, err); /* a put takes nothing that lies in the store */
    if (code == 0) code = lk__table_set(&w->past, key, err);
    if (code != 0) return code;
    char *space = &w->past.data[LK__KEY_PREFIX - 1];
    *space = *space == LK__CELLS ? LK__CELLS_PAST : LK__SAMPLES_PAST;
    code = lk__table_key_ascending(&w->past, w->schema->since_ms, err);
    return code ? code : lk_kv_put(w->txn, lk__table_bytes(&w->past), lk__table_bytes(&w->old), err);
}

int lk__table_writer_remove(struct lk__table_writer *w, struct lk_bytes key, struct lk_bytes stored, struct lk_err *err) {
    int code = w->schema->newest_pin_ms ? keep(w, key, stored, err) : 0;
    return code ? code : lk_kv_delete(w->txn, key, err);
}

/* Puts w->value under w->key. */
static int put(struct lk__table_writer *w, struct lk_err *err) {
    struct lk_bytes old;
    int code = LK_ENOTFOUND;
    if (w->schema->newest_pin_ms) code = lk_kv_get(w->txn, lk__table_bytes(&w->key), &old, err);
    if (code == 0) code = keep(w, lk__table_bytes(&w->key), old, err);
    if (code != 0 && code != LK_ENOTFOUND) return code;
    return lk_kv_put(w->txn, lk__table_bytes(&w->key), lk__table_bytes(&w->value), err);
}

/* Removes w->key <= key < w->to. */
static int remove_range(struct lk__table_writer *w, struct lk_err *err) {
    struct lk_kv_cursor *c;
    struct lk_buf key = LK_BUF_INIT;
    if (!w->schema->newest_pin_ms)
        return lk_kv_delete_range(w->txn, lk__table_bytes(&w->key), lk__table_bytes(&w->to), err);
    int code = lk_kv_cursor_open(w->txn, lk__table_bytes(&w->key), lk__table_bytes(&w->to), &c, err);
    if (code != 0) return code;
    for (code = lk_kv_cursor_first(c, err); code == 0; code = lk_kv_cursor_next(c, err)) {
        code = lk__table_set(&key, lk_kv_cursor_key(c), err);
        if (code == 0) code = lk__table_writer_remove(w, lk__table_bytes(&key), lk_kv_cursor_value(c), err);
        if (code != 0) break;
    }
    lk_kv_cursor_close(c);
    lk_buf_release(&key);
    return code == LK_ENOTFOUND ? 0 : code;
}

/* --- a row's end ----------------------------------------------------------------------------------------- */

static int row_key(struct lk__table_writer *w, struct lk_buf *out, enum lk__table_space space, struct lk_bytes row,
                   struct lk_err *err) {
    int code = lk__table_key_begin(out, w->schema->id, space, err);
    return code ? code : lk__table_key_part(out, row, err);
}

/* Every cell of the row: from w->key to w->to. */
static int row_range(struct lk__table_writer *w, struct lk_bytes row, struct lk_err *err) {
    int code = row_key(w, &w->key, LK__CELLS, row, err);
    if (code == 0) code = lk__table_set(&w->to, lk__table_bytes(&w->key), err);
    return code ? code : lk__table_key_past_part(&w->to, err);
}

static int row_exists(struct lk__table_writer *w, struct lk_bytes row, bool *out, struct lk_err *err) {
    struct lk_kv_cursor *c;
    int code = row_range(w, row, err);
    if (code == 0) code = lk_kv_cursor_open(w->txn, lk__table_bytes(&w->key), lk__table_bytes(&w->to), &c, err);
    if (code != 0) return code;
    code = lk_kv_cursor_first(c, err);
    *out = code == 0;
    lk_kv_cursor_close(c);
    return code == LK_ENOTFOUND ? 0 : code;
}

static int sample(struct lk__table_writer *w, struct lk_bytes row, struct lk_err *err) {
    struct lk_bytes old;
    bool exists;
    int code = row_exists(w, row, &exists, err);
    if (code == 0) code = row_key(w, &w->key, LK__SAMPLES, row, err);
    if (code != 0) return code;
    code = lk_kv_get(w->txn, lk__table_bytes(&w->key), &old, err);
    if (code != 0 && code != LK_ENOTFOUND) return code;
    bool known = code == 0;
    if (known == exists) return 0;
    if (known) return lk__table_writer_remove(w, lk__table_bytes(&w->key), old, err);
    code = lk__table_value_write(&w->value, w->schema->since_ms, false, lk_bytes(NULL, 0), err);
    return code ? code : lk_kv_put(w->txn, lk__table_bytes(&w->key), lk__table_bytes(&w->value), err);
}

int lk__table_writer_row_done(struct lk__table_writer *w, struct lk_bytes row, bool changed, struct lk_err *err) {
    int code = lk__table_row_is_sample(row) ? sample(w, row, err) : 0;
    if (code != 0 || !changed || !w->schema->newest_pin_ms) return code;
    code = lk__table_key_begin(&w->key, w->schema->id, LK__LOG, err);
    if (code == 0) code = lk__table_key_ascending(&w->key, w->schema->since_ms, err);
    if (code == 0) code = lk__table_key_part(&w->key, row, err);
    return code ? code : lk_kv_put(w->txn, lk__table_bytes(&w->key), lk_bytes("", 0), err);
}

/* --- checks ---------------------------------------------------------------------------------------------- */

int lk__table_row_check(struct lk_bytes row, struct lk_err *err) {
    if (row.size >= 1 && row.size <= LK_TABLE_ROW_MAX) return 0;
    return lk_fail(err, LK_EINVAL, "a row's key of %zu bytes; 1 to %d are possible", row.size, LK_TABLE_ROW_MAX);
}

static int time_check(int64_t us, const char *what, struct lk_err *err) {
    if (us >= 0 && us % 1000 == 0) return 0;
    return lk_fail(err, LK_EINVAL, "%s of %lld us: times are not negative and in whole milliseconds", what, (long long)us);
}

static size_t size_in_key(struct lk_bytes b) {
    size_t n = b.size;
    for (size_t i = 0; i < b.size; i++) n += ((const char *)b.data)[i] == 0;
    return n;
}

static int mutation_check(const struct lk__table_schema *s, size_t row_size, const struct lk_mutation *m,
                          struct lk_err *err) {
    int code = 0;
    if (m->kind == LK_DELETE_FROM_ROW) return 0;
    if (!m->family || !*m->family) return lk_fail(err, LK_EINVAL, "a mutation names no family");
    if (!lk__table_schema_family(s, m->family))
        return lk_fail(err, LK_ENOTFOUND, "the table has no family \"%.100s\"", m->family);
    if (m->kind == LK_DELETE_FROM_FAMILY) return 0;
    size_t column = row_size + strlen(m->family) + size_in_key(m->qualifier);
    if (column > LK_TABLE_COLUMN_MAX)
        return lk_fail(
            err, LK_EINVAL,
            "a qualifier of %zu bytes: row, family and qualifier would have %zu bytes together, where a zero byte "
            "counts twice; at most %d are possible",
            m->qualifier.size, column, LK_TABLE_COLUMN_MAX);
    if (m->kind == LK_SET_CELL) {
        if (m->value.size > LK_TABLE_VALUE_MAX)
            return lk_fail(err, LK_EINVAL, "a value of %zu bytes; at most %zu are possible", m->value.size,
                           LK_TABLE_VALUE_MAX);
        return m->timestamp_us == LK_TABLE_SERVER_TIME ? 0 : time_check(m->timestamp_us, "a timestamp", err);
    }
    code = time_check(m->from_us, "a range of times from", err);
    if (code == 0) code = time_check(m->to_us, "a range of times to", err);
    if (code == 0 && m->to_us && m->from_us >= m->to_us)
        code = lk_fail(err, LK_EINVAL, "a range of times from %lld us to %lld us holds nothing", (long long)m->from_us,
                       (long long)m->to_us);
    return code;
}

int lk__table_mutations_check(const struct lk__table_schema *s, struct lk_bytes row, const struct lk_mutation *m,
                              size_t count, struct lk_err *err) {
    int code = lk__table_row_check(row, err);
    if (code != 0) return code;
    if (count == 0) return lk_fail(err, LK_EINVAL, "no mutations");
    if (count > LK_TABLE_MUTATIONS_MAX)
        return lk_fail(err, LK_EINVAL, "%zu mutations of one row; at most %d are possible", count, LK_TABLE_MUTATIONS_MAX);
    size_t row_size = size_in_key(row);
    for (size_t i = 0; i < count; i++) {
        code = mutation_check(s, row_size, &m[i], err);
        if (code != 0) return count > 1 ? lk_fail_prefix(err, code, "mutation %zu", i + 1) : code;
    }
    return 0;
}

/* --- mutations ------------------------------------------------------------------------------------------- */

/* w->key: the column's beginning. */
static int column_key(struct lk__table_writer *w, struct lk_bytes row, const struct lk__table_family *f,
                      struct lk_bytes qualifier, struct lk_err *err) {
    int code = row_key(w, &w->key, LK__CELLS, row, err);
    if (code == 0) code = lk__table_key_family(&w->key, f->name, f->generation, err);
    return code ? code : lk__table_key_part(&w->key, qualifier, err);
}

int lk__table_writer_set(struct lk__table_writer *w, struct lk_bytes row, const struct lk__table_family *f,
                         struct lk_bytes qualifier, int64_t time_us, struct lk_bytes value, struct lk_err *err) {
    int code = column_key(w, row, f, qualifier, err);
    if (code == 0) code = lk__table_key_descending(&w->key, time_us, err);
    if (code == 0) code = lk__table_value_write(&w->value, w->schema->since_ms, f->zstd, value, err);
    return code ? code : put(w, err);
}

/* Newest first: from the last moment of the range to its first. */
static int delete_column(struct lk__table_writer *w, struct lk_bytes row, const struct lk__table_family *f,
                         const struct lk_mutation *m, struct lk_err *err) {
    int code = column_key(w, row, f, m->qualifier, err);
    if (code == 0) code = lk__table_set(&w->to, lk__table_bytes(&w->key), err);
    if (code == 0) code = lk__table_key_descending(&w->key, m->to_us ? m->to_us - 1 : INT64_MAX, err);
    if (code == 0) code = lk__table_key_descending(&w->to, m->from_us, err);
    if (code == 0 && lk_buf_append(&w->to, "", 1) != 0) code = lk_fail(err, LK_ENOMEM, "out of memory for a key");
    return code ? code : remove_range(w, err);
}

static int delete_family(struct lk__table_writer *w, struct lk_bytes row, const struct lk__table_family *f,
                         struct lk_err *err) {
    int code = row_key(w, &w->key, LK__CELLS, row, err);
    if (code == 0) code = lk__table_key_family(&w->key, f->name, f->generation, err);
    if (code == 0) code = lk__table_set(&w->to, lk__table_bytes(&w->key), err);
    if (code != 0) return code;
    w->to.data[w->to.size - 1]++; /* the next generation */
    return remove_range(w, err);
}

static int apply_one(struct lk__table_writer *w, struct lk_bytes row, const struct lk_mutation *m, struct lk_err *err) {
    const struct lk__table_family *f = m->family ? lk__table_schema_family(w->schema, m->family) : NULL;
    int64_t time_us = m->timestamp_us;
    int code = 0;
    switch (m->kind) {
    case LK_SET_CELL:
        if (time_us == LK_TABLE_SERVER_TIME) code = lk__table_writer_time(w, &time_us, err);
        return code ? code : lk__table_writer_set(w, row, f, m->qualifier, time_us, m->value, err);
    case LK_DELETE_FROM_COLUMN:
        return delete_column(w, row, f, m, err);
    case LK_DELETE_FROM_FAMILY:
        return delete_family(w, row, f, err);
    case LK_DELETE_FROM_ROW:
        code = row_range(w, row, err);
        return code ? code : remove_range(w, err);
    }
    return lk_fail(err, LK_EINVAL, "a mutation of no known kind (%d)", (int)m->kind);
}

int lk__table_writer_apply(struct lk__table_writer *w, struct lk_bytes row, const struct lk_mutation *m, size_t count,
                           struct lk_err *err) {
    int code = 0;
    for (size_t i = 0; i < count && code == 0; i++) code = apply_one(w, row, &m[i], err);
    return code || count == 0 ? code : lk__table_writer_row_done(w, row, true, err);
}

int lk_table_mutate(struct lk_table *t, struct lk_kv_txn *txn, struct lk_bytes row, const struct lk_mutation *m,
                    size_t count, struct lk_err *err) {
    struct lk__table_writer w;
    int code = lk__table_writer_open(&w, t, txn, err);
    if (code == 0) code = lk__table_mutations_check(w.schema, row, m, count, err);
    if (code == 0) code = lk__table_writer_apply(&w, row, m, count, err);
    lk__table_writer_close(&w);
    return code;
}

/* --- transactions of their own --------------------------------------------------------------------------- */

struct apply {
    struct lk_table *table;
    struct lk_table_entry *entries;
    size_t count;
};

static int apply_entries(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    const struct apply *a = arg;
    struct lk__table_writer w;
    int code = lk__table_writer_open(&w, a->table, txn, err);
    for (size_t i = 0; i < a->count && code == 0; i++) {
        struct lk_table_entry *e = &a->entries[i];
        e->code = lk__table_mutations_check(w.schema, e->row, e->mutations, e->count, &e->err);
        if (e->code == 0) code = lk__table_writer_apply(&w, e->row, e->mutations, e->count, err);
    }
    lk__table_writer_close(&w);
    return code;
}

/* How many entries go into one transaction, which holds others up while it runs. */
static size_t batch(const struct lk_table_entry *e, size_t count) {
    size_t mutations = 0, bytes = 0, n = 0;
    while (n < count && n < 1000 && mutations < 10000 && bytes < (size_t)8 << 20) {
        mutations += e[n].count;
        for (size_t i = 0; i < e[n].count; i++) bytes += e[n].mutations[i].value.size;
        n++;
    }
    return n;
}

int lk_table_apply_many(struct lk_table *t, struct lk_table_entry *entries, size_t count, enum lk_durability durability,
                        struct lk_err *err) {
    struct lk_err first = {0};
    int result = 0;
    for (size_t i = 0, n; i < count; i += n) {
        n = batch(entries + i, count - i);
        struct apply a = {t, entries + i, n};
        struct lk_err why = {0};
        int code = lk_kv_update(t->store->kv, apply_entries, &a, durability, NULL, &why);
        for (size_t k = i; code != 0 && k < i + n; k++) {
            entries[k].code = code;
            entries[k].err = why;
        }
        if (code != 0 && result == 0) {
            result = code;
            first = why;
        }
    }
    if (result != 0 && err) *err = first;
    return result;
}

int lk_table_apply(struct lk_table *t, struct lk_bytes row, const struct lk_mutation *m, size_t count,
                   enum lk_durability durability, struct lk_err *err) {
    struct lk_table_entry e = {.row = row, .mutations = m, .count = count};
    int code = lk_table_apply_many(t, &e, 1, durability, err);
    if (code != 0 || e.code == 0) return code;
    if (err) *err = e.err;
    return e.code;
}

/* --- many rows ------------------------------------------------------------------------------------------- */

#define ROWS_AT_ONCE 1000

struct clearing {
    struct lk_table *table;
    const struct lk_filter_program *first; /* of a row, one cell is enough to look at */
    struct lk_table_range range;
    struct lk_buf last; /* the last row of a run, which the next one begins behind */
    uint64_t rows;
    size_t now;
};

static int no_cell(void *arg, const struct lk_cell *cell) {
    (void)arg, (void)cell;
    return 0;
}
/* Rows, each as its size and its bytes; those of garbage alone too, which another rule would show again. */
struct noted {
    struct lk_buf rows;
    size_t count;
};
static int note_row(void *arg, struct lk_bytes row, bool told) {
    struct noted *n = arg;
    (void)told;
    int code = lk_buf_append(&n->rows, &row.size, sizeof row.size);
    if (code == 0) code = lk_buf_append(&n->rows, row.data, row.size);
    return code ? code : ++n->count >= ROWS_AT_ONCE;
}

static int clear_some(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    struct clearing *c = arg;
    struct noted noted = {.count = 0};
    const struct lk_buf *rows = &noted.rows;
    struct lk_table_read read = {.ranges = &c->range, .range_count = 1, .filter = c->first};
    struct lk_table_sink sink = {no_cell, note_row, &noted};
    struct lk_mutation all = {.kind = LK_DELETE_FROM_ROW};
    struct lk__table_writer w;
    c->now = 0;
    int code = lk_table_read(c->table, txn, &read, &sink, NULL, err);
    if (code == LK_ENOMEM) lk_fail(err, code, "out of memory for the rows to delete");
    if (code >= 0) code = lk__table_writer_open(&w, c->table, txn, err);
    if (code != 0) return lk_buf_release(&noted.rows), code;
    for (size_t at = 0; at < rows->size && code == 0; c->now++) {
        struct lk_bytes row = {.data = rows->data + at + sizeof row.size};
        memcpy(&row.size, rows->data + at, sizeof row.size);
        at += sizeof row.size + row.size;
        code = lk__table_writer_apply(&w, row, &all, 1, err);
        if (code == 0) code = lk__table_set(&c->last, row, err);
    }
    lk__table_writer_close(&w);
    lk_buf_release(&noted.rows);
    return code;
}

int lk_table_delete_rows(struct lk_table *t, const struct lk_table_range *range, uint64_t *rows, struct lk_err *err) {
    struct lk_filter one = {.kind = LK_FILTER_ROW_LIMIT, .count = 1};
    struct lk_filter_program *program;
    struct clearing c = {.table = t, .range = *range};
    struct lk_buf from = LK_BUF_INIT;
    int code = lk_filter_compile(&one, &program, err);
    if (code != 0) return code;
    c.first = program;
    do {
        code = lk_kv_update(t->store->kv, clear_some, &c, LK_LAZY, NULL, err);
        if (code != 0) break;
        c.rows += c.now;
        if (c.now) code = lk__table_set(&from, lk__table_bytes(&c.last), err);
        if (c.now) c.range.from = lk__table_bytes(&from), c.range.from_open = true;
    } while (code == 0 && c.now >= ROWS_AT_ONCE);
    if (code == 0) code = lk_kv_update(t->store->kv, clear_some, &c, LK_DURABLE, NULL, err);
    if (code == 0) c.rows += c.now;
    if (rows) *rows = c.rows;
    lk_filter_free(program);
    lk_buf_release(&from);
    lk_buf_release(&c.last);
    return code;
}
