/* Opening, closing, and the threads: one at a time holds the role of moving bytes, the others run handlers. README.md,
 * "gRPC", says why the role moves. */
#include "lockstep/base/progress.h"
#include "lockstep/base/thread.h"
#include "net/grpc_inside.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define QUICK_NS      (100 * UINT64_C(1000)) /* a handler that takes less on average runs where the bytes are moved */
#define OVERTAKE_NS   (500 * UINT64_C(1000)) /* and is overtaken after so long */
#define QUICK_AT_ONCE 32                     /* handlers, before bytes move again */
#define WATCH_IDLE    20                     /* looks at nothing, then the watcher sleeps */

static void set_limits(struct lk_grpc_limits *l) {
    struct lk_grpc_limits d = {.connections = 1000,
                               .connections_per_client = 256,
                               .streams = 100,
                               .waiting = 10000,
                               .workers = 32,
                               .header_bytes = (size_t)16 << 10,
                               .message_bytes = (size_t)256 << 20,
                               .messages_bytes = (size_t)1 << 30,
                               .unsent_bytes = (size_t)1 << 20,
                               .handshake_ms = 10000,
                               .idle_ms = 1800000,
                               .keepalive_ms = 60000,
                               .stall_ms = 60000};
#define X(name)                                                                                                            \
    if (!l->name) l->name = d.name;
    X(connections) X(connections_per_client) X(streams) X(waiting) X(workers) X(header_bytes) X(message_bytes);
    X(messages_bytes) X(unsent_bytes) X(handshake_ms) X(idle_ms) X(keepalive_ms) X(stall_ms);
#undef X
}

/* --- threads --- */

void lk__grpc_wake(struct lk_grpc_server *s) {
    uint64_t one = 1;
    if (!s->sleeping) return;
    s->sleeping = false;
    (void)!write(s->wake, &one, sizeof one);
}
static struct lk_grpc_call *pop(struct lk__grpc_calls *q) {
    struct lk_grpc_call *call = q->first;
    q->first = call->ready_next;
    if (!q->first) q->last = NULL;
    q->count--;
    return call;
}
static void push(struct lk__grpc_calls *q, struct lk_grpc_call *call) {
    call->ready_next = NULL;
    if (q->first)
        q->last->ready_next = call;
    else
        q->first = call;
    q->last = call;
    q->count++;
}
/* One more thread for `ready`, if one sleeps; that one wakes the next, so that short handlers do not wake all of them at
 * once to wait for the mutex. (mutex) */
static void wake_worker(struct lk_grpc_server *s) {
    if (s->waking || !s->ready.first || !s->idle || s->running >= s->limits.workers) return;
    s->waking = true;
    pthread_cond_signal(&s->work);
}
void lk__grpc_ready(struct lk_grpc_call *call) {
    struct lk_grpc_server *s = call->server;
    enum lk_grpc_kind kind = call->method->m.kind;
    pthread_mutex_lock(&s->mutex);
    bool quick = kind <= LK_GRPC_SERVER_STREAM && call->method->mean_ns && call->method->mean_ns < QUICK_NS;
    call->references++;
    call->handed = true;
    push(quick ? &s->quick : &s->ready, call);
    wake_worker(s);
    pthread_mutex_unlock(&s->mutex);
}
void lk__grpc_leave_role(struct lk_grpc_call *call) {
    struct lk_grpc_server *s = call->server;
    if (!call->thread || s->holder != call->thread) return;
    s->holder = NULL;
    s->holder_runs = false;
    pthread_cond_signal(&s->work);
}
/* (mutex), which is free while the handler runs */
static void run(struct lk__grpc_thread *t, struct lk_grpc_call *call) {
    struct lk_grpc_server *s = t->server;
    s->running++;
    s->counts.running = s->running;
    call->thread = t;
    pthread_mutex_unlock(&s->mutex);
    lk__grpc_run(call);
    pthread_mutex_lock(&s->mutex);
    s->running--;
    s->counts.running = s->running;
}
/* Quick handlers by the role itself; false: it was overtaken. */
static bool run_quick(struct lk__grpc_thread *t) {
    struct lk_grpc_server *s = t->server;
    for (int i = 0; i < QUICK_AT_ONCE && s->quick.first && s->running < s->limits.workers; i++) {
        s->holder_runs = true;
        s->holder_round++;
        if (s->watcher_sleeps) pthread_cond_signal(&s->watch_work);
        run(t, pop(&s->quick));
        if (s->holder != t) return false;
        s->holder_runs = false;
    }
    return true;
}
static void hold_role(struct lk__grpc_thread *t) {
    struct lk_grpc_server *s = t->server;
    while (!s->stopping && run_quick(t)) {
        bool wait = !s->quick.first || s->running >= s->limits.workers;
        if (s->closing) lk__grpc_cancel_all(s);
        pthread_mutex_unlock(&s->mutex);
        lk__grpc_poll_round(s, wait);
        pthread_mutex_lock(&s->mutex);
    }
    if (s->holder == t) s->holder = NULL;
}
static void *work(void *arg) {
    struct lk__grpc_thread *t = arg;
    struct lk_grpc_server *s = t->server;
    pthread_mutex_lock(&s->mutex);
    while (!s->stopping) {
        if (s->quick.first && s->running < s->limits.workers) lk__grpc_wake(s);
        if (!s->holder) {
            s->holder = t;
            wake_worker(s);
            hold_role(t);
        } else if (s->ready.first && s->running < s->limits.workers) {
            s->counts.hops++;
            struct lk_grpc_call *call = pop(&s->ready);
            wake_worker(s);
            run(t, call);
        } else {
            s->idle++;
            pthread_cond_wait(&s->work, &s->mutex);
            s->idle--;
            s->waking = false;
        }
    }
    pthread_mutex_unlock(&s->mutex);
    return NULL;
}
/* Takes the role from a handler that does not come back soon. */
static void *watch(void *arg) {
    struct lk_grpc_server *s = arg;
    uint64_t seen = 0;
    int idle = 0;
    pthread_mutex_lock(&s->mutex);
    while (!s->stopping) {
        if (s->holder_runs && s->holder_round == seen && s->holder) {
            s->holder = NULL;
            s->holder_runs = false;
            s->counts.overtaken++;
            pthread_cond_signal(&s->work);
        }
        idle = s->holder_round == seen ? idle + 1 : 0;
        seen = s->holder_round;
        if (idle > WATCH_IDLE) {
            s->watcher_sleeps = true;
            pthread_cond_wait(&s->watch_work, &s->mutex);
            s->watcher_sleeps = false;
            idle = 0;
        }
        pthread_mutex_unlock(&s->mutex);
        nanosleep(&(struct timespec){.tv_nsec = OVERTAKE_NS}, NULL);
        pthread_mutex_lock(&s->mutex);
    }
    pthread_mutex_unlock(&s->mutex);
    return NULL;
}

