/* The configuration of a run that goes on from another one's record, with some keys changed. */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A record has every key filled in. What is as it would have been by default is left open again, so that it follows the
 * keys that change: a longer run decays later. */
static void reopen_defaults(struct lk_run_config *c) {
    if (c->warmup == c->steps / 20) c->warmup = UINT32_MAX;
    if (c->cooldown == lk__train_cooldown(c)) c->cooldown = 0;
    if (c->decay == c->steps) c->decay = UINT32_MAX;
    if (c->eval_every == lk__train_tenth(c)) c->eval_every = UINT32_MAX;
    if (c->checkpoint_every == lk__train_tenth(c)) c->checkpoint_every = UINT32_MAX;
    if (c->grains == lk__train_grains(c->sequences)) c->grains = 0;
    if (c->from[0]) return; /* [model] is that of another model or run */
    if (c->ffn == lk__train_ffn(c)) c->ffn = 0;
    if (c->head_dim * c->heads == c->width) c->head_dim = 0;
    if (c->kv_heads == c->heads) c->kv_heads = 0;
    if (c->heads == lk__train_heads(c)) c->heads = 0;
}

/* "RUN", "run:RUN", "RUN@STEP", "RUN@best": the run's name, and whether it is its beginning, RUN@0. */
static int parse(const char *text, char *name, bool *beginning, struct lk_err *err) {
    const char *run = strncmp(text, "run:", 4) == 0 ? text + 4 : text;
    size_t n = strcspn(run, "@");
    *beginning = strcmp(run + n, "@0") == 0;
    if (n <= LK_NAME_MAX) memcpy(name, run, n), name[n] = 0;
    if (n > LK_NAME_MAX || !lk_name_valid(name))
        return lk_fail(err, LK_EINVAL, "--from \"%.80s\" is neither RUN nor RUN@STEP (`lockstep runs list` shows runs)",
                       text);
    return LK_OK;
}

static int get_record(struct lk_store *store, const char *name, json_t **out, struct lk_err *err) {
    struct lk_root model;
    int code = lk_run_get(store, name, out, err);
    if (code == LK_ENOTFOUND && lk_store_name_get(store, "model", name, &model, NULL) == LK_OK)
        return lk_fail(
            err, code,
            "--from %s: this is a model, and only runs have a configuration to go on with; write an INI file with "
            "model.from = %s",
            name, name);
    return code ? lk_fail_prefix(err, code, "--from") : LK_OK;
}

static bool is_run(struct lk_store *store, const char *name) {
    json_t *record = NULL;
    int code = lk_run_get(store, name, &record, NULL);
    json_decref(record);
    return code == LK_OK || code == LK_ECORRUPT; /* a damaged one has its name too */
}

/* RUN-2, or the first number behind it that is free; a child of RUN-2 is RUN-3, where there is a RUN. */
static void next_name(struct lk_store *store, const char *parent, char *out) {
    char base[LK_NAME_MAX + 1];
    snprintf(base, sizeof base, "%s", parent);
    char *dash = strrchr(base, '-');
    if (dash && dash[1] && strspn(dash + 1, "0123456789") == strlen(dash + 1)) {
        *dash = 0;
        if (!is_run(store, base)) *dash = '-';
    }
    for (unsigned n = 2; n < 100000; n++) {
        char end[16];
        int size = snprintf(end, sizeof end, "-%u", n);
        snprintf(out, LK_NAME_MAX + 1, "%.*s%s", LK_NAME_MAX - size, base, end);
        if (!is_run(store, out)) return;
    }
}

/* Shape and weights belong together: only a run that begins anew may have others. */
static int check_overrides(const struct lk_ini *ini, const char *from, bool anew, struct lk_err *err) {
    for (size_t i = 0; i < ini->count; i++) {
        const struct lk_ini_entry *e = &ini->entries[i];
        if (strcmp(e->section, "model") || strcmp(e->key, "optimizer") == 0) continue;
        if (strcmp(e->key, "from") == 0)
            return lk_fail(err, LK_EINVAL, "%s: model.from is what --from %s says: leave one of them out", e->where, from);
        if (!anew)
            return lk_fail(
                err, LK_EINVAL,
                "%s: model.%s is given by the weights of --from %s: leave it out (batch.context sets the length of "
                "sequences), or begin anew with --from RUN@0, RUN a run that began from its seed",
                e->where, e->key, from);
    }
    return LK_OK;
}

/* Whether a key, but for the name, has another value than the child would have without it. */
static bool differs(const struct lk_ini *keys, const struct lk_run_config *parent, const struct lk_run_config *child) {
    for (size_t i = 0; i < LK__TRAIN_OPTIONS; i++) {
        const struct lk_option *o = &lk__train_options[i];
        const char *a = (const char *)parent + o->offset, *b = (const char *)child + o->offset;
        bool text = o->type == LK_O_NAME || o->type == LK_O_TEXT;
        if (!lk_ini_find(keys, o->section, o->key) || o->offset == offsetof(struct lk_run_config, name)) continue;
        if (text ? strcmp(a, b) : memcmp(a, b, o->size)) return true;
    }
    return false;
}

int lk_run_config_child(struct lk_store *store, const char *from, const struct lk_ini *keys, struct lk_run_config *out,
                        bool *changed, struct lk_err *err) {
    LK_NUMERIC_SCOPE();
    struct lk_run_config of_parent;
    json_t *record = NULL;
    char parent[LK_NAME_MAX + 1];
    bool beginning;
    int code = parse(from, parent, &beginning, err);
    if (!code) code = get_record(store, parent, &record, err);
    if (!code) code = lk_run_config_from_json(json_object_get(record, "config"), out, err);
    json_decref(record);
    if (code) return code;
    of_parent = *out;
    reopen_defaults(out);
    const struct lk_ini_entry *name = lk_ini_find(keys, "run", "name");
    if (!name) next_name(store, parent, out->name);
    if (beginning && out->from[0]) { /* its own record knows what it began with, whatever became of that name */
        snprintf(out->from, sizeof out->from, "run:%s@0", parent);
    } else if (!beginning) {
        snprintf(out->from, sizeof out->from, "%s%s", strpbrk(from, "@:") ? "" : "run:", from);
        out->optimizer_from = LK_OPTIMIZER_KEEP;
    }
    of_parent.optimizer_from = out->optimizer_from; /* what it is without a key */
    snprintf(out->parent, sizeof out->parent, "%s", parent);
    if ((code = check_overrides(keys, from, beginning && !out->from[0], err))) return code;
    code = lk__train_config_set(out, keys, err);
    if (out->schedule != LK_WSD && !lk_ini_find(keys, "optimizer", "cooldown")) out->cooldown = 0; /* the parent's */
    if (!code && changed) *changed = differs(keys, &of_parent, out);
    return code;
}
