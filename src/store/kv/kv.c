/* Arguments, transactions and rows; calls an engine. */
#include "lockstep/base/progress.h"
#include "store/kv/layers.h"
#include <string.h>
#include <time.h>

static const struct lk_kv_ops *const engines[] = {&lk__kv_lmdb, &lk__kv_memory, &lk__kv_postgres, &lk__kv_postgres_short};
#define ENGINE_COUNT (sizeof engines / sizeof *engines)

#define UPDATE_MS    30000 /* conflicts are retried for so long */

int lk_kv_open(const char *url, enum lk_access access, struct lk_kv **out, struct lk_err *err) {
    *out = NULL;
    for (size_t i = 0; i < ENGINE_COUNT; i++) {
        if (strncmp(url, engines[i]->scheme, strlen(engines[i]->scheme)) != 0) continue;
        int code = engines[i]->open(url, access, out, err);
        if (code == 0) (*out)->ops = engines[i];
        return code;
    }
    return lk_fail(
        err, LK_EUNSUPPORTED,
        "no engine of this build opens \"%.200s\"; it has file:DIR (LMDB in a directory), postgresql://... and memory:",
        url);
}

void lk_kv_close(struct lk_kv *kv) {
    if (kv) kv->ops->close(kv);
}

/* --- transactions ---------------------------------------------------------------------------------------- */

void lk__kv_txn_init(struct lk_kv *kv, bool write, struct lk_kv_txn *txn) {
    txn->kv = kv;
    txn->write = write;
}

int lk_kv_begin(struct lk_kv *kv, bool write, struct lk_kv_txn **out, struct lk_err *err) {
    LK_ASSERT(kv); /* NULL: a store opened for its blobs only */
    *out = NULL;
    int code = kv->ops->begin(kv, write, out, err);
    if (code == 0) lk__kv_txn_init(kv, write, *out);
    return code;
}

void lk_kv_abort(struct lk_kv_txn *txn) {
    if (!txn) return;
    LK_ASSERT(!txn->cursors); /* close before */
    txn->kv->ops->abort(txn);
}

int lk__kv_txn_check(const struct lk_kv_txn *txn, struct lk_err *err) {
    if (!txn->failed) return 0;
    if (txn->failed == LK_ECONFLICT)
        return lk_fail(err, LK_ECONFLICT, "this transaction met another one; nothing of it is kept, run it again");
    return lk_fail(err, txn->failed == LK_ENOMEM ? LK_ENOMEM : LK_EIO,
                   "a write of this transaction failed; nothing of it is kept");
}

/* What every call of an engine in a transaction says passes through here. */
static int done(struct lk_kv_txn *txn, bool write, int code) {
    if (write) txn->dirty = true;
    if (code == LK_ECONFLICT || (write && code != 0)) txn->failed = code;
    return code;
}

int lk_kv_commit(struct lk_kv_txn *txn, enum lk_durability durability, int64_t *timestamp_ms, struct lk_err *err) {
    LK_ASSERT(!txn->cursors); /* close before */
    int64_t t = 0;
    int code = lk__kv_txn_check(txn, err);
    if (code != 0) {
        txn->kv->ops->abort(txn);
        return code;
    }
    code = txn->kv->ops->commit(txn, durability, timestamp_ms != NULL, &t, err);
    if (code == 0 && timestamp_ms) *timestamp_ms = t;
    return code;
}

int lk__kv_timestamp(struct lk_kv_txn *txn, int64_t *out_ms, struct lk_err *err) {
    int code = lk__kv_txn_check(txn, err);
    if (code != 0) return code;
    return done(txn, txn->write, txn->kv->ops->timestamp(txn, out_ms, err));
}

int lk__kv_timestamp_from(struct lk_kv_txn *txn, int64_t least_ms, struct lk_err *err) {
    int64_t time;
    int code = lk__kv_timestamp(txn, &time, err);
    if (code != 0 || time >= least_ms) return code;
    return done(txn, true, txn->kv->ops->raise(txn, least_ms, err));
}
int lk__kv_holds(struct lk_kv_txn *txn, struct lk_err *err) {
    int code = lk__kv_txn_check(txn, err);
    if (code != 0 || !txn->kv->ops->holds) return code;
    return done(txn, false, txn->kv->ops->holds(txn, err));
}

