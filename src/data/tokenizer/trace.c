/* Which bytes of the text each normalized byte comes from, as a list of spans. */
#include "data/tokenizer/internal.h"

int lk__tokenizer_trace_add(struct lk__tokenizer_trace *t, uint64_t normal_size, uint64_t text_size, bool same) {
    if (!t || (!normal_size && !text_size)) return 0;
    struct lk__tokenizer_span *last = t->count ? &t->spans[t->count - 1] : NULL;
    if (last && last->same && same) {
        last->normal_size += normal_size;
        last->text_size += text_size;
        return 0;
    }
    if (t->count == t->capacity) {
        size_t capacity = t->capacity ? t->capacity * 2 : 64;
        struct lk__tokenizer_span *grown = lk_realloc(t->spans, capacity * sizeof *grown);
        if (!grown) return LK_ENOMEM;
        t->spans = grown;
        t->capacity = capacity;
    }
    t->spans[t->count++] = (struct lk__tokenizer_span){normal_size, text_size, same};
    return 0;
}
