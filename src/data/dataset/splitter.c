/* Writes one split: tokens, document ends, document table, byte index, loss mask. */
#include "data/dataset/internal.h"
#include "data/tokenizer/internal.h"
#include <string.h>

const char *const lk__dataset_part_names[LK__PARTS] = {"tokens", "ends", "documents", "index", "mask"};
const char *const lk__dataset_split_names[2] = {"train", "held_out"};

#define STAGE_BYTES ((size_t)64 << 10)

struct stage { /* a blob with a buffer before it */
    struct lk_blob_writer *writer;
    struct lk_root root;
    size_t used;
    uint8_t *bytes;
};

struct lk__dataset_splitter {
    struct lk_store *store;
    const struct lk_tokenizer *t;
    uint32_t token_bytes, end;
    struct stage stages[LK__PARTS];
    uint64_t tokens, bytes, documents, document_bytes, masked;
    uint32_t *lengths; /* bytes of each id */
    uint8_t mask_byte;
    bool begun;
    bool exact;               /* rows come with size and digest; else both are made here, from the tokens' text */
    struct lk_digest *digest; /* unless exact: of the document's text so far, except what still waits in `text` */
    struct lk_buf text;
};

void lk__dataset_row_put(const struct lk__dataset_row *r, uint8_t out[LK__DOCUMENT_BYTES]) {
    lk__dataset_put_u64(out, r->source_offset);
    lk__dataset_put_u64(out + 8, r->size_bytes);
    lk__dataset_put_u64(out + 16, r->byte_begin);
    lk__dataset_put_u64(out + 24, r->line);
    lk__dataset_put_u64(out + 32, (uint64_t)r->prompt_tokens << 32 | r->source);
    memcpy(out + 40, r->digest, 32);
}

void lk__dataset_row_get(const uint8_t in[LK__DOCUMENT_BYTES], struct lk__dataset_row *r) {
    r->source_offset = lk__dataset_get_u64(in);
    r->size_bytes = lk__dataset_get_u64(in + 8);
    r->byte_begin = lk__dataset_get_u64(in + 16);
    r->line = lk__dataset_get_u64(in + 24);
    r->source = (uint32_t)lk__dataset_get_u64(in + 32);
    r->prompt_tokens = (uint32_t)(lk__dataset_get_u64(in + 32) >> 32);
    memcpy(r->digest, in + 40, 32);
}

static int no_memory(struct lk_err *err) {
    return lk_fail(err, LK_ENOMEM, "building a dataset: out of memory");
}

int lk__dataset_splitter_open(struct lk_store *store, const struct lk_tokenizer *t, bool from_tokens,
                              struct lk__dataset_splitter **out, struct lk_err *err) {
    struct lk__dataset_splitter *s = *out = lk_calloc(1, sizeof *s);
    if (!s) return no_memory(err);
    uint32_t vocab = lk_tokenizer_vocab(t);
    s->store = store;
    s->t = t;
    s->token_bytes = vocab <= 65536 ? 2 : 4;
    s->end = lk_tokenizer_end(t);
    s->exact = !from_tokens && lk__tokenizer_exact(t);
    s->lengths = lk_alloc((size_t)vocab * sizeof *s->lengths);
    if (!s->exact) s->digest = lk_digest_create();
    if (!s->lengths || (!s->exact && !s->digest)) return no_memory(err);
    for (uint32_t id = 0; id < vocab; id++) s->lengths[id] = (uint32_t)lk_tokenizer_bytes(t, id).size;
    s->lengths[s->end] = 0; /* in a stream it stands for no text */
    return 0;
}

void lk__dataset_splitter_free(struct lk__dataset_splitter *s) {
    if (!s) return;
    for (int i = 0; i < LK__PARTS; i++) {
        if (s->stages[i].writer) lk_blob_abort(s->stages[i].writer);
        lk_free(s->stages[i].bytes);
    }
    lk_digest_free(s->digest);
    lk_buf_release(&s->text);
    lk_free(s->lengths);
    lk_free(s);
}

uint64_t lk__dataset_splitter_documents(const struct lk__dataset_splitter *s) {
    return s->documents;
}

static int flush(struct lk__dataset_splitter *s, enum lk__dataset_part part, struct lk_err *err) {
    struct stage *g = &s->stages[part];
    int code = g->used ? lk_blob_write(g->writer, g->bytes, g->used, err) : 0;
    g->used = 0;
    return code;
}

/* Room for `size` bytes at the end of a part. */
static int room(struct lk__dataset_splitter *s, enum lk__dataset_part part, size_t size, uint8_t **out,
                struct lk_err *err) {
    struct stage *g = &s->stages[part];
    if (!g->bytes && !(g->bytes = lk_alloc(STAGE_BYTES))) return no_memory(err);
    int code = g->writer ? 0 : lk_blob_create(s->store->blobs, &g->writer, err);
    if (!code && g->used + size > STAGE_BYTES) code = flush(s, part, err);
    *out = g->bytes + g->used;
    if (!code) g->used += size;
    return code;
}

/* Bits are written only once there is a masked token: a stream without one has no mask part. */
static int put_mask(struct lk__dataset_splitter *s, bool masked, struct lk_err *err) {
    uint8_t *p;
    if (masked && !s->masked) {
        for (uint64_t i = 0; i < s->tokens / 8; i++) {
            int code = room(s, LK__MASK, 1, &p, err);
            if (code) return code;
            *p = 0;
        }
    }
    if (masked) s->masked++;
    if (!s->masked) return 0;
    s->mask_byte |= (uint8_t)(masked << (s->tokens & 7));
    if ((s->tokens & 7) != 7) return 0;
    int code = room(s, LK__MASK, 1, &p, err);
    if (code) return code;
    *p = s->mask_byte;
    s->mask_byte = 0;
    return 0;
}

