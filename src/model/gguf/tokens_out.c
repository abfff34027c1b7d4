/* What a GGUF file says of tokens and texts: the tokenizer's lists, the ids around a text, the chat template. */
#include "lockstep/base/json.h"
#include "model/gguf/tokens.h"
#include "model/huggingface.h"

#include <string.h>

#define TOKENS "tokenizer.ggml."

struct writer {
    struct lk_store *store;
    const struct lk_model *m;
    struct lk_tokenizer *t; /* NULL: the model has none */
    struct lk__gguf_out *out;
    uint32_t stops[LK_MODEL_STOPS + 3];
    size_t stop_count;
    char *template; /* of conversations; NULL: none */
    bool learned;   /* here, not where the model came from */
    struct lk_err *err;
};

static int no_memory(const struct writer *w) {
    return lk_fail(w->err, LK_ENOMEM, "no memory for what a file says of texts");
}

/* --- The chat template ------------------------------------------------------------------------------------- */

/* *out: for lk_free; NULL: no such file is kept. */
static int read_kept(const struct writer *w, const char *name, char **out) {
    const char *hex = json_string_value(json_object_get(json_object_get(w->m->manifest, "files"), name));
    struct lk_root root;
    struct lk_blob blob;
    *out = NULL;
    if (!hex) return LK_OK;
    if (!lk_root_parse(hex, &root))
        return lk_fail(w->err, LK_ECORRUPT, "the model's manifest: files.%s is no root of a file", name);
    int code = lk_blob_open(w->store->blobs, &root, true, &blob, w->err);
    if (code) return lk_fail_prefix(w->err, code, "the model's %s", name);
    *out = lk_strndup((const char *)blob.data, blob.size);
    lk_blob_close(&blob);
    return *out ? LK_OK : no_memory(w);
}

/* That of tokenizer_config.json, where it is one text. */
static int read_config_template(const struct writer *w, char **out) {
    char *text;
    int code = read_kept(w, "tokenizer_config.json", &text);
    json_t *c = text ? lk__model_hf_lenient(text, strlen(text)) : NULL;
    const char *template = json_string_value(json_object_get(c, "chat_template"));
    if (template && !(*out = lk_strdup(template))) code = no_memory(w);
    json_decref(c);
    lk_free(text);
    return code;
}

/* The one that the model learned here, else chat_template.jinja, else that of tokenizer_config.json. */
static int find_template(struct writer *w) {
    enum lk_chat chat = w->m->chat;
    int code = read_kept(w, "chat_template.jinja", &w->template);
    if (!code && !w->template) code = read_config_template(w, &w->template);
    w->learned = chat && (!w->template || lk_chat_recognise(w->template, strlen(w->template)) != chat);
    if (code || !w->learned) return code;
    const char *own = lk_chat_jinja(chat); /* NULL: there is no text of it here, and the kept one is another's */
    lk_free(w->template);
    w->template = own ? lk_strdup(own) : NULL;
    return w->template || !own ? LK_OK : no_memory(w);
}

/* --- Ids and lists ----------------------------------------------------------------------------------------- */

static void add_stop(struct writer *w, uint32_t id) {
    for (size_t i = 0; i < w->stop_count; i++)
        if (w->stops[i] == id) return;
    if (id != UINT32_MAX) w->stops[w->stop_count++] = id;
}

/* As folders have them: those of the model, the end token where it has none, what ends an answer. */
static int find_stops(struct writer *w, uint32_t after) {
    const struct lk_model *m = w->m;
    uint32_t answer = UINT32_MAX, end = w->t ? lk_tokenizer_end(w->t) : UINT32_MAX;
    int code = w->t && w->learned ? lk_chat_stop(w->t, m->chat, &answer, w->err) : LK_OK;
    add_stop(w, after);
    for (size_t i = 0; i < m->stop_count; i++) add_stop(w, m->stops[i]);
    if (!m->stop_count || w->learned) add_stop(w, end);
    add_stop(w, answer);
    return code;
}

