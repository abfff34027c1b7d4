/* Which template a folder's files have. */
#include "huggingface.h"

#include <string.h>

/* A text, or several by name, of which transformers takes the one that is called default. */
static const json_t *in_config(const json_t *config) {
    const json_t *v = json_object_get(config, "chat_template");
    for (size_t i = 0; json_is_array(v) && i < json_array_size(v); i++) {
        const json_t *one = json_array_get(v, i);
        const char *name = json_string_value(json_object_get(one, "name"));
        if (name && !strcmp(name, "default")) return json_object_get(one, "template");
    }
    return v;
}

json_t *lk__model_hf_lenient(const void *text, size_t size) {
    json_t *v = json_loadb(text, size, 0, NULL);
    if (!v) v = json_loadb(text, size, JSON_DECODE_INT_AS_REAL, NULL);
    if (json_is_object(v)) return v;
    json_decref(v);
    return NULL;
}

enum lk_chat lk__model_hf_chat(const struct lk_bytes *jinja, const json_t *tokenizer_config, bool *any) {
    const json_t *text = in_config(tokenizer_config);
    *any = jinja || json_is_string(text);
    if (jinja) return lk_chat_recognise(jinja->data, jinja->size);
    return *any ? lk_chat_recognise(json_string_value(text), json_string_length(text)) : LK_CHAT_NONE;
}
