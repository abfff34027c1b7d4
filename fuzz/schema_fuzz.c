/* clang -fsanitize=fuzzer,address: a hostile schema is refused by a path; one that is taken leads to texts that are JSON.
 */
#include "lockstep/base/json.h"
#include "lockstep/serve/grammar.h"
#include <stdlib.h>
#include <string.h>

static struct lk_vocabulary *bytes;
static uint8_t byte_of[257];
static uint32_t end;

static void open_vocabulary(void) {
    struct lk_bytes text = lk_bytes("abc", 3);
    struct lk_tokenizer *t;
    struct lk_err err;
    if (lk_tokenizer_train(&text, 1, 257, NULL, NULL, NULL, &t, &err) ||
        lk_vocabulary_create(t, NULL, 0, NULL, &bytes, &err))
        abort();
    end = lk_tokenizer_end(t);
    for (uint32_t id = 0; id < 257; id++)
        if (id != end) byte_of[id] = *(const uint8_t *)lk_tokenizer_bytes(t, id).data;
    lk_tokenizer_free(t);
}

/* Ends where it may; else the data chooses, and quotes and brackets before all others. */
static void follow(struct lk_grammar *g, const uint8_t *data, size_t size) {
    struct lk_matcher *m;
    struct lk_err err = {0};
    struct lk_buf text = LK_BUF_INIT;
    uint64_t bits[5];
    if (lk_matcher_create(g, bytes, &m, &err)) abort();
    for (size_t i = 0; i < 400 && !lk_matcher_complete(m); i++) {
        uint32_t allowed[257], count = 0, closing = 0;
        if (lk_matcher_mask(m, bits, &err)) abort();
        for (uint32_t id = 0; id < 257; id++) {
            if (!(bits[id / 64] >> id % 64 & 1)) continue;
            if (byte_of[id] == '"' || byte_of[id] == ']' || byte_of[id] == '}') closing = id + 1;
            allowed[count++] = id;
        }
        if (!count) abort();
        uint32_t id = closing && i > size ? closing - 1 : allowed[data[i % size] % count];
        if (lk_matcher_accept(m, id, &err) || lk_buf_append(&text, &byte_of[id], 1)) abort();
    }
    if (lk_matcher_complete(m)) {
        json_t *value = json_loadb(text.data, text.size, JSON_DECODE_ANY, NULL);
        if (!value) abort();
        json_decref(value);
    }
    lk_buf_release(&text);
    lk_matcher_free(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct lk_err err = {0};
    struct lk_grammar *g;
    if (!bytes) open_vocabulary();
    json_t *schema = lk_json_parse((const char *)data, size, "fuzz", &err);
    if (!schema) return 0;
    if (lk_grammar_from_schema(schema, &g, &err)) {
        if (g || !err.message[0]) abort();
    } else {
        follow(g, data, size);
        lk_grammar_free(g);
    }
    json_decref(schema);
    return 0;
}
