/* Reads: rows of the wanted ranges, their cells through a filter, to a sink. */
#include "lockstep/base/mem.h"
#include "store/kv/kv_engine.h"
#include "store/table/cells.h"
#include "store/table/filter.h"
#include "store/table/ranges.h"
#include <string.h>

struct reading {
    struct lk__table_cells cells;
    const struct lk_table_read *request;
    const struct lk_table_sink *sink;
    struct lk_table_read_stats stats;
    const struct lk__table_filter_bounds *bounds; /* NULL: no filter */
    struct lk__table_filter_run *run;
    bool told; /* a cell of this row */
    bool stop; /* the sink ended the read with this code, or, with 0, the limit of rows is reached */
    int stopped;
};

static int stop(struct reading *r, int code) {
    r->stop = true;
    r->stopped = code;
    return LK_ESTOPPED;
}

static int emit(void *arg, const struct lk_cell *cell) {
    struct reading *r = arg;
    r->told = true;
    r->stats.cells++;
    int code = r->sink->cell(r->sink->arg, cell);
    return code ? stop(r, code) : 0;
}

/* --- one row --------------------------------------------------------------------------------------------- */

enum past { BEFORE, INSIDE, BEHIND };
static enum past in_range(const struct lk_table_range *r, struct lk_bytes q) {
    int from = r->from.data ? lk__kv_compare(q, r->from) : 1, to = r->to.data ? lk__kv_compare(q, r->to) : -1;
    if (from < 0 || (from == 0 && r->from_open)) return BEFORE;
    return to < 0 || (to == 0 && r->to_closed) ? INSIDE : BEHIND;
}

/* Cells that the bounds rule out are passed over: *use false. */
static int within(struct reading *r, const struct lk__table_filter_bounds *b, bool *use, bool *row_done,
                  struct lk_err *err) {
    const struct lk_cell *cell = &r->cells.cell;
    int family = b->family ? strcmp(cell->family, b->family) : 0;
    *use = false;
    *row_done = family > 0;
    if (family > 0) return 0;
    if (family < 0) return lk__table_cells_skip_to(&r->cells, b->family, b->qualifiers.from, err);
    switch (in_range(&b->qualifiers, cell->qualifier)) {
    case BEFORE:
        if (lk__kv_compare(cell->qualifier, b->qualifiers.from) == 0) return lk__table_cells_skip_column(&r->cells, err);
        return lk__table_cells_skip_to(&r->cells, cell->family, b->qualifiers.from, err);
    case BEHIND:
        *row_done = b->family != NULL;
        return *row_done ? 0 : lk__table_cells_skip_family(&r->cells, err);
    case INSIDE:
        break;
    }
    if (cell->timestamp_us < b->from_us) return lk__table_cells_skip_column(&r->cells, err);
    if (cell->timestamp_us >= b->to_us) return lk__table_cells_skip_newer(&r->cells, b->to_us, err);
    *use = true;
    return 0;
}

static int pass_filtered(struct reading *r, struct lk_err *err) {
    const struct lk__table_filter_bounds *b = lk__table_filter_run_bounds(r->run);
    struct lk__table_cells *c = &r->cells;
    int code = 0;
    if (b->nothing) return 0;
    if (b->family) code = lk__table_cells_skip_to(c, b->family, b->qualifiers.from, err);
    while (code == 0 && (code = lk__table_cells_next(c, err)) == 0) {
        bool use, done = false;
        enum lk__table_filter_next next = LK__FILTER_CELL;
        struct lk_bytes to;
        code = within(r, b, &use, &done, err);
        if (code == 0 && use) code = lk__table_filter_cell(r->run, &c->cell, emit, r, &next, err);
        if (code != 0 || done || next == LK__FILTER_ROW) break;
        if (next == LK__FILTER_COLUMN)
            code = lk__table_filter_seek(r->run, &to) ? lk__table_cells_skip_to(c, c->cell.family, to, err)
                                                      : lk__table_cells_skip_column(c, err);
        if (next == LK__FILTER_FAMILY) code = lk__table_cells_skip_family(c, err);
    }
    return code == LK_ENOTFOUND ? 0 : code;
}

