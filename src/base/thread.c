/* The pool. A region is one lk_pool_run: the caller opens it by publishing a new `state`, threads join by adding one to
 * its count, and the caller closes it when no tile is left and waits only for those who joined. A thread that is asleep
 * or descheduled therefore never holds a short region up. README.md has the protocol. */
#include "lockstep/base/thread.h"
#include "base/limits.h"
#include "lockstep/base/mem.h"
#include "lockstep/base/progress.h"
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define THREADS_MAX 256
#define OPEN        ((uint64_t)1 << 31) /* state: region number << 32 | OPEN | threads joined */
#define COUNT(s)    ((s) & (OPEN - 1))
#define REGION(s)   ((uint32_t)((s) >> 32))

struct worker {
    struct lk_pool *pool;
    pthread_t thread;
    int number;
};

struct lk_pool {
    _Alignas(64) atomic_uint_fast64_t state;
    _Alignas(64) atomic_size_t next; /* the tile to claim next */
    _Alignas(64) atomic_uint wake;   /* futex: grows with each region and at the end */
    atomic_uint sleepers;
    _Alignas(64) atomic_uint done; /* futex: grows when the last thread leaves a closed region */
    atomic_uint caller_sleeps;
    atomic_uint_fast64_t busy_ns; /* of the started threads in this region */
    atomic_uint_fast64_t idle_ns;
    /* The region: written while it is closed and empty, so only read by those who joined. */
    _Alignas(64) lk_tile_fn *fn;
    void *arg;
    size_t tiles;
    atomic_bool stop, running;
    int threads, started;
    uint64_t spin_ns;
    struct worker workers[];
};

static void futex_wait(atomic_uint *word, unsigned seen) {
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}
static void futex_wake(atomic_uint *word, int count) {
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

static void work(struct lk_pool *p, int number) {
    for (;;) {
        size_t tile = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed);
        if (tile >= p->tiles) return;
        p->fn(p->arg, tile, number);
    }
}

/* Waits until a region other than `seen` was opened or the pool ends; returns the state read. */
static uint64_t wait_for_region(struct lk_pool *p, uint32_t seen) {
    uint64_t start = 0;
    for (unsigned turn = 0;; turn++) {
        uint64_t s = atomic_load_explicit(&p->state, memory_order_acquire);
        if (REGION(s) != seen || atomic_load_explicit(&p->stop, memory_order_relaxed)) return s;
        lk_cpu_pause();
        if (turn % 32 != 31) continue;
        uint64_t now = lk_clock_ns();
        if (!start) start = now;
        if (now - start < p->spin_ns) continue;
        /* Either we see the region here or its opener sees us in sleepers: both sides are sequentially consistent. */
        unsigned ticket = atomic_load(&p->wake);
        atomic_fetch_add(&p->sleepers, 1);
        s = atomic_load(&p->state);
        if (REGION(s) == seen && !atomic_load(&p->stop)) futex_wait(&p->wake, ticket);
        atomic_fetch_sub(&p->sleepers, 1);
        start = 0;
    }
}

static void *worker_main(void *arg) {
    struct worker *w = arg;
    struct lk_pool *p = w->pool;
    uint32_t seen = 0;
    lk_fpenv_set();
    while (!atomic_load_explicit(&p->stop, memory_order_acquire)) {
        uint64_t s = wait_for_region(p, seen);
        seen = REGION(s);
        bool joined = false;
        while (!joined && REGION(s) == seen && (s & OPEN))
            joined =
                atomic_compare_exchange_weak_explicit(&p->state, &s, s + 1, memory_order_acq_rel, memory_order_acquire);
        if (!joined) {
            /* Closed before we came; or the next one is open already, which the next turn sees. */
            continue;
        }
        LK_ASSERT(lk_fpenv_ok());
        uint64_t start = lk_clock_ns();
        work(p, w->number);
        atomic_fetch_add_explicit(&p->busy_ns, lk_clock_ns() - start, memory_order_relaxed);
        s = atomic_fetch_sub(&p->state, 1) - 1;
        if (COUNT(s) == 0 && !(s & OPEN)) {
            atomic_fetch_add(&p->done, 1);
            if (atomic_load(&p->caller_sleeps)) futex_wake(&p->done, 1);
        }
    }
    return NULL;
}

static void wait_for_threads(struct lk_pool *p) {
    uint64_t start = 0;
    for (unsigned turn = 0;; turn++) {
        if (COUNT(atomic_load_explicit(&p->state, memory_order_acquire)) == 0) return;
        lk_cpu_pause();
        if (turn % 32 != 31) continue;
        uint64_t now = lk_clock_ns();
        if (!start) start = now;
        if (now - start < p->spin_ns) continue;
        unsigned ticket = atomic_load(&p->done);
        atomic_store(&p->caller_sleeps, 1);
        if (COUNT(atomic_load(&p->state)) != 0) futex_wait(&p->done, ticket);
        atomic_store(&p->caller_sleeps, 0);
        start = 0;
    }
}

