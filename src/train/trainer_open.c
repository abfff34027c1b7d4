/* Opening a run: created or resumed by rank 0, joined by the others; memory, engine, the newest good checkpoint. */
#include "trainer.h"

#include "lockstep/base/progress.h"
#include <stdio.h>
#include <string.h>

/* --- On one rank ----------------------------------------------------------------------------------------- */

static int open_dataset(struct lk_trainer *t, struct lk_err *err) {
    int code = lk_dataset_open(t->store, &t->run.dataset, true, &t->dataset, err);
    if (code) return code;
    t->run.tokenizer = *lk_dataset_tokenizer(t->dataset);
    return LK_OK;
}

static int check_dataset(struct lk_trainer *t, struct lk_err *err) {
    const struct lk_run_config *c = &t->run.config;
    if (lk_dataset_sequences(t->dataset, LK_TRAIN, lk_run_config_context(c)) == 0)
        return lk_fail(err, LK_EINVAL,
                       "dataset %s has %llu training tokens, too few for one sequence of %u positions (model.context or "
                       "batch.context)",
                       c->dataset, (unsigned long long)lk_dataset_tokens(t->dataset, LK_TRAIN), lk_run_config_context(c));
    if (lk_dataset_tokens(t->dataset, LK_HELD_OUT) < 2) t->run.config.eval_every = 0; /* nothing is held out */
    return t->run.config.eval_every ? lk__train_evaluate_check(t->dataset, lk_run_config_context(c), c->eval_sequences, err)
                                    : LK_OK;
}

/* Enough of the mask to look at: half a second's reading, whatever the size of the dataset. */
#define MASK_TOKENS ((uint64_t)1 << 33)

/* What a batch of prompts only does to a run is better known before its first step. */
static int check_targets(struct lk_trainer *t, struct lk_err *err) {
    const struct lk_run_config *c = &t->run.config;
    uint32_t context = lk_run_config_context(c);
    struct lk_untargeted u = lk_dataset_untargeted(t->dataset, LK_TRAIN, context, MASK_TOKENS);
    char document[400], text[900];
    if (!u.count) return LK_OK;
    lk__train_document_text(t->dataset, u.first * context + 1, document, sizeof document);
    if (u.count == lk_dataset_sequences(t->dataset, LK_TRAIN, context))
        return lk_fail(
            err, LK_EINVAL,
            "dataset %s: no training sequence of %u positions has a target, since prompts fill them all, first %s: "
            "build it with shorter prompts, or train with a longer batch.context or model.context",
            c->dataset, context, document);
    snprintf(
        text, sizeof text,
        "dataset %s: in %llu of %llu training sequences of %u positions all targets are masked, first in %s; nothing is "
        "learned from them, and a step that gets only such ones makes no update; shorter prompts, a longer context or "
        "more batch.sequences help",
        c->dataset, (unsigned long long)u.count, (unsigned long long)u.looked_at, context, document);
    if (t->hooks.warning) t->hooks.warning(t->hooks.arg, text);
    return LK_OK;
}

/* Everything that needs memory, after every rank's plan has said yes. */
static int open_buffers(struct lk_trainer *t, struct lk_err *err) {
    int code = lk_plan_make(&t->run.config, &t->run.layout, t->math, t->comm, &t->plan, err);
    if ((code = lk_comm_agree(t->comm, "memory plan", code, err))) return code;
    if (t->hooks.plan && t->rank == 0) t->hooks.plan(t->hooks.arg, &t->run.config, &t->run.layout, &t->plan);
    code = lk__train_engine_open(&t->engine, &t->run.config, &t->run.layout, t->math, t->comm, t->dataset,
                                 t->plan.micro_batch, err);
    if (code) return code;
    code = lk__train_engine_state(&t->engine, &t->state, err);
    t->state.samples_before = t->run.samples_before;
    if (!code && t->rank == 0) code = lk__train_ledger_open(t->store, t->run.name, t->lease, &t->ledger, err);
    if ((code = lk_comm_agree(t->comm, "moments", code, err))) return code;
    struct lk__train_keep keep = {t->run.config.checkpoint_keep, t->run.config.checkpoint_best};
    return lk__train_saver_open(t->store, t->run.name, keep, t->ledger, t->comm, &t->saver, err);
}

