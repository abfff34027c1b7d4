/* The public functions over an engine. */
#include "cluster/comm.h"
#include "lockstep/base/mem.h"
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

int lk__comm_ready(struct lk_comm **out, struct lk_err *err) {
    struct lk_comm *c = *out;
    c->offsets = lk_calloc((size_t)c->ranks + 1, sizeof *c->offsets);
    c->codes = lk_calloc((size_t)c->ranks, sizeof *c->codes);
    if (c->offsets && c->codes) return LK_OK;
    int ranks = c->ranks;
    lk_comm_break(c); /* the others know nothing of it */
    lk_comm_close(c);
    *out = NULL;
    return lk_fail(err, LK_ENOMEM, "out of memory for what %d ranks tell each other", ranks);
}

int lk_comm_open_self(struct lk_comm **out, struct lk_err *err) {
    *out = NULL;
    int code = lk__comm_self_open(out, err);
    return code ? code : lk__comm_ready(out, err);
}

/* --- broken ---------------------------------------------------------------------------------------------- */

static atomic_bool broken; /* of the process: its ranks are one job */

bool lk_comm_broken(void) {
    return atomic_load(&broken);
}

void lk_comm_break(const struct lk_comm *c) {
    if (c->ranks > 1) atomic_store(&broken, true);
}

static int refuse(struct lk_err *err) {
    return lk_fail(err, LK_EIO, "the ranks have lost each other after a failure");
}

/* --- handles --------------------------------------------------------------------------------------------- */

int lk_comm_dup(struct lk_comm *c, struct lk_comm **out, struct lk_err *err) {
    *out = NULL;
    if (lk_comm_broken()) return refuse(err);
    int code = c->ops->dup(c, out, err);
    if (code && !c->ops->share) lk_comm_break(c); /* ranks that share memory have agreed on it */
    return code ? code : lk__comm_ready(out, err);
}

void lk_comm_close(struct lk_comm *c) {
    if (!c) return;
    c->broken = lk_comm_broken();
    lk_free(c->offsets);
    lk_free(c->codes);
    c->ops->close(c);
}

int lk_comm_rank(const struct lk_comm *c) {
    return c->rank;
}
int lk_comm_ranks(const struct lk_comm *c) {
    return c->ranks;
}
const char *lk_comm_engine(const struct lk_comm *c) {
    return c->ops->name;
}
int lk_comm_ranks_here(const struct lk_comm *c) {
    return c->ranks_here;
}
bool lk_comm_shares(const struct lk_comm *c) {
    return c->ops->share != NULL;
}

/* A failed operation, which the others do not know of. One rank alone needs no number to be found. */
static int named(const struct lk_comm *c, const char *name, int code, struct lk_err *err) {
    if (code) lk_comm_break(c);
    if (!code || !err) return code;
    return c->ranks == 1 ? lk_fail_prefix(err, code, "%s", name) : lk_fail_prefix(err, code, "rank %d: %s", c->rank, name);
}

static bool is_rank(const struct lk_comm *c, int rank) {
    return rank >= 0 && rank < c->ranks;
}

/* --- together -------------------------------------------------------------------------------------------- */

int lk_comm_gather_all(struct lk_comm *c, const char *name, void *data, const size_t *offsets, struct lk_err *err) {
    LK_ASSERT(offsets[0] == 0);
    for (int r = 0; r < c->ranks; r++) LK_ASSERT(offsets[r] <= offsets[r + 1]);
    LK_ASSERT(data || !offsets[c->ranks]);
    if (lk_comm_broken()) return refuse(err);
    return named(c, name, c->ops->gather_all(c, data, offsets, err), err);
}

/* All bytes are one rank's. */
static int broadcast_from(struct lk_comm *c, int from, void *data, size_t size, struct lk_err *err) {
    for (int r = 0; r <= c->ranks; r++) c->offsets[r] = r > from ? size : 0;
    return c->ops->gather_all(c, data, c->offsets, err);
}

int lk_comm_broadcast(struct lk_comm *c, const char *name, void *data, size_t size, struct lk_err *err) {
    LK_ASSERT(data || !size);
    if (lk_comm_broken()) return refuse(err);
    return named(c, name, broadcast_from(c, 0, data, size, err), err);
}

static int gather_codes(struct lk_comm *c, int code, struct lk_err *err) {
    for (int r = 0; r <= c->ranks; r++) c->offsets[r] = (size_t)r * sizeof *c->codes;
    c->codes[c->rank] = code;
    return c->ops->gather_all(c, c->codes, c->offsets, err);
}

