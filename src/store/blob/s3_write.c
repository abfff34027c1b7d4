/* Writing: a blob whose root is known, from a map of its file in the cache, so that a part can be sent as often as it
 * takes. */
#include "lockstep/base/mem.h"
#include "lockstep/base/progress.h"
#include "store/blob/s3.h"
#include "store/blob/s3_xml.h"
#include <openssl/evp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ETAG_BYTES   80
#define SUM_BYTES    48 /* SHA-256 in base64 */
#define ID_BYTES     2048
#define UPLOADS_MOST 3      /* of one blob: an upload may be taken away by somebody's cleaning */
#define RENEW_MS     600000 /* a blob that is there and older than this is made young, as if written now */
#define COPY_MOST    ((uint64_t)5 << 30)

/* --- what the server says that it got --------------------------------------------------------------------------------- */

/* A piece of a blob as it is sent: all of it, or a part. */
struct piece {
    struct lk__blob_s3_ask ask;
    struct lk__blob_s3_try try;
    const unsigned char *data;
    size_t size;
    struct lk_root sum;
    char sum_header[80], sum_text[SUM_BYTES], number[16];
    char etag[ETAG_BYTES];
    bool summed; /* the server knows the SHA-256 */
    bool any_etag;
};

static bool md5_of(const void *data, size_t size, char hex[33]) {
    unsigned char md5[EVP_MAX_MD_SIZE];
    unsigned int n = 0;
    if (EVP_Digest(data, size, md5, &n, EVP_md5(), NULL) != 1 || n != 16) return false; /* FIPS has none */
    for (int i = 0; i < 16; i++) snprintf(hex + 2 * i, 3, "%02x", md5[i]);
    return true;
}

/* The 32 digits of "d41d...", or NULL where an ETag is of another kind (several parts: digits-N). */
static const char *md5_in(const char *etag) {
    if (*etag == '"') etag++;
    size_t n = strspn(etag, "0123456789abcdef");
    return n == 32 && (etag[n] == 0 || etag[n] == '"') ? etag : NULL;
}

/* A checksum of SHA-256 where the server has it, else the ETag, which is an MD5 where nothing is encrypted with keys of its
 * own. */
static const char *piece_problem(void *arg, struct lk_http_call *call) {
    struct piece *p = arg;
    const char *sum = lk_http_call_header(call, "x-amz-checksum-sha256"), *etag = lk_http_call_header(call, "ETag");
    const char *locked = lk_http_call_header(call, "x-amz-server-side-encryption");
    char hex[33];
    if (!etag || !*etag || strlen(etag) >= ETAG_BYTES) return "it has no ETag";
    strcpy(p->etag, etag);
    p->summed = sum != NULL;
    if (sum) return strcmp(sum, p->sum_text) == 0 ? NULL : "its SHA-256 is not that of what was sent";
    bool other = p->any_etag || (locked && strcmp(locked, "AES256") != 0) ||
                 lk_http_call_header(call, "x-amz-server-side-encryption-customer-algorithm");
    const char *md5 = other ? NULL : md5_in(etag);
    if (!md5 || !md5_of(p->data, p->size, hex) || memcmp(md5, hex, 32) == 0) return NULL;
    return "its ETag is not the MD5 of what was sent; if this server's ETags are something else, set LOCKSTEP_S3_ETAG=any";
}

static void piece_init(struct piece *p, struct lk__blob_s3 *s, const char *key, const void *data, size_t size) {
    *p = (struct piece){.data = data, .size = size, .any_etag = s->any_etag};
    lk_sha256(data, size, &p->sum);
    EVP_EncodeBlock((unsigned char *)p->sum_text, p->sum.bytes, sizeof p->sum.bytes);
    snprintf(p->sum_header, sizeof p->sum_header, "x-amz-checksum-sha256: %s", p->sum_text);
    p->ask = (struct lk__blob_s3_ask){.method = "PUT",
                                      .key = key,
                                      .headers = {p->sum_header},
                                      .body = data,
                                      .body_size = size,
                                      .payload = &p->sum,
                                      .arg = p,
                                      .problem = piece_problem};
}

