/* Filters, from trees to steps; see filter_program.h. */
#include "store/table/filter_program.h"
#include "store/table/filter_text.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct compiler {
    struct lk_filter_program *program;
    struct lk_err *err;
    int code;
    size_t size, states;
    char path[768];
    size_t path_size;
};
static const char steps_memory[] = "no memory for a filter";

#define FAIL(c, code, ...) fail_at(c, lk_fail((c)->err, code, __VA_ARGS__))
static uint32_t fail_at(struct compiler *c, int code) {
    c->code = lk_fail_prefix(c->err, code, "filter %s", c->path);
    return 0;
}
static void enter(struct compiler *c, const char *text) {
    int n = snprintf(c->path + c->path_size, sizeof c->path - c->path_size, "%s", text);
    c->path_size += (size_t)n < sizeof c->path - c->path_size ? (size_t)n : 0;
}
static void leave(struct compiler *c, size_t size) {
    c->path[c->path_size = size] = 0;
}

/* --- pieces ---------------------------------------------------------------------------------------------- */

/* False: no memory. */
static bool room(void *items, uint32_t want, uint32_t *have, size_t size) {
    void *old, *new;
    if (want <= *have) return true;
    uint32_t more = *have * 2 > want ? *have * 2 : want + 16;
    memcpy(&old, items, sizeof old);
    if (!(new = lk_realloc(old, more * size))) return false;
    memcpy(items, &new, sizeof new);
    *have = more;
    return true;
}
static void step_release(struct lk__table_step *s) {
    lk__table_regex_free(s->regex);
    lk_free(s->family);
    lk_free(s->label);
    for (size_t i = 0; i < s->choice_count; i++) {
        lk_free((void *)s->choices[i].from.data);
        lk_free((void *)s->choices[i].to.data);
    }
    if (!s->choices) {
        lk_free((void *)s->range.from.data);
        lk_free((void *)s->range.to.data);
    }
    lk_free(s->choices);
}
/* Takes what s holds, in any case. */
static uint32_t step(struct compiler *c, struct lk__table_step s) {
    struct lk_filter_program *p = c->program;
    if (!room(&p->steps, p->step_count + 1, &p->step_room, sizeof *p->steps)) {
        step_release(&s);
        return FAIL(c, LK_ENOMEM, steps_memory);
    }
    p->steps[p->step_count] = s;
    return p->step_count++;
}
/* A copy that ends in a zero byte; NULL stays NULL. */
static void *copy(struct compiler *c, const void *data, size_t size) {
    char *new = data ? lk_alloc(size + 1) : NULL;
    if (new) {
        memcpy(new, data, size);
        new[size] = 0;
    } else if (data)
        FAIL(c, LK_ENOMEM, steps_memory);
    return new;
}
static void copy_range(struct compiler *c, const struct lk_table_range *from, struct lk_table_range *to) {
    *to = *from;
    to->from.data = copy(c, from->from.data, from->from.size);
    to->to.data = copy(c, from->to.data, from->to.size);
}
/* Bytes whose beginning is `head`, as a range. */
static void head_range(struct compiler *c, struct lk_bytes head, bool whole, struct lk_table_range *out) {
    size_t size = head.size;
    if (!size && !whole) return;
    out->from = lk_bytes(copy(c, size ? head.data : "", size), size);
    out->to_closed = whole;
    while (!whole && size && ((const unsigned char *)head.data)[size - 1] == 0xff) size--;
    if (!whole && !size) return; /* no end */
    char *to = copy(c, size ? head.data : "", size);
    out->to = lk_bytes(to, size);
    if (to && !whole) to[size - 1]++;
}
static int by_beginning(const void *x, const void *y) {
    const struct lk_table_range *a = x, *b = y;
    return lk__table_filter_compare(a->from, b->from);
}
static void find_choices(struct compiler *c, struct lk__table_step *s) {
    struct lk_bytes head;
    bool whole;
    if (!lk__table_regex_choice(s->regex, 0, &head, &whole)) return;
    if (!(s->choices = lk_calloc(LK__REGEX_HEADS_MAX, sizeof *s->choices))) {
        FAIL(c, LK_ENOMEM, steps_memory);
        return;
    }
    for (; !c->code && lk__table_regex_choice(s->regex, s->choice_count, &head, &whole); s->choice_count++)
        head_range(c, head, whole, &s->choices[s->choice_count]);
    if (c->code) return;
    qsort(s->choices, s->choice_count, sizeof *s->choices, by_beginning);
    s->range = s->choices[0];
    for (size_t i = 1; i < s->choice_count; i++) lk__table_filter_widen(&s->range, &s->choices[i]);
    c->program->gaps = true;
}
static uint32_t pattern(struct compiler *c, enum lk__table_step_kind kind, const struct lk_filter *f, uint32_t then) {
    struct lk__table_step s = {.kind = kind, .then = then};
    bool whole;
    int code = lk__table_regex_compile(f->pattern, &s.regex, c->err);
    if (code) return fail_at(c, code);
    struct lk_bytes head = lk__table_regex_head(s.regex, &whole);
    c->states += lk__table_regex_states(s.regex);
    c->program->patterns += lk__table_regex_states(s.regex) > 0;
    if (kind == LK__STEP_FAMILY) s.family = copy(c, head.data ? head.data : "", head.size);
    if (kind == LK__STEP_COLUMN) find_choices(c, &s);
    if (kind == LK__STEP_COLUMN && !s.choices) head_range(c, head, whole, &s.range);
    if (c->states > 4 * LK__REGEX_STATES_MAX)
        FAIL(c, LK_EINVAL, "the patterns together need more than %d states; make their counts smaller",
             4 * LK__REGEX_STATES_MAX);
    return step(c, s);
}

