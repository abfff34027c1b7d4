/* Compaction: what no read shows and no pin sees is removed, in short transactions. */
#include "lockstep/base/mem.h"
#include "lockstep/base/progress.h"
#include "store/kv/kv_engine.h"
#include "store/table/drop.h"
#include "store/table/gc_rule.h"
#include "store/table/pin.h"
#include "store/table/write.h"
#include <stdlib.h>
#include <string.h>

#define LOOK   50000 /* cells that one read transaction looks at */
#define REMOVE 500   /* cells that one write transaction removes, */
#define WALK   4000  /* and looks at, once it has removed one */

struct sweep {
    struct lk_table *table;
    int64_t now_us;
    struct lk_buf at;   /* where the next transaction begins: a column's first key */
    struct lk_buf next; /* as this one found, taken over when it has committed */
    bool done;          /* the end was reached */
    bool garbage;       /* a read transaction found some, at `next` */
    bool saved;         /* there is a row of where to go on */
    uint64_t visited, removed;
};

/* The keys of a space of the table, from `at` on, where the transaction before has ended. A table that was dropped and
 * made again meanwhile has another number, and what lies between the two is of other tables. */
static int open_from(struct lk_kv_txn *txn, const struct lk_table *t, uint32_t id, enum lk__table_space space,
                     const struct lk_buf *at, struct lk_kv_cursor **out, struct lk_err *err) {
    struct lk_buf from = LK_BUF_INIT;
    char to[LK__KEY_PREFIX];
    int code = lk__table_key_begin(&from, id, space, err);
    if (code == 0) {
        memcpy(to, from.data, sizeof to);
        to[LK__KEY_PREFIX - 1]++;
        if (at->size && (at->size < sizeof to || memcmp(at->data, from.data, sizeof to) != 0))
            code = lk_fail(err, LK_ENOTFOUND, "the table %s was dropped and made again while it was compacted", t->name);
        else if (at->size)
            code = lk__table_set(&from, lk__table_bytes(at), err);
    }
    if (code == 0) code = lk_kv_cursor_open(txn, lk__table_bytes(&from), lk_bytes(to, sizeof to), out, err);
    lk_buf_release(&from);
    return code;
}

/* --- cells ----------------------------------------------------------------------------------------------- */

/* Walking over all cells of a table, also of families that are not there any more. */
struct walk {
    struct sweep *sweep;
    struct lk__table_writer *writer;
    struct lk_kv_cursor *cursor;
    struct lk_buf column, row, key, row_text;
    const struct lk__table_family *family; /* of the column; NULL: a dropped one */
    int64_t nth;
    bool row_changed;
    bool wrote; /* since the cursor moved: it only knows where it was */
};

/* The row that was walked over is at its end. */
static int end_row(struct walk *w, struct lk_err *err) {
    struct lk_bytes row;
    if (!w->row_changed) return 0;
    w->row_changed = false;
    w->wrote = true;
    int code = lk__table_part_read(lk__table_row_part(&w->row), &w->row_text, &row, err);
    return code ? code : lk__table_writer_row_done(w->writer, row, false, err);
}

/* nth, column, row, family for the cell that the cursor stands on; *garbage. */
static int look_at(struct walk *w, struct lk_bytes key, bool *garbage, struct lk_err *err) {
    struct lk__table_cell_key at;
    int code = lk__table_cell_key_read(key, &at, err);
    if (code != 0) return code;
    if (w->column.size == at.column && memcmp(w->column.data, key.data, at.column) == 0)
        w->nth++;
    else {
        if (w->row.size != at.row || memcmp(w->row.data, key.data, at.row) != 0) {
            code = end_row(w, err);
            if (code == 0) code = lk__table_set(&w->row, lk_bytes(key.data, at.row), err);
        }
        if (code == 0) code = lk__table_set(&w->column, lk_bytes(key.data, at.column), err);
        if (code != 0) return code;
        w->family =
            lk__table_schema_family_of(w->writer->schema, lk_bytes((const char *)key.data + at.row, at.family - at.row));
        w->nth = 0;
    }
    int64_t us = lk__table_read_descending((const unsigned char *)key.data + key.size - 8);
    *garbage = !w->family || lk__table_gc_garbage(&w->family->rule, w->nth, w->sweep->now_us - us);
    return 0;
}

