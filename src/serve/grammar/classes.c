/* States that no token can tell apart share a mask: those that agree on all that may come for as many bytes as the longest
 * token has. Moore's refinement (1956), which looks only at states whose successors have just been told apart: of a string
 * of at most 1,000 characters nearly all states are one class. */
#include "lockstep/base/mem.h"
#include "serve/grammar/automaton.h"
#include <string.h>

struct refinement {
    const struct lk_grammar *g;
    uint32_t *class;                /* of each state */
    uint32_t *at, *before;          /* who leads to state s: before[at[s] .. at[s + 1]) */
    uint32_t *list, *next;          /* states to look at, in this round and in the next */
    uint32_t *group;                /* of each of the list: the first one that looks like it */
    uint32_t *members;              /* of each group, at its first */
    uint32_t *size, *hit, *best;    /* of each class: states, those in the list, its largest group + 1 */
    uint8_t *listed;                /* in `next` */
    uint32_t *table, mask, classes; /* table: a state of list + 1 by signature */
};

static void *array(size_t count) {
    return lk_calloc(count + 1, sizeof(uint32_t));
}

static void find_before(struct refinement *r) {
    const struct lk_grammar *g = r->g;
    for (uint32_t i = 0; i < g->edge_count; i++) r->at[g->edges[i].to + 1]++;
    for (uint32_t i = 0; i < g->jump_count; i++) r->at[g->jumps[i].to + 1]++;
    for (uint32_t s = 0; s < g->state_count; s++) r->at[s + 1] += r->at[s];
    memcpy(r->next, r->at, g->state_count * sizeof *r->next); /* where the next one goes */
    for (uint32_t s = 0; s < g->state_count; s++) {
        const struct lk__grammar_state *state = &g->states[s];
        for (uint32_t i = 0; i < state->edge_count; i++) r->before[r->next[g->edges[state->edges + i].to]++] = s;
        for (uint32_t i = 0; i < state->jump_count; i++) r->before[r->next[g->jumps[state->jumps + i].to]++] = s;
    }
}

static uint64_t mix(uint64_t h, uint64_t x) {
    h = (h ^ x) * 0x9E3779B97F4A7C15u;
    return h ^ h >> 32;
}
static uint64_t signature(const struct refinement *r, uint32_t s) {
    const struct lk_grammar *g = r->g;
    const struct lk__grammar_state *state = &g->states[s];
    uint64_t h = mix(state->accepts, r->class[s]);
    for (uint32_t i = state->edges; i < state->edges + state->edge_count; i++)
        h = mix(h, (uint64_t)r->class[g->edges[i].to] << 16 | g->edges[i].first << 8 | g->edges[i].last);
    for (uint32_t i = state->jumps; i < state->jumps + state->jump_count; i++)
        h = mix(h, (uint64_t)r->class[g->jumps[i].to] << 32 | g->jumps[i].rule);
    return h;
}
static bool alike(const struct refinement *r, uint32_t a, uint32_t b) {
    const struct lk_grammar *g = r->g;
    const struct lk__grammar_state *x = &g->states[a], *y = &g->states[b];
    if (r->class[a] != r->class[b] || x->accepts != y->accepts || x->edge_count != y->edge_count ||
        x->jump_count != y->jump_count)
        return false;
    for (uint32_t i = 0; i < x->edge_count; i++) {
        const struct lk__grammar_edge *e = &g->edges[x->edges + i], *f = &g->edges[y->edges + i];
        if (e->first != f->first || e->last != f->last || r->class[e->to] != r->class[f->to]) return false;
    }
    for (uint32_t i = 0; i < x->jump_count; i++) {
        const struct lk__grammar_jump *e = &g->jumps[x->jumps + i], *f = &g->jumps[y->jumps + i];
        if (e->rule != f->rule || r->class[e->to] != r->class[f->to]) return false;
    }
    return true;
}