/* Waits longer each time, by a random part so that two do not meet again. */
static void back_off(int attempt) {
    uint64_t random = lk_clock_ns() * 0x9E3779B97F4A7C15u;
    uint64_t most_us = (uint64_t)500 << (attempt < 8 ? attempt : 8), us = (random >> 33) % most_us;
    nanosleep(&(struct timespec){.tv_sec = (time_t)(us / 1000000), .tv_nsec = (long)(us % 1000000) * 1000}, NULL);
}

int lk__kv_update_alone(struct lk_kv *kv, lk_kv_update_fn *fn, void *arg, enum lk_durability durability,
                        int64_t *timestamp_ms, struct lk_err *err) {
    uint64_t begun = lk_clock_ns();
    for (int attempt = 0;; attempt++) {
        struct lk_kv_txn *txn;
        int code = lk_kv_begin(kv, true, &txn, err);
        if (code == 0) {
            code = fn(txn, arg, err);
            if (txn->failed == LK_ECONFLICT) code = LK_ECONFLICT;
            if (code == 0)
                code = lk_kv_commit(txn, durability, timestamp_ms, err);
            else
                lk_kv_abort(txn);
        }
        if (code != LK_ECONFLICT) return code;
        if (lk_clock_ns() - begun > (uint64_t)UPDATE_MS * 1000000)
            return lk_fail(err, LK_ECONFLICT,
                           "other transactions came between each of %d attempts in %d s: let fewer write the same rows at "
                           "once",
                           attempt + 1, UPDATE_MS / 1000);
        back_off(attempt);
    }
}

int lk_kv_update(struct lk_kv *kv, lk_kv_update_fn *fn, void *arg, enum lk_durability durability, int64_t *timestamp_ms,
                 struct lk_err *err) {
    LK_ASSERT(kv);
    int (*update)(struct lk_kv *, lk_kv_update_fn *, void *, enum lk_durability, int64_t *, struct lk_err *) =
        kv->ops->update ? kv->ops->update : lk__kv_update_alone;
    return update(kv, fn, arg, durability, timestamp_ms, err);
}

/* --- rows ------------------------------------------------------------------------------------------------ */

int lk__kv_compare(struct lk_bytes a, struct lk_bytes b) {
    size_t n = a.size < b.size ? a.size : b.size;
    int c = n ? memcmp(a.data, b.data, n) : 0;
    return c ? c : (a.size > b.size) - (a.size < b.size);
}

static int check_key(struct lk_bytes key, struct lk_err *err) {
    if (key.size < 1 || key.size > LK_KV_KEY_MAX)
        return lk_fail(err, LK_EINVAL, "a key of %zu bytes; 1 to %d are possible", key.size, LK_KV_KEY_MAX);
    if (*(const unsigned char *)key.data == LK__KV_RESERVED)
        return lk_fail(err, LK_EINVAL, "keys that begin with a zero byte are reserved");
    return 0;
}

static int check_write(struct lk_kv_txn *txn, struct lk_err *err) {
    if (!txn->write) return lk_fail(err, LK_EINVAL, "a write in a read transaction");
    return lk__kv_txn_check(txn, err);
}

static int fail_absent(struct lk_kv_txn *txn, struct lk_err *err) {
    return lk_fail(err, LK_ENOTFOUND, "no such row in the store (%s)", txn->kv->ops->name);
}

int lk_kv_get(struct lk_kv_txn *txn, struct lk_bytes key, struct lk_bytes *value, struct lk_err *err) {
    struct lk__kv_row_key row;
    int code = check_key(key, err);
    if (code != 0) return code;
    code = done(txn, false, txn->kv->ops->get(txn, lk__kv_layers_find(txn->kv, key, &row), value, err));
    return code == LK_ENOTFOUND ? fail_absent(txn, err) : code;
}

