/* The checker of histories finds planted anomalies of each kind, and nothing in histories that have none. */
#include "store/kv/history.h"

/* A history as text, a transaction a line: BEGAN ENDED STAMP then what it did: aK=V appends V to the list K, lK=V,V,...
 * reads it, wK=V and rK=V are of registers. Ends with "!" if aborted, "?" if unknown, R if it only reads. */
static void parse(struct history *h, const char *text) {
    memset(h, 0, sizeof *h);
    for (const char *line = text; *line; line += strcspn(line, "\n"), line += *line == '\n') {
        unsigned long began, ended;
        long stamp;
        int used = 0, outcome = HISTORY_COMMITTED;
        assert_int_equal(sscanf(line, "%lu %lu %ld%n", &began, &ended, &stamp, &used), 3);
        int t = history_begin(h, began);
        for (const char *at = line + used; *at && *at != '\n';) {
            int op = *at == 'a'   ? HISTORY_APPEND
                     : *at == 'l' ? HISTORY_READ_LIST
                     : *at == 'w' ? HISTORY_WRITE
                                  : HISTORY_READ;
            int values[16], count = 0;
            char *end = (char *)(uintptr_t)at + 1;
            if (*at == '!') outcome = HISTORY_ABORTED;
            if (*at == '?') outcome = HISTORY_UNKNOWN;
            if (*at == 'R') h->txns[t].reads_only = true;
            if (strchr("alwr", *at)) {
                int key = (int)strtol(at + 1, &end, 10);
                while (*end == '=' || *end == ',') { /* a list may be empty */
                    end++;
                    if (*end >= '0' && *end <= '9') values[count++] = (int)strtol(end, &end, 10);
                }
                history_do(h, t, op, key, values, count);
            }
            at = end;
        }
        history_end(h, t, ended, outcome, stamp);
    }
}

