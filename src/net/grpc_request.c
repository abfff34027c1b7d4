/* What a client sends: headers are checked, messages put together, calls handed to their handlers. All by the role. */
#include "net/grpc_inside.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GROW ((size_t)64 << 10)

void lk__grpc_refuse(struct lk_grpc_call *call, int http_status, enum lk_grpc_status status, const char *text) {
    struct lk_grpc_server *s = call->server;
    pthread_mutex_lock(&s->mutex);
    if (!call->over) call->http_status = http_status, call->cancelled = true; /* a handler that runs learns it */
    call->in_broken = true;
    lk__grpc_call_finish(call, status, text, lk_bytes(NULL, 0));
    pthread_mutex_unlock(&s->mutex);
}

static bool is(const char *name, size_t size, const char *wanted) {
    return strlen(wanted) == size && !memcmp(name, wanted, size);
}
/* "application/grpc", "application/grpc+proto", "application/grpc; ..." */
static bool grpc_type(const char *value, size_t size) {
    size_t n = strlen("application/grpc");
    return size >= n && !memcmp(value, "application/grpc", n) &&
           (size == n || value[n] == '+' || value[n] == ';' || value[n] == ' ');
}
static bool has_gzip(const char *list, size_t size) {
    for (size_t i = 0; i + 4 <= size; i++)
        if (!memcmp(list + i, "gzip", 4) && (i == 0 || list[i - 1] == ',' || list[i - 1] == ' ') &&
            (i + 4 == size || list[i + 4] == ',' || list[i + 4] == ' '))
            return true;
    return false;
}

int lk__grpc_request_field(struct lk_grpc_call *call, const char *name, size_t name_size, const char *value, size_t size) {
    if (name[0] == ':') {
        if (is(name, name_size, ":path") && !(call->path = lk_strndup(value, size))) return LK_ENOMEM;
        if (is(name, name_size, ":method")) call->post = is(value, size, "POST");
        return LK_OK;
    }
    if (is(name, name_size, "content-type")) call->typed = grpc_type(value, size);
    if (is(name, name_size, "grpc-accept-encoding")) call->gzip_out |= has_gzip(value, size);
    return lk__grpc_field_add(&call->fields, name, name_size, value, size);
}

static int by_path(const void *path, const void *method) {
    return strcmp(path, ((const struct lk__grpc_method *)method)->m.path);
}
static bool authorized(struct lk_grpc_call *call) {
    struct lk_grpc_server *s = call->server;
    struct lk_err err = {0};
    enum lk_grpc_status status = s->authorize ? s->authorize(s->arg, call, &call->who, &err) : LK_GRPC_OK;
    if (status) lk__grpc_refuse(call, 200, status, err.message);
    return !status;
}
static bool encoding_known(struct lk_grpc_call *call) {
    const char *encoding = lk_grpc_metadata(call, "grpc-encoding", 0);
    call->gzip_in = encoding && !strcmp(encoding, "gzip");
    return !encoding || call->gzip_in || !strcmp(encoding, "identity");
}
static void set_timer(struct lk_grpc_call *call, uint64_t now_ns) {
    uint64_t stall = now_ns + (uint64_t)call->server->limits.stall_ms * LK__GRPC_MS / 4 + 1;
    lk__grpc_timer_set(&call->server->wheel, &call->timer, call->due_ns < stall ? call->due_ns : stall);
}
static bool accepted(struct lk_grpc_call *call) {
    struct lk_grpc_server *s = call->server;
    const char *timeout;
    uint64_t ns = 0;
    if (call->refused)
        lk__grpc_refuse(call, 200, LK_GRPC_RESOURCE_EXHAUSTED, "the call's headers are too large");
    else if (!call->post || !call->typed)
        call->foreign = true; /* what is no gRPC is answered as HTTP has it, when it is whole */
    else if (!(call->method = bsearch(call->path, s->methods, s->method_count, sizeof *s->methods, by_path)))
        lk__grpc_refuse(call, 200, LK_GRPC_UNIMPLEMENTED, "this server has no such method");
    else if ((timeout = lk_grpc_metadata(call, "grpc-timeout", 0)) && !lk__grpc_timeout(timeout, &ns))
        lk__grpc_refuse(call, 200, LK_GRPC_INTERNAL, "grpc-timeout can't be read: one to eight digits and one of HMSmun");
    else if (!encoding_known(call))
        lk__grpc_refuse(call, 200, LK_GRPC_UNIMPLEMENTED, "messages can be compressed by gzip only");
    else {
        if (timeout) call->deadline_ns = call->due_ns = s->now_ns + ns, set_timer(call, s->now_ns);
        return authorized(call);
    }
    return false;
}

