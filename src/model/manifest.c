/* A model's manifest, and opening what it names. */
#include "lockstep/model/models.h"

#include <string.h>

#define FORMAT        "model-0"
#define NARROW_FORMAT "model-1" /* with "narrow": weights that older programs can't read */

/* The configuration's keys are those of [model] in a run's configuration. */
static const struct {
    const char *name;
    enum { WHOLE, REAL, TRUTH } type;
    size_t at;
    bool variant; /* absent where it is zero */
} fields[] = {
#define F(name, type, variant)                                                                                             \
    { #name, type, offsetof(struct lk_model_config, name), variant }
    F(layers, WHOLE, false),       F(width, WHOLE, false),       F(heads, WHOLE, false),     F(kv_heads, WHOLE, false),
    F(head_dim, WHOLE, false),     F(ffn, WHOLE, false),         F(context, WHOLE, false),   F(vocab, WHOLE, false),
    F(tied, TRUTH, false),         F(qkv_bias, TRUTH, true),     F(qk_norm, TRUTH, true),    F(window, WHOLE, true),
    F(rope_original, WHOLE, true), F(norm_epsilon, REAL, false), F(rope_theta, REAL, false), F(init_std, REAL, false),
    F(rope_factor, REAL, true),    F(rope_low, REAL, true),      F(rope_high, REAL, true),
#undef F
};
#define FIELDS (sizeof fields / sizeof *fields)
static const char *const families[] = {[LK_LLAMA] = "llama", [LK_GPT2] = "gpt2"};

/* --- Writing --------------------------------------------------------------------------------------------- */

static json_t *config_json(const struct lk_model_config *c) {
    json_t *all = json_pack("{s:s}", "family", families[c->family]);
    bool bad = !all;
    for (size_t i = 0; i < FIELDS && !bad; i++) {
        const void *at = (const char *)c + fields[i].at;
        uint32_t whole = fields[i].type == WHOLE ? *(const uint32_t *)at : 0;
        bool truth = fields[i].type == TRUTH && *(const bool *)at;
        double real = fields[i].type == REAL ? *(const double *)at : 0;
        if (fields[i].variant && !whole && !truth && real == 0) continue;
        bad = json_object_set_new(all, fields[i].name,
                                  fields[i].type == WHOLE  ? json_integer(whole)
                                  : fields[i].type == REAL ? lk_json_float(real)
                                                           : json_boolean(truth));
    }
    if (!bad) return all;
    json_decref(all);
    return NULL;
}

json_t *lk_model_manifest(const struct lk_model_parts *p) {
    char hex[LK_ROOT_HEX];
    json_t *m = json_pack("{s:s, s:o, s:s?, s:s, s:[]}", "format", FORMAT, "config", config_json(p->config), "type",
                          p->type, "weights", lk_root_hex(p->weights, hex), "stops");
    bool bad =
        !m || json_object_set_new(m, "tokenizer", p->tokenizer ? json_string(lk_root_hex(p->tokenizer, hex)) : json_null());
    bad = bad || json_object_set_new(m, "files", p->files ? json_incref(p->files) : json_object());
    bad = bad || json_object_set_new(m, "begin", p->begin == UINT32_MAX ? json_null() : json_integer(p->begin));
    /* Only where they say something, so that the roots of models without them stay. */
    if (!bad && p->text_begin != UINT32_MAX) bad = json_object_set_new(m, "text_begin", json_integer(p->text_begin));
    if (!bad && p->chat) bad = json_object_set_new(m, "template", json_string(lk_chat_name(p->chat)));
    for (size_t i = 0; i < p->stop_count && !bad; i++)
        bad = json_array_append_new(json_object_get(m, "stops"), json_integer(p->stops[i]));
    if (!bad) return m;
    json_decref(m);
    return NULL;
}

json_t *lk_model_narrow_manifest(const json_t *manifest, enum lk_dtype matrices, enum lk_dtype ends,
                                 const struct lk_root *from, const struct lk_root *weights) {
    char hex[LK_ROOT_HEX];
    json_t *all = json_deep_copy(manifest);
    json_t *narrow = json_pack("{s:s, s:s, s:s?}", "matrices", lk_dtype_name(matrices), "ends", lk_dtype_name(ends), "from",
                               from ? lk_root_hex(from, hex) : NULL);
    bool bad = !all || json_object_set_new(all, "format", json_string(NARROW_FORMAT)) ||
               json_object_set_new(all, "weights", json_string(lk_root_hex(weights, hex)));
    bad = json_object_set_new(all, "narrow", narrow) || bad; /* the reference is taken in any case */
    if (!bad) return all;
    json_decref(all);
    return NULL;
}

/* --- Reading --------------------------------------------------------------------------------------------- */

static int damaged(struct lk_err *err, const char *key) {
    return lk_fail(err, LK_ECORRUPT, "the model's manifest has no good value for %s", key);
}

static int read_config(const json_t *all, struct lk_model_config *c, struct lk_err *err) {
    const char *family = json_string_value(json_object_get(all, "family"));
    memset(c, 0, sizeof *c);
    if (!family || (strcmp(family, families[LK_LLAMA]) && strcmp(family, families[LK_GPT2])))
        return damaged(err, "config.family");
    c->family = strcmp(family, families[LK_GPT2]) ? LK_LLAMA : LK_GPT2;
    for (size_t i = 0; i < FIELDS; i++) {
        void *at = (char *)c + fields[i].at;
        const json_t *v = json_object_get(all, fields[i].name);
        if (!v && fields[i].variant) continue;
        bool good = v != NULL;
        if (good && fields[i].type == WHOLE) {
            good = json_is_integer(v) && json_integer_value(v) >= 0 && json_integer_value(v) <= INT32_MAX;
            if (good) *(uint32_t *)at = (uint32_t)json_integer_value(v);
        } else if (good && fields[i].type == REAL)
            good = lk_json_float_parse(v, at) == LK_OK;
        else if (good) {
            good = json_is_boolean(v);
            *(bool *)at = json_is_true(v);
        }
        if (!good) return damaged(err, fields[i].name);
    }
    return LK_OK;
}

static int read_root(const json_t *m, const char *key, struct lk_root *out, struct lk_err *err) {
    const char *hex = json_string_value(json_object_get(m, key));
    return hex && lk_root_parse(hex, out) ? LK_OK : damaged(err, key);
}

static bool read_id(const json_t *v, uint32_t *out) {
    *out = (uint32_t)json_integer_value(v);
    return json_is_integer(v) && json_integer_value(v) >= 0 && json_integer_value(v) < UINT32_MAX;
}

static int read_narrow(struct lk_model *m, const json_t *narrow, struct lk_err *err) {
    const char *matrices = json_string_value(json_object_get(narrow, "matrices")),
               *ends = json_string_value(json_object_get(narrow, "ends"));
    if (!matrices || !lk_dtype_named(matrices, &m->narrow_matrices) || !lk_layout_can_narrow(m->narrow_matrices))
        return damaged(err, "narrow.matrices");
    if (!ends || !lk_dtype_named(ends, &m->narrow_ends) || !lk_layout_can_narrow(m->narrow_ends))
        return damaged(err, "narrow.ends");
    lk_layout_narrow(&m->layout, m->narrow_matrices, m->narrow_ends);
    m->has_narrow_from = !json_is_null(json_object_get(narrow, "from"));
    return m->has_narrow_from ? read_root(narrow, "from", &m->narrow_from, err) : LK_OK;
}

static int read_manifest(struct lk_model *m, struct lk_err *err) {
    struct lk_model_config c;
    const json_t *all = m->manifest, *stops = json_object_get(all, "stops");
    const char *format = json_string_value(json_object_get(all, "format"));
    const json_t *narrow = json_object_get(all, "narrow");
    if (!format || strcmp(format, narrow ? NARROW_FORMAT : FORMAT))
        return lk_fail(err, LK_EUNSUPPORTED, "the model's format is \"%.40s\", this program reads \"%s\" and \"%s\"",
                       format ? format : "", FORMAT, NARROW_FORMAT);
    int code = read_config(json_object_get(all, "config"), &c, err);
    if (!code) code = read_root(all, "weights", &m->weights_root, err);
    m->has_tokenizer = json_is_string(json_object_get(all, "tokenizer"));
    if (!code && m->has_tokenizer) code = read_root(all, "tokenizer", &m->tokenizer_root, err);
    if (!code && (!json_is_array(stops) || json_array_size(stops) > LK_MODEL_STOPS)) code = damaged(err, "stops");
    for (size_t i = 0; i < json_array_size(stops) && !code; i++)
        if (!read_id(json_array_get(stops, i), &m->stops[m->stop_count++])) code = damaged(err, "stops");
    const json_t *begin = json_object_get(all, "begin");
    m->begin = UINT32_MAX;
    if (!code && !json_is_null(begin) && !read_id(begin, &m->begin)) code = damaged(err, "begin");
    const json_t *text_begin = json_object_get(all, "text_begin"), *template = json_object_get(all, "template");
    m->text_begin = UINT32_MAX;
    if (!code && text_begin && !read_id(text_begin, &m->text_begin)) code = damaged(err, "text_begin");
    m->chat = json_is_string(template) ? lk_chat_named(json_string_value(template)) : LK_CHAT_NONE;
    if (!code && template && !m->chat) code = damaged(err, "template");
    if (!code) code = lk_layout_init(&m->layout, &c, err);
    return code || !narrow ? code : read_narrow(m, narrow, err);
}

/* The weights where they lie. */
static int open_weights(struct lk_store *store, struct lk_model *m, struct lk_err *err) {
    if (!m->layout.narrow) lk_layout_pack(&m->layout);
    size_t wanted = m->layout.floats * sizeof(float);
    int code = lk_blob_open(store->blobs, &m->weights_root, true, &m->blob, err);
    if (code) return lk_fail_prefix(err, code, "the model's weights");
    if (m->blob.size != wanted)
        return lk_fail(err, LK_ECORRUPT, "the model's weights have %zu bytes, its configuration wants %zu", m->blob.size,
                       wanted);
    m->weights = (const float *)(const void *)m->blob.data;
    return LK_OK;
}

uint32_t lk_model_text_begin(const struct lk_model *m, const struct lk_tokenizer *t) {
    if (lk_tokenizer_begin(t) != UINT32_MAX) return lk_tokenizer_begin(t);
    if (json_is_string(json_object_get(m->manifest, "type"))) return m->text_begin;
    return lk_tokenizer_end(t);
}

int lk_model_open(struct lk_store *store, json_t *manifest, bool weights, struct lk_model *out, struct lk_err *err) {
    *out = (struct lk_model){.manifest = manifest};
    int code = manifest ? read_manifest(out, err) : lk_fail(err, LK_ENOMEM, "no memory for a model's manifest");
    if (!code && weights) code = open_weights(store, out, err);
    if (code) lk_model_close(out);
    return code;
}

int lk_model_open_root(struct lk_store *store, const struct lk_root *root, bool weights, struct lk_model *out,
                       struct lk_err *err) {
    json_t *manifest = NULL;
    *out = (struct lk_model){0};
    int code = lk_manifest_get(store, root, "model", &manifest, err);
    return code ? code : lk_model_open(store, manifest, weights, out, err);
}

void lk_model_close(struct lk_model *m) {
    lk_blob_close(&m->blob);
    lk_layout_release(&m->layout);
    json_decref(m->manifest);
    *m = (struct lk_model){0};
}
