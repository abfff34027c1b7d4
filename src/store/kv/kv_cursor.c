/* Cursors of callers: bounds, both directions, long keys, places that outlive writes. An engine's cursor for each layer on
 * the way to where it stands. */
#include "store/kv/layers.h"
#include <string.h>

enum place {
    NOWHERE,
    ON_ROW, /* the engine's cursors stand there */
    KEPT    /* the transaction wrote since: only the key is known */
};
struct level {
    struct lk__kv_layer layer;
    struct lk_kv_cursor *engine;
};
struct lk__kv_cursor {
    struct lk_kv_cursor base;
    struct lk__kv_cursor *next; /* of the transaction */
    enum place place;
    struct lk_kv_cursor *root; /* the engine's, in the root layer */
    const struct lk_kv_ops *ops;
    size_t key_max;
    struct level *levels;
    size_t depth, level_count;       /* the one it stands in; those that have a cursor */
    struct lk_buf from, to;          /* bounds */
    struct lk_buf key, kept, wanted; /* of a long key, the whole; where it stood; where it goes */
};

static struct lk__kv_cursor *cursor_of(struct lk_kv_cursor *base) {
    return (struct lk__kv_cursor *)base;
}
static const struct lk_kv_ops *ops_of(const struct lk__kv_cursor *c) {
    return c->ops;
}
static struct lk_bytes bytes_of(const struct lk_buf *b) {
    return lk_bytes(b->data, b->size);
}
static int set(struct lk_buf *b, struct lk_bytes from, struct lk_err *err) {
    b->size = 0;
    return lk_buf_append(b, from.data, from.size) == 0 ? 0 : lk_fail(err, LK_ENOMEM, "out of memory for a cursor");
}

/* --- open and close -------------------------------------------------------------------------------------- */

/* Makes levels[depth] usable. */
static int open_level(struct lk__kv_cursor *c, size_t depth, struct lk_err *err) {
    if (depth < c->level_count) return 0;
    struct level *more = lk_realloc(c->levels, (depth + 1) * sizeof *more);
    if (!more) return lk_fail(err, LK_ENOMEM, "out of memory for a cursor");
    c->levels = more;
    int code = ops_of(c)->cursor_open(c->base.txn, &more[depth].engine, err);
    if (code != 0) return code;
    more[depth].engine->txn = c->base.txn;
    c->level_count++;
    return 0;
}

int lk_kv_cursor_open(struct lk_kv_txn *txn, struct lk_bytes from, struct lk_bytes to, struct lk_kv_cursor **out,
                      struct lk_err *err) {
    static const char first[] = {LK__KV_RESERVED + 1};
    *out = NULL;
    if (from.size > LK_KV_KEY_MAX || to.size > LK_KV_KEY_MAX)
        return lk_fail(err, LK_EINVAL, "a bound of more than %d bytes", LK_KV_KEY_MAX);
    if (from.size == 0 || *(const unsigned char *)from.data == LK__KV_RESERVED) from = lk_bytes(first, 1);
    struct lk__kv_cursor *c = lk_calloc(1, sizeof *c);
    if (!c) return lk_fail(err, LK_ENOMEM, "out of memory for a cursor");
    c->base.txn = txn;
    c->ops = txn->kv->ops;
    c->key_max = c->ops->key_max;
    c->next = txn->cursors;
    txn->cursors = c;
    int code = open_level(c, 0, err);
    if (code == 0) {
        c->root = c->levels[0].engine;
        lk__kv_layer_root(&c->levels[0].layer);
    }
    if (code == 0) code = set(&c->from, from, err);
    if (code == 0 && to.size) code = set(&c->to, to, err);
    if (code == 0)
        *out = &c->base;
    else
        lk_kv_cursor_close(&c->base);
    return code;
}

void lk_kv_cursor_close(struct lk_kv_cursor *base) {
    struct lk__kv_cursor *c = cursor_of(base);
    if (!c) return;
    struct lk__kv_cursor **link = &c->base.txn->cursors;
    while (*link != c) link = &(*link)->next;
    *link = c->next;
    for (size_t i = 0; i < c->level_count; i++) ops_of(c)->cursor_close(c->levels[i].engine);
    lk_free(c->levels);
    struct lk_buf *buffers[] = {&c->from, &c->to, &c->key, &c->kept, &c->wanted};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) lk_buf_release(buffers[i]);
    lk_free(c);
}

static void leave(struct lk__kv_cursor *c, enum place place) {
    c->place = place;
    c->base.key = c->base.value = lk_bytes(NULL, 0);
}

int lk__kv_cursors_keep(struct lk_kv_txn *txn, struct lk_err *err) {
    for (struct lk__kv_cursor *c = txn->cursors; c; c = c->next) {
        if (c->place != ON_ROW) continue;
        int code = set(&c->kept, c->base.key, err);
        if (code != 0) return code;
        leave(c, KEPT);
    }
    return 0;
}

/* --- moves ----------------------------------------------------------------------------------------------- */

