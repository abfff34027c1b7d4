/* Learning merges: counts of pairs kept up to date, a heap whose entries are refreshed when they surface. The order of
 * events and the stale counts are those of Hugging Face's BpeTrainer, so that even its odd cases come out the same;
 * README.md, "Training". */
#include "data/tokenizer/internal.h"
#include "data/tokenizer/words.h"
#include <stdlib.h>
#include <string.h>

/* A pair seen so far; its count is exact until it has been merged and stays where it was then. */
struct pair {
    uint64_t key; /* left << 32 | right */
    int64_t count;
    uint32_t fresh; /* words with it that came up since its last heap entry */
    uint32_t last;  /* index + 1 of the word counted last in `fresh` */
};

/* A heap entry: a pair with the words it came up in. */
struct entry {
    int64_t count;
    uint64_t key;
    uint64_t sequence; /* equal entries leave in the order they came */
    uint32_t pair, word_count;
    const uint32_t *words;
};

struct change { /* a pair that came up in a word */
    uint32_t pair, word;
};

struct block {
    struct block *next;
};

struct trainer {
    struct lk__tokenizer_words words;
    uint64_t *begin;  /* of each word's symbols */
    uint32_t *length; /* symbols left in each word */
    uint32_t *symbols;
    struct pair *pairs;
    size_t pair_count, pair_capacity;
    uint32_t *slots; /* pair index + 1 */
    size_t slot_count;
    struct entry *heap;
    size_t heap_count, heap_capacity;
    uint64_t sequence;
    struct change *changes;
    size_t change_count, change_capacity;
    uint32_t *touched; /* pairs with fresh words in this step */
    size_t touched_count, touched_capacity;
    struct block *blocks;
    struct lk_buf bytes; /* of all tokens */
    uint64_t *offset;
    uint32_t tokens, limit;
    enum lk__tokenizer_pattern pattern;
    uint32_t *token_slots; /* id + 1 by hash of its bytes */
    size_t token_slot_count;
    struct lk__tokenizer_merge *merges;
    size_t merge_count, merge_capacity;
};

/* Makes room for one more element in a growing array. */
static int room(void *array, size_t count, size_t *capacity, size_t element) {
    if (count < *capacity) return 0;
    size_t grown = *capacity ? *capacity * 2 : 1024;
    void *old, *fresh;
    memcpy(&old, array, sizeof old);
    fresh = lk_realloc(old, grown * element);
    if (!fresh) return LK_ENOMEM;
    memcpy(array, &fresh, sizeof fresh);
    *capacity = grown;
    return 0;
}

static void trainer_release(struct trainer *t) {
    lk__tokenizer_words_release(&t->words);
    lk_free(t->begin);
    lk_free(t->length);
    lk_free(t->symbols);
    lk_free(t->pairs);
    lk_free(t->slots);
    lk_free(t->heap);
    lk_free(t->changes);
    lk_free(t->touched);
    while (t->blocks) {
        struct block *next = t->blocks->next;
        lk_free(t->blocks);
        t->blocks = next;
    }
    lk_buf_release(&t->bytes);
    lk_free(t->offset);
    lk_free(t->token_slots);
    lk_free(t->merges);
}

/* --- pairs ----------------------------------------------------------------------------------------------- */

static int grow_pair_slots(struct trainer *t) {
    size_t slots = t->slot_count ? t->slot_count * 2 : 4096;
    uint32_t *fresh = lk_calloc(slots, sizeof *fresh);
    if (!fresh) return LK_ENOMEM;
    for (size_t i = 0; i < t->pair_count; i++) {
        size_t at = lk__tokenizer_pair_hash(t->pairs[i].key) & (slots - 1);
        while (fresh[at]) at = (at + 1) & (slots - 1);
        fresh[at] = (uint32_t)i + 1;
    }
    lk_free(t->slots);
    t->slots = fresh;
    t->slot_count = slots;
    return 0;
}

/* Index of the pair, made with count 0 if it is new; -1: out of memory. */
static int64_t pair_index(struct trainer *t, uint32_t left, uint32_t right) {
    if (t->pair_count * 2 >= t->slot_count && grow_pair_slots(t)) return -1;
    uint64_t key = (uint64_t)left << 32 | right;
    size_t at = lk__tokenizer_pair_hash(key) & (t->slot_count - 1);
    for (; t->slots[at]; at = (at + 1) & (t->slot_count - 1))
        if (t->pairs[t->slots[at] - 1].key == key) return t->slots[at] - 1;
    if (t->pair_count >= UINT32_MAX - 1) return -1;
    if (room(&t->pairs, t->pair_count, &t->pair_capacity, sizeof *t->pairs)) return -1;
    t->pairs[t->pair_count] = (struct pair){key, 0, 0, 0};
    t->slots[at] = (uint32_t)++t->pair_count;
    return (int64_t)t->pair_count - 1;
}

