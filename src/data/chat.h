/* Conversations in the spans that are encoded apart. Private to src/data. */
#ifndef LOCKSTEP_DATA_CHAT_H
#define LOCKSTEP_DATA_CHAT_H
#include "lockstep/data/chat.h"

struct lk__data_chat {
    enum lk_chat kind;
    uint32_t begin, head, head_end, end; /* ids of the template's marks; UINT32_MAX: it has no such mark */
};
/* Looks up the template's marks in the tokenizer. LK_EINVAL: one is absent, or is the end token of documents, which no text
 * may hold. */
int lk__data_chat_open(const struct lk_tokenizer *, enum lk_chat, struct lk__data_chat *out, struct lk_err *);

struct lk__data_chat_span {
    uint32_t id;        /* a special token, or UINT32_MAX: text */
    size_t begin, size; /* of the text */
    bool target;        /* the loss is on it */
};
/* Writes *text and the spans (struct lk__data_chat_span) over *spans. answer: the head of an answer follows. LK_EINVAL: a
 * role that is not known. */
int lk__data_chat_render(const struct lk__data_chat *, const struct lk_message *, size_t count, bool answer,
                         struct lk_buf *text, struct lk_buf *spans, struct lk_err *);

#endif
