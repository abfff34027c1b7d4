#include "data/dataset/job.h"
#include "data/jsonl.h"
#include <string.h>

#define KEPT_TOKENS ((size_t)1 << 18)

void lk__job_begin(struct lk__job *j, const struct lk__job *what) {
    struct lk_tokens tokens = j->tokens;
    struct lk__job_document *documents = j->documents;
    size_t capacity = j->document_capacity;
    if (tokens.capacity > KEPT_TOKENS) lk_tokens_release(&tokens);
    tokens.count = 0;
    *j = *what;
    j->tokens = tokens;
    j->documents = documents;
    j->document_capacity = capacity;
}

void lk__job_release(struct lk__job *j) {
    lk_tokens_release(&j->tokens);
    lk_free(j->documents);
    *j = (struct lk__job){0};
}

void lk__job_thread_release(struct lk__job_thread *t) {
    lk__encoder_free(t->encoder);
    lk_buf_release(&t->text);
}

static int no_memory(struct lk__job *j) {
    return lk_fail(&j->err, LK_ENOMEM, "building a dataset: out of memory");
}

static int add_document(struct lk__job *j, const struct lk__job_document *d) {
    if (j->document_count == j->document_capacity) {
        size_t capacity = j->document_capacity ? j->document_capacity * 2 : 64;
        struct lk__job_document *grown = lk_realloc(j->documents, capacity * sizeof *grown);
        if (!grown) return no_memory(j);
        j->documents = grown;
        j->document_capacity = capacity;
    }
    j->documents[j->document_count++] = *d;
    return 0;
}

/* Encodes prompt and response apart, so that the mask ends between tokens. */
static int encode_record(struct lk__job *j, struct lk__job_thread *t, const struct lk__record *r,
                         struct lk__job_document *d) {
    size_t before = j->tokens.count;
    int code = lk__encoder_run(t->encoder, t->text.data, r->prompt_size, &j->tokens, &j->err);
    d->masked = j->tokens.count - before;
    if (!code)
        code =
            lk__encoder_run(t->encoder, t->text.data + r->prompt_size, t->text.size - r->prompt_size, &j->tokens, &j->err);
    d->tokens = j->tokens.count - before;
    if (!code && d->masked > UINT32_MAX) return lk_fail(&j->err, LK_EINVAL, "its prompt is too long");
    return code;
}

static int run_line(struct lk__job *j, struct lk__job_thread *t, size_t at, size_t size) {
    struct lk__record record;
    size_t where = 0;
    int code = lk__record_parse((const char *)j->text + at, size, &t->text, &record, &where, &j->err);
    j->err_byte = j->offset + at + where;
    if (code || record.blank) return code;
    if (!t->text.size) {
        j->empty++;
        return 0;
    }
    struct lk__job_document d = {0};
    struct lk_root digest;
    code = encode_record(j, t, &record, &d);
    if (code) return code;
    lk_sha256(t->text.data, t->text.size, &digest);
    memcpy(d.row.digest, digest.bytes, sizeof d.row.digest);
    d.row.source_offset = j->offset + at;
    d.row.size_bytes = t->text.size;
    d.row.line = j->lines + 1;
    d.row.prompt_tokens = (uint32_t)d.masked;
    if (at < j->held_out) j->first_held_out = j->document_count + 1;
    return add_document(j, &d);
}

static int run_lines(struct lk__job *j, struct lk__job_thread *t) {
    int code = 0;
    for (size_t at = 0; !code && at < j->size;) {
        const uint8_t *newline = memchr(j->text + at, '\n', j->size - at);
        size_t end = newline ? (size_t)(newline - j->text) : j->size;
        code = run_line(j, t, at, end - at);
        if (code) j->err_line = j->lines + 1;
        j->lines++;
        at = end + 1;
    }
    return code;
}

void lk__job_run(struct lk__job *j, const struct lk_tokenizer *tokenizer, struct lk__job_thread *t) {
    j->err_byte = j->offset;
    if (j->kind == LK__JOB_DIGEST) {
        lk_sha256(j->text, j->size, &j->digest);
        return;
    }
    if (!t->encoder && !(t->encoder = lk__encoder_create(tokenizer)))
        j->code = no_memory(j);
    else if (j->kind == LK__JOB_PIECE)
        j->code = lk__encoder_run(t->encoder, j->text, j->size, &j->tokens, &j->err);
    else
        j->code = run_lines(j, t);
}
