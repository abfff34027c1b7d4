#include "data/tokenizer/words.h"
#include "data/tokenizer/key.h"
#include "data/tokenizer/starts.h"
#include <string.h>

#define INDEX_BITS 40
#define INDEX_MASK (((uint64_t)1 << INDEX_BITS) - 1)

void lk__tokenizer_words_release(struct lk__tokenizer_words *w) {
    lk_free(w->words);
    lk_free(w->slots);
    lk_buf_release(&w->bytes);
    *w = (struct lk__tokenizer_words){0};
}

static int grow_slots(struct lk__tokenizer_words *w) {
    size_t slots = w->slot_count ? w->slot_count * 2 : 1024;
    uint64_t *fresh = lk_calloc(slots, sizeof *fresh);
    if (!fresh) return LK_ENOMEM;
    for (size_t i = 0; i < w->count; i++) {
        uint64_t h = lk__tokenizer_word_hash((const uint8_t *)w->bytes.data + w->words[i].offset, w->words[i].size);
        size_t at = h & (slots - 1);
        while (fresh[at]) at = (at + 1) & (slots - 1);
        fresh[at] = (h & ~INDEX_MASK) | (i + 1);
    }
    lk_free(w->slots);
    w->slots = fresh;
    w->slot_count = slots;
    return 0;
}

/* Adds to a word's count; its index, or LK_ENOMEM. */
static int64_t add_word(struct lk__tokenizer_words *w, const uint8_t *word, size_t size, uint64_t count) {
    if (w->count * 2 >= w->slot_count && grow_slots(w)) return LK_ENOMEM;
    uint64_t h = lk__tokenizer_word_hash(word, size);
    size_t at = h & (w->slot_count - 1);
    for (; w->slots[at]; at = (at + 1) & (w->slot_count - 1)) {
        if ((w->slots[at] ^ h) & ~INDEX_MASK) continue;
        struct lk__tokenizer_word *found = &w->words[(w->slots[at] & INDEX_MASK) - 1];
        if (found->size != size || memcmp(w->bytes.data + found->offset, word, size)) continue;
        found->count += count;
        return found - w->words;
    }
    if (w->count == w->capacity) {
        size_t capacity = w->capacity ? w->capacity * 2 : 1024;
        struct lk__tokenizer_word *grown = lk_realloc(w->words, capacity * sizeof *grown);
        if (!grown) return LK_ENOMEM;
        w->words = grown;
        w->capacity = capacity;
    }
    size_t offset = w->bytes.size;
    if (lk_buf_append(&w->bytes, word, size)) return LK_ENOMEM;
    w->words[w->count++] = (struct lk__tokenizer_word){offset, size, count};
    w->slots[at] = (h & ~INDEX_MASK) | w->count;
    return (int64_t)w->count - 1;
}

/* Most words are among those seen a moment ago: a table of these, one a hash, whose counts are added up when they leave it.
 */
#define NEAR_BITS 14
struct near {
    uint64_t low, high, index, count;
};
#define CHUNK 1024

static int count_words(struct lk__tokenizer_words *w, struct near *table, const uint8_t *text, size_t size,
                       const size_t *begins, size_t count) {
    for (size_t i = 0; i < count; i++) {
        size_t from = begins[i], n = begins[i + 1] - from;
        uint64_t low, high;
        if (n > LK__KEY_BYTES || size - from < 16) {
            if (add_word(w, text + from, n, 1) < 0) return LK_ENOMEM;
            continue;
        }
        lk__tokenizer_key(text + from, n, &low, &high);
        struct near *e = &table[lk__tokenizer_key_hash(low, high) >> (64 - NEAR_BITS)];
        if (e->low == low && e->high == high) {
            e->count++;
            continue;
        }
        int64_t index = add_word(w, text + from, n, 1);
        if (index < 0) return LK_ENOMEM;
        if (e->high) w->words[e->index].count += e->count;
        *e = (struct near){low, high, (uint64_t)index, 0};
    }
    return 0;
}

