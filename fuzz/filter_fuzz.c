/* clang -fsanitize=fuzzer,address: a filter's text is refused with the place, or printed as text that means the same; what
 * compiles lets through the same cells of a small row whether its bounds and hints are heeded or not. */
#include "store/table/filter.h"
#include <stdlib.h>
#include <string.h>

#define CELLS 16
static struct lk_cell cells[CELLS];
struct seen {
    unsigned count[CELLS], total;
};
static int emit(void *arg, const struct lk_cell *cell) {
    struct seen *seen = arg;
    for (unsigned i = 0; i < CELLS; i++)
        if (cell->family == cells[i].family && cell->qualifier.data == cells[i].qualifier.data &&
            cell->timestamp_us == cells[i].timestamp_us)
            seen->count[i]++;
    seen->total++;
    return 0;
}
static int compare(struct lk_bytes a, struct lk_bytes b) {
    int c = a.size && b.size ? memcmp(a.data, b.data, a.size < b.size ? a.size : b.size) : 0;
    return c ? c : (a.size > b.size) - (a.size < b.size);
}
static bool within(const struct lk_table_range *r, struct lk_bytes b) {
    int from = r->from.data ? compare(b, r->from) : 1, to = r->to.data ? compare(b, r->to) : -1;
    return (from > 0 || (from == 0 && !r->from_open)) && (to < 0 || (to == 0 && r->to_closed));
}
static bool wanted(const struct lk__table_filter_bounds *b, const struct lk_cell *c) {
    return (!b->family || strcmp(b->family, c->family) == 0) && within(&b->qualifiers, c->qualifier) &&
           c->timestamp_us >= b->from_us && c->timestamp_us < b->to_us;
}
static int read_row(struct lk__table_filter_run *run, bool heed, struct seen *seen) {
    struct lk_err err = {0};
    lk__table_filter_begin(run, cells[0].row);
    while (lk__table_filter_again(run)) {
        enum lk__table_filter_next next = LK__FILTER_CELL;
        const struct lk_cell *last = NULL;
        struct lk_bytes to = {0};
        for (const struct lk_cell *c = cells; c < cells + CELLS; c++) {
            if (heed && last &&
                (next == LK__FILTER_ROW || (next == LK__FILTER_FAMILY && last->family == c->family) ||
                 (next == LK__FILTER_COLUMN && last->family == c->family && last->qualifier.data == c->qualifier.data)))
                continue;
            if (heed && to.data && last->family == c->family && compare(c->qualifier, to) < 0) continue;
            if (heed && !wanted(lk__table_filter_run_bounds(run), c)) continue;
            int code = lk__table_filter_cell(run, c, emit, seen, &next, &err);
            if (code && (code != LK_EINVAL || !err.message[0])) abort();
            if (code) return code;
            last = c;
            if (next != LK__FILTER_COLUMN || !lk__table_filter_seek(run, &to)) to.data = NULL;
        }
    }
    return 0;
}
static void run_filter(const struct lk_filter *f) {
    static const char bytes[] = "ab", *families[] = {"a", "f"};
    struct lk_filter_program *p;
    struct lk__table_filter_run *run;
    struct lk_err err = {0};
    struct seen all = {{0}}, some = {{0}};
    for (unsigned i = 0; i < CELLS; i++)
        cells[i] = (struct lk_cell){lk_bytes("row", 3), families[i / 8],        lk_bytes(bytes + i / 4 % 2, 1),
                                    (4 - i % 4) * 1000, lk_bytes(bytes, i % 3), NULL};
    int code = lk_filter_compile(f, &p, &err);
    if (code) {
        if (code != LK_EINVAL || strncmp(err.message, "filter ", 7) != 0) abort();
        return;
    }
    if (lk__table_filter_run_open(p, &run, &err)) abort();
    if (!read_row(run, false, &all) && !read_row(run, true, &some) && memcmp(&all, &some, sizeof all) != 0) abort();
    lk__table_filter_run_close(run);
    lk_filter_free(p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct lk_err err = {0};
    struct lk_filter *f, *again;
    char *text = lk_strndup((const char *)data, size), *first, *second;
    if (!text) abort();
    int code = lk_filter_parse(text, &f, &err);
    lk_free(text);
    if (code) {
        if (code != LK_EINVAL || strncmp(err.message, "a filter's text", 15) != 0) abort();
        return 0;
    }
    if (!(first = lk_filter_print(f))) abort();
    if (strlen(first) <= LK_FILTER_TEXT_MAX) {
        if (lk_filter_parse(first, &again, &err) || !(second = lk_filter_print(again)) || strcmp(first, second) != 0)
            abort();
        lk_free(second);
        lk_filter_tree_free(again);
    }
    run_filter(f);
    lk_free(first);
    lk_filter_tree_free(f);
    return 0;
}
