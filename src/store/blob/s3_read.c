/* Reading: ranges of an object side by side into a file of the cache, hashed as they come. */
#include "base/syscalls.h"
#include "lockstep/base/mem.h"
#include "lockstep/base/progress.h"
#include "store/blob/s3.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define RANGE LK__BLOB_S3_PART_BYTES

_Static_assert(RANGE % (2 * LK_LEAF_BYTES) == 0, "leaves are hashed in pairs");

/* One range of an object on its way into the file. */
struct range {
    struct lk__blob_s3_ask ask;
    struct lk__blob_s3_try try;
    char header[64], name[LK__BLOB_S3_NAME_BYTES];
    int fd, failed;                    /* failed: errno of a write */
    uint64_t offset, want, got, total; /* want: 0 in the first range, whose size nobody knows; total: of the object */
};

static void range_again(void *arg) {
    ((struct range *)arg)->got = 0;
}

/* On the client's thread. More than was asked for ends the call. */
static int range_take(void *arg, const void *data, size_t size) {
    struct range *r = arg;
    uint64_t most = r->want ? r->want : RANGE;
    if (size > most - r->got) return -1;
    if (lk__pwrite_all(r->fd, data, size, (off_t)(r->offset + r->got)) != 0) return r->failed = errno ? errno : EIO, -1;
    r->got += size;
    return 0;
}

/* "bytes 0-99/1234" */
static bool parse_range(const char *text, uint64_t *from, uint64_t *to, uint64_t *total) {
    int end = 0;
    return text && sscanf(text, "bytes %" SCNu64 "-%" SCNu64 "/%" SCNu64 "%n", from, to, total, &end) == 3 && !text[end];
}

static const char *range_problem(void *arg, struct lk_http_call *call) {
    struct range *r = arg;
    uint64_t from = 0, to = 0;
    if (lk_http_call_status(call) == 206) {
        if (!parse_range(lk_http_call_header(call, "Content-Range"), &from, &to, &r->total))
            return "it has no Content-Range";
    } else { /* all of it */
        r->total = r->got;
        to = r->got - 1;
    }
    if (from != r->offset || to < from || to - from + 1 != r->got || to >= r->total) return "it is another range";
    if (r->total > LK__BLOB_S3_SIZE_MOST) return "it claims a size that S3 does not have";
    if (r->want ? r->got != r->want : r->got != r->total && r->got != RANGE) return "it is another size";
    return NULL;
}

static void range_start(struct range *r, struct lk__blob_s3 *s, const struct lk_root *root, int fd, uint64_t offset,
                        uint64_t want) {
    *r = (struct range){.fd = fd, .offset = offset, .want = want};
    snprintf(r->header, sizeof r->header, "Range: bytes=%" PRIu64 "-%" PRIu64, offset, offset + (want ? want : RANGE) - 1);
    r->ask = (struct lk__blob_s3_ask){.method = "GET",
                                      .key = lk__blob_s3_name(root, r->name),
                                      .headers = {r->header},
                                      .take = range_take,
                                      .arg = r,
                                      .again = range_again,
                                      .problem = range_problem};
    lk__blob_s3_start(&r->try, s, &r->ask);
}

/* *empty: the object has no bytes, so that no range of it can be had. */
static int range_wait(struct range *r, bool *empty, struct lk_err *err) {
    int status = 0, code = lk__blob_s3_wait(&r->try, &status, err);
    *empty = false;
    if (code == LK_EIO && r->failed) {
        errno = r->failed;
        return lk_fail_errno(err, "cannot write a blob from %s to the cache", r->try.s3->url);
    }
    if (code) return code;
    if (status == 200 || status == 206) return 0;
    const char *whole = status == 416 ? lk_http_call_header(r->try.call, "Content-Range") : NULL;
    if ((*empty = whole && strcmp(whole, "bytes */0") == 0)) return 0;
    if (status == 416 && !r->want) return *empty = true, 0; /* not every server says how large it is */
    code = lk__blob_s3_unexpected(&r->try, status, err);
    if (status != 404 || code == LK_ENOTFOUND) return code; /* that: no bucket */
    err->message[0] = 0;
    return LK_ENOTFOUND;
}

/* --- a whole object ------------------------------------------------------------------------------------------------- */

struct download {
    struct lk__blob_s3 *s3;
    struct lk__blob_fetch fetch;
    struct range *ranges; /* (TOGETHER) */
    uint64_t size, asked;
    struct lk_root *leaves;
    unsigned char *map;
};

/* The next range that nobody asked for yet. */
static void ask_next(struct download *d, struct range *r) {
    uint64_t left = d->size - d->asked, n = left < RANGE ? left : RANGE;
    if (!n) return;
    range_start(r, d->s3, &d->fetch.root, d->fetch.fd, d->asked, n);
    d->asked += n;
}

