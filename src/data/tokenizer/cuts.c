/* Places at which a text may be cut so that its pieces, taken alone, give the tokens of the whole. README.md, "Cuts". */
#include "data/tokenizer/internal.h"

bool lk__tokenizer_walk_needed(const struct lk_tokenizer *t, bool special) {
    for (int i = 0; i < 2; i++)
        if (t->sets[i].count && (special || t->sets[i].plain)) return true;
    return t->traits.prefix_space || t->traits.nfc || t->traits.characters;
}

bool lk__tokenizer_cuts_allowed(const struct lk_tokenizer *t) {
    if (t->traits.characters) return false;
    for (int which = 0; which < 2; which++)
        for (size_t i = 0; i < t->sets[which].count; i++) {
            const struct lk__tokenizer_added *a = &t->sets[which].tokens[i];
            if (t->added[a->id] & (LK__LSTRIP | LK__RSTRIP)) return false;
            if (a->size > 1 && lk__tokenizer_next_cut(t->traits.pattern, a->text, 0, a->size) < a->size) return false;
        }
    return !t->traits.prefix_space;
}

size_t lk__tokenizer_plain_cut(const struct lk_tokenizer *t, const uint8_t *text, size_t from, size_t size) {
    return t->traits.characters ? lk__tokenizer_character_cut(t, text, from, size)
                                : lk__tokenizer_next_cut(t->traits.pattern, text, from, size);
}

size_t lk__tokenizer_cut(const struct lk_tokenizer *t, const uint8_t *text, size_t from, size_t size) {
    if (!lk__tokenizer_walk_needed(t, false)) return lk__tokenizer_next_cut(t->traits.pattern, text, from, size);
    for (size_t at = from + 1; t->cuttable && at < size; at++) /* what stands at ASCII alone is not normalized */
        if (text[at - 1] < 0x80 && text[at] < 0x80 && lk__tokenizer_cut_is_safe(t->traits.pattern, text, at, size))
            return at;
    return size;
}
