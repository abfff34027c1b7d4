/* Whether a history of transactions is strictly serializable and its timestamps agree; tests only.
 * Transactions append to lists and write registers, and say what they read; every value is written once. From that the
 * order of versions follows, as in Adya's graphs (and Elle's): an edge goes from a transaction to one that must come behind
 * it. ww: it overwrote what the first wrote; wr: it read it; rw: it overwrote what the first read; time: it began when the
 * first had returned; stamp: it has a later timestamp. A cycle is an anomaly. */
#ifndef LK_STORE_KV_HISTORY_H
#define LK_STORE_KV_HISTORY_H
#include "base/testing.h"

enum history_op { HISTORY_APPEND, HISTORY_READ_LIST, HISTORY_WRITE, HISTORY_READ };
enum history_outcome { HISTORY_ABORTED, HISTORY_COMMITTED, HISTORY_UNKNOWN };
/* One thing that a transaction did; its values follow. value 0 of a register: absent. */
struct history_item {
    int txn, op, key, count, first; /* values[first..first+count) */
};
struct history_txn {
    uint64_t began, ended;
    int64_t stamp; /* 0: none */
    int outcome;
    bool reads_only; /* its stamp is that of the last transaction that it sees */
};
enum { HISTORY_WW, HISTORY_WR, HISTORY_RW, HISTORY_TIME, HISTORY_STAMP, HISTORY_KINDS };
struct history_edge {
    int from, to, kind;
};
struct history {
    struct history_txn *txns;
    struct history_item *items;
    struct history_edge *edges;
    int *values;
    int txn_count, item_count, edge_count, value_count, txn_room, item_room, edge_room, value_room;
    char problem[1024];
};

#define HISTORY_PUSH(h, what, x)                                                                                           \
    do {                                                                                                                   \
        if ((h)->what##_count == (h)->what##_room) {                                                                       \
            (h)->what##_room = (h)->what##_room ? 2 * (h)->what##_room : 64;                                               \
            (h)->what##s = realloc((h)->what##s, (size_t)(h)->what##_room * sizeof *(h)->what##s);                         \
        }                                                                                                                  \
        (h)->what##s[(h)->what##_count++] = x;                                                                             \
    } while (0)

static inline int history_begin(struct history *h, uint64_t began) {
    HISTORY_PUSH(h, txn, ((struct history_txn){began, began, 0, HISTORY_UNKNOWN, false}));
    return h->txn_count - 1;
}
static inline void history_do(struct history *h, int txn, int op, int key, const int *values, int count) {
    HISTORY_PUSH(h, item, ((struct history_item){txn, op, key, count, h->value_count}));
    for (int i = 0; i < count; i++) HISTORY_PUSH(h, value, values[i]);
}
static inline void history_end(struct history *h, int txn, uint64_t ended, int outcome, int64_t stamp) {
    h->txns[txn].ended = ended, h->txns[txn].outcome = outcome, h->txns[txn].stamp = stamp;
}
static inline void history_release(struct history *h) {
    free(h->txns), free(h->items), free(h->edges), free(h->values);
    memset(h, 0, sizeof *h);
}

/* --- who wrote what --------------------------------------------------------------------------------------------- */

struct history_write {
    int key, value, txn;
};
static inline int history_by_value(const void *a, const void *b) {
    const struct history_write *x = a, *y = b;
    return x->key != y->key ? (x->key > y->key) - (x->key < y->key) : (x->value > y->value) - (x->value < y->value);
}
struct history_index {
    struct history_write *at;
    int count;
};
static inline struct history_index history_index(const struct history *h) {
    struct history_index ix = {malloc(((size_t)h->item_count + 1) * sizeof *ix.at), 0};
    for (int i = 0; i < h->item_count; i++) {
        const struct history_item *it = &h->items[i];
        if (it->op == HISTORY_APPEND || it->op == HISTORY_WRITE)
            ix.at[ix.count++] = (struct history_write){it->key, h->values[it->first], it->txn};
    }
    qsort(ix.at, (size_t)ix.count, sizeof *ix.at, history_by_value);
    return ix;
}
static inline int history_writer(const struct history_index *ix, int key, int value) {
    struct history_write w = {key, value, 0}, *found = bsearch(&w, ix->at, (size_t)ix->count, sizeof w, history_by_value);
    return found ? found->txn : -1;
}
static inline bool history_fail(struct history *h, const char *format, ...) {
    va_list args;
    va_start(args, format);
    if (!h->problem[0]) vsnprintf(h->problem, sizeof h->problem, format, args);
    va_end(args);
    return false;
}
static inline void history_edge(struct history *h, int from, int to, int kind) {
    if (from >= 0 && to >= 0 && from != to) HISTORY_PUSH(h, edge, ((struct history_edge){from, to, kind}));
}
static inline bool history_counts(const struct history *h, int txn) {
    return h->txns[txn].outcome == HISTORY_COMMITTED;
}

