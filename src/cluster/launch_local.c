/* Ranks on this machine, through mpirun: start them, pass a stop on, and when one dies say which and see that none is left.
 */
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
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

#define LOOK_MS   100                     /* how often stop is asked */
#define START_MS  20                      /* the same until all ranks run */
#define WAIT_NS   ((uint64_t)5000000000)  /* a stop waits so long for ranks to come up and be able to take it */
#define RANKS_NS  ((uint64_t)2700000000)  /* after a death mpirun has so long to end the others (it takes 2.1 s), */
#define KILL_NS   ((uint64_t)3700000000)  /* and so long to end itself */
#define NOBODY_NS ((uint64_t)60000000000) /* the first rank has so long to come up */
#define SAME_NS   ((uint64_t)500000000)   /* deaths so close are one */

struct member {
    pid_t process; /* 0 before it has told us */
    int fd;        /* readable when it has ended; -1 when we have none */
    bool ended;
};
struct launch {
    const struct lk_launch *l;
    char *dir; /* private; LOCKSTEP_LAUNCH of the ranks */
    char *mpirun;
    char **argv, **env; /* of mpirun; what is ours of them is in `owned` */
    char *owned[16];
    int owned_count;
    pid_t child;
    int child_fd; /* readable when it has ended; -1 when we have none */
    int child_status;
    struct member *members; /* (ranks) */
    struct pollfd *polls;   /* (ranks + 1): theirs, then mpirun's */
    int known;
    /* the first rank that ended badly; -1 while none has */
    int bad;
    bool bad_left;
    int bad_status;
    uint64_t began_ns, bad_ns, stop_ns, child_ended_ns;
    bool stop_sent, ranks_killed, kill_sent, nobody; /* nobody: no rank ever came */
};

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

static int make_environment(struct launch *x) {
    size_t count = 0, at = 0;
    while (environ[count]) count++;
    x->env = lk_calloc(count + sizeof x->owned / sizeof *x->owned + 1, sizeof *x->env);
    if (!x->env) return LK_ENOMEM;
    for (size_t i = 0; i < count; i++)
        if (!of_another_job(environ[i])) x->env[at++] = environ[i];
    int first = x->owned_count;
    int code = own(x, lk_asprintf("LOCKSTEP_LAUNCH=%s", x->dir));
    /* mpirun refuses to serve root, who in containers is everybody. */
    if (!code) code = own(x, lk_strdup("OMPI_ALLOW_RUN_AS_ROOT=1"));
    if (!code) code = own(x, lk_strdup("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1"));
    if (!code && !direct_copies_work() && !getenv("OMPI_MCA_btl_vader_single_copy_mechanism"))
        code = own(x, lk_strdup("OMPI_MCA_btl_vader_single_copy_mechanism=none"));
    if (!code && isatty(STDERR_FILENO) == 1) code = own(x, lk_strdup("LOCKSTEP_PROGRESS=bar"));
    for (int i = first; i < x->owned_count; i++) x->env[at++] = x->owned[i];
    return code;
}

