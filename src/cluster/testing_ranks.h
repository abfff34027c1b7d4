/* What the tests of this floor share: a test program starts itself again, as several ranks that play one scene. */
#ifndef LK_TESTING_RANKS_H
#define LK_TESTING_RANKS_H
#include "base/testing.h"
#include "cluster/comm.h"
#include "lockstep/cluster/launch.h"

/* In a rank cmocka is of no use: a failed check ends the rank, and so the job. */
#define CHECK(x)                                                                                                           \
    do {                                                                                                                   \
        if (!(x)) {                                                                                                        \
            fprintf(stderr, "%s:%d: this must hold: %s\n", __FILE__, __LINE__, #x);                                        \
            _exit(9);                                                                                                      \
        }                                                                                                                  \
    } while (0)

struct scene {
    const char *name;
    int (*play)(void); /* returns the exit status */
};

static inline char *own_path(void) {
    char path[4096];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    assert_true(n > 0);
    path[n] = 0;
    return lk_strdup(path);
}

static inline bool mpi_is_there(void) {
    struct lk_err err = {0};
    char *path = NULL;
    int code = lk__comm_mpi_find(&path, &err);
    lk_free(path);
    if (code) printf("skipped: %s\n", err.message);
    return code == LK_OK;
}

/* main's first lines in a test program: plays the scene if it was started for one. */
static inline bool play_scene(int argc, char **argv, const struct scene *scenes, int *status) {
    if (argc != 3 || strcmp(argv[1], "scene") != 0) return false;
    alarm(60); /* a deadlock is a failure, not a wait */
    for (; scenes->name; scenes++)
        if (strcmp(scenes->name, argv[2]) == 0) return *status = scenes->play(), true;
    *status = 8;
    return true;
}

/* Launches this program as `ranks` ranks; both results as lk_launch_run gives them. */
static inline int launch_scene(const char *scene, int ranks, bool (*stop)(void *), void *arg, int *status,
                               struct lk_err *err) {
    char word[] = "scene", *path = own_path(), *name = lk_strdup(scene);
    char *const argv[] = {path, word, name, NULL};
    struct lk_launch_spec spec = {.ranks = ranks, .argv = argv};
    struct lk_launcher *local = NULL;
    /* In ranks under AddressSanitizer Open MPI's own leaks do not count, and a crash is a crash. */
    setenv("ASAN_OPTIONS", "detect_leaks=0:handle_segv=0", 0);
    char where[32];
    snprintf(where, sizeof where, "local:%d", ranks);
    int code = lk_launch_open(where, &local, err);
    CHECK(code == 0);
    code = lk_launch_run(local, &spec, stop, arg, status, err);
    lk_launch_close(local);
    lk_free(path);
    lk_free(name);
    return code;
}

#endif
