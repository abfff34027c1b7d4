/* What the server counts, with vLLM's names where they mean the same. Private to src/serve/api. */
#ifndef LOCKSTEP_SERVE_API_METRICS_H
#define LOCKSTEP_SERVE_API_METRICS_H
#include "lockstep/net/metrics.h"
#include "lockstep/serve/batch.h"
#include <pthread.h>

#define LK__API_STATES 11 /* of a batch, that are told */
struct lk__api_metrics {
    struct lk_metrics *all;
    struct lk_metric *first, *between, *queue, *whole; /* seconds */
    struct lk_metric *ended[LK_REQUEST_FAILED + 1];
    struct lk_metric *refused[600]; /* by status; NULL: none yet */
    struct lk_metric *connections;
    struct lk_metric *(*states)[LK__API_STATES]; /* of each model, from its batch */
    double (*told)[LK__API_STATES];              /* what they were last */
    pthread_mutex_t mutex;                       /* of states, told and refused */
};
struct lk_api;
int lk__api_metrics_open(struct lk_api *, struct lk_err *); /* also after a failure: close */
void lk__api_metrics_close(struct lk_api *);
void lk__api_count_refused(struct lk_api *, int status);
int lk__api_metrics_text(struct lk_api *, struct lk_buf *out);

#endif
