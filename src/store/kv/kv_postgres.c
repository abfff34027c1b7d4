/* kv over PostgreSQL: the operations of the seam. */
#include "store/kv/kv_postgres.h"
#include <string.h>
#include <unistd.h>

static struct lk__kv_pg_txn *txn_of(struct lk_kv_txn *txn) {
    return (struct lk__kv_pg_txn *)txn;
}

static int pg_open(const char *url, enum lk_access access, struct lk_kv **out, struct lk_err *err) {
    struct lk__kv_pg *kv;
    int code = lk__kv_pg_open(url, access, &kv, err);
    if (code != 0) return code;
    *out = &kv->base;
    return 0;
}

static void pg_close(struct lk_kv *base) {
    struct lk__kv_pg *kv = (struct lk__kv_pg *)base;
    LK_ASSERT(atomic_load(&kv->transactions) == 0); /* close before commit or abort */
    lk__kv_pg_close(kv);
}

/* Nothing is asked of the server before the first read. */
int lk__kv_pg_begin(struct lk_kv *base, bool write, struct lk_kv_txn **out, struct lk_err *err) {
    struct lk__kv_pg *kv = (struct lk__kv_pg *)base;
    LK_ASSERT(kv->pid == getpid()); /* a store opened before fork() cannot be used after it */
    if (write && kv->access == LK_READ) return lk_fail(err, LK_EIO, "%s was opened to be read only", kv->shown);
    struct lk__kv_pg_txn *txn = lk_calloc(1, sizeof *txn);
    if (!txn) return lk_fail(err, LK_ENOMEM, "out of memory for a transaction");
    int code = write ? lk__kv_pg_random(&txn->version, sizeof txn->version, err) : 0;
    if (code != 0) {
        lk_free(txn);
        return code;
    }
    txn->version = (int64_t)((uint64_t)txn->version >> 1);
    txn->kv = kv;
    txn->base.kv = base;
    txn->base.write = write;
    atomic_fetch_add(&kv->transactions, 1);
    *out = &txn->base;
    return 0;
}

/* The answer is read when the connection is used again. */
static void send_end(struct lk__kv_pg_conn *c, const char *how) {
    if (!c) return;
    lk__kv_pg_send_text(c, how, NULL, 0);
    lk__kv_pg_sync(c);
}

void lk__kv_pg_end(struct lk__kv_pg_txn *txn) {
    send_end(txn->conn, "COMMIT"); /* it only read */
    send_end(txn->held, "ROLLBACK");
    lk__kv_pg_give(txn->conn);
    lk__kv_pg_give(txn->held);
    lk__kv_pg_map_release(&txn->writes);
    lk__kv_pg_map_release(&txn->reads);
    lk__kv_pg_ranges_release(&txn->deleted);
    lk__kv_pg_ranges_release(&txn->walked);
    lk__kv_pg_free_values(txn);
    atomic_fetch_sub(&txn->kv->transactions, 1);
    lk_free(txn);
}

static void pg_abort(struct lk_kv_txn *base) {
    lk__kv_pg_end(txn_of(base));
}

static int read_time(struct lk__kv_pg_txn *txn, enum lk__kv_pg_statement statement, int64_t *out, struct lk_err *err) {
    PGresult *res;
    int code = lk__kv_pg_query(txn, statement, NULL, 0, &res, err);
    if (code != 0) return code;
    if (lk__kv_pq.ntuples(res) == 1)
        *out = lk__kv_pg_number(lk__kv_pq.getvalue(res, 0, 0), 8);
    else
        code = lk_fail(err, LK_ECORRUPT, "the clock of %s has no row", txn->kv->shown);
    lk__kv_pq.clear(res);
    return code;
}

/* The first call of a transaction takes all slots; later ones of a group get the times behind. */
int lk__kv_pg_timestamp(struct lk_kv_txn *base, int64_t *out, struct lk_err *err) {
    struct lk__kv_pg_txn *txn = txn_of(base);
    if (!base->write) return read_time(txn, PG_TIME, out, err);
    int code = txn->next_time ? 0 : lk__kv_pg_hold(txn, NULL, err);
    if (code != 0) return code;
    if (!txn->call_time) txn->call_time = txn->time = txn->time ? txn->time + 1 : txn->next_time + txn->deferred;
    *out = txn->call_time;
    return 0;
}

static int pg_raise(struct lk_kv_txn *base, int64_t least_ms, struct lk_err *err) {
    struct lk__kv_pg_txn *txn = txn_of(base);
    (void)err;
    txn->call_time = txn->time = least_ms;
    return 0;
}

