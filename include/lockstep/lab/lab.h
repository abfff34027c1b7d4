/* The lab floor: pictures of runs, and garbage collection of the store. */
#ifndef LOCKSTEP_LAB_H
#define LOCKSTEP_LAB_H
#include "lockstep/train/train.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The loss curve of a run as a self-contained SVG: training loss (raw and smoothed) and evaluations over steps. */
int lk_plot_run(struct lk_store *, const char *run, struct lk_buf *out, struct lk_err *);

struct lk_gc_result {
    uint64_t blobs, bytes;     /* removed, or that would be */
    uint64_t kept, kept_bytes; /* reachable, or younger than the grace period */
};
/* Removes blobs that no name, record or kept checkpoint reaches and that are older than grace_ms (writers name their blobs
 * only at the end). A manifest reaches every root that its text holds. */
int lk_gc(struct lk_store *, int64_t grace_ms, bool dry_run, struct lk_gc_result *out, struct lk_err *);

#ifdef __cplusplus
}
#endif
#endif
