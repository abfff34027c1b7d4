/* What a run begins with: weights from its seed, or those of a model or a run's checkpoint. */
#include "initial.h"
#include "state.h"

#include "lockstep/store/uploads.h"

#include <stdio.h>
#include <string.h>

#define UNKNOWN UINT64_MAX

/* --- When the run is made -------------------------------------------------------------------------------- */

static int check_tokenizer(const struct lk_run *run, const struct lk_model *m, bool is_run, struct lk_err *err) {
    if (!m->has_tokenizer || lk_root_equal(&m->tokenizer_root, &run->tokenizer)) return LK_OK;
    return lk_fail(
        err, LK_EINVAL,
        "dataset %s was made with another tokenizer than the one that model.from = %s learned with: make it with "
        "`lockstep dataset build --tokenizer %s%s`",
        run->config.dataset, run->config.from,
        strchr(run->config.from, ':') ? ""
        : is_run                      ? "run:"
                                      : "model:",
        run->config.from);
}

static int keep_optimizer(struct lk_store *store, struct lk_run *run, const struct lk_model_ref *ref, struct lk_err *err) {
    static const struct lk_root none;
    json_t *manifest = NULL;
    if (!ref->is_run)
        return lk_fail(err, LK_EINVAL, "model.optimizer = keep: %s is a model, and only runs have an optimizer's state",
                       run->config.from);
    if (lk_root_equal(&ref->state, &none))
        return lk_fail(
            err, LK_EINVAL,
            "model.optimizer = keep: %s began with weights and no optimizer's state; give model.optimizer = fresh, "
            "or a later step",
            run->config.from);
    int code = lk_manifest_get(store, &ref->state, "checkpoint", &manifest, err);
    if (!code) code = lk_json_get_u64(manifest, "updates", "the checkpoint's manifest", &run->updates_before, err);
    if (!code) code = lk_json_get_u64(manifest, "samples", "the checkpoint's manifest", &run->samples_before, err);
    json_decref(manifest);
    run->from = LK_FROM_STATE;
    run->initial_state = ref->state;
    return code;
}

static int begin_once(const struct lk__train_origin *o, struct lk_run *run, struct lk_model_ref *ref, struct lk_err *err) {
    struct lk_store *store = o->store;
    struct lk_model m;
    int code = lk_model_find(store, run->config.from, false, o->warning, o->arg, ref, &m, err);
    if (code) return lk_fail_prefix(err, code, "model.from");
    if (m.layout.narrow) {
        code = lk_fail(
            err, LK_EUNSUPPORTED,
            "model.from: %s has weights in %s, which cannot be trained: begin with the model that it was made from, "
            "and quantize the result",
            run->config.from, lk_dtype_name(m.narrow_matrices));
        lk_model_close(&m);
        return code;
    }
    lk_run_config_set_model(&run->config, &m.layout.config);
    if (ref->is_run) {
        snprintf(run->config.parent, sizeof run->config.parent, "%s", ref->name);
        run->config.parent_step = ref->step;
    }
    run->from = LK_FROM_WEIGHTS;
    run->initial_weights = m.weights_root;
    code = check_tokenizer(run, &m, ref->is_run, err);
    if (!code)
        code = o->dry ? lk_manifest_root(m.manifest, &run->initial_model, err)
                      : lk_manifest_put(store, m.manifest, &run->initial_model, err);
    if (!code && run->config.optimizer_from == LK_OPTIMIZER_KEEP) code = keep_optimizer(store, run, ref, err);
    lk_model_close(&m);
    return code ? code : lk__train_run_initial_check(store, NULL, run, err);
}

static bool names_a_step(const char *from) {
    const char *at = strchr(from, '@');
    return at && strcmp(at, "@best") != 0;
}

int lk__train_run_begin_from(const struct lk__train_origin *o, struct lk_run *run, struct lk_err *err) {
    struct lk_model_ref ref = {0};
    int code = LK_ENOTFOUND;
    /* A run in training may prune the checkpoint that we look at: then there is a newer or a better one. */
    for (int i = 0; i < 5 && code == LK_ENOTFOUND && (i == 0 || (ref.is_run && !names_a_step(run->config.from))); i++)
        code = begin_once(o, run, &ref, err);
    return code;
}

