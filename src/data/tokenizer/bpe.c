/* Merging one word: always the pair of lowest rank, leftmost first. Three ways to the same result, by length; README.md
 * says why they agree. */
#include "data/tokenizer/internal.h"
#include <string.h>

static void *scratch_take(struct lk__tokenizer_scratch *s, size_t size_bytes) {
    if (size_bytes > s->size_bytes) {
        lk_free(s->memory);
        s->size_bytes = 0;
        s->memory = lk_alloc(size_bytes);
        if (!s->memory) return NULL;
        s->size_bytes = size_bytes;
    }
    return s->memory;
}

/* --- short words: look for the lowest rank each time ----------------------------------------------------- */

/* The ids with which a word of characters begins. */
static size_t unit_tokens(const struct lk_tokenizer *t, const uint8_t *word, size_t size, uint32_t *ids) {
    size_t n = 0;
    for (size_t at = 0, length; at < size; at += length) {
        uint32_t unit[4];
        size_t count = lk__tokenizer_unit_ids(t, word + at, size - at, unit, &length);
        for (size_t i = 0; i < count; i++) ids[n++] = unit[i];
    }
    return n;
}

size_t lk__tokenizer_merge_short(const struct lk_tokenizer *t, const uint8_t *word, size_t size, uint32_t *ids) {
    uint32_t rank[LK__SHORT_WORD];
    size_t n = size;
    if (t->traits.characters) {
        n = unit_tokens(t, word, size, ids);
        for (size_t i = 0; i + 1 < n; i++) rank[i] = lk__tokenizer_pair_rank(t, ids[i], ids[i + 1]);
    } else {
        for (size_t i = 0; i < n; i++) ids[i] = t->byte_id[word[i]];
        for (size_t i = 0; i + 1 < n; i++) rank[i] = t->byte_ranks[word[i] << 8 | word[i + 1]];
    }
    while (n > 1) {
        uint64_t low = UINT64_MAX; /* rank, then place */
        for (size_t i = 0; i + 1 < n; i++) {
            uint64_t here = (uint64_t)rank[i] << 32 | i;
            low = here < low ? here : low;
        }
        if (low >> 32 == LK__NO_ID) break;
        size_t best = (uint32_t)low;
        ids[best] = t->merges[low >> 32].id;
        n--;
        for (size_t i = best + 1; i < n; i++) ids[i] = ids[i + 1], rank[i - 1] = rank[i];
        if (best + 1 < n) rank[best] = lk__tokenizer_pair_rank(t, ids[best], ids[best + 1]);
        if (best > 0) rank[best - 1] = lk__tokenizer_pair_rank(t, ids[best - 1], ids[best]);
    }
    return n;
}

/* --- positions of a longer word: ids[i] is alive while its bit is set ------------------------------------ */

struct line {
    uint32_t *ids;
    uint64_t *alive;
    size_t size;
};
#define NONE ((size_t)-1)

static size_t next_of(const struct line *l, size_t i) {
    size_t word = ++i >> 6;
    if (i >= l->size) return NONE;
    uint64_t bits = l->alive[word] >> (i & 63) << (i & 63);
    size_t last = (l->size - 1) >> 6;
    while (!bits) {
        if (word == last) return NONE;
        bits = l->alive[++word];
    }
    return word * 64 + (size_t)__builtin_ctzll(bits);
}

static size_t previous_of(const struct line *l, size_t i) {
    if (i == 0) return NONE; /* position 0 is always alive */
    size_t word = --i >> 6;
    uint64_t bits = l->alive[word] << (63 - (i & 63)) >> (63 - (i & 63));
    while (!bits) bits = l->alive[--word];
    return word * 64 + 63 - (size_t)__builtin_clzll(bits);
}

static bool is_alive(const struct line *l, size_t i) {
    return l->alive[i >> 6] >> (i & 63) & 1;
}
static void remove_at(struct line *l, size_t i) {
    l->alive[i >> 6] &= ~((uint64_t)1 << (i & 63));
}

static void line_begin(struct line *l, const struct lk_tokenizer *t, const uint8_t *word, size_t size, uint32_t *ids,
                       uint64_t *alive) {
    if (t->traits.characters)
        size = unit_tokens(t, word, size, ids);
    else
        for (size_t i = 0; i < size; i++) ids[i] = t->byte_id[word[i]];
    *l = (struct line){ids, alive, size};
    memset(alive, 0xFF, (size + 63) / 64 * 8);
    if (size & 63) alive[size >> 6] = ((uint64_t)1 << (size & 63)) - 1;
}

