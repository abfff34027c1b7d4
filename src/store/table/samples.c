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
    int code = lk__table_cells_seek(c, key, err);
    if (code == 0 && (c->row->size != key.size || memcmp(c->row->data, key.data, key.size) != 0)) code = LK_ENOTFOUND;
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
        key.size = 0;
        if (lk_buf_append(&key, samples.key.data, samples.key.size) != 0)
            code = lk_fail(err, LK_ENOMEM, "out of memory for samples");
        size_t size = code == 0 ? key.size - LK__KEY_PREFIX : 0; /* of one part, with its end */
        if (code == 0 && (size < 2 || lk__table_part_size((unsigned char *)key.data + LK__KEY_PREFIX, size) != size))
            code = lk_fail(err, LK_ECORRUPT, "a table's sample in the store is no row (a key of %zu bytes)", key.size);
        if (code == 0)
            code = lk__table_part_read(lk_bytes(key.data + LK__KEY_PREFIX, key.size - LK__KEY_PREFIX), &text, &row, err);
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

/* Row keys one behind the other. */
struct keys {
    struct lk_buf bytes, ends; /* ends: size_t each */
    struct lk_err *err;
};
static size_t key_count(const struct keys *k) {
    return k->ends.size / sizeof(size_t);
}
static struct lk_bytes key_at(const struct keys *k, size_t i) {
    size_t from = i ? ((const size_t *)(const void *)k->ends.data)[i - 1] : 0;
    return lk_bytes(k->bytes.data + from, ((const size_t *)(const void *)k->ends.data)[i] - from);
}
static int add_key(struct keys *k, struct lk_bytes row) {
    int code = lk_buf_append(&k->bytes, row.data, row.size);
    if (code == 0) code = lk_buf_append(&k->ends, &k->bytes.size, sizeof k->bytes.size);
    return code == 0 ? 0 : lk_fail(k->err, LK_ENOMEM, "out of memory for the cuts of a table");
}
static int add_sample(void *arg, struct lk_bytes row, uint64_t offset_bytes) {
    (void)offset_bytes;
    return row.size ? add_key(arg, row) : 0;
}

static int all_rows(struct lk_table *t, struct lk_kv_txn *txn, int64_t pinned_ms, struct keys *out, struct lk_err *err) {
    struct lk_table_read_stats stats = {0};
    struct lk__table_cells c;
    struct lk_buf key = LK_BUF_INIT;
    int code = lk__table_cells_open(&c, t, txn, pinned_ms, &stats, err);
    if (code != 0) return code;
    code = lk__table_key_begin(&key, c.schema->id, LK__CELLS, err);
    if (code == 0) code = lk__table_cells_seek(&c, lk_bytes(key.data, key.size), err);
    while (code == 0) {
        code = lk__table_cells_next(&c, err); /* rows of garbage alone are none */
        if (code == 0) code = add_key(out, c.cell.row);
        if (code == 0 || code == LK_ENOTFOUND) code = lk__table_cells_next_row(&c, err);
    }
    lk__table_cells_close(&c);
    lk_buf_release(&key);
    return code == LK_ENOTFOUND ? 0 : code;
}

int lk_table_cuts(struct lk_table *t, struct lk_kv_txn *txn, int64_t pinned_ms, size_t count, lk_table_sample_fn *fn,
                  void *arg, struct lk_err *err) {
    struct keys k = {.err = err};
    if (count < 1) return lk_fail(err, LK_EINVAL, "a table cannot be cut in %zu ranges", count);
    int code = lk_table_samples(t, txn, pinned_ms, add_sample, &k, err);
    if (code == 0 && key_count(&k) / SAMPLES_OF_A_CUT < count) {
        k.bytes.size = k.ends.size = 0;
        code = all_rows(t, txn, pinned_ms, &k, err);
    }
    size_t n = key_count(&k), last = 0;
    if (count > n) count = n; /* each row a range */
    for (size_t i = 1; i < count && code == 0; i++) {
        size_t at = n * i / count;
        if (at > last) code = fn(arg, key_at(&k, at), 0);
        if (at > last) last = at;
    }
    if (code == 0) code = fn(arg, lk_bytes("", 0), 0);
    lk_buf_release(&k.bytes);
    lk_buf_release(&k.ends);
    return code;
}
