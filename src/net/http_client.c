/* The client: callers put calls into a list, one thread of the client's gives them to libcurl and moves their bytes. */
#include "lockstep/net/http_client.h"
#include "lockstep/base/thread.h"
#include "net/http_curl.h"
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define CONNECTIONS  8
#define CONNECT_MS   10000
#define STALL_MS     20000
#define HEADER_LIMIT ((size_t)64 << 10)
#define ANSWER_LIMIT ((size_t)1 << 20)
#define BUFFER_BYTES (512L << 10) /* of a transfer, each way: the most that libcurl 7.88 takes */
#define SLOW_BYTES   1024L        /* a second */
#define POLL_MS      1000

struct lk_http_client {
    CURLM *multi;
    char *ca_file;
    bool direct;
    int connections;
    uint32_t connect_ms, stall_ms;
    size_t header_limit;
    pid_t process;
    pthread_t thread;
    pthread_mutex_t mutex; /* what follows; taken alone */
    pthread_cond_t over;
    bool started, closing;
    int calls;
    struct lk_http_call *fresh, *running; /* not yet libcurl's; libcurl's, linked both ways */
};

struct lk_http_call {
    struct lk_http_client *client;
    struct lk_http_call *next, **place; /* place: what points here, NULL outside of both lists */
    CURL *easy;
    struct curl_slist *headers;
    struct lk_http_request request; /* without its strings */
    bool cancelled, over;           /* under the client's mutex, as are next and place */
    /* The client's thread only, until it is over. */
    uint64_t sent, received;
    struct lk_buf head, body; /* head: lines, each ended by a zero byte */
    size_t head_bytes;
    int status, refused; /* refused: the code that a callback of ours ended it with */
    const char *why;
    char complaint[CURL_ERROR_SIZE], server[160];
    bool temporary;
    struct lk_err err;
    int code;
};

/* --- what libcurl calls ------------------------------------------------------------------------------------ */

static size_t refuse(struct lk_http_call *call, int code, const char *why) {
    call->refused = code;
    call->why = why;
    return 0;
}

static size_t on_header(char *data, size_t one, size_t size, void *arg) {
    struct lk_http_call *call = arg;
    size_t n = size * one;
    if ((call->head_bytes += n) > call->client->header_limit) return refuse(call, LK_EIO, "its headers are too long");
    if (n > 5 && memcmp(data, "HTTP/", 5) == 0) { /* of an interim answer (100 Continue) nothing stays */
        const char *space = memchr(data, ' ', n);
        call->head.size = 0;
        call->status = 0;
        for (int i = 1; space && i < 4 && space + i < data + n && space[i] >= '0' && space[i] <= '9'; i++)
            call->status = call->status * 10 + (space[i] - '0');
        return n;
    }
    size_t length = n;
    while (length && (data[length - 1] == '\n' || data[length - 1] == '\r')) length--;
    if (memchr(data, 0, length)) return refuse(call, LK_EIO, "a zero byte is in its headers");
    if (length && (lk_buf_append(&call->head, data, length) != 0 || lk_buf_append(&call->head, "", 1) != 0))
        return refuse(call, LK_ENOMEM, "no memory for its headers");
    return n;
}

static size_t on_body(char *data, size_t one, size_t size, void *arg) {
    struct lk_http_call *call = arg;
    size_t n = size * one;
    call->received += n;
    if (call->request.take && call->status >= 200 && call->status < 300)
        return call->request.take(call->request.arg, data, n) == 0 ? n : refuse(call, LK_EIO, "what it sent was refused");
    if (n > call->request.answer_limit - call->body.size) return refuse(call, LK_EIO, "its answer is too long");
    return lk_buf_append(&call->body, data, n) == 0 ? n : refuse(call, LK_ENOMEM, "no memory for its answer");
}

static size_t on_send(char *out, size_t one, size_t count, void *arg) {
    struct lk_http_call *call = arg;
    uint64_t left = call->request.body_size - call->sent;
    size_t n = one * count < left ? one * count : (size_t)left;
    if (n && call->request.give) {
        long given = call->request.give(call->request.arg, call->sent, out, n);
        if (given <= 0 || (size_t)given > n) {
            refuse(call, LK_EIO, "what was to be sent could not be read");
            return CURL_READFUNC_ABORT;
        }
        n = (size_t)given;
    } else if (n)
        memcpy(out, (const char *)call->request.body + call->sent, n);
    call->sent += n;
    return n;
}

static int on_seek(void *arg, curl_off_t offset, int origin) {
    struct lk_http_call *call = arg;
    if (origin != SEEK_SET || offset < 0 || (uint64_t)offset > call->request.body_size) return CURL_SEEKFUNC_FAIL;
    call->sent = (uint64_t)offset;
    return CURL_SEEKFUNC_OK;
}

