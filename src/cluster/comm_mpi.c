/* Open MPI. A shared object of its own (lockstep-mpi.so), loaded by ranks only. Errors are returned, never abort; every
 * wait polls, first eagerly and then with short sleeps, because ranks may outnumber cores and the checkpoint's thread waits
 * long. */
#include "cluster/comm.h"
#include "lockstep/base/mem.h"
#include <limits.h>
#include <mpi.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CHUNK_MOST ((size_t)1 << 30) /* MPI counts in int */
#define TAG        1

struct mpi {
    struct lk_comm c;
    MPI_Comm comm;
    size_t chunk;
    int *counts, *places; /* (ranks) each */
};
/* All requests of one transfer are begun at once: chunks that followed later would come in another order than the messages
 * of the transfers begun after it. */
struct lk_transfer {
    bool receive;
    size_t size;
    int peer, requests;
    MPI_Status *statuses; /* behind the requests */
    MPI_Request request[];
};
static atomic_int handles;
static atomic_bool failed; /* then nothing may wait for the other ranks any more */

static int check(int status, const char *what, struct lk_err *err) {
    if (status == MPI_SUCCESS) return LK_OK;
    char text[MPI_MAX_ERROR_STRING] = "unknown error";
    int n = 0;
    atomic_store(&failed, true);
    MPI_Error_string(status, text, &n);
    return lk_fail(err, LK_EIO, "%s: %s", what, text);
}

/* --- waiting --------------------------------------------------------------------------------------------- */

struct patience {
    unsigned turns;
};
static void be_patient(struct patience *p) {
    p->turns++;
    if (p->turns < 2000) return;
    if (p->turns < 3000)
        sched_yield();
    else
        nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
}

static int wait_for(MPI_Request *request, struct lk_err *err) {
    struct patience p = {0};
    for (int done = 0;;) {
        int code = check(MPI_Test(request, &done, MPI_STATUS_IGNORE), "MPI_Test", err);
        if (code || done) return code;
        be_patient(&p);
    }
}

/* --- together -------------------------------------------------------------------------------------------- */

static int gather_in_one(struct mpi *m, void *data, const size_t *offsets, struct lk_err *err) {
    MPI_Request request;
    for (int r = 0; r < m->c.ranks; r++) {
        m->places[r] = (int)offsets[r];
        m->counts[r] = (int)(offsets[r + 1] - offsets[r]);
    }
    int status = MPI_Iallgatherv(MPI_IN_PLACE, 0, MPI_BYTE, data, m->counts, m->places, MPI_BYTE, m->comm, &request);
    int code = check(status, "MPI_Iallgatherv", err);
    return code ? code : wait_for(&request, err);
}

/* More than int counts: each rank's part goes out in chunks, in an order that all know. */
static int mpi_gather_all(struct lk_comm *c, void *data, const size_t *offsets, struct lk_err *err) {
    struct mpi *m = (struct mpi *)c;
    if (offsets[c->ranks] == 0) return LK_OK;
    if (offsets[c->ranks] <= m->chunk) return gather_in_one(m, data, offsets, err);
    for (int r = 0; r < c->ranks; r++) {
        for (size_t at = offsets[r]; at < offsets[r + 1]; at += m->chunk) {
            size_t n = offsets[r + 1] - at < m->chunk ? offsets[r + 1] - at : m->chunk;
            MPI_Request request;
            int code = check(MPI_Ibcast((char *)data + at, (int)n, MPI_BYTE, r, m->comm, &request), "MPI_Ibcast", err);
            if (!code) code = wait_for(&request, err);
            if (code) return code;
        }
    }
    return LK_OK;
}

/* --- between two ranks ----------------------------------------------------------------------------------- */

