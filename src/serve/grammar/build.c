/* Rules and expressions while a grammar is read. */
#include "serve/grammar/build.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *lk__grammar_room(struct lk__grammar_array *a, size_t more, size_t size) {
    if (a->count + more > a->capacity) {
        size_t capacity = a->capacity ? 2 * a->capacity : 64;
        while (capacity < a->count + more) capacity *= 2;
        void *data = lk_realloc(a->data, capacity * size);
        if (!data) return NULL;
        a->data = data;
        a->capacity = capacity;
    }
    return (char *)a->data + a->count * size;
}

void lk__grammar_build_init(struct lk__grammar_build *b, struct lk_err *err) {
    memset(b, 0, sizeof *b);
    b->err = err;
    lk__grammar_literal(b, "", 0); /* expression 0, which failing calls return */
}

void lk__grammar_build_release(struct lk__grammar_build *b) {
    for (size_t i = 0; i < b->rules.count; i++) lk_free(lk__grammar_rule_at(b, (uint32_t)i)->name);
    lk_free(b->exprs.data);
    lk_free(b->kids.data);
    lk_free(b->text.data);
    lk_free(b->ranges.data);
    lk_free(b->rules.data);
}

int lk__grammar_fail(struct lk__grammar_build *b, int code, const char *format, ...) {
    if (b->code) return b->code;
    char message[640];
    va_list ap;
    va_start(ap, format);
    vsnprintf(message, sizeof message, format, ap);
    va_end(ap);
    return b->code = lk_fail(b->err, code, "%s", message);
}

static int no_memory(struct lk__grammar_build *b) {
    return lk__grammar_fail(b, LK_ENOMEM, "no memory for a grammar");
}

static uint32_t add(struct lk__grammar_build *b, struct lk__grammar_expr e) {
    if (b->code) return 0;
    if (b->exprs.count >= LK__GRAMMAR_EXPRS_MOST) {
        lk__grammar_fail(b, LK_EINVAL, "the grammar is too large: more than %zu parts; make it smaller",
                         LK__GRAMMAR_EXPRS_MOST);
        return 0;
    }
    struct lk__grammar_expr *room = lk__grammar_room(&b->exprs, 1, sizeof e);
    if (!room) return no_memory(b), 0;
    *room = e;
    return (uint32_t)b->exprs.count++;
}

/* Appends to an array and adds an expression of that. */
static uint32_t add_of(struct lk__grammar_build *b, enum lk__grammar_kind kind, struct lk__grammar_array *a,
                       const void *data, size_t count, size_t size) {
    if (b->code) return 0;
    void *room = lk__grammar_room(a, count + 1, size);
    if (!room) return no_memory(b), 0;
    if (count) memcpy(room, data, count * size);
    struct lk__grammar_expr e = {kind, (uint32_t)a->count, (uint32_t)count, 0, 0};
    a->count += count;
    if (a->count > UINT32_MAX / 2) return lk__grammar_fail(b, LK_EINVAL, "the grammar is too large; make it smaller"), 0;
    return add(b, e);
}

uint32_t lk__grammar_literal(struct lk__grammar_build *b, const void *bytes, size_t size) {
    return add_of(b, LK__GRAMMAR_LITERAL, &b->text, bytes, size, 1);
}
uint32_t lk__grammar_string(struct lk__grammar_build *b, const char *text) {
    return lk__grammar_literal(b, text, strlen(text));
}
uint32_t lk__grammar_char(struct lk__grammar_build *b, uint32_t c) {
    struct lk__grammar_range r = {c, c};
    return lk__grammar_class(b, &r, 1, false);
}
uint32_t lk__grammar_sequence(struct lk__grammar_build *b, const uint32_t *kids, size_t count) {
    return count == 1 ? kids[0] : add_of(b, LK__GRAMMAR_SEQUENCE, &b->kids, kids, count, sizeof *kids);
}
uint32_t lk__grammar_choice(struct lk__grammar_build *b, const uint32_t *kids, size_t count) {
    return count == 1 ? kids[0] : add_of(b, LK__GRAMMAR_CHOICE, &b->kids, kids, count, sizeof *kids);
}
uint32_t lk__grammar_repeat(struct lk__grammar_build *b, uint32_t kid, uint32_t least, uint32_t most) {
    uint32_t id = add_of(b, LK__GRAMMAR_REPEAT, &b->kids, &kid, 1, sizeof kid);
    if (b->code) return 0;
    lk__grammar_expr_at(b, id)->least = least;
    lk__grammar_expr_at(b, id)->most = most;
    return id;
}
uint32_t lk__grammar_call(struct lk__grammar_build *b, uint32_t rule) {
    return add(b, (struct lk__grammar_expr){LK__GRAMMAR_CALL, rule, 0, 0, 0});
}

