/* Rows that every floor uses: names that point at roots, with their history, and JSON records. README.md has the bytes. */
#include "lockstep/base/file.h"
#include "lockstep/base/ini.h"
#include "lockstep/base/mem.h"
#include "lockstep/store/uploads.h"
#include "store/kv/kv_engine.h"
#include <stdio.h>
#include <string.h>

#define NAME_MAX_BYTES   128
#define RECORD_MAX_BYTES 200

struct key {
    size_t size;
    char data[LK_KV_KEY_MAX + 1];
};

bool lk_name_valid(const char *name) {
    size_t n = strlen(name);
    if (n < 1 || n > NAME_MAX_BYTES || name[0] == '.' || name[0] == '-') return false;
    for (const char *c = name; *c; c++) {
        bool word = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9');
        if (!word && *c != '.' && *c != '_' && *c != '-') return false;
    }
    return true;
}

/* A record may have a name of several parts, as RUN/000012. */
static bool record_name_valid(const char *name) {
    size_t n = strlen(name);
    for (const char *c = name; *c; c++)
        if (*c < 0x21 || *c > 0x7e) return false;
    return n >= 1 && n <= RECORD_MAX_BYTES;
}

/* "T/KIND/NAME"; name NULL: the prefix of all. */
static int make_key(char table, const char *kind, const char *name, struct key *out, struct lk_err *err) {
    if (!lk_name_valid(kind)) return lk_fail(err, LK_EINVAL, "\"%.140s\" is not a valid kind of row", kind);
    if (name && !(table == 'r' ? record_name_valid(name) : lk_name_valid(name)))
        return lk_fail(err, LK_EINVAL,
                       "\"%.140s\" is not a valid name for a %s: 1 to %d of A-Z a-z 0-9 . _ -, not beginning "
                       "with . or -",
                       name, kind, table == 'r' ? RECORD_MAX_BYTES : NAME_MAX_BYTES);
    out->size = (size_t)snprintf(out->data, sizeof out->data, "%c/%s/%s", table, kind, name ? name : "");
    return 0;
}

static struct lk_bytes key_bytes(const struct key *k) {
    return lk_bytes(k->data, k->size);
}

/* Scans all rows of a kind. */
static int scan_kind(struct lk_kv_txn *txn, char table, const char *kind, lk_kv_scan_fn *fn, void *arg,
                     struct lk_err *err) {
    struct key from, to;
    int code = make_key(table, kind, NULL, &from, err);
    if (code != 0) return code;
    to = from;
    to.data[to.size - 1]++; /* the '/' becomes '0': just past the prefix */
    return lk_kv_scan(txn, key_bytes(&from), key_bytes(&to), fn, arg, err);
}

/* --- "did you mean" -------------------------------------------------------------------------------------- */

#define CANDIDATES_MAX 1000
struct candidates {
    const char *word;
    size_t prefix, count;
    char *names[CANDIDATES_MAX];
};

static int add_candidate(void *arg, struct lk_bytes key, struct lk_bytes value) {
    struct candidates *c = arg;
    (void)value;
    c->names[c->count] = lk_strndup((const char *)key.data + c->prefix, key.size - c->prefix);
    return !c->names[c->count] || ++c->count == CANDIDATES_MAX; /* a message does not need all of them */
}

/* LK_ENOTFOUND with the nearest name of that kind, or the first few of all. */
static int not_found(struct lk_kv_txn *txn, char table, const char *kind, const char *name, struct lk_err *err) {
    if (!err) return LK_ENOTFOUND;
    lk_fail(err, LK_ENOTFOUND, "there is no %s named \"%s\"", kind, name);
    struct candidates *c = lk_calloc(1, sizeof *c);
    if (!c) return LK_ENOTFOUND;
    c->prefix = 3 + strlen(kind);
    scan_kind(txn, table, kind, add_candidate, c, NULL);
    const char *near = lk_nearest(name, (const char *const *)c->names, c->count);
    size_t used = strlen(err->message);
    char *rest = err->message + used;
    size_t room = sizeof err->message - used;
    if (near)
        snprintf(rest, room, "; did you mean \"%s\"?", near);
    else if (c->count == 0)
        snprintf(rest, room, "; the store has none");
    else {
        int n = snprintf(rest, room, "; there %s", c->count == 1 ? "is" : "are");
        for (size_t i = 0; i < c->count && i < 3 && n >= 0 && (size_t)n < room; i++)
            n += snprintf(rest + n, room - (size_t)n, "%s %s", i ? "," : "", c->names[i]);
        if (c->count > 3 && n >= 0 && (size_t)n < room) snprintf(rest + n, room - (size_t)n, " and more");
    }
    for (size_t i = 0; i < c->count; i++) lk_free(c->names[i]);
    lk_free(c);
    return LK_ENOTFOUND;
}