/* Adds `times` x the word's count to a pair; times > 0: the pair came up in the word. */
static int change_pair(struct trainer *t, uint32_t left, uint32_t right, uint32_t word, int times) {
    int64_t index = pair_index(t, left, right);
    if (index < 0) return LK_ENOMEM;
    struct pair *p = &t->pairs[index];
    p->count += times * (int64_t)t->words.words[word].count;
    if (times < 0 || p->last == word + 1) return 0;
    if (!p->fresh) {
        if (room(&t->touched, t->touched_count, &t->touched_capacity, sizeof *t->touched)) return LK_ENOMEM;
        t->touched[t->touched_count++] = (uint32_t)index;
    }
    p->fresh++;
    p->last = word + 1;
    if (room(&t->changes, t->change_count, &t->change_capacity, sizeof *t->changes)) return LK_ENOMEM;
    t->changes[t->change_count++] = (struct change){(uint32_t)index, word};
    return 0;
}

/* --- heap: highest count, then smallest pair ------------------------------------------------------------- */

static bool before(const struct entry *a, const struct entry *b) {
    if (a->count != b->count) return a->count > b->count;
    if (a->key != b->key) return a->key < b->key;
    return a->sequence < b->sequence;
}

static void heap_down(struct trainer *t) {
    struct entry moving = t->heap[0];
    size_t i = 0;
    for (;;) {
        size_t child = 4 * i + 1, best = child;
        if (child >= t->heap_count) break;
        for (size_t c = child + 1; c < child + 4 && c < t->heap_count; c++)
            if (before(&t->heap[c], &t->heap[best])) best = c;
        if (!before(&t->heap[best], &moving)) break;
        t->heap[i] = t->heap[best];
        i = best;
    }
    t->heap[i] = moving;
}

static int heap_push(struct trainer *t, struct entry e) {
    if (room(&t->heap, t->heap_count, &t->heap_capacity, sizeof *t->heap)) return LK_ENOMEM;
    size_t i = t->heap_count++;
    while (i > 0 && before(&e, &t->heap[(i - 1) / 4])) {
        t->heap[i] = t->heap[(i - 1) / 4];
        i = (i - 1) / 4;
    }
    t->heap[i] = e;
    return 0;
}

/* Ends a step: every pair that came up becomes a heap entry with its words, if its count is positive. */
static int push_touched(struct trainer *t) {
    if (t->change_count > UINT32_MAX) return LK_ENOMEM; /* places are 32 bits; so many changes take over 50 GB */
    struct block *b = lk_alloc(sizeof *b + t->change_count * sizeof(uint32_t) + 1);
    if (!b) return LK_ENOMEM;
    b->next = t->blocks;
    t->blocks = b;
    uint32_t *next = (uint32_t *)(void *)(b + 1);
    for (size_t i = 0; i < t->touched_count; i++) { /* `last` becomes the place where the next word goes */
        struct pair *p = &t->pairs[t->touched[i]];
        struct entry e = {p->count, p->key, t->sequence++, t->touched[i], p->fresh, next};
        p->last = (uint32_t)(next - (uint32_t *)(void *)(b + 1));
        next += p->fresh;
        if (p->count > 0 && heap_push(t, e)) return LK_ENOMEM;
    }
    for (size_t i = 0; i < t->change_count; i++) {
        struct pair *p = &t->pairs[t->changes[i].pair];
        ((uint32_t *)(void *)(b + 1))[p->last++] = t->changes[i].word;
    }
    for (size_t i = 0; i < t->touched_count; i++) t->pairs[t->touched[i]].fresh = t->pairs[t->touched[i]].last = 0;
    t->touched_count = t->change_count = 0;
    return 0;
}

/* --- words ----------------------------------------------------------------------------------------------- */

static int split_words(struct trainer *t, const uint32_t byte_id[256], struct lk_err *err) {
    size_t n = t->words.count;
    if (n >= UINT32_MAX - 1) return lk_fail(err, LK_EINVAL, "%zu different words are too many to learn from", n);
    t->begin = lk_alloc((n + 1) * sizeof *t->begin);
    t->length = lk_alloc((n + 1) * sizeof *t->length);
    t->symbols = lk_alloc((t->words.bytes.size + 1) * sizeof *t->symbols);
    if (!t->begin || !t->length || !t->symbols) return lk_fail(err, LK_ENOMEM, "learning merges: out of memory");
    for (size_t i = 0; i < n; i++) {
        const struct lk__tokenizer_word *w = &t->words.words[i];
        if (w->size > LK__WORD_MAX) return lk_fail(err, LK_EINVAL, "one word of %llu bytes", (unsigned long long)w->size);
        t->begin[i] = w->offset;
        t->length[i] = (uint32_t)w->size;
    }
    for (size_t i = 0; i < t->words.bytes.size; i++) t->symbols[i] = byte_id[(uint8_t)t->words.bytes.data[i]];
    lk_buf_release(&t->words.bytes);
    return 0;
}

