/* Filters, mutations and sets of rows: from the messages to table.h's words. */
#include "store/bigtable/inside.h"
#include <string.h>

/* --- filters --------------------------------------------------------------------------------------------- */

#define FILTER(name) GOOGLE__BIGTABLE__V2__ROW_FILTER__FILTER_##name

static int convert(struct lk__bigtable_call *c, const V2(RowFilter) * from, unsigned depth, const struct lk_filter **out,
                   struct lk_err *err);

static int convert_parts(struct lk__bigtable_call *c, V2(RowFilter) *const *from, size_t count, unsigned depth,
                         struct lk_filter *to, struct lk_err *err) {
    const struct lk_filter **parts = lk__bigtable_take(c, (count ? count : 1) * sizeof *parts);
    int code = parts ? 0 : lk__bigtable_no_memory(err);
    for (size_t i = 0; i < count && code == 0; i++) code = convert(c, from[i], depth + 1, &parts[i], err);
    to->parts = parts;
    to->part_count = count;
    return code;
}

static void column_range(const V2(ColumnRange) * r, struct lk_filter *to) {
    to->family = r->family_name;
    if (r->start_qualifier_case == GOOGLE__BIGTABLE__V2__COLUMN_RANGE__START_QUALIFIER_START_QUALIFIER_CLOSED)
        to->range.from = lk__bigtable_bytes(r->start_qualifier_closed);
    if (r->start_qualifier_case == GOOGLE__BIGTABLE__V2__COLUMN_RANGE__START_QUALIFIER_START_QUALIFIER_OPEN)
        to->range.from = lk__bigtable_bytes(r->start_qualifier_open), to->range.from_open = true;
    if (r->end_qualifier_case == GOOGLE__BIGTABLE__V2__COLUMN_RANGE__END_QUALIFIER_END_QUALIFIER_CLOSED)
        to->range.to = lk__bigtable_bytes(r->end_qualifier_closed), to->range.to_closed = true;
    if (r->end_qualifier_case == GOOGLE__BIGTABLE__V2__COLUMN_RANGE__END_QUALIFIER_END_QUALIFIER_OPEN)
        to->range.to = lk__bigtable_bytes(r->end_qualifier_open);
}
static void value_range(const V2(ValueRange) * r, struct lk_filter *to) {
    if (r->start_value_case == GOOGLE__BIGTABLE__V2__VALUE_RANGE__START_VALUE_START_VALUE_CLOSED)
        to->range.from = lk__bigtable_bytes(r->start_value_closed);
    if (r->start_value_case == GOOGLE__BIGTABLE__V2__VALUE_RANGE__START_VALUE_START_VALUE_OPEN)
        to->range.from = lk__bigtable_bytes(r->start_value_open), to->range.from_open = true;
    if (r->end_value_case == GOOGLE__BIGTABLE__V2__VALUE_RANGE__END_VALUE_END_VALUE_CLOSED)
        to->range.to = lk__bigtable_bytes(r->end_value_closed), to->range.to_closed = true;
    if (r->end_value_case == GOOGLE__BIGTABLE__V2__VALUE_RANGE__END_VALUE_END_VALUE_OPEN)
        to->range.to = lk__bigtable_bytes(r->end_value_open);
}

static int switch_of(bool on, const char *name, enum lk_filter_kind kind, struct lk_filter *to, struct lk_err *err) {
    to->kind = kind;
    return on ? 0 : lk_fail(err, LK_EINVAL, "%s is false; a filter of this kind is true or not there", name);
}
static int pattern(ProtobufCBinaryData text, enum lk_filter_kind kind, struct lk_filter *to) {
    to->kind = kind;
    to->pattern = lk__bigtable_bytes(text);
    return 0;
}
static int number(int32_t n, enum lk_filter_kind kind, struct lk_filter *to) {
    to->kind = kind;
    to->count = n;
    return 0;
}

static int convert_condition(struct lk__bigtable_call *c, const V2(RowFilter__Condition) * from, unsigned depth,
                             struct lk_filter *to, struct lk_err *err) {
    V2(RowFilter) *const all[] = {from->predicate_filter, from->true_filter, from->false_filter};
    const struct lk_filter **parts = lk__bigtable_take(c, 3 * sizeof *parts);
    int code = parts ? 0 : lk__bigtable_no_memory(err);
    if (code == 0 && !all[0]) code = lk_fail(err, LK_EINVAL, "a condition without predicate_filter");
    for (size_t i = 0; i < 3 && code == 0; i++) {
        parts[i] = NULL;
        if (all[i]) code = convert(c, all[i], depth + 1, &parts[i], err);
    }
    to->kind = LK_FILTER_CONDITION;
    to->parts = parts;
    to->part_count = 3;
    return code;
}

