/* Requests as libmicrohttpd reads them, until a handler has one. */
#include "http_inside.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define EXCESS ((size_t)32 << 20) /* bytes of a body that are read and dropped, so that its refusal is heard */

/* Refusals of the server's own; the caller shapes their text. */
static enum MHD_Result refuse(struct lk_http_server *s, struct MHD_Connection *connection, int status, const char *what) {
    struct lk_buf body = LK_BUF_INIT;
    if (s->error_body)
        s->error_body(s->arg, status, what, &body);
    else
        lk_buf_printf(&body, "%s\n", what);
    struct MHD_Response *r =
        lk__net_mhd.create_response_from_buffer(body.size, body.data ? body.data : (char *)"", MHD_RESPMEM_MUST_COPY);
    lk_buf_release(&body);
    if (!r) return MHD_NO;
    lk__net_mhd.add_response_header(r, "Content-Type", s->error_body ? "application/json" : "text/plain");
    lk__net_mhd.add_response_header(r, "Connection", "close");
    if (status == 405) lk__net_mhd.add_response_header(r, "Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
    enum MHD_Result done = lk__net_mhd.queue_response(connection, (unsigned)status, r);
    lk__net_mhd.destroy_response(r);
    return done;
}

/* --- What the headers say ----------------------------------------------------------------------------------------- */

static int digit(char c) {
    return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
}
/* Decodes %XX in place. False: something else behind a %, or a zero byte, which would hide what follows. */
static bool decode(char *text) {
    char *to = text;
    for (const char *p = text; *p; p++) {
        if (*p != '%') {
            *to++ = *p;
            continue;
        }
        int high = digit(p[1]), low = high < 0 ? -1 : digit(p[2]);
        if (low < 0 || !(high | low)) return false;
        *to++ = (char)(high << 4 | low);
        p += 2;
    }
    *to = 0;
    return true;
}
/* libmicrohttpd's own would take anything. */
size_t lk__net_unescape_nothing(void *arg, struct MHD_Connection *connection, char *text) {
    (void)arg, (void)connection;
    return strlen(text);
}

struct copying {
    struct lk_buf *to;
    uint32_t lengths, codings; /* Content-Length, Transfer-Encoding */
    bool query, failed, wrong;
};
static enum MHD_Result copy_field(void *arg, enum MHD_ValueKind kind, const char *name, const char *value) {
    struct copying *c = arg;
    (void)kind;
    size_t at = c->to->size;
    if (!value) value = "";
    c->failed |= lk_buf_append(c->to, name, strlen(name) + 1) || lk_buf_append(c->to, value, strlen(value) + 1);
    if (c->failed) return MHD_NO;
    c->lengths += !c->query && !strcasecmp(name, "Content-Length");
    c->codings += !c->query && !strcasecmp(name, "Transfer-Encoding");
    if (!c->query) return MHD_YES;
    char *n = c->to->data + at, *v = n + strlen(n) + 1;
    c->wrong |= !decode(n) | !decode(v);
    size_t name_size = strlen(n) + 1, value_size = strlen(v) + 1;
    memmove(n + name_size, v, value_size); /* a decoded name is shorter */
    c->to->size = at + name_size + value_size;
    return MHD_YES;
}

static int method_status(const char *method) {
    static const char *const taken[] = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"};
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++)
        if (!strcmp(method, taken[i])) return 0;
    return !strcmp(method, "TRACE") || !strcmp(method, "CONNECT") ? 405 : 501;
}

static struct lk_http_exchange *make_exchange(struct lk_http_server *s, struct MHD_Connection *connection) {
    struct lk_http_exchange *x = lk_calloc(1, sizeof *x);
    if (!x) return NULL;
    pthread_mutex_init(&x->mutex, NULL);
    pthread_cond_init(&x->told_it, NULL);
    x->server = s, x->connection = connection;
    x->unsent_most = s->limits.unsent_bytes;
    atomic_store(&x->references, 1);
    x->fd = lk__net_mhd.get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    return x;
}

