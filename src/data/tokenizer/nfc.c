/* Unicode's normal form C. A text is cut in front of each character of class 0 that nothing can change or join (most are):
 * each piece is decomposed, its marks are sorted, and what joins is joined. Pieces of one character are copied as they are.
 * Invalid bytes stand as they are and join with nothing. UAX 15, sections 1.3 and 14.1. */
#include "data/tokenizer/nfc.h"
#include "data/tokenizer/internal.h"
#include "data/tokenizer/masks.h"
#include <stdlib.h>
#include <string.h>

#define SLOW 255

static uint8_t class_of(uint32_t c) {
    return c < lk__tokenizer_nfc_end ? lk__tokenizer_nfc_class[lk__tokenizer_nfc_block[c >> 7]][c & 127] : 0;
}

/* Class of the character at text[at]; 0 for an invalid byte. */
static uint8_t class_at(const uint8_t *text, size_t at, size_t size, size_t *length, uint32_t *c) {
    *length = lk__tokenizer_utf8_decode(text + at, size - at, c);
    if (*length) return class_of(*c);
    *length = 1;
    return 0;
}

/* The first character from `at` on that is not of class 0; size if there is none. U+0300 is the first of all: 0xCC. */
static size_t find_mark(const uint8_t *text, size_t at, size_t size) {
    size_t length;
    uint32_t c;
    while (at < size) {
        if (text[at] < 0x80 && size - at >= 64) {
            uint64_t wide = lk__tokenizer_masks_wide(text + at);
            at += wide ? (size_t)__builtin_ctzll(wide) : 64;
            continue;
        }
        if (text[at] < 0xCC) {
            at++;
            continue;
        }
        if (class_at(text, at, size, &length, &c)) return at;
        at += length;
    }
    return size;
}

bool lk__tokenizer_nfc_is_normal(const uint8_t *text, size_t size) {
    return find_mark(text, 0, size) == size;
}

bool lk__tokenizer_nfc_stays(const uint8_t *text, size_t at, size_t size) {
    size_t length, back = 1;
    uint32_t c;
    while (back < 4 && back < at && (text[at - back] & 0xC0) == 0x80) back++;
    if (class_at(text, at - back, at, &length, &c) || class_at(text, at, size, &length, &c)) return false;
    at += length;
    return at == size || !class_at(text, at, size, &length, &c);
}

/* --- one piece -------------------------------------------------------------------------------------------- */

struct mark {
    uint32_t code, place; /* place: breaks ties, so that the sort is stable */
    uint8_t class;
};
struct marks {
    struct mark *list;
    size_t count, capacity;
};

static int add_mark(struct marks *m, uint32_t code) {
    if (m->count == m->capacity) {
        size_t capacity = m->capacity ? m->capacity * 2 : 64;
        struct mark *grown = lk_realloc(m->list, capacity * sizeof *grown);
        if (!grown) return LK_ENOMEM;
        m->list = grown;
        m->capacity = capacity;
    }
    uint8_t class = class_of(code);
    m->list[m->count] = (struct mark){code, (uint32_t)m->count, class == SLOW ? 0 : class};
    m->count++;
    return 0;
}

#define S_BASE 0xAC00u
#define L_BASE 0x1100u
#define V_BASE 0x1161u
#define T_BASE 0x11A7u
#define V_MANY 21u
#define T_MANY 28u
#define S_MANY 11172u

static int decompose(struct marks *m, uint32_t c) {
    if (c - S_BASE < S_MANY) {
        uint32_t s = c - S_BASE;
        if (add_mark(m, L_BASE + s / (V_MANY * T_MANY)) || add_mark(m, V_BASE + s / T_MANY % V_MANY)) return LK_ENOMEM;
        return s % T_MANY ? add_mark(m, T_BASE + s % T_MANY) : 0;
    }
    size_t low = 0, high = lk__tokenizer_nfc_long_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (lk__tokenizer_nfc_long[middle].code < c)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == lk__tokenizer_nfc_long_count || lk__tokenizer_nfc_long[low].code != c) return add_mark(m, c);
    int code = 0;
    for (size_t i = 0; !code && i < lk__tokenizer_nfc_long[low].count; i++)
        code = add_mark(m, lk__tokenizer_nfc_codes[lk__tokenizer_nfc_long[low].first + i]);
    return code;
}

