/* A fixed pool of threads. Work is cut into tiles by shape alone; threads claim tiles in any order. */
#ifndef LOCKSTEP_THREAD_H
#define LOCKSTEP_THREAD_H
#include "lockstep/base/err.h"
#include <pthread.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A thread of ours, for the caller to join. It has a stack of LK_STACK_BYTES whatever `ulimit -s` says, and signals go to
 * other threads, but for those that its own faults raise. Returns what pthread_create returns: 0 or an errno. */
#define LK_STACK_BYTES ((size_t)2 << 20)
int lk_thread_start(pthread_t *out, void *(*fn)(void *arg), void *arg);

struct lk_pool;

/* threads >= 1, the caller's thread included (so threads - 1 are started; at most 256). Each started thread runs with the
 * numeric environment set (lk_fpenv_set). */
int lk_pool_open(int threads, struct lk_pool **out, struct lk_err *);
void lk_pool_close(struct lk_pool *);
int lk_pool_threads(const struct lk_pool *);

/* Calls fn(arg, tile, thread) once for every tile in [0, tiles), 0 <= thread < threads; returns when all are done. The
 * caller works too (as thread 0), with the numeric environment set for the time of the call and restored after.
 * A NULL pool runs all tiles on the caller, in order. Not reentrant: fn must not call lk_pool_run on the same pool. One
 * caller at a time. fn must not depend on which thread runs a tile except for scratch memory. */
typedef void lk_tile_fn(void *arg, size_t tile, int thread);
void lk_pool_run(struct lk_pool *, size_t tiles, lk_tile_fn *fn, void *arg);

/* Nanoseconds all threads together spent without a tile inside lk_pool_run, since the pool was opened. */
unsigned long long lk_pool_idle_ns(const struct lk_pool *);

/* Threads worth starting here: the least of the cgroup's CPU quota (rounded up), the affinity mask, physical cores; >= 1.
 */
int lk_threads_default(void);

/* In a loop that waits for another processor's write. */
static inline void lk_cpu_pause(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb");
#endif
}

/* The numeric environment: round to nearest, no flush to zero, no traps; returns the old control word for _restore. */
unsigned long long lk_fpenv_set(void);
void lk_fpenv_restore(unsigned long long old);
int lk_fpenv_ok(void); /* 1 when this thread's control bits are as the numeric contract wants */
/* First in a public function that computes: the numeric environment until it returns, whatever its caller had set. */
static inline void lk_fpenv_leave(unsigned long long *old) {
    lk_fpenv_restore(*old);
}
#define LK_NUMERIC_SCOPE()                                                                                                 \
    unsigned long long lk_fpenv_before __attribute__((cleanup(lk_fpenv_leave), unused)) = lk_fpenv_set()

#ifdef __cplusplus
}
#endif
#endif
