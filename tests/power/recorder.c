/* LD_PRELOAD: records what a program does to the files below a folder (log.h). The C library's calls are replaced; an event
 * is written under a lock that all processes share, together with the call itself, so that the log's order is that of the
 * effects. Only syncs run outside the lock, between two events. */
#include "log.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define MOST_FDS 4096

/* LMDB's locks, a shared map, and room for deleting: whether they are there after a power loss, and what they hold, must
 * not matter. */
static const char *const not_told[] = {"lock.mdb", "reserve"};

static struct power_log *record;
static char root[PATH_MAX];
static const char *swallow;
static unsigned char fd_kind[MOST_FDS]; /* 0: not ours */
enum { FD_FILE = 1, FD_FOLDER = 2, FD_SYNCED = 4 };

/* --- the log ------------------------------------------------------------------------------------------------------ */

static void die(const char *what) {
    fprintf(stderr, "recorder: %s: %s\n", what, strerror(errno));
    _exit(99);
}

__attribute__((constructor)) static void power_open(void) {
    const char *path = getenv("POWER_LOG"), *where = getenv("POWER_ROOT");
    if (record || !path || !where) return;
    snprintf(root, sizeof root, "%s", where);
    swallow = getenv("POWER_SWALLOW");
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || syscall(SYS_ftruncate, fd, POWER_LOG_BYTES) != 0) die(path);
    struct power_log *log = (void *)syscall(SYS_mmap, NULL, POWER_LOG_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (log == MAP_FAILED) die(path);
    syscall(SYS_close, fd);
    if (!log->ready) { /* the first process starts alone */
        pthread_mutexattr_t attr;
        pthread_mutexattr_init(&attr);
        pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
        pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
        pthread_mutex_init(&log->mutex, &attr);
        log->ready = 1;
    }
    record = log;
}

static void lock(void) {
    if (pthread_mutex_lock(&record->mutex) == EOWNERDEAD) pthread_mutex_consistent(&record->mutex); /* killed */
}
static void unlock(void) {
    pthread_mutex_unlock(&record->mutex);
}

/* With the lock held. Returns the event's place. */
static uint64_t tell(struct power_event e, const void *data, size_t size) {
    uint64_t at = record->used, room = sizeof e + ((size + 7) & ~(size_t)7);
    e.size = (uint32_t)size;
    if (at + room + sizeof *record > POWER_LOG_BYTES) die("the log is full");
    memcpy(record->events + at, &e, sizeof e);
    if (size) memcpy(record->events + at + sizeof e, data, size);
    record->used = at + room;
    return at;
}
static void tell_bad(const char *what) {
    lock();
    tell((struct power_event){.kind = POWER_BAD}, what, strlen(what) + 1);
    unlock();
}

__attribute__((visibility("default"))) void power_mark(const void *data, uint32_t size);
void power_mark(const void *data, uint32_t size) {
    if (!record) return;
    lock();
    tell((struct power_event){.kind = POWER_MARK}, data, size);
    unlock();
}

static bool forget_folders;
__attribute__((visibility("default"))) void power_forget_folders(void);
void power_forget_folders(void) {
    forget_folders = true;
}

/* "fsync:3" and the number of this call: whether it is to be left out. With the lock held. */
static bool swallows(const char *kind, uint64_t number) {
    size_t n = strlen(kind);
    if (!swallow || strncmp(swallow, kind, n) != 0 || swallow[n] != ':') return false;
    char *end;
    uint64_t wanted = strtoull(swallow + n + 1, &end, 10);
    if (*end == '+' ? number < wanted : number != wanted) return false;
    record->swallowed++;
    return true;
}

/* --- names -------------------------------------------------------------------------------------------------------- */

