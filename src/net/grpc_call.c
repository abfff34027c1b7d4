/* A call as its handler sees it: receive, send, finish. Any thread; all waits are here. */
#include "lockstep/base/progress.h"
#include "net/grpc_inside.h"
#include <protobuf-c/protobuf-c.h>
#include <stdio.h>
#include <string.h>

#define SMALL (LK__GRPC_CHUNK / 2)

/* --- life --- */

struct lk_grpc_call *lk__grpc_call_new(struct lk__grpc_connection *c) {
    struct lk_grpc_server *s = c->server;
    struct lk_grpc_call *call = lk_calloc(1, sizeof *call);
    if (!call) return NULL;
    pthread_cond_init(&call->changed, NULL);
    call->connection = c, call->server = s;
    call->references = 1;
    call->http_status = 200;
    call->deadline_ns = call->due_ns = LK__GRPC_NEVER;
    call->begun_ns = call->progress_ns = s->now_ns;
    call->timer.fire = lk__grpc_call_timer;
    call->deferred = true; /* nobody looks at what it sends yet */
    pthread_mutex_lock(&s->mutex);
    c->references++, c->calls++;
    s->counts.calls++;
    if (s->gauge_calls) lk__grpc_metrics_calls(s);
    pthread_mutex_unlock(&s->mutex);
    return call;
}

void lk__grpc_chunks_free(struct lk__grpc_chunks *l) {
    for (struct lk__grpc_chunk *c; (c = l->first);) l->first = c->next, lk_free(c);
    l->last = NULL;
}
void lk__grpc_message_free(struct lk_grpc_server *s, struct lk__grpc_message *m) {
    if (!m) return;
    s->messages_bytes -= m->charged;
    lk_free(m->data);
    lk_free(m);
}
void lk__grpc_call_drop(struct lk_grpc_call *call) {
    struct lk_grpc_server *s = call->server;
    struct lk__grpc_connection *c = call->connection;
    if (--call->references) return;
    for (struct lk__grpc_message *m; (m = call->in);) call->in = m->next, lk__grpc_message_free(s, m);
    lk__grpc_message_free(s, call->held);
    lk__grpc_message_free(s, call->coming);
    s->messages_bytes -= call->inflated_charged;
    lk__grpc_chunks_free(&call->out);
    lk__grpc_chunks_free(&call->sending);
    lk_buf_release(&call->inflated);
    lk_buf_release(&call->fields.text);
    lk_buf_release(&call->header.text);
    lk_buf_release(&call->trailer.text);
    lk_buf_release(&call->details);
    lk_free(call->path);
    lk_free(call->status_text);
    lk_free(call->watched);
    pthread_cond_destroy(&call->changed);
    lk_free(call);
    c->calls--;
    if (!--c->references) lk_free(c);
    if (!--s->counts.calls) pthread_cond_broadcast(&s->calls_gone);
    if (s->gauge_calls) lk__grpc_metrics_calls(s);
}

void lk__grpc_call_dirty(struct lk_grpc_call *call) {
    struct lk_grpc_server *s = call->server;
    if (call->dirty || call->gone) return;
    call->dirty = true;
    call->dirty_next = NULL;
    call->references++;
    if (s->dirty)
        s->dirty_last->dirty_next = call;
    else
        s->dirty = call;
    s->dirty_last = call;
    lk__grpc_wake(s);
}

/* Nothing more comes from the handler, whose calls return from now on. */
static void over(struct lk_grpc_call *call) {
    call->over = true;
    if (call->watched) lk__grpc_unwatch(call);
    pthread_cond_broadcast(&call->changed);
    lk__grpc_metrics_over(call);
}
void lk__grpc_call_cancel(struct lk_grpc_call *call) {
    if (call->over) return;
    call->cancelled = true;
    call->status = LK_GRPC_CANCELLED;
    call->server->counts.cancelled++;
    over(call);
}
void lk__grpc_call_finish(struct lk_grpc_call *call, enum lk_grpc_status status, const char *text,
                          struct lk_bytes details) {
    if (call->over) return;
    call->status = status;
    /* Without memory the status goes alone. */
    if (text && *text && status && lk__grpc_percent(text, &call->status_text)) call->status_text = NULL;
    if (details.size && lk__grpc_base64(details.data, details.size, &call->details)) call->details.size = 0;
    call->server->counts.finished++;
    over(call);
    lk__grpc_call_dirty(call);
}

