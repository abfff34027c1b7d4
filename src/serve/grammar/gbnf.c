/* llama.cpp's GBNF: rules of alternatives over characters. */
#include "serve/grammar/build.h"
#include <string.h>

struct parser {
    struct lk__grammar_build *b;
    const uint8_t *text;
    size_t size, at;
    struct lk__grammar_array kids, ranges; /* kids: a stack of expressions that wait for their sequence or choice */
    uint32_t *slots, slot_mask;            /* rules by name: rule + 1 */
    struct name *names;                    /* of each rule */
    uint32_t depth;
};
struct name {
    size_t defined, used; /* where, plus 1; 0: not yet */
};

static void place(const struct parser *p, size_t at, unsigned *line, unsigned *column) {
    *line = *column = 1;
    for (size_t i = 0; i < at && i < p->size; i++)
        if (p->text[i] == '\n')
            ++*line, *column = 1;
        else if ((p->text[i] & 0xC0) != 0x80)
            ++*column;
}
#define FAIL_AT(p, code, where, ...)                                                                                       \
    do {                                                                                                                   \
        unsigned line_, column_;                                                                                           \
        char what_[512];                                                                                                   \
        place(p, where, &line_, &column_);                                                                                 \
        snprintf(what_, sizeof what_, __VA_ARGS__);                                                                        \
        lk__grammar_fail((p)->b, code, "line %u, column %u: %s", line_, column_, what_);                                   \
    } while (0)
#define WRONG(p, where, ...) FAIL_AT(p, LK_EINVAL, where, __VA_ARGS__)

static bool ok(const struct parser *p) {
    return !p->b->code;
}
static int peek(const struct parser *p) {
    return p->at < p->size ? p->text[p->at] : -1;
}
static bool is_word(int c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}
static bool is_digit(int c) {
    return c >= '0' && c <= '9';
}
/* White space and comments; ends of lines too where a rule goes on behind them. */
static void space(struct parser *p, bool lines) {
    for (int c; (c = peek(p)) >= 0;) {
        if (c == '#')
            while (peek(p) >= 0 && peek(p) != '\n' && peek(p) != '\r') p->at++;
        else if (c == ' ' || c == '\t' || (lines && (c == '\n' || c == '\r')))
            p->at++;
        else
            return;
    }
}

/* --- rules by name ----------------------------------------------------------------------------------------- */

/* At most one rule begins or is called in two bytes of text. */
static void make_slots(struct parser *p) {
    uint32_t slots = 64;
    while (slots < p->size && slots < 4 * LK__GRAMMAR_RULES_MOST) slots *= 2;
    p->slot_mask = slots - 1;
    p->slots = lk_calloc(slots, sizeof *p->slots);
    p->names = lk_calloc(slots / 2, sizeof *p->names);
    if (!p->slots || !p->names) lk__grammar_fail(p->b, LK_ENOMEM, "no memory for a grammar");
}
static uint32_t rule_named(struct parser *p, size_t at, size_t size) {
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < size; i++) h = (h ^ p->text[at + i]) * 16777619u;
    for (h ^= h >> 15;; h++) {
        uint32_t *slot = &p->slots[h & p->slot_mask];
        if (!*slot) {
            if (p->b->rules.count >= (p->slot_mask + 1) / 2) {
                lk__grammar_fail(p->b, LK_EINVAL, "the grammar is too large: too many rules; make it smaller");
                return 0;
            }
            uint32_t made = lk__grammar_rule(p->b, (const char *)p->text + at, size, false);
            if (ok(p)) *slot = made + 1;
            return made;
        }
        const char *name = lk__grammar_rule_at(p->b, *slot - 1)->name;
        if (strlen(name) == size && !memcmp(name, p->text + at, size)) return *slot - 1;
    }
}
static size_t word(struct parser *p) {
    size_t begin = p->at;
    while (is_word(peek(p))) p->at++;
    return p->at - begin;
}

/* --- characters -------------------------------------------------------------------------------------------- */

