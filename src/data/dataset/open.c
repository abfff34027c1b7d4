/* Opening a dataset and reading sequences, documents and byte ranges from it. */
#include "data/dataset/internal.h"
#include <stdio.h>
#include <string.h>

static int damaged(struct lk_err *err, const char *what, const char *split, const char *why) {
    return lk_fail(err, LK_ECORRUPT, "%s: %s%s%s", what, split, *split ? ": " : "", why);
}

static int read_root(const json_t *o, const char *key, const char *what, struct lk_root *out, struct lk_err *err) {
    const char *hex;
    int code = lk_json_get_string(o, key, what, &hex, err);
    if (code) return code;
    return lk_root_parse(hex, out) ? 0 : lk_fail(err, LK_ECORRUPT, "%s: %s is no root", what, key);
}

static uint64_t part_size(const struct lk_dataset *d, const struct lk__dataset_split *s, enum lk__dataset_part part) {
    switch (part) {
    case LK__TOKENS:
        return s->tokens * d->token_bytes;
    case LK__ENDS:
        return s->documents * 8;
    case LK__DOCUMENTS:
        return s->documents * LK__DOCUMENT_BYTES;
    case LK__INDEX:
        return (s->tokens + LK__INDEX_EVERY - 1) / LK__INDEX_EVERY * 8;
    case LK__MASK:
        return (s->tokens + 7) / 8;
    case LK__PARTS:
        break;
    }
    return 0;
}

static int open_part(struct lk_store *store, struct lk_dataset *d, struct lk__dataset_split *s, const json_t *o,
                     enum lk__dataset_part part, const char *what, bool verify, struct lk_err *err) {
    struct lk_root root;
    int code = read_root(o, lk__dataset_part_names[part], what, &root, err);
    if (!code) code = lk_blob_open(store->blobs, &root, verify, &s->parts[part], err);
    if (code) return lk_fail_prefix(err, code, "%s, %s", what, lk__dataset_part_names[part]);
    if (s->parts[part].size == part_size(d, s, part)) return 0;
    return lk_fail(err, LK_ECORRUPT, "%s: %zu bytes of %s, expected %llu", what, s->parts[part].size,
                   lk__dataset_part_names[part], (unsigned long long)part_size(d, s, part));
}

static int open_split(struct lk_store *store, struct lk_dataset *d, int index, const char *what, bool verify,
                      struct lk_err *err) {
    struct lk__dataset_split *s = &d->splits[index];
    const json_t *o = json_object_get(json_object_get(d->manifest, "splits"), lk__dataset_split_names[index]);
    uint64_t masked = 0;
    char name[64];
    snprintf(name, sizeof name, "%.40s, %s", what, lk__dataset_split_names[index]);
    int code = lk_json_get_u64(o, "tokens_count", name, &s->tokens, err);
    if (!code) code = lk_json_get_u64(o, "bytes_count", name, &s->bytes, err);
    if (!code) code = lk_json_get_u64(o, "documents_count", name, &s->documents, err);
    if (!code) code = lk_json_get_u64(o, "masked_count", name, &masked, err);
    if (code) return code;
    if (s->tokens > (uint64_t)1 << 56 || s->documents > s->tokens || (s->documents == 0) != (s->tokens == 0) ||
        (s->documents && s->tokens < s->documents + 1))
        return damaged(err, what, lk__dataset_split_names[index], "its counts cannot be");
    for (int i = 0; !code && s->tokens && i < LK__PARTS; i++)
        if (i != LK__MASK || masked) code = open_part(store, d, s, o, (enum lk__dataset_part)i, name, verify, err);
    return code;
}

static int read_manifest(struct lk_store *store, struct lk_dataset *d, const char *what, struct lk_err *err) {
    const char *format;
    uint64_t vocab = 0, end = 0, token_bytes = 0, every = 0;
    int code = lk_manifest_get(store, &d->root, what, &d->manifest, err);
    if (!code) code = lk_json_get_string(d->manifest, "format", what, &format, err);
    if (code) return code;
    if (strcmp(format, LK__DATASET_FORMAT))
        return lk_fail(err, LK_EUNSUPPORTED, "%s: format \"%.40s\"; this program knows \"%s\"; build it again", what,
                       format, LK__DATASET_FORMAT);
    code = read_root(d->manifest, "tokenizer", what, &d->tokenizer_root, err);
    if (!code) code = lk_json_get_u64(d->manifest, "vocab", what, &vocab, err);
    if (!code) code = lk_json_get_u64(d->manifest, "end", what, &end, err);
    if (!code) code = lk_json_get_u64(d->manifest, "token_bytes", what, &token_bytes, err);
    if (!code) code = lk_json_get_u64(d->manifest, "index_every", what, &every, err);
    if (!code) code = lk_tokenizer_load(store, &d->tokenizer_root, &d->tokenizer, err);
    if (code) return code;
    if (vocab != lk_tokenizer_vocab(d->tokenizer) || end != lk_tokenizer_end(d->tokenizer))
        return damaged(err, what, "", "its vocabulary is not its tokenizer's");
    if ((token_bytes != 2 && token_bytes != 4) || (token_bytes == 2 && vocab > 65536) || every != LK__INDEX_EVERY)
        return damaged(err, what, "", "token_bytes or index_every is not what this format has");
    d->vocab = (uint32_t)vocab;
    d->end = (uint32_t)end;
    d->token_bytes = (uint32_t)token_bytes;
    d->source_count = (uint32_t)json_array_size(json_object_get(d->manifest, "sources"));
    return 0;
}