/* An engine with a round trip gets all keys at once; long ones are cut here. */
static int get_at_once(struct lk_kv_txn *txn, const struct lk_bytes *keys, size_t count, struct lk_bytes *values,
                       struct lk_err *err) {
    size_t longs = 0;
    for (size_t i = 0; i < count; i++) longs += lk__kv_layers_long(txn->kv, keys[i]);
    if (!longs) return done(txn, false, txn->kv->ops->get_many(txn, keys, count, values, err));
    struct lk_bytes *cut = lk_alloc(count * sizeof *cut);
    struct lk__kv_row_key *rows = lk_alloc(longs * sizeof *rows);
    int code = cut && rows ? 0 : lk_fail(err, LK_ENOMEM, "out of memory reading %zu rows", count);
    for (size_t i = 0, next = 0; i < count && code == 0; i++)
        cut[i] = lk__kv_layers_long(txn->kv, keys[i]) ? lk__kv_layers_find(txn->kv, keys[i], &rows[next++]) : keys[i];
    if (code == 0) code = done(txn, false, txn->kv->ops->get_many(txn, cut, count, values, err));
    lk_free(cut);
    lk_free(rows);
    return code;
}

int lk_kv_get_many(struct lk_kv_txn *txn, const struct lk_bytes *keys, size_t count, struct lk_bytes *values,
                   struct lk_err *err) {
    int code = 0;
    for (size_t i = 0; i < count && code == 0; i++) code = check_key(keys[i], err);
    if (code != 0 || count == 0) return code;
    if (txn->kv->ops->get_many) return get_at_once(txn, keys, count, values, err);
    for (size_t i = 0; i < count; i++) {
        struct lk__kv_row_key row;
        code = done(txn, false, txn->kv->ops->get(txn, lk__kv_layers_find(txn->kv, keys[i], &row), &values[i], err));
        if (code == LK_ENOTFOUND)
            values[i] = lk_bytes(NULL, 0);
        else if (code != 0)
            return code;
        else if (!values[i].data)
            values[i].data = "";
    }
    return 0;
}

int lk_kv_put(struct lk_kv_txn *txn, struct lk_bytes key, struct lk_bytes value, struct lk_err *err) {
    struct lk__kv_row_key row;
    int code = check_key(key, err);
    if (code == 0) code = check_write(txn, err);
    if (code == 0 && value.size > LK_KV_VALUE_MAX)
        code = lk_fail(err, LK_EINVAL, "a value of %zu bytes; at most %zu are possible, larger things are blobs",
                       value.size, LK_KV_VALUE_MAX);
    if (code == 0) code = lk__kv_cursors_keep(txn, err);
    if (code != 0) return code;
    if (lk__kv_layers_long(txn->kv, key)) code = done(txn, true, lk__kv_layers_link(txn, key, err));
    if (code == 0) code = done(txn, true, txn->kv->ops->put(txn, lk__kv_layers_find(txn->kv, key, &row), value, err));
    return code;
}

static int delete_row(struct lk_kv_txn *txn, struct lk_bytes key, struct lk_err *err) {
    struct lk__kv_row_key row;
    int code = done(txn, true, txn->kv->ops->remove(txn, lk__kv_layers_find(txn->kv, key, &row), err));
    if (code == 0 && lk__kv_layers_long(txn->kv, key)) code = done(txn, true, lk__kv_layers_unlink(txn, key, err));
    return code;
}

int lk_kv_delete(struct lk_kv_txn *txn, struct lk_bytes key, struct lk_err *err) {
    int code = check_key(key, err);
    if (code == 0) code = check_write(txn, err);
    if (code == 0) code = lk__kv_cursors_keep(txn, err);
    return code == 0 ? delete_row(txn, key, err) : code;
}

/* --- ranges ---------------------------------------------------------------------------------------------- */

