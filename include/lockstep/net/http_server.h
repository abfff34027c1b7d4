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
    size_t header_bytes;             /* address and headers, 16 KiB; beyond: 431 (414 from about twice of it on) */
    size_t body_bytes;               /* 8 MiB; beyond: 413 */
    size_t bodies_bytes;             /* of all requests together, until they are over, 256 MiB; beyond: 503 */
    size_t unsent_bytes;             /* of one answer whose client does not read, 4 MiB; beyond: it is cut */
    uint32_t connections;            /* 1,000; beyond: closed at once */
    uint32_t connections_per_client; /* of one IP address, 256; beyond: closed at once. Unix sockets: no limit */
    uint32_t idle_ms;                /* until a request's first line is there, and of a client that reads nothing, 60 s */
    uint32_t request_ms;             /* from a request's first line to its last byte, 30 s; beyond both: closed */
};
struct lk_http_options {
    const char *listen; /* HOST:PORT, [IPv6]:PORT, unix:PATH; port 0: any that is free */
    struct lk_http_limits limits;
    const char *tls_certificate, *tls_key; /* PEM files, or NULL: no TLS */
    /* A whole request is there. From the server's thread: it must not block, as nobody else is served meanwhile. */
    void (*handle)(void *arg, struct lk_http_exchange *);
    /* The body of a refusal of the server's own (400, 405, 413, 431, 501, 503), appended to out; its type is
     * application/json. NULL: plain text. What is no HTTP gets libmicrohttpd's own page with 400, 414, 431 or 505. */
    void (*error_body)(void *arg, int status, const char *what, struct lk_buf *out);
    void *arg;
};
/* True: only this machine can come to such an address. */
bool lk_http_is_loopback(const char *listen);
/* Raises this process's limit of open files to what `connections` need, as far as it may.
 * LK_EINVAL: an address that can't be read; LK_EIO: one that can't be had, a certificate or key that does not do;
 * LK_ENOTFOUND: their files; LK_EUNSUPPORTED: a build or a machine without libmicrohttpd, or its TLS; LK_ENOMEM. */
int lk_http_server_open(const struct lk_http_options *, struct lk_http_server **out, struct lk_err *);
const char *lk_http_server_address(const struct lk_http_server *); /* "127.0.0.1:41233" */
/* Takes no new connections; those that are there go on. Returns at once. */
void lk_http_server_drain(struct lk_http_server *);
/* Answers that have ended are sent, for at most 2 s; then every client has gone. Exchanges that are still a handler's stay
 * valid until it ends them. Not from a thread of the server's. NULL is fine. */
void lk_http_server_close(struct lk_http_server *);
uint32_t lk_http_server_connections(const struct lk_http_server *);
struct lk_http_counts {
    uint32_t connections; /* now */
    uint64_t requests;    /* that were handed to `handle` */
    uint64_t refused;     /* connections beyond `connections` */
    uint64_t slow;        /* connections shut after idle_ms or request_ms */
};
void lk_http_server_count(struct lk_http_server *, struct lk_http_counts *out);

/* What was asked; valid until the exchange ends. */
const char *lk_http_method(const struct lk_http_exchange *);
/* Percent-decoded, without the query. Any text without a zero byte: it need not be UTF-8 and may hold "..". */
const char *lk_http_path(const struct lk_http_exchange *);
const char *lk_http_header(const struct lk_http_exchange *, const char *name); /* the first of this name, or NULL */
const char *lk_http_query(const struct lk_http_exchange *, const char *name);
struct lk_bytes lk_http_body(const struct lk_http_exchange *); /* followed by a zero byte */

/* Is called once when the client goes before the answer's end, or the server closes: at once, from a thread of the server,
 * and not after lk_http_respond or lk_http_end have returned: these wait for it, so it must not wait for a thread that is
 * in one of them. Not called where lk_http_write has said so. A client that closes its sending side counts as gone, as
 * nothing else tells it from one that went, unless `handle` answers before it returns. Called immediately where it has
 * gone already. */
void lk_http_on_gone(struct lk_http_exchange *, void (*gone)(void *), void *arg);

struct lk_http_field {
    const char *name, *value;
};
/* The whole answer; body is copied. Ends the exchange. From any thread, as all that follow. LK_ENOMEM: the connection is
 * closed without one, as with a field that HTTP does not allow. */
int lk_http_respond(struct lk_http_exchange *, int status, const char *type, const struct lk_http_field *, size_t fields,
                    const void *body, size_t size);
/* Begins an answer in pieces, which lk_http_write adds without waiting for the client, and lk_http_end ends. LK_EIO: the
 * client has gone or does not read; LK_ENOMEM: the answer is cut. The exchange still has to be ended. To HEAD no pieces
 * are sent: its client has gone with the headers. */
int lk_http_begin(struct lk_http_exchange *, int status, const char *type, const struct lk_http_field *, size_t fields);
int lk_http_write(struct lk_http_exchange *, const void *data, size_t size);
void lk_http_end(struct lk_http_exchange *); /* one that was not begun: the connection is closed */

#ifdef __cplusplus
}
#endif
#endif
