/* Makes a tokenizer in memory from a definition that it checks; nothing changes it afterwards. */
#include "data/tokenizer/internal.h"
#include "data/tokenizer/key.h"
#include <string.h>

const struct lk__tokenizer_traits lk__tokenizer_default_traits = {
    .first_byte = LK__NO_ID, .end = LK__NO_ID, .before = LK__NO_ID, .after = LK__NO_ID};

void lk_tokenizer_free(struct lk_tokenizer *t) {
    if (!t) return;
    for (size_t i = 0; t->kept && i < LK__KEPT; i++) lk__tokenizer_encoder_free(t->kept->encoders[i]);
    lk_free(t->kept);
    lk_free(t->offset);
    lk_free(t->bytes);
    lk_free(t->added);
    lk__tokenizer_added_release(t);
    lk_free(t->words);
    lk_free(t->joins);
    lk_free(t->merges);
    lk_free(t->slots);
    lk_free(t->byte_ranks);
    lk_free(t);
}

/* --- building -------------------------------------------------------------------------------------------- */

static int copy_tokens(struct lk_tokenizer *t, const struct lk__tokenizer_definition *p, const char *what,
                       struct lk_err *err) {
    if (p->vocab < 256 || p->vocab > LK__VOCAB_MAX)
        return lk_fail(err, LK_EINVAL, "%s: a vocabulary of %lu ids; it must have 256 to %lu", what,
                       (unsigned long)p->vocab, (unsigned long)LK__VOCAB_MAX);
    t->vocab = p->vocab;
    uint64_t total = p->offset[p->vocab];
    t->offset = lk_alloc(((size_t)p->vocab + 1) * sizeof *t->offset);
    t->bytes = lk_alloc(total ? (size_t)total : 1);
    t->added = lk_calloc(p->vocab, 1);
    if (!t->offset || !t->bytes || !t->added) return lk_fail(err, LK_ENOMEM, "%s: out of memory", what);
    memcpy(t->offset, p->offset, ((size_t)p->vocab + 1) * sizeof *t->offset);
    if (total) memcpy(t->bytes, p->bytes, (size_t)total);
    for (uint32_t id = 0; id < t->vocab; id++) {
        if (lk_tokenizer_bytes(t, id).size > LK__TOKEN_MAX)
            return lk_fail(err, LK_EINVAL, "%s: token %lu has %zu bytes, more than %zu", what, (unsigned long)id,
                           lk_tokenizer_bytes(t, id).size, LK__TOKEN_MAX);
        if (!p->added || !p->added[id]) continue;
        t->added[id] = p->added[id];
        t->added_count++;
    }
    return 0;
}

static int find_bytes_and_end(struct lk_tokenizer *t, const char *what, struct lk_err *err) {
    memset(t->byte_id, 0xFF, sizeof t->byte_id);
    for (uint32_t id = 0; id < t->vocab; id++) {
        struct lk_bytes b = lk_tokenizer_bytes(t, id);
        if (t->added[id] & LK__SPECIAL && t->traits.end == LK__NO_ID && b.size == strlen(LK_TOKEN_END) &&
            !memcmp(b.data, LK_TOKEN_END, b.size))
            t->traits.end = id;
        if (t->traits.characters || t->added[id] || b.size != 1) continue;
        uint8_t byte = *(const uint8_t *)b.data;
        if (t->byte_id[byte] != LK__NO_ID)
            return lk_fail(err, LK_EINVAL, "%s: ids %lu and %lu both stand for byte 0x%02x", what,
                           (unsigned long)t->byte_id[byte], (unsigned long)id, byte);
        t->byte_id[byte] = id;
    }
    for (int byte = 0; !t->traits.characters && byte < 256; byte++)
        if (t->byte_id[byte] == LK__NO_ID)
            return lk_fail(err, LK_EINVAL, "%s: no token for byte 0x%02x; a byte-level vocabulary has all 256", what, byte);
    return 0;
}

