/* Patterns of RE2's syntax (its doc/syntax.txt) over bytes, to a tree. What RE2 refuses is refused, with the position.
 * Groups capture nothing here, and what prefers more or fewer makes no difference to a whole match. */
#include "store/table/regex_tree.h"
#include <string.h>

/* Flags that hold up to the end of a group. */
enum { FOLD = 1, LINES = 2, DOT_NEWLINE = 4, UNGREEDY = 8 };
/* A group that is open: what came before the last `|`, the parts since, and the flags to go back to. */
struct group {
    uint32_t alternatives, parts;
    uint8_t flags_before;
    bool many; /* it has a `|` */
    uint32_t at;
};
struct parser {
    struct lk__table_regex_tree *tree;
    const unsigned char *begin, *p, *end;
    struct group groups[LK__REGEX_DEPTH_MAX + 1];
    size_t depth;
    uint8_t flags;
    int code;
    struct lk_err *err;
};

#define FAIL(q, at, ...) fail_at(q, at, lk_fail((q)->err, LK_EINVAL, __VA_ARGS__))
static bool fail_at(struct parser *q, const unsigned char *at, int code) {
    q->code = lk_fail_prefix(q->err, code, "at byte %zu", (size_t)(at - q->begin));
    return false;
}
static bool no_memory(struct parser *q) {
    q->code = lk_fail(q->err, LK_ENOMEM, "no memory for a pattern");
    return false;
}
static bool has(const struct parser *q, const char *text) {
    size_t size = strlen(text);
    return (size_t)(q->end - q->p) >= size && memcmp(q->p, text, size) == 0;
}
static bool accept(struct parser *q, const char *text) {
    if (!has(q, text)) return false;
    q->p += strlen(text);
    return true;
}

/* --- nodes ----------------------------------------------------------------------------------------------- */

/* Doubles what *items points to; false: no memory. */
static bool grow(void *items, uint32_t *room, size_t size) {
    void *old, *new;
    uint32_t want = *room ? *room * 2 : 32;
    memcpy(&old, items, sizeof old);
    if (!(new = lk_realloc(old, want * size))) return false;
    memcpy(items, &new, sizeof new);
    *room = want;
    return true;
}
/* 0: no memory. */
static uint32_t node(struct parser *q, struct lk__table_regex_node n) {
    struct lk__table_regex_tree *t = q->tree;
    if (t->node_count == t->node_room && !grow(&t->nodes, &t->node_room, sizeof *t->nodes)) {
        no_memory(q);
        return 0;
    }
    if (!n.product) n.product = 1;
    t->nodes[t->node_count] = n;
    return t->node_count++;
}
/* Puts `part` at the end of the list whose end is *last. */
static bool add(struct parser *q, uint32_t *last, uint32_t part) {
    if (!part) return false;
    q->tree->nodes[part].before = *last;
    *last = part;
    return true;
}
static bool push(struct parser *q, struct lk__table_regex_node n) {
    return add(q, &q->groups[q->depth].parts, node(q, n));
}
static bool push_assert(struct parser *q, enum lk__table_regex_assert a) {
    return push(q, (struct lk__table_regex_node){.kind = LK__REGEX_ASSERT, .assertion = (uint8_t)a});
}
/* The number of a set: of one byte its own, of others where it is in the tree. */
static bool push_set(struct parser *q, const struct lk__table_byte_set *s) {
    struct lk__table_regex_tree *t = q->tree;
    unsigned count = 0, byte = 0;
    uint32_t i = 0;
    for (unsigned b = 0; b < 256 && count < 2; b++)
        if (lk__table_byte_set_has(s, b)) count++, byte = b;
    if (count == 1) return push(q, (struct lk__table_regex_node){.kind = LK__REGEX_SET, .set = (uint16_t)byte});
    while (i < t->set_count && memcmp(&t->sets[i], s, sizeof *s) != 0) i++;
    if (i + LK__REGEX_BYTES > UINT16_MAX) return FAIL(q, q->p, "more than %d different classes", UINT16_MAX);
    if (i == t->set_count) {
        if (t->set_count == t->set_room && !grow(&t->sets, &t->set_room, sizeof *t->sets)) return no_memory(q);
        t->sets[t->set_count++] = *s;
    }
    return push(q, (struct lk__table_regex_node){.kind = LK__REGEX_SET, .set = (uint16_t)(i + LK__REGEX_BYTES)});
}
static bool push_byte(struct parser *q, unsigned byte) {
    struct lk__table_byte_set s = {{0}};
    lk__table_byte_set_add(&s, byte, byte);
    if (q->flags & FOLD) lk__table_byte_set_fold(&s);
    return push_set(q, &s);
}
/* One node for a list of parts: none is EMPTY, one itself. */
static uint32_t join(struct parser *q, enum lk__table_regex_kind kind, uint32_t last) {
    struct lk__table_regex_node n = {.kind = (uint8_t)kind, .last = last};
    const struct lk__table_regex_node *nodes = q->tree->nodes;
    if (!last) return node(q, (struct lk__table_regex_node){.kind = LK__REGEX_EMPTY});
    if (!nodes[last].before) return last;
    for (uint32_t i = last; i; i = nodes[i].before) {
        if (nodes[i].depth > n.depth) n.depth = nodes[i].depth;
        if (nodes[i].product > n.product) n.product = nodes[i].product;
    }
    return node(q, n);
}

