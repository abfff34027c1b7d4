#include "lockstep/base/mem.h"
#include "lockstep/base/progress.h"
#include "store/kv/kv_engine.h"
#include <string.h>

static const struct lk_kv_ops *const engines[] = {&lk__kv_lmdb};
#define ENGINE_COUNT (sizeof engines / sizeof *engines)

static const char clock_key[] = {LK__KV_RESERVED, 't'};

int lk_kv_open(const char *url, enum lk_access access, struct lk_kv **out, struct lk_err *err) {
    *out = NULL;
    for (size_t i = 0; i < ENGINE_COUNT; i++) {
        size_t n = strlen(engines[i]->scheme);
        if (strncmp(url, engines[i]->scheme, n) != 0) continue;
        if (!url[n]) return lk_fail(err, LK_EINVAL, "the store's URL \"%s\" names no directory", url);
        return engines[i]->open(url + n, access, out, err);
    }
    return lk_fail(err, LK_EUNSUPPORTED, "no engine of this build opens \"%.200s\"; it has file:DIR (LMDB in a directory)",
                   url);
}

void lk_kv_close(struct lk_kv *kv) {
    if (kv) kv->ops->close(kv);
}

int lk_kv_begin(struct lk_kv *kv, bool write, struct lk_kv_txn **out, struct lk_err *err) {
    LK_ASSERT(kv); /* NULL: a store opened for its blobs only */
    *out = NULL;
    int code = kv->ops->begin(kv, write, out, err);
    if (code == 0) (*out)->kv = kv, (*out)->write = write;
    return code;
}

void lk_kv_abort(struct lk_kv_txn *txn) {
    if (txn) txn->kv->ops->abort(txn);
}

/* --- arguments ------------------------------------------------------------------------------------------- */

static int check_key(struct lk_bytes key, struct lk_err *err) {
    if (key.size < 1 || key.size > LK_KV_KEY_MAX)
        return lk_fail(err, LK_EINVAL, "a key of %zu bytes; 1 to %d are possible", key.size, LK_KV_KEY_MAX);
    if (*(const unsigned char *)key.data == LK__KV_RESERVED)
        return lk_fail(err, LK_EINVAL, "keys that begin with a zero byte are reserved");
    return 0;
}

static int check_write(struct lk_kv_txn *txn, struct lk_err *err) {
    if (!txn->write) return lk_fail(err, LK_EINVAL, "a write in a read transaction");
    if (txn->failed) return lk_fail(err, LK_EIO, "this transaction had a failed write before; nothing of it will be kept");
    return 0;
}

int lk_kv_get(struct lk_kv_txn *txn, struct lk_bytes key, struct lk_bytes *value, struct lk_err *err) {
    int code = check_key(key, err);
    return code == 0 ? txn->kv->ops->get(txn, key, value, err) : code;
}

static int put(struct lk_kv_txn *txn, struct lk_bytes key, struct lk_bytes value, struct lk_err *err) {
    int code = txn->kv->ops->put(txn, key, value, err);
    txn->dirty = true;
    if (code != 0) txn->failed = true;
    return code;
}

int lk_kv_put(struct lk_kv_txn *txn, struct lk_bytes key, struct lk_bytes value, struct lk_err *err) {
    int code = check_key(key, err);
    if (code == 0) code = check_write(txn, err);
    if (code == 0 && value.size > LK_KV_VALUE_MAX)
        code = lk_fail(err, LK_EINVAL, "a value of %zu bytes; at most %zu are possible, larger things are blobs",
                       value.size, LK_KV_VALUE_MAX);
    return code == 0 ? put(txn, key, value, err) : code;
}

int lk_kv_delete(struct lk_kv_txn *txn, struct lk_bytes key, struct lk_err *err) {
    int code = check_key(key, err);
    if (code == 0) code = check_write(txn, err);
    if (code != 0) return code;
    code = txn->kv->ops->remove(txn, key, err);
    txn->dirty = true;
    if (code != 0) txn->failed = true;
    return code;
}

int lk_kv_scan(struct lk_kv_txn *txn, struct lk_bytes from, struct lk_bytes to, lk_kv_scan_fn *fn, void *arg,
               struct lk_err *err) {
    static const char first[] = {LK__KV_RESERVED + 1};
    if (from.size == 0 || *(const unsigned char *)from.data == LK__KV_RESERVED) from = lk_bytes(first, 1);
    return txn->kv->ops->scan(txn, from, to, fn, arg, err);
}

/* --- time ------------------------------------------------------------------------------------------------ */

static int last_timestamp(struct lk_kv_txn *txn, int64_t *out, struct lk_err *err) {
    struct lk_bytes value;
    struct lk_err local;
    *out = 0;
    int code = txn->kv->ops->get(txn, lk_bytes(clock_key, sizeof clock_key), &value, &local);
    if (code == LK_ENOTFOUND) return 0;
    if (code != 0) return lk_fail(err, code, "%s", local.message);
    if (value.size != 8) return lk_fail(err, LK_ECORRUPT, "the store's clock row has %zu bytes, not 8", value.size);
    uint64_t t = 0;
    for (int i = 0; i < 8; i++) t |= (uint64_t)((const unsigned char *)value.data)[i] << 8 * i;
    *out = (int64_t)t;
    return 0;
}

int lk__kv_timestamp(struct lk_kv_txn *txn, int64_t *out_ms, struct lk_err *err) {
    if (txn->timestamp_ms) {
        *out_ms = txn->timestamp_ms;
        return 0;
    }
    int64_t t;
    int code = last_timestamp(txn, &t, err);
    if (code == 0 && txn->write) {
        code = check_write(txn, err);
        int64_t now = lk_clock_wall_ms();
        t = now > t ? now : t + 1;
        unsigned char row[8];
        for (int i = 0; i < 8; i++) row[i] = (unsigned char)((uint64_t)t >> 8 * i);
        if (code == 0) code = put(txn, lk_bytes(clock_key, sizeof clock_key), lk_bytes(row, 8), err);
        if (code == 0) txn->timestamp_ms = t;
    }
    if (code == 0) *out_ms = t;
    return code;
}

int lk_kv_commit(struct lk_kv_txn *txn, enum lk_durability durability, int64_t *timestamp_ms, struct lk_err *err) {
    int code = 0;
    int64_t t = 0;
    if (txn->failed) code = lk_fail(err, LK_EIO, "a write of this transaction failed; nothing of it was kept");
    if (code == 0 && timestamp_ms) code = lk__kv_timestamp(txn, &t, err);
    if (code != 0) {
        txn->kv->ops->abort(txn);
        return code;
    }
    code = txn->kv->ops->commit(txn, durability, err);
    if (code == 0 && timestamp_ms) *timestamp_ms = t;
    return code;
}