static int delete_each(struct lk_kv_txn *txn, struct lk_bytes from, struct lk_bytes to, struct lk_err *err) {
    struct lk_kv_cursor *c;
    struct lk_buf key = LK_BUF_INIT;
    int code = lk_kv_cursor_open(txn, from, to, &c, err);
    if (code != 0) return code;
    code = lk_kv_cursor_first(c, err);
    while (code == 0) {
        struct lk_bytes k = lk_kv_cursor_key(c);
        key.size = 0;
        if (lk_buf_append(&key, k.data, k.size) != 0)
            code = lk_fail(err, LK_ENOMEM, "out of memory deleting a range");
        else
            code = lk_kv_delete(txn, lk_bytes(key.data, key.size), err);
        if (code == 0) code = lk_kv_cursor_next(c, err);
    }
    lk_kv_cursor_close(c);
    lk_buf_release(&key);
    if (code == LK_ENOTFOUND) return 0;
    txn->failed = txn->dirty ? code : txn->failed; /* a part of the range may be gone */
    return code;
}

int lk_kv_delete_range(struct lk_kv_txn *txn, struct lk_bytes from, struct lk_bytes to, struct lk_err *err) {
    static const char first[] = {LK__KV_RESERVED + 1};
    if (from.size == 0 || *(const unsigned char *)from.data == LK__KV_RESERVED) from = lk_bytes(first, 1);
    int code = check_write(txn, err);
    if (code == 0 && (from.size > LK_KV_KEY_MAX || to.size > LK_KV_KEY_MAX))
        code = lk_fail(err, LK_EINVAL, "a bound of more than %d bytes", LK_KV_KEY_MAX);
    if (code == 0) code = lk__kv_cursors_keep(txn, err);
    if (code != 0 || (to.size && lk__kv_compare(from, to) >= 0)) return code;
    if (txn->kv->ops->remove_range) {
        code = done(txn, false, lk__kv_layers_any(txn, err));
        if (code == LK_ENOTFOUND) return done(txn, true, txn->kv->ops->remove_range(txn, from, to, err));
        if (code != 0) return code;
    }
    return delete_each(txn, from, to, err);
}

bool lk_kv_prefix_end(struct lk_bytes prefix, unsigned char *out, size_t *size) {
    const unsigned char *p = prefix.data;
    size_t n = prefix.size;
    while (n > 0 && p[n - 1] == 0xff) n--;
    *size = n;
    if (n == 0) return false;
    memcpy(out, p, n);
    out[n - 1]++;
    return true;
}

int lk_kv_scan(struct lk_kv_txn *txn, struct lk_bytes from, struct lk_bytes to, lk_kv_scan_fn *fn, void *arg,
               struct lk_err *err) {
    struct lk_kv_cursor *c;
    int code = lk_kv_cursor_open(txn, from, to, &c, err), stop = 0;
    if (code != 0) return code;
    for (code = lk_kv_cursor_first(c, err); code == 0; code = lk_kv_cursor_next(c, err)) {
        stop = fn(arg, lk_kv_cursor_key(c), lk_kv_cursor_value(c));
        if (stop == 0) continue;
        /* What fn has seen need not have been a row. */
        int late = txn->kv->ops->check ? txn->kv->ops->check(txn, err) : 0;
        code = late ? late : stop;
        break;
    }
    lk_kv_cursor_close(c);
    return code == LK_ENOTFOUND && !stop ? 0 : code;
}

/* --- the whole ------------------------------------------------------------------------------------------- */

static int unsupported(const struct lk_kv *kv, const char *what, const char *tools, struct lk_err *err) {
    return lk_fail(err, LK_EUNSUPPORTED, "%s cannot %s from here%s%s", kv->ops->name, what, tools ? "; use " : "",
                   tools ? tools : "");
}
int lk_kv_stats(struct lk_kv *kv, struct lk_kv_stats *out, struct lk_err *err) {
    *out = (struct lk_kv_stats){.engine = kv->ops->name};
    return kv->ops->stats ? kv->ops->stats(kv, out, err) : unsupported(kv, "be counted", NULL, err);
}
int lk_kv_copy(struct lk_kv *kv, const char *dir, bool compact, struct lk_err *err) {
    return kv->ops->copy ? kv->ops->copy(kv, dir, compact, err) : unsupported(kv, "be copied", kv->ops->copies, err);
}
int lk_kv_compact(struct lk_kv *kv, struct lk_err *err) {
    return kv->ops->compact ? kv->ops->compact(kv, err) : unsupported(kv, "be compacted", kv->ops->compacts, err);
}
