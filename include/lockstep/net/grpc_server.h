/* A gRPC server: HTTP/2 by nghttp2, messages by protobuf-c or any bytes.
 *
 * A service is a table of methods. A handler runs on a thread of the server's and may block: in lk_grpc_receive, in
 * lk_grpc_send, in a database. It takes what was sent, sends answers, and returns a code of lockstep/base/err.h with a
 * message; the client gets the gRPC status that lk_grpc_status_of gives for it. What a handler must know:
 *  - UNARY and SERVER_STREAM: the whole request is there before the handler starts, so that lk_grpc_receive does not wait.
 *    CLIENT_STREAM and BIDI: it starts with the headers. UNARY and CLIENT_STREAM must send one message before they return
 * 0.
 *  - Any call below may say LK_ESTOPPED: the client has cancelled or gone, the deadline is over, or the server closes. Then
 *    return at once, with any code: nobody hears it. A handler that neither sends nor receives for long asks
 *    lk_grpc_cancelled now and then.
 *  - lk_grpc_send blocks while more than limits.unsent_bytes of the call are not sent: a scan is as fast as its reader, and
 *    holds no more memory than that. Hold no lock and no transaction of writes around it.
 *  - Handlers that take a few microseconds run on the thread that moves the bytes, without a hop; the server measures each
 *    method and finds out by itself. A handler that blocks there is overtaken within a millisecond, so this is never wrong.
 *  - At most limits.workers handlers run at once; further calls wait in a queue. A method whose calls live long (a watch)
 *    holds one of them as long.
 *  - A call belongs to its handler until it returns; one thread at a time may use it. What it got from lk_grpc_metadata and
 *    lk_grpc_message is the call's.
 *
 *     static int get(void *arg, struct lk_grpc_call *call, struct lk_err *err) {
 *         struct lk_bytes m;
 *         int code = lk_grpc_receive(call, &m, err);
 *         Pkg__Key *key = code ? NULL : pkg__key__unpack(NULL, m.size, m.data);
 *         if (code || !key) return code ? code : lk_fail(err, LK_EINVAL, "the request is no pkg.Key");
 *         Pkg__Value value = PKG__VALUE__INIT; ... fill it ...
 *         code = lk_grpc_send_message(call, &value.base, err);
 *         pkg__key__free_unpacked(key, NULL);
 *         return code;
 *     }
 *     static const struct lk_grpc_method methods[] = {{"/pkg.Store/Get", LK_GRPC_UNARY, get, store}, ...};
 *
 * .proto files: those below src/FLOOR/.../proto/ are compiled by the Makefile; "a/b.proto" there is included as
 * "a/b.pb-c.h", and LK_GRPC_DESCRIPTORS(a_b) is its descriptor set, for the reflection service. */
#ifndef LOCKSTEP_GRPC_SERVER_H
#define LOCKSTEP_GRPC_SERVER_H
#include "lockstep/base/err.h"
#include "lockstep/base/mem.h"
#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

struct lk_grpc_server;
struct lk_grpc_call;
struct lk_metrics;
struct ProtobufCMessage; /* protobuf-c's: any message's .base */

#define LK_GRPC_STATUSES(X)                                                                                                \
    X(OK, 0)                                                                                                               \
    X(CANCELLED, 1)                                                                                                        \
    X(UNKNOWN, 2)                                                                                                          \
    X(INVALID_ARGUMENT, 3)                                                                                                 \
    X(DEADLINE_EXCEEDED, 4)                                                                                                \
    X(NOT_FOUND, 5)                                                                                                        \
    X(ALREADY_EXISTS, 6)                                                                                                   \
    X(PERMISSION_DENIED, 7)                                                                                                \
    X(RESOURCE_EXHAUSTED, 8)                                                                                               \
    X(FAILED_PRECONDITION, 9)                                                                                              \
    X(ABORTED, 10)                                                                                                         \
    X(OUT_OF_RANGE, 11)                                                                                                    \
    X(UNIMPLEMENTED, 12)                                                                                                   \
    X(INTERNAL, 13)                                                                                                        \
    X(UNAVAILABLE, 14)                                                                                                     \
    X(DATA_LOSS, 15)                                                                                                       \
    X(UNAUTHENTICATED, 16)
