/* Checkpoints are written by a thread of their own while the next forward and backward run: nothing changes the state until
 * the optimizer's step, which waits. Order: blobs (synced, renamed), manifest, then one durable transaction with the
 * checkpoint's row, the run's record and the ledger; then blobs of checkpoints that are no longer kept are removed. A kill
 * between any two leaves the checkpoint before as the newest. With several ranks each has such a thread; they write the
 * blobs together (saver_ranks.c), and rank 0 does the rest. */
#include "saver.h"
#include "state.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

struct lk__train_saver {
    struct lk_store *store;
    struct lk__train_ledger *ledger;
    struct lk_comm *comm; /* the thread's own */
    int rank, ranks;
    char *run;
    uint32_t keep;
    pthread_t thread;
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t changed;
    bool busy, saved, quit;
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

/* --- Which blobs may go ---------------------------------------------------------------------------------- */

struct roots {
    struct lk_root *list;
    size_t count, capacity;
    int code;
};
static void add_root(struct roots *r, const struct lk_root *root) {
    if (r->count == r->capacity) {
        size_t more = r->capacity ? 2 * r->capacity : 64;
        struct lk_root *list = lk_realloc(r->list, more * sizeof *list);
        if (!list) {
            r->code = LK_ENOMEM;
            return;
        }
        r->list = list;
        r->capacity = more;
    }
    r->list[r->count++] = *root;
}
static bool has_root(const struct roots *r, const struct lk_root *root) {
    for (size_t i = 0; i < r->count; i++)
        if (lk_root_equal(&r->list[i], root)) return true;
    return false;
}
static int kept_state(void *arg, struct lk_bytes key, struct lk_bytes value) {
    (void)key;
    struct roots *r = arg;
    if (value.size == 65 && ((const char *)value.data)[64] == 1) add_root(r, value.data);
    return r->code;
}
/* A state's manifest and its three arrays. Of a manifest that is lost or damaged nothing can be loaded, so nothing is
 * needed; any other failure to read it leaves open what is. */
static void expand(struct lk_store *store, const struct lk_root *state, struct roots *out) {
    static const char *keys[] = {"weights", "moments1", "moments2"};
    json_t *manifest;
    struct lk_root root;
    add_root(out, state);
    int code = lk_manifest_get(store, state, "checkpoint", &manifest, NULL);
    if (code && code != LK_ENOTFOUND && code != LK_ECORRUPT) out->code = code;
    if (code) return;
    for (int i = 0; i < 3; i++) {
        const char *hex = json_string_value(json_object_get(manifest, keys[i]));
        if (hex && lk_root_parse(hex, &root)) add_root(out, &root);
    }
    json_decref(manifest);
}
static void add_hex(struct roots *r, const json_t *object, const char *key) {
    struct lk_root root;
    const char *hex = json_string_value(json_object_get(object, key));
    if (hex && lk_root_parse(hex, &root)) add_root(r, &root);
}
/* A named model's weights; a manifest that can't be read leaves open what it needs. */
struct naming {
    struct lk_store *store;
    struct roots *needed;
};
static int named_model(void *arg, const char *name, const struct lk_root *root) {
    struct naming *n = arg;
    json_t *manifest;
    (void)name;
    int code = lk_manifest_get(n->store, root, "model", &manifest, NULL);
    if (code == LK_ENOTFOUND || code == LK_ECORRUPT) return n->needed->code;
    if (code) return n->needed->code = code;
    add_hex(n->needed, manifest, "weights");
    json_decref(manifest);
    return n->needed->code;
}
/* What a run began with. */
struct initials {
    struct roots *needed, *states;
};
static int run_initial(void *arg, const char *name, json_t *record) {
    struct initials *i = arg;
    const json_t *initial = json_object_get(record, "initial");
    (void)name;
    add_hex(i->needed, initial, "weights");
    add_hex(i->states, initial, "state");
    return i->needed->code ? i->needed->code : i->states->code;
}
/* Removes the blobs of dropped states that no kept checkpoint of any run needs, no run began with, and no named model has.
 * A failure leaves garbage for gc, nothing worse. The write lock keeps other runs from committing a checkpoint meanwhile;
 * what was removed before one of them got that lock, its commit misses. */
static void remove_states(struct lk_store *store, const struct roots *dropped) {
    struct roots states = {0}, needed = {0}, victims = {0};
    struct lk_kv_txn *t;
    if (!dropped->count || lk_kv_begin(store->kv, true, &t, NULL)) return;
    states.code = lk_kv_scan(t, lk_bytes("c/", 2), lk_bytes("c0", 2), kept_state, &states, NULL);
    if (!states.code) states.code = lk_name_list(t, "model", named_model, &(struct naming){store, &needed}, NULL);
    if (!states.code) states.code = lk_record_list(t, "run", run_initial, &(struct initials){&needed, &states}, NULL);
    for (size_t i = 0; i < states.count; i++) expand(store, &states.list[i], &needed);
    for (size_t i = 0; i < dropped->count; i++) expand(store, &dropped->list[i], &victims);
    for (size_t i = 0; i < victims.count && !states.code && !needed.code; i++)
        if (!has_root(&needed, &victims.list[i])) lk_blob_delete(store->blobs, &victims.list[i], NULL);
    lk_kv_abort(t);
    lk_free(states.list);
    lk_free(needed.list);
    lk_free(victims.list);
}

static int put_row(struct lk_kv_txn *t, const char *run, const struct lk_checkpoint *c, struct lk_err *err) {
    char key[LK_KV_KEY_MAX], value[65];
    memcpy(value, c->state.bytes, 32);
    memcpy(value + 32, c->weights.bytes, 32);
    value[64] = c->kept;
    return lk_kv_put(t, lk_bytes(key, lk__train_step_key(key, 'c', run, c->step)), lk_bytes(value, sizeof value), err);
}

int lk__train_checkpoint_drop(struct lk_store *store, const char *run, const struct lk_checkpoint *c, struct lk_err *err) {
    struct lk_checkpoint dropped = *c;
    struct lk_kv_txn *t;
    dropped.kept = false;
    int code = lk_kv_begin(store->kv, true, &t, err);
    if (code) return code;
    if ((code = put_row(t, run, &dropped, err))) {
        lk_kv_abort(t);
        return code;
    }
    return lk_kv_commit(t, LK_DURABLE, NULL, err);
}

/* The transaction: the new row, older ones dropped beyond `keep`, the record, the ledger. LK_ENOTFOUND: one of the blobs
 * was there when it was put, so nothing was written, and another run that no longer needed it has removed it since. */
static int commit(struct lk__train_saver *s, const struct lk_checkpoint *c, const struct lk_root blobs[4],
                  struct roots *dropped, struct lk_err *err) {
    struct lk_checkpoint *list = NULL;
    size_t count = 0;
    struct lk_kv_txn *t;
    int code = lk_run_checkpoints(s->store, s->run, &list, &count, err);
    if (!code) code = lk_kv_begin(s->store->kv, true, &t, err);
    if (code) {
        lk_free(list);
        return code;
    }
    for (int i = 0; i < 4 && !code; i++)
        if (!lk_blob_exists(s->store->blobs, &blobs[i]))
            code = lk_fail(err, LK_ENOTFOUND, "a blob of the checkpoint was removed while it was saved");
    if (!code) code = put_row(t, s->run, c, err);
    uint32_t kept = 1;
    for (size_t i = count; i-- > 0 && !code;) {
        if (list[i].step == c->step || !list[i].kept || (s->keep == 0 || kept++ < s->keep)) continue;
        list[i].kept = false;
        code = put_row(t, s->run, &list[i], err);
        add_root(dropped, &list[i].state);
    }
    if (!code) code = lk_record_put(t, "run", s->run, s->record, err);
    if (!code) code = lk__train_ledger_write(s->ledger, t, err);
    if (code)
        lk_kv_abort(t);
    else
        code = lk_kv_commit(t, LK_DURABLE, NULL, err);
    lk_free(list);
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
        all[i].started = i > 0 && pthread_create(&all[i].thread, NULL, put_one, &all[i]) == 0;
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
                        struct roots *dropped, struct lk_err *err) {
    char hex[LK_ROOT_HEX];
    c->weights = blobs[0];
    c->state = blobs[3];
    if (json_object_set_new(s->record, "weights_root", json_string(lk_root_hex(&c->weights, hex))) ||
        json_object_set_new(s->record, "state_root", json_string(lk_root_hex(&c->state, hex))))
        return lk_fail(err, LK_ENOMEM, "no memory for the run's record");
    return commit(s, c, blobs, dropped, err);
}

static int save(struct lk__train_saver *s, struct lk_err *err) {
    struct lk_checkpoint c = {.step = s->result.step, .kept = true};
    struct lk_root blobs[4];
    struct roots dropped = {0};
    int code = LK_ENOTFOUND;
    for (int attempt = 0; attempt < 3 && code == LK_ENOTFOUND; attempt++) {
        code = put_state(s, blobs, err);
        if (!code && s->rank == 0) code = commit_state(s, &c, blobs, &dropped, err);
        code = lk_comm_agree(s->comm, "checkpoint", code, err);
    }
    if (!code && s->rank == 0) remove_states(s->store, &dropped);
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

int lk__train_saver_open(struct lk_store *store, const char *run, uint32_t keep, struct lk__train_ledger *ledger,
                         struct lk_comm *comm, struct lk__train_saver **out, struct lk_err *err) {
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
    int started = pthread_create(&s->thread, NULL, work, s);
    code = started ? lk_fail(err, LK_ENOMEM, "cannot start the thread that writes checkpoints") : LK_OK;
    if ((code = lk_comm_agree(comm, "opening checkpoints", code, err))) {
        if (started)
            saver_free(s);
        else
            lk__train_saver_close(s);
        return code;
    }
    *out = s;
    return LK_OK;
}

int lk__train_saver_start(struct lk__train_saver *s, const struct lk_state *state, uint32_t step, json_t *record,
                          struct lk_err *err) {
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
