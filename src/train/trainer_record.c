/* The record of a run in training. Rank 0 keeps it. */
#include "trainer.h"

#include "lockstep/base/progress.h"
#include <string.h>

/* 0 or, without memory, -1. */
static int set_string(json_t *record, const char *key, const char *value) {
    return json_object_set_new(record, key, json_string(value));
}
int lk__trainer_set(struct lk_trainer *t, const char *key, const char *value) {
    return set_string(t->record, key, value);
}
static int set_root(json_t *record, const char *key, const struct lk_root *root) {
    char hex[LK_ROOT_HEX];
    return set_string(record, key, lk_root_hex(root, hex));
}

json_t *lk__trainer_new_record(const struct lk_run *run) {
    json_t *r = json_object();
    int bad = !r || set_string(r, "name", run->name) || set_root(r, "identity", &run->identity) ||
              set_string(r, "state", "running") || json_object_set_new(r, "step", json_integer(0)) ||
              json_object_set_new(r, "steps", json_integer(run->config.steps));
    for (const char *const *key = (const char *const[]){"train_loss", "eval_loss", "weights_root", "state_root", NULL};
         *key && !bad; key++)
        bad = json_object_set_new(r, *key, json_null());
    if (!bad && run->config.parent[0])
        bad = json_object_set_new(r, "parent", json_sprintf("%s@%u", run->config.parent, run->config.parent_step));
    bad = bad || set_root(r, "dataset_root", &run->dataset) || set_root(r, "tokenizer_root", &run->tokenizer) ||
          json_object_set_new(r, "config", lk_run_config_json(&run->config)) ||
          json_object_set_new(r, "seed", json_integer((json_int_t)run->config.seed)) ||
          set_string(r, "numerics", LK_NUMERICS) || json_object_set_new(r, "initial", lk__train_run_initial_json(run)) ||
          json_object_set_new(r, "created_ms", json_integer(lk_clock_wall_ms()));
    if (!bad) return r;
    json_decref(r);
    return NULL;
}

int lk__trainer_exists_already(const char *name, json_t *old, struct lk_err *err) {
    const char *state = json_string_value(json_object_get(old, "state"));
    bool finished = state && strcmp(state, "finished") == 0;
    json_decref(old);
    if (finished)
        return lk_fail(err, LK_EEXISTS,
                       "run %s exists already and is finished: give this one another run.name, or remove that one with "
                       "`lockstep runs rm %s`",
                       name, name);
    return lk_fail(
        err, LK_EEXISTS,
        "run %s exists already: go on with `lockstep train --resume %s`, remove it with `lockstep runs rm %s`, or give "
        "this one another run.name",
        name, name, name);
}

struct putting {
    struct lk_trainer *trainer;
    bool creating;
};
static int put_record(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    const struct putting *p = arg;
    struct lk_trainer *t = p->trainer;
    bool creating = p->creating;
    json_t *old = NULL;
    int code = t->lease ? lk_lease_check(t->lease, txn, err) : LK_OK;
    if (code) return code;
    if (creating && (code = lk_record_get(txn, "run", t->run.name, &old, err)) == LK_OK)
        code = lk__trainer_exists_already(t->run.name, old, err);
    if (code == LK_ENOTFOUND) code = LK_OK;
    if (creating && !code) code = lk__train_run_initial_check(t->store, txn, &t->run, err);
    return code ? code : lk_record_put(txn, "run", t->run.name, t->record, err);
}
int lk__trainer_put_record(struct lk_trainer *t, bool creating, struct lk_err *err) {
    return lk_kv_update(t->store->kv, put_record, &(struct putting){t, creating}, LK_DURABLE, NULL, err);
}
