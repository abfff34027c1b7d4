#include "store/blob/blob_dir.h"
#include "base/syscalls.h"
#include "lockstep/base/file.h"
#include "lockstep/base/mem.h"
#include "lockstep/base/progress.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATH_MAX_BYTES LK__BLOB_PATH_BYTES
#define BUFFER_BYTES   ((size_t)256 << 10)
#define DIRECT_BYTES   (2 * LK_LEAF_BYTES) /* two leaves are hashed at once */
#define DIRECT_ALIGN   ((size_t)4096)

struct writer {
    struct lk__blob_file file;
    struct lk_hasher *hasher;
    bool failed;
    struct lk_err first; /* why */
    size_t used, capacity;
    char *direct, *direct_memory; /* NULL, or the buffer of writes past the page cache */
    char buffer[];
};

static char *dir_path(struct lk_blobs *b, const struct lk_root *root, char *out) {
    char hex[LK_ROOT_HEX];
    lk_root_hex(root, hex);
    snprintf(out, PATH_MAX_BYTES, "%s/%.2s/%s", ((struct lk__blob_dir *)b)->path, hex, hex + 2);
    return out;
}

/* What keeps us from using the directory so. */
static int check_access(const char *path, enum lk_access how, struct lk_err *err) {
    if (access(path, how == LK_READ ? R_OK | X_OK : R_OK | W_OK | X_OK) == 0) return 0;
    if (errno == EACCES || errno == EROFS)
        return lk_fail(err, LK_EIO, "no permission to %s %s", how == LK_READ ? "read" : "write", path);
    return lk_fail_errno(err, "cannot open %s", path);
}

int lk__blobs_dir_open(const char *path, enum lk_access how, struct lk_blobs **out, struct lk_err *err) {
    if (strlen(path) > PATH_MAX_BYTES - 128) return lk_fail(err, LK_EINVAL, "the path of the blobs' directory is too long");
    struct lk__blob_dir *d = lk_calloc(1, sizeof *d);
    char *tmp = lk_asprintf("%s/tmp", path);
    if (d) d->path = lk_strdup(path);
    int code = d && d->path && tmp ? 0 : lk_fail(err, LK_ENOMEM, "out of memory opening %s", path);
    if (code == 0 && how != LK_CREATE) code = check_access(path, how, err);
    if (code == 0 && how != LK_READ) code = lk_dir_make(tmp, err);
    if (code == 0 && how == LK_CREATE) code = check_access(path, how, err);
    lk_free(tmp);
    if (code != 0) {
        if (d) lk_free(d->path);
        lk_free(d);
        return code;
    }
    d->base.ops = &lk__blobs_dir;
    *out = &d->base;
    return 0;
}

static void dir_close(struct lk_blobs *b) {
    lk_free(((struct lk__blob_dir *)b)->path);
    lk_free(b);
}

/* --- temporaries ------------------------------------------------------------------------------------------ */

/* A writer holds a lock on its temporary for as long as it lives, so that the cleaner knows the dead ones, whatever
 * process or container they were in. */
int lk__blob_file_create(struct lk__blob_file *f, mode_t mode, struct lk_err *err) {
    static atomic_uint counter;
    for (int attempt = 0; attempt < 1000; attempt++) {
        lk_free(f->path);
        f->path = lk_asprintf("%s/tmp/%ld.%u.%llx", f->dir->path, (long)getpid(), atomic_fetch_add(&counter, 1),
                              (unsigned long long)lk_clock_wall_ms());
        if (!f->path) return lk_fail(err, LK_ENOMEM, "out of memory writing to %s", f->dir->path);
        f->fd = lk__open(f->path, O_RDWR | O_CREAT | O_EXCL, mode);
        if (f->fd < 0 && errno == EEXIST) continue;
        if (f->fd < 0) return lk_fail_errno(err, "cannot create %s", f->path);
        struct stat st;
        int locked;
        while ((locked = flock(f->fd, LOCK_EX)) != 0 && errno == EINTR) {}
        /* A file system without flock() has no cleaner's race to lose either. */
        if (locked != 0 || (fstat(f->fd, &st) == 0 && st.st_nlink > 0)) return 0;
        close(f->fd); /* the cleaner was between our two calls */
        f->fd = -1;
    }
    return lk_fail(err, LK_EIO, "cannot create a new file in %s/tmp", f->dir->path);
}

