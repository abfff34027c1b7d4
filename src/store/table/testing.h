/* What the tests of tables share: a store in any engine, cells as text. */
#ifndef LK_TABLE_TESTING_H
#define LK_TABLE_TESTING_H
#include "lockstep/store/table.h"
#include "store/kv/testing.h"

/* A kv as a store without blobs. */
static inline struct lk_store store_of(struct lk_kv *kv) {
    return (struct lk_store){.kv = kv};
}
static inline struct lk_table *table_of(struct lk_store *s, const char *name) {
    struct lk_table *t = NULL;
    OK(lk_table_open(s, name, &t, &test_err));
    return t;
}
static inline void make_table(struct lk_store *s, const char *name, const char *const *families) {
    struct lk_table_family f[8] = {{0}};
    size_t n = 0;
    for (; families[2 * n]; n++) f[n] = (struct lk_table_family){families[2 * n], families[2 * n + 1], false};
    OK(lk_table_create(s, name, f, n, &test_err));
}
static inline struct lk_mutation set_cell(const char *family, const char *qualifier, int64_t us, const char *value) {
    return (struct lk_mutation){
        .kind = LK_SET_CELL, .family = family, .qualifier = S(qualifier), .timestamp_us = us, .value = S(value)};
}

/* "row family:qualifier@us=value;" for each cell; bytes that are no printing characters as \xx. */
static inline void text_bytes(struct lk_buf *b, struct lk_bytes t) {
    for (size_t i = 0; i < t.size; i++) {
        unsigned char c = ((const unsigned char *)t.data)[i];
        OK(c > ' ' && c < 127 ? lk_buf_append(b, &c, 1) : lk_buf_printf(b, "\\%02x", c));
    }
}
static inline int text_cell(void *arg, const struct lk_cell *c) {
    struct lk_buf *b = arg;
    text_bytes(b, c->row);
    OK(lk_buf_printf(b, " %s:", c->family));
    text_bytes(b, c->qualifier);
    OK(lk_buf_printf(b, "@%lld=", (long long)c->timestamp_us));
    text_bytes(b, c->value);
    OK(lk_buf_printf(b, "%s%s;", c->label ? "#" : "", c->label ? c->label : ""));
    return 0;
}
/* The caller frees it. */
static inline char *text_of(struct lk_table *t, struct lk_kv_txn *txn, const struct lk_table_read *read) {
    struct lk_buf b = LK_BUF_INIT;
    struct lk_table_sink sink = {text_cell, NULL, &b};
    OK(lk_buf_append(&b, "", 0));
    OK(lk_table_read(t, txn, read, &sink, NULL, &test_err));
    return b.data ? b.data : lk_strdup("");
}
static inline void reads(struct lk_table *t, struct lk_kv *kv, const struct lk_table_read *read, const char *expected) {
    struct lk_kv_txn *txn = begin(kv, false);
    char *text = text_of(t, txn, read);
    assert_string_equal(text, expected);
    lk_free(text);
    lk_kv_abort(txn);
}

#endif
