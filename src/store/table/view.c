/* Merging the present with what pins keep of the past. */
#include "store/table/view.h"
#include "store/kv/kv_engine.h"
#include <string.h>

#define LATER 8 /* bytes behind a past cell's key: when it was removed */

static enum lk__table_space past_of(enum lk__table_space space) {
    return space == LK__CELLS ? LK__CELLS_PAST : LK__SAMPLES_PAST;
}

static int open_one(struct lk_kv_txn *txn, uint32_t table, enum lk__table_space space, struct lk_buf *scratch,
                    struct lk_kv_cursor **out, struct lk_err *err) {
    char to[LK__KEY_PREFIX];
    int code = lk__table_key_begin(scratch, table, space, err);
    if (code != 0) return code;
    memcpy(to, scratch->data, sizeof to);
    to[LK__KEY_PREFIX - 1]++;
    return lk_kv_cursor_open(txn, lk_bytes(scratch->data, LK__KEY_PREFIX), lk_bytes(to, sizeof to), out, err);
}

int lk__table_view_open(struct lk__table_view *v, struct lk_kv_txn *txn, uint32_t table, enum lk__table_space space,
                        int64_t pinned_ms, struct lk_err *err) {
    *v = (struct lk__table_view){.pinned_ms = pinned_ms, .space = space, .seek = v->seek, .shown = v->shown};
    int code = open_one(txn, table, space, v->seek, &v->now, err);
    if (code == 0 && pinned_ms) code = open_one(txn, table, past_of(space), v->seek, &v->past, err);
    if (code != 0) lk__table_view_close(v);
    return code;
}

void lk__table_view_close(struct lk__table_view *v) {
    lk_kv_cursor_close(v->now);
    lk_kv_cursor_close(v->past);
    *v = (struct lk__table_view){0};
}

/* --- what a pin sees ------------------------------------------------------------------------------------- */

static int move(struct lk_kv_cursor *c, bool back, struct lk_err *err) {
    return back ? lk_kv_cursor_previous(c, err) : lk_kv_cursor_next(c, err);
}

/* From where the last move ended (code), on to a cell that was written before the pin. */
static int settle_now(struct lk__table_view *v, bool back, int code, struct lk_err *err) {
    int64_t since;
    while (code == 0) {
        code = lk__table_value_since(lk_kv_cursor_value(v->now), &since, err);
        if (code == 0 && since < v->pinned_ms) break;
        if (code == 0) code = move(v->now, back, err);
    }
    v->now_on = code == 0;
    return code == LK_ENOTFOUND ? 0 : code;
}
/* Likewise, and was removed after it. */
static int settle_past(struct lk__table_view *v, bool back, int code, struct lk_err *err) {
    int64_t since;
    while (code == 0) {
        struct lk_bytes key = lk_kv_cursor_key(v->past);
        if (key.size < LK__KEY_PREFIX + LATER) return lk_fail(err, LK_ECORRUPT, "a table's past has a row that is none");
        int64_t until = lk__table_read_ascending((const unsigned char *)key.data + key.size - LATER);
        code = lk__table_value_since(lk_kv_cursor_value(v->past), &since, err);
        if (code == 0 && since < v->pinned_ms && v->pinned_ms <= until) break;
        if (code == 0) code = move(v->past, back, err);
    }
    v->past_on = code == 0;
    return code == LK_ENOTFOUND ? 0 : code;
}

static int compare(const struct lk__table_view *v) {
    struct lk_bytes a = lk_kv_cursor_key(v->now), b = lk_kv_cursor_key(v->past);
    size_t n = a.size - LK__KEY_PREFIX, m = b.size - LK__KEY_PREFIX - LATER, least = n < m ? n : m;
    int c = memcmp((const char *)a.data + LK__KEY_PREFIX, (const char *)b.data + LK__KEY_PREFIX, least);
    return c ? c : (n > m) - (n < m);
}

/* Stands on the nearer one of the two. */
static int show(struct lk__table_view *v, bool back, struct lk_err *err) {
    if (!v->now_on && !v->past_on) return LK_ENOTFOUND;
    if (v->now_on && (!v->past_on || (compare(v) < 0) != back)) {
        v->key = lk_kv_cursor_key(v->now);
        v->value = lk_kv_cursor_value(v->now);
        return 0;
    }
    struct lk_bytes key = lk_kv_cursor_key(v->past);
    v->shown->size = 0;
    if (lk_buf_append(v->shown, key.data, key.size - LATER) != 0)
        return lk_fail(err, LK_ENOMEM, "out of memory reading a table");
    v->shown->data[LK__KEY_PREFIX - 1] = (char)v->space;
    v->key = lk_bytes(v->shown->data, v->shown->size);
    v->value = lk_kv_cursor_value(v->past);
    return 0;
}

/* --- moves ----------------------------------------------------------------------------------------------- */

static int stand(struct lk__table_view *v, int code) {
    if (code != 0) return code;
    v->key = lk_kv_cursor_key(v->now);
    v->value = lk_kv_cursor_value(v->now);
    return 0;
}

/* The same key among the past cells. */
static int past_key(struct lk__table_view *v, struct lk_bytes key, struct lk_bytes *out, struct lk_err *err) {
    v->seek->size = 0;
    if (lk_buf_append(v->seek, key.data, key.size) != 0) return lk_fail(err, LK_ENOMEM, "out of memory reading a table");
    char *space = &v->seek->data[LK__KEY_PREFIX - 1]; /* one more: the end of it */
    *space = (char)(*space == (char)v->space ? past_of(v->space) : past_of(v->space) + 1);
    *out = lk_bytes(v->seek->data, v->seek->size);
    return 0;
}

int lk__table_view_seek(struct lk__table_view *v, struct lk_bytes key, struct lk_err *err) {
    struct lk_bytes past;
    if (!v->past) return stand(v, lk_kv_cursor_seek(v->now, key, err));
    int code = past_key(v, key, &past, err);
    if (code == 0) code = settle_now(v, false, lk_kv_cursor_seek(v->now, key, err), err);
    if (code == 0) code = settle_past(v, false, lk_kv_cursor_seek(v->past, past, err), err);
    return code ? code : show(v, false, err);
}

int lk__table_view_next(struct lk__table_view *v, struct lk_err *err) {
    if (!v->past) return stand(v, lk_kv_cursor_next(v->now, err));
    bool of_now = v->now_on && v->key.data == lk_kv_cursor_key(v->now).data;
    int code = of_now ? settle_now(v, false, lk_kv_cursor_next(v->now, err), err)
                      : settle_past(v, false, lk_kv_cursor_next(v->past, err), err);
    return code ? code : show(v, false, err);
}

/* lk_kv_cursor_seek_back finds what is <= key; of keys with an end none is equal to a cell's. */
int lk__table_view_before(struct lk__table_view *v, struct lk_bytes key, struct lk_err *err) {
    struct lk_bytes past;
    if (!v->past) return stand(v, lk_kv_cursor_seek_back(v->now, key, err));
    int code = past_key(v, key, &past, err);
    if (code == 0) code = settle_now(v, true, lk_kv_cursor_seek_back(v->now, key, err), err);
    if (code == 0) code = settle_past(v, true, lk_kv_cursor_seek_back(v->past, past, err), err);
    return code ? code : show(v, true, err);
}