/* Ranges are awaited in order and hashed while those behind them come. */
static int get_rest(struct download *d, struct lk_err *err) {
    int code = 0, at = 0;
    for (int i = 0; i < LK__BLOB_S3_TOGETHER; i++) ask_next(d, &d->ranges[i]);
    for (uint64_t done = RANGE; done < d->size && code == 0; at = (at + 1) % LK__BLOB_S3_TOGETHER) {
        struct range *r = &d->ranges[at];
        uint64_t n = r->want;
        bool empty;
        code = range_wait(r, &empty, err);
        if (code == 0 && (empty || r->total != d->size))
            code = lk_fail(err, LK_ECORRUPT, "%s/%s changed its size while it was read", d->s3->url, r->name);
        lk__blob_s3_end(&r->try);
        if (code == 0) ask_next(d, r);
        if (code == 0) lk_leaf_hashes(d->map + done, (size_t)n, &d->leaves[done / LK_LEAF_BYTES]);
        done += n;
    }
    for (int i = 0; i < LK__BLOB_S3_TOGETHER; i++) lk__blob_s3_end(&d->ranges[i].try);
    return code;
}

static int map_and_get(struct download *d, struct lk_root *found, struct lk_err *err) {
    uint64_t count = lk_leaf_count(d->size);
    int code = lk__blob_cache_reserve(d->s3->cache, &d->fetch, d->size, err);
    if (code) return code;
    if (d->size) {
        void *map = mmap(NULL, (size_t)d->size, PROT_READ, MAP_SHARED, d->fetch.fd, 0);
        if (map == MAP_FAILED) return lk_fail_errno(err, "cannot map a blob of %" PRIu64 " bytes", d->size);
        d->map = map;
    }
    d->leaves = lk_alloc((size_t)count * sizeof *d->leaves);
    if (!d->leaves) return lk_fail(err, LK_ENOMEM, "out of memory for a blob of %" PRIu64 " bytes", d->size);
    d->asked = d->size < RANGE ? d->size : RANGE;
    if (d->size) lk_leaf_hashes(d->map, (size_t)d->asked, d->leaves);
    if (d->size > RANGE) code = get_rest(d, err);
    if (code == 0) lk_root_of_leaves(d->leaves, (size_t)count, d->size, found);
    return code;
}

/* The first range tells the size. */
static int get_all(struct download *d, struct lk_root *found, struct lk_err *err) {
    struct range *first = &d->ranges[0];
    bool empty = false;
    range_start(first, d->s3, &d->fetch.root, d->fetch.fd, 0, 0);
    int code = range_wait(first, &empty, err);
    d->size = code || empty ? 0 : first->total;
    lk__blob_s3_end(&first->try);
    return code ? code : map_and_get(d, found, err);
}

static int download(struct lk__blob_s3 *s, struct lk__blob_fetch *fetch, struct lk_err *err) {
    struct download d = {.s3 = s, .fetch = *fetch, .ranges = lk_calloc(LK__BLOB_S3_TOGETHER, sizeof *d.ranges)};
    struct lk_root found;
    char hex[LK_ROOT_HEX], name[LK__BLOB_S3_NAME_BYTES], wrong[LK_ROOT_HEX];
    int code = d.ranges ? get_all(&d, &found, err) : lk_fail(err, LK_ENOMEM, "out of memory reading from %s", s->url);
    if (code == LK_ENOTFOUND && err && !err->message[0])
        lk_fail(err, code, "the blob %s is not in %s (there is no object %s%s)", lk_root_hex(&fetch->root, hex), s->url,
                s->prefix, lk__blob_s3_name(&fetch->root, name));
    if (code == 0 && !lk_root_equal(&found, &fetch->root))
        code =
            lk_fail(err, LK_ECORRUPT,
                    "the blob %s in %s is damaged: the %" PRIu64 " bytes of %s%s have the root %s; restore that object or "
                    "make the blob again",
                    lk_root_hex(&fetch->root, hex), s->url, d.size, s->prefix, lk__blob_s3_name(&fetch->root, name),
                    lk_root_hex(&found, wrong));
    if (d.map) munmap(d.map, (size_t)d.size);
    lk_free(d.leaves);
    lk_free(d.ranges);
    return code;
}

int lk__blob_s3_open(struct lk_blobs *b, const struct lk_root *root, bool verify, struct lk_blob *out, struct lk_err *err) {
    struct lk__blob_s3 *s = (struct lk__blob_s3 *)b;
    struct lk__blob_fetch fetch;
    lk__blob_cache_dir(s->cache)->threads = b->threads;
    int code = lk__blob_cache_get(s->cache, root, verify, out, err);
    if (code != LK_ENOTFOUND) return code;
    code = lk__blob_cache_fetch(s->cache, root, &fetch, err);
    if (code) return code;
    if (fetch.fd >= 0) {
        struct lk_err why = {0};
        code = download(s, &fetch, &why);
        int put = lk__blob_cache_fetched(s->cache, &fetch, code == 0, err);
        code = code ? lk_fail(err, code, "%s", why.message) : put;
    }
    return code ? code : lk__blob_cache_get(s->cache, root, false, out, err);
}

