/* Any bytes as a GGUF file: refused with a message that names it, or read with every tensor and value inside the file; then
 * its keys as a configuration, and its lists as a tokenizer, which goes out and comes back the same. */
#include "model/gguf/tokens.h"
#include <stdlib.h>
#include <string.h>

static void check_tensors(const struct lk__gguf *g, const uint8_t *data, size_t size) {
    static float out[1 << 16];
    for (size_t i = 0; i < g->tensor_count; i++) {
        const struct lk__gguf_tensor *t = &g->tensors[i];
        if (t->data < data || t->bytes > size || t->data + t->bytes > data + size) abort();
        if (lk__gguf_tensor(g, t->name) != t) abort();
        if (t->shape[0] <= sizeof out / sizeof *out) lk__gguf_to_f32(t->type, t->data, t->shape[0], out);
        if (t->type == LK__GGUF_Q8_0 || t->type == LK__GGUF_Q4_0) lk__gguf_finite(t->type, t->data, t->bytes);
    }
}

static void check_values(const struct lk__gguf *g) {
    for (size_t i = 0; i < g->value_count; i++) {
        const struct lk__gguf_value *v = &g->values[i];
        uint64_t whole;
        double real;
        bool truth;
        struct lk_bytes text;
        if (lk__gguf_value(g, v->key) != v) abort();
        if (lk__gguf_whole(v, &whole) + lk__gguf_truth(v, &truth) + lk__gguf_text(v, &text) > 1) abort();
        lk__gguf_real(v, &real);
    }
}

static void check_tokenizer(const struct lk_tokenizer *t) {
    struct lk_tokenizer_lists lists, again;
    struct lk_tokenizer *back;
    struct lk_err err = {0};
    if (lk_tokenizer_export_lists(t, lk_tokenizer_vocab(t), &lists, &err)) return;
    if (!lists.inexact) {
        if (lk_tokenizer_import_lists(&lists, "back", &back, &err)) abort();
        if (lk_tokenizer_export_lists(back, lists.count ? (uint32_t)lists.count : 0, &again, &err)) abort();
        if (again.count != lists.count || again.merge_count != lists.merge_count || again.end != lists.end) abort();
        for (size_t i = 0; i < lists.count; i++)
            if (again.types[i] != lists.types[i] || again.tokens[i].size != lists.tokens[i].size ||
                memcmp(again.tokens[i].data, lists.tokens[i].data, lists.tokens[i].size))
                abort();
        lk_tokenizer_lists_release(&again);
        lk_tokenizer_free(back);
    }
    lk_tokenizer_lists_release(&lists);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const struct lk_model_import options;
    struct lk_err err = {0};
    struct lk__gguf g;
    struct lk__gguf_config c;
    struct lk_tokenizer *t;
    if (lk__gguf_read(data, size, "fuzz.gguf", &g, &err)) {
        if (!strstr(err.message, "fuzz.gguf")) abort();
        return 0;
    }
    check_tensors(&g, data, size);
    check_values(&g);
    if (lk__gguf_config_read(&g, "fuzz.gguf", &options, &c, &err)) {
        if (!strstr(err.message, "fuzz.gguf")) abort();
        c = (struct lk__gguf_config){.begin = UINT32_MAX, .text_begin = UINT32_MAX, .end = UINT32_MAX};
    }
    if (lk__gguf_tokens_read(&g, "fuzz.gguf", &c, &t, &err)) {
        if (t || !strstr(err.message, "fuzz.gguf")) abort();
    } else
        check_tokenizer(t);
    lk_tokenizer_free(t);
    lk__gguf_release(&g);
    return 0;
}