struct lk_trainer *lk__trainer_new(struct lk_store *store, struct lk_math *math, struct lk_comm *comm,
                                   const struct lk_train_hooks *hooks, struct lk_err *err) {
    struct lk_trainer *t = lk_calloc(1, sizeof *t);
    if (!t) {
        if (comm) lk_comm_break(comm); /* it cannot even take part in agreeing on that */
        lk_fail(err, LK_ENOMEM, "no memory for a trainer");
        return NULL;
    }
    if (!comm && lk_comm_open_self(&t->own_comm, err)) {
        lk_free(t);
        return NULL;
    }
    t->comm = comm ? comm : t->own_comm;
    t->rank = lk_comm_rank(t->comm);
    t->store = store;
    t->math = math;
    if (hooks) t->hooks = *hooks;
    return t;
}

/* Names become roots; the configuration is completed; the identity follows. */
int lk__trainer_resolve(struct lk_trainer *t, const struct lk_run_config *config, bool dry, struct lk_err *err) {
    const struct lk__train_origin origin = {t->store, dry, t->hooks.warning, t->hooks.arg};
    struct lk_run *run = &t->run;
    run->config = *config;
    snprintf(run->name, sizeof run->name, "%s", config->name);
    int code = lk_store_name_get(t->store, "dataset", config->dataset, &run->dataset, err);
    if (!code) code = open_dataset(t, err);
    if (!code && config->from[0]) code = lk__train_run_begin_from(&origin, run, err);
    if (!code) code = lk_run_config_resolve(&run->config, lk_dataset_vocab(t->dataset), err);
    if (!code) code = check_dataset(t, err);
    if (!code) code = check_targets(t, err);
    const struct lk_root *const initial[] = {NULL, &run->initial_weights, &run->initial_state};
    if (!code) code = lk_run_identity(&run->config, &run->dataset, initial[run->from], &run->identity, err);
    struct lk_model_config m = lk_run_config_model(&run->config);
    if (!code) code = lk_layout_init(&run->layout, &m, err);
    return code;
}

/* --- What rank 0 tells the others ------------------------------------------------------------------------ */

/* The record says all: configuration, identity, roots. */
static int send_record(struct lk_trainer *t, struct lk_buf *text, struct lk_err *err) {
    return lk_json_canonical(t->record, text, err);
}
static int receive_record(struct lk_trainer *t, const struct lk_buf *text, struct lk_err *err) {
    t->record = lk_json_parse(text->data, text->size, "the run's record", err);
    int code = t->record ? LK_OK : LK_ECORRUPT;
    if (!code) code = lk__train_run_from_record(t->record, &t->run, err);
    if (!code) code = lk__train_run_initial_complete(t->store, &t->run, err);
    if (!code) code = open_dataset(t, err);
    return code ? code : check_dataset(t, err);
}

/* Rank 0 has resolved the run, or failed (code); afterwards every rank has it, with its dataset. */
int lk__trainer_share(struct lk_trainer *t, int code, struct lk_err *err) {
    struct lk_buf text = LK_BUF_INIT;
    uint64_t size = 0;
    if (!code && t->rank == 0 && lk_comm_ranks(t->comm) > 1) code = send_record(t, &text, err);
    if (!(code = lk_comm_agree(t->comm, "the run", code, err)) && lk_comm_ranks(t->comm) > 1) {
        size = text.size;
        code = lk_comm_broadcast(t->comm, "the run's size", &size, sizeof size, err);
        int room = code || t->rank == 0 ? LK_OK : lk_buf_reserve(&text, size);
        text.size = room ? 0 : size;
        if (room) lk_fail(err, room, "no memory for the run's record");
        if (!code) code = lk_comm_agree(t->comm, "the run", room, err);
        if (!code) code = lk_comm_broadcast(t->comm, "the run", text.data, size, err);
        if (!code) code = lk_comm_agree(t->comm, "the run", t->rank > 0 ? receive_record(t, &text, err) : LK_OK, err);
    }
    lk_buf_release(&text);
    return code;
}

