/* Random work on a table beside a sorted array of cells that does the same, on every engine: reads of ranges in both
 * directions, pins whose digests never change, differences between them, rules, compaction. */
#include "lockstep/base/hash.h"
#include "store/table/filter.h"
#include "store/table/testing.h"

#define ROWS       12
#define QUALIFIERS 5
#define TIMES      4
#define CELLS_MAX  4000
#define PINS       3

static const char *const family_names[] = {"a", "ab", "z"};
#define FAMILIES 3

struct cell {
    int row, family, qualifier; /* of sorted names */
    int time;                   /* thousands of us */
    uint32_t value;
};
struct state {
    struct cell cells[CELLS_MAX];
    size_t count;
    int versions[FAMILIES]; /* that a rule keeps; 0: all */
};
struct pin {
    bool held;
    int64_t at_ms;
    struct state state;
    struct lk_root digest;
};
struct test {
    struct lk_store store;
    struct lk_table *table;
    struct state now;
    struct pin pins[PINS];
    struct test_random r;
    int steps;
};

static struct lk_bytes row_name(int i) { /* in order, with zero bytes that must be put in and taken out */
    static const struct {
        const char *data;
        size_t size;
    } names[ROWS] = {{"\0", 1},   {"\0\0", 2},    {"\0\xff", 2}, {"\1", 1},      {"a", 1},    {"a\0", 2},
                     {"a\0b", 3}, {"a\0\xff", 3}, {"a\1", 2},    {"r123456", 7}, {"\xff", 1}, {"\xff\xff\0", 3}};
    return lk_bytes(names[i].data, names[i].size);
}
static struct lk_bytes qualifier_name(int i) {
    static const struct {
        const char *data;
        size_t size;
    } names[QUALIFIERS] = {{"", 0}, {"\0", 1}, {"\0\xff", 2}, {"q", 1}, {"q\0", 2}};
    return lk_bytes(names[i].data, names[i].size);
}

/* --- the model ------------------------------------------------------------------------------------------- */

static int compare(const void *a, const void *b) {
    const struct cell *x = a, *y = b;
    if (x->row != y->row) return x->row - y->row;
    if (x->family != y->family) return x->family - y->family;
    if (x->qualifier != y->qualifier) return x->qualifier - y->qualifier;
    return y->time - x->time;
}
static void model_set(struct state *s, struct cell c) {
    for (size_t i = 0; i < s->count; i++)
        if (compare(&s->cells[i], &c) == 0) {
            s->cells[i].value = c.value;
            return;
        }
    assert_true(s->count < CELLS_MAX);
    s->cells[s->count++] = c;
    qsort(s->cells, s->count, sizeof c, compare);
}
/* family, qualifier -1: all. */
static void model_delete(struct state *s, int row, int family, int qualifier, int from, int to) {
    size_t n = 0;
    for (size_t i = 0; i < s->count; i++) {
        const struct cell *c = &s->cells[i];
        bool goes = c->row == row && (family < 0 || c->family == family) && (qualifier < 0 || c->qualifier == qualifier) &&
                    c->time >= from && (to == 0 || c->time < to);
        if (!goes) s->cells[n++] = *c;
    }
    s->count = n;
}
/* Without garbage. */
static void model_visible(const struct state *s, struct state *out) {
    int nth = 0;
    out->count = 0;
    memcpy(out->versions, s->versions, sizeof out->versions);
    for (size_t i = 0; i < s->count; i++) {
        const struct cell *c = &s->cells[i], *before = i ? &s->cells[i - 1] : NULL;
        bool same = before && before->row == c->row && before->family == c->family && before->qualifier == c->qualifier;
        nth = same ? nth + 1 : 0;
        int most = s->versions[c->family];
        if (!most || nth < most) out->cells[out->count++] = *c;
    }
}

/* --- text ------------------------------------------------------------------------------------------------ */

