#include "store/blob/blob_engine.h"
#include <string.h>
#include <sys/mman.h>

int lk_blobs_open(const char *dir, struct lk_blobs **out, struct lk_err *err) {
    *out = NULL;
    if (!*dir) return lk_fail(err, LK_EINVAL, "the directory for blobs has no name");
    if (strstr(dir, "://"))
        return lk_fail(err, LK_EUNSUPPORTED, "no engine of this build keeps blobs at \"%.200s\"; it has directories", dir);
    return lk__blobs_dir_open(dir, out, err);
}

void lk_blobs_close(struct lk_blobs *b) {
    if (b) b->ops->close(b);
}

int lk_blob_create(struct lk_blobs *b, struct lk_blob_writer **out, struct lk_err *err) {
    *out = NULL;
    return b->ops->create(b, out, err);
}
int lk_blob_write(struct lk_blob_writer *w, const void *data, size_t size, struct lk_err *err) {
    return w->blobs->ops->write(w, data, size, err);
}
int lk_blob_finish(struct lk_blob_writer *w, struct lk_root *out, struct lk_err *err) {
    return w->blobs->ops->finish(w, out, err);
}
void lk_blob_abort(struct lk_blob_writer *w) {
    if (w) w->blobs->ops->abort(w);
}

int lk_blob_put(struct lk_blobs *b, const void *data, size_t size, struct lk_root *out, struct lk_err *err) {
    struct lk_blob_writer *w;
    int rc = lk_blob_create(b, &w, err);
    if (rc != 0) return rc;
    rc = lk_blob_write(w, data, size, err);
    if (rc == 0) return lk_blob_finish(w, out, err);
    lk_blob_abort(w);
    return rc;
}

int lk_blob_open(struct lk_blobs *b, const struct lk_root *root, bool verify, struct lk_blob *out, struct lk_err *err) {
    *out = (struct lk_blob){0};
    return b->ops->open(b, root, verify, out, err);
}

/* Whatever the engine, a blob in memory is a map. */
void lk_blob_close(struct lk_blob *blob) {
    if (blob->size) munmap((void *)(uintptr_t)blob->data, blob->size);
    *blob = (struct lk_blob){0};
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
