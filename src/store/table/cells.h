/* The cells of one row after the other that a read may show: not garbage, of families that are there. */
#ifndef LK_TABLE_CELLS_H
#define LK_TABLE_CELLS_H
#include "store/table/schema.h"
#include "store/table/view.h"

struct lk__table_cells {
    struct lk__table_view view;
    struct lk__table_schema *schema;
    int64_t now_us;
    struct lk_table_read_stats *stats;
    int code;   /* of the view's last move: 0, LK_ENOTFOUND, or what ended it */
    bool fresh; /* the view stands on a cell that was not looked at yet */
    struct lk_table *table;
    struct lk__table_buffers *buffers;
    struct lk_buf *row, *column; /* beginnings of keys: through the row's end, through the column's */
    size_t family_end;           /* in column */
    struct lk_buf *row_text, *qualifier_text, *value_text, *seek;
    const struct lk__table_family *family;
    int64_t nth; /* of the column, from 0 */
    struct lk_cell cell;
};
/* pinned_ms: as for lk_table_read. stats are added to; they may not be NULL. */
int lk__table_cells_open(struct lk__table_cells *, struct lk_table *, struct lk_kv_txn *, int64_t pinned_ms,
                         struct lk_table_read_stats *, struct lk_err *);
void lk__table_cells_close(struct lk__table_cells *);

/* To the first row whose keys are >= key; to the last one whose keys are < key. 0: cell.row is its key; LK_ENOTFOUND. */
int lk__table_cells_seek(struct lk__table_cells *, struct lk_bytes key, struct lk_err *);
int lk__table_cells_before(struct lk__table_cells *, struct lk_bytes key, struct lk_err *);
/* To the row of this key, which is through the row's end. LK_ENOTFOUND: it has no cells. */
int lk__table_cells_row(struct lk__table_cells *, struct lk_bytes key, struct lk_err *);
/* To the row behind this one, from wherever in it. */
int lk__table_cells_next_row(struct lk__table_cells *, struct lk_err *);
/* Back to the beginning of the row. */
int lk__table_cells_again(struct lk__table_cells *, struct lk_err *);

/* The row's next cell, in `cell`. LK_ENOTFOUND: it has no more. Begins with the first one after the four above. */
int lk__table_cells_next(struct lk__table_cells *, struct lk_err *);
/* Goes on behind the column, the family of the last cell; to a column (the first >= it) or family of this row, forwards
 * only. */
int lk__table_cells_skip_column(struct lk__table_cells *, struct lk_err *);
int lk__table_cells_skip_family(struct lk__table_cells *, struct lk_err *);
int lk__table_cells_skip_to(struct lk__table_cells *, const char *family, struct lk_bytes qualifier, struct lk_err *);
/* Within the last cell's column on to cells older than this, where no rule counts versions. */
int lk__table_cells_skip_newer(struct lk__table_cells *, int64_t before_us, struct lk_err *);

#endif
