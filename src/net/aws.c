/* Where the AWS tools keep keys, region and endpoint. What is read here is secret: no message quotes a line or a value. */
#include "lockstep/base/file.h"
#include "lockstep/base/ini.h"
#include "lockstep/net/sigv4.h"
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

#define FILE_MOST  ((size_t)1 << 20)
#define VALUE_MOST 8192 /* session tokens are the longest; they may grow */

static const char *environment(const char *name) {
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

/* value: NULL leaves *to as it is. */
static int set(char **to, const char *value, struct lk_err *err) {
    if (!value) return 0;
    wipe(to);
    *to = lk_strdup(value);
    return *to ? 0 : lk_fail(err, LK_ENOMEM, "out of memory for keys");
}

/* Printable and without space: it stands in a header. */
static bool is_plain(const char *text) {
    size_t n = 0;
    for (; text[n]; n++)
        if (text[n] <= ' ' || text[n] > '~' || n == VALUE_MOST) return false;
    return n > 0;
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
        if (values[i].value && !is_plain(values[i].value))
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
        if (e) code = set(to[i], e->value, err);
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

static int load_file(struct lk_aws *out, struct lk_err *err) {
    const char *given = environment("AWS_SHARED_CREDENTIALS_FILE"), *home = environment("HOME");
    const char *profile = environment("AWS_PROFILE");
    struct lk_buf text = LK_BUF_INIT;
    if (!given && !home)
        return lk_fail(err, LK_ENOTFOUND, "no keys for S3: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY");
    char *path = given ? lk_strdup(given) : lk_asprintf("%s/.aws/credentials", home);
    if (!path) return lk_fail(err, LK_ENOMEM, "out of memory for keys");
    int code = lk_file_read(path, FILE_MOST, &text, err);
    if (code == LK_ENOTFOUND)
        lk_fail(err, code, "no keys for S3: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write the file %s", path);
    if (!code) code = lk_aws_parse(text.data ? text.data : "", text.size, path, profile ? profile : "default", out, err);
    if (text.size) OPENSSL_cleanse(text.data, text.size);
    lk_buf_release(&text);
    lk_free(path);
    return code;
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
    const char *id = environment("AWS_ACCESS_KEY_ID"), *secret = environment("AWS_SECRET_ACCESS_KEY");
    const char *region = environment("AWS_REGION"), *endpoint = environment("AWS_ENDPOINT_URL_S3");
    *out = (struct lk_aws){0};
    if (!id != !secret)
        return lk_fail(err, LK_EINVAL, "%s is set and %s is not", id ? "AWS_ACCESS_KEY_ID" : "AWS_SECRET_ACCESS_KEY",
                       id ? "AWS_SECRET_ACCESS_KEY" : "AWS_ACCESS_KEY_ID");
    int code = id ? 0 : load_file(out, err);
    if (!code && id) code = set(&out->key_id, id, err);
    if (!code && id) code = set(&out->secret, secret, err);
    if (!code && id) code = set(&out->session, environment("AWS_SESSION_TOKEN"), err);
    if (!region) region = environment("AWS_DEFAULT_REGION");
    if (!code) code = set(&out->region, region ? region : out->region ? NULL : "us-east-1", err);
    if (!endpoint) endpoint = environment("AWS_ENDPOINT_URL");
    if (!code) code = set(&out->endpoint, endpoint, err);
    if (!code) code = set(&out->ca_file, environment("AWS_CA_BUNDLE"), err);
    if (!code) code = check(out, "S3's environment (AWS_...)", err);
    if (!code) code = check_endpoint(out, err);
    if (code) lk_aws_release(out);
    return code;
}
