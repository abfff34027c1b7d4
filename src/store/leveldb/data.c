/* Writes and gets; keys as rows, and orders that are checked. */
#include "store/leveldb/db.h"
#include <stdlib.h>

/* --- keys ------------------------------------------------------------------------------------------------ */

struct lk_bytes lk__leveldb_row(unsigned char out[LK_KV_KEY_MAX], const char *key, size_t size) {
    size_t room = size < LK__LEVELDB_KEY_MAX ? size : LK__LEVELDB_KEY_MAX;
    out[0] = LK__LEVELDB_ROW;
    if (room) memcpy(out + 1, key, room);
    return lk_bytes(out, size + 1);
}
struct lk_bytes lk__leveldb_cut(struct lk_bytes row) {
    return lk_bytes(row.data, row.size < LK_KV_KEY_MAX ? row.size : LK_KV_KEY_MAX);
}

int lk__leveldb_cursor(struct lk_kv_txn *txn, struct lk_kv_cursor **out, struct lk_err *err) {
    static const char from[] = {LK__LEVELDB_ROW}, to[] = {LK__LEVELDB_ROW + 1};
    return lk_kv_cursor_open(txn, lk_bytes(from, 1), lk_bytes(to, 1), out, err);
}

/* A key that is longer than any that is there comes behind its first bytes. */
int lk__leveldb_seek(struct lk_kv_cursor *c, const char *key, size_t size, struct lk_err *err) {
    unsigned char buffer[LK_KV_KEY_MAX];
    struct lk_bytes row = lk__leveldb_row(buffer, key, size), cut = lk__leveldb_cut(row), found;
    int code = lk_kv_cursor_seek(c, cut, err);
    if (code != 0 || cut.size == row.size) return code;
    found = lk_kv_cursor_key(c);
    bool same = found.size == cut.size && memcmp(found.data, cut.data, cut.size) == 0;
    return same ? lk_kv_cursor_next(c, err) : 0;
}

/* --- orders ---------------------------------------------------------------------------------------------- */

static int compare(const leveldb_comparator_t *o, struct lk_bytes a, struct lk_bytes b) {
    return o->compare(o->state, a.data, a.size, b.data, b.size);
}
static int refuse_order(const leveldb_comparator_t *o, struct lk_bytes a, struct lk_bytes b, struct lk_err *err) {
    return lk_fail(err, LK_EUNSUPPORTED,
                   "the comparator %s does not have \"%.*s\" before \"%.*s\", as bytes do; only that order is kept here",
                   o->name(o->state), (int)(a.size < 80 ? a.size : 80), (const char *)a.data,
                   (int)(b.size < 80 ? b.size : 80), (const char *)b.data);
}

/* The neighbours of key among the rows, with c. */
static int check_neighbours(const leveldb_comparator_t *o, struct lk_kv_cursor *c, struct lk_bytes key,
                            struct lk_err *err) {
    int code = lk__leveldb_seek(c, key.data, key.size, err);
    if (code == 0) {
        struct lk_bytes next = lk__leveldb_key(lk_kv_cursor_key(c));
        if (next.size == key.size && memcmp(next.data, key.data, key.size) == 0) return 0;
        if (compare(o, key, next) >= 0) return refuse_order(o, key, next, err);
        code = lk_kv_cursor_previous(c, err);
    } else if (code == LK_ENOTFOUND)
        code = lk_kv_cursor_last(c, err);
    if (code != 0) return code == LK_ENOTFOUND ? 0 : code;
    struct lk_bytes before = lk__leveldb_key(lk_kv_cursor_key(c));
    return compare(o, before, key) < 0 ? 0 : refuse_order(o, before, key, err);
}

int lk__leveldb_check_order(const leveldb_t *db, struct lk_kv_txn *txn, const char *key, size_t size, struct lk_err *err) {
    struct lk_kv_cursor *c;
    if (!db->order) return 0;
    int code = lk__leveldb_cursor(txn, &c, err);
    if (code != 0) return code;
    code = check_neighbours(db->order, c, lk_bytes(size ? key : "", size), err);
    lk_kv_cursor_close(c);
    return code;
}

/* --- writes ---------------------------------------------------------------------------------------------- */

struct write {
    const leveldb_t *db;
    struct lk_bytes row, value;
    bool is_delete;
};