/* --- what a tree must be --------------------------------------------------------------------------------- */

static bool holds_kind(const struct lk_filter *f, enum lk_filter_kind kind) {
    if (!f) return false;
    if (f->kind == kind) return true;
    for (size_t i = 0; i < f->part_count; i++)
        if (holds_kind(f->parts[i], kind)) return true;
    return false;
}
static bool label_is_good(const char *label) {
    size_t n = label ? strspn(label, "abcdefghijklmnopqrstuvwxyz0123456789-") : 0;
    return n >= 1 && n <= 15 && !label[n];
}
static bool parts_are_good(struct compiler *c, const struct lk_filter *f) {
    size_t labels = 0;
    if (f->kind == LK_FILTER_CONDITION ? f->part_count < 2 || f->part_count > 3 : f->part_count < 2)
        return FAIL(c, LK_EINVAL,
                    f->kind == LK_FILTER_CONDITION ? "a predicate and one or two branches are its parts"
                                                   : "it has two parts at least");
    for (size_t i = 0; i < f->part_count; i++) {
        if (!f->parts[i] && (f->kind != LK_FILTER_CONDITION || i == 0)) return FAIL(c, LK_EINVAL, "part %zu is missing", i);
        if (f->kind == LK_FILTER_CONDITION && holds_kind(f->parts[i], LK_FILTER_SINK))
            return FAIL(c, LK_EINVAL, "a sink cannot stand within a condition");
        labels += holds_kind(f->parts[i], LK_FILTER_LABEL);
    }
    if (f->kind == LK_FILTER_CHAIN && labels > 1)
        return FAIL(c, LK_EINVAL, "more than one of its parts labels cells, which have one label at most");
    return true;
}
/* Depth and sizes of all of the tree, before anything else walks it. */
static bool measure(struct compiler *c, const struct lk_filter *f, int depth) {
    if (depth > LK_FILTER_DEPTH_MAX) return FAIL(c, LK_EINVAL, "filters are nested deeper than %d", LK_FILTER_DEPTH_MAX);
    c->size += 16 + f->pattern.size + f->range.from.size + f->range.to.size;
    if (f->family) c->size += strlen(f->family);
    if (f->label) c->size += strlen(f->label);
    if (c->size > LK_FILTER_SIZE_MAX)
        return FAIL(c, LK_EINVAL, "the filter has more than %d bytes (16 for each part, and its patterns, bounds, names)",
                    LK_FILTER_SIZE_MAX);
    for (size_t i = 0; i < f->part_count; i++)
        if (f->parts[i] && !measure(c, f->parts[i], depth + 1)) return false;
    return true;
}

/* --- compilation ----------------------------------------------------------------------------------------- */

