/* Listing: objects by root, and uploads that nobody finished. */
#include "lockstep/base/mem.h"
#include "lockstep/base/progress.h"
#include "store/blob/s3.h"
#include "store/blob/s3_xml.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ANSWER_BYTES ((size_t)4 << 20) /* 1,000 entries */
#define TOKEN_BYTES  2048
#define EMPTY_PAGES  1000 /* a list without an end is not read for ever */

/* An object or an upload. */
struct entry {
    struct lk_root root;
    uint64_t size;
    int64_t time_ms;
};
struct listing {
    struct lk__blob_s3 *s3;
    struct lk_buf entries;                                /* struct entry */
    char key[LK__BLOB_S3_KEY_BYTES], upload[TOKEN_BYTES]; /* of the element being read */
    uint64_t size;
    int64_t time_ms;
    bool truncated;
    char token[TOKEN_BYTES]; /* where to go on */
    int empty_pages;
    int64_t keep_tmp_ms;
    struct lk_buf uploads; /* key, zero byte, id, zero byte, ... of old ones */
};

static void keep(char *to, size_t room, const char *text, size_t size) {
    if (size >= room || memchr(text, 0, size)) size = 0;
    memcpy(to, text, size);
    to[size] = 0;
}

/* The root of a key of ours; others may lie there and are none of our business. */
static bool root_of(const struct listing *l, struct lk_root *out) {
    size_t n = strlen(l->s3->prefix), size = strlen(l->key);
    return size > n && memcmp(l->key, l->s3->prefix, n) == 0 && lk__blob_s3_parse_name(l->key + n, size - n, out);
}

static int note_object(void *arg, const char *path, const char *text, size_t size) {
    struct listing *l = arg;
    if (strcmp(path, "ListBucketResult/Contents/Key") == 0) {
        keep(l->key, sizeof l->key, text, size);
    } else if (strcmp(path, "ListBucketResult/Contents/Size") == 0) {
        l->size = strtoull(text, NULL, 10);
    } else if (strcmp(path, "ListBucketResult/Contents/LastModified") == 0) {
        l->time_ms = lk__blob_s3_time(text);
    } else if (strcmp(path, "ListBucketResult/IsTruncated") == 0) {
        l->truncated = strcmp(text, "true") == 0;
    } else if (strcmp(path, "ListBucketResult/NextContinuationToken") == 0) {
        keep(l->token, sizeof l->token, text, size);
    } else if (strcmp(path, "ListBucketResult/Contents") == 0) {
        struct entry e = {.size = l->size, .time_ms = l->time_ms};
        bool ours = root_of(l, &e.root);
        /* A time that cannot be read is now: nobody takes the blob for old. */
        if (e.time_ms < 0) e.time_ms = lk_clock_wall_ms();
        l->key[0] = 0, l->size = 0, l->time_ms = -1;
        if (ours) return lk_buf_append(&l->entries, &e, sizeof e);
    }
    return 0;
}

/* Asks for pages until the last. `fields`: the pairs of the query that stay. */
static int read_pages(struct listing *l, struct lk__blob_s3_ask *ask, const char *continued, lk__blob_xml_fn *note,
                      struct lk_err *err) {
    char last[TOKEN_BYTES] = "", what[512];
    size_t fixed = ask->query_count;
    int code = 0;
    snprintf(what, sizeof what, "the list of %.400s", l->s3->url);
    do {
        struct lk__blob_s3_try t;
        int status = 0;
        if (last[0]) {
            ask->query[fixed] = (struct lk_sigv4_pair){continued, last};
            ask->query_count = fixed + 1;
        }
        l->truncated = false;
        l->token[0] = 0;
        size_t before = l->entries.size;
        code = lk__blob_s3_do(&t, l->s3, ask, &status, err);
        if (code == 0 && status != 200) code = lk__blob_s3_unexpected(&t, status, err);
        if (code == 0) {
            struct lk_bytes body = lk_http_call_body(t.call);
            code = lk__blob_xml_read(body.data, body.size, what, note, l, err);
            if (code == LK_ENOMEM) lk_fail(err, code, "out of memory for %s", what);
        }
        lk__blob_s3_end(&t);
        if (l->entries.size == before) l->empty_pages++;
        if (code == 0 && l->truncated && (!l->token[0] || strcmp(l->token, last) == 0 || l->empty_pages > EMPTY_PAGES))
            code = lk_fail(err, LK_ECORRUPT, "%s does not go on: the server says that there is more, and not where", what);
        strcpy(last, l->token);
    } while (code == 0 && l->truncated);
    return code;
}

static int by_root(const void *a, const void *b) {
    return memcmp(&((const struct entry *)a)->root, &((const struct entry *)b)->root, sizeof(struct lk_root));
}

/* --- uploads that nobody finished --------------------------------------------------------------------------------- */

