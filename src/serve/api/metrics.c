/* Metrics: counted anywhere, printed on request. */
#include "inside.h"

#include <stdio.h>

static const double bounds[LK__API_BUCKETS] = {0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2,
                                               0.3,   0.5,    1,     2,    5,    10,   20,   40,    80,  160};

void lk__api_observe(struct lk__api_histogram *h, uint64_t ns) {
    int i = 0;
    while (i < LK__API_BUCKETS && (double)ns * 1e-9 > bounds[i]) i++;
    atomic_fetch_add(&h->counts[i], 1);
    atomic_fetch_add(&h->sum_ns, ns);
}

static void head(struct lk_buf *out, const char *name, const char *type, const char *help) {
    lk_buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}
static void histogram(struct lk_buf *out, struct lk__api_histogram *h, const char *name, const char *help) {
    unsigned long long sum = 0;
    head(out, name, "histogram", help);
    for (int i = 0; i <= LK__API_BUCKETS; i++) {
        sum += atomic_load(&h->counts[i]);
        if (i < LK__API_BUCKETS)
            lk_buf_printf(out, "%s_bucket{le=\"%g\"} %llu\n", name, bounds[i], sum);
        else
            lk_buf_printf(out, "%s_bucket{le=\"+Inf\"} %llu\n", name, sum);
    }
    lk_buf_printf(out, "%s_sum %.9f\n%s_count %llu\n", name, (double)atomic_load(&h->sum_ns) * 1e-9, name, sum);
}

/* One value of each model. */
static void of_models(struct lk_api *api, struct lk_buf *out, const char *name, const char *type, const char *help,
                      double (*value)(const struct lk_batch_state *)) {
    head(out, name, type, help);
    for (size_t i = 0; i < api->o.model_count; i++) {
        struct lk_batch_state s;
        if (lk__api_is_alias(api, i)) continue;
        lk_batch_state(api->o.models[i].batch, &s);
        lk_buf_printf(out, "%s{model_name=\"", name);
        for (const char *p = api->o.models[i].name; *p; p++)
            lk_buf_printf(out, *p == '"' || *p == '\\' ? "\\%c" : "%c", *p);
        lk_buf_printf(out, "\"} %.17g\n", value(&s));
    }
}
#define VALUE(name, expression)                                                                                            \
    static double name(const struct lk_batch_state *s) {                                                                   \
        return expression;                                                                                                 \
    }
VALUE(running, s->running)
VALUE(waiting, s->waiting)
VALUE(usage, s->pages ? 1 - (double)(s->free_pages + s->cached_pages) / s->pages : 0)
VALUE(cached_share, s->pages ? (double)s->cached_pages / s->pages : 0)
VALUE(prompts, (double)s->prompt_tokens)
VALUE(drawn, (double)s->tokens)
VALUE(hits, (double)s->cached_tokens)
VALUE(guessed, (double)s->guessed)
VALUE(accepted, (double)s->accepted)
VALUE(preempted, (double)s->preempted)
VALUE(passes, (double)s->passes)

void lk__api_metrics_text(struct lk_api *api, struct lk_buf *out) {
    static const char *const reasons[] = {"length", "end", "stop", "abort", "timeout", "error"};
    struct lk__api_metrics *m = &api->metrics;
    of_models(api, out, "vllm:num_requests_running", "gauge", "Texts that are computed.", running);
    of_models(api, out, "vllm:num_requests_waiting", "gauge", "Texts that wait.", waiting);
    of_models(api, out, "vllm:kv_cache_usage_perc", "gauge", "Share of the pages that texts use, 0 to 1.", usage);
    of_models(api, out, "lockstep:kv_cache_kept_perc", "gauge", "Share of the pages kept for prompts to come, 0 to 1.",
              cached_share);
    of_models(api, out, "vllm:prompt_tokens_total", "counter", "Tokens of prompts of ended texts.", prompts);
    of_models(api, out, "vllm:generation_tokens_total", "counter", "Tokens drawn of ended texts.", drawn);
    of_models(api, out, "vllm:prefix_cache_hits_total", "counter", "Tokens of prompts that were not computed again.", hits);
    of_models(api, out, "vllm:num_preemptions_total", "counter", "Texts put back because pages ran out.", preempted);
    of_models(api, out, "vllm:spec_decode_num_draft_tokens_total", "counter", "Tokens guessed ahead.", guessed);
    of_models(api, out, "vllm:spec_decode_num_accepted_tokens_total", "counter", "Guessed tokens that were drawn.",
              accepted);
    of_models(api, out, "lockstep:passes_total", "counter", "Passes over the weights.", passes);
    head(out, "vllm:request_success_total", "counter", "Texts that ended, by how.");
    for (int i = 0; i <= LK_REQUEST_FAILED; i++)
        lk_buf_printf(out, "vllm:request_success_total{finished_reason=\"%s\"} %llu\n", reasons[i],
                      (unsigned long long)atomic_load(&m->ended[i]));
    head(out, "lockstep:refused_total", "counter", "Requests that were refused, by status.");
    for (int i = 400; i < 600; i++) {
        unsigned long long n = atomic_load(&m->refused[i]);
        if (n) lk_buf_printf(out, "lockstep:refused_total{status=\"%d\"} %llu\n", i, n);
    }
    histogram(out, &m->first, "vllm:time_to_first_token_seconds", "From a request to its first token.");
    histogram(out, &m->between, "vllm:inter_token_latency_seconds", "From one token to the next.");
    histogram(out, &m->queue, "vllm:request_queue_time_seconds", "From a request to its first pass.");
    histogram(out, &m->whole, "vllm:e2e_request_latency_seconds", "From a request to its end.");
    head(out, "lockstep:connections", "gauge", "Connections that are open.");
    lk_buf_printf(out, "lockstep:connections %u\n", lk_http_server_connections(api->server));
}
