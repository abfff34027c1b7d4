/* Checkpoints are written by a thread of their own while the next forward and backward run: nothing changes the state until
 * the optimizer's step, which waits. Order: blobs (synced, renamed), manifest, then one durable transaction with the
 * checkpoint's row, the run's record and the ledger; then blobs of checkpoints that are no longer kept are removed
 * (retention.c). A kill
 * between any two leaves the checkpoint before as the newest. With several ranks each has such a thread; they write the
 * blobs together (saver_ranks.c), and rank 0 does the rest. */
#include "saver.h"
#include "state.h"

#include "lockstep/store/uploads.h"

#include "lockstep/base/progress.h"
#include "lockstep/base/thread.h"
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

struct lk__train_saver {
    struct lk_store *store;
    struct lk__train_ledger *ledger;
    struct lk_comm *comm; /* the thread's own */
    int rank, ranks;
    char *run;
    struct lk__train_keep keep;
    pthread_t thread;
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t changed;
    bool busy, saved, quit, drop_older;
    bool warned; /* of the saver's thread: that blobs stay */
    const struct lk_state *state;
    json_t *record;
    struct lk_checkpoint result;
    int code;
    struct lk_err err;
};

size_t lk__train_past_cache_bytes = (size_t)64 << 20;

static int put_array(struct lk_blobs *blobs, const struct lk_layout *layout, const float *array, struct lk_root *out,
                     struct lk_err *err) {
    struct lk_blob_writer *w;
    int code = lk_blob_create(blobs, &w, err);
    if (code) return code;
    if (layout->parameters * sizeof(float) >= lk__train_past_cache_bytes) lk_blob_past_cache(w);
    for (size_t i = 0; i < layout->tensor_count; i++)
        if ((code = lk_blob_write(w, array + layout->tensors[i].offset, layout->tensors[i].count * sizeof(float), err))) {
            lk_blob_abort(w);
            return code;
        }
    return lk_blob_finish(w, out, err);
}

/* The transaction: the new row, rows of checkpoints that are no longer kept, the record, the ledger. LK_ENOTFOUND: this
 * process was away for so long that a collector may have removed what it put, so nothing was written. */
struct committing {
    struct lk__train_saver *saver;
    const struct lk_checkpoint *checkpoint;
    const struct lk_root *blobs; /* (4) */
    struct lk_checkpoint *list;  /* those before */
    bool *was_kept;              /* (count) as it was read: an attempt changes the list */
    size_t count;
    struct lk__train_dropped *dropped;
};
static int write_checkpoint(struct lk_kv_txn *t, void *arg, struct lk_err *err) {
    const struct committing *w = arg;
    const struct lk_checkpoint *c = w->checkpoint;
    struct lk__train_saver *s = w->saver;
    int code;
    w->dropped->count = 0, w->dropped->code = LK_OK; /* this may be another attempt */
    for (size_t i = 0; i < w->count; i++) w->list[i].kept = w->was_kept[i];
    code = lk_uploads_named(s->store, t, w->blobs, 4, err);
    if (!code) code = lk__train_ledger_write(s->ledger, t, err); /* with evaluations, which say what is best */
    if (!code) code = lk__train_checkpoint_put(t, s->run, c, err);
    if (!code && s->drop_older) code = lk__train_retain(t, s->run, &s->keep, c, w->list, w->count, w->dropped, err);
    return code ? code : lk_record_put(t, "run", s->run, s->record, err);
}
static int commit(struct lk__train_saver *s, const struct lk_checkpoint *c, const struct lk_root blobs[4],
                  struct lk__train_dropped *dropped, struct lk_err *err) {
    struct committing w = {s, c, blobs, NULL, NULL, 0, dropped};
    int code = lk_run_checkpoints(s->store, s->run, &w.list, &w.count, err);
    if (!code && !(w.was_kept = lk_alloc(w.count + 1)))
        code = lk_fail(err, LK_ENOMEM, "no memory for the checkpoints' list");
    for (size_t i = 0; i < w.count && !code; i++) w.was_kept[i] = w.list[i].kept;
    if (!code) code = lk_kv_update(s->store->kv, write_checkpoint, &w, LK_DURABLE, NULL, err);
    if (!code || code == LK_ENOTFOUND) lk_uploads_forget(s->store, blobs, 4);
    lk_free(w.list);
    lk_free(w.was_kept);
    return code;
}

