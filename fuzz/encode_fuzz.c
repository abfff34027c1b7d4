/* clang -fsanitize=fuzzer,address: a tokenizer, of the pattern that the first byte chooses, is learned from the first half
 * of the input and encodes the second: words begin where the one-by-one walk has them, all bytes come back, a cut that
 * counts as safe changes nothing, and a stream's complete prefix is sane. */
#include "data/tokenizer/starts.h"
#include "lockstep/data/tokenizer.h"
#include <stdlib.h>
#include <string.h>

static void append(const struct lk_tokenizer *t, const uint8_t *text, size_t size, struct lk_tokens *out) {
    struct lk_err err;
    if (lk_tokenizer_encode(t, text, size, NULL, out, &err)) abort();
}

static void check_begins(enum lk__tokenizer_pattern pattern, const uint8_t *text, size_t size, size_t room) {
    struct lk__tokenizer_starts s;
    size_t begins[8 + LK__STARTS_MORE], at = 0, found;
    lk__tokenizer_starts_begin(&s, pattern, text, size, false);
    do {
        found = lk__tokenizer_starts_next(&s, begins, room);
        for (size_t i = 0; i < found; i++) {
            if (at >= size || begins[i] != at) abort();
            at = lk__tokenizer_word_end(pattern, text, at, size);
        }
    } while (found >= room);
    if (at != size) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct lk_err err = {0};
    struct lk_bytes half = lk_bytes(data, size / 2);
    struct lk_tokenizer *t = NULL;
    enum lk__tokenizer_pattern pattern = size ? (enum lk__tokenizer_pattern)(data[0] % LK__PATTERN_COUNT) : LK__GPT2;
    for (uint32_t vocab = 300; !t && vocab >= 257; vocab--)
        lk_tokenizer_train_pattern(&half, 1, vocab, lk__tokenizer_pattern_names[pattern], NULL, NULL, NULL, &t, &err);
    if (!t) abort();
    for (int p = 0; p < LK__PATTERN_COUNT; p++) check_begins((enum lk__tokenizer_pattern)p, data, size, 1 + size % 8);
    const uint8_t *text = data + size / 2;
    size -= size / 2;
    struct lk_tokens ids = {0}, parts = {0};
    struct lk_buf back = LK_BUF_INIT;
    append(t, text, size, &ids);
    if (lk_tokenizer_decode(t, ids.ids, ids.count, &back, &err)) abort();
    if (back.size != size || (size && memcmp(back.data, text, size) != 0)) abort();
    for (size_t at = 1; at < size && at < 200; at++) {
        if (lk_utf8_complete(text, at) > at || at - lk_utf8_complete(text, at) > 3) abort();
        if (!lk__tokenizer_cut_is_safe(pattern, text, at, size)) continue;
        parts.count = 0;
        append(t, text, at, &parts);
        append(t, text + at, size - at, &parts);
        if (parts.count != ids.count || memcmp(parts.ids, ids.ids, ids.count * sizeof *ids.ids) != 0) abort();
    }
    lk_tokens_release(&ids);
    lk_tokens_release(&parts);
    lk_buf_release(&back);
    lk_tokenizer_free(t);
    return 0;
}
