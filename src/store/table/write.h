/* Cells put and removed in a transaction, so that pins go on seeing what they see. */
#ifndef LK_TABLE_WRITE_H
#define LK_TABLE_WRITE_H
#include "store/table/schema.h"

struct lk__table_writer {
    struct lk_table *table;
    struct lk_kv_txn *txn;
    struct lk__table_schema *schema;
    struct lk_buf key, to, value, past, old; /* scratch */
    int64_t server_us;                       /* of this transaction; 0: not asked for yet */
};
int lk__table_writer_open(struct lk__table_writer *, struct lk_table *, struct lk_kv_txn *, struct lk_err *);
void lk__table_writer_close(struct lk__table_writer *);
/* The time of what the server stamps in this transaction. */
int lk__table_writer_time(struct lk__table_writer *, int64_t *out_us, struct lk_err *);
/* Removes the row of the kv that key names (in LK__CELLS or LK__SAMPLES), whose value is `stored`; keeps it in the past
 * where a pin sees it. key may not point into the store. */
int lk__table_writer_remove(struct lk__table_writer *, struct lk_bytes key, struct lk_bytes stored, struct lk_err *);
/* After a row's cells changed: whether it is a sample, and the log of rows that changed since the newest pin. Called before
 * cells are removed by compaction with changed false: what no read shows is no change. */
int lk__table_writer_row_done(struct lk__table_writer *, struct lk_bytes row, bool changed, struct lk_err *);
/* Checks of arguments, before anything is written. */
int lk__table_row_check(struct lk_bytes row, struct lk_err *);
int lk__table_mutations_check(const struct lk__table_schema *, struct lk_bytes row, const struct lk_mutation *,
                              size_t count, struct lk_err *);
/* Checked mutations. */
int lk__table_writer_apply(struct lk__table_writer *, struct lk_bytes row, const struct lk_mutation *, size_t count,
                           struct lk_err *);
int lk__table_writer_set(struct lk__table_writer *, struct lk_bytes row, const struct lk__table_family *,
                         struct lk_bytes qualifier, int64_t time_us, struct lk_bytes value, struct lk_err *);

#endif
