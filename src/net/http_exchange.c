/* One request and its answer, which any thread may give. */
#include "http_inside.h"

#include <string.h>
#include <strings.h>

#define PIECE ((size_t)16 << 10)

void lk__net_release(struct lk_http_exchange *x) {
    struct lk_http_server *s = x->server;
    pthread_mutex_lock(&s->mutex);
    bool last = --x->references == 0;
    if (last && (*x->at = x->next)) x->next->at = x->at;
    pthread_mutex_unlock(&s->mutex);
    if (!last) return;
    if (x->response) MHD_destroy_response(x->response);
    pthread_mutex_destroy(&x->mutex);
    lk_buf_release(&x->headers);
    lk_buf_release(&x->query);
    lk_buf_release(&x->body);
    lk_buf_release(&x->unsent);
    lk_free(x->path);
    lk_free(x->method);
    lk_free(x);
    lk__net_server_release(s);
}

/* --- What was asked ----------------------------------------------------------------------------------------------- */

const char *lk_http_method(const struct lk_http_exchange *x) {
    return x->method;
}
const char *lk_http_path(const struct lk_http_exchange *x) {
    return x->path;
}
static const char *find(const struct lk_buf *fields, const char *name, bool any_case) {
    for (size_t at = 0; at < fields->size;) {
        const char *here = fields->data + at, *value = here + strlen(here) + 1;
        if (any_case ? !strcasecmp(here, name) : !strcmp(here, name)) return value;
        at = (size_t)(value + strlen(value) + 1 - fields->data);
    }
    return NULL;
}
const char *lk_http_header(const struct lk_http_exchange *x, const char *name) {
    return find(&x->headers, name, true);
}
const char *lk_http_query(const struct lk_http_exchange *x, const char *name) {
    return find(&x->query, name, false);
}
struct lk_bytes lk_http_body(const struct lk_http_exchange *x) {
    return lk_bytes(x->body.data ? x->body.data : "", x->body.size);
}

/* --- Going and waking, with x->mutex ------------------------------------------------------------------------------- */

static void wake(struct lk_http_exchange *x) {
    if (!x->suspended || !x->connection) return;
    x->suspended = false;
    MHD_resume_connection(x->connection);
}
static void tell(struct lk_http_exchange *x) {
    if (!x->gone || x->told || x->ended || !x->tell) return;
    x->told = true;
    x->tell(x->tell_arg);
}
static void go(struct lk_http_exchange *x) {
    if (!x->ended) x->gone = true;
    tell(x);
    if (x->gone) wake(x);
}

void lk__net_gone(struct lk_http_exchange *x) {
    pthread_mutex_lock(&x->mutex);
    go(x);
    pthread_mutex_unlock(&x->mutex);
}

void lk_http_on_gone(struct lk_http_exchange *x, void (*gone)(void *), void *arg) {
    pthread_mutex_lock(&x->mutex);
    x->tell = gone, x->tell_arg = arg;
    tell(x);
    pthread_mutex_unlock(&x->mutex);
}

/* --- Answers ------------------------------------------------------------------------------------------------------ */

/* libmicrohttpd has room for some of it. Without any, the connection sleeps until there is more. */
static ssize_t give_piece(void *arg, uint64_t position, char *to, size_t most) {
    struct lk_http_exchange *x = arg;
    ssize_t n = 0;
    (void)position;
    pthread_mutex_lock(&x->mutex);
    size_t left = x->unsent.size - x->sent;
    if (x->gone)
        n = MHD_CONTENT_READER_END_WITH_ERROR;
    else if (left) {
        n = (ssize_t)(left < most ? left : most);
        memcpy(to, x->unsent.data + x->sent, (size_t)n);
        x->sent += (size_t)n;
        if (x->sent == x->unsent.size) x->sent = x->unsent.size = 0;
    } else if (x->ended)
        n = MHD_CONTENT_READER_END_OF_STREAM;
    else {
        x->suspended = true;
        MHD_suspend_connection(x->connection);
    }
    pthread_mutex_unlock(&x->mutex);
    return n;
}

enum MHD_Result lk__net_answer(struct lk_http_exchange *x) {
    enum MHD_Result done = MHD_NO; /* closes the connection */
    pthread_mutex_lock(&x->mutex);
    bool queue = !x->queued && x->response && !x->gone;
    if (x->queued)
        done = MHD_YES;
    else if (!queue && !x->gone && !x->ended) { /* woken without a reason */
        x->suspended = true;
        MHD_suspend_connection(x->connection);
        done = MHD_YES;
    }
    x->queued |= queue;
    pthread_mutex_unlock(&x->mutex);
    /* without the mutex: libmicrohttpd has one of its own for the answer, and holds it when it calls give_piece */
    return queue ? MHD_queue_response(x->connection, (unsigned)x->status, x->response) : done;
}

static bool add_fields(struct MHD_Response *r, const char *type, const struct lk_http_field *f, size_t count) {
    bool ok = !type || MHD_add_response_header(r, "Content-Type", type) == MHD_YES;
    for (size_t i = 0; i < count; i++) ok &= MHD_add_response_header(r, f[i].name, f[i].value) == MHD_YES;
    return ok;
}

/* The handler's part is over: nothing tells it that the client goes any more. */
static void end(struct lk_http_exchange *x) {
    pthread_mutex_lock(&x->mutex);
    x->ended = true;
    wake(x);
    pthread_mutex_unlock(&x->mutex);
    lk__net_release(x);
}

int lk_http_respond(struct lk_http_exchange *x, int status, const char *type, const struct lk_http_field *f, size_t count,
                    const void *body, size_t size) {
    struct MHD_Response *r =
        MHD_create_response_from_buffer(size, (void *)(uintptr_t)(size ? body : ""), MHD_RESPMEM_MUST_COPY);
    bool ok = r && add_fields(r, type, f, count);
    if (r && !ok) {
        MHD_destroy_response(r);
        r = NULL;
    }
    pthread_mutex_lock(&x->mutex);
    x->response = r, x->status = status;
    pthread_mutex_unlock(&x->mutex);
    end(x);
    return ok ? LK_OK : LK_ENOMEM;
}

int lk_http_begin(struct lk_http_exchange *x, int status, const char *type, const struct lk_http_field *f, size_t count) {
    struct MHD_Response *r = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, PIECE, give_piece, x, NULL);
    int code = r && add_fields(r, type, f, count) ? LK_OK : LK_ENOMEM;
    if (r && code) MHD_destroy_response(r);
    if (code) return code;
    pthread_mutex_lock(&x->mutex);
    x->response = r, x->status = status;
    if (x->gone) code = LK_EIO;
    wake(x);
    pthread_mutex_unlock(&x->mutex);
    return code;
}

int lk_http_write(struct lk_http_exchange *x, const void *data, size_t size) {
    pthread_mutex_lock(&x->mutex);
    if (x->sent > x->unsent.size / 2) { /* what has gone makes room */
        memmove(x->unsent.data, x->unsent.data + x->sent, x->unsent.size - x->sent);
        x->unsent.size -= x->sent, x->sent = 0;
    }
    int code = x->gone ? LK_EIO : LK_OK;
    if (!code && x->unsent.size - x->sent + size > x->server->limits.unsent_bytes) code = LK_EIO;
    if (!code && lk_buf_append(&x->unsent, data, size)) code = LK_ENOMEM;
    if (code && !x->gone) x->gone = x->told = true; /* who writes knows it from the answer */
    wake(x);
    pthread_mutex_unlock(&x->mutex);
    return code;
}

void lk_http_end(struct lk_http_exchange *x) {
    end(x);
}
