/* The server by real sockets: requests of all kinds, clients that go, stall, send rubbish, come by the thousand. */
#include "base/testing.h"
#include "lockstep/base/progress.h"
#include "lockstep/base/thread.h"
#include "lockstep/net/http_server.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static struct lk_http_server *server;
static unsigned short port;
static atomic_int gone, ended, refused;
static _Atomic(struct lk_http_exchange *) held;

static void count_gone(void *arg) {
    (void)arg;
    gone++;
}

/* /echo gives the body back, /stream?n=N that many lines from another thread, /hold keeps the exchange in `held`. */
static void *stream(void *arg) {
    struct lk_http_exchange *x = arg;
    char line[64];
    int n = atoi(lk_http_query(x, "n")), code = lk_http_begin(x, 200, "text/plain", NULL, 0);
    for (int i = 0; i < n && !code; i++) code = lk_http_write(x, line, (size_t)snprintf(line, sizeof line, "line %d\n", i));
    if (code) refused++;
    lk_http_end(x);
    ended++;
    return NULL;
}
static void handle(void *arg, struct lk_http_exchange *x) {
    (void)arg;
    const char *path = lk_http_path(x);
    if (!strcmp(path, "/stream")) {
        pthread_t t;
        lk_http_on_gone(x, count_gone, NULL);
        assert_int_equal(lk_thread_start(&t, stream, x), 0);
        pthread_detach(t);
    } else if (!strcmp(path, "/hold")) {
        lk_http_on_gone(x, count_gone, NULL);
        held = x;
    } else if (!strcmp(path, "/echo")) {
        struct lk_bytes body = lk_http_body(x);
        struct lk_http_field f[] = {{"X-Method", lk_http_method(x)},
                                    {"X-Had", lk_http_header(x, "x-HEADER") ? lk_http_header(x, "X-Header") : "none"}};
        lk_http_respond(x, 200, "application/octet-stream", f, 2, body.data, body.size);
    } else
        lk_http_respond(x, 404, "text/plain", NULL, 0, path, strlen(path));
}
static void say_error(void *arg, int status, const char *what, struct lk_buf *out) {
    (void)arg;
    lk_buf_printf(out, "{\"error\":\"%d %s\"}", status, what);
}

static void open_with(struct lk_http_limits limits) {
    struct lk_http_options o = {.listen = "127.0.0.1:0", .limits = limits, .handle = handle, .error_body = say_error};
    OK(lk_http_server_open(&o, &server, &test_err));
    port = (unsigned short)atoi(strrchr(lk_http_server_address(server), ':') + 1);
    gone = 0, ended = 0, refused = 0;
    held = NULL;
}

static int come(void) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval limit = {10, 0};
    assert_true(fd >= 0 && !setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit));
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    return fd;
}
static void say_bytes(int fd, const void *data, size_t size) {
    for (size_t at = 0; at < size;) {
        ssize_t n = send(fd, (const char *)data + at, size - at, MSG_NOSIGNAL);
        if (n <= 0) return; /* the server has enough */
        at += (size_t)n;
    }
}
static void say(int fd, const char *text) {
    say_bytes(fd, text, strlen(text));
}
/* Reads until `wanted` is there, or the end. */
static size_t hear(int fd, char *to, size_t most, const char *wanted) {
    size_t n = 0;
    while (n + 1 < most) {
        ssize_t got = recv(fd, to + n, most - 1 - n, 0);
        if (got <= 0) break;
        n += (size_t)got;
        to[n] = 0;
        if (wanted && strstr(to, wanted)) break;
    }
    to[n] = 0;
    return n;
}
static void hears(int fd, const char *wanted) {
    static char text[1 << 16];
    hear(fd, text, sizeof text, wanted);
    if (!strstr(text, wanted)) fail_msg("no \"%s\" in \"%s\"", wanted, text);
}
static bool closed(int fd) {
    char c[4096];
    ssize_t n;
    while ((n = recv(fd, c, sizeof c, 0)) > 0) continue;
    return n == 0 || errno == ECONNRESET;
}
static void wait_for(atomic_int *what, int value) {
    for (int i = 0; i < 5000 && *what < value; i++) usleep(1000);
    assert_int_equal(*what, value);
}