struct place {
    char folder[PATH_MAX], name[NAME_MAX + 1];
    uint64_t inode; /* the folder's */
};
/* Whether a name lies in a folder of ours, and which. */
static bool find_place(int dirfd, const char *path, struct place *out) {
    char text[PATH_MAX], link[64];
    struct stat st;
    if (!record || !path) return false;
    if (*path == '/' || dirfd == AT_FDCWD)
        snprintf(text, sizeof text, "%s", path);
    else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", dirfd);
        ssize_t n = readlink(link, text, sizeof text);
        if (n < 0 || n + strlen(path) + 2 > sizeof text) return false;
        snprintf(text + n, sizeof text - (size_t)n, "/%s", path);
    }
    size_t n = strlen(text);
    while (n > 1 && text[n - 1] == '/') text[--n] = 0;
    char *slash = strrchr(text, '/');
    snprintf(out->name, sizeof out->name, "%s", slash ? slash + 1 : text);
    if (slash) slash[slash == text] = 0;
    int saved = errno;
    bool there = realpath(slash ? text : ".", out->folder) && stat(out->folder, &st) == 0;
    errno = saved;
    size_t length = strlen(root);
    if (!there || strncmp(out->folder, root, length) != 0 || (out->folder[length] && out->folder[length] != '/'))
        return false;
    out->inode = st.st_ino;
    for (size_t i = 0; i < sizeof not_told / sizeof *not_told; i++)
        if (strcmp(out->name, not_told[i]) == 0) return false;
    return true;
}
static uint64_t inode_at(const struct place *p) {
    struct stat st;
    int saved = errno;
    char path[PATH_MAX + NAME_MAX + 2];
    snprintf(path, sizeof path, "%s/%s", p->folder, p->name);
    bool there = lstat(path, &st) == 0;
    errno = saved;
    return there ? st.st_ino : 0;
}
static void tell_name(enum power_kind kind, const struct place *p, uint64_t inode) {
    tell((struct power_event){.kind = kind, .inode = inode, .folder = p->inode}, p->name, strlen(p->name) + 1);
}

/* --- descriptors -------------------------------------------------------------------------------------------------- */

static int kind_of(int fd) {
    return record && fd >= 0 && fd < MOST_FDS ? fd_kind[fd] : 0;
}
static uint64_t inode_of(int fd) {
    struct stat st;
    if (fstat(fd, &st) != 0) die("fstat");
    return st.st_ino;
}

/* The folder itself, whose name lies outside. */
static bool is_root(const char *path) {
    struct stat a, b;
    int saved = errno;
    bool is = record && stat(path, &a) == 0 && stat(root, &b) == 0 && a.st_ino == b.st_ino && a.st_dev == b.st_dev;
    errno = saved;
    return is;
}
static int open_any(int dirfd, const char *path, int flags, mode_t mode) {
    struct place p;
    if (!find_place(dirfd, path, &p)) {
        int fd = (int)syscall(SYS_openat, dirfd, path, flags, mode);
        if (fd >= 0 && fd < MOST_FDS) fd_kind[fd] = is_root(path) ? FD_FOLDER : 0;
        return fd;
    }
    lock();
    bool was = inode_at(&p) != 0;
    int fd = (int)syscall(SYS_openat, dirfd, path, flags, mode), saved = errno;
    struct stat st;
    if (fd >= 0 && fd < MOST_FDS && fstat(fd, &st) == 0) {
        fd_kind[fd] = S_ISDIR(st.st_mode) ? FD_FOLDER : FD_FILE;
        if (flags & O_DSYNC && !swallows("dsync", 1)) fd_kind[fd] |= FD_SYNCED; /* O_SYNC holds it */
        if (!was) tell_name(POWER_MAKE, &p, st.st_ino);
        if (was && flags & O_TRUNC) tell((struct power_event){.kind = POWER_SIZE, .inode = st.st_ino}, NULL, 0);
    } else if (fd >= MOST_FDS) {
        errno = EMFILE;
        die("a descriptor of a high number");
    }
    unlock();
    errno = saved;
    return fd;
}
static mode_t mode_of(int flags, va_list list) {
    return flags & (O_CREAT | O_TMPFILE) ? va_arg(list, mode_t) : 0;
}
int open(const char *path, int flags, ...) {
    va_list list;
    va_start(list, flags);
    mode_t mode = mode_of(flags, list);
    va_end(list);
    return open_any(AT_FDCWD, path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    va_list list;
    va_start(list, flags);
    mode_t mode = mode_of(flags, list);
    va_end(list);
    return open_any(AT_FDCWD, path, flags, mode);
}
int openat(int dirfd, const char *path, int flags, ...) {
    va_list list;
    va_start(list, flags);
    mode_t mode = mode_of(flags, list);
    va_end(list);
    return open_any(dirfd, path, flags, mode);
}
int openat64(int dirfd, const char *path, int flags, ...) {
    va_list list;
    va_start(list, flags);
    mode_t mode = mode_of(flags, list);
    va_end(list);
    return open_any(dirfd, path, flags, mode);
}
int close(int fd) {
    if (fd >= 0 && fd < MOST_FDS) fd_kind[fd] = 0;
    return (int)syscall(SYS_close, fd);
}
int dup(int fd) {
    int copy = (int)syscall(SYS_dup, fd);
    if (copy >= 0 && copy < MOST_FDS) fd_kind[copy] = (unsigned char)kind_of(fd);
    return copy;
}

/* --- bytes -------------------------------------------------------------------------------------------------------- */

/* After a write of so many bytes at offset. With the lock held. */
static void tell_write(int fd, const struct iovec *parts, ssize_t size, off_t offset) {
    if (size <= 0) return;
    uint64_t inode = inode_of(fd);
    char *all = malloc((size_t)size), *to = all;
    if (!all) die("no memory");
    for (size_t left = (size_t)size; left; parts++) {
        size_t n = parts->iov_len < left ? parts->iov_len : left;
        memcpy(to, parts->iov_base, n);
        to += n, left -= n;
    }
    uint64_t at =
        tell((struct power_event){.kind = POWER_WRITE, .inode = inode, .offset = (uint64_t)offset}, all, (size_t)size);
    free(all);
    if (fd_kind[fd] & FD_SYNCED) tell((struct power_event){.kind = POWER_WRITTEN, .inode = inode, .offset = at}, NULL, 0);
}
/* offset -1: where the descriptor stands. */
static ssize_t write_any(int fd, const struct iovec *parts, int count, off_t offset) {
    if (!(kind_of(fd) & FD_FILE))
        return offset < 0 ? syscall(SYS_writev, fd, parts, count) : syscall(SYS_pwritev, fd, parts, count, offset, 0);
    lock();
    ssize_t n = offset < 0 ? syscall(SYS_writev, fd, parts, count) : syscall(SYS_pwritev, fd, parts, count, offset, 0);
    int saved = errno;
    if (n > 0 && offset < 0) offset = lseek(fd, 0, SEEK_CUR) - n;
    tell_write(fd, parts, n, offset);
    unlock();
    errno = saved;
    return n;
}
ssize_t write(int fd, const void *data, size_t size) {
    return write_any(fd, &(struct iovec){(void *)(uintptr_t)data, size}, 1, -1);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    return write_any(fd, &(struct iovec){(void *)(uintptr_t)data, size}, 1, offset);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    return pwrite(fd, data, size, offset);
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
    return write_any(fd, parts, count, -1);
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) {
    return write_any(fd, parts, count, offset);
}
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t offset) {
    return write_any(fd, parts, count, offset);
}

