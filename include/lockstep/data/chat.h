/* Conversations as tokens: the two layouts that most open models learned with. Which they are: src/data/README.md,
 * "Conversations". */
#ifndef LOCKSTEP_CHAT_H
#define LOCKSTEP_CHAT_H
#include "lockstep/data/tokenizer.h"

#ifdef __cplusplus
extern "C" {
#endif

enum lk_chat { LK_CHAT_NONE, LK_CHATML, LK_CHAT_LLAMA3 };
#define LK_CHAT_NAMES "chatml, llama3"
/* LK_CHAT_NONE when there is none of that name. */
enum lk_chat lk_chat_named(const char *name);
const char *lk_chat_name(enum lk_chat); /* of one of the templates */

struct lk_message {
    struct lk_bytes role, content; /* role: system, user, assistant or tool */
};
/* Appends the tokens of a conversation that the assistant goes on with: all messages, then the head of its answer. Special
 * tokens are the template's; in contents they are plain text. *stop is the token that ends an answer. LK_EINVAL: the
 * tokenizer has not the template's tokens, or an unknown role. */
int lk_chat_prompt(const struct lk_tokenizer *, enum lk_chat, const struct lk_message *, size_t count,
                   struct lk_tokens *out, uint32_t *stop, struct lk_err *);
/* The token that ends an answer. LK_EINVAL: as lk_chat_prompt. */
int lk_chat_stop(const struct lk_tokenizer *, enum lk_chat, uint32_t *stop, struct lk_err *);
/* The template as Jinja, with which transformers' apply_chat_template writes the same. Static. */
const char *lk_chat_jinja(enum lk_chat);

#ifdef __cplusplus
}
#endif
#endif
