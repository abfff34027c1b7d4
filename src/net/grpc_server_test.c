/* The gRPC server by real sockets: the four kinds of calls, what the specification says of headers and messages, deadlines,
 * cancellation, flow control, health, drain. What a client should not do is in grpc_abuse_test.c. */
#include "lockstep/base/thread.h"
#include "lockstep/net/grpc_server.h"
#include "lockstep/net/metrics.h"
#include "net/grpc_client.h"
#include "net/grpc_inside.h"
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdatomic.h>

static struct lk_grpc_server *server;
static unsigned short port;
static atomic_int began, saw_cancel, sent_all;
static atomic_uint sent_messages;
static atomic_bool block_quick;
static char filler[1000];

static int one(void *arg, struct lk_grpc_call *call, struct lk_err *err) {
    struct lk_bytes m;
    struct lk_buf binary = LK_BUF_INIT;
    const char *echo = lk_grpc_metadata(call, "x-echo", 0);
    (void)arg;
    int code = lk_grpc_receive(call, &m, err);
    if (lk_grpc_metadata(call, "x-gzip", 0)) lk_grpc_compress(call);
    if (!code && echo) code = lk_grpc_set_header(call, "x-echo", echo, strlen(echo), err);
    if (!code && !lk_grpc_metadata_bytes(call, "x-echo-bin", 0, &binary))
        code = lk_grpc_set_trailer(call, "x-echo-bin", binary.data, binary.size, err);
    lk_buf_release(&binary);
    return code ? code : lk_grpc_send(call, m.data, m.size, err);
}
static int down(void *arg, struct lk_grpc_call *call, struct lk_err *err) {
    const char *count = lk_grpc_metadata(call, "x-count", 0);
    int code = LK_OK;
    (void)arg;
    began++;
    for (long i = 0, n = count ? atol(count) : 1; i < n && !code; i++) {
        code = lk_grpc_send(call, filler, sizeof filler, err);
        if (!code) sent_messages++;
    }
    if (code == LK_ESTOPPED) saw_cancel++;
    if (!code) sent_all++;
    return code;
}
static int up(void *arg, struct lk_grpc_call *call, struct lk_err *err) {
    uint64_t sum = 0;
    struct lk_bytes m;
    int code;
    (void)arg;
    while (!(code = lk_grpc_receive(call, &m, err))) sum += m.size;
    return code == LK_ENOTFOUND ? lk_grpc_send(call, &sum, sizeof sum, err) : code;
}
static int both(void *arg, struct lk_grpc_call *call, struct lk_err *err) {
    struct lk_bytes m;
    int code;
    (void)arg;
    while (!(code = lk_grpc_receive(call, &m, err)) && !(code = lk_grpc_send(call, m.data, m.size, err))) {}
    if (code == LK_ESTOPPED) saw_cancel++;
    return code == LK_ENOTFOUND ? LK_OK : code;
}
/* Waits for a cancellation without asking for it, and asks. */
static int hold(void *arg, struct lk_grpc_call *call, struct lk_err *err) {
    (void)arg;
    began++;
    while (!lk_grpc_cancelled(call)) usleep(500);
    saw_cancel++;
    return lk_fail(err, LK_ESTOPPED, "nobody listens");
}
static int fails(void *arg, struct lk_grpc_call *call, struct lk_err *err) {
    const char *code = lk_grpc_metadata(call, "x-code", 0), *status = lk_grpc_metadata(call, "x-status", 0);
    (void)arg;
    if (status) lk_grpc_finish(call, (enum lk_grpc_status)atoi(status), "50% \xC3\xA4\n", lk_bytes("\x08\x05", 2));
    return code ? lk_fail(err, atoi(code), "as you like it") : LK_OK;
}
static int quick(void *arg, struct lk_grpc_call *call, struct lk_err *err) {
    struct lk_bytes m;
    (void)arg;
    while (block_quick && lk_grpc_metadata(call, "x-block", 0)) usleep(100);
    int code = lk_grpc_receive(call, &m, err);
    return code ? code : lk_grpc_send(call, m.data, m.size, err);
}
static int never_reads(void *arg, struct lk_grpc_call *call, struct lk_err *err) {
    return hold(arg, call, err);
}
static int twice(void *arg, struct lk_grpc_call *call, struct lk_err *err) {
    (void)arg;
    int code = lk_grpc_send(call, "a", 1, err);
    return code ? code : lk_grpc_send(call, "b", 1, err);
}

