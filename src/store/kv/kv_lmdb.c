/* Transactions, rows and cursors over LMDB. */
#include "store/kv/kv_lmdb.h"
#include "lockstep/base/mem.h"
#include "lockstep/base/progress.h"
#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define KEY_MAX 511 /* of LMDB as it is usually compiled; checked when a store is opened */

struct cursor {
    struct lk_kv_cursor base;
    MDB_cursor *mdb;
    bool lockless;
};

/* --- open ------------------------------------------------------------------------------------------------ */

static int lmdb_open(const char *url, enum lk_access how, struct lk_kv **out, struct lk_err *err) {
    const char *where = url + strlen(lk__kv_lmdb.scheme);
    if (!*where) return lk_fail(err, LK_EINVAL, "the store's URL \"%s\" names no directory", url);
    struct lk__kv_lmdb *kv = lk_calloc(1, sizeof *kv);
    int code =
        kv ? lk__kv_lmdb_open(where, how, &kv->env, err) : lk_fail(err, LK_ENOMEM, "out of memory opening %s", where);
    if (code != 0) {
        lk_free(kv);
        return code;
    }
    *out = &kv->base;
    return 0;
}

static void lmdb_close(struct lk_kv *base) {
    struct lk__kv_lmdb *kv = (struct lk__kv_lmdb *)base;
    LK_ASSERT(atomic_load(&kv->transactions) == 0); /* close before commit or abort */
    lk__kv_lmdb_close(kv->env);
    lk_free(kv);
}

/* --- transactions ---------------------------------------------------------------------------------------- */

int lk__kv_lmdb_may_write(const struct lk__kv_lmdb_env *env, struct lk_err *err) {
    if (env->read_only) return lk__kv_lmdb_check_writable(env, LK_WRITE, err);
    if (atomic_load(&env->writer) != (unsigned long)pthread_self()) return 0;
    return lk_fail(err, LK_EBUSY, "this thread has a write transaction on %s open already; it would wait for itself",
                   env->dir);
}

static int lmdb_begin(struct lk_kv *base, bool write, struct lk_kv_txn **out, struct lk_err *err) {
    struct lk__kv_lmdb *kv = (struct lk__kv_lmdb *)base;
    struct lk__kv_lmdb_env *env = kv->env;
    LK_ASSERT(env->pid == getpid()); /* a store opened before fork() cannot be used after it */
    int code = write ? lk__kv_lmdb_may_write(env, err) : 0;
    if (code != 0) return code;
    struct lk__kv_lmdb_txn *txn = lk_calloc(1, sizeof *txn);
    if (!txn) return lk_fail(err, LK_ENOMEM, "out of memory for a transaction");
    code = lk__kv_lmdb_begin(env, write, &txn->mdb);
    if (code != 0) {
        lk_free(txn);
        return lk__kv_lmdb_fail(err, code, env, "begin a transaction on");
    }
    if (write) atomic_store(&env->writer, (unsigned long)pthread_self());
    atomic_fetch_add(&kv->transactions, 1);
    txn->env = env;
    *out = &txn->base;
    return 0;
}

static void end(struct lk__kv_lmdb_txn *txn) {
    if (txn->deletes) lk__kv_lmdb_fill_reserve(txn->env);
    lk__kv_lmdb_end(txn->env);
    atomic_fetch_sub(&((struct lk__kv_lmdb *)txn->base.kv)->transactions, 1);
    lk_free(txn);
}

static void lmdb_abort(struct lk_kv_txn *base) {
    struct lk__kv_lmdb_txn *txn = (struct lk__kv_lmdb_txn *)base;
    if (base->write) atomic_store(&txn->env->writer, 0);
    mdb_txn_abort(txn->mdb);
    end(txn);
}

/* LMDB says EIO for a write that was cut short; at a limit or on a full disk it was cut there. */
static int why_cut_short(const struct lk__kv_lmdb_env *env) {
    static const uint64_t near = 1 << 20;
    struct rlimit limit;
    struct stat st = {0};
    struct statvfs fs;
    char *data = lk_asprintf("%s/data.mdb", env->dir);
    bool there = data && stat(data, &st) == 0;
    lk_free(data);
    if (there && getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur < (uint64_t)st.st_size + near) return EFBIG;
    return statvfs(env->dir, &fs) == 0 && (uint64_t)fs.f_bavail * fs.f_frsize < near ? ENOSPC : EIO;
}

static int commit_failed(struct lk__kv_lmdb_env *env, int code, struct lk_err *err) {
    return lk__kv_lmdb_fail(err, code == EIO ? why_cut_short(env) : code, env, "commit to");
}

