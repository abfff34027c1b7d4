/* Mark and sweep: marks.c says what rows reach, the rest goes. */
#include "lockstep/store/gc.h"
#include "lockstep/base/mem.h"
#include "lockstep/base/progress.h"
#include "lockstep/store/pin.h"
#include "store/kv/kv_engine.h"
#include "store/marks.h"
#include "store/pin.h"
#include <string.h>

static int no_memory(int code, struct lk_err *err) {
    return code == LK_ENOMEM ? lk_fail(err, code, "no memory to collect garbage") : code;
}

/* --- Sweeping -------------------------------------------------------------------------------------------- */

struct sweep {
    struct lk__store_marks marks;
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
    bool marked = lk__store_marks_has(&s->marks, root);
    b.goes = !marked && b.age_ms >= s->options->grace_ms;
    if (marked && s->marks.explains) b.holder = lk__store_marks_holder(&s->marks, root);
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
    if (!code) code = lk__store_marks_rows(&s->marks, txn, err);
    if (!code) code = lk__store_marks_children(&s->marks, err);
    for (; !code && s->done < s->count; s->done += !code) {
        const struct lk_gc_blob *b = &s->victims[s->done];
        int64_t modified_ms;
        if (lk__store_marks_has(&s->marks, &b->root)) {
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

static int mark_snapshot(struct lk__store_marks *m, struct lk_err *err) {
    int code = lk__store_marks_snapshot(m, err);
    return code ? code : lk__store_marks_children(m, err);
}

/* Pins whose time is over: rows that count no more, when only to look; else they go, if there are any. */
static bool skips_over(void *arg, struct lk_bytes key, struct lk_bytes value) {
    return lk__store_pin_row_is_over(key, value, *(const int64_t *)arg);
}
static int note_over(void *arg, const struct lk_pin *p) {
    *(bool *)arg |= p->over;
    return 0;
}
static int expire(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    (void)arg;
    return lk_pin_expire(txn, err);
}
static int end_pins(struct lk_store *store, bool dry, int64_t *time_ms, struct lk_err *err) {
    struct lk_kv_txn *txn;
    bool any = false;
    int code = lk_kv_begin(store->kv, false, &txn, err);
    if (code) return code;
    code = lk_pin_list(txn, note_over, &any, err);
    if (!code) code = lk__store_pin_time(txn, time_ms, err);
    lk_kv_abort(txn);
    if (code == LK_ECORRUPT) return lk_fail_prefix(err, code, LK__STORE_UNKNOWN);
    return code || dry || !any ? code : lk_kv_update(store->kv, expire, NULL, LK_DURABLE, NULL, err);
}

int lk_store_gc(struct lk_store *store, lk_row_kinds kinds, const struct lk_gc_options *options, struct lk_gc_result *out,
                struct lk_err *err) {
    bool dry = options->dry_run;
    struct sweep s = {.marks = {.store = store,
                                .kinds = kinds,
                                .explains = dry && options->tell,
                                .texts = LK_BUF_INIT,
                                .absent = LK_BUF_INIT},
                      .options = options,
                      .now_ms = lk_clock_wall_ms(),
                      .result = out};
    int64_t time_ms;
    memset(out, 0, sizeof *out);
    int code = end_pins(store, dry, &time_ms, err);
    if (dry) s.marks.skips = skips_over, s.marks.arg = &time_ms;
    if (!code) code = mark_snapshot(&s.marks, err);
    if (!code) code = no_memory(lk_blobs_list(store->blobs, dry ? -1 : options->grace_ms, look_at_blob, &s, err), err);
    for (size_t i = 0; dry && !code && i < s.count; i++) out->blobs++, out->bytes += s.victims[i].size_bytes;
    if (!dry && !code && s.count) code = lk_kv_update(store->kv, remove_victims, &s, LK_LAZY, NULL, err);
    lk_free(s.victims);
    lk__store_marks_release(&s.marks);
    return code;
}

struct dropping {
    struct lk__store_marks needed, dropped;
};
static int remove_dropped(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    struct dropping *d = arg;
    int64_t time;
    int code = lk__kv_timestamp(txn, &time, err);
    if (!code) code = lk__store_marks_rows(&d->needed, txn, err);
    if (!code) code = lk__store_marks_children(&d->needed, err);
    for (size_t i = 0; i < d->dropped.count && !code; i++)
        if (!lk__store_marks_has(&d->needed, &d->dropped.list[i])) {
            code = lk_blob_delete(d->needed.store->blobs, &d->dropped.list[i], err);
            if (code == LK_ENOTFOUND) code = LK_OK;
        }
    return code;
}
int lk_store_gc_dropped(struct lk_store *store, lk_row_kinds kinds, const struct lk_root *roots, size_t count,
                        struct lk_err *err) {
    struct dropping d = {{.store = store, .kinds = kinds, .texts = LK_BUF_INIT, .absent = LK_BUF_INIT},
                         {.store = store, .texts = LK_BUF_INIT, .absent = LK_BUF_INIT}};
    int code = LK_OK;
    for (size_t i = 0; i < count && !code; i++) code = lk__store_marks_add(&d.dropped, &roots[i], err);
    if (!code) code = lk__store_marks_children(&d.dropped, err);
    if (!code && count) code = mark_snapshot(&d.needed, err);
    if (!code && count) code = lk_kv_update(store->kv, remove_dropped, &d, LK_LAZY, NULL, err);
    lk__store_marks_release(&d.needed);
    lk__store_marks_release(&d.dropped);
    return code;
}
