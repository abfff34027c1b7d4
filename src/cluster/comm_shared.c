/* Ranks on one machine: memory that all of them map, around an engine that carries messages between two of them.
 *
 * Each rank's memory is a memfd, which no small /dev/shm limits; the others open it through /proc/PID/fd. Marks and
 * barriers are words of such memory, with a futex to sleep on. README.md has the protocol and the order of memory accesses.
 */
#include "cluster/comm.h"
#include "lockstep/base/mem.h"
#include "lockstep/base/progress.h"
#include "lockstep/base/thread.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif
#define HUGE_LEAST    ((size_t)4 << 20)
#define CONTROL_BYTES 4096
#define SCRATCH_BYTES ((size_t)1 << 20) /* of all ranks of a handle together */
#define SPIN_NS       20000
#define SLEEP_NS      100000000 /* a wake-up that got lost with a killed process costs no more */
#define HELP_NS       200000    /* while our own transfers need us */

/* One rank's: it writes, the others read; they write only `sleepers`. */
struct control {
    _Alignas(64) atomic_uint_fast64_t mark;
    _Alignas(64) atomic_uint_fast64_t epoch; /* rounds of gather_all whose own part is in place */
    _Alignas(64) atomic_uint bell;           /* futex: rings when one of the above has grown and somebody sleeps */
    atomic_uint sleepers;
};
_Static_assert(sizeof(struct control) <= CONTROL_BYTES, "the scratch lies behind it");

struct shared {
    struct lk_comm c;
    struct lk_comm *inner;
    struct lk_shared memory; /* of each rank: control, then two halves of scratch */
    size_t half;
    uint64_t epoch;
    uint64_t spin_ns;
    size_t transfers; /* begun and not finished */
};

/* --- mapping --------------------------------------------------------------------------------------------- */

struct ticket { /* what a rank has to know to map another's memory */
    uint64_t bytes, cookie;
    int64_t process, fd;
};
struct mapping {
    struct ticket *tickets; /* (ranks) */
    size_t *offsets;        /* (ranks + 1) */
    void *all[];            /* (ranks) */
};

/* Whole pages, then one more with the cookie: whoever opens /proc/PID/fd/N of a process that is not who it seems gets
 * something else. */
static size_t mapped_bytes(uint64_t bytes) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (bytes + page - 1) / page * page + page;
}
static uint64_t *cookie_of(void *at, uint64_t bytes) {
    return (uint64_t *)(void *)((char *)at + mapped_bytes(bytes) - sizeof(uint64_t));
}

static void mapping_free(const struct lk_comm *c, struct mapping *m) {
    if (!m) return;
    for (int r = 0; m->tickets && r < c->ranks; r++)
        if (m->all[r]) munmap(m->all[r], mapped_bytes(m->tickets[r].bytes));
    lk_free(m->tickets);
    lk_free(m->offsets);
    lk_free(m);
}

static void *map(int fd, size_t size) {
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) return NULL;
    if (size >= HUGE_LEAST) (void)madvise(at, size, MADV_HUGEPAGE);
    return at;
}

/* Now rather than at first touch, where no memory left means SIGBUS. */
static int populate(int fd, void *at, size_t size) {
    int failed;
    while ((failed = madvise(at, size, MADV_POPULATE_WRITE)) && (errno == EINTR || errno == EAGAIN)) {}
    if (failed && errno == EINVAL) /* an older kernel */
        while ((failed = posix_fallocate(fd, 0, (off_t)size)) == EINTR) {}
    return failed;
}

static int make_own(struct mapping *m, int rank, struct lk_err *err) {
    struct ticket *t = &m->tickets[rank];
    size_t size = mapped_bytes(t->bytes);
    int fd = memfd_create("lockstep", MFD_CLOEXEC);
    if (fd < 0) return lk_fail(err, LK_EUNSUPPORTED, "memfd_create: %s", strerror(errno));
    t->fd = fd;
    if (ftruncate(fd, (off_t)size) && errno == EFBIG)
        return lk_fail(
            err, LK_ENOMEM,
            "the limit of files' size (ulimit -f) is below %llu shared bytes: raise it, or let the ranks exchange "
            "messages with LOCKSTEP_SHARED_MEMORY=no",
            (unsigned long long)t->bytes);
    if (ftruncate(fd, (off_t)size) || !(m->all[rank] = map(fd, size)) || populate(fd, m->all[rank], size))
        return lk_fail(err, LK_ENOMEM, "no memory for %llu shared bytes", (unsigned long long)t->bytes);
    t->cookie = lk_clock_ns() ^ (uint64_t)t->process << 40 ^ (uint64_t)(uintptr_t)m->all[rank];
    *cookie_of(m->all[rank], t->bytes) = t->cookie;
    return LK_OK;
}