static int resize(int fd, off_t size, long (*call)(int, off_t, int), int how) {
    if (!(kind_of(fd) & FD_FILE)) return (int)call(fd, size, how);
    lock();
    int code = (int)call(fd, size, how), saved = errno;
    struct stat st;
    if (code == 0 && fstat(fd, &st) == 0)
        tell((struct power_event){.kind = POWER_SIZE, .inode = st.st_ino, .offset = (uint64_t)st.st_size}, NULL, 0);
    unlock();
    errno = saved;
    return code;
}
static long call_ftruncate(int fd, off_t size, int how) {
    (void)how;
    return syscall(SYS_ftruncate, fd, size);
}
static long call_fallocate(int fd, off_t size, int how) {
    return syscall(SYS_fallocate, fd, how, (off_t)0, size);
}
int ftruncate(int fd, off_t size) {
    return resize(fd, size, call_ftruncate, 0);
}
int ftruncate64(int fd, off64_t size) {
    return ftruncate(fd, size);
}
int fallocate(int fd, int how, off_t offset, off_t size) {
    if (!(kind_of(fd) & FD_FILE)) return (int)syscall(SYS_fallocate, fd, how, offset, size);
    if (how & ~FALLOC_FL_KEEP_SIZE) tell_bad("fallocate that takes bytes away");
    return resize(fd, offset + size, call_fallocate, how);
}
int fallocate64(int fd, int how, off64_t offset, off64_t size) {
    return fallocate(fd, how, offset, size);
}
void *mmap(void *at, size_t size, int prot, int flags, int fd, off_t offset) {
    if (kind_of(fd) & FD_FILE && prot & PROT_WRITE && (flags & MAP_TYPE) != MAP_PRIVATE) tell_bad("a writable shared map");
    return (void *)syscall(SYS_mmap, at, size, prot, flags, fd, offset);
}
void *mmap64(void *at, size_t size, int prot, int flags, int fd, off64_t offset) {
    return mmap(at, size, prot, flags, fd, offset);
}

/* --- syncs -------------------------------------------------------------------------------------------------------- */

