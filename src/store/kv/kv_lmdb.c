/* Transactions and rows over LMDB. */
#include "store/kv/kv_lmdb.h"
#include "lockstep/base/mem.h"
#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

struct kv {
    struct lk_kv base;
    struct lk__kv_lmdb_env *env;
    atomic_int transactions;
};
struct txn {
    struct lk_kv_txn base;
    MDB_txn *mdb;
    struct kv *kv;
    bool deletes; /* and so has the reserve */
};

/* --- open ------------------------------------------------------------------------------------------------ */

static int lmdb_open(const char *where, enum lk_access how, struct lk_kv **out, struct lk_err *err) {
    struct kv *kv = lk_calloc(1, sizeof *kv);
    int code =
        kv ? lk__kv_lmdb_open(where, how, &kv->env, err) : lk_fail(err, LK_ENOMEM, "out of memory opening %s", where);
    if (code != 0) {
        lk_free(kv);
        return code;
    }
    kv->base.ops = &lk__kv_lmdb;
    *out = &kv->base;
    return 0;
}

static void lmdb_close(struct lk_kv *base) {
    struct kv *kv = (struct kv *)base;
    LK_ASSERT(atomic_load(&kv->transactions) == 0); /* close before commit or abort */
    lk__kv_lmdb_close(kv->env);
    lk_free(kv);
}

/* --- transactions ---------------------------------------------------------------------------------------- */

static int lmdb_begin(struct lk_kv *base, bool write, struct lk_kv_txn **out, struct lk_err *err) {
    struct kv *kv = (struct kv *)base;
    struct lk__kv_lmdb_env *env = kv->env;
    unsigned long self = (unsigned long)pthread_self();
    LK_ASSERT(env->pid == getpid()); /* a store opened before fork() cannot be used after it */
    if (write && env->read_only) return lk__kv_lmdb_check_writable(env, LK_WRITE, err);
    if (write && atomic_load(&env->writer) == self)
        return lk_fail(err, LK_EBUSY, "this thread has a write transaction on %s open already; it would wait for itself",
                       env->dir);
    struct txn *txn = lk_calloc(1, sizeof *txn);
    if (!txn) return lk_fail(err, LK_ENOMEM, "out of memory for a transaction");
    int code = lk__kv_lmdb_begin(env, write, &txn->mdb);
    if (code != 0) {
        lk_free(txn);
        return lk__kv_lmdb_fail(err, code, env, "begin a transaction on");
    }
    if (write) atomic_store(&env->writer, self);
    atomic_fetch_add(&kv->transactions, 1);
    txn->kv = kv;
    *out = &txn->base;
    return 0;
}

static void end(struct txn *txn) {
    if (txn->deletes) lk__kv_lmdb_fill_reserve(txn->kv->env);
    lk__kv_lmdb_end(txn->kv->env);
    atomic_fetch_sub(&txn->kv->transactions, 1);
    lk_free(txn);
}