static const char *value_text(uint32_t value, char out[32]) { /* some are empty, some long enough to be compressed */
    snprintf(out, 32, value % 7 ? "%u" : "", value);
    return out;
}
static struct lk_cell cell_of(const struct cell *c, char value[32]) {
    return (struct lk_cell){.row = row_name(c->row),
                            .family = family_names[c->family],
                            .qualifier = qualifier_name(c->qualifier),
                            .timestamp_us = (int64_t)c->time * 1000,
                            .value = S(value_text(c->value, value))};
}
/* Rows from <= row < to, at most `limit` of them (0: all). */
static char *model_text(const struct state *s, int from, int to, bool reversed, int limit) {
    static struct state v;
    struct lk_buf b = LK_BUF_INIT;
    char value[32];
    model_visible(s, &v);
    int rows = 0;
    OK(lk_buf_append(&b, "", 0));
    for (int k = from; k < to; k++) {
        int row = reversed ? from + to - 1 - k : k;
        bool told = false;
        for (size_t i = 0; i < v.count && (!limit || rows < limit); i++) {
            if (v.cells[i].row != row) continue;
            struct lk_cell c = cell_of(&v.cells[i], value);
            text_cell(&b, &c);
            told = true;
        }
        rows += told;
    }
    return b.data ? b.data : lk_strdup("");
}

/* --- steps ----------------------------------------------------------------------------------------------- */

static uint32_t below(struct test *t, uint32_t n) {
    return test_random_below(&t->r, n);
}

static void change(struct test *t) {
    struct lk_mutation m[6];
    char values[6][32];
    int row = (int)below(t, ROWS);
    size_t n = 1 + below(t, 6);
    for (size_t i = 0; i < n; i++) {
        struct cell c = {row, (int)below(t, FAMILIES), (int)below(t, QUALIFIERS), (int)below(t, TIMES), below(t, 1000)};
        int from = (int)below(t, TIMES), to = below(t, 2) ? 0 : from + 1 + (int)below(t, 3);
        m[i] = (struct lk_mutation){.family = family_names[c.family], .qualifier = qualifier_name(c.qualifier)};
        switch (below(t, 12)) {
        case 0:
            m[i].kind = LK_DELETE_FROM_ROW;
            model_delete(&t->now, row, -1, -1, 0, 0);
            break;
        case 1:
            m[i].kind = LK_DELETE_FROM_FAMILY;
            model_delete(&t->now, row, c.family, -1, 0, 0);
            break;
        case 2:
        case 3:
            m[i].kind = LK_DELETE_FROM_COLUMN;
            m[i].from_us = from * 1000;
            m[i].to_us = to * 1000;
            model_delete(&t->now, row, c.family, c.qualifier, from, to);
            break;
        default:
            m[i].kind = LK_SET_CELL;
            m[i].timestamp_us = (int64_t)c.time * 1000;
            m[i].value = S(value_text(c.value, values[i]));
            model_set(&t->now, c);
        }
    }
    OK(lk_table_apply(t->table, row_name(row), m, n, LK_LAZY, &test_err));
}

static void read_some(struct test *t) {
    struct lk_kv_txn *txn = begin(t->store.kv, false);
    const struct pin *p = &t->pins[below(t, PINS)];
    bool pinned = p->held && below(t, 2);
    int from = (int)below(t, ROWS + 1), to = from + (int)below(t, (uint32_t)(ROWS + 1 - from));
    struct lk_table_range range = {0};
    struct lk_table_read read = {.ranges = &range,
                                 .range_count = 1,
                                 .limit = below(t, 3) ? 0 : 1 + below(t, 4),
                                 .reversed = below(t, 2),
                                 .pinned_ms = pinned ? p->at_ms : 0};
    struct lk_bytes one;
    if (from == to) {
        to = from < ROWS ? from + 1 : ROWS;
        from = to - 1;
        one = row_name(from);
        read = (struct lk_table_read){.rows = &one, .row_count = 1, .reversed = read.reversed, .pinned_ms = read.pinned_ms};
    } else { /* each bound open or closed */
        range.from_open = from > 0 && below(t, 2);
        range.from = range.from_open ? row_name(from - 1) : row_name(from);
        range.to_closed = to == ROWS || below(t, 2);
        range.to = range.to_closed ? row_name(to - 1) : row_name(to);
    }
    char *got = text_of(t->table, txn, &read);
    char *expected = model_text(pinned ? &p->state : &t->now, from, to, read.reversed, (int)read.limit);
    assert_string_equal(got, expected);
    lk_free(got);
    lk_free(expected);
    lk_kv_abort(txn);
}

