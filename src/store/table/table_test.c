/* Tables one thing at a time: what is refused, times, conditional writes, samples, pins that end, what is kept of dropped
 * ones. */
#include "lockstep/base/hash.h"
#include "lockstep/base/progress.h"
#include "store/table/gc_rule.h"
#include "store/table/schema.h"
#include "store/table/testing.h"

static const char *const one_family[] = {"cf", NULL, NULL};

static struct lk_table *world_table(struct world *w, struct lk_store *s) {
    *s = store_of(w->kv);
    make_table(s, "t", one_family);
    return table_of(s, "t");
}
static void apply(struct lk_table *t, const char *row, struct lk_mutation m) {
    OK(lk_table_apply(t, S(row), &m, 1, LK_LAZY, &test_err));
}
static void fails(int code, int expected, const char *words) {
    assert_int_equal(code, expected);
    if (!strstr(test_err.message, words)) fail_msg("\"%s\" does not say \"%s\"", test_err.message, words);
}
static uint64_t rows_of_kv(struct lk_kv *kv) {
    struct lk_kv_check c;
    OK(lk_kv_check(kv, &c, &test_err));
    return c.rows;
}

/* --- schemas --------------------------------------------------------------------------------------------- */

static void schemas(struct world *w) {
    struct lk_store s = store_of(w->kv);
    struct lk_table_family f[] = {{"b", "maxversions=2", false}, {"a", NULL, true}}, bad = {"a b", NULL, false},
                           rule = {"a", "maxversions=0", false};
    struct lk_table *t;
    OK(lk_table_create(&s, "x/y.z-1_A", f, 2, &test_err));
    fails(lk_table_create(&s, "x/y.z-1_A", f, 2, &test_err), LK_EEXISTS, "already");
    fails(lk_table_create(&s, "sp ace", f, 2, &test_err), LK_EINVAL, "no name of a table");
    fails(lk_table_create(&s, "", f, 2, &test_err), LK_EINVAL, "no name of a table");
    fails(lk_table_create(&s, "n", &bad, 1, &test_err), LK_EINVAL, "no name of a family");
    fails(lk_table_create(&s, "n", &rule, 1, &test_err), LK_EINVAL, "out of range");
    f[1].name = "b";
    fails(lk_table_create(&s, "n", f, 2, &test_err), LK_EEXISTS, "family b");
    fails(lk_table_open(&s, "n", &t, &test_err), LK_ENOTFOUND, "there are: x/y.z-1_A");
    OK(lk_table_open(&s, "x/y.z-1_A", &t, &test_err));
    struct lk_table_change change[] = {{LK_TABLE_ADD_FAMILY, {"c", NULL, false}},
                                       {LK_TABLE_DROP_FAMILY, {"q", NULL, false}}};
    fails(lk_table_alter(&s, "x/y.z-1_A", change, 2, &test_err), LK_ENOTFOUND, "no family q");
    struct lk_mutation m = set_cell("c", "q", 0, "v");
    fails(lk_table_apply(t, S("r"), &m, 1, LK_LAZY, &test_err), LK_ENOTFOUND, "\"c\""); /* all of it or nothing */
    OK(lk_table_alter(&s, "x/y.z-1_A", change, 1, &test_err));
    OK(lk_table_apply(t, S("r"), &m, 1, LK_LAZY, &test_err)); /* an open handle sees it */
    OK(lk_table_drop(&s, "x/y.z-1_A", &test_err));
    fails(lk_table_apply(t, S("r"), &m, 1, LK_LAZY, &test_err), LK_ENOTFOUND, "no table");
    fails(lk_table_drop(&s, "x/y.z-1_A", &test_err), LK_ENOTFOUND, "there are none");
    lk_table_close(t);
}