/* --- opening --- */

static int by_path(const void *a, const void *b) {
    return strcmp(((const struct lk__grpc_method *)a)->m.path, ((const struct lk__grpc_method *)b)->m.path);
}
static int check_method(const struct lk_grpc_method *m, struct lk_err *err) {
    const char *slash = m->path && *m->path == '/' ? strchr(m->path + 1, '/') : NULL;
    if (m->handle && slash && slash > m->path + 1 && slash[1] && !strchr(slash + 1, '/') && m->kind <= LK_GRPC_BIDI)
        return LK_OK;
    return lk_fail(err, LK_EINVAL, "\"%s\" is no method: its path is /package.Service/Method, and it has a handler",
                   m->path ? m->path : "");
}
static void add_methods(struct lk_grpc_server *s, const struct lk_grpc_method *m, size_t count, void *arg) {
    for (size_t i = 0; i < count; i++) {
        struct lk__grpc_method *to = &s->methods[s->method_count++];
        to->m = m[i];
        if (arg) to->m.arg = arg;
    }
}
static int set_methods(struct lk_grpc_server *s, const struct lk_grpc_options *o, struct lk_err *err) {
    if (!(s->methods = lk_calloc(o->method_count + 4, sizeof *s->methods)) ||
        !(s->descriptors = lk_calloc(o->descriptor_count + 3, sizeof *s->descriptors)))
        return lk_fail(err, LK_ENOMEM, "no memory for a server");
    for (size_t i = 0; i < o->method_count; i++) {
        int code = check_method(&o->methods[i], err);
        if (code) return code;
    }
    add_methods(s, o->methods, o->method_count, NULL);
    for (size_t i = 0; i < o->descriptor_count; i++) s->descriptors[s->descriptor_count++] = o->descriptors[i];
    if (!o->no_health) {
        add_methods(s, lk__grpc_health_methods, 2, s);
        s->descriptors[s->descriptor_count++] =
            lk_bytes(lk__proto_grpc_health_v1_health, lk__proto_grpc_health_v1_health_size);
    }
    if (!o->no_reflection) {
        add_methods(s, lk__grpc_reflection_methods, 2, s);
        s->descriptors[s->descriptor_count++] =
            lk_bytes(lk__proto_grpc_reflection_v1_reflection, lk__proto_grpc_reflection_v1_reflection_size);
        s->descriptors[s->descriptor_count++] =
            lk_bytes(lk__proto_grpc_reflection_v1alpha_reflection, lk__proto_grpc_reflection_v1alpha_reflection_size);
    }
    qsort(s->methods, s->method_count, sizeof *s->methods, by_path);
    for (size_t i = 0; i < s->method_count; i++) {
        s->methods[i].watch = !s->methods[i].m.handle;
        if (i && !strcmp(s->methods[i].m.path, s->methods[i - 1].m.path))
            return lk_fail(err, LK_EINVAL, "the method %s is there twice", s->methods[i].m.path);
    }
    return LK_OK;
}
static int start_threads(struct lk_grpc_server *s, struct lk_err *err) {
    int failed = lk_thread_start(&s->watcher, watch, s);
    s->watching = !failed;
    s->thread_count = s->limits.workers + 1;
    if (!(s->threads = lk_calloc(s->thread_count, sizeof *s->threads)))
        return lk_fail(err, LK_ENOMEM, "no memory for a server");
    for (; !failed && s->started < s->thread_count; s->started += !failed) {
        s->threads[s->started].server = s;
        failed = lk_thread_start(&s->threads[s->started].thread, work, &s->threads[s->started]);
    }
    errno = failed;
    return failed
               ? lk_fail_errno(err, "cannot start the %u threads of the gRPC server at %s", s->thread_count, s->at.address)
               : LK_OK;
}
static void free_server(struct lk_grpc_server *s) {
    pthread_mutex_lock(&s->mutex);
    s->stopping = true;
    pthread_cond_broadcast(&s->work);
    pthread_cond_broadcast(&s->watch_work);
    s->sleeping = true; /* whoever polls, or will */
    if (s->wake >= 0) lk__grpc_wake(s);
    pthread_mutex_unlock(&s->mutex);
    for (uint32_t i = 0; i < s->started; i++) pthread_join(s->threads[i].thread, NULL);
    if (s->watching) pthread_join(s->watcher, NULL);
    lk__grpc_poll_close(s);
    lk__net_listener_close(&s->at);
    lk__grpc_health_close(s);
    lk__grpc_tls_close(s->tls);
    if (s->callbacks) lk__net_h2.session_callbacks_del(s->callbacks);
    if (s->option) lk__net_h2.option_del(s->option);
    pthread_mutex_destroy(&s->mutex);
    pthread_cond_destroy(&s->work), pthread_cond_destroy(&s->watch_work), pthread_cond_destroy(&s->calls_gone);
    lk_free(s->threads);
    lk_free(s->methods);
    lk_free(s->descriptors);
    lk_free(s);
}
int lk_grpc_server_open(const struct lk_grpc_options *o, struct lk_grpc_server **out, struct lk_err *err) {
    int code = lk__net_h2_load(err);
    if (code) return code;
    if (o->limits.workers > 1024 || o->limits.streams > 100000)
        return lk_fail(err, LK_EINVAL, "a gRPC server has at most 1024 workers and 100000 streams a connection");
    struct lk_grpc_server *s = lk_calloc(1, sizeof *s);
    if (!s) return lk_fail(err, LK_ENOMEM, "no memory for a server");
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&s->mutex, NULL);
    pthread_cond_init(&s->work, NULL), pthread_cond_init(&s->watch_work, NULL);
    pthread_cond_init(&s->calls_gone, &monotonic);
    pthread_condattr_destroy(&monotonic);
    s->at.fd = s->epoll = s->wake = -1;
    s->limits = o->limits;
    set_limits(&s->limits);
    s->authorize = o->authorize, s->arg = o->arg;
    code = set_methods(s, o, err);
    if (!code && (o->tls_certificate || o->tls_key)) code = lk__grpc_tls_open(o->tls_certificate, o->tls_key, &s->tls, err);
    if (!code) code = lk__grpc_session_setup(s, err);
    if (!code) code = lk__grpc_metrics_open(s, o->metrics, err);
    if (!code) code = lk_grpc_server_health(s, "", true, err);
    if (!code) lk__net_raise_files(s->limits.connections);
    if (!code) code = lk__net_listen(&s->at, o->listen, err);
    if (!code) code = lk__grpc_poll_open(s, err);
    if (!code) code = start_threads(s, err);
    if (code)
        free_server(s);
    else
        *out = s;
    return code;
}
const char *lk_grpc_server_address(const struct lk_grpc_server *s) {
    return s->at.address;
}
void lk_grpc_server_count(struct lk_grpc_server *s, struct lk_grpc_counts *out) {
    pthread_mutex_lock(&s->mutex);
    *out = s->counts;
    pthread_mutex_unlock(&s->mutex);
}