static bool streams_in(const struct lk_grpc_call *call) {
    return call->method->m.kind == LK_GRPC_CLIENT_STREAM || call->method->m.kind == LK_GRPC_BIDI;
}
static void hand_over(struct lk_grpc_call *call) {
    if (call->method->watch) return lk__grpc_watch(call);
    lk__grpc_ready(call);
}
void lk__grpc_request_headers(struct lk_grpc_call *call) {
    struct lk_grpc_server *s = call->server;
    call->header_end = true;
    set_timer(call, s->now_ns);
    if (!accepted(call)) return;
    pthread_mutex_lock(&s->mutex);
    s->counts.started++;
    lk__grpc_metrics_started(call);
    bool full = s->ready.count + s->quick.count >= s->limits.waiting;
    pthread_mutex_unlock(&s->mutex);
    if (full)
        lk__grpc_refuse(call, 200, LK_GRPC_UNAVAILABLE, "too many calls wait: try again later");
    else if (streams_in(call))
        hand_over(call);
}

/* --- messages --- */

static void too_much(struct lk_grpc_call *call, size_t size) {
    char text[160];
    if (size > call->server->limits.message_bytes)
        snprintf(text, sizeof text, "a message of %zu bytes is larger than the %zu that this server takes", size,
                 call->server->limits.message_bytes);
    else
        snprintf(text, sizeof text, "the messages that this server holds take all the memory it may have for them");
    lk__grpc_refuse(call, 200, LK_GRPC_RESOURCE_EXHAUSTED, text);
}
/* Room for `size` more bytes of the message, not all that it claims to have. */
static bool grow(struct lk_grpc_call *call, size_t size) {
    struct lk_grpc_server *s = call->server;
    struct lk__grpc_message *m = call->coming;
    if (m->size + size <= m->charged) return true;
    size_t capacity = 2 * m->charged > GROW ? 2 * m->charged : GROW;
    if (capacity < m->size + size) capacity = m->size + size;
    if (capacity > call->coming_wanted) capacity = call->coming_wanted;
    pthread_mutex_lock(&s->mutex);
    bool may = s->messages_bytes + (capacity - m->charged) <= s->limits.messages_bytes;
    if (may) s->messages_bytes += capacity - m->charged;
    pthread_mutex_unlock(&s->mutex);
    char *data = may ? lk_realloc(m->data, capacity) : NULL;
    if (data) return m->data = data, m->charged = capacity, true;
    if (may) {
        pthread_mutex_lock(&s->mutex);
        s->messages_bytes -= capacity - m->charged;
        pthread_mutex_unlock(&s->mutex);
    }
    return too_much(call, 0), false;
}
static bool begin_message(struct lk_grpc_call *call) {
    const uint8_t *p = call->prefix;
    size_t size = (size_t)p[1] << 24 | (size_t)p[2] << 16 | (size_t)p[3] << 8 | p[4];
    if (p[0] > 1) return lk__grpc_refuse(call, 200, LK_GRPC_INTERNAL, "a message begins with neither 0 nor 1"), false;
    if (p[0] && !call->gzip_in)
        return lk__grpc_refuse(call, 200, LK_GRPC_INTERNAL,
                               "a message is compressed, and grpc-encoding says nothing of it"),
               false;
    if (size > call->server->limits.message_bytes) return too_much(call, size), false;
    if (!(call->coming = lk_calloc(1, sizeof *call->coming))) return too_much(call, 0), false;
    call->coming->compressed = p[0];
    call->coming_wanted = size;
    return true;
}
static void end_message(struct lk_grpc_call *call) {
    struct lk_grpc_server *s = call->server;
    struct lk__grpc_message *m = call->coming;
    call->coming = NULL;
    call->prefix_size = 0;
    m->window = call->coming_window, call->coming_window = 0;
    pthread_mutex_lock(&s->mutex);
    if (call->in)
        call->in_last->next = m;
    else
        call->in = m;
    call->in_last = m;
    call->in_count++;
    if (call->waiting) pthread_cond_signal(&call->changed);
    pthread_mutex_unlock(&s->mutex);
    if (s->bytes_in) lk__grpc_metrics_in(s, m->size);
}
/* What the handler has not taken yet is not given back to the client's window, except while it waits for a message's rest.
 */
