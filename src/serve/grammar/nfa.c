/* Thompson's construction, with characters as sequences of byte ranges of UTF-8. */
#include "serve/grammar/nfa.h"
#include <string.h>

#define COPIES_MOST 32768 /* states that repetition makes of a rule put into it; beyond, it stays a call */

static uint32_t state(struct lk__grammar_nfa *n) {
    if (n->build->code) return 0;
    if (n->states.count >= LK__GRAMMAR_NFA_MOST) {
        lk__grammar_fail(n->build, LK_EINVAL,
                         "the grammar is too large: one rule grows beyond %zu states; use smaller numbers of repetition",
                         LK__GRAMMAR_NFA_MOST);
        return 0;
    }
    uint32_t *room = lk__grammar_room(&n->states, 1, sizeof *room);
    if (!room) return lk__grammar_fail(n->build, LK_ENOMEM, "no memory for a grammar"), 0;
    *room = 0;
    return (uint32_t)n->states.count++;
}

static void arc(struct lk__grammar_nfa *n, uint32_t from, struct lk__grammar_arc a) {
    if (n->build->code) return;
    struct lk__grammar_arc *room = lk__grammar_room(&n->arcs, 1, sizeof *room);
    if (!room) {
        lk__grammar_fail(n->build, LK_ENOMEM, "no memory for a grammar");
        return;
    }
    uint32_t *first = (uint32_t *)n->states.data + from;
    a.next = *first;
    *room = a;
    *first = (uint32_t)n->arcs.count++;
}
static void free_arc(struct lk__grammar_nfa *n, uint32_t from, uint32_t to) {
    arc(n, from, (struct lk__grammar_arc){.to = to, .kind = LK__GRAMMAR_ARC_FREE});
}
static void bytes_arc(struct lk__grammar_nfa *n, uint32_t from, uint8_t first, uint8_t last, uint32_t to) {
    arc(n, from, (struct lk__grammar_arc){.to = to, .kind = LK__GRAMMAR_ARC_BYTES, .first = first, .last = last});
}

/* --- characters -------------------------------------------------------------------------------------------- */

/* States that go on to the same end over the same bytes are one, so that a class of all characters needs few. */
#define TAILS 64
struct tails {
    struct {
        uint8_t first, last;
        uint32_t to, state;
    } of[TAILS];
    uint32_t count;
};
static uint32_t tail(struct lk__grammar_nfa *n, struct tails *t, uint8_t first, uint8_t last, uint32_t to) {
    for (uint32_t i = 0; i < t->count; i++)
        if (t->of[i].first == first && t->of[i].last == last && t->of[i].to == to) return t->of[i].state;
    uint32_t s = state(n);
    bytes_arc(n, s, first, last, to);
    if (t->count < TAILS) {
        t->of[t->count].first = first, t->of[t->count].last = last;
        t->of[t->count].to = to, t->of[t->count++].state = s;
    }
    return s;
}

static size_t encode(uint32_t c, uint8_t *out) {
    size_t size = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const uint8_t marks[] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (size_t i = size; i-- > 1; c >>= 6) out[i] = (uint8_t)(0x80 | (c & 0x3F));
    out[0] = (uint8_t)(marks[size] | c);
    return size;
}

/* Characters a to b, cut until all bytes behind the first that differs run through all values. */
static void characters(struct lk__grammar_nfa *n, struct tails *t, uint32_t from, uint32_t to, uint32_t a, uint32_t b) {
    static const uint32_t lasts[] = {0x7F, 0x7FF, 0xFFFF};
    for (int i = 0; i < 3; i++)
        if (a <= lasts[i] && b > lasts[i]) {
            characters(n, t, from, to, a, lasts[i]);
            characters(n, t, from, to, lasts[i] + 1, b);
            return;
        }
    for (uint32_t low = 0x3F; a >= 0x80 && low <= 0x3FFFF && (a & ~low) != (b & ~low); low = low << 6 | 0x3F) {
        if (a & low) {
            characters(n, t, from, to, a, a | low);
            characters(n, t, from, to, (a | low) + 1, b);
            return;
        }
        if ((b & low) != low) {
            characters(n, t, from, to, a, (b & ~low) - 1);
            characters(n, t, from, to, b & ~low, b);
            return;
        }
    }
    uint8_t x[4], y[4];
    size_t size = encode(a, x);
    encode(b, y);
    for (size_t i = size; i-- > 1;) to = tail(n, t, x[i], y[i], to);
    bytes_arc(n, from, x[0], y[0], to);
}

/* --- expressions ------------------------------------------------------------------------------------------- */

/* From `from` to `to`; copies: how often repetitions around it make it. */
static void put(struct lk__grammar_nfa *n, uint32_t expr, uint32_t from, uint32_t to, uint64_t copies);

