/* A run from its creation, or its newest good checkpoint, to its end. */
#include "engine.h"

#include "lockstep/progress.h"
#include <stdio.h>
#include <string.h>

struct lk_trainer {
    struct lk_store *store;
    struct lk_math *math;
    struct lk_train_hooks hooks;
    struct lk_run run;
    struct lk_dataset *dataset;
    struct lk_state state;
    struct lk__engine engine;
    struct lk__ledger *ledger;
    struct lk__saver *saver;
    struct lk_plan plan;
    json_t *record; /* as it is to be written with the next checkpoint */
    int lock;
};

/* --- Opening --------------------------------------------------------------------------------------------- */

static int open_dataset(struct lk_trainer *t, struct lk_err *err) {
    int code = lk_dataset_open(t->store, &t->run.dataset, true, &t->dataset, err);
    if (code) return code;
    t->run.tokenizer = *lk_dataset_tokenizer(t->dataset);
    return LK_OK;
}

static int check_dataset(struct lk_trainer *t, struct lk_err *err) {
    const struct lk_run_config *c = &t->run.config;
    if (lk_dataset_sequences(t->dataset, LK_TRAIN, c->context) == 0)
        return lk_fail(err, LK_EINVAL,
                       "dataset %s has %llu training tokens, too few for one sequence of model.context = %u", c->dataset,
                       (unsigned long long)lk_dataset_tokens(t->dataset, LK_TRAIN), c->context);
    if (lk_dataset_tokens(t->dataset, LK_HELD_OUT) < 2) t->run.config.eval_every = 0; /* nothing is held out */
    return t->run.config.eval_every ? lk__evaluate_check(t->dataset, c->context, c->eval_sequences, err) : LK_OK;
}

/* Everything that needs memory, after the plan has said yes. */
static int open_buffers(struct lk_trainer *t, struct lk_err *err) {
    int code = lk_plan_make(&t->run.config, &t->run.layout, t->math, &t->plan, err);
    if (code) return code;
    if (t->hooks.plan) t->hooks.plan(t->hooks.arg, &t->run.config, &t->run.layout, &t->plan);
    code = lk_state_init(&t->state, &t->run.layout, true, err);
    if (!code)
        code = lk__engine_open(&t->engine, &t->run.config, &t->run.layout, t->math, t->dataset, t->plan.micro_batch, err);
    if (!code) code = lk__ledger_open(t->store, t->run.name, &t->ledger, err);
    if (!code) code = lk__saver_open(t->store, t->run.name, t->run.config.checkpoint_keep, t->ledger, &t->saver, err);
    return code;
}

/* 0 or, without memory, -1. */
static int set_string(json_t *record, const char *key, const char *value) {
    return json_object_set_new(record, key, json_string(value));
}
static int set_root(json_t *record, const char *key, const struct lk_root *root) {
    char hex[LK_ROOT_HEX];
    return set_string(record, key, lk_root_hex(root, hex));
}

static json_t *new_record(const struct lk_run *run) {
    json_t *r = json_object();
    int bad = !r || set_string(r, "name", run->name) || set_root(r, "identity", &run->identity) ||
              set_string(r, "state", "running") || json_object_set_new(r, "step", json_integer(0)) ||
              json_object_set_new(r, "steps", json_integer(run->config.steps));
    for (const char *const *key = (const char *const[]){"train_loss", "eval_loss", "weights_root", "state_root", NULL};
         *key && !bad; key++)
        bad = json_object_set_new(r, *key, json_null());
    bad = bad || set_root(r, "dataset_root", &run->dataset) || set_root(r, "tokenizer_root", &run->tokenizer) ||
          json_object_set_new(r, "config", lk_run_config_json(&run->config)) ||
          json_object_set_new(r, "seed", json_integer((json_int_t)run->config.seed)) ||
          set_string(r, "numerics", LK_NUMERICS) || json_object_set_new(r, "created_ms", json_integer(lk_clock_wall_ms()));
    if (!bad) return r;
    json_decref(r);
    return NULL;
}

/* A record in a transaction of its own; creating: the name must be free. */
static int put_record(struct lk_trainer *t, bool creating, struct lk_err *err) {
    struct lk_kv_txn *txn;
    json_t *old = NULL;
    int code = lk_kv_begin(t->store->kv, true, &txn, err);
    if (code) return code;
    if (creating && lk_record_get(txn, "run", t->run.name, &old, NULL) == LK_OK) {
        json_decref(old);
        code = lk_fail(
            err, LK_EEXISTS,
            "run %s exists already: go on with `lockstep train --resume %s`, remove it with `lockstep runs rm %s`, or give "
            "this one another run.name",
            t->run.name, t->run.name, t->run.name);
    }
    if (!code) code = lk_record_put(txn, "run", t->run.name, t->record, err);
    if (code) {
        lk_kv_abort(txn);
        return code;
    }
    return lk_kv_commit(txn, LK_DURABLE, NULL, err);
}

