/* Ranks as threads of one process, with a network that delivers late and in any order it likes between pairs of ranks (in
 * order within one). Only tests include this. */
#ifndef LK_TRAIN_FAKE_COMM_H
#define LK_TRAIN_FAKE_COMM_H
#include "base/testing.h"
#include "cluster/comm.h"
#include <pthread.h>
#include <sched.h>

#define FAKE_RANKS 16

struct lk_transfer {
    struct lk_transfer *next; /* of the same kind between the same two, in the order begun */
    struct fake_net *net;
    int from, to;
    bool receive, done;
    char *data;
    size_t size;
    uint32_t delay; /* how many questions it ignores */
};
struct fake_net {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int ranks, waiting;
    uint64_t round;
    bool shares;
    struct test_random random;
    const void *parts[FAKE_RANKS];
    void *memory[FAKE_RANKS];
    uint64_t marks[FAKE_RANKS];
    struct lk_transfer *sends[FAKE_RANKS][FAKE_RANKS], *receives[FAKE_RANKS][FAKE_RANKS];
};
struct fake_comm {
    struct lk_comm c;
    struct fake_net *net;
};

static inline struct fake_net *fake_net_of(struct lk_comm *c) {
    return ((struct fake_comm *)c)->net;
}
/* With the lock held. */
static inline void fake_meet(struct fake_net *n) {
    uint64_t round = n->round;
    if (++n->waiting == n->ranks) {
        n->waiting = 0;
        n->round++;
        pthread_cond_broadcast(&n->changed);
    }
    while (n->round == round) pthread_cond_wait(&n->changed, &n->lock);
}
static inline int fake_gather_all(struct lk_comm *c, void *data, const size_t *offsets, struct lk_err *err) {
    struct fake_net *n = fake_net_of(c);
    (void)err;
    pthread_mutex_lock(&n->lock);
    n->parts[c->rank] = data;
    fake_meet(n);
    for (int r = 0; r < c->ranks; r++)
        if (r != c->rank && offsets[r + 1] > offsets[r])
            memcpy((char *)data + offsets[r], (const char *)n->parts[r] + offsets[r], offsets[r + 1] - offsets[r]);
    fake_meet(n);
    pthread_mutex_unlock(&n->lock);
    return LK_OK;
}

/* Delivers what a pair's first send and receive allow, with the lock held. */
static inline void fake_deliver(struct fake_net *n, int from, int to) {
    for (;;) {
        struct lk_transfer *s = n->sends[from][to], *r = n->receives[from][to];
        if (!s || !r || s->delay || r->delay) return;
        assert_int_equal(s->size, r->size);
        memcpy(r->data, s->data, s->size);
        s->done = r->done = true;
        n->sends[from][to] = s->next;
        n->receives[from][to] = r->next;
        pthread_cond_broadcast(&n->changed);
    }
}
static inline int fake_start(struct lk_comm *c, bool receive, int peer, void *data, size_t size, struct lk_transfer **out,
                             struct lk_err *err) {
    struct fake_net *n = fake_net_of(c);
    struct lk_transfer *t = lk_calloc(1, sizeof *t);
    (void)err;
    pthread_mutex_lock(&n->lock);
    *t = (struct lk_transfer){.net = n,
                              .from = receive ? peer : c->rank,
                              .to = receive ? c->rank : peer,
                              .receive = receive,
                              .data = data,
                              .size = size,
                              .delay = test_random_below(&n->random, 4)};
    struct lk_transfer **end = receive ? &n->receives[t->from][t->to] : &n->sends[t->from][t->to];
    while (*end) end = &(*end)->next;
    *end = t;
    pthread_mutex_unlock(&n->lock);
    *out = t;
    return LK_OK;
}
static inline int fake_test(struct lk_comm *c, struct lk_transfer **t, bool wait, struct lk_err *err) {
    struct fake_net *n = fake_net_of(c);
    struct lk_transfer *x = *t;
    (void)err;
    pthread_mutex_lock(&n->lock);
    do {
        if (x->delay) x->delay--;
        fake_deliver(n, x->from, x->to);
        if (wait && !x->done) { /* the other side may be the one that is late */
            pthread_mutex_unlock(&n->lock);
            sched_yield();
            pthread_mutex_lock(&n->lock);
            struct lk_transfer *other = x->receive ? n->sends[x->from][x->to] : n->receives[x->from][x->to];
            if (other && other->delay) other->delay--;
        }
    } while (wait && !x->done);
    if (x->done) {
        lk_free(x);
        *t = NULL;
    }
    pthread_mutex_unlock(&n->lock);
    return LK_OK;
}