/* A durable commit syncs the pages, then writes the head with O_DSYNC. A lazy one leaves out only the second sync
 * (MDB_NOMETASYNC): the pages that a head points to are on disk before the head can be, so power loss gives the state of
 * this commit or the one before, never a mixture. The flag is the environment's, set while we hold the write lock. */
static int commit_as(struct lk__kv_lmdb_env *env, MDB_txn *mdb, enum lk_durability durability) {
    MDB_envinfo info;
    size_t id = mdb_txn_id(mdb);
    int unsettled = lk__kv_lmdb_settle(env);
    if (unsettled != 0) {
        atomic_store(&env->writer, 0);
        mdb_txn_abort(mdb);
        return unsettled;
    }
    mdb_env_set_flags(env->mdb, MDB_NOMETASYNC, durability == LK_LAZY);
    atomic_store(&env->writer, 0);
    int code = mdb_txn_commit(mdb);
    if (code != 0 || durability != LK_DURABLE || mdb_env_info(env->mdb, &info) != 0) return code;
    /* LMDB does nothing for a transaction that changed no page, but a durable commit makes the lazy ones before it durable.
     */
    return info.me_last_txnid < id ? mdb_env_sync(env->mdb, 1) : 0;
}

static int lmdb_commit(struct lk_kv_txn *base, enum lk_durability durability, bool stamped, int64_t *timestamp_ms,
                       struct lk_err *err) {
    struct lk__kv_lmdb_txn *txn = (struct lk__kv_lmdb_txn *)base;
    struct lk__kv_lmdb_env *env = txn->env;
    int code = stamped ? lk__kv_lmdb_timestamp(base, timestamp_ms, err) : 0;
    if (code != 0) {
        lmdb_abort(base);
        return code;
    }
    code = base->write ? commit_as(env, txn->mdb, durability) : mdb_txn_commit(txn->mdb);
    if (code != 0) code = commit_failed(env, code, err);
    end(txn);
    return code;
}

/* --- rows ------------------------------------------------------------------------------------------------ */

static MDB_val val(struct lk_bytes b) {
    return (MDB_val){b.size, (void *)(uintptr_t)b.data};
}
static struct lk_bytes bytes(MDB_val v) {
    return lk_bytes(v.mv_data, v.mv_size);
}

/* Transaction N overwrites pages that transactions up to N - 2 freed. A snapshot K that no writer sees is whole as long as
 * K + 2 is not there, since only K + 3 may write on what K + 1 freed. Looked at before each read, so that LMDB does not
 * walk pages that hold something else by now, and after it, before it is handed out. */
static int check_overtaken(struct lk__kv_lmdb_txn *txn, struct lk_err *err) {
    MDB_envinfo info;
    struct lk__kv_lmdb_env *env = txn->env;
    atomic_thread_fence(memory_order_seq_cst);
    mdb_env_info(env->mdb, &info);
    if (info.me_last_txnid < mdb_txn_id(txn->mdb) + 2) return 0;
    return lk_fail(
        err, LK_EBUSY,
        "%s is being written, and without permission to write there this read cannot keep the writer from what it "
        "reads; try again",
        env->dir);
}
static inline int check_snapshot(struct lk__kv_lmdb_txn *txn, struct lk_err *err) {
    return txn->env->lockless ? check_overtaken(txn, err) : 0;
}
/* A compaction counts transactions anew: not of such an environment. */
static uint64_t lmdb_state(struct lk_kv_txn *base) {
    struct lk__kv_lmdb_txn *txn = (struct lk__kv_lmdb_txn *)base;
    return txn->env->guard < 0 && !txn->env->lockless ? mdb_txn_id(txn->mdb) : 0;
}
static int lmdb_check(struct lk_kv_txn *base, struct lk_err *err) {
    return check_snapshot((struct lk__kv_lmdb_txn *)base, err);
}

static int lmdb_get(struct lk_kv_txn *base, struct lk_bytes key, struct lk_bytes *value, struct lk_err *err) {
    struct lk__kv_lmdb_txn *txn = (struct lk__kv_lmdb_txn *)base;
    MDB_val k = val(key), v;
    int late = check_snapshot(txn, err);
    if (late != 0) return late;
    int code = mdb_get(txn->mdb, txn->env->dbi, &k, &v);
    if ((late = check_snapshot(txn, err)) != 0) return late;
    if (code == MDB_NOTFOUND) return LK_ENOTFOUND;
    if (code != 0) return lk__kv_lmdb_fail(err, code, txn->env, "read");
    *value = bytes(v);
    return 0;
}

