/* clang -fsanitize=fuzzer,address: a hostile grammar is refused with what to do; one that is taken never comes to a place
 * where nothing may come, and a text of bytes goes on exactly where the mask says so. */
#include "lockstep/serve/grammar.h"
#include <stdlib.h>
#include <string.h>

static struct lk_vocabulary *bytes;
static uint32_t byte_id[256];

static void open_vocabulary(void) {
    struct lk_bytes text = lk_bytes("abc", 3);
    struct lk_tokenizer *t;
    struct lk_err err;
    if (lk_tokenizer_train(&text, 1, 257, NULL, NULL, NULL, &t, &err) ||
        lk_vocabulary_create(t, NULL, 0, NULL, &bytes, &err))
        abort();
    for (uint32_t id = 0; id < 257; id++)
        if (id != lk_tokenizer_end(t)) byte_id[*(const uint8_t *)lk_tokenizer_bytes(t, id).data] = id;
    lk_tokenizer_free(t);
}

/* Takes the allowed bytes that the data chooses; every tenth one is tried whether it is allowed or not. */
static void follow(struct lk_grammar *g, const uint8_t *data, size_t size) {
    struct lk_matcher *m;
    struct lk_err err = {0};
    uint64_t bits[5];
    if (lk_matcher_create(g, bytes, &m, &err)) abort();
    for (size_t i = 0; i < size && i < 64; i++) {
        uint32_t allowed[257], count = 0, id;
        int code = lk_matcher_mask(m, bits, &err);
        if (code == LK_EUNSUPPORTED) break; /* too ambiguous */
        if (code) abort();
        for (uint32_t b = 0; b < 256; b++)
            if (bits[byte_id[b] / 64] >> byte_id[b] % 64 & 1) allowed[count++] = byte_id[b];
        if (!count && !lk_matcher_complete(m)) abort();
        if (lk_matcher_done(m) != (!count && lk_matcher_complete(m))) abort();
        if (i % 10 == 9) {
            id = byte_id[data[i]];
            code = lk_matcher_accept(m, id, &err);
            if (code != LK_EUNSUPPORTED && (code == 0) != (bits[id / 64] >> id % 64 & 1)) abort();
            continue;
        }
        if (!count) break;
        code = lk_matcher_accept(m, allowed[data[i] % count], &err);
        if (code == LK_EUNSUPPORTED) break;
        if (code) abort();
        if (data[i] % 7 == 0 && lk_matcher_rollback(m, 1, &err)) abort();
    }
    lk_matcher_free(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct lk_err err = {0};
    struct lk_grammar *g;
    if (!bytes) open_vocabulary();
    if (lk_grammar_from_gbnf((const char *)data, size, &g, &err)) {
        if (g || !err.message[0]) abort();
        return 0;
    }
    follow(g, data, size);
    lk_grammar_free(g);
    return 0;
}
