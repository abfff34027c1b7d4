#include "data/dataset/job.h"
#include <stdio.h>
#include <string.h>

#define KEPT_TOKENS ((size_t)1 << 18)

void lk__dataset_job_begin(struct lk__dataset_job *j, const struct lk__dataset_job *what) {
    struct lk_tokens tokens = j->tokens;
    struct lk__dataset_job_document *documents = j->documents;
    size_t capacity = j->document_capacity;
    struct lk_buf spans = j->spans;
    if (tokens.capacity > KEPT_TOKENS) lk_tokens_release(&tokens);
    tokens.count = 0;
    *j = *what;
    j->least = UINT64_MAX;
    j->greatest = 0;
    j->tokens = tokens;
    j->spans = spans;
    j->spans.size = 0;
    j->documents = documents;
    j->document_capacity = capacity;
}

void lk__dataset_job_release(struct lk__dataset_job *j) {
    lk_tokens_release(&j->tokens);
    lk_buf_release(&j->spans);
    lk_free(j->documents);
    *j = (struct lk__dataset_job){0};
}

void lk__dataset_job_thread_release(struct lk__dataset_job_thread *t) {
    lk__tokenizer_encoder_free(t->encoder);
    lk_buf_release(&t->text);
    lk_buf_release(&t->rendered);
    lk_buf_release(&t->messages);
    lk_buf_release(&t->spans);
}

static int no_memory(struct lk__dataset_job *j) {
    return lk_fail(&j->err, LK_ENOMEM, "building a dataset: out of memory");
}

uint64_t lk__dataset_holdout_number(uint64_t seed, const struct lk_root *text) {
    uint8_t all[16 + 8 + 32] = "lockstep holdout";
    struct lk_root number;
    lk__dataset_put_u64(all + 16, seed);
    memcpy(all + 24, text->bytes, 32);
    lk_sha256(all, sizeof all, &number);
    return lk__dataset_get_u64(number.bytes);
}

static int add_document(struct lk__dataset_job *j, const struct lk__dataset_job_document *d) {
    if (j->document_count == j->document_capacity) {
        size_t capacity = j->document_capacity ? j->document_capacity * 2 : 64;
        struct lk__dataset_job_document *grown = lk_realloc(j->documents, capacity * sizeof *grown);
        if (!grown) return no_memory(j);
        j->documents = grown;
        j->document_capacity = capacity;
    }
    j->documents[j->document_count++] = *d;
    return 0;
}

/* Encodes prompt and response apart, so that the mask ends between tokens. */
static int encode_record(struct lk__dataset_job *j, struct lk__dataset_job_thread *t, const struct lk__data_record *r,
                         struct lk__dataset_job_document *d) {
    size_t before = j->tokens.count;
    int code = lk__tokenizer_encoder_run(t->encoder, t->text.data, r->prompt_size, false, &j->tokens, &j->err);
    d->masked = j->tokens.count - before;
    if (!code)
        code = lk__tokenizer_encoder_run(t->encoder, t->text.data + r->prompt_size, t->text.size - r->prompt_size, false,
                                         &j->tokens, &j->err);
    d->tokens = j->tokens.count - before;
    if (!code && d->masked >= LK__CONVERSATION - 1) /* - 1: a begin token may be added to the prompt */
        return lk_fail(&j->err, LK_EINVAL, "its prompt is too long");
    return code;
}

static int encode_span(struct lk__dataset_job *j, struct lk__dataset_job_thread *t, const struct lk__data_chat_span *p,
                       bool later) {
    if (p->id == UINT32_MAX)
        return lk__tokenizer_encoder_run(t->encoder, t->rendered.data + p->begin, p->size, later, &j->tokens, &j->err);
    if (lk__tokenizer_tokens_reserve(&j->tokens, 1)) return no_memory(j);
    j->tokens.ids[j->tokens.count++] = p->id;
    return 0;
}