static int mpi_start(struct lk_comm *c, bool receive, int peer, void *data, size_t size, struct lk_transfer **out,
                     struct lk_err *err) {
    struct mpi *m = (struct mpi *)c;
    size_t chunks = size ? (size - 1) / m->chunk + 1 : 1; /* nothing is a message too */
    if (chunks > INT_MAX) return lk_fail(err, LK_EINVAL, "a transfer of %zu bytes", size);
    struct lk_transfer *t = lk_calloc(1, sizeof *t + chunks * (sizeof(MPI_Request) + sizeof(MPI_Status)));
    if (!t) return lk_fail(err, LK_ENOMEM, "out of memory for a transfer");
    *t = (struct lk_transfer){.receive = receive, .peer = peer, .size = size};
    t->statuses = (MPI_Status *)(void *)(t->request + chunks);
    for (size_t at = 0, i = 0; i < chunks; i++, at += m->chunk) {
        size_t n = size - at < m->chunk ? size - at : m->chunk;
        char *from = data ? (char *)data + at : NULL;
        int status = receive ? MPI_Irecv(from, (int)n, MPI_BYTE, peer, TAG, m->comm, &t->request[i])
                             : MPI_Isend(from, (int)n, MPI_BYTE, peer, TAG, m->comm, &t->request[i]);
        int code = check(status, receive ? "MPI_Irecv" : "MPI_Isend", err);
        /* The requests begun before are lost with the job: after a failure it ends, and their memory must stay. */
        if (code) return code;
        t->requests++;
    }
    *out = t;
    return LK_OK;
}

static int finished(struct lk_transfer *t, struct lk_err *err) {
    size_t came = 0;
    for (int i = 0; i < t->requests; i++) {
        int n = 0;
        int code = check(MPI_Get_count(&t->statuses[i], MPI_BYTE, &n), "MPI_Get_count", err);
        if (code) return code;
        came += (size_t)n;
    }
    if (came == t->size) return LK_OK;
    return lk_fail(err, LK_EIO, "rank %d sent %zu bytes where %zu were expected", t->peer, came, t->size);
}

static int mpi_test(struct lk_comm *c, struct lk_transfer **tp, bool wait, struct lk_err *err) {
    (void)c;
    struct lk_transfer *t = *tp;
    struct patience p = {0};
    for (int done = 0; !done;) {
        int code = check(MPI_Testall(t->requests, t->request, &done, t->statuses),
                         t->receive ? "receiving (does the other rank send as many bytes?)" : "sending", err);
        if (code) return code;
        if (!done && !wait) return LK_OK;
        if (!done) be_patient(&p);
    }
    int code = t->receive ? finished(t, err) : LK_OK;
    lk_free(t);
    *tp = NULL;
    return code;
}

static void mpi_progress(struct lk_comm *c) {
    int ignored;
    MPI_Iprobe(MPI_ANY_SOURCE, TAG, ((struct mpi *)c)->comm, &ignored, MPI_STATUS_IGNORE);
}

/* --- open, dup, close ------------------------------------------------------------------------------------ */

static void mpi_close(struct lk_comm *c) {
    struct mpi *m = (struct mpi *)c;
    bool last = atomic_fetch_sub(&handles, 1) == 1;
    /* Both wait for all ranks; after a failure they would wait for ever. */
    if (!atomic_load(&failed) && !c->broken) {
        MPI_Comm_free(&m->comm);
        if (last) MPI_Finalize();
    }
    lk_free(m->counts);
    lk_free(m);
}

static int make(MPI_Comm from, struct lk_comm **out, struct lk_err *err);
static int mpi_dup(struct lk_comm *c, struct lk_comm **out, struct lk_err *err) {
    return make(((struct mpi *)c)->comm, out, err);
}

static const struct lk_comm_ops ops = {.name = "MPI",
                                       .close = mpi_close,
                                       .dup = mpi_dup,
                                       .gather_all = mpi_gather_all,
                                       .start = mpi_start,
                                       .test = mpi_test,
                                       .progress = mpi_progress};

