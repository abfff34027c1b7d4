/* The files of a Hugging Face folder beside the weights: config.json, generation_config.json, the tokenizer's, the chat
 * template. Files that came with a model go out as they came, except where they would not say what the model learned with:
 * a tokenizer.json that gives other ids than the model's tokenizer is replaced, and a chat template by that of the model's
 * last dataset. */
#include "huggingface.h"
#include "lockstep/base/file.h"
#include "lockstep/base/json.h"
#include "weights_out.h"

#include <stdlib.h>
#include <string.h>

struct folder {
    struct lk_store *store;
    const char *dir;
    struct lk_model m;      /* with the ids that it gets here; its parts stay the model's */
    json_t *files;          /* borrowed */
    struct lk_tokenizer *t; /* NULL: the model has none */
    bool own_tokenizer;     /* files has no tokenizer.json that is the model's */
    bool learned;           /* it learned conversations otherwise than its files say */
    const char *template;   /* of our own, that says how; NULL: there is none, and the folder gets none */
    struct lk_err *err;
};

static int no_memory(const struct folder *f, const char *name) {
    return lk_fail(f->err, LK_ENOMEM, "no memory to write %s/%s", f->dir, name);
}

static int put_file(const struct folder *f, const char *name, const void *data, size_t size) {
    char *path = lk_asprintf("%s/%s", f->dir, name);
    int code = path ? lk_file_write_atomic(path, data, size, f->err) : no_memory(f, name);
    lk_free(path);
    return code;
}

/* Floating-point numbers with as few digits as give them back. NULL: no memory. */
static char *dump(const json_t *v) {
    for (size_t digits = 6; digits <= 17; digits++) {
        char *text = json_dumps(v, JSON_INDENT(2) | JSON_REAL_PRECISION(digits));
        json_t *back = text ? json_loads(text, 0, NULL) : NULL;
        bool same = back && json_equal(back, v);
        json_decref(back);
        if (same) return text;
        free(text);
    }
    return NULL;
}

/* Takes the value's reference; NULL: no memory. */
static int put_json(const struct folder *f, const char *name, json_t *v) {
    char *text = v ? dump(v) : NULL;
    int code = text ? put_file(f, name, text, strlen(text)) : no_memory(f, name);
    json_decref(v);
    free(text);
    return code;
}

/* --- Kept files ------------------------------------------------------------------------------------------ */

static int open_kept(const struct folder *f, const char *name, const json_t *hex, struct lk_blob *blob) {
    struct lk_root root;
    if (!json_is_string(hex) || !lk_root_parse(json_string_value(hex), &root) || strchr(name, '/') || name[0] == '.')
        return lk_fail(f->err, LK_ECORRUPT, "the model's manifest: files.%.60s is no root of a file", name);
    int code = lk_blob_open(f->store->blobs, &root, true, blob, f->err);
    return code ? lk_fail_prefix(f->err, code, "the model's %s", name) : LK_OK;
}

static int put_kept(const struct folder *f, const char *name, const json_t *hex) {
    struct lk_blob blob;
    int code = open_kept(f, name, hex, &blob);
    if (code) return code;
    size_t bom = lk_skip_bom(blob.data, blob.size); /* Hugging Face's programs do not read it */
    code = put_file(f, name, (const char *)blob.data + bom, blob.size - bom);
    lk_blob_close(&blob);
    return code;
}

/* A kept JSON file; *out is NULL where it is absent or no object, so that a new one takes its place. */
static int read_kept(const struct folder *f, const char *name, json_t **out) {
    struct lk_blob blob;
    const json_t *hex = json_object_get(f->files, name);
    *out = NULL;
    int code = hex ? open_kept(f, name, hex, &blob) : LK_OK;
    if (code || !hex) return code;
    *out = lk__model_hf_lenient(blob.data, blob.size);
    lk_blob_close(&blob);
    return LK_OK;
}

/* --- The tokenizer --------------------------------------------------------------------------------------- */

