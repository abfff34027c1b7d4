/* A tokenizer in a store: a manifest and two blobs. Byte tables: README.md, "Formats". */
#include "data/tokenizer/internal.h"
#include "data/tokenizer/pretoken.h"
#include <string.h>

#define FORMAT       "lockstep-tokenizer-0"
#define INVALID_RULE "byte-is-other"

static void put_u32(uint8_t *p, uint32_t v) {
    for (int i = 0; i < 4; i++) p[i] = (uint8_t)(v >> (8 * i));
}
static uint32_t get_u32(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static int append_u32(struct lk_buf *b, uint32_t v) {
    uint8_t bytes[4];
    put_u32(bytes, v);
    return lk_buf_append(b, bytes, 4);
}

static int put_tokens(struct lk_store *s, const struct lk_tokenizer *t, struct lk_root *out, struct lk_err *err) {
    struct lk_buf b = LK_BUF_INIT;
    int code = append_u32(&b, t->vocab);
    for (uint32_t id = 0; !code && id < t->vocab; id++)
        code = append_u32(&b, (uint32_t)(t->offset[id + 1] - t->offset[id]));
    if (!code) code = lk_buf_append(&b, t->bytes, (size_t)t->offset[t->vocab]);
    if (code) code = lk_fail(err, LK_ENOMEM, "saving a tokenizer: out of memory");
    if (!code) code = lk_blob_put(s->blobs, b.data, b.size, out, err);
    lk_buf_release(&b);
    return code;
}

static int put_merges(struct lk_store *s, const struct lk_tokenizer *t, struct lk_root *out, struct lk_err *err) {
    size_t size = (size_t)t->merge_count * 12;
    uint8_t *bytes = lk_alloc(size + 1);
    if (!bytes) return lk_fail(err, LK_ENOMEM, "saving a tokenizer: out of memory");
    for (uint32_t i = 0; i < t->merge_count; i++) {
        put_u32(bytes + 12 * (size_t)i, t->merges[i].left);
        put_u32(bytes + 12 * (size_t)i + 4, t->merges[i].right);
        put_u32(bytes + 12 * (size_t)i + 8, t->merges[i].id);
    }
    int code = lk_blob_put(s->blobs, bytes, size, out, err);
    lk_free(bytes);
    return code;
}

/* Sets a key to a new value; a NULL value or object counts as out of memory. */
static void set(json_t *object, const char *key, json_t *value, bool *failed) {
    if (json_object_set_new(object, key, value)) *failed = true;
}

static void set_id(json_t *m, const char *key, uint32_t id, bool *failed) {
    if (id != LK__NO_ID) set(m, key, json_integer(id), failed);
}

/* Keys that stand only where they say something, so that the roots of tokenizers without them stay. */
static void put_traits(json_t *m, const struct lk_tokenizer *t, bool *failed) {
    json_t *added = json_array();
    for (uint32_t id = 0; id < t->vocab; id++)
        if (t->added[id] > LK__SPECIAL && json_array_append_new(added, json_pack("[i,i]", (int)id, t->added[id])))
            *failed = true;
    if (json_array_size(added))
        set(m, "added", added, failed);
    else
        json_decref(added);
    if (t->traits.nfc) {
        set(m, "normalizer", json_string("nfc"), failed);
        set(m, "normalizer_unicode", json_string(lk__tokenizer_nfc_version), failed);
    }
    if (t->traits.whole_words) set(m, "whole_words", json_true(), failed);
    if (t->traits.prefix_space == LK__PREFIX_UNLESS)
        set(m, "prefix_space", json_true(), failed);
    else if (t->traits.prefix_space)
        set(m, "prefix_space", json_string(t->traits.prefix_space == LK__PREFIX_FIRST ? "first" : "each"), failed);
    if (t->traits.characters)
        set(m, "characters",
            json_pack("{s:I,s:s,s:b}", "first_byte", (json_int_t)t->traits.first_byte, "spaces",
                      t->traits.characters == LK__NORMALIZER ? "normalizer" : "metaspace", "strip", (int)t->traits.strip),
            failed);
    struct lk_bytes end = lk_tokenizer_bytes(t, t->traits.end);
    bool usual = end.size == strlen(LK_TOKEN_END) && memcmp(end.data, LK_TOKEN_END, end.size) == 0;
    if (!usual || !lk_tokenizer_is_special(t, t->traits.end)) /* which is found by its text */
        set_id(m, "end", t->traits.end, failed);
    set_id(m, "before", t->traits.before, failed);
    set_id(m, "after", t->traits.after, failed);
}

int lk_tokenizer_save(struct lk_store *s, const struct lk_tokenizer *t, struct lk_root *out, struct lk_err *err) {
    struct lk_root tokens, merges;
    char hex[LK_ROOT_HEX];
    int code = put_tokens(s, t, &tokens, err);
    if (!code) code = put_merges(s, t, &merges, err);
    if (code) return code;
    bool failed = false;
    json_t *m = json_object(), *special = json_array();
    for (uint32_t id = 0; id < t->vocab; id++)
        if (t->added[id] & LK__SPECIAL && json_array_append_new(special, json_integer(id))) failed = true;
    set(m, "format", json_string(FORMAT), &failed);
    set(m, "pattern", json_string(lk_tokenizer_pattern(t)), &failed);
    set(m, "unicode", json_string(lk__tokenizer_unicode_version), &failed);
    set(m, "invalid_utf8", json_string(INVALID_RULE), &failed);
    set(m, "vocab", json_integer(t->vocab), &failed);
    set(m, "merge_count", json_integer(t->merge_count), &failed);
    set(m, "special", special, &failed);
    put_traits(m, t, &failed);
    set(m, "tokens", json_string(lk_root_hex(&tokens, hex)), &failed);
    set(m, "merges", json_string(lk_root_hex(&merges, hex)), &failed);
    code = failed ? lk_fail(err, LK_ENOMEM, "saving a tokenizer: out of memory") : lk_manifest_put(s, m, out, err);
    json_decref(m);
    return code;
}

/* --- loading --------------------------------------------------------------------------------------------- */

static int check_word(const json_t *m, const char *key, const char *want, const char *what, struct lk_err *err) {
    const char *have;
    int code = lk_json_get_string(m, key, what, &have, err);
    if (code) return code;
    if (strcmp(have, want))
        return lk_fail(err, LK_EUNSUPPORTED, "%s: %s is \"%.40s\", this program knows \"%s\"; use the version that made it",
                       what, key, have, want);
    return 0;
}

static int open_part(struct lk_store *s, const json_t *m, const char *key, const char *what, struct lk_blob *out,
                     struct lk_err *err) {
    const char *hex;
    struct lk_root root;
    int code = lk_json_get_string(m, key, what, &hex, err);
    if (code) return code;
    if (!lk_root_parse(hex, &root)) return lk_fail(err, LK_ECORRUPT, "%s: %s is no root", what, key);
    code = lk_blob_open(s->blobs, &root, true, out, err);
    return code ? lk_fail_prefix(err, code, "%s, its %s", what, key) : 0;
}

struct loading {
    struct lk_blob tokens, merges;
    uint64_t *offset;
    uint8_t *added;
    struct lk__tokenizer_traits traits;
    struct lk__tokenizer_merge *list;
};

static int read_tokens(struct loading *l, uint64_t vocab, const char *what, struct lk_err *err) {
    const struct lk_blob *b = &l->tokens;
    if (vocab < 256 || vocab > LK__VOCAB_MAX || b->size < 4 + 4 * vocab || get_u32(b->data) != vocab)
        return lk_fail(err, LK_ECORRUPT, "%s: the tokens do not match a vocabulary of %llu", what,
                       (unsigned long long)vocab);
    l->offset = lk_alloc((size_t)(vocab + 1) * sizeof *l->offset);
    if (!l->offset) return lk_fail(err, LK_ENOMEM, "%s: out of memory", what);
    l->offset[0] = 0;
    for (size_t i = 0; i < vocab; i++) l->offset[i + 1] = l->offset[i] + get_u32(b->data + 4 + 4 * i);
    if (l->offset[vocab] != b->size - 4 - 4 * vocab)
        return lk_fail(err, LK_ECORRUPT, "%s: the tokens' lengths do not add up to their bytes", what);
    return 0;
}

static int read_special(struct loading *l, const json_t *m, uint64_t vocab, const char *what, struct lk_err *err) {
    const json_t *list = json_object_get(m, "special");
    l->added = lk_calloc((size_t)vocab, 1);
    if (!l->added) return lk_fail(err, LK_ENOMEM, "%s: out of memory", what);
    if (!json_is_array(list)) return lk_fail(err, LK_ECORRUPT, "%s: special is no list", what);
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_int_t id = json_integer_value(json_array_get(list, i));
        if (!json_is_integer(json_array_get(list, i)) || id < 0 || (uint64_t)id >= vocab)
            return lk_fail(err, LK_ECORRUPT, "%s: special[%zu] is no id", what, i);
        l->added[id] = LK__SPECIAL;
    }
    return 0;
}

