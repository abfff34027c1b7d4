/* Keys that are longer than an engine's rows may have: layers of prefixes, as in Masstree (Mao, Kohler, Morris,
 * EuroSys'12). README.md has the proof, docs/formats.md the bytes. K is the engine's key_max. */
#ifndef LK_KV_LAYERS_H
#define LK_KV_LAYERS_H
#include "base/sha256.h"
#include "store/kv/kv_engine.h"

#define LK__LAYER_PREFIX 18 /* 0x00 'L' and 16 bytes that name the layer */

/* Holds what follows the first `base` bytes of keys; the root layer those that follow nothing. */
struct lk__layer {
    size_t base;
    size_t prefix_size; /* of its rows' keys: 0 in the root layer, else LK__LAYER_PREFIX */
    unsigned char prefix[LK__LAYER_PREFIX];
    struct lk__sha256 hash; /* of the base bytes */
};
struct lk__row_key {
    size_t size;
    unsigned char data[LK__KV_ROW_KEY_MAX];
};

void lk__layer_root(struct lk__layer *);
/* The most that a row of this layer holds of a key; of more, the rest is in the layer below. */
static inline size_t lk__layer_room(const struct lk__layer *l, size_t key_max) {
    return key_max - 1 - l->prefix_size;
}
/* The layer behind a link that stands for lk__layer_room bytes `part`. */
void lk__layer_below(const struct lk__layer *, const unsigned char *part, size_t size, struct lk__layer *out);
/* The row of what follows base: true if it fits, false if it is that of a link. */
bool lk__layer_row(const struct lk__layer *, size_t key_max, struct lk_bytes rest, struct lk__row_key *out);
/* Whether a row that is as long as key_max is a link; LK_EUNSUPPORTED: of an older release's store. */
int lk__layer_check_link(struct lk_bytes key, struct lk_bytes value, struct lk_err *);

static inline bool lk__layers_long(const struct lk_kv *kv, struct lk_bytes key) {
    return key.size >= kv->ops->key_max;
}
/* The key of the row that holds key's value: key itself where it is not long. */
struct lk_bytes lk__layers_find(const struct lk_kv *, struct lk_bytes key, struct lk__row_key *out);
/* Before the row of a long key is put: the links that lead to it. */
int lk__layers_link(struct lk_kv_txn *, struct lk_bytes key, struct lk_err *);
/* After it was removed: away with the links to layers that are empty now. */
int lk__layers_unlink(struct lk_kv_txn *, struct lk_bytes key, struct lk_err *);
/* 0: there is a row of a layer; LK_ENOTFOUND: no key is long. */
int lk__layers_any(struct lk_kv_txn *, struct lk_err *);

/* --- cursors (kv_cursor.c) --------------------------------------------------------------------------------- */

/* Before each write: what stands on a row keeps its key. LK_ENOMEM. */
int lk__cursors_keep(struct lk_kv_txn *, struct lk_err *);

#endif