/* Whether a kept tokenizer.json gives the model's ids, here and in Hugging Face's library. */
static int compare_tokenizer(const struct folder *f, const struct lk_blob *kept, bool *same) {
    struct lk_tokenizer *t = NULL;
    struct lk_buf a = LK_BUF_INIT, b = LK_BUF_INIT;
    struct lk_err err;
    const char *json = (const char *)kept->data;
    int code = lk_tokenizer_check_ids(json, kept->size, "tokenizer.json", &err);
    if (!code) code = lk_tokenizer_import(json, kept->size, "tokenizer.json", &t, &err);
    if (!code) code = lk_tokenizer_export(t, &a, &err);
    if (!code) code = lk_tokenizer_export(f->t, &b, &err);
    *same = !code && a.size == b.size && memcmp(a.data, b.data, a.size) == 0;
    lk_tokenizer_free(t);
    lk_buf_release(&a);
    lk_buf_release(&b);
    return code == LK_ENOMEM ? no_memory(f, "tokenizer.json") : LK_OK;
}

static int open_tokenizer(struct folder *f) {
    const json_t *hex = json_object_get(f->files, "tokenizer.json");
    struct lk_blob blob;
    if (!f->m.has_tokenizer) return LK_OK;
    int code = lk_tokenizer_load(f->store, &f->m.tokenizer_root, &f->t, f->err);
    f->own_tokenizer = !hex;
    if (code || !hex) return code;
    if ((code = open_kept(f, "tokenizer.json", hex, &blob))) return code;
    bool same;
    code = compare_tokenizer(f, &blob, &same);
    f->own_tokenizer = !same;
    lk_blob_close(&blob);
    return code;
}

static int put_tokenizer(const struct folder *f) {
    struct lk_buf text = LK_BUF_INIT;
    int code = lk_tokenizer_export_begin(f->t, lk_model_text_begin(&f->m, f->t), &text, f->err);
    if (!code) code = put_file(f, "tokenizer.json", text.data, text.size);
    lk_buf_release(&text);
    return code;
}

/* False: no memory. An id that is no special token of the tokenizer sets nothing. */
static bool set_token(const struct folder *f, json_t *c, const char *key, uint32_t id) {
    struct lk_bytes text = lk_tokenizer_bytes(f->t, id);
    if (!text.size || !lk_tokenizer_is_special(f->t, id)) return true;
    return !json_object_set_new(c, key, json_stringn(text.data, text.size));
}

/* tokenizer_config.json of a tokenizer that came from no folder. NULL: no memory. */
static json_t *make_tokenizer_config(const struct folder *f) {
    uint32_t end = lk_tokenizer_end(f->t), begin = lk_model_text_begin(&f->m, f->t);
    json_t *c = json_pack("{s:s, s:b, s:i}", "tokenizer_class", "PreTrainedTokenizerFast", "clean_up_tokenization_spaces",
                          0, "model_max_length", (int)f->m.layout.config.context);
    if (c && set_token(f, c, "eos_token", end) && set_token(f, c, "bos_token", begin == UINT32_MAX ? end : begin)) return c;
    json_decref(c);
    return NULL;
}

/* Whether the kept files speak of another tokenizer than the model's. A GGUF file's template comes without one. */
static bool is_foreign(const struct folder *f) {
    return f->own_tokenizer && json_object_get(f->files, "tokenizer.json");
}

/* Whether the folder came with the template of m.chat. */
static bool has_template(const struct folder *f) {
    const json_t *hex = is_foreign(f) ? NULL : json_object_get(f->files, "chat_template.jinja");
    struct lk_blob blob;
    json_t *config = NULL;
    bool any, has = hex && open_kept(f, "chat_template.jinja", hex, &blob) == LK_OK;
    struct lk_bytes text = has ? lk_bytes(blob.data, blob.size) : lk_bytes("", 0);
    if (!f->own_tokenizer && read_kept(f, "tokenizer_config.json", &config)) config = NULL;
    bool same = lk__model_hf_chat(has ? &text : NULL, config, &any) == f->m.chat;
    if (has) lk_blob_close(&blob);
    json_decref(config);
    return same;
}

static int put_tokenizer_config(const struct folder *f) {
    static const char name[] = "tokenizer_config.json";
    const json_t *hex = f->own_tokenizer ? NULL : json_object_get(f->files, name);
    json_t *c = NULL;
    if (hex && !f->learned) return put_kept(f, name, hex);
    int code = hex ? read_kept(f, name, &c) : LK_OK;
    if (code || (!c && !f->t)) return code;
    if (!c) c = make_tokenizer_config(f);
    if (f->learned) json_object_del(c, "chat_template"); /* of another */
    if (c && f->template && json_object_set_new(c, "chat_template", json_string(f->template))) {
        json_decref(c);
        c = NULL;
    }
    return put_json(f, name, c);
}