/* 0: the two do not join. */
static uint32_t joined(uint32_t a, uint32_t b) {
    if (a - L_BASE < 19 && b - V_BASE < V_MANY) return S_BASE + ((a - L_BASE) * V_MANY + (b - V_BASE)) * T_MANY;
    if (a - S_BASE < S_MANY && (a - S_BASE) % T_MANY == 0 && b - T_BASE - 1 < T_MANY - 1) return a + (b - T_BASE);
    size_t low = 0, high = lk__tokenizer_nfc_pair_count;
    while (low < high) {
        const struct lk__tokenizer_nfc_pair *p = &lk__tokenizer_nfc_pairs[(low + high) / 2];
        if (p->a < a || (p->a == a && p->b < b))
            low = (low + high) / 2 + 1;
        else
            high = (low + high) / 2;
    }
    const struct lk__tokenizer_nfc_pair *p = &lk__tokenizer_nfc_pairs[low];
    return low < lk__tokenizer_nfc_pair_count && p->a == a && p->b == b ? p->joined : 0;
}

static int by_class(const void *x, const void *y) {
    const struct mark *a = x, *b = y;
    if (a->class != b->class) return a->class < b->class ? -1 : 1;
    return a->place < b->place ? -1 : 1;
}

/* Sorts each run of marks of a class above 0. */
static void sort_marks(struct marks *m) {
    for (size_t i = 0, end; i < m->count; i = end) {
        bool sorted = true;
        for (end = i + 1; m->list[i].class && end < m->count && m->list[end].class; end++)
            sorted &= m->list[end - 1].class <= m->list[end].class;
        if (!sorted) qsort(m->list + i, end - i, sizeof *m->list, by_class);
    }
}

/* Joins in place; marks that have gone into another have code 0 and the rest move up. */
static void join_marks(struct marks *m) {
    size_t starter = SIZE_MAX, to = 0;
    uint8_t last = 0; /* class of what stands last behind the starter; 0: nothing does */
    for (size_t i = 0; i < m->count; i++) {
        struct mark mark = m->list[i];
        bool free_way = starter != SIZE_MAX && (to == starter + 1 || (last && last < mark.class));
        uint32_t c = free_way ? joined(m->list[starter].code, mark.code) : 0;
        if (c) {
            m->list[starter].code = c;
            continue;
        }
        if (!mark.class) starter = to;
        last = mark.class;
        m->list[to++] = mark;
    }
    m->count = to;
}

static int put_code(struct lk_buf *out, uint32_t c) {
    uint8_t p[4];
    size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n; i-- > 1; c >>= 6) p[i] = (uint8_t)(0x80 | (c & 0x3F));
    p[0] = (uint8_t)(n == 1 ? c : c | (n == 2 ? 0xC0u : n == 3 ? 0xE0u : 0xF0u));
    return lk_buf_append(out, p, n);
}

/* text[0..size) is one piece of well-formed characters. */
static int put_piece(const uint8_t *text, size_t size, struct marks *m, struct lk_buf *out,
                     struct lk__tokenizer_trace *trace) {
    size_t before = out->size, length;
    uint32_t c;
    int code = 0;
    m->count = 0;
    for (size_t at = 0; !code && at < size; at += length) {
        class_at(text, at, size, &length, &c);
        code = decompose(m, c);
    }
    if (code) return code;
    sort_marks(m);
    join_marks(m);
    for (size_t i = 0; !code && i < m->count; i++) code = put_code(out, m->list[i].code);
    if (code) return code;
    bool same = out->size - before == size && !memcmp(out->data + before, text, size);
    return lk__tokenizer_trace_add(trace, out->size - before, size, same);
}

int lk__tokenizer_nfc(const uint8_t *text, size_t size, struct lk_buf *out, struct lk__tokenizer_trace *trace) {
    struct marks m = {0};
    size_t done = 0, length;
    uint32_t c;
    int code = lk_buf_reserve(out, size);
    while (!code && done < size) {
        size_t at = find_mark(text, done, size), begin = at;
        if (at < size && at > done) { /* the character in front begins the piece */
            do begin--;
            while (begin > done && at - begin < 4 && (text[begin] & 0xC0) == 0x80);
            if (lk__tokenizer_utf8_decode(text + begin, at - begin, &c) != at - begin) begin = at;
        }
        if (begin > done) code = lk_buf_append(out, text + done, begin - done);
        if (!code) code = lk__tokenizer_trace_add(trace, begin - done, begin - done, true);
        done = begin;
        if (at == size) break;
        while (at < size && class_at(text, at, size, &length, &c)) at += length;
        if (!code) code = put_piece(text + begin, at - begin, &m, out, trace);
        done = at;
    }
    lk_free(m.list);
    return code ? LK_ENOMEM : 0;
}
