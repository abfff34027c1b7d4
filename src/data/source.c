#include "data/source.h"
#include "base/syscalls.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#define CHUNK_BYTES ((size_t)256 << 10)

static bool ends_with(const char *s, size_t size, const char *ending) {
    size_t n = strlen(ending);
    return size > n && !memcmp(s + size - n, ending, n);
}

enum lk__packing lk__source_packing(const char *path) {
    size_t n = strlen(path);
    return ends_with(path, n, ".gz") ? LK__GZIP : ends_with(path, n, ".zst") ? LK__ZSTD : LK__UNPACKED;
}

enum lk__text_kind lk__source_kind(const char *path) {
    static const size_t cut[] = {[LK__UNPACKED] = 0, [LK__GZIP] = 3, [LK__ZSTD] = 4};
    size_t n = strlen(path) - cut[lk__source_packing(path)];
    return ends_with(path, n, ".jsonl") ? LK__JSONL : LK__PLAIN;
}

const char *lk__source_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

static const char *shown(const char *path) {
    return strcmp(path, "-") ? path : "standard input";
}

/* --- unpacking: bytes in, bytes out ---------------------------------------------------------------------- */

struct unpacker {
    enum lk__packing packing;
    const char *path;
    lk__sink_fn *sink;
    void *arg;
    uint64_t in, out; /* bytes so far */
    bool between;     /* at the end of a member or frame */
    bool full;        /* the library may have more to give without getting more */
    bool ready;       /* gzip is initialised */
    z_stream gzip;
    ZSTD_DStream *zstd;
    unsigned char *buffer;
};

static int damaged(const struct unpacker *u, uint64_t at, const char *why, struct lk_err *err) {
    return lk_fail(err, LK_EINVAL, "%s: the %s data is damaged at byte %llu (after %llu bytes of text): %s", shown(u->path),
                   u->packing == LK__GZIP ? "gzip" : "zstd", (unsigned long long)at, (unsigned long long)u->out, why);
}

/* zlib asks our allocator, so that tests reach its failures too. */
static void *gzip_alloc(void *opaque, unsigned items, unsigned size) {
    (void)opaque;
    return lk_alloc((size_t)items * size);
}
static void gzip_free(void *opaque, void *p) {
    (void)opaque;
    lk_free(p);
}

static int unpacker_begin(struct unpacker *u, struct lk_err *err) {
    u->between = true;
    u->buffer = lk_alloc(CHUNK_BYTES);
    bool ok = u->buffer != NULL;
    if (u->packing == LK__GZIP && ok) {
        u->gzip.zalloc = gzip_alloc;
        u->gzip.zfree = gzip_free;
        ok = u->ready = inflateInit2(&u->gzip, 15 + 16) == Z_OK;
    } else if (u->packing == LK__ZSTD && ok) {
        u->zstd = ZSTD_createDStream();
        ok = u->zstd != NULL;
    }
    return ok ? 0 : lk_fail(err, LK_ENOMEM, "reading %s: out of memory", shown(u->path));
}

static void unpacker_release(struct unpacker *u) {
    if (u->ready) inflateEnd(&u->gzip);
    ZSTD_freeDStream(u->zstd);
    lk_free(u->buffer);
}

/* One call of the library: data[*pos..size) is read, up to `room` bytes are written. u->full: more may come without input.
 */
