/* Answers as OpenAI writes them. */
#include "inside.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *finish_reason(const struct lk__api_choice *c) {
    bool whole = c->calls.count && !c->calls.depth; /* a stop text may have cut the last one */
    return c->result.end == LK_REQUEST_LENGTH ? "length" : whole ? "tool_calls" : "stop";
}

static void head(struct lk_json_out *o, const struct lk__api_job *j, const char *object) {
    char print[80];
    lk_put_open(o, '{');
    lk_put_key(o, "id"), lk_put_text(o, j->id);
    lk_put_key(o, "object"), lk_put_text(o, object);
    lk_put_key(o, "created"), lk_put_unsigned(o, j->created);
    lk_put_key(o, "model"), lk_put_text(o, j->ask.model->name);
    snprintf(print, sizeof print, "fp_%.16s", j->root);
    lk_put_key(o, "system_fingerprint"), lk_put_text(o, print);
}

static void usage(struct lk_json_out *o, const struct lk__api_job *j) {
    uint64_t prompt = 0, cached = 0, tokens = 0;
    for (uint32_t i = 0; i < j->choice_count; i++) {
        const struct lk_request_result *r = &j->choices[i].result;
        if (i % j->ask.n == 0) prompt += r->prompt_tokens, cached += r->cached_tokens;
        tokens += r->tokens;
    }
    lk_put_key(o, "usage"), lk_put_open(o, '{');
    lk_put_key(o, "prompt_tokens"), lk_put_unsigned(o, prompt);
    lk_put_key(o, "completion_tokens"), lk_put_unsigned(o, tokens);
    lk_put_key(o, "total_tokens"), lk_put_unsigned(o, prompt + tokens);
    lk_put_key(o, "prompt_tokens_details"), lk_put_open(o, '{');
    lk_put_key(o, "cached_tokens"), lk_put_unsigned(o, cached);
    lk_put_close(o, '}');
    lk_put_close(o, '}');
}

/* What an answer is a function of: with these it can be made again. */
static void made_of(struct lk_json_out *o, const struct lk__api_job *j, const struct lk__api_choice *of, uint32_t count) {
    lk_put_key(o, "lockstep"), lk_put_open(o, '{');
    lk_put_key(o, "model_root"), lk_put_text(o, j->root);
    lk_put_key(o, "seed"), lk_put_integer(o, (long long)j->ask.r.sampling.seed);
    if (j->ask.receipt) {
        lk_put_key(o, "receipts"), lk_put_open(o, '[');
        for (uint32_t i = 0; i < count; i++) lk__api_receipt_write(o, &of[i]);
        lk_put_close(o, ']');
    }
    lk_put_close(o, '}');
}

/* --- Log-probabilities --------------------------------------------------------------------------------------------------
 */

/* A token's bytes, or as OpenAI writes those that are no text. */
static void token_text(struct lk_json_out *o, struct lk_bytes b, bool key) {
    char text[8 + 4 * 256] = "";
    const char *data = b.data;
    size_t size = b.size;
    if (!lk_utf8_valid(b.data, b.size) || memchr(b.data, 0, b.size)) { /* nor is a zero one in keys, for many readers */
        size = (size_t)snprintf(text, sizeof text, "bytes:");
        for (size_t i = 0; i < b.size && i < 256; i++)
            size += (size_t)snprintf(text + size, sizeof text - size, "\\x%02x", ((const unsigned char *)b.data)[i]);
        data = text;
    }
    lk_put_string(o, data, size);
    if (key) lk_put_after_key(o);
}
static void logprob(struct lk_json_out *o, float x) {
    lk_put_float(o, isfinite(x) ? x : -9999.0f); /* as OpenAI: none is the logarithm of 0 */
}

static const struct lk__api_told *told_of(const struct lk__api_choice *c, size_t *count) {
    *count = c->told.size / sizeof(struct lk__api_told);
    return (const struct lk__api_told *)(const void *)c->told.data;
}