static size_t line_end(struct line *l) {
    size_t n = 0;
    for (size_t i = 0; i != NONE; i = next_of(l, i)) l->ids[n++] = l->ids[i];
    return n;
}

/* --- any order of merges: a heap of (rank, position) ----------------------------------------------------- */

struct heap {
    uint64_t *entries; /* rank << 32 | position */
    size_t count;
};

static void heap_down(struct heap *h, size_t i) {
    uint64_t moving = h->entries[i];
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= h->count) break;
        if (child + 1 < h->count && h->entries[child + 1] < h->entries[child]) child++;
        if (h->entries[child] >= moving) break;
        h->entries[i] = h->entries[child];
        i = child;
    }
    h->entries[i] = moving;
}

static void heap_push(struct heap *h, uint64_t entry) {
    size_t i = h->count++;
    while (i > 0 && h->entries[(i - 1) / 2] > entry) {
        h->entries[i] = h->entries[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    h->entries[i] = entry;
}

static void heap_offer(struct heap *h, const struct lk_tokenizer *t, const struct line *l, size_t left, size_t right) {
    uint32_t rank = lk__tokenizer_pair_rank(t, l->ids[left], l->ids[right]);
    if (rank != LK__NO_ID) heap_push(h, (uint64_t)rank << 32 | (uint32_t)left);
}

/* A merge removes one entry and adds two at most, and there are at most size - 1 merges: 2 * size entries are enough. */
int64_t lk__tokenizer_merge_heap(const struct lk_tokenizer *t, struct lk__tokenizer_scratch *s, const uint8_t *word,
                                 size_t size, uint32_t *ids) {
    size_t bits_bytes = (size + 63) / 64 * 8;
    char *memory = scratch_take(s, bits_bytes + 2 * size * sizeof(uint64_t));
    if (!memory) return LK_ENOMEM;
    struct line l;
    line_begin(&l, t, word, size, ids, (uint64_t *)(void *)memory);
    struct heap h = {(uint64_t *)(void *)(memory + bits_bytes), 0};
    for (size_t i = 0; i + 1 < l.size; i++) {
        uint32_t rank = t->traits.characters ? lk__tokenizer_pair_rank(t, ids[i], ids[i + 1])
                                             : t->byte_ranks[word[i] << 8 | word[i + 1]];
        if (rank != LK__NO_ID) h.entries[h.count++] = (uint64_t)rank << 32 | (uint32_t)i;
    }
    for (size_t i = h.count / 2; i-- > 0;) heap_down(&h, i);
    while (h.count) {
        uint32_t rank = (uint32_t)(h.entries[0] >> 32);
        size_t at = (uint32_t)h.entries[0];
        h.entries[0] = h.entries[--h.count];
        if (h.count) heap_down(&h, 0);
        if (!is_alive(&l, at)) continue;
        size_t right = next_of(&l, at);
        if (right == NONE) continue;
        const struct lk__tokenizer_merge *m = &t->merges[rank];
        if (ids[at] != m->left || ids[right] != m->right) continue; /* an old entry */
        ids[at] = m->id;
        remove_at(&l, right);
        size_t before = previous_of(&l, at), after = next_of(&l, at);
        if (before != NONE) heap_offer(&h, t, &l, before, at);
        if (after != NONE) heap_offer(&h, t, &l, at, after);
    }
    return (int64_t)line_end(&l);
}

/* --- ordered merges: one list of positions a rank, linear in the word ------------------------------------ */

struct buckets {
    const struct lk_tokenizer *t;
    uint32_t *head;          /* a list a rank */
    uint32_t *next, *before; /* links by position */
};

static void bucket_add(struct buckets *b, uint32_t rank, size_t at) {
    uint32_t first = b->head[rank];
    b->next[at] = first;
    b->before[at] = LK__NO_ID;
    if (first != LK__NO_ID) b->before[first] = (uint32_t)at;
    b->head[rank] = (uint32_t)at;
}

/* Takes position `at` off the list of its present pair, if that pair merges. */
static void bucket_drop(struct buckets *b, const struct line *l, size_t at, size_t right) {
    uint32_t rank = lk__tokenizer_pair_rank(b->t, l->ids[at], l->ids[right]);
    if (rank == LK__NO_ID) return;
    uint32_t next = b->next[at], before = b->before[at];
    if (next != LK__NO_ID) b->before[next] = before;
    if (before != LK__NO_ID)
        b->next[before] = next;
    else
        b->head[rank] = next;
}

static void bucket_offer(struct buckets *b, const struct line *l, size_t at, size_t right) {
    uint32_t rank = lk__tokenizer_pair_rank(b->t, l->ids[at], l->ids[right]);
    if (rank != LK__NO_ID) bucket_add(b, rank, at);
}

/* Merges the pair at `at`, keeping the lists of its neighbours true. */
static void bucket_merge(struct buckets *b, struct line *l, size_t at, uint32_t id) {
    size_t right = next_of(l, at), before = previous_of(l, at), after = next_of(l, right);
    bucket_drop(b, l, at, right);
    if (before != NONE) bucket_drop(b, l, before, at);
    if (after != NONE) bucket_drop(b, l, right, after);
    l->ids[at] = id;
    remove_at(l, right);
    if (before != NONE) bucket_offer(b, l, before, at);
    if (after != NONE) bucket_offer(b, l, at, after);
}

/* The leftmost position of the run of `id` that `at` lies in. */
static size_t run_begin(const struct line *l, size_t at, uint32_t id) {
    for (;;) {
        size_t before = previous_of(l, at);
        if (before == NONE || l->ids[before] != id) return at;
        at = before;
    }
}

int64_t lk__tokenizer_merge_buckets(const struct lk_tokenizer *t, struct lk__tokenizer_scratch *s, const uint8_t *word,
                                    size_t size, uint32_t *ids) {
    size_t bits_bytes = (size + 63) / 64 * 8, head_bytes = (size_t)t->merge_count * 4;
    char *memory = scratch_take(s, bits_bytes + head_bytes + size * 8);
    if (!memory) return LK_ENOMEM;
    struct line l;
    line_begin(&l, t, word, size, ids, (uint64_t *)(void *)memory);
    struct buckets b = {t, (uint32_t *)(void *)(memory + bits_bytes), NULL, NULL};
    b.next = b.head + t->merge_count;
    b.before = b.next + size;
    memset(b.head, 0xFF, head_bytes);
    for (size_t i = l.size - 1; i-- > 0;) bucket_offer(&b, &l, i, i + 1);
    for (uint32_t rank = 0; rank < t->merge_count; rank++) {
        const struct lk__tokenizer_merge *m = &t->merges[rank];
        while (b.head[rank] != LK__NO_ID) {
            size_t at = b.head[rank];
            if (m->left != m->right) {
                bucket_merge(&b, &l, at, m->id);
                continue;
            }
            /* Pairs of one id overlap: from the left end of the run, two by two. */
            at = run_begin(&l, at, m->left);
            while (at != NONE && l.ids[at] == m->left) {
                size_t right = next_of(&l, at);
                if (right == NONE || l.ids[right] != m->left) break;
                bucket_merge(&b, &l, at, m->id);
                at = next_of(&l, at);
            }
        }
    }
    return (int64_t)line_end(&l);
}

#define BUCKET_WORD 16384 /* from here the walk over all ranks costs less than a heap */

int64_t lk__tokenizer_bpe(const struct lk_tokenizer *t, struct lk__tokenizer_scratch *s, const uint8_t *word, size_t size,
                          uint32_t *ids) {
    if (size <= LK__SHORT_WORD) return (int64_t)lk__tokenizer_merge_short(t, word, size, ids);
    size_t n = t->traits.characters ? 0 : lk__tokenizer_merge_runs(t, word, size, ids);
    if (n) return (int64_t)n;
    if (size < BUCKET_WORD || !t->ordered) return lk__tokenizer_merge_heap(t, s, word, size, ids);
    return lk__tokenizer_merge_buckets(t, s, word, size, ids);
}

int64_t lk__tokenizer_word_ids(const struct lk_tokenizer *t, struct lk__tokenizer_scratch *s, const uint8_t *word,
                               size_t size, uint32_t *ids) {
    if (t->traits.whole_words) {
        ids[0] = lk__tokenizer_token_of(t, word, size);
        if (ids[0] != LK__NO_ID) return 1;
    }
    return lk__tokenizer_bpe(t, s, word, size, ids);
}