static int note_upload(void *arg, const char *path, const char *text, size_t size) {
    struct listing *l = arg;
    if (strcmp(path, "ListMultipartUploadsResult/Upload/Key") == 0) {
        keep(l->key, sizeof l->key, text, size);
    } else if (strcmp(path, "ListMultipartUploadsResult/Upload/UploadId") == 0) {
        keep(l->upload, sizeof l->upload, text, size);
    } else if (strcmp(path, "ListMultipartUploadsResult/Upload/Initiated") == 0) {
        l->time_ms = lk__blob_s3_time(text);
    } else if (strcmp(path, "ListMultipartUploadsResult/Upload") == 0) {
        struct lk_root root;
        bool old =
            root_of(l, &root) && l->upload[0] && l->time_ms >= 0 && lk_clock_wall_ms() - l->time_ms >= l->keep_tmp_ms;
        int code = old ? lk_buf_append(&l->uploads, l->key, strlen(l->key) + 1) : 0;
        if (old && code == 0) code = lk_buf_append(&l->uploads, l->upload, strlen(l->upload) + 1);
        l->key[0] = l->upload[0] = 0, l->time_ms = -1;
        return code;
    }
    return 0;
}

/* One page of them: what is left comes the next time, as aborted ones are off the list then. */
static int clean_uploads(struct lk__blob_s3 *s, int64_t keep_tmp_ms, struct lk_err *err) {
    struct listing *l = lk_calloc(1, sizeof *l);
    if (!l) return lk_fail(err, LK_ENOMEM, "out of memory listing %s", s->url);
    l->s3 = s, l->keep_tmp_ms = keep_tmp_ms, l->time_ms = -1;
    struct lk__blob_s3_ask ask = {
        .method = "GET", .query = {{"uploads", ""}, {"prefix", s->prefix}}, .query_count = 2, .answer_limit = ANSWER_BYTES};
    struct lk__blob_s3_try t;
    int status = 0, code = lk__blob_s3_do(&t, s, &ask, &status, err);
    if (code == 0 && status == 200) {
        struct lk_bytes body = lk_http_call_body(t.call);
        code = lk__blob_xml_read(body.data, body.size, "the list of uploads", note_upload, l, err);
    } else if (code == 0 && status != 501 && status != 404) /* a server may have no such list */
        code = lk__blob_s3_unexpected(&t, status, err);
    lk__blob_s3_end(&t);
    for (const char *p = l->uploads.data, *end = p ? p + l->uploads.size : NULL; code == 0 && p < end;) {
        const char *id = p + strlen(p) + 1;
        struct lk_root root;
        if (s->base.is_announced && lk__blob_s3_parse_name(p + strlen(s->prefix), strlen(p) - strlen(s->prefix), &root) &&
            s->base.is_announced(s->base.store, &root)) { /* its writer is alive */
            p = id + strlen(id) + 1;
            continue;
        }
        struct lk__blob_s3_ask stop = {
            .method = "DELETE", .key = p + strlen(s->prefix), .query = {{"uploadId", id}}, .query_count = 1};
        code = lk__blob_s3_do(&t, s, &stop, &status, err);
        if (code == 0 && status != 204 && status != 200 && status != 404) code = lk__blob_s3_unexpected(&t, status, err);
        lk__blob_s3_end(&t);
        p = id + strlen(id) + 1;
    }
    lk_buf_release(&l->uploads);
    lk_free(l);
    return code;
}

int lk__blob_s3_list(struct lk_blobs *b, int64_t keep_tmp_ms, lk_blob_list_fn *fn, void *arg, struct lk_err *err) {
    struct lk__blob_s3 *s = (struct lk__blob_s3 *)b;
    int code = keep_tmp_ms >= 0 ? clean_uploads(s, keep_tmp_ms, err) : 0;
    struct listing *l = code ? NULL : lk_calloc(1, sizeof *l);
    if (!l) return code ? code : lk_fail(err, LK_ENOMEM, "out of memory listing %s", s->url);
    l->s3 = s, l->time_ms = -1;
    struct lk__blob_s3_ask ask = {.method = "GET",
                                  .query = {{"list-type", "2"}, {"prefix", s->prefix}},
                                  .query_count = 2,
                                  .answer_limit = ANSWER_BYTES};
    code = read_pages(l, &ask, "continuation-token", note_object, err);
    struct entry *list = (struct entry *)(void *)l->entries.data;
    size_t count = l->entries.size / sizeof *list;
    if (code == 0 && count) qsort(list, count, sizeof *list, by_root);
    for (size_t i = 0; i < count && code == 0; i++) /* a list that changes while it is read may name one twice */
        if (!i || !lk_root_equal(&list[i].root, &list[i - 1].root))
            code = fn(arg, &list[i].root, list[i].size, list[i].time_ms);
    lk_buf_release(&l->entries);
    lk_free(l);
    return code;
}
