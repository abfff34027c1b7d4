/* A made-up /proc and /sys below a temporary directory. */
#include "base/limits.h"
#include "base/testing.h"
#include "lockstep/base/thread.h"
#include <limits.h>

static void put(const char *root, const char *path, const char *text) {
    char *full = test_join(root, path), *dir = lk_strdup(full);
    *strrchr(dir, '/') = 0;
    assert_int_equal(lk_dir_make(dir, NULL), 0);
    assert_int_equal(lk_file_write_atomic(full, text, strlen(text), NULL), 0);
    lk_free(full);
    lk_free(dir);
}

static void version_2(void **state) {
    const char *root = *state;
    put(root, "proc/self/cgroup", "0::/a/b\n");
    put(root, "proc/self/mountinfo", "30 23 0:28 / /sys/fs/cgroup rw shared:1 - cgroup2 cgroup2 rw\n");
    put(root, "sys/fs/cgroup/a/b/memory.max", "max\n");
    put(root, "sys/fs/cgroup/a/b/memory.current", "5\n");
    put(root, "sys/fs/cgroup/a/memory.max", "1000000\n");
    put(root, "sys/fs/cgroup/a/memory.current", "900000\n");
    put(root, "sys/fs/cgroup/a/memory.stat", "anon 1\ninactive_file 200000\nactive_file 50000\n");
    put(root, "sys/fs/cgroup/a/b/cpu.max", "250000 100000\n");
    put(root, "sys/fs/cgroup/a/cpu.max", "max 100000\n");
    assert_int_equal(lk__cgroup_memory_left(root), 350000);
    assert_int_equal(lk__cgroup_cpus(root), 3);
    assert_true(lk__cgroup_pids(root) == UINT64_MAX);
    put(root, "sys/fs/cgroup/a/pids.max", "77\n");
    put(root, "sys/fs/cgroup/a/b/pids.max", "max\n");
    assert_int_equal(lk__cgroup_pids(root), 77);
    put(root, "sys/fs/cgroup/a/cpu.max", "50000 100000\n");
    assert_int_equal(lk__cgroup_cpus(root), 1);
    put(root, "sys/fs/cgroup/a/memory.current", "5000000\n");
    assert_int_equal(lk__cgroup_memory_left(root), 0);
    put(root, "proc/meminfo", "MemTotal: 100 kB\nMemAvailable:   77 kB\n");
    assert_int_equal(lk__memory_available(root), 0);
    put(root, "sys/fs/cgroup/a/memory.max", "max\n");
    assert_int_equal(lk__memory_available(root), 77 * 1024);
}

static void version_1_in_a_container(void **state) {
    const char *root = *state;
    put(root, "proc/self/cgroup", "9:name=systemd:/\n4:memory:/docker/x/y\n2:cpu,cpuacct:/docker/x\n0::/\n");
    put(root, "proc/self/mountinfo",
        "31 23 0:28 /docker/x /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
        "32 23 0:28 /docker/x /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n");
    put(root, "sys/fs/cgroup/memory/y/memory.limit_in_bytes", "9223372036854771712\n");
    put(root, "sys/fs/cgroup/memory/y/memory.usage_in_bytes", "1\n");
    put(root, "sys/fs/cgroup/memory/memory.limit_in_bytes", "2000\n");
    put(root, "sys/fs/cgroup/memory/memory.usage_in_bytes", "1500\n");
    put(root, "sys/fs/cgroup/memory/memory.stat", "inactive_file 9\ntotal_inactive_file 100\ntotal_active_file 1\n");
    put(root, "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "400000\n");
    put(root, "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    assert_int_equal(lk__cgroup_memory_left(root), 601);
    assert_int_equal(lk__cgroup_cpus(root), 4);
    put(root, "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
    assert_int_equal(lk__cgroup_cpus(root), INT_MAX);
}

static void nothing_there(void **state) {
    assert_true(lk__cgroup_memory_left(*state) == UINT64_MAX);
    assert_int_equal(lk__cgroup_cpus(*state), INT_MAX);
    put(*state, "proc/self/cgroup", "garbage\n:::\n4:memory\n");
    put(*state, "proc/self/mountinfo", "x\n - cgroup2\n1 2 3 4 5 - cgroup2\n");
    assert_true(lk__cgroup_memory_left(*state) == UINT64_MAX);
    unsigned char allowed[4] = {1, 1, 0, 1};
    assert_int_equal(lk__physical_cores(*state, allowed, 4), 3);
}

static void siblings_count_once(void **state) {
    static const char *const lists[] = {"0,4", "1,5", "2-3", "2-3", "0,4", "1,5"};
    for (int cpu = 0; cpu < 6; cpu++) {
        char path[100];
        snprintf(path, sizeof path, "sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
        put(*state, path, lists[cpu]);
    }
    assert_int_equal(lk__physical_cores(*state, (unsigned char[]){1, 1, 1, 1, 1, 1}, 6), 3);
    assert_int_equal(lk__physical_cores(*state, (unsigned char[]){0, 0, 0, 1, 1, 1}, 6), 3);
    assert_int_equal(lk__physical_cores(*state, (unsigned char[]){0, 0, 1, 1, 0, 0}, 6), 1);
}

static void this_machine(void **state) {
    (void)state;
    assert_in_range(lk_threads_default(), 1, 256);
    assert_true(lk_memory_available_bytes() > 1 << 20);
    assert_true(lk_memory_peak_bytes() > 1 << 16);
    setenv("LOCKSTEP_MEMORY_BYTES", "12345", 1);
    assert_int_equal(lk_memory_available_bytes(), 12345);
    setenv("LOCKSTEP_MEMORY_BYTES", "nonsense", 1);
    assert_true(lk_memory_available_bytes() > 1 << 20);
    unsetenv("LOCKSTEP_MEMORY_BYTES");
}

int main(void) {
    const struct CMUnitTest tests[] = {TEST_IN_DIR(version_2), TEST_IN_DIR(version_1_in_a_container),
                                       TEST_IN_DIR(nothing_there), TEST_IN_DIR(siblings_count_once),
                                       TEST_IN_DIR(this_machine)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
