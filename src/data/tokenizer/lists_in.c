/* The lists of a GGUF file as a tokenizer: written as the tokenizer.json that says the same, and read like one, so that
 * what holds for those holds here. */
#include "data/tokenizer/huggingface.h"
#include "data/tokenizer/lists.h"
#include <stdlib.h>
#include <string.h>

#define MARK        LK__MARK
#define PIECE_BYTES 4096 /* of SentencePiece's: every way to cut one is looked up */

struct importing {
    const struct lk_tokenizer_lists *lists;
    const char *name;
    bool characters;
    json_t *vocab, *added, *merges; /* borrowed: parts of the tokenizer.json */
    struct lk_err *err;
};

static int no_memory(const struct importing *in) {
    return lk_fail(in->err, LK_ENOMEM, "%s: no memory for its tokenizer", in->name);
}

static int32_t type_of(const struct importing *in, size_t id) {
    return in->lists->types ? in->lists->types[id] : LK_LIST_NORMAL;
}

/* --- Tokens ---------------------------------------------------------------------------------------------- */

/* Looked for in a text as it stands. */
static bool is_added(int32_t type) {
    return type == LK_LIST_UNKNOWN || type == LK_LIST_CONTROL || type == LK_LIST_USER;
}

static int add_token(struct importing *in, size_t id) {
    const struct lk_bytes b = in->lists->tokens[id];
    int32_t type = type_of(in, id);
    const char *text = b.data;
    if (type == LK_LIST_UNUSED || !b.size) return 0;
    if (type < LK_LIST_NORMAL || type > LK_LIST_BYTE || (type == LK_LIST_BYTE && !in->characters))
        return lk_fail(in->err, LK_EUNSUPPORTED, "%s: token %zu has type %ld, which is not known here", in->name, id,
                       (long)type);
    if (memchr(text, 0, b.size) || !lk__tokenizer_is_utf8(text, b.size))
        return lk_fail(in->err, LK_EUNSUPPORTED, "%s: token %zu is no text in UTF-8 without zeros", in->name, id);
    if (is_added(type)) {
        json_t *v =
            json_pack("{s:I, s:s%, s:b}", "id", (json_int_t)id, "content", text, b.size, "special", type != LK_LIST_USER);
        return v && !json_array_append_new(in->added, v) ? 0 : no_memory(in);
    }
    if (json_object_getn(in->vocab, text, b.size))
        return lk_fail(in->err, LK_EINVAL, "%s: tokens %lld and %zu have the same text", in->name,
                       (long long)json_integer_value(json_object_getn(in->vocab, text, b.size)), id);
    return json_object_setn_new(in->vocab, text, b.size, json_integer((json_int_t)id)) ? no_memory(in) : 0;
}

static int add_tokens(struct importing *in) {
    int code = 0;
    if (in->lists->count >= LK__VOCAB_MAX)
        return lk_fail(in->err, LK_EINVAL, "%s: its tokenizer has %zu tokens; at most %lu are read", in->name,
                       in->lists->count, (unsigned long)LK__VOCAB_MAX);
    for (size_t id = 0; id < in->lists->count && !code; id++) code = add_token(in, id);
    return code;
}

/* --- Merges ---------------------------------------------------------------------------------------------- */

static int add_listed_merges(struct importing *in) {
    for (size_t i = 0; i < in->lists->merge_count; i++) {
        const struct lk_bytes b = in->lists->merges[i];
        if (!lk__tokenizer_is_utf8(b.data, b.size))
            return lk_fail(in->err, LK_EINVAL, "%s: merge %zu is no text in UTF-8", in->name, i);
        if (json_array_append_new(in->merges, json_stringn(b.data, b.size))) return no_memory(in);
    }
    return 0;
}

/* A way to make a token of two. */
struct way {
    float score;
    uint32_t id, left, right; /* left, right: characters of the parts */
    size_t cut;               /* bytes of the left part */
};

/* In the order in which Hugging Face's converter lists them: the best score first, then the longer left part, then the
 * longer right one; pieces of equal score stay in the order of their ids. */
