/* The keys of a run's configuration: one table gives reading, defaults, checks, JSON, identity and documentation. */
#include "lockstep/train/train.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIELD(f) offsetof(struct lk_run_config, f), sizeof(((struct lk_run_config *)0)->f)
#define U32(s, k, f, fall, low, high, id, help)                                                                            \
    { s, k, LK_O_U32, FIELD(f), fall, low, high, NULL, id, help }
#define F64(s, k, f, fall, low, high, id, help)                                                                            \
    { s, k, LK_O_F64, FIELD(f), fall, low, high, NULL, id, help }
#define BOOL(s, k, f, fall, id, help)                                                                                      \
    { s, k, LK_O_BOOL, FIELD(f), fall, 0, 1, NULL, id, help }
#define MANY  2147483647.0
#define LATER (LK_O_IDENTITY | LK_O_LATER)

static const struct lk_option options[] = {
    {"run", "name", LK_O_NAME, FIELD(name), "", 0, 0, NULL, false,
     "the run's name; the file's name without .ini by default"},
    {"run", "seed", LK_O_U64, FIELD(seed), "1", 0, 999999999999999.0, NULL, true,
     "seed of initial weights and of the order of samples"},
    U32("run", "steps", steps, "1000", 1, MANY, true, "optimizer steps"),
    {"data", "dataset", LK_O_NAME, FIELD(dataset), "", 0, 0, NULL, false, "name of the dataset (required)"},
    BOOL("data", "cross_documents", cross_documents, "true", true,
         "attention may look into earlier documents of its sequence"),
    {"model", "family", LK_O_ENUM, FIELD(family), "llama", 0, 0, "llama|gpt2", true,
     "RMSNorm, RoPE, SwiGLU; or LayerNorm, learned positions, GELU"},
    U32("model", "layers", layers, "6", 1, 10000, true, "decoder layers"),
    U32("model", "width", width, "384", 1, 1048576, true, "width of the residual stream"),
    U32("model", "heads", heads, "", 1, 65536, true, "query heads; width / 64 by default, at least 1"),
    U32("model", "kv_heads", kv_heads, "", 1, 65536, true, "key and value heads; equal to heads by default"),
    U32("model", "head_dim", head_dim, "", 1, 65536, true, "size of a head; width / heads by default"),
    U32("model", "ffn", ffn, "", 1, 4194304, true,
        "inner width of the feed-forward; llama 8/3 width rounded up to 32, gpt2 4 width"),
    U32("model", "context", context, "256", 1, 4194304, true, "positions in a sequence"),
    U32("model", "vocab", vocab, "", 2, MANY, true, "rows of the embedding; the tokenizer's by default, may be larger"),
    BOOL("model", "tied", tied, "true", true, "output matrix = embedding"),
    F64("model", "norm_epsilon", norm_epsilon, "1e-5", 1e-30, 1, true, "added to the mean square in the norms"),
    F64("model", "rope_theta", rope_theta, "10000", 1, 1e12, true, "base of the rotary angles (llama)"),
    F64("model", "init_std", init_std, "0.02", 0, 10, true, "standard deviation of initial matrices"),
    BOOL("model", "qkv_bias", qkv_bias, "false", LATER, "q, k and v have biases (llama, as in Qwen2)"),
    BOOL("model", "qk_norm", qk_norm, "false", LATER, "RMSNorm on the heads of q and k (llama, as in Qwen3)"),
    U32("model", "window", window, "0", 0, MANY, LATER,
        "keys that a position sees, itself included (llama, as in Mistral); 0: all before it"),
    F64("model", "rope_factor", rope_factor, "0", 0, 1e6, LATER, "scales the rotary frequencies as Llama 3.1 does; 0: not"),
    F64("model", "rope_low", rope_low, "1", 1e-6, 1e6, LATER, "low_freq_factor of that scaling"),
    F64("model", "rope_high", rope_high, "4", 1e-6, 1e6, LATER, "high_freq_factor of that scaling"),
    U32("model", "rope_original", rope_original, "8192", 1, MANY, LATER,
        "original_max_position_embeddings of that scaling"),
    {"model", "from", LK_O_TEXT, FIELD(from), "", 0, 0, NULL, LK_O_LATER,
     "begin with the weights of this model, run or RUN@STEP; it gives all other keys of [model]"},
    {"model", "optimizer", LK_O_ENUM, FIELD(optimizer_from), "fresh", 0, 0, "fresh|keep", LK_O_LATER,
     "keep: go on with the moments and the order of samples of model.from, a run"},
    U32("batch", "sequences", sequences, "16", 1, 16777216, true, "sequences in a batch"),
    U32("batch", "grains", grains, "", 1, 16777216, true,
        "parts whose gradients are summed in a fixed tree; the largest power of two up to 8 that divides sequences by "
        "default"),
    U32("batch", "context", batch_context, "0", 0, 4194304, LATER,
        "positions in a training sequence; 0: model.context, which is the most"),
    U32("memory", "micro_batch", micro_batch, "0", 0, 16777216, false,
        "sequences processed at a time, changes no bit; 0: as memory allows"),
    BOOL("memory", "recompute", recompute, "false", false, "compute activations again in backward, changes no bit"),
    F64("optimizer", "learning_rate", learning_rate, "1e-3", 0, 1000, true, "peak rate"),
    F64("optimizer", "beta1", beta1, "0.9", 0, 0.999999999, true, "AdamW: decay of the first moment"),
    F64("optimizer", "beta2", beta2, "0.95", 0, 0.999999999, true, "AdamW: decay of the second moment"),
    F64("optimizer", "epsilon", epsilon, "1e-8", 1e-30, 1, true, "AdamW: added to the root of the second moment"),
    F64("optimizer", "weight_decay", weight_decay, "0.1", 0, 1000, true, "AdamW: decay of matrices and embeddings"),
    F64("optimizer", "clip", clip, "1", 0, 1e30, true, "greatest norm of the gradient; 0: no clipping"),
    {"optimizer", "schedule", LK_O_ENUM, FIELD(schedule), "cosine", 0, 0, "cosine|linear|constant", true,
     "learning rate after warmup"},
    U32("optimizer", "warmup", warmup, "", 0, MANY, true, "steps to the peak rate; steps / 20 by default"),
    U32("optimizer", "decay", decay, "", 0, MANY, true, "step at which the rate has come down; steps by default"),
    F64("optimizer", "min_ratio", min_ratio, "0.1", 0, 1, true, "rate at the end of the decay, as a share of the peak"),
    U32("eval", "every", eval_every, "", 0, MANY, false,
        "steps between evaluations; 0: never, not even at the end; steps / 10 by default"),
    U32("eval", "sequences", eval_sequences, "0", 0, MANY, false, "held-out sequences evaluated; 0: all"),
    U32("checkpoint", "every", checkpoint_every, "", 0, MANY, false,
        "steps between checkpoints; 0: only at the end; steps / 10 by default"),
    U32("checkpoint", "keep", checkpoint_keep, "2", 0, MANY, false, "newest checkpoints kept; 0: all"),
    U32("sample", "every", sample_every, "0", 0, MANY, false, "steps between printed samples; 0: never"),
    {"sample", "prompt", LK_O_TEXT, FIELD(prompt), "", 0, 0, NULL, false, "text that samples go on from"},
};
#define COUNT (sizeof options / sizeof *options)

