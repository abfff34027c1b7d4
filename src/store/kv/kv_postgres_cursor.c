/* Cursors: windows of rows of the server, merged with the transaction's own writes; a write transaction remembers the
 * intervals that were walked. */
#include "store/kv/kv_postgres.h"
#include <string.h>

#define FIRST_ROWS   16
#define MOST_ROWS    4096
#define WINDOW_BYTES (1 << 20)

struct cursor {
    struct lk_kv_cursor base;
    struct lk__kv_pg_txn *txn;
    /* The window: all rows of the server in [low, high), or to the end where `open` is set; no rows asked yet: !res. */
    PGresult *res;
    int rows, hint;
    bool reversed, open;
    bool plain; /* stands on row `hint` of the window, in a transaction that neither writes nor remembers */
    struct lk_buf low, high;
    int next_rows; /* to ask for */
    struct lk_buf position, value, scratch;
    /* What was walked and is not in txn->walked yet: as there. */
    bool walking, walked_open;
    struct lk_buf walked_low, walked_high;
    int64_t walked_rows;
    __int128 walked_sum;
};

static int out_of_memory(struct lk_err *err) {
    return lk_fail(err, LK_ENOMEM, "out of memory for a cursor");
}
static struct lk_bytes bytes_of(const struct lk_buf *b) {
    return lk_bytes(b->data ? b->data : "", b->size);
}
static int assign(struct lk_buf *to, struct lk_bytes from, struct lk_err *err) {
    to->size = 0;
    return lk_buf_append(to, from.data, from.size) == 0 ? 0 : out_of_memory(err);
}
/* The first key behind `key`. */
static int assign_after(struct lk_buf *to, struct lk_bytes key, struct lk_err *err) {
    int code = assign(to, key, err);
    return code == 0 && lk_buf_append(to, "", 1) != 0 ? out_of_memory(err) : code;
}
static int compare(struct lk_bytes a, const struct lk_buf *b) {
    return lk__kv_pg_compare(a, bytes_of(b));
}

int lk__kv_pg_cursor_open(struct lk_kv_txn *txn, struct lk_kv_cursor **out, struct lk_err *err) {
    struct cursor *c = lk_calloc(1, sizeof *c);
    if (!c) return out_of_memory(err);
    c->base.txn = txn;
    c->txn = (struct lk__kv_pg_txn *)txn;
    c->next_rows = FIRST_ROWS;
    *out = &c->base;
    return 0;
}

/* --- what was walked -------------------------------------------------------------------------------------------- */

static int put_down(struct cursor *c, struct lk_err *err) {
    if (!c->walking) return 0;
    c->walking = false;
    return lk__kv_pg_ranges_add(&c->txn->walked, bytes_of(&c->walked_low),
                                c->walked_open ? lk_bytes(NULL, 0) : bytes_of(&c->walked_high), c->walked_rows,
                                c->walked_sum, err);
}

/* [low, high) was seen to have so many rows; high.size 0: no end. Steps in one direction make one interval. */
static int walk(struct cursor *c, struct lk_bytes low, struct lk_bytes high, int64_t rows, __int128 sum,
                struct lk_err *err) {
    bool to_end = high.size == 0;
    if (!c->txn->base.write) return 0;
    if (c->walking && compare(low, &c->walked_low) >= 0 &&
        (c->walked_open || (!to_end && compare(high, &c->walked_high) <= 0)))
        return 0;
    int code = 0;
    if (c->walking && !c->walked_open && compare(low, &c->walked_high) == 0) {
        c->walked_open = to_end;
        code = assign(&c->walked_high, high, err);
    } else if (c->walking && !to_end && compare(high, &c->walked_low) == 0) {
        code = assign(&c->walked_low, low, err);
    } else {
        code = put_down(c, err);
        c->walking = code == 0, c->walked_open = to_end;
        c->walked_rows = 0, c->walked_sum = 0;
        if (code == 0) code = assign(&c->walked_low, low, err);
        if (code == 0) code = assign(&c->walked_high, high, err);
    }
    c->walked_rows += rows, c->walked_sum += sum;
    return code;
}

void lk__kv_pg_cursor_close(struct lk_kv_cursor *base) {
    struct cursor *c = (struct cursor *)base;
    if (put_down(c, NULL) != 0) c->txn->forgot = true;
    if (c->res) lk__kv_pq.clear(c->res);
    struct lk_buf *all[] = {&c->low, &c->high, &c->position, &c->value, &c->scratch, &c->walked_low, &c->walked_high};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) lk_buf_release(all[i]);
    lk_free(c);
}

/* --- the window -------------------------------------------------------------------------------------------------- */

static struct lk_bytes field(const struct cursor *c, int row, int column) {
    int at = c->reversed ? c->rows - 1 - row : row;
    return lk_bytes(lk__kv_pq.getvalue(c->res, at, column), (size_t)lk__kv_pq.getlength(c->res, at, column));
}
static struct lk_bytes key_at(const struct cursor *c, int row) {
    return field(c, row, 3);
}
static int64_t version_at(const struct cursor *c, int row) {
    return lk__kv_pg_number(field(c, row, 0).data, 8);
}