void lk__blob_file_release(struct lk__blob_file *f, bool remove_file) {
    if (f->fd >= 0) {
        if (remove_file) unlink(f->path);
        close(f->fd);
    }
    lk_free(f->path);
}

/* Whether the file at path already holds exactly what f does. A damaged one does not, and is replaced; so is one that could
 * not be looked at, but that is no damage: there may be no memory or no file descriptor left. */
static bool same_content(struct lk__blob_file *f, const char *path, bool *damaged) {
    struct lk_map old, new;
    *damaged = false;
    if (lk_map_open(path, &old, NULL) != 0) return false;
    bool same = lk_map_open(f->path, &new, NULL) == 0;
    if (same) {
        same = old.size == new.size && (old.size == 0 || memcmp(old.data, new.data, old.size) == 0);
        *damaged = !same;
        lk_map_close(&new);
    }
    lk_map_close(&old);
    return same;
}

/* The folder may be another one's, made a moment ago or by one who was killed, and not synced yet: then our blob in it
 * would go with it. One sync is for all folders that are there before it. */
static int settle_folder(struct lk__blob_dir *d, const char *folder, unsigned char first, struct lk_err *err) {
    bool there[256] = {false};
    char path[PATH_MAX_BYTES];
    if (mkdir(folder, 0777) != 0 && errno != EEXIST) return lk_dir_make(folder, err);
    if (d->unsynced) return 0;
    for (int i = 0; i < 256; i++) {
        snprintf(path, sizeof path, "%s/%02x", d->path, (unsigned)i);
        there[i] = i == first || lk_file_exists(path);
    }
    int code = lk_dir_sync(d->path, err);
    if (code == 0 && !atomic_load(&d->settled)) {
        strcpy(path, d->path);
        char *slash = strrchr(path, '/');
        if (slash) slash[slash == path] = 0;
        const char *above = slash ? path : ".";
        if (access(above, R_OK) == 0) code = lk_dir_sync(above, err);
    }
    if (code != 0) return code;
    atomic_store(&d->settled, true);
    for (int i = 0; i < 256; i++)
        if (there[i]) atomic_store(&d->folders[i], true);
    return 0;
}

static int rename_to(struct lk__blob_file *f, const char *path, const char *folder, unsigned char first,
                     struct lk_err *err) {
    if (lk__rename(f->path, path) == 0) return 0;
    if (errno == ENOENT) { /* somebody has removed the folder */
        int code = settle_folder(f->dir, folder, first, err);
        if (code != 0) return code;
        if (lk__rename(f->path, path) == 0) return 0;
    }
    return lk_fail_errno(err, "cannot rename %s to %s", f->path, path);
}

static int publish(struct lk__blob_file *f, const struct lk_root *root, struct lk_err *err) {
    char path[PATH_MAX_BYTES], parent[PATH_MAX_BYTES];
    unsigned char first = root->bytes[0];
    dir_path(&f->dir->base, root, path);
    strcpy(parent, path);
    *strrchr(parent, '/') = 0;
    int code = atomic_load(&f->dir->folders[first]) ? 0 : settle_folder(f->dir, parent, first, err);
    if (code != 0) return code;
    if (lk_file_exists(path)) {
        bool damaged, same = same_content(f, path, &damaged);
        /* Young again, as if written now: gc keeps what is young, because it may be about to be named. */
        if (same && utimensat(AT_FDCWD, path, NULL, 0) == 0) {
            unlink(f->path);
            return f->dir->unsynced ? 0 : lk_dir_sync(parent, err); /* its own writer may not have come this far */
        }
        if (damaged) lk_log_warn("%s was damaged; it is replaced by a good copy", path);
    }
    if ((code = rename_to(f, path, parent, first, err)) != 0) return code;
    return f->dir->unsynced ? 0 : lk_dir_sync(parent, err);
}

