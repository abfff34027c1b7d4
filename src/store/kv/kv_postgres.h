/* What the files of the PostgreSQL engine share; postgres.md beside it says how it works. Private to src/store/kv. */
#ifndef LK_KV_POSTGRES_H
#define LK_KV_POSTGRES_H
#include "lockstep/base/mem.h"
#include "store/kv/kv_engine.h"
#include <libpq-fe.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

#define LK__KV_PG_KEY_MAX   2600              /* a row of an index has 2,704 bytes */
#define LK__KV_PG_PART      ((size_t)1 << 20) /* of a value */
#define LK__KV_PG_STATEMENT ((size_t)8 << 20) /* about as many bytes of rows go in one statement */
#define LK__KV_PG_SLOTS     32

/* --- libpq, loaded at the first use ------------------------------------------------------------------------- */

#define LK__KV_PG_FUNCTIONS(X)                                                                                             \
    X(clear)                                                                                                               \
    X(cmdStatus)                                                                                                           \
    X(conninfoFree)                                                                                                        \
    X(conninfoParse)                                                                                                       \
    X(connectPoll)                                                                                                         \
    X(connectStartParams)                                                                                                  \
    X(consumeInput)                                                                                                        \
    X(enterPipelineMode)                                                                                                   \
    X(errorMessage)                                                                                                        \
    X(finish)                                                                                                              \
    X(flush)                                                                                                               \
    X(freemem)                                                                                                             \
    X(getResult)                                                                                                           \
    X(getisnull)                                                                                                           \
    X(getlength)                                                                                                           \
    X(getvalue)                                                                                                            \
    X(isBusy)                                                                                                              \
    X(ntuples)                                                                                                             \
    X(pipelineSync)                                                                                                        \
    X(resultErrorField)                                                                                                    \
    X(resultStatus)                                                                                                        \
    X(sendPrepare)                                                                                                         \
    X(sendQueryParams)                                                                                                     \
    X(sendQueryPrepared)                                                                                                   \
    X(setNoticeReceiver)                                                                                                   \
    X(setnonblocking)                                                                                                      \
    X(socket)                                                                                                              \
    X(status)
struct lk__kv_pq {
#define X(name) __typeof__(PQ##name) *name;
    LK__KV_PG_FUNCTIONS(X)
#undef X
};
extern struct lk__kv_pq lk__kv_pq; /* filled by lk__kv_pq_load */
/* LK_EUNSUPPORTED: it is not on this machine. Threads: any. */
int lk__kv_pq_load(struct lk_err *);

/* --- one connection (kv_postgres_wire.c) --------------------------------------------------------------------- */

/* Prepared at their first use on a connection; the texts are in kv_postgres_wire.c. */
enum lk__kv_pg_statement {
    PG_GET,
    PG_GET_MANY,
    PG_FORWARD,
    PG_BACK,
    PG_PARTS,
    PG_TIME,
    PG_NOW,
    PG_SLOT,
    PG_ALL_SLOTS,
    PG_NEXT_TIME,
    PG_LOCK,
    PG_PLAIN,
    PG_CHECK_NOTHING,
    PG_CHECK_SHARED,
    PG_CHECK,
    PG_STAMP,
    PG_DELETE_RANGES,
    PG_DELETE,
    PG_PUT,
    PG_PUT_PARTS,
    PG_BARRIER,
    PG_OUTCOME,
    PG_STATS,
    PG_FORGET,
    PG_STATEMENTS
};

struct lk__kv_pg;
struct lk__kv_pg_conn {
    PGconn *pq;
    struct lk__kv_pg *kv;
    struct lk__kv_pg_conn *next; /* in the pool */
    struct lk_buf expected;      /* what was sent and not answered, a byte each, from `answered` on */
    size_t answered;
    bool prepared[PG_STATEMENTS];
    bool lost;        /* no longer of use: only lk__kv_pg_drop */
    bool warned;      /* the server gave a warning since this was last false */
    char sqlstate[6]; /* of the last error; "" where the connection was lost */
};

