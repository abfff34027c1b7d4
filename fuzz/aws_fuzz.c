/* clang -fsanitize=fuzzer,address: files of keys are read or refused with a line that quotes no more than their name; keys
 * that were read can be signed with, and no header made of them has a line end. */
#include "lockstep/net/sigv4.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct lk_aws a;
    struct lk_err err = {0};
    int code = lk_aws_parse((const char *)data, size, "keys", "default", &a, &err);
    if (code) {
        if ((code != LK_EINVAL && code != LK_ENOTFOUND) || strncmp(err.message, "keys:", 5) != 0) abort();
        return 0;
    }
    struct lk_sigv4_keys keys = {a.key_id, a.secret, a.session, a.region ? a.region : "r", "s3"};
    struct lk_sigv4_pair pair = {a.secret, a.key_id};
    struct lk_sigv4_request r = {.method = "GET", .host = "h", .path = a.secret, .query = &pair, .query_count = 1};
    struct lk_sigv4_signed s;
    if (lk_sigv4_sign(&keys, &r, &s, &err)) abort();
    for (size_t i = 0; s.headers[i]; i++)
        if (strpbrk(s.headers[i], "\r\n")) abort();
    for (const char *p = s.target.data; *p; p++)
        if (*p <= ' ' || *p > '~') abort();
    lk_sigv4_release(&s);
    lk_aws_release(&a);
    return 0;
}
