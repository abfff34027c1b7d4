/* Matching by an automaton that is made deterministic where texts lead: a state here is the set of states of the pattern
 * that the text so far may have led to ("a position"), and knows the position after each class of bytes once one came.
 * Assertions look one byte ahead, so they stay in the set until that byte is known. When the room is full, all positions
 * but the present one are forgotten. */
#include "store/table/regex_program.h"
#include <string.h>

#define UNKNOWN UINT16_MAX
#define DEAD    0 /* the position of no states */
struct position {
    uint32_t states, hash; /* where its states begin in run->pool */
    uint16_t count;
    uint8_t before; /* enum lk__table_regex_side, of the last byte; OTHER where the pattern has no assertions */
    int8_t accepts; /* at the text's end; -1: not known */
    bool waits;     /* it has assertions */
};
struct lk__table_regex_run {
    const struct lk__table_regex *re;
    struct position *positions;
    uint16_t *next; /* (positions, classes) */
    uint16_t *table, *pool, *stack, *now, *list;
    uint32_t *mark;    /* (states): the round that visited it */
    uint64_t *reached; /* (states bits) */
    uint32_t position_count, position_room, pool_count, pool_room, table_mask, round;
    uint16_t first;
    uint64_t work;
};

static size_t piece(size_t *total, size_t size) {
    size_t at = *total;
    *total += (size + 63) & ~(size_t)63;
    return at;
}
static void forget(struct lk__table_regex_run *r) {
    memset(r->table, 0, (r->table_mask + 1) * sizeof *r->table); /* 0: empty, DEAD is not in it */
    r->positions[DEAD] = (struct position){.before = LK__REGEX_OTHER};
    memset(r->next, 0, r->re->class_count * sizeof *r->next);
    r->position_count = 1;
    r->pool_count = 0;
    r->first = UNKNOWN;
}
int lk__table_regex_run_open(const struct lk__table_regex *re, size_t cache_bytes, struct lk__table_regex_run **out,
                             struct lk_err *err) {
    struct lk__table_regex_run layout = {.re = re}, *r;
    size_t states = re->state_count, each = sizeof *layout.positions + re->class_count * sizeof *layout.next + 4;
    size_t room = cache_bytes / 2 / each, pool = cache_bytes / 2 / sizeof *layout.pool, total = 0, table = 16;
    room = room < 8 ? 8 : room > 32000 ? 32000 : room;
    pool = pool < 4 * states ? 4 * states : pool;
    while (table < 2 * room) table *= 2;
    size_t at_run = piece(&total, sizeof *r), at_positions = piece(&total, room * sizeof *r->positions);
    size_t at_next = piece(&total, room * re->class_count * sizeof *r->next),
           at_table = piece(&total, table * sizeof *r->table);
    size_t at_pool = piece(&total, pool * sizeof *r->pool), at_stack = piece(&total, 2 * (states + 1) * sizeof *r->stack);
    size_t at_now = piece(&total, states * sizeof *r->now), at_list = piece(&total, states * sizeof *r->list);
    size_t at_mark = piece(&total, states * sizeof *r->mark), at_reached = piece(&total, states / 8 + sizeof *r->reached);
    char *base = lk_alloc(total);
    *out = NULL;
    if (!base) return lk_fail(err, LK_ENOMEM, "no memory to match a pattern of %zu states", states);
    r = (struct lk__table_regex_run *)(base + at_run);
    layout.positions = (struct position *)(base + at_positions);
    layout.next = (uint16_t *)(base + at_next);
    layout.table = (uint16_t *)(base + at_table);
    layout.pool = (uint16_t *)(base + at_pool);
    layout.stack = (uint16_t *)(base + at_stack);
    layout.now = (uint16_t *)(base + at_now);
    layout.list = (uint16_t *)(base + at_list);
    layout.mark = (uint32_t *)(base + at_mark);
    layout.reached = (uint64_t *)(base + at_reached);
    layout.position_room = (uint32_t)room;
    layout.pool_room = (uint32_t)pool;
    layout.table_mask = (uint32_t)(table - 1);
    *r = layout;
    memset(r->mark, 0, states * sizeof *r->mark);
    memset(r->reached, 0, states / 8 + sizeof *r->reached);
    forget(r);
    *out = r;
    return 0;
}
void lk__table_regex_run_close(struct lk__table_regex_run *r) {
    lk_free(r);
}