/* What readers rely on without looking: ids below the vocabulary, ends ascending within the stream. (verify.c checks all.)
 */
static int check_bounds(const struct lk_dataset *d, int index, const char *what, struct lk_err *err) {
    const struct lk__dataset_split *s = &d->splits[index];
    uint32_t greatest = 0;
    uint64_t last = 0;
    for (uint64_t i = 0; i < s->tokens; i++) {
        uint32_t id = lk__dataset_token_at(d, s, i);
        greatest = id > greatest ? id : greatest;
    }
    if (greatest >= d->vocab)
        return damaged(err, what, lk__dataset_split_names[index], "it holds an id beyond its vocabulary");
    for (uint64_t i = 0; i < s->documents; i++) {
        uint64_t end = lk__dataset_end_of(s, i);
        if (end <= last || end >= s->tokens)
            return damaged(err, what, lk__dataset_split_names[index], "the end of a document is out of place");
        last = end;
    }
    return 0;
}

int lk_dataset_open(struct lk_store *store, const struct lk_root *root, bool verify, struct lk_dataset **out,
                    struct lk_err *err) {
    char hex[LK_ROOT_HEX], what[32] = "dataset ";
    *out = NULL;
    memcpy(what + 8, lk_root_hex(root, hex), 12);
    struct lk_dataset *d = lk_calloc(1, sizeof *d);
    if (!d) return lk_fail(err, LK_ENOMEM, "%s: out of memory", what);
    d->root = *root;
    int code = read_manifest(store, d, what, err);
    for (int i = 0; !code && i < 2; i++) code = open_split(store, d, i, what, verify, err);
    for (int i = 0; !code && verify && i < 2; i++) code = check_bounds(d, i, what, err);
    if (code)
        lk_dataset_close(d);
    else
        *out = d;
    return code;
}

void lk_dataset_close(struct lk_dataset *d) {
    if (!d) return;
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < LK__PARTS; k++)
            if (d->splits[i].parts[k].data) lk_blob_close(&d->splits[i].parts[k]);
    lk_tokenizer_free(d->tokenizer);
    json_decref(d->manifest);
    lk_free(d);
}

const struct lk_root *lk_dataset_root(const struct lk_dataset *d) {
    return &d->root;
}
const struct lk_root *lk_dataset_tokenizer(const struct lk_dataset *d) {
    return &d->tokenizer_root;
}
const json_t *lk_dataset_manifest(const struct lk_dataset *d) {
    return d->manifest;
}
uint32_t lk_dataset_vocab(const struct lk_dataset *d) {
    return d->vocab;
}
uint64_t lk_dataset_tokens(const struct lk_dataset *d, enum lk_split split) {
    return d->splits[split].tokens;
}
uint64_t lk_dataset_bytes(const struct lk_dataset *d, enum lk_split split) {
    return d->splits[split].bytes;
}
uint64_t lk_dataset_documents(const struct lk_dataset *d, enum lk_split split) {
    return d->splits[split].documents;
}

uint64_t lk_dataset_sequences(const struct lk_dataset *d, enum lk_split split, uint32_t context) {
    uint64_t tokens = d->splits[split].tokens;
    LK_ASSERT(context > 0);
    if (tokens < 2) return 0;
    return split == LK_TRAIN ? (tokens - 1) / context : (tokens - 1 + context - 1) / context;
}

uint32_t lk_dataset_sequence(const struct lk_dataset *d, enum lk_split split, uint64_t n, uint32_t context,
                             uint32_t *inputs, uint32_t *targets, uint32_t *document_start) {
    const struct lk__dataset_split *s = &d->splits[split];
    LK_ASSERT(n < lk_dataset_sequences(d, split, context));
    uint64_t begin = n * context, left = s->tokens - 1 - begin;
    uint32_t count = left < context ? (uint32_t)left : context, start = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t id = lk__dataset_token_at(d, s, begin + i);
        if (id == d->end) start = i; /* end tokens stand only between documents */
        if (inputs) inputs[i] = id;
        if (document_start) document_start[i] = start;
        if (targets)
            targets[i] = lk__dataset_is_masked(s, begin + i + 1) ? UINT32_MAX : lk__dataset_token_at(d, s, begin + i + 1);
    }
    return count;
}

/* Whether the loss is masked at all stream positions [from, to). */
static bool all_masked(const struct lk__dataset_split *s, uint64_t from, uint64_t to) {
    static const unsigned char ones[64] = {[0 ... 63] = 0xff};
    const unsigned char *mask = s->parts[LK__MASK].data;
    for (; from < to && (from & 7); from++)
        if (!lk__dataset_is_masked(s, from)) return false;
    for (; to - from >= 8 * sizeof ones; from += 8 * sizeof ones)
        if (memcmp(mask + (from >> 3), ones, sizeof ones)) return false;
    for (; from < to; from++)
        if (!lk__dataset_is_masked(s, from)) return false;
    return true;
}

