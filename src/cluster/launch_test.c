/* The launcher: exit statuses, a stop, deaths of every kind, and that nobody is left behind. */
#include "base/sanitizers.h"
#include "cluster/announce.h"
#include "cluster/testing_ranks.h"
#include "lockstep/base/progress.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

static volatile sig_atomic_t asked;
static void on_usr1(int number) {
    (void)number;
    asked = 1;
}

/* Rank's file in the folder of the test (SCENE_DIR): its process, so that the test can look whether it is gone. */
static void note(const char *what) {
    int rank;
    lk_comm_launched(&rank, NULL);
    char *path = lk_asprintf("%s/%s.%d", getenv("SCENE_DIR"), what, rank);
    FILE *f = fopen(path, "w");
    CHECK(f && fprintf(f, "%d\n", (int)getpid()) > 0 && fclose(f) == 0);
    lk_free(path);
}

static struct lk_comm *join(void) {
    struct lk_comm *c = NULL;
    struct lk_err err = {0};
    signal(SIGUSR1, on_usr1);
    if (lk_comm_open(&c, &err)) fprintf(stderr, "%s\n", err.message);
    CHECK(c);
    note("pid");
    return c;
}

static int scene_fine(void) {
    struct lk_comm *c = join();
    CHECK(lk_comm_barrier(c, "x", NULL) == 0);
    lk_comm_close(c);
    return 0;
}
/* Rank 1 leaves with 7 in good order; the others with 0. */
static int scene_status(void) {
    struct lk_comm *c = join();
    int rank = lk_comm_rank(c);
    lk_comm_close(c);
    return rank == 1 ? 7 : 0;
}
/* Rank 1 leaves with 7 while the others wait for it. */
static int scene_alone(void) {
    struct lk_comm *c = join();
    if (lk_comm_rank(c) == 1) exit(7);
    lk_comm_barrier(c, "never", NULL);
    return 5;
}
/* One fails before it is a rank at all. */
static int scene_early(void) {
    int rank;
    lk_comm_launched(&rank, NULL);
    if (rank == 1) return 3;
    lk_comm_open(&(struct lk_comm *){NULL}, NULL);
    return 5;
}
/* The last rank dies; the others wait for it, in a barrier, by a message or asleep on a mark. */
static int die(int signal_number) {
    struct lk_comm *c = join();
    struct lk_transfer *t = NULL;
    char byte;
    int last = lk_comm_ranks(c) - 1;
    CHECK(lk_comm_barrier(c, "all are here", NULL) == 0);
    if (lk_comm_rank(c) == last) {
        usleep(200000);
        if (signal_number) raise(signal_number);
        _exit(0);
    }
    if (lk_comm_rank(c) == 0) {
        CHECK(lk_comm_receive(c, "never", last, &byte, 1, &t, NULL) == 0);
        lk_comm_test(c, &t, true, NULL);
    }
    lk_comm_barrier(c, "never", NULL);
    return 5;
}
static int scene_killed(void) {
    return die(SIGKILL);
}
static int scene_crashed(void) {
    return die(SIGSEGV);
}
static int scene_vanished(void) {
    return die(0);
}
/* Rank 1 dies as soon as it has said that it is there; the other takes its time. */
static int scene_brief(void) {
    int rank;
    lk_comm_launched(&rank, NULL);
    signal(SIGTERM, SIG_IGN);
    CHECK(lk__launch_announce(rank, NULL) == 0);
    note("pid");
    if (rank == 1) raise(SIGKILL);
    sleep(20);
    return 5;
}
/* Waits for the stop, then leaves in good order. */
static int scene_stopped(void) {
    struct lk_comm *c = join();
    for (int i = 0; i < 5000 && !asked; i++) usleep(1000);
    if (asked) note("stopped");
    CHECK(lk_comm_barrier(c, "stopped", NULL) == 0);
    lk_comm_close(c);
    return asked ? 4 : 6;
}
static int scene_endless(void) {
    signal(SIGTERM, SIG_IGN); /* as a program that takes it for "save and leave" and cannot, because another rank is dead */
    struct lk_comm *c = join();
    if (lk_comm_rank(c) == 0) pause();
    lk_comm_barrier(c, "never", NULL);
    return 5;
}
static int scene_speaks(void) {
    struct lk_comm *c = join();
    printf("rank %d: %s, %s\n", lk_comm_rank(c), getenv("SCENE_WORD"), getenv("LOCKSTEP_MEMORY_BYTES"));
    fflush(stdout);
    fprintf(stderr, "to stderr\n");
    lk_comm_close(c);
    return 0;
}
static const struct scene scenes[] = {{"fine", scene_fine},       {"status", scene_status},     {"alone", scene_alone},
                                      {"early", scene_early},     {"killed", scene_killed},     {"brief", scene_brief},
                                      {"crashed", scene_crashed}, {"vanished", scene_vanished}, {"stopped", scene_stopped},
                                      {"endless", scene_endless}, {"speaks", scene_speaks},     {NULL, NULL}};

