/* Batches: writes one behind the other, as they are carried out. */
#include "store/leveldb/db.h"

leveldb_writebatch_t *leveldb_writebatch_create(void) {
    return lk_calloc(1, sizeof(leveldb_writebatch_t));
}
void leveldb_writebatch_destroy(leveldb_writebatch_t *b) {
    if (!b) return;
    lk_buf_release(&b->writes);
    lk_free(b);
}
void leveldb_writebatch_clear(leveldb_writebatch_t *b) {
    b->writes.size = 0;
    b->incomplete = false;
}

static void add(leveldb_writebatch_t *b, bool is_delete, struct lk_bytes key, struct lk_bytes value) {
    static const char first[] = {LK__LEVELDB_ROW};
    struct lk__leveldb_write w;
    memset(&w, 0, sizeof w); /* its padding too */
    w.key_size = key.size + 1;
    w.value_size = value.size;
    w.is_delete = is_delete;
    if (lk_buf_reserve(&b->writes, sizeof w + w.key_size + w.value_size) != 0) {
        b->incomplete = true;
        return;
    }
    lk_buf_append(&b->writes, &w, sizeof w);
    lk_buf_append(&b->writes, first, 1);
    lk_buf_append(&b->writes, key.data, key.size);
    lk_buf_append(&b->writes, value.data, value.size);
}
void leveldb_writebatch_put(leveldb_writebatch_t *b, const char *key, size_t klen, const char *val, size_t vlen) {
    add(b, false, lk_bytes(key, klen), lk_bytes(val, vlen));
}
void leveldb_writebatch_delete(leveldb_writebatch_t *b, const char *key, size_t klen) {
    add(b, true, lk_bytes(key, klen), lk_bytes(NULL, 0));
}

void leveldb_writebatch_iterate(const leveldb_writebatch_t *b, void *state,
                                void (*put)(void *, const char *k, size_t klen, const char *v, size_t vlen),
                                void (*deleted)(void *, const char *k, size_t klen)) {
    for (size_t at = 0; at < b->writes.size;) {
        struct lk__leveldb_write w;
        memcpy(&w, b->writes.data + at, sizeof w);
        const char *key = b->writes.data + at + sizeof w + 1;
        if (w.is_delete)
            deleted(state, key, w.key_size - 1);
        else
            put(state, key, w.key_size - 1, key + w.key_size - 1, w.value_size);
        at += sizeof w + w.key_size + w.value_size;
    }
}

void leveldb_writebatch_append(leveldb_writebatch_t *to, const leveldb_writebatch_t *from) {
    size_t size = from->writes.size; /* which may be the same batch */
    to->incomplete |= from->incomplete || lk_buf_reserve(&to->writes, size) != 0;
    if (!to->incomplete) lk_buf_append(&to->writes, from->writes.data, size);
}