/* May run more than once. */
static int write_one(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    const struct write *w = arg;
    if (w->row.size > LK_KV_KEY_MAX && w->is_delete) return 0; /* it cannot be there */
    if (w->row.size > LK_KV_KEY_MAX)
        return lk_fail(err, LK_EINVAL, "a key of %zu bytes; at most %d are possible here", w->row.size - 1,
                       LK__LEVELDB_KEY_MAX);
    struct lk_bytes key = lk__leveldb_key(w->row);
    int code = lk__leveldb_check_order(w->db, txn, key.data, key.size, err);
    if (code != 0) return code;
    return w->is_delete ? lk_kv_delete(txn, w->row, err) : lk_kv_put(txn, w->row, w->value, err);
}
static void commit(leveldb_t *db, const leveldb_writeoptions_t *o, lk_kv_update_fn *fn, void *arg, char **errptr) {
    struct lk_err err;
    if (lk_kv_update(db->kv, fn, arg, o->sync ? LK_DURABLE : LK_LAZY, NULL, &err) != 0) lk__leveldb_fail(errptr, &err);
}

void leveldb_put(leveldb_t *db, const leveldb_writeoptions_t *o, const char *key, size_t keylen, const char *val,
                 size_t vallen, char **errptr) {
    unsigned char buffer[LK_KV_KEY_MAX];
    struct write w = {db, lk__leveldb_row(buffer, key, keylen), lk_bytes(val, vallen), false};
    commit(db, o, write_one, &w, errptr);
}
void leveldb_delete(leveldb_t *db, const leveldb_writeoptions_t *o, const char *key, size_t keylen, char **errptr) {
    unsigned char buffer[LK_KV_KEY_MAX];
    struct write w = {db, lk__leveldb_row(buffer, key, keylen), lk_bytes(NULL, 0), true};
    commit(db, o, write_one, &w, errptr);
}

struct writes {
    const leveldb_t *db;
    const leveldb_writebatch_t *batch;
};
static int write_all(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    const struct writes *all = arg;
    const struct lk_buf *b = &all->batch->writes;
    int code = 0;
    if (all->batch->incomplete)
        return lk_fail(err, LK_ENOMEM, "memory was out when this batch was filled; nothing is written");
    for (size_t at = 0; at < b->size && code == 0;) {
        struct lk__leveldb_write w;
        memcpy(&w, b->data + at, sizeof w);
        const char *row = b->data + at + sizeof w;
        code = write_one(
            txn, &(struct write){all->db, lk_bytes(row, w.key_size), lk_bytes(row + w.key_size, w.value_size), w.is_delete},
            err);
        at += sizeof w + w.key_size + w.value_size;
    }
    return code;
}
void leveldb_write(leveldb_t *db, const leveldb_writeoptions_t *o, leveldb_writebatch_t *batch, char **errptr) {
    commit(db, o, write_all, &(struct writes){db, batch}, errptr);
}

/* --- get ------------------------------------------------------------------------------------------------- */

struct copy {
    char *data; /* NULL: absent */
    size_t size;
};

static int get(const leveldb_t *db, struct lk_kv_txn *txn, const char *key, size_t size, struct copy *out,
               struct lk_err *err) {
    unsigned char buffer[LK_KV_KEY_MAX];
    struct lk_bytes row = lk__leveldb_row(buffer, key, size), value;
    int code = row.size > LK_KV_KEY_MAX ? LK_ENOTFOUND : lk_kv_get(txn, row, &value, err);
    if (code == LK_ENOTFOUND) return lk__leveldb_check_order(db, txn, key, size, err);
    if (code != 0) return code;
    *out = (struct copy){malloc(value.size ? value.size : 1), value.size};
    if (!out->data) return lk_fail(err, LK_ENOMEM, "out of memory for a value of %zu bytes", value.size);
    if (value.size) memcpy(out->data, value.data, value.size);
    return 0;
}

static int get_from_snapshot(const leveldb_snapshot_t *snapshot, const char *key, size_t size, struct copy *out,
                             struct lk_err *err) {
    struct leveldb_snapshot_t *s = (struct leveldb_snapshot_t *)(uintptr_t)snapshot;
    if (!s->txn) {
        *err = s->why;
        return err->code;
    }
    pthread_mutex_lock(&s->lock);
    int code = get(s->db, s->txn, key, size, out, err);
    pthread_mutex_unlock(&s->lock);
    return code;
}

char *leveldb_get(leveldb_t *db, const leveldb_readoptions_t *o, const char *key, size_t keylen, size_t *vallen,
                  char **errptr) {
    struct copy copy = {NULL, 0};
    struct lk_kv_txn *txn = NULL;
    struct lk_err err;
    int code;
    if (o->snapshot)
        code = get_from_snapshot(o->snapshot, key, keylen, &copy, &err);
    else if ((code = lk_kv_begin(db->kv, false, &txn, &err)) == 0)
        code = get(db, txn, key, keylen, &copy, &err);
    lk_kv_abort(txn);
    if (code != 0) lk__leveldb_fail(errptr, &err);
    *vallen = code == 0 ? copy.size : 0;
    return copy.data;
}
