/* Tables of a store, answered as Cloud Bigtable's API v2 over gRPC, so that Google's own clients work unchanged: they go
 * where BIGTABLE_EMULATOR_HOST says. What is written is durable when its call returns. docs/tables-clients.md says what
 * the API has that is not here. */
#ifndef LOCKSTEP_STORE_BIGTABLE_H
#define LOCKSTEP_STORE_BIGTABLE_H
#include "lockstep/net/grpc_server.h"
#include "lockstep/net/keys.h"
#include "lockstep/store/table.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Which table of the store "projects/P/instances/I/tables/T" is. */
enum lk_bigtable_names {
    LK_BIGTABLE_BY_TABLE,    /* T, whatever P and I are */
    LK_BIGTABLE_BY_INSTANCE, /* I/T */
    LK_BIGTABLE_BY_PROJECT   /* P/I/T */
};
struct lk_bigtable_options {
    struct lk_store *store; /* borrowed, opened to write */
    const char *listen;     /* as of lk_grpc_options, as are these four */
    const char *tls_certificate, *tls_key;
    struct lk_grpc_limits limits;
    struct lk_metrics *metrics;
    /* Whoever asks needs a key whose line has read=PREFIX, write=PREFIX or admin=PREFIX for the table's name in the store.
     * NULL: everybody may do everything. Borrowed. */
    struct lk_keys *keys;
    const char *project, *instance; /* others are PERMISSION_DENIED; NULL: all are there */
    enum lk_bigtable_names names;
    /* A scan sees one state of the table for so long, then, between two rows, goes on in a newer one: a slow reader does
     * not keep the store from using its space again. A row that is not through six times as long later ends its call with
     * UNAVAILABLE, and the client goes on behind its last row. 0: 10 s. */
    uint32_t snapshot_ms;
};
struct lk_bigtable;
/* Errors as of lk_grpc_server_open. */
int lk_bigtable_open(const struct lk_bigtable_options *, struct lk_bigtable **out, struct lk_err *);
const char *lk_bigtable_address(const struct lk_bigtable *); /* "127.0.0.1:8086" */
/* As lk_grpc_server_drain, _close and _count. */
void lk_bigtable_drain(struct lk_bigtable *);
void lk_bigtable_close(struct lk_bigtable *, uint32_t grace_ms);
void lk_bigtable_count(struct lk_bigtable *, struct lk_grpc_counts *out);

#ifdef __cplusplus
}
#endif
#endif
