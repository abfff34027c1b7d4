/* From rules to automata: the subsets of each rule's non-deterministic states (Rabin and Scott 1959), over bytes and over
 * calls of other rules. */
#include "serve/grammar/automaton.h"
#include "serve/grammar/nfa.h"
#include <stdlib.h>
#include <string.h>

#define STATES_MOST ((uint32_t)1 << 18)
#define WORK_MOST   ((uint64_t)1 << 27) /* arcs looked at, some seconds at the very most */

struct compiler {
    struct lk__grammar_build *b;
    struct lk__grammar_nfa nfa;
    uint8_t *flags;
    uint32_t *sizes, *starts, *waiting; /* waiting: rules to be made, in the order of their first call */
    uint32_t waiting_count;
    struct lk__grammar_array states, edges, jumps;
    /* of the rule that is made: subset i is members[subsets[i] .. subsets[i + 1]) and becomes state first + i */
    struct lk__grammar_array members, subsets;
    uint32_t first;
    uint32_t *table, table_size;  /* of subsets by what they hold: state + 1 */
    uint32_t *seen, *stack, *set; /* (states of the nfa) */
    uint32_t seen_room, stamp, set_count;
    struct lk__grammar_array arcs; /* those of the subset at hand */
    uint64_t work;
};

static int no_memory(struct compiler *c) {
    return lk__grammar_fail(c->b, LK_ENOMEM, "no memory for a grammar");
}
static int too_large(struct compiler *c) {
    return lk__grammar_fail(c->b, LK_EINVAL,
                            "the grammar is too large: it grows beyond %u states; use smaller numbers of repetition and "
                            "fewer overlapping alternatives",
                            STATES_MOST);
}

/* --- subsets ----------------------------------------------------------------------------------------------- */

static void begin_set(struct compiler *c) {
    c->set_count = 0;
    if (++c->stamp == 0) { /* never in practice: there is not so much work */
        memset(c->seen, 0, c->seen_room * sizeof *c->seen);
        c->stamp = 1;
    }
}
/* A state and all that free arcs reach; kept are those that something leaves, and the end. */
static void add_closure(struct compiler *c, uint32_t state) {
    uint32_t depth = 0;
    if (c->seen[state] == c->stamp) return;
    c->seen[state] = c->stamp;
    c->stack[depth++] = state;
    while (depth) {
        uint32_t s = c->stack[--depth];
        bool keep = s == c->nfa.end;
        for (uint32_t i = lk__grammar_arcs_of(&c->nfa, s); i; i = lk__grammar_arc(&c->nfa, i)->next) {
            const struct lk__grammar_arc *a = lk__grammar_arc(&c->nfa, i);
            c->work++;
            keep |= a->kind != LK__GRAMMAR_ARC_FREE;
            if (a->kind != LK__GRAMMAR_ARC_FREE || c->seen[a->to] == c->stamp) continue;
            c->seen[a->to] = c->stamp;
            c->stack[depth++] = a->to;
        }
        if (keep) c->set[c->set_count++] = s;
    }
}

static int ascending(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}
static const uint32_t *subset(const struct compiler *c, uint32_t i, uint32_t *count) {
    const uint32_t *at = (const uint32_t *)c->subsets.data + i;
    *count = at[1] - at[0];
    return (const uint32_t *)c->members.data + at[0];
}
static uint32_t hash(const uint32_t *set, uint32_t count) {
    uint64_t h = 0x9E3779B97F4A7C15u ^ count;
    for (uint32_t i = 0; i < count; i++) h = (h ^ set[i]) * 0x100000001B3u, h ^= h >> 29;
    return (uint32_t)(h ^ h >> 32);
}
static int grow_table(struct compiler *c, uint32_t count) {
    if (c->table && 2 * count < c->table_size) return LK_OK;
    uint32_t size = c->table_size ? 2 * c->table_size : 256;
    uint32_t *table = lk_calloc(size, sizeof *table);
    if (!table) return no_memory(c);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t n;
        const uint32_t *set = subset(c, i, &n);
        uint32_t at = hash(set, n) & (size - 1);
        while (table[at]) at = (at + 1) & (size - 1);
        table[at] = i + 1;
    }
    lk_free(c->table);
    c->table = table;
    c->table_size = size;
    return LK_OK;
}

/* The state of c->set, a new one if it has none. */
static uint32_t state_of_set(struct compiler *c) {
    uint32_t count = (uint32_t)c->subsets.count - 1, n;
    if (c->b->code || grow_table(c, count)) return 0;
    qsort(c->set, c->set_count, sizeof *c->set, ascending);
    c->work += c->set_count;
    uint32_t at = hash(c->set, c->set_count) & (c->table_size - 1);
    for (; c->table[at]; at = (at + 1) & (c->table_size - 1)) {
        const uint32_t *other = subset(c, c->table[at] - 1, &n);
        if (n == c->set_count && !memcmp(other, c->set, n * sizeof *other)) return c->first + c->table[at] - 1;
    }
    uint32_t *members = lk__grammar_room(&c->members, c->set_count + 1, sizeof *members);
    uint32_t *end = lk__grammar_room(&c->subsets, 1, sizeof *end);
    struct lk__grammar_state *state = lk__grammar_room(&c->states, 1, sizeof *state);
    if (!members || !end || !state) return no_memory(c), 0;
    memcpy(members, c->set, c->set_count * sizeof *members);
    c->members.count += c->set_count;
    *end = (uint32_t)c->members.count;
    c->subsets.count++;
    *state = (struct lk__grammar_state){0};
    c->states.count++;
    c->table[at] = count + 1;
    if (c->states.count > STATES_MOST || c->work > WORK_MOST || c->members.count > UINT32_MAX / 2) return too_large(c), 0;
    return c->first + count;
}

