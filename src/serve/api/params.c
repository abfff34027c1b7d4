/* From a body of JSON to what is asked: one table of parameters for both routes. What would change the text and is not
 * supported is refused by name; what can't change it is accepted. */
#include "inside.h"

#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int lk__api_wrong(struct lk__api_problem *p, const char *param, const char *format, ...) {
    char text[512];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    p->status = 400, p->code = NULL;
    snprintf(p->param, sizeof p->param, "%s", param ? param : "");
    return lk_fail(&p->err, LK_EINVAL, "%s", text);
}

/* --- Values ------------------------------------------------------------------------------------------------------- */

const char *lk__api_type(const json_t *v) {
    static const char *const names[] = {"an object", "an array",  "a string",  "an integer",
                                        "a number",  "a boolean", "a boolean", "null"};
    return names[json_typeof(v)];
}
int lk__api_wants(struct lk__api_problem *p, const char *name, const char *what, const json_t *v) {
    return lk__api_wrong(p, name, "%s must be %s, not %s", name, what, lk__api_type(v));
}

struct parsing {
    const struct lk_api *api;
    struct lk__api_ask *a;
    const json_t *body;
    struct lk__api_problem *p;
    enum lk__api_route route;
};
typedef int reader(struct parsing *, const char *name, const json_t *v);

static int boolean(struct parsing *s, const char *name, const json_t *v, bool *out) {
    if (!json_is_boolean(v)) return lk__api_wants(s->p, name, "true or false", v);
    *out = json_is_true(v);
    return LK_OK;
}
static int number(struct parsing *s, const char *name, const json_t *v, double least, double most, double *out) {
    double x = json_is_number(v) ? json_number_value(v) : 0;
    if (!json_is_number(v)) return lk__api_wants(s->p, name, "a number", v);
    if (!(x >= least && x <= most)) return lk__api_wrong(s->p, name, "%s is %g, not from %g to %g", name, x, least, most);
    *out = x;
    return LK_OK;
}
static int integer(struct parsing *s, const char *name, const json_t *v, long long least, long long most, uint32_t *out) {
    if (!json_is_integer(v)) return lk__api_wants(s->p, name, "an integer", v);
    long long x = json_integer_value(v);
    if (x < least || x > most) return lk__api_wrong(s->p, name, "%s is %lld, not from %lld to %lld", name, x, least, most);
    *out = x < 0 ? 0 : (uint32_t)x;
    return LK_OK;
}