static int count_pairs(struct trainer *t) {
    for (size_t w = 0; w < t->words.count; w++) {
        const uint32_t *s = t->symbols + t->begin[w];
        for (uint32_t i = 0; i + 1 < t->length[w]; i++)
            if (change_pair(t, s[i], s[i + 1], (uint32_t)w, 1)) return LK_ENOMEM;
    }
    return push_touched(t);
}

/* Replaces (left, right) by id in one word, left to right, and records what that does to the pairs around. */
static int merge_word(struct trainer *t, uint32_t word, uint32_t left, uint32_t right, uint32_t id) {
    uint32_t *s = t->symbols + t->begin[word], n = t->length[word], to = 0;
    for (uint32_t from = 0; from < n; from++) {
        if (s[from] != left || from + 1 >= n || s[from + 1] != right) {
            s[to++] = s[from];
            continue;
        }
        if (to > 0 && (change_pair(t, s[to - 1], left, word, -1) || change_pair(t, s[to - 1], id, word, 1)))
            return LK_ENOMEM;
        s[to++] = id;
        from++;
        if (from + 1 < n && (change_pair(t, right, s[from + 1], word, -1) || change_pair(t, id, s[from + 1], word, 1)))
            return LK_ENOMEM;
    }
    t->length[word] = to;
    return 0;
}

/* --- tokens ---------------------------------------------------------------------------------------------- */

static uint64_t token_hash(const char *p, size_t size) {
    uint64_t h = 0xCBF29CE484222325u;
    for (size_t i = 0; i < size; i++) h = (h ^ (uint8_t)p[i]) * 0x100000001B3u;
    return h ^ h >> 32;
}

/* The id of a token, made if it is new; a text that two different pairs make has one id. */
static int token_id(struct trainer *t, const char *text, size_t size, uint32_t *id) {
    size_t at = token_hash(text, size) & (t->token_slot_count - 1);
    for (; t->token_slots[at]; at = (at + 1) & (t->token_slot_count - 1)) {
        *id = t->token_slots[at] - 1;
        if (t->offset[*id + 1] - t->offset[*id] == size && !memcmp(t->bytes.data + t->offset[*id], text, size)) return 0;
    }
    if (lk_buf_append(&t->bytes, text, size)) return LK_ENOMEM;
    *id = t->tokens++;
    t->offset[t->tokens] = t->bytes.size;
    t->token_slots[at] = *id + 1;
    return 0;
}

static int first_tokens(struct trainer *t, uint32_t vocab, uint32_t byte_id[256]) {
    t->limit = vocab - 1;
    t->token_slot_count = 1024;
    while (t->token_slot_count < (size_t)vocab * 2) t->token_slot_count *= 2;
    t->token_slots = lk_calloc(t->token_slot_count, sizeof *t->token_slots);
    t->offset = lk_calloc((size_t)vocab + 1, sizeof *t->offset);
    if (!t->token_slots || !t->offset) return LK_ENOMEM;
    uint8_t order[256];
    lk__tokenizer_byte_order(order);
    for (int i = 0; i < 256; i++) {
        char byte = (char)order[i];
        if (token_id(t, &byte, 1, &byte_id[order[i]])) return LK_ENOMEM;
    }
    return 0;
}

static int apply_merge(struct trainer *t, const struct entry *e) {
    uint32_t left = (uint32_t)(e->key >> 32), right = (uint32_t)e->key, id;
    size_t a = (size_t)(t->offset[left + 1] - t->offset[left]), b = (size_t)(t->offset[right + 1] - t->offset[right]);
    char *text = lk_alloc(a + b);
    if (!text) return LK_ENOMEM;
    memcpy(text, t->bytes.data + t->offset[left], a);
    memcpy(text + a, t->bytes.data + t->offset[right], b);
    int code = token_id(t, text, a + b, &id);
    lk_free(text);
    if (code || room(&t->merges, t->merge_count, &t->merge_capacity, sizeof *t->merges)) return LK_ENOMEM;
    t->merges[t->merge_count++] = (struct lk__tokenizer_merge){left, right, id};
    for (uint32_t i = 0; i < e->word_count; i++)
        if (merge_word(t, e->words[i], left, right, id)) return LK_ENOMEM;
    return push_touched(t);
}

