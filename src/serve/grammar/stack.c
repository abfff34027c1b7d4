/* All stacks of an automaton with calls at once, as one graph (Tomita 1985; the nodes are Earley's sets by rule, 1970).
 *
 * A rule that is called at a place of the text is one node there, however many callers it has; a link says where a caller
 * goes on. Calls of a rule match at least one byte (callers step over rules that may be empty by themselves), so nothing
 * returns from a node at the place that made it, and its links are complete before anything does. That is why left
 * recursion needs nothing special, and why what is older than the newest place never changes. */
#include "lockstep/base/mem.h"
#include "serve/grammar/automaton.h"
#include <string.h>

int lk__grammar_stack_init(struct lk__grammar_stack *s, const struct lk_grammar *g) {
    *s = (struct lk__grammar_stack){.grammar = g};
    s->node_of = lk_calloc(g->rule_count + 1, sizeof *s->node_of);
    s->item_of = lk_calloc(g->state_count + 1, sizeof *s->item_of);
    return s->node_of && s->item_of ? LK_OK : LK_ENOMEM;
}
void lk__grammar_stack_release(struct lk__grammar_stack *s) {
    lk_free(s->items);
    lk_free(s->nodes);
    lk_free(s->links);
    lk_free(s->node_of);
    lk_free(s->item_of);
}

static bool room(struct lk__grammar_stack *s, void **data, uint32_t count, uint32_t *capacity, size_t size) {
    if (count < *capacity) return true;
    uint32_t more = *capacity ? 2 * *capacity : 64;
    void *grown = more < UINT32_MAX / 4 ? lk_realloc(*data, more * size) : NULL;
    if (!grown) {
        s->failed = true;
        return false;
    }
    *data = grown;
    *capacity = more;
    return true;
}

/* Adds an item to the place that begins at `first`, once. */
static void add_item(struct lk__grammar_stack *s, uint32_t first, uint32_t state, uint32_t node) {
    uint32_t at = s->item_of[state];
    if (at >= first && at < s->item_count && s->items[at].state == state) { /* the state is here: with this node too? */
        if (s->items[at].node == node) return;
        s->work += s->item_count - first;
        for (uint32_t i = first; i < s->item_count; i++)
            if (s->items[i].state == state && s->items[i].node == node) return;
    }
    if (!room(s, (void **)&s->items, s->item_count, &s->item_room, sizeof *s->items)) return;
    s->item_of[state] = s->item_count;
    s->items[s->item_count++] = (struct lk__grammar_item){state, node};
}

static void add_link(struct lk__grammar_stack *s, uint32_t node, uint32_t state, uint32_t to) {
    for (uint32_t i = s->nodes[node].links; i != LK__GRAMMAR_NONE; i = s->links[i].next, s->work++)
        if (s->links[i].state == state && s->links[i].node == to) return;
    if (!room(s, (void **)&s->links, s->link_count, &s->link_room, sizeof *s->links)) return;
    s->links[s->link_count] = (struct lk__grammar_link){state, to, s->nodes[node].links};
    s->nodes[node].links = s->link_count++;
}

static uint32_t add_node(struct lk__grammar_stack *s, uint32_t rule) {
    if (!room(s, (void **)&s->nodes, s->node_count, &s->node_room, sizeof *s->nodes)) return LK__GRAMMAR_NONE;
    s->nodes[s->node_count] = (struct lk__grammar_node){LK__GRAMMAR_NONE, rule};
    s->node_of[rule] = s->node_count;
    return s->node_count++;
}

/* item calls a rule and then is in state `after`. newest: nodes from there on belong to this place. */
static void call(struct lk__grammar_stack *s, uint32_t first, uint32_t newest, struct lk__grammar_item item,
                 struct lk__grammar_jump jump) {
    uint32_t node = s->node_of[jump.rule];
    if (node < newest || node >= s->node_count || s->nodes[node].rule != jump.rule) {
        if ((node = add_node(s, jump.rule)) == LK__GRAMMAR_NONE) return;
        add_item(s, first, s->grammar->starts[jump.rule], node);
    }
    /* What has nothing to do after the call hands on its own callers: the stack of a right recursion does not grow. Those
     * of a node of this place are not complete yet. */
    if (s->grammar->states[jump.to].last && item.node < newest)
        for (uint32_t i = s->nodes[item.node].links; i != LK__GRAMMAR_NONE && !s->failed; i = s->links[i].next)
            add_link(s, node, s->links[i].state, s->links[i].node);
    else
        add_link(s, node, jump.to, item.node);
}

