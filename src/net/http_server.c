/* The server: libmicrohttpd's thread reads requests and writes answers; see README.md for who wakes whom. */
#include "http_inside.h"

#include "lockstep/base/file.h"
#include "lockstep/base/progress.h"
#include "lockstep/base/thread.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define HEADER_BYTES  ((size_t)32 << 10)
#define BODY_BYTES    ((size_t)8 << 20)
#define UNSENT_BYTES  ((size_t)4 << 20)
#define CONNECTIONS   1000
#define OF_ONE_CLIENT 256
#define REQUEST_MS    60000
#define BACKLOG       1024
#define EXCESS        ((size_t)32 << 20) /* bytes of a body that are read and dropped, so that its 413 is heard */
#define PIECE         ((size_t)16 << 10) /* of an answer that is given to a socket at once */

/* --- Addresses -------------------------------------------------------------------------------------------------- */

/* "HOST:PORT" or "[HOST]:PORT" */
static int split_address(const char *listen, char *host, size_t size, const char **port, struct lk_err *err) {
    const char *colon = strrchr(listen, ':'), *begin = listen, *end = colon;
    if (colon && *listen == '[' && colon > listen && colon[-1] == ']') begin++, end--;
    bool bare = colon && *listen != '[' && memchr(listen, ':', (size_t)(colon - listen));
    if (!colon || bare || begin == end || !colon[1] || (size_t)(end - begin) >= size)
        return lk_fail(err, LK_EINVAL, "%s is no address to listen to: write HOST:PORT, as 127.0.0.1:8080 or [::1]:8080",
                       listen);
    memcpy(host, begin, (size_t)(end - begin));
    host[end - begin] = 0;
    *port = colon + 1;
    return LK_OK;
}

static int resolve(const char *listen, struct addrinfo **out, struct lk_err *err) {
    char host[256];
    const char *port = "", *digit;
    int code = split_address(listen, host, sizeof host, &port, err);
    if (code) return code;
    for (digit = port; *digit >= '0' && *digit <= '9';) digit++;
    if (*digit || digit - port > 5 || atoi(port) > 65535)
        return lk_fail(err, LK_EINVAL, "%s: the port is not a number from 0 to 65535", listen);
    struct addrinfo wanted = {.ai_flags = AI_PASSIVE | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM};
    int failed = getaddrinfo(host, port, &wanted, out);
    return failed ? lk_fail(err, LK_EINVAL, "%s: no such host (%s)", listen, gai_strerror(failed)) : LK_OK;
}

static bool loopback(const struct sockaddr *a) {
    if (a->sa_family == AF_INET) return ntohl(((const struct sockaddr_in *)(const void *)a)->sin_addr.s_addr) >> 24 == 127;
    return a->sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr);
}
bool lk_http_is_loopback(const char *listen) {
    struct addrinfo *all;
    if (resolve(listen, &all, NULL)) return false;
    bool is = true;
    for (struct addrinfo *a = all; a; a = a->ai_next) is &= loopback(a->ai_addr);
    freeaddrinfo(all);
    return is;
}

