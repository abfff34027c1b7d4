/* Compressed messages: one gzip member each. */
#include "net/grpc_inside.h"
#include <limits.h>
#include <zlib.h>

#define GZIP_BITS (15 + 16)
#define PIECE     ((size_t)64 << 10)
#define LEVEL     1 /* of 9: messages must not wait */

static void *take(void *unused, uInt count, uInt size) {
    (void)unused;
    return lk_alloc((size_t)count * size);
}
static void give(void *unused, void *p) {
    (void)unused;
    lk_free(p);
}

/* Grows with what comes out, so that a message that claims much costs nothing. */
int lk__grpc_inflate(const void *data, size_t size, size_t most, struct lk_buf *out) {
    z_stream z = {.zalloc = take, .zfree = give, .next_in = (Bytef *)(uintptr_t)data, .avail_in = (uInt)size};
    int did = size > UINT_MAX ? Z_DATA_ERROR : inflateInit2(&z, GZIP_BITS), code = LK_OK;
    if (did) return did == Z_MEM_ERROR ? LK_ENOMEM : LK_EINVAL;
    do {
        size_t room = out->capacity - out->size > 1 ? out->capacity - out->size - 1 : 0;
        if (!room && lk_buf_reserve(out, out->size + PIECE)) code = LK_ENOMEM;
        if (code) break;
        room = out->capacity - out->size - 1;
        if (room > UINT_MAX) room = UINT_MAX;
        z.next_out = (Bytef *)out->data + out->size, z.avail_out = (uInt)room;
        did = inflate(&z, Z_NO_FLUSH);
        out->size += room - z.avail_out;
        if (out->size > most)
            code = LK_EBUSY;
        else if (did && did != Z_STREAM_END)
            code = did == Z_MEM_ERROR ? LK_ENOMEM : LK_EINVAL; /* Z_BUF_ERROR: it is cut */
    } while (!code && did != Z_STREAM_END);
    if (!code && z.avail_in) code = LK_EINVAL;
    inflateEnd(&z);
    return code;
}

int lk__grpc_deflate(const void *data, size_t size, struct lk_buf *out) {
    z_stream z = {.zalloc = take, .zfree = give};
    if (size > UINT_MAX / 2 || deflateInit2(&z, LEVEL, Z_DEFLATED, GZIP_BITS, 8, Z_DEFAULT_STRATEGY)) return LK_ENOMEM;
    size_t most = deflateBound(&z, size);
    int code = lk_buf_reserve(out, most);
    if (!code) {
        z.next_in = (Bytef *)(uintptr_t)data, z.avail_in = (uInt)size;
        z.next_out = (Bytef *)out->data + out->size, z.avail_out = (uInt)most;
        code = deflate(&z, Z_FINISH) == Z_STREAM_END ? LK_OK : LK_ENOMEM;
        out->size += most - z.avail_out;
    }
    deflateEnd(&z);
    return code;
}
