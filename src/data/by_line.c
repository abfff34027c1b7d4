/* A file line by line. */
#include "data/source.h"
#include <string.h>

#define MORE_BYTES ((size_t)256 << 10)

struct lk_lines {
    struct lk__data_source source;
    struct lk__data_stream *stream;
    char *path;
    struct lk_buf text;
    size_t at; /* in text, of the next line */
};

int lk_lines_open(const char *path, const char *dir, const struct lk_source_options *o, struct lk_lines **out,
                  struct lk_err *err) {
    struct lk_lines *l = *out = lk_calloc(1, sizeof *l);
    if (l) {
        l->source.fd = -1;
        l->path = lk_strdup(path);
    }
    int code = l && l->path ? 0 : lk_fail(err, LK_ENOMEM, "out of memory to read %s", path);
    if (!code) code = lk__data_source_look(l->path, dir, o, &l->source, err);
    if (!code) code = lk__data_stream_open(&l->source, &l->stream, err);
    if (code) {
        lk_lines_close(l);
        *out = NULL;
    }
    return code;
}

void lk_lines_close(struct lk_lines *l) {
    if (!l) return;
    lk__data_stream_close(l->stream);
    lk__data_source_close(&l->source);
    lk_buf_release(&l->text);
    lk_free(l->path);
    lk_free(l);
}

int lk_lines_next(struct lk_lines *l, struct lk_bytes *line, struct lk_err *err) {
    for (size_t looked = l->at;;) {
        const char *begin = l->text.data + l->at;
        const char *end = l->text.size > looked ? memchr(l->text.data + looked, '\n', l->text.size - looked) : NULL;
        bool ended = lk__data_stream_ended(l->stream);
        if (!end && ended && l->at == l->text.size) return LK_ENOTFOUND;
        if (end || ended) {
            size_t size = end ? (size_t)(end + 1 - begin) : l->text.size - l->at;
            l->at += size;
            *line = lk_bytes(begin, size);
            return 0;
        }
        looked = l->text.size - l->at;
        if (looked) memmove(l->text.data, begin, looked);
        l->text.size = looked;
        l->at = 0;
        size_t more = looked > MORE_BYTES ? looked : MORE_BYTES; /* a long line is not moved for each piece of it */
        int code = lk__data_stream_fill(l->stream, looked + more, &l->text, err);
        if (code) return code;
    }
}

void lk_lines_progress(const struct lk_lines *l, uint64_t *done, uint64_t *size) {
    *done = lk__data_stream_offset(l->stream);
    *size = l->source.packed_size;
}
