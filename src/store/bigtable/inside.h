/* What the files of this room share: a call with its memory, names, methods. */
#ifndef LK_BIGTABLE_INSIDE_H
#define LK_BIGTABLE_INSIDE_H
#include "google/bigtable/v2/bigtable.pb-c.h"
#include "lockstep/store/bigtable.h"
#include <pthread.h>

#define V2(name)    Google__Bigtable__V2__##name
#define ADMIN(name) Google__Bigtable__Admin__V2__##name

/* --- one call -------------------------------------------------------------------------------------------- */

struct lk__bigtable_chunk;
struct lk__bigtable_handle;
struct lk__bigtable_call {
    struct lk_bigtable *b;
    struct lk_grpc_call *grpc;
    /* Memory that goes with the call: what is unpacked, and what is made of it. */
    ProtobufCAllocator memory;
    struct lk__bigtable_chunk *chunks;
    char *at, *end;
    const char *stack; /* where it stood before the message was unpacked */
    bool too_deep;
    enum lk_grpc_status status; /* of the failure, where the code does not say it; 0: the code does */
    const char *name;           /* of the table, as it was asked for */
    struct lk__bigtable_handle *handle;
    struct lk_table *table;
    _Alignas(16) char first[4096];
};
void *lk__bigtable_take(struct lk__bigtable_call *, size_t size_bytes);             /* NULL: no memory */
char *lk__bigtable_text(struct lk__bigtable_call *, const char *text, size_t size); /* a copy; NULL: no memory */
int lk__bigtable_no_memory(struct lk_err *);
/* Fails with this status, whatever the code is. */
int lk__bigtable_refuse(struct lk__bigtable_call *, enum lk_grpc_status, struct lk_err *, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
static inline struct lk_bytes lk__bigtable_bytes(ProtobufCBinaryData d) {
    return lk_bytes(d.data ? d.data : (const unsigned char *)"", d.len);
}

enum lk__bigtable_right { LK__BIGTABLE_READ, LK__BIGTABLE_WRITE, LK__BIGTABLE_ADMIN };
struct lk__bigtable_method {
    const char *path;
    enum lk_grpc_kind kind;
    const ProtobufCMessageDescriptor *request; /* NULL: nothing of it is read */
    int (*handle)(struct lk__bigtable_call *, const void *request, struct lk_err *);
};
extern const struct lk__bigtable_method lk__bigtable_data[], lk__bigtable_tables[], lk__bigtable_instances[];
extern const size_t lk__bigtable_data_count, lk__bigtable_tables_count, lk__bigtable_instances_count;

/* --- names ----------------------------------------------------------------------------------------------- */

/* Of "projects/P/instances/I", and, where what is not NULL, "/WHAT/NAME" behind it. */
struct lk__bigtable_name {
    const char *project, *instance, *name;
};
/* LK_EINVAL: not of that form. PERMISSION_DENIED: another project or instance than those that are served. */
int lk__bigtable_name_parse(struct lk__bigtable_call *, const char *full, const char *what, struct lk__bigtable_name *out,
                            struct lk_err *);
/* Its table in the store; NULL: no memory. */
char *lk__bigtable_store_name(struct lk__bigtable_call *, const struct lk__bigtable_name *);
/* The other way round, for tables of this project and instance: NULL for others. */
const char *lk__bigtable_table_of(struct lk__bigtable_call *, const struct lk__bigtable_name *, const char *store_name);
bool lk__bigtable_may(struct lk__bigtable_call *, enum lk__bigtable_right, const char *store_name);
/* Parses, asks for the right, gives the name in the store. */
int lk__bigtable_named(struct lk__bigtable_call *, const char *full, enum lk__bigtable_right, char **store_name,
                       struct lk_err *);
/* The table of a call, in c->table until it ends. NOT_FOUND. */
int lk__bigtable_table(struct lk__bigtable_call *, const char *full, enum lk__bigtable_right, struct lk_err *);
void lk__bigtable_table_done(struct lk__bigtable_call *);
void lk__bigtable_handles_close(struct lk_bigtable *);

/* --- conversions ----------------------------------------------------------------------------------------- */

/* What is made lives as long as the call. */
int lk__bigtable_filter(struct lk__bigtable_call *, const V2(RowFilter) *, struct lk_filter_program **out,
                        struct lk_err *); /* *out NULL: everything; else for lk_filter_free */
int lk__bigtable_mutations(struct lk__bigtable_call *, V2(Mutation) *const *, size_t count, struct lk_mutation **out,
                           struct lk_err *);
int lk__bigtable_rows(struct lk__bigtable_call *, const V2(RowSet) *, struct lk_table_read *out, struct lk_err *);
/* The same without what is not behind `last`. */
int lk__bigtable_rows_behind(struct lk__bigtable_call *, struct lk_table_read *, struct lk_bytes last, bool *done,
                             struct lk_err *);

int lk__bigtable_read_rows(struct lk__bigtable_call *, const void *, struct lk_err *);

struct lk_bigtable {
    struct lk_store *store;
    struct lk_grpc_server *server;
    struct lk_keys *keys;
    char *project, *instance;
    enum lk_bigtable_names names;
    uint32_t snapshot_ms;
    struct lk__bigtable_bound *bound;
    pthread_mutex_t lock; /* of the handles */
    struct lk__bigtable_handle *handles[256];
    size_t handle_count;
};

#endif