int lk__blob_file_publish(struct lk__blob_file *f, const struct lk_root *root, struct lk_err *err) {
    if (!f->dir->unsynced && lk__fsync(f->fd) != 0) return lk_fail_errno(err, "cannot sync the blob %s", f->path);
    int code = lk__blob_before_put(&f->dir->base, root, err);
    if (code == 0) code = publish(f, root, err);
    if (code != 0) return code;
    /* Closed after the rename: the lock has to outlive the temporary name. */
    int fd = f->fd;
    f->fd = -1;
    return lk__close(fd) == 0 ? 0 : lk_fail_errno(err, "cannot close the blob %s", f->path);
}

/* --- streaming -------------------------------------------------------------------------------------------- */

static void writer_free(struct writer *w) {
    lk__blob_file_release(&w->file, true);
    lk_hasher_free(w->hasher);
    lk_free(w->direct_memory);
    lk_free(w);
}

static int dir_create(struct lk_blobs *b, struct lk_blob_writer **out, struct lk_err *err) {
    struct writer *w = lk_alloc(sizeof *w + BUFFER_BYTES);
    if (w)
        *w = (struct writer){.file = {.base.blobs = b, .dir = (struct lk__blob_dir *)b, .fd = -1},
                             .hasher = lk_hasher_create(),
                             .capacity = BUFFER_BYTES};
    int code = w && w->hasher ? lk__blob_file_create(&w->file, 0444, err)
                              : lk_fail(err, LK_ENOMEM, "out of memory for a blob's writer");
    if (code != 0) {
        if (w) writer_free(w);
        return code;
    }
    *out = &w->file.base;
    return 0;
}

static bool set_direct(int fd, bool on) {
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && fcntl(fd, F_SETFL, on ? flags | O_DIRECT : flags & ~O_DIRECT) == 0;
}

/* Only a wish: without memory or a file system for it, all goes through the page cache. */
static void dir_past_cache(struct lk_blob_writer *base) {
    struct writer *w = (struct writer *)base;
    if (w->used || w->direct_memory || lseek(w->file.fd, 0, SEEK_CUR) != 0) return;
    if (!(w->direct_memory = lk_alloc(DIRECT_BYTES + DIRECT_ALIGN))) return;
    if (!set_direct(w->file.fd, true)) return;
    w->direct = w->direct_memory + (DIRECT_ALIGN - (uintptr_t)w->direct_memory % DIRECT_ALIGN);
    w->capacity = DIRECT_BYTES;
}

/* The file system wants another alignment, or a write ended in the middle of a block: on through the page cache. */
static int write_on(struct writer *w, const char *data, size_t size, off_t began) {
    off_t at = lseek(w->file.fd, 0, SEEK_CUR);
    if (at < began || !set_direct(w->file.fd, false)) return -1;
    return lk__write_all(w->file.fd, data + (at - began), size - (size_t)(at - began));
}

/* Hashes and writes; the first failure is kept, so that finish gives it again. */
static int flush(struct writer *w, const void *data, size_t size, struct lk_err *err) {
    off_t began = w->direct ? lseek(w->file.fd, 0, SEEK_CUR) : 0;
    lk_hasher_update(w->hasher, data, size);
    if (w->direct && size < DIRECT_BYTES) set_direct(w->file.fd, false); /* the end */
    if (lk__write_all(w->file.fd, data, size) == 0) return 0;
    if (w->direct && errno == EINVAL && write_on(w, data, size, began) == 0) return 0;
    lk_fail_errno(&w->first, "cannot write the blob %s", w->file.path);
    w->failed = true;
    return lk_fail(err, w->first.code, "%s", w->first.message);
}

