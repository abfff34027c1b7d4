/* Removing blobs, and who must not be disturbed by it: README.md, "Garbage", has the protocol and its proof. Private to
 * src/store. */
#ifndef LOCKSTEP_STORE_SWEEP_H
#define LOCKSTEP_STORE_SWEEP_H
#include "lockstep/store/lease.h"
#include "lockstep/store/uploads.h"
#include "store/kv/kv_engine.h"

#define LK__STORE_BATCH 4096 /* roots that are doomed at once */

extern uint32_t lk__store_late_ms;     /* a removal that was begun so long ago, and not ended, does not happen any more */
extern uint32_t lk__store_patience_ms; /* how long others are waited for */

/* What tests do to the protocol's steps. */
enum lk__store_planted {
    LK__STORE_NO_ANNOUNCING = 1,  /* writers do not announce what they put */
    LK__STORE_NO_SECOND_LOOK = 2, /* the dooming transaction believes the snapshot before it */
    LK__STORE_NO_DOOM = 4,        /* nobody looks at what is doomed */
    LK__STORE_NO_LEASE = 8,       /* an upload whose lease is lost is named all the same */
    LK__STORE_NO_BOUND = 16,      /* a remover that was away for long goes on */
    LK__STORE_LEASE_IGNORED = 32, /* the collector takes every upload for dead */
};
extern unsigned lk__store_planted;
extern int64_t lk__store_skipped_ms;             /* time that passed for tests only */
extern void (*lk__store_step)(const char *what); /* called between steps, outside of transactions; NULL: nobody looks */
static inline void lk__store_at(const char *what) {
    if (lk__store_step) lk__store_step(what);
}
static inline bool lk__store_is_planted(enum lk__store_planted fault) {
    return (lk__store_planted & fault) != 0;
}
/* Waits a moment for another process; false: the patience is spent. began_ns: 0 at first. */
bool lk__store_wait(uint64_t *began_ns);

/* Stores of one machine keep in files beside the locks what others keep in rows, as every commit of theirs costs a sync.
 * out: (4096) */
char *lk__store_note_path(const struct lk_store *, const char *kind, const char *name, char *out);
static inline bool lk__store_is_timed(const struct lk_store *s) {
    return s->kv->ops->now != NULL;
}

/* One remover of a store. */
struct lk__store_sweep {
    struct lk_store *store;
    struct lk_lease *lock; /* of one machine's store */
    uint64_t number;       /* of what it doomed last */
    uint64_t began_ns;
};
/* LK_EBUSY: another one is at work, for longer than the patience. */
int lk__store_sweep_open(struct lk_store *, struct lk__store_sweep *, struct lk_err *);
void lk__store_sweep_close(struct lk__store_sweep *);
/* Before each transaction that dooms: how long it may remove is counted from here. */
void lk__store_sweep_begins(struct lk__store_sweep *);
/* In a write transaction: from its commit on nobody names one of these until lk__store_sweep_done. LK_EBUSY: what another
 * one doomed is not done. */
int lk__store_sweep_doom(struct lk__store_sweep *, struct lk_kv_txn *, const struct lk_root *, size_t count,
                         struct lk_err *);
/* Whether it may remove what it doomed, still: asked before each. */
bool lk__store_sweep_in_time(const struct lk__store_sweep *);
int lk__store_sweep_done(struct lk__store_sweep *, struct lk_err *);
/* Ends what a dead remover left, or one that is too late. */
int lk__store_sweep_settle(struct lk_store *, struct lk_err *);
int lk__store_is_doomed(struct lk_store *, struct lk_kv_txn *, const struct lk_root *, size_t count, bool *out,
                        struct lk_err *);

/* Of stores that are opened to be changed. */
int lk__store_uploads_open(struct lk_store *, struct lk_err *);
void lk__store_uploads_close(struct lk_store *);
struct lk__store_marks;
/* Marks what files announce; rows are marked as other rows. skip: IDs of sessions that do not count. */
int lk__store_uploads_mark(struct lk_store *, struct lk__store_marks *, const struct lk_buf *skip, struct lk_err *);
/* Sessions whose process is gone: `skip` collects their IDs, each ended by a zero; with remove their rows go. */
int lk__store_uploads_end_dead(struct lk_store *, bool remove, struct lk_buf *skip, struct lk_err *);

#endif
