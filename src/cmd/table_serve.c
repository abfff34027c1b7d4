/* lockstep table serve */
#include "cmd.h"

#include "lockstep/net/http_server.h"
#include "lockstep/net/metrics.h"
#include "lockstep/store/bigtable.h"
#include <malloc.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

static struct {
    const char *listen, *keys, *certificate, *key, *project, *instance, *metrics;
    bool no_keys;
    int names;
    uint32_t snapshot_s, drain_s, connections, of_one, streams, workers;
} wanted;

static volatile sig_atomic_t ends, reread;
static void on_signal(int number) {
    if (number == SIGHUP)
        reread = 1;
    else
        ends = 1;
}

static int check(struct cmd_context *c) {
    bool here = lk_http_is_loopback(wanted.listen) || !strncmp(wanted.listen, "unix:", 5);
    if (wanted.keys && wanted.no_keys) return cmd_usage_error(c, "--keys and --no-keys do not go together");
    if (!wanted.keys && !wanted.no_keys && !here)
        return cmd_usage_error(c,
                               "--listen %s lets others come: give --keys FILE (`lockstep serve key NAME` makes keys), or "
                               "--no-keys to let anybody read and write",
                               wanted.listen);
    if (!wanted.certificate != !wanted.key) return cmd_usage_error(c, "--tls-cert and --tls-key go together");
    return CMD_OK;
}

/* --- metrics: a page of their own ------------------------------------------------------------------------ */

static void metrics_page(void *arg, struct lk_http_exchange *x) {
    struct lk_buf text = LK_BUF_INIT;
    bool found = !strcmp(lk_http_path(x), "/metrics") && !lk_metrics_print(arg, &text);
    lk_http_respond(x, found ? 200 : 404, "text/plain; version=0.0.4", NULL, 0, found ? text.data : "see /metrics\n",
                    found ? text.size : 13);
    lk_buf_release(&text);
}
static int open_metrics(struct lk_metrics **metrics, struct lk_http_server **page, struct lk_err *err) {
    if (!wanted.metrics) return 0;
    if (!(*metrics = lk_metrics_create())) return lk_fail(err, LK_ENOMEM, "no memory for metrics");
    return lk_http_server_open(&(struct lk_http_options){.listen = wanted.metrics, .handle = metrics_page, .arg = *metrics},
                               page, err);
}

/* --- the server ------------------------------------------------------------------------------------------ */

static void say(const struct cmd_context *c, const struct lk_bigtable *b, const struct lk_http_server *page) {
    const char *address = lk_bigtable_address(b), *project = wanted.project ? wanted.project : "any",
               *instance = wanted.instance ? wanted.instance : "any";
    if (c->json)
        printf("{\"address\":\"%s\",\"metrics\":\"%s\",\"tls\":%s}\n", address, page ? lk_http_server_address(page) : "",
               wanted.certificate ? "true" : "false");
    else if (page)
        printf("metrics  http://%s/metrics\n", lk_http_server_address(page));
    if (!c->json)
        printf("ready  %s%s, project %s, instance %s\nexport BIGTABLE_EMULATOR_HOST=%s\n", address,
               wanted.certificate ? " (TLS)" : "", project, instance, address);
    fflush(stdout);
}

static void reread_keys(struct lk_keys *keys) {
    struct lk_err err = {0};
    reread = 0;
    if (!keys) return;
    if (lk_keys_reload(keys, &err))
        lk_log_warn("the keys stay as they were: %s", err.message);
    else
        lk_log_warn("%u keys read again", lk_keys_count(keys));
}

static void run(struct cmd_context *c, struct lk_bigtable *b, const struct lk_http_server *page, struct lk_keys *keys) {
    sigset_t these, before;
    sigemptyset(&these);
    sigaddset(&these, SIGINT), sigaddset(&these, SIGTERM), sigaddset(&these, SIGHUP);
    sigprocmask(SIG_BLOCK, &these, &before); /* they come while we wait, and only then */
    say(c, b, page);
    while (!ends) {
        sigsuspend(&before);
        if (reread) reread_keys(keys);
    }
    sigprocmask(SIG_SETMASK, &before, NULL); /* a second one ends the process at once */
    signal(SIGINT, SIG_DFL), signal(SIGTERM, SIG_DFL);
    lk_bigtable_close(b, wanted.drain_s * 1000);
}

