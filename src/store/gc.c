/* Mark and sweep: marks.c says what rows reach, the rest goes. README.md, "Garbage", says why nothing that is needed does.
 */
#include "lockstep/store/gc.h"
#include "lockstep/base/mem.h"
#include "lockstep/base/progress.h"
#include "store/kv/kv_engine.h"
#include "store/marks.h"
#include "store/pin.h"
#include "store/sweep.h"
#include <string.h>

static int no_memory(int code, struct lk_err *err) {
    return code == LK_ENOMEM ? lk_fail(err, code, "no memory to collect garbage") : code;
}
#define MARKS(STORE, KINDS)                                                                                                \
    { .store = (STORE), .kinds = (KINDS), .texts = LK_BUF_INIT, .absent = LK_BUF_INIT }

static int mark_snapshot(struct lk__store_marks *m, const struct lk_buf *skip, struct lk_err *err) {
    int code = lk__store_marks_snapshot(m, err);
    if (!code) code = lk__store_uploads_mark(m->store, m, skip, err);
    return code ? code : lk__store_marks_children(m, err);
}

/* --- What counts no more --------------------------------------------------------------------------------- */

/* Pins whose time is over, and announcements of processes that are gone: to a dry run, rows that do not count. */
struct ended {
    int64_t time_ms;
    bool any_pin;
    struct lk_buf sessions; /* IDs, each ended by a zero */
};
static bool is_ended(void *arg, struct lk_bytes key, struct lk_bytes value) {
    const struct ended *e = arg;
    const char *k = key.data;
    for (size_t i = 0, n; i < e->sessions.size; i += n + 1) {
        n = strlen(e->sessions.data + i);
        if (key.size > n + 2 && memcmp(k, "u/", 2) == 0 && memcmp(k + 2, e->sessions.data + i, n) == 0) return true;
    }
    return lk__store_pin_row_is_over(key, value, e->time_ms);
}
static int note_over(void *arg, const struct lk_pin *p) {
    ((struct ended *)arg)->any_pin |= p->over;
    return 0;
}
static int expire(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    (void)arg;
    return lk_pin_expire(txn, err);
}
static int find_ended(struct lk_store *store, bool dry, struct ended *out, struct lk_err *err) {
    struct lk_kv_txn *txn;
    int code = lk_kv_begin(store->kv, false, &txn, err);
    if (code) return code;
    code = lk_pin_list(txn, note_over, out, err);
    if (!code) code = lk__store_pin_time(txn, &out->time_ms, err);
    lk_kv_abort(txn);
    if (code == LK_ECORRUPT) return lk_fail_prefix(err, code, LK__STORE_UNKNOWN);
    if (!code && !dry && out->any_pin) code = lk_kv_update(store->kv, expire, NULL, LK_LAZY, NULL, err);
    return code ? code : lk__store_uploads_end_dead(store, !dry, &out->sessions, err);
}

/* --- Sweeping -------------------------------------------------------------------------------------------- */

struct sweep {
    struct lk__store_marks marks;
    struct lk__store_sweep sweep;
    int64_t now_ms, grace_ms;
    bool looks; /* at ages, once more */
    enum lk_durability durability;
    const struct lk_gc_options *options; /* of lk_store_gc */
    struct lk_gc_blob *victims;          /* candidates */
    size_t count, capacity, done;        /* done: those before are gone, or stay */
    struct lk_root *doomed;              /* (LK__STORE_BATCH) of the candidates from `done` on, those that still go */
    size_t doomed_count, looked_at;
    struct lk_gc_result *result;
};
static void keep(struct sweep *s, uint64_t size) {
    s->result->kept++;
    s->result->kept_bytes += size;
}
static int add_victim(struct sweep *s, const struct lk_gc_blob *b) {
    if (s->count == s->capacity) {
        size_t more = s->capacity ? 2 * s->capacity : 256;
        struct lk_gc_blob *list = lk_realloc(s->victims, more * sizeof *list);
        if (!list) return LK_ENOMEM;
        s->victims = list, s->capacity = more;
    }
    s->victims[s->count++] = *b;
    return LK_OK;
}
static int look_at_blob(void *arg, const struct lk_root *root, uint64_t size, int64_t modified_ms) {
    struct sweep *s = arg;
    struct lk_gc_blob b = {*root, size, s->now_ms - modified_ms, false, NULL};
    bool marked = lk__store_marks_has(&s->marks, root);
    b.goes = !marked && b.age_ms >= s->grace_ms;
    if (marked && s->marks.explains) b.holder = lk__store_marks_holder(&s->marks, root);
    if (s->options->dry_run && s->options->tell) s->options->tell(s->options->arg, &b);
    return b.goes ? add_victim(s, &b) : (keep(s, size), LK_OK);
}