static const struct lk_grpc_method methods[] = {
    {"/t.T/One", LK_GRPC_UNARY, one, NULL},       {"/t.T/Down", LK_GRPC_SERVER_STREAM, down, NULL},
    {"/t.T/Up", LK_GRPC_CLIENT_STREAM, up, NULL}, {"/t.T/Both", LK_GRPC_BIDI, both, NULL},
    {"/t.T/Hold", LK_GRPC_UNARY, hold, NULL},     {"/t.T/Fails", LK_GRPC_UNARY, fails, NULL},
    {"/t.T/Quick", LK_GRPC_UNARY, quick, NULL},   {"/t.T/Stuck", LK_GRPC_BIDI, never_reads, NULL},
    {"/t.T/Twice", LK_GRPC_UNARY, twice, NULL},
};
static void open_server(struct lk_grpc_options o) {
    if (!o.listen) o.listen = "127.0.0.1:0";
    o.methods = methods, o.method_count = sizeof methods / sizeof *methods;
    began = saw_cancel = sent_all = 0;
    sent_messages = 0;
    OK(lk_grpc_server_open(&o, &server, &test_err));
    const char *colon = strrchr(lk_grpc_server_address(server), ':');
    port = (unsigned short)atoi(colon + 1);
}
static void close_server(void) {
    lk_grpc_server_close(server, 0);
    server = NULL;
}
static struct lk_grpc_counts counts(void) {
    struct lk_grpc_counts c;
    lk_grpc_server_count(server, &c);
    return c;
}
static size_t messages_held(void) {
    pthread_mutex_lock(&server->mutex);
    size_t held = server->messages_bytes;
    pthread_mutex_unlock(&server->mutex);
    return held;
}
/* Within 10 s. */
#define SOON(x)                                                                                                            \
    do {                                                                                                                   \
        uint64_t soon_until = lk_clock_ns() + UINT64_C(10000000000);                                                       \
        while (!(x) && lk_clock_ns() < soon_until) usleep(500);                                                            \
        if (!(x)) fail_msg("not in 10 s: %s", #x);                                                                         \
    } while (0)

static struct answer *call_one(struct client *c, const char *text) {
    uint32_t stream = c_begin(c, "/t.T/One");
    c_message(c, stream, text, strlen(text), 0, true);
    return c_wait(c, stream);
}
static void good(struct client *c) {
    struct answer *a = call_one(c, "still there");
    if (a->status < 0)
        fail_msg("closed %d, GOAWAY %lld %s, reset %lld", c->closed, (long long)c->goaway, c->goaway_text,
                 (long long)a->reset);
    assert_int_equal(a->status, 0);
    assert_int_equal(a->body.size, 5 + 11);
}

static void test_kinds(void **state) {
    (void)state;
    open_server((struct lk_grpc_options){0});
    struct client c = c_open(port);
    struct answer *a = call_one(&c, "hello");
    assert_int_equal(a->http, 200);
    assert_int_equal(a->status, 0);
    assert_memory_equal(a->body.data, "\0\0\0\0\5hello", 10);
    assert_int_equal(call_one(&c, "")->body.size, 5);

    uint32_t s = c_begin(&c, "/t.T/Down", "x-count", "300");
    c_message(&c, s, "", 0, 0, true);
    a = c_wait(&c, s);
    assert_int_equal(a->status, 0);
    assert_int_equal(a->body.size, 300 * (5 + sizeof filler));

    s = c_begin(&c, "/t.T/Up");
    for (int i = 0; i < 500; i++) c_message(&c, s, filler, (size_t)i, 0, i == 499);
    a = c_wait(&c, s);
    uint64_t sum;
    assert_int_equal(a->status, 0);
    assert_int_equal(a->body.size, 5 + 8);
    memcpy(&sum, a->body.data + 5, 8);
    assert_int_equal(sum, 499 * 500 / 2);

    s = c_begin(&c, "/t.T/Both"); /* one after the other: no answer waits for the next message */
    for (size_t i = 1; i < 50; i++) {
        c_message(&c, s, filler, i, 0, false);
        while (c_answer(&c, s)->body.size < i * 5 + i * (i + 1) / 2) assert_true(c_step(&c));
    }
    c_frame(&c, F_DATA, END_STREAM, s, NULL, 0);
    assert_int_equal(c_wait(&c, s)->status, 0);
    s = c_begin(&c, "/t.T/Both"); /* nothing at all */
    c_frame(&c, F_DATA, END_STREAM, s, NULL, 0);
    a = c_wait(&c, s);
    assert_int_equal(a->status, 0);
    assert_int_equal(a->body.size, 0);
    c_close(&c);
    close_server();
}

static void test_metadata_and_status(void **state) {
    (void)state;
    open_server((struct lk_grpc_options){0});
    struct client c = c_open(port);
    uint32_t s = c_begin(&c, "/t.T/One", "x-echo", "some text", "x-echo-bin", "AP8B"); /* 00 FF 01 */
    c_message(&c, s, "x", 1, 0, true);
    struct answer *a = c_wait(&c, s);
    assert_string_equal(a->echo, "some text");
    assert_string_equal(a->echo_bin, "AP8B");
    s = c_begin(&c, "/t.T/One", "x-echo-bin", "AP8BAg=="); /* with padding, answered without */
    c_message(&c, s, "x", 1, 0, true);
    assert_string_equal(c_wait(&c, s)->echo_bin, "AP8BAg");
    s = c_begin(&c, "/t.T/Fails", "x-status", "9");
    c_message(&c, s, "x", 1, 0, true);
    a = c_wait(&c, s);
    assert_int_equal(a->http, 200);
    assert_int_equal(a->status, 9);
    assert_string_equal(a->message, "50%25 %C3%A4%0A");
    assert_string_equal(a->details, "CAU");
    static const int codes[][2] = {{LK_ENOMEM, 8},     {LK_EIO, 14},      {LK_EINVAL, 3},        {LK_ENOTFOUND, 5},
                                   {LK_EEXISTS, 6},    {LK_ECORRUPT, 15}, {LK_EBUSY, 14},        {LK_ESTOPPED, 1},
                                   {LK_EDIVERGED, 13}, {LK_ENAN, 13},     {LK_EUNSUPPORTED, 12}, {LK_ECONFLICT, 10}};
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        char code[16];
        snprintf(code, sizeof code, "%d", codes[i][0]);
        s = c_begin(&c, "/t.T/Fails", "x-code", code);
        c_message(&c, s, "x", 1, 0, true);
        assert_int_equal(c_wait(&c, s)->status, codes[i][1]);
        assert_true(!strncmp(c_wait(&c, s)->message, "as you like it", 14));
    }
    s = c_begin(&c, "/t.T/Fails"); /* returns 0 and has sent nothing */
    c_message(&c, s, "x", 1, 0, true);
    assert_int_equal(c_wait(&c, s)->status, 13);
    s = c_begin(&c, "/t.T/Twice");
    c_message(&c, s, "x", 1, 0, true);
    assert_int_equal(c_wait(&c, s)->status, 3);
    good(&c);
    c_close(&c);
    close_server();
}