static int count_piece(struct lk__tokenizer_words *w, enum lk__tokenizer_pattern pattern, const uint8_t *text,
                       size_t size) {
    struct lk__tokenizer_starts starts;
    size_t begins[1 + CHUNK + LK__STARTS_MORE + 1], have = 0;
    struct near *table = lk_calloc((size_t)1 << NEAR_BITS, sizeof *table);
    int code = table ? 0 : LK_ENOMEM;
    lk__tokenizer_starts_begin(&starts, pattern, text, size, true);
    for (bool end = false; !code && !end;) {
        size_t found = lk__tokenizer_starts_next(&starts, begins + have, CHUNK);
        have += found;
        end = found < CHUNK;
        if (end) begins[have++] = size;
        code = count_words(w, table, text, size, begins, have - 1);
        begins[0] = begins[have - 1];
        have = 1;
    }
    for (size_t i = 0; !code && i >> NEAR_BITS == 0; i++)
        if (table[i].high) w->words[table[i].index].count += table[i].count;
    lk_free(table);
    return code;
}

/* --- pieces on a pool ------------------------------------------------------------------------------------ */

#define PIECE_BYTES  ((size_t)4 << 20)
#define ROUND_PIECES 32 /* pieces counted between two additions: a limit, so that memory does not grow with the text */

struct round {
    enum lk__tokenizer_pattern pattern;
    struct lk_bytes pieces[ROUND_PIECES];
    struct lk__tokenizer_words words[ROUND_PIECES];
    int codes[ROUND_PIECES];
    size_t count;
};

static void count_tile(void *arg, size_t tile, int thread) {
    struct round *r = arg;
    (void)thread;
    r->codes[tile] = count_piece(&r->words[tile], r->pattern, r->pieces[tile].data, r->pieces[tile].size);
}

/* Adds the pieces in their order, so that first appearances come out in the order of the text. */
static int run_round(struct round *r, struct lk_pool *pool, struct lk__tokenizer_words *out) {
    int code = 0;
    lk_pool_run(pool, r->count, count_tile, r);
    for (size_t i = 0; i < r->count; i++) {
        struct lk__tokenizer_words *w = &r->words[i];
        if (r->codes[i]) code = r->codes[i];
        for (size_t j = 0; !code && j < w->count; j++)
            if (add_word(out, (const uint8_t *)w->bytes.data + w->words[j].offset, w->words[j].size, w->words[j].count) < 0)
                code = LK_ENOMEM;
        lk__tokenizer_words_release(w);
        r->codes[i] = 0;
    }
    r->count = 0;
    return code;
}

int lk__tokenizer_words_count(enum lk__tokenizer_pattern pattern, const struct lk_bytes *texts, size_t count,
                              struct lk_pool *pool, struct lk__tokenizer_words *out, struct lk_err *err) {
    *out = (struct lk__tokenizer_words){0};
    struct round *r = lk_calloc(1, sizeof *r);
    int code = r ? 0 : LK_ENOMEM;
    if (r) r->pattern = pattern;
    for (size_t i = 0; !code && i < count; i++) {
        const uint8_t *text = texts[i].data;
        for (size_t at = 0; !code && at < texts[i].size;) {
            size_t end = texts[i].size;
            if (end - at > PIECE_BYTES) {
                const uint8_t *newline = memchr(text + at + PIECE_BYTES, '\n', end - at - PIECE_BYTES);
                if (newline) end = (size_t)(newline - text) + 1;
            }
            r->pieces[r->count++] = lk_bytes(text + at, end - at);
            at = end;
            if (r->count == ROUND_PIECES) code = run_round(r, pool, out);
        }
    }
    if (!code && r->count) code = run_round(r, pool, out);
    lk_free(r);
    if (!code) return 0;
    lk__tokenizer_words_release(out);
    return lk_fail(err, code, "counting words: out of memory");
}
