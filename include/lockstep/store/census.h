/* What a store holds, counted. */
#ifndef LOCKSTEP_STORE_CENSUS_H
#define LOCKSTEP_STORE_CENSUS_H
#include "lockstep/store/gc.h"
#include "lockstep/store/lease.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LK_CENSUS_KINDS 32
struct lk_census_kind {
    const struct lk_row_kind *kind; /* NULL: rows of no kind that is known */
    uint64_t rows, bytes;           /* keys and values */
};
struct lk_census {
    struct lk_census_kind kinds[LK_CENSUS_KINDS]; /* in the order of their first rows */
    size_t kind_count;
    uint64_t rows, row_bytes;
    struct lk_root rows_root; /* of all rows but "format": docs/formats.md */
    uint64_t blobs, blob_bytes;
    bool reach_known;                /* false: a row is damaged or of no kind, as `why` says */
    uint64_t reached, reached_bytes; /* blobs that a row needs */
    struct lk_err why;
};
/* All rows of one snapshot, and all blobs. More than LK_CENSUS_KINDS kinds of rows is an assertion. LK_EIO, LK_ENOMEM,
 * LK_EBUSY and LK_ECORRUPT as lk_kv_scan and lk_blobs_list. */
int lk_store_census(struct lk_store *, lk_row_kinds, struct lk_census *out, struct lk_err *);

/* Calls fn for each lease that somebody holds; fn returning non-zero ends it and is returned. Errors as lk_lease_look. */
typedef int lk_lease_fn(void *arg, const char *kind, const char *name, const struct lk_lease_state *);
int lk_lease_list(struct lk_store *, lk_lease_fn *, void *arg, struct lk_err *);

#ifdef __cplusplus
}
#endif
#endif
