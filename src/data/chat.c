/* Templates of conversations: which there are, their marks, and conversations as tokens. What a template writes is in
 * chat_layouts.c. What the assistant says, and the token that ends it, are targets; all else is not. */
#include "data/chat.h"
#include "data/tokenizer/internal.h"
#include "data/tokenizer/pretoken.h"

#include "lockstep/base/hash.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct lk_chat_calls hermes = {.open = "",
                                            .call = "<tool_call>\n{\"name\": \"",
                                            .arguments = "\", \"arguments\": ",
                                            .end = "}\n</tool_call>",
                                            .between = "\n",
                                            .close = "",
                                            .text = true,
                                            .many = true,
                                            .marks = {"<tool_call>", "</tool_call>", "<think>", "</think>"}};
static const struct lk_chat_calls bare = {
    .open = "", .call = "{\"name\": \"", .arguments = "\", \"parameters\": ", .end = "}", .between = "", .close = ""};
static const struct lk_chat_calls list = {.open = "[TOOL_CALLS][",
                                          .call = "{\"name\": \"",
                                          .arguments = "\", \"arguments\": ",
                                          .end = "}",
                                          .between = ", ",
                                          .close = "]",
                                          .text = true,
                                          .many = true,
                                          .marks = {"[TOOL_CALLS]"}};
static const struct lk_chat_calls spaced_list = {.open = "[TOOL_CALLS] [",
                                                 .call = "{\"name\": \"",
                                                 .arguments = "\", \"arguments\": ",
                                                 .end = "}",
                                                 .between = ", ",
                                                 .close = "]",
                                                 .text = true,
                                                 .many = true,
                                                 .marks = {"[TOOL_CALLS]"}};

#define CHATML_MARKS                                                                                                       \
    { "!<|im_start|>", "!<|im_end|>" }
#define QWEN_MARKS                                                                                                         \
    {                                                                                                                      \
        "!<|im_start|>", "!<|im_end|>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>",   \
            "</think>"                                                                                                     \
    }
#define LLAMA3_MARKS                                                                                                       \
    { "!<|begin_of_text|>", "!<|start_header_id|>", "!<|end_header_id|>", "!<|eot_id|>" }
#define MISTRAL_MARKS                                                                                                      \
    { "!<s>", "!</s>", "[INST]", "[/INST]" }
#define MISTRAL_TOOL_MARKS                                                                                                 \
    {                                                                                                                      \
        "!<s>", "!</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_CALLS]", "[TOOL_RESULTS]", \
            "[/TOOL_RESULTS]"                                                                                              \
    }
static const struct lk__data_chat_rules rules[LK_CHAT_COUNT] = {
    [LK_CHATML] = {"chatml", NULL, lk__data_chat_chatml, CHATML_MARKS, "<|im_end|>", true, true, NULL},
    [LK_CHAT_LLAMA3] = {"llama3", NULL, lk__data_chat_llama3, LLAMA3_MARKS, "<|eot_id|>", true, true, NULL},
    [LK_CHAT_SMOLLM2] = {"smollm2", "You are a helpful AI assistant named SmolLM, trained by Hugging Face",
                         lk__data_chat_chatml, CHATML_MARKS, "<|im_end|>", true, false, NULL},
    [LK_CHAT_QWEN15] = {"qwen1.5", "You are a helpful assistant", lk__data_chat_chatml, CHATML_MARKS, "<|im_end|>", true,
                        false, NULL},
    [LK_CHAT_QWEN2] = {"qwen2", "You are a helpful assistant.", lk__data_chat_chatml, CHATML_MARKS, "<|im_end|>", true,
                       false, NULL},
    [LK_CHAT_QWEN25] = {"qwen2.5", "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
                        lk__data_chat_qwen25, QWEN_MARKS, "<|im_end|>", true, false, &hermes},
    [LK_CHAT_QWEN3] = {"qwen3", NULL, lk__data_chat_qwen3, QWEN_MARKS, "<|im_end|>", true, false, &hermes},
    [LK_CHAT_LLAMA31] = {"llama3.1", NULL, lk__data_chat_llama31, LLAMA3_MARKS, "<|eot_id|>", true, false, &bare},
    [LK_CHAT_LLAMA32] = {"llama3.2", NULL, lk__data_chat_llama31, LLAMA3_MARKS, "<|eot_id|>", true, false, &bare},
    [LK_CHAT_LLAMA2] = {"llama2", NULL, lk__data_chat_llama2, {"!<s>", "!</s>"}, "</s>", false, false, NULL},
    [LK_CHAT_ZEPHYR] = {"zephyr", NULL, lk__data_chat_zephyr, {"!</s>"}, "</s>", false, false, NULL},
    [LK_CHAT_MISTRAL] = {"mistral", NULL, lk__data_chat_mistral, MISTRAL_MARKS, "</s>", false, false, NULL},
    [LK_CHAT_MISTRAL_SPACE] = {"mistral-space", NULL, lk__data_chat_mistral, MISTRAL_MARKS, "</s>", false, false, NULL},
    [LK_CHAT_MISTRAL_V1] = {"mistral-v1", NULL, lk__data_chat_mistral, MISTRAL_MARKS, "</s>", false, false, NULL},
    [LK_CHAT_MISTRAL_V3] = {"mistral-v3", NULL, lk__data_chat_mistral, MISTRAL_MARKS, "</s>", false, false, NULL},
    [LK_CHAT_MISTRAL_TOOLS] = {"mistral-tools", NULL, lk__data_chat_mistral, MISTRAL_TOOL_MARKS, "</s>", true, false,
                               &list},
    [LK_CHAT_MISTRAL_V3_TOOLS] = {"mistral-v3-tools", NULL, lk__data_chat_mistral, MISTRAL_TOOL_MARKS, "</s>", true, false,
                                  &spaced_list},
    [LK_CHAT_QWEN25_CODER] = {"qwen2.5-coder", "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
                              lk__data_chat_qwen25, QWEN_MARKS, "<|im_end|>", true, false, &hermes},
    [LK_CHAT_QWEN3_THINKING] = {"qwen3-thinking", NULL, lk__data_chat_qwen3, QWEN_MARKS, "<|im_end|>", true, false,
                                &hermes},
};

