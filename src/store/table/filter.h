/* What the reader of a table (read.c) and filters say to each other. filter.c runs a compiled filter over the cells of one
 * row after the other; the reader gives it each cell that may pass, in order: families by name, qualifiers, newest first.
 */
#ifndef LK_TABLE_FILTER_H
#define LK_TABLE_FILTER_H
#include "lockstep/store/table.h"

/* What a cell must have so that the filter lets it through at all; the reader seeks by it and so passes over the rest. */
struct lk__table_filter_bounds {
    const char *family;               /* NULL: of any; else only of this one */
    struct lk_table_range qualifiers; /* without a family: in each of them */
    int64_t from_us, to_us;           /* to_us INT64_MAX: no end */
    bool nothing;                     /* it lets nothing through */
};
const struct lk__table_filter_bounds *
lk__table_filter_bounds(const struct lk_filter_program *); /* of any row, in any pass */
/* Whether rows of this key can have cells that pass, as far as samples and patterns of keys at the top say so without an
 * automaton; lk__table_filter_begin asks those too. */
bool lk__table_filter_row(const struct lk_filter_program *, struct lk_bytes row);
/* The beginning that all row keys have which can pass (a pattern's literal head); no bytes: not known. */
struct lk_bytes lk__table_filter_row_prefix(const struct lk_filter_program *);

/* One reader's state: counts of limits, which conditions hold. What it needs is made when it is opened, but for what
 * automata remember (64 KiB a pattern, less where there are many), which is made with the first text they see. */
struct lk__table_filter_run;
int lk__table_filter_run_open(const struct lk_filter_program *, struct lk__table_filter_run **out, struct lk_err *);
void lk__table_filter_run_close(struct lk__table_filter_run *);
/* A row begins. The reader gives its cells as often as lk__table_filter_again says: first to find out which conditions hold
 * (nothing is emitted then), at last for the result. Passes that could find nothing are left out. */
void lk__table_filter_begin(struct lk__table_filter_run *, struct lk_bytes row);
/* After lk__table_filter_begin and after a row's last cell (or LK__FILTER_ROW): whether the row's cells are wanted once
 * more. */
bool lk__table_filter_again(struct lk__table_filter_run *);
/* After lk__table_filter_again said yes: the bounds of this pass over this row, often narrower than the program's (those of
 * a condition's predicate, then those of the branch that it takes). */
const struct lk__table_filter_bounds *lk__table_filter_run_bounds(const struct lk__table_filter_run *);
/* How the reader goes on: what it may pass over - the rest of this column, of this family, of the row - since no cell of it
 * matters in this pass. Each is more than the one before; a reader may pass over less than it could. */
enum lk__table_filter_next { LK__FILTER_CELL, LK__FILTER_COLUMN, LK__FILTER_FAMILY, LK__FILTER_ROW };
/* After LK__FILTER_COLUMN: the first qualifier, behind the last cell's, of which a cell of this family may matter in this
 * pass; false: nothing better is known than the next column. It lives as long as the program. */
bool lk__table_filter_seek(const struct lk__table_filter_run *, struct lk_bytes *qualifier);
/* emit: called with each copy that passes, while this call lasts; the cell's bytes are the reader's, but for value (empty
 * where stripped) and label. emit returning non-zero ends the call, which returns it. *next: see above.
 * LK_EINVAL: a pattern, of the row's key too, takes too many steps on what it was given (regex.h), or the filter makes more
 * than LK__FILTER_STEPS_MAX steps of this cell. LK_ENOMEM. */
#define LK__FILTER_STEPS_MAX 65536
typedef int lk__table_filter_emit_fn(void *arg, const struct lk_cell *);
int lk__table_filter_cell(struct lk__table_filter_run *, const struct lk_cell *, lk__table_filter_emit_fn *emit, void *arg,
                          enum lk__table_filter_next *next, struct lk_err *);

#endif
