/* The cluster floor: the ranks of one job, and what they tell each other. How they are started: launch.h.
 *
 * A rank is one process of a job. Every function that takes a `name` is a step that all ranks take together, or that two of
 * them take as sender and receiver; the name is for messages (and, later, for whoever watches), never for matching: ranks
 * call in the same order. Failures of the transport are LK_EIO with rank, name and reason; after one nothing further can be
 * agreed and the process should end. One thread a handle; lk_comm_dup gives another thread its own. Algorithms:
 * src/cluster/README.md. */
#ifndef LOCKSTEP_COMM_H
#define LOCKSTEP_COMM_H
#include "lockstep/base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct lk_comm;

/* Whether this process was started as one of several ranks (by mpirun or by lk_launch_submit), and which one; read from the
 * environment, so it costs nothing and starts nothing. rank and ranks may be NULL. */
bool lk_comm_launched(int *rank, int *ranks);
/* The ranks this process belongs to: over MPI if launched, else this process alone. Collective. LK_EUNSUPPORTED, with what
 * to install or build, when launched and the MPI part is not there. */
int lk_comm_open(struct lk_comm **out, struct lk_err *);
/* This process alone, whatever the environment says. */
int lk_comm_open_self(struct lk_comm **out, struct lk_err *);
/* The same ranks for another thread. Collective. Close it before the first one. */
int lk_comm_dup(struct lk_comm *, struct lk_comm **out, struct lk_err *);
void lk_comm_close(struct lk_comm *); /* collective, in agreement; NULL is allowed */
/* The most ranks of a job. */
#define LK_RANKS_MAX 1024
int lk_comm_rank(const struct lk_comm *);
int lk_comm_ranks(const struct lk_comm *);
const char *lk_comm_engine(const struct lk_comm *); /* "self", "shared memory", "MPI": for people */
bool lk_comm_shares(const struct lk_comm *);        /* lk_comm_share works: all ranks are on this machine */

int lk_comm_ranks_here(const struct lk_comm *); /* ranks on this machine, this one included */
/* After a failure that the ranks have not agreed on (the transport's, or one that lk_comm_break tells of) nobody can be
 * told of it: every operation of any handle of this process fails at once instead of waiting, lk_comm_close waits for
 * nobody, and the process should say why and end, so that whoever started the ranks ends the others. */
bool lk_comm_broken(void);
void lk_comm_break(const struct lk_comm *); /* alone: nothing */

/* --- Together, small: blocks until done ------------------------------------------------------------------ */
/* data: the bytes [offsets[r], offsets[r + 1]) are rank r's own before, and everyone has all of them after. offsets: ranks
 * + 1, ascending from 0, equal on all ranks. */
int lk_comm_gather_all(struct lk_comm *, const char *name, void *data, const size_t *offsets, struct lk_err *);
/* Rank 0's bytes go to all. */
int lk_comm_broadcast(struct lk_comm *, const char *name, void *data, size_t size, struct lk_err *);
int lk_comm_barrier(struct lk_comm *, const char *name, struct lk_err *);
/* Each rank brings the code (and, when it is not LK_OK, the message in *err) of what it has just done; all return the same:
 * LK_OK if all have succeeded, else code and message of the lowest rank that failed, with "rank N: " in front unless N is
 * 0. err must not be NULL when code is not LK_OK. */
int lk_comm_agree(struct lk_comm *, const char *name, int code, struct lk_err *err);

/* --- Between two ranks: begun now, finished later -------------------------------------------------------- */
/* Transfers from one rank to another arrive in the order in which they were begun. The memory is the comm's until the
 * transfer is done. */
struct lk_transfer;
int lk_comm_send(struct lk_comm *, const char *name, int to, const void *data, size_t size, struct lk_transfer **out,
                 struct lk_err *);
int lk_comm_receive(struct lk_comm *, const char *name, int from, void *data, size_t size, struct lk_transfer **out,
                    struct lk_err *);
/* *t becomes NULL when the transfer is done (freed); wait: not before. NULL *t: done already. Asking makes progress. */
int lk_comm_test(struct lk_comm *, struct lk_transfer **t, bool wait, struct lk_err *);

/* --- Memory that all ranks see --------------------------------------------------------------------------- */
struct lk_shared {
    void *mine; /* this rank's bytes, zero at first, page-aligned */
    size_t bytes;
    void **all; /* (ranks): where each rank's memory lies in this process; all[rank] == mine */
    void *engine;
};
/* Each rank brings as many bytes as it likes (at least 1). LK_EUNSUPPORTED on all ranks alike when they are not all on one
 * machine (or LOCKSTEP_SHARED_MEMORY=no): then messages must do. Collective; so is the release. */
int lk_comm_share(struct lk_comm *, const char *name, size_t bytes, struct lk_shared *out, struct lk_err *);
void lk_comm_unshare(struct lk_comm *, struct lk_shared *);
/* A number of each rank that only ascends and that all others see, where lk_comm_share works: what a rank wrote into shared
 * memory before it marked a value is visible to whoever has seen that value. */
void lk_comm_mark(struct lk_comm *, uint64_t value);
uint64_t lk_comm_marked(struct lk_comm *, int rank);
int lk_comm_wait_mark(struct lk_comm *, const char *name, int rank, uint64_t value, struct lk_err *);

#ifdef __cplusplus
}
#endif
#endif