/* As many rows as make about WINDOW_BYTES of the size that they had, and not many more than the last time. */
static void choose_next(struct cursor *c) {
    size_t bytes = 1;
    for (int i = 0; i < c->rows; i++) bytes += field(c, i, 2).size + key_at(c, i).size;
    size_t fit = c->rows ? WINDOW_BYTES / (bytes / (size_t)c->rows + 1) : FIRST_ROWS, most = 8 * (size_t)c->next_rows;
    if (fit > most) fit = most;
    c->next_rows = fit < FIRST_ROWS ? FIRST_ROWS : fit > MOST_ROWS ? MOST_ROWS : (int)fit;
}

/* Rows from `edge` on, or of back, below it; edge.size 0 of back: the last ones. */
static int fetch(struct cursor *c, struct lk_bytes edge, bool back, struct lk_err *err) {
    unsigned char limit[4];
    PGresult *res;
    bool from_end = back && edge.size == 0;
    bool goes_on = c->res && (back ? edge.size && compare(edge, &c->low) == 0 : !c->open && compare(edge, &c->high) == 0);
    if (!goes_on) c->next_rows = FIRST_ROWS;
    int asked = c->next_rows;
    lk__kv_pg_put32(limit, (uint32_t)asked);
    struct lk_bytes last = from_end || !back ? lk_bytes(c->txn->kv->end, sizeof c->txn->kv->end) : edge;
    struct lk__kv_pg_param params[] = {lk__kv_pg_param(back ? lk_bytes("", 0) : edge), lk__kv_pg_param(last), {limit, 4}};
    int code = lk__kv_pg_query(c->txn, back ? PG_BACK : PG_FORWARD, params, 3, &res, err);
    if (code != 0) return code;
    /* edge may point into this cursor's own bounds or result: take what is needed of it before those change */
    code = assign(&c->scratch, edge, err);
    if (c->res) lk__kv_pq.clear(c->res);
    c->res = res, c->rows = lk__kv_pq.ntuples(res), c->reversed = back, c->hint = 0;
    bool all = c->rows < asked;
    c->open = back ? from_end : all;
    if (back) {
        if (code == 0) code = assign(&c->high, bytes_of(&c->scratch), err);
        if (code == 0) code = assign(&c->low, all ? lk_bytes("", 0) : key_at(c, 0), err);
    } else {
        if (code == 0) code = assign(&c->low, bytes_of(&c->scratch), err);
        if (code == 0)
            code = all ? assign(&c->high, lk_bytes("", 0), err) : assign_after(&c->high, key_at(c, c->rows - 1), err);
    }
    choose_next(c);
    if (code != 0) lk__kv_pq.clear(c->res), c->res = NULL;
    return code;
}

