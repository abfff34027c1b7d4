/* What the files of the LMDB engine share: environments and transactions. */
#ifndef LK_KV_LMDB_H
#define LK_KV_LMDB_H
#include "store/kv/kv_engine.h"
#include <lmdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

struct lk__kv_lmdb_request;

/* LMDB must not open one file twice in a process (closing one drops the locks of both), so environments are shared:
 * `references` counts the lk_kv that use one. */
struct lk__kv_lmdb_env {
    struct lk__kv_lmdb_env *next;
    dev_t device;
    ino_t inode;
    pid_t pid; /* an environment inherited over fork() is not ours to use */
    int references;
    MDB_env *mdb;
    MDB_dbi dbi;
    bool read_only;       /* we may not write there */
    bool lockless;        /* nor write its lock file: a writer does not see our snapshots */
    pthread_mutex_t lock; /* of the next two, and held while the map moves */
    int transactions;     /* those that run, and those that are being begun */
    bool unmapped;        /* the map could not be moved: nothing works any more */
    int guard;            /* a descriptor of the lock file since the file was compacted, else -1 (kv_lmdb_tools.c) */
    ino_t file;           /* the database's, as it was opened */
    bool settled;         /* names of the file and its folder are synced; under LMDB's write lock */
    atomic_uint writes;   /* transactions, since it was opened */
    atomic_ulong writer;  /* the thread that holds the write transaction, 0: none */
    char *dir;
    pthread_mutex_t queue_lock; /* of the rest: kv_lmdb_group.c */
    struct lk__kv_lmdb_request *first, **last;
    bool leading;
    size_t queued, batch; /* calls in the queue; in the last transaction */
    uint64_t commit_ns;   /* what that took */
};
struct lk__kv_lmdb {
    struct lk_kv base;
    struct lk__kv_lmdb_env *env;
    atomic_int transactions;
};
struct lk__kv_lmdb_txn {
    struct lk_kv_txn base;
    MDB_txn *mdb;
    struct lk__kv_lmdb_env *env;
    bool deletes;         /* and so has the reserve */
    bool scattered;       /* a row was put that is not behind all others */
    size_t bytes;         /* of values put */
    int64_t timestamp_ms; /* 0: not asked for yet */
};

/* where: the folder that holds kv/. */
int lk__kv_lmdb_open(const char *where, enum lk_access, struct lk__kv_lmdb_env **out, struct lk_err *);
void lk__kv_lmdb_close(struct lk__kv_lmdb_env *);
/* Once more, after mdb_env_close. With env->lock held and no transactions. */
int lk__kv_lmdb_reopen(struct lk__kv_lmdb_env *, struct lk_err *);
/* LK_EIO for who wants to change what may only be read. */
int lk__kv_lmdb_check_writable(const struct lk__kv_lmdb_env *, enum lk_access, struct lk_err *);
/* Returns what LMDB says. Each that was begun is ended, after LMDB's own commit or abort. */
int lk__kv_lmdb_begin(struct lk__kv_lmdb_env *, bool write, MDB_txn **out);
void lk__kv_lmdb_end(struct lk__kv_lmdb_env *);
/* A file that keeps some of the disk for deleting: taken if it can be, given back. */
void lk__kv_lmdb_fill_reserve(const struct lk__kv_lmdb_env *);
void lk__kv_lmdb_release_reserve(const struct lk__kv_lmdb_env *);
/* LK_EIO, LK_EBUSY: this thread may not wait for the write lock. */
int lk__kv_lmdb_may_write(const struct lk__kv_lmdb_env *, struct lk_err *);
int lk__kv_lmdb_timestamp(struct lk_kv_txn *, int64_t *out_ms, struct lk_err *);
int lk__kv_lmdb_update(struct lk_kv *, lk_kv_update_fn *, void *arg, enum lk_durability, int64_t *timestamp_ms,
                       struct lk_err *);
int lk__kv_lmdb_stats(struct lk_kv *, struct lk_kv_stats *, struct lk_err *);
int lk__kv_lmdb_copy(struct lk_kv *, const char *dir, bool compact, struct lk_err *);
int lk__kv_lmdb_compact(struct lk_kv *, struct lk_err *);

/* --- kv_lmdb_file.c */

/* A file that becomes dir/data.mdb, if nobody has it by then. */
struct lk__kv_lmdb_new {
    char *folder, *path, *data;
    int fd; /* of the folder: its lock */
};
/* path may be written now. Waits for another one that makes a file there. LK_EEXISTS: there is a data.mdb. */
int lk__kv_lmdb_new_open(struct lk__kv_lmdb_new *, const char *dir, struct lk_err *);
/* When path is written and synced: it has its name now, unsynced. LK_EEXISTS: somebody was first. */
int lk__kv_lmdb_new_settle(const struct lk__kv_lmdb_new *, struct lk_err *);
void lk__kv_lmdb_new_close(struct lk__kv_lmdb_new *);
/* An empty database in dir, if there is none. */
int lk__kv_lmdb_make(const char *dir, struct lk_err *);
/* Before a commit, with the write lock: syncs the folders once. 0 or an errno. */
int lk__kv_lmdb_settle(struct lk__kv_lmdb_env *);
/* How a file gets its name; tests take away what a file system may lack. */
extern enum lk__kv_lmdb_naming { LK__KV_LMDB_NOREPLACE, LK__KV_LMDB_LINK, LK__KV_LMDB_RENAME } lk__kv_lmdb_naming;

/* What LMDB says, as an error of ours; what: "begin a transaction on". */
int lk__kv_lmdb_fail(struct lk_err *, int code, const struct lk__kv_lmdb_env *, const char *what);

#endif