static int serve(struct cmd_context *c) {
    struct lk_err err = {0};
    struct lk_keys *keys = NULL;
    struct lk_metrics *metrics = NULL;
    struct lk_http_server *page = NULL;
    struct lk_bigtable *b = NULL;
    int code = check(c);
    if (!code) code = cmd_open_store(c, LK_CREATE);
    if (code) return code;
    struct sigaction act = {.sa_handler = on_signal};
    sigaction(SIGINT, &act, NULL), sigaction(SIGTERM, &act, NULL), sigaction(SIGHUP, &act, NULL);
    signal(SIGPIPE, SIG_IGN);
#ifdef M_ARENA_MAX
    mallopt(M_ARENA_MAX, 2); /* what 32 workers took for large messages is given back, not kept by each of them */
    mallopt(M_MMAP_THRESHOLD, 256 << 10);
    mallopt(M_TRIM_THRESHOLD, 1 << 20);
#endif
    if (wanted.keys) code = lk_keys_open(wanted.keys, &keys, &err);
    if (!code) code = open_metrics(&metrics, &page, &err);
    struct lk_bigtable_options o = {.store = c->store,
                                    .listen = wanted.listen,
                                    .tls_certificate = wanted.certificate,
                                    .tls_key = wanted.key,
                                    .limits = {.connections = wanted.connections,
                                               .connections_per_client = wanted.of_one,
                                               .streams = wanted.streams,
                                               .workers = wanted.workers},
                                    .keys = keys,
                                    .project = wanted.project,
                                    .instance = wanted.instance,
                                    .names = (enum lk_bigtable_names)wanted.names,
                                    .snapshot_ms = wanted.snapshot_s * 1000,
                                    .metrics = metrics};
    if (!code) code = lk_bigtable_open(&o, &b, &err);
    if (!code) run(c, b, page, keys);
    lk_http_server_close(page);
    lk_metrics_free(metrics);
    lk_keys_close(keys);
    return code ? cmd_fail(&err) : CMD_OK;
}
const struct cmd cmd_table_serve = {
    "table serve",
    "",
    0,
    0,
    "Serve the store's tables by Cloud Bigtable's gRPC API.",
    (const struct cmd_option[]){
        CMD_STRING("--listen", "HOST:PORT", &wanted.listen, "127.0.0.1:8086",
                   "where, or unix:PATH; port 0: any that is free"),
        CMD_STRING("--project", "P", &wanted.project, NULL, "serve this project only; any is there otherwise"),
        CMD_STRING("--instance", "I", &wanted.instance, NULL, "serve this instance only; any is there otherwise"),
        CMD_CHOICE("--names", &wanted.names, "table|instance|project", "table",
                   "projects/P/instances/I/tables/T is the store's table T, I/T or P/I/T"),
        CMD_STRING("--keys", "FILE", &wanted.keys, NULL, "who may do what; `lockstep serve key` makes its lines"),
        CMD_FLAG("--no-keys", &wanted.no_keys, "let anybody read and write, also from other machines"),
        CMD_STRING("--metrics", "HOST:PORT", &wanted.metrics, NULL, "serve Prometheus' /metrics there, by HTTP"),
        CMD_U32("--snapshot", "SECONDS", &wanted.snapshot_s, 1, 86400, "10",
                "a scan that takes longer goes on in a newer state of the table"),
        CMD_U32("--drain", "SECONDS", &wanted.drain_s, 0, 4000000, "30", "for what runs when the server is told to end"),
        CMD_U32("--connections", "N", &wanted.connections, 1, 100000, "1000", "at the same time; beyond: closed"),
        CMD_U32("--of-one-client", "N", &wanted.of_one, 1, 100000, "256", "connections of one IP address; a proxy is one"),
        CMD_U32("--streams", "N", &wanted.streams, 1, 100000, "100", "calls at once of one connection"),
        CMD_U32("--workers", "N", &wanted.workers, 1, 1024, "32", "calls at once that the server works on"),
        CMD_STRING("--tls-cert", "FILE", &wanted.certificate, NULL, "PEM; speak TLS"),
        CMD_STRING("--tls-key", "FILE", &wanted.key, NULL, "its key, PEM"), CMD_END},
    "Google's clients and cbt work unchanged: `export BIGTABLE_EMULATOR_HOST=HOST:PORT`, as the server prints it. What a "
    "client was told is written is on the disk.\n"
    "Behind a key in the file stand its rights, as read=PREFIX write=PREFIX admin=PREFIX, for the tables whose names in "
    "the "
    "store begin so; * is all of them. A client sends the metadata \"authorization: Bearer KEY\".\n"
    "SIGTERM and Ctrl-C: no new calls, those that run are finished. SIGHUP: the keys are read again.",
    serve};
