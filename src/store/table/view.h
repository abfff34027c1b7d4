/* The cells of a table in order, as they are or as a pin sees them. */
#ifndef LK_TABLE_VIEW_H
#define LK_TABLE_VIEW_H
#include "store/table/key.h"

/* Of the present: one cursor over LK__CELLS. Of a pin: also one over what was removed since, merged by key; a cell is seen
 * that was written before the pin and not removed before it. The same over samples. */
struct lk__table_view {
    struct lk_kv_cursor *now, *past; /* past NULL: of the present */
    int64_t pinned_ms;
    enum lk__table_space space;
    bool now_on, past_on;
    struct lk_bytes key, value;  /* of the cell that it stands on: key as in `space`; until the next move or write */
    struct lk_buf *seek, *shown; /* the caller's, set before it is opened */
};
/* Of *v, seek and shown are set. */
int lk__table_view_open(struct lk__table_view *, struct lk_kv_txn *, uint32_t table, enum lk__table_space,
                        int64_t pinned_ms, struct lk_err *);
void lk__table_view_close(struct lk__table_view *);
/* key: of `space`, from lk__table_key_begin. The first cell >= key; LK_ENOTFOUND: none. */
int lk__table_view_seek(struct lk__table_view *, struct lk_bytes key, struct lk_err *);
int lk__table_view_next(struct lk__table_view *, struct lk_err *);
/* The last cell before a key that is no cell's (a row's beginning or end). No moves from there but seeks. */
int lk__table_view_before(struct lk__table_view *, struct lk_bytes key, struct lk_err *);

#endif
