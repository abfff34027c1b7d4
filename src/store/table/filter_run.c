/* Filters at work: each cell takes the program's steps; what a step says of the cells to come goes back up. */
#include "store/table/filter_program.h"
#include <string.h>

/* What a step remembers; of another row's pass, family or column once its stamp is old. */
struct memory {
    uint64_t stamp;
    uint32_t count; /* cells that arrived; for patterns enum lk__table_filter_next, CELL: it matches */
    struct lk__table_regex_run *regex;
};
struct lk__table_filter_run {
    const struct lk_filter_program *program;
    struct memory *memory;              /* (steps) */
    uint8_t *row_fails, *holds;         /* (steps) */
    struct lk__table_filter_flow *work; /* (steps) */
    struct lk__table_filter_bounds bounds;
    struct lk_bytes seek; /* data NULL: none */
    uint32_t pass;        /* 0: for the result, else the level of the conditions that it decides */
    bool begun, dead;
    uint64_t tick, pass_stamp, family_stamp, column_stamp;
    size_t cache_bytes;
    char family[LK_TABLE_FAMILY_MAX + 1]; /* of the last cell; what is longer is always another one */
    struct lk_buf qualifier;
    /* while a cell takes its steps */
    lk__table_filter_emit_fn *emit;
    void *arg;
    struct lk_err *err;
    uint32_t steps;
    int code;
    /* a row's pattern that failed to be matched, told with its first cell */
    int row_code;
    struct lk_err row_err;
};

int lk__table_filter_run_open(const struct lk_filter_program *p, struct lk__table_filter_run **out, struct lk_err *err) {
    struct lk__table_filter_run *r = lk_calloc(1, sizeof *r);
    *out = NULL;
    if (r) {
        r->program = p;
        r->memory = lk_calloc(p->step_count, sizeof *r->memory);
        r->row_fails = lk_calloc(2, p->step_count);
        r->work = lk_alloc(p->step_count * sizeof *r->work);
    }
    if (!r || !r->memory || !r->row_fails || !r->work) {
        lk__table_filter_run_close(r);
        return lk_fail(err, LK_ENOMEM, "no memory to run a filter");
    }
    r->holds = r->row_fails + p->step_count;
    r->cache_bytes = p->patterns > 16 ? ((size_t)1 << 20) / p->patterns : (size_t)1 << 16;
    *out = r;
    return 0;
}
void lk__table_filter_run_close(struct lk__table_filter_run *r) {
    if (!r) return;
    for (uint32_t i = 0; r->memory && i < r->program->step_count; i++) lk__table_regex_run_close(r->memory[i].regex);
    lk_buf_release(&r->qualifier);
    lk_free(r->memory);
    lk_free(r->row_fails);
    lk_free(r->work);
    lk_free(r);
}

/* --- rows and passes ------------------------------------------------------------------------------------- */

/* 0 or a code. */
static int matches(struct lk__table_filter_run *r, uint32_t at, struct lk_bytes text, bool *match, struct lk_err *err) {
    const struct lk__table_regex *regex = r->program->steps[at].regex;
    struct memory *m = &r->memory[at];
    int code = lk__table_regex_compare(regex, text);
    *match = code > 0;
    if (code >= 0) return 0;
    code = m->regex ? 0 : lk__table_regex_run_open(regex, r->cache_bytes, &m->regex, err);
    return code ? code : lk__table_regex_match(m->regex, text, match, err);
}
void lk__table_filter_begin(struct lk__table_filter_run *r, struct lk_bytes row) {
    const struct lk_filter_program *p = r->program;
    r->begun = false;
    r->row_code = 0;
    r->dead = p->bounds.nothing || !lk__table_filter_row(p, row);
    for (uint32_t i = 0; i < p->step_count && !r->dead; i++) {
        bool match = true;
        r->holds[i] = 0;
        if (p->steps[i].kind == LK__STEP_SAMPLE) match = lk__table_filter_hash(row) >> 11 < p->steps[i].below;
        if (p->steps[i].kind == LK__STEP_ROW && !r->row_code) r->row_code = matches(r, i, row, &match, &r->row_err);
        r->row_fails[i] = !match;
        r->dead |= !match && !p->varies; /* all cells take this step */
    }
}
bool lk__table_filter_again(struct lk__table_filter_run *r) {
    const struct lk_filter_program *p = r->program;
    if (r->dead) return false;
    r->bounds = p->bounds;
    do {
        if (r->begun && !r->pass) return false;
        r->pass = r->begun ? r->pass + 1 : 1;
        r->begun = true;
        if (r->pass > p->levels) r->pass = 0;
        if (p->varies) lk__table_filter_find_bounds(p, r->work, r->row_fails, r->holds, r->pass, &r->bounds);
    } while (r->bounds.nothing);
    r->pass_stamp = r->family_stamp = r->column_stamp = ++r->tick;
    r->family[0] = 0;
    return true;
}
const struct lk__table_filter_bounds *lk__table_filter_run_bounds(const struct lk__table_filter_run *r) {
    return &r->bounds;
}

