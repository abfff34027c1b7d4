/* Mark and sweep. Marks start from every row of the store: 64 hexadecimal digits in a JSON row, or 32 raw bytes in the rows
 * of names and checkpoints. A marked blob that is a JSON manifest marks what it names. Anything young is kept: a writer may
 * be about to name it. */
#include "lockstep/lab/lab.h"

#include "lockstep/base/progress.h"
#include <stdlib.h>
#include <string.h>

struct marks {
    struct lk_store *store;
    struct lk_root *list; /* in order of discovery; the first `done` have been looked into */
    size_t count, done, capacity;
    uint32_t *slots; /* open addressing, index + 1 */
    size_t slot_count;
    int code;
    struct lk_err *err;
};
#define UNKNOWN "nothing was removed, since what is still needed is not known"

static size_t slot_of(const struct marks *m, const struct lk_root *root) {
    uint64_t h;
    memcpy(&h, root->bytes, 8);
    size_t i = h & (m->slot_count - 1);
    while (m->slots[i] && !lk_root_equal(&m->list[m->slots[i] - 1], root)) i = (i + 1) & (m->slot_count - 1);
    return i;
}

static int grow(struct marks *m) {
    size_t more = m->capacity ? 2 * m->capacity : 256;
    struct lk_root *list = lk_realloc(m->list, more * sizeof *list);
    uint32_t *slots = lk_calloc(4 * more, sizeof *slots);
    if (list) m->list = list;
    if (!list || !slots) {
        lk_free(slots);
        return m->code = LK_ENOMEM;
    }
    lk_free(m->slots);
    m->slots = slots;
    m->capacity = more;
    m->slot_count = 4 * more;
    for (size_t i = 0; i < m->count; i++) m->slots[slot_of(m, &m->list[i])] = (uint32_t)i + 1;
    return LK_OK;
}

static void mark(struct marks *m, const struct lk_root *root) {
    if (m->count == m->capacity && grow(m)) return;
    size_t slot = slot_of(m, root);
    if (m->slots[slot]) return;
    m->list[m->count++] = *root;
    m->slots[slot] = (uint32_t)m->count;
}

/* Every run of exactly 64 hexadecimal digits. */
static void mark_text(struct marks *m, const char *text, size_t size) {
    for (size_t i = 0; i < size;) {
        size_t n = 0;
        while (i + n < size && ((text[i + n] >= '0' && text[i + n] <= '9') || (text[i + n] >= 'a' && text[i + n] <= 'f')))
            n++;
        if (n == 64) {
            char hex[LK_ROOT_HEX];
            struct lk_root root;
            memcpy(hex, text + i, 64);
            hex[64] = 0;
            if (lk_root_parse(hex, &root)) mark(m, &root);
        }
        i += n ? n : 1;
    }
}

/* A row that can't be read may have named what must stay. A run's rows go with the run, a name can be given anew. */
static int check_row(struct marks *m, struct lk_bytes key, struct lk_bytes value) {
    const char *k = key.data, kind = key.size > 2 && k[1] == '/' ? k[0] : 0;
    int n = (int)key.size - 2;
    if (kind == 'r') {
        struct lk_err why;
        json_t *record = lk_json_parse(value.data, value.size, "its record", &why);
        bool whole = json_is_object(record);
        if (!record && why.code == LK_ENOMEM) return m->code = LK_ENOMEM;
        if (record && !whole) lk_fail(&why, LK_ECORRUPT, "its record is JSON, but no object");
        json_decref(record);
        if (whole) return LK_OK;
        const char *name = memchr(k + 2, '/', (size_t)n); /* behind the kind */
        int rest = name ? (int)(k + key.size - ++name) : 0;
        if (!name) name = "";
        return lk_fail(m->err, LK_ECORRUPT,
                       UNKNOWN
                       ": the row %.*s is damaged, %s; restore the store from a copy, or remove what is left of it: "
                       "`lockstep runs rm %.*s`",
                       (int)key.size, k, why.message, rest, name);
    }
    if (kind == 'c' && value.size != 65)
        return lk_fail(m->err, LK_ECORRUPT,
                       UNKNOWN ": the row of a checkpoint of run %.*s is damaged; restore the store from a copy, or remove "
                               "the run: `lockstep runs rm %.*s`",
                       n > 5 ? n - 5 : 0, k + 2, n > 5 ? n - 5 : 0, k + 2);
    if (kind == 'n' && value.size != sizeof(struct lk_root))
        return lk_fail(m->err, LK_ECORRUPT,
                       UNKNOWN
                       ": the row of the name %.*s has %zu bytes, not 32; restore the store from a copy, or give the "
                       "name anew",
                       n, k + 2, value.size);
    return LK_OK;
}