/* Whether the row that the engine's cursor stands on belongs to its layer: the root layer has none that begin with a zero
 * byte. */
static bool in_layer(const struct level *l) {
    struct lk_bytes key = l->engine->key;
    if (!l->layer.prefix_size) return *(const unsigned char *)key.data != LK__KV_RESERVED;
    return key.size > l->layer.prefix_size && memcmp(key.data, l->layer.prefix, l->layer.prefix_size) == 0;
}

/* Copies what the row adds to the key of the layers above. */
static int add_part(struct lk__kv_cursor *c, size_t size, struct lk_err *err) {
    const struct level *l = &c->levels[c->depth];
    if (l->layer.base + size > LK_KV_KEY_MAX)
        return lk_fail(err, LK_ECORRUPT, "a long key has more than %d bytes: its layers are damaged", LK_KV_KEY_MAX);
    c->key.size = l->layer.base;
    if (lk_buf_append(&c->key, (const char *)l->engine->key.data + l->layer.prefix_size, size) == 0) return 0;
    return lk_fail(err, LK_ENOMEM, "out of memory for a cursor");
}

/* From a link into its layer. */
static int enter(struct lk__kv_cursor *c, struct lk_err *err) {
    struct lk_kv_cursor *e = c->levels[c->depth].engine;
    size_t room = lk__kv_layer_room(&c->levels[c->depth].layer, ops_of(c)->key_max);
    int code = lk__kv_layer_check_link(e->key, e->value, err);
    if (code == 0) code = add_part(c, room, err);
    if (code == 0) code = open_level(c, c->depth + 1, err);
    if (code != 0) return code;
    const struct level *above = &c->levels[c->depth++];
    lk__kv_layer_below(&above->layer, above->engine->key, &c->levels[c->depth].layer);
    return 0;
}

/* The first or last row of the layer that was just entered: there is one. */
static int edge(struct lk__kv_cursor *c, bool back, struct lk_err *err) {
    struct level *l = &c->levels[c->depth];
    unsigned char end[LK__KV_LAYER_PREFIX];
    struct lk_bytes to = lk_bytes(l->layer.prefix, l->layer.prefix_size);
    if (back) {
        lk_kv_prefix_end(to, end, &to.size);
        to.data = end;
    }
    int code = ops_of(c)->cursor_seek(l->engine, to, back, err);
    if (code != LK_ENOTFOUND && (code != 0 || in_layer(l))) return code;
    return lk_fail(err, LK_ECORRUPT, "the first %zu bytes of long keys stand for none: their layer is damaged",
                   l->layer.base);
}

static int show(struct lk__kv_cursor *c, struct lk_err *err) {
    const struct level *l = &c->levels[c->depth];
    c->base.key = l->engine->key;
    c->base.value = l->engine->value;
    if (c->depth == 0) return 0;
    int code = add_part(c, l->engine->key.size - l->layer.prefix_size, err);
    c->base.key = bytes_of(&c->key);
    return code;
}

/* code: of the last move of the deepest engine's cursor. Goes on, up where its layer is at an end and down where it stands
 * on a link, to a row with a value. */
static int settle(struct lk__kv_cursor *c, bool back, int code, struct lk_err *err) {
    for (;;) {
        struct level *l = &c->levels[c->depth];
        if (code == 0 && !in_layer(l)) code = LK_ENOTFOUND;
        if (code == LK_ENOTFOUND && c->depth > 0) {
            l = &c->levels[--c->depth];
            code = ops_of(c)->cursor_step(l->engine, back, err);
            continue;
        }
        if (code != 0) return code;
        if (l->engine->key.size < ops_of(c)->key_max) return show(c, err);
        code = enter(c, err);
        if (code == 0) code = edge(c, back, err);
        if (code != 0) return code;
    }
}

/* To the first row >= key, or the last one < key (of no bytes: the last of all). */
static int go(struct lk__kv_cursor *c, struct lk_bytes key, bool back, struct lk_err *err) {
    const struct lk_kv_ops *ops = ops_of(c);
    struct lk__kv_row_key row;
    c->depth = 0;
    for (;;) {
        struct level *l = &c->levels[c->depth];
        if (key.size < ops->key_max) /* the usual key, not copied */
            return settle(c, back, ops->cursor_seek(l->engine, key, back, err), err);
        struct lk_bytes rest = lk_bytes((const char *)key.data + l->layer.base, key.size - l->layer.base);
        bool fits = lk__kv_layer_row(&l->layer, ops->key_max, rest, &row);
        /* Back from a link's key, so that one comes to the link itself. */
        if (!fits && back) row.data[row.size - 1] = 1;
        int code = ops->cursor_seek(l->engine, lk_bytes(row.data, row.size), back, err);
        if (fits || code != 0) return settle(c, back, code, err);
        row.data[row.size - 1] = 0;
        if (lk__kv_compare(l->engine->key, lk_bytes(row.data, row.size)) != 0) return settle(c, back, 0, err);
        if ((code = enter(c, err)) != 0) return code;
    }
}

