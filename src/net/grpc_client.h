/* A client of HTTP/2 for tests: frames by hand, so that it can send what no client should; only HPACK is nghttp2's.
 * Blocking, with 10 s for each read. Of tests only. */
#ifndef LOCKSTEP_NET_GRPC_CLIENT_H
#define LOCKSTEP_NET_GRPC_CLIENT_H
#include "base/testing.h"
#include "lockstep/base/progress.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <openssl/ssl.h>
#include <sys/socket.h>

enum { F_DATA, F_HEADERS, F_PRIORITY, F_RST, F_SETTINGS, F_PUSH, F_PING, F_GOAWAY, F_WINDOW, F_CONTINUATION };
enum { END_STREAM = 1, ACK = 1, END_HEADERS = 4 };
#define STREAMS 2048 /* of one client in a test: its streams are 1, 3, ... */

struct answer {
    int http, status; /* status: grpc-status, -1 before it is there */
    bool ended;
    int64_t reset; /* its code, -1: none */
    char message[512], details[512], echo[256], echo_bin[256], encoding[32];
    struct lk_buf body; /* with prefixes */
    uint32_t taken;     /* bytes of DATA */
};
struct client {
    int fd;
    SSL *tls;
    nghttp2_hd_inflater *inflater;
    bool closed, settings_acked;
    int64_t goaway; /* its code, -1: none */
    uint32_t goaway_last, pongs, frames;
    char goaway_text[64];
    bool no_window;        /* gives no window back */
    struct lk_buf *record; /* what would be sent goes here */
    uint32_t next;
    struct answer *answers; /* (STREAMS) */
};

static inline void put32(uint8_t *to, uint32_t n) {
    for (int i = 0; i < 4; i++) to[i] = (uint8_t)(n >> (24 - 8 * i));
}
static inline uint32_t get32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}
/* False: the server has closed. */
static inline bool c_raw(struct client *c, const void *data, size_t size) {
    if (c->record) return !lk_buf_append(c->record, data, size);
    for (size_t at = 0; at < size;) {
        ssize_t n = c->tls ? SSL_write(c->tls, (const char *)data + at, (int)(size - at))
                           : send(c->fd, (const char *)data + at, size - at, MSG_NOSIGNAL);
        if (n <= 0) return false;
        at += (size_t)n;
    }
    return true;
}
static inline bool c_frame(struct client *c, int type, int flags, uint32_t stream, const void *data, size_t size) {
    uint8_t h[9] = {(uint8_t)(size >> 16), (uint8_t)(size >> 8), (uint8_t)size, (uint8_t)type, (uint8_t)flags};
    put32(h + 5, stream);
    struct lk_buf b = LK_BUF_INIT;
    assert_int_equal(lk_buf_append(&b, h, 9), 0);
    assert_int_equal(lk_buf_append(&b, data, size), 0);
    bool ok = c_raw(c, b.data, b.size);
    lk_buf_release(&b);
    return ok;
}
static inline int c_socket(unsigned short port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval limit = {10, 0};
    assert_true(fd >= 0 && !setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit));
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    return fd;
}
static inline struct client c_new(int fd) {
    struct client c = {.fd = fd, .goaway = -1, .next = 1, .answers = calloc(STREAMS, sizeof *c.answers)};
    assert_non_null(c.answers);
    assert_int_equal(nghttp2_hd_inflate_new(&c.inflater), 0);
    for (int i = 0; i < STREAMS; i++) c.answers[i].status = -1, c.answers[i].reset = -1;
    return c;
}
#define PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
/* window: of each stream, for what the server sends. */
static inline void c_greet(struct client *c, uint32_t window) {
    uint8_t s[6] = {0, 4};
    put32(s + 2, window);
    assert_true(c_raw(c, PREFACE, sizeof PREFACE - 1));
    assert_true(c_frame(c, F_SETTINGS, 0, 0, s, sizeof s));
}
static inline struct client c_open(unsigned short port) {
    struct client c = c_new(c_socket(port));
    c_greet(&c, 65535);
    return c;
}
static inline void c_close(struct client *c) {
    if (c->tls) SSL_free(c->tls);
    close(c->fd);
    nghttp2_hd_inflate_del(c->inflater);
    for (int i = 0; i < STREAMS; i++) lk_buf_release(&c->answers[i].body);
    free(c->answers);
}

