/* Counting what a store holds: rows by kind, blobs, what of them is needed, leases. */
#include "store/census.h"
#include "store/kv/kv_engine.h"
#include "store/marks.h"
#include "store/opening.h"
#include <dirent.h>
#include <errno.h>
#include <string.h>

bool lk__store_is_of_place(struct lk_bytes key) {
    static const char *const own[] = {"r/lease/", "r/sweep/", "u/"};
    if (key.size == sizeof LK__STORE_FORMAT_KEY - 1 && memcmp(key.data, LK__STORE_FORMAT_KEY, key.size) == 0) return true;
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (key.size > strlen(own[i]) && memcmp(key.data, own[i], strlen(own[i])) == 0) return true;
    return false;
}

void lk__store_digest_row(struct lk_digest *d, struct lk_bytes key, struct lk_bytes value) {
    unsigned char sizes[12];
    for (int i = 0; i < 4; i++) sizes[i] = (unsigned char)(key.size >> 8 * i);
    for (int i = 0; i < 8; i++) sizes[4 + i] = (unsigned char)((uint64_t)value.size >> 8 * i);
    lk_digest_update(d, sizes, sizeof sizes);
    lk_digest_update(d, key.data, key.size);
    lk_digest_update(d, value.data, value.size);
}

/* --- rows and blobs -------------------------------------------------------------------------------------- */

struct counting {
    struct lk_census *out;
    lk_row_kinds kinds;
    struct lk_digest *digest;
};

static int count_row(void *arg, struct lk_bytes key, struct lk_bytes value) {
    struct counting *c = arg;
    struct lk_census *out = c->out;
    const struct lk_row_kind *kind = lk_row_kind_of(c->kinds, key);
    size_t i = 0;
    while (i < out->kind_count && out->kinds[i].kind != kind) i++;
    LK_ASSERT(i < LK_CENSUS_KINDS);
    if (i == out->kind_count) out->kinds[out->kind_count++].kind = kind;
    out->kinds[i].rows++, out->rows++;
    out->kinds[i].bytes += key.size + value.size, out->row_bytes += key.size + value.size;
    if (!lk__store_is_of_place(key)) lk__store_digest_row(c->digest, key, value);
    return 0;
}

static int count_rows(struct lk_store *s, struct counting *c, struct lk_err *err) {
    struct lk_kv_txn *txn;
    int code = lk_kv_begin(s->kv, false, &txn, err);
    if (code) return code;
    c->digest = lk_digest_create();
    code = c->digest ? lk_kv_scan(txn, lk_bytes("", 0), lk_bytes("", 0), count_row, c, err)
                     : lk_fail(err, LK_ENOMEM, "no memory to count the rows of %s", s->url);
    if (!code) lk_digest_final(c->digest, &c->out->rows_root);
    lk_digest_free(c->digest);
    lk_kv_abort(txn);
    return code;
}

static int count_blob(void *arg, const struct lk_root *root, uint64_t size, int64_t modified_ms) {
    struct lk_census *out = arg;
    (void)root, (void)modified_ms;
    out->blobs++, out->blob_bytes += size;
    return 0;
}
static void count_reached(void *arg, const struct lk_gc_blob *b) {
    struct lk_census *out = arg;
    if (b->holder) out->reached++, out->reached_bytes += b->size_bytes;
}

int lk_store_census(struct lk_store *s, lk_row_kinds kinds, struct lk_census *out, struct lk_err *err) {
    struct lk_gc_result unused;
    *out = (struct lk_census){0};
    int code = count_rows(s, &(struct counting){.out = out, .kinds = kinds}, err);
    if (!code) code = lk_blobs_list(s->blobs, -1, count_blob, out, err);
    if (code) return code;
    struct lk_gc_options o = {.dry_run = true, .tell = count_reached, .arg = out};
    code = lk_store_gc(s, kinds, &o, &unused, &out->why);
    out->reach_known = code == 0;
    static const char gc_says[] = LK__STORE_UNKNOWN ": "; /* here nothing was to be removed */
    if (strncmp(out->why.message, gc_says, sizeof gc_says - 1) == 0 && code)
        memmove(out->why.message, out->why.message + sizeof gc_says - 1, strlen(out->why.message) - sizeof gc_says + 2);
    if (code == LK_ECORRUPT || code == LK_EUNSUPPORTED) return LK_OK;
    return code ? lk_fail(err, code, "%s", out->why.message) : LK_OK;
}

