/* An HTTP/1.1 server for a few handlers, with limits. libmicrohttpd speaks HTTP; this says when a client has gone, lets any
 * thread answer, and never blocks the thread that answers. */
#ifndef LOCKSTEP_HTTP_SERVER_H
#define LOCKSTEP_HTTP_SERVER_H
#include "lockstep/base/err.h"
#include "lockstep/base/mem.h"
#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

struct lk_http_server;
/* One request and its answer. It is the handler's from the call of `handle` until lk_http_respond or lk_http_end, one of
 * which must come, also when the client has gone. */
struct lk_http_exchange;

/* 0: what stands behind it. */
struct lk_http_limits {
    size_t header_bytes;             /* first line and headers, 32 KiB; beyond: 431 or 414, the connection is closed */
    size_t body_bytes;               /* 8 MiB; beyond: 413 */
    size_t unsent_bytes;             /* of one answer whose client does not read, 4 MiB; beyond: it has gone */
    uint32_t connections;            /* 1,000; beyond: closed at once */
    uint32_t connections_per_client; /* of one address, 256 */
    uint32_t request_ms;             /* from the connection, or the answer before, to a request's last byte, 60 s */
};
struct lk_http_options {
    const char *listen; /* HOST:PORT, [IPv6]:PORT; port 0: any that is free */
    struct lk_http_limits limits;
    const char *tls_certificate, *tls_key; /* PEM files, or NULL: no TLS */
    /* A whole request is there. From the server's thread: it must not block. */
    void (*handle)(void *arg, struct lk_http_exchange *);
    /* The body of an answer that the server gives itself (413, 400), appended to out; its type is application/json. */
    void (*error_body)(void *arg, int status, const char *what, struct lk_buf *out);
    void *arg;
};
/* True: only this machine can come to such an address. */
bool lk_http_is_loopback(const char *listen);
/* LK_EINVAL: an address that can't be read; LK_EIO: one that can't be had; LK_EUNSUPPORTED: a build without
 * libmicrohttpd, or its TLS; LK_ENOMEM. */
int lk_http_server_open(const struct lk_http_options *, struct lk_http_server **out, struct lk_err *);
const char *lk_http_server_address(const struct lk_http_server *); /* "127.0.0.1:41233" */
/* Takes no new connections; those that are there go on. */
void lk_http_server_drain(struct lk_http_server *);
/* Every client has gone. Exchanges that are still a handler's stay valid until it ends them. */
void lk_http_server_close(struct lk_http_server *);
uint32_t lk_http_server_connections(const struct lk_http_server *);

/* What was asked; valid until the exchange ends. */
const char *lk_http_method(const struct lk_http_exchange *);
const char *lk_http_path(const struct lk_http_exchange *);                     /* percent-decoded, without the query */
const char *lk_http_header(const struct lk_http_exchange *, const char *name); /* the first of this name, or NULL */
const char *lk_http_query(const struct lk_http_exchange *, const char *name);
struct lk_bytes lk_http_body(const struct lk_http_exchange *); /* followed by a zero byte */

/* Is called once when the client goes before the answer's end: at once, from a thread of the server, and not after
 * lk_http_respond or lk_http_end have returned. It must call nothing of this exchange. A client that closes its sending
 * side only counts as gone. Called immediately where it has gone already. */
void lk_http_on_gone(struct lk_http_exchange *, void (*gone)(void *), void *arg);

struct lk_http_field {
    const char *name, *value;
};
/* The whole answer; body is copied. Ends the exchange. From any thread, as all that follow. LK_ENOMEM: the connection is
 * closed without one. */
int lk_http_respond(struct lk_http_exchange *, int status, const char *type, const struct lk_http_field *, size_t fields,
                    const void *body, size_t size);
/* Begins an answer in pieces, which lk_http_write adds without waiting for the client, and lk_http_end ends. LK_EIO: the
 * client has gone or does not read; LK_ENOMEM. The exchange still has to be ended. */
int lk_http_begin(struct lk_http_exchange *, int status, const char *type, const struct lk_http_field *, size_t fields);
int lk_http_write(struct lk_http_exchange *, const void *data, size_t size);
void lk_http_end(struct lk_http_exchange *); /* one that was not begun: the connection is closed */

#ifdef __cplusplus
}
#endif
#endif
