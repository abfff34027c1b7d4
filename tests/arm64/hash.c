/* lockstep/base/hash.h without libcrypto, which is not there for the other machine: what the math floor needs. */
#include "lockstep/base/hash.h"
#include "base/sha256.h"
#include <stdio.h>
#include <string.h>

void lk_sha256(const void *data, size_t size, struct lk_root *out) {
    struct lk__sha256 c;
    lk__sha256_init(&c);
    lk__sha256_update(&c, data, size);
    lk__sha256_final(&c, out->bytes);
}
bool lk_root_equal(const struct lk_root *a, const struct lk_root *b) {
    return memcmp(a, b, sizeof *a) == 0;
}
char *lk_root_hex(const struct lk_root *root, char *out) {
    for (int i = 0; i < 32; i++) sprintf(out + 2 * i, "%02x", root->bytes[i]);
    return out;
}
