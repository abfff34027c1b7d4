/* Signatures by the values of Amazon's documentation ("Authenticating Requests: Using the Authorization Header", the
 * examples of a payload in a single chunk; the test suite of Signature Version 4), and the files of keys. */
#include "base/testing.h"
#include "lockstep/net/sigv4.h"
#include <sys/stat.h>

static const struct lk_sigv4_keys example = {"AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", NULL,
                                             "us-east-1", "s3"};
static const struct lk_sigv4_keys suite = {"AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", NULL, "us-east-1",
                                           "service"};

static void signature_is(const struct lk_sigv4_keys *keys, struct lk_sigv4_request r, const char *body, const char *target,
                         const char *names, const char *signature) {
    struct lk_sigv4_signed s;
    char want[1024];
    lk_sha256(body, strlen(body), &r.payload);
    OK(lk_sigv4_sign(keys, &r, &s, &test_err));
    size_t n = 0;
    while (s.headers[n]) n++;
    snprintf(want, sizeof want, "SignedHeaders=%s, Signature=%s", names, signature);
    if (!strstr(s.headers[n - 1], want)) fail_msg("%s, not %s", s.headers[n - 1], want);
    assert_string_equal(s.target.data, target);
    lk_sigv4_release(&s);
    assert_null(s.text.data);
}