static int remove_here(struct walk *w, struct lk_err *err) {
    int code = w->wrote ? lk_kv_cursor_seek(w->cursor, lk__table_bytes(&w->key), err) : 0;
    if (code == 0) code = lk__table_writer_remove(w->writer, lk__table_bytes(&w->key), lk_kv_cursor_value(w->cursor), err);
    w->row_changed = true;
    return code;
}

/* From s->at. Of a read transaction: to the first garbage, or far enough. Of a write transaction: removes garbage. */
static int walk_cells(struct walk *w, bool removes, struct lk_err *err) {
    struct sweep *s = w->sweep;
    uint64_t visited = 0, removed = 0, walked = 0; /* walked: since the first one was removed */
    int code = lk_kv_cursor_first(w->cursor, err);
    s->garbage = s->done = false;
    while (code == 0) {
        bool garbage = false, same_column = w->column.size > 0;
        w->wrote = false;
        if ((code = lk__table_set(&w->key, lk_kv_cursor_key(w->cursor), err)) != 0) break;
        struct lk_bytes key = lk__table_bytes(&w->key);
        same_column =
            same_column && key.size == w->column.size + 8 && memcmp(key.data, w->column.data, w->column.size) == 0;
        bool enough = removes ? removed >= REMOVE || walked >= WALK || (removed == 0 && visited >= WALK && !same_column)
                              : visited >= LOOK && !same_column;
        code = look_at(w, key, &garbage, err);
        if (code != 0 || enough || (garbage && !removes)) {
            s->garbage = garbage && !removes;
            break;
        }
        visited++;
        if (garbage) code = remove_here(w, err);
        removed += garbage;
        walked += removed > 0;
        if (code == 0) code = lk_kv_cursor_next(w->cursor, err);
    }
    if (code == LK_ENOTFOUND) {
        s->done = true;
        code = 0;
    }
    s->visited = visited;
    s->removed = removed;
    return code ? code : lk__table_set(&s->next, lk__table_bytes(&w->column), err);
}

/* Where a killed compaction goes on: "t/compact/ID", the key's bytes in hexadecimal. */
static int save_place(struct sweep *s, struct lk_kv_txn *txn, uint32_t id, struct lk_err *err) {
    char name[16];
    struct lk_buf hex = LK_BUF_INIT;
    snprintf(name, sizeof name, "%u", (unsigned)id);
    int code = 0;
    s->saved = true;
    for (size_t i = 0; i < s->next.size && code == 0; i++)
        code = lk_buf_printf(&hex, "%02x", (unsigned char)s->next.data[i]);
    json_t *row = code == 0 ? json_pack("{s:s}", "at", hex.data ? hex.data : "") : NULL;
    code = row ? lk__table_row_put(txn, "compact", name, row, err)
               : lk_fail(err, LK_ENOMEM, "out of memory compacting a table");
    json_decref(row);
    lk_buf_release(&hex);
    return code;
}
static int load_place(struct sweep *s, struct lk_kv_txn *txn, uint32_t id, struct lk_err *err) {
    char name[16];
    json_t *row;
    snprintf(name, sizeof name, "%u", (unsigned)id);
    int code = lk__table_row_get(txn, "compact", name, &row, err);
    const char *hex = json_string_value(json_object_get(row, "at"));
    size_t n = hex ? strlen(hex) : 0;
    s->at.size = 0;
    for (size_t i = 0; i + 1 < n && code == 0; i += 2) {
        unsigned byte;
        if (sscanf(hex + i, "%2x", &byte) != 1) break;
        if (lk_buf_append(&s->at, &(unsigned char){(unsigned char)byte}, 1) != 0)
            code = lk_fail(err, LK_ENOMEM, "out of memory compacting a table");
    }
    const unsigned char *p = (const unsigned char *)s->at.data;
    if (code == 0 && n > 0 &&
        (s->at.size != n / 2 || n % 2 || s->at.size < LK__KEY_PREFIX || p[0] != 'T' ||
         ((uint32_t)p[1] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 8 | p[4]) != id || p[5] != LK__CELLS))
        code = lk_fail(err, LK_ECORRUPT,
                       "the store's row t/compact/%s is no place in its table; without it the table is "
                       "compacted from its beginning",
                       name);
    json_decref(row);
    return code;
}

