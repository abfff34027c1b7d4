/* What the reader of a table (read.c) and filters say to each other. filter.c runs a compiled filter over the cells of one
 * row after the other; the reader gives it each cell that may pass, in order: families by name, qualifiers, newest first.
 */
#ifndef LK_TABLE_FILTER_H
#define LK_TABLE_FILTER_H
#include "lockstep/store/table.h"

/* What a cell must have so that the filter lets it through at all; the reader seeks by it and so passes over the rest. */
struct lk__filter_bounds {
    const char *family;               /* NULL: of any; else only of this one */
    struct lk_table_range qualifiers; /* with family only */
    int64_t from_us, to_us;           /* to_us INT64_MAX: no end */
    bool nothing;                     /* it lets nothing through */
};
const struct lk__filter_bounds *lk__filter_bounds(const struct lk_filter_program *);
/* Whether rows of this key can have cells that pass (patterns and samples of keys that stand at the top). */
bool lk__filter_row(const struct lk_filter_program *, struct lk_bytes row);
/* The beginning that all row keys have which can pass (a pattern's literal head); no bytes: not known. */
struct lk_bytes lk__filter_row_prefix(const struct lk_filter_program *);

/* One reader's state: counts of limits, which conditions hold. */
struct lk__filter_run;
int lk__filter_run_open(const struct lk_filter_program *, struct lk__filter_run **out, struct lk_err *);
void lk__filter_run_close(struct lk__filter_run *);
/* A row begins. The reader gives its cells as often as lk__filter_again says: first to find out which conditions hold
 * (nothing is emitted then), at last for the result. */
void lk__filter_begin(struct lk__filter_run *, struct lk_bytes row);
/* After lk__filter_begin and after a row's last cell (or LK__FILTER_ROW): whether the row's cells are wanted once more. */
bool lk__filter_again(struct lk__filter_run *);
/* How the reader goes on: what it may pass over, since no cell of it will be let through in this pass. */
enum lk__filter_next { LK__FILTER_CELL, LK__FILTER_COLUMN, LK__FILTER_ROW };
/* emit: called with each copy that passes, while this call lasts; the cell's bytes are the reader's, but for value (empty
 * where stripped) and label. emit returning non-zero ends the call, which returns it. *next: see above. */
typedef int lk__filter_emit_fn(void *arg, const struct lk_cell *);
int lk__filter_cell(struct lk__filter_run *, const struct lk_cell *, lk__filter_emit_fn *emit, void *arg,
                    enum lk__filter_next *next, struct lk_err *);

#endif