static struct lk_trainer *new_trainer(struct lk_store *store, struct lk_math *math, const struct lk_train_hooks *hooks,
                                      struct lk_err *err) {
    struct lk_trainer *t = lk_calloc(1, sizeof *t);
    if (!t) {
        lk_fail(err, LK_ENOMEM, "no memory for a trainer");
        return NULL;
    }
    t->store = store;
    t->math = math;
    t->lock = -1;
    if (hooks) t->hooks = *hooks;
    return t;
}

/* Names become roots; the configuration is completed; the identity follows. */
static int resolve(struct lk_trainer *t, const struct lk_run_config *config, struct lk_err *err) {
    struct lk_run *run = &t->run;
    run->config = *config;
    snprintf(run->name, sizeof run->name, "%s", config->name);
    int code = lk_store_name_get(t->store, "dataset", config->dataset, &run->dataset, err);
    if (!code) code = open_dataset(t, err);
    if (!code) code = lk_run_config_resolve(&run->config, lk_dataset_vocab(t->dataset), err);
    if (!code) code = check_dataset(t, err);
    if (!code) code = lk_run_identity(&run->config, &run->dataset, &run->identity, err);
    struct lk_model_config m = lk_run_config_model(&run->config);
    if (!code) code = lk_layout_init(&run->layout, &m, err);
    return code;
}

int lk_trainer_create(struct lk_store *store, struct lk_math *math, const struct lk_run_config *config,
                      const struct lk_train_hooks *hooks, struct lk_trainer **out, struct lk_err *err) {
    struct lk_trainer *t = new_trainer(store, math, hooks, err);
    if (!t) return LK_ENOMEM;
    int code = resolve(t, config, err);
    json_t *old = NULL;
    if (!code &&
        lk_run_get(store, t->run.name, &old, NULL) == LK_OK) { /* before any memory is taken; put_record asks again */
        json_decref(old);
        code = lk_fail(
            err, LK_EEXISTS,
            "run %s exists already: go on with `lockstep train --resume %s`, remove it with `lockstep runs rm %s`, or give "
            "this one another run.name",
            t->run.name, t->run.name, t->run.name);
    }
    if (!code) code = lk__run_lock(store, t->run.name, &t->lock, err);
    if (!code) code = open_buffers(t, err);
    if (!code && !(t->record = new_record(&t->run))) code = lk_fail(err, LK_ENOMEM, "no memory for the run's record");
    if (!code) lk_layout_initialise(&t->run.layout, math, t->run.config.seed, t->state.weights);
    if (!code) code = put_record(t, true, err);
    if (code && t->lock >= 0 && code != LK_EEXISTS) lk__run_lock_remove(store, t->run.name);
    if (code)
        lk_trainer_free(t);
    else
        *out = t;
    return code;
}

static void warn(struct lk_trainer *t, const char *format, const char *a, unsigned step) {
    char text[900];
    snprintf(text, sizeof text, format, step, a);
    if (t->hooks.warning) t->hooks.warning(t->hooks.arg, text);
}

/* The newest checkpoint whose blobs are whole; a damaged one is named and the one before is taken. */
static int load_newest(struct lk_trainer *t, struct lk_err *err) {
    struct lk_checkpoint *list = NULL;
    size_t count = 0;
    int code = lk_run_checkpoints(t->store, t->run.name, &list, &count, err);
    if (code) return code;
    code = LK_ENOTFOUND;
    for (size_t i = count; i-- > 0 && code;) {
        struct lk_err why = {0};
        if (!list[i].kept) continue;
        code = lk_checkpoint_load(t->store, &list[i].state, &t->state, &why);
        if (!code && t->state.updates != list[i].step)
            code = lk_fail(&why, LK_ECORRUPT, "its state is that of step %llu", (unsigned long long)t->state.updates);
        if (code)
            warn(t, "checkpoint of step %u can't be used: %s; going back to the one before", why.message, list[i].step);
        int drop = code == LK_ECORRUPT || code == LK_ENOTFOUND ? lk__checkpoint_drop(t->store, t->run.name, &list[i], &why)
                                                               : LK_OK;
        if (drop || code == LK_ENOMEM || code == LK_EIO) {
            code = drop ? drop : code;
            if (err) *err = why;
            lk_free(list);
            return code;
        }
    }
    lk_free(list);
    if (code) { /* none: from the beginning */
        lk_layout_initialise(&t->run.layout, t->math, t->run.config.seed, t->state.weights);
        memset(t->state.moments1, 0, t->run.layout.floats * sizeof(float));
        memset(t->state.moments2, 0, t->run.layout.floats * sizeof(float));
        t->state.updates = t->state.samples = 0;
    }
    return LK_OK;
}

