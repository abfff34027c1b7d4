/* Group commit. Calls of lk_kv_update that wait for the write lock stand in a queue; the thread at its head, the leader,
 * takes the lock and runs the calls of all of them in one transaction with one sync (flat combining: Hendler, Incze,
 * Shavit, Tzafrir, SPAA'10). README.md says why each call's result is as if it had been alone. */
#include "lockstep/base/mem.h"
#include "lockstep/base/progress.h"
#include "store/kv/kv_lmdb.h"
#include <errno.h>
#include <sched.h>
#include <unistd.h>

#define BATCH     64                 /* calls in one transaction */
#define LARGE     ((size_t)32 << 20) /* bytes of values; who comes after so many is run alone */
#define MOMENT_NS 1000000
#define RESTARTS  2 /* of a batch without the call that spoilt it; then each call is run alone */

enum outcome {
    WAITS, /* for this batch's commit */
    ALONE, /* to be run by itself after it */
    ENDED  /* its result stands, whatever becomes of the batch */
};
struct lk__kv_lmdb_request {
    struct lk__kv_lmdb_request *next;
    struct lk__kv_lmdb *kv;
    lk_kv_update_fn *fn;
    void *arg;
    enum lk_durability durability;
    int64_t *timestamp_ms, stamp;
    struct lk_err *err;
    int code;
    enum outcome outcome;
    bool leads, done; /* under queue_lock */
    pthread_cond_t wake;
};
struct batch {
    struct lk__kv_lmdb_env *env;
    struct lk__kv_lmdb_txn *txn;
    struct lk__kv_lmdb_request *calls[BATCH]; /* the first is the leader's own */
    size_t count;
    bool changed;
    size_t bytes; /* that it holds in memory until the commit */
};
/* The transaction begins and ends through the seam, as any other: so tests that plant faults there reach it. */
static const struct lk_kv_ops *ops_of(const struct batch *b) {
    return b->calls[0]->kv->base.ops;
}

/* Runs one call in the batch's transaction. False: it failed and has written, so that the transaction must go, or
 * wants to be run again. */
static bool run(struct batch *b, struct lk__kv_lmdb_request *r) {
    struct lk__kv_lmdb_txn txn = {.mdb = b->txn->mdb, .env = b->env, .deletes = b->txn->deletes};
    lk__kv_txn_init(&r->kv->base, true, &txn.base);
    r->code = r->fn(&txn.base, r->arg, r->err);
    LK_ASSERT(!txn.base.cursors); /* close before */
    if (r->code == 0) r->code = lk__kv_txn_check(&txn.base, r->err);
    if (r->code == 0 && r->timestamp_ms) {
        txn.base.dirty = true;
        r->code = r->kv->base.ops->timestamp(&txn.base, &r->stamp, r->err);
    }
    b->txn->deletes = txn.deletes;
    b->bytes += txn.bytes;
    if (r->code == LK_ECONFLICT || (r->code != 0 && txn.base.dirty)) return false;
    b->changed |= txn.base.dirty;
    return true;
}

/* Runs all that wait. The number of a call that spoilt the transaction, or count. */
static size_t run_all(struct batch *b) {
    size_t i = 0;
    b->changed = false;
    b->bytes = 0;
    for (; i < b->count; i++) {
        struct lk__kv_lmdb_request *r = b->calls[i];
        if (r->outcome == WAITS && b->bytes > LARGE) r->outcome = ALONE;
        if (r->outcome == WAITS && !run(b, r)) break;
    }
    return i;
}

/* What ends a transaction of one call is that call's result. */
static struct lk__kv_lmdb_request *only(struct batch *b) {
    return b->count == 1 && b->calls[0]->code == 0 ? b->calls[0] : NULL;
}
static int tell(struct lk__kv_lmdb_request *r, int code) {
    if (r) r->code = code;
    return code;
}
static int begin(struct batch *b) {
    struct lk_kv_txn *txn = NULL;
    struct lk__kv_lmdb_request *r = only(b);
    int code = tell(r, ops_of(b)->begin(&b->calls[0]->kv->base, true, &txn, r ? r->err : NULL));
    if (code == 0) lk__kv_txn_init(&b->calls[0]->kv->base, true, txn);
    b->txn = (struct lk__kv_lmdb_txn *)txn;
    return code;
}
static int commit(struct batch *b) {
    enum lk_durability durability = LK_LAZY;
    for (size_t i = 0; i < b->count; i++)
        if (b->calls[i]->outcome == WAITS && b->calls[i]->code == 0 && b->calls[i]->durability == LK_DURABLE)
            durability = LK_DURABLE;
    struct lk__kv_lmdb_request *r = only(b);
    return tell(r, ops_of(b)->commit(&b->txn->base, durability, false, NULL, r ? r->err : NULL));
}
static void set_outcomes(struct batch *b, enum outcome outcome) {
    for (size_t i = 0; i < b->count; i++)
        if (b->calls[i]->outcome == WAITS) b->calls[i]->outcome = outcome;
}