/* --- what leaves a subset ---------------------------------------------------------------------------------- */

static void add_edge(struct compiler *c, uint8_t first, uint8_t last, uint32_t to, uint32_t from) {
    struct lk__grammar_edge *e = lk__grammar_room(&c->edges, 1, sizeof *e);
    if (!e) {
        no_memory(c);
        return;
    }
    if (c->edges.count > from && e[-1].to == to && e[-1].last + 1 == first) {
        e[-1].last = last;
        return;
    }
    *e = (struct lk__grammar_edge){first, last, to};
    c->edges.count++;
}

/* Between two bytes at which an arc begins or ends all bytes lead to the same subset. */
static void make_edges(struct compiler *c, uint32_t from) {
    const struct lk__grammar_arc *arcs = c->arcs.data;
    bool cut[257] = {false};
    for (size_t i = 0; i < c->arcs.count; i++)
        if (arcs[i].kind == LK__GRAMMAR_ARC_BYTES) cut[arcs[i].first] = cut[arcs[i].last + 1] = true;
    for (uint32_t first = 0, last; first < 256 && !c->b->code; first = last + 1) {
        for (last = first; last < 255 && !cut[last + 1];) last++;
        begin_set(c);
        for (size_t i = 0; i < c->arcs.count; i++)
            if (arcs[i].kind == LK__GRAMMAR_ARC_BYTES && arcs[i].first <= first && arcs[i].last >= last)
                add_closure(c, arcs[i].to);
        c->work += c->arcs.count;
        if (c->set_count) add_edge(c, (uint8_t)first, (uint8_t)last, state_of_set(c), from);
    }
}

static void want_rule(struct compiler *c, uint32_t rule) {
    if (c->starts[rule] != LK__GRAMMAR_NONE) return;
    c->starts[rule] = 0; /* not known yet */
    c->waiting[c->waiting_count++] = rule;
}

static int by_rule(const void *a, const void *b) {
    const struct lk__grammar_arc *x = a, *y = b;
    if (x->rule != y->rule) return x->rule < y->rule ? -1 : 1;
    return (x->to > y->to) - (x->to < y->to);
}
static void make_jumps(struct compiler *c) {
    struct lk__grammar_arc *arcs = c->arcs.data;
    size_t n = 0;
    for (size_t i = 0; i < c->arcs.count; i++)
        if (arcs[i].kind == LK__GRAMMAR_ARC_CALL) arcs[n++] = arcs[i];
    if (n) qsort(arcs, n, sizeof *arcs, by_rule);
    for (size_t i = 0; i < n && !c->b->code;) {
        uint32_t rule = arcs[i].rule;
        begin_set(c);
        for (; i < n && arcs[i].rule == rule; i++) add_closure(c, arcs[i].to);
        uint32_t to = state_of_set(c);
        struct lk__grammar_jump *jump = lk__grammar_room(&c->jumps, 1, sizeof *jump);
        if (!jump) {
            no_memory(c);
            return;
        }
        *jump = (struct lk__grammar_jump){rule, to};
        c->jumps.count++;
        want_rule(c, rule);
    }
}

static int make_state(struct compiler *c, uint32_t index) {
    uint32_t count;
    const uint32_t *set = subset(c, index, &count);
    struct lk__grammar_state s = {.edges = (uint32_t)c->edges.count, .jumps = (uint32_t)c->jumps.count};
    c->arcs.count = 0;
    for (uint32_t m = 0; m < count; m++) {
        s.accepts |= set[m] == c->nfa.end;
        for (uint32_t i = lk__grammar_arcs_of(&c->nfa, set[m]); i; i = lk__grammar_arc(&c->nfa, i)->next) {
            if (lk__grammar_arc(&c->nfa, i)->kind == LK__GRAMMAR_ARC_FREE) continue;
            struct lk__grammar_arc *room = lk__grammar_room(&c->arcs, 1, sizeof *room);
            if (!room) return no_memory(c);
            *room = *lk__grammar_arc(&c->nfa, i);
            c->arcs.count++;
        }
    }
    make_edges(c, s.edges);
    make_jumps(c);
    s.edge_count = (uint16_t)(c->edges.count - s.edges);
    s.jump_count = (uint32_t)(c->jumps.count - s.jumps);
    s.last = s.accepts && !s.edge_count && !s.jump_count;
    if (!c->b->code) ((struct lk__grammar_state *)c->states.data)[c->first + index] = s;
    return c->b->code;
}

