/* From a name to a model: one of the store's, or a run's checkpoint seen as one. */
#include "lockstep/train/train.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct search {
    struct lk_store *store;
    struct lk_model_ref *ref;
    bool step_given, best, only_run, only_model;
    void (*warning)(void *arg, const char *message);
    void *arg;
    struct lk_err *err;
};

static int parse(struct search *s, const char *text) {
    const char *name = text, *at;
    if ((s->only_run = strncmp(text, "run:", 4) == 0)) name += 4;
    if ((s->only_model = strncmp(text, "model:", 6) == 0)) name += 6;
    size_t n = strcspn(name, "@");
    at = name + n;
    if (n > LK_NAME_MAX)
        return lk_fail(s->err, LK_EINVAL, "\"%.40s...\" is no name of a model or run: it is too long", name);
    memcpy(s->ref->name, name, n);
    s->ref->name[n] = 0;
    if (!lk_name_valid(s->ref->name)) return lk_fail(s->err, LK_EINVAL, "\"%.80s\" is no name of a model or run", text);
    if (!*at) return LK_OK;
    at++;
    s->best = strcmp(at, "best") == 0 && !s->only_model;
    if (s->best) return s->only_run = true, LK_OK;
    if (!*at || strlen(at) > 9 || strspn(at, "0123456789") != strlen(at) || s->only_model)
        return lk_fail(s->err, LK_EINVAL, "\"%.80s\": after RUN@ comes the number of a step, or best", text);
    s->ref->step = (uint32_t)atoi(at);
    s->step_given = s->only_run = true;
    return LK_OK;
}

/* Which of the two it is, and the model's root. */
static int decide(struct search *s, struct lk_root *root) {
    json_t *record = NULL;
    struct lk_err model_err = {0}, run_err = {0};
    const char *name = s->ref->name;
    int model = s->only_run ? LK_ENOTFOUND : lk_store_name_get(s->store, "model", name, root, &model_err);
    int run = s->only_model ? LK_ENOTFOUND : lk_run_get(s->store, name, &record, &run_err);
    json_decref(record);
    s->ref->is_run = run == LK_OK;
    if (model == LK_OK && run == LK_OK)
        return lk_fail(s->err, LK_EINVAL, "%s is a run and a model: say run:%s or model:%s", name, name, name);
    if (model == LK_OK || run == LK_OK) return LK_OK;
    if (model != LK_ENOTFOUND) return lk_fail(s->err, model, "%s", model_err.message);
    if (run != LK_ENOTFOUND) return lk_fail(s->err, run, "%s", run_err.message);
    if (s->only_model) return lk_fail(s->err, model, "%s", model_err.message);
    if (s->only_run) return lk_fail(s->err, run, "%s", run_err.message);
    bool asks = strchr(run_err.message, '?') != NULL; /* "did you mean ...?" stands last */
    return lk_fail(s->err, LK_ENOTFOUND, "%s; %s", asks ? model_err.message : run_err.message,
                   asks ? run_err.message : model_err.message);
}

/* --- A run's checkpoint ---------------------------------------------------------------------------------- */

/* What a run inherited from the model that it began with: its type, its files, the ids that end a text. */
static json_t *manifest_of(const struct lk_run *run, const struct lk_checkpoint *c, json_t *initial, enum lk_chat chat) {
    struct lk_model_config m = lk_run_config_model(&run->config);
    char hex[LK_ROOT_HEX];
    json_t *manifest;
    if (!initial)
        return lk_model_manifest(&(struct lk_model_parts){.config = &m,
                                                          .weights = &c->weights,
                                                          .tokenizer = &run->tokenizer,
                                                          .begin = UINT32_MAX,
                                                          .text_begin = UINT32_MAX,
                                                          .chat = chat});
    manifest = json_deep_copy(initial);
    if (manifest && !json_is_string(json_object_get(manifest, "tokenizer")) &&
        json_object_set_new(manifest, "tokenizer", json_string(lk_root_hex(&run->tokenizer, hex)))) {
        json_decref(manifest);
        return NULL;
    }
    bool bad = !manifest || json_object_set_new(manifest, "weights", json_string(lk_root_hex(&c->weights, hex)));
    if (!bad && chat) bad = json_object_set_new(manifest, "template", json_string(lk_chat_name(chat)));
    if (!bad) return manifest;
    json_decref(manifest);
    return NULL;
}

/* The template of the conversations that a run learned, by its dataset's recipe; none where the dataset is gone. */
static enum lk_chat template_of(struct lk_store *store, const struct lk_run *run) {
    json_t *m = NULL;
    if (lk_manifest_get(store, &run->dataset, "dataset", &m, NULL)) return LK_CHAT_NONE;
    const char *name = json_string_value(json_object_get(json_object_get(m, "recipe"), "template"));
    enum lk_chat chat = name ? lk_chat_named(name) : LK_CHAT_NONE;
    json_decref(m);
    return chat;
}

