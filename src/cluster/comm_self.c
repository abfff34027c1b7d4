/* One process alone: everything is told already. Needs nothing but base, so it runs wherever the engine does. */
#include "cluster/comm.h"
#include "lockstep/base/mem.h"

struct self {
    struct lk_comm c;
    uint64_t mark;
};
struct memory {
    struct lk_arena arena; /* page-aligned, zero, huge pages advised */
    void *all[1];
};

static void self_close(struct lk_comm *c) {
    lk_free(c);
}

static int self_dup(struct lk_comm *c, struct lk_comm **out, struct lk_err *err) {
    (void)c;
    return lk__comm_self_open(out, err);
}

static int self_gather_all(struct lk_comm *c, void *data, const size_t *offsets, struct lk_err *err) {
    (void)c, (void)data, (void)offsets, (void)err;
    return LK_OK;
}

static int self_share(struct lk_comm *c, size_t bytes, struct lk_shared *out, struct lk_err *err) {
    (void)c;
    struct memory *m = lk_calloc(1, sizeof *m);
    if (!m || lk_arena_init(&m->arena, bytes) || !(m->all[0] = lk_arena_take(&m->arena, bytes))) {
        if (m) lk_arena_release(&m->arena);
        lk_free(m);
        return lk_fail(err, LK_ENOMEM, "out of memory for %zu bytes", bytes);
    }
    *out = (struct lk_shared){.mine = m->all[0], .bytes = bytes, .all = m->all, .engine = m};
    return LK_OK;
}

static void self_unshare(struct lk_comm *c, struct lk_shared *s) {
    (void)c;
    struct memory *m = s->engine;
    lk_arena_release(&m->arena);
    lk_free(m);
}

static void self_mark(struct lk_comm *c, uint64_t value) {
    struct self *s = (struct self *)c;
    LK_ASSERT(value >= s->mark);
    s->mark = value;
}

static uint64_t self_marked(struct lk_comm *c, int rank) {
    (void)rank;
    return ((struct self *)c)->mark;
}

/* Nobody else could ever mark it. */
static int self_wait_mark(struct lk_comm *c, int rank, uint64_t value, struct lk_err *err) {
    (void)rank, (void)err;
    LK_ASSERT(((struct self *)c)->mark >= value);
    return LK_OK;
}

static const struct lk_comm_ops ops = {.name = "self",
                                       .close = self_close,
                                       .dup = self_dup,
                                       .gather_all = self_gather_all,
                                       .share = self_share,
                                       .unshare = self_unshare,
                                       .mark = self_mark,
                                       .marked = self_marked,
                                       .wait_mark = self_wait_mark};

int lk__comm_self_open(struct lk_comm **out, struct lk_err *err) {
    struct self *s = lk_calloc(1, sizeof *s);
    if (!s) return lk_fail(err, LK_ENOMEM, "out of memory");
    s->c = (struct lk_comm){.ops = &ops, .ranks = 1, .ranks_here = 1};
    *out = &s->c;
    return LK_OK;
}
