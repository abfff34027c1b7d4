/* One thread's encoder: begins of words in batches, each word through a cache, the others through the merges. */
#include "data/tokenizer/internal.h"
#include "data/tokenizer/key.h"
#include "data/tokenizer/starts.h"
#include <stdatomic.h>
#include <string.h>

/* A cache of words of up to 15 bytes: a hash table whose buckets of two slots are one line of memory, a full bucket's words
 * going on in the next one; README.md, "The cache". */
#define CACHED_BYTES LK__KEY_BYTES
#define CACHED_IDS   4                 /* more stand in `more` */
#define CACHE_LEAST  ((size_t)1 << 12) /* with room for a batch, also in `more` */
#define CACHE_MOST   ((size_t)1 << 20)
#define MORE_SHARE   16 /* slots to one entry of `more` */
struct cached {
    uint64_t low, high; /* the bytes, zero-padded; in the last byte their number and, above it, that of the ids. 0: empty */
    uint32_t ids[CACHED_IDS]; /* or the first one's place in `more` */
};
#define KEPT_TOKENS  ((size_t)4 << 20) /* an encoder that grew beyond this, by an unusual text, gives the memory back */
#define KEPT_SCRATCH ((size_t)4 << 20)
#define LONG_SLOTS   1024
#define LONG_BYTES   512 /* longer words are not kept */
struct kept_long {       /* a word of more than CACHED_BYTES */
    uint64_t hash;
    uint32_t size, count;
    uint32_t *ids; /* and the bytes behind them */
};
#define BATCH      128
#define BATCH_ROOM (BATCH * CACHED_BYTES + CACHED_IDS) /* CACHED_IDS are written even where there are fewer */
#define CHUNK      1024                                /* begins of words found at a time */
struct key {
    uint64_t low, high;
    struct cached *bucket; /* on its way from memory */
};
struct lk__tokenizer_encoder {
    const struct lk_tokenizer *t;
    struct lk__tokenizer_scratch scratch;
    struct lk_tokens tokens;
    struct lk_buf normal;
    struct cached *cache;
    uint32_t (*more)[CACHED_BYTES + 1]; /* ids of words with more than CACHED_IDS */
    size_t slots, used, more_used;
    unsigned shift;                     /* of a hash, to a bucket's number */
    struct kept_long longs[LONG_SLOTS]; /* the last word of each hash */
    struct lk__tokenizer_starts starts;
    size_t next; /* with characters: the next word's begin */
    size_t begins[1 + CHUNK + LK__STARTS_MORE + 1];
};

/* --- the cache -------------------------------------------------------------------------------------------- */

static inline struct cached *bucket_of(const struct lk__tokenizer_encoder *e, uint64_t low, uint64_t high) {
    return &e->cache[lk__tokenizer_key_hash(low, high) >> e->shift << 1];
}
static inline size_t ids_of(const struct cached *c) {
    return (size_t)(c->high >> 60);
}
static inline uint64_t key_of(uint64_t high) {
    return high & ~((uint64_t)0xF << 60);
}

/* Puts a word that is not there into the first empty slot from its bucket on. */
static void cache_put(struct lk__tokenizer_encoder *e, struct cached *bucket, const struct cached *c) {
    size_t slot = (size_t)(bucket - e->cache);
    while (e->cache[slot].high) slot = (slot + 1) & (e->slots - 1);
    e->cache[slot] = *c;
    e->used++;
}

static bool cache_is_full(const struct lk__tokenizer_encoder *e) {
    return e->used + BATCH > e->slots / 2 || e->more_used + BATCH > e->slots / MORE_SHARE;
}

/* Room for a batch: four times the slots, or, at their greatest number, an empty cache. LK_ENOMEM: it is as it was. */
static int cache_room(struct lk__tokenizer_encoder *e) {
    struct cached *old = e->cache;
    size_t old_slots = e->slots, slots = e->slots ? e->slots * 4 : CACHE_LEAST;
    if (slots > CACHE_MOST) {
        e->used = e->more_used = 0;
        memset(e->cache, 0, e->slots * sizeof *e->cache);
        return 0;
    }
    struct cached *cache = lk_calloc(slots, sizeof *cache);
    if (!cache) return LK_ENOMEM;
    void *more = lk_realloc(e->more, slots / MORE_SHARE * sizeof *e->more);
    if (!more) {
        lk_free(cache);
        return LK_ENOMEM;
    }
    e->cache = cache;
    e->more = more;
    e->slots = slots;
    e->used = 0;
    e->shift = 65 - (unsigned)__builtin_ctzll(slots);
    for (size_t i = 0; i < old_slots; i++) {
        const struct cached *c = &old[i];
        if (c->high) cache_put(e, bucket_of(e, c->low, key_of(c->high)), c);
    }
    lk_free(old);
    return 0;
}

struct lk__tokenizer_encoder *lk__tokenizer_encoder_create(const struct lk_tokenizer *t) {
    struct lk__tokenizer_encoder *e = lk_calloc(1, sizeof *e);
    if (!e) return NULL;
    e->t = t;
    if (!cache_room(e)) return e;
    lk__tokenizer_encoder_free(e);
    return NULL;
}