/* What the specification asks of a request. */
static void test_rules(void **state) {
    (void)state;
    struct lk_grpc_limits l = {.message_bytes = 100000, .header_bytes = 4096};
    open_server((struct lk_grpc_options){.limits = l});
    struct client c = c_open(port);
    static const struct {
        const char *path, *name, *value;
        int http, status;
    } cases[] = {
        {"/t.T/None", "x", "y", 200, 12},
        {"/", "x", "y", 200, 12},
        {"/t.T/One/", "x", "y", 200, 12},
        {"/t.T/One", "content-type", "application/json", 415, 13},
        {"/t.T/One", "content-type", "application/grpcweb", 415, 13},
        {"/t.T/One", "content-type", "", 415, 13},
        {"/t.T/One", "content-type", "application/grpc+proto", 200, 0},
        {"/t.T/One", "content-type", "application/grpc; charset=x", 200, 0},
        {"/t.T/One", "te", "", 200, 0},
        {"/t.T/One", ":method", "GET", 405, 13},
        {"/t.T/One", "grpc-timeout", "1", 200, 13},
        {"/t.T/One", "grpc-timeout", "S", 200, 13},
        {"/t.T/One", "grpc-timeout", "123456789S", 200, 13},
        {"/t.T/One", "grpc-timeout", "1x", 200, 13},
        {"/t.T/One", "grpc-timeout", "-1S", 200, 13},
        {"/t.T/One", "grpc-timeout", "1SS", 200, 13},
        {"/t.T/One", "grpc-timeout", "99999999H", 200, 0},
        {"/t.T/One", "grpc-timeout", "10S", 200, 0},
        {"/t.T/One", "grpc-encoding", "snappy", 200, 12},
        {"/t.T/One", "grpc-encoding", "identity", 200, 0},
        {"/t.T/One", "x-echo-bin", "!!", 200, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t s = c_begin(&c, cases[i].path, cases[i].name, cases[i].value);
        c_message(&c, s, "abc", 3, 0, true);
        struct answer *a = c_wait(&c, s);
        if (a->http != cases[i].http || a->status != cases[i].status)
            fail_msg("%s %s %s: %d %d", cases[i].path, cases[i].name, cases[i].value, a->http, a->status);
    }
    static const struct {
        const char *bytes;
        size_t size;
        int status;
    } bodies[] = {
        {"", 0, 13},                            /* no message */
        {"\0\0\0\0", 4, 13},                    /* ends in a prefix */
        {"\0\0\0\0\5abc", 8, 13},               /* and in a message */
        {"\2\0\0\0\1a", 6, 13},                 /* neither 0 nor 1 */
        {"\1\0\0\0\1a", 6, 13},                 /* compressed, without an encoding */
        {"\0\0\0\0\1a\0\0\0\0\1b", 12, 13},     /* two */
        {"\0\0\1\x86\xA1", 5, 8},               /* 100,001 bytes */
        {"\0\xFF\xFF\xFF\xFFxxxxxxxxx", 14, 8}, /* 4 GiB - 1 */
    };
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        uint32_t s = c_begin(&c, "/t.T/One");
        c_frame(&c, F_DATA, END_STREAM, s, bodies[i].bytes, bodies[i].size);
        if (c_wait(&c, s)->status != bodies[i].status) fail_msg("body %zu: %d", i, c_wait(&c, s)->status);
    }
    char *large = malloc(9000);
    memset(large, 'x', 8999), large[8999] = 0;
    uint32_t s = c_begin(&c, "/t.T/One", "x-large", large);
    c_message(&c, s, "a", 1, 0, true);
    assert_int_equal(c_wait(&c, s)->status, 8);
    free(large);
    s = c_begin(&c, "/t.T/One"); /* refused before it ends: the stream is closed for both */
    c_message(&c, s, filler, 1, 2, false);
    assert_int_equal(c_wait(&c, s)->status, 13);
    while (c_answer(&c, s)->reset < 0) assert_true(c_step(&c));
    assert_int_equal(c_answer(&c, s)->reset, NGHTTP2_NO_ERROR);
    good(&c);
    c_close(&c);
    close_server();
}