static void protection(struct world *w) {
    struct lk_store s;
    struct lk_table *t = world_table(w, &s);
    struct lk_table_change on = {.kind = LK_TABLE_PROTECT}, off = {.kind = LK_TABLE_UNPROTECT},
                           drop = {LK_TABLE_DROP_FAMILY, {"cf", NULL, false}};
    bool is = true;
    struct lk_kv_txn *txn = begin(w->kv, false);
    OK(lk_table_protected(t, txn, &is, &test_err));
    assert_false(is);
    lk_kv_abort(txn);
    OK(lk_table_alter(&s, "t", &on, 1, &test_err));
    txn = begin(w->kv, false);
    OK(lk_table_protected(t, txn, &is, &test_err));
    assert_true(is);
    lk_kv_abort(txn);
    fails(lk_table_drop(&s, "t", &test_err), LK_EBUSY, "protected");
    fails(lk_table_alter(&s, "t", &drop, 1, &test_err), LK_EBUSY, "protected");
    apply(t, "r", set_cell("cf", "q", 0, "v")); /* it can be written all the same */
    OK(lk_table_alter(&s, "t", &off, 1, &test_err));
    OK(lk_table_alter(&s, "t", &drop, 1, &test_err));
    OK(lk_table_drop(&s, "t", &test_err));
    lk_table_close(t);
}

static void many_rows_go(struct world *w) {
    struct lk_store s;
    struct lk_table *t = world_table(w, &s);
    uint64_t rows;
    char row[16];
    for (int i = 0; i < 2500; i++) {
        snprintf(row, sizeof row, "b%04d", i);
        apply(t, row, set_cell("cf", "q", 0, "v"));
    }
    apply(t, "a", set_cell("cf", "q", 0, "v"));
    apply(t, "c", set_cell("cf", "q", 0, "v"));
    OK(lk_table_delete_rows(t, &(struct lk_table_range){.from = S("b"), .to = S("b0002")}, &rows, &test_err));
    assert_int_equal(rows, 2);
    OK(lk_table_delete_rows(t, &(struct lk_table_range){.from = S("b"), .to = S("c")}, &rows, &test_err));
    assert_int_equal(rows, 2498);
    reads(t, w->kv, &(struct lk_table_read){0}, "a cf:q@0=v;c cf:q@0=v;");
    OK(lk_table_delete_rows(t, &(struct lk_table_range){0}, &rows, &test_err));
    assert_int_equal(rows, 2);
    reads(t, w->kv, &(struct lk_table_read){0}, "");
    lk_table_close(t);
}

static void rules(void **state) {
    (void)state;
    static const struct {
        const char *text, *printed; /* NULL: refused */
    } cases[] = {
        {"never", "never"},
        {" MaxVersions = 3 ", "maxversions=3"},
        {"maxage=36h", "maxage=36h"},
        {"maxage=48h", "maxage=2d"},
        {"maxage=1500ms", "maxage=1500ms"},
        {"maxage=1d || maxversions=2 && maxage=5m", "maxage=1d or (maxversions=2 and maxage=5m)"},
        {"(maxage=1d or maxversions=2) and maxage=5m", "(maxage=1d or maxversions=2) and maxage=5m"},
        {"", NULL},
        {"maxversions", NULL},
        {"maxversions=0", NULL},
        {"maxversions=3000000000", NULL},
        {"maxage=3", NULL},
        {"maxage=99999999999999999d", NULL},
        {"maxage=1d or", NULL},
        {"(maxage=1d", NULL},
        {"maxage=1d)", NULL},
        {"(((((never)))))", NULL},
        {"never or never or never or never or never or never or never or never or never or never or never or never or "
         "never or never or never or never or never",
         NULL}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct lk_gc_rule r;
        struct lk_buf b = LK_BUF_INIT;
        int code = lk_gc_rule_parse(cases[i].text, &r, &test_err);
        if (!cases[i].printed) {
            assert_int_equal(code, LK_EINVAL);
            continue;
        }
        OK(code || lk_gc_rule_print(&r, &b));
        assert_string_equal(b.data, cases[i].printed);
        lk_gc_rule_free(&r);
        lk_buf_release(&b);
    }
    struct lk_gc_rule r;
    OK(lk_gc_rule_parse("maxversions=3 and maxage=1s or maxversions=10", &r, &test_err));
    assert_false(lk__table_gc_garbage(&r, 9, 1000000));
    assert_true(lk__table_gc_garbage(&r, 3, 1000001));
    assert_false(lk__table_gc_garbage(&r, 2, 1000001));
    assert_true(lk__table_gc_garbage(&r, 10, 0));
    lk_gc_rule_free(&r);
}