/* --- names ----------------------------------------------------------------------------------------------- */

static int damaged(const struct key *key, size_t size, struct lk_err *err) {
    return lk_fail(err, LK_ECORRUPT, "the row %s has %zu bytes, a name's row has 32", key->data, size);
}

/* Adds to the name's history: "h/KIND/NAME/" and the commit's time, most significant byte first, so that it sorts. */
static int add_history(struct lk_kv_txn *txn, const char *kind, const char *name, const struct lk_root *root,
                       struct lk_err *err) {
    struct key key;
    int64_t t;
    int code = make_key('h', kind, name, &key, err);
    if (code == 0) code = lk__kv_timestamp(txn, &t, err);
    if (code != 0) return code;
    key.data[key.size++] = '/';
    for (int i = 7; i >= 0; i--) key.data[key.size++] = (char)((uint64_t)t >> 8 * i);
    return lk_kv_put(txn, key_bytes(&key), root ? lk_bytes(root->bytes, 32) : lk_bytes("", 0), err);
}

int lk_name_put(struct lk_kv_txn *txn, const char *kind, const char *name, const struct lk_root *root, struct lk_err *err) {
    struct key key;
    struct lk_bytes old;
    int code = make_key('n', kind, name, &key, err);
    if (code != 0) return code;
    if (lk_kv_get(txn, key_bytes(&key), &old, NULL) == 0 && old.size == 32 && memcmp(old.data, root->bytes, 32) == 0)
        return 0;
    code = add_history(txn, kind, name, root, err);
    return code == 0 ? lk_kv_put(txn, key_bytes(&key), lk_bytes(root->bytes, 32), err) : code;
}

int lk_name_get(struct lk_kv_txn *txn, const char *kind, const char *name, struct lk_root *out, struct lk_err *err) {
    struct key key;
    struct lk_bytes value;
    int code = make_key('n', kind, name, &key, err);
    if (code == 0) code = lk_kv_get(txn, key_bytes(&key), &value, err);
    if (code == LK_ENOTFOUND) return not_found(txn, 'n', kind, name, err);
    if (code != 0) return code;
    if (value.size != 32) return damaged(&key, value.size, err);
    memcpy(out->bytes, value.data, 32);
    return 0;
}

int lk_name_delete(struct lk_kv_txn *txn, const char *kind, const char *name, struct lk_err *err) {
    struct key key;
    struct lk_bytes value;
    int code = make_key('n', kind, name, &key, err);
    if (code == 0) code = lk_kv_get(txn, key_bytes(&key), &value, err);
    if (code == LK_ENOTFOUND) return not_found(txn, 'n', kind, name, err);
    if (code == 0) code = add_history(txn, kind, name, NULL, err);
    return code == 0 ? lk_kv_delete(txn, key_bytes(&key), err) : code;
}

struct name_scan {
    size_t prefix;
    lk_name_fn *fn;
    void *arg;
    struct lk_err *err;
};

static int on_name(void *arg, struct lk_bytes key, struct lk_bytes value) {
    struct name_scan *s = arg;
    char name[LK_KV_KEY_MAX + 1];
    struct lk_root root;
    size_t n = key.size - s->prefix;
    memcpy(name, (const char *)key.data + s->prefix, n);
    name[n] = 0;
    if (value.size != 32)
        return lk_fail(s->err, LK_ECORRUPT, "the row of the name %s has %zu bytes, not 32", name, value.size);
    memcpy(root.bytes, value.data, 32);
    return s->fn(s->arg, name, &root);
}

int lk_name_list(struct lk_kv_txn *txn, const char *kind, lk_name_fn *fn, void *arg, struct lk_err *err) {
    struct name_scan s = {3 + strlen(kind), fn, arg, err};
    return scan_kind(txn, 'n', kind, on_name, &s, err);
}