/* --- sets of states -------------------------------------------------------------------------------------- */

static void new_round(struct lk__table_regex_run *r) {
    if (++r->round) return;
    memset(r->mark, 0, r->re->state_count * sizeof *r->mark);
    r->round = 1;
}
static bool holds(enum lk__table_regex_assert a, enum lk__table_regex_side before, enum lk__table_regex_side after) {
    switch (a) {
    case LK__REGEX_TEXT_BEGIN:
        return before == LK__REGEX_EDGE;
    case LK__REGEX_TEXT_END:
        return after == LK__REGEX_EDGE;
    case LK__REGEX_LINE_BEGIN:
        return before <= LK__REGEX_NEWLINE;
    case LK__REGEX_LINE_END:
        return after <= LK__REGEX_NEWLINE;
    case LK__REGEX_WORD:
        return (before == LK__REGEX_LETTER) != (after == LK__REGEX_LETTER);
    case LK__REGEX_NO_WORD:
        return (before == LK__REGEX_LETTER) == (after == LK__REGEX_LETTER);
    }
    return false;
}
/* Adds what s leads to without a byte to r->reached; assertions wait there. */
static void reach(struct lk__table_regex_run *r, uint16_t s) {
    const struct lk__table_regex_state *states = r->re->states;
    size_t top = 0;
    r->stack[top++] = s;
    while (top) {
        s = r->stack[--top];
        if (r->mark[s] == r->round) continue;
        r->mark[s] = r->round;
        r->work++;
        if (states[s].op == LK__REGEX_SPLIT) {
            r->stack[top++] = states[s].y;
            r->stack[top++] = states[s].x;
        } else
            r->reached[s / 64] |= UINT64_C(1) << s % 64;
    }
}
/* The states of a position once the side after it is known, into r->now; returns how many. */
static size_t resolve(struct lk__table_regex_run *r, const struct position *p, enum lk__table_regex_side after) {
    const struct lk__table_regex_state *states = r->re->states;
    size_t count = 0, top = 0;
    new_round(r);
    for (size_t i = 0; i < p->count; i++) {
        r->stack[top++] = r->pool[p->states + i];
        while (top) {
            uint16_t s = r->stack[--top];
            if (r->mark[s] == r->round) continue;
            r->mark[s] = r->round;
            r->work++;
            if (states[s].op == LK__REGEX_SPLIT)
                r->stack[top++] = states[s].y;
            else if (states[s].op != LK__REGEX_IF) {
                r->now[count++] = s;
                continue;
            } else if (!holds(states[s].assertion, p->before, after))
                continue;
            r->stack[top++] = states[s].x;
        }
    }
    return count;
}
/* Empties r->reached into r->list, in order; returns how many. */
static size_t gather(struct lk__table_regex_run *r, bool *waits) {
    size_t count = 0, words = r->re->state_count / 64 + 1;
    *waits = false;
    for (size_t w = 0; w < words; w++) {
        for (uint64_t bits = r->reached[w]; bits; bits &= bits - 1) {
            uint16_t s = (uint16_t)(w * 64 + (size_t)__builtin_ctzll(bits));
            *waits |= r->re->states[s].op == LK__REGEX_IF;
            r->list[count++] = s;
        }
        r->reached[w] = 0;
    }
    r->work += words / 8;
    return count;
}
/* The position of r->reached, which is emptied. */
static uint16_t position(struct lk__table_regex_run *r, enum lk__table_regex_side before) {
    bool waits;
    size_t count = gather(r, &waits);
    uint32_t hash = 2166136261u, slot;
    if (!count) return DEAD;
    if (!waits) before = LK__REGEX_OTHER; /* nobody asks */
    hash ^= before;
    for (size_t i = 0; i < count; i++) hash = (hash ^ r->list[i]) * 16777619u;
    hash ^= hash >> 15;
    for (slot = hash & r->table_mask; r->table[slot]; slot = (slot + 1) & r->table_mask) {
        const struct position *p = &r->positions[r->table[slot]];
        if (p->hash == hash && p->count == count && p->before == before &&
            memcmp(&r->pool[p->states], r->list, count * sizeof *r->list) == 0)
            return r->table[slot];
    }
    if (r->position_count == r->position_room || r->pool_count + count > r->pool_room) {
        forget(r);
        slot = hash & r->table_mask;
    }
    uint16_t new = (uint16_t)r->position_count++;
    r->table[slot] = new;
    r->positions[new] = (struct position){r->pool_count, hash, (uint16_t)count, (uint8_t)before, -1, waits};
    memcpy(&r->pool[r->pool_count], r->list, count * sizeof *r->list);
    r->pool_count += (uint32_t)count;
    memset(&r->next[(size_t) new * r->re->class_count], 0xff, r->re->class_count * sizeof *r->next);
    return new;
}