/* --- tests ----------------------------------------------------------------------------------------------- */

static char *dir;
static int setup(void **state) {
    (void)state;
    dir = test_dir_make();
    setenv("SCENE_DIR", dir, 1);
    setenv("TMPDIR", dir, 1);
    return 0;
}
static int teardown(void **state) {
    (void)state;
    unsetenv("TMPDIR");
    test_dir_remove(dir);
    return 0;
}

/* The process that a rank has noted; 0: none has. */
static int noted(const char *what, int rank) {
    char *path = lk_asprintf("%s/%s.%d", dir, what, rank);
    FILE *f = fopen(path, "r");
    int n = 0;
    if (f) {
        if (fscanf(f, "%d", &n) != 1) n = 0;
        fclose(f);
    }
    lk_free(path);
    return n;
}
/* Ended, even if nobody has asked for its status yet. */
static bool is_gone(int process) {
    char path[64], state = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", process);
    FILE *f = fopen(path, "r");
    if (!f) return true;
    if (fscanf(f, "%*d (%*[^)]) %c", &state) != 1) state = 'Z';
    fclose(f);
    return state == 'Z' || state == 'X';
}
static void assert_all_gone(int ranks, uint64_t within_ns) {
    uint64_t start = lk_clock_ns();
    for (int r = 0; r < ranks; r++) {
        int process = noted("pid", r);
        assert_int_not_equal(process, 0);
        while (!is_gone(process)) {
            assert_true(lk_clock_ns() - start < within_ns);
            usleep(10000);
        }
    }
}
static void assert_folder_removed(void) {
    char *command = lk_asprintf("ls -d %s/lockstep-* >/dev/null 2>&1", dir);
    assert_int_not_equal(system(command), 0);
    lk_free(command);
}

static void statuses(void **state) {
    (void)state;
    int status = -1;
    struct lk_err err = {0};
    if (!mpi_is_there()) skip();
    assert_int_equal(launch_scene("fine", 3, NULL, NULL, &status, &err), 0);
    assert_int_equal(status, 0);
    assert_folder_removed();
    assert_int_equal(launch_scene("status", 3, NULL, NULL, &status, &err), 0);
    assert_int_equal(status, 7);
    assert_int_equal(launch_scene("alone", 3, NULL, NULL, &status, &err), 0);
    assert_int_equal(status, 7);
    assert_all_gone(3, 0);
    assert_int_equal(launch_scene("early", 2, NULL, NULL, &status, &err), 0);
    assert_int_equal(status, 3);
    assert_folder_removed();
}

static void deaths(void **state) {
    (void)state;
    static const struct {
        const char *scene, *how;
    } cases[] = {{"killed", "was killed by signal 9 (Killed)"},
                 {"crashed", "was killed by signal 11 (Segmentation fault)"},
                 {"vanished", "died"}};
    if (!mpi_is_there()) skip();
    for (int messages = 0; messages < 2; messages++) {
        if (messages) setenv("LOCKSTEP_SHARED_MEMORY", "no", 1);
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            int status = -1, ranks = 3;
            struct lk_err err = {0};
            uint64_t start = lk_clock_ns();
            assert_int_equal(launch_scene(cases[i].scene, ranks, NULL, NULL, &status, &err), LK_EIO);
            assert_true(lk_clock_ns() - start < 5000000000u);
            assert_all_gone(ranks, 0);
            char *expected =
                lk_asprintf("rank 2 (process %d) %s; the other ranks were ended", noted("pid", 2), cases[i].how);
            assert_string_equal(err.message, expected);
            lk_free(expected);
            assert_folder_removed();
        }
    }
    unsetenv("LOCKSTEP_SHARED_MEMORY");
}

/* Where children vanish by themselves, nobody can wait for mpirun; nor may its number be used then. */
static void a_lost_mpirun(void **state) {
    (void)state;
    int status = -1;
    struct lk_err err = {0};
    if (!mpi_is_there()) skip();
    signal(SIGCHLD, SIG_IGN);
    int code = launch_scene("fine", 2, NULL, NULL, &status, &err);
    signal(SIGCHLD, SIG_DFL);
    assert_int_equal(code, LK_EIO);
    assert_non_null(strstr(err.message, "SIGCHLD is ignored"));
    assert_folder_removed();
}

