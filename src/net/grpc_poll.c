/* Connections: accepted, read, written, timed, closed. All by the role; README.md, "gRPC". */
#include "lockstep/base/progress.h"
#include "net/grpc_inside.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define EVENTS       64
#define READ_BYTES   ((size_t)64 << 10)
#define READ_TURNS   4                  /* of one connection before others have theirs */
#define OUT_BYTES    ((size_t)64 << 10) /* made before it is written */
#define WRITE_BYTES  ((size_t)1 << 20)  /* to one connection before others have theirs */
#define KEEP_BYTES   ((size_t)4 << 10)  /* of a buffer that an idle connection keeps */
#define LINGER_MS    1000               /* for the client to read why the connection ends */
#define LINGER_BYTES ((size_t)256 << 10)
#define RETRY_MS     100 /* accepting, without descriptors */
#define NOTICE_MS    100 /* between the two GOAWAYs of a drain */

void lk__grpc_touch(struct lk__grpc_connection *c) {
    if (c->touched) return;
    c->touched = true;
    c->touched_next = c->server->touched;
    c->server->touched = c;
}
static void destroy(struct lk__grpc_connection *c) {
    struct lk_grpc_server *s = c->server;
    lk__grpc_timer_stop(&s->wheel, &c->timer);
    lk__grpc_session_end(c);
    lk__grpc_tls_free(c->tls);
    (void)epoll_ctl(s->epoll, EPOLL_CTL_DEL, c->fd, NULL); /* not by close alone: others may hold the file for a moment */
    close(c->fd);
    lk_buf_release(&c->out);
    if (c->next) c->next->prev = c->prev;
    if (c->prev)
        c->prev->next = c->next;
    else
        s->connections = c->next;
    pthread_mutex_lock(&s->mutex);
    s->counts.connections--;
    s->counts.abuse += c->abusive;
    if (!--c->references) lk_free(c);
    lk__grpc_metrics_calls(s);
    pthread_mutex_unlock(&s->mutex);
}

/* --- accepting --- */

static void name_peer(struct lk__grpc_connection *c, const struct sockaddr_storage *a) {
    char host[INET6_ADDRSTRLEN] = "?";
    const struct sockaddr_in *four = (const void *)a;
    const struct sockaddr_in6 *six = (const void *)a;
    if (a->ss_family == AF_INET) {
        inet_ntop(AF_INET, &four->sin_addr, host, sizeof host);
        snprintf(c->peer, sizeof c->peer, "%s:%u", host, ntohs(four->sin_port));
        memcpy(c->client, &four->sin_addr, 4);
        c->has_client = true;
    } else if (a->ss_family == AF_INET6) {
        inet_ntop(AF_INET6, &six->sin6_addr, host, sizeof host);
        snprintf(c->peer, sizeof c->peer, "[%s]:%u", host, ntohs(six->sin6_port));
        bool four_in_six = IN6_IS_ADDR_V4MAPPED(&six->sin6_addr);
        memcpy(c->client, &six->sin6_addr, four_in_six ? 16 : 8); /* whoever has one address of IPv6 has 2^64 */
        c->has_client = true;
    } else
        snprintf(c->peer, sizeof c->peer, "unix");
}
static bool has_place(struct lk_grpc_server *s, const struct lk__grpc_connection *c) {
    uint32_t same = 0;
    if (s->counts.connections >= s->limits.connections) return false;
    if (!c->has_client) return true;
    for (const struct lk__grpc_connection *other = s->connections; other; other = other->next)
        same += other->has_client && !memcmp(other->client, c->client, sizeof c->client);
    return same < s->limits.connections_per_client;
}
static void connection_timer(struct lk__grpc_timer *, uint64_t now_ns);
/* Takes fd. */
static void adopt(struct lk_grpc_server *s, int fd, const struct sockaddr_storage *from) {
    struct lk__grpc_connection *c = lk_calloc(1, sizeof *c);
    int one = 1;
    if (!c) {
        close(fd);
        return;
    }
    c->server = s, c->fd = fd, c->references = 1;
    c->heard_ns = c->moved_ns = c->idle_since_ns = s->now_ns;
    c->timer.fire = connection_timer;
    name_peer(c, from);
    struct epoll_event e = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = c};
    bool place = has_place(s, c);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (place && s->tls) place = (c->tls = lk__grpc_tls_new(s->tls, fd)) != NULL;
    c->handshaking = c->tls;
    if (!place || lk__grpc_session_new(c) || epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &e)) {
        if (c->session) lk__net_h2.session_del(c->session);
        if (c->tls) lk__grpc_tls_free(c->tls);
        close(fd);
        lk_free(c);
        pthread_mutex_lock(&s->mutex);
        s->counts.refused++;
        pthread_mutex_unlock(&s->mutex);
        return;
    }
    c->next = s->connections;
    if (c->next) c->next->prev = c;
    s->connections = c;
    pthread_mutex_lock(&s->mutex);
    s->counts.connections++;
    lk__grpc_metrics_calls(s);
    pthread_mutex_unlock(&s->mutex);
    connection_timer(&c->timer, s->now_ns);
    lk__grpc_touch(c);
}
static void accept_more(struct lk__grpc_timer *t, uint64_t now_ns) {
    struct lk_grpc_server *s = (struct lk_grpc_server *)(void *)((char *)t - offsetof(struct lk_grpc_server, accept_timer));
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = &s->at};
    (void)now_ns;
    if (!s->draining_said && !epoll_ctl(s->epoll, EPOLL_CTL_ADD, s->at.fd, &e)) s->accepting = true;
}
static void stop_accepting(struct lk_grpc_server *s) {
    if (s->accepting) (void)epoll_ctl(s->epoll, EPOLL_CTL_DEL, s->at.fd, NULL);
    s->accepting = false;
}
static void accept_some(struct lk_grpc_server *s) {
    for (int i = 0; i < EVENTS && s->accepting; i++) {
        struct sockaddr_storage from = {0};
        socklen_t size = sizeof from;
        int fd = accept4(s->at.fd, (struct sockaddr *)&from, &size, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            adopt(s, fd, &from);
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
            stop_accepting(s);
            lk__grpc_timer_set(&s->wheel, &s->accept_timer, s->now_ns + RETRY_MS * LK__GRPC_MS);
        } else if (errno != ECONNABORTED && errno != EINTR)
            return;
    }
}
/* --- bytes --- */

