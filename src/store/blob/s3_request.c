/* One request to the server: signed, sent, and tried again while that may help. */
#include "lockstep/base/mem.h"
#include "lockstep/base/progress.h"
#include "store/blob/s3.h"
#include "store/blob/s3_xml.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#define FIRST_PAUSE_MS 50
#define MOST_PAUSE_MS  5000
#define ASKED_MOST_MS  30000 /* what a server may ask for by Retry-After */
#define MISFITS_MOST   3
#define DEADLINE_MS    900000 /* of one try that goes on, however slowly */
#define CODE_BYTES     64

/* --- the server ----------------------------------------------------------------------------------------------- */

static bool is_dotted(const char *bucket) {
    return strchr(bucket, '.') != NULL; /* a certificate's * stands for one label */
}

static int find_server(struct lk__blob_s3 *s, struct lk_err *err) {
    const char *style = getenv("LOCKSTEP_S3_STYLE");
    if (style && *style && strcmp(style, "path") != 0 && strcmp(style, "virtual") != 0)
        return lk_fail(err, LK_EINVAL, "LOCKSTEP_S3_STYLE is neither path nor virtual");
    s->bucket_in_host = style && *style ? *style == 'v' : !s->aws.endpoint && !is_dotted(s->bucket);
    const char *scheme = s->aws.endpoint && strncmp(s->aws.endpoint, "http://", 7) == 0 ? "http://" : "https://";
    char *name =
        s->aws.endpoint ? lk_strdup(s->aws.endpoint + strlen(scheme)) : lk_asprintf("s3.%s.amazonaws.com", s->aws.region);
    if (name) s->host = s->bucket_in_host ? lk_asprintf("%s.%s", s->bucket, name) : lk_strdup(name);
    if (s->host) s->server = lk_asprintf("%s%s", scheme, s->host);
    lk_free(name);
    if (!s->server) return lk_fail(err, LK_ENOMEM, "out of memory for %s", s->url);
    /* A port that is the scheme's own is not sent in the header Host, and so not signed. */
    const char *usual = strcmp(scheme, "http://") == 0 ? ":80" : ":443";
    size_t n = strlen(s->host), u = strlen(usual);
    if (n > u && strcmp(s->host + n - u, usual) == 0) s->host[n - u] = 0;
    return 0;
}

static void forget_server(struct lk__blob_s3 *s) {
    lk_free(s->server);
    lk_free(s->host);
    s->server = s->host = NULL;
    lk_aws_release(&s->aws);
}

/* With the first request, so that opening a store asks nobody for keys. */
static int get_ready(struct lk__blob_s3 *s, struct lk_err *err) {
    pthread_mutex_lock(&s->mutex);
    int code = 0;
    if (!s->ready) {
        code = lk_aws_load(&s->aws, err);
        if (code == 0) code = find_server(s, err);
        if (code == 0) {
            struct lk_http_client_options o = {.connections = 2 * LK__BLOB_S3_TOGETHER,
                                               .ca_file = s->aws.ca_file,
                                               .connect_ms = s->patience_ms < 10000 ? s->patience_ms : 10000,
                                               .stall_ms = s->patience_ms < 20000 ? s->patience_ms : 20000};
            code = lk_http_client_open(&o, &s->client, err);
        }
        s->ready = code == 0;
        if (code != 0) forget_server(s);
    }
    pthread_mutex_unlock(&s->mutex);
    return code;
}

/* --- keys that end ------------------------------------------------------------------------------------------------ */

#define BEFORE_END_MS 300000 /* new ones are there by then */
#define LOOK_AGAIN_NS 20000000000u
#define RENEWALS_MOST 3 /* of one request */