static void run_on_all(struct lk_pool *p, size_t tiles, lk_tile_fn *fn, void *arg) {
    uint64_t start = lk_clock_ns();
    p->fn = fn;
    p->arg = arg;
    p->tiles = tiles;
    atomic_store_explicit(&p->next, 0, memory_order_relaxed);
    atomic_store_explicit(&p->busy_ns, 0, memory_order_relaxed);
    uint64_t s = atomic_load_explicit(&p->state, memory_order_relaxed);
    atomic_store(&p->state, (uint64_t)(REGION(s) + 1) << 32 | OPEN);
    atomic_fetch_add(&p->wake, 1);
    size_t asleep = atomic_load(&p->sleepers);
    if (asleep) futex_wake(&p->wake, (int)(asleep < tiles - 1 ? asleep : tiles - 1));
    work(p, 0);
    uint64_t mine = lk_clock_ns() - start;
    atomic_fetch_and(&p->state, ~OPEN);
    wait_for_threads(p);
    uint64_t total = (lk_clock_ns() - start) * (uint64_t)p->threads;
    uint64_t busy = mine + atomic_load_explicit(&p->busy_ns, memory_order_relaxed);
    if (total > busy) atomic_fetch_add_explicit(&p->idle_ns, total - busy, memory_order_relaxed);
}

void lk_pool_run(struct lk_pool *p, size_t tiles, lk_tile_fn *fn, void *arg) {
    if (tiles == 0) return;
    LK_ASSERT(tiles <= SIZE_MAX / 2);
    unsigned long long old = lk_fpenv_set();
    if (p) LK_ASSERT(!atomic_exchange(&p->running, true)); /* one caller at a time, and no nesting */
    if (!p || p->threads == 1 || tiles == 1) {
        uint64_t start = p && p->threads > 1 ? lk_clock_ns() : 0;
        for (size_t tile = 0; tile < tiles; tile++) fn(arg, tile, 0);
        if (start)
            atomic_fetch_add_explicit(&p->idle_ns, (lk_clock_ns() - start) * (uint64_t)(p->threads - 1),
                                      memory_order_relaxed);
    } else {
        run_on_all(p, tiles, fn, arg);
    }
    if (p) atomic_store(&p->running, false);
    lk_fpenv_restore(old);
}

int lk_thread_start(pthread_t *out, void *(*fn)(void *arg), void *arg) {
    static const int faults[] = {SIGBUS, SIGSEGV, SIGFPE, SIGILL, SIGTRAP};
    sigset_t blocked, old;
    pthread_attr_t attributes;
    int failed = pthread_attr_init(&attributes);
    if (failed) return failed;
    failed = pthread_attr_setstacksize(&attributes, LK_STACK_BYTES);
    sigfillset(&blocked);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) sigdelset(&blocked, faults[i]);
    pthread_sigmask(SIG_SETMASK, &blocked, &old); /* a thread begins with the mask of its maker */
    if (!failed) failed = pthread_create(out, &attributes, fn, arg);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attributes);
    return failed;
}

static int start_threads(struct lk_pool *p) {
    int failed = 0;
    for (int i = 1; !failed && i < p->threads; i++) {
        struct worker *w = &p->workers[i - 1];
        w->pool = p;
        w->number = i;
        failed = lk_thread_start(&w->thread, worker_main, w);
        if (!failed) p->started++;
    }
    return failed;
}

int lk_pool_open(int threads, struct lk_pool **out, struct lk_err *err) {
    *out = NULL;
    if (threads < 1 || threads > THREADS_MAX)
        return lk_fail(err, LK_EINVAL, "%d threads asked for; 1 to %d are possible", threads, THREADS_MAX);
    size_t size = sizeof(struct lk_pool) + (size_t)(threads - 1) * sizeof(struct worker);
    struct lk_pool *p = lk_calloc(1, size);
    if (!p) return lk_fail(err, LK_ENOMEM, "out of memory for a pool of %d threads", threads);
    p->threads = threads;
    /* With more threads than processors a spinning thread keeps another from its work. */
    cpu_set_t set;
    int processors = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : (int)sysconf(_SC_NPROCESSORS_ONLN);
    int quota = lk__cgroup_cpus("");
    if (quota < processors) processors = quota;
    p->spin_ns = threads <= processors ? 40000 : 1000;
    int failed = start_threads(p);
    if (failed) {
        int wanted = threads, had = p->started + 1;
        lk_pool_close(p);
        errno = failed;
        lk_fail_errno(err, "cannot start %d threads (%d are possible now; ask for fewer)", wanted, had);
        return err ? (err->code = LK_ENOMEM) : LK_ENOMEM;
    }
    *out = p;
    return 0;
}

void lk_pool_close(struct lk_pool *p) {
    if (!p) return;
    atomic_store(&p->stop, true);
    atomic_fetch_add(&p->wake, 1);
    futex_wake(&p->wake, THREADS_MAX);
    for (int i = 0; i < p->started; i++) pthread_join(p->workers[i].thread, NULL);
    lk_free(p);
}

int lk_pool_threads(const struct lk_pool *p) {
    return p ? p->threads : 1;
}

unsigned long long lk_pool_idle_ns(const struct lk_pool *p) {
    return p ? atomic_load_explicit((atomic_uint_fast64_t *)&p->idle_ns, memory_order_relaxed) : 0;
}
