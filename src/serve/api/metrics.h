/* Counters of the server in Prometheus' text format, with vLLM's names where they mean the same. Private to src/serve/api.
 */
#ifndef LOCKSTEP_SERVE_API_METRICS_H
#define LOCKSTEP_SERVE_API_METRICS_H
#include "lockstep/serve/batch.h"
#include <stdatomic.h>

#define LK__API_BUCKETS 20
struct lk__api_histogram {
    atomic_ullong counts[LK__API_BUCKETS + 1], sum_ns;
};
struct lk__api_metrics {
    struct lk__api_histogram first, between, queue, whole;
    atomic_ullong ended[LK_REQUEST_FAILED + 1], refused[600], bytes;
};
void lk__api_observe(struct lk__api_histogram *, uint64_t ns);
struct lk_api;
void lk__api_metrics_text(struct lk_api *, struct lk_buf *out);

#endif
