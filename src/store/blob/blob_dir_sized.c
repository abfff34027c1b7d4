/* A blob of known size that several processes write: the creator's temporary, which the others open by its name. */
#include "base/syscalls.h"
#include "lockstep/base/file.h"
#include "lockstep/base/mem.h"
#include "store/blob/blob_dir.h"
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct sized {
    struct lk__blob_file file;
    atomic_int failed; /* errno of a write or sync; one number, so that threads need no lock */
};

static struct sized *sized_alloc(struct lk_blobs *b, uint64_t size, bool creator) {
    struct sized *w = lk_calloc(1, sizeof *w);
    if (!w) return NULL;
    w->file = (struct lk__blob_file){
        .base = {.blobs = b, .sized = true, .creator = creator, .size = size}, .dir = (struct lk__blob_dir *)b, .fd = -1};
    return w;
}

static void sized_abort(struct lk_blob_writer *base) {
    struct sized *w = (struct sized *)base;
    lk__blob_file_release(&w->file, base->creator);
    lk_free(w);
}

/* Not posix_fallocate: where the file system cannot reserve, the C library writes every block instead. */
static int reserve(int fd, uint64_t size) {
    if (size == 0 || lk__fallocate(fd, (off_t)size) == 0) return 0;
    if (errno != EOPNOTSUPP && errno != ENOSYS) return -1;
    return lk__ftruncate(fd, (off_t)size);
}

static int sized_create(struct lk_blobs *b, uint64_t size, struct lk_blob_writer **out, struct lk_err *err) {
    struct sized *w = sized_alloc(b, size, true);
    if (!w) return lk_fail(err, LK_ENOMEM, "out of memory for a blob's writer");
    /* Writable for joiners until it is published. */
    int code = lk__blob_file_create(&w->file, 0644, err);
    if (code == 0 && reserve(w->file.fd, size) != 0)
        code = lk_fail_errno(err, "cannot take %llu bytes of disk for a blob in %s (make room there, or use another store)",
                             (unsigned long long)size, w->file.dir->path);
    if (code == 0)
        *out = &w->file.base;
    else
        sized_abort(&w->file.base);
    return code;
}

static const char *sized_name(const struct lk_blob_writer *base) {
    return strrchr(((const struct sized *)base)->file.path, '/') + 1;
}

static int open_joined(struct lk__blob_file *f, struct lk_err *err) {
    f->fd = lk__open(f->path, O_RDWR | O_NOFOLLOW | O_NONBLOCK, 0);
    if (f->fd < 0 && errno == ENOENT)
        return lk_fail(err, LK_ENOTFOUND,
                       "no blob is being written at %s: its creator has ended, or has another store or disk there",
                       f->path);
    if (f->fd < 0) return lk_fail_errno(err, "cannot open %s to write a part of it", f->path);
    struct stat st;
    if (fstat(f->fd, &st) != 0) return lk_fail_errno(err, "cannot read the size of %s", f->path);
    if (S_ISREG(st.st_mode) && (uint64_t)st.st_size == f->base.size) return 0;
    return lk_fail(err, LK_EINVAL, "%s is %s of %lld bytes, not a blob of %llu; all who write one must give its size",
                   f->path, S_ISREG(st.st_mode) ? "a file" : "no regular file and", (long long)st.st_size,
                   (unsigned long long)f->base.size);
}

static int sized_join(struct lk_blobs *b, const char *name, uint64_t size, struct lk_blob_writer **out,
                      struct lk_err *err) {
    struct sized *w = sized_alloc(b, size, false);
    if (w) w->file.path = lk_asprintf("%s/tmp/%s", w->file.dir->path, name);
    int code =
        w && w->file.path ? open_joined(&w->file, err) : lk_fail(err, LK_ENOMEM, "out of memory for a blob's writer");
    if (code == 0)
        *out = &w->file.base;
    else if (w)
        sized_abort(&w->file.base);
    return code;
}

/* Linux reports a lost page once to each descriptor: a second sync would succeed without it. */
static int check_failed(struct sized *w, struct lk_err *err) {
    int number = atomic_load(&w->failed);
    if (number == 0) return 0;
    errno = number;
    lk__note_disk_of(w->file.fd);
    return lk_fail_errno(err, "a write to the blob %s failed before, it cannot be completed", w->file.path);
}

