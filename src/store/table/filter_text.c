/* Filters as text, both ways; the grammar stands in lockstep/store/table.h. */
#include "store/table/filter_text.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* What stands in the parentheses of a kind. */
enum arguments { NO_ARGUMENTS, PARTS, BRANCHES, PATTERN, PROBABILITY, COLUMNS, TIMES, RANGE, COUNT, LABEL };
static const struct kind {
    const char *name;
    enum arguments arguments;
} kinds[] = {
    [LK_FILTER_CHAIN] = {"chain", PARTS}, /* as name in messages only */
    [LK_FILTER_INTERLEAVE] = {"interleave", PARTS},
    [LK_FILTER_CONDITION] = {"condition", BRANCHES},
    [LK_FILTER_SINK] = {"sink", NO_ARGUMENTS},
    [LK_FILTER_PASS] = {"pass", NO_ARGUMENTS},
    [LK_FILTER_BLOCK] = {"block", NO_ARGUMENTS},
    [LK_FILTER_ROW_REGEX] = {"row_regex", PATTERN},
    [LK_FILTER_ROW_SAMPLE] = {"row_sample", PROBABILITY},
    [LK_FILTER_FAMILY_REGEX] = {"family", PATTERN},
    [LK_FILTER_COLUMN_REGEX] = {"column_regex", PATTERN},
    [LK_FILTER_COLUMN_RANGE] = {"column_range", COLUMNS},
    [LK_FILTER_TIME_RANGE] = {"time_range", TIMES},
    [LK_FILTER_VALUE_REGEX] = {"value_regex", PATTERN},
    [LK_FILTER_VALUE_RANGE] = {"value_range", RANGE},
    [LK_FILTER_ROW_OFFSET] = {"row_offset", COUNT},
    [LK_FILTER_ROW_LIMIT] = {"row_limit", COUNT},
    [LK_FILTER_COLUMN_LIMIT] = {"latest", COUNT},
    [LK_FILTER_STRIP_VALUE] = {"strip_value", NO_ARGUMENTS},
    [LK_FILTER_LABEL] = {"label", LABEL},
};
#define KIND_COUNT (sizeof kinds / sizeof *kinds)

const char *lk__table_filter_name(enum lk_filter_kind kind) {
    return (size_t)kind < KIND_COUNT ? kinds[kind].name : "?";
}

/* --- reading --------------------------------------------------------------------------------------------- */

struct tree {
    struct lk_arena arena;
    struct lk_filter root;
};
struct parser {
    const char *text, *p;
    struct lk_arena *arena;
    struct lk_err *err;
    int code, depth;
};

