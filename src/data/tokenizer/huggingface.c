/* Hugging Face's tokenizer.json. Whatever this program would compute otherwise is refused by its name. */
#include "data/tokenizer/huggingface.h"
#include "data/tokenizer/internal.h"
#include <string.h>

#define ADDED_BYTES 1024 /* of one added token */

static int check_model(struct lk__tokenizer_import *in, const json_t *model, struct lk_err *err) {
    static const char *const known[] = {"type",
                                        "dropout",
                                        "unk_token",
                                        "continuing_subword_prefix",
                                        "end_of_word_suffix",
                                        "fuse_unk",
                                        "byte_fallback",
                                        "ignore_merges",
                                        "vocab",
                                        "merges",
                                        NULL};
    char message[160];
    int code = lk__tokenizer_import_check_keys(in, model, "the model", known, err);
    if (code) return code;
    const json_t *type = lk__tokenizer_import_get(model, "type"); /* older files, GPT-2's own among them, have none */
    if (type && (!json_is_string(type) || strcmp(json_string_value(type), "BPE") != 0)) {
        const char *name = json_string_value(type);
        snprintf(message, sizeof message, "its model is %.60s, not BPE", name ? name : "of a type without a name");
        return lk__tokenizer_import_refuse(in, err, message);
    }
    const json_t *dropout = lk__tokenizer_import_get(model, "dropout");
    if (dropout && json_number_value(dropout) != 0)
        return lk__tokenizer_import_refuse(in, err, "its model has dropout, which makes ids random");
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    for (size_t i = 0; i < 2; i++) {
        const json_t *affix = lk__tokenizer_import_get(model, affixes[i]);
        if (!affix || (json_is_string(affix) && !*json_string_value(affix))) continue;
        snprintf(message, sizeof message, "its model has a %s", affixes[i]);
        return lk__tokenizer_import_refuse(in, err, message);
    }
    in->fallback = json_is_true(lk__tokenizer_import_get(model, "byte_fallback"));
    if (in->fallback && json_is_true(lk__tokenizer_import_get(model, "ignore_merges")))
        return lk__tokenizer_import_refuse(in, err, "its model has both byte_fallback and ignore_merges on");
    if (!json_is_object(lk__tokenizer_import_get(model, "vocab")))
        return lk__tokenizer_import_refuse(in, err, "its model has no vocab");
    if (!json_is_array(lk__tokenizer_import_get(model, "merges")))
        return lk__tokenizer_import_refuse(in, err, "its model has no list of merges");
    return 0;
}

/* --- tokens ---------------------------------------------------------------------------------------------- */

static int note_id(struct lk__tokenizer_import *in, const char *text, const json_t *value, struct lk_err *err) {
    if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) >= LK__VOCAB_MAX)
        return lk_fail(err, LK_EINVAL, "%s: the id of token \"%.60s\" is no number from 0 to %lu", in->name, text,
                       (unsigned long)LK__VOCAB_MAX - 1);
    uint32_t id = (uint32_t)json_integer_value(value);
    if (id >= in->vocab) in->vocab = id + 1;
    return 0;
}

static int place(struct lk__tokenizer_import *in, const char *text, uint32_t id, struct lk_err *err) {
    if (in->texts[id] && strcmp(in->texts[id], text))
        return lk_fail(err, LK_EINVAL, "%s: id %lu is given to both \"%.60s\" and \"%.60s\"", in->name, (unsigned long)id,
                       in->texts[id], text);
    in->texts[id] = text;
    return 0;
}

