/* Metrics: the text to the byte, what is refused, threads that count, and promtool where it is installed. */
#include "base/testing.h"
#include "lockstep/base/thread.h"
#include "lockstep/net/metrics.h"
#include <math.h>

static const double bounds[] = {0.001, 0.25, 1, 10};
static const struct lk_metric_family asked = {LK_METRIC_COUNTER, "lockstep:asked_total", "Requests,\nby \\ \"model\".",
                                              NULL, 0},
                                     open = {LK_METRIC_GAUGE, "lockstep_open", "Connections.", NULL, 0},
                                     took = {LK_METRIC_HISTOGRAM, "lockstep_took_seconds", "Time.", bounds, 4};

static struct lk_metric *series(struct lk_metrics *m, const struct lk_metric_family *f, const char *model) {
    struct lk_metric *s;
    OK(lk_metrics_add(m, f, &(struct lk_metric_label){"model", model}, model != NULL, &s, &test_err));
    return s;
}

static void text_to_the_byte(void **state) {
    (void)state;
    struct lk_metrics *m = lk_metrics_create();
    struct lk_buf out = LK_BUF_INIT;
    struct lk_metric *a = series(m, &asked, "a\"\\\nb"), *g = series(m, &open, NULL), *h = series(m, &took, "x");
    lk_metric_add(a, 1);
    lk_metric_add(series(m, &asked, "a\"\\\nb"), 2); /* the same */
    lk_metric_add(series(m, &asked, "\xc3\xa4"), 12345678901.0);
    lk_metric_set(g, 7);
    lk_metric_add(g, -8.5);
    lk_metric_observe(h, 0.25); /* a bound belongs to its bucket */
    lk_metric_observe(h, 0.5);
    lk_metric_observe(h, 100);
    lk_metric_observe(h, NAN);
    OK(lk_metrics_print(m, &out));
    assert_string_equal(out.data, "# HELP lockstep:asked_total Requests,\\nby \\\\ \"model\".\n"
                                  "# TYPE lockstep:asked_total counter\n"
                                  "lockstep:asked_total{model=\"a\\\"\\\\\\nb\"} 3\n"
                                  "lockstep:asked_total{model=\"\xc3\xa4\"} 12345678901\n"
                                  "# HELP lockstep_open Connections.\n"
                                  "# TYPE lockstep_open gauge\n"
                                  "lockstep_open -1.5\n"
                                  "# HELP lockstep_took_seconds Time.\n"
                                  "# TYPE lockstep_took_seconds histogram\n"
                                  "lockstep_took_seconds_bucket{model=\"x\",le=\"0.001\"} 0\n"
                                  "lockstep_took_seconds_bucket{model=\"x\",le=\"0.25\"} 1\n"
                                  "lockstep_took_seconds_bucket{model=\"x\",le=\"1\"} 2\n"
                                  "lockstep_took_seconds_bucket{model=\"x\",le=\"10\"} 2\n"
                                  "lockstep_took_seconds_bucket{model=\"x\",le=\"+Inf\"} 3\n"
                                  "lockstep_took_seconds_sum{model=\"x\"} 100.75\n"
                                  "lockstep_took_seconds_count{model=\"x\"} 3\n");
    lk_metric_set(g, INFINITY);
    out.size = 0;
    OK(lk_metrics_print(m, &out));
    assert_non_null(strstr(out.data, "lockstep_open +Inf\n"));
    lk_buf_release(&out);
    lk_metrics_free(m);
}

