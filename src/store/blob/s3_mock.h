/* A server of the tests' own that speaks enough S3 to be asked, and answers wrongly when a test wants that. Only tests
 * include it. One bucket, "bucket"; objects live in memory. */
#ifndef LK_BLOB_S3_MOCK_H
#define LK_BLOB_S3_MOCK_H
#include "lockstep/base/hash.h"
#include "lockstep/base/progress.h"
#include "net/hostile.h"
#include <openssl/evp.h>

enum mock_fault {
    MOCK_FINE,
    MOCK_500,
    MOCK_SLOWDOWN,  /* 503 with its XML and Retry-After: 0 */
    MOCK_RESET,     /* before an answer */
    MOCK_LOST,      /* does it, and resets instead of an answer */
    MOCK_TRUNCATED, /* half of the body it announces */
    MOCK_ETAG,      /* another ETag */
    MOCK_BYTES,     /* other bytes, in an answer or in what is kept */
    MOCK_RANGE,     /* another range than asked for */
    MOCK_LONGER,    /* more bytes than asked for */
    MOCK_DRIP,      /* a byte now and then */
    MOCK_HEADERS,   /* headers without an end */
    MOCK_RUBBISH,   /* XML that is none */
    MOCK_DENIED,    /* 403 AccessDenied, with the Authorization header in its message */
    MOCK_GONE,      /* 404 NoSuchUpload */
    MOCK_FAILED200, /* 200 with an error in its body */
    MOCK_HUGE,      /* claims 2^63 bytes */
    MOCK_501,
};

struct mock_object {
    char key[256], etag[80];
    char *data;
    size_t size;
    int64_t modified_s;
    struct mock_object *next;
};
struct mock_upload {
    char key[256], id[32];
    int64_t begun_s;
    struct mock_object *parts; /* key: the number */
    struct mock_upload *next;
};
static struct mock {
    struct hostile server;
    pthread_mutex_t mutex;
    struct mock_object *objects;
    struct mock_upload *uploads;
    int ids;
    /* The `from`th matching request from now and the `times` - 1 behind it go wrong. */
    enum mock_fault fault;
    char fault_on[64]; /* what its first line holds, "PUT " or "partNumber=3&"; "": any */
    int from, times;
    atomic_int faults;
    bool conditional, copies, page_of_one, stale;
    const char *key_id; /* the only one that is not refused */
    int refusal;        /* with this status and ExpiredToken; 0: 403 AccessDenied */
    atomic_int refused;
    atomic_int puts, gets, lists, parts_begun;
} mock = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static inline void mock_go_wrong(enum mock_fault fault, const char *on, int from, int times) {
    pthread_mutex_lock(&mock.mutex);
    mock.fault = fault, mock.from = from, mock.times = times, mock.faults = 0;
    snprintf(mock.fault_on, sizeof mock.fault_on, "%s", on);
    pthread_mutex_unlock(&mock.mutex);
}

static inline struct mock_object *mock_find(struct mock_object *list, const char *key) {
    while (list && strcmp(list->key, key) != 0) list = list->next;
    return list;
}
static inline void mock_drop(struct mock_object **list, const char *key) {
    for (; *list; list = &(*list)->next) {
        struct mock_object *o = *list;
        if (strcmp(o->key, key) != 0) continue;
        *list = o->next;
        free(o->data);
        free(o);
        return;
    }
}
static inline void mock_md5(const void *data, size_t size, char hex[33]) {
    unsigned char md5[EVP_MAX_MD_SIZE];
    unsigned int n;
    EVP_Digest(data, size, md5, &n, EVP_md5(), NULL);
    for (int i = 0; i < 16; i++) sprintf(hex + 2 * i, "%02x", md5[i]);
}
static inline struct mock_object *mock_keep(struct mock_object **list, const char *key, const void *data, size_t size) {
    char hex[33];
    mock_drop(list, key);
    struct mock_object *o = calloc(1, sizeof *o);
    snprintf(o->key, sizeof o->key, "%s", key);
    o->data = malloc(size + 1);
    memcpy(o->data, data, size);
    o->size = size;
    o->modified_s = time(NULL);
    mock_md5(data, size, hex);
    snprintf(o->etag, sizeof o->etag, "\"%s\"", hex);
    o->next = *list;
    return *list = o;
}