static int convert_into(struct lk__bigtable_call *c, const V2(RowFilter) * f, unsigned depth, struct lk_filter *to,
                        struct lk_err *err) {
    switch (f->filter_case) {
    case FILTER(CHAIN):
        to->kind = LK_FILTER_CHAIN;
        return convert_parts(c, f->chain->filters, f->chain->n_filters, depth, to, err);
    case FILTER(INTERLEAVE):
        to->kind = LK_FILTER_INTERLEAVE;
        return convert_parts(c, f->interleave->filters, f->interleave->n_filters, depth, to, err);
    case FILTER(CONDITION):
        return convert_condition(c, f->condition, depth, to, err);
    case FILTER(SINK):
        return switch_of(f->sink, "sink", LK_FILTER_SINK, to, err);
    case FILTER(PASS_ALL_FILTER):
        return switch_of(f->pass_all_filter, "pass_all_filter", LK_FILTER_PASS, to, err);
    case FILTER(BLOCK_ALL_FILTER):
        return switch_of(f->block_all_filter, "block_all_filter", LK_FILTER_BLOCK, to, err);
    case FILTER(STRIP_VALUE_TRANSFORMER):
        return switch_of(f->strip_value_transformer, "strip_value_transformer", LK_FILTER_STRIP_VALUE, to, err);
    case FILTER(ROW_KEY_REGEX_FILTER):
        if (f->row_key_regex_filter.len == 0) return lk_fail(err, LK_EINVAL, "row_key_regex_filter is empty");
        return pattern(f->row_key_regex_filter, LK_FILTER_ROW_REGEX, to);
    case FILTER(COLUMN_QUALIFIER_REGEX_FILTER):
        return pattern(f->column_qualifier_regex_filter, LK_FILTER_COLUMN_REGEX, to);
    case FILTER(VALUE_REGEX_FILTER):
        return pattern(f->value_regex_filter, LK_FILTER_VALUE_REGEX, to);
    case FILTER(FAMILY_NAME_REGEX_FILTER):
        to->kind = LK_FILTER_FAMILY_REGEX;
        to->pattern = lk_bytes(f->family_name_regex_filter, strlen(f->family_name_regex_filter));
        return 0;
    case FILTER(ROW_SAMPLE_FILTER):
        to->kind = LK_FILTER_ROW_SAMPLE;
        to->probability = f->row_sample_filter;
        return 0;
    case FILTER(COLUMN_RANGE_FILTER):
        to->kind = LK_FILTER_COLUMN_RANGE;
        column_range(f->column_range_filter, to);
        return 0;
    case FILTER(TIMESTAMP_RANGE_FILTER):
        to->kind = LK_FILTER_TIME_RANGE;
        to->from_us = f->timestamp_range_filter->start_timestamp_micros;
        to->to_us = f->timestamp_range_filter->end_timestamp_micros;
        return 0;
    case FILTER(VALUE_RANGE_FILTER):
        to->kind = LK_FILTER_VALUE_RANGE;
        value_range(f->value_range_filter, to);
        return 0;
    case FILTER(CELLS_PER_ROW_OFFSET_FILTER):
        return number(f->cells_per_row_offset_filter, LK_FILTER_ROW_OFFSET, to);
    case FILTER(CELLS_PER_ROW_LIMIT_FILTER):
        return number(f->cells_per_row_limit_filter, LK_FILTER_ROW_LIMIT, to);
    case FILTER(CELLS_PER_COLUMN_LIMIT_FILTER):
        return number(f->cells_per_column_limit_filter, LK_FILTER_COLUMN_LIMIT, to);
    case FILTER(APPLY_LABEL_TRANSFORMER):
        to->kind = LK_FILTER_LABEL;
        to->label = f->apply_label_transformer;
        return 0;
    case FILTER(VALUE_BITMASK_FILTER):
        return lk__bigtable_refuse(c, LK_GRPC_UNIMPLEMENTED, err, "value_bitmask_filter is not supported here");
    default:
        to->kind = LK_FILTER_PASS;
        return 0;
    }
}