static void lmdb_abort(struct lk_kv_txn *base) {
    struct txn *txn = (struct txn *)base;
    if (base->write) atomic_store(&txn->kv->env->writer, 0);
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

/* A durable commit syncs the pages, then writes the head with O_DSYNC. A lazy one leaves out only the second sync
 * (MDB_NOMETASYNC): the pages that a head points to are on disk before the head can be, so power loss gives the state of
 * this commit or the one before, never a mixture. The flag is the environment's, set while we hold the write lock. */
static int lmdb_commit(struct lk_kv_txn *base, enum lk_durability durability, struct lk_err *err) {
    struct txn *txn = (struct txn *)base;
    struct lk__kv_lmdb_env *env = txn->kv->env;
    int code = 0;
    if (base->write) {
        mdb_env_set_flags(env->mdb, MDB_NOMETASYNC, durability == LK_LAZY);
        atomic_store(&env->writer, 0);
    }
    code = mdb_txn_commit(txn->mdb);
    /* LMDB does nothing for an empty transaction, but a durable commit makes the lazy ones before it durable. */
    if (code == 0 && base->write && !base->dirty && durability == LK_DURABLE) code = mdb_env_sync(env->mdb, 1);
    end(txn);
    if (code == 0) return 0;
    if (code == EIO) code = why_cut_short(env);
    return lk__kv_lmdb_fail(err, code, env, "commit to");
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
static int check_snapshot(struct txn *txn, struct lk_err *err) {
    MDB_envinfo info;
    struct lk__kv_lmdb_env *env = txn->kv->env;
    if (!env->lockless) return 0;
    atomic_thread_fence(memory_order_seq_cst);
    mdb_env_info(env->mdb, &info);
    if (info.me_last_txnid < mdb_txn_id(txn->mdb) + 2) return 0;
    return lk_fail(
        err, LK_EBUSY,
        "%s is being written, and without permission to write there this read cannot keep the writer from what it "
        "reads; try again",
        env->dir);
}

static int lmdb_get(struct lk_kv_txn *base, struct lk_bytes key, struct lk_bytes *value, struct lk_err *err) {
    struct txn *txn = (struct txn *)base;
    MDB_val k = val(key), v;
    int late = check_snapshot(txn, err);
    if (late != 0) return late;
    int code = mdb_get(txn->mdb, txn->kv->env->dbi, &k, &v);
    if ((late = check_snapshot(txn, err)) != 0) return late;
    if (code != 0) return lk__kv_lmdb_fail(err, code, txn->kv->env, "read");
    *value = bytes(v);
    return 0;
}

static int lmdb_put(struct lk_kv_txn *base, struct lk_bytes key, struct lk_bytes value, struct lk_err *err) {
    struct txn *txn = (struct txn *)base;
    MDB_val k = val(key), v = val(value);
    int code = mdb_put(txn->mdb, txn->kv->env->dbi, &k, &v, 0);
    return code == 0 ? 0 : lk__kv_lmdb_fail(err, code, txn->kv->env, "write to");
}

static int lmdb_remove(struct lk_kv_txn *base, struct lk_bytes key, struct lk_err *err) {
    struct txn *txn = (struct txn *)base;
    MDB_val k = val(key);
    if (!txn->deletes) lk__kv_lmdb_release_reserve(txn->kv->env);
    txn->deletes = true;
    int code = mdb_del(txn->mdb, txn->kv->env->dbi, &k, NULL);
    return code == 0 || code == MDB_NOTFOUND ? 0 : lk__kv_lmdb_fail(err, code, txn->kv->env, "delete from");
}

/* Bytewise, a prefix before what it begins; as LMDB sorts. */
static int compare(struct lk_bytes a, struct lk_bytes b) {
    int c = memcmp(a.data, b.data, a.size < b.size ? a.size : b.size);
    return c ? c : (a.size > b.size) - (a.size < b.size);
}

static int lmdb_scan(struct lk_kv_txn *base, struct lk_bytes from, struct lk_bytes to, lk_kv_scan_fn *fn, void *arg,
                     struct lk_err *err) {
    struct txn *txn = (struct txn *)base;
    struct lk__kv_lmdb_env *env = txn->kv->env;
    MDB_cursor *cursor;
    int late = check_snapshot(txn, err), stop = 0;
    if (late != 0) return late;
    int code = mdb_cursor_open(txn->mdb, env->dbi, &cursor);
    if (code != 0) return lk__kv_lmdb_fail(err, code, env, "scan");
    MDB_val k = val(from), v;
    code = mdb_cursor_get(cursor, &k, &v, from.size ? MDB_SET_RANGE : MDB_FIRST);
    while ((stop = check_snapshot(txn, err)) == 0 && code == 0 && (to.size == 0 || compare(bytes(k), to) < 0)) {
        stop = fn(arg, bytes(k), bytes(v));
        if ((late = check_snapshot(txn, err)) != 0) stop = late; /* what fn has seen need not have been a row */
        if (stop != 0) break;
        code = mdb_cursor_get(cursor, &k, &v, MDB_NEXT);
    }
    mdb_cursor_close(cursor);
    if (stop == 0 && code != 0 && code != MDB_NOTFOUND) return lk__kv_lmdb_fail(err, code, env, "scan");
    return stop;
}

const struct lk_kv_ops lk__kv_lmdb = {
    .name = "LMDB",
    .scheme = "file:",
    .open = lmdb_open,
    .close = lmdb_close,
    .begin = lmdb_begin,
    .commit = lmdb_commit,
    .abort = lmdb_abort,
    .get = lmdb_get,
    .put = lmdb_put,
    .remove = lmdb_remove,
    .scan = lmdb_scan,
};
