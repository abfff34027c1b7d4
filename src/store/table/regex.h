/* Regular expressions of RE2's syntax over bytes (as RE2::Latin1), matched against a whole text.
 * A pattern becomes an automaton whose states of states are made when a text first needs them (Thompson, CACM 1968; the
 * lazy DFA of Aho, Sethi, Ullman): the time is linear in the text's length for any pattern. What that costs in the worst
 * case - a state of states for each byte - has a limit, which is an error and no delay. */
#ifndef LK_TABLE_REGEX_H
#define LK_TABLE_REGEX_H
#include "lockstep/base/err.h"
#include "lockstep/base/mem.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LK__REGEX_REPEAT_MAX 1000      /* of x{n,m}, and the product of those within each other: as in RE2 */
#define LK__REGEX_DEPTH_MAX  1000      /* groups and repeats within each other */
#define LK__REGEX_STATES_MAX 65535     /* of the automaton of one pattern */
#define LK__REGEX_WORK_MAX   (1 << 26) /* states visited for one text; texts that stay in known states use none */

/* Immutable once compiled: any number of threads may use it.
 * LK_EINVAL: "at byte 3: ...", what RE2 has not or refuses, or more than LK__REGEX_STATES_MAX states. LK_ENOMEM. */
struct lk__table_regex;
int lk__table_regex_compile(struct lk_bytes pattern, struct lk__table_regex **out, struct lk_err *);
void lk__table_regex_free(struct lk__table_regex *);

/* The bytes with which every text begins that matches; *whole: it is the only one that does. They live as long as it. */
struct lk_bytes lk__table_regex_head(const struct lk__table_regex *, bool *whole);
/* Where a pattern is a choice (`a|bc.*`) of at most LK__REGEX_HEADS_MAX, the head of each; false: it is none, or there are
 * no more. */
#define LK__REGEX_HEADS_MAX 64
bool lk__table_regex_choice(const struct lk__table_regex *, size_t index, struct lk_bytes *head, bool *whole);
size_t lk__table_regex_states(const struct lk__table_regex *); /* 0: it is matched by comparing bytes, without a run */
/* 1 it matches, 0 it does not, -1 that takes a run: lk__table_regex_match. */
int lk__table_regex_compare(const struct lk__table_regex *, struct lk_bytes text);

/* What one thread keeps between texts; cache_bytes at most, or what four states of states need if that is more. */
struct lk__table_regex_run;
int lk__table_regex_run_open(const struct lk__table_regex *, size_t cache_bytes, struct lk__table_regex_run **out,
                             struct lk_err *);
void lk__table_regex_run_close(struct lk__table_regex_run *);
/* LK_EINVAL: LK__REGEX_WORK_MAX was met. */
int lk__table_regex_match(struct lk__table_regex_run *, struct lk_bytes text, bool *match, struct lk_err *);

#endif