static void give_back(struct lk__grammar_stack *s, uint32_t node, uint32_t first, bool *complete) {
    for (uint32_t i = s->nodes[node].links; i != LK__GRAMMAR_NONE && !s->failed; i = s->links[i].next, s->work++)
        if (s->links[i].state == LK__GRAMMAR_NONE)
            *complete = true;
        else
            add_item(s, first, s->links[i].state, s->links[i].node);
}

/* Makes a place of the items from `first` on: calls and returns until there are no more, then what reads bytes is kept. */
static bool settle(struct lk__grammar_stack *s, uint32_t first, struct lk__grammar_place *to) {
    const struct lk_grammar *g = s->grammar;
    uint32_t newest = s->node_count, kept = first;
    for (uint32_t i = first; i < s->item_count && !s->failed; i++) {
        struct lk__grammar_item item = s->items[i];
        const struct lk__grammar_state *state = &g->states[item.state];
        if (state->accepts && item.node < newest) give_back(s, item.node, first, &to->complete);
        for (uint32_t j = 0; j < state->jump_count && !s->failed; j++)
            call(s, first, newest, item, g->jumps[state->jumps + j]);
        s->work += 1 + state->jump_count;
        s->failed |= s->work > LK__GRAMMAR_WORK_MOST;
    }
    if (s->failed) return false;
    for (uint32_t i = first; i < s->item_count; i++)
        if (g->states[s->items[i].state].edge_count) s->items[kept++] = s->items[i];
    s->item_count = kept;
    *to = (struct lk__grammar_place){first, kept - first, kept, s->node_count, s->link_count, to->complete};
    return to->count || to->complete;
}

bool lk__grammar_stack_start(struct lk__grammar_stack *s, struct lk__grammar_place *to) {
    s->item_count = s->node_count = s->link_count = 0;
    uint32_t root = add_node(s, s->grammar->root);
    if (root == LK__GRAMMAR_NONE) return false;
    add_link(s, root, LK__GRAMMAR_NONE, 0);
    to->complete = s->grammar->empty;
    if (!s->failed) add_item(s, 0, s->grammar->starts[s->grammar->root], root);
    if (s->failed) return false;
    /* The root counts as older, or its rule could not call itself at the begin and be another node than the text. */
    return settle(s, 0, to);
}

bool lk__grammar_stack_step(struct lk__grammar_stack *s, const struct lk__grammar_place *from, uint8_t byte,
                            struct lk__grammar_place *to) {
    uint32_t first = from->items, end = from->first + from->count;
    s->item_count = from->items;
    s->node_count = from->nodes;
    s->link_count = from->links;
    if (from->count == 1 && s->item_count < s->item_room) { /* nearly always: one item goes on inside its rule */
        struct lk__grammar_item item = s->items[from->first];
        if ((item.state = lk__grammar_next(s->grammar, item.state, byte)) == LK__GRAMMAR_NONE) return false;
        const struct lk__grammar_state *state = &s->grammar->states[item.state];
        if (!state->accepts && !state->jump_count) {
            s->items[s->item_count++] = item;
            *to = (struct lk__grammar_place){first, 1, first + 1, s->node_count, s->link_count, false};
            return true;
        }
    }
    for (uint32_t i = from->first; i < end && !s->failed; i++) {
        uint32_t next = lk__grammar_next(s->grammar, s->items[i].state, byte), node = s->items[i].node;
        if (next != LK__GRAMMAR_NONE) add_item(s, first, next, node);
    }
    if (s->failed || s->item_count == first) return false;
    to->complete = false;
    return settle(s, first, to);
}

bool lk__grammar_stack_return(struct lk__grammar_stack *s, uint32_t node, struct lk__grammar_place *to) {
    uint32_t first = s->item_count;
    to->complete = false;
    give_back(s, node, first, &to->complete);
    return !s->failed && settle(s, first, to);
}

bool lk__grammar_stack_alone(struct lk__grammar_stack *s, uint32_t state, struct lk__grammar_place *to) {
    uint32_t node = add_node(s, s->grammar->root);
    if (node == LK__GRAMMAR_NONE) return false;
    add_link(s, node, LK__GRAMMAR_NONE, 0);
    uint32_t first = s->item_count;
    if (!s->failed) add_item(s, first, state, node);
    if (s->failed) return false;
    *to = (struct lk__grammar_place){first, 1, s->item_count, s->node_count, s->link_count, false};
    return true;
}
