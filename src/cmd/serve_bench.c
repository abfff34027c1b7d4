/* lockstep serve bench: load on a server that speaks OpenAI's API, and what its clients see. */
#include "cmd.h"

#include "lockstep/base/file.h"
#include "lockstep/base/json.h"
#include <errno.h>
#include <netdb.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct {
    uint32_t streams, requests, prompt, shared, tokens, first;
    const char *model, *key, *schema;
    bool json_object;
    double temperature;
    struct lk_buf format; /* a member that constrains the answers, or nothing */
} wanted;

static struct { char host[256], port[8], path[256]; } server;

/* What the clients have seen, under the mutex. */
static struct {
    pthread_mutex_t mutex;
    double *first, *between; /* seconds */
    size_t first_count, between_count, between_capacity;
    uint64_t tokens, failed;
    char problem[256];
} seen;
static atomic_uint next_request;

static double now_s(void) {
    return 1e-9 * (double)lk_clock_ns();
}

/* http://HOST:PORT/... */
static int read_url(const struct cmd_context *c, const char *url) {
    const char *at = strncmp(url, "http://", 7) ? NULL : url + 7, *slash = at ? strchr(at, '/') : NULL,
               *colon = at ? strchr(at, ':') : NULL;
    size_t n = at ? slash ? (size_t)(slash - at) : strlen(at) : 0,
           host = colon && (!slash || colon < slash) ? (size_t)(colon - at) : n;
    if (!at || !host || host >= sizeof server.host || n - host > sizeof server.port)
        return cmd_usage_error(c, "%s is no address as http://127.0.0.1:8080", url);
    memcpy(server.host, at, host);
    snprintf(server.port, sizeof server.port, "%.*s", host < n ? (int)(n - host - 1) : 2, host < n ? at + host + 1 : "80");
    const char *rest = slash ? slash : "";
    size_t length = strlen(rest);
    while (length && rest[length - 1] == '/') length--;
    if (length >= 3 && !memcmp(rest + length - 3, "/v1", 3)) length -= 3;
    snprintf(server.path, sizeof server.path, "%.*s/v1/completions", (int)(length < 200 ? length : 200), rest);
    return CMD_OK;
}

/* "response_format": what OpenAI's clients send. */
static int take_format(struct lk_err *err) {
    struct lk_buf schema = LK_BUF_INIT;
    int code = wanted.schema ? lk_file_read(wanted.schema, 1 << 20, &schema, err) : LK_OK;
    if (code) return code;
    if (wanted.schema)
        code = lk_buf_printf(&wanted.format,
                             ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"bench\","
                             "\"strict\":true,\"schema\":%.*s}}",
                             (int)schema.size, schema.data);
    else if (wanted.json_object)
        code = lk_buf_printf(&wanted.format, ",\"response_format\":{\"type\":\"json_object\"}");
    lk_buf_release(&schema);
    return code ? lk_fail(err, LK_ENOMEM, "no memory for a schema") : LK_OK;
}

static int connect_to(void) {
    struct addrinfo wish = {.ai_socktype = SOCK_STREAM}, *all = NULL;
    if (getaddrinfo(server.host, server.port, &wish, &all)) return errno = EHOSTUNREACH, -1;
    int fd = -1;
    for (struct addrinfo *a = all; a && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen)) close(fd), fd = -1;
    }
    freeaddrinfo(all);
    return fd;
}

static void problem(const char *format, const char *detail) {
    pthread_mutex_lock(&seen.mutex);
    if (!seen.failed++) snprintf(seen.problem, sizeof seen.problem, format, detail);
    pthread_mutex_unlock(&seen.mutex);
}