struct lk_untargeted lk_dataset_untargeted(const struct lk_dataset *d, enum lk_split split, uint32_t context,
                                           uint64_t most_tokens) {
    const struct lk__dataset_split *s = &d->splits[split];
    uint64_t sequences = lk_dataset_sequences(d, split, context), most = most_tokens / context;
    struct lk_untargeted u = {.looked_at = sequences < most ? sequences : most};
    for (uint64_t i = 0; i < u.looked_at && s->parts[LK__MASK].data; i++) {
        uint64_t end = (i + 1) * context < s->tokens - 1 ? (i + 1) * context : s->tokens - 1;
        if (all_masked(s, i * context + 1, end + 1) && u.count++ == 0) u.first = i;
    }
    return u;
}

/* --- documents ------------------------------------------------------------------------------------------- */

void lk__dataset_split_row(const struct lk__dataset_split *s, uint64_t index, struct lk__dataset_row *out) {
    lk__dataset_row_get(s->parts[LK__DOCUMENTS].data + LK__DOCUMENT_BYTES * index, out);
}

static int check_document(const struct lk_dataset *d, enum lk_split split, uint64_t index, struct lk_err *err) {
    uint64_t count = d->splits[split].documents;
    if (index < count) return 0;
    return lk_fail(err, LK_EINVAL, "document %llu: the %s split has %llu", (unsigned long long)index,
                   lk__dataset_split_names[split], (unsigned long long)count);
}

int lk_dataset_document(const struct lk_dataset *d, enum lk_split split, uint64_t index, struct lk_document *out,
                        struct lk_err *err) {
    const struct lk__dataset_split *s = &d->splits[split];
    struct lk__dataset_row row;
    int code = check_document(d, split, index, err);
    if (code) return code;
    lk__dataset_split_row(s, index, &row);
    const json_t *source = json_array_get(json_object_get(d->manifest, "sources"), row.source);
    const char *name = json_string_value(json_object_get(source, "name"));
    if (!name) return lk_fail(err, LK_ECORRUPT, "document %llu: it has no source", (unsigned long long)index);
    *out = (struct lk_document){.index = index,
                                .source = row.source,
                                .source_path = name,
                                .line = row.line,
                                .source_offset = row.source_offset,
                                .size_bytes = row.size_bytes};
    out->token_begin = index ? lk__dataset_end_of(s, index - 1) + 1 : 1;
    out->token_end = lk__dataset_end_of(s, index);
    if (out->token_begin > out->token_end || out->token_end >= s->tokens)
        return lk_fail(err, LK_ECORRUPT, "document %llu: its end is out of place", (unsigned long long)index);
    memcpy(out->digest.bytes, row.digest, sizeof row.digest);
    return 0;
}

uint64_t lk_dataset_document_at(const struct lk_dataset *d, enum lk_split split, uint64_t token) {
    const struct lk__dataset_split *s = &d->splits[split];
    LK_ASSERT(token < s->tokens);
    uint64_t low = 0, high = s->documents - 1; /* the first document whose end token is at or behind `token` */
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (lk__dataset_end_of(s, middle) < token)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

uint64_t lk__dataset_bytes_before(const struct lk_dataset *d, const struct lk__dataset_split *s, uint64_t at) {
    uint64_t entry = at / LK__INDEX_EVERY;
    if (entry * LK__INDEX_EVERY >= s->tokens) entry = (s->tokens - 1) / LK__INDEX_EVERY;
    uint64_t bytes = lk__dataset_get_u64(s->parts[LK__INDEX].data + 8 * entry);
    for (uint64_t i = entry * LK__INDEX_EVERY; i < at; i++) {
        uint32_t id = lk__dataset_token_at(d, s, i);
        if (id != d->end) bytes += lk_tokenizer_bytes(d->tokenizer, id).size;
    }
    return bytes;
}

int lk_dataset_byte_range(const struct lk_dataset *d, enum lk_split split, uint64_t document, uint64_t begin, uint64_t end,
                          uint64_t *byte_begin, uint64_t *byte_end, struct lk_err *err) {
    const struct lk__dataset_split *s = &d->splits[split];
    struct lk_document doc;
    struct lk__dataset_row row;
    int code = lk_dataset_document(d, split, document, &doc, err);
    if (code) return code;
    if (begin > end || begin < doc.token_begin || end > doc.token_end)
        return lk_fail(err, LK_EINVAL, "tokens [%llu, %llu) are not in document %llu, which has [%llu, %llu)",
                       (unsigned long long)begin, (unsigned long long)end, (unsigned long long)document,
                       (unsigned long long)doc.token_begin, (unsigned long long)doc.token_end);
    lk__dataset_split_row(s, document, &row);
    *byte_begin = lk__dataset_bytes_before(d, s, begin) - row.byte_begin;
    *byte_end = lk__dataset_bytes_before(d, s, end) - row.byte_begin;
    return 0;
}