static int convert(struct lk__bigtable_call *c, const V2(RowFilter) * from, unsigned depth, const struct lk_filter **out,
                   struct lk_err *err) {
    if (depth > LK_FILTER_DEPTH_MAX)
        return lk_fail(err, LK_EINVAL, "filters in filters, more than %d deep", LK_FILTER_DEPTH_MAX);
    struct lk_filter *to = lk__bigtable_take(c, sizeof *to);
    if (!to) return lk__bigtable_no_memory(err);
    memset(to, 0, sizeof *to);
    *out = to;
    return convert_into(c, from, depth, to, err);
}

int lk__bigtable_filter(struct lk__bigtable_call *c, const V2(RowFilter) * from, struct lk_filter_program **out,
                        struct lk_err *err) {
    const struct lk_filter *tree = NULL;
    *out = NULL;
    if (!from || from->filter_case == FILTER(_NOT_SET)) return 0;
    int code = convert(c, from, 0, &tree, err);
    return code ? code : lk_filter_compile(tree, out, err);
}

/* --- mutations ------------------------------------------------------------------------------------------- */

#define MUTATION(name) GOOGLE__BIGTABLE__V2__MUTATION__MUTATION_##name

static int mutation(struct lk__bigtable_call *c, const V2(Mutation) * from, struct lk_mutation *to, struct lk_err *err) {
    *to = (struct lk_mutation){0};
    switch (from->mutation_case) {
    case MUTATION(SET_CELL):
        to->kind = LK_SET_CELL;
        to->family = from->set_cell->family_name;
        to->qualifier = lk__bigtable_bytes(from->set_cell->column_qualifier);
        to->value = lk__bigtable_bytes(from->set_cell->value);
        to->timestamp_us = from->set_cell->timestamp_micros;
        /* A time that nobody chose is rounded, not refused. */
        if (from->timestamp_origin == GOOGLE__BIGTABLE__V2__MUTATION__TIMESTAMP_ORIGIN__CLIENT_AUTO_GENERATED &&
            to->timestamp_us > 0)
            to->timestamp_us -= to->timestamp_us % 1000;
        return 0;
    case MUTATION(DELETE_FROM_COLUMN):
        to->kind = LK_DELETE_FROM_COLUMN;
        to->family = from->delete_from_column->family_name;
        to->qualifier = lk__bigtable_bytes(from->delete_from_column->column_qualifier);
        if (from->delete_from_column->time_range) {
            to->from_us = from->delete_from_column->time_range->start_timestamp_micros;
            to->to_us = from->delete_from_column->time_range->end_timestamp_micros;
        }
        return 0;
    case MUTATION(DELETE_FROM_FAMILY):
        to->kind = LK_DELETE_FROM_FAMILY;
        to->family = from->delete_from_family->family_name;
        return 0;
    case MUTATION(DELETE_FROM_ROW):
        to->kind = LK_DELETE_FROM_ROW;
        return 0;
    case MUTATION(ADD_TO_CELL):
    case MUTATION(MERGE_TO_CELL):
        return lk__bigtable_refuse(c, LK_GRPC_UNIMPLEMENTED, err,
                                   "families that aggregate are not supported here, so neither is %s",
                                   from->mutation_case == MUTATION(ADD_TO_CELL) ? "add_to_cell" : "merge_to_cell");
    default:
        return lk_fail(err, LK_EINVAL, "a mutation that says nothing, or of a kind that is not known here");
    }
}

int lk__bigtable_mutations(struct lk__bigtable_call *c, V2(Mutation) *const *from, size_t count, struct lk_mutation **out,
                           struct lk_err *err) {
    struct lk_mutation *all = lk__bigtable_take(c, (count ? count : 1) * sizeof *all);
    int code = all ? 0 : lk__bigtable_no_memory(err);
    for (size_t i = 0; i < count && code == 0; i++) {
        code = mutation(c, from[i], &all[i], err);
        if (code != 0 && count > 1) lk_fail_prefix(err, code, "mutation %zu", i + 1);
    }
    *out = all;
    return code;
}

/* --- rows ------------------------------------------------------------------------------------------------ */

static int compare(struct lk_bytes a, struct lk_bytes b) {
    size_t n = a.size < b.size ? a.size : b.size;
    int c = n ? memcmp(a.data, b.data, n) : 0;
    return c ? c : (a.size > b.size) - (a.size < b.size);
}