const struct lk_option *lk_run_options(size_t *count) {
    *count = COUNT;
    return options;
}

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

static int set_option(struct lk_run_config *c, const struct lk_option *o, const char *value, const char *where,
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

static int unknown_key(const struct lk_ini_entry *e, struct lk_err *err) {
    char full[COUNT][48];
    const char *candidates[COUNT];
    char asked[256];
    bool section_known = false;
    for (size_t i = 0; i < COUNT; i++) {
        snprintf(full[i], sizeof full[i], "%s.%s", options[i].section, options[i].key);
        candidates[i] = full[i];
        section_known |= strcmp(options[i].section, e->section) == 0;
    }
    snprintf(asked, sizeof asked, "%s.%s", e->section, e->key);
    const char *near = lk_nearest(asked, candidates, COUNT);
    if (!near) /* the right key under another section */
        for (size_t i = 0; i < COUNT && !near; i++)
            if (strcmp(options[i].key, e->key) == 0) near = full[i];
    return lk_fail(err, LK_EINVAL, "%s: unknown %s \"%s\"%s%s%s; `lockstep train --keys` lists all", e->where,
                   section_known ? "key" : "section or key", asked, near ? "; did you mean \"" : "", near ? near : "",
                   near ? "\"?" : "");
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
    for (size_t i = 0; i < ini->count; i++) {
        const struct lk_ini_entry *e = &ini->entries[i];
        if (strcmp(e->section, "model") || strcmp(e->key, "from") == 0 || strcmp(e->key, "optimizer") == 0) continue;
        return lk_fail(err, LK_EINVAL,
                       "%s: model.%s is given by model.from: leave it out (batch.context sets the length of sequences)",
                       e->where, e->key);
    }
    return LK_OK;
}

int lk_run_config_read(const struct lk_ini *ini, struct lk_run_config *out, struct lk_err *err) {
    LK_NUMERIC_SCOPE();
    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < COUNT; i++)
        if (*options[i].fallback) set_option(out, &options[i], options[i].fallback, "default", NULL);
    out->warmup = out->decay = out->eval_every = out->checkpoint_every = UINT32_MAX; /* "not given" */
    if (ini->name) name_from_file(ini->name, out->name);
    for (size_t i = 0; i < ini->count; i++) {
        const struct lk_ini_entry *e = &ini->entries[i];
        size_t j = 0;
        while (j < COUNT && (strcmp(options[j].section, e->section) || strcmp(options[j].key, e->key))) j++;
        if (j == COUNT) return unknown_key(e, err);
        int code = set_option(out, &options[j], e->value, e->where, err);
        if (code) return code;
    }
    if (!out->dataset[0])
        return lk_fail(err, LK_EINVAL, "%s: data.dataset is missing: name a dataset (`lockstep dataset list` shows them)",
                       ini->name);
    if (!out->name[0]) return lk_fail(err, LK_EINVAL, "%s: run.name is missing", ini->name);
    return out->from[0] ? check_from(ini, err) : LK_OK;
}

