/* Keys that services give for a time, with services of the test's own; what they say wrongly, and keys anew. */
#include "lockstep/base/progress.h"
#include "net/aws_inside.h"
#include "net/hostile.h"
#include <sys/stat.h>

static struct hostile server;
static struct {
    char token[32];     /* that was given out, of the metadata service */
    char id[32];        /* of the keys that are given */
    const char *ends;   /* Expiration */
    const char *answer; /* in place of an answer with keys */
    bool no_role, no_token;
    char path[4096]; /* of the last request for keys */
    int tokens;
} service;

static void give_keys(struct hostile_request *r) {
    char body[512];
    int n = service.answer ? snprintf(body, sizeof body, "%s", service.answer)
                           : snprintf(body, sizeof body,
                                      "{\"Code\": \"Success\", \"AccessKeyId\": \"%s\", \"SecretAccessKey\": \"HUSH/+=\", "
                                      "\"Token\": \"HUSHTOKEN==\", \"Expiration\": \"%s\"}",
                                      service.id, service.ends);
    snprintf(service.path, sizeof service.path, "%s", r->target);
    hostile_answer(r, 200, "", body, (size_t)n);
}
static bool metadata(struct hostile_request *r) {
    char value[64];
    if (strcmp(r->method, "PUT") == 0 && strcmp(r->target, "/latest/api/token") == 0 && !service.no_token &&
        hostile_header(r, "X-aws-ec2-metadata-token-ttl-seconds", value, sizeof value)) {
        snprintf(service.token, sizeof service.token, "T%d", ++service.tokens);
        hostile_answer(r, 200, "", service.token, strlen(service.token));
    } else if (!hostile_header(r, "X-aws-ec2-metadata-token", value, sizeof value) || strcmp(value, service.token) != 0)
        hostile_answer(r, 401, "", "", 0);
    else if (strcmp(r->target, "/latest/meta-data/placement/region") == 0)
        hostile_answer(r, 200, "", "eu-test-1", 9);
    else if (service.no_role)
        hostile_answer(r, 404, "", "", 0);
    else if (strcmp(r->target, "/latest/meta-data/iam/security-credentials/") == 0)
        hostile_answer(r, 200, "", "the-role\n", 9);
    else if (strcmp(r->target, "/latest/meta-data/iam/security-credentials/the-role") == 0)
        give_keys(r);
    else
        hostile_answer(r, 404, "", "", 0);
    return true;
}
static bool handle(struct hostile_request *r) {
    char value[64];
    if (strncmp(r->target, "/latest/", 8) == 0) return metadata(r);
    if (strncmp(r->target, "/federation/", 12) == 0) {
        static const char body[] = "{\"roleCredentials\": {\"accessKeyId\": \"SSOID\", \"secretAccessKey\": \"S\", "
                                   "\"sessionToken\": \"T\", \"expiration\": 4102444800000}}";
        snprintf(service.path, sizeof service.path, "%s", r->target);
        bool right = hostile_header(r, "x-amz-sso_bearer_token", value, sizeof value) && strcmp(value, "HUSHSSO") == 0;
        hostile_answer(r, right ? 200 : 401, "", body, right ? sizeof body - 1 : 0);
        return true;
    }
    if (!hostile_header(r, "Authorization", value, sizeof value) || strcmp(value, "HUSHBEARER") != 0)
        hostile_answer(r, 403, "", "", 0);
    else
        give_keys(r);
    return true;
}

static int setup(void **state) {
    static const char *const names[] = {"AWS_ACCESS_KEY_ID",
                                        "AWS_SECRET_ACCESS_KEY",
                                        "AWS_SESSION_TOKEN",
                                        "AWS_PROFILE",
                                        "AWS_REGION",
                                        "AWS_DEFAULT_REGION",
                                        "AWS_ENDPOINT_URL_S3",
                                        "AWS_ENDPOINT_URL",
                                        "AWS_CA_BUNDLE",
                                        "AWS_CONFIG_FILE",
                                        "AWS_EC2_METADATA_DISABLED",
                                        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
                                        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                                        "AWS_CONTAINER_AUTHORIZATION_TOKEN",
                                        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
                                        "AWS_SHARED_CREDENTIALS_FILE",
                                        "AWS_ENDPOINT_URL_SSO",
                                        "no_proxy",
                                        "NO_PROXY"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) unsetenv(names[i]);
    *state = test_dir_make();
    setenv("HOME", *state, 1);
    setenv("http_proxy", "http://127.0.0.1:9", 1); /* the services of this machine are not behind it */
    hostile_open(&server, handle, NULL);
    setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url, 1);
    memset(&service, 0, sizeof service);
    strcpy(service.id, "ROLEID");
    service.ends = "2100-01-01T00:00:00Z";
    return 0;
}
static int teardown(void **state) {
    hostile_close(&server);
    test_dir_remove(*state);
    return 0;
}
static void write_file(const char *dir, const char *name, const char *text) {
    char *path = test_join(dir, name);
    OK(lk_file_write_atomic(path, text, strlen(text), &test_err));
    lk_free(path);
}

