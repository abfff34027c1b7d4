/* The engine `local`: ranks on this machine, through mpirun. Starts them, passes a stop on, and when one dies says which
 * and sees that none is left. */
#include "cluster/announce.h"
#include "cluster/comm.h"
#include "cluster/launch.h"
#include "lockstep/base/file.h"
#include "lockstep/base/progress.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

#define LOOK_MS     100                     /* how often stop is asked */
#define START_MS    20                      /* the same until all ranks run */
#define WAIT_NS     ((uint64_t)5000000000)  /* a stop waits so long for ranks to come up and be able to take it */
#define RANKS_NS    ((uint64_t)2700000000)  /* after a death mpirun has so long to end the others (it takes 2.1 s), */
#define KILL_NS     ((uint64_t)3700000000)  /* and so long to end itself */
#define NOBODY_NS   ((uint64_t)60000000000) /* the first rank has so long to come up */
#define SAME_NS     ((uint64_t)500000000)   /* deaths so close are one */

#define SMALL_STACK ((rlim_t)1 << 20) /* bytes; mpirun needs some hundred KiB */

struct member {
    pid_t process; /* 0 before it has told us */
    int fd;        /* readable when it has ended; -1 when we have none */
    bool ended;
};
struct launch {
    int ranks;
    char *dir; /* private; LOCKSTEP_LAUNCH of the ranks */
    char *mpirun;
    char **argv, **env; /* of mpirun, until it runs; what is ours of them is in `owned` */
    char *owned[16];
    int owned_count;
    pid_t child;
    int child_fd; /* readable when it has ended; -1 when we have none */
    int child_status;
    struct member *members;       /* (ranks) */
    struct pollfd *polls;         /* (ranks + 1): theirs, then mpirun's */
    struct lk_rank_state *states; /* (ranks): what poll tells */
    int known;
    /* the first rank that ended badly; -1 while none has */
    int bad;
    bool bad_left;
    int bad_status;
    uint64_t began_ns, bad_ns, child_ended_ns;
    uint64_t stop_ns, kill_ns;                       /* a stop is wanted since, a kill from then on; 0: none */
    bool stop_sent, ranks_killed, kill_sent, nobody; /* nobody: no rank ever came */
    bool ended, stopped;                             /* stopped: killed because the caller wanted it */
};

#define LOG_DIR "LOCKSTEP_LAUNCH_LOGS" /* variable of a rank that writes to a file */

/* --- what mpirun is given -------------------------------------------------------------------------------- */

static char *find_in_path(const char *name) {
    const char *path = getenv("PATH");
    while (path && *path) {
        size_t n = strcspn(path, ":");
        char *candidate = n ? lk_asprintf("%.*s/%s", (int)n, path, name) : lk_asprintf("./%s", name);
        if (candidate && access(candidate, X_OK) == 0) return candidate;
        lk_free(candidate);
        path += n + (path[n] == ':');
    }
    return NULL;
}

/* The job that we are ourselves a rank or a task of is not theirs; mpirun would look for its machines there. */
static bool of_another_job(const char *variable) {
    static const char *const prefixes[] = {"OMPI_COMM_WORLD_", "OMPI_MCA_orte_",  "OMPI_MCA_ess", "PMIX_", "PMI_",
                                           "SLURM_",           "LOCKSTEP_LAUNCH="};
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        if (strncmp(variable, prefixes[i], strlen(prefixes[i])) == 0) return true;
    return false;
}

/* Whether one process may read another's memory by process_vm_readv. Containers often forbid it, and then Open MPI
 * complains about every message instead of copying by other means. */
static bool direct_copies_work(void) {
    char from = 1, to = 0;
    struct iovec a = {&to, 1}, b = {&from, 1};
    return process_vm_readv(getpid(), &a, 1, &b, 1, 0) == 1;
}

static int own(struct launch *x, char *text) {
    if (!text) return LK_ENOMEM;
    x->owned[x->owned_count++] = text;
    return LK_OK;
}

/* Whether one of the spec's own says the same variable. */
static bool is_replaced(const char *variable, const char *const *env) {
    size_t size = strcspn(variable, "=") + 1;
    while (env && *env && strncmp(*env, variable, size)) env++;
    return env && *env;
}

