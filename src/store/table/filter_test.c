/* Filters beside a model that has a whole row in memory: each step is a list in, a list out. */
#include "base/testing.h"
#include "store/table/filter.h"
#include "store/table/filter_program.h"
#include <time.h>

/* --- rows ------------------------------------------------------------------------------------------------ */

#define CELLS_MAX 64
struct row {
    struct lk_bytes key;
    struct lk_cell cells[CELLS_MAX];
    size_t count;
};
#define BYTES(text)                                                                                                        \
    { text, sizeof(text) - 1 }
static const char *const families[] = {"a", "b", "cf1", "cf2"};
static const struct lk_bytes qualifiers[] = {BYTES(""),   BYTES("\0"), BYTES("a"),  BYTES("a\nb"),
                                             BYTES("ab"), BYTES("b"),  BYTES("bb"), BYTES("\xff\xff")};
static const struct lk_bytes values[] = {BYTES(""), BYTES("x"), BYTES("xy"), BYTES("1"), BYTES("\n"), BYTES("\xff")};
static const struct lk_bytes keys[] = {BYTES("k"), BYTES("row1"), BYTES("row2"), BYTES("z\xff"), BYTES("\n")};
#define COUNT(list) (sizeof(list) / sizeof *(list))

static uint64_t random_state;
static unsigned any(unsigned below) {
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (unsigned)(random_state >> 33) % below;
}
static void random_row(struct row *row) {
    *row = (struct row){.key = keys[any(COUNT(keys))]};
    for (size_t f = 0; f < COUNT(families); f++) {
        if (!any(4)) continue;
        for (size_t q = 0; q < COUNT(qualifiers); q++) {
            if (any(2)) continue;
            for (int64_t t = 5; t > 0 && row->count < CELLS_MAX; t--)
                if (any(3) == 0)
                    row->cells[row->count++] =
                        (struct lk_cell){row->key, families[f], qualifiers[q], t * 1000, values[any(COUNT(values))], NULL};
        }
    }
}

/* --- the model ------------------------------------------------------------------------------------------- */

struct copy {
    size_t cell;
    bool empty;
    const char *label;
    size_t tag; /* where it came from, in the list of the nearest interleave around */
};
#define COPIES_MAX 4000
struct list {
    struct copy copy[COPIES_MAX];
    size_t count;
    bool full;
};
static void add(struct list *l, struct copy c) {
    if (l->count == COPIES_MAX)
        l->full = true;
    else
        l->copy[l->count++] = c;
}
static struct list *list_create(void) {
    struct list *l = lk_alloc(sizeof *l);
    assert_non_null(l);
    l->count = 0;
    l->full = false;
    return l;
}
static bool model_matches(struct lk_bytes pattern, struct lk_bytes text) {
    struct lk__table_regex *re;
    struct lk__table_regex_run *run;
    bool match;
    OK(lk__table_regex_compile(pattern, &re, &test_err));
    int code = lk__table_regex_compare(re, text);
    match = code > 0;
    if (code < 0) {
        OK(lk__table_regex_run_open(re, 4096, &run, &test_err));
        OK(lk__table_regex_match(run, text, &match, &test_err));
        lk__table_regex_run_close(run);
    }
    lk__table_regex_free(re);
    return match;
}
static bool model_range(const struct lk_table_range *r, struct lk_bytes b) {
    int from = r->from.data ? lk__table_filter_compare(b, r->from) : 1,
        to = r->to.data ? lk__table_filter_compare(b, r->to) : -1;
    return (from > 0 || (from == 0 && !r->from_open)) && (to < 0 || (to == 0 && r->to_closed));
}
static bool model_passes(const struct lk_filter *f, const struct row *row, const struct copy *c) {
    const struct lk_cell *cell = &row->cells[c->cell];
    struct lk_bytes value = c->empty ? lk_bytes("", 0) : cell->value;
    switch (f->kind) {
    case LK_FILTER_BLOCK:
        return false;
    case LK_FILTER_ROW_REGEX:
        return model_matches(f->pattern, row->key);
    case LK_FILTER_ROW_SAMPLE:
        return (double)(lk__table_filter_hash(row->key) >> 11) / 9007199254740992.0 < f->probability;
    case LK_FILTER_FAMILY_REGEX:
        return model_matches(f->pattern, lk_bytes(cell->family, strlen(cell->family)));
    case LK_FILTER_COLUMN_REGEX:
        return model_matches(f->pattern, cell->qualifier);
    case LK_FILTER_COLUMN_RANGE:
        return strcmp(cell->family, f->family) == 0 && model_range(&f->range, cell->qualifier);
    case LK_FILTER_TIME_RANGE:
        return cell->timestamp_us >= f->from_us && (!f->to_us || cell->timestamp_us < f->to_us);
    case LK_FILTER_VALUE_REGEX:
        return model_matches(f->pattern, value);
    case LK_FILTER_VALUE_RANGE:
        return model_range(&f->range, value);
    default:
        return true;
    }
}
static bool same_column(const struct lk_cell *a, const struct lk_cell *b) {
    return strcmp(a->family, b->family) == 0 && lk__table_filter_compare(a->qualifier, b->qualifier) == 0;
}
static void model(const struct lk_filter *f, const struct row *row, const struct list *in, struct list *out,
                  struct list *sunk);
