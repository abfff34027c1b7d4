/* The ledger: one row a step. Rows are appended without waiting for the disk and become durable with the next checkpoint; a
 * step executed again must give its old row. Layout of the rows: docs/formats.md. */
#include "ledger.h"

#include "lockstep/base/progress.h"
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define ROW_BYTES  48
#define EVAL_BYTES 24
#define FLUSH_NS   250000000ull

struct lk__train_ledger {
    struct lk_store *store;
    const struct lk_lease *lease;
    char *run;
    pthread_mutex_t lock; /* guards what follows; never held while waiting for a write transaction */
    struct lk_ledger_row *rows;
    size_t count, capacity;
    struct lk_eval_row evals[8];
    size_t eval_count;
    uint64_t flushed_ns;
};

size_t lk__train_step_key(char *key, char letter, const char *run, uint32_t step) {
    int n = snprintf(key, LK_KV_KEY_MAX, "%c/%s/", letter, run);
    for (int i = 0; i < 4; i++) key[n + i] = (char)(step >> (24 - 8 * i));
    return (size_t)n + 4;
}

uint32_t lk__train_step_of_key(struct lk_bytes key) {
    const unsigned char *k = (const unsigned char *)key.data + key.size - 4;
    return (uint32_t)k[0] << 24 | (uint32_t)k[1] << 16 | (uint32_t)k[2] << 8 | k[3];
}

static void put64(unsigned char *p, uint64_t v) {
    for (int i = 0; i < 8; i++) p[i] = (unsigned char)(v >> (8 * i));
}
static uint64_t get64(const unsigned char *p) {
    uint64_t v = 0;
    for (int i = 0; i < 8; i++) v |= (uint64_t)p[i] << (8 * i);
    return v;
}
static void put_double(unsigned char *p, double v) {
    uint64_t bits;
    memcpy(&bits, &v, 8);
    put64(p, bits);
}
static double get_double(const unsigned char *p) {
    uint64_t bits = get64(p);
    double v;
    memcpy(&v, &bits, 8);
    return v;
}

static void encode_row(const struct lk_ledger_row *r, unsigned char *p) {
    put64(p, r->step);
    put_double(p + 8, r->loss);
    put_double(p + 16, r->gradient_norm);
    put_double(p + 24, r->learning_rate);
    put64(p + 32, r->tokens);
    put_double(p + 40, r->seconds);
}
static bool decode_row(struct lk_bytes v, struct lk_ledger_row *r) {
    const unsigned char *p = v.data;
    if (v.size != ROW_BYTES) return false;
    *r = (struct lk_ledger_row){.step = (uint32_t)get64(p),
                                .loss = get_double(p + 8),
                                .gradient_norm = get_double(p + 16),
                                .learning_rate = get_double(p + 24),
                                .tokens = get64(p + 32),
                                .seconds = get_double(p + 40)};
    return true;
}

int lk__train_ledger_open(struct lk_store *store, const char *run, const struct lk_lease *lease,
                          struct lk__train_ledger **out, struct lk_err *err) {
    struct lk__train_ledger *l = lk_calloc(1, sizeof *l);
    if (l) l->run = lk_strdup(run);
    if (!l || !l->run) {
        lk_free(l);
        return lk_fail(err, LK_ENOMEM, "no memory for the ledger");
    }
    l->store = store;
    l->lease = lease;
    pthread_mutex_init(&l->lock, NULL);
    *out = l;
    return LK_OK;
}

void lk__train_ledger_close(struct lk__train_ledger *l) {
    if (!l) return;
    pthread_mutex_destroy(&l->lock);
    lk_free(l->rows);
    lk_free(l->run);
    lk_free(l);
}

void lk__train_ledger_compare(const struct lk_ledger_row *a, const struct lk_ledger_row *b, char *what, size_t size) {
    what[0] = 0;
    if (a->tokens != b->tokens)
        snprintf(what, size, "tokens %llu, now %llu", (unsigned long long)a->tokens, (unsigned long long)b->tokens);
    else if (memcmp(&a->learning_rate, &b->learning_rate, 8))
        snprintf(what, size, "learning rate %a, now %a", a->learning_rate, b->learning_rate);
    else if (memcmp(&a->loss, &b->loss, 8))
        snprintf(what, size, "loss %a, now %a", a->loss, b->loss);
    else if (memcmp(&a->gradient_norm, &b->gradient_norm, 8))
        snprintf(what, size, "gradient norm %a, now %a", a->gradient_norm, b->gradient_norm);
}

