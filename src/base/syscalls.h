/* The system calls of all floors' writers, for tests to make them fail (base/faults.h). Every floor
 * may include this; it is not installed. */
#ifndef LOCKSTEP_BASE_SYSCALLS_H
#define LOCKSTEP_BASE_SYSCALLS_H
#include <sys/types.h>

/* Each counts as one fault point. Same results as the POSIX calls. */
int lk__open(const char *path, int flags, mode_t mode);
ssize_t lk__write(int fd, const void *data, size_t size);
int lk__fsync(int fd);
int lk__rename(const char *from, const char *to);
int lk__close(int fd);
ssize_t lk__pwrite(int fd, const void *data, size_t size, off_t offset);
ssize_t lk__pread(int fd, void *data, size_t size, off_t offset);
int lk__fallocate(int fd, off_t size); /* the bytes [0, size) get their disk space; they read as zeros */
int lk__ftruncate(int fd, off_t size);
int lk__fchmod(int fd, mode_t mode);
/* When errno is ENOSPC or EDQUOT: keeps for this thread's next lk_fail_errno which file system that is and what is free on
 * it. The calls above do it by themselves, and each drops what an earlier failure left that no message told. */
void lk__note_disk(const char *path);
void lk__note_disk_of(int fd);
/* Loop lk__write, lk__pwrite, lk__pread until all is done; 0 or -1 with errno. A file that ends early is EIO. */
int lk__write_all(int fd, const void *data, size_t size);
int lk__pwrite_all(int fd, const void *data, size_t size, off_t offset);
int lk__pread_all(int fd, void *data, size_t size, off_t offset);

#endif