/* One array of a state that one rank has: while one is hashed another one is written. */
struct putting {
    struct lk__train_saver *saver;
    const float *array;
    struct lk_root *root;
    int code;
    struct lk_err err;
    pthread_t thread;
    bool started;
};
static void *put_one(void *arg) {
    struct putting *p = arg;
    p->code = put_array(p->saver->store->blobs, p->saver->state->layout, p->array, p->root, &p->err);
    return NULL;
}
static int put_arrays(struct lk__train_saver *s, const float *const arrays[3], struct lk_root roots[3],
                      struct lk_err *err) {
    struct putting all[3];
    int code = LK_OK;
    for (int i = 2; i >= 0; i--) { /* the first by this thread, as is one for which there is no other */
        all[i] = (struct putting){.saver = s, .array = arrays[i], .root = &roots[i]};
        all[i].started = i > 0 && lk_thread_start(&all[i].thread, put_one, &all[i]) == 0;
        if (!all[i].started) put_one(&all[i]);
    }
    for (int i = 0; i < 3; i++) {
        if (all[i].started) pthread_join(all[i].thread, NULL);
        if (all[i].code && !code) code = lk_fail(err, all[i].code, "%s", all[i].err.message);
    }
    return code;
}

/* The three arrays and the manifest that names them (blobs[3], on rank 0). */
static int put_state(struct lk__train_saver *s, struct lk_root blobs[4], struct lk_err *err) {
    const struct lk_state *state = s->state;
    const float *arrays[] = {state->weights, state->moments1, state->moments2};
    int code = s->ranks == 1 ? put_arrays(s, arrays, blobs, err) : LK_OK;
    for (int i = 0; i < 3 && !code && s->ranks > 1; i++)
        code = lk__train_put_array_together(s->store, s->comm, state, arrays[i], i > 0, &blobs[i], err);
    if (code || s->rank > 0) return code;
    json_t *manifest = lk__train_state_manifest(state, &blobs[0], &blobs[1], &blobs[2]);
    code = manifest ? lk_manifest_put(s->store, manifest, &blobs[3], err)
                    : lk_fail(err, LK_ENOMEM, "no memory for a manifest");
    json_decref(manifest);
    return code;
}

/* What rank 0 alone does: record and transaction. */
static int commit_state(struct lk__train_saver *s, struct lk_checkpoint *c, const struct lk_root blobs[4],
                        struct lk__train_dropped *dropped, struct lk_err *err) {
    char hex[LK_ROOT_HEX];
    c->weights = blobs[0];
    c->state = blobs[3];
    if (json_object_set_new(s->record, "weights_root", json_string(lk_root_hex(&c->weights, hex))) ||
        json_object_set_new(s->record, "state_root", json_string(lk_root_hex(&c->state, hex))))
        return lk_fail(err, LK_ENOMEM, "no memory for the run's record");
    return commit(s, c, blobs, dropped, err);
}

/* A failure leaves garbage for gc, nothing worse; but whoever counts on the space is told, once. */
static void remove_dropped(struct lk__train_saver *s, const struct lk__train_dropped *dropped) {
    struct lk_err err;
    if (!lk_store_gc_dropped(s->store, lk_train_rows(), dropped->list, dropped->count, &err) || s->warned) return;
    lk_log_warn("run %s: what old checkpoints took stays until `lockstep gc`: %s", s->run, err.message);
    s->warned = true;
}