static int open_socket(struct lk_http_server *s, const char *listen_to, struct lk_err *err) {
    struct addrinfo *all;
    int code = resolve(listen_to, &all, err), one = 1;
    if (code) return code;
    s->socket = socket(all->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (s->socket >= 0) (void)setsockopt(s->socket, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (s->socket < 0 || bind(s->socket, all->ai_addr, all->ai_addrlen) || listen(s->socket, BACKLOG))
        code = lk_fail_errno(err, "cannot listen to %s", listen_to);
    freeaddrinfo(all);
    if (code) return code;
    struct sockaddr_storage is;
    socklen_t size = sizeof is;
    char host[INET6_ADDRSTRLEN], port[8];
    if (getsockname(s->socket, (struct sockaddr *)&is, &size) ||
        getnameinfo((struct sockaddr *)&is, size, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV))
        return lk_fail_errno(err, "cannot tell the address of %s", listen_to);
    snprintf(s->address, sizeof s->address, is.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
    return LK_OK;
}

/* --- Connections: how long the next request takes, who has gone --------------------------------------------------- */

static void connection_changed(void *arg, struct MHD_Connection *connection, void **context,
                               enum MHD_ConnectionNotificationCode what) {
    struct lk_http_server *s = arg;
    struct lk__net_connection *c = *context;
    pthread_mutex_lock(&s->mutex);
    if (what == MHD_CONNECTION_NOTIFY_STARTED && (c = lk_calloc(1, sizeof *c))) {
        int one = 1;
        c->fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
        (void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        c->since_ns = lk_clock_ns();
        c->next = s->connections, c->at = &s->connections;
        if (c->next) c->next->at = &c->next;
        s->connections = c;
        s->connection_count++;
        *context = c;
    } else if (what == MHD_CONNECTION_NOTIFY_CLOSED && c) {
        if ((*c->at = c->next)) c->next->at = c->at;
        s->connection_count--;
        lk_free(c);
        *context = NULL;
    }
    pthread_mutex_unlock(&s->mutex);
}

/* Connections whose next request takes too long are shut; libmicrohttpd then closes them. */
static void shut_slow_ones(struct lk_http_server *s) {
    uint64_t now = lk_clock_ns();
    pthread_mutex_lock(&s->mutex);
    for (struct lk__net_connection *c = s->connections; c; c = c->next)
        if (!c->busy && now - c->since_ns > s->limits.request_ms * UINT64_C(1000000)) (void)shutdown(c->fd, SHUT_RDWR);
    pthread_mutex_unlock(&s->mutex);
}

static struct lk_http_exchange *exchange_of(struct lk_http_server *s, uint64_t number) {
    pthread_mutex_lock(&s->mutex);
    struct lk_http_exchange *x = s->exchanges;
    while (x && x->number != number) x = x->next;
    if (x) x->references++;
    pthread_mutex_unlock(&s->mutex);
    return x;
}

/* Waits for what libmicrohttpd does not look at while it waits for an answer: that the client goes. */
static void *watch(void *arg) {
    struct lk_http_server *s = arg;
    struct epoll_event events[64];
    uint64_t looked = lk_clock_ns(), every = s->limits.request_ms * UINT64_C(1000000) / 8;
    if (every > 1000000000) every = 1000000000;
    for (;;) {
        int n = epoll_wait(s->watching, events, 64, (int)(every / 1000000) + 1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.u64 == 0) return NULL; /* the server closes */
            struct lk_http_exchange *x = exchange_of(s, events[i].data.u64);
            if (!x) continue;
            lk__net_gone(x);
            lk__net_release(x);
        }
        if (lk_clock_ns() - looked < every) continue;
        looked = lk_clock_ns();
        shut_slow_ones(s);
    }
}

/* --- Requests ----------------------------------------------------------------------------------------------------- */

struct copying {
    struct lk_buf *to;
    bool failed;
};
static enum MHD_Result copy_field(void *arg, enum MHD_ValueKind kind, const char *name, const char *value) {
    struct copying *c = arg;
    (void)kind;
    if (!value) value = "";
    c->failed |= lk_buf_append(c->to, name, strlen(name) + 1) || lk_buf_append(c->to, value, strlen(value) + 1);
    return c->failed ? MHD_NO : MHD_YES;
}

static struct lk_http_exchange *make_exchange(struct lk_http_server *s, struct MHD_Connection *connection, const char *url,
                                              const char *method) {
    struct lk_http_exchange *x = lk_calloc(1, sizeof *x);
    if (!x) return NULL;
    pthread_mutex_init(&x->mutex, NULL);
    x->server = s, x->connection = connection, x->references = 1;
    x->fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    struct copying headers = {&x->headers, false}, query = {&x->query, false};
    MHD_get_connection_values(connection, MHD_HEADER_KIND, copy_field, &headers);
    MHD_get_connection_values(connection, MHD_GET_ARGUMENT_KIND, copy_field, &query);
    x->path = lk_strdup(url);
    x->method = lk_strdup(method);
    pthread_mutex_lock(&s->mutex);
    s->references++;
    x->number = ++s->numbers;
    x->next = s->exchanges, x->at = &s->exchanges;
    if (x->next) x->next->at = &x->next;
    s->exchanges = x;
    pthread_mutex_unlock(&s->mutex);
    if (!headers.failed && !query.failed && x->path && x->method) return x;
    lk__net_release(x);
    return NULL;
}

static enum MHD_Result refuse(struct lk_http_server *s, struct MHD_Connection *connection, int status, const char *what) {
    struct lk_buf body = LK_BUF_INIT;
    if (s->error_body) s->error_body(s->arg, status, what, &body);
    struct MHD_Response *r =
        MHD_create_response_from_buffer(body.size, body.data ? body.data : (char *)"", MHD_RESPMEM_MUST_COPY);
    lk_buf_release(&body);
    if (!r) return MHD_NO;
    MHD_add_response_header(r, "Content-Type", "application/json");
    MHD_add_response_header(r, "Connection", "close");
    enum MHD_Result done = MHD_queue_response(connection, (unsigned)status, r);
    MHD_destroy_response(r);
    return done;
}

static void set_busy(struct lk_http_server *s, struct MHD_Connection *connection, bool busy) {
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct lk__net_connection *c = info ? info->socket_context : NULL;
    if (!c) return;
    pthread_mutex_lock(&s->mutex);
    c->busy = busy;
    c->since_ns = lk_clock_ns();
    pthread_mutex_unlock(&s->mutex);
}

/* The handler's turn; the connection sleeps until somebody answers. */
static void hand_over(struct lk_http_server *s, struct lk_http_exchange *x) {
    struct epoll_event e = {.events = EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLONESHOT, .data.u64 = x->number};
    set_busy(s, x->connection, true);
    pthread_mutex_lock(&x->mutex);
    x->handed = x->suspended = true;
    x->references++; /* the handler's */
    MHD_suspend_connection(x->connection);
    pthread_mutex_unlock(&x->mutex);
    if (!epoll_ctl(s->watching, EPOLL_CTL_ADD, x->fd, &e)) x->watched = true;
    s->handle(s->arg, x);
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *connection, const char *url, const char *method,
                                  const char *version, const char *data, size_t *size, void **context) {
    struct lk_http_server *s = arg;
    struct lk_http_exchange *x = *context;
    (void)version;
    if (!x) { /* the headers are there */
        const char *length = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Content-Length");
        if (length && strtoull(length, NULL, 10) > s->limits.body_bytes + EXCESS)
            return refuse(s, connection, MHD_HTTP_CONTENT_TOO_LARGE, "the body is too large");
        x = *context = make_exchange(s, connection, url, method);
        return x ? MHD_YES : MHD_NO;
    }
    if (x->handed) return lk__net_answer(x);
    if (*size) {
        size_t n = *size;
        *size = 0;
        if (x->body.size + n > s->limits.body_bytes) x->excess += n;
        if (x->excess > EXCESS) return MHD_NO; /* it goes on and on */
        if (!x->excess && lk_buf_append(&x->body, data, n)) return MHD_NO;
        return MHD_YES;
    }
    if (x->excess) return refuse(s, connection, MHD_HTTP_CONTENT_TOO_LARGE, "the body is too large");
    hand_over(s, x);
    return MHD_YES;
}

static void completed(void *arg, struct MHD_Connection *connection, void **context, enum MHD_RequestTerminationCode why) {
    struct lk_http_server *s = arg;
    struct lk_http_exchange *x = *context;
    (void)why;
    set_busy(s, connection, false);
    if (!x) return;
    *context = NULL;
    if (x->watched) (void)epoll_ctl(s->watching, EPOLL_CTL_DEL, x->fd, NULL);
    lk__net_gone(x); /* unless it has ended */
    pthread_mutex_lock(&x->mutex);
    x->connection = NULL;
    pthread_mutex_unlock(&x->mutex);
    lk__net_release(x);
}

static void say_nothing(void *arg, const char *format, va_list list) {
    (void)arg, (void)format, (void)list;
}

/* --- Opening and closing ------------------------------------------------------------------------------------------ */

static void set_limits(struct lk_http_limits *l) {
    if (!l->header_bytes) l->header_bytes = HEADER_BYTES;
    if (!l->body_bytes) l->body_bytes = BODY_BYTES;
    if (!l->unsent_bytes) l->unsent_bytes = UNSENT_BYTES;
    if (!l->connections) l->connections = CONNECTIONS;
    if (!l->connections_per_client) l->connections_per_client = OF_ONE_CLIENT;
    if (!l->request_ms) l->request_ms = REQUEST_MS;
}

void lk__net_server_release(struct lk_http_server *s) {
    pthread_mutex_lock(&s->mutex);
    bool last = --s->references == 0;
    pthread_mutex_unlock(&s->mutex);
    if (!last) return;
    if (s->socket >= 0) close(s->socket);
    if (s->watching >= 0) close(s->watching);
    if (s->wake >= 0) close(s->wake);
    pthread_mutex_destroy(&s->mutex);
    lk_free(s);
}

static int start_daemon(struct lk_http_server *s, const struct lk_http_options *o, struct lk_err *err) {
    struct lk_buf certificate = LK_BUF_INIT, key = LK_BUF_INIT;
    unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC | MHD_USE_ERROR_LOG;
    struct MHD_OptionItem tls[3] = {{MHD_OPTION_END, 0, NULL}};
    int code = LK_OK;
    if (o->tls_certificate || o->tls_key) {
        if (MHD_is_feature_supported(MHD_FEATURE_TLS) != MHD_YES)
            return lk_fail(err, LK_EUNSUPPORTED,
                           "this libmicrohttpd has no TLS: put a proxy in front, or install one that has");
        if (!o->tls_certificate || !o->tls_key) return lk_fail(err, LK_EINVAL, "TLS needs both a certificate and its key");
        code = lk_file_read(o->tls_certificate, 1 << 20, &certificate, err);
        if (!code) code = lk_file_read(o->tls_key, 1 << 20, &key, err);
        flags |= MHD_USE_TLS;
        tls[0] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_MEM_CERT, 0, certificate.data};
        tls[1] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_MEM_KEY, 0, key.data};
        tls[2] = (struct MHD_OptionItem){MHD_OPTION_END, 0, NULL};
    }
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are for the caller's threads */
    errno = 0;
    if (!code)
        s->daemon = MHD_start_daemon(
            flags, 0, NULL, NULL, on_request, s, MHD_OPTION_EXTERNAL_LOGGER, say_nothing, NULL, MHD_OPTION_LISTEN_SOCKET,
            s->socket, MHD_OPTION_CONNECTION_LIMIT, s->limits.connections, MHD_OPTION_PER_IP_CONNECTION_LIMIT,
            s->limits.connections_per_client, MHD_OPTION_CONNECTION_MEMORY_LIMIT, s->limits.header_bytes + 2 * PIECE,
            MHD_OPTION_NOTIFY_COMPLETED, completed, s, MHD_OPTION_NOTIFY_CONNECTION, connection_changed, s,
            MHD_OPTION_ARRAY, tls, MHD_OPTION_END);
    if (!code && !s->daemon)
        code = lk_fail_errno(err, "cannot start a server at %s%s", s->address,
                             flags & MHD_USE_TLS ? " with this certificate and key" : "");
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    lk_buf_release(&certificate);
    lk_buf_release(&key);
    return code;
}

int lk_http_server_open(const struct lk_http_options *o, struct lk_http_server **out, struct lk_err *err) {
    struct lk_http_server *s = lk_calloc(1, sizeof *s);
    if (!s) return lk_fail(err, LK_ENOMEM, "no memory for a server");
    pthread_mutex_init(&s->mutex, NULL);
    s->references = 1, s->socket = s->wake = -1;
    s->handle = o->handle, s->error_body = o->error_body, s->arg = o->arg;
    s->limits = o->limits;
    set_limits(&s->limits);
    struct epoll_event wake = {.events = EPOLLIN, .data.u64 = 0};
    s->watching = epoll_create1(EPOLL_CLOEXEC);
    int code = open_socket(s, o->listen, err);
    if (!code && (s->watching < 0 || (s->wake = eventfd(0, EFD_CLOEXEC)) < 0 ||
                  epoll_ctl(s->watching, EPOLL_CTL_ADD, s->wake, &wake)))
        code = lk_fail_errno(err, "cannot watch connections");
    if (!code) code = start_daemon(s, o, err);
    if (!code && (errno = lk_thread_start(&s->watcher, watch, s))) {
        code = lk_fail_errno(err, "cannot start a thread that watches connections");
        MHD_stop_daemon(s->daemon);
        s->socket = -1; /* closed with it */
    }
    if (code) {
        lk__net_server_release(s);
        return code;
    }
    *out = s;
    return LK_OK;
}

const char *lk_http_server_address(const struct lk_http_server *s) {
    return s->address;
}
uint32_t lk_http_server_connections(const struct lk_http_server *server) {
    struct lk_http_server *s = (struct lk_http_server *)server;
    pthread_mutex_lock(&s->mutex);
    uint32_t count = s->connection_count;
    pthread_mutex_unlock(&s->mutex);
    return count;
}

void lk_http_server_drain(struct lk_http_server *s) {
    pthread_mutex_lock(&s->mutex);
    bool first = !s->drained;
    s->drained = true;
    pthread_mutex_unlock(&s->mutex);
    if (!first) return;
    MHD_quiesce_daemon(s->daemon);
    close(s->socket);
    s->socket = -1;
}

void lk_http_server_close(struct lk_http_server *s) {
    if (!s) return;
    uint64_t one = 1;
    lk_http_server_drain(s);
    if (write(s->wake, &one, sizeof one) < 0) LK_ASSERT(!"a server's own event");
    pthread_join(s->watcher, NULL);
    /* Those that sleep are woken: libmicrohttpd wants that before it ends. New ones may come until then. */
    pthread_mutex_lock(&s->mutex);
    s->closing = true;
    uint64_t last = s->numbers;
    pthread_mutex_unlock(&s->mutex);
    for (uint64_t n = 1; n <= last; n++) {
        struct lk_http_exchange *x = NULL;
        pthread_mutex_lock(&s->mutex);
        for (struct lk_http_exchange *y = s->exchanges; y; y = y->next) /* the least from n on */
            if (y->number >= n && (!x || y->number < x->number)) x = y;
        if (x) x->references++;
        pthread_mutex_unlock(&s->mutex);
        if (!x) break;
        n = x->number;
        lk__net_gone(x);
        lk__net_release(x);
    }
    MHD_stop_daemon(s->daemon);
    lk__net_server_release(s);
}
