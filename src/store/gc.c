/* Mark and sweep. Marks start from the rows, as their kinds say; a marked blob that is a manifest marks what it names. */
#include "lockstep/store/gc.h"
#include "lockstep/base/mem.h"
#include "lockstep/base/progress.h"
#include "store/kv/kv_engine.h"
#include <string.h>

#define UNKNOWN "nothing was removed, since what is still needed is not known"

struct marks {
    struct lk_store *store;
    lk_row_kinds kinds;
    struct lk_root *list; /* in order of discovery; the first `done` have been looked into */
    uint32_t *holder;     /* of each: where its row's text begins in `texts` */
    size_t count, done, capacity;
    uint32_t *slots; /* open addressing, index + 1 */
    size_t slot_count;
    bool explains;
    struct lk_buf texts; /* what rows are, each ended by a zero */
    uint32_t row;        /* where that of the row begins that marks now */
};

static size_t slot_of(const struct marks *m, const struct lk_root *root) {
    uint64_t h;
    memcpy(&h, root->bytes, 8);
    size_t i = h & (m->slot_count - 1);
    while (m->slots[i] && !lk_root_equal(&m->list[m->slots[i] - 1], root)) i = (i + 1) & (m->slot_count - 1);
    return i;
}
static bool is_marked(const struct marks *m, const struct lk_root *root) {
    return m->slot_count && m->slots[slot_of(m, root)];
}

static int grow(struct marks *m) {
    size_t more = m->capacity ? 2 * m->capacity : 256;
    struct lk_root *list = lk_realloc(m->list, more * sizeof *list);
    if (list) m->list = list;
    uint32_t *holder = lk_realloc(m->holder, more * sizeof *holder), *slots = lk_calloc(4 * more, sizeof *slots);
    if (holder) m->holder = holder;
    if (!list || !holder || !slots) {
        lk_free(slots);
        return LK_ENOMEM;
    }
    lk_free(m->slots);
    m->slots = slots;
    m->capacity = more;
    m->slot_count = 4 * more;
    for (size_t i = 0; i < m->count; i++) m->slots[slot_of(m, &m->list[i])] = (uint32_t)i + 1;
    return LK_OK;
}
static int mark(void *arg, const struct lk_root *root) {
    struct marks *m = arg;
    if (m->count == m->capacity && grow(m)) return LK_ENOMEM;
    size_t slot = slot_of(m, root);
    if (m->slots[slot]) return LK_OK;
    m->list[m->count] = *root;
    m->holder[m->count++] = m->row;
    m->slots[slot] = (uint32_t)m->count;
    return LK_OK;
}
static void release(struct marks *m) {
    lk_free(m->list);
    lk_free(m->holder);
    lk_free(m->slots);
    lk_buf_release(&m->texts);
}
static int no_memory(int code, struct lk_err *err) {
    return code == LK_ENOMEM ? lk_fail(err, code, "no memory to collect garbage") : code;
}

/* --- Rows ------------------------------------------------------------------------------------------------ */

static int explain(struct marks *m, const struct lk_row_kind *kind, struct lk_bytes key, struct lk_bytes value) {
    m->row = (uint32_t)m->texts.size;
    int code = kind->print ? kind->print(key, value, &m->texts) : lk_buf_append(&m->texts, key.data, key.size);
    return code ? code : lk_buf_append(&m->texts, "", 1);
}
/* The key as text, what is not printable as '?'. */
static const char *shown(struct lk_bytes key, char out[80]) {
    size_t n = key.size < 79 ? key.size : 79;
    for (size_t i = 0; i < n; i++) {
        char c = ((const char *)key.data)[i];
        out[i] = c > 0x20 && c < 0x7f ? c : '?';
    }
    out[n] = 0;
    return out;
}
static int unknown_row(struct lk_bytes key, struct lk_err *err) {
    char text[80];
    return lk_fail(err, LK_EUNSUPPORTED,
                   UNKNOWN
                   ": the row %s is of no kind that this program knows; use the release that wrote it, or remove the row: "
                   "`lockstep kv del`",
                   shown(key, text));
}

