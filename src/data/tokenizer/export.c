/* A tokenizer as Hugging Face's tokenizer.json, which tokenizers of any version reads and gives the same ids with. */
#include "data/tokenizer/internal.h"
#include "data/tokenizer/pretoken.h"
#include <string.h>

#define MARK "\\u2581"

/* Appends a token as a JSON string: its bytes as byte-level characters, or the text of an added token as it is. With
 * characters: "<0xNN>" for a byte, else its text with U+2581 for spaces. */
static int put_text(const struct lk_tokenizer *t, uint32_t id, struct lk_buf *out, bool quotes) {
    struct lk_bytes b = lk_tokenizer_bytes(t, id);
    const uint8_t *p = b.data;
    bool text = t->added[id] || t->traits.characters, marks = t->traits.characters && !t->added[id];
    if (marks && id >= t->traits.first_byte && id - t->traits.first_byte < 256)
        return lk_buf_printf(out, quotes ? "\"<0x%02X>\"" : "<0x%02X>", (unsigned)*p);
    int bad = quotes ? lk_buf_append(out, "\"", 1) : 0;
    for (size_t i = 0; !bad && i < b.size; i++) {
        uint32_t c = text ? p[i] : lk__tokenizer_byte_to_char(p[i]);
        if (marks && c == ' ')
            bad = lk_buf_printf(out, MARK);
        else if (c == '"' || c == '\\')
            bad = lk_buf_printf(out, "\\%c", (int)c);
        else if (c < 0x20)
            bad = lk_buf_printf(out, "\\u%04x", (unsigned)c);
        else if (c < 0x80 || text)
            bad = lk_buf_append(out, &(char){(char)c}, 1);
        else
            bad = lk_buf_append(out, (char[]){(char)(0xC0 | c >> 6), (char)(0x80 | (c & 0x3F))}, 2);
    }
    if (!bad && quotes) bad = lk_buf_append(out, "\"", 1);
    return bad;
}

static const char *word(int x) {
    return x ? "true" : "false";
}

static int put_added(const struct lk_tokenizer *t, struct lk_buf *out) {
    int bad = 0;
    bool first = true;
    for (uint32_t id = 0; !bad && id < t->vocab; id++) {
        if (!t->added[id]) continue;
        bad = lk_buf_printf(out, "%s\n    {\"id\": %lu, \"content\": ", first ? "" : ",", (unsigned long)id);
        if (!bad) bad = put_text(t, id, out, true);
        uint8_t kind = t->added[id];
        if (!bad)
            bad = lk_buf_printf(
                out, ", \"single_word\": false, \"lstrip\": %s, \"rstrip\": %s, \"normalized\": %s, \"special\": %s}",
                word(kind & LK__LSTRIP), word(kind & LK__RSTRIP), word(kind & LK__NORMALIZED), word(kind & LK__SPECIAL));
        first = false;
    }
    return bad;
}

