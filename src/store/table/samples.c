/* Rows that are known by the hash of their key, and cuts of a table by them. */
#include "lockstep/base/mem.h"
#include "store/table/cells.h"
#include <string.h>

#define ROWS_OF_A_SAMPLE 1024
#define SAMPLES_OF_A_CUT 8 /* with fewer, the rows themselves are counted */

/* --- samples --------------------------------------------------------------------------------------------- */

/* Bytes of a row that stands for 1,024 of them. */
static int row_bytes(struct lk__table_cells *c, struct lk_bytes key, uint64_t *out, struct lk_err *err) {
    *out = 0;
    int code = lk__table_cells_row(c, key, err);
    for (int i = 0; code == 0 && i < 1000; i++) { /* of a wide row, its beginning */
        code = lk__table_cells_next(c, err);
        if (code == 0) *out += c->row->size + strlen(c->cell.family) + c->cell.qualifier.size + c->cell.value.size + 16;
    }
    return code == LK_ENOTFOUND ? 0 : code;
}

int lk_table_samples(struct lk_table *t, struct lk_kv_txn *txn, int64_t pinned_ms, lk_table_sample_fn *fn, void *arg,
                     struct lk_err *err) {
    struct lk_table_read_stats stats = {0};
    struct lk__table_cells cells;
    struct lk_buf key = LK_BUF_INIT, text = LK_BUF_INIT, seek = LK_BUF_INIT, shown = LK_BUF_INIT;
    struct lk__table_view samples = {.seek = &seek, .shown = &shown};
    uint64_t offset = 0, bytes;
    int stopped = 0;
    int code = lk__table_cells_open(&cells, t, txn, pinned_ms, &stats, err);
    if (code != 0) return code;
    code = lk__table_view_open(&samples, txn, cells.schema->id, LK__SAMPLES, pinned_ms, err);
    if (code == 0) code = lk__table_key_begin(&key, cells.schema->id, LK__SAMPLES, err);
    if (code == 0) code = lk__table_view_seek(&samples, lk_bytes(key.data, key.size), err);
    while (code == 0) {
        struct lk_bytes row;
        code = lk__table_set(&key, samples.key, err);
        size_t size = code == 0 ? key.size - LK__KEY_PREFIX : 0; /* of one part, with its end */
        if (code == 0 && (size < 2 || lk__table_part_size((unsigned char *)key.data + LK__KEY_PREFIX, size) != size))
            code = lk_fail(err, LK_ECORRUPT, "a table's sample in the store is no row (a key of %zu bytes)", key.size);
        if (code == 0) code = lk__table_part_read(lk__table_row_part(&key), &text, &row, err);
        if (code != 0) break;
        key.data[LK__KEY_PREFIX - 1] = LK__CELLS;
        code = row_bytes(&cells, lk_bytes(key.data, key.size), &bytes, err);
        offset += bytes * ROWS_OF_A_SAMPLE;
        if (code == 0 && bytes > 0)
            code = stopped = fn(arg, row, offset); /* of garbage alone it is no row, compacted or not */
        if (code == 0) code = lk__table_view_next(&samples, err);
    }
    if (code == LK_ENOTFOUND && !stopped) code = fn(arg, lk_bytes("", 0), offset);
    lk__table_view_close(&samples);
    lk__table_cells_close(&cells);
    struct lk_buf *buffers[] = {&key, &text, &seek, &shown};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) lk_buf_release(buffers[i]);
    return code;
}

/* --- cuts ------------------------------------------------------------------------------------------------ */

/* Rows are counted first, then told at each n-th part of the count, so that none needs to be remembered. */
struct cutting {
    lk_table_sample_fn *fn;
    void *arg;
    size_t parts;
    uint64_t rows, seen, next; /* next: the part whose beginning is looked for */
};
static uint64_t begin_of(const struct cutting *c, uint64_t part) {
    return c->rows / c->parts * part + c->rows % c->parts * part / c->parts;
}
static int count_row(void *arg, struct lk_bytes row, uint64_t offset_bytes) {
    (void)offset_bytes;
    ((struct cutting *)arg)->rows += row.size > 0;
    return 0;
}
static int cut_at_row(void *arg, struct lk_bytes row, uint64_t offset_bytes) {
    struct cutting *c = arg;
    (void)offset_bytes;
    bool cut = row.size > 0 && c->next < c->parts && c->seen == begin_of(c, c->next);
    c->seen++;
    if (!cut) return 0;
    c->next++;
    return c->fn(c->arg, row, 0);
}

typedef int each_fn(struct lk_table *, struct lk_kv_txn *, int64_t, lk_table_sample_fn *, void *, struct lk_err *);
static int each_row(struct lk_table *t, struct lk_kv_txn *txn, int64_t pinned_ms, lk_table_sample_fn *fn, void *arg,
                    struct lk_err *err) {
    struct lk_table_read_stats stats = {0};
    struct lk__table_cells c;
    struct lk_buf key = LK_BUF_INIT;
    int stopped = 0, code = lk__table_cells_open(&c, t, txn, pinned_ms, &stats, err);
    if (code != 0) return code;
    code = lk__table_key_begin(&key, c.schema->id, LK__CELLS, err);
    if (code == 0) code = lk__table_cells_seek(&c, lk__table_bytes(&key), err);
    while (code == 0) {
        code = lk__table_cells_next(&c, err); /* rows of garbage alone are none */
        if (code == 0) code = stopped = fn(arg, c.cell.row, 0);
        if (!stopped && (code == 0 || code == LK_ENOTFOUND)) code = lk__table_cells_next_row(&c, err);
    }
    lk__table_cells_close(&c);
    lk_buf_release(&key);
    return code == LK_ENOTFOUND && !stopped ? 0 : code;
}

int lk_table_cuts(struct lk_table *t, struct lk_kv_txn *txn, int64_t pinned_ms, size_t count, lk_table_sample_fn *fn,
                  void *arg, struct lk_err *err) {
    struct cutting c = {.fn = fn, .arg = arg, .parts = count, .next = 1};
    each_fn *each = lk_table_samples;
    if (count < 1) return lk_fail(err, LK_EINVAL, "a table cannot be cut in %zu ranges", count);
    int code = each(t, txn, pinned_ms, count_row, &c, err);
    if (code == 0 && c.rows / SAMPLES_OF_A_CUT < count) {
        each = each_row;
        c.rows = 0;
        code = each(t, txn, pinned_ms, count_row, &c, err);
    }
    if (c.parts > c.rows) c.parts = (size_t)c.rows; /* each row a range */
    if (code == 0 && c.parts > 1) code = each(t, txn, pinned_ms, cut_at_row, &c, err);
    return code ? code : fn(arg, lk_bytes("", 0), 0);
}
