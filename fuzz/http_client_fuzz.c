/* clang -fsanitize=fuzzer,address: any bytes from a server are an answer or a failure with a line; headers and body keep
 * their limits. */
#include "lockstep/net/http_client.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int listening;
static char url[64];
static struct lk_http_client *client;
/* A connection that was used before may be lost and asked for again, when its answer is the next one's already. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct {
    uint8_t data[8192];
    size_t size;
} answer;

static void *serve(void *arg) {
    for (int fd; (fd = accept(listening, NULL, NULL)) >= 0; close(fd)) {
        char request[4096];
        if (recv(fd, request, sizeof request, 0) <= 0) continue;
        pthread_mutex_lock(&mutex);
        if (send(fd, answer.data, answer.size, MSG_NOSIGNAL) >= 0) shutdown(fd, SHUT_WR);
        pthread_mutex_unlock(&mutex);
    }
    return arg;
}
static void begin(void) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof at;
    pthread_t t;
    struct lk_http_client_options o = {.header_limit = 1000, .stall_ms = 1000};
    listening = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listening, (void *)&at, n) || listen(listening, 16) || getsockname(listening, (void *)&at, &n)) abort();
    snprintf(url, sizeof url, "http://127.0.0.1:%u/", ntohs(at.sin_port));
    if (lk_http_client_open(&o, &client, NULL) || pthread_create(&t, NULL, serve, NULL)) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct lk_http_request r = {.method = "GET", .url = url, .answer_limit = 2000, .deadline_ms = 2000};
    struct lk_http_call *call;
    struct lk_err err = {0};
    if (!client) begin();
    pthread_mutex_lock(&mutex);
    answer.size = size < sizeof answer.data ? size : sizeof answer.data;
    memcpy(answer.data, data, answer.size);
    pthread_mutex_unlock(&mutex);
    if (lk_http_call_start(client, &r, &call, &err)) abort();
    int code = lk_http_call_wait(call, &err);
    if (code == 0) {
        struct lk_bytes body = lk_http_call_body(call);
        const char *etag = lk_http_call_header(call, "ETag");
        if (lk_http_call_status(call) < 100 || body.size > 2000 || ((const char *)body.data)[body.size]) abort();
        if (etag && (strlen(etag) > 1000 || strpbrk(etag, "\r\n"))) abort();
    } else if (code != LK_EIO || !err.message[0])
        abort();
    lk_http_call_free(call);
    return 0;
}
