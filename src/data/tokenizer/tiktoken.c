/* tiktoken's rank files: a line a token, its bytes in base64 and its rank, which is its id. The merges that make each token
 * are found by merging its bytes as tiktoken does; README.md, "Rank files", says why they give the same ids. */
#include "data/tokenizer/internal.h"
#include "data/tokenizer/key.h"
#include "lockstep/base/file.h"
#include <stdlib.h>
#include <string.h>

#define RANKED_MAX ((size_t)1024) /* bytes of one token: finding its merge takes time with their square */

struct ranked {
    const uint8_t *bytes; /* in the reader's buffer */
    size_t offset, size, line;
    bool special;
};
struct reading {
    const char *name;
    struct lk_buf bytes;
    struct ranked *tokens; /* by id; line 0: there is none */
    size_t capacity;
    uint32_t vocab;
    uint32_t *slots; /* ids by hash of their bytes; LK__NO_ID: empty */
    uint64_t slot_mask;
    struct lk__tokenizer_merge *merges;
    size_t merge_count;
};

static int no_memory(const struct reading *r, struct lk_err *err) {
    return lk_fail(err, LK_ENOMEM, "%s: out of memory", r->name);
}

static int wrong(const struct reading *r, size_t line, struct lk_err *err, const char *why) {
    return lk_fail(err, LK_EINVAL, "%s, line %zu: %s", r->name, line, why);
}

/* --- lines ------------------------------------------------------------------------------------------------ */

