/* The rows of the table floor that are JSON: "t/table/NAME", "t/pin/NAME", "t/drop/ID", "t/compact/ID", "t/next/id". */
#include "lockstep/base/mem.h"
#include "store/table/schema.h"
#include <string.h>

static int key_of(struct lk_buf *key, const char *kind, const char *name, struct lk_err *err) {
    key->size = 0;
    return lk_buf_printf(key, "t/%s/%s", kind, name) == 0 ? 0 : lk_fail(err, LK_ENOMEM, "out of memory for a key");
}

static int parse(const char *kind, const char *name, struct lk_bytes row, json_t **out, struct lk_err *err) {
    char what[64 + LK_TABLE_NAME_MAX];
    snprintf(what, sizeof what, "the store's row t/%s/%s", kind, name);
    *out = lk_json_parse(row.data, row.size, what, err);
    if (*out) return 0;
    return err && err->code == LK_ENOMEM ? LK_ENOMEM : lk_fail_prefix(err, LK_ECORRUPT, "%s", "a table's row is damaged");
}

int lk__table_row_get(struct lk_kv_txn *txn, const char *kind, const char *name, json_t **out, struct lk_err *err) {
    struct lk_buf key = LK_BUF_INIT;
    struct lk_bytes row;
    *out = NULL;
    int code = key_of(&key, kind, name, err);
    if (code == 0) code = lk_kv_get(txn, lk_bytes(key.data, key.size), &row, err);
    if (code == 0) code = parse(kind, name, row, out, err);
    lk_buf_release(&key);
    return code == LK_ENOTFOUND ? 0 : code;
}

int lk__table_row_put(struct lk_kv_txn *txn, const char *kind, const char *name, const json_t *value, struct lk_err *err) {
    struct lk_buf key = LK_BUF_INIT, text = LK_BUF_INIT;
    int code = key_of(&key, kind, name, err);
    if (code == 0) code = lk_json_canonical(value, &text, err);
    if (code == 0) code = lk_kv_put(txn, lk_bytes(key.data, key.size), lk_bytes(text.data, text.size), err);
    lk_buf_release(&key);
    lk_buf_release(&text);
    return code;
}

int lk__table_row_delete(struct lk_kv_txn *txn, const char *kind, const char *name, struct lk_err *err) {
    struct lk_buf key = LK_BUF_INIT;
    int code = key_of(&key, kind, name, err);
    if (code == 0) code = lk_kv_delete(txn, lk_bytes(key.data, key.size), err);
    lk_buf_release(&key);
    return code;
}

struct list {
    const char *kind;
    size_t skip;
    lk__table_row_fn *fn;
    void *arg;
    struct lk_err *err;
};
static int tell(void *arg, struct lk_bytes key, struct lk_bytes value) {
    struct list *l = arg;
    char name[LK_TABLE_NAME_MAX + 1];
    json_t *row;
    size_t n = key.size - l->skip;
    if (n >= sizeof name)
        return lk_fail(l->err, LK_ECORRUPT, "a row t/%s/ of the store has a name of %zu bytes", l->kind, n);
    memcpy(name, (const char *)key.data + l->skip, n);
    name[n] = 0;
    if (strlen(name) != n)
        return lk_fail(l->err, LK_ECORRUPT, "a row t/%s/ of the store has a zero byte in its name", l->kind);
    int code = parse(l->kind, name, value, &row, l->err);
    if (code == 0) code = l->fn(l->arg, name, row);
    json_decref(row);
    return code;
}
int lk__table_row_list(struct lk_kv_txn *txn, const char *kind, lk__table_row_fn *fn, void *arg, struct lk_err *err) {
    char from[64], to[64];
    int n = snprintf(from, sizeof from, "t/%s/", kind);
    memcpy(to, from, (size_t)n);
    to[n - 1]++;
    struct list l = {kind, (size_t)n, fn, arg, err};
    return lk_kv_scan(txn, lk_bytes(from, (size_t)n), lk_bytes(to, (size_t)n), tell, &l, err);
}
