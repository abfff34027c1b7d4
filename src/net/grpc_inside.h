/* What the gRPC server's files share. Private to src/net.
 *
 * One thread at a time holds the *role*: it polls, moves bytes, and alone touches connections, nghttp2's sessions, timers
 * and what is marked (role) below. All else is under the server's mutex. README.md, "gRPC", has the whole. */
#ifndef LOCKSTEP_NET_GRPC_INSIDE_H
#define LOCKSTEP_NET_GRPC_INSIDE_H
#include "lockstep/net/grpc_server.h"
#include "net/grpc_h2.h"
#include "net/listen.h"
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define LK__GRPC_NEVER  UINT64_MAX
#define LK__GRPC_PREFIX 5                   /* bytes before each message: compressed or not, its size */
#define LK__GRPC_CHUNK  ((size_t)16 << 10)  /* small messages share one */
#define LK__GRPC_WINDOW ((int32_t)1 << 20)  /* of a stream, for what a client sends */
#define LK__GRPC_WIDE   ((int32_t)16 << 20) /* of a connection */
#define LK__GRPC_MS     UINT64_C(1000000)

struct ssl_st;
struct ssl_ctx_st;

/* --- timers: a wheel (role) --- */
#define LK__GRPC_SLOTS   256
#define LK__GRPC_TICK_NS (8 * LK__GRPC_MS)
struct lk__grpc_timer {
    struct lk__grpc_timer *next, *prev; /* NULL: it is not set */
    uint64_t until_ns;
    void (*fire)(struct lk__grpc_timer *, uint64_t now_ns);
};
struct lk__grpc_wheel {
    struct lk__grpc_timer slots[LK__GRPC_SLOTS]; /* heads of rings */
    uint64_t tick;                               /* all before it have fired */
    uint32_t count;
};
void lk__grpc_wheel_init(struct lk__grpc_wheel *, uint64_t now_ns);
void lk__grpc_timer_set(struct lk__grpc_wheel *, struct lk__grpc_timer *, uint64_t until_ns); /* anew if it is set */
void lk__grpc_timer_stop(struct lk__grpc_wheel *, struct lk__grpc_timer *);
void lk__grpc_wheel_turn(struct lk__grpc_wheel *, uint64_t now_ns);
int lk__grpc_wheel_wait_ms(const struct lk__grpc_wheel *, uint64_t now_ns); /* until it should turn; -1: nothing is set */

/* --- what moves --- */
struct lk__grpc_message { /* received */
    struct lk__grpc_message *next;
    size_t size, charged, window; /* charged: to messages_bytes; window: bytes that the client may send when it is taken */
    bool compressed;
    char *data;
};
struct lk__grpc_chunk { /* to be sent */
    struct lk__grpc_chunk *next;
    size_t size, capacity, sent;
    char data[];
};
struct lk__grpc_chunks {
    struct lk__grpc_chunk *first, *last;
};

struct lk__grpc_method {
    struct lk_grpc_method m;
    bool watch;       /* health's Watch: without a handler */
    uint64_t mean_ns; /* of late, of its handler; 0: not yet known */
    struct lk_metric *handled[17], *started, *seconds;
};

struct lk__grpc_connection {
    struct lk__grpc_connection *next, *prev;
    struct lk_grpc_server *server;
    int fd;
    uint32_t references; /* the server's, and one of each call (mutex) */
    uint32_t calls;      /* that exist, in a handler or not (mutex) */
    uint32_t streams;    /* that are open */
    struct ssl_st *tls;
    nghttp2_session *session;
    struct lk_buf out;         /* made, not sent */
    size_t out_sent, lingered; /* lingered: bytes read of what ends */
    bool handshaking, greeted, polls_out, touched, dead, ending, lingers;
    struct lk__grpc_connection *touched_next;
    struct lk__grpc_call_list {
        struct lk_grpc_call *first;
    } list; /* of open streams */
    struct lk__grpc_timer timer;
    uint64_t heard_ns, pinged_ns, moved_ns, idle_since_ns;
    double patience; /* falls with each frame of no use */
    uint64_t patience_ns;
    uint8_t head[9]; /* of the frame that comes */
    size_t head_size, skip;
    bool abusive;
    uint8_t client[16]; /* its address, of the limit of one client */
    bool has_client;
    char peer[64];
};

