/* What mpirun is given to start the ranks of a job on this machine, and its process. */
#include "cluster/launch_mpirun.h"
#include "cluster/comm.h"
#include "lockstep/base/file.h"
#include <errno.h>
#include <fcntl.h>
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

/* Open MPI 4.1 was seen to need 28 files and 5 more a rank, files of 4 MiB, and 8 processes and threads and 4 more a rank
 * (what the user runs besides counts too, and is not known here). The usual limit of 1,024 files is enough for 128 ranks,
 * which then have the usual time to come up. */
#define FILES_LEAST(ranks)     ((rlim_t)(32 + 6 * (ranks)))
#define FILE_BYTES_LEAST       ((rlim_t)5 << 20)
#define PROCESSES_LEAST(ranks) ((rlim_t)(16 + 6 * (ranks)))

#define LOG_DIR                "LOCKSTEP_LAUNCH_LOGS" /* variable of a rank that writes to a file */

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

static int own(struct lk__launch_mpirun *x, char *text) {
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

static int make_environment(struct lk__launch_mpirun *x, const struct lk_launch_spec *spec) {
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

static int make_arguments(struct lk__launch_mpirun *x, const struct lk_launch_spec *spec) {
    static const char *const options[] = {"--quiet", "--oversubscribe", "--bind-to", "none", "--mca",
                                          "plm",     "isolated",        "-n"};
    static const char *const shell[] = {"/bin/sh", "-c", to_a_log};
    size_t fixed = sizeof options / sizeof *options, own_count = 0, at = 0;
    while (spec->argv[own_count]) own_count++;
    x->argv = lk_calloc(fixed + own_count + 6, sizeof *x->argv);
    if (!x->argv || own(x, lk_asprintf("%d", spec->ranks))) return LK_ENOMEM;
    x->argv[at++] = x->path;
    for (size_t i = 0; i < fixed; i++) x->argv[at++] = (char *)(uintptr_t)options[i]; /* exec changes none */
    x->argv[at++] = x->owned[x->owned_count - 1];
    for (size_t i = 0; i < 3 && spec->log_dir; i++) x->argv[at++] = (char *)(uintptr_t)shell[i];
    for (size_t i = 0; i < own_count; i++) x->argv[at++] = spec->argv[i];
    return LK_OK;
}

static int make_dir(struct lk__launch_mpirun *x, struct lk_err *err) {
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

int lk__launch_mpirun_prepare(struct lk__launch_mpirun *x, const struct lk_launch_spec *spec, struct lk_err *err) {
    char *part = NULL;
    x->path = find_in_path("mpirun.openmpi"); /* another MPI may own the plain name */
    if (!x->path) x->path = find_in_path("mpirun");
    if (!x->path)
        return lk_fail(err, LK_EUNSUPPORTED, "%d ranks need mpirun, which is not in PATH: install openmpi-bin",
                       spec->ranks);
    int code = lk__comm_mpi_find(&part, err); /* said once here rather than by every rank */
    lk_free(part);
    if (code) return code;
    if (access(spec->argv[0], X_OK)) return lk_fail_errno(err, "cannot run %s", spec->argv[0]);
    if (spec->log_dir && access(spec->log_dir, W_OK)) return lk_fail_errno(err, "cannot write logs to %s", spec->log_dir);
    code = make_dir(x, err);
    if (code) return code;
    if (!make_environment(x, spec) && !make_arguments(x, spec)) return LK_OK;
    return lk_fail(err, LK_ENOMEM, "out of memory for the start of %d ranks", spec->ranks);
}

bool lk__launch_mpirun_limited(int ranks, struct lk_err *why) {
    struct rlimit files, bytes, processes;
    bool few = getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < FILES_LEAST(ranks);
    bool small = getrlimit(RLIMIT_FSIZE, &bytes) == 0 && bytes.rlim_cur < FILE_BYTES_LEAST;
    bool crowded = getrlimit(RLIMIT_NPROC, &processes) == 0 && processes.rlim_cur < PROCESSES_LEAST(ranks);
    errno = few ? EMFILE : small ? EFBIG : EAGAIN;
    if (few || small || crowded) lk_fail_errno(why, "Open MPI can need more than it may have");
    return few || small || crowded;
}

void lk__launch_mpirun_release(struct lk__launch_mpirun *x) {
    if (x->fd >= 0) close(x->fd);
    if (x->dir) lk_dir_remove(x->dir, NULL);
    for (int i = 0; i < x->owned_count; i++) lk_free(x->owned[i]);
    lk_free(x->dir);
    lk_free(x->path);
    lk_free(x->argv);
    lk_free(x->env);
}

/* --- its process ----------------------------------------------------------------------------------------- */

/* In a session of its own: Ctrl-C reaches only us, and we pass it on in our way. When we die, mpirun is told to end and
 * ends its ranks. Only what is safe between fork and exec. */
static void become_mpirun(const struct lk__launch_mpirun *x, pid_t parent) {
    sigset_t none;
    sigemptyset(&none);
    setsid();
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) _exit(127);
    int null = open("/dev/null", O_RDONLY);
    if (null >= 0) dup2(null, STDIN_FILENO);
    if (null > STDERR_FILENO) close(null);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execve(x->path, x->argv, x->env);
    _exit(127);
}

/* As long as we can wait for it, its number is nobody else's. */
static bool is_ours(const struct lk__launch_mpirun *x) {
    siginfo_t info;
    return waitid(P_PID, (id_t)x->process, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

int lk__launch_mpirun_start(struct lk__launch_mpirun *x, struct lk_err *err) {
    pid_t parent = getpid();
    fflush(NULL);
    x->process = fork();
    if (x->process < 0) return lk_fail_errno(err, "cannot start mpirun");
    if (x->process == 0) become_mpirun(x, parent);
    x->fd = (int)syscall(SYS_pidfd_open, x->process, 0);
    if (x->fd >= 0 && !is_ours(x)) { /* where SIGCHLD is ignored, it may be gone before we have looked */
        close(x->fd);
        x->fd = -1;
    }
    return LK_OK;
}

void lk__launch_mpirun_signal(const struct lk__launch_mpirun *x, int number) {
    if (x->fd >= 0)
        (void)syscall(SYS_pidfd_send_signal, x->fd, number, NULL, 0);
    else if (is_ours(x))
        kill(x->process, number);
}