static int walk_in(struct sweep *s, struct lk_kv_txn *txn, bool removes, struct lk_err *err) {
    struct lk__table_writer writer;
    struct walk w = {.sweep = s, .writer = &writer};
    int code = lk__table_writer_open(&writer, s->table, txn, err);
    if (code == 0) code = open_from(txn, s->table, writer.schema->id, LK__CELLS, &s->at, &w.cursor, err);
    if (code == 0) code = walk_cells(&w, removes, err);
    if (code == 0) code = end_row(&w, err);
    lk_kv_cursor_close(w.cursor);
    if (code == 0 && txn->write) code = save_place(s, txn, writer.schema->id, err);
    struct lk_buf *buffers[] = {&w.column, &w.row, &w.key, &w.row_text};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) lk_buf_release(buffers[i]);
    lk__table_writer_close(&writer);
    return code;
}
static int remove_some(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    return walk_in(arg, txn, true, err);
}
static int look_for_some(struct sweep *s, struct lk_err *err) {
    struct lk_kv_txn *txn;
    int code = lk_kv_begin(s->table->store->kv, false, &txn, err);
    if (code != 0) return code;
    code = walk_in(s, txn, false, err);
    lk_kv_abort(txn);
    return code;
}

typedef int progress_fn(void *arg, const struct lk_table_compact_result *);
struct telling {
    progress_fn *fn;
    void *arg;
    struct lk_table_compact_result *result;
};
static int tell(const struct telling *t) {
    return t->fn ? t->fn(t->arg, t->result) : 0;
}

/* From s->at to the end. */
static int sweep_cells(struct sweep *s, const struct telling *t, struct lk_err *err) {
    int code = 0;
    s->done = false;
    while (code == 0 && !s->done) {
        s->now_us = lk_clock_wall_ms() * 1000;
        code = look_for_some(s, err);
        if (code != 0) break;
        t->result->visited += s->visited;
        code = lk__table_set(&s->at, lk__table_bytes(&s->next), err);
        while (code == 0 && s->garbage) {
            code = lk_kv_update(s->table->store->kv, remove_some, s, LK_LAZY, NULL, err);
            if (code != 0) break;
            t->result->visited += s->visited;
            t->result->removed += s->removed;
            code = lk__table_set(&s->at, lk__table_bytes(&s->next), err);
            s->garbage = !s->done && s->removed >= REMOVE; /* much more, probably */
        }
        if (code == 0) code = tell(t);
    }
    return code;
}

/* --- what pins kept -------------------------------------------------------------------------------------- */

struct past {
    struct lk_table *table;
    enum lk__table_space space;
    struct lk_buf at, next;
    bool done;
    uint64_t removed;
};

static bool pin_sees(const struct lk__table_schema *s, int64_t since, int64_t until) {
    for (size_t i = 0; i < s->pin_count; i++)
        if (since < s->pins[i].at_ms && s->pins[i].at_ms <= until) return true;
    return false;
}

/* Whether no pin needs this row of the past, or of the log. */
static int needless(const struct past *p, const struct lk__table_schema *s, const struct lk_kv_cursor *c, bool *out,
                    struct lk_err *err) {
    struct lk_bytes key = lk_kv_cursor_key(c);
    const unsigned char *end = (const unsigned char *)key.data + key.size;
    int64_t since;
    if (key.size < LK__KEY_PREFIX + 9) return lk_fail(err, LK_ECORRUPT, "a table's past has a row that is none");
    if (p->space == LK__LOG) { /* written behind this pin: needed by it and by earlier ones */
        since = lk__table_read_ascending((const unsigned char *)key.data + LK__KEY_PREFIX);
        *out = true;
        for (size_t i = 0; i < s->pin_count; i++)
            if (s->pins[i].at_ms <= since) *out = false;
        return 0;
    }
    int code = lk__table_value_since(lk_kv_cursor_value(c), &since, err);
    if (code == 0) *out = !pin_sees(s, since, lk__table_read_ascending(end - 8));
    return code;
}