static int make_arguments(struct launch *x) {
    static const char *const options[] = {"--quiet", "--oversubscribe", "--bind-to", "none", "--mca",
                                          "plm",     "isolated",        "-n"};
    size_t fixed = sizeof options / sizeof *options, own_count = 0;
    while (x->l->argv[own_count]) own_count++;
    x->argv = lk_calloc(fixed + own_count + 3, sizeof *x->argv);
    if (!x->argv || own(x, lk_asprintf("%d", x->l->ranks))) return LK_ENOMEM;
    x->argv[0] = x->mpirun;
    for (size_t i = 0; i < fixed; i++) x->argv[1 + i] = (char *)(uintptr_t)options[i]; /* exec changes none */
    x->argv[1 + fixed] = x->owned[x->owned_count - 1];
    for (size_t i = 0; i < own_count; i++) x->argv[2 + fixed + i] = x->l->argv[i];
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

static int prepare(struct launch *x, struct lk_err *err) {
    char *part = NULL;
    x->mpirun = find_in_path("mpirun.openmpi"); /* another MPI may own the plain name */
    if (!x->mpirun) x->mpirun = find_in_path("mpirun");
    if (!x->mpirun)
        return lk_fail(err, LK_EUNSUPPORTED, "%d ranks need mpirun, which is not in PATH: install openmpi-bin",
                       x->l->ranks);
    int code = lk__comm_mpi_find(&part, err); /* said once here rather than by every rank */
    lk_free(part);
    if (code) return code;
    if (access(x->l->argv[0], X_OK)) return lk_fail_errno(err, "cannot run %s", x->l->argv[0]);
    code = make_dir(x, err);
    if (code) return code;
    x->members = lk_calloc((size_t)x->l->ranks, sizeof *x->members);
    x->polls = lk_calloc((size_t)x->l->ranks + 1, sizeof *x->polls);
    if (!x->members || !x->polls || make_environment(x) || make_arguments(x))
        return lk_fail(err, LK_ENOMEM, "out of memory for the start of %d ranks", x->l->ranks);
    for (int r = 0; r < x->l->ranks; r++) x->members[r].fd = -1;
    return LK_OK;
}

static void release(struct launch *x) {
    for (int r = 0; x->members && r < x->l->ranks; r++)
        if (x->members[r].fd >= 0) close(x->members[r].fd);
    if (x->dir) lk_dir_remove(x->dir, NULL);
    for (int i = 0; i < x->owned_count; i++) lk_free(x->owned[i]);
    lk_free(x->dir);
    lk_free(x->mpirun);
    lk_free(x->argv);
    lk_free(x->env);
    lk_free(x->members);
    lk_free(x->polls);
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
    for (int r = 0; x->known < x->l->ranks && r < x->l->ranks; r++) {
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
    for (int r = 0; r < x->l->ranks; r++) {
        struct member *m = &x->members[r];
        x->polls[r] = (struct pollfd){.fd = m->ended ? -1 : m->fd, .events = POLLIN};
    }
    x->polls[x->l->ranks] = (struct pollfd){.fd = x->child_fd, .events = POLLIN};
    if (poll(x->polls, (nfds_t)x->l->ranks + 1, timeout_ms) <= 0) return;
    for (int r = 0; r < x->l->ranks; r++) {
        if (!x->polls[r].revents) continue;
        x->members[r].ended = true;
        note_end(x, r);
    }
}

static void kill_ranks(const struct launch *x) {
    for (int r = 0; r < x->l->ranks; r++)
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
    if (x->stop_sent || !x->l->stop) return;
    if (!x->stop_ns && x->l->stop(x->l->arg)) x->stop_ns = now;
    if (!x->stop_ns || (x->known < x->l->ranks && now - x->stop_ns < WAIT_NS)) return;
    kill(x->child, SIGUSR1);
    x->stop_sent = true;
}

/* mpirun sees a death itself and ends the others; if it does not, we do. No SIGTERM to mpirun: Open MPI 4.1 crashes when
 * that comes while it is ending already. */
static void end_rest(struct launch *x, uint64_t now) {
    if (x->bad < 0) return;
    if (now - x->bad_ns > RANKS_NS && !x->ranks_killed) {
        kill_ranks(x);
        x->ranks_killed = true;
    }
    if (now - x->bad_ns > KILL_NS && !x->kill_sent) {
        kill_ranks(x); /* some may have come since */
        kill(x->child, SIGKILL);
        x->kill_sent = true;
    }
}

static int run(struct launch *x, struct lk_err *err) {
    pid_t parent = getpid();
    fflush(NULL);
    x->child = fork();
    if (x->child < 0) return lk_fail_errno(err, "cannot start mpirun");
    if (x->child == 0) become_mpirun(x, parent);
    x->child_fd = (int)syscall(SYS_pidfd_open, x->child, 0);
    x->began_ns = lk_clock_ns();
    for (;;) {
        pid_t ended = waitpid(x->child, &x->child_status, WNOHANG);
        if (ended == x->child) break;
        if (ended < 0 && errno != EINTR) return lk_fail_errno(err, "lost mpirun");
        meet_ranks(x);
        uint64_t now = lk_clock_ns();
        pass_stop(x, now);
        end_rest(x, now);
        look_at_ranks(x, x->known < x->l->ranks ? START_MS : LOOK_MS);
    }
    x->child_ended_ns = lk_clock_ns();
    if (x->child_fd >= 0) close(x->child_fd);
    x->child_fd = -1;
    meet_ranks(x);
    look_at_ranks(x, 0);
    /* Killed itself, mpirun leaves ranks behind. */
    kill_ranks(x);
    for (int i = 0; i < 20; i++) {
        int alive = 0;
        for (int r = 0; r < x->l->ranks; r++) alive += x->members[r].fd >= 0 && !x->members[r].ended;
        if (!alive) break;
        look_at_ranks(x, LOOK_MS);
    }
    return LK_OK;
}

/* --- what it came to ------------------------------------------------------------------------------------- */

static bool one_left_with(const struct launch *x, int status) {
    int own;
    for (int r = 0; r < x->l->ranks; r++)
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
        return lk_fail(err, LK_EIO, "mpirun started no rank; `mpirun -n %d true` shows what is in its way", x->l->ranks);
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
        return lk_fail(err, LK_EIO, "mpirun was killed by signal %d (%s); the ranks were ended", n, strsignal(n));
    }
    if (whole && said == 127 && x->known == 0) return lk_fail(err, LK_EIO, "%s could not be run", x->mpirun);
    /* A rank that failed before it joined the others has said why. */
    if (x->known < x->l->ranks && said && !signal_number) return LK_OK;
    if (x->bad < 0 && !signal_number) return LK_OK;
    char who[64] = "a rank", others[64] = "";
    if (x->bad >= 0) snprintf(who, sizeof who, "rank %d (process %d)", x->bad, (int)x->members[x->bad].process);
    if (x->l->ranks > 1)
        snprintf(others, sizeof others, "; the other %s ended", x->l->ranks > 2 ? "ranks were" : "rank was");
    if (signal_number)
        return lk_fail(err, LK_EIO, "%s was killed by signal %d (%s)%s", who, signal_number, strsignal(signal_number),
                       others);
    return lk_fail(err, LK_EIO, "%s died%s", who, others);
}

int lk_launch_local(const struct lk_launch *l, int *status, struct lk_err *err) {
    LK_ASSERT(l->ranks >= 1 && l->argv && l->argv[0]);
    struct launch x = {.l = l, .bad = -1, .child_fd = -1};
    *status = -1;
    int code = prepare(&x, err);
    if (!code) code = run(&x, err);
    if (!code) code = judge(&x, status, err);
    release(&x);
    return code;
}
