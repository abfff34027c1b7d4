/* Files as lists of texts, for what learns from all of them at once. */
#include "data/jsonl.h"
#include "data/source.h"
#include <string.h>

struct lk_texts_memory {
    struct lk__data_text *texts; /* mapped files */
    size_t count;
    struct lk_buf *decoded; /* the texts of records, a buffer a file */
};

struct reader {
    const struct lk_source_options *options;
    const struct lk__data_source *source;
    struct lk_buf *decoded, list; /* list: struct place, in `decoded`, which may move while it grows */
    struct lk_buf text, messages;
    uint64_t bad;
    struct lk_err *err;
};

static int no_memory(struct lk_err *err) {
    return lk_fail(err, LK_ENOMEM, "reading texts: out of memory");
}

struct place {
    size_t at, size;
};

static int keep(struct reader *r, const char *text, size_t size) {
    struct place p = {r->decoded->size, size};
    if (!size) return 0;
    return lk_buf_append(r->decoded, text, size) || lk_buf_append(&r->list, &p, sizeof p) ? no_memory(r->err) : 0;
}

static int keep_messages(struct reader *r, const struct lk__data_record *record, struct lk_err *err) {
    size_t at;
    int code = lk__data_messages_parse(record->messages, record->messages_size, &r->text, &r->messages, &at, err);
    const struct lk__data_message *m = (const struct lk__data_message *)(const void *)r->messages.data;
    for (size_t i = 0; !code && i < r->messages.size / sizeof *m; i++)
        code = keep(r, r->text.data + m[i].content, m[i].content_size);
    return code;
}

static int read_record(struct reader *r, const char *line, size_t size, uint64_t number) {
    struct lk__data_record_keys keys = {r->options->text_key, r->options->messages_key, false};
    struct lk__data_record record;
    struct lk_err why = {0};
    size_t at, decoded = r->decoded->size, list = r->list.size;
    int code = lk__data_record_parse(line, size, &keys, &r->text, &record, &at, &why);
    if (!code && record.messages)
        code = keep_messages(r, &record, &why);
    else if (!code && !record.blank && !(code = keep(r, r->text.data, record.prompt_size)))
        code = keep(r, r->text.data + record.prompt_size, r->text.size - record.prompt_size);
    if (!code) return 0;
    const char *name = lk__data_source_shown(r->source->path), *unit = r->source->shape == LK__LINES ? ":" : ": record ";
    r->decoded->size = decoded;
    r->list.size = list;
    if (code == LK_EINVAL && r->bad < r->options->skip_bad) {
        if (r->bad++ < 8)
            lk__data_source_note(r->options, "left out: %s%s%llu: %s", name, unit, (unsigned long long)number, why.message);
        return 0;
    }
    if (code == LK_ENOMEM) return no_memory(r->err);
    return lk_fail(r->err, code, "%s%s%llu: %s (--skip-bad N leaves out up to N bad records)", name, unit,
                   (unsigned long long)number, why.message);
}

static int read_records(struct reader *r, const struct lk__data_text *text) {
    const char *at = (const char *)text->data, *end = at + text->size;
    int code = 0;
    for (uint64_t number = 1; !code && at < end; number++) {
        const char *newline = memchr(at, '\n', (size_t)(end - at)), *stop = newline ? newline : end;
        code = read_record(r, at, (size_t)(stop - at), number);
        at = stop + 1;
    }
    return code;
}

static int add(struct lk_texts *out, const void *data, size_t size, size_t *capacity, struct lk_err *err) {
    if (!size) return 0;
    if (out->count == *capacity) {
        size_t more = *capacity ? 2 * *capacity : 16;
        struct lk_bytes *list = lk_realloc(out->list, more * sizeof *list);
        if (!list) return no_memory(err);
        out->list = list;
        *capacity = more;
    }
    out->list[out->count++] = lk_bytes(data, size);
    return 0;
}

static int add_pieces(struct lk_texts *out, const struct lk__data_text *text, struct lk_bytes mark, size_t *capacity,
                      struct lk_err *err) {
    int code = 0;
    for (size_t at = 0; !code && at < text->size;) {
        const uint8_t *found = mark.size ? memmem(text->data + at, text->size - at, mark.data, mark.size) : NULL;
        size_t end = found ? (size_t)(found - text->data) : text->size;
        code = add(out, text->data + at, end - at, capacity, err);
        at = end + mark.size;
        if (!found) break;
    }
    return code;
}

/* One file. */
static int read_file(struct reader *r, const char *path, struct lk_texts *out, size_t *capacity) {
    struct lk_texts_memory *m = out->memory;
    struct lk__data_source source;
    struct lk__data_text *text = &m->texts[m->count];
    int code = lk__data_source_look(path, NULL, r->options, &source, r->err);
    if (code) return code;
    r->source = &source;
    r->decoded = &m->decoded[m->count++];
    r->list.size = 0;
    code = lk__data_text_open(&source, NULL, text, r->err);
    if (!code && source.kind == LK__PLAIN) code = add_pieces(out, text, r->options->split_at, capacity, r->err);
    if (!code && source.kind == LK__JSONL) {
        code = read_records(r, text);
        lk__data_text_close(text);
        const struct place *p = (const struct place *)(const void *)r->list.data;
        for (size_t i = 0; !code && i < r->list.size / sizeof *p; i++)
            code = add(out, r->decoded->data + p[i].at, p[i].size, capacity, r->err);
    }
    lk__data_source_close(&source);
    return code;
}

int lk_texts_read(const char *const *paths, size_t count, const struct lk_source_options *options, struct lk_texts *out,
                  struct lk_err *err) {
    struct lk__data_found_list found;
    struct reader r = {.options = options, .err = err};
    size_t capacity = 0;
    *out = (struct lk_texts){0};
    int code = lk__data_sources_find(paths, count, options, &found, err);
    if (code) return code;
    struct lk_texts_memory *m = out->memory = lk_calloc(1, sizeof *out->memory);
    if (m) m->texts = lk_calloc(found.count, sizeof *m->texts);
    if (m) m->decoded = lk_calloc(found.count, sizeof *m->decoded);
    if (!m || !m->texts || !m->decoded) code = no_memory(err);
    for (size_t i = 0; !code && i < found.count; i++) code = read_file(&r, found.list[i].path, out, &capacity);
    if (!code && r.bad)
        lk__data_source_note(options, "%llu bad record%s left out", (unsigned long long)r.bad, r.bad == 1 ? "" : "s");
    lk_buf_release(&r.list);
    lk_buf_release(&r.text);
    lk_buf_release(&r.messages);
    lk__data_found_release(&found);
    if (code) lk_texts_release(out);
    return code;
}

void lk_texts_release(struct lk_texts *t) {
    struct lk_texts_memory *m = t->memory;
    for (size_t i = 0; m && i < m->count; i++) {
        lk__data_text_close(&m->texts[i]);
        lk_buf_release(&m->decoded[i]);
    }
    if (m) lk_free(m->texts), lk_free(m->decoded), lk_free(m);
    lk_free(t->list);
    *t = (struct lk_texts){0};
}
