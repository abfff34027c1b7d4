/* LMDB's environments: one for each directory in a process, opened as this user may, and how many transactions it has. */
#include "base/sanitizers.h"
#include "base/syscalls.h"
#include "lockstep/base/file.h"
#include "lockstep/base/mem.h"
#include "lockstep/base/progress.h"
#include "store/kv/kv_lmdb.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

/* Sanitizers need most of the address space. */
#define MAP_MOST  ((size_t)(LK_SANITIZED ? 1 : 256) << 30)
#define MAP_LEAST ((size_t)16 << 20)
#define READERS   1024
#define REPLACED  (MDB_LAST_ERRCODE + 100) /* beside what LMDB says */

static struct lk__kv_lmdb_env *registry;
static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;

int lk__kv_lmdb_fail(struct lk_err *err, int code, const struct lk__kv_lmdb_env *env, const char *what) {
    MDB_envinfo info;
    char size[32];
    switch (code) {
    case MDB_MAP_FULL:
        mdb_env_info(env->mdb, &info);
        return lk_fail(err, LK_EIO,
                       "cannot %s %s: its map of %s is full; nothing was changed (a larger one needs more "
                       "address space: ulimit -v)",
                       what, env->dir, lk_format_bytes(info.me_mapsize, size));
    case MDB_MAP_RESIZED:
        return lk_fail(err, LK_EBUSY,
                       "cannot %s %s: another process has grown it past the map of this one, which cannot move while this "
                       "process has other transactions open; try again when they have ended",
                       what, env->dir);
    case MDB_TXN_FULL:
        return lk_fail(err, LK_EIO, "cannot %s %s: too much in one transaction; nothing was changed", what, env->dir);
    case REPLACED:
        return lk_fail(err, LK_EBUSY, "cannot %s %s: its file was compacted meanwhile; close the store and open it again",
                       what, env->dir);
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
static int open_mdb(struct lk__kv_lmdb_env *env, unsigned flags) {
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
static int lacks_address_space(const struct lk__kv_lmdb_env *env, struct lk_err *err) {
    struct stat st = {0};
    char words[32], *data = lk_asprintf("%s/data.mdb", env->dir);
    if (data) stat(data, &st);
    lk_free(data);
    size_t size = (size_t)st.st_size > MAP_LEAST ? (size_t)st.st_size : MAP_LEAST;
    return lk_fail(err, LK_ENOMEM, "cannot open %s: it needs %s of address space", env->dir, lk_format_bytes(size, words));
}

/* Who may write opens for writing even to read, as handles share an environment. Who may write the lock file only still
 * locks: that is how several users share a store. */
static int open_as_permitted(struct lk__kv_lmdb_env *env, struct lk_err *err) {
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
    return code == 0 ? 0 : lk__kv_lmdb_fail(err, code, env, "open");
}

static int open_environment(struct lk__kv_lmdb_env *env, struct lk_err *err) {
    int code = open_as_permitted(env, err), dead, fd;
    struct stat st = {0};
    if (code != 0) return code;
    env->settled = false;
    if (mdb_env_get_fd(env->mdb, &fd) == 0 && fstat(fd, &st) == 0) env->file = st.st_ino;
    if (!env->lockless) mdb_reader_check(env->mdb, &dead); /* slots of killed readers would keep old pages alive */
    MDB_txn *txn = NULL;
    code = mdb_txn_begin(env->mdb, NULL, MDB_RDONLY, &txn);
    if (code == 0) code = mdb_dbi_open(txn, NULL, 0, &env->dbi);
    if (code == 0)
        code = mdb_txn_commit(txn);
    else if (txn)
        mdb_txn_abort(txn);
    if (code == 0 && mdb_env_get_maxkeysize(env->mdb) >= (int)lk__kv_lmdb.key_max) return 0;
    code = code ? lk__kv_lmdb_fail(err, code, env, "open")
                : lk_fail(err, LK_EUNSUPPORTED, "cannot open %s: this liblmdb was compiled for keys of %d bytes, not %zu",
                          env->dir, mdb_env_get_maxkeysize(env->mdb), lk__kv_lmdb.key_max);
    mdb_env_close(env->mdb);
    return code;
}

int lk__kv_lmdb_reopen(struct lk__kv_lmdb_env *env, struct lk_err *err) {
    int code = open_environment(env, err);
    if (code != 0) env->mdb = NULL;
    return code;
}

/* What was opened to be changed must be permitted to change, now and not at the first write. */
int lk__kv_lmdb_check_writable(const struct lk__kv_lmdb_env *env, enum lk_access how, struct lk_err *err) {
    if (how == LK_READ || !env->read_only) return 0;
    return lk_fail(err, LK_EIO, "no permission to write %s: this store can only be read", env->dir);
}

/* With registry_lock held. Takes dir over. */
static int find_or_open(char *dir, enum lk_access how, struct lk__kv_lmdb_env **out, struct lk_err *err) {
    struct stat st;
    if (stat(dir, &st) != 0) {
        int code = lk_fail_errno(err, "cannot open %s", dir);
        lk_free(dir);
        return code;
    }
    for (struct lk__kv_lmdb_env *e = registry; e; e = e->next) {
        if (e->device != st.st_dev || e->inode != st.st_ino || e->pid != getpid()) continue;
        lk_free(dir);
        int code = lk__kv_lmdb_check_writable(e, how, err);
        if (code == 0) e->references++, *out = e;
        if (code == 0 && how != LK_READ) lk__kv_lmdb_fill_reserve(e);
        return code;
    }
    struct lk__kv_lmdb_env *e = lk_calloc(1, sizeof *e);
    int code = e ? 0 : lk_fail(err, LK_ENOMEM, "out of memory opening %s", dir);
    if (code == 0) {
        *e = (struct lk__kv_lmdb_env){.next = registry,
                                      .device = st.st_dev,
                                      .inode = st.st_ino,
                                      .pid = getpid(),
                                      .references = 1,
                                      .guard = -1,
                                      .lock = PTHREAD_MUTEX_INITIALIZER,
                                      .queue_lock = PTHREAD_MUTEX_INITIALIZER};
        e->last = &e->first;
        e->dir = dir;
        code = open_environment(e, err);
        if (code == 0 && (code = lk__kv_lmdb_check_writable(e, how, err)) != 0) mdb_env_close(e->mdb);
    }
    if (code != 0) {
        lk_free(e);
        lk_free(dir);
        return code;
    }
    if (how != LK_READ) lk__kv_lmdb_fill_reserve(e);
    *out = registry = e;
    return 0;
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

/* Only then: a folder that is there may be one that we may only read. */
static int make_absent(const char *dir, struct lk_err *err) {
    struct stat st;
    char *data = lk_asprintf("%s/data.mdb", dir);
    if (!data) return lk_fail(err, LK_ENOMEM, "out of memory opening %s", dir);
    bool absent = stat(data, &st) != 0 && errno == ENOENT;
    lk_free(data);
    return absent ? lk__kv_lmdb_make(dir, err) : 0;
}

int lk__kv_lmdb_open(const char *where, enum lk_access how, struct lk__kv_lmdb_env **out, struct lk_err *err) {
    char *dir = lk_asprintf("%s/kv", where);
    int code = dir ? 0 : lk_fail(err, LK_ENOMEM, "out of memory opening %s", where);
    if (code == 0) code = how == LK_CREATE ? lk_dir_make(dir, err) : check_there(dir, err);
    if (code == 0) code = refuse_network(dir, err);
    if (code == 0 && how == LK_CREATE) code = make_absent(dir, err);
    if (code != 0) {
        lk_free(dir);
        return code;
    }
    pthread_mutex_lock(&registry_lock);
    code = find_or_open(dir, how, out, err);
    pthread_mutex_unlock(&registry_lock);
    return code;
}

void lk__kv_lmdb_close(struct lk__kv_lmdb_env *e) {
    pthread_mutex_lock(&registry_lock);
    if (--e->references == 0) {
        struct lk__kv_lmdb_env **link = &registry;
        while (*link != e) link = &(*link)->next;
        *link = e->next;
        /* In a forked child the parent's environment is only forgotten. */
        if (e->pid == getpid()) {
            mdb_env_close(e->mdb);
            if (e->guard >= 0) close(e->guard);
            pthread_mutex_destroy(&e->lock);
            pthread_mutex_destroy(&e->queue_lock);
        }
        lk_free(e->dir);
        lk_free(e);
    }
    pthread_mutex_unlock(&registry_lock);
}

/* --- transactions ---------------------------------------------------------------------------------------- */

/* Another process with a larger map has grown the file past ours. LMDB gives the old map up before it asks for the new one,
 * and does not survive a refusal; so we ask first, and not for all that the other process has room for. */
static int move_map(struct lk__kv_lmdb_env *env) {
    MDB_envinfo info;
    MDB_stat stat;
    mdb_env_info(env->mdb, &info);
    mdb_env_stat(env->mdb, &stat);
    size_t least = (info.me_last_pgno + 1) * stat.ms_psize, size = first_map_size();
    for (;; size /= 2) {
        if (size < least) size = least;
        void *room = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (room != MAP_FAILED) {
            munmap(room, size);
            int code = mdb_env_set_mapsize(env->mdb, size);
            env->unmapped = code != 0;
            return code;
        }
        if (size == least) return ENOMEM;
    }
}

/* Who may write nothing has no lock that keeps others from compacting the file: it would go on reading the old one. */
static bool replaced(const struct lk__kv_lmdb_env *env) {
    struct stat st;
    char path[4096];
    if (!env->read_only || snprintf(path, sizeof path, "%s/data.mdb", env->dir) >= (int)sizeof path) return false;
    return stat(path, &st) == 0 && st.st_ino != env->file;
}

/* A map may move only while nobody uses it: who is counted may be about to, and while we hold the lock nobody is counted
 * anew. */
#define WRITES_OF_A_LOOK 256
int lk__kv_lmdb_begin(struct lk__kv_lmdb_env *env, bool write, MDB_txn **out) {
    unsigned flags = write ? 0 : MDB_RDONLY;
    pthread_mutex_lock(&env->lock);
    env->transactions++;
    int code = env->unmapped ? ENOMEM : 0, dead;
    pthread_mutex_unlock(&env->lock);
    if (code == 0 && replaced(env)) code = REPLACED;
    /* A process that was killed while it read keeps the pages of its snapshot, and so the file growing. */
    if (code == 0 && write && atomic_fetch_add(&env->writes, 1) % WRITES_OF_A_LOOK == 0) mdb_reader_check(env->mdb, &dead);
    if (code == 0) code = mdb_txn_begin(env->mdb, NULL, flags, out);
    if (code == MDB_READERS_FULL && mdb_reader_check(env->mdb, &dead) == 0 && dead) /* slots of killed readers */
        code = mdb_txn_begin(env->mdb, NULL, flags, out);
    if (code == MDB_MAP_RESIZED) {
        pthread_mutex_lock(&env->lock);
        if (env->transactions == 1) code = move_map(env);
        pthread_mutex_unlock(&env->lock);
        if (code == 0) code = mdb_txn_begin(env->mdb, NULL, flags, out);
    }
    if (code != 0) lk__kv_lmdb_end(env);
    return code;
}

void lk__kv_lmdb_end(struct lk__kv_lmdb_env *env) {
    pthread_mutex_lock(&env->lock);
    env->transactions--;
    pthread_mutex_unlock(&env->lock);
}
