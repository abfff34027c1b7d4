/* The order of a product's sums, as steps: a step is one segment of one part (docs/numerics.md, section 2) and what becomes
 * of it. Totals of groups wait on a stack until their sibling in the tree (section 8) is there; level 0 is its bottom,
 * where the result is at the end. Steps that together have at most KC of k are a batch, one turn of the 4th loop: its B
 * is packed at once, and a micro-tile runs through all its steps while L1 holds its totals. */
#ifndef LOCKSTEP_MATH_SIMD_MATMUL_STEPS_H
#define LOCKSTEP_MATH_SIMD_MATMUL_STEPS_H
#include "math/kernel_table.h"
#include "math/simd/matmul_micro.h"

#define BATCH_STEPS 16

struct step {
    const struct lk_mm_part *part;
    size_t k0, k;    /* [k0, k0 + k) of the part; k may be 0: an empty group is +0 */
    size_t at;       /* the k of the batch's steps before it */
    unsigned level;  /* of the total it belongs to */
    bool add;        /* to that total; else the total begins with it */
    unsigned merges; /* afterwards: how often the top total is added to the one below */
};
/* Where in the product the next step begins. */
struct cursor {
    const struct lk_mm *mm;
    size_t part, k0, groups; /* groups: those that are finished */
    bool inside;             /* a group that has a total already */
};
struct batch {
    struct step steps[BATCH_STEPS];
    size_t count, k;
    bool first, last;
};

static struct cursor cursor_begin(const struct lk_mm *mm) {
    return (struct cursor){.mm = mm, .inside = mm->accumulate};
}

/* Totals wait for each one bit of the number of finished groups. A group of one segment that is a right child adds it to
 * its left sibling at once: t + (+0 + s) is t + s, since no total is ever -0. */
static bool next_step(struct cursor *w, struct step *s) {
    for (; w->part < w->mm->part_count; w->part++) {
        const struct lk_mm_part *p = &w->mm->parts[w->part];
        bool last = w->part + 1 == w->mm->part_count, ends_part = p->k - w->k0 <= KC;
        bool ends_group = ends_part && (last || p->ends_group);
        *s = (struct step){.part = p, .k0 = w->k0, .k = ends_part ? p->k - w->k0 : KC};
        if (!s->k && !ends_group) continue;
        unsigned top = (unsigned)__builtin_popcountll(w->groups), complete = (unsigned)__builtin_ctzll(~w->groups);
        bool joins = !w->inside && ends_group && w->groups & 1 && s->k;
        s->level = top - joins, s->add = w->inside || joins;
        if (ends_group) s->merges = (last ? top : complete) - joins;
        w->inside = !ends_group, w->groups += ends_group;
        w->k0 = ends_part ? 0 : w->k0 + KC, w->part += ends_part;
        return true;
    }
    return false;
}

static bool next_batch(struct cursor *w, struct batch *b) {
    b->first = !w->part && !w->k0, b->count = 0, b->k = 0, b->last = false;
    while (b->count < BATCH_STEPS) {
        struct cursor before = *w;
        struct step *s = &b->steps[b->count];
        if (!next_step(w, s)) {
            b->last = true;
            break;
        }
        if (b->count && b->k + s->k > KC) {
            *w = before;
            break;
        }
        s->at = b->k, b->k += s->k, b->count++;
    }
    struct step s;
    struct cursor rest = *w;
    b->last = b->last || !next_step(&rest, &s);
    return b->count;
}

/* How high the stack gets. */
static size_t stack_depth(const struct lk_mm *mm) {
    struct cursor w = cursor_begin(mm);
    size_t depth = 1;
    for (struct step s; next_step(&w, &s);) depth = s.level + 1 > depth ? s.level + 1 : depth;
    return depth;
}

static bool is_one_batch(const struct lk_mm *mm) {
    struct cursor w = cursor_begin(mm);
    struct batch b;
    return next_batch(&w, &b) && b.last;
}

#endif
