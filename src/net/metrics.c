/* Metrics in Prometheus' text format. Series are found under a mutex, counted without one. */
#include "lockstep/net/metrics.h"

#include "lockstep/base/json_out.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define SERIES_MOST 10000

struct lk_metric {
    struct lk_metric *next;
    struct family *family;
    char *labels;               /* a="b",c="d" */
    atomic_uint_fast64_t value; /* bits of a double; a histogram's sum */
    atomic_uint_fast64_t counts[];
};
struct family {
    struct family *next;
    enum lk_metric_kind kind;
    char *name, *help;
    double *bounds;
    size_t bound_count;
    struct lk_metric *first, *last;
};
struct lk_metrics {
    pthread_mutex_t mutex;
    struct family *first, *last;
    size_t series;
};

struct lk_metrics *lk_metrics_create(void) {
    struct lk_metrics *m = lk_calloc(1, sizeof *m);
    if (m) pthread_mutex_init(&m->mutex, NULL);
    return m;
}
static void free_family(struct family *f) {
    for (struct lk_metric *s = f->first, *next; s; s = next) {
        next = s->next;
        lk_free(s->labels);
        lk_free(s);
    }
    lk_free(f->name);
    lk_free(f->help);
    lk_free(f->bounds);
    lk_free(f);
}
void lk_metrics_free(struct lk_metrics *m) {
    if (!m) return;
    for (struct family *f = m->first, *next; f; f = next) {
        next = f->next;
        free_family(f);
    }
    pthread_mutex_destroy(&m->mutex);
    lk_free(m);
}

/* --- What Prometheus takes ---------------------------------------------------------------------------------------- */

