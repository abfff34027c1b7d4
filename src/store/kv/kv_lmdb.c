#include "base/sanitizers.h"
#include "base/syscalls.h"
#include "lockstep/base/file.h"
#include "lockstep/base/mem.h"
#include "lockstep/base/progress.h"
#include "store/kv/kv_engine.h"
#include <errno.h>
#include <lmdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

/* Sanitizers need most of the address space. */
#define MAP_MOST  ((size_t)(LK_SANITIZED ? 1 : 256) << 30)
#define MAP_LEAST ((size_t)16 << 20)
#define READERS   1024

/* LMDB must not open one file twice in a process (closing one drops the locks of both), so environments are shared:
 * `registry` lists them, `references` counts the lk_kv that use one. Lock order: registry_lock, then nothing. */
struct environment {
    struct environment *next;
    dev_t device;
    ino_t inode;
    pid_t pid; /* an environment inherited over fork() is not ours to use */
    int references;
    MDB_env *mdb;
    MDB_dbi dbi;
    bool read_only; /* we may not write there */
    bool lockless;  /* nor write its lock file: a writer does not see our snapshots */
    atomic_int transactions;
    atomic_ulong writer; /* the thread that holds the write transaction, 0: none */
    char *dir;
};
static struct environment *registry;
static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;

struct kv {
    struct lk_kv base;
    struct environment *env;
    atomic_int transactions;
};
struct txn {
    struct lk_kv_txn base;
    MDB_txn *mdb;
    struct kv *kv;
};

static int fail(struct lk_err *err, int code, const struct environment *env, const char *what) {
    MDB_envinfo info;
    char size[32];
    switch (code) {
    case MDB_NOTFOUND:
        return lk_fail(err, LK_ENOTFOUND, "no such row in %s", env->dir);
    case MDB_MAP_FULL:
        mdb_env_info(env->mdb, &info);
        return lk_fail(err, LK_EIO,
                       "cannot %s %s: its map of %s is full; nothing was changed (a larger one needs more "
                       "address space: ulimit -v)",
                       what, env->dir, lk_format_bytes(info.me_mapsize, size));
    case MDB_TXN_FULL:
        return lk_fail(err, LK_EIO, "cannot %s %s: too much in one transaction; nothing was changed", what, env->dir);
    case MDB_READERS_FULL:
        return lk_fail(err, LK_EBUSY, "cannot %s %s: %d readers are at work already", what, env->dir, READERS);
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID:
    case MDB_VERSION_MISMATCH:
        return lk_fail(err, LK_ECORRUPT, "cannot %s %s: %s", what, env->dir, mdb_strerror(code));
    case MDB_PANIC:
        return lk_fail(err, LK_EIO, "cannot %s %s: an earlier write to its head failed; close the store and open it again",
                       what, env->dir);
    case ENOMEM:
        return lk_fail(err, LK_ENOMEM, "cannot %s %s: out of memory", what, env->dir);
    case ENOSPC:
    case EFBIG:
    case EDQUOT:
    case EIO:
        errno = code;
        lk__note_disk(env->dir);
        return lk_fail_errno(err, "cannot %s %s, nothing was changed", what, env->dir);
    default:
        if (code < 0) return lk_fail(err, LK_EIO, "cannot %s %s: %s", what, env->dir, mdb_strerror(code));
        errno = code;
        lk_fail_errno(err, "cannot %s %s", what, env->dir);
        return err ? (err->code = LK_EIO) : LK_EIO;
    }
}

/* --- open ------------------------------------------------------------------------------------------------ */

static int refuse_network(const char *dir, struct lk_err *err) {
    struct statfs fs;
    bool refuse;
    if (statfs(dir, &fs) != 0) return lk_fail_errno(err, "cannot look at the file system of %s", dir);
    const char *name = lk__kv_network_fs((long)fs.f_type, &refuse);
    if (name && refuse)
        return lk_fail(err, LK_EUNSUPPORTED,
                       "%s is on %s, a network file system, where this database can be lost; use a "
                       "directory on a local disk",
                       dir, name);
    if (name) lk_log_warn("%s is on %s; use it from one machine only", dir, name);
    return 0;
}

