/* The blobs of a move: lists of both stores, and threads that copy what one lacks. */
#include "lockstep/base/progress.h"
#include "lockstep/base/thread.h"
#include "store/move.h"
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define THREADS      4
#define THREADS_MOST 32
#define PIECE        ((size_t)1 << 20) /* between two looks at whether to stop */

/* --- lists ----------------------------------------------------------------------------------------------- */

struct item {
    struct lk_root root;
    uint64_t size;
};
struct list {
    struct item *items; /* in order of their roots */
    size_t count, capacity;
};

static int note(void *arg, const struct lk_root *root, uint64_t size, int64_t modified_ms) {
    struct list *l = arg;
    (void)modified_ms;
    if (l->count == l->capacity) {
        size_t more = l->capacity ? 2 * l->capacity : 1024;
        struct item *items = lk_realloc(l->items, more * sizeof *items);
        if (!items) return LK_ENOMEM;
        l->items = items, l->capacity = more;
    }
    l->items[l->count++] = (struct item){*root, size};
    return 0;
}
static int list_blobs(struct lk_store *s, struct list *out, struct lk_err *err) {
    *out = (struct list){0};
    int code = lk_blobs_list(s->blobs, -1, note, out, err);
    return code == LK_ENOMEM ? lk_fail(err, code, "no memory for the list of blobs of %s", s->blobs_url) : code;
}

/* Keeps of `a` what `b` has not, or with another size. */
static void subtract(struct list *a, const struct list *b) {
    size_t kept = 0;
    for (size_t i = 0, k = 0; i < a->count; i++) {
        int c = -1;
        while (k < b->count && (c = memcmp(&b->items[k].root, &a->items[i].root, sizeof a->items[i].root)) < 0) k++;
        if (k == b->count || c != 0 || b->items[k].size != a->items[i].size) a->items[kept++] = a->items[i];
    }
    a->count = kept;
}

int lk__store_move_strange_blobs(struct lk__store_move *m, uint64_t *strange, struct lk_root *one, struct lk_err *err) {
    struct list from, to = {0};
    int code = list_blobs(m->to, &to, err);
    *strange = 0;
    if (!code && to.count && !(code = list_blobs(m->from, &from, err))) {
        subtract(&to, &from);
        *strange = to.count;
        if (to.count) *one = to.items[0].root;
        lk_free(from.items);
    }
    lk_free(to.items);
    return code;
}

/* --- copying --------------------------------------------------------------------------------------------- */

struct copying {
    struct lk__store_move *move;
    const struct list *list;
    atomic_bool ending;
    pthread_mutex_t mutex; /* of what follows */
    pthread_cond_t changed;
    size_t next;
    int running;
    uint64_t done, done_bytes, gone, gone_bytes;
    int code; /* the first error */
    struct lk_err err;
};

static int write_all(struct copying *c, struct lk_blob_writer *w, const struct lk_blob *blob, struct lk_err *err) {
    int code = 0;
    for (size_t at = 0; at < blob->size && !code; at += PIECE) {
        if (atomic_load(&c->ending)) return lk_fail(err, LK_ESTOPPED, "stopped");
        code = lk_blob_write(w, blob->data + at, blob->size - at < PIECE ? blob->size - at : PIECE, err);
    }
    return code;
}

/* LK_ENOTFOUND: somebody's gc took it from `from` since. */
static int copy_blob(struct copying *c, const struct lk_root *root, struct lk_err *err) {
    const struct lk__store_move *m = c->move;
    struct lk_blob_writer *w;
    struct lk_root written;
    struct lk_blob blob;
    char hex[LK_ROOT_HEX];
    int code = lk_blob_open(m->from->blobs, root, true, &blob, err);
    if (code == LK_ECORRUPT)
        lk_fail_prefix(err, code,
                       "the move stopped, and goes on where it was once this blob is whole again, or gone if "
                       "nothing needs it");
    if (code) return code;
    code = lk_blob_create(m->to->blobs, &w, err);
    if (!code && (code = write_all(c, w, &blob, err)))
        lk_blob_abort(w);
    else if (!code)
        code = lk_blob_finish(w, &written, err);
    lk_blob_close(&blob);
    if (!code && !lk_root_equal(&written, root))
        code = lk_fail(err, LK_ECORRUPT,
                       "the blob %s changed between two reads, so its disk or this machine's memory is damaged",
                       lk_root_hex(root, hex));
    return code;
}

