/* A text's way to its plain parts: added tokens are found in it, what stands between them is normalized, tokens that are
 * found in normalized text come next, and the rest is plain. README.md, "Added tokens". */
#include "data/tokenizer/internal.h"
#include <stdlib.h>
#include <string.h>

int lk__trace_add(struct lk__trace *t, uint64_t normal_size, uint64_t text_size, bool same) {
    if (!t || (!normal_size && !text_size)) return 0;
    struct lk__span *last = t->count ? &t->spans[t->count - 1] : NULL;
    if (last && last->same && same) {
        last->normal_size += normal_size;
        last->text_size += text_size;
        return 0;
    }
    if (t->count == t->capacity) {
        size_t capacity = t->capacity ? t->capacity * 2 : 64;
        struct lk__span *grown = lk_realloc(t->spans, capacity * sizeof *grown);
        if (!grown) return LK_ENOMEM;
        t->spans = grown;
        t->capacity = capacity;
    }
    t->spans[t->count++] = (struct lk__span){normal_size, text_size, same};
    return 0;
}

/* --- white space ----------------------------------------------------------------------------------------- */

static size_t spaces_before(const uint8_t *text, size_t at, size_t least) {
    size_t length;
    while (at > least) {
        size_t from = at - 1;
        while (from > least && at - from < 4 && (text[from] & 0xC0) == 0x80) from--;
        if (lk__unit(text + from, at - from, &length) != LK__SPACE || length != at - from) break;
        at = from;
    }
    return at;
}

static size_t spaces_behind(const uint8_t *text, size_t at, size_t size) {
    size_t length;
    while (at < size && lk__unit(text + at, size - at, &length) == LK__SPACE) at += length;
    return at;
}

/* --- sets of added tokens -------------------------------------------------------------------------------- */

static int by_text(const void *a, const void *b) {
    const struct lk__added *x = a, *y = b;
    int order = memcmp(x->text, y->text, x->size < y->size ? x->size : y->size);
    return order ? order : (x->size > y->size) - (x->size < y->size);
}

static int same_text(const struct lk__added *a, const struct lk__added *b, const char *what, struct lk_err *err) {
    return lk_fail(err, LK_EINVAL, "%s: added tokens %lu and %lu have the same text", what, (unsigned long)a->id,
                   (unsigned long)b->id);
}

/* Tokens of a set as they stand in normalized text, behind a space. */
static int prefix_set(struct lk_tokenizer *t, struct lk__added_set *set) {
    size_t total = 0;
    for (size_t i = 0; i < set->count; i++) total += set->tokens[i].size + 1;
    uint8_t *p = t->normal_added = lk_alloc(total + 1);
    if (!p) return LK_ENOMEM;
    for (size_t i = 0; i < set->count; i++) {
        struct lk__added *a = &set->tokens[i];
        *p = ' ';
        memcpy(p + 1, a->text, a->size);
        a->text = p;
        p += ++a->size;
    }
    return 0;
}

static int make_set(struct lk_tokenizer *t, int normalized, const char *what, struct lk_err *err) {
    struct lk__added_set *set = &t->sets[normalized];
    set->tokens = lk_calloc(t->added_count + 1, sizeof *set->tokens);
    if (!set->tokens) return lk_fail(err, LK_ENOMEM, "%s: out of memory", what);
    for (uint32_t id = 0; id < t->vocab; id++) {
        if (!t->added[id] || !(t->added[id] & LK__NORMALIZED) != !normalized) continue;
        struct lk_bytes b = lk_tokenizer_bytes(t, id);
        if (!b.size) return lk_fail(err, LK_EINVAL, "%s: added token %lu is empty", what, (unsigned long)id);
        if (normalized && t->traits.nfc && !lk__nfc_is_normal(b.data, b.size))
            return lk_fail(err, LK_EUNSUPPORTED,
                           "%s: added token %lu is \"normalized\", but its text is not in normal form C", what,
                           (unsigned long)id);
        set->tokens[set->count++] = (struct lk__added){b.data, b.size, id};
        if (!(t->added[id] & LK__SPECIAL)) set->plain = true;
    }
    if (normalized && t->traits.prefix_space == LK__PREFIX_EACH && prefix_set(t, set))
        return lk_fail(err, LK_ENOMEM, "%s: out of memory", what);
    for (size_t i = 0; i < set->count; i++) set->first[set->tokens[i].text[0]] = true;
    qsort(set->tokens, set->count, sizeof *set->tokens, by_text);
    for (size_t i = 1; i < set->count; i++)
        if (!by_text(&set->tokens[i - 1], &set->tokens[i]))
            return same_text(&set->tokens[i - 1], &set->tokens[i], what, err);
    return 0;
}

