/* Pins: a row "t/pin/NAME" with the time and the schemas, and the pin's name in each table's row. A pin's time is that of
 * its commit; each table remembers it as `since`, which all later writes are marked with. */
#include "store/table/pin.h"
#include "lockstep/base/mem.h"
#include "lockstep/base/progress.h"
#include "store/kv/kv_engine.h"
#include <string.h>

struct pin {
    const char *name;
    const char *const *tables;
    size_t count;
    int64_t lease_ms, at_ms;
    bool expired_only;
};

static int no_memory(struct lk_err *err) {
    return lk_fail(err, LK_ENOMEM, "out of memory for a pin");
}
static int now_ms(struct lk_kv_txn *txn, int64_t *out, struct lk_err *err) {
    if (txn->kv->ops->now) return txn->kv->ops->now(txn, out, err);
    *out = lk_clock_wall_ms();
    return 0;
}
static int end_of(struct lk_kv_txn *txn, int64_t lease_ms, int64_t *out, struct lk_err *err) {
    *out = 0;
    int code = lease_ms ? now_ms(txn, out, err) : 0;
    if (lease_ms && code == 0) *out += lease_ms;
    return code;
}
static int lease_check(int64_t lease_ms, struct lk_err *err) {
    if (lease_ms >= 0 && lease_ms <= LK__TIME_MAX) return 0;
    return lk_fail(err, LK_EINVAL, "a lease of %lld ms; 0 (until it is released) to %lld are possible", (long long)lease_ms,
                   (long long)LK__TIME_MAX);
}

/* --- taking ---------------------------------------------------------------------------------------------- */

/* Marks the table as pinned; its schema goes into the pin's row. */
static int hold(struct lk_kv_txn *txn, const struct pin *p, const char *table, json_t *schemas, struct lk_err *err) {
    json_t *row;
    if (json_object_get(schemas, table)) return 0; /* named twice */
    int code = lk__table_row_of(txn, table, &row, err);
    if (code != 0) return code;
    if (!row) return lk_fail(err, LK_ENOTFOUND, "no table \"%.300s\" in the store", table);
    json_t *copy = json_deep_copy(row);
    json_t *pin = json_pack("{s:s, s:I}", "pin", p->name, "at", (json_int_t)p->at_ms);
    bool good = json_object_set_new(schemas, table, copy) == 0;
    good = json_array_append_new(json_object_get(row, "pins"), pin) == 0 && good;
    good = good && json_object_set_new(row, "since", json_integer(p->at_ms)) == 0;
    code = good ? lk__table_row_put(txn, "table", table, row, err) : no_memory(err);
    json_decref(row);
    return code;
}

static int take(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    struct pin *p = arg;
    json_t *row;
    int64_t end;
    int code = lk__table_row_get(txn, "pin", p->name, &row, err);
    if (code == 0 && row) code = lk_fail(err, LK_EEXISTS, "there is a pin \"%s\" already", p->name);
    json_decref(row);
    if (code == 0) code = end_of(txn, p->lease_ms, &end, err);
    if (code == 0) code = lk__kv_timestamp(txn, &p->at_ms, err);
    if (code != 0) return code;
    json_t *schemas = json_object();
    row = json_pack("{s:I, s:I, s:O}", "at", (json_int_t)p->at_ms, "expires", (json_int_t)end, "tables", schemas);
    code = row ? 0 : no_memory(err);
    for (size_t i = 0; i < p->count && code == 0; i++) code = hold(txn, p, p->tables[i], schemas, err);
    if (code == 0) code = lk__table_row_put(txn, "pin", p->name, row, err);
    json_decref(schemas);
    json_decref(row);
    return code;
}

int lk_table_pin(struct lk_store *store, const char *pin, const char *const *tables, size_t count, int64_t lease_ms,
                 int64_t *pinned_ms, struct lk_err *err) {
    struct pin p = {.name = pin, .tables = tables, .count = count, .lease_ms = lease_ms};
    int code = lk__table_name_check(pin, err);
    if (code == 0 && count == 0) code = lk_fail(err, LK_EINVAL, "the pin %s would hold no table", pin);
    if (code == 0) code = lease_check(lease_ms, err);
    for (size_t i = 0; i < count && code == 0; i++) code = lk__table_name_check(tables[i], err);
    if (code == 0) code = lk__table_expire_pins(store, err);
    if (code == 0) code = lk_kv_update(store->kv, take, &p, LK_DURABLE, NULL, err);
    if (code == 0) *pinned_ms = p.at_ms;
    return code;
}

/* --- renewing and releasing ------------------------------------------------------------------------------ */

static int get_pin(struct lk_kv_txn *txn, const char *name, json_t **out, struct lk_err *err) {
    int code = lk__table_row_get(txn, "pin", name, out, err);
    return code || *out ? code : lk_fail(err, LK_ENOTFOUND, "no pin \"%s\" in the store, or its time was over", name);
}

