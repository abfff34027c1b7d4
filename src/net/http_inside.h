/* What the server's files share. Private to src/net.
 * Locks: an exchange's mutex may be held when the server's is taken, never the other way. */
#ifndef LOCKSTEP_NET_HTTP_INSIDE_H
#define LOCKSTEP_NET_HTTP_INSIDE_H
#include "lockstep/base/mem.h"
#include "lockstep/net/http_server.h"
#include <microhttpd.h>
#include <pthread.h>
#include <stdbool.h>

struct lk__net_connection {
    struct lk__net_connection *next, **at;
    int fd;
    bool busy;         /* a handler has its request */
    uint64_t since_ns; /* of its beginning, or of the answer before */
};

struct lk_http_server {
    struct MHD_Daemon *daemon;
    struct lk_http_limits limits;
    void (*handle)(void *arg, struct lk_http_exchange *);
    void (*error_body)(void *arg, int status, const char *what, struct lk_buf *out);
    void *arg;
    char address[64];
    int socket, watching, wake; /* watching: an epoll of those whose handlers work; wake: ends it */
    pthread_t watcher;

    pthread_mutex_t mutex;
    uint32_t references; /* its owner's, and one an exchange */
    uint32_t connection_count;
    bool drained, closing;
    uint64_t numbers;
    struct lk_http_exchange *exchanges;
    struct lk__net_connection *connections;
};

struct lk_http_exchange {
    struct lk_http_exchange *next, **at; /* under the server's mutex, as number and references */
    uint64_t number;
    uint32_t references; /* the connection's, the handler's, a watcher's */
    struct lk_http_server *server;
    int fd;
    bool watched, handed;
    char *path, *method;
    struct lk_buf headers, query, body; /* headers, query: names and values, each with its zero */
    size_t excess;                      /* bytes of body beyond the limit */

    pthread_mutex_t mutex;
    struct MHD_Connection *connection; /* NULL: it is over */
    bool suspended;                    /* the connection sleeps until it is resumed */
    bool gone, told, ended;            /* the client; the handler of it; the answer */
    void (*tell)(void *);
    void *tell_arg;
    struct MHD_Response *response; /* to be queued */
    bool queued;
    int status;
    struct lk_buf unsent; /* of an answer in pieces */
    size_t sent;          /* bytes of it that have gone */
};

/* http_exchange.c */
enum MHD_Result lk__net_answer(struct lk_http_exchange *); /* from libmicrohttpd's thread, after a resume */
void lk__net_gone(struct lk_http_exchange *);              /* the client has gone; nothing where the answer has ended */
void lk__net_release(struct lk_http_exchange *);
void lk__net_server_release(struct lk_http_server *);

#endif