static uint32_t hex(struct parser *p, size_t from, int digits) {
    uint32_t c = 0;
    for (int i = 0; i < digits; i++, p->at++) {
        int d = peek(p);
        bool letter = (d >= 'a' && d <= 'f') || (d >= 'A' && d <= 'F');
        if (!is_digit(d) && !letter) {
            WRONG(p, from, "this escape needs %d hexadecimal digits", digits);
            return 0;
        }
        c = c << 4 | (uint32_t)(letter ? (d | 0x20) - 'a' + 10 : d - '0');
    }
    if (c > LK__GRAMMAR_LAST_CHAR || (c >= 0xD800 && c <= 0xDFFF))
        WRONG(p, from, "U+%04X is no character: they go to U+10FFFF, without U+D800 to U+DFFF", c);
    return c;
}

static uint32_t escape(struct parser *p) {
    size_t from = p->at++;
    int c = peek(p);
    p->at++;
    switch (c) {
    case 'x':
        return hex(p, from, 2);
    case 'u':
        return hex(p, from, 4);
    case 'U':
        return hex(p, from, 8);
    case 't':
        return '\t';
    case 'r':
        return '\r';
    case 'n':
        return '\n';
    case '\\':
    case '"':
    case '[':
    case ']':
    case '-':
    case '^':
        return (uint32_t)c;
    default:
        WRONG(p, from, "unknown escape: there are \\n \\r \\t \\\\ \\\" \\[ \\] \\- \\^ \\xHH \\uHHHH \\UHHHHHHHH");
        return 0;
    }
}

/* One character of UTF-8, or an escape. */
static uint32_t character(struct parser *p) {
    int c = peek(p);
    if (c == '\\') return escape(p);
    uint32_t value = (uint32_t)c;
    size_t size = c < 0x80 ? 1 : c < 0xC2 ? 0 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : c < 0xF5 ? 4 : 0;
    if (size > 1) value &= 0xFFu >> (size + 1);
    for (size_t i = 1; i < size; i++) {
        if (p->at + i >= p->size || (p->text[p->at + i] & 0xC0) != 0x80)
            size = 0;
        else
            value = value << 6 | (p->text[p->at + i] & 0x3F);
    }
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (!size || value < least[size] || value > LK__GRAMMAR_LAST_CHAR || (value >= 0xD800 && value <= 0xDFFF)) {
        WRONG(p, p->at, "the grammar is not UTF-8 here: save it as UTF-8");
        return 0;
    }
    p->at += size;
    return value;
}

static size_t encode(uint32_t c, char *out) {
    if (c < 0x80) return out[0] = (char)c, 1;
    size_t size = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = size; i-- > 1; c >>= 6) out[i] = (char)(0x80 | (c & 0x3F));
    out[0] = (char)((0xF00u >> size & 0xF0) | c);
    return size;
}

static uint32_t literal(struct parser *p) {
    size_t from = p->at++;
    struct lk_buf bytes = LK_BUF_INIT;
    while (ok(p) && peek(p) != '"') {
        if (peek(p) < 0 || peek(p) == '\n') {
            WRONG(p, from, "this text has no end: close it with \" on the same line, and write a new line as \\n");
            break;
        }
        char utf8[4];
        uint32_t c = character(p);
        if (ok(p) && lk_buf_append(&bytes, utf8, encode(c, utf8)))
            lk__grammar_fail(p->b, LK_ENOMEM, "no memory for a grammar");
    }
    p->at++;
    uint32_t id = lk__grammar_literal(p->b, bytes.data, bytes.size);
    lk_buf_release(&bytes);
    return id;
}

static uint32_t class(struct parser *p) {
    size_t from = p->at++, count = 0;
    bool negated = peek(p) == '^';
    p->at += negated;
    p->ranges.count = 0;
    while (ok(p) && peek(p) != ']') {
        if (peek(p) < 0 || peek(p) == '\n') {
            WRONG(p, from, "this class has no end: close it with ]");
            break;
        }
        size_t begin = p->at;
        struct lk__grammar_range r, *room;
        r.first = r.last = character(p);
        if (ok(p) && peek(p) == '-' && p->at + 1 < p->size && p->text[p->at + 1] != ']') {
            p->at++;
            r.last = character(p);
        }
        if (ok(p) && r.last < r.first) WRONG(p, begin, "this range goes backwards: put the lower character first");
        if (!ok(p)) break;
        if (!(room = lk__grammar_room(&p->ranges, 1, sizeof *room))) {
            lk__grammar_fail(p->b, LK_ENOMEM, "no memory for a grammar");
            break;
        }
        *room = r;
        count = ++p->ranges.count;
    }
    p->at++;
    if (ok(p) && !count && !negated) WRONG(p, from, "this class is empty: nothing matches it");
    return lk__grammar_class(p->b, p->ranges.data, count, negated);
}

