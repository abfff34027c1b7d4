/* Tables: a sparse, sorted map from (row, family, qualifier, timestamp) to bytes, after Bigtable (Chang et al., OSDI 2006),
 * over the rows of a store. A row's changes are atomic; what spans rows or tables is one transaction of the kv.
 * The words and the rules are those of Cloud Bigtable's API v2; where Lockstep differs, docs/tables.md says so. */
#ifndef LOCKSTEP_STORE_TABLE_H
#define LOCKSTEP_STORE_TABLE_H
#include "lockstep/store/store.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LK_TABLE_NAME_MAX     256  /* [-_.a-zA-Z0-9/]+ */
#define LK_TABLE_FAMILY_MAX   64   /* [-_.a-zA-Z0-9]+ */
#define LK_TABLE_FAMILIES_MAX 100  /* of a table */
#define LK_TABLE_ROW_MAX      4096 /* bytes of a row's key, which has at least one */
#define LK_TABLE_COLUMN_MAX   8160 /* bytes of row, family and qualifier together, where a zero byte counts twice */
#define LK_TABLE_VALUE_MAX    (LK_KV_VALUE_MAX - 16)
#define LK_TABLE_SERVER_TIME  (-1) /* as a cell's timestamp: the store's clock gives it, later than all it gave before */

/* --- tables and families --------------------------------------------------------------------------------- */

/* What makes a cell garbage, which no read shows and lk_table_compact removes: as text "never", "maxversions=3",
 * "maxage=30d" (ms, s, m, h, d), and with "and", "or" (also && and ||) and parentheses, as cbt writes it. */
enum lk_gc_kind {
    LK_GC_NEVER,
    LK_GC_MAX_VERSIONS, /* count: of a column only the newest so many are kept */
    LK_GC_MAX_AGE,      /* age_us: older than that */
    LK_GC_UNION,        /* garbage by one of the parts */
    LK_GC_INTERSECTION  /* garbage by all of them */
};
#define LK_GC_PARTS_MAX 16 /* of a whole rule, at most 4 deep */
struct lk_gc_rule {
    enum lk_gc_kind kind;
    int32_t count;
    int64_t age_us;
    struct lk_gc_rule *parts;
    size_t part_count;
};
/* LK_EINVAL names the place in the text. lk_gc_rule_free frees the parts (and is for what was parsed only). */
int lk_gc_rule_parse(const char *text, struct lk_gc_rule *out, struct lk_err *);
void lk_gc_rule_free(struct lk_gc_rule *);
int lk_gc_rule_print(const struct lk_gc_rule *, struct lk_buf *out); /* the text, parentheses only where they are needed */

struct lk_table_family {
    const char *name;
    const char *gc; /* as text; NULL: never */
    bool zstd;      /* values that become smaller are compressed */
};
/* LK_EEXISTS: there is such a table. LK_EINVAL: a name, a rule, too many families or two of one name. Else of lk_kv_update,
 * as all that follow. */
int lk_table_create(struct lk_store *, const char *name, const struct lk_table_family *, size_t count, struct lk_err *);
/* With all its cells. LK_EBUSY: a pin holds it, or it is protected. A kill leaves cells that nothing shows and the next
 * lk_table_compact of any table, or the next drop, removes. */
int lk_table_drop(struct lk_store *, const char *name, struct lk_err *);
enum lk_table_change_kind {
    LK_TABLE_ADD_FAMILY,
    LK_TABLE_UPDATE_FAMILY,
    LK_TABLE_DROP_FAMILY,
    LK_TABLE_PROTECT, /* neither the table nor a family can be dropped from now on: LK_EBUSY; no family is looked at */
    LK_TABLE_UNPROTECT
};
struct lk_table_change {
    enum lk_table_change_kind kind;
    struct lk_table_family family;
};
/* All of them at once or none. LK_EEXISTS, LK_ENOTFOUND: of a family. The cells of a dropped family are seen no more;
 * compaction removes them. */