#define NOBODY 65534
struct few {
    int which;
    rlim_t limit;
    const char *says;
};
static void launch_with_few(void *arg) {
    const struct few *f = arg;
    int status = -1, null = open("/dev/null", O_WRONLY);
    struct lk_err err = {0};
    dup2(null, 2); /* what Open MPI says */
    close(null);
    signal(SIGXFSZ, SIG_IGN);
    if (f->which == RLIMIT_NPROC && geteuid() == 0 &&
        (chmod(getenv("SCENE_DIR"), 0777) || setgid(NOBODY) || setuid(NOBODY)))
        _exit(1);
    char *path = own_path();
    if (f->which == RLIMIT_NPROC && access(path, X_OK)) _exit(0); /* in a folder that root alone may enter */
    lk_free(path);
    setrlimit(f->which, &(struct rlimit){f->limit, f->limit});
    int code = launch_scene("fine", 2, NULL, NULL, &status, &err);
    if (code == LK_EIO && strstr(err.message, f->says)) _exit(0);
    printf("%d: %s\n", code, err.message);
    fflush(stdout);
    _exit(1);
}
static void small_limits_are_named(void **state) {
    (void)state;
    static struct few cases[] = {{RLIMIT_NOFILE, 16, "this process may have 16 files open (ulimit -n)"},
                                 {RLIMIT_NOFILE, 24, "this process may have 24 files open (ulimit -n)"},
                                 {RLIMIT_FSIZE, 1000 << 10, "a file may have at most 1000 KiB (ulimit -f)"},
                                 {RLIMIT_NPROC, 6, "this user may have 6 processes and threads (ulimit -u)"}};
    if (!mpi_is_there() || LK_SANITIZED) skip(); /* which need files themselves */
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) assert_int_equal(test_fork(launch_with_few, &cases[i]), 0);
}

/* Everything that ranks and mpirun write to stderr when a rank is killed; the test's own stderr meanwhile goes to a file.
 */
static void silence_about_a_death(void **state) {
    (void)state;
    int status, saved = dup(2);
    struct lk_err err = {0};
    FILE *f = tmpfile();
    char text[200] = "";
    if (!mpi_is_there()) skip();
    fflush(stderr);
    dup2(fileno(f), 2);
    int code = launch_scene("killed", 3, NULL, NULL, &status, &err);
    dup2(saved, 2);
    close(saved);
    rewind(f);
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    assert_int_equal(code, LK_EIO);
    assert_string_equal(text, "");
    assert_int_equal(n, 0);
}

static bool stop_soon(void *arg) {
    return ++*(int *)arg > 2;
}
static void a_stop_reaches_every_rank(void **state) {
    (void)state;
    int status = -1, turns = 0;
    struct lk_err err = {0};
    if (!mpi_is_there()) skip();
    int code = launch_scene("stopped", 3, stop_soon, &turns, &status, &err);
    if (code) fail_msg("%s", err.message);
    assert_int_equal(status, 4);
    for (int r = 0; r < 3; r++) assert_int_equal(noted("stopped", r), noted("pid", r));
}

static void launch_endless(void *arg) {
    (void)arg;
    int status;
    struct lk_err err = {0};
    launch_scene("endless", 2, NULL, NULL, &status, &err);
    char *path = test_join(dir, "message");
    FILE *f = fopen(path, "w");
    if (f) fputs(err.message, f), fclose(f);
    lk_free(path);
}
static void wait_for_ranks(int ranks) {
    for (int r = 0; r < ranks; r++)
        for (int i = 0; !noted("pid", r); i++) {
            assert_true(i < 1000);
            usleep(10000);
        }
}
static pid_t start_endless(void) {
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        launch_endless(NULL);
        _exit(0);
    }
    wait_for_ranks(2);
    return pid;
}
static void a_killed_launcher_leaves_nobody(void **state) {
    (void)state;
    if (!mpi_is_there()) skip();
    pid_t pid = start_endless();
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_all_gone(2, 5000000000u);
}
static void a_killed_mpirun_leaves_nobody(void **state) {
    (void)state;
    if (!mpi_is_there()) skip();
    setenv("OMPI_MCA_btl_vader_backing_directory", dir, 1); /* what only mpirun would have removed goes with the folder */
    pid_t pid = start_endless();
    unsetenv("OMPI_MCA_btl_vader_backing_directory");
    char *command =
        lk_asprintf("kill -9 $(sed -n 's/^PPid:[[:space:]]*//p' /proc/%d/status)", noted("pid", 0)); /* mpirun */
    assert_int_equal(system(command), 0);
    lk_free(command);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_all_gone(2, 5000000000u);
    char *path = test_join(dir, "message");
    struct lk_buf text = LK_BUF_INIT;
    assert_int_equal(lk_file_read(path, 1000, &text, NULL), 0);
    assert_non_null(strstr(text.data, "mpirun was killed by signal 9 (Killed)"));
    lk_buf_release(&text);
    lk_free(path);
}