static int make_rule(struct compiler *c, uint32_t rule) {
    int code = lk__grammar_nfa_make(&c->nfa, rule);
    if (code) return code;
    if (c->nfa.states.count > c->seen_room) {
        lk_free(c->seen), lk_free(c->stack), lk_free(c->set);
        c->seen_room = (uint32_t)c->nfa.states.capacity;
        c->seen = lk_calloc(c->seen_room, sizeof *c->seen);
        c->stack = lk_alloc(c->seen_room * sizeof *c->stack);
        c->set = lk_alloc(c->seen_room * sizeof *c->set);
        if (!c->seen || !c->stack || !c->set) return no_memory(c);
        c->stamp = 0;
    }
    c->members.count = c->subsets.count = 0;
    if (c->table) memset(c->table, 0, c->table_size * sizeof *c->table);
    uint32_t *zero = lk__grammar_room(&c->subsets, 1, sizeof *zero);
    if (!zero) return no_memory(c);
    *zero = 0;
    c->subsets.count = 1;
    c->first = (uint32_t)c->states.count;
    c->starts[rule] = c->first;
    begin_set(c);
    add_closure(c, c->nfa.start);
    state_of_set(c);
    for (uint32_t i = 0; !c->b->code && i + 1 < c->subsets.count; i++) make_state(c, i);
    if (c->table_size > 1 << 16) { /* one large rule does not make each later one clear its table */
        lk_free(c->table);
        c->table = NULL;
        c->table_size = 0;
    }
    return c->b->code;
}

/* --- the whole --------------------------------------------------------------------------------------------- */

static int finish(struct compiler *c, uint32_t root, struct lk_grammar **out) {
    struct lk_grammar *g = lk_calloc(1, sizeof *g);
    if (!g) return no_memory(c);
    *g = (struct lk_grammar){.states = c->states.data,
                             .edges = c->edges.data,
                             .jumps = c->jumps.data,
                             .starts = c->starts,
                             .state_count = (uint32_t)c->states.count,
                             .edge_count = (uint32_t)c->edges.count,
                             .jump_count = (uint32_t)c->jumps.count,
                             .rule_count = (uint32_t)c->b->rules.count,
                             .root = root,
                             .empty = c->flags[root] & LK__GRAMMAR_NULLABLE};
    pthread_mutex_init(&g->lock, NULL);
    c->states.data = c->edges.data = c->jumps.data = NULL;
    c->starts = NULL;
    *out = g;
    return LK_OK;
}

int lk__grammar_compile(struct lk__grammar_build *b, uint32_t root, struct lk_grammar **out) {
    struct compiler c = {.b = b};
    size_t rules = b->rules.count;
    *out = NULL;
    if (b->code) return b->code;
    c.flags = lk_calloc(rules, 1);
    c.sizes = lk_calloc(rules, sizeof *c.sizes);
    c.starts = lk_alloc(rules * sizeof *c.starts);
    c.waiting = lk_calloc(rules, sizeof *c.waiting);
    if (!c.flags || !c.sizes || !c.starts || !c.waiting)
        no_memory(&c);
    else
        lk__grammar_analyse(b, c.flags, c.sizes);
    if (!b->code && !(c.flags[root] & LK__GRAMMAR_PRODUCTIVE))
        lk__grammar_fail(b, LK_EINVAL,
                         "the grammar has no text: its rules never come to an end; give one of them an "
                         "alternative without itself");
    c.nfa = (struct lk__grammar_nfa){.build = b, .flags = c.flags, .sizes = c.sizes};
    if (!b->code) {
        memset(c.starts, 0xFF, rules * sizeof *c.starts);
        want_rule(&c, root);
    }
    for (uint32_t i = 0; i < c.waiting_count && !b->code; i++) make_rule(&c, c.waiting[i]);
    if (!b->code) finish(&c, root, out);
    lk__grammar_nfa_release(&c.nfa);
    void *all[] = {c.flags,        c.sizes,        c.starts, c.waiting, c.states.data, c.edges.data, c.jumps.data,
                   c.members.data, c.subsets.data, c.table,  c.seen,    c.stack,       c.set,        c.arcs.data};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) lk_free(all[i]);
    return b->code;
}

size_t lk_grammar_bytes(struct lk_grammar *g) {
    pthread_mutex_lock(&g->lock);
    size_t bytes = lk__grammar_masks_bytes(g->masks);
    pthread_mutex_unlock(&g->lock);
    return bytes + sizeof *g + g->state_count * sizeof *g->states + g->edge_count * sizeof *g->edges +
           g->jump_count * sizeof *g->jumps + g->rule_count * sizeof *g->starts;
}

void lk_grammar_free(struct lk_grammar *g) {
    if (!g) return;
    lk__grammar_masks_free(g->masks);
    pthread_mutex_destroy(&g->lock);
    lk_free(g->states);
    lk_free(g->edges);
    lk_free(g->jumps);
    lk_free(g->starts);
    lk_free(g);
}