/* --- writes ---------------------------------------------------------------------------------------------- */

static void arguments(struct world *w) {
    struct lk_store s;
    struct lk_table *t = world_table(w, &s);
    char big[LK_TABLE_COLUMN_MAX + 1];
    memset(big, 'x', sizeof big);
    struct lk_mutation m = set_cell("cf", "q", 0, "v"), wide = m, late = m, negative = m, empty = m, other = m;
    wide.qualifier = lk_bytes(big, LK_TABLE_COLUMN_MAX - 2);
    late.timestamp_us = 1001;
    negative.timestamp_us = -1000;
    other.family = "nope";
    empty.kind = LK_DELETE_FROM_COLUMN;
    empty.from_us = empty.to_us = 5000;
    fails(lk_table_apply(t, S(""), &m, 1, LK_LAZY, &test_err), LK_EINVAL, "a row's key of 0 bytes");
    fails(lk_table_apply(t, lk_bytes(big, LK_TABLE_ROW_MAX + 1), &m, 1, LK_LAZY, &test_err), LK_EINVAL, "4097");
    fails(lk_table_apply(t, S("r"), &m, 0, LK_LAZY, &test_err), LK_EINVAL, "no mutations");
    fails(lk_table_apply(t, S("r"), &wide, 1, LK_LAZY, &test_err), LK_EINVAL, "8161");
    fails(lk_table_apply(t, S("r"), &late, 1, LK_LAZY, &test_err), LK_EINVAL, "whole milliseconds");
    fails(lk_table_apply(t, S("r"), &negative, 1, LK_LAZY, &test_err), LK_EINVAL, "not negative");
    fails(lk_table_apply(t, S("r"), &empty, 1, LK_LAZY, &test_err), LK_EINVAL, "holds nothing");
    struct lk_mutation two[] = {m, other};
    fails(lk_table_apply(t, S("r"), two, 2, LK_LAZY, &test_err), LK_ENOTFOUND, "mutation 2");
    reads(t, w->kv, &(struct lk_table_read){0}, "");
    wide.qualifier.size--; /* the longest that there is */
    OK(lk_table_apply(t, S("r"), &wide, 1, LK_LAZY, &test_err));
    memset(big, 0, LK_TABLE_ROW_MAX);
    m.qualifier = S("");
    fails(lk_table_apply(t, lk_bytes(big, LK_TABLE_ROW_MAX), &m, 1, LK_LAZY, &test_err), LK_EINVAL, "counts twice");
    OK(lk_table_apply(t, lk_bytes(big, LK_TABLE_ROW_MAX - 20), &m, 1, LK_LAZY, &test_err));
    lk_table_close(t);
}

static void entries_by_themselves(struct world *w) {
    struct lk_store s;
    struct lk_table *t = world_table(w, &s);
    struct lk_mutation good = set_cell("cf", "q", 1000, "v"), bad = set_cell("no", "q", 1000, "v");
    struct lk_table_entry e[] = {{.row = S("a"), .mutations = &good, .count = 1},
                                 {.row = S("b"), .mutations = &bad, .count = 1},
                                 {.row = S(""), .mutations = &good, .count = 1},
                                 {.row = S("c"), .mutations = &good, .count = 1}};
    OK(lk_table_apply_many(t, e, 4, LK_DURABLE, &test_err));
    assert_int_equal(e[0].code, 0);
    assert_int_equal(e[1].code, LK_ENOTFOUND);
    assert_int_equal(e[2].code, LK_EINVAL);
    assert_int_equal(e[3].code, 0);
    reads(t, w->kv, &(struct lk_table_read){0}, "a cf:q@1000=v;c cf:q@1000=v;");
    lk_table_close(t);
}