#define MAY_24 1369353600 /* 2013-05-24 */
static void an_object_in_part(void **state) {
    const char *headers[] = {"Range: bytes=0-9", NULL};
    (void)state;
    signature_is(&example,
                 (struct lk_sigv4_request){.method = "GET",
                                           .host = "examplebucket.s3.amazonaws.com",
                                           .path = "/test.txt",
                                           .headers = headers,
                                           .time_s = MAY_24},
                 "", "/test.txt", "host;range;x-amz-content-sha256;x-amz-date",
                 "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
}
static void an_object_to_put(void **state) {
    const char *headers[] = {"Date: Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class: REDUCED_REDUNDANCY", NULL};
    (void)state;
    signature_is(&example,
                 (struct lk_sigv4_request){.method = "PUT",
                                           .host = "examplebucket.s3.amazonaws.com",
                                           .path = "/test$file.text",
                                           .headers = headers,
                                           .time_s = MAY_24},
                 "Welcome to Amazon S3.", "/test%24file.text",
                 "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
                 "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
}
static void queries(void **state) {
    static const struct lk_sigv4_pair lifecycle[] = {{"lifecycle", ""}}, list[] = {{"prefix", "J"}, {"max-keys", "2"}};
    (void)state;
    struct lk_sigv4_request r = {.method = "GET",
                                 .host = "examplebucket.s3.amazonaws.com",
                                 .path = "/",
                                 .query = lifecycle,
                                 .query_count = 1,
                                 .time_s = MAY_24};
    signature_is(&example, r, "", "/?lifecycle=", "host;x-amz-content-sha256;x-amz-date",
                 "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
    r.query = list, r.query_count = 2;
    signature_is(&example, r, "", "/?max-keys=2&prefix=J", "host;x-amz-content-sha256;x-amz-date",
                 "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}
#define AUGUST_30 1440938160 /* 2015-08-30 12:36 */
static void of_another_service(void **state) {
    static const struct lk_sigv4_pair order[] = {{"Param2", "value2"}, {"Param1", "value1"}};
    (void)state;
    struct lk_sigv4_request r = {.method = "GET", .host = "example.amazonaws.com", .path = "/", .time_s = AUGUST_30};
    signature_is(&suite, r, "", "/", "host;x-amz-date", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31");
    r.query = order, r.query_count = 2;
    signature_is(&suite, r, "", "/?Param1=value1&Param2=value2", "host;x-amz-date",
                 "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500");
}
/* Any bytes of a path and a query become ASCII that means them. */
static void everything_is_encoded(void **state) {
    static const struct lk_sigv4_pair pairs[] = {{"a", "b/c d&e=+~"}, {"a-b", "\xc3\xa9"}};
    (void)state;
    struct lk_sigv4_request r = {
        .method = "GET", .host = "h", .path = "/a b/\xe6\x97\xa5?#%", .query = pairs, .query_count = 2};
    struct lk_sigv4_signed s;
    OK(lk_sigv4_sign(&example, &r, &s, &test_err));
    assert_string_equal(s.target.data, "/a%20b/%E6%97%A5%3F%23%25?a=b%2Fc%20d%26e%3D%2B~&a-b=%C3%A9");
    lk_sigv4_release(&s);
}
static void a_session_is_signed(void **state) {
    struct lk_sigv4_keys keys = example;
    struct lk_sigv4_request r = {.method = "GET", .host = "h", .path = "/"};
    struct lk_sigv4_signed s;
    (void)state;
    keys.session = "a-token";
    OK(lk_sigv4_sign(&keys, &r, &s, &test_err));
    assert_string_equal(s.headers[2], "x-amz-security-token: a-token");
    assert_non_null(strstr(s.headers[3], "SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token,"));
    lk_sigv4_release(&s);
}
static void too_many_headers_or_no_memory(void **state) {
    const char *headers[LK_SIGV4_HEADERS + 1] = {0};
    struct lk_sigv4_request r = {.method = "GET", .host = "h", .path = "/", .headers = headers};
    struct lk_sigv4_signed s;
    (void)state;
    for (int i = 0; i < LK_SIGV4_HEADERS; i++) headers[i] = "a: b";
    FAILS(lk_sigv4_sign(&example, &r, &s, &test_err), LK_EINVAL, "too many");
    headers[2] = NULL;
    FAIL_EACH_ALLOCATION(lk_sigv4_sign(&example, &r, &s, &test_err));
    lk_sigv4_release(&s);
}

/* --- keys ------------------------------------------------------------------------------------------------------ */

static void forget_environment(void) {
    static const char *const names[] = {"AWS_ACCESS_KEY_ID",  "AWS_SECRET_ACCESS_KEY",       "AWS_SESSION_TOKEN",
                                        "AWS_PROFILE",        "AWS_SHARED_CREDENTIALS_FILE", "AWS_REGION",
                                        "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_S3",         "AWS_ENDPOINT_URL",
                                        "AWS_CA_BUNDLE"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) unsetenv(names[i]);
    setenv("AWS_EC2_METADATA_DISABLED", "true", 1); /* aws_test.c is about others */
    setenv("AWS_CONFIG_FILE", "/nowhere/at/all", 1);
}
static void keys_of_the_environment(void **state) {
    struct lk_aws a;
    (void)state;
    forget_environment();
    setenv("AWS_ACCESS_KEY_ID", "ID", 1);
    FAILS(lk_aws_load(&a, &test_err), LK_EINVAL, "AWS_SECRET_ACCESS_KEY is not");
    setenv("AWS_SECRET_ACCESS_KEY", "hush hush", 1);
    FAILS(lk_aws_load(&a, &test_err), LK_EINVAL, "the secret key is empty, too long, or holds a space");
    assert_null(strstr(test_err.message, "hush"));
    setenv("AWS_SECRET_ACCESS_KEY", "hush", 1);
    setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9/", 1);
    OK(lk_aws_load(&a, &test_err));
    assert_string_equal(a.key_id, "ID");
    assert_string_equal(a.secret, "hush");
    assert_string_equal(a.region, "us-east-1");
    assert_string_equal(a.endpoint, "http://127.0.0.1:9");
    assert_null(a.session);
    lk_aws_release(&a);
    static const char *const bad[] = {"ftp://x", "http://", "https://u:p@h", "http://h/path", "h", "http://h?q"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        setenv("AWS_ENDPOINT_URL_S3", bad[i], 1);
        FAILS(lk_aws_load(&a, &test_err), LK_EINVAL, "AWS_ENDPOINT_URL_S3");
    }
    forget_environment();
}
static void keys_of_a_file(void **state) {
    struct lk_aws a;
    char *path = test_join(*state, "credentials");
    static const char text[] = "[default]\naws_access_key_id = A\naws_secret_access_key = B\n\n[other]\nregion = eu-1\n"
                               "aws_access_key_id=C\naws_secret_access_key=D=/+\naws_session_token = E\n";
    OK(lk_file_write_atomic(path, text, sizeof text - 1, &test_err));
    forget_environment();
    setenv("AWS_SHARED_CREDENTIALS_FILE", path, 1);
    OK(lk_aws_load(&a, &test_err));
    assert_string_equal(a.key_id, "A");
    assert_null(a.session);
    lk_aws_release(&a);
    setenv("AWS_PROFILE", "other", 1);
    OK(lk_aws_load(&a, &test_err));
    assert_string_equal(a.secret, "D=/+");
    assert_string_equal(a.session, "E");
    assert_string_equal(a.region, "eu-1");
    lk_aws_release(&a);
    setenv("AWS_PROFILE", "third", 1);
    FAILS(lk_aws_load(&a, &test_err), LK_ENOTFOUND, "\"third\" has no aws_access_key_id");
    setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere/at/all", 1);
    FAILS(lk_aws_load(&a, &test_err), LK_ENOTFOUND, "write the file /nowhere/at/all");
    forget_environment();
    lk_free(path);
}
/* Not one byte of what is wrong is told. */
static void a_bad_file_is_not_quoted(void **state) {
    static const char *const bad[] = {"[default]\nHUSHHUSH\n", "HUSHHUSH = 1\n", "[default]\na = HUSHHUSH\na = HUSHHUSH\n",
                                      "[default\nHUSHHUSH = 3",
                                      "[default]\naws_access_key_id = HUSH\tHUSH\naws_secret_access_key = 1\n"};
    struct lk_aws a;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(lk_aws_parse(bad[i], strlen(bad[i]), "a/file", "default", &a, &test_err), LK_EINVAL);
        assert_non_null(strstr(test_err.message, "a/file"));
        assert_null(strstr(test_err.message, "HUSH"));
    }
    static const char good[] = "[default]\naws_access_key_id = A\naws_secret_access_key = B\n";
    FAIL_EACH_ALLOCATION(lk_aws_parse(good, sizeof good - 1, "a/file", "default", &a, &test_err));
    lk_aws_release(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_object_in_part),
        cmocka_unit_test(an_object_to_put),
        cmocka_unit_test(queries),
        cmocka_unit_test(of_another_service),
        cmocka_unit_test(everything_is_encoded),
        cmocka_unit_test(a_session_is_signed),
        cmocka_unit_test(too_many_headers_or_no_memory),
        cmocka_unit_test(keys_of_the_environment),
        TEST_IN_DIR(keys_of_a_file),
        cmocka_unit_test(a_bad_file_is_not_quoted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