/* No token that is looked for has a safe cut inside or takes spaces that may lie behind one. */
static bool find_cuttable(const struct lk_tokenizer *t) {
    if (t->traits.characters) return false;
    for (int which = 0; which < 2; which++)
        for (size_t i = 0; i < t->sets[which].count; i++) {
            const struct lk__added *a = &t->sets[which].tokens[i];
            if (t->added[a->id] & (LK__LSTRIP | LK__RSTRIP)) return false;
            if (a->size > 1 && lk__next_cut(t->traits.pattern, a->text, 0, a->size) < a->size) return false;
        }
    return !t->traits.prefix_space;
}

/* Where tokens take the spaces beside them, none may begin or end with one: which of two has it would not be clear, and the
 * library's answers overlap. */
static int check_strips(const struct lk_tokenizer *t, int which, const char *what, struct lk_err *err) {
    const struct lk__added_set *set = &t->sets[which];
    bool strips = false, spaces = false;
    size_t length;
    for (size_t i = 0; i < set->count; i++) {
        const struct lk__added *a = &set->tokens[i];
        strips |= (t->added[a->id] & (LK__LSTRIP | LK__RSTRIP)) != 0;
        spaces |= lk__unit(a->text, a->size, &length) == LK__SPACE || spaces_before(a->text, a->size, 0) < a->size;
    }
    if (strips && spaces)
        return lk_fail(err, LK_EUNSUPPORTED,
                       "%s: added tokens with lstrip or rstrip stand beside one that begins or ends with a "
                       "space; that is not computed",
                       what);
    if (which && t->traits.characters == LK__NORMALIZER && strips)
        return lk_fail(err, LK_EUNSUPPORTED, "%s: lstrip or rstrip of a normalized token is not computed", what);
    if (which && t->traits.nfc && (strips || t->traits.prefix_space))
        return lk_fail(err, LK_EUNSUPPORTED, "%s: NFC together with %s is not computed", what,
                       strips ? "lstrip or rstrip of a normalized token" : "add_prefix_space");
    return 0;
}

int lk__added_make(struct lk_tokenizer *t, const char *what, struct lk_err *err) {
    int code = make_set(t, 0, what, err);
    if (!code) code = make_set(t, 1, what, err);
    if (code) return code;
    const struct lk__added_set *plain = &t->sets[0], *normal = &t->sets[1];
    for (size_t i = 0; i < normal->count; i++) {
        const struct lk__added *a = &normal->tokens[i], *b;
        b = bsearch(a, plain->tokens, plain->count, sizeof *a, by_text);
        if (b) return same_text(a, b, what, err);
    }
    t->cuttable = find_cuttable(t);
    for (int which = 0; which < 2 && !code; which++) code = check_strips(t, which, what, err);
    return code;
}

void lk__added_release(struct lk_tokenizer *t) {
    for (int i = 0; i < 2; i++) lk_free(t->sets[i].tokens);
    lk_free(t->normal_added);
}

/* The longest token of the set at text[0..size), or NULL: the tokens that agree so far are a range, narrowed byte by byte.
 */
static const struct lk__added *longest_at(const struct lk__added_set *set, const uint8_t *text, size_t size) {
    size_t low = 0, high = set->count;
    const struct lk__added *found = NULL;
    for (size_t k = 0; k < size && low < high; k++) {
        size_t from = low, to = high;
        for (size_t end = high; from < end;) { /* the first that has text[k] or more there */
            size_t middle = (from + end) / 2;
            if (set->tokens[middle].text[k] < text[k])
                from = middle + 1;
            else
                end = middle;
        }
        for (size_t begin = from; begin < to;) { /* the first that has more */
            size_t middle = (begin + to) / 2;
            if (set->tokens[middle].text[k] <= text[k])
                begin = middle + 1;
            else
                to = middle;
        }
        low = from;
        high = to;
        if (low == high) break;
        if (set->tokens[low].size == k + 1) found = &set->tokens[low++]; /* it ends here: the first of the range */
    }
    return found;
}

/* The first place from `at` on where a token of the set stands, size if there is none. */
static size_t find_added(const struct lk__added_set *set, const uint8_t *text, size_t at, size_t size,
                         const struct lk__added **out) {
    for (*out = NULL; at < size; at++) {
        if (!set->first[text[at]]) continue;
        *out = longest_at(set, text + at, size - at);
        if (*out) return at;
    }
    return size;
}

/* --- the walk --------------------------------------------------------------------------------------------- */

static int no_memory(struct lk_err *err) {
    return lk_fail(err, LK_ENOMEM, "encoding: out of memory");
}

typedef int part_fn(const struct lk__walk *, const uint8_t *text, size_t size, bool traced, struct lk_err *err);

static int put_added(const struct lk__walk *w, uint32_t id) {
    if (lk__tokens_reserve(w->out, 1)) return LK_ENOMEM;
    w->out->ids[w->out->count++] = id;
    return 0;
}