enum lk_chat lk_chat_named(const char *name) {
    for (int i = LK_CHATML; i < LK_CHAT_COUNT; i++)
        if (strcmp(rules[i].name, name) == 0) return (enum lk_chat)i;
    return LK_CHAT_NONE;
}
const char *lk_chat_name(enum lk_chat chat) {
    return rules[chat].name;
}
const struct lk_chat_calls *lk_chat_calls(enum lk_chat chat) {
    return rules[chat].calls;
}

/* The templates as folders of models have them; some were written in more than one way. */
static const struct {
    const char *sha256;
    enum lk_chat kind;
} known[] = {
    {"153280e3ff55d19da1398bdb3914ee2a51b80429bfaedde11d7d216c39db80f3", LK_CHATML},
    {"58c1a1f04baa7adaeaba1f90267c3d57d9396f0c1f0129bdde9e76d3c6784af7", LK_CHATML},
    {"ba03a121d097859c7b5b9cd03af99aafe95275210d2876f642ad9929a150f122", LK_CHAT_LLAMA3},
    {"b48c47f6443892716176eb200bf4ef108f64e06ca26ed0fa8ebc0a4b3992fcb2", LK_CHAT_LLAMA3},
    {"872be49dbb638044ad01b60388f48d469ff2980e5f0dccdc22ec907db54d0788", LK_CHAT_SMOLLM2},
    {"af9c0233881b083b52ff773580215222b5440ac3d0beeeca99b76329b048f8db", LK_CHAT_QWEN15},
    {"793202280c0910ab26bc6eb57c8212c2417324c6d8c4efd0d10d59092ab3e3eb", LK_CHAT_QWEN2},
    {"55b2f4a26ac9ee719330a61a0c39d9e538b0e9322212f048326318cff4f8674a", LK_CHAT_QWEN25},
    {"87a2728cb8dc9fe424d624542f6060ec05a1d285ebbec578bb078900e33396b5", LK_CHAT_QWEN3},
    {"a55ee1b1660128b7098723e0abcd92caa0788061051c62d51cbe87d9cf1974d8", LK_CHAT_QWEN3},
    {"93c0e9aa3629bbd77e68dbc0f5621f6e6b23aa8d74b932595cdb8d64684526d7", LK_CHAT_LLAMA31},
    {"d82792f95932f1c9cef5c4bd992f171225e3bf8c7b609b4557c9e1ec96be819f", LK_CHAT_LLAMA32},
    {"e8d5b5a546d3f19df16a5320c614fab05bdc4edd50e850f1afd947b503ea41cf", LK_CHAT_LLAMA2},
    {"66291cf0045c2425a3a667cf3cbb7af2b11f09e025c02f97245323ab79119362", LK_CHAT_ZEPHYR},
    {"26a59556925c987317ce5291811ba3b7f32ec4c647c400c6cc7e3a9993007ba7", LK_CHAT_MISTRAL},
    {"7e995b379ec01747807246483647cd99030abf331653f1119e16d7ac041a3495", LK_CHAT_MISTRAL_SPACE},
    {"bbc58aad99454df60138be9530c9601a0adfe3d8932cda975e1f10b2410ddc51", LK_CHAT_MISTRAL_V1},
    {"ac888ea51c72437ddbd57032b819c5d04d76c313147e1f3f2add070493fac49c", LK_CHAT_MISTRAL_V3},
    {"c7a94f505398612940c13ee95070d0d152bcb7b4afbd74a06ff148a82a02851c", LK_CHAT_MISTRAL_TOOLS},
    {"cafb64e0e9e5fd2503054b3479593fae39cbdfd52338ce8af9bb4664a8eb05bd", LK_CHAT_MISTRAL_V3_TOOLS},
    {"4e9918361c284a93880606d182d64da6a9fe97cdc1f5c5a78c1c8840444246fc", LK_CHAT_QWEN25_CODER},
    {"3802169b2a02b81e6adb7ab4f64f91ff02db753c8c3a64a01c35192d3a61d8d7", LK_CHAT_QWEN3_THINKING},
    {"e7deee034838db2bfc7487788a3013d8a307ab69f72f3c54a85f06fd76007d4e", LK_CHAT_MISTRAL_TOOLS},
};
enum lk_chat lk_chat_recognise(const char *jinja, size_t size) {
    struct lk_root root;
    char hex[LK_ROOT_HEX];
    while (size && jinja[size - 1] == '\n') size--;
    for (int i = LK_CHATML; i < LK_CHAT_COUNT; i++) { /* in a folder that was exported here */
        const char *own = lk_chat_jinja((enum lk_chat)i);
        size_t n = own ? strlen(own) : 0;
        while (n && own[n - 1] == '\n') n--;
        if (n && n == size && !memcmp(own, jinja, n)) return (enum lk_chat)i;
    }
    lk_sha256(jinja, size, &root);
    lk_root_hex(&root, hex);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(known[i].sha256, hex)) return known[i].kind;
    return LK_CHAT_NONE;
}

