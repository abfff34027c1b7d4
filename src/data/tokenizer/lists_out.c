/* A tokenizer as the lists of a GGUF file. What would give other ids there is refused, or, where it matters for few texts
 * only, marked as inexact. */
#include "data/tokenizer/huggingface.h"
#include "data/tokenizer/lists.h"
#include <stdlib.h>
#include <string.h>

struct exporting {
    const struct lk_tokenizer *t;
    struct lk_tokenizer_lists *out;
    size_t *places; /* of the texts in the memory: tokens, then merges; one more at the end */
    struct lk_err *err;
};

static int refuse(const struct exporting *e, const char *why) {
    return lk_fail(e->err, LK_EUNSUPPORTED, "its tokenizer %s: no GGUF file gives its ids", why);
}
static int no_memory(const struct exporting *e) {
    return lk_fail(e->err, LK_ENOMEM, "no memory for a tokenizer's lists");
}

/* --- Texts ----------------------------------------------------------------------------------------------- */

static bool is_byte(const struct lk_tokenizer *t, uint32_t id) {
    return t->traits.characters && id >= t->traits.first_byte && id - t->traits.first_byte < 256;
}

/* Appends a token as the file has it; nonzero: no memory. */
static int put_text(const struct lk_tokenizer *t, uint32_t id, struct lk_buf *out) {
    struct lk_bytes b = lk_tokenizer_bytes(t, id);
    const uint8_t *p = b.data;
    int bad = 0;
    if (!b.size) return lk_buf_printf(out, "[PAD%lu]", (unsigned long)id);
    if (is_byte(t, id)) return lk_buf_printf(out, "<0x%02X>", (unsigned)*p);
    if (t->added[id]) return lk_buf_append(out, p, b.size);
    for (size_t i = 0; i < b.size && !bad; i++) {
        uint32_t c = t->traits.characters ? p[i] : lk__tokenizer_byte_to_char(p[i]);
        if (t->traits.characters && c == ' ')
            bad = lk_buf_append(out, LK__MARK, 3);
        else if (t->traits.characters || c < 0x80)
            bad = lk_buf_append(out, &(char){(char)c}, 1);
        else
            bad = lk_buf_append(out, (char[]){(char)(0xC0 | c >> 6), (char)(0x80 | (c & 0x3F))}, 2);
    }
    return bad;
}

static int32_t type_of(const struct lk_tokenizer *t, uint32_t id) {
    struct lk_bytes b = lk_tokenizer_bytes(t, id);
    if (!b.size) return LK_LIST_UNUSED;
    if (is_byte(t, id)) return LK_LIST_BYTE;
    if (!t->added[id]) return LK_LIST_NORMAL;
    if (!(t->added[id] & LK__SPECIAL)) return LK_LIST_USER;
    bool unknown = t->traits.characters && b.size == 5 && !memcmp(b.data, "<unk>", 5);
    return unknown ? LK_LIST_UNKNOWN : LK_LIST_CONTROL;
}

static int put_tokens(struct exporting *e) {
    struct lk_tokenizer_lists *o = e->out;
    for (size_t id = 0; id < o->count; id++) {
        e->places[id] = o->memory.size;
        o->types[id] = type_of(e->t, (uint32_t)id);
        if (put_text(e->t, (uint32_t)id, &o->memory)) return no_memory(e);
    }
    for (size_t i = 0; i < o->merge_count; i++) {
        const struct lk__tokenizer_merge *m = &e->t->merges[i];
        e->places[o->count + i] = o->memory.size;
        if (put_text(e->t, m->left, &o->memory) || lk_buf_append(&o->memory, " ", 1) ||
            put_text(e->t, m->right, &o->memory))
            return no_memory(e);
    }
    e->places[o->count + o->merge_count] = o->memory.size;
    for (size_t i = 0; i < o->count + o->merge_count; i++) {
        struct lk_bytes *b = i < o->count ? &o->tokens[i] : &o->merges[i - o->count];
        *b = lk_bytes(o->memory.data + e->places[i], e->places[i + 1] - e->places[i]);
    }
    return 0;
}

/* --- Scores ---------------------------------------------------------------------------------------------- */

struct piece {
    struct lk_bytes text;
    uint32_t id;
};
static int by_text(const void *a, const void *b) {
    const struct lk_bytes x = ((const struct piece *)a)->text, y = ((const struct piece *)b)->text;
    int order = memcmp(x.data, y.data, x.size < y.size ? x.size : y.size);
    return order ? order : (x.size > y.size) - (x.size < y.size);
}

static uint32_t find_piece(const struct piece *pieces, size_t count, const void *text, size_t size) {
    struct piece wanted = {.text = lk_bytes(text, size)};
    const struct piece *found = bsearch(&wanted, pieces, count, sizeof wanted, by_text);
    return found ? found->id : LK__NO_ID;
}

/* Scores let any two neighbours join whose text is a token, in the order of that token's score alone. */
static int check_ways(const struct exporting *e, const struct piece *pieces, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const uint8_t *p = pieces[i].text.data;
        size_t size = pieces[i].text.size;
        for (size_t cut = 1; cut < size; cut++) {
            if ((p[cut] & 0xC0) == 0x80) continue;
            uint32_t left = find_piece(pieces, count, p, cut), right = find_piece(pieces, count, p + cut, size - cut);
            if (left == LK__NO_ID || right == LK__NO_ID || lk__tokenizer_pair_rank(e->t, left, right) != LK__NO_ID)
                continue;
            return lk_fail(e->err, LK_EUNSUPPORTED,
                           "its tokenizer does not merge tokens %lu and %lu, which a GGUF file's scores would",
                           (unsigned long)left, (unsigned long)right);
        }
    }
    return 0;
}

