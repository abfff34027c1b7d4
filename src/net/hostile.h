/* A server of the tests' own, which answers as badly as a test wants: raw bytes on real sockets, a thread a connection.
 * Only tests include it. */
#ifndef LK_NET_HOSTILE_H
#define LK_NET_HOSTILE_H
#include "base/testing.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>

struct hostile_request {
    int fd;
    char method[16], target[4096], head[32768]; /* head: all of it */
    char *body;
    size_t body_size;
    void *arg;
};
/* Answers by hostile_say and hostile_send; false: the connection is closed. */
typedef bool hostile_fn(struct hostile_request *);
struct hostile {
    int fd;
    unsigned short port;
    char url[64];
    hostile_fn *handle;
    void *arg;
    pthread_t thread;
    atomic_int connections, requests, open;
    atomic_bool closing;
};

static inline void hostile_send(struct hostile_request *r, const void *data, size_t size) {
    for (const char *p = data; size;) {
        ssize_t n = send(r->fd, p, size, MSG_NOSIGNAL);
        if (n <= 0) return;
        p += n, size -= (size_t)n;
    }
}
__attribute__((format(printf, 2, 3))) static inline void hostile_say(struct hostile_request *r, const char *format, ...) {
    char text[8192];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    hostile_send(r, text, (size_t)n);
}
/* A whole answer. fields: lines with their ends. */
static inline void hostile_answer(struct hostile_request *r, int status, const char *fields, const void *body,
                                  size_t size) {
    hostile_say(r, "HTTP/1.1 %d X\r\nContent-Length: %zu\r\n%s\r\n", status, size, fields);
    if (strcmp(r->method, "HEAD") != 0) hostile_send(r, body, size);
}
/* A header's value into out; false: absent. */
static inline bool hostile_header(const struct hostile_request *r, const char *name, char *out, size_t room) {
    char line[128];
    snprintf(line, sizeof line, "\r\n%s:", name);
    const char *at = strcasestr(r->head, line);
    if (!at) return false;
    at += strlen(line);
    at += strspn(at, " ");
    snprintf(out, room, "%.*s", (int)strcspn(at, "\r\n"), at);
    return true;
}
/* The connection ends with a reset. */
static inline void hostile_reset(struct hostile_request *r) {
    struct linger now = {1, 0};
    setsockopt(r->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
}

static inline bool hostile_read(struct hostile_request *r) {
    size_t size = 0;
    char *end = NULL, length[32];
    while (!end) {
        if (size + 1 >= sizeof r->head) return false;
        ssize_t n = recv(r->fd, r->head + size, sizeof r->head - 1 - size, 0);
        if (n <= 0) return false;
        r->head[size += (size_t)n] = 0;
        end = strstr(r->head, "\r\n\r\n");
    }
    if (sscanf(r->head, "%15s %4095s", r->method, r->target) != 2) return false;
    size_t head = (size_t)(end + 4 - r->head), have = size - head;
    r->body_size = hostile_header(r, "Content-Length", length, sizeof length) ? strtoull(length, NULL, 10) : 0;
    r->body = malloc(r->body_size + 1);
    if (have > r->body_size) have = r->body_size;
    memcpy(r->body, end + 4, have);
    end[2] = 0;
    while (have < r->body_size) {
        ssize_t n = recv(r->fd, r->body + have, r->body_size - have, 0);
        if (n <= 0) return false;
        have += (size_t)n;
    }
    r->body[have] = 0;
    return true;
}
struct hostile_connection {
    struct hostile *server;
    int fd;
};
static inline void *hostile_serve(void *arg) {
    struct hostile_connection c = *(struct hostile_connection *)arg;
    free(arg);
    for (bool more = true; more && !c.server->closing;) {
        struct hostile_request *r = calloc(1, sizeof *r);
        r->fd = c.fd;
        r->arg = c.server->arg;
        more = hostile_read(r);
        if (more) c.server->requests++;
        more = more && c.server->handle(r);
        free(r->body);
        free(r);
    }
    close(c.fd);
    c.server->open--;
    return NULL;
}
static inline void *hostile_accept(void *arg) {
    struct hostile *s = arg;
    for (int fd; (fd = accept(s->fd, NULL, NULL)) >= 0;) {
        struct hostile_connection *c = malloc(sizeof *c);
        struct timeval limit = {.tv_sec = 20};
        pthread_t t;
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        *c = (struct hostile_connection){s, fd};
        s->connections++;
        s->open++;
        if (pthread_create(&t, NULL, hostile_serve, c) != 0) abort();
        pthread_detach(t);
    }
    return NULL;
}
static inline void hostile_open(struct hostile *s, hostile_fn *handle, void *arg) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof at;
    memset(s, 0, sizeof *s);
    s->handle = handle, s->arg = arg;
    s->fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(s->fd >= 0 && bind(s->fd, (void *)&at, sizeof at) == 0 && listen(s->fd, 64) == 0);
    assert_int_equal(getsockname(s->fd, (void *)&at, &n), 0);
    s->port = ntohs(at.sin_port);
    snprintf(s->url, sizeof s->url, "http://127.0.0.1:%u", s->port);
    assert_int_equal(pthread_create(&s->thread, NULL, hostile_accept, s), 0);
}
/* The client has closed its connections. */
static inline void hostile_close(struct hostile *s) {
    s->closing = true;
    shutdown(s->fd, SHUT_RDWR);
    pthread_join(s->thread, NULL);
    close(s->fd);
    for (int i = 0; i < 3000 && s->open; i++) usleep(10000);
    assert_int_equal(s->open, 0);
}

#endif