enum lk_grpc_status {
#define X(name, value) LK_GRPC_##name = value,
    LK_GRPC_STATUSES(X)
#undef X
};
const char *lk_grpc_status_name(int status); /* "NOT_FOUND"; "?" of what is none */
/* The status of a code: LK_OK OK, LK_ENOMEM RESOURCE_EXHAUSTED, LK_EINVAL INVALID_ARGUMENT, LK_ENOTFOUND NOT_FOUND,
 * LK_EEXISTS ALREADY_EXISTS, LK_EBUSY UNAVAILABLE, LK_ECONFLICT ABORTED, LK_ESTOPPED CANCELLED, LK_ECORRUPT DATA_LOSS,
 * LK_EUNSUPPORTED UNIMPLEMENTED, LK_EIO UNAVAILABLE, others INTERNAL. */
enum lk_grpc_status lk_grpc_status_of(int code);

enum lk_grpc_kind { LK_GRPC_UNARY, LK_GRPC_SERVER_STREAM, LK_GRPC_CLIENT_STREAM, LK_GRPC_BIDI };
struct lk_grpc_method {
    const char *path; /* "/package.Service/Method"; all strings live as long as the server */
    enum lk_grpc_kind kind;
    /* 0: OK. Else the status of that code with err->message, unless lk_grpc_finish was called. */
    int (*handle)(void *arg, struct lk_grpc_call *, struct lk_err *);
    void *arg;
};

/* 0: what stands behind it. */
struct lk_grpc_limits {
    uint32_t connections;            /* 1,000; beyond: closed at once */
    uint32_t connections_per_client; /* of one IP address, 256; beyond: closed at once. Unix sockets: no limit */
    uint32_t streams;                /* calls at once of one connection, 100, as clients are told; beyond: closed */
    uint32_t waiting;                /* calls that no worker has taken yet, 10,000; beyond: UNAVAILABLE */
    uint32_t workers;                /* handlers at once, 32; 1 to 1,024 threads besides the one that moves bytes */
    size_t header_bytes;             /* of one call, 16 KiB; beyond: RESOURCE_EXHAUSTED, far beyond: closed */
    size_t message_bytes;            /* of one message, also when it is inflated, 256 MiB; beyond: RESOURCE_EXHAUSTED */
    size_t messages_bytes;           /* received and not yet taken, of all calls, 1 GiB; beyond: RESOURCE_EXHAUSTED */
    size_t unsent_bytes;             /* of one call, 1 MiB; beyond: lk_grpc_send waits */
    uint32_t handshake_ms;           /* TLS and the first SETTINGS, 10 s; beyond: closed */
    uint32_t idle_ms;                /* a connection without a call, 30 min; beyond: GOAWAY */
    uint32_t keepalive_ms;           /* nothing heard: a PING, 60 s; as long again without an answer: closed */
    uint32_t stall_ms;               /* a request that does not come, an answer that is not taken, 60 s; beyond: reset */
};
struct lk_grpc_options {
    const char *listen; /* HOST:PORT, [IPv6]:PORT, unix:PATH; port 0: any that is free */
    struct lk_grpc_limits limits;
    const char *tls_certificate, *tls_key; /* PEM files (the certificate with its chain), or NULL: no TLS */
    const struct lk_grpc_method *methods;  /* (method_count): copied, but not what they point to */
    size_t method_count;
    const struct lk_bytes *descriptors; /* (descriptor_count): FileDescriptorSets for reflection; static bytes */
    size_t descriptor_count;
    bool no_reflection, no_health; /* both services are there otherwise */
    /* May this call go on? lk_grpc_path and lk_grpc_metadata tell what it is; *who is for lk_grpc_who. 0 or a status
     * (UNAUTHENTICATED, PERMISSION_DENIED) with err->message, which must not hold a key. It must not block. NULL: all may.
     * Health and reflection ask it as well. */
    enum lk_grpc_status (*authorize)(void *arg, struct lk_grpc_call *, uint64_t *who, struct lk_err *);
    void *arg;
    struct lk_metrics *metrics; /* gets lk_grpc_... families; NULL: none. It outlives the server */
};
/* Raises this process's limit of open files as far as it may. LK_EINVAL: an address, path or limit that can't be; LK_EIO:
 * an address that can't be had, a certificate or key that does not do; LK_ENOTFOUND: their files; LK_EUNSUPPORTED: a build
 * or a machine without nghttp2 (or OpenSSL, for TLS); LK_ENOMEM. */
int lk_grpc_server_open(const struct lk_grpc_options *, struct lk_grpc_server **out, struct lk_err *);
const char *lk_grpc_server_address(const struct lk_grpc_server *); /* "127.0.0.1:41233" */
/* Takes no new connections and tells every client by GOAWAY to go elsewhere; calls that are there go on, and health says
 * NOT_SERVING. Returns at once; lk_grpc_server_count tells when all have gone. */
