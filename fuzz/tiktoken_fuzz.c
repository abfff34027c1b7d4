/* clang -fsanitize=fuzzer,address: a rank file is refused with its name, or makes a tokenizer that gives every byte back.
 * The first byte chooses the pattern and whether the 256 bytes stand in front of the lines, without which no file is taken.
 */
#include "data/tokenizer/pretoken.h"
#include "lockstep/data/tokenizer.h"
#include <stdlib.h>
#include <string.h>

static int put_bytes(struct lk_buf *file) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    int bad = 0;
    for (int b = 0; !bad && b < 256; b++) bad = lk_buf_printf(file, "%c%c== %d\n", digits[b >> 2], digits[(b & 3) << 4], b);
    return bad;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct lk_err err = {0};
    struct lk_tokenizer *t;
    struct lk_buf file = LK_BUF_INIT, back = LK_BUF_INIT;
    struct lk_tokens ids = {0};
    if (!size) return 0;
    const char *pattern = lk__tokenizer_pattern_names[data[0] % LK__PATTERN_COUNT];
    struct lk_special end = {lk_bytes(LK_TOKEN_END, strlen(LK_TOKEN_END)), 70000};
    if ((data[0] & 0x80 && put_bytes(&file)) || lk_buf_append(&file, data + 1, size - 1)) abort();
    if (lk_tokenizer_import_ranks(file.data, file.size, "fuzz.tiktoken", pattern, &end, 1, NULL, &t, &err)) {
        if (t || !strstr(err.message, "fuzz.tiktoken")) abort();
    } else {
        if (lk_tokenizer_end(t) != 70000) abort();
        if (lk_tokenizer_encode(t, data, size, NULL, &ids, &err) || lk_tokenizer_decode(t, ids.ids, ids.count, &back, &err))
            abort();
        if (back.size != size || memcmp(back.data, data, size) != 0) abort();
        lk_tokenizer_free(t);
    }
    lk_tokens_release(&ids);
    lk_buf_release(&back);
    lk_buf_release(&file);
    return 0;
}