static int check_added(const struct lk__tokenizer_import *in, const json_t *token, const char *text, struct lk_err *err) {
    static const char *const known[] = {"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special", NULL};
    int code = lk__tokenizer_import_check_keys(in, token, "an added token", known, err);
    if (code) return code;
    if (strlen(text) > ADDED_BYTES) /* they are looked for at every place of a text */
        return lk_fail(err, LK_EUNSUPPORTED, "%s: added token \"%.60s...\" is longer than %d bytes", in->name, text,
                       ADDED_BYTES);
    if (json_is_true(json_object_get(token, "single_word")))
        return lk_fail(err, LK_EUNSUPPORTED, "%s: added token \"%.60s\" has single_word on, which is not computed",
                       in->name, text);
    const json_t *id = json_object_get(in->vocab_map, text);
    uint32_t c;
    if (id && !in->fallback && lk__tokenizer_utf8_decode((const uint8_t *)text, strlen(text), &c) == strlen(text) &&
        lk__tokenizer_char_to_byte(c) >= 0)
        return lk_fail(
            err, LK_EUNSUPPORTED,
            "%s: added token \"%s\" is the vocab's token of byte 0x%02x, which no text could be made of then: take "
            "it out of added_tokens",
            in->name, text, (unsigned)lk__tokenizer_char_to_byte(c));
    if (id && !json_equal(id, json_object_get(token, "id")))
        return lk_fail(err, LK_EINVAL, "%s: added token \"%.60s\" has another id in the vocab", in->name, text);
    return 0;
}

static uint8_t kind_of(const json_t *token) {
    uint8_t kind = json_is_true(json_object_get(token, "special")) ? LK__SPECIAL : LK__ADDED;
    if (json_is_true(json_object_get(token, "lstrip"))) kind |= LK__LSTRIP;
    if (json_is_true(json_object_get(token, "rstrip"))) kind |= LK__RSTRIP;
    if (json_is_true(json_object_get(token, "normalized"))) kind |= LK__NORMALIZED;
    return kind;
}

/* Without a normalizer it matters only where some are normalized and some are not: these are looked for first. */
static void drop_normalized(struct lk__tokenizer_import *in) {
    bool all = !in->traits.nfc && in->traits.characters != LK__NORMALIZER;
    for (uint32_t id = 0; id < in->vocab; id++) all &= !in->added[id] || in->added[id] & LK__NORMALIZED;
    for (uint32_t id = 0; all && id < in->vocab; id++) in->added[id] &= (uint8_t)~LK__NORMALIZED;
}

/* Finds the size of the vocabulary, then which text every id has. */
static int collect(struct lk__tokenizer_import *in, const json_t *added, struct lk_err *err) {
    const char *text;
    json_t *value;
    size_t i;
    int code = 0;
    json_object_foreach(in->vocab_map, text, value) {
        if ((code = note_id(in, text, value, err))) return code;
    }
    json_array_foreach(added, i, value) {
        text = json_string_value(json_object_get(value, "content"));
        if (!text || !*text) return lk_fail(err, LK_EINVAL, "%s: added_tokens[%zu] has no content", in->name, i);
        if ((code = note_id(in, text, json_object_get(value, "id"), err))) return code;
        if ((code = check_added(in, value, text, err))) return code;
    }
    in->texts = lk_calloc((size_t)in->vocab + 1, sizeof(char *));
    in->added = lk_calloc((size_t)in->vocab + 1, 1);
    in->offset = lk_calloc((size_t)in->vocab + 1, sizeof *in->offset);
    if (!in->texts || !in->added || !in->offset) return lk_fail(err, LK_ENOMEM, "%s: out of memory", in->name);
    json_object_foreach(in->vocab_map, text, value) {
        if ((code = place(in, text, (uint32_t)json_integer_value(value), err))) return code;
    }
    json_array_foreach(added, i, value) {
        uint32_t id = (uint32_t)json_integer_value(json_object_get(value, "id"));
        if ((code = place(in, json_string_value(json_object_get(value, "content")), id, err))) return code;
        in->added[id] = kind_of(value);
    }
    drop_normalized(in);
    return 0;
}

