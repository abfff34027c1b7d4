/* The ledger: rows there and back, a step executed again has to agree, damage is named. */
#include "train/ledger.h"
#include "train/testing.h"

static char *dir;
static struct lk_store *store;

static int setup(void **state) {
    (void)state;
    dir = test_dir_make();
    OK(lk_store_open(dir, LK_CREATE, &store, &test_err));
    return 0;
}
static int teardown(void **state) {
    (void)state;
    lk_store_close(store);
    test_dir_remove(dir);
    return 0;
}

static struct lk_ledger_row row_of(uint32_t step) {
    return (struct lk_ledger_row){.step = step,
                                  .loss = 5.0 / step,
                                  .gradient_norm = 0.1 * step,
                                  .learning_rate = 1e-3,
                                  .tokens = 1000 + step,
                                  .seconds = 0.5};
}
static struct lk__train_ledger *filled(const char *run, uint32_t steps) {
    struct lk__train_ledger *l;
    OK(lk__train_ledger_open(store, run, NULL, &l, &test_err));
    for (uint32_t s = 1; s <= steps; s++) {
        struct lk_ledger_row row = row_of(s);
        OK(lk__train_ledger_append(l, &row, &test_err));
    }
    OK(lk__train_ledger_flush(l, &test_err));
    return l;
}

struct seen {
    uint32_t first, last, count;
};
static int see(void *arg, const struct lk_ledger_row *row) {
    struct seen *s = arg;
    struct lk_ledger_row expected = row_of(row->step);
    assert_true(row->loss == expected.loss && row->gradient_norm == expected.gradient_norm &&
                row->learning_rate == expected.learning_rate);
    assert_true(row->tokens == expected.tokens && row->seconds == expected.seconds);
    if (!s->count++)
        s->first = row->step;
    else
        assert_int_equal(row->step, s->last + 1);
    s->last = row->step;
    return 0;
}

static void rows_come_back_in_order(void **state) {
    (void)state;
    lk__train_ledger_close(filled("order", 300));
    lk__train_ledger_close(filled("order2", 2)); /* a name that begins with the other */
    struct seen s = {0};
    OK(lk_ledger_list(store, "order", 0, UINT32_MAX, see, &s, &test_err));
    assert_true(s.count == 300 && s.first == 1 && s.last == 300);
    s = (struct seen){0};
    OK(lk_ledger_list(store, "order", 255, 257, see, &s, &test_err));
    assert_true(s.count == 3 && s.first == 255 && s.last == 257);
    s = (struct seen){0};
    OK(lk_ledger_list(store, "nobody", 0, UINT32_MAX, see, &s, &test_err));
    assert_int_equal(s.count, 0);
}

/* Appends one row to a ledger that has it, and flushes. */
static int again(const char *run, const struct lk_ledger_row *row) {
    struct lk__train_ledger *l;
    OK(lk__train_ledger_open(store, run, NULL, &l, &test_err));
    int code = lk__train_ledger_append(l, row, &test_err);
    if (!code) code = lk__train_ledger_flush(l, &test_err);
    lk__train_ledger_close(l);
    return code;
}
static void a_step_again_must_agree(void **state) {
    (void)state;
    lk__train_ledger_close(filled("again", 5));
    struct lk_ledger_row row = row_of(3);
    row.seconds = 9; /* time may differ; the old one stays */
    OK(again("again", &row));
    struct seen s = {0};
    OK(lk_ledger_list(store, "again", 0, UINT32_MAX, see, &s, &test_err));
    row = row_of(3);
    row.loss *= 1 + 0x1p-52;
    FAILS(again("again", &row), LK_EDIVERGED,
          "run again is not deterministic: step 3 executed again differs from its ledger: loss 0x");
    row = row_of(3), row.gradient_norm *= 2;
    FAILS(again("again", &row), LK_EDIVERGED, "gradient norm");
    row = row_of(3), row.learning_rate *= 2;
    FAILS(again("again", &row), LK_EDIVERGED, "learning rate");
    row = row_of(3), row.tokens++;
    FAILS(again("again", &row), LK_EDIVERGED, "tokens 1003, now 1004");
    row = row_of(3), row.loss = -0.0; /* bits, not values */
    OK((row.step = 77, again("again", &row)));
    row.loss = 0.0;
    FAILS(again("again", &row), LK_EDIVERGED, "loss");
}