/* Writes count tokens that fit in one buffer and between two entries of the index. */
static int put_run(struct lk__dataset_splitter *s, const uint32_t *ids, size_t count, struct lk_err *err) {
    uint8_t *p;
    uint64_t bytes = 0;
    if (s->tokens % LK__INDEX_EVERY == 0) {
        int code = room(s, LK__INDEX, 8, &p, err);
        if (code) return code;
        lk__dataset_put_u64(p, s->bytes + s->document_bytes);
    }
    int code = room(s, LK__TOKENS, count * s->token_bytes, &p, err);
    if (code) return code;
    for (size_t i = 0; i < count; i++, p += s->token_bytes) {
        bytes += s->lengths[ids[i]];
        p[0] = (uint8_t)ids[i];
        p[1] = (uint8_t)(ids[i] >> 8);
        if (s->token_bytes == 2) continue;
        p[2] = (uint8_t)(ids[i] >> 16);
        p[3] = (uint8_t)(ids[i] >> 24);
    }
    s->document_bytes += bytes;
    s->tokens += count;
    return 0;
}

static int put_tokens(struct lk__dataset_splitter *s, const uint32_t *ids, size_t count, size_t masked,
                      struct lk_err *err) {
    int code = 0;
    while (!code && count) {
        size_t run = LK__INDEX_EVERY - (size_t)(s->tokens % LK__INDEX_EVERY);
        if (run > count) run = count;
        if (masked || s->masked) { /* the mask is written token by token */
            run = 1;
            if ((code = put_mask(s, masked > 0, err))) return code;
            masked -= masked > 0;
        }
        code = put_run(s, ids, run, err);
        ids += run;
        count -= run;
    }
    return code;
}

/* Tokens have few bytes each: they are hashed many at a time. */
static int put_text(struct lk__dataset_splitter *s, const uint32_t *ids, size_t count, struct lk_err *err) {
    for (size_t i = 0; i < count; i++) {
        struct lk_bytes b = lk_tokenizer_bytes(s->t, ids[i]);
        if (lk_buf_append(&s->text, b.data, b.size)) return no_memory(err);
        if (s->text.size < STAGE_BYTES) continue;
        lk_digest_update(s->digest, s->text.data, s->text.size);
        s->text.size = 0;
    }
    return 0;
}

int lk__dataset_splitter_tokens(struct lk__dataset_splitter *s, const uint32_t *ids, size_t count, size_t masked,
                                struct lk_err *err) {
    int code = 0;
    if (!s->begun) {
        s->begun = true;
        code = put_tokens(s, &s->end, 1, 0, err);
    }
    if (!code && !s->exact) code = put_text(s, ids, count, err);
    return code ? code : put_tokens(s, ids, count, masked, err);
}

int lk__dataset_splitter_document(struct lk__dataset_splitter *s, struct lk__dataset_row *row, struct lk_err *err) {
    uint8_t *p;
    if (!s->exact) {
        struct lk_root digest;
        lk_digest_update(s->digest, s->text.data ? s->text.data : "", s->text.size);
        s->text.size = 0;
        lk_digest_final(s->digest, &digest);
        memcpy(row->digest, digest.bytes, sizeof row->digest);
        row->size_bytes = s->document_bytes;
    }
    LK_ASSERT(row->size_bytes == s->document_bytes);
    int code = room(s, LK__ENDS, 8, &p, err);
    if (code) return code;
    lk__dataset_put_u64(p, s->tokens);
    if ((code = put_tokens(s, &s->end, 1, 0, err))) return code;
    if ((code = room(s, LK__DOCUMENTS, LK__DOCUMENT_BYTES, &p, err))) return code;
    row->byte_begin = s->bytes;
    lk__dataset_row_put(row, p);
    s->bytes += s->document_bytes;
    s->document_bytes = 0;
    s->documents++;
    return 0;
}

int lk__dataset_splitter_finish(struct lk__dataset_splitter *s, json_t **out, struct lk_err *err) {
    char hex[LK_ROOT_HEX];
    uint8_t *p;
    int code = 0;
    *out = NULL;
    if (s->masked && (s->tokens & 7)) {
        if ((code = room(s, LK__MASK, 1, &p, err))) return code;
        *p = s->mask_byte;
    }
    json_t *o = json_object();
    bool failed = json_object_set_new(o, "tokens_count", json_integer((json_int_t)s->tokens)) != 0;
    failed |= json_object_set_new(o, "bytes_count", json_integer((json_int_t)s->bytes)) != 0;
    failed |= json_object_set_new(o, "documents_count", json_integer((json_int_t)s->documents)) != 0;
    failed |= json_object_set_new(o, "masked_count", json_integer((json_int_t)s->masked)) != 0;
    for (int i = 0; !code && i < LK__PARTS; i++) {
        struct stage *g = &s->stages[i];
        if (!g->writer) continue;
        code = flush(s, (enum lk__dataset_part)i, err);
        if (code) break;
        struct lk_blob_writer *writer = g->writer;
        g->writer = NULL;
        code = lk_blob_finish(writer, &g->root, err);
        failed |= !code && json_object_set_new(o, lk__dataset_part_names[i], json_string(lk_root_hex(&g->root, hex))) != 0;
    }
    if (!code && failed) code = no_memory(err);
    if (code)
        json_decref(o);
    else
        *out = o;
    return code;
}
