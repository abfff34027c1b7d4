/* A run's configuration from an INI file: each key parsed by its row of the table, defaults filled in, the whole checked.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "a, b or c" for messages. */
static void list_words(const char *words, char *out, size_t size) {
    size_t n = 0;
    for (const char *p = words; *p && n + 3 < size; p++) {
        if (*p == '|')
            n += (size_t)snprintf(out + n, size - n, strchr(p + 1, '|') ? ", " : " or ");
        else
            out[n++] = *p;
    }
    out[n] = 0;
}

static int parse_number(const struct lk_option *o, const char *value, const char *where, double *out, struct lk_err *err) {
    char *end;
    errno = 0;
    double v = strtod(value, &end);
    if (end == value || *end || errno == ERANGE || v != v)
        return lk_fail(err, LK_EINVAL, "%s: %s.%s = \"%s\" is not a number", where, o->section, o->key, value);
    if (v < o->low || v > o->high)
        return lk_fail(err, LK_EINVAL, "%s: %s.%s = %s is out of range: it must lie in %.15g .. %.15g", where, o->section,
                       o->key, value, o->low, o->high);
    if (o->type != LK_O_F64 && (strspn(value, "0123456789") != strlen(value) || strlen(value) > 15))
        return lk_fail(err, LK_EINVAL, "%s: %s.%s = %s must be a whole number", where, o->section, o->key, value);
    *out = v;
    return LK_OK;
}

static int enum_value(const struct lk_option *o, const char *value) {
    int index = 0;
    for (const char *p = o->words;; index++) {
        size_t n = strcspn(p, "|");
        if (strlen(value) == n && strncmp(p, value, n) == 0) return index;
        if (!p[n]) return -1;
        p += n + 1;
    }
}

int lk__train_option_set(struct lk_run_config *c, const struct lk_option *o, const char *value, const char *where,
                         struct lk_err *err) {
    char *field = (char *)c + o->offset, words[128];
    double number = 0;
    int code;
    switch (o->type) {
    case LK_O_U32:
    case LK_O_U64:
    case LK_O_F64:
        if ((code = parse_number(o, value, where, &number, err))) return code;
        if (o->type == LK_O_U32)
            *(uint32_t *)field = (uint32_t)number;
        else if (o->type == LK_O_U64)
            *(uint64_t *)field = (uint64_t)number;
        else
            *(double *)field = number;
        return LK_OK;
    case LK_O_BOOL:
        if (strcmp(value, "true") == 0 || strcmp(value, "yes") == 0 || strcmp(value, "1") == 0)
            *(bool *)field = true;
        else if (strcmp(value, "false") == 0 || strcmp(value, "no") == 0 || strcmp(value, "0") == 0)
            *(bool *)field = false;
        else
            return lk_fail(err, LK_EINVAL, "%s: %s.%s = \"%s\" must be true or false", where, o->section, o->key, value);
        return LK_OK;
    case LK_O_ENUM:
        if ((code = enum_value(o, value)) < 0) {
            list_words(o->words, words, sizeof words);
            return lk_fail(err, LK_EINVAL, "%s: %s.%s = \"%s\" must be %s", where, o->section, o->key, value, words);
        }
        *(uint32_t *)field = (uint32_t)code;
        return LK_OK;
    case LK_O_NAME:
        if (!lk_name_valid(value))
            return lk_fail(err, LK_EINVAL,
                           "%s: %s.%s = \"%s\" is not a name: 1 to %d of A-Z a-z 0-9 . _ -, not starting with . or -",
                           where, o->section, o->key, value, LK_NAME_MAX);
        /* fall through */
    case LK_O_TEXT:
        if (strlen(value) >= o->size)
            return lk_fail(err, LK_EINVAL, "%s: %s.%s is longer than %zu bytes", where, o->section, o->key, o->size - 1);
        strcpy(field, value);
        return LK_OK;
    }
    return LK_OK;
}

static void name_from_file(const char *file, char *out) {
    const char *base = strrchr(file, '/') ? strrchr(file, '/') + 1 : file;
    size_t n = strlen(base);
    if (n > 4 && strcmp(base + n - 4, ".ini") == 0) n -= 4;
    if (n > LK_NAME_MAX) n = LK_NAME_MAX;
    memcpy(out, base, n);
    out[n] = 0;
    if (!lk_name_valid(out)) out[0] = 0;
}