/* A token of SentencePiece's: the byte that "<0xNN>" stands for, else its text with spaces for U+2581. */
static int append_characters(struct lk__tokenizer_import *in, uint32_t id, struct lk_err *err) {
    const char *text = in->texts[id];
    uint32_t byte = id - in->traits.first_byte;
    char name[16];
    if (id >= in->traits.first_byte && byte < 256) {
        snprintf(name, sizeof name, "<0x%02X>", (unsigned)byte);
        if (strcmp(text, name) != 0)
            return lk_fail(err, LK_EUNSUPPORTED,
                           "%s: id %lu is \"%.60s\", not %s; tokens of bytes must follow <0x00> in order", in->name,
                           (unsigned long)id, text, name);
        return lk_buf_append(&in->bytes, &(char){(char)byte}, 1) ? LK_ENOMEM : 0;
    }
    if (strchr(text, ' '))
        return lk_fail(err, LK_EUNSUPPORTED, "%s: token %lu \"%.60s\" has a space, which no text gives beside U+2581",
                       in->name, (unsigned long)id, text);
    return lk__tokenizer_spaces((const uint8_t *)text, strlen(text), false, true, &in->bytes, NULL);
}

/* The token of byte 0; the others must follow it. */
static int find_first_byte(struct lk__tokenizer_import *in, struct lk_err *err) {
    const json_t *id = json_object_get(in->vocab_map, "<0x00>");
    if (!in->traits.characters) return 0;
    if (!id) return lk__tokenizer_import_refuse(in, err, "its model has byte_fallback on, but no token <0x00>");
    in->traits.first_byte = (uint32_t)json_integer_value(id);
    return 0;
}

static int append_token(struct lk__tokenizer_import *in, uint32_t id, struct lk_err *err) {
    const uint8_t *p = (const uint8_t *)in->texts[id];
    size_t size = strlen(in->texts[id]);
    if (in->added[id]) return lk_buf_append(&in->bytes, p, size) ? LK_ENOMEM : 0;
    if (in->traits.characters) return append_characters(in, id, err);
    while (size) {
        uint32_t c = 0;
        size_t length = lk__tokenizer_utf8_decode(p, size, &c);
        int byte = length ? lk__tokenizer_char_to_byte(c) : -1;
        if (byte < 0)
            return lk_fail(err, LK_EUNSUPPORTED,
                           "%s: token %lu \"%.60s\" has a character that stands for no byte; only "
                           "byte-level vocabularies are read",
                           in->name, (unsigned long)id, in->texts[id]);
        char b = (char)byte;
        if (lk_buf_append(&in->bytes, &b, 1)) return LK_ENOMEM;
        p += length;
        size -= length;
    }
    return 0;
}

static int make_bytes(struct lk__tokenizer_import *in, struct lk_err *err) {
    for (uint32_t id = 0; id < in->vocab; id++) {
        int code = in->texts[id] ? append_token(in, id, err) : 0;
        if (code == LK_ENOMEM) return lk_fail(err, code, "%s: out of memory", in->name);
        if (code) return code;
        in->offset[id + 1] = in->bytes.size;
    }
    return 0;
}

/* --- merges ---------------------------------------------------------------------------------------------- */

static int id_of(const struct lk__tokenizer_import *in, const char *text, size_t size, size_t index, uint32_t *id,
                 struct lk_err *err) {
    const json_t *v = json_object_getn(in->vocab_map, text, size);
    if (!v)
        return lk_fail(err, LK_EINVAL, "%s: merges[%zu] needs the token \"%.*s\", which is not in the vocab", in->name,
                       index, size > 60 ? 60 : (int)size, text);
    *id = (uint32_t)json_integer_value(v);
    return 0;
}