static void chat_token(struct lk_json_out *o, const struct lk_tokenizer *t, const struct lk_logprob *p) {
    struct lk_bytes b = lk_tokenizer_bytes(t, p->id);
    lk_put_key(o, "token"), token_text(o, b, false);
    lk_put_key(o, "logprob"), logprob(o, p->logprob);
    lk_put_key(o, "bytes"), lk_put_open(o, '[');
    for (size_t i = 0; i < b.size; i++) lk_put_unsigned(o, ((const unsigned char *)b.data)[i]);
    lk_put_close(o, ']');
}
static void chat_logprobs(struct lk_json_out *o, const struct lk__api_choice *c) {
    const struct lk_tokenizer *t = c->job->ask.model->tokenizer;
    size_t count;
    const struct lk__api_told *told = told_of(c, &count);
    lk_put_open(o, '{');
    lk_put_key(o, "content"), lk_put_open(o, '[');
    for (size_t i = 0; i < count; i++) {
        lk_put_open(o, '{');
        chat_token(o, t, &told[i].drawn.token);
        lk_put_key(o, "top_logprobs"), lk_put_open(o, '[');
        for (uint32_t k = 0; k < told[i].drawn.top_count; k++)
            lk_put_open(o, '{'), chat_token(o, t, &told[i].drawn.top[k]), lk_put_close(o, '}');
        lk_put_close(o, ']');
        lk_put_close(o, '}');
    }
    lk_put_close(o, ']');
    lk_put_key(o, "refusal"), lk_put_null(o);
    lk_put_close(o, '}');
}

/* A token with the bytes of a likelier one: an object can't have both. */
static bool said_before(const struct lk_tokenizer *t, const struct lk_logprob *top, uint32_t k) {
    struct lk_bytes b = lk_tokenizer_bytes(t, top[k].id);
    for (uint32_t i = 0; i < k; i++) {
        struct lk_bytes a = lk_tokenizer_bytes(t, top[i].id);
        if (a.size == b.size && !memcmp(a.data, b.data, a.size)) return true;
    }
    return false;
}

/* The prompt's first token has none. */
static void completion_logprobs(struct lk_json_out *o, struct lk__api_choice *c) {
    const struct lk__api_ask *a = &c->job->ask;
    const struct lk_tokenizer *t = a->model->tokenizer;
    size_t count, at = c->offset;
    const struct lk__api_told *told = told_of(c, &count);
    bool first = a->echo;
    const struct lk__api_prompt *prompt = &a->prompts[c->index / a->n];
    struct lk_bytes begin = first ? lk_tokenizer_bytes(t, prompt->t.ids[0]) : lk_bytes("", 0);
    lk_put_open(o, '{');
    lk_put_key(o, "tokens"), lk_put_open(o, '[');
    if (first) token_text(o, begin, false);
    for (size_t i = 0; i < count; i++) token_text(o, lk_tokenizer_bytes(t, told[i].drawn.token.id), false);
    lk_put_close(o, ']');
    lk_put_key(o, "token_logprobs"), lk_put_open(o, '[');
    if (first) lk_put_null(o);
    for (size_t i = 0; i < count; i++) logprob(o, told[i].drawn.token.logprob);
    lk_put_close(o, ']');
    lk_put_key(o, "top_logprobs");
    if (a->r.top_logprobs) {
        lk_put_open(o, '[');
        if (first) lk_put_null(o);
        for (size_t i = 0; i < count; i++) {
            lk_put_open(o, '{');
            for (uint32_t k = 0; k < told[i].drawn.top_count; k++) {
                if (said_before(t, told[i].drawn.top, k)) continue;
                token_text(o, lk_tokenizer_bytes(t, told[i].drawn.top[k].id), true);
                logprob(o, told[i].drawn.top[k].logprob);
            }
            lk_put_close(o, '}');
        }
        lk_put_close(o, ']');
    } else
        lk_put_null(o);
    lk_put_key(o, "text_offset"), lk_put_open(o, '[');
    if (first) lk_put_unsigned(o, at), at += prompt->begins ? 0 : begin.size;
    for (size_t i = 0; i < count; i++) lk_put_unsigned(o, at), at += lk_tokenizer_bytes(t, told[i].drawn.token.id).size;
    lk_put_close(o, ']');
    lk_put_close(o, '}');
    c->offset = at;
}

static void logprobs(struct lk_json_out *o, struct lk__api_choice *c) {
    lk_put_key(o, "logprobs");
    if (!c->job->ask.r.logprobs || (c->job->ask.stream && !c->told.size))
        lk_put_null(o);
    else if (c->job->ask.chat)
        chat_logprobs(o, c);
    else
        completion_logprobs(o, c);
    c->told.size = 0;
}

