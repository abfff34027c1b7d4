/* The tokenizer of a GGUF file. */
#include "model/gguf/tokens.h"

#include <string.h>

#define TOKENS "tokenizer.ggml."

struct reader {
    const struct lk__gguf *g;
    const char *file;
    struct lk__gguf_config *config;
    struct lk_tokenizer_lists lists;
    char *model, *pattern; /* of the lists */
    struct lk_err *err;
};

static int bad(const struct reader *r, const char *key, const char *what) {
    return lk_fail(r->err, LK_EINVAL, "%s: " TOKENS "%s %s", r->file, key, what);
}
static int no_memory(const struct reader *r) {
    return lk_fail(r->err, LK_ENOMEM, "%s: no memory for its tokenizer", r->file);
}

static const struct lk__gguf_value *find(const struct reader *r, const char *key) {
    char full[64];
    snprintf(full, sizeof full, TOKENS "%s", key);
    return lk__gguf_value(r->g, full);
}

/* *out: NULL, where the key is absent. */
static int read_word(const struct reader *r, const char *key, char **out) {
    const struct lk__gguf_value *v = find(r, key);
    struct lk_bytes text;
    if (!v) return LK_OK;
    if (!lk__gguf_text(v, &text)) return bad(r, key, "is no text");
    *out = lk_strndup(text.data, text.size);
    return *out ? LK_OK : no_memory(r);
}

static int read_texts(const struct reader *r, const char *key, struct lk_bytes **out, size_t *count) {
    const struct lk__gguf_value *v = find(r, key);
    if (!v) return LK_OK;
    if (v->kind != LK__GGUF_ARRAY || (v->of != LK__GGUF_STRING && v->count)) return bad(r, key, "is no array of texts");
    const unsigned char *at = v->data;
    if (!(*out = lk_calloc(v->count + 1, sizeof **out))) return no_memory(r);
    for (; *count < v->count; ++*count) (*out)[*count] = lk__gguf_next_text(&at);
    return LK_OK;
}

/* Numbers of 32 bits, one a token. */
static int read_numbers(const struct reader *r, const char *key, enum lk__gguf_kind a, enum lk__gguf_kind b, void **out) {
    const struct lk__gguf_value *v = find(r, key);
    if (!v) return LK_OK;
    if (v->kind != LK__GGUF_ARRAY || (v->of != a && v->of != b) || v->count != r->lists.count)
        return bad(r, key, "is no array of 32-bit numbers, one a token");
    if (!(*out = lk_alloc(v->count * 4 + 1))) return no_memory(r);
    memcpy(*out, v->data, v->count * 4);
    return LK_OK;
}

static int read_flag(const struct reader *r, const char *key, bool *out) {
    const struct lk__gguf_value *v = find(r, key);
    return !v || lk__gguf_truth(v, out) ? LK_OK : bad(r, key, "is not true or false");
}

/* Files of SentencePiece's may leave out what is nearly always so. */
static void fill_ids(struct reader *r) {
    struct lk__gguf_config *c = r->config;
    if (strcmp(r->model, "llama")) return;
    if (!find(r, "bos_token_id") && r->lists.count > 1) c->begin = 1;
    if (!find(r, "eos_token_id") && r->lists.count > 2 && c->stop_count < LK_MODEL_STOPS) {
        memmove(c->stops + 1, c->stops, c->stop_count * sizeof *c->stops);
        c->stops[0] = 2;
        c->stop_count++;
    }
}

