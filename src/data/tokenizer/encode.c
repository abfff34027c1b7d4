/* Text to ids: words from the pattern, each through the cache or the merges; large texts in pieces on a pool. */
#include "data/tokenizer/internal.h"
#include "data/tokenizer/pretoken.h"
#include <string.h>

/* A cache of words of up to 15 bytes: sets of two neighbours, the newer one first; README.md, "The cache". */
#define CACHED_BYTES 15
#define CACHED_IDS   3 /* more stand in `more` */
#define CACHE_MOST   ((size_t)1 << 16)
struct cached {
    uint64_t low, high; /* the bytes, zero-padded; the length in the last byte. high 0: empty */
    uint32_t ids[CACHED_IDS];
    uint32_t count;
};
#define BATCH 32
struct found { /* a word whose end is known and whose set is on its way from memory */
    uint64_t low, high;
    size_t at, size, slot;
};
struct lk__encoder {
    const struct lk_tokenizer *t;
    struct lk__scratch scratch;
    struct cached *cache;
    uint32_t (*more)[16]; /* ids of words with more than 3, by slot */
    uint64_t mask;        /* of the first slot of a set */
};

struct lk__encoder *lk__encoder_create(const struct lk_tokenizer *t, size_t text_bytes) {
    struct lk__encoder *e = lk_calloc(1, sizeof *e);
    if (!e) return NULL;
    size_t slots = 64;
    while (slots < text_bytes / 16 && slots < CACHE_MOST) slots *= 2;
    e->t = t;
    e->mask = (slots - 1) & ~(uint64_t)1;
    e->cache = lk_calloc(slots, sizeof *e->cache);
    e->more = lk_alloc(slots * sizeof *e->more); /* written before it is read; pages that no word needs are never touched */
    if (e->cache && e->more) return e;
    lk__encoder_free(e);
    return NULL;
}

void lk__encoder_free(struct lk__encoder *e) {
    if (!e) return;
    lk_free(e->cache);
    lk_free(e->more);
    lk_free(e->scratch.memory);
    lk_free(e);
}