static int last_time(void *arg, const struct lk_cell *c) {
    *(int64_t *)arg = c->timestamp_us;
    return 0;
}
static void times_of_the_store(struct world *w) {
    struct lk_store s;
    struct lk_table *t = world_table(w, &s);
    int64_t before = 0;
    for (int i = 0; i < 20; i++) {
        int64_t now = 0;
        apply(t, "r", set_cell("cf", "q", LK_TABLE_SERVER_TIME, "v"));
        struct lk_kv_txn *txn = begin(w->kv, false);
        struct lk_table_sink sink = {last_time, NULL, &now};
        struct lk_table_read read = {.limit = 1};
        struct lk_mutation m = {.kind = LK_DELETE_FROM_ROW};
        OK(lk_table_read(t, txn, &read, &sink, NULL, &test_err));
        lk_kv_abort(txn);
        OK(lk_table_apply(t, S("r"), &m, 1, LK_LAZY, &test_err));
        assert_true(now > before && now % 1000 == 0);
        before = now;
    }
    lk_table_close(t);
}

static int bump(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    struct lk_table_rule r[] = {{.family = "cf", .qualifier = S("n"), .increments = true, .amount = 5},
                                {.family = "cf", .qualifier = S("log"), .append = S("x")},
                                {.family = "cf", .qualifier = S("n"), .increments = true, .amount = -2}};
    return lk_table_read_modify_write(arg, txn, S("r"), r, 3, NULL, NULL, err);
}
static void reads_and_writes(struct world *w) {
    struct lk_store s;
    struct lk_table *t = world_table(w, &s);
    for (int i = 0; i < 3; i++) OK(lk_kv_update(w->kv, bump, t, LK_LAZY, NULL, &test_err));
    struct lk_kv_txn *txn = begin(w->kv, true);
    struct lk_buf b = LK_BUF_INIT;
    struct lk_table_rule r = {.family = "cf", .qualifier = S("n"), .increments = true, .amount = 1};
    OK(lk_table_read_modify_write(t, txn, S("r"), &r, 1, text_cell, &b, &test_err));
    assert_non_null(strstr(b.data, "=\\00\\00\\00\\00\\00\\00\\00\\0a;"));
    r.qualifier = S("log");
    fails(lk_table_read_modify_write(t, txn, S("r"), &r, 1, NULL, NULL, &test_err), LK_EINVAL, "3 bytes, not 8");
    r.family = "no";
    fails(lk_table_read_modify_write(t, txn, S("r"), &r, 1, NULL, NULL, &test_err), LK_ENOTFOUND, "rule 1");
    fails(lk_table_read_modify_write(t, txn, S("r"), &r, 0, NULL, NULL, &test_err), LK_EINVAL, "no rules");
    lk_buf_release(&b);
    lk_kv_abort(txn);
    lk_table_close(t);
}

