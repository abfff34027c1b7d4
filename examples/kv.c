/* Counts the words of standard input in a store, and prints those that begin with a prefix. Several may run at once.
 *   cc kv.c -o kv $(pkg-config --cflags --libs lockstep) && ./kv file:words the <book.txt */
#include <lockstep/store/kv.h>
#include <stdio.h>
#include <string.h>

/* A function of lk_kv_update may run more than once: it reads what it changes. */
static int count_word(struct lk_kv_txn *txn, void *word, struct lk_err *err) {
    struct lk_bytes key = lk_bytes(word, strlen(word)), value;
    unsigned long count = 0;
    char text[24];
    int code = lk_kv_get(txn, key, &value, err);
    if (code == 0) snprintf(text, sizeof text, "%.*s", (int)value.size, (const char *)value.data);
    if (code == 0) sscanf(text, "%lu", &count);
    if (code != 0 && code != LK_ENOTFOUND) return code;
    int size = snprintf(text, sizeof text, "%lu", count + 1);
    return lk_kv_put(txn, key, lk_bytes(text, (size_t)size), err);
}

static int print_words(struct lk_kv *kv, struct lk_bytes prefix, struct lk_err *err) {
    unsigned char end[256];
    size_t end_size;
    struct lk_kv_txn *txn;
    struct lk_kv_cursor *cursor;
    lk_kv_prefix_end(prefix, end, &end_size);
    int code = lk_kv_begin(kv, false, &txn, err); /* a snapshot: others go on counting */
    if (code != 0) return code;
    code = lk_kv_cursor_open(txn, prefix, lk_bytes(end, end_size), &cursor, err);
    if (code == 0) {
        for (code = lk_kv_cursor_first(cursor, err); code == 0; code = lk_kv_cursor_next(cursor, err)) {
            struct lk_bytes key = lk_kv_cursor_key(cursor), value = lk_kv_cursor_value(cursor);
            printf("%.*s %.*s\n", (int)key.size, (const char *)key.data, (int)value.size, (const char *)value.data);
        }
        lk_kv_cursor_close(cursor);
    }
    lk_kv_abort(txn);
    return code == LK_ENOTFOUND ? 0 : code; /* the end */
}

int main(int argc, char **argv) {
    struct lk_err err;
    struct lk_kv *kv;
    char word[200];
    if (argc != 3 || strlen(argv[2]) > 256) return fprintf(stderr, "usage: kv URL PREFIX\n"), 2;
    int code = lk_kv_open(argv[1], LK_CREATE, &kv, &err);
    if (code != 0) return fprintf(stderr, "kv: %s\n", err.message), 1;
    while (code == 0 && scanf("%199s", word) == 1) code = lk_kv_update(kv, count_word, word, LK_LAZY, NULL, &err);
    if (code == 0) code = print_words(kv, lk_bytes(argv[2], strlen(argv[2])), &err);
    lk_kv_close(kv);
    if (code != 0) fprintf(stderr, "kv: %s\n", err.message);
    return code != 0;
}