/* Ids that every tokenizer over bytes has; the first `shared` ones are the same for all. */
static int request_of(uint32_t number, struct lk_buf *out) {
    struct lk_buf body = LK_BUF_INIT;
    uint32_t state = number * 2654435761u + 1, same = wanted.first * 2654435761u + 12345;
    int bad = lk_buf_printf(&body, "{\"prompt\":[");
    for (uint32_t i = 0; i < wanted.prompt; i++) {
        uint32_t *s = i < wanted.shared ? &same : &state;
        *s = *s * 1664525u + 1013904223u;
        bad |= lk_buf_printf(&body, "%s%u", i ? "," : "", 10 + (*s >> 8) % 240);
    }
    bad |= lk_buf_printf(&body,
                         "],\"max_tokens\":%u,\"temperature\":%g,\"seed\":%u,\"stream\":true,%s"
                         "\"stream_options\":{\"include_usage\":true}%.*s%s%s%s}",
                         wanted.tokens, wanted.temperature, number, wanted.format.size ? "" : "\"ignore_eos\":true,",
                         (int)wanted.format.size, wanted.format.size ? wanted.format.data : "",
                         wanted.model ? ",\"model\":\"" : "", wanted.model ? wanted.model : "", wanted.model ? "\"" : "");
    bad |= lk_buf_printf(out,
                         "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nConnection: "
                         "close\r\n%s%s%sContent-Length: %zu\r\n\r\n",
                         server.path, server.host, wanted.key ? "Authorization: Bearer " : "", wanted.key ? wanted.key : "",
                         wanted.key ? "\r\n" : "", body.size);
    bad |= lk_buf_append(out, body.data, body.size);
    lk_buf_release(&body);
    return bad;
}

static void add_first(double s) {
    pthread_mutex_lock(&seen.mutex);
    seen.first[seen.first_count++] = s;
    pthread_mutex_unlock(&seen.mutex);
}
static void add_between(double s) {
    pthread_mutex_lock(&seen.mutex);
    if (seen.between_count == seen.between_capacity) {
        size_t more = seen.between_capacity ? 2 * seen.between_capacity : 4096;
        double *p = lk_realloc(seen.between, more * sizeof *p);
        if (p) seen.between = p, seen.between_capacity = more;
    }
    if (seen.between_count < seen.between_capacity) seen.between[seen.between_count++] = s;
    pthread_mutex_unlock(&seen.mutex);
}

/* Each event with text is a token, or a few where the server held them back. */
static void hear_line(const char *line, double began, double *last) {
    const char *text = strstr(line, "\"text\":\""), *usage = strstr(line, "\"completion_tokens\":");
    if (usage) {
        pthread_mutex_lock(&seen.mutex);
        seen.tokens += strtoull(usage + 20, NULL, 10);
        pthread_mutex_unlock(&seen.mutex);
    }
    if (!text || text[8] == '"') return;
    double now = now_s();
    if (*last == 0)
        add_first(now - began);
    else
        add_between(now - *last);
    *last = now;
}

static void one_request(uint32_t number) {
    struct lk_buf out = LK_BUF_INIT, in = LK_BUF_INIT;
    char piece[16384];
    double began = now_s(), last = 0;
    bool over = false;
    int fd = connect_to();
    ssize_t n = 0;
    if (fd < 0) return problem("cannot connect: %s", strerror(errno));
    bool sent = !request_of(number, &out);
    for (size_t at = 0; sent && at < out.size; at += (size_t)n)
        sent = (n = send(fd, out.data + at, out.size - at, MSG_NOSIGNAL)) > 0;
    while (sent && (n = recv(fd, piece, sizeof piece, 0)) > 0) {
        if (lk_buf_append(&in, piece, (size_t)n)) break;
        char *line = in.data, *end;
        for (; (end = memchr(line, '\n', in.size - (size_t)(line - in.data))); line = end + 1) {
            *end = 0;
            if (!strncmp(line, "data: [DONE]", 12)) over = true;
            if (!strncmp(line, "data: {", 7)) hear_line(line, began, &last);
            if (!strncmp(line, "HTTP/1.1 ", 9) && strncmp(line + 9, "200", 3)) problem("the server says %s", line + 9);
        }
        in.size -= (size_t)(line - in.data);
        memmove(in.data, line, in.size);
    }
    if (!over) problem("an answer ended early%s", "");
    close(fd);
    lk_buf_release(&out);
    lk_buf_release(&in);
}
static void *client(void *arg) {
    (void)arg;
    for (uint32_t n; (n = next_request++) < wanted.requests && !cmd_interrupted();) one_request(wanted.first + n);
    return NULL;
}

