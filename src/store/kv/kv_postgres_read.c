/* Snapshots of the server: gets, and what a write transaction remembers of them. */
#include "lockstep/base/progress.h"
#include "store/kv/kv_postgres.h"
#include <stdlib.h>
#include <string.h>

/* --- memory of what gets gave, until the transaction ends ------------------------------------------------------ */

struct lk__kv_pg_chunk {
    struct lk__kv_pg_chunk *next;
    size_t size, used;
    char bytes[];
};

static char *room_for(struct lk__kv_pg_txn *txn, size_t size) {
    struct lk__kv_pg_chunk *c = txn->values;
    if (!c || c->size - c->used < size) {
        size_t least = (1 << 16) - sizeof *c, all = size > least ? size : least;
        c = lk_alloc(sizeof *c + all);
        if (!c) return NULL;
        *c = (struct lk__kv_pg_chunk){txn->values, all, 0};
        txn->values = c;
    }
    c->used += size;
    return c->bytes + c->used - size;
}

void lk__kv_pg_free_values(struct lk__kv_pg_txn *txn) {
    for (struct lk__kv_pg_chunk *c = txn->values, *next; c; c = next) {
        next = c->next;
        lk_free(c);
    }
    txn->values = NULL;
}

/* --- the snapshot ---------------------------------------------------------------------------------------------- */

static int gone(struct lk__kv_pg_txn *txn, const char *why, struct lk_err *err) {
    txn->lost = true;
    return lk_fail(err, txn->base.write ? LK_ECONFLICT : LK_EBUSY,
                   "the snapshot that this transaction reads is gone, begin again: %s", why);
}

