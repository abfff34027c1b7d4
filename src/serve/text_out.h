/* Text that leaves as whole characters, held back while a stop text may begin. Private to src/serve. */
#ifndef LOCKSTEP_SERVE_TEXT_OUT_H
#define LOCKSTEP_SERVE_TEXT_OUT_H
#include "lockstep/data/tokenizer.h"

struct lk__serve_text {
    const char *const *stops; /* borrowed */
    size_t stop_count;
    int (*give)(void *arg, const char *data, size_t size); /* never called with nothing; may be NULL; non-zero: stop */
    void *arg;
    struct lk_buf held;
};
enum lk__serve_text_end { LK__TEXT_GOES_ON, LK__TEXT_STOPPED, LK__TEXT_CALLER, LK__TEXT_NO_MEMORY };
/* Takes a token's bytes; gives out what is certain. Text from a stop text on is dropped. */
enum lk__serve_text_end lk__serve_text_take(struct lk__serve_text *, struct lk_bytes);
/* Gives out the rest as it is. */
void lk__serve_text_finish(struct lk__serve_text *);
void lk__serve_text_release(struct lk__serve_text *);

#endif
