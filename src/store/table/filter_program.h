/* A compiled filter, between filter.c, which makes it, filter_bounds.c and filter_run.c.
 * The tree becomes steps that a cell takes one after the other, each with the step behind it; only interleaves (FORK) and
 * conditions send a cell several ways, and all ways end at OUT or at MATCH. A step's successors have smaller numbers. */
#ifndef LK_TABLE_FILTER_PROGRAM_H
#define LK_TABLE_FILTER_PROGRAM_H
#include "store/table/filter.h"
#include "store/table/regex.h"

enum lk__table_step_kind {
    LK__STEP_OUT,   /* step 0: to the result */
    LK__STEP_MATCH, /* condition `other` holds */
    LK__STEP_BLOCK,
    LK__STEP_FORK,    /* to each of ways[first] to ways[first + count - 1] */
    LK__STEP_IF,      /* predicate at `other`, which ends at its MATCH; then `then`, else `otherwise` */
    LK__STEP_ROW,     /* regex */
    LK__STEP_SAMPLE,  /* below */
    LK__STEP_FAMILY,  /* regex */
    LK__STEP_COLUMN,  /* regex */
    LK__STEP_COLUMNS, /* family, range */
    LK__STEP_TIME,    /* from_us, to_us */
    LK__STEP_VALUE,   /* regex */
    LK__STEP_VALUES,  /* range */
    LK__STEP_ROW_OFFSET,
    LK__STEP_ROW_LIMIT,
    LK__STEP_COLUMN_LIMIT,
    LK__STEP_STRIP,
    LK__STEP_LABEL
};
struct lk__table_step {
    enum lk__table_step_kind kind;
    uint32_t then, other,
        otherwise;         /* of IF: 0 for `then` and `otherwise` would be OUT; a branch without a filter is BLOCK */
    uint32_t first, count; /* FORK: ways; counts of limits */
    uint32_t level;        /* IF: the pass that decides it, from 1 on */
    bool inner;            /* IF: its predicate has conditions */
    struct lk__table_regex *regex;
    char *family, *label;
    struct lk_table_range range; /* its bytes are the program's */
    /* COLUMN, where the pattern is a choice: a range of each, by their beginnings; `range` holds them all, without bytes of
     * its own. */
    struct lk_table_range *choices;
    size_t choice_count;
    int64_t from_us, to_us;
    uint64_t below; /* a row is in the sample if lk__table_filter_hash of its key is below */
};
struct lk_filter_program {
    struct lk__table_step *steps;
    uint32_t *ways;
    uint32_t step_count, step_room, way_count, way_room, root;
    uint32_t levels;   /* passes before the last */
    uint32_t patterns; /* that need an automaton */
    bool varies;       /* bounds depend on a row's key or on conditions */
    bool gaps; /* cells part, or a pattern of columns is a choice: within its bounds there may be much to pass over */
    struct lk__table_filter_bounds bounds;
    struct lk_buf row_prefix;
};

/* FNV-1a of 64 bits, then MurmurHash3's last mix: which rows a sample has is part of what it means, and stays. */
uint64_t lk__table_filter_hash(struct lk_bytes row);
/* The bytes of r that hold `bytes`: -1 it is before all, 0 within, 1 behind all. */
int lk__table_filter_range_side(const struct lk_table_range *, struct lk_bytes);
void lk__table_filter_widen(struct lk_table_range *, const struct lk_table_range *by); /* so that it holds that one too */
int lk__table_filter_compare(struct lk_bytes, struct lk_bytes);

/* What each step may be asked for while bounds are found: filter_bounds.c. */
struct lk__table_filter_flow {
    struct lk__table_filter_bounds bounds;
    bool reached, counted, column_counted; /* a limit of the row, of a column, stands before it */
};
/* The bounds of one pass. row_fails, holds: by step number, NULL for none known (all row patterns match; conditions are
 * open, so both branches count). pass: 0 for the result, else the level that is decided. work: (step_count). */
void lk__table_filter_find_bounds(const struct lk_filter_program *, struct lk__table_filter_flow *work,
                                  const uint8_t *row_fails, const uint8_t *holds, uint32_t pass,
                                  struct lk__table_filter_bounds *out);

#endif
