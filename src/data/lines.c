#include "data/lines.h"

static bool is_space(uint8_t c) {
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Follows strings and brackets; returns true for a bracket that closes more than was opened. */
static bool follow(struct lk__data_lines *l, uint8_t c) {
    if (l->escaped) return l->escaped = false;
    if (l->string) {
        l->escaped = c == '\\';
        l->string = c != '"';
        return false;
    }
    if (c == '"') l->string = true;
    if (c == '{' || c == '[') l->depth++;
    if (c != '}' && c != ']') return false;
    if (!l->depth) return true;
    l->depth--;
    return false;
}

enum lk__data_shape lk__data_lines_shape(const uint8_t *head, size_t size) {
    struct lk__data_lines l = {.shape = LK__VALUES};
    size_t at = 0;
    while (at < size && is_space(head[at])) at++;
    if (at < size && head[at] == '[') return LK__LIST;
    for (; at < size; at++) {
        if (head[at] == '\n') return l.depth && !l.string ? LK__VALUES : LK__LINES;
        follow(&l, head[at]);
    }
    return LK__LINES;
}

static int wrong(const struct lk__data_lines *l, const char *why, struct lk_err *err) {
    return lk_fail(err, LK_EINVAL, "byte %llu: %s", (unsigned long long)l->at, why);
}

/* A byte of a list outside its records. */
static int between(struct lk__data_lines *l, uint8_t *c, struct lk_err *err) {
    if (is_space(*c)) return *c = ' ', 0;
    if (l->closed) return wrong(l, "something stands behind the list of records", err);
    if (!l->open) {
        l->open = true; /* a list begins with [ : that is how it was recognised */
    } else if (*c == ',') {
        if (!l->any) return wrong(l, "a record is missing before the comma", err);
        l->any = false;
        *c = '\n';
        return 0;
    } else if (*c == ']') {
        if (!l->any && l->some) return wrong(l, "a record is missing behind the last comma", err);
        l->closed = true;
    } else {
        l->any = l->some = true;
        follow(l, *c);
        return 0;
    }
    *c = ' ';
    return 0;
}

int lk__data_lines_next(struct lk__data_lines *l, uint8_t *data, size_t size, struct lk_err *err) {
    if (l->shape == LK__LINES) return 0;
    for (uint8_t *c = data; c < data + size; c++, l->at++) {
        if (!l->depth && !l->string && l->shape == LK__LIST) {
            int code = between(l, c, err);
            if (code) return code;
            continue;
        }
        bool line_end = *c == '\n' && (l->depth || l->string);
        if (line_end)
            *c = l->string ? 1 : ' '; /* 1 keeps a line end inside a string a control character, which the parser refuses */
        follow(l, *c);
    }
    return 0;
}

int lk__data_lines_finish(const struct lk__data_lines *l, struct lk_err *err) {
    return l->shape == LK__LIST && !l->closed ? wrong(l, "the list of records does not end: is the file cut short?", err)
                                              : 0;
}