/* The step that begins what f does before `then`. Steps come after those that they lead to. */
static uint32_t compile(struct compiler *c, const struct lk_filter *f, uint32_t then);
static uint32_t compile_part(struct compiler *c, const struct lk_filter *f, size_t i, uint32_t then) {
    char index[32];
    size_t size = c->path_size;
    snprintf(index, sizeof index, "[%zu].", i);
    enter(c, index);
    uint32_t first = compile(c, f->parts[i], then);
    leave(c, size);
    return first;
}
static uint32_t compile_fork(struct compiler *c, const struct lk_filter *f, uint32_t then) {
    struct lk_filter_program *p = c->program;
    uint32_t *first = lk_alloc(f->part_count * sizeof *first), at = 0;
    if (!first) return FAIL(c, LK_ENOMEM, steps_memory);
    for (size_t i = f->part_count; i-- > 0 && !c->code;) first[i] = compile_part(c, f, i, then);
    uint32_t count = (uint32_t)f->part_count;
    if (!c->code && !room(&p->ways, p->way_count + count, &p->way_room, sizeof *p->ways)) FAIL(c, LK_ENOMEM, steps_memory);
    if (!c->code) {
        memcpy(p->ways + p->way_count, first, count * sizeof *first);
        p->gaps = true;
        at = step(c, (struct lk__table_step){.kind = LK__STEP_FORK, .first = p->way_count, .count = count});
        p->way_count += count;
    }
    lk_free(first);
    return at;
}
static uint32_t compile_branch(struct compiler *c, const struct lk_filter *f, size_t i, uint32_t then) {
    if (i < f->part_count && f->parts[i]) return compile_part(c, f, i, then);
    return step(c, (struct lk__table_step){.kind = LK__STEP_BLOCK});
}
static uint32_t compile_if(struct compiler *c, const struct lk_filter *f, uint32_t then) {
    struct lk__table_step s = {.kind = LK__STEP_IF};
    uint32_t match = 0, at = 0;
    s.inner = holds_kind(f->parts[0], LK_FILTER_CONDITION);
    s.otherwise = compile_branch(c, f, 2, then);
    if (!c->code) s.then = compile_branch(c, f, 1, then);
    if (!c->code) match = step(c, (struct lk__table_step){.kind = LK__STEP_MATCH});
    if (!c->code) s.other = compile_part(c, f, 0, match);
    if (!c->code) at = step(c, s);
    if (!c->code) c->program->steps[match].other = at;
    return at;
}
static uint32_t compile_count(struct compiler *c, enum lk__table_step_kind kind, const struct lk_filter *f, uint32_t then) {
    int least = kind != LK__STEP_ROW_OFFSET;
    if (f->count < least) return FAIL(c, LK_EINVAL, "its count is %d; it is %d or more", f->count, least);
    return step(c, (struct lk__table_step){.kind = kind, .then = then, .count = (uint32_t)f->count});
}
static uint32_t compile_range(struct compiler *c, enum lk__table_step_kind kind, const struct lk_filter *f, uint32_t then) {
    struct lk__table_step s = {.kind = kind, .then = then};
    if (kind == LK__STEP_COLUMNS && (!f->family || !*f->family)) return FAIL(c, LK_EINVAL, "it names no family");
    copy_range(c, &f->range, &s.range);
    if (kind == LK__STEP_COLUMNS) s.family = copy(c, f->family, strlen(f->family));
    return step(c, s);
}
static uint32_t compile_time(struct compiler *c, const struct lk_filter *f, uint32_t then) {
    if (f->from_us < 0 || f->to_us < 0) return FAIL(c, LK_EINVAL, "times are 0 or more");
    int64_t to_us = f->to_us ? f->to_us : INT64_MAX;
    return step(c, (struct lk__table_step){.kind = LK__STEP_TIME, .then = then, .from_us = f->from_us, .to_us = to_us});
}
static uint32_t compile_leaf(struct compiler *c, const struct lk_filter *f, uint32_t then) {
    switch (f->kind) {
    case LK_FILTER_SINK:
        return 0;
    case LK_FILTER_PASS:
        return then;
    case LK_FILTER_BLOCK:
        return step(c, (struct lk__table_step){.kind = LK__STEP_BLOCK});
    case LK_FILTER_ROW_REGEX:
        if (!f->pattern.size) return FAIL(c, LK_EINVAL, "its pattern is empty, as no row's key is");
        return pattern(c, LK__STEP_ROW, f, then);
    case LK_FILTER_ROW_SAMPLE:
        if (!(f->probability > 0 && f->probability < 1))
            return FAIL(c, LK_EINVAL, "its probability is %g; it is between 0 and 1, without both", f->probability);
        return step(c, (struct lk__table_step){.kind = LK__STEP_SAMPLE,
                                               .then = then,
                                               .below = (uint64_t)(f->probability * 9007199254740992.0)});
    case LK_FILTER_FAMILY_REGEX:
        return pattern(c, LK__STEP_FAMILY, f, then);
    case LK_FILTER_COLUMN_REGEX:
        return pattern(c, LK__STEP_COLUMN, f, then);
    case LK_FILTER_COLUMN_RANGE:
        return compile_range(c, LK__STEP_COLUMNS, f, then);
    case LK_FILTER_TIME_RANGE:
        return compile_time(c, f, then);
    case LK_FILTER_VALUE_REGEX:
        return pattern(c, LK__STEP_VALUE, f, then);
    case LK_FILTER_VALUE_RANGE:
        return compile_range(c, LK__STEP_VALUES, f, then);
    case LK_FILTER_ROW_OFFSET:
        return compile_count(c, LK__STEP_ROW_OFFSET, f, then);
    case LK_FILTER_ROW_LIMIT:
        return compile_count(c, LK__STEP_ROW_LIMIT, f, then);
    case LK_FILTER_COLUMN_LIMIT:
        return compile_count(c, LK__STEP_COLUMN_LIMIT, f, then);
    case LK_FILTER_STRIP_VALUE:
        return step(c, (struct lk__table_step){.kind = LK__STEP_STRIP, .then = then});
    case LK_FILTER_LABEL:
        if (!label_is_good(f->label)) return FAIL(c, LK_EINVAL, "its label is not 1 to 15 of a-z, 0-9 and -");
        return step(
            c, (struct lk__table_step){.kind = LK__STEP_LABEL, .then = then, .label = copy(c, f->label, strlen(f->label))});
    default:
        return FAIL(c, LK_EINVAL, "there is no kind %d of filters", (int)f->kind);
    }
}
static uint32_t compile(struct compiler *c, const struct lk_filter *f, uint32_t then) {
    size_t size = c->path_size;
    enter(c, lk__table_filter_name(f->kind));
    uint32_t at = then;
    if (f->kind > LK_FILTER_CONDITION)
        at = compile_leaf(c, f, then);
    else if (!parts_are_good(c, f))
        at = 0;
    else if (f->kind == LK_FILTER_INTERLEAVE)
        at = compile_fork(c, f, then);
    else if (f->kind == LK_FILTER_CONDITION)
        at = compile_if(c, f, then);
    else
        for (size_t i = f->part_count; i-- > 0 && !c->code;) at = compile_part(c, f, i, at);
    leave(c, size);
    return at;
}

