/* The statements of one member of a batch: what it read is checked, what it wrote is sent. */
#include "store/kv/kv_postgres.h"
#include <string.h>

/* Whether others must not commit beside it: its place among all commits is asked for, or it depends on what is absent. */
bool lk__kv_pg_needs_all_slots(const struct lk__kv_pg_txn *txn, bool stamped) {
    if (stamped || txn->walked.count || txn->deleted.count) return true;
    for (const struct lk__kv_pg_node *n = txn->reads.first[0]; n; n = n->after[0])
        if (n->kind == PG_ABSENT) return true;
    for (const struct lk__kv_pg_node *n = txn->writes.first[0]; n; n = n->after[0]) {
        if (n->kind == PG_ABSENT && !lk__kv_pg_map_find(&txn->reads, n->key)) return true;
        /* two that put parts of one new key would meet in kv_parts, which has no versions */
        if (n->kind == PG_ROW && n->value.size > LK__KV_PG_PART) return true;
    }
    return false;
}

bool lk__kv_pg_is_plain(const struct lk__kv_pg_txn *txn) {
    if (txn->reads.count || txn->walked.count || txn->deleted.count || txn->writes.bytes > LK__KV_PG_STATEMENT)
        return false;
    for (const struct lk__kv_pg_node *n = txn->writes.first[0]; n; n = n->after[0])
        if (n->kind != PG_ROW || n->value.size > LK__KV_PG_PART) return false;
    return true;
}

/* --- the check -------------------------------------------------------------------------------------------------- */

static struct lk_bytes decimal(__int128 x, char out[48]) {
    char *end = out + 48, *at = end;
    unsigned __int128 left = x < 0 ? -(unsigned __int128)x : (unsigned __int128)x;
    do *--at = (char)('0' + (int)(left % 10));
    while ((left /= 10));
    if (x < 0) *--at = '-';
    return lk_bytes(at, (size_t)(end - at));
}

struct arrays {
    struct lk__kv_pg_array keys, versions, absent, low, high, rows, sums;
};

static void fill(struct arrays *a, const struct lk__kv_pg_txn *txn) {
    char text[48];
    lk__kv_pg_array_begin(&a->keys, PG_BYTEA);
    lk__kv_pg_array_begin(&a->versions, PG_INT8);
    lk__kv_pg_array_begin(&a->absent, PG_BYTEA);
    lk__kv_pg_array_begin(&a->low, PG_BYTEA);
    lk__kv_pg_array_begin(&a->high, PG_BYTEA);
    lk__kv_pg_array_begin(&a->rows, PG_INT8);
    lk__kv_pg_array_begin(&a->sums, PG_TEXT);
    for (const struct lk__kv_pg_node *n = txn->reads.first[0]; n; n = n->after[0]) {
        lk__kv_pg_array_add(n->kind == PG_ROW ? &a->keys : &a->absent, n->key);
        if (n->kind == PG_ROW) lk__kv_pg_array_add_number(&a->versions, n->version);
    }
    for (size_t i = 0; i < txn->walked.count; i++) {
        const struct lk__kv_pg_range *r = &txn->walked.at[i];
        lk__kv_pg_array_add(&a->low, r->low);
        lk__kv_pg_array_add(&a->high, r->high.size ? r->high : lk_bytes(txn->kv->end, sizeof txn->kv->end));
        lk__kv_pg_array_add_number(&a->rows, r->rows);
        lk__kv_pg_array_add(&a->sums, decimal(r->sum, text));
    }
}

static bool send_check(struct lk__kv_pg_conn *c, const struct lk__kv_pg_txn *txn, const struct lk__kv_pg_param *who,
                       bool all_slots, bool stamped) {
    if (!stamped && !txn->reads.count && !txn->walked.count) {
        lk__kv_pg_send(c, PG_CHECK_NOTHING, who, 2);
        return true;
    }
    struct arrays a = {0};
    unsigned char time[8], count[8];
    int64_t stamps = txn->time ? txn->time - txn->next_time + 1 : txn->deferred ? txn->deferred : 1;
    lk__kv_pg_put64(time, (uint64_t)(stamped ? txn->time : -1));
    lk__kv_pg_put64(count, (uint64_t)stamps);
    fill(&a, txn);
    struct lk__kv_pg_param params[] = {
        who[0],
        who[1],
        lk__kv_pg_array_end(&a.keys),
        lk__kv_pg_array_end(&a.versions),
        {time, 8},
        lk__kv_pg_array_end(&a.absent),
        lk__kv_pg_array_end(&a.low),
        lk__kv_pg_array_end(&a.high),
        lk__kv_pg_array_end(&a.rows),
        lk__kv_pg_array_end(&a.sums),
        {count, 8},
    };
    bool whole = true;
    for (size_t i = 0; i < 11; i++) whole = whole && params[i].data;
    if (whole) lk__kv_pg_send(c, all_slots ? PG_CHECK : PG_CHECK_SHARED, params, all_slots ? 11 : 4);
    struct lk__kv_pg_array *all[] = {&a.keys, &a.versions, &a.absent, &a.low, &a.high, &a.rows, &a.sums};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) lk__kv_pg_array_release(all[i]);
    return whole;
}

/* --- the writes --------------------------------------------------------------------------------------------------- */

struct sender {
    struct lk__kv_pg_conn *c;
    const struct lk__kv_pg_param *who;
    const struct lk__kv_pg_txn *txn;
    int sent;
    bool failed;
};

static void send(struct sender *s, enum lk__kv_pg_statement statement, struct lk__kv_pg_param *params, int count) {
    params[0] = s->who[0], params[1] = s->who[1];
    for (int i = 0; i < count; i++) s->failed = s->failed || !params[i].data;
    if (s->failed) return;
    lk__kv_pg_send(s->c, statement, params, count);
    s->sent++;
}