static int read_added(struct loading *l, const json_t *m, uint64_t vocab, const char *what, struct lk_err *err) {
    const json_t *list = json_object_get(m, "added");
    if (list && !json_is_array(list)) return lk_fail(err, LK_ECORRUPT, "%s: added is no list", what);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *one = json_array_get(list, i), *a = json_array_get(one, 0), *b = json_array_get(one, 1);
        json_int_t id = json_integer_value(a), kind = json_integer_value(b);
        if (!json_is_integer(a) || !json_is_integer(b) || id < 0 || (uint64_t)id >= vocab || kind < 1 ||
            kind >= 2 * LK__NORMALIZED || (l->added[id] != 0) != ((kind & LK__SPECIAL) != 0))
            return lk_fail(err, LK_ECORRUPT, "%s: added[%zu] is no id and kind", what, i);
        l->added[id] = (uint8_t)kind;
    }
    return 0;
}

static int read_id(const json_t *m, const char *key, uint64_t vocab, uint32_t *id, const char *what, struct lk_err *err) {
    const json_t *v = json_object_get(m, key);
    if (!v) return 0;
    if (!json_is_integer(v) || json_integer_value(v) < 0 || (uint64_t)json_integer_value(v) >= vocab)
        return lk_fail(err, LK_ECORRUPT, "%s: %s is no id", what, key);
    *id = (uint32_t)json_integer_value(v);
    return 0;
}