/* Under the mutex. What cannot be had now is asked for again later: the old ones may still do. */
static void renew(struct lk__blob_s3 *s) {
    bool changed;
    s->renewed_ns = lk_clock_ns();
    if (lk_aws_renew(&s->aws, &changed, NULL) == 0) s->keys += changed;
}
static void renew_before_end(struct lk__blob_s3 *s) {
    if (s->aws.expires_ms && lk_clock_wall_ms() > s->aws.expires_ms - BEFORE_END_MS &&
        lk_clock_ns() - s->renewed_ns > LOOK_AGAIN_NS)
        renew(s);
}
/* After a refusal: whether there are others than it was signed with. */
static bool other_keys(struct lk__blob_s3_try *t) {
    struct lk__blob_s3 *s = t->s3;
    if (t->renewals++ == RENEWALS_MOST) return false;
    pthread_mutex_lock(&s->mutex);
    if (s->keys == t->keys) renew(s);
    bool others = s->keys != t->keys;
    pthread_mutex_unlock(&s->mutex);
    return others;
}

/* --- one try ---------------------------------------------------------------------------------------------------- */

static int start_once(struct lk__blob_s3_try *t, struct lk_err *err) {
    struct lk__blob_s3 *s = t->s3;
    const struct lk__blob_s3_ask *a = t->ask;
    struct lk_root payload;
    struct lk_sigv4_signed sign = {0};
    if (a->payload)
        payload = *a->payload;
    else
        lk_sha256(a->body ? a->body : "", a->body_size, &payload);
    char *path = lk_asprintf("/%s%s%s%s", s->bucket_in_host ? "" : s->bucket, !s->bucket_in_host && a->key ? "/" : "",
                             a->key ? s->prefix : "", a->key ? a->key : "");
    struct lk_sigv4_request r = {a->method, s->host, path, a->query, a->query_count, a->headers, payload, time(NULL)};
    pthread_mutex_lock(&s->mutex);
    renew_before_end(s);
    struct lk_sigv4_keys keys = {s->aws.key_id, s->aws.secret, s->aws.session, s->aws.region, "s3"};
    t->keys = s->keys;
    int code = path ? lk_sigv4_sign(&keys, &r, &sign, err) : lk_fail(err, LK_ENOMEM, "out of memory asking %s", s->url);
    pthread_mutex_unlock(&s->mutex);
    char *url = code == 0 ? lk_asprintf("%s%s", s->server, sign.target.data) : NULL;
    if (code == 0 && !url) code = lk_fail(err, LK_ENOMEM, "out of memory asking %s", s->url);
    if (code == 0) {
        if (a->again) a->again(a->arg);
        struct lk_http_request h = {.method = a->method,
                                    .url = url,
                                    .headers = sign.headers,
                                    .body = a->body,
                                    .body_size = a->body_size,
                                    .take = a->take,
                                    .arg = a->arg,
                                    .answer_limit = a->answer_limit,
                                    .deadline_ms = DEADLINE_MS};
        code = lk_http_call_start(s->client, &h, &t->call, err);
    }
    lk_sigv4_release(&sign);
    lk_free(url);
    lk_free(path);
    return code;
}

static void try_once(struct lk__blob_s3_try *t) {
    lk_http_call_free(t->call);
    t->call = NULL;
    t->tries++;
    t->old_keys = false;
    t->code = start_once(t, &t->err);
}

void lk__blob_s3_start(struct lk__blob_s3_try *t, struct lk__blob_s3 *s, const struct lk__blob_s3_ask *a) {
    *t = (struct lk__blob_s3_try){.s3 = s, .ask = a, .began_ns = lk_clock_ns()};
    t->code = get_ready(s, &t->err);
    if (t->code == 0) try_once(t);
}

void lk__blob_s3_end(struct lk__blob_s3_try *t) {
    lk_http_call_free(t->call);
    t->call = NULL;
}

/* --- the server's word ------------------------------------------------------------------------------------------- */

struct error_code {
    char text[CODE_BYTES];
};
static int note_code(void *arg, const char *path, const char *text, size_t size) {
    struct error_code *e = arg;
    if (strcmp(path, "Error/Code") != 0 || size >= CODE_BYTES) return 0;
    for (size_t i = 0; i < size; i++)
        if (!((text[i] >= 'a' && text[i] <= 'z') || (text[i] >= 'A' && text[i] <= 'Z') ||
              (text[i] >= '0' && text[i] <= '9')))
            return 0;
    memcpy(e->text, text, size);
    e->text[size] = 0;
    return 0;
}
/* "NoSuchBucket"; "" where none is told. */
static struct error_code code_of(struct lk__blob_s3_try *t) {
    struct error_code e = {""};
    struct lk_bytes body = lk_http_call_body(t->call);
    if (lk__blob_xml_read(body.data, body.size, "an answer", note_code, &e, NULL) != 0) e.text[0] = 0;
    return e;
}