/* The value of a pair of the query, decoded where it is a token of ours; false: absent. */
static inline bool mock_query(const char *query, const char *name, char *out, size_t room) {
    size_t n = strlen(name);
    for (const char *p = query; p; p = strchr(p, '&') ? strchr(p, '&') + 1 : NULL) {
        if (strncmp(p, name, n) != 0 || p[n] != '=') continue;
        size_t size = strcspn(p + n + 1, "&");
        if (size >= room) size = room - 1;
        memcpy(out, p + n + 1, size);
        out[size] = 0;
        for (char *s; (s = strstr(out, "%2F"));) *s = '/', memmove(s + 1, s + 3, strlen(s + 3) + 1);
        return true;
    }
    return false;
}

static inline bool mock_error(struct hostile_request *r, int status, const char *code) {
    char body[512];
    int n = snprintf(body, sizeof body, "<?xml version=\"1.0\"?><Error><Code>%s</Code><Message>m</Message></Error>", code);
    hostile_answer(r, status, "Content-Type: application/xml\r\n", body, (size_t)n);
    return true;
}

static inline void mock_time(int64_t at, const char *format, char out[64]) {
    struct tm t;
    time_t seconds = (time_t)at;
    strftime(out, 64, format, gmtime_r(&seconds, &t));
}

static inline void mock_flip(char *data, size_t size) {
    if (size) data[size / 2] ^= 4;
}

static inline bool mock_get(struct hostile_request *r, const char *key, enum mock_fault fault) {
    struct mock_object *o = mock_find(mock.objects, key);
    char text[64], fields[512], modified[64];
    unsigned long long from = 0, to = 0;
    if (!o) return mock_error(r, 404, "NoSuchKey");
    mock.gets++;
    mock_time(o->modified_s, "%a, %d %b %Y %H:%M:%S GMT", modified);
    bool part = hostile_header(r, "Range", text, sizeof text) && sscanf(text, "bytes=%llu-%llu", &from, &to) == 2;
    if (part && from >= o->size) {
        snprintf(fields, sizeof fields, "Content-Range: bytes */%zu\r\n", o->size);
        hostile_answer(r, 416, fields, "", 0);
        return true;
    }
    if (!part || to >= o->size) to = o->size ? o->size - 1 : 0;
    size_t size = o->size ? (size_t)(to - from + 1) : 0, sent = size;
    char *body = malloc(size + 100);
    memcpy(body, o->data + from, size);
    memset(body + size, 'x', 100);
    if (fault == MOCK_BYTES) mock_flip(body, size);
    if (fault == MOCK_LONGER) sent = size += 100;
    if (fault == MOCK_TRUNCATED) sent /= 2;
    snprintf(fields, sizeof fields, "ETag: %s\r\nLast-Modified: %s\r\n", o->etag, modified);
    if (part) {
        size_t n = strlen(fields);
        snprintf(fields + n, sizeof fields - n, "Content-Range: bytes %llu-%llu/%llu\r\n", from + (fault == MOCK_RANGE),
                 to + (fault == MOCK_RANGE), fault == MOCK_HUGE ? 1ull << 63 : (unsigned long long)o->size);
    }
    hostile_say(r, "HTTP/1.1 %d X\r\nContent-Length: %zu\r\n%s\r\n", part ? 206 : 200, size, fields);
    bool head = strcmp(r->method, "HEAD") == 0;
    if (!head) hostile_send(r, body, sent);
    free(body);
    return head || sent == size;
}