/* A conversation: its text is that of its tokens, and so are size and digest. */
static int encode_messages(struct lk__dataset_job *j, struct lk__dataset_job_thread *t,
                           const struct lk_tokenizer *tokenizer, const struct lk__data_record *r,
                           struct lk__dataset_job_document *d, size_t *where) {
    size_t before = j->tokens.count, targets = 0;
    if (!j->rules->chat)
        return lk_fail(&j->err, LK_EINVAL, "it has \"messages\": say by --template (%s) how they are written",
                       LK_CHAT_NAMES);
    int code = lk__data_messages_parse(r->messages, r->messages_size, &t->text, &t->messages, where, &j->err);
    if (code) return code;
    size_t count = t->messages.size / sizeof(struct lk__data_message);
    const struct lk__data_message *m = (const struct lk__data_message *)(const void *)t->messages.data;
    struct lk_message *all = lk_calloc(count, sizeof *all);
    if (!all) return no_memory(j);
    for (size_t i = 0; i < count; i++) {
        all[i].role = lk_bytes(t->text.data + m[i].role, m[i].role_size);
        all[i].content = lk_bytes(t->text.data + m[i].content, m[i].content_size);
    }
    struct lk_conversation c = {.messages = all, .count = count};
    code = lk__data_chat_render(j->rules->chat, &c, false, &t->rendered, &t->spans, &j->err);
    lk_free(all);
    if (code == LK_EUNSUPPORTED) code = j->err.code = LK_EINVAL; /* a record like others that are bad */
    const struct lk__data_chat_span *p = (const struct lk__data_chat_span *)(const void *)t->spans.data;
    for (size_t i = 0; !code && i < t->spans.size / sizeof *p; i++) {
        size_t from = j->tokens.count;
        if ((code = encode_span(j, t, &p[i], lk__data_chat_later(tokenizer, j->rules->chat, p, i)))) break;
        if (j->tokens.count - from > UINT32_MAX) return lk_fail(&j->err, LK_EINVAL, "a message is too long");
        struct lk__dataset_job_span span = {(uint32_t)(j->tokens.count - from), p[i].target};
        targets += p[i].target ? span.tokens : 0;
        if (lk_buf_append(&j->spans, &span, sizeof span)) return no_memory(j);
        d->spans++;
    }
    if (code) return code;
    if (!targets) return lk_fail(&j->err, LK_EINVAL, "the assistant says nothing in it, so there is nothing to learn");
    d->tokens = j->tokens.count - before;
    t->text.size = 0;
    for (size_t i = before; i < j->tokens.count; i++) {
        struct lk_bytes b = lk_tokenizer_bytes(tokenizer, j->tokens.ids[i]);
        if (lk_buf_append(&t->text, b.data, b.size)) return no_memory(j);
    }
    return 0;
}

/* Adds a document that is encoded already; t->text is its text. */
static int finish_document(struct lk__dataset_job *j, struct lk__dataset_job_thread *t, struct lk__dataset_job_document *d,
                           size_t at) {
    const struct lk__dataset_holdout *h = &j->rules->holdout;
    struct lk_root digest;
    lk_sha256(t->text.data, t->text.size, &digest);
    memcpy(d->row.digest, digest.bytes, sizeof d->row.digest);
    d->row.source_offset = j->offset + at;
    d->row.size_bytes = t->text.size;
    d->split = at < j->held_out ? LK_TRAIN : LK_HELD_OUT;
    if (h->by_document) {
        uint64_t number = lk__dataset_holdout_number(h->seed, &digest);
        d->split = lk__dataset_holdout_split(h, number);
        if (number < j->least) j->least = number;
        if (number > j->greatest) j->greatest = number;
    }
    return add_document(j, d);
}

