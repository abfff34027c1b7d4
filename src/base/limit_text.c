/* Which limit stands behind an errno, in words for a message. Called when something has failed, perhaps for want of memory
 * or descriptors: buffers are on the stack, and what cannot be read is left out. */
#include "base/limits.h"
#include "base/syscalls.h"
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>

struct text {
    char *out;
    size_t size, used;
};

static void add(struct text *t, const char *format, const char *a, const char *b) {
    if (t->used < t->size && t->used) t->used += (size_t)snprintf(t->out + t->used, t->size - t->used, ", ");
    if (t->used < t->size) t->used += (size_t)snprintf(t->out + t->used, t->size - t->used, format, a, b);
    if (t->used >= t->size) t->used = t->size - 1;
}

/* In the units of ulimit, 1,024 bytes and up. */
static const char *bytes(uint64_t n, char out[32]) {
    if (n < (uint64_t)1 << 20)
        snprintf(out, 32, "%llu KiB", (unsigned long long)(n >> 10));
    else if (n < (uint64_t)10 << 30)
        snprintf(out, 32, "%llu MiB", (unsigned long long)(n >> 20));
    else
        snprintf(out, 32, "%llu GiB", (unsigned long long)(n >> 30));
    return out;
}

static void add_rlimit(struct text *t, int which, const char *format, bool in_bytes) {
    struct rlimit limit;
    char words[32];
    if (getrlimit(which, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return;
    if (in_bytes)
        bytes(limit.rlim_cur, words);
    else
        snprintf(words, sizeof words, "%llu", (unsigned long long)limit.rlim_cur);
    add(t, format, words, "");
}

static void add_memory(struct text *t) {
    char words[32];
    add_rlimit(t, RLIMIT_AS, "address space is limited to %s (ulimit -v)", true);
    add_rlimit(t, RLIMIT_DATA, "data is limited to %s (ulimit -d)", true);
    uint64_t left = lk__cgroup_memory_left("");
    if (left != UINT64_MAX) add(t, "the control group leaves %s of memory", bytes(left, words), "");
}

/* A thread is refused with EAGAIN for want of either: a number in a table, or room for its stack. */
static void add_processes(struct text *t) {
    struct rlimit space;
    char words[32];
    add_rlimit(t, RLIMIT_NPROC, "this user may have %s processes and threads (ulimit -u)", false);
    uint64_t pids = lk__cgroup_pids("");
    snprintf(words, sizeof words, "%llu", (unsigned long long)pids);
    if (pids != UINT64_MAX) add(t, "the control group may have %s processes and threads", words, "");
    if (getrlimit(RLIMIT_AS, &space) != 0 || space.rlim_cur == RLIM_INFINITY) return;
    add_rlimit(t, RLIMIT_STACK, "a thread's stack takes %s (ulimit -s)", true);
    add_rlimit(t, RLIMIT_AS, "address space is limited to %s (ulimit -v)", true);
}

/* --- disks ------------------------------------------------------------------------------------------------ */

/* A note belongs to one failure: the message about it takes the note, and a writer's next system call drops one that no
 * message took. So no message names the disk of a failure that it is not about. */
static _Thread_local struct {
    bool set;
    char text[256];
} disk;

/* Where the file system of a device is mounted, as "/tmp (ext4)"; the last mount counts, it hides the others. */
static void mount_name(dev_t device, char *out, size_t size) {
    char wanted[32], found[32], point[128], type[32], line[1024];
    FILE *f = fopen("/proc/self/mountinfo", "re");
    snprintf(wanted, sizeof wanted, "%u:%u", major(device), minor(device));
    snprintf(out, size, "the file system");
    while (f && fgets(line, sizeof line, f)) {
        char *rest = strstr(line, " - ");
        if (!rest || sscanf(line, "%*s %*s %31s %*s %127s", found, point) != 2 || strcmp(found, wanted) != 0) continue;
        if (sscanf(rest + 3, "%31s", type) == 1) snprintf(out, size, "%s (%s)", point, type);
    }
    if (f) fclose(f);
}

static void note(dev_t device, const struct statvfs *fs) {
    char name[192], words[32];
    mount_name(device, name, sizeof name);
    bool files = fs->f_files && !fs->f_favail;
    snprintf(disk.text, sizeof disk.text, files ? "%s has room for no more files" : "%s has %s free", name,
             bytes((uint64_t)fs->f_bavail * fs->f_frsize, words));
    disk.set = true;
}
static bool about_disks(int number) {
    return number == ENOSPC || number == EDQUOT;
}

void lk__forget_disk(void) {
    disk.set = false;
}
void lk__note_disk(const char *path) {
    int number = errno;
    struct stat st;
    struct statvfs fs;
    lk__forget_disk();
    if (about_disks(number) && stat(path, &st) == 0 && statvfs(path, &fs) == 0) note(st.st_dev, &fs);
    errno = number;
}
void lk__note_disk_of(int fd) {
    int number = errno;
    struct stat st;
    struct statvfs fs;
    lk__forget_disk();
    if (about_disks(number) && fstat(fd, &st) == 0 && fstatvfs(fd, &fs) == 0) note(st.st_dev, &fs);
    errno = number;
}

size_t lk__limit_text(int number, char *out, size_t size) {
    struct text t = {out, size, 0};
    int kept = errno;
    *out = 0;
    if (number == ENOMEM) add_memory(&t);
    if (number == EAGAIN) add_processes(&t);
    if (number == EMFILE) add_rlimit(&t, RLIMIT_NOFILE, "this process may have %s files open (ulimit -n)", false);
    if (number == EFBIG) add_rlimit(&t, RLIMIT_FSIZE, "a file may have at most %s (ulimit -f)", true);
    if (about_disks(number) && disk.set) add(&t, "%s%s", disk.text, "");
    lk__forget_disk();
    errno = kept;
    return t.used;
}