static int make_environment(struct launch *x, const struct lk_launch_spec *spec) {
    size_t count = 0, at = 0, more = 0;
    while (environ[count]) count++;
    while (spec->env && spec->env[more]) more++;
    x->env = lk_calloc(count + more + sizeof x->owned / sizeof *x->owned + 1, sizeof *x->env);
    if (!x->env) return LK_ENOMEM;
    for (size_t i = 0; i < count; i++)
        if (!of_another_job(environ[i]) && !is_replaced(environ[i], spec->env) &&
            !(spec->memory_bytes && strncmp(environ[i], "LOCKSTEP_MEMORY_BYTES=", 22) == 0))
            x->env[at++] = environ[i];
    for (size_t i = 0; i < more; i++) x->env[at++] = (char *)(uintptr_t)spec->env[i]; /* exec changes none */
    int first = x->owned_count;
    int code = own(x, lk_asprintf("LOCKSTEP_LAUNCH=%s", x->dir));
    /* mpirun refuses to serve root, who in containers is everybody. */
    if (!code) code = own(x, lk_strdup("OMPI_ALLOW_RUN_AS_ROOT=1"));
    if (!code) code = own(x, lk_strdup("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1"));
    if (!code && !direct_copies_work() && !getenv("OMPI_MCA_btl_vader_single_copy_mechanism"))
        code = own(x, lk_strdup("OMPI_MCA_btl_vader_single_copy_mechanism=none"));
    if (!code && spec->memory_bytes)
        code = own(x, lk_asprintf("LOCKSTEP_MEMORY_BYTES=%llu", (unsigned long long)spec->memory_bytes));
    if (!code && spec->log_dir) code = own(x, lk_asprintf(LOG_DIR "=%s", spec->log_dir));
    if (!code && !spec->log_dir && isatty(STDERR_FILENO) == 1) code = own(x, lk_strdup("LOCKSTEP_PROGRESS=bar"));
    for (int i = first; i < x->owned_count; i++) x->env[at++] = x->owned[i];
    return code;
}

/* Becomes the program, with its output at the end of a file of the rank's. */
static const char to_a_log[] = "exec \"$0\" \"$@\" >>\"$" LOG_DIR "/$OMPI_COMM_WORLD_RANK.log\" 2>&1";

static int make_arguments(struct launch *x, const struct lk_launch_spec *spec) {
    static const char *const options[] = {"--quiet", "--oversubscribe", "--bind-to", "none", "--mca",
                                          "plm",     "isolated",        "-n"};
    static const char *const shell[] = {"/bin/sh", "-c", to_a_log};
    size_t fixed = sizeof options / sizeof *options, own_count = 0, at = 0;
    while (spec->argv[own_count]) own_count++;
    x->argv = lk_calloc(fixed + own_count + 6, sizeof *x->argv);
    if (!x->argv || own(x, lk_asprintf("%d", x->ranks))) return LK_ENOMEM;
    x->argv[at++] = x->mpirun;
    for (size_t i = 0; i < fixed; i++) x->argv[at++] = (char *)(uintptr_t)options[i]; /* exec changes none */
    x->argv[at++] = x->owned[x->owned_count - 1];
    for (size_t i = 0; i < 3 && spec->log_dir; i++) x->argv[at++] = (char *)(uintptr_t)shell[i];
    for (size_t i = 0; i < own_count; i++) x->argv[at++] = spec->argv[i];
    return LK_OK;
}

static int make_dir(struct launch *x, struct lk_err *err) {
    const char *top = getenv("TMPDIR");
    if (!top || !*top) top = "/tmp";
    x->dir = lk_asprintf("%s/lockstep-XXXXXX", top);
    if (!x->dir) return lk_fail(err, LK_ENOMEM, "out of memory");
    if (mkdtemp(x->dir)) return LK_OK;
    int code = lk_fail(err, LK_EIO, "cannot make a folder in %s: %s (TMPDIR names another place)", top, strerror(errno));
    lk_free(x->dir);
    x->dir = NULL;
    return code;
}

