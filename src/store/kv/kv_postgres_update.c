/* lk_kv_update: calls of many threads run one after the other in one transaction, each on what those before it wrote, and
 * share its commit. What met others locks what it used then before it reads again, so that nothing comes between. */
#include "lockstep/base/progress.h"
#include "store/kv/kv_postgres.h"
#include <string.h>

#define MOST_CALLS 64
#define UPDATE_MS  30000

struct lk__kv_pg_call {
    lk_kv_update_fn *fn;
    void *arg;
    enum lk_durability durability;
    int64_t *timestamp_ms;
    int64_t stamp, place; /* place: among those that get their time by the commit */
    struct lk_err err;
    int code;
    bool alone, again, done; /* again: by its own word, so on its own thread */
    struct lk__kv_pg_call *next;
};

struct group {
    struct lk__kv_pg *kv;
    struct lk__kv_pg_call *calls[MOST_CALLS];
    int count;
    struct lk__kv_pg_txn *txn;
    bool dirty;                  /* some call has written, or got a time */
    bool conflict, need_all;     /* the last attempt met others; it depended on what is absent, or had a time */
    struct lk__kv_pg_array keys; /* what it read and wrote */
    bool spoilt;                 /* a call is alone from now on */
    enum lk_durability durability;
};

/* False: it failed and has written, so that all must begin anew without it. */
static bool run_call(struct group *g, struct lk__kv_pg_call *call) {
    struct lk_kv_txn *base = &g->txn->base;
    base->dirty = false, base->failed = 0;
    g->txn->call_time = 0;
    call->place = -1;
    call->code = call->fn(base, call->arg, &call->err);
    LK_ASSERT(!base->cursors); /* close before */
    if (call->code == 0) call->code = lk__kv_txn_check(base, &call->err);
    if (call->code == 0 && call->timestamp_ms) {
        base->dirty = true;
        if (g->txn->time)
            call->code = lk__kv_pg_timestamp(base, &call->stamp, &call->err);
        else
            call->place = g->txn->deferred++;
    }
    if (call->code == LK_ECONFLICT && base->failed == LK_ECONFLICT) return true; /* of all */
    call->again = call->code == LK_ECONFLICT; /* its own word: maybe others must come first */
    call->alone = call->again;
    bool spoilt = call->code != 0 && base->dirty;
    if (call->code == 0 && call->durability == LK_DURABLE) g->durability = LK_DURABLE;
    g->dirty = g->dirty || base->dirty;
    return !spoilt;
}

/* Keys that the attempt read or wrote, in order. */
static void note_conflict(struct group *g) {
    const struct lk__kv_pg_node *r = g->txn->reads.first[0], *w = g->txn->writes.first[0];
    g->conflict = true;
    g->need_all = g->need_all || lk__kv_pg_needs_all_slots(g->txn, g->txn->deferred || g->txn->time);
    lk__kv_pg_array_begin(&g->keys, PG_BYTEA);
    while (r || w) {
        int order = !r ? 1 : !w ? -1 : lk__kv_pg_compare(r->key, w->key);
        lk__kv_pg_array_add(&g->keys, order <= 0 ? r->key : w->key);
        if (order <= 0) r = r->after[0];
        if (order >= 0) w = w->after[0];
    }
}