static const char *ending(const struct lk_grpc_call *call) {
    return call->cancelled ? "the client has gone or does not wait any longer" : "the call is over";
}
static int stopped(const struct lk_grpc_call *call, struct lk_err *err) {
    return lk_fail(err, LK_ESTOPPED, "%s: %s", call->path, ending(call));
}

void lk__grpc_run(struct lk_grpc_call *call) {
    struct lk_grpc_server *s = call->server;
    struct lk__grpc_method *m = call->method;
    struct lk_err err = {0};
    uint64_t start = lk_clock_ns();
    pthread_mutex_lock(&s->mutex);
    bool skip = call->over;
    pthread_mutex_unlock(&s->mutex);
    int code = skip ? LK_ESTOPPED : m->m.handle(m->m.arg, call, &err);
    uint64_t took = lk_clock_ns() - start;
    if (took > LK__GRPC_MS) took = LK__GRPC_MS; /* one that slept, or this thread, must not count for many */
    pthread_mutex_lock(&s->mutex);
    if (!skip) m->mean_ns = m->mean_ns ? m->mean_ns - m->mean_ns / 16 + took / 16 + 1 : took + 1;
    bool one = m->m.kind == LK_GRPC_UNARY || m->m.kind == LK_GRPC_CLIENT_STREAM;
    if (!code && one && call->sent_count != 1)
        lk__grpc_call_finish(call, LK_GRPC_INTERNAL, "the handler has sent no message", lk_bytes(NULL, 0));
    else
        lk__grpc_call_finish(call, lk_grpc_status_of(code), code ? err.message : NULL, lk_bytes(NULL, 0));
    call->thread = NULL;
    lk__grpc_call_drop(call);
    pthread_mutex_unlock(&s->mutex);
}

/* --- what came --- */

const char *lk_grpc_path(const struct lk_grpc_call *call) {
    return call->path;
}
const char *lk_grpc_peer(const struct lk_grpc_call *call) {
    return call->connection->peer;
}
uint64_t lk_grpc_who(const struct lk_grpc_call *call) {
    return call->who;
}
uint64_t lk_grpc_deadline(const struct lk_grpc_call *call) {
    return call->deadline_ns;
}
const char *lk_grpc_metadata(const struct lk_grpc_call *call, const char *name, uint32_t nth) {
    return lk__grpc_field_find(&call->fields, name, nth);
}
int lk_grpc_metadata_bytes(const struct lk_grpc_call *call, const char *name, uint32_t nth, struct lk_buf *out) {
    const char *text = lk__grpc_field_find(&call->fields, name, nth);
    return text ? lk__grpc_unbase64(text, strlen(text), out) : LK_ENOTFOUND;
}
bool lk_grpc_cancelled(const struct lk_grpc_call *call) {
    pthread_mutex_lock(&call->server->mutex);
    bool is = call->cancelled;
    pthread_mutex_unlock(&call->server->mutex);
    return is;
}

static void wait_for_change(struct lk_grpc_call *call) {
    lk__grpc_leave_role(call);
    call->waiting = true;
    pthread_cond_wait(&call->changed, &call->server->mutex);
    call->waiting = false;
}

/* Ends the call for what the client has sent. */
static int refuse(struct lk_grpc_call *call, enum lk_grpc_status status, const char *text, struct lk_err *err) {
    struct lk_grpc_server *s = call->server;
    pthread_mutex_lock(&s->mutex);
    lk__grpc_call_finish(call, status, text, lk_bytes(NULL, 0));
    pthread_mutex_unlock(&s->mutex);
    return lk_fail(err, LK_ESTOPPED, "%s: %s", call->path, text);
}
/* What it becomes stands in its last four bytes (zlib compares); that much is taken out of the memory for messages first,
 * so that many small ones can't become large ones at once. */
