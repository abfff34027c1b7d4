/* Pins: a snapshot of a store that garbage collection leaves alone, under a name, for a time or until it is released. */
#ifndef LOCKSTEP_STORE_PIN_H
#define LOCKSTEP_STORE_PIN_H
#include "lockstep/store/gc.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What all rows reach at the moment of the pin stays until it ends, whatever rows change or go.
 * The token is the root of a manifest that lists the roots which rows hold, sorted; so stores with the same rows have the
 * same token, on every engine and machine. What only other pins and running uploads hold is no part of it.
 * A pin's row is the pin: it holds until the row is gone. When its time is over, the next collector or the next taking of
 * its name removes it; until then a renewal saves all of it. */
#define LK_PIN_HOLDER 160
struct lk_pin {
    char name[129];
    struct lk_root token;
    int64_t at_ms;              /* commit time of the taking; no two pins of a store have the same */
    int64_t until_ms;           /* of the store's time; 0: until it is released */
    char holder[LK_PIN_HOLDER]; /* for people */
    bool over;                  /* of lk_pin_get and lk_pin_list: its time is */
};

/* name: as lk_name_valid takes it. for_ms: how long, 0: until it is released. holder: for people, at most LK_PIN_HOLDER - 1
 * bytes of UTF-8; NULL: this process and host. In one transaction, which agrees with the order of all others: its time and
 * its roots are those of that place.
 * LK_EEXISTS: such a pin is held; the message says by whom. LK_EINVAL: the name, the time or the holder. LK_EBUSY: the
 * rows changed faster than they could be listed. Else as lk_store_gc, lk_blob_put, lk_kv_update. */
int lk_pin_take(struct lk_store *, lk_row_kinds, const char *name, int64_t for_ms, const char *holder, struct lk_pin *out,
                struct lk_err *);
/* From now on for_ms longer, or until it is released (0). at_ms: that of the taking, so that a holder who was away does not
 * touch the pin of another who took the name since (LK_EBUSY); 0: whosever it is. out may be NULL. LK_ENOTFOUND: there is
 * no such pin (any more). */
int lk_pin_renew(struct lk_store *, const char *name, int64_t at_ms, int64_t for_ms, struct lk_pin *out, struct lk_err *);
/* Errors as of lk_pin_renew. */
int lk_pin_release(struct lk_store *, const char *name, int64_t at_ms, struct lk_err *);

/* LK_ENOTFOUND that lists the nearest names. LK_ECORRUPT: a row that is none of a pin's. */
int lk_pin_get(struct lk_kv_txn *, const char *name, struct lk_pin *out, struct lk_err *);
/* In the order of names; fn returning non-zero ends the list and is returned. */
typedef int lk_pin_fn(void *arg, const struct lk_pin *);
int lk_pin_list(struct lk_kv_txn *, lk_pin_fn *fn, void *arg, struct lk_err *);
/* The roots that a pin holds by itself, sorted (the caller frees *roots): its manifest, verified. What these manifests name
 * is held with them. */
int lk_pin_roots(struct lk_store *, const struct lk_root *token, struct lk_root **roots, size_t *count, struct lk_err *);
/* The token that a pin would have now; nothing is stored. */
int lk_pin_token(struct lk_store *, lk_row_kinds, struct lk_root *out, struct lk_err *);

/* The at_ms of the oldest pin, INT64_MAX: there is none. For floors that keep several versions of a row, each with the time
 * of its commit: a version may go when a newer one of the same row has a time of at most this. In the transaction that
 * removes versions, so that no pin is taken in between. Pins whose time is over count until they are removed. */
int lk_pin_watermark(struct lk_kv_txn *, int64_t *out_ms, struct lk_err *);
/* In a write transaction: removes the pins whose time is over; it takes the transaction's time. */
int lk_pin_expire(struct lk_kv_txn *, struct lk_err *);

#ifdef __cplusplus
}
#endif
#endif