int lk__data_chat_open(const struct lk_tokenizer *t, enum lk_chat kind, bool documents, struct lk__data_chat *out,
                       struct lk_err *err) {
    const struct lk__data_chat_rules *r = &rules[kind];
    *out = (struct lk__data_chat){.kind = kind, .rules = r, .end = UINT32_MAX};
    for (size_t i = 0; r->marks[i]; i++) {
        bool must = r->marks[i][0] == '!';
        const char *text = r->marks[i] + must;
        uint32_t id = lk_tokenizer_find(t, text, strlen(text));
        if (id == UINT32_MAX && must)
            return lk_fail(err, LK_EINVAL, "the tokenizer has no token %s, which the template %s is made of", text,
                           r->name);
        if (id == UINT32_MAX) continue;
        if (documents && id == lk_tokenizer_end(t))
            return lk_fail(
                err, LK_EINVAL,
                "%s ends the tokenizer's documents, so it cannot stand inside one, as the template %s wants: import "
                "the tokenizer with another --end",
                text, r->name);
        out->marks[out->mark_count].text = text;
        out->marks[out->mark_count++].id = id;
        if (!strcmp(text, r->end)) out->end = id;
    }
    return LK_OK;
}

/* --- Rendering ------------------------------------------------------------------------------------------- */

static void no_memory(struct lk__data_chat_render *r) {
    if (!r->code) r->code = lk_fail(r->err, LK_ENOMEM, "no memory for a conversation");
}
void lk__data_chat_refuse(struct lk__data_chat_render *r, const char *format, ...) {
    char text[400];
    va_list ap;
    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    if (!r->code) r->code = lk_fail(r->err, LK_EINVAL, "%s", text);
}
/* Heads go together with what follows in prompts, as transformers encodes them, but for templates that are `apart`. */
void lk__data_chat_target(struct lk__data_chat_render *r, bool target) {
    r->target = target;
}
static bool target_of(const struct lk__data_chat_render *r) {
    return r->target && (!r->answer || r->chat->rules->apart);
}

void lk__data_chat_content(struct lk__data_chat_render *r, struct lk_bytes b) {
    struct lk__data_chat_span p = {UINT32_MAX, r->text->size, b.size, target_of(r)},
                              *last = r->spans->size
                                          ? (struct lk__data_chat_span *)(void *)(r->spans->data + r->spans->size) - 1
                                          : NULL;
    if (!b.size) return;
    if (lk_buf_append(r->text, b.data, b.size)) {
        no_memory(r);
        return;
    }
    if (last && last->id == UINT32_MAX && last->target == p.target)
        last->size += b.size;
    else if (lk_buf_append(r->spans, &p, sizeof p))
        no_memory(r);
}