int lk_table_alter(struct lk_store *, const char *name, const struct lk_table_change *, size_t count, struct lk_err *);
typedef int lk_table_list_fn(void *arg, const char *name);
int lk_table_list(struct lk_store *, lk_table_list_fn *, void *arg, struct lk_err *); /* by name */

/* A table to read and write; any number of threads. The store is borrowed. LK_ENOTFOUND names those that there are. What is
 * altered by others is seen by the next transaction; once the table is dropped, each call is LK_ENOTFOUND, until there is
 * one of this name again, which the handle is of from then on. */
struct lk_table;
int lk_table_open(struct lk_store *, const char *name, struct lk_table **out, struct lk_err *);
void lk_table_close(struct lk_table *);
const char *lk_table_name(const struct lk_table *);
/* Its families in a transaction, by name; fn's texts last while it runs. */
typedef int lk_table_family_fn(void *arg, const struct lk_table_family *);
int lk_table_families(struct lk_table *, struct lk_kv_txn *, lk_table_family_fn *, void *arg, struct lk_err *);
int lk_table_protected(struct lk_table *, struct lk_kv_txn *, bool *out, struct lk_err *);
/* As a pin of this time sees them; 0: as above. LK_ENOTFOUND: no such pin. */
int lk_table_families_at(struct lk_table *, struct lk_kv_txn *, int64_t pinned_ms, lk_table_family_fn *, void *arg,
                         struct lk_err *);

/* A note is a few bytes that a program keeps with a table, by a name of its own: how far an import is, in the transaction
 * that writes the cells. Reads, pins and digests do not see notes, and they go with the table. LK_EINVAL: the name.
 * get appends to *out; LK_ENOTFOUND: no such note. put: note.data NULL removes it. Else as lk_kv_get and lk_kv_put. */
#define LK_TABLE_NOTE_MAX 1024 /* bytes of its name */
int lk_table_note_get(struct lk_table *, struct lk_kv_txn *, const char *name, struct lk_buf *out, struct lk_err *);
int lk_table_note_put(struct lk_table *, struct lk_kv_txn *, const char *name, struct lk_bytes note, struct lk_err *);

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
 *           sink  pass  block  row_regex("R")  row_sample(0.1)  family("R")  column_regex("R")  column_range("FAMILY",
 * RANGE) time_range(FROM_US, TO_US)  value_regex("R")  value_range(RANGE)  row_offset(N)  row_limit(N)  latest(N)
 *           strip_value  label("L")
 *   RANGE:  ["a", "b")  [ ] with, ( ) without the bound; no text: no bound, as in ["a", ). FROM_US, TO_US may be left out
 * too. Text stands between ' and ', as it is, or between " and " with the escapes \" \\ \n \r \t \xHH. As in family("cf.*")
 * | column_regex('a\d+') | latest(1) parse: LK_EINVAL says at which byte and what belongs there; what it takes may still be
 * refused by lk_filter_compile. The tree is freed by lk_filter_tree_free. print: of any tree, text that parses to an equal
 * one; for lk_free; NULL: no memory. */
#define LK_FILTER_TEXT_MAX (4 * LK_FILTER_SIZE_MAX)
int lk_filter_parse(const char *text, struct lk_filter **out, struct lk_err *);
void lk_filter_tree_free(struct lk_filter *);
char *lk_filter_print(const struct lk_filter *);

/* --- writes ---------------------------------------------------------------------------------------------- */

enum lk_mutation_kind {
    LK_SET_CELL,           /* family, qualifier, timestamp_us (or LK_TABLE_SERVER_TIME), value */
    LK_DELETE_FROM_COLUMN, /* family, qualifier; from_us <= timestamp < to_us (0: no end) */
    LK_DELETE_FROM_FAMILY, /* family */
    LK_DELETE_FROM_ROW
};
struct lk_mutation {
    enum lk_mutation_kind kind;
    const char *family;
    struct lk_bytes qualifier, value;
    int64_t timestamp_us, from_us, to_us;
};
#define LK_TABLE_MUTATIONS_MAX 100000 /* of one row at once */
/* In a write transaction: the row's mutations, in their order. They are looked at before anything is written: LK_EINVAL (a
 * row's key, a qualifier, a value, a timestamp, a range, no mutations), LK_ENOTFOUND (a family, which the message names, or
 * the table). Else of lk_kv_put. */