static bool wrong(struct parser *q, const char *at, const char *want) {
    if (!q->code) {
        size_t size = strcspn(at, " ,|()") < 24 ? strcspn(at, " ,|()") : 24;
        if (!size && *at) size = 1;
        q->code = *at ? lk_fail(q->err, LK_EINVAL, "a filter's text, at byte %zu (`%.*s`): %s", (size_t)(at - q->text),
                                (int)size, at, want)
                      : lk_fail(q->err, LK_EINVAL, "a filter's text, at its end: %s", want);
    }
    return false;
}
static void *take(struct parser *q, size_t size) {
    void *new = lk_arena_take(q->arena, size);
    if (!new && !q->code) q->code = lk_fail(q->err, LK_ENOMEM, "no memory for a filter");
    return new;
}
static void blanks(struct parser *q) {
    q->p += strspn(q->p, " \t\r\n");
}
static bool accept(struct parser *q, char c) {
    blanks(q);
    if (*q->p != c) return false;
    q->p++;
    return true;
}
static bool expect(struct parser *q, char c, const char *want) {
    return accept(q, c) || wrong(q, q->p, want);
}
static int hex(char c) {
    const char *digits = "0123456789abcdef0123456789ABCDEF", *d = c ? strchr(digits, c) : NULL;
    return d ? (int)((d - digits) % 16) : -1;
}
/* p stands behind a backslash. */
static bool escape(struct parser *q, char *out) {
    static const char names[] = "\"\\nrt", bytes[] = "\"\\\n\r\t";
    const char *name = *q->p ? strchr(names, *q->p) : NULL;
    if (name) {
        *out = bytes[name - names];
        q->p++;
    } else if (*q->p == 'x' && hex(q->p[1]) >= 0 && hex(q->p[2]) >= 0) {
        *out = (char)(hex(q->p[1]) * 16 + hex(q->p[2]));
        q->p += 3;
    } else
        return wrong(q, q->p - 1, "escapes are \\\" \\\\ \\n \\r \\t \\xHH; a pattern may stand between ' and ', as it is");
    return true;
}
static bool string(struct parser *q, struct lk_bytes *out) {
    blanks(q);
    const char *begin = q->p, *end = begin + 1;
    char quote = *begin;
    size_t size = 0;
    if (quote != '"' && quote != '\'') return wrong(q, begin, "text between \" and \" belongs here");
    for (; *end && *end != quote; end++)
        if (quote == '"' && end[0] == '\\' && end[1]) end++;
    if (!*end) return wrong(q, begin, "this text has no end");
    char *new = take(q, (size_t)(end - begin));
    if (!new) return false;
    for (q->p++; q->p < end; size++) {
        new[size] = *q->p++;
        if (quote == '"' && new[size] == '\\' && !escape(q, &new[size])) return false;
    }
    q->p = end + 1;
    *out = lk_bytes(new, size);
    return true;
}
/* Text without zero bytes. */
static bool name(struct parser *q, const char **out) {
    struct lk_bytes text;
    const char *at = q->p;
    if (!string(q, &text)) return false;
    *out = text.data;
    return strlen(text.data) == text.size || wrong(q, at, "a name has no zero byte");
}
static bool integer(struct parser *q, int64_t most, int64_t *out) {
    char *end;
    blanks(q);
    errno = 0;
    long long n = strtoll(q->p, &end, 10);
    if (end == q->p || errno || n < 0 || n > most) return wrong(q, q->p, "a whole number belongs here, not that large");
    q->p = end;
    *out = n;
    return true;
}
static bool probability(struct parser *q, double *out) {
    char *end;
    blanks(q);
    *out = strtod(q->p, &end);
    if (end == q->p || !strchr("0123456789.", *q->p)) return wrong(q, q->p, "a probability belongs here, as 0.1");
    q->p = end;
    return true;
}
/* The interval ["a", "b"). */
static bool range(struct parser *q, struct lk_table_range *out) {
    out->from_open = accept(q, '(');
    if (!out->from_open && !expect(q, '[', "a range belongs here, as [\"a\", \"b\")")) return false;
    blanks(q);
    if (*q->p != ',' && !string(q, &out->from)) return false;
    if (!out->from.data) out->from_open = false;
    if (!expect(q, ',', "`,` belongs between the bounds of a range")) return false;
    blanks(q);
    if (*q->p != ')' && *q->p != ']' && !string(q, &out->to)) return false;
    out->to_closed = accept(q, ']');
    if (!out->to_closed && !expect(q, ')', "`]` or `)` ends a range")) return false;
    if (!out->to.data) out->to_closed = false;
    return true;
}
static bool times(struct parser *q, struct lk_filter *f) {
    blanks(q);
    if (*q->p != ',' && !integer(q, INT64_MAX, &f->from_us)) return false;
    if (!expect(q, ',', "`,` belongs between two times")) return false;
    blanks(q);
    return *q->p == ')' || integer(q, INT64_MAX, &f->to_us);
}

