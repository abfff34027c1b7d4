/* Rows as JSON and CSV, both ways. */
#include "lockstep/store/table_text.h"
#include "store/table/testing.h"
#include <unistd.h>

#define B(t) lk_bytes(t, sizeof(t) - 1)

static void json_gives_the_same_cells(void **state) {
    const struct lk_bytes texts[] = {B("a"), B(""), B("\xff\xfe"), B("a\0b"), B("\"\\\n\xc3\xa4"), B("\0")};
    struct lk_buf line = LK_BUF_INIT;
    struct lk_table_row row = {0};
    size_t n = sizeof texts / sizeof *texts;
    (void)state;
    for (size_t k = 0; k < n; k++) {
        line.size = 0;
        OK(lk_table_json_begin(&line, texts[k]));
        for (size_t i = 0; i < n; i++) {
            struct lk_cell c = {texts[k], "f", texts[i], (int64_t)i * 1000, texts[n - 1 - i], i == 2 ? "x" : NULL};
            OK(lk_table_json_cell(&line, &c, i == 0));
        }
        OK(lk_table_json_end(&line));
        OK(lk_table_json_read(&row, line.data, line.size, 7, &test_err));
        assert_int_equal(row.count, n);
        assert_int_equal(row.key.size, texts[k].size);
        assert_memory_equal(row.key.data, texts[k].data, texts[k].size);
        for (size_t i = 0; i < n; i++) {
            assert_string_equal(row.cells[i].family, "f");
            assert_int_equal(row.cells[i].timestamp_us, i * 1000);
            assert_int_equal(row.cells[i].qualifier.size, texts[i].size);
            assert_memory_equal(row.cells[i].qualifier.data, texts[i].data, texts[i].size);
            assert_int_equal(row.cells[i].value.size, texts[n - 1 - i].size);
            assert_memory_equal(row.cells[i].value.data, texts[n - 1 - i].data, texts[n - 1 - i].size);
        }
    }
    lk_buf_release(&line);
    lk_table_row_release(&row);
}

static void json_that_is_no_row(void **state) {
    static const char *const bad[][2] = {
        {"x", "the line"},
        {"[]", "no JSON object"},
        {"{}", "\"key\" or \"key_base64\""},
        {"{\"key\":\"a\"}", "\"cells\""},
        {"{\"key\":\"a\",\"key_base64\":\"YQ==\",\"cells\":[]}", "one of them"},
        {"{\"key_base64\":\"YQ\",\"cells\":[]}", "not base64"},
        {"{\"key\":\"a\",\"cells\":[],\"more\":1}", "none of a row's"},
        {"{\"key\":\"a\",\"cells\":[1]}", "cell 1: it is no JSON object"},
        {"{\"key\":\"a\",\"cells\":[{\"qualifier\":\"q\",\"value\":\"\"}]}", "cell 1: it needs \"family\""},
        {"{\"key\":\"a\",\"cells\":[{\"family\":\"f\",\"value\":\"\"}]}", "\"qualifier\""},
        {"{\"key\":\"a\",\"cells\":[{\"family\":\"f\",\"qualifier\":\"q\"}]}", "\"value\""},
        {"{\"key\":\"a\",\"cells\":[{\"family\":\"f\",\"qualifier\":\"q\",\"value\":\"\",\"timestamp_us\":1.5}]}",
         "no whole number"},
        {"{\"key\":\"a\",\"cells\":[{\"family\":\"f\",\"qualifier\":\"q\",\"value\":\"\",\"timestamp_us\":-1}]}",
         "negative"},
        {"{\"key\":\"a\",\"cells\":[{\"family\":\"f\",\"qualifier\":\"q\",\"value\":\"\",\"x\":1}]}", "none of a cell's"},
    };
    struct lk_table_row row = {0};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        FAILS(lk_table_json_read(&row, bad[i][0], strlen(bad[i][0]), 0, &test_err), LK_EINVAL, bad[i][1]);
    }
    OK(lk_table_json_read(&row, "{\"cells\":[{\"family\":\"f\",\"qualifier\":\"q\",\"value\":\"\"}],\"key\":\"k\"}", 63,
                          5000, &test_err));
    assert_int_equal(row.cells[0].timestamp_us, 5000);
    lk_table_row_release(&row);
}

static size_t any(uint64_t *seed) {
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (size_t)(*seed >> 33);
}

/* What is written is read as the same fields, whatever bytes they are of; and nothing at all is no text. */
static void csv_both_ways(void **state) {
    static const char letters[] = {'a', '"', ',', '\n', '\r', ' ', 0, '\xff'};
    uint64_t seed = 1;
    struct lk_buf line = LK_BUF_INIT;
    struct lk_csv csv = {0};
    (void)state;
    for (int round = 0; round < 2000; round++) {
        char fields[6][8];
        size_t sizes[6], n = 1 + any(&seed) % 6, quotes = 0;
        line.size = 0;
        for (size_t i = 0; i < n; i++) {
            sizes[i] = any(&seed) % 8;
            for (size_t k = 0; k < sizes[i]; k++) fields[i][k] = letters[any(&seed) % sizeof letters];
            if (i) OK(lk_buf_append(&line, ",", 1));
            OK(lk_csv_write(&line, lk_bytes(fields[i], sizes[i]), ','));
        }
        if (round % 2) OK(lk_buf_append(&line, "\r\n", round % 4 == 1 ? 2 : 1));
        for (size_t i = 0; i < line.size; i++) quotes += line.data[i] == '"';
        assert_true(lk_csv_is_whole(quotes));
        OK(lk_csv_read(&csv, lk_bytes(line.data, line.size), ',', &test_err));
        assert_int_equal(csv.count, n);
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(csv.fields[i].text.size, sizes[i]);
            assert_memory_equal(csv.fields[i].text.data, fields[i], sizes[i]);
            assert_true(csv.fields[i].quoted || sizes[i]);
        }
    }
    OK(lk_csv_read(&csv, B(",\"\",\n"), ',', &test_err));
    assert_int_equal(csv.count, 3);
    assert_true(csv.fields[1].quoted && !csv.fields[0].quoted && !csv.fields[2].quoted);
    FAILS(lk_csv_read(&csv, B("a,b\"c\""), ',', &test_err), LK_EINVAL, "field 2");
    FAILS(lk_csv_read(&csv, B("a,\"c\"d"), ',', &test_err), LK_EINVAL, "field 2");
    FAILS(lk_csv_read(&csv, B("a,\"c"), ',', &test_err), LK_EINVAL, "field 2");
    OK(lk_csv_read(&csv, B("a\tb,c"), '\t', &test_err));
    assert_int_equal(csv.count, 2);
    lk_csv_release(&csv);
    lk_buf_release(&line);
}

