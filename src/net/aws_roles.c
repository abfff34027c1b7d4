/* Keys that somebody gives for a time: the service of a container, the metadata of an EC2 instance (version 2, with its
 * token), a session of SSO. What comes from there is wiped once it is used, and no message holds it. */
#include "lockstep/base/file.h"
#include "lockstep/base/ini.h"
#include "lockstep/base/json.h"
#include "lockstep/base/progress.h"
#include "lockstep/net/http_client.h"
#include "net/aws_inside.h"
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define CONNECT_MS  1000 /* of what is on this machine or nowhere */
#define DEADLINE_MS 3000
#define SSO_MS      20000
#define ANSWER_MOST ((size_t)64 << 10)
#define FILE_MOST   ((size_t)1 << 20)

/* --- asking ---------------------------------------------------------------------------------------------- */

struct question {
    const char *method, *url, *headers[2];
    bool near; /* on this machine: no proxy, and no patience */
};
static void wipe(struct lk_buf *b) {
    if (b->size) OPENSSL_cleanse(b->data, b->size);
    lk_buf_release(b);
}
/* LK_ENOTFOUND: nobody is there. */
static int ask(const struct question *q, int *status, struct lk_buf *out, struct lk_err *err) {
    struct lk_http_client_options o = {.connections = 1, .connect_ms = q->near ? CONNECT_MS : SSO_MS, .direct = q->near};
    struct lk_http_request r = {.method = q->method,
                                .url = q->url,
                                .headers = q->headers,
                                .answer_limit = ANSWER_MOST,
                                .deadline_ms = q->near ? DEADLINE_MS : SSO_MS};
    struct lk_http_client *client = NULL;
    struct lk_http_call *call = NULL;
    int code = lk_http_client_open(&o, &client, err);
    if (!code) code = lk_http_call_start(client, &r, &call, err);
    if (!code && (code = lk_http_call_wait(call, err)) == LK_EIO && q->near) code = LK_ENOTFOUND;
    if (!code) {
        struct lk_bytes body = lk_http_call_body(call);
        *status = lk_http_call_status(call);
        if (lk_buf_append(out, body.data ? body.data : "", body.size))
            code = lk_fail(err, LK_ENOMEM, "out of memory for keys");
        if (body.size) OPENSSL_cleanse((void *)(uintptr_t)body.data, body.size);
    }
    lk_http_call_free(call);
    lk_http_client_close(client);
    return code;
}

static const char *word(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text && lk__net_aws_plain(text) ? text : NULL;
}
/* names: those of the id, the secret and the token. */
static int take_keys(const json_t *object, const char *const names[3], int64_t expires_ms, const char *whose,
                     struct lk_aws *out, struct lk_err *err) {
    const char *id = word(object, names[0]), *secret = word(object, names[1]), *token = word(object, names[2]);
    if (!id || !secret || strchr(id, '/')) return lk_fail(err, LK_ECORRUPT, "%s gives an answer that holds no keys", whose);
    int code = lk__net_aws_set(&out->key_id, id, err);
    if (!code) code = lk__net_aws_set(&out->secret, secret, err);
    if (!code) code = lk__net_aws_set(&out->session, token, err);
    out->expires_ms = expires_ms;
    return code;
}
/* The answer of a container's or a machine's service. */
static int take_role(const struct lk_buf *body, const char *whose, struct lk_aws *out, struct lk_err *err) {
    static const char *const names[] = {"AccessKeyId", "SecretAccessKey", "Token"};
    json_t *json = lk_json_parse(body->data ? body->data : "", body->size, whose, NULL);
    int code =
        take_keys(json, names, lk__net_aws_time(json_string_value(json_object_get(json, "Expiration"))), whose, out, err);
    json_decref(json);
    return code;
}

/* --- a container's role (ECS, EKS) ----------------------------------------------------------------------- */

