/* Regular expressions of JSON Schema's `pattern`: without what looks around or back. */
#include "serve/grammar/build.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct regex {
    struct lk__grammar_build *b;
    const uint8_t *text;
    size_t size, at;
    const char *path;
    struct lk__grammar_array kids, ranges;
    uint32_t any, depth;
};

static bool ok(const struct regex *r) {
    return !r->b->code;
}
static int peek(const struct regex *r) {
    return r->at < r->size ? r->text[r->at] : -1;
}
__attribute__((format(printf, 4, 5))) static void fail(struct regex *r, int code, size_t at, const char *format, ...) {
    char what[400];
    va_list ap;
    va_start(ap, format);
    vsnprintf(what, sizeof what, format, ap);
    va_end(ap);
    lk__grammar_fail(r->b, code, "%s: at character %zu: %s", r->path, at + 1, what);
}
static void push(struct regex *r, struct lk__grammar_array *a, const void *data, size_t size) {
    void *room = ok(r) ? lk__grammar_room(a, 1, size) : NULL;
    if (!room) {
        lk__grammar_fail(r->b, LK_ENOMEM, "no memory for a grammar");
        return;
    }
    memcpy(room, data, size);
    a->count++;
}

/* --- characters of JSON strings ---------------------------------------------------------------------------- */

static uint32_t escaped(struct lk__grammar_build *b, uint32_t c) {
    static const char shorts[] = "\"\"\\\\\bb\ff\nn\rr\tt";
    char text[8];
    for (const char *s = shorts; *s; s += 2)
        if ((uint32_t)*s == c) {
            snprintf(text, sizeof text, "\\%c", s[1]);
            return lk__grammar_string(b, text);
        }
    snprintf(text, sizeof text, "\\u%04x", c);
    return lk__grammar_string(b, text);
}

uint32_t lk__grammar_json_class(struct lk__grammar_build *b, struct lk__grammar_range *ranges, size_t count, bool negated) {
    struct lk__grammar_range *clean = lk_alloc((2 * count + 12) * sizeof *clean), *plain;
    uint32_t kids[40], kid_count = 0;
    if (!clean) return lk__grammar_fail(b, LK_ENOMEM, "no memory for a grammar"), 0;
    size_t n = lk__grammar_ranges(ranges, count, negated, clean), plain_count = 0;
    plain = clean + n;
    for (size_t i = 0; i < n; i++) {
        /* cut at what is escaped: below U+0020, " and \ */
        static const struct lk__grammar_range gaps[] = {{0x20, 0x21}, {0x23, 0x5B}, {0x5D, LK__GRAMMAR_LAST_CHAR}};
        for (size_t g = 0; g < 3; g++) {
            uint32_t first = clean[i].first > gaps[g].first ? clean[i].first : gaps[g].first;
            uint32_t last = clean[i].last < gaps[g].last ? clean[i].last : gaps[g].last;
            if (first <= last && plain_count < n + 8) plain[plain_count++] = (struct lk__grammar_range){first, last};
        }
        for (uint32_t c = 1; c <= '\\'; c = c == 0x1F ? '"' : c == '"' ? '\\' : c + 1)
            if (c >= clean[i].first && c <= clean[i].last) kids[kid_count++] = escaped(b, c);
    }
    if (plain_count) kids[kid_count++] = lk__grammar_class(b, plain, plain_count, false);
    lk_free(clean);
    return lk__grammar_choice(b, kids, kid_count);
}

static uint32_t one(struct regex *r, uint32_t c) {
    struct lk__grammar_range range = {c, c};
    return lk__grammar_json_class(r->b, &range, 1, false);
}

/* --- classes ----------------------------------------------------------------------------------------------- */

