/* A run's configuration in its record, and the identity that follows from it (docs/formats.md). */
#include "config.h"

#include <stdio.h>
#include <string.h>

static json_t *option_json(const struct lk_run_config *c, const struct lk_option *o) {
    const char *field = (const char *)c + o->offset;
    switch (o->type) {
    case LK_O_U32:
        return json_integer(*(const uint32_t *)field);
    case LK_O_U64:
        return json_integer((json_int_t) * (const uint64_t *)field);
    case LK_O_F64:
        return lk_json_float(*(const double *)field);
    case LK_O_BOOL:
        return json_boolean(*(const bool *)field);
    case LK_O_ENUM: {
        const char *p = o->words;
        for (uint32_t i = *(const uint32_t *)field; i > 0; i--) p = strchr(p, '|') + 1;
        return json_stringn(p, strcspn(p, "|"));
    }
    default:
        return json_string(field);
    }
}

static bool is_fallback(const struct lk_run_config *c, const struct lk_option *o) {
    struct lk_run_config d;
    memset(&d, 0, sizeof d);
    if (*o->fallback) lk__train_option_set(&d, o, o->fallback, "default", NULL);
    return memcmp((const char *)c + o->offset, (const char *)&d + o->offset, o->size) == 0;
}

static json_t *config_json(const struct lk_run_config *c, bool identity_only) {
    json_t *all = json_object();
    for (size_t i = 0; all && i < LK__TRAIN_OPTIONS; i++) {
        const struct lk_option *o = &lk__train_options[i];
        if (identity_only && (!(o->flags & LK_O_IDENTITY) || (o->flags & LK_O_LATER && is_fallback(c, o)))) continue;
        json_t *section = json_object_get(all, o->section);
        if (!section) {
            section = json_object();
            if (json_object_set_new(all, o->section, section)) goto failed;
        }
        if (json_object_set_new(section, o->key, option_json(c, o))) goto failed;
    }
    return all;
failed:
    json_decref(all);
    return NULL;
}

json_t *lk_run_config_json(const struct lk_run_config *c) {
    return config_json(c, false);
}

static int option_from_json(struct lk_run_config *c, const struct lk_option *o, const json_t *v, struct lk_err *err) {
    char *field = (char *)c + o->offset;
    char text[64];
    switch (o->type) {
    case LK_O_U32:
    case LK_O_U64:
        if (!json_is_integer(v) || json_integer_value(v) < 0) break;
        snprintf(text, sizeof text, "%lld", (long long)json_integer_value(v));
        return lk__train_option_set(c, o, text, "record", err);
    case LK_O_F64:
        if (lk_json_float_parse(v, (double *)field)) break;
        return LK_OK;
    case LK_O_BOOL:
        if (!json_is_boolean(v)) break;
        *(bool *)field = json_is_true(v);
        return LK_OK;
    default:
        if (!json_is_string(v)) break;
        return o->type == LK_O_TEXT && !*json_string_value(v)
                   ? LK_OK
                   : lk__train_option_set(c, o, json_string_value(v), "record", err);
    }
    return lk_fail(err, LK_ECORRUPT, "the run's record has no good value for %s.%s", o->section, o->key);
}

int lk_run_config_from_json(const json_t *all, struct lk_run_config *out, struct lk_err *err) {
    LK_NUMERIC_SCOPE();
    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < LK__TRAIN_OPTIONS; i++) {
        const json_t *v = json_object_get(json_object_get(all, lk__train_options[i].section), lk__train_options[i].key);
        if (!v && (lk__train_options[i].flags & LK_O_LATER)) {
            if (*lk__train_options[i].fallback)
                lk__train_option_set(out, &lk__train_options[i], lk__train_options[i].fallback, "default", NULL);
            continue;
        }
        int code = option_from_json(out, &lk__train_options[i], v, err);
        if (code) return code;
    }
    return LK_OK;
}

int lk_run_identity(const struct lk_run_config *c, const struct lk_root *dataset, const struct lk_root *initial,
                    struct lk_root *out, struct lk_err *err) {
    LK_NUMERIC_SCOPE();
    char hex[LK_ROOT_HEX], initial_hex[LK_ROOT_HEX];
    struct lk_buf text = LK_BUF_INIT;
    json_t *all = config_json(c, true), *run = json_object_get(all, "run");
    int code = LK_ENOMEM;
    if (all && !json_object_set_new(all, "dataset", json_string(lk_root_hex(dataset, hex))) &&
        !json_object_set_new(all, "initial", initial ? json_string(lk_root_hex(initial, initial_hex)) : json_null()) &&
        !json_object_set_new(all, "numerics", json_string(LK_NUMERICS)) &&
        !json_object_set_new(all, "seed", json_incref(json_object_get(run, "seed"))) &&
        !json_object_set_new(all, "steps", json_incref(json_object_get(run, "steps"))) && !json_object_del(all, "run"))
        code = lk_json_canonical(all, &text, err);
    if (code == LK_OK)
        lk_sha256(text.data, text.size, out);
    else if (code == LK_ENOMEM)
        lk_fail(err, code, "no memory for the run's identity");
    json_decref(all);
    lk_buf_release(&text);
    return code;
}
