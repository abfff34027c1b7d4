/* A source becomes tokens in rounds. In one round the pool runs a window of jobs, writes what the jobs of the round before
 * made, hashes the text of this one, and unpacks the text of the next. README.md, "Building". */
#include "data/dataset/builder.h"
#include "data/tokenizer/pretoken.h"
#include "lockstep/base/progress.h"
#include <stdio.h>
#include <string.h>

#define FILL_FIRST ((size_t)1 << 20) /* a stream's rounds: the first one soon, the others large enough to share out */
#define FILL_BYTES ((size_t)4 << 20)
#define OWN_SHARE  4096 /* bytes of held-out text from which on a text gives its own end */

static int no_memory(struct lk_err *err) {
    return lk_fail(err, LK_ENOMEM, "building a dataset: out of memory");
}

/* --- writing ---------------------------------------------------------------------------------------------- */

/* Between the name of a source and a number of its lines; in a list of records it counts those. */
static const char *unit(const struct lk__dataset_builder *b) {
    return b->inputs[b->input].source.shape == LK__LINES ? ":" : ": record ";
}

static int job_failed(struct lk__dataset_builder *b, struct lk__dataset_job *j, struct lk_err *err) {
    const char *name = lk__dataset_input_name(&b->inputs[b->input]);
    if (j->kind == LK__JOB_LINES && j->code == LK_EINVAL)
        return lk_fail(err, j->code, "%s%s%llu: byte %llu: %s (--skip-bad N leaves out up to N bad records)", name, unit(b),
                       (unsigned long long)(b->lines + j->err_line), (unsigned long long)j->err_byte, j->err.message);
    if (j->kind != LK__JOB_LINES)
        return lk_fail(err, j->code, "%s: byte %llu: %s", name, (unsigned long long)j->err_byte, j->err.message);
    return lk_fail(err, j->code, "%s%s%llu: byte %llu: %s", name, unit(b), (unsigned long long)(b->lines + j->err_line),
                   (unsigned long long)j->err_byte, j->err.message);
}

/* The token that a text begins with, where there is one: no target, because nothing else can stand there. */
static int write_begin(struct lk__dataset_builder *b, struct lk__dataset_splitter *s, struct lk_err *err) {
    return b->begin == UINT32_MAX ? 0 : lk__dataset_splitter_tokens(s, &b->begin, 1, 1, err);
}

static void take_number(struct lk__dataset_builder *b, uint64_t least, uint64_t greatest) {
    if (least < b->least) b->least = least;
    if (greatest > b->greatest) b->greatest = greatest;
}

static int write_piece(struct lk__dataset_builder *b, struct lk__dataset_job *j, struct lk_err *err) {
    enum lk_split split = j->split;
    if (j->by_number) {
        uint64_t number = lk__dataset_holdout_number(b->rules.holdout.seed, &b->digest);
        split = lk__dataset_holdout_split(&b->rules.holdout, number);
        take_number(b, number, number);
    }
    struct lk__dataset_splitter *s = b->splits[split];
    int code = j->first ? write_begin(b, s, err) : 0;
    if (!code) code = lk__dataset_splitter_tokens(s, j->tokens.ids, j->tokens.count, 0, err);
    if (code || !j->last) return code;
    j->row.source = (uint32_t)b->input;
    j->row.prompt_tokens = b->begin != UINT32_MAX;
    memcpy(j->row.digest, b->digest.bytes, sizeof j->row.digest);
    return lk__dataset_splitter_document(s, &j->row, err);
}

