/* Reads all there is. */
#include "lockstep/base/hash.h"
#include "store/kv/layers.h"
#include <stdlib.h>
#include <string.h>

#define NAME_BYTES (LK__KV_LAYER_PREFIX - 2)

/* --- rows that callers see --------------------------------------------------------------------------------- */

static int check_row(const struct lk_buf *before, struct lk_bytes key, struct lk_bytes value, bool back,
                     struct lk_err *err) {
    if (key.size < 1 || key.size > LK_KV_KEY_MAX || value.size > LK_KV_VALUE_MAX)
        return lk_fail(err, LK_ECORRUPT, "a row has a key of %zu bytes and a value of %zu", key.size, value.size);
    int c = lk__kv_compare(lk_bytes(before->data, before->size), key);
    if (before->size && (back ? c <= 0 : c >= 0))
        return lk_fail(err, LK_ECORRUPT, "the rows are not in order at the key that begins with \"%.*s\"",
                       (int)(key.size < 40 ? key.size : 40), (const char *)key.data);
    return 0;
}

/* Every page of a value is read, so that a disk that cannot shows. */
static void touch(struct lk_bytes value) {
    for (size_t i = 0; i < value.size; i += 4096) (void)((const volatile char *)value.data)[i];
}

static int walk(struct lk_kv_txn *txn, bool back, struct lk_kv_check *out, struct lk_err *err) {
    struct lk_kv_cursor *c;
    struct lk_buf before = LK_BUF_INIT;
    int code = lk_kv_cursor_open(txn, lk_bytes(NULL, 0), lk_bytes(NULL, 0), &c, err);
    if (code != 0) return code;
    code = back ? lk_kv_cursor_last(c, err) : lk_kv_cursor_first(c, err);
    while (code == 0) {
        struct lk_bytes key = lk_kv_cursor_key(c), value = lk_kv_cursor_value(c);
        code = check_row(&before, key, value, back, err);
        out->rows++;
        out->key_bytes += key.size;
        out->value_bytes += value.size;
        if (!back) touch(value);
        before.size = 0;
        if (code == 0 && lk_buf_append(&before, key.data, key.size) != 0)
            code = lk_fail(err, LK_ENOMEM, "out of memory checking rows");
        if (code == 0) code = back ? lk_kv_cursor_previous(c, err) : lk_kv_cursor_next(c, err);
    }
    lk_kv_cursor_close(c);
    lk_buf_release(&before);
    return code == LK_ENOTFOUND ? 0 : code;
}

/* --- layers ------------------------------------------------------------------------------------------------ */

/* Each link names a layer that has rows, and each layer's rows have a link. */
struct names {
    struct lk_buf links, layers; /* NAME_BYTES each */
};

static int note(struct lk_buf *names, const void *name, struct lk_err *err) {
    if (names->size && memcmp(names->data + names->size - NAME_BYTES, name, NAME_BYTES) == 0) return 0;
    return lk_buf_append(names, name, NAME_BYTES) == 0 ? 0 : lk_fail(err, LK_ENOMEM, "out of memory checking rows");
}

static int note_row(struct names *n, struct lk_bytes key, struct lk_bytes value, size_t key_max, struct lk_err *err) {
    const unsigned char *k = key.data;
    int code = 0;
    bool layer = k[0] == LK__KV_RESERVED && key.size >= 2 && k[1] == 'L';
    if (layer && key.size <= LK__KV_LAYER_PREFIX)
        return lk_fail(err, LK_ECORRUPT, "a row of a layer has a key of %zu bytes", key.size);
    if (layer) code = note(&n->layers, k + 2, err);
    if (code != 0 || key.size < key_max) return code;
    struct lk_root name;
    lk_sha256(key.data, key.size, &name);
    code = lk__kv_layer_check_link(key, value, err);
    return code == 0 ? note(&n->links, name.bytes, err) : code;
}

static int by_name(const void *a, const void *b) {
    return memcmp(a, b, NAME_BYTES);
}

static int compare_names(struct names *n, struct lk_err *err) {
    if (n->links.size) qsort(n->links.data, n->links.size / NAME_BYTES, NAME_BYTES, by_name);
    size_t all = n->layers.size < n->links.size ? n->layers.size : n->links.size, at = 0;
    while (at < all && memcmp(n->links.data + at, n->layers.data + at, NAME_BYTES) == 0) at += NAME_BYTES;
    if (at == n->links.size && at == n->layers.size) return 0;
    bool lost = at < n->layers.size && (at >= n->links.size || by_name(n->layers.data + at, n->links.data + at) < 0);
    return lk_fail(err, LK_ECORRUPT,
                   lost ? "rows of long keys are there that nothing leads to (%zu layers, %zu links)"
                        : "long keys have lost their rows (%zu layers, %zu links)",
                   n->layers.size / NAME_BYTES, n->links.size / NAME_BYTES);
}

static int check_layers(struct lk_kv_txn *txn, struct lk_kv_check *out, struct lk_err *err) {
    const struct lk_kv_ops *ops = txn->kv->ops;
    struct names n = {LK_BUF_INIT, LK_BUF_INIT};
    struct lk_kv_cursor *c;
    int code = ops->cursor_open(txn, &c, err);
    if (code != 0) return code;
    c->txn = txn;
    code = ops->cursor_seek(c, lk_bytes(NULL, 0), false, err);
    while (code == 0) {
        code = note_row(&n, c->key, c->value, ops->key_max, err);
        if (code == 0) code = ops->cursor_step(c, false, err);
    }
    ops->cursor_close(c);
    if (code == LK_ENOTFOUND) code = compare_names(&n, err);
    out->layers = n.layers.size / NAME_BYTES;
    lk_buf_release(&n.links);
    lk_buf_release(&n.layers);
    return code;
}

int lk_kv_check(struct lk_kv *kv, struct lk_kv_check *out, struct lk_err *err) {
    struct lk_kv_check back = {0};
    struct lk_kv_txn *txn;
    *out = back;
    int code = lk_kv_begin(kv, false, &txn, err);
    if (code != 0) return code;
    code = walk(txn, false, out, err);
    if (code == 0) code = walk(txn, true, &back, err);
    if (code == 0 && (back.rows != out->rows || back.key_bytes != out->key_bytes || back.value_bytes != out->value_bytes))
        code = lk_fail(err, LK_ECORRUPT, "%llu rows forwards, %llu backwards", (unsigned long long)out->rows,
                       (unsigned long long)back.rows);
    if (code == 0) code = check_layers(txn, out, err);
    lk_kv_abort(txn);
    return code;
}