/* --- one request --------------------------------------------------------------------------------------------------------
 */

static const char only_new[] = "If-None-Match: *";

/* Whether the server refused a request for its condition. It is not asked so again. */
static bool refused_condition(const struct lk__blob_s3_try *t, int status) {
    if ((status != 501 && status != 400) || t->old_keys) return false;
    return !atomic_exchange(&t->s3->unconditional, true);
}

/* LK_EEXISTS: somebody put it there meanwhile. */
static int put_whole(struct lk__blob_s3 *s, const char *key, const struct lk_blob *blob, bool replace, struct lk_err *err) {
    struct piece p;
    int code, status = 0;
    for (;;) {
        bool condition = !replace && !s->unconditional;
        piece_init(&p, s, key, blob->size ? blob->data : (const unsigned char *)"", blob->size);
        p.ask.headers[1] = condition ? only_new : NULL;
        code = lk__blob_s3_do(&p.try, s, &p.ask, &status, err);
        if (code || !condition || !refused_condition(&p.try, status)) break;
        lk__blob_s3_end(&p.try);
    }
    if (code == 0 && status == 412)
        code = LK_EEXISTS;
    else if (code == 0 && status != 200 && status != 201 && status != 204)
        code = lk__blob_s3_unexpected(&p.try, status, err);
    lk__blob_s3_end(&p.try);
    return code;
}

/* --- many parts
 * ----------------------------------------------------------------------------------------------------------- */

struct upload {
    struct lk__blob_s3 *s3;
    const char *key;
    const struct lk_blob *blob;
    size_t part_bytes, parts, begun;
    char id[ID_BYTES];
    struct piece *pieces; /* (TOGETHER) */
    struct lk_buf list;   /* of the parts, as the last request has it */
    bool gone;            /* the server no longer knows the upload */
};

static int note_id(void *arg, const char *path, const char *text, size_t size) {
    struct upload *u = arg;
    if (strcmp(path, "InitiateMultipartUploadResult/UploadId") == 0 && size < ID_BYTES && !memchr(text, 0, size))
        memcpy(u->id, text, size + 1);
    return 0;
}

static int begin_upload(struct upload *u, struct lk_err *err) {
    struct lk__blob_s3_ask ask = {.method = "POST",
                                  .key = u->key,
                                  .query = {{"uploads", ""}},
                                  .query_count = 1,
                                  .headers = {"x-amz-checksum-algorithm: SHA256"}};
    struct lk__blob_s3_try t;
    int status = 0, code = lk__blob_s3_do(&t, u->s3, &ask, &status, err);
    if (code == 0 && status != 200) code = lk__blob_s3_unexpected(&t, status, err);
    if (code == 0) {
        struct lk_bytes body = lk_http_call_body(t.call);
        code = lk__blob_xml_read(body.data, body.size, "the answer to a new upload", note_id, u, err);
    }
    if (code == 0 && !u->id[0]) code = lk_fail(err, LK_EIO, "%s/%s: the server gives an upload no id", u->s3->url, u->key);
    lk__blob_s3_end(&t);
    return code;
}

/* Whatever comes of it: what is left is an orphan, which lk_blobs_list removes. */
static void abort_upload(struct upload *u) {
    struct lk__blob_s3_ask ask = {.method = "DELETE", .key = u->key, .query = {{"uploadId", u->id}}, .query_count = 1};
    struct lk__blob_s3_try t;
    int status;
    if (!u->id[0]) return;
    (void)lk__blob_s3_do(&t, u->s3, &ask, &status, NULL);
    lk__blob_s3_end(&t);
    u->id[0] = 0;
}