static int dir_write(struct lk_blob_writer *base, const void *data, size_t size, struct lk_err *err) {
    struct writer *w = (struct writer *)base;
    const char *p = data;
    char *buffer = w->direct ? w->direct : w->buffer;
    if (w->failed) return lk_fail(err, w->first.code, "%s", w->first.message);
    while (size) {
        if (!w->direct && w->used == 0 && size >= w->capacity) return flush(w, p, size, err);
        size_t n = w->capacity - w->used < size ? w->capacity - w->used : size;
        memcpy(buffer + w->used, p, n);
        w->used += n, p += n, size -= n;
        if (w->used < w->capacity) break;
        w->used = 0;
        int code = flush(w, buffer, w->capacity, err);
        if (code != 0) return code;
    }
    return 0;
}

static int dir_finish(struct lk_blob_writer *base, struct lk_root *out, struct lk_err *err) {
    struct writer *w = (struct writer *)base;
    struct lk_root root;
    int code = 0;
    if (!w->failed && w->used) flush(w, w->direct ? w->direct : w->buffer, w->used, NULL);
    if (w->failed) code = lk_fail(err, w->first.code, "%s", w->first.message);
    if (code == 0) {
        lk_hasher_final(w->hasher, &root);
        code = lk__blob_file_publish(&w->file, &root, err);
    }
    if (code == 0) *out = root;
    writer_free(w);
    return code;
}

static void dir_abort(struct lk_blob_writer *base) {
    writer_free((struct writer *)base);
}

/* --- reading --------------------------------------------------------------------------------------------- */

static int dir_open(struct lk_blobs *b, const struct lk_root *root, bool verify, struct lk_blob *out, struct lk_err *err) {
    char path[PATH_MAX_BYTES], hex[LK_ROOT_HEX], found_hex[LK_ROOT_HEX];
    struct lk_map map;
    lk_root_hex(root, hex);
    dir_path(b, root, path);
    int code = lk_map_open(path, &map, err);
    if (code == LK_ENOTFOUND)
        return lk_fail(err, code, "the blob %s is not in %s (there is no file %s)", hex, ((struct lk__blob_dir *)b)->path,
                       path);
    if (code != 0) return lk_fail_prefix(err, code, "blob %s", hex);
    *out = (struct lk_blob){map.data, map.size, *root};
    if (!verify) return 0;
    struct lk_root found;
    lk__blob_root_of_map(&map, b->threads, &found);
    if (lk_root_equal(&found, root)) return 0;
    size_t size = map.size;
    lk_blob_close(out);
    return lk_fail(err, LK_ECORRUPT,
                   "the blob %s in %s is damaged: the %zu bytes of %s have the root %s; restore that file or "
                   "make the blob again",
                   hex, ((struct lk__blob_dir *)b)->path, size, path, lk_root_hex(&found, found_hex));
}

static int dir_peek(struct lk_blobs *b, const struct lk_root *root, void *out, size_t size, size_t *got,
                    struct lk_err *err) {
    struct lk_blob blob;
    int code = dir_open(b, root, false, &blob, err);
    if (code != 0) return code;
    *got = blob.size < size ? blob.size : size;
    if (*got) memcpy(out, blob.data, *got);
    lk_blob_close(&blob);
    return 0;
}

static bool dir_exists(struct lk_blobs *b, const struct lk_root *root) {
    char path[PATH_MAX_BYTES];
    return lk_file_exists(dir_path(b, root, path));
}

static int dir_modified(struct lk_blobs *b, const struct lk_root *root, int64_t *out_ms, struct lk_err *err) {
    char path[PATH_MAX_BYTES];
    struct stat st;
    if (stat(dir_path(b, root, path), &st)) return lk_fail_errno(err, "cannot look at the blob %s", path);
    *out_ms = (int64_t)st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000;
    return 0;
}

static int dir_remove(struct lk_blobs *b, const struct lk_root *root, struct lk_err *err) {
    char path[PATH_MAX_BYTES];
    dir_path(b, root, path);
    if (unlink(path) == 0) return 0;
    if (errno == ENOENT) return lk_fail(err, LK_ENOTFOUND, "there is no blob %s to delete", path);
    return lk_fail_errno(err, "cannot delete the blob %s", path);
}