void lk__tokenizer_encoder_free(struct lk__tokenizer_encoder *e) {
    if (!e) return;
    for (size_t i = 0; i < LONG_SLOTS; i++) lk_free(e->longs[i].ids);
    lk_free(e->cache);
    lk_free(e->more);
    lk_tokens_release(&e->tokens);
    lk_buf_release(&e->normal);
    lk_free(e->scratch.memory);
    lk_free(e);
}

struct lk_tokens *lk__tokenizer_encoder_tokens(struct lk__tokenizer_encoder *e) {
    return &e->tokens;
}
struct lk_buf *lk__tokenizer_encoder_normal(struct lk__tokenizer_encoder *e) {
    return &e->normal;
}
const struct lk_tokenizer *lk__tokenizer_encoder_tokenizer(const struct lk__tokenizer_encoder *e) {
    return e->t;
}

static void scratch_release(struct lk__tokenizer_encoder *e) {
    lk_free(e->scratch.memory);
    e->scratch = (struct lk__tokenizer_scratch){0};
}

struct lk__tokenizer_encoder *lk__tokenizer_encoder_take(const struct lk_tokenizer *t) {
    for (size_t i = 0; i < LK__KEPT; i++) {
        struct lk__tokenizer_encoder *e = atomic_exchange(&t->kept->encoders[i], NULL);
        if (e) return e;
    }
    return lk__tokenizer_encoder_create(t);
}

void lk__tokenizer_encoder_give(struct lk__tokenizer_encoder *e) {
    if (e) e->tokens.count = 0;
    if (e && e->tokens.capacity > KEPT_TOKENS) lk_tokens_release(&e->tokens);
    if (e && e->scratch.size_bytes > KEPT_SCRATCH) scratch_release(e);
    if (e && e->normal.size > KEPT_SCRATCH) lk_buf_release(&e->normal);
    if (e) e->normal.size = 0;
    for (size_t i = 0; e && i < LK__KEPT; i++) {
        struct lk__tokenizer_encoder *none = NULL;
        if (atomic_compare_exchange_strong(&e->t->kept->encoders[i], &none, e)) return;
    }
    lk__tokenizer_encoder_free(e);
}

/* --- words ------------------------------------------------------------------------------------------------ */

/* Room for a batch; when there is none, for what the rest of the text will need by what its beginning did. */
static int batch_room(struct lk_tokens *out, size_t before, size_t done, size_t size) {
    if (out->capacity - out->count >= BATCH_ROOM) return 0;
    size_t made = out->count - before, left = size - done;
    double each = done < 65536 ? 0.3 : (double)made / (double)done;
    return lk__tokenizer_tokens_reserve(out, BATCH_ROOM + (size_t)((double)left * each * 1.05));
}

static inline void make_key(const struct lk__tokenizer_encoder *e, const uint8_t *sixteen, size_t size, struct key *k) {
    uint64_t low, high;
    lk__tokenizer_key(sixteen, size, &low, &high);
    struct cached *bucket = bucket_of(e, low, high);
    __builtin_prefetch(bucket);
    *k = (struct key){low, high, bucket};
}

/* Finds the buckets of a batch's words and asks memory for them. */
static inline void find_keys(const struct lk__tokenizer_encoder *e, const uint8_t *text, size_t size, const size_t *begins,
                             size_t count, struct key *keys) {
    size_t inside = count; /* words that 16 bytes can be read of */
    while (inside && size - begins[inside - 1] < 16) inside--;
    for (size_t i = 0; i < inside; i++) make_key(e, text + begins[i], begins[i + 1] - begins[i], &keys[i]);
    for (size_t i = inside; i < count; i++) {
        uint8_t copy[16] = {0};
        memcpy(copy, text + begins[i], begins[i + 1] - begins[i]);
        make_key(e, copy, begins[i + 1] - begins[i], &keys[i]);
    }
}

static int keep_long(struct kept_long *k, uint64_t hash, const uint8_t *word, size_t size, const uint32_t *ids,
                     size_t count) {
    uint32_t *fresh = lk_alloc(count * sizeof *ids + size);
    if (!fresh) return LK_ENOMEM;
    lk_free(k->ids);
    memcpy(fresh, ids, count * sizeof *ids);
    memcpy(fresh + count, word, size);
    *k = (struct kept_long){hash, (uint32_t)size, (uint32_t)count, fresh};
    return 0;
}

