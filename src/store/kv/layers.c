#include "store/kv/layers.h"
#include <string.h>

void lk__layer_root(struct lk__layer *l) {
    l->base = l->prefix_size = 0;
    lk__sha256_init(&l->hash);
}

void lk__layer_below(const struct lk__layer *l, const unsigned char *part, size_t size, struct lk__layer *out) {
    struct lk__sha256 hash = l->hash;
    uint8_t name[32];
    lk__sha256_update(&hash, part, size);
    out->base = l->base + size;
    out->hash = hash;
    lk__sha256_final(&hash, name);
    out->prefix_size = LK__LAYER_PREFIX;
    out->prefix[0] = LK__KV_RESERVED;
    out->prefix[1] = 'L';
    memcpy(out->prefix + 2, name, LK__LAYER_PREFIX - 2);
}

bool lk__layer_row(const struct lk__layer *l, size_t key_max, struct lk_bytes rest, struct lk__row_key *out) {
    size_t room = lk__layer_room(l, key_max);
    bool fits = rest.size <= room;
    size_t part = fits ? rest.size : room;
    memcpy(out->data, l->prefix, l->prefix_size);
    if (part) memcpy(out->data + l->prefix_size, rest.data, part);
    out->size = l->prefix_size + part;
    if (!fits) out->data[out->size++] = 0;
    return fits;
}

int lk__layer_check_link(struct lk_bytes key, struct lk_bytes value, struct lk_err *err) {
    const unsigned char *k = key.data;
    if (k[key.size - 1] == 0 && value.size == 0) return 0;
    return lk_fail(err, LK_EUNSUPPORTED,
                   "a row with a key of %zu bytes, which only release 0.1 wrote, begins with \"%.40s\": delete it or "
                   "give it a shorter key with that release",
                   key.size, (const char *)(k[0] ? k : (const unsigned char *)""));
}

/* Down to the layer that holds the key's last bytes. */
static void descend(size_t key_max, struct lk_bytes key, struct lk__layer *l) {
    const unsigned char *data = key.data;
    lk__layer_root(l);
    for (size_t room; key.size - l->base > (room = lk__layer_room(l, key_max));)
        lk__layer_below(l, data + l->base, room, l);
}

static struct lk_bytes rest_of(struct lk_bytes key, const struct lk__layer *l) {
    return lk_bytes((const char *)key.data + l->base, key.size - l->base);
}
static struct lk_bytes bytes_of(const struct lk__row_key *k) {
    return lk_bytes(k->data, k->size);
}

struct lk_bytes lk__layers_find(const struct lk_kv *kv, struct lk_bytes key, struct lk__row_key *out) {
    struct lk__layer l;
    if (!lk__layers_long(kv, key)) return key;
    descend(kv->ops->key_max, key, &l);
    lk__layer_row(&l, kv->ops->key_max, rest_of(key, &l), out);
    return bytes_of(out);
}

/* Links are written also where they are: who removes an empty layer's link at the same time, on an engine where that is
 * possible, then conflicts with us. */
int lk__layers_link(struct lk_kv_txn *txn, struct lk_bytes key, struct lk_err *err) {
    const struct lk_kv_ops *ops = txn->kv->ops;
    struct lk__row_key row;
    struct lk__layer l;
    lk__layer_root(&l);
    while (!lk__layer_row(&l, ops->key_max, rest_of(key, &l), &row)) {
        int code = ops->put(txn, bytes_of(&row), lk_bytes("", 0), err);
        if (code != 0) return code;
        lk__layer_below(&l, (const unsigned char *)key.data + l.base, lk__layer_room(&l, ops->key_max), &l);
    }
    return 0;
}

/* 0: there is a row that begins so. */
static int any_row(struct lk_kv_txn *txn, struct lk_bytes prefix, struct lk_err *err) {
    const struct lk_kv_ops *ops = txn->kv->ops;
    struct lk_kv_cursor *c;
    int code = ops->cursor_open(txn, &c, err);
    if (code != 0) return code;
    c->txn = txn;
    code = ops->cursor_seek(c, prefix, false, err);
    if (code == 0 && (c->key.size < prefix.size || memcmp(c->key.data, prefix.data, prefix.size) != 0)) code = LK_ENOTFOUND;
    ops->cursor_close(c);
    return code;
}

int lk__layers_any(struct lk_kv_txn *txn, struct lk_err *err) {
    static const char layers[] = {LK__KV_RESERVED, 'L'};
    return any_row(txn, lk_bytes(layers, sizeof layers), err);
}

/* From the key's last layer upwards. Layers begin at bytes 0, first, first + each, ... of a key. */
int lk__layers_unlink(struct lk_kv_txn *txn, struct lk_bytes key, struct lk_err *err) {
    const struct lk_kv_ops *ops = txn->kv->ops;
    size_t first = ops->key_max - 1, each = first - LK__LAYER_PREFIX;
    for (size_t depth = 1 + (key.size - first - 1) / each; depth > 0; depth--) {
        struct lk__row_key row;
        struct lk__layer l;
        struct lk_bytes begin = lk_bytes(key.data, first + (depth - 1) * each + 1); /* one byte is in the layer */
        descend(ops->key_max, begin, &l);
        int code = any_row(txn, lk_bytes(l.prefix, l.prefix_size), err);
        if (code != LK_ENOTFOUND) return code;
        descend(ops->key_max, lk_bytes(begin.data, begin.size - 1), &l); /* the layer above, with the link */
        lk__layer_row(&l, ops->key_max, rest_of(begin, &l), &row);
        code = ops->remove(txn, bytes_of(&row), err);
        if (code != 0) return code;
    }
    return 0;
}
