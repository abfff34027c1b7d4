#include "store/kv/layers.h"
#include "lockstep/base/hash.h"
#include <string.h>

void lk__kv_layer_root(struct lk__kv_layer *l) {
    l->base = l->prefix_size = 0;
}

void lk__kv_layer_below(const struct lk__kv_layer *l, struct lk_bytes link, struct lk__kv_layer *out) {
    struct lk_root name;
    lk_sha256(link.data, link.size, &name);
    out->base = l->base + lk__kv_layer_room(l, link.size);
    out->prefix_size = LK__KV_LAYER_PREFIX;
    out->prefix[0] = LK__KV_RESERVED;
    out->prefix[1] = 'L';
    memcpy(out->prefix + 2, name.bytes, LK__KV_LAYER_PREFIX - 2);
}

bool lk__kv_layer_row(const struct lk__kv_layer *l, size_t key_max, struct lk_bytes rest, struct lk__kv_row_key *out) {
    size_t room = lk__kv_layer_room(l, key_max);
    bool fits = rest.size <= room;
    size_t part = fits ? rest.size : room;
    memcpy(out->data, l->prefix, l->prefix_size);
    if (part) memcpy(out->data + l->prefix_size, rest.data, part);
    out->size = l->prefix_size + part;
    if (!fits) out->data[out->size++] = 0;
    return fits;
}

int lk__kv_layer_check_link(struct lk_bytes key, struct lk_bytes value, struct lk_err *err) {
    const unsigned char *k = key.data;
    if (k[key.size - 1] == 0 && value.size == 0) return 0;
    return lk_fail(err, LK_EUNSUPPORTED,
                   "a row with a key of %zu bytes, which only release 0.1 wrote, begins with \"%.40s\": delete it or "
                   "give it a shorter key with that release",
                   key.size, (const char *)(k[0] ? k : (const unsigned char *)""));
}

static struct lk_bytes rest_of(struct lk_bytes key, const struct lk__kv_layer *l) {
    return lk_bytes((const char *)key.data + l->base, key.size - l->base);
}
static struct lk_bytes bytes_of(const struct lk__kv_row_key *k) {
    return lk_bytes(k->data, k->size);
}

/* Down to the layer that holds the key's last bytes, and the row there. */
static void descend(size_t key_max, struct lk_bytes key, struct lk__kv_layer *l, struct lk__kv_row_key *row) {
    lk__kv_layer_root(l);
    while (!lk__kv_layer_row(l, key_max, rest_of(key, l), row)) lk__kv_layer_below(l, bytes_of(row), l);
}

struct lk_bytes lk__kv_layers_find(const struct lk_kv *kv, struct lk_bytes key, struct lk__kv_row_key *out) {
    struct lk__kv_layer l;
    if (!lk__kv_layers_long(kv, key)) return key;
    descend(kv->ops->key_max, key, &l, out);
    return bytes_of(out);
}

/* Links are written also where they are: who removes an empty layer's link at the same time, on an engine where that is
 * possible, then conflicts with us. */
int lk__kv_layers_link(struct lk_kv_txn *txn, struct lk_bytes key, struct lk_err *err) {
    const struct lk_kv_ops *ops = txn->kv->ops;
    struct lk__kv_row_key row;
    struct lk__kv_layer l;
    lk__kv_layer_root(&l);
    while (!lk__kv_layer_row(&l, ops->key_max, rest_of(key, &l), &row)) {
        int code = ops->put(txn, bytes_of(&row), lk_bytes("", 0), err);
        if (code != 0) return code;
        lk__kv_layer_below(&l, bytes_of(&row), &l);
    }
    return 0;
}

/* 0: there is a row that begins so. Looked for from behind, so that nothing else is read where there is none: an engine
 * whose transactions meet then sees no conflict with rows that follow. */
static int any_row(struct lk_kv_txn *txn, struct lk_bytes prefix, struct lk_err *err) {
    const struct lk_kv_ops *ops = txn->kv->ops;
    unsigned char end[LK__KV_LAYER_PREFIX];
    struct lk_bytes to = lk_bytes(end, 0);
    struct lk_kv_cursor *c;
    lk_kv_prefix_end(prefix, end, &to.size);
    int code = ops->cursor_open(txn, &c, err);
    if (code != 0) return code;
    c->txn = txn;
    code = ops->cursor_seek(c, to, true, err);
    if (code == 0 && (c->key.size < prefix.size || memcmp(c->key.data, prefix.data, prefix.size) != 0)) code = LK_ENOTFOUND;
    ops->cursor_close(c);
    return code;
}

int lk__kv_layers_any(struct lk_kv_txn *txn, struct lk_err *err) {
    static const char layers[] = {LK__KV_RESERVED, 'L'};
    return any_row(txn, lk_bytes(layers, sizeof layers), err);
}

/* From the key's last layer upwards. Layers begin at bytes 0, first, first + each, ... of a key. */
int lk__kv_layers_unlink(struct lk_kv_txn *txn, struct lk_bytes key, struct lk_err *err) {
    const struct lk_kv_ops *ops = txn->kv->ops;
    size_t first = ops->key_max - 1, each = first - LK__KV_LAYER_PREFIX;
    for (size_t depth = 1 + (key.size - first - 1) / each; depth > 0; depth--) {
        struct lk__kv_row_key row;
        struct lk__kv_layer l;
        struct lk_bytes begin = lk_bytes(key.data, first + (depth - 1) * each + 1); /* one byte is in the layer */
        descend(ops->key_max, begin, &l, &row);
        int code = any_row(txn, lk_bytes(l.prefix, l.prefix_size), err);
        if (code != LK_ENOTFOUND) return code;
        descend(ops->key_max, lk_bytes(begin.data, begin.size - 1), &l, &row); /* the layer above, with the link */
        lk__kv_layer_row(&l, ops->key_max, rest_of(begin, &l), &row);
        code = ops->remove(txn, bytes_of(&row), err);
        if (code != 0) return code;
    }
    return 0;
}
