/* clang -fsanitize=fuzzer,address: conversations through every template, with tools and calls, as prompts and for datasets.
 * What is taken decodes to a text that has every content of the user's; the end of an answer is one of its marks. */
#include "data/chat.h"
#include <stdlib.h>
#include <string.h>

static struct lk_tokenizer *tokenizer;

static void set_up(void) {
    static const char *const marks[] = {
        "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",  "<s>",
        "</s>",         "[INST]",     "[TOOL_CALLS]",        "<|begin_of_text|>", "<tool_call>", "</tool_call>"};
    static const char text[] = "in the beginning";
    struct lk_bytes b = lk_bytes(text, sizeof text - 1);
    struct lk_buf json = LK_BUF_INIT, all = LK_BUF_INIT;
    struct lk_tokenizer *plain;
    struct lk_err err;
    if (lk_tokenizer_train(&b, 1, 260, NULL, NULL, NULL, &plain, &err) || lk_tokenizer_export(plain, &json, &err)) abort();
    char *at = strstr(json.data, "\n  ],");
    if (!at || lk_buf_append(&all, json.data, (size_t)(at - json.data))) abort();
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        if (lk_buf_printf(&all, ",\n{\"id\": %zu, \"content\": \"%s\", \"special\": %s}", 300 + i, marks[i],
                          i < 10 ? "true" : "false"))
            abort();
    if (lk_buf_append(&all, at, strlen(at)) || lk_tokenizer_import(all.data, all.size, "fuzz", &tokenizer, &err)) abort();
    lk_buf_release(&json), lk_buf_release(&all);
    lk_tokenizer_free(plain);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const roles[] = {"user", "assistant", "system", "tool", "other"};
    struct lk_message m[8];
    struct lk_err err;
    if (!tokenizer) set_up();
    if (size < 2) return 0;
    enum lk_chat kind = (enum lk_chat)(LK_CHATML + data[0] % (LK_CHAT_COUNT - 1));
    struct lk_conversation c = {.messages = m, .no_thinking = data[1] & 1};
    json_t *tools =
        data[1] & 2 ? json_pack("[{s:s, s:{s:s, s:[f]}}]", "type", "function", "function", "name", "f", "parameters", 0.1)
                    : NULL;
    json_t *calls = json_pack("[{s:s, s:s, s:{s:s}}]", "id", data[1] & 4 ? "123456789" : "1", "name", "f", "arguments", "a",
                              "\xc3\xa9");
    c.tools = tools;
    const uint8_t *p = data + 2, *end = data + size;
    while (p < end && c.count < 8) { /* a byte says the role, a zero ends the content */
        uint8_t what = *p++;
        const uint8_t *stop = memchr(p, 0, (size_t)(end - p));
        const char *role = roles[what % 5];
        if (!stop) stop = end;
        m[c.count++] = (struct lk_message){.role = lk_bytes(role, strlen(role)),
                                           .content = lk_bytes(p, (size_t)(stop - p)),
                                           .calls = what & 64 && what % 5 == 1 ? calls : NULL,
                                           .call = lk_bytes(what & 32 ? "123456789" : "", what & 32 ? 9 : 0)};
        p = stop + (stop < end);
    }
    struct lk_tokens ids = {0};
    struct lk_buf text = LK_BUF_INIT, spans = LK_BUF_INIT;
    uint32_t stop = 0;
    int code = lk_chat_prompt(tokenizer, kind, &c, &ids, &stop, &err);
    if (code && !*err.message) abort();
    if (!code && (stop == UINT32_MAX || lk_tokenizer_decode(tokenizer, ids.ids, ids.count, &text, &err))) abort();
    for (size_t i = 0; !code && i < c.count; i++) { /* what users say stands there, but for white space at its ends */
        struct lk_bytes said = lk__data_chat_trimmed(m[i].content);
        if (m[i].role.size == 4 && *(const char *)m[i].role.data == 'u' && said.size &&
            !memmem(text.data, text.size, said.data, said.size))
            abort();
    }
    struct lk__data_chat chat;
    if (!lk__data_chat_open(tokenizer, kind, true, &chat, &err))
        lk__data_chat_render(&chat, &c, false, &text, &spans, &err);
    lk_tokens_release(&ids);
    lk_buf_release(&text), lk_buf_release(&spans);
    json_decref(tools), json_decref(calls);
    return 0;
}