static int check_merge(const struct lk_tokenizer *t, const struct lk__tokenizer_merge *m, size_t index, const char *what,
                       struct lk_err *err) {
    if (m->left >= t->vocab || m->right >= t->vocab || m->id >= t->vocab)
        return lk_fail(err, LK_EINVAL, "%s: merge %zu names an id outside the vocabulary of %lu", what, index,
                       (unsigned long)t->vocab);
    struct lk_bytes a = lk_tokenizer_bytes(t, m->left), b = lk_tokenizer_bytes(t, m->right),
                    c = lk_tokenizer_bytes(t, m->id);
    if (t->added[m->left] || t->added[m->right] || t->added[m->id])
        return lk_fail(err, LK_EINVAL, "%s: merge %zu uses %s token", what, index,
                       (t->added[m->left] | t->added[m->right] | t->added[m->id]) & LK__SPECIAL ? "a special" : "an added");
    if (!a.size || !b.size || c.size != a.size + b.size || memcmp(c.data, a.data, a.size) ||
        memcmp((const char *)c.data + a.size, b.data, b.size))
        return lk_fail(err, LK_EINVAL, "%s: merge %zu: token %lu is not token %lu followed by token %lu", what, index,
                       (unsigned long)m->id, (unsigned long)m->left, (unsigned long)m->right);
    return 0;
}

/* Makes `rank` the rank of its pair in the table; returns the rank that the pair had, or LK__NO_ID. */
static uint32_t put_pair(struct lk_tokenizer *t, uint32_t rank) {
    const struct lk__tokenizer_merge *m = &t->merges[rank];
    uint64_t at = lk__tokenizer_pair_hash((uint64_t)m->left << 32 | m->right);
    uint32_t tag = (uint32_t)(at >> 32);
    for (;; at++) {
        struct lk__tokenizer_pair_slot *slot = &t->slots[at & t->slot_mask];
        uint32_t old = slot->rank;
        if (old != LK__NO_ID && (t->merges[old].left != m->left || t->merges[old].right != m->right)) continue;
        *slot = (struct lk__tokenizer_pair_slot){tag, rank};
        return old;
    }
}

/* Of merges of one pair only the last stays. */
static void drop_doubles(struct lk_tokenizer *t, uint8_t *dropped) {
    bool any = false;
    for (uint32_t i = 0; i < t->merge_count; i++) {
        uint32_t old = put_pair(t, i);
        if (old == LK__NO_ID) continue;
        dropped[old] = 1;
        any = true;
    }
    if (!any) return;
    uint32_t count = t->merge_count;
    t->merge_count = 0;
    for (uint32_t i = 0; i < count; i++)
        if (!dropped[i]) t->merges[t->merge_count++] = t->merges[i];
    memset(t->slots, 0xFF, ((size_t)t->slot_mask + 1) * sizeof *t->slots);
    for (uint32_t i = 0; i < t->merge_count; i++) put_pair(t, i);
}

static void rank_bytes(struct lk_tokenizer *t) {
    for (uint32_t i = 0; i < 65536; i++)
        t->byte_ranks[i] = lk__tokenizer_pair_rank(t, t->byte_id[i >> 8], t->byte_id[i & 255]);
}

static int make_words(struct lk_tokenizer *t, const char *what, struct lk_err *err) {
    if (!t->traits.whole_words && !t->traits.characters) return 0;
    size_t slots = 1024;
    while (slots < (size_t)t->vocab * 2) slots *= 2;
    t->word_mask = slots - 1;
    t->words = lk_alloc(slots * sizeof *t->words);
    if (!t->words) return lk_fail(err, LK_ENOMEM, "%s: out of memory", what);
    memset(t->words, 0xFF, slots * sizeof *t->words);
    if (t->traits.characters) return lk__tokenizer_characters_tokens(t, what, err);
    for (uint32_t id = 0; id < t->vocab; id++) {
        struct lk_bytes b = lk_tokenizer_bytes(t, id);
        if (t->added[id] || !b.size) continue;
        uint32_t other = lk__tokenizer_token_of(t, b.data, b.size);
        if (other != LK__NO_ID)
            return lk_fail(err, LK_EINVAL, "%s: ids %lu and %lu have the same bytes", what, (unsigned long)other,
                           (unsigned long)id);
        uint64_t at = lk__tokenizer_word_hash(b.data, b.size);
        while (t->words[at & t->word_mask] != LK__NO_ID) at++;
        t->words[at & t->word_mask] = id;
    }
    return 0;
}