/* The second look, and the sentence: behind this transaction nobody names what it dooms, and before it nobody has. */
static int doom(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    struct sweep *s = arg;
    int64_t time;
    int code = lk__kv_timestamp(txn, &time, err); /* no other commits until this one has, so it is not run in vain */
    s->doomed_count = s->looked_at = 0;
    if (!code && !lk__store_is_planted(LK__STORE_NO_SECOND_LOOK)) {
        code = lk__store_marks_rows(&s->marks, txn, err);
        if (!code) code = lk__store_marks_children(&s->marks, err);
    }
    for (; s->done + s->looked_at < s->count && s->doomed_count < LK__STORE_BATCH && !code; s->looked_at++) {
        const struct lk_gc_blob *b = &s->victims[s->done + s->looked_at];
        if (!lk__store_marks_has(&s->marks, &b->root)) s->doomed[s->doomed_count++] = b->root;
    }
    return code || !s->doomed_count ? code : lk__store_sweep_doom(&s->sweep, txn, s->doomed, s->doomed_count, err);
}
/* One that is gone already was another collector's. */
static int remove_one(struct sweep *s, const struct lk_gc_blob *b, struct lk_err *err) {
    struct lk_blobs *blobs = s->marks.store->blobs;
    int64_t modified_ms;
    int code = s->looks ? lk_blob_modified(blobs, &b->root, &modified_ms, err) : LK_OK;
    if (!code && s->looks && s->now_ms - modified_ms < s->grace_ms) return keep(s, b->size_bytes), LK_OK;
    if (!code) code = lk_blob_delete(blobs, &b->root, err);
    if (!code) s->result->blobs++, s->result->bytes += b->size_bytes;
    return code == LK_ENOTFOUND ? LK_OK : code;
}
/* What a store of one machine announces in files is read behind the sentence: who announces later looks, and finds that.
 * An announcement that was taken back meanwhile had been named before, so rows are read once more, behind the files. */
static int spare(struct sweep *s, struct lk_err *err) {
    if (lk__store_is_timed(s->marks.store)) return LK_OK; /* the sentence read the rows of both */
    int code = lk__store_uploads_mark(s->marks.store, &s->marks, NULL, err);
    lk__store_at("spares");
    if (!code && !lk__store_is_planted(LK__STORE_NO_SECOND_LOOK)) code = lk__store_marks_snapshot(&s->marks, err);
    if (!code) code = lk__store_marks_children(&s->marks, err);
    size_t left = 0;
    for (size_t i = 0; i < s->doomed_count; i++)
        if (!lk__store_marks_has(&s->marks, &s->doomed[i])) s->doomed[left++] = s->doomed[i];
    s->doomed_count = left;
    return code;
}
static int remove_doomed(struct sweep *s, struct lk_err *err) {
    int code = LK_OK;
    for (size_t i = 0, k = 0; i < s->looked_at && !code; i++) {
        const struct lk_gc_blob *b = &s->victims[s->done];
        bool doomed = k < s->doomed_count && lk_root_equal(&b->root, &s->doomed[k]);
        if (doomed) lk__store_at("removes");
        if (doomed && !lk__store_sweep_in_time(&s->sweep)) break; /* the others will be doomed anew */
        if (doomed) code = remove_one(s, b, err);
        if (!doomed) keep(s, b->size_bytes);
        if (!code) s->done++, k += doomed;
    }
    return code;
}
static int sweep(struct sweep *s, struct lk_err *err) {
    uint64_t began = 0;
    int64_t time;
    int code = lk__store_sweep_open(s->marks.store, &s->sweep, err);
    if (code) return code;
    s->doomed = lk_alloc(LK__STORE_BATCH * sizeof *s->doomed);
    if (!s->doomed) code = lk_fail(err, LK_ENOMEM, "no memory to collect garbage");
    while (s->done < s->count && !code) {
        lk__store_at("dooms");
        lk__store_sweep_begins(&s->sweep);
        /* what is asked for its time is written, and synced with all before it, though it may change no row */
        code = lk_kv_update(s->marks.store->kv, doom, s, s->durability, s->durability == LK_DURABLE ? &time : NULL, err);
        if (code == LK_EBUSY && s->doomed_count && lk__store_wait(&began)) {
            code = LK_OK;
            continue;
        }
        if (code) break;
        bool sentenced = s->doomed_count > 0;
        lk__store_at("doomed");
        if (sentenced) code = spare(s, err);
        if (!code) code = remove_doomed(s, err);
        if (sentenced) {
            lk__store_at("removed");
            int done = lk__store_sweep_done(&s->sweep, code ? NULL : err);
            if (!code) code = done;
        }
    }
    lk_free(s->doomed);
    lk__store_sweep_close(&s->sweep);
    return code;
}

