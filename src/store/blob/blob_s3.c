/* Blobs in a bucket of an S3-compatible server. A writer collects its blob in the cache, as only its root gives the object
 * its name, and sends it when it is finished; a reader maps the cache's file. */
#include "lockstep/base/mem.h"
#include "store/blob/blob_dir.h"
#include "store/blob/s3.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SCHEME      "s3://"
#define PATIENCE_S  60
#define PREFIX_MOST 512

struct writer {
    struct lk_blob_writer base;
    struct lk_blob_writer *file; /* into the cache */
};

/* --- opening ---------------------------------------------------------------------------------------------------------- */

static bool is_bucket(const char *name, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!((name[i] >= 'a' && name[i] <= 'z') || (name[i] >= '0' && name[i] <= '9') ||
              (i && (name[i] == '-' || name[i] == '.'))))
            return false;
    return n >= 3 && n <= 63;
}

/* Plain words between single slashes, so that it means one thing to every server. */
static bool is_prefix(const char *text, size_t n) {
    if (n > PREFIX_MOST) return false;
    for (size_t i = 0, word = 0; i <= n; i++) {
        if (i < n && text[i] != '/') {
            if (!((text[i] >= 'a' && text[i] <= 'z') || (text[i] >= 'A' && text[i] <= 'Z') ||
                  (text[i] >= '0' && text[i] <= '9') || strchr("-_.=+~", text[i])))
                return false;
            continue;
        }
        size_t size = i - word;
        if (size == 0 || (text[word] == '.' && (size == 1 || (size == 2 && text[word + 1] == '.')))) return false;
        word = i + 1;
    }
    return true;
}

static int read_url(struct lk__blob_s3 *s, const char *url, struct lk_err *err) {
    const char *bucket = url + strlen(SCHEME);
    size_t n = strcspn(bucket, "/");
    const char *prefix = bucket[n] ? bucket + n + 1 : bucket + n;
    size_t size = strlen(prefix);
    if (size && prefix[size - 1] == '/') size--;
    if (!is_bucket(bucket, n) || (size && !is_prefix(prefix, size)))
        return lk_fail(
            err, LK_EINVAL,
            "\"%.200s\" names no place for blobs: s3://BUCKET/PREFIX is wanted, the bucket of 3 to 63 a-z 0-9 - ., the "
            "prefix of words of A-Z a-z 0-9 . _ - + = ~ between slashes",
            strchr(url, '@') ? SCHEME "..." : url);
    s->bucket = lk_strndup(bucket, n);
    s->prefix = size ? lk_asprintf("%.*s/", (int)size, prefix) : lk_strdup("");
    s->url = lk_asprintf(SCHEME "%.*s%s%.*s", (int)n, bucket, size ? "/" : "", (int)size, prefix);
    return s->bucket && s->prefix && s->url ? 0 : lk_fail(err, LK_ENOMEM, "out of memory opening %.200s", url);
}

static int read_environment(struct lk__blob_s3 *s, struct lk_err *err) {
    const char *patience = getenv("LOCKSTEP_S3_PATIENCE"), *etag = getenv("LOCKSTEP_S3_ETAG");
    double seconds = PATIENCE_S;
    char *end = NULL;
    if (patience && *patience) {
        seconds = strtod(patience, &end);
        if (*end || !(seconds >= 0.01 && seconds <= 86400))
            return lk_fail(err, LK_EINVAL, "LOCKSTEP_S3_PATIENCE=%.40s is no time in seconds, 0.01 to 86400", patience);
    }
    s->patience_ms = (uint32_t)(seconds * 1000);
    s->any_etag = etag && strcmp(etag, "any") == 0;
    if (etag && *etag && !s->any_etag) return lk_fail(err, LK_EINVAL, "LOCKSTEP_S3_ETAG may be any, or not be set");
    return 0;
}

static void s3_close(struct lk_blobs *b) {
    struct lk__blob_s3 *s = (struct lk__blob_s3 *)b;
    lk_http_client_close(s->client);
    lk__blob_cache_close(s->cache);
    lk_aws_release(&s->aws);
    pthread_mutex_destroy(&s->mutex);
    lk_free(s->url);
    lk_free(s->bucket);
    lk_free(s->prefix);
    lk_free(s->server);
    lk_free(s->host);
    lk_free(s);
}

/* A place is a bucket of a server: what another server has is not there. */
static int open_cache(struct lk__blob_s3 *s, struct lk_err *err) {
    const char *first = getenv("AWS_ENDPOINT_URL_S3"), *second = getenv("AWS_ENDPOINT_URL");
    char *place = lk_asprintf("%s %s", first && *first ? first : second ? second : "", s->url);
    int code =
        place ? lk__blob_cache_open(place, &s->cache, err) : lk_fail(err, LK_ENOMEM, "out of memory opening %s", s->url);
    lk_free(place);
    return code;
}

/* Nobody is asked anything: the bucket is looked for with the first blob. */
int lk__blobs_s3_open(const char *url, enum lk_access how, struct lk_blobs **out, struct lk_err *err) {
    struct lk__blob_s3 *s = lk_calloc(1, sizeof *s);
    (void)how; /* whether it may be written is the server's to say */
    if (!s) return lk_fail(err, LK_ENOMEM, "out of memory opening %.200s", url);
    s->base.ops = &lk__blobs_s3;
    pthread_mutex_init(&s->mutex, NULL);
    int code = read_url(s, url, err);
    if (code == 0) code = read_environment(s, err);
    if (code == 0) code = open_cache(s, err);
    if (code == 0)
        *out = &s->base;
    else
        s3_close(&s->base);
    return code;
}

/* --- writing ------------------------------------------------------------------------------------------------------------
 */

