/* Verification: a segment of a run is executed again, and every row and root on the way must be equal. */
#include "engine.h"
#include "initial.h"
#include "ledger.h"

#include <stdio.h>
#include <string.h>

struct verifier {
    struct lk_store *store;
    struct lk_run run;
    struct lk_dataset *dataset;
    struct lk_state state;
    struct lk__train_engine engine;
    struct lk_ledger_row *rows; /* of the segment; step 0: absent */
    uint32_t from, to;
    struct lk_checkpoint *checkpoints;
    size_t checkpoint_count;
};

static int keep_row(void *arg, const struct lk_ledger_row *row) {
    struct verifier *v = arg;
    if (row->step > v->from && row->step <= v->to) v->rows[row->step - v->from - 1] = *row;
    return 0;
}

/* The state at the newest kept checkpoint at or before `from`; moves v->from there. */
static int load_start(struct verifier *v, struct lk_math *math, struct lk_err *err) {
    struct lk_checkpoint *start = NULL;
    for (size_t i = 0; i < v->checkpoint_count; i++)
        if (v->checkpoints[i].kept && v->checkpoints[i].step <= v->from) start = &v->checkpoints[i];
    if (start) {
        v->from = start->step;
        return lk_checkpoint_load(v->store, &start->state, &v->state, err);
    }
    v->from = 0;
    return lk__train_state_begin(v->store, math, &v->run, true, &v->state, err);
}

static int open_all(struct verifier *v, struct lk_math *math, const char *name, struct lk_err *err) {
    struct lk_plan plan;
    int code = lk_run_open(v->store, name, &v->run, err);
    if (!code) code = lk__train_run_initial_complete(v->store, &v->run, err);
    if (code) return code;
    if (v->from >= v->to || v->to > v->run.config.steps)
        return lk_fail(err, LK_EINVAL, "the segment %u..%u is not within the run's steps 0..%u", v->from, v->to,
                       v->run.config.steps);
    code = lk_dataset_open(v->store, &v->run.dataset, true, &v->dataset, err);
    if (!code) code = lk_run_checkpoints(v->store, name, &v->checkpoints, &v->checkpoint_count, err);
    if (!code) code = lk_plan_make(&v->run.config, &v->run.layout, math, NULL, &plan, err);
    if (!code)
        code = lk__train_engine_open(&v->engine, &v->run.config, &v->run.layout, math, NULL, v->dataset, plan.micro_batch,
                                     err);
    if (!code) code = lk__train_engine_state(&v->engine, &v->state, err);
    v->state.samples_before = v->run.samples_before;
    if (!code) code = load_start(v, math, err);
    if (code) return code;
    v->rows = lk_calloc(v->to - v->from, sizeof *v->rows);
    if (!v->rows) return lk_fail(err, LK_ENOMEM, "no memory for the ledger");
    code = lk_ledger_list(v->store, name, v->from + 1, v->to, keep_row, v, err);
    for (uint32_t i = 0; i < v->to - v->from && !code; i++)
        if (v->rows[i].step == 0)
            code = lk_fail(err, LK_ENOTFOUND, "run %s has no ledger row of step %u: it has not got that far", name,
                           v->from + i + 1);
    return code;
}

static int check_roots(struct verifier *v, struct lk_verify_result *out, struct lk_err *err) {
    for (size_t i = 0; i < v->checkpoint_count; i++) {
        const struct lk_checkpoint *c = &v->checkpoints[i];
        struct lk_root weights, state;
        char old[LK_ROOT_HEX], new[LK_ROOT_HEX];
        if (c->step != lk__train_state_step(&v->state, &v->run.config)) continue;
        int code = lk__train_state_roots(&v->state, &weights, &state, err);
        if (code) return code;
        out->roots_compared = true;
        if (lk_root_equal(&state, &c->state) && lk_root_equal(&weights, &c->weights)) continue;
        out->equal = false;
        bool w = !lk_root_equal(&weights, &c->weights);
        snprintf(out->what, sizeof out->what, "%s root %.16s..., now %.16s...", w ? "weights" : "state",
                 lk_root_hex(w ? &c->weights : &c->state, old), lk_root_hex(w ? &weights : &state, new));
    }
    return LK_OK;
}

int lk_verify(struct lk_store *store, struct lk_math *math, const char *run, uint32_t from, uint32_t to,
              void (*progress)(void *arg, uint32_t step, uint32_t from, uint32_t to), void *arg,
              struct lk_verify_result *out, struct lk_err *err) {
    struct lk_err own; /* the ranks agree on a message: there must be one */
    if (!err) err = &own;
    struct verifier v = {.store = store, .from = from, .to = to};
    int code = open_all(&v, math, run, err);
    *out = (struct lk_verify_result){.from = v.from, .to = to, .equal = true};
    if (!code && progress) progress(arg, v.from, v.from, to);
    while (!code && out->equal && lk__train_state_step(&v.state, &v.run.config) < to) {
        struct lk_ledger_row row;
        if ((code = lk__train_engine_gradient(&v.engine, &v.state, &row, err))) break;
        if ((code = lk__train_engine_update(&v.engine, &v.state, &row, err))) break;
        lk__train_ledger_compare(&v.rows[row.step - v.from - 1], &row, out->what, sizeof out->what);
        if (*out->what)
            out->equal = false;
        else
            code = check_roots(&v, out, err);
        if (out->equal)
            out->steps++;
        else
            out->first_difference = row.step;
        if (progress) progress(arg, row.step, v.from, to);
    }
    lk_free(v.rows);
    lk_free(v.checkpoints);
    lk_state_release(&v.state); /* its weights are the engine's */
    lk__train_engine_close(&v.engine);
    lk_dataset_close(v.dataset);
    lk_run_close(&v.run);
    return code;
}