/* Notes: in the transaction of the cells, seen by nobody else, gone with the table. */
static int write_note(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    return lk_table_note_put(arg, txn, "import:a", B("12"), err);
}
static int drop_note(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    return lk_table_note_put(arg, txn, "import:a", lk_bytes(NULL, 0), err);
}
static int note_of(struct lk_kv *kv, struct lk_table *t, struct lk_buf *out) {
    struct lk_kv_txn *txn = begin(kv, false);
    out->size = 0;
    int code = lk_table_note_get(t, txn, "import:a", out, &test_err);
    lk_kv_abort(txn);
    return code;
}
static void notes(void **state) {
    struct lk_kv *kv;
    struct lk_buf note = LK_BUF_INIT;
    struct lk_root before, after;
    (void)state;
    OK(lk_kv_open("memory:", LK_CREATE, &kv, &test_err));
    struct lk_store s = store_of(kv);
    make_table(&s, "t", (const char *const[]){"f", NULL, NULL, NULL});
    struct lk_table *t = table_of(&s, "t");
    struct lk_mutation m = set_cell("f", "q", 1000, "v");
    OK(lk_table_apply(t, S("r"), &m, 1, LK_LAZY, &test_err));
    struct lk_kv_txn *txn = begin(kv, false);
    OK(lk_table_digest(t, txn, 0, &before, NULL, &test_err));
    lk_kv_abort(txn);
    FAILS(note_of(kv, t, &note), LK_ENOTFOUND, "");
    OK(lk_kv_update(kv, write_note, t, LK_LAZY, NULL, &test_err));
    OK(note_of(kv, t, &note));
    assert_string_equal(note.data, "12");
    txn = begin(kv, false);
    OK(lk_table_digest(t, txn, 0, &after, NULL, &test_err));
    lk_kv_abort(txn);
    assert_true(lk_root_equal(&before, &after));
    OK(lk_kv_update(kv, drop_note, t, LK_LAZY, NULL, &test_err));
    FAILS(note_of(kv, t, &note), LK_ENOTFOUND, "");
    OK(lk_kv_update(kv, write_note, t, LK_LAZY, NULL, &test_err));
    OK(lk_table_drop(&s, "t", &test_err));
    FAILS(note_of(kv, t, &note), LK_ENOTFOUND, "");
    lk_table_close(t);
    make_table(&s, "t", (const char *const[]){"f", NULL, NULL, NULL});
    t = table_of(&s, "t");
    FAILS(note_of(kv, t, &note), LK_ENOTFOUND, "");
    lk_table_close(t);
    lk_buf_release(&note);
    lk_kv_close(kv);
}

/* What a pin holds: its families; and, once its time is over, nothing more. */
static int add_name(void *arg, const struct lk_table_family *f) {
    return lk_buf_printf(arg, "%s:%s ", f->name, f->gc);
}
static void families_of_pins(void **state) {
    struct lk_kv *kv;
    struct lk_buf now = LK_BUF_INIT, then = LK_BUF_INIT;
    int64_t at;
    (void)state;
    OK(lk_kv_open("memory:", LK_CREATE, &kv, &test_err));
    struct lk_store s = store_of(kv);
    make_table(&s, "t", (const char *const[]){"f", "maxversions=1", "g", NULL, NULL});
    OK(lk_table_pin(&s, "p", &(const char *){"t"}, 1, 5, &at, &test_err));
    const struct lk_table_change change = {LK_TABLE_DROP_FAMILY, {"g", NULL, false}};
    OK(lk_table_alter(&s, "t", &change, 1, &test_err));
    struct lk_table *t = table_of(&s, "t");
    struct lk_kv_txn *txn = begin(kv, false);
    OK(lk_table_families(t, txn, add_name, &now, &test_err));
    OK(lk_table_families_at(t, txn, at, add_name, &then, &test_err));
    lk_kv_abort(txn);
    assert_string_equal(now.data, "f:maxversions=1 ");
    assert_string_equal(then.data, "f:maxversions=1 g:never ");
    usleep(20000);
    OK(lk_table_drop(&s, "t", &test_err));
    lk_table_close(t);
    lk_buf_release(&now);
    lk_buf_release(&then);
    lk_kv_close(kv);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_gives_the_same_cells),
        cmocka_unit_test(json_that_is_no_row),
        cmocka_unit_test(csv_both_ways),
        cmocka_unit_test(notes),
        cmocka_unit_test(families_of_pins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