static void test_gzip(void **state) {
    (void)state;
    open_server((struct lk_grpc_options){.limits = {.message_bytes = 100000}});
    struct client c = c_open(port);
    struct lk_buf z = LK_BUF_INIT, back = LK_BUF_INIT;
    char text[20000];
    memset(text, 'z', sizeof text);
    OK(lk__grpc_deflate(text, sizeof text, &z));
    uint32_t s = c_begin(&c, "/t.T/One", "grpc-encoding", "gzip", "grpc-accept-encoding", "deflate, gzip", "x-gzip", "1");
    c_message(&c, s, z.data, z.size, 1, true);
    struct answer *a = c_wait(&c, s);
    assert_int_equal(a->status, 0);
    assert_string_equal(a->encoding, "gzip");
    assert_int_equal(a->body.data[0], 1);
    assert_true(a->body.size < 1000);
    OK(lk__grpc_inflate(a->body.data + 5, a->body.size - 5, 100000, &back));
    assert_int_equal(back.size, sizeof text);
    assert_memory_equal(back.data, text, sizeof text);
    s = c_begin(&c, "/t.T/One", "grpc-encoding", "gzip", "x-gzip", "1"); /* takes no gzip: plain back */
    c_message(&c, s, z.data, z.size, 1, true);
    assert_int_equal(c_wait(&c, s)->body.size, sizeof text + 5);
    s = c_begin(&c, "/t.T/One", "grpc-encoding", "gzip");
    c_message(&c, s, z.data, z.size - 1, 1, true); /* cut, so that its end says another size */
    assert_int_equal(c_wait(&c, s)->status, 8);
    s = c_begin(&c, "/t.T/One", "grpc-encoding", "gzip");
    c_message(&c, s, "rubbish", 7, 1, true);
    assert_int_equal(c_wait(&c, s)->status, 13);
    lk_buf_release(&z);
    char *bomb = calloc(1, 50 << 20); /* 50 MiB in 230 KB */
    OK(lk__grpc_deflate(bomb, 400000, &z));
    free(bomb);
    s = c_begin(&c, "/t.T/One", "grpc-encoding", "gzip");
    c_message(&c, s, z.data, z.size, 1, true);
    assert_int_equal(c_wait(&c, s)->status, 8);
    z.data[z.size - 1] = z.data[z.size - 2] = 0, z.data[z.size - 3] = 1; /* and one that lies about it */
    s = c_begin(&c, "/t.T/One", "grpc-encoding", "gzip");
    c_message(&c, s, z.data, z.size, 1, true);
    assert_int_equal(c_wait(&c, s)->status, 13);
    good(&c);
    SOON(counts().calls == 0);
    assert_int_equal(messages_held(), 0);
    lk_buf_release(&z);
    lk_buf_release(&back);
    c_close(&c);
    close_server();
}

static void test_deadline_and_cancel(void **state) {
    (void)state;
    open_server((struct lk_grpc_options){0});
    struct client c = c_open(port);
    uint64_t start = lk_clock_ns();
    uint32_t s = c_begin(&c, "/t.T/Hold", "grpc-timeout", "50m");
    c_message(&c, s, "x", 1, 0, true);
    struct answer *a = c_wait(&c, s);
    assert_int_equal(a->status, 4);
    assert_in_range(lk_clock_ns() - start, 45000000, 5000000000);
    SOON(saw_cancel == 1);
    s = c_begin(&c, "/t.T/One", "grpc-timeout", "20m"); /* the request does not come */
    assert_int_equal(c_wait(&c, s)->status, 4);

    s = c_begin(&c, "/t.T/Hold");
    c_message(&c, s, "x", 1, 0, true);
    SOON(began == 2);
    start = lk_clock_ns();
    c_frame(&c, F_RST, 0, s, "\0\0\0\x08", 4);
    SOON(saw_cancel == 2);
    if (!LK_SANITIZED) assert_in_range(lk_clock_ns() - start, 0, 1000000000);
    s = c_begin(&c, "/t.T/Both"); /* while it waits for a message */
    c_message(&c, s, "x", 1, 0, false);
    while (c_answer(&c, s)->body.size < 6) assert_true(c_step(&c));
    c_frame(&c, F_RST, 0, s, "\0\0\0\x08", 4);
    SOON(saw_cancel == 3);
    s = c_begin(&c, "/t.T/Hold");
    c_message(&c, s, "x", 1, 0, true);
    SOON(began == 3);
    good(&c);
    c_close(&c); /* the whole connection */
    SOON(saw_cancel == 4);
    SOON(counts().calls == 0 && counts().connections == 0);
    close_server();
}

/* A reader that does not read holds the producer, not memory. */
static void test_back_pressure(void **state) {
    (void)state;
    open_server((struct lk_grpc_options){.limits = {.unsent_bytes = 20000}});
    struct client c = c_new(c_socket(port));
    c_greet(&c, 10000);
    c.no_window = true;
    uint32_t s = c_begin(&c, "/t.T/Down", "x-count", "1000");
    c_message(&c, s, "", 0, 0, true);
    while (c_answer(&c, s)->taken < 10000) assert_true(c_step(&c));
    usleep(50000);
    assert_true(!sent_all);
    assert_in_range(sent_messages, 20, 60); /* the window, the limit, and a chunk on its way */
    good(&c);                               /* other streams have their own */
    uint8_t more[4];
    for (int i = 0; i < 5; i++) { /* a bit of window lets a bit more through */
        unsigned before = sent_messages;
        put32(more, 12000);
        c_frame(&c, F_WINDOW, 0, s, more, 4), c_frame(&c, F_WINDOW, 0, 0, more, 4);
        SOON(sent_messages > before);
    }
    put32(more, 2000000);
    c_frame(&c, F_WINDOW, 0, s, more, 4), c_frame(&c, F_WINDOW, 0, 0, more, 4);
    assert_int_equal(c_wait(&c, s)->status, 0);
    assert_int_equal(c_answer(&c, s)->body.size, 1000 * (5 + sizeof filler));
    s = c_begin(&c, "/t.T/Down", "x-count", "1000"); /* gone while it is blocked */
    c_message(&c, s, "", 0, 0, true);
    SOON(began == 2);
    usleep(20000);
    c_frame(&c, F_RST, 0, s, "\0\0\0\x08", 4);
    SOON(saw_cancel == 1);
    c_close(&c);
    close_server();
}
/* A reader that is now faster, now slower than the producer: what was taken to be sent, and what waits, never lose each
 * other. */