/* --- groups ---------------------------------------------------------------------------------------------- */

static bool bar(struct parser *q) {
    struct group *g = &q->groups[q->depth];
    uint32_t parts = join(q, LK__REGEX_CAT, g->parts);
    g->parts = 0;
    g->many = true;
    return add(q, &g->alternatives, parts);
}
/* The node of the group that ends here. */
static uint32_t group_end(struct parser *q) {
    struct group *g = &q->groups[q->depth];
    if (!g->many) return join(q, LK__REGEX_CAT, g->parts);
    return bar(q) ? join(q, LK__REGEX_ALT, g->alternatives) : 0;
}
static bool group_open(struct parser *q, const unsigned char *at, uint8_t flags_before) {
    if (q->depth == LK__REGEX_DEPTH_MAX) return FAIL(q, at, "groups are nested deeper than %d", LK__REGEX_DEPTH_MAX);
    q->groups[++q->depth] = (struct group){.flags_before = flags_before, .at = (uint32_t)(at - q->begin)};
    return true;
}
static bool group_close(struct parser *q) {
    if (!q->depth) return FAIL(q, q->p, "`)` closes no group; write \\) for the character");
    uint32_t n = group_end(q);
    if (!n) return false;
    struct lk__table_regex_node *whole = &q->tree->nodes[n];
    if (++whole->depth > LK__REGEX_DEPTH_MAX)
        return FAIL(q, q->p, "groups and repeats are nested deeper than %d", LK__REGEX_DEPTH_MAX);
    q->flags = q->groups[q->depth--].flags_before;
    q->p++;
    return add(q, &q->groups[q->depth].parts, n);
}
/* Letters, digits and what joins them, of Latin-1 too. */
static bool name_is_good(const unsigned char *from, const unsigned char *to) {
    struct lk__table_byte_set good, letters;
    lk__table_byte_set_perl('w', &good);
    lk__table_byte_set_unicode(lk_bytes("L", 1), &letters);
    lk__table_byte_set_join(&good, &letters);
    for (const unsigned char *c = from; c < to; c++)
        if (!lk__table_byte_set_has(&good, *c)) return false;
    return from < to;
}
static bool group_named(struct parser *q, const unsigned char *at) {
    const unsigned char *end = memchr(q->p, '>', (size_t)(q->end - q->p));
    if (!end) return FAIL(q, at, "a group's name has no end `>`");
    if (!name_is_good(q->p, end)) return FAIL(q, at, "a group's name has letters, digits and _ only, at least one");
    q->p = end + 1;
    return group_open(q, at, q->flags);
}
/* What Perl and PCRE have and RE2 has not, by its beginning. */
static bool refuse_group(struct parser *q, const unsigned char *at) {
    static const struct {
        const char *begin, *what;
    } known[] = {{"(?=", "look-ahead"},      {"(?!", "look-ahead"},          {"(?<=", "look-behind"},
                 {"(?<!", "look-behind"},    {"(?>", "an atomic group"},     {"(?#", "a comment"},
                 {"(?|", "numbering reset"}, {"(?(", "a conditional group"}, {"(?R", "recursion"},
                 {"(?&", "recursion"},       {"(?P>", "recursion"},          {"(?P=", "a back-reference"},
                 {"(?C", "a callout"},       {"(?'", "a name in quotes"}};
    q->p = at;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (has(q, known[i].begin)) return FAIL(q, at, "%s (`%s`): RE2's syntax has none", known[i].what, known[i].begin);
    return FAIL(q, at, "after `(?` come flags of imsU, a `-` and flags to end, then `:` or `)`; or P<name>");
}
/* (?flags) and (?flags:...), p behind the question mark. */
static bool group_flags(struct parser *q, const unsigned char *at) {
    static const char letters[] = "imsU";
    uint8_t flags = q->flags;
    bool negative = false, seen = false;
    for (;; q->p++) {
        if (q->p == q->end) return refuse_group(q, at);
        const char *flag = *q->p ? strchr(letters, *q->p) : NULL;
        if (flag) {
            uint8_t bit = (uint8_t)(1 << (flag - letters)); /* FOLD, LINES, DOT_NEWLINE, UNGREEDY */
            flags = negative ? (uint8_t)(flags & ~bit) : (uint8_t)(flags | bit);
            seen = true;
        } else if (*q->p == '-' && !negative) {
            negative = true;
            seen = false;
        } else
            break;
    }
    unsigned char c = *q->p;
    if ((c != ':' && c != ')') || (negative && !seen)) return refuse_group(q, at);
    q->p++;
    if (c == ':' && !group_open(q, at, q->flags)) return false;
    q->flags = flags;
    return true;
}
static bool group_begin(struct parser *q) {
    const unsigned char *at = q->p++;
    if (!accept(q, "?")) return group_open(q, at, q->flags);
    if (has(q, "=") || has(q, "!") || has(q, "<=") || has(q, "<!")) return refuse_group(q, at);
    if (accept(q, "P<") || accept(q, "<")) return group_named(q, at);
    return group_flags(q, at);
}