struct naming {
    struct lk_store *store;
    const char *kind, *name;
    const struct lk_root *root;
};
static int put_name(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    const struct naming *n = arg;
    int code = lk_uploads_check(n->store, txn, err);
    return code ? code : lk_name_put(txn, n->kind, n->name, n->root, err);
}
int lk_store_name_put(struct lk_store *s, const char *kind, const char *name, const struct lk_root *root,
                      struct lk_err *err) {
    struct naming n = {s, kind, name, root};
    return lk_kv_update(s->kv, put_name, &n, LK_DURABLE, NULL, err);
}

int lk_store_name_get(struct lk_store *s, const char *kind, const char *name, struct lk_root *out, struct lk_err *err) {
    struct lk_kv_txn *txn;
    int code = lk_kv_begin(s->kv, false, &txn, err);
    if (code != 0) return code;
    code = lk_name_get(txn, kind, name, out, err);
    lk_kv_abort(txn);
    return code;
}

/* --- records --------------------------------------------------------------------------------------------- */

int lk_record_put(struct lk_kv_txn *txn, const char *kind, const char *name, const json_t *record, struct lk_err *err) {
    struct key key;
    struct lk_buf text = LK_BUF_INIT;
    int code = make_key('r', kind, name, &key, err);
    if (code == 0) code = lk_json_canonical(record, &text, err);
    if (code == 0) code = lk_kv_put(txn, key_bytes(&key), lk_bytes(text.data, text.size), err);
    lk_buf_release(&text);
    return code;
}

static int parse_record(const char *kind, const char *name, struct lk_bytes value, json_t **out, struct lk_err *err) {
    struct lk_err local;
    char what[512];
    snprintf(what, sizeof what, "the record of %s %s", kind, name);
    *out = lk_json_parse(value.data, value.size, what, &local);
    if (json_is_object(*out)) return 0;
    if (*out) {
        json_decref(*out);
        *out = NULL;
        return lk_fail(err, LK_ECORRUPT, "%s is JSON, but no object", what);
    }
    return lk_fail(err, local.code == LK_ENOMEM ? local.code : LK_ECORRUPT, "%s", local.message);
}

int lk_record_get(struct lk_kv_txn *txn, const char *kind, const char *name, json_t **out, struct lk_err *err) {
    struct key key;
    struct lk_bytes value;
    *out = NULL;
    int code = make_key('r', kind, name, &key, err);
    if (code == 0) code = lk_kv_get(txn, key_bytes(&key), &value, err);
    if (code == LK_ENOTFOUND) return not_found(txn, 'r', kind, name, err);
    if (code != 0) return code;
    code = parse_record(kind, name, value, out, err);
    /* A writer whom this reader cannot hold off may have changed the bytes under the parser; the kv says so when asked. */
    struct lk_err late;
    int again = lk_kv_get(txn, key_bytes(&key), &value, &late);
    if (again == 0) return code;
    json_decref(*out);
    *out = NULL;
    return lk_fail(err, again, "%s", late.message);
}

int lk_record_delete(struct lk_kv_txn *txn, const char *kind, const char *name, struct lk_err *err) {
    struct key key;
    int code = make_key('r', kind, name, &key, err);
    return code == 0 ? lk_kv_delete(txn, key_bytes(&key), err) : code;
}

struct record_scan {
    const char *kind;
    lk_record_fn *fn;
    void *arg;
    struct lk_err *err;
};

static int on_record(void *arg, struct lk_bytes key, struct lk_bytes value) {
    struct record_scan *s = arg;
    char name[LK_KV_KEY_MAX + 1];
    size_t prefix = 3 + strlen(s->kind), n = key.size - prefix;
    json_t *record;
    memcpy(name, (const char *)key.data + prefix, n);
    name[n] = 0;
    int code = parse_record(s->kind, name, value, &record, s->err);
    if (code != 0 && code != LK_ECORRUPT) return code;
    code = s->fn(s->arg, name, record);
    json_decref(record);
    return code;
}

int lk_record_list(struct lk_kv_txn *txn, const char *kind, lk_record_fn *fn, void *arg, struct lk_err *err) {
    struct record_scan s = {kind, fn, arg, err};
    return scan_kind(txn, 'r', kind, on_record, &s, err);
}
