/* A table beside the rows of the kv that it stands on, in one process and in turns. bench/table.sh runs it.
 * usage: table_bench DIR ROUNDS CELLS_TO_COMPACT */
#include "bench_median.h"
#include "lockstep/base/file.h"
#include "lockstep/base/progress.h"
#include "lockstep/store/table.h"
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROWS    100000
#define COLUMNS 10
#define WIDE    1000000
#define VALUE   100
#define THREADS 16
#define EACH    300 /* durable writes of a thread */
#define READS   100000
#define ROUNDS  15

static struct lk_store store;
static struct lk_table *table;
static char value[VALUE];

static void must(int code, const struct lk_err *err) {
    if (code == 0) return;
    fprintf(stderr, "table_bench: %s\n", err->message);
    exit(1);
}
static double seconds(uint64_t since) {
    return (double)(lk_clock_ns() - since) / 1e9;
}
static uint32_t random_number(uint64_t *state, uint32_t n) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((*state >> 33) % n);
}
static struct lk_bytes row_of(uint32_t n, char out[24]) {
    snprintf(out, 24, "row%012u", n);
    return lk_bytes(out, strlen(out));
}
static struct lk_bytes column_of(uint32_t n, char out[24]) {
    snprintf(out, 24, "c%07u", n);
    return lk_bytes(out, strlen(out));
}
static struct lk_mutation set(struct lk_bytes column, int64_t time_us) {
    return (struct lk_mutation){
        .kind = LK_SET_CELL, .family = "f", .qualifier = column, .timestamp_us = time_us, .value = lk_bytes(value, VALUE)};
}

/* --- filling --------------------------------------------------------------------------------------------- */

static void fill_rows(void) {
    static struct lk_table_entry entries[1000];
    static struct lk_mutation cells[1000][COLUMNS];
    static char rows[1000][24], columns[COLUMNS][24];
    struct lk_err err;
    for (uint32_t i = 0; i < ROWS; i += 1000) {
        for (uint32_t k = 0; k < 1000; k++) {
            for (uint32_t c = 0; c < COLUMNS; c++) cells[k][c] = set(column_of(c, columns[c]), 1000);
            entries[k] = (struct lk_table_entry){.row = row_of(i + k, rows[k]), .mutations = cells[k], .count = COLUMNS};
        }
        must(lk_table_apply_many(table, entries, 1000, LK_LAZY, &err), &err);
    }
}
static void fill_wide(void) {
    static struct lk_mutation cells[10000];
    static char columns[10000][24];
    struct lk_err err;
    for (uint32_t i = 0; i < WIDE; i += 10000) {
        for (uint32_t c = 0; c < 10000; c++) cells[c] = set(column_of(i + c, columns[c]), 1000);
        must(lk_table_apply(table, lk_bytes("wide", 4), cells, 10000, LK_LAZY, &err), &err);
    }
}
/* A row of the kv for each cell, so that both trees are equally large. */
static struct lk_bytes raw_key(uint32_t row, uint32_t column, char out[48]) {
    snprintf(out, 48, "raw/row%012u/c%07u", row, column);
    return lk_bytes(out, strlen(out));
}
static int put_raw(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    uint32_t first = *(uint32_t *)arg;
    int code = 0;
    char key[48];
    for (uint32_t i = 0; i < 1000 * COLUMNS && code == 0; i++)
        code = lk_kv_put(txn, raw_key(first + i / COLUMNS, i % COLUMNS, key), lk_bytes(value, VALUE), err);
    return code;
}
static void fill_raw(void) {
    struct lk_err err;
    for (uint32_t i = 0; i < ROWS; i += 1000) must(lk_kv_update(store.kv, put_raw, &i, LK_LAZY, NULL, &err), &err);
}

/* --- reading --------------------------------------------------------------------------------------------- */

static int count_cell(void *arg, const struct lk_cell *cell) {
    *(uint64_t *)arg += cell->value.size > 0;
    return 0;
}
static uint64_t read_cells(const struct lk_table_read *read) {
    struct lk_kv_txn *txn;
    struct lk_err err;
    uint64_t n = 0;
    must(lk_kv_begin(store.kv, false, &txn, &err), &err);
    must(lk_table_read(table, txn, read, &(struct lk_table_sink){count_cell, NULL, &n}, NULL, &err), &err);
    lk_kv_abort(txn);
    return n;
}