/* --- the thread --------------------------------------------------------------------------------------------- */

static void link_in(struct lk_http_call **list, struct lk_http_call *call) {
    call->next = *list;
    call->place = list;
    if (call->next) call->next->place = &call->next;
    *list = call;
}
static void unlink_from(struct lk_http_call *call) {
    if (!call->place) return;
    *call->place = call->next;
    if (call->next) call->next->place = call->place;
    call->place = NULL;
}

static bool is_temporary(CURLcode code) {
    switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
    case CURLE_PARTIAL_FILE:
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_WEIRD_SERVER_REPLY:
        return true;
    default:
        return false;
    }
}

/* With the mutex held. libcurl no longer has it. */
static void end(struct lk_http_call *call, int code, const char *what, const char *why) {
    unlink_from(call);
    call->code = code;
    if (code) lk_fail(&call->err, code, "%s %s: %s", what, call->server, why);
    call->over = true;
    pthread_cond_broadcast(&call->client->over);
}

static void end_by(struct lk_http_call *call, CURLcode result) {
    if (result == CURLE_OK && call->status >= 100) {
        end(call, 0, "", "");
    } else if (call->refused) {
        end(call, call->refused, "the answer of", call->why);
    } else if (result == CURLE_OUT_OF_MEMORY) {
        end(call, LK_EIO, "no whole answer from", "a line of its headers is too long, or libcurl's memory is out");
    } else {
        call->temporary = is_temporary(result);
        const char *why = call->complaint[0] ? call->complaint : lk__net_curl.easy_strerror(result);
        end(call, LK_EIO, "no whole answer from", result == CURLE_OK ? "that is no HTTP" : why);
    }
}

/* Takes new calls to libcurl and cancelled ones away from it. */
static bool sort_calls(struct lk_http_client *c) {
    pthread_mutex_lock(&c->mutex);
    for (struct lk_http_call *call; (call = c->fresh);) {
        unlink_from(call);
        link_in(&c->running, call);
        if (lk__net_curl.multi_add_handle(c->multi, call->easy) != CURLM_OK)
            end(call, LK_ENOMEM, "cannot ask", "no memory");
    }
    for (struct lk_http_call *call = c->running, *next; call; call = next) {
        next = call->next;
        if (!call->cancelled) continue;
        lk__net_curl.multi_remove_handle(c->multi, call->easy);
        end(call, LK_ESTOPPED, "the request to", "cancelled");
    }
    bool closing = c->closing;
    pthread_mutex_unlock(&c->mutex);
    return !closing;
}

static void *move_bytes(void *arg) {
    struct lk_http_client *c = arg;
    while (sort_calls(c)) {
        int count;
        CURLMsg *m;
        lk__net_curl.multi_perform(c->multi, &count);
        while ((m = lk__net_curl.multi_info_read(c->multi, &count))) {
            struct lk_http_call *call = NULL;
            CURLcode result = m->data.result;
            if (m->msg != CURLMSG_DONE) continue;
            lk__net_curl.easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&call);
            lk__net_curl.multi_remove_handle(c->multi, call->easy);
            pthread_mutex_lock(&c->mutex);
            end_by(call, result);
            pthread_mutex_unlock(&c->mutex);
        }
        lk__net_curl.multi_poll(c->multi, NULL, 0, POLL_MS, NULL);
    }
    return NULL;
}

/* --- opening and closing ------------------------------------------------------------------------------------ */

int lk_http_client_open(const struct lk_http_client_options *o, struct lk_http_client **out, struct lk_err *err) {
    struct lk_http_client *c = lk_calloc(1, sizeof *c);
    *out = NULL;
    if (c && o->ca_file) c->ca_file = lk_strdup(o->ca_file);
    if (!c || (o->ca_file && !c->ca_file)) {
        lk_free(c);
        return lk_fail(err, LK_ENOMEM, "out of memory for an HTTP client");
    }
    c->direct = o->direct;
    c->connections = o->connections ? o->connections : CONNECTIONS;
    c->connect_ms = o->connect_ms ? o->connect_ms : CONNECT_MS;
    c->stall_ms = o->stall_ms ? o->stall_ms : STALL_MS;
    c->header_limit = o->header_limit ? o->header_limit : HEADER_LIMIT;
    pthread_mutex_init(&c->mutex, NULL);
    pthread_cond_init(&c->over, NULL);
    *out = c;
    return 0;
}

void lk_http_client_close(struct lk_http_client *c) {
    if (!c) return;
    pthread_mutex_lock(&c->mutex);
    LK_ASSERT(c->calls == 0);
    c->closing = true;
    pthread_mutex_unlock(&c->mutex);
    if (c->started) {
        lk__net_curl.multi_wakeup(c->multi);
        pthread_join(c->thread, NULL);
    }
    if (c->multi) lk__net_curl.multi_cleanup(c->multi);
    pthread_cond_destroy(&c->over);
    pthread_mutex_destroy(&c->mutex);
    lk_free(c->ca_file);
    lk_free(c);
}

