/* tamper STORE RUN STEP: changes the last bit of the loss in one row of a run's ledger, as a wrong machine would have. */
#include "lockstep/store/store.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv) {
    struct lk_err err = {0};
    struct lk_store *store = NULL;
    struct lk_kv_txn *t;
    struct lk_bytes row;
    char key[LK_KV_KEY_MAX], value[256];
    if (argc != 4) return 2;
    unsigned step = (unsigned)atoi(argv[3]);
    size_t n = (size_t)snprintf(key, sizeof key - 4, "l/%s/", argv[2]);
    for (int i = 0; i < 4; i++) key[n++] = (char)(step >> (24 - 8 * i));
    int code = lk_store_open(argv[1], LK_WRITE, &store, &err);
    if (!code) code = lk_kv_begin(store->kv, true, &t, &err);
    if (!code) code = lk_kv_get(t, lk_bytes(key, n), &row, &err);
    if (!code) {
        memcpy(value, row.data, row.size); /* docs/formats.md: the loss is bytes 8 to 15, little-endian */
        value[8] ^= 1;
        code = lk_kv_put(t, lk_bytes(key, n), lk_bytes(value, row.size), &err);
        if (!code) code = lk_kv_commit(t, LK_DURABLE, NULL, &err);
    }
    if (code) fprintf(stderr, "tamper: %s\n", err.message);
    lk_store_close(store);
    return code != 0;
}
