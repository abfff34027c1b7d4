/* The loop of a run from where it was opened to its end. All ranks go through it together; rank 0 keeps record and ledger.
 */
#include "trainer.h"

#include "lockstep/base/progress.h"
#include "lockstep/math/measure.h"
#include <string.h>

static int wait_saver(struct lk_trainer *t, struct lk_err *err) {
    struct lk_checkpoint c;
    bool saved;
    int code = lk__train_saver_wait(t->saver, &saved, &c, err);
    if (code) return lk_fail_prefix(err, code, "the checkpoint could not be written");
    if (!saved) return LK_OK;
    char weights[LK_ROOT_HEX], state[LK_ROOT_HEX];
    if (lk__trainer_set(t, "weights_root", lk_root_hex(&c.weights, weights)) ||
        lk__trainer_set(t, "state_root", lk_root_hex(&c.state, state)))
        return lk_fail(err, LK_ENOMEM, "no memory for the run's record");
    return LK_OK;
}

/* Where the time went, for the record. 0 or, without memory, -1. */
static int set_profile(struct lk_trainer *t) {
    const struct lk_kernel_time *times = lk_math_profiled(t->math);
    if (!times || !t->steps) return 0;
    json_t *kernels = json_array();
    for (int i = 0; i < LK_KERNELS; i++)
        if (times[i].calls)
            json_array_append_new(kernels,
                                  json_pack("{s:s, s:I, s:I, s:I, s:o, s:o}", "name", lk_kernel_name(i), "calls",
                                            (json_int_t)times[i].calls, "ns", (json_int_t)times[i].ns, "idle_ns",
                                            (json_int_t)times[i].idle_ns, "operations", lk_json_float(times[i].operations),
                                            "bytes", lk_json_float(times[i].bytes)));
    int ranks = lk_comm_ranks(t->comm);
    return json_object_set_new(t->record, "profile",
                               json_pack("{s:I, s:I, s:i, s:i, s:o, s:o, s:o}", "steps", (json_int_t)t->steps, "ns",
                                         (json_int_t)(t->seconds * 1e9), "ranks", ranks, "threads",
                                         lk_pool_threads(lk_math_pool(t->math)), "peak_flops",
                                         lk_json_float(t->hooks.peaks.fma_flops_all / ranks), "peak_bytes",
                                         lk_json_float(t->hooks.peaks.read_bytes_all / ranks), "kernels", kernels));
}

static int start_checkpoint(struct lk_trainer *t, const char *state, bool drop_older, struct lk_err *err) {
    json_t *copy = NULL;
    int code = wait_saver(t, err);
    if (!code && t->rank == 0) {
        bool set = !lk__trainer_set(t, "state", state) && !set_profile(t) &&
                   !json_object_set_new(t->record, "step", json_integer(lk__trainer_step(t)));
        copy = set ? json_deep_copy(t->record) : NULL;
        if (!copy) code = lk_fail(err, LK_ENOMEM, "no memory for the run's record");
    }
    if ((code = lk_comm_agree(t->comm, "starting a checkpoint", code, err))) {
        json_decref(copy);
        return code;
    }
    return lk__train_saver_start(t->saver, &t->state, lk__trainer_step(t), copy, drop_older, err);
}

static bool due(uint32_t every, uint32_t step, uint32_t steps) {
    return step == steps || (every && step % every == 0);
}

static int evaluate(struct lk_trainer *t, struct lk_err *err) {
    const struct lk_run_config *c = &t->run.config;
    struct lk_eval_row row = {.step = lk__trainer_step(t)};
    struct lk__train_evaluation e = {.decoder = t->engine.decoder,
                                     .at_once = t->plan.micro_batch,
                                     .layout = &t->run.layout,
                                     .math = t->math,
                                     .comm = t->comm,
                                     .weights = t->state.weights,
                                     .dataset = t->dataset,
                                     .context = lk_run_config_context(c),
                                     .cross_documents = c->cross_documents};
    int code = lk__train_evaluate(&e, c->eval_sequences, &row, err);
    if (code) return code;
    if (t->rank == 0) {
        if (json_object_set_new(t->record, "eval_loss", lk_json_float(row.loss)))
            code = lk_fail(err, LK_ENOMEM, "no memory for the run's record");
        else
            code = lk__train_ledger_append_eval(t->ledger, &row, err);
    }
    if ((code = lk_comm_agree(t->comm, "evaluation", code, err))) return code;
    if (t->hooks.evaluated && t->rank == 0) t->hooks.evaluated(t->hooks.arg, &row);
    return LK_OK;
}

/* Before the state changes: nobody reads it any more, and there is room for the step's row. */
static int make_ready(struct lk_trainer *t, const struct lk_ledger_row *row, struct lk_err *err) {
    int code = wait_saver(t, err);
    if (!code && t->rank == 0) code = lk__train_ledger_reserve(t->ledger, err);
    bool loss = row->tokens && t->rank == 0;
    if (!code && loss && json_object_set_new(t->record, "train_loss", lk_json_float(row->loss)))
        code = lk_fail(err, LK_ENOMEM, "no memory for the run's record");
    return lk_comm_agree(t->comm, "before the update", code, err);
}

