/* Rules of garbage: text, and what they say of a cell. */
#include "store/table/gc_rule.h"
#include "lockstep/base/mem.h"
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define DEPTH_MAX 4

bool lk__table_gc_garbage(const struct lk_gc_rule *rule, int64_t nth, int64_t age_us) {
    switch (rule->kind) {
    case LK_GC_NEVER:
        return false;
    case LK_GC_MAX_VERSIONS:
        return nth >= rule->count;
    case LK_GC_MAX_AGE:
        return age_us > rule->age_us;
    case LK_GC_UNION:
    case LK_GC_INTERSECTION:
        break;
    }
    bool all = rule->kind == LK_GC_INTERSECTION;
    for (size_t i = 0; i < rule->part_count; i++)
        if (lk__table_gc_garbage(&rule->parts[i], nth, age_us) != all) return !all;
    return all;
}

/* --- text ------------------------------------------------------------------------------------------------
 * or:   and ("or" | "||") and ...        and:  term ("and" | "&&") term ...
 * term: "(" or ")" | "never" | "maxversions" "=" number | "maxage" "=" number unit */

static const struct {
    const char *name;
    int64_t us;
} units[] = {{"ms", 1000}, {"s", 1000000}, {"m", 60000000}, {"h", 3600000000}, {"d", 86400000000}};
#define UNITS (sizeof units / sizeof *units)

struct parse {
    const char *text, *at;
    int depth;
    size_t parts;
    struct lk_err *err;
};

static int fail(struct parse *p, const char *wanted) {
    return lk_fail(p->err, LK_EINVAL,
                   "the rule \"%.200s\" at its character %zu: %s; a rule is as \"maxversions=3\", \"maxage=30d\" or "
                   "\"(maxage=7d and maxversions=2) or maxversions=10\"",
                   p->text, (size_t)(p->at - p->text) + 1, wanted);
}
static void skip(struct parse *p) {
    while (isspace((unsigned char)*p->at)) p->at++;
}
static bool word(struct parse *p, const char *w) {
    skip(p);
    size_t n = strlen(w);
    if (strncasecmp(p->at, w, n) != 0 || (isalpha((unsigned char)*w) && isalpha((unsigned char)p->at[n]))) return false;
    p->at += n;
    return true;
}

static int number(struct parse *p, int64_t most, int64_t *out) {
    skip(p);
    char *end;
    if (!isdigit((unsigned char)*p->at)) return fail(p, "a number was expected");
    unsigned long long n = strtoull(p->at, &end, 10);
    if (n < 1 || n > (unsigned long long)most) return fail(p, "the number is out of range");
    p->at = end;
    *out = (int64_t)n;
    return 0;
}

static int age(struct parse *p, int64_t *out) {
    const char *begin = p->at;
    int64_t n;
    int code = number(p, INT64_MAX / 1000, &n);
    for (size_t i = 0; i < UNITS && code == 0; i++) {
        if (!word(p, units[i].name)) continue;
        if (n > INT64_MAX / units[i].us) {
            p->at = begin;
            return fail(p, "the age is too long");
        }
        *out = n * units[i].us;
        return 0;
    }
    return code ? code : fail(p, "a unit was expected: ms, s, m, h or d");
}

static int parse_or(struct parse *, struct lk_gc_rule *);

static int term(struct parse *p, struct lk_gc_rule *out) {
    *out = (struct lk_gc_rule){.kind = LK_GC_NEVER};
    if (++p->parts > LK_GC_PARTS_MAX) return fail(p, "the rule has too many parts (16 are possible)");
    if (word(p, "(")) {
        if (++p->depth > DEPTH_MAX) return fail(p, "parentheses are more than 4 deep");
        int code = parse_or(p, out);
        p->depth--;
        return code ? code : word(p, ")") ? 0 : fail(p, "\")\" was expected");
    }
    int64_t n = 0;
    int code = 0;
    if (word(p, "never")) return 0;
    if (word(p, "maxversions")) {
        if (!word(p, "=")) return fail(p, "\"=\" was expected");
        out->kind = LK_GC_MAX_VERSIONS;
        code = number(p, INT32_MAX, &n);
        out->count = (int32_t)n;
        return code;
    }
    if (word(p, "maxage")) {
        if (!word(p, "=")) return fail(p, "\"=\" was expected");
        out->kind = LK_GC_MAX_AGE;
        return age(p, &out->age_us);
    }
    return fail(p, "\"never\", \"maxversions=\", \"maxage=\" or \"(\" was expected");
}

