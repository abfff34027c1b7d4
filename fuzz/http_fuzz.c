/* clang -fsanitize=fuzzer,address: any bytes come to a server, in one piece or two, from a client that then sends no more.
 * It is answered with HTTP or not at all, its connection ends soon, and handlers see no zero byte. */
#include "lockstep/net/http_server.h"
#include "net/http_inside.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static void handle(void *arg, struct lk_http_exchange *x) {
    struct lk_bytes body = lk_http_body(x);
    const char *given = lk_http_header(x, "X-Given"), *asked = lk_http_query(x, "a");
    (void)arg;
    if (((const char *)body.data)[body.size]) abort();
    if (strlen(lk_http_path(x)) & 1) {
        int code = lk_http_begin(x, 200, "text/plain", NULL, 0);
        if (!code && given) code = lk_http_write(x, given, strlen(given));
        if (!code && asked) lk_http_write(x, asked, strlen(asked));
        lk_http_end(x);
    } else
        lk_http_respond(x, 200, "text/plain", NULL, 0, body.data, body.size);
}

static struct lk_http_server *server;
static void at_exit(void) {
    lk_http_server_close(server);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct lk_http_options o = {.listen = "127.0.0.1:0",
                                .limits = {.header_bytes = 2048, .body_bytes = 2000, .idle_ms = 20, .request_ms = 20},
                                .handle = handle};
    if (!server && (lk_http_server_open(&o, &server, NULL) || atexit(at_exit))) abort();
    int two[2];
    char text[4096];
    size_t first = size > 1 ? data[0] % size : size, heard = 0;
    struct timeval limit = {20, 0};
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, two)) abort();
    (void)setsockopt(two[1], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (lk__net_add(server, two[0])) abort();
    (void)!send(two[1], data, first, MSG_NOSIGNAL);
    (void)!send(two[1], data + first, size - first, MSG_NOSIGNAL);
    shutdown(two[1], SHUT_WR);
    for (;;) {
        ssize_t n = recv(two[1], text, sizeof text, 0);
        if (n < 0 && errno == ECONNRESET) break; /* it was refused before all of it was read */
        if (n < 0) abort();                      /* it was kept open */
        if (n == 0) break;
        if (!heard && (n < 7 || memcmp(text, "HTTP/1.", 7) != 0)) abort();
        heard += (size_t)n;
    }
    close(two[1]);
    return 0;
}