int lk_trainer_resume(struct lk_store *store, struct lk_math *math, const char *name, const struct lk_train_hooks *hooks,
                      struct lk_trainer **out, struct lk_err *err) {
    struct lk_trainer *t = new_trainer(store, math, hooks, err);
    if (!t) return LK_ENOMEM;
    int code = lk_run_open(store, name, &t->run, err);
    if (!code) code = lk__run_lock(store, name, &t->lock, err);
    if (!code) code = lk_run_get(store, name, &t->record, err);
    if (!code && !strcmp(json_string_value(json_object_get(t->record, "state")), "finished"))
        code = lk_fail(err, LK_EEXISTS, "run %s is finished: `lockstep runs show %s` has its result", name, name);
    if (!code) code = open_dataset(t, err);
    if (!code) code = check_dataset(t, err);
    if (!code) code = open_buffers(t, err);
    if (!code) code = load_newest(t, err);
    if (!code) {
        json_object_del(t->record, "error");
        if (set_string(t->record, "state", "running"))
            code = lk_fail(err, LK_ENOMEM, "no memory for the run's record");
        else
            code = put_record(t, false, err);
    }
    if (code) {
        lk_trainer_free(t);
        return code;
    }
    if (t->hooks.resumed) t->hooks.resumed(t->hooks.arg, (uint32_t)t->state.updates);
    *out = t;
    return LK_OK;
}

void lk_trainer_free(struct lk_trainer *t) {
    if (!t) return;
    lk__saver_close(t->saver);
    lk__ledger_close(t->ledger);
    lk__engine_close(&t->engine);
    lk_state_release(&t->state);
    lk_dataset_close(t->dataset);
    lk_run_close(&t->run);
    json_decref(t->record);
    lk__run_unlock(t->lock);
    lk_free(t);
}

/* --- The loop -------------------------------------------------------------------------------------------- */

static int wait_saver(struct lk_trainer *t, struct lk_err *err) {
    struct lk_checkpoint c;
    bool saved;
    int code = lk__saver_wait(t->saver, &saved, &c, err);
    if (code) return lk_fail_prefix(err, code, "the checkpoint could not be written");
    if (!saved) return LK_OK;
    if (set_root(t->record, "weights_root", &c.weights) || set_root(t->record, "state_root", &c.state))
        return lk_fail(err, LK_ENOMEM, "no memory for the run's record");
    if (t->hooks.checkpoint) t->hooks.checkpoint(t->hooks.arg, &c);
    return LK_OK;
}

static int start_checkpoint(struct lk_trainer *t, const char *state, struct lk_err *err) {
    int code = wait_saver(t, err);
    if (code) return code;
    bool set = !set_string(t->record, "state", state) &&
               !json_object_set_new(t->record, "step", json_integer((json_int_t)t->state.updates));
    json_t *copy = set ? json_deep_copy(t->record) : NULL;
    if (!copy) return lk_fail(err, LK_ENOMEM, "no memory for the run's record");
    return lk__saver_start(t->saver, &t->state, (uint32_t)t->state.updates, copy, err);
}

static bool due(uint32_t every, uint32_t step, uint32_t steps) {
    return step == steps || (every && step % every == 0);
}

static int evaluate(struct lk_trainer *t, struct lk_err *err) {
    const struct lk_run_config *c = &t->run.config;
    struct lk_eval_row row = {.step = (uint32_t)t->state.updates};
    int code = lk__evaluate(t->engine.decoder, t->plan.micro_batch, &t->run.layout, t->math, t->state.weights, t->dataset,
                            c->context, c->cross_documents, c->eval_sequences, &row, err);
    if (code) return code;
    if (json_object_set_new(t->record, "eval_loss", lk_json_float(row.loss)))
        return lk_fail(err, LK_ENOMEM, "no memory for the run's record");
    if ((code = lk__ledger_append_eval(t->ledger, &row, err))) return code;
    if (t->hooks.evaluated) t->hooks.evaluated(t->hooks.arg, &row);
    return LK_OK;
}