static int ignore(struct parsing *s, const char *name, const json_t *v) {
    (void)s, (void)name, (void)v;
    return LK_OK;
}
static int elsewhere(struct parsing *s, const char *name, const json_t *v) { /* read before or behind the table */
    return ignore(s, name, v);
}
static int stream(struct parsing *s, const char *name, const json_t *v) {
    return boolean(s, name, v, &s->a->stream);
}
static int stream_options(struct parsing *s, const char *name, const json_t *v) {
    const char *key;
    json_t *value;
    if (!json_is_object(v)) return lk__api_wants(s->p, name, "an object", v);
    json_object_foreach((json_t *)v, key, value) {
        int code = LK_OK;
        if (!strcmp(key, "include_usage") && !json_is_null(value))
            code = boolean(s, "stream_options.include_usage", value, &s->a->include_usage);
        else if (strcmp(key, "include_usage") && strcmp(key, "include_obfuscation"))
            code = lk__api_wrong(s->p, name, "stream_options.%.40s is not supported", key);
        if (code) return code;
    }
    return LK_OK;
}
static int max_tokens(struct parsing *s, const char *name, const json_t *v) {
    return integer(s, name, v, 0, UINT32_MAX / 2, &s->a->r.max_tokens);
}
static int temperature(struct parsing *s, const char *name, const json_t *v) {
    return number(s, name, v, 0, 1000, &s->a->r.sampling.temperature);
}
static int top_p(struct parsing *s, const char *name, const json_t *v) {
    return number(s, name, v, 0, 1, &s->a->r.sampling.top_p);
}
static int min_p(struct parsing *s, const char *name, const json_t *v) {
    return number(s, name, v, 0, 1, &s->a->r.sampling.min_p);
}
static int top_k(struct parsing *s, const char *name, const json_t *v) {
    return integer(s, name, v, -1, UINT32_MAX, &s->a->r.sampling.top_k);
}
static int seed(struct parsing *s, const char *name, const json_t *v) {
    if (!json_is_integer(v)) return lk__api_wants(s->p, name, "an integer", v);
    s->a->r.sampling.seed = (uint64_t)json_integer_value(v);
    return LK_OK;
}
static int presence(struct parsing *s, const char *name, const json_t *v) {
    return number(s, name, v, -2, 2, &s->a->r.penalties.presence);
}
static int frequency(struct parsing *s, const char *name, const json_t *v) {
    return number(s, name, v, -2, 2, &s->a->r.penalties.frequency);
}
static int repetition(struct parsing *s, const char *name, const json_t *v) {
    return number(s, name, v, 0.01, LK_REPETITION_MOST, &s->a->r.penalties.repetition);
}
static int choices(struct parsing *s, const char *name, const json_t *v) {
    return integer(s, name, v, 1, s->api->o.most_choices, &s->a->n);
}
static int echo(struct parsing *s, const char *name, const json_t *v) {
    return boolean(s, name, v, &s->a->echo);
}
static int ignore_eos(struct parsing *s, const char *name, const json_t *v) {
    return boolean(s, name, v, &s->a->r.ignore_end);
}
static int logprobs(struct parsing *s, const char *name, const json_t *v) {
    if (s->a->chat) return boolean(s, name, v, &s->a->r.logprobs);
    s->a->r.logprobs = true;
    return integer(s, name, v, 0, LK_TOP_LOGPROBS_MOST, &s->a->r.top_logprobs);
}
static int top_logprobs(struct parsing *s, const char *name, const json_t *v) {
    return integer(s, name, v, 0, LK_TOP_LOGPROBS_MOST, &s->a->r.top_logprobs);
}
static int encoding_format(struct parsing *s, const char *name, const json_t *v) {
    const char *text = json_string_value(v);
    s->a->base64 = text && !strcmp(text, "base64");
    return s->a->base64 || (text && !strcmp(text, "float"))
               ? LK_OK
               : lk__api_wrong(s->p, name, "encoding_format must be float or base64");
}
static int lockstep(struct parsing *s, const char *name, const json_t *v) {
    const char *key;
    json_t *value;
    int code = LK_OK;
    if (!json_is_object(v)) return lk__api_wants(s->p, name, "an object", v);
    json_object_foreach((json_t *)v, key, value) {
        if (strcmp(key, "receipt")) return lk__api_wrong(s->p, name, "lockstep.%.40s is not supported", key);
        if (!json_is_null(value)) code = boolean(s, "lockstep.receipt", value, &s->a->receipt);
        if (code) return code;
    }
    return LK_OK;
}
/* What may stand there only with the value that means nothing. */
static int one(struct parsing *s, const char *name, const json_t *v) {
    if (json_is_integer(v) && json_integer_value(v) == 1) return LK_OK;
    return lk__api_wrong(s->p, name, "%s other than 1 is not supported: ask for n texts, and choose", name);
}
static int empty(struct parsing *s, const char *name, const json_t *v) {
    bool is = json_is_false(v) || (json_is_array(v) && !json_array_size(v)) ||
              (json_is_string(v) && !json_string_length(v)) || (json_is_object(v) && !json_object_size(v));
    return is ? LK_OK : lk__api_wrong(s->p, name, "%s is not supported", name);
}
/* The schema as a text, in its own order: that of the properties counts. */
static int keep_form(struct parsing *s, enum lk__api_form form, char *text) {
    if (!text && form != LK__API_OBJECT) return lk_fail(&s->p->err, LK_ENOMEM, "no memory for a grammar");
    if (s->a->form) {
        lk_free(text);
        return lk__api_wrong(s->p, "response_format", "response_format and grammar do not go together");
    }
    s->a->form = form, s->a->form_text = text;
    return LK_OK;
}
static int response_format(struct parsing *s, const char *name, const json_t *v) {
    const char *type = json_string_value(json_object_get(v, "type"));
    const json_t *schema = json_object_get(json_object_get(v, "json_schema"), "schema");
    if (type && !strcmp(type, "text")) return LK_OK;
    if (type && !strcmp(type, "json_object")) return keep_form(s, LK__API_OBJECT, NULL);
    if (!type || strcmp(type, "json_schema"))
        return lk__api_wrong(s->p, name, "response_format.type must be text, json_object or json_schema, not %.40s",
                             type ? type : "nothing");
    if (!json_is_object(schema)) return lk__api_wrong(s->p, name, "response_format.json_schema.schema must be an object");
    char *dumped = json_dumps(schema, JSON_COMPACT), *text = dumped ? lk_strdup(dumped) : NULL;
    free(dumped);
    return keep_form(s, LK__API_SCHEMA, text);
}
static int gbnf(struct parsing *s, const char *name, const json_t *v) {
    if (!json_is_string(v)) return lk__api_wants(s->p, name, "a string in GBNF", v);
    if (strlen(json_string_value(v)) != json_string_length(v))
        return lk__api_wrong(s->p, name, "grammar has a zero character");
    return keep_form(s, LK__API_GBNF, lk_strdup(json_string_value(v)));
}
static int tools(struct parsing *s, const char *name, const json_t *v) {
    (void)name;
    return lk__api_read_tools(v, s->a, s->p);
}
static int tool_choice(struct parsing *s, const char *name, const json_t *v) {
    (void)name;
    return lk__api_read_tool_choice(v, s->a, s->p);
}
static int many_calls(struct parsing *s, const char *name, const json_t *v) {
    return boolean(s, name, v, &s->a->many_calls);
}
static int function_call(struct parsing *s, const char *name, const json_t *v) {
    const char *text = json_string_value(v);
    if (text && (!strcmp(text, "none") || !strcmp(text, "auto"))) return LK_OK;
    return lk__api_wrong(s->p, name, "function_call is not supported: use tools and tool_choice");
}
static int template_kwargs(struct parsing *s, const char *name, const json_t *v) {
    (void)name;
    return lk__api_read_template_kwargs(v, s->a, s->p);
}
static int modalities(struct parsing *s, const char *name, const json_t *v) {
    const char *text = json_string_value(json_array_get(v, 0));
    if (json_array_size(v) == 1 && text && !strcmp(text, "text")) return LK_OK;
    return lk__api_wrong(s->p, name, "only text is supported");
}