/* --- cells ----------------------------------------------------------------------------------------------- */

/* What this step remembers of the present `stamp`. */
static uint32_t *remembered(struct lk__table_filter_run *r, uint32_t at, uint64_t stamp, bool *new) {
    struct memory *m = &r->memory[at];
    *new = m->stamp != stamp;
    if (*new) {
        m->stamp = stamp;
        m->count = 0;
    }
    return &m->count;
}
static bool text_matches(struct lk__table_filter_run *r, uint32_t at, struct lk_bytes text) {
    bool match = false;
    int code = matches(r, at, text, &match, r->err);
    if (code) r->code = code;
    return match;
}
/* What a filter of families or columns says of this one's; CELL: it lets it through. */
static enum lk__table_filter_next judge(struct lk__table_filter_run *r, uint32_t at, const struct lk_cell *cell) {
    const struct lk__table_step *s = &r->program->steps[at];
    bool new, whole = true;
    uint32_t *verdict = remembered(r, at, s->kind == LK__STEP_FAMILY ? r->family_stamp : r->column_stamp, &new);
    if (!new) return (enum lk__table_filter_next) * verdict;
    enum lk__table_filter_next next = LK__FILTER_CELL;
    int side;
    if (s->kind == LK__STEP_FAMILY) {
        if (!text_matches(r, at, lk_bytes(cell->family, strlen(cell->family)))) {
            struct lk_bytes head = lk__table_regex_head(s->regex, &whole);
            (void)head;
            next = whole && strcmp(cell->family, s->family) > 0 ? LK__FILTER_ROW : LK__FILTER_FAMILY;
        }
    } else if (s->kind == LK__STEP_COLUMN) {
        if (!text_matches(r, at, cell->qualifier))
            next = lk__table_filter_range_side(&s->range, cell->qualifier) > 0 ? LK__FILTER_FAMILY : LK__FILTER_COLUMN;
    } else if ((side = strcmp(cell->family, s->family)) != 0)
        next = side < 0 ? LK__FILTER_FAMILY : LK__FILTER_ROW;
    else if ((side = lk__table_filter_range_side(&s->range, cell->qualifier)) != 0)
        next = side < 0 ? LK__FILTER_COLUMN : LK__FILTER_ROW;
    *verdict = next;
    return next;
}

static enum lk__table_filter_next take(struct lk__table_filter_run *r, uint32_t at, const struct lk_cell *cell);
static enum lk__table_filter_next fork_ways(struct lk__table_filter_run *r, const struct lk__table_step *s,
                                            const struct lk_cell *cell) {
    enum lk__table_filter_next least = LK__FILTER_ROW;
    for (uint32_t w = 0; w < s->count && !r->code; w++) {
        enum lk__table_filter_next next = take(r, r->program->ways[s->first + w], cell);
        if (next < least) least = next;
    }
    return least;
}
/* A condition that is open in this pass. */
static enum lk__table_filter_next decide(struct lk__table_filter_run *r, uint32_t at, const struct lk_cell *cell) {
    const struct lk__table_step *s = &r->program->steps[at];
    if (r->holds[at] || (s->level > r->pass && !s->inner)) return LK__FILTER_ROW;
    enum lk__table_filter_next next = take(r, s->other, cell);
    return r->holds[at] ? LK__FILTER_ROW : next;
}
static enum lk__table_filter_next out(struct lk__table_filter_run *r, const struct lk_cell *cell) {
    if (r->pass) return LK__FILTER_ROW;
    int code = r->emit(r->arg, cell);
    if (code) r->code = code;
    return LK__FILTER_CELL;
}
/* Sends a cell along the steps from `at`; returns what of the cells to come these steps need no more. A limit that was met
 * needs less (least); one that still counts needs every cell, unless nothing behind it needs any (counts). */