static void model_interleave(const struct lk_filter *f, const struct row *row, const struct list *in, struct list *out,
                             struct list *sunk) {
    struct list *results[8], *tagged = list_create();
    *tagged = *in;
    for (size_t i = 0; i < in->count; i++) tagged->copy[i].tag = i;
    for (size_t p = 0; p < f->part_count; p++) model(f->parts[p], row, tagged, results[p] = list_create(), sunk);
    for (size_t i = 0; i < in->count; i++)
        for (size_t p = 0; p < f->part_count; p++)
            for (size_t k = 0; k < results[p]->count; k++)
                if (results[p]->copy[k].tag == i) {
                    struct copy c = results[p]->copy[k];
                    c.tag = in->copy[i].tag;
                    add(out, c);
                }
    for (size_t p = 0; p < f->part_count; p++) {
        out->full |= results[p]->full;
        lk_free(results[p]);
    }
    lk_free(tagged);
}
static void model(const struct lk_filter *f, const struct row *row, const struct list *in, struct list *out,
                  struct list *sunk) {
    size_t n = 0;
    out->count = 0;
    out->full = in->full;
    if (f->kind == LK_FILTER_CHAIN) {
        struct list *a = list_create(), *b = list_create(), *swap;
        *a = *in;
        for (size_t p = 0; p < f->part_count; p++) {
            model(f->parts[p], row, a, b, sunk);
            swap = a, a = b, b = swap;
        }
        *out = *a;
        lk_free(a);
        lk_free(b);
    } else if (f->kind == LK_FILTER_INTERLEAVE)
        model_interleave(f, row, in, out, sunk);
    else if (f->kind == LK_FILTER_CONDITION) {
        struct list *found = list_create();
        model(f->parts[0], row, in, found, sunk);
        size_t branch = found->count ? 1 : 2;
        if (branch < f->part_count && f->parts[branch]) model(f->parts[branch], row, in, out, sunk);
        out->full |= found->full;
        lk_free(found);
    } else
        for (size_t i = 0; i < in->count; i++) {
            struct copy c = in->copy[i];
            bool new = i == 0 || !same_column(&row->cells[c.cell], &row->cells[in->copy[i - 1].cell]);
            n = f->kind == LK_FILTER_COLUMN_LIMIT && new ? 1 : n + 1;
            bool limited = f->kind == LK_FILTER_COLUMN_LIMIT || f->kind == LK_FILTER_ROW_LIMIT;
            if (limited && n > (size_t)f->count) continue;
            if (f->kind == LK_FILTER_ROW_OFFSET && n <= (size_t)f->count) continue;
            if (!model_passes(f, row, &c)) continue;
            if (f->kind == LK_FILTER_STRIP_VALUE) c.empty = true;
            if (f->kind == LK_FILTER_LABEL) c.label = f->label;
            add(f->kind == LK_FILTER_SINK ? sunk : out, c);
        }
}

/* --- a reader -------------------------------------------------------------------------------------------- */

struct result {
    struct list list;
    const struct row *row;
    size_t visited, passes, stop_at;
};
static int collect(void *arg, const struct lk_cell *cell) {
    struct result *r = arg;
    size_t i = 0;
    while (r->row->cells[i].family != cell->family || r->row->cells[i].timestamp_us != cell->timestamp_us ||
           r->row->cells[i].qualifier.data != cell->qualifier.data)
        i++;
    assert_true(i < r->row->count);
    if (r->list.count) assert_true(r->list.copy[r->list.count - 1].cell <= i);
    bool empty = cell->value.size != r->row->cells[i].value.size;
    add(&r->list, (struct copy){i, empty, cell->label, 0});
    return r->stop_at && r->list.count == r->stop_at ? LK_ESTOPPED : 0;
}
static bool outside(const struct lk__table_filter_bounds *b, const struct lk_cell *c) {
    return b->nothing || (b->family && strcmp(b->family, c->family) != 0) ||
           lk__table_filter_range_side(&b->qualifiers, c->qualifier) || c->timestamp_us < b->from_us ||
           c->timestamp_us >= b->to_us;
}
static bool passed_over(enum lk__table_filter_next next, const struct lk_cell *last, const struct lk_cell *c) {
    return next == LK__FILTER_ROW || (next == LK__FILTER_FAMILY && strcmp(last->family, c->family) == 0) ||
           (next == LK__FILTER_COLUMN && same_column(last, c));
}
/* care: 0 gives every cell, 1 goes by the program's bounds and by hints, 2 by each pass's bounds too. */
static int read_row(const struct lk_filter_program *p, struct lk__table_filter_run *run, const struct row *row, int care,
                    struct result *out) {
    out->row = row;
    out->list.count = out->visited = out->passes = 0;
    if (care && !lk__table_filter_row(p, row->key)) return 0;
    lk__table_filter_begin(run, row->key);
    while (lk__table_filter_again(run)) {
        enum lk__table_filter_next next = LK__FILTER_CELL;
        size_t last = 0;
        struct lk_bytes to = {0};
        out->passes++;
        for (size_t i = 0; i < row->count; i++) {
            const struct lk_cell *c = &row->cells[i];
            if (care && to.data && strcmp(row->cells[last].family, c->family) == 0 &&
                lk__table_filter_compare(c->qualifier, to) < 0)
                continue;
            if (care && (passed_over(next, &row->cells[last], c) || outside(lk__table_filter_bounds(p), c))) continue;
            if (care == 2 && outside(lk__table_filter_run_bounds(run), c)) continue;
            enum lk__table_filter_next now;
            int code = lk__table_filter_cell(run, c, collect, out, &now, &test_err);
            if (code) return code;
            out->visited++;
            next = now;
            if (now != LK__FILTER_COLUMN || !lk__table_filter_seek(run, &to)) to.data = NULL;
            last = i;
        }
    }
    return 0;
}

