/* Signature Version 4: a canonical text of the request is hashed, and that hash signed by a key that the secret, the day,
 * the region and the service give. */
#include "lockstep/net/sigv4.h"
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define HASH_BYTES 32
#define QUERY_MOST 16

/* RFC 3986: all but the unreserved as %XX, in capitals. */
static int put_encoded(struct lk_buf *out, const char *text, bool keep_slash) {
    int code = lk_buf_reserve(out, 1);
    for (const unsigned char *p = (const unsigned char *)text; *p && !code; p++) {
        bool plain = (*p >= 'A' && *p <= 'Z') || (*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9') || *p == '-' ||
                     *p == '.' || *p == '_' || *p == '~' || (*p == '/' && keep_slash);
        code = plain ? lk_buf_append(out, p, 1) : lk_buf_printf(out, "%%%02X", *p);
    }
    return code;
}

static int hmac(const void *key, size_t key_size, const char *text, unsigned char out[HASH_BYTES]) {
    unsigned int n = HASH_BYTES;
    return HMAC(EVP_sha256(), key, (int)key_size, (const unsigned char *)text, strlen(text), out, &n) ? 0 : LK_ENOMEM;
}

/* --- the canonical request ----------------------------------------------------------------------------------- */

/* Pairs sorted by their encoded names, then values; both are texts in one buffer, at these offsets. */
struct pair {
    size_t name, value;
};
static int put_query(struct lk_buf *out, const struct lk_sigv4_request *r) {
    struct lk_buf texts = LK_BUF_INIT;
    struct pair pairs[QUERY_MOST];
    int code = 0;
    for (size_t i = 0; i < r->query_count && !code; i++) {
        struct pair p = {.name = texts.size};
        code = put_encoded(&texts, r->query[i].name, false) || lk_buf_append(&texts, "", 1);
        p.value = texts.size;
        code = code || put_encoded(&texts, r->query[i].value, false) || lk_buf_append(&texts, "", 1) ? LK_ENOMEM : 0;
        size_t at = i;
        for (; !code && at; at--) {
            int order = strcmp(texts.data + pairs[at - 1].name, texts.data + p.name);
            if (order == 0) order = strcmp(texts.data + pairs[at - 1].value, texts.data + p.value);
            if (order <= 0) break;
            pairs[at] = pairs[at - 1];
        }
        pairs[at] = p;
    }
    for (size_t i = 0; i < r->query_count && !code; i++)
        code = lk_buf_printf(out, "%s%s=%s", i ? "&" : "", texts.data + pairs[i].name, texts.data + pairs[i].value);
    lk_buf_release(&texts);
    return code;
}

/* A header by its name in lower case, and its value with single spaces and none around it. */
static int put_header(struct lk_buf *out, const char *line) {
    const char *colon = strchr(line, ':'), *value = colon + 1;
    int code = 0;
    for (const char *p = line; p < colon && !code; p++) {
        char low = *p >= 'A' && *p <= 'Z' ? (char)(*p | 32) : *p;
        code = lk_buf_append(out, &low, 1);
    }
    if (!code) code = lk_buf_append(out, ":", 1);
    bool began = false, space = false;
    for (; *value && !code; value++) {
        if (*value == ' ' || *value == '\t') {
            space = began;
            continue;
        }
        if (space) code = lk_buf_append(out, " ", 1);
        if (!code) code = lk_buf_append(out, value, 1);
        began = true;
        space = false;
    }
    return code ? code : lk_buf_append(out, "\n", 1);
}

static int compare_names(const char *a, const char *b) {
    size_t x = strcspn(a, ":"), y = strcspn(b, ":");
    int order = strncasecmp(a, b, x < y ? x : y);
    return order ? order : (x > y) - (x < y);
}

/* Sorted by name, stable. lines: (count) */
static void sort_headers(const char **lines, size_t count) {
    for (size_t i = 1; i < count; i++) {
        const char *line = lines[i];
        size_t at = i;
        for (; at && compare_names(lines[at - 1], line) > 0; at--) lines[at] = lines[at - 1];
        lines[at] = line;
    }
}

static int put_names(struct lk_buf *out, const char **lines, size_t count) {
    int code = 0;
    for (size_t i = 0; i < count && !code; i++) {
        if (i) code = lk_buf_append(out, ";", 1);
        for (const char *p = lines[i]; *p != ':' && !code; p++) {
            char low = *p >= 'A' && *p <= 'Z' ? (char)(*p | 32) : *p;
            code = lk_buf_append(out, &low, 1);
        }
    }
    return code;
}

/* --- signing -------------------------------------------------------------------------------------------------- */

struct signing {
    const struct lk_sigv4_keys *keys;
    const struct lk_sigv4_request *request;
    struct lk_sigv4_signed *out;
    char day[9], time[17], payload[LK_ROOT_HEX], hash[LK_ROOT_HEX], signature[LK_ROOT_HEX];
    struct lk_buf host, names, query;
    const char *lines[LK_SIGV4_HEADERS + 1]; /* that are signed, sorted */
    size_t count;
};

static int put_line(struct signing *s, size_t *at, const char *name, const char *value) {
    *at = s->out->text.size;
    return lk_buf_printf(&s->out->text, "%s: %s", name, value) || lk_buf_append(&s->out->text, "", 1) ? LK_ENOMEM : 0;
}

/* The lines made here go to out->text, which moves while it grows: offsets first. */
static int make_headers(struct signing *s, struct lk_err *err) {
    size_t at[3], made = 0, given = 0;
    bool s3 = strcmp(s->keys->service, "s3") == 0;
    while (s->request->headers && s->request->headers[given]) given++;
    if (given + 5 > LK_SIGV4_HEADERS || s->request->query_count > QUERY_MOST)
        return lk_fail(err, LK_EINVAL, "a request has too many headers or pairs to be signed");
    int code = put_line(s, &at[made++], "x-amz-date", s->time);
    if (!code && s3) code = put_line(s, &at[made++], "x-amz-content-sha256", s->payload);
    if (!code && s->keys->session) code = put_line(s, &at[made++], "x-amz-security-token", s->keys->session);
    if (!code) code = lk_buf_printf(&s->host, "host:%s", s->request->host);
    if (code) return lk_fail(err, LK_ENOMEM, "out of memory to sign a request");
    s->lines[s->count++] = s->host.data;
    for (size_t i = 0; i < given; i++) s->lines[s->count++] = s->out->headers[i] = s->request->headers[i];
    for (size_t i = 0; i < made; i++) s->lines[s->count++] = s->out->headers[given + i] = s->out->text.data + at[i];
    sort_headers(s->lines, s->count);
    return 0;
}

static int hash_request(struct signing *s) {
    struct lk_buf text = LK_BUF_INIT;
    struct lk_root hash;
    int code = lk_buf_printf(&text, "%s\n", s->request->method);
    if (!code) code = put_encoded(&text, s->request->path, true);
    if (!code) code = lk_buf_printf(&text, "\n%s\n", s->query.data ? s->query.data : "");
    for (size_t i = 0; i < s->count && !code; i++) code = put_header(&text, s->lines[i]);
    if (!code) code = lk_buf_printf(&text, "\n%s\n%s", s->names.data, s->payload);
    if (!code) {
        lk_sha256(text.data, text.size, &hash);
        lk_root_hex(&hash, s->hash);
    }
    lk_buf_release(&text);
    return code;
}

static int sign_hash(struct signing *s) {
    const struct lk_sigv4_keys *k = s->keys;
    unsigned char key[HASH_BYTES];
    struct lk_root signature;
    char *first = lk_asprintf("AWS4%s", k->secret);
    char *text =
        lk_asprintf("AWS4-HMAC-SHA256\n%s\n%s/%s/%s/aws4_request\n%s", s->time, s->day, k->region, k->service, s->hash);
    int code = first && text ? hmac(first, strlen(first), s->day, key) : LK_ENOMEM;
    if (!code) code = hmac(key, sizeof key, k->region, key);
    if (!code) code = hmac(key, sizeof key, k->service, key);
    if (!code) code = hmac(key, sizeof key, "aws4_request", key);
    if (!code) code = hmac(key, sizeof key, text, signature.bytes);
    if (!code) lk_root_hex(&signature, s->signature);
    OPENSSL_cleanse(key, sizeof key);
    if (first) OPENSSL_cleanse(first, strlen(first));
    lk_free(first);
    lk_free(text);
    return code;
}

static int put_authorization(struct signing *s) {
    size_t last = 0;
    while (s->out->headers[last]) last++;
    int code = lk_buf_printf(&s->out->authorization,
                             "Authorization: AWS4-HMAC-SHA256 Credential=%s/%s/%s/%s/aws4_request, SignedHeaders=%s, "
                             "Signature=%s",
                             s->keys->key_id, s->day, s->keys->region, s->keys->service, s->names.data, s->signature);
    if (!code) s->out->headers[last] = s->out->authorization.data;
    return code;
}

int lk_sigv4_sign(const struct lk_sigv4_keys *keys, const struct lk_sigv4_request *r, struct lk_sigv4_signed *out,
                  struct lk_err *err) {
    struct signing s = {.keys = keys, .request = r, .out = out};
    struct tm t;
    time_t at = (time_t)r->time_s;
    *out = (struct lk_sigv4_signed){0};
    if (!gmtime_r(&at, &t) || !strftime(s.day, sizeof s.day, "%Y%m%d", &t) ||
        !strftime(s.time, sizeof s.time, "%Y%m%dT%H%M%SZ", &t))
        return lk_fail(err, LK_EINVAL, "the clock shows no time that a request could be signed with");
    lk_root_hex(&r->payload, s.payload);
    int code = make_headers(&s, err);
    if (!code) {
        code = put_query(&s.query, r) || put_names(&s.names, s.lines, s.count) || hash_request(&s) || sign_hash(&s) ||
               put_encoded(&out->target, r->path, true) ||
               (s.query.size && lk_buf_printf(&out->target, "?%s", s.query.data)) || put_authorization(&s);
        if (code) code = lk_fail(err, LK_ENOMEM, "out of memory to sign a request");
    }
    lk_buf_release(&s.host);
    lk_buf_release(&s.names);
    lk_buf_release(&s.query);
    if (code) lk_sigv4_release(out);
    return code;
}

void lk_sigv4_release(struct lk_sigv4_signed *s) {
    if (s->text.size) OPENSSL_cleanse(s->text.data, s->text.size);
    lk_buf_release(&s->text);
    lk_buf_release(&s->authorization);
    lk_buf_release(&s->target);
    *s = (struct lk_sigv4_signed){0};
}
