/* Which tokens may come. A mask is the union over the items of a place. What an item allows inside its own rule depends on
 * its state alone, is found by one walk over the trie, and kept: a mask, and the trie's nodes at which the rule may end.
 * From these on the text goes on where the rule was called; that depends on the stack, and is walked each time. */
#include "lockstep/base/mem.h"
#include "serve/grammar/automaton.h"
#include <string.h>

#define KEPT_MOST ((size_t)64 << 20) /* bytes of one grammar's masks for one vocabulary */

struct kept {
    uint64_t *words; /* the mask, or NULL: ids */
    uint32_t *ids, *ends;
    uint32_t id_count, end_count; /* ends: nodes where the rule may end, and go on with more bytes of a token; ascending */
};
struct lk__grammar_masks {
    struct lk__grammar_masks *next;
    uint64_t serial;
    atomic_size_t bytes;
    uint32_t states;
    uint32_t *alike;             /* of each state, whose mask it has */
    _Atomic(struct kept *) of[]; /* each of these; NULL: not known yet */
};

static struct lk__grammar_masks *make(const struct lk_grammar *g, const struct lk_vocabulary *v) {
    struct lk__grammar_masks *m = lk_calloc(1, sizeof *m + g->state_count * sizeof *m->of);
    if (!m) return NULL;
    m->serial = v->serial;
    m->states = g->state_count;
    m->alike = lk_alloc(g->state_count * sizeof *m->alike);
    if (m->alike && lk__grammar_classes(g, v->depth_most, m->alike)) return m;
    lk_free(m->alike);
    lk_free(m);
    return NULL;
}

struct lk__grammar_masks *lk__grammar_masks_of(struct lk_grammar *g, const struct lk_vocabulary *v) {
    pthread_mutex_lock(&g->lock);
    struct lk__grammar_masks *m = g->masks;
    while (m && m->serial != v->serial) m = m->next;
    if (!m && (m = make(g, v))) {
        m->next = g->masks;
        g->masks = m;
    }
    pthread_mutex_unlock(&g->lock);
    return m;
}
void lk__grammar_masks_free(struct lk__grammar_masks *m) {
    while (m) {
        struct lk__grammar_masks *next = m->next;
        for (uint32_t i = 0; i < m->states; i++) lk_free(atomic_load_explicit(&m->of[i], memory_order_relaxed));
        lk_free(m->alike);
        lk_free(m);
        m = next;
    }
}

size_t lk__grammar_masks_bytes(const struct lk__grammar_masks *m) {
    size_t bytes = 0;
    for (; m; m = m->next)
        bytes += atomic_load_explicit(&m->bytes, memory_order_relaxed) + sizeof *m +
                 m->states * (sizeof *m->of + sizeof *m->alike);
    return bytes;
}

static void add_tokens(const struct lk_vocabulary *v, uint32_t token, uint64_t *bits) {
    for (; token != LK__GRAMMAR_NONE; token = v->same[token]) bits[token / 64] |= (uint64_t)1 << token % 64;
}

/* The tokens below a node of the trie, at which the text is at places[0]. ends: unless NULL, gets the nodes at which a
 * place is complete and that are no leaves; *end_count of them, room for all. places: one for each byte of a token. */
static bool walk(const struct lk_vocabulary *v, struct lk__grammar_stack *s, uint32_t node,
                 struct lk__grammar_place *places, uint64_t *bits, uint32_t *ends, uint32_t *end_count) {
    const struct lk__grammar_trie_node *top = &v->nodes[node], *t = top + 1, *end = top + top->size;
    if (!places->count) return true;
    while (t < end) {
        uint32_t depth = (uint32_t)(t->depth - top->depth);
        struct lk__grammar_place *to = &places[depth];
        if (!lk__grammar_stack_step(s, to - 1, t->byte, to)) {
            if (s->failed) return false;
            t += t->size;
            continue;
        }
        if (t->token != LK__GRAMMAR_NONE) add_tokens(v, t->token, bits);
        if (ends && to->complete && t->size > 1) ends[(*end_count)++] = (uint32_t)(t - v->nodes);
        t += to->count ? 1 : t->size;
    }
    return true;
}