/* Groups of those in the list that look alike. */
static void group(struct refinement *r, uint32_t count) {
    memset(r->table, 0, ((size_t)r->mask + 1) * sizeof *r->table);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = (uint32_t)signature(r, r->list[i]) & r->mask;
        while (r->table[at] && !alike(r, r->list[r->table[at] - 1], r->list[i])) at = (at + 1) & r->mask;
        if (!r->table[at]) {
            r->table[at] = i + 1;
            r->members[i] = 0;
        }
        r->group[i] = r->table[at] - 1;
        r->members[r->group[i]]++;
        r->hit[r->class[r->list[i]]]++;
    }
}

/* Tells groups of one class apart. The states that are not in the list keep the class, and if there are none the largest
 * group does. Who leads to a state of another class than before is looked at next; returns how many. */
static uint32_t split(struct refinement *r, uint32_t count) {
    uint32_t more = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t class = r->class[r->list[i]], best = r->best[class];
        if (r->group[i] == i && r->hit[class] == r->size[class] && (!best || r->members[i] > r->members[best - 1]))
            r->best[class] = i + 1;
    }
    for (uint32_t i = 0; i < count; i++) { /* members of a group's first: from here on its class */
        uint32_t class = r->class[r->list[i]], first = r->group[i];
        if (first == i) {
            bool stays = r->best[class] == i + 1;
            r->members[i] = stays ? class : r->classes++;
            if (!stays) r->size[r->members[i]] = 0;
        }
        r->next[i] = r->members[first];
    }
    for (uint32_t i = 0; i < count; i++) r->hit[r->class[r->list[i]]] = r->best[r->class[r->list[i]]] = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t s = r->list[i], class = r->next[i];
        r->group[i] = class != r->class[s];
        r->size[r->class[s]]--;
        r->size[class]++;
        r->class[s] = class;
    }
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t j = r->at[r->list[i]]; r->group[i] && j < r->at[r->list[i] + 1]; j++) {
            uint32_t s = r->before[j];
            if (r->listed[s]) continue;
            r->listed[s] = 1;
            r->next[more++] = s;
        }
    for (uint32_t i = 0; i < more; i++) r->listed[r->next[i]] = 0;
    uint32_t *list = r->list;
    r->list = r->next;
    r->next = list;
    return more;
}

/* alike_to: of each state, the first one that shares its mask for tokens of so many bytes. False: no memory. */
bool lk__grammar_classes(const struct lk_grammar *g, uint32_t bytes, uint32_t *alike_to) {
    uint32_t n = g->state_count, slots = 64, listed = n;
    while (slots < 2 * n) slots *= 2;
    struct refinement r = {.g = g, .class = array(n), .at = array(n + 1), .list = array(n), .next = array(n)};
    r.before = array((size_t)g->edge_count + g->jump_count);
    r.group = array(n), r.members = array(n), r.size = array(n), r.hit = array(n), r.best = array(n);
    r.listed = lk_calloc(n + 1, 1);
    r.table = array(slots);
    r.mask = slots - 1;
    void *all[] = {r.class, r.at, r.before, r.list, r.next, r.group, r.members, r.size, r.hit, r.best, r.listed, r.table};
    bool done = true;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) done &= all[i] != NULL;
    if (done) {
        find_before(&r);
        for (uint32_t s = 0; s < n; s++) r.list[s] = s;
        r.size[0] = n;
        r.classes = 1;
        for (uint32_t i = 0; i <= bytes && listed; i++) {
            group(&r, listed);
            listed = split(&r, listed);
        }
        memset(r.best, 0, n * sizeof *r.best); /* of a class: its first state + 1 */
        for (uint32_t s = 0; s < n; s++) {
            if (!r.best[r.class[s]]) r.best[r.class[s]] = s + 1;
            alike_to[s] = r.best[r.class[s]] - 1;
        }
    }
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) lk_free(all[i]);
    return done;
}