static void poll_out(struct lk__grpc_connection *c, bool on) {
    struct epoll_event e = {.events = EPOLLIN | EPOLLRDHUP | (on ? (uint32_t)EPOLLOUT : 0), .data.ptr = c};
    if (c->polls_out == on) return;
    c->polls_out = on;
    if (epoll_ctl(c->server->epoll, EPOLL_CTL_MOD, c->fd, &e)) c->dead = true;
}
static void handshake(struct lk__grpc_connection *c) {
    bool wants_write = false;
    int did = lk__grpc_tls_handshake(c->tls, &wants_write);
    if (did == LK__GRPC_BROKEN)
        c->dead = true;
    else if (did == LK__GRPC_AGAIN)
        poll_out(c, wants_write);
    else
        c->handshaking = false;
}
static ssize_t read_some(struct lk__grpc_connection *c, void *data, size_t size) {
    if (c->tls) return lk__grpc_tls_read(c->tls, data, size);
    ssize_t n = recv(c->fd, data, size, 0);
    return n >= 0 ? n : errno == EAGAIN || errno == EINTR ? LK__GRPC_AGAIN : LK__GRPC_BROKEN;
}
static ssize_t write_some(struct lk__grpc_connection *c, const void *data, size_t size) {
    if (c->tls) return lk__grpc_tls_write(c->tls, data, size);
    ssize_t n = send(c->fd, data, size, MSG_NOSIGNAL);
    return n >= 0 ? n : errno == EAGAIN || errno == EINTR ? LK__GRPC_AGAIN : LK__GRPC_BROKEN;
}
static void hear(struct lk__grpc_connection *c) {
    static _Thread_local uint8_t data[READ_BYTES];
    for (int turn = 0; turn < READ_TURNS && !c->dead; turn++) {
        ssize_t n = read_some(c, data, sizeof data);
        if (n == LK__GRPC_AGAIN) return;
        if (n <= 0) {
            c->dead = true;
            return;
        }
        c->heard_ns = c->server->now_ns;
        c->pinged_ns = 0;
        if (c->ending) { /* only until it has heard why, or goes on and on */
            c->dead = (c->lingered += (size_t)n) > LINGER_BYTES;
            continue;
        }
        ssize_t took = lk__grpc_scan(c, data, (size_t)n) ? lk__net_h2.session_mem_recv(c->session, data, (size_t)n) : -1;
        if (took == NGHTTP2_ERR_FLOODED || took == NGHTTP2_ERR_BAD_CLIENT_MAGIC) c->abusive = true;
        if (took < 0 || c->abusive) c->ending = true;
        if ((size_t)n < sizeof data && !(c->tls && lk__grpc_tls_pending(c->tls))) return;
    }
}
/* What nghttp2 has, up to OUT_BYTES. */
static void fill(struct lk__grpc_connection *c) {
    const uint8_t *data;
    while (c->out.size - c->out_sent < OUT_BYTES) {
        ssize_t n = lk__net_h2.session_mem_send(c->session, &data);
        if (n < 0 || (n > 0 && lk_buf_append(&c->out, data, (size_t)n))) c->dead = true;
        if (n <= 0 || c->dead) return;
    }
}
/* The end of all; what the client still sends is read for a moment, as else the kernel would drop what was said last. */
static void linger(struct lk__grpc_connection *c) {
    lk__grpc_session_end(c);
    (void)shutdown(c->fd, SHUT_WR);
    c->lingers = c->ending = true;
    lk__grpc_timer_set(&c->server->wheel, &c->timer, c->server->now_ns + LINGER_MS * LK__GRPC_MS);
}
static void say(struct lk__grpc_connection *c) {
    size_t wrote = 0;
    while (!c->dead && wrote < WRITE_BYTES) {
        fill(c);
        size_t size = c->out.size - c->out_sent;
        if (c->dead || !size) break;
        ssize_t n = write_some(c, c->out.data + c->out_sent, size);
        if (n == LK__GRPC_AGAIN) break;
        if (n <= 0) {
            c->dead = true;
            break;
        }
        c->moved_ns = c->server->now_ns;
        c->out_sent += (size_t)n, wrote += (size_t)n;
        if (c->out_sent == c->out.size) c->out_sent = c->out.size = 0;
    }
    if (c->dead) return;
    poll_out(c, c->out.size > 0 || wrote >= WRITE_BYTES);
    if (!c->out.size && !c->streams && c->out.capacity > KEEP_BYTES) lk_buf_release(&c->out);
}
/* Sends what there is; closes what is at its end. */
static void settle(struct lk__grpc_connection *c) {
    c->touched = false;
    if (!c->dead && !c->handshaking && !c->lingers) {
        say(c);
        bool done = c->ending || (!lk__net_h2.session_want_read(c->session) && !lk__net_h2.session_want_write(c->session));
        if (!c->dead && done && !c->out.size) linger(c);
    }
    if (c->dead) destroy(c);
}
static void settle_all(struct lk_grpc_server *s) {
    for (struct lk__grpc_connection *c; (c = s->touched);) s->touched = c->touched_next, settle(c);
}