/* --- Calls of tools -----------------------------------------------------------------------------------------------------
 */

/* Nine letters and digits, as some templates want them, from the answer's id. */
static void call_id(const struct lk__api_choice *c, char out[10]) {
    static const char digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    char text[80];
    struct lk_root root;
    int size = snprintf(text, sizeof text, "%s %u %u", c->job->id, c->index, c->calls.count);
    lk_sha256(text, (size_t)size, &root);
    for (int i = 0; i < 9; i++) out[i] = digits[root.bytes[i] % 62];
    out[9] = 0;
}
/* A call up to its name; its function is left open. */
static void call_head(struct lk_json_out *o, const struct lk__api_choice *c, struct lk_bytes name) {
    char id[10];
    call_id(c, id);
    lk_put_key(o, "id"), lk_put_text(o, id);
    lk_put_key(o, "type"), lk_put_text(o, "function");
    lk_put_key(o, "function"), lk_put_open(o, '{');
    lk_put_key(o, "name"), lk_put_string(o, name.data, name.size);
}

/* --- In pieces ----------------------------------------------------------------------------------------------------------
 */

/* What a chunk adds to a text. */
struct delta {
    const char *role;
    enum lk__serve_calls_part part;
    struct lk_bytes text;
};
static void put_delta(struct lk_json_out *o, const struct lk__api_choice *c, const struct delta *d) {
    if (!c->job->ask.chat) {
        lk_put_key(o, "text"), lk_put_string(o, d->text.data, d->text.size);
        return;
    }
    lk_put_key(o, "delta"), lk_put_open(o, '{');
    if (d->role) lk_put_key(o, "role"), lk_put_text(o, d->role);
    if (d->part == LK__SERVE_CALLS_TEXT && (d->role || d->text.size))
        lk_put_key(o, "content"), lk_put_string(o, d->text.data, d->text.size);
    if (d->part != LK__SERVE_CALLS_TEXT) {
        lk_put_key(o, "tool_calls"), lk_put_open(o, '['), lk_put_open(o, '{');
        lk_put_key(o, "index"), lk_put_unsigned(o, c->calls.count);
        if (d->part == LK__SERVE_CALLS_NAME)
            call_head(o, c, d->text);
        else
            lk_put_key(o, "function"), lk_put_open(o, '{');
        lk_put_key(o, "arguments"), lk_put_string(o, d->text.data, d->part == LK__SERVE_CALLS_NAME ? 0 : d->text.size);
        lk_put_close(o, '}'), lk_put_close(o, '}'), lk_put_close(o, ']');
    }
    lk_put_close(o, '}');
}

static void chunk(struct lk__api_job *j, struct lk__api_choice *c, const struct delta *d, bool last) {
    struct lk_json_out o = lk_json_out(&j->out);
    lk_buf_printf(&j->out, "data: ");
    head(&o, j, j->ask.chat ? "chat.completion.chunk" : "text_completion");
    lk_put_key(&o, "choices"), lk_put_open(&o, '['), lk_put_open(&o, '{');
    lk_put_key(&o, "index"), lk_put_unsigned(&o, c->index);
    put_delta(&o, c, d);
    logprobs(&o, c);
    lk_put_key(&o, "finish_reason"), lk_put_text(&o, last ? finish_reason(c) : NULL);
    lk_put_close(&o, '}'), lk_put_close(&o, ']');
    if (j->ask.include_usage) lk_put_key(&o, "usage"), lk_put_null(&o);
    if (last) made_of(&o, j, c, 1);
    lk_put_close(&o, '}');
    lk_buf_printf(&j->out, "\n\n");
    if (o.failed) j->gone = true; /* half a chunk is worse than none */
}
static int chunk_of(void *arg, enum lk__serve_calls_part part, const char *data, size_t size) {
    struct lk__api_choice *c = arg;
    if (part != LK__SERVE_CALLS_END) chunk(c->job, c, &(struct delta){.part = part, .text = lk_bytes(data, size)}, false);
    return 0;
}

