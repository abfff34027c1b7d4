/* The engine `local`: ranks on this machine, through mpirun. Starts them, passes a stop on, and when one dies says which
 * and sees that none is left. */
#include "cluster/announce.h"
#include "cluster/launch.h"
#include "cluster/launch_mpirun.h"
#include "lockstep/base/mem.h"
#include "lockstep/base/progress.h"
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define LOOK_MS     100                     /* how often stop is asked */
#define START_MS    20                      /* the same until all ranks run */
#define WAIT_NS     ((uint64_t)5000000000)  /* a stop waits so long for ranks to come up and be able to take it */
#define RANKS_NS    ((uint64_t)2700000000)  /* after a death mpirun has so long to end the others (it takes 2.1 s), */
#define KILL_NS     ((uint64_t)3700000000)  /* and so long to end itself */
#define NOBODY_NS   ((uint64_t)60000000000) /* the first rank has so long to come up, under a small limit WAIT_NS */
#define SAME_NS     ((uint64_t)500000000)   /* deaths so close are one */

#define SMALL_STACK ((rlim_t)1 << 20) /* bytes; mpirun needs some hundred KiB */

struct member {
    pid_t process; /* 0 before it has told us */
    int fd;        /* pidfd, readable when it has ended; -1 when we have none */
    bool ended, noted;
};
struct launch {
    int ranks;
    struct lk__launch_mpirun mpirun;
    int mpirun_status;
    struct member *members;       /* (ranks) */
    struct pollfd *polls;         /* (ranks + 1): theirs, then mpirun's */
    struct lk_rank_state *states; /* (ranks): what poll tells */
    int known;
    /* the first rank that ended badly; -1 while none has, and when several had at our first look */
    int bad;
    bool bad_left;
    int bad_status;
    uint64_t began_ns, bad_ns, mpirun_ended_ns;      /* bad_ns: the first bad end; 0: none */
    uint64_t stop_ns, kill_ns;                       /* a stop is wanted since, a kill from then on; 0: none */
    bool stop_sent, ranks_killed, kill_sent, nobody; /* nobody: no rank ever came */
    bool ended, stopped;                             /* stopped: killed because the caller wanted it */
};

static void free_launch(struct launch *x) {
    for (int r = 0; x->members && r < x->ranks; r++)
        if (x->members[r].fd >= 0) close(x->members[r].fd);
    lk__launch_mpirun_release(&x->mpirun);
    lk_free(x->members);
    lk_free(x->polls);
    lk_free(x->states);
    lk_free(x);
}

/* --- watching -------------------------------------------------------------------------------------------- */

/* Who ends first is the cause: the others end because mpirun ends them. Of several that had all ended when we looked, only
 * mpirun knows who that was. */
static void note_ends(struct launch *x) {
    int count = 0, bad = -1, bad_status = 0;
    bool bad_left = false;
    for (int r = 0; r < x->ranks; r++) {
        struct member *m = &x->members[r];
        int status = 0;
        if (!m->ended || m->noted) continue;
        m->noted = true;
        bool left = lk__launch_left(x->mpirun.dir, r, &status);
        if (left && status == 0) continue;
        count++;
        bad = r;
        bad_left = left;
        bad_status = status;
    }
    if (count == 0 || x->bad_ns) return;
    x->bad_ns = lk_clock_ns();
    if (count > 1) return;
    x->bad = bad;
    x->bad_left = bad_left;
    x->bad_status = bad_status;
}

/* Opens a rank's pidfd. Its number may be another's by now: in mpirun's session there are only our ranks. ESRCH: the rank
 * ended between its word and our look, or between our two looks. Without pidfd (Linux 5.3) no rank can be named. */
static void watch(struct launch *x, struct member *m) {
    m->fd = (int)syscall(SYS_pidfd_open, m->process, 0);
    pid_t session = m->fd < 0 ? -1 : getsid(m->process);
    m->ended = session < 0 && errno == ESRCH;
    if (m->fd < 0 || session == x->mpirun.process) return;
    close(m->fd);
    m->fd = -1;
}

