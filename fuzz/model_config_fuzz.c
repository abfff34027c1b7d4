/* Any JSON as a Hugging Face config.json: refused with a message, or a configuration that can be written and read again. */
#include "model/huggingface.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct lk__model_hf_config c, again;
    struct lk_err err = {0};
    json_t *v = lk_json_parse((const char *)data, size, "fuzz", &err);
    if (!v) return 0;
    if (lk__model_hf_config_read(v, "fuzz", NULL, 0, NULL, &c, &err)) {
        if (!err.message[0]) abort();
    } else {
        struct lk_model m = {.layout.config = c.model, .begin = c.begin, .stop_count = c.stop_count};
        memcpy(m.stops, c.stops, sizeof c.stops);
        const char *type = lk__model_hf_type(&c.model, c.type);
        if (!type || strcmp(type, c.type)) abort();
        json_t *w = lk__model_hf_config_write(&m, type, LK_F32);
        if (lk__model_hf_config_read(w, "fuzz", NULL, 0, NULL, &again, &err)) abort();
        if (memcmp(&c.model, &again.model, sizeof c.model) || again.begin != c.begin || again.stop_count != c.stop_count)
            abort();
        json_decref(w);
    }
    json_decref(v);
    return 0;
}