static int check_blob(struct lk_store *store, struct lk_kv_txn *txn, const struct lk_run *run, const struct lk_root *root,
                      struct lk_err *err) {
    int code = txn                                  ? lk_store_still_there(store, txn, root, 1, err)
               : lk_blob_exists(store->blobs, root) ? LK_OK
                                                    : LK_ENOTFOUND;
    if (code != LK_ENOTFOUND) return code;
    return lk_fail(
        err, LK_ENOTFOUND,
        "what model.from = %s named was removed meanwhile by its run, which prunes checkpoints: try again, or let "
        "it keep more (checkpoint.keep)",
        run->config.from);
}

int lk__train_run_initial_check(struct lk_store *store, struct lk_kv_txn *txn, const struct lk_run *run,
                                struct lk_err *err) {
    if (run->from == LK_FROM_SEED) return LK_OK;
    int code = check_blob(store, txn, run, &run->initial_weights, err);
    return code || run->from != LK_FROM_STATE ? code : check_blob(store, txn, run, &run->initial_state, err);
}

/* --- In the record --------------------------------------------------------------------------------------- */

json_t *lk__train_run_initial_json(const struct lk_run *run) {
    char model[LK_ROOT_HEX], weights[LK_ROOT_HEX], state[LK_ROOT_HEX];
    if (run->from == LK_FROM_SEED) return json_null();
    return json_pack("{s:s, s:s, s:s?, s:I, s:I}", "model", lk_root_hex(&run->initial_model, model), "weights",
                     lk_root_hex(&run->initial_weights, weights), "state",
                     run->from == LK_FROM_STATE ? lk_root_hex(&run->initial_state, state) : NULL, "updates",
                     (json_int_t)run->updates_before, "samples", (json_int_t)run->samples_before);
}

static bool read_root(const json_t *initial, const char *key, struct lk_root *out) {
    const char *hex = json_string_value(json_object_get(initial, key));
    return hex && lk_root_parse(hex, out);
}

int lk__train_run_initial_read(const json_t *initial, struct lk_run *run, struct lk_err *err) {
    if (!initial || json_is_null(initial)) return LK_OK;
    bool state = json_is_string(json_object_get(initial, "state"));
    run->from = state ? LK_FROM_STATE : LK_FROM_WEIGHTS;
    if (!read_root(initial, "model", &run->initial_model) || !read_root(initial, "weights", &run->initial_weights) ||
        (state && !read_root(initial, "state", &run->initial_state)))
        return lk_fail(err, LK_ECORRUPT, "the run's record has no good value for what it began with");
    if (state && !json_object_get(initial, "samples")) /* of an older release */
        run->samples_before = UNKNOWN;
    else if (state && lk_json_get_u64(initial, "samples", "the run's record", &run->samples_before, err))
        return LK_ECORRUPT;
    return lk_json_get_u64(initial, "updates", "the run's record", &run->updates_before, err);
}

int lk__train_run_initial_complete(struct lk_store *store, struct lk_run *run, struct lk_err *err) {
    json_t *manifest = NULL;
    if (run->samples_before != UNKNOWN) return LK_OK;
    int code = lk_manifest_get(store, &run->initial_state, "checkpoint", &manifest, err);
    if (!code) code = lk_json_get_u64(manifest, "samples", "the checkpoint's manifest", &run->samples_before, err);
    json_decref(manifest);
    return code ? lk_fail_prefix(err, code, "what the run began with") : LK_OK;
}

/* --- The state ------------------------------------------------------------------------------------------- */

int lk__train_state_begin(struct lk_store *store, struct lk_math *math, const struct lk_run *run, bool fill,
                          struct lk_state *s, struct lk_err *err) {
    size_t bytes = (s->shards ? s->shards->floats : run->layout.floats) * sizeof(float);
    s->samples_before = run->samples_before;
    if (run->from == LK_FROM_STATE) return lk_checkpoint_load(store, &run->initial_state, s, err);
    memset(s->moments1, 0, bytes);
    memset(s->moments2, 0, bytes);
    s->updates = s->samples = 0;
    if (run->from == LK_FROM_WEIGHTS) return lk__train_weights_load(store, &run->initial_weights, s, err);
    if (fill) lk_layout_initialise(&run->layout, math, run->config.seed, s->weights);
    return LK_OK;
}