/* With the first call. Under the mutex. */
static int start(struct lk_http_client *c, struct lk_err *err) {
    if (c->started) {
        LK_ASSERT(c->process == getpid()); /* the thread stays behind in a fork */
        return 0;
    }
    int code = lk__net_curl_load(err);
    if (code) return code;
    if (!c->multi && !(c->multi = lk__net_curl.multi_init())) return lk_fail(err, LK_ENOMEM, "out of memory for libcurl");
    lk__net_curl.multi_setopt(c->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, (long)c->connections);
    lk__net_curl.multi_setopt(c->multi, CURLMOPT_MAXCONNECTS, (long)c->connections);
    int failed = lk_thread_start(&c->thread, move_bytes, c);
    if (failed) return lk_fail(err, LK_EIO, "cannot start the HTTP client's thread: %s", strerror(failed));
    c->process = getpid();
    c->started = true;
    return 0;
}

/* --- a call ------------------------------------------------------------------------------------------------- */

static void call_destroy(struct lk_http_call *call) {
    if (call->easy) lk__net_curl.easy_cleanup(call->easy);
    if (call->headers) lk__net_curl.slist_free_all(call->headers);
    lk_buf_release(&call->head);
    lk_buf_release(&call->body);
    lk_free(call);
}

/* The server's part of a URL, for messages; no name and password may stand there. */
static int check_url(struct lk_http_call *call, const char *url, struct lk_err *err) {
    size_t scheme = strncmp(url, "https://", 8) == 0 ? 8 : strncmp(url, "http://", 7) == 0 ? 7 : 0;
    size_t n = scheme ? strcspn(url + scheme, "/?#") : 0;
    if (!n || n >= sizeof call->server - 8 || memchr(url + scheme, '@', n) || strpbrk(url, " \r\n\t"))
        return lk_fail(err, LK_EINVAL,
                       "that is no URL of a server: http:// or https://, a name, and no password are wanted");
    memcpy(call->server, url, scheme + n);
    return 0;
}

static int add_headers(struct lk_http_call *call, const char *const *headers, struct lk_err *err) {
    static const char *const ours[] = {"Expect:", "User-Agent: lockstep/" LK_VERSION};
    for (size_t i = 0; headers && headers[i]; i++)
        if (strpbrk(headers[i], "\r\n") || !strchr(headers[i], ':'))
            return lk_fail(err, LK_EINVAL, "header %zu of a request to %s is none", i + 1, call->server);
    for (size_t i = 0; i < 2 || (headers && headers[i - 2]); i++) {
        struct curl_slist *longer = lk__net_curl.slist_append(call->headers, i < 2 ? ours[i] : headers[i - 2]);
        if (!longer) return lk_fail(err, LK_ENOMEM, "out of memory for a request to %s", call->server);
        call->headers = longer;
    }
    return 0;
}

#define SET(option, value)                                                                                                 \
    if (lk__net_curl.easy_setopt(call->easy, option, value) != CURLE_OK)                                                   \
    return lk_fail(err, LK_ENOMEM, "libcurl refuses an option (" #option "); is it older than 7.85?")

static int set_method(struct lk_http_call *call, const struct lk_http_request *r, struct lk_err *err) {
    if (strcmp(r->method, "HEAD") == 0) {
        SET(CURLOPT_NOBODY, 1L);
        return 0;
    }
    bool sends = r->body_size || strcmp(r->method, "PUT") == 0 || strcmp(r->method, "POST") == 0;
    if (sends) {
        SET(CURLOPT_UPLOAD, 1L);
        SET(CURLOPT_INFILESIZE_LARGE, (curl_off_t)r->body_size);
        SET(CURLOPT_READFUNCTION, on_send);
        SET(CURLOPT_READDATA, call);
        SET(CURLOPT_SEEKFUNCTION, on_seek);
        SET(CURLOPT_SEEKDATA, call);
        SET(CURLOPT_UPLOAD_BUFFERSIZE, BUFFER_BYTES);
    }
    SET(CURLOPT_CUSTOMREQUEST, r->method);
    return 0;
}

static int set_options(struct lk_http_call *call, const struct lk_http_request *r, struct lk_err *err) {
    struct lk_http_client *c = call->client;
    SET(CURLOPT_PRIVATE, call);
    SET(CURLOPT_ERRORBUFFER, call->complaint);
    SET(CURLOPT_URL, r->url);
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
    SET(CURLOPT_FOLLOWLOCATION, 0L);
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1); /* several connections, each with its own window */
    SET(CURLOPT_SSL_VERIFYPEER, 1L);
    SET(CURLOPT_SSL_VERIFYHOST, 2L);
    if (c->ca_file) SET(CURLOPT_CAINFO, c->ca_file);
    if (c->direct) SET(CURLOPT_NOPROXY, "*");
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_CONNECTTIMEOUT_MS, (long)c->connect_ms);
    SET(CURLOPT_LOW_SPEED_LIMIT, SLOW_BYTES);
    SET(CURLOPT_LOW_SPEED_TIME, (long)(c->stall_ms + 999) / 1000);
    SET(CURLOPT_TIMEOUT_MS, (long)r->deadline_ms);
    SET(CURLOPT_BUFFERSIZE, BUFFER_BYTES);
    SET(CURLOPT_HTTPHEADER, call->headers);
    SET(CURLOPT_HEADERFUNCTION, on_header);
    SET(CURLOPT_HEADERDATA, call);
    SET(CURLOPT_WRITEFUNCTION, on_body);
    SET(CURLOPT_WRITEDATA, call);
    return set_method(call, r, err);
}

