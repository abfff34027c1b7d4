#include "lockstep/base/file.h"
#include "base/faults.h"
#include "base/limits.h"
#include "base/syscalls.h"
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- fault points ---------------------------------------------------------------------------------------- */

static atomic_uint_fast64_t calls, failing_call, killing_call;
static atomic_int failing_errno;

static void reset(void) {
    atomic_store(&failing_call, 0);
    atomic_store(&killing_call, 0);
    atomic_store(&calls, 0);
}

void lk__file_fail_at(uint64_t nth, int error_number) {
    reset();
    atomic_store(&failing_errno, error_number);
    atomic_store(&failing_call, nth);
}

void lk__file_kill_at(uint64_t nth) {
    reset();
    atomic_store(&killing_call, nth);
}

uint64_t lk__file_call_count(void) {
    return atomic_load(&calls);
}

/* Begins a system call; true, with errno set, when it is to fail. */
static bool fault(void) {
    lk__forget_disk();
    uint64_t call = atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed) + 1;
    if (call == atomic_load_explicit(&killing_call, memory_order_relaxed)) raise(SIGKILL);
    if (call != atomic_load_explicit(&failing_call, memory_order_relaxed)) return false;
    errno = atomic_load(&failing_errno);
    return true;
}

/* The file that could not be made is not there to ask. */
static void note_folder(const char *path) {
    char folder[4096];
    const char *slash = strrchr(path, '/');
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
    lk__note_disk(*folder ? folder : "/");
}

int lk__open(const char *path, int flags, mode_t mode) {
    int fd = -1;
    if (!fault()) {
        do fd = open(path, flags | O_CLOEXEC, mode);
        while (fd < 0 && errno == EINTR);
    }
    if (fd < 0) note_folder(path);
    return fd;
}

/* What has failed for want of disk space keeps which disk that was. */
static ssize_t noted_size(ssize_t result, int fd) {
    if (result < 0) lk__note_disk_of(fd);
    return result;
}
static int noted(int result, int fd) {
    return (int)noted_size(result, fd);
}

ssize_t lk__write(int fd, const void *data, size_t size) {
    return noted_size(fault() ? -1 : write(fd, data, size), fd);
}

int lk__fsync(int fd) {
    if (fault()) return noted(-1, fd);
    int code;
    do code = fsync(fd);
    while (code != 0 && errno == EINTR);
    return noted(code, fd);
}

int lk__rename(const char *from, const char *to) {
    int result = fault() ? -1 : rename(from, to);
    if (result < 0) note_folder(to);
    return result;
}

/* The descriptor is gone in any case, as close() has it on Linux. */
int lk__close(int fd) {
    if (!fault()) return close(fd) == 0 || errno == EINTR ? 0 : -1;
    int number = errno;
    close(fd);
    errno = number;
    return -1;
}

ssize_t lk__pwrite(int fd, const void *data, size_t size, off_t offset) {
    return noted_size(fault() ? -1 : pwrite(fd, data, size, offset), fd);
}

ssize_t lk__pread(int fd, void *data, size_t size, off_t offset) {
    return fault() ? -1 : pread(fd, data, size, offset);
}

int lk__fallocate(int fd, off_t size) {
    if (fault()) return noted(-1, fd);
    int code;
    do code = fallocate(fd, 0, 0, size);
    while (code != 0 && errno == EINTR);
    return noted(code, fd);
}

int lk__ftruncate(int fd, off_t size) {
    if (fault()) return noted(-1, fd);
    int code;
    do code = ftruncate(fd, size);
    while (code != 0 && errno == EINTR);
    return noted(code, fd);
}

int lk__fchmod(int fd, mode_t mode) {
    return fault() ? -1 : fchmod(fd, mode);
}

/* offset < 0: at the file's own position. */
static int write_pieces(int fd, const char *p, size_t size, off_t offset) {
    while (size) {
        /* Linux writes at most 2 GiB at once; smaller pieces keep a kill or a full disk early. */
        size_t piece = size < ((size_t)64 << 20) ? size : (size_t)64 << 20;
        ssize_t n = offset < 0 ? lk__write(fd, p, piece) : lk__pwrite(fd, p, piece, offset);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return -1;
        if (n == 0) {
            errno = ENOSPC;
            return noted(-1, fd);
        }
        p += n;
        size -= (size_t)n;
        if (offset >= 0) offset += n;
    }
    return 0;
}

int lk__write_all(int fd, const void *data, size_t size) {
    return write_pieces(fd, data, size, -1);
}
int lk__pwrite_all(int fd, const void *data, size_t size, off_t offset) {
    return write_pieces(fd, data, size, offset);
}

