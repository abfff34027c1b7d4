/* nghttp2's side: frames that come become calls, what calls have becomes frames. All by the role. */
#include "lockstep/base/progress.h"
#include "net/grpc_inside.h"
#include <stdio.h>
#include <string.h>

/* Frames of no use that a client may send at once, and per second; a frame of ours that carries something earns some. */
#define PATIENCE        2000.0
#define PATIENCE_A_S    100.0
#define PATIENCE_EARNED 4.0
#define HEADERS_MOST    4 /* times the limit: then the stream is reset */

bool lk__grpc_impatient(struct lk__grpc_connection *c, double cost) {
    uint64_t now = c->server->now_ns;
    c->patience += (double)(now - c->patience_ns) * PATIENCE_A_S / 1e9 - cost;
    c->patience_ns = now;
    if (c->patience > PATIENCE) c->patience = PATIENCE;
    if (c->patience >= 0 || c->abusive) return c->abusive;
    static const uint8_t why[] = "too_many_pings"; /* grpc clients know this text, and ping less */
    c->abusive = true;
    lk__net_h2.submit_goaway(c->session, NGHTTP2_FLAG_NONE, lk__net_h2.session_get_last_proc_stream_id(c->session),
                             NGHTTP2_ENHANCE_YOUR_CALM, why, sizeof why - 1);
    return true;
}
/* Looks at the heads of frames by itself, since nghttp2 passes over types that it does not know, and over CONTINUATIONs,
 * without a word. DATA that comes late for a call that is over is no fault of the client's. */
bool lk__grpc_scan(struct lk__grpc_connection *c, const uint8_t *data, size_t size) {
    while (size) {
        size_t n = c->skip < size ? c->skip : size;
        data += n, size -= n, c->skip -= n;
        while (size && !c->skip && c->head_size < sizeof c->head) c->head[c->head_size++] = *data++, size--;
        if (c->head_size < sizeof c->head) continue;
        const uint8_t *h = c->head;
        c->head_size = 0;
        c->skip = (size_t)h[0] << 16 | (size_t)h[1] << 8 | h[2];
        bool useful = h[3] == NGHTTP2_HEADERS || (h[3] == NGHTTP2_DATA && (c->skip || h[4] & NGHTTP2_FLAG_END_STREAM));
        if (!useful && lk__grpc_impatient(c, 1)) return false;
    }
    return true;
}
static struct lk_grpc_call *call_of(nghttp2_session *session, int32_t stream) {
    return stream ? lk__net_h2.session_get_stream_user_data(session, stream) : NULL;
}