/* --- random trees ---------------------------------------------------------------------------------------- */

static const struct lk_bytes patterns[] = {
    BYTES("a"),     BYTES("b"),     BYTES("a.*"),   BYTES("\\C*"), BYTES(".*b"),     BYTES("[ab]+"),
    BYTES("a|b"),   BYTES("cf1"),   BYTES("cf.*"),  BYTES("x?y?"), BYTES("bb|a"),    BYTES("b.*|\\xff+"),
    BYTES("row.*"), BYTES("(?s)."), BYTES("[^a]*"), BYTES(""),     BYTES("\\C+\xff")};
static struct lk_filter nodes[200];
static const struct lk_filter *part_lists[200][3];
static size_t node_count;
static bool has_kind(const struct lk_filter *f, enum lk_filter_kind kind) {
    bool has = f && f->kind == kind;
    for (size_t i = 0; f && i < f->part_count; i++) has |= has_kind(f->parts[i], kind);
    return has;
}
static void random_range(struct lk_table_range *r, const struct lk_bytes *from, size_t count) {
    if (any(4)) r->from = from[any((unsigned)count)];
    if (any(4)) r->to = from[any((unsigned)count)];
    r->from_open = r->from.data && any(2);
    r->to_closed = r->to.data && any(2);
}
static struct lk_filter *random_filter(int depth, bool sinks) {
    struct lk_filter *f = &nodes[node_count];
    const struct lk_filter **parts = part_lists[node_count++];
    *f = (struct lk_filter){.kind = (enum lk_filter_kind)(depth && any(10) < 8 ? any(3) : 3 + any(16))};
    if (f->kind == LK_FILTER_SINK && !sinks) f->kind = LK_FILTER_PASS;
    f->pattern = patterns[any(COUNT(patterns))];
    if (f->kind == LK_FILTER_ROW_REGEX && !f->pattern.size) f->pattern = patterns[0];
    f->family = families[any(COUNT(families))];
    f->label = any(2) ? "one" : "two-2";
    f->count = 1 + (int32_t)any(4);
    f->from_us = any(4) * 1000;
    f->to_us = any(3) ? any(7) * 1000 : 0;
    f->probability = 0.3 + any(5) / 10.0;
    if (f->kind == LK_FILTER_COLUMN_RANGE) random_range(&f->range, qualifiers, COUNT(qualifiers));
    if (f->kind == LK_FILTER_VALUE_RANGE) random_range(&f->range, values, COUNT(values));
    if (f->kind > LK_FILTER_CONDITION) return f;
    f->part_count = f->kind == LK_FILTER_CONDITION ? 3 : 2 + any(2);
    f->parts = parts;
    bool labels = false;
    for (size_t i = 0; i < f->part_count; i++) {
        bool none = f->kind == LK_FILTER_CONDITION && i && !any(5);
        parts[i] = none ? NULL : random_filter(depth - 1, sinks && f->kind != LK_FILTER_CONDITION);
        if (f->kind == LK_FILTER_CHAIN && labels && has_kind(parts[i], LK_FILTER_LABEL)) {
            nodes[node_count] = (struct lk_filter){.kind = LK_FILTER_STRIP_VALUE};
            parts[i] = &nodes[node_count++];
        }
        labels |= has_kind(parts[i], LK_FILTER_LABEL);
    }
    return f;
}

