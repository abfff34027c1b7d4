/* tamper STORE RUN STEP: changes the last bit of the loss in one row of a run's ledger, as a wrong machine would have.
 * tamper STORE RUN KEY: makes [model] KEY of the run's configuration a word, as a damaged record has it.
 * tamper STORE RUN record: cuts the run's record in the middle, so that it is no JSON. */
#include "lockstep/store/store.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* docs/formats.md: the loss is bytes 8 to 15, little-endian */
static int change_row(struct lk_kv_txn *t, const char *run, unsigned step, struct lk_err *err) {
    struct lk_bytes row;
    char key[LK_KV_KEY_MAX], value[256];
    size_t n = (size_t)snprintf(key, sizeof key - 4, "l/%s/", run);
    for (int i = 0; i < 4; i++) key[n++] = (char)(step >> (24 - 8 * i));
    int code = lk_kv_get(t, lk_bytes(key, n), &row, err);
    if (code) return code;
    memcpy(value, row.data, row.size);
    value[8] ^= 1;
    return lk_kv_put(t, lk_bytes(key, n), lk_bytes(value, row.size), err);
}

static int change_key(struct lk_kv_txn *t, const char *run, const char *key, struct lk_err *err) {
    json_t *record;
    int code = lk_record_get(t, "run", run, &record, err);
    if (code) return code;
    json_object_set_new(json_object_get(json_object_get(record, "config"), "model"), key, json_string("damaged"));
    code = lk_record_put(t, "run", run, record, err);
    json_decref(record);
    return code;
}

static int cut_record(struct lk_kv_txn *t, const char *run, struct lk_err *err) {
    struct lk_bytes row;
    char key[LK_KV_KEY_MAX];
    struct lk_bytes k = lk_bytes(key, (size_t)snprintf(key, sizeof key, "r/run/%s", run));
    int code = lk_kv_get(t, k, &row, err);
    if (code) return code;
    struct lk_buf half = LK_BUF_INIT;
    code = lk_buf_append(&half, row.data, row.size / 2);
    if (!code) code = lk_kv_put(t, k, lk_bytes(half.data, half.size), err);
    lk_buf_release(&half);
    return code;
}

int main(int argc, char **argv) {
    struct lk_err err = {0};
    struct lk_store *store = NULL;
    struct lk_kv_txn *t;
    if (argc != 4) return 2;
    unsigned step = (unsigned)atoi(argv[3]);
    int code = lk_store_open(argv[1], LK_WRITE, &store, &err);
    if (!code) code = lk_kv_begin(store->kv, true, &t, &err);
    if (!code && strcmp(argv[3], "record") == 0)
        code = cut_record(t, argv[2], &err);
    else if (!code)
        code = step ? change_row(t, argv[2], step, &err) : change_key(t, argv[2], argv[3], &err);
    if (!code) code = lk_kv_commit(t, LK_DURABLE, NULL, &err);
    if (code) fprintf(stderr, "tamper: %s\n", err.message);
    lk_store_close(store);
    return code != 0;
}
