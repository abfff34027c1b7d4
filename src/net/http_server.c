/* The server: libmicrohttpd's thread reads requests and writes answers; README.md says who wakes whom. */
#include "http_inside.h"

#include "lockstep/base/file.h"
#include "lockstep/base/progress.h"
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define HEADER_BYTES  ((size_t)16 << 10)
#define BODY_BYTES    ((size_t)8 << 20)
#define BODIES_BYTES  ((size_t)256 << 20)
#define UNSENT_BYTES  ((size_t)4 << 20)
#define CONNECTIONS   1000
#define OF_ONE_CLIENT 256
#define IDLE_MS       60000
#define REQUEST_MS    30000
#define PEM_MOST      ((size_t)1 << 20)

static void set_limits(struct lk_http_limits *l) {
    if (!l->header_bytes) l->header_bytes = HEADER_BYTES;
    if (!l->body_bytes) l->body_bytes = BODY_BYTES;
    if (!l->bodies_bytes) l->bodies_bytes = BODIES_BYTES;
    if (l->bodies_bytes < l->body_bytes) l->bodies_bytes = l->body_bytes;
    if (!l->unsent_bytes) l->unsent_bytes = UNSENT_BYTES;
    if (!l->connections) l->connections = CONNECTIONS;
    if (!l->connections_per_client) l->connections_per_client = OF_ONE_CLIENT;
    if (!l->idle_ms) l->idle_ms = IDLE_MS;
    if (!l->request_ms) l->request_ms = REQUEST_MS;
}

static void free_server(struct lk_http_server *s) {
    lk__net_watch_close(s);
    lk__net_listener_close(&s->at);
    if (s->watching >= 0) close(s->watching);
    if (s->wake >= 0) close(s->wake);
    pthread_mutex_destroy(&s->mutex);
    lk_free(s->connections);
    lk_free(s);
}

/* Only what it says while it starts is of use; later complaints are about single clients. */
static void keep_complaint(void *arg, const char *format, va_list list) {
    struct lk_http_server *s = arg;
    pthread_mutex_lock(&s->mutex);
    if (!s->running) vsnprintf(s->complaint, sizeof s->complaint, format, list);
    s->complaint[strcspn(s->complaint, "\n")] = 0;
    pthread_mutex_unlock(&s->mutex);
}

static int read_tls(const struct lk_http_options *o, struct lk_buf *certificate, struct lk_buf *key, struct lk_err *err) {
    if (lk__net_mhd.is_feature_supported(MHD_FEATURE_TLS) != MHD_YES)
        return lk_fail(err, LK_EUNSUPPORTED,
                       "this libmicrohttpd has no TLS: put a proxy in front, or install one that has");
    if (!o->tls_certificate || !o->tls_key) return lk_fail(err, LK_EINVAL, "TLS needs both a certificate and its key");
    int code = lk_file_read(o->tls_certificate, PEM_MOST, certificate, err);
    return code ? code : lk_file_read(o->tls_key, PEM_MOST, key, err);
}

