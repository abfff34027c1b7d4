/* The server by real sockets: requests of all kinds, clients that go, stall, send rubbish, come by the thousand. */
#include "base/testing.h"
#include "lockstep/base/progress.h"
#include "lockstep/base/thread.h"
#include "lockstep/net/http_server.h"
#include "net/http_inside.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
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
    gone = ended = refused = 0;
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
    say(fd, "GET /echo HTTP/1.1\r\nHost: x\r\n\r\nGET /no%2f..%2fwhere HTTP/1.1\r\nHost: x\r\n\r\n"); /* one behind the
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
    open_with((struct lk_http_limits){
        .header_bytes = 4096, .body_bytes = 1000, .idle_ms = 300, .request_ms = 300, .connections_per_client = 20});
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
    }
    for (int i = 0; i < 30; i++) close(many[i]); /* only now: a place that is given back may be another's */
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

/* A stream's client goes by a reset while the stream sleeps: nothing wakes libmicrohttpd for its socket any more. */
static void resets_leave_nothing(void **state) {
    (void)state;
    open_with((struct lk_http_limits){0}); /* 60 s, which the oldest connection makes use of */
    int oldest = come();
    for (int i = 0; i < 8; i++) {
        int fd = come();
        say(fd, "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
        for (int k = 0; k < 5000 && !held; k++) usleep(1000);
        struct lk_http_exchange *x = atomic_exchange(&held, NULL);
        OK(lk_http_begin(x, 200, "text/plain", NULL, 0) || lk_http_write(x, "begun", 5));
        hears(fd, "begun");
        struct linger now = {1, 0};
        assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now), 0);
        close(fd);
        wait_for(&gone, i + 1);
        assert_int_equal(lk_http_write(x, "more", 4), LK_EIO);
        lk_http_end(x);
    }
    for (int i = 0; i < 5000 && lk_http_server_connections(server) > 1; i++) usleep(1000);
    assert_int_equal(lk_http_server_connections(server), 1);
    close(oldest);
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