int lk_comm_barrier(struct lk_comm *c, const char *name, struct lk_err *err) {
    if (lk_comm_broken()) return refuse(err);
    return named(c, name, gather_codes(c, LK_OK, err), err);
}

int lk_comm_agree(struct lk_comm *c, const char *name, int code, struct lk_err *err) {
    struct lk_err transport = {0}, told = {0};
    LK_ASSERT(err || !code);
    if (c->ranks == 1) return code;
    if (lk_comm_broken()) return code ? code : refuse(err);
    int lost = gather_codes(c, code, &transport);
    int failed = 0;
    while (!lost && failed < c->ranks && !c->codes[failed]) failed++;
    if (!lost && failed == c->ranks) return LK_OK;
    if (!lost) {
        if (failed == c->rank) snprintf(told.message, sizeof told.message, "%s", err->message);
        lost = broadcast_from(c, failed, told.message, sizeof told.message, &transport);
    }
    if (lost) { /* what we did wrong ourselves says more than that nobody heard of it */
        lk_comm_break(c);
        if (code) return code;
        if (err) *err = transport;
        return named(c, name, lost, err);
    }
    told.message[sizeof told.message - 1] = 0;
    if (failed == c->rank && failed == 0) return code;
    return failed ? lk_fail(err, c->codes[failed], "rank %d: %s", failed, told.message)
                  : lk_fail(err, c->codes[failed], "%s", told.message);
}

/* --- between two ranks ----------------------------------------------------------------------------------- */

static int start(struct lk_comm *c, const char *name, bool receive, int peer, void *data, size_t size,
                 struct lk_transfer **out, struct lk_err *err) {
    LK_ASSERT(is_rank(c, peer) && peer != c->rank && (data || !size));
    *out = NULL;
    if (lk_comm_broken()) return refuse(err);
    return named(c, name, c->ops->start(c, receive, peer, data, size, out, err), err);
}

int lk_comm_send(struct lk_comm *c, const char *name, int to, const void *data, size_t size, struct lk_transfer **out,
                 struct lk_err *err) {
    return start(c, name, false, to, (void *)(uintptr_t)data, size, out, err); /* an engine only reads what it sends */
}

int lk_comm_receive(struct lk_comm *c, const char *name, int from, void *data, size_t size, struct lk_transfer **out,
                    struct lk_err *err) {
    return start(c, name, true, from, data, size, out, err);
}

int lk_comm_test(struct lk_comm *c, struct lk_transfer **t, bool wait, struct lk_err *err) {
    if (!*t) return LK_OK;
    if (lk_comm_broken()) return refuse(err);
    return named(c, wait ? "waiting for a transfer" : "asking for a transfer", c->ops->test(c, t, wait, err), err);
}

/* --- memory that all ranks see --------------------------------------------------------------------------- */

int lk_comm_share(struct lk_comm *c, const char *name, size_t bytes, struct lk_shared *out, struct lk_err *err) {
    LK_ASSERT(bytes > 0);
    *out = (struct lk_shared){0};
    if (!c->ops->share)
        return lk_fail(err, LK_EUNSUPPORTED, "%s: these ranks share no memory, they talk over %s", name, c->ops->name);
    if (lk_comm_broken()) return refuse(err);
    int code = c->ops->share(c, bytes, out, err); /* agreed on, unless it broke something on the way */
    return code && err ? lk_fail_prefix(err, code, "%s", name) : code;
}

void lk_comm_unshare(struct lk_comm *c, struct lk_shared *s) {
    if (s->engine) c->ops->unshare(c, s);
    *s = (struct lk_shared){0};
}

void lk_comm_mark(struct lk_comm *c, uint64_t value) {
    LK_ASSERT(c->ops->mark);
    c->ops->mark(c, value);
}

uint64_t lk_comm_marked(struct lk_comm *c, int rank) {
    LK_ASSERT(c->ops->marked && is_rank(c, rank));
    return c->ops->marked(c, rank);
}

int lk_comm_wait_mark(struct lk_comm *c, const char *name, int rank, uint64_t value, struct lk_err *err) {
    LK_ASSERT(c->ops->wait_mark && is_rank(c, rank));
    if (lk_comm_broken()) return refuse(err);
    return named(c, name, c->ops->wait_mark(c, rank, value, err), err);
}
