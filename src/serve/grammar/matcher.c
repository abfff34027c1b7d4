/* One text's way through a grammar, token by token, and back. */
#include "lockstep/base/mem.h"
#include "serve/grammar/automaton.h"
#include <string.h>

#define HISTORY (2 * LK_MATCHER_UNDO)

struct lk_matcher {
    struct lk_grammar *grammar;
    const struct lk_vocabulary *vocabulary;
    struct lk__grammar_masks *masks;
    struct lk__grammar_stack stack;
    /* Places after the newest tokens: history[count - 1] is where the text is. Their items lie behind one another. */
    struct lk__grammar_place history[HISTORY + 1];
    uint32_t count;
    bool ended;                       /* by an end token */
    const char *stuck;                /* why the grammar was given up; NULL: it was not */
    struct lk__grammar_place *places; /* of walks */
};

static const struct lk__grammar_place *here(const struct lk_matcher *m) {
    return &m->history[m->count - 1];
}

static int give_up(struct lk_matcher *m, const char *why, struct lk_err *err) {
    m->stuck = why;
    return lk_fail(err, LK_EUNSUPPORTED, "%s", why);
}
static int fail(struct lk_matcher *m, struct lk_err *err) {
    m->stack.failed = false;
    if (m->stack.work > LK__GRAMMAR_WORK_MOST)
        return give_up(m,
                       "the grammar is too ambiguous: there are too many ways to read the text so far; let fewer of its "
                       "alternatives match the same text",
                       err);
    return lk_fail(err, LK_ENOMEM, "no memory to follow a grammar");
}
const char *lk_matcher_stuck(const struct lk_matcher *m) {
    return m->stuck;
}

static int open(struct lk_grammar *g, const struct lk_vocabulary *v, struct lk_matcher **out) {
    struct lk_matcher *m = *out = lk_calloc(1, sizeof *m);
    if (!m) return LK_ENOMEM;
    m->grammar = g;
    m->vocabulary = v;
    m->masks = lk__grammar_masks_of(g, v);
    m->places = lk_alloc(((size_t)v->depth_most + 2) * sizeof *m->places);
    return lk__grammar_stack_init(&m->stack, g) || !m->masks || !m->places ? LK_ENOMEM : LK_OK;
}

int lk_matcher_create(struct lk_grammar *g, const struct lk_vocabulary *v, struct lk_matcher **out, struct lk_err *err) {
    int code = open(g, v, out);
    if (code) lk_fail(err, LK_ENOMEM, "no memory to follow a grammar");
    if (!code && !lk__grammar_stack_start(&(*out)->stack, &(*out)->history[0]) && (*out)->stack.failed)
        code = fail(*out, err);
    if (!code) {
        (*out)->count = 1;
        return LK_OK;
    }
    lk_matcher_free(*out);
    *out = NULL;
    return code;
}
void lk_matcher_free(struct lk_matcher *m) {
    if (!m) return;
    lk__grammar_stack_release(&m->stack);
    lk_free(m->places);
    lk_free(m);
}

/* --- forgetting ------------------------------------------------------------------------------------------------- */

struct maps {
    uint32_t *nodes, *links, *waiting; /* of each old one: 1 + where it goes; 0: nobody needs it */
};

/* Marks what the items from `first` on can return to. */
static void mark(const struct lk__grammar_stack *s, uint32_t first, struct maps *maps) {
    uint32_t waiting = 0;
    for (uint32_t i = first; i < s->item_count; i++)
        if (!maps->nodes[s->items[i].node]++)
            maps->waiting[waiting++] = s->items[i].node;
        else
            maps->nodes[s->items[i].node] = 1;
    while (waiting) {
        uint32_t node = maps->waiting[--waiting];
        for (uint32_t i = s->nodes[node].links; i != LK__GRAMMAR_NONE; i = s->links[i].next) {
            maps->links[i] = 1;
            if (maps->nodes[s->links[i].node]) continue;
            maps->nodes[s->links[i].node] = 1;
            maps->waiting[waiting++] = s->links[i].node;
        }
    }
}