static size_t first_map_size(void) {
    struct rlimit limit;
    size_t size = MAP_MOST;
    /* Leave most of a limited address space to the rest of the program. */
    if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
        while (size > MAP_LEAST && size > limit.rlim_cur / 8) size /= 2;
    return size;
}

static bool permitted(const char *dir, const char *file, int mode) {
    char *path = lk_asprintf("%s%s", dir, file);
    bool yes = path && access(path, mode) == 0;
    lk_free(path);
    return yes;
}
static bool forbidden(int code) {
    return code == EACCES || code == EROFS || code == EPERM;
}

/* The map is address space, not disk: the file is as large as its contents. Returns what LMDB says. */
static int open_mdb(struct environment *env, unsigned flags) {
    for (size_t size = first_map_size();; size /= 2) {
        int code = mdb_env_create(&env->mdb);
        if (code != 0) return code;
        mdb_env_set_maxreaders(env->mdb, READERS);
        mdb_env_set_mapsize(env->mdb, size);
        code = mdb_env_open(env->mdb, env->dir, MDB_NOTLS | flags, 0666);
        if (code == 0) return 0;
        mdb_env_close(env->mdb);
        env->mdb = NULL;
        /* EINVAL: what valgrind says to so much address space. */
        if ((code != ENOMEM && code != EINVAL) || size <= MAP_LEAST) return code;
    }
}

/* LMDB maps at least all of its file. */
static int lacks_address_space(const struct environment *env, struct lk_err *err) {
    struct stat st = {0};
    char words[32], *data = lk_asprintf("%s/data.mdb", env->dir);
    if (data) stat(data, &st);
    lk_free(data);
    size_t size = (size_t)st.st_size > MAP_LEAST ? (size_t)st.st_size : MAP_LEAST;
    return lk_fail(err, LK_ENOMEM, "cannot open %s: it needs %s of address space", env->dir, lk_format_bytes(size, words));
}

/* Who may write opens for writing even to read, as handles share an environment. Who may write the lock file only still
 * locks: that is how several users share a store. */
static int open_as_permitted(struct environment *env, struct lk_err *err) {
    int code = open_mdb(env, 0);
    if (forbidden(code)) {
        env->read_only = true;
        code = open_mdb(env, MDB_RDONLY);
    }
    if (forbidden(code)) {
        env->lockless = true;
        code = open_mdb(env, MDB_RDONLY | MDB_NOLOCK);
    }
    if (forbidden(code)) return lk_fail(err, LK_EIO, "no permission to read %s", env->dir);
    /* On a read-only file system LMDB leaves the locks out by itself. */
    if (code == 0 && env->read_only && !env->lockless) env->lockless = !permitted(env->dir, "/lock.mdb", W_OK);
    if (code == ENOMEM) return lacks_address_space(env, err);
    return code == 0 ? 0 : fail(err, code, env, "open");
}

static int open_environment(struct environment *env, struct lk_err *err) {
    int code = open_as_permitted(env, err), dead;
    if (code != 0) return code;
    if (!env->lockless) mdb_reader_check(env->mdb, &dead); /* slots of killed readers would keep old pages alive */
    MDB_txn *txn = NULL;
    code = mdb_txn_begin(env->mdb, NULL, MDB_RDONLY, &txn);
    if (code == 0) code = mdb_dbi_open(txn, NULL, 0, &env->dbi);
    if (code == 0)
        code = mdb_txn_commit(txn);
    else if (txn)
        mdb_txn_abort(txn);
    if (code == 0) return 0;
    code = fail(err, code, env, "open");
    mdb_env_close(env->mdb);
    return code;
}

/* What was opened to be changed must be permitted to change, now and not at the first write. */
static int check_writable(const struct environment *env, enum lk_access how, struct lk_err *err) {
    if (how == LK_READ || !env->read_only) return 0;
    return lk_fail(err, LK_EIO, "no permission to write %s: this store can only be read", env->dir);
}

