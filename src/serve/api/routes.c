/* Which path is what; who may ask; the small answers. */
#include "inside.h"

#include "lockstep/base/progress.h"
#include <stdio.h>
#include <string.h>
#include <time.h>

void lk__api_refuse(struct lk_api *api, struct lk_http_exchange *x, const struct lk__api_problem *p) {
    struct lk_buf body = LK_BUF_INIT;
    char wait[16];
    struct lk_http_field f[2];
    size_t count = 0;
    lk__api_count_refused(api, p->status);
    lk__api_error_json(&body, p->status, p->code, p->param, p->err.message);
    snprintf(wait, sizeof wait, "%u", p->retry_s);
    if (p->retry_s) f[count++] = (struct lk_http_field){"Retry-After", wait};
    if (p->status == 401) f[count++] = (struct lk_http_field){"WWW-Authenticate", "Bearer"};
    lk_http_respond(x, p->status, "application/json", f, count, body.data, body.size);
    lk_buf_release(&body);
}

static void respond_json(struct lk_http_exchange *x, struct lk_json_out *o) {
    if (o->failed)
        lk_http_end(x);
    else
        lk_http_respond(x, 200, "application/json", NULL, 0, o->to->data, o->to->size);
    lk_buf_release(o->to);
}

/* --- Routes ---------------------------------------------------------------------------------------------- */

struct asking {
    struct lk_api *api;
    struct lk_http_exchange *x;
    bool has_key;
    uint32_t key;
};

static int generation(struct asking *q, enum lk__api_route route, struct lk__api_problem *p) {
    struct lk__api_ask a;
    int code = lk__api_parse(q->api, route, lk_http_body(q->x), &a, p);
    if (code) return code;
    struct lk__api_grammar *grammar = NULL;
    if (a.form && (code = lk__api_grammar_get(q->api, a.form, a.form_text, &grammar, p))) {
        lk__api_ask_release(&a);
        return code;
    }
    bool key = q->has_key;
    q->has_key = false; /* the job tells it when it ends */
    lk__api_start(q->api, q->x, &a, grammar, key, q->key);
    return LK_OK;
}
static int completions(struct asking *q, struct lk__api_problem *p) {
    return generation(q, LK__API_COMPLETIONS, p);
}
static int chat_completions(struct asking *q, struct lk__api_problem *p) {
    return generation(q, LK__API_CHAT, p);
}
static int embeddings(struct asking *q, struct lk__api_problem *p) {
    return generation(q, LK__API_EMBEDDINGS, p);
}

static void put_model(struct lk_api *api, struct lk_json_out *o, const struct lk_api_model *m) {
    char root[LK_ROOT_HEX];
    pthread_mutex_lock(&api->swapping);
    lk__api_root(api, m, root);
    pthread_mutex_unlock(&api->swapping);
    lk_put_open(o, '{');
    lk_put_key(o, "id"), lk_put_text(o, m->name);
    lk_put_key(o, "object"), lk_put_text(o, "model");
    lk_put_key(o, "created"), lk_put_unsigned(o, m->created);
    lk_put_key(o, "owned_by"), lk_put_text(o, "lockstep");
    lk_put_key(o, "root"), lk_put_text(o, root);
    lk_put_key(o, "max_model_len"), lk_put_unsigned(o, lk_batch_most(m->batch));
    lk_put_close(o, '}');
}
static int models(struct asking *q, struct lk__api_problem *p) {
    const char *one = lk_http_path(q->x) + strlen("/v1/models");
    struct lk_buf body = LK_BUF_INIT;
    struct lk_json_out o = lk_json_out(&body);
    if (*one == '/') {
        const struct lk_api_model *m = lk__api_model_named(q->api, one + 1, p);
        if (!m) return LK_EINVAL;
        put_model(q->api, &o, m);
    } else {
        lk_put_open(&o, '{');
        lk_put_key(&o, "object"), lk_put_text(&o, "list");
        lk_put_key(&o, "data"), lk_put_open(&o, '[');
        for (size_t i = 0; i < q->api->o.model_count; i++) put_model(q->api, &o, &q->api->o.models[i]);
        lk_put_close(&o, ']');
        lk_put_close(&o, '}');
    }
    respond_json(q->x, &o);
    return LK_OK;
}