static int sized_write_at(struct lk_blob_writer *base, uint64_t offset, const void *data, size_t size, struct lk_err *err) {
    struct sized *w = (struct sized *)base;
    int code = check_failed(w, err);
    if (code != 0 || lk__pwrite_all(w->file.fd, data, size, (off_t)offset) == 0) return code;
    atomic_store(&w->failed, errno);
    return lk_fail_errno(err, "cannot write %zu bytes at %llu to the blob %s", size, (unsigned long long)offset,
                         w->file.path);
}

static int sized_sync(struct lk_blob_writer *base, struct lk_err *err) {
    struct sized *w = (struct sized *)base;
    int code = check_failed(w, err);
    if (code != 0 || lk__fsync(w->file.fd) == 0) return code;
    atomic_store(&w->failed, errno);
    return lk_fail_errno(err, "cannot sync the blob %s", w->file.path);
}

/* `count` leaves, 1 or 2, which are hashed at once. buffer: (2 * LK_LEAF_BYTES) */
static int hash_leaves(int fd, struct lk__blob_file *f, size_t leaf, size_t count, char *buffer, struct lk_root *out,
                       struct lk_err *err) {
    uint64_t offset = (uint64_t)leaf * LK_LEAF_BYTES, rest = f->base.size - offset;
    size_t n = rest < count * LK_LEAF_BYTES ? (size_t)rest : count * LK_LEAF_BYTES;
    if (lk__pread_all(fd, buffer, n, (off_t)offset) != 0)
        return lk_fail_errno(err, "cannot read %zu bytes at %llu of the blob %s", n, (unsigned long long)offset, f->path);
    lk_leaf_hashes(buffer, n, out);
    return 0;
}

/* The file is opened anew: on NFS that is what shows the bytes other machines have synced; our own descriptor may go on
 * showing old pages. It also fails when creator and file are gone. Not a map: a read that fails is an error, no SIGBUS. */
static int sized_leaves(struct lk_blob_writer *base, size_t first, size_t count, struct lk_root *leaves,
                        struct lk_err *err) {
    struct sized *w = (struct sized *)base;
    int code = check_failed(w, err);
    if (code != 0) return code;
    char *buffer = lk_alloc(2 * LK_LEAF_BYTES);
    if (!buffer) return lk_fail(err, LK_ENOMEM, "out of memory reading the blob %s", w->file.path);
    int fd = lk__open(w->file.path, O_RDONLY | O_NOFOLLOW, 0);
    if (fd < 0) code = lk_fail_errno(err, "cannot read the blob %s that is being written", w->file.path);
    for (size_t i = 0; code == 0 && i < count; i += 2)
        code = hash_leaves(fd, &w->file, first + i, count - i < 2 ? 1 : 2, buffer, &leaves[i], err);
    if (fd >= 0) close(fd);
    lk_free(buffer);
    return code;
}

/* Read-only as every blob, within what the umask left. */
static int make_read_only(struct lk__blob_file *f, struct lk_err *err) {
    struct stat st;
    if (fstat(f->fd, &st) == 0 && lk__fchmod(f->fd, st.st_mode & 0444) == 0) return 0;
    return lk_fail_errno(err, "cannot make the blob %s read-only", f->path);
}

static int sized_finish(struct lk_blob_writer *base, const struct lk_root *leaves, struct lk_root *out,
                        struct lk_err *err) {
    struct sized *w = (struct sized *)base;
    struct lk_root root;
    lk_root_of_leaves(leaves, (size_t)lk_leaf_count(base->size), base->size, &root);
    int code = check_failed(w, err);
    if (code == 0) code = make_read_only(&w->file, err);
    if (code == 0) code = lk__blob_file_publish(&w->file, &root, err);
    if (code == 0) *out = root;
    sized_abort(base);
    return code;
}

const struct lk_sized_ops lk__blobs_dir_sized = {
    .create = sized_create,
    .join = sized_join,
    .name = sized_name,
    .write_at = sized_write_at,
    .sync = sized_sync,
    .leaves = sized_leaves,
    .finish = sized_finish,
    .abort = sized_abort,
};