/* The headers are there: an exchange, or a refusal. */
static enum MHD_Result take_headers(struct lk_http_server *s, struct MHD_Connection *connection, const char *url,
                                    const char *method, void **context) {
    struct lk_http_exchange *x = make_exchange(s, connection);
    if (!x) return MHD_NO;
    *context = x; /* lk__net_request_over releases it, whatever comes */
    struct copying headers = {.to = &x->headers}, query = {.to = &x->query, .query = true};
    lk__net_mhd.get_connection_values(connection, MHD_HEADER_KIND, copy_field, &headers);
    lk__net_mhd.get_connection_values(connection, MHD_GET_ARGUMENT_KIND, copy_field, &query);
    x->path = lk_strdup(url);
    x->method = lk_strdup(method);
    if (headers.failed || query.failed || !x->path || !x->method) return MHD_NO;
    int status = method_status(method);
    if (status) return refuse(s, connection, status, "this method is not served");
    if (x->headers.size + x->query.size + strlen(url) > s->limits.header_bytes)
        return refuse(s, connection, 431, "the headers are too large");
    if (!decode(x->path) || query.wrong)
        return refuse(s, connection, 400, "the address has a % without two hexadecimal digits, or a zero byte");
    /* A proxy in front that counts otherwise would take one client's bytes for another's request. */
    if (headers.lengths + headers.codings > 1)
        return refuse(s, connection, 400, "a request has one Content-Length or one Transfer-Encoding");
    const char *length = headers.lengths ? lk_http_header(x, "Content-Length") : NULL;
    bool asks_first = lk_http_header(x, "Expect") != NULL; /* it hears a refusal before it sends */
    if (length && strtoull(length, NULL, 10) > s->limits.body_bytes + (asks_first ? 0 : EXCESS))
        return refuse(s, connection, 413, "the body is too large");
    return MHD_YES;
}

/* --- Bodies and handlers ------------------------------------------------------------------------------------------ */

static enum MHD_Result take_body(struct lk_http_server *s, struct lk_http_exchange *x, const char *data, size_t size) {
    if (!x->refused && x->body.size + size > s->limits.body_bytes) x->refused = 413;
    if (!x->refused && atomic_load(&s->body_bytes) + size > s->limits.bodies_bytes) x->refused = 503;
    if (!x->refused) {
        atomic_fetch_add(&s->body_bytes, size);
        x->counted = true;
        if (!lk_buf_append(&x->body, data, size)) return MHD_YES;
        atomic_fetch_sub(&s->body_bytes, size);
        x->refused = 503;
    }
    x->excess += size;
    return x->excess > EXCESS ? MHD_NO : MHD_YES; /* it goes on and on */
}

/* The handler's turn. What it answers at once goes out at once, also to a client that sends no more. */
static enum MHD_Result hand_over(struct lk_http_server *s, struct lk_http_exchange *x) {
    struct lk__net_connection *c = lk__net_connection_of(x->connection);
    lk__net_give_time(s, c, 0);
    x->handed = true;
    atomic_fetch_add(&x->references, 1); /* the handler's */
    s->handle(s->arg, x);
    pthread_mutex_lock(&x->mutex);
    bool ended = x->ended;
    pthread_mutex_unlock(&x->mutex);
    if (!ended && lk__net_attach(s, c, x)) lk__net_gone(x);
    return lk__net_answer(x);
}

enum MHD_Result lk__net_request(void *arg, struct MHD_Connection *connection, const char *url, const char *method,
                                const char *version, const char *data, size_t *size, void **context) {
    struct lk_http_server *s = arg;
    struct lk_http_exchange *x = *context;
    (void)version;
    if (!x) return take_headers(s, connection, url, method, context);
    if (x->handed) return lk__net_answer(x);
    if (*size) {
        size_t n = *size;
        *size = 0;
        return take_body(s, x, data, n);
    }
    if (x->refused)
        return refuse(s, connection, x->refused,
                      x->refused == 413 ? "the body is too large" : "too many bodies are being read: try again");
    return hand_over(s, x);
}

/* The first line is there: from now on it has request_ms. */
void *lk__net_request_begins(void *arg, const char *uri, struct MHD_Connection *connection) {
    struct lk_http_server *s = arg;
    (void)uri;
    lk__net_give_time(s, lk__net_connection_of(connection), s->limits.request_ms);
    return NULL;
}

void lk__net_request_over(void *arg, struct MHD_Connection *connection, void **context,
                          enum MHD_RequestTerminationCode why) {
    struct lk_http_server *s = arg;
    struct lk_http_exchange *x = *context;
    struct lk__net_connection *c = lk__net_connection_of(connection);
    (void)why;
    lk__net_give_time(s, c, s->limits.idle_ms);
    if (!x) return;
    *context = NULL;
    lk__net_attach(s, c, NULL);
    if (x->counted) atomic_fetch_sub(&s->body_bytes, x->body.size);
    lk__net_gone(x); /* unless it has ended */
    pthread_mutex_lock(&x->mutex);
    x->connection = NULL;
    pthread_mutex_unlock(&x->mutex);
    lk__net_release(x);
}