/* A merge is "a b" or ["a", "b"]. */
static int read_merge(struct lk__tokenizer_import *in, const json_t *value, size_t index, struct lk_buf *both,
                      struct lk_err *err) {
    const char *a = NULL, *b = NULL;
    size_t a_size = 0, b_size = 0;
    if (json_is_string(value)) {
        const char *space = strchr(json_string_value(value), ' ');
        a = json_string_value(value);
        if (space && !strchr(space + 1, ' ')) {
            a_size = (size_t)(space - a);
            b = space + 1;
            b_size = strlen(b);
        }
    } else if (json_array_size(value) == 2) {
        a = json_string_value(json_array_get(value, 0));
        b = json_string_value(json_array_get(value, 1));
        a_size = a ? strlen(a) : 0;
        b_size = b ? strlen(b) : 0;
    }
    if (!a_size || !b_size)
        return lk_fail(err, LK_EINVAL, "%s: merges[%zu] is neither \"a b\" nor [\"a\", \"b\"]", in->name, index);
    struct lk__tokenizer_merge *m = &in->merges[index];
    both->size = 0;
    if (lk_buf_append(both, a, a_size) || lk_buf_append(both, b, b_size))
        return lk_fail(err, LK_ENOMEM, "%s: out of memory", in->name);
    int code = id_of(in, a, a_size, index, &m->left, err);
    if (!code) code = id_of(in, b, b_size, index, &m->right, err);
    if (!code) code = id_of(in, both->data, both->size, index, &m->id, err);
    return code;
}

static int read_merges(struct lk__tokenizer_import *in, const json_t *list, struct lk_err *err) {
    struct lk_buf both = LK_BUF_INIT;
    in->merge_count = json_array_size(list);
    in->merges = lk_calloc(in->merge_count + 1, sizeof *in->merges);
    if (!in->merges) return lk_fail(err, LK_ENOMEM, "%s: out of memory", in->name);
    int code = 0;
    for (size_t i = 0; !code && i < in->merge_count; i++) code = read_merge(in, json_array_get(list, i), i, &both, err);
    lk_buf_release(&both);
    return code;
}

/* ignore_merges takes a word that is a token as that token. That is the same unless the merges make something else of it.
 */
int lk__tokenizer_whole_words_matter(const struct lk_tokenizer *t, const char *name, bool *matter, struct lk_err *err) {
    struct lk__tokenizer_scratch scratch = {0};
    uint32_t *ids = lk_alloc(LK__TOKEN_MAX * sizeof *ids);
    int64_t n = ids ? 1 : LK_ENOMEM;
    for (uint32_t id = 0; n == 1 && id < t->vocab; id++) {
        struct lk_bytes b = lk_tokenizer_bytes(t, id);
        if (t->added[id] || !b.size || lk__tokenizer_word_end(t->traits.pattern, b.data, 0, b.size) != b.size) continue;
        n = lk__tokenizer_bpe(t, &scratch, b.data, b.size, ids);
    }
    *matter = n != 1;
    lk_free(scratch.memory);
    lk_free(ids);
    return n < 0 ? lk_fail(err, LK_ENOMEM, "%s: out of memory", name) : 0;
}

/* The end token: the one asked for, else the first of those that stand for it in the families in use. */
static int find_end(struct lk__tokenizer_import *in, const char *end, struct lk_err *err) {
    static const char *const names[] = {LK_TOKEN_END, "<|end_of_text|>", "</s>"};
    for (size_t i = 0; i < (end ? 1 : 3); i++)
        for (uint32_t id = 0; id < in->vocab; id++)
            if (in->added[id] && (end || in->added[id] & LK__SPECIAL) && !strcmp(in->texts[id], end ? end : names[i])) {
                in->traits.end = id;
                return 0;
            }
    return end ? lk_fail(err, LK_EINVAL, "%s: there is no added token \"%.60s\" to end a text with", in->name, end) : 0;
}