static void begin_part(struct upload *u) {
    struct piece *p = &u->pieces[u->begun % LK__BLOB_S3_TOGETHER];
    size_t from = u->begun * u->part_bytes, left = u->blob->size - from;
    if (u->begun == u->parts) return;
    piece_init(p, u->s3, u->key, u->blob->data + from, left < u->part_bytes ? left : u->part_bytes);
    snprintf(p->number, sizeof p->number, "%zu", ++u->begun);
    p->ask.query[0] = (struct lk_sigv4_pair){"partNumber", p->number};
    p->ask.query[1] = (struct lk_sigv4_pair){"uploadId", u->id};
    p->ask.query_count = 2;
    lk__blob_s3_start(&p->try, u->s3, &p->ask);
}

/* Text of the server's, which goes back to it. */
static int put_escaped(struct lk_buf *out, const char *text) {
    int code = 0;
    for (; *text && !code; text++)
        code = *text == '"'                                   ? lk_buf_printf(out, "&quot;")
               : *text == '&' || *text == '<' || *text == '>' ? lk_buf_printf(out, "&#%d;", *text)
                                                              : lk_buf_append(out, text, 1);
    return code;
}

static int end_part(struct upload *u, size_t index, struct lk_err *err) {
    struct piece *p = &u->pieces[index % LK__BLOB_S3_TOGETHER];
    int status = 0, code = lk__blob_s3_wait(&p->try, &status, err);
    if (code == 0 && status != 200) {
        u->gone = status == 404;
        code = lk__blob_s3_unexpected(&p->try, status, err);
    }
    if (code == 0) {
        code = lk_buf_printf(&u->list, "<Part>");
        if (!code && p->summed) code = lk_buf_printf(&u->list, "<ChecksumSHA256>%s</ChecksumSHA256>", p->sum_text);
        if (!code) code = lk_buf_printf(&u->list, "<ETag>");
        if (!code) code = put_escaped(&u->list, p->etag);
        if (!code) code = lk_buf_printf(&u->list, "</ETag><PartNumber>%zu</PartNumber></Part>", index + 1);
        if (code) code = lk_fail(err, LK_ENOMEM, "out of memory for an upload to %s", u->s3->url);
    }
    lk__blob_s3_end(&p->try);
    return code;
}