#define TOKENIZE_MOST ((size_t)1 << 20) /* bytes of a body: it is answered in the server's own thread, in 0.1 s */
static int tokenize_body(struct asking *q, const json_t *v, struct lk__api_problem *p) {
    const struct lk_api_model *m = lk__api_model(q->api, json_object_get(v, "model"), p);
    const json_t *text = json_object_get(v, "prompt"), *messages = json_object_get(v, "messages"),
                 *special = json_object_get(v, "add_special_tokens");
    const json_t *tools = json_object_get(v, "tools");
    struct lk__api_prompt ids = {0};
    struct lk__api_ask asked = {0};
    uint32_t stop;
    int code = m ? LK_OK : LK_EINVAL;
    if (!code && lk_http_body(q->x).size > TOKENIZE_MOST)
        code =
            lk__api_wrong(p, "prompt", "a body of %zu bytes is more than the %zu that /tokenize takes: send less at once",
                          lk_http_body(q->x).size, TOKENIZE_MOST);
    if (!code && tools && !json_is_null(tools)) code = lk__api_read_tools(tools, &asked, p);
    if (!code) code = lk__api_read_template_kwargs(json_object_get(v, "chat_template_kwargs"), &asked, p);
    if (!code && messages)
        code = lk__api_chat_ids(m, messages, asked.tools, asked.no_thinking, &ids.t, &stop, p);
    else if (!code && !json_is_string(text))
        code = lk__api_wrong(p, "prompt", "prompt must be a string");
    else if (!code && json_is_false(special))
        code = lk_tokenizer_encode(m->tokenizer, json_string_value(text), json_string_length(text), NULL, &ids.t, &p->err);
    else if (!code)
        code = lk__api_text_ids(m, json_string_value(text), json_string_length(text), &ids, p);
    if (!code) {
        struct lk_buf body = LK_BUF_INIT;
        struct lk_json_out o = lk_json_out(&body);
        lk_put_open(&o, '{');
        lk_put_key(&o, "count"), lk_put_unsigned(&o, ids.t.count);
        lk_put_key(&o, "max_model_len"), lk_put_unsigned(&o, lk_batch_most(m->batch));
        lk_put_key(&o, "tokens"), lk_put_open(&o, '[');
        for (size_t i = 0; i < ids.t.count; i++) lk_put_unsigned(&o, ids.t.ids[i]);
        lk_put_close(&o, ']');
        lk_put_close(&o, '}');
        respond_json(q->x, &o);
    }
    lk_tokens_release(&ids.t);
    lk__api_ask_release(&asked);
    return code;
}
static int detokenize_body(struct asking *q, const json_t *v, struct lk__api_problem *p) {
    const struct lk_api_model *m = lk__api_model(q->api, json_object_get(v, "model"), p);
    const json_t *ids = json_object_get(v, "tokens");
    struct lk_buf text = LK_BUF_INIT, body = LK_BUF_INIT;
    struct lk_json_out o = lk_json_out(&body);
    if (!m) return LK_EINVAL;
    if (!json_is_array(ids)) return lk__api_wrong(p, "tokens", "tokens must be an array of ids");
    int code = LK_OK;
    for (size_t i = 0; !code && i < json_array_size(ids); i++) {
        const json_t *id = json_array_get(ids, i);
        long long x = json_is_integer(id) ? json_integer_value(id) : -1;
        if (x < 0 || x >= lk_tokenizer_vocab(m->tokenizer))
            code = lk__api_wrong(p, "tokens", "tokens[%zu] is none of the tokenizer's %u ids", i,
                                 lk_tokenizer_vocab(m->tokenizer));
        else
            code = lk_tokenizer_decode(m->tokenizer, &(uint32_t){(uint32_t)x}, 1, &text, &p->err);
    }
    if (!code) {
        lk_put_open(&o, '{');
        lk_put_key(&o, "prompt"), lk_put_string(&o, text.data, text.size);
        lk_put_close(&o, '}');
        respond_json(q->x, &o);
    }
    lk_buf_release(&text);
    return code;
}
static int with_body(struct asking *q, struct lk__api_problem *p,
                     int (*run)(struct asking *, const json_t *, struct lk__api_problem *)) {
    json_t *v = lk__api_body(lk_http_body(q->x), p);
    int code = v ? run(q, v, p) : LK_EINVAL;
    json_decref(v);
    return code;
}
static int tokenize(struct asking *q, struct lk__api_problem *p) {
    return with_body(q, p, tokenize_body);
}
static int detokenize(struct asking *q, struct lk__api_problem *p) {
    return with_body(q, p, detokenize_body);
}