/* Turns marks into numbers, in the old order; returns how many of the first `count` are needed. */
static uint32_t number(uint32_t *map, uint32_t from, uint32_t to, uint32_t used) {
    for (; from < to; from++)
        if (map[from]) map[from] = ++used;
    return used;
}

static void move(struct lk__grammar_stack *s, const struct maps *maps, uint32_t first) {
    for (uint32_t i = 0; i < s->link_count; i++) {
        struct lk__grammar_link l = s->links[i];
        if (!maps->links[i]) continue;
        if (l.next != LK__GRAMMAR_NONE) l.next = maps->links[l.next] - 1;
        l.node = maps->nodes[l.node] - 1;
        s->links[maps->links[i] - 1] = l;
    }
    for (uint32_t i = 0; i < s->node_count; i++) {
        struct lk__grammar_node n = s->nodes[i];
        if (!maps->nodes[i]) continue;
        if (n.links != LK__GRAMMAR_NONE) n.links = maps->links[n.links] - 1;
        s->nodes[maps->nodes[i] - 1] = n;
    }
    for (uint32_t i = first; i < s->item_count; i++)
        s->items[i - first] = (struct lk__grammar_item){s->items[i].state, maps->nodes[s->items[i].node] - 1};
}

/* Drops the oldest places, and what only they need of the stack. Without memory for that all stays as it is, but for the
 * places. */
static void forget(struct lk_matcher *m, uint32_t places) {
    struct lk__grammar_stack *s = &m->stack;
    struct maps maps = {lk_calloc(s->node_count, sizeof(uint32_t)), lk_calloc(s->link_count + 1, sizeof(uint32_t)),
                        lk_alloc(s->node_count * sizeof(uint32_t))};
    m->count -= places;
    memmove(m->history, m->history + places, m->count * sizeof *m->history);
    if (maps.nodes && maps.links && maps.waiting) {
        uint32_t first = m->history[0].first, nodes = 0, links = 0, node = 0, link = 0;
        mark(s, first, &maps);
        for (uint32_t i = 0; i < m->count; i++) {
            struct lk__grammar_place *p = &m->history[i];
            nodes = number(maps.nodes, node, p->nodes, nodes), node = p->nodes, p->nodes = nodes;
            links = number(maps.links, link, p->links, links), link = p->links, p->links = links;
            p->first -= first, p->items -= first;
        }
        move(s, &maps, first);
        s->item_count -= first, s->node_count = nodes, s->link_count = links;
    }
    lk_free(maps.nodes);
    lk_free(maps.links);
    lk_free(maps.waiting);
}

/* What walks and failing calls have left behind. */
static void truncate(struct lk_matcher *m) {
    m->stack.item_count = here(m)->items;
    m->stack.node_count = here(m)->nodes;
    m->stack.link_count = here(m)->links;
}

/* --- calls ------------------------------------------------------------------------------------------------------ */

int lk_matcher_copy(const struct lk_matcher *from, struct lk_matcher **out, struct lk_err *err) {
    struct lk__grammar_stack *s;
    int code = open(from->grammar, from->vocabulary, out);
    if (!code) {
        struct lk_matcher *m = *out;
        const struct lk__grammar_place *p = here(from);
        s = &m->stack;
        s->item_room = p->items, s->node_room = p->nodes, s->link_room = p->links;
        s->items = lk_alloc(p->items * sizeof *s->items);
        s->nodes = lk_alloc(p->nodes * sizeof *s->nodes);
        s->links = lk_alloc(p->links * sizeof *s->links);
        code = s->items && s->nodes && s->links ? LK_OK : LK_ENOMEM;
        if (!code) {
            if (p->items) memcpy(s->items, from->stack.items, p->items * sizeof *s->items);
            memcpy(s->nodes, from->stack.nodes, p->nodes * sizeof *s->nodes);
            memcpy(s->links, from->stack.links, p->links * sizeof *s->links);
            m->history[0] = *p;
            m->count = 1;
            m->ended = from->ended;
            truncate(m);
            return LK_OK;
        }
    }
    lk_matcher_free(*out);
    *out = NULL;
    return lk_fail(err, LK_ENOMEM, "no memory to follow a grammar");
}

