/* Deleting needs room too: LMDB writes new pages before old ones are free. A file beside the database holds some, and a
 * transaction that deletes gives it back first. Only a wish: without it, deleting on a full disk may fail. */
#include "store/kv/kv_lmdb.h"
#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define RESERVE_BYTES ((off_t)512 << 10) /* enough to delete a run of a million steps */
#define PATH_BYTES    4096

static bool reserve_path(const struct lk__kv_lmdb_env *env, char out[PATH_BYTES]) {
    return snprintf(out, PATH_BYTES, "%s/reserve", env->dir) < PATH_BYTES;
}

/* st_blocks: a copied store has a hole there. */
static bool is_filled(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && (off_t)st.st_blocks * 512 >= RESERVE_BYTES;
}

void lk__kv_lmdb_fill_reserve(const struct lk__kv_lmdb_env *env) {
    struct rlimit most;
    char path[PATH_BYTES];
    if (getrlimit(RLIMIT_FSIZE, &most) != 0 || most.rlim_cur < (rlim_t)RESERVE_BYTES)
        return; /* the kernel would send SIGXFSZ */
    if (!reserve_path(env, path) || is_filled(path)) return;
    int fd =
        open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666); /* a pipe of that name: no waiting */
    if (fd < 0) return;
    if (fallocate(fd, 0, 0, RESERVE_BYTES) != 0) unlink(path);
    close(fd);
}

void lk__kv_lmdb_release_reserve(const struct lk__kv_lmdb_env *env) {
    char path[PATH_BYTES];
    if (reserve_path(env, path)) unlink(path);
}
