/* A Hugging Face folder becomes a model of the store. */
#include "lockstep/data/tokenizer.h"
#include "weights_in.h"

#include <stdio.h>
#include <string.h>

#define CONFIG_BYTES ((size_t)16 << 20)
#define KEPT_BYTES   ((size_t)256 << 20) /* of a tokenizer.json */

/* Files that are kept as they are, for whoever exports the model again. */
static const char *const kept[] = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                                   "chat_template.jinja", "generation_config.json"};

struct importing {
    struct lk_store *store;
    const char *dir;
    const struct lk_model_import *options;
    struct lk__model_hf_config config;
    struct lk_layout layout;
    struct lk_root weights, tokenizer;
    bool has_tokenizer;
    uint32_t text_begin;
    enum lk_chat chat;
    json_t *files;
    struct lk_err *err;
};

/* LK_ENOTFOUND, with no message, when it is not there. */
static int read_file(const struct importing *in, const char *name, size_t limit, struct lk_buf *out) {
    char *path = lk_asprintf("%s/%s", in->dir, name);
    bool there = false;
    int code = path ? lk__model_hf_file(path, &there, in->err)
                    : lk_fail(in->err, LK_ENOMEM, "no memory to open %s/%s", in->dir, name);
    if (!code) code = there ? lk_file_read(path, limit, out, in->err) : LK_ENOTFOUND;
    lk_free(path);
    return code;
}

static int read_json(const struct importing *in, const char *name, json_t **out) {
    struct lk_buf text = LK_BUF_INIT;
    char *path = lk_asprintf("%s/%s", in->dir, name);
    int code = path ? read_file(in, name, CONFIG_BYTES, &text) : LK_ENOMEM;
    if (!code && !(*out = lk_json_parse(text.data ? text.data : "", text.size, path, in->err))) code = LK_EINVAL;
    lk_free(path);
    lk_buf_release(&text);
    return code;
}

static int read_configs(struct importing *in) {
    const struct lk_model_import *o = in->options;
    const struct lk__model_hf_notes notes = {o->note, o->arg};
    json_t *config = NULL, *generation = NULL;
    char *path = lk_asprintf("%s/config.json", in->dir);
    int code = path ? read_json(in, "config.json", &config) : lk_fail(in->err, LK_ENOMEM, "no memory to open %s", in->dir);
    if (code == LK_ENOTFOUND) code = lk_fail(in->err, code, "%s has no config.json: is it a Hugging Face folder?", in->dir);
    if (!code) code = lk__model_hf_config_read(config, path, o->ignore, o->ignore_count, &notes, &in->config, in->err);
    if (!code && (code = read_json(in, "generation_config.json", &generation)) == LK_ENOTFOUND) code = LK_OK;
    if (!code)
        code = lk__model_hf_stops(json_object_get(generation, "eos_token_id"), "generation_config.json", &notes,
                                  &in->config, in->err);
    if (!code) code = lk_layout_init(&in->layout, &in->config.model, in->err);
    json_decref(config);
    json_decref(generation);
    lk_free(path);
    return code;
}

static int check_vocabulary(const struct importing *in, const struct lk_tokenizer *t) {
    if (lk_tokenizer_vocab(t) <= in->config.model.vocab) return LK_OK;
    return lk_fail(
        in->err, LK_EINVAL,
        "%s: the tokenizer has ids up to %u, the model only %u rows; import with --tokenizer none, or another one", in->dir,
        lk_tokenizer_vocab(t) - 1, in->config.model.vocab);
}

/* The file's own end token, else the model's first one. */
static int import_tokenizer(struct importing *in, const struct lk_buf *text, const char *path, struct lk_tokenizer **t) {
    const char *json = text->data ? text->data : "";
    int code = lk_tokenizer_import(json, text->size, path, t, in->err);
    if (code || lk_tokenizer_end(*t) != UINT32_MAX || !in->config.stop_count) return code;
    struct lk_bytes stop = lk_tokenizer_bytes(*t, in->config.stops[0]);
    if (!stop.size || !lk_tokenizer_is_special(*t, in->config.stops[0])) return LK_OK;
    char *end = lk_strndup(stop.data, stop.size);
    lk_tokenizer_free(*t);
    *t = NULL;
    code = end ? lk_tokenizer_import_end(json, text->size, path, end, t, in->err)
               : lk_fail(in->err, LK_ENOMEM, "%s: out of memory", path);
    lk_free(end);
    return code;
}

/* The template of conversations, if it is known here and the tokenizer has its marks. */
static int read_template(struct importing *in, const struct lk_tokenizer *t) {
    struct lk_buf jinja = LK_BUF_INIT, other = LK_BUF_INIT;
    json_t *config = NULL;
    uint32_t stop;
    bool any = false;
    char note[160];
    int code = read_file(in, "chat_template.jinja", CONFIG_BYTES, &jinja);
    struct lk_bytes text = lk_bytes(jinja.data ? jinja.data : "", jinja.size);
    bool file = code == LK_OK;
    if (code == LK_ENOTFOUND) code = read_file(in, "tokenizer_config.json", CONFIG_BYTES, &other);
    if (code == LK_ENOTFOUND) code = LK_OK;
    if (other.size) config = lk__model_hf_lenient(other.data, other.size);
    if (!code) in->chat = lk__model_hf_chat(file ? &text : NULL, config, &any);
    if (in->chat && lk_chat_stop(t, in->chat, &stop, NULL)) {
        snprintf(note, sizeof note, "its tokenizer lacks tokens of its chat template, %s: conversations need --template",
                 lk_chat_name(in->chat));
        in->chat = LK_CHAT_NONE;
    } else if (in->chat)
        snprintf(note, sizeof note, "conversations are written as %s", lk_chat_name(in->chat));
    else
        snprintf(note, sizeof note, "its chat template is none that is known here: conversations need --template");
    if (!code && any && in->options->note) in->options->note(in->options->arg, note);
    json_decref(config);
    lk_buf_release(&jinja);
    lk_buf_release(&other);
    return code;
}

