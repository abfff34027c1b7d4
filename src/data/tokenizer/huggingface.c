/* Hugging Face's tokenizer.json. Whatever this program would compute otherwise is refused by its name. */
#include "data/tokenizer/internal.h"
#include "data/tokenizer/pretoken.h"
#include <string.h>

struct importing {
    const char *name;
    uint32_t vocab;
    uint64_t *offset;
    struct lk_buf bytes;
    uint8_t *special;
    const char **texts; /* by id, as in the file; NULL for a hole */
    json_t *vocab_map;  /* borrowed */
    struct lk__merge *merges;
    size_t merge_count;
};

static int refuse(const struct importing *in, struct lk_err *err, const char *what) {
    return lk_fail(err, LK_EUNSUPPORTED,
                   "%s: %s; only byte-level BPE with GPT-2's pattern is read (model BPE, pre_tokenizer ByteLevel with "
                   "add_prefix_space false and use_regex true, no normalizer)",
                   in->name, what);
}

/* Absent and null are the same in these files. */
static const json_t *get(const json_t *object, const char *key) {
    const json_t *v = json_object_get(object, key);
    return json_is_null(v) ? NULL : v;
}

static int check_keys(const struct importing *in, const json_t *object, const char *where, const char *const *known,
                      struct lk_err *err) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, key, value) {
        size_t i = 0;
        while (known[i] && strcmp(known[i], key)) i++;
        if (known[i] || json_is_null(value)) continue;
        return lk_fail(err, LK_EUNSUPPORTED, "%s: %s has the key \"%.60s\", which this program does not know", in->name,
                       where, key);
    }
    return 0;
}

static int check_byte_level(const struct importing *in, const json_t *part, const char *where, bool splits,
                            struct lk_err *err) {
    char message[160];
    if (!part) return 0;
    const char *type = json_string_value(json_object_get(part, "type"));
    if (!type || strcmp(type, "ByteLevel")) {
        snprintf(message, sizeof message, "its %s is %.60s, not ByteLevel", where, type ? type : "without a type");
        return refuse(in, err, message);
    }
    if (!splits) return 0;
    const json_t *prefix = get(part, "add_prefix_space"), *regex = get(part, "use_regex");
    if (!json_is_false(prefix)) return refuse(in, err, "its pre_tokenizer has add_prefix_space on");
    if (regex && !json_is_true(regex)) return refuse(in, err, "its pre_tokenizer has use_regex off");
    return 0;
}

static int check_pipeline(const struct importing *in, const json_t *root, struct lk_err *err) {
    static const char *const known[] = {"version",       "truncation",     "padding", "added_tokens", "normalizer",
                                        "pre_tokenizer", "post_processor", "decoder", "model",        NULL};
    static const char *const absent[] = {"normalizer", "truncation", "padding"};
    int code = check_keys(in, root, "the file", known, err);
    if (code) return code;
    const char *version = json_string_value(json_object_get(root, "version"));
    if (!version || strcmp(version, "1.0")) return refuse(in, err, "its version is not \"1.0\"");
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++) {
        const json_t *part = get(root, absent[i]);
        char message[160];
        if (!part) continue;
        const char *type = json_string_value(json_object_get(part, "type"));
        snprintf(message, sizeof message, "it has a %s%s%.60s; set it to null if its effect is not wanted", absent[i],
                 type ? " " : "", type ? type : "");
        return refuse(in, err, message);
    }
    if (!get(root, "pre_tokenizer")) return refuse(in, err, "it has no pre_tokenizer");
    code = check_byte_level(in, get(root, "pre_tokenizer"), "pre_tokenizer", true, err);
    if (!code) code = check_byte_level(in, get(root, "post_processor"), "post_processor", false, err);
    if (!code) code = check_byte_level(in, get(root, "decoder"), "decoder", false, err);
    return code;
}