/* A row that is there already must agree; its old timing stays. */
static int put_row(struct lk_kv_txn *t, const char *run, const struct lk_ledger_row *row, struct lk_err *err) {
    char key[LK_KV_KEY_MAX], what[200];
    unsigned char value[ROW_BYTES];
    struct lk_bytes k = lk_bytes(key, lk__train_step_key(key, 'l', run, row->step)), old;
    struct lk_ledger_row before;
    int code = lk_kv_get(t, k, &old, err);
    if (code == LK_OK) {
        if (!decode_row(old, &before) || before.step != row->step)
            return lk_fail(err, LK_ECORRUPT,
                           "run %s: the ledger's row of step %u is damaged; go on as a new run from what is kept: "
                           "`lockstep train --from %s`",
                           run, row->step, run);
        lk__train_ledger_compare(&before, row, what, sizeof what);
        if (*what)
            return lk_fail(
                err, LK_EDIVERGED,
                "run %s is not deterministic: step %u executed again differs from its ledger: %s; run `lockstep doctor` "
                "on this machine and on the one that ran it before, resume on one that agrees with the ledger, or go on as "
                "a new run from what is kept: `lockstep train --from %s`",
                run, row->step, what, run);
        return LK_OK;
    }
    if (code != LK_ENOTFOUND) return code;
    encode_row(row, value);
    return lk_kv_put(t, k, lk_bytes(value, sizeof value), err);
}

static int put_eval(struct lk_kv_txn *t, const char *run, const struct lk_eval_row *e, struct lk_err *err) {
    char key[LK_KV_KEY_MAX];
    unsigned char value[EVAL_BYTES];
    put_double(value, e->loss);
    put64(value + 8, e->targets);
    put64(value + 16, e->bytes);
    return lk_kv_put(t, lk_bytes(key, lk__train_step_key(key, 'e', run, e->step)), lk_bytes(value, sizeof value), err);
}

int lk__train_ledger_write(struct lk__train_ledger *l, struct lk_kv_txn *t, struct lk_err *err) {
    int code = l->lease ? lk_lease_check(l->lease, t, err) : LK_OK;
    pthread_mutex_lock(&l->lock);
    for (size_t i = 0; i < l->count && !code; i++) code = put_row(t, l->run, &l->rows[i], err);
    for (size_t i = 0; i < l->eval_count && !code; i++) code = put_eval(t, l->run, &l->evals[i], err);
    pthread_mutex_unlock(&l->lock);
    return code;
}

/* Drops from the buffer what a transaction that began when it held `rows` and `evals` entries has committed. */
static void drop(struct lk__train_ledger *l, size_t rows, size_t evals) {
    pthread_mutex_lock(&l->lock);
    memmove(l->rows, l->rows + rows, (l->count - rows) * sizeof *l->rows);
    l->count -= rows;
    memmove(l->evals, l->evals + evals, (l->eval_count - evals) * sizeof *l->evals);
    l->eval_count -= evals;
    l->flushed_ns = lk_clock_ns();
    pthread_mutex_unlock(&l->lock);
}

static int write_all(struct lk_kv_txn *t, void *arg, struct lk_err *err) {
    return lk__train_ledger_write(arg, t, err);
}
int lk__train_ledger_flush(struct lk__train_ledger *l, struct lk_err *err) {
    pthread_mutex_lock(&l->lock);
    size_t rows = l->count, evals = l->eval_count;
    pthread_mutex_unlock(&l->lock);
    if (!rows && !evals) return LK_OK;
    int code = lk_kv_update(l->store->kv, write_all, l, LK_LAZY, NULL, err);
    if (!code) drop(l, rows, evals);
    return code;
}

int lk__train_ledger_reserve(struct lk__train_ledger *l, struct lk_err *err) {
    int code = LK_OK;
    pthread_mutex_lock(&l->lock);
    if (l->count == l->capacity) {
        size_t more = l->capacity ? 2 * l->capacity : 64;
        struct lk_ledger_row *rows = lk_realloc(l->rows, more * sizeof *rows);
        if (rows) {
            l->rows = rows;
            l->capacity = more;
        } else
            code = lk_fail(err, LK_ENOMEM, "no memory for the ledger");
    }
    pthread_mutex_unlock(&l->lock);
    return code;
}

int lk__train_ledger_append(struct lk__train_ledger *l, const struct lk_ledger_row *row, struct lk_err *err) {
    int code = lk__train_ledger_reserve(l, err);
    if (code) return code;
    pthread_mutex_lock(&l->lock);
    l->rows[l->count++] = *row;
    bool due = lk_clock_ns() - l->flushed_ns > FLUSH_NS;
    pthread_mutex_unlock(&l->lock);
    return due ? lk__train_ledger_flush(l, err) : LK_OK;
}

