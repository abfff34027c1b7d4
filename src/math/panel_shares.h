/* How panels are filled and shared out: what panels.c and quant.c have in common. Private to src/math. */
#ifndef LOCKSTEP_MATH_PANEL_SHARES_H
#define LOCKSTEP_MATH_PANEL_SHARES_H
#include "math/kernel_table.h"

_Static_assert(LK_PANEL == LK_QUANT_PANEL, "one width of panels");

static inline size_t smaller(size_t a, size_t b) {
    return a < b ? a : b;
}
static inline size_t panels_of(size_t n) {
    return (n + LK_PANEL - 1) / LK_PANEL;
}

/* Gives the panels of W (n, k) to the pool; fill makes one. */
typedef void lk__math_fill_fn(enum lk_dtype, size_t n, size_t k, const void *w, void *panel);
void lk__math_fill_panels(struct lk_math *, lk__math_fill_fn *fill, size_t panel_bytes, enum lk_dtype, size_t n, size_t k,
                          const void *w, void *panels);

/* A share of the panels of several products, as if they lay one behind the other. */
struct lk__math_share {
    size_t from, to, before; /* before: panels of the products that were asked for already */
};
static inline struct lk__math_share lk__math_share(size_t panels, size_t i, size_t of) {
    return (struct lk__math_share){panels * i / of, panels * (i + 1) / of, 0};
}
/* The share's columns [j0, j1) of the next product, which has n; false: none of them. */
static inline bool lk__math_share_columns(struct lk__math_share *s, size_t n, size_t *j0, size_t *j1) {
    size_t here = panels_of(n), a = s->from > s->before ? s->from - s->before : 0;
    size_t b = s->to > s->before ? smaller(s->to - s->before, here) : 0;
    s->before += here;
    *j0 = a * LK_PANEL, *j1 = smaller(n, b * LK_PANEL);
    return a < b;
}

/* Equal shares of `most` panels at most, as many as keep all threads at work. */
static inline size_t lk__math_shares(size_t panels, size_t threads, size_t most) {
    return smaller(panels, (panels + threads * most - 1) / (threads * most) * threads);
}

#endif