/* --- classes ----------------------------------------------------------------------------------------------- */

static int by_first(const void *a, const void *b) {
    uint32_t x = ((const struct lk__grammar_range *)a)->first, y = ((const struct lk__grammar_range *)b)->first;
    return (x > y) - (x < y);
}

size_t lk__grammar_ranges(struct lk__grammar_range *ranges, size_t count, bool negated, struct lk__grammar_range *out) {
    size_t n = 0;
    if (count) qsort(ranges, count, sizeof *ranges, by_first);
    if (!negated) {
        for (size_t i = 0; i < count; i++)
            if (n && ranges[i].first <= out[n - 1].last + 1)
                out[n - 1].last = ranges[i].last > out[n - 1].last ? ranges[i].last : out[n - 1].last;
            else
                out[n++] = ranges[i];
        return n;
    }
    uint32_t next = 0; /* the first character that is not behind us */
    for (size_t i = 0; i < count; i++) {
        if (ranges[i].first > next) out[n++] = (struct lk__grammar_range){next, ranges[i].first - 1};
        if (ranges[i].last >= next) next = ranges[i].last + 1;
    }
    if (next <= LK__GRAMMAR_LAST_CHAR) out[n++] = (struct lk__grammar_range){next, LK__GRAMMAR_LAST_CHAR};
    return n;
}

/* The parts of r below and above the surrogates; returns how many. */
static size_t without_surrogates(struct lk__grammar_range r, struct lk__grammar_range *out) {
    size_t n = 0;
    if (r.first < 0xD800) out[n++] = (struct lk__grammar_range){r.first, r.last < 0xD800 ? r.last : 0xD7FF};
    if (r.last > 0xDFFF) out[n++] = (struct lk__grammar_range){r.first > 0xDFFF ? r.first : 0xE000, r.last};
    return n;
}

uint32_t lk__grammar_class(struct lk__grammar_build *b, struct lk__grammar_range *ranges, size_t count, bool negated) {
    if (b->code) return 0;
    struct lk__grammar_range *clean = lk_alloc((2 * count + 3) * 2 * sizeof *clean), *cut;
    if (!clean) return no_memory(b), 0;
    size_t n = lk__grammar_ranges(ranges, count, negated, clean), made = 0;
    cut = clean + n;
    for (size_t i = 0; i < n; i++) made += without_surrogates(clean[i], cut + made);
    uint32_t id = add_of(b, LK__GRAMMAR_CLASS, &b->ranges, cut, made, sizeof *cut);
    lk_free(clean);
    return id;
}

/* --- rules ------------------------------------------------------------------------------------------------- */

uint32_t lk__grammar_rule(struct lk__grammar_build *b, const char *name, size_t size, bool apart) {
    if (b->code) return 0;
    if (b->rules.count >= LK__GRAMMAR_RULES_MOST) {
        lk__grammar_fail(b, LK_EINVAL, "the grammar is too large: more than %d rules; make it smaller",
                         LK__GRAMMAR_RULES_MOST);
        return 0;
    }
    struct lk__grammar_rule *r = lk__grammar_room(&b->rules, 1, sizeof *r);
    char *copy = r && name ? lk_strndup(name, size) : NULL;
    if (!r || (name && !copy)) return no_memory(b), 0;
    *r = (struct lk__grammar_rule){copy, 0, apart};
    return (uint32_t)b->rules.count++;
}
void lk__grammar_body(struct lk__grammar_build *b, uint32_t rule, uint32_t expr) {
    if (!b->code) lk__grammar_rule_at(b, rule)->body = expr;
}