static int health(struct asking *q, struct lk__api_problem *p) {
    (void)p;
    bool ends = atomic_load(&q->api->stopping);
    const char *text = ends ? "{\"status\":\"draining\"}" : "{\"status\":\"ok\"}";
    lk_http_respond(q->x, ends ? 503 : 200, "application/json", NULL, 0, text, strlen(text));
    return LK_OK;
}
static int metrics(struct asking *q, struct lk__api_problem *p) {
    struct lk_buf text = LK_BUF_INIT;
    if (lk__api_metrics_text(q->api, &text)) return lk_fail(&p->err, LK_ENOMEM, "no memory for metrics");
    lk_http_respond(q->x, 200, "text/plain; version=0.0.4; charset=utf-8", NULL, 0, text.data, text.size);
    lk_buf_release(&text);
    return LK_OK;
}

static const struct {
    const char *method, *path;
    bool open; /* without a key */
    int (*run)(struct asking *, struct lk__api_problem *);
} routes[] = {
    {"POST", "/v1/completions", false, completions},
    {"POST", "/v1/chat/completions", false, chat_completions},
    {"POST", "/v1/embeddings", false, embeddings},
    {"GET", "/v1/models", false, models},
    {"POST", "/tokenize", false, tokenize},
    {"POST", "/detokenize", false, detokenize},
    {"GET", "/health", true, health},
    {"GET", "/metrics", true, metrics},
};

static int find_route(struct asking *q, size_t *route, struct lk__api_problem *p) {
    const char *path = lk_http_path(q->x), *method = lk_http_method(q->x);
    bool there = false;
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
        size_t n = strlen(routes[i].path);
        if (strcmp(path, routes[i].path) && (strcmp(routes[i].path, "/v1/models") || strncmp(path, "/v1/models/", n + 1)))
            continue;
        there = true;
        if (!strcmp(method, routes[i].method) || (!strcmp(method, "HEAD") && !strcmp(routes[i].method, "GET")))
            return *route = i, LK_OK;
    }
    lk__api_wrong(p, NULL, there ? "%s does not go with %.100s" : "%s %.100s: there is nothing", method, path);
    p->status = there ? 405 : 404;
    p->code = there ? "method_not_supported" : "unknown_url";
    return LK_EINVAL;
}

static int may_ask(struct asking *q, struct lk__api_problem *p) {
    struct lk_keys *keys = q->api->o.keys;
    if (!keys) return LK_OK;
    if (lk_keys_find(keys, lk_http_header(q->x, "Authorization"), &q->key)) {
        lk__api_wrong(p, NULL, "a key is needed that this server knows: Authorization: Bearer KEY");
        p->status = 401, p->code = "invalid_api_key";
        return LK_EINVAL;
    }
    int code = lk_keys_begin(keys, q->key, lk_clock_ns(), &p->retry_s, &p->err);
    if (code) p->status = 429, p->code = "rate_limit_exceeded";
    q->has_key = !code;
    return code;
}

static void handle(void *arg, struct lk_http_exchange *x) {
    struct asking q = {.api = arg, .x = x};
    struct lk__api_problem p = {.status = 400};
    size_t route = 0;
    int code = find_route(&q, &route, &p);
    if (!code && !routes[route].open && atomic_load(&q.api->stopping)) {
        code = lk__api_wrong(&p, NULL, "the server shuts down");
        p.status = 503, p.code = "shutting_down", p.retry_s = 5;
    }
    if (!code && !routes[route].open) code = may_ask(&q, &p);
    if (!code) code = routes[route].run(&q, &p);
    if (q.has_key) lk_keys_end(q.api->o.keys, q.key, 0);
    if (!code) return;
    if (code == LK_ENOMEM) p.status = 503, p.retry_s = 1;
    lk__api_refuse(q.api, x, &p);
}
static void error_body(void *arg, int status, const char *what, struct lk_buf *out) {
    struct lk_api *api = arg;
    lk__api_count_refused(api, status);
    lk__api_error_json(out, status, NULL, NULL, what);
}

/* --- The server ------------------------------------------------------------------------------------------ */

static void free_api(struct lk_api *api) {
    lk__api_metrics_close(api);
    lk__api_grammars_close(api);
    pthread_mutex_destroy(&api->swapping);
    lk_free(api->roots);
    lk_free(api->text_most);
    lk_free(api);
}