static void what_is_refused(void **state) {
    (void)state;
    static const double down[] = {1, 1}, endless[] = {1, INFINITY};
    const struct {
        struct lk_metric_family family;
        struct lk_metric_label labels[2];
        size_t count;
        const char *says;
    } bad[] = {
        {{LK_METRIC_GAUGE, "", "x", NULL, 0}, {{0}}, 0, "is no name"},
        {{LK_METRIC_GAUGE, "1a", "x", NULL, 0}, {{0}}, 0, "is no name"},
        {{LK_METRIC_GAUGE, "a-b", "x", NULL, 0}, {{0}}, 0, "is no name"},
        {{LK_METRIC_COUNTER, "a", "x", NULL, 0}, {{0}}, 0, "end in _total"},
        {{LK_METRIC_GAUGE, "a_total", "x", NULL, 0}, {{0}}, 0, "end in _total"},
        {{LK_METRIC_HISTOGRAM, "a", "x", NULL, 0}, {{0}}, 0, "have bounds"},
        {{LK_METRIC_HISTOGRAM, "a", "x", down, 2}, {{0}}, 0, "finite and grow"},
        {{LK_METRIC_HISTOGRAM, "a", "x", endless, 2}, {{0}}, 0, "finite and grow"},
        {{LK_METRIC_GAUGE, "a", "\xff", NULL, 0}, {{0}}, 0, "its help is no UTF-8"},
        {{LK_METRIC_GAUGE, "a", "x", NULL, 0}, {{"b:c", ""}}, 1, "name of a label"},
        {{LK_METRIC_GAUGE, "a", "x", NULL, 0}, {{"__a", ""}}, 1, "name of a label"},
        {{LK_METRIC_GAUGE, "a", "x", NULL, 0}, {{"b", ""}, {"b", ""}}, 2, "name of a label"},
        {{LK_METRIC_HISTOGRAM, "a", "x", bounds, 4}, {{"le", ""}}, 1, "name of a label"},
        {{LK_METRIC_GAUGE, "a", "x", NULL, 0}, {{"b", "\xc3"}}, 1, "is no UTF-8"},
        {{LK_METRIC_GAUGE, "lockstep_open", "Other.", NULL, 0}, {{0}}, 0, "is there already"},
    };
    struct lk_metrics *m = lk_metrics_create();
    struct lk_metric *s;
    series(m, &open, NULL);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        FAILS(lk_metrics_add(m, &bad[i].family, bad[i].labels, bad[i].count, &s, &test_err), LK_EINVAL, bad[i].says);
    char value[16];
    struct lk_metric_label l = {"n", value};
    for (int i = 0; i <= 9999; i++) {
        snprintf(value, sizeof value, "%d", i);
        if (i < 9999) OK(lk_metrics_add(m, &open, &l, 1, &s, &test_err));
    }
    FAILS(lk_metrics_add(m, &open, &l, 1, &s, &test_err), LK_EINVAL, "lockstep_open: there are 10000 series already");
    strcpy(value, "7");
    OK(lk_metrics_add(m, &open, &l, 1, &s, &test_err));
    lk_metrics_free(m);
}

static int make_all(void) {
    struct lk_metrics *m = lk_metrics_create();
    struct lk_buf out = LK_BUF_INIT;
    struct lk_metric *s;
    int code = m ? lk_metrics_add(m, &took, &(struct lk_metric_label){"model", "a"}, 1, &s, &test_err) : LK_ENOMEM;
    if (!code) code = lk_metrics_add(m, &open, NULL, 0, &s, &test_err);
    if (!code) code = lk_metrics_print(m, &out);
    lk_buf_release(&out);
    lk_metrics_free(m);
    return code;
}
static void no_memory_is_said(void **state) {
    (void)state;
    FAIL_EACH_ALLOCATION(make_all());
}

static void *count(void *arg) {
    struct lk_metrics *m = arg;
    for (int i = 0; i < 20000; i++) {
        lk_metric_add(series(m, &asked, "t"), 1);
        lk_metric_observe(series(m, &took, "t"), i % 2);
        if (i % 1000) continue;
        struct lk_buf out = LK_BUF_INIT;
        OK(lk_metrics_print(m, &out));
        lk_buf_release(&out);
    }
    return NULL;
}
static void threads_count(void **state) {
    (void)state;
    struct lk_metrics *m = lk_metrics_create();
    struct lk_buf out = LK_BUF_INIT;
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) assert_int_equal(lk_thread_start(&threads[i], count, m), 0);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    OK(lk_metrics_print(m, &out));
    assert_non_null(strstr(out.data, "asked_total{model=\"t\"} 80000\n"));
    assert_non_null(strstr(out.data, "le=\"0.001\"} 40000\n"));
    assert_non_null(strstr(out.data, "_sum{model=\"t\"} 40000\n"));
    assert_non_null(strstr(out.data, "_count{model=\"t\"} 80000\n"));
    lk_buf_release(&out);
    lk_metrics_free(m);
}

static void promtool_reads_it(void **state) {
    char *path = test_join(*state, "metrics"), command[600];
    struct lk_metrics *m = lk_metrics_create();
    struct lk_buf out = LK_BUF_INIT;
    struct lk_metric_family plain = asked;
    plain.name = "lockstep_asked_total"; /* promtool keeps colons for its own rules, vLLM does not */
    if (system("command -v promtool >/dev/null")) skip();
    lk_metric_add(series(m, &plain, "a\"\\\nb"), 1e300);
    lk_metric_set(series(m, &open, "\xc3\xa4"), -0.1);
    lk_metric_observe(series(m, &took, ""), 0.3);
    OK(lk_metrics_print(m, &out));
    OK(lk_file_write_atomic(path, out.data, out.size, &test_err));
    snprintf(command, sizeof command, "promtool check metrics <%s", path);
    assert_int_equal(system(command), 0);
    lk_buf_append(&out, "lockstep_open{ 1\n", 17);
    OK(lk_file_write_atomic(path, out.data, out.size, &test_err));
    snprintf(command, sizeof command, "promtool check metrics <%s 2>/dev/null", path);
    assert_int_equal(WEXITSTATUS(system(command)), 1); /* it does look */
    lk_buf_release(&out);
    lk_metrics_free(m);
    lk_free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_to_the_byte), cmocka_unit_test(what_is_refused), cmocka_unit_test(no_memory_is_said),
        cmocka_unit_test(threads_count),    TEST_IN_DIR(promtool_reads_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