struct lk__grpc_fields { /* metadata: name, zero, value, zero */
    struct lk_buf text;
    uint32_t count;
};

struct lk_grpc_call {
    struct lk__grpc_connection *connection;
    struct lk_grpc_server *server;
    struct lk__grpc_method *method;   /* NULL: refused before it was known */
    struct lk_grpc_call *next, *prev; /* of the connection (role) */
    struct lk_grpc_call *ready_next, *dirty_next, *answering_next;
    uint32_t references; /* the stream's, the handler's, the lists' (mutex) */
    int32_t stream;
    uint64_t who, begun_ns;

    /* request: the role's until it is handed over, then fixed */
    char *path;
    struct lk__grpc_fields fields;
    size_t header_bytes;
    bool post, typed, foreign, refused, header_end, gzip_in, gzip_out;
    char encoding[16];
    int http_status;
    uint64_t deadline_ns;
    struct lk__grpc_timer timer;  /* (role) */
    uint64_t progress_ns, due_ns; /* (role) due: the deadline until it is over */

    /* a message that arrives (role) */
    uint8_t prefix[LK__GRPC_PREFIX];
    uint32_t prefix_size;
    struct lk__grpc_message *coming;
    size_t coming_wanted, coming_window; /* wanted: its whole size; window: bytes of it not given back yet */

    /* (mutex) */
    pthread_cond_t changed;
    struct lk__grpc_message *in, *in_last, *held; /* held: what the handler looks at */
    struct lk_buf inflated;
    size_t inflated_charged; /* to messages_bytes */
    size_t consume;          /* the role tells nghttp2 */
    uint32_t in_count, sent_count;
    bool in_end, in_broken; /* the client has ended; what it sends can't be used */
    bool handed, running, waiting;
    bool over; /* a status is fixed, or nobody listens: nothing is sent any more */
    bool gone; /* the stream is closed */
    bool cancelled;
    struct lk__grpc_chunks out;
    size_t unsent;
    bool compress;
    struct lk__grpc_fields header, trailer;
    enum lk_grpc_status status;
    char *status_text;     /* percent-encoded, or NULL */
    struct lk_buf details; /* base64 */
    bool dirty, deferred;
    bool submitted;                 /* the response's headers (role) */
    bool ended;                     /* END_STREAM was sent (role) */
    bool reset;                     /* the role resets the stream */
    struct lk__grpc_chunks sending; /* (role) */
    char *watched;                  /* a service of health's */
    struct lk_grpc_call *watch_next, *watch_prev;
    struct lk__grpc_thread *thread; /* that runs the handler */
};

struct lk__grpc_thread {
    struct lk_grpc_server *server;
    pthread_t thread;
};

struct lk__grpc_service {
    char *name;
    bool serving;
};

struct lk_grpc_server {
    struct lk_grpc_limits limits;
    struct lk__net_listener at;
    struct lk__grpc_method *methods; /* (method_count), sorted by path */
    size_t method_count;
    struct lk_bytes *descriptors;
    size_t descriptor_count;
    enum lk_grpc_status (*authorize)(void *arg, struct lk_grpc_call *, uint64_t *who, struct lk_err *);
    void *arg;
    struct ssl_ctx_st *tls;
    nghttp2_session_callbacks *callbacks;
    nghttp2_option *option;
    int epoll, wake;
    struct lk__grpc_thread *threads; /* (thread_count) */
    uint32_t thread_count, started;
    pthread_t watcher;
    bool watching;