static void requests_are_answered(void **state) {
    (void)state;
    open_with((struct lk_http_limits){0});
    int fd = come();
    say(fd, "POST /echo?a=1 HTTP/1.1\r\nHost: x\r\nX-Header: yes\r\nContent-Length: 5\r\n\r\nhello");
    hears(fd, "hello");
    say(fd,
        "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4;ext=1\r\ndefg\r\n0\r\n\r\n"); /* kept alive */
    hears(fd, "abcdefg");
    say(fd, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\nGET /no%2f..%2fwhere%00x HTTP/1.1\r\nHost: x\r\n\r\n"); /* one behind the
                                                                                                             other */
    hears(fd, "/no/../where");
    say(fd, "DELETE /else HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    hears(fd, "404");
    assert_true(closed(fd));
    close(fd);
    fd = come(); /* byte by byte */
    const char *slow = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nxyz";
    for (const char *p = slow; *p; p++) say_bytes(fd, p, 1), usleep(100);
    hears(fd, "xyz");
    say(fd, "GET /stream?n=3000 HTTP/1.1\r\nHost: x\r\n\r\n");
    hears(fd, "line 2999\n");
    wait_for(&ended, 1);
    assert_int_equal(gone, 0);
    close(fd);
    lk_http_server_close(server);
}

static void limits_hold(void **state) {
    (void)state;
    static char big[200000];
    memset(big, 'a', sizeof big);
    open_with(
        (struct lk_http_limits){.header_bytes = 4096, .body_bytes = 1000, .request_ms = 300, .connections_per_client = 20});
    int fd = come();
    say(fd, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n"); /* at once */
    hears(fd, "{\"error\":\"413 the body is too large\"}");
    assert_true(closed(fd));
    close(fd);
    fd = come();
    say(fd, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n"); /* when it is there, so that it is heard */
    say_bytes(fd, big, 1001);
    hears(fd, "{\"error\":\"413 the body is too large\"}");
    assert_true(closed(fd));
    close(fd);
    fd = come();
    say(fd, "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5dc\r\n");
    say_bytes(fd, big, 1500);
    say(fd, "\r\n0\r\n\r\n");
    hears(fd, "413");
    close(fd);
    fd = come(); /* it never ends */
    say(fd, "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n30d40\r\n");
    say_bytes(fd, big, sizeof big);
    assert_true(closed(fd));
    close(fd);
    fd = come();
    say(fd, "GET /echo HTTP/1.1\r\nX-Big: ");
    say_bytes(fd, big, sizeof big);
    assert_true(closed(fd));
    close(fd);
    fd = come(); /* half a request, and no more: shut after 300 ms */
    say(fd, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc");
    uint64_t began = lk_clock_ns();
    assert_true(closed(fd));
    assert_true(lk_clock_ns() - began < UINT64_C(3000000000));
    close(fd);
    fd = come(); /* nothing at all */
    assert_true(closed(fd));
    close(fd);
    fd = come(); /* but a handler may take its time */
    say(fd, "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
    usleep(800000);
    assert_non_null(held);
    lk_http_respond(held, 200, "text/plain", NULL, 0, "late", 4);
    hears(fd, "late");
    close(fd);
    int many[30], there = 0;
    for (int i = 0; i < 30; i++) many[i] = come(), say(many[i], "GET /echo HTTP/1.1\r\nHost: x\r\nX-Header: me\r\n\r\n");
    for (int i = 0; i < 30; i++) {
        char text[1000];
        hear(many[i], text, sizeof text, "me");
        there += strstr(text, "200") != NULL;
        close(many[i]);
    }
    assert_true(there > 0 && there <= 20);
    lk_http_server_close(server);
}

static void clients_go(void **state) {
    (void)state;
    open_with((struct lk_http_limits){.unsent_bytes = 200000});
    int fd = come();
    say(fd, "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
    for (int i = 0; i < 5000 && !held; i++) usleep(1000);
    assert_int_equal(gone, 0);
    close(fd);
    uint64_t began = lk_clock_ns();
    wait_for(&gone, 1);
    assert_true(lk_clock_ns() - began < 1000000000);
    lk_http_respond(held, 200, "text/plain", NULL, 0, "nobody", 6);

    held = NULL;
    fd = come(); /* in the middle of an answer */
    say(fd, "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
    for (int i = 0; i < 5000 && !held; i++) usleep(1000);
    OK(lk_http_begin(held, 200, "text/plain", NULL, 0));
    OK(lk_http_write(held, "first", 5));
    hears(fd, "first");
    close(fd);
    wait_for(&gone, 2);
    assert_int_equal(lk_http_write(held, "second", 6), LK_EIO);
    lk_http_end(held);

    fd = come(); /* who does not read is cut, and memory stays what it may be */
    say(fd, "GET /stream?n=3000000 HTTP/1.1\r\nHost: x\r\n\r\n");
    wait_for(&ended, 1);
    assert_int_equal(refused, 1);
    close(fd);

    for (int i = 0; i < 300; i++) { /* rubbish, halves, nothing */
        static const char *const rubbish[] = {
            "\r\n\r\n",
            "GET",
            "\0\1\2\3",
            "GET / HTTP/9.9\r\n\r\n",
            "POST /echo HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "GET /%zz%% HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /hold HTTP/1.1\r\nHost: x\r\n"};
        fd = come();
        say(fd, rubbish[i % 8]);
        close(fd);
    }
    fd = come();
    say(fd, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nalive");
    hears(fd, "alive");
    close(fd);
    lk_http_server_close(server);
}

static void many_at_once(void **state) {
    (void)state;
    enum { MANY = 2000 };
    static int fds[MANY];
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    rlim_t old = files.rlim_cur;
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    int many = files.rlim_cur < 2 * MANY + 100 ? (int)(files.rlim_cur - 100) / 2 : MANY;
    open_with((struct lk_http_limits){.connections = MANY + 10, .connections_per_client = MANY + 10});
    for (int i = 0; i < many; i++) fds[i] = come();
    for (int i = 0; i < many; i++) say(fds[i], "GET /stream?n=20 HTTP/1.1\r\nHost: x\r\n\r\n");
    for (int i = 0; i < many; i++) hears(fds[i], "line 19\n");
    for (int i = 0; i < many; i++) close(fds[i]);
    wait_for(&ended, many);
    assert_int_equal(gone, 0);
    lk_http_server_close(server);
    files.rlim_cur = old;
    setrlimit(RLIMIT_NOFILE, &files);
}

static void closing_tells_those_who_work(void **state) {
    (void)state;
    open_with((struct lk_http_limits){0});
    int fd = come(), other = come();
    say(fd, "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
    for (int i = 0; i < 5000 && !held; i++) usleep(1000);
    say(other, "GET /stream?n=5 HTTP/1.1\r\nHost: x\r\n\r\n");
    hears(other, "line 4");
    wait_for(&ended, 1);
    lk_http_server_drain(server);
    int late = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_not_equal(connect(late, (struct sockaddr *)&to, sizeof to), 0);
    close(late);
    lk_http_server_close(server);
    assert_int_equal(gone, 1);
    assert_int_equal(lk_http_begin(held, 200, "text/plain", NULL, 0), LK_EIO);
    lk_http_end(held); /* valid until now */
    assert_true(closed(fd));
    close(fd), close(other);
}

static void addresses(void **state) {
    (void)state;
    static const char *const bad[] = {"",       "8080", "localhost", ":80", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536",
                                      "::1:80", "[::1", "[]:1"};
    struct lk_http_server *s;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        FAILS(lk_http_server_open(&(struct lk_http_options){.listen = bad[i], .handle = handle}, &s, &test_err), LK_EINVAL,
              bad[i]);
    assert_true(lk_http_is_loopback("127.0.0.1:8080") && lk_http_is_loopback("[::1]:0") &&
                lk_http_is_loopback("127.9.9.9:1"));
    assert_false(lk_http_is_loopback("0.0.0.0:8080") || lk_http_is_loopback("[::]:80") ||
                 lk_http_is_loopback("192.0.2.1:80"));
    open_with((struct lk_http_limits){0});
    FAILS(lk_http_server_open(&(struct lk_http_options){.listen = lk_http_server_address(server), .handle = handle}, &s,
                              &test_err),
          LK_EIO, "cannot listen to 127.0.0.1:");
    lk_http_server_close(server);
}

static int open_and_close(void) {
    struct lk_http_server *s;
    struct lk_http_options o = {.listen = "127.0.0.1:0", .handle = handle};
    int code = lk_http_server_open(&o, &s, &test_err);
    if (!code) lk_http_server_close(s);
    return code;
}
static void no_memory_is_said(void **state) {
    (void)state;
    FAIL_EACH_ALLOCATION(open_and_close());
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_are_answered),
        cmocka_unit_test(limits_hold),
        cmocka_unit_test(clients_go),
        cmocka_unit_test(many_at_once),
        cmocka_unit_test(closing_tells_those_who_work),
        cmocka_unit_test(addresses),
        cmocka_unit_test(no_memory_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