static int save(struct lk__train_saver *s, struct lk_err *err) {
    struct lk_checkpoint c = {.step = s->result.step, .kept = true};
    struct lk_root blobs[4];
    struct lk__train_dropped dropped = {0};
    int code = LK_ENOTFOUND;
    for (int attempt = 0; attempt < 3 && code == LK_ENOTFOUND; attempt++) {
        code = put_state(s, blobs, err);
        if (!code && s->rank == 0) code = commit_state(s, &c, blobs, &dropped, err);
        code = lk_comm_agree(s->comm, "checkpoint", code, err);
    }
    if (!code && s->rank == 0) remove_dropped(s, &dropped);
    lk_free(dropped.list);
    if (!code) code = lk_comm_broadcast(s->comm, "checkpoint", &c, sizeof c, err);
    if (!code) s->result = c;
    return code;
}

static void *work(void *arg) {
    struct lk__train_saver *s = arg;
    pthread_mutex_lock(&s->lock);
    for (;;) {
        while (!s->busy && !s->quit) pthread_cond_wait(&s->changed, &s->lock);
        if (!s->busy) break;
        pthread_mutex_unlock(&s->lock);
        struct lk_err err = {0};
        int code = save(s, &err);
        pthread_mutex_lock(&s->lock);
        s->code = code;
        s->err = err;
        s->busy = false;
        s->saved = code == LK_OK;
        pthread_cond_broadcast(&s->changed);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static void saver_free(struct lk__train_saver *s) {
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
    json_decref(s->record);
    lk_comm_close(s->comm);
    lk_free(s->run);
    lk_free(s);
}

int lk__train_saver_open(struct lk_store *store, const char *run, struct lk__train_keep keep,
                         struct lk__train_ledger *ledger, struct lk_comm *comm, struct lk__train_saver **out,
                         struct lk_err *err) {
    struct lk__train_saver *s = lk_calloc(1, sizeof *s);
    if (s) s->run = lk_strdup(run);
    int code = s && s->run ? LK_OK : lk_fail(err, LK_ENOMEM, "no memory for checkpoints");
    code = lk_comm_agree(comm, "opening checkpoints", code, err);
    if (!code) code = lk_comm_dup(comm, &s->comm, err);
    if (code) {
        if (s) lk_free(s->run);
        lk_free(s);
        return code;
    }
    s->rank = lk_comm_rank(comm);
    s->ranks = lk_comm_ranks(comm);
    s->store = store;
    s->keep = keep;
    s->ledger = ledger;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    int failed = errno = lk_thread_start(&s->thread, work, s);
    code = failed ? lk_fail_errno(err, "cannot start the thread that writes checkpoints") : LK_OK;
    if ((code = lk_comm_agree(comm, "opening checkpoints", code, err))) {
        if (failed)
            saver_free(s);
        else
            lk__train_saver_close(s);
        return code;
    }
    *out = s;
    return LK_OK;
}

int lk__train_saver_start(struct lk__train_saver *s, const struct lk_state *state, uint32_t step, json_t *record,
                          bool drop_older, struct lk_err *err) {
    int code = lk__train_saver_wait(s, NULL, NULL, err);
    if (code) {
        json_decref(record);
        return code;
    }
    pthread_mutex_lock(&s->lock);
    s->state = state;
    json_decref(s->record);
    s->record = record;
    s->result.step = step;
    s->drop_older = drop_older;
    s->busy = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    return LK_OK;
}

int lk__train_saver_wait(struct lk__train_saver *s, bool *saved, struct lk_checkpoint *out, struct lk_err *err) {
    pthread_mutex_lock(&s->lock);
    while (s->busy) pthread_cond_wait(&s->changed, &s->lock);
    int code = s->code;
    if (saved) *saved = s->saved && !code;
    if (out) *out = s->result;
    if (saved) s->saved = false;
    s->code = LK_OK;
    if (code && err) *err = s->err;
    pthread_mutex_unlock(&s->lock);
    return code;
}

void lk__train_saver_close(struct lk__train_saver *s) {
    if (!s) return;
    pthread_mutex_lock(&s->lock);
    s->quit = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    saver_free(s);
}
