/* Which checkpoints of a run are kept, and which blobs may go with one that is not. */
#include "retention.h"
#include "ledger.h"

#include <string.h>

static void add_root(struct lk__train_dropped *r, const struct lk_root *root) {
    if (r->count == r->capacity) {
        size_t more = r->capacity ? 2 * r->capacity : 64;
        struct lk_root *list = lk_realloc(r->list, more * sizeof *list);
        if (!list) {
            r->code = LK_ENOMEM;
            return;
        }
        r->list = list;
        r->capacity = more;
    }
    r->list[r->count++] = *root;
}

/* --- Rows ------------------------------------------------------------------------------------------------ */

int lk__train_checkpoint_put(struct lk_kv_txn *t, const char *run, const struct lk_checkpoint *c, struct lk_err *err) {
    char key[LK_KV_KEY_MAX], value[65];
    memcpy(value, c->state.bytes, 32);
    memcpy(value + 32, c->weights.bytes, 32);
    value[64] = c->kept;
    return lk_kv_put(t, lk_bytes(key, lk__train_step_key(key, 'c', run, c->step)), lk_bytes(value, sizeof value), err);
}

struct dropping {
    const char *run;
    const struct lk_lease *lease;
    struct lk_checkpoint checkpoint;
};
static int put_dropped(struct lk_kv_txn *t, void *arg, struct lk_err *err) {
    const struct dropping *d = arg;
    int code = lk_lease_check(d->lease, t, err);
    return code ? code : lk__train_checkpoint_put(t, d->run, &d->checkpoint, err);
}
int lk__train_checkpoint_drop(struct lk_store *store, const char *run, const struct lk_lease *lease,
                              const struct lk_checkpoint *c, struct lk_err *err) {
    struct dropping d = {run, lease, *c};
    d.checkpoint.kept = false;
    return lk_kv_update(store->kv, put_dropped, &d, LK_DURABLE, NULL, err);
}

/* --- Which checkpoints are kept -------------------------------------------------------------------------- */

/* The held-out loss at a step, if it was evaluated then and is a number. */
static int loss_at(struct lk_kv_txn *t, const char *run, uint32_t step, bool *there, double *loss, struct lk_err *err) {
    struct lk_eval_row row;
    int code = lk__train_ledger_eval(t, run, step, &row, err);
    *there = code == LK_OK && row.loss - row.loss == 0;
    if (*there) *loss = row.loss;
    return code == LK_ENOTFOUND ? LK_OK : code;
}

int lk__train_best(struct lk_kv_txn *t, const char *run, const struct lk_checkpoint *list, size_t count, size_t *best,
                   struct lk_err *err) {
    double least = 0, loss = 0;
    *best = SIZE_MAX;
    for (size_t i = 0; i < count; i++) {
        bool there = false;
        int code = list[i].kept ? loss_at(t, run, list[i].step, &there, &loss, err) : LK_OK;
        if (code) return code;
        if (!there || (*best != SIZE_MAX && loss >= least)) continue;
        least = loss;
        *best = i;
    }
    return LK_OK;
}

/* The best of those before, unless the new one is better: among equals the older one stays. */
static int best_before(struct lk_kv_txn *t, const char *run, const struct lk_checkpoint *new_one,
                       const struct lk_checkpoint *list, size_t count, size_t *best, struct lk_err *err) {
    double old = 0, now = 0;
    bool there = false;
    int code = lk__train_best(t, run, list, count, best, err);
    if (code || *best == SIZE_MAX) return code;
    code = loss_at(t, run, list[*best].step, &there, &old, err);
    if (!code) code = loss_at(t, run, new_one->step, &there, &now, err);
    if (!code && there && now < old) *best = SIZE_MAX;
    return code;
}

int lk__train_retain(struct lk_kv_txn *t, const char *run, const struct lk__train_keep *keep,
                     const struct lk_checkpoint *new_one, struct lk_checkpoint *list, size_t count,
                     struct lk__train_dropped *dropped, struct lk_err *err) {
    size_t best = SIZE_MAX;
    uint32_t kept = 1;
    int code = keep->newest && keep->best ? best_before(t, run, new_one, list, count, &best, err) : LK_OK;
    for (size_t i = count; i-- > 0 && !code;) {
        if (list[i].step == new_one->step || !list[i].kept || keep->newest == 0) continue;
        if (kept < keep->newest) {
            kept++;
            continue;
        }
        if (i == best) continue;
        list[i].kept = false;
        code = lk__train_checkpoint_put(t, run, &list[i], err);
        add_root(dropped, &list[i].state);
    }
    return code;
}