/* Whether the transaction that has all slots is still there. */
static int pg_holds(struct lk_kv_txn *base, struct lk_err *err) {
    struct lk__kv_pg_txn *txn = txn_of(base);
    struct lk__kv_pg_conn *c = txn->held;
    struct lk_err why = {0};
    PGresult *res;
    if (!c) return lk_fail(err, LK_ECONFLICT, "%s: this transaction does not keep others waiting any more", txn->kv->shown);
    lk__kv_pg_send(c, PG_TIME, NULL, 0);
    lk__kv_pg_sync(c);
    int code = lk__kv_pg_answer(c, &res, &why);
    if (code == 0) lk__kv_pq.clear(res);
    lk__kv_pg_drain(c);
    if (code == 0 && !c->lost) return 0;
    lk__kv_pg_drop(c);
    txn->held = NULL;
    return lk_fail(err, LK_ECONFLICT, "the connection to %s that kept others waiting was lost: %s", txn->kv->shown,
                   why.message);
}

/* The server's time, which timestamps may be ahead of. */
static int pg_now(struct lk_kv_txn *base, int64_t *out, struct lk_err *err) {
    return read_time(txn_of(base), PG_NOW, out, err);
}

static int pg_commit(struct lk_kv_txn *base, enum lk_durability durability, bool stamped, int64_t *timestamp_ms,
                     struct lk_err *err) {
    struct lk__kv_pg_txn *txn = txn_of(base);
    int code = 0;
    if (!base->write && stamped) code = lk__kv_pg_timestamp(base, timestamp_ms, err);
    if (txn->conn && base->write) { /* the commit may use it */
        send_end(txn->conn, "COMMIT");
        lk__kv_pg_give(txn->conn);
        txn->conn = NULL;
    }
    if (base->write) code = lk__kv_pg_commit(txn, durability, stamped, timestamp_ms, err);
    lk__kv_pg_end(txn);
    return code;
}

static int pg_put(struct lk_kv_txn *base, struct lk_bytes key, struct lk_bytes value, struct lk_err *err) {
    base->dirty = true;
    return lk__kv_pg_map_set(&txn_of(base)->writes, key, PG_ROW, 0, lk_bytes(value.data ? value.data : "", value.size),
                             err);
}

static int pg_remove(struct lk_kv_txn *base, struct lk_bytes key, struct lk_err *err) {
    struct lk__kv_pg_txn *txn = txn_of(base);
    base->dirty = true;
    enum lk__kv_pg_kind kind = lk__kv_pg_ranges_hold(&txn->deleted, key) ? PG_COVERED : PG_ABSENT;
    return lk__kv_pg_map_set(&txn->writes, key, kind, 0, lk_bytes(NULL, 0), err);
}

static int pg_remove_range(struct lk_kv_txn *base, struct lk_bytes from, struct lk_bytes to, struct lk_err *err) {
    struct lk__kv_pg_txn *txn = txn_of(base);
    base->dirty = true;
    if (to.size && lk__kv_pg_compare(from, to) >= 0) return 0;
    for (struct lk__kv_pg_node *n = lk__kv_pg_map_from(&txn->writes, from); n; n = n->after[0]) {
        if (to.size && lk__kv_pg_compare(n->key, to) >= 0) break;
        n->kind = PG_COVERED;
    }
    return lk__kv_pg_ranges_add(&txn->deleted, from, to, 0, 0, err);
}

static int pg_stats(struct lk_kv *base, struct lk_kv_stats *out, struct lk_err *err) {
    struct lk_kv_txn *txn;
    PGresult *res;
    int code = lk__kv_pg_begin(base, false, &txn, err);
    if (code != 0) return code;
    code = lk__kv_pg_query(txn_of(txn), PG_STATS, NULL, 0, &res, err);
    if (code == 0) {
        out->rows = (uint64_t)lk__kv_pg_number(lk__kv_pq.getvalue(res, 0, 0), 8);
        out->timestamp_ms = lk__kv_pg_number(lk__kv_pq.getvalue(res, 0, 1), 8);
        out->size_bytes = (uint64_t)lk__kv_pg_number(lk__kv_pq.getvalue(res, 0, 2), 8);
        lk__kv_pq.clear(res);
    }
    lk__kv_pg_end(txn_of(txn));
    return code;
}

/* Two names for one scheme, as libpq has them. */
#define OPERATIONS                                                                                                         \
    .name = "PostgreSQL", .key_max = LK__KV_PG_KEY_MAX, .open = pg_open, .close = pg_close, .begin = lk__kv_pg_begin,      \
    .commit = pg_commit, .abort = pg_abort, .timestamp = lk__kv_pg_timestamp, .raise = pg_raise, .holds = pg_holds,        \
    .now = pg_now, .get = lk__kv_pg_get, .get_many = lk__kv_pg_get_many, .put = pg_put, .remove = pg_remove,               \
    .remove_range = pg_remove_range, .cursor_open = lk__kv_pg_cursor_open, .cursor_close = lk__kv_pg_cursor_close,         \
    .cursor_seek = lk__kv_pg_cursor_seek, .cursor_step = lk__kv_pg_cursor_step, .update = lk__kv_pg_update,                \
    .stats = pg_stats, .copies = "pg_dump, or `lockstep store move`", .compacts = "VACUUM FULL"
const struct lk_kv_ops lk__kv_postgres = {.scheme = "postgresql:", OPERATIONS};
const struct lk_kv_ops lk__kv_postgres_short = {.scheme = "postgres:", OPERATIONS};
