/* What the server's files share. Private to src/net.
 * Locks: an exchange's mutex, then libmicrohttpd's own. The server's is taken without any other, and nothing under it. */
#ifndef LOCKSTEP_NET_HTTP_INSIDE_H
#define LOCKSTEP_NET_HTTP_INSIDE_H
#include "lockstep/base/mem.h"
#include "lockstep/net/http_server.h"
#include "net/http_mhd.h"
#include "net/listen.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#define LK__NET_NEVER UINT64_MAX
#define LK__NET_PIECE ((size_t)16 << 10) /* of an answer that is given to a socket at once */

/* A place for a connection. The watcher knows it by number and generation, as it may be another's by then. */
struct lk__net_connection {
    uint32_t number, generation, next_free;
    int fd;                            /* -1: free */
    bool away;                         /* the client sends no more */
    uint64_t until_ns;                 /* then it is shut; LK__NET_NEVER: a handler has its request */
    struct lk_http_exchange *exchange; /* of a handler that takes its time, or NULL */
};

struct lk_http_server {
    struct MHD_Daemon *daemon;
    struct lk_http_limits limits;
    void (*handle)(void *arg, struct lk_http_exchange *);
    void (*error_body)(void *arg, int status, const char *what, struct lk_buf *out);
    void *arg;
    struct lk__net_listener at;
    int watching, wake; /* watching: an epoll of all connections; wake: ends it */
    pthread_t watcher;
    atomic_bool closing;
    atomic_size_t body_bytes; /* of requests that are being read */
    char complaint[256];      /* libmicrohttpd's last one while it starts */
    bool started, running;    /* the watcher; libmicrohttpd */

    pthread_mutex_t mutex;
    bool drained;
    struct lk_http_counts counts;
    struct lk__net_connection *connections; /* (places) */
    uint32_t places, free;                  /* free: number of the first free one; places: none */
};

struct lk_http_exchange {
    atomic_uint references; /* the connection's, the handler's, a watcher's */
    size_t unsent_most;
    char *path, *method;
    struct lk_buf headers, query, body; /* headers, query: names and values, each with its zero */
    size_t excess;                      /* bytes of body that were dropped */
    int refused;                        /* the status for them */
    bool handed, counted;               /* the handler has it; body_bytes hold its body */

    pthread_mutex_t mutex;
    pthread_cond_t told_it;
    struct lk_http_server *server;     /* valid with connection */
    struct MHD_Connection *connection; /* NULL: it is over, and the server may be too */
    int fd;
    bool suspended;         /* the connection sleeps until it is resumed */
    bool gone, told, ended; /* the client; the handler of it; the answer */
    bool telling;
    pthread_t teller;
    void (*tell)(void *);
    void *tell_arg;
    struct MHD_Response *response; /* to be queued */
    int status;
    struct lk_buf unsent; /* of an answer in pieces */
    size_t sent;          /* bytes of it that have gone */
};

/* http_watch.c */
int lk__net_watch_open(struct lk_http_server *, struct lk_err *);
void lk__net_watch_close(struct lk_http_server *);                                /* ends the thread */
enum MHD_Result lk__net_accept(void *server, const struct sockaddr *, socklen_t); /* room for one more? */
void lk__net_connection_changed(void *server, struct MHD_Connection *, void **context, enum MHD_ConnectionNotificationCode);
struct lk__net_connection *lk__net_connection_of(struct MHD_Connection *);
/* Its time from now on, ms; 0: any. */
void lk__net_give_time(struct lk_http_server *, struct lk__net_connection *, uint32_t ms);
/* Tells x from now on when the client goes, or no longer (NULL). True: it has gone. */
bool lk__net_attach(struct lk_http_server *, struct lk__net_connection *, struct lk_http_exchange *x);
bool lk__net_sending(struct lk_http_server *); /* an answer has ended and is not sent yet */
void lk__net_all_gone(struct lk_http_server *);

/* http_request.c: for libmicrohttpd to call, all with the server. */
void *lk__net_request_begins(void *server, const char *uri, struct MHD_Connection *);
enum MHD_Result lk__net_request(void *server, struct MHD_Connection *, const char *url, const char *method,
                                const char *version, const char *data, size_t *size, void **context);
void lk__net_request_over(void *server, struct MHD_Connection *, void **context, enum MHD_RequestTerminationCode);
size_t lk__net_unescape_nothing(void *server, struct MHD_Connection *, char *text);

/* http_exchange.c */
enum MHD_Result lk__net_answer(struct lk_http_exchange *); /* from libmicrohttpd's thread: queues an answer, or sleeps */
void lk__net_gone(struct lk_http_exchange *);              /* the client has gone; nothing where the answer has ended */
void lk__net_release(struct lk_http_exchange *);

/* For tests: a connection from elsewhere; the server closes fd. */
int lk__net_add(struct lk_http_server *, int fd);

#endif