static int pull_gzip(struct unpacker *u, const unsigned char *data, size_t size, size_t *pos, unsigned char *out,
                     size_t room, size_t *made, struct lk_err *err) {
    if (room > UINT_MAX) room = UINT_MAX; /* zlib counts in unsigned */
    u->gzip.next_in = (unsigned char *)(uintptr_t)data + *pos;
    u->gzip.avail_in = (unsigned)(size - *pos);
    u->gzip.next_out = out;
    u->gzip.avail_out = (unsigned)room;
    int rc = inflate(&u->gzip, Z_NO_FLUSH);
    *pos = size - u->gzip.avail_in;
    *made = room - u->gzip.avail_out;
    uint64_t at = u->in + *pos;
    if (rc == Z_MEM_ERROR) return lk_fail(err, LK_ENOMEM, "reading %s: out of memory", shown(u->path));
    if (rc == Z_NEED_DICT) return damaged(u, at, "it wants a dictionary", err);
    if (rc != Z_OK && rc != Z_STREAM_END && rc != Z_BUF_ERROR)
        return damaged(u, at, u->gzip.msg ? u->gzip.msg : "unknown error", err);
    u->full = rc == Z_OK && u->gzip.avail_out == 0;
    u->between = rc == Z_STREAM_END;
    if (rc == Z_STREAM_END && inflateReset(&u->gzip) != Z_OK) return damaged(u, at, "cannot go on", err);
    return 0;
}

static int pull_zstd(struct unpacker *u, const unsigned char *data, size_t size, size_t *pos, unsigned char *out,
                     size_t room, size_t *made, struct lk_err *err) {
    ZSTD_inBuffer from = {data, size, *pos};
    ZSTD_outBuffer to = {out, room, 0};
    size_t rc = ZSTD_decompressStream(u->zstd, &to, &from);
    *pos = from.pos;
    *made = to.pos;
    if (ZSTD_isError(rc)) return damaged(u, u->in + from.pos, ZSTD_getErrorName(rc), err);
    u->full = to.pos == room && rc != 0;
    u->between = rc == 0;
    return 0;
}

static int pull(struct unpacker *u, const unsigned char *data, size_t size, size_t *pos, unsigned char *out, size_t room,
                size_t *made, struct lk_err *err) {
    return (u->packing == LK__GZIP ? pull_gzip : pull_zstd)(u, data, size, pos, out, room, made, err);
}

static int feed(struct unpacker *u, const unsigned char *data, size_t size, struct lk_err *err) {
    int code = 0;
    if (!size) return 0;
    if (u->packing == LK__UNPACKED) {
        u->out += size;
        code = u->sink(u->arg, data, size, err);
    }
    for (size_t pos = 0, made; !code && u->packing != LK__UNPACKED && (pos < size || u->full);) {
        code = pull(u, data, size, &pos, u->buffer, CHUNK_BYTES, &made, err);
        if (code) break;
        u->out += made;
        if (made) code = u->sink(u->arg, u->buffer, made, err);
    }
    u->in += size;
    return code;
}

static int finish(struct unpacker *u, struct lk_err *err) {
    if (u->packing != LK__UNPACKED && u->in == 0) return damaged(u, 0, "the file is empty", err);
    return u->between || u->packing == LK__UNPACKED ? 0 : damaged(u, u->in, "it ends too early", err);
}

int lk__unpack(enum lk__packing packing, const void *data, size_t size, size_t chunk, const char *path, lk__sink_fn *sink,
               void *arg, struct lk_err *err) {
    struct unpacker u = {.packing = packing, .path = path, .sink = sink, .arg = arg};
    int code = unpacker_begin(&u, err);
    for (size_t at = 0; !code && at < size; at += chunk)
        code = feed(&u, (const unsigned char *)data + at, size - at < chunk ? size - at : chunk, err);
    if (!code) code = finish(&u, err);
    unpacker_release(&u);
    return code;
}

/* --- files ----------------------------------------------------------------------------------------------- */

static int open_source(const char *path, int *fd, struct lk_err *err) {
    *fd = strcmp(path, "-") ? lk__open(path, O_RDONLY | O_CLOEXEC, 0) : STDIN_FILENO;
    return *fd < 0 ? lk_fail_errno(err, "cannot open %s", path) : 0;
}