static bool within(const struct lk__kv_cursor *c, bool back) {
    if (back) return lk__kv_compare(c->base.key, bytes_of(&c->from)) >= 0;
    return c->to.size == 0 || lk__kv_compare(c->base.key, bytes_of(&c->to)) < 0;
}

/* The end of every move. */
static int arrive(struct lk__kv_cursor *c, bool back, int code, struct lk_err *err) {
    if (code == 0 && !within(c, back)) code = LK_ENOTFOUND;
    if (code == 0) {
        c->place = ON_ROW;
        return 0;
    }
    leave(c, NOWHERE);
    if (code == LK_ECONFLICT) c->base.txn->failed = code;
    return code == LK_ENOTFOUND ? lk_fail(err, LK_ENOTFOUND, "no row there in the store (%s)", ops_of(c)->name) : code;
}

int lk_kv_cursor_first(struct lk_kv_cursor *base, struct lk_err *err) {
    struct lk__kv_cursor *c = cursor_of(base);
    return arrive(c, false, go(c, bytes_of(&c->from), false, err), err);
}
int lk_kv_cursor_last(struct lk_kv_cursor *base, struct lk_err *err) {
    struct lk__kv_cursor *c = cursor_of(base);
    return arrive(c, true, go(c, bytes_of(&c->to), true, err), err);
}

/* The key that a seek is given may point into what moves. */
int lk_kv_cursor_seek(struct lk_kv_cursor *base, struct lk_bytes key, struct lk_err *err) {
    struct lk__kv_cursor *c = cursor_of(base);
    if (lk__kv_compare(key, bytes_of(&c->from)) <= 0) return lk_kv_cursor_first(base, err);
    int code = set(&c->wanted, key, err);
    return arrive(c, false, code ? code : go(c, bytes_of(&c->wanted), false, err), err);
}

/* key and a zero byte: what is before that is at most key. */
static int want_behind(struct lk__kv_cursor *c, struct lk_bytes key, struct lk_err *err) {
    int code = set(&c->wanted, key, err);
    if (code == 0 && lk_buf_append(&c->wanted, "", 1) != 0) code = lk_fail(err, LK_ENOMEM, "out of memory for a cursor");
    return code;
}
int lk_kv_cursor_seek_back(struct lk_kv_cursor *base, struct lk_bytes key, struct lk_err *err) {
    struct lk__kv_cursor *c = cursor_of(base);
    if (c->to.size && lk__kv_compare(key, bytes_of(&c->to)) >= 0) return lk_kv_cursor_last(base, err);
    int code = want_behind(c, key, err);
    return arrive(c, true, code ? code : go(c, bytes_of(&c->wanted), true, err), err);
}

static int step(struct lk__kv_cursor *c, bool back, struct lk_err *err) {
    return settle(c, back, ops_of(c)->cursor_step(c->levels[c->depth].engine, back, err), err);
}
/* Word by word, as the engine has just stored it: a wider load would wait until the stores have left the core. */
static void take_row(struct lk_kv_row *to, const volatile struct lk_kv_row *from) {
    to->key.data = from->key.data;
    to->key.size = from->key.size;
    to->value.data = from->value.data;
    to->value.size = from->value.size;
}
/* Where the engine's step (code) was not from one short key to the next. */
static __attribute__((noinline)) int step_off(struct lk__kv_cursor *c, int code, struct lk_err *err) {
    return arrive(c, false, settle(c, false, code, err), err);
}
static __attribute__((noinline)) int next_of(struct lk__kv_cursor *c, struct lk_err *err) {
    int code = LK_ENOTFOUND;
    if (c->place == ON_ROW)
        code = step(c, false, err);
    else if (c->place == KEPT && (code = want_behind(c, bytes_of(&c->kept), err)) == 0)
        code = go(c, bytes_of(&c->wanted), false, err);
    return arrive(c, false, code, err);
}
/* Most steps are from one short key to the next one: these have no frame but this one. */
int lk_kv_cursor_next(struct lk_kv_cursor *base, struct lk_err *err) {
    struct lk__kv_cursor *c = cursor_of(base);
    if (c->place != ON_ROW || c->depth != 0) return next_of(c, err);
    struct lk_kv_cursor *e = c->root;
    int code = c->ops->cursor_step(e, false, err);
    if (code != 0 || e->key.size >= c->key_max) return step_off(c, code, err);
    take_row(&c->base.row, &e->row);
    return c->to.size == 0 || within(c, false) ? 0 : arrive(c, false, LK_ENOTFOUND, err);
}
int lk_kv_cursor_previous(struct lk_kv_cursor *base, struct lk_err *err) {
    struct lk__kv_cursor *c = cursor_of(base);
    int code = LK_ENOTFOUND;
    if (c->place == ON_ROW)
        code = step(c, true, err);
    else if (c->place == KEPT)
        code = go(c, bytes_of(&c->kept), true, err);
    return arrive(c, true, code, err);
}