/* --- edges -------------------------------------------------------------------------------------------------------- */

/* What was read of an unknown outcome has happened; what was read of an aborted one must not. */
static inline bool history_seen(struct history *h, const struct history_index *ix) {
    for (int i = 0; i < h->item_count; i++) {
        const struct history_item *it = &h->items[i];
        if (!history_counts(h, it->txn) || (it->op != HISTORY_READ && it->op != HISTORY_READ_LIST)) continue;
        for (int v = 0; v < it->count; v++) {
            int value = h->values[it->first + v], w = value ? history_writer(ix, it->key, value) : it->txn;
            if (w < 0)
                return history_fail(h, "transaction %d read %d of key %d, which nobody wrote", it->txn, value, it->key);
            if (h->txns[w].outcome == HISTORY_ABORTED)
                return history_fail(h, "transaction %d read %d of key %d, of the aborted transaction %d", it->txn, value,
                                    it->key, w);
            h->txns[w].outcome = HISTORY_COMMITTED; /* its reads are not looked at again: they were looked at or come */
        }
    }
    return true;
}

/* The longest list that was read of a key is the order of its versions, and all others are its beginnings. */
static inline bool history_lists(struct history *h, const struct history_index *ix) {
    int keys = 0;
    for (int i = 0; i < h->item_count; i++)
        if (h->items[i].key >= keys) keys = h->items[i].key + 1;
    int *longest = malloc(((size_t)keys + 1) * sizeof *longest);
    bool good = true;
    for (int k = 0; k < keys; k++) longest[k] = -1;
    for (int i = 0; i < h->item_count; i++) {
        const struct history_item *it = &h->items[i];
        if (it->op != HISTORY_READ_LIST || !history_counts(h, it->txn)) continue;
        int *best = &longest[it->key];
        const struct history_item *b = *best < 0 ? NULL : &h->items[*best], *shorter = !b || b->count < it->count ? b : it;
        const struct history_item *other = shorter == it ? b : it;
        if (shorter &&
            memcmp(&h->values[shorter->first], &h->values[other->first], (size_t)shorter->count * sizeof(int)) != 0)
            good =
                history_fail(h, "transactions %d and %d read key %d in orders that contradict", it->txn, b->txn, it->key);
        if (!b || b->count < it->count) *best = i;
    }
    for (int k = 0; k < keys && good; k++) {
        const struct history_item *b = longest[k] < 0 ? NULL : &h->items[longest[k]];
        for (int v = 0; b && v + 1 < b->count; v++)
            history_edge(h, history_writer(ix, k, h->values[b->first + v]),
                         history_writer(ix, k, h->values[b->first + v + 1]), HISTORY_WW);
    }
    for (int i = 0; i < h->item_count && good; i++) {
        const struct history_item *it = &h->items[i], *b = it->op == HISTORY_READ_LIST ? &h->items[longest[it->key]] : NULL;
        if (!b || !history_counts(h, it->txn)) continue;
        /* own appends at the end are not of others */
        int n = it->count;
        while (n && history_writer(ix, it->key, h->values[it->first + n - 1]) == it->txn) n--;
        if (n) history_edge(h, history_writer(ix, it->key, h->values[it->first + n - 1]), it->txn, HISTORY_WR);
        for (n = it->count; n < b->count && history_writer(ix, it->key, h->values[b->first + n]) == it->txn;) n++;
        if (n < b->count) history_edge(h, it->txn, history_writer(ix, it->key, h->values[b->first + n]), HISTORY_RW);
        /* appends that nobody ever saw come behind all that were seen */
        for (int w = 0; n == b->count && w < ix->count; w++) {
            if (ix->at[w].key != it->key || !history_counts(h, ix->at[w].txn)) continue;
            bool in_order = false;
            for (int v = 0; v < b->count; v++) in_order = in_order || h->values[b->first + v] == ix->at[w].value;
            if (!in_order) history_edge(h, it->txn, ix->at[w].txn, HISTORY_RW);
        }
    }
    free(longest);
    return good;
}

