/* What store.c and move.c share: the row that says what a store is. Private to src/store. */
#ifndef LOCKSTEP_STORE_OPENING_H
#define LOCKSTEP_STORE_OPENING_H
#include "lockstep/store/store.h"

#define LK__STORE_FORMAT_KEY "format"
#define LK__STORE_FORMAT     "0"
/* Of a store that a move fills, the row "format" is this and a JSON object (docs/formats.md), so that no release opens it
 * before it is whole. */
#define LK__STORE_MOVING "moving "

bool lk__store_is_moving(struct lk_bytes format);
/* LK_EBUSY: what it is half of, and how the move goes on. */
int lk__store_fail_moving(const struct lk_store *, struct lk_bytes format, struct lk_err *);
/* Made if it is absent; what its rows say is not looked at. Else as lk_store_open_at. */
int lk__store_open_to_fill(const char *url, const char *blobs_url, struct lk_store **out, struct lk_err *);

#endif