static int run_record(struct lk__dataset_job *j, struct lk__dataset_job_thread *t, const struct lk_tokenizer *tokenizer,
                      size_t at, size_t size) {
    struct lk__data_record record;
    size_t where = 0;
    int code = lk__data_record_parse((const char *)j->text + at, size, &j->rules->keys, &t->text, &record, &where, &j->err);
    j->err_byte = j->offset + at + where;
    if (code || record.blank) return code;
    if (!t->text.size && !record.messages) {
        j->empty++;
        return 0;
    }
    struct lk__dataset_job_document d = {0};
    where = 0;
    code = record.messages ? encode_messages(j, t, tokenizer, &record, &d, &where) : encode_record(j, t, &record, &d);
    if (record.messages) j->err_byte = j->offset + (size_t)((const uint8_t *)record.messages - j->text) + where;
    if (code) return code;
    j->tools += record.tools;
    d.row.line = j->lines + 1;
    d.row.prompt_tokens = record.messages ? LK__CONVERSATION : (uint32_t)d.masked;
    return finish_document(j, t, &d, at);
}

/* Where bad records may be left out (--skip-bad), takes back what such a record had added. */
static int run_line(struct lk__dataset_job *j, struct lk__dataset_job_thread *t, const struct lk_tokenizer *tokenizer,
                    size_t at, size_t size) {
    size_t tokens = j->tokens.count, spans = j->spans.size;
    int code = run_record(j, t, tokenizer, at, size);
    if (code != LK_EINVAL || !j->rules->skip_bad) return code;
    j->tokens.count = tokens;
    j->spans.size = spans;
    if (j->bad < LK__BAD_NOTED) {
        struct lk__dataset_bad *bad = &j->first_bad[j->bad];
        *bad = (struct lk__dataset_bad){.line = j->lines + 1, .byte = j->err_byte};
        snprintf(bad->why, sizeof bad->why, "%.199s", j->err.message);
    }
    j->bad++;
    return 0;
}

static int run_lines(struct lk__dataset_job *j, struct lk__dataset_job_thread *t, const struct lk_tokenizer *tokenizer) {
    int code = 0;
    for (size_t at = 0; !code && at < j->size;) {
        const uint8_t *newline = memchr(j->text + at, '\n', j->size - at);
        size_t end = newline ? (size_t)(newline - j->text) : j->size;
        code = run_line(j, t, tokenizer, at, end - at);
        if (code) j->err_line = j->lines + 1;
        j->lines++;
        at = end + 1;
    }
    return code;
}

static int run_texts(struct lk__dataset_job *j, struct lk__dataset_job_thread *t) {
    struct lk_bytes mark = j->rules->split_at;
    int code = 0;
    for (size_t at = 0; !code && at < j->size;) {
        const uint8_t *found = memmem(j->text + at, j->size - at, mark.data, mark.size);
        size_t end = found ? (size_t)(found - j->text) : j->size, before = j->tokens.count;
        struct lk__dataset_job_document d = {0};
        j->err_byte = j->offset + at;
        t->text.size = 0;
        if (end == at)
            j->empty++;
        else if (lk_buf_append(&t->text, j->text + at, end - at))
            code = no_memory(j);
        else if (!(code = lk__tokenizer_encoder_run(t->encoder, t->text.data, t->text.size, false, &j->tokens, &j->err))) {
            d.tokens = j->tokens.count - before;
            code = finish_document(j, t, &d, at);
        }
        at = end + mark.size;
    }
    return code;
}

void lk__dataset_job_run(struct lk__dataset_job *j, const struct lk_tokenizer *tokenizer,
                         struct lk__dataset_job_thread *t) {
    j->err_byte = j->offset;
    if (j->kind == LK__JOB_DIGEST) {
        lk_sha256(j->text, j->size, &j->digest);
        return;
    }
    if (!t->encoder && !(t->encoder = lk__tokenizer_encoder_create(tokenizer)))
        j->code = no_memory(j);
    else if (j->kind == LK__JOB_PIECE)
        j->code = lk__tokenizer_encoder_run(t->encoder, j->text, j->size, !j->first, &j->tokens, &j->err);
    else
        j->code = j->kind == LK__JOB_LINES ? run_lines(j, t, tokenizer) : run_texts(j, t);
}