/* --- filters: a read that seeks beside one that looks at every cell --------------------------------------------- */

static void random_filter(struct test *t, int depth, struct lk_buf *out) {
    static const char *const parts[] = {"pass",
                                        "pass",
                                        "strip_value",
                                        "latest(1)",
                                        "latest(2)",
                                        "row_limit(3)",
                                        "row_offset(2)",
                                        "family(\"a\")",
                                        "family(\"a|z\")",
                                        "family(\"a.*\")",
                                        "column_regex(\"q\")",
                                        "column_regex(\"q.*|\")",
                                        "column_regex(\"\\\\x00\\\\C*\")",
                                        "column_range(\"ab\", [\"\", \"q\"])",
                                        "column_range(\"z\", (\"q\", ))",
                                        "column_range(\"a\", [\"\\x00\", \"\\x00\\xff\"))",
                                        "time_range(1000, 3000)",
                                        "time_range(2000, )",
                                        "time_range( , 1000)",
                                        "value_regex(\"1.*\")",
                                        "value_range([\"2\", \"5\"))",
                                        "row_regex(\"a\\\\C*\")",
                                        "row_sample(0.5)",
                                        "label(\"l\")"};
    uint32_t kind = depth > 2 ? 9 : below(t, 10);
    if (kind == 0) {
        OK(lk_buf_printf(out, "interleave("));
        random_filter(t, depth + 1, out);
        OK(lk_buf_printf(out, ", "));
        random_filter(t, depth + 1, out);
        OK(lk_buf_printf(out, ")"));
    } else if (kind == 1) {
        OK(lk_buf_printf(out, "condition("));
        random_filter(t, depth + 1, out);
        OK(lk_buf_printf(out, ", "));
        random_filter(t, depth + 1, out);
        OK(lk_buf_printf(out, ", "));
        if (below(t, 2))
            OK(lk_buf_printf(out, "none"));
        else
            random_filter(t, depth + 1, out);
        OK(lk_buf_printf(out, ")"));
    } else if (kind < 5) {
        OK(lk_buf_printf(out, "("));
        random_filter(t, depth + 1, out);
        OK(lk_buf_printf(out, " | "));
        random_filter(t, depth + 1, out);
        OK(lk_buf_printf(out, ")"));
    } else
        OK(lk_buf_printf(out, "%s", parts[below(t, sizeof parts / sizeof *parts)]));
}