static int no_checkpoint(struct search *s, const struct lk_checkpoint *list, size_t count) {
    char kept[200] = "";
    size_t n = 0;
    for (size_t i = count; i-- > 0 && n < 150;)
        if (list[i].kept) n += (size_t)snprintf(kept + n, sizeof kept - n, "%s%u", n ? ", " : "", list[i].step);
    if (s->step_given)
        return lk_fail(s->err, LK_ENOTFOUND, "run %s keeps no checkpoint of step %u; it has those of %s", s->ref->name,
                       s->ref->step, n ? kept : "none");
    return lk_fail(s->err, LK_ENOTFOUND,
                   "run %s has no checkpoint yet: it is written every checkpoint.every steps and at the end", s->ref->name);
}

static int open_checkpoint(struct search *s, const struct lk_run *run, const struct lk_checkpoint *c, bool weights,
                           struct lk_model *out) {
    json_t *initial = NULL;
    int code = LK_OK;
    if (run->from != LK_FROM_SEED) code = lk_manifest_get(s->store, &run->initial_model, "model", &initial, s->err);
    if (!code)
        code = lk_model_open(s->store, manifest_of(run, c, initial, template_of(s->store, run)), weights, out, s->err);
    json_decref(initial);
    return code;
}

/* RUN@0 of a run that began with a model or a checkpoint: the run's own record and blobs say what that was. */
static bool names_beginning(const struct search *s, const struct lk_run *run) {
    return s->step_given && !s->best && s->ref->step == 0 && run->from != LK_FROM_SEED;
}
static int open_beginning(struct search *s, const struct lk_run *run, bool weights, struct lk_model *out) {
    if (run->from == LK_FROM_STATE) s->ref->state = run->initial_state;
    return lk_model_open_root(s->store, &run->initial_model, weights, out, s->err);
}

static int open_run(struct search *s, bool weights, struct lk_model *out) {
    struct lk_checkpoint *list = NULL;
    struct lk_run run;
    size_t count = 0;
    int code = lk_run_open(s->store, s->ref->name, &run, s->err);
    bool beginning = !code && names_beginning(s, &run);
    if (beginning) code = open_beginning(s, &run, weights, out);
    if (!code && !beginning) code = lk_run_checkpoints(s->store, s->ref->name, &list, &count, s->err);
    if (!code && !beginning) {
        code = no_checkpoint(s, list, count);
        for (size_t i = count; i-- > 0 && code;) {
            if (!list[i].kept || (s->step_given && list[i].step != s->ref->step)) continue;
            s->ref->step = list[i].step;
            s->ref->state = list[i].state;
            code = open_checkpoint(s, &run, &list[i], weights, out);
            if (code != LK_ECORRUPT || s->step_given) break;
            char text[900];
            snprintf(text, sizeof text, "checkpoint of step %u: %s; trying the one before", list[i].step, s->err->message);
            if (s->warning) s->warning(s->arg, text);
        }
    }
    lk_free(list);
    lk_run_close(&run);
    return code;
}

/* No other will do when it is damaged. */
static int open_best(struct search *s, bool weights, struct lk_model *out) {
    struct lk_checkpoint best;
    int code = LK_OK;
    s->step_given = true;
    for (int i = 0; i < 5; i++) { /* pruned meanwhile by its training: there is a better one */
        code = lk_run_best(s->store, s->ref->name, &best, s->err);
        if (code) return code;
        s->ref->step = best.step;
        code = open_run(s, weights, out);
        if (code != LK_ENOTFOUND) break;
    }
    return code;
}

int lk_model_find(struct lk_store *store, const char *text, bool weights, void (*warning)(void *arg, const char *message),
                  void *arg, struct lk_model_ref *ref, struct lk_model *out, struct lk_err *err) {
    struct lk_err own; /* messages are passed on: there must be one */
    struct search s = {.store = store, .ref = ref, .warning = warning, .arg = arg, .err = err ? err : &own};
    struct lk_root root;
    *ref = (struct lk_model_ref){0};
    *out = (struct lk_model){0};
    int code = parse(&s, text);
    if (!code) code = decide(&s, &root);
    if (code) return code;
    if (!ref->is_run) return lk_model_open_root(store, &root, weights, out, s.err);
    if (s.best) return open_best(&s, weights, out);
    code = open_run(&s, weights, out);
    if (code == LK_ENOTFOUND && ref->step && !s.step_given)
        code = open_run(&s, weights, out); /* pruned meanwhile by its training: there is a newer one */
    return code;
}