struct lk__kv_pg_param {
    const void *data; /* NULL: a null */
    size_t size;
};
static inline struct lk__kv_pg_param lk__kv_pg_param(struct lk_bytes b) {
    return (struct lk__kv_pg_param){b.data ? b.data : "", b.size};
}
/* Numbers as the wire has them. */
static inline void lk__kv_pg_put32(void *to, uint32_t x) {
    for (int i = 0; i < 4; i++) ((unsigned char *)to)[i] = (unsigned char)(x >> (24 - 8 * i));
}
static inline void lk__kv_pg_put64(void *to, uint64_t x) {
    for (int i = 0; i < 8; i++) ((unsigned char *)to)[i] = (unsigned char)(x >> (56 - 8 * i));
}
static inline int64_t lk__kv_pg_number(const void *from, int size) {
    uint64_t x = 0;
    for (int i = 0; i < size; i++) x = x << 8 | ((const unsigned char *)from)[i];
    return (int64_t)x;
}

/* Arrays in the wire's form: begin, add in turn, then `end` gives the parameter, valid until the array changes. */
struct lk__kv_pg_array {
    struct lk_buf bytes;
    uint32_t type, count;
    bool failed; /* out of memory */
};
enum { PG_BYTEA = 17, PG_INT8 = 20, PG_INT4 = 23, PG_TEXT = 25 };
void lk__kv_pg_array_begin(struct lk__kv_pg_array *, uint32_t type);
void lk__kv_pg_array_add(struct lk__kv_pg_array *, struct lk_bytes);
void lk__kv_pg_array_add_number(struct lk__kv_pg_array *, int64_t);
struct lk__kv_pg_param lk__kv_pg_array_end(struct lk__kv_pg_array *);
void lk__kv_pg_array_release(struct lk__kv_pg_array *);

/* Sending never waits for the server; what fails shows when answers are read. */
void lk__kv_pg_send(struct lk__kv_pg_conn *, enum lk__kv_pg_statement, const struct lk__kv_pg_param *, int count);
void lk__kv_pg_send_text(struct lk__kv_pg_conn *, const char *sql, const struct lk__kv_pg_param *, int count);
void lk__kv_pg_sync(struct lk__kv_pg_conn *); /* ends a pipeline: an error skips what is before it */
/* The answer to the next statement, to be cleared by the caller; *out may be NULL. LK_EIO: conn->sqlstate says which. */
int lk__kv_pg_answer(struct lk__kv_pg_conn *, PGresult **out, struct lk_err *);
/* The sync is next: 0, or what the commit that it does failed with. */
int lk__kv_pg_synced(struct lk__kv_pg_conn *, struct lk_err *);
/* Reads all that is outstanding. */
void lk__kv_pg_drain(struct lk__kv_pg_conn *);
/* After an error in a transaction: drains, rolls back; the connection is as new, or lost. */
void lk__kv_pg_rollback(struct lk__kv_pg_conn *);
bool lk__kv_pg_state_is(const struct lk__kv_pg_conn *, const char *sqlstates); /* one of those, separated by spaces */
/* Whether the error says that the connection or its server went away, so that another one may do better. */
bool lk__kv_pg_gone(const struct lk__kv_pg_conn *);

/* --- connections at rest (kv_postgres_pool.c) ------------------------------------------------------------------ */

uint64_t lk__kv_pg_deadline(const struct lk__kv_pg *); /* for what begins now, by lk_clock_ns */
/* One from the pool or a new one; tries until the deadline where the server is away, once with deadline_ns 0. */
int lk__kv_pg_take(struct lk__kv_pg *, uint64_t deadline_ns, struct lk__kv_pg_conn **out, struct lk_err *);
void lk__kv_pg_give(struct lk__kv_pg_conn *); /* back to the pool, also with answers outstanding; a lost one is dropped */
void lk__kv_pg_drop(struct lk__kv_pg_conn *);
/* Sleeps a little longer each time, with jitter; false: the deadline has come. *turn begins at 0. */
bool lk__kv_pg_pause(int *turn, uint64_t deadline_ns);
int64_t lk__kv_pg_boot_ms(void);

/* --- ordered rows in memory (kv_postgres_map.c) ------------------------------------------------------------------ */

