/* Connections: how many there are, how long their requests take, who has gone. libmicrohttpd does not look at a connection
 * that waits for its answer, so a thread of ours does. */
#include "http_inside.h"

#include "lockstep/base/progress.h"
#include "lockstep/base/thread.h"
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define NS_OF_MS  UINT64_C(1000000)
#define LINGER_MS 200        /* what a client that sends no more has sent is answered meanwhile */
#define WAKE      UINT64_MAX /* what `wake` is called among the events */

/* --- Places ------------------------------------------------------------------------------------------------------- */

enum MHD_Result lk__net_accept(void *arg, const struct sockaddr *from, socklen_t size) {
    struct lk_http_server *s = arg;
    (void)from, (void)size;
    pthread_mutex_lock(&s->mutex);
    bool room = s->counts.connections < s->limits.connections;
    s->counts.refused += !room;
    pthread_mutex_unlock(&s->mutex);
    return room ? MHD_YES : MHD_NO;
}

static void enter(struct lk_http_server *s, int fd, void **context) {
    int one = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); /* a Unix socket has none */
    pthread_mutex_lock(&s->mutex);
    struct lk__net_connection *c = s->free < s->places ? &s->connections[s->free] : NULL;
    if (c) {
        s->free = c->next_free;
        s->counts.connections++;
        c->fd = fd, c->away = false, c->exchange = NULL;
        c->generation++;
        c->until_ns = lk_clock_ns() + s->limits.idle_ms * NS_OF_MS;
        *context = c;
        struct epoll_event e = {.events = EPOLLRDHUP | EPOLLET, .data.u64 = (uint64_t)c->generation << 32 | c->number};
        if (epoll_ctl(s->watching, EPOLL_CTL_ADD, fd, &e)) c->until_ns = 0; /* nobody would see it go */
    }
    pthread_mutex_unlock(&s->mutex);
    if (!c) (void)shutdown(fd, SHUT_RDWR);
}

/* libmicrohttpd closes the descriptor after this: until then it is nobody else's. */
static void leave(struct lk_http_server *s, struct lk__net_connection *c) {
    pthread_mutex_lock(&s->mutex);
    (void)epoll_ctl(s->watching, EPOLL_CTL_DEL, c->fd, NULL);
    c->fd = -1;
    c->next_free = s->free;
    s->free = c->number;
    s->counts.connections--;
    pthread_mutex_unlock(&s->mutex);
}

void lk__net_connection_changed(void *arg, struct MHD_Connection *connection, void **context,
                                enum MHD_ConnectionNotificationCode what) {
    struct lk_http_server *s = arg;
    if (what == MHD_CONNECTION_NOTIFY_STARTED)
        enter(s, lk__net_mhd.get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd, context);
    else if (*context) {
        leave(s, *context);
        *context = NULL;
    }
}

struct lk__net_connection *lk__net_connection_of(struct MHD_Connection *connection) {
    const union MHD_ConnectionInfo *info = lk__net_mhd.get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info ? info->socket_context : NULL;
}

void lk__net_give_time(struct lk_http_server *s, struct lk__net_connection *c, uint32_t ms) {
    if (!c) return;
    pthread_mutex_lock(&s->mutex);
    if (ms > LINGER_MS && c->away) ms = LINGER_MS; /* libmicrohttpd would not notice */
    c->until_ns = ms ? lk_clock_ns() + ms * NS_OF_MS : LK__NET_NEVER;
    s->counts.requests += !ms;
    pthread_mutex_unlock(&s->mutex);
}

bool lk__net_attach(struct lk_http_server *s, struct lk__net_connection *c, struct lk_http_exchange *x) {
    if (!c) return true;
    pthread_mutex_lock(&s->mutex);
    c->exchange = x;
    bool away = c->away;
    pthread_mutex_unlock(&s->mutex);
    return away;
}

/* --- The watcher -------------------------------------------------------------------------------------------------- */

/* With a reference, or NULL. */
static struct lk_http_exchange *exchange_of(struct lk__net_connection *c) {
    struct lk_http_exchange *x = c->fd >= 0 ? c->exchange : NULL;
    if (x) atomic_fetch_add(&x->references, 1);
    return x;
}