static void anomalies(void **state) {
    static const struct {
        const char *name, *text, *problem; /* a part of it; NULL: none */
    } cases[] = {
        {"serial", "1 2 0 l1= a1=1\n3 4 0 l1=1 a1=2\n5 6 0 l1=1,2\n", NULL},
        {"at the same time", "1 9 0 l1= a1=1\n1 9 0 l1=1 a1=2\n1 9 0 l1=\n1 9 0 l1=1,2\n", NULL},
        {"registers", "1 2 0 r1=0 w1=5\n3 4 0 r1=5 w1=6\n5 6 0 r1=6\n", NULL},
        {"lost update", "1 9 0 r1=0 w1=1\n1 9 0 r1=0 w1=2\n", "not serializable: 0 -rw-> 1 -rw-> 0"},
        {"lost append", "1 2 0 l1= a1=1\n1 2 0 l1= a1=2\n5 6 0 l1=2\n", "not serializable"},
        {"append over append", "1 9 0 l1= a1=1\n1 9 0 l1= a1=2\n1 9 0 l1=1,2\n", "not serializable"},
        {"write skew", "1 9 0 l1= l2= a1=1\n1 9 0 l1= l2= a2=2\n1 9 0 l1=1\n1 9 0 l2=2\n", "0 -rw-> 1 -rw-> 0"},
        {"long fork", "1 9 0 a1=1\n1 9 0 a2=2\n1 9 0 l1=1 l2=\n1 9 0 l1= l2=2\n", "not serializable"},
        {"read skew", "1 9 0 a1=1 a2=2\n1 9 0 l1=1 l2=\n", "not serializable"},
        {"read skew after", "1 9 0 l1= l2=2\n1 9 0 a1=1 a2=2\n", "not serializable"},
        /* the batch and its report (Fekete, O'Neil, O'Neil): without the reader the two are in order */
        {"read-only anomaly", "1 9 0 l1= l2= a1=1\n1 9 0 l2= a2=2\n1 9 0 l1= l2=2\n", "not serializable"},
        {"the same without the reader", "1 9 0 l1= l2= a1=1\n1 9 0 l2= a2=2\n", NULL},
        {"dirty write", "1 9 0 a1=1 a2=1\n1 9 0 a1=2 a2=2\n1 9 0 l1=1,2\n1 9 0 l2=2,1\n", "-ww-> "},
        {"orders contradict", "1 9 0 a1=1\n1 9 0 a1=2\n1 9 0 l1=1,2\n1 9 0 l1=2,1\n", "contradict"},
        {"circular information", "1 9 0 a1=1 l2=2\n1 9 0 a2=2 l1=1\n", "-wr-> "},
        {"aborted read", "1 2 0 a1=1!\n3 4 0 l1=1\n", "aborted"},
        {"value of nobody", "1 2 0 l1=7\n", "nobody wrote"},
        {"real-time inversion", "1 2 0 a1=1\n3 4 0 l1=\n", "not in the order of real time: 0 -time-> 1 -rw-> 0"},
        {"real time through others", "1 2 0 a1=1\n3 4 0 l1=1\n5 6 0 l1=\n", "not in the order of real time"},
        {"an unknown that happened", "1 2 0 a1=1?\n3 4 0 l1=1\n5 6 0 l1=\n", "not in the order of real time"},
        {"an unknown that did not", "1 2 0 a1=1?\n3 4 0 l1=\n", NULL},
        {"an unknown that happened late", "1 0 0 a1=1?\n3 4 0 l1=\n5 6 0 l1=1\n", NULL},
        {"stamps in order", "1 9 5 a1=1\n1 9 6 l1=1 a1=2\n1 9 6 l1=1,2R\n", NULL},
        /* read what the other overwrote and committed later: precedes it, with a later stamp (a clock under SSI) */
        {"stamp against the order", "1 9 6 l1= a2=1\n1 9 5 a1=2\n8 9 0 l1=2 l2=1\n", "timestamps contradict"},
        {"equal stamps", "1 9 5 a1=1\n1 9 5 a2=2\n", "same timestamp"},
        {"a reader's stamp is too late", "1 9 5 a1=1\n1 9 6 a2=2\n1 9 6 l2=R\n", "timestamps contradict"},
        {"a reader's stamp is too early", "1 9 5 a1=1\n1 9 6 a2=2\n1 9 5 l2=2R\n", "timestamps contradict"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct history h;
        parse(&h, cases[i].text);
        const char *problem = history_check(&h);
        if (!problem != !cases[i].problem || (problem && !strstr(problem, cases[i].problem)))
            fail_msg("%s: %s", cases[i].name, problem ? problem : "nothing found");
        history_release(&h);
    }
}

/* Random transactions run one after the other on a model, with intervals that may overlap; then one of them is given what
 * it would have read earlier, which must be found whenever another one is made to see the difference. */
static void random_histories(void **state) {
    struct test_random r = test_random_open("random_histories");
    int planted = 0;
    (void)state;
    for (int turn = 0; turn < 200; turn++) {
        struct history h = {0};
        int lists[3][256], when[3][256], size[3] = {0}, value = 0,
                                         stale = turn % 2 ? 20 + (int)test_random_below(&r, 30) : -1;
        for (int t = 0; t < 60; t++) {
            uint64_t began = (uint64_t)(100 + 10 * t - test_random_below(&r, 30));
            int txn = history_begin(&h, began), a = (int)test_random_below(&r, 3), b = (a + 1) % 3;
            int seen = t == stale ? size[a] / 2 : size[a];
            /* what it does not see is old enough that real time forbids it, or it sees all */
            bool plants = t == stale && seen < size[a] && when[a][seen] < t - 6;
            if (t == stale && !plants) stale = -1, seen = size[a];
            planted += plants;
            history_do(&h, txn, HISTORY_READ_LIST, a, lists[a], seen);
            history_do(&h, txn, HISTORY_READ_LIST, b, lists[b], size[b]);
            if (test_random_below(&r, 2)) {
                value++;
                when[b][size[b]] = t;
                lists[b][size[b]++] = value;
                history_do(&h, txn, HISTORY_APPEND, b, &value, 1);
            }
            history_end(&h, txn, 100 + 10 * (uint64_t)t + 5, HISTORY_COMMITTED, test_random_below(&r, 2) ? 1000 + t : 0);
        }
        for (int k = 0; k < 3; k++) {
            int txn = history_begin(&h, 100000);
            history_do(&h, txn, HISTORY_READ_LIST, k, lists[k], size[k]);
            history_end(&h, txn, 100001, HISTORY_COMMITTED, 0);
        }
        const char *problem = history_check(&h);
        if (!problem != (stale < 0)) fail_msg("turn %d: %s", turn, problem ? problem : "nothing found");
        history_release(&h);
    }
    assert_true(planted > 50);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(anomalies),
        cmocka_unit_test(random_histories),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
