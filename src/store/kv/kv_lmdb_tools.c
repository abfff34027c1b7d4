/* LMDB's whole file: what is in it, a copy of it, a smaller one in its place. */
#include "base/syscalls.h"
#include "lockstep/base/file.h"
#include "lockstep/base/mem.h"
#include "store/kv/kv_lmdb.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- statistics ------------------------------------------------------------------------------------------ */

/* LMDB's own list: a line of process, thread and transaction for each slot, "-" for one that does not read now. */
static int count_reader(const char *line, void *count) {
    char process[32], thread[32], transaction[32];
    bool slot = sscanf(line, "%31s %31s %31s", process, thread, transaction) == 3;
    if (slot && transaction[0] >= '0' && transaction[0] <= '9') ++*(uint32_t *)count;
    return 0;
}

/* The free list (database 0) has a row for each transaction that freed pages: their number, then the pages. */
static int count_free_pages(MDB_txn *mdb, uint64_t *pages) {
    MDB_cursor *cursor;
    MDB_val k, v;
    int code = mdb_cursor_open(mdb, 0, &cursor);
    if (code != 0) return code;
    while ((code = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) == 0) *pages += *(size_t *)v.mv_data;
    mdb_cursor_close(cursor);
    return code == MDB_NOTFOUND ? 0 : code;
}

int lk__kv_lmdb_stats(struct lk_kv *kv, struct lk_kv_stats *out, struct lk_err *err) {
    struct lk_kv_txn *base;
    struct lk__kv_lmdb_env *env = ((struct lk__kv_lmdb *)kv)->env;
    MDB_envinfo info;
    MDB_stat stat;
    uint64_t free_pages = 0;
    int dead = 0, code = lk_kv_begin(kv, false, &base, err);
    if (code != 0) return code;
    struct lk__kv_lmdb_txn *txn = (struct lk__kv_lmdb_txn *)base;
    if (!env->lockless) {
        mdb_reader_check(env->mdb, &dead);
        mdb_reader_list(env->mdb, count_reader, &out->readers);
        out->readers -= out->readers > 0; /* this one */
    }
    code = mdb_stat(txn->mdb, env->dbi, &stat);
    if (code == 0) code = count_free_pages(txn->mdb, &free_pages);
    if (code != 0)
        lk__kv_lmdb_fail(err, code, env, "look at");
    else
        code = lk__kv_lmdb_timestamp(base, &out->timestamp_ms, err);
    if (code == 0) code = kv->ops->check(base, err); /* without locks the free list may have been another one's */
    mdb_env_info(env->mdb, &info);
    lk_kv_abort(base);
    if (code != 0) return err ? err->code : LK_EIO;
    out->rows = stat.ms_entries;
    out->depth = stat.ms_depth;
    out->size_bytes = (info.me_last_pgno + 1) * (uint64_t)stat.ms_psize;
    out->free_bytes = free_pages * stat.ms_psize;
    out->limit_bytes = info.me_mapsize;
    out->readers_dead = (uint32_t)dead;
    return 0;
}

/* --- copies ---------------------------------------------------------------------------------------------- */

/* A new file with what the environment holds, synced. */
static int write_copy(const struct lk__kv_lmdb_env *env, MDB_env *mdb, const char *path, bool compact, struct lk_err *err) {
    int fd = lk__open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0) return lk_fail_errno(err, "cannot write %s", path);
    int code = mdb_env_copyfd2(mdb, fd, compact ? MDB_CP_COMPACT : 0);
    if (code == EIO || code == ENOSPC || code == EFBIG || code == EDQUOT) {
        lk__note_disk_of(fd);
        errno = code;
        code = lk_fail_errno(err, "cannot write %s", path);
    } else if (code != 0)
        code = lk__kv_lmdb_fail(err, code, env, "copy");
    else if (lk__fsync(fd) != 0)
        code = lk_fail_errno(err, "cannot sync %s", path);
    if (lk__close(fd) != 0 && code == 0) code = lk_fail_errno(err, "cannot close %s", path);
    if (code != 0) unlink(path);
    return code;
}

/* A read transaction is held meanwhile: it counts, so that the map stays where it is. */
static int copy_held(struct lk_kv *kv, const char *path, bool compact, struct lk_err *err) {
    struct lk__kv_lmdb_env *env = ((struct lk__kv_lmdb *)kv)->env;
    struct lk_kv_txn *held;
    MDB_envinfo before, after;
    int code = lk_kv_begin(kv, false, &held, err);
    if (code != 0) return code;
    mdb_env_info(env->mdb, &before);
    code = write_copy(env, env->mdb, path, compact, err);
    mdb_env_info(env->mdb, &after);
    lk_kv_abort(held);
    if (code != 0 || !env->lockless || before.me_last_txnid == after.me_last_txnid) return code;
    unlink(path);
    return lk_fail(err, LK_EBUSY,
                   "%s was written while it was copied, which a user who may not lock it cannot prevent; "
                   "try again",
                   env->dir);
}

