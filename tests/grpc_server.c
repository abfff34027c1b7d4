/* grpc_server ADDRESS [DESCRIPTORS] [CERTIFICATE KEY]: the four kinds of calls of tests/grpc/echo.proto, for real clients
 * of gRPC. Prints its address; SIGTERM drains, SIGUSR1 prints counts. With LK_GRPC_KEY a call needs "authorization: Bearer
 * KEY". */
#include "lockstep/net/grpc_server.h"
#include "lockstep/base/file.h"
#include "lockstep/base/progress.h"
#include "lockstep/net/metrics.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static long number(const struct lk_grpc_call *call, const char *name, long otherwise) {
    const char *text = lk_grpc_metadata(call, name, 0);
    return text ? atol(text) : otherwise;
}
/* What metadata asks for before an answer. 0, or the call has its status. */
static int wishes(struct lk_grpc_call *call, struct lk_err *err) {
    const char *echo = lk_grpc_metadata(call, "x-echo", 0);
    struct lk_buf binary = LK_BUF_INIT;
    long status = number(call, "x-status", 0), left = number(call, "x-sleep-ms", 0);
    if (number(call, "x-gzip", 0)) lk_grpc_compress(call);
    if (echo && lk_grpc_set_header(call, "x-echo", echo, strlen(echo), err)) return err->code;
    if (!lk_grpc_metadata_bytes(call, "x-echo-bin", 0, &binary) &&
        lk_grpc_set_trailer(call, "x-echo-bin", binary.data, binary.size, err))
        return err->code;
    lk_buf_release(&binary);
    for (; left > 0 && !lk_grpc_cancelled(call); left -= 5) nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    if (!status) return 0;
    static const char details[] = "\x08\x05\x12\x04"
                                  "here"; /* google.rpc.Status: code 5, message "here" */
    lk_grpc_finish(call, (enum lk_grpc_status)status, "wished: 100% \xC3\xA4", lk_bytes(details, sizeof details - 1));
    return LK_ESTOPPED;
}

static int one(void *arg, struct lk_grpc_call *call, struct lk_err *err) {
    struct lk_bytes m;
    (void)arg;
    int code = lk_grpc_receive(call, &m, err);
    if (!code) code = wishes(call, err);
    return code ? code : lk_grpc_send(call, m.data, m.size, err);
}
static int down(void *arg, struct lk_grpc_call *call, struct lk_err *err) {
    struct lk_bytes m;
    (void)arg;
    int code = lk_grpc_receive(call, &m, err);
    if (!code) code = wishes(call, err);
    for (long i = 0, n = number(call, "x-count", 1); i < n && !code; i++) code = lk_grpc_send(call, m.data, m.size, err);
    return code;
}
static int up(void *arg, struct lk_grpc_call *call, struct lk_err *err) {
    struct lk_buf all = LK_BUF_INIT;
    struct lk_bytes m;
    int code;
    (void)arg;
    while (!(code = lk_grpc_receive(call, &m, err)))
        if (lk_buf_append(&all, m.data, m.size)) break;
    if (code == LK_ENOTFOUND && !(code = wishes(call, err))) code = lk_grpc_send(call, all.data, all.size, err);
    lk_buf_release(&all);
    return code;
}
static int both(void *arg, struct lk_grpc_call *call, struct lk_err *err) {
    struct lk_bytes m;
    int code;
    (void)arg;
    while (!(code = lk_grpc_receive(call, &m, err)) && !(code = wishes(call, err)) &&
           !(code = lk_grpc_send(call, m.data, m.size, err))) {}
    return code == LK_ENOTFOUND ? 0 : code;
}

static enum lk_grpc_status authorize(void *key, struct lk_grpc_call *call, uint64_t *who, struct lk_err *err) {
    const char *given = lk_grpc_metadata(call, "authorization", 0);
    if (given && !strncmp(given, "Bearer ", 7) && !strcmp(given + 7, key)) return *who = 1, LK_GRPC_OK;
    lk_fail(err, LK_EINVAL, "this server wants a key");
    return LK_GRPC_UNAUTHENTICATED;
}

int main(int argc, char **argv) {
    static const struct lk_grpc_method methods[] = {{"/lockstep.test.Echo/One", LK_GRPC_UNARY, one, NULL},
                                                    {"/lockstep.test.Echo/Down", LK_GRPC_SERVER_STREAM, down, NULL},
                                                    {"/lockstep.test.Echo/Up", LK_GRPC_CLIENT_STREAM, up, NULL},
                                                    {"/lockstep.test.Echo/Both", LK_GRPC_BIDI, both, NULL}};
    struct lk_err err = {0};
    struct lk_buf set = LK_BUF_INIT;
    struct lk_grpc_server *server;
    sigset_t signals;
    int got = 0;
    sigemptyset(&signals), sigaddset(&signals, SIGTERM), sigaddset(&signals, SIGINT), sigaddset(&signals, SIGUSR1);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    if (argc < 2) return 2;
    if (argc > 2 && *argv[2] && lk_file_read(argv[2], 1 << 20, &set, &err)) return fprintf(stderr, "%s\n", err.message), 1;
    struct lk_bytes descriptors = lk_bytes(set.data, set.size);
    struct lk_metrics *metrics = lk_metrics_create();
    struct lk_grpc_options o = {.listen = argv[1],
                                .methods = methods,
                                .method_count = sizeof methods / sizeof *methods,
                                .descriptors = &descriptors,
                                .descriptor_count = set.size > 0,
                                .metrics = metrics,
                                .tls_certificate = argc > 4 ? argv[3] : NULL,
                                .tls_key = argc > 4 ? argv[4] : NULL};
    if ((o.arg = getenv("LK_GRPC_KEY"))) o.authorize = authorize;
    if (getenv("LK_GRPC_STREAMS")) o.limits.streams = (uint32_t)atoi(getenv("LK_GRPC_STREAMS"));
    if (lk_grpc_server_open(&o, &server, &err)) return fprintf(stderr, "%s\n", err.message), 1;
    printf("%s\n", lk_grpc_server_address(server));
    fflush(stdout);
    while (!sigwait(&signals, &got) && got == SIGUSR1) {
        struct lk_grpc_counts c;
        lk_grpc_server_count(server, &c);
        printf("connections %u calls %u running %u started %llu finished %llu cancelled %llu refused %llu abuse %llu "
               "stalled %llu "
               "hops %llu overtaken %llu\n",
               c.connections, c.calls, c.running, (unsigned long long)c.started, (unsigned long long)c.finished,
               (unsigned long long)c.cancelled, (unsigned long long)c.refused, (unsigned long long)c.abuse,
               (unsigned long long)c.stalled, (unsigned long long)c.hops, (unsigned long long)c.overtaken);
        fflush(stdout);
    }
    lk_grpc_server_close(server, 5000);
    struct lk_buf text = LK_BUF_INIT;
    if (getenv("LK_GRPC_METRICS") && !lk_metrics_print(metrics, &text)) fwrite(text.data, 1, text.size, stdout);
    lk_buf_release(&text);
    lk_buf_release(&set);
    lk_metrics_free(metrics);
    return 0;
}