/* --- Ids ------------------------------------------------------------------------------------------------- */

static void add_stop(struct lk_model *m, uint32_t id) {
    for (size_t i = 0; i < m->stop_count; i++)
        if (m->stops[i] == id) return;
    if (id != UINT32_MAX && m->stop_count < LK_MODEL_STOPS) m->stops[m->stop_count++] = id;
}

/* A run of our own has no ids from a folder: its texts begin and end with the tokenizer's end token. What ends an answer
 * ends generation too. */
static int add_ids(struct folder *f) {
    uint32_t answer = UINT32_MAX, end = f->t ? lk_tokenizer_end(f->t) : UINT32_MAX;
    if (!f->t) return LK_OK;
    int code = f->learned ? lk_chat_stop(f->t, f->m.chat, &answer, f->err) : LK_OK;
    if (code) return code;
    if (!f->m.stop_count || f->learned) add_stop(&f->m, end);
    add_stop(&f->m, answer);
    if (f->m.begin == UINT32_MAX) f->m.begin = lk_model_text_begin(&f->m, f->t);
    return LK_OK;
}

/* The kept one says the stops of the folder; where a chat's stop comes to them, it gets all of them. */
static int put_generation_config(const struct folder *f) {
    static const char name[] = "generation_config.json";
    const json_t *hex = json_object_get(f->files, name);
    json_t *c = NULL;
    if (hex && !f->learned) return put_kept(f, name, hex);
    int code = read_kept(f, name, &c);
    if (code) return code;
    if (!c) c = json_object();
    json_t *stops = json_array();
    bool bad = !c || !stops;
    for (size_t i = 0; i < f->m.stop_count && !bad; i++) bad = json_array_append_new(stops, json_integer(f->m.stops[i]));
    if (!bad && f->m.stop_count) bad = json_object_set(c, "eos_token_id", stops);
    json_decref(stops);
    if (bad) {
        json_decref(c);
        c = NULL;
    }
    return put_json(f, name, c);
}

/* --- All ------------------------------------------------------------------------------------------------- */

/* The others: special_tokens_map.json, and a chat template where the model learned none here. */
static int put_others(const struct folder *f) {
    static const char *const done[] = {"tokenizer.json", "tokenizer_config.json", "generation_config.json"};
    const char *name;
    json_t *hex;
    json_object_foreach(f->files, name, hex) {
        bool other = true;
        for (size_t i = 0; i < sizeof done / sizeof *done; i++) other &= strcmp(name, done[i]) != 0;
        if (!other || is_foreign(f) || (f->learned && strcmp(name, "chat_template.jinja") == 0)) continue;
        int code = put_kept(f, name, hex);
        if (code) return code;
    }
    return f->template ? put_file(f, "chat_template.jinja", f->template, strlen(f->template)) : LK_OK;
}

static int put_all(struct folder *f, enum lk_dtype dtype) {
    const char *type = lk__model_hf_type(&f->m.layout.config, json_string_value(json_object_get(f->m.manifest, "type")));
    const json_t *kept = json_object_get(f->files, "tokenizer.json");
    if (!type)
        return lk_fail(
            f->err, LK_EUNSUPPORTED,
            "no model of transformers computes this configuration: Qwen2 has qkv_bias, Qwen3 qk_norm, none both");
    int code = open_tokenizer(f);
    f->learned = !code && f->m.chat && !has_template(f);
    if (f->learned) f->template = lk_chat_jinja(f->m.chat);
    if (!code) code = add_ids(f);
    if (!code) code = put_json(f, "config.json", lk__model_hf_config_write(&f->m, type, dtype));
    if (!code) code = put_generation_config(f);
    if (!code && f->own_tokenizer)
        code = put_tokenizer(f);
    else if (!code && kept)
        code = put_kept(f, "tokenizer.json", kept);
    if (!code) code = put_tokenizer_config(f);
    return code ? code : put_others(f);
}

int lk__model_folder_files_write(struct lk_store *store, const struct lk_model *m, enum lk_dtype dtype, const char *dir,
                                 struct lk_err *err) {
    struct folder f = {.store = store, .dir = dir, .m = *m, .files = json_object_get(m->manifest, "files"), .err = err};
    int code = put_all(&f, dtype);
    lk_tokenizer_free(f.t);
    return code;
}