static int learn(struct trainer *t, int (*progress)(void *, uint32_t, uint32_t), void *arg, struct lk_err *err) {
    uint32_t total = t->limit - 256, told = UINT32_MAX;
    while (t->tokens < t->limit) {
        if (progress && t->tokens != told && t->tokens % 16 == 0) {
            told = t->tokens;
            if (progress(arg, t->tokens - 256, total))
                return lk_fail(err, LK_ESTOPPED, "learning merges: stopped on request");
        }
        if (!t->heap_count) break;
        struct entry top = t->heap[0];
        int64_t count = t->pairs[top.pair].count;
        if (top.count != count) { /* an old count: back into the heap with the present one */
            t->heap[0].count = count;
            heap_down(t);
            continue;
        }
        if (count < 1) break;
        t->heap[0] = t->heap[--t->heap_count];
        if (t->heap_count) heap_down(t);
        if (apply_merge(t, &top))
            return lk_fail(err, LK_ENOMEM, "learning merges: out of memory after %zu", t->merge_count);
    }
    if (t->tokens < t->limit)
        return lk_fail(err, LK_EINVAL,
                       "the text has only %lu pairs to merge, so at most %lu tokens with the 256 bytes and the end token; "
                       "ask for a vocabulary of %lu or less, or give more text",
                       (unsigned long)t->tokens - 256, (unsigned long)t->tokens + 1, (unsigned long)t->tokens + 1);
    if (progress && progress(arg, total, total)) return lk_fail(err, LK_ESTOPPED, "learning merges: stopped on request");
    return 0;
}

static int finish(struct trainer *t, uint32_t vocab, struct lk_tokenizer **out, struct lk_err *err) {
    uint8_t *added = lk_calloc(vocab, 1);
    struct lk__tokenizer_traits traits = lk__tokenizer_default_traits;
    traits.pattern = t->pattern;
    if (!added || lk_buf_append(&t->bytes, LK_TOKEN_END, strlen(LK_TOKEN_END))) {
        lk_free(added);
        return lk_fail(err, LK_ENOMEM, "learning merges: out of memory");
    }
    t->offset[vocab] = t->bytes.size;
    added[vocab - 1] = LK__SPECIAL;
    struct lk__tokenizer_definition definition = {.vocab = vocab,
                                                  .offset = t->offset,
                                                  .bytes = (const uint8_t *)t->bytes.data,
                                                  .added = added,
                                                  .traits = &traits,
                                                  .merges = t->merges,
                                                  .merge_count = t->merge_count};
    int code = lk__tokenizer_make(&definition, "learned vocabulary", out, err);
    lk_free(added);
    return code;
}

int lk_tokenizer_train_pattern(const struct lk_bytes *texts, size_t count, uint32_t vocab, const char *pattern,
                               struct lk_pool *pool, int (*progress)(void *arg, uint32_t done, uint32_t total), void *arg,
                               struct lk_tokenizer **out, struct lk_err *err) {
    *out = NULL;
    if (vocab < 257 || vocab > LK__VOCAB_MAX)
        return lk_fail(err, LK_EINVAL, "a vocabulary of %lu: it must have 257 (the bytes and the end token) to %lu tokens",
                       (unsigned long)vocab, (unsigned long)LK__VOCAB_MAX);
    struct trainer t = {.pattern = lk__tokenizer_pattern_find(pattern)};
    if (t.pattern == LK__PATTERN_COUNT)
        return lk_fail(err, LK_EINVAL, "there is no pattern %.40s; there are %s", pattern, LK_PATTERNS);
    uint32_t byte_id[256];
    int code = lk__tokenizer_words_count(t.pattern, texts, count, pool, &t.words, err);
    if (!code && first_tokens(&t, vocab, byte_id)) code = lk_fail(err, LK_ENOMEM, "learning merges: out of memory");
    if (!code) code = split_words(&t, byte_id, err);
    if (!code && count_pairs(&t)) code = lk_fail(err, LK_ENOMEM, "counting pairs: out of memory");
    if (!code) code = learn(&t, progress, arg, err);
    if (!code) code = finish(&t, vocab, out, err);
    trainer_release(&t);
    return code;
}

int lk_tokenizer_train(const struct lk_bytes *texts, size_t count, uint32_t vocab, struct lk_pool *pool,
                       int (*progress)(void *arg, uint32_t done, uint32_t total), void *arg, struct lk_tokenizer **out,
                       struct lk_err *err) {
    return lk_tokenizer_train_pattern(texts, count, vocab, "gpt2", pool, progress, arg, out, err);
}