/* A range that stays in memory. */
int lk__blob_s3_peek(struct lk_blobs *b, const struct lk_root *root, void *out, size_t size, size_t *got,
                     struct lk_err *err) {
    struct lk__blob_s3 *s = (struct lk__blob_s3 *)b;
    const struct lk_blobs_ops *cached = lk__blob_cache_dir(s->cache)->ops;
    if (cached->peek(lk__blob_cache_dir(s->cache), root, out, size, got, NULL) == 0) return 0;
    char name[LK__BLOB_S3_NAME_BYTES], hex[LK_ROOT_HEX], header[64];
    snprintf(header, sizeof header, "Range: bytes=0-%zu", size ? size - 1 : 0);
    struct lk__blob_s3_ask ask = {.method = "GET", .key = lk__blob_s3_name(root, name), .headers = {header}};
    struct lk__blob_s3_try t;
    int status = 0, code = lk__blob_s3_do(&t, s, &ask, &status, err);
    if (code == 0 && (status == 206 || status == 200)) {
        struct lk_bytes body = lk_http_call_body(t.call);
        *got = body.size < size ? body.size : size;
        memcpy(out, body.data, *got);
    } else if (code == 0 && status != 416) { /* that: it is empty */
        code = lk__blob_s3_unexpected(&t, status, err);
        if (status == 404 && code != LK_ENOTFOUND)
            code = lk_fail(err, LK_ENOTFOUND, "the blob %s is not in %s", lk_root_hex(root, hex), s->url);
    }
    lk__blob_s3_end(&t);
    return code;
}

/* --- one object --------------------------------------------------------------------------------------------------- */

int lk__blob_s3_look(struct lk__blob_s3 *s, const struct lk_root *root, struct lk__blob_s3_object *out,
                     struct lk_err *err) {
    char name[LK__BLOB_S3_NAME_BYTES], hex[LK_ROOT_HEX];
    struct lk__blob_s3_ask ask = {.method = "HEAD", .key = lk__blob_s3_name(root, name)};
    struct lk__blob_s3_try t;
    int status = 0, code = lk__blob_s3_do(&t, s, &ask, &status, err);
    *out = (struct lk__blob_s3_object){0};
    if (code == 0 && status == 404)
        code = lk_fail(err, LK_ENOTFOUND, "the blob %s is not in %s", lk_root_hex(root, hex), s->url);
    else if (code == 0 && status != 200)
        code = lk__blob_s3_unexpected(&t, status, err);
    if (code == 0) {
        const char *size = lk_http_call_header(t.call, "Content-Length"), *etag = lk_http_call_header(t.call, "ETag");
        out->modified_ms = lk__blob_s3_time(lk_http_call_header(t.call, "Last-Modified"));
        if (etag) snprintf(out->etag, sizeof out->etag, "%s", etag);
        if (!size || sscanf(size, "%" SCNu64, &out->size) != 1)
            code = lk_fail(err, LK_EIO, "HEAD %s/%s: the server does not say its size", s->url, name);
    }
    lk__blob_s3_end(&t);
    return code;
}

/* Who asks gets no reason; a server that does not answer is worth a line. */
bool lk__blob_s3_exists(struct lk_blobs *b, const struct lk_root *root) {
    struct lk__blob_s3_object object;
    struct lk_err err = {0};
    int code = lk__blob_s3_look((struct lk__blob_s3 *)b, root, &object, &err);
    if (code && code != LK_ENOTFOUND) lk_log_warn("%s", err.message);
    return code == 0;
}

int lk__blob_s3_modified(struct lk_blobs *b, const struct lk_root *root, int64_t *out_ms, struct lk_err *err) {
    struct lk__blob_s3_object object;
    int code = lk__blob_s3_look((struct lk__blob_s3 *)b, root, &object, err);
    if (!code && object.modified_ms < 0)
        return lk_fail(err, LK_EIO, "the server does not say when a blob was written (Last-Modified)");
    if (!code) *out_ms = object.modified_ms;
    return code;
}

int lk__blob_s3_remove(struct lk_blobs *b, const struct lk_root *root, struct lk_err *err) {
    struct lk__blob_s3 *s = (struct lk__blob_s3 *)b;
    struct lk__blob_s3_object object;
    char name[LK__BLOB_S3_NAME_BYTES];
    lk__blob_cache_remove(s->cache, root);
    int code = lk__blob_s3_look(s, root, &object, err), status = 0;
    if (code) return code;
    struct lk__blob_s3_ask ask = {.method = "DELETE", .key = lk__blob_s3_name(root, name)};
    struct lk__blob_s3_try t;
    code = lk__blob_s3_do(&t, s, &ask, &status, err);
    if (code == 0 && status != 204 && status != 200 && status != 404) code = lk__blob_s3_unexpected(&t, status, err);
    lk__blob_s3_end(&t);
    return code;
}