enum lk__kv_pg_kind {
    PG_ROW,    /* own writes: put; reads: there, with that version */
    PG_ABSENT, /* own writes: deleted; reads: absent */
    PG_COVERED /* own writes: gone by a range that was deleted later */
};
#define LK__KV_PG_LEVELS 14
struct lk__kv_pg_node {
    struct lk_bytes key, value;
    int64_t version;
    enum lk__kv_pg_kind kind;
    struct lk__kv_pg_node *before;
    struct lk__kv_pg_node *after[]; /* as many as it has levels */
};
struct lk__kv_pg_map {
    struct lk__kv_pg_node *first[LK__KV_PG_LEVELS];
    size_t count, bytes;
    uint64_t random;
};
struct lk__kv_pg_node *lk__kv_pg_map_find(const struct lk__kv_pg_map *, struct lk_bytes key);
struct lk__kv_pg_node *lk__kv_pg_map_from(const struct lk__kv_pg_map *, struct lk_bytes key); /* first >= key */
struct lk__kv_pg_node *lk__kv_pg_map_below(const struct lk__kv_pg_map *,
                                           struct lk_bytes key); /* last < key; size 0: last */
/* Nodes stay where they are until release; a value is replaced. LK_ENOMEM. */
int lk__kv_pg_map_set(struct lk__kv_pg_map *, struct lk_bytes key, enum lk__kv_pg_kind, int64_t version,
                      struct lk_bytes value, struct lk_err *);
void lk__kv_pg_map_release(struct lk__kv_pg_map *);
/* Bytewise, a prefix before what it begins. */
static inline int lk__kv_pg_compare(struct lk_bytes a, struct lk_bytes b) {
    size_t n = a.size < b.size ? a.size : b.size;
    int c = n ? __builtin_memcmp(a.data, b.data, n) : 0;
    return c ? c : (a.size > b.size) - (a.size < b.size);
}

/* Intervals of keys [low, high); high.size 0: no end. */
struct lk__kv_pg_range {
    struct lk_bytes low, high; /* owned, in one block at `low` */
    int64_t rows;
    __int128 sum; /* of versions */
};
struct lk__kv_pg_ranges {
    struct lk__kv_pg_range *at;
    size_t count, capacity;
};
int lk__kv_pg_ranges_add(struct lk__kv_pg_ranges *, struct lk_bytes low, struct lk_bytes high, int64_t rows, __int128 sum,
                         struct lk_err *);
bool lk__kv_pg_ranges_hold(const struct lk__kv_pg_ranges *, struct lk_bytes key);
void lk__kv_pg_ranges_release(struct lk__kv_pg_ranges *);

/* --- the engine's own structs -------------------------------------------------------------------------------- */

struct lk__kv_pg_member; /* kv_postgres_commit.c */
struct lk__kv_pg_call;   /* kv_postgres_update.c */
struct lk__kv_pg {
    struct lk_kv base;
    char *url;   /* as libpq reads it: without schema and deadline_ms */
    char *shown; /* without a password */
    char *schema;
    int64_t deadline_ms;
    char end[LK__KV_PG_KEY_MAX + 1]; /* a key behind all keys */
    enum lk_access access;
    pid_t pid;
    bool opened; /* from then on an absent server is waited for */
    atomic_int transactions;
    pthread_mutex_t lock; /* guards what follows */
    struct lk__kv_pg_conn *idle;
    int64_t clock_ahead_ms; /* the server's time less CLOCK_BOOTTIME, when it was last asked */
    pthread_cond_t done;
    struct lk__kv_pg_member *queue, **queue_end;
    struct lk__kv_pg_call *calls, **calls_end; /* of lk_kv_update */
    bool calls_led;
    bool led;  /* a thread is committing for all */
    bool lazy; /* something was committed that may not be on disk yet */
    uint64_t batches, members, conflicts, resent;
};

