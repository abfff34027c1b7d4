/* A table's schema, as its row "t/table/NAME" holds it, and the pins that hold the table. */
#ifndef LK_TABLE_SCHEMA_H
#define LK_TABLE_SCHEMA_H
#include "store/table/key.h"
#include <pthread.h>
#include <stdatomic.h>

struct lk__table_family {
    char name[LK_TABLE_FAMILY_MAX + 1];
    unsigned char generation; /* of the name: a dropped family's cells may still be there */
    bool zstd;
    char *gc; /* as text */
    struct lk_gc_rule rule;
};
struct lk__table_held { /* by a pin */
    char *pin;
    int64_t at_ms;
};
/* Never changed once it is made. */
struct lk__table_schema {
    atomic_int references;
    char *text; /* of the row */
    size_t text_size;
    uint32_t id;
    bool protected;
    int64_t since_ms; /* the time of the newest pin ever, or of the creation: what is written now is written behind it */
    int64_t altered;  /* how often a rule was changed or a family dropped; missing in the row: never */
    int64_t newest_pin_ms;             /* of those that are there; 0: none, and nothing of the past needs to be kept */
    struct lk__table_family *families; /* by name */
    size_t family_count;
    struct lk__table_family *dropped; /* whose cells are not removed yet */
    size_t dropped_count;
    struct lk__table_held *pins;
    size_t pin_count;
};
int lk__table_schema_read(const char *table, struct lk_bytes row, struct lk__table_schema **out, struct lk_err *);
void lk__table_schema_unref(struct lk__table_schema *);
const struct lk__table_family *lk__table_schema_family(const struct lk__table_schema *, const char *name); /* NULL: none */
/* As a key has it: its name and its generation. */
const struct lk__table_family *lk__table_schema_family_of(const struct lk__table_schema *, struct lk_bytes in_key);

/* Buffers that reads leave to those behind them, so that a read of a row allocates little. */
#define LK__BUFFERS 10
struct lk__table_buffers {
    struct lk__table_buffers *next;
    struct lk_buf of[LK__BUFFERS];
};
struct lk_table {
    struct lk_store *store;
    char *key, *name;     /* name is the end of key, that of the table's row */
    pthread_mutex_t lock; /* of the rest */
    struct lk__table_schema *schema, *pinned;
    int64_t pinned_ms; /* the time that `pinned` is of */
    uint64_t state;    /* of the kv, that `schema` is of; 0: not known */
    struct lk__table_buffers *spare;
};
/* LK_ENOMEM. A NULL is fine to give back. */
int lk__table_buffers_take(struct lk_table *, struct lk__table_buffers **out, struct lk_err *);
void lk__table_buffers_give(struct lk_table *, struct lk__table_buffers *);
/* The schema in this transaction; the caller gives it back with lk__table_schema_unref. LK_ENOTFOUND: dropped. */
int lk__table_schema(struct lk_table *, struct lk_kv_txn *, struct lk__table_schema **out, struct lk_err *);
/* As a pin of this time sees it; 0: as lk__table_schema. LK_ENOTFOUND: no such pin. */
int lk__table_schema_at(struct lk_table *, struct lk_kv_txn *, int64_t pinned_ms, struct lk__table_schema **out,
                        struct lk_err *);
int lk__table_name_check(const char *name, struct lk_err *);

/* The table's row as JSON, looked at as a schema first. *out NULL: there is none (no error). LK_ECORRUPT. */
int lk__table_row_of(struct lk_kv_txn *, const char *table, json_t **out, struct lk_err *);

/* Rows that are JSON: "t/" and these. *out NULL: there is none (no error). */
int lk__table_row_get(struct lk_kv_txn *, const char *kind, const char *name, json_t **out, struct lk_err *);
int lk__table_row_put(struct lk_kv_txn *, const char *kind, const char *name, const json_t *, struct lk_err *);
int lk__table_row_delete(struct lk_kv_txn *, const char *kind, const char *name, struct lk_err *);
/* fn gets the name and the parsed row. */
typedef int lk__table_row_fn(void *arg, const char *name, json_t *row);
int lk__table_row_list(struct lk_kv_txn *, const char *kind, lk__table_row_fn *, void *arg, struct lk_err *);

#endif
