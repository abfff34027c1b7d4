/* Runs: records, locks, checkpoints' rows. */
#include "run.h"
#include "initial.h"
#include "ledger.h"
#include "retention.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- Who trains it --------------------------------------------------------------------------------------- */

int lk__train_run_lease(struct lk_store *store, const char *name, struct lk_lease **out, struct lk_err *err) {
    struct lk_lease_state state;
    int code = lk_lease_acquire(store, "run", name, out, err);
    if (code != LK_EBUSY || lk_lease_look(store, "run", name, &state, NULL) || !state.held) return code;
    return lk_fail(err, LK_EBUSY, "run %s is being trained by %s: stop that one first, or train under another run.name",
                   name, state.holder);
}

long lk_run_process(struct lk_store *store, const char *name) {
    struct lk_lease_state state;
    return !lk_lease_look(store, "run", name, &state, NULL) && state.here ? state.process : 0;
}
static bool is_trained(struct lk_store *store, const char *name) {
    struct lk_lease_state state;
    return lk_lease_look(store, "run", name, &state, NULL) || state.held; /* where that is not known, it may be */
}

/* --- Records --------------------------------------------------------------------------------------------- */

static void correct_state(struct lk_store *store, const char *name, json_t *record) {
    const char *state = json_string_value(json_object_get(record, "state"));
    if (state && strcmp(state, "running") == 0 && !is_trained(store, name))
        json_object_set_new(record, "state", json_string("killed"));
}

int lk_run_get(struct lk_store *store, const char *name, json_t **out, struct lk_err *err) {
    struct lk_kv_txn *t;
    int code = lk_kv_begin(store->kv, false, &t, err);
    if (code) return code;
    struct lk_err why;
    code = lk_record_get(t, "run", name, out, &why);
    lk_kv_abort(t);
    if (!code) correct_state(store, name, *out);
    if (code == LK_ECORRUPT)
        return lk_fail(err, code,
                       "%s; restore the store from a copy, or remove what is left of the run: `lockstep runs rm %s`",
                       why.message, name);
    return code ? lk_fail(err, code, "%s", why.message) : LK_OK;
}

struct listing {
    struct lk_store *store;
    lk_run_fn *fn;
    void *arg;
};
static int list_one(void *arg, const char *name, json_t *record) {
    struct listing *l = arg;
    correct_state(l->store, name, record);
    return l->fn(l->arg, name, record);
}
int lk_run_list(struct lk_store *store, lk_run_fn *fn, void *arg, struct lk_err *err) {
    struct listing l = {store, fn, arg};
    struct lk_kv_txn *t;
    int code = lk_kv_begin(store->kv, false, &t, err);
    if (code) return code;
    code = lk_record_list(t, "run", list_one, &l, err);
    lk_kv_abort(t);
    return code;
}

static int record_root(const json_t *record, const char *key, struct lk_root *out, struct lk_err *err) {
    const char *hex;
    int code = lk_json_get_string(record, key, "the run's record", &hex, err);
    if (!code && !lk_root_parse(hex, out)) code = lk_fail(err, LK_ECORRUPT, "the run's record: %s is not a root", key);
    return code;
}

/* A value that changed on the disk into another good one is found by this alone. */
static int check_identity(const struct lk_run *r, struct lk_err *err) {
    const struct lk_root *const initial[] = {NULL, &r->initial_weights, &r->initial_state};
    struct lk_root identity;
    int code = lk_run_identity(&r->config, &r->dataset, initial[r->from], &identity, err);
    if (!code && !lk_root_equal(&identity, &r->identity))
        code = lk_fail(err, LK_ECORRUPT,
                       "the run's record has another identity than its configuration, dataset and beginning give: it is "
                       "damaged, or a newer release of this program wrote it; restore the store from a copy");
    return code;
}

int lk__train_run_from_record(const json_t *record, struct lk_run *out, struct lk_err *err) {
    const char *name;
    memset(out, 0, sizeof *out);
    int code = lk_json_get_string(record, "name", "the run's record", &name, err);
    if (code) return code;
    snprintf(out->name, sizeof out->name, "%s", name);
    code = lk_run_config_from_json(json_object_get(record, "config"), &out->config, err);
    const struct lk_run_config *c = &out->config;
    if (!code && (c->sequences % c->grains || (uint64_t)c->sequences * lk_run_config_context(c) > UINT32_MAX))
        code = lk_fail(err, LK_ECORRUPT, "the run's record: %u sequences of %u in %u grains are no possible batch",
                       c->sequences, lk_run_config_context(c), c->grains);
    if (!code) code = record_root(record, "identity", &out->identity, err);
    if (!code) code = record_root(record, "dataset_root", &out->dataset, err);
    if (!code) code = record_root(record, "tokenizer_root", &out->tokenizer, err);
    if (!code) code = lk__train_run_initial_read(json_object_get(record, "initial"), out, err);
    if (!code) code = check_identity(out, err);
    struct lk_model_config m = lk_run_config_model(&out->config);
    return code ? code : lk_layout_init(&out->layout, &m, err);
}