static int map_other(struct mapping *m, int rank, struct lk_err *err) {
    const struct ticket *t = &m->tickets[rank];
    char path[64];
    struct stat about;
    snprintf(path, sizeof path, "/proc/%lld/fd/%lld", (long long)t->process, (long long)t->fd);
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK); /* in another namespace it may be anything */
    if (fd < 0)
        return lk_fail(err, LK_EUNSUPPORTED, "cannot open the memory of rank %d (%s): %s", rank, path, strerror(errno));
    size_t size = mapped_bytes(t->bytes);
    bool right = fstat(fd, &about) == 0 && S_ISREG(about.st_mode) && about.st_size == (off_t)size;
    if (right) m->all[rank] = map(fd, size);
    close(fd);
    if (!right) return lk_fail(err, LK_EUNSUPPORTED, "%s is not the memory of rank %d", path, rank);
    if (!m->all[rank]) return lk_fail(err, LK_ENOMEM, "cannot map %zu bytes of rank %d", size, rank);
    if (*cookie_of(m->all[rank], t->bytes) != t->cookie)
        return lk_fail(err, LK_EUNSUPPORTED, "%s is not the memory of rank %d", path, rank);
    return LK_OK;
}

/* Asked before anybody takes any: a machine that runs out of memory kills processes. */
static int check_total(const struct lk_comm *c, const struct mapping *m, struct lk_err *err) {
    uint64_t total = 0, left = lk_memory_available_bytes();
    for (int r = 0; r < c->ranks; r++)
        if (m->tickets[r].bytes >> 47 || (total += mapped_bytes(m->tickets[r].bytes)) > left)
            return lk_fail(err, LK_ENOMEM, "the %d ranks' shared memory does not fit into the %llu bytes that are left",
                           c->ranks, (unsigned long long)left);
    return LK_OK;
}

/* What ranks do first: everyone's size is known, and that all of it can be had. */
static int begin_mapping(struct lk_comm *inner, size_t bytes, struct mapping **out, struct lk_err *err) {
    size_t ranks = (size_t)inner->ranks;
    struct mapping *m = lk_calloc(1, sizeof *m + ranks * sizeof *m->all);
    if (m) m->tickets = lk_calloc(ranks, sizeof *m->tickets);
    if (m) m->offsets = lk_calloc(ranks + 1, sizeof *m->offsets);
    bool have = m && m->tickets && m->offsets;
    int code = have ? LK_OK : lk_fail(err, LK_ENOMEM, "out of memory");
    code = lk_comm_agree(inner, "shared memory", code, err);
    *out = m;
    if (code || !have) return code;
    m->tickets[inner->rank] = (struct ticket){.bytes = bytes, .process = getpid(), .fd = -1};
    for (size_t r = 0; r <= ranks; r++) m->offsets[r] = r * sizeof *m->tickets;
    code = lk_comm_gather_all(inner, "shared memory", m->tickets, m->offsets, err);
    return code ? code : lk_comm_agree(inner, "shared memory", check_total(inner, m, err), err);
}

static int map_all(struct lk_comm *inner, size_t bytes, struct lk_shared *out, struct lk_err *err) {
    struct lk_err own; /* the ranks agree on a message: there must be one */
    if (!err) err = &own;
    struct mapping *m = NULL;
    int me = inner->rank, code = begin_mapping(inner, bytes, &m, err);
    if (!code) code = lk_comm_agree(inner, "shared memory", make_own(m, me, err), err);
    if (!code) code = lk_comm_gather_all(inner, "shared memory", m->tickets, m->offsets, err);
    if (!code) {
        for (int r = 0; !code && r < inner->ranks; r++)
            if (r != me) code = map_other(m, r, err);
        code = lk_comm_agree(inner, "shared memory", code, err);
    }
    /* All have mapped it, or nobody will. */
    if (m && m->tickets && m->tickets[me].bytes && m->tickets[me].fd >= 0) close((int)m->tickets[me].fd);
    if (code) {
        mapping_free(inner, m);
        return code;
    }
    *out = (struct lk_shared){.mine = m->all[me], .bytes = bytes, .all = m->all, .engine = m};
    return LK_OK;
}

