/* What must hold of a cell so that it can matter in a pass: steps are asked in the order in which cells take them, each
 * with all that can arrive there. Behind a limit of the row nothing narrows any more, since the limit counts cells that
 * later steps drop; behind a limit of columns, times do not. */
#include "store/table/filter_program.h"
#include <string.h>

int lk__table_filter_compare(struct lk_bytes a, struct lk_bytes b) {
    size_t size = a.size < b.size ? a.size : b.size;
    int c = size ? memcmp(a.data, b.data, size) : 0;
    return c ? c : (a.size > b.size) - (a.size < b.size);
}
int lk__table_filter_range_side(const struct lk_table_range *r, struct lk_bytes bytes) {
    if (r->from.data) {
        int c = lk__table_filter_compare(bytes, r->from);
        if (c < 0 || (c == 0 && r->from_open)) return -1;
    }
    if (r->to.data) {
        int c = lk__table_filter_compare(bytes, r->to);
        if (c > 0 || (c == 0 && !r->to_closed)) return 1;
    }
    return 0;
}

/* False: nothing is left. */
static bool cut(struct lk_table_range *r, const struct lk_table_range *by) {
    if (by->from.data) {
        int c = r->from.data ? lk__table_filter_compare(by->from, r->from) : 1;
        if (c > 0 || (c == 0 && by->from_open)) r->from = by->from, r->from_open = by->from_open;
    }
    if (by->to.data) {
        int c = r->to.data ? lk__table_filter_compare(by->to, r->to) : -1;
        if (c < 0 || (c == 0 && !by->to_closed)) r->to = by->to, r->to_closed = by->to_closed;
    }
    int c = r->from.data && r->to.data ? lk__table_filter_compare(r->from, r->to) : -1;
    return c < 0 || (c == 0 && !r->from_open && r->to_closed);
}
void lk__table_filter_widen(struct lk_table_range *r, const struct lk_table_range *by) {
    int from = r->from.data && by->from.data ? lk__table_filter_compare(by->from, r->from) : 0;
    int to = r->to.data && by->to.data ? lk__table_filter_compare(by->to, r->to) : 0;
    if (!by->from.data || from < 0 || (from == 0 && !by->from_open)) {
        if (r->from.data) r->from = by->from, r->from_open = by->from_open;
    }
    if (!by->to.data || to > 0 || (to == 0 && by->to_closed)) {
        if (r->to.data) r->to = by->to, r->to_closed = by->to_closed;
    }
}
/* What comes this way too. */
static void join(struct lk__table_filter_flow *into, const struct lk__table_filter_flow *f) {
    struct lk__table_filter_bounds *a = &into->bounds;
    const struct lk__table_filter_bounds *b = &f->bounds;
    if (!into->reached) {
        *into = *f;
        return;
    }
    if (a->family && (!b->family || strcmp(a->family, b->family) != 0)) a->family = NULL;
    lk__table_filter_widen(&a->qualifiers, &b->qualifiers);
    if (b->from_us < a->from_us) a->from_us = b->from_us;
    if (b->to_us > a->to_us) a->to_us = b->to_us;
    into->counted |= f->counted;
    into->column_counted |= f->column_counted;
}
static bool cut_family(struct lk__table_filter_bounds *b, const char *family) {
    if (b->family && strcmp(b->family, family) != 0) return false;
    b->family = family;
    return true;
}
/* What the step lets through of *f; false: nothing. */
static bool narrow(const struct lk__table_step *s, struct lk__table_filter_flow *f) {
    struct lk__table_filter_bounds *b = &f->bounds;
    bool whole;
    if (s->kind == LK__STEP_BLOCK) return false;
    if (s->kind == LK__STEP_ROW_OFFSET || s->kind == LK__STEP_ROW_LIMIT) f->counted = true;
    if (s->kind == LK__STEP_COLUMN_LIMIT) f->column_counted = true;
    if (f->counted) return true;
    switch (s->kind) {
    case LK__STEP_FAMILY:
        (void)lk__table_regex_head(s->regex, &whole);
        return !whole || cut_family(b, s->family);
    case LK__STEP_COLUMN:
        return cut(&b->qualifiers, &s->range);
    case LK__STEP_COLUMNS:
        return cut_family(b, s->family) && cut(&b->qualifiers, &s->range);
    case LK__STEP_TIME:
        if (f->column_counted) return true;
        if (s->from_us > b->from_us) b->from_us = s->from_us;
        if (s->to_us < b->to_us) b->to_us = s->to_us;
        return b->from_us < b->to_us;
    default:
        return true;
    }
}

void lk__table_filter_find_bounds(const struct lk_filter_program *p, struct lk__table_filter_flow *work,
                                  const uint8_t *row_fails, const uint8_t *holds, uint32_t pass,
                                  struct lk__table_filter_bounds *out) {
    struct lk__table_filter_flow end = {0};
    for (uint32_t i = 0; i < p->step_count; i++) work[i].reached = false;
    work[p->root] = (struct lk__table_filter_flow){.bounds = {.to_us = INT64_MAX}, .reached = true};
    for (uint32_t i = p->root + 1; i-- > 0;) {
        const struct lk__table_step *s = &p->steps[i];
        struct lk__table_filter_flow f = work[i];
        if (!f.reached || (row_fails && row_fails[i]) || !narrow(s, &f)) continue;
        switch (s->kind) {
        case LK__STEP_OUT:
            if (!holds || !pass) join(&end, &f);
            break;
        case LK__STEP_MATCH:
            if (!holds || p->steps[s->other].level == pass) join(&end, &f);
            break;
        case LK__STEP_FORK:
            for (uint32_t w = 0; w < s->count; w++) join(&work[p->ways[s->first + w]], &f);
            break;
        case LK__STEP_IF: {
            bool decided = holds && (!pass || s->level < pass);
            if (!decided && (!holds || s->level == pass || s->inner)) join(&work[s->other], &f);
            if (!holds || (decided && holds[i])) join(&work[s->then], &f);
            if (!holds || (decided && !holds[i])) join(&work[s->otherwise], &f);
            break;
        }
        default:
            join(&work[s->then], &f);
        }
    }
    *out = end.bounds;
    if (!end.reached) *out = (struct lk__table_filter_bounds){.nothing = true};
}