/* A row's cells, copied, and what a filter makes of them without passing over any. */
struct plain {
    struct lk_filter_program *filter;
    struct lk__table_filter_run *run;
    struct lk_cell cells[1000];
    struct lk_buf bytes[1000];
    size_t count;
    struct lk_buf text;
};
static int keep_cell(void *arg, const struct lk_cell *c) {
    struct plain *p = arg;
    struct lk_buf *b = &p->bytes[p->count];
    b->size = 0;
    OK(lk_buf_append(b, c->row.data, c->row.size) || lk_buf_append(b, c->qualifier.data, c->qualifier.size) ||
       lk_buf_append(b, c->value.data, c->value.size));
    struct lk_cell *k = &p->cells[p->count++];
    *k = *c;
    k->row.data = b->data;
    k->qualifier.data = b->data + c->row.size;
    k->value.data = b->data + c->row.size + c->qualifier.size;
    return 0;
}
static int plain_row(void *arg, struct lk_bytes row, bool told) {
    struct plain *p = arg;
    (void)told;
    if (lk__table_filter_row(p->filter, row)) {
        lk__table_filter_begin(p->run, row);
        while (lk__table_filter_again(p->run))
            for (size_t i = 0; i < p->count; i++) {
                enum lk__table_filter_next next = LK__FILTER_CELL;
                OK(lk__table_filter_cell(p->run, &p->cells[i], text_cell, &p->text, &next, &test_err));
            }
    }
    p->count = 0;
    return 0;
}
static void filter(struct test *t) {
    static struct plain p;
    struct lk_buf text = LK_BUF_INIT;
    struct lk_filter *tree;
    random_filter(t, 0, &text);
    OK(lk_filter_parse(text.data, &tree, &test_err));
    int code = lk_filter_compile(tree, &p.filter, &test_err);
    lk_filter_tree_free(tree);
    if (code == LK_EINVAL) { /* two labels in a chain */
        lk_buf_release(&text);
        return;
    }
    OK(code);
    OK(lk__table_filter_run_open(p.filter, &p.run, &test_err));
    p.text.size = 0;
    OK(lk_buf_append(&p.text, "", 0));
    struct lk_kv_txn *txn = begin(t->store.kv, false);
    struct lk_table_sink sink = {keep_cell, plain_row, &p};
    OK(lk_table_read(t->table, txn, &(struct lk_table_read){0}, &sink, NULL, &test_err));
    char *got = text_of(t->table, txn, &(struct lk_table_read){.filter = p.filter});
    if (strcmp(got, p.text.size ? p.text.data : "") != 0)
        fail_msg("%s\n  gave   %s\n  not    %s", text.data, got, p.text.size ? p.text.data : "");
    lk_free(got);
    lk_kv_abort(txn);
    lk__table_filter_run_close(p.run);
    lk_filter_free(p.filter);
    lk_buf_release(&text);
}

static void increment(struct test *t) {
    struct lk_kv_txn *txn = begin(t->store.kv, true);
    struct lk_table_rule rule = {.family = "z", .qualifier = S("counter"), .increments = true, .amount = 1};
    OK(lk_table_read_modify_write(t->table, txn, row_name((int)below(t, ROWS)), &rule, 1, NULL, NULL, &test_err));
    lk_kv_abort(txn); /* nothing of it stays */
}

static void alter(struct test *t) {
    int f = (int)below(t, FAMILIES), most = (int)below(t, TIMES);
    char rule[32];
    snprintf(rule, sizeof rule, most ? "maxversions=%d" : "never", most);
    struct lk_table_change c = {LK_TABLE_UPDATE_FAMILY, {family_names[f], rule, below(t, 2)}};
    OK(lk_table_alter(&t->store, "t", &c, 1, &test_err));
    t->now.versions[f] = most;
}
static void drop_and_make(struct test *t) {
    int f = (int)below(t, FAMILIES);
    struct lk_table_change c[] = {{LK_TABLE_DROP_FAMILY, {family_names[f], NULL, false}},
                                  {LK_TABLE_ADD_FAMILY, {family_names[f], NULL, false}}};
    int code = lk_table_alter(&t->store, "t", c, 2, &test_err);
    if (code == LK_EBUSY) return; /* too often since the last compaction */
    OK(code);
    for (int row = 0; row < ROWS; row++) model_delete(&t->now, row, f, -1, 0, 0);
    t->now.versions[f] = 0;
}

static void compact(struct test *t) {
    static struct state v;
    struct lk_table_compact_result result;
    OK(lk_table_compact(t->table, NULL, NULL, &result, &test_err));
    model_visible(&t->now, &v);
    t->now = v;
}

static struct lk_root digest(struct test *t, int64_t at_ms) {
    struct lk_root root;
    struct lk_kv_txn *txn = begin(t->store.kv, false);
    OK(lk_table_digest(t->table, txn, at_ms, &root, NULL, &test_err));
    lk_kv_abort(txn);
    return root;
}
static void pin(struct test *t) {
    static const char *const table[] = {"t"};
    size_t i = below(t, PINS);
    char name[8];
    snprintf(name, sizeof name, "p%zu", i);
    struct pin *p = &t->pins[i];
    if (p->held) {
        struct lk_root root = digest(t, p->at_ms);
        assert_memory_equal(&root, &p->digest, sizeof root);
        OK(lk_table_pin_release(&t->store, name, &test_err));
        p->held = false;
        return;
    }
    struct lk_root before = digest(t, 0);
    OK(lk_table_pin(&t->store, name, table, 1, 0, &p->at_ms, &test_err));
    p->held = true;
    p->state = t->now;
    p->digest = digest(t, p->at_ms);
    assert_memory_equal(&before, &p->digest, sizeof before);
}

