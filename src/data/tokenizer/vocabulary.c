/* What a tokenizer answers about its tokens, and the way back from tokens to text. */
#include "data/tokenizer/internal.h"
#include "data/tokenizer/key.h"
#include <string.h>

/* --- byte-level characters --------------------------------------------------------------------------------- */

static bool stands_for_itself(uint32_t b) {
    return (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xFF && b != 0xAD);
}

uint32_t lk__tokenizer_byte_to_char(uint8_t byte) {
    if (stands_for_itself(byte)) return byte;
    if (byte <= 0x20) return 0x100u + byte;
    if (byte == 0xAD) return 0x143;
    return 0x121u + (byte - 0x7Fu);
}

int lk__tokenizer_char_to_byte(uint32_t c) {
    if (c < 0x100) return stands_for_itself(c) ? (int)c : -1;
    if (c <= 0x120) return (int)(c - 0x100);
    if (c <= 0x142) return (int)(c - 0x121 + 0x7F);
    return c == 0x143 ? 0xAD : -1;
}

void lk__tokenizer_byte_order(uint8_t order[256]) {
    size_t n = 0;
    for (unsigned b = 0; b < 256; b++)
        if (stands_for_itself(b)) order[n++] = (uint8_t)b;
    for (unsigned b = 0; b < 256; b++)
        if (!stands_for_itself(b)) order[n++] = (uint8_t)b;
}

/* --- tokens ------------------------------------------------------------------------------------------------ */

static struct lk_bytes bytes_of(const struct lk_tokenizer *t, uint32_t id) {
    return lk_bytes(t->bytes + t->offset[id], (size_t)(t->offset[id + 1] - t->offset[id]));
}

uint32_t lk__tokenizer_token_of(const struct lk_tokenizer *t, const uint8_t *bytes, size_t size) {
    if (!t->words) return LK__NO_ID;
    for (uint64_t at = lk__tokenizer_word_hash(bytes, size);; at++) {
        uint32_t id = t->words[at & t->word_mask];
        if (id == LK__NO_ID) return id;
        struct lk_bytes b = bytes_of(t, id);
        if (b.size == size && !memcmp(b.data, bytes, size)) return id;
    }
}

uint32_t lk_tokenizer_vocab(const struct lk_tokenizer *t) {
    return t->vocab;
}
const char *lk_tokenizer_pattern(const struct lk_tokenizer *t) {
    return t->traits.characters ? "none" : lk__tokenizer_pattern_names[t->traits.pattern];
}
uint32_t lk_tokenizer_begin(const struct lk_tokenizer *t) {
    return t->traits.before;
}
uint32_t lk_tokenizer_text_begin(const struct lk_tokenizer *t) {
    return t->text_begin;
}
bool lk_tokenizer_is_special(const struct lk_tokenizer *t, uint32_t id) {
    return id < t->vocab && t->added[id] & LK__SPECIAL;
}
bool lk_tokenizer_is_added(const struct lk_tokenizer *t, uint32_t id) {
    return id < t->vocab && t->added[id];
}
uint32_t lk_tokenizer_find(const struct lk_tokenizer *t, const void *text, size_t size) {
    for (uint32_t id = 0; id < t->vocab; id++)
        if (t->added[id] && bytes_of(t, id).size == size && !memcmp(bytes_of(t, id).data, text, size)) return id;
    return LK__NO_ID;
}
uint32_t lk_tokenizer_end(const struct lk_tokenizer *t) {
    return t->traits.end;
}

struct lk_bytes lk_tokenizer_bytes(const struct lk_tokenizer *t, uint32_t id) {
    return id < t->vocab ? bytes_of(t, id) : lk_bytes("", 0);
}

int lk_tokenizer_decode(const struct lk_tokenizer *t, const uint32_t *ids, size_t count, struct lk_buf *out,
                        struct lk_err *err) {
    bool strip = t->traits.strip;
    for (size_t i = 0; i < count; i++) {
        if (ids[i] >= t->vocab)
            return lk_fail(err, LK_EINVAL, "token %zu is %lu, but ids end at %lu", i, (unsigned long)ids[i],
                           (unsigned long)t->vocab - 1);
        struct lk_bytes b = bytes_of(t, ids[i]);
        /* The library decodes such a token as the text that it looks for, which has a space in front. */
        bool space = lk__tokenizer_normal_size(t, ids[i]) > b.size;
        if (!b.size) continue;
        if (strip && !space && *(const char *)b.data == ' ') b = lk_bytes((const char *)b.data + 1, b.size - 1);
        if ((space && !strip && lk_buf_append(out, " ", 1)) || lk_buf_append(out, b.data, b.size))
            return lk_fail(err, LK_ENOMEM, "decoding %zu tokens: out of memory", count);
        strip = false;
    }
    return 0;
}
