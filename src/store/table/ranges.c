/* Rows and ranges of a read, sorted and joined. */
#include "store/table/ranges.h"
#include "lockstep/base/mem.h"
#include "store/kv/kv_engine.h"
#include <stdlib.h>
#include <string.h>

/* While the bytes grow, bounds are places in them. */
struct place {
    size_t from, from_size, to, to_size;
};
struct making {
    struct lk__table_intervals *out;
    struct place *places;
    size_t count;
    uint32_t table;
    struct lk_err *err;
};

static int check(struct lk_bytes bound, struct lk_err *err) {
    if (bound.size <= LK_TABLE_ROW_MAX + 1) return 0;
    return lk_fail(err, LK_EINVAL, "a row's key or a bound of %zu bytes; at most %d are possible", bound.size,
                   LK_TABLE_ROW_MAX);
}

/* The key where the row begins or ends; data NULL: where the table does. */
static int add_bound(struct making *m, struct lk_bytes row, bool end_of_row, bool end_of_table, size_t *at, size_t *size) {
    int code = check(row, m->err);
    if (code == 0) code = lk__table_key_begin(m->out->key, m->table, LK__CELLS, m->err);
    if (code == 0 && row.data) code = lk__table_key_part(m->out->key, row, m->err);
    if (code == 0 && row.data && end_of_row) code = lk__table_key_past_part(m->out->key, m->err);
    if (code != 0) return code;
    if (!row.data && end_of_table) m->out->key->data[LK__KEY_PREFIX - 1]++;
    *at = m->out->bytes->size;
    *size = m->out->key->size;
    if (lk_buf_append(m->out->bytes, m->out->key->data, m->out->key->size) == 0) return 0;
    return lk_fail(m->err, LK_ENOMEM, "out of memory for %zu ranges", m->count);
}

static int add(struct making *m, struct lk_table_range r) {
    struct place *p = &m->places[m->count++];
    int code = add_bound(m, r.from, r.from_open, false, &p->from, &p->from_size);
    return code ? code : add_bound(m, r.to, r.to_closed, true, &p->to, &p->to_size);
}

static int by_from(const void *a, const void *b) {
    const struct lk__table_interval *x = a, *y = b;
    return lk__kv_compare(x->from, y->from);
}

/* Within one beginning of keys. */
static int add_prefix(struct lk_bytes prefix, struct making *m, struct lk__table_interval *out) {
    unsigned char end[LK_TABLE_ROW_MAX + 1];
    size_t size;
    if (prefix.size > LK_TABLE_ROW_MAX)
        return lk_fail(m->err, LK_EINVAL, "a beginning of %zu bytes of row keys", prefix.size);
    bool ends = lk_kv_prefix_end(prefix, end, &size);
    struct place p;
    int code = add_bound(m, prefix, false, false, &p.from, &p.from_size);
    if (code == 0) code = add_bound(m, ends ? lk_bytes(end, size) : lk_bytes(NULL, 0), false, true, &p.to, &p.to_size);
    const char *base = m->out->bytes->data;
    if (code == 0)
        *out = (struct lk__table_interval){lk_bytes(base + p.from, p.from_size), lk_bytes(base + p.to, p.to_size)};
    return code;
}

static void join(struct lk__table_intervals *all, const struct lk__table_interval *within) {
    size_t n = 0;
    for (size_t i = 0; i < all->count; i++) {
        struct lk__table_interval v = all->list[i];
        if (within && lk__kv_compare(v.from, within->from) < 0) v.from = within->from;
        if (within && lk__kv_compare(v.to, within->to) > 0) v.to = within->to;
        if (lk__kv_compare(v.from, v.to) >= 0) continue;
        if (n > 0 && lk__kv_compare(v.from, all->list[n - 1].to) <= 0) {
            if (lk__kv_compare(v.to, all->list[n - 1].to) > 0) all->list[n - 1].to = v.to;
        } else
            all->list[n++] = v;
    }
    all->count = n;
}

int lk__table_intervals_make(const struct lk_table_read *read, uint32_t table, struct lk_bytes prefix,
                             struct lk__table_intervals *out, struct lk_err *err) {
    size_t most = read->row_count + read->range_count + 1;
    struct place few[LK__FEW];
    struct making m = {.out = out, .table = table, .err = err, .places = few};
    out->list = out->few;
    out->count = 0;
    if (most > LK__FEW) {
        m.places = lk_calloc(most, sizeof *m.places);
        out->list = lk_calloc(most, sizeof *out->list);
    }
    struct lk__table_interval within;
    int code = m.places && out->list ? 0 : lk_fail(err, LK_ENOMEM, "out of memory for %zu ranges", most);
    for (size_t i = 0; i < read->row_count && code == 0; i++) {
        struct lk_bytes row = lk_bytes(read->rows[i].data ? read->rows[i].data : "", read->rows[i].size);
        code = add(&m, (struct lk_table_range){.from = row, .to = row, .to_closed = true});
    }
    for (size_t i = 0; i < read->range_count && code == 0; i++) code = add(&m, read->ranges[i]);
    if (code == 0 && m.count == 0) code = add(&m, (struct lk_table_range){0});
    if (code == 0 && prefix.size) code = add_prefix(prefix, &m, &within);
    for (size_t i = 0; i < m.count && code == 0; i++) {
        const struct place *p = &m.places[i];
        out->list[i] = (struct lk__table_interval){lk_bytes(out->bytes->data + p->from, p->from_size),
                                                   lk_bytes(out->bytes->data + p->to, p->to_size)};
    }
    if (m.places != few) lk_free(m.places);
    if (code != 0) {
        lk__table_intervals_free(out);
        return code;
    }
    out->count = m.count;
    if (out->count > 1) qsort(out->list, out->count, sizeof *out->list, by_from);
    join(out, prefix.size ? &within : NULL);
    return 0;
}

void lk__table_intervals_free(struct lk__table_intervals *v) {
    if (v->list != v->few) lk_free(v->list);
    v->list = NULL;
}