static bool charge_inflated(struct lk_grpc_call *call, size_t size) {
    struct lk_grpc_server *s = call->server;
    pthread_mutex_lock(&s->mutex);
    bool may = size <= s->limits.message_bytes && s->messages_bytes + size <= s->limits.messages_bytes;
    if (may) s->messages_bytes += size, call->inflated_charged = size;
    pthread_mutex_unlock(&s->mutex);
    return may;
}
static int inflate_held(struct lk_grpc_call *call, struct lk_bytes *message, struct lk_err *err) {
    struct lk__grpc_message *m = call->held;
    const uint8_t *end = (const uint8_t *)m->data + m->size;
    size_t size = m->size < 18 ? 0 : (size_t)end[-1] << 24 | (size_t)end[-2] << 16 | (size_t)end[-3] << 8 | end[-4];
    call->inflated.size = 0;
    if (!charge_inflated(call, size))
        return refuse(call, LK_GRPC_RESOURCE_EXHAUSTED, "a message is too large when it is inflated", err);
    int code = lk__grpc_inflate(m->data, m->size, size, &call->inflated);
    if (code == LK_ENOMEM) return refuse(call, LK_GRPC_RESOURCE_EXHAUSTED, "no memory to inflate a message", err);
    if (code) return refuse(call, LK_GRPC_INTERNAL, "a compressed message is no gzip", err);
    *message = lk_bytes(call->inflated.data ? call->inflated.data : "", call->inflated.size);
    return LK_OK;
}
int lk_grpc_receive(struct lk_grpc_call *call, struct lk_bytes *message, struct lk_err *err) {
    struct lk_grpc_server *s = call->server;
    pthread_mutex_lock(&s->mutex);
    lk__grpc_message_free(s, call->held), call->held = NULL;
    s->messages_bytes -= call->inflated_charged, call->inflated_charged = 0;
    while (!call->in && !call->in_end && !call->over) wait_for_change(call);
    struct lk__grpc_message *m = call->over ? NULL : call->in;
    bool is_over = call->over;
    if (m) {
        call->in = m->next;
        call->held = m;
        call->consume += m->window;
        if (call->consume || (!call->in && !call->in_end)) lk__grpc_call_dirty(call);
    }
    pthread_mutex_unlock(&s->mutex);
    if (is_over) return stopped(call, err);
    if (!m) return lk_fail(err, LK_ENOTFOUND, "%s: the client has sent all of its messages", call->path);
    if (!m->compressed && call->inflated.capacity) lk_buf_release(&call->inflated);
    if (m->compressed) return inflate_held(call, message, err);
    *message = lk_bytes(m->data ? m->data : "", m->size);
    return LK_OK;
}

/* --- what goes --- */