/* One request on a connection of its own, and what stands in its answer. */
static void gets(const char *request, const char *wanted) {
    int fd = come();
    say(fd, request);
    hears(fd, wanted);
    close(fd);
}
static void requests_that_cannot_be(void **state) {
    (void)state;
    static char big[60000];
    open_with((struct lk_http_limits){0});
    gets("GET /echo%00 HTTP/1.1\r\nHost: x\r\n\r\n", "{\"error\":\"400 the address has a %");
    gets("GET /echo%zz HTTP/1.1\r\nHost: x\r\n\r\n", "{\"error\":\"400 the address has a %");
    gets("GET /echo% HTTP/1.1\r\nHost: x\r\n\r\n", "400 the address has a %");
    gets("GET /echo?a=%4 HTTP/1.1\r\nHost: x\r\n\r\n", "400 the address has a %");
    gets("GET /%ff%2e. HTTP/1.1\r\nHost: x\r\n\r\n", "/\xff..");
    gets("FETCH /echo HTTP/1.1\r\nHost: x\r\n\r\n", "{\"error\":\"501 this method is not served\"}");
    gets("TRACE /echo HTTP/1.1\r\nHost: x\r\n\r\n", "Allow: GET");
    gets("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
         "400 a request has one Content-Length");
    gets("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", "400");
    gets("HEAD /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "X-Method: HEAD");
    gets("POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 10000000\r\n\r\n", "413");
    for (int i = 0; i < 2; i++) { /* 15 KiB are headers, 17 KiB are too many */
        memset(big, 'a', sizeof big);
        int n = sprintf(big, "GET /echo HTTP/1.1\r\nHost: x\r\nX-Header: ");
        big[n] = 'a';
        strcpy(big + (i ? 17000 : 15000), "\r\n\r\n");
        gets(big, i ? "{\"error\":\"431 the headers are too large\"}" : "X-Had: aaaaa");
    }
    lk_http_server_close(server);
}

static void queries_are_decoded(void **state) {
    (void)state;
    open_with((struct lk_http_limits){0});
    int fd = come();
    say(fd, "GET /hold?a%20b=1%262&c+d=e+f&flag&twice=1&twice=2 HTTP/1.1\r\nHost: x\r\n\r\n");
    for (int i = 0; i < 5000 && !held; i++) usleep(1000);
    struct lk_http_exchange *x = held;
    assert_string_equal(lk_http_query(x, "a b"), "1&2");
    assert_string_equal(lk_http_query(x, "c d"), "e f");
    assert_string_equal(lk_http_query(x, "flag"), "");
    assert_string_equal(lk_http_query(x, "twice"), "1");
    assert_null(lk_http_query(x, "A B"));
    assert_int_equal(lk_http_respond(x, 200, "text/plain", (struct lk_http_field[]){{"X-Bad", "a\r\nb"}}, 1, "", 0),
                     LK_ENOMEM);
    assert_true(closed(fd)); /* no answer that could be split */
    close(fd);
    lk_http_server_close(server);
}

static void slow_ones_are_shut(void **state) {
    (void)state;
    open_with((struct lk_http_limits){.idle_ms = 400, .request_ms = 400});
    const char *drips[] = {
        "GET /echo HTTP/1.1\r\nHost: x\r\nX: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabcdefghijklmnopqrstuvwxyzabcdef"};
    for (int i = 0; i < 2; i++) { /* a byte every 20 ms keeps nothing open */
        int fd = come(), sent = 0;
        uint64_t began = lk_clock_ns();
        for (const char *p = drips[i]; *p; p++, sent++) {
            if (send(fd, p, 1, MSG_NOSIGNAL) != 1) break;
            usleep(20000);
        }
        assert_true(closed(fd));
        assert_true(lk_clock_ns() - began < UINT64_C(5000000000));
        close(fd);
    }
    struct lk_http_counts counts;
    lk_http_server_count(server, &counts);
    assert_int_equal(counts.slow, 2);
    assert_int_equal(counts.requests, 0);
    lk_http_server_close(server);
}

/* A whole answer, and one in pieces, whose clients do not read: neither keeps a connection. */
static void who_does_not_read_is_shut(void **state) {
    (void)state;
    static char big[20 << 20];
    open_with((struct lk_http_limits){.unsent_bytes = 100000, .idle_ms = 500});
    for (int pieces = 0; pieces < 2; pieces++) {
        held = NULL;
        int fd = come(), small = 4096;
        assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small), 0);
        say(fd, "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
        for (int i = 0; i < 5000 && !held; i++) usleep(1000);
        assert_non_null(held);
        if (pieces) {
            int code = lk_http_begin(held, 200, "text/plain", NULL, 0);
            for (int i = 0; !code && i < 100000; i++) code = lk_http_write(held, big, 1000);
            assert_int_equal(code, LK_EIO);
            assert_int_equal(lk_http_write(held, big, 1), LK_EIO);
            lk_http_end(held);
        } else
            lk_http_respond(held, 200, "text/plain", NULL, 0, big, sizeof big);
        for (int i = 0; i < 10000 && lk_http_server_connections(server); i++) usleep(1000);
        assert_int_equal(lk_http_server_connections(server), 0);
        close(fd);
    }
    assert_int_equal(gone, 0); /* the writer was told by lk_http_write */
    lk_http_server_close(server);
}

