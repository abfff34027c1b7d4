/* Metrics of the server: histograms and ends are counted as they come, a batch's state when it is asked for. */
#include "inside.h"

#include <stdio.h>
#include <string.h>

static const double bounds[] = {0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2,
                                0.3,   0.5,    1,     2,    5,    10,   20,   40,    80,  160};

#define VALUE(name, expression)                                                                                            \
    static double name(const struct lk_batch_state *s) {                                                                   \
        return expression;                                                                                                 \
    }
VALUE(running, s->running)
VALUE(waiting, s->waiting)
VALUE(usage, s->pages ? 1 - (double)(s->free_pages + s->cached_pages) / s->pages : 0)
VALUE(kept, s->pages ? (double)s->cached_pages / s->pages : 0)
VALUE(prompts, (double)s->prompt_tokens)
VALUE(drawn, (double)s->tokens)
VALUE(hits, (double)s->cached_tokens)
VALUE(guessed, (double)s->guessed)
VALUE(accepted, (double)s->accepted)
VALUE(preempted, (double)s->preempted)
VALUE(passes, (double)s->passes)

static const struct {
    const char *name, *help;
    enum lk_metric_kind kind;
    double (*value)(const struct lk_batch_state *);
} states[LK__API_STATES] = {
    {"vllm:num_requests_running", "Texts that are computed.", LK_METRIC_GAUGE, running},
    {"vllm:num_requests_waiting", "Texts that wait.", LK_METRIC_GAUGE, waiting},
    {"vllm:kv_cache_usage_perc", "Share of the pages that texts use, 0 to 1.", LK_METRIC_GAUGE, usage},
    {"lockstep:kv_cache_kept_perc", "Share of the pages kept for prompts to come, 0 to 1.", LK_METRIC_GAUGE, kept},
    {"vllm:prompt_tokens_total", "Tokens of prompts of ended texts.", LK_METRIC_COUNTER, prompts},
    {"vllm:generation_tokens_total", "Tokens drawn of ended texts.", LK_METRIC_COUNTER, drawn},
    {"vllm:prefix_cache_hits_total", "Tokens of prompts that were not computed again.", LK_METRIC_COUNTER, hits},
    {"vllm:num_preemptions_total", "Texts put back because pages ran out.", LK_METRIC_COUNTER, preempted},
    {"vllm:spec_decode_num_draft_tokens_total", "Tokens guessed ahead.", LK_METRIC_COUNTER, guessed},
    {"vllm:spec_decode_num_accepted_tokens_total", "Guessed tokens that were drawn.", LK_METRIC_COUNTER, accepted},
    {"lockstep:passes_total", "Passes over the weights.", LK_METRIC_COUNTER, passes},
};

static int histogram(struct lk__api_metrics *m, const char *name, const char *help, struct lk_metric **out,
                     struct lk_err *err) {
    struct lk_metric_family f = {LK_METRIC_HISTOGRAM, name, help, bounds, sizeof bounds / sizeof *bounds};
    return lk_metrics_add(m->all, &f, NULL, 0, out, err);
}

int lk__api_metrics_open(struct lk_api *api, struct lk_err *err) {
    static const char *const reasons[] = {"length", "end", "stop", "abort", "timeout", "error"};
    static const struct lk_metric_family ended = {LK_METRIC_COUNTER, "vllm:request_success_total",
                                                  "Texts that ended, by how.", NULL, 0},
                                         connections = {LK_METRIC_GAUGE, "lockstep:connections",
                                                        "Connections that are open.", NULL, 0};
    struct lk__api_metrics *m = &api->metrics;
    pthread_mutex_init(&m->mutex, NULL);
    m->all = lk_metrics_create();
    m->states = lk_calloc(api->o.model_count, sizeof *m->states);
    m->told = lk_calloc(api->o.model_count, sizeof *m->told);
    if (!m->all || !m->states || !m->told) return lk_fail(err, LK_ENOMEM, "no memory for metrics");
    int code = LK_OK;
    for (size_t k = 0; k < LK__API_STATES && !code; k++)
        for (size_t i = 0; i < api->o.model_count && !code; i++) {
            struct lk_metric_family f = {states[k].kind, states[k].name, states[k].help, NULL, 0};
            if (!lk__api_is_alias(api, i))
                code = lk_metrics_add(m->all, &f, &(struct lk_metric_label){"model_name", api->o.models[i].name}, 1,
                                      &m->states[i][k], err);
        }
    for (size_t i = 0; i <= LK_REQUEST_FAILED && !code; i++)
        code =
            lk_metrics_add(m->all, &ended, &(struct lk_metric_label){"finished_reason", reasons[i]}, 1, &m->ended[i], err);
    if (!code)
        code = histogram(m, "vllm:time_to_first_token_seconds", "From a request to its first token.", &m->first, err);
    if (!code) code = histogram(m, "vllm:inter_token_latency_seconds", "From one token to the next.", &m->between, err);
    if (!code) code = histogram(m, "vllm:request_queue_time_seconds", "From a request to its first pass.", &m->queue, err);
    if (!code) code = histogram(m, "vllm:e2e_request_latency_seconds", "From a request to its end.", &m->whole, err);
    return code ? code : lk_metrics_add(m->all, &connections, NULL, 0, &m->connections, err);
}
void lk__api_metrics_close(struct lk_api *api) {
    lk_metrics_free(api->metrics.all);
    lk_free(api->metrics.states);
    lk_free(api->metrics.told);
    pthread_mutex_destroy(&api->metrics.mutex);
}

void lk__api_count_refused(struct lk_api *api, int status) {
    static const struct lk_metric_family refused = {LK_METRIC_COUNTER, "lockstep:refused_total",
                                                    "Requests that were refused, by status.", NULL, 0};
    struct lk__api_metrics *m = &api->metrics;
    char text[16];
    if (status < 0 || status >= 600) return;
    pthread_mutex_lock(&m->mutex);
    snprintf(text, sizeof text, "%d", status);
    if (!m->refused[status])
        (void)lk_metrics_add(m->all, &refused, &(struct lk_metric_label){"status", text}, 1, &m->refused[status], NULL);
    if (m->refused[status]) lk_metric_add(m->refused[status], 1);
    pthread_mutex_unlock(&m->mutex);
}

int lk__api_metrics_text(struct lk_api *api, struct lk_buf *out) {
    struct lk__api_metrics *m = &api->metrics;
    pthread_mutex_lock(&m->mutex);
    for (size_t i = 0; i < api->o.model_count; i++) {
        struct lk_batch_state s;
        lk_batch_state(api->o.models[i].batch, &s);
        for (size_t k = 0; k < LK__API_STATES && !lk__api_is_alias(api, i); k++) {
            double value = states[k].value(&s);
            if (states[k].kind == LK_METRIC_GAUGE)
                lk_metric_set(m->states[i][k], value);
            else
                lk_metric_add(m->states[i][k], value - m->told[i][k]);
            m->told[i][k] = value;
        }
    }
    lk_metric_set(m->connections, lk_http_server_connections(api->server));
    int code = lk_metrics_print(m->all, out);
    pthread_mutex_unlock(&m->mutex);
    return code;
}
