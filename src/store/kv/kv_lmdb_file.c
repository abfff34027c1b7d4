/* A file that becomes DIR/data.mdb whole or not at all: an empty database, or a copy. It is written in DIR/new, a folder
 * whose maker holds a lock on it, and gets its name when it is synced, unless somebody has the name. What a killed maker
 * left there is overwritten by the next one. */
#include "base/syscalls.h"
#include "lockstep/base/file.h"
#include "lockstep/base/mem.h"
#include "store/kv/kv_lmdb.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum lk__kv_lmdb_naming lk__kv_lmdb_naming = LK__KV_LMDB_NOREPLACE;

/* A lock is good only while the name leads to what is locked: its last owner may have removed it. */
static int lock_folder(const char *path, int *fd, struct lk_err *err) {
    for (int attempt = 0; attempt < 1000; attempt++) {
        struct stat locked, named;
        int code;
        if (mkdir(path, 0777) != 0 && errno != EEXIST) return lk_fail_errno(err, "cannot make %s", path);
        *fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (*fd < 0 && errno == ENOENT) continue;
        if (*fd < 0) return lk_fail_errno(err, "cannot open %s", path);
        while ((code = flock(*fd, LOCK_EX)) != 0 && errno == EINTR) {}
        if (code != 0) return 0; /* a file system without these locks: two makers may disturb each other */
        if (fstat(*fd, &locked) == 0 && stat(path, &named) == 0 && locked.st_ino == named.st_ino) return 0;
        close(*fd);
        *fd = -1;
    }
    return lk_fail(err, LK_EIO, "cannot lock %s, which others make and remove", path);
}

int lk__kv_lmdb_new_open(struct lk__kv_lmdb_new *n, const char *dir, struct lk_err *err) {
    *n = (struct lk__kv_lmdb_new){.fd = -1};
    n->folder = lk_asprintf("%s/new", dir);
    n->path = lk_asprintf("%s/new/data.mdb", dir);
    n->data = lk_asprintf("%s/data.mdb", dir);
    int code = n->folder && n->path && n->data ? lock_folder(n->folder, &n->fd, err)
                                               : lk_fail(err, LK_ENOMEM, "out of memory making a database in %s", dir);
    if (code == 0 && lk_file_exists(n->data))
        code = lk_fail(err, LK_EEXISTS, "%s exists already: name another folder", n->data);
    if (code == 0 && unlink(n->path) != 0 && errno != ENOENT) code = lk_fail_errno(err, "cannot remove %s", n->path);
    if (code != 0) lk__kv_lmdb_new_close(n);
    return code;
}

void lk__kv_lmdb_new_close(struct lk__kv_lmdb_new *n) {
    if (n->fd >= 0) {
        unlink(n->path);
        rmdir(n->folder); /* under the lock */
        close(n->fd);
    }
    lk_free(n->folder);
    lk_free(n->path);
    lk_free(n->data);
}

/* 0 or an errno; EEXIST: somebody has the name. Not every file system can rename without replacing, nor link; where it can
 * do neither, the lock keeps others of ours away between the look and the rename. */
static int give_name(const struct lk__kv_lmdb_new *n) {
    if (lk__kv_lmdb_naming == LK__KV_LMDB_NOREPLACE) {
        if (renameat2(AT_FDCWD, n->path, AT_FDCWD, n->data, RENAME_NOREPLACE) == 0) return 0;
        if (errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP) return errno;
    }
    if (lk__kv_lmdb_naming <= LK__KV_LMDB_LINK) {
        if (link(n->path, n->data) == 0) return unlink(n->path) == 0 ? 0 : errno;
        if (errno != EPERM && errno != ENOSYS && errno != EOPNOTSUPP) return errno;
    }
    if (lk_file_exists(n->data)) return EEXIST;
    return lk__rename(n->path, n->data) == 0 ? 0 : errno;
}

int lk__kv_lmdb_new_settle(const struct lk__kv_lmdb_new *n, struct lk_err *err) {
    int number = give_name(n);
    if (number == 0) return 0;
    if (number == EEXIST) return lk_fail(err, LK_EEXISTS, "%s exists already: name another folder", n->data);
    errno = number;
    return lk_fail_errno(err, "cannot write %s", n->data);
}

/* LMDB itself writes an empty file's first pages without a sync, where a power loss would leave half of them, and then
 * refuses the file for ever. Not MDB_NOSUBDIR: the flag would get into the file. */
int lk__kv_lmdb_make(const char *dir, struct lk_err *err) {
    struct lk__kv_lmdb_new n;
    int code = lk__kv_lmdb_new_open(&n, dir, err), fd;
    if (code == LK_EEXISTS) return 0;
    if (code != 0) return code;
    struct lk__kv_lmdb_env named = {.dir = n.folder};
    code = mdb_env_create(&named.mdb);
    if (code == 0) code = mdb_env_open(named.mdb, n.folder, MDB_NOTLS | MDB_NOLOCK, 0666);
    if (code == 0) code = mdb_env_get_fd(named.mdb, &fd);
    code = code ? lk__kv_lmdb_fail(err, code, &named, "make") : 0;
    if (code == 0 && lk__fsync(fd) != 0) code = lk_fail_errno(err, "cannot sync %s", n.path);
    if (named.mdb) mdb_env_close(named.mdb);
    if (code == 0) code = lk__kv_lmdb_new_settle(&n, err);
    lk__kv_lmdb_new_close(&n);
    return code == LK_EEXISTS ? 0 : code;
}

/* A folder that may not be read cannot be synced. 0 or an errno. */
static int sync_folder(const char *path) {
    int fd = lk__open(path, O_RDONLY | O_DIRECTORY, 0), number = 0;
    if (fd < 0) return errno == EACCES || errno == EPERM ? 0 : errno;
    if (lk__fsync(fd) != 0 && errno != EINVAL) number = errno;
    close(fd);
    return number;
}

/* Whoever gave the file its name, or made the folder, may have been killed before the sync of it; so each that commits does
 * it once. */
int lk__kv_lmdb_settle(struct lk__kv_lmdb_env *env) {
    if (env->settled) return 0;
    int number = sync_folder(env->dir);
    char *above = lk_strdup(env->dir), *slash = above ? strrchr(above, '/') : NULL;
    if (slash && slash > above) *slash = 0;
    if (number == 0) number = slash ? sync_folder(above) : ENOMEM;
    lk_free(above);
    env->settled = number == 0;
    return number;
}