static inline bool mock_put(struct hostile_request *r, const char *key, struct mock_object **list, enum mock_fault fault) {
    char text[128], fields[256], hex[33], other[160];
    struct lk_root want, got;
    mock.puts++;
    lk_sha256(r->body, r->body_size, &got);
    if (!hostile_header(r, "x-amz-content-sha256", text, sizeof text) || !lk_root_parse(text, &want) ||
        !lk_root_equal(&want, &got))
        return mock_error(r, 400, "XAmzContentSHA256Mismatch");
    if (hostile_header(r, "If-None-Match", text, sizeof text)) {
        if (fault == MOCK_501) return mock_error(r, 501, "NotImplemented");
        if (mock.conditional && mock_find(*list, key)) return mock_error(r, 412, "PreconditionFailed");
    }
    if (hostile_header(r, "x-amz-copy-source", other, sizeof other)) {
        struct mock_object *o = mock_find(*list, key);
        if (!mock.copies || !o) return mock_error(r, 501, "NotImplemented");
        o->modified_s = time(NULL);
        int n = snprintf(fields, sizeof fields, "<CopyObjectResult><ETag>%s</ETag></CopyObjectResult>", "&quot;x&quot;");
        hostile_answer(r, 200, "", fields, (size_t)n);
        return true;
    }
    if (fault == MOCK_BYTES) mock_flip(r->body, r->body_size);
    struct mock_object *o = mock_keep(list, key, r->body, r->body_size);
    mock_md5(fault == MOCK_ETAG ? "other" : r->body, fault == MOCK_ETAG ? 5 : r->body_size, hex);
    snprintf(fields, sizeof fields, "ETag: \"%s\"\r\n", hex);
    (void)o;
    hostile_answer(r, 200, fields, "", 0);
    return true;
}

static inline struct mock_upload **mock_upload_of(const char *query) {
    char id[64];
    if (!mock_query(query, "uploadId", id, sizeof id)) return NULL;
    struct mock_upload **u = &mock.uploads;
    while (*u && strcmp((*u)->id, id) != 0) u = &(*u)->next;
    return *u ? u : NULL;
}
static inline void mock_end_upload(struct mock_upload **u) {
    struct mock_upload *gone = *u;
    *u = gone->next;
    while (gone->parts) mock_drop(&gone->parts, gone->parts->key);
    free(gone);
}

/* Its parts in the order of the numbers that the request lists. */
static inline bool mock_complete(struct hostile_request *r, const char *key, struct mock_upload **u,
                                 enum mock_fault fault) {
    char *all = NULL, text[128], hex[33];
    size_t size = 0, sums = 0, count = 0;
    unsigned char md5s[16 * 1000];
    if (hostile_header(r, "If-None-Match", text, sizeof text) && fault == MOCK_501)
        return mock_error(r, 501, "NotImplemented");
    if (hostile_header(r, "If-None-Match", text, sizeof text) && mock.conditional && mock_find(mock.objects, key))
        return mock_error(r, 412, "PreconditionFailed");
    if (fault == MOCK_FAILED200) {
        const char *body = "<Error><Code>InternalError</Code></Error>";
        hostile_answer(r, 200, "", body, strlen(body));
        return true;
    }
    for (char *p = r->body; (p = strstr(p, "<PartNumber>")); p += 5, count++) {
        snprintf(text, sizeof text, "%d", atoi(p + 12));
        struct mock_object *part = mock_find((*u)->parts, text);
        if (!part) return free(all), mock_error(r, 400, "InvalidPart");
        all = realloc(all, size + part->size);
        memcpy(all + size, part->data, part->size);
        size += part->size;
        for (int i = 0; i < 16; i++) sscanf(part->etag + 1 + 2 * i, "%2hhx", &md5s[sums++]);
    }
    struct mock_object *o = mock_keep(&mock.objects, key, all, size);
    mock_md5(md5s, sums, hex);
    snprintf(o->etag, sizeof o->etag, "\"%s-%zu\"", hex, count);
    free(all);
    mock_end_upload(u);
    if (fault == MOCK_LOST) return hostile_reset(r), false;
    const char *done = "<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>";
    hostile_answer(r, 200, "", done, strlen(done));
    return true;
}