/* Without TLS only to the addresses that such services have: anybody who sets the variable would get the token else. */
static bool may_ask(const char *url) {
    static const char *const hosts[] = {"127.0.0.1",     "localhost",      "[::1]",
                                        "169.254.170.2", "169.254.170.23", "[fd00:ec2::23]"};
    if (strncmp(url, "https://", 8) == 0) return true;
    if (strncmp(url, "http://", 7) != 0) return false;
    const char *host = url + 7;
    size_t n = *host == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":/?#@");
    if (host[n] && !strchr(":/", host[n])) return false;
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++)
        if (strlen(hosts[i]) == n && strncasecmp(host, hosts[i], n) == 0) return true;
    return false;
}
static int container_token(struct lk_buf *header, struct lk_err *err) {
    const char *file = lk__net_aws_environment("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
    const char *given = lk__net_aws_environment("AWS_CONTAINER_AUTHORIZATION_TOKEN");
    struct lk_buf text = LK_BUF_INIT;
    int code = file ? lk_file_read(file, FILE_MOST, &text, err) : 0;
    if (!code && !file && given && lk_buf_append(&text, given, strlen(given)))
        code = lk_fail(err, LK_ENOMEM, "out of memory for keys");
    while (text.size && strchr("\r\n", text.data[text.size - 1])) text.data[--text.size] = 0;
    if (!code && text.size && strpbrk(text.data, "\r\n"))
        code = lk_fail(err, LK_EINVAL, "the container's authorization token holds a line end");
    if (!code && text.size && lk_buf_printf(header, "Authorization: %s", text.data))
        code = lk_fail(err, LK_ENOMEM, "out of memory for keys");
    wipe(&text);
    return code == LK_ENOTFOUND ? LK_EIO : code;
}
int lk__net_aws_container(struct lk_aws *out, struct lk_err *err) {
    const char *relative = lk__net_aws_environment("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    const char *full = lk__net_aws_environment("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    struct lk_buf header = LK_BUF_INIT, body = LK_BUF_INIT;
    int status = 0;
    if (!relative && !full) return LK_ENOTFOUND;
    if (!relative && !may_ask(full))
        return lk_fail(
            err, LK_EINVAL,
            "AWS_CONTAINER_CREDENTIALS_FULL_URI must be https://, or http:// to this machine or to the addresses "
            "that containers have for it");
    char *url = relative ? lk_asprintf("http://169.254.170.2%s", relative) : lk_strdup(full);
    int code = url ? container_token(&header, err) : lk_fail(err, LK_ENOMEM, "out of memory for keys");
    struct question q = {"GET", url, {header.size ? header.data : NULL}, true};
    if (!code) code = ask(&q, &status, &body, err);
    if (code == LK_ENOTFOUND || (!code && status != 200))
        code = lk_fail(err, LK_EIO, "the container's service of keys (AWS_CONTAINER_CREDENTIALS_...) %s",
                       status ? "refuses them" : "does not answer");
    if (!code) code = take_role(&body, "the container's service of keys", out, err);
    lk_free(url);
    wipe(&header);
    wipe(&body);
    return code;
}

/* --- an instance's role (EC2) ---------------------------------------------------------------------------- */

/* path: below the service. LK_ENOTFOUND: there is no such thing. */
static int metadata(const char *path, const char *token, struct lk_buf *out, struct lk_err *err) {
    const char *base = lk__net_aws_environment("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    if (!base) base = "http://169.254.169.254";
    size_t n = strlen(base);
    char *url = lk_asprintf("%.*s/latest/%s", (int)(n && base[n - 1] == '/' ? n - 1 : n), base, path);
    char *header =
        token ? lk_asprintf("X-aws-ec2-metadata-token: %s", token) : lk_strdup("X-aws-ec2-metadata-token-ttl-seconds: 300");
    struct question q = {token ? "GET" : "PUT", url, {header}, true};
    int status = 0, code = url && header ? ask(&q, &status, out, err) : lk_fail(err, LK_ENOMEM, "out of memory for keys");
    if (!code && (status == 404 || (!token && status != 200))) code = LK_ENOTFOUND; /* others' services know no tokens */
    if (!code && status != 200) code = lk_fail(err, LK_EIO, "this machine's metadata service says %d to %s", status, path);
    while (!code && out->size && strchr("\r\n", out->data[out->size - 1])) out->data[--out->size] = 0;
    if (header) OPENSSL_cleanse(header, strlen(header));
    lk_free(header);
    lk_free(url);
    return code;
}
static int role_of(const char *token, struct lk_buf *path, struct lk_err *err) {
    static const char all[] = "meta-data/iam/security-credentials/";
    struct lk_buf names = LK_BUF_INIT;
    int code = metadata(all, token, &names, err);
    size_t n = names.data ? strcspn(names.data, "\r\n") : 0;
    if (!code && !n) code = LK_ENOTFOUND;
    for (size_t i = 0; i < n && !code; i++)
        if (!strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+=,.@_-", names.data[i]))
            code = lk_fail(err, LK_ECORRUPT, "this machine's metadata service gives a role that has no name");
    if (!code && lk_buf_printf(path, "%s%.*s", all, (int)n, names.data))
        code = lk_fail(err, LK_ENOMEM, "out of memory for keys");
    lk_buf_release(&names);
    return code;
}
int lk__net_aws_instance(struct lk_aws *out, struct lk_err *err) {
    const char *disabled = lk__net_aws_environment("AWS_EC2_METADATA_DISABLED");
    struct lk_buf token = LK_BUF_INIT, path = LK_BUF_INIT, body = LK_BUF_INIT, region = LK_BUF_INIT;
    if (disabled && strcasecmp(disabled, "true") == 0) return LK_ENOTFOUND;
    int code = metadata("api/token", NULL, &token, err);
    if (!code && (!token.size || !lk__net_aws_plain(token.data))) code = LK_ENOTFOUND; /* not Amazon's */
    if (!code) code = role_of(token.data, &path, err);
    if (!code) code = metadata(path.data, token.data, &body, err);
    if (!code) code = take_role(&body, "this machine's metadata service", out, err);
    if (!code && !out->region && metadata("meta-data/placement/region", token.data, &region, NULL) == 0 && region.size &&
        lk__net_aws_plain(region.data))
        code = lk__net_aws_set(&out->region, region.data, err);
    wipe(&token);
    wipe(&path);
    wipe(&body);
    lk_buf_release(&region);
    return code;
}

/* --- a session of SSO ------------------------------------------------------------------------------------ */

struct sso {
    const char *session, *url, *region, *account, *role; /* session: NULL where the profile has all itself */
};
static const char *entry(const struct lk_ini *ini, const char *section, const char *key) {
    const struct lk_ini_entry *e = lk_ini_find(ini, section, key);
    return e && *e->value ? e->value : NULL;
}
static bool find_session(const struct lk_ini *ini, const char *profile, struct sso *s) {
    char section[256];
    snprintf(section, sizeof section, strcmp(profile, "default") == 0 ? "%s" : "profile %s", profile);
    *s = (struct sso){entry(ini, section, "sso_session"), entry(ini, section, "sso_start_url"),
                      entry(ini, section, "sso_region"), entry(ini, section, "sso_account_id"),
                      entry(ini, section, "sso_role_name")};
    if (s->session) {
        snprintf(section, sizeof section, "sso-session %s", s->session);
        s->url = entry(ini, section, "sso_start_url"), s->region = entry(ini, section, "sso_region");
    }
    return s->url && s->region && s->account && s->role;
}
/* ~/.aws/sso/cache/SHA1.json, as `aws sso login` writes it. */
static json_t *cached_session(const struct sso *s, struct lk_err *err) {
    const char *of = s->session ? s->session : s->url, *home = lk__net_aws_environment("HOME");
    unsigned char sha1[EVP_MAX_MD_SIZE];
    char hex[41] = "";
    struct lk_buf text = LK_BUF_INIT;
    if (!home || !EVP_Digest(of, strlen(of), sha1, NULL, EVP_sha1(), NULL)) return NULL;
    for (int i = 0; i < 20; i++) snprintf(hex + 2 * i, 3, "%02x", sha1[i]);
    char *path = lk_asprintf("%s/.aws/sso/cache/%s.json", home, hex);
    json_t *json = NULL;
    if (path && lk_file_read(path, FILE_MOST, &text, err) == 0) json = lk_json_parse(text.data, text.size, path, NULL);
    wipe(&text);
    lk_free(path);
    return json;
}
/* Percent-encoded, as a value of a query. */
static void append_coded(struct lk_buf *out, const char *text) {
    for (; *text; text++)
        if (strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~", *text))
            lk_buf_append(out, text, 1);
        else
            lk_buf_printf(out, "%%%02X", (unsigned char)*text);
}
static int exchange(const struct sso *s, const char *token, struct lk_aws *out, struct lk_err *err) {
    static const char *const names[] = {"accessKeyId", "secretAccessKey", "sessionToken"};
    const char *base = lk__net_aws_environment("AWS_ENDPOINT_URL_SSO");
    struct lk_buf url = LK_BUF_INIT, body = LK_BUF_INIT;
    char *header = lk_asprintf("x-amz-sso_bearer_token: %s", token);
    int status = 0;
    if (base)
        lk_buf_printf(&url, "%s", base);
    else
        lk_buf_printf(&url, "https://portal.sso.%s.amazonaws.com", s->region);
    lk_buf_printf(&url, "/federation/credentials?role_name=");
    append_coded(&url, s->role);
    lk_buf_printf(&url, "&account_id=");
    append_coded(&url, s->account);
    struct question q = {"GET", url.data, {header}, false};
    int code = header && url.data ? ask(&q, &status, &body, err) : lk_fail(err, LK_ENOMEM, "out of memory for keys");
    if (!code && status != 200)
        code = lk_fail(err, LK_EIO, "the SSO portal says %d to the session that is cached; `aws sso login` makes a new one",
                       status);
    if (!code) {
        json_t *json = lk_json_parse(body.data ? body.data : "", body.size, "the SSO portal", NULL);
        const json_t *keys = json_object_get(json, "roleCredentials");
        code = take_keys(keys, names, json_integer_value(json_object_get(keys, "expiration")), "the SSO portal", out, err);
        json_decref(json);
    }
    if (header) OPENSSL_cleanse(header, strlen(header));
    lk_free(header);
    wipe(&body);
    lk_buf_release(&url);
    return code;
}
int lk__net_aws_sso(const char *profile, struct lk_aws *out, struct lk_err *err) {
    const char *given = lk__net_aws_environment("AWS_CONFIG_FILE"), *home = lk__net_aws_environment("HOME");
    char *path = given ? lk_strdup(given) : lk_asprintf("%s/.aws/config", home ? home : "");
    struct lk_buf text = LK_BUF_INIT;
    struct lk_ini ini = {0};
    struct sso s;
    int code = path ? lk_file_read(path, FILE_MOST, &text, NULL) : LK_ENOMEM;
    lk_free(path);
    if (!code) code = lk_ini_parse(text.data ? text.data : "", text.size, "config", &ini, NULL);
    lk_buf_release(&text);
    if (code) return LK_ENOTFOUND; /* it has much that is not ours to judge */
    if (!find_session(&ini, profile, &s)) code = LK_ENOTFOUND;
    json_t *session = code ? NULL : cached_session(&s, NULL);
    const char *token = word(session, "accessToken");
    int64_t end = lk__net_aws_time(json_string_value(json_object_get(session, "expiresAt")));
    if (!code && (!token || (end && end < lk_clock_wall_ms())))
        code = lk_fail(err, LK_EIO, "the SSO session of the profile \"%.100s\" %s: `aws sso login` makes a new one",
                       profile, token ? "has expired" : "is not in ~/.aws/sso/cache");
    if (!code) code = exchange(&s, token, out, err);
    if (!code && !out->region) {
        char section[256];
        snprintf(section, sizeof section, strcmp(profile, "default") == 0 ? "%s" : "profile %s", profile);
        code = lk__net_aws_set(&out->region, entry(&ini, section, "region"), err);
    }
    json_decref(session);
    lk_ini_release(&ini);
    return code;
}
