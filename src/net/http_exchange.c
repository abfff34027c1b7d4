/* One request and its answer, which any thread may give. */
#include "http_inside.h"

#include <string.h>
#include <strings.h>
#include <sys/socket.h>

void lk__net_release(struct lk_http_exchange *x) {
    if (atomic_fetch_sub(&x->references, 1) != 1) return;
    if (x->response) lk__net_mhd.destroy_response(x->response);
    pthread_mutex_destroy(&x->mutex);
    pthread_cond_destroy(&x->told_it);
    lk_buf_release(&x->headers);
    lk_buf_release(&x->query);
    lk_buf_release(&x->body);
    lk_buf_release(&x->unsent);
    lk_free(x->path);
    lk_free(x->method);
    lk_free(x);
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
    lk__net_mhd.resume_connection(x->connection);
}
/* The connection sleeps until it is woken; false: it may not, as the server closes. */
static bool sleep_if_open(struct lk_http_exchange *x) {
    if (x->gone || atomic_load(&x->server->closing)) return false;
    x->suspended = true;
    lk__net_mhd.suspend_connection(x->connection);
    return true;
}
/* Leaves the mutex for the call, so that a handler may hold its own locks when it writes and take them when it is told. */
static void tell(struct lk_http_exchange *x) {
    if (!x->gone || x->told || x->ended || !x->tell) return;
    x->told = x->telling = true;
    x->teller = pthread_self();
    pthread_mutex_unlock(&x->mutex);
    x->tell(x->tell_arg);
    pthread_mutex_lock(&x->mutex);
    x->telling = false;
    pthread_cond_broadcast(&x->told_it);
}

void lk__net_gone(struct lk_http_exchange *x) {
    pthread_mutex_lock(&x->mutex);
    if (!x->ended) {
        x->gone = true;
        wake(x);
        tell(x);
    }
    pthread_mutex_unlock(&x->mutex);
}

void lk_http_on_gone(struct lk_http_exchange *x, void (*gone)(void *), void *arg) {
    pthread_mutex_lock(&x->mutex);
    x->tell = gone, x->tell_arg = arg;
    tell(x);
    pthread_mutex_unlock(&x->mutex);
}

/* --- Answers ------------------------------------------------------------------------------------------------------ */

/* The client has gone, or shall. libmicrohttpd closes a connection at once that it can't write to; one whose answer ends
 * with an error it keeps, out of sight of its epoll, until the oldest time-out. Behind the shutdown nobody can take the end
 * for that of a whole answer. */
static ssize_t close_it(struct lk_http_exchange *x) {
    (void)shutdown(x->fd, SHUT_RDWR);
    return MHD_CONTENT_READER_END_OF_STREAM;
}

/* libmicrohttpd has room for some of it. Without any, the connection sleeps until there is more. */
static ssize_t give_piece(void *arg, uint64_t position, char *to, size_t most) {
    struct lk_http_exchange *x = arg;
    ssize_t n = 0;
    (void)position;
    pthread_mutex_lock(&x->mutex);
    size_t left = x->unsent.size - x->sent;
    if (x->gone)
        n = close_it(x);
    else if (left) {
        n = (ssize_t)(left < most ? left : most);
        memcpy(to, x->unsent.data + x->sent, (size_t)n);
        x->sent += (size_t)n;
        if (x->sent == x->unsent.size) x->sent = x->unsent.size = 0;
    } else if (x->ended)
        n = MHD_CONTENT_READER_END_OF_STREAM;
    else if (!sleep_if_open(x))
        n = close_it(x);
    pthread_mutex_unlock(&x->mutex);
    return n;
}

enum MHD_Result lk__net_answer(struct lk_http_exchange *x) {
    enum MHD_Result done = MHD_NO; /* closes the connection */
    pthread_mutex_lock(&x->mutex);
    struct MHD_Response *r = x->gone ? NULL : x->response;
    if (!r && !x->ended && sleep_if_open(x)) done = MHD_YES;
    pthread_mutex_unlock(&x->mutex);
    /* without the mutex: libmicrohttpd has one of its own for the answer, and holds it when it calls give_piece */
    return r ? lk__net_mhd.queue_response(x->connection, (unsigned)x->status, r) : done;
}

static bool add_fields(struct MHD_Response *r, const char *type, const struct lk_http_field *f, size_t count) {
    bool ok = !type || lk__net_mhd.add_response_header(r, "Content-Type", type) == MHD_YES;
    for (size_t i = 0; i < count; i++) ok &= lk__net_mhd.add_response_header(r, f[i].name, f[i].value) == MHD_YES;
    return ok;
}

/* With the mutex, which it leaves for good. The handler's part is over: nothing tells it that the client goes any more. */
static void end(struct lk_http_exchange *x) {
    x->ended = true;
    while (x->telling && !pthread_equal(x->teller, pthread_self())) pthread_cond_wait(&x->told_it, &x->mutex);
    wake(x);
    pthread_mutex_unlock(&x->mutex);
    lk__net_release(x);
}

int lk_http_respond(struct lk_http_exchange *x, int status, const char *type, const struct lk_http_field *f, size_t count,
                    const void *body, size_t size) {
    struct MHD_Response *r =
        lk__net_mhd.create_response_from_buffer(size, (void *)(uintptr_t)(size ? body : ""), MHD_RESPMEM_MUST_COPY);
    bool ok = r && add_fields(r, type, f, count);
    if (r && !ok) {
        lk__net_mhd.destroy_response(r);
        r = NULL;
    }
    pthread_mutex_lock(&x->mutex);
    x->response = r, x->status = status;
    end(x);
    return ok ? LK_OK : LK_ENOMEM;
}

int lk_http_begin(struct lk_http_exchange *x, int status, const char *type, const struct lk_http_field *f, size_t count) {
    struct MHD_Response *r =
        lk__net_mhd.create_response_from_callback(MHD_SIZE_UNKNOWN, LK__NET_PIECE, give_piece, x, NULL);
    int code = r && add_fields(r, type, f, count) ? LK_OK : LK_ENOMEM;
    if (r && code) lk__net_mhd.destroy_response(r);
    if (code) return code;
    pthread_mutex_lock(&x->mutex);
    x->response = r, x->status = status;
    if (x->gone) code = LK_EIO;
    wake(x);
    pthread_mutex_unlock(&x->mutex);
    return code;
}

/* Who writes knows it from the answer. libmicrohttpd may wait for the client to read: the socket's end wakes it. */
static void cut(struct lk_http_exchange *x) {
    x->gone = x->told = true;
    lk_buf_release(&x->unsent);
    x->unsent = (struct lk_buf)LK_BUF_INIT;
    x->sent = 0;
    if (x->connection) (void)shutdown(x->fd, SHUT_RDWR);
}

int lk_http_write(struct lk_http_exchange *x, const void *data, size_t size) {
    pthread_mutex_lock(&x->mutex);
    if (x->sent > x->unsent.size / 2) { /* what has gone makes room */
        memmove(x->unsent.data, x->unsent.data + x->sent, x->unsent.size - x->sent);
        x->unsent.size -= x->sent, x->sent = 0;
    }
    int code = x->gone ? LK_EIO : LK_OK;
    if (!code && x->unsent.size - x->sent + size > x->unsent_most) code = LK_EIO;
    if (!code && lk_buf_append(&x->unsent, data, size)) code = LK_ENOMEM;
    if (code && !x->gone) cut(x);
    wake(x);
    pthread_mutex_unlock(&x->mutex);
    return code;
}

void lk_http_end(struct lk_http_exchange *x) {
    pthread_mutex_lock(&x->mutex);
    end(x);
}