static void test_long_streams(void **state) {
    (void)state;
    open_server((struct lk_grpc_options){.limits = {.unsent_bytes = 5000}});
    struct client c = c_new(c_socket(port));
    c_greet(&c, 1 << 30);
    uint8_t more[4];
    uint32_t s[3];
    put32(more, 1 << 30);
    c_frame(&c, F_WINDOW, 0, 0, more, 4);
    c.no_window = true;
    for (int i = 0; i < 3; i++) {
        s[i] = c_begin(&c, "/t.T/Down", "x-count", "5000");
        c_message(&c, s[i], "", 0, 0, true);
    }
    for (int i = 0; i < 3; i++) {
        while (!c_answer(&c, s[i])->ended && c_answer(&c, s[i])->reset < 0 && c_step(&c))
            if (c.frames % 100 == 0) usleep(1000);
        assert_int_equal(c_answer(&c, s[i])->reset, -1);
        assert_int_equal(c_answer(&c, s[i])->status, 0);
        assert_int_equal(c_answer(&c, s[i])->body.size, 5000 * (5 + sizeof filler));
    }
    c_close(&c);
    close_server();
}
/* And a handler that does not receive holds the client. */
static void test_slow_handler(void **state) {
    (void)state;
    open_server((struct lk_grpc_options){0});
    struct client c = c_open(port);
    uint32_t s = c_begin(&c, "/t.T/Stuck");
    char *mib = calloc(1, 1 << 20);
    c_sync(&c);
    for (int i = 0; i < 2; i++) { /* its window is 1 MiB */
        c_message(&c, s, mib, 500000, 0, false);
        c_sync(&c);
        good(&c);
    }
    c_message(&c, s, mib, 48000, 0, false); /* just inside */
    c_sync(&c);
    good(&c);
    assert_int_equal(c_answer(&c, s)->reset, -1);
    c_message(&c, s, mib, 1 << 20, 0, false); /* and beyond: a breach, and then DATA that nobody wants */
    c_wait(&c, s);
    assert_int_equal(c_answer(&c, s)->reset, NGHTTP2_FLOW_CONTROL_ERROR);
    good(&c);
    SOON(saw_cancel == 1);
    free(mib);
    c_close(&c);
    close_server();
}
static void test_large_messages(void **state) {
    (void)state;
    size_t size = 8 << 20;
    open_server((struct lk_grpc_options){.limits = {.messages_bytes = 3 << 22}});
    struct client c = c_open(port);
    char *m = malloc(size);
    c_sync(&c); /* its windows count from then on */
    for (size_t i = 0; i < size; i++) m[i] = (char)(i * 31 + i / 1000);
    uint32_t s = c_begin(&c, "/t.T/One");
    /* No window is waited for: what is sent is given back as it is put together. */
    c_message(&c, s, m, 900000, 0, true);
    assert_int_equal(c_wait(&c, s)->status, 0);
    assert_memory_equal(c_answer(&c, s)->body.data + 5, m, 900000);
    uint32_t held[20];
    int refused = 0;
    for (int i = 0; i < 14; i++) { /* 14 times 900,000 of 12.6 MB may be there */
        held[i] = c_begin(&c, "/t.T/Stuck");
        c_message(&c, held[i], m, 900000, 0, false);
        c_sync(&c);
    }
    for (int i = 0; i < 14; i++) refused += c_answer(&c, held[i])->status == 8;
    assert_in_range(refused, 0, 2);
    for (int i = 14; i < 20; i++) {
        held[i] = c_begin(&c, "/t.T/Stuck");
        c_message(&c, held[i], m, 900000, 0, false);
        c_sync(&c);
    }
    for (int i = 14; i < 20; i++) refused += c_answer(&c, held[i])->status == 8;
    assert_true(refused >= 5);
    free(m);
    c_close(&c);
    SOON(counts().calls == 0);
    struct client d = c_open(port);
    good(&d);
    c_close(&d);
    close_server();
}

