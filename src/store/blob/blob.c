#include "store/blob/blob_engine.h"
#include <string.h>
#include <sys/mman.h>

/* skip: bytes of the scheme that the engine does not want to see. */
static const struct {
    const char *scheme;
    size_t skip;
    int (*open)(const char *, enum lk_access, struct lk_blobs **, struct lk_err *);
} engines[] = {{"s3://", 0, lk__blobs_s3_open}, {"file:", 5, lk__blobs_dir_open}, {"", 0, lk__blobs_dir_open}};

int lk_blobs_open(const char *url, enum lk_access access, struct lk_blobs **out, struct lk_err *err) {
    size_t i = 0;
    *out = NULL;
    while (strncmp(url, engines[i].scheme, strlen(engines[i].scheme)) != 0) i++;
    const char *place = url + engines[i].skip;
    if (!*place) return lk_fail(err, LK_EINVAL, "the directory for blobs has no name");
    if (engines[i].open == lk__blobs_dir_open && strstr(place, "://"))
        return lk_fail(err, LK_EUNSUPPORTED,
                       "no engine of this build keeps blobs at \"%.*s...\"; it has directories and s3://BUCKET/PREFIX",
                       (int)(strstr(place, "://") - place) + 3, place);
    return engines[i].open(place, access, out, err);
}

void lk_blobs_close(struct lk_blobs *b) {
    if (b) b->ops->close(b);
}

int lk_blob_create(struct lk_blobs *b, struct lk_blob_writer **out, struct lk_err *err) {
    *out = NULL;
    return b->ops->create(b, out, err);
}
void lk_blobs_use_threads(struct lk_blobs *b, int threads) {
    LK_ASSERT(threads >= 0);
    b->threads = threads;
}
void lk_blob_past_cache(struct lk_blob_writer *w) {
    LK_ASSERT(!w->sized);
    if (w->blobs->ops->past_cache) w->blobs->ops->past_cache(w);
}
int lk_blob_write(struct lk_blob_writer *w, const void *data, size_t size, struct lk_err *err) {
    LK_ASSERT(!w->sized);
    return w->blobs->ops->write(w, data, size, err);
}
int lk_blob_finish(struct lk_blob_writer *w, struct lk_root *out, struct lk_err *err) {
    LK_ASSERT(!w->sized);
    return w->blobs->ops->finish(w, out, err);
}
void lk_blob_abort(struct lk_blob_writer *w) {
    if (!w) return;
    const struct lk_blobs_ops *ops = w->blobs->ops;
    (w->sized ? ops->sized->abort : ops->abort)(w);
}

int lk_blob_put(struct lk_blobs *b, const void *data, size_t size, struct lk_root *out, struct lk_err *err) {
    struct lk_blob_writer *w;
    int code = lk_blob_create(b, &w, err);
    if (code != 0) return code;
    code = lk_blob_write(w, data, size, err);
    if (code == 0) return lk_blob_finish(w, out, err);
    lk_blob_abort(w);
    return code;
}

/* --- one blob by several processes ------------------------------------------------------------------------ */

static int check_sized(struct lk_blobs *b, uint64_t size, struct lk_err *err) {
    if (!b->ops->sized)
        return lk_fail(err, LK_EUNSUPPORTED, "%s: several processes cannot write one blob there", b->ops->name);
    if (size <= INT64_MAX) return 0;
    return lk_fail(err, LK_EINVAL, "a blob of %llu bytes; at most %lld are possible", (unsigned long long)size,
                   (long long)INT64_MAX);
}

int lk_blob_create_sized(struct lk_blobs *b, uint64_t size, struct lk_blob_writer **out, struct lk_err *err) {
    *out = NULL;
    int code = check_sized(b, size, err);
    return code == 0 ? b->ops->sized->create(b, size, out, err) : code;
}

void lk_blob_writer_name(const struct lk_blob_writer *w, char name[LK_BLOB_NAME_MAX]) {
    LK_ASSERT(w->sized);
    const char *from = w->blobs->ops->sized->name(w);
    size_t length = strlen(from);
    LK_ASSERT(length < LK_BLOB_NAME_MAX);
    memcpy(name, from, length + 1);
}