/* Bad records that were left out: the first ones are told, too many are an error. */
static int write_bad(struct lk__dataset_builder *b, const struct lk__dataset_job *j, struct lk_err *err) {
    const char *name = lk__dataset_input_name(&b->inputs[b->input]);
    for (uint64_t i = 0; i < j->bad && b->bad + i < LK__BAD_NOTED; i++) {
        const struct lk__dataset_bad *bad = &j->first_bad[i];
        char text[512];
        int size = snprintf(text, sizeof text, "%.200s%s%llu: byte %llu: %s", name, unit(b),
                            (unsigned long long)(b->lines + bad->line), (unsigned long long)bad->byte, bad->why);
        if (b->bad + i == 0) snprintf(b->first_bad, sizeof b->first_bad, "%s", text);
        if (b->bad + i < b->bad_noted) continue; /* told by the build that was given up for this one */
        b->bad_noted++;
        if (lk_buf_append(&b->notes, text, (size_t)size + 1)) return no_memory(err);
    }
    b->bad += j->bad;
    if (b->bad <= b->rules.skip_bad) return 0;
    return lk_fail(err, LK_EINVAL, "more than %llu bad records, as --skip-bad allows; the first is %s",
                   (unsigned long long)b->rules.skip_bad, b->first_bad);
}

static int write_documents(struct lk__dataset_builder *b, struct lk__dataset_job *j, struct lk_err *err) {
    const uint32_t *ids = j->tokens.ids;
    const struct lk__dataset_job_span *spans = (const struct lk__dataset_job_span *)(const void *)j->spans.data;
    for (size_t i = 0; i < j->document_count; i++) {
        struct lk__dataset_job_document *d = &j->documents[i];
        struct lk__dataset_splitter *s = b->splits[d->split];
        d->row.source = (uint32_t)b->input;
        if (d->row.line) d->row.line += b->lines;
        if (!d->spans && b->begin != UINT32_MAX) d->row.prompt_tokens++;
        int code = d->spans ? 0 : write_begin(b, s, err);
        if (!code && !d->spans) code = lk__dataset_splitter_tokens(s, ids, d->tokens, d->masked, err);
        const uint32_t *at = ids;
        for (size_t k = 0; k < d->spans && !code; k++, at += spans->tokens, spans++)
            code = lk__dataset_splitter_tokens(s, at, spans->tokens, spans->target ? 0 : spans->tokens, err);
        if (!code) code = lk__dataset_splitter_document(s, &d->row, err);
        if (code) return code;
        ids += d->tokens;
    }
    int code = write_bad(b, j, err);
    take_number(b, j->least, j->greatest);
    b->lines += j->lines;
    b->empty += j->empty;
    b->tools += j->tools;
    return code;
}

static int write_job(struct lk__dataset_builder *b, struct lk__dataset_job *j, struct lk_err *err) {
    if (j->code) return job_failed(b, j, err);
    if (j->kind == LK__JOB_DIGEST) {
        b->digest = j->digest;
        return 0;
    }
    b->done += j->size;
    return j->kind == LK__JOB_PIECE ? write_piece(b, j, err) : write_documents(b, j, err);
}

static void write_window(struct lk__dataset_builder *b) {
    struct lk__dataset_window *w = b->before;
    for (size_t i = 0; !b->write_code && i < w->count; i++) b->write_code = write_job(b, &w->jobs[i], &b->write_err);
    w->count = 0;
}

/* --- rounds ----------------------------------------------------------------------------------------------- */

/* The jobs of the text, in order, have every byte of a source once. Neighbours in memory go together: the hasher takes two
 * leaves at once where it has them in one piece. */
static void hash_window(struct lk__dataset_builder *b) {
    const uint8_t *text = NULL;
    size_t size = 0;
    for (size_t i = 0; i < b->now->count; i++) {
        const struct lk__dataset_job *j = &b->now->jobs[i];
        if (j->kind == LK__JOB_DIGEST) continue;
        if (size && text + size != j->text) {
            lk_hasher_update(b->hasher, text, size);
            size = 0;
        }
        if (!size) text = j->text;
        size += j->size;
    }
    lk_hasher_update(b->hasher, text, size);
}

