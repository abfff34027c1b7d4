/* A second way to decide what a grammar allows, for tests: random grammars, as GBNF for the engine, and tables of which
 * parts match which stretches of a text, filled again and again until nothing changes. Slow, and nothing of the engine is
 * in it. */
#ifndef LOCKSTEP_SERVE_GRAMMAR_RECOGNISER_H
#define LOCKSTEP_SERVE_GRAMMAR_RECOGNISER_H
#include "base/testing.h"

#define RULES 4
#define NODES 60
#define LONG  40 /* bytes of a text at most: the ends of a stretch are bits of a word */

struct node {
    enum { TEXT, CLASS, SEQUENCE, CHOICE, REPEAT, CALL } kind;
    int kids[3], count;
    int least, most; /* of REPEAT; most -1: without end. Of CALL: least is the rule */
    bool negated;
    uint32_t characters[3]; /* of TEXT and CLASS: count of them */
};
struct random_grammar {
    struct node nodes[NODES];
    int node_count, bodies[RULES];
    struct test_random *random;
};

static const uint32_t alphabet[] = {'a', 'b', 'c', 0xE9, 0x20AC, 0x1F600};
static inline size_t utf8(uint32_t c, char *out) {
    if (c < 0x80) return out[0] = (char)c, 1;
    if (c < 0x800) return out[0] = (char)(0xC0 | c >> 6), out[1] = (char)(0x80 | (c & 63)), 2;
    if (c < 0x10000)
        return out[0] = (char)(0xE0 | c >> 12), out[1] = (char)(0x80 | (c >> 6 & 63)), out[2] = (char)(0x80 | (c & 63)), 3;
    out[0] = (char)(0xF0 | c >> 18), out[1] = (char)(0x80 | (c >> 12 & 63)), out[2] = (char)(0x80 | (c >> 6 & 63));
    return out[3] = (char)(0x80 | (c & 63)), 4;
}

/* --- making ------------------------------------------------------------------------------------------------ */

static inline int random_node(struct random_grammar *g, int depth) {
    struct test_random *r = g->random;
    int id = g->node_count++;
    struct node n = {.kind = test_random_below(r, 10) < 3 ? TEXT : CLASS};
    if (depth < 4 && g->node_count < NODES - 12) {
        static const int kinds[] = {TEXT, TEXT, CLASS, SEQUENCE, SEQUENCE, SEQUENCE, CHOICE, CHOICE, REPEAT, CALL, CALL};
        n.kind = kinds[test_random_below(r, 11)];
    }
    n.count = n.kind == TEXT ? (int)test_random_below(r, 3) : 1 + (int)test_random_below(r, 3);
    for (int i = 0; i < n.count; i++) n.characters[i] = alphabet[test_random_below(r, 6)];
    n.negated = n.kind == CLASS && test_random_below(r, 4) == 0;
    n.least = (int)test_random_below(r, n.kind == CALL ? RULES : 3);
    n.most = test_random_below(r, 2) ? -1 : n.least + (int)test_random_below(r, test_random_below(r, 2) ? 3 : 12);
    if (n.kind == REPEAT) n.count = 1;
    for (int i = 0; i < n.count && n.kind >= SEQUENCE && n.kind <= REPEAT; i++) n.kids[i] = random_node(g, depth + 1);
    g->nodes[id] = n;
    return id;
}
static inline void random_grammar(struct random_grammar *g, struct test_random *r) {
    *g = (struct random_grammar){.random = r};
    for (int i = 0; i < RULES; i++) g->bodies[i] = random_node(g, 0);
}

static inline void print_node(const struct random_grammar *g, int id, struct lk_buf *out) {
    const struct node *n = &g->nodes[id];
    char c[4];
    switch (n->kind) {
    case TEXT:
    case CLASS:
        OK(lk_buf_printf(out, n->kind == TEXT ? "\"" : n->negated ? "[^" : "["));
        for (int i = 0; i < n->count; i++) OK(lk_buf_append(out, c, utf8(n->characters[i], c)));
        OK(lk_buf_printf(out, n->kind == TEXT ? "\"" : "]"));
        return;
    case CALL:
        OK(lk_buf_printf(out, n->least ? "r%d" : "root", n->least));
        return;
    default:
        OK(lk_buf_printf(out, "("));
        for (int i = 0; i < n->count; i++) {
            if (i) OK(lk_buf_printf(out, n->kind == CHOICE ? " | " : " "));
            print_node(g, n->kids[i], out);
        }
        OK(lk_buf_printf(out, ")"));
        if (n->kind == REPEAT)
            OK(n->most < 0 ? lk_buf_printf(out, "{%d,}", n->least) : lk_buf_printf(out, "{%d,%d}", n->least, n->most));
    }
}
static inline void print_grammar(const struct random_grammar *g, struct lk_buf *out) {
    for (int i = 0; i < RULES; i++) {
        OK(lk_buf_printf(out, i ? "r%d ::= " : "root ::= ", i));
        print_node(g, g->bodies[i], out);
        OK(lk_buf_printf(out, "\n"));
    }
}

/* --- deciding ---------------------------------------------------------------------------------------------- */

struct tables {
    const struct random_grammar *g;
    const uint8_t *text;
    int size;
    bool productive[RULES], changed;
    uint64_t ends[RULES][LONG + 1]; /* of a rule that begins at a place: bit e, it may end before byte e */
    bool open[RULES][LONG + 1];     /* the text ends before it does */
};

