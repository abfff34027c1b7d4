/* clang -fsanitize=fuzzer,address: a hostile tokenizer.json is refused by name; what is taken gives every byte back and is
 * the same after export and import. */
#include "lockstep/tokenizer.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct lk_err err = {0};
    struct lk_tokenizer *t, *again;
    if (lk_tokenizer_import(data, size, "fuzz.json", &t, &err) != 0) {
        if (t || !strstr(err.message, "fuzz.json")) abort();
        return 0;
    }
    struct lk_buf out = LK_BUF_INIT, back = LK_BUF_INIT;
    struct lk_tokens ids = {0}, other = {0};
    if (lk_tokenizer_encode(t, data, size, NULL, &ids, &err)) abort();
    if (lk_tokenizer_decode(t, ids.ids, ids.count, &back, &err)) abort();
    if (back.size != size || memcmp(back.data, data, size) != 0) abort();
    if (lk_tokenizer_export(t, &out, &err) || lk_tokenizer_import(out.data, out.size, "export", &again, &err)) abort();
    if (lk_tokenizer_encode(again, data, size, NULL, &other, &err)) abort();
    if (ids.count != other.count || memcmp(ids.ids, other.ids, ids.count * sizeof *ids.ids) != 0) abort();
    lk_tokens_release(&ids);
    lk_tokens_release(&other);
    lk_buf_release(&out);
    lk_buf_release(&back);
    lk_tokenizer_free(t);
    lk_tokenizer_free(again);
    return 0;
}