/* Takes the tokens of a set out of text[0..size) and gives what stands between them to `part`. */
static int walk_set(const struct lk__walk *w, int which, const uint8_t *text, size_t size, bool traced, part_fn *part,
                    struct lk_err *err) {
    const struct lk__added_set *set = &w->t->sets[which];
    const struct lk__added *found;
    size_t done = 0;
    if (!set->count || (!w->special && !set->plain)) return part(w, text, size, traced, err);
    for (size_t at = find_added(set, text, 0, size, &found); found;) {
        size_t begin = at, end = at + found->size, next = end;
        uint8_t kind = w->t->added[found->id];
        uint32_t id = found->id;
        at = find_added(set, text, next, size, &found);
        if (!w->special && kind & LK__SPECIAL) continue; /* plain text, and what it covers is no token either */
        if (kind & LK__LSTRIP) begin = spaces_before(text, begin, done);
        if (begin < done) begin = done; /* a token of white space that the one in front of it has taken */
        if (kind & LK__RSTRIP) end = spaces_behind(text, end, size);
        if (end < done) end = done;
        int code = begin > done ? part(w, text + done, begin - done, traced, err) : 0;
        if (!code &&
            (put_added(w, id) || (traced && lk__trace_add(w->trace, lk__normal_size(w->t, id), end - begin, false))))
            code = no_memory(err);
        if (code) return code;
        done = end;
    }
    return done < size ? part(w, text + done, size - done, traced, err) : 0;
}

static bool wants_space(const struct lk__walk *w, const uint8_t *text, size_t size) {
    enum lk__prefix prefix = w->t->traits.prefix_space;
    bool mark = w->t->traits.characters && size >= 3 && !memcmp(text, LK__MARK, 3);
    return (prefix == LK__PREFIX_UNLESS || (prefix == LK__PREFIX_FIRST && text == w->text)) && text[0] != ' ' && !mark;
}

static int plain_part(const struct lk__walk *w, const uint8_t *text, size_t size, bool traced, struct lk_err *err) {
    if (!size) return 0;
    bool space = wants_space(w, text, size);
    if (space || (w->t->traits.characters == LK__METASPACE && lk__next_mark(text, 0, size) < size)) {
        w->normal->size = 0; /* never what `text` lies in: what normalizes puts no space in front of plain parts */
        if (lk__spaces(text, size, space, w->normal, traced ? w->trace : NULL)) return no_memory(err);
        text = (const uint8_t *)w->normal->data;
        size = w->normal->size;
    } else if (traced && lk__trace_add(w->trace, size, size, true))
        return no_memory(err);
    return w->plain(w->arg, text, size, w->out, err);
}

static int normal_part(const struct lk__walk *w, const uint8_t *text, size_t size, bool traced, struct lk_err *err) {
    bool each = w->t->traits.prefix_space == LK__PREFIX_EACH;
    if (w->t->traits.characters == LK__NORMALIZER ? !each && lk__next_mark(text, 0, size) == size
                                                  : !w->t->traits.nfc || lk__nfc_is_normal(text, size))
        return walk_set(w, 1, text, size, traced, plain_part, err);
    w->normal->size = 0;
    if (w->t->traits.nfc ? lk__nfc(text, size, w->normal, w->trace) : lk__spaces(text, size, each, w->normal, w->trace))
        return no_memory(err);
    return walk_set(w, 1, (const uint8_t *)w->normal->data, w->normal->size, false, plain_part, err);
}

bool lk__walk_needed(const struct lk_tokenizer *t, bool special) {
    for (int i = 0; i < 2; i++)
        if (t->sets[i].count && (special || t->sets[i].plain)) return true;
    return t->traits.prefix_space || t->traits.nfc || t->traits.characters;
}

int lk__walk_text(const struct lk__walk *w, const uint8_t *text, size_t size, struct lk_err *err) {
    struct lk__walk whole = *w;
    whole.text = text;
    return size ? walk_set(&whole, 0, text, size, true, normal_part, err) : 0;
}

size_t lk__plain_cut(const struct lk_tokenizer *t, const uint8_t *text, size_t from, size_t size) {
    return t->traits.characters ? lk__character_cut(t, text, from, size)
                                : lk__next_cut(t->traits.pattern, text, from, size);
}

size_t lk__tokenizer_cut(const struct lk_tokenizer *t, const uint8_t *text, size_t from, size_t size) {
    if (!lk__walk_needed(t, false)) return lk__next_cut(t->traits.pattern, text, from, size);
    for (size_t at = from + 1; t->cuttable && at < size; at++) /* what stands at ASCII alone is not normalized */
        if (text[at - 1] < 0x80 && text[at] < 0x80 && lk__cut_is_safe(t->traits.pattern, text, at, size)) return at;
    return size;
}