static int check_model(const struct importing *in, const json_t *model, struct lk_err *err) {
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
    int code = check_keys(in, model, "the model", known, err);
    if (code) return code;
    const json_t *type = get(model, "type"); /* older files, GPT-2's own among them, have none */
    if (type && (!json_is_string(type) || strcmp(json_string_value(type), "BPE") != 0)) {
        const char *name = json_string_value(type);
        snprintf(message, sizeof message, "its model is %.60s, not BPE", name ? name : "of a type without a name");
        return refuse(in, err, message);
    }
    const json_t *dropout = get(model, "dropout");
    if (dropout && json_number_value(dropout) != 0) return refuse(in, err, "its model has dropout, which makes ids random");
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    for (size_t i = 0; i < 2; i++) {
        const json_t *affix = get(model, affixes[i]);
        if (!affix || (json_is_string(affix) && !*json_string_value(affix))) continue;
        snprintf(message, sizeof message, "its model has a %s", affixes[i]);
        return refuse(in, err, message);
    }
    if (json_is_true(get(model, "byte_fallback"))) return refuse(in, err, "its model has byte_fallback on");
    if (!json_is_object(get(model, "vocab"))) return refuse(in, err, "its model has no vocab");
    if (!json_is_array(get(model, "merges"))) return refuse(in, err, "its model has no list of merges");
    return 0;
}

/* --- tokens ---------------------------------------------------------------------------------------------- */

static int note_id(struct importing *in, const char *text, const json_t *value, struct lk_err *err) {
    if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) >= LK__VOCAB_MAX)
        return lk_fail(err, LK_EINVAL, "%s: the id of token \"%.60s\" is no number from 0 to %lu", in->name, text,
                       (unsigned long)LK__VOCAB_MAX - 1);
    uint32_t id = (uint32_t)json_integer_value(value);
    if (id >= in->vocab) in->vocab = id + 1;
    return 0;
}

static int place(struct importing *in, const char *text, uint32_t id, struct lk_err *err) {
    if (in->texts[id] && strcmp(in->texts[id], text))
        return lk_fail(err, LK_EINVAL, "%s: id %lu is given to both \"%.60s\" and \"%.60s\"", in->name, (unsigned long)id,
                       in->texts[id], text);
    in->texts[id] = text;
    return 0;
}

static int check_added(const struct importing *in, const json_t *token, const char *text, struct lk_err *err) {
    static const char *const known[] = {"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special", NULL};
    int code = check_keys(in, token, "an added token", known, err);
    if (code) return code;
    if (!json_is_true(json_object_get(token, "special")))
        return lk_fail(err, LK_EUNSUPPORTED,
                       "%s: added token \"%.60s\" is not special, so it would change how plain text is encoded; mark it "
                       "special or take it out",
                       in->name, text);
    const json_t *id = json_object_get(in->vocab_map, text);
    if (id && !json_equal(id, json_object_get(token, "id")))
        return lk_fail(err, LK_EINVAL, "%s: added token \"%.60s\" has another id in the vocab", in->name, text);
    return 0;
}

/* Finds the size of the vocabulary, then which text every id has. */
static int collect(struct importing *in, const json_t *added, struct lk_err *err) {
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
    in->special = lk_calloc((size_t)in->vocab + 1, 1);
    in->offset = lk_calloc((size_t)in->vocab + 1, sizeof *in->offset);
    if (!in->texts || !in->special || !in->offset) return lk_fail(err, LK_ENOMEM, "%s: out of memory", in->name);
    json_object_foreach(in->vocab_map, text, value) {
        if ((code = place(in, text, (uint32_t)json_integer_value(value), err))) return code;
    }
    json_array_foreach(added, i, value) {
        uint32_t id = (uint32_t)json_integer_value(json_object_get(value, "id"));
        if ((code = place(in, json_string_value(json_object_get(value, "content")), id, err))) return code;
        in->special[id] = 1;
    }
    return 0;
}