static int base64_value(uint8_t c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Decodes base64 with its padding; false: it is none. */
static bool decode_base64(const uint8_t *p, size_t size, uint8_t *out, size_t *count) {
    size_t padding = 0, n = 0;
    if (!size || size % 4) return false;
    while (padding < 2 && p[size - 1 - padding] == '=') padding++;
    for (size_t i = 0; i < size; i += 4) {
        uint32_t bits = 0;
        size_t have = i + 4 == size ? 4 - padding : 4;
        for (size_t k = 0; k < 4; k++) {
            int value = k < have ? base64_value(p[i + k]) : 0;
            if (value < 0) return false;
            bits = bits << 6 | (uint32_t)value;
        }
        for (size_t k = 0; k + 1 < have; k++) out[n++] = (uint8_t)(bits >> (16 - 8 * k));
        if (have < 4 && bits & (have == 3 ? 0xFFu : 0xFFFFu))
            return false; /* bits of the last digit that belong to no byte */
    }
    *count = n;
    return true;
}

static int put_token(struct reading *r, uint64_t id, const uint8_t *bytes, size_t size, size_t line, bool special,
                     struct lk_err *err) {
    if (id >= LK__VOCAB_MAX) return wrong(r, line, err, "the rank is above 16777215");
    if (id >= r->capacity) {
        size_t capacity = r->capacity ? r->capacity : 1024;
        while (capacity <= id) capacity *= 2;
        struct ranked *grown = lk_realloc(r->tokens, capacity * sizeof *grown);
        if (!grown) return no_memory(r, err);
        memset(grown + r->capacity, 0, (capacity - r->capacity) * sizeof *grown);
        r->tokens = grown;
        r->capacity = capacity;
    }
    struct ranked *t = &r->tokens[id];
    if (t->line && special)
        return lk_fail(err, LK_EINVAL, "%s: special token %zu: its id %llu is another token's", r->name, line,
                       (unsigned long long)id);
    if (t->line)
        return lk_fail(err, LK_EINVAL, "%s, line %zu: rank %llu stands in line %zu already", r->name, line,
                       (unsigned long long)id, t->line);
    *t = (struct ranked){.offset = r->bytes.size, .size = size, .line = line, .special = special};
    if (lk_buf_append(&r->bytes, bytes, size)) return no_memory(r, err);
    if (id >= r->vocab) r->vocab = (uint32_t)id + 1;
    return 0;
}

static int read_line(struct reading *r, const uint8_t *p, size_t size, size_t line, struct lk_err *err) {
    const uint8_t *space = memchr(p, ' ', size);
    uint8_t bytes[RANKED_MAX + 3];
    size_t encoded = space ? (size_t)(space - p) : 0, count, at = encoded + 1;
    uint64_t rank = 0;
    if (!space) return wrong(r, line, err, "it is not base64, a space and a rank");
    if (encoded > (RANKED_MAX + 2) / 3 * 4) return wrong(r, line, err, "the token has more than 1024 bytes");
    if (!decode_base64(p, encoded, bytes, &count)) return wrong(r, line, err, "the token is no base64");
    if (count > RANKED_MAX) return wrong(r, line, err, "the token has more than 1024 bytes");
    for (; at < size && p[at] >= '0' && p[at] <= '9' && rank < LK__VOCAB_MAX; at++) rank = rank * 10 + (p[at] - '0');
    if (at == encoded + 1 || at != size) return wrong(r, line, err, "the rank is no number from 0 to 16777215");
    return put_token(r, rank, bytes, count, line, false, err);
}

static int read_lines(struct reading *r, const uint8_t *file, size_t size, struct lk_err *err) {
    size_t line = 0, bom = lk_skip_bom(file, size);
    const char *instead = lk_file_instead(file, size);
    if (instead) return lk_fail(err, LK_EINVAL, "%s is %s", r->name, instead);
    int code = 0;
    for (size_t at = bom, end; !code && at < size; at = end + 1) {
        const uint8_t *newline = memchr(file + at, '\n', size - at);
        end = newline ? (size_t)(newline - file) : size;
        size_t n = end - at;
        line++;
        if (n && file[at + n - 1] == '\r') n--;
        if (n) code = read_line(r, file + at, n, line, err);
    }
    return code;
}

/* --- merges ----------------------------------------------------------------------------------------------- */

static uint32_t find(const struct reading *r, const uint8_t *bytes, size_t size) {
    for (uint64_t at = lk__tokenizer_word_hash(bytes, size);; at++) {
        uint32_t id = r->slots[at & r->slot_mask];
        if (id == LK__NO_ID || (r->tokens[id].size == size && !memcmp(r->tokens[id].bytes, bytes, size))) return id;
    }
}

static int index_tokens(struct reading *r, struct lk_err *err) {
    size_t slots = 1024;
    while (slots < (size_t)r->vocab * 2) slots *= 2;
    r->slot_mask = slots - 1;
    r->slots = lk_alloc(slots * sizeof *r->slots);
    if (!r->slots) return no_memory(r, err);
    memset(r->slots, 0xFF, slots * sizeof *r->slots);
    for (uint32_t id = 0; id < r->vocab; id++) {
        struct ranked *t = &r->tokens[id];
        t->bytes = (const uint8_t *)r->bytes.data + t->offset;
        if (!t->line || t->special) continue;
        uint32_t other = find(r, t->bytes, t->size);
        if (other != LK__NO_ID)
            return lk_fail(err, LK_EINVAL, "%s, line %zu: the token stands in line %zu already", r->name,
                           t->line > r->tokens[other].line ? t->line : r->tokens[other].line,
                           t->line > r->tokens[other].line ? r->tokens[other].line : t->line);
        uint64_t at = lk__tokenizer_word_hash(t->bytes, t->size);
        while (r->slots[at & r->slot_mask] != LK__NO_ID) at++;
        r->slots[at & r->slot_mask] = id;
    }
    return 0;
}

/* Merges a token's bytes as tiktoken does, the two neighbours whose bytes have the lowest rank first; true if two tokens
 * are left before the last merge, left and right. */
static bool last_two(const struct reading *r, const struct ranked *t, uint32_t *left, uint32_t *right) {
    size_t begin[RANKED_MAX + 1], n = t->size;
    uint32_t rank[RANKED_MAX];
    for (size_t i = 0; i <= n; i++) begin[i] = i;
    for (size_t i = 0; i + 1 < n; i++) rank[i] = find(r, t->bytes + i, 2);
    while (n > 2) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best]) best = i;
        if (rank[best] == LK__NO_ID) return false;
        for (size_t i = best + 1; i < n; i++) begin[i] = begin[i + 1];
        for (size_t i = best + 1; i + 1 < n; i++) rank[i] = rank[i + 1];
        n--;
        if (best + 1 < n) rank[best] = find(r, t->bytes + begin[best], begin[best + 2] - begin[best]);
        if (best > 0) rank[best - 1] = find(r, t->bytes + begin[best - 1], begin[best + 1] - begin[best - 1]);
    }
    if (n < 2) return false;
    *left = find(r, t->bytes, begin[1]);
    *right = find(r, t->bytes + begin[1], t->size - begin[1]);
    return *left != LK__NO_ID && *right != LK__NO_ID;
}

