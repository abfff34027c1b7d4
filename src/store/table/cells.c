/* From rows of the kv to cells: whole rows, families, columns are passed over by seeking. */
#include "store/table/cells.h"
#include "lockstep/base/mem.h"
#include "lockstep/base/progress.h"
#include "store/table/gc_rule.h"
#include <string.h>

#define STEPS 4 /* cells to walk over before a seek is cheaper */

int lk__table_cells_open(struct lk__table_cells *c, struct lk_table *t, struct lk_kv_txn *txn, int64_t pinned_ms,
                         struct lk_table_read_stats *stats, struct lk_err *err) {
    *c = (struct lk__table_cells){.stats = stats, .code = LK_ENOTFOUND, .table = t};
    int code = lk__table_buffers_take(t, &c->buffers, err);
    if (code != 0) return code;
    struct lk_buf **own[] = {&c->row,        &c->column, &c->row_text,  &c->qualifier_text,
                             &c->value_text, &c->seek,   &c->view.seek, &c->view.shown};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) *own[i] = &c->buffers->of[i];
    code = lk__table_schema_at(t, txn, pinned_ms, &c->schema, err);
    if (code != 0) {
        lk__table_buffers_give(t, c->buffers);
        return code;
    }
    c->now_us = (pinned_ms ? pinned_ms : lk_clock_wall_ms()) * 1000;
    code = lk__table_view_open(&c->view, txn, c->schema->id, LK__CELLS, pinned_ms, err);
    if (code != 0) lk__table_cells_close(c);
    return code;
}

void lk__table_cells_close(struct lk__table_cells *c) {
    lk__table_view_close(&c->view);
    lk__table_schema_unref(c->schema);
    lk__table_buffers_give(c->table, c->buffers);
    *c = (struct lk__table_cells){0};
}

/* --- moves of the view ----------------------------------------------------------------------------------- */

static int moved(struct lk__table_cells *c, int code) {
    c->code = code;
    c->fresh = code == 0;
    if (code == 0) c->stats->visited++;
    return code == LK_ENOTFOUND ? 0 : code;
}
static int seek(struct lk__table_cells *c, struct lk_bytes key, struct lk_err *err) {
    c->stats->seeks++;
    return moved(c, lk__table_view_seek(&c->view, key, err));
}
static int step(struct lk__table_cells *c, struct lk_err *err) {
    return moved(c, lk__table_view_next(&c->view, err));
}

/* `with` ends a part: 0xff behind its zero byte would be more of the part. */
static bool begins_with(struct lk_bytes key, const struct lk_buf *with) {
    return key.size > with->size && memcmp(key.data, with->data, with->size) == 0 &&
           ((const unsigned char *)key.data)[with->size] != 0xff;
}

/* Out of what the first `size` bytes of the key say, forwards: some steps, then a seek to `beyond` in c->seek-> */
static int leave(struct lk__table_cells *c, const struct lk_buf *what, struct lk_err *err) {
    for (int i = 0; i < STEPS; i++) {
        if (c->code != 0 || !begins_with(c->view.key, what)) return 0;
        int code = step(c, err);
        if (code != 0) return code;
    }
    if (c->code != 0 || !begins_with(c->view.key, what)) return 0;
    int code = lk__table_set(c->seek, lk_bytes(what->data, what->size), err);
    if (code == 0) code = lk__table_key_past_part(c->seek, err);
    return code ? code : seek(c, lk__table_bytes(c->seek), err);
}

/* --- rows ------------------------------------------------------------------------------------------------ */

/* The row that the view stands on. */
static int enter_row(struct lk__table_cells *c, struct lk_err *err) {
    struct lk__table_cell_key at;
    if (c->code != 0) return c->code;
    int code = lk__table_cell_key_read(c->view.key, &at, err);
    if (code == 0) code = lk__table_set(c->row, lk_bytes(c->view.key.data, at.row), err);
    if (code != 0) return code;
    c->column->size = 0;
    c->family = NULL;
    return lk__table_part_read(lk__table_row_part(c->row), c->row_text, &c->cell.row, err);
}

int lk__table_cells_seek(struct lk__table_cells *c, struct lk_bytes key, struct lk_err *err) {
    int code = seek(c, key, err);
    return code ? code : enter_row(c, err);
}

int lk__table_cells_row(struct lk__table_cells *c, struct lk_bytes key, struct lk_err *err) {
    int code = lk__table_cells_seek(c, key, err);
    if (code != 0) return code;
    return c->row->size == key.size && memcmp(c->row->data, key.data, key.size) == 0 ? 0 : LK_ENOTFOUND;
}

int lk__table_cells_before(struct lk__table_cells *c, struct lk_bytes key, struct lk_err *err) {
    c->stats->seeks++;
    int code = moved(c, lk__table_view_before(&c->view, key, err));
    if (code == 0) code = enter_row(c, err);
    return code ? code : lk__table_cells_again(c, err);
}

int lk__table_cells_next_row(struct lk__table_cells *c, struct lk_err *err) {
    int code = leave(c, c->row, err);
    return code ? code : enter_row(c, err);
}