/* Tests make the chunks small; the same on all ranks. */
static size_t chunk_bytes(void) {
    const char *given = getenv("LOCKSTEP_MPI_CHUNK");
    size_t n = given ? strtoull(given, NULL, 10) : 0;
    return n > 0 && n < CHUNK_MOST ? n : CHUNK_MOST;
}

static int on_one_machine(struct mpi *m, struct lk_err *err) {
    MPI_Comm here;
    int n = 0;
    int code = check(MPI_Comm_split_type(m->comm, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &here), "MPI_Comm_split", err);
    if (!code) code = check(MPI_Comm_size(here, &n), "MPI_Comm_size", err);
    if (!code) code = check(MPI_Comm_free(&here), "MPI_Comm_free", err);
    m->c.ranks_here = n;
    return code;
}

/* A handle over a copy of `from`, so that no two handles see each other's messages. */
static int make(MPI_Comm from, struct lk_comm **out, struct lk_err *err) {
    struct mpi *m = lk_calloc(1, sizeof *m);
    if (!m) return lk_fail(err, LK_ENOMEM, "out of memory");
    *m = (struct mpi){.c = {.ops = &ops}, .comm = MPI_COMM_NULL, .chunk = chunk_bytes()};
    int code = check(MPI_Comm_dup(from, &m->comm), "MPI_Comm_dup", err);
    if (!code) code = check(MPI_Comm_set_errhandler(m->comm, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler", err);
    if (!code) code = check(MPI_Comm_rank(m->comm, &m->c.rank), "MPI_Comm_rank", err);
    if (!code) code = check(MPI_Comm_size(m->comm, &m->c.ranks), "MPI_Comm_size", err);
    if (!code) code = on_one_machine(m, err);
    if (!code && !(m->counts = lk_calloc(2 * (size_t)m->c.ranks, sizeof *m->counts)))
        code = lk_fail(err, LK_ENOMEM, "out of memory for %d ranks", m->c.ranks);
    if (code) {
        lk_free(m);
        return code;
    }
    m->places = m->counts + m->c.ranks;
    atomic_fetch_add(&handles, 1);
    *out = &m->c;
    return LK_OK;
}

/* MPI_Init puts a stack trace of many lines on these signals; the program's own handlers say it in one. */
static int init_mpi(struct lk_err *err) {
    static const int theirs[] = {SIGABRT, SIGBUS, SIGFPE, SIGSEGV};
    struct sigaction before[sizeof theirs / sizeof *theirs];
    int had = 0;
    MPI_Initialized(&had);
    if (had) return lk_fail(err, LK_EUNSUPPORTED, "a process can join its ranks once only");
    for (size_t i = 0; i < sizeof theirs / sizeof *theirs; i++) sigaction(theirs[i], NULL, &before[i]);
    int level = 0, status = MPI_Init_thread(NULL, NULL, MPI_THREAD_MULTIPLE, &level);
    for (size_t i = 0; i < sizeof theirs / sizeof *theirs; i++) sigaction(theirs[i], &before[i], NULL);
    if (status != MPI_SUCCESS) return lk_fail(err, LK_EIO, "MPI_Init_thread: error %d", status);
    if (level < MPI_THREAD_MULTIPLE)
        return lk_fail(err, LK_EUNSUPPORTED, "this MPI was built without threads (MPI_THREAD_MULTIPLE)");
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    return LK_OK;
}

__attribute__((visibility("default"))) int lk_comm_mpi_open(unsigned abi, struct lk_comm **out, struct lk_err *err);
int lk_comm_mpi_open(unsigned abi, struct lk_comm **out, struct lk_err *err) {
    if (abi != LK__COMM_ABI)
        return lk_fail(err, LK_EUNSUPPORTED,
                       "the MPI part (lockstep-mpi.so) is of another build than this program: `make` again");
    int code = init_mpi(err);
    return code ? code : make(MPI_COMM_WORLD, out, err);
}
