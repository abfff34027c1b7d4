/* The loss curve as SVG: no script, no font, no file beside it. A column of pixels shows the least and greatest loss of its
 * steps, so that no spike is lost however long the run. */
#include "plot.h"

#include <stdio.h>
#include <string.h>

struct plot {
    struct lk_ledger_row *rows;
    size_t count, capacity;
    struct lk_eval_row evals[512];
    size_t eval_count;
    double low, high;
    uint32_t steps;
    bool out_of_memory;
};

static int add_row(void *arg, const struct lk_ledger_row *row) {
    struct plot *p = arg;
    if (!row->tokens) return 0; /* a step without targets has no loss */
    if (p->count == p->capacity) {
        size_t more = p->capacity ? 2 * p->capacity : 1024;
        struct lk_ledger_row *rows = lk_realloc(p->rows, more * sizeof *rows);
        if (!rows) return p->out_of_memory = true;
        p->rows = rows;
        p->capacity = more;
    }
    p->rows[p->count++] = *row;
    return 0;
}
static int add_eval(void *arg, const struct lk_eval_row *row) {
    struct plot *p = arg;
    if (row->loss - row->loss != 0) return 0;                  /* a point needs a place */
    if (p->eval_count == sizeof p->evals / sizeof *p->evals) { /* every second one is enough for a picture */
        for (size_t i = 0; i < p->eval_count / 2; i++) p->evals[i] = p->evals[2 * i + 1];
        p->eval_count /= 2;
    }
    p->evals[p->eval_count++] = *row;
    return 0;
}

static double x_of(const struct plot *p, double step) {
    return LEFT + COLUMNS * (p->steps > 1 ? (step - 1) / (p->steps - 1) : 0.5);
}
static double y_of(const struct plot *p, double loss) {
    if (loss < p->low) loss = p->low;
    if (loss > p->high) loss = p->high;
    return TOP + (HEIGHT - TOP - BOTTOM) * (p->high - loss) / (p->high - p->low);
}

static void scale(struct plot *p) {
    p->low = 1e300;
    p->high = -1e300;
    for (size_t i = 0; i < p->count; i++) {
        double v = p->rows[i].loss;
        if (v - v != 0) continue;
        p->low = v < p->low ? v : p->low;
        p->high = v > p->high ? v : p->high;
    }
    for (size_t i = 0; i < p->eval_count; i++) {
        p->low = p->evals[i].loss < p->low ? p->evals[i].loss : p->low;
        p->high = p->evals[i].loss > p->high ? p->evals[i].loss : p->high;
    }
    if (p->low > p->high) p->low = 0, p->high = 1;
    double margin = (p->high - p->low) * 0.05 + 1e-9;
    p->low -= margin;
    p->high += margin;
}

double lk__plot_tick(double range, int parts) {
    double unit = 1e-12, rough = range / parts;
    while (unit * 10 <= rough) unit *= 10;
    return rough <= unit ? unit : rough <= 2 * unit ? 2 * unit : rough <= 5 * unit ? 5 * unit : 10 * unit;
}

static int axes(const struct plot *p, struct lk_buf *out) {
    int bad = 0;
    double step = lk__plot_tick(p->high - p->low, 6);
    for (long k = (long)(p->low / step) - 1; k * step <= p->high; k++) {
        if (k * step < p->low) continue;
        double y = y_of(p, (double)k * step);
        bad |= lk_buf_printf(
            out,
            "<line x1='%d' x2='%d' y1='%.1f' y2='%.1f' class='g'/><text x='%d' y='%.1f' text-anchor='end'>%.4g</text>\n",
            LEFT, WIDTH - RIGHT, y, y, LEFT - 8, y + 4, (double)k * step);
    }
    step = lk__plot_tick(p->steps, 8);
    if (step < 1) step = 1;
    for (double s = step; s <= p->steps; s += step)
        bad |= lk_buf_printf(
            out,
            "<line x1='%.1f' x2='%.1f' y1='%d' y2='%d' class='g'/><text x='%.1f' y='%d' text-anchor='middle'>%.0f</text>\n",
            x_of(p, s), x_of(p, s), TOP, HEIGHT - BOTTOM, x_of(p, s), HEIGHT - BOTTOM + 18, s);
    return bad;
}