int lk_matcher_mask(struct lk_matcher *m, uint64_t *bits, struct lk_err *err) {
    const struct lk_vocabulary *v = m->vocabulary;
    size_t words = lk_vocabulary_words(v);
    memset(bits, 0, words * sizeof *bits);
    if (m->ended) return LK_OK;
    m->stack.work = 0;
    bool done = lk__grammar_mask(m->masks, v, &m->stack, here(m), m->places, bits);
    truncate(m);
    if (!done) return fail(m, err);
    if (here(m)->complete) {
        for (size_t i = 0; i < words; i++) bits[i] |= v->ends[i];
        return LK_OK;
    }
    for (size_t i = 0; i < words; i++)
        if (bits[i]) return LK_OK;
    return give_up(m,
                   "the tokenizer has no token for the bytes that the grammar wants next: use a grammar of characters "
                   "that its tokens have",
                   err);
}

static int refuse(const struct lk_matcher *m, uint32_t id, struct lk_err *err) {
    const char *why = m->ended ? "the text has ended" : "the grammar does not allow it here";
    return lk_fail(err, LK_EINVAL, "token %u may not come: %s", id, why);
}

int lk_matcher_accept(struct lk_matcher *m, uint32_t id, struct lk_err *err) {
    const struct lk_vocabulary *v = m->vocabulary;
    if (m->ended || id >= v->tokens) return refuse(m, id, err);
    if (m->count == HISTORY + 1) forget(m, LK_MATCHER_UNDO);
    struct lk__grammar_place place = *here(m), next;
    if (v->ends[id / 64] >> id % 64 & 1) {
        if (!place.complete) return refuse(m, id, err);
        m->ended = true;
        next = place;
        next.first = next.items; /* nothing comes any more, yet the way back stays */
        next.count = 0;
        m->history[m->count++] = next;
        return LK_OK;
    }
    m->stack.work = 0;
    bool fits = v->offsets[id] != v->offsets[id + 1];
    for (uint32_t i = v->offsets[id]; i < v->offsets[id + 1] && fits; i++) {
        fits = lk__grammar_stack_step(&m->stack, &place, v->bytes[i], &next);
        place = next;
    }
    if (!fits) {
        bool failed = m->stack.failed;
        truncate(m);
        return failed ? fail(m, err) : refuse(m, id, err);
    }
    uint32_t first = here(m)->items; /* over the items of the bytes between */
    if (place.count) memmove(m->stack.items + first, m->stack.items + place.first, place.count * sizeof *m->stack.items);
    place.first = first;
    place.items = first + place.count;
    m->history[m->count++] = place;
    truncate(m);
    return LK_OK;
}

uint32_t lk_matcher_undo(const struct lk_matcher *m) {
    return m->count - 1;
}
int lk_matcher_rollback(struct lk_matcher *m, uint32_t tokens, struct lk_err *err) {
    if (tokens >= m->count)
        return lk_fail(err, LK_EINVAL, "%u tokens can't be taken back, only the last %u", tokens, m->count - 1);
    m->count -= tokens;
    if (tokens) m->ended = false;
    truncate(m);
    return LK_OK;
}
bool lk_matcher_complete(const struct lk_matcher *m) {
    return here(m)->complete;
}
bool lk_matcher_done(const struct lk_matcher *m) {
    return m->ended || (here(m)->complete && !here(m)->count);
}