void lk__api_write_piece(struct lk__api_job *j, struct lk__api_choice *c, bool last) {
    if (j->ask.chat && !c->opened) {
        struct lk_buf told = c->told;
        c->told = (struct lk_buf)LK_BUF_INIT; /* they come with the text */
        chunk(j, c, &(struct delta){.role = "assistant"}, false);
        c->told = told;
    }
    c->opened = true;
    c->calls.tell = chunk_of, c->calls.arg = c;
    if (c->text.size && !j->ask.calls) chunk_of(c, LK__SERVE_CALLS_TEXT, c->text.data, c->text.size);
    if (c->text.size && j->ask.calls && lk__serve_calls_take(&c->calls, c->text.data, c->text.size)) j->gone = true;
    c->text.size = 0;
    if (last && j->ask.calls) lk__serve_calls_finish(&c->calls);
    if (last) chunk(j, c, &(struct delta){0}, true);
}

void lk__api_write_usage(struct lk__api_job *j) {
    struct lk_json_out o = lk_json_out(&j->out);
    lk_buf_printf(&j->out, "data: ");
    head(&o, j, j->ask.chat ? "chat.completion.chunk" : "text_completion");
    lk_put_key(&o, "choices"), lk_put_open(&o, '['), lk_put_close(&o, ']');
    usage(&o, j);
    lk_put_close(&o, '}');
    lk_buf_printf(&j->out, "\n\n");
}

/* --- At once --------------------------------------------------------------------------------------------- */

struct parts {
    struct lk__api_choice *c;
    struct lk_buf text, arguments, calls; /* calls: JSON, without brackets */
    struct lk_json_out o;                 /* onto calls */
    bool open;
};
static void close_call(struct parts *p) {
    if (!p->open) return;
    lk_put_key(&p->o, "arguments"), lk_put_string(&p->o, p->arguments.data, p->arguments.size);
    lk_put_close(&p->o, '}'), lk_put_close(&p->o, '}');
    p->arguments.size = 0, p->open = false;
}
static int collect(void *arg, enum lk__serve_calls_part part, const char *data, size_t size) {
    struct parts *p = arg;
    if (part == LK__SERVE_CALLS_TEXT) return lk_buf_append(&p->text, data, size);
    if (part == LK__SERVE_CALLS_ARGUMENTS) return lk_buf_append(&p->arguments, data, size);
    if (part == LK__SERVE_CALLS_END)
        close_call(p);
    else
        lk_put_open(&p->o, '{'), call_head(&p->o, p->c, lk_bytes(data, size)), p->open = true;
    return 0;
}

static void whole_message(struct lk_json_out *o, struct lk__api_choice *c) {
    struct parts p = {.c = c};
    p.o = lk_json_out(&p.calls);
    c->calls.tell = collect, c->calls.arg = &p;
    if (!c->job->ask.calls)
        o->failed |= lk_buf_append(&p.text, c->text.data, c->text.size) != 0;
    else
        o->failed |= lk__serve_calls_take(&c->calls, c->text.data, c->text.size) || lk__serve_calls_finish(&c->calls);
    close_call(&p); /* that the answer's end cut */
    lk_put_key(o, "message"), lk_put_open(o, '{');
    lk_put_key(o, "role"), lk_put_text(o, "assistant");
    lk_put_key(o, "content");
    if (p.calls.size && !p.text.size)
        lk_put_null(o);
    else
        lk_put_string(o, p.text.data, p.text.size);
    lk_put_key(o, "refusal"), lk_put_null(o);
    if (p.calls.size) {
        lk_put_key(o, "tool_calls"), lk_put_open(o, '[');
        lk_put_raw(o, p.calls.data, p.calls.size);
        lk_put_close(o, ']');
    }
    lk_put_close(o, '}');
    o->failed |= p.o.failed;
    lk_buf_release(&p.text), lk_buf_release(&p.arguments), lk_buf_release(&p.calls);
}

static void whole_choice(struct lk_json_out *o, struct lk__api_choice *c) {
    struct lk__api_job *j = c->job;
    lk_put_open(o, '{');
    lk_put_key(o, "index"), lk_put_unsigned(o, c->index);
    if (j->ask.chat)
        whole_message(o, c);
    else if (j->ask.echo) {
        const struct lk__api_prompt *p = &j->ask.prompts[c->index / j->ask.n];
        struct lk_buf all = LK_BUF_INIT;
        o->failed |=
            lk_tokenizer_decode(j->ask.model->tokenizer, p->t.ids + p->begins, p->t.count - p->begins, &all, NULL) ||
            lk_buf_append(&all, c->text.data, c->text.size);
        lk_put_key(o, "text"), lk_put_string(o, all.data, all.size);
        lk_buf_release(&all);
    } else
        lk_put_key(o, "text"), lk_put_string(o, c->text.data, c->text.size);
    logprobs(o, c);
    lk_put_key(o, "finish_reason"), lk_put_text(o, finish_reason(c));
    lk_put_close(o, '}');
}