/* The name comes from another process: it must not lead out of the store, nor to what is no temporary. */
static bool name_is_plain(const char *name) {
    size_t n = strnlen(name, LK_BLOB_NAME_MAX);
    if (n == 0 || n == LK_BLOB_NAME_MAX || *name == '.') return false;
    for (size_t i = 0; i < n; i++)
        if (name[i] <= ' ' || name[i] > '~' || name[i] == '/') return false;
    return true;
}

int lk_blob_join(struct lk_blobs *b, const char *name, uint64_t size, struct lk_blob_writer **out, struct lk_err *err) {
    *out = NULL;
    int code = check_sized(b, size, err);
    if (code != 0) return code;
    if (!name_is_plain(name))
        return lk_fail(err, LK_EINVAL, "\"%.160s\" is not the name of a blob that is being written", name);
    return b->ops->sized->join(b, name, size, out, err);
}

int lk_blob_write_at(struct lk_blob_writer *w, uint64_t offset, const void *data, size_t size, struct lk_err *err) {
    LK_ASSERT(w->sized);
    if (offset > w->size || size > w->size - offset)
        return lk_fail(err, LK_EINVAL, "%zu bytes at %llu do not fit in the blob %s of %llu bytes", size,
                       (unsigned long long)offset, w->blobs->ops->sized->name(w), (unsigned long long)w->size);
    return size ? w->blobs->ops->sized->write_at(w, offset, data, size, err) : 0;
}

int lk_blob_sync(struct lk_blob_writer *w, struct lk_err *err) {
    LK_ASSERT(w->sized);
    return w->blobs->ops->sized->sync(w, err);
}

int lk_blob_leaves(struct lk_blob_writer *w, size_t first, size_t count, struct lk_root *leaves, struct lk_err *err) {
    LK_ASSERT(w->sized);
    uint64_t all = lk_leaf_count(w->size);
    if (first > all || count > all - first)
        return lk_fail(err, LK_EINVAL, "%zu leaves from leaf %zu; the blob %s has %llu", count, first,
                       w->blobs->ops->sized->name(w), (unsigned long long)all);
    return count ? w->blobs->ops->sized->leaves(w, first, count, leaves, err) : 0;
}

int lk_blob_finish_leaves(struct lk_blob_writer *w, const struct lk_root *leaves, struct lk_root *out, struct lk_err *err) {
    LK_ASSERT(w->sized && w->creator);
    return w->blobs->ops->sized->finish(w, leaves, out, err);
}

/* --- reading ---------------------------------------------------------------------------------------------- */

int lk_blob_open(struct lk_blobs *b, const struct lk_root *root, bool verify, struct lk_blob *out, struct lk_err *err) {
    *out = (struct lk_blob){0};
    return b->ops->open(b, root, verify, out, err);
}

int lk_blob_peek(struct lk_blobs *b, const struct lk_root *root, void *out, size_t size, size_t *got, struct lk_err *err) {
    *got = 0;
    return b->ops->peek(b, root, out, size, got, err);
}

/* Whatever the engine, a blob in memory is a map. */
void lk_blob_close(struct lk_blob *blob) {
    if (blob->size) munmap((void *)(uintptr_t)blob->data, blob->size);
    *blob = (struct lk_blob){0};
}

int lk_blob_modified(struct lk_blobs *b, const struct lk_root *root, int64_t *out_ms, struct lk_err *err) {
    return b->ops->modified(b, root, out_ms, err);
}
bool lk_blob_exists(struct lk_blobs *b, const struct lk_root *root) {
    return b->ops->exists(b, root);
}
int lk_blob_delete(struct lk_blobs *b, const struct lk_root *root, struct lk_err *err) {
    return b->ops->remove(b, root, err);
}
char *lk_blob_path(struct lk_blobs *b, const struct lk_root *root, char *out) {
    return b->ops->path(b, root, out);
}
int lk_blobs_list(struct lk_blobs *b, int64_t keep_tmp_ms, lk_blob_list_fn *fn, void *arg, struct lk_err *err) {
    return b->ops->list(b, keep_tmp_ms, fn, arg, err);
}