/* --- repeats --------------------------------------------------------------------------------------------- */

/* A number without a leading zero. */
static bool number(const unsigned char **p, const unsigned char *end, int *out) {
    const unsigned char *c = *p;
    int n = 0;
    if (c == end || *c < '0' || *c > '9' || (*c == '0' && c + 1 < end && c[1] >= '0' && c[1] <= '9')) return false;
    for (; c < end && *c >= '0' && *c <= '9'; c++) {
        if (n >= 100000000) return false;
        n = n * 10 + (*c - '0');
    }
    *p = c;
    *out = n;
    return true;
}
/* {n}, {n,} or {n,m}; false: the brace is a character. */
static bool counts(struct parser *q, int *min, int *max) {
    const unsigned char *c = q->p + 1;
    if (!number(&c, q->end, min) || c == q->end) return false;
    *max = *min;
    if (*c == ',') {
        if (++c == q->end) return false;
        *max = -1;
        if (*c != '}' && !number(&c, q->end, max)) return false;
    }
    if (c == q->end || *c != '}') return false;
    q->p = c + 1;
    return true;
}
/* One more level around the last part; max -1: no end. *unary: the token before was a repeat. */
static bool repeat(struct parser *q, const unsigned char *at, int min, int max, bool counted, bool unary) {
    uint32_t *last = &q->groups[q->depth].parts;
    accept(q, "?");
    if (unary)
        return FAIL(q, at, "a repeat of a repeat (`%.*s`): put the first in a group", (int)(q->p - at), (const char *)at);
    if (min > LK__REGEX_REPEAT_MAX || max > LK__REGEX_REPEAT_MAX || (max >= 0 && max < min))
        return FAIL(q, at, "a repeat is {least,most} of at most %d", LK__REGEX_REPEAT_MAX);
    if (!*last) return FAIL(q, at, "nothing before `%c` that could be repeated", *at);
    struct lk__table_regex_node inner = q->tree->nodes[*last];
    int copies = !counted ? 1 : max < 0 ? min : max;
    unsigned product = inner.product * (copies > 1 ? (unsigned)copies : 1);
    if (copies > 1 && product > LK__REGEX_REPEAT_MAX)
        return FAIL(q, at, "repeats within each other make more than %d copies", LK__REGEX_REPEAT_MAX);
    if (inner.depth >= LK__REGEX_DEPTH_MAX)
        return FAIL(q, at, "groups and repeats are nested deeper than %d", LK__REGEX_DEPTH_MAX);
    struct lk__table_regex_node n = {.kind = LK__REGEX_REPEAT, .min = (int16_t)min, .max = (int16_t)max, .last = *last};
    n.depth = (uint16_t)(inner.depth + 1);
    n.product = (uint16_t)product;
    q->tree->nodes[*last].before = 0;
    *last = inner.before;
    return push(q, n);
}