static inline int fake_share(struct lk_comm *c, size_t bytes, struct lk_shared *out, struct lk_err *err) {
    struct fake_net *n = fake_net_of(c);
    (void)err;
    *out = (struct lk_shared){
        .mine = lk_calloc(1, bytes), .bytes = bytes, .all = lk_calloc((size_t)n->ranks, sizeof(void *)), .engine = n};
    pthread_mutex_lock(&n->lock);
    n->memory[c->rank] = out->mine;
    fake_meet(n);
    memcpy(out->all, n->memory, (size_t)n->ranks * sizeof(void *));
    fake_meet(n);
    pthread_mutex_unlock(&n->lock);
    return LK_OK;
}
static inline void fake_unshare(struct lk_comm *c, struct lk_shared *s) {
    struct fake_net *n = fake_net_of(c);
    pthread_mutex_lock(&n->lock);
    fake_meet(n);
    pthread_mutex_unlock(&n->lock);
    lk_free(s->mine);
    lk_free(s->all);
}
static inline void fake_mark(struct lk_comm *c, uint64_t value) {
    struct fake_net *n = fake_net_of(c);
    pthread_mutex_lock(&n->lock);
    assert_true(value >= n->marks[c->rank]);
    n->marks[c->rank] = value;
    pthread_cond_broadcast(&n->changed);
    pthread_mutex_unlock(&n->lock);
}
static inline uint64_t fake_marked(struct lk_comm *c, int rank) {
    struct fake_net *n = fake_net_of(c);
    pthread_mutex_lock(&n->lock);
    uint64_t value = n->marks[rank];
    pthread_mutex_unlock(&n->lock);
    return value;
}
static inline int fake_wait_mark(struct lk_comm *c, int rank, uint64_t value, struct lk_err *err) {
    struct fake_net *n = fake_net_of(c);
    (void)err;
    pthread_mutex_lock(&n->lock);
    while (n->marks[rank] < value) pthread_cond_wait(&n->changed, &n->lock);
    pthread_mutex_unlock(&n->lock);
    return LK_OK;
}
static inline void fake_close(struct lk_comm *c) {
    lk_free(c);
}

static const struct lk_comm_ops fake_ops_shared = {.name = "fake, shared",
                                                   .close = fake_close,
                                                   .gather_all = fake_gather_all,
                                                   .share = fake_share,
                                                   .unshare = fake_unshare,
                                                   .mark = fake_mark,
                                                   .marked = fake_marked,
                                                   .wait_mark = fake_wait_mark};
static const struct lk_comm_ops fake_ops_messages = {
    .name = "fake, messages", .close = fake_close, .gather_all = fake_gather_all, .start = fake_start, .test = fake_test};

static inline void fake_net_init(struct fake_net *n, int ranks, bool shares, struct test_random *r) {
    *n = (struct fake_net){.ranks = ranks, .shares = shares, .random = {test_random_below(r, 1u << 30), 0}};
    pthread_mutex_init(&n->lock, NULL);
    pthread_cond_init(&n->changed, NULL);
}
static inline void fake_net_release(struct fake_net *n) {
    for (int a = 0; a < n->ranks; a++)
        for (int b = 0; b < n->ranks; b++) assert_true(!n->sends[a][b] && !n->receives[a][b]); /* nothing is left over */
    pthread_cond_destroy(&n->changed);
    pthread_mutex_destroy(&n->lock);
}
static inline struct lk_comm *fake_comm_open(struct fake_net *n, int rank) {
    struct fake_comm *f = lk_calloc(1, sizeof *f);
    struct lk_comm *c = &f->c;
    struct lk_err err = {0};
    *f = (struct fake_comm){{.ops = n->shares ? &fake_ops_shared : &fake_ops_messages, .rank = rank, .ranks = n->ranks}, n};
    if (lk__comm_ready(&c, &err)) fail_msg("%s", err.message);
    return c;
}

#endif