enum { WRITE, FILL, HASH, OTHERS };
static void run_tile(void *arg, size_t tile, int thread) {
    struct lk__dataset_builder *b = arg;
    if (tile == WRITE)
        write_window(b);
    else if (tile == FILL)
        b->fill_code = b->stream ? lk__data_stream_fill(b->stream, b->fill, &b->next, &b->fill_err) : 0;
    else if (tile == HASH)
        hash_window(b);
    else
        lk__dataset_job_run(&b->now->jobs[tile - OTHERS], b->t, &b->threads[thread]);
}

static int run_round(struct lk__dataset_builder *b, struct lk_err *err) {
    lk_pool_run(b->pool, OTHERS + b->now->count, run_tile, b);
    struct lk__dataset_window *ran = b->now;
    b->now = b->before;
    b->before = ran;
    for (size_t at = 0; at < b->notes.size; at += strlen(b->notes.data + at) + 1)
        lk__data_source_note(&b->options->source, "left out: %s", b->notes.data + at);
    b->notes.size = 0;
    if (b->write_code) return lk_fail(err, b->write_code, "%s", b->write_err.message);
    if (b->options->progress && b->options->progress(b->options->progress_arg, b->done, b->total_known ? b->total : 0))
        return lk_fail(err, LK_ESTOPPED, "building a dataset: stopped on request");
    if (!b->fill_code) return 0;
    write_window(b); /* the damage lies behind the text of these jobs, so an error of theirs is the first in the file */
    if (b->write_code) return lk_fail(err, b->write_code, "%s", b->write_err.message);
    return lk_fail(err, b->fill_code, "%s", b->fill_err.message);
}

static int add_job(struct lk__dataset_builder *b, const struct lk__dataset_job *j, struct lk_err *err) {
    lk__dataset_job_begin(&b->now->jobs[b->now->count++], j);
    return b->now->count == LK__WINDOW ? run_round(b, err) : 0;
}

/* Runs what is left and writes everything. */
static int drain(struct lk__dataset_builder *b, struct lk_err *err) {
    int code = b->now->count ? run_round(b, err) : 0;
    return code ? code : run_round(b, err);
}

/* --- plain texts ------------------------------------------------------------------------------------------ */

/* Where a plain text is cut when byte `at` (0 < at < size) is to be the first held out: after the line that holds it, else
 * after the line before, else between characters. */
static size_t cut_text(const uint8_t *text, size_t at, size_t size) {
    const uint8_t *newline = memchr(text + at - 1, '\n', size - at);
    if (newline) return (size_t)(newline - text) + 1;
    newline = memrchr(text, '\n', at - 1);
    if (newline) return (size_t)(newline - text) + 1;
    for (size_t back = 1; back <= 3 && back <= at; back++) { /* inside a well-formed sequence? */
        uint32_t c;
        if (lk__tokenizer_utf8_decode(text + at - back, size - at + back, &c) > back) return at - back;
    }
    return at;
}

static int add_document(struct lk__dataset_builder *b, size_t begin, size_t end, enum lk_split split, bool by_number,
                        struct lk_err *err) {
    const uint8_t *text = b->inputs[b->input].text.data;
    if (begin == end) return 0;
    struct lk__dataset_job digest = {.kind = LK__JOB_DIGEST, .text = text + begin, .size = end - begin, .offset = begin};
    int code = add_job(b, &digest, err);
    for (size_t at = begin, next; !code && at < end; at = next) {
        next = end - at <= LK__JOB_BYTES ? end : at + lk__tokenizer_cut(b->t, text + at, LK__JOB_BYTES - 1, end - at);
        struct lk__dataset_job j = {.kind = LK__JOB_PIECE,
                                    .text = text + at,
                                    .size = next - at,
                                    .offset = at,
                                    .split = split,
                                    .by_number = by_number,
                                    .first = at == begin,
                                    .last = next == end};
        j.row.source_offset = begin;
        j.row.size_bytes = end - begin;
        code = add_job(b, &j, err);
    }
    return code;
}