static int by_cell(const void *x, const void *y) {
    const struct copy *a = x, *b = y;
    if (a->cell != b->cell) return a->cell < b->cell ? -1 : 1;
    if (a->empty != b->empty) return a->empty - b->empty;
    return strcmp(a->label ? a->label : "", b->label ? b->label : "");
}
static void compare(const struct list *want, struct result *got, const struct lk_filter *f, int care) {
    qsort(got->list.copy, got->list.count, sizeof *want->copy, by_cell);
    size_t i = 0;
    while (i < want->count && i < got->list.count && by_cell(&want->copy[i], &got->list.copy[i]) == 0) i++;
    if (i == want->count && i == got->list.count) return;
    fail_msg("care %d: %zu copies, not %zu, from %zu on: %s", care, got->list.count, want->count, i, lk_filter_print(f));
}
static void agrees(const struct lk_filter *f, struct list *lists[3], struct result *got, int rows, size_t visited[3]) {
    struct lk_filter_program *p;
    struct lk__table_filter_run *run;
    OK(lk_filter_compile(f, &p, &test_err));
    OK(lk__table_filter_run_open(p, &run, &test_err));
    for (int i = 0; i < rows; i++) {
        struct row row;
        random_row(&row);
        lists[0]->count = lists[2]->count = 0;
        lists[0]->full = lists[2]->full = false;
        for (size_t c = 0; c < row.count; c++) add(lists[0], (struct copy){c, false, NULL, 0});
        model(f, &row, lists[0], lists[1], lists[2]);
        for (size_t c = 0; c < lists[2]->count; c++) add(lists[1], lists[2]->copy[c]);
        if (lists[1]->full) continue;
        for (size_t c = 0; c < lists[1]->count; c++) /* as the reader sees it */
            lists[1]->copy[c].empty &= row.cells[lists[1]->copy[c].cell].value.size > 0;
        qsort(lists[1]->copy, lists[1]->count, sizeof *lists[1]->copy, by_cell);
        for (int care = 0; care < 3; care++) {
            OK(read_row(p, run, &row, care, got));
            compare(lists[1], got, f, care);
            visited[care] += got->visited;
        }
    }
    lk__table_filter_run_close(run);
    lk_filter_free(p);
}
/* What random trees rarely are. */
static void odd_trees_agree_with_a_model(void **state) {
    (void)state;
    static const char *const texts[] = {
        "interleave(column_regex(\"b.*\") | row_limit(1) | column_regex(\"bb\"), column_regex(\"\\x00\"))",
        "interleave(column_regex(\"b.*\") | row_offset(1) | column_regex(\"bb\"), column_regex(\"\\x00\"))",
        "column_regex(\"bb|a|ab\") | latest(1) | row_limit(2)",
        "interleave(column_range(\"a\", (\"a\", \"b\"]), column_range(\"b\", [\"bb\", ))) | latest(1)",
        "condition(interleave(column_regex(\"bb\"), column_regex(\"a\")) | value_regex(\"x.*\"), column_regex(\"a|bb\"), "
        "latest(1))",
        "condition(condition(column_regex(\"a\"), column_regex(\"bb\"), pass) | row_offset(2), row_limit(1), strip_value)",
        "condition(pass, interleave(column_regex(\"a\"), column_regex(\"bb\")), none) | condition(row_offset(1), "
        "latest(1), pass)",
        "interleave(label(\"a\") | sink, column_regex(\"bb\") | latest(1)) | row_limit(1)",
    };
    struct list *lists[3] = {list_create(), list_create(), list_create()};
    struct result *got = lk_calloc(1, sizeof *got);
    size_t visited[3] = {0};
    random_state = (uint64_t)time(NULL);
    for (size_t i = 0; i < COUNT(texts); i++) {
        struct lk_filter *f;
        OK(lk_filter_parse(texts[i], &f, &test_err));
        agrees(f, lists, got, 200, visited);
        lk_filter_tree_free(f);
    }
    for (int i = 0; i < 3; i++) lk_free(lists[i]);
    lk_free(got);
}
static void same_tree(const struct lk_filter *a, const struct lk_filter *b);
static void random_trees_agree_with_a_model(void **state) {
    (void)state;
    struct list *lists[3] = {list_create(), list_create(), list_create()};
    struct result *got = lk_calloc(1, sizeof *got);
    size_t visited[3] = {0};
    unsigned trees = getenv("TREES") ? (unsigned)atoi(getenv("TREES")) : 3000;
    uint64_t seed = getenv("SEED") ? strtoull(getenv("SEED"), NULL, 10) : (uint64_t)time(NULL);
    printf("seed %llu\n", (unsigned long long)seed);
    for (unsigned i = 0; i < trees; i++) {
        random_state = seed + i * UINT64_C(0x9e3779b97f4a7c15);
        node_count = 0;
        struct lk_filter *f = random_filter(1 + (int)any(3), true), *again;
        char *text = lk_filter_print(f);
        assert_non_null(text);
        OK(lk_filter_parse(text, &again, &test_err));
        char *second = lk_filter_print(again);
        assert_string_equal(text, second);
        same_tree(f, again);
        agrees(i % 2 ? f : again, lists, got, 4, visited);
        lk_filter_tree_free(again);
        lk_free(text);
        lk_free(second);
    }
    printf("cells seen: %zu, by bounds and hints %zu, by those of passes %zu\n", visited[0], visited[1], visited[2]);
    assert_true(visited[1] < visited[0] && visited[2] < visited[1]);
    for (int i = 0; i < 3; i++) lk_free(lists[i]);
    lk_free(got);
}

/* --- text ------------------------------------------------------------------------------------------------ */