static int make_merges(struct lk_tokenizer *t, const struct lk__tokenizer_definition *p, const char *what,
                       struct lk_err *err) {
    if (p->merge_count > LK__VOCAB_MAX * (size_t)4)
        return lk_fail(err, LK_EINVAL, "%s: %zu merges are too many", what, p->merge_count);
    size_t slots = 512;
    while (slots < p->merge_count * 2) slots *= 2;
    t->slot_mask = slots - 1;
    t->slots = lk_alloc(slots * sizeof *t->slots);
    t->merges = lk_alloc((p->merge_count + 1) * sizeof *t->merges);
    t->byte_ranks = lk_alloc(65536 * sizeof *t->byte_ranks);
    uint8_t *dropped = lk_calloc(p->merge_count + 1, 1);
    uint32_t *made_by = lk_alloc((size_t)t->vocab * sizeof *made_by);
    if (!t->slots || !t->merges || !t->byte_ranks || !dropped || !made_by) {
        lk_free(dropped);
        lk_free(made_by);
        return lk_fail(err, LK_ENOMEM, "%s: out of memory", what);
    }
    memset(t->slots, 0xFF, slots * sizeof *t->slots);
    memset(made_by, 0xFF, (size_t)t->vocab * sizeof *made_by);
    int code = 0;
    for (size_t i = 0; !code && i < p->merge_count; i++) code = check_merge(t, &p->merges[i], i, what, err);
    if (!code) {
        if (p->merge_count) memcpy(t->merges, p->merges, p->merge_count * sizeof *t->merges);
        t->merge_count = (uint32_t)p->merge_count;
        drop_doubles(t, dropped);
        rank_bytes(t);
    }
    for (uint32_t i = 0; i < t->merge_count; i++) made_by[t->merges[i].id] = i;
    t->ordered = true;
    for (uint32_t rank = 0; rank < t->merge_count; rank++) {
        const struct lk__tokenizer_merge *m = &t->merges[rank];
        uint32_t left = made_by[m->left], right = made_by[m->right];
        if ((left != LK__NO_ID && left >= rank) || (right != LK__NO_ID && right >= rank)) t->ordered = false;
    }
    lk_free(dropped);
    lk_free(made_by);
    return code;
}

/* Combinations that only a damaged manifest has. */
static int check_traits(const struct lk__tokenizer_traits *s, const char *what, struct lk_err *err) {
    bool prefix = s->prefix_space == LK__PREFIX_UNLESS || (s->characters && s->prefix_space == LK__PREFIX_FIRST);
    if (s->characters == LK__NORMALIZER) prefix = s->prefix_space == LK__PREFIX_EACH;
    if ((s->prefix_space && !prefix) || (s->characters ? s->nfc || s->whole_words : s->strip))
        return lk_fail(err, LK_EINVAL, "%s: prefix_space, normalizer, whole_words and characters do not fit together",
                       what);
    return 0;
}

int lk__tokenizer_make(const struct lk__tokenizer_definition *p, const char *what, struct lk_tokenizer **out,
                       struct lk_err *err) {
    *out = NULL;
    struct lk_tokenizer *t = lk_calloc(1, sizeof *t);
    if (!t) return lk_fail(err, LK_ENOMEM, "%s: out of memory", what);
    t->traits = p->traits ? *p->traits : lk__tokenizer_default_traits;
    t->text_begin = LK__NO_ID;
    t->kept = lk_calloc(1, sizeof *t->kept);
    int code = t->kept ? check_traits(&t->traits, what, err) : lk_fail(err, LK_ENOMEM, "%s: out of memory", what);
    if (!code) code = copy_tokens(t, p, what, err);
    if (!code) code = find_bytes_and_end(t, what, err);
    if (!code) code = make_words(t, what, err);
    if (!code) code = make_merges(t, p, what, err);
    if (!code && t->traits.characters) code = lk__tokenizer_characters_joins(t, what, err);
    if (!code) code = lk__tokenizer_added_make(t, what, err);
    if (code)
        lk_tokenizer_free(t);
    else
        *out = t;
    return code;
}