static void test_health_and_drain(void **state) {
    (void)state;
    open_server((struct lk_grpc_options){0});
    struct client c = c_open(port), d = c_open(port);
    static const char query[] = "\x0A\x01s"; /* service: "s" */
    uint32_t w = c_begin(&c, "/grpc.health.v1.Health/Watch");
    c_message(&c, w, query, 3, 0, true);
    while (c_answer(&c, w)->body.size < 7) assert_true(c_step(&c));
    assert_int_equal(c_answer(&c, w)->body.data[6], 3); /* SERVICE_UNKNOWN */
    OK(lk_grpc_server_health(server, "s", true, &test_err));
    while (c_answer(&c, w)->body.size < 14) assert_true(c_step(&c));
    assert_int_equal(c_answer(&c, w)->body.data[13], 1);
    OK(lk_grpc_server_health(server, "s", true, &test_err)); /* no news */
    OK(lk_grpc_server_health(server, "s", false, &test_err));
    while (c_answer(&c, w)->body.size < 21) assert_true(c_step(&c));
    assert_int_equal(c_answer(&c, w)->body.data[20], 2);
    uint32_t s = c_begin(&c, "/grpc.health.v1.Health/Check");
    c_message(&c, s, query, 3, 0, true);
    assert_memory_equal(c_wait(&c, s)->body.data + 5, "\x08\x02", 2);
    s = c_begin(&c, "/grpc.health.v1.Health/Check");
    c_message(&c, s, "", 0, 0, true);
    assert_memory_equal(c_wait(&c, s)->body.data + 5, "\x08\x01", 2);
    s = c_begin(&c, "/grpc.health.v1.Health/Check");
    c_message(&c, s, "\x0A\x01t", 3, 0, true);
    assert_int_equal(c_wait(&c, s)->status, 5);
    s = c_begin(&c, "/grpc.health.v1.Health/Check");
    c_message(&c, s, "\xFF", 1, 0, true);
    assert_int_equal(c_wait(&c, s)->status, 3);

    uint32_t long_call = c_begin(&d, "/t.T/Both");
    c_message(&d, long_call, "x", 1, 0, false);
    while (c_answer(&d, long_call)->body.size < 6) assert_true(c_step(&d));
    lk_grpc_server_drain(server);
    assert_int_equal(c_wait(&c, w)->status, 14); /* watchers are told, then sent away */
    c_drain(&c);
    assert_int_equal(c.goaway, NGHTTP2_NO_ERROR);
    int late = socket(AF_INET, SOCK_STREAM, 0); /* nobody accepts it any more */
    close(late);
    while (d.goaway < 0) assert_true(c_step(&d));
    c_message(&d, long_call, "y", 1, 0, true); /* while what is there goes on */
    assert_int_equal(c_wait(&d, long_call)->status, 0);
    assert_int_equal(c_answer(&d, long_call)->body.size, 12);
    c_drain(&d);
    c_close(&c), c_close(&d);
    SOON(counts().connections == 0);
    close_server();
    open_server((struct lk_grpc_options){0}); /* closing cancels what is left */
    struct client e = c_open(port);
    s = c_begin(&e, "/t.T/Hold");
    c_message(&e, s, "x", 1, 0, true);
    SOON(began == 1);
    close_server();
    assert_int_equal(saw_cancel, 1);
    c_drain(&e);
    c_close(&e);
}

static enum lk_grpc_status authorize(void *arg, struct lk_grpc_call *call, uint64_t *who, struct lk_err *err) {
    const char *key = lk_grpc_metadata(call, "authorization", 0);
    (void)arg;
    if (!key) return lk_fail(err, LK_EINVAL, "a key is needed"), LK_GRPC_UNAUTHENTICATED;
    *who = 7;
    if (!strcmp(key, "Bearer reader") && strcmp(lk_grpc_path(call), "/t.T/One") != 0)
        return lk_fail(err, LK_EINVAL, "this key may not do that"), LK_GRPC_PERMISSION_DENIED;
    return LK_GRPC_OK;
}
static void test_authorize_and_metrics(void **state) {
    (void)state;
    struct lk_metrics *m = lk_metrics_create();
    struct lk_buf text = LK_BUF_INIT;
    open_server((struct lk_grpc_options){.authorize = authorize, .metrics = m});
    struct client c = c_open(port);
    assert_int_equal(call_one(&c, "x")->status, 16);
    uint32_t s = c_begin(&c, "/t.T/One", "authorization", "Bearer reader");
    c_message(&c, s, "x", 1, 0, true);
    assert_int_equal(c_wait(&c, s)->status, 0);
    s = c_begin(&c, "/t.T/Up", "authorization", "Bearer reader");
    c_message(&c, s, "x", 1, 0, true);
    assert_int_equal(c_wait(&c, s)->status, 7);
    assert_string_equal(c_wait(&c, s)->message, "this key may not do that");
    c_close(&c);
    close_server();
    OK(lk_metrics_print(m, &text));
    assert_non_null(strstr(text.data, "lk_grpc_started_total{method=\"/t.T/One\"} 1\n"));
    assert_non_null(strstr(text.data, "lk_grpc_handled_total{method=\"/t.T/One\",status=\"OK\"} 1\n"));
    assert_non_null(strstr(text.data, "lk_grpc_handled_total{method=\"/t.T/Up\",status=\"PERMISSION_DENIED\"} 1\n"));
    assert_non_null(strstr(text.data, "lk_grpc_calls 0\n"));
    assert_null(strstr(text.data, "reader"));
    lk_buf_release(&text);
    lk_metrics_free(m);
}

/* A method that was quick a thousand times and then blocks does not hold the others. */
static void test_overtaking(void **state) {
    (void)state;
    open_server((struct lk_grpc_options){0});
    struct client c = c_open(port), d = c_open(port);
    for (int i = 0; i < 200; i++) {
        uint32_t s = c_begin(&c, "/t.T/Quick");
        c_message(&c, s, "x", 1, 0, true);
        assert_int_equal(c_wait(&c, s)->status, 0);
    }
    if (!LK_SANITIZED) assert_true(counts().hops < 100);
    block_quick = true;
    uint32_t blocked[5];
    for (int i = 0; i < 5; i++) {
        blocked[i] = c_begin(&c, "/t.T/Quick", "x-block", "1");
        c_message(&c, blocked[i], "x", 1, 0, true);
    }
    SOON(counts().running == 5);
    for (int i = 0; i < 20; i++) good(&d), good(&c);
    block_quick = false;
    for (int i = 0; i < 5; i++) assert_int_equal(c_wait(&c, blocked[i])->status, 0);
    if (!LK_SANITIZED) assert_true(counts().overtaken >= 1);
    c_close(&c), c_close(&d);
    close_server();
}
static void test_one_worker(void **state) {
    (void)state;
    open_server((struct lk_grpc_options){.limits = {.workers = 1, .waiting = 3}});
    struct client c = c_open(port);
    uint32_t s[6];
    for (int i = 0; i < 6; i++) {
        s[i] = c_begin(&c, "/t.T/Hold");
        c_message(&c, s[i], "x", 1, 0, true);
        if (!i) SOON(began == 1);
        c_sync(&c);
    }
    assert_int_equal(c_wait(&c, s[4])->status, 14); /* too many wait */
    assert_int_equal(c_wait(&c, s[5])->status, 14);
    for (int i = 0; i < 4; i++) c_frame(&c, F_RST, 0, s[i], "\0\0\0\x08", 4);
    SOON(counts().calls == 0);
    good(&c);
    c_close(&c);
    close_server();
}

