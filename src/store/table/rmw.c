/* Writes that depend on what is there: check and mutate, read, modify and write. */
#include "lockstep/base/mem.h"
#include "store/kv/kv_engine.h"
#include "store/table/cells.h"
#include "store/table/write.h"
#include <string.h>

/* --- check and mutate ------------------------------------------------------------------------------------ */

static int found(void *arg, const struct lk_cell *cell) {
    (void)cell;
    *(bool *)arg = true;
    return 1;
}

static int check(struct lk_table *t, struct lk_kv_txn *txn, struct lk_bytes row, const struct lk_filter_program *predicate,
                 bool *matched, struct lk_err *err) {
    struct lk_table_read read = {.rows = &row, .row_count = 1, .filter = predicate};
    struct lk_table_sink sink = {found, NULL, matched};
    *matched = false;
    int code = lk_table_read(t, txn, &read, &sink, NULL, err);
    return code == 1 ? 0 : code;
}

int lk_table_check_and_mutate(struct lk_table *t, struct lk_kv_txn *txn, struct lk_bytes row,
                              const struct lk_filter_program *predicate, const struct lk_mutation *if_true,
                              size_t true_count, const struct lk_mutation *if_false, size_t false_count, bool *matched,
                              struct lk_err *err) {
    struct lk__table_writer w;
    bool yes = false;
    int code = lk__table_writer_open(&w, t, txn, err);
    if (code == 0) code = lk__table_row_check(row, err);
    if (code == 0 && true_count + false_count == 0) code = lk_fail(err, LK_EINVAL, "no mutations for either case");
    if (code == 0 && true_count) code = lk__table_mutations_check(w.schema, row, if_true, true_count, err);
    if (code == 0 && false_count) code = lk__table_mutations_check(w.schema, row, if_false, false_count, err);
    if (code == 0) code = check(t, txn, row, predicate, &yes, err);
    if (code == 0) code = lk__table_writer_apply(&w, row, yes ? if_true : if_false, yes ? true_count : false_count, err);
    lk__table_writer_close(&w);
    if (code == 0 && matched) *matched = yes;
    return code;
}

/* --- read, modify and write ------------------------------------------------------------------------------ */

/* The newest cell of the column that a read shows, copied. *time_us -1: none. */
static int newest(struct lk__table_writer *w, struct lk_bytes row, const struct lk_table_rule *rule, struct lk_buf *value,
                  int64_t *time_us, struct lk_err *err) {
    struct lk_table_read_stats stats = {0};
    struct lk__table_cells c;
    struct lk_buf key = LK_BUF_INIT;
    *time_us = -1;
    value->size = 0;
    int code = lk__table_cells_open(&c, w->table, w->txn, 0, &stats, err);
    if (code != 0) return code;
    code = lk__table_key_begin(&key, w->schema->id, LK__CELLS, err);
    if (code == 0) code = lk__table_key_part(&key, row, err);
    if (code == 0) code = lk__table_cells_row(&c, lk__table_bytes(&key), err);
    if (code == 0) code = lk__table_cells_skip_to(&c, rule->family, rule->qualifier, err);
    if (code == 0) code = lk__table_cells_next(&c, err);
    if (code == 0 && strcmp(c.cell.family, rule->family) == 0 && lk__kv_compare(c.cell.qualifier, rule->qualifier) == 0) {
        *time_us = c.cell.timestamp_us;
        if (lk_buf_append(value, c.cell.value.data, c.cell.value.size) != 0)
            code = lk_fail(err, LK_ENOMEM, "out of memory for a cell");
    }
    lk__table_cells_close(&c);
    lk_buf_release(&key);
    return code == LK_ENOTFOUND ? 0 : code;
}

static int increment(const struct lk_table_rule *rule, bool there, struct lk_buf *value, struct lk_err *err) {
    if (there && value->size != 8)
        return lk_fail(err, LK_EINVAL, "the value of %s to increment has %zu bytes, not 8", rule->family, value->size);
    uint64_t n = 0;
    for (size_t i = 0; i < value->size; i++) n = n << 8 | (unsigned char)value->data[i];
    n += (uint64_t)rule->amount;
    unsigned char eight[8];
    for (int i = 0; i < 8; i++) eight[i] = (unsigned char)(n >> (56 - 8 * i));
    value->size = 0;
    return lk_buf_append(value, eight, 8) == 0 ? 0 : lk_fail(err, LK_ENOMEM, "out of memory for a cell");
}