static void half_closed(void **state) {
    (void)state;
    open_with((struct lk_http_limits){0});
    int fd = come(); /* what the handler answers at once is heard */
    say(fd, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nhalf");
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    hears(fd, "half");
    assert_true(closed(fd));
    close(fd);
    fd = come(); /* who waits for a handler has gone */
    say(fd, "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    wait_for(&gone, 1);
    assert_int_equal(lk_http_begin(held, 200, "text/plain", NULL, 0), LK_EIO);
    lk_http_end(held);
    assert_true(closed(fd));
    close(fd);
    lk_http_server_close(server);
}

/* The server's memory does not grow with what clients send at the same time, nor with who comes. */
static void all_together(void **state) {
    (void)state;
    static char big[60000];
    memset(big, 'b', sizeof big);
    open_with((struct lk_http_limits){.body_bytes = 60000, .bodies_bytes = 100000, .connections = 5});
    int fds[9], there = 0;
    for (int i = 0; i < 2; i++) {
        fds[i] = come();
        say(fds[i], "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n");
        say_bytes(fds[i], big, sizeof big - 1);
        usleep(50000);
    }
    say_bytes(fds[1], big, 1);
    hears(fds[1], "{\"error\":\"503 too many bodies are being read: try again\"}");
    say_bytes(fds[0], big, 1);
    hears(fds[0], "200 OK");
    close(fds[0]), close(fds[1]);
    for (int i = 0; i < 5000 && lk_http_server_connections(server); i++) usleep(1000);
    gets("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nok", "ok"); /* what was taken is given back */
    for (int i = 0; i < 5000 && lk_http_server_connections(server); i++) usleep(1000);
    for (int i = 0; i < 9; i++) fds[i] = come();
    for (int i = 0; i < 9; i++) { /* each knows it at once */
        char text[1000];
        say(fds[i], "GET /echo HTTP/1.1\r\nHost: x\r\nX-Header: me\r\n\r\n");
        hear(fds[i], text, sizeof text, "me");
        there += strstr(text, "200") != NULL;
    }
    assert_int_equal(there, 5);
    struct lk_http_counts counts;
    lk_http_server_count(server, &counts);
    assert_int_equal(counts.refused, 4);
    for (int i = 0; i < 9; i++) close(fds[i]);
    lk_http_server_close(server);
}

/* A handler that locks in its callback what it holds when it writes; and one that ends the exchange from the callback. */
static pthread_mutex_t handlers = PTHREAD_MUTEX_INITIALIZER;
static void lock_and_count(void *arg) {
    (void)arg;
    pthread_mutex_lock(&handlers);
    gone++;
    pthread_mutex_unlock(&handlers);
}
static void end_it(void *arg) {
    (void)arg;
    lk_http_end(held);
    gone++;
}
static void callbacks_may_lock_and_end(void **state) {
    (void)state;
    open_with((struct lk_http_limits){0});
    for (int ends = 0; ends < 2; ends++) {
        held = NULL;
        int fd = come();
        say(fd, "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
        for (int i = 0; i < 5000 && !held; i++) usleep(1000);
        lk_http_on_gone(held, ends ? end_it : lock_and_count, NULL);
        OK(lk_http_begin(held, 200, "text/plain", NULL, 0));
        pthread_mutex_lock(&handlers);
        close(fd);
        int code = LK_OK;
        for (int i = 0; !ends && !code && i < 5000; i++) usleep(1000), code = lk_http_write(held, "x", 1);
        pthread_mutex_unlock(&handlers);
        wait_for(&gone, ends + 1);
        if (!ends) assert_int_equal(code, LK_EIO), lk_http_end(held);
    }
    lk_http_server_close(server);
}

static void unix_sockets(void **state) {
    char *path = test_join(*state, "socket"), *listen_to = lk_asprintf("unix:%s", path);
    struct lk_http_options o = {.listen = listen_to, .handle = handle};
    struct lk_http_server *second;
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    strcpy(to.sun_path, path);
    for (int i = 0; i < 2; i++) {
        OK(lk_http_server_open(&o, &server, &test_err));
        assert_string_equal(lk_http_server_address(server), listen_to);
        FAILS(lk_http_server_open(&o, &second, &test_err), LK_EIO, "cannot listen to unix:");
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
        say(fd, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi");
        hears(fd, "hi");
        close(fd);
        lk_http_server_close(server);
        assert_false(lk_file_exists(path));
        int left = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0); /* as a killed server leaves it */
        assert_int_equal(bind(left, (struct sockaddr *)&to, sizeof to), 0);
        close(left);
    }
    o.listen = "unix:";
    FAILS(lk_http_server_open(&o, &second, &test_err), LK_EINVAL, "a path of 1 to");
    assert_true(lk_http_is_loopback(listen_to));
    lk_free(path), lk_free(listen_to);
}

/* With openssl, where it is: a certificate of this test's own. */
static void tls(void **state) {
    char *certificate = test_join(*state, "cert.pem"), *key = test_join(*state, "key.pem"), text[4096];
    snprintf(text, sizeof text,
             "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost "
             "-addext subjectAltName=IP:127.0.0.1 -keyout %s -out %s 2>/dev/null",
             key, certificate);
    struct lk_http_options o = {.listen = "127.0.0.1:0", .handle = handle, .tls_certificate = certificate, .tls_key = key};
    FAILS(lk_http_server_open(&o, &server, &test_err), LK_ENOTFOUND, "cert.pem");
    if (system("command -v openssl >/dev/null") || system(text)) skip();
    OK(lk_http_server_open(&o, &server, &test_err));
    const char *address = lk_http_server_address(server);
    snprintf(text, sizeof text,
             "printf 'POST /echo HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 6\\r\\nConnection: close\\r\\n\\r\\nsecret' | "
             "openssl s_client -quiet -verify_return_error -CAfile %s -connect %s 2>/dev/null | grep -q secret",
             certificate, address);
    for (int i = 0; i < 3; i++) assert_int_equal(system(text), 0);
    snprintf(text, sizeof text, "openssl s_client -verify_return_error -connect %s </dev/null >/dev/null 2>&1", address);
    assert_int_not_equal(system(text), 0); /* it is this certificate that was checked */
    lk_http_server_close(server);
    o.tls_key = certificate;
    FAILS(lk_http_server_open(&o, &server, &test_err), LK_EIO, "with this certificate and key: ");
    o.tls_key = NULL;
    FAILS(lk_http_server_open(&o, &server, &test_err), LK_EINVAL, "TLS needs both");
    lk_free(certificate), lk_free(key);
}

/* Each allocation of a request and its answer fails once: the client hears an answer, a refusal or a close, never half. */
static void no_memory_for_requests(void **state) {
    (void)state;
    int whole = 0;
    open_with((struct lk_http_limits){0});
    for (uint64_t nth = 1; nth <= 25; nth++) {
        static char text[1 << 16];
        int fd = come();
        lk__alloc_fail_at(nth);
        say(fd, "POST /echo?a=b HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
        hear(fd, text, sizeof text, "hello");
        bool ok = strstr(text, "200 OK") && strstr(text, "hello");
        if (!ok && text[0]) assert_non_null(strstr(text, "HTTP/1.1 503"));
        whole += ok;
        if (ok) {
            say(fd, "GET /stream?n=2000 HTTP/1.1\r\nHost: x\r\n\r\n");
            hear(fd, text, sizeof text, "line 1999\n");
            if (!strstr(text, "line 1999\n")) assert_true(closed(fd));
        }
        lk__alloc_fail_at(0);
        close(fd);
    }
    assert_true(whole > 5 && whole < 25);
    gets("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nagain", "again");
    lk_http_server_close(server);
}

/* Clients come, ask, and go at random while the server closes. */
static atomic_bool leave;
static void *come_and_go(void *arg) {
    (void)arg;
    for (unsigned i = 0; !leave; i++) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        struct timeval limit = {1, 0};
        (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
        char c;
        if (!connect(fd, (struct sockaddr *)&to, sizeof to)) {
            say(fd, i % 3 ? "GET /stream?n=200 HTTP/1.1\r\nHost: x\r\n\r\n" : "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
            if (i % 2) (void)!recv(fd, &c, 1, 0);
        }
        close(fd);
    }
    return NULL;
}
static void closing_under_load(void **state) {
    (void)state;
    for (int round = 0; round < 5; round++) {
        pthread_t threads[4];
        open_with((struct lk_http_limits){0});
        leave = false;
        for (int i = 0; i < 4; i++) assert_int_equal(lk_thread_start(&threads[i], come_and_go, NULL), 0);
        usleep(100000);
        lk_http_server_close(server);
        leave = true;
        for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_are_answered),
        cmocka_unit_test(limits_hold),
        cmocka_unit_test(clients_go),
        cmocka_unit_test(resets_leave_nothing),
        cmocka_unit_test(many_at_once),
        cmocka_unit_test(closing_tells_those_who_work),
        cmocka_unit_test(addresses),
        cmocka_unit_test(no_memory_is_said),
        cmocka_unit_test(requests_that_cannot_be),
        cmocka_unit_test(queries_are_decoded),
        cmocka_unit_test(slow_ones_are_shut),
        cmocka_unit_test(who_does_not_read_is_shut),
        cmocka_unit_test(half_closed),
        cmocka_unit_test(all_together),
        cmocka_unit_test(callbacks_may_lock_and_end),
        TEST_IN_DIR(unix_sockets),
        TEST_IN_DIR(tls),
        cmocka_unit_test(no_memory_for_requests),
        cmocka_unit_test(closing_under_load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