static int import_definition(struct lk__tokenizer_import *in, const json_t *root, const char *end,
                             struct lk_tokenizer **out, struct lk_err *err) {
    if (!json_is_object(root)) return lk_fail(err, LK_EINVAL, "%s: not a JSON object", in->name);
    const json_t *model = lk__tokenizer_import_get(root, "model"), *added = lk__tokenizer_import_get(root, "added_tokens");
    if (!json_is_object(model)) return lk__tokenizer_import_refuse(in, err, "it has no model");
    if (added && !json_is_array(added)) return lk_fail(err, LK_EINVAL, "%s: added_tokens is no list", in->name);
    int code = check_model(in, model, err);
    if (!code) code = lk__tokenizer_read_pipeline(in, root, err);
    if (code) return code;
    in->vocab_map = json_object_get(model, "vocab");
    code = collect(in, added, err);
    if (!code) code = find_first_byte(in, err);
    if (!code) code = make_bytes(in, err);
    if (!code) code = read_merges(in, json_object_get(model, "merges"), err);
    if (!code) code = lk__tokenizer_read_template(in, lk__tokenizer_import_get(root, "post_processor"), err);
    if (!code) code = find_end(in, end, err);
    if (code) return code;
    struct lk__tokenizer_definition definition = {.vocab = in->vocab,
                                                  .offset = in->offset,
                                                  .bytes = (const uint8_t *)in->bytes.data,
                                                  .added = in->added,
                                                  .traits = &in->traits,
                                                  .merges = in->merges,
                                                  .merge_count = in->merge_count};
    code = lk__tokenizer_make(&definition, in->name, out, err);
    if (code || !json_is_true(lk__tokenizer_import_get(model, "ignore_merges"))) return code;
    code = lk__tokenizer_whole_words_matter(*out, in->name, &in->traits.whole_words, err);
    if (!code && !in->traits.whole_words) return 0;
    lk_tokenizer_free(*out);
    *out = NULL;
    return code ? code : lk__tokenizer_make(&definition, in->name, out, err);
}

int lk__tokenizer_import_value(const json_t *root, const char *name, const char *end, struct lk_tokenizer **out,
                               struct lk_err *err) {
    struct lk__tokenizer_import in = {.name = name, .traits = lk__tokenizer_default_traits, .text_begin = LK__NO_ID};
    int code = import_definition(&in, root, end, out, err);
    if (!code) (*out)->text_begin = in.text_begin;
    lk_free(in.texts);
    lk_free(in.added);
    lk_free(in.offset);
    lk_free(in.merges);
    lk_buf_release(&in.bytes);
    return code;
}

int lk_tokenizer_import_end(const void *json, size_t size, const char *name, const char *end, struct lk_tokenizer **out,
                            struct lk_err *err) {
    *out = NULL;
    json_t *root = lk_json_parse(json, size, name, err);
    if (!root) return err ? err->code : LK_EINVAL;
    int code = lk__tokenizer_import_value(root, name, end, out, err);
    json_decref(root);
    return code;
}

int lk_tokenizer_import(const void *json, size_t size, const char *name, struct lk_tokenizer **out, struct lk_err *err) {
    return lk_tokenizer_import_end(json, size, name, NULL, out, err);
}

int lk_tokenizer_check_ids(const void *json, size_t size, const char *name, struct lk_err *err) {
    json_t *root = lk_json_parse(json, size, name, err);
    if (!root) return err ? err->code : LK_EINVAL;
    const json_t *vocab = json_object_get(json_object_get(root, "model"), "vocab");
    const json_t *added = json_object_get(root, "added_tokens");
    struct lk__tokenizer_library library = {.entries = json_object_size(vocab)};
    int code = 0;
    for (size_t i = 0; !code && i < json_array_size(added); i++) {
        const json_t *token = json_array_get(added, i);
        const char *text = json_string_value(json_object_get(token, "content"));
        json_int_t id = json_integer_value(json_object_get(token, "id"));
        uint64_t got = lk__tokenizer_library_id(&library, text && json_object_get(vocab, text), (uint32_t)id);
        if (got == (uint64_t)id) continue;
        code = lk_fail(err, LK_EUNSUPPORTED,
                       "%s: added token \"%.60s\" says that its id is %lld, but the tokenizers library does not go by that "
                       "number and gives it %llu: write the id %llu there if the model learned with that library",
                       name, text ? text : "", (long long)id, (unsigned long long)got, (unsigned long long)got);
    }
    json_decref(root);
    return code;
}
