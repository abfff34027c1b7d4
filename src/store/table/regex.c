/* From a parsed pattern to what matches it: bytes to compare where they decide, else an automaton (Thompson's). */
#include "store/table/regex_program.h"
#include <stdlib.h>
#include <string.h>

/* --- the automaton --------------------------------------------------------------------------------------- */

struct maker {
    const struct lk__table_regex_tree *tree;
    struct lk__table_regex *re;
    uint32_t room;
    int code;
};

/* 0 once something failed: with m->code set. */
static uint16_t state(struct maker *m, struct lk__table_regex_state s) {
    struct lk__table_regex *re = m->re;
    if (m->code) return 0;
    if (re->state_count == m->room) {
        uint32_t room = m->room ? m->room * 2 : 16;
        struct lk__table_regex_state *new = lk_realloc(re->states, room * sizeof *new);
        if (!new) return m->code = LK_ENOMEM, 0;
        re->states = new;
        m->room = room;
    }
    if (re->state_count == LK__REGEX_STATES_MAX) return m->code = LK_EINVAL, 0;
    re->states[re->state_count] = s;
    return (uint16_t)re->state_count++;
}
static uint16_t split(struct maker *m, uint16_t x, uint16_t y) {
    return state(m, (struct lk__table_regex_state){.op = LK__REGEX_SPLIT, .x = x, .y = y});
}
/* The state that begins node i and goes on to `next`. */
static uint16_t make(struct maker *m, uint32_t i, uint16_t next);
static uint16_t make_repeat(struct maker *m, const struct lk__table_regex_node *n, uint16_t next) {
    uint16_t out = next;
    if (n->max < 0) {
        next = split(m, 0, next);
        uint16_t body = make(m, n->last, next);
        if (!m->code) m->re->states[next].x = body;
    }
    for (int i = n->min; i < n->max && !m->code; i++) next = split(m, make(m, n->last, next), out);
    for (int i = 0; i < n->min && !m->code; i++) next = make(m, n->last, next);
    return next;
}
static uint16_t make(struct maker *m, uint32_t i, uint16_t next) {
    const struct lk__table_regex_node *nodes = m->tree->nodes, *n = &nodes[i];
    uint16_t first;
    switch ((enum lk__table_regex_kind)n->kind) {
    case LK__REGEX_EMPTY:
        return next;
    case LK__REGEX_SET:
        return state(m, (struct lk__table_regex_state){.op = LK__REGEX_BYTE, .set = n->set, .x = next});
    case LK__REGEX_ASSERT:
        m->re->asserts = true;
        return state(m, (struct lk__table_regex_state){.op = LK__REGEX_IF, .assertion = n->assertion, .x = next});
    case LK__REGEX_CAT:
        for (i = n->last; i && !m->code; i = nodes[i].before) next = make(m, i, next);
        return next;
    case LK__REGEX_ALT:
        first = make(m, n->last, next);
        for (i = nodes[n->last].before; i && !m->code; i = nodes[i].before) first = split(m, make(m, i, next), first);
        return first;
    case LK__REGEX_REPEAT:
        return make_repeat(m, n, next);
    }
    return 0;
}

/* Splits each class by the set: bytes within get another class than those without. */
static void tell_apart(struct lk__table_regex *re, const struct lk__table_byte_set *s) {
    int inside[256];
    bool without[256] = {false};
    for (unsigned b = 0; b < 256; b++)
        if (!lk__table_byte_set_has(s, b)) without[re->class_of[b]] = true;
    memset(inside, -1, sizeof inside);
    for (unsigned b = 0; b < 256; b++) {
        unsigned c = re->class_of[b];
        if (!lk__table_byte_set_has(s, b) || !without[c]) continue;
        if (inside[c] < 0) inside[c] = (int)re->class_count++;
        re->class_of[b] = (uint8_t)inside[c];
    }
}
static void make_classes(struct lk__table_regex *re) {
    struct lk__table_byte_set words, single = {{0}}, line = {{0}};
    re->class_count = 1;
    for (uint32_t i = 0; i < re->set_count; i++) tell_apart(re, &re->sets[i]);
    for (uint32_t i = 0; i < re->state_count; i++)
        if (re->states[i].op == LK__REGEX_BYTE && re->states[i].set < LK__REGEX_BYTES)
            lk__table_byte_set_add(&single, re->states[i].set, re->states[i].set);
    for (unsigned b = 0; b < 256; b++)
        if (lk__table_byte_set_has(&single, b)) {
            struct lk__table_byte_set one = {{0}};
            lk__table_byte_set_add(&one, b, b);
            tell_apart(re, &one);
        }
    if (re->asserts) {
        lk__table_byte_set_perl('w', &words);
        lk__table_byte_set_add(&line, '\n', '\n');
        tell_apart(re, &words);
        tell_apart(re, &line);
    }
    for (unsigned b = 0; b < 256; b++) re->class_byte[re->class_of[b]] = (uint8_t)b;
}
static int make_automaton(struct lk__table_regex *re, const struct lk__table_regex_tree *t, struct lk_err *err) {
    struct maker m = {.tree = t, .re = re};
    state(&m, (struct lk__table_regex_state){.op = LK__REGEX_MATCHED});
    re->start = make(&m, t->root, 0);
    if (m.code == LK_EINVAL)
        return lk_fail(err, LK_EINVAL, "the pattern needs more than %d states; make its counts smaller",
                       LK__REGEX_STATES_MAX);
    if (!m.code && t->set_count) {
        if ((re->sets = lk_alloc(t->set_count * sizeof *re->sets)))
            memcpy(re->sets, t->sets, t->set_count * sizeof *re->sets);
        else
            m.code = LK_ENOMEM;
        re->set_count = t->set_count;
    }
    if (m.code) return lk_fail(err, m.code, "no memory for a pattern");
    make_classes(re);
    return 0;
}

