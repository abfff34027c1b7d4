#include "data/unpack.h"
#include "lockstep/base/mem.h"
#include "lockstep/base/progress.h"
#include <limits.h>
#include <string.h>
#include <zstd_errors.h>

#define WINDOW_LOG 31 /* zstd: 2 GiB, the most that its format's tools write (--long=31) */

const struct lk__data_packing_names lk__data_packing_names[LK__PACKINGS] = {
    {"text", ""}, {"gzip", ".gz"}, {"zstd", ".zst"}, {"xz", ".xz"}, {"bzip2", ".bz2"}};

enum lk__data_packing lk__data_packing_of(const void *head, size_t size) {
    const uint8_t *p = head;
    if (size >= 3 && !memcmp(p, "\x1f\x8b\x08", 3)) return LK__GZIP;
    if (size >= 4 && !memcmp(p, "\x28\xB5\x2F\xFD", 4)) return LK__ZSTD;
    if (size >= 4 && (p[0] & 0xF0) == 0x50 && !memcmp(p + 1, "\x2A\x4D\x18", 3)) return LK__ZSTD; /* a skippable frame */
    if (size >= 6 && !memcmp(p,
                             "\xFD"
                             "7zXZ\0",
                             6))
        return LK__XZ;
    if (size >= 10 && !memcmp(p, "BZh", 3) && p[3] >= '1' && p[3] <= '9' &&
        (!memcmp(p + 4, "1AY&SY", 6) || !memcmp(p + 4, "\x17\x72\x45\x38\x50\x90", 6)))
        return LK__BZIP2;
    return LK__UNPACKED;
}

static int damaged(const struct lk__data_unpacker *u, uint64_t at, const char *why, struct lk_err *err) {
    return lk_fail(err, LK_EINVAL, "%s: the %s data is damaged at byte %llu (after %llu bytes of text): %s", u->name,
                   lk__data_packing_names[u->packing].name, (unsigned long long)at, (unsigned long long)u->out, why);
}

static int no_memory(const struct lk__data_unpacker *u, struct lk_err *err) {
    return lk_fail(err, LK_ENOMEM, "reading %s: out of memory", u->name);
}

/* --- the libraries ask our allocator, so that tests reach their failures too -------------------------------- */

static void *take(size_t count, size_t size) {
    return size && count > SIZE_MAX / size ? NULL : lk_alloc(count * size);
}
static void *gzip_alloc(void *opaque, unsigned items, unsigned size) {
    (void)opaque;
    return take(items, size);
}
static void *xz_alloc(void *opaque, size_t count, size_t size) {
    (void)opaque;
    return take(count, size);
}
static void *bzip2_alloc(void *opaque, int count, int size) {
    (void)opaque;
    return take((size_t)count, (size_t)size);
}
static void give_back(void *opaque, void *p) {
    (void)opaque;
    lk_free(p);
}

static bool begin_xz(struct lk__data_unpacker *u) {
    static const lzma_allocator allocator = {xz_alloc, give_back, NULL};
    uint64_t memory = lk_memory_available_bytes();
    u->xz.allocator = &allocator;
    return lzma_stream_decoder(&u->xz, memory ? memory : 1, 0) == LZMA_OK;
}

static bool begin_bzip2(struct lk__data_unpacker *u) {
    u->bzip2 = (bz_stream){.bzalloc = bzip2_alloc, .bzfree = give_back};
    return BZ2_bzDecompressInit(&u->bzip2, 0, 0) == BZ_OK;
}

int lk__data_unpacker_init(struct lk__data_unpacker *u, enum lk__data_packing packing, const char *name,
                           struct lk_err *err) {
    *u = (struct lk__data_unpacker){.packing = packing, .name = name, .between = true};
    bool ok = true;
    switch (packing) {
    case LK__GZIP:
        u->gzip.zalloc = gzip_alloc;
        u->gzip.zfree = give_back;
        ok = u->ready = inflateInit2(&u->gzip, 15 + 16) == Z_OK;
        break;
    case LK__ZSTD:
        u->zstd = ZSTD_createDStream();
        ok = u->zstd && !ZSTD_isError(ZSTD_DCtx_setParameter(u->zstd, ZSTD_d_windowLogMax, WINDOW_LOG));
        break;
    case LK__XZ:
        ok = u->ready = begin_xz(u);
        break;
    case LK__BZIP2:
        ok = u->ready = begin_bzip2(u);
        break;
    case LK__UNPACKED:
    case LK__PACKINGS:
        break;
    }
    return ok ? 0 : no_memory(u, err);
}

