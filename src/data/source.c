#include "data/source.h"
#include "base/syscalls.h"
#include "data/lines.h"
#include "data/sniff.h"
#include "lockstep/base/progress.h"
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK_BYTES ((size_t)256 << 10)

void lk__data_source_note(const struct lk_source_options *o, const char *format, ...) {
    char text[1024];
    va_list args;
    if (!o->note) return;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    o->note(o->note_arg, text);
}

/* --- what a name says -------------------------------------------------------------------------------------- */

static bool ends_with(const char *s, size_t size, const char *ending) {
    size_t n = strlen(ending);
    return size > n && !strncasecmp(s + size - n, ending, n);
}

static enum lk__data_packing packing_named(const char *path) {
    for (int i = LK__GZIP; i < LK__PACKINGS; i++)
        if (ends_with(path, strlen(path), lk__data_packing_names[i].ending)) return (enum lk__data_packing)i;
    return LK__UNPACKED;
}

enum lk__data_text_kind lk__data_source_kind(const char *path) {
    size_t n = strlen(path) - strlen(lk__data_packing_names[packing_named(path)].ending);
    bool records = ends_with(path, n, ".jsonl") || ends_with(path, n, ".ndjson") || ends_with(path, n, ".json");
    return records ? LK__JSONL : LK__PLAIN;
}

/* Only in a .json may a record go over several lines: in .jsonl that is a broken line. */
static bool may_be_one_value(const char *path) {
    return ends_with(path, strlen(path) - strlen(lk__data_packing_names[packing_named(path)].ending), ".json");
}

static bool ends_exactly(const char *s, size_t size, const char *ending) {
    size_t n = strlen(ending);
    return size > n && !memcmp(s + size - n, ending, n);
}

/* The first rules went by the name alone: .gz, .zst, and before them .jsonl. */
static bool as_before(const struct lk__data_source *s) {
    size_t n = strlen(s->path);
    enum lk__data_packing packing = ends_exactly(s->path, n, ".gz")    ? LK__GZIP
                                    : ends_exactly(s->path, n, ".zst") ? LK__ZSTD
                                                                       : LK__UNPACKED;
    n -= strlen(lk__data_packing_names[packing].ending);
    enum lk__data_text_kind kind = ends_exactly(s->path, n, ".jsonl") ? LK__JSONL : LK__PLAIN;
    return packing == s->packing && kind == s->kind && s->shape == LK__LINES && !s->skip;
}

/* --- nameless files ---------------------------------------------------------------------------------------- */

struct spool {
    const char *path; /* of the source, for messages */
    const char *dir;  /* NULL: in memory */
    int fd;
    uint64_t size, most;
};

static int spool_write(void *arg, const void *data, size_t size, struct lk_err *err) {
    struct spool *s = arg;
    char most[32];
    if (size > s->most - s->size)
        return lk_fail(err, LK_ENOMEM,
                       "%s: its text takes more than the %s of memory that are free: free some, or give less text",
                       lk__data_source_shown(s->path), lk_format_bytes(s->most, most));
    s->size += size;
    if (!lk__write_all(s->fd, data, size)) return 0;
    return lk_fail_errno(err, "writing a temporary file in %s", s->dir ? s->dir : "memory");
}