/* Once for all calls that are not alone. 0: their codes and stamps stand. */
static int run_group(struct group *g, struct lk_err *err) {
    struct lk_kv_txn *base;
    int64_t last = 0;
    int code = lk__kv_pg_begin(&g->kv->base, true, &base, err), live = 0;
    if (code != 0) return code;
    lk__kv_txn_init(&g->kv->base, true, base);
    g->txn = (struct lk__kv_pg_txn *)base;
    g->dirty = g->spoilt = false;
    g->durability = LK_LAZY;
    struct lk__kv_pg_param keys = g->conflict ? lk__kv_pg_array_end(&g->keys) : (struct lk__kv_pg_param){NULL, 0};
    if (g->conflict) code = lk__kv_pg_hold(g->txn, g->need_all || !keys.data ? NULL : &keys, err);
    for (int i = 0; i < g->count && code == 0; i++) {
        struct lk__kv_pg_call *call = g->calls[i];
        if (call->alone) continue;
        live++;
        if (!run_call(g, call)) call->alone = g->spoilt = true, code = lk_fail(err, LK_EBUSY, "begun anew");
        if (call->code == LK_ECONFLICT && !call->again) code = lk_fail(err, LK_ECONFLICT, "%s", call->err.message);
    }
    bool stamped = g->txn->deferred || g->txn->time;
    base->dirty = g->dirty;
    if (code == 0 && live) {
        if (g->txn->conn) { /* the commit may use it */
            lk__kv_pg_send_text(g->txn->conn, "COMMIT", NULL, 0);
            lk__kv_pg_sync(g->txn->conn);
            lk__kv_pg_give(g->txn->conn);
            g->txn->conn = NULL;
        }
        code = lk__kv_pg_commit(g->txn, g->durability, stamped, &last, err);
    }
    for (int i = 0; i < g->count && code == 0; i++) {
        struct lk__kv_pg_call *call = g->calls[i];
        if (!call->alone && call->place >= 0)
            call->stamp = (g->txn->time ? g->txn->next_time : last - g->txn->deferred + 1) + call->place;
    }
    if (code == LK_ECONFLICT) note_conflict(g);
    for (int i = 0; i < g->count && code != 0 && g->txn->unknown; i++)
        if (!g->calls[i]->alone) g->calls[i]->code = lk_fail(&g->calls[i]->err, code, "%s", err->message);
    if (g->txn->unknown) code = 0;
    lk__kv_pg_end(g->txn);
    return code;
}

/* Gives every call its code. */
static void run_calls(struct group *g) {
    struct lk_err err;
    uint64_t deadline = lk_clock_ns() + UPDATE_MS * 1000000ull;
    int turn = 0, code;
    for (;;) {
        bool held = g->conflict;
        code = run_group(g, &err);
        if (g->spoilt) continue; /* one call less */
        if (code != LK_ECONFLICT) break;
        if (held && !lk__kv_pg_pause(&turn, deadline)) break;
    }
    for (int i = 0; i < g->count; i++) {
        struct lk__kv_pg_call *call = g->calls[i];
        if (code != 0 && g->count == 1)
            call->code = call->alone ? call->code : lk_fail(&call->err, code, "%s", err.message);
        if (g->count == 1 || call->again || (code == 0 && !call->alone)) continue;
        call->code = lk__kv_update_alone(&g->kv->base, call->fn, call->arg, call->durability,
                                         call->timestamp_ms ? &call->stamp : NULL, &call->err);
    }
}

/* The lock is held. */
static void lead(struct lk__kv_pg *kv) {
    struct group g = {.kv = kv};
    while (kv->calls && g.count < MOST_CALLS) g.calls[g.count++] = kv->calls, kv->calls = kv->calls->next;
    if (!kv->calls) kv->calls_end = &kv->calls;
    kv->calls_led = true;
    pthread_mutex_unlock(&kv->lock);
    run_calls(&g);
    lk__kv_pg_array_release(&g.keys);
    pthread_mutex_lock(&kv->lock);
    for (int i = 0; i < g.count; i++) g.calls[i]->done = true;
    kv->calls_led = false;
    pthread_cond_broadcast(&kv->done);
}

int lk__kv_pg_update(struct lk_kv *base, lk_kv_update_fn *fn, void *arg, enum lk_durability durability,
                     int64_t *timestamp_ms, struct lk_err *err) {
    struct lk__kv_pg *kv = (struct lk__kv_pg *)base;
    struct lk__kv_pg_call call = {.fn = fn, .arg = arg, .durability = durability, .timestamp_ms = timestamp_ms};
    pthread_mutex_lock(&kv->lock);
    *kv->calls_end = &call;
    kv->calls_end = &call.next;
    while (!call.done) {
        if (kv->calls_led)
            pthread_cond_wait(&kv->done, &kv->lock);
        else
            lead(kv);
    }
    pthread_mutex_unlock(&kv->lock);
    if (call.again) return lk__kv_update_alone(base, fn, arg, durability, timestamp_ms, err); /* keeps nobody waiting */
    if (call.code != 0 && err) *err = call.err;
    if (call.code == 0 && timestamp_ms) *timestamp_ms = call.stamp;
    return call.code;
}