int lk__table_cells_again(struct lk__table_cells *c, struct lk_err *err) {
    c->column->size = 0;
    c->family = NULL;
    int code = seek(c, lk__table_bytes(c->row), err);
    return code ? code : c->code;
}

/* --- columns --------------------------------------------------------------------------------------------- */

/* Where the family of the key ends that begins with c->row: its last byte is the generation. 0: it is no cell's. Mostly it
 * is the family of the cell before. */
static size_t enter_family(struct lk__table_cells *c, const unsigned char *key, size_t size) {
    size_t row = c->row->size, end = c->family_end, i = row;
    if (c->family && end < size && memcmp(c->column->data + row, key + row, end - row) == 0) return end;
    while (i < size && key[i] > 31 && key[i] < 127) i++;
    if (i >= size || i == row || key[i] > 31) return 0;
    c->family = lk__table_schema_family_of(c->schema, lk_bytes(key + row, i + 1 - row));
    return i + 1;
}

/* The column that the view stands on, in this row. c->family NULL: of a family that is not there. */
static int enter_column(struct lk__table_cells *c, struct lk_err *err) {
    struct lk_bytes key = c->view.key;
    const unsigned char *p = key.data;
    size_t column = key.size - 8, end = key.size < c->row->size + 11 ? 0 : enter_family(c, p, key.size - 9);
    if (end == 0 || p[column - 1] != 0 || p[column] >= 0x80) /* leave() goes past all that is below 0x80 */
        return lk_fail(err, LK_ECORRUPT, "a table's row in the store is no cell (a key of %zu bytes)", key.size);
    int code = lk__table_set(c->column, lk_bytes(p, column), err);
    c->family_end = end;
    c->nth = 0;
    if (code != 0 || !c->family) return code;
    c->cell.family = c->family->name;
    return lk__table_part_read(lk_bytes(c->column->data + end, column - end), c->qualifier_text, &c->cell.qualifier, err);
}

int lk__table_cells_skip_family(struct lk__table_cells *c, struct lk_err *err) {
    if (!c->column->size) return 0;
    int code = lk__table_set(c->seek, lk_bytes(c->column->data, c->family_end), err);
    if (code != 0) return code;
    c->seek->data[c->seek->size - 1]++;
    c->column->size = 0;
    return seek(c, lk__table_bytes(c->seek), err);
}

int lk__table_cells_skip_column(struct lk__table_cells *c, struct lk_err *err) {
    int code = c->column->size ? leave(c, c->column, err) : 0;
    c->column->size = 0;
    return code;
}

int lk__table_cells_next(struct lk__table_cells *c, struct lk_err *err) {
    for (;;) {
        int code = 0;
        if (c->code == 0 && !c->fresh) code = step(c, err);
        if (code != 0) return code;
        if (c->code != 0) return c->code;
        struct lk_bytes key = c->view.key;
        if (!begins_with(key, c->row)) return LK_ENOTFOUND;
        if (c->column->size && key.size == c->column->size + 8 && begins_with(key, c->column) &&
            ((const unsigned char *)key.data)[c->column->size] < 0x80)
            c->nth++;
        else
            code = enter_column(c, err);
        if (code != 0) return code;
        if (!c->family) {
            if ((code = lk__table_cells_skip_family(c, err)) != 0) return code;
            continue;
        }
        int64_t us = lk__table_read_descending((const unsigned char *)key.data + key.size - 8);
        if (lk__table_gc_garbage(&c->family->rule, c->nth, c->now_us - us)) {
            if ((code = lk__table_cells_skip_column(c, err)) != 0) return code;
            continue;
        }
        c->cell.timestamp_us = us;
        c->fresh = false;
        return lk__table_value_read(c->view.value, c->value_text, &c->cell.value, err);
    }
}

int lk__table_cells_skip_to(struct lk__table_cells *c, const char *family, struct lk_bytes qualifier, struct lk_err *err) {
    const struct lk__table_family *f = lk__table_schema_family(c->schema, family);
    int code = lk__table_set(c->seek, lk_bytes(c->row->data, c->row->size), err);
    if (code == 0)
        code = f ? lk__table_key_family(c->seek, f->name, f->generation, err) : lk__table_key_past_part(c->seek, err);
    if (code == 0 && f && qualifier.size) code = lk__table_key_part(c->seek, qualifier, err);
    c->column->size = 0;
    return code ? code : seek(c, lk__table_bytes(c->seek), err);
}

static bool counts_versions(const struct lk_gc_rule *r) {
    if (r->kind == LK_GC_MAX_VERSIONS) return true;
    for (size_t i = 0; i < r->part_count; i++)
        if (counts_versions(&r->parts[i])) return true;
    return false;
}
int lk__table_cells_skip_newer(struct lk__table_cells *c, int64_t before_us, struct lk_err *err) {
    if (!c->column->size || before_us < 1 || counts_versions(&c->family->rule)) return 0;
    int code = lk__table_set(c->seek, lk_bytes(c->column->data, c->column->size), err);
    if (code == 0) code = lk__table_key_descending(c->seek, before_us - 1, err);
    return code ? code : seek(c, lk__table_bytes(c->seek), err);
}