static void what_is_missing(void **state) {
    (void)state;
    int status;
    struct lk_err err = {0};
    char *path = lk_strdup(getenv("PATH"));
    setenv("PATH", "/nonexistent", 1);
    assert_int_equal(launch_scene("fine", 2, NULL, NULL, &status, &err), LK_EUNSUPPORTED);
    assert_non_null(strstr(err.message, "install openmpi-bin"));
    setenv("PATH", path, 1);
    lk_free(path);
    if (!mpi_is_there()) skip();
    setenv("LOCKSTEP_MPI", "/nowhere.so", 1);
    assert_int_equal(launch_scene("fine", 2, NULL, NULL, &status, &err), LK_EUNSUPPORTED);
    assert_non_null(strstr(err.message, "/nowhere.so"));
    unsetenv("LOCKSTEP_MPI");
    char nothing[] = "/nowhere/program", *argv[] = {nothing, NULL};
    struct lk_launch_spec spec = {.ranks = 2, .argv = argv};
    struct lk_launcher *local = NULL;
    assert_int_equal(lk_launch_open("local:2", &local, &err), 0);
    assert_int_equal(lk_launch_run(local, &spec, NULL, NULL, &status, &err), LK_ENOTFOUND);
    lk_launch_close(local);
    assert_non_null(strstr(err.message, "/nowhere/program"));
    setenv("TMPDIR", "/proc/nowhere", 1);
    assert_int_equal(launch_scene("fine", 2, NULL, NULL, &status, &err), LK_EIO);
    assert_non_null(strstr(err.message, "TMPDIR"));
}

/* --- one job, watched and ended --------------------------------------------------------------------------- */

static struct lk_job *submit_scene(struct lk_launcher *l, const char *scene, struct lk_launch_spec spec) {
    char word[] = "scene", *path = own_path(), *name = lk_strdup(scene);
    char *const argv[] = {path, word, name, NULL};
    struct lk_err err = {0};
    struct lk_job *job = NULL;
    spec.argv = argv;
    spec.ranks = lk_launch_ranks(l);
    if (lk_launch_submit(l, &spec, &job, &err)) fail_msg("%s", err.message);
    lk_free(path);
    lk_free(name);
    return job;
}
static struct lk_launcher *open_local(int ranks) {
    char where[32];
    struct lk_launcher *l = NULL;
    snprintf(where, sizeof where, "local:%d", ranks);
    assert_int_equal(lk_launch_open(where, &l, NULL), 0);
    assert_int_equal(lk_launch_ranks(l), ranks);
    return l;
}
static struct lk_job_state wait_for_end(struct lk_job *job) {
    struct lk_job_state s;
    uint64_t start = lk_clock_ns();
    do {
        assert_int_equal(lk_job_poll(job, 100, &s, NULL), 0);
        assert_true(lk_clock_ns() - start < 20000000000u);
    } while (!s.ended);
    return s;
}

static void a_job_tells_of_each_rank(void **state) {
    struct lk_job_state s;
    (void)state;
    if (!mpi_is_there()) skip();
    struct lk_launcher *l = open_local(3);
    struct lk_job *job = submit_scene(l, "alone", (struct lk_launch_spec){0});
    assert_true(atoi(lk_job_id(job)) > 0);
    assert_int_equal(lk_job_poll(job, 0, &s, NULL), 0);
    assert_false(s.ended);
    assert_int_equal(s.first_failed, -1);
    assert_int_equal(s.ranks[2].phase, LK_RANK_PENDING);
    s = wait_for_end(job);
    assert_int_equal(s.cause.code, 0);
    assert_int_equal(s.status, 7);
    assert_int_equal(s.first_failed, 1);
    assert_int_equal(s.ranks[1].phase, LK_RANK_EXITED);
    assert_int_equal(s.ranks[1].status, 7);
    assert_int_equal(s.ranks[1].process, noted("pid", 1));
    assert_int_equal(s.ranks[0].phase, LK_RANK_DIED); /* ended by mpirun */
    lk_job_close(job);
    lk_launch_close(l);
    assert_folder_removed();
}