static int mark_row(void *arg, struct lk_bytes key, struct lk_bytes value) {
    struct marks *m = arg;
    const char *k = key.data, *v = value.data;
    struct lk_root root;
    int code = check_row(m, key, value);
    if (code) return code;
    if (key.size > 2 && k[0] == 'h' && k[1] == '/') return m->code; /* what a name once pointed at needs no content */
    if (key.size > 2 && k[0] == 'c' && k[1] == '/') { /* a checkpoint: its state root counts while it is kept */
        if (v[64] != 1) return m->code;
        memcpy(root.bytes, v, 32);
        mark(m, &root);
    } else if (value.size == sizeof root.bytes) {
        memcpy(root.bytes, v, 32);
        mark(m, &root);
    } else
        mark_text(m, v, value.size);
    return m->code;
}

/* A blob that is not there names nothing; one that can't be read now may name what must stay. */
static int mark_children(struct marks *m, struct lk_err *err) {
    for (; m->done < m->count && !m->code; m->done++) {
        struct lk_blob blob;
        struct lk_root root = m->list[m->done];
        int code = lk_blob_open(m->store->blobs, &root, false, &blob, err);
        if (code == LK_ENOTFOUND) continue;
        if (code) return lk_fail_prefix(err, code, UNKNOWN);
        bool manifest = blob.size && blob.data[0] == '{';
        lk_blob_close(&blob);
        if (!manifest) continue;
        /* a flipped digit would name another blob and give the right one away: only whole manifests are believed */
        if ((code = lk_blob_open(m->store->blobs, &root, true, &blob, err))) return lk_fail_prefix(err, code, UNKNOWN);
        mark_text(m, (const char *)blob.data, blob.size);
        lk_blob_close(&blob);
    }
    return LK_OK;
}

struct sweep {
    struct marks *marks;
    int64_t before_ms;
    bool dry_run;
    struct lk_gc_result *result;
    struct lk_err *err;
};
static int sweep_one(void *arg, const struct lk_root *root, uint64_t size, int64_t modified_ms) {
    struct sweep *s = arg;
    if (modified_ms > s->before_ms || (s->marks->slot_count && s->marks->slots[slot_of(s->marks, root)])) {
        s->result->kept++;
        s->result->kept_bytes += size;
        return 0;
    }
    int code = s->dry_run ? LK_OK : lk_blob_delete(s->marks->store->blobs, root, s->err);
    if (code == LK_ENOTFOUND) return 0; /* another gc or a run's own pruning was faster */
    if (code) return code;
    s->result->blobs++;
    s->result->bytes += size;
    return 0;
}

int lk_gc(struct lk_store *store, int64_t grace_ms, bool dry_run, struct lk_gc_result *out, struct lk_err *err) {
    struct marks m = {.store = store, .err = err};
    struct lk_kv_txn *t;
    memset(out, 0, sizeof *out);
    int64_t before = lk_clock_wall_ms() - grace_ms;
    int code = lk_kv_begin(store->kv, false, &t, err);
    if (code) return code;
    code = lk_kv_scan(t, lk_bytes("", 0), lk_bytes("", 0), mark_row, &m, err);
    lk_kv_abort(t);
    if (!code) code = mark_children(&m, err);
    if (m.code) code = lk_fail(err, m.code, "no memory to collect garbage");
    struct sweep s = {&m, before, dry_run, out, err};
    if (!code) code = lk_blobs_list(store->blobs, dry_run ? -1 : grace_ms, sweep_one, &s, err);
    lk_free(m.list);
    lk_free(m.slots);
    return code;
}
