/* clang -fsanitize=fuzzer,address: gzip, zstd, xz and bzip2, and lists of records made lines. The first byte picks packing,
 * shape and size of the pieces; the text does not depend on the pieces, and a failure names the file. */
#include "data/lines.h"
#include "data/source.h"
#include <stdlib.h>
#include <string.h>

#define MOST ((size_t)4 << 20) /* a bomb is cut short */

static int unpack(const uint8_t *data, size_t size, size_t chunk, size_t step, struct lk_buf *out, bool *cut,
                  struct lk_err *err) {
    struct lk__data_stream *s;
    int code =
        lk__data_stream_memory((enum lk__data_packing)((data[0] & 7) % LK__PACKINGS),
                               (enum lk__data_shape)((data[0] >> 3) % 3), data + 1, size - 1, chunk, "fuzz", &s, err);
    while (!code && !lk__data_stream_ended(s) && out->size < MOST)
        code = lk__data_stream_fill(s, out->size + step, out, err);
    *cut = !code && !lk__data_stream_ended(s);
    lk__data_stream_close(s);
    return code;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!size) return 0;
    struct lk_err err = {0};
    struct lk_buf a = LK_BUF_INIT, b = LK_BUF_INIT;
    bool cut, other_cut;
    int code = unpack(data, size, (size_t)1 << 20, (size_t)64 << 10, &a, &cut, &err);
    if (code && !strstr(err.message, "fuzz")) abort();
    int other = unpack(data, size, 1 + (data[0] >> 5), 1000, &b, &other_cut, &err);
    /* zstd's formats before 1.0 (magic below 28 B5 2F FD) fail sooner or later by the pieces; no file that begins so is
     * read */
    bool legacy = memmem(data, size, "\xB5\x2F\xFD", 3) && !memmem(data, size, "\x28\xB5\x2F\xFD", 4);
    if (!legacy && !cut && !other_cut && code != LK_ENOMEM && other != LK_ENOMEM && !code != !other) abort();
    if (!code && !other && !cut && !other_cut && (a.size != b.size || (a.size && memcmp(a.data, b.data, a.size) != 0)))
        abort();
    lk__data_packing_of(data, size);
    lk__data_lines_shape(data, size);
    lk_buf_release(&a);
    lk_buf_release(&b);
    return 0;
}