void lk__data_unpacker_release(struct lk__data_unpacker *u) {
    if (u->ready && u->packing == LK__GZIP) inflateEnd(&u->gzip);
    if (u->packing == LK__XZ) lzma_end(&u->xz);
    if (u->ready && u->packing == LK__BZIP2) BZ2_bzDecompressEnd(&u->bzip2);
    ZSTD_freeDStream(u->zstd);
    u->zstd = NULL;
    u->ready = false;
}

/* --- one call each ----------------------------------------------------------------------------------------- */

struct piece { /* what a pull works on */
    const uint8_t *data;
    size_t size, pos;
    uint8_t *out;
    size_t room, made;
};

static int pull_text(struct lk__data_unpacker *u, struct piece *p, struct lk_err *err) {
    (void)u;
    (void)err;
    p->made = p->size - p->pos < p->room ? p->size - p->pos : p->room;
    memcpy(p->out, p->data + p->pos, p->made);
    p->pos += p->made;
    return 0;
}

static int pull_gzip(struct lk__data_unpacker *u, struct piece *p, struct lk_err *err) {
    size_t room = p->room > UINT_MAX ? UINT_MAX : p->room; /* zlib counts in unsigned */
    u->gzip.next_in = (unsigned char *)(uintptr_t)p->data + p->pos;
    u->gzip.avail_in = (unsigned)(p->size - p->pos);
    u->gzip.next_out = p->out;
    u->gzip.avail_out = (unsigned)room;
    int status = inflate(&u->gzip, Z_NO_FLUSH);
    p->pos = p->size - u->gzip.avail_in;
    p->made = room - u->gzip.avail_out;
    uint64_t at = u->in + p->pos;
    if (status == Z_MEM_ERROR) return no_memory(u, err);
    if (status == Z_NEED_DICT) return damaged(u, at, "it wants a dictionary", err);
    if (status != Z_OK && status != Z_STREAM_END && status != Z_BUF_ERROR)
        return damaged(u, at, u->gzip.msg ? u->gzip.msg : "unknown error", err);
    u->full = status == Z_OK && u->gzip.avail_out == 0;
    u->between = status == Z_STREAM_END;
    if (u->between && inflateReset(&u->gzip) != Z_OK) return damaged(u, at, "cannot go on", err);
    return 0;
}

static int zstd_failed(struct lk__data_unpacker *u, uint64_t at, size_t status, struct lk_err *err) {
    ZSTD_ErrorCode why = ZSTD_getErrorCode(status);
    if (why == ZSTD_error_memory_allocation)
        return lk_fail(
            err, LK_ENOMEM,
            "%s: there is no memory for the window of this zstd data (packed with --long or --ultra?): free some, "
            "raise the limit, or pack it anew: zstd -d --long=31 -c FILE | zstd >NEW",
            u->name);
    if (why == ZSTD_error_frameParameter_windowTooLarge)
        return lk_fail(err, LK_EUNSUPPORTED,
                       "%s: this zstd data wants a window above 2 GiB: pack it anew with --long=31 or less", u->name);
    if (why == ZSTD_error_dictionary_wrong)
        return lk_fail(err, LK_EUNSUPPORTED,
                       "%s: this zstd data wants a dictionary: unpack it first (zstd -d -D DICTIONARY)", u->name);
    return damaged(u, at, ZSTD_getErrorName(status), err);
}

static int pull_zstd(struct lk__data_unpacker *u, struct piece *p, struct lk_err *err) {
    ZSTD_inBuffer from = {p->data, p->size, p->pos};
    ZSTD_outBuffer to = {p->out, p->room, 0};
    size_t status = ZSTD_decompressStream(u->zstd, &to, &from);
    p->pos = from.pos;
    p->made = to.pos;
    if (ZSTD_isError(status)) return zstd_failed(u, u->in + from.pos, status, err);
    u->full = to.pos == p->room && status != 0;
    u->between = status == 0;
    return 0;
}