static int apply_rule(struct lk__table_writer *w, struct lk_bytes row, const struct lk_table_rule *rule,
                      struct lk_err *err) {
    struct lk_buf value = LK_BUF_INIT;
    int64_t was_us, time_us;
    int code = newest(w, row, rule, &value, &was_us, err);
    if (code == 0 && rule->increments)
        code = increment(rule, was_us >= 0, &value, err);
    else if (code == 0 && lk_buf_append(&value, rule->append.data, rule->append.size) != 0)
        code = lk_fail(err, LK_ENOMEM, "out of memory for a cell");
    if (code == 0 && value.size > LK_TABLE_VALUE_MAX)
        code = lk_fail(err, LK_EINVAL, "the value would have %zu bytes; at most %zu are possible", value.size,
                       LK_TABLE_VALUE_MAX);
    if (code == 0) code = lk__table_writer_time(w, &time_us, err);
    if (code == 0)
        code = lk__table_writer_set(w, row, lk__table_schema_family(w->schema, rule->family), rule->qualifier,
                                    was_us > time_us ? was_us : time_us, lk_bytes(value.data ? value.data : "", value.size),
                                    err);
    lk_buf_release(&value);
    return code;
}

static int compare_columns(const struct lk_table_rule *a, const struct lk_table_rule *b) {
    int c = strcmp(a->family, b->family);
    return c ? c : lk__kv_compare(a->qualifier, b->qualifier);
}

/* The least column behind `after` (NULL: of all) among the rules. */
static const struct lk_table_rule *next_column(const struct lk_table_rule *rules, size_t count,
                                               const struct lk_table_rule *after) {
    const struct lk_table_rule *best = NULL;
    for (size_t i = 0; i < count; i++)
        if ((!after || compare_columns(&rules[i], after) > 0) && (!best || compare_columns(&rules[i], best) < 0))
            best = &rules[i];
    return best;
}

static int tell_written(struct lk__table_writer *w, struct lk_bytes row, const struct lk_table_rule *rules, size_t count,
                        lk_cell_fn *tell, void *arg, struct lk_err *err) {
    struct lk_buf value = LK_BUF_INIT;
    int code = 0;
    const struct lk_table_rule *r = next_column(rules, count, NULL);
    for (; r && code == 0; r = next_column(rules, count, r)) {
        struct lk_cell cell = {.row = row, .family = r->family, .qualifier = r->qualifier};
        code = newest(w, row, r, &value, &cell.timestamp_us, err);
        cell.value = lk_bytes(value.data ? value.data : "", value.size);
        if (code == 0 && cell.timestamp_us >= 0) code = tell(arg, &cell);
    }
    lk_buf_release(&value);
    return code;
}

static int rules_check(const struct lk__table_schema *s, struct lk_bytes row, const struct lk_table_rule *rules,
                       size_t count, struct lk_err *err) {
    if (count == 0) return lk_fail(err, LK_EINVAL, "no rules");
    if (count > LK_TABLE_MUTATIONS_MAX)
        return lk_fail(err, LK_EINVAL, "%zu rules; at most %d are possible", count, LK_TABLE_MUTATIONS_MAX);
    for (size_t i = 0; i < count; i++) {
        struct lk_mutation m = {
            LK_SET_CELL, rules[i].family, rules[i].qualifier, rules[i].append, LK_TABLE_SERVER_TIME, 0, 0};
        int code = lk__table_mutations_check(s, row, &m, 1, err);
        if (code != 0) return lk_fail_prefix(err, code, "rule %zu", i + 1);
    }
    return 0;
}

int lk_table_read_modify_write(struct lk_table *t, struct lk_kv_txn *txn, struct lk_bytes row,
                               const struct lk_table_rule *rules, size_t count, lk_cell_fn *tell, void *arg,
                               struct lk_err *err) {
    struct lk__table_writer w;
    int code = lk__table_writer_open(&w, t, txn, err);
    if (code == 0) code = rules_check(w.schema, row, rules, count, err);
    for (size_t i = 0; i < count && code == 0; i++) code = apply_rule(&w, row, &rules[i], err);
    if (code == 0) code = lk__table_writer_row_done(&w, row, true, err);
    if (code == 0 && tell) code = tell_written(&w, row, rules, count, tell, arg, err);
    lk__table_writer_close(&w);
    return code;
}