/* --- sequences and alternatives ---------------------------------------------------------------------------- */

static uint32_t alternatives(struct parser *p, bool group);

static uint32_t number(struct parser *p) {
    size_t from = p->at;
    uint64_t n = 0;
    for (; is_digit(peek(p)); p->at++) n = n > LK__GRAMMAR_REPEAT_MOST ? n : n * 10 + (uint64_t)(peek(p) - '0');
    if (p->at == from)
        WRONG(p, from, "a number of repetition must stand here, as {3}, {3,} or {3,5}");
    else if (n > LK__GRAMMAR_REPEAT_MOST)
        WRONG(p, from, "a number of repetition is at most %d", LK__GRAMMAR_REPEAT_MOST);
    return (uint32_t)n;
}

static uint32_t repetition(struct parser *p, uint32_t kid) {
    size_t from = p->at;
    int c = peek(p);
    uint32_t least = c == '+', most = c == '?' ? 1 : LK__GRAMMAR_UNLIMITED;
    p->at++;
    if (c == '{') {
        space(p, true);
        least = most = number(p);
        space(p, true);
        if (ok(p) && peek(p) == ',') {
            p->at++;
            space(p, true);
            most = is_digit(peek(p)) ? number(p) : LK__GRAMMAR_UNLIMITED;
            space(p, true);
        }
        if (ok(p) && peek(p) != '}') WRONG(p, p->at, "} must stand here, as in {3,5}");
        p->at++;
        if (ok(p) && least > most) WRONG(p, from, "{%u,%u} goes backwards: put the lower number first", least, most);
    }
    return lk__grammar_repeat(p->b, kid, least, most);
}

static uint32_t group(struct parser *p) {
    size_t from = p->at++;
    if (++p->depth > LK__GRAMMAR_DEPTH_MOST) {
        WRONG(p, from, "groups are nested deeper than %d: make a rule of a part", LK__GRAMMAR_DEPTH_MOST);
        return 0;
    }
    space(p, true);
    uint32_t id = alternatives(p, true);
    p->depth--;
    if (ok(p) && peek(p) != ')') WRONG(p, from, "this group has no end: close it with )");
    p->at++;
    return id;
}

/* Something that may be repeated; false: the sequence is over. */
static bool item(struct parser *p, uint32_t *out) {
    size_t from = p->at;
    int c = peek(p);
    struct lk__grammar_range none;
    if (c == '"')
        *out = literal(p);
    else if (c == '[')
        *out = class(p);
    else if (c == '(')
        *out = group(p);
    else if (c == '.') {
        p->at++;
        *out = lk__grammar_class(p->b, &none, 0, true);
    } else if (is_word(c)) {
        size_t size = word(p);
        uint32_t rule = rule_named(p, from, size);
        *out = lk__grammar_call(p->b, rule);
        if (ok(p) && !p->names[rule].used) p->names[rule].used = from + 1;
    } else if (c == '<' || c == '!') {
        FAIL_AT(p, LK_EUNSUPPORTED, from,
                "tokens as terminals (<[1000]>, <think>) are not supported: write the text of it");
        return false;
    } else if (c == '*' || c == '+' || c == '?' || c == '{') {
        WRONG(p, from, "there is nothing before %c to repeat: put it behind a text, a class, a group or a rule", c);
        return false;
    } else
        return false;
    return ok(p);
}

static void push(struct parser *p, uint32_t id) {
    uint32_t *room = lk__grammar_room(&p->kids, 1, sizeof *room);
    if (!room)
        lk__grammar_fail(p->b, LK_ENOMEM, "no memory for a grammar");
    else
        *room = id, p->kids.count++;
}
static const uint32_t *pop(struct parser *p, size_t to) {
    p->kids.count = to;
    return (const uint32_t *)p->kids.data + to;
}

