/* What each rule matches (nothing, the empty text, more), and which rules are put into their callers. */
#include "serve/grammar/build.h"
#include <string.h>

#define SMALL 24 /* states; a rule of so many is put into each caller, a larger one only where it has one caller */
#define LARGE 20000

unsigned lk__grammar_flags(const struct lk__grammar_build *b, const uint8_t *flags, uint32_t expr) {
    const struct lk__grammar_expr *e = lk__grammar_expr_at(b, expr);
    const uint32_t *kids = lk__grammar_kids(b, e);
    unsigned all = LK__GRAMMAR_PRODUCTIVE | LK__GRAMMAR_NULLABLE, any = 0, one;
    switch (e->kind) {
    case LK__GRAMMAR_LITERAL:
        return LK__GRAMMAR_PRODUCTIVE | (e->count ? LK__GRAMMAR_LONGER : LK__GRAMMAR_NULLABLE);
    case LK__GRAMMAR_CLASS:
        return e->count ? LK__GRAMMAR_PRODUCTIVE | LK__GRAMMAR_LONGER : 0;
    case LK__GRAMMAR_CALL:
        return flags[e->first];
    case LK__GRAMMAR_REPEAT:
        if (e->most == 0) return LK__GRAMMAR_PRODUCTIVE | LK__GRAMMAR_NULLABLE;
        one = lk__grammar_flags(b, flags, kids[0]);
        return e->least ? one : one | LK__GRAMMAR_PRODUCTIVE | LK__GRAMMAR_NULLABLE;
    default:
        for (uint32_t i = 0; i < e->count; i++) {
            one = lk__grammar_flags(b, flags, kids[i]);
            all &= one;
            any |= one;
        }
        if (e->kind == LK__GRAMMAR_CHOICE) return any;
        return !(all & LK__GRAMMAR_PRODUCTIVE) ? 0 : (any & LK__GRAMMAR_LONGER) | all;
    }
}

/* Calls `each` with every rule that an expression calls, once for each call. */
static void calls(const struct lk__grammar_build *b, uint32_t expr, void (*each)(void *arg, uint32_t rule), void *arg) {
    const struct lk__grammar_expr *e = lk__grammar_expr_at(b, expr);
    if (e->kind == LK__GRAMMAR_CALL) each(arg, e->first);
    if (e->kind != LK__GRAMMAR_SEQUENCE && e->kind != LK__GRAMMAR_CHOICE && e->kind != LK__GRAMMAR_REPEAT) return;
    uint32_t n = e->kind == LK__GRAMMAR_REPEAT ? 1 : e->count;
    for (uint32_t i = 0; i < n; i++) calls(b, lk__grammar_kids(b, e)[i], each, arg);
}

/* Who calls whom: callers of rule r are list[at[r] .. at[r + 1]), once for each call. */
struct graph {
    uint32_t *at, *list, *queue, *left; /* left: calls in a rule's body of rules that are not settled */
    uint8_t *queued;
    uint32_t caller, count;
};
static void count_call(void *arg, uint32_t rule) {
    struct graph *g = arg;
    g->at[rule + 1]++;
    g->left[g->caller]++;
}
static void list_call(void *arg, uint32_t rule) {
    struct graph *g = arg;
    g->list[g->at[rule]++] = g->caller;
}
static int make_graph(const struct lk__grammar_build *b, struct graph *g) {
    uint32_t n = g->count = (uint32_t)b->rules.count;
    g->at = lk_calloc(n + 2, sizeof *g->at);
    g->left = lk_calloc(n, sizeof *g->left);
    g->queue = lk_calloc(n, sizeof *g->queue);
    g->queued = lk_calloc(n, 1);
    if (!g->at || !g->left || !g->queue || !g->queued) return LK_ENOMEM;
    for (g->caller = 0; g->caller < n; g->caller++) calls(b, lk__grammar_rule_at(b, g->caller)->body, count_call, g);
    for (uint32_t r = 0; r < n; r++) g->at[r + 1] += g->at[r];
    if (!(g->list = lk_alloc((g->at[n] + 1) * sizeof *g->list))) return LK_ENOMEM;
    for (g->caller = 0; g->caller < n; g->caller++) calls(b, lk__grammar_rule_at(b, g->caller)->body, list_call, g);
    memmove(g->at + 1, g->at, n * sizeof *g->at); /* list_call has moved each to its end */
    g->at[0] = 0;
    return 0;
}
static void free_graph(struct graph *g) {
    lk_free(g->at);
    lk_free(g->list);
    lk_free(g->queue);
    lk_free(g->left);
    lk_free(g->queued);
}

