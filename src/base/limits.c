#include "base/limits.h"
#include "lockstep/base/mem.h"
#include "lockstep/base/thread.h"
#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define PATH 4096

/* All files here are small and none is trusted to be there; buffers on the stack, so that no allocation can fail. */
bool lk__read_small(char *out, size_t size, const char *format, const char *a, const char *b, const char *c) {
    char path[3 * PATH];
    snprintf(path, sizeof path, format, a, b, c);
    FILE *f = fopen(path, "re");
    if (!f) return false;
    size_t n = fread(out, 1, size - 1, f);
    out[n] = 0;
    fclose(f);
    return n > 0;
}

/* --- where our cgroup is --------------------------------------------------------------------------------- */

/* True when the comma-separated list holds word. */
static bool listed(const char *list, const char *word) {
    size_t n = strlen(word);
    for (const char *p = list; (p = strstr(p, word)); p += n) {
        if ((p == list || p[-1] == ',') && (p[n] == 0 || p[n] == ',' || p[n] == '\n')) return true;
    }
    return false;
}

/* The path of this process in the hierarchy of `controller` ("" for version 2). */
static bool own_path(const char *root, const char *controller, char *out) {
    char path[PATH + 32], line[PATH];
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *f = fopen(path, "re");
    bool found = false;
    while (f && !found && fgets(line, sizeof line, f)) {
        char *first = strchr(line, ':'), *second = first ? strchr(first + 1, ':') : NULL;
        if (!second) continue;
        *second = 0;
        second[1 + strcspn(second + 1, "\n")] = 0;
        found = *controller ? listed(first + 1, controller) : first[1] == 0;
        if (found) snprintf(out, PATH, "%s", second + 1);
    }
    if (f) fclose(f);
    return found;
}

/* Where that hierarchy is mounted, and which of its folders is the mount's top. */
static bool mount_of(const char *root, const char *controller, char *top, char *point) {
    char path[PATH + 32], line[2 * PATH];
    snprintf(path, sizeof path, "%s/proc/self/mountinfo", root);
    FILE *f = fopen(path, "re");
    bool found = false;
    while (f && !found && fgets(line, sizeof line, f)) {
        char *rest = strstr(line, " - ");
        if (!rest || sscanf(line, "%*s %*s %*s %4095s %4095s", top, point) != 2) continue;
        char type[64], options[PATH];
        if (sscanf(rest + 3, "%63s %*s %4095s", type, options) != 2) continue;
        found = *controller ? strcmp(type, "cgroup") == 0 && listed(options, controller) : strcmp(type, "cgroup2") == 0;
    }
    if (f) fclose(f);
    return found;
}

/* Calls fn for our cgroup's folder and every one above it, as far as we can see. */
typedef void visit_fn(const char *dir, void *arg);
static void visit(const char *root, const char *controller, visit_fn *fn, void *arg) {
    char own[PATH], top[PATH], point[PATH], dir[3 * PATH];
    if (!own_path(root, controller, own) || !mount_of(root, controller, top, point)) return;
    /* Inside a container the mount shows a part of the hierarchy; what we see of our path is what lies below its top. */
    const char *below = own;
    size_t n = strlen(top);
    if (strcmp(top, "/") != 0) below = strncmp(own, top, n) == 0 && (own[n] == '/' || own[n] == 0) ? own + n : "";
    if (strstr(below, "..")) below = "";
    size_t least = strlen(root) + strlen(point);
    snprintf(dir, sizeof dir, "%s%s%s", root, point, strcmp(below, "/") == 0 ? "" : below);
    for (;;) {
        fn(dir, arg);
        char *slash = strrchr(dir, '/');
        if (strlen(dir) <= least || !slash) return;
        *slash = 0;
    }
}

/* --- memory ---------------------------------------------------------------------------------------------- */

static uint64_t number(const char *text) {
    errno = 0;
    char *end;
    unsigned long long n = strtoull(text, &end, 10);
    return end == text || errno ? UINT64_MAX : n; /* "max" too */
}

/* The number after `key` in a file of "key number" lines; 0 when absent. */
static uint64_t field(const char *text, const char *key) {
    size_t n = strlen(key);
    for (const char *p = text; p; p = strchr(p, '\n'), p = p ? p + 1 : NULL) {
        if (strncmp(p, key, n) == 0 && (p[n] == ' ' || p[n] == ':' || p[n] == '\t')) {
            uint64_t v = number(p + n + 1 + strspn(p + n + 1, " \t"));
            return v == UINT64_MAX ? 0 : v;
        }
    }
    return 0;
}

