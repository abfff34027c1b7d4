/* Penalties of logits with counts that a text keeps. Private to src/serve. */
#ifndef LOCKSTEP_SERVE_PENALTIES_H
#define LOCKSTEP_SERVE_PENALTIES_H
#include "lockstep/serve/generate.h"

/* Which of the tokens a text has, and how often each was drawn. */
struct lk__serve_counts {
    uint32_t tokens, seen_count;
    uint32_t *counts, *seen; /* (tokens) twice */
};
int lk__serve_counts_init(struct lk__serve_counts *, uint32_t tokens, struct lk_err *);
void lk__serve_counts_release(struct lk__serve_counts *);
/* Those of the prompt are not drawn. Ids that are no tokens count nothing. */
void lk__serve_counts_add(struct lk__serve_counts *, uint32_t id, bool drawn);
/* Biases and penalties onto logits (tokens), in place; costs as much as the text has different tokens. Good values
 * (lk_penalties_check). */
void lk__serve_penalise(const struct lk_penalties *, const struct lk__serve_counts *, float *logits);

#endif
