/* States that are read, snapshots of them, iterators over them. */
#include "store/leveldb/db.h"

/* --- states ---------------------------------------------------------------------------------------------- */

/* What a program gets where there is no memory for more. */
static struct leveldb_snapshot_t no_memory = {.why = {LK_ENOMEM, "out of memory for a snapshot"}};

struct leveldb_snapshot_t *lk__leveldb_state(leveldb_t *db) {
    struct leveldb_snapshot_t *s = lk_calloc(1, sizeof *s);
    if (!s) return &no_memory;
    s->db = db;
    s->references = 1;
    pthread_mutex_init(&s->lock, NULL);
    if (lk_kv_begin(db->kv, false, &s->txn, &s->why) == 0) atomic_fetch_add(&db->references, 1);
    return s;
}
void lk__leveldb_state_release(struct leveldb_snapshot_t *s) {
    if (s == &no_memory || atomic_fetch_sub(&s->references, 1) > 1) return;
    leveldb_t *db = s->txn ? s->db : NULL;
    lk_kv_abort(s->txn);
    pthread_mutex_destroy(&s->lock);
    lk_free(s);
    lk__leveldb_release(db);
}

const leveldb_snapshot_t *leveldb_create_snapshot(leveldb_t *db) {
    return lk__leveldb_state(db);
}
void leveldb_release_snapshot(leveldb_t *db, const leveldb_snapshot_t *snapshot) {
    (void)db;
    lk__leveldb_state_release((struct leveldb_snapshot_t *)(uintptr_t)snapshot);
}

/* --- iterators ------------------------------------------------------------------------------------------- */

struct leveldb_iterator_t {
    struct leveldb_snapshot_t *state;
    bool shared;                 /* with a snapshot: others may use the transaction */
    struct lk_kv_cursor *cursor; /* NULL: it could not be had */
    bool valid;
    struct lk_err err; /* of the last move, or of all of them */
};
static leveldb_iterator_t no_iterator = {.state = &no_memory, .err = {LK_ENOMEM, "out of memory for an iterator"}};

static void enter(const leveldb_iterator_t *it) {
    if (it->shared) pthread_mutex_lock(&it->state->lock);
}
static void leave(const leveldb_iterator_t *it) {
    if (it->shared) pthread_mutex_unlock(&it->state->lock);
}

leveldb_iterator_t *leveldb_create_iterator(leveldb_t *db, const leveldb_readoptions_t *o) {
    leveldb_iterator_t *it = lk_calloc(1, sizeof *it);
    if (!it) return &no_iterator;
    it->shared = o->snapshot && o->snapshot != &no_memory;
    it->state = o->snapshot ? (struct leveldb_snapshot_t *)(uintptr_t)o->snapshot : lk__leveldb_state(db);
    if (it->shared) atomic_fetch_add(&it->state->references, 1);
    enter(it);
    if (!it->state->txn)
        it->err = it->state->why;
    else
        lk__leveldb_cursor(it->state->txn, &it->cursor, &it->err);
    leave(it);
    return it;
}

void leveldb_iter_destroy(leveldb_iterator_t *it) {
    if (it == &no_iterator) return;
    enter(it);
    lk_kv_cursor_close(it->cursor);
    leave(it);
    lk__leveldb_state_release(it->state);
    lk_free(it);
}

uint8_t leveldb_iter_valid(const leveldb_iterator_t *it) {
    return it->valid;
}

/* The end of a move. */
static void arrive(leveldb_iterator_t *it, int code) {
    it->valid = code == 0;
    if (code == 0 || code == LK_ENOTFOUND) it->err.code = 0;
}

void leveldb_iter_seek_to_first(leveldb_iterator_t *it) {
    if (!it->cursor) return;
    enter(it);
    arrive(it, lk_kv_cursor_first(it->cursor, &it->err));
    leave(it);
}
void leveldb_iter_seek_to_last(leveldb_iterator_t *it) {
    if (!it->cursor) return;
    enter(it);
    arrive(it, lk_kv_cursor_last(it->cursor, &it->err));
    leave(it);
}
void leveldb_iter_seek(leveldb_iterator_t *it, const char *k, size_t klen) {
    if (!it->cursor) return;
    enter(it);
    int code = lk__leveldb_check_order(it->state->db, it->state->txn, k, klen, &it->err);
    arrive(it, code ? code : lk__leveldb_seek(it->cursor, k, klen, &it->err));
    leave(it);
}
void leveldb_iter_next(leveldb_iterator_t *it) {
    if (!it->valid) return;
    enter(it);
    arrive(it, lk_kv_cursor_next(it->cursor, &it->err));
    leave(it);
}
void leveldb_iter_prev(leveldb_iterator_t *it) {
    if (!it->valid) return;
    enter(it);
    arrive(it, lk_kv_cursor_previous(it->cursor, &it->err));
    leave(it);
}

const char *leveldb_iter_key(const leveldb_iterator_t *it, size_t *klen) {
    struct lk_bytes row = it->valid ? lk_kv_cursor_key(it->cursor) : lk_bytes(NULL, 1);
    *klen = row.size - 1;
    return row.data ? (const char *)row.data + 1 : NULL;
}
const char *leveldb_iter_value(const leveldb_iterator_t *it, size_t *vlen) {
    struct lk_bytes value = it->valid ? lk_kv_cursor_value(it->cursor) : lk_bytes(NULL, 0);
    *vlen = value.size;
    return value.data;
}
void leveldb_iter_get_error(const leveldb_iterator_t *it, char **errptr) {
    if (it->err.code != 0) lk__leveldb_fail(errptr, &it->err);
}