/* The kernel gives page cache back before it refuses memory, so cached file pages do not count as used. */
static void least_left(const char *dir, const char *limit_name, const char *used_name, const char *prefix, uint64_t *left) {
    char limit_text[64], used_text[64], stat_text[16384] = "", key[32];
    if (!lk__read_small(limit_text, sizeof limit_text, "%s/%s%s", dir, limit_name, "")) return;
    uint64_t limit = number(limit_text);
    if (limit >= (uint64_t)1 << 60) return; /* version 1 writes "no limit" as a huge number */
    if (!lk__read_small(used_text, sizeof used_text, "%s/%s%s", dir, used_name, "")) return;
    uint64_t used = number(used_text), cache = 0;
    lk__read_small(stat_text, sizeof stat_text, "%s/%s%s", dir, "memory.stat", "");
    snprintf(key, sizeof key, "%sinactive_file", prefix);
    cache += field(stat_text, key);
    snprintf(key, sizeof key, "%sactive_file", prefix);
    cache += field(stat_text, key);
    used = used > cache ? used - cache : 0;
    uint64_t here = limit > used ? limit - used : 0;
    if (here < *left) *left = here;
}
static void memory_v1(const char *dir, void *left) {
    least_left(dir, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_", left);
}
static void memory_v2(const char *dir, void *left) {
    least_left(dir, "memory.max", "memory.current", "", left);
}

uint64_t lk__cgroup_memory_left(const char *root) {
    uint64_t left = UINT64_MAX;
    visit(root, "memory", memory_v1, &left);
    visit(root, "", memory_v2, &left);
    return left;
}

static void pids_of(const char *dir, void *least) {
    char text[64];
    uint64_t limit = lk__read_small(text, sizeof text, "%s/%s%s", dir, "pids.max", "") ? number(text) : UINT64_MAX;
    if (limit < *(uint64_t *)least) *(uint64_t *)least = limit;
}
uint64_t lk__cgroup_pids(const char *root) {
    uint64_t least = UINT64_MAX;
    visit(root, "pids", pids_of, &least);
    visit(root, "", pids_of, &least);
    return least;
}

uint64_t lk__memory_available(const char *root) {
    char text[16384];
    uint64_t left = lk__cgroup_memory_left(root);
    if (lk__read_small(text, sizeof text, "%s/%s%s", root, "proc/meminfo", "")) {
        uint64_t machine = field(text, "MemAvailable") * 1024;
        if (machine && machine < left) left = machine;
    }
    struct rlimit limit;
    if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
        lk__read_small(text, sizeof text, "%s/%s%s", root, "proc/self/status", "")) {
        uint64_t used = field(text, "VmSize") * 1024;
        uint64_t here = limit.rlim_cur > used ? limit.rlim_cur - used : 0;
        if (here < left) left = here;
    }
    return left;
}

uint64_t lk_memory_available_bytes(void) {
    uint64_t left = lk__memory_available("");
    const char *text = getenv("LOCKSTEP_MEMORY_BYTES");
    if (text && number(text) < left) left = number(text);
    return left;
}

uint64_t lk_memory_peak_bytes(void) {
    char text[16384];
    return lk__read_small(text, sizeof text, "%s%s%s", "", "/proc/self/status", "") ? field(text, "VmHWM") * 1024 : 0;
}

/* --- processors ------------------------------------------------------------------------------------------ */

static void add_quota(int *cpus, long long quota, long long period) {
    if (quota <= 0 || period <= 0) return;
    long long n = (quota + period - 1) / period;
    if (n < *cpus) *cpus = (int)n;
}
static void cpus_v1(const char *dir, void *cpus) {
    char quota[64], period[64];
    if (lk__read_small(quota, sizeof quota, "%s/%s%s", dir, "cpu.cfs_quota_us", "") &&
        lk__read_small(period, sizeof period, "%s/%s%s", dir, "cpu.cfs_period_us", ""))
        add_quota(cpus, atoll(quota), atoll(period));
}
static void cpus_v2(const char *dir, void *cpus) {
    char text[128];
    long long quota, period;
    if (lk__read_small(text, sizeof text, "%s/%s%s", dir, "cpu.max", "") && sscanf(text, "%lld %lld", &quota, &period) == 2)
        add_quota(cpus, quota, period);
}

int lk__cgroup_cpus(const char *root) {
    int cpus = INT_MAX;
    visit(root, "cpu", cpus_v1, &cpus);
    visit(root, "", cpus_v2, &cpus);
    return cpus;
}

/* A processor counts when no allowed one of its core came before it. */
int lk__physical_cores(const char *root, const unsigned char *allowed, int cpus) {
    int cores = 0;
    for (int cpu = 0; cpu < cpus; cpu++) {
        if (!allowed[cpu]) continue;
        char name[32], text[1024];
        snprintf(name, sizeof name, "%d", cpu);
        bool first = true;
        if (lk__read_small(text, sizeof text, "%s/sys/devices/system/cpu/cpu%s/topology/thread_siblings_list%s", root, name,
                           "")) {
            for (char *p = text; *p && *p != '\n';) { /* "0-1,4" */
                long from = strtol(p, &p, 10), to = from;
                if (*p == '-') to = strtol(p + 1, &p, 10);
                for (long other = from; other <= to && other < cpu; other++)
                    if (other >= 0 && allowed[other]) first = false;
                if (*p != ',') break;
                p++;
            }
        }
        cores += first;
    }
    return cores;
}

int lk_threads_default(void) {
    enum { CPUS = 8192 };
    static const size_t bytes = CPUS / 8;
    unsigned long mask[CPUS / 8 / sizeof(unsigned long)];
    unsigned char allowed[CPUS];
    int cpus = CPUS, threads;
    memset(mask, 0, sizeof mask);
    if (sched_getaffinity(0, bytes, (cpu_set_t *)mask) == 0) {
        for (int i = 0; i < CPUS; i++) allowed[i] = CPU_ISSET_S((size_t)i, bytes, (cpu_set_t *)mask) != 0;
    } else {
        long online = sysconf(_SC_NPROCESSORS_ONLN);
        cpus = online > 0 && online < CPUS ? (int)online : 1;
        memset(allowed, 1, sizeof allowed);
    }
    threads = lk__physical_cores("", allowed, cpus);
    int quota = lk__cgroup_cpus("");
    if (quota < threads) threads = quota;
    return threads < 1 ? 1 : threads > 256 ? 256 : threads;
}
