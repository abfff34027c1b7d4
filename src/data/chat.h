/* Conversations in the spans that are encoded apart. Private to src/data. */
#ifndef LOCKSTEP_DATA_CHAT_H
#define LOCKSTEP_DATA_CHAT_H
#include "lockstep/data/chat.h"

struct lk__data_chat_render;
/* A template: chat_layouts.c writes it. */
struct lk__data_chat_rules {
    const char *name, *system; /* system: what stands there without a system's message; NULL: nothing */
    void (*write)(struct lk__data_chat_render *);
    const char *marks[10]; /* what is a token of its own: must be with '!', else where the tokenizer has it */
    const char *end;       /* the mark that ends an answer */
    bool tool_role;        /* messages of tools */
    bool apart;            /* heads are encoded apart from answers, in prompts too, as in training here */
    const struct lk_chat_calls *calls;
};
#define LK__DATA_CHAT_MARKS 9
struct lk__data_chat {
    enum lk_chat kind;
    const struct lk__data_chat_rules *rules;
    struct {
        const char *text;
        uint32_t id;
    } marks[LK__DATA_CHAT_MARKS];
    size_t mark_count;
    uint32_t end;
};
/* Looks up the template's marks in the tokenizer. LK_EINVAL: one is absent, or, for documents, is the end token of
 * documents, which no text may hold. */
int lk__data_chat_open(const struct lk_tokenizer *, enum lk_chat, bool documents, struct lk__data_chat *out,
                       struct lk_err *);

struct lk__data_chat_span {
    uint32_t id;        /* a special token, or UINT32_MAX: text */
    size_t begin, size; /* of the text */
    bool target;        /* the loss is on it */
};
/* Writes *text and the spans (struct lk__data_chat_span) over *spans. answer: the head of an answer follows. LK_EINVAL: a
 * role that is not known, or an order of messages that the template refuses. */
int lk__data_chat_render(const struct lk__data_chat *, const struct lk_conversation *, bool answer, struct lk_buf *text,
                         struct lk_buf *spans, struct lk_err *);
/* Whether span i of them is encoded as what stands behind a text, though it is encoded apart. */
bool lk__data_chat_later(const struct lk_tokenizer *, const struct lk__data_chat *, const struct lk__data_chat_span *,
                         size_t i);

/* --- For chat_layouts.c ------------------------------------------------------------------------------------ */

struct lk__data_chat_render {
    const struct lk__data_chat *chat;
    const struct lk_conversation *of;
    bool answer, target;
    struct lk_buf *text, *spans;
    int code; /* the first failure */
    struct lk_err *err;
};
void lk__data_chat_put(struct lk__data_chat_render *, const char *text); /* the template's: marks in it are tokens */
void lk__data_chat_content(struct lk__data_chat_render *, struct lk_bytes);
void lk__data_chat_target(struct lk__data_chat_render *, bool target); /* of what follows */
void lk__data_chat_refuse(struct lk__data_chat_render *, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* As Python's json.dumps(ensure_ascii=False) writes it, indented by so many spaces, or in one line. */
void lk__data_chat_json(struct lk__data_chat_render *, const json_t *, unsigned indent);
void lk__data_chat_json_string(struct lk__data_chat_render *, struct lk_bytes);
/* Without white space as Python's str.strip knows it, at both ends, at the end. */
struct lk_bytes lk__data_chat_trimmed(struct lk_bytes);
struct lk_bytes lk__data_chat_trimmed_end(struct lk_bytes);

typedef void lk__data_chat_writer(struct lk__data_chat_render *);
lk__data_chat_writer lk__data_chat_chatml, lk__data_chat_llama3, lk__data_chat_qwen25, lk__data_chat_qwen3,
    lk__data_chat_llama31, lk__data_chat_llama2, lk__data_chat_zephyr, lk__data_chat_mistral;

#endif