/* Once: *again says that nothing was read yet and another connection may do. */
static int query_once(struct lk__kv_pg_txn *txn, enum lk__kv_pg_statement s, const struct lk__kv_pg_param *params,
                      int count, uint64_t deadline_ns, bool *again, PGresult **out, struct lk_err *err) {
    bool fresh = !txn->conn;
    PGresult *res;
    struct lk_err local;
    *again = false;
    int code = fresh ? lk__kv_pg_take(txn->kv, deadline_ns, &txn->conn, err) : 0;
    if (code != 0) return code;
    struct lk__kv_pg_conn *c = txn->conn;
    if (fresh) lk__kv_pg_send_text(c, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", NULL, 0);
    lk__kv_pg_send(c, s, params, count);
    lk__kv_pg_sync(c);
    if (fresh && (code = lk__kv_pg_answer(c, &res, &local)) == 0) lk__kv_pq.clear(res);
    if (code == 0) code = lk__kv_pg_answer(c, out, &local);
    if (code == 0) lk__kv_pg_drain(c);
    if (code == 0 && !c->lost) return 0;
    if (code == 0) lk__kv_pq.clear(*out), lk_fail(&local, LK_EIO, "the connection to %s was lost", txn->kv->shown);
    lk__kv_pg_drain(c);
    bool passing = c->lost || lk__kv_pg_state_is(c, "40001 40P01");
    lk__kv_pg_drop(c);
    txn->conn = NULL;
    *again = passing && fresh;
    if (passing && !fresh) return gone(txn, local.message, err);
    txn->lost = !*again;
    if (local.code == LK_ENOTFOUND) /* of a table; rows that are not there would be another thing */
        return lk_fail(err, LK_ECORRUPT, "%s; a part of the store was dropped, restore it from a copy", local.message);
    return lk_fail(err, local.code, "%s", local.message);
}

int lk__kv_pg_query(struct lk__kv_pg_txn *txn, enum lk__kv_pg_statement s, const struct lk__kv_pg_param *params, int count,
                    PGresult **out, struct lk_err *err) {
    uint64_t deadline = txn->conn ? 0 : lk__kv_pg_deadline(txn->kv);
    bool again;
    int code, turn = 0;
    *out = NULL;
    if (txn->lost) return gone(txn, "its connection was lost before", err);
    do code = query_once(txn, s, params, count, deadline, &again, out, err);
    while (code != 0 && again && lk__kv_pg_pause(&turn, deadline));
    return code;
}

int lk__kv_pg_read_parts(struct lk__kv_pg_txn *txn, struct lk_bytes key, int64_t parts, struct lk_buf *out,
                         struct lk_err *err) {
    PGresult *res;
    struct lk__kv_pg_param param = lk__kv_pg_param(key);
    int code = lk__kv_pg_query(txn, PG_PARTS, &param, 1, &res, err);
    if (code != 0) return code;
    int count = lk__kv_pq.ntuples(res);
    if (count != parts)
        code = lk_fail(err, LK_ECORRUPT, "a value in %s has %d parts in kv_parts, and %lld by its row", txn->kv->shown,
                       count, (long long)parts);
    for (int i = 0; i < count && code == 0; i++)
        if (lk_buf_append(out, lk__kv_pq.getvalue(res, i, 0), (size_t)lk__kv_pq.getlength(res, i, 0)) != 0)
            code = lk_fail(err, LK_ENOMEM, "out of memory for a value");
    lk__kv_pq.clear(res);
    return code;
}

/* --- gets ------------------------------------------------------------------------------------------------------- */

/* LK_OK: an own write answers, *value with data NULL if that is "absent"; else LK_ENOTFOUND. */
static bool own(const struct lk__kv_pg_txn *txn, struct lk_bytes key, struct lk_bytes *value) {
    const struct lk__kv_pg_node *node = lk__kv_pg_map_find(&txn->writes, key);
    *value = lk_bytes(NULL, 0);
    if (node && node->kind == PG_ROW) *value = node->value;
    return node || lk__kv_pg_ranges_hold(&txn->deleted, key);
}

static int remember(struct lk__kv_pg_txn *txn, struct lk_bytes key, bool there, int64_t version, struct lk_err *err) {
    if (!txn->base.write) return 0;
    return lk__kv_pg_map_set(&txn->reads, key, there ? PG_ROW : PG_ABSENT, version, lk_bytes(NULL, 0), err);
}

/* Row i of (version, parts, value). */
static int take(struct lk__kv_pg_txn *txn, const PGresult *res, int i, struct lk_bytes key, struct lk_bytes *value,
                struct lk_err *err) {
    int64_t parts = lk__kv_pg_number(lk__kv_pq.getvalue(res, i, 1), 4);
    int code = remember(txn, key, true, lk__kv_pg_number(lk__kv_pq.getvalue(res, i, 0), 8), err);
    struct lk_buf all = LK_BUF_INIT;
    struct lk_bytes found = lk_bytes(lk__kv_pq.getvalue(res, i, 2), (size_t)lk__kv_pq.getlength(res, i, 2));
    if (code == 0 && parts) {
        code = lk__kv_pg_read_parts(txn, key, parts, &all, err);
        found = lk_bytes(all.data, all.size);
    }
    char *copy = code == 0 ? room_for(txn, found.size) : NULL;
    if (copy) memcpy(copy, found.data, found.size), *value = lk_bytes(copy, found.size);
    lk_buf_release(&all);
    if (code == 0 && !copy) return lk_fail(err, LK_ENOMEM, "out of memory for a value of %zu bytes", found.size);
    return code;
}

int lk__kv_pg_get(struct lk_kv_txn *base, struct lk_bytes key, struct lk_bytes *value, struct lk_err *err) {
    struct lk__kv_pg_txn *txn = (struct lk__kv_pg_txn *)base;
    PGresult *res;
    if (own(txn, key, value)) return value->data ? 0 : lk_fail(err, LK_ENOTFOUND, "not found");
    struct lk__kv_pg_param param = lk__kv_pg_param(key);
    int code = lk__kv_pg_query(txn, PG_GET, &param, 1, &res, err);
    if (code != 0) return code;
    if (lk__kv_pq.ntuples(res) == 1) {
        code = take(txn, res, 0, key, value, err);
    } else {
        code = remember(txn, key, false, 0, err);
        if (code == 0) code = lk_fail(err, LK_ENOTFOUND, "not found");
    }
    lk__kv_pq.clear(res);
    return code;
}

struct wanted {
    struct lk_bytes key;
    size_t index;
};
static int by_key(const void *a, const void *b) {
    return lk__kv_pg_compare(((const struct wanted *)a)->key, ((const struct wanted *)b)->key);
}

/* Each row goes to all that wanted its key; what stays without one is absent. */
static int deal(struct lk__kv_pg_txn *txn, const PGresult *res, struct wanted *wanted, size_t count,
                struct lk_bytes *values, struct lk_err *err) {
    int code = 0;
    for (int i = 0; i < lk__kv_pq.ntuples(res) && code == 0; i++) {
        struct wanted this = {lk_bytes(lk__kv_pq.getvalue(res, i, 3), (size_t)lk__kv_pq.getlength(res, i, 3)), 0};
        struct wanted *w = bsearch(&this, wanted, count, sizeof *wanted, by_key);
        if (!w) continue;
        while (w > wanted && by_key(w - 1, &this) == 0) w--;
        struct lk_bytes value;
        code = take(txn, res, i, this.key, &value, err);
        for (; code == 0 && w < wanted + count && by_key(w, &this) == 0; w++) values[w->index] = value;
    }
    for (size_t i = 0; i < count && code == 0; i++)
        if (!values[wanted[i].index].data) code = remember(txn, wanted[i].key, false, 0, err);
    return code;
}

int lk__kv_pg_get_many(struct lk_kv_txn *base, const struct lk_bytes *keys, size_t count, struct lk_bytes *values,
                       struct lk_err *err) {
    struct lk__kv_pg_txn *txn = (struct lk__kv_pg_txn *)base;
    struct lk__kv_pg_array array = {0};
    struct wanted *wanted = lk_alloc(count * sizeof *wanted);
    size_t asked = 0;
    PGresult *res;
    lk__kv_pg_array_begin(&array, PG_BYTEA);
    for (size_t i = 0; wanted && i < count; i++)
        if (!own(txn, keys[i], &values[i])) wanted[asked++] = (struct wanted){keys[i], i};
    if (wanted) qsort(wanted, asked, sizeof *wanted, by_key);
    for (size_t i = 0; wanted && i < asked; i++)
        if (!i || by_key(&wanted[i - 1], &wanted[i]) != 0) lk__kv_pg_array_add(&array, wanted[i].key);
    struct lk__kv_pg_param param = lk__kv_pg_array_end(&array);
    int code = wanted && param.data ? 0 : lk_fail(err, LK_ENOMEM, "out of memory for %zu keys", count);
    if (code == 0 && asked) {
        code = lk__kv_pg_query(txn, PG_GET_MANY, &param, 1, &res, err);
        if (code == 0) code = deal(txn, res, wanted, asked, values, err);
        if (res) lk__kv_pq.clear(res);
    }
    lk__kv_pg_array_release(&array);
    lk_free(wanted);
    return code;
}