static int raw_curve(const struct plot *p, struct lk_buf *out) {
    int bad = lk_buf_printf(out, "<path class='r' d='");
    for (size_t i = 0; i < p->count;) {
        long column = (long)x_of(p, p->rows[i].step);
        double low = 1e300, high = -1e300, x = x_of(p, p->rows[i].step);
        for (; i < p->count && (long)x_of(p, p->rows[i].step) == column; i++) {
            double v = p->rows[i].loss;
            low = v < low ? v : low;
            high = v > high ? v : high;
        }
        if (low > high) continue;
        bad |= lk_buf_printf(out, "%c%.1f %.1fL%.1f %.1f", out->data[out->size - 1] == '\'' ? 'M' : 'L', x, y_of(p, high),
                             x, y_of(p, low));
    }
    return bad | lk_buf_printf(out, "'/>\n");
}

/* The mean of the steps around each, an eightieth of the run to either side (fewer near the ends), so that it does not lag.
 */
static int smooth_curve(const struct plot *p, struct lk_buf *out) {
    size_t reach = p->count / 80, low = 0, high = 0; /* [low, high): the rows in `sum` */
    double sum = 0;
    size_t finite = 0;
    long last = -1;
    bool first = true;
    int bad = lk_buf_printf(out, "<path class='s' d='");
    for (size_t i = 0; i < p->count; i++) {
        size_t near = i < p->count - 1 - i ? i : p->count - 1 - i, half = near < reach ? near : reach;
        for (; high <= i + half; high++)
            if (p->rows[high].loss - p->rows[high].loss == 0) sum += p->rows[high].loss, finite++;
        for (; low < i - half; low++)
            if (p->rows[low].loss - p->rows[low].loss == 0) sum -= p->rows[low].loss, finite--;
        double x = x_of(p, p->rows[i].step);
        if ((long)x == last || !finite) continue;
        last = (long)x;
        bad |= lk_buf_printf(out, "%c%.1f %.1f", first ? 'M' : 'L', x, y_of(p, sum / (double)finite));
        first = false;
    }
    return bad | lk_buf_printf(out, "'/>\n");
}

static int draw(const struct plot *p, const char *run, struct lk_buf *out) {
    const struct lk_ledger_row *end = &p->rows[p->count - 1];
    int bad = lk_buf_printf(
        out,
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 %d %d' width='%d' height='%d' font-family='sans-serif' "
        "font-size='12'>\n"
        "<style>text{fill:#444}.g{stroke:#ddd}.r{stroke:#9bc;fill:none}.s{stroke:#06c;fill:none;stroke-width:2}.e{fill:#"
        "d40}</style>\n"
        "<rect width='100%%' height='100%%' fill='#fff'/>\n<text x='%d' y='24' font-size='15'>%s: step %u of %u, loss %.4f",
        WIDTH, HEIGHT, WIDTH, HEIGHT, LEFT, run, end->step, p->steps, end->loss);
    if (p->eval_count) bad |= lk_buf_printf(out, ", held out %.4f", p->evals[p->eval_count - 1].loss);
    bad |= lk_buf_printf(
        out, "</text>\n<text x='%d' y='24' text-anchor='end'><tspan style='fill:#06c'>training loss</tspan>%s</text>\n",
        WIDTH - RIGHT, p->eval_count ? " \xc2\xb7 <tspan style='fill:#d40'>held out</tspan>" : "");
    bad |= axes(p, out) | raw_curve(p, out) | smooth_curve(p, out);
    for (size_t i = 0; i < p->eval_count; i++)
        bad |= lk_buf_printf(out, "<circle class='e' r='3.5' cx='%.1f' cy='%.1f'/>\n", x_of(p, p->evals[i].step),
                             y_of(p, p->evals[i].loss));
    return bad | lk_buf_printf(out, "<text x='%d' y='%d' text-anchor='middle'>step</text>\n</svg>\n", LEFT + COLUMNS / 2,
                               HEIGHT - 8);
}

int lk_plot_run(struct lk_store *store, const char *run, struct lk_buf *out, struct lk_err *err) {
    struct plot *p = lk_calloc(1, sizeof *p);
    json_t *record = NULL;
    if (!p) return lk_fail(err, LK_ENOMEM, "no memory for a plot");
    int code = lk_run_get(store, run, &record, err);
    if (!code) p->steps = (uint32_t)json_integer_value(json_object_get(record, "steps"));
    if (!code) code = lk_ledger_list(store, run, 0, UINT32_MAX, add_row, p, err);
    if (!code || p->out_of_memory)
        code =
            p->out_of_memory ? lk_fail(err, LK_ENOMEM, "no memory for a plot") : lk_eval_list(store, run, add_eval, p, err);
    if (!code && p->count == 0) code = lk_fail(err, LK_ENOTFOUND, "run %s has no steps to plot yet", run);
    if (!code) {
        scale(p);
        if (draw(p, run, out)) code = lk_fail(err, LK_ENOMEM, "no memory for a plot");
    }
    json_decref(record);
    lk_free(p->rows);
    lk_free(p);
    return code;
}