static int lmdb_put(struct lk_kv_txn *base, struct lk_bytes key, struct lk_bytes value, struct lk_err *err) {
    struct lk__kv_lmdb_txn *txn = (struct lk__kv_lmdb_txn *)base;
    MDB_val k = val(key), v = val(value);
    /* Told that a row comes behind all others, LMDB begins a new page for it when the last one is full, where it would else
     * divide that one in halves: rows that come in order fill their pages. It says MDB_KEYEXIST when they do not. */
    int code = txn->scattered ? MDB_KEYEXIST : mdb_put(txn->mdb, txn->env->dbi, &k, &v, MDB_APPEND);
    if (code == MDB_KEYEXIST) {
        txn->scattered = true;
        code = mdb_put(txn->mdb, txn->env->dbi, &k, &v, 0);
    }
    txn->bytes += value.size;
    return code == 0 ? 0 : lk__kv_lmdb_fail(err, code, txn->env, "write to");
}

static void about_to_delete(struct lk__kv_lmdb_txn *txn) {
    if (!txn->deletes) lk__kv_lmdb_release_reserve(txn->env);
    txn->deletes = true;
}

static int lmdb_remove(struct lk_kv_txn *base, struct lk_bytes key, struct lk_err *err) {
    struct lk__kv_lmdb_txn *txn = (struct lk__kv_lmdb_txn *)base;
    MDB_val k = val(key);
    about_to_delete(txn);
    int code = mdb_del(txn->mdb, txn->env->dbi, &k, NULL);
    return code == 0 || code == MDB_NOTFOUND ? 0 : lk__kv_lmdb_fail(err, code, txn->env, "delete from");
}

static int lmdb_remove_range(struct lk_kv_txn *base, struct lk_bytes from, struct lk_bytes to, struct lk_err *err) {
    struct lk__kv_lmdb_txn *txn = (struct lk__kv_lmdb_txn *)base;
    MDB_cursor *cursor;
    MDB_val k = val(from), v;
    about_to_delete(txn);
    if (from.size > KEY_MAX)
        k.mv_size = KEY_MAX; /* a row of its first bytes has at most these: the caller's is behind it */
    int code = mdb_cursor_open(txn->mdb, txn->env->dbi, &cursor);
    if (code != 0) return lk__kv_lmdb_fail(err, code, txn->env, "delete from");
    code = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
    while (code == 0 && (to.size == 0 || lk__kv_compare(bytes(k), to) < 0)) {
        if (lk__kv_compare(bytes(k), from) >= 0) code = mdb_cursor_del(cursor, 0);
        if (code == 0) code = mdb_cursor_get(cursor, &k, &v, MDB_NEXT);
    }
    mdb_cursor_close(cursor);
    return code == 0 || code == MDB_NOTFOUND ? 0 : lk__kv_lmdb_fail(err, code, txn->env, "delete from");
}

/* --- cursors --------------------------------------------------------------------------------------------- */

static int lmdb_cursor_open(struct lk_kv_txn *base, struct lk_kv_cursor **out, struct lk_err *err) {
    struct lk__kv_lmdb_txn *txn = (struct lk__kv_lmdb_txn *)base;
    struct cursor *c = lk_calloc(1, sizeof *c);
    int code = c ? mdb_cursor_open(txn->mdb, txn->env->dbi, &c->mdb) : ENOMEM;
    if (code != 0) {
        lk_free(c);
        return lk__kv_lmdb_fail(err, code, txn->env, "scan");
    }
    c->lockless = txn->env->lockless;
    *out = &c->base;
    return 0;
}

static void lmdb_cursor_close(struct lk_kv_cursor *base) {
    struct cursor *c = (struct cursor *)base;
    mdb_cursor_close(c->mdb);
    lk_free(c);
}

static int arrive(struct cursor *c, int code, MDB_val k, MDB_val v, struct lk_err *err) {
    struct lk__kv_lmdb_txn *txn = (struct lk__kv_lmdb_txn *)c->base.txn;
    int late = check_snapshot(txn, err);
    if (late != 0) return late;
    if (code == MDB_NOTFOUND) return LK_ENOTFOUND;
    if (code != 0) return lk__kv_lmdb_fail(err, code, txn->env, "scan");
    c->base.key = bytes(k);
    c->base.value = bytes(v);
    return 0;
}