int lk_table_mutate(struct lk_table *, struct lk_kv_txn *, struct lk_bytes row, const struct lk_mutation *, size_t count,
                    struct lk_err *);
/* The same as a transaction of its own. */
int lk_table_apply(struct lk_table *, struct lk_bytes row, const struct lk_mutation *, size_t count, enum lk_durability,
                   struct lk_err *);
struct lk_table_entry {
    struct lk_bytes row;
    const struct lk_mutation *mutations;
    size_t count;
    int code; /* out: what became of it */
    struct lk_err err;
};
/* Each entry by itself, in their order, many of them in one transaction. Returns 0 also where entries failed; else what
 * ended all that have a code other than 0. */
int lk_table_apply_many(struct lk_table *, struct lk_table_entry *, size_t count, enum lk_durability, struct lk_err *);
/* Removes the rows of a range of keys, in their order, in many transactions of whole rows, the last one durable: a kill
 * leaves the rest. *rows (may be NULL): how many were there. LK_EINVAL: a bound that is too long. */
int lk_table_delete_rows(struct lk_table *, const struct lk_table_range *, uint64_t *rows, struct lk_err *);
/* predicate lets a cell of the row through (NULL: the row has one): the first mutations, else the second ones; of either
 * there may be none. *matched may be NULL. */
int lk_table_check_and_mutate(struct lk_table *, struct lk_kv_txn *, struct lk_bytes row,
                              const struct lk_filter_program *predicate, const struct lk_mutation *if_true,
                              size_t true_count, const struct lk_mutation *if_false, size_t false_count, bool *matched,
                              struct lk_err *);
/* In order; each sees the cells that those before it have written. The new cell has the store's time, or the newest cell's
 * if that is later. */
struct lk_table_rule {
    const char *family;
    struct lk_bytes qualifier;
    bool increments;        /* the value, 8 bytes, the most significant first; absent is 0; wraps around */
    int64_t amount;         /* is added; or */
    struct lk_bytes append; /* is put behind the value */
};
typedef int lk_cell_fn(void *arg, const struct lk_cell *);
/* tell (may be NULL): each cell that was written, once, by family and qualifier. LK_EINVAL also: a value to increment that
 * is not of 8 bytes. */
int lk_table_read_modify_write(struct lk_table *, struct lk_kv_txn *, struct lk_bytes row, const struct lk_table_rule *,
                               size_t count, lk_cell_fn *tell, void *arg, struct lk_err *);

/* --- reads ----------------------------------------------------------------------------------------------- */

/* rows and ranges together; none of both: all rows. They may overlap; a row is told once. */
struct lk_table_read {
    const struct lk_bytes *rows;
    size_t row_count;
    const struct lk_table_range *ranges; /* of row keys */
    size_t range_count;
    const struct lk_filter_program *filter; /* NULL: everything */
    int64_t limit;                          /* rows with a cell in the result; 0: all */
    bool reversed;                          /* rows from the last to the first; within a row as ever */
    int64_t pinned_ms;                      /* as a pin of this time sees the table; 0: as the transaction does */
};
struct lk_table_sink {
    lk_cell_fn *cell; /* what it gets lasts while it runs */
    /* Behind each row that was looked at, and after its cells if it had any (told). NULL: not wanted. */
    int (*row_end)(void *arg, struct lk_bytes row, bool told);
    void *arg;
};
struct lk_table_read_stats {
    uint64_t rows, cells;    /* told */
    uint64_t visited, seeks; /* cells looked at; jumps over others */
};
/* Cells by row; in a row families by name, qualifiers bytewise, newest first. A function of the sink that returns non-zero
 * ends the read, which returns it. Memory does not depend on the sizes of rows. stats may be NULL. LK_EINVAL: a key that is
 * too long. LK_ENOTFOUND: the table, or no pin of this time holds it. Else of lk_kv_get. */
