/* What no client should do to the gRPC server: floods, frames that can't be, slow reading, dripping, holding places. Each
 * time the bad connection ends, in its time and with the right code, and a good one beside it is served. */
#include "lockstep/base/thread.h"
#include "lockstep/net/grpc_server.h"
#include "net/grpc_client.h"
#include "net/grpc_inside.h"
#include <stdatomic.h>

static struct lk_grpc_server *server;
static unsigned short port;
static atomic_int running, most_running, handled;
static atomic_bool held;
static char filler[1000];

static int one(void *arg, struct lk_grpc_call *call, struct lk_err *err) {
    struct lk_bytes m;
    (void)arg;
    int now = ++running, seen = most_running;
    while (now > seen && !atomic_compare_exchange_weak(&most_running, &seen, now)) {}
    int code = lk_grpc_receive(call, &m, err);
    if (!code) code = lk_grpc_send(call, m.data, m.size, err);
    handled++;
    running--;
    return code;
}
static int down(void *arg, struct lk_grpc_call *call, struct lk_err *err) {
    int code = LK_OK;
    (void)arg;
    for (int i = 0; i < 100000 && !code; i++) code = lk_grpc_send(call, filler, sizeof filler, err);
    return code;
}
static int hold(void *arg, struct lk_grpc_call *call, struct lk_err *err) {
    (void)arg;
    running++;
    while (held) usleep(500); /* as one that waits for a disk, and does not look */
    running--;
    return lk_grpc_send(call, "x", 1, err);
}
static const struct lk_grpc_method methods[] = {{"/t.T/One", LK_GRPC_UNARY, one, NULL},
                                                {"/t.T/Down", LK_GRPC_SERVER_STREAM, down, NULL},
                                                {"/t.T/Hold", LK_GRPC_UNARY, hold, NULL}};