static bool is_temporary(struct lk__blob_s3_try *t, int status, char *why, size_t size) {
    bool again = status == 429 || status == 408 || status == 500 || (status >= 502 && status <= 504);
    struct error_code e = {""};
    if (again || status == 400 || status == 409 || status == 403) e = code_of(t);
    if (status == 400 || status == 409)
        again = strcmp(e.text, "RequestTimeout") == 0 || strcmp(e.text, "OperationAborted") == 0 ||
                strcmp(e.text, "ConditionalRequestConflict") == 0;
    snprintf(why, size, "status %d%s%s", status, *e.text ? ", " : "", e.text);
    return again;
}

/* Random between a half and all of a pause that doubles, so that many clients do not come back at once. */
static uint64_t pause_ms(struct lk__blob_s3_try *t) {
    uint32_t random = 0;
    uint64_t pause = t->tries > 6 ? MOST_PAUSE_MS : (uint64_t)FIRST_PAUSE_MS << (t->tries - 1);
    if (getrandom(&random, sizeof random, GRND_NONBLOCK) < 0) random = (uint32_t)lk_clock_ns() * 2654435761u;
    if (pause > MOST_PAUSE_MS) pause = MOST_PAUSE_MS;
    pause = pause / 2 + (pause / 2 * random >> 32);
    const char *asked = t->call && lk_http_call_status(t->call) >= 429 ? lk_http_call_header(t->call, "Retry-After") : NULL;
    uint64_t ms = asked && *asked >= '0' && *asked <= '9' ? strtoull(asked, NULL, 10) : 0;
    if (ms > ASKED_MOST_MS / 1000) ms = ASKED_MOST_MS / 1000;
    return ms * 1000 > pause ? ms * 1000 : pause;
}

static void sleep_ms(uint64_t ms) {
    struct timespec t = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};
    while (nanosleep(&t, &t) != 0 && errno == EINTR) {}
}

/* 0: there is another try. */
static int again(struct lk__blob_s3_try *t, int code, const char *why, struct lk_err *err) {
    uint64_t pause = pause_ms(t), spent = (lk_clock_ns() - t->began_ns) / 1000000;
    const char *key = t->ask->key ? t->ask->key : "";
    if (spent + pause > t->s3->patience_ms || (code == LK_ECORRUPT && t->misfits >= MISFITS_MOST))
        return lk_fail(err, code, "%s %s/%s failed, after %d tries in %.1f s: %s", t->ask->method, t->s3->url, key,
                       t->tries, (double)spent / 1000, why);
    sleep_ms(pause);
    try_once(t);
    return 0;
}

/* Whether an answer may mean that the keys are old: S3 says 400 to a token that has ended, and nothing in a HEAD's answer.
 */
static bool refuses_keys(struct lk__blob_s3_try *t, int status) {
    static const char *const old[] = {"ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired"};
    if (status == 403 || status == 401) return true;
    if (status != 400) return false;
    struct error_code e = code_of(t);
    for (size_t i = 0; i < sizeof old / sizeof *old; i++)
        if (strcmp(e.text, old[i]) == 0) return true;
    return strcmp(t->ask->method, "HEAD") == 0;
}

int lk__blob_s3_wait(struct lk__blob_s3_try *t, int *status, struct lk_err *err) {
    for (;;) {
        struct lk_err why = {0};
        char text[128];
        if (t->code) return lk_fail(err, t->code, "%s: %s", t->s3->url, t->err.message);
        int code = lk_http_call_wait(t->call, &why);
        if (code && !(code == LK_EIO && lk_http_call_temporary(t->call)))
            return lk_fail(err, code, "%s: %s", t->s3->url, why.message);
        if (code) {
            if ((code = again(t, LK_EIO, why.message, err))) return code;
            continue;
        }
        *status = lk_http_call_status(t->call);
        const char *problem = NULL;
        if (*status >= 200 && *status < 300 && t->ask->problem) problem = t->ask->problem(t->ask->arg, t->call);
        if (problem) {
            t->misfits++;
            if ((code = again(t, LK_ECORRUPT, problem, err))) return code;
        } else if ((t->old_keys = refuses_keys(t, *status)) && other_keys(t)) {
            try_once(t);
        } else if (!is_temporary(t, *status, text, sizeof text)) {
            return 0;
        } else if ((code = again(t, LK_EIO, text, err)))
            return code;
    }
}