/* Marks what rows need; kinds that need nothing are passed over. */
static int mark_rows(struct marks *m, struct lk_kv_txn *txn, struct lk_err *err) {
    struct lk_kv_cursor *c;
    unsigned char behind[64];
    int code = lk_kv_cursor_open(txn, lk_bytes("", 0), lk_bytes("", 0), &c, err);
    if (code) return code;
    code = lk_kv_cursor_first(c, err);
    while (!code) {
        struct lk_bytes key = lk_kv_cursor_key(c), value = lk_kv_cursor_value(c);
        const struct lk_row_kind *kind = lk_row_kind_of(m->kinds, key);
        if (!kind) {
            code = unknown_row(key, err);
            break;
        }
        if (kind->holds) {
            if (m->explains) code = explain(m, kind, key, value);
            if (!code) code = kind->holds(key, value, mark, m, err);
            if (code == LK_ECORRUPT) code = lk_fail_prefix(err, code, UNKNOWN);
            if (!code) code = lk_kv_cursor_next(c, err);
        } else if (kind->whole)
            code = lk_kv_cursor_next(c, err);
        else {
            size_t size = strlen(kind->prefix);
            LK_ASSERT(size <= sizeof behind && lk_kv_prefix_end(lk_bytes(kind->prefix, size), behind, &size));
            code = lk_kv_cursor_seek(c, lk_bytes(behind, size), err);
        }
    }
    lk_kv_cursor_close(c);
    return code == LK_ENOTFOUND ? LK_OK : no_memory(code, err);
}

/* A blob that is not there names nothing; one that can't be read now may name what must stay. */
static int mark_children(struct marks *m, struct lk_err *err) {
    for (; m->done < m->count; m->done++) {
        struct lk_blob blob;
        struct lk_root root = m->list[m->done];
        m->row = m->holder[m->done];
        char first = 0;
        size_t got;
        int code = lk_blob_peek(m->store->blobs, &root, &first, 1, &got, err);
        if (code == LK_ENOTFOUND) continue;
        if (code) return lk_fail_prefix(err, code, UNKNOWN);
        if (!got || first != '{') continue;
        /* a flipped digit would name another blob and give the right one away: only whole manifests are believed */
        if ((code = lk_blob_open(m->store->blobs, &root, true, &blob, err))) return lk_fail_prefix(err, code, UNKNOWN);
        code = lk_row_tell_hex((const char *)blob.data, blob.size, mark, m);
        lk_blob_close(&blob);
        if (code) return no_memory(code, err);
    }
    return LK_OK;
}

/* --- Sweeping -------------------------------------------------------------------------------------------- */

struct sweep {
    struct marks marks;
    const struct lk_gc_options *options;
    int64_t now_ms;
    struct lk_gc_blob *victims; /* candidates, in order of their roots */
    size_t count, capacity, done;
    struct lk_gc_result *result;
};
static void keep(struct sweep *s, uint64_t size) {
    s->result->kept++;
    s->result->kept_bytes += size;
}
static int look_at_blob(void *arg, const struct lk_root *root, uint64_t size, int64_t modified_ms) {
    struct sweep *s = arg;
    struct lk_gc_blob b = {*root, size, s->now_ms - modified_ms, false, NULL};
    bool marked = is_marked(&s->marks, root);
    b.goes = !marked && b.age_ms >= s->options->grace_ms;
    if (marked && s->marks.explains)
        b.holder = s->marks.texts.data + s->marks.holder[s->marks.slots[slot_of(&s->marks, root)] - 1];
    if (s->options->dry_run && s->options->tell) s->options->tell(s->options->arg, &b);
    if (!b.goes) return keep(s, size), 0;
    if (s->count == s->capacity) {
        size_t more = s->capacity ? 2 * s->capacity : 256;
        struct lk_gc_blob *list = lk_realloc(s->victims, more * sizeof *list);
        if (!list) return LK_ENOMEM;
        s->victims = list, s->capacity = more;
    }
    s->victims[s->count++] = b;
    return 0;
}