int lk__tokens_reserve(struct lk_tokens *t, size_t extra) {
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

/* The key of a word of up to 15 bytes; `room` bytes may be read from it. */
static inline void word_key(const uint8_t *word, size_t size, size_t room, uint64_t *low, uint64_t *high) {
    uint64_t a = 0, b = 0;
    if (room >= 16) {
        memcpy(&a, word, 8);
        memcpy(&b, word + 8, 8);
        if (size < 8)
            a &= ((uint64_t)1 << (size * 8)) - 1, b = 0;
        else
            b &= ((uint64_t)1 << ((size - 8) * 8)) - 1;
    } else {
        memcpy(&a, word, size < 8 ? size : 8);
        if (size > 8) memcpy(&b, word + 8, size - 8);
    }
    *low = a;
    *high = b | (uint64_t)size << 56;
}

static inline uint64_t word_hash(uint64_t low, uint64_t high) {
    uint64_t h = (low ^ high >> 7) * 0x9E3779B97F4A7C15u;
    h = (h ^ h >> 32 ^ high) * 0xD6E8FEB86659FD93u;
    return h ^ h >> 32;
}

/* A word past the cache; leaves room for the rest of a batch. */
static int encode_word(struct lk__encoder *e, const uint8_t *word, size_t size, struct lk_tokens *out, struct lk_err *err) {
    if (size > LK__WORD_MAX)
        return lk_fail(err, LK_EINVAL, "one word of %zu bytes (a run of one kind of character); at most %zu", size,
                       LK__WORD_MAX);
    if (lk__tokens_reserve(out, size + BATCH * CACHED_BYTES))
        return lk_fail(err, LK_ENOMEM, "encoding a word of %zu bytes: out of memory", size);
    int64_t n = lk__bpe(e->t, &e->scratch, word, size, out->ids + out->count);
    if (n < 0) return lk_fail(err, LK_ENOMEM, "encoding a word of %zu bytes: out of memory", size);
    out->count += (size_t)n;
    return 0;
}

/* A word of up to 15 bytes through the cache; out has room for 15 ids. */
static inline size_t encode_cached(struct lk__encoder *e, const uint8_t *text, const struct found *w, uint32_t *out) {
    struct cached *c = &e->cache[w->slot];
    size_t which = c[0].low == w->low && c[0].high == w->high ? 0 : c[1].low == w->low && c[1].high == w->high ? 1 : 2;
    if (which < 2) {
        size_t n = c[which].count;
        if (n <= CACHED_IDS)
            memcpy(out, c[which].ids, sizeof c->ids);
        else
            memcpy(out, e->more[w->slot + which], n * sizeof *out);
        return n;
    }
    size_t n = (size_t)lk__bpe(e->t, &e->scratch, text + w->at, w->size, out);
    if (c[0].count > CACHED_IDS) memcpy(e->more[w->slot + 1], e->more[w->slot], c[0].count * sizeof *out);
    c[1] = c[0];
    c[0] = (struct cached){w->low, w->high, {0}, (uint32_t)n};
    memcpy(n <= CACHED_IDS ? c[0].ids : e->more[w->slot], out, n * sizeof *out);
    return n;
}

/* How many of the next 8 bytes are ASCII letters, from the first on. */
static inline size_t letters_of_8(const uint8_t *p) {
    const uint64_t ones = 0x0101010101010101u, high = 0x8080808080808080u;
    uint64_t x, y;
    memcpy(&x, p, 8);
    y = (x | 0x20 * ones) & ~high;
    uint64_t others = ~((y + (0x80 - 'a') * ones) & ~(y + (0x80 - 'z' - 1) * ones) & ~x) & high;
    return others ? (size_t)__builtin_ctzll(others) >> 3 : 8;
}

/* The end of a word, quickly if it is one of ASCII letters, as most are. */
static inline size_t word_end(const uint8_t *text, size_t at, size_t size) {
    if (size - at < 24) return lk__word_end(text, at, size);
    size_t from = at + (text[at] == ' '), n = letters_of_8(text + from);
    if (n == 8) n += letters_of_8(text + from + 8);
    return n == 0 || n == 16 || text[from + n] >= 0x80 ? lk__word_end(text, at, size) : from + n;
}

/* Finds the next words, at most BATCH, and asks memory for their sets. */
static size_t find_words(const struct lk__encoder *e, const uint8_t *text, size_t *at, size_t size, struct found *words) {
    size_t n = 0;
    for (; n < BATCH && *at < size; n++) {
        struct found *w = &words[n];
        size_t end = word_end(text, *at, size);
        w->at = *at;
        w->size = end - *at;
        *at = end;
        if (w->size == 1 || w->size > CACHED_BYTES) continue;
        word_key(text + w->at, w->size, size - w->at, &w->low, &w->high);
        w->slot = word_hash(w->low, w->high) & e->mask;
        __builtin_prefetch(&e->cache[w->slot]);
    }
    return n;
}

int lk__encoder_run(struct lk__encoder *e, const void *text, size_t size, struct lk_tokens *out, struct lk_err *err) {
    const uint8_t *bytes = text;
    struct found words[BATCH];
    for (size_t at = 0; at < size;) {
        size_t n = find_words(e, bytes, &at, size, words);
        if (out->capacity - out->count < BATCH * CACHED_BYTES &&
            lk__tokens_reserve(out, BATCH * CACHED_BYTES + (size - at) / 4))
            return lk_fail(err, LK_ENOMEM, "encoding %zu bytes: out of memory", size);
        for (size_t i = 0; i < n; i++) {
            const struct found *w = &words[i];
            if (w->size == 1) {
                out->ids[out->count++] = e->t->byte_id[bytes[w->at]];
            } else if (w->size <= CACHED_BYTES) {
                out->count += encode_cached(e, bytes, w, out->ids + out->count);
            } else {
                int code = encode_word(e, bytes + w->at, w->size, out, err);
                if (code) return code;
            }
        }
    }
    return 0;
}

/* --- pieces on a pool ------------------------------------------------------------------------------------ */

#define PIECE_BYTES ((size_t)512 << 10)

struct pieces {
    const uint8_t *text;
    size_t *begin; /* count + 1 */
    size_t count;
    struct lk_tokens *tokens;
    struct lk__encoder **encoders; /* one a thread, made when first needed */
    const struct lk_tokenizer *t;
    int *codes;
    struct lk_err *errors;
};

static void encode_piece(void *arg, size_t tile, int thread) {
    struct pieces *p = arg;
    size_t size = p->begin[tile + 1] - p->begin[tile];
    struct lk_err *err = &p->errors[tile];
    if (!p->encoders[thread]) p->encoders[thread] = lk__encoder_create(p->t, (size_t)4 << 20);
    if (!p->encoders[thread]) {
        p->codes[tile] = lk_fail(err, LK_ENOMEM, "encoding %zu bytes: out of memory", size);
        return;
    }
    p->codes[tile] = lk__encoder_run(p->encoders[thread], p->text + p->begin[tile], size, &p->tokens[tile], err);
}

static int join_pieces(struct pieces *p, size_t size, struct lk_tokens *out, struct lk_err *err) {
    size_t total = 0;
    for (size_t i = 0; i < p->count; i++) {
        if (p->codes[i]) return lk_fail(err, p->codes[i], "%s", p->errors[i].message);
        total += p->tokens[i].count;
    }
    if (lk__tokens_reserve(out, total)) return lk_fail(err, LK_ENOMEM, "encoding %zu bytes: out of memory", size);
    for (size_t i = 0; i < p->count; i++) {
        if (p->tokens[i].count) memcpy(out->ids + out->count, p->tokens[i].ids, p->tokens[i].count * sizeof *out->ids);
        out->count += p->tokens[i].count;
    }
    return 0;
}

static int encode_parallel(const struct lk_tokenizer *t, const uint8_t *text, size_t size, struct lk_pool *pool,
                           struct lk_tokens *out, struct lk_err *err) {
    size_t most = size / PIECE_BYTES + 1;
    int threads = lk_pool_threads(pool);
    struct pieces p = {.text = text, .t = t};
    p.begin = lk_calloc(most + 1, sizeof *p.begin);
    p.tokens = lk_calloc(most, sizeof *p.tokens);
    p.encoders = lk_calloc((size_t)threads, sizeof(struct lk__encoder *));
    p.codes = lk_calloc(most, sizeof *p.codes);
    p.errors = lk_calloc(most, sizeof *p.errors);
    int code;
    if (!p.begin || !p.tokens || !p.encoders || !p.codes || !p.errors) {
        code = lk_fail(err, LK_ENOMEM, "encoding %zu bytes: out of memory", size);
        goto done;
    }
    for (size_t at = 0; at < size; at = p.begin[p.count])
        p.begin[++p.count] = size - at <= PIECE_BYTES ? size : lk__next_cut(text, at + PIECE_BYTES - 1, size);
    lk_pool_run(pool, p.count, encode_piece, &p);
    code = join_pieces(&p, size, out, err);
done:
    for (size_t i = 0; p.tokens && i < p.count; i++) lk_tokens_release(&p.tokens[i]);
    for (int i = 0; p.encoders && i < threads; i++) lk__encoder_free(p.encoders[i]);
    lk_free(p.begin);
    lk_free(p.tokens);
    lk_free(p.encoders);
    lk_free(p.codes);
    lk_free(p.errors);
    return code;
}

int lk_tokenizer_encode(const struct lk_tokenizer *t, const void *text, size_t size, struct lk_pool *pool,
                        struct lk_tokens *out, struct lk_err *err) {
    if (pool && lk_pool_threads(pool) > 1 && size > 2 * PIECE_BYTES) return encode_parallel(t, text, size, pool, out, err);
    struct lk__encoder *e = lk__encoder_create(t, size);
    if (!e) return lk_fail(err, LK_ENOMEM, "encoding %zu bytes: out of memory", size);
    size_t before = out->count;
    int code = lk__encoder_run(e, text, size, out, err);
    if (code) out->count = before;
    lk__encoder_free(e);
    return code;
}