/* A word of more than CACHED_BYTES; leaves room for the rest of a batch. */
static int encode_long(struct lk__tokenizer_encoder *e, const uint8_t *word, size_t size, struct lk_tokens *out,
                       struct lk_err *err) {
    if (size > LK__WORD_MAX)
        return lk_fail(err, LK_EINVAL, "one word of %zu bytes (a run of one kind of character); at most %zu", size,
                       LK__WORD_MAX);
    int64_t n = lk__tokenizer_tokens_reserve(out, size + BATCH_ROOM);
    uint32_t *ids = out->ids + out->count;
    bool keep = size <= LONG_BYTES;
    uint64_t hash = keep ? lk__tokenizer_word_hash(word, size) : 0;
    struct kept_long *k = &e->longs[hash % LONG_SLOTS];
    if (!n && keep && k->ids && k->hash == hash && k->size == size && !memcmp(k->ids + k->count, word, size)) {
        memcpy(ids, k->ids, k->count * sizeof *ids);
        out->count += k->count;
        return 0;
    }
    if (!n) n = lk__tokenizer_word_ids(e->t, &e->scratch, word, size, ids);
    if (n >= 0 && keep && keep_long(k, hash, word, size, ids, (size_t)n)) n = LK_ENOMEM;
    if (n < 0) return lk_fail(err, LK_ENOMEM, "encoding a word of %zu bytes: out of memory", size);
    out->count += (size_t)n;
    return 0;
}

/* A word that is not in its bucket; leaves room for the rest of a batch. */
static int encode_rare(struct lk__tokenizer_encoder *e, const struct key *k, const uint8_t *word, size_t size,
                       struct lk_tokens *tokens, struct lk_err *err) {
    if (size > CACHED_BYTES) return encode_long(e, word, size, tokens, err);
    uint32_t *out = tokens->ids + tokens->count;
    for (size_t slot = (size_t)(k->bucket - e->cache); e->cache[slot].high; slot = (slot + 1) & (e->slots - 1)) {
        struct cached found = e->cache[slot];
        if (found.low != k->low || key_of(found.high) != k->high) continue;
        memcpy(out, ids_of(&found) > CACHED_IDS ? e->more[found.ids[0]] : found.ids, ids_of(&found) * sizeof *out);
        tokens->count += ids_of(&found);
        e->cache[slot] = k->bucket[1]; /* a used word moves into its bucket; every slot between is full, so a search still
                                          finds both words */
        k->bucket[1] = found;
        return 0;
    }
    size_t n = (size_t)lk__tokenizer_word_ids(e->t, &e->scratch, word, size, out);
    struct cached c = {k->low, k->high | (uint64_t)n << 60, {0}};
    if (n > CACHED_IDS) c.ids[0] = (uint32_t)e->more_used++;
    memcpy(n > CACHED_IDS ? e->more[c.ids[0]] : c.ids, out, n * sizeof *out);
    cache_put(e, k->bucket, &c);
    tokens->count += n;
    return 0;
}

/* At most BATCH words; out has BATCH_ROOM. */
static int encode_batch(struct lk__tokenizer_encoder *e, const uint8_t *text, size_t size, const size_t *begins,
                        size_t count, struct lk_tokens *out, struct lk_err *err) {
    struct key keys[BATCH];
    find_keys(e, text, size, begins, count, keys);
    uint32_t *to = out->ids + out->count;
    for (size_t i = 0; i < count; i++) {
        const struct key *k = &keys[i];
        const struct cached *c = k->bucket;
        uint64_t first = (c[0].low ^ k->low) | (c[0].high ^ k->high) << 4;
        uint64_t second = (c[1].low ^ k->low) | (c[1].high ^ k->high) << 4;
        if ((first != 0) & (second != 0)) {
            out->count = (size_t)(to - out->ids);
            int code = encode_rare(e, k, text + begins[i], begins[i + 1] - begins[i], out, err);
            if (code) return code;
            to = out->ids + out->count;
            continue;
        }
        c += first != 0;
        memcpy(to, c->ids, sizeof c->ids);
        if (ids_of(c) > CACHED_IDS) memcpy(to, e->more[c->ids[0]], ids_of(c) * sizeof *to);
        to += ids_of(c);
    }
    out->count = (size_t)(to - out->ids);
    return 0;
}

static size_t next_begins(struct lk__tokenizer_encoder *e, const uint8_t *text, size_t size, size_t *out) {
    size_t found = 0;
    if (!e->t->traits.characters) return lk__tokenizer_starts_next(&e->starts, out, CHUNK);
    for (; found < CHUNK && e->next < size; e->next = lk__tokenizer_character_cut(e->t, text, e->next, size))
        out[found++] = e->next;
    return found;
}

int lk__tokenizer_encoder_words(struct lk__tokenizer_encoder *e, const void *text, size_t size, struct lk_tokens *out,
                                struct lk_err *err) {
    size_t have = 0, before = out->count;
    lk__tokenizer_starts_begin(&e->starts, e->t->traits.pattern, text, size, false);
    e->next = 0;
    for (bool end = false; !end;) {
        size_t found = next_begins(e, text, size, e->begins + have);
        have += found;
        end = found < CHUNK;
        if (end) e->begins[have++] = size;
        for (size_t i = 0, n; i + 1 < have; i += n) {
            n = have - 1 - i < BATCH ? have - 1 - i : BATCH;
            if ((cache_is_full(e) && cache_room(e)) || batch_room(out, before, e->begins[i], size))
                return lk_fail(err, LK_ENOMEM, "encoding %zu bytes: out of memory", size);
            int code = encode_batch(e, text, size, e->begins + i, n, out, err);
            if (code) return code;
        }
        e->begins[0] = e->begins[have - 1]; /* the word whose end is not known yet */
        have = 1;
    }
    return 0;
}