/* --- TLS --- */

static void make_certificate(const char *dir, const char *name) {
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *x = X509_new();
    char *path = lk_asprintf("%s/%s.key", dir, name);
    FILE *f = fopen(path, "w");
    PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL);
    fclose(f), lk_free(path);
    ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
    X509_gmtime_adj(X509_getm_notBefore(x), 0), X509_gmtime_adj(X509_getm_notAfter(x), 86400);
    X509_set_pubkey(x, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC, (const unsigned char *)"localhost", -1, -1, 0);
    X509_set_issuer_name(x, X509_get_subject_name(x));
    X509_sign(x, key, EVP_sha256());
    path = lk_asprintf("%s/%s.pem", dir, name);
    f = fopen(path, "w");
    PEM_write_X509(f, x);
    fclose(f), lk_free(path);
    X509_free(x), EVP_PKEY_free(key);
}
static void test_tls(void **state) {
    make_certificate(*state, "a"), make_certificate(*state, "b");
    char *cert = lk_asprintf("%s/a.pem", (char *)*state), *key = lk_asprintf("%s/a.key", (char *)*state);
    char *other = lk_asprintf("%s/b.key", (char *)*state);
    struct lk_grpc_options o = {.listen = "127.0.0.1:0", .tls_certificate = cert, .tls_key = other};
    FAILS(lk_grpc_server_open(&o, &server, &test_err), LK_EIO, "b.key");
    o.tls_key = cert;
    FAILS(lk_grpc_server_open(&o, &server, &test_err), LK_EIO, "a.pem");
    o.tls_key = "/nonexistent";
    FAILS(lk_grpc_server_open(&o, &server, &test_err), LK_ENOTFOUND, "/nonexistent");
    o.tls_key = NULL;
    FAILS(lk_grpc_server_open(&o, &server, &test_err), LK_EINVAL, "TLS needs");
    o.tls_key = key;
    open_server(o);
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    struct client c = c_new(c_socket(port));
    assert_non_null(c.tls = SSL_new(ctx));
    SSL_set_alpn_protos(c.tls, (const unsigned char *)"\x08http/1.1\x02h2", 12);
    SSL_set_fd(c.tls, c.fd);
    assert_int_equal(SSL_connect(c.tls), 1);
    c_greet(&c, 65535);
    good(&c);
    uint32_t s = c_begin(&c, "/t.T/Down", "x-count", "1000");
    c_message(&c, s, "", 0, 0, true);
    assert_int_equal(c_wait(&c, s)->body.size, 1000 * (5 + sizeof filler));
    c_close(&c);
    struct client d = c_new(c_socket(port)); /* ALPN without h2 */
    d.tls = SSL_new(ctx);
    SSL_set_alpn_protos(d.tls, (const unsigned char *)"\x08http/1.1", 9);
    SSL_set_fd(d.tls, d.fd);
    assert_int_not_equal(SSL_connect(d.tls), 1);
    c_close(&d);
    struct client e = c_new(c_socket(port)); /* no TLS at all */
    c_raw(&e, PREFACE, sizeof PREFACE - 1);
    c_drain(&e);
    c_close(&e);
    SSL_CTX_free(ctx);
    SOON(counts().connections == 0);
    close_server();
    lk_free(cert), lk_free(key), lk_free(other);
}

/* --- the rest --- */