static void *copy_some(void *arg) {
    struct copying *c = arg;
    pthread_mutex_lock(&c->mutex);
    while (!c->code && !atomic_load(&c->ending) && c->next < c->list->count) {
        const struct item *item = &c->list->items[c->next++];
        struct lk_err err = {0};
        pthread_mutex_unlock(&c->mutex);
        int code = copy_blob(c, &item->root, &err);
        pthread_mutex_lock(&c->mutex);
        if (code == 0)
            c->done++, c->done_bytes += item->size;
        else if (code == LK_ENOTFOUND)
            c->gone++, c->gone_bytes += item->size;
        else if (!c->code) {
            c->code = code, c->err = err;
            atomic_store(&c->ending, true);
        }
    }
    c->running--;
    pthread_cond_signal(&c->changed);
    pthread_mutex_unlock(&c->mutex);
    return NULL;
}

/* Until all threads have ended, or are told to. */
static int watch(struct copying *c, struct lk_err *err) {
    struct lk__store_move *m = c->move;
    struct lk_move_status before = m->status;
    uint64_t all = 0;
    int code = 0;
    for (size_t i = 0; i < c->list->count; i++) all += c->list->items[i].size;
    pthread_mutex_lock(&c->mutex);
    while (c->running) {
        struct timespec at;
        clock_gettime(CLOCK_MONOTONIC, &at);
        at.tv_nsec += 100000000;
        if (at.tv_nsec >= 1000000000) at.tv_sec++, at.tv_nsec -= 1000000000;
        pthread_cond_timedwait(&c->changed, &c->mutex, &at);
        m->status.blobs = before.blobs + c->done, m->status.bytes = before.bytes + c->done_bytes;
        m->status.blobs_left = c->list->count - c->done - c->gone;
        m->status.bytes_left = all - c->done_bytes - c->gone_bytes;
        pthread_mutex_unlock(&c->mutex);
        if (!code && (code = lk__store_move_tick(m, err))) atomic_store(&c->ending, true);
        pthread_mutex_lock(&c->mutex);
    }
    pthread_mutex_unlock(&c->mutex);
    m->result->copied_blobs += c->done, m->result->copied_bytes += c->done_bytes;
    return code;
}

static int copy_all(struct lk__store_move *m, const struct list *missing, struct lk_err *err) {
    struct copying c = {.move = m, .list = missing};
    pthread_t threads[THREADS_MOST];
    pthread_condattr_t attr;
    int wanted = m->options->threads > 0 ? m->options->threads : THREADS, count = 0, failed = 0;
    if (wanted > THREADS_MOST) wanted = THREADS_MOST;
    if ((size_t)wanted > missing->count) wanted = (int)missing->count;
    pthread_mutex_init(&c.mutex, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&c.changed, &attr);
    pthread_condattr_destroy(&attr);
    c.running = wanted;
    while (count < wanted && !(failed = lk_thread_start(&threads[count], copy_some, &c))) count++;
    if (count < wanted) { /* those that started do all the work */
        pthread_mutex_lock(&c.mutex);
        c.running -= wanted - count;
        pthread_mutex_unlock(&c.mutex);
    }
    int code = count ? watch(&c, err) : lk_fail(err, LK_ENOMEM, "cannot start a thread that copies: %s", strerror(failed));
    for (int i = 0; i < count; i++) pthread_join(threads[i], NULL);
    if (!code && c.code) code = lk_fail(err, c.code, "%s", c.err.message);
    pthread_cond_destroy(&c.changed);
    pthread_mutex_destroy(&c.mutex);
    return code;
}

int lk__store_move_blobs(struct lk__store_move *m, struct lk_err *err) {
    struct list from, to = {0};
    int code = list_blobs(m->from, &from, err);
    if (!code) code = list_blobs(m->to, &to, err);
    m->result->blobs = from.count, m->result->blob_bytes = 0;
    for (size_t i = 0; i < from.count && !code; i++) m->result->blob_bytes += from.items[i].size;
    if (!code) subtract(&from, &to);
    if (!code && from.count) code = copy_all(m, &from, err);
    lk_free(from.items);
    lk_free(to.items);
    return code;
}