/* --- What is told ---------------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static double share(const double *sorted, size_t count, double p) {
    return count ? sorted[(size_t)(p * (double)(count - 1) + 0.5)] : 0;
}
static json_t *percentiles(double *x, size_t count, const char *what, bool print) {
    if (count) qsort(x, count, sizeof *x, by_value);
    double p50 = share(x, count, 0.5) * 1e3, p90 = share(x, count, 0.9) * 1e3, p99 = share(x, count, 0.99) * 1e3,
           most = share(x, count, 1) * 1e3;
    if (print) printf("%-22s p50 %8.1f   p90 %8.1f   p99 %8.1f   worst %8.1f ms\n", what, p50, p90, p99, most);
    return json_pack("{s:f, s:f, s:f, s:f}", "p50_ms", p50, "p90_ms", p90, "p99_ms", p99, "worst_ms", most);
}

static int bench(struct cmd_context *c) {
    pthread_t threads[1024];
    uint32_t started = 0;
    struct lk_err err = {0};
    if (read_url(c, c->arguments[0])) return CMD_USAGE;
    if (wanted.schema && wanted.json_object) return cmd_usage_error(c, "--schema and --json-object do not go together");
    if (take_format(&err)) return cmd_fail(&err);
    pthread_mutex_init(&seen.mutex, NULL);
    seen.first = lk_calloc(wanted.requests, sizeof *seen.first);
    if (!seen.first) return cmd_fail(&(struct lk_err){LK_ENOMEM, "no memory for so many requests"});
    cmd_catch_signals();
    double began = now_s();
    for (; started < wanted.streams; started++)
        if (lk_thread_start(&threads[started], client, NULL)) break;
    for (uint32_t i = 0; i < started; i++) pthread_join(threads[i], NULL);
    double took = now_s() - began;
    if (!c->json)
        printf("%u streams, %zu of %u requests answered, %u tokens of prompt, %u drawn: %.1f s\n%.1f tokens/s drawn, %.1f "
               "read\n",
               started, seen.first_count, wanted.requests, wanted.prompt, wanted.tokens, took, (double)seen.tokens / took,
               (double)seen.first_count * wanted.prompt / took);
    json_t *first = percentiles(seen.first, seen.first_count, "time to first token", !c->json),
           *between = percentiles(seen.between, seen.between_count, "between tokens", !c->json);
    if (c->json)
        cmd_print_json(json_pack("{s:I, s:I, s:I, s:f, s:f, s:O, s:O}", "streams", (json_int_t)started, "answered",
                                 (json_int_t)seen.first_count, "failed", (json_int_t)seen.failed, "seconds", took,
                                 "tokens_per_second", (double)seen.tokens / took, "first", first, "between", between));
    json_decref(first);
    json_decref(between);
    lk_free(seen.first);
    lk_free(seen.between);
    lk_buf_release(&wanted.format);
    if (!seen.failed) return CMD_OK;
    lk_fail(&err, LK_EIO, "%llu requests failed; the first: %s", (unsigned long long)seen.failed, seen.problem);
    return cmd_fail(&err);
}
const struct cmd cmd_serve_bench = {
    "serve bench",
    "URL",
    1,
    1,
    "Put load on a server of OpenAI's API, and tell what its clients see.",
    (const struct cmd_option[]){
        CMD_U32("--streams", "N", &wanted.streams, 1, 1024, "8", "requests at the same time"),
        CMD_U32("--requests", "N", &wanted.requests, 1, 1000000, "64", "in all"),
        CMD_U32("--prompt", "N", &wanted.prompt, 1, 1000000, "512", "tokens of each prompt, drawn by chance"),
        CMD_U32("--shared", "N", &wanted.shared, 0, 1000000, "0", "of them the same in all requests, at the beginning"),
        CMD_U32("--tokens", "N", &wanted.tokens, 1, 1000000, "64", "drawn for each"),
        CMD_U32("--first", "N", &wanted.first, 0, 4000000000u, "0",
                "number of the first request: of other numbers, also the shared tokens are others"),
        CMD_STRING("--schema", "FILE", &wanted.schema, NULL, "answers satisfy this JSON Schema"),
        CMD_FLAG("--json-object", &wanted.json_object, "answers are JSON objects"),
        CMD_F64("--temperature", "X", &wanted.temperature, 0, 1000, "0.8", "of the draws"),
        CMD_STRING("--model", "NAME", &wanted.model, NULL, "which; may be left out where the server has one"),
        CMD_STRING("--key", "KEY", &wanted.key, NULL, "an API key"), CMD_END},
    "Works with any server of that API that takes prompts of ids; --json for machines.",
    bench};