static int increment_often(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    struct lk_table_rule r = {.family = "cf", .qualifier = S("n"), .increments = true, .amount = 1};
    return lk_table_read_modify_write(arg, txn, S("r"), &r, 1, NULL, NULL, err);
}
static void *increments(void *arg) {
    struct lk_table *t = arg;
    struct lk_err e;
    for (int i = 0; i < 25; i++)
        if (lk_kv_update(t->store->kv, increment_often, t, LK_LAZY, NULL, &e) != 0) return t;
    return NULL;
}
static int value_number(void *arg, const struct lk_cell *c) {
    for (size_t i = 0; i < c->value.size; i++)
        *(uint64_t *)arg = *(uint64_t *)arg << 8 | ((const unsigned char *)c->value.data)[i];
    return 1;
}
static void many_increment(struct world *w) {
    struct lk_store s;
    struct lk_table *t = world_table(w, &s);
    pthread_t threads[16];
    uint64_t n = 0;
    for (int i = 0; i < 16; i++) assert_int_equal(pthread_create(&threads[i], NULL, increments, t), 0);
    for (int i = 0; i < 16; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
    struct lk_kv_txn *txn = begin(w->kv, false);
    struct lk_table_sink sink = {value_number, NULL, &n};
    assert_int_equal(lk_table_read(t, txn, &(struct lk_table_read){0}, &sink, NULL, &test_err), 1);
    assert_int_equal(n, 16 * 25);
    lk_kv_abort(txn);
    lk_table_close(t);
}

static void checks_and_writes(struct world *w) {
    struct lk_store s;
    struct lk_table *t = world_table(w, &s);
    struct lk_mutation yes = set_cell("cf", "was", 0, "yes"), no = set_cell("cf", "was", 0, "no");
    struct lk_kv_txn *txn = begin(w->kv, true);
    bool matched = true;
    OK(lk_table_check_and_mutate(t, txn, S("r"), NULL, &yes, 1, &no, 1, &matched, &test_err));
    assert_false(matched);
    OK(lk_table_check_and_mutate(t, txn, S("r"), NULL, &yes, 1, NULL, 0, &matched, &test_err));
    assert_true(matched);
    fails(lk_table_check_and_mutate(t, txn, S("r"), NULL, NULL, 0, NULL, 0, &matched, &test_err), LK_EINVAL,
          "no mutations");
    commit(txn);
    reads(t, w->kv, &(struct lk_table_read){0}, "r cf:was@0=yes;");
    lk_table_close(t);
}

/* --- reads ----------------------------------------------------------------------------------------------- */

static int stops(void *arg, const struct lk_cell *c) {
    (void)c;
    return ++*(int *)arg == 2 ? 77 : 0;
}
static int scanned(void *arg, struct lk_bytes row, bool told) {
    return lk_buf_printf(arg, "%.*s%s ", (int)row.size, (const char *)row.data, told ? "+" : "-");
}
static int ignore(void *arg, const struct lk_cell *c) {
    (void)arg, (void)c;
    return 0;
}
static void sinks(struct world *w) {
    struct lk_store s;
    struct lk_table *t = world_table(w, &s);
    for (const char *r = "abcde"; *r; r++) {
        char row[] = {*r, 0};
        apply(t, row, set_cell("cf", "q", 1000, "v"));
    }
    struct lk_kv_txn *txn = begin(w->kv, false);
    int n = 0;
    assert_int_equal(
        lk_table_read(t, txn, &(struct lk_table_read){0}, &(struct lk_table_sink){stops, NULL, &n}, NULL, &test_err), 77);
    struct lk_buf b = LK_BUF_INIT;
    struct lk_table_read_stats stats;
    struct lk_bytes rows[] = {S("d"), S("b"), S("nothing"), S("b")};
    struct lk_table_range range = {.from = S("a"), .from_open = true, .to = S("c")};
    struct lk_table_read read = {.rows = rows, .row_count = 4, .ranges = &range, .range_count = 1};
    OK(lk_table_read(t, txn, &read, &(struct lk_table_sink){ignore, scanned, &b}, &stats, &test_err));
    assert_string_equal(b.data, "b+ d+ ");
    assert_int_equal(stats.rows, 2);
    assert_int_equal(stats.cells, 2);
    lk_buf_release(&b);
    lk_kv_abort(txn);
    fails(lk_table_read(t, txn = begin(w->kv, false), &(struct lk_table_read){.limit = -1},
                        &(struct lk_table_sink){ignore, NULL, NULL}, NULL, &test_err),
          LK_EINVAL, "a limit of -1 rows");
    lk_kv_abort(txn);
    fails(lk_table_read(t, txn = begin(w->kv, false), &(struct lk_table_read){.pinned_ms = 5},
                        &(struct lk_table_sink){ignore, NULL, NULL}, NULL, &test_err),
          LK_ENOTFOUND, "no pin of the time 5");
    lk_kv_abort(txn);
    lk_table_close(t);
}

/* --- samples --------------------------------------------------------------------------------------------- */

static int note(void *arg, struct lk_bytes row, uint64_t offset) {
    (void)offset;
    return lk_buf_printf(arg, "%.*s;", (int)row.size, (const char *)row.data);
}
static char *list(struct world *w, struct lk_table *t, int64_t pinned_ms, size_t cuts) {
    struct lk_buf b = LK_BUF_INIT;
    struct lk_kv_txn *txn = begin(w->kv, false);
    OK(cuts ? lk_table_cuts(t, txn, pinned_ms, cuts, note, &b, &test_err)
            : lk_table_samples(t, txn, pinned_ms, note, &b, &test_err));
    lk_kv_abort(txn);
    return b.data;
}
static void lists(struct world *w, struct lk_table *t, int64_t pinned_ms, size_t cuts, const char *expected) {
    char *text = list(w, t, pinned_ms, cuts);
    assert_string_equal(text, expected);
    lk_free(text);
}
static void put_rows(struct lk_table *t, int from, int to, bool gone) {
    struct lk_table_entry e[500];
    static char names[500][16];
    static struct lk_mutation put, drop = {.kind = LK_DELETE_FROM_ROW};
    put = set_cell("cf", "q", 1000, "v");
    for (int i = from; i < to; i += 500) {
        for (int k = 0; k < 500; k++) {
            snprintf(names[k], sizeof names[k], "row%06d", i + k);
            e[k] = (struct lk_table_entry){.row = S(names[k]), .mutations = gone ? &drop : &put, .count = 1};
        }
        OK(lk_table_apply_many(t, e, 500, LK_LAZY, &test_err));
    }
}
static void samples_and_cuts(struct world *w) {
    struct lk_store s;
    struct lk_table *t = world_table(w, &s);
    lists(w, t, 0, 0, ";");
    lists(w, t, 0, 4, ";");
    for (const char *r = "abcdefgh"; *r; r++) {
        char row[] = {*r, 0};
        apply(t, row, set_cell("cf", "q", 1000, "v"));
    }
    lists(w, t, 0, 4, "c;e;g;;"); /* few rows are counted */
    lists(w, t, 0, 100, "b;c;d;e;f;g;h;;");
    int64_t pin_ms;
    const char *const names[] = {"t"};
    put_rows(t, 0, 20000, false);
    char *live = list(w, t, 0, 0), *cut = list(w, t, 0, 2);
    size_t n = 0;
    for (const char *p = live; *p; p++) n += *p == ';';
    assert_in_range(n, 10, 35); /* 20,000 / 1,024 are 20 */
    OK(lk_table_pin(&s, "p", names, 1, 0, &pin_ms, &test_err));
    put_rows(t, 0, 10000, true);
    char *later = list(w, t, 0, 0);
    assert_true(strlen(later) < strlen(live));
    lists(w, t, pin_ms, 0, live);
    lists(w, t, pin_ms, 2, cut);
    OK(lk_table_pin_release(&s, "p", &test_err));
    put_rows(t, 10000, 20000, true);
    lists(w, t, 0, 0, ";");
    lk_free(live);
    lk_free(cut);
    lk_free(later);
    lk_table_close(t);
}

/* --- pins ------------------------------------------------------------------------------------------------ */

static int one_pin(void *arg, const struct lk_table_pin *p) {
    return lk_buf_printf(arg, "%s %zu %s;", p->name, p->table_count, p->expires_ms ? "leased" : "kept");
}
static void pins_end(struct world *w) {
    struct lk_store s;
    struct lk_table *t = world_table(w, &s);
    const char *const names[] = {"t", "u"};
    int64_t at, other;
    make_table(&s, "u", one_family);
    apply(t, "r", set_cell("cf", "q", 1000, "old"));
    fails(lk_table_pin(&s, "p", names, 0, 0, &at, &test_err), LK_EINVAL, "no table");
    OK(lk_table_pin(&s, "p", names, 2, 0, &at, &test_err));
    fails(lk_table_pin(&s, "p", names, 2, 0, &at, &test_err), LK_EEXISTS, "already");
    OK(lk_table_pin(&s, "short", names, 1, 150, &other, &test_err));
    assert_true(other > at);
    struct lk_buf b = LK_BUF_INIT;
    OK(lk_table_pins(&s, one_pin, &b, &test_err));
    assert_string_equal(b.data, "p 2 kept;short 1 leased;");
    lk_buf_release(&b);
    OK(lk_table_pin_renew(&s, "short", 100, &test_err));
    apply(t, "r", set_cell("cf", "q", 1000, "new"));
    reads(t, w->kv, &(struct lk_table_read){.pinned_ms = other}, "r cf:q@1000=old;");
    fails(lk_table_drop(&s, "t", &test_err), LK_EBUSY, "holds the table");
    uint64_t until = lk_clock_ns() + 200000000u;
    while (lk_clock_ns() < until) continue;
    struct lk_table_compact_result result;
    OK(lk_table_compact(t, NULL, NULL, &result, &test_err)); /* the short one is over, the other one sees the same cell */
    assert_int_equal(result.history, 0);
    fails(lk_table_pin_renew(&s, "short", 100, &test_err), LK_ENOTFOUND, "its time was over");
    reads(t, w->kv, &(struct lk_table_read){.pinned_ms = at}, "r cf:q@1000=old;");
    OK(lk_table_pin_release(&s, "p", &test_err));
    OK(lk_table_compact(t, NULL, NULL, &result, &test_err));
    assert_int_equal(result.history, 2); /* the cell, and the log */
    reads(t, w->kv, &(struct lk_table_read){0}, "r cf:q@1000=new;");
    OK(lk_table_drop(&s, "t", &test_err));
    lk_table_close(t);
}

/* Nothing of a dropped table or family stays in the kv. */
static void dropped_is_gone(struct world *w) {
    struct lk_store s;
    struct lk_table *t = world_table(w, &s);
    struct lk_table_compact_result result;
    uint64_t empty = rows_of_kv(w->kv);
    put_rows(t, 0, 5000, false);
    struct lk_table_change c = {LK_TABLE_DROP_FAMILY, {"cf", NULL, false}};
    OK(lk_table_alter(&s, "t", &c, 1, &test_err));
    reads(t, w->kv, &(struct lk_table_read){0}, "");
    OK(lk_table_compact(t, NULL, NULL, &result, &test_err));
    assert_int_equal(result.removed, 5000);
    assert_int_equal(rows_of_kv(w->kv), empty);
    c.kind = LK_TABLE_ADD_FAMILY;
    OK(lk_table_alter(&s, "t", &c, 1, &test_err));
    reads(t, w->kv, &(struct lk_table_read){0}, "");
    put_rows(t, 0, 5000, false);
    OK(lk_table_drop(&s, "t", &test_err));
    assert_int_equal(rows_of_kv(w->kv), empty - 1);
    lk_table_close(t);
}

static int is_place(void *arg, struct lk_bytes key, struct lk_bytes value) {
    (void)key, (void)value;
    ++*(int *)arg;
    return 0;
}
/* A compaction that came to its end leaves no place to go on from, wherever the last garbage was. */
static void compacted_to_the_end(struct world *w) {
    struct lk_store s;
    struct lk_table *t = world_table(w, &s);
    struct lk_table_change c = {LK_TABLE_UPDATE_FAMILY, {"cf", "maxversions=1", false}};
    struct lk_table_compact_result result;
    int places = 0;
    put_rows(t, 0, 5000, false);
    apply(t, "row000100", set_cell("cf", "q", 2000, "newer"));
    OK(lk_table_alter(&s, "t", &c, 1, &test_err));
    OK(lk_table_compact(t, NULL, NULL, &result, &test_err));
    assert_int_equal(result.removed, 1);
    struct lk_kv_txn *txn = begin(w->kv, false);
    OK(lk_kv_scan(txn, S("t/compact/"), S("t/compact0"), is_place, &places, &test_err));
    lk_kv_abort(txn);
    assert_int_equal(places, 0);
    lk_table_close(t);
}

/* The same cells have the same root, whatever way they came. */
static void digests(struct world *w) {
    struct lk_store s = store_of(w->kv);
    struct lk_table_family a[] = {{"x", NULL, false}, {"y", NULL, false}}, b[] = {{"y", NULL, true}};
    struct lk_table_change add = {LK_TABLE_ADD_FAMILY, {"x", NULL, false}};
    struct lk_root one, two;
    char text[400];
    memset(text, 'z', sizeof text - 1);
    text[sizeof text - 1] = 0;
    OK(lk_table_create(&s, "a", a, 2, &test_err));
    OK(lk_table_create(&s, "b", b, 1, &test_err));
    OK(lk_table_alter(&s, "b", &add, 1, &test_err));
    struct lk_table *ta = table_of(&s, "a"), *tb = table_of(&s, "b");
    apply(ta, "r", set_cell("x", "q", 1000, "1"));
    apply(ta, "r", set_cell("y", "q", 2000, text));
    apply(tb, "gone", set_cell("y", "q", 3000, "2"));
    apply(tb, "r", set_cell("y", "q", 2000, text));
    apply(tb, "r", set_cell("x", "q", 1000, "0"));
    apply(tb, "r", set_cell("x", "q", 1000, "1"));
    apply(tb, "gone", (struct lk_mutation){.kind = LK_DELETE_FROM_ROW});
    struct lk_kv_txn *txn = begin(w->kv, false);
    OK(lk_table_digest(ta, txn, 0, &one, NULL, &test_err));
    OK(lk_table_digest(tb, txn, 0, &two, NULL, &test_err));
    assert_true(lk_root_equal(&one, &two));
    lk_kv_abort(txn);
    apply(tb, "r", set_cell("x", "q", 1000, "3"));
    txn = begin(w->kv, false);
    OK(lk_table_digest(tb, txn, 0, &two, NULL, &test_err));
    assert_false(lk_root_equal(&one, &two));
    lk_kv_abort(txn);
    lk_table_close(ta);
    lk_table_close(tb);
}

/* A few columns of a wide row are found without a walk over it. */
static void wide_rows(struct world *w) {
    struct lk_store s;
    struct lk_table *t = world_table(w, &s);
    static struct lk_mutation m[5000];
    static char names[5000][12];
    for (int i = 0; i < 5000; i++) {
        snprintf(names[i], sizeof names[i], "c%06d", i);
        m[i] = set_cell("cf", names[i], 1000, "v");
    }
    OK(lk_table_apply(t, S("wide"), m, 5000, LK_LAZY, &test_err));
    apply(t, "zz", set_cell("cf", "q", 1000, "v"));
    struct lk_kv_txn *txn = begin(w->kv, false);
    struct lk_table_read_stats stats;
    struct lk_table_rule r = {.family = "cf", .qualifier = S("c002500"), .append = S("x")};
    struct lk_table_read read = {.limit = 2};
    OK(lk_table_read(t, txn, &read, &(struct lk_table_sink){ignore, NULL, NULL}, &stats, &test_err));
    assert_int_equal(stats.cells, 5001);
    assert_in_range(stats.seeks, 1, 3);
    lk_kv_abort(txn);
    txn = begin(w->kv, true);
    OK(lk_table_read_modify_write(t, txn, S("wide"), &r, 1, NULL, NULL, &test_err));
    lk_kv_abort(txn);
    lk_table_close(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        WORLD_TEST(schemas),
        WORLD_TEST(protection),
        WORLD_TEST(many_rows_go),
        cmocka_unit_test(rules),
        WORLD_TEST(arguments),
        WORLD_TEST(entries_by_themselves),
        WORLD_TEST(times_of_the_store),
        WORLD_TEST(reads_and_writes),
        WORLD_TEST(many_increment),
        WORLD_TEST(checks_and_writes),
        WORLD_TEST(sinks),
        WORLD_TEST(samples_and_cuts),
        WORLD_TEST(pins_end),
        WORLD_TEST(dropped_is_gone),
        WORLD_TEST(compacted_to_the_end),
        WORLD_TEST(digests),
        WORLD_TEST(wide_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