/* With registry_lock held. Takes dir over. */
static int find_or_open(char *dir, enum lk_access how, struct environment **out, struct lk_err *err) {
    struct stat st;
    if (stat(dir, &st) != 0) {
        int code = lk_fail_errno(err, "cannot open %s", dir);
        lk_free(dir);
        return code;
    }
    for (struct environment *e = registry; e; e = e->next) {
        if (e->device != st.st_dev || e->inode != st.st_ino || e->pid != getpid()) continue;
        lk_free(dir);
        int code = check_writable(e, how, err);
        if (code == 0) e->references++, *out = e;
        return code;
    }
    struct environment *e = lk_calloc(1, sizeof *e);
    int code = e ? 0 : lk_fail(err, LK_ENOMEM, "out of memory opening %s", dir);
    if (code == 0) {
        *e = (struct environment){
            .next = registry, .device = st.st_dev, .inode = st.st_ino, .pid = getpid(), .references = 1};
        e->dir = dir;
        code = open_environment(e, err);
        if (code == 0 && (code = check_writable(e, how, err)) != 0) mdb_env_close(e->mdb);
    }
    if (code != 0) {
        lk_free(e);
        lk_free(dir);
        return code;
    }
    *out = registry = e;
    return 0;
}

static void lmdb_close(struct lk_kv *base) {
    struct kv *kv = (struct kv *)base;
    LK_ASSERT(atomic_load(&kv->transactions) == 0); /* close before commit or abort */
    pthread_mutex_lock(&registry_lock);
    struct environment *e = kv->env;
    if (--e->references == 0) {
        struct environment **link = &registry;
        while (*link != e) link = &(*link)->next;
        *link = e->next;
        /* In a forked child the parent's environment is only forgotten. */
        if (e->pid == getpid()) mdb_env_close(e->mdb);
        lk_free(e->dir);
        lk_free(e);
    }
    pthread_mutex_unlock(&registry_lock);
    lk_free(kv);
}

/* Before LMDB, which would make the file and says less. */
static int check_there(const char *dir, struct lk_err *err) {
    struct stat st;
    char *data = lk_asprintf("%s/data.mdb", dir);
    if (!data) return lk_fail(err, LK_ENOMEM, "out of memory opening %s", dir);
    int code = 0;
    if (stat(data, &st) != 0 || access(data, R_OK) != 0)
        code = errno == EACCES ? lk_fail(err, LK_EIO, "no permission to read %s", data)
                               : lk_fail_errno(err, "cannot open %s", data);
    lk_free(data);
    return code;
}

static int lmdb_open(const char *where, enum lk_access how, struct lk_kv **out, struct lk_err *err) {
    struct kv *kv = lk_calloc(1, sizeof *kv);
    char *dir = lk_asprintf("%s/kv", where);
    int code = kv && dir ? 0 : lk_fail(err, LK_ENOMEM, "out of memory opening %s", where);
    if (code == 0) code = how == LK_CREATE ? lk_dir_make(dir, err) : check_there(dir, err);
    if (code == 0) code = refuse_network(dir, err);
    if (code == 0) {
        pthread_mutex_lock(&registry_lock);
        code = find_or_open(dir, how, &kv->env, err);
        pthread_mutex_unlock(&registry_lock);
        dir = NULL;
    }
    if (code != 0) {
        lk_free(dir);
        lk_free(kv);
        return code;
    }
    kv->base.ops = &lk__kv_lmdb;
    *out = &kv->base;
    return 0;
}

/* --- transactions ---------------------------------------------------------------------------------------- */

static int begin_mdb(struct environment *env, bool write, MDB_txn **out) {
    int code = mdb_txn_begin(env->mdb, NULL, write ? 0 : MDB_RDONLY, out);
    /* Another process with a larger map has grown the file past ours. */
    if (code == MDB_MAP_RESIZED && atomic_load(&env->transactions) == 1 && mdb_env_set_mapsize(env->mdb, 0) == 0)
        code = mdb_txn_begin(env->mdb, NULL, write ? 0 : MDB_RDONLY, out);
    return code;
}