static int forget_some(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    struct past *p = arg;
    struct lk__table_schema *s;
    struct lk_kv_cursor *c = NULL;
    struct lk_buf key = LK_BUF_INIT;
    int code = lk__table_schema(p->table, txn, &s, err);
    if (code == 0) code = open_from(txn, p->table, s->id, p->space, &p->at, &c, err);
    if (code != 0) {
        lk__table_schema_unref(s);
        return code;
    }
    code = lk_kv_cursor_first(c, err);
    p->removed = 0;
    for (size_t visited = 0; code == 0 && visited < WALK && p->removed < REMOVE; visited++) {
        bool goes = false;
        code = needless(p, s, c, &goes, err);
        if (code == 0) code = lk__table_set(&key, lk_kv_cursor_key(c), err);
        if (code == 0 && goes) code = lk_kv_delete(txn, lk__table_bytes(&key), err);
        if (code != 0) break;
        p->removed += goes;
        code = lk_kv_cursor_next(c, err);
    }
    p->done = code == LK_ENOTFOUND;
    if (code == 0) code = lk__table_set(&p->next, lk_kv_cursor_key(c), err);
    lk_kv_cursor_close(c);
    lk_buf_release(&key);
    lk__table_schema_unref(s);
    return code == LK_ENOTFOUND ? 0 : code;
}

static int forget(struct lk_table *t, enum lk__table_space space, const struct telling *telling, struct lk_err *err) {
    struct past p = {.table = t, .space = space};
    int code = 0;
    while (code == 0 && !p.done) {
        code = lk_kv_update(t->store->kv, forget_some, &p, LK_LAZY, NULL, err);
        if (code == 0) telling->result->history += p.removed;
        if (code == 0 && !p.done) code = lk__table_set(&p.at, lk__table_bytes(&p.next), err);
        if (code == 0) code = tell(telling);
    }
    lk_buf_release(&p.at);
    lk_buf_release(&p.next);
    return code;
}

/* --- dropped families and tables ------------------------------------------------------------------------- */

/* All cells were looked at. Families whose cells are gone: their generations can be given anew; no place to go on from. */
struct ending {
    const char *name;
    json_t *row; /* the table's, as it was before the sweep */
};
static int end(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    const struct ending *e = arg;
    char id[16];
    json_t *row;
    json_int_t number = json_integer_value(json_object_get(e->row, "id"));
    int code = lk__table_row_of(txn, e->name, &row, err);
    if (code != 0 || !row) return code;
    snprintf(id, sizeof id, "%lld", (long long)number);
    json_t *list = json_object_get(row, "dropped"), *gone = json_object_get(e->row, "dropped");
    bool same = json_integer_value(json_object_get(row, "id")) == number;
    for (size_t i = json_array_size(list); same && i-- > 0;)
        for (size_t k = 0; k < json_array_size(gone); k++)
            if (json_equal(json_array_get(list, i), json_array_get(gone, k))) { /* `altered` too: not dropped once more */
                json_array_remove(list, i);
                break;
            }
    if (same && json_array_size(gone)) code = lk__table_row_put(txn, "table", e->name, row, err);
    if (same && code == 0) code = lk__table_row_delete(txn, "compact", id, err);
    json_decref(row);
    return code;
}

static int begin(struct lk_table *t, struct sweep *s, json_t **row, struct lk_err *err) {
    struct lk_kv_txn *txn;
    struct lk__table_schema *schema = NULL;
    int code = lk_kv_begin(t->store->kv, false, &txn, err);
    if (code != 0) return code;
    code = lk__table_schema(t, txn, &schema, err);
    if (code == 0) code = lk__table_row_of(txn, t->name, row, err);
    if (code == 0) code = load_place(s, txn, schema->id, err);
    lk__table_schema_unref(schema);
    lk_kv_abort(txn);
    return code;
}