static inline bool has_text(const struct tables *t, int id) {
    const struct node *n = &t->g->nodes[id];
    bool all = true, any = false;
    switch (n->kind) {
    case TEXT:
    case CLASS:
        return true; /* there are more characters than a class leaves out */
    case CALL:
        return t->productive[n->least];
    case REPEAT:
        return n->least == 0 || has_text(t, n->kids[0]);
    default:
        for (int i = 0; i < n->count; i++) {
            bool one = has_text(t, n->kids[i]);
            all &= one;
            any |= one;
        }
        return n->kind == CHOICE ? any : all;
    }
}

/* The character at a place: its bytes, 0 if there is none, -1 if the text ends within it. */
static inline int character_at(const struct tables *t, int at, uint32_t *out) {
    int left = t->size - at;
    const uint8_t *p = t->text + at;
    if (!left) return -1;
    int size = *p < 0x80 ? 1 : *p < 0xC2 ? 0 : *p < 0xE0 ? 2 : *p < 0xF0 ? 3 : *p < 0xF5 ? 4 : 0;
    *out = size == 1 ? *p : *p & (0xFF >> (size + 1));
    for (int i = 1; i < size; i++) {
        if (i >= left) return -1;
        int least = i > 1 ? 0x80 : *p == 0xE0 ? 0xA0 : *p == 0xF0 ? 0x90 : 0x80;
        int most = i > 1 ? 0xBF : *p == 0xED ? 0x9F : *p == 0xF4 ? 0x8F : 0xBF;
        if (p[i] < least || p[i] > most) return 0;
        *out = *out << 6 | (p[i] & 63);
    }
    return size;
}

/* Where a part may end that begins at a place; *open: where the text ends before it does. */
static inline uint64_t ends_of(const struct tables *t, int id, int at, bool *open) {
    const struct node *n = &t->g->nodes[id];
    uint64_t ends = 0;
    switch (n->kind) {
    case TEXT: {
        char bytes[16];
        int size = 0, i = 0;
        for (int k = 0; k < n->count; k++) size += (int)utf8(n->characters[k], bytes + size);
        while (i < size && at + i < t->size && t->text[at + i] == (uint8_t)bytes[i]) i++;
        *open |= at + i == t->size && i < size;
        return i == size ? (uint64_t)1 << (at + size) : 0;
    }
    case CLASS: {
        uint32_t c;
        int size = character_at(t, at, &c), left = t->size - at;
        if (!size) return 0;
        if (size < 0) {               /* may it become one of the class? */
            if (left && n->negated) { /* yes, unless no well-formed character begins so */
                for (uint32_t x = 0x80; x < 0x110000; x++) {
                    char bytes[4];
                    if (x >= 0xD800 && x < 0xE000) continue;
                    bool listed = false;
                    for (int i = 0; i < n->count; i++) listed |= n->characters[i] == x;
                    if (!listed && (int)utf8(x, bytes) > left && !memcmp(bytes, t->text + at, (size_t)left)) {
                        *open = true;
                        break;
                    }
                }
            } else if (left) {
                for (int i = 0; i < n->count; i++) {
                    char bytes[4];
                    *open |= (int)utf8(n->characters[i], bytes) > left && !memcmp(bytes, t->text + at, (size_t)left);
                }
            } else
                *open = true;
            return 0;
        }
        bool listed = false;
        for (int i = 0; i < n->count; i++) listed |= n->characters[i] == c;
        return listed != n->negated ? (uint64_t)1 << (at + size) : 0;
    }
    case CALL:
        *open |= t->open[n->least][at];
        return t->ends[n->least][at];
    case CHOICE:
        for (int i = 0; i < n->count; i++)
            if (has_text(t, n->kids[i])) ends |= ends_of(t, n->kids[i], at, open);
        return ends;
    case SEQUENCE:
        if (!has_text(t, id)) return 0;
        ends = (uint64_t)1 << at;
        for (int i = 0; i < n->count; i++) {
            uint64_t next = 0;
            for (int e = at; e <= t->size; e++)
                if (ends >> e & 1) next |= ends_of(t, n->kids[i], e, open);
            ends = next;
        }
        return ends;
    case REPEAT: {
        uint64_t now = (uint64_t)1 << at, seen = 0;
        if (n->least == 0) ends = now;
        if (!has_text(t, n->kids[0])) return ends;
        for (int k = 1; now && (n->most < 0 || k <= n->most); k++) {
            uint64_t next = 0;
            for (int e = at; e <= t->size; e++)
                if (now >> e & 1) next |= ends_of(t, n->kids[0], e, open);
            if (k >= n->least) {
                if (n->most < 0) next &= ~seen, seen |= next;
                ends |= next;
            }
            now = next;
        }
        return ends;
    }
    }
    return 0;
}

/* As test_text: 'y', 'p' or 'n'. */
static inline char recognise(const struct random_grammar *g, const void *text, size_t size) {
    static struct tables t;
    memset(&t, 0, sizeof t);
    t.g = g, t.text = text, t.size = (int)size;
    assert_true(size <= LONG);
    for (int round = 0; round < RULES; round++)
        for (int r = 0; r < RULES; r++) t.productive[r] = has_text(&t, g->bodies[r]);
    if (!t.productive[0]) return 'n';
    do {
        t.changed = false;
        for (int r = RULES; r-- > 0;)
            for (int at = (int)size; at >= 0 && t.productive[r]; at--) {
                bool open = t.open[r][at];
                uint64_t ends = t.ends[r][at] | ends_of(&t, g->bodies[r], at, &open);
                t.changed |= ends != t.ends[r][at] || open != t.open[r][at];
                t.ends[r][at] = ends, t.open[r][at] = open;
            }
    } while (t.changed);
    return t.ends[0][0] >> size & 1 ? 'y' : t.open[0][0] ? 'p' : 'n';
}

#endif