static int one_step(struct lk_trainer *t, struct lk_err *err) {
    const struct lk_run_config *c = &t->run.config;
    uint64_t began = lk_clock_ns();
    struct lk_ledger_row row;
    lk_math_profile_pause(t->math, false); /* steps are measured; evaluations and samples are not */
    int code = lk__train_engine_gradient(&t->engine, &t->state, &row, err);
    if (!code) code = make_ready(t, &row, err);
    if (!code) code = lk__train_engine_update(&t->engine, &t->state, &row, err);
    if (code) return code;
    row.seconds = (double)(lk_clock_ns() - began) * 1e-9;
    if (row.tokens && (t->warm || c->steps == 1)) {
        t->seconds += row.seconds;
        t->steps++;
    } else if (row.tokens && lk_math_profiled(t->math)) /* the first step touches all memory for the first time */
        lk_math_profile(t->math, NULL);
    t->warm = t->warm || row.tokens;
    lk_math_profile_pause(t->math, true);
    if ((code = lk_comm_agree(t->comm, "the ledger", t->rank == 0 ? lk__train_ledger_append(t->ledger, &row, err) : LK_OK,
                              err)))
        return code;
    if (t->hooks.step && t->rank == 0) t->hooks.step(t->hooks.arg, &row, c->steps);
    if (c->eval_every && due(c->eval_every, row.step, c->steps)) code = evaluate(t, err);
    if (!code && c->sample_every && row.step % c->sample_every == 0 && t->hooks.sample && t->rank == 0)
        t->hooks.sample(t->hooks.arg, t, row.step);
    if (!code && due(c->checkpoint_every, row.step, c->steps))
        code = start_checkpoint(t, row.step == c->steps ? "finished" : "running", true, err);
    return code;
}

/* A run that failed after its last step, in its evaluation or save, was resumed: only that is left to do. */
static int finish_again(struct lk_trainer *t, struct lk_err *err) {
    int code = t->run.config.eval_every ? evaluate(t, err) : LK_OK;
    return code ? code : start_checkpoint(t, "finished", true, err);
}

/* Saves the state as that of a run "stopped" or "failed". When it cannot be saved, what there is of ledger and record is.
 * A state whose next step is not finite may be rotten: it pushes no older one out, for a new run may want to begin there.
 */
static int save_and_leave(struct lk_trainer *t, const char *state, const char *message, bool drop_older,
                          struct lk_err *err) {
    struct lk_err ignored;
    if (lk_comm_broken()) return LK_EIO; /* nothing can be saved together any more, and weights may be of two steps */
    if (message && t->rank == 0) lk__trainer_set(t, "error", message);
    lk__train_saver_wait(t->saver, NULL, NULL, &ignored);
    int code = start_checkpoint(t, state, drop_older, err);
    if (!code) code = lk_comm_agree(t->comm, "leaving", wait_saver(t, err), err);
    if (!code || t->rank > 0) return code;
    lk__train_ledger_flush(t->ledger, &ignored);
    lk__trainer_put_record(t, false, &ignored);
    return code;
}

/* Any rank that was asked to stop stops all. */
static int asked_to_stop(struct lk_trainer *t, struct lk_err *err) {
    bool stop = t->hooks.stop && t->hooks.stop(t->hooks.arg);
    return lk_comm_agree(t->comm, "going on", stop ? lk_fail(err, LK_ESTOPPED, "stopped") : LK_OK, err);
}

int lk_trainer_run(struct lk_trainer *t, struct lk_err *err) {
    struct lk_err own; /* the ranks agree on a message: there must be one */
    if (!err) err = &own;
    int code = LK_OK;
    if (lk__trainer_step(t) == t->run.config.steps) code = finish_again(t, err);
    while (!code && lk__trainer_step(t) < t->run.config.steps) {
        if ((code = asked_to_stop(t, err)) == LK_ESTOPPED) {
            if ((code = save_and_leave(t, "stopped", NULL, true, err)))
                return lk_fail_prefix(err, code, "stopped after step %u, which could not be saved", lk__trainer_step(t));
            return lk_fail(err, LK_ESTOPPED, "stopped after step %u; go on with `lockstep train --resume %s`",
                           lk__trainer_step(t), t->run.name);
        }
        if (!code) code = one_step(t, err);
    }
    if (!code) code = lk_comm_agree(t->comm, "the last checkpoint", wait_saver(t, err), err);
    if (code == LK_EDIVERGED) { /* this machine's state is suspect: keep the checkpoint that is there */
        struct lk_err ignored;
        wait_saver(t, &ignored); /* its record must not come after ours */
        if (t->rank == 0) {
            lk__trainer_set(t, "state", "failed");
            lk__trainer_set(t, "error", err->message);
            lk__trainer_put_record(t, false, NULL);
        }
    } else if (code) {
        struct lk_err ignored; /* a second failure here does not hide the first */
        save_and_leave(t, "failed", err->message, code != LK_ENAN, &ignored);
    }
    return code;
}

const struct lk_run *lk_trainer_about(const struct lk_trainer *t) {
    return &t->run;
}
const struct lk_state *lk_trainer_state(const struct lk_trainer *t) {
    return &t->state;
}
