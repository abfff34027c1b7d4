/* Grammars of requests, compiled once and kept while others ask for the same; vocabularies of models, made when the first
 * grammar needs them. */
#include "inside.h"

#include <string.h>

#define KEPT       64                  /* grammars that no request uses, */
#define KEPT_BYTES ((size_t)256 << 20) /* and so large together, but for the last one */

int lk__api_compile(enum lk__api_form form, const char *text, const struct lk_chat_calls **calls, struct lk_grammar **out,
                    struct lk_err *err) {
    if (form == LK__API_OBJECT) return lk_grammar_json_object(out, err);
    if (form == LK__API_GBNF) return lk_grammar_from_gbnf(text, strlen(text), out, err);
    json_t *v = lk_json_parse(text, strlen(text), form == LK__API_TOOLS ? "tools" : "the schema", err);
    if (!v) return LK_EINVAL;
    int code = form == LK__API_TOOLS ? lk__api_compile_tools(v, calls, out, err) : lk_grammar_from_schema(v, out, err);
    json_decref(v);
    return code;
}

const char *lk__api_form_param(enum lk__api_form form) {
    return form == LK__API_GBNF ? "grammar" : form == LK__API_TOOLS ? "tools" : "response_format";
}

static void key_of(enum lk__api_form form, const char *text, struct lk_root *out) {
    struct lk_root parts[2] = {{{(uint8_t)form}}, {{0}}};
    lk_sha256(text ? text : "", text ? strlen(text) : 0, &parts[1]);
    lk_sha256(parts, sizeof parts, out);
}

/* Those that were used longest ago go. With the mutex. */
static void forget_some(struct lk_api *api) {
    uint32_t free_ones = 0;
    size_t bytes = 0;
    for (struct lk__api_grammar **at = &api->grammars, *g; (g = *at);) {
        if (!g->references) bytes += lk_grammar_bytes(g->grammar), free_ones++;
        if (g->references || free_ones == 1 || (free_ones <= KEPT && bytes <= KEPT_BYTES)) {
            at = &g->next;
            continue;
        }
        *at = g->next;
        lk_grammar_free(g->grammar);
        lk_free(g);
    }
}

/* To the front, with one reference more, or NULL. With the mutex. */
static struct lk__api_grammar *find(struct lk_api *api, const struct lk_root *key) {
    struct lk__api_grammar **at = &api->grammars, *g;
    while (*at && !lk_root_equal(&(*at)->key, key)) at = &(*at)->next;
    if (!(g = *at)) return NULL;
    *at = g->next;
    g->next = api->grammars, api->grammars = g;
    g->references++;
    return g;
}

static int make(enum lk__api_form form, const char *text, const struct lk_root *key, struct lk__api_grammar **out,
                struct lk_err *err) {
    struct lk__api_grammar *g = lk_calloc(1, sizeof *g);
    if (!g) return lk_fail(err, LK_ENOMEM, "no memory for a grammar");
    g->key = *key, g->references = 1;
    const struct lk_chat_calls *calls;
    int code = lk__api_compile(form, text, &calls, &g->grammar, err);
    if (code)
        lk_free(g);
    else
        *out = g;
    return code;
}

int lk__api_grammar_get(struct lk_api *api, enum lk__api_form form, const char *text, struct lk__api_grammar **out,
                        struct lk__api_problem *p) {
    struct lk_root key;
    int code = LK_OK;
    key_of(form, text, &key);
    pthread_mutex_lock(&api->listing);
    *out = find(api, &key);
    pthread_mutex_unlock(&api->listing);
    if (!*out) {
        /* Without the mutex, which the thread that makes tokens wants when a text ends. Only the server's thread is here.
         */
        code = make(form, text, &key, out, &p->err);
        pthread_mutex_lock(&api->listing);
        if (!code) (*out)->next = api->grammars, api->grammars = *out;
        pthread_mutex_unlock(&api->listing);
    }
    p->status = 400, p->code = NULL;
    strcpy(p->param, lk__api_form_param(form));
    return code;
}
void lk__api_grammar_drop(struct lk_api *api, struct lk__api_grammar *g) {
    pthread_mutex_lock(&api->listing);
    g->references--;
    forget_some(api);
    pthread_mutex_unlock(&api->listing);
}

/* From the server's thread alone. */
int lk__api_vocabulary(struct lk_api *api, const struct lk__api_ask *a, const struct lk_vocabulary **out,
                       struct lk_err *err) {
    size_t model = (size_t)(a->model - api->o.models);
    int code = LK_OK;
    if (!api->vocabularies && !(api->vocabularies = lk_calloc(api->o.model_count, sizeof *api->vocabularies)))
        code = lk_fail(err, LK_ENOMEM, "no memory for a vocabulary");
    struct lk_vocabulary **v = code ? NULL : &api->vocabularies[model][a->chat + (a->tools != NULL)];
    const char *const *marks = a->tools ? lk_chat_calls(a->model->chat)->marks : NULL;
    if (v && !*v) code = lk_vocabulary_create(a->model->tokenizer, a->r.ends, a->r.end_count, marks, v, err);
    if (!code) *out = *v;
    return code;
}

void lk__api_grammars_close(struct lk_api *api) {
    for (struct lk__api_grammar *g; (g = api->grammars);) {
        api->grammars = g->next;
        lk_grammar_free(g->grammar);
        lk_free(g);
    }
    for (size_t i = 0; api->vocabularies && i < api->o.model_count; i++)
        for (int k = 0; k < 3; k++) lk_vocabulary_free(api->vocabularies[i][k]);
    lk_free(api->vocabularies);
    pthread_mutex_destroy(&api->listing);
}