int lk__source_check(const char *path, bool *again, uint64_t *size, struct lk_err *err) {
    struct stat st = {0};
    *again = false;
    *size = 0;
    if (!strcmp(path, "-")) return 0;
    if (stat(path, &st)) return lk_fail_errno(err, "cannot read %s", path);
    if (S_ISDIR(st.st_mode)) return lk_fail(err, LK_EINVAL, "%s is a directory; name its files", path);
    *again = S_ISREG(st.st_mode);
    *size = *again ? (uint64_t)st.st_size : 0;
    return 0;
}

int lk__source_pour(const char *path, lk__sink_fn *sink, void *arg, struct lk_err *err) {
    struct unpacker u = {.packing = lk__source_packing(path), .path = path, .sink = sink, .arg = arg};
    int fd, code = open_source(path, &fd, err);
    if (code) return code;
    unsigned char *input = lk_alloc(CHUNK_BYTES);
    code = input ? unpacker_begin(&u, err) : lk_fail(err, LK_ENOMEM, "reading %s: out of memory", shown(path));
    while (!code) {
        ssize_t n = read(fd, input, CHUNK_BYTES);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) code = lk_fail_errno(err, "reading %s at byte %llu", shown(path), (unsigned long long)u.in);
        if (n <= 0) break;
        code = feed(&u, input, (size_t)n, err);
    }
    if (!code) code = finish(&u, err);
    unpacker_release(&u);
    lk_free(input);
    if (fd != STDIN_FILENO) lk__close(fd);
    return code;
}

/* --- a packed file as a stream ---------------------------------------------------------------------------- */

struct lk__stream {
    struct unpacker u;
    int fd;
    bool ended;
    size_t pos, size; /* of input */
    unsigned char *input;
};

int lk__stream_open(const char *path, struct lk__stream **out, struct lk_err *err) {
    struct lk__stream *s = *out = lk_calloc(1, sizeof *s);
    if (!s) return lk_fail(err, LK_ENOMEM, "reading %s: out of memory", shown(path));
    s->fd = -1;
    s->u = (struct unpacker){.packing = lk__source_packing(path), .path = path};
    LK_ASSERT(s->u.packing != LK__UNPACKED);
    s->input = lk_alloc(CHUNK_BYTES);
    int code = s->input ? unpacker_begin(&s->u, err) : lk_fail(err, LK_ENOMEM, "reading %s: out of memory", shown(path));
    if (!code) code = open_source(path, &s->fd, err);
    if (!code) return 0;
    lk__stream_close(s);
    *out = NULL;
    return code;
}

void lk__stream_close(struct lk__stream *s) {
    if (!s) return;
    unpacker_release(&s->u);
    lk_free(s->input);
    if (s->fd >= 0) lk__close(s->fd);
    lk_free(s);
}

bool lk__stream_ended(const struct lk__stream *s) {
    return s->ended;
}

static int stream_read(struct lk__stream *s, struct lk_err *err) {
    ssize_t n;
    s->u.in += s->size;
    s->pos = s->size = 0;
    do n = read(s->fd, s->input, CHUNK_BYTES);
    while (n < 0 && errno == EINTR);
    if (n < 0) return lk_fail_errno(err, "reading %s at byte %llu", shown(s->u.path), (unsigned long long)s->u.in);
    s->size = (size_t)n;
    s->ended = n == 0;
    return n ? 0 : finish(&s->u, err);
}

int lk__stream_fill(struct lk__stream *s, size_t size, struct lk_buf *out, struct lk_err *err) {
    if (out->size < size && lk_buf_reserve(out, size - out->size))
        return lk_fail(err, LK_ENOMEM, "reading %s: out of memory for %zu bytes", shown(s->u.path), size);
    int code = 0;
    while (!code && !s->ended && out->size < size) {
        size_t made = 0;
        if (s->pos == s->size && !s->u.full)
            code = stream_read(s, err);
        else
            code = pull(&s->u, s->input, s->size, &s->pos, (unsigned char *)out->data + out->size, size - out->size, &made,
                        err);
        out->size += made;
        s->u.out += made;
    }
    return code;
}