/* The model says what it is. */
static int check_from(const struct lk_ini *ini, struct lk_err *err) {
    const struct lk_ini_entry *from = lk_ini_find(ini, "model", "from");
    for (size_t i = 0; i < ini->count; i++) {
        const struct lk_ini_entry *e = &ini->entries[i];
        if (strcmp(e->section, "model") || strcmp(e->key, "from") == 0 || strcmp(e->key, "optimizer") == 0) continue;
        return lk_fail(err, LK_EINVAL,
                       "%s: model.%s is given by model.from (%s): leave it out (batch.context sets the length of "
                       "sequences); to go on from a run with other keys, `lockstep train --from %.120s key=value` needs no "
                       "file",
                       e->where, e->key, from->where, from->value);
    }
    return LK_OK;
}

/* Each key of the file or the command line into its field. */
int lk__train_config_set(struct lk_run_config *c, const struct lk_ini *ini, struct lk_err *err) {
    for (size_t i = 0; i < ini->count; i++) {
        const struct lk_ini_entry *e = &ini->entries[i];
        size_t j = 0;
        while (j < LK__TRAIN_OPTIONS &&
               (strcmp(lk__train_options[j].section, e->section) || strcmp(lk__train_options[j].key, e->key)))
            j++;
        if (j == LK__TRAIN_OPTIONS) return lk__train_unknown_key(e, err);
        int code = lk__train_option_set(c, &lk__train_options[j], e->value, e->where, err);
        if (code) return code;
    }
    return LK_OK;
}

int lk_run_config_read(const struct lk_ini *ini, struct lk_run_config *out, struct lk_err *err) {
    LK_NUMERIC_SCOPE();
    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < LK__TRAIN_OPTIONS; i++)
        if (*lk__train_options[i].fallback)
            lk__train_option_set(out, &lk__train_options[i], lk__train_options[i].fallback, "default", NULL);
    out->warmup = out->decay = out->eval_every = out->checkpoint_every = UINT32_MAX; /* "not given" */
    if (ini->name) name_from_file(ini->name, out->name);
    int code = lk__train_config_set(out, ini, err);
    if (code) return code;
    if (!out->dataset[0])
        return lk_fail(err, LK_EINVAL, "%s: data.dataset is missing: name a dataset (`lockstep dataset list` shows them)",
                       ini->name);
    if (!out->name[0])
        return lk_fail(err, LK_EINVAL, "%s: the file's name is no valid run name: pass run.name=NAME", ini->name);
    return out->from[0] ? check_from(ini, err) : LK_OK;
}

static uint32_t or_else(uint32_t value, uint32_t fallback) {
    return value == UINT32_MAX ? fallback : value;
}

uint32_t lk__train_grains(uint32_t sequences) {
    uint32_t grains = 8;
    while (sequences % grains) grains /= 2;
    return grains;
}
uint32_t lk__train_ffn(const struct lk_run_config *c) {
    return c->family == LK_GPT2 ? 4 * c->width : (uint32_t)(((uint64_t)c->width * 8 + 2) / 3 + 31) / 32 * 32;
}
uint32_t lk__train_heads(const struct lk_run_config *c) {
    return c->width >= 128 ? c->width / 64 : 1;
}
uint32_t lk__train_tenth(const struct lk_run_config *c) {
    return c->steps >= 10 ? c->steps / 10 : c->steps;
}

uint32_t lk__train_cooldown(const struct lk_run_config *c) {
    return c->decay >= 10 ? c->decay / 5 : 1;
}

static int resolve_cooldown(struct lk_run_config *c, struct lk_err *err) {
    if (c->schedule != LK_WSD && c->cooldown)
        return lk_fail(err, LK_EINVAL,
                       "optimizer.cooldown = %u is a key of optimizer.schedule = wsd alone: choose that schedule, or leave "
                       "the cooldown out",
                       c->cooldown);
    if (c->schedule != LK_WSD) return LK_OK;
    if (!c->cooldown) c->cooldown = lk__train_cooldown(c);
    if ((uint64_t)c->warmup + c->cooldown > c->decay)
        return lk_fail(err, LK_EINVAL,
                       "optimizer.warmup = %u and optimizer.cooldown = %u are more than the %u steps of optimizer.decay "
                       "(run.steps by default), in which schedule = wsd warms up and cools down: give a shorter warmup or "
                       "cooldown, or a later decay",
                       c->warmup, c->cooldown, c->decay);
    return LK_OK;
}