static void a_death_before_we_look_is_the_cause(void **state) {
    (void)state;
    if (!mpi_is_there()) skip();
    struct lk_launcher *l = open_local(2);
    struct lk_job *job = submit_scene(l, "brief", (struct lk_launch_spec){0});
    wait_for_ranks(2);
    for (int i = 0; kill(noted("pid", 1), 0) == 0 && i < 1000; i++) usleep(1000);
    struct lk_job_state s = wait_for_end(job);
    char *expected =
        lk_asprintf("rank 1 (process %d) was killed by signal 9 (Killed); the other rank was ended", noted("pid", 1));
    assert_string_equal(s.cause.message, expected);
    assert_int_equal(s.first_failed, 1);
    lk_free(expected);
    lk_job_close(job);
    lk_launch_close(l);
    assert_all_gone(2, 0);
}

/* Ranks that cannot leave are killed when the grace is over; closing kills at once. */
static void a_stop_ends_what_does_not_leave(void **state) {
    (void)state;
    if (!mpi_is_there()) skip();
    for (int how = 0; how < 3; how++) { /* with a grace, without, by closing */
        struct lk_launcher *l = open_local(2);
        struct lk_job *job = submit_scene(l, "endless", (struct lk_launch_spec){0});
        struct lk_job_state s = {0};
        for (int i = 0; i < 1000 && !(s.ranks && s.ranks[0].process && s.ranks[1].process); i++)
            assert_int_equal(lk_job_poll(job, 10, &s, NULL), 0);
        wait_for_ranks(2);
        uint64_t start = lk_clock_ns();
        if (how < 2) {
            assert_int_equal(lk_job_stop(job, how == 0 ? 500 : 0, NULL), 0);
            s = wait_for_end(job);
            assert_int_equal(s.cause.code, LK_ESTOPPED);
            assert_true(how || lk_clock_ns() - start >= 500000000u);
        }
        lk_job_close(job);
        assert_true(lk_clock_ns() - start < 5000000000u);
        assert_all_gone(2, 0);
        lk_launch_close(l);
        assert_folder_removed();
        for (int r = 0; r < 2; r++) {
            char *path = lk_asprintf("%s/pid.%d", dir, r);
            unlink(path);
            lk_free(path);
        }
    }
}

static void a_job_has_its_environment_and_logs(void **state) {
    (void)state;
    if (!mpi_is_there()) skip();
    struct lk_launcher *l = open_local(2);
    const char *const env[] = {"SCENE_WORD=new", NULL};
    struct lk_buf text = LK_BUF_INIT;
    setenv("SCENE_WORD", "old", 1);
    struct lk_job *job =
        submit_scene(l, "speaks", (struct lk_launch_spec){.log_dir = dir, .env = env, .memory_bytes = (uint64_t)5 << 30});
    unsetenv("SCENE_WORD");
    assert_int_equal(wait_for_end(job).status, 0);
    for (int r = 0; r < 2; r++) {
        char *want = lk_asprintf("rank %d: new, 5368709120\nto stderr\n", r);
        text.size = 0;
        assert_int_equal(lk_job_log(job, r, 0, &text, NULL), 0);
        assert_int_equal(text.size, strlen(want));
        assert_memory_equal(text.data, want, text.size);
        assert_int_equal(lk_job_log(job, r, text.size, &text, NULL), 0); /* nothing more */
        assert_int_equal(text.size, strlen(want));
        lk_free(want);
    }
    lk_buf_release(&text);
    lk_job_close(job);
    job = submit_scene(l, "fine", (struct lk_launch_spec){0});
    assert_int_equal(lk_job_log(job, 0, 0, &text, NULL), LK_EUNSUPPORTED);
    wait_for_end(job);
    lk_job_close(job);
    lk_launch_close(l);
}

/* --- the seam, with an engine that only counts ------------------------------------------------------------ */