static int call_create(struct lk_http_client *c, const struct lk_http_request *r, struct lk_http_call **out,
                       struct lk_err *err) {
    struct lk_http_call *call = lk_calloc(1, sizeof *call);
    if (!call) return lk_fail(err, LK_ENOMEM, "out of memory for a request");
    call->client = c;
    call->request = *r;
    call->request.method = call->request.url = NULL;
    call->request.headers = NULL;
    if (!r->answer_limit) call->request.answer_limit = ANSWER_LIMIT;
    int code = check_url(call, r->url, err);
    if (!code) code = add_headers(call, r->headers, err);
    if (!code && !(call->easy = lk__net_curl.easy_init())) code = lk_fail(err, LK_ENOMEM, "out of memory for a request");
    if (!code) code = set_options(call, r, err);
    if (code)
        call_destroy(call);
    else
        *out = call;
    return code;
}

int lk_http_call_start(struct lk_http_client *c, const struct lk_http_request *r, struct lk_http_call **out,
                       struct lk_err *err) {
    *out = NULL;
    pthread_mutex_lock(&c->mutex);
    int code = start(c, err);
    pthread_mutex_unlock(&c->mutex);
    if (!code) code = call_create(c, r, out, err);
    if (code) return code;
    pthread_mutex_lock(&c->mutex);
    link_in(&c->fresh, *out);
    c->calls++;
    pthread_mutex_unlock(&c->mutex);
    lk__net_curl.multi_wakeup(c->multi);
    return 0;
}

int lk_http_call_wait(struct lk_http_call *call, struct lk_err *err) {
    pthread_mutex_lock(&call->client->mutex);
    while (!call->over) pthread_cond_wait(&call->client->over, &call->client->mutex);
    pthread_mutex_unlock(&call->client->mutex);
    return call->code ? lk_fail(err, call->code, "%s", call->err.message) : 0;
}

bool lk_http_call_over(struct lk_http_call *call) {
    pthread_mutex_lock(&call->client->mutex);
    bool over = call->over;
    pthread_mutex_unlock(&call->client->mutex);
    return over;
}

void lk_http_call_cancel(struct lk_http_call *call) {
    pthread_mutex_lock(&call->client->mutex);
    call->cancelled = true;
    pthread_mutex_unlock(&call->client->mutex);
    lk__net_curl.multi_wakeup(call->client->multi);
}

void lk_http_call_free(struct lk_http_call *call) {
    if (!call) return;
    struct lk_http_client *c = call->client;
    if (!lk_http_call_over(call)) {
        lk_http_call_cancel(call);
        lk_http_call_wait(call, NULL);
    }
    call_destroy(call);
    pthread_mutex_lock(&c->mutex);
    c->calls--;
    pthread_mutex_unlock(&c->mutex);
}

int lk_http_call_status(const struct lk_http_call *call) {
    return call->status;
}

const char *lk_http_call_header(struct lk_http_call *call, const char *name) {
    size_t n = strlen(name);
    if (!call->head.size) return NULL;
    for (char *line = call->head.data, *stop = line + call->head.size; line < stop; line += strlen(line) + 1) {
        if (strncasecmp(line, name, n) != 0 || line[n] != ':') continue;
        char *value = line + n + 1;
        return value + strspn(value, " \t");
    }
    return NULL;
}

struct lk_bytes lk_http_call_body(const struct lk_http_call *call) {
    return lk_bytes(call->body.data ? call->body.data : "", call->body.size);
}
uint64_t lk_http_call_received(const struct lk_http_call *call) {
    return call->received;
}
bool lk_http_call_temporary(const struct lk_http_call *call) {
    return call->temporary;
}