/* With characters there is no pattern; without, the pattern is one of ours. */
static int read_pattern(struct loading *l, const json_t *m, uint64_t vocab, const char *what, struct lk_err *err) {
    const json_t *c = json_object_get(m, "characters");
    const char *pattern, *spaces;
    int code = lk_json_get_string(m, "pattern", what, &pattern, err);
    if (code) return code;
    if (!c) {
        l->traits.pattern = lk__tokenizer_pattern_find(pattern);
        if (l->traits.pattern != LK__PATTERN_COUNT) return 0;
    }
    if (!c || strcmp(pattern, "none") != 0)
        return lk_fail(err, LK_EUNSUPPORTED,
                       "%s: pattern is \"%.40s\", this program knows %s; use the version that made it", what, pattern,
                       c ? "none beside characters" : LK_PATTERNS);
    code = lk_json_get_string(c, "spaces", what, &spaces, err);
    if (code) return code;
    bool normalizer = !strcmp(spaces, "normalizer");
    if (!normalizer && strcmp(spaces, "metaspace") != 0)
        return lk_fail(err, LK_EUNSUPPORTED, "%s: characters.spaces is \"%.40s\"; use the version that made it", what,
                       spaces);
    l->traits.characters = normalizer ? LK__NORMALIZER : LK__METASPACE;
    l->traits.strip = json_is_true(json_object_get(c, "strip"));
    return read_id(c, "first_byte", vocab, &l->traits.first_byte, what, err);
}

static int read_prefix(struct loading *l, const json_t *m, const char *what, struct lk_err *err) {
    const json_t *prefix = json_object_get(m, "prefix_space");
    const char *name = json_string_value(prefix);
    if (json_is_true(prefix))
        l->traits.prefix_space = LK__PREFIX_UNLESS;
    else if (name && !strcmp(name, "first"))
        l->traits.prefix_space = LK__PREFIX_FIRST;
    else if (name && !strcmp(name, "each"))
        l->traits.prefix_space = LK__PREFIX_EACH;
    else if (prefix && !json_is_false(prefix))
        return lk_fail(err, LK_EUNSUPPORTED, "%s: prefix_space is not known; use the version that made it", what);
    return 0;
}

