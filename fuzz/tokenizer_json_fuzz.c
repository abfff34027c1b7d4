/* clang -fsanitize=fuzzer,address: a hostile tokenizer.json is refused by name; what is taken gives every byte back where
 * nothing is normalized, its offsets cover the text, and export and import make the same tokenizer, and
 * Hugging Face's library gives an exported file's added tokens their ids. */
#include "data/tokenizer/internal.h"
#include <stdlib.h>
#include <string.h>

/* True when the bytes of a text's tokens are the text. */
static bool keeps_bytes(const struct lk_tokenizer *t) {
    for (uint32_t id = 0; id < t->vocab; id++)
        if (t->added[id] & (LK__LSTRIP | LK__RSTRIP)) return false;
    return !t->traits.nfc && !t->traits.prefix_space && !t->traits.characters;
}

static void check_text(const struct lk_tokenizer *t, const struct lk_tokenizer *again, const uint8_t *data, size_t size,
                       bool special) {
    struct lk_err err = {0};
    struct lk_tokens ids = {0}, other = {0};
    struct lk_buf back = LK_BUF_INIT;
    uint64_t *offsets;
    struct lk_encode_options options = {.special = special, .around = special, .offsets = &offsets};
    if (lk_tokenizer_encode_with(t, data, size, &options, NULL, &ids, &err)) abort();
    for (size_t i = 0; i < ids.count; i++)
        if (offsets[i] > offsets[i + 1]) abort();
    if (ids.count && (offsets[0] != 0 || offsets[ids.count] != size)) abort();
    if (lk_tokenizer_decode(t, ids.ids, ids.count, &back, &err)) abort();
    if (!special && keeps_bytes(t) && (back.size != size || (size && memcmp(back.data, data, size) != 0))) abort();
    options.offsets = NULL;
    if (lk_tokenizer_encode_with(again, data, size, &options, NULL, &other, &err)) abort();
    if (ids.count != other.count || (ids.count && memcmp(ids.ids, other.ids, ids.count * sizeof *ids.ids) != 0)) abort();
    lk_free(offsets);
    lk_tokens_release(&ids);
    lk_tokens_release(&other);
    lk_buf_release(&back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct lk_err err = {0};
    struct lk_tokenizer *t, *again;
    if (lk_tokenizer_import(data, size, "fuzz.json", &t, &err) != 0) {
        if (t || !strstr(err.message, "fuzz.json")) abort();
        return 0;
    }
    struct lk_buf out = LK_BUF_INIT;
    int code = lk_tokenizer_export(t, &out, &err);
    if (code == LK_EUNSUPPORTED) { /* ids that no file gives the library */
        lk_tokenizer_free(t);
        return 0;
    }
    if (code || lk_tokenizer_check_ids(out.data, out.size, "export", &err) ||
        lk_tokenizer_import(out.data, out.size, "export", &again, &err))
        abort();
    for (int special = 0; special < 2; special++) check_text(t, again, data, size, special);
    lk_buf_release(&out);
    lk_tokenizer_free(t);
    lk_tokenizer_free(again);
    return 0;
}