#define STOP_BYTES 4096
static int copy_stop(struct parsing *s, const char *name, const json_t *v) {
    struct lk__api_ask *a = s->a;
    const char *text = json_string_value(v);
    if (!text) return lk__api_wants(s->p, name, "a string, or up to 4 of them", v);
    if (!*text) return lk__api_wrong(s->p, name, "a stop text is empty");
    if (strlen(text) != json_string_length(v)) return lk__api_wrong(s->p, name, "a stop text has a zero character");
    if (strlen(text) > STOP_BYTES) /* each text of a request has its own copy */
        return lk__api_wrong(s->p, name, "a stop text of %zu bytes is longer than %d", strlen(text), STOP_BYTES);
    if (!(a->stops[a->r.stop_count] = lk_strdup(text))) return lk_fail(&s->p->err, LK_ENOMEM, "no memory for a request");
    a->r.stop_count++;
    return LK_OK;
}
static int stop(struct parsing *s, const char *name, const json_t *v) {
    if (!json_is_array(v)) return copy_stop(s, name, v);
    if (json_array_size(v) > LK__API_STOPS)
        return lk__api_wrong(s->p, name, "%zu stop texts are more than %d", json_array_size(v), LK__API_STOPS);
    int code = LK_OK;
    for (size_t i = 0; !code && i < json_array_size(v); i++) code = copy_stop(s, name, json_array_get(v, i));
    return code;
}