static void put_prefix(char *to, bool compressed, size_t size) {
    to[0] = compressed;
    for (int i = 0; i < 4; i++) to[1 + i] = (char)(size >> (24 - 8 * i) & 0xFF);
}
static struct lk__grpc_chunk *chunk_new(size_t capacity) {
    struct lk__grpc_chunk *c = lk_alloc(sizeof *c + capacity);
    if (c) c->next = NULL, c->size = c->sent = 0, c->capacity = capacity;
    return c;
}
static void link_chunk(struct lk_grpc_call *call, struct lk__grpc_chunk *c) {
    if (call->out.first)
        call->out.last->next = c;
    else
        call->out.first = c;
    call->out.last = c;
}
/* Room for `size` bytes that share a chunk, or NULL. (mutex) */
static char *room(struct lk_grpc_call *call, size_t size) {
    struct lk__grpc_chunk *c = call->out.last;
    if (!c || c->capacity - c->size < size) {
        size_t first = call->sent_count ? LK__GRPC_CHUNK : size + 64; /* most calls send one message */
        if (!(c = chunk_new(first > size ? first : size))) return NULL;
        link_chunk(call, c);
    }
    c->size += size;
    return c->data + c->size - size;
}
/* Why no message can go now, after a wait for room. (mutex) */
static int may_send(struct lk_grpc_call *call, size_t size, bool wait, struct lk_err *err) {
    bool one = call->method->m.kind == LK_GRPC_UNARY || call->method->m.kind == LK_GRPC_CLIENT_STREAM;
    while (wait && !call->over && call->unsent && call->unsent + size > call->server->limits.unsent_bytes)
        wait_for_change(call);
    if (call->over) return stopped(call, err);
    if (one && call->sent_count)
        return lk_fail(err, LK_EINVAL, "%s answers with one message: a second one was sent", call->path);
    return LK_OK;
}
static void sent_one(struct lk_grpc_call *call, size_t size) {
    call->sent_count++;
    call->unsent += size;
    if (call->deferred) lk__grpc_call_dirty(call);
}
static int no_memory(const struct lk_grpc_call *call, size_t size, struct lk_err *err) {
    return lk_fail(err, LK_ENOMEM, "%s: no memory for a message of %zu bytes", call->path, size);
}
/* (mutex) */
static int put_small(struct lk_grpc_call *call, const void *message, size_t size, bool wait, struct lk_err *err) {
    int code = may_send(call, size, wait, err);
    char *to = code ? NULL : room(call, size + LK__GRPC_PREFIX);
    if (code || !to) return code ? code : no_memory(call, size, err);
    put_prefix(to, false, size);
    if (size) memcpy(to + LK__GRPC_PREFIX, message, size);
    sent_one(call, size + LK__GRPC_PREFIX);
    return LK_OK;
}
static int send_small(struct lk_grpc_call *call, const void *message, size_t size, struct lk_err *err) {
    pthread_mutex_lock(&call->server->mutex);
    int code = put_small(call, message, size, true, err);
    pthread_mutex_unlock(&call->server->mutex);
    return code;
}
/* Takes the chunk. */
static int send_chunk(struct lk_grpc_call *call, struct lk__grpc_chunk *c, struct lk_err *err) {
    pthread_mutex_lock(&call->server->mutex);
    int code = may_send(call, c->size, true, err);
    if (!code) link_chunk(call, c), sent_one(call, c->size);
    pthread_mutex_unlock(&call->server->mutex);
    if (code) lk_free(c);
    return code;
}
static bool compresses(const struct lk_grpc_call *call, size_t size) {
    return call->compress && call->gzip_out && size;
}
static int send_compressed(struct lk_grpc_call *call, const void *message, size_t size, struct lk_err *err) {
    struct lk_buf b = LK_BUF_INIT;
    int code = lk__grpc_deflate(message, size, &b);
    struct lk__grpc_chunk *c = code ? NULL : chunk_new(b.size + LK__GRPC_PREFIX);
    if (c) {
        c->size = c->capacity;
        put_prefix(c->data, true, b.size);
        memcpy(c->data + LK__GRPC_PREFIX, b.data, b.size);
    }
    lk_buf_release(&b);
    return c ? send_chunk(call, c, err) : no_memory(call, size, err);
}
static int too_large(const struct lk_grpc_call *call, struct lk_err *err) {
    return lk_fail(err, LK_EINVAL, "%s: a message of 4 GiB or more can't be sent", call->path);
}
int lk_grpc_send(struct lk_grpc_call *call, const void *message, size_t size, struct lk_err *err) {
    if (size > UINT32_MAX) return too_large(call, err);
    if (compresses(call, size)) return send_compressed(call, message, size, err);
    if (size <= SMALL) return send_small(call, message, size, err);
    struct lk__grpc_chunk *c = chunk_new(size + LK__GRPC_PREFIX);
    if (!c) return no_memory(call, size, err);
    c->size = c->capacity;
    put_prefix(c->data, false, size);
    memcpy(c->data + LK__GRPC_PREFIX, message, size);
    return send_chunk(call, c, err);
}
int lk__grpc_call_put(struct lk_grpc_call *call, const void *message, size_t size) {
    return put_small(call, message, size, false, NULL);
}
int lk_grpc_send_message(struct lk_grpc_call *call, const struct ProtobufCMessage *message, struct lk_err *err) {
    size_t size = protobuf_c_message_get_packed_size(message);
    if (size > UINT32_MAX) return too_large(call, err);
    if (size <= SMALL) {
        uint8_t small[SMALL];
        protobuf_c_message_pack(message, small);
        return compresses(call, size) ? send_compressed(call, small, size, err) : send_small(call, small, size, err);
    }
    struct lk__grpc_chunk *c = chunk_new(size + LK__GRPC_PREFIX);
    if (!c) return no_memory(call, size, err);
    c->size = c->capacity;
    put_prefix(c->data, false, size);
    protobuf_c_message_pack(message, (uint8_t *)c->data + LK__GRPC_PREFIX);
    if (!compresses(call, size)) return send_chunk(call, c, err);
    int code = send_compressed(call, c->data + LK__GRPC_PREFIX, size, err);
    lk_free(c);
    return code;
}

