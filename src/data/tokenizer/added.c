/* The added tokens of a tokenizer: sorted sets of their texts, what may stand in them, and finding one in a text.
 * README.md, "Added tokens". */
#include "data/tokenizer/internal.h"
#include <stdlib.h>
#include <string.h>

/* --- white space beside a token ---------------------------------------------------------------------------- */

size_t lk__tokenizer_spaces_before(const uint8_t *text, size_t at, size_t least) {
    size_t length;
    while (at > least) {
        size_t from = at - 1;
        while (from > least && at - from < 4 && (text[from] & 0xC0) == 0x80) from--;
        if (lk__tokenizer_unit(text + from, at - from, &length) != LK__SPACE || length != at - from) break;
        at = from;
    }
    return at;
}

size_t lk__tokenizer_spaces_behind(const uint8_t *text, size_t at, size_t size) {
    size_t length;
    while (at < size && lk__tokenizer_unit(text + at, size - at, &length) == LK__SPACE) at += length;
    return at;
}

/* --- making the sets -------------------------------------------------------------------------------------- */

static int by_text(const void *a, const void *b) {
    const struct lk__tokenizer_added *x = a, *y = b;
    int order = memcmp(x->text, y->text, x->size < y->size ? x->size : y->size);
    return order ? order : (x->size > y->size) - (x->size < y->size);
}

static int same_text(const struct lk__tokenizer_added *a, const struct lk__tokenizer_added *b, const char *what,
                     struct lk_err *err) {
    return lk_fail(err, LK_EINVAL, "%s: added tokens %lu and %lu have the same text", what, (unsigned long)a->id,
                   (unsigned long)b->id);
}

/* Tokens of a set as they stand in normalized text, behind a space. */
static int prefix_set(struct lk_tokenizer *t, struct lk__tokenizer_added_set *set) {
    size_t total = 0;
    for (size_t i = 0; i < set->count; i++) total += set->tokens[i].size + 1;
    uint8_t *p = t->normal_added = lk_alloc(total + 1);
    if (!p) return LK_ENOMEM;
    for (size_t i = 0; i < set->count; i++) {
        struct lk__tokenizer_added *a = &set->tokens[i];
        *p = ' ';
        memcpy(p + 1, a->text, a->size);
        a->text = p;
        p += ++a->size;
    }
    return 0;
}

static int make_set(struct lk_tokenizer *t, int normalized, const char *what, struct lk_err *err) {
    struct lk__tokenizer_added_set *set = &t->sets[normalized];
    set->tokens = lk_calloc(t->added_count + 1, sizeof *set->tokens);
    if (!set->tokens) return lk_fail(err, LK_ENOMEM, "%s: out of memory", what);
    for (uint32_t id = 0; id < t->vocab; id++) {
        if (!t->added[id] || !(t->added[id] & LK__NORMALIZED) != !normalized) continue;
        struct lk_bytes b = lk_tokenizer_bytes(t, id);
        if (!b.size) return lk_fail(err, LK_EINVAL, "%s: added token %lu is empty", what, (unsigned long)id);
        if (normalized && t->traits.nfc && !lk__tokenizer_nfc_is_normal(b.data, b.size))
            return lk_fail(err, LK_EUNSUPPORTED,
                           "%s: added token %lu is \"normalized\", but its text is not in normal form C", what,
                           (unsigned long)id);
        set->tokens[set->count++] = (struct lk__tokenizer_added){b.data, b.size, id};
        if (!(t->added[id] & LK__SPECIAL)) set->plain = true;
    }
    if (normalized && t->traits.prefix_space == LK__PREFIX_EACH && prefix_set(t, set))
        return lk_fail(err, LK_ENOMEM, "%s: out of memory", what);
    for (size_t i = 0; i < set->count; i++) {
        set->first[set->tokens[i].text[0]] = true;
        if (set->tokens[i].size > set->longest) set->longest = set->tokens[i].size;
    }
    qsort(set->tokens, set->count, sizeof *set->tokens, by_text);
    for (size_t i = 1; i < set->count; i++)
        if (!by_text(&set->tokens[i - 1], &set->tokens[i]))
            return same_text(&set->tokens[i - 1], &set->tokens[i], what, err);
    return 0;
}

/* Where tokens take the spaces beside them, none may begin or end with one: which of two has it would not be clear, and the
 * library's answers overlap. */
static int check_strips(const struct lk_tokenizer *t, int which, const char *what, struct lk_err *err) {
    const struct lk__tokenizer_added_set *set = &t->sets[which];
    bool strips = false, spaces = false;
    size_t length;
    for (size_t i = 0; i < set->count; i++) {
        const struct lk__tokenizer_added *a = &set->tokens[i];
        strips |= (t->added[a->id] & (LK__LSTRIP | LK__RSTRIP)) != 0;
        spaces |= lk__tokenizer_unit(a->text, a->size, &length) == LK__SPACE ||
                  lk__tokenizer_spaces_before(a->text, a->size, 0) < a->size;
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

int lk__tokenizer_added_make(struct lk_tokenizer *t, const char *what, struct lk_err *err) {
    int code = make_set(t, 0, what, err);
    if (!code) code = make_set(t, 1, what, err);
    if (code) return code;
    const struct lk__tokenizer_added_set *plain = &t->sets[0], *normal = &t->sets[1];
    for (size_t i = 0; i < normal->count; i++) {
        const struct lk__tokenizer_added *a = &normal->tokens[i], *b;
        b = bsearch(a, plain->tokens, plain->count, sizeof *a, by_text);
        if (b) return same_text(a, b, what, err);
    }
    t->cuttable = lk__tokenizer_cuts_allowed(t);
    for (int which = 0; which < 2 && !code; which++) code = check_strips(t, which, what, err);
    return code;
}

void lk__tokenizer_added_release(struct lk_tokenizer *t) {
    for (int i = 0; i < 2; i++) lk_free(t->sets[i].tokens);
    lk_free(t->normal_added);
}

/* --- finding ---------------------------------------------------------------------------------------------- */

/* The longest token of the set at text[0..size), or NULL: the tokens that agree so far are a range, narrowed byte by byte.
 */
static const struct lk__tokenizer_added *longest_at(const struct lk__tokenizer_added_set *set, const uint8_t *text,
                                                    size_t size) {
    size_t low = 0, high = set->count;
    const struct lk__tokenizer_added *found = NULL;
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

size_t lk__tokenizer_added_find(const struct lk__tokenizer_added_set *set, const uint8_t *text, size_t at, size_t size,
                                const struct lk__tokenizer_added **out) {
    bool same = set->count && set->tokens[0].text[0] == set->tokens[set->count - 1].text[0]; /* they are sorted */
    for (*out = NULL; at < size; at++) {
        const uint8_t *begin = same ? memchr(text + at, set->tokens[0].text[0], size - at) : NULL;
        if (same && !begin) break;
        if (same) at = (size_t)(begin - text);
        if (!set->first[text[at]]) continue;
        *out = longest_at(set, text + at, size - at);
        if (*out) return at;
    }
    return size;
}
