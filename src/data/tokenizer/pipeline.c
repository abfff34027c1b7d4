/* What a tokenizer.json does before and after its model: read where it is one of the forms that are computed here exactly,
 * else refused by its name. */
#include "data/tokenizer/huggingface.h"
#include <string.h>

int lk__tokenizer_import_refuse(const struct lk__tokenizer_import *in, struct lk_err *err, const char *what) {
    return lk_fail(
        err, LK_EUNSUPPORTED,
        "%s: %s; what is read is byte-level BPE with a known pattern, and SentencePiece's BPE with byte_fallback "
        "(src/data/tokenizer/README.md, \"tokenizer.json\")",
        in->name, what);
}

const json_t *lk__tokenizer_import_get(const json_t *object, const char *key) {
    const json_t *v = json_object_get(object, key);
    return json_is_null(v) ? NULL : v;
}

int lk__tokenizer_import_check_keys(const struct lk__tokenizer_import *in, const json_t *object, const char *where,
                                    const char *const *known, struct lk_err *err) {
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

static const char *type_of(const json_t *element) {
    const char *type = json_string_value(json_object_get(element, "type"));
    return type ? type : "without a type";
}

static int refuse_type(const struct lk__tokenizer_import *in, const char *where, const json_t *element,
                       struct lk_err *err) {
    char message[200];
    snprintf(message, sizeof message, "its %s is %.60s, which is not computed", where, type_of(element));
    return lk__tokenizer_import_refuse(in, err, message);
}

/* The elements of a Sequence, or the element itself: at most `most` of them; their number, or SIZE_MAX if there are more.
 */
static size_t elements_of(const json_t *element, const char *list, const json_t **out, size_t most) {
    if (!element) return 0;
    if (strcmp(type_of(element), "Sequence") != 0) {
        out[0] = element;
        return 1;
    }
    const json_t *elements = json_object_get(element, list);
    size_t n = json_array_size(elements);
    if (!json_is_array(elements) || n > most) return SIZE_MAX;
    for (size_t i = 0; i < n; i++) out[i] = json_array_get(elements, i);
    return n;
}

static int read_normalizer(struct lk__tokenizer_import *in, const json_t *element, struct lk_err *err) {
    static const char *const known[] = {"type", "normalizers", NULL};
    const json_t *elements[4];
    size_t n = elements_of(element, "normalizers", elements, 4);
    int code = element ? lk__tokenizer_import_check_keys(in, element, "the normalizer", known, err) : 0;
    if (code) return code;
    if (n == SIZE_MAX) return refuse_type(in, "normalizer", element, err);
    for (size_t i = 0; i < n; i++) {
        if (strcmp(type_of(elements[i]), "NFC") != 0) return refuse_type(in, "normalizer", elements[i], err);
        in->traits.nfc = true;
    }
    return 0;
}

/* The expressions by which files say a pattern, besides ours. */
static const struct {
    const char *regex;
    enum lk__tokenizer_pattern pattern;
} spellings[] = {
    {"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+", LK__GPT2},
    /* tiktoken's cl100k before it had \s++$ is the same as llama3's */
    {"'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}{1,3}| "
     "?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+",
     LK__LLAMA3},
    {"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| "
     "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     LK__PATTERN_COUNT}, /* its expression leaves the long s out, so it is another pattern */
};

static int read_split(struct lk__tokenizer_import *in, const json_t *element, struct lk_err *err) {
    static const char *const known[] = {"type", "pattern", "behavior", "invert", NULL};
    int code = lk__tokenizer_import_check_keys(in, element, "the Split", known, err);
    if (code) return code;
    const char *regex = json_string_value(json_object_get(json_object_get(element, "pattern"), "Regex"));
    const char *behavior = json_string_value(json_object_get(element, "behavior"));
    bool invert = json_is_true(json_object_get(element, "invert"));
    if (!regex) return lk__tokenizer_import_refuse(in, err, "its Split has no Regex");
    if (!behavior || !((!strcmp(behavior, "Isolated") && !invert) || (!strcmp(behavior, "Removed") && invert)))
        return lk__tokenizer_import_refuse(
            in, err, "its Split has another behavior than Isolated without invert, or Removed with it");
    in->traits.pattern = LK__PATTERN_COUNT;
    for (int i = 0; i < LK__PATTERN_COUNT; i++)
        if (i != LK__SMOLLM && !strcmp(regex, lk__tokenizer_pattern_files[i]))
            in->traits.pattern = (enum lk__tokenizer_pattern)i;
    for (size_t i = 0; i < sizeof spellings / sizeof *spellings; i++)
        if (!strcmp(regex, spellings[i].regex)) in->traits.pattern = spellings[i].pattern;
    if (in->traits.pattern != LK__PATTERN_COUNT) return 0;
    return lk_fail(err, LK_EUNSUPPORTED, "%s: its Split has the Regex \"%.200s\", which is none of %s", in->name, regex,
                   LK_PATTERNS);
}

static int read_byte_level(struct lk__tokenizer_import *in, const json_t *element, bool alone, bool splits,
                           struct lk_err *err) {
    static const char *const known[] = {"type", "add_prefix_space", "trim_offsets", "use_regex", NULL};
    int code = lk__tokenizer_import_check_keys(in, element, "ByteLevel", known, err);
    if (code) return code;
    const json_t *regex = lk__tokenizer_import_get(element, "use_regex");
    bool prefix = !json_is_false(lk__tokenizer_import_get(element, "add_prefix_space")),
         has_regex = !regex || json_is_true(regex);
    if (has_regex != splits)
        return lk__tokenizer_import_refuse(in, err,
                                           splits ? "its pre_tokenizer has use_regex off and no Split"
                                                  : "its pre_tokenizer has use_regex on behind a Split");
    if (prefix && !alone)
        return lk__tokenizer_import_refuse(
            in, err, "its pre_tokenizer has add_prefix_space on behind another, which puts one in front of every word");
    in->traits.prefix_space = prefix ? LK__PREFIX_UNLESS : LK__PREFIX_NONE;
    return 0;
}

static int read_pre_tokenizer(struct lk__tokenizer_import *in, const json_t *element, struct lk_err *err) {
    static const char *const known[] = {"type", "individual_digits", NULL};
    const json_t *elements[2];
    size_t n = elements_of(element, "pretokenizers", elements, 2);
    if (!n) return lk__tokenizer_import_refuse(in, err, "it has no pre_tokenizer");
    if (n == SIZE_MAX) return lk__tokenizer_import_refuse(in, err, "its pre_tokenizer is a Sequence of more than two");
    if (strcmp(type_of(elements[n - 1]), "ByteLevel") != 0) return refuse_type(in, "pre_tokenizer", elements[n - 1], err);
    if (n == 1) return read_byte_level(in, elements[0], true, true, err);
    if (!strcmp(type_of(elements[0]), "Split")) {
        int code = read_split(in, elements[0], err);
        return code ? code : read_byte_level(in, elements[1], false, false, err);
    }
    if (strcmp(type_of(elements[0]), "Digits") != 0) return refuse_type(in, "pre_tokenizer", elements[0], err);
    int code = lk__tokenizer_import_check_keys(in, elements[0], "Digits", known, err);
    if (code) return code;
    if (!json_is_true(lk__tokenizer_import_get(elements[0], "individual_digits")))
        return lk__tokenizer_import_refuse(in, err, "its pre_tokenizer Digits has individual_digits off");
    in->traits.pattern = LK__SMOLLM;
    return read_byte_level(in, elements[1], false, true, err);
}

static int read_decoder(struct lk__tokenizer_import *in, const json_t *element, struct lk_err *err) {
    const json_t *elements[2];
    size_t n = elements_of(element, "decoders", elements, 2);
    if (n == SIZE_MAX) return refuse_type(in, "decoder", element, err);
    for (size_t i = 0; i < n; i++)
        if (strcmp(type_of(elements[i]), "ByteLevel") != 0) return refuse_type(in, "decoder", elements[i], err);
    return 0;
}

/* --- SentencePiece's: spaces are U+2581, which a normalizer or a pre_tokenizer makes of them ---------------- */

static bool is_string(const json_t *object, const char *key, const char *want) {
    const char *have = json_string_value(json_object_get(object, key));
    return have && !strcmp(have, want);
}

static bool is_replace(const json_t *element, const char *from, const char *to) {
    return !strcmp(type_of(element), "Replace") && is_string(json_object_get(element, "pattern"), "String", from) &&
           is_string(element, "content", to) && json_object_size(element) == 3 &&
           json_object_size(json_object_get(element, "pattern")) == 1;
}

static int read_mark_normalizer(struct lk__tokenizer_import *in, const json_t *element, struct lk_err *err) {
    static const char *const known[] = {"type", "normalizers", NULL};
    const json_t *elements[2];
    size_t n = elements_of(element, "normalizers", elements, 2), at = 0;
    if (element && strcmp(type_of(element), "Replace") != 0) {
        int code = lk__tokenizer_import_check_keys(in, element, "the normalizer", known, err);
        if (code) return code;
    }
    if (n == SIZE_MAX) return refuse_type(in, "normalizer", element, err);
    if (!n) return 0;
    if (!strcmp(type_of(elements[0]), "Prepend") && is_string(elements[0], "prepend", LK__MARK) && n == 2 &&
        json_object_size(elements[0]) == 2) {
        in->traits.prefix_space = LK__PREFIX_EACH;
        at = 1;
    }
    if (n != at + 1) return refuse_type(in, "normalizer", elements[at], err);
    if (!is_replace(elements[at], " ", LK__MARK))
        return lk__tokenizer_import_refuse(in, err,
                                           "its normalizer is not a Prepend of U+2581 and a Replace of the space with it");
    in->traits.characters = LK__NORMALIZER;
    return 0;
}

static int read_metaspace(struct lk__tokenizer_import *in, const json_t *element, struct lk_err *err) {
    static const char *const known[] = {"type",    "replacement", "add_prefix_space", "prepend_scheme", "split",
                                        "str_rep", NULL};
    if (!element) return 0;
    if (strcmp(type_of(element), "Metaspace") != 0) return refuse_type(in, "pre_tokenizer", element, err);
    int code = lk__tokenizer_import_check_keys(in, element, "Metaspace", known, err);
    if (code) return code;
    const json_t *split = lk__tokenizer_import_get(element, "split"),
                 *prefix = lk__tokenizer_import_get(element, "add_prefix_space");
    const char *scheme = json_string_value(lk__tokenizer_import_get(element, "prepend_scheme"));
    if (!scheme) scheme = prefix && json_is_false(prefix) ? "never" : "always";
    if (in->traits.characters)
        return lk__tokenizer_import_refuse(in, err, "it has a Metaspace behind a normalizer that makes U+2581");
    if (!is_string(element, "replacement", LK__MARK))
        return lk__tokenizer_import_refuse(in, err, "its Metaspace's replacement is not U+2581");
    if (!json_is_false(split))
        return lk__tokenizer_import_refuse(in, err, "its Metaspace has split on, which is not computed");
    if (prefix && json_is_false(prefix) && strcmp(scheme, "never") != 0)
        return lk__tokenizer_import_refuse(in, err,
                                           "its Metaspace's add_prefix_space and prepend_scheme contradict each other");
    in->traits.characters = LK__METASPACE;
    if (!strcmp(scheme, "always"))
        in->traits.prefix_space = LK__PREFIX_UNLESS;
    else if (!strcmp(scheme, "first"))
        in->traits.prefix_space = LK__PREFIX_FIRST;
    else if (strcmp(scheme, "never") != 0)
        return lk__tokenizer_import_refuse(in, err, "its Metaspace's prepend_scheme is none of always, first and never");
    return 0;
}

static int read_fallback_decoder(struct lk__tokenizer_import *in, const json_t *element, struct lk_err *err) {
    const json_t *p[4];
    size_t n = elements_of(element, "decoders", p, 4);
    bool good = (n == 3 || n == 4) && is_replace(p[0], LK__MARK, " ") && !strcmp(type_of(p[1]), "ByteFallback") &&
                !strcmp(type_of(p[2]), "Fuse");
    if (good && n == 4)
        good = !strcmp(type_of(p[3]), "Strip") && is_string(p[3], "content", " ") &&
               json_integer_value(json_object_get(p[3], "start")) == 1 && json_is_integer(json_object_get(p[3], "stop")) &&
               !json_integer_value(json_object_get(p[3], "stop"));
    in->traits.strip = n == 4;
    return good ? 0
                : lk__tokenizer_import_refuse(
                      in, err,
                      "its decoder is not Replace of U+2581, ByteFallback, Fuse and perhaps Strip of one space "
                      "at the begin, in this order, which byte_fallback needs");
}

static int read_characters(struct lk__tokenizer_import *in, const json_t *root, struct lk_err *err) {
    int code = read_mark_normalizer(in, lk__tokenizer_import_get(root, "normalizer"), err);
    if (!code) code = read_metaspace(in, lk__tokenizer_import_get(root, "pre_tokenizer"), err);
    if (!code && !in->traits.characters)
        code = lk__tokenizer_import_refuse(in, err, "neither its normalizer nor its pre_tokenizer makes U+2581 of spaces");
    return code ? code : read_fallback_decoder(in, lk__tokenizer_import_get(root, "decoder"), err);
}

int lk__tokenizer_read_pipeline(struct lk__tokenizer_import *in, const json_t *root, struct lk_err *err) {
    static const char *const known[] = {"version",       "truncation",     "padding", "added_tokens", "normalizer",
                                        "pre_tokenizer", "post_processor", "decoder", "model",        NULL};
    static const char *const absent[] = {"truncation", "padding"};
    int code = lk__tokenizer_import_check_keys(in, root, "the file", known, err);
    if (code) return code;
    const char *version = json_string_value(json_object_get(root, "version"));
    if (!version || strcmp(version, "1.0")) return lk__tokenizer_import_refuse(in, err, "its version is not \"1.0\"");
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++) {
        char message[160];
        if (!lk__tokenizer_import_get(root, absent[i])) continue;
        snprintf(message, sizeof message, "it has a %s; set it to null if its effect is not wanted", absent[i]);
        return lk__tokenizer_import_refuse(in, err, message);
    }
    if (in->fallback) return read_characters(in, root, err);
    code = read_normalizer(in, lk__tokenizer_import_get(root, "normalizer"), err);
    if (!code) code = read_pre_tokenizer(in, lk__tokenizer_import_get(root, "pre_tokenizer"), err);
    if (!code) code = read_decoder(in, lk__tokenizer_import_get(root, "decoder"), err);
    return code;
}

/* --- the tokens around a text ----------------------------------------------------------------------------- */

/* The id that the template's special token stands for. Our own mark is not of the tokenizer, but of the model beside it. */
static int template_id(struct lk__tokenizer_import *in, const json_t *processor, const json_t *piece, bool text,
                       struct lk_err *err) {
    uint32_t *id = text ? &in->traits.after : &in->traits.before;
    const char *name = json_string_value(json_object_get(piece, "id"));
    const json_t *token = name ? json_object_get(json_object_get(processor, "special_tokens"), name) : NULL;
    const json_t *ids = json_object_get(token, "ids"), *one = json_array_get(ids, 0);
    if (json_array_size(ids) != 1 || !json_is_integer(one) || json_integer_value(one) < 0 ||
        json_integer_value(one) >= in->vocab || !in->added[json_integer_value(one)])
        return lk_fail(err, LK_EUNSUPPORTED, "%s: its post_processor's token \"%.60s\" is not one added token", in->name,
                       name ? name : "");
    if (*id != LK__NO_ID)
        return lk__tokenizer_import_refuse(in, err, "its post_processor puts two tokens on one side of a text");
    if (!text && !strcmp(name, LK__TEXT_BEGIN)) id = &in->text_begin;
    *id = (uint32_t)json_integer_value(one);
    return 0;
}

static int read_single(struct lk__tokenizer_import *in, const json_t *processor, struct lk_err *err) {
    static const char *const known[] = {"type", "single", "pair", "special_tokens", NULL};
    int code = lk__tokenizer_import_check_keys(in, processor, "the post_processor", known, err);
    const json_t *single = json_object_get(processor, "single");
    bool text = false;
    for (size_t i = 0; !code && i < json_array_size(single); i++) {
        const json_t *special = json_object_get(json_array_get(single, i), "SpecialToken");
        const json_t *sequence = json_object_get(json_array_get(single, i), "Sequence");
        const char *name = json_string_value(json_object_get(sequence, "id"));
        if (special)
            code = template_id(in, processor, special, text, err);
        else if (text || !name || strcmp(name, "A") != 0)
            code = lk__tokenizer_import_refuse(in, err,
                                               "its post_processor's template for one text is not tokens around \"A\"");
        else
            text = true;
    }
    return code || text ? code
                        : lk__tokenizer_import_refuse(
                              in, err, "its post_processor's template for one text is not tokens around \"A\"");
}

int lk__tokenizer_read_template(struct lk__tokenizer_import *in, const json_t *element, struct lk_err *err) {
    const json_t *elements[3];
    size_t n = elements_of(element, "processors", elements, 3);
    bool have = false;
    if (n == SIZE_MAX) return refuse_type(in, "post_processor", element, err);
    for (size_t i = 0; i < n; i++) {
        if (!strcmp(type_of(elements[i]), "ByteLevel")) continue;
        if (strcmp(type_of(elements[i]), "TemplateProcessing") != 0)
            return refuse_type(in, "post_processor", elements[i], err);
        if (have) return lk__tokenizer_import_refuse(in, err, "its post_processor has two templates");
        int code = read_single(in, elements[i], err);
        if (code) return code;
        have = true;
    }
    return 0;
}
