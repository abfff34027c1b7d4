#include "base/testing.h"
#include "lockstep/base/progress.h"
#include "lockstep/base/thread.h"
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

struct count {
    atomic_int *tiles;
    atomic_int bad;
    int threads;
    atomic_int inside[256]; /* a thread number is never used twice at once */
};
static void count_tile(void *arg, size_t tile, int thread) {
    struct count *c = arg;
    if (thread < 0 || thread >= c->threads || atomic_fetch_add(&c->inside[thread], 1) != 0) atomic_fetch_add(&c->bad, 1);
    if (!lk_fpenv_ok()) atomic_fetch_add(&c->bad, 1);
    atomic_fetch_add(&c->tiles[tile], 1);
    if (tile % 7 == 3) sched_yield();
    atomic_fetch_sub(&c->inside[thread], 1);
}

static void every_tile_exactly_once(void **state) {
    (void)state;
    static const size_t sizes[] = {0, 1, 2, 3, 7, 8, 64, 1000};
    for (int threads = 0; threads <= 8; threads++) { /* 0: no pool */
        struct lk_pool *pool = NULL;
        struct lk_err e;
        if (threads) assert_int_equal(lk_pool_open(threads, &pool, &e), 0);
        assert_int_equal(lk_pool_threads(pool), threads ? threads : 1);
        for (int turn = 0; turn < 40; turn++) {
            size_t tiles = sizes[turn % 8];
            struct count c = {.tiles = lk_calloc(tiles + 1, sizeof(atomic_int)), .threads = threads ? threads : 1};
            lk_pool_run(pool, tiles, count_tile, &c);
            for (size_t i = 0; i < tiles; i++) assert_int_equal(atomic_load(&c.tiles[i]), 1);
            assert_int_equal(atomic_load(&c.bad), 0);
            lk_free(c.tiles);
            if (turn % 16 == 9) usleep(2000); /* let them fall asleep */
        }
        lk_pool_close(pool);
    }
}

/* Plain writes in a region are seen by the next one and by the caller: ThreadSanitizer's build checks the ordering. */
static void add_neighbours(void *arg, size_t tile, int thread) {
    long(*rows)[64] = arg;
    (void)thread;
    rows[1][tile] = rows[0][tile] + rows[0][(tile + 1) % 64];
}
static void copy_back(void *arg, size_t tile, int thread) {
    long(*rows)[64] = arg;
    (void)thread;
    rows[0][tile] = rows[1][tile] % 1000;
}
static void regions_are_ordered(void **state) {
    (void)state;
    long expected[64];
    for (int threads = 1; threads <= 8; threads++) {
        struct lk_pool *pool;
        long rows[2][64];
        for (int i = 0; i < 64; i++) rows[0][i] = i;
        assert_int_equal(lk_pool_open(threads, &pool, NULL), 0);
        for (int turn = 0; turn < 300; turn++) {
            lk_pool_run(pool, 64, add_neighbours, rows);
            lk_pool_run(pool, 64, copy_back, rows);
        }
        lk_pool_close(pool);
        if (threads == 1) memcpy(expected, rows[0], sizeof expected);
        assert_memory_equal(expected, rows[0], sizeof expected);
    }
}

static void nothing(void *arg, size_t tile, int thread) {
    (void)arg, (void)tile, (void)thread;
}

static void idle_threads_sleep(void **state) {
    (void)state;
    struct lk_pool *pool;
    assert_int_equal(lk_pool_open(8, &pool, NULL), 0);
    lk_pool_run(pool, 100, nothing, NULL);
    usleep(20000);
    struct rusage a, b;
    getrusage(RUSAGE_SELF, &a);
    usleep(100000);
    getrusage(RUSAGE_SELF, &b);
    long used_us = (b.ru_utime.tv_sec - a.ru_utime.tv_sec) * 1000000 + b.ru_utime.tv_usec - a.ru_utime.tv_usec;
    if (!LK_TSAN) assert_in_range(used_us, 0, 30000);
    lk_pool_close(pool);
}

static void short_regions_are_cheap(void **state) {
    (void)state;
    for (int threads = 2; threads <= 8; threads *= 2) {
        struct lk_pool *pool;
        assert_int_equal(lk_pool_open(threads, &pool, NULL), 0);
        uint64_t start = lk_clock_ns();
        for (int i = 0; i < 5000; i++) lk_pool_run(pool, 8, nothing, NULL);
        double each_us = (double)(lk_clock_ns() - start) / 5000e3;
        printf("%d threads: %.2f us a region of 8 empty tiles\n", threads, each_us);
        if (!LK_TSAN) assert_true(each_us < 200); /* seen: 0.5 to 2; a busy machine is slower */
        lk_pool_close(pool);
    }
}

static void one_sleeps(void *arg, size_t tile, int thread) {
    (void)arg, (void)thread;
    if (tile == 0) usleep(20000);
}
static void idle_time_is_counted(void **state) {
    (void)state;
    struct lk_pool *pool;
    assert_int_equal(lk_pool_open(3, &pool, NULL), 0);
    lk_pool_run(pool, 2, one_sleeps, NULL);
    assert_in_range(lk_pool_idle_ns(pool), 20000000, 10000000000);
    unsigned long long before = lk_pool_idle_ns(pool);
    lk_pool_run(pool, 1, one_sleeps, NULL); /* one tile: the others have nothing to do */
    assert_in_range(lk_pool_idle_ns(pool) - before, 40000000, 10000000000);
    lk_pool_close(pool);
    assert_int_equal(lk_pool_idle_ns(NULL), 0);
}