static int read_tokenizer(struct importing *in) {
    struct lk_tokenizer *t = NULL;
    struct lk_buf text = LK_BUF_INIT;
    char *path = lk_asprintf("%s/tokenizer.json", in->dir);
    int code = path ? LK_OK : lk_fail(in->err, LK_ENOMEM, "no memory to open %s", in->dir);
    if (!code && in->options->tokenizer) {
        in->tokenizer = *in->options->tokenizer;
        code = lk_tokenizer_load(in->store, &in->tokenizer, &t, in->err);
    } else if (!code) {
        code = read_file(in, "tokenizer.json", KEPT_BYTES, &text);
        if (code == LK_ENOTFOUND)
            code =
                lk_fail(in->err, code,
                        "%s has no tokenizer.json: save it there with transformers' AutoTokenizer and save_pretrained, or "
                        "import with --tokenizer NAME or --tokenizer none",
                        in->dir);
        if (!code) code = import_tokenizer(in, &text, path, &t);
        if (!code) code = lk_tokenizer_check_ids(text.data, text.size, path, in->err);
        if (code == LK_EUNSUPPORTED)
            code = lk_fail_prefix(in->err, code, "its tokenizer can't be taken (--tokenizer none leaves it out)");
        if (!code) code = lk_tokenizer_save(in->store, t, &in->tokenizer, in->err);
        if (!code) in->text_begin = lk_tokenizer_text_begin(t) == lk_tokenizer_end(t) ? lk_tokenizer_end(t) : UINT32_MAX;
    }
    if (!code) code = check_vocabulary(in, t);
    if (!code && !in->options->tokenizer) code = read_template(in, t);
    in->has_tokenizer = !code;
    lk_tokenizer_free(t);
    lk_buf_release(&text);
    lk_free(path);
    return code;
}

/* With another tokenizer than the folder's, the files that speak of it are left behind. One that cannot be taken here still
 * goes out again as it came. */
static int keep_files(struct importing *in) {
    bool own = !in->options->tokenizer;
    int code = LK_OK;
    if (!(in->files = json_object())) return lk_fail(in->err, LK_ENOMEM, "no memory for a list of files");
    for (size_t i = 0; i < sizeof kept / sizeof *kept && !code; i++) {
        struct lk_buf text = LK_BUF_INIT;
        struct lk_root root;
        char hex[LK_ROOT_HEX];
        if (!own && strcmp(kept[i], "generation_config.json")) continue;
        code = read_file(in, kept[i], KEPT_BYTES, &text);
        if (!code) code = lk_blob_put(in->store->blobs, text.data ? text.data : "", text.size, &root, in->err);
        if (!code && json_object_set_new(in->files, kept[i], json_string(lk_root_hex(&root, hex))))
            code = lk_fail(in->err, LK_ENOMEM, "no memory for a list of files");
        if (code == LK_ENOTFOUND) code = LK_OK;
        lk_buf_release(&text);
    }
    return code;
}

static int read_weights(struct importing *in) {
    const struct lk_model_import *o = in->options;
    struct lk__model_weights_in w;
    int code = lk__model_weights_in_open(in->dir, &w, in->err);
    if (code) return code;
    code = lk__model_weights_in_put(&w, &in->layout, in->store, o->progress, o->arg, &in->weights, in->err);
    lk__model_weights_in_close(&w);
    return code == LK_EINVAL || code == LK_EUNSUPPORTED ? lk_fail_prefix(in->err, code, "%s", in->dir) : code;
}

int lk_model_import(struct lk_store *store, const char *dir, const struct lk_model_import *options, struct lk_root *out,
                    struct lk_err *err) {
    struct importing in = {.store = store, .dir = dir, .options = options, .text_begin = UINT32_MAX, .err = err};
    int code = read_configs(&in);
    if (!code && !options->no_tokenizer) code = read_tokenizer(&in); /* before the weights: it is refused more often */
    if (!code) code = keep_files(&in);
    if (!code) code = read_weights(&in);
    if (!code) {
        json_t *m = lk_model_manifest(&(struct lk_model_parts){.config = &in.config.model,
                                                               .type = in.config.type,
                                                               .weights = &in.weights,
                                                               .tokenizer = in.has_tokenizer ? &in.tokenizer : NULL,
                                                               .stops = in.config.stops,
                                                               .stop_count = in.config.stop_count,
                                                               .begin = in.config.begin,
                                                               .text_begin = in.text_begin,
                                                               .chat = in.chat,
                                                               .files = in.files});
        code = m ? lk_manifest_put(store, m, out, err) : lk_fail(err, LK_ENOMEM, "no memory for a model's manifest");
        json_decref(m);
    }
    json_decref(in.files);
    lk_layout_release(&in.layout);
    return code;
}
