/* Text out: whole characters, and nothing that may belong to a stop text. */
#include "text_out.h"

#include <string.h>

static size_t find(const struct lk_buf *held, const char *what, size_t n) {
    const char *at = n <= held->size ? memmem(held->data, held->size, what, n) : NULL;
    return at ? (size_t)(at - held->data) : SIZE_MAX;
}

/* Bytes at the end that may be the beginning of a stop text. */
static size_t maybe_stop(const struct lk__serve_text *t) {
    size_t most = 0;
    for (size_t s = 0; s < t->stop_count; s++) {
        size_t n = strlen(t->stops[s]);
        for (size_t k = n < t->held.size + 1 ? n : t->held.size + 1; k-- > 1;)
            if (memcmp(t->held.data + t->held.size - k, t->stops[s], k) == 0) {
                if (k > most) most = k;
                break;
            }
    }
    return most;
}

static int give(struct lk__serve_text *t, size_t size) {
    int ended = size && t->give ? t->give(t->arg, t->held.data, size) : 0;
    if (size) memmove(t->held.data, t->held.data + size, t->held.size - size);
    t->held.size -= size;
    return ended;
}

enum lk__serve_text_end lk__serve_text_take(struct lk__serve_text *t, struct lk_bytes b) {
    if (lk_buf_append(&t->held, b.data, b.size)) return LK__TEXT_NO_MEMORY;
    size_t stop = SIZE_MAX;
    for (size_t s = 0; s < t->stop_count; s++) {
        size_t at = find(&t->held, t->stops[s], strlen(t->stops[s]));
        if (at < stop) stop = at;
    }
    if (stop != SIZE_MAX) {
        give(t, stop);
        t->held.size = 0;
        return LK__TEXT_STOPPED;
    }
    return give(t, lk_utf8_complete(t->held.data, t->held.size - maybe_stop(t))) ? LK__TEXT_CALLER : LK__TEXT_GOES_ON;
}

void lk__serve_text_finish(struct lk__serve_text *t) {
    give(t, t->held.size);
}

void lk__serve_text_release(struct lk__serve_text *t) {
    lk_buf_release(&t->held);
}
