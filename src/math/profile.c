/* Where the time goes: drivers say what they are about to do, and are timed until they return. */
#include "lockstep/base/progress.h"
#include "math/kernel_table.h"

#include <string.h>

int lk_math_profile(struct lk_math *m, struct lk_err *err) {
    if (!m->times) m->times = lk_alloc(LK_KERNELS * sizeof *m->times);
    if (!m->times) return lk_fail(err, LK_ENOMEM, "no memory for a profile");
    memset(m->times, 0, LK_KERNELS * sizeof *m->times);
    m->profile = m->times;
    return LK_OK;
}

void lk_math_profile_pause(struct lk_math *m, bool pause) {
    m->profile = pause ? NULL : m->times;
}

const struct lk_kernel_time *lk_math_profiled(const struct lk_math *m) {
    return m->times;
}

const char *lk_kernel_name(enum lk_kernel kernel) {
    static const char *const names[] = {
#define X(name, text) text,
        LK_KERNEL_TABLE(X)
#undef X
    };
    return names[kernel];
}

struct lk__math_timing lk__math_timing_begin(struct lk_math *m, enum lk_kernel kernel, double operations, double bytes) {
    struct lk_kernel_time *t = &m->profile[kernel];
    t->calls++;
    t->operations += operations;
    t->bytes += bytes;
    return (struct lk__math_timing){m, kernel, lk_clock_ns(), lk_pool_idle_ns(m->pool)};
}

void lk__math_timing_end(struct lk__math_timing *timing) {
    if (!timing->math) return;
    struct lk_kernel_time *t = &timing->math->profile[timing->kernel];
    t->ns += lk_clock_ns() - timing->ns;
    t->idle_ns += lk_pool_idle_ns(timing->math->pool) - timing->idle_ns;
}
