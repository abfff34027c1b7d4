/* Notes: what a program keeps beside a table's cells, in the same transactions, and what goes with the table. */
#include "lockstep/base/mem.h"
#include "store/table/schema.h"
#include <string.h>

static int key_of(struct lk_table *t, struct lk_kv_txn *txn, const char *name, struct lk_buf *key, struct lk_err *err) {
    struct lk__table_schema *s;
    size_t size = strlen(name);
    if (size < 1 || size > LK_TABLE_NOTE_MAX)
        return lk_fail(err, LK_EINVAL, "a note's name of %zu bytes: it has 1 to %d", size, LK_TABLE_NOTE_MAX);
    int code = lk__table_schema(t, txn, &s, err);
    if (code == 0) code = lk__table_key_begin(key, s->id, LK__NOTES, err);
    if (code == 0 && lk_buf_append(key, name, size) != 0) code = lk_fail(err, LK_ENOMEM, "out of memory for a note");
    lk__table_schema_unref(s);
    return code;
}

int lk_table_note_get(struct lk_table *t, struct lk_kv_txn *txn, const char *name, struct lk_buf *out, struct lk_err *err) {
    struct lk_buf key = LK_BUF_INIT;
    struct lk_bytes value = {0};
    int code = key_of(t, txn, name, &key, err);
    if (code == 0) code = lk_kv_get(txn, lk_bytes(key.data, key.size), &value, err);
    if (code == LK_ENOTFOUND && key.size) code = lk_fail(err, code, "the table %s has no note \"%s\"", t->name, name);
    if (code == 0 && lk_buf_append(out, value.data, value.size) != 0)
        code = lk_fail(err, LK_ENOMEM, "out of memory for a note of %zu bytes", value.size);
    lk_buf_release(&key);
    return code;
}

int lk_table_note_put(struct lk_table *t, struct lk_kv_txn *txn, const char *name, struct lk_bytes note,
                      struct lk_err *err) {
    struct lk_buf key = LK_BUF_INIT;
    int code = key_of(t, txn, name, &key, err);
    struct lk_bytes k = lk_bytes(key.data, key.size);
    if (code == 0) code = note.data ? lk_kv_put(txn, k, note, err) : lk_kv_delete(txn, k, err);
    lk_buf_release(&key);
    return code;
}