/* The first mark in a text; of two at a place the longer one. */
static const char *next_mark(const struct lk__data_chat *c, const char *text, size_t *which) {
    const char *best = NULL;
    for (size_t i = 0; i < c->mark_count; i++) {
        const char *at = strstr(text, c->marks[i].text);
        bool longer = at && at == best && strlen(c->marks[i].text) > strlen(c->marks[*which].text);
        if (at && (!best || at < best || longer)) best = at, *which = i;
    }
    return best;
}
void lk__data_chat_put(struct lk__data_chat_render *r, const char *text) {
    size_t which = 0;
    for (const char *at; (at = next_mark(r->chat, text, &which)); text = at + strlen(r->chat->marks[which].text)) {
        lk__data_chat_content(r, lk_bytes(text, (size_t)(at - text)));
        struct lk__data_chat_span p = {.id = r->chat->marks[which].id, .target = target_of(r)};
        if (lk_buf_append(r->spans, &p, sizeof p)) no_memory(r);
    }
    lk__data_chat_content(r, lk_bytes(text, strlen(text)));
}

void lk__data_chat_json(struct lk__data_chat_render *r, const json_t *v, unsigned indent) {
    struct lk_buf text = LK_BUF_INIT;
    if (lk_json_python(v, indent, &text)) no_memory(r);
    lk__data_chat_content(r, lk_bytes(text.data ? text.data : "", text.size));
    lk_buf_release(&text);
}
void lk__data_chat_json_string(struct lk__data_chat_render *r, struct lk_bytes b) {
    json_t *v = json_stringn(b.data, b.size);
    if (v)
        lk__data_chat_json(r, v, 0);
    else
        lk__data_chat_refuse(r, "a message is no UTF-8");
    json_decref(v);
}

/* Python's str.isspace, which the templates' trim goes by. */
static bool is_space(uint32_t c) {
    return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}
struct lk_bytes lk__data_chat_trimmed_end(struct lk_bytes b) {
    const uint8_t *p = b.data;
    size_t end = 0, size; /* behind the last character that is no space */
    uint32_t c;
    for (size_t at = 0; at < b.size;) {
        size = lk__tokenizer_utf8_decode(p + at, b.size - at, &c);
        at += size ? size : 1;
        if (!size || !is_space(c)) end = at;
    }
    return lk_bytes(p, end);
}
struct lk_bytes lk__data_chat_trimmed(struct lk_bytes b) {
    const uint8_t *p = b.data;
    size_t begin = 0, size;
    uint32_t c;
    while (begin < b.size && (size = lk__tokenizer_utf8_decode(p + begin, b.size - begin, &c)) && is_space(c))
        begin += size;
    return lk__data_chat_trimmed_end(lk_bytes(p + begin, b.size - begin));
}

static bool is(struct lk_bytes b, const char *word) {
    return b.size == strlen(word) && memcmp(b.data, word, b.size) == 0;
}
static int check(const struct lk__data_chat *chat, const struct lk_conversation *c, struct lk_err *err) {
    const char *name = chat->rules->name;
    if (c->tools && !chat->rules->calls) return lk_fail(err, LK_EUNSUPPORTED, "the template %s has no tools", name);
    for (size_t i = 0; i < c->count; i++) {
        struct lk_bytes role = c->messages[i].role;
        bool tool = is(role, "tool");
        if (!is(role, "system") && !is(role, "user") && !is(role, "assistant") && !tool)
            return lk_fail(err, LK_EINVAL, "the role \"%.*s\" is none of system, user, assistant and tool",
                           role.size > 40 ? 40 : (int)role.size, (const char *)role.data);
        if (tool && !chat->rules->tool_role)
            return lk_fail(err, LK_EUNSUPPORTED, "the template %s has no messages of tools", name);
        if (c->messages[i].calls && !chat->rules->calls)
            return lk_fail(err, LK_EUNSUPPORTED, "the template %s has no calls of tools", name);
    }
    return LK_OK;
}

int lk__data_chat_render(const struct lk__data_chat *chat, const struct lk_conversation *c, bool answer,
                         struct lk_buf *text, struct lk_buf *spans, struct lk_err *err) {
    struct lk__data_chat_render r = {.chat = chat, .of = c, .answer = answer, .text = text, .spans = spans, .err = err};
    text->size = spans->size = 0;
    int code = check(chat, c, err);
    if (code) return code;
    chat->rules->write(&r);
    return r.code;
}

