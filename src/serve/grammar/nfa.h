/* The non-deterministic automaton of one rule (Thompson 1968), between expressions and states. */
#ifndef LOCKSTEP_SERVE_GRAMMAR_NFA_H
#define LOCKSTEP_SERVE_GRAMMAR_NFA_H
#include "serve/grammar/build.h"

#define LK__GRAMMAR_NFA_MOST ((size_t)1 << 20)

struct lk__grammar_arc {
    uint32_t to, next; /* next: of the same state; arc 0 is none */
    uint32_t rule;     /* of a call */
    enum { LK__GRAMMAR_ARC_FREE, LK__GRAMMAR_ARC_BYTES, LK__GRAMMAR_ARC_CALL } kind;
    uint8_t first, last;
};
struct lk__grammar_nfa {
    struct lk__grammar_build *build;
    const uint8_t *flags;
    const uint32_t *sizes;
    struct lk__grammar_array arcs, states; /* states: the first arc of each */
    uint32_t start, end;
};
/* Empties n and fills it with a rule; the arrays are kept for the next. The rule must be productive. */
int lk__grammar_nfa_make(struct lk__grammar_nfa *, uint32_t rule);
void lk__grammar_nfa_release(struct lk__grammar_nfa *);

static inline const struct lk__grammar_arc *lk__grammar_arc(const struct lk__grammar_nfa *n, uint32_t i) {
    return (const struct lk__grammar_arc *)n->arcs.data + i;
}
static inline uint32_t lk__grammar_arcs_of(const struct lk__grammar_nfa *n, uint32_t state) {
    return ((const uint32_t *)n->states.data)[state];
}

#endif