/* Flags grow from none until nothing changes: a rule is looked at again when one that it calls has changed. */
static void find_flags(const struct lk__grammar_build *b, struct graph *g, uint8_t *flags) {
    uint32_t begin = 0, waiting = g->count;
    for (uint32_t r = 0; r < g->count; r++) g->queue[r] = r, g->queued[r] = 1, flags[r] = 0;
    for (; waiting; waiting--) {
        uint32_t r = g->queue[begin];
        begin = (begin + 1) % g->count;
        g->queued[r] = 0;
        uint8_t now = (uint8_t)lk__grammar_flags(b, flags, lk__grammar_rule_at(b, r)->body);
        if (now == flags[r]) continue;
        flags[r] = now;
        for (uint32_t i = g->at[r]; i < g->at[r + 1]; i++) {
            uint32_t caller = g->list[i];
            if (g->queued[caller]) continue;
            g->queued[caller] = 1;
            g->queue[(begin + waiting - 1) % g->count] = caller;
            waiting++;
        }
    }
}

static uint64_t states(const struct lk__grammar_build *b, const uint32_t *sizes, uint32_t expr) {
    const struct lk__grammar_expr *e = lk__grammar_expr_at(b, expr);
    uint64_t n = 0, times;
    switch (e->kind) {
    case LK__GRAMMAR_LITERAL:
        return e->count;
    case LK__GRAMMAR_CLASS:
        return lk__grammar_expr_at(b, expr)->count > 8 ? 12 : 1 + e->count / 2;
    case LK__GRAMMAR_CALL:
        return sizes[e->first] ? sizes[e->first] : 1;
    case LK__GRAMMAR_REPEAT:
        times = e->most == LK__GRAMMAR_UNLIMITED ? e->least + 1 : e->most;
        n = states(b, sizes, lk__grammar_kids(b, e)[0]);
        return (n > LARGE ? LARGE : n) * times;
    default:
        for (uint32_t i = 0; i < e->count && n <= LARGE; i++) n += states(b, sizes, lk__grammar_kids(b, e)[i]);
        return n;
    }
}

/* Rules that call no others come first, then those that call only settled ones. Who is or calls a recursive rule never
 * comes, and stays apart. */
static void find_sizes(const struct lk__grammar_build *b, struct graph *g, uint32_t *sizes) {
    uint32_t begin = 0, end = 0;
    for (uint32_t r = 0; r < g->count; r++) {
        sizes[r] = 0;
        if (!g->left[r]) g->queue[end++] = r;
    }
    for (; begin < end; begin++) {
        uint32_t r = g->queue[begin], uses = g->at[r + 1] - g->at[r];
        uint64_t n = states(b, sizes, lk__grammar_rule_at(b, r)->body) + 1;
        if (!lk__grammar_rule_at(b, r)->apart && (n <= SMALL || (uses == 1 && n <= LARGE))) sizes[r] = (uint32_t)n;
        for (uint32_t i = g->at[r]; i < g->at[r + 1]; i++)
            if (!--g->left[g->list[i]]) g->queue[end++] = g->list[i];
    }
}

int lk__grammar_analyse(struct lk__grammar_build *b, uint8_t *flags, uint32_t *sizes) {
    struct graph g = {0};
    int code = make_graph(b, &g);
    if (!code) {
        find_flags(b, &g, flags);
        find_sizes(b, &g, sizes);
    }
    free_graph(&g);
    return code ? lk__grammar_fail(b, LK_ENOMEM, "no memory for a grammar") : LK_OK;
}