static void times(void **state) {
    (void)state;
    assert_int_equal(lk__net_aws_time("1970-01-02T00:00:01Z"), 86401000);
    assert_int_equal(lk__net_aws_time("2100-01-01T00:00:00.123Z"), 4102444800000);
    assert_int_equal(lk__net_aws_time("2100-01-01T00:00:00+00:00"), 4102444800000);
    static const char *const bad[] = {
        "", "soon", "2100-01-01", "2100-01-01T00:00:00", "2100-01-01T00:00:00+05:00", "1960-01-01T00:00:00Z"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) assert_int_equal(lk__net_aws_time(bad[i]), 0);
    assert_int_equal(lk__net_aws_time(NULL), 0);
}

static void an_instance(void **state) {
    struct lk_aws a;
    bool changed;
    (void)state;
    OK(lk_aws_load(&a, &test_err));
    assert_string_equal(a.key_id, "ROLEID");
    assert_string_equal(a.secret, "HUSH/+=");
    assert_string_equal(a.session, "HUSHTOKEN==");
    assert_string_equal(a.region, "eu-test-1");
    assert_int_equal(a.expires_ms, 4102444800000);
    OK(lk_aws_renew(&a, &changed, &test_err));
    assert_false(changed);
    strcpy(service.id, "OTHERID");
    service.ends = "2101-01-01T00:00:00Z";
    OK(lk_aws_renew(&a, &changed, &test_err));
    assert_true(changed);
    assert_string_equal(a.key_id, "OTHERID");
    assert_true(a.expires_ms > 4102444800000);
    service.answer = "{}"; /* what cannot be had changes nothing */
    FAILS(lk_aws_renew(&a, &changed, &test_err), LK_ECORRUPT, "holds no keys");
    assert_string_equal(a.key_id, "OTHERID");
    assert_false(changed);
    lk_aws_release(&a);
    setenv("AWS_REGION", "mine", 1);
    service.answer = NULL;
    OK(lk_aws_load(&a, &test_err));
    assert_string_equal(a.region, "mine");
    lk_aws_release(&a);
}
static void no_instance(void **state) {
    struct lk_aws a;
    (void)state;
    service.no_role = true;
    FAILS(lk_aws_load(&a, &test_err), LK_ENOTFOUND, "no keys for S3: set AWS_ACCESS_KEY_ID");
    service.no_role = false, service.no_token = true; /* of version 1, which anybody can be made to ask, there is nothing */
    FAILS(lk_aws_load(&a, &test_err), LK_ENOTFOUND, "no keys for S3");
    service.no_token = false;
    static const char *const bad[] = {"",
                                      "{",
                                      "[]",
                                      "{\"AccessKeyId\": \"A\"}",
                                      "{\"AccessKeyId\": \"A B\", \"SecretAccessKey\": \"HUSH\"}",
                                      "{\"AccessKeyId\": \"A/B\", \"SecretAccessKey\": \"HUSH\"}",
                                      "{\"AccessKeyId\": \"A\", \"SecretAccessKey\": \"HUSH\\r\\nX: Y\"}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        service.answer = bad[i];
        FAILS(lk_aws_load(&a, &test_err), LK_ECORRUPT, "holds no keys");
        assert_null(strstr(test_err.message, "HUSH"));
    }
    service.answer = NULL;
    setenv("AWS_PROFILE", "named", 1); /* who names one does not mean the machine's */
    FAILS(lk_aws_load(&a, &test_err), LK_ENOTFOUND, "no keys for S3");
    unsetenv("AWS_PROFILE");
    setenv("AWS_EC2_METADATA_DISABLED", "TRUE", 1);
    int before = server.requests;
    FAILS(lk_aws_load(&a, &test_err), LK_ENOTFOUND, "no keys for S3");
    assert_int_equal(server.requests, before);
    unsetenv("AWS_EC2_METADATA_DISABLED");
    setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1", 1);
    uint64_t began = lk_clock_ns();
    FAILS(lk_aws_load(&a, &test_err), LK_ENOTFOUND, "no keys for S3");
    assert_true(lk_clock_ns() - began < 5000000000u);
}

