/* The comm seam: what an engine does. comm.c checks arguments, adds names to messages and builds broadcast, barrier and
 * agree. */
#ifndef LOCKSTEP_CLUSTER_COMM_H
#define LOCKSTEP_CLUSTER_COMM_H
#include "lockstep/cluster/comm.h"

struct lk_comm_ops {
    const char *name; /* for people */
    void (*close)(struct lk_comm *);
    int (*dup)(struct lk_comm *, struct lk_comm **out, struct lk_err *);
    int (*gather_all)(struct lk_comm *, void *data, const size_t *offsets, struct lk_err *);
    /* send and receive; NULL where there is one rank */
    int (*start)(struct lk_comm *, bool receive, int peer, void *data, size_t size, struct lk_transfer **out,
                 struct lk_err *);
    int (*test)(struct lk_comm *, struct lk_transfer **, bool wait, struct lk_err *);
    /* Lets the transfers of this rank move on; NULL where they need no help. */
    void (*progress)(struct lk_comm *);
    /* NULL where ranks may be on different machines */
    int (*share)(struct lk_comm *, size_t bytes, struct lk_shared *out, struct lk_err *);
    void (*unshare)(struct lk_comm *, struct lk_shared *);
    void (*mark)(struct lk_comm *, uint64_t value);
    uint64_t (*marked)(struct lk_comm *, int rank);
    int (*wait_mark)(struct lk_comm *, int rank, uint64_t value, struct lk_err *);
};
/* The first member of an engine's own struct. */
struct lk_comm {
    const struct lk_comm_ops *ops;
    int rank, ranks;
    int ranks_here;  /* on this machine, as far as the engine knows */
    bool broken;     /* set before close: waits for nobody */
    size_t *offsets; /* (ranks + 1): comm.c's, so that nothing small can fail for want of memory later */
    int32_t *codes;  /* (ranks) */
};

int lk__comm_self_open(struct lk_comm **out, struct lk_err *);
/* Wraps inner, which it owns from then on. LK_EUNSUPPORTED, on all ranks alike and with inner still the caller's: they
 * cannot share memory. */
int lk__comm_shared_open(struct lk_comm *inner, struct lk_comm **out, struct lk_err *);
/* What comm.c needs in a handle that an engine has just opened. On failure the handle is closed and *out NULL. */
int lk__comm_ready(struct lk_comm **out, struct lk_err *);

/* The MPI engine is a shared object of its own (lockstep-mpi.so), so that only ranks load MPI; this is its one symbol. abi:
 * that of the program that loads it; another one is refused. */
#define LK__COMM_ABI 2
typedef int lk__comm_mpi_open_fn(unsigned abi, struct lk_comm **out, struct lk_err *);
/* Where the shared object is; *path: lk_free. LK_EUNSUPPORTED with what to do when it is nowhere. */
int lk__comm_mpi_find(char **path, struct lk_err *);

#endif