struct lk__kv_pg_chunk;
struct lk__kv_pg_txn {
    struct lk_kv_txn base;
    struct lk__kv_pg *kv;
    struct lk__kv_pg_conn *conn; /* with the snapshot; NULL before the first read */
    struct lk__kv_pg_conn *held; /* in a transaction that has locked what the commit needs, and goes on there */
    bool held_all;               /* all slots, else one and some rows */
    bool lost;                   /* the snapshot is gone */
    bool forgot;                 /* no memory for what was read: it cannot be checked */
    int64_t version;             /* of the rows that it writes */
    int64_t next_time;           /* while all slots are held */
    int64_t time;                /* the last one promised by lk__kv_timestamp; 0: none */
    int64_t call_time;           /* promised to this call of a group; 0: none */
    int64_t deferred;            /* calls of a group that get their time by the commit, or as the first ones promised */
    bool unknown;                /* nobody knows whether it was committed */
    struct lk__kv_pg_map writes, reads;
    struct lk__kv_pg_ranges deleted, walked;
    struct lk__kv_pg_chunk *values; /* memory of what gets gave */
};

/* Runs a statement in the transaction's snapshot; *out is the caller's to clear. (kv_postgres_read.c) */
int lk__kv_pg_query(struct lk__kv_pg_txn *, enum lk__kv_pg_statement, const struct lk__kv_pg_param *, int count,
                    PGresult **out, struct lk_err *);
/* A value in parts, to the end of `out`. */
int lk__kv_pg_read_parts(struct lk__kv_pg_txn *, struct lk_bytes key, int64_t parts, struct lk_buf *out, struct lk_err *);
int lk__kv_pg_get(struct lk_kv_txn *, struct lk_bytes key, struct lk_bytes *value, struct lk_err *);
int lk__kv_pg_get_many(struct lk_kv_txn *, const struct lk_bytes *keys, size_t count, struct lk_bytes *values,
                       struct lk_err *);
void lk__kv_pg_free_values(struct lk__kv_pg_txn *);

/* kv_postgres_cursor.c */
int lk__kv_pg_cursor_open(struct lk_kv_txn *, struct lk_kv_cursor **out, struct lk_err *);
void lk__kv_pg_cursor_close(struct lk_kv_cursor *);
int lk__kv_pg_cursor_seek(struct lk_kv_cursor *, struct lk_bytes key, bool back, struct lk_err *);
int lk__kv_pg_cursor_step(struct lk_kv_cursor *, bool back, struct lk_err *);

/* kv_postgres_commit.c: ends what the server knows of the transaction, not its memory. */
int lk__kv_pg_commit(struct lk__kv_pg_txn *, enum lk_durability, bool stamped, int64_t *timestamp_ms, struct lk_err *);
/* Locks until the commit: all slots, or (keys: an array, not NULL) one of them and those rows. */
int lk__kv_pg_hold(struct lk__kv_pg_txn *, const struct lk__kv_pg_param *keys, struct lk_err *);
/* kv_postgres_update.c */
int lk__kv_pg_update(struct lk_kv *, lk_kv_update_fn *, void *arg, enum lk_durability, int64_t *timestamp_ms,
                     struct lk_err *);
int lk__kv_pg_begin(struct lk_kv *, bool write, struct lk_kv_txn **out, struct lk_err *);
void lk__kv_pg_end(struct lk__kv_pg_txn *);
int lk__kv_pg_timestamp(struct lk_kv_txn *, int64_t *out, struct lk_err *);
/* kv_postgres_check.c: sends a member's statements, behind those that lock. */
bool lk__kv_pg_is_plain(const struct lk__kv_pg_txn *); /* only puts, none of them large */
bool lk__kv_pg_needs_all_slots(const struct lk__kv_pg_txn *, bool stamped);
void lk__kv_pg_send_member(struct lk__kv_pg_conn *, const struct lk__kv_pg_txn *, const unsigned char *id, int number,
                           bool all_slots, bool stamped, int *statements, bool *failed);

/* kv_postgres_open.c */
int lk__kv_pg_open(const char *url, enum lk_access, struct lk__kv_pg **out, struct lk_err *);
void lk__kv_pg_close(struct lk__kv_pg *);
int lk__kv_pg_random(void *out, size_t size, struct lk_err *);

#endif