static void send_ranges(struct sender *s) {
    struct lk__kv_pg_array low = {0}, high = {0};
    const struct lk__kv_pg_ranges *deleted = &s->txn->deleted;
    if (!deleted->count) return;
    lk__kv_pg_array_begin(&low, PG_BYTEA);
    lk__kv_pg_array_begin(&high, PG_BYTEA);
    for (size_t i = 0; i < deleted->count; i++) {
        lk__kv_pg_array_add(&low, deleted->at[i].low);
        lk__kv_pg_array_add(&high, deleted->at[i].high.size ? deleted->at[i].high
                                                            : lk_bytes(s->txn->kv->end, sizeof s->txn->kv->end));
    }
    struct lk__kv_pg_param params[4] = {[2] = lk__kv_pg_array_end(&low), [3] = lk__kv_pg_array_end(&high)};
    send(s, PG_DELETE_RANGES, params, 4);
    lk__kv_pg_array_release(&low);
    lk__kv_pg_array_release(&high);
}

static void send_deletes(struct sender *s) {
    struct lk__kv_pg_array keys = {0};
    lk__kv_pg_array_begin(&keys, PG_BYTEA);
    for (const struct lk__kv_pg_node *n = s->txn->writes.first[0]; n; n = n->after[0])
        if (n->kind == PG_ABSENT) lk__kv_pg_array_add(&keys, n->key);
    struct lk__kv_pg_param params[3] = {[2] = lk__kv_pg_array_end(&keys)};
    if (keys.count || keys.failed) send(s, PG_DELETE, params, 3);
    lk__kv_pg_array_release(&keys);
}

/* Parts of one value, a few in a statement. */
static void send_parts(struct sender *s, const struct lk__kv_pg_node *n) {
    struct lk__kv_pg_array numbers = {0}, data = {0};
    for (size_t at = 0; at < n->value.size && !s->failed;) {
        lk__kv_pg_array_begin(&numbers, PG_INT4);
        lk__kv_pg_array_begin(&data, PG_BYTEA);
        for (; at < n->value.size && data.bytes.size < LK__KV_PG_STATEMENT; at += LK__KV_PG_PART) {
            size_t left = n->value.size - at;
            lk__kv_pg_array_add_number(&numbers, (int64_t)(at / LK__KV_PG_PART));
            lk__kv_pg_array_add(&data,
                                lk_bytes((const char *)n->value.data + at, left < LK__KV_PG_PART ? left : LK__KV_PG_PART));
        }
        struct lk__kv_pg_param params[5] = {
            [2] = lk__kv_pg_param(n->key), [3] = lk__kv_pg_array_end(&numbers), [4] = lk__kv_pg_array_end(&data)};
        send(s, PG_PUT_PARTS, params, 5);
    }
    lk__kv_pg_array_release(&numbers);
    lk__kv_pg_array_release(&data);
}

/* In the order of the keys, about LK__KV_PG_STATEMENT bytes in a statement. */
static void send_puts(struct sender *s) {
    struct lk__kv_pg_array keys = {0}, parts = {0}, values = {0};
    unsigned char version[8];
    lk__kv_pg_put64(version, (uint64_t)s->txn->version);
    const struct lk__kv_pg_node *n = s->txn->writes.first[0];
    while (n && !s->failed) {
        lk__kv_pg_array_begin(&keys, PG_BYTEA);
        lk__kv_pg_array_begin(&parts, PG_INT4);
        lk__kv_pg_array_begin(&values, PG_BYTEA);
        for (; n && keys.bytes.size + values.bytes.size < LK__KV_PG_STATEMENT; n = n->after[0]) {
            if (n->kind != PG_ROW) continue;
            bool small = n->value.size <= LK__KV_PG_PART;
            lk__kv_pg_array_add(&keys, n->key);
            lk__kv_pg_array_add_number(&parts,
                                       small ? 0 : (int64_t)((n->value.size + LK__KV_PG_PART - 1) / LK__KV_PG_PART));
            lk__kv_pg_array_add(&values, small ? n->value : lk_bytes("", 0));
        }
        struct lk__kv_pg_param params[6] = {[2] = lk__kv_pg_array_end(&keys),
                                            [3] = lk__kv_pg_array_end(&parts),
                                            [4] = lk__kv_pg_array_end(&values),
                                            [5] = {version, 8}};
        if (keys.count || keys.failed) send(s, PG_PUT, params, 6);
    }
    lk__kv_pg_array_release(&keys);
    lk__kv_pg_array_release(&parts);
    lk__kv_pg_array_release(&values);
    for (n = s->txn->writes.first[0]; n && !s->failed; n = n->after[0])
        if (n->kind == PG_ROW && n->value.size > LK__KV_PG_PART) send_parts(s, n);
}

void lk__kv_pg_send_member(struct lk__kv_pg_conn *c, const struct lk__kv_pg_txn *txn, const unsigned char *id, int number,
                           bool all_slots, bool stamped, int *statements, bool *failed) {
    unsigned char member[4];
    lk__kv_pg_put32(member, (uint32_t)number);
    const struct lk__kv_pg_param who[] = {{id, 16}, {member, 4}};
    struct sender s = {c, who, txn, 0, false};
    s.failed = !send_check(c, txn, who, all_slots, stamped);
    struct lk__kv_pg_param params[2];
    if (stamped) send(&s, PG_STAMP, params, 2);
    send_ranges(&s);
    send_deletes(&s);
    send_puts(&s);
    *statements = s.sent;
    *failed = s.failed;
}