static void same_bytes(struct lk_bytes a, struct lk_bytes b) {
    assert_int_equal(!a.data, !b.data);
    assert_int_equal(lk__table_filter_compare(a, b), 0);
}
static void same_tree(const struct lk_filter *a, const struct lk_filter *b) {
    if (!a || !b) {
        assert_ptr_equal(a, b);
        return;
    }
    assert_int_equal(a->kind, b->kind);
    assert_int_equal(a->part_count, b->part_count);
    for (size_t i = 0; i < a->part_count; i++) same_tree(a->parts[i], b->parts[i]);
    if (b->pattern.data) same_bytes(a->pattern, b->pattern);
    same_bytes(a->range.from, b->range.from);
    same_bytes(a->range.to, b->range.to);
    assert_int_equal(a->range.from_open, b->range.from_open);
    assert_int_equal(a->range.to_closed, b->range.to_closed);
    if (b->family) assert_string_equal(a->family, b->family);
    if (b->label) assert_string_equal(a->label, b->label);
    if (b->kind == LK_FILTER_TIME_RANGE) assert_true(a->from_us == b->from_us && a->to_us == b->to_us);
    if (b->kind == LK_FILTER_ROW_SAMPLE) assert_true(a->probability == b->probability);
    if (b->count) assert_int_equal(a->count, b->count);
}
static void texts_are_read(void **state) {
    (void)state;
    static const char *const good[][2] = {
        {"family(\"cf.*\")|column_regex('a\\d+') | latest( 1 )", "family(\"cf.*\") | column_regex('a\\d+') | latest(1)"},
        {"interleave(pass,(label(\"x\")|sink)) | block", "interleave(pass, label(\"x\") | sink) | block"},
        {"pass | (block | pass)", "pass | (block | pass)"},
        {"condition(value_regex(\"\"), none, strip_value)", "condition(value_regex(\"\"), none, strip_value)"},
        {"column_range(\"f\",(\"a\\x00\",])", "column_range(\"f\", (\"a\\x00\", ))"},
        {"value_range([,'b'])", "value_range([, \"b\"])"},
        {"time_range(,5)", "time_range(, 5)"},
        {"time_range(7,)", "time_range(7, )"},
        {"row_sample(.25)|row_offset(3)|row_limit(2)", "row_sample(0.25) | row_offset(3) | row_limit(2)"},
        {"row_regex('a\"b\\.')", "row_regex('a\"b\\.')"},
    };
    static const char *const bad[][2] = {
        {"", "at its end: a filter belongs here"},
        {"famly(\"a\")", "at byte 0 (`famly`): a filter belongs here"},
        {"chain(pass, pass)", "at byte 0"},
        {"pass pass", "at byte 5 (`pass`): a filter is at its end"},
        {"latest(x)", "at byte 7 (`x`): a whole number"},
        {"latest(3000000000)", "a whole number belongs here, not that large"},
        {"row_limit(-1)", "a whole number"},
        {"family(\"a)", "at byte 7"},
        {"family(\"\\d\")", "at byte 8 (`\\d\"`): escapes are"},
        {"family(a)", "text between"},
        {"interleave(pass, )", "at byte 17 (`)`): a filter belongs here"},
        {"label(\"a\\x00b\")", "a name has no zero byte"},
        {"value_range(\"a\", \"b\")", "at byte 12 (`\"a\"`): a range belongs here"},
        {"condition(none, pass)", "at byte 10"},
        {"(pass", "at its end: `)` belongs here"},
        {"row_sample(nan)", "a probability"},
    };
    struct lk_filter *f;
    for (size_t i = 0; i < COUNT(good); i++) {
        OK(lk_filter_parse(good[i][0], &f, &test_err));
        char *text = lk_filter_print(f);
        assert_string_equal(text, good[i][1]);
        lk_free(text);
        lk_filter_tree_free(f);
    }
    for (size_t i = 0; i < COUNT(bad); i++) FAILS(lk_filter_parse(bad[i][0], &f, &test_err), LK_EINVAL, bad[i][1]);
    char *deep = lk_alloc(4000);
    memset(deep, '(', 3999);
    deep[3999] = 0;
    FAILS(lk_filter_parse(deep, &f, &test_err), LK_EINVAL, "too deeply");
    lk_free(deep);
}

/* --- what is refused ------------------------------------------------------------------------------------- */