static int append_token(struct importing *in, uint32_t id, struct lk_err *err) {
    const uint8_t *p = (const uint8_t *)in->texts[id];
    size_t size = strlen(in->texts[id]);
    if (in->special[id]) return lk_buf_append(&in->bytes, p, size) ? LK_ENOMEM : 0;
    while (size) {
        uint32_t c = 0;
        size_t length = lk__utf8_decode(p, size, &c);
        int byte = length ? lk__char_to_byte(c) : -1;
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

static int make_bytes(struct importing *in, struct lk_err *err) {
    for (uint32_t id = 0; id < in->vocab; id++) {
        int code = in->texts[id] ? append_token(in, id, err) : 0;
        if (code == LK_ENOMEM) return lk_fail(err, code, "%s: out of memory", in->name);
        if (code) return code;
        in->offset[id + 1] = in->bytes.size;
    }
    return 0;
}

/* --- merges ---------------------------------------------------------------------------------------------- */

static int id_of(const struct importing *in, const char *text, size_t size, size_t index, uint32_t *id,
                 struct lk_err *err) {
    const json_t *v = json_object_getn(in->vocab_map, text, size);
    if (!v)
        return lk_fail(err, LK_EINVAL, "%s: merges[%zu] needs the token \"%.*s\", which is not in the vocab", in->name,
                       index, size > 60 ? 60 : (int)size, text);
    *id = (uint32_t)json_integer_value(v);
    return 0;
}

/* A merge is "a b" or ["a", "b"]. */
static int read_merge(struct importing *in, const json_t *value, size_t index, struct lk_buf *both, struct lk_err *err) {
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
    struct lk__merge *m = &in->merges[index];
    both->size = 0;
    if (lk_buf_append(both, a, a_size) || lk_buf_append(both, b, b_size))
        return lk_fail(err, LK_ENOMEM, "%s: out of memory", in->name);
    int code = id_of(in, a, a_size, index, &m->left, err);
    if (!code) code = id_of(in, b, b_size, index, &m->right, err);
    if (!code) code = id_of(in, both->data, both->size, index, &m->id, err);
    return code;
}

static int read_merges(struct importing *in, const json_t *list, struct lk_err *err) {
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
static int check_ignore_merges(const struct importing *in, const struct lk_tokenizer *t, struct lk_err *err) {
    struct lk__scratch scratch = {0};
    uint32_t *ids = lk_alloc(LK__TOKEN_MAX * sizeof *ids);
    int code = ids ? 0 : lk_fail(err, LK_ENOMEM, "%s: out of memory", in->name);
    for (uint32_t id = 0; !code && id < t->vocab; id++) {
        struct lk_bytes b = lk_tokenizer_bytes(t, id);
        if (t->special[id] || !b.size || lk__word_end(b.data, 0, b.size) != b.size) continue;
        int64_t n = lk__bpe(t, &scratch, b.data, b.size, ids);
        if (n < 0)
            code = lk_fail(err, LK_ENOMEM, "%s: out of memory", in->name);
        else if (n != 1)
            code = lk_fail(err, LK_EUNSUPPORTED,
                           "%s: ignore_merges is on and token %lu \"%.60s\" is not what the merges make of its text; set "
                           "ignore_merges to false",
                           in->name, (unsigned long)id, in->texts[id]);
    }
    lk_free(scratch.memory);
    lk_free(ids);
    return code;
}

static int import_parts(struct importing *in, const json_t *root, struct lk_tokenizer **out, struct lk_err *err) {
    if (!json_is_object(root)) return lk_fail(err, LK_EINVAL, "%s: not a JSON object", in->name);
    const json_t *model = get(root, "model"), *added = get(root, "added_tokens");
    if (!json_is_object(model)) return refuse(in, err, "it has no model");
    if (added && !json_is_array(added)) return lk_fail(err, LK_EINVAL, "%s: added_tokens is no list", in->name);
    int code = check_model(in, model, err);
    if (!code) code = check_pipeline(in, root, err);
    if (code) return code;
    in->vocab_map = json_object_get(model, "vocab");
    code = collect(in, added, err);
    if (!code) code = make_bytes(in, err);
    if (!code) code = read_merges(in, json_object_get(model, "merges"), err);
    if (code) return code;
    struct lk__parts parts = {.vocab = in->vocab,
                              .offset = in->offset,
                              .bytes = (const uint8_t *)in->bytes.data,
                              .special = in->special,
                              .merges = in->merges,
                              .merge_count = in->merge_count};
    code = lk__tokenizer_make(&parts, in->name, out, err);
    if (code || !json_is_true(get(model, "ignore_merges"))) return code;
    code = check_ignore_merges(in, *out, err);
    if (!code) return 0;
    lk_tokenizer_free(*out);
    *out = NULL;
    return code;
}

int lk_tokenizer_import(const void *json, size_t size, const char *name, struct lk_tokenizer **out, struct lk_err *err) {
    *out = NULL;
    json_t *root = lk_json_parse(json, size, name, err);
    if (!root) return err ? err->code : LK_EINVAL;
    struct importing in = {.name = name};
    int code = import_parts(&in, root, out, err);
    lk_free(in.texts);
    lk_free(in.special);
    lk_free(in.offset);
    lk_free(in.merges);
    lk_buf_release(&in.bytes);
    json_decref(root);
    return code;
}

/* --- export ---------------------------------------------------------------------------------------------- */

/* Appends a token as a JSON string: its bytes as byte-level characters, or a special token's text as it is. */
static int put_text(const struct lk_tokenizer *t, uint32_t id, struct lk_buf *out, bool quotes) {
    struct lk_bytes b = lk_tokenizer_bytes(t, id);
    const uint8_t *p = b.data;
    int bad = quotes ? lk_buf_append(out, "\"", 1) : 0;
    for (size_t i = 0; !bad && i < b.size; i++) {
        uint32_t c = t->special[id] ? p[i] : lk__byte_to_char(p[i]);
        if (c == '"' || c == '\\')
            bad = lk_buf_printf(out, "\\%c", (int)c);
        else if (c < 0x20)
            bad = lk_buf_printf(out, "\\u%04x", (unsigned)c);
        else if (c < 0x80 || t->special[id])
            bad = lk_buf_append(out, &(char){(char)c}, 1);
        else
            bad = lk_buf_append(out, (char[]){(char)(0xC0 | c >> 6), (char)(0x80 | (c & 0x3F))}, 2);
    }
    if (!bad && quotes) bad = lk_buf_append(out, "\"", 1);
    return bad;
}

static int put_added(const struct lk_tokenizer *t, struct lk_buf *out) {
    int bad = 0;
    bool first = true;
    for (uint32_t id = 0; !bad && id < t->vocab; id++) {
        if (!t->special[id]) continue;
        bad = lk_buf_printf(out, "%s\n    {\"id\": %lu, \"content\": ", first ? "" : ",", (unsigned long)id);
        if (!bad) bad = put_text(t, id, out, true);
        if (!bad)
            bad = lk_buf_printf(out, ", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, "
                                     "\"normalized\": false, \"special\": true}");
        first = false;
    }
    return bad;
}

static int put_model(const struct lk_tokenizer *t, struct lk_buf *out) {
    bool first = true;
    int bad = lk_buf_printf(out, "  \"model\": {\n    \"type\": \"BPE\", \"dropout\": null, \"unk_token\": null,\n"
                                 "    \"continuing_subword_prefix\": null, \"end_of_word_suffix\": null,\n"
                                 "    \"fuse_unk\": false, \"byte_fallback\": false, \"ignore_merges\": false,\n"
                                 "    \"vocab\": {");
    for (uint32_t id = 0; !bad && id < t->vocab; id++) {
        if (!lk_tokenizer_bytes(t, id).size) continue;
        bad = lk_buf_printf(out, "%s\n      ", first ? "" : ",");
        if (!bad) bad = put_text(t, id, out, true);
        if (!bad) bad = lk_buf_printf(out, ": %lu", (unsigned long)id);
        first = false;
    }
    if (!bad) bad = lk_buf_printf(out, "\n    },\n    \"merges\": [");
    for (uint32_t i = 0; !bad && i < t->merge_count; i++) {
        bad = lk_buf_printf(out, "%s\n      \"", i ? "," : "");
        if (!bad) bad = put_text(t, t->merges[i].left, out, false);
        if (!bad) bad = lk_buf_append(out, " ", 1);
        if (!bad) bad = put_text(t, t->merges[i].right, out, false);
        if (!bad) bad = lk_buf_append(out, "\"", 1);
    }
    return bad ? bad : lk_buf_printf(out, "\n    ]\n  }\n}\n");
}

int lk_tokenizer_export(const struct lk_tokenizer *t, struct lk_buf *out, struct lk_err *err) {
    int bad = lk_buf_printf(out, "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n"
                                 "  \"added_tokens\": [");
    if (!bad) bad = put_added(t, out);
    if (!bad)
        bad = lk_buf_printf(out,
                            "%s],\n  \"normalizer\": null,\n"
                            "  \"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false, "
                            "\"trim_offsets\": true, \"use_regex\": true},\n  \"post_processor\": null,\n"
                            "  \"decoder\": {\"type\": \"ByteLevel\", \"add_prefix_space\": true, "
                            "\"trim_offsets\": true, \"use_regex\": true},\n",
                            t->special_count ? "\n  " : "");
    if (!bad) bad = put_model(t, out);
    return bad ? lk_fail(err, LK_ENOMEM, "exporting a tokenizer: out of memory") : 0;
}