int lk_run_open(struct lk_store *store, const char *name, struct lk_run *out, struct lk_err *err) {
    json_t *record = NULL;
    memset(out, 0, sizeof *out);
    int code = lk_run_get(store, name, &record, err);
    struct lk_err why;
    if (!code && (code = lk__train_run_from_record(record, out, &why))) lk_fail(err, code, "run %s: %s", name, why.message);
    json_decref(record);
    return code;
}

void lk_run_close(struct lk_run *r) {
    lk_layout_release(&r->layout);
}

/* --- Checkpoints' rows ----------------------------------------------------------------------------------- */

struct checkpoints {
    const char *run;
    struct lk_checkpoint *list;
    size_t count, capacity;
    struct lk_err *err;
};
static int list_checkpoint(void *arg, struct lk_bytes key, struct lk_bytes value) {
    struct checkpoints *c = arg;
    const unsigned char *v = value.data;
    uint32_t step = lk__train_step_of_key(key);
    if (value.size != 65)
        return lk_fail(c->err, LK_ECORRUPT,
                       "run %s: the row of the checkpoint of step %u is damaged; restore the store from a copy, or remove "
                       "the run: `lockstep runs rm %s`",
                       c->run, step, c->run);
    if (c->count == c->capacity) {
        size_t more = c->capacity ? 2 * c->capacity : 16;
        struct lk_checkpoint *list = lk_realloc(c->list, more * sizeof *list);
        if (!list) return lk_fail(c->err, LK_ENOMEM, "no memory for the list of checkpoints");
        c->list = list;
        c->capacity = more;
    }
    struct lk_checkpoint *out = &c->list[c->count++];
    out->step = step;
    memcpy(out->state.bytes, v, 32);
    memcpy(out->weights.bytes, v + 32, 32);
    out->kept = v[64] == 1;
    return 0;
}

int lk_run_checkpoints(struct lk_store *store, const char *name, struct lk_checkpoint **out, size_t *count,
                       struct lk_err *err) {
    char a[LK_KV_KEY_MAX], b[LK_KV_KEY_MAX];
    struct checkpoints c = {.run = name, .err = err};
    struct lk_kv_txn *t;
    int code = lk_kv_begin(store->kv, false, &t, err);
    if (code) return code;
    code = lk_kv_scan(t, lk_bytes(a, lk__train_step_key(a, 'c', name, 0)),
                      lk_bytes(b, lk__train_step_key(b, 'c', name, UINT32_MAX)), list_checkpoint, &c, err);
    lk_kv_abort(t);
    if (code)
        lk_free(c.list);
    else {
        *out = c.list;
        *count = c.count;
    }
    return code;
}

int lk_run_best(struct lk_store *store, const char *name, struct lk_checkpoint *out, struct lk_err *err) {
    struct lk_checkpoint *list = NULL;
    struct lk_kv_txn *t;
    size_t count = 0, best = SIZE_MAX;
    int code = lk_run_checkpoints(store, name, &list, &count, err);
    if (!code) code = lk_kv_begin(store->kv, false, &t, err);
    if (!code) {
        code = lk__train_best(t, name, list, count, &best, err);
        lk_kv_abort(t);
    }
    if (!code && best == SIZE_MAX)
        code = lk_fail(err, LK_ENOTFOUND,
                       "run %s keeps no checkpoint of a step that was evaluated: let eval.every and checkpoint.every meet",
                       name);
    if (!code) *out = list[best];
    lk_free(list);
    return code;
}

struct removing {
    const char *name;
    const struct lk_lease *lease;
};
static int delete_rows(struct lk_kv_txn *t, void *arg, struct lk_err *err) {
    const struct removing *r = arg;
    const char *name = r->name;
    char a[LK_KV_KEY_MAX], b[LK_KV_KEY_MAX];
    int code = lk_lease_check(r->lease, t, err);
    for (const char *letter = "lec"; *letter && !code; letter++) {
        size_t an = lk__train_step_key(a, *letter, name, 0), bn = lk__train_step_key(b, *letter, name, UINT32_MAX);
        code = lk_kv_delete_range(t, lk_bytes(a, an), lk_bytes(b, bn), err);
    }
    return code ? code : lk_record_delete(t, "run", name, err);
}

int lk_run_remove(struct lk_store *store, const char *name, struct lk_err *err) {
    json_t *record = NULL;
    struct lk_lease *lease;
    int code = lk_run_get(store, name, &record, err);
    json_decref(record);
    if (!code || code == LK_ECORRUPT) code = lk__train_run_lease(store, name, &lease, err);
    if (code) return code;
    code = lk_kv_update(store->kv, delete_rows, &(struct removing){name, lease}, LK_DURABLE, NULL, err);
    lk_lease_release(lease, code == LK_OK);
    return code;
}
