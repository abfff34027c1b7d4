/* Marks start from the rows, as their kinds say; a marked blob that is a manifest marks what it names. */
#include "store/marks.h"
#include "lockstep/base/mem.h"
#include <stdio.h>
#include <string.h>

static size_t slot_of(const struct lk__store_marks *m, const struct lk_root *root) {
    uint64_t h;
    memcpy(&h, root->bytes, 8);
    size_t i = h & (m->slot_count - 1);
    while (m->slots[i] && !lk_root_equal(&m->list[m->slots[i] - 1], root)) i = (i + 1) & (m->slot_count - 1);
    return i;
}
bool lk__store_marks_has(const struct lk__store_marks *m, const struct lk_root *root) {
    return m->slot_count && m->slots[slot_of(m, root)];
}

static int grow(struct lk__store_marks *m) {
    size_t more = m->capacity ? 2 * m->capacity : 256;
    struct lk_root *list = lk_realloc(m->list, more * sizeof *list);
    if (list) m->list = list;
    uint32_t *holder = lk_realloc(m->holder, more * sizeof *holder), *slots = lk_calloc(4 * more, sizeof *slots);
    if (holder) m->holder = holder;
    if (!list || !holder || !slots) {
        lk_free(slots);
        return LK_ENOMEM;
    }
    lk_free(m->slots);
    m->slots = slots;
    m->capacity = more;
    m->slot_count = 4 * more;
    for (size_t i = 0; i < m->count; i++) m->slots[slot_of(m, &m->list[i])] = (uint32_t)i + 1;
    return LK_OK;
}
static int mark(void *arg, const struct lk_root *root) {
    struct lk__store_marks *m = arg;
    if (m->count == m->capacity && grow(m)) return LK_ENOMEM;
    size_t slot = slot_of(m, root);
    if (m->slots[slot]) return LK_OK;
    m->list[m->count] = *root;
    m->holder[m->count++] = m->row;
    m->slots[slot] = (uint32_t)m->count;
    return LK_OK;
}
void lk__store_marks_release(struct lk__store_marks *m) {
    lk_free(m->list);
    lk_free(m->holder);
    lk_free(m->slots);
    lk_buf_release(&m->texts);
    lk_buf_release(&m->absent);
}
static int no_memory(int code, struct lk_err *err) {
    return code == LK_ENOMEM ? lk_fail(err, code, "no memory for the list of blobs that rows need") : code;
}
int lk__store_marks_add(struct lk__store_marks *m, const struct lk_root *root, struct lk_err *err) {
    return no_memory(mark(m, root), err);
}
const char *lk__store_marks_holder(const struct lk__store_marks *m, const struct lk_root *root) {
    return m->texts.data + m->holder[m->slots[slot_of(m, root)] - 1];
}

/* --- Rows ------------------------------------------------------------------------------------------------ */

static int explain(struct lk__store_marks *m, const struct lk_row_kind *kind, struct lk_bytes key, struct lk_bytes value) {
    m->row = (uint32_t)m->texts.size;
    int code = kind->print ? kind->print(key, value, &m->texts) : lk_buf_append(&m->texts, key.data, key.size);
    return code ? code : lk_buf_append(&m->texts, "", 1);
}
/* The key as text that `lockstep kv` takes: \\ and \xNN for what is not printable. */
static const char *shown(struct lk_bytes key, char out[80]) {
    size_t n = 0, i = 0;
    for (; i < key.size && n < 72; i++) {
        unsigned char c = ((const unsigned char *)key.data)[i];
        if (c < 0x20 || c >= 0x7f) {
            n += (size_t)snprintf(out + n, 80 - n, "\\x%02x", c);
        } else {
            if (c == '\\') out[n++] = '\\';
            out[n++] = (char)c;
        }
    }
    snprintf(out + n, 80 - n, "%s", i < key.size ? "..." : "");
    return out;
}
static const char *beginning(const struct lk__store_marks *m) {
    return m->failed ? m->failed : LK__STORE_UNKNOWN;
}
static int unknown_row(const struct lk__store_marks *m, struct lk_bytes key, struct lk_err *err) {
    char text[80];
    return lk_fail(
        err, LK_EUNSUPPORTED,
        "%s: the row \"%s\" is of no kind that this program knows; keys of your own begin with user/, so if it is "
        "yours, put it there and remove this one (`lockstep kv del`), else use the release that wrote it",
        beginning(m), shown(key, text));
}