static uint32_t sequence(struct parser *p, bool lines) {
    size_t begin = p->kids.count;
    uint32_t id;
    while (ok(p) && item(p, &id)) {
        space(p, lines);
        while (ok(p) && (peek(p) == '*' || peek(p) == '+' || peek(p) == '?' || peek(p) == '{')) {
            id = repetition(p, id);
            space(p, lines);
        }
        if (ok(p)) push(p, id);
    }
    size_t count = p->kids.count - begin;
    if (!ok(p)) return 0;
    return count ? lk__grammar_sequence(p->b, pop(p, begin), count) : lk__grammar_literal(p->b, "", 0);
}

static uint32_t alternatives(struct parser *p, bool lines) {
    size_t begin = p->kids.count;
    for (bool more = true; more && ok(p);) {
        uint32_t id = sequence(p, lines);
        if (ok(p)) push(p, id);
        if ((more = ok(p) && peek(p) == '|')) {
            p->at++;
            space(p, true);
        }
    }
    size_t count = p->kids.count - begin;
    return ok(p) ? lk__grammar_choice(p->b, pop(p, begin), count) : 0;
}

static void rule(struct parser *p) {
    size_t from = p->at, size = word(p);
    if (!size) {
        WRONG(p, from, "a rule must begin here, as: name ::= \"text\"");
        return;
    }
    uint32_t id = rule_named(p, from, size);
    space(p, false);
    if (ok(p) && (p->size - p->at < 3 || memcmp(p->text + p->at, "::=", 3))) {
        WRONG(p, p->at, "::= must stand here, behind the name of the rule %.*s", (int)(size < 64 ? size : 64),
              p->text + from);
        return;
    }
    if (!ok(p)) return;
    p->at += 3;
    space(p, true);
    if (p->names[id].defined) {
        WRONG(p, from, "the rule %.64s is there twice: join the alternatives by |", lk__grammar_rule_at(p->b, id)->name);
        return;
    }
    p->names[id].defined = from + 1;
    lk__grammar_body(p->b, id, alternatives(p, false));
    int c = peek(p);
    if (ok(p) && c >= 0 && c != '\n' && c != '\r')
        WRONG(p, p->at, "%s",
              c == ')' ? "there is no group to close by )"
                       : "this can't stand here: a rule is made of \"text\", [classes], "
                         "(groups), rules and |, and ends with its line");
    space(p, true);
}

static void parse(struct parser *p, uint32_t *root) {
    if (p->size > LK_GRAMMAR_TEXT_MOST)
        lk__grammar_fail(p->b, LK_EINVAL, "the grammar has %zu bytes, more than %zu: make it smaller", p->size,
                         LK_GRAMMAR_TEXT_MOST);
    if (ok(p)) make_slots(p);
    if (ok(p)) *root = rule_named(p, 0, 0); /* rule 0, which calls the real one */
    space(p, true);
    while (ok(p) && p->at < p->size) rule(p);
    for (size_t i = 1; ok(p) && i < p->b->rules.count; i++)
        if (!p->names[i].defined)
            WRONG(p, p->names[i].used - 1, "the rule %.64s is nowhere: add %.64s ::= ...",
                  lk__grammar_rule_at(p->b, (uint32_t)i)->name, lk__grammar_rule_at(p->b, (uint32_t)i)->name);
    for (size_t i = 1; ok(p) && i < p->b->rules.count; i++)
        if (!strcmp(lk__grammar_rule_at(p->b, (uint32_t)i)->name, "root")) *root = (uint32_t)i;
    if (ok(p) && !*root)
        lk__grammar_fail(p->b, LK_EINVAL, "the grammar has no rule root: add root ::= ..., the whole text");
}

int lk_grammar_from_gbnf(const char *text, size_t size, struct lk_grammar **out, struct lk_err *err) {
    struct lk__grammar_build b;
    struct parser p = {.b = &b, .text = (const uint8_t *)text, .size = size};
    uint32_t root = 0;
    *out = NULL;
    lk__grammar_build_init(&b, err);
    parse(&p, &root);
    int code = lk__grammar_compile(&b, root, out);
    lk_free(p.kids.data);
    lk_free(p.ranges.data);
    lk_free(p.slots);
    lk_free(p.names);
    lk__grammar_build_release(&b);
    return code;
}
