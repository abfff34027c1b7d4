/* Any bytes as a safetensors file: refused, or read with every tensor inside the file. */
#include "model/safetensors.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct lk__model_safetensors s;
    struct lk_err err;
    float out[64];
    if (lk__model_safetensors_read(data, size, "fuzz", &s, &err)) return 0;
    for (size_t i = 0; i < s.count; i++) {
        const struct lk__model_stored_tensor *t = &s.tensors[i];
        if (t->data < data || t->bytes > size || t->data + t->bytes > data + size) abort();
        if (t->type == LK__OTHER_TYPE) continue;
        size_t count = t->bytes / lk__model_type_bytes(t->type);
        lk__model_to_f32(t->type, t->data, count < 64 ? count : 64, out);
    }
    lk__model_safetensors_release(&s);
    return 0;
}