static enum lk__table_filter_next take(struct lk__table_filter_run *r, uint32_t at, const struct lk_cell *cell) {
    const struct lk_filter_program *p = r->program;
    enum lk__table_filter_next least = LK__FILTER_CELL, next = LK__FILTER_CELL;
    bool counts = false, new;
    struct lk_cell copy;
    uint32_t *count;
    for (bool more = true; more;) {
        const struct lk__table_step *s = &p->steps[at];
        uint32_t here = at;
        if (r->code) return LK__FILTER_ROW;
        if (++r->steps > LK__FILTER_STEPS_MAX) {
            r->code = lk_fail(r->err, LK_EINVAL, "the filter makes more than %d steps of one cell; interleave less",
                              LK__FILTER_STEPS_MAX);
            return LK__FILTER_ROW;
        }
        at = s->then;
        switch (s->kind) {
        case LK__STEP_OUT:
            next = out(r, cell);
            more = false;
            break;
        case LK__STEP_MATCH:
            r->holds[s->other] |= p->steps[s->other].level == r->pass;
            next = LK__FILTER_ROW;
            more = false;
            break;
        case LK__STEP_BLOCK:
            next = LK__FILTER_ROW;
            more = false;
            break;
        case LK__STEP_FORK:
            next = fork_ways(r, s, cell);
            more = false;
            break;
        case LK__STEP_IF:
            more = !r->pass || s->level < r->pass;
            if (more)
                at = r->holds[here] ? s->then : s->otherwise;
            else
                next = decide(r, here, cell);
            break;
        case LK__STEP_ROW:
        case LK__STEP_SAMPLE:
            more = !r->row_fails[here];
            next = LK__FILTER_ROW;
            break;
        case LK__STEP_FAMILY:
        case LK__STEP_COLUMN:
        case LK__STEP_COLUMNS:
            next = judge(r, here, cell);
            more = next == LK__FILTER_CELL;
            break;
        case LK__STEP_TIME:
            next = cell->timestamp_us < s->from_us ? LK__FILTER_COLUMN : LK__FILTER_CELL;
            more = cell->timestamp_us >= s->from_us && cell->timestamp_us < s->to_us;
            break;
        case LK__STEP_VALUE:
            more = text_matches(r, here, cell->value);
            next = LK__FILTER_CELL;
            break;
        case LK__STEP_VALUES:
            more = lk__table_filter_range_side(&s->range, cell->value) == 0;
            next = LK__FILTER_CELL;
            break;
        case LK__STEP_ROW_OFFSET:
            count = remembered(r, here, r->pass_stamp, &new);
            more = *count == s->count;
            *count += !more;
            counts |= !more;
            next = LK__FILTER_CELL;
            break;
        case LK__STEP_ROW_LIMIT:
            count = remembered(r, here, r->pass_stamp, &new);
            more = *count < s->count;
            *count += more;
            if (*count < s->count)
                counts = true;
            else
                least = next = LK__FILTER_ROW;
            break;
        case LK__STEP_COLUMN_LIMIT:
            count = remembered(r, here, r->column_stamp, &new);
            more = *count < s->count;
            *count += more;
            next = LK__FILTER_COLUMN;
            if (*count == s->count && !counts && least < LK__FILTER_COLUMN) least = LK__FILTER_COLUMN;
            break;
        case LK__STEP_STRIP:
            copy = *cell;
            copy.value = lk_bytes("", 0);
            cell = &copy;
            break;
        case LK__STEP_LABEL:
            copy = *cell;
            copy.label = s->label;
            cell = &copy;
            break;
        }
    }
    if (counts && next != LK__FILTER_ROW) return least;
    return next > least ? next : least;
}

/* --- columns to go to ------------------------------------------------------------------------------------ */