static int find_merges(struct reading *r, struct lk_err *err) {
    r->merges = lk_alloc(((size_t)r->vocab + 1) * sizeof *r->merges);
    if (!r->merges) return no_memory(r, err);
    for (uint32_t id = 0; id < r->vocab; id++) {
        struct lk__tokenizer_merge *m = &r->merges[r->merge_count];
        if (!r->tokens[id].line || r->tokens[id].special || !last_two(r, &r->tokens[id], &m->left, &m->right)) continue;
        m->id = id;
        r->merge_count++;
    }
    return 0;
}

/* --- the tokenizer ---------------------------------------------------------------------------------------- */

static int find_end(const struct reading *r, const char *end, uint32_t *id, struct lk_err *err) {
    static const char *const names[] = {LK_TOKEN_END, "<|end_of_text|>", "</s>"};
    for (size_t i = 0; i < (end ? 1 : 3); i++)
        for (*id = 0; *id < r->vocab; ++*id) {
            const struct ranked *t = &r->tokens[*id];
            const char *name = end ? end : names[i];
            if (t->special && t->size == strlen(name) && !memcmp(t->bytes, name, t->size)) return 0;
        }
    *id = LK__NO_ID;
    return end ? lk_fail(err, LK_EINVAL, "%s: there is no special token \"%.60s\" to end a text with", r->name, end) : 0;
}

static int make(struct reading *r, const struct lk__tokenizer_traits *traits, struct lk_tokenizer **out,
                struct lk_err *err) {
    struct lk_buf bytes = LK_BUF_INIT;
    uint64_t *offset = lk_calloc((size_t)r->vocab + 1, sizeof *offset);
    uint8_t *added = lk_calloc((size_t)r->vocab + 1, 1);
    int code = offset && added ? 0 : no_memory(r, err);
    for (uint32_t id = 0; !code && id < r->vocab; id++) {
        const struct ranked *t = &r->tokens[id];
        if (t->line && lk_buf_append(&bytes, t->bytes, t->size)) code = no_memory(r, err);
        offset[id + 1] = bytes.size;
        added[id] = t->special ? LK__SPECIAL : 0;
    }
    struct lk__tokenizer_definition definition = {.vocab = r->vocab,
                                                  .offset = offset,
                                                  .bytes = (const uint8_t *)bytes.data,
                                                  .added = added,
                                                  .traits = traits,
                                                  .merges = r->merges,
                                                  .merge_count = r->merge_count};
    if (!code) code = lk__tokenizer_make(&definition, r->name, out, err);
    lk_free(offset);
    lk_free(added);
    lk_buf_release(&bytes);
    return code;
}

int lk_tokenizer_import_ranks(const void *file, size_t size, const char *name, const char *pattern,
                              const struct lk_special *specials, size_t special_count, const char *end,
                              struct lk_tokenizer **out, struct lk_err *err) {
    struct reading r = {.name = name};
    struct lk__tokenizer_traits traits = lk__tokenizer_default_traits;
    *out = NULL;
    traits.pattern = lk__tokenizer_pattern_find(pattern);
    traits.whole_words = true;
    if (traits.pattern == LK__PATTERN_COUNT)
        return lk_fail(err, LK_EINVAL, "%s: there is no pattern %.40s; there are %s", name, pattern, LK_PATTERNS);
    int code = read_lines(&r, file, size, err);
    for (size_t i = 0; !code && i < special_count; i++)
        code = put_token(&r, specials[i].id, specials[i].text.data, specials[i].text.size, i + 1, true, err);
    if (!code) code = index_tokens(&r, err);
    if (!code) code = find_merges(&r, err);
    if (!code) code = find_end(&r, end, &traits.end, err);
    if (!code) code = make(&r, &traits, out, err);
    lk_free(r.tokens);
    lk_free(r.slots);
    lk_free(r.merges);
    lk_buf_release(&r.bytes);
    return code;
}
