/* A source's text as a stream: read, unpacked, its order mark dropped, its records made lines. */
#include "base/syscalls.h"
#include "data/lines.h"
#include "data/source.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define CHUNK_BYTES ((size_t)256 << 10)

struct lk__data_stream {
    struct lk__data_unpacker u;
    struct lk__data_lines lines;
    int fd; /* -1: memory */
    bool owned, ended;
    uint64_t offset;   /* in the file, of what is read next */
    size_t pos, size;  /* of input */
    size_t skip;       /* bytes at the begin of the text that are still to be dropped */
    uint8_t *input;    /* NULL: memory */
    const uint8_t *at; /* the input, or the next piece of memory */
    size_t left, chunk;
};

const char *lk__data_source_shown(const char *path) {
    return strcmp(path, "-") ? path : "standard input";
}

int lk__data_source_fd(const struct lk__data_source *s, int *fd, struct lk_err *err) {
    *fd = s->fd >= 0 ? s->fd : lk__open(s->path, O_RDONLY | O_CLOEXEC, 0);
    return *fd < 0 ? lk_fail_errno(err, "cannot open %s", s->path) : 0;
}

static int stream_new(enum lk__data_packing packing, enum lk__data_shape shape, const char *name,
                      struct lk__data_stream **out, struct lk_err *err) {
    struct lk__data_stream *s = *out = lk_calloc(1, sizeof *s);
    if (!s) return lk_fail(err, LK_ENOMEM, "reading %s: out of memory", name);
    s->fd = -1;
    s->lines.shape = shape;
    return lk__data_unpacker_init(&s->u, packing, name, err);
}

int lk__data_stream_open(const struct lk__data_source *from, struct lk__data_stream **out, struct lk_err *err) {
    const char *name = lk__data_source_shown(from->path);
    int code = stream_new(from->packing, from->shape, name, out, err);
    struct lk__data_stream *s = *out;
    if (!code && !(s->input = lk_alloc(CHUNK_BYTES))) code = lk_fail(err, LK_ENOMEM, "reading %s: out of memory", name);
    if (!code) code = lk__data_source_fd(from, &s->fd, err);
    if (!code) {
        s->owned = s->fd != from->fd;
        s->skip = from->skip;
        s->at = s->input;
        return 0;
    }
    lk__data_stream_close(s);
    *out = NULL;
    return code;
}

int lk__data_stream_memory(enum lk__data_packing packing, enum lk__data_shape shape, const void *data, size_t size,
                           size_t chunk, const char *name, struct lk__data_stream **out, struct lk_err *err) {
    int code = stream_new(packing, shape, name, out, err);
    if (code) {
        lk__data_stream_close(*out);
        *out = NULL;
        return code;
    }
    (*out)->at = data;
    (*out)->left = size;
    (*out)->chunk = chunk;
    return 0;
}

void lk__data_stream_close(struct lk__data_stream *s) {
    if (!s) return;
    lk__data_unpacker_release(&s->u);
    lk_free(s->input);
    if (s->owned) lk__close(s->fd);
    lk_free(s);
}

bool lk__data_stream_ended(const struct lk__data_stream *s) {
    return s->ended;
}

uint64_t lk__data_stream_offset(const struct lk__data_stream *s) {
    return s->offset;
}

/* The next packed bytes. */
static int next_input(struct lk__data_stream *s, struct lk_err *err) {
    ssize_t n = 0;
    s->u.in += s->size;
    if (s->fd < 0) {
        s->at += s->size;
        s->size = s->left < s->chunk ? s->left : s->chunk;
        s->left -= s->size;
    } else {
        do n = pread(s->fd, s->input, CHUNK_BYTES, (off_t)s->offset);
        while (n < 0 && errno == EINTR);
        s->size = 0;
        if (n < 0) return lk_fail_errno(err, "reading %s at byte %llu", s->u.name, (unsigned long long)s->u.in);
        s->size = (size_t)n;
        s->offset += s->size;
    }
    s->pos = 0;
    s->ended = s->size == 0;
    return s->ended ? lk__data_unpacker_finish(&s->u, err) : 0;
}

/* Drops the byte order mark, and makes lines, of what was appended from `from` on. */
static int filter(struct lk__data_stream *s, size_t from, struct lk_buf *out, struct lk_err *err) {
    size_t drop = s->skip < out->size - from ? s->skip : out->size - from;
    if (drop) {
        memmove(out->data + from, out->data + from + drop, out->size - from - drop);
        out->size -= drop;
        s->skip -= drop;
    }
    int code = lk__data_lines_next(&s->lines, (uint8_t *)out->data + from, out->size - from, err);
    if (!code && s->ended) code = lk__data_lines_finish(&s->lines, err);
    return code ? lk_fail_prefix(err, code, "%s", s->u.name) : 0;
}

int lk__data_stream_fill(struct lk__data_stream *s, size_t size, struct lk_buf *out, struct lk_err *err) {
    if (out->size < size && lk_buf_reserve(out, size - out->size))
        return lk_fail(err, LK_ENOMEM, "reading %s: out of memory for %zu bytes", s->u.name, size);
    int code = 0;
    while (!code && !s->ended && out->size < size) {
        size_t made = 0, from = out->size;
        if (s->pos == s->size && !s->u.full)
            code = next_input(s, err);
        else
            code = lk__data_unpacker_pull(&s->u, s->at, s->size, &s->pos, (uint8_t *)out->data + from, size - from, &made,
                                          err);
        out->size += made;
        if (!code) code = filter(s, from, out, err);
    }
    return code;
}

int lk__data_source_pour(const struct lk__data_source *from, lk__data_sink_fn *sink, void *arg, struct lk_err *err) {
    struct lk__data_stream *s;
    struct lk_buf piece = LK_BUF_INIT;
    int code = lk__data_stream_open(from, &s, err);
    while (!code && !lk__data_stream_ended(s)) {
        piece.size = 0;
        code = lk__data_stream_fill(s, CHUNK_BYTES, &piece, err);
        if (!code && piece.size) code = sink(arg, piece.data, piece.size, err);
    }
    lk__data_stream_close(s);
    lk_buf_release(&piece);
    return code;
}
