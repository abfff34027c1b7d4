#include "store/table/filter.h"
const struct lk__filter_bounds *lk__filter_bounds(const struct lk_filter_program *p) {
    (void)p;
    return NULL;
}
bool lk__filter_row(const struct lk_filter_program *p, struct lk_bytes r) {
    (void)p;
    (void)r;
    return true;
}
struct lk_bytes lk__filter_row_prefix(const struct lk_filter_program *p) {
    (void)p;
    return lk_bytes(NULL, 0);
}
int lk__filter_run_open(const struct lk_filter_program *p, struct lk__filter_run **o, struct lk_err *e) {
    (void)p;
    (void)o;
    (void)e;
    return 0;
}
void lk__filter_run_close(struct lk__filter_run *r) {
    (void)r;
}
void lk__filter_begin(struct lk__filter_run *r, struct lk_bytes row) {
    (void)r;
    (void)row;
}
bool lk__filter_again(struct lk__filter_run *r) {
    (void)r;
    return false;
}
int lk__filter_cell(struct lk__filter_run *r, const struct lk_cell *c, lk__filter_emit_fn *e, void *a,
                    enum lk__filter_next *n, struct lk_err *x) {
    (void)r;
    (void)c;
    (void)e;
    (void)a;
    (void)n;
    (void)x;
    return 0;
}