/* --- escapes and classes --------------------------------------------------------------------------------- */

static int hex(unsigned char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}
/* The length of the number after \x, with its braces; 0: it is none, or no byte's. */
static size_t hex_number(const unsigned char *c, const unsigned char *end, unsigned *byte) {
    const unsigned char *p = c;
    if (end - c >= 2 && hex(c[0]) >= 0 && hex(c[1]) >= 0) {
        *byte = (unsigned)(hex(c[0]) * 16 + hex(c[1]));
        return 2;
    }
    if (p == end || *p++ != '{') return 0;
    for (*byte = 0; p < end && hex(*p) >= 0; p++)
        if ((*byte = *byte * 16 + (unsigned)hex(*p)) > 255) return 0;
    return p < end && *p == '}' && p > c + 1 ? (size_t)(p + 1 - c) : 0;
}
static size_t octal_number(const unsigned char *c, const unsigned char *end, unsigned *byte) {
    size_t n = 0;
    for (*byte = 0; n < 3 && c + n < end && c[n] >= '0' && c[n] <= '7'; n++) *byte = *byte * 8 + (c[n] - '0');
    return (n == 1 && *c != '0') || *byte > 255 ? 0 : n;
}
/* A backslash and what it makes of the next characters, as one byte. */
static bool escape(struct parser *q, unsigned *byte) {
    static const char letters[] = "nrtafv", meanings[] = "\n\r\t\a\f\v";
    const unsigned char *at = q->p++;
    if (q->p == q->end) return FAIL(q, at, "a backslash at the end; write \\\\ for the character");
    unsigned char c = *q->p;
    const char *letter = c ? strchr(letters, c) : NULL;
    bool word = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
    size_t size = 1;
    if (letter)
        *byte = (unsigned char)meanings[letter - letters];
    else if (c < 128 && !word)
        *byte = c;
    else if (c >= '0' && c <= '7') {
        if (!(size = octal_number(q->p, q->end, byte)))
            return FAIL(q, at, "`\\%c`: RE2's syntax has no back-references, and a byte is at most \\377", c);
    } else if (c == 'x') {
        if (!(size = hex_number(q->p + 1, q->end, byte)))
            return FAIL(q, at, "`\\x` takes two hexadecimal digits, or {} with a number up to FF: patterns match bytes");
        size++;
    } else
        return FAIL(q, at, "`\\%c` is no escape of RE2's syntax", c < 128 ? c : '?');
    q->p += size;
    return true;
}
/* A named set: what flags and a negation make of it. */
static void take_named(struct parser *q, struct lk__table_byte_set *named, bool negative, struct lk__table_byte_set *into) {
    if (q->flags & FOLD) lk__table_byte_set_fold(named);
    if (negative) lk__table_byte_set_negate(named);
    lk__table_byte_set_join(into, named);
}
/* \pN, \p{Name}, \p{^Name}, \P...; p stands on the backslash. */
static bool unicode_class(struct parser *q, struct lk__table_byte_set *into) {
    const unsigned char *at = q->p, *end;
    struct lk__table_byte_set named;
    bool negative = at[1] == 'P';
    struct lk_bytes name = lk_bytes(at + 2, at + 2 < q->end);
    q->p += 2 + name.size;
    if (name.size && at[2] == '{') {
        if (!(end = memchr(q->p, '}', (size_t)(q->end - q->p)))) return FAIL(q, at, "`\\%c{` has no end `}`", at[1]);
        name = lk_bytes(q->p, (size_t)(end - q->p));
        q->p = end + 1;
    }
    if (name.size && *(const char *)name.data == '^') {
        negative = !negative;
        name = lk_bytes((const char *)name.data + 1, name.size - 1);
    }
    if (!lk__table_byte_set_unicode(name, &named))
        return FAIL(q, at, "RE2 knows no class `\\%c` of this name; categories are as L or Lu, scripts as Greek", at[1]);
    take_named(q, &named, negative, into);
    return true;
}
/* \d, \pN and the like; false with no code: it is no class. */
static bool escaped_class(struct parser *q, struct lk__table_byte_set *into) {
    struct lk__table_byte_set named;
    if (q->end - q->p < 2 || *q->p != '\\') return false;
    if (q->p[1] == 'p' || q->p[1] == 'P') return unicode_class(q, into);
    if (!lk__table_byte_set_perl((char)q->p[1], &named)) return false;
    take_named(q, &named, false, into);
    q->p += 2;
    return true;
}
/* [:alpha:] and [:^alpha:] within a class; false with no code: it is no name, since `:]` never comes. */
static bool posix_class(struct parser *q, struct lk__table_byte_set *into) {
    const unsigned char *at = q->p;
    struct lk__table_byte_set named;
    if (!has(q, "[:")) return false;
    const unsigned char *name = q->p + 2, *end = memmem(name, (size_t)(q->end - name), ":]", 2);
    if (!end) return false;
    bool negative = name < end && *name == '^';
    name += negative;
    if (!lk__table_byte_set_posix(lk_bytes(name, (size_t)(end - name)), &named))
        return FAIL(q, at,
                    "no class of this name; they are alnum alpha ascii blank cntrl digit graph lower print punct space "
                    "upper word xdigit");
    q->p = end + 2;
    take_named(q, &named, negative, into);
    return true;
}
static bool class_byte(struct parser *q, const unsigned char *begin, unsigned *byte) {
    if (q->p == q->end) return FAIL(q, begin, "`[` has no end `]`; write \\[ for the character");
    if (*q->p == '\\') return escape(q, byte);
    *byte = *q->p++;
    return true;
}
static bool class_range(struct parser *q, const unsigned char *begin, struct lk__table_byte_set *into) {
    const unsigned char *at = q->p;
    struct lk__table_byte_set range = {{0}};
    unsigned from, to;
    if (!class_byte(q, begin, &from)) return false;
    to = from;
    if (q->end - q->p >= 2 && q->p[0] == '-' && q->p[1] != ']') {
        q->p++;
        if (!class_byte(q, begin, &to)) return false;
        if (to < from) return FAIL(q, at, "a range of characters ends before it begins");
    }
    lk__table_byte_set_add(&range, from, to);
    take_named(q, &range, false, into);
    return true;
}
static bool class(struct parser *q) {
    const unsigned char *begin = q->p++;
    struct lk__table_byte_set s = {{0}};
    bool negative = accept(q, "^");
    for (bool first = true; first || !has(q, "]"); first = false)
        if (!posix_class(q, &s) && !q->code && !escaped_class(q, &s) && !q->code) {
            if (!class_range(q, begin, &s)) return false;
        } else if (q->code)
            return false;
    q->p++;
    if (negative) lk__table_byte_set_negate(&s);
    return push_set(q, &s);
}

