/* Conversations as tokens, in the layouts that open models learned with. Which they are: src/data/README.md,
 * "Conversations". */
#ifndef LOCKSTEP_CHAT_H
#define LOCKSTEP_CHAT_H
#include "lockstep/base/json.h"
#include "lockstep/data/tokenizer.h"

#ifdef __cplusplus
extern "C" {
#endif

enum lk_chat {
    LK_CHAT_NONE,
    LK_CHATML,
    LK_CHAT_LLAMA3,
    LK_CHAT_SMOLLM2,
    LK_CHAT_QWEN15,
    LK_CHAT_QWEN2,
    LK_CHAT_QWEN25,
    LK_CHAT_QWEN3,
    LK_CHAT_LLAMA31,
    LK_CHAT_LLAMA32,
    LK_CHAT_LLAMA2,
    LK_CHAT_ZEPHYR,
    LK_CHAT_MISTRAL,
    LK_CHAT_MISTRAL_SPACE,
    LK_CHAT_MISTRAL_V1,
    LK_CHAT_MISTRAL_V3,
    LK_CHAT_MISTRAL_TOOLS,
    LK_CHAT_MISTRAL_V3_TOOLS,
    LK_CHAT_QWEN25_CODER,
    LK_CHAT_QWEN3_THINKING,
    LK_CHAT_COUNT
};
#define LK_CHAT_NAMES                                                                                                      \
    "chatml, llama3, smollm2, qwen1.5, qwen2, qwen2.5, qwen2.5-coder, qwen3, qwen3-thinking, llama3.1, llama3.2, llama2, " \
    "zephyr, mistral, mistral-space, mistral-v1, mistral-v3, mistral-tools, mistral-v3-tools"
/* The template whose Jinja text this is, newlines at its end left out: lk_chat_jinja's, or one whose SHA-256 is known.
 * LK_CHAT_NONE: none is. */
enum lk_chat lk_chat_recognise(const char *jinja, size_t size);
/* LK_CHAT_NONE when there is none of that name. */
enum lk_chat lk_chat_named(const char *name);
const char *lk_chat_name(enum lk_chat); /* of one of the templates */

struct lk_message {
    struct lk_bytes role, content; /* role: system, user, assistant or tool */
    const json_t *calls;           /* of the assistant: an array of {"id", "name", "arguments": an object}; NULL: none */
    struct lk_bytes call;          /* of a tool: the id of the call that it answers; may be empty */
};
struct lk_conversation {
    const struct lk_message *messages;
    size_t count;
    const json_t *tools; /* an array, as OpenAI's: {"type": "function", "function": {"name", "description", "parameters"}};
                            NULL: none */
    bool no_thinking;    /* the answer begins behind an empty thought, for templates that have thoughts */
    const char *date; /* for templates that say one, as "26 Jul 2024"; NULL: as the template does without, today or that; in
                         datasets always that */
};
/* Appends the tokens of a conversation that the assistant goes on with: all messages, then the head of its answer. Special
 * tokens are the template's; in contents they are plain text. *stop is the token that ends an answer. LK_EINVAL: the
 * tokenizer has not the template's tokens, an unknown role, or an order of messages that the template refuses.
 * LK_EUNSUPPORTED: tools or calls, and the template has none. */
int lk_chat_prompt(const struct lk_tokenizer *, enum lk_chat, const struct lk_conversation *, struct lk_tokens *out,
                   uint32_t *stop, struct lk_err *);
/* How models of a template call tools, as text of their answer:
 *     open  call NAME arguments OBJECT end  [between  call NAME arguments OBJECT end ...]  close
 * OBJECT in one line, as json.dumps of Python writes it. */
struct lk_chat_calls {
    const char *open, *call, *arguments, *end, *between, *close;
    bool text;            /* free text may stand before open */
    bool many;            /* more than one call */
    const char *marks[5]; /* texts of answers that are tokens of their own, where the tokenizer has them; that which opens a
                             call first; NULL: the end */
};
const struct lk_chat_calls *lk_chat_calls(enum lk_chat); /* NULL: the template has no tools */
/* The token that ends an answer. LK_EINVAL: as lk_chat_prompt. */
int lk_chat_stop(const struct lk_tokenizer *, enum lk_chat, uint32_t *stop, struct lk_err *);
/* The template as Jinja of ours, with which transformers' apply_chat_template writes the same. Static. NULL: there is none
 * but its maker's. */
const char *lk_chat_jinja(enum lk_chat);

#ifdef __cplusplus
}
#endif
#endif