int lk_store_gc(struct lk_store *store, lk_row_kinds kinds, const struct lk_gc_options *options, struct lk_gc_result *out,
                struct lk_err *err) {
    bool dry = options->dry_run;
    struct ended ended = {.sessions = LK_BUF_INIT};
    struct sweep s = {.marks = MARKS(store, kinds),
                      .options = options,
                      .now_ms = lk_clock_wall_ms(),
                      .grace_ms = options->grace_ms,
                      .looks = true,
                      .durability = LK_DURABLE, /* what took the blobs' rows away must not be undone by a power loss */
                      .result = out};
    s.marks.explains = dry && options->tell;
    memset(out, 0, sizeof *out);
    int code = find_ended(store, dry, &ended, err);
    if (dry) s.marks.skips = is_ended, s.marks.arg = &ended;
    lk__store_at("marks");
    if (!code) code = mark_snapshot(&s.marks, &ended.sessions, err);
    lk__store_at("lists");
    if (!code) code = no_memory(lk_blobs_list(store->blobs, dry ? -1 : options->grace_ms, look_at_blob, &s, err), err);
    for (size_t i = 0; dry && !code && i < s.count; i++) out->blobs++, out->bytes += s.victims[i].size_bytes;
    if (!dry && !code && s.count) code = sweep(&s, err);
    lk_free(s.victims);
    lk_buf_release(&ended.sessions);
    lk__store_marks_release(&s.marks);
    return code;
}

/* The rows went in a durable commit of the caller's. */
int lk_store_gc_dropped(struct lk_store *store, lk_row_kinds kinds, const struct lk_root *roots, size_t count,
                        struct lk_err *err) {
    struct lk__store_marks dropped = MARKS(store, NULL);
    struct lk_gc_result result = {0};
    /* a server that loses the sentence, and goes on, would let others name what is being removed */
    struct sweep s = {
        .marks = MARKS(store, kinds), .durability = lk__store_is_timed(store) ? LK_DURABLE : LK_LAZY, .result = &result};
    int code = LK_OK;
    for (size_t i = 0; i < count && !code; i++) code = lk__store_marks_add(&dropped, &roots[i], err);
    if (!code) code = lk__store_marks_children(&dropped, err);
    if (!code && count) code = mark_snapshot(&s.marks, NULL, err);
    for (size_t i = 0; i < dropped.count && !code; i++)
        if (!lk__store_marks_has(&s.marks, &dropped.list[i]))
            code = no_memory(add_victim(&s, &(struct lk_gc_blob){.root = dropped.list[i]}), err);
    if (!code && s.count) code = sweep(&s, err);
    lk_free(s.victims);
    lk__store_marks_release(&dropped);
    lk__store_marks_release(&s.marks);
    return code;
}
