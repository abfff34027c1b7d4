/* A request on its way: submitted text by text, answered piece by piece or at once. */
#include "inside.h"

#include "lockstep/base/progress.h"
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#define RETRY_S 5 /* where the server can't know when it goes better */

uint64_t lk__api_random(void) {
    uint64_t x = 0;
    while (getrandom(&x, sizeof x, 0) != sizeof x) continue;
    return x;
}

static void free_job(struct lk__api_job *j) {
    for (uint32_t i = 0; j->choices && i < j->choice_count; i++) {
        lk_buf_release(&j->choices[i].text);
        lk_buf_release(&j->choices[i].told);
        lk_buf_release(&j->choices[i].marks);
        lk_matcher_free(j->choices[i].matcher);
        lk__serve_calls_release(&j->choices[i].calls);
    }
    if (j->grammar) lk__api_grammar_drop(j->api, j->grammar);
    lk_free(j->choices);
    lk_buf_release(&j->out);
    lk__api_ask_release(&j->ask);
    pthread_mutex_destroy(&j->mutex);
    lk_free(j);
}

static void cancel(struct lk__api_job *j) {
    for (uint32_t i = 0; i < j->choice_count; i++) {
        uint64_t id = atomic_load(&j->choices[i].id);
        if (id) lk_batch_cancel(j->ask.model->batch, id);
    }
}

/* --- From the thread that makes tokens ------------------------------------------------------------------------------- */

/* What is in `out` goes to the client; one that does not take it has gone. */
static void send_out(struct lk__api_job *j) {
    static const struct lk_http_field fields[] = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}};
    if (!j->begun && lk_http_begin(j->x, 200, "text/event-stream; charset=utf-8", fields, 2)) j->gone = true;
    j->begun = true;
    if (j->out.size && lk_http_write(j->x, j->out.data, j->out.size)) j->gone = true;
    j->out.size = 0;
}

static int take_token(void *arg, const struct lk_drawn_token *t, bool prompt) {
    struct lk__api_choice *c = arg;
    struct lk__api_job *j = c->job;
    uint64_t now = lk_clock_ns();
    if (!prompt) {
        if (c->last_ns) lk_metric_observe(j->api->metrics.between, 1e-9 * (double)(now - c->last_ns));
        c->last_ns = now;
    }
    if (j->ask.receipt && !prompt && lk__api_receipt_add(c, t)) j->gone = true;
    if (!j->ask.r.logprobs) return j->gone;
    struct lk__api_told told = {*t, prompt};
    pthread_mutex_lock(&j->mutex);
    if (lk_buf_append(&c->told, &told, sizeof told)) j->gone = true;
    pthread_mutex_unlock(&j->mutex);
    return j->gone;
}

static int take_text(void *arg, const char *data, size_t size) {
    struct lk__api_choice *c = arg;
    struct lk__api_job *j = c->job;
    pthread_mutex_lock(&j->mutex);
    if (lk_buf_append(&c->text, data, size)) j->gone = true;
    if (j->ask.stream && !j->failed && !j->gone) {
        lk__api_write_piece(j, c, false);
        send_out(j);
    }
    pthread_mutex_unlock(&j->mutex);
    return j->gone;
}

static void take_embedding(void *arg, const float *mean) {
    struct lk__api_choice *c = arg;
    if (lk_buf_append(&c->text, mean, c->job->ask.model->model->layout.config.width * sizeof *mean)) c->job->gone = true;
}