/* --- requests --- */

static inline void h_add(struct lk_buf *h, const char *name, const char *value) {
    size_t n = strlen(name), v = strlen(value);
    assert_true(n < 127 && v < 100000);
    uint8_t b[8] = {0, (uint8_t)n};
    assert_int_equal(lk_buf_append(h, b, 2), 0);
    assert_int_equal(lk_buf_append(h, name, n), 0);
    size_t at = 0;
    if (v < 127)
        b[at++] = (uint8_t)v;
    else {
        b[at++] = 127;
        for (v -= 127; v >= 128; v >>= 7) b[at++] = (uint8_t)(v | 128);
        b[at++] = (uint8_t)v;
    }
    assert_int_equal(lk_buf_append(h, b, at), 0);
    assert_int_equal(lk_buf_append(h, value, strlen(value)), 0);
}
/* A call's headers; more: "name", "value", ..., NULL. A name that is there replaces ours; value "" leaves it out. */
static inline uint32_t c_begin_list(struct client *c, const char *path, const char *const *more) {
    struct lk_buf h = LK_BUF_INIT;
    const char *const ours[] = {":method",    "POST", ":scheme", "http",     ":path",        path,
                                ":authority", "test", "te",      "trailers", "content-type", "application/grpc",
                                NULL};
    for (const char *const *o = ours; *o; o += 2) {
        const char *value = o[1];
        for (const char *const *m = more; m && *m; m += 2)
            if (!strcmp(*m, *o)) value = m[1];
        if (*value) h_add(&h, *o, value);
    }
    for (const char *const *m = more; m && *m; m += 2) {
        bool is_ours = false;
        for (const char *const *o = ours; *o; o += 2) is_ours |= !strcmp(*m, *o);
        if (!is_ours) h_add(&h, m[0], m[1]);
    }
    uint32_t stream = c->next;
    c->next += 2;
    assert_true(stream / 2 < STREAMS);
    for (size_t at = 0; at < h.size || !at;) { /* more than a frame goes on in CONTINUATIONs */
        size_t n = h.size - at < 16384 ? h.size - at : 16384;
        c_frame(c, at ? F_CONTINUATION : F_HEADERS, at + n == h.size ? END_HEADERS : 0, stream, h.data + at, n);
        at += n;
    }
    lk_buf_release(&h);
    return stream;
}
#define c_begin(c, path, ...) c_begin_list(c, path, (const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})
static inline void c_message(struct client *c, uint32_t stream, const void *data, size_t size, int flag, bool end) {
    struct lk_buf b = LK_BUF_INIT;
    uint8_t p[5] = {(uint8_t)flag};
    put32(p + 1, (uint32_t)size);
    assert_int_equal(lk_buf_append(&b, p, 5), 0);
    assert_int_equal(lk_buf_append(&b, data, size), 0);
    for (size_t at = 0; at < b.size;) {
        size_t n = b.size - at < 16384 ? b.size - at : 16384;
        if (!c_frame(c, F_DATA, end && at + n == b.size ? END_STREAM : 0, stream, b.data + at, n)) break;
        at += n;
    }
    lk_buf_release(&b);
}

/* --- what comes --- */