/* --- Prompts --------------------------------------------------------------------------------------------- */

static int push(struct lk_tokens *out, uint32_t id, struct lk_err *err) {
    if (lk__tokenizer_tokens_reserve(out, 1)) return lk_fail(err, LK_ENOMEM, "no memory for tokens");
    out->ids[out->count++] = id;
    return LK_OK;
}

/* A tokenizer that puts a space in front of a text puts none in its middle, and one that puts a space behind each special
 * token puts none where only a target begins: so it is in the whole text, and where a model goes on. Templates that are
 * `apart` keep what their datasets have. */
bool lk__data_chat_later(const struct lk_tokenizer *t, const struct lk__data_chat *chat,
                         const struct lk__data_chat_span *spans, size_t i) {
    if (!i || chat->rules->apart) return false;
    return spans[i - 1].id == UINT32_MAX || t->traits.prefix_space == LK__PREFIX_FIRST;
}

/* Spans one by one: what users wrote is never a special token. */
static int encode_spans(const struct lk_tokenizer *t, const struct lk__data_chat *chat, const struct lk_buf *text,
                        const struct lk__data_chat_span *p, size_t count, struct lk_tokens *out, struct lk_err *err) {
    struct lk__tokenizer_encoder *e = lk__tokenizer_encoder_take(t);
    int code = e ? LK_OK : lk_fail(err, LK_ENOMEM, "no memory for tokens");
    for (size_t i = 0; i < count && !code; i++)
        code = p[i].id != UINT32_MAX ? push(out, p[i].id, err)
                                     : lk__tokenizer_encoder_run(e, text->data + p[i].begin, p[i].size,
                                                                 lk__data_chat_later(t, chat, p, i), out, err);
    lk__tokenizer_encoder_give(e);
    return code;
}
/* All as one text, as transformers does it; *same: no span of text has a special token, so that this is right. */
static int encode_whole(const struct lk_tokenizer *t, const struct lk_buf *text, const struct lk__data_chat_span *p,
                        size_t count, struct lk_tokens *out, bool *same, struct lk_err *err) {
    struct lk_encode_options special = {.special = true};
    struct lk_buf all = LK_BUF_INIT;
    size_t before = out->count, marks = 0;
    int code = LK_OK;
    for (size_t i = 0; i < count && !code; i++) {
        struct lk_bytes b =
            p[i].id == UINT32_MAX ? lk_bytes(text->data + p[i].begin, p[i].size) : lk_tokenizer_bytes(t, p[i].id);
        marks += p[i].id != UINT32_MAX && lk_tokenizer_is_special(t, p[i].id);
        if (lk_buf_append(&all, b.data, b.size)) code = lk_fail(err, LK_ENOMEM, "no memory for a conversation");
    }
    if (!code) code = lk_tokenizer_encode_with(t, all.data ? all.data : "", all.size, &special, NULL, out, err);
    for (size_t i = before; i < out->count; i++) marks -= lk_tokenizer_is_special(t, out->ids[i]);
    *same = marks == 0;
    if (!*same) out->count = before;
    lk_buf_release(&all);
    return code;
}

int lk_chat_prompt(const struct lk_tokenizer *t, enum lk_chat kind, const struct lk_conversation *c, struct lk_tokens *out,
                   uint32_t *stop, struct lk_err *err) {
    struct lk_buf text = LK_BUF_INIT, spans = LK_BUF_INIT;
    struct lk__data_chat chat;
    bool done = false;
    int code = lk__data_chat_open(t, kind, false, &chat, err);
    if (!code) code = lk__data_chat_render(&chat, c, true, &text, &spans, err);
    const struct lk__data_chat_span *p = (const struct lk__data_chat_span *)(const void *)spans.data;
    size_t count = spans.size / sizeof *p;
    if (!code && !chat.rules->apart) code = encode_whole(t, &text, p, count, out, &done, err);
    if (!code && !done) code = encode_spans(t, &chat, &text, p, count, out, err);
    *stop = chat.end;
    lk_buf_release(&text);
    lk_buf_release(&spans);
    return code;
}

int lk_chat_stop(const struct lk_tokenizer *t, enum lk_chat kind, uint32_t *stop, struct lk_err *err) {
    struct lk__data_chat chat;
    int code = lk__data_chat_open(t, kind, false, &chat, err);
    *stop = chat.end;
    return code;
}
