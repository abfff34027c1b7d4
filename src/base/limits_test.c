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

/* A core of two threads; its own L1, an L2 that two cores share. */
static void caches(void **state) {
    struct lk_caches c;
    assert_false(lk__caches_of_system(*state, 3, &c));
    static const char *const files[][2] = {
        {"topology/thread_siblings_list", "3,7\n"},
        {"cache/index0/type", "Data\n"},
        {"cache/index0/level", "1\n"},
        {"cache/index0/size", "48K\n"},
        {"cache/index0/ways_of_associativity", "12\n"},
        {"cache/index0/shared_cpu_list", "3,7\n"},
        {"cache/index1/type", "Instruction\n"},
        {"cache/index1/level", "1\n"},
        {"cache/index1/size", "64K\n"},
        {"cache/index2/type", "Unified\n"},
        {"cache/index2/level", "2\n"},
        {"cache/index2/size", "2M\n"},
        {"cache/index2/ways_of_associativity", "16\n"},
        {"cache/index2/shared_cpu_list", "2-3,6-7\n"},
        {"cache/index3/type", "Unified\n"},
        {"cache/index3/level", "3\n"},
        {"cache/index3/size", "32768K\n"},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[100];
        snprintf(path, sizeof path, "sys/devices/system/cpu/cpu3/%s", files[i][0]);
        put(*state, path, files[i][1]);
    }
    assert_true(lk__caches_of_system(*state, 3, &c));
    assert_int_equal(c.l1.bytes, 48 << 10);
    assert_int_equal(c.l1.ways, 12);
    assert_int_equal(c.l2.bytes, 1 << 20);
    assert_int_equal(c.l2.ways, 16);
    /* A virtual machine may say that all of 200 processors share an L1: a core's share is less than a line a way. */
    put(*state, "sys/devices/system/cpu/cpu3/cache/index0/shared_cpu_list", "0-199\n");
    assert_false(lk__caches_of_system(*state, 3, &c));
    put(*state, "sys/devices/system/cpu/cpu3/cache/index0/shared_cpu_list", "3,7\n");
    assert_true(lk__caches_of_system(*state, 3, &c));
    put(*state, "sys/devices/system/cpu/cpu3/cache/index2/ways_of_associativity", "nonsense");
    assert_false(lk__caches_of_system(*state, 3, &c));
}

static void caches_given(void **state) {
    (void)state;
    struct lk_caches c;
    OK(lk_caches_here(&c, &test_err));
    assert_true(c.l1.bytes && c.l1.ways && c.l2.bytes && c.l2.ways && c.from != LK_CACHES_GIVEN);
    setenv("LOCKSTEP_CACHES", "48K/12,2M/16", 1);
    OK(lk_caches_here(&c, &test_err));
    assert_true(c.l1.bytes == 48 << 10 && c.l1.ways == 12 && c.l2.bytes == 2 << 20 && c.l2.ways == 16);
    assert_int_equal(c.from, LK_CACHES_GIVEN);
    static const char *const wrong[] = {"1",
                                        "32K",
                                        "32K/8",
                                        "32K/8,",
                                        "32K/8,512K",
                                        "32K/0,512K/8",
                                        "K/8,1M/8",
                                        "32K/8,512K/8x",
                                        "32K/8,512K/8,",
                                        "-32K/8,512K/8",
                                        "1K/65,1M/8",
                                        "1K/32,1M/8",
                                        "99999999999999999999K/8,1M/8",
                                        "32/8,512/8"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        setenv("LOCKSTEP_CACHES", wrong[i], 1);
        FAILS(LK_EINVAL, lk_caches_here(&c, &test_err), "32K/8,512K/8");
    }
    unsetenv("LOCKSTEP_CACHES");
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
    const struct CMUnitTest tests[] = {TEST_IN_DIR(version_2),     TEST_IN_DIR(version_1_in_a_container),
                                       TEST_IN_DIR(nothing_there), TEST_IN_DIR(siblings_count_once),
                                       TEST_IN_DIR(caches),        TEST_IN_DIR(caches_given),
                                       TEST_IN_DIR(this_machine)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
