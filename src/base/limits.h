/* What the machine and its cgroups leave us. `root` is a prefix before /proc and /sys, "" in earnest; tests put a made-up
 * tree there. */
#ifndef LK_LIMITS_H
#define LK_LIMITS_H
#include "lockstep/base/caches.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The first size - 1 bytes of a small file, as text; its path is format with a, b, c. False: it is not there or empty. */
bool lk__read_small(char *out, size_t size, const char *format, const char *a, const char *b, const char *c);

uint64_t lk__cgroup_memory_left(const char *root); /* bytes; UINT64_MAX: no limit */
int lk__cgroup_cpus(const char *root);             /* the quota in whole processors, rounded up; INT_MAX: none */
int lk__physical_cores(const char *root, const unsigned char *allowed, int cpus); /* among those with allowed[cpu] != 0 */
bool lk__caches_of_system(const char *root, int cpu, struct lk_caches *out);      /* false: it does not say */
uint64_t lk__memory_available(const char *root);
uint64_t lk__cgroup_pids(const char *root); /* processes and threads that our cgroups may have; UINT64_MAX: no limit */

/* The limits that may stand behind errno `number`, as "address space is limited to 976 MiB (ulimit -v)"; "" where none is
 * set. Returns the length; errno stays. */
size_t lk__limit_text(int number, char *out, size_t size);
/* Drops the note of a full disk (base/syscalls.h) that this thread keeps for its next message. */
void lk__forget_disk(void);

#endif
