/* Keys that are longer than an engine's rows may have: layers of prefixes, as in Masstree (Mao, Kohler, Morris,
 * EuroSys'12). README.md has the proof, docs/formats.md the bytes. K is the engine's key_max. */
#ifndef LK_KV_LAYERS_H
#define LK_KV_LAYERS_H
#include "store/kv/kv_engine.h"

#define LK__KV_LAYER_PREFIX 18 /* 0x00 'L' and 16 bytes that name the layer */

/* Holds what follows the first `base` bytes of keys; the root layer those that follow nothing. */
struct lk__kv_layer {
    size_t base;
    size_t prefix_size; /* of its rows' keys: 0 in the root layer, else LK__KV_LAYER_PREFIX */
    unsigned char prefix[LK__KV_LAYER_PREFIX];
};
struct lk__kv_row_key {
    size_t size;
    unsigned char data[LK__KV_ROW_KEY_MAX];
};

void lk__kv_layer_root(struct lk__kv_layer *);
/* The most that a row of this layer holds of a key; of more, the rest is in the layer below. */
static inline size_t lk__kv_layer_room(const struct lk__kv_layer *l, size_t key_max) {
    return key_max - 1 - l->prefix_size;
}
/* The layer behind a link; a hash of the link's row key is its name. out may be the layer above. */
void lk__kv_layer_below(const struct lk__kv_layer *, struct lk_bytes link, struct lk__kv_layer *out);
/* The row of what follows base: true if it fits, false if it is that of a link. */
bool lk__kv_layer_row(const struct lk__kv_layer *, size_t key_max, struct lk_bytes rest, struct lk__kv_row_key *out);
/* Whether a row that is as long as key_max is a link; LK_EUNSUPPORTED: of an older release's store. */
int lk__kv_layer_check_link(struct lk_bytes key, struct lk_bytes value, struct lk_err *);

static inline bool lk__kv_layers_long(const struct lk_kv *kv, struct lk_bytes key) {
    return key.size >= kv->ops->key_max;
}
/* The key of the row that holds key's value: key itself where it is not long. */
struct lk_bytes lk__kv_layers_find(const struct lk_kv *, struct lk_bytes key, struct lk__kv_row_key *out);
/* Before the row of a long key is put: the links that lead to it. */
int lk__kv_layers_link(struct lk_kv_txn *, struct lk_bytes key, struct lk_err *);
/* After it was removed: away with the links to layers that are empty now. */
int lk__kv_layers_unlink(struct lk_kv_txn *, struct lk_bytes key, struct lk_err *);
/* 0: there is a row of a layer; LK_ENOTFOUND: no key is long. */
int lk__kv_layers_any(struct lk_kv_txn *, struct lk_err *);

/* --- cursors (kv_cursor.c) --------------------------------------------------------------------------------- */

/* Before each write: what stands on a row keeps its key. LK_ENOMEM. */
int lk__kv_cursors_keep(struct lk_kv_txn *, struct lk_err *);

#endif