static bool good_name(const char *name) {
    size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-_.");
    return n && !name[n] && strncmp(name, "grpc-", 5) != 0 && strcmp(name, "content-type") != 0 && strcmp(name, "te") != 0;
}
static bool good_text(const char *value, size_t size) {
    for (size_t i = 0; i < size; i++)
        if (value[i] < 0x20 || value[i] > 0x7E) return false;
    return !size || (value[0] != ' ' && value[size - 1] != ' ');
}
static int set(struct lk_grpc_call *call, bool trailer, const char *name, const void *value, size_t size,
               struct lk_err *err) {
    size_t n = strlen(name);
    bool binary = n > 4 && !strcmp(name + n - 4, "-bin");
    struct lk_buf text = LK_BUF_INIT;
    if (!good_name(name) || (!binary && !good_text(value, size)))
        return lk_fail(err, LK_EINVAL,
                       "%s: metadata \"%s\" is not lower-case ASCII, reserved, or its value is not visible ASCII",
                       call->path, name);
    int code = binary ? lk__grpc_base64(value, size, &text) : LK_OK;
    pthread_mutex_lock(&call->server->mutex);
    if (!code && (call->over || (!trailer && call->sent_count)))
        code = lk_fail(err, LK_ESTOPPED, "%s: it is too late for metadata \"%s\"", call->path, name);
    else if (code || lk__grpc_field_add(trailer ? &call->trailer : &call->header, name, n, binary ? text.data : value,
                                        binary ? text.size : size))
        code = lk_fail(err, LK_ENOMEM, "%s: no memory for metadata", call->path);
    pthread_mutex_unlock(&call->server->mutex);
    lk_buf_release(&text);
    return code;
}
int lk_grpc_set_header(struct lk_grpc_call *call, const char *name, const void *value, size_t size, struct lk_err *err) {
    return set(call, false, name, value, size, err);
}
int lk_grpc_set_trailer(struct lk_grpc_call *call, const char *name, const void *value, size_t size, struct lk_err *err) {
    return set(call, true, name, value, size, err);
}
void lk_grpc_compress(struct lk_grpc_call *call) {
    pthread_mutex_lock(&call->server->mutex);
    if (!call->sent_count && !call->over) call->compress = true;
    pthread_mutex_unlock(&call->server->mutex);
}
void lk_grpc_finish(struct lk_grpc_call *call, enum lk_grpc_status status, const char *message, struct lk_bytes details) {
    pthread_mutex_lock(&call->server->mutex);
    bool one = call->method->m.kind == LK_GRPC_UNARY || call->method->m.kind == LK_GRPC_CLIENT_STREAM;
    if (!status && one && call->sent_count != 1) status = LK_GRPC_INTERNAL, message = "the handler has sent no message";
    lk__grpc_call_finish(call, status, message, details);
    pthread_mutex_unlock(&call->server->mutex);
}