/* us each */
static double raw_gets(void) {
    uint64_t state = 1, begun = lk_clock_ns();
    struct lk_err err;
    for (uint32_t i = 0; i < READS; i++) {
        char key[48];
        struct lk_kv_txn *txn;
        struct lk_bytes v, name = raw_key(random_number(&state, ROWS), 0, key);
        must(lk_kv_begin(store.kv, false, &txn, &err), &err);
        must(lk_kv_get(txn, name, &v, &err), &err);
        lk_kv_abort(txn);
    }
    return seconds(begun) * 1e6 / READS;
}
static double row_reads(void) {
    uint64_t state = 1, begun = lk_clock_ns(), n = 0;
    for (uint32_t i = 0; i < READS; i++) {
        char row[24];
        struct lk_bytes name = row_of(random_number(&state, ROWS), row);
        n += read_cells(&(struct lk_table_read){.rows = &name, .row_count = 1});
    }
    if (n != (uint64_t)READS * COLUMNS) exit(1);
    return seconds(begun) * 1e6 / READS;
}
/* Millions of cells a second that are looked at. */
static double scan(const struct lk_filter_program *filter, uint64_t expected) {
    struct lk_table_range rows = {.from = lk_bytes("row", 3), .to = lk_bytes("rox", 3)};
    uint64_t begun = lk_clock_ns();
    if (read_cells(&(struct lk_table_read){.ranges = &rows, .range_count = 1, .filter = filter}) != expected) exit(1);
    return (double)ROWS * COLUMNS / seconds(begun) / 1e6;
}
static double wide_reads(void) {
    uint64_t state = 1, begun = lk_clock_ns();
    struct lk_err err;
    struct lk_bytes row = lk_bytes("wide", 4);
    for (int i = 0; i < 1000; i++) {
        char column[24];
        struct lk_bytes c = column_of(random_number(&state, WIDE), column);
        struct lk_filter one = {
            .kind = LK_FILTER_COLUMN_RANGE, .family = "f", .range = {.from = c, .to = c, .to_closed = true}};
        struct lk_filter_program *filter;
        must(lk_filter_compile(&one, &filter, &err), &err);
        if (read_cells(&(struct lk_table_read){.rows = &row, .row_count = 1, .filter = filter}) != 1) exit(1);
        lk_filter_free(filter);
    }
    return seconds(begun) * 1e6 / 1000;
}

/* --- durable writes by many ------------------------------------------------------------------------------ */

struct put_one {
    uint32_t number;
};
static int put_one(struct lk_kv_txn *txn, void *arg, struct lk_err *err) {
    char key[48];
    return lk_kv_put(txn, raw_key(((struct put_one *)arg)->number, 0, key), lk_bytes(value, VALUE), err);
}
static void *write_raw(void *arg) {
    uint64_t state = (uint64_t)(uintptr_t)arg;
    struct lk_err err;
    for (int i = 0; i < EACH; i++) {
        struct put_one p = {random_number(&state, ROWS)};
        must(lk_kv_update(store.kv, put_one, &p, LK_DURABLE, NULL, &err), &err);
    }
    return NULL;
}
static void *write_cells(void *arg) {
    uint64_t state = (uint64_t)(uintptr_t)arg;
    struct lk_err err;
    for (int i = 0; i < EACH; i++) {
        char row[24], column[24];
        struct lk_bytes name = row_of(random_number(&state, ROWS), row);
        struct lk_mutation m = set(column_of(0, column), 1000);
        must(lk_table_apply(table, name, &m, 1, LK_DURABLE, &err), &err);
    }
    return NULL;
}
static double together(void *(*run)(void *)) {
    pthread_t threads[THREADS];
    uint64_t begun = lk_clock_ns();
    for (uintptr_t i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, run, (void *)(i + 1)) != 0) exit(1);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    return seconds(begun) * 1e6 / (THREADS * EACH);
}

/* --- compaction ------------------------------------------------------------------------------------------ */

static atomic_bool compacting;
struct reader {
    double *us;
    size_t count, most;
};
static void *read_meanwhile(void *arg) {
    struct reader *r = arg;
    uint64_t state = 9;
    while (atomic_load(&compacting) && r->count < r->most) {
        char row[24];
        struct lk_bytes name = row_of(random_number(&state, ROWS), row);
        uint64_t begun = lk_clock_ns();
        read_cells(&(struct lk_table_read){.rows = &name, .row_count = 1});
        r->us[r->count++] = seconds(begun) * 1e6;
    }
    return NULL;
}
static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static double p99(struct reader *r) {
    qsort(r->us, r->count, sizeof *r->us, ascending);
    return r->count ? r->us[r->count * 99 / 100] : 0;
}
static int idle(void *arg) {
    struct timespec t = {.tv_sec = 3};
    (void)arg;
    nanosleep(&t, NULL);
    return 0;
}