static int lmdb_begin(struct lk_kv *base, bool write, struct lk_kv_txn **out, struct lk_err *err) {
    struct kv *kv = (struct kv *)base;
    struct environment *env = kv->env;
    unsigned long self = (unsigned long)pthread_self();
    LK_ASSERT(env->pid == getpid()); /* a store opened before fork() cannot be used after it */
    if (write && env->read_only) return check_writable(env, LK_WRITE, err);
    if (write && atomic_load(&env->writer) == self)
        return lk_fail(err, LK_EBUSY, "this thread has a write transaction on %s open already; it would wait for itself",
                       env->dir);
    struct txn *txn = lk_calloc(1, sizeof *txn);
    if (!txn) return lk_fail(err, LK_ENOMEM, "out of memory for a transaction");
    atomic_fetch_add(&env->transactions, 1);
    int code = begin_mdb(env, write, &txn->mdb);
    if (code != 0) {
        atomic_fetch_sub(&env->transactions, 1);
        lk_free(txn);
        return fail(err, code, env, "begin a transaction on");
    }
    if (write) atomic_store(&env->writer, self);
    atomic_fetch_add(&kv->transactions, 1);
    txn->kv = kv;
    *out = &txn->base;
    return 0;
}

static void end(struct txn *txn) {
    atomic_fetch_sub(&txn->kv->env->transactions, 1);
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
static int why_cut_short(const struct environment *env) {
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
    struct environment *env = txn->kv->env;
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
    return fail(err, code, env, "commit to");
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
    struct environment *env = txn->kv->env;
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
    if (code != 0) return fail(err, code, txn->kv->env, "read");
    *value = bytes(v);
    return 0;
}

static int lmdb_put(struct lk_kv_txn *base, struct lk_bytes key, struct lk_bytes value, struct lk_err *err) {
    struct txn *txn = (struct txn *)base;
    MDB_val k = val(key), v = val(value);
    int code = mdb_put(txn->mdb, txn->kv->env->dbi, &k, &v, 0);
    return code == 0 ? 0 : fail(err, code, txn->kv->env, "write to");
}

static int lmdb_remove(struct lk_kv_txn *base, struct lk_bytes key, struct lk_err *err) {
    struct txn *txn = (struct txn *)base;
    MDB_val k = val(key);
    int code = mdb_del(txn->mdb, txn->kv->env->dbi, &k, NULL);
    return code == 0 || code == MDB_NOTFOUND ? 0 : fail(err, code, txn->kv->env, "delete from");
}

/* Bytewise, a prefix before what it begins; as LMDB sorts. */
static int compare(struct lk_bytes a, struct lk_bytes b) {
    int c = memcmp(a.data, b.data, a.size < b.size ? a.size : b.size);
    return c ? c : (a.size > b.size) - (a.size < b.size);
}

static int lmdb_scan(struct lk_kv_txn *base, struct lk_bytes from, struct lk_bytes to, lk_kv_scan_fn *fn, void *arg,
                     struct lk_err *err) {
    struct txn *txn = (struct txn *)base;
    struct environment *env = txn->kv->env;
    MDB_cursor *cursor;
    int late = check_snapshot(txn, err), stop = 0;
    if (late != 0) return late;
    int code = mdb_cursor_open(txn->mdb, env->dbi, &cursor);
    if (code != 0) return fail(err, code, env, "scan");
    MDB_val k = val(from), v;
    code = mdb_cursor_get(cursor, &k, &v, from.size ? MDB_SET_RANGE : MDB_FIRST);
    while ((stop = check_snapshot(txn, err)) == 0 && code == 0 && (to.size == 0 || compare(bytes(k), to) < 0)) {
        stop = fn(arg, bytes(k), bytes(v));
        if ((late = check_snapshot(txn, err)) != 0) stop = late; /* what fn has seen need not have been a row */
        if (stop != 0) break;
        code = mdb_cursor_get(cursor, &k, &v, MDB_NEXT);
    }
    mdb_cursor_close(cursor);
    if (stop == 0 && code != 0 && code != MDB_NOTFOUND) return fail(err, code, env, "scan");
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