/* --- shapes ---------------------------------------------------------------------------------------------- */

/* What stands in a row in the pattern, the last first. */
struct items {
    const struct lk__table_regex_tree *tree;
    const struct lk__table_regex_node **item;
    size_t count;
};
static void flatten(struct items *s, uint32_t i) {
    const struct lk__table_regex_node *n = &s->tree->nodes[i];
    if (n->kind == LK__REGEX_CAT)
        for (i = n->last; i; i = s->tree->nodes[i].before) flatten(s, i);
    else if (n->kind != LK__REGEX_EMPTY)
        s->item[s->count++] = n;
}
static bool asserts(const struct lk__table_regex_node *n, enum lk__table_regex_assert a, enum lk__table_regex_assert b) {
    return n->kind == LK__REGEX_ASSERT && (n->assertion == a || n->assertion == b);
}
static bool is_byte(const struct lk__table_regex_node *n) {
    return n->kind == LK__REGEX_SET && n->set < LK__REGEX_BYTES;
}
/* `.*` or `\C*`, with a least count. */
static enum lk__table_regex_shape gap(const struct items *s, const struct lk__table_regex_node *n) {
    struct lk__table_byte_set all = {{0}}, line = {{0}};
    lk__table_byte_set_negate(&all);
    lk__table_byte_set_add(&line, '\n', '\n');
    lk__table_byte_set_negate(&line);
    if (n->kind != LK__REGEX_REPEAT || n->max >= 0) return LK__REGEX_AUTOMATON;
    const struct lk__table_regex_node *body = &s->tree->nodes[n->last];
    if (body->kind != LK__REGEX_SET || body->set < LK__REGEX_BYTES) return LK__REGEX_AUTOMATON;
    const struct lk__table_byte_set *set = &s->tree->sets[body->set - LK__REGEX_BYTES];
    if (memcmp(set, &all, sizeof all) == 0) return LK__REGEX_ANY;
    return memcmp(set, &line, sizeof line) == 0 ? LK__REGEX_ANY_LINE : LK__REGEX_AUTOMATON;
}
static int append(struct lk_buf *b, const struct lk__table_regex_node *n) {
    char byte = (char)n->set;
    return lk_buf_append(b, &byte, 1);
}
/* Finds re->choices; none where a choice has no head. */
static int find_choices(struct lk__table_regex *re, const struct items *all, const struct lk__table_regex_node *choice) {
    const struct lk__table_regex_node *nodes = all->tree->nodes;
    size_t count = 0;
    for (uint32_t i = choice->last; i; i = nodes[i].before) {
        struct items s = {.tree = all->tree, .item = all->item + all->count};
        struct lk_buf head = LK_BUF_INIT;
        flatten(&s, i);
        size_t end = s.count;
        int code = 0;
        for (; end && is_byte(s.item[end - 1]) && !code; end--) code = append(&head, s.item[end - 1]);
        bool whole = !end, good = !code && (head.size || whole) && count < LK__REGEX_HEADS_MAX;
        if (good && (lk_buf_append(&re->choices, &head.size, sizeof head.size) ||
                     lk_buf_append(&re->choices, &whole, sizeof whole) ||
                     lk_buf_append(&re->choices, head.data ? head.data : "", head.size)))
            code = LK_ENOMEM;
        lk_buf_release(&head);
        if (code || !good) return code;
        count++;
    }
    re->choice_count = count;
    return 0;
}
/* Finds re->head, and re->shape with what belongs to it. */
static int find_shape(struct lk__table_regex *re, struct items *s) {
    size_t end = s->count, begin = 0; /* the pattern is item[end - 1] to item[begin] */
    while (end > begin && asserts(s->item[end - 1], LK__REGEX_TEXT_BEGIN, LK__REGEX_LINE_BEGIN)) end--;
    while (end > begin && asserts(s->item[begin], LK__REGEX_TEXT_END, LK__REGEX_LINE_END)) begin++;
    for (; end > begin && is_byte(s->item[end - 1]); end--)
        if (append(&re->head, s->item[end - 1])) return LK_ENOMEM;
    if (end == begin) return re->shape = LK__REGEX_WHOLE, 0;
    const struct lk__table_regex_node *middle = s->item[end - 1];
    if (end == begin + 1 && !re->head.size && middle->kind == LK__REGEX_ALT) return find_choices(re, s, middle);
    for (size_t i = begin; i + 1 < end; i++)
        if (!is_byte(s->item[i])) return 0;
    re->shape = gap(s, middle);
    if (re->shape == LK__REGEX_AUTOMATON) return 0;
    re->least = (size_t)middle->min;
    for (size_t i = end - 1; i-- > begin;)
        if (append(&re->tail, s->item[i])) return LK_ENOMEM;
    return 0;
}