static struct lk_blobs *directory_of(struct lk_blobs *b) {
    return lk__blob_cache_dir(((struct lk__blob_s3 *)b)->cache);
}

/* `file` is a writer into the cache that was just opened. */
static int wrap(struct lk_blobs *b, struct lk_blob_writer *file, struct lk_blob_writer **out, struct lk_err *err) {
    struct writer *w = lk_alloc(sizeof *w);
    if (!w) {
        lk_blob_abort(file);
        return lk_fail(err, LK_ENOMEM, "out of memory for a blob's writer");
    }
    *w = (struct writer){.base = *file, .file = file};
    w->base.blobs = b;
    *out = &w->base;
    return 0;
}

static int s3_create(struct lk_blobs *b, struct lk_blob_writer **out, struct lk_err *err) {
    struct lk_blob_writer *file;
    int code = lk_blob_create(directory_of(b), &file, err);
    return code ? code : wrap(b, file, out, err);
}

static int s3_write(struct lk_blob_writer *w, const void *data, size_t size, struct lk_err *err) {
    return lk_blob_write(((struct writer *)w)->file, data, size, err);
}

/* From the cache, where it is and fits its root, to the server. code: of the writer into the cache. */
static int send(struct writer *w, int code, const struct lk_root *root, struct lk_root *out, struct lk_err *err) {
    struct lk__blob_s3 *s = (struct lk__blob_s3 *)w->base.blobs;
    struct lk_blob blob;
    bool fits = !w->base.sized; /* leaves that others hashed are trusted, and looked at when it is read */
    lk_free(w);
    if (code) return code;
    code = lk_blob_open(lk__blob_cache_dir(s->cache), root, false, &blob, err);
    if (code) return code;
    lk__blob_cache_added(s->cache, root, fits);
    code = lk__blob_before_put(&s->base, root, err);
    if (code == 0) code = lk__blob_s3_upload(s, &blob, err);
    lk_blob_close(&blob);
    if (code == 0) *out = *root;
    return code;
}

static int s3_finish(struct lk_blob_writer *base, struct lk_root *out, struct lk_err *err) {
    struct writer *w = (struct writer *)base;
    struct lk_root root;
    int code = lk_blob_finish(w->file, &root, err);
    return send(w, code, &root, out, err);
}

static void s3_abort(struct lk_blob_writer *base) {
    struct writer *w = (struct writer *)base;
    lk_blob_abort(w->file);
    lk_free(w);
}

static char *s3_path(struct lk_blobs *b, const struct lk_root *root, char *out) {
    char name[LK__BLOB_S3_NAME_BYTES];
    snprintf(out, 4096, "%s/%s", ((struct lk__blob_s3 *)b)->url, lk__blob_s3_name(root, name));
    return out;
}

/* --- one blob by several processes
 * ----------------------------------------------------------------------------------------- */

/* They share a machine and its cache: the object's name is known when all have written, and S3 wants it before. */
static int sized_create(struct lk_blobs *b, uint64_t size, struct lk_blob_writer **out, struct lk_err *err) {
    struct lk_blob_writer *file;
    int code = lk_blob_create_sized(directory_of(b), size, &file, err);
    return code ? code : wrap(b, file, out, err);
}

static int sized_join(struct lk_blobs *b, const char *name, uint64_t size, struct lk_blob_writer **out,
                      struct lk_err *err) {
    struct lk_blob_writer *file;
    int code = lk_blob_join(directory_of(b), name, size, &file, err);
    if (code == LK_ENOTFOUND)
        return lk_fail(err, LK_EUNSUPPORTED,
                       "the blob %.140s is not in this process's cache: processes that write one blob to %s must be of one "
                       "machine and share LOCKSTEP_CACHE",
                       name, ((struct lk__blob_s3 *)b)->url);
    return code ? code : wrap(b, file, out, err);
}

static const struct lk_blob_writer *file_of(const struct lk_blob_writer *w) {
    return ((const struct writer *)w)->file;
}
static const char *sized_name(const struct lk_blob_writer *w) {
    return lk__blobs_dir_sized.name(file_of(w));
}
static int sized_write_at(struct lk_blob_writer *w, uint64_t at, const void *data, size_t size, struct lk_err *err) {
    return lk_blob_write_at(((struct writer *)w)->file, at, data, size, err);
}
static int sized_sync(struct lk_blob_writer *w, struct lk_err *err) {
    return lk_blob_sync(((struct writer *)w)->file, err);
}
static int sized_leaves(struct lk_blob_writer *w, size_t first, size_t count, struct lk_root *leaves, struct lk_err *err) {
    return lk_blob_leaves(((struct writer *)w)->file, first, count, leaves, err);
}
static int sized_finish(struct lk_blob_writer *base, const struct lk_root *leaves, struct lk_root *out,
                        struct lk_err *err) {
    struct writer *w = (struct writer *)base;
    struct lk_root root;
    int code = lk_blob_finish_leaves(w->file, leaves, &root, err);
    return send(w, code, &root, out, err);
}

static const struct lk_sized_ops sized = {
    .create = sized_create,
    .join = sized_join,
    .name = sized_name,
    .write_at = sized_write_at,
    .sync = sized_sync,
    .leaves = sized_leaves,
    .finish = sized_finish,
    .abort = s3_abort,
};

const struct lk_blobs_ops lk__blobs_s3 = {
    .name = "S3",
    .close = s3_close,
    .create = s3_create,
    .write = s3_write,
    .finish = s3_finish,
    .abort = s3_abort,
    .open = lk__blob_s3_open,
    .peek = lk__blob_s3_peek,
    .exists = lk__blob_s3_exists,
    .modified = lk__blob_s3_modified,
    .remove = lk__blob_s3_remove,
    .path = s3_path,
    .list = lk__blob_s3_list,
    .sized = &sized,
};
