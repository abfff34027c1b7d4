/* The lab floor: pictures of runs, and garbage collection of the store. */
#ifndef LOCKSTEP_LAB_H
#define LOCKSTEP_LAB_H
#include "lockstep/train/train.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The loss curve of a run as a self-contained SVG: training loss (raw and smoothed) and evaluations over steps.
 * LK_ENOTFOUND: no such run, or it has no steps yet. LK_ECORRUPT: a damaged row of its ledger. LK_EIO, LK_EBUSY: of
 * lk_kv_begin and lk_kv_scan. LK_ENOMEM. */
int lk_plot_run(struct lk_store *, const char *run, struct lk_buf *out, struct lk_err *);

struct lk_gc_result {
    uint64_t blobs, bytes;     /* removed, or that would be */
    uint64_t kept, kept_bytes; /* reachable, or younger than the grace period */
};
/* Removes blobs that no name, record or kept checkpoint reaches and that are older than grace_ms (writers name their blobs
 * only at the end). A manifest reaches every root that its text holds.
 * When what is needed can't be told, nothing is removed: LK_ECORRUPT (a damaged row or manifest), LK_EIO, LK_EBUSY (of
 * lk_kv_begin and lk_kv_scan), LK_ENOMEM. LK_EIO also for a blob that could not be removed; those before it are gone, what
 * is needed is there. */
int lk_gc(struct lk_store *, int64_t grace_ms, bool dry_run, struct lk_gc_result *out, struct lk_err *);

#ifdef __cplusplus
}
#endif
#endif