/* --- sizes before the reading ----------------------------------------------------------------------------- */

/* The last four bytes of a gzip file: the size of its last member, mod 2^32. */
static bool gzip_size(const struct lk_map *m, uint64_t *size) {
    if (m->size < 18) return false;
    const unsigned char *p = m->data + m->size - 4;
    *size = p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint64_t)p[3] << 24;
    return *size / 1032 <= m->size && m->size <= *size + *size / 8 + 1024; /* as one member could have it */
}

/* Frames tell their sizes, if whoever packed them knew. */
static bool zstd_size(const struct lk_map *m, uint64_t *size) {
    *size = 0;
    for (size_t at = 0; at < m->size;) {
        unsigned long long frame = ZSTD_getFrameContentSize(m->data + at, m->size - at);
        size_t packed = ZSTD_findFrameCompressedSize(m->data + at, m->size - at);
        if (frame == ZSTD_CONTENTSIZE_UNKNOWN || frame == ZSTD_CONTENTSIZE_ERROR || ZSTD_isError(packed)) return false;
        if (__builtin_add_overflow(*size, frame, size)) return false;
        at += packed;
    }
    return true;
}

bool lk__source_guess(const char *path, uint64_t *size) {
    struct lk_map m;
    enum lk__packing packing = lk__source_packing(path);
    if (packing == LK__UNPACKED || lk_map_open(path, &m, NULL)) return false;
    uint64_t said = 0;
    bool known = packing == LK__GZIP ? gzip_size(&m, &said) : zstd_size(&m, &said);
    lk_map_close(&m);
    if (known) *size = said;
    return known;
}

/* --- the whole as one piece of memory --------------------------------------------------------------------- */

struct spool {
    int fd;
    const char *dir;
    size_t size;
};

static int spool_write(void *arg, const void *data, size_t size, struct lk_err *err) {
    struct spool *s = arg;
    s->size += size;
    return lk__write_all(s->fd, data, size) ? lk_fail_errno(err, "writing a temporary file in %s", s->dir) : 0;
}

/* A file that is gone when its descriptor and maps are. */
static int spool_create(struct spool *s, struct lk_err *err) {
    char *path = NULL;
    for (unsigned i = 0; i < 1000; i++) {
        lk_free(path);
        path = lk_asprintf("%s/unpacked.%ld.%u", s->dir, (long)getpid(), i);
        if (!path) return lk_fail(err, LK_ENOMEM, "unpacking: out of memory");
        s->fd = lk__open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (s->fd >= 0 || errno != EEXIST) break;
    }
    int code = s->fd < 0 ? lk_fail_errno(err, "cannot create %s", path) : 0;
    if (!code) unlink(path);
    lk_free(path);
    return code;
}

static int spool_source(const char *path, const char *dir, struct lk_map *out, struct lk_err *err) {
    static const unsigned char nothing[1];
    struct spool s = {-1, dir, 0};
    int code = spool_create(&s, err);
    if (code) return code;
    code = lk__source_pour(path, spool_write, &s, err);
    if (!code && s.size) {
        void *p = mmap(NULL, s.size, PROT_READ, MAP_SHARED, s.fd, 0);
        if (p == MAP_FAILED)
            code = lk_fail_errno(err, "cannot map the unpacked %s (%zu bytes)", shown(path), s.size);
        else
            *out = (struct lk_map){p, s.size};
    } else if (!code) {
        *out = (struct lk_map){nothing, 0};
    }
    lk__close(s.fd);
    return code;
}

int lk__source_open(const char *path, const char *dir, struct lk_map *out, struct lk_err *err) {
    bool again;
    uint64_t size;
    *out = (struct lk_map){0};
    int code = lk__source_check(path, &again, &size, err);
    if (code) return code;
    if (again && lk__source_packing(path) == LK__UNPACKED) return lk_map_open(path, out, err);
    return spool_source(path, dir, out, err);
}
