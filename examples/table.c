/* Keeps what is measured: sets the newest value of a thing, then prints the last three of each thing that begins so.
 *   cc table.c -o table $(pkg-config --cflags --libs lockstep) && ./table file:lab kitchen/temperature 21.5 kitchen/ */
#include <lockstep/store/table.h>
#include <stdio.h>
#include <string.h>

static struct lk_bytes text(const char *t) {
    return lk_bytes(t, strlen(t));
}

static int print_cell(void *arg, const struct lk_cell *c) {
    (void)arg;
    printf("%.*s %lld %.*s\n", (int)c->row.size, (const char *)c->row.data, (long long)(c->timestamp_us / 1000),
           (int)c->value.size, (const char *)c->value.data);
    return 0;
}

/* Only the three newest are kept: older ones are garbage, which no read shows. */
static int open_table(struct lk_store *store, struct lk_table **out, struct lk_err *err) {
    const struct lk_table_family family = {"v", "maxversions=3", false};
    int code = lk_table_create(store, "measured", &family, 1, err);
    return code && code != LK_EEXISTS ? code : lk_table_open(store, "measured", out, err);
}

static int set_value(struct lk_table *t, const char *thing, const char *value, struct lk_err *err) {
    const struct lk_mutation set = {
        .kind = LK_SET_CELL, .family = "v", .timestamp_us = LK_TABLE_SERVER_TIME, .value = text(value)};
    return lk_table_apply(t, text(thing), &set, 1, LK_DURABLE, err);
}

static int print_values(struct lk_store *store, struct lk_table *t, const char *prefix, struct lk_err *err) {
    unsigned char end[256];
    size_t size;
    lk_kv_prefix_end(text(prefix), end, &size);
    const struct lk_table_range range = {.from = text(prefix), .to = lk_bytes(end, size)};
    const struct lk_table_read read = {.ranges = &range, .range_count = 1};
    struct lk_kv_txn *txn;
    int code = lk_kv_begin(store->kv, false, &txn, err); /* one state, whatever others write */
    if (code != 0) return code;
    code = lk_table_read(t, txn, &read, &(struct lk_table_sink){.cell = print_cell}, NULL, err);
    lk_kv_abort(txn);
    return code;
}

int main(int argc, char **argv) {
    struct lk_err err;
    struct lk_store *store = NULL;
    struct lk_table *t = NULL;
    if (argc != 5 || strlen(argv[4]) > 256) return fprintf(stderr, "usage: table STORE THING VALUE PREFIX\n"), 2;
    int code = lk_store_open(argv[1], LK_CREATE, &store, &err);
    if (code == 0) code = open_table(store, &t, &err);
    if (code == 0) code = set_value(t, argv[2], argv[3], &err);
    if (code == 0) code = print_values(store, t, argv[4], &err);
    if (code != 0) fprintf(stderr, "table: %s\n", err.message);
    lk_table_close(t);
    lk_store_close(store);
    return code != 0;
}
