/* The launcher: exit statuses, a stop, deaths of every kind, and that nobody is left behind. */
#include "cluster/testing_ranks.h"
#include "lockstep/base/progress.h"
#include <signal.h>

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
static const struct scene scenes[] = {{"fine", scene_fine},         {"status", scene_status},
                                      {"alone", scene_alone},       {"early", scene_early},
                                      {"killed", scene_killed},     {"crashed", scene_crashed},
                                      {"vanished", scene_vanished}, {"stopped", scene_stopped},
                                      {"endless", scene_endless},   {NULL, NULL}};

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
    struct lk_launch l = {.ranks = 2, .argv = argv};
    assert_int_equal(lk_launch_local(&l, &status, &err), LK_ENOTFOUND);
    assert_non_null(strstr(err.message, "/nowhere/program"));
    setenv("TMPDIR", "/proc/nowhere", 1);
    assert_int_equal(launch_scene("fine", 2, NULL, NULL, &status, &err), LK_EIO);
    assert_non_null(strstr(err.message, "TMPDIR"));
}

int main(int argc, char **argv) {
    int status;
    if (play_scene(argc, argv, scenes, &status)) return status;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(statuses, setup, teardown),
        cmocka_unit_test_setup_teardown(deaths, setup, teardown),
        cmocka_unit_test_setup_teardown(silence_about_a_death, setup, teardown),
        cmocka_unit_test_setup_teardown(a_stop_reaches_every_rank, setup, teardown),
        cmocka_unit_test_setup_teardown(a_killed_launcher_leaves_nobody, setup, teardown),
        cmocka_unit_test_setup_teardown(a_killed_mpirun_leaves_nobody, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_missing, setup, teardown),
    };
    return cmocka_run_group_tests_name("launch", tests, NULL, NULL);
}