int lk__store_marks_rows(struct lk__store_marks *m, struct lk_kv_txn *txn, struct lk_err *err) {
    struct lk_kv_cursor *c;
    unsigned char behind[64];
    int code = lk_kv_cursor_open(txn, lk_bytes("", 0), lk_bytes("", 0), &c, err);
    if (code) return code;
    code = lk_kv_cursor_first(c, err);
    while (!code) {
        struct lk_bytes key = lk_kv_cursor_key(c), value = lk_kv_cursor_value(c);
        const struct lk_row_kind *kind = lk_row_kind_of(m->kinds, key);
        if (!kind) {
            code = unknown_row(m, key, err);
            break;
        }
        if (kind->holds && !(m->content && kind->aside)) {
            bool skipped = m->skips && m->skips(m->arg, key, value);
            if (m->explains && !skipped) code = explain(m, kind, key, value);
            if (!code && !skipped) code = kind->holds(key, value, mark, m, err);
            if (code == LK_ECORRUPT) code = lk_fail_prefix(err, code, "%s", beginning(m));
            if (!code) code = lk_kv_cursor_next(c, err);
        } else if (kind->whole)
            code = lk_kv_cursor_next(c, err);
        else {
            size_t size = strlen(kind->prefix);
            LK_ASSERT(size <= sizeof behind && lk_kv_prefix_end(lk_bytes(kind->prefix, size), behind, &size));
            code = lk_kv_cursor_seek(c, lk_bytes(behind, size), err);
        }
    }
    lk_kv_cursor_close(c);
    return code == LK_ENOTFOUND ? LK_OK : no_memory(code, err);
}

/* A blob that is not there names nothing yet; one that can't be read now may name what must stay. */
static int look_into(struct lk__store_marks *m, uint32_t index, struct lk_buf *absent, struct lk_err *err) {
    struct lk_blob blob;
    struct lk_root root = m->list[index];
    m->row = m->holder[index];
    char first = 0;
    size_t got;
    int code = lk_blob_peek(m->store->blobs, &root, &first, 1, &got, err);
    if (code == LK_ENOTFOUND) return no_memory(lk_buf_append(absent, &index, sizeof index), err);
    if (code) return lk_fail_prefix(err, code, "%s", beginning(m));
    if (!got || first != '{') return LK_OK;
    /* a flipped digit would name another blob and give the right one away: only whole manifests are believed */
    if ((code = lk_blob_open(m->store->blobs, &root, true, &blob, err)))
        return lk_fail_prefix(err, code, "%s", beginning(m));
    code = lk_row_tell_hex((const char *)blob.data, blob.size, mark, m);
    lk_blob_close(&blob);
    return no_memory(code, err);
}
int lk__store_marks_children(struct lk__store_marks *m, struct lk_err *err) {
    struct lk_buf before = m->absent;
    int code = LK_OK;
    m->absent = (struct lk_buf)LK_BUF_INIT;
    for (size_t i = 0; i < before.size && !code; i += sizeof(uint32_t)) {
        uint32_t index;
        memcpy(&index, before.data + i, sizeof index);
        code = look_into(m, index, &m->absent, err);
    }
    lk_buf_release(&before);
    for (; m->done < m->count && !code; m->done += !code) code = look_into(m, (uint32_t)m->done, &m->absent, err);
    return code;
}

int lk__store_marks_snapshot(struct lk__store_marks *m, struct lk_err *err) {
    struct lk_kv_txn *txn;
    int code = lk_kv_begin(m->store->kv, false, &txn, err);
    if (code) return code;
    code = lk__store_marks_rows(m, txn, err);
    lk_kv_abort(txn);
    return code;
}