static int see_eval(void *arg, const struct lk_eval_row *row) {
    uint32_t *count = arg;
    ++*count;
    assert_true(row->step == *count * 10 && row->loss == 1.0 / row->step && row->targets == row->step &&
                row->bytes == 3 * row->step);
    return 0;
}
static void evaluations_come_back(void **state) {
    (void)state;
    struct lk__train_ledger *l = filled("evals", 1);
    for (uint32_t i = 1; i <= 30; i++) { /* more than are buffered */
        struct lk_eval_row row = {.step = i * 10, .loss = 1.0 / (i * 10), .targets = i * 10, .bytes = 30 * i};
        OK(lk__train_ledger_append_eval(l, &row, &test_err));
    }
    OK(lk__train_ledger_flush(l, &test_err));
    lk__train_ledger_close(l);
    uint32_t count = 0;
    OK(lk_eval_list(store, "evals", see_eval, &count, &test_err));
    assert_int_equal(count, 30);
    assert_true(lk_bits_per_byte(&(struct lk_eval_row){.loss = 0.69314718055994530942, .targets = 10, .bytes = 40}) ==
                0.25);
    assert_true(lk_bits_per_byte(&(struct lk_eval_row){.loss = 1, .targets = 10}) == 0);
}

static void damaged_rows_are_named(void **state) {
    (void)state;
    lk__train_ledger_close(filled("damaged", 3));
    char key[LK_KV_KEY_MAX];
    struct lk_kv_txn *t;
    OK(lk_kv_begin(store->kv, true, &t, &test_err));
    OK(lk_kv_put(t, lk_bytes(key, lk__train_step_key(key, 'l', "damaged", 2)), lk_bytes("short", 5), &test_err));
    OK(lk_kv_commit(t, LK_DURABLE, NULL, &test_err));
    struct lk_ledger_row row = row_of(2);
    FAILS(again("damaged", &row), LK_ECORRUPT, "row of step 2 is damaged");
    struct seen s = {0};
    FAILS(lk_ledger_list(store, "damaged", 0, UINT32_MAX, see, &s, &test_err), LK_ECORRUPT, "run damaged");
    char other[LK_KV_KEY_MAX], copy[256];
    struct lk_bytes third;
    OK(lk_kv_begin(store->kv, true, &t, &test_err)); /* the row of another step */
    OK(lk_kv_get(t, lk_bytes(other, lk__train_step_key(other, 'l', "damaged", 3)), &third, &test_err));
    memcpy(copy, third.data, third.size);
    OK(lk_kv_put(t, lk_bytes(key, lk__train_step_key(key, 'l', "damaged", 2)), lk_bytes(copy, third.size), &test_err));
    OK(lk_kv_commit(t, LK_DURABLE, NULL, &test_err));
    s = (struct seen){0};
    FAILS(lk_ledger_list(store, "damaged", 0, UINT32_MAX, see, &s, &test_err), LK_ECORRUPT, "row of step 2 is damaged");
    FAILS(again("damaged", &row), LK_ECORRUPT, "row of step 2 is damaged");
}

static int open_and_append(void) {
    struct lk__train_ledger *l;
    struct lk_ledger_row row = row_of(1);
    int code = lk__train_ledger_open(store, "memory", NULL, &l, &test_err);
    if (code) return code;
    if (!(code = lk__train_ledger_append(l, &row, &test_err))) code = lk__train_ledger_flush(l, &test_err);
    lk__train_ledger_close(l);
    return code;
}
static void no_memory_is_said(void **state) {
    (void)state;
    FAIL_EACH_ALLOCATION(open_and_append());
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_come_back_in_order), cmocka_unit_test(a_step_again_must_agree),
        cmocka_unit_test(evaluations_come_back),   cmocka_unit_test(damaged_rows_are_named),
        cmocka_unit_test(no_memory_is_said),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