/* --- leases ---------------------------------------------------------------------------------------------- */

struct listing {
    struct lk_store *store;
    lk_lease_fn *fn;
    void *arg;
};

static int look_at(const struct listing *l, const char *kind, const char *name, struct lk_err *err) {
    struct lk_lease_state state;
    int code = lk_lease_look(l->store, kind, name, &state, err);
    return code || !state.held ? code : l->fn(l->arg, kind, name, &state);
}

/* The names of rows r/lease/KIND/NAME, each ended by a zero: looking at one begins a transaction of its own. */
static int note_lease(void *arg, struct lk_bytes key, struct lk_bytes value) {
    const size_t prefix = sizeof "r/lease/" - 1;
    (void)value;
    return lk_buf_append(arg, (const char *)key.data + prefix, key.size - prefix) || lk_buf_append(arg, "", 1) ? LK_ENOMEM
                                                                                                               : 0;
}
static int list_rows(const struct listing *l, struct lk_err *err) {
    struct lk_buf names = LK_BUF_INIT;
    struct lk_kv_txn *txn;
    int code = lk_kv_begin(l->store->kv, false, &txn, err);
    if (code) return code;
    code = lk_kv_scan(txn, lk_bytes("r/lease/", 8), lk_bytes("r/lease0", 8), note_lease, &names, err);
    lk_kv_abort(txn);
    if (code == LK_ENOMEM) lk_fail(err, code, "no memory for the leases of %s", l->store->url);
    for (size_t i = 0; i < names.size && !code; i += strlen(names.data + i) + 1) {
        char kind[256];
        const char *slash = strchr(names.data + i, '/');
        if (!slash || (size_t)snprintf(kind, sizeof kind, "%.*s", (int)(slash - names.data - i), names.data + i) >= 256)
            continue;
        code = look_at(l, kind, slash + 1, err);
    }
    lk_buf_release(&names);
    return code;
}

/* DIR/locks/RUN.lock and DIR/locks/KIND/NAME.lock; kind NULL: both. */
static int list_locks(const struct listing *l, const char *kind, struct lk_err *err) {
    char path[4096];
    int code = 0;
    snprintf(path, sizeof path, "%s/locks%s%s", l->store->dir, kind ? "/" : "", kind ? kind : "");
    DIR *d = opendir(path);
    if (!d && (errno == ENOENT || (kind && errno == ENOTDIR))) return LK_OK;
    if (!d) return lk_fail_errno(err, "cannot read the folder %s", path);
    for (struct dirent *e; !code && (e = readdir(d));) {
        size_t n = strlen(e->d_name);
        char name[256];
        if (*e->d_name == '.') continue;
        if (n > 5 && n < sizeof name && strcmp(e->d_name + n - 5, ".lock") == 0) {
            snprintf(name, sizeof name, "%.*s", (int)(n - 5), e->d_name);
            code = look_at(l, kind ? kind : "run", name, err);
        } else if (!kind && lk_name_valid(e->d_name))
            code = list_locks(l, e->d_name, err);
    }
    closedir(d);
    return code;
}

int lk_lease_list(struct lk_store *store, lk_lease_fn *fn, void *arg, struct lk_err *err) {
    struct listing l = {store, fn, arg};
    return store->kv->ops->now ? list_rows(&l, err) : list_locks(&l, NULL, err);
}