static int renew(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    const struct pin *p = arg;
    json_t *row;
    int64_t end;
    int code = get_pin(txn, p->name, &row, err);
    if (code == 0) code = end_of(txn, p->lease_ms, &end, err);
    if (code == 0 && json_object_set_new(row, "expires", json_integer(end)) != 0) code = no_memory(err);
    if (code == 0) code = lk__table_row_put(txn, "pin", p->name, row, err);
    json_decref(row);
    return code;
}
int lk_table_pin_renew(struct lk_store *store, const char *pin, int64_t lease_ms, struct lk_err *err) {
    struct pin p = {.name = pin, .lease_ms = lease_ms};
    int code = lk__table_name_check(pin, err);
    if (code == 0) code = lease_check(lease_ms, err);
    return code ? code : lk_kv_update(store->kv, renew, &p, LK_DURABLE, NULL, err);
}

static int let_go(struct lk_kv_txn *txn, const char *pin, const char *table, struct lk_err *err) {
    json_t *row;
    int code = lk__table_row_of(txn, table, &row, err);
    if (code != 0 || !row) return code;
    json_t *pins = json_object_get(row, "pins");
    for (size_t i = json_array_size(pins); i-- > 0;) {
        const char *name = json_string_value(json_object_get(json_array_get(pins, i), "pin"));
        if (name && strcmp(name, pin) == 0) json_array_remove(pins, i);
    }
    code = lk__table_row_put(txn, "table", table, row, err);
    json_decref(row);
    return code;
}

static int release(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    const struct pin *p = arg;
    json_t *row, *schema;
    const char *table;
    int64_t now = 0;
    int code = p->expired_only ? lk__table_row_get(txn, "pin", p->name, &row, err) : get_pin(txn, p->name, &row, err);
    if (code == 0) code = now_ms(txn, &now, err);
    json_int_t end = json_integer_value(json_object_get(row, "expires"));
    if (code != 0 || !row || (p->expired_only && (end == 0 || end > now))) {
        json_decref(row);
        return code;
    }
    json_object_foreach(json_object_get(row, "tables"), table, schema) {
        if (code == 0) code = let_go(txn, p->name, table, err);
    }
    json_decref(row);
    return code ? code : lk__table_row_delete(txn, "pin", p->name, err);
}
int lk_table_pin_release(struct lk_store *store, const char *pin, struct lk_err *err) {
    struct pin p = {.name = pin};
    int code = lk__table_name_check(pin, err);
    return code ? code : lk_kv_update(store->kv, release, &p, LK_DURABLE, NULL, err);
}

/* --- lists ----------------------------------------------------------------------------------------------- */

struct listing {
    int64_t now;
    lk_table_pin_fn *fn; /* NULL: the names of expired ones to `names` */
    void *arg;
    struct lk_buf names;
    struct lk_err *err;
};

static int tell_pin(struct listing *l, const char *name, json_t *row) {
    json_t *tables = json_object_get(row, "tables"), *schema;
    const char *table, **list = lk_calloc(json_object_size(tables) + 1, sizeof *list);
    struct lk_table_pin pin = {.name = name, .tables = list};
    if (!list) return no_memory(l->err);
    json_object_foreach(tables, table, schema) list[pin.table_count++] = table;
    pin.pinned_ms = json_integer_value(json_object_get(row, "at"));
    pin.expires_ms = json_integer_value(json_object_get(row, "expires"));
    int code = l->fn(l->arg, &pin);
    lk_free(list);
    return code;
}
static int look(void *arg, const char *name, json_t *row) {
    struct listing *l = arg;
    json_int_t end = json_integer_value(json_object_get(row, "expires"));
    bool over = end != 0 && end <= l->now;
    if (l->fn) return over ? 0 : tell_pin(l, name, row);
    return !over || lk_buf_append(&l->names, name, strlen(name) + 1) == 0 ? 0 : no_memory(l->err);
}
static int list(struct lk_store *store, struct listing *l, struct lk_err *err) {
    struct lk_kv_txn *txn;
    l->err = err;
    int code = lk_kv_begin(store->kv, false, &txn, err);
    if (code != 0) return code;
    code = now_ms(txn, &l->now, err);
    if (code == 0) code = lk__table_row_list(txn, "pin", look, l, err);
    lk_kv_abort(txn);
    return code;
}
int lk_table_pins(struct lk_store *store, lk_table_pin_fn *fn, void *arg, struct lk_err *err) {
    struct listing l = {.fn = fn, .arg = arg};
    return list(store, &l, err);
}

int lk__table_expire_pins(struct lk_store *store, struct lk_err *err) {
    struct listing l = {0};
    int code = list(store, &l, err);
    for (size_t i = 0; i < l.names.size && code == 0; i += strlen(l.names.data + i) + 1) {
        struct pin p = {.name = l.names.data + i, .expired_only = true};
        code = lk_kv_update(store->kv, release, &p, LK_DURABLE, NULL, err);
    }
    lk_buf_release(&l.names);
    return code;
}