int lk_table_compact(struct lk_table *t, progress_fn *progress, void *arg, struct lk_table_compact_result *out,
                     struct lk_err *err) {
    struct sweep s = {.table = t};
    struct telling telling = {progress, arg, out};
    json_t *row = NULL;
    *out = (struct lk_table_compact_result){0};
    int code = lk__table_expire_pins(t->store, err);
    if (code == 0) code = lk__table_sweep_dropped(t->store, &out->removed, err);
    if (code == 0) code = begin(t, &s, &row, err);
    bool from_the_middle = s.at.size > 0;
    if (code == 0) code = sweep_cells(&s, &telling, err);
    if (code == 0 && from_the_middle) { /* what a killed one had passed over may hold families that were dropped since */
        s.at.size = 0;
        code = sweep_cells(&s, &telling, err);
    }
    struct ending e = {t->name, row};
    if (code == 0 && (s.saved || from_the_middle || json_array_size(json_object_get(row, "dropped"))))
        code = lk_kv_update(t->store->kv, end, &e, LK_DURABLE, NULL, err);
    if (code == 0) code = forget(t, LK__CELLS_PAST, &telling, err);
    if (code == 0) code = forget(t, LK__SAMPLES_PAST, &telling, err);
    if (code == 0) code = forget(t, LK__LOG, &telling, err);
    json_decref(row);
    lk_buf_release(&s.at);
    lk_buf_release(&s.next);
    return code;
}

/* --- dropped tables -------------------------------------------------------------------------------------- */

struct remains {
    char name[16]; /* of "t/drop/ID" */
    uint32_t id;
    bool found, done;
    uint64_t removed;
    struct lk_err *err;
};
static int first_dropped(void *arg, const char *name, json_t *row) {
    struct remains *r = arg;
    (void)row;
    r->found = true;
    unsigned long long id = strtoull(name, NULL, 10);
    snprintf(r->name, sizeof r->name, "%lu", (unsigned long)(id > UINT32_MAX ? 0 : id));
    if (id < 1 || id > UINT32_MAX || strcmp(r->name, name) != 0) /* it would be another table's rows that go */
        return lk_fail(r->err, LK_ECORRUPT, "the store's row t/drop/%s names no table", name);
    r->id = (uint32_t)id;
    return 1;
}
static int remove_remains(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    struct remains *r = arg;
    struct lk_kv_cursor *c = NULL;
    struct lk_buf from = LK_BUF_INIT, to = LK_BUF_INIT, key = LK_BUF_INIT;
    int code = lk__table_key_begin(&from, r->id, 0, err);
    if (code == 0) code = lk__table_key_begin(&to, r->id, 0xff, err);
    if (code == 0) code = lk_kv_cursor_open(txn, lk__table_bytes(&from), lk__table_bytes(&to), &c, err);
    if (code == 0) code = lk_kv_cursor_first(c, err);
    for (r->removed = 0; code == 0 && r->removed < WALK; r->removed++) {
        code = lk__table_set(&key, lk_kv_cursor_key(c), err);
        if (code == 0) code = lk_kv_delete(txn, lk__table_bytes(&key), err);
        if (code == 0) code = lk_kv_cursor_next(c, err);
    }
    r->done = code == LK_ENOTFOUND;
    if (r->done) code = 0;
    lk_kv_cursor_close(c);
    if (code == 0 && r->done) code = lk__table_row_delete(txn, "drop", r->name, err);
    if (code == 0 && r->done) code = lk__table_row_delete(txn, "compact", r->name, err);
    lk_buf_release(&from);
    lk_buf_release(&to);
    lk_buf_release(&key);
    return code;
}

int lk__table_sweep_dropped(struct lk_store *store, uint64_t *removed, struct lk_err *err) {
    for (;;) {
        struct remains r = {.err = err};
        struct lk_kv_txn *txn;
        int code = lk_kv_begin(store->kv, false, &txn, err);
        if (code != 0) return code;
        code = lk__table_row_list(txn, "drop", first_dropped, &r, err);
        lk_kv_abort(txn);
        if (code < 0 || !r.found) return code < 0 ? code : 0;
        for (r.done = false, code = 0; code == 0 && !r.done; *removed += r.removed)
            code = lk_kv_update(store->kv, remove_remains, &r, LK_LAZY, NULL, err);
        if (code != 0) return code;
    }
}