static int polls, stops, releases;
static int fake_open(const char *rest, int *ranks, void **where, struct lk_err *err) {
    (void)where;
    if (strcmp(rest, "two")) return lk_fail(err, LK_EINVAL, "not shown");
    *ranks = 2;
    return LK_OK;
}
static int fake_submit(void *where, const struct lk_launch_spec *spec, void **job, char *id, struct lk_err *err) {
    (void)where, (void)job, (void)err;
    snprintf(id, LK_JOB_ID, "%s-1", spec->name);
    return LK_OK;
}
static int fake_poll(void *job, int timeout_ms, struct lk_job_state *out, struct lk_err *err) {
    (void)job, (void)timeout_ms, (void)err;
    out->ended = ++polls == 3;
    return LK_OK;
}
static int fake_stop(void *job, uint64_t grace_ms, struct lk_err *err) {
    (void)job, (void)err;
    stops += (int)grace_ms;
    return LK_OK;
}
static void fake_release(void *job) {
    (void)job;
    releases++;
}
static void engines_without_optional_slots(void **state) {
    static const struct lk_launch_ops fake = {.name = "fake",
                                              .usage = "fake:two",
                                              .open = fake_open,
                                              .submit = fake_submit,
                                              .poll = fake_poll,
                                              .stop = fake_stop,
                                              .release = fake_release};
    char program[] = "/bin/true", *const argv[] = {program, NULL};
    const struct lk_launch_spec spec = {.name = "n", .argv = argv, .ranks = 2};
    struct lk_launcher *l = NULL;
    struct lk_job *job = NULL;
    struct lk_buf text = LK_BUF_INIT;
    struct lk_err err = {0};
    int status, turns = 0;
    (void)state;
    assert_int_equal(lk_launch_open_with(&fake, "three", &l, &err), LK_EINVAL);
    assert_string_equal(err.message, "fake:three: what is supported is fake:two");
    assert_int_equal(lk_launch_open_with(&fake, "two", &l, &err), 0);
    assert_int_equal(lk_launch_submit(l, &spec, &job, &err), 0);
    assert_string_equal(lk_job_id(job), "n-1");
    assert_int_equal(lk_job_signal(job, &err), LK_EUNSUPPORTED);
    assert_int_equal(lk_job_stop(job, 7, &err), 0);
    assert_int_equal(stops, 7);
    assert_int_equal(lk_job_log(job, 1, 0, &text, &err), LK_EUNSUPPORTED);
    lk_job_close(job);
    assert_int_equal(releases, 1);
    assert_int_equal(lk_launch_run(l, &spec, NULL, NULL, &status, &err), 0);
    assert_int_equal(polls, 3);
    polls = 0;
    assert_int_equal(lk_launch_run(l, &spec, stop_soon, &turns, &status, &err), 0); /* it ends before it is asked */
    polls = 0;
    assert_int_equal(lk_launch_run(l, &spec, stop_soon, &turns, &status, &err), LK_EUNSUPPORTED);
    assert_int_equal(releases, 4);
    lk_launch_close(l);
    for (const char *const *w =
             (const char *const[]){"local", "local:", "local:0", "local:2x", "local:1025", "moon:2", NULL};
         *w; w++) {
        assert_int_equal(lk_launch_open(*w, &l, &err), LK_EINVAL);
        assert_non_null(strstr(err.message, "local:N, N ranks on this machine, 1 to 1024"));
    }
}

int main(int argc, char **argv) {
    int status;
    if (play_scene(argc, argv, scenes, &status)) return status;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(statuses, setup, teardown),
        cmocka_unit_test_setup_teardown(deaths, setup, teardown),
        cmocka_unit_test_setup_teardown(a_lost_mpirun, setup, teardown),
        cmocka_unit_test_setup_teardown(small_limits_are_named, setup, teardown),
        cmocka_unit_test_setup_teardown(silence_about_a_death, setup, teardown),
        cmocka_unit_test_setup_teardown(a_stop_reaches_every_rank, setup, teardown),
        cmocka_unit_test_setup_teardown(a_killed_launcher_leaves_nobody, setup, teardown),
        cmocka_unit_test_setup_teardown(a_killed_mpirun_leaves_nobody, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_missing, setup, teardown),
        cmocka_unit_test_setup_teardown(a_job_tells_of_each_rank, setup, teardown),
        cmocka_unit_test_setup_teardown(a_death_before_we_look_is_the_cause, setup, teardown),
        cmocka_unit_test_setup_teardown(a_stop_ends_what_does_not_leave, setup, teardown),
        cmocka_unit_test_setup_teardown(a_job_has_its_environment_and_logs, setup, teardown),
        cmocka_unit_test(engines_without_optional_slots),
    };
    return cmocka_run_group_tests_name("launch", tests, NULL, NULL);
}