static int text_change(void *arg, const struct lk_cell *before, const struct lk_cell *after) {
    if (before) OK(lk_buf_append(arg, "-", 1));
    if (before) text_cell(arg, before);
    if (after) OK(lk_buf_append(arg, "+", 1));
    if (after) text_cell(arg, after);
    return 0;
}
static void diff(struct test *t) {
    static struct state a, b;
    const struct pin *p = &t->pins[below(t, PINS)], *q = &t->pins[below(t, PINS)];
    if (!p->held) return;
    bool to_pin = q->held && q->at_ms >= p->at_ms;
    model_visible(&p->state, &a);
    model_visible(to_pin ? &q->state : &t->now, &b);
    struct lk_buf expected = LK_BUF_INIT, got = LK_BUF_INIT;
    OK(lk_buf_append(&expected, "", 0) || lk_buf_append(&got, "", 0));
    for (size_t i = 0, k = 0; i < a.count || k < b.count;) {
        int c = i == a.count ? 1 : k == b.count ? -1 : compare(&a.cells[i], &b.cells[k]);
        char x[32], y[32];
        struct lk_cell before, after;
        if (c <= 0) before = cell_of(&a.cells[i], x);
        if (c >= 0) after = cell_of(&b.cells[k], y);
        if (c != 0 || strcmp(x, y) != 0) text_change(&expected, c <= 0 ? &before : NULL, c >= 0 ? &after : NULL);
        i += c <= 0;
        k += c >= 0;
    }
    struct lk_kv_txn *txn = begin(t->store.kv, false);
    OK(lk_table_diff(t->table, txn, p->at_ms, to_pin ? q->at_ms : 0, text_change, &got, &test_err));
    lk_kv_abort(txn);
    assert_string_equal(got.data, expected.data);
    lk_buf_release(&got);
    lk_buf_release(&expected);
}

typedef void step_fn(struct test *);
static const struct {
    uint32_t weight;
    step_fn *run;
} steps[] = {{60, change}, {40, read_some}, {5, increment}, {3, alter},  {1, drop_and_make},
             {2, compact}, {6, pin},        {8, diff},      {25, filter}};

static void one_step(struct test *t) {
    uint32_t all = 0;
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) all += steps[i].weight;
    uint32_t n = below(t, all);
    for (size_t i = 0;; n -= steps[i++].weight)
        if (n < steps[i].weight) {
            steps[i].run(t);
            return;
        }
}

static void equals_an_array_of_cells(struct world *w) {
    static const char *const families[] = {"a", NULL, "ab", NULL, "z", NULL, NULL};
    static struct test t;
    const char *more = getenv("LOCKSTEP_TEST_STEPS");
    memset(&t, 0, sizeof t);
    t.r = test_random_open("table");
    t.store = store_of(w->kv);
    t.steps = more && *more ? atoi(more) : 1500;
    make_table(&t.store, "t", families);
    t.table = table_of(&t.store, "t");
    for (int i = 0; i < t.steps; i++) one_step(&t);
    for (size_t i = 0; i < PINS; i++) /* the pinned never changed */
        if (t.pins[i].held) {
            struct lk_root root = digest(&t, t.pins[i].at_ms);
            assert_memory_equal(&root, &t.pins[i].digest, sizeof root);
        }
    lk_table_close(t.table);
}

static void equals_an_array(void **state) {
    (void)state;
    static const struct world_case c = WORLD_CASE(equals_an_array_of_cells);
    run_on_every_engine(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(equals_an_array)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