static void client_goes(struct lk_http_server *s, uint64_t who) {
    uint32_t number = (uint32_t)who, generation = (uint32_t)(who >> 32);
    struct lk_http_exchange *x = NULL;
    pthread_mutex_lock(&s->mutex);
    struct lk__net_connection *c = &s->connections[number];
    if (c->generation == generation && c->fd >= 0) {
        uint64_t soon = lk_clock_ns() + LINGER_MS * NS_OF_MS;
        c->away = true;
        if (c->until_ns != LK__NET_NEVER && c->until_ns > soon) c->until_ns = soon;
        x = exchange_of(c);
    }
    pthread_mutex_unlock(&s->mutex);
    if (!x) return;
    lk__net_gone(x);
    lk__net_release(x);
}

bool lk__net_sending(struct lk_http_server *s) {
    bool sending = false;
    for (uint32_t i = 0; i < s->places && !sending; i++) {
        pthread_mutex_lock(&s->mutex);
        struct lk_http_exchange *x = exchange_of(&s->connections[i]);
        pthread_mutex_unlock(&s->mutex);
        if (!x) continue;
        pthread_mutex_lock(&x->mutex);
        sending = x->ended && !x->gone && x->connection;
        pthread_mutex_unlock(&x->mutex);
        lk__net_release(x);
    }
    return sending;
}

void lk__net_all_gone(struct lk_http_server *s) {
    for (uint32_t i = 0; i < s->places; i++) {
        pthread_mutex_lock(&s->mutex);
        struct lk_http_exchange *x = exchange_of(&s->connections[i]);
        pthread_mutex_unlock(&s->mutex);
        if (!x) continue;
        lk__net_gone(x);
        lk__net_release(x);
    }
}

/* Connections whose next request takes too long are shut; libmicrohttpd then closes them. */
static void shut_slow_ones(struct lk_http_server *s) {
    uint64_t now = lk_clock_ns();
    pthread_mutex_lock(&s->mutex);
    for (struct lk__net_connection *c = s->connections; c < s->connections + s->places; c++) {
        if (c->fd < 0 || now < c->until_ns) continue;
        (void)shutdown(c->fd, SHUT_RDWR);
        c->until_ns = LK__NET_NEVER;
        s->counts.slow += !c->away;
    }
    pthread_mutex_unlock(&s->mutex);
}

static void *watch(void *arg) {
    struct lk_http_server *s = arg;
    struct epoll_event events[64];
    uint32_t least = s->limits.request_ms < s->limits.idle_ms ? s->limits.request_ms : s->limits.idle_ms;
    uint64_t every_ms = least / 8 + 1, looked = lk_clock_ns();
    if (every_ms > 500) every_ms = 500;
    for (;;) {
        int n = epoll_wait(s->watching, events, 64, (int)every_ms);
        for (int i = 0; i < n; i++) {
            if (events[i].data.u64 == WAKE) return NULL; /* the server closes */
            client_goes(s, events[i].data.u64);
        }
        if (lk_clock_ns() - looked < every_ms * NS_OF_MS) continue;
        looked = lk_clock_ns();
        shut_slow_ones(s);
    }
}

int lk__net_watch_open(struct lk_http_server *s, struct lk_err *err) {
    struct epoll_event wake = {.events = EPOLLIN, .data.u64 = WAKE};
    s->places = s->limits.connections + 64; /* some for those that libmicrohttpd has not cleaned up yet */
    s->connections = lk_calloc(s->places, sizeof *s->connections);
    if (!s->connections) return lk_fail(err, LK_ENOMEM, "no memory for %u connections", s->limits.connections);
    for (uint32_t i = 0; i < s->places; i++)
        s->connections[i] = (struct lk__net_connection){.number = i, .next_free = i + 1, .fd = -1};
    s->watching = epoll_create1(EPOLL_CLOEXEC);
    s->wake = eventfd(0, EFD_CLOEXEC);
    if (s->watching < 0 || s->wake < 0 || epoll_ctl(s->watching, EPOLL_CTL_ADD, s->wake, &wake))
        return lk_fail_errno(err, "cannot watch connections");
    errno = lk_thread_start(&s->watcher, watch, s);
    if (errno) return lk_fail_errno(err, "cannot start a thread that watches connections");
    s->started = true;
    return LK_OK;
}

void lk__net_watch_close(struct lk_http_server *s) {
    uint64_t one = 1;
    if (!s->started) return;
    if (write(s->wake, &one, sizeof one) < 0) LK_ASSERT(!"a server's own event");
    pthread_join(s->watcher, NULL);
    s->started = false;
}