/* A transaction that read a register and then wrote it overwrote what it read. */
static inline void history_registers(struct history *h, const struct history_index *ix) {
    for (int i = 0; i < h->item_count; i++) {
        const struct history_item *r = &h->items[i];
        if (r->op != HISTORY_READ || !history_counts(h, r->txn)) continue;
        int value = h->values[r->first];
        int writer = value ? history_writer(ix, r->key, value) : -1;
        if (writer == r->txn) continue;
        history_edge(h, writer, r->txn, HISTORY_WR);
        bool writes = false;
        for (int j = i + 1; j < h->item_count && h->items[j].txn == r->txn; j++)
            writes = writes || (h->items[j].op == HISTORY_WRITE && h->items[j].key == r->key);
        if (!writes) continue;
        history_edge(h, writer, r->txn, HISTORY_WW);
        for (int j = 0; j < h->item_count; j++) { /* all others that read that version come before it */
            const struct history_item *o = &h->items[j];
            if (o->op == HISTORY_READ && o->key == r->key && h->values[o->first] == value && history_counts(h, o->txn))
                history_edge(h, o->txn, r->txn, HISTORY_RW);
        }
    }
}

struct history_event {
    uint64_t at;
    bool end;
    int txn;
};
static inline int history_by_time(const void *a, const void *b) {
    const struct history_event *x = a, *y = b;
    return x->at != y->at ? (x->at > y->at) - (x->at < y->at) : (int)x->end - (int)y->end; /* begins first: no edge */
}
/* A node for each end, in their order, stands between those that ended by then and those that begin later. */
static inline void history_times(struct history *h) {
    struct history_event *e = malloc(2 * ((size_t)h->txn_count + 1) * sizeof *e);
    int n = 0, last = -1;
    for (int t = 0; t < h->txn_count; t++) {
        if (!history_counts(h, t)) continue;
        e[n++] = (struct history_event){h->txns[t].began, false, t};
        if (h->txns[t].ended) e[n++] = (struct history_event){h->txns[t].ended, true, t};
    }
    qsort(e, (size_t)n, sizeof *e, history_by_time);
    for (int i = 0; i < n; i++) {
        int node = h->txn_count + e[i].txn;
        if (!e[i].end) {
            history_edge(h, last, e[i].txn, HISTORY_TIME);
        } else {
            history_edge(h, e[i].txn, node, HISTORY_TIME);
            history_edge(h, last, node, HISTORY_TIME);
            last = node;
        }
    }
    free(e);
}

static struct history *history_sorted; /* for qsort */
static inline int history_by_stamp(const void *a, const void *b) {
    const struct history_txn *x = &history_sorted->txns[*(const int *)a], *y = &history_sorted->txns[*(const int *)b];
    return x->stamp != y->stamp ? (x->stamp > y->stamp) - (x->stamp < y->stamp) : (int)x->reads_only - (int)y->reads_only;
}
static inline bool history_stamps(struct history *h) {
    int *order = malloc(((size_t)h->txn_count + 1) * sizeof *order), n = 0, writer = -1;
    bool good = true;
    for (int t = 0; t < h->txn_count; t++)
        if (history_counts(h, t) && h->txns[t].stamp) order[n++] = t;
    history_sorted = h;
    qsort(order, (size_t)n, sizeof *order, history_by_stamp);
    for (int i = 0; i < n && good; i++) {
        const struct history_txn *t = &h->txns[order[i]];
        history_edge(h, writer, order[i], HISTORY_STAMP);
        if (t->reads_only) continue;
        if (writer >= 0 && h->txns[writer].stamp == t->stamp)
            good = history_fail(h, "transactions %d and %d have the same timestamp", writer, order[i]);
        for (int j = i - 1; j >= 0 && h->txns[order[j]].reads_only; j--) history_edge(h, order[j], order[i], HISTORY_STAMP);
        writer = order[i];
    }
    free(order);
    return good;
}

/* --- cycles --------------------------------------------------------------------------------------------------------- */

/* Edges of the first `kinds` kinds, by their `from`. */
struct history_graph {
    int nodes, *first, *to, *kind;
};
static inline struct history_graph history_graph(const struct history *h, int kinds) {
    struct history_graph g = {2 * h->txn_count, NULL, NULL, NULL};
    g.first = calloc((size_t)g.nodes + 2, sizeof(int));
    g.to = malloc(((size_t)h->edge_count + 1) * sizeof(int)), g.kind = malloc(((size_t)h->edge_count + 1) * sizeof(int));
    for (int e = 0; e < h->edge_count; e++)
        if (h->edges[e].kind < kinds) g.first[h->edges[e].from + 2]++;
    for (int i = 2; i <= g.nodes + 1; i++) g.first[i] += g.first[i - 1];
    for (int e = 0; e < h->edge_count; e++) {
        if (h->edges[e].kind >= kinds) continue;
        int at = g.first[h->edges[e].from + 1]++;
        g.to[at] = h->edges[e].to, g.kind[at] = h->edges[e].kind;
    }
    return g;
}

