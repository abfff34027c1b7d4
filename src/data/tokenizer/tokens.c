/* A list of tokens that grows. */
#include "data/tokenizer/internal.h"

int lk__tokenizer_tokens_reserve(struct lk_tokens *t, size_t extra) {
    if (extra <= t->capacity - t->count) return 0;
    if (extra > SIZE_MAX / sizeof *t->ids / 4 - t->count) return LK_ENOMEM;
    size_t want = t->count + extra, capacity = t->capacity + t->capacity / 2;
    if (capacity < want) capacity = want;
    if (capacity < 64) capacity = 64;
    uint32_t *ids = lk_realloc(t->ids, capacity * sizeof *ids);
    if (!ids) return LK_ENOMEM;
    t->ids = ids;
    t->capacity = capacity;
    return 0;
}

void lk_tokens_release(struct lk_tokens *t) {
    lk_free(t->ids);
    *t = (struct lk_tokens){0};
}