static int compile_text(const char *text) {
    struct lk_filter *f;
    struct lk_filter_program *p;
    OK(lk_filter_parse(text, &f, &test_err));
    int code = lk_filter_compile(f, &p, &test_err);
    lk_filter_tree_free(f);
    if (!code) lk_filter_free(p);
    return code;
}
static void what_the_api_refuses(void **state) {
    (void)state;
    FAILS(compile_text("row_limit(0)"), LK_EINVAL, "filter row_limit: its count is 0; it is 1 or more");
    FAILS(compile_text("latest(0)"), LK_EINVAL, "filter latest: its count is 0");
    OK(compile_text("row_offset(0)"));
    FAILS(compile_text("row_sample(0)"), LK_EINVAL, "between 0 and 1");
    FAILS(compile_text("row_sample(1)"), LK_EINVAL, "between 0 and 1");
    FAILS(compile_text("row_regex(\"\")"), LK_EINVAL, "its pattern is empty");
    FAILS(compile_text("label(\"A\")"), LK_EINVAL, "its label");
    FAILS(compile_text("label(\"\")"), LK_EINVAL, "its label");
    FAILS(compile_text("label(\"a234567890123456\")"), LK_EINVAL, "its label");
    OK(compile_text("label(\"a23456789012345\")"));
    FAILS(compile_text("label(\"a\") | latest(1) | (pass | label(\"b\"))"), LK_EINVAL, "filter chain: more than one");
    OK(compile_text("interleave(label(\"a\"), label(\"b\"))"));
    FAILS(compile_text("interleave(pass)"), LK_EINVAL, "two parts");
    FAILS(compile_text("condition(pass | sink, pass)"), LK_EINVAL, "a sink cannot");
    FAILS(compile_text("condition(pass, pass, interleave(sink, pass))"), LK_EINVAL, "a sink cannot");
    FAILS(compile_text("pass | pass | interleave(pass, column_regex(\"a(\"))"), LK_EINVAL,
          "filter chain[2].interleave[1].column_regex: at byte 1: `(` has no end");
    FAILS(compile_text("column_range(\"\", [,))"), LK_EINVAL, "it names no family");
    struct lk_filter odd = {.kind = (enum lk_filter_kind)99};
    struct lk_filter_program *p;
    FAILS(lk_filter_compile(&odd, &p, &test_err), LK_EINVAL, "there is no kind 99");
    odd = (struct lk_filter){.kind = LK_FILTER_TIME_RANGE, .from_us = -1};
    FAILS(lk_filter_compile(&odd, &p, &test_err), LK_EINVAL, "times are 0 or more");
}
static void sizes_have_limits(void **state) {
    (void)state;
    struct lk_filter f[LK_FILTER_DEPTH_MAX + 3] = {{.kind = LK_FILTER_PASS}};
    const struct lk_filter *parts[LK_FILTER_DEPTH_MAX + 3][2];
    struct lk_filter_program *p;
    for (int i = 1; i <= LK_FILTER_DEPTH_MAX + 1; i++) {
        parts[i][0] = parts[i][1] = i == 1 ? &f[0] : &f[i - 1];
        if (i > 1) parts[i][1] = &f[0];
        f[i] = (struct lk_filter){.kind = LK_FILTER_INTERLEAVE, .parts = parts[i], .part_count = 2};
    }
    OK(lk_filter_compile(&f[LK_FILTER_DEPTH_MAX], &p, &test_err));
    lk_filter_free(p);
    FAILS(lk_filter_compile(&f[LK_FILTER_DEPTH_MAX + 1], &p, &test_err), LK_EINVAL, "nested deeper than 20");
    char *long_pattern = lk_alloc(LK_FILTER_SIZE_MAX);
    memset(long_pattern, 'a', LK_FILTER_SIZE_MAX);
    struct lk_filter regex = {.kind = LK_FILTER_VALUE_REGEX, .pattern = {long_pattern, LK_FILTER_SIZE_MAX - 16}};
    OK(lk_filter_compile(&regex, &p, &test_err));
    lk_filter_free(p);
    regex.pattern.size++;
    FAILS(lk_filter_compile(&regex, &p, &test_err), LK_EINVAL, "more than 20480 bytes");
    lk_free(long_pattern);
}
/* 2^40 copies of a cell are an error, and soon. */
static void copies_have_a_limit(void **state) {
    (void)state;
    struct lk_filter pass = {.kind = LK_FILTER_PASS}, chain = {.kind = LK_FILTER_CHAIN, .part_count = 40};
    const struct lk_filter *two[2] = {&pass, &pass}, *many[40];
    struct lk_filter both = {.kind = LK_FILTER_INTERLEAVE, .parts = two, .part_count = 2};
    struct lk_filter_program *p;
    struct lk__table_filter_run *run;
    struct row row = {.key = keys[0], .count = 1};
    struct result *got = lk_calloc(1, sizeof *got);
    row.cells[0] = (struct lk_cell){keys[0], "a", qualifiers[2], 1000, values[1], NULL};
    for (int i = 0; i < 40; i++) many[i] = &both;
    chain.parts = many;
    OK(lk_filter_compile(&chain, &p, &test_err));
    OK(lk__table_filter_run_open(p, &run, &test_err));
    FAILS(read_row(p, run, &row, 2, got), LK_EINVAL, "more than 65536 steps of one cell");
    lk__table_filter_run_close(run);
    lk_filter_free(p);
    lk_free(got);
}

/* --- bounds and hints ------------------------------------------------------------------------------------ */