/* No row is committed while this transaction has its time: what is not marked now is not needed. A blob that is gone
 * already was another collector's. */
static int remove_victims(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    struct sweep *s = arg;
    int64_t time;
    int code = lk__kv_timestamp(txn, &time, err);
    if (!code) code = mark_rows(&s->marks, txn, err);
    if (!code) code = mark_children(&s->marks, err);
    for (; !code && s->done < s->count; s->done += !code) {
        const struct lk_gc_blob *b = &s->victims[s->done];
        int64_t modified_ms;
        if (is_marked(&s->marks, &b->root)) {
            keep(s, b->size_bytes);
            continue;
        }
        code = lk_blob_modified(s->marks.store->blobs, &b->root, &modified_ms, err);
        if (!code && s->now_ms - modified_ms < s->options->grace_ms) { /* a writer has found it since */
            keep(s, b->size_bytes);
            continue;
        }
        if (!code) code = lk_blob_delete(s->marks.store->blobs, &b->root, err);
        if (!code) s->result->blobs++, s->result->bytes += b->size_bytes;
        if (code == LK_ENOTFOUND) code = LK_OK;
    }
    return code;
}

static int mark_snapshot(struct marks *m, struct lk_err *err) {
    struct lk_kv_txn *txn;
    int code = lk_kv_begin(m->store->kv, false, &txn, err);
    if (code) return code;
    code = mark_rows(m, txn, err);
    lk_kv_abort(txn);
    return code ? code : mark_children(m, err);
}

int lk_store_gc(struct lk_store *store, lk_row_kinds kinds, const struct lk_gc_options *options, struct lk_gc_result *out,
                struct lk_err *err) {
    bool dry = options->dry_run;
    struct sweep s = {.marks = {.store = store, .kinds = kinds, .explains = dry && options->tell, .texts = LK_BUF_INIT},
                      .options = options,
                      .now_ms = lk_clock_wall_ms(),
                      .result = out};
    memset(out, 0, sizeof *out);
    int code = mark_snapshot(&s.marks, err);
    if (!code) code = no_memory(lk_blobs_list(store->blobs, dry ? -1 : options->grace_ms, look_at_blob, &s, err), err);
    for (size_t i = 0; dry && !code && i < s.count; i++) out->blobs++, out->bytes += s.victims[i].size_bytes;
    if (!dry && !code && s.count) code = lk_kv_update(store->kv, remove_victims, &s, LK_LAZY, NULL, err);
    lk_free(s.victims);
    release(&s.marks);
    return code;
}

struct dropping {
    struct marks needed, dropped;
};
static int remove_dropped(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    struct dropping *d = arg;
    int64_t time;
    int code = lk__kv_timestamp(txn, &time, err);
    if (!code) code = mark_rows(&d->needed, txn, err);
    if (!code) code = mark_children(&d->needed, err);
    for (size_t i = 0; i < d->dropped.count && !code; i++)
        if (!is_marked(&d->needed, &d->dropped.list[i])) {
            code = lk_blob_delete(d->needed.store->blobs, &d->dropped.list[i], err);
            if (code == LK_ENOTFOUND) code = LK_OK;
        }
    return code;
}
int lk_store_gc_dropped(struct lk_store *store, lk_row_kinds kinds, const struct lk_root *roots, size_t count,
                        struct lk_err *err) {
    struct dropping d = {{.store = store, .kinds = kinds, .texts = LK_BUF_INIT}, {.store = store, .texts = LK_BUF_INIT}};
    int code = LK_OK;
    for (size_t i = 0; i < count && !code; i++) code = no_memory(mark(&d.dropped, &roots[i]), err);
    if (!code) code = mark_children(&d.dropped, err);
    if (!code && count) code = mark_snapshot(&d.needed, err);
    if (!code && count) code = lk_kv_update(store->kv, remove_dropped, &d, LK_LAZY, NULL, err);
    release(&d.needed);
    release(&d.dropped);
    return code;
}