static void warn(struct lk_trainer *t, const char *format, const char *a, unsigned step) {
    char text[900];
    snprintf(text, sizeof text, format, step, a);
    if (t->hooks.warning) t->hooks.warning(t->hooks.arg, text);
}

/* --- The state to begin with ----------------------------------------------------------------------------- */

struct candidate {
    uint32_t there;
    struct lk_checkpoint checkpoint;
};

/* Rank 0's next choice: the newest kept one before `*left`. */
static void choose(const struct lk_checkpoint *list, size_t *left, struct candidate *out) {
    *out = (struct candidate){0};
    while (*left > 0 && !out->there)
        if (list[--*left].kept) *out = (struct candidate){1, list[*left]};
}

int lk__trainer_from_the_beginning(struct lk_trainer *t, struct lk_err *err) {
    int code = lk__train_state_begin(t->store, t->math, &t->run, !t->state.weights_shared || t->rank == 0, &t->state, err);
    return lk_comm_agree(t->comm, "initial weights", code, err);
}

static int load_one(struct lk_trainer *t, const struct lk_checkpoint *c, struct lk_err *err) {
    int code = lk_checkpoint_load(t->store, &c->state, &t->state, err);
    if (!code && t->state.samples != t->state.samples_before + (uint64_t)c->step * t->run.config.sequences)
        code = lk_fail(err, LK_ECORRUPT, "its state is that of step %u", lk__trainer_step(t));
    return lk_comm_agree(t->comm, "loading the checkpoint", code, err);
}

/* The newest checkpoint whose blobs are whole for every rank; a damaged one is named and the one before is taken. */
static int load_newest(struct lk_trainer *t, struct lk_err *err) {
    struct lk_checkpoint *list = NULL;
    size_t left = 0;
    struct candidate c = {0};
    int code = t->rank == 0 ? lk_run_checkpoints(t->store, t->run.name, &list, &left, err) : LK_OK;
    code = lk_comm_agree(t->comm, "checkpoints", code, err);
    while (!code) {
        if (t->rank == 0) choose(list, &left, &c);
        if ((code = lk_comm_broadcast(t->comm, "checkpoint", &c, sizeof c, err))) break;
        if (!c.there) {
            code = lk__trainer_from_the_beginning(t, err);
            break;
        }
        int failed = load_one(t, &c.checkpoint, err);
        if (!failed) break;
        if (t->rank == 0)
            warn(t, "checkpoint of step %u can't be used: %s; going back to the one before", err->message,
                 c.checkpoint.step);
        bool damaged = failed == LK_ECORRUPT || failed == LK_ENOTFOUND;
        if (t->rank == 0 && damaged) {
            failed = lk__train_checkpoint_drop(t->store, t->run.name, t->lease, &c.checkpoint, err);
        } else if (damaged || (failed != LK_ENOMEM && failed != LK_EIO))
            failed = LK_OK;
        code = lk_comm_agree(t->comm, "checkpoint", failed, err);
    }
    lk_free(list);
    return code
               ? code
               : lk_comm_agree(t->comm, "checkpoint", LK_OK, err); /* shared weights are complete when all have come here */
}

/* All that ranks do together once rank 0 has the run (or has failed with code and err). */
static int open_together(struct lk_trainer *t, int code, struct lk_err *err) {
    code = lk__trainer_share(t, code, err);
    if (!code) code = open_buffers(t, err);
    return code ? code : load_newest(t, err);
}

/* Before any memory is taken; lk__trainer_put_record asks again. */
static int check_name(struct lk_store *store, const char *name, struct lk_err *err) {
    json_t *old = NULL;
    int code = lk_run_get(store, name, &old, err);
    if (code == LK_ENOTFOUND) return LK_OK;
    return code ? code : lk__trainer_exists_already(name, old, err);
}

/* --- The three ways to open ------------------------------------------------------------------------------ */