static uint32_t or_else(uint32_t value, uint32_t fallback) {
    return value == UINT32_MAX ? fallback : value;
}

int lk_run_config_resolve(struct lk_run_config *c, uint32_t tokenizer_vocab, struct lk_err *err) {
    if (!c->heads) c->heads = c->width >= 128 ? c->width / 64 : 1;
    if (!c->kv_heads) c->kv_heads = c->heads;
    if (!c->head_dim && c->width % c->heads == 0) c->head_dim = c->width / c->heads;
    if (!c->ffn) c->ffn = c->family == LK_GPT2 ? 4 * c->width : (uint32_t)(((uint64_t)c->width * 8 + 2) / 3 + 31) / 32 * 32;
    if (!c->vocab) c->vocab = tokenizer_vocab;
    if (c->vocab < tokenizer_vocab)
        return lk_fail(err, LK_EINVAL,
                       "model.vocab = %u is smaller than the tokenizer's %u tokens; leave it out or give at least %u",
                       c->vocab, tokenizer_vocab, tokenizer_vocab);
    if (!c->grains)
        for (c->grains = 8; c->sequences % c->grains; c->grains /= 2) {}
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
    uint32_t tenth = c->steps >= 10 ? c->steps / 10 : c->steps;
    c->eval_every = or_else(c->eval_every, tenth);
    c->checkpoint_every = or_else(c->checkpoint_every, tenth);
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

/* --- JSON and identity ----------------------------------------------------------------------------------- */

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
    if (*o->fallback) set_option(&d, o, o->fallback, "default", NULL);
    return memcmp((const char *)c + o->offset, (const char *)&d + o->offset, o->size) == 0;
}

static json_t *config_json(const struct lk_run_config *c, bool identity_only) {
    json_t *all = json_object();
    for (size_t i = 0; all && i < COUNT; i++) {
        const struct lk_option *o = &options[i];
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
        return set_option(c, o, text, "record", err);
    case LK_O_F64:
        if (lk_json_float_parse(v, (double *)field)) break;
        return LK_OK;
    case LK_O_BOOL:
        if (!json_is_boolean(v)) break;
        *(bool *)field = json_is_true(v);
        return LK_OK;
    default:
        if (!json_is_string(v)) break;
        return o->type == LK_O_TEXT && !*json_string_value(v) ? LK_OK
                                                              : set_option(c, o, json_string_value(v), "record", err);
    }
    return lk_fail(err, LK_ECORRUPT, "the run's record has no good value for %s.%s", o->section, o->key);
}

int lk_run_config_from_json(const json_t *all, struct lk_run_config *out, struct lk_err *err) {
    LK_NUMERIC_SCOPE();
    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < COUNT; i++) {
        const json_t *v = json_object_get(json_object_get(all, options[i].section), options[i].key);
        if (!v && (options[i].flags & LK_O_LATER)) {
            if (*options[i].fallback) set_option(out, &options[i], options[i].fallback, "default", NULL);
            continue;
        }
        int code = option_from_json(out, &options[i], v, err);
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
