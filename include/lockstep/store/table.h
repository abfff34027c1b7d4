/* Tables: a sparse, sorted map from (row, family, qualifier, timestamp) to bytes, after Bigtable (Chang et al., OSDI 2006),
 * over the rows of a store. A row's changes are atomic; what spans rows or tables is one transaction of the kv.
 * The words and the rules are those of Cloud Bigtable's API v2; where Lockstep differs, docs/tables.md says so. */
#ifndef LOCKSTEP_STORE_TABLE_H
#define LOCKSTEP_STORE_TABLE_H
#include "lockstep/store/store.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LK_TABLE_NAME_MAX      256   /* [-_.a-zA-Z0-9/]+ */
#define LK_TABLE_FAMILY_MAX    64    /* [-_.a-zA-Z0-9]+ */
#define LK_TABLE_FAMILIES_MAX  100   /* of a table */
#define LK_TABLE_ROW_MAX       4096  /* bytes of a row's key, which has at least one */
#define LK_TABLE_QUALIFIER_MAX 16384 /* a qualifier may be empty */
#define LK_TABLE_VALUE_MAX     (LK_KV_VALUE_MAX - 16)
#define LK_TABLE_SERVER_TIME   (-1) /* as a cell's timestamp: the store's clock gives it, later than all it gave before */

/* --- cells ----------------------------------------------------------------------------------------------- */

/* One version of one column. Times are in us since 1970, never negative, and multiples of 1,000. */
struct lk_cell {
    struct lk_bytes row;
    const char *family;
    struct lk_bytes qualifier;
    int64_t timestamp_us;
    struct lk_bytes value;
    const char *label; /* that a filter gave it; NULL: none */
};

/* --- filters --------------------------------------------------------------------------------------------- */

/* What a read lets through; each kind as API v2's RowFilter defines it. Patterns have RE2's syntax over bytes and must
 * match the whole key, name or value. */
enum lk_filter_kind {
    LK_FILTER_CHAIN,      /* parts: each sees what the one before lets through */
    LK_FILTER_INTERLEAVE, /* parts: the cells of all of them, in order, one that several let through as often */
    LK_FILTER_CONDITION,  /* parts[0] lets a cell of the row through: parts[1], else parts[2]; of these each may be NULL */
    LK_FILTER_SINK,       /* to the result, past the filters behind it in its chain */
    LK_FILTER_PASS,       /* everything */
    LK_FILTER_BLOCK,      /* nothing */
    LK_FILTER_ROW_REGEX,  /* pattern */
    LK_FILTER_ROW_SAMPLE, /* probability; which rows is a function of their keys */
    LK_FILTER_FAMILY_REGEX, /* pattern */
    LK_FILTER_COLUMN_REGEX, /* pattern, of qualifiers */
    LK_FILTER_COLUMN_RANGE, /* family, and range of qualifiers */
    LK_FILTER_TIME_RANGE,   /* time: from (inclusive) to (exclusive, 0: no end) */
    LK_FILTER_VALUE_REGEX,  /* pattern */
    LK_FILTER_VALUE_RANGE,  /* range */
    LK_FILTER_ROW_OFFSET,   /* count: without the row's first cells */
    LK_FILTER_ROW_LIMIT,    /* count: only the row's first cells */
    LK_FILTER_COLUMN_LIMIT, /* count: only the newest cells of each column */
    LK_FILTER_STRIP_VALUE,  /* values become empty */
    LK_FILTER_LABEL         /* label: [a-z0-9-]{1,15}; not twice in a chain */
};
/* A bound with data NULL: none. */
struct lk_table_range {
    struct lk_bytes from, to;
    bool from_open; /* without `from` itself */
    bool to_closed; /* with `to` itself */
};
struct lk_filter {
    enum lk_filter_kind kind;
    const struct lk_filter *const *parts;
    size_t part_count;
    struct lk_bytes pattern;
    const char *family, *label;
    struct lk_table_range range;
    int64_t from_us, to_us;
    double probability;
    int32_t count;
};
#define LK_FILTER_DEPTH_MAX 20    /* parts within parts */
#define LK_FILTER_SIZE_MAX  20480 /* bytes of all patterns, bounds and names, and 16 for each part */

/* Compiled once, used by any number of readers and threads at once. The tree may go afterwards.
 * LK_EINVAL: what is wrong, and in which part ("chain[2].column_regex"). LK_ENOMEM. */
struct lk_filter_program;
int lk_filter_compile(const struct lk_filter *, struct lk_filter_program **out, struct lk_err *);
void lk_filter_free(struct lk_filter_program *);

/* A filter as text; blanks between words mean nothing:
 *   filter: part | part ...                a chain
 *   part:   (filter)  interleave(filter, filter ...)  condition(filter, filter or none, filter or none)
 *           sink  pass  block  row_regex("R")  row_sample(0.1)  family("R")  column_regex("R")  column_range("FAMILY", RANGE)
 *           time_range(FROM_US, TO_US)  value_regex("R")  value_range(RANGE)  row_offset(N)  row_limit(N)  latest(N)
 *           strip_value  label("L")
 *   RANGE:  ["a", "b")  [ ] with, ( ) without the bound; no text: no bound, as in ["a", ). FROM_US, TO_US may be left out too.
 * Text stands between ' and ', as it is, or between " and " with the escapes \" \\ \n \r \t \xHH.
 * As in  family("cf.*") | column_regex('a\d+') | latest(1)
 * parse: LK_EINVAL says at which byte and what belongs there; what it takes may still be refused by lk_filter_compile. The
 * tree is freed by lk_filter_tree_free. print: of any tree, text that parses to an equal one; for lk_free; NULL: no memory. */
#define LK_FILTER_TEXT_MAX (4 * LK_FILTER_SIZE_MAX)
int lk_filter_parse(const char *text, struct lk_filter **out, struct lk_err *);
void lk_filter_tree_free(struct lk_filter *);
char *lk_filter_print(const struct lk_filter *);

#ifdef __cplusplus
}
#endif
#endif
