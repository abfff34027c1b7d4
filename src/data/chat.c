/* ChatML:   <|im_start|>ROLE\nCONTENT<|im_end|>\n ...
 * Llama 3:  <|begin_of_text|><|start_header_id|>ROLE<|end_header_id|>\n\nCONTENT<|eot_id|> ...   (white space around
 * CONTENT is cut off, as its template does) What the assistant says, and the token that ends it, are targets; all else is
 * not. Heads are encoded apart from what the assistant says, because in generation the head is there before the answer. */
#include "data/chat.h"
#include "data/tokenizer/internal.h"
#include "data/tokenizer/pretoken.h"

#include <string.h>

static const char *const names[] = {[LK_CHATML] = "chatml", [LK_CHAT_LLAMA3] = "llama3"};

enum lk_chat lk_chat_named(const char *name) {
    for (int i = LK_CHATML; i <= LK_CHAT_LLAMA3; i++)
        if (strcmp(names[i], name) == 0) return (enum lk_chat)i;
    return LK_CHAT_NONE;
}

const char *lk_chat_name(enum lk_chat chat) {
    return names[chat];
}

static int find(const struct lk_tokenizer *t, enum lk_chat kind, const char *text, uint32_t *id, struct lk_err *err) {
    *id = lk_tokenizer_find(t, text, strlen(text));
    if (*id == UINT32_MAX)
        return lk_fail(err, LK_EINVAL, "the tokenizer has no token %s, which the template %s is made of", text,
                       names[kind]);
    if (*id == lk_tokenizer_end(t))
        return lk_fail(
            err, LK_EINVAL,
            "%s ends the tokenizer's documents, so it cannot stand inside one, as the template %s wants: import the "
            "tokenizer with another --end",
            text, names[kind]);
    return LK_OK;
}

int lk__data_chat_open(const struct lk_tokenizer *t, enum lk_chat kind, struct lk__data_chat *out, struct lk_err *err) {
    *out = (struct lk__data_chat){.kind = kind, .begin = UINT32_MAX, .head_end = UINT32_MAX};
    bool llama3 = kind == LK_CHAT_LLAMA3;
    int code = find(t, kind, llama3 ? "<|start_header_id|>" : "<|im_start|>", &out->head, err);
    if (!code) code = find(t, kind, llama3 ? "<|eot_id|>" : "<|im_end|>", &out->end, err);
    if (!code && llama3) code = find(t, kind, "<|end_header_id|>", &out->head_end, err);
    if (!code && llama3) code = find(t, kind, "<|begin_of_text|>", &out->begin, err);
    return code;
}

/* --- Rendering ------------------------------------------------------------------------------------------- */

struct render {
    const struct lk__data_chat *chat;
    struct lk_buf *text, *spans;
    bool failed; /* out of memory */
};

static void put_special(struct render *r, uint32_t id, bool target) {
    struct lk__data_chat_span p = {.id = id, .target = target};
    r->failed |= lk_buf_append(r->spans, &p, sizeof p) != 0;
}

/* The pieces, joined, are one span. */
static void put_text(struct render *r, const struct lk_bytes *pieces, size_t count, bool target) {
    struct lk__data_chat_span p = {.id = UINT32_MAX, .begin = r->text->size, .target = target};
    for (size_t i = 0; i < count; i++)
        if (pieces[i].size) r->failed |= lk_buf_append(r->text, pieces[i].data, pieces[i].size) != 0;
    p.size = r->text->size - p.begin;
    if (p.size) r->failed |= lk_buf_append(r->spans, &p, sizeof p) != 0;
}

/* Python's str.isspace, which the template's trim goes by. */
static bool is_space(uint32_t c) {
    return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}
static struct lk_bytes trimmed(struct lk_bytes b) {
    const uint8_t *p = b.data;
    size_t begin = 0, end, size;
    uint32_t c;
    while (begin < b.size && (size = lk__tokenizer_utf8_decode(p + begin, b.size - begin, &c)) && is_space(c))
        begin += size;
    end = begin; /* behind the last character that is no space */
    for (size_t at = begin; at < b.size;) {
        size = lk__tokenizer_utf8_decode(p + at, b.size - at, &c);
        at += size ? size : 1;
        if (!size || !is_space(c)) end = at;
    }
    return lk_bytes(p + begin, end - begin);
}