static void test_text(void **state) {
    (void)state;
    uint64_t ns;
    assert_true(lk__grpc_timeout("5m", &ns) && ns == 5000000);
    assert_true(lk__grpc_timeout("99999999H", &ns) && ns == UINT64_C(99999999) * 3600 * 1000000000);
    struct test_random r = test_random_open("base64");
    for (int i = 0; i < 300; i++) {
        struct lk_buf a = LK_BUF_INIT, b = LK_BUF_INIT;
        uint8_t data[64];
        size_t size = test_random_below(&r, sizeof data);
        for (size_t k = 0; k < size; k++) data[k] = (uint8_t)test_random_below(&r, 256);
        OK(lk__grpc_base64(data, size, &a));
        OK(lk__grpc_unbase64(a.data, a.size, &b));
        assert_int_equal(b.size, size);
        assert_memory_equal(b.data, data, size);
        lk_buf_release(&a), lk_buf_release(&b);
    }
    struct lk_buf b = LK_BUF_INIT;
    assert_int_equal(lk__grpc_unbase64("A", 1, &b), LK_EINVAL);
    assert_int_equal(lk__grpc_unbase64("====", 4, &b), LK_EINVAL);
    assert_int_equal(lk__grpc_unbase64("AA*A", 4, &b), LK_EINVAL);
    lk_buf_release(&b);
}
static void test_opening(void **state) {
    (void)state;
    struct lk_grpc_method m[] = {{"/a.B/C", LK_GRPC_UNARY, one, NULL}, {"/a.B/C", LK_GRPC_UNARY, one, NULL}};
    struct lk_grpc_options o = {.listen = "127.0.0.1:0", .methods = m, .method_count = 2};
    FAILS(lk_grpc_server_open(&o, &server, &test_err), LK_EINVAL, "/a.B/C is there twice");
    static const char *const wrong[] = {"a.B/C", "/a.B", "/a.B/", "//C", "/a/b/c", ""};
    o.method_count = 1;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        m[0].path = wrong[i];
        FAILS(lk_grpc_server_open(&o, &server, &test_err), LK_EINVAL, "is no method");
    }
    m[0].path = "/a.B/C";
    o.listen = "nonsense";
    FAILS(lk_grpc_server_open(&o, &server, &test_err), LK_EINVAL, "nonsense");
    o.listen = "127.0.0.1:0";
    o.limits.workers = 2;
    for (uint64_t nth = 1;; nth++) { /* each allocation fails once */
        lk__alloc_fail_at(nth);
        int code = lk_grpc_server_open(&o, &server, &test_err);
        bool made = lk__alloc_count() < nth;
        lk__alloc_fail_at(0);
        if (!code) lk_grpc_server_close(server, 0);
        assert_true(code == 0 || code == LK_ENOMEM);
        if (made) break;
    }
    server = NULL;
    char *dir = test_dir_make(), *path = lk_asprintf("unix:%s/socket", dir);
    o.listen = path;
    OK(lk_grpc_server_open(&o, &server, &test_err));
    assert_string_equal(lk_grpc_server_address(server), path);
    close_server();
    lk_free(path);
    test_dir_remove(dir);
}
/* The server goes on whichever allocation of a call fails. */
static void test_no_memory(void **state) {
    (void)state;
    open_server((struct lk_grpc_options){0});
    struct lk_buf bytes = LK_BUF_INIT;
    struct client r = c_new(-1);
    r.record = &bytes;
    c_greet(&r, 65535);
    c_message(&r, c_begin(&r, "/t.T/One", "x-echo", "a", "x-echo-bin", "AAAA"), "x", 1, 0, true);
    for (uint64_t nth = 1; nth < 60; nth++) {
        struct client c = c_new(c_socket(port));
        lk__alloc_fail_at(nth);
        c_raw(&c, bytes.data, bytes.size);
        usleep(1000);
        lk__alloc_fail_at(0);
        c_frame(&c, F_PING, 0, 0, "12345678", 8);
        while (!c.closed && !c.pongs && c_answer(&c, 1)->status < 0 && c_answer(&c, 1)->reset < 0) c_step(&c);
        c_close(&c);
    }
    c_close(&r);
    lk_buf_release(&bytes);
    struct client c = c_open(port);
    good(&c);
    c_close(&c);
    SOON(counts().calls == 0);
    close_server();
}

/* Many clients at once that do all of this; for the thread sanitizer. */
static void *load(void *arg) {
    struct client c = c_open(port);
    unsigned seed = (unsigned)(uintptr_t)arg;
    for (int i = 0; i < (LK_SANITIZED ? 150 : 400); i++) {
        unsigned what = (seed = seed * 1103515245 + 12345) >> 16;
        uint32_t s = what % 7 == 0   ? c_begin(&c, "/t.T/Down", "x-count", "40")
                     : what % 7 == 1 ? c_begin(&c, "/t.T/Both")
                     : what % 7 == 2 ? c_begin(&c, "/t.T/Hold", "grpc-timeout", "2m")
                     : what % 7 == 3 ? c_begin(&c, "/t.T/Up")
                                     : c_begin(&c, "/t.T/Quick", "x-echo", "y");
        c_message(&c, s, filler, what % sizeof filler, 0, true);
        if (what % 11 == 0) c_frame(&c, F_RST, 0, s, "\0\0\0\x08", 4);
        if (what % 11 && what % 3) c_wait(&c, s);
    }
    c_sync(&c);
    c_close(&c);
    return NULL;
}
static void test_load(void **state) {
    (void)state;
    pthread_t t[8];
    open_server((struct lk_grpc_options){.limits = {.workers = 4}});
    for (uintptr_t i = 0; i < 8; i++) assert_int_equal(lk_thread_start(&t[i], load, (void *)(i + 1)), 0);
    for (int i = 0; i < 8; i++) pthread_join(t[i], NULL);
    SOON(counts().calls == 0 && counts().running == 0 && counts().connections == 0);
    assert_int_equal(messages_held(), 0);
    close_server();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_metadata_and_status),
        cmocka_unit_test(test_rules),
        cmocka_unit_test(test_gzip),
        cmocka_unit_test(test_deadline_and_cancel),
        cmocka_unit_test(test_back_pressure),
        cmocka_unit_test(test_slow_handler),
        cmocka_unit_test(test_long_streams),
        cmocka_unit_test(test_large_messages),
        cmocka_unit_test(test_health_and_drain),
        cmocka_unit_test(test_authorize_and_metrics),
        cmocka_unit_test(test_overtaking),
        cmocka_unit_test(test_one_worker),
        TEST_IN_DIR(test_tls),
        cmocka_unit_test(test_opening),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
