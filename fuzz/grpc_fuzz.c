/* Any bytes for the gRPC server: as a connection, behind a preface, as the body of a call, as a request of reflection. It
 * must close the connection, and a call must not be held. */
#include "lockstep/net/grpc_server.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int both(void *arg, struct lk_grpc_call *call, struct lk_err *err) {
    struct lk_bytes m;
    int code;
    (void)arg;
    lk_grpc_compress(call);
    while (!(code = lk_grpc_receive(call, &m, err)) && !(code = lk_grpc_send(call, m.data, m.size, err))) {}
    return code == LK_ENOTFOUND ? LK_OK : code;
}

static struct lk_grpc_server *server;
static unsigned short port;
static void at_exit(void) {
    lk_grpc_server_close(server, 0);
}
static void open_server(void) {
    static const struct lk_grpc_method methods[] = {{"/t.T/Both", LK_GRPC_BIDI, both, NULL}};
    struct lk_grpc_options o = {.listen = "127.0.0.1:0",
                                .methods = methods,
                                .method_count = 1,
                                .limits = {.workers = 2,
                                           .header_bytes = 1000,
                                           .message_bytes = 10000,
                                           .messages_bytes = 100000,
                                           .unsent_bytes = 1000,
                                           .handshake_ms = 50,
                                           .idle_ms = 50,
                                           .stall_ms = 50}};
    if (lk_grpc_server_open(&o, &server, NULL) || atexit(at_exit)) abort();
    port = (unsigned short)atoi(strrchr(lk_grpc_server_address(server), ':') + 1);
}

static void put(struct lk_buf *b, const void *data, size_t size) {
    if (lk_buf_append(b, data, size)) abort();
}
static void frame(struct lk_buf *b, int type, int flags, int stream, const void *data, size_t size) {
    uint8_t h[9] = {(uint8_t)(size >> 16), (uint8_t)(size >> 8), (uint8_t)size, (uint8_t)type, (uint8_t)flags, 0, 0, 0,
                    (uint8_t)stream};
    put(b, h, 9), put(b, data, size);
}
static void header(struct lk_buf *b, const char *name, const char *value) {
    uint8_t n = (uint8_t)strlen(name), v = (uint8_t)strlen(value);
    put(b, "", 1), put(b, &n, 1), put(b, name, n), put(b, &v, 1), put(b, value, v);
}
static void call(struct lk_buf *b, const char *path, const uint8_t *data, size_t size) {
    struct lk_buf h = LK_BUF_INIT;
    header(&h, ":method", "POST"), header(&h, ":scheme", "http"), header(&h, ":path", path), header(&h, ":authority", "t");
    header(&h, "content-type", "application/grpc"), header(&h, "grpc-encoding", "gzip"),
        header(&h, "grpc-accept-encoding", "gzip");
    frame(b, 1, 4, 1, h.data, h.size);
    for (size_t at = 0, n; at < size; at += n) frame(b, 0, 0, 1, data + at, n = size - at < 500 ? size - at : 500);
    frame(b, 0, 1, 1, NULL, 0);
    lk_buf_release(&h);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct lk_buf b = LK_BUF_INIT;
    struct timeval limit = {20, 0};
    char text[4096];
    ssize_t n;
    if (!server) open_server();
    if (!size) return 0;
    int kind = *data++ % 4;
    size--;
    if (kind) put(&b, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24), frame(&b, 4, 0, 0, NULL, 0);
    if (kind == 2) call(&b, "/t.T/Both", data, size);
    if (kind == 3) { /* as one message */
        uint8_t prefix[5] = {0, (uint8_t)(size >> 24), (uint8_t)(size >> 16), (uint8_t)(size >> 8), (uint8_t)size};
        struct lk_buf m = LK_BUF_INIT;
        put(&m, prefix, 5), put(&m, data, size);
        call(&b, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", (uint8_t *)m.data, m.size);
        lk_buf_release(&m);
    }
    if (kind < 2)
        put(&b, data, size);
    else
        frame(&b, 7, 0, 0, "\0\0\0\0\0\0\0\0", 8); /* GOAWAY: it closes when the call is over */
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit)) abort();
    if (connect(fd, (struct sockaddr *)&to, sizeof to)) abort();
    (void)!send(fd, b.data, b.size, MSG_NOSIGNAL);
    if (kind < 2) shutdown(fd, SHUT_WR);
    while ((n = recv(fd, text, sizeof text, 0)) > 0)
        if (kind > 1 && n < 4096) break;       /* something was answered: that is enough */
    if (n < 0 && errno != ECONNRESET) abort(); /* it was kept open */
    close(fd);
    lk_buf_release(&b);
    return 0;
}