static struct lk_filter_program *program(const char *text) {
    struct lk_filter *f;
    struct lk_filter_program *p;
    OK(lk_filter_parse(text, &f, &test_err));
    OK(lk_filter_compile(f, &p, &test_err));
    lk_filter_tree_free(f);
    return p;
}
/* The bounds as text: family:from..to@from_us..to_us. */
static const char *bounds_text(const struct lk__table_filter_bounds *b) {
    static char text[200];
    const struct lk_table_range *q = &b->qualifiers;
    if (b->nothing) return "nothing";
    int n = snprintf(text, sizeof text, "%s:%s%.*s..%.*s%s", b->family ? b->family : "*", q->from_open ? "(" : "",
                     (int)q->from.size, q->from.data ? (const char *)q->from.data : "", (int)q->to.size,
                     q->to.data ? (const char *)q->to.data : "", q->to_closed ? "]" : "");
    if (b->from_us || b->to_us != INT64_MAX)
        snprintf(text + n, sizeof text - (size_t)n, "@%lld..%lld", (long long)b->from_us,
                 b->to_us == INT64_MAX ? -1LL : (long long)b->to_us);
    return text;
}
static void bounds_are_pushed_down(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"pass", "*:.."},
        {"block", "nothing"},
        {"column_regex(\"a\")", "*:a..a]"},
        {"column_regex(\"ab.*\")", "*:ab..ac"},
        {"column_regex(\"ab[cd]\")", "*:ab..ac"},
        {"column_regex(\"x|ab|b.*\")", "*:ab..x]"},
        {"column_regex(\"x|.*b|b.*\")", "*:.."},
        {"family(\"cf1\") | column_regex(\"a\") | latest(1)", "cf1:a..a]"},
        {"family(\"cf.*\")", "*:.."},
        {"column_range(\"f\", (\"a\", \"c\"]) | column_regex(\"b.*\")", "f:b..c"},
        {"time_range(1000, 5000) | time_range(2000, )", "*:..@2000..5000"},
        {"latest(1) | time_range(1000, 5000) | family(\"f\")", "f:.."},
        {"row_limit(5) | column_regex(\"a\")", "*:.."},
        {"column_regex(\"a\") | row_limit(5) | column_regex(\"b\")", "*:a..a]"},
        {"column_regex(\"a\") | column_regex(\"b\")", "nothing"},
        {"family(\"a\") | column_range(\"b\", [,))", "nothing"},
        {"interleave(column_range(\"f\", [\"a\", \"b\")), column_range(\"f\", [\"d\", \"e\"]))", "f:a..e]"},
        {"interleave(column_range(\"f\", [\"a\", \"b\")), column_range(\"g\", [\"d\", \"e\"]))", "*:a..e]"},
        {"interleave(column_regex(\"a\"), pass)", "*:.."},
        {"interleave(sink, pass) | column_regex(\"a\")", "*:.."},
        {"sink | column_regex(\"a\")", "*:.."},
        {"condition(column_regex(\"a\"), column_regex(\"c\"), none)", "*:a..c]"},
        {"family(\"f\") | condition(column_regex(\"a\"), column_regex(\"b\"), time_range(7, 8))", "f:.."},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct lk_filter_program *p = program(cases[i][0]);
        if (strcmp(bounds_text(lk__table_filter_bounds(p)), cases[i][1]) != 0)
            fail_msg("%s: %s, not %s", cases[i][0], bounds_text(lk__table_filter_bounds(p)), cases[i][1]);
        lk_filter_free(p);
    }
}
static void keys_are_pushed_down(void **state) {
    (void)state;
    static const char *const cases[][2] = {{"row_regex(\"row.*\") | pass", "row"},
                                           {"latest(1) | row_regex(\"user#1\\\\d+\")", "user#1"},
                                           {"row_regex(\"a.*\") | row_regex(\"ab.*\")", "ab"},
                                           {"interleave(row_regex(\"a.*\"), pass)", ""},
                                           {"row_regex(\"(?i)a\")", ""}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct lk_filter_program *p = program(cases[i][0]);
        struct lk_bytes head = lk__table_filter_row_prefix(p);
        assert_int_equal(head.size, strlen(cases[i][1]));
        assert_memory_equal(head.data, cases[i][1], head.size);
        lk_filter_free(p);
    }
    struct lk_filter_program *p = program("row_regex(\"row.*\")");
    assert_true(lk__table_filter_row(p, keys[1]) && !lk__table_filter_row(p, keys[0]));
    lk_filter_free(p);
}
/* Of a row of 20 columns with 3 versions: what a reader that goes by hints and bounds sees. */
static void narrow_reads_see_little(void **state) {
    (void)state;
    static const struct {
        const char *filter;
        size_t cells, visited;
    } cases[] = {
        {"column_regex(\"07\")", 3, 3},
        {"column_regex(\"07\") | latest(1)", 1, 1},
        {"column_regex(\"0[78]\") | latest(1)", 2, 10},
        {"row_limit(2)", 2, 2},
        {"latest(1)", 20, 20},
        {"time_range(2000, )", 40, 40},
        {"column_range(\"a\", [\"03\", \"05\"))", 6, 6},
        {"family(\"b\")", 0, 0},
        {"family(\"b|c\")", 0, 1},
        {"row_regex(\"other.+\")", 0, 0},
        {"column_regex(\"03|17\")", 6, 3 + 1 + 3},
        {"column_regex(\"17|03|1[01]\")", 12, 3 + 1 + 6 + 3 + 7}, /* all that begin with 1 */
        {"interleave(column_regex(\"02\"), column_regex(\"16\")) | latest(1)", 2, 2},
        {"interleave(column_regex(\"02\"), column_range(\"a\", [\"16\", \"18\")))", 9, 3 + 1 + 6},
        {"interleave(column_regex(\"02\"), column_regex(\"18\") | row_limit(1))", 4, 3 + 1 + 1},
        {"condition(column_regex(\"03\"), column_regex(\"05\"), pass)", 3, 1 + 3},
        {"condition(column_regex(\"99\"), pass, column_regex(\"05\"))", 3, 3},
        {"condition(row_regex(\"x\"), pass, column_regex(\"05\"))", 3, 3},
    };
    static char names[20][3];
    static struct row row;
    struct result *got = lk_calloc(1, sizeof *got);
    row = (struct row){.key = keys[0]};
    for (size_t i = 0; i < 20; i++) {
        snprintf(names[i], sizeof names[i], "%02u", (unsigned)i % 100);
        for (int64_t t = 3; t > 0; t--)
            row.cells[row.count++] = (struct lk_cell){row.key, "a", lk_bytes(names[i], 2), t * 1000, values[1], NULL};
    }
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct lk_filter_program *p = program(cases[i].filter);
        struct lk__table_filter_run *run;
        OK(lk__table_filter_run_open(p, &run, &test_err));
        OK(read_row(p, run, &row, 2, got));
        if (got->list.count != cases[i].cells || got->visited != cases[i].visited)
            fail_msg("%s: %zu of %zu cells", cases[i].filter, got->list.count, got->visited);
        lk__table_filter_run_close(run);
        lk_filter_free(p);
    }
    lk_free(got);
}
static void samples_are_functions_of_keys(void **state) {
    (void)state;
    struct lk_filter_program *p = program("row_sample(0.25)");
    unsigned in = 0;
    for (unsigned i = 0; i < 100000; i++) {
        char key[20];
        in += lk__table_filter_row(p, lk_bytes(key, (size_t)snprintf(key, sizeof key, "row%u", i)));
    }
    assert_in_range(in, 24500, 25500);
    lk_filter_free(p);
    assert_true(lk__table_filter_hash(lk_bytes("row", 3)) == UINT64_C(0xd778dfb4c3b40247)); /* for good */
}
static void an_end_ends(void **state) {
    (void)state;
    struct lk_filter_program *p = program("interleave(pass, pass) | row_limit(9)");
    struct lk__table_filter_run *run;
    struct row row;
    struct result *got = lk_calloc(1, sizeof *got);
    random_state = 3;
    do random_row(&row);
    while (row.count < 5);
    OK(lk__table_filter_run_open(p, &run, &test_err));
    got->stop_at = 3;
    assert_int_equal(read_row(p, run, &row, 1, got), LK_ESTOPPED);
    assert_int_equal(got->list.count, 3);
    got->stop_at = 0;
    OK(read_row(p, run, &row, 1, got)); /* the next row begins anew */
    assert_int_equal(got->list.count, 9);
    lk__table_filter_run_close(run);
    lk_filter_free(p);
    lk_free(got);
}
static void memory_may_fail(void **state) {
    (void)state;
    static const char text[] = "family(\"c.*\") | condition(column_regex(\"a|b\"), interleave(value_range([\"a\", )), "
                               "label(\"x\")), column_range(\"f\", [\"a\", \"b\"]))";
    struct lk_filter *f;
    for (int fails = 1, done = 0; !done; fails++) {
        struct lk_filter_program *p = NULL;
        struct lk__table_filter_run *run = NULL;
        OK(lk_filter_parse(text, &f, &test_err));
        lk__alloc_fail_at((uint64_t)fails);
        int code = lk_filter_compile(f, &p, &test_err);
        if (!code) code = lk__table_filter_run_open(p, &run, &test_err);
        done = !code;
        lk__alloc_fail_at(0);
        if (code) assert_int_equal(code, LK_ENOMEM);
        lk__table_filter_run_close(run);
        lk_filter_free(p);
        lk_filter_tree_free(f);
        assert_true(fails < 200);
    }
}