/* Little-endian floats, as OpenAI's clients ask for them. */
static void put_base64(struct lk_json_out *o, const unsigned char *p, size_t size) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    struct lk_buf text = LK_BUF_INIT;
    for (size_t i = 0; i < size; i += 3) {
        unsigned three =
            (unsigned)p[i] << 16 | (i + 1 < size ? (unsigned)p[i + 1] << 8 : 0) | (i + 2 < size ? p[i + 2] : 0);
        char four[4] = {digits[three >> 18], digits[three >> 12 & 63], i + 1 < size ? digits[three >> 6 & 63] : '=',
                        i + 2 < size ? digits[three & 63] : '='};
        o->failed |= lk_buf_append(&text, four, 4) != 0;
    }
    lk_put_string(o, text.data, text.size);
    lk_buf_release(&text);
}
static void embeddings(struct lk_json_out *o, const struct lk__api_job *j) {
    uint64_t tokens = 0;
    lk_put_open(o, '{');
    lk_put_key(o, "object"), lk_put_text(o, "list");
    lk_put_key(o, "data"), lk_put_open(o, '[');
    for (uint32_t i = 0; i < j->choice_count; i++) {
        const struct lk_buf *floats = &j->choices[i].text;
        tokens += j->choices[i].result.prompt_tokens;
        lk_put_open(o, '{');
        lk_put_key(o, "object"), lk_put_text(o, "embedding");
        lk_put_key(o, "index"), lk_put_unsigned(o, i);
        lk_put_key(o, "embedding");
        if (j->ask.base64)
            put_base64(o, (const unsigned char *)floats->data, floats->size);
        else {
            lk_put_open(o, '[');
            for (size_t k = 0; k < floats->size / sizeof(float); k++)
                lk_put_float(o, ((const float *)(const void *)floats->data)[k]);
            lk_put_close(o, ']');
        }
        lk_put_close(o, '}');
    }
    lk_put_close(o, ']');
    lk_put_key(o, "model"), lk_put_text(o, j->ask.model->name);
    lk_put_key(o, "usage"), lk_put_open(o, '{');
    lk_put_key(o, "prompt_tokens"), lk_put_unsigned(o, tokens);
    lk_put_key(o, "total_tokens"), lk_put_unsigned(o, tokens);
    lk_put_close(o, '}');
    lk_put_close(o, '}');
}

void lk__api_write_whole(struct lk__api_job *j) {
    struct lk_json_out o = lk_json_out(&j->out);
    if (j->ask.embedding) {
        embeddings(&o, j);
        if (o.failed) j->gone = true;
        return;
    }
    head(&o, j, j->ask.chat ? "chat.completion" : "text_completion");
    lk_put_key(&o, "choices"), lk_put_open(&o, '[');
    for (uint32_t i = 0; i < j->choice_count; i++) whole_choice(&o, &j->choices[i]);
    lk_put_close(&o, ']');
    usage(&o, j);
    made_of(&o, j, j->choices, j->choice_count);
    lk_put_close(&o, '}');
    if (o.failed) j->gone = true;
}

void lk__api_error_json(struct lk_buf *out, int status, const char *code, const char *param, const char *message) {
    struct lk_json_out o = lk_json_out(out);
    lk_put_open(&o, '{');
    lk_put_key(&o, "error"), lk_put_open(&o, '{');
    lk_put_key(&o, "message"), lk_put_text(&o, message);
    lk_put_key(&o, "type"), lk_put_text(&o, status == 429   ? "rate_limit_error"
                                            : status >= 500 ? "server_error"
                                                            : "invalid_request_error");
    lk_put_key(&o, "param"), lk_put_text(&o, param && *param ? param : NULL);
    lk_put_key(&o, "code"), lk_put_text(&o, code);
    lk_put_close(&o, '}');
    lk_put_close(&o, '}');
}