static inline bool c_read(struct client *c, void *data, size_t size) {
    for (size_t at = 0; at < size;) {
        ssize_t n =
            c->tls ? SSL_read(c->tls, (char *)data + at, (int)(size - at)) : recv(c->fd, (char *)data + at, size - at, 0);
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) fail_msg("the server is silent");
        if (n <= 0) return c->closed = true, false;
        at += (size_t)n;
    }
    return true;
}
static inline void copy_to(char *to, size_t most, const nghttp2_nv *nv) {
    size_t n = nv->valuelen < most - 1 ? nv->valuelen : most - 1;
    memcpy(to, nv->value, n), to[n] = 0;
}
static inline void c_headers(struct client *c, struct answer *a, const uint8_t *data, size_t size) {
    for (;;) {
        nghttp2_nv nv;
        int flags = 0;
        ssize_t n = nghttp2_hd_inflate_hd2(c->inflater, &nv, &flags, data, size, 1);
        assert_true(n >= 0);
        data += n, size -= (size_t)n;
        if (flags & NGHTTP2_HD_INFLATE_EMIT) {
            const char *name = (const char *)nv.name;
            if (!strcmp(name, ":status")) a->http = atoi((const char *)nv.value);
            if (!strcmp(name, "grpc-status")) a->status = atoi((const char *)nv.value);
            if (!strcmp(name, "grpc-message")) copy_to(a->message, sizeof a->message, &nv);
            if (!strcmp(name, "grpc-status-details-bin")) copy_to(a->details, sizeof a->details, &nv);
            if (!strcmp(name, "x-echo")) copy_to(a->echo, sizeof a->echo, &nv);
            if (!strcmp(name, "x-echo-bin")) copy_to(a->echo_bin, sizeof a->echo_bin, &nv);
            if (!strcmp(name, "grpc-encoding")) copy_to(a->encoding, sizeof a->encoding, &nv);
        }
        if (flags & NGHTTP2_HD_INFLATE_FINAL) break;
        if (!(flags & NGHTTP2_HD_INFLATE_EMIT) && !size) break;
    }
    nghttp2_hd_inflate_end_headers(c->inflater);
}
static inline struct answer *c_answer(struct client *c, uint32_t stream) {
    assert_true(stream % 2 == 1 && stream / 2 < STREAMS);
    return &c->answers[stream / 2];
}
/* One frame; false: the connection is closed. */
static inline bool c_step(struct client *c) {
    uint8_t h[9], more[4], *data;
    if (c->closed || !c_read(c, h, 9)) return false;
    size_t size = (size_t)h[0] << 16 | (size_t)h[1] << 8 | h[2];
    uint32_t stream = get32(h + 5) & INT32_MAX;
    assert_true(size <= 16384);
    assert_non_null(data = malloc(size + 1));
    data[size] = 0;
    bool ok = c_read(c, data, size);
    c->frames++;
    if (ok && h[3] == F_DATA) {
        struct answer *a = c_answer(c, stream);
        assert_int_equal(lk_buf_append(&a->body, data, size), 0);
        a->taken += (uint32_t)size;
        put32(more, (uint32_t)size);
        if (!c->no_window && size) c_frame(c, F_WINDOW, 0, stream, more, 4), c_frame(c, F_WINDOW, 0, 0, more, 4);
    } else if (ok && h[3] == F_HEADERS)
        c_headers(c, c_answer(c, stream), data, size);
    else if (ok && h[3] == F_RST)
        c_answer(c, stream)->reset = get32(data);
    else if (ok && h[3] == F_SETTINGS && !(h[4] & ACK))
        c_frame(c, F_SETTINGS, ACK, 0, NULL, 0);
    else if (ok && h[3] == F_SETTINGS)
        c->settings_acked = true;
    else if (ok && h[3] == F_PING && !(h[4] & ACK))
        c_frame(c, F_PING, ACK, 0, data, 8);
    else if (ok && h[3] == F_PING)
        c->pongs++;
    else if (ok && h[3] == F_GOAWAY) {
        c->goaway_last = get32(data) & INT32_MAX, c->goaway = get32(data + 4);
        snprintf(c->goaway_text, sizeof c->goaway_text, "%.*s", (int)(size - 8), (const char *)data + 8);
    }
    if (ok && (h[3] == F_DATA || h[3] == F_HEADERS) && h[4] & END_STREAM) c_answer(c, stream)->ended = true;
    free(data);
    return ok;
}
/* Until a call has ended, by a status or a reset. */
static inline struct answer *c_wait(struct client *c, uint32_t stream) {
    struct answer *a = c_answer(c, stream);
    while (!a->ended && a->reset < 0 && c_step(c)) {}
    return a;
}
/* Until the server closes. */
static inline void c_drain(struct client *c) {
    while (c_step(c)) {}
}
/* A ping goes there and back, so all before it has been heard. */
static inline void c_sync(struct client *c) {
    uint32_t pongs = c->pongs;
    assert_true(c_frame(c, F_PING, 0, 0, "12345678", 8));
    while (c->pongs == pongs && c_step(c)) {}
}

#endif
