/* The client against a server that answers badly. */
#include "lockstep/base/progress.h"
#include "lockstep/net/http_client.h"
#include "net/hostile.h"

static struct hostile server;
static atomic_int drips;

/* /N...: what the first digit says. */
static bool handle(struct hostile_request *r) {
    char value[64];
    if (strcmp(r->target, "/echo") == 0) {
        char fields[128];
        snprintf(fields, sizeof fields, "X-Method: %s\r\nX-Had:   %s\r\n", r->method,
                 hostile_header(r, "X-Mine", value, sizeof value) ? value : "none");
        hostile_answer(r, 200, fields, r->body, r->body_size);
    } else if (strcmp(r->target, "/large") == 0) {
        char *body = calloc(1, 3 << 20);
        hostile_answer(r, 200, "", body, 3 << 20);
        free(body);
    } else if (strcmp(r->target, "/short") == 0) {
        hostile_say(r, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this");
        return false;
    } else if (strcmp(r->target, "/reset") == 0) {
        hostile_reset(r);
        return false;
    } else if (strcmp(r->target, "/rubbish") == 0) {
        hostile_say(r, "this is no HTTP at all\r\n\r\n");
        return false;
    } else if (strcmp(r->target, "/headers") == 0) {
        hostile_say(r, "HTTP/1.1 200 OK\r\n");
        for (int i = 0; i < 100000 && !server.closing; i++) {
            char line[64];
            ssize_t n = send(r->fd, line, (size_t)snprintf(line, sizeof line, "X-%d: %d\r\n", i, i), MSG_NOSIGNAL);
            if (n <= 0) break;
        }
        return false;
    } else if (strcmp(r->target, "/line") == 0) {
        hostile_say(r, "HTTP/1.1 200 OK\r\nX: ");
        for (int i = 0; i < 2000000; i++)
            if (send(r->fd, "abcdefghijklmnop", 16, MSG_NOSIGNAL) <= 0) break;
        return false;
    } else if (strcmp(r->target, "/drip") == 0) {
        hostile_say(r, "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
        while (send(r->fd, "x", 1, MSG_NOSIGNAL) == 1 && !server.closing) drips += usleep(20000) == 0;
        return false;
    } else if (strcmp(r->target, "/silent") == 0) {
        while (recv(r->fd, value, 1, 0) > 0) {}
        return false;
    } else if (strcmp(r->target, "/moved") == 0) {
        hostile_answer(r, 301, "Location: /echo\r\n", "no", 2);
    } else
        hostile_answer(r, 404, "", r->target, strlen(r->target));
    return true;
}

static int setup(void **state) {
    (void)state;
    static const char *const proxies[] = {"http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY", "ALL_PROXY"};
    for (size_t i = 0; i < sizeof proxies / sizeof *proxies; i++) unsetenv(proxies[i]);
    hostile_open(&server, handle, NULL);
    return 0;
}
static int teardown(void **state) {
    (void)state;
    hostile_close(&server);
    return 0;
}

static struct lk_http_client *client_of(struct lk_http_client_options o) {
    struct lk_http_client *c;
    OK(lk_http_client_open(&o, &c, &test_err));
    return c;
}
static struct lk_http_call *start(struct lk_http_client *c, const char *path, struct lk_http_request r) {
    char url[256];
    struct lk_http_call *call;
    snprintf(url, sizeof url, "%s%s", server.url, path);
    r.url = url;
    if (!r.method) r.method = "GET";
    OK(lk_http_call_start(c, &r, &call, &test_err));
    return call;
}

static void a_body_there_and_back(void **state) {
    struct lk_http_client *c = client_of((struct lk_http_client_options){0});
    static const char *const methods[] = {"PUT", "POST"};
    const char *headers[] = {"X-Mine: a value", NULL};
    size_t size = 700000;
    char *data = lk_alloc(size);
    (void)state;
    for (size_t i = 0; i < size; i++) data[i] = (char)(i * 2654435761u >> 24);
    for (int i = 0; i < 6; i++) {
        struct lk_http_call *call =
            start(c, "/echo",
                  (struct lk_http_request){
                      .method = methods[i % 2], .headers = headers, .body = data, .body_size = i < 2 ? 0 : size});
        OK(lk_http_call_wait(call, &test_err));
        assert_true(lk_http_call_over(call));
        assert_int_equal(lk_http_call_status(call), 200);
        assert_string_equal(lk_http_call_header(call, "x-method"), methods[i % 2]);
        assert_string_equal(lk_http_call_header(call, "X-HAD"), "a value");
        assert_null(lk_http_call_header(call, "x-meth"));
        assert_int_equal(lk_http_call_body(call).size, i < 2 ? 0 : size);
        assert_memory_equal(lk_http_call_body(call).data, data, i < 2 ? 0 : size);
        lk_http_call_free(call);
    }
    lk_free(data);
    lk_http_client_close(c);
    assert_true(server.connections >= 1 && server.requests >= 6);
}

struct stream {
    uint64_t given, taken;
    int limit;
};
static long give(void *arg, uint64_t offset, void *out, size_t size) {
    struct stream *s = arg;
    if (s->limit && offset >= (uint64_t)s->limit) return -1;
    for (size_t i = 0; i < size; i++) ((unsigned char *)out)[i] = (unsigned char)((offset + i) * 7);
    s->given += size;
    return (long)size;
}
static int take(void *arg, const void *data, size_t size) {
    struct stream *s = arg;
    for (size_t i = 0; i < size; i++)
        if (((const unsigned char *)data)[i] != (unsigned char)((s->taken + i) * 7)) return -1;
    s->taken += size;
    return 0;
}
static void bodies_by_callbacks(void **state) {
    struct lk_http_client *c = client_of((struct lk_http_client_options){0});
    struct stream s = {0};
    (void)state;
    struct lk_http_request r = {.method = "PUT", .give = give, .take = take, .arg = &s, .body_size = 5000000};
    struct lk_http_call *call = start(c, "/echo", r);
    OK(lk_http_call_wait(call, &test_err));
    assert_int_equal(s.taken, 5000000);
    assert_int_equal(lk_http_call_received(call), 5000000);
    assert_int_equal(lk_http_call_body(call).size, 0);
    lk_http_call_free(call);
    s = (struct stream){.limit = 100000}; /* what is sent fails in the middle */
    call = start(c, "/echo", r);
    FAILS(lk_http_call_wait(call, &test_err), LK_EIO, "could not be read");
    assert_false(lk_http_call_temporary(call));
    lk_http_call_free(call);
    s = (struct stream){.taken = 1}; /* what comes is refused */
    call = start(c, "/echo", r);
    FAILS(lk_http_call_wait(call, &test_err), LK_EIO, "was refused");
    lk_http_call_free(call);
    s = (struct stream){0}; /* a message is not given to who waits for content */
    call = start(c, "/nothing", (struct lk_http_request){.take = take, .arg = &s});
    OK(lk_http_call_wait(call, &test_err));
    assert_int_equal(lk_http_call_status(call), 404);
    assert_int_equal(s.taken, 0);
    assert_string_equal(lk_http_call_body(call).data, "/nothing");
    lk_http_call_free(call);
    lk_http_client_close(c);
}

static void bad_answers(void **state) {
    static const struct {
        const char *path, *part;
        bool temporary;
    } cases[] = {{"/short", "no whole answer from http://127.0.0.1", true},
                 {"/reset", "no whole answer", true},
                 {"/rubbish", "no whole answer", false},
                 {"/headers", "headers are too long", false},
                 {"/large", "answer is too long", false},
                 {"/line", "line of its headers is too long", false}};
    struct lk_http_client *c = client_of((struct lk_http_client_options){0});
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct lk_http_call *call = start(c, cases[i].path, (struct lk_http_request){0});
        FAILS(lk_http_call_wait(call, &test_err), LK_EIO, cases[i].part);
        assert_null(strstr(test_err.message, cases[i].path));
        assert_int_equal(lk_http_call_temporary(call), cases[i].temporary);
        FAILS(lk_http_call_wait(call, &test_err), LK_EIO, cases[i].part); /* again */
        lk_http_call_free(call);
    }
    struct lk_http_call *call = start(c, "/moved", (struct lk_http_request){0});
    OK(lk_http_call_wait(call, &test_err));
    assert_int_equal(lk_http_call_status(call), 301); /* nothing is followed */
    lk_http_call_free(call);
    lk_http_client_close(c);
}

static void slow_servers(void **state) {
    struct lk_http_client *c = client_of((struct lk_http_client_options){.stall_ms = 1000});
    uint64_t began = lk_clock_ns();
    (void)state;
    struct lk_http_call *drip = start(c, "/drip", (struct lk_http_request){0});
    struct lk_http_call *silent = start(c, "/silent", (struct lk_http_request){.deadline_ms = 300});
    struct lk_http_call *cancelled = start(c, "/silent", (struct lk_http_request){0});
    FAILS(lk_http_call_wait(silent, &test_err), LK_EIO, "timed out");
    assert_true(lk_http_call_temporary(silent));
    assert_false(lk_http_call_over(cancelled));
    lk_http_call_cancel(cancelled);
    FAILS(lk_http_call_wait(cancelled, &test_err), LK_ESTOPPED, "cancelled");
    FAILS(lk_http_call_wait(drip, &test_err), LK_EIO, "");
    assert_true(lk_http_call_temporary(drip));
    assert_true(drips > 0);
    assert_true(lk_clock_ns() - began < 8000000000);
    lk_http_call_free(drip);
    lk_http_call_free(silent);
    lk_http_call_free(cancelled);
    lk_http_call_free(start(c, "/silent", (struct lk_http_request){0})); /* ends it */
    lk_http_client_close(c);
}

static void nobody_there(void **state) {
    struct lk_http_client *c = client_of((struct lk_http_client_options){.connect_ms = 2000});
    struct lk_http_request r = {.method = "GET", .url = "http://127.0.0.1:1/x?secret=1"};
    struct lk_http_call *call;
    (void)state;
    OK(lk_http_call_start(c, &r, &call, &test_err));
    FAILS(lk_http_call_wait(call, &test_err), LK_EIO, "http://127.0.0.1:1: ");
    assert_null(strstr(test_err.message, "secret"));
    assert_true(lk_http_call_temporary(call));
    lk_http_call_free(call);
    static const char *const bad[] = {"ftp://h/", "http://", "http://u:p@h/", "file:///etc/passwd", "http://h/a b", "h"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        r.url = bad[i];
        FAILS(lk_http_call_start(c, &r, &call, &test_err), LK_EINVAL, "no URL of a server");
    }
    r.url = "http://127.0.0.1:1/";
    static const char *const headers[][2] = {{"A: b\r\nHost: c", NULL}, {"no colon", NULL}};
    for (int i = 0; i < 2; i++) {
        r.headers = headers[i];
        FAILS(lk_http_call_start(c, &r, &call, &test_err), LK_EINVAL, "header 1");
    }
    lk_http_client_close(c);
    lk_http_client_close(NULL);
}

/* More calls than connections, from several threads. */
static void *ask_many(void *arg) {
    struct lk_http_client *c = arg;
    struct lk_http_call *calls[20];
    char body[64];
    for (int i = 0; i < 20; i++)
        calls[i] = start(c, "/echo", (struct lk_http_request){.method = "PUT", .body = body, .body_size = (size_t)i});
    for (int i = 0; i < 20; i++) {
        if (i % 7 == 3) lk_http_call_cancel(calls[i]);
        if (lk_http_call_wait(calls[i], NULL) == 0 && lk_http_call_body(calls[i]).size != (size_t)i) abort();
        lk_http_call_free(calls[i]);
    }
    return NULL;
}
static void many_at_once(void **state) {
    struct lk_http_client *c = client_of((struct lk_http_client_options){.connections = 3});
    pthread_t threads[4];
    (void)state;
    for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&threads[i], NULL, ask_many, c), 0);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    lk_http_client_close(c);
}

static int ask_once(struct lk_http_client *c) {
    struct lk_http_call *call;
    char url[128];
    snprintf(url, sizeof url, "%s/echo", server.url);
    struct lk_http_request r = {.method = "PUT", .url = url, .body = "abc", .body_size = 3};
    int code = lk_http_call_start(c, &r, &call, &test_err);
    if (code) return code;
    code = lk_http_call_wait(call, &test_err);
    lk_http_call_free(call);
    return code;
}
static void no_memory(void **state) {
    struct lk_http_client_options o = {.ca_file = "x"};
    struct lk_http_client *c;
    (void)state;
    FAIL_EACH_ALLOCATION(lk_http_client_open(&o, &c, &test_err));
    lk_http_client_close(c);
    c = client_of((struct lk_http_client_options){0});
    FAIL_EACH_ALLOCATION(ask_once(c));
    lk_http_client_close(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_body_there_and_back),
        cmocka_unit_test(bodies_by_callbacks),
        cmocka_unit_test(bad_answers),
        cmocka_unit_test(slow_servers),
        cmocka_unit_test(nobody_there),
        cmocka_unit_test(many_at_once),
        cmocka_unit_test(no_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