int lk_trainer_create(struct lk_store *store, struct lk_math *math, struct lk_comm *comm,
                      const struct lk_run_config *config, const struct lk_train_hooks *hooks, struct lk_trainer **out,
                      struct lk_err *err) {
    struct lk_err own; /* the ranks agree on a message: there must be one */
    if (!err) err = &own;
    struct lk_trainer *t = lk__trainer_new(store, math, comm, hooks, err);
    if (!t) return LK_ENOMEM;
    LK_ASSERT(t->rank == 0);
    int code = lk__trainer_resolve(t, config, false, err);
    if (!code) code = check_name(store, t->run.name, err);
    if (!code) code = lk__train_run_lease(store, t->run.name, &t->lease, err);
    if (!code && !(t->record = lk__trainer_new_record(&t->run)))
        code = lk_fail(err, LK_ENOMEM, "no memory for the run's record");
    if (!(code = open_together(t, code, err)))
        code = lk_comm_agree(t->comm, "creating the run", lk__trainer_put_record(t, true, err), err);
    if (code && code != LK_EEXISTS) lk_lease_release(t->lease, true), t->lease = NULL;
    if (code)
        lk_trainer_free(t);
    else
        *out = t;
    return code;
}

/* What rank 0 does alone to resume, before memory is taken. */
static int reopen(struct lk_trainer *t, const char *name, struct lk_err *err) {
    int code = lk_run_open(t->store, name, &t->run, err);
    if (!code) code = lk__train_run_initial_complete(t->store, &t->run, err);
    if (!code) code = lk__train_run_lease(t->store, name, &t->lease, err);
    if (!code) code = lk_run_get(t->store, name, &t->record, err);
    const char *state = json_string_value(json_object_get(t->record, "state"));
    if (!code && !state) code = lk_fail(err, LK_ECORRUPT, "the record of run %s does not say its state", name);
    if (!code && strcmp(state, "finished") == 0)
        code = lk_fail(err, LK_EEXISTS, "run %s is finished: `lockstep runs show %s` has its result", name, name);
    if (!code) code = open_dataset(t, err);
    return code ? code : check_dataset(t, err);
}

int lk_trainer_resume(struct lk_store *store, struct lk_math *math, struct lk_comm *comm, const char *name,
                      const struct lk_train_hooks *hooks, struct lk_trainer **out, struct lk_err *err) {
    struct lk_err own; /* the ranks agree on a message: there must be one */
    if (!err) err = &own;
    struct lk_trainer *t = lk__trainer_new(store, math, comm, hooks, err);
    if (!t) return LK_ENOMEM;
    LK_ASSERT(t->rank == 0);
    int code = open_together(t, reopen(t, name, err), err);
    if (!code) {
        int put = LK_OK;
        json_object_del(t->record, "error");
        json_object_del(t->record, "profile"); /* of the steps before */
        if (lk__trainer_set(t, "state", "running"))
            put = lk_fail(err, LK_ENOMEM, "no memory for the run's record");
        else
            put = lk__trainer_put_record(t, false, err);
        code = lk_comm_agree(t->comm, "resuming the run", put, err);
    }
    if (code) {
        lk_trainer_free(t);
        return code;
    }
    if (t->hooks.resumed) t->hooks.resumed(t->hooks.arg, lk__trainer_step(t));
    *out = t;
    return LK_OK;
}

int lk_trainer_join(struct lk_store *store, struct lk_math *math, struct lk_comm *comm, const struct lk_train_hooks *hooks,
                    struct lk_trainer **out, struct lk_err *err) {
    struct lk_err own; /* the ranks agree on a message: there must be one */
    if (!err) err = &own;
    struct lk_trainer *t = lk__trainer_new(store, math, comm, hooks, err);
    if (!t) return LK_ENOMEM;
    LK_ASSERT(t->rank > 0);
    int code = open_together(t, LK_OK, err);
    if (!code) code = lk_comm_agree(t->comm, "joining the run", LK_OK, err);
    if (code)
        lk_trainer_free(t);
    else
        *out = t;
    return code;
}

void lk_trainer_free(struct lk_trainer *t) {
    if (!t) return;
    lk__train_saver_close(t->saver);
    lk__train_ledger_close(t->ledger);
    lk_state_release(&t->state); /* its weights are the engine's */
    lk__train_engine_close(&t->engine);
    lk_dataset_close(t->dataset);
    lk_run_close(&t->run);
    json_decref(t->record);
    lk_lease_release(t->lease, false);
    lk_comm_close(t->own_comm);
    lk_free(t);
}