static int logit_bias(struct parsing *s, const char *name, const json_t *v) {
    struct lk__api_ask *a = s->a;
    size_t n = json_is_object(v) ? json_object_size(v) : 0;
    const char *key;
    json_t *value;
    if (!json_is_object(v)) return lk__api_wants(s->p, name, "an object of ids and numbers", v);
    if (n > LK_LOGIT_BIASES_MOST) return lk__api_wrong(s->p, name, "%zu biases are more than %d", n, LK_LOGIT_BIASES_MOST);
    if (!(a->biases = lk_alloc((n + 1) * sizeof *a->biases)))
        return lk_fail(&s->p->err, LK_ENOMEM, "no memory for a request");
    json_object_foreach((json_t *)v, key, value) {
        size_t digits = strspn(key, "0123456789");
        if (!digits || key[digits] || digits > 9)
            return lk__api_wrong(s->p, name, "logit_bias: \"%.40s\" is no id of a token", key);
        if (!json_is_number(value)) return lk__api_wants(s->p, name, "an object of ids and numbers", value);
        double x = json_number_value(value);
        if (!(fabs(x) <= LK_LOGIT_BIAS_MOST))
            return lk__api_wrong(s->p, name, "logit_bias: %g is not from -%d to %d", x, LK_LOGIT_BIAS_MOST,
                                 LK_LOGIT_BIAS_MOST);
        a->biases[a->r.penalties.bias_count++] = (struct lk_logit_bias){(uint32_t)strtoul(key, NULL, 10), (float)x};
    }
    a->r.penalties.bias = a->biases;
    return LK_OK;
}

enum {
    ANY = 0,
    COMPLETIONS = 1 << LK__API_COMPLETIONS,
    CHAT = 1 << LK__API_CHAT,
    EMBEDDINGS = 1 << LK__API_EMBEDDINGS,
    BOTH = COMPLETIONS | CHAT
};
static const struct {
    const char *name;
    int route;
    reader *read;
} params[] = {
    {"model", BOTH | EMBEDDINGS, elsewhere},
    {"prompt", COMPLETIONS, elsewhere},
    {"input", EMBEDDINGS, elsewhere},
    {"encoding_format", EMBEDDINGS, encoding_format},
    {"messages", CHAT, elsewhere},
    {"stream", BOTH, stream},
    {"stream_options", BOTH, stream_options},
    {"max_tokens", BOTH, max_tokens},
    {"max_completion_tokens", CHAT, max_tokens},
    {"temperature", BOTH, temperature},
    {"top_p", BOTH, top_p},
    {"top_k", BOTH, top_k},
    {"min_p", BOTH, min_p},
    {"seed", BOTH, seed},
    {"n", BOTH, choices},
    {"stop", BOTH, stop},
    {"logit_bias", BOTH, logit_bias},
    {"presence_penalty", BOTH, presence},
    {"frequency_penalty", BOTH, frequency},
    {"repetition_penalty", BOTH, repetition},
    {"logprobs", BOTH, logprobs},
    {"top_logprobs", CHAT, top_logprobs},
    {"echo", COMPLETIONS, echo},
    {"ignore_eos", BOTH, ignore_eos},
    {"lockstep", BOTH, lockstep},
    {"best_of", COMPLETIONS, one},
    {"suffix", COMPLETIONS, empty},
    {"response_format", BOTH, response_format},
    {"grammar", BOTH, gbnf},
    {"tools", CHAT, tools},
    {"functions", CHAT, empty},
    {"tool_choice", CHAT, tool_choice},
    {"function_call", CHAT, function_call},
    {"chat_template_kwargs", CHAT, template_kwargs},
    {"modalities", CHAT, modalities},
    {"audio", CHAT, empty},
    {"web_search_options", CHAT, empty},
    {"user", BOTH | EMBEDDINGS, ignore},
    {"metadata", BOTH, ignore},
    {"store", BOTH, ignore},
    {"service_tier", BOTH, ignore},
    {"safety_identifier", BOTH, ignore},
    {"prompt_cache_key", BOTH, ignore},
    {"prompt_cache_retention", BOTH, ignore},
    {"parallel_tool_calls", CHAT, many_calls},
    {"prediction", CHAT, ignore},
};