static int xz_failed(struct lk__data_unpacker *u, uint64_t at, lzma_ret status, struct lk_err *err) {
    char wants[32];
    switch (status) {
    case LZMA_MEM_ERROR:
        return no_memory(u, err);
    case LZMA_MEMLIMIT_ERROR:
        return lk_fail(err, LK_ENOMEM,
                       "%s: unpacking this xz data takes %s of memory, more than is free: pack it anew with xz -6", u->name,
                       lk_format_bytes(lzma_memusage(&u->xz), wants));
    case LZMA_FORMAT_ERROR:
        return damaged(u, at, "no xz stream begins there", err);
    case LZMA_OPTIONS_ERROR:
        return damaged(u, at, "it uses options that liblzma does not know", err);
    default:
        return damaged(u, at, "its data or checksum is wrong", err);
    }
}

static int pull_xz(struct lk__data_unpacker *u, struct piece *p, struct lk_err *err) {
    if (u->between && u->in + p->pos) /* zeros may stand between streams and behind the last */
        while (p->pos < p->size && !p->data[p->pos]) p->pos++;
    if (p->pos == p->size && !u->full) return 0;
    u->xz.next_in = p->data + p->pos;
    u->xz.avail_in = p->size - p->pos;
    u->xz.next_out = p->out;
    u->xz.avail_out = p->room;
    lzma_ret status = lzma_code(&u->xz, LZMA_RUN);
    p->pos = p->size - u->xz.avail_in;
    p->made = p->room - u->xz.avail_out;
    if (status != LZMA_OK && status != LZMA_STREAM_END && status != LZMA_BUF_ERROR)
        return xz_failed(u, u->in + p->pos, status, err);
    u->full = status == LZMA_OK && u->xz.avail_out == 0;
    u->between = status == LZMA_STREAM_END;
    return u->between && !begin_xz(u) ? no_memory(u, err) : 0;
}

static int pull_bzip2(struct lk__data_unpacker *u, struct piece *p, struct lk_err *err) {
    size_t room = p->room > UINT_MAX ? UINT_MAX : p->room;
    u->bzip2.next_in = (char *)(uintptr_t)p->data + p->pos;
    u->bzip2.avail_in = (unsigned)(p->size - p->pos);
    u->bzip2.next_out = (char *)p->out;
    u->bzip2.avail_out = (unsigned)room;
    int status = BZ2_bzDecompress(&u->bzip2);
    p->pos = p->size - u->bzip2.avail_in;
    p->made = room - u->bzip2.avail_out;
    uint64_t at = u->in + p->pos;
    if (status == BZ_MEM_ERROR) return no_memory(u, err);
    if (status == BZ_DATA_ERROR_MAGIC) return damaged(u, at, "no bzip2 stream begins there", err);
    if (status != BZ_OK && status != BZ_STREAM_END) return damaged(u, at, "its data or checksum is wrong", err);
    u->full = status == BZ_OK && u->bzip2.avail_out == 0;
    u->between = status == BZ_STREAM_END;
    if (!u->between) return 0;
    BZ2_bzDecompressEnd(&u->bzip2);
    u->ready = begin_bzip2(u);
    return u->ready ? 0 : no_memory(u, err);
}

int lk__data_unpacker_pull(struct lk__data_unpacker *u, const uint8_t *data, size_t size, size_t *pos, uint8_t *out,
                           size_t room, size_t *made, struct lk_err *err) {
    static int (*const pulls[])(struct lk__data_unpacker *, struct piece *,
                                struct lk_err *) = {pull_text, pull_gzip, pull_zstd, pull_xz, pull_bzip2};
    struct piece p = {.data = data, .size = size, .pos = *pos, .out = out, .room = room};
    int code = pulls[u->packing](u, &p, err);
    *pos = p.pos;
    *made = p.made;
    u->out += p.made;
    return code;
}

int lk__data_unpacker_finish(const struct lk__data_unpacker *u, struct lk_err *err) {
    if (u->packing == LK__UNPACKED) return 0;
    if (u->in == 0) return damaged(u, 0, "the file is empty", err);
    return u->between ? 0 : damaged(u, u->in, "it ends too early", err);
}