/* A call that fails after it wrote takes the transaction with it. Where nothing was written before it, its result stands:
 * it has seen what is committed. Else it is run alone, after the others, which are begun anew without it. */
static void commit_together(struct batch *b) {
    for (int turn = 0; turn <= RESTARTS; turn++) {
        int code = begin(b);
        size_t bad = code == 0 ? run_all(b) : b->count;
        if (bad == b->count) {
            if (code == 0) code = commit(b);
            set_outcomes(b, code == 0 || (b->count == 1 && code != LK_ECONFLICT) ? ENDED : ALONE);
            return; /* who is run alone says so for itself */
        }
        ops_of(b)->abort(&b->txn->base);
        b->calls[bad]->outcome = b->changed || b->calls[bad]->code == LK_ECONFLICT ? ALONE : ENDED;
        if (!b->changed) turn--; /* nobody's work was lost, and there is one call less */
    }
    set_outcomes(b, ALONE);
}

/* --- the queue ------------------------------------------------------------------------------------------- */

/* Those whom the last leader has just woken may come again at once. Waiting for them a moment, an eighth of what a commit
 * costs at most, puts them into this transaction; else two halves of them would take turns, with a sync for each. */
static void gather(struct lk__kv_lmdb_env *env) {
    uint64_t moment = env->commit_ns / 8, until = lk_clock_ns() + (moment < MOMENT_NS ? moment : MOMENT_NS);
    while (env->queued < env->batch && lk_clock_ns() < until) {
        pthread_mutex_unlock(&env->queue_lock);
        sched_yield();
        pthread_mutex_lock(&env->queue_lock);
    }
}

/* Takes the head of the queue, whose first is the leader itself. */
static void take(struct batch *b) {
    struct lk__kv_lmdb_env *env = b->env;
    pthread_mutex_lock(&env->queue_lock);
    gather(env);
    while (env->first && b->count < BATCH) {
        b->calls[b->count++] = env->first;
        env->first = env->first->next;
    }
    env->queued -= b->count;
    if (!env->first) env->last = &env->first;
    pthread_mutex_unlock(&env->queue_lock);
}

/* With queue_lock held. A request lives on its thread's stack: nothing touches it after this. */
static void finish(struct lk__kv_lmdb_request *r) {
    if (r->outcome == ENDED && r->code == 0 && r->timestamp_ms) *r->timestamp_ms = r->stamp;
    r->done = true;
    pthread_cond_signal(&r->wake);
}

static void lead(struct lk__kv_lmdb_env *env) {
    struct batch b = {.env = env};
    take(&b);
    uint64_t begun = lk_clock_ns();
    commit_together(&b);
    env->commit_ns = lk_clock_ns() - begun; /* a leader's own */
    env->batch = b.count;
    pthread_mutex_lock(&env->queue_lock);
    for (size_t i = 0; i < b.count; i++) finish(b.calls[i]);
    pthread_mutex_unlock(&env->queue_lock);
    pthread_mutex_lock(&env->queue_lock);
    env->leading = env->first != NULL;
    if (env->first) {
        env->first->leads = true;
        pthread_cond_signal(&env->first->wake);
    }
    pthread_mutex_unlock(&env->queue_lock);
}

int lk__kv_lmdb_update(struct lk_kv *base, lk_kv_update_fn *fn, void *arg, enum lk_durability durability,
                       int64_t *timestamp_ms, struct lk_err *err) {
    struct lk__kv_lmdb *kv = (struct lk__kv_lmdb *)base;
    struct lk__kv_lmdb_env *env = kv->env;
    struct lk__kv_lmdb_request r = {
        .kv = kv, .fn = fn, .arg = arg, .durability = durability, .timestamp_ms = timestamp_ms, .err = err};
    LK_ASSERT(env->pid == getpid()); /* a store opened before fork() cannot be used after it */
    int code = lk__kv_lmdb_may_write(env, err);
    if (code != 0) return code;
    pthread_cond_init(&r.wake, NULL);
    atomic_fetch_add(&kv->transactions, 1);
    pthread_mutex_lock(&env->queue_lock);
    *env->last = &r;
    env->last = &r.next;
    env->queued++;
    r.leads = !env->leading;
    env->leading = true;
    while (!r.leads && !r.done) pthread_cond_wait(&r.wake, &env->queue_lock);
    bool leads = r.leads;
    pthread_mutex_unlock(&env->queue_lock);
    if (leads) lead(env);
    if (r.outcome == ALONE) r.code = lk__kv_update_alone(base, fn, arg, durability, timestamp_ms, err);
    atomic_fetch_sub(&kv->transactions, 1);
    pthread_cond_destroy(&r.wake);
    return r.code;
}
