/* Everything that must hold between the parts of a dataset, beyond their hashes. */
#include "data/dataset/internal.h"
#include <string.h>

#define HASHED_BYTES ((size_t)64 << 10)

struct checker {
    const struct lk_dataset *d;
    const struct lk__dataset_split *s;
    const char *split;
    struct lk_digest *digest; /* of one document's text so far, except what still waits in `text` */
    struct lk_buf text;
    uint64_t text_bytes; /* of the document so far */
    struct lk_err *err;
};

static int wrong(struct checker *c, uint64_t document, const char *why) {
    return lk_fail(c->err, LK_ECORRUPT, "%s split, document %llu: %s", c->split, (unsigned long long)document, why);
}

static int no_memory(struct checker *c) {
    return lk_fail(c->err, LK_ENOMEM, "verifying: out of memory");
}

static void hash_text(struct checker *c) {
    lk_digest_update(c->digest, c->text.data ? c->text.data : "", c->text.size);
    c->text.size = 0;
}

/* Tokens [from, to) are text; decodes them and compares their byte index on the way. */
static int check_tokens(struct checker *c, uint64_t document, uint64_t from, uint64_t to, uint64_t byte_begin) {
    const struct lk_dataset *d = c->d;
    c->text_bytes = c->text.size = 0;
    for (uint64_t at = from; at <= to; at++) {
        uint32_t id = lk__dataset_token_at(d, c->s, at);
        if (at % LK__INDEX_EVERY == 0 &&
            lk__dataset_get_u64(c->s->parts[LK__INDEX].data + at / LK__INDEX_EVERY * 8) != byte_begin + c->text_bytes)
            return wrong(c, document, "the byte index does not fit its tokens");
        if (at == to) return id == d->end ? 0 : wrong(c, document, "no end token stands behind it");
        struct lk_bytes b = lk_tokenizer_bytes(d->tokenizer, id);
        if (id == d->end || !b.size) return wrong(c, document, "it has a token that no text gives");
        if (lk_buf_append(&c->text, b.data, b.size)) return no_memory(c);
        c->text_bytes += b.size;
        if (c->text.size >= HASHED_BYTES) hash_text(c);
    }
    return 0;
}

static int check_mask(struct checker *c, uint64_t document, uint64_t from, uint64_t to, uint32_t prompt) {
    if (prompt == LK__CONVERSATION) { /* the loss is on the end token behind it and on something in it */
        bool target = false;
        if (!c->s->parts[LK__MASK].data) return wrong(c, document, "it is a conversation, but there is no mask");
        for (uint64_t at = from; at < to && !target; at++) target = !lk__dataset_is_masked(c->s, at);
        return target && !lk__dataset_is_masked(c->s, to) ? 0 : wrong(c, document, "the mask leaves nothing to learn");
    }
    if (prompt > to - from) return wrong(c, document, "its prompt is longer than it");
    if (prompt && !c->s->parts[LK__MASK].data) return wrong(c, document, "it has a prompt, but there is no mask");
    if (!c->s->parts[LK__MASK].data) return 0;
    for (uint64_t at = from; at <= to; at++)
        if (lk__dataset_is_masked(c->s, at) != (at < from + prompt))
            return wrong(c, document, "the mask is not its prompt");
    return 0;
}

static int check_documents(struct checker *c) {
    const struct lk__dataset_split *s = c->s;
    uint64_t from = 1, bytes = 0;
    for (uint64_t i = 0; i < s->documents; i++) {
        struct lk__dataset_row row;
        struct lk_root digest;
        uint64_t to = lk__dataset_end_of(s, i);
        lk__dataset_split_row(s, i, &row);
        if (to < from || to >= s->tokens) return wrong(c, i, "its end is out of place");
        if (row.source >= c->d->source_count) return wrong(c, i, "it has no source");
        if (row.byte_begin != bytes) return wrong(c, i, "its bytes do not follow those before");
        int code = check_tokens(c, i, from, to, bytes);
        if (!code) code = check_mask(c, i, from, to, row.prompt_tokens);
        if (code) return code;
        hash_text(c);
        lk_digest_final(c->digest, &digest);
        if (c->text_bytes != row.size_bytes || memcmp(digest.bytes, row.digest, sizeof row.digest))
            return wrong(c, i, "its tokens do not give the text of its digest");
        bytes += row.size_bytes;
        from = to + 1;
    }
    if (s->documents && (from != s->tokens || bytes != s->bytes))
        return wrong(c, s->documents - 1, "the split goes on behind it");
    return 0;
}

int lk_dataset_verify(struct lk_store *store, const struct lk_root *root, struct lk_err *err) {
    struct lk_dataset *d;
    int code = lk_dataset_open(store, root, true, &d, err);
    for (int i = 0; !code && i < 2; i++) {
        struct checker c = {.d = d, .s = &d->splits[i], .split = lk__dataset_split_names[i], .err = err};
        if (!c.s->tokens) continue;
        if (lk__dataset_token_at(d, c.s, 0) != d->end || lk__dataset_get_u64(c.s->parts[LK__INDEX].data) != 0)
            code = wrong(&c, 0, "the stream does not begin with an end token");
        else if (!(c.digest = lk_digest_create()))
            code = no_memory(&c);
        if (!code) code = check_documents(&c);
        lk_digest_free(c.digest);
        lk_buf_release(&c.text);
    }
    lk_dataset_close(d);
    return code;
}