static int read_params(struct parsing *s) {
    const char *key;
    json_t *value;
    int code = LK_OK;
    json_object_foreach((json_t *)s->body, key, value) {
        size_t i = 0, count = sizeof params / sizeof *params;
        while (i < count && (strcmp(params[i].name, key) || !(params[i].route & 1 << s->route))) i++;
        if (json_is_null(value)) continue; /* as if it was not there */
        if (i == count) return lk__api_wrong(s->p, key, "the parameter %.60s is not supported", key);
        if ((code = params[i].read(s, key, value))) return code;
    }
    return LK_OK;
}

/* --- Models, prompts ------------------------------------------------------------------------------------------------ */

json_t *lk__api_body(struct lk_bytes body, struct lk__api_problem *p) {
    json_t *v = lk_json_parse_zeros(body.data, body.size, "the body", &p->err);
    p->status = 400, p->code = NULL, *p->param = 0;
    if (v && !json_is_object(v)) {
        lk__api_wrong(p, NULL, "the body must be an object, not %s", lk__api_type(v));
        json_decref(v);
        v = NULL;
    }
    return v;
}

const struct lk_api_model *lk__api_model(const struct lk_api *api, const json_t *name, struct lk__api_problem *p) {
    const char *text = json_string_value(name);
    bool one = true;
    for (size_t i = 1; i < api->o.model_count; i++) one &= lk__api_is_alias(api, i);
    if ((!name || json_is_null(name)) && one) return &api->o.models[0];
    if (!text) {
        lk__api_wrong(p, "model", "model must name one of the models of /v1/models");
        return NULL;
    }
    return lk__api_model_named(api, text, p);
}
const struct lk_api_model *lk__api_model_named(const struct lk_api *api, const char *name, struct lk__api_problem *p) {
    for (size_t i = 0; i < api->o.model_count; i++)
        if (!strcmp(api->o.models[i].name, name)) return &api->o.models[i];
    lk__api_wrong(p, "model", "there is no model %.200s here: /v1/models lists them", name);
    p->status = 404, p->code = "model_not_found";
    return NULL;
}

static int push_id(struct lk_tokens *t, uint32_t id, struct lk__api_problem *p) {
    if (t->count == t->capacity) {
        size_t more = t->capacity ? 2 * t->capacity : 64;
        uint32_t *ids = lk_realloc(t->ids, more * sizeof *ids);
        if (!ids) return lk_fail(&p->err, LK_ENOMEM, "no memory for a prompt");
        t->ids = ids, t->capacity = more;
    }
    t->ids[t->count++] = id;
    return LK_OK;
}

int lk__api_text_ids(const struct lk_api_model *m, const char *text, size_t size, struct lk__api_prompt *out,
                     struct lk__api_problem *p) {
    uint32_t begin = lk_model_text_begin(m->model, m->tokenizer);
    if (begin == UINT32_MAX && !size) begin = lk_tokenizer_end(m->tokenizer);
    out->begins = begin != UINT32_MAX;
    int code = out->begins ? push_id(&out->t, begin, p) : LK_OK;
    return code ? code : lk_tokenizer_encode(m->tokenizer, text, size, NULL, &out->t, &p->err);
}