    /* (role) */
    struct lk__grpc_wheel wheel;
    struct lk__grpc_timer drain_timer, accept_timer;
    struct lk__grpc_connection *connections, *touched;
    uint64_t now_ns;
    bool accepting, draining_said;

    pthread_mutex_t mutex;
    pthread_cond_t work, watch_work, calls_gone;
    struct lk__grpc_thread *holder; /* of the role, or NULL */
    bool holder_runs;               /* a handler */
    uint64_t holder_round;          /* grows with each */
    bool sleeping;                  /* the holder, in epoll */
    bool waking;                    /* a thread for `ready` is on its way */
    uint32_t idle, running;
    struct lk__grpc_calls {
        struct lk_grpc_call *first, *last;
        uint32_t count;
    } ready, quick; /* whose handlers may run; quick: by the holder */
    struct lk_grpc_call *dirty, *dirty_last;
    size_t messages_bytes;
    bool draining, closing, stopping, watcher_sleeps;
    struct lk__grpc_service *services;
    size_t service_count;
    struct lk_grpc_call *watches;
    struct lk_grpc_counts counts;
    struct lk_metric *gauge_connections, *gauge_calls, *bytes_in, *bytes_out; /* NULL: no metrics */
    struct lk_metrics *metrics;
};

/* grpc_text.c: what gRPC writes into headers */
int lk__grpc_percent(const char *text, char **out);                       /* of grpc-message */
int lk__grpc_base64(const void *data, size_t size, struct lk_buf *out);   /* without padding */
int lk__grpc_unbase64(const char *text, size_t size, struct lk_buf *out); /* LK_EINVAL, LK_ENOMEM; with and without */
bool lk__grpc_timeout(const char *text, uint64_t *ns);
int lk__grpc_field_add(struct lk__grpc_fields *, const char *name, size_t name_size, const void *value, size_t size);
const char *lk__grpc_field_find(const struct lk__grpc_fields *, const char *name, uint32_t nth);
bool lk__grpc_field_next(const struct lk__grpc_fields *, size_t *at, const char **name, const char **value);

/* grpc_gzip.c */
int lk__grpc_inflate(const void *data, size_t size, size_t most,
                     struct lk_buf *out); /* LK_EINVAL: it can't be; LK_EBUSY: beyond most */
int lk__grpc_deflate(const void *data, size_t size, struct lk_buf *out);

/* grpc_tls.c */
int lk__grpc_tls_open(const char *certificate, const char *key, struct ssl_ctx_st **out, struct lk_err *);
void lk__grpc_tls_close(struct ssl_ctx_st *);
struct ssl_st *lk__grpc_tls_new(struct ssl_ctx_st *, int fd);
void lk__grpc_tls_free(struct ssl_st *);
enum { LK__GRPC_AGAIN = -1, LK__GRPC_BROKEN = -2 };
int lk__grpc_tls_handshake(struct ssl_st *, bool *wants_write); /* 0, LK__GRPC_AGAIN, LK__GRPC_BROKEN; 0: ALPN is h2 */
ssize_t lk__grpc_tls_read(struct ssl_st *, void *, size_t);     /* 0: the end */
ssize_t lk__grpc_tls_write(struct ssl_st *, const void *, size_t);
bool lk__grpc_tls_pending(const struct ssl_st *);

/* grpc_poll.c (role) */
int lk__grpc_poll_open(struct lk_grpc_server *, struct lk_err *);
void lk__grpc_poll_round(struct lk_grpc_server *, bool wait); /* waits for something and does it */
void lk__grpc_poll_close(struct lk_grpc_server *);
void lk__grpc_cancel_all(struct lk_grpc_server *); /* (role and mutex) */
void lk__grpc_touch(struct lk__grpc_connection *); /* it may have something to send, or to be closed */