/* The last of its texts has ended: the answer is whole. */
static void finish(struct lk__api_job *j) {
    struct lk_api *api = j->api;
    uint64_t tokens = 0;
    for (uint32_t i = 0; i < j->choice_count; i++)
        tokens += j->choices[i].result.tokens + (i % j->ask.n ? 0 : j->choices[i].result.prompt_tokens);
    if (j->has_key) lk_keys_end(api->o.keys, j->key, tokens);
    if (j->failed && !j->begun)
        lk__api_refuse(api, j->x, &j->problem);
    else if (j->ask.stream) {
        if (j->failed) {
            lk_buf_printf(&j->out, "data: ");
            lk__api_error_json(&j->out, j->problem.status, j->problem.code, j->problem.param, j->problem.err.message);
            lk_buf_printf(&j->out, "\n\n");
        } else if (j->ask.include_usage)
            lk__api_write_usage(j);
        lk_buf_printf(&j->out, "data: [DONE]\n\n");
        send_out(j);
        lk_http_end(j->x);
    } else {
        lk__api_write_whole(j);
        if (j->gone)
            lk_http_end(j->x);
        else
            lk_http_respond(j->x, 200, "application/json", NULL, 0, j->out.data, j->out.size);
    }
    free_job(j);
    atomic_fetch_sub(&api->jobs, 1);
}

static void fail(struct lk__api_job *j, int status, const char *code, const char *param, const char *what) {
    if (j->failed) return;
    j->failed = true;
    j->problem = (struct lk__api_problem){.status = status, .code = code, .retry_s = status == 503 ? RETRY_S : 0};
    strcpy(j->problem.param, param);
    lk_fail(&j->problem.err, LK_EBUSY, "%s", what);
    cancel(j); /* the answer has no place for the others */
}

/* A grammar that this model's text cannot follow is the request's mistake. */
static void fail_text(struct lk__api_choice *c) {
    const char *why = c->matcher ? lk_matcher_stuck(c->matcher) : NULL;
    if (why)
        fail(c->job, 400, "grammar", lk__api_form_param(c->job->ask.form), why);
    else
        fail(c->job, 503, "out_of_memory", "", "the server has no memory for the text");
}

static void take_end(void *arg, const struct lk_request_result *r) {
    struct lk__api_choice *c = arg;
    struct lk__api_job *j = c->job;
    struct lk__api_metrics *m = &j->api->metrics;
    lk_metric_add(m->ended[r->end], 1);
    if (r->tokens) lk_metric_observe(m->first, 1e-9 * (double)r->first_ns);
    if (r->waited_ns) lk_metric_observe(m->queue, 1e-9 * (double)r->waited_ns);
    lk_metric_observe(m->whole, 1e-9 * (double)r->total_ns);
    pthread_mutex_lock(&j->mutex);
    atomic_store(&c->id, 0);
    c->result = *r;
    if (r->end == LK_REQUEST_LATE) fail(j, 503, "timeout", "", "the request took too long");
    if (r->end == LK_REQUEST_FAILED) fail_text(c);
    if (r->end == LK_REQUEST_CANCELLED && !j->gone) fail(j, 503, "shutting_down", "", "the server shuts down");
    if (j->ask.stream && !j->failed && !j->gone) {
        lk__api_write_piece(j, c, true);
        send_out(j);
    }
    bool last = --j->left == 0;
    pthread_mutex_unlock(&j->mutex);
    if (last) finish(j);
}

/* --- From the server's threads ---------------------------------------------------------------------------------------- */

static void client_gone(void *arg) {
    struct lk__api_job *j = arg;
    j->gone = true;
    cancel(j);
}

static int submit(struct lk__api_job *j, struct lk__api_choice *c) {
    const struct lk__api_ask *a = &j->ask;
    const struct lk_tokens *prompt = &a->prompts[c->index / a->n].t;
    struct lk_request r = a->r;
    uint64_t id;
    r.prompt = prompt->ids, r.prompt_count = prompt->count;
    uint32_t most = lk_batch_most(a->model->batch);
    if (a->to_the_end) r.max_tokens = prompt->count < most ? most - (uint32_t)prompt->count : 1;
    if (a->embedding) r.embedding = take_embedding;
    c->max_tokens = r.max_tokens, r.receipt = a->receipt;
    r.sampling.choice = c->index % a->n;
    r.owner = j->has_key ? j->key + 1 : 0;
    if (j->api->o.timeout_ms) r.deadline_ns = j->began_ns + j->api->o.timeout_ms * UINT64_C(1000000);
    r.text = take_text, r.token = take_token, r.done = take_end, r.arg = c;
    const struct lk_vocabulary *vocabulary;
    int code = LK_OK;
    if (j->grammar) code = lk__api_vocabulary(j->api, a, &vocabulary, &j->problem.err);
    if (j->grammar && !code) code = lk_matcher_create(j->grammar->grammar, vocabulary, &c->matcher, &j->problem.err);
    r.matcher = c->matcher;
    if (!code) code = lk_batch_submit(a->model->batch, &r, &id, &j->problem.err);
    if (!code) atomic_store(&c->id, id);
    return code;
}