/* A file that is gone when its descriptor and maps are. */
static int spool_create(struct spool *s, struct lk_err *err) {
    char *path = NULL;
    s->most = s->dir
                  ? UINT64_MAX
                  : lk_memory_available_bytes(); /* a full disk gives an error; full memory would get the process killed */
    if (!s->dir) {
        s->fd = memfd_create("lockstep-source", MFD_CLOEXEC);
        return s->fd < 0 ? lk_fail_errno(err, "cannot create a temporary file in memory") : 0;
    }
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

/* What a pipe gives, as it comes. */
static int spool_pipe(const char *path, const char *dir, struct lk__data_source *out, struct lk_err *err) {
    struct spool s = {.path = path, .dir = dir, .fd = -1};
    bool input = !strcmp(path, "-");
    int fd = !input ? lk__open(path, O_RDONLY | O_CLOEXEC, 0) : STDIN_FILENO;
    if (fd < 0) return lk_fail_errno(err, "cannot open %s", path);
    int code = spool_create(&s, err);
    uint8_t *buffer = code ? NULL : lk_alloc(CHUNK_BYTES);
    if (!code && !buffer) code = lk_fail(err, LK_ENOMEM, "reading %s: out of memory", lk__data_source_shown(path));
    while (!code) {
        ssize_t n = read(fd, buffer, CHUNK_BYTES);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0)
            code = lk_fail_errno(err, "reading %s at byte %llu", lk__data_source_shown(path), (unsigned long long)s.size);
        if (n <= 0) break;
        code = spool_write(&s, buffer, (size_t)n, err);
    }
    lk_free(buffer);
    if (!input) lk__close(fd);
    if (code && s.fd >= 0) lk__close(s.fd);
    if (code) return code;
    out->fd = s.fd;
    out->packed_size = s.size;
    return 0;
}

/* --- a look at a file ---------------------------------------------------------------------------------------- */

static int look_at_packing(struct lk__data_source *s, struct lk_err *err) {
    uint8_t head[16];
    int fd, code = lk__data_source_fd(s, &fd, err);
    if (code) return code;
    ssize_t n = pread(fd, head, sizeof head, 0);
    if (n < 0) code = lk_fail_errno(err, "reading %s", lk__data_source_shown(s->path));
    if (fd != s->fd) lk__close(fd);
    if (code) return code;
    s->packing = lk__data_packing_of(head, (size_t)n);
    enum lk__data_packing named = packing_named(s->path);
    if (named == LK__UNPACKED || s->packing != LK__UNPACKED) return 0;
    return lk_fail(err, LK_EINVAL, "%s: the %s data is damaged at byte 0: %s", s->path, lk__data_packing_names[named].name,
                   n ? "nothing packed begins like that; if it is not packed, take the ending from its name"
                     : "the file is empty");
}

/* Decides by the begin of the text. */
static int look_at_text(struct lk__data_source *s, const struct lk_source_options *o, const struct lk_buf *head,
                        struct lk_err *err) {
    const uint8_t *text = (const uint8_t *)head->data;
    const char *todo, *what = head->size && o->format != LK_FORMAT_TEXT ? lk__data_sniff(text, head->size, &todo) : NULL;
    if (what)
        return lk_fail(err, LK_EUNSUPPORTED, "%s is %s%s%s; %s, or take it as it is with --format text",
                       lk__data_source_shown(s->path), what, s->packing ? " inside " : "",
                       s->packing ? lk__data_packing_names[s->packing].name : "", todo);
    s->skip = lk_skip_bom(head->data, head->size);
    s->kind = o->format == LK_FORMAT_TEXT    ? LK__PLAIN
              : o->format == LK_FORMAT_JSONL ? LK__JSONL
                                             : lk__data_source_kind(s->path);
    s->shape = s->kind == LK__JSONL ? lk__data_lines_shape(text + s->skip, head->size - s->skip) : LK__LINES;
    if (s->shape == LK__VALUES && !may_be_one_value(s->path)) s->shape = LK__LINES;
    s->as_before = as_before(s);
    if (s->skip) lk__data_source_note(o, "%s: the byte order mark at its begin is dropped", lk__data_source_shown(s->path));
    if (s->kind == LK__PLAIN && o->format == LK_FORMAT_AUTO && head->size - s->skip >= 2 &&
        !memcmp(text + s->skip, "{\"", 2))
        lk__data_source_note(o, "%s begins like .jsonl, but is taken as one text; --format jsonl reads its records",
                             lk__data_source_shown(s->path));
    return 0;
}