static int by_rank(const void *a, const void *b) {
    const struct way *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    if (x->left != y->left) return x->left > y->left ? -1 : 1;
    if (x->right != y->right) return x->right > y->right ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

/* Whether a text is a token that merges make or use. */
static bool is_piece(const struct importing *in, const char *text, size_t size) {
    const json_t *id = json_object_getn(in->vocab, text, size);
    return id && type_of(in, (size_t)json_integer_value(id)) == LK_LIST_NORMAL;
}

static bool is_continuation(char c) {
    return ((unsigned char)c & 0xC0) == 0x80;
}

static int add_ways(struct importing *in, uint32_t id, struct lk_buf *ways) {
    const struct lk_bytes b = in->lists->tokens[id];
    const char *text = b.data;
    uint32_t characters = 0, left = 0;
    if (b.size > PIECE_BYTES)
        return lk_fail(in->err, LK_EUNSUPPORTED, "%s: token %lu has %zu bytes, more than %d", in->name, (unsigned long)id,
                       b.size, PIECE_BYTES);
    for (size_t i = 0; i < b.size; i++) characters += !is_continuation(text[i]);
    for (size_t cut = 1; cut < b.size; cut++) {
        if (is_continuation(text[cut])) continue;
        left++;
        if (!is_piece(in, text, cut) || !is_piece(in, text + cut, b.size - cut)) continue;
        struct way w = {in->lists->scores[id], id, left, characters - left, cut};
        if (lk_buf_append(ways, &w, sizeof w)) return no_memory(in);
    }
    return 0;
}

/* SentencePiece joins the two neighbours whose token has the best score. */
static int add_scored_merges(struct importing *in) {
    struct lk_buf ways = LK_BUF_INIT, text = LK_BUF_INIT;
    int code = 0;
    if (!in->lists->scores) return lk_fail(in->err, LK_EINVAL, "%s: it has no tokenizer.ggml.scores", in->name);
    for (size_t id = 0; id < in->lists->count && !code; id++) {
        float score = in->lists->scores[id];
        if (!(score - score == 0))
            code = lk_fail(in->err, LK_EINVAL, "%s: the score of token %zu is no finite number", in->name, id);
        else if (type_of(in, id) == LK_LIST_NORMAL)
            code = add_ways(in, (uint32_t)id, &ways);
    }
    size_t count = ways.size / sizeof(struct way);
    struct way *w = (struct way *)(void *)ways.data;
    if (!code && count) qsort(w, count, sizeof *w, by_rank);
    for (size_t i = 0; i < count && !code; i++) {
        const struct lk_bytes b = in->lists->tokens[w[i].id];
        text.size = 0;
        bool bad = lk_buf_append(&text, b.data, w[i].cut) || lk_buf_append(&text, " ", 1) ||
                   lk_buf_append(&text, (const char *)b.data + w[i].cut, b.size - w[i].cut);
        if (bad || json_array_append_new(in->merges, json_stringn(text.data, text.size))) code = no_memory(in);
    }
    lk_buf_release(&ways);
    lk_buf_release(&text);
    return code;
}

/* --- Around them ----------------------------------------------------------------------------------------- */

static json_t *byte_level(bool regex) {
    return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 1, "use_regex",
                     (int)regex);
}

/* NULL: no memory. */
static json_t *pre_tokenizer(enum lk__tokenizer_pattern p) {
    if (p == LK__GPT2) return byte_level(true);
    if (p == LK__SMOLLM)
        return json_pack("{s:s, s:[{s:s, s:b}, o]}", "type", "Sequence", "pretokenizers", "type", "Digits",
                         "individual_digits", 1, byte_level(true));
    return json_pack("{s:s, s:[{s:s, s:{s:s}, s:s, s:b}, o]}", "type", "Sequence", "pretokenizers", "type", "Split",
                     "pattern", "Regex", lk__tokenizer_pattern_files[p], "behavior", "Isolated", "invert", 0,
                     byte_level(false));
}

static json_t *replace(const char *from, const char *to) {
    return json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace", "pattern", "String", from, "content", to);
}

/* Spaces and bytes of SentencePiece's; nonzero: no memory. */
static int set_characters(json_t *root, bool prefix) {
    json_t *normalizers = json_array(), *decoders = json_array();
    int bad = json_object_set_new(root, "normalizer",
                                  json_pack("{s:s, s:o}", "type", "Sequence", "normalizers", json_incref(normalizers))) ||
              json_object_set_new(root, "decoder",
                                  json_pack("{s:s, s:o}", "type", "Sequence", "decoders", json_incref(decoders)));
    if (prefix)
        bad = bad || json_array_append_new(normalizers, json_pack("{s:s, s:s}", "type", "Prepend", "prepend", MARK));
    bad = bad || json_array_append_new(normalizers, replace(" ", MARK)) ||
          json_array_append_new(decoders, replace(MARK, " ")) ||
          json_array_append_new(decoders, json_pack("{s:s}", "type", "ByteFallback")) ||
          json_array_append_new(decoders, json_pack("{s:s}", "type", "Fuse"));
    if (prefix)
        bad = bad || json_array_append_new(decoders, json_pack("{s:s, s:s, s:i, s:i}", "type", "Strip", "content", " ",
                                                               "start", 1, "stop", 0));
    json_decref(normalizers);
    json_decref(decoders);
    return bad;
}