static int one_step(struct lk_trainer *t, struct lk_err *err) {
    const struct lk_run_config *c = &t->run.config;
    uint64_t began = lk_clock_ns();
    struct lk_ledger_row row;
    int code = lk__engine_gradient(&t->engine, &t->state, &row, err);
    if (!code) code = wait_saver(t, err);                 /* the state may not change while it is being written */
    if (!code) code = lk__ledger_reserve(t->ledger, err); /* nor without its row */
    if (!code && json_object_set_new(t->record, "train_loss", lk_json_float(row.loss)))
        code = lk_fail(err, LK_ENOMEM, "no memory for the run's record");
    if (code) return code;
    lk__engine_update(&t->engine, &t->state, &row);
    row.seconds = (double)(lk_clock_ns() - began) * 1e-9;
    if ((code = lk__ledger_append(t->ledger, &row, err))) return code;
    if (t->hooks.step) t->hooks.step(t->hooks.arg, &row, c->steps);
    if (c->eval_every && due(c->eval_every, row.step, c->steps)) code = evaluate(t, err);
    if (!code && c->sample_every && row.step % c->sample_every == 0 && t->hooks.sample)
        t->hooks.sample(t->hooks.arg, t, row.step);
    if (!code && due(c->checkpoint_every, row.step, c->steps))
        code = start_checkpoint(t, row.step == c->steps ? "finished" : "running", err);
    return code;
}

/* A run that failed after its last step, in its evaluation or save, was resumed: only that is left to do. */
static int finish_again(struct lk_trainer *t, struct lk_err *err) {
    int code = t->run.config.eval_every ? evaluate(t, err) : LK_OK;
    return code ? code : start_checkpoint(t, "finished", err);
}

/* Leaves with the state saved as `state` ("stopped" or "failed"); a second failure here does not hide the first. */
static void leave(struct lk_trainer *t, const char *state, const char *message) {
    struct lk_err ignored;
    if (message) set_string(t->record, "error", message);
    lk__saver_wait(t->saver, NULL, NULL, &ignored);
    if (start_checkpoint(t, state, &ignored) == LK_OK && wait_saver(t, &ignored) == LK_OK) return;
    lk__ledger_flush(t->ledger, &ignored);
    put_record(t, false, &ignored);
}

int lk_trainer_run(struct lk_trainer *t, struct lk_err *err) {
    struct lk_err mine = {0};
    int code = LK_OK;
    if (!err) err = &mine;
    if (t->state.updates == t->run.config.steps) code = finish_again(t, err);
    while (!code && t->state.updates < t->run.config.steps) {
        if (t->hooks.stop && t->hooks.stop(t->hooks.arg)) {
            leave(t, "stopped", NULL);
            return lk_fail(err, LK_ESTOPPED, "stopped after step %llu; go on with `lockstep train --resume %s`",
                           (unsigned long long)t->state.updates, t->run.name);
        }
        code = one_step(t, err);
    }
    if (!code) code = wait_saver(t, err);
    if (code == LK_EDIVERGED) { /* this machine's state is suspect: keep the checkpoint that is there */
        struct lk_err ignored;
        wait_saver(t, &ignored); /* its record must not come after ours */
        set_string(t->record, "state", "failed");
        set_string(t->record, "error", err->message);
        put_record(t, false, NULL);
    } else if (code)
        leave(t, "failed", err->message);
    return code;
}

const struct lk_run *lk_trainer_about(const struct lk_trainer *t) {
    return &t->run;
}
const struct lk_state *lk_trainer_state(const struct lk_trainer *t) {
    return &t->state;
}

int lk_train_dry_run(struct lk_store *store, struct lk_math *math, const struct lk_run_config *config, struct lk_plan *plan,
                     double *seconds, struct lk_err *err) {
    struct lk_trainer *t = new_trainer(store, math, NULL, err);
    if (!t) return LK_ENOMEM;
    int code = resolve(t, config, err);
    if (!code) code = lk_plan_make(&t->run.config, &t->run.layout, math, plan, err);
    if (!code) code = lk_state_init(&t->state, &t->run.layout, true, err);
    if (!code) code = lk__engine_open(&t->engine, &t->run.config, &t->run.layout, math, t->dataset, plan->micro_batch, err);
    if (!code) lk_layout_initialise(&t->run.layout, math, t->run.config.seed, t->state.weights);
    for (int i = 0; i < 2 && !code; i++) { /* the first touches the memory, the second counts */
        struct lk_ledger_row row;
        uint64_t began = lk_clock_ns();
        if ((code = lk__engine_gradient(&t->engine, &t->state, &row, err))) break;
        lk__engine_update(&t->engine, &t->state, &row);
        *seconds = (double)(lk_clock_ns() - began) * 1e-9;
    }
    lk_trainer_free(t);
    return code;
}