static void submit_all(struct lk__api_job *j) {
    uint32_t i = 0, places = lk_batch_places(j->ask.model->batch);
    int code = LK_OK;
    if (j->choice_count > places) /* waiting would not help */
        code =
            lk_fail(&j->problem.err, LK_EINVAL,
                    "n times the number of prompts is %u texts, and this server has places for %u: ask for fewer at once",
                    j->choice_count, places);
    for (; !code && i < j->choice_count; i++)
        if ((code = submit(j, &j->choices[i]))) break;
    if (!code) return;
    j->failed = true; /* those that were taken end at once; the others never began */
    j->problem.status = code == LK_EBUSY ? 429 : code == LK_ENOMEM ? 503 : 400;
    j->problem.code = code == LK_EBUSY                                                 ? "rate_limit_exceeded"
                      : code == LK_EINVAL && strstr(j->problem.err.message, "context") ? "context_length_exceeded"
                                                                                       : NULL;
    j->problem.retry_s = code == LK_EINVAL ? 0 : 1;
    if (strstr(j->problem.err.message, "prompt"))
        strcpy(j->problem.param, j->ask.chat ? "messages" : j->ask.embedding ? "input" : "prompt");
    if (code == LK_EUNSUPPORTED) strcpy(j->problem.param, lk__api_form_param(j->ask.form));
    j->left -= j->choice_count - i;
}

void lk__api_start(struct lk_api *api, struct lk_http_exchange *x, struct lk__api_ask *a, struct lk__api_grammar *grammar,
                   bool has_key, uint32_t key) {
    struct lk__api_job *j = lk_calloc(1, sizeof *j);
    uint32_t count = a->n * (uint32_t)a->prompt_count;
    struct lk__api_choice *choices = j ? lk_calloc(count, sizeof *choices) : NULL;
    if (!choices) {
        struct lk__api_problem p = {.status = 503, .retry_s = 1};
        lk_fail(&p.err, LK_ENOMEM, "no memory for a request");
        if (has_key) lk_keys_end(api->o.keys, key, 0);
        if (grammar) lk__api_grammar_drop(api, grammar);
        lk__api_refuse(api, x, &p);
        lk__api_ask_release(a);
        lk_free(j);
        return;
    }
    pthread_mutex_init(&j->mutex, NULL);
    j->api = api, j->x = x, j->ask = *a, j->has_key = has_key, j->key = key, j->grammar = grammar;
    j->choices = choices, j->choice_count = j->left = count;
    j->created = (uint64_t)time(NULL), j->began_ns = lk_clock_ns();
    snprintf(j->id, sizeof j->id, "%s-%016llx%08llx", a->chat ? "chatcmpl" : "cmpl", (unsigned long long)lk__api_random(),
             (unsigned long long)(lk__api_random() & 0xffffffff));
    for (uint32_t i = 0; i < count; i++) {
        choices[i].job = j, choices[i].index = i;
        choices[i].calls = (struct lk__serve_calls){.how = a->calls, .anywhere = a->calls_anywhere};
    }
    atomic_fetch_add(&api->jobs, 1);
    pthread_mutex_lock(&j->mutex); /* nothing is told before all are submitted */
    pthread_mutex_lock(&api->swapping);
    lk__api_root(api, j->ask.model, j->root);
    submit_all(j);
    pthread_mutex_unlock(&api->swapping);
    bool nothing = j->left == 0;
    if (j->failed) cancel(j);
    if (!nothing) lk_http_on_gone(x, client_gone, j);
    if (j->gone) cancel(j);
    pthread_mutex_unlock(&j->mutex);
    if (nothing)
        finish(j);
    else
        lk_batch_wake(api->o.models[0].batch);
}