static int add_part(struct parse *p, struct lk_gc_rule *to, const struct lk_gc_rule *part) {
    struct lk_gc_rule *more = lk_realloc(to->parts, (to->part_count + 1) * sizeof *more);
    if (!more) return lk_fail(p->err, LK_ENOMEM, "out of memory for a rule");
    to->parts = more;
    more[to->part_count++] = *part;
    return 0;
}

typedef int parse_fn(struct parse *, struct lk_gc_rule *);
static int parse_list(struct parse *p, parse_fn *one, const char *joint, const char *sign, enum lk_gc_kind kind,
                      struct lk_gc_rule *out) {
    struct lk_gc_rule part;
    int code = one(p, out);
    while (code == 0 && (word(p, joint) || word(p, sign))) {
        if (out->kind != kind) {
            struct lk_gc_rule list = {.kind = kind};
            code = add_part(p, &list, out);
            if (code != 0) break;
            *out = list;
        }
        code = one(p, &part);
        if (code == 0) code = add_part(p, out, &part);
        if (code != 0) lk_gc_rule_free(&part);
    }
    return code;
}
static int parse_and(struct parse *p, struct lk_gc_rule *out) {
    return parse_list(p, term, "and", "&&", LK_GC_INTERSECTION, out);
}
static int parse_or(struct parse *p, struct lk_gc_rule *out) {
    return parse_list(p, parse_and, "or", "||", LK_GC_UNION, out);
}

int lk_gc_rule_parse(const char *text, struct lk_gc_rule *out, struct lk_err *err) {
    struct parse p = {.text = text, .at = text, .err = err};
    int code = parse_or(&p, out);
    if (code == 0) {
        skip(&p);
        if (*p.at) code = fail(&p, "\"and\", \"or\" or the end was expected");
    }
    if (code != 0) lk_gc_rule_free(out);
    return code;
}

void lk_gc_rule_free(struct lk_gc_rule *rule) {
    for (size_t i = 0; i < rule->part_count; i++) lk_gc_rule_free(&rule->parts[i]);
    lk_free(rule->parts);
    *rule = (struct lk_gc_rule){.kind = LK_GC_NEVER};
}

static int print_age(int64_t us, struct lk_buf *out) {
    size_t i = UNITS - 1;
    while (i > 0 && us % units[i].us != 0) i--;
    return lk_buf_printf(out, "maxage=%lld%s", (long long)(us / units[i].us), units[i].name);
}

static int print_part(const struct lk_gc_rule *rule, bool inside_and, struct lk_buf *out) {
    if (rule->kind == LK_GC_NEVER) return lk_buf_printf(out, "never");
    if (rule->kind == LK_GC_MAX_VERSIONS) return lk_buf_printf(out, "maxversions=%d", rule->count);
    if (rule->kind == LK_GC_MAX_AGE) return print_age(rule->age_us, out);
    bool all = rule->kind == LK_GC_INTERSECTION, parens = inside_and;
    int code = parens ? lk_buf_append(out, "(", 1) : 0;
    for (size_t i = 0; i < rule->part_count && code == 0; i++) {
        if (i) code = lk_buf_printf(out, all ? " and " : " or ");
        if (code == 0) code = print_part(&rule->parts[i], true, out);
    }
    return code == 0 && parens ? lk_buf_append(out, ")", 1) : code;
}
int lk_gc_rule_print(const struct lk_gc_rule *rule, struct lk_buf *out) {
    return print_part(rule, false, out);
}