/* --- marks and waiting ----------------------------------------------------------------------------------- */

static struct control *control(const struct shared *s, int rank) {
    return s->memory.all[rank];
}

/* Either a sleeper is seen here or it sees the new value: both sides are sequentially consistent. */
static void publish(struct shared *s, atomic_uint_fast64_t *word, uint64_t value) {
    struct control *mine = control(s, s->c.rank);
    atomic_store(word, value);
    if (!atomic_load(&mine->sleepers)) return;
    atomic_fetch_add(&mine->bell, 1);
    syscall(SYS_futex, &mine->bell, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

/* Sleeps until `of`'s owner rings, unless word has reached value; may wake up early. */
static void sleep_once(struct control *of, atomic_uint_fast64_t *word, uint64_t value, long most_ns) {
    struct timespec most = {.tv_nsec = most_ns};
    atomic_fetch_add(&of->sleepers, 1);
    unsigned ticket = atomic_load(&of->bell);
    if (atomic_load(word) < value) syscall(SYS_futex, &of->bell, FUTEX_WAIT, ticket, &most, NULL, 0);
    atomic_fetch_sub(&of->sleepers, 1);
}

/* Until a word of rank's control has reached value. Messages of ours go on meanwhile, so that nobody waits for us who waits
 * for them. */
static void wait_for(struct shared *s, int rank, atomic_uint_fast64_t *word, uint64_t value) {
    struct control *of = control(s, rank);
    uint64_t start = 0;
    for (unsigned turn = 0;; turn++) {
        if (atomic_load_explicit(word, memory_order_acquire) >= value) return;
        lk_cpu_pause();
        if (s->spin_ns && turn % 32 != 31) continue;
        uint64_t now = lk_clock_ns();
        if (!start) start = now;
        if (now - start < s->spin_ns) continue;
        if (s->transfers) s->inner->ops->progress(s->inner);
        sleep_once(of, word, value, s->transfers ? HELP_NS : SLEEP_NS);
    }
}

static void shared_mark(struct lk_comm *c, uint64_t value) {
    struct shared *s = (struct shared *)c;
    struct control *mine = control(s, c->rank);
    LK_ASSERT(value >= atomic_load_explicit(&mine->mark, memory_order_relaxed));
    publish(s, &mine->mark, value);
}

static uint64_t shared_marked(struct lk_comm *c, int rank) {
    return atomic_load_explicit(&control((struct shared *)c, rank)->mark, memory_order_acquire);
}

static int shared_wait_mark(struct lk_comm *c, int rank, uint64_t value, struct lk_err *err) {
    (void)err;
    struct shared *s = (struct shared *)c;
    LK_ASSERT(rank != c->rank || shared_marked(c, rank) >= value); /* nobody else could mark it */
    wait_for(s, rank, &control(s, rank)->mark, value);
    return LK_OK;
}

/* --- gather_all ------------------------------------------------------------------------------------------ */

/* Round by round each rank puts the next piece of its part into its scratch, says so, and takes the others' when they have
 * said so. The halves take turns: who says that round n + 1 is in place has read round n, so round n + 2 may overwrite it.
 */
static int shared_gather_all(struct lk_comm *c, void *data, const size_t *offsets, struct lk_err *err) {
    (void)err;
    struct shared *s = (struct shared *)c;
    size_t most = 0;
    for (int r = 0; r < c->ranks; r++)
        if (offsets[r + 1] - offsets[r] > most) most = offsets[r + 1] - offsets[r];
    for (size_t done = 0; done < most; done += s->half) {
        size_t place = CONTROL_BYTES + (++s->epoch & 1) * s->half;
        for (int i = 0; i < c->ranks; i++) { /* ourselves first */
            int r = (c->rank + i) % c->ranks;
            size_t part = offsets[r + 1] - offsets[r];
            size_t n = part <= done ? 0 : part - done < s->half ? part - done : s->half;
            char *piece = (char *)data + offsets[r] + done, *scratch = (char *)s->memory.all[r] + place;
            if (i == 0) {
                if (n) memcpy(scratch, piece, n);
                publish(s, &control(s, r)->epoch, s->epoch);
            } else {
                wait_for(s, r, &control(s, r)->epoch, s->epoch);
                if (n) memcpy(piece, scratch, n);
            }
        }
    }
    return LK_OK;
}

/* --- what the inner engine does -------------------------------------------------------------------------- */

static int shared_start(struct lk_comm *c, bool receive, int peer, void *data, size_t size, struct lk_transfer **out,
                        struct lk_err *err) {
    struct shared *s = (struct shared *)c;
    int code = s->inner->ops->start(s->inner, receive, peer, data, size, out, err);
    if (!code) s->transfers++;
    return code;
}

static int shared_test(struct lk_comm *c, struct lk_transfer **t, bool wait, struct lk_err *err) {
    struct shared *s = (struct shared *)c;
    int code = s->inner->ops->test(s->inner, t, wait, err);
    if (!*t) s->transfers--;
    return code;
}

static int shared_share(struct lk_comm *c, size_t bytes, struct lk_shared *out, struct lk_err *err) {
    return map_all(((struct shared *)c)->inner, bytes, out, err);
}

static void shared_unshare(struct lk_comm *c, struct lk_shared *m) {
    mapping_free(c, m->engine);
}

/* --- open, dup, close ------------------------------------------------------------------------------------ */

/* No rank waits here: the others' maps of our memory are their own. */
static void shared_close(struct lk_comm *c) {
    struct shared *s = (struct shared *)c;
    mapping_free(c, s->memory.engine);
    lk_comm_close(s->inner);
    lk_free(s);
}

static int wrap(struct lk_comm *inner, struct lk_comm **out, struct lk_err *err);
static int shared_dup(struct lk_comm *c, struct lk_comm **out, struct lk_err *err) {
    struct lk_comm *inner = NULL;
    int code = lk_comm_dup(((struct shared *)c)->inner, &inner, err);
    if (!code && (code = wrap(inner, out, err))) lk_comm_close(inner);
    return code;
}

static const struct lk_comm_ops ops = {.name = "shared memory",
                                       .close = shared_close,
                                       .dup = shared_dup,
                                       .gather_all = shared_gather_all,
                                       .start = shared_start,
                                       .test = shared_test,
                                       .share = shared_share,
                                       .unshare = shared_unshare,
                                       .mark = shared_mark,
                                       .marked = shared_marked,
                                       .wait_mark = shared_wait_mark};

static int wrap(struct lk_comm *inner, struct lk_comm **out, struct lk_err *err) {
    struct lk_err own; /* the ranks agree on a message: there must be one */
    if (!err) err = &own;
    struct shared *s = lk_calloc(1, sizeof *s);
    int code = lk_comm_agree(inner, "shared memory", s ? LK_OK : lk_fail(err, LK_ENOMEM, "out of memory"), err);
    size_t half = SCRATCH_BYTES / 2 / (size_t)inner->ranks / 64 * 64;
    if (half < 1024) half = 1024;
    if (!code && s) {
        *s = (struct shared){.c = {.ops = &ops, .rank = inner->rank, .ranks = inner->ranks, .ranks_here = inner->ranks},
                             .inner = inner,
                             .half = half,
                             /* With more ranks than cores a spinning one keeps another from its work. Not the cores that
                              * this rank may use: mpirun binds each to one of its own. */
                             .spin_ns = inner->ranks <= sysconf(_SC_NPROCESSORS_ONLN) ? SPIN_NS : 0};
        code = map_all(inner, CONTROL_BYTES + 2 * half, &s->memory, err);
    }
    if (code || !s) {
        lk_free(s);
        return code;
    }
    *out = &s->c;
    return LK_OK;
}

int lk__comm_shared_open(struct lk_comm *inner, struct lk_comm **out, struct lk_err *err) {
    int code = wrap(inner, out, err);
    return code && code != LK_EIO ? LK_EUNSUPPORTED : code;
}