void lk_grpc_server_drain(struct lk_grpc_server *);
/* Drains for at most grace_ms, then cancels what is left and waits until every handler has returned: they must heed
 * LK_ESTOPPED. Not from a handler. NULL is fine. */
void lk_grpc_server_close(struct lk_grpc_server *, uint32_t grace_ms);
/* What grpc.health.v1 says of a service; "" is the whole server, which serves from the start. Watchers are told. At most
 * 1,000 services: LK_EINVAL; LK_ENOMEM. */
int lk_grpc_server_health(struct lk_grpc_server *, const char *service, bool serving, struct lk_err *);
struct lk_grpc_counts {
    uint32_t connections, calls, running; /* now; running: in a handler */
    uint64_t started, finished;           /* calls; finished by a status of ours */
    uint64_t cancelled;                   /* by the client, its going or its deadline */
    uint64_t refused;                     /* connections beyond a limit */
    uint64_t abuse;                       /* connections closed for floods or for what is no HTTP/2 */
    uint64_t stalled;                     /* calls and connections that moved nothing for stall_ms */
    uint64_t hops;                        /* handlers that ran on another thread than the one that moves bytes */
    uint64_t overtaken;                   /* handlers that ran on it and took so long that another took over */
};
void lk_grpc_server_count(struct lk_grpc_server *, struct lk_grpc_counts *out);

/* --- inside a handler (and authorize: path, metadata, peer) --- */
const char *lk_grpc_path(const struct lk_grpc_call *);
const char *lk_grpc_peer(const struct lk_grpc_call *); /* "127.0.0.1:50123", "unix" */
uint64_t lk_grpc_who(const struct lk_grpc_call *);     /* what authorize has set; 0 */
/* The nth (from 0) value of a header in lower case, as it was sent, or NULL. */
const char *lk_grpc_metadata(const struct lk_grpc_call *, const char *name, uint32_t nth);
/* The same of a NAME-bin, decoded and appended to out. LK_ENOTFOUND; LK_EINVAL: no base64; LK_ENOMEM. */
int lk_grpc_metadata_bytes(const struct lk_grpc_call *, const char *name, uint32_t nth, struct lk_buf *out);
uint64_t lk_grpc_deadline(const struct lk_grpc_call *); /* lk_clock_ns() at which it ends; UINT64_MAX: none */
bool lk_grpc_cancelled(const struct lk_grpc_call *);    /* nobody waits for an answer any more */

/* The next message, valid until the next call of this or the handler's return. LK_ENOTFOUND: there are no more.
 * LK_ESTOPPED. Of a message that is too large, damaged or can't be inflated the client learns by itself: LK_ESTOPPED. */
int lk_grpc_receive(struct lk_grpc_call *, struct lk_bytes *message, struct lk_err *);
/* A message, copied. LK_ESTOPPED; LK_EINVAL: a second message where one is due, or beyond 4 GiB; LK_ENOMEM. */
int lk_grpc_send(struct lk_grpc_call *, const void *message, size_t size, struct lk_err *);
/* The same of protobuf-c's, packed into place. */
int lk_grpc_send_message(struct lk_grpc_call *, const struct ProtobufCMessage *, struct lk_err *);
/* Metadata for the client: before the first message, or with the status. Of a NAME-bin the value is any bytes, of others
 * visible ASCII. Names in lower case, without "grpc-". LK_EINVAL; LK_ESTOPPED: too late; LK_ENOMEM. */
int lk_grpc_set_header(struct lk_grpc_call *, const char *name, const void *value, size_t size, struct lk_err *);
int lk_grpc_set_trailer(struct lk_grpc_call *, const char *name, const void *value, size_t size, struct lk_err *);
/* From now on messages are compressed, if the client takes gzip. Before the first message. */
void lk_grpc_compress(struct lk_grpc_call *);
/* Ends the call with this status; nothing can be sent after it. details: a packed google.rpc.Status for
 * grpc-status-details-bin, or size 0. Without it the handler's code decides. The first wins. */
void lk_grpc_finish(struct lk_grpc_call *, enum lk_grpc_status, const char *message, struct lk_bytes details);

/* The descriptor set of a .proto file, with what it imports: declare it where it is used. */
#define LK_GRPC_DESCRIPTORS(name)                                                                                          \
    extern const unsigned char lk__proto_##name[];                                                                         \
    extern const size_t lk__proto_##name##_size

#ifdef __cplusplus
}
#endif
#endif