/* --- closing --- */

void lk_grpc_server_drain(struct lk_grpc_server *s) {
    lk__grpc_health_drain(s);
    pthread_mutex_lock(&s->mutex);
    s->draining = true;
    lk__grpc_wake(s);
    pthread_mutex_unlock(&s->mutex);
}
/* Until all calls, and the connections for a moment, have gone. (mutex) */
static bool wait_for_calls(struct lk_grpc_server *s, uint32_t ms, bool connections) {
    uint64_t until = lk_clock_ns() + ms * LK__GRPC_MS;
    while (s->counts.calls || (connections && s->counts.connections)) {
        uint64_t now = lk_clock_ns(), next = now + 10 * LK__GRPC_MS;
        if (ms != UINT32_MAX && now >= until) return false;
        struct timespec t = {(time_t)(next / 1000000000), (long)(next % 1000000000)};
        pthread_cond_timedwait(&s->calls_gone, &s->mutex, &t);
    }
    return true;
}
void lk_grpc_server_close(struct lk_grpc_server *s, uint32_t grace_ms) {
    if (!s) return;
    lk_grpc_server_drain(s);
    pthread_mutex_lock(&s->mutex);
    wait_for_calls(s, grace_ms, true);
    s->closing = true;
    lk__grpc_wake(s);
    wait_for_calls(s, UINT32_MAX, false);
    pthread_mutex_unlock(&s->mutex);
    free_server(s);
}
