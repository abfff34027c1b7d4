/* clang -fsanitize=fuzzer,address: one line of .jsonl, a list of records, a text that may be none. Whatever is refused says
 * why and where; whatever jansson takes as a record is taken with the same text. (The other way round numbers and nested
 * keys are freer: src/data/jsonl.h.) */
#include "data/jsonl.h"
#include "data/sniff.h"
#include "data/source.h"
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* Of a list that jansson takes, each line is the record of its place, or fails where jansson's record is none. */
static void check_list(const uint8_t *data, size_t size) {
    struct lk_err err = {0};
    struct lk_buf text = LK_BUF_INIT;
    struct lk__data_stream *s;
    json_t *v = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
    int code = lk__data_stream_memory(LK__UNPACKED, LK__LIST, data, size, 7, "fuzz", &s, &err);
    while (!code && !lk__data_stream_ended(s)) code = lk__data_stream_fill(s, text.size + 4096, &text, &err);
    lk__data_stream_close(s);
    if (json_is_array(v)) {
        const char *at = text.data;
        if (code || text.size != size) abort();
        for (size_t i = 0; i < json_array_size(v); i++) {
            const char *end = memchr(at, '\n', (size_t)(text.data + text.size - at));
            if (!end != (i + 1 == json_array_size(v))) abort();
            if (!end) end = text.data + text.size;
            json_t *one =
                json_loadb(at, (size_t)(end - at), JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | JSON_DECODE_ANY, NULL);
            if (!one || !json_equal(one, json_array_get(v, i))) abort();
            json_decref(one);
            at = end + 1;
        }
    }
    json_decref(v);
    lk_buf_release(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct lk_err err = {0};
    struct lk_buf text = LK_BUF_INIT;
    struct lk__data_record record;
    size_t at;
    static const struct lk__data_record_keys usual, chosen = {.text = "content"}, chat = {.conversations = true};
    const char *todo;
    check_list(data, size);
    if (lk__data_sniff(data, size, &todo) && !*todo) abort();
    lk__data_record_parse((const char *)data, size, &chosen, &text, &record, &at, &err);
    lk__data_record_parse((const char *)data, size, &chat, &text, &record, &at, &err);
    int code = lk__data_record_parse((const char *)data, size, &usual, &text, &record, &at, &err);
    if (at > size || (code && !err.message[0]) || record.prompt_size > text.size) abort();
    json_t *v = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
    const json_t *t = json_object_get(v, "text"), *p = json_object_get(v, "prompt"), *r = json_object_get(v, "response");
    if (json_object_size(v) <= 1000 && json_is_string(t) && !p && !r) {
        if (code || text.size != json_string_length(t)) abort();
        if (text.size && memcmp(text.data, json_string_value(t), text.size) != 0) abort();
    }
    if (json_object_size(v) <= 1000 && !t && json_is_string(p) && json_is_string(r) &&
        (code || record.prompt_size != json_string_length(p) || text.size != json_string_length(p) + json_string_length(r)))
        abort();
    const json_t *m = json_object_get(v, "messages"), *one;
    struct lk_buf messages = LK_BUF_INIT;
    if (!code && record.messages &&
        !lk__data_messages_parse(record.messages, record.messages_size, &text, &messages, &at, &err) && v) {
        const struct lk__data_message *have = (const struct lk__data_message *)(const void *)messages.data;
        size_t i;
        if (json_array_size(m) != messages.size / sizeof *have) abort();
        json_array_foreach(m, i, one) {
            const json_t *role = json_object_get(one, "role"), *content = json_object_get(one, "content");
            if (json_string_length(role) != have[i].role_size || json_string_length(content) != have[i].content_size)
                abort();
            if (memcmp(json_string_value(content), text.data + have[i].content, have[i].content_size)) abort();
        }
    }
    lk_buf_release(&messages);
    json_decref(v);
    lk_buf_release(&text);
    return 0;
}