/* --- what is kept ------------------------------------------------------------------------------------------ */

static struct kept *pack(const struct lk_vocabulary *v, const uint64_t *bits, const uint32_t *ends, uint32_t end_count,
                         size_t *size) {
    size_t words = lk_vocabulary_words(v), ids = 0, at = 0;
    for (size_t i = 0; i < words; i++) ids += (size_t)__builtin_popcountll(bits[i]);
    bool dense = ids > 2 * words;
    *size = sizeof(struct kept) + (dense ? words * sizeof *bits : ids * sizeof(uint32_t)) + end_count * sizeof *ends;
    struct kept *k = lk_alloc(*size);
    if (!k) return NULL;
    *k = (struct kept){.words = dense ? (uint64_t *)(k + 1) : NULL, .id_count = (uint32_t)ids, .end_count = end_count};
    k->ids = (uint32_t *)(k + 1);
    k->ends = dense ? (uint32_t *)(k->words + words) : k->ids + ids;
    if (dense) memcpy(k->words, bits, words * sizeof *bits);
    for (size_t i = 0; i < words && !dense; i++)
        for (uint64_t w = bits[i]; w; w &= w - 1) k->ids[at++] = (uint32_t)(i * 64 + (size_t)__builtin_ctzll(w));
    if (end_count) memcpy(k->ends, ends, end_count * sizeof *ends);
    return k;
}

/* Walks the whole trie from one state with nothing known below it. NULL: no memory. The caller frees what *own says. */
static const struct kept *find(struct lk__grammar_masks *m, const struct lk_vocabulary *v, struct lk__grammar_stack *s,
                               uint32_t state, struct lk__grammar_place *places, bool *own) {
    struct kept *k = atomic_load_explicit(&m->of[state], memory_order_acquire), *none = NULL;
    *own = false;
    if (k) return k;
    uint32_t items = s->item_count, nodes = s->node_count, links = s->link_count, end_count = 0;
    size_t words = lk_vocabulary_words(v), size;
    uint64_t *bits = lk_calloc(words, sizeof *bits);
    uint32_t *ends = lk_alloc(v->node_count * sizeof *ends);
    if (bits && ends && lk__grammar_stack_alone(s, state, places) && walk(v, s, 0, places, bits, ends, &end_count))
        k = pack(v, bits, ends, end_count, &size);
    s->item_count = items, s->node_count = nodes, s->link_count = links;
    lk_free(bits);
    lk_free(ends);
    if (!k) return NULL;
    *own = atomic_fetch_add_explicit(&m->bytes, size, memory_order_relaxed) + size > KEPT_MOST;
    if (!*own &&
        !atomic_compare_exchange_strong_explicit(&m->of[state], &none, k, memory_order_acq_rel, memory_order_acquire)) {
        lk_free(k); /* another thread was faster */
        k = none;
    }
    if (*own) atomic_fetch_sub_explicit(&m->bytes, size, memory_order_relaxed);
    return k;
}

bool lk__grammar_mask(struct lk__grammar_masks *m, const struct lk_vocabulary *v, struct lk__grammar_stack *s,
                      const struct lk__grammar_place *p, struct lk__grammar_place *places, uint64_t *bits) {
    bool done = true;
    for (uint32_t i = p->first; i < p->first + p->count && done; i++) {
        struct lk__grammar_item item = s->items[i];
        bool own;
        s->item_count = p->items, s->node_count = p->nodes, s->link_count = p->links;
        const struct kept *k = find(m, v, s, m->alike[item.state], places, &own);
        if (!k) return false;
        for (size_t w = 0; k->words && w < lk_vocabulary_words(v); w++) bits[w] |= k->words[w];
        for (uint32_t j = 0; !k->words && j < k->id_count; j++) bits[k->ids[j] / 64] |= (uint64_t)1 << k->ids[j] % 64;
        if (k->end_count && lk__grammar_stack_return(s, item.node, places))
            for (uint32_t j = 0; j < k->end_count && done; j++) done = walk(v, s, k->ends[j], places, bits, NULL, NULL);
        done &= !s->failed;
        if (own) lk_free((struct kept *)(uintptr_t)k);
    }
    return done;
}