/* The first row of the window >= key; c->rows: none. */
static int lower_bound(struct cursor *c, struct lk_bytes key) {
    int low = 0, high = c->rows;
    for (int near = c->hint - 1; near <= c->hint + 2; near++) { /* steps mostly go to a neighbour */
        if (near < 0 || near > c->rows) continue;
        if (near < c->rows && lk__kv_pg_compare(key_at(c, near), key) < 0) {
            low = near + 1;
        } else {
            high = near;
            break;
        }
    }
    while (low < high) {
        int middle = low + (high - low) / 2;
        if (lk__kv_pg_compare(key_at(c, middle), key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return c->hint = low;
}

/* The server's first row >= key, -1: there is none. */
static int row_from(struct cursor *c, struct lk_bytes key, int *row, struct lk_err *err) {
    for (struct lk_bytes at = key;;) {
        bool inside = c->res && compare(at, &c->low) >= 0 && (c->open || compare(at, &c->high) < 0);
        int code = inside ? 0 : fetch(c, at, false, err);
        if (code != 0) return code;
        *row = lower_bound(c, key);
        if (*row < c->rows) return 0;
        if (c->open) return *row = -1, 0;
        at = bytes_of(&c->high);
    }
}
/* The server's last row < key (key.size 0: the last), -1: there is none. */
static int row_below(struct cursor *c, struct lk_bytes key, int *row, struct lk_err *err) {
    for (struct lk_bytes at = key;;) {
        bool inside = c->res && (at.size ? compare(at, &c->low) > 0 && (c->open || compare(at, &c->high) <= 0) : c->open);
        int code = inside ? 0 : fetch(c, at, true, err);
        if (code != 0) return code;
        *row = (key.size ? lower_bound(c, key) : c->rows) - 1;
        if (*row >= 0) return c->hint = *row, 0;
        if (!c->low.size) return *row = -1, 0;
        at = bytes_of(&c->low);
    }
}

/* --- merged with own writes ---------------------------------------------------------------------------------------- */

static struct lk__kv_pg_node *own_row(const struct cursor *c, struct lk_bytes key, bool back) {
    const struct lk__kv_pg_map *map = &c->txn->writes;
    struct lk__kv_pg_node *node = !map->count ? NULL : back ? lk__kv_pg_map_below(map, key) : lk__kv_pg_map_from(map, key);
    while (node && node->kind != PG_ROW) node = back ? node->before : node->after[0];
    return node;
}
static bool hidden(const struct cursor *c, struct lk_bytes key) {
    if (c->txn->writes.count && lk__kv_pg_map_find(&c->txn->writes, key)) return true;
    return c->txn->deleted.count && lk__kv_pg_ranges_hold(&c->txn->deleted, key);
}

/* Stands on an own row, or on one of the window. */
static int stand(struct cursor *c, const struct lk__kv_pg_node *own, int row, struct lk_err *err) {
    int code = 0;
    c->plain = !own && !c->txn->base.write;
    if (own) {
        c->base.key = own->key, c->base.value = own->value;
    } else {
        int64_t parts = lk__kv_pg_number(field(c, row, 1).data, 4);
        c->hint = row;
        c->base.key = key_at(c, row), c->base.value = field(c, row, 2);
        if (parts) {
            c->value.size = 0;
            code = lk__kv_pg_read_parts(c->txn, c->base.key, parts, &c->value, err);
            c->base.value = bytes_of(&c->value);
        }
    }
    return code == 0 ? assign(&c->position, c->base.key, err) : code;
}

/* Walks from key to the first row that is there for this transaction; counts the server's rows on the way. */
static int forward(struct cursor *c, struct lk_bytes key, struct lk_err *err) {
    const struct lk__kv_pg_node *own = own_row(c, key, false);
    struct lk_buf from = LK_BUF_INIT;
    int64_t rows = 0;
    __int128 sum = 0;
    int row, code = assign(&from, key, err), order = 1;
    while (code == 0 && (code = row_from(c, bytes_of(&from), &row, err)) == 0) {
        order = row < 0 ? 1 : own ? lk__kv_pg_compare(key_at(c, row), own->key) : -1;
        if (order > 0) break; /* the own row comes first, or nothing comes */
        rows++, sum += version_at(c, row);
        if (order == 0 || !hidden(c, key_at(c, row))) break;
        code = assign_after(&from, key_at(c, row), err);
    }
    if (code == 0 && order < 0) own = NULL;
    bool found = code == 0 && (own || order < 0);
    if (found) code = assign_after(&from, own ? own->key : key_at(c, row), err);
    if (code == 0) code = walk(c, key, found ? bytes_of(&from) : lk_bytes(NULL, 0), rows, sum, err);
    if (code == 0) code = found ? stand(c, own, row, err) : lk_fail(err, LK_ENOTFOUND, "no row");
    lk_buf_release(&from);
    return code;
}

static int backward(struct cursor *c, struct lk_bytes key, struct lk_err *err) {
    const struct lk__kv_pg_node *own = own_row(c, key, true);
    struct lk_buf below = LK_BUF_INIT;
    int64_t rows = 0;
    __int128 sum = 0;
    int row, code = assign(&below, key, err), order = -1;
    while (code == 0 && (code = row_below(c, bytes_of(&below), &row, err)) == 0) {
        order = row < 0 ? -1 : own ? lk__kv_pg_compare(key_at(c, row), own->key) : 1;
        if (order < 0) break;
        rows++, sum += version_at(c, row);
        if (order == 0 || !hidden(c, key_at(c, row))) break;
        code = assign(&below, key_at(c, row), err);
    }
    if (code == 0 && order > 0) own = NULL;
    bool found = code == 0 && (own || order > 0);
    if (code == 0) code = walk(c, found ? own ? own->key : key_at(c, row) : lk_bytes("", 0), key, rows, sum, err);
    if (code == 0) code = found ? stand(c, own, row, err) : lk_fail(err, LK_ENOTFOUND, "no row");
    lk_buf_release(&below);
    return code;
}

int lk__kv_pg_cursor_seek(struct lk_kv_cursor *base, struct lk_bytes key, bool back, struct lk_err *err) {
    return back ? backward((struct cursor *)base, key, err) : forward((struct cursor *)base, key, err);
}

int lk__kv_pg_cursor_step(struct lk_kv_cursor *base, bool back, struct lk_err *err) {
    struct cursor *c = (struct cursor *)base;
    struct lk_buf at = LK_BUF_INIT;
    int neighbour = c->hint + (back ? -1 : 1);
    if (c->plain && neighbour >= 0 && neighbour < c->rows) return stand(c, NULL, c->hint = neighbour, err);
    int code = back ? assign(&at, bytes_of(&c->position), err) : assign_after(&at, bytes_of(&c->position), err);
    if (code == 0) code = lk__kv_pg_cursor_seek(base, bytes_of(&at), back, err);
    lk_buf_release(&at);
    return code;
}