static void meet_ranks(struct launch *x) {
    for (int r = 0; x->known < x->ranks && r < x->ranks; r++) {
        struct member *m = &x->members[r];
        if (m->process || !(m->process = lk__launch_process(x->mpirun.dir, r))) continue;
        x->known++;
        watch(x, m);
    }
    note_ends(x);
}

static void look_at_ranks(struct launch *x, int timeout_ms) {
    for (int r = 0; r < x->ranks; r++) {
        struct member *m = &x->members[r];
        x->polls[r] = (struct pollfd){.fd = m->ended ? -1 : m->fd, .events = POLLIN};
    }
    x->polls[x->ranks] = (struct pollfd){.fd = x->mpirun.fd, .events = POLLIN};
    if (poll(x->polls, (nfds_t)x->ranks + 1, timeout_ms) <= 0) return;
    for (int r = 0; r < x->ranks; r++) x->members[r].ended |= x->polls[r].revents != 0;
    note_ends(x);
}

static void kill_ranks(const struct launch *x) {
    for (int r = 0; r < x->ranks; r++)
        if (x->members[r].fd >= 0 && !x->members[r].ended)
            (void)syscall(SYS_pidfd_send_signal, x->members[r].fd, SIGKILL, NULL, 0);
}

/* Open MPI hands SIGUSR1 on to all ranks. To one that does not run yet it would be deadly. */
static void pass_stop(struct launch *x, uint64_t now) {
    uint64_t most = x->known == 0 && lk__launch_mpirun_limited(x->ranks, NULL) ? WAIT_NS : NOBODY_NS;
    if (x->known == 0 && !x->nobody && ((x->stop_ns && now - x->stop_ns > WAIT_NS) || now - x->began_ns > most)) {
        lk__launch_mpirun_signal(&x->mpirun,
                                 SIGKILL); /* it hangs without a rank: too few file descriptors do that to Open MPI 4.1 */
        x->nobody = x->stop_sent = true;
        return;
    }
    if (x->stop_sent || !x->stop_ns || (x->known < x->ranks && now - x->stop_ns < WAIT_NS)) return;
    lk__launch_mpirun_signal(&x->mpirun, SIGUSR1);
    x->stop_sent = true;
}

/* mpirun sees a death itself and ends the others; if it does not, we do. No SIGTERM to mpirun: Open MPI 4.1 crashes when
 * that comes while it is ending already. */
static void end_rest(struct launch *x, uint64_t now) {
    if (x->bad_ns && now - x->bad_ns > RANKS_NS && !x->ranks_killed) {
        kill_ranks(x);
        x->ranks_killed = true;
    }
    bool late = x->bad_ns && now - x->bad_ns > KILL_NS, stopped = x->kill_ns && now >= x->kill_ns;
    if ((late || stopped) && !x->kill_sent) {
        kill_ranks(x); /* some may have come since */
        lk__launch_mpirun_signal(&x->mpirun, SIGKILL);
        x->kill_sent = true;
        x->stopped = !late;
    }
}

/* mpirun has ended: who was first, and is there anybody left? Killed itself, it leaves ranks behind. */
static void clear_up(struct launch *x) {
    x->ended = true;
    x->mpirun_ended_ns = lk_clock_ns();
    if (x->mpirun.fd >= 0) close(x->mpirun.fd);
    x->mpirun.fd = -1;
    meet_ranks(x);
    look_at_ranks(x, 0);
    kill_ranks(x);
    for (int i = 0; i < 20; i++) {
        int alive = 0;
        for (int r = 0; r < x->ranks; r++) alive += x->members[r].fd >= 0 && !x->members[r].ended;
        if (!alive) break;
        look_at_ranks(x, LOOK_MS);
    }
}

/* --- what it came to ------------------------------------------------------------------------------------- */

static bool one_left_with(const struct launch *x, int status) {
    int own;
    for (int r = 0; r < x->ranks; r++)
        if (lk__launch_left(x->mpirun.dir, r, &own) && own == status) return true;
    return false;
}