static void put_ids(struct writer *w, uint32_t before, uint32_t after) {
    static const char *const stops[] = {TOKENS "eos_token_id", TOKENS "eot_token_id", TOKENS "eom_token_id"};
    uint32_t text = w->t ? lk_model_text_begin(w->m, w->t) : UINT32_MAX;
    uint32_t begin = text != UINT32_MAX ? text : w->m->begin, end = w->t ? lk_tokenizer_end(w->t) : UINT32_MAX;
    if (begin != UINT32_MAX) lk__gguf_put_u32(w->out, TOKENS "bos_token_id", begin);
    for (size_t i = 0; i < 3 && i < w->stop_count; i++) lk__gguf_put_u32(w->out, stops[i], w->stops[i]);
    lk__gguf_put_truth(w->out, TOKENS "add_bos_token", text != UINT32_MAX);
    lk__gguf_put_truth(w->out, TOKENS "add_eos_token", after != UINT32_MAX);
    if (text != UINT32_MAX && before == UINT32_MAX) lk__gguf_put_u32(w->out, "lockstep.text_begin", text);
    if (end != UINT32_MAX) lk__gguf_put_u32(w->out, "lockstep.end", end);
}

static int put_lists(struct writer *w, const struct lk_tokenizer_lists *l) {
    struct lk_buf json = LK_BUF_INIT;
    bool scores = strcmp(l->model, "llama") == 0;
    int code = LK_OK;
    lk__gguf_put_text(w->out, TOKENS "model", l->model, strlen(l->model));
    lk__gguf_put_text(w->out, TOKENS "pre", l->pattern, strlen(l->pattern));
    lk__gguf_put_texts(w->out, TOKENS "tokens", l->tokens, l->count);
    lk__gguf_put_array(w->out, TOKENS "token_type", LK__GGUF_I32, l->types, l->count);
    if (scores) {
        uint32_t unknown = lk_tokenizer_find(w->t, "<unk>", 5);
        lk__gguf_put_array(w->out, TOKENS "scores", LK__GGUF_REAL32, l->scores, l->count);
        lk__gguf_put_truth(w->out, TOKENS "add_space_prefix", l->space_prefix);
        if (unknown != UINT32_MAX) lk__gguf_put_u32(w->out, TOKENS "unknown_token_id", unknown);
    } else
        lk__gguf_put_texts(w->out, TOKENS "merges", l->merges, l->merge_count);
    if (l->inexact && !(code = lk_tokenizer_export(w->t, &json, w->err)))
        lk__gguf_put_text(w->out, "tokenizer.huggingface.json", json.data, json.size);
    lk_buf_release(&json);
    return code;
}

int lk__gguf_tokens_write(struct lk_store *store, const struct lk_model *m, struct lk__gguf_out *out, struct lk_err *err) {
    struct writer w = {.store = store, .m = m, .out = out, .err = err};
    struct lk_tokenizer_lists lists = {.before = UINT32_MAX, .after = UINT32_MAX};
    int code = m->has_tokenizer ? lk_tokenizer_load(store, &m->tokenizer_root, &w.t, err) : LK_OK;
    if (!code && w.t) code = lk_tokenizer_export_lists(w.t, m->layout.config.vocab, &lists, err);
    if (!code) code = find_template(&w);
    if (!code) code = find_stops(&w, lists.after);
    if (!code && w.t)
        code = put_lists(&w, &lists);
    else if (!code)
        lk__gguf_put_text(out, TOKENS "model", "none", 4);
    if (!code) put_ids(&w, lists.before, lists.after);
    if (!code && w.template) lk__gguf_put_text(out, "tokenizer.chat_template", w.template, strlen(w.template));
    lk_free(w.template);
    lk_tokenizer_lists_release(&lists);
    lk_tokenizer_free(w.t);
    return code;
}