static int lmdb_cursor_seek(struct lk_kv_cursor *base, struct lk_bytes key, bool back, struct lk_err *err) {
    struct cursor *c = (struct cursor *)base;
    MDB_val k = val(key), v = {0};
    int code = check_snapshot((struct lk__kv_lmdb_txn *)base->txn, err);
    if (code != 0) return code;
    if (key.size == 0)
        code = mdb_cursor_get(c->mdb, &k, &v, back ? MDB_LAST : MDB_FIRST);
    else
        code = mdb_cursor_get(c->mdb, &k, &v, MDB_SET_RANGE);
    if (back && key.size && (code == 0 || code == MDB_NOTFOUND))
        code = mdb_cursor_get(c->mdb, &k, &v, code == 0 ? MDB_PREV : MDB_LAST);
    return arrive(c, code, k, v, err);
}

static int step_lockless(struct cursor *c, MDB_cursor_op op, struct lk_err *err) {
    MDB_val k = {0}, v = {0};
    int code = check_overtaken((struct lk__kv_lmdb_txn *)c->base.txn, err);
    return code ? code : arrive(c, mdb_cursor_get(c->mdb, &k, &v, op), k, v, err);
}
static int lmdb_cursor_step(struct lk_kv_cursor *base, bool back, struct lk_err *err) {
    struct cursor *c = (struct cursor *)base;
    MDB_val k, v;
    if (c->lockless) return step_lockless(c, back ? MDB_PREV : MDB_NEXT, err);
    int code = mdb_cursor_get(c->mdb, &k, &v, back ? MDB_PREV : MDB_NEXT);
    if (code != 0) return arrive(c, code, k, v, err);
    base->key = bytes(k);
    base->value = bytes(v);
    return 0;
}

/* --- time ------------------------------------------------------------------------------------------------ */

static const char clock_key[] = {LK__KV_RESERVED, 't'};

/* Of the last commit that had one: 8 bytes, the least first. */
static int last_timestamp(struct lk_kv_txn *txn, int64_t *out, struct lk_err *err) {
    struct lk_bytes value;
    *out = 0;
    int code = lmdb_get(txn, lk_bytes(clock_key, sizeof clock_key), &value, err);
    if (code == LK_ENOTFOUND) return 0;
    if (code != 0) return code;
    if (value.size != 8) return lk_fail(err, LK_ECORRUPT, "the store's clock row has %zu bytes, not 8", value.size);
    uint64_t t = 0;
    for (int i = 0; i < 8; i++) t |= (uint64_t)((const unsigned char *)value.data)[i] << 8 * i;
    *out = (int64_t)t;
    return 0;
}

static int set_timestamp(struct lk_kv_txn *base, int64_t t, struct lk_err *err) {
    unsigned char row[8];
    for (int i = 0; i < 8; i++) row[i] = (unsigned char)((uint64_t)t >> 8 * i);
    int code = lmdb_put(base, lk_bytes(clock_key, sizeof clock_key), lk_bytes(row, 8), err);
    if (code == 0) ((struct lk__kv_lmdb_txn *)base)->timestamp_ms = t;
    return code;
}

int lk__kv_lmdb_timestamp(struct lk_kv_txn *base, int64_t *out_ms, struct lk_err *err) {
    struct lk__kv_lmdb_txn *txn = (struct lk__kv_lmdb_txn *)base;
    int64_t t = txn->timestamp_ms;
    int code = t ? 0 : last_timestamp(base, &t, err);
    if (code == 0 && base->write && !txn->timestamp_ms) {
        int64_t now = lk_clock_wall_ms();
        t = now > t ? now : t + 1;
        code = set_timestamp(base, t, err);
    }
    if (code == 0) *out_ms = t;
    return code;
}

const struct lk_kv_ops lk__kv_lmdb = {
    .name = "LMDB",
    .scheme = "file:",
    .key_max = KEY_MAX,
    .open = lmdb_open,
    .close = lmdb_close,
    .begin = lmdb_begin,
    .commit = lmdb_commit,
    .abort = lmdb_abort,
    .timestamp = lk__kv_lmdb_timestamp,
    .raise = set_timestamp,
    .get = lmdb_get,
    .put = lmdb_put,
    .remove = lmdb_remove,
    .remove_range = lmdb_remove_range,
    .cursor_open = lmdb_cursor_open,
    .cursor_close = lmdb_cursor_close,
    .cursor_seek = lmdb_cursor_seek,
    .cursor_step = lmdb_cursor_step,
    .state = lmdb_state,
    .check = lmdb_check,
    .update = lk__kv_lmdb_update,
    .stats = lk__kv_lmdb_stats,
    .copy = lk__kv_lmdb_copy,
    .compact = lk__kv_lmdb_compact,
};
