/* The rows of a move: windows of one store, compared with the other's and put there where they differ. */
#include "store/census.h"
#include "store/kv/kv_engine.h"
#include "store/move.h"
#include <string.h>

#define ROWS  4000 /* of a window, and so of a transaction */
#define BYTES ((size_t)16 << 20)
#define TRIES 5 /* of a window whose snapshot is lost */

/* Rows that follow each other, copied from `from`; those of `to` behind `after`, up to the last one of them, are compared
 * with them. */
struct row {
    size_t key, key_size, value_size; /* bytes of `data`; the value is behind the key */
};
struct window {
    struct lk_buf after; /* the last key of the window before; empty: none was */
    struct lk_buf data;
    struct row rows[ROWS];
    size_t count;
    bool end; /* nothing is behind it */
};

static struct lk_bytes key_at(const struct window *w, size_t i) {
    return lk_bytes(w->data.data + w->rows[i].key, w->rows[i].key_size);
}
static struct lk_bytes value_at(const struct window *w, size_t i) {
    return lk_bytes(w->data.data + w->rows[i].key + w->rows[i].key_size, w->rows[i].value_size);
}

/* On to a row that both stores have. */
static int skip_own(struct lk_kv_cursor *c, int code, struct lk_err *err) {
    while (!code && lk__store_is_of_place(lk_kv_cursor_key(c))) code = lk_kv_cursor_next(c, err);
    return code;
}
static int seek_behind(struct lk_kv_cursor *c, const struct lk_buf *after, struct lk_err *err) {
    if (!after->size) return skip_own(c, lk_kv_cursor_first(c, err), err);
    struct lk_bytes key = lk_bytes(after->data, after->size);
    int code = lk_kv_cursor_seek(c, key, err);
    if (!code && lk__kv_compare(lk_kv_cursor_key(c), key) == 0) code = lk_kv_cursor_next(c, err);
    return skip_own(c, code, err);
}
static int step(struct lk_kv_cursor *c, struct lk_err *err) {
    return skip_own(c, lk_kv_cursor_next(c, err), err);
}

/* --- reading --------------------------------------------------------------------------------------------- */

static int add(struct window *w, struct lk_bytes key, struct lk_bytes value, struct lk_err *err) {
    struct row *r = &w->rows[w->count];
    *r = (struct row){w->data.size, key.size, value.size};
    if (lk_buf_append(&w->data, key.data, key.size) || (value.size && lk_buf_append(&w->data, value.data, value.size)))
        return lk_fail(err, LK_ENOMEM, "no memory for a row of %zu bytes", key.size + value.size);
    w->count++;
    return 0;
}
static int read_window(struct window *w, struct lk_kv_txn *txn, struct lk_err *err) {
    struct lk_kv_cursor *c;
    w->count = w->data.size = 0;
    int code = lk_kv_cursor_open(txn, lk_bytes("", 0), lk_bytes("", 0), &c, err);
    if (code) return code;
    code = seek_behind(c, &w->after, err);
    while (!code && w->count < ROWS && w->data.size < BYTES) {
        code = add(w, lk_kv_cursor_key(c), lk_kv_cursor_value(c), err);
        if (!code) code = step(c, err);
    }
    w->end = code == LK_ENOTFOUND;
    lk_kv_cursor_close(c);
    return w->end ? 0 : code;
}

/* From the transaction that keeps others away, else from a snapshot of its own, so that none is held for long. */
static int next_window(struct lk__store_move *m, struct window *w, struct lk_err *err) {
    if (m->last) return read_window(w, m->last, err);
    int code = 0;
    for (int i = 0; i < TRIES; i++) {
        struct lk_kv_txn *txn;
        code = lk_kv_begin(m->from->kv, false, &txn, err);
        if (code) return code;
        code = read_window(w, txn, err);
        lk_kv_abort(txn);
        if (code != LK_EBUSY) break;
    }
    return code;
}
static int go_behind(struct window *w, struct lk_err *err) {
    w->after.size = 0;
    struct lk_bytes key = key_at(w, w->count - 1);
    return lk_buf_append(&w->after, key.data, key.size) ? lk_fail(err, LK_ENOMEM, "no memory for a key") : 0;
}

/* --- comparing and writing ------------------------------------------------------------------------------- */

struct merge {
    struct lk__store_move *move;
    const struct window *window;
    bool write;
    uint64_t put, deleted;
};

