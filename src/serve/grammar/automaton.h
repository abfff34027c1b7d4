/* A compiled grammar: a deterministic automaton of each rule over bytes and calls of rules, and the masks that are known.
 */
#ifndef LOCKSTEP_SERVE_GRAMMAR_AUTOMATON_H
#define LOCKSTEP_SERVE_GRAMMAR_AUTOMATON_H
#include "lockstep/serve/grammar.h"
#include <pthread.h>
#include <stdatomic.h>

#define LK__GRAMMAR_NONE UINT32_MAX

struct lk__grammar_edge {
    uint8_t first, last; /* bytes */
    uint32_t to;
};
struct lk__grammar_jump {
    uint32_t rule, to; /* the state after it */
};
struct lk__grammar_state {
    uint32_t edges, jumps; /* where its own begin */
    uint32_t jump_count;
    uint16_t edge_count;
    bool accepts, last; /* last: accepts and goes nowhere */
};

struct lk__grammar_masks; /* of one vocabulary: masks.c */

struct lk_grammar {
    struct lk__grammar_state *states;
    struct lk__grammar_edge *edges; /* of a state: disjoint, ascending */
    struct lk__grammar_jump *jumps;
    uint32_t *starts; /* of each rule, or LK__GRAMMAR_NONE: no jump goes there */
    uint32_t state_count, edge_count, jump_count, rule_count;
    uint32_t root;        /* the rule */
    bool empty;           /* the empty text is one of the grammar */
    pthread_mutex_t lock; /* of the list */
    struct lk__grammar_masks *masks;
};

/* The edge of a byte, or LK__GRAMMAR_NONE. */
static inline uint32_t lk__grammar_next(const struct lk_grammar *g, uint32_t state, uint8_t byte) {
    const struct lk__grammar_state *s = &g->states[state];
    const struct lk__grammar_edge *e = g->edges + s->edges;
    uint32_t n = s->edge_count;
    while (n > 4) { /* the last half whose first byte is not above */
        uint32_t half = n / 2;
        if (e[half].first <= byte)
            e += half, n -= half;
        else
            n = half;
    }
    for (; n; n--, e++)
        if (byte <= e->last) return byte >= e->first ? e->to : LK__GRAMMAR_NONE;
    return LK__GRAMMAR_NONE;
}

/* --- the trie of a vocabulary, in preorder ------------------------------------------------------------------ */

struct lk__grammar_trie_node {
    uint32_t size;  /* nodes of the subtree, this one included */
    uint32_t token; /* the first one that ends here, or LK__GRAMMAR_NONE */
    uint16_t depth; /* bytes from the root, node 0 */
    uint8_t byte;
};
struct lk_vocabulary {
    struct lk__grammar_trie_node *nodes;
    uint32_t node_count, tokens, depth_most;
    uint32_t *same;    /* of each token: the next one with the same bytes, or LK__GRAMMAR_NONE */
    uint64_t *ends;    /* a mask of end tokens */
    uint32_t *offsets; /* of each token's bytes; none: it is no part of a text */
    uint8_t *bytes;
    uint64_t serial; /* no other vocabulary of this process has it */
};

/* --- stacks: stack.c ------------------------------------------------------------------------------------------ */

struct lk__grammar_item {
    uint32_t state, node; /* a state of a rule that began at node */
};
struct lk__grammar_node {
    uint32_t links, rule; /* where it returns to */
};
struct lk__grammar_link {
    uint32_t state, node, next; /* state LK__GRAMMAR_NONE: the text is complete */
};
/* Of one call of a matcher, some 0.1 s. A walk over a whole vocabulary in a grammar of no great ambiguity takes less than a
 * tenth of it. */
#define LK__GRAMMAR_WORK_MOST ((uint64_t)1 << 24)

/* All stacks of a text so far, shared where they are equal. Nodes and links are only added, by the newest place; what
 * is older never changes. */
struct lk__grammar_stack {
    const struct lk_grammar *grammar;
    struct lk__grammar_item *items;
    struct lk__grammar_node *nodes;
    struct lk__grammar_link *links;
    uint32_t item_count, node_count, link_count, item_room, node_room, link_room;
    uint32_t *node_of, *item_of; /* of each rule and state: where the newest one may be */
    uint64_t work;               /* since the caller set it to 0: items and links looked at */
    bool failed;                 /* there was no memory, or work is more than LK__GRAMMAR_WORK_MOST */
};
/* Where a text can go on: items with edges, and how much of the stack they need. */
struct lk__grammar_place {
    uint32_t first, count;
    uint32_t items, nodes, links; /* counts of the stack behind this place */
    bool complete;
};

int lk__grammar_stack_init(struct lk__grammar_stack *, const struct lk_grammar *);
void lk__grammar_stack_release(struct lk__grammar_stack *);
/* The begin of a text. */
bool lk__grammar_stack_start(struct lk__grammar_stack *, struct lk__grammar_place *);
/* From a place over one byte; false: the byte can't come, or `failed`. Everything in the stack behind `from` is dropped. */
bool lk__grammar_stack_step(struct lk__grammar_stack *, const struct lk__grammar_place *from, uint8_t byte,
                            struct lk__grammar_place *to);
/* Where the text goes on when the rule of a node has just ended. Adds to the stack's end. */
bool lk__grammar_stack_return(struct lk__grammar_stack *, uint32_t node, struct lk__grammar_place *to);
/* A place at which only `state` is, and below it nothing that is known: `complete` then says that the rule may end. Adds to
 * the stack's end. */
bool lk__grammar_stack_alone(struct lk__grammar_stack *, uint32_t state, struct lk__grammar_place *to);

/* classes.c: alike_to: of each state, the first one that shares its mask where no token has more bytes. False: no memory.
 */
bool lk__grammar_classes(const struct lk_grammar *, uint32_t bytes, uint32_t *alike_to);

/* --- masks.c -------------------------------------------------------------------------------------------------- */

/* The masks of this grammar for a vocabulary, made at the first call; NULL: no memory. They live as long as the grammar. */
struct lk__grammar_masks *lk__grammar_masks_of(struct lk_grammar *, const struct lk_vocabulary *);
void lk__grammar_masks_free(struct lk__grammar_masks *);
size_t lk__grammar_masks_bytes(const struct lk__grammar_masks *); /* of all vocabularies; with the lock */
/* Adds the tokens that may come at a place; false: no memory. */
bool lk__grammar_mask(struct lk__grammar_masks *, const struct lk_vocabulary *, struct lk__grammar_stack *,
                      const struct lk__grammar_place *, struct lk__grammar_place *places, uint64_t *bits);

#endif