static void put_repeat(struct lk__grammar_nfa *n, const struct lk__grammar_expr *e, uint32_t from, uint32_t to,
                       uint64_t copies) {
    uint32_t kid = lk__grammar_kids(n->build, e)[0], least = e->least, most = e->most;
    bool productive = lk__grammar_flags(n->build, n->flags, kid) & LK__GRAMMAR_PRODUCTIVE;
    if (!productive) most = least; /* which is 0 */
    copies *= most == LK__GRAMMAR_UNLIMITED ? least + 1 : most ? most : 1;
    for (uint32_t i = 0; i < least && !n->build->code; i++) {
        uint32_t next = state(n);
        put(n, kid, from, next, copies);
        from = next;
    }
    if (most == LK__GRAMMAR_UNLIMITED) {
        uint32_t round = state(n); /* its own state, so that nothing else runs into the loop */
        free_arc(n, from, round);
        uint32_t back = state(n);
        put(n, kid, round, back, copies);
        free_arc(n, back, round);
        free_arc(n, round, to);
        return;
    }
    for (uint32_t i = least; i < most && !n->build->code; i++) {
        uint32_t next = state(n);
        free_arc(n, from, to);
        put(n, kid, from, next, copies);
        from = next;
    }
    free_arc(n, from, to);
}

static void put_call(struct lk__grammar_nfa *n, uint32_t rule, uint32_t from, uint32_t to, uint64_t copies) {
    unsigned flags = n->flags[rule];
    uint32_t size = n->sizes[rule];
    if (size && (copies == 1 || size * copies <= COPIES_MOST)) {
        put(n, lk__grammar_rule_at(n->build, rule)->body, from, to, copies);
        return;
    }
    if (flags & LK__GRAMMAR_NULLABLE) free_arc(n, from, to);
    if (flags & LK__GRAMMAR_LONGER)
        arc(n, from, (struct lk__grammar_arc){.to = to, .kind = LK__GRAMMAR_ARC_CALL, .rule = rule});
}

static void put(struct lk__grammar_nfa *n, uint32_t expr, uint32_t from, uint32_t to, uint64_t copies) {
    struct lk__grammar_build *b = n->build;
    const struct lk__grammar_expr *e = lk__grammar_expr_at(b, expr);
    const uint32_t *kids = lk__grammar_kids(b, e);
    struct tails tails = {.count = 0};
    if (b->code || !(lk__grammar_flags(b, n->flags, expr) & LK__GRAMMAR_PRODUCTIVE)) return;
    switch (e->kind) {
    case LK__GRAMMAR_LITERAL:
        for (uint32_t i = 0; i < e->count; i++) {
            uint32_t next = i + 1 < e->count ? state(n) : to;
            uint8_t byte = ((const uint8_t *)b->text.data)[e->first + i];
            bytes_arc(n, from, byte, byte, next);
            from = next;
        }
        if (!e->count) free_arc(n, from, to);
        return;
    case LK__GRAMMAR_CLASS:
        for (uint32_t i = 0; i < e->count; i++) {
            const struct lk__grammar_range *r = (const struct lk__grammar_range *)b->ranges.data + e->first + i;
            characters(n, &tails, from, to, r->first, r->last);
        }
        return;
    case LK__GRAMMAR_SEQUENCE:
        for (uint32_t i = 0; i < e->count; i++) {
            uint32_t next = i + 1 < e->count ? state(n) : to;
            put(n, kids[i], from, next, copies);
            from = next;
        }
        if (!e->count) free_arc(n, from, to);
        return;
    case LK__GRAMMAR_CHOICE:
        for (uint32_t i = 0; i < e->count; i++) {
            uint32_t own = state(n); /* a loop that begins here does not lead into the others */
            free_arc(n, from, own);
            put(n, kids[i], own, to, copies);
        }
        return;
    case LK__GRAMMAR_REPEAT:
        put_repeat(n, e, from, to, copies);
        return;
    case LK__GRAMMAR_CALL:
        put_call(n, e->first, from, to, copies);
        return;
    }
}

int lk__grammar_nfa_make(struct lk__grammar_nfa *n, uint32_t rule) {
    n->arcs.count = n->states.count = 0;
    arc(n, state(n), (struct lk__grammar_arc){0}); /* arc 0 is none */
    n->start = state(n);
    n->end = state(n);
    put(n, lk__grammar_rule_at(n->build, rule)->body, n->start, n->end, 1);
    return n->build->code;
}
void lk__grammar_nfa_release(struct lk__grammar_nfa *n) {
    lk_free(n->arcs.data);
    lk_free(n->states.data);
}