static bool name_fits(const char *name, const char *also) {
    if (!*name || (*name >= '0' && *name <= '9')) return false;
    for (const char *p = name; *p; p++)
        if (!((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') || strchr(also, *p)))
            return false;
    return true;
}
static int check_family(const struct lk_metric_family *f, struct lk_err *err) {
    size_t size = strlen(f->name);
    if (!name_fits(f->name, "_:"))
        return lk_fail(err, LK_EINVAL, "\"%s\" is no name of a metric: it has letters, digits, _ and :", f->name);
    if ((f->kind == LK_METRIC_COUNTER) != (size > 6 && !strcmp(f->name + size - 6, "_total")))
        return lk_fail(err, LK_EINVAL, "%s: names of counters, and only these, end in _total", f->name);
    if ((f->kind == LK_METRIC_HISTOGRAM) != (f->bound_count > 0))
        return lk_fail(err, LK_EINVAL, "%s: histograms, and only these, have bounds of buckets", f->name);
    for (size_t i = 0; i < f->bound_count; i++)
        if (!(f->bounds[i] - f->bounds[i] == 0) || (i && !(f->bounds[i] > f->bounds[i - 1])))
            return lk_fail(err, LK_EINVAL, "%s: bounds of buckets are finite and grow", f->name);
    return lk_utf8_valid(f->help, strlen(f->help)) ? LK_OK : lk_fail(err, LK_EINVAL, "%s: its help is no UTF-8", f->name);
}

/* Text with \\ and newlines escaped, quotes too in a label's value. */
static int escape(struct lk_buf *out, const char *text, bool quotes) {
    int code = LK_OK;
    for (; !code && *text; text++) {
        if (*text == '\n')
            code = lk_buf_append(out, "\\n", 2);
        else if (*text == '\\' || (quotes && *text == '"'))
            code = lk_buf_append(out, "\\", 1) || lk_buf_append(out, text, 1) ? LK_ENOMEM : LK_OK;
        else
            code = lk_buf_append(out, text, 1);
    }
    return code;
}
static int label_text(const struct lk_metric_family *f, const struct lk_metric_label *l, size_t count, struct lk_buf *out,
                      struct lk_err *err) {
    int code = lk_buf_append(out, "", 0);
    for (size_t i = 0; i < count; i++) {
        bool taken = !strncmp(l[i].name, "__", 2) || (f->kind == LK_METRIC_HISTOGRAM && !strcmp(l[i].name, "le"));
        for (size_t j = 0; j < i; j++) taken |= !strcmp(l[i].name, l[j].name);
        if (taken || !name_fits(l[i].name, "_"))
            return lk_fail(err, LK_EINVAL, "%s: \"%s\" cannot be the name of a label", f->name, l[i].name);
        if (!lk_utf8_valid(l[i].value, strlen(l[i].value)))
            return lk_fail(err, LK_EINVAL, "%s: the value of the label %s is no UTF-8", f->name, l[i].name);
        if (!code) code = lk_buf_printf(out, "%s%s=\"", i ? "," : "", l[i].name);
        if (!code) code = escape(out, l[i].value, true);
        if (!code) code = lk_buf_append(out, "\"", 1);
    }
    return code ? lk_fail(err, LK_ENOMEM, "no memory for %s", f->name) : LK_OK;
}

/* --- Series ------------------------------------------------------------------------------------------------------- */

static bool same_family(const struct family *a, const struct lk_metric_family *b) {
    return a->kind == b->kind && !strcmp(a->help, b->help) && a->bound_count == b->bound_count &&
           (!a->bound_count || !memcmp(a->bounds, b->bounds, a->bound_count * sizeof *a->bounds));
}
static struct family *new_family(const struct lk_metric_family *from) {
    struct family *f = lk_calloc(1, sizeof *f);
    if (!f) return NULL;
    f->kind = from->kind;
    f->bound_count = from->bound_count;
    f->name = lk_strdup(from->name);
    f->help = lk_strdup(from->help);
    f->bounds = lk_alloc(from->bound_count * sizeof *f->bounds);
    if (f->name && f->help && f->bounds) {
        if (from->bound_count) memcpy(f->bounds, from->bounds, from->bound_count * sizeof *f->bounds);
        return f;
    }
    free_family(f);
    return NULL;
}
static struct lk_metric *new_series(struct family *f, const char *labels) {
    struct lk_metric *s = lk_calloc(1, sizeof *s + (f->bound_count + 1) * sizeof *s->counts);
    if (!s) return NULL;
    s->family = f;
    s->labels = lk_strdup(labels);
    if (s->labels) return s;
    lk_free(s);
    return NULL;
}

/* Under the mutex. */
static int find_or_add(struct lk_metrics *m, const struct lk_metric_family *from, const char *labels,
                       struct lk_metric **out, struct lk_err *err) {
    struct family *f = m->first;
    while (f && strcmp(f->name, from->name)) f = f->next;
    if (f && !same_family(f, from))
        return lk_fail(err, LK_EINVAL, "%s is there already, with another kind, help or other buckets", from->name);
    for (struct lk_metric *s = f ? f->first : NULL; s; s = s->next)
        if (!strcmp(s->labels, labels)) return *out = s, LK_OK;
    if (m->series == SERIES_MOST)
        return lk_fail(err, LK_EINVAL, "%s: there are %d series already; labels must have few values", from->name,
                       SERIES_MOST);
    struct family *fresh = f ? NULL : new_family(from);
    struct lk_metric *s = f || fresh ? new_series(f ? f : fresh, labels) : NULL;
    if (!s) {
        if (fresh) free_family(fresh);
        return lk_fail(err, LK_ENOMEM, "no memory for %s", from->name);
    }
    if (fresh) {
        if (m->last)
            m->last->next = fresh;
        else
            m->first = fresh;
        m->last = f = fresh;
    }
    if (f->last)
        f->last->next = s;
    else
        f->first = s;
    f->last = *out = s;
    m->series++;
    return LK_OK;
}

int lk_metrics_add(struct lk_metrics *m, const struct lk_metric_family *f, const struct lk_metric_label *l, size_t count,
                   struct lk_metric **out, struct lk_err *err) {
    struct lk_buf labels = LK_BUF_INIT;
    int code = check_family(f, err);
    if (!code) code = label_text(f, l, count, &labels, err);
    if (!code) {
        pthread_mutex_lock(&m->mutex);
        code = find_or_add(m, f, labels.data ? labels.data : "", out, err);
        pthread_mutex_unlock(&m->mutex);
    }
    lk_buf_release(&labels);
    return code;
}

/* --- Counting ----------------------------------------------------------------------------------------------------- */

static uint64_t bits_of(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
static double double_of(uint64_t bits) {
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
static void add(struct lk_metric *s, double x) {
    uint_fast64_t old = atomic_load_explicit(&s->value, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&s->value, &old, bits_of(double_of(old) + x), memory_order_relaxed,
                                                  memory_order_relaxed))
        continue;
}
void lk_metric_add(struct lk_metric *s, double x) {
    LK_ASSERT(s->family->kind == LK_METRIC_GAUGE || (s->family->kind == LK_METRIC_COUNTER && x >= 0));
    add(s, x);
}
void lk_metric_set(struct lk_metric *s, double x) {
    LK_ASSERT(s->family->kind == LK_METRIC_GAUGE);
    atomic_store_explicit(&s->value, bits_of(x), memory_order_relaxed);
}
void lk_metric_observe(struct lk_metric *s, double x) {
    size_t i = 0;
    LK_ASSERT(s->family->kind == LK_METRIC_HISTOGRAM);
    if (x != x) return;
    while (i < s->family->bound_count && x > s->family->bounds[i]) i++;
    atomic_fetch_add_explicit(&s->counts[i], 1, memory_order_relaxed);
    add(s, x);
}

/* --- Printing ----------------------------------------------------------------------------------------------------- */

static int number(struct lk_buf *out, double x) {
    if (x != x) return lk_buf_append(out, "NaN", 3);
    if (x - x != 0) return lk_buf_append(out, x > 0 ? "+Inf" : "-Inf", 4);
    struct lk_json_out o = lk_json_out(out);
    lk_put_double(&o, x);
    return o.failed ? LK_ENOMEM : LK_OK;
}
static int line(struct lk_buf *out, const struct lk_metric *s, const char *ending, const double *le, double value) {
    const char *labels = s->labels;
    int code = lk_buf_printf(out, "%s%s%s%s", s->family->name, ending, *labels || le ? "{" : "", labels);
    if (!code && le) code = lk_buf_printf(out, "%sle=\"", *labels ? "," : "");
    if (!code && le) code = number(out, *le);
    if (!code && le) code = lk_buf_append(out, "\"", 1);
    if (!code) code = lk_buf_printf(out, "%s ", *labels || le ? "}" : "");
    if (!code) code = number(out, value);
    return code ? code : lk_buf_append(out, "\n", 1);
}
static int histogram(struct lk_buf *out, struct lk_metric *s) {
    uint64_t count = 0;
    int code = LK_OK;
    for (size_t i = 0; !code && i <= s->family->bound_count; i++) {
        double le = i < s->family->bound_count ? s->family->bounds[i] : double_of(UINT64_C(0x7FF0000000000000));
        count += atomic_load_explicit(&s->counts[i], memory_order_relaxed);
        code = line(out, s, "_bucket", &le, (double)count);
    }
    if (!code) code = line(out, s, "_sum", NULL, double_of(atomic_load_explicit(&s->value, memory_order_relaxed)));
    return code ? code : line(out, s, "_count", NULL, (double)count);
}
static int print_family(struct lk_buf *out, struct family *f) {
    static const char *const kinds[] = {"counter", "gauge", "histogram"};
    int code = lk_buf_printf(out, "# HELP %s ", f->name);
    if (!code) code = escape(out, f->help, false);
    if (!code) code = lk_buf_printf(out, "\n# TYPE %s %s\n", f->name, kinds[f->kind]);
    for (struct lk_metric *s = f->first; !code && s; s = s->next)
        code = f->kind == LK_METRIC_HISTOGRAM
                   ? histogram(out, s)
                   : line(out, s, "", NULL, double_of(atomic_load_explicit(&s->value, memory_order_relaxed)));
    return code;
}

int lk_metrics_print(struct lk_metrics *m, struct lk_buf *out) {
    size_t before = out->size;
    int code = LK_OK;
    pthread_mutex_lock(&m->mutex);
    for (struct family *f = m->first; !code && f; f = f->next) code = print_family(out, f);
    pthread_mutex_unlock(&m->mutex);
    if (!code) return LK_OK;
    out->size = before;
    if (out->data) out->data[before] = 0;
    return LK_ENOMEM;
}