static void open_server(struct lk_grpc_limits l) {
    struct lk_grpc_options o = {.listen = "127.0.0.1:0", .methods = methods, .method_count = 3, .limits = l};
    running = most_running = handled = 0;
    OK(lk_grpc_server_open(&o, &server, &test_err));
    port = (unsigned short)atoi(strrchr(lk_grpc_server_address(server), ':') + 1);
}
static void close_server(void) {
    lk_grpc_server_close(server, 0);
}
static struct lk_grpc_counts counts(void) {
    struct lk_grpc_counts c;
    lk_grpc_server_count(server, &c);
    return c;
}
#define SOON(x)                                                                                                            \
    do {                                                                                                                   \
        uint64_t soon_until = lk_clock_ns() + UINT64_C(10000000000);                                                       \
        while (!(x) && lk_clock_ns() < soon_until) usleep(500);                                                            \
        if (!(x)) fail_msg("not in 10 s: %s", #x);                                                                         \
    } while (0)
static void good(struct client *c) {
    uint32_t s = c_begin(c, "/t.T/One");
    c_message(c, s, "fine", 4, 0, true);
    assert_int_equal(c_wait(c, s)->status, 0);
}

/* --- floods --- */

static bool flood_pings(struct client *c) {
    return c_frame(c, F_PING, 0, 0, "12345678", 8);
}
static bool flood_settings(struct client *c) {
    return c_frame(c, F_SETTINGS, 0, 0, "\0\4\0\0\xFF\xFF", 6);
}
static bool flood_priorities(struct client *c) {
    return c_frame(c, F_PRIORITY, 0, 3, "\0\0\0\0\x10", 5);
}
static bool flood_windows(struct client *c) {
    return c_frame(c, F_WINDOW, 0, 0, "\0\0\0\1", 4);
}
static bool flood_unknown(struct client *c) {
    return c_frame(c, 0x42, 0, 0, "what", 4);
}
static bool flood_empty(struct client *c) {
    if (c->next == 1) c_begin(c, "/t.T/One");
    return c_frame(c, F_DATA, 0, 1, "", 0);
}
/* The rapid reset of CVE-2023-44487. */
static bool flood_resets(struct client *c) {
    if (c->next > 2 * STREAMS - 10) c->next = 2 * STREAMS - 9;
    struct lk_buf h = LK_BUF_INIT;
    static uint32_t stream;
    if (c->next == 1) stream = 1, c->next = 3;
    h_add(&h, ":method", "POST"), h_add(&h, ":scheme", "http"), h_add(&h, ":path", "/t.T/Hold");
    h_add(&h, "content-type", "application/grpc");
    bool ok = c_frame(c, F_HEADERS, END_HEADERS, stream, h.data, h.size) &&
              c_frame(c, F_DATA, END_STREAM, stream, "\0\0\0\0\0", 5) && c_frame(c, F_RST, 0, stream, "\0\0\0\x08", 4);
    stream += 2;
    lk_buf_release(&h);
    return ok;
}
/* Headers that never end. */
static bool flood_continuations(struct client *c) {
    bool first = c->next == 1;
    c->next = 3;
    return c_frame(c, first ? F_HEADERS : F_CONTINUATION, 0, 1, "\0\1a\1b", 5);
}
static bool flood_empty_continuations(struct client *c) {
    bool first = c->next == 1;
    c->next = 3;
    return c_frame(c, first ? F_HEADERS : F_CONTINUATION, 0, 1, "", 0);
}
static void *drop_all(void *arg) { /* a client that floods, yet reads */
    struct client *c = arg;
    char text[4096];
    while (recv(c->fd, text, sizeof text, MSG_DONTWAIT) > 0) {}
    return NULL;
}
static void test_floods(void **state) {
    (void)state;
    static const struct {
        const char *name;
        bool (*send)(struct client *);
    } floods[] = {{"pings", flood_pings},
                  {"settings", flood_settings},
                  {"priorities", flood_priorities},
                  {"windows", flood_windows},
                  {"unknown", flood_unknown},
                  {"empty", flood_empty},
                  {"resets", flood_resets},
                  {"continuations", flood_continuations},
                  {"empty continuations", flood_empty_continuations}};
    open_server((struct lk_grpc_limits){.workers = 4});
    struct client beside = c_open(port);
    for (size_t i = 0; i < sizeof floods / sizeof *floods; i++) {
        struct client c = c_open(port);
        int sent = 0;
        for (; sent < 200000 && floods[i].send(&c); sent++) {
            if (sent % 64 == 0) drop_all(&c);
            if (sent % 2000 == 0) good(&beside);
        }
        if (sent == 200000) fail_msg("a flood of %s was borne", floods[i].name);
        good(&beside);
        close(c.fd), c.fd = -1;
        c_close(&c);
    }
    SOON(counts().connections == 1 && counts().calls == 0);
    assert_in_range(counts().abuse, 6, 9); /* the others are errors of the protocol that nghttp2 answers */
    c_close(&beside);
    close_server();
}
/* Streams that are reset while their handlers work do not make room for more. */
static void test_resets_hold_places(void **state) {
    (void)state;
    open_server((struct lk_grpc_limits){.workers = 4, .streams = 10});
    struct client c = c_open(port);
    c_sync(&c);
    uint32_t s[40];
    held = true;
    for (int i = 0; i < 40; i++) {
        s[i] = c_begin(&c, "/t.T/Hold");
        c_message(&c, s[i], "x", 1, 0, true);
        if (i < 4) SOON(running == i + 1); /* one that no worker has yet is only passed over */
        c_frame(&c, F_RST, 0, s[i], "\0\0\0\x08", 4);
    }
    c_sync(&c);
    assert_int_equal(counts().started, 20); /* the others are refused, unheard, as the client has reset them */
    held = false;
    SOON(counts().calls == 0);
    good(&c);
    c_close(&c);
    close_server();
}
static void test_too_many_streams(void **state) {
    (void)state;
    open_server((struct lk_grpc_limits){.streams = 5});
    struct client c = c_open(port);
    c_sync(&c);
    for (int i = 0; i < 8; i++) c_begin(&c, "/t.T/One");
    c_drain(&c); /* our SETTINGS were acknowledged, so it knows better */
    assert_int_equal(c.goaway, NGHTTP2_PROTOCOL_ERROR);
    c_close(&c);
    SOON(counts().calls == 0);
    close_server();
}
/* 4 KB in the table, then a byte for each time it is named. */
static void test_header_bomb(void **state) {
    (void)state;
    open_server((struct lk_grpc_limits){0});
    struct client c = c_open(port), beside = c_open(port);
    struct lk_buf h = LK_BUF_INIT;
    char value[3900];
    memset(value, 'v', sizeof value - 1), value[sizeof value - 1] = 0;
    h_add(&h, ":method", "POST"), h_add(&h, ":scheme", "http"), h_add(&h, ":path", "/t.T/One");
    h_add(&h, "content-type", "application/grpc");
    size_t at = h.size;
    h_add(&h, "x", value);
    h.data[at] = 0x40; /* with indexing */
    for (int i = 0; i < 10000; i++) assert_int_equal(lk_buf_append(&h, "\xBE", 1), 0);
    assert_true(h.size < 16384);
    c_frame(&c, F_HEADERS, END_HEADERS, 1, h.data, h.size);
    c_wait(&c, 1);
    assert_true(c.closed || c_answer(&c, 1)->reset >= 0);
    good(&beside);
    lk_buf_release(&h);
    c_close(&c), c_close(&beside);
    close_server();
}

/* --- what is no HTTP/2 --- */

static void test_bad_bytes(void **state) {
    (void)state;
    static const struct {
        const char *name, *bytes;
        size_t size;
        bool preface;
        int64_t goaway; /* -1: any end will do */
    } cases[] = {
        {"HTTP/1.1", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 27, false, -1},
        {"rubbish", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03xxxxxxxxxxxxxxxxxxxxxxxx", 36, false, -1},
        {"data on 0", "\0\0\1\0\0\0\0\0\0x", 10, true, NGHTTP2_PROTOCOL_ERROR},
        {"data on an idle stream", "\0\0\1\0\0\0\0\0\5x", 10, true, NGHTTP2_PROTOCOL_ERROR},
        {"headers on an even stream", "\0\0\1\1\4\0\0\0\2\x82", 10, true, NGHTTP2_PROTOCOL_ERROR},
        {"a bad index", "\0\0\1\1\5\0\0\0\1\xFF", 10, true, NGHTTP2_COMPRESSION_ERROR},
        {"a frame of 1 MiB", "\x10\0\0\0\0\0\0\0\1", 9, true, NGHTTP2_FRAME_SIZE_ERROR},
        {"a ping of 7",
         "\0\0\7\6\0\0\0\0\0"
         "1234567",
         16, true, NGHTTP2_FRAME_SIZE_ERROR},
        {"settings of 5",
         "\0\0\5\4\0\0\0\0\0"
         "12345",
         14, true, NGHTTP2_FRAME_SIZE_ERROR},
        {"a window of 0", "\0\0\4\x08\0\0\0\0\0\0\0\0\0", 13, true, NGHTTP2_PROTOCOL_ERROR},
        {"a window that overflows", "\0\0\4\x08\0\0\0\0\0\x7F\xFF\xFF\xFF", 13, true, NGHTTP2_FLOW_CONTROL_ERROR},
        {"a push", "\0\0\5\5\4\0\0\0\1\0\0\0\2\x82", 14, true, NGHTTP2_PROTOCOL_ERROR},
        {"a reset of an idle stream", "\0\0\4\3\0\0\0\0\7\0\0\0\x08", 13, true, NGHTTP2_PROTOCOL_ERROR},
        {"padding beyond", "\0\0\2\1\x0D\0\0\0\1\xFF\x82", 11, true, NGHTTP2_PROTOCOL_ERROR},
        {"a continuation of nothing", "\0\0\1\x09\4\0\0\0\1\x82", 10, true, NGHTTP2_PROTOCOL_ERROR},
    };
    open_server((struct lk_grpc_limits){0});
    struct client beside = c_open(port);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct client c = c_new(c_socket(port));
        if (cases[i].preface) c_greet(&c, 65535);
        c_raw(&c, cases[i].bytes, cases[i].size);
        c_drain(&c);
        if (cases[i].goaway >= 0 && c.goaway != cases[i].goaway)
            fail_msg("%s: GOAWAY %lld", cases[i].name, (long long)c.goaway);
        c_close(&c);
    }
    good(&beside);
    c_close(&beside);
    SOON(counts().connections == 0);
    close_server();
}
/* Any bytes, before and behind a preface, whole and in pieces. */
static void test_random_bytes(void **state) {
    (void)state;
    struct test_random r = test_random_open("bytes");
    open_server((struct lk_grpc_limits){0});
    for (int i = 0; i < 200; i++) {
        struct client c = c_new(c_socket(port));
        uint8_t b[300];
        if (i % 4) c_greet(&c, 65535);
        for (int n = 0; n < 10; n++) {
            size_t size = test_random_below(&r, sizeof b);
            for (size_t k = 0; k < size; k++) b[k] = (uint8_t)test_random_u64(&r);
            if (i % 2 ? !c_frame(&c, (int)test_random_below(&r, 12), (int)b[0], test_random_below(&r, 4), b, size)
                      : !c_raw(&c, b, size))
                break;
        }
        close(c.fd), c.fd = -1;
        c_close(&c);
    }
    struct client c = c_open(port);
    good(&c);
    c_close(&c);
    SOON(counts().connections == 0 && counts().calls == 0);
    close_server();
}

/* --- time and places --- */

static void test_places(void **state) {
    (void)state;
    open_server((struct lk_grpc_limits){.connections = 6, .connections_per_client = 4});
    struct client c[5];
    for (int i = 0; i < 4; i++) c[i] = c_open(port), good(&c[i]);
    c[4] = c_new(c_socket(port));
    c_drain(&c[4]);
    assert_true(c[4].closed);
    for (int i = 0; i < 5; i++) c_close(&c[i]);
    SOON(counts().connections == 0);
    c[0] = c_open(port);
    good(&c[0]);
    c_close(&c[0]);
    assert_int_equal(counts().refused, 1);
    close_server();
}
static void test_slow(void **state) {
    (void)state;
    open_server((struct lk_grpc_limits){.handshake_ms = 100, .stall_ms = 200, .idle_ms = 300, .keepalive_ms = 150});
    uint64_t start = lk_clock_ns();
    struct client silent = c_new(c_socket(port)), half = c_new(c_socket(port)); /* say nothing, and a bit */
    c_raw(&half, PREFACE, 10);
    char text[256];
    while (recv(silent.fd, text, sizeof text, 0) > 0) {}
    while (recv(half.fd, text, sizeof text, 0) > 0) {}
    assert_in_range((lk_clock_ns() - start) / 1000000, 90, 3000);

    struct client drips = c_open(port); /* a request that does not go on */
    uint32_t s = c_begin(&drips, "/t.T/One");
    c_frame(&drips, F_DATA, 0, s, "\0\0\0\0\5a", 6);
    c_wait(&drips, s);
    assert_int_equal(c_answer(&drips, s)->reset, NGHTTP2_CANCEL);
    c_close(&drips);

    struct client zero = c_new(c_socket(port)); /* an answer that is not taken: no window */
    c_greet(&zero, 0);
    s = c_begin(&zero, "/t.T/Down");
    c_message(&zero, s, "", 0, 0, true);
    c_wait(&zero, s);
    assert_int_equal(c_answer(&zero, s)->reset, NGHTTP2_CANCEL);
    c_close(&zero);
    SOON(running == 0);

    struct client deaf = c_new(c_socket(port)); /* window enough, yet nothing is read */
    c_greet(&deaf, 100000000);
    uint8_t more[4];
    put32(more, 100000000);
    c_frame(&deaf, F_WINDOW, 0, 0, more, 4);
    c_message(&deaf, c_begin(&deaf, "/t.T/Down"), "", 0, 0, true);
    SOON(counts().calls == 0);

    struct client idle = c_open(port); /* answers pings, and then is asked to go */
    start = lk_clock_ns();
    c_drain(&idle);
    assert_int_equal(idle.goaway, NGHTTP2_NO_ERROR);
    assert_in_range((lk_clock_ns() - start) / 1000000, 250, 5000);
    c_close(&idle);
    struct client mute = c_open(port); /* answers no ping */
    SOON(counts().connections >= 1);
    SOON(counts().connections == 0);
    assert_in_range(counts().stalled, 4, 12);
    c_close(&silent), c_close(&half), c_close(&deaf), c_close(&mute);
    close_server();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_floods),           cmocka_unit_test(test_resets_hold_places),
        cmocka_unit_test(test_too_many_streams), cmocka_unit_test(test_header_bomb),
        cmocka_unit_test(test_bad_bytes),        cmocka_unit_test(test_random_bytes),
        cmocka_unit_test(test_places),           cmocka_unit_test(test_slow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