int lk__blob_s3_do(struct lk__blob_s3_try *t, struct lk__blob_s3 *s, const struct lk__blob_s3_ask *a, int *status,
                   struct lk_err *err) {
    lk__blob_s3_start(t, s, a);
    return lk__blob_s3_wait(t, status, err);
}

int lk__blob_s3_unexpected(struct lk__blob_s3_try *t, int status, struct lk_err *err) {
    static const struct {
        const char *code;
        int result;
        const char *hint;
    } known[] = {
        {"NoSuchBucket", LK_ENOTFOUND, "there is no such bucket; make it first"},
        {"InvalidAccessKeyId", LK_EIO, "the server does not know the key's id (AWS_ACCESS_KEY_ID)"},
        {"SignatureDoesNotMatch", LK_EIO, "the secret key is wrong (AWS_SECRET_ACCESS_KEY), or the region (AWS_REGION)"},
        {"ExpiredToken", LK_EIO,
         "the session token has expired; in AWS_SESSION_TOKEN it stays so, a file of keys, a role or SSO would be asked "
         "again"},
        {"RequestTimeTooSkewed", LK_EIO, "this machine's clock differs from the server's by many minutes"},
        {"AccessDenied", LK_EIO, "the key may not do that there"},
        {"AuthorizationHeaderMalformed", LK_EIO, "the bucket is in another region; set AWS_REGION"},
        {"PermanentRedirect", LK_EIO, "the bucket is in another region; set AWS_REGION"},
    };
    struct error_code e = code_of(t);
    const char *hint = status == 403 ? "the key may not do that there"
                       : status >= 300 && status < 400
                           ? "the bucket is in another region, or the endpoint is wrong; nothing is followed"
                           : "";
    int result = LK_EIO;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i].code, e.text) == 0) hint = known[i].hint, result = known[i].result;
    return lk_fail(err, result, "%s %s/%s: the server says %d %s%s%s", t->ask->method, t->s3->url,
                   t->ask->key ? t->ask->key : "", status, e.text, *hint ? "; " : "", hint);
}

/* --- names and times --------------------------------------------------------------------------------------------- */

char *lk__blob_s3_name(const struct lk_root *root, char out[LK__BLOB_S3_NAME_BYTES]) {
    char hex[LK_ROOT_HEX];
    lk_root_hex(root, hex);
    snprintf(out, LK__BLOB_S3_NAME_BYTES, "%.2s/%s", hex, hex + 2);
    return out;
}

bool lk__blob_s3_parse_name(const char *name, size_t size, struct lk_root *out) {
    char hex[LK_ROOT_HEX];
    if (size != LK__BLOB_S3_NAME_BYTES - 1 || name[2] != '/') return false;
    memcpy(hex, name, 2);
    memcpy(hex + 2, name + 3, 62);
    hex[64] = 0;
    for (int i = 0; i < 64; i++)
        if (hex[i] >= 'A' && hex[i] <= 'F') return false;
    return lk_root_parse(hex, out);
}

int64_t lk__blob_s3_time(const char *text) {
    struct tm t = {0};
    const char *rest = text ? strptime(text, "%Y-%m-%dT%H:%M:%S", &t) : NULL;
    if (!rest && text) rest = strptime(text, "%a, %d %b %Y %H:%M:%S GMT", &t);
    if (!rest) return -1;
    int64_t seconds = timegm(&t), ms = 0;
    if (*rest == '.')
        for (int i = 1, unit = 100; i <= 3 && rest[i] >= '0' && rest[i] <= '9'; i++, unit /= 10)
            ms += (rest[i] - '0') * unit;
    return seconds < 0 ? -1 : seconds * 1000 + ms;
}