static int read_traits(struct loading *l, const json_t *m, uint64_t vocab, const char *what, struct lk_err *err) {
    l->traits = lk__tokenizer_default_traits;
    int code = read_pattern(l, m, vocab, what, err);
    if (code) return code;
    l->traits.nfc = json_object_get(m, "normalizer") != NULL;
    if (l->traits.nfc) {
        code = check_word(m, "normalizer", "nfc", what, err);
        if (!code) code = check_word(m, "normalizer_unicode", lk__tokenizer_nfc_version, what, err);
    }
    l->traits.whole_words = json_is_true(json_object_get(m, "whole_words"));
    if (!code) code = read_prefix(l, m, what, err);
    if (!code) code = read_id(m, "end", vocab, &l->traits.end, what, err);
    if (!code) code = read_id(m, "before", vocab, &l->traits.before, what, err);
    if (!code) code = read_id(m, "after", vocab, &l->traits.after, what, err);
    return code;
}

static int read_merges(struct loading *l, uint64_t count, const char *what, struct lk_err *err) {
    const uint8_t *p = l->merges.data;
    if (count > l->merges.size || l->merges.size != count * 12)
        return lk_fail(err, LK_ECORRUPT, "%s: %zu bytes of merges, not %llu x 12", what, l->merges.size,
                       (unsigned long long)count);
    l->list = lk_alloc((size_t)(count + 1) * sizeof *l->list);
    if (!l->list) return lk_fail(err, LK_ENOMEM, "%s: out of memory", what);
    for (size_t i = 0; i < count; i++, p += 12)
        l->list[i] = (struct lk__tokenizer_merge){get_u32(p), get_u32(p + 4), get_u32(p + 8)};
    return 0;
}

static int read_definition(struct lk_store *s, const json_t *m, struct loading *l, const char *what,
                           struct lk_tokenizer **out, struct lk_err *err) {
    uint64_t vocab, merge_count;
    int code = check_word(m, "format", FORMAT, what, err);
    if (!code) code = check_word(m, "unicode", lk__tokenizer_unicode_version, what, err);
    if (!code) code = check_word(m, "invalid_utf8", INVALID_RULE, what, err);
    if (!code) code = lk_json_get_u64(m, "vocab", what, &vocab, err);
    if (!code) code = lk_json_get_u64(m, "merge_count", what, &merge_count, err);
    if (!code) code = open_part(s, m, "tokens", what, &l->tokens, err);
    if (!code) code = open_part(s, m, "merges", what, &l->merges, err);
    if (!code) code = read_tokens(l, vocab, what, err);
    if (!code) code = read_special(l, m, vocab, what, err);
    if (!code) code = read_added(l, m, vocab, what, err);
    if (!code) code = read_traits(l, m, vocab, what, err);
    if (!code) code = read_merges(l, merge_count, what, err);
    if (code) return code;
    struct lk__tokenizer_definition definition = {.vocab = (uint32_t)vocab,
                                                  .offset = l->offset,
                                                  .bytes = l->tokens.data + 4 + 4 * vocab,
                                                  .added = l->added,
                                                  .traits = &l->traits,
                                                  .merges = l->list,
                                                  .merge_count = (size_t)merge_count};
    return lk__tokenizer_make(&definition, what, out, err);
}

int lk_tokenizer_load(struct lk_store *s, const struct lk_root *root, struct lk_tokenizer **out, struct lk_err *err) {
    json_t *m = NULL;
    char hex[LK_ROOT_HEX], what[40];
    *out = NULL;
    strcpy(what, "tokenizer ");
    memcpy(what + 10, lk_root_hex(root, hex), 12);
    what[22] = 0;
    int code = lk_manifest_get(s, root, what, &m, err);
    if (code) return code;
    struct loading l = {0};
    code = read_definition(s, m, &l, what, out, err);
    if (l.tokens.data) lk_blob_close(&l.tokens);
    if (l.merges.data) lk_blob_close(&l.merges);
    lk_free(l.offset);
    lk_free(l.added);
    lk_free(l.list);
    json_decref(m);
    return code;
}