/* Takes away, again and again, nodes that nothing leads to; what stays holds cycles. */
static inline int history_peel(const struct history_graph *g, bool *left) {
    int *in = calloc((size_t)g->nodes + 1, sizeof *in), *free_nodes = malloc(((size_t)g->nodes + 1) * sizeof *in), n = 0;
    int stays = g->nodes;
    for (int e = 0; e < g->first[g->nodes]; e++) in[g->to[e]]++;
    for (int i = 0; i < g->nodes; i++) {
        left[i] = true;
        if (!in[i]) free_nodes[n++] = i;
    }
    while (n) {
        int node = free_nodes[--n];
        left[node] = false, stays--;
        for (int e = g->first[node]; e < g->first[node + 1]; e++)
            if (--in[g->to[e]] == 0) free_nodes[n++] = g->to[e];
    }
    free(in), free(free_nodes);
    return stays;
}

/* The shortest way from a node back to itself, as text; 0: there is none. */
static inline int history_cycle_at(const struct history *h, const struct history_graph *g, int start, char *out,
                                   size_t size) {
    static const char *const names[] = {"ww", "wr", "rw", "time", "stamp"};
    int *via = malloc((size_t)g->nodes * sizeof *via), *from = malloc((size_t)g->nodes * sizeof *from);
    int *queue = malloc((size_t)g->nodes * sizeof *queue), head = 0, tail = 0, end = -1, end_edge = -1, length = 0;
    for (int i = 0; i < g->nodes; i++) via[i] = -1, from[i] = -1;
    queue[tail++] = start;
    while (head < tail && end < 0) {
        int node = queue[head++];
        for (int e = g->first[node]; e < g->first[node + 1] && end < 0; e++) {
            if (g->to[e] == start)
                end = node, end_edge = e;
            else if (via[g->to[e]] < 0)
                via[g->to[e]] = e, from[g->to[e]] = node, queue[tail++] = g->to[e];
        }
    }
    char text[1024] = "";
    if (end >= 0) {
        int node = end, edge = end_edge;
        snprintf(text, sizeof text, "%d", start);
        for (;;) {
            char more[1024];
            length += node < h->txn_count;
            if (node < h->txn_count && g->kind[edge] < HISTORY_KINDS)
                snprintf(more, sizeof more, "%d -%s-> %.900s", node, names[g->kind[edge]], text);
            else
                snprintf(more, sizeof more, "%.1000s", text);
            memcpy(text, more, sizeof text);
            if (node == start) break;
            edge = via[node], node = from[node];
        }
    }
    snprintf(out, size, "%s", text);
    free(via), free(from), free(queue);
    return length;
}

static inline bool history_cycles(struct history *h, int kinds, const char *what) {
    struct history_graph g = history_graph(h, kinds);
    bool *left = malloc((size_t)g.nodes + 1), good = true;
    if (history_peel(&g, left) > 0) {
        char best[1024] = "", text[1024];
        int shortest = 0, tried = 0;
        for (int i = 0; i < h->txn_count && tried < 5000; i++) {
            int length = left[i] ? history_cycle_at(h, &g, i, text, sizeof text) : 0;
            tried += left[i];
            if (length && (!shortest || length < shortest)) shortest = length, memcpy(best, text, sizeof best);
        }
        good = history_fail(h, "%s: %s", what, best);
    }
    free(left), free(g.first), free(g.to), free(g.kind);
    return good;
}

/* NULL: all is well; else what is wrong, with the transactions of a shortest cycle. */
static inline const char *history_check(struct history *h) {
    struct history_index ix = history_index(h);
    bool good = true;
    for (int i = 1; i < ix.count && good; i++)
        if (history_by_value(&ix.at[i - 1], &ix.at[i]) == 0)
            good = history_fail(h, "value %d of key %d was written twice", ix.at[i].value, ix.at[i].key);
    good = good && history_seen(h, &ix) && history_lists(h, &ix);
    if (good) history_registers(h, &ix);
    good = good && history_cycles(h, HISTORY_TIME, "not serializable");
    if (good) history_times(h);
    good = good && history_cycles(h, HISTORY_STAMP, "not in the order of real time");
    good = good && history_stamps(h) && history_cycles(h, HISTORY_KINDS, "timestamps contradict the order");
    free(ix.at);
    return good ? NULL : h->problem;
}

#endif