/* mpirun's own status is that of the first rank that failed, 128 + the signal that killed it. */
static int judge_ends(const struct launch *x, int *status, struct lk_err *err) {
    bool whole = WIFEXITED(x->mpirun_status);
    int said = whole ? WEXITSTATUS(x->mpirun_status) : 0, signal_number = said > 128 && said < 128 + 65 ? said - 128 : 0;
    *status = said;
    if (whole && said == 0) return LK_OK;
    if (x->nobody) {
        *status = -1;
        return lk_fail(err, LK_EIO, "mpirun started no rank; `mpirun -n %d true` shows what is in its way", x->ranks);
    }
    if (x->bad >= 0 && x->bad_left) {
        *status = x->bad_status;
        return LK_OK;
    }
    /* Of ranks that ended between two looks of ours, mpirun knows the first: it left with this status, the others were
     * ended. */
    if (whole && said && !signal_number && one_left_with(x, said)) return LK_OK;
    /* When mpirun is killed the ranks are dead with it; one that died long before was the cause, whatever became of mpirun.
     */
    bool rank_first = x->bad_ns && x->mpirun_ended_ns > x->bad_ns + SAME_NS;
    if (!whole && !rank_first) {
        int n = WTERMSIG(x->mpirun_status);
        struct rlimit stack;
        lk_fail(err, LK_EIO, "mpirun was killed by signal %d (%s); the ranks were ended", n, strsignal(n));
        if (n == SIGSEGV && getrlimit(RLIMIT_STACK, &stack) == 0 && stack.rlim_cur < SMALL_STACK)
            lk_fail(err, LK_EIO, "mpirun was killed by signal %d (%s): its stack may have %llu KiB (ulimit -s)", n,
                    strsignal(n), (unsigned long long)stack.rlim_cur >> 10);
        return LK_EIO;
    }
    if (whole && said == 127 && x->known == 0) return lk_fail(err, LK_EIO, "%s could not be run", x->mpirun.path);
    /* A rank that failed before it joined the others has said why. */
    if (x->known < x->ranks && said && !signal_number) return LK_OK;
    if (!x->bad_ns && !signal_number) return LK_OK;
    char who[64] = "a rank", others[64] = "";
    if (x->bad >= 0) snprintf(who, sizeof who, "rank %d (process %d)", x->bad, (int)x->members[x->bad].process);
    if (x->ranks > 1) snprintf(others, sizeof others, "; the other %s ended", x->ranks > 2 ? "ranks were" : "rank was");
    if (signal_number)
        return lk_fail(err, LK_EIO, "%s was killed by signal %d (%s)%s", who, signal_number, strsignal(signal_number),
                       others);
    return lk_fail(err, LK_EIO, "%s died%s", who, others);
}

/* Open MPI says what it could not do, in its words, but not which limit stood in its way. */
static int judge(const struct launch *x, int *status, struct lk_err *err) {
    struct lk_err why;
    int code = judge_ends(x, status, err);
    bool spoke = x->known == x->ranks || *status == 0; /* who joined the others says itself why it failed */
    if ((code == LK_OK && spoke) || !lk__launch_mpirun_limited(x->ranks, &why)) return code;
    if (code == LK_OK) code = lk_fail(err, LK_EIO, "mpirun ended with status %d", *status);
    size_t used = strlen(err->message);
    snprintf(err->message + used, sizeof err->message - used, "; %s", why.message);
    return code;
}

/* --- the engine ------------------------------------------------------------------------------------------ */

static int local_open(const char *rest, int *ranks, void **where, struct lk_err *err) {
    char *end;
    (void)where;
    long n = *rest >= '0' && *rest <= '9' ? strtol(rest, &end, 10) : 0;
    if (n < 1 || n > LK_RANKS_MAX || *end) return lk_fail(err, LK_EINVAL, "%s is no number of ranks", rest);
    *ranks = (int)n;
    return LK_OK;
}