static int begin_headers(nghttp2_session *session, const nghttp2_frame *f, void *connection) {
    struct lk__grpc_connection *c = connection;
    struct lk_grpc_server *s = c->server;
    if (f->hd.type != NGHTTP2_HEADERS || f->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
    pthread_mutex_lock(&s->mutex);
    bool full = c->calls >= 2 * s->limits.streams; /* handlers of streams that were reset still run */
    pthread_mutex_unlock(&s->mutex);
    struct lk_grpc_call *call = full ? NULL : lk__grpc_call_new(c);
    if (!call) {
        if (full && lk__grpc_impatient(c, 1)) return NGHTTP2_ERR_CALLBACK_FAILURE;
        lk__net_h2.submit_rst_stream(session, NGHTTP2_FLAG_NONE, f->hd.stream_id, NGHTTP2_REFUSED_STREAM);
        return 0;
    }
    call->stream = f->hd.stream_id;
    call->next = c->list.first;
    if (call->next) call->next->prev = call;
    c->list.first = call;
    c->streams++;
    lk__net_h2.session_set_stream_user_data(session, call->stream, call);
    return 0;
}
static int header(nghttp2_session *session, const nghttp2_frame *f, const uint8_t *name, size_t name_size,
                  const uint8_t *value, size_t size, uint8_t flags, void *connection) {
    struct lk_grpc_call *call = call_of(session, f->hd.stream_id);
    size_t most = ((struct lk__grpc_connection *)connection)->server->limits.header_bytes;
    (void)flags;
    if (!call || call->header_end) return 0; /* trailers of a client's mean nothing */
    call->header_bytes += name_size + size + 32;
    if (call->header_bytes > HEADERS_MOST * most)
        return lk__grpc_impatient(connection, 100) ? NGHTTP2_ERR_CALLBACK_FAILURE : NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    if (call->header_bytes > most) return call->refused = true, 0;
    return lk__grpc_request_field(call, (const char *)name, name_size, (const char *)value, size)
               ? NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE
               : 0;
}
static int frame_came(nghttp2_session *session, const nghttp2_frame *f, void *connection) {
    struct lk__grpc_connection *c = connection;
    struct lk_grpc_call *call = call_of(session, f->hd.stream_id);
    if (f->hd.type == NGHTTP2_SETTINGS && !(f->hd.flags & NGHTTP2_FLAG_ACK)) c->greeted = true;
    if (!call || (f->hd.type != NGHTTP2_HEADERS && f->hd.type != NGHTTP2_DATA)) return 0;
    if (f->hd.type == NGHTTP2_HEADERS && !call->header_end) lk__grpc_request_headers(call);
    if (f->hd.flags & NGHTTP2_FLAG_END_STREAM) lk__grpc_request_end(call);
    return 0;
}
static int invalid_frame(nghttp2_session *session, const nghttp2_frame *f, int code, void *connection) {
    (void)session, (void)f, (void)code;
    return lk__grpc_impatient(connection, 10) ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}
static int data_came(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *data, size_t size,
                     void *connection) {
    struct lk_grpc_call *call = call_of(session, stream);
    (void)flags, (void)connection;
    lk__net_h2.session_consume_connection(session, size);
    if (call) lk__grpc_request_data(call, data, size);
    return 0;
}
static int frame_went(nghttp2_session *session, const nghttp2_frame *f, void *connection) {
    struct lk__grpc_connection *c = connection;
    if (f->hd.type != NGHTTP2_HEADERS && f->hd.type != NGHTTP2_DATA) return 0;
    struct lk_grpc_call *call = call_of(session, f->hd.stream_id);
    c->patience += PATIENCE_EARNED;
    if (call && f->hd.flags & NGHTTP2_FLAG_END_STREAM) {
        call->ended = true;
        pthread_mutex_lock(&c->server->mutex);
        bool half = !call->in_end;
        pthread_mutex_unlock(&c->server->mutex);
        if (half) lk__net_h2.submit_rst_stream(session, NGHTTP2_FLAG_NONE, f->hd.stream_id, NGHTTP2_NO_ERROR);
    }
    return 0;
}

static void call_gone(struct lk_grpc_call *call) {
    struct lk__grpc_connection *c = call->connection;
    struct lk_grpc_server *s = c->server;
    lk__grpc_timer_stop(&s->wheel, &call->timer);
    if (call->next) call->next->prev = call->prev;
    if (call->prev)
        call->prev->next = call->next;
    else
        c->list.first = call->next;
    if (!--c->streams) c->idle_since_ns = s->now_ns;
    pthread_mutex_lock(&s->mutex);
    call->gone = true;
    lk__grpc_call_cancel(call);
    lk__grpc_chunks_free(&call->sending);
    lk__grpc_call_drop(call);
    pthread_mutex_unlock(&s->mutex);
}
static int stream_closed(nghttp2_session *session, int32_t stream, uint32_t code, void *connection) {
    struct lk_grpc_call *call = call_of(session, stream);
    (void)code, (void)connection;
    if (call) call_gone(call);
    return 0;
}
void lk__grpc_session_end(struct lk__grpc_connection *c) {
    while (c->list.first) call_gone(c->list.first);
    if (c->session) lk__net_h2.session_del(c->session);
    c->session = NULL;
}

/* --- what goes --- */

static nghttp2_nv pair(const char *name, size_t name_size, const char *value, size_t size, uint8_t flags) {
    return (nghttp2_nv){(uint8_t *)(uintptr_t)name, (uint8_t *)(uintptr_t)value, name_size, size, flags};
}
#define FIXED      (NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE)
#define PAIR(n, v) pair(n, sizeof(n) - 1, v, sizeof(v) - 1, FIXED)
#define STANDARD   6 /* headers of ours, at most */

struct pairs {
    nghttp2_nv few[16], *all;
    size_t count;
};
static bool pairs_open(struct pairs *p, size_t more) {
    p->count = 0;
    p->all = more + STANDARD <= sizeof p->few / sizeof *p->few ? p->few : lk_alloc((more + STANDARD) * sizeof *p->all);
    return p->all;
}
static void pairs_close(struct pairs *p) {
    if (p->all != p->few) lk_free(p->all);
}
static void put(struct pairs *p, nghttp2_nv nv) {
    p->all[p->count++] = nv;
}
static void put_fields(struct pairs *p, const struct lk__grpc_fields *f) {
    const char *name, *value;
    for (size_t at = 0; lk__grpc_field_next(f, &at, &name, &value);)
        put(p, pair(name, strlen(name), value, strlen(value), NGHTTP2_NV_FLAG_NONE));
}
static const char *const numbers[] = {"0", "1",  "2",  "3",  "4",  "5",  "6",  "7", "8",
                                      "9", "10", "11", "12", "13", "14", "15", "16"};
static void put_status(struct pairs *p, const struct lk_grpc_call *call) {
    const char *n = numbers[call->status <= 16 ? call->status : 2];
    put(p, pair("grpc-status", 11, n, strlen(n), FIXED));
    if (call->status_text)
        put(p, pair("grpc-message", 12, call->status_text, strlen(call->status_text), NGHTTP2_NV_FLAG_NO_COPY_NAME));
    if (call->details.size)
        put(p, pair("grpc-status-details-bin", 23, call->details.data, call->details.size, NGHTTP2_NV_FLAG_NO_COPY_NAME));
    put_fields(p, &call->trailer);
}
static void put_head(struct pairs *p, const struct lk_grpc_call *call) {
    put(p, call->http_status == 200   ? PAIR(":status", "200")
           : call->http_status == 405 ? PAIR(":status", "405")
                                      : PAIR(":status", "415"));
    put(p, PAIR("content-type", "application/grpc"));
    if (call->compress && call->gzip_out) put(p, PAIR("grpc-encoding", "gzip"));
    if (!call->http_status || call->fields.count) put(p, PAIR("grpc-accept-encoding", "identity,gzip"));
    put_fields(p, &call->header);
}

/* Behind the last message. The status is fixed, so that nobody changes it any more. */
static int submit_end(struct lk_grpc_call *call) {
    struct pairs p;
    if (!pairs_open(&p, call->trailer.count)) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    put_status(&p, call);
    int failed = lk__net_h2.submit_trailer(call->connection->session, call->stream, p.all, p.count);
    pairs_close(&p);
    return failed;
}
/* More to send, or NULL if there is nothing now; defers: then nghttp2 asks no more until it is told to. */
static struct lk__grpc_chunk *next_chunk(struct lk_grpc_call *call, bool *over, bool defers) {
    struct lk_grpc_server *s = call->server;
    pthread_mutex_lock(&s->mutex);
    call->sending = call->out;
    call->out = (struct lk__grpc_chunks){0};
    *over = call->over && !call->sending.first;
    if (!call->sending.first && !call->over && defers) call->deferred = true;
    pthread_mutex_unlock(&s->mutex);
    return call->sending.first;
}
static void sent(struct lk_grpc_call *call, size_t size) {
    struct lk_grpc_server *s = call->server;
    pthread_mutex_lock(&s->mutex);
    call->unsent -= size < call->unsent ? size : call->unsent;
    if (call->waiting && call->unsent <= s->limits.unsent_bytes / 2) pthread_cond_signal(&call->changed);
    pthread_mutex_unlock(&s->mutex);
    if (s->bytes_out) lk__grpc_metrics_out(s, size);
}
static ssize_t read_answer(nghttp2_session *session, int32_t stream, uint8_t *to, size_t room, uint32_t *flags,
                           nghttp2_data_source *source, void *connection) {
    struct lk_grpc_call *call = source->ptr;
    size_t size = 0;
    bool over = false;
    (void)session, (void)stream, (void)connection;
    while (size < room) {
        struct lk__grpc_chunk *c = call->sending.first;
        if (!c && !(c = next_chunk(call, &over, !size))) break;
        size_t n = c->size - c->sent < room - size ? c->size - c->sent : room - size;
        memcpy(to + size, c->data + c->sent, n);
        c->sent += n, size += n;
        if (c->sent == c->size) call->sending.first = c->next, lk_free(c);
    }
    if (size) call->progress_ns = call->server->now_ns, sent(call, size);
    if (over) {
        *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
        int failed = submit_end(call);
        return failed ? failed : (ssize_t)size;
    }
    return size ? (ssize_t)size : NGHTTP2_ERR_DEFERRED;
}

static int submit(struct lk_grpc_call *call, bool alone) {
    struct pairs p;
    nghttp2_data_provider provider = {.source.ptr = call, .read_callback = read_answer};
    if (!pairs_open(&p, call->header.count + (alone ? call->trailer.count : 0))) return NGHTTP2_ERR_NOMEM;
    put_head(&p, call);
    if (alone) put_status(&p, call);
    int failed =
        lk__net_h2.submit_response(call->connection->session, call->stream, p.all, p.count, alone ? NULL : &provider);
    pairs_close(&p);
    return failed;
}
void lk__grpc_answer(struct lk_grpc_call *call) {
    struct lk_grpc_server *s = call->server;
    struct lk__grpc_connection *c = call->connection;
    int failed = 0;
    pthread_mutex_lock(&s->mutex);
    bool alone = call->over && !call->out.first && !call->submitted, more = call->out.first || call->over;
    bool resume = more && call->deferred, quiet = !call->in;
    size_t consume = call->consume;
    bool reset = call->reset;
    call->consume = 0;
    if (resume) call->deferred = false;
    pthread_mutex_unlock(&s->mutex);
    if (quiet) consume += call->coming_window, call->coming_window = 0;
    if (consume) lk__net_h2.session_consume_stream(c->session, call->stream, consume);
    if (reset)
        lk__net_h2.submit_rst_stream(c->session, NGHTTP2_FLAG_NONE, call->stream, NGHTTP2_CANCEL);
    else if (!call->submitted && more) {
        call->submitted = true;
        failed = submit(call, alone);
    } else if (resume)
        failed = lk__net_h2.session_resume_data(c->session, call->stream);
    if (failed && !call->ended)
        lk__net_h2.submit_rst_stream(c->session, NGHTTP2_FLAG_NONE, call->stream, NGHTTP2_INTERNAL_ERROR);
    lk__grpc_touch(c);
}

/* --- sessions --- */

int lk__grpc_session_setup(struct lk_grpc_server *s, struct lk_err *err) {
    if (lk__net_h2.session_callbacks_new(&s->callbacks) || lk__net_h2.option_new(&s->option))
        return lk_fail(err, LK_ENOMEM, "no memory for a server");
    lk__net_h2.session_callbacks_set_on_begin_headers_callback(s->callbacks, begin_headers);
    lk__net_h2.session_callbacks_set_on_header_callback(s->callbacks, header);
    lk__net_h2.session_callbacks_set_on_frame_recv_callback(s->callbacks, frame_came);
    lk__net_h2.session_callbacks_set_on_invalid_frame_recv_callback(s->callbacks, invalid_frame);
    lk__net_h2.session_callbacks_set_on_data_chunk_recv_callback(s->callbacks, data_came);
    lk__net_h2.session_callbacks_set_on_frame_send_callback(s->callbacks, frame_went);
    lk__net_h2.session_callbacks_set_on_stream_close_callback(s->callbacks, stream_closed);
    lk__net_h2.option_set_no_auto_window_update(s->option, 1);
    return LK_OK;
}
static void *take(size_t size, void *unused) {
    (void)unused;
    return lk_alloc(size);
}
static void give(void *p, void *unused) {
    (void)unused;
    lk_free(p);
}
static void *take_zero(size_t n, size_t size, void *unused) {
    (void)unused;
    return lk_calloc(n, size);
}
static void *take_again(void *p, size_t size, void *unused) {
    (void)unused;
    return lk_realloc(p, size);
}
int lk__grpc_session_new(struct lk__grpc_connection *c) {
    struct lk_grpc_server *s = c->server;
    nghttp2_mem memory = {NULL, take, give, take_zero, take_again};
    nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, s->limits.streams},
                                         {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, (uint32_t)LK__GRPC_WINDOW},
                                         {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, (uint32_t)s->limits.header_bytes}};
    c->patience = PATIENCE, c->patience_ns = s->now_ns;
    c->skip = NGHTTP2_CLIENT_MAGIC_LEN;
    if (lk__net_h2.session_server_new3(&c->session, s->callbacks, c, s->option, &memory) ||
        lk__net_h2.submit_settings(c->session, NGHTTP2_FLAG_NONE, settings, sizeof settings / sizeof *settings) ||
        lk__net_h2.session_set_local_window_size(c->session, NGHTTP2_FLAG_NONE, 0, LK__GRPC_WIDE))
        return LK_ENOMEM;
    return LK_OK;
}