/* Some parts are under way while the next ones are hashed. */
static int send_parts(struct upload *u, struct lk_err *err) {
    int code = lk_buf_printf(&u->list, "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    if (code) return lk_fail(err, LK_ENOMEM, "out of memory for an upload to %s", u->s3->url);
    for (int i = 0; i < LK__BLOB_S3_TOGETHER; i++) begin_part(u);
    for (size_t i = 0; i < u->parts && code == 0; i++) {
        code = end_part(u, i, err);
        if (code == 0) begin_part(u);
    }
    for (int i = 0; i < LK__BLOB_S3_TOGETHER; i++) lk__blob_s3_end(&u->pieces[i].try);
    if (code == 0 && lk_buf_printf(&u->list, "</CompleteMultipartUpload>") != 0)
        code = lk_fail(err, LK_ENOMEM, "out of memory for an upload to %s", u->s3->url);
    return code;
}

/* The answer of 200 comes before the work is done, and may say that it failed. */
struct outcome {
    bool done, failed;
};
static int note_outcome(void *arg, const char *path, const char *text, size_t size) {
    struct outcome *o = arg;
    (void)text, (void)size;
    if (strcmp(path, "CompleteMultipartUploadResult") == 0) o->done = true;
    if (strcmp(path, "Error") == 0) o->failed = true;
    return 0;
}
static const char *outcome_problem(void *arg, struct lk_http_call *call) {
    struct outcome *o = arg;
    struct lk_bytes body = lk_http_call_body(call);
    *o = (struct outcome){0};
    if (lk__blob_xml_read(body.data, body.size, "the answer", note_outcome, o, NULL) != 0) return "it is no XML";
    return o->failed ? "the upload could not be completed" : !o->done ? "it is no answer to that" : NULL;
}

/* A reply may have been lost: then the upload is gone, and the object there. */
static bool is_there(struct lk__blob_s3 *s, const struct lk_blob *blob) {
    struct lk__blob_s3_object object;
    return lk__blob_s3_look(s, &blob->root, &object, NULL) == 0 && object.size == blob->size;
}

static int complete_upload(struct upload *u, bool replace, struct lk_err *err) {
    struct lk__blob_s3_try t;
    struct lk__blob_s3_ask ask;
    struct outcome outcome;
    int status = 0, code;
    for (;;) {
        bool condition = !replace && !u->s3->unconditional;
        ask = (struct lk__blob_s3_ask){.method = "POST",
                                       .key = u->key,
                                       .query = {{"uploadId", u->id}},
                                       .query_count = 1,
                                       .headers = {"Content-Type: application/xml", condition ? only_new : NULL},
                                       .body = u->list.data,
                                       .body_size = u->list.size,
                                       .arg = &outcome,
                                       .problem = outcome_problem};
        code = lk__blob_s3_do(&t, u->s3, &ask, &status, err);
        if (code || !condition || !refused_condition(&t, status)) break;
        lk__blob_s3_end(&t);
    }
    if (code == 0 && status == 412)
        code = LK_EEXISTS;
    else if (code == 0 && status == 404 && is_there(u->s3, u->blob))
        u->id[0] = 0;
    else if (code == 0 && status != 200) {
        u->gone = status == 404;
        code = lk__blob_s3_unexpected(&t, status, err);
    }
    if (code == 0) u->id[0] = 0;
    lk__blob_s3_end(&t);
    return code;
}

/* At least 8 MiB a part, whole MiB, at most 10,000 parts: a function of the size alone. */
static size_t part_bytes(uint64_t size) {
    uint64_t n = (size / LK__BLOB_S3_PARTS_MOST + LK_LEAF_BYTES) / LK_LEAF_BYTES * LK_LEAF_BYTES;
    return n > LK__BLOB_S3_PART_BYTES ? (size_t)n : LK__BLOB_S3_PART_BYTES;
}

static int put_parts(struct lk__blob_s3 *s, const char *key, const struct lk_blob *blob, bool replace, struct lk_err *err) {
    struct upload *u = lk_calloc(1, sizeof *u);
    struct piece *pieces = lk_calloc(LK__BLOB_S3_TOGETHER, sizeof *pieces);
    int code = u && pieces ? 0 : lk_fail(err, LK_ENOMEM, "out of memory for an upload to %s", s->url);
    for (int i = 0; code == 0 && i < UPLOADS_MOST; i++) {
        *u = (struct upload){.s3 = s, .key = key, .blob = blob, .part_bytes = part_bytes(blob->size), .pieces = pieces};
        u->parts = (blob->size + u->part_bytes - 1) / u->part_bytes;
        code = begin_upload(u, err);
        if (code == 0) code = send_parts(u, err);
        if (code == 0) code = complete_upload(u, replace, err);
        if (code) abort_upload(u);
        lk_buf_release(&u->list);
        if (!u->gone || i + 1 == UPLOADS_MOST) break;
        code = 0;
    }
    lk_free(pieces);
    lk_free(u);
    return code;
}

/* --- what is there already
 * --------------------------------------------------------------------------------------------------- */

/* What our own upload of it would have as its ETag, in quotes: an MD5, or that of the parts' MD5s and their number. */
static bool etag_of(const struct lk_blob *blob, char out[ETAG_BYTES]) {
    size_t part = part_bytes(blob->size), parts = (blob->size + part - 1) / part;
    struct lk_buf all = LK_BUF_INIT;
    char hex[33];
    if (blob->size <= part) {
        bool done = md5_of(blob->size ? (const void *)blob->data : "", blob->size, hex);
        if (done) snprintf(out, ETAG_BYTES, "\"%s\"", hex);
        return done;
    }
    bool done = true;
    for (size_t i = 0; i < parts && done; i++) {
        unsigned char md5[EVP_MAX_MD_SIZE];
        unsigned int n = 0;
        size_t left = blob->size - i * part;
        done = EVP_Digest(blob->data + i * part, left < part ? left : part, md5, &n, EVP_md5(), NULL) == 1 && n == 16 &&
               lk_buf_append(&all, md5, 16) == 0;
    }
    done = done && md5_of(all.data, all.size, hex);
    if (done) snprintf(out, ETAG_BYTES, "\"%s-%zu\"", hex, parts);
    lk_buf_release(&all);
    return done;
}

/* Whether an object looks as ours does. One that was put in other parts does not, and is replaced by the same bytes. */
static bool is_same(struct lk__blob_s3 *s, const struct lk__blob_s3_object *object, const struct lk_blob *blob) {
    char etag[ETAG_BYTES];
    if (object->size != blob->size) return false;
    return s->any_etag || !etag_of(blob, etag) || strcmp(object->etag, etag) == 0;
}

struct copied {
    bool done;
};
static int note_copied(void *arg, const char *path, const char *text, size_t size) {
    (void)text, (void)size;
    if (strcmp(path, "CopyObjectResult/ETag") == 0) ((struct copied *)arg)->done = true;
    return 0;
}

/* Young again, as if written now: gc keeps what is young, because it may be about to be named. False: send it anew. */
static bool renew(struct lk__blob_s3 *s, const char *key, const struct lk__blob_s3_object *object) {
    if (object->modified_ms >= 0 && lk_clock_wall_ms() - object->modified_ms < RENEW_MS) return true;
    if (object->size > COPY_MOST) return false;
    char *from = lk_asprintf("x-amz-copy-source: /%s/%s%s", s->bucket, s->prefix, key);
    char stamp[64];
    snprintf(stamp, sizeof stamp, "x-amz-meta-renewed: %lld", (long long)lk_clock_wall_ms());
    struct lk__blob_s3_ask ask = {
        .method = "PUT", .key = key, .headers = {from, "x-amz-metadata-directive: REPLACE", stamp}};
    struct lk__blob_s3_try t = {0};
    struct copied copied = {false};
    int status = 0, code = from ? lk__blob_s3_do(&t, s, &ask, &status, NULL) : LK_ENOMEM;
    if (code == 0 && status == 200) {
        struct lk_bytes body = lk_http_call_body(t.call);
        if (lk__blob_xml_read(body.data, body.size, "the answer", note_copied, &copied, NULL) != 0) copied.done = false;
    }
    lk__blob_s3_end(&t);
    lk_free(from);
    return copied.done;
}

/* LK_ENOTFOUND: not there, or not to be kept (*replace). */
static int keep_existing(struct lk__blob_s3 *s, const char *key, const struct lk_blob *blob, bool *replace,
                         struct lk_err *err) {
    struct lk__blob_s3_object object;
    int code = lk__blob_s3_look(s, &blob->root, &object, err);
    if (code) return code;
    *replace = true;
    if (is_same(s, &object, blob)) return renew(s, key, &object) ? 0 : LK_ENOTFOUND;
    if (object.size != blob->size) lk_log_warn("%s/%s was damaged; it is replaced by a good copy", s->url, key);
    return LK_ENOTFOUND;
}

int lk__blob_s3_upload(struct lk__blob_s3 *s, const struct lk_blob *blob, struct lk_err *err) {
    char key[LK__BLOB_S3_NAME_BYTES];
    bool small = blob->size <= LK__BLOB_S3_PART_BYTES, replace = false;
    lk__blob_s3_name(&blob->root, key);
    if (blob->size > LK__BLOB_S3_SIZE_MOST) return lk_fail(err, LK_EINVAL, "S3 has no objects of %zu bytes", blob->size);
    /* A small one is cheaper to send than to ask for, where the server says that it has it. */
    int code = small && !s->unconditional ? LK_ENOTFOUND : keep_existing(s, key, blob, &replace, err);
    for (int i = 0; i < 2 && (code == LK_ENOTFOUND || code == LK_EEXISTS); i++) {
        if (code == LK_EEXISTS && (code = keep_existing(s, key, blob, &replace, err)) != LK_ENOTFOUND) break;
        code = small ? put_whole(s, key, blob, replace, err) : put_parts(s, key, blob, replace, err);
    }
    if (code == LK_EEXISTS) code = keep_existing(s, key, blob, &replace, err);
    return code;
}