/* What stands in `to` at the cursor, against row i of the window: below 0, `to` has one too many there. */
static int order(const struct merge *g, struct lk_kv_cursor *c, bool here, size_t i) {
    const struct window *w = g->window;
    if (!here) return i < w->count ? 1 : 0;
    if (i == w->count) return -1;
    return lk__kv_compare(lk_kv_cursor_key(c), key_at(w, i));
}
/* Whether the cursor is on a row that this window speaks of. */
static bool within(const struct window *w, struct lk_kv_cursor *c) {
    return w->end || lk__kv_compare(lk_kv_cursor_key(c), key_at(w, w->count - 1)) <= 0;
}
static bool equal(struct lk_bytes a, struct lk_bytes b) {
    return a.size == b.size && (!a.size || memcmp(a.data, b.data, a.size) == 0);
}
/* here: the cursor stands behind row i, or on it; a write has taken its row from it. */
static int put(struct merge *g, struct lk_kv_txn *txn, struct lk_kv_cursor *c, bool here, size_t i, struct lk_err *err) {
    g->put++;
    int code = g->write ? lk_kv_put(txn, key_at(g->window, i), value_at(g->window, i), err) : 0;
    if (code) return code;
    if (!here) return LK_ENOTFOUND;
    return g->write ? lk_kv_cursor_seek(c, key_at(g->window, i), err) : 0;
}
static int take_away(struct merge *g, struct lk_kv_txn *txn, struct lk_kv_cursor *c, struct lk_err *err) {
    struct lk_bytes key = lk_kv_cursor_key(c);
    struct lk_buf copy = LK_BUF_INIT;
    int code = 0;
    g->deleted++;
    if (g->write && lk_buf_append(&copy, key.data, key.size)) code = lk_fail(err, LK_ENOMEM, "no memory for a key");
    if (g->write && !code) code = lk_kv_delete(txn, lk_bytes(copy.data, copy.size), err);
    lk_buf_release(&copy);
    return code;
}

/* Counts where `to` differs, and makes it equal if g->write. */
static int merge(struct lk_kv_txn *txn, struct merge *g, struct lk_err *err) {
    const struct window *w = g->window;
    struct lk_kv_cursor *c;
    g->put = g->deleted = 0;
    int code = lk_kv_cursor_open(txn, lk_bytes("", 0), lk_bytes("", 0), &c, err);
    if (code) return code;
    code = seek_behind(c, &w->after, err);
    for (size_t i = 0; !code || code == LK_ENOTFOUND;) {
        bool here = !code && within(w, c);
        if (!here && i == w->count) break;
        int o = order(g, c, here, i);
        bool moves = o <= 0; /* past the row that it stands on */
        if (o < 0)
            code = take_away(g, txn, c, err);
        else if (o > 0 || !equal(lk_kv_cursor_value(c), value_at(w, i))) {
            code = put(g, txn, c, !code, i, err);
            moves = moves || g->write; /* it stands on the row that was put */
        }
        i += o >= 0;
        if (moves && !code) code = step(c, err);
    }
    lk_kv_cursor_close(c);
    return code == LK_ENOTFOUND ? 0 : code;
}

static int merge_and_write(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    struct merge *g = arg;
    int code = lk__store_move_check(g->move, txn, err);
    return code ? code : merge(txn, g, err);
}
static int merge_only(struct merge *g, struct lk_err *err) {
    struct lk_kv_txn *txn;
    int code = lk_kv_begin(g->move->to->kv, false, &txn, err);
    if (code) return code;
    code = merge(txn, g, err);
    lk_kv_abort(txn);
    return code;
}

/* Most windows are equal when a move goes on, and reading alone waits for nobody. */
static int bring_over(struct lk__store_move *m, const struct window *w, uint64_t *changes, struct lk_err *err) {
    struct merge g = {.move = m, .window = w};
    int code = LK_EBUSY;
    for (int i = 0; i < TRIES && code == LK_EBUSY; i++) code = merge_only(&g, err);
    if (code || !(g.put + g.deleted)) return code;
    g.write = true;
    code = lk_kv_update(m->to->kv, merge_and_write, &g, LK_LAZY, NULL, err);
    if (code) return code;
    m->result->put_rows += g.put, m->result->deleted_rows += g.deleted;
    *changes += g.put + g.deleted;
    return 0;
}

int lk__store_move_rows(struct lk__store_move *m, uint64_t *changes, struct lk_err *err) {
    struct window *w = lk_calloc(1, sizeof *w);
    struct lk_digest *digest = lk_digest_create();
    int code = w && digest ? 0 : lk_fail(err, LK_ENOMEM, "no memory to move rows");
    *changes = 0;
    m->status.rows = m->result->rows = m->result->row_bytes = 0;
    for (bool end = false; !code && !end;) {
        code = next_window(m, w, err);
        if (!code) code = bring_over(m, w, changes, err);
        for (size_t i = 0; i < w->count && !code; i++) {
            lk__store_digest_row(digest, key_at(w, i), value_at(w, i));
            m->result->row_bytes += w->rows[i].key_size + w->rows[i].value_size;
        }
        m->status.rows = m->result->rows += w->count;
        end = w->end;
        if (!code && !end) code = go_behind(w, err);
        if (!code) code = lk__store_move_tick(m, err);
    }
    if (!code) lk_digest_final(digest, &m->result->rows_root);
    if (w) lk_buf_release(&w->after), lk_buf_release(&w->data);
    lk_free(w);
    lk_digest_free(digest);
    return code;
}