/* --- what follows from the steps ------------------------------------------------------------------------- */

static void raise(uint32_t *depth, uint32_t least) {
    if (*depth < least) *depth = least;
}
/* The pass that decides each condition: after those whose result reaches it, and those in its predicate. */
static bool find_levels(struct lk_filter_program *p) {
    uint32_t *depth = lk_calloc(p->step_count, sizeof *depth); /* the last pass that what arrives here waits for, and 1 */
    if (!depth) return false;
    depth[p->root] = 1;
    for (uint32_t i = p->root + 1; i-- > 0;) {
        struct lk__table_step *s = &p->steps[i];
        if (!depth[i]) continue;
        if (s->kind == LK__STEP_FORK)
            for (uint32_t w = 0; w < s->count; w++) raise(&depth[p->ways[s->first + w]], depth[i]);
        else if (s->kind == LK__STEP_IF) {
            raise(&depth[s->other], depth[i]);
            s->level = depth[i];
            /* Its MATCH, or, where nothing reaches that, this step, comes before its branches. */
            raise(&depth[s->then], depth[i] + 1);
            raise(&depth[s->otherwise], depth[i] + 1);
            if (s->level > p->levels) p->levels = s->level;
        } else if (s->kind == LK__STEP_MATCH) {
            struct lk__table_step *condition = &p->steps[s->other];
            condition->level = depth[i];
            raise(&depth[condition->then], depth[i] + 1);
            raise(&depth[condition->otherwise], depth[i] + 1);
            if (condition->level > p->levels) p->levels = condition->level;
        } else if (s->kind != LK__STEP_OUT && s->kind != LK__STEP_BLOCK)
            raise(&depth[s->then], depth[i]);
    }
    lk_free(depth);
    return true;
}
/* The next step of those that all cells take, from the root on; false: here they part, or end. */
static bool common(const struct lk_filter_program *p, uint32_t *at) {
    enum lk__table_step_kind kind = p->steps[*at].kind;
    if (kind <= LK__STEP_IF) return false;
    *at = p->steps[*at].then;
    return true;
}
static int find_common(struct lk_filter_program *p) {
    uint32_t at = p->root, keys = 0;
    struct lk_bytes head = {0};
    bool whole;
    do {
        const struct lk__table_step *s = &p->steps[at];
        keys += s->kind == LK__STEP_ROW || s->kind == LK__STEP_SAMPLE;
        struct lk_bytes more = s->kind == LK__STEP_ROW ? lk__table_regex_head(s->regex, &whole) : head;
        if (more.size > head.size) head = more;
    } while (common(p, &at));
    for (at = 0; at < p->step_count; at++)
        keys -= p->steps[at].kind == LK__STEP_ROW || p->steps[at].kind == LK__STEP_SAMPLE;
    p->varies = p->levels || keys; /* keys: of those where cells have parted */
    return lk_buf_append(&p->row_prefix, head.data ? head.data : "", head.size);
}
int lk_filter_compile(const struct lk_filter *f, struct lk_filter_program **out, struct lk_err *err) {
    struct compiler c = {.err = err};
    struct lk__table_filter_flow *work = NULL;
    struct lk_filter_program *p = c.program = lk_calloc(1, sizeof *p);
    *out = NULL;
    if (!p) return lk_fail(err, LK_ENOMEM, steps_memory);
    enter(&c, lk__table_filter_name(f->kind));
    bool good = measure(&c, f, 0);
    leave(&c, 0);
    if (good) step(&c, (struct lk__table_step){.kind = LK__STEP_OUT});
    if (!c.code) p->root = compile(&c, f, 0);
    if (!c.code && (!find_levels(p) || find_common(p) || !(work = lk_alloc(p->step_count * sizeof *work))))
        c.code = lk_fail(err, LK_ENOMEM, steps_memory);
    if (!c.code) lk__table_filter_find_bounds(p, work, NULL, NULL, 0, &p->bounds);
    lk_free(work);
    if (c.code)
        lk_filter_free(p);
    else
        *out = p;
    return c.code;
}
void lk_filter_free(struct lk_filter_program *p) {
    if (!p) return;
    for (uint32_t i = 0; i < p->step_count; i++) step_release(&p->steps[i]);
    lk_buf_release(&p->row_prefix);
    lk_free(p->steps);
    lk_free(p->ways);
    lk_free(p);
}

const struct lk__table_filter_bounds *lk__table_filter_bounds(const struct lk_filter_program *p) {
    return &p->bounds;
}
struct lk_bytes lk__table_filter_row_prefix(const struct lk_filter_program *p) {
    return lk_bytes(p->row_prefix.data, p->row_prefix.size);
}
uint64_t lk__table_filter_hash(struct lk_bytes row) {
    const unsigned char *c = row.data;
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < row.size; i++) h = (h ^ c[i]) * UINT64_C(0x100000001b3);
    h = (h ^ h >> 33) * UINT64_C(0xff51afd7ed558ccd);
    h = (h ^ h >> 33) * UINT64_C(0xc4ceb9fe1a85ec53);
    return h ^ h >> 33;
}
bool lk__table_filter_row(const struct lk_filter_program *p, struct lk_bytes row) {
    uint32_t at = p->root;
    if (p->bounds.nothing) return false;
    do {
        const struct lk__table_step *s = &p->steps[at];
        if (s->kind == LK__STEP_ROW && lk__table_regex_compare(s->regex, row) == 0) return false;
        if (s->kind == LK__STEP_SAMPLE && lk__table_filter_hash(row) >> 11 >= s->below) return false;
    } while (common(p, &at));
    return true;
}