/* An empty bound is none. */
static int row_range(const V2(RowRange) * from, size_t i, struct lk_table_range *to, struct lk_err *err) {
    *to = (struct lk_table_range){0};
    if (from->start_key_case == GOOGLE__BIGTABLE__V2__ROW_RANGE__START_KEY_START_KEY_CLOSED)
        to->from = lk__bigtable_bytes(from->start_key_closed);
    if (from->start_key_case == GOOGLE__BIGTABLE__V2__ROW_RANGE__START_KEY_START_KEY_OPEN)
        to->from = lk__bigtable_bytes(from->start_key_open), to->from_open = to->from.size > 0;
    if (from->end_key_case == GOOGLE__BIGTABLE__V2__ROW_RANGE__END_KEY_END_KEY_CLOSED)
        to->to = lk__bigtable_bytes(from->end_key_closed), to->to_closed = true;
    if (from->end_key_case == GOOGLE__BIGTABLE__V2__ROW_RANGE__END_KEY_END_KEY_OPEN)
        to->to = lk__bigtable_bytes(from->end_key_open);
    if (to->from.size == 0) to->from.data = NULL;
    if (to->to.size == 0) to->to.data = NULL, to->to_closed = false;
    if (to->from.data && to->to.data && compare(to->from, to->to) > 0)
        return lk_fail(err, LK_EINVAL, "row range %zu: its start key is behind its end key", i);
    return 0;
}

int lk__bigtable_rows(struct lk__bigtable_call *c, const V2(RowSet) * from, struct lk_table_read *out, struct lk_err *err) {
    if (!from) return 0;
    struct lk_bytes *rows = lk__bigtable_take(c, (from->n_row_keys + 1) * sizeof *rows);
    struct lk_table_range *ranges = lk__bigtable_take(c, (from->n_row_ranges + 1) * sizeof *ranges);
    int code = rows && ranges ? 0 : lk__bigtable_no_memory(err);
    for (size_t i = 0; i < from->n_row_keys && code == 0; i++) {
        rows[i] = lk__bigtable_bytes(from->row_keys[i]);
        if (rows[i].size == 0) code = lk_fail(err, LK_EINVAL, "row key %zu is empty", i);
    }
    for (size_t i = 0; i < from->n_row_ranges && code == 0; i++) code = row_range(from->row_ranges[i], i, &ranges[i], err);
    out->rows = rows;
    out->row_count = from->n_row_keys;
    out->ranges = ranges;
    out->range_count = from->n_row_ranges;
    return code;
}

/* What is left of a range. False: nothing. */
static bool cut(struct lk_table_range *r, struct lk_bytes last, bool reversed) {
    if (reversed) {
        if (!r->to.data || compare(r->to, last) >= 0) r->to = last, r->to_closed = false;
        return !r->from.data || compare(r->from, last) < 0;
    }
    if (!r->from.data || compare(r->from, last) <= 0) r->from = last, r->from_open = true;
    return !r->to.data || compare(r->to, last) > 0;
}

int lk__bigtable_rows_behind(struct lk__bigtable_call *c, struct lk_table_read *read, struct lk_bytes last, bool *done,
                             struct lk_err *err) {
    bool whole = read->row_count == 0 && read->range_count == 0;
    struct lk_bytes *rows = lk__bigtable_take(c, (read->row_count + 1) * sizeof *rows);
    struct lk_table_range *ranges = lk__bigtable_take(c, (read->range_count + 1) * sizeof *ranges);
    size_t row_count = 0, range_count = 0;
    char *copy = lk__bigtable_text(c, last.data, last.size);
    if (!rows || !ranges || !copy) return lk__bigtable_no_memory(err);
    last.data = copy;
    for (size_t i = 0; i < read->row_count; i++) {
        int order = compare(read->rows[i], last);
        if (read->reversed ? order < 0 : order > 0) rows[row_count++] = read->rows[i];
    }
    for (size_t i = 0; i < read->range_count + whole; i++) {
        ranges[range_count] = whole ? (struct lk_table_range){0} : read->ranges[i];
        range_count += cut(&ranges[range_count], last, read->reversed);
    }
    read->rows = rows;
    read->row_count = row_count;
    read->ranges = ranges;
    read->range_count = range_count;
    *done = row_count + range_count == 0;
    return 0;
}