int lk__pread_all(int fd, void *data, size_t size, off_t offset) {
    char *p = data;
    while (size) {
        ssize_t n = lk__pread(fd, p, size, offset);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return -1;
        if (n == 0) {
            errno = EIO;
            return -1;
        }
        p += n, size -= (size_t)n, offset += n;
    }
    return 0;
}

/* --- whole files ----------------------------------------------------------------------------------------- */

static int open_to_read(const char *path, int flags, struct stat *st, struct lk_err *err) {
    int fd;
    do fd = open(path, O_RDONLY | O_CLOEXEC | flags);
    while (fd < 0 && errno == EINTR);
    if (fd < 0) {
        lk_fail_errno(err, "cannot open %s", path);
        return -1;
    }
    if (fstat(fd, st) == 0 && !S_ISDIR(st->st_mode)) return fd;
    if (S_ISDIR(st->st_mode)) errno = EISDIR;
    lk_fail_errno(err, "cannot read %s", path);
    close(fd);
    return -1;
}

static int too_large(const char *path, size_t limit, struct lk_err *err) {
    return lk_fail(err, LK_EINVAL, "%s is larger than the limit of %zu bytes", path, limit);
}

static int read_fd(int fd, const char *path, size_t expected, size_t limit, struct lk_buf *out, struct lk_err *err) {
    /* One byte more than expected, so that the end of a regular file is seen without growing. */
    size_t want = expected < limit ? expected + 1 : limit;
    size_t start = out->size;
    for (;;) {
        if (lk_buf_reserve(out, want ? want : 1) != 0) return lk_fail(err, LK_ENOMEM, "out of memory reading %s", path);
        size_t room = out->capacity - out->size - 1;
        ssize_t n = read(fd, out->data + out->size, room);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return lk_fail_errno(err, "cannot read %s", path);
        out->size += (size_t)n;
        out->data[out->size] = 0;
        if (n == 0) return 0;
        if (out->size - start > limit) return too_large(path, limit, err);
        want = out->capacity - out->size > 1 ? 1 : 65536;
    }
}

size_t lk_skip_bom(const void *data, size_t size) {
    return size >= 3 && memcmp(data, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
}

const char *lk_file_instead(const void *data, size_t size) {
    static const char pointer[] = "version https://git-lfs";
    const char *p = data, *end = p ? p + size : p;
    if (p) p += lk_skip_bom(data, size);
    if ((size_t)(end - p) >= strlen(pointer) && !memcmp(p, pointer, strlen(pointer)))
        return "a Git LFS pointer, not the file itself: run `git lfs pull` in its folder, or download the file";
    while (p < end && strchr(" \t\r\n", *p) && *p) p++;
    if ((end - p >= 9 && !strncasecmp(p, "<!doctype", 9)) || (end - p >= 5 && !strncasecmp(p, "<html", 5)))
        return "an HTML page, as a site answers with where a login or another address is wanted, not the file itself: "
               "download the file";
    return NULL;
}

int lk_file_read(const char *path, size_t limit_bytes, struct lk_buf *out, struct lk_err *err) {
    struct stat st = {0};
    struct lk_err local;
    if (!err) err = &local;
    int fd = open_to_read(path, 0, &st, err);
    if (fd < 0) return err->code;
    size_t start = out->size;
    size_t expected = S_ISREG(st.st_mode) ? (size_t)st.st_size : 65536;
    int code = S_ISREG(st.st_mode) && expected > limit_bytes ? too_large(path, limit_bytes, err)
                                                             : read_fd(fd, path, expected, limit_bytes, out, err);
    close(fd);
    if (code != 0) {
        out->size = start;
        if (out->data) out->data[start] = 0;
    }
    return code;
}

static int write_new(const char *path, const void *data, size_t size, struct lk_err *err) {
    int fd = lk__open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (fd < 0) return lk_fail_errno(err, "cannot create %s", path);
    int code = 0;
    if (lk__write_all(fd, data, size) != 0)
        code = lk_fail_errno(err, "cannot write %zu bytes to %s", size, path);
    else if (lk__fsync(fd) != 0)
        code = lk_fail_errno(err, "cannot sync %s", path);
    if (code != 0) {
        close(fd);
        return code;
    }
    return lk__close(fd) == 0 ? 0 : lk_fail_errno(err, "cannot close %s", path);
}

static char *parent_of(const char *path) {
    const char *slash = strrchr(path, '/');
    if (!slash) return lk_strdup(".");
    return slash == path ? lk_strdup("/") : lk_strndup(path, (size_t)(slash - path));
}

/* A device or a pipe (/dev/stdout, /dev/null): written to, as a rename would put a file in its place. */
static int write_through(const char *path, const void *data, size_t size, struct lk_err *err) {
    int fd = lk__open(path, O_WRONLY | O_NOCTTY, 0);
    if (fd < 0) return lk_fail_errno(err, "cannot open %s", path);
    int code = lk__write_all(fd, data, size) == 0 ? 0 : lk_fail_errno(err, "cannot write %zu bytes to %s", size, path);
    if (lk__close(fd) != 0 && code == 0) code = lk_fail_errno(err, "cannot close %s", path);
    return code;
}

int lk_file_write_atomic(const char *path, const void *data, size_t size, struct lk_err *err) {
    struct stat st;
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)) return write_through(path, data, size, err);
    /* The counter keeps two threads that write one path apart. */
    static atomic_uint counter;
    char *parent = parent_of(path);
    char *temporary = lk_asprintf("%s.tmp.%ld.%u", path, (long)getpid(), atomic_fetch_add(&counter, 1));
    int code = 0;
    if (!parent || !temporary) code = lk_fail(err, LK_ENOMEM, "out of memory writing %s", path);
    if (code == 0) {
        code = write_new(temporary, data, size, err);
        if (code == 0 && lk__rename(temporary, path) != 0)
            code = lk_fail_errno(err, "cannot rename %s to %s", temporary, path);
        if (code != 0) unlink(temporary);
    }
    if (code == 0) code = lk_dir_sync(parent, err);
    lk_free(parent);
    lk_free(temporary);
    return code;
}