/* Tokens have all bytes of a text, where a normal form or U+2581 for a space makes three of its bytes one at the most. */
static size_t text_most(const struct lk_api_model *m) {
    size_t longest = 0;
    for (uint32_t id = 0; id < lk_tokenizer_vocab(m->tokenizer); id++) {
        size_t size = lk_tokenizer_bytes(m->tokenizer, id).size;
        if (size > longest) longest = size;
    }
    return 3 * longest * m->model->layout.config.context;
}

int lk_api_open(const struct lk_api_options *o, struct lk_api **out, struct lk_err *err) {
    struct lk_api *api = lk_calloc(1, sizeof *api);
    if (!api) return lk_fail(err, LK_ENOMEM, "no memory for a server");
    api->o = *o;
    pthread_mutex_init(&api->swapping, NULL);
    pthread_mutex_init(&api->listing, NULL);
    api->roots = lk_calloc(o->model_count, sizeof *api->roots);
    api->text_most = lk_calloc(o->model_count, sizeof *api->text_most);
    int code =
        api->roots && api->text_most ? lk__api_metrics_open(api, err) : lk_fail(err, LK_ENOMEM, "no memory for a server");
    for (size_t i = 0; !code && i < o->model_count; i++) {
        api->text_most[i] = text_most(&o->models[i]);
        snprintf(api->roots[i], sizeof api->roots[i], "%s", o->models[i].root);
    }
    if (!api->o.most_choices) api->o.most_choices = 16;
    if (!code)
        code = lk_http_server_open(&(struct lk_http_options){.listen = o->listen,
                                                             .limits = o->limits,
                                                             .tls_certificate = o->tls_certificate,
                                                             .tls_key = o->tls_key,
                                                             .handle = handle,
                                                             .error_body = error_body,
                                                             .arg = api},
                                   &api->server, err);
    if (code)
        free_api(api);
    else
        *out = api;
    return code;
}
void lk__api_root(struct lk_api *api, const struct lk_api_model *m, char root[LK_ROOT_HEX]) {
    memcpy(root, api->roots[m - api->o.models], LK_ROOT_HEX);
}
int lk_api_swap(struct lk_api *api, struct lk_batch *batch, const struct lk_batch_weights *w, const char *root,
                struct lk_err *err) {
    pthread_mutex_lock(&api->swapping);
    int code = lk_batch_swap(batch, w, err);
    for (size_t i = 0; !code && i < api->o.model_count; i++)
        if (api->o.models[i].batch == batch) snprintf(api->roots[i], sizeof api->roots[i], "%s", root);
    pthread_mutex_unlock(&api->swapping);
    if (!code) lk_batch_wake(api->o.models[0].batch);
    return code;
}
const char *lk_api_address(const struct lk_api *api) {
    return lk_http_server_address(api->server);
}

bool lk__api_is_alias(const struct lk_api *api, size_t model) {
    size_t i = 0;
    while (api->o.models[i].batch != api->o.models[model].batch) i++;
    return i < model;
}

void lk_api_run(struct lk_api *api, uint32_t drain_ms) {
    uint64_t until = 0;
    for (;;) {
        bool busy = false;
        for (size_t i = 0; i < api->o.model_count; i++)
            if (!lk__api_is_alias(api, i)) busy |= lk_batch_step(api->o.models[i].batch);
        if (api->o.tick) api->o.tick(api->o.arg);
        if (atomic_load(&api->stopping)) {
            if (!until) {
                lk_http_server_drain(api->server);
                until = lk_clock_ns() + drain_ms * UINT64_C(1000000);
            }
            if (!atomic_load(&api->jobs) || lk_clock_ns() >= until) return;
        }
        if (!busy) lk_batch_wait(api->o.models[0].batch, 100);
    }
}
void lk_api_stop(struct lk_api *api) {
    atomic_store(&api->stopping, true);
}

/* Nothing may come any more while what is there is cancelled. */
void lk_api_close(struct lk_api *api) {
    if (!api) return;
    atomic_store(&api->stopping, true);
    lk_http_server_close(api->server); /* all clients have gone: their texts are cancelled */
    while (atomic_load(&api->jobs))
        for (size_t i = 0; i < api->o.model_count; i++) lk_batch_step(api->o.models[i].batch);
    free_api(api);
}