void lk__grpc_request_data(struct lk_grpc_call *call, const uint8_t *data, size_t size) {
    struct lk_grpc_server *s = call->server;
    call->progress_ns = s->now_ns;
    pthread_mutex_lock(&s->mutex);
    bool useless = call->over || call->in_broken || call->foreign, withhold = !useless && call->in && streams_in(call);
    pthread_mutex_unlock(&s->mutex);
    if (withhold)
        call->coming_window += size;
    else
        lk__net_h2.session_consume_stream(call->connection->session, call->stream, size);
    while (size && !useless) {
        if (call->prefix_size < LK__GRPC_PREFIX) {
            call->prefix[call->prefix_size++] = *data++, size--;
            if (call->prefix_size == LK__GRPC_PREFIX) useless = !begin_message(call);
        } else {
            size_t n = call->coming_wanted - call->coming->size;
            if (n > size) n = size;
            if (!grow(call, n)) return;
            memcpy(call->coming->data + call->coming->size, data, n);
            call->coming->size += n, data += n, size -= n;
        }
        if (!useless && call->coming && call->coming->size == call->coming_wanted) end_message(call);
    }
}

void lk__grpc_request_end(struct lk_grpc_call *call) {
    struct lk_grpc_server *s = call->server;
    pthread_mutex_lock(&s->mutex);
    call->in_end = true;
    bool is_over = call->over;
    if (call->waiting) pthread_cond_signal(&call->changed);
    pthread_mutex_unlock(&s->mutex);
    if (is_over) return;
    if (call->foreign)
        lk__grpc_refuse(call, call->post ? 415 : 405, LK_GRPC_INTERNAL,
                        call->post ? "gRPC's content-type is application/grpc" : "gRPC takes POST only");
    else if (call->prefix_size)
        lk__grpc_refuse(call, 200, LK_GRPC_INTERNAL, "the request ends inside a message");
    else if (!streams_in(call) && call->in_count != 1)
        lk__grpc_refuse(call, 200, LK_GRPC_INTERNAL, "this method takes one message");
    else if (!streams_in(call))
        hand_over(call);
}

/* A deadline, and what does not move. */
void lk__grpc_call_timer(struct lk__grpc_timer *t, uint64_t now_ns) {
    struct lk_grpc_call *call = (struct lk_grpc_call *)(void *)((char *)t - offsetof(struct lk_grpc_call, timer));
    struct lk_grpc_server *s = call->server;
    uint64_t stall = (uint64_t)s->limits.stall_ms * LK__GRPC_MS;
    bool late = now_ns >= call->due_ns, reset = false;
    if (late) call->due_ns = LK__GRPC_NEVER;
    pthread_mutex_lock(&s->mutex);
    bool whole = call->in_end || call->handed; /* a handler waits for more: that may take its time */
    bool stuck = now_ns - call->progress_ns >= stall && (!whole || call->prefix_size || call->unsent || call->over);
    if (late && !call->over) {
        lk__grpc_chunks_free(&call->out);
        lk__grpc_chunks_free(&call->sending);
        call->unsent = 0;
        call->cancelled = true;
        s->counts.cancelled++;
        lk__grpc_call_finish(call, LK_GRPC_DEADLINE_EXCEEDED, "the deadline is over", lk_bytes(NULL, 0));
    } else if (stuck) {
        s->counts.stalled++;
        lk__grpc_call_cancel(call);
        reset = true;
    }
    pthread_mutex_unlock(&s->mutex);
    if (reset) {
        lk__net_h2.submit_rst_stream(call->connection->session, NGHTTP2_FLAG_NONE, call->stream, NGHTTP2_CANCEL);
        lk__grpc_touch(call->connection);
    }
    set_timer(call, now_ns);
}