int lk_run_config_resolve(struct lk_run_config *c, uint32_t tokenizer_vocab, struct lk_err *err) {
    if (!c->heads) c->heads = lk__train_heads(c);
    if (!c->kv_heads) c->kv_heads = c->heads;
    if (!c->head_dim && c->width % c->heads == 0) c->head_dim = c->width / c->heads;
    if (!c->ffn) c->ffn = lk__train_ffn(c);
    if (!c->vocab) c->vocab = tokenizer_vocab;
    if (c->vocab < tokenizer_vocab)
        return lk_fail(err, LK_EINVAL,
                       "model.vocab = %u is smaller than the tokenizer's %u tokens; leave it out or give at least %u",
                       c->vocab, tokenizer_vocab, tokenizer_vocab);
    if (!c->grains) c->grains = lk__train_grains(c->sequences);
    if (c->sequences % c->grains)
        return lk_fail(err, LK_EINVAL, "batch.grains = %u must divide batch.sequences = %u", c->grains, c->sequences);
    uint32_t context = lk_run_config_context(c);
    if (context > c->context)
        return lk_fail(err, LK_EINVAL, "batch.context = %u is more than the model's context of %u", context, c->context);
    if ((uint64_t)c->sequences * context > UINT32_MAX)
        return lk_fail(err, LK_EINVAL, "batch.sequences = %u times a context of %u is more than %u tokens a batch",
                       c->sequences, context, UINT32_MAX);
    if (c->optimizer_from == LK_OPTIMIZER_KEEP && !c->from[0])
        return lk_fail(err, LK_EINVAL, "model.optimizer = keep wants model.from, the run whose optimizer goes on");
    c->warmup = or_else(c->warmup, c->steps / 20);
    if (c->warmup > c->steps)
        return lk_fail(err, LK_EINVAL,
                       "optimizer.warmup = %u is more than run.steps = %u: the rate would never reach "
                       "optimizer.learning_rate; give a shorter warmup, or none for steps / 20",
                       c->warmup, c->steps);
    c->decay = or_else(c->decay, c->steps);
    if (!c->decay) c->decay = c->steps;
    int code = resolve_cooldown(c, err);
    if (code) return code;
    c->eval_every = or_else(c->eval_every, lk__train_tenth(c));
    c->checkpoint_every = or_else(c->checkpoint_every, lk__train_tenth(c));
    struct lk_model_config m = lk_run_config_model(c);
    return lk_model_config_check(&m, err);
}

struct lk_model_config lk_run_config_model(const struct lk_run_config *c) {
    return (struct lk_model_config){.family = (enum lk_family)c->family,
                                    .layers = c->layers,
                                    .width = c->width,
                                    .heads = c->heads,
                                    .kv_heads = c->kv_heads,
                                    .head_dim = c->head_dim,
                                    .ffn = c->ffn,
                                    .context = c->context,
                                    .vocab = c->vocab,
                                    .tied = c->tied,
                                    .norm_epsilon = c->norm_epsilon,
                                    .rope_theta = c->rope_theta,
                                    .init_std = c->init_std,
                                    .qkv_bias = c->qkv_bias,
                                    .qk_norm = c->qk_norm,
                                    .window = c->window,
                                    .rope_factor = c->rope_factor,
                                    .rope_low = c->rope_factor > 0 ? c->rope_low : 0,
                                    .rope_high = c->rope_factor > 0 ? c->rope_high : 0,
                                    .rope_original = c->rope_factor > 0 ? c->rope_original : 0};
}

void lk_run_config_set_model(struct lk_run_config *c, const struct lk_model_config *m) {
    struct lk_run_config old = *c;
    c->family = m->family;
    c->layers = m->layers, c->width = m->width, c->heads = m->heads, c->kv_heads = m->kv_heads, c->head_dim = m->head_dim;
    c->ffn = m->ffn, c->context = m->context, c->vocab = m->vocab, c->tied = m->tied;
    c->norm_epsilon = m->norm_epsilon, c->rope_theta = m->rope_theta, c->init_std = m->init_std;
    c->qkv_bias = m->qkv_bias, c->qk_norm = m->qk_norm, c->window = m->window, c->rope_factor = m->rope_factor;
    bool scaled = m->rope_factor > 0;
    c->rope_low = scaled ? m->rope_low : old.rope_low, c->rope_high = scaled ? m->rope_high : old.rope_high;
    c->rope_original = scaled ? m->rope_original : old.rope_original;
}