/* --- listing --------------------------------------------------------------------------------------------- */

static void clean_temporaries(struct lk__blob_dir *d, int64_t keep_tmp_ms) {
    char path[PATH_MAX_BYTES + 512];
    snprintf(path, sizeof path, "%s/tmp", d->path);
    DIR *dir = opendir(path);
    struct dirent *e;
    while (dir && (e = readdir(dir))) {
        struct stat st;
        if (e->d_name[0] == '.') continue;
        int fd = openat(dirfd(dir), e->d_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (fd < 0) continue;
        /* Ages are taken from the file's own clock, against ours: one machine, or a shared disk's small difference. */
        bool old = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
                   lk_clock_wall_ms() - ((int64_t)st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000) >= keep_tmp_ms;
        if (old && flock(fd, LOCK_EX | LOCK_NB) == 0) unlinkat(dirfd(dir), e->d_name, 0);
        close(fd);
    }
    if (dir) closedir(dir);
}

static int by_root(const void *a, const void *b) {
    return memcmp(a, b, sizeof(struct lk_root));
}

/* Collects the roots below DIR/ab. Files whose names are no roots are not ours and stay. */
static int collect(const char *path, const char *prefix, struct lk_buf *roots, struct lk_err *err) {
    DIR *dir = opendir(path);
    if (!dir) return errno == ENOENT ? 0 : lk_fail_errno(err, "cannot list %s", path);
    struct dirent *e;
    int code = 0;
    while (code == 0 && (errno = 0, e = readdir(dir))) {
        char hex[LK_ROOT_HEX];
        struct lk_root root;
        if (strlen(e->d_name) != 62) continue;
        memcpy(hex, prefix, 2);
        memcpy(hex + 2, e->d_name, 63);
        if (lk_root_parse(hex, &root) && lk_buf_append(roots, &root, sizeof root) != 0)
            code = lk_fail(err, LK_ENOMEM, "out of memory listing %s", path);
    }
    if (code == 0 && errno != 0) code = lk_fail_errno(err, "cannot list %s", path);
    closedir(dir);
    return code;
}

static int dir_list(struct lk_blobs *b, int64_t keep_tmp_ms, lk_blob_list_fn *fn, void *arg, struct lk_err *err) {
    struct lk__blob_dir *d = (struct lk__blob_dir *)b;
    struct lk_buf roots = LK_BUF_INIT;
    int code = 0;
    if (keep_tmp_ms >= 0) clean_temporaries(d, keep_tmp_ms);
    for (int i = 0; code == 0 && i < 256; i++) {
        char path[PATH_MAX_BYTES], prefix[3];
        snprintf(prefix, sizeof prefix, "%02x", (unsigned)i);
        snprintf(path, sizeof path, "%s/%s", d->path, prefix);
        roots.size = 0;
        code = collect(path, prefix, &roots, err);
        size_t count = roots.size / sizeof(struct lk_root);
        if (count) qsort(roots.data, count, sizeof(struct lk_root), by_root);
        for (size_t j = 0; code == 0 && j < count; j++) {
            struct lk_root *root = (struct lk_root *)(void *)roots.data + j;
            struct stat st;
            if (stat(dir_path(b, root, path), &st) != 0) {
                if (errno != ENOENT) code = lk_fail_errno(err, "cannot look at the blob %s", path);
                continue; /* deleted meanwhile */
            }
            code = fn(arg, root, (uint64_t)st.st_size, (int64_t)st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000);
        }
    }
    lk_buf_release(&roots);
    return code;
}

const struct lk_blobs_ops lk__blobs_dir = {
    .name = "directory",
    .close = dir_close,
    .create = dir_create,
    .past_cache = dir_past_cache,
    .write = dir_write,
    .finish = dir_finish,
    .abort = dir_abort,
    .open = dir_open,
    .peek = dir_peek,
    .exists = dir_exists,
    .modified = dir_modified,
    .remove = dir_remove,
    .path = dir_path,
    .list = dir_list,
    .sized = &lk__blobs_dir_sized,
};