/* --- time --- */

static void connection_timer(struct lk__grpc_timer *t, uint64_t now) {
    struct lk__grpc_connection *c =
        (struct lk__grpc_connection *)(void *)((char *)t - offsetof(struct lk__grpc_connection, timer));
    struct lk_grpc_server *s = c->server;
    const struct lk_grpc_limits *l = &s->limits;
    bool new = c->handshaking || !c->greeted, stalled = c->out.size &&now - c->moved_ns >= l->stall_ms *LK__GRPC_MS;
    if (c->lingers || (new &&now - c->idle_since_ns >= l->handshake_ms *LK__GRPC_MS) || stalled) {
        pthread_mutex_lock(&s->mutex);
        s->counts.stalled += stalled || new;
        pthread_mutex_unlock(&s->mutex);
        c->dead = true;
    } else if (c->pinged_ns && now - c->pinged_ns >= l->keepalive_ms * LK__GRPC_MS)
        c->dead = true;
    else if (!new && !c->pinged_ns && now - c->heard_ns >= l->keepalive_ms *LK__GRPC_MS) {
        c->pinged_ns = now;
        lk__net_h2.submit_ping(c->session, NGHTTP2_FLAG_NONE, NULL);
    }
    if (!new && !c->dead && !c->streams && now - c->idle_since_ns >= l->idle_ms *LK__GRPC_MS) {
        int32_t last = lk__net_h2.session_get_last_proc_stream_id(c->session);
        lk__net_h2.submit_goaway(c->session, NGHTTP2_FLAG_NONE, last, NGHTTP2_NO_ERROR, NULL, 0);
    }
    uint32_t least = l->keepalive_ms < l->idle_ms ? l->keepalive_ms : l->idle_ms;
    if (l->stall_ms < least) least = l->stall_ms;
    if (new && l->handshake_ms < least) least = l->handshake_ms;
    lk__grpc_timer_set(&s->wheel, &c->timer, now + least * LK__GRPC_MS / 4 + 1);
    lk__grpc_touch(c);
}
static void drain_finally(struct lk__grpc_timer *t, uint64_t now_ns) {
    struct lk_grpc_server *s = (struct lk_grpc_server *)(void *)((char *)t - offsetof(struct lk_grpc_server, drain_timer));
    (void)now_ns;
    for (struct lk__grpc_connection *c = s->connections; c; c = c->next) {
        if (c->ending) continue;
        int32_t last = lk__net_h2.session_get_last_proc_stream_id(c->session);
        lk__net_h2.submit_goaway(c->session, NGHTTP2_FLAG_NONE, last, NGHTTP2_NO_ERROR, NULL, 0);
        lk__grpc_touch(c);
    }
}
/* First that new calls are not wanted, a moment later that none is taken any more: those on their way are served. */
static void drain(struct lk_grpc_server *s) {
    s->draining_said = true;
    stop_accepting(s);
    for (struct lk__grpc_connection *c = s->connections; c; c = c->next) {
        if (c->ending) continue;
        lk__net_h2.submit_shutdown_notice(c->session);
        lk__grpc_touch(c);
    }
    lk__grpc_timer_set(&s->wheel, &s->drain_timer, s->now_ns + NOTICE_MS * LK__GRPC_MS);
}