static void speed(void **state) {
    (void)state;
    static const char *const filters[] = {"column_regex(\"a\")", "column_regex(\"a.*\") | latest(1)",
                                          "column_regex('[ab]\\d+|ab?')", "family(\"cf.*\") | value_regex('x.?y')",
                                          "interleave(column_regex(\"a\"), column_regex(\"b\") | label(\"x\"))"};
    struct result *got = lk_calloc(1, sizeof *got);
    struct row row;
    random_state = 5;
    do random_row(&row);
    while (row.count < 20);
    for (size_t i = 0; i < COUNT(filters); i++) {
        struct lk_filter_program *p = program(filters[i]);
        struct lk__table_filter_run *run;
        struct timespec a, b;
        size_t cells = 0;
        OK(lk__table_filter_run_open(p, &run, &test_err));
        clock_gettime(CLOCK_MONOTONIC, &a);
        for (int n = 0; n < (LK_SANITIZED ? 500 : 5000); n++) {
            OK(read_row(p, run, &row, 0, got));
            cells += got->visited;
        }
        clock_gettime(CLOCK_MONOTONIC, &b);
        double s = (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) * 1e-9;
        printf("%5.1f M cells/s  %s\n", (double)cells / s * 1e-6, filters[i]);
        lk__table_filter_run_close(run);
        lk_filter_free(p);
    }
    lk_free(got);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_are_read),
        cmocka_unit_test(what_the_api_refuses),
        cmocka_unit_test(sizes_have_limits),
        cmocka_unit_test(copies_have_a_limit),
        cmocka_unit_test(bounds_are_pushed_down),
        cmocka_unit_test(keys_are_pushed_down),
        cmocka_unit_test(narrow_reads_see_little),
        cmocka_unit_test(samples_are_functions_of_keys),
        cmocka_unit_test(an_end_ends),
        cmocka_unit_test(memory_may_fail),
        cmocka_unit_test(odd_trees_agree_with_a_model),
        cmocka_unit_test(random_trees_agree_with_a_model),
        cmocka_unit_test(speed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
