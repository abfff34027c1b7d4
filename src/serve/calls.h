/* Calls of tools in an answer: found again in its text. Private to src/serve. */
#ifndef LOCKSTEP_SERVE_CALLS_H
#define LOCKSTEP_SERVE_CALLS_H
#include "lockstep/base/mem.h"
#include "lockstep/data/chat.h"

#define LK__SERVE_CALLS_OPENING 64 /* bytes of open and call together, with a zero */
/* What opens calls, which free text never says: the template's mark, or all that stands before the first name. No other of
 * its characters is as its first one. */
void lk__serve_calls_mark(const struct lk_chat_calls *, char out[LK__SERVE_CALLS_OPENING]);

/* What a text is made of, told piece by piece. */
enum lk__serve_calls_part { LK__SERVE_CALLS_TEXT, LK__SERVE_CALLS_NAME, LK__SERVE_CALLS_ARGUMENTS, LK__SERVE_CALLS_END };
struct lk__serve_calls {
    const struct lk_chat_calls *how;
    bool anywhere; /* calls may stand behind text */
    int (*tell)(void *arg, enum lk__serve_calls_part, const char *data,
                size_t size); /* NAME once and whole; END without data */
    void *arg;
    struct lk_buf held; /* not told yet */
    int place;
    uint32_t depth; /* of brackets in arguments */
    bool string, escaped;
    uint32_t count; /* whole calls */
};
/* Takes more of the text, which is one of the grammar of lk_grammar_from_tools. Non-zero: what tell returned, or
 * LK_ENOMEM. */
int lk__serve_calls_take(struct lk__serve_calls *, const char *data, size_t size);
/* The text has ended, perhaps in the middle. */
int lk__serve_calls_finish(struct lk__serve_calls *);
void lk__serve_calls_release(struct lk__serve_calls *);

#endif