/* name: of the parameter */
static int ids_of(const json_t *v, const char *name, const struct lk_api_model *m, struct lk_tokens *out,
                  struct lk__api_problem *p) {
    uint32_t vocab = m->model->layout.config.vocab;
    int code = LK_OK;
    for (size_t i = 0; !code && i < json_array_size(v); i++) {
        const json_t *id = json_array_get(v, i);
        if (!json_is_integer(id)) return lk__api_wants(p, name, "a string, strings, ids or lists of ids", id);
        if (json_integer_value(id) < 0 || json_integer_value(id) >= vocab)
            return lk__api_wrong(p, name, "token %zu of the prompt, %lld, is none of the model's %u", i,
                                 (long long)json_integer_value(id), vocab);
        code = push_id(out, (uint32_t)json_integer_value(id), p);
    }
    return code;
}
/* Whatever its tokens are: said without making them, which takes the thread that reads requests 0.1 s a megabyte. */
static int check_size(const struct parsing *s, const char *name, size_t size) {
    size_t most = s->api->text_most[s->a->model - s->api->o.models];
    if (size <= most) return LK_OK;
    lk__api_wrong(s->p, name,
                  "a text of %zu bytes never fits into the context of %u tokens, which stand for %zu bytes at most", size,
                  s->a->model->model->layout.config.context, most);
    s->p->code = "context_length_exceeded";
    return LK_EINVAL;
}
/* Of all texts in messages together. */
static size_t text_size(const json_t *v) {
    const char *key;
    json_t *value;
    size_t i, size = json_is_string(v) ? json_string_length(v) : 0;
    json_array_foreach(v, i, value) size += text_size(value);
    json_object_foreach((json_t *)(uintptr_t)v, key, value) {
        bool text = strcmp(key, "role") && strcmp(key, "type");
        size += text ? text_size(value) : 0;
    }
    return size;
}
static int prompt_of(struct parsing *s, const json_t *v, const char *name, struct lk__api_prompt *out) {
    const struct lk_api_model *m = s->a->model;
    int code = json_is_string(v) ? check_size(s, name, json_string_length(v)) : LK_OK;
    if (code) return code;
    if (json_is_string(v)) return lk__api_text_ids(m, json_string_value(v), json_string_length(v), out, s->p);
    if (json_is_array(v)) return ids_of(v, name, m, &out->t, s->p);
    return lk__api_wants(s->p, name, "a string, strings, ids or lists of ids", v);
}

#define PROMPTS_MOST 128
static int read_prompts(struct parsing *s) {
    struct lk__api_ask *a = s->a;
    const char *name = s->a->embedding ? "input" : "prompt";
    const json_t *v = json_object_get(s->body, name);
    bool many = json_is_array(v) && json_array_size(v) && !json_is_integer(json_array_get(v, 0));
    size_t count = many ? json_array_size(v) : 1;
    if (!v || json_is_null(v)) return lk__api_wrong(s->p, name, "%s is missing", name);
    if (count > PROMPTS_MOST) return lk__api_wrong(s->p, name, "%zu prompts are more than %d", count, PROMPTS_MOST);
    if (!(a->prompts = lk_calloc(count, sizeof *a->prompts)))
        return lk_fail(&s->p->err, LK_ENOMEM, "no memory for a prompt");
    int code = LK_OK;
    for (; !code && a->prompt_count < count; a->prompt_count += !code)
        code = prompt_of(s, many ? json_array_get(v, a->prompt_count) : v, name, &a->prompts[a->prompt_count]);
    a->prompt_count = count; /* to be released */
    return code;
}

/* --- A request ------------------------------------------------------------------------------------------------------ */

#define RECEIPT_FORMS (16 << 20) /* bytes of grammars in the receipts of an answer */
static int read_request(struct parsing *s) {
    struct lk__api_ask *a = s->a;
    const struct lk_model *m;
    uint32_t stop_id;
    if (!(a->model = lk__api_model(s->api, json_object_get(s->body, "model"), s->p))) return LK_EINVAL;
    int code = read_params(s);
    if (code) return code;
    m = a->model->model;
    memcpy(a->ends, m->stops, m->stop_count * sizeof *a->ends);
    a->r.end_count = m->stop_count;
    if (a->chat) {
        if (!(a->prompts = lk_calloc(1, sizeof *a->prompts)))
            return lk_fail(&s->p->err, LK_ENOMEM, "no memory for a prompt");
        a->prompt_count = 1;
        const json_t *messages = json_object_get(s->body, "messages");
        if ((code = check_size(s, "messages", text_size(messages) + text_size(a->tools)))) return code;
        code = lk__api_chat_ids(a->model, messages, a->tools, a->no_thinking, &a->prompts->t, &stop_id, s->p);
        if (!code) a->ends[a->r.end_count++] = stop_id;
        if (!a->r.logprobs && a->r.top_logprobs)
            code = lk__api_wrong(s->p, "top_logprobs", "top_logprobs goes with logprobs: true");
    } else
        code = read_prompts(s);
    if (!code && a->chat) code = lk__api_join_tools(a, s->p);
    if (a->r.ignore_end) a->r.end_count = 0;
    if (!code && a->form && a->r.ignore_end)
        code = lk__api_wrong(s->p, "ignore_eos", "ignore_eos does not go with a grammar, which says where a text ends");
    a->r.ends = a->ends;
    a->r.stops = (const char *const *)a->stops;
    a->r.prompt_logprobs = a->echo && a->r.logprobs;
    size_t texts = a->n * a->prompt_count;
    if (!code && a->receipt && a->form_text && texts * strlen(a->form_text) > RECEIPT_FORMS)
        code = lk__api_wrong(s->p, "lockstep",
                             "each of %zu receipts would repeat a grammar of %zu bytes, together more than %d MiB: ask for "
                             "fewer texts at once",
                             texts, strlen(a->form_text), RECEIPT_FORMS >> 20);
    if (!code && a->stream && a->echo) code = lk__api_wrong(s->p, "echo", "echo with stream is not supported");
    return code;
}