static int start_daemon(struct lk_http_server *s, const struct lk_http_options *o, struct lk_err *err) {
    struct lk_buf certificate = LK_BUF_INIT, key = LK_BUF_INIT;
    struct MHD_OptionItem tls[3] = {{MHD_OPTION_END, 0, NULL}};
    unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC | MHD_USE_ERROR_LOG;
    int code = LK_OK;
    if (o->tls_certificate || o->tls_key) {
        flags |= MHD_USE_TLS;
        code = read_tls(o, &certificate, &key, err);
        tls[0] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_MEM_CERT, 0, certificate.data};
        tls[1] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_MEM_KEY, 0, key.data};
        tls[2] = (struct MHD_OptionItem){MHD_OPTION_END, 0, NULL};
    }
    unsigned idle_s = s->limits.idle_ms / 1000 + 1; /* also of a client that does not read */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are for the caller's threads */
    if (!code)
        s->daemon = lk__net_mhd.start_daemon(
            flags, 0, lk__net_accept, s, lk__net_request, s, MHD_OPTION_EXTERNAL_LOGGER, keep_complaint, s,
            MHD_OPTION_LISTEN_SOCKET, s->at.fd, MHD_OPTION_CONNECTION_LIMIT, s->places - 1,
            MHD_OPTION_PER_IP_CONNECTION_LIMIT, s->limits.connections_per_client, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
            2 * s->limits.header_bytes, MHD_OPTION_CONNECTION_TIMEOUT, idle_s, MHD_OPTION_THREAD_STACK_SIZE,
            (size_t)2 << 20, MHD_OPTION_UNESCAPE_CALLBACK, lk__net_unescape_nothing, s, MHD_OPTION_URI_LOG_CALLBACK,
            lk__net_request_begins, s, MHD_OPTION_NOTIFY_COMPLETED, lk__net_request_over, s, MHD_OPTION_NOTIFY_CONNECTION,
            lk__net_connection_changed, s, MHD_OPTION_ARRAY, tls, MHD_OPTION_END);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_mutex_lock(&s->mutex);
    s->running = s->daemon != NULL;
    pthread_mutex_unlock(&s->mutex);
    if (!code && !s->daemon)
        code = lk_fail(err, LK_EIO, "cannot start a server at %s%s: %s", s->at.address,
                       flags & MHD_USE_TLS ? " with this certificate and key" : "",
                       s->complaint[0] ? s->complaint : "libmicrohttpd does not say why");
    if (key.data) explicit_bzero(key.data, key.size);
    lk_buf_release(&certificate);
    lk_buf_release(&key);
    return code;
}

int lk_http_server_open(const struct lk_http_options *o, struct lk_http_server **out, struct lk_err *err) {
    int code = lk__net_mhd_load(err);
    if (code) return code;
    struct lk_http_server *s = lk_calloc(1, sizeof *s);
    if (!s) return lk_fail(err, LK_ENOMEM, "no memory for a server");
    pthread_mutex_init(&s->mutex, NULL);
    s->at.fd = s->watching = s->wake = -1;
    s->handle = o->handle, s->error_body = o->error_body, s->arg = o->arg;
    s->limits = o->limits;
    set_limits(&s->limits);
    lk__net_raise_files(s->limits.connections);
    code = lk__net_listen(&s->at, o->listen, err);
    if (!code) code = lk__net_watch_open(s, err);
    if (!code) code = start_daemon(s, o, err);
    if (code)
        free_server(s);
    else
        *out = s;
    return code;
}

const char *lk_http_server_address(const struct lk_http_server *s) {
    return s->at.address;
}
void lk_http_server_count(struct lk_http_server *s, struct lk_http_counts *out) {
    pthread_mutex_lock(&s->mutex);
    *out = s->counts;
    pthread_mutex_unlock(&s->mutex);
}
uint32_t lk_http_server_connections(const struct lk_http_server *s) {
    struct lk_http_counts counts;
    lk_http_server_count((struct lk_http_server *)(uintptr_t)s, &counts);
    return counts.connections;
}

int lk__net_add(struct lk_http_server *s, int fd) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    return lk__net_mhd.add_connection(s->daemon, fd, (struct sockaddr *)&a, sizeof a) == MHD_YES ? LK_OK : LK_EIO;
}

void lk_http_server_drain(struct lk_http_server *s) {
    pthread_mutex_lock(&s->mutex);
    bool first = !s->drained;
    s->drained = true;
    pthread_mutex_unlock(&s->mutex);
    if (!first) return;
    lk__net_mhd.quiesce_daemon(s->daemon);
    (void)shutdown(s->at.fd, SHUT_RDWR); /* those that wait to be accepted learn it; free_server closes it */
}

/* Who does not read has had its time after SEND_NS. */
#define SEND_NS UINT64_C(2000000000)
void lk_http_server_close(struct lk_http_server *s) {
    if (!s) return;
    lk_http_server_drain(s);
    for (uint64_t until = lk_clock_ns() + SEND_NS; lk__net_sending(s) && lk_clock_ns() < until;) usleep(1000);
    atomic_store(&s->closing, true);
    lk__net_all_gone(s); /* libmicrohttpd wants that none sleeps when it ends */
    lk__net_mhd.stop_daemon(s->daemon);
    free_server(s);
}