/* The merges of one token stand side by side: its score is minus their number. */
static int put_scores(struct exporting *e) {
    const struct lk_tokenizer *t = e->t;
    struct piece *pieces = lk_calloc((size_t)t->vocab + 1, sizeof *pieces);
    uint32_t group = 0;
    size_t count = 0;
    if (!pieces) return no_memory(e);
    int code = 0;
    for (uint32_t i = 0; i < t->merge_count && !code; i++) {
        uint32_t id = t->merges[i].id;
        if (i && t->merges[i - 1].id == id) continue;
        if (e->out->scores[id] != 0) code = refuse(e, "has merges in an order that no scores give");
        e->out->scores[id] = -(float)++group; /* less than 2^24: exact */
    }
    for (uint32_t id = 0; id < t->vocab && !code; id++)
        if (type_of(t, id) == LK_LIST_NORMAL) pieces[count++] = (struct piece){lk_tokenizer_bytes(t, id), id};
    qsort(pieces, count, sizeof *pieces, by_text);
    if (!code) code = check_ways(e, pieces, count);
    lk_free(pieces);
    return code;
}

/* --- All ------------------------------------------------------------------------------------------------- */

static int set_pattern(struct exporting *e) {
    const struct lk_tokenizer *t = e->t;
    size_t i = 0;
    bool matter = t->traits.whole_words;
    while (i < LK__LIST_PATTERNS && lk__tokenizer_list_patterns[i].pattern != t->traits.pattern) i++;
    if (i == LK__LIST_PATTERNS)
        return lk_fail(e->err, LK_EUNSUPPORTED,
                       "its tokenizer's pattern %s has no name in GGUF files: no such file gives its ids",
                       lk_tokenizer_pattern(t));
    if (t->traits.prefix_space) return refuse(e, "puts a space in front of a text");
    bool whole = lk__tokenizer_list_patterns[i].whole;
    int code = whole && !matter ? lk__tokenizer_whole_words_matter(t, "the tokenizer", &matter, e->err) : 0;
    if (!code && matter && whole != t->traits.whole_words)
        return refuse(e, whole ? "does not take whole words as tokens, and this pattern's files do"
                               : "takes whole words as tokens, and this pattern's files do not");
    e->out->model = "gpt2";
    e->out->pattern = lk__tokenizer_list_patterns[i].name;
    return code;
}

static void set_spaces(struct exporting *e) {
    const struct lk__tokenizer_traits *t = &e->t->traits;
    e->out->model = "llama";
    e->out->pattern = "default";
    e->out->space_prefix = t->prefix_space != LK__PREFIX_NONE;
    bool plain =
        t->prefix_space == LK__PREFIX_NONE || (t->prefix_space == LK__PREFIX_EACH && t->characters == LK__NORMALIZER);
    e->out->inexact = !plain || t->strip != e->out->space_prefix;
}

static int fill(struct exporting *e) {
    const struct lk_tokenizer *t = e->t;
    struct lk_tokenizer_lists *o = e->out;
    o->tokens = lk_calloc(o->count + 1, sizeof *o->tokens);
    o->merges = lk_calloc(o->merge_count + 1, sizeof *o->merges);
    o->types = lk_calloc(o->count + 1, sizeof *o->types);
    o->scores = lk_calloc(o->count + 1, sizeof *o->scores);
    e->places = lk_calloc(o->count + o->merge_count + 1, sizeof *e->places);
    if (!o->tokens || !o->merges || !o->types || !o->scores || !e->places) return no_memory(e);
    int code = put_tokens(e);
    if (t->traits.characters)
        set_spaces(e);
    else if (!code)
        code = set_pattern(e);
    if (!code && t->traits.characters) code = put_scores(e);
    if (t->traits.characters) o->merge_count = 0;
    o->inexact |= t->traits.nfc;
    for (uint32_t id = 0; id < t->vocab; id++)
        o->inexact |= (t->added[id] & (LK__LSTRIP | LK__RSTRIP | LK__NORMALIZED)) != 0;
    return code;
}

int lk_tokenizer_export_lists(const struct lk_tokenizer *t, uint32_t rows, struct lk_tokenizer_lists *out,
                              struct lk_err *err) {
    struct exporting e = {.t = t, .out = out, .err = err};
    *out = (struct lk_tokenizer_lists){.count = rows,
                                       .merge_count = t->merge_count,
                                       .before = t->traits.before,
                                       .after = t->traits.after,
                                       .end = t->traits.end};
    if (rows < t->vocab)
        return lk_fail(err, LK_EINVAL, "its tokenizer has ids up to %lu, the model %lu rows", (unsigned long)t->vocab - 1,
                       (unsigned long)rows);
    int code = fill(&e);
    lk_free(e.places);
    if (code) lk_tokenizer_lists_release(out);
    return code;
}

void lk_tokenizer_lists_release(struct lk_tokenizer_lists *l) {
    lk_free(l->tokens);
    lk_free(l->merges);
    lk_free(l->types);
    lk_free(l->scores);
    lk_buf_release(&l->memory);
    *l = (struct lk_tokenizer_lists){0};
}
