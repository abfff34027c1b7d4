/* Counters for Prometheus. Series are made with the server, and those of a status with its first call. */
#include "lockstep/base/progress.h"
#include "lockstep/net/metrics.h"
#include "net/grpc_inside.h"
#include <string.h>

static const double seconds[] = {0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025,
                                 0.05,   0.1,     0.25,   0.5,   1,      2.5,   5,    10};
static const struct lk_metric_family started = {LK_METRIC_COUNTER, "lk_grpc_started_total", "Calls that began.", NULL, 0},
                                     handled = {LK_METRIC_COUNTER, "lk_grpc_handled_total", "Calls that ended.", NULL, 0},
                                     took = {LK_METRIC_HISTOGRAM, "lk_grpc_seconds", "From a call's headers to its status.",
                                             seconds, sizeof seconds / sizeof *seconds},
                                     connections = {LK_METRIC_GAUGE, "lk_grpc_connections", "Connections now.", NULL, 0},
                                     calls = {LK_METRIC_GAUGE, "lk_grpc_calls", "Calls now.", NULL, 0},
                                     in = {LK_METRIC_COUNTER, "lk_grpc_received_bytes_total", "Bytes of messages.", NULL,
                                           0},
                                     out = {LK_METRIC_COUNTER, "lk_grpc_sent_bytes_total", "Bytes of messages.", NULL, 0};

int lk__grpc_metrics_open(struct lk_grpc_server *s, struct lk_metrics *m, struct lk_err *err) {
    int code = LK_OK;
    if (!(s->metrics = m)) return LK_OK;
    for (size_t i = 0; i < s->method_count && !code; i++) {
        struct lk_metric_label path = {"method", s->methods[i].m.path};
        code = lk_metrics_add(m, &started, &path, 1, &s->methods[i].started, err);
        if (!code) code = lk_metrics_add(m, &took, &path, 1, &s->methods[i].seconds, err);
    }
    if (!code) code = lk_metrics_add(m, &connections, NULL, 0, &s->gauge_connections, err);
    if (!code) code = lk_metrics_add(m, &calls, NULL, 0, &s->gauge_calls, err);
    if (!code) code = lk_metrics_add(m, &in, NULL, 0, &s->bytes_in, err);
    if (!code) code = lk_metrics_add(m, &out, NULL, 0, &s->bytes_out, err);
    return code;
}
void lk__grpc_metrics_started(struct lk_grpc_call *call) {
    if (call->server->metrics) lk_metric_add(call->method->started, 1);
}
void lk__grpc_metrics_over(struct lk_grpc_call *call) {
    struct lk__grpc_method *m = call->method;
    unsigned status = call->status <= 16 ? call->status : LK_GRPC_UNKNOWN;
    if (!call->server->metrics || !m) return;
    struct lk_metric_label labels[] = {{"method", m->m.path}, {"status", lk_grpc_status_name((int)status)}};
    if (!m->handled[status] && lk_metrics_add(call->server->metrics, &handled, labels, 2, &m->handled[status], NULL))
        return;
    lk_metric_add(m->handled[status], 1);
    lk_metric_observe(m->seconds, (double)(lk_clock_ns() - call->begun_ns) / 1e9);
}
void lk__grpc_metrics_in(struct lk_grpc_server *s, size_t size) {
    if (s->metrics) lk_metric_add(s->bytes_in, (double)size);
}
void lk__grpc_metrics_out(struct lk_grpc_server *s, size_t size) {
    if (s->metrics) lk_metric_add(s->bytes_out, (double)size);
}
void lk__grpc_metrics_calls(struct lk_grpc_server *s) {
    if (!s->metrics) return;
    lk_metric_set(s->gauge_connections, s->counts.connections);
    lk_metric_set(s->gauge_calls, s->counts.calls);
}
