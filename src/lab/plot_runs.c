/* Several runs in one picture: a smoothed polyline a run, evaluations as points, a legend. Colours are those of Okabe and
 * Ito, which people with any kind of colour vision tell apart; lines beyond them are dashed. */
#include "plot.h"

#include <stdio.h>
#include <string.h>

#define LINE_HEIGHT 18

static const char *const colours[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"};
static const char *const dashes[] = {"", "8 4", "2 3", "10 3 2 3"};
#define COLOURS (sizeof colours / sizeof *colours)
_Static_assert(LK_PLOT_RUNS == COLOURS * (sizeof dashes / sizeof *dashes), "every run has a look of its own");

struct point {
    double x, y;
    uint32_t step;
};
struct points {
    struct point *list;
    size_t count, capacity;
};
struct curve {
    const char *name;
    enum lk_plot_by by;
    struct points train, held_out;
    double x;              /* of the last row */
    double bits_per_nat;   /* bits a byte of a nat a token of training; 0: not known */
    bool evals_have_bytes; /* all of them */
};
struct picture {
    struct curve *curves;
    size_t count;
    enum lk_plot_by by;
    bool bits;
    double left, right, low, high;
    int top;
};

/* --- What the ledgers hold ------------------------------------------------------------------------------- */

static int add(struct points *p, struct point at) {
    if (p->count == p->capacity) {
        size_t more = p->capacity ? 2 * p->capacity : 1024;
        struct point *list = lk_realloc(p->list, more * sizeof *list);
        if (!list) return LK_ENOMEM;
        p->list = list;
        p->capacity = more;
    }
    p->list[p->count++] = at;
    return 0;
}
static int add_row(void *arg, const struct lk_ledger_row *row) {
    struct curve *c = arg;
    c->x = c->by == LK_PLOT_STEP ? row->step : c->x + (c->by == LK_PLOT_TOKENS ? (double)row->tokens : row->seconds);
    bool none = !row->tokens || row->loss - row->loss != 0; /* a step without targets has no loss */
    return none ? 0 : add(&c->train, (struct point){c->x, row->loss, row->step});
}
static int add_eval(void *arg, const struct lk_eval_row *row) {
    struct curve *c = arg;
    c->evals_have_bytes = c->evals_have_bytes && row->bytes;
    return row->loss - row->loss != 0 ? 0 : add(&c->held_out, (struct point){lk_bits_per_byte(row), row->loss, row->step});
}

/* A nat a token in bits a byte, where every token is learned from and its text is known. A dataset that can't be read is no
 * reason against a picture. */
static int bits_per_nat(struct lk_store *store, const struct lk_root *root, double *out, struct lk_err *err) {
    struct lk_dataset *d;
    int code = lk_dataset_open(store, root, false, &d, err);
    if (code) return code == LK_ENOMEM ? code : LK_OK;
    json_t *split = json_object_get(json_object_get(lk_dataset_manifest(d), "splits"), "train");
    double tokens = (double)lk_dataset_tokens(d, LK_TRAIN), bytes = (double)lk_dataset_bytes(d, LK_TRAIN);
    if (bytes > 0 && json_integer_value(json_object_get(split, "masked_count")) == 0)
        *out = tokens / bytes / 0.69314718055994530942;
    lk_dataset_close(d);
    return LK_OK;
}

/* Evaluations stand at the x of their step. */
static void place_evals(struct curve *c) {
    for (size_t i = 0, j = 0; i < c->held_out.count; i++) {
        struct point *e = &c->held_out.list[i];
        while (j + 1 < c->train.count && c->train.list[j].step < e->step) j++;
        e->x = c->train.count ? c->train.list[j].x : 0;
    }
}

static int read_curve(struct lk_store *store, const char *name, enum lk_plot_by by, struct curve *c, struct lk_err *err) {
    struct lk_run run;
    *c = (struct curve){.name = name, .by = by, .evals_have_bytes = true};
    int code = lk_run_open(store, name, &run, err);
    if (code) return code;
    code = bits_per_nat(store, &run.dataset, &c->bits_per_nat, err);
    lk_run_close(&run);
    if (!code) code = lk_ledger_list(store, name, 0, UINT32_MAX, add_row, c, err);
    if (!code) code = lk_eval_list(store, name, add_eval, c, err);
    return code == LK_ENOMEM ? lk_fail(err, code, "no memory for a plot") : code;
}

/* Runs without steps are left out of p->curves. */
static int read_curves(struct lk_store *store, const char *const *runs, size_t count, bool *left_out, struct picture *p,
                       struct lk_err *err) {
    for (size_t i = 0; i < count; i++) {
        struct curve *c = &p->curves[p->count];
        int code = read_curve(store, runs[i], p->by, c, err);
        bool none = !code && !c->train.count;
        if (left_out) left_out[i] = none;
        if (none)
            lk_free(c->held_out.list);
        else
            p->count++; /* one that failed is released with the others */
        if (code) return code;
    }
    if (p->count) return LK_OK;
    return count == 1 ? lk_fail(err, LK_ENOTFOUND, "run %s has no steps to plot yet", *runs)
                      : lk_fail(err, LK_ENOTFOUND, "none of the %zu runs has steps to plot yet", count);
}

/* The mean of the steps around each, an eightieth of the run to either side (fewer near the ends), so that it does not lag;
 * one point a column of pixels. In place. */
static int smooth(struct points *p, double right) {
    struct points out = {0};
    size_t reach = p->count / 80, low = 0, high = 0;
    double sum = 0;
    long last = -1;
    for (size_t i = 0; i < p->count; i++) {
        size_t near = i < p->count - 1 - i ? i : p->count - 1 - i, half = near < reach ? near : reach;
        for (; high <= i + half; high++) sum += p->list[high].y;
        for (; low < i - half; low++) sum -= p->list[low].y;
        long column = (long)(COLUMNS * p->list[i].x / right);
        if (column == last && i + 1 < p->count) continue;
        last = column;
        if (add(&out, (struct point){p->list[i].x, sum / (double)(high - low), p->list[i].step})) {
            lk_free(out.list);
            return LK_ENOMEM;
        }
    }
    lk_free(p->list);
    *p = out;
    return 0;
}

/* --- The unit and the scale ------------------------------------------------------------------------------ */

static void to_bits(struct picture *p) {
    p->bits = true;
    for (size_t i = 0; i < p->count; i++)
        p->bits = p->bits && p->curves[i].bits_per_nat > 0 && p->curves[i].evals_have_bytes;
    for (size_t i = 0; i < p->count; i++) {
        struct curve *c = &p->curves[i];
        for (size_t k = 0; k < c->held_out.count && p->bits; k++) c->held_out.list[k].y = c->held_out.list[k].x;
        for (size_t k = 0; k < c->train.count && p->bits; k++) c->train.list[k].y *= c->bits_per_nat;
        place_evals(c);
    }
}

static void widen(struct picture *p, const struct points *list) {
    for (size_t k = 0; k < list->count; k++) {
        double y = list->list[k].y;
        p->low = y < p->low ? y : p->low;
        p->high = y > p->high ? y : p->high;
    }
}
static int scale(struct picture *p) {
    p->low = 1e300, p->high = -1e300;
    p->left = p->by == LK_PLOT_STEP ? 1 : 0;
    for (size_t i = 0; i < p->count; i++)
        if (p->curves[i].x > p->right) p->right = p->curves[i].x;
    if (p->right <= p->left) p->right = p->left + 1;
    for (size_t i = 0; i < p->count; i++) {
        if (smooth(&p->curves[i].train, p->right)) return LK_ENOMEM;
        widen(p, &p->curves[i].train);
        widen(p, &p->curves[i].held_out);
    }
    double margin = (p->high - p->low) * 0.05 + 1e-9;
    p->low -= margin;
    p->high += margin;
    return 0;
}

/* --- The picture ----------------------------------------------------------------------------------------- */

static double x_of(const struct picture *p, double x) {
    return LEFT + COLUMNS * (x - p->left) / (p->right - p->left);
}
static double y_of(const struct picture *p, double y) {
    return p->top + (HEIGHT - TOP - BOTTOM) * (p->high - y) / (p->high - p->low);
}

static int axes(const struct picture *p, struct lk_buf *out) {
    static const char *const names[] = {"step", "tokens learned from", "seconds of training"};
    int bad = 0, bottom = p->top + HEIGHT - TOP - BOTTOM;
    double step = lk__plot_tick(p->high - p->low, 6);
    for (long k = (long)(p->low / step) - 1; (double)k * step <= p->high; k++) {
        double y = y_of(p, (double)k * step);
        if ((double)k * step < p->low) continue;
        bad |= lk_buf_printf(
            out,
            "<line x1='%d' x2='%d' y1='%.1f' y2='%.1f' class='g'/><text x='%d' y='%.1f' text-anchor='end'>%.4g</text>\n",
            LEFT, WIDTH - RIGHT, y, y, LEFT - 8, y + 4, (double)k * step);
    }
    step = lk__plot_tick(p->right - p->left, 8);
    for (double s = p->by == LK_PLOT_STEP && step >= 1 ? step : 0; s <= p->right; s += step)
        if (s >= p->left)
            bad |= lk_buf_printf(out,
                                 "<line x1='%.1f' x2='%.1f' y1='%d' y2='%d' class='g'/><text x='%.1f' y='%d' "
                                 "text-anchor='middle'>%.6g</text>\n",
                                 x_of(p, s), x_of(p, s), p->top, bottom, x_of(p, s), bottom + 18, s);
    bad |= lk_buf_printf(out, "<text x='%d' y='%d' text-anchor='middle'>%s</text>\n", LEFT + COLUMNS / 2, bottom + 36,
                         names[p->by]);
    return bad | lk_buf_printf(out, "<text x='%d' y='%d'>training loss (smoothed) and held-out loss (points), %s</text>\n",
                               LEFT, p->top - 10, p->bits ? "bits a byte" : "nats a token");
}

static int look(size_t i, struct lk_buf *out) {
    return lk_buf_printf(out, "stroke='%s' stroke-dasharray='%s'", colours[i % COLOURS],
                         *dashes[i / COLOURS] ? dashes[i / COLOURS] : "none");
}

/* A point's mark by its run: circles, squares and triangles, since colour alone may not be seen. */
static int mark(size_t i, double x, double y, struct lk_buf *out) {
    const char *c = colours[i % COLOURS];
    if (i % 3 == 0) return lk_buf_printf(out, "<circle class='e' fill='%s' r='4' cx='%.1f' cy='%.1f'/>\n", c, x, y);
    if (i % 3 == 1)
        return lk_buf_printf(out, "<rect class='e' fill='%s' width='7' height='7' x='%.1f' y='%.1f'/>\n", c, x - 3.5,
                             y - 3.5);
    return lk_buf_printf(out, "<path class='e' fill='%s' d='M%.1f %.1fl4.5 8h-9z'/>\n", c, x, y - 5);
}

static int legend(const struct picture *p, size_t i, struct lk_buf *out) {
    const struct curve *c = &p->curves[i];
    const struct point *end = &c->train.list[c->train.count - 1];
    int y = 24 + LINE_HEIGHT * (int)i;
    int bad = lk_buf_printf(out, "<line class='s' x1='%d' x2='%d' y1='%d' y2='%d' ", LEFT, LEFT + 36, y - 4, y - 4);
    bad |= look(i, out) | lk_buf_printf(out, "/>\n") | mark(i, LEFT + 18, y - 4, out);
    bad |= lk_buf_printf(out, "<text x='%d' y='%d'>%s: step %u, loss %.4f", LEFT + 46, y, c->name, end->step, end->y);
    if (c->held_out.count) bad |= lk_buf_printf(out, ", held out %.4f", c->held_out.list[c->held_out.count - 1].y);
    return bad | lk_buf_printf(out, "</text>\n");
}

static int draw(const struct picture *p, struct lk_buf *out) {
    int height = HEIGHT - TOP + p->top;
    int bad = lk_buf_printf(out,
                            "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 %d %d' width='%d' height='%d' "
                            "font-family='sans-serif' font-size='12'>\n"
                            "<style>text{fill:#444}.g{stroke:#ddd}.s{fill:none;stroke-width:2}.e{stroke:#fff}</style>\n"
                            "<rect width='100%%' height='100%%' fill='#fff'/>\n",
                            WIDTH, height, WIDTH, height);
    bad |= axes(p, out);
    for (size_t i = 0; i < p->count && !bad; i++) {
        const struct points *t = &p->curves[i].train;
        bad |= lk_buf_printf(out, "<polyline class='s' ") | look(i, out) | lk_buf_printf(out, " points='");
        for (size_t k = 0; k < t->count && !bad; k++)
            bad |= lk_buf_printf(out, k ? " %.1f,%.1f" : "%.1f,%.1f", x_of(p, t->list[k].x), y_of(p, t->list[k].y));
        bad |= lk_buf_printf(out, "'/>\n");
    }
    for (size_t i = 0; i < p->count && !bad; i++) {
        const struct points *e = &p->curves[i].held_out;
        for (size_t k = 0; k < e->count && !bad; k++) bad |= mark(i, x_of(p, e->list[k].x), y_of(p, e->list[k].y), out);
        bad |= legend(p, i, out);
    }
    return bad | lk_buf_printf(out, "</svg>\n");
}

int lk_plot_runs(struct lk_store *store, const char *const *runs, size_t count, enum lk_plot_by by, bool *left_out,
                 struct lk_buf *out, struct lk_err *err) {
    struct picture p = {.by = by};
    if (!count || count > LK_PLOT_RUNS)
        return lk_fail(err, LK_EINVAL, "a picture shows 1 to %d runs, not %zu", LK_PLOT_RUNS, count);
    if (!(p.curves = lk_calloc(count, sizeof *p.curves))) return lk_fail(err, LK_ENOMEM, "no memory for a plot");
    int code = read_curves(store, runs, count, left_out, &p, err);
    p.top = 24 + LINE_HEIGHT * (int)p.count + 20;
    if (!code) {
        to_bits(&p);
        if (scale(&p) || draw(&p, out)) code = lk_fail(err, LK_ENOMEM, "no memory for a plot");
    }
    for (size_t i = 0; i < p.count; i++) {
        lk_free(p.curves[i].train.list);
        lk_free(p.curves[i].held_out.list);
    }
    lk_free(p.curves);
    return code;
}