/* --- the whole ------------------------------------------------------------------------------------------- */

static bool quoted(struct parser *q) {
    while (q->p < q->end && !accept(q, "\\E"))
        if (!push_byte(q, *q->p++)) return false;
    return true;
}
static bool backslash(struct parser *q) {
    struct lk__table_byte_set s = {{0}};
    unsigned byte;
    if (accept(q, "\\b")) return push_assert(q, LK__REGEX_WORD);
    if (accept(q, "\\B")) return push_assert(q, LK__REGEX_NO_WORD);
    if (accept(q, "\\A")) return push_assert(q, LK__REGEX_TEXT_BEGIN);
    if (accept(q, "\\z")) return push_assert(q, LK__REGEX_TEXT_END);
    if (accept(q, "\\Q")) return quoted(q);
    if (accept(q, "\\C")) {
        lk__table_byte_set_add(&s, 0, 255);
        return push_set(q, &s);
    }
    if (escaped_class(q, &s)) return push_set(q, &s);
    return !q->code && escape(q, &byte) && push_byte(q, byte);
}
static bool dot(struct parser *q) {
    struct lk__table_byte_set s = {{0}};
    if (!(q->flags & DOT_NEWLINE)) lk__table_byte_set_add(&s, '\n', '\n');
    lk__table_byte_set_negate(&s);
    return push_set(q, &s);
}
/* The next token; *unary: whether it is, and the one before was, a repeat. */
static bool token(struct parser *q, bool *unary) {
    const unsigned char *at = q->p;
    bool after_unary = *unary, lines = q->flags & LINES;
    int min, max;
    *unary = false;
    switch (*q->p) {
    case '(':
        return group_begin(q);
    case ')':
        return group_close(q);
    case '|':
        return q->p++, bar(q);
    case '^':
        return q->p++, push_assert(q, lines ? LK__REGEX_LINE_BEGIN : LK__REGEX_TEXT_BEGIN);
    case '$':
        return q->p++, push_assert(q, lines ? LK__REGEX_LINE_END : LK__REGEX_TEXT_END);
    case '.':
        return q->p++, dot(q);
    case '[':
        return class(q);
    case '\\':
        return backslash(q);
    case '*':
    case '+':
    case '?':
        q->p++;
        *unary = true;
        return repeat(q, at, *at == '+', *at == '?' ? 1 : -1, false, after_unary);
    case '{':
        if (!counts(q, &min, &max)) break;
        *unary = true;
        return repeat(q, at, min, max, true, after_unary);
    }
    return push_byte(q, *q->p++);
}
int lk__table_regex_parse(struct lk_bytes pattern, struct lk__table_regex_tree *t, struct lk_err *err) {
    *t = (struct lk__table_regex_tree){0};
    struct parser *q = lk_alloc(sizeof *q);
    bool unary = false;
    if (!q) return lk_fail(err, LK_ENOMEM, "no memory for a pattern");
    memset(q, 0, offsetof(struct parser, groups) + sizeof *q->groups);
    q->depth = 0;
    q->flags = 0;
    q->code = 0;
    q->err = err;
    q->tree = t;
    q->begin = q->p = pattern.data ? pattern.data : (const unsigned char *)"";
    q->end = q->begin + pattern.size;
    node(q, (struct lk__table_regex_node){.kind = LK__REGEX_EMPTY}); /* number 0, which stands for none in lists */
    while (!q->code && q->p < q->end) token(q, &unary);
    if (!q->code && q->depth) FAIL(q, q->begin + q->groups[q->depth].at, "`(` has no end `)`; write \\( for the character");
    if (!q->code) t->root = group_end(q);
    int code = q->code;
    lk_free(q);
    return code;
}
void lk__table_regex_tree_release(struct lk__table_regex_tree *t) {
    lk_free(t->nodes);
    lk_free(t->sets);
}