/* The tokens around a text, each under a name of its own; nonzero: no memory. */
static int set_template(const struct lk_tokenizer_lists *l, json_t *root) {
    json_t *single = json_array(), *names = json_object();
    int bad = 0;
    for (int i = 0; i < 3 && !bad; i++) {
        static const char *const roles[] = {"before", "A", "after"};
        uint32_t id = i == 0 ? l->before : l->after;
        if (i == 1)
            bad = json_array_append_new(single, json_pack("{s:{s:s, s:i}}", "Sequence", "id", "A", "type_id", 0));
        else if (id != LK__NO_ID)
            bad =
                json_array_append_new(single, json_pack("{s:{s:s, s:i}}", "SpecialToken", "id", roles[i], "type_id", 0)) ||
                json_object_set_new(names, roles[i], json_pack("{s:[I]}", "ids", (json_int_t)id));
    }
    return json_object_set_new(
               root, "post_processor",
               json_pack("{s:s, s:o, s:o}", "type", "TemplateProcessing", "single", single, "special_tokens", names)) ||
           bad;
}

static const struct {
    const char *name;
    bool characters;
} models[] = {{"gpt2", false}, {"llama", true}};

static int find_pattern(struct importing *in, size_t *pattern) {
    const struct lk_tokenizer_lists *l = in->lists;
    size_t model = 0, i = 0;
    while (model < 2 && strcmp(models[model].name, l->model)) model++;
    if (model == 2)
        return lk_fail(in->err, LK_EUNSUPPORTED,
                       "%s: tokenizer.ggml.model = \"%.60s\" is not computed here; gpt2 and llama are", in->name, l->model);
    in->characters = models[model].characters;
    if (in->characters) return 0;
    while (l->pattern && i < LK__LIST_PATTERNS && strcmp(lk__tokenizer_list_patterns[i].name, l->pattern)) i++;
    if (!l->pattern || i == LK__LIST_PATTERNS)
        return lk_fail(in->err, LK_EUNSUPPORTED,
                       "%s: tokenizer.ggml.pre %s%.60s%s, a way to cut texts that is not computed here; gpt-2, llama-bpe, "
                       "qwen2 and smollm are",
                       in->name, l->pattern ? "= \"" : "is missing", l->pattern ? l->pattern : "", l->pattern ? "\"" : "");
    *pattern = i;
    return 0;
}

/* The token between documents: the one that is said where the rule of a tokenizer.json finds none, or another. */
static int end_text(const struct importing *in, char **out) {
    const struct lk_tokenizer_lists *l = in->lists;
    *out = NULL;
    if (l->end >= l->count || !is_added(type_of(in, l->end))) return 0;
    *out = lk_strndup(l->tokens[l->end].data, l->tokens[l->end].size);
    return *out ? 0 : no_memory(in);
}

int lk_tokenizer_import_lists(const struct lk_tokenizer_lists *lists, const char *name, struct lk_tokenizer **out,
                              struct lk_err *err) {
    struct importing in = {.lists = lists, .name = name, .err = err};
    size_t pattern = 0;
    char *end = NULL;
    *out = NULL;
    int code = find_pattern(&in, &pattern);
    if (code) return code;
    in.vocab = json_object();
    in.added = json_array();
    in.merges = json_array();
    json_t *root =
        json_pack("{s:s, s:o, s:{s:s, s:b, s:b, s:o, s:o}}", "version", "1.0", "added_tokens", in.added, "model", "type",
                  "BPE", "byte_fallback", in.characters, "ignore_merges",
                  !in.characters && lk__tokenizer_list_patterns[pattern].whole, "vocab", in.vocab, "merges", in.merges);
    if (!root) return no_memory(&in);
    bool bad = in.characters ? set_characters(root, lists->space_prefix)
                             : json_object_set_new(root, "pre_tokenizer",
                                                   pre_tokenizer(lk__tokenizer_list_patterns[pattern].pattern));
    if (bad || set_template(lists, root)) code = no_memory(&in);
    if (!code) code = add_tokens(&in);
    if (!code) code = in.characters ? add_scored_merges(&in) : add_listed_merges(&in);
    if (!code) code = end_text(&in, &end);
    if (!code) code = lk__tokenizer_import_value(root, name, end, out, err);
    lk_free(end);
    json_decref(root);
    return code;
}
