/* Merging a word of few runs of equal bytes (rules, indents, 100 MB of one letter) on its runs instead of its bytes. */
#include "data/tokenizer/internal.h"
#include <string.h>

#define RUNS_READ 64  /* of the word */
#define RUNS_MOST 512 /* while it is merged */
#define EACH      16  /* bytes to a run, at least, on average: otherwise the other ways are faster */

struct run {
    uint32_t id;
    size_t count;
};
struct runs {
    struct run list[RUNS_MOST];
    size_t count;
};

/* Adds to the end; false: no room. */
static bool push(struct runs *r, uint32_t id, size_t count) {
    if (!count) return true;
    if (r->count && r->list[r->count - 1].id == id) {
        r->list[r->count - 1].count += count;
        return true;
    }
    if (r->count == RUNS_MOST) return false;
    r->list[r->count++] = (struct run){id, count};
    return true;
}

static bool read_runs(const struct lk_tokenizer *t, const uint8_t *word, size_t size, struct runs *r) {
    size_t most = size / EACH < RUNS_READ ? size / EACH : RUNS_READ;
    r->count = 0;
    for (size_t at = 0, end; at < size; at = end) {
        uint64_t same = word[at] * 0x0101010101010101u, x;
        if (r->count == most) return false;
        for (end = at + 1; size - end >= 8; end += 8) {
            memcpy(&x, word + end, 8);
            if (x != same) break;
        }
        while (end < size && word[end] == word[at]) end++;
        push(r, t->byte_id[word[at]], end - at);
    }
    return true;
}

static uint32_t lowest(const struct lk_tokenizer *t, const struct runs *r) {
    uint32_t low = LK__NO_ID;
    for (size_t i = 0; i < r->count; i++) {
        const struct run *a = &r->list[i];
        uint32_t inside = a->count > 1 ? lk__tokenizer_pair_rank(t, a->id, a->id) : LK__NO_ID;
        uint32_t edge = i + 1 < r->count ? lk__tokenizer_pair_rank(t, a->id, a[1].id) : LK__NO_ID;
        low = inside < low ? inside : low;
        low = edge < low ? edge : low;
    }
    return low;
}

/* Every pair of one merge, from the left. */
static bool merge_all(const struct lk__tokenizer_merge *m, struct runs *r, struct runs *out) {
    out->count = 0;
    for (size_t i = 0; i < r->count; i++) {
        struct run a = r->list[i];
        if (m->left == m->right) {
            bool pairs = a.id == m->left;
            if (!push(out, pairs ? m->id : a.id, pairs ? a.count / 2 : a.count)) return false;
            if (pairs && !push(out, a.id, a.count % 2)) return false;
            continue;
        }
        bool edge = i + 1 < r->count && a.id == m->left && r->list[i + 1].id == m->right;
        if (!push(out, a.id, a.count - edge)) return false;
        if (!edge) continue;
        if (!push(out, m->id, 1)) return false;
        r->list[i + 1].count--;
    }
    return true;
}

size_t lk__tokenizer_merge_runs(const struct lk_tokenizer *t, const uint8_t *word, size_t size, uint32_t *ids) {
    struct runs pair[2], *r = &pair[0], *other = &pair[1];
    if (!t->ordered || !read_runs(t, word, size, r)) return 0;
    for (uint32_t rank; (rank = lowest(t, r)) != LK__NO_ID;) {
        if (!merge_all(&t->merges[rank], r, other)) return 0;
        struct runs *swap = r;
        r = other;
        other = swap;
    }
    size_t n = 0;
    for (size_t i = 0; i < r->count; i++)
        for (size_t k = 0; k < r->list[i].count; k++) ids[n++] = r->list[i].id;
    return n;
}