static int prepare(struct launch *x, const struct lk_launch_spec *spec, struct lk_err *err) {
    char *part = NULL;
    x->mpirun = find_in_path("mpirun.openmpi"); /* another MPI may own the plain name */
    if (!x->mpirun) x->mpirun = find_in_path("mpirun");
    if (!x->mpirun)
        return lk_fail(err, LK_EUNSUPPORTED, "%d ranks need mpirun, which is not in PATH: install openmpi-bin", x->ranks);
    int code = lk__comm_mpi_find(&part, err); /* said once here rather than by every rank */
    lk_free(part);
    if (code) return code;
    if (access(spec->argv[0], X_OK)) return lk_fail_errno(err, "cannot run %s", spec->argv[0]);
    if (spec->log_dir && access(spec->log_dir, W_OK)) return lk_fail_errno(err, "cannot write logs to %s", spec->log_dir);
    code = make_dir(x, err);
    if (code) return code;
    x->members = lk_calloc((size_t)x->ranks, sizeof *x->members);
    x->polls = lk_calloc((size_t)x->ranks + 1, sizeof *x->polls);
    x->states = lk_calloc((size_t)x->ranks, sizeof *x->states);
    if (!x->members || !x->polls || !x->states || make_environment(x, spec) || make_arguments(x, spec))
        return lk_fail(err, LK_ENOMEM, "out of memory for the start of %d ranks", x->ranks);
    for (int r = 0; r < x->ranks; r++) x->members[r].fd = -1;
    return LK_OK;
}

static void free_launch(struct launch *x) {
    for (int r = 0; x->members && r < x->ranks; r++)
        if (x->members[r].fd >= 0) close(x->members[r].fd);
    if (x->dir) lk_dir_remove(x->dir, NULL);
    for (int i = 0; i < x->owned_count; i++) lk_free(x->owned[i]);
    lk_free(x->dir);
    lk_free(x->mpirun);
    lk_free(x->argv);
    lk_free(x->env);
    lk_free(x->members);
    lk_free(x->polls);
    lk_free(x->states);
    lk_free(x);
}

/* --- running --------------------------------------------------------------------------------------------- */

/* In a session of its own: Ctrl-C reaches only us, and we pass it on in our way. When we die, mpirun is told to end and
 * ends its ranks. Only what is safe between fork and exec. */
static void become_mpirun(const struct launch *x, pid_t parent) {
    sigset_t none;
    sigemptyset(&none);
    setsid();
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) _exit(127);
    int null = open("/dev/null", O_RDONLY);
    if (null >= 0) dup2(null, STDIN_FILENO);
    if (null > STDERR_FILENO) close(null);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execve(x->mpirun, x->argv, x->env);
    _exit(127);
}

static void meet_ranks(struct launch *x) {
    for (int r = 0; x->known < x->ranks && r < x->ranks; r++) {
        struct member *m = &x->members[r];
        if (m->process || !(m->process = lk__launch_process(x->dir, r))) continue;
        x->known++;
        m->fd = (int)syscall(SYS_pidfd_open, m->process, 0);
        /* It ended between its word and our look; without pidfd (Linux 5.3) no rank can be named. */
        if (m->fd < 0 && errno == ESRCH) m->ended = true;
    }
}

/* Who ends first is the cause: the others end because mpirun ends them. */
static void note_end(struct launch *x, int rank) {
    int status = 0;
    bool left = lk__launch_left(x->dir, rank, &status);
    if (x->bad >= 0 || (left && status == 0)) return;
    x->bad = rank;
    x->bad_left = left;
    x->bad_status = status;
    x->bad_ns = lk_clock_ns();
}

static void look_at_ranks(struct launch *x, int timeout_ms) {
    for (int r = 0; r < x->ranks; r++) {
        struct member *m = &x->members[r];
        x->polls[r] = (struct pollfd){.fd = m->ended ? -1 : m->fd, .events = POLLIN};
    }
    x->polls[x->ranks] = (struct pollfd){.fd = x->child_fd, .events = POLLIN};
    if (poll(x->polls, (nfds_t)x->ranks + 1, timeout_ms) <= 0) return;
    for (int r = 0; r < x->ranks; r++) {
        if (!x->polls[r].revents) continue;
        x->members[r].ended = true;
        note_end(x, r);
    }
}

static void kill_ranks(const struct launch *x) {
    for (int r = 0; r < x->ranks; r++)
        if (x->members[r].fd >= 0 && !x->members[r].ended)
            (void)syscall(SYS_pidfd_send_signal, x->members[r].fd, SIGKILL, NULL, 0);
}

/* Open MPI hands SIGUSR1 on to all ranks. To one that does not run yet it would be deadly. */
static void pass_stop(struct launch *x, uint64_t now) {
    if (x->known == 0 && !x->nobody && ((x->stop_ns && now - x->stop_ns > WAIT_NS) || now - x->began_ns > NOBODY_NS)) {
        kill(x->child, SIGKILL); /* it hangs without a rank: too few file descriptors do that to Open MPI 4.1 */
        x->nobody = x->stop_sent = true;
        return;
    }
    if (x->stop_sent || !x->stop_ns || (x->known < x->ranks && now - x->stop_ns < WAIT_NS)) return;
    kill(x->child, SIGUSR1);
    x->stop_sent = true;
}

