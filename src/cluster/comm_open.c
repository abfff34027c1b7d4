/* Which ranks this process belongs to, and the engine that reaches them. */
#include "cluster/announce.h"
#include "cluster/comm.h"
#include "lockstep/base/mem.h"
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

/* --- started as a rank? ---------------------------------------------------------------------------------- */

static bool number_from(const char *name, int least, int *out) {
    const char *text = getenv(name);
    char *end;
    if (!text || !*text) return false;
    errno = 0;
    long n = strtol(text, &end, 10);
    if (*end || errno || n < least || n > INT_MAX) return false;
    *out = (int)n;
    return true;
}

/* mpirun; then a process manager that speaks PMIx or PMI (srun --mpi=pmix). Not SLURM_PROCID: a plain shell inside an
 * allocation has it too, and then there is nobody to talk to. Slurm gives PMIx no size, but a step knows its number of
 * tasks. */
bool lk_comm_launched(int *rank, int *ranks) {
    int r = 0, n = 0;
    bool yes = (number_from("OMPI_COMM_WORLD_RANK", 0, &r) && number_from("OMPI_COMM_WORLD_SIZE", 1, &n)) ||
               (number_from("PMIX_RANK", 0, &r) && number_from("SLURM_STEP_NUM_TASKS", 1, &n)) ||
               (number_from("PMI_RANK", 0, &r) && number_from("PMI_SIZE", 1, &n));
    yes = yes && r < n;
    if (rank) *rank = yes ? r : 0;
    if (ranks) *ranks = yes ? n : 1;
    return yes;
}

/* --- the MPI part ---------------------------------------------------------------------------------------- */

static bool readable(char **path, char *candidate) {
    if (candidate && access(candidate, R_OK) == 0) {
        *path = candidate;
        return true;
    }
    lk_free(candidate);
    return false;
}

/* Where `make install` puts it, seen from the shared library (a program that is linked with it may lie anywhere). */
static bool beside_library(char **path) {
    static const char here;
    Dl_info about;
    if (!dladdr(&here, &about) || !about.dli_fname) return false;
    const char *slash = strrchr(about.dli_fname, '/');
    int n = slash ? (int)(slash - about.dli_fname) : 0;
    return slash && readable(path, lk_asprintf("%.*s/lockstep/lockstep-mpi.so", n, about.dli_fname));
}

/* Beside the program and up to three folders above (tests lie in build/src/cluster), then where `make install` puts it. */
int lk__comm_mpi_find(char **path, struct lk_err *err) {
    const char *given = getenv("LOCKSTEP_MPI");
    char dir[PATH_MAX], program[PATH_MAX];
    *path = NULL;
    if (given && *given) {
        if (readable(path, lk_strdup(given))) return LK_OK;
        return lk_fail(err, LK_EUNSUPPORTED, "LOCKSTEP_MPI names %s, which cannot be read", given);
    }
    ssize_t n = readlink("/proc/self/exe", dir, sizeof dir - 1);
    if (n < 0) return lk_fail_errno(err, "cannot find this program's folder");
    dir[n] = 0;
    char *slash = strrchr(dir, '/');
    if (slash) *slash = 0;
    snprintf(program, sizeof program, "%s", dir);
    for (int up = 0; up < 4 && slash; up++) {
        if (readable(path, lk_asprintf("%s/lockstep-mpi.so", dir))) return LK_OK;
        if (up == 0 && readable(path, lk_asprintf("%s/../lib/lockstep/lockstep-mpi.so", dir))) return LK_OK;
        if ((slash = strrchr(dir, '/'))) *slash = 0;
    }
    if (beside_library(path)) return LK_OK;
    return lk_fail(err, LK_EUNSUPPORTED,
                   "there is no MPI part, so there can be one rank only: lockstep-mpi.so lies neither in %.200s nor in the "
                   "three folders "
                   "above it nor in %.200s/../lib/lockstep; install libopenmpi-dev and openmpi-bin, then `make` again, or "
                   "name the file "
                   "by LOCKSTEP_MPI",
                   program, program);
}

/* Never unloaded: Open MPI does not survive that. RTLD_GLOBAL because its own modules look for its symbols. */
static int open_mpi(struct lk_comm **out, struct lk_err *err) {
    char *path = NULL;
    int code = lk__comm_mpi_find(&path, err);
    if (code) return code;
    void *object = dlopen(path, RTLD_NOW | RTLD_GLOBAL | RTLD_NODELETE);
    lk__comm_mpi_open_fn *open_it = NULL;
    void *symbol = object ? dlsym(object, "lk_comm_mpi_open") : NULL;
    if (symbol) memcpy(&open_it, &symbol, sizeof open_it); /* ISO C has no cast between the two */
    if (!open_it) {
        const char *why = dlerror();
        code = lk_fail(err, LK_EUNSUPPORTED, "cannot load %s: %s; install openmpi-bin, then `make` again", path,
                       why ? why : "it has no lk_comm_mpi_open");
    } else {
        code = open_it(LK__COMM_ABI, out, err);
    }
    lk_free(path);
    return code;
}

/* --- open ------------------------------------------------------------------------------------------------ */

/* Every rank has to want it, and all have to be on one machine. */
static int all_want_to_share(struct lk_comm *c, bool *out, struct lk_err *err) {
    const char *asked = getenv("LOCKSTEP_SHARED_MEMORY");
    bool mine = c->ranks_here == c->ranks && !(asked && strcmp(asked, "no") == 0);
    for (int r = 0; r <= c->ranks; r++) c->offsets[r] = (size_t)r * sizeof *c->codes;
    c->codes[c->rank] = mine;
    int code = lk_comm_gather_all(c, "start", c->codes, c->offsets, err);
    *out = !code;
    for (int r = 0; r < c->ranks; r++) *out = *out && c->codes[r];
    return code;
}

int lk_comm_open(struct lk_comm **out, struct lk_err *err) {
    int rank, ranks;
    struct lk_comm *inner = NULL;
    *out = NULL;
    bool launched = lk_comm_launched(&rank, &ranks);
    int code = launched ? lk__launch_announce(rank, err) : LK_OK;
    if (code) return code;
    if (ranks == 1) return lk_comm_open_self(out, err);
    /* Our parent (mpirun, Slurm's step) is who would end us when another rank dies; without it we would wait for ever. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    code = open_mpi(&inner, err);
    if (!code) code = lk__comm_ready(&inner, err);
    if (code) return code;
    bool share = false;
    code = all_want_to_share(inner, &share, err);
    if (!code && share) {
        struct lk_err reason = {0};
        code = lk__comm_shared_open(inner, out, &reason);
        if (!code) return lk__comm_ready(out, err);
        if (code != LK_EUNSUPPORTED && err) *err = reason;
        if (code == LK_EUNSUPPORTED) code = LK_OK; /* messages do the same, more slowly */
    }
    if (!code)
        *out = inner;
    else
        lk_comm_close(inner);
    return code;
}