static int read_row(struct reading *r, struct lk_err *err) {
    struct lk__table_cells *c = &r->cells;
    int code = 0;
    r->told = false;
    if (!r->bounds) {
        while (code == 0 && (code = lk__table_cells_next(c, err)) == 0) code = emit(r, &c->cell);
        if (code == LK_ENOTFOUND) code = 0;
    } else if (lk__table_filter_row(r->request->filter, c->cell.row)) {
        bool first = true;
        lk__table_filter_begin(r->run, c->cell.row);
        while (code == 0 && lk__table_filter_again(r->run)) {
            if (!first) code = lk__table_cells_again(c, err);
            if (code == 0) code = pass_filtered(r, err);
            first = false;
        }
        if (code == LK_ENOTFOUND) code = 0;
    }
    if (code != 0) return code;
    r->stats.rows += r->told;
    int ended = r->sink->row_end ? r->sink->row_end(r->sink->arg, c->cell.row, r->told) : 0;
    bool enough = r->request->limit && (int64_t)r->stats.rows >= r->request->limit;
    return ended || enough ? stop(r, ended) : 0;
}

/* --- rows ------------------------------------------------------------------------------------------------ */

static int forwards(struct reading *r, const struct lk__table_interval *v, struct lk_err *err) {
    int code = lk__table_cells_seek(&r->cells, v->from, err);
    while (code == 0 && lk__kv_compare(lk_bytes(r->cells.row->data, r->cells.row->size), v->to) < 0) {
        code = read_row(r, err);
        if (code == 0) code = lk__table_cells_next_row(&r->cells, err);
    }
    return code == LK_ENOTFOUND ? 0 : code;
}

static int backwards(struct reading *r, const struct lk__table_interval *v, struct lk_err *err) {
    struct lk_buf end = LK_BUF_INIT;
    int code = lk__table_cells_before(&r->cells, v->to, err);
    while (code == 0 && lk__kv_compare(lk_bytes(r->cells.row->data, r->cells.row->size), v->from) >= 0) {
        code = read_row(r, err);
        end.size = 0;
        if (code == 0 && lk_buf_append(&end, r->cells.row->data, r->cells.row->size) != 0)
            code = lk_fail(err, LK_ENOMEM, "out of memory reading a table");
        if (code == 0) code = lk__table_cells_before(&r->cells, lk_bytes(end.data, end.size), err);
    }
    lk_buf_release(&end);
    return code == LK_ENOTFOUND ? 0 : code;
}

static int read_intervals(struct reading *r, const struct lk__table_intervals *all, struct lk_err *err) {
    int code = 0;
    for (size_t i = 0; i < all->count && code == 0; i++)
        code = r->request->reversed ? backwards(r, &all->list[all->count - 1 - i], err) : forwards(r, &all->list[i], err);
    return code && r->stop ? r->stopped : code;
}

int lk_table_read(struct lk_table *t, struct lk_kv_txn *txn, const struct lk_table_read *request,
                  const struct lk_table_sink *sink, struct lk_table_read_stats *stats, struct lk_err *err) {
    struct reading r = {.request = request, .sink = sink};
    struct lk__table_intervals rows = {.list = NULL};
    struct lk_bytes prefix = {0};
    if (request->limit < 0) return lk_fail(err, LK_EINVAL, "a limit of %lld rows", (long long)request->limit);
    int code = lk__table_cells_open(&r.cells, t, txn, request->pinned_ms, &r.stats, err);
    if (code != 0) return code;
    rows.bytes = &r.cells.buffers->of[8];
    rows.key = &r.cells.buffers->of[9];
    if (request->filter) {
        r.bounds = lk__table_filter_bounds(request->filter);
        prefix = lk__table_filter_row_prefix(request->filter);
        code = lk__table_filter_run_open(request->filter, &r.run, err);
    }
    if (code == 0) code = lk__table_intervals_make(request, r.cells.schema->id, prefix, &rows, err);
    if (code == 0 && (!r.bounds || !r.bounds->nothing || sink->row_end)) code = read_intervals(&r, &rows, err);
    lk__table_intervals_free(&rows);
    lk__table_filter_run_close(r.run);
    lk__table_cells_close(&r.cells);
    if (stats) *stats = r.stats;
    return code;
}