/* mpirun sees a death itself and ends the others; if it does not, we do. No SIGTERM to mpirun: Open MPI 4.1 crashes when
 * that comes while it is ending already. */
static void end_rest(struct launch *x, uint64_t now) {
    if (x->bad >= 0 && now - x->bad_ns > RANKS_NS && !x->ranks_killed) {
        kill_ranks(x);
        x->ranks_killed = true;
    }
    bool late = x->bad >= 0 && now - x->bad_ns > KILL_NS, stopped = x->kill_ns && now >= x->kill_ns;
    if ((late || stopped) && !x->kill_sent) {
        kill_ranks(x); /* some may have come since */
        kill(x->child, SIGKILL);
        x->kill_sent = true;
        x->stopped = !late;
    }
}

static int start(struct launch *x, struct lk_err *err) {
    pid_t parent = getpid();
    fflush(NULL);
    x->child = fork();
    if (x->child < 0) return lk_fail_errno(err, "cannot start mpirun");
    if (x->child == 0) become_mpirun(x, parent);
    x->child_fd = (int)syscall(SYS_pidfd_open, x->child, 0);
    x->began_ns = lk_clock_ns();
    return LK_OK;
}

/* mpirun has ended: who was first, and is there anybody left? Killed itself, it leaves ranks behind. */
static void clear_up(struct launch *x) {
    x->ended = true;
    x->child_ended_ns = lk_clock_ns();
    if (x->child_fd >= 0) close(x->child_fd);
    x->child_fd = -1;
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
        if (lk__launch_left(x->dir, r, &own) && own == status) return true;
    return false;
}

/* mpirun's own status is that of the first rank that failed, 128 + the signal that killed it. */
static int judge(const struct launch *x, int *status, struct lk_err *err) {
    bool whole = WIFEXITED(x->child_status);
    int said = whole ? WEXITSTATUS(x->child_status) : 0, signal_number = said > 128 && said < 128 + 65 ? said - 128 : 0;
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
    bool rank_first = x->bad >= 0 && x->child_ended_ns > x->bad_ns + SAME_NS;
    if (!whole && !rank_first) {
        int n = WTERMSIG(x->child_status);
        struct rlimit stack;
        lk_fail(err, LK_EIO, "mpirun was killed by signal %d (%s); the ranks were ended", n, strsignal(n));
        if (n == SIGSEGV && getrlimit(RLIMIT_STACK, &stack) == 0 && stack.rlim_cur < SMALL_STACK)
            lk_fail(err, LK_EIO, "mpirun was killed by signal %d (%s): its stack may have %llu KiB (ulimit -s)", n,
                    strsignal(n), (unsigned long long)stack.rlim_cur >> 10);
        return LK_EIO;
    }
    if (whole && said == 127 && x->known == 0) return lk_fail(err, LK_EIO, "%s could not be run", x->mpirun);
    /* A rank that failed before it joined the others has said why. */
    if (x->known < x->ranks && said && !signal_number) return LK_OK;
    if (x->bad < 0 && !signal_number) return LK_OK;
    char who[64] = "a rank", others[64] = "";
    if (x->bad >= 0) snprintf(who, sizeof who, "rank %d (process %d)", x->bad, (int)x->members[x->bad].process);
    if (x->ranks > 1) snprintf(others, sizeof others, "; the other %s ended", x->ranks > 2 ? "ranks were" : "rank was");
    if (signal_number)
        return lk_fail(err, LK_EIO, "%s was killed by signal %d (%s)%s", who, signal_number, strsignal(signal_number),
                       others);
    return lk_fail(err, LK_EIO, "%s died%s", who, others);
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
    x->bad = x->child_fd = -1;
    int code = prepare(x, spec, err);
    if (!code) code = start(x, err);
    if (code) {
        free_launch(x);
        return code;
    }
    snprintf(id, LK_JOB_ID, "%d", (int)x->child);
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
            s->phase = lk__launch_left(x->dir, r, &s->status) ? LK_RANK_EXITED : LK_RANK_DIED;
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
        pid_t ended = waitpid(x->child, &x->child_status, WNOHANG);
        if (ended < 0 && errno != EINTR) return lk_fail_errno(err, "lost mpirun");
        if (ended == x->child) clear_up(x);
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
        kill(x->child, SIGKILL);
        while (waitpid(x->child, &x->child_status, 0) < 0 && errno == EINTR) {}
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
