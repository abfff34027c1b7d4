/* clang -fsanitize=fuzzer,address: gzip and zstd. The first byte picks the packing and the size of the pieces; the text
 * does not depend on the pieces, and a failure names the file. */
#include "data/source.h"
#include <stdlib.h>
#include <string.h>

#define MOST ((size_t)8 << 20) /* a bomb is cut short, as an error of the sink */

static int collect(void *arg, const void *data, size_t size, struct lk_err *err) {
    struct lk_buf *out = arg;
    if (out->size + size > MOST) return lk_fail(err, LK_EBUSY, "fuzz: enough");
    return lk_buf_append(out, data, size) ? lk_fail(err, LK_ENOMEM, "fuzz: out of memory") : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!size) return 0;
    struct lk_err err = {0};
    struct lk_buf a = LK_BUF_INIT, b = LK_BUF_INIT;
    enum lk__packing packing = data[0] & 1 ? LK__GZIP : LK__ZSTD;
    int code = lk__unpack(packing, data + 1, size - 1, (size_t)1 << 20, "fuzz", collect, &a, &err);
    if (code && !strstr(err.message, "fuzz")) abort();
    int other = lk__unpack(packing, data + 1, size - 1, 1 + (data[0] >> 1), "fuzz", collect, &b, &err);
    if (code != LK_EBUSY && other != LK_EBUSY && code != other) abort();
    if (!code && !other && (a.size != b.size || (a.size && memcmp(a.data, b.data, a.size) != 0))) abort();
    lk_buf_release(&a);
    lk_buf_release(&b);
    return 0;
}