static int add_plain(struct lk__dataset_builder *b, uint64_t held_out, struct lk_err *err) {
    const struct lk__data_text *text = &b->inputs[b->input].text;
    size_t size = text->size, cut = size;
    if (!size) b->empty++;
    if (b->rules.holdout.by_document) { /* a large text gives its own end, a small one is held out whole or not at all */
        uint64_t share = (uint64_t)((double)size * b->options->holdout);
        if (share < OWN_SHARE) return add_document(b, 0, size, LK_TRAIN, true, err);
        held_out = size - share;
    }
    if (held_out == 0)
        cut = 0;
    else if (held_out < size)
        cut = cut_text(text->data, (size_t)held_out, size);
    int code = add_document(b, 0, cut, LK_TRAIN, false, err);
    return code ? code : add_document(b, cut, size, LK_HELD_OUT, false, err);
}

/* How a job of documents begins: `size` bytes at `offset` of the source, held out from byte `held_out` of that on. */
static struct lk__dataset_job documents_job(struct lk__dataset_builder *b, enum lk__dataset_job_kind kind,
                                            const uint8_t *text, size_t size, uint64_t offset, uint64_t held_out) {
    struct lk__dataset_job j = {.kind = kind, .text = text, .size = size, .offset = offset, .rules = &b->rules};
    j.held_out = held_out <= offset ? 0 : held_out - offset > size ? size : (size_t)(held_out - offset);
    return j;
}

/* A plain text of several documents: jobs end behind what stands between two. */
static int add_texts(struct lk__dataset_builder *b, uint64_t held_out, struct lk_err *err) {
    struct lk_bytes mark = b->rules.split_at;
    const struct lk__data_text *text = &b->inputs[b->input].text;
    int code = 0;
    if (!text->size) b->empty++;
    for (size_t at = 0, next; !code && at < text->size; at = next) {
        next = text->size;
        for (size_t from = at, end; from < text->size && next == text->size; from = end) { /* mark after mark */
            const uint8_t *found = memmem(text->data + from, text->size - from, mark.data, mark.size);
            end = found ? (size_t)(found - text->data) + mark.size : text->size;
            if (end - at >= LK__JOB_BYTES) next = end;
        }
        struct lk__dataset_job j = documents_job(b, LK__JOB_TEXTS, text->data + at, next - at, at, held_out);
        code = add_job(b, &j, err);
    }
    return code;
}

/* --- lines ------------------------------------------------------------------------------------------------ */

/* Whole lines, text[0..size) at `offset` of the source. */
static int add_lines(struct lk__dataset_builder *b, const uint8_t *text, size_t size, uint64_t offset, uint64_t held_out,
                     struct lk_err *err) {
    int code = 0;
    for (size_t at = 0, next; !code && at < size; at = next) {
        next = size;
        if (size - at > LK__JOB_BYTES) {
            const uint8_t *newline = memchr(text + at + LK__JOB_BYTES, '\n', size - at - LK__JOB_BYTES);
            if (newline) next = (size_t)(newline - text) + 1;
        }
        struct lk__dataset_job j = documents_job(b, LK__JOB_LINES, text + at, next - at, offset + at, held_out);
        code = add_job(b, &j, err);
    }
    return code;
}

/* Bytes up to the last line end of the text; more is unpacked until there is one. */
static int whole_lines(struct lk__dataset_builder *b, size_t *size, struct lk_err *err) {
    for (size_t seen = 0;;) {
        const char *newline = memrchr(b->text.data + seen, '\n', b->text.size - seen);
        *size = lk__data_stream_ended(b->stream) ? b->text.size : newline ? (size_t)(newline - b->text.data) + 1 : 0;
        if (*size || lk__data_stream_ended(b->stream)) return 0;
        seen = b->text.size;
        uint64_t most = lk_memory_available_bytes();
        char text[32];
        if (seen > most) /* beyond that the kernel would kill the process */
            return lk_fail(err, LK_ENOMEM, "%s: a record takes more than the %s of memory that are free",
                           lk__dataset_input_name(&b->inputs[b->input]), lk_format_bytes(most, text));
        int code = lk__data_stream_fill(b->stream, b->text.size * 2, &b->text, err);
        if (code) return code;
    }
}