static bool filter(struct parser *q, struct lk_filter *out);
/* Filters separated by `separator`, into f->parts; the first may be there already. none: `none` stands for NULL. */
static bool list(struct parser *q, struct lk_filter *f, const struct lk_filter *first, char separator,
                 bool (*part)(struct parser *, struct lk_filter *), bool none) {
    size_t room = 0;
    const struct lk_filter **parts = NULL;
    if (first) {
        if (!(parts = take(q, sizeof *parts))) return false;
        room = f->part_count = 1;
        parts[0] = first;
    }
    while ((!f->part_count && !first) || accept(q, separator)) {
        if (f->part_count == room) {
            const struct lk_filter **more = take(q, (room = room ? 2 * room : 4) * sizeof *more);
            if (!more) return false;
            if (f->part_count) memcpy(more, parts, f->part_count * sizeof *more);
            parts = more;
        }
        struct lk_filter *new = NULL;
        blanks(q);
        if (none && f->part_count && strncmp(q->p, "none", 4) == 0)
            q->p += 4;
        else if (!(new = take(q, sizeof *new)) || !part(q, new))
            return false;
        parts[f->part_count++] = new;
    }
    f->parts = parts;
    return true;
}
static bool arguments(struct parser *q, struct lk_filter *f) {
    int64_t n;
    switch (kinds[f->kind].arguments) {
    case PARTS:
    case BRANCHES:
        return list(q, f, NULL, ',', filter, kinds[f->kind].arguments == BRANCHES);
    case PATTERN:
        return string(q, &f->pattern);
    case PROBABILITY:
        return probability(q, &f->probability);
    case COLUMNS:
        return name(q, &f->family) && expect(q, ',', "`,` and a range belong behind the family") && range(q, &f->range);
    case TIMES:
        return times(q, f);
    case RANGE:
        return range(q, &f->range);
    case COUNT:
        if (!integer(q, INT32_MAX, &n)) return false;
        f->count = (int32_t)n;
        return true;
    case LABEL:
        return name(q, &f->label);
    case NO_ARGUMENTS:
        break;
    }
    return true;
}
static bool part(struct parser *q, struct lk_filter *out) {
    blanks(q);
    const char *at = q->p;
    if (accept(q, '(')) return filter(q, out) && expect(q, ')', "`)` belongs here");
    size_t size = strspn(at, "abcdefghijklmnopqrstuvwxyz_"), kind = LK_FILTER_INTERLEAVE;
    while (kind < KIND_COUNT && (strncmp(kinds[kind].name, at, size) != 0 || kinds[kind].name[size])) kind++;
    if (!size || kind == KIND_COUNT)
        return wrong(q, at, "a filter belongs here: family(\"..\"), column_regex(\"..\"), latest(1) and others");
    q->p += size;
    out->kind = (enum lk_filter_kind)kind;
    if (kinds[kind].arguments == NO_ARGUMENTS) return true;
    return expect(q, '(', "`(` belongs behind this filter's name") && arguments(q, out) &&
           expect(q, ')', "`)` belongs here");
}
static bool filter(struct parser *q, struct lk_filter *out) {
    if (++q->depth > 2 * LK_FILTER_DEPTH_MAX) return wrong(q, q->p, "filters are nested too deeply");
    bool good = part(q, out);
    blanks(q);
    if (good && *q->p == '|') {
        struct lk_filter *first = take(q, sizeof *first);
        if (!first) return false;
        *first = *out;
        *out = (struct lk_filter){.kind = LK_FILTER_CHAIN};
        good = list(q, out, first, '|', part, false);
    }
    q->depth--;
    return good;
}
int lk_filter_parse(const char *text, struct lk_filter **out, struct lk_err *err) {
    size_t size = strnlen(text, LK_FILTER_TEXT_MAX + 1);
    struct lk_arena arena;
    *out = NULL;
    if (size > LK_FILTER_TEXT_MAX)
        return lk_fail(err, LK_EINVAL, "a filter's text has more than %d bytes", LK_FILTER_TEXT_MAX);
    /* Address space for the worst: a string of no bytes takes 64, a part 192 and its place in a list. */
    if (lk_arena_init(&arena, (size + 64) * 512)) return lk_fail(err, LK_ENOMEM, "no memory for a filter");
    struct tree *tree = lk_arena_take(&arena, sizeof *tree);
    struct parser q = {text, text, &arena, err, 0, 0};
    if (tree && filter(&q, &tree->root)) {
        blanks(&q);
        if (*q.p) wrong(&q, q.p, "a filter is at its end here, or goes on with `|`");
    }
    if (!tree && !q.code) q.code = lk_fail(err, LK_ENOMEM, "no memory for a filter");
    if (q.code) {
        lk_arena_release(&arena);
        return q.code;
    }
    tree->arena = arena;
    *out = &tree->root;
    return 0;
}
void lk_filter_tree_free(struct lk_filter *f) {
    if (!f) return;
    struct lk_arena arena = ((struct tree *)((char *)f - offsetof(struct tree, root)))->arena;
    lk_arena_release(&arena);
}

