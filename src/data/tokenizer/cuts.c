/* Places at which a text may be cut so that its pieces, taken alone, give the tokens of the whole. README.md, "Cuts". */
#include "data/tokenizer/internal.h"

bool lk__tokenizer_walk_needed(const struct lk_tokenizer *t, bool special) {
    for (int i = 0; i < 2; i++)
        if (t->sets[i].count && (special || t->sets[i].plain)) return true;
    return t->traits.prefix_space || t->traits.nfc || t->traits.characters;
}

/* In the normal form a token has no cut inside, so it stands across none. */
static bool is_whole(const struct lk_tokenizer *t, const struct lk__tokenizer_added *a) {
    return lk__tokenizer_is_utf8(a->text, a->size) &&
           (a->size == 1 || lk__tokenizer_next_cut(t->traits.pattern, a->text, 0, a->size) == a->size);
}

bool lk__tokenizer_cuts_allowed(const struct lk_tokenizer *t) {
    for (int which = 0; which < 2; which++)
        for (size_t i = 0; i < t->sets[which].count && t->sets[which].plain; i++) {
            const struct lk__tokenizer_added *a = &t->sets[which].tokens[i];
            uint8_t kind = t->added[a->id];
            if (!(kind & LK__SPECIAL) && kind & (LK__LSTRIP | LK__RSTRIP)) return false;
            if (which == 1 && t->traits.nfc && !is_whole(t, a)) return false;
        }
    return true;
}

/* Tokens of the second set may be found in another form of the text than stands here: behind the space that comes in front
 * of a text and behind a token of the first set, and with spaces for U+2581. */
static bool is_other_near(const struct lk_tokenizer *t, const uint8_t *text, size_t at, size_t size) {
    const struct lk__tokenizer_added *found;
    size_t reach = t->sets[0].longest + t->sets[1].longest + 3;
    if (at <= reach) return true;
    size_t end = size - at < reach ? size : at + reach;
    if (lk__tokenizer_next_mark(text, at - reach, end) < end) return true;
    lk__tokenizer_added_find(&t->sets[0], text, at - reach, end, &found);
    return found != NULL;
}

/* A token of the set stands across text[at], or ends there where a space may come in front of what follows it. */
static bool is_in_token(const struct lk_tokenizer *t, int which, const uint8_t *text, size_t at, size_t size) {
    const struct lk__tokenizer_added_set *set = &t->sets[which];
    const struct lk__tokenizer_added *found;
    size_t reach = set->longest, from = at < reach ? 0 : at - reach, end = size - at < reach ? size : at + reach;
    if (!set->plain || (which == 1 && t->traits.nfc)) return false;
    if (which == 1 && t->traits.characters == LK__NORMALIZER && is_other_near(t, text, at, size)) return true;
    for (; (from = lk__tokenizer_added_find(set, text, from, end, &found)) < at; from++)
        if (from + found->size > at - (t->traits.prefix_space != LK__PREFIX_NONE)) return true;
    return false;
}

static bool is_cut(const struct lk_tokenizer *t, const uint8_t *text, size_t at, size_t size) {
    bool words_end = t->traits.characters ? lk__tokenizer_character_cut_at(t, text, at, size)
                                          : lk__tokenizer_cut_is_safe(t->traits.pattern, text, at, size);
    return words_end && (!t->traits.nfc || lk__tokenizer_nfc_stays(text, at, size)) && !is_in_token(t, 0, text, at, size) &&
           !is_in_token(t, 1, text, at, size);
}

size_t lk__tokenizer_plain_cut(const struct lk_tokenizer *t, const uint8_t *text, size_t from, size_t size) {
    return t->traits.characters ? lk__tokenizer_character_cut(t, text, from, size)
                                : lk__tokenizer_next_cut(t->traits.pattern, text, from, size);
}

size_t lk__tokenizer_cut(const struct lk_tokenizer *t, const uint8_t *text, size_t from, size_t size) {
    if (!lk__tokenizer_walk_needed(t, false)) return lk__tokenizer_next_cut(t->traits.pattern, text, from, size);
    for (size_t at = from + 1; t->cuttable && at < size; at++)
        if (is_cut(t, text, at, size)) return at;
    return size;
}
