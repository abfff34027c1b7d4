/* Text as SentencePiece's BPE has it after Hugging Face's conversion: a word begins with characters, one that is no token
 * with the tokens of its bytes; U+2581 and the space are one. README.md, "Characters". */
#include "data/tokenizer/internal.h"
#include "data/tokenizer/key.h"
#include <string.h>

static bool is_byte_token(const struct lk_tokenizer *t, uint32_t id) {
    return id >= t->traits.first_byte && id - t->traits.first_byte < 256;
}

/* --- spaces ----------------------------------------------------------------------------------------------- */

size_t lk__tokenizer_next_mark(const uint8_t *text, size_t from, size_t size) {
    while (from < size) {
        const uint8_t *p = memchr(text + from, LK__MARK[0] & 0xFF, size - from);
        if (!p) break;
        from = (size_t)(p - text);
        if (size - from >= 3 && !memcmp(p, LK__MARK, 3)) return from;
        from++;
    }
    return size;
}

int lk__tokenizer_spaces(const uint8_t *text, size_t size, bool prefix, bool marks, struct lk_buf *out,
                         struct lk__tokenizer_trace *trace) {
    if (lk_buf_reserve(out, size + prefix)) return LK_ENOMEM;
    if (prefix && (lk_buf_append(out, " ", 1) || lk__tokenizer_trace_add(trace, 1, 0, false))) return LK_ENOMEM;
    for (size_t at = 0; at < size;) {
        size_t mark = marks ? lk__tokenizer_next_mark(text, at, size) : size;
        if (lk_buf_append(out, text + at, mark - at) || lk__tokenizer_trace_add(trace, mark - at, mark - at, true))
            return LK_ENOMEM;
        if (mark == size) break;
        if (lk_buf_append(out, " ", 1) || lk__tokenizer_trace_add(trace, 1, 3, false)) return LK_ENOMEM;
        at = mark + 3;
    }
    return 0;
}

/* --- tokens ----------------------------------------------------------------------------------------------- */

/* A text of well-formed characters, the begin of one of which is no mark; in *count their number. */
static bool is_text(const struct lk_bytes *b, size_t *count) {
    const uint8_t *p = b->data;
    uint32_t c;
    *count = 0;
    for (size_t at = 0, length; at < b->size; at += length, ++*count) {
        length = lk__tokenizer_utf8_decode(p + at, b->size - at, &c);
        if (!length) return false;
    }
    return lk__tokenizer_next_mark(p, 0, b->size) == b->size;
}

static int find_bytes(struct lk_tokenizer *t, const char *what, struct lk_err *err) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t id = t->traits.first_byte + byte;
        struct lk_bytes b = lk_tokenizer_bytes(t, id);
        if (t->traits.first_byte >= t->vocab || id >= t->vocab || t->added[id] || b.size != 1 ||
            *(const uint8_t *)b.data != byte)
            return lk_fail(err, LK_EINVAL, "%s: id %lu is not the token of byte 0x%02x", what, (unsigned long)id, byte);
        t->byte_id[byte] = id;
    }
    return 0;
}

int lk__tokenizer_characters_tokens(struct lk_tokenizer *t, const char *what, struct lk_err *err) {
    int code = find_bytes(t, what, err);
    for (uint32_t id = 0; !code && id < t->vocab; id++) {
        struct lk_bytes b = lk_tokenizer_bytes(t, id);
        size_t count;
        if (is_byte_token(t, id) || !b.size) continue;
        if (!is_text(&b, &count))
            return lk_fail(err, LK_EUNSUPPORTED, "%s: token %lu is no text of well-formed characters without U+2581", what,
                           (unsigned long)id);
        if (count > 1) continue;
        if (t->added[id])
            return lk_fail(err, LK_EUNSUPPORTED, "%s: added token %lu \"%.*s\" is one character, which is not computed",
                           what, (unsigned long)id, (int)b.size, (const char *)b.data);
        if (lk__tokenizer_token_of(t, b.data, b.size) != LK__NO_ID)
            return lk_fail(err, LK_EINVAL, "%s: ids %lu and %lu have the same text", what,
                           (unsigned long)lk__tokenizer_token_of(t, b.data, b.size), (unsigned long)id);
        uint64_t at = lk__tokenizer_word_hash(b.data, b.size);
        while (t->words[at & t->word_mask] != LK__NO_ID) at++;
        t->words[at & t->word_mask] = id;
    }
    return code;
}

int lk__tokenizer_characters_joins(struct lk_tokenizer *t, const char *what, struct lk_err *err) {
    t->joins = lk_calloc(65536 / 64, sizeof *t->joins);
    if (!t->joins) return lk_fail(err, LK_ENOMEM, "%s: out of memory", what);
    for (uint32_t i = 0; i < t->merge_count; i++) {
        const struct lk__tokenizer_merge *m = &t->merges[i];
        if (is_byte_token(t, m->left) || is_byte_token(t, m->right) || is_byte_token(t, m->id))
            return lk_fail(err, LK_EUNSUPPORTED, "%s: merge %lu uses a token that stands for a byte", what,
                           (unsigned long)i);
        struct lk_bytes b = lk_tokenizer_bytes(t, m->id);
        const uint8_t *p = b.data;
        for (size_t at = 1; at < b.size; at++) {
            unsigned both = (unsigned)p[at - 1] << 8 | p[at];
            t->joins[both >> 6] |= (uint64_t)1 << (both & 63);
        }
    }
    return 0;
}

/* --- words ------------------------------------------------------------------------------------------------ */

size_t lk__tokenizer_unit_ids(const struct lk_tokenizer *t, const uint8_t *text, size_t size, uint32_t ids[4],
                              size_t *length) {
    uint32_t c;
    *length = lk__tokenizer_utf8_decode(text, size, &c);
    if (*length && (ids[0] = lk__tokenizer_token_of(t, text, *length)) != LK__NO_ID) return 1;
    if (!*length) *length = 1;
    for (size_t i = 0; i < *length; i++) ids[i] = t->byte_id[text[i]];
    return *length;
}

size_t lk__tokenizer_character_cut(const struct lk_tokenizer *t, const uint8_t *text, size_t from, size_t size) {
    for (size_t at = from + 1; at < size; at++) {
        unsigned both = (unsigned)text[at - 1] << 8 | text[at];
        if ((text[at] & 0xC0) != 0x80 && !(t->joins[both >> 6] >> (both & 63) & 1)) return at;
    }
    return size;
}

bool lk__tokenizer_character_cut_at(const struct lk_tokenizer *t, const uint8_t *text, size_t at, size_t size) {
    uint8_t before = text[at - 1], behind = text[at];
    if ((behind & 0xC0) == 0x80) return false;
    if (at >= 3 && !memcmp(text + at - 3, LK__MARK, 3)) before = ' ';
    if (size - at >= 3 && !memcmp(text + at, LK__MARK, 3)) behind = ' ';
    unsigned both = (unsigned)before << 8 | behind;
    return !(t->joins[both >> 6] >> (both & 63) & 1);
}
