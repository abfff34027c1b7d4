/* OpenAI's HTTP API over batches: docs/serving.md says what each route and parameter does. */
#ifndef LOCKSTEP_API_H
#define LOCKSTEP_API_H
#include "lockstep/model/models.h"
#include "lockstep/net/http_server.h"
#include "lockstep/net/keys.h"
#include "lockstep/serve/batch.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A model under the name that requests call it by. All borrowed until the API is closed. Several may share a batch:
 * aliases, of which the first one counts in metrics. */
struct lk_api_model {
    const char *name, *root; /* root: hexadecimal, of its weights */
    const struct lk_model *model;
    const struct lk_tokenizer *tokenizer;
    struct lk_batch *batch;
    enum lk_chat chat; /* LK_CHAT_NONE: no conversations */
    uint64_t created;  /* seconds since 1970 */
};
struct lk_api_options {
    const char *listen, *tls_certificate, *tls_key;
    struct lk_http_limits limits;
    struct lk_keys *keys; /* borrowed; NULL: anybody may ask */
    const struct lk_api_model *models;
    size_t model_count;
    uint32_t most_choices;   /* n, at most; 0: 16 */
    uint32_t timeout_ms;     /* of a request; 0: none */
    void (*tick)(void *arg); /* from lk_api_run, between passes, at least every 100 ms; may be NULL */
    void *arg;
};
struct lk_api;
/* Listens at once; answers when lk_api_run goes round. Errors: those of lk_http_server_open. */
int lk_api_open(const struct lk_api_options *, struct lk_api **out, struct lk_err *);
const char *lk_api_address(const struct lk_api *);
/* Goes from pass to pass until lk_api_stop, then until what was taken is done, at most drain_ms. From the thread whose
 * lk_math the batches have. */
void lk_api_run(struct lk_api *, uint32_t drain_ms);
/* Requests that come from now on for the models of this batch run on these weights (lk_batch_swap), of this root; those
 * before end on theirs. From any thread. */
int lk_api_swap(struct lk_api *, struct lk_batch *, const struct lk_batch_weights *, const char *root, struct lk_err *);
void lk_api_stop(struct lk_api *); /* from any thread, and from a signal's handler */
/* The batches must not be closed before. */
void lk_api_close(struct lk_api *);

#ifdef __cplusplus
}
#endif
#endif