static void refusals(void **state) {
    (void)state;
    struct lk_pool *pool;
    struct lk_err e;
    assert_int_equal(lk_pool_open(0, &pool, &e), LK_EINVAL);
    assert_int_equal(lk_pool_open(257, &pool, &e), LK_EINVAL);
    assert_non_null(strstr(e.message, "257"));
    assert_null(pool);
    FAIL_EACH_ALLOCATION((lk_pool_close(pool), lk_pool_open(4, &pool, &e)));
    lk_pool_close(pool);
    lk_pool_close(NULL);
}

static void run_on_null(void) {
    struct count c = {.tiles = lk_calloc(10, sizeof(atomic_int)), .threads = 1};
    lk_pool_run(NULL, 10, count_tile, &c);
    assert_int_equal(atomic_load(&c.bad), 0);
    lk_free(c.tiles);
}

/* A host that flushes to zero, rounds up and traps: tiles do not see it, and it finds its settings again. */
static void the_hosts_environment_is_restored(void **state) {
    (void)state;
#if defined(__x86_64__)
    unsigned old = _mm_getcsr(), host = 0x1F80u | 0x8000u | 0x0040u | 0x4000u;
    host &= ~0x0200u; /* traps division by zero */
    _mm_setcsr(host);
    assert_false(lk_fpenv_ok());
    run_on_null();
    struct lk_pool *pool;
    for (int threads = 1; threads <= 4; threads++) {
        assert_int_equal(lk_pool_open(threads, &pool, NULL), 0);
        struct count c = {.tiles = lk_calloc(100, sizeof(atomic_int)), .threads = threads};
        lk_pool_run(pool, 100, count_tile, &c);
        assert_int_equal(atomic_load(&c.bad), 0);
        lk_free(c.tiles);
        lk_pool_close(pool);
        assert_int_equal(_mm_getcsr() & ~0x3Fu, host);
    }
    unsigned long long saved = lk_fpenv_set();
    assert_true(lk_fpenv_ok());
    volatile float tiny = 1e-38f, smaller = tiny * 0.5f; /* subnormal: lost if flushed */
    assert_true(smaller > 0);
    lk_fpenv_restore(saved);
    assert_int_equal(_mm_getcsr() & ~0x3Fu, host);
    _mm_setcsr(old);
#else
    unsigned long long old = lk_fpenv_set();
    assert_true(lk_fpenv_ok());
    run_on_null();
    lk_fpenv_restore(old);
#endif
}

static atomic_int pool_thread_got_it, signals;
static pthread_t main_thread;
static void on_signal(int number) {
    (void)number;
    atomic_fetch_add(&signals, 1);
    if (!pthread_equal(pthread_self(), main_thread)) atomic_store(&pool_thread_got_it, 1);
}
static void signals_go_to_the_program(void **state) {
    (void)state;
    struct lk_pool *pool;
    main_thread = pthread_self();
    signal(SIGUSR1, on_signal);
    assert_int_equal(lk_pool_open(4, &pool, NULL), 0);
    for (int i = 0; i < 20; i++) {
        kill(getpid(), SIGUSR1);
        lk_pool_run(pool, 10, nothing, NULL);
    }
    lk_pool_close(pool);
    assert_true(atomic_load(&signals) > 0);
    assert_int_equal(atomic_load(&pool_thread_got_it), 0);
    signal(SIGUSR1, SIG_DFL);
}

static void measure_stack(void *arg, size_t tile, int thread) {
    pthread_attr_t a;
    size_t size = 0;
    (void)tile;
    assert_int_equal(pthread_getattr_np(pthread_self(), &a), 0);
    assert_int_equal(pthread_attr_getstacksize(&a, &size), 0);
    pthread_attr_destroy(&a);
    if (thread > 0 && size < LK_STACK_BYTES) atomic_fetch_add((atomic_int *)arg, 1);
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL); /* so that every thread gets some */
}
/* glibc gives a thread what `ulimit -s` said when the program began; ours have what they need. */
static void threads_have_their_stack(void **state) {
    (void)state;
    struct lk_pool *pool;
    atomic_int small = 0;
    assert_int_equal(lk_pool_open(4, &pool, NULL), 0);
    lk_pool_run(pool, 40, measure_stack, &small);
    lk_pool_close(pool);
    assert_int_equal(atomic_load(&small), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_tile_exactly_once),
        cmocka_unit_test(regions_are_ordered),
        cmocka_unit_test(idle_threads_sleep),
        cmocka_unit_test(short_regions_are_cheap),
        cmocka_unit_test(idle_time_is_counted),
        cmocka_unit_test(refusals),
        cmocka_unit_test(the_hosts_environment_is_restored),
        cmocka_unit_test(signals_go_to_the_program),
        cmocka_unit_test(threads_have_their_stack),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
