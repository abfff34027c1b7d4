/* The walk from a text to its plain stretches. It takes the added tokens out, normalizes what stands between them, takes
 * out the tokens that stand in normalized text, and gives the rest to the caller. README.md, "Added tokens". */
#include "data/tokenizer/internal.h"
#include <string.h>

static int no_memory(struct lk_err *err) {
    return lk_fail(err, LK_ENOMEM, "encoding: out of memory");
}

typedef int stretch_fn(const struct lk__tokenizer_walk *, const uint8_t *text, size_t size, bool traced,
                       struct lk_err *err);

static int put_added(const struct lk__tokenizer_walk *w, uint32_t id) {
    if (lk__tokenizer_tokens_reserve(w->out, 1)) return LK_ENOMEM;
    w->out->ids[w->out->count++] = id;
    return 0;
}

/* Takes the tokens of a set out of text[0..size) and gives what stands between them to `stretch`. */
static int walk_set(const struct lk__tokenizer_walk *w, int which, const uint8_t *text, size_t size, bool traced,
                    stretch_fn *stretch, struct lk_err *err) {
    const struct lk__tokenizer_added_set *set = &w->t->sets[which];
    const struct lk__tokenizer_added *found;
    size_t done = 0;
    if (!set->count || (!w->special && !set->plain)) return stretch(w, text, size, traced, err);
    for (size_t at = lk__tokenizer_added_find(set, text, 0, size, &found); found;) {
        size_t begin = at, end = at + found->size, next = end;
        uint8_t kind = w->t->added[found->id];
        uint32_t id = found->id;
        at = lk__tokenizer_added_find(set, text, next, size, &found);
        if (!w->special && kind & LK__SPECIAL) continue; /* plain text, and what it covers is no token either */
        if (kind & LK__LSTRIP) begin = lk__tokenizer_spaces_before(text, begin, done);
        if (begin < done) begin = done; /* a token of white space that the one in front of it has taken */
        if (kind & LK__RSTRIP) end = lk__tokenizer_spaces_behind(text, end, size);
        if (end < done) end = done;
        int code = begin > done ? stretch(w, text + done, begin - done, traced, err) : 0;
        if (!code && (put_added(w, id) || (traced && lk__tokenizer_trace_add(w->trace, lk__tokenizer_normal_size(w->t, id),
                                                                             end - begin, false))))
            code = no_memory(err);
        if (code) return code;
        done = end;
    }
    return done < size ? stretch(w, text + done, size - done, traced, err) : 0;
}

static bool wants_space(const struct lk__tokenizer_walk *w, const uint8_t *text, size_t size) {
    enum lk__tokenizer_prefix prefix = w->t->traits.prefix_space;
    bool mark = w->t->traits.characters && size >= 3 && !memcmp(text, LK__MARK, 3);
    if (w->later && text == w->text) return false;
    return (prefix == LK__PREFIX_UNLESS || (prefix == LK__PREFIX_FIRST && text == w->text)) && text[0] != ' ' && !mark;
}

static int plain_stretch(const struct lk__tokenizer_walk *w, const uint8_t *text, size_t size, bool traced,
                         struct lk_err *err) {
    if (!size) return 0;
    bool space = wants_space(w, text, size);
    if (space || (w->t->traits.characters == LK__METASPACE && lk__tokenizer_next_mark(text, 0, size) < size)) {
        /* `text` does not lie in `normal`: a tokenizer that normalizes into that puts no space in front of stretches. */
        w->normal->size = 0;
        if (lk__tokenizer_spaces(text, size, space, w->t->traits.characters, w->normal, traced ? w->trace : NULL))
            return no_memory(err);
        text = (const uint8_t *)w->normal->data;
        size = w->normal->size;
    } else if (traced && lk__tokenizer_trace_add(w->trace, size, size, true))
        return no_memory(err);
    return w->plain(w->arg, text, size, w->out, err);
}

static int normal_stretch(const struct lk__tokenizer_walk *w, const uint8_t *text, size_t size, bool traced,
                          struct lk_err *err) {
    bool each = w->t->traits.prefix_space == LK__PREFIX_EACH && !(w->later && text == w->text);
    if (w->t->traits.characters == LK__NORMALIZER ? !each && lk__tokenizer_next_mark(text, 0, size) == size
                                                  : !w->t->traits.nfc || lk__tokenizer_nfc_is_normal(text, size))
        return walk_set(w, 1, text, size, traced, plain_stretch, err);
    w->normal->size = 0;
    if (w->t->traits.nfc ? lk__tokenizer_nfc(text, size, w->normal, w->trace)
                         : lk__tokenizer_spaces(text, size, each, true, w->normal, w->trace))
        return no_memory(err);
    return walk_set(w, 1, (const uint8_t *)w->normal->data, w->normal->size, false, plain_stretch, err);
}

int lk__tokenizer_walk_text(const struct lk__tokenizer_walk *w, const uint8_t *text, size_t size, struct lk_err *err) {
    struct lk__tokenizer_walk whole = *w;
    whole.text = text;
    return size ? walk_set(&whole, 0, text, size, true, normal_stretch, err) : 0;
}
