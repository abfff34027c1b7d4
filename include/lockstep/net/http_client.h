/* An HTTP client over libcurl: many requests at once, one thread of its own that moves the bytes, no redirects. It knows
 * nothing of what is asked; who retries what is the caller's business. In a build without libcurl (CURL=no) and on a
 * machine without it, the first request is LK_EUNSUPPORTED. */
#ifndef LOCKSTEP_HTTP_CLIENT_H
#define LOCKSTEP_HTTP_CLIENT_H
#include "lockstep/base/err.h"
#include "lockstep/base/mem.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct lk_http_client;
struct lk_http_call; /* one request and its answer */

struct lk_http_client_options {
    int connections;     /* open at once; 0: 8 */
    const char *ca_file; /* PEM: whom to trust in place of the system's authorities; NULL: those */
    bool direct;         /* without a proxy, whatever the environment says */
    uint32_t connect_ms; /* until there is a connection, TLS included; 0: 10 s */
    uint32_t stall_ms;   /* a transfer below 1 KiB/s for this long has failed, rounded up to seconds; 0: 20 s */
    size_t header_limit; /* bytes of an answer's headers; 0: 64 KiB */
};

/* Nothing is loaded, connected or started before the first call. TLS certificates are always verified, against the name
 * too. LK_ENOMEM. */
int lk_http_client_open(const struct lk_http_client_options *, struct lk_http_client **out, struct lk_err *);
/* All its calls have been freed (an assertion). NULL is fine. A client does not pass through fork. */
void lk_http_client_close(struct lk_http_client *);

/* Called on the client's thread with pieces of the body of an answer of status 200 to 299, in order; other answers are kept
 * in memory, for their message. Non-zero ends the call: LK_EIO. */
typedef int lk_http_take_fn(void *arg, const void *data, size_t size);
/* Called on the client's thread: up to `size` bytes of the body from `offset` on into out; gives their number, or -1 to end
 * the call. It may be asked for the same bytes again, when a connection is lost as it is used. */
typedef long lk_http_give_fn(void *arg, uint64_t offset, void *out, size_t size);

struct lk_http_request {
    const char *method, *url;   /* http:// or https:// */
    const char *const *headers; /* "Name: value", NULL at the end; may be NULL */
    const void *body;           /* stays as it is until the call is freed; NULL with body_size 0, or with `give` */
    uint64_t body_size;
    lk_http_give_fn *give; /* in place of `body` */
    lk_http_take_fn *take; /* NULL: the answer's body is kept in memory */
    void *arg;             /* of both */
    size_t answer_limit;   /* of what is kept in memory, bytes; more fails the call. 0: 1 MiB */
    uint32_t deadline_ms;  /* for all of it; 0: none */
};
/* Starts it and returns; the strings are copied. Threads: any, also several at once. Those that find no connection wait for
 * one. LK_EINVAL: no such URL, or a header with a line end. LK_EUNSUPPORTED, LK_ENOMEM, LK_EIO (no thread). */
int lk_http_call_start(struct lk_http_client *, const struct lk_http_request *, struct lk_http_call **out, struct lk_err *);
/* Until it is over. 0: there is an answer, of whatever status. LK_EIO: none, or not all of one; the message says which
 * server and why, nothing of headers, query or body. LK_ESTOPPED: cancelled. LK_ENOMEM. May be called again. */
int lk_http_call_wait(struct lk_http_call *, struct lk_err *);
bool lk_http_call_over(struct lk_http_call *); /* wait would return at once */
void lk_http_call_cancel(struct lk_http_call *);
/* Cancels it if it is not over, and waits for that: then nobody uses the request's memory. NULL is fine. */
void lk_http_call_free(struct lk_http_call *);

/* Of a call that is over and had an answer. */
int lk_http_call_status(const struct lk_http_call *);
/* A header's value without the space before it; NULL: absent. Names without regard to case; of several the first. The text
 * lives as long as the call. */
const char *lk_http_call_header(struct lk_http_call *, const char *name);
struct lk_bytes lk_http_call_body(const struct lk_http_call *); /* what is kept in memory, followed by a zero byte */
uint64_t lk_http_call_received(const struct lk_http_call *);    /* bytes of the body, kept or taken */
/* Of a call that failed with LK_EIO: whether another try may help (no connection, reset, cut short, stalled, out of time),
 * and not what was refused here or a certificate that is not trusted. */
bool lk_http_call_temporary(const struct lk_http_call *);

#ifdef __cplusplus
}
#endif
#endif