/* --- writing --------------------------------------------------------------------------------------------- */

static int put(struct lk_buf *b, const char *text) {
    return lk_buf_append(b, text, strlen(text));
}
/* Between ' and ' where backslashes would be many; else with escapes. */
static int put_string(struct lk_buf *b, struct lk_bytes s) {
    static const char names[] = "\"\\nrt", bytes[] = "\"\\\n\r\t";
    const unsigned char *c = s.data, *end = c + s.size;
    bool plain = s.size && memchr(c, '\\', s.size) && !memchr(c, '\'', s.size);
    for (const unsigned char *i = c; i < end; i++) plain &= *i >= ' ' && *i < 127;
    if (plain) return put(b, "'") || lk_buf_append(b, s.data, s.size) || put(b, "'");
    int code = put(b, "\"");
    for (; c < end && !code; c++) {
        const char *special = *c ? strchr(bytes, *c) : NULL;
        if (special)
            code = lk_buf_printf(b, "\\%c", names[special - bytes]);
        else if (*c >= ' ' && *c < 127)
            code = lk_buf_append(b, c, 1);
        else
            code = lk_buf_printf(b, "\\x%02x", *c);
    }
    return code ? code : put(b, "\"");
}
static int put_name(struct lk_buf *b, const char *name) {
    return put_string(b, lk_bytes(name ? name : "", name ? strlen(name) : 0));
}
static int put_range(struct lk_buf *b, const struct lk_table_range *r) {
    return put(b, r->from.data && r->from_open ? "(" : "[") || (r->from.data && put_string(b, r->from)) || put(b, ", ") ||
           (r->to.data && put_string(b, r->to)) || put(b, r->to.data && r->to_closed ? "]" : ")");
}
static int put_probability(struct lk_buf *b, double p) {
    char text[40];
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, p);
        if (strtod(text, NULL) == p) break;
    }
    return put(b, text);
}
static int put_filter(struct lk_buf *b, const struct lk_filter *f, bool in_chain);
static int put_parts(struct lk_buf *b, const struct lk_filter *f, const char *between, bool chain) {
    int code = 0;
    for (size_t i = 0; i < f->part_count && !code; i++) {
        if (i) code = put(b, between);
        if (!code) code = f->parts[i] ? put_filter(b, f->parts[i], chain) : put(b, "none");
    }
    return code;
}
static int put_arguments(struct lk_buf *b, const struct lk_filter *f) {
    switch (kinds[f->kind].arguments) {
    case PARTS:
    case BRANCHES:
        return put_parts(b, f, ", ", false);
    case PATTERN:
        return put_string(b, f->pattern);
    case PROBABILITY:
        return put_probability(b, f->probability);
    case COLUMNS:
        return put_name(b, f->family) || put(b, ", ") || put_range(b, &f->range);
    case TIMES:
        return (f->from_us && lk_buf_printf(b, "%lld", (long long)f->from_us)) || put(b, ", ") ||
               (f->to_us && lk_buf_printf(b, "%lld", (long long)f->to_us));
    case RANGE:
        return put_range(b, &f->range);
    case COUNT:
        return lk_buf_printf(b, "%d", (int)f->count);
    case LABEL:
        return put_name(b, f->label);
    case NO_ARGUMENTS:
        break;
    }
    return 0;
}
static int put_filter(struct lk_buf *b, const struct lk_filter *f, bool in_chain) {
    if (f->kind == LK_FILTER_CHAIN)
        return (in_chain && put(b, "(")) || put_parts(b, f, " | ", true) || (in_chain && put(b, ")"));
    if (put(b, lk__table_filter_name(f->kind))) return LK_ENOMEM;
    if ((size_t)f->kind >= KIND_COUNT || kinds[f->kind].arguments == NO_ARGUMENTS) return 0;
    return put(b, "(") || put_arguments(b, f) || put(b, ")");
}
char *lk_filter_print(const struct lk_filter *f) {
    struct lk_buf b = LK_BUF_INIT;
    if (!put_filter(&b, f, false)) return b.data;
    lk_buf_release(&b);
    return NULL;
}
