/* Leases: something that one process at a time does, as training a run, whatever dies and whoever stops for a while.
 * Each taking has a fence, a number that grows: what its holder writes, it writes in transactions that look whether the
 * lease is still its own, so one who was thought dead and goes on changes nothing.
 * A store of one machine (file:) has a lock of the kernel for each lease, which goes with its process however that ends.
 * Elsewhere the row says until when, in the server's time, and a thread of the holder renews it; a holder of this machine
 * that is gone has none either. */
#ifndef LOCKSTEP_LEASE_H
#define LOCKSTEP_LEASE_H
#include "lockstep/store/store.h"

#ifdef __cplusplus
extern "C" {
#endif

struct lk_lease;
/* Takes kind/name, as "run" and its name (words as lk_name_valid takes them). The store is borrowed until release.
 * LK_EBUSY: somebody has it; the message says who. The errors of lk_kv_update; LK_EIO: no permission in DIR/locks. */
int lk_lease_acquire(struct lk_store *, const char *kind, const char *name, struct lk_lease **out, struct lk_err *);
/* Not in a write transaction of this thread. gone: what it was about is no more, and its lock goes too. NULL is released
 * already. */
void lk_lease_release(struct lk_lease *, bool gone);
uint64_t lk_lease_fence(const struct lk_lease *);
/* In a write transaction of the holder, before its commit: LK_EBUSY, another one has taken the lease since, and this holder
 * must end. Threads: any, each with a transaction of its own. */
int lk_lease_check(const struct lk_lease *, struct lk_kv_txn *, struct lk_err *);

struct lk_lease_state {
    bool held;
    bool here;        /* by a process of this machine, which `process` says */
    long process;     /* 0: not known */
    uint64_t fence;   /* of the last taking that wrote it; 0: none did */
    char holder[160]; /* "process 12 on host"; empty: nobody */
};
int lk_lease_look(struct lk_store *, const char *kind, const char *name, struct lk_lease_state *out, struct lk_err *);

#ifdef __cplusplus
}
#endif
#endif