static const struct lk__grammar_range digits[] = {{'0', '9'}}, words[] = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}},
                                      spaces[] = {{9, 13},          {' ', ' '},       {0xA0, 0xA0},     {0x1680, 0x1680},
                                                  {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F},
                                                  {0x3000, 0x3000}, {0xFEFF, 0xFEFF}},
                                      lines[] = {{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};

/* Adds the ranges of \d \w \s, or of \D \W \S; false: it is none of them. */
static bool add_named(struct regex *r, int letter) {
    const struct lk__grammar_range *of = (letter | 0x20) == 'd' ? digits : (letter | 0x20) == 'w' ? words : spaces;
    size_t count = of == digits ? 1 : of == words ? 4 : 10;
    struct lk__grammar_range copy[10], out[12];
    if (!strchr("dDwWsS", letter)) return false;
    memcpy(copy, of, count * sizeof *of);
    size_t n = lk__grammar_ranges(copy, count, letter < 'a', out);
    for (size_t i = 0; i < n; i++) push(r, &r->ranges, &out[i], sizeof *out);
    return true;
}

static uint32_t hex(struct regex *r, size_t from, int most) {
    uint32_t c = 0;
    bool braces = most == 4 && peek(r) == '{';
    int n = 0;
    for (r->at += braces; braces ? n < 6 : n < most; n++, r->at++) {
        int d = peek(r), low = d | 0x20;
        if (d >= '0' && d <= '9')
            c = c << 4 | (uint32_t)(d - '0');
        else if (low >= 'a' && low <= 'f')
            c = c << 4 | (uint32_t)(low - 'a' + 10);
        else
            break;
    }
    bool closed = braces ? n && peek(r) == '}' : n == most;
    r->at += braces && closed;
    if (!closed)
        fail(r, LK_EINVAL, from, "this escape lacks hexadecimal digits: write \\xHH, \\uHHHH or \\u{H...}");
    else if (c > LK__GRAMMAR_LAST_CHAR || (c >= 0xD800 && c <= 0xDFFF))
        fail(r, LK_EUNSUPPORTED, from, "U+%04X is no character: write one beyond U+FFFF as \\u{H...}", c);
    return c;
}

/* One character, of UTF-8 or escaped; behind a \ the letter is at r->at. in: inside a class. */
static uint32_t character(struct regex *r, bool in) {
    size_t from = r->at;
    int c = peek(r);
    if (c != '\\') {
        uint32_t value = (uint32_t)c, size = c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4; /* jansson checked it */
        if (size > 1) value &= 0xFFu >> (size + 1);
        for (uint32_t i = 1; i < size && r->at + i < r->size; i++) value = value << 6 | (r->text[r->at + i] & 0x3F);
        r->at += size;
        return value;
    }
    r->at++;
    c = peek(r);
    r->at++;
    switch (c) {
    case 't':
        return '\t';
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case 'f':
        return '\f';
    case 'v':
        return '\v';
    case 'x':
        return hex(r, from, 2);
    case 'u':
        return hex(r, from, 4);
    case '0':
        break;
    case 'b':
        if (in) return '\b';
        break;
    default:
        if (c > 0 && strchr("^$\\.*+?()[]{}|/-\"' #&~@!%,:;<>=_`", c)) return (uint32_t)c;
    }
    if (c < 0)
        fail(r, LK_EINVAL, from, "a \\ ends the pattern: write \\\\ for a backslash");
    else
        fail(r, LK_EUNSUPPORTED, from,
             "\\%c is not supported (there are \\d \\w \\s \\D \\W \\S \\t \\n \\r \\f \\v \\xHH \\uHHHH \\u{H...} and \\ "
             "before a mark)",
             c);
    return 0;
}

static uint32_t class(struct regex *r) {
    size_t from = r->at++;
    bool negated = peek(r) == '^';
    r->at += negated;
    r->ranges.count = 0;
    while (ok(r) && peek(r) != ']') {
        size_t begin = r->at;
        if (peek(r) < 0) fail(r, LK_EINVAL, from, "this class has no end: close it with ]");
        if (!ok(r)) return 0;
        if (peek(r) == '\\' && r->at + 1 < r->size && add_named(r, r->text[r->at + 1])) {
            r->at += 2;
            continue;
        }
        struct lk__grammar_range range;
        range.first = range.last = character(r, true);
        if (peek(r) == '-' && r->at + 1 < r->size && r->text[r->at + 1] != ']') {
            r->at++;
            if (peek(r) == '\\' && r->at + 1 < r->size && strchr("dDwWsS", r->text[r->at + 1]))
                fail(r, LK_EINVAL, begin, "a range can't end with a class");
            range.last = character(r, true);
        }
        if (ok(r) && range.last < range.first) fail(r, LK_EINVAL, begin, "this range goes backwards");
        push(r, &r->ranges, &range, sizeof range);
    }
    r->at++;
    return ok(r) ? lk__grammar_json_class(r->b, r->ranges.data, r->ranges.count, negated) : 0;
}

static uint32_t named(struct regex *r, int letter) {
    r->ranges.count = 0;
    r->at += 2;
    add_named(r, letter);
    return ok(r) ? lk__grammar_json_class(r->b, r->ranges.data, r->ranges.count, false) : 0;
}

/* --- sequences --------------------------------------------------------------------------------------------- */

static uint32_t alternatives(struct regex *r, bool top);

static uint32_t number(struct regex *r) {
    uint64_t n = 0;
    size_t from = r->at;
    for (; peek(r) >= '0' && peek(r) <= '9'; r->at++)
        n = n > LK__GRAMMAR_REPEAT_MOST ? n : 10 * n + (uint64_t)(peek(r) - '0');
    if (from == r->at) fail(r, LK_EINVAL, from, "a number of repetition must stand here; a { itself is written \\{");
    if (n > LK__GRAMMAR_REPEAT_MOST)
        fail(r, LK_EINVAL, from, "a number of repetition is at most %d", LK__GRAMMAR_REPEAT_MOST);
    return (uint32_t)n;
}

static uint32_t repetition(struct regex *r, uint32_t kid) {
    size_t from = r->at;
    int c = peek(r);
    uint32_t least = c == '+', most = c == '?' ? 1 : LK__GRAMMAR_UNLIMITED;
    if (c < 0 || !strchr("*+?{", c)) return kid;
    r->at++;
    if (c == '{') {
        least = most = number(r);
        if (peek(r) == ',') {
            r->at++;
            most = peek(r) == '}' ? LK__GRAMMAR_UNLIMITED : number(r);
        }
        if (ok(r) && peek(r) != '}') fail(r, LK_EINVAL, r->at, "} must stand here, as in {3,5}");
        r->at++;
        if (ok(r) && least > most) fail(r, LK_EINVAL, from, "{%u,%u} goes backwards", least, most);
    }
    if (peek(r) == '?') r->at++; /* lazy: the same texts */
    c = peek(r);
    if (ok(r) && c > 0 && strchr("*+?{", c)) fail(r, LK_EINVAL, r->at, "there is nothing before %c to repeat", c);
    return lk__grammar_repeat(r->b, kid, least, most);
}

static uint32_t group(struct regex *r) {
    size_t from = r->at++;
    if (++r->depth > LK__GRAMMAR_DEPTH_MOST)
        fail(r, LK_EINVAL, from, "groups are nested deeper than %d", LK__GRAMMAR_DEPTH_MOST);
    if (ok(r) && peek(r) == '?') {
        const char *rest = (const char *)r->text + r->at;
        size_t left = r->size - r->at;
        const char *close = left > 3 && rest[1] == '<' ? memchr(rest, '>', left) : NULL;
        if (left > 1 && rest[1] == ':')
            r->at += 2;
        else if (close && rest[2] != '=' && rest[2] != '!')
            r->at += (size_t)(close - rest) + 1;
        else
            fail(r, LK_EUNSUPPORTED, from,
                 "only (...), (?:...) and (?<name>...) are supported, nothing that looks ahead or behind");
    }
    uint32_t id = ok(r) ? alternatives(r, false) : 0;
    r->depth--;
    if (ok(r) && peek(r) != ')') fail(r, LK_EINVAL, from, "this group has no end: close it with )");
    r->at++;
    return id;
}

static uint32_t atom(struct regex *r) {
    int c = peek(r), next = r->at + 1 < r->size ? r->text[r->at + 1] : -1;
    if (c == '(') return group(r);
    if (c == '[') return class(r);
    if (c == '.') {
        struct lk__grammar_range copy[3];
        memcpy(copy, lines, sizeof copy);
        r->at++;
        return lk__grammar_json_class(r->b, copy, 3, true);
    }
    if (c == '\\' && next > 0 && strchr("dDwWsS", next)) return named(r, next);
    if (c == '\\' && next >= '1' && next <= '9') {
        fail(r, LK_EUNSUPPORTED, r->at, "\\%c refers back to a group, which is not supported", next);
        return 0;
    }
    if (strchr("*+?{", c))
        fail(r, LK_EINVAL, r->at, "there is nothing before %c to repeat; the mark itself is \\%c", c, c);
    else if (strchr("]}", c))
        fail(r, LK_EINVAL, r->at, "%c stands alone: write \\%c", c, c);
    else if (strchr("^$", c))
        fail(r, LK_EUNSUPPORTED, r->at,
             "%c is supported only at the %s of the pattern or of one of its outermost alternatives; the mark itself is "
             "\\%c",
             c, c == '^' ? "begin" : "end", c);
    return ok(r) ? one(r, character(r, false)) : 0;
}

static uint32_t anything(struct regex *r) {
    return lk__grammar_repeat(r->b, r->any, 0, LK__GRAMMAR_UNLIMITED);
}

static uint32_t sequence(struct regex *r, bool top) {
    size_t begin = r->kids.count;
    bool anchored = top && peek(r) == '^', ends = !top;
    uint32_t id;
    r->at += anchored;
    if (top && !anchored) id = anything(r), push(r, &r->kids, &id, sizeof id);
    for (int c; ok(r) && !(c = peek(r), c < 0 || c == '|' || c == ')');) {
        int next = r->at + 1 < r->size ? r->text[r->at + 1] : -1;
        if (top && c == '$' && (next < 0 || next == '|')) {
            ends = true;
            r->at++;
            break;
        }
        id = atom(r);
        if (ok(r)) id = repetition(r, id);
        push(r, &r->kids, &id, sizeof id);
    }
    if (!ends) id = anything(r), push(r, &r->kids, &id, sizeof id);
    if (!ok(r)) return 0;
    id = lk__grammar_sequence(r->b, (uint32_t *)r->kids.data + begin, r->kids.count - begin);
    r->kids.count = begin;
    return id;
}

static uint32_t alternatives(struct regex *r, bool top) {
    size_t begin = r->kids.count;
    for (;;) {
        uint32_t id = sequence(r, top);
        push(r, &r->kids, &id, sizeof id);
        if (!ok(r) || peek(r) != '|') break;
        r->at++;
    }
    if (!ok(r)) return 0;
    uint32_t id = lk__grammar_choice(r->b, (uint32_t *)r->kids.data + begin, r->kids.count - begin);
    r->kids.count = begin;
    return id;
}

uint32_t lk__grammar_regex(struct lk__grammar_build *b, const char *pattern, size_t size, const char *path, uint32_t any) {
    struct regex r = {.b = b, .text = (const uint8_t *)pattern, .size = size, .path = path, .any = any};
    uint32_t id = alternatives(&r, true);
    if (ok(&r) && r.at < size) fail(&r, LK_EINVAL, r.at, "there is no group to close by )");
    lk_free(r.kids.data);
    lk_free(r.ranges.data);
    return id;
}