static int local_submit(void *where, const struct lk_launch_spec *spec, void **job, char *id, struct lk_err *err) {
    struct launch *x = lk_calloc(1, sizeof *x);
    (void)where;
    if (!x) return lk_fail(err, LK_ENOMEM, "out of memory for the start of %d ranks", spec->ranks);
    x->ranks = spec->ranks;
    x->bad = x->mpirun.fd = -1;
    x->members = lk_calloc((size_t)x->ranks, sizeof *x->members);
    x->polls = lk_calloc((size_t)x->ranks + 1, sizeof *x->polls);
    x->states = lk_calloc((size_t)x->ranks, sizeof *x->states);
    int code = LK_OK;
    for (int r = 0; x->members && r < x->ranks; r++) x->members[r].fd = -1;
    if (!x->members || !x->polls || !x->states)
        code = lk_fail(err, LK_ENOMEM, "out of memory for the start of %d ranks", x->ranks);
    if (!code) code = lk__launch_mpirun_prepare(&x->mpirun, spec, err);
    if (!code) code = lk__launch_mpirun_start(&x->mpirun, err);
    if (code) {
        free_launch(x);
        return code;
    }
    x->began_ns = lk_clock_ns();
    snprintf(id, LK_JOB_ID, "%d", (int)x->mpirun.process);
    *job = x;
    return LK_OK;
}

static void tell(struct launch *x, struct lk_job_state *out) {
    for (int r = 0; r < x->ranks; r++) {
        const struct member *m = &x->members[r];
        struct lk_rank_state *s = &x->states[r];
        bool gone = m->ended || x->ended;
        s->process = m->process;
        s->status = 0;
        if (!gone)
            s->phase = m->process ? LK_RANK_RUNNING : LK_RANK_PENDING;
        else
            s->phase = lk__launch_left(x->mpirun.dir, r, &s->status) ? LK_RANK_EXITED : LK_RANK_DIED;
    }
    out->ranks = x->states;
    out->first_failed = x->bad;
    out->ended = x->ended;
    if (!x->ended) return;
    out->status = 128 + SIGKILL;
    if (x->stopped)
        lk_fail(&out->cause, LK_ESTOPPED, "the ranks were killed, as they did not stop in time");
    else
        (void)judge(x, &out->status, &out->cause);
}

static int local_poll(void *job, int timeout_ms, struct lk_job_state *out, struct lk_err *err) {
    struct launch *x = job;
    int most = x->known < x->ranks ? START_MS : LOOK_MS;
    if (!x->ended) {
        pid_t ended = waitpid(x->mpirun.process, &x->mpirun_status, WNOHANG);
        if (ended < 0 && errno != EINTR)
            return lk_fail_errno(err, "lost mpirun (process %d): SIGCHLD is ignored, or something else has waited for it",
                                 (int)x->mpirun.process);
        if (ended > 0) clear_up(x);
    }
    if (!x->ended) {
        meet_ranks(x);
        uint64_t now = lk_clock_ns();
        pass_stop(x, now);
        end_rest(x, now);
        look_at_ranks(x, timeout_ms < most ? timeout_ms : most);
    }
    tell(x, out);
    return LK_OK;
}

static int local_signal(void *job, struct lk_err *err) {
    struct launch *x = job;
    (void)err;
    if (!x->stop_ns) x->stop_ns = lk_clock_ns();
    return LK_OK;
}

static int local_stop(void *job, uint64_t grace_ms, struct lk_err *err) {
    struct launch *x = job;
    if (grace_ms) (void)local_signal(job, err);
    uint64_t now = lk_clock_ns(), most = (UINT64_MAX - now) / 1000000;
    x->kill_ns = now + (grace_ms < most ? grace_ms : most) * 1000000;
    return LK_OK;
}

static void local_release(void *job) {
    struct launch *x = job;
    if (!x->ended) {
        kill_ranks(x);
        lk__launch_mpirun_signal(&x->mpirun, SIGKILL);
        while (waitpid(x->mpirun.process, &x->mpirun_status, 0) < 0 && errno == EINTR) {}
        clear_up(x);
    }
    free_launch(x);
}

#define TEXT(X)  #X
#define VALUE(X) TEXT(X)
const struct lk_launch_ops lk__launch_local = {.name = "local",
                                               .usage = "local:N, N ranks on this machine, 1 to " VALUE(LK_RANKS_MAX),
                                               .open = local_open,
                                               .submit = local_submit,
                                               .poll = local_poll,
                                               .signal = local_signal,
                                               .stop = local_stop,
                                               .release = local_release};
