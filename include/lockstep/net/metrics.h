/* Counters, gauges and histograms for Prometheus, printed in its text format 0.0.4 ("text/plain; version=0.0.4"). */
#ifndef LOCKSTEP_METRICS_H
#define LOCKSTEP_METRICS_H
#include "lockstep/base/err.h"
#include "lockstep/base/mem.h"

#ifdef __cplusplus
extern "C" {
#endif

struct lk_metrics;
struct lk_metric; /* one series: a family's name with values of its labels */
enum lk_metric_kind { LK_METRIC_COUNTER, LK_METRIC_GAUGE, LK_METRIC_HISTOGRAM };
struct lk_metric_family {
    enum lk_metric_kind kind;
    const char *name, *help; /* a counter's name ends in _total */
    const double *bounds;    /* (bound_count): of a histogram's buckets, growing; +Inf comes by itself */
    size_t bound_count;
};
struct lk_metric_label {
    const char *name, *value; /* value: any UTF-8 */
};

struct lk_metrics *lk_metrics_create(void); /* NULL: out of memory */
void lk_metrics_free(struct lk_metrics *);  /* and all of its series; NULL is fine */
/* A series, new or the one that is there for the same labels in the same order; it starts with 0 and lives as long as the
 * metrics. All is copied. LK_EINVAL: a name, label or bound that Prometheus does not take, a family that is there with
 * another kind, help or bounds, or the 10,001st series (label values must not come from whoever asks); LK_ENOMEM.
 * Threads: any, as all that follow. */
int lk_metrics_add(struct lk_metrics *, const struct lk_metric_family *, const struct lk_metric_label *, size_t labels,
                   struct lk_metric **out, struct lk_err *);
void lk_metric_add(struct lk_metric *, double);     /* to a counter (not negative) or a gauge */
void lk_metric_set(struct lk_metric *, double);     /* a gauge */
void lk_metric_observe(struct lk_metric *, double); /* by a histogram; NaN is left out */
/* Appends all families in the order of their first series. LK_ENOMEM: out is as it was. */
int lk_metrics_print(struct lk_metrics *, struct lk_buf *out);

#ifdef __cplusplus
}
#endif
#endif