/* grpc_session.c (role) */
int lk__grpc_session_setup(struct lk_grpc_server *, struct lk_err *);
int lk__grpc_session_new(struct lk__grpc_connection *);
void lk__grpc_session_end(struct lk__grpc_connection *);                            /* all its streams are closed */
void lk__grpc_answer(struct lk_grpc_call *);                                        /* gives nghttp2 what the call has */
bool lk__grpc_impatient(struct lk__grpc_connection *, double cost);                 /* true: too much of that */
bool lk__grpc_scan(struct lk__grpc_connection *, const uint8_t *data, size_t size); /* false: the same */

/* grpc_request.c (role) */
void lk__grpc_request_headers(struct lk_grpc_call *);                                                   /* all are there */
int lk__grpc_request_field(struct lk_grpc_call *, const char *name, size_t, const char *value, size_t); /* LK_ENOMEM */
void lk__grpc_request_data(struct lk_grpc_call *, const uint8_t *data, size_t size);
void lk__grpc_request_end(struct lk_grpc_call *);
void lk__grpc_refuse(struct lk_grpc_call *, int http_status, enum lk_grpc_status, const char *text);
void lk__grpc_call_timer(struct lk__grpc_timer *, uint64_t now_ns);

/* grpc_call.c: (mutex) means that the caller holds it */
struct lk_grpc_call *lk__grpc_call_new(struct lk__grpc_connection *);
void lk__grpc_call_drop(struct lk_grpc_call *);  /* a reference (mutex) */
void lk__grpc_call_dirty(struct lk_grpc_call *); /* the role should look at it (mutex) */
void lk__grpc_call_finish(struct lk_grpc_call *, enum lk_grpc_status, const char *text,
                          struct lk_bytes details);                             /* (mutex) */
void lk__grpc_call_cancel(struct lk_grpc_call *);                               /* (mutex) */
int lk__grpc_call_put(struct lk_grpc_call *, const void *message, size_t size); /* a small one; never blocks (mutex) */
void lk__grpc_message_free(struct lk_grpc_server *, struct lk__grpc_message *); /* (mutex) */
void lk__grpc_chunks_free(struct lk__grpc_chunks *);
void lk__grpc_run(struct lk_grpc_call *); /* its handler */

/* grpc_server.c */
void lk__grpc_ready(struct lk_grpc_call *);      /* its handler may run (role, no mutex) */
void lk__grpc_leave_role(struct lk_grpc_call *); /* its handler is about to block (mutex) */
void lk__grpc_wake(struct lk_grpc_server *);     /* the holder, if it sleeps (mutex) */

/* grpc_health.c, grpc_reflection.c */
extern const struct lk_grpc_method lk__grpc_health_methods[2], lk__grpc_reflection_methods[2];
void lk__grpc_watch(struct lk_grpc_call *);   /* its request is there (role) */
void lk__grpc_unwatch(struct lk_grpc_call *); /* (mutex) */
void lk__grpc_health_drain(struct lk_grpc_server *);
void lk__grpc_health_close(struct lk_grpc_server *);
LK_GRPC_DESCRIPTORS(grpc_health_v1_health);
LK_GRPC_DESCRIPTORS(grpc_reflection_v1_reflection);
LK_GRPC_DESCRIPTORS(grpc_reflection_v1alpha_reflection);

/* grpc_metrics.c: nothing without metrics */
int lk__grpc_metrics_open(struct lk_grpc_server *, struct lk_metrics *, struct lk_err *);
void lk__grpc_metrics_over(struct lk_grpc_call *);    /* the call has a status (mutex) */
void lk__grpc_metrics_started(struct lk_grpc_call *); /* (mutex) */
void lk__grpc_metrics_in(struct lk_grpc_server *, size_t);
void lk__grpc_metrics_out(struct lk_grpc_server *, size_t);
void lk__grpc_metrics_calls(struct lk_grpc_server *); /* gauges (mutex) */

#endif