bool lk_file_exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0;
}

/* --- directories ----------------------------------------------------------------------------------------- */

int lk_dir_sync(const char *path, struct lk_err *err) {
    int fd = lk__open(path, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0) return lk_fail_errno(err, "cannot open the directory %s", path);
    /* EINVAL: a file system without directory sync; there is nothing more to be had. */
    if (lk__fsync(fd) != 0 && errno != EINVAL) {
        int code = lk_fail_errno(err, "cannot sync the directory %s", path);
        close(fd);
        return code;
    }
    close(fd);
    return 0;
}

static int make_one(const char *path, struct lk_err *err) {
    if (mkdir(path, 0777) == 0) {
        char *parent = parent_of(path);
        if (!parent) return lk_fail(err, LK_ENOMEM, "out of memory making the directory %s", path);
        int code = lk_dir_sync(parent, err);
        lk_free(parent);
        return code;
    }
    struct stat st;
    int number = errno;
    if (stat(path, &st) == 0) {
        if (S_ISDIR(st.st_mode)) return 0;
        number = ENOTDIR;
    }
    errno = number;
    note_folder(path);
    lk_fail_errno(err, "cannot make the directory %s", path);
    return err ? (err->code = LK_EIO) : LK_EIO;
}

int lk_dir_make(const char *path, struct lk_err *err) {
    if (!*path) return lk_fail(err, LK_EINVAL, "the name of a directory is empty");
    char *copy = lk_strdup(path);
    if (!copy) return lk_fail(err, LK_ENOMEM, "out of memory making the directory %s", path);
    size_t n = strlen(copy);
    while (n > 1 && copy[n - 1] == '/') copy[--n] = 0;
    int code = 0;
    for (char *p = copy + 1; code == 0 && *p; p++) {
        if (*p != '/' || p[-1] == '/') continue;
        *p = 0;
        code = make_one(copy, err);
        *p = '/';
    }
    if (code == 0) code = make_one(copy, err);
    lk_free(copy);
    return code;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw) {
    (void)st, (void)kind, (void)ftw;
    return remove(path) == 0 || errno == ENOENT ? 0 : -1;
}

int lk_dir_remove(const char *path, struct lk_err *err) {
    struct stat st;
    if (lstat(path, &st) != 0 && errno == ENOENT) return 0;
    if (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) == 0 || errno == ENOENT) return 0;
    return lk_fail_errno(err, "cannot remove %s", path);
}

/* --- maps ------------------------------------------------------------------------------------------------ */

int lk_map_open(const char *path, struct lk_map *out, struct lk_err *err) {
    static const unsigned char nothing[1];
    struct stat st = {0};
    struct lk_err local;
    if (!err) err = &local;
    *out = (struct lk_map){0};
    int fd = open_to_read(path, O_NONBLOCK, &st, err); /* a pipe in a file's place has nobody to wait for */
    if (fd < 0) return err->code;
    int code = 0;
    if (!S_ISREG(st.st_mode)) {
        code = lk_fail(err, LK_EINVAL, "%s is not a regular file, it cannot be mapped", path);
    } else if (st.st_size == 0) {
        *out = (struct lk_map){nothing, 0};
    } else {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED)
            code = lk_fail_errno(err, "cannot map %s (%lld bytes)", path, (long long)st.st_size);
        else
            *out = (struct lk_map){p, (size_t)st.st_size};
    }
    close(fd);
    return code;
}

void lk_map_close(struct lk_map *m) {
    if (m->size) munmap((void *)(uintptr_t)m->data, m->size);
    *m = (struct lk_map){0};
}
