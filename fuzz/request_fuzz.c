/* clang -fsanitize=fuzzer,address: bodies of requests. What is refused has a status and a message; what is taken is within
 * its limits and can be submitted, or is refused there; it runs, and its answer is JSON, whole and as a stream's piece. A
 * body that is a receipt is verified or refused. */
#include "lockstep/math/math.h"
#include "lockstep/serve/receipt.h"
#include "serve/api/inside.h"
#include <stdlib.h>
#include <string.h>

static struct lk_api api;
static struct lk_api_model served;
static struct lk_model model;
static char roots[1][LK_ROOT_HEX];
static size_t text_most[1] = {300};

static void set_up(void) {
    static const struct lk_model_config config = {LK_LLAMA, 1, 16, 2, 1, 8, 16, 40, 310, true, 1e-5, 10000, 0.02};
    static const char text[] = "abc abc abc the the the cat sat on a mat";
    struct lk_bytes b = lk_bytes(text, sizeof text - 1);
    struct lk_tokenizer *t;
    struct lk_pool *pool;
    struct lk_math *math;
    struct lk_batch *batch;
    struct lk_err err;
    if (lk_layout_init(&model.layout, &config, &err) || lk_tokenizer_train(&b, 1, 264, NULL, NULL, NULL, &t, &err)) abort();
    if (lk_pool_open(1, &pool, &err) || lk_math_open(pool, NULL, &math, &err)) abort();
    float *w = lk_alloc(model.layout.floats * sizeof *w);
    lk_layout_initialise(&model.layout, math, 1, w);
    model.weights = w, model.begin = model.text_begin = UINT32_MAX;
    model.manifest = json_object();
    struct lk_batch_options o = {.slots = 4, .pages = 64, .page_positions = 8, .queue = 4000};
    if (lk_batch_open(math, t, &(struct lk_batch_weights){&model.layout, w, NULL, NULL}, &o, &batch, &err)) abort();
    served = (struct lk_api_model){.name = "m", .root = "00", .model = &model, .tokenizer = t, .batch = batch};
    api.o = (struct lk_api_options){.models = &served, .model_count = 1, .most_choices = 4};
    api.roots = roots, api.text_most = text_most;
    pthread_mutex_init(&api.swapping, NULL);
}

static void ended(void *arg, const struct lk_request_result *r) {
    struct lk__api_choice *c = arg;
    c->result = *r, c->opened = true;
}
static int heard(void *arg, const char *data, size_t size) {
    return lk_buf_append(&((struct lk__api_choice *)arg)->text, data, size);
}
static int told(void *arg, const struct lk_drawn_token *t, bool prompt) {
    struct lk__api_choice *c = arg;
    struct lk__api_told told = {*t, prompt};
    if (c->job->ask.receipt && !prompt && lk__api_receipt_add(c, t)) abort();
    return c->job->ask.r.logprobs && lk_buf_append(&c->told, &told, sizeof told);
}
static void embedded(void *arg, const float *mean) {
    if (lk_buf_append(&((struct lk__api_choice *)arg)->text, mean, model.layout.config.width * sizeof *mean)) abort();
}

static void must_be_json(const struct lk_buf *text, bool pieces) {
    struct lk_err err;
    for (const char *at = text->data, *end; at && *at; at = end + 2) {
        end = pieces ? strstr(at, "\n\n") : at + strlen(at);
        if (!end || (pieces && strncmp(at, "data: ", 6))) abort();
        if (pieces) at += 6;
        json_t *v = lk_json_parse_zeros(at, (size_t)(end - at), "answer", &err);
        if (!v) {
            fprintf(stderr, "%s\n%s\n", err.message, at);
            abort();
        }
        json_decref(v);
        if (!pieces) return;
    }
}

static void run(struct lk__api_ask *a) {
    struct lk__api_job job = {.api = &api, .ask = *a, .id = "x", .root = "00"};
    struct lk__api_choice *all = lk_calloc(a->n * a->prompt_count, sizeof *all);
    struct lk_err err;
    job.choices = all;
    for (uint32_t i = 0; i < a->n * a->prompt_count && i < 8; i++) {
        struct lk_request r = a->r;
        all[i].job = &job, all[i].index = i;
        r.prompt = a->prompts[i / a->n].t.ids, r.prompt_count = a->prompts[i / a->n].t.count;
        if (a->to_the_end || r.max_tokens > 8) r.max_tokens = 8;
        r.sampling.choice = i % a->n, r.receipt = a->receipt;
        if (a->embedding) r.embedding = embedded;
        r.text = heard, r.token = told, r.done = ended, r.arg = &all[i];
        if (lk_batch_submit(served.batch, &r, NULL, &err)) {
            if (!*err.message) abort();
            break;
        }
        all[i].max_tokens = r.max_tokens;
        job.choice_count = i + 1;
    }
    while (lk_batch_step(served.batch)) continue;
    for (uint32_t i = 0; i < job.choice_count; i++)
        if (!all[i].opened) abort();
    for (uint32_t i = 0; i < job.choice_count; i++) all[i].opened = false;
    if (job.choice_count == a->n * a->prompt_count) {
        if (a->stream && !a->embedding)
            for (uint32_t i = 0; i < job.choice_count; i++) lk__api_write_piece(&job, &all[i], true);
        else
            lk__api_write_whole(&job);
        must_be_json(&job.out, a->stream && !a->embedding);
    }
    for (uint32_t i = 0; i < a->n * a->prompt_count; i++)
        lk_buf_release(&all[i].text), lk_buf_release(&all[i].told), lk_buf_release(&all[i].marks);
    lk_buf_release(&job.out);
    lk_free(all);
}

static void verify(const uint8_t *data, size_t size) {
    struct lk_err err = {0};
    struct lk_receipt_result result;
    json_t *v = lk_json_parse_zeros((const char *)data, size, "receipt", &err);
    if (!v) return;
    int code = lk_receipt_verify(served.batch, served.tokenizer, v, "00", &result, &err);
    if (code && !*err.message) abort();
    json_decref(v);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!api.roots) set_up();
    if (!size) return 0;
    struct lk__api_problem p = {0};
    struct lk__api_ask a;
    enum lk__api_route route = data[0] % 4 + LK__API_COMPLETIONS;
    served.chat = data[0] & 4 ? LK_CHATML : LK_CHAT_NONE;
    if (route > LK__API_EMBEDDINGS) {
        verify(data + 1, size - 1);
        return 0;
    }
    if (lk__api_parse(&api, route, lk_bytes(data + 1, size - 1), &a, &p)) {
        if (p.status < 400 || p.status > 599 || !*p.err.message) abort();
        struct lk_buf text = LK_BUF_INIT;
        lk__api_error_json(&text, p.status, p.code, p.param, p.err.message);
        must_be_json(&text, false);
        lk_buf_release(&text);
        return 0;
    }
    run(&a);
    lk__api_ask_release(&a);
    return 0;
}