static int put_model(const struct lk_tokenizer *t, bool explicit, struct lk_buf *out) {
    bool first = true;
    bool characters = t->traits.characters, unknown = characters && lk_tokenizer_find(t, "<unk>", 5) != LK__NO_ID;
    int bad =
        lk_buf_printf(out,
                      "  \"model\": {\n    \"type\": \"BPE\", \"dropout\": null, \"unk_token\": %s,\n"
                      "    \"continuing_subword_prefix\": null, \"end_of_word_suffix\": null,\n"
                      "    \"fuse_unk\": %s, \"byte_fallback\": %s, \"ignore_merges\": %s,\n"
                      "    \"vocab\": {",
                      unknown ? "\"<unk>\"" : "null", word(characters), word(characters), word(t->traits.whole_words));
    for (uint32_t id = 0; !bad && id < t->vocab; id++) {
        if (!lk_tokenizer_bytes(t, id).size || (t->added[id] && !explicit)) continue;
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

static int put_spaces(const struct lk_tokenizer *t, struct lk_buf *out) {
    static const char *const schemes[] = {"never", "always", "first"};
    if (t->traits.characters == LK__METASPACE)
        return lk_buf_printf(out,
                             "  \"normalizer\": null,\n  \"pre_tokenizer\": {\"type\": \"Metaspace\", "
                             "\"replacement\": \"" MARK "\", \"prepend_scheme\": \"%s\", \"split\": false}",
                             schemes[t->traits.prefix_space]);
    return lk_buf_printf(out,
                         "  \"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [%s\n    {\"type\": \"Replace\", "
                         "\"pattern\": {\"String\": \" \"}, \"content\": \"" MARK "\"}]},\n  \"pre_tokenizer\": null",
                         t->traits.prefix_space ? "\n    {\"type\": \"Prepend\", \"prepend\": \"" MARK "\"}," : "");
}

static int put_decoder(const struct lk_tokenizer *t, struct lk_buf *out) {
    if (!t->traits.characters)
        return lk_buf_printf(out, ",\n  \"decoder\": {\"type\": \"ByteLevel\", \"add_prefix_space\": true, "
                                  "\"trim_offsets\": true, \"use_regex\": true},\n");
    return lk_buf_printf(out,
                         ",\n  \"decoder\": {\"type\": \"Sequence\", \"decoders\": [\n    {\"type\": \"Replace\", "
                         "\"pattern\": {\"String\": \"" MARK "\"}, \"content\": \" \"},\n"
                         "    {\"type\": \"ByteFallback\"}, {\"type\": \"Fuse\"}%s]},\n",
                         t->traits.strip ? ", {\"type\": \"Strip\", \"content\": \" \", \"start\": 1, \"stop\": 0}" : "");
}

static int put_pre_tokenizer(const struct lk_tokenizer *t, struct lk_buf *out) {
    bool split = t->traits.pattern != LK__GPT2 && t->traits.pattern != LK__SMOLLM;
    int bad =
        lk_buf_printf(out, "  \"normalizer\": %s,\n  \"pre_tokenizer\": ", t->traits.nfc ? "{\"type\": \"NFC\"}" : "null");
    if (!bad && t->traits.pattern == LK__SMOLLM)
        bad = lk_buf_printf(out, "{\"type\": \"Sequence\", \"pretokenizers\": [\n"
                                 "    {\"type\": \"Digits\", \"individual_digits\": true},\n    ");
    if (!bad && split) {
        bad = lk_buf_printf(out, "{\"type\": \"Sequence\", \"pretokenizers\": [\n"
                                 "    {\"type\": \"Split\", \"pattern\": {\"Regex\": \"");
        for (const char *p = lk__tokenizer_pattern_files[t->traits.pattern]; !bad && *p; p++)
            bad = lk_buf_printf(out, *p == '\\' ? "\\%c" : "%c", *p);
        if (!bad) bad = lk_buf_printf(out, "\"}, \"behavior\": \"Isolated\", \"invert\": false},\n    ");
    }
    if (!bad)
        bad = lk_buf_printf(
            out, "{\"type\": \"ByteLevel\", \"add_prefix_space\": %s, \"trim_offsets\": true, \"use_regex\": %s}%s",
            word(t->traits.prefix_space), word(!split), t->traits.pattern != LK__GPT2 ? "]}" : "");
    return bad;
}

/* The name of a token in the template: its text, or LK__TEXT_BEGIN. */
static int put_name(const struct lk_tokenizer *t, uint32_t id, bool mark, struct lk_buf *out) {
    return mark ? lk_buf_printf(out, "\"" LK__TEXT_BEGIN "\"") : put_text(t, id, out, true);
}

static int put_piece(const struct lk_tokenizer *t, uint32_t id, bool mark, const char *before, const char *after,
                     struct lk_buf *out) {
    if (id == LK__NO_ID) return 0;
    int bad = lk_buf_printf(out, "%s{\"SpecialToken\": {\"id\": ", before);
    if (!bad) bad = put_name(t, id, mark, out);
    return bad ? bad : lk_buf_printf(out, ", \"type_id\": 0}}%s", after);
}

static int put_special(const struct lk_tokenizer *t, uint32_t id, bool mark, const char *before, struct lk_buf *out) {
    if (id == LK__NO_ID) return 0;
    int bad = lk_buf_printf(out, "%s", before);
    if (!bad) bad = put_name(t, id, mark, out);
    if (!bad) bad = lk_buf_printf(out, ": {\"id\": ");
    if (!bad) bad = put_name(t, id, mark, out);
    if (!bad) bad = lk_buf_printf(out, ", \"ids\": [%lu], \"tokens\": [", (unsigned long)id);
    if (!bad) bad = put_text(t, id, out, true);
    return bad ? bad : lk_buf_printf(out, "]}");
}

/* For two texts, which this program does not join: one after the other, each with its tokens. */
static int put_template(const struct lk_tokenizer *t, uint32_t begin, struct lk_buf *out) {
    bool mark = begin != LK__NO_ID && t->traits.before == LK__NO_ID;
    uint32_t before = mark ? begin : t->traits.before, after = t->traits.after;
    if (before == LK__NO_ID && after == LK__NO_ID) return lk_buf_printf(out, "null");
    int bad = lk_buf_printf(out, "{\"type\": \"TemplateProcessing\",");
    for (int texts = 1; !bad && texts <= 2; texts++) {
        bad = lk_buf_printf(out, texts == 1 ? "\n    \"single\": [" : ",\n    \"pair\": [");
        for (int i = 0; !bad && i < texts; i++) {
            if (i) bad = lk_buf_printf(out, ", ");
            if (!bad) bad = put_piece(t, before, mark, "", ", ", out);
            if (!bad) bad = lk_buf_printf(out, "{\"Sequence\": {\"id\": \"%c\", \"type_id\": %d}}", 'A' + i, i);
            if (!bad) bad = put_piece(t, after, false, ", ", "", out);
        }
        if (!bad) bad = lk_buf_printf(out, "]");
    }
    if (!bad) bad = lk_buf_printf(out, ",\n    \"special_tokens\": {");
    if (!bad) bad = put_special(t, before, mark, "", out);
    if (!bad && (mark || after != before)) bad = put_special(t, after, false, before == LK__NO_ID ? "" : ", ", out);
    return bad ? bad : lk_buf_printf(out, "}}");
}

/* Whether the library gives every added token its id. explicit: all of them stand in the vocab. */
static bool library_agrees(const struct lk_tokenizer *t, bool explicit) {
    struct lk__tokenizer_library library = {0};
    for (uint32_t id = 0; id < t->vocab; id++)
        if (lk_tokenizer_bytes(t, id).size && !(t->added[id] && !explicit)) library.entries++;
    for (uint32_t id = 0; id < t->vocab; id++)
        if (t->added[id] && lk__tokenizer_library_id(&library, explicit, id) != id) return false;
    return true;
}

/* With whole_words the vocab holds no added tokens, because a word that is the text of one would be taken as it, unless
 * only their numbers there give them their ids. Then no such word may exist. */
static int decide_vocab(const struct lk_tokenizer *t, bool *explicit, struct lk_err *err) {
    *explicit = !t->traits.whole_words || !library_agrees(t, false);
    for (uint32_t id = 0; t->traits.whole_words && *explicit && id < t->vocab; id++) {
        struct lk_bytes b = lk_tokenizer_bytes(t, id);
        if (!t->added[id] || lk__tokenizer_word_end(t->traits.pattern, b.data, 0, b.size) != b.size) continue;
        return lk_fail(
            err, LK_EUNSUPPORTED,
            "the added token \"%.*s\" is one word, and the ids of added tokens have holes: no tokenizer.json gives "
            "these ids; give the added tokens the numbers right behind the others",
            b.size > 60 ? 60 : (int)b.size, (const char *)b.data);
    }
    return 0;
}

int lk_tokenizer_export_begin(const struct lk_tokenizer *t, uint32_t begin, struct lk_buf *out, struct lk_err *err) {
    bool explicit;
    int code = decide_vocab(t, &explicit, err);
    if (code) return code;
    int bad = lk_buf_printf(out, "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n"
                                 "  \"added_tokens\": [");
    if (!bad) bad = put_added(t, out);
    if (!bad) bad = lk_buf_printf(out, "%s],\n", t->added_count ? "\n  " : "");
    if (!bad) bad = t->traits.characters ? put_spaces(t, out) : put_pre_tokenizer(t, out);
    if (!bad) bad = lk_buf_printf(out, ",\n  \"post_processor\": ");
    if (!bad) bad = put_template(t, begin, out);
    if (!bad) bad = put_decoder(t, out);
    if (!bad) bad = put_model(t, explicit, out);
    return bad ? lk_fail(err, LK_ENOMEM, "exporting a tokenizer: out of memory") : 0;
}

int lk_tokenizer_export(const struct lk_tokenizer *t, struct lk_buf *out, struct lk_err *err) {
    return lk_tokenizer_export_begin(t, LK__NO_ID, out, err);
}