int lk__kv_lmdb_copy(struct lk_kv *kv, const char *dir, bool compact, struct lk_err *err) {
    struct lk__kv_lmdb_env *env = ((struct lk__kv_lmdb *)kv)->env;
    if (atomic_load(&env->writer) == (unsigned long)pthread_self())
        return lk_fail(err, LK_EBUSY, "this thread has a write transaction open, for which the copy would wait");
    char *kv_dir = lk_asprintf("%s/kv", dir);
    struct lk__kv_lmdb_new n;
    int code = kv_dir ? lk_dir_make(kv_dir, err) : lk_fail(err, LK_ENOMEM, "out of memory copying to %s", dir);
    if (code == 0) code = lk__kv_lmdb_new_open(&n, kv_dir, err);
    if (code == 0) {
        code = copy_held(kv, n.path, compact, err);
        if (code == 0) code = lk__kv_lmdb_new_settle(&n, err);
        lk__kv_lmdb_new_close(&n);
    }
    if (code == 0) code = lk_dir_sync(kv_dir, err);
    if (code == 0) code = lk_dir_sync(dir, err);
    lk_free(kv_dir);
    return code;
}

/* --- in place -------------------------------------------------------------------------------------------- */

/* From the file, which nobody has open, to a smaller one in its place. */
static int replace(struct lk__kv_lmdb_env *env, struct lk_err *err) {
    char *data = lk_asprintf("%s/data.mdb", env->dir), *smaller = lk_asprintf("%s/data.mdb.compact", env->dir);
    MDB_env *mdb = NULL;
    int code = data && smaller ? 0 : lk_fail(err, LK_ENOMEM, "out of memory compacting %s", env->dir);
    if (code == 0) {
        unlink(smaller); /* of somebody who was killed here */
        code = mdb_env_create(&mdb);
        if (code == 0) code = mdb_env_open(mdb, env->dir, MDB_RDONLY | MDB_NOLOCK, 0666);
        code = code ? lk__kv_lmdb_fail(err, code, env, "compact") : write_copy(env, mdb, smaller, true, err);
        mdb_env_close(mdb);
    }
    struct stat st;
    if (code == 0 && stat(data, &st) == 0 && chmod(smaller, st.st_mode & 07777) != 0)
        code = lk_fail_errno(err, "cannot set the mode of %s", smaller);
    if (code == 0 && lk__rename(smaller, data) != 0) code = lk_fail_errno(err, "cannot put %s in its place", smaller);
    if (code != 0 && smaller) unlink(smaller);
    if (code == 0) code = lk_dir_sync(env->dir, err);
    lk_free(data);
    lk_free(smaller);
    return code;
}

/* Whoever has an environment open holds a read lock on the first byte of its lock file, LMDB's own: with a write lock we
 * are alone, and whoever opens it now waits. Locks of this kind are a process's and go with any of its descriptors, so ours
 * is kept as long as the environment. */
static int alone(struct lk__kv_lmdb_env *env, struct lk_err *err) {
    struct flock all = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
    char *path = lk_asprintf("%s/lock.mdb", env->dir);
    if (!path) return lk_fail(err, LK_ENOMEM, "out of memory compacting %s", env->dir);
    int code = 0;
    if (env->guard >= 0) close(env->guard);
    env->guard = open(path, O_RDWR | O_CLOEXEC);
    if (env->guard < 0)
        code = lk_fail_errno(err, "cannot open %s", path);
    else if (fcntl(env->guard, F_SETLK, &all) == 0) {
        /* The new file counts transactions from 1. Nobody must go by what the lock file says of the old one: whoever finds
         * it empty, and is not alone, does not open. */
        if (ftruncate(env->guard, 0) != 0) code = lk_fail_errno(err, "cannot empty %s", path);
    } else {
        code = errno == EACCES || errno == EAGAIN
                   ? lk_fail(err, LK_EBUSY,
                             "another process has %s open, and its map would stay on the old file: stop it, or make a "
                             "compact copy beside (`lockstep kv copy --compact`)",
                             env->dir)
                   : lk_fail_errno(err, "cannot lock %s", path);
        close(env->guard);
        env->guard = -1;
    }
    lk_free(path);
    return code;
}

int lk__kv_lmdb_compact(struct lk_kv *kv, struct lk_err *err) {
    struct lk__kv_lmdb_env *env = ((struct lk__kv_lmdb *)kv)->env;
    int code = lk__kv_lmdb_check_writable(env, LK_WRITE, err);
    if (code != 0) return code;
    pthread_mutex_lock(&env->lock); /* who begins a transaction waits here */
    if (env->transactions > 0)
        code = lk_fail(err, LK_EBUSY, "this process has %d transactions open on %s; compact it when they have ended",
                       env->transactions, env->dir);
    else if (!env->unmapped) {
        struct lk_err reopening;
        mdb_env_close(env->mdb);
        code = alone(env, err);
        if (code == 0) code = replace(env, err);
        if (lk__kv_lmdb_reopen(env, &reopening) != 0) {
            env->unmapped = true;
            if (code == 0) code = lk_fail(err, reopening.code, "%s", reopening.message);
        }
    } else
        code = lk_fail(err, LK_EIO, "%s could not be mapped anew; close the store and open it again", env->dir);
    pthread_mutex_unlock(&env->lock);
    return code;
}