/* content NULL: the head alone. */
static void put_message(struct render *r, struct lk_bytes role, const struct lk_bytes *content, bool target) {
    bool llama3 = r->chat->kind == LK_CHAT_LLAMA3;
    struct lk_bytes all[3], none = lk_bytes("", 0), said = content ? *content : none;
    size_t n = 0;
    if (llama3) said = trimmed(said);
    put_special(r, r->chat->head, false);
    all[n++] = role;
    if (llama3) {
        put_text(r, all, n, false);
        put_special(r, r->chat->head_end, false);
        n = 0;
    }
    all[n++] = llama3 ? lk_bytes("\n\n", 2) : lk_bytes("\n", 1);
    if (!target && content) all[n++] = said;
    put_text(r, all, n, false);
    if (!content) return;
    if (target) put_text(r, &said, 1, true);
    put_special(r, r->chat->end, target);
    struct lk_bytes newline = lk_bytes("\n", 1);
    if (!llama3) put_text(r, &newline, 1, false);
}

static bool is(struct lk_bytes b, const char *word) {
    return b.size == strlen(word) && memcmp(b.data, word, b.size) == 0;
}

int lk__data_chat_render(const struct lk__data_chat *chat, const struct lk_message *messages, size_t count, bool answer,
                         struct lk_buf *text, struct lk_buf *spans, struct lk_err *err) {
    struct render r = {.chat = chat, .text = text, .spans = spans};
    text->size = spans->size = 0;
    if (chat->begin != UINT32_MAX) put_special(&r, chat->begin, false);
    for (size_t i = 0; i < count; i++) {
        struct lk_bytes role = messages[i].role;
        if (!is(role, "system") && !is(role, "user") && !is(role, "assistant") && !is(role, "tool"))
            return lk_fail(err, LK_EINVAL, "the role \"%.*s\" is none of system, user, assistant and tool",
                           role.size > 40 ? 40 : (int)role.size, (const char *)role.data);
        put_message(&r, role, &messages[i].content, is(role, "assistant"));
    }
    if (answer) put_message(&r, lk_bytes("assistant", 9), NULL, true);
    return r.failed ? lk_fail(err, LK_ENOMEM, "no memory for a conversation") : LK_OK;
}

static int push(struct lk_tokens *out, uint32_t id, struct lk_err *err) {
    if (lk__tokenizer_tokens_reserve(out, 1)) return lk_fail(err, LK_ENOMEM, "no memory for tokens");
    out->ids[out->count++] = id;
    return LK_OK;
}

int lk_chat_prompt(const struct lk_tokenizer *t, enum lk_chat kind, const struct lk_conversation *c, struct lk_tokens *out,
                   uint32_t *stop, struct lk_err *err) {
    struct lk_buf text = LK_BUF_INIT, spans = LK_BUF_INIT;
    struct lk__data_chat chat;
    int code = lk__data_chat_open(t, kind, &chat, err);
    if (!code) code = lk__data_chat_render(&chat, c->messages, c->count, true, &text, &spans, err);
    const struct lk__data_chat_span *p = (const struct lk__data_chat_span *)(const void *)spans.data;
    for (size_t i = 0; i < spans.size / sizeof *p && !code; i++)
        code = p[i].id == UINT32_MAX ? lk_tokenizer_encode(t, text.data + p[i].begin, p[i].size, NULL, out, err)
                                     : push(out, p[i].id, err);
    *stop = chat.end;
    lk_buf_release(&text);
    lk_buf_release(&spans);
    return code;
}

int lk_chat_stop(const struct lk_tokenizer *t, enum lk_chat kind, uint32_t *stop, struct lk_err *err) {
    struct lk__data_chat chat;
    int code = lk__data_chat_open(t, kind, &chat, err);
    *stop = chat.end;
    return code;
}

const struct lk_chat_calls *lk_chat_calls(enum lk_chat kind) {
    (void)kind;
    return NULL;
}