static int sync_any(int fd, long number, const char *kind, uint64_t *count) {
    int what = kind_of(fd);
    if (!what) return (int)syscall(number, fd);
    lock();
    if (what & FD_FOLDER) kind = "folder", count = &record->folder_syncs;
    if (swallows(kind, ++*count) || (what & FD_FOLDER && forget_folders)) {
        unlock();
        return 0;
    }
    uint64_t inode = inode_of(fd), at = tell((struct power_event){.kind = POWER_SYNC_BEGIN, .inode = inode}, NULL, 0);
    unlock();
    int code = (int)syscall(number, fd), saved = errno;
    lock();
    if (code == 0) tell((struct power_event){.kind = POWER_SYNC_END, .inode = inode, .offset = at}, NULL, 0);
    unlock();
    errno = saved;
    return code;
}
int fsync(int fd) {
    return sync_any(fd, SYS_fsync, "fsync", record ? &record->fsyncs : NULL);
}
int fdatasync(int fd) {
    return sync_any(fd, SYS_fdatasync, "fdatasync", record ? &record->fdatasyncs : NULL);
}
/* They promise nothing of a file's durability, or more than our code asks for. */
int sync_file_range(int fd, off64_t offset, off64_t size, unsigned flags) {
    return (int)syscall(SYS_sync_file_range, fd, offset, size, flags);
}
int syncfs(int fd) {
    if (kind_of(fd)) tell_bad("syncfs");
    return (int)syscall(SYS_syncfs, fd);
}

/* --- folders ------------------------------------------------------------------------------------------------------ */

static int rename_any(int from_fd, const char *from, int to_fd, const char *to, unsigned flags) {
    struct place a, b;
    bool first = find_place(from_fd, from, &a), second = find_place(to_fd, to, &b);
    if (!first && !second) return (int)syscall(SYS_renameat2, from_fd, from, to_fd, to, flags);
    if (!first || !second || flags & ~RENAME_NOREPLACE) tell_bad("a rename into the folder, out of it or an exchange");
    lock();
    uint64_t inode = inode_at(&a);
    int code = (int)syscall(SYS_renameat2, from_fd, from, to_fd, to, flags), saved = errno;
    if (code == 0) {
        tell_name(POWER_NAME, &b, inode);
        tell_name(POWER_UNNAME, &a, inode);
    }
    unlock();
    errno = saved;
    return code;
}
int rename(const char *from, const char *to) {
    return rename_any(AT_FDCWD, from, AT_FDCWD, to, 0);
}
int renameat(int from_fd, const char *from, int to_fd, const char *to) {
    return rename_any(from_fd, from, to_fd, to, 0);
}
int renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags) {
    return rename_any(from_fd, from, to_fd, to, flags);
}
int linkat(int from_fd, const char *from, int to_fd, const char *to, int flags) {
    struct place p;
    if (!find_place(to_fd, to, &p)) return (int)syscall(SYS_linkat, from_fd, from, to_fd, to, flags);
    lock();
    int code = (int)syscall(SYS_linkat, from_fd, from, to_fd, to, flags), saved = errno;
    if (code == 0) tell_name(POWER_NAME, &p, inode_at(&p));
    unlock();
    errno = saved;
    return code;
}
int link(const char *from, const char *to) {
    return linkat(AT_FDCWD, from, AT_FDCWD, to, 0);
}
int unlinkat(int dirfd, const char *path, int flags) {
    struct place p;
    if (!find_place(dirfd, path, &p)) return (int)syscall(SYS_unlinkat, dirfd, path, flags);
    lock();
    int code = (int)syscall(SYS_unlinkat, dirfd, path, flags), saved = errno;
    if (code == 0) tell_name(POWER_UNNAME, &p, 0);
    unlock();
    errno = saved;
    return code;
}
int unlink(const char *path) {
    return unlinkat(AT_FDCWD, path, 0);
}
int rmdir(const char *path) {
    return unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
}
int mkdirat(int dirfd, const char *path, mode_t mode) {
    struct place p;
    if (!find_place(dirfd, path, &p)) return (int)syscall(SYS_mkdirat, dirfd, path, mode);
    lock();
    int code = (int)syscall(SYS_mkdirat, dirfd, path, mode), saved = errno;
    if (code == 0) tell_name(POWER_MKDIR, &p, inode_at(&p));
    unlock();
    errno = saved;
    return code;
}
int mkdir(const char *path, mode_t mode) {
    return mkdirat(AT_FDCWD, path, mode);
}