int lk__train_ledger_append_eval(struct lk__train_ledger *l, const struct lk_eval_row *row, struct lk_err *err) {
    pthread_mutex_lock(&l->lock);
    bool full = l->eval_count == sizeof l->evals / sizeof *l->evals;
    pthread_mutex_unlock(&l->lock);
    int code = full ? lk__train_ledger_flush(l, err) : LK_OK;
    if (code) return code;
    pthread_mutex_lock(&l->lock);
    l->evals[l->eval_count++] = *row;
    pthread_mutex_unlock(&l->lock);
    return LK_OK;
}

/* --- Reading --------------------------------------------------------------------------------------------- */

struct listing {
    const char *run;
    lk_ledger_fn *row;
    lk_eval_fn *eval;
    void *arg;
    struct lk_err *err;
};

static int list_row(void *arg, struct lk_bytes key, struct lk_bytes value) {
    struct listing *g = arg;
    struct lk_ledger_row row;
    uint32_t step = lk__train_step_of_key(key);
    if (!decode_row(value, &row) || row.step != step)
        return lk_fail(g->err, LK_ECORRUPT,
                       "run %s: the ledger's row of step %u is damaged; go on as a new run from what is kept: "
                       "`lockstep train --from %s`",
                       g->run, step, g->run);
    return g->row(g->arg, &row);
}

int lk_ledger_list(struct lk_store *store, const char *run, uint32_t from, uint32_t to, lk_ledger_fn *fn, void *arg,
                   struct lk_err *err) {
    char a[LK_KV_KEY_MAX], b[LK_KV_KEY_MAX];
    struct listing g = {.run = run, .row = fn, .arg = arg, .err = err};
    struct lk_kv_txn *t;
    int code = lk_kv_begin(store->kv, false, &t, err);
    if (code) return code;
    size_t an = lk__train_step_key(a, 'l', run, from), bn = lk__train_step_key(b, 'l', run, to == UINT32_MAX ? to : to + 1);
    code = lk_kv_scan(t, lk_bytes(a, an), lk_bytes(b, bn), list_row, &g, err);
    lk_kv_abort(t);
    return code;
}

static int decode_eval(const char *run, uint32_t step, struct lk_bytes value, struct lk_eval_row *out, struct lk_err *err) {
    const unsigned char *v = value.data;
    if (value.size != EVAL_BYTES)
        return lk_fail(err, LK_ECORRUPT,
                       "run %s: the row of the evaluation at step %u is damaged; go on as a new run from "
                       "what is kept: `lockstep train --from %s`",
                       run, step, run);
    *out = (struct lk_eval_row){.step = step, .loss = get_double(v), .targets = get64(v + 8), .bytes = get64(v + 16)};
    return LK_OK;
}

int lk__train_ledger_eval(struct lk_kv_txn *t, const char *run, uint32_t step, struct lk_eval_row *out,
                          struct lk_err *err) {
    char key[LK_KV_KEY_MAX];
    struct lk_bytes value;
    int code = lk_kv_get(t, lk_bytes(key, lk__train_step_key(key, 'e', run, step)), &value, err);
    return code ? code : decode_eval(run, step, value, out, err);
}

static int list_eval(void *arg, struct lk_bytes key, struct lk_bytes value) {
    struct listing *g = arg;
    struct lk_eval_row row;
    int code = decode_eval(g->run, lk__train_step_of_key(key), value, &row, g->err);
    return code ? code : g->eval(g->arg, &row);
}

int lk_eval_list(struct lk_store *store, const char *run, lk_eval_fn *fn, void *arg, struct lk_err *err) {
    char a[LK_KV_KEY_MAX], b[LK_KV_KEY_MAX];
    struct listing g = {.run = run, .eval = fn, .arg = arg, .err = err};
    struct lk_kv_txn *t;
    int code = lk_kv_begin(store->kv, false, &t, err);
    if (code) return code;
    code = lk_kv_scan(t, lk_bytes(a, lk__train_step_key(a, 'e', run, 0)),
                      lk_bytes(b, lk__train_step_key(b, 'e', run, UINT32_MAX)), list_eval, &g, err);
    lk_kv_abort(t);
    return code;
}

double lk_bits_per_byte(const struct lk_eval_row *e) {
    return e->bytes ? e->loss * (double)e->targets / (double)e->bytes / 0.69314718055994530942 : 0;
}