#define SEEK_STEPS_MAX 128
/* Where to look for the next column: from a qualifier on, or behind it. */
struct place {
    struct lk_bytes qualifier;
    bool behind;
};
/* The first range that has something there: the place moves on to its beginning. False: all are before. */
static bool seek_range(const struct lk_table_range *ranges, size_t count, struct place *to) {
    for (size_t i = 0; i < count; i++) {
        const struct lk_table_range *r = &ranges[i];
        int side = lk__table_filter_range_side(r, to->qualifier);
        if (side > 0 || (to->behind && r->to.data && lk__table_filter_compare(r->to, to->qualifier) == 0)) continue;
        if (side < 0) *to = (struct place){r->from, r->from_open};
        return true;
    }
    return false;
}
/* The first qualifier from `to` on of which a cell of this family matters to the steps from `at`; false: none does. */
static bool seek(struct lk__table_filter_run *r, uint32_t at, const struct lk_cell *cell, struct place to, uint32_t *steps,
                 struct lk_bytes *out) {
    const struct lk_filter_program *p = r->program;
    for (;;) {
        const struct lk__table_step *s = &p->steps[at];
        bool found = false;
        struct lk_bytes way;
        *out = to.qualifier;
        if (++*steps > SEEK_STEPS_MAX) return true;
        switch (s->kind) {
        case LK__STEP_OUT:
            return !r->pass;
        case LK__STEP_MATCH:
            return p->steps[s->other].level == r->pass && !r->holds[s->other];
        case LK__STEP_BLOCK:
            return false;
        case LK__STEP_FORK:
            for (uint32_t w = 0; w < s->count; w++)
                if (seek(r, p->ways[s->first + w], cell, to, steps, &way)) {
                    if (!found || lk__table_filter_compare(way, *out) < 0) *out = way;
                    found = true;
                }
            return found;
        case LK__STEP_IF:
            if (!r->pass || s->level < r->pass) {
                at = r->holds[at] ? s->then : s->otherwise;
                continue;
            }
            if (r->holds[at] || (s->level > r->pass && !s->inner)) return false;
            at = s->other;
            continue;
        case LK__STEP_ROW_OFFSET:
        case LK__STEP_ROW_LIMIT:
            return true; /* it counts whatever comes */
        case LK__STEP_ROW:
        case LK__STEP_SAMPLE:
            if (r->row_fails[at]) return false;
            break;
        case LK__STEP_FAMILY:
            if (judge(r, at, cell) != LK__FILTER_CELL) return false;
            break;
        case LK__STEP_COLUMN:
            if (!seek_range(s->choices ? s->choices : &s->range, s->choices ? s->choice_count : 1, &to)) return false;
            break;
        case LK__STEP_COLUMNS:
            if (strcmp(cell->family, s->family) != 0 || !seek_range(&s->range, 1, &to)) return false;
            break;
        default:
            break;
        }
        at = s->then;
    }
}
/* What is better than to go on with the next column: to go to r->seek, or to the next family. */
static enum lk__table_filter_next skip_gap(struct lk__table_filter_run *r, const struct lk_cell *cell) {
    uint32_t steps = 0;
    struct lk_bytes to;
    if (!seek(r, r->program->root, cell, (struct place){cell->qualifier, true}, &steps, &to)) return LK__FILTER_FAMILY;
    if (steps <= SEEK_STEPS_MAX && lk__table_filter_compare(to, cell->qualifier) > 0) r->seek = to;
    return LK__FILTER_COLUMN;
}
bool lk__table_filter_seek(const struct lk__table_filter_run *r, struct lk_bytes *qualifier) {
    *qualifier = r->seek;
    return r->seek.data != NULL;
}

/* Whether the cell is of the column of the one before; what changed gets a new stamp. */
static int follow(struct lk__table_filter_run *r, const struct lk_cell *cell) {
    bool same = strcmp(r->family, cell->family) == 0;
    if (same && r->qualifier.size == cell->qualifier.size &&
        (!cell->qualifier.size || memcmp(r->qualifier.data, cell->qualifier.data, cell->qualifier.size) == 0))
        return 0;
    r->column_stamp = ++r->tick;
    if (!same) {
        size_t size = strlen(cell->family) + 1;
        r->family_stamp = r->tick;
        r->family[0] = 0;
        if (size <= sizeof r->family) memcpy(r->family, cell->family, size);
    }
    r->qualifier.size = 0;
    return cell->qualifier.size ? lk_buf_append(&r->qualifier, cell->qualifier.data, cell->qualifier.size) : 0;
}
int lk__table_filter_cell(struct lk__table_filter_run *r, const struct lk_cell *cell, lk__table_filter_emit_fn *emit,
                          void *arg, enum lk__table_filter_next *next, struct lk_err *err) {
    *next = LK__FILTER_ROW;
    if (r->row_code) return lk_fail(err, r->row_code, "%s", r->row_err.message);
    if (follow(r, cell) != 0)
        return lk_fail(err, LK_ENOMEM, "no memory for a qualifier of %zu bytes", cell->qualifier.size);
    r->emit = emit;
    r->arg = arg;
    r->err = err;
    r->steps = 0;
    r->code = 0;
    r->seek.data = NULL;
    *next = take(r, r->program->root, cell);
    if (*next == LK__FILTER_COLUMN && r->program->gaps && !r->code) *next = skip_gap(r, cell);
    return r->code;
}
