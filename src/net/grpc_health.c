/* grpc.health.v1: Check, and Watch without a thread for each who watches. */
#include "grpc/health/v1/health.pb-c.h"
#include "net/grpc_inside.h"
#include <string.h>

#define SERVICES 1000

enum { SERVING = 1, NOT_SERVING = 2, SERVICE_UNKNOWN = 3 };

/* (mutex) */
static struct lk__grpc_service *find(struct lk_grpc_server *s, const char *name) {
    for (size_t i = 0; i < s->service_count; i++)
        if (!strcmp(s->services[i].name, name)) return &s->services[i];
    return NULL;
}
static int state(struct lk_grpc_server *s, const char *name) {
    struct lk__grpc_service *found = find(s, name);
    return !found ? SERVICE_UNKNOWN : found->serving && !s->draining ? SERVING : NOT_SERVING;
}

/* --- Check and Watch --- */

static int check(void *server, struct lk_grpc_call *call, struct lk_err *err) {
    struct lk_grpc_server *s = server;
    struct lk_bytes m;
    int code = lk_grpc_receive(call, &m, err);
    if (code) return code;
    Grpc__Health__V1__HealthCheckRequest *q = grpc__health__v1__health_check_request__unpack(NULL, m.size, m.data);
    if (!q) return lk_fail(err, LK_EINVAL, "the request is no grpc.health.v1.HealthCheckRequest");
    pthread_mutex_lock(&s->mutex);
    int is = state(s, q->service);
    pthread_mutex_unlock(&s->mutex);
    grpc__health__v1__health_check_request__free_unpacked(q, NULL);
    if (is == SERVICE_UNKNOWN) return lk_fail(err, LK_ENOTFOUND, "this server knows no such service");
    Grpc__Health__V1__HealthCheckResponse r = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    r.status = (Grpc__Health__V1__HealthCheckResponse__ServingStatus)is;
    return lk_grpc_send_message(call, &r.base, err);
}

/* Field 1, a varint. (mutex) */
static void tell(struct lk_grpc_call *call) {
    const uint8_t message[] = {0x08, (uint8_t)state(call->server, call->watched)};
    (void)lk__grpc_call_put(call, message, sizeof message);
}
void lk__grpc_watch(struct lk_grpc_call *call) {
    struct lk_grpc_server *s = call->server;
    struct lk__grpc_message *m = call->in;
    Grpc__Health__V1__HealthCheckRequest *q =
        m->compressed ? NULL : grpc__health__v1__health_check_request__unpack(NULL, m->size, (const uint8_t *)m->data);
    char *name = q ? lk_strdup(q->service) : NULL;
    if (q) grpc__health__v1__health_check_request__free_unpacked(q, NULL);
    if (!name) {
        lk__grpc_refuse(call, 200, LK_GRPC_INVALID_ARGUMENT, "the request is no plain grpc.health.v1.HealthCheckRequest");
        return;
    }
    pthread_mutex_lock(&s->mutex);
    call->handed = true;
    call->watched = name;
    call->watch_next = s->watches;
    if (call->watch_next) call->watch_next->watch_prev = call;
    s->watches = call;
    tell(call);
    pthread_mutex_unlock(&s->mutex);
}
void lk__grpc_unwatch(struct lk_grpc_call *call) {
    struct lk_grpc_server *s = call->server;
    if (call->watch_next) call->watch_next->watch_prev = call->watch_prev;
    if (call->watch_prev)
        call->watch_prev->watch_next = call->watch_next;
    else
        s->watches = call->watch_next;
    lk_free(call->watched);
    call->watched = NULL;
}
/* name NULL: of all. (mutex) */
static void tell_all(struct lk_grpc_server *s, const char *name) {
    for (struct lk_grpc_call *c = s->watches; c; c = c->watch_next)
        if (!name || !strcmp(c->watched, name)) tell(c);
}

int lk_grpc_server_health(struct lk_grpc_server *s, const char *service, bool serving, struct lk_err *err) {
    int code = LK_OK;
    pthread_mutex_lock(&s->mutex);
    struct lk__grpc_service *found = find(s, service);
    if (!found) {
        char *name = lk_strdup(service);
        struct lk__grpc_service *more =
            s->service_count < SERVICES ? lk_realloc(s->services, (s->service_count + 1) * sizeof *more) : NULL;
        if (more) s->services = more;
        if (s->service_count >= SERVICES)
            code = lk_fail(err, LK_EINVAL, "health of more than %d services", SERVICES);
        else if (!name || !more)
            code = lk_fail(err, LK_ENOMEM, "no memory for the health of %s", service);
        if (code)
            lk_free(name);
        else
            found = &more[s->service_count++], *found = (struct lk__grpc_service){name, !serving};
    }
    if (found && found->serving != serving) found->serving = serving, tell_all(s, service);
    pthread_mutex_unlock(&s->mutex);
    return code;
}
void lk__grpc_health_drain(struct lk_grpc_server *s) {
    pthread_mutex_lock(&s->mutex);
    bool first = !s->draining;
    s->draining = true;
    if (first) tell_all(s, NULL);
    while (s->watches) lk__grpc_call_finish(s->watches, LK_GRPC_UNAVAILABLE, "the server drains", lk_bytes(NULL, 0));
    pthread_mutex_unlock(&s->mutex);
}
void lk__grpc_health_close(struct lk_grpc_server *s) {
    for (size_t i = 0; i < s->service_count; i++) lk_free(s->services[i].name);
    lk_free(s->services);
}

const struct lk_grpc_method lk__grpc_health_methods[2] = {
    {"/grpc.health.v1.Health/Check", LK_GRPC_UNARY, check, NULL},
    {"/grpc.health.v1.Health/Watch", LK_GRPC_SERVER_STREAM, NULL, NULL},
};