int lk__table_regex_compile(struct lk_bytes pattern, struct lk__table_regex **out, struct lk_err *err) {
    struct lk__table_regex *re = lk_calloc(1, sizeof *re);
    struct lk__table_regex_tree tree = {0};
    struct items items = {.tree = &tree};
    *out = NULL;
    int code = re ? lk__table_regex_parse(pattern, &tree, err) : lk_fail(err, LK_ENOMEM, "no memory for a pattern");
    if (!code && !(items.item = lk_alloc(2 * tree.node_count * sizeof *items.item)))
        code = lk_fail(err, LK_ENOMEM, "no memory for a pattern");
    if (!code) {
        flatten(&items, tree.root);
        if ((code = find_shape(re, &items))) lk_fail(err, code, "no memory for a pattern");
    }
    if (!code && re->shape == LK__REGEX_AUTOMATON) code = make_automaton(re, &tree, err);
    lk_free(items.item);
    lk__table_regex_tree_release(&tree);
    if (code)
        lk__table_regex_free(re);
    else
        *out = re;
    return code;
}
void lk__table_regex_free(struct lk__table_regex *re) {
    if (!re) return;
    lk_buf_release(&re->head);
    lk_buf_release(&re->tail);
    lk_buf_release(&re->choices);
    lk_free(re->states);
    lk_free(re->sets);
    lk_free(re);
}
struct lk_bytes lk__table_regex_head(const struct lk__table_regex *re, bool *whole) {
    *whole = re->shape == LK__REGEX_WHOLE;
    return lk_bytes(re->head.data, re->head.size);
}
bool lk__table_regex_choice(const struct lk__table_regex *re, size_t index, struct lk_bytes *head, bool *whole) {
    const char *c = re->choices.data;
    size_t size = 0;
    if (index >= re->choice_count) return false;
    for (;; c += size) {
        memcpy(&size, c, sizeof size);
        c += sizeof size;
        memcpy(whole, c, sizeof *whole);
        c += sizeof *whole;
        if (!index--) break;
    }
    *head = lk_bytes(c, size);
    return true;
}
size_t lk__table_regex_states(const struct lk__table_regex *re) {
    return re->state_count;
}
int lk__table_regex_compare(const struct lk__table_regex *re, struct lk_bytes text) {
    const char *data = text.data;
    size_t head = re->head.size, tail = re->tail.size;
    if (text.size < head || (head && memcmp(data, re->head.data, head) != 0)) return 0;
    if (re->shape == LK__REGEX_AUTOMATON) return -1;
    if (re->shape == LK__REGEX_WHOLE) return text.size == head;
    if (text.size < head + tail + re->least) return 0;
    if (tail && memcmp(data + text.size - tail, re->tail.data, tail) != 0) return 0;
    size_t middle = text.size - head - tail;
    return re->shape == LK__REGEX_ANY || !middle || !memchr(data + head, '\n', middle);
}