/* --- rounds --- */

void lk__grpc_cancel_all(struct lk_grpc_server *s) {
    for (struct lk__grpc_connection *c = s->connections; c; c = c->next)
        for (struct lk_grpc_call *call = c->list.first; call; call = call->next) {
            if (call->reset) continue;
            lk__grpc_call_cancel(call);
            call->reset = true;
            lk__grpc_call_dirty(call);
        }
}

static void answer_all(struct lk_grpc_server *s) {
    pthread_mutex_lock(&s->mutex);
    struct lk_grpc_call *first = s->dirty;
    s->dirty = s->dirty_last = NULL;
    for (struct lk_grpc_call *c = first; c; c = c->dirty_next) c->dirty = false, c->answering_next = c->dirty_next;
    pthread_mutex_unlock(&s->mutex);
    for (struct lk_grpc_call *c; (c = first);) {
        first = c->answering_next;
        if (!c->gone && c->connection->session) lk__grpc_answer(c);
        pthread_mutex_lock(&s->mutex);
        lk__grpc_call_drop(c);
        pthread_mutex_unlock(&s->mutex);
    }
}
static void do_event(struct lk_grpc_server *s, const struct epoll_event *e) {
    uint64_t n;
    if (e->data.ptr == &s->wake) {
        (void)!read(s->wake, &n, sizeof n);
    } else if (e->data.ptr == &s->at) {
        accept_some(s);
    } else {
        struct lk__grpc_connection *c = e->data.ptr;
        if (c->handshaking) handshake(c);
        if (!c->handshaking && !c->dead && e->events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) hear(c);
        lk__grpc_touch(c);
    }
}
void lk__grpc_poll_round(struct lk_grpc_server *s, bool wait) {
    struct epoll_event events[EVENTS];
    answer_all(s);
    settle_all(s);
    pthread_mutex_lock(&s->mutex);
    wait = wait && !s->dirty && !(s->draining && !s->draining_said);
    s->sleeping = wait;
    pthread_mutex_unlock(&s->mutex);
    int n = epoll_wait(s->epoll, events, EVENTS, wait ? lk__grpc_wheel_wait_ms(&s->wheel, lk_clock_ns()) : 0);
    pthread_mutex_lock(&s->mutex);
    s->sleeping = false;
    bool draining = s->draining;
    pthread_mutex_unlock(&s->mutex);
    s->now_ns = lk_clock_ns();
    for (int i = 0; i < n; i++) do_event(s, &events[i]);
    if (draining && !s->draining_said) drain(s);
    lk__grpc_wheel_turn(&s->wheel, s->now_ns);
}
int lk__grpc_poll_open(struct lk_grpc_server *s, struct lk_err *err) {
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = &s->wake};
    s->now_ns = lk_clock_ns();
    lk__grpc_wheel_init(&s->wheel, s->now_ns);
    s->accept_timer.fire = accept_more, s->drain_timer.fire = drain_finally;
    s->epoll = epoll_create1(EPOLL_CLOEXEC);
    s->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (s->epoll < 0 || s->wake < 0 || epoll_ctl(s->epoll, EPOLL_CTL_ADD, s->wake, &e))
        return lk_fail_errno(err, "cannot watch the sockets of %s", s->at.address);
    accept_more(&s->accept_timer, 0);
    return s->accepting ? LK_OK : lk_fail_errno(err, "cannot watch the sockets of %s", s->at.address);
}
void lk__grpc_poll_close(struct lk_grpc_server *s) {
    while (s->connections) destroy(s->connections);
    s->touched = NULL;
    if (s->epoll >= 0) close(s->epoll);
    if (s->wake >= 0) close(s->wake);
}