/* cells, of which a rule keeps one in ten. */
static void compaction(uint32_t cells) {
    struct lk_err err;
    struct lk_table_family f = {"f", NULL, false};
    struct lk_table *t;
    static struct lk_mutation m[1000];
    char row[24];
    must(lk_table_create(&store, "versions", &f, 1, &err), &err);
    must(lk_table_open(&store, "versions", &t, &err), &err);
    for (uint32_t i = 0; i < cells; i += 1000) {
        static char columns[100][24];
        for (uint32_t k = 0; k < 1000; k++) m[k] = set(column_of(k / 10, columns[k / 10]), (k % 10 + 1) * 1000);
        must(lk_table_apply(t, row_of(i / 1000, row), m, 1000, LK_LAZY, &err), &err);
    }
    struct lk_table_change change = {LK_TABLE_UPDATE_FAMILY, {"f", "maxversions=1", false}};
    must(lk_table_alter(&store, "versions", &change, 1, &err), &err);
    struct reader alone = {malloc(4000000 * sizeof(double)), 0, 4000000},
                  beside = {malloc(4000000 * sizeof(double)), 0, 4000000};
    pthread_t id;
    atomic_store(&compacting, true);
    pthread_create(&id, NULL, read_meanwhile, &alone);
    idle(NULL);
    atomic_store(&compacting, false);
    pthread_join(id, NULL);
    atomic_store(&compacting, true);
    pthread_create(&id, NULL, read_meanwhile, &beside);
    struct lk_table_compact_result result;
    uint64_t begun = lk_clock_ns();
    must(lk_table_compact(t, NULL, NULL, &result, &err), &err);
    double took = seconds(begun);
    atomic_store(&compacting, false);
    pthread_join(id, NULL);
    double quiet = p99(&alone), busy = p99(&beside);
    printf("compaction of %" PRIu32 " cells, %" PRIu64
           " of them garbage: %.1f s, %.2f M cells/s; p99 of a row's read beside it "
           "%.1f us, alone %.1f us: %.2f\n",
           cells, result.removed, took, (double)cells / took / 1e6, busy, quiet, busy / quiet);
    lk_table_close(t);
}

enum work { RAW_GET, ROW_READ, SCAN, SCAN_FILTERED, WIDE_READ, RAW_WRITES, CELL_WRITES, WORKS };
static const char *const names[WORKS] = {"kv: get, us",
                                         "row of 10 cells, us",
                                         "scan, M cells/s",
                                         "scan with a column filter, M cells/s",
                                         "one column of a row of 1,000,000, us",
                                         "kv: durable put, 16 threads, us",
                                         "durable cell, 16 threads, us"};

int main(int argc, char **argv) {
    static double all[WORKS][ROUNDS];
    struct lk_err err;
    char url[4096];
    if (argc != 4) return 2;
    int rounds = atoi(argv[2]);
    if (rounds < 1 || rounds > ROUNDS) return 2;
    memset(value, 'v', sizeof value);
    snprintf(url, sizeof url, "file:%s", argv[1]);
    must(lk_kv_open(url, LK_CREATE, &store.kv, &err), &err);
    struct lk_table_family f = {"f", "maxversions=3", false};
    must(lk_table_create(&store, "t", &f, 1, &err), &err);
    must(lk_table_open(&store, "t", &table, &err), &err);
    fill_rows();
    fill_wide();
    fill_raw();
    struct lk_filter one = {.kind = LK_FILTER_COLUMN_REGEX, .pattern = lk_bytes("c000000[37]", 11)};
    struct lk_filter_program *filter;
    must(lk_filter_compile(&one, &filter, &err), &err);
    for (int i = 0; i < rounds; i++) {
        all[RAW_GET][i] = raw_gets();
        all[ROW_READ][i] = row_reads();
        all[SCAN][i] = scan(NULL, (uint64_t)ROWS * COLUMNS);
        all[SCAN_FILTERED][i] = scan(filter, (uint64_t)ROWS * 2);
        all[WIDE_READ][i] = wide_reads();
        all[RAW_WRITES][i] = together(write_raw);
        all[CELL_WRITES][i] = together(write_cells);
    }
    for (int w = 0; w < WORKS; w++) printf("%-40s %10.2f\n", names[w], median(all[w], (size_t)rounds));
    printf("a row of 10 cells takes %.2f times as long as a get; durable cells %.2f times as long as puts\n",
           median(all[ROW_READ], (size_t)rounds) / median(all[RAW_GET], (size_t)rounds),
           median(all[CELL_WRITES], (size_t)rounds) / median(all[RAW_WRITES], (size_t)rounds));
    lk_filter_free(filter);
    uint32_t cells = (uint32_t)strtoul(argv[3], NULL, 10);
    if (cells) compaction(cells);
    lk_table_close(table);
    lk_kv_close(store.kv);
    return 0;
}