int lk_table_read(struct lk_table *, struct lk_kv_txn *, const struct lk_table_read *, const struct lk_table_sink *,
                  struct lk_table_read_stats *stats, struct lk_err *);

/* Row keys that cut the table in pieces of about equally many rows, without a scan of it: about one of 1,024 rows is known
 * by the hash of its key. offset_bytes: about so many are before it. The last one told is empty: the end. */
typedef int lk_table_sample_fn(void *arg, struct lk_bytes row, uint64_t offset_bytes);
int lk_table_samples(struct lk_table *, struct lk_kv_txn *, int64_t pinned_ms, lk_table_sample_fn *, void *arg,
                     struct lk_err *);
/* At most `count` ranges that are the whole table and about equally large: a function of the rows alone. fn is told their
 * ends (to; the last has none). */
int lk_table_cuts(struct lk_table *, struct lk_kv_txn *, int64_t pinned_ms, size_t count, lk_table_sample_fn *, void *arg,
                  struct lk_err *);

/* --- pins ------------------------------------------------------------------------------------------------ */

/* A state of one or more tables that stays readable, whatever is written, deleted, altered or compacted afterwards: for
 * lease_ms of the store's time, or, with 0, until it is released. *pinned_ms is what reads take; it agrees with the order
 * of commits. LK_EEXISTS: a pin of this name. LK_EINVAL: a name, no tables. LK_ENOTFOUND: a table. */
int lk_table_pin(struct lk_store *, const char *pin, const char *const *tables, size_t count, int64_t lease_ms,
                 int64_t *pinned_ms, struct lk_err *);
int lk_table_pin_renew(struct lk_store *, const char *pin, int64_t lease_ms, struct lk_err *); /* from now on */
int lk_table_pin_release(struct lk_store *, const char *pin, struct lk_err *);
struct lk_table_pin {
    const char *name;
    int64_t pinned_ms, expires_ms; /* 0: never */
    const char *const *tables;
    size_t table_count;
};
typedef int lk_table_pin_fn(void *arg, const struct lk_table_pin *);
int lk_table_pins(struct lk_store *, lk_table_pin_fn *, void *arg,
                  struct lk_err *); /* by name; those that have not expired */
/* The root of all its cells, a function of them alone: not of history, engine, compaction or compression (docs/formats.md).
 */
int lk_table_digest(struct lk_table *, struct lk_kv_txn *, int64_t pinned_ms, struct lk_root *out,
                    struct lk_table_read_stats *, struct lk_err *);
/* What changed from one pin to a later one (0: to now), by row, family, qualifier and time: before is NULL for an added
 * cell, after for a removed one; both for one whose value changed. Looks only at rows that were written since the first
 * pin; at all rows where cells come and go without that: by their age, or since families or rules were altered in between.
 */
typedef int lk_table_diff_fn(void *arg, const struct lk_cell *before, const struct lk_cell *after);
int lk_table_diff(struct lk_table *, struct lk_kv_txn *, int64_t from_ms, int64_t to_ms, lk_table_diff_fn *, void *arg,
                  struct lk_err *);

/* --- compaction ------------------------------------------------------------------------------------------ */

struct lk_table_compact_result {
    uint64_t visited, removed; /* cells; of dropped families and tables too */
    uint64_t history;          /* rows of history that no pin sees any more */
};
/* Removes what no read shows: garbage by the families' rules, dropped families, what ended pins held, dropped tables. In
 * many short transactions, beside which others read and write; a killed one is gone on with by the next. progress may be
 * NULL (visited so far; non-zero ends it). */
int lk_table_compact(struct lk_table *, int (*progress)(void *arg, const struct lk_table_compact_result *), void *arg,
                     struct lk_table_compact_result *, struct lk_err *);

#ifdef __cplusplus
}
#endif
#endif