static void a_container(void **state) {
    struct lk_aws a;
    char *uri = lk_asprintf("%s/keys?of=me", server.url), *file = test_join(*state, "token");
    setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri, 1);
    FAILS(lk_aws_load(&a, &test_err), LK_EIO, "the container's service of keys");
    setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "HUSHBEARER", 1);
    OK(lk_aws_load(&a, &test_err));
    assert_string_equal(a.key_id, "ROLEID");
    assert_string_equal(service.path, "/keys?of=me");
    assert_string_equal(a.region, "us-east-1");
    lk_aws_release(&a);
    unsetenv("AWS_CONTAINER_AUTHORIZATION_TOKEN");
    setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file, 1);
    FAILS(lk_aws_load(&a, &test_err), LK_EIO, "token");
    write_file(*state, "token", "HUSHBEARER\n");
    OK(lk_aws_load(&a, &test_err));
    lk_aws_release(&a);
    write_file(*state, "token", "HUSH\r\nX: Y\n");
    FAILS(lk_aws_load(&a, &test_err), LK_EINVAL, "holds a line end");
    assert_null(strstr(test_err.message, "HUSH"));
    static const char *const far[] = {"http://example.org/", "http://127.0.0.1.example.org/", "ftp://127.0.0.1/", "x",
                                      "http://127.0.0.1@example.org/"};
    for (size_t i = 0; i < sizeof far / sizeof *far; i++) {
        setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", far[i], 1);
        FAILS(lk_aws_load(&a, &test_err), LK_EINVAL, "must be https://");
    }
    lk_free(uri);
    lk_free(file);
}

static void a_session_of_sso(void **state) {
    struct lk_aws a;
    char *dir = test_join(*state, ".aws/sso/cache");
    OK(lk_dir_make(dir, &test_err));
    setenv("AWS_ENDPOINT_URL_SSO", server.url, 1);
    setenv("AWS_PROFILE", "work", 1);
    unsetenv("http_proxy"); /* the portal is elsewhere, and so behind one */
    write_file(*state, ".aws/config",
               "[default]\nregion = x\n\n[profile work]\nsso_session = corp\nsso_account_id = 123\nsso_role_name = a b&c\n"
               "region = eu-9\ns3 =\n  addressing_style = path\n\n[sso-session corp]\nsso_start_url = https://x/start\n"
               "sso_region = eu-2\n");
    FAILS(lk_aws_load(&a, &test_err), LK_EIO, "aws sso login");
    /* SHA-1 of "corp" */
    static const char name[] = "ee0bfd2552fbd840c02cc48b6e823320543c450f.json";
    write_file(dir, name, "{\"accessToken\": \"HUSHSSO\", \"expiresAt\": \"2001-01-01T00:00:00Z\"}");
    FAILS(lk_aws_load(&a, &test_err), LK_EIO, "has expired");
    write_file(dir, name, "{\"accessToken\": \"HUSHOLD\", \"expiresAt\": \"2100-01-01T00:00:00Z\"}");
    FAILS(lk_aws_load(&a, &test_err), LK_EIO, "says 401");
    assert_null(strstr(test_err.message, "HUSH"));
    write_file(dir, name, "{\"accessToken\": \"HUSHSSO\", \"expiresAt\": \"2100-01-01T00:00:00UTC\"}");
    OK(lk_aws_load(&a, &test_err));
    assert_string_equal(a.key_id, "SSOID");
    assert_string_equal(a.region, "eu-9");
    assert_int_equal(a.expires_ms, 4102444800000);
    assert_string_equal(service.path, "/federation/credentials?role_name=a%20b%26c&account_id=123");
    lk_aws_release(&a);
    lk_free(dir);
}

static void a_file_says_when(void **state) {
    struct lk_aws a;
    bool changed;
    char *path = test_join(*state, "credentials");
    setenv("AWS_SHARED_CREDENTIALS_FILE", path, 1);
    write_file(*state, "credentials",
               "[default]\naws_access_key_id = A\naws_secret_access_key = B\naws_session_token = C\n"
               "aws_expiration = 2100-01-01T00:00:00Z\n");
    OK(lk_aws_load(&a, &test_err));
    assert_int_equal(a.expires_ms, 4102444800000);
    write_file(*state, "credentials",
               "[default]\naws_access_key_id = A\naws_secret_access_key = B\naws_session_token = D\n");
    OK(lk_aws_renew(&a, &changed, &test_err));
    assert_true(changed);
    assert_string_equal(a.session, "D");
    assert_int_equal(a.expires_ms, 0);
    lk_aws_release(&a);
    lk_free(path);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void) {
    const struct CMUnitTest tests[] = {
        T(times), T(an_instance), T(no_instance), T(a_container), T(a_session_of_sso), T(a_file_says_when),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
