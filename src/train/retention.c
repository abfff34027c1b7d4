/* Which checkpoints of a run are kept, and which blobs may go with one that is not. */
#include "retention.h"
#include "ledger.h"

#include <string.h>

static void add_root(struct lk__train_dropped *r, const struct lk_root *root) {
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

/* --- Rows ------------------------------------------------------------------------------------------------ */

int lk__train_checkpoint_put(struct lk_kv_txn *t, const char *run, const struct lk_checkpoint *c, struct lk_err *err) {
    char key[LK_KV_KEY_MAX], value[65];
    memcpy(value, c->state.bytes, 32);
    memcpy(value + 32, c->weights.bytes, 32);
    value[64] = c->kept;
    return lk_kv_put(t, lk_bytes(key, lk__train_step_key(key, 'c', run, c->step)), lk_bytes(value, sizeof value), err);
}

struct dropping {
    const char *run;
    struct lk_checkpoint checkpoint;
};
static int put_dropped(struct lk_kv_txn *t, void *arg, struct lk_err *err) {
    const struct dropping *d = arg;
    return lk__train_checkpoint_put(t, d->run, &d->checkpoint, err);
}
int lk__train_checkpoint_drop(struct lk_store *store, const char *run, const struct lk_checkpoint *c, struct lk_err *err) {
    struct dropping d = {run, *c};
    d.checkpoint.kept = false;
    return lk_kv_update(store->kv, put_dropped, &d, LK_DURABLE, NULL, err);
}

/* --- Which checkpoints are kept -------------------------------------------------------------------------- */

/* The held-out loss at a step, if it was evaluated then and is a number. */
static int loss_at(struct lk_kv_txn *t, const char *run, uint32_t step, bool *there, double *loss, struct lk_err *err) {
    struct lk_eval_row row;
    int code = lk__train_ledger_eval(t, run, step, &row, err);
    *there = code == LK_OK && row.loss - row.loss == 0;
    if (*there) *loss = row.loss;
    return code == LK_ENOTFOUND ? LK_OK : code;
}

int lk__train_best(struct lk_kv_txn *t, const char *run, const struct lk_checkpoint *list, size_t count, size_t *best,
                   struct lk_err *err) {
    double least = 0, loss = 0;
    *best = SIZE_MAX;
    for (size_t i = 0; i < count; i++) {
        bool there = false;
        int code = list[i].kept ? loss_at(t, run, list[i].step, &there, &loss, err) : LK_OK;
        if (code) return code;
        if (!there || (*best != SIZE_MAX && loss >= least)) continue;
        least = loss;
        *best = i;
    }
    return LK_OK;
}

/* The best of those before, unless the new one is better: among equals the older one stays. */
static int best_before(struct lk_kv_txn *t, const char *run, const struct lk_checkpoint *new_one,
                       const struct lk_checkpoint *list, size_t count, size_t *best, struct lk_err *err) {
    double old = 0, now = 0;
    bool there = false;
    int code = lk__train_best(t, run, list, count, best, err);
    if (code || *best == SIZE_MAX) return code;
    code = loss_at(t, run, list[*best].step, &there, &old, err);
    if (!code) code = loss_at(t, run, new_one->step, &there, &now, err);
    if (!code && there && now < old) *best = SIZE_MAX;
    return code;
}

int lk__train_retain(struct lk_kv_txn *t, const char *run, const struct lk__train_keep *keep,
                     const struct lk_checkpoint *new_one, struct lk_checkpoint *list, size_t count,
                     struct lk__train_dropped *dropped, struct lk_err *err) {
    size_t best = SIZE_MAX;
    uint32_t kept = 1;
    int code = keep->newest && keep->best ? best_before(t, run, new_one, list, count, &best, err) : LK_OK;
    for (size_t i = count; i-- > 0 && !code;) {
        if (list[i].step == new_one->step || !list[i].kept || keep->newest == 0) continue;
        if (kept < keep->newest) {
            kept++;
            continue;
        }
        if (i == best) continue;
        list[i].kept = false;
        code = lk__train_checkpoint_put(t, run, &list[i], err);
        add_root(dropped, &list[i].state);
    }
    return code;
}

/* --- Which blobs may go ---------------------------------------------------------------------------------- */

static bool has_root(const struct lk__train_dropped *r, const struct lk_root *root) {
    for (size_t i = 0; i < r->count; i++)
        if (lk_root_equal(&r->list[i], root)) return true;
    return false;
}
static int kept_state(void *arg, struct lk_bytes key, struct lk_bytes value) {
    (void)key;
    struct lk__train_dropped *r = arg;
    if (value.size != 65) return LK_ECORRUPT; /* which state it kept can't be told */
    if (((const char *)value.data)[64] == 1) add_root(r, value.data);
    return r->code;
}
/* A state's manifest and its three arrays. Of a manifest that is lost or damaged nothing can be loaded, so nothing is
 * needed; any other failure to read it leaves open what is. */
static void expand(struct lk_store *store, const struct lk_root *state, struct lk__train_dropped *out) {
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
static void add_hex(struct lk__train_dropped *r, const json_t *object, const char *key) {
    struct lk_root root;
    const char *hex = json_string_value(json_object_get(object, key));
    if (hex && lk_root_parse(hex, &root)) add_root(r, &root);
}
/* A named model's weights; a manifest that can't be read leaves open what it needs. */
struct naming {
    struct lk_store *store;
    struct lk__train_dropped *needed;
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
/* What a run began with; of a damaged record that can't be told. */
struct initials {
    struct lk__train_dropped *needed, *states;
};
static int run_initial(void *arg, const char *name, json_t *record) {
    struct initials *i = arg;
    const json_t *initial = json_object_get(record, "initial");
    (void)name;
    if (!record) return LK_ECORRUPT;
    add_hex(i->needed, initial, "weights");
    add_hex(i->states, initial, "state");
    return i->needed->code ? i->needed->code : i->states->code;
}
void lk__train_remove_dropped(struct lk_store *store, const struct lk__train_dropped *dropped) {
    struct lk__train_dropped states = {0}, needed = {0}, victims = {0};
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