/* --- texts ----------------------------------------------------------------------------------------------- */

static uint16_t begin(struct lk__table_regex_run *r) {
    if (r->first != UNKNOWN) return r->first;
    new_round(r);
    reach(r, r->re->start);
    uint16_t first = position(r, r->re->asserts ? LK__REGEX_EDGE : LK__REGEX_OTHER);
    return r->first = first;
}
/* The position after a byte of this class. */
static uint16_t advance(struct lk__table_regex_run *r, uint16_t from, unsigned class) {
    const struct lk__table_regex *re = r->re;
    const struct position *p = &r->positions[from];
    unsigned byte = re->class_byte[class];
    enum lk__table_regex_side side = re->asserts ? lk__table_regex_side(byte) : LK__REGEX_OTHER;
    const uint16_t *states = &r->pool[p->states];
    size_t count = p->count;
    if (p->waits) {
        count = resolve(r, p, side);
        states = r->now;
    }
    new_round(r);
    r->work += count;
    for (size_t i = 0; i < count; i++) {
        const struct lk__table_regex_state *s = &re->states[states[i]];
        if (s->op == LK__REGEX_BYTE && lk__table_regex_set_has(re, s->set, byte)) reach(r, s->x);
    }
    uint32_t had = r->position_count;
    uint16_t to = position(r, side);
    /* Fewer than before: all was forgotten, `from` too. */
    if (r->position_count >= had) r->next[(size_t)from * re->class_count + class] = to;
    return to;
}
static bool accepts(struct lk__table_regex_run *r, uint16_t at) {
    struct position *p = &r->positions[at];
    if (p->accepts >= 0) return p->accepts;
    size_t count = resolve(r, p, LK__REGEX_EDGE);
    p->accepts = 0;
    for (size_t i = 0; i < count; i++)
        if (r->now[i] == 0) p->accepts = 1; /* state 0: MATCHED */
    return p->accepts;
}
int lk__table_regex_match(struct lk__table_regex_run *r, struct lk_bytes text, bool *match, struct lk_err *err) {
    const uint8_t *c = text.data, *end = c + text.size, *class_of = r->re->class_of;
    size_t classes = r->re->class_count;
    r->work = 0;
    uint16_t at = begin(r);
    for (; c < end && at != DEAD; c++) {
        uint16_t to = r->next[at * classes + class_of[*c]];
        at = to != UNKNOWN ? to : advance(r, at, class_of[*c]);
        if (r->work > LK__REGEX_WORK_MAX)
            return lk_fail(err, LK_EINVAL, "the pattern takes more than %d steps on %zu bytes; make it simpler",
                           LK__REGEX_WORK_MAX, text.size);
    }
    *match = at != DEAD && accepts(r, at);
    return 0;
}