int lk__data_source_look(const char *path, const char *dir, const struct lk_source_options *o, struct lk__data_source *out,
                         struct lk_err *err) {
    struct stat st = {0};
    struct lk_buf head = LK_BUF_INIT;
    struct lk__data_stream *stream = NULL;
    *out = (struct lk__data_source){.path = path, .fd = -1};
    bool pipe = !strcmp(path, "-");
    if (!pipe && stat(path, &st)) return lk_fail_errno(err, "cannot read %s", path);
    if (S_ISDIR(st.st_mode)) return lk_fail(err, LK_EINVAL, "%s is a directory; name its files", path);
    out->packed_size = (uint64_t)st.st_size;
    int code = pipe || !S_ISREG(st.st_mode) ? spool_pipe(path, dir, out, err) : 0;
    if (!code) code = look_at_packing(out, err);
    if (!code) code = lk__data_stream_open(out, &stream, err);
    if (!code) code = lk__data_stream_fill(stream, LK__HEAD_BYTES, &head, err);
    if (!code) code = look_at_text(out, o, &head, err);
    lk__data_stream_close(stream);
    lk_buf_release(&head);
    if (code) lk__data_source_close(out);
    return code;
}

void lk__data_source_close(struct lk__data_source *s) {
    if (s->path && s->fd >= 0) lk__close(s->fd);
    *s = (struct lk__data_source){.fd = -1};
}

/* --- sizes before the reading -------------------------------------------------------------------------------- */

/* The last four bytes of a gzip file: the size of its last member, mod 2^32. */
static bool gzip_size(const struct lk_map *m, uint64_t *size) {
    if (m->size < 18) return false;
    const unsigned char *p = m->data + m->size - 4;
    *size = p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint64_t)p[3] << 24;
    return *size / 1032 <= m->size && m->size <= *size + *size / 8 + 1024; /* as one member could have it */
}

/* A frame has its size if the program that packed it knew that. */
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

bool lk__data_source_guess(const struct lk__data_source *s, uint64_t *size) {
    struct lk_map m;
    if ((s->packing != LK__GZIP && s->packing != LK__ZSTD) || s->fd >= 0 || lk_map_open(s->path, &m, NULL)) return false;
    uint64_t said = 0;
    bool known = s->packing == LK__GZIP ? gzip_size(&m, &said) : zstd_size(&m, &said);
    lk_map_close(&m);
    known &= said >= s->skip;
    if (known) *size = said - s->skip;
    return known;
}

/* --- the whole as one piece of memory -------------------------------------------------------------------------- */

static int map_fd(int fd, uint64_t size, const char *path, struct lk_map *out, struct lk_err *err) {
    static const unsigned char nothing[1];
    *out = (struct lk_map){nothing, 0};
    if (!size) return 0;
    void *p = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
    *out = (struct lk_map){p == MAP_FAILED ? NULL : p, size};
    if (p != MAP_FAILED) return 0;
    return lk_fail_errno(err, "cannot map the text of %s (%llu bytes)", lk__data_source_shown(path),
                         (unsigned long long)size);
}

static int spool_text(const struct lk__data_source *from, const char *dir, struct lk_map *out, struct lk_err *err) {
    struct spool s = {.path = from->path, .dir = dir, .fd = -1};
    int code = spool_create(&s, err);
    if (code) return code;
    code = lk__data_source_pour(from, spool_write, &s, err);
    if (!code) code = map_fd(s.fd, s.size, from->path, out, err);
    lk__close(s.fd);
    return code;
}

int lk__data_text_open(const struct lk__data_source *from, const char *dir, struct lk__data_text *out, struct lk_err *err) {
    bool as_is = from->packing == LK__UNPACKED && from->shape == LK__LINES;
    *out = (struct lk__data_text){0};
    int code = !as_is          ? spool_text(from, dir, &out->map, err)
               : from->fd >= 0 ? map_fd(from->fd, from->packed_size, from->path, &out->map, err)
                               : lk_map_open(from->path, &out->map, err);
    if (code) return code;
    size_t skip = !as_is ? 0 : from->skip < out->map.size ? from->skip : out->map.size;
    out->data = out->map.data + skip;
    out->size = out->map.size - skip;
    return 0;
}

void lk__data_text_close(struct lk__data_text *t) {
    if (t->map.data) lk_map_close(&t->map);
    *t = (struct lk__data_text){0};
}