#define LOGPROBS_MOST (1 << 20) /* of an answer at once, which may take 100 bytes each */
static int check_logprobs(struct parsing *s) {
    const struct lk__api_ask *a = s->a;
    uint64_t tokens = 0, most = lk_batch_most(a->model->batch), of_each = 1 + a->r.top_logprobs;
    if (!a->r.logprobs || a->stream) return LK_OK;
    for (size_t i = 0; i < a->prompt_count; i++) {
        uint64_t prompt = a->prompts[i].t.count, room = prompt < most ? most - prompt : 0;
        tokens += a->n * ((a->echo ? prompt : 0) + (a->to_the_end || a->r.max_tokens > room ? room : a->r.max_tokens));
    }
    if (tokens * of_each <= LOGPROBS_MOST) return LK_OK;
    return lk__api_wrong(
        s->p, "logprobs",
        "%zu texts of together up to %llu tokens, each with %llu log-probabilities, are more than the %d that "
        "one answer may have: ask for fewer texts, max_tokens or top_logprobs, or for a stream",
        a->n * a->prompt_count, (unsigned long long)tokens, (unsigned long long)of_each, LOGPROBS_MOST);
}

int lk__api_parse(const struct lk_api *api, enum lk__api_route route, struct lk_bytes body, struct lk__api_ask *a,
                  struct lk__api_problem *p) {
    bool chat = route == LK__API_CHAT;
    *a = (struct lk__api_ask){.chat = chat,
                              .embedding = route == LK__API_EMBEDDINGS,
                              .n = 1,
                              .tool_choice = LK_TOOLS_MAY,
                              .many_calls = true,
                              .r = {.max_tokens = UINT32_MAX, .sampling = {.temperature = 1, .top_p = 1}}};
    json_t *v = lk__api_body(body, p);
    if (!v) return p->err.code ? p->err.code : LK_EINVAL;
    const json_t *given = json_object_get(v, "seed");
    if (!given || json_is_null(given)) { /* one that JSON's readers keep exactly */
        uint64_t random = lk__api_random();
        a->r.sampling.seed = random >> 11;
    }
    struct parsing s = {api, a, v, p, route};
    int code = read_request(&s);
    json_decref(v);
    if (a->r.max_tokens == UINT32_MAX) a->to_the_end = chat, a->r.max_tokens = a->embedding ? 0 : 16; /* OpenAI's */
    if (!code) code = check_logprobs(&s);
    if (code == LK_ENOMEM) p->status = 503;
    if (code && !p->status) p->status = 400;
    if (code) lk__api_ask_release(a);
    return code;
}

void lk__api_ask_release(struct lk__api_ask *a) {
    for (size_t i = 0; i < LK__API_STOPS; i++) lk_free(a->stops[i]);
    for (size_t i = 0; a->prompts && i < a->prompt_count; i++) lk_tokens_release(&a->prompts[i].t);
    json_decref(a->tools);
    lk_free(a->only_tool);
    lk_free(a->form_text);
    lk_free(a->prompts);
    lk_free(a->biases);
    *a = (struct lk__api_ask){0};
}
