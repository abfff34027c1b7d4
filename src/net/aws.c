/* Where the AWS tools keep keys, region and endpoint. What is read here is secret: no message quotes a line or a value. */
#include "lockstep/base/file.h"
#include "lockstep/base/ini.h"
#include "net/aws_inside.h"
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define FILE_MOST ((size_t)1 << 20)

const char *lk__net_aws_environment(const char *name) {
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

static void wipe(char **text) {
    if (*text) OPENSSL_cleanse(*text, strlen(*text));
    lk_free(*text);
    *text = NULL;
}

void lk_aws_release(struct lk_aws *a) {
    wipe(&a->key_id);
    wipe(&a->secret);
    wipe(&a->session);
    lk_free(a->region);
    lk_free(a->endpoint);
    lk_free(a->ca_file);
    *a = (struct lk_aws){0};
}

int lk__net_aws_set(char **to, const char *value, struct lk_err *err) {
    if (!value) return 0;
    wipe(to);
    *to = lk_strdup(value);
    return *to ? 0 : lk_fail(err, LK_ENOMEM, "out of memory for keys");
}

bool lk__net_aws_plain(const char *text) {
    size_t n = 0;
    for (; text[n]; n++)
        if (text[n] <= ' ' || text[n] > '~' || n == LK__NET_AWS_VALUE) return false;
    return n > 0;
}

int64_t lk__net_aws_time(const char *text) {
    struct tm t = {0};
    const char *rest = text ? strptime(text, "%Y-%m-%dT%H:%M:%S", &t) : NULL;
    if (!rest) return 0;
    if (*rest == '.') rest += 1 + strspn(rest + 1, "0123456789");
    bool utc =
        strcmp(rest, "Z") == 0 || strcmp(rest, "UTC") == 0 || strcmp(rest, "+00:00") == 0 || strcmp(rest, "+0000") == 0;
    time_t seconds = utc ? timegm(&t) : 0;
    return seconds > 0 ? (int64_t)seconds * 1000 : 0;
}

static int check(const struct lk_aws *a, const char *where, struct lk_err *err) {
    const struct {
        const char *name, *value;
    } values[] = {{"the key's id", a->key_id},
                  {"the secret key", a->secret},
                  {"the session token", a->session},
                  {"the region", a->region},
                  {"the endpoint", a->endpoint}};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        if (values[i].value && !lk__net_aws_plain(values[i].value))
            return lk_fail(err, LK_EINVAL, "%s: %s is empty, too long, or holds a space or a character that is not ASCII",
                           where, values[i].name);
    /* They go into the text that is signed, between slashes. */
    if ((a->region && strchr(a->region, '/')) || (a->key_id && strchr(a->key_id, '/')))
        return lk_fail(err, LK_EINVAL, "%s: the region or the key's id holds a /", where);
    return 0;
}

/* lk_ini's messages quote the line behind the problem. */
static int fail_quietly(const struct lk_err *quoted, const char *name, struct lk_err *err) {
    size_t n = strlen(name);
    int line = strncmp(quoted->message, name, n) == 0 && quoted->message[n] == ':' ? atoi(quoted->message + n + 1) : 0;
    if (quoted->code != LK_EINVAL) return lk_fail(err, quoted->code, "%s", quoted->message);
    return lk_fail(err, LK_EINVAL,
                   "%s:%d: this file of keys cannot be read: wanted are lines [profile] and key = value, each key once",
                   name, line);
}

int lk_aws_parse(const char *text, size_t size, const char *name, const char *profile, struct lk_aws *out,
                 struct lk_err *err) {
    struct lk_ini ini;
    struct lk_err quoted = {0};
    *out = (struct lk_aws){0};
    if (lk_ini_parse(text, size, name, &ini, &quoted) != 0) return fail_quietly(&quoted, name, err);
    static const char *const keys[] = {"aws_access_key_id", "aws_secret_access_key", "aws_session_token", "region",
                                       "endpoint_url"};
    char **const to[] = {&out->key_id, &out->secret, &out->session, &out->region, &out->endpoint};
    int code = 0;
    for (size_t i = 0; i < 5 && !code; i++) {
        const struct lk_ini_entry *e = lk_ini_find(&ini, profile, keys[i]);
        if (e) code = lk__net_aws_set(to[i], e->value, err);
    }
    /* What programs that write temporary keys into the file call their end. */
    static const char *const ends[] = {"aws_expiration", "aws_session_expiration", "x_security_token_expires"};
    for (size_t i = 0; i < 3 && !code && !out->expires_ms; i++) {
        const struct lk_ini_entry *e = lk_ini_find(&ini, profile, ends[i]);
        if (e) out->expires_ms = lk__net_aws_time(e->value);
    }
    for (size_t i = 0; i < ini.count; i++) OPENSSL_cleanse(ini.entries[i].value, strlen(ini.entries[i].value));
    lk_ini_release(&ini);
    if (!code && (!out->key_id || !out->secret))
        code = lk_fail(err, LK_ENOTFOUND, "%s: the profile \"%.100s\" has no aws_access_key_id and aws_secret_access_key",
                       name, profile);
    if (!code) code = check(out, name, err);
    if (code) lk_aws_release(out);
    return code;
}

static int load_file(const char *profile, struct lk_aws *out, struct lk_err *err) {
    const char *given = lk__net_aws_environment("AWS_SHARED_CREDENTIALS_FILE"), *home = lk__net_aws_environment("HOME");
    struct lk_buf text = LK_BUF_INIT;
    if (!given && !home)
        return lk_fail(err, LK_ENOTFOUND, "no keys for S3: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY");
    char *path = given ? lk_strdup(given) : lk_asprintf("%s/.aws/credentials", home);
    if (!path) return lk_fail(err, LK_ENOMEM, "out of memory for keys");
    int code = lk_file_read(path, FILE_MOST, &text, err);
    if (code == LK_ENOTFOUND)
        lk_fail(err, code, "no keys for S3: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write the file %s", path);
    if (!code) code = lk_aws_parse(text.data ? text.data : "", text.size, path, profile, out, err);
    if (text.size) OPENSSL_cleanse(text.data, text.size);
    lk_buf_release(&text);
    lk_free(path);
    return code;
}

/* In the order of the AWS tools: the environment, a file, a session of SSO, the role of the container or the machine, which
 * a profile that is named is not. The message is the file's, if none of them is there. */
static int load_keys(struct lk_aws *out, struct lk_err *err) {
    const char *id = lk__net_aws_environment("AWS_ACCESS_KEY_ID"),
               *secret = lk__net_aws_environment("AWS_SECRET_ACCESS_KEY");
    const char *named = lk__net_aws_environment("AWS_PROFILE"), *profile = named ? named : "default";
    struct lk_err nobody = {0};
    if (!id != !secret)
        return lk_fail(err, LK_EINVAL, "%s is set and %s is not", id ? "AWS_ACCESS_KEY_ID" : "AWS_SECRET_ACCESS_KEY",
                       id ? "AWS_SECRET_ACCESS_KEY" : "AWS_ACCESS_KEY_ID");
    if (id) {
        int code = lk__net_aws_set(&out->key_id, id, err);
        if (!code) code = lk__net_aws_set(&out->secret, secret, err);
        return code ? code : lk__net_aws_set(&out->session, lk__net_aws_environment("AWS_SESSION_TOKEN"), err);
    }
    int code = load_file(profile, out, &nobody);
    if (code != LK_ENOTFOUND) return code ? lk_fail(err, code, "%s", nobody.message) : 0;
    code = lk__net_aws_sso(profile, out, err);
    if (code == LK_ENOTFOUND && !named) code = lk__net_aws_container(out, err);
    if (code == LK_ENOTFOUND && !named) code = lk__net_aws_instance(out, err);
    return code == LK_ENOTFOUND || code == LK_EUNSUPPORTED ? lk_fail(err, LK_ENOTFOUND, "%s", nobody.message) : code;
}

/* An endpoint is a server; the path is the bucket's. */
static int check_endpoint(struct lk_aws *a, struct lk_err *err) {
    if (!a->endpoint) return 0;
    size_t n = strlen(a->endpoint);
    const char *host = strncmp(a->endpoint, "https://", 8) == 0  ? a->endpoint + 8
                       : strncmp(a->endpoint, "http://", 7) == 0 ? a->endpoint + 7
                                                                 : NULL;
    if (host && *host && a->endpoint[n - 1] == '/') a->endpoint[n - 1] = 0;
    if (host && *host && !strpbrk(host, "/?#@\\")) return 0;
    return lk_fail(err, LK_EINVAL,
                   "the endpoint of S3 (AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL) must be http:// or https:// and a "
                   "server's name, perhaps a port, nothing else");
}

int lk_aws_load(struct lk_aws *out, struct lk_err *err) {
    const char *region = lk__net_aws_environment("AWS_REGION"), *endpoint = lk__net_aws_environment("AWS_ENDPOINT_URL_S3");
    *out = (struct lk_aws){0};
    if (!region) region = lk__net_aws_environment("AWS_DEFAULT_REGION");
    if (!endpoint) endpoint = lk__net_aws_environment("AWS_ENDPOINT_URL");
    int code = lk__net_aws_set(&out->region, region, err); /* who knows it need not be asked */
    if (!code) code = load_keys(out, err);
    if (!code) code = lk__net_aws_set(&out->region, region ? region : out->region ? NULL : "us-east-1", err);
    if (!code) code = lk__net_aws_set(&out->endpoint, endpoint, err);
    if (!code) code = lk__net_aws_set(&out->ca_file, lk__net_aws_environment("AWS_CA_BUNDLE"), err);
    if (!code) code = check(out, "S3's environment (AWS_...)", err);
    if (!code) code = check_endpoint(out, err);
    if (code) lk_aws_release(out);
    return code;
}

static bool same(const char *a, const char *b) {
    return a && b ? strcmp(a, b) == 0 : a == b;
}
static void exchange(char **a, char **b) {
    char *old = *a;
    *a = *b, *b = old;
}
int lk_aws_renew(struct lk_aws *a, bool *changed, struct lk_err *err) {
    struct lk_aws now;
    *changed = false;
    int code = lk_aws_load(&now, err);
    if (code) return code;
    *changed = !same(a->key_id, now.key_id) || !same(a->secret, now.secret) || !same(a->session, now.session);
    exchange(&a->key_id, &now.key_id);
    exchange(&a->secret, &now.secret);
    exchange(&a->session, &now.session);
    a->expires_ms = now.expires_ms;
    lk_aws_release(&now);
    return 0;
}