/* *wrong: there is more text than was guessed; the rest is not read. */
static int add_stream(struct lk__dataset_builder *b, uint64_t held_out, bool *wrong, struct lk_err *err) {
    struct lk__dataset_input *in = &b->inputs[b->input];
    uint64_t offset = 0;
    b->text.size = 0;
    int code = lk__data_stream_fill(b->stream, FILL_FIRST, &b->text, err);
    while (!code && b->text.size) {
        size_t size;
        *wrong = in->guessed && offset + b->text.size > in->size;
        if (*wrong) return 0;
        if ((code = whole_lines(b, &size, err))) break;
        b->next.size = 0;
        if (lk_buf_append(&b->next, b->text.data + size, b->text.size - size)) return no_memory(err);
        b->fill = b->next.size + FILL_BYTES;
        code = add_lines(b, (const uint8_t *)b->text.data, size, offset, held_out, err);
        if (!code && b->now->count) code = run_round(b, err);
        struct lk_buf used = b->text;
        b->text = b->next;
        b->next = used;
        offset += size;
    }
    in->text.size = (size_t)offset;
    return code;
}

/* --- a source --------------------------------------------------------------------------------------------- */

static int open_input(struct lk__dataset_builder *b, struct lk__dataset_input *in, struct lk_err *err) {
    const struct lk__data_source *s = &in->source;
    b->lines = 0;
    b->hasher = lk_hasher_create();
    if (!b->hasher) return no_memory(err);
    if (s->kind == LK__JSONL && (s->packing != LK__UNPACKED || s->shape != LK__LINES))
        return lk__data_stream_open(s, &b->stream, err);
    return lk__data_text_open(s, b->store->dir, &in->text, err);
}

static int check_size(const struct lk__dataset_input *in, bool *wrong, struct lk_err *err) {
    *wrong = in->sized && in->text.size != in->size;
    if (!*wrong || in->guessed) return 0;
    return lk_fail(err, LK_EIO, "%s changed while it was read (%llu bytes, then %zu)", lk__dataset_input_name(in),
                   (unsigned long long)in->size, in->text.size);
}

int lk__dataset_builder_add(struct lk__dataset_builder *b, size_t input, uint64_t begin, bool *wrong, struct lk_err *err) {
    struct lk__dataset_input *in = &b->inputs[input];
    uint64_t held_out = b->cut <= begin ? 0 : b->cut - begin;
    b->input = input;
    int code = open_input(b, in, err);
    if (!code && !b->stream) code = check_size(in, wrong, err);
    if (code || *wrong) return code;
    if (b->stream)
        code = add_stream(b, held_out, wrong, err);
    else if (in->source.kind == LK__JSONL)
        code = add_lines(b, in->text.data, in->text.size, 0, held_out, err);
    else
        code = b->rules.split_at.size ? add_texts(b, held_out, err) : add_plain(b, held_out, err);
    if (!code && !*wrong) code = drain(b, err);
    if (!code && !*wrong && b->stream) code = check_size(in, wrong, err);
    if (code || *wrong) return code;
    in->size = in->text.size;
    lk_hasher_final(b->hasher, &in->root);
    lk__dataset_builder_release_source(b);
    return 0;
}

void lk__dataset_builder_release_source(struct lk__dataset_builder *b) {
    for (size_t i = 0; i < 2; i++) b->windows[i].count = 0;
    struct lk__dataset_input *in = &b->inputs[b->input];
    lk__data_text_close(&in->text);
    lk_hasher_free(b->hasher);
    lk__data_stream_close(b->stream);
    b->hasher = NULL;
    b->stream = NULL;
    b->write_code = b->fill_code = 0;
}