static inline int mock_by_key(const void *a, const void *b) {
    return strcmp((*(struct mock_object *const *)a)->key, (*(struct mock_object *const *)b)->key);
}
static inline bool mock_list(struct hostile_request *r, const char *query) {
    char *body = NULL, prefix[256] = "", token[256] = "", when[64];
    size_t size, count = 0;
    struct mock_object *all[1000];
    mock_query(query, "prefix", prefix, sizeof prefix);
    mock_query(query, "continuation-token", token, sizeof token);
    mock.lists++;
    for (struct mock_object *o = mock.objects; o && count < 1000; o = o->next)
        if (strncmp(o->key, prefix, strlen(prefix)) == 0) all[count++] = o;
    qsort(all, count, sizeof *all, mock_by_key);
    FILE *f = open_memstream(&body, &size);
    fprintf(
        f,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    size_t at = 0;
    while (at < count && *token && strcmp(all[at]->key, token) <= 0) at++;
    for (size_t n = 0; at < count && n < (mock.page_of_one ? 1 : 1000); at++, n++) {
        mock_time(all[at]->modified_s, "%Y-%m-%dT%H:%M:%S.000Z", when);
        fprintf(f, "<Contents><Key>%s</Key><LastModified>%s</LastModified><Size>%zu</Size></Contents>", all[at]->key, when,
                all[at]->size);
    }
    if (mock.stale)
        fprintf(f, "<Contents><Key>%s00/%062d</Key><Size>7</Size></Contents><Contents><Key>../&lt;x</Key></Contents>",
                prefix, 0);
    if (at < count) fprintf(f, "<NextContinuationToken>%s</NextContinuationToken>", all[at - 1]->key);
    fprintf(f, "<IsTruncated>%s</IsTruncated></ListBucketResult>", at < count ? "true" : "false");
    fclose(f);
    hostile_answer(r, 200, "", body, size);
    free(body);
    return true;
}
static inline bool mock_list_uploads(struct hostile_request *r) {
    char *body = NULL, when[64];
    size_t size;
    FILE *f = open_memstream(&body, &size);
    fprintf(f, "<ListMultipartUploadsResult>");
    for (struct mock_upload *u = mock.uploads; u; u = u->next) {
        mock_time(u->begun_s, "%Y-%m-%dT%H:%M:%S.000Z", when);
        fprintf(f, "<Upload><Key>%s</Key><UploadId>%s</UploadId><Initiated>%s</Initiated></Upload>", u->key, u->id, when);
    }
    fprintf(f, "</ListMultipartUploadsResult>");
    fclose(f);
    hostile_answer(r, 200, "", body, size);
    free(body);
    return true;
}
static inline bool mock_begin(struct hostile_request *r, const char *key) {
    struct mock_upload *u = calloc(1, sizeof *u);
    char body[256];
    snprintf(u->key, sizeof u->key, "%s", key);
    snprintf(u->id, sizeof u->id, "id%d", ++mock.ids);
    u->begun_s = time(NULL);
    u->next = mock.uploads;
    mock.uploads = u;
    int n = snprintf(body, sizeof body,
                     "<InitiateMultipartUploadResult><UploadId>%s</UploadId></InitiateMultipartUploadResult>", u->id);
    hostile_answer(r, 200, "", body, (size_t)n);
    return true;
}

static inline bool mock_right(struct hostile_request *r, enum mock_fault fault) {
    char *key = r->target + strlen("/bucket"), *query = strchr(r->target, '?'), number[16];
    if (query) *query++ = 0;
    if (strncmp(r->target, "/bucket", 7) != 0) return mock_error(r, 404, "NoSuchBucket");
    if (*key == '/') key++;
    bool get = strcmp(r->method, "GET") == 0, put = strcmp(r->method, "PUT") == 0, post = strcmp(r->method, "POST") == 0;
    if (get && !*key) return strstr(query, "uploads=") ? mock_list_uploads(r) : mock_list(r, query);
    if (post && strstr(query, "uploads=")) return mock_begin(r, key);
    struct mock_upload **u = query ? mock_upload_of(query) : NULL;
    if (query && !u) return mock_error(r, 404, "NoSuchUpload");
    if (put && u && mock_query(query, "partNumber", number, sizeof number))
        return (void)mock.parts_begun++, mock_put(r, number, &(*u)->parts, fault);
    if (post && u) return mock_complete(r, key, u, fault);
    if (put) return mock_put(r, key, &mock.objects, fault);
    if (get || strcmp(r->method, "HEAD") == 0) return mock_get(r, key, fault);
    if (u)
        mock_end_upload(u);
    else
        mock_drop(&mock.objects, key);
    hostile_answer(r, 204, "", "", 0);
    return true;
}

static inline bool mock_wrong(struct hostile_request *r, enum mock_fault fault) {
    char text[1024];
    switch (fault) {
    case MOCK_500:
        return mock_error(r, 500, "InternalError");
    case MOCK_SLOWDOWN: {
        const char *body = "<Error><Code>SlowDown</Code></Error>";
        hostile_answer(r, 503, "Retry-After: 0\r\n", body, strlen(body));
        return true;
    }
    case MOCK_DENIED:
        hostile_header(r, "Authorization", text, sizeof text);
        hostile_say(
            r, "HTTP/1.1 403 X\r\nContent-Length: %zu\r\n\r\n<Error><Code>AccessDenied</Code><Message>%s</Message></Error>",
            strlen(text) + strlen("<Error><Code>AccessDenied</Code><Message></Message></Error>"), text);
        return true;
    case MOCK_GONE:
        return mock_error(r, 404, "NoSuchUpload");
    case MOCK_RUBBISH:
        hostile_answer(r, 200, "ETag: \"x\"\r\n", "<Error><Code>&nothing;", 22);
        return true;
    case MOCK_HEADERS:
        hostile_say(r, "HTTP/1.1 200 OK\r\n");
        for (int i = 0; i < 100000 && !mock.server.closing; i++)
            if (send(r->fd, "X-More: and more and more\r\n", 27, MSG_NOSIGNAL) <= 0) break;
        return false;
    case MOCK_DRIP:
        hostile_say(r, "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n");
        while (send(r->fd, "x", 1, MSG_NOSIGNAL) == 1 && !mock.server.closing) usleep(20000);
        return false;
    default:
        hostile_reset(r);
        return false;
    }
}

static inline bool mock_handle(struct hostile_request *r) {
    char line[4200], text[2048], ours[128];
    pthread_mutex_lock(&mock.mutex);
    int n = snprintf(ours, sizeof ours, "AWS4-HMAC-SHA256 Credential=%s/", mock.key_id);
    snprintf(line, sizeof line, "%s %s&", r->method, r->target);
    enum mock_fault fault = MOCK_FINE;
    if (mock.fault && (!*mock.fault_on || strstr(line, mock.fault_on)) && --mock.from < 0 && mock.times > 0)
        mock.times--, fault = mock.fault, mock.faults += 1;
    bool inside = fault == MOCK_FINE || fault == MOCK_LOST || fault == MOCK_TRUNCATED || fault == MOCK_ETAG ||
                  fault == MOCK_BYTES || fault == MOCK_RANGE || fault == MOCK_LONGER || fault == MOCK_FAILED200 ||
                  fault == MOCK_HUGE || fault == MOCK_501;
    bool more;
    if (!hostile_header(r, "Authorization", text, sizeof text) || strncmp(text, ours, (size_t)n) != 0)
        more = mock_error(r, mock.refusal ? mock.refusal : 403, mock.refusal ? "ExpiredToken" : "AccessDenied"),
        mock.refused++;
    else if (inside && (more = mock_right(r, fault)) && fault == MOCK_LOST)
        more = false; /* but it was answered: only mock_complete loses answers */
    else if (!inside) {
        pthread_mutex_unlock(&mock.mutex);
        return mock_wrong(r, fault);
    }
    pthread_mutex_unlock(&mock.mutex);
    return more;
}

static inline void mock_open(void) {
    mock.conditional = mock.copies = true;
    mock.key_id = "TESTKEY";
    hostile_open(&mock.server, mock_handle, NULL);
    setenv("AWS_ACCESS_KEY_ID", "TESTKEY", 1);
    setenv("AWS_SECRET_ACCESS_KEY", "HUSHHUSH", 1);
    setenv("AWS_ENDPOINT_URL", mock.server.url, 1);
    setenv("AWS_EC2_METADATA_DISABLED", "true", 1);
    unsetenv("AWS_ENDPOINT_URL_S3");
    unsetenv("AWS_SESSION_TOKEN");
}
static inline void mock_reset(void) {
    pthread_mutex_lock(&mock.mutex);
    while (mock.objects) mock_drop(&mock.objects, mock.objects->key);
    while (mock.uploads) mock_end_upload(&mock.uploads);
    mock.fault = MOCK_FINE;
    mock.conditional = mock.copies = true;
    mock.page_of_one = mock.stale = false;
    mock.key_id = "TESTKEY", mock.refusal = mock.refused = 0;
    mock.puts = mock.gets = mock.lists = mock.parts_begun = 0;
    pthread_mutex_unlock(&mock.mutex);
}
static inline void mock_close(void) {
    mock_reset();
    hostile_close(&mock.server);
}

#endif