static int read_around(struct reader *r) {
    bool characters = strcmp(r->model, "llama") == 0, before = characters, after = false, spaces = characters;
    if (r->pattern && (strncmp(r->pattern, "llama", 5) == 0)) before = true; /* llama-bpe, llama-v3, llama3 */
    int code = read_flag(r, "add_bos_token", &before);
    if (!code) code = read_flag(r, "add_eos_token", &after);
    if (!code) code = read_flag(r, "add_space_prefix", &spaces);
    if (code) return code;
    fill_ids(r);
    r->lists.before = r->lists.after = r->lists.end = UINT32_MAX;
    r->lists.space_prefix = characters && spaces;
    if (r->config->end != UINT32_MAX) r->lists.end = r->config->end;
    if (before && r->config->begin == UINT32_MAX) return bad(r, "bos_token_id", "is missing, and texts begin with it");
    if (after && !r->config->stop_count) return bad(r, "eos_token_id", "is missing, and texts end with it");
    if (before && r->config->text_begin == UINT32_MAX) r->lists.before = r->config->begin;
    if (after) r->lists.after = r->config->stops[0];
    return LK_OK;
}

/* Another program's tokenizer.json beside the lists says the tokenizer in full. */
static int import_json(struct reader *r, const struct lk__gguf_value *v, struct lk_tokenizer **out) {
    struct lk_bytes text, end = {0};
    if (!lk__gguf_text(v, &text)) return lk_fail(r->err, LK_EINVAL, "%s: tokenizer.huggingface.json is no text", r->file);
    if (r->lists.end < r->lists.count) end = r->lists.tokens[r->lists.end];
    char *word = end.size ? lk_strndup(end.data, end.size) : NULL;
    if (end.size && !word) return no_memory(r);
    int code = lk_tokenizer_import_end(text.data, text.size, r->file, word, out, r->err);
    lk_free(word);
    return code;
}

static int import(struct reader *r, struct lk_tokenizer **out) {
    const struct lk__gguf_value *json = lk__gguf_value(r->g, "tokenizer.huggingface.json");
    return json ? import_json(r, json, out) : lk_tokenizer_import_lists(&r->lists, r->file, out, r->err);
}

/* The end token is the one that is said, else that of the rule for all tokenizers, else the model's first stop. */
static int import_with_end(struct reader *r, struct lk_tokenizer **out) {
    int code = import(r, out);
    if (code || lk_tokenizer_end(*out) != UINT32_MAX || !r->config->stop_count) return code;
    if (!lk_tokenizer_is_special(*out, r->config->stops[0]) || r->config->stops[0] >= r->lists.count) return LK_OK;
    lk_tokenizer_free(*out);
    r->lists.end = r->config->stops[0];
    return import(r, out);
}

static int read_lists(struct reader *r) {
    void *types = NULL, *scores = NULL;
    int code = read_word(r, "model", &r->model);
    if (!code && (!r->model || strcmp(r->model, "none") == 0 || strcmp(r->model, "no_vocab") == 0))
        code =
            lk_fail(r->err, LK_ENOTFOUND, "%s has no tokenizer: import with --tokenizer NAME or --tokenizer none", r->file);
    if (!code) code = read_word(r, "pre", &r->pattern);
    if (!code) code = read_texts(r, "tokens", &r->lists.tokens, &r->lists.count);
    if (!code && !r->lists.tokens) code = bad(r, "tokens", "is missing");
    if (!code) code = read_texts(r, "merges", &r->lists.merges, &r->lists.merge_count);
    if (!code) code = read_numbers(r, "token_type", LK__GGUF_I32, LK__GGUF_U32, &types);
    r->lists.types = types;
    if (!code) code = read_numbers(r, "scores", LK__GGUF_REAL32, LK__GGUF_REAL32, &scores);
    r->lists.scores = scores;
    r->lists.model = r->model;
    r->lists.pattern = r->pattern;
    return code ? code : read_around(r);
}

int lk__gguf_tokens_read(const struct lk__gguf *g, const char *file, struct lk__gguf_config *c, struct lk_tokenizer **out,
                         struct lk_err *err) {
    struct reader r = {.g = g, .file = file, .config = c, .err = err};
    *out = NULL;
    int code = read_lists(&r);
    if (!code) code = import_with_end(&r, out);
    lk_tokenizer_lists_release(&r.lists);
    lk_free(r.model);
    lk_free(r.pattern);
    return code == LK_EUNSUPPORTED
               ? lk_fail_prefix(err, code, "its tokenizer can't be taken (--tokenizer none leaves it out)")
               : code;
}
