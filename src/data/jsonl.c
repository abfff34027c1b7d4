#include "data/jsonl.h"
#include "data/tokenizer/pretoken.h"
#include <string.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#define DEPTH_MAX 2048 /* jansson's */
#define KEYS_MAX  1000 /* keys of one record; they are compared pairwise */

struct parser {
    const char *at, *end;
    struct lk_err *err;
};

static int fail(struct parser *p, const char *what) {
    return lk_fail(p->err, LK_EINVAL, "%s", what);
}

static void skip_space(struct parser *p) {
    while (p->at < p->end && (*p->at == ' ' || *p->at == '\t' || *p->at == '\r' || *p->at == '\n')) p->at++;
}

static inline int append(struct parser *p, struct lk_buf *out, const char *data, size_t size) {
    if (!out || !size) return 0;
    if (out->capacity - out->size > size) { /* and the zero byte that stands behind every buffer */
        memcpy(out->data + out->size, data, size);
        out->size += size;
        out->data[out->size] = 0;
        return 0;
    }
    return lk_buf_append(out, data, size) ? lk_fail(p->err, LK_ENOMEM, "out of memory") : 0;
}

/* --- strings --------------------------------------------------------------------------------------------- */

static int hex4(struct parser *p, uint32_t *out) {
    if (p->end - p->at < 4) return fail(p, "the line ends in a \\u escape");
    *out = 0;
    for (int i = 0; i < 4; i++, p->at++) {
        char c = *p->at;
        int digit = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
        if (digit < 0) return fail(p, "\\u wants four hexadecimal digits");
        *out = *out << 4 | (uint32_t)digit;
    }
    return 0;
}

static size_t utf8_encode(uint32_t c, char out[4]) {
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const uint8_t lead[] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (size_t i = n - 1; i > 0; i--, c >>= 6) out[i] = (char)(0x80 | (c & 0x3F));
    out[0] = (char)(lead[n] | c);
    return n;
}

/* After "\u". */
static int unicode_escape(struct parser *p, struct lk_buf *out) {
    uint32_t c, low;
    char bytes[4];
    int code = hex4(p, &c);
    if (code) return code;
    if (c >= 0xDC00 && c < 0xE000) return fail(p, "a low surrogate without its high one");
    if (c >= 0xD800 && c < 0xDC00) {
        if (p->end - p->at < 2 || p->at[0] != '\\' || p->at[1] != 'u')
            return fail(p, "a high surrogate without its low one");
        p->at += 2;
        if ((code = hex4(p, &low))) return code;
        if (low < 0xDC00 || low > 0xDFFF) return fail(p, "a high surrogate without its low one");
        c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
    }
    return append(p, out, bytes, utf8_encode(c, bytes));
}

static int escape(struct parser *p, struct lk_buf *out) {
    static const char means[256] = {
        ['"'] = '"', ['\\'] = '\\', ['/'] = '/', ['b'] = '\b', ['f'] = '\f', ['n'] = '\n', ['r'] = '\r', ['t'] = '\t'};
    if (++p->at == p->end) return fail(p, "the line ends in a string");
    unsigned char c = (unsigned char)*p->at;
    if (c == 'u') {
        p->at++;
        return unicode_escape(p, out);
    }
    if (!means[c]) return fail(p, "an unknown escape in a string");
    p->at++;
    return append(p, out, &means[c], 1);
}

/* Bytes of a string that end a plain run: quote, backslash, control characters, everything above ASCII. */
static bool is_plain(unsigned char c) {
    return c >= 0x20 && c < 0x80 && c != '"' && c != '\\';
}

static inline const char *plain_end(const char *p, const char *end) {
#if defined(__SSE2__)
    while (end - p >= 16) { /* as signed numbers, control characters and everything above ASCII are below 0x20 */
        __m128i x;
        memcpy(&x, p, sizeof x);
        __m128i stop = _mm_cmplt_epi8(x, _mm_set1_epi8(0x20));
        stop = _mm_or_si128(stop, _mm_cmpeq_epi8(x, _mm_set1_epi8('"')));
        stop = _mm_or_si128(stop, _mm_cmpeq_epi8(x, _mm_set1_epi8('\\')));
        unsigned bits = (unsigned)_mm_movemask_epi8(stop);
        if (bits) return p + __builtin_ctz(bits);
        p += 16;
    }
#endif
    const uint64_t ones = 0x0101010101010101u, high = 0x8080808080808080u;
    while (end - p >= 8) {
        uint64_t x, quote, slash, low;
        memcpy(&x, p, 8);
        quote = x ^ ones * '"';
        slash = x ^ ones * '\\';
        low = x - ones * 0x20; /* borrows may only cause a slow look at a plain byte, never miss one */
        if (((quote - ones) | (slash - ones) | low | x) & high) break;
        p += 8;
    }
    while (p < end && is_plain((unsigned char)*p)) p++;
    return p;
}

/* At the opening quote; out NULL: only checks. */
static int string(struct parser *p, struct lk_buf *out) {
    p->at++;
    for (;;) {
        const char *run = p->at;
        p->at = plain_end(p->at, p->end);
        while (p->at < p->end && (unsigned char)*p->at >= 0x80) {
            uint32_t c;
            size_t length = lk__utf8_decode((const uint8_t *)p->at, (size_t)(p->end - p->at), &c);
            if (!length) return fail(p, "not UTF-8");
            p->at += length;
            p->at = plain_end(p->at, p->end);
        }
        int code = append(p, out, run, (size_t)(p->at - run));
        if (code) return code;
        if (p->at == p->end) return fail(p, "the line ends in a string");
        if (*p->at == '"') break;
        if (*p->at != '\\') return fail(p, "a control character in a string; write it as \\u00XX");
        if ((code = escape(p, out))) return code;
    }
    p->at++;
    return 0;
}

/* --- other values ---------------------------------------------------------------------------------------- */

static bool digits(struct parser *p) {
    const char *from = p->at;
    while (p->at < p->end && *p->at >= '0' && *p->at <= '9') p->at++;
    return p->at > from;
}

static int number(struct parser *p) {
    if (*p->at == '-') p->at++;
    const char *from = p->at;
    if (!digits(p)) return fail(p, "a number without digits");
    if (*from == '0' && p->at - from > 1) return fail(p, "a number that begins with 0");
    if (p->at < p->end && *p->at == '.') {
        p->at++;
        if (!digits(p)) return fail(p, "a number that ends in a point");
    }
    if (p->at < p->end && (*p->at | 32) == 'e') {
        p->at++;
        if (p->at < p->end && (*p->at == '+' || *p->at == '-')) p->at++;
        if (!digits(p)) return fail(p, "a number without digits in its exponent");
    }
    return 0;
}

static int word(struct parser *p) {
    static const char *const words[] = {"true", "false", "null"};
    for (size_t i = 0; i < 3; i++) {
        size_t n = strlen(words[i]);
        if ((size_t)(p->end - p->at) < n || memcmp(p->at, words[i], n)) continue;
        p->at += n;
        return 0;
    }
    return fail(p, p->at == p->end ? "the line ends too early" : "not JSON");
}

static int scalar(struct parser *p) {
    if (p->at == p->end) return fail(p, "the line ends too early");
    if (*p->at == '"') return string(p, NULL);
    if (*p->at == '-' || (*p->at >= '0' && *p->at <= '9')) return number(p);
    return word(p);
}

/* Inside an object: a key and its colon. */
static int skip_key(struct parser *p) {
    skip_space(p);
    if (p->at == p->end || *p->at != '"') return fail(p, "a key in quotes is missing");
    int code = string(p, NULL);
    if (code) return code;
    skip_space(p);
    if (p->at == p->end || *p->at != ':') return fail(p, "a colon is missing");
    p->at++;
    return 0;
}

/* Skips a value of any depth without recursion; open[] tells objects from lists. Keys of nested objects are not compared.
 */
static int skip_value(struct parser *p) {
    char open[DEPTH_MAX];
    size_t depth = 0;
    for (;;) {
        int code;
        skip_space(p);
        if (p->at < p->end && (*p->at == '{' || *p->at == '[')) {
            if (depth == DEPTH_MAX - 1) return fail(p, "nested too deeply");
            char close = *p->at++ == '{' ? '}' : ']';
            open[depth++] = close;
            skip_space(p);
            if (p->at == p->end || *p->at != close) {
                if (close == '}' && (code = skip_key(p))) return code;
                continue;
            }
            p->at++;
            depth--;
        } else if ((code = scalar(p))) {
            return code;
        }
        for (;;) { /* after a value */
            if (!depth) return 0;
            skip_space(p);
            if (p->at == p->end) return fail(p, "the line ends too early");
            char c = *p->at++;
            if (c == open[depth - 1]) {
                depth--;
                continue;
            }
            if (c != ',') {
                p->at--;
                return fail(p, "a comma is missing");
            }
            if (open[depth - 1] == '}' && (code = skip_key(p))) return code;
            break;
        }
    }
}

/* --- records --------------------------------------------------------------------------------------------- */

enum { TEXT, PROMPT, RESPONSE, MESSAGES, TOOLS, FIELDS };

struct fields {
    const char *names[FIELDS]; /* NULL: not looked for */
    const char *value[FIELDS]; /* at the first character of the value; NULL: absent, or null */
    const char *messages_end;
    struct lk_buf keys; /* all keys so far, each behind its length */
    struct lk_buf key;
    size_t key_count;
};

static void name_fields(struct fields *f, const struct lk__record_keys *keys) {
    static const char *const usual[FIELDS] = {"text", "prompt", "response", "messages", "tools"};
    bool chosen = keys->text || keys->messages;
    for (int i = 0; i < FIELDS; i++) f->names[i] = chosen && i != TOOLS ? NULL : usual[i];
    if (keys->text) f->names[TEXT] = keys->text;
    if (keys->messages) f->names[MESSAGES] = keys->messages;
}

static int note_key(struct parser *p, struct fields *f) {
    uint32_t size = (uint32_t)f->key.size, other;
    if (size && memchr(f->key.data, 0, size)) return fail(p, "a zero byte in a key");
    if (++f->key_count > KEYS_MAX) return lk_fail(p->err, LK_EINVAL, "more than %d keys", KEYS_MAX);
    for (size_t at = 0; at < f->keys.size; at += sizeof other + other) {
        memcpy(&other, f->keys.data + at, sizeof other);
        if (other == size && (!size || !memcmp(f->keys.data + at + sizeof other, f->key.data, size)))
            return lk_fail(p->err, LK_EINVAL, "the key \"%.*s\" stands twice", size > 60 ? 60 : (int)size, f->key.data);
    }
    int code = append(p, &f->keys, (const char *)&size, sizeof size);
    return code ? code : append(p, &f->keys, f->key.data, size);
}

static bool is_null(const struct parser *p) {
    return p->end - p->at >= 4 && !memcmp(p->at, "null", 4);
}

/* One "key": value of the record. */
static int member(struct parser *p, struct fields *f, struct lk_buf *text) {
    skip_space(p);
    if (p->at == p->end || *p->at != '"') return fail(p, "a key in quotes is missing");
    const char *key_at = p->at;
    f->key.size = 0;
    int code = string(p, &f->key);
    if (code) return code;
    const char *after = p->at;
    p->at = key_at;
    if ((code = note_key(p, f))) return code;
    p->at = after;
    skip_space(p);
    if (p->at == p->end || *p->at != ':') return fail(p, "a colon is missing");
    p->at++;
    skip_space(p);
    for (int i = 0; i < FIELDS; i++) {
        if (!f->names[i] || f->key.size != strlen(f->names[i]) || memcmp(f->key.data, f->names[i], f->key.size)) continue;
        if (is_null(p)) break;
        f->value[i] = p->at;
        if (i == TOOLS || i == MESSAGES) { /* beside a text it is a key like others */
            code = skip_value(p);
            if (i == MESSAGES) f->messages_end = p->at;
            return code;
        }
        if (p->at == p->end || *p->at != '"') return lk_fail(p->err, LK_EINVAL, "\"%s\" is not a string", f->names[i]);
        if (i == TEXT) return string(p, text); /* the others wait until both are there */
    }
    return skip_value(p);
}

static int object(struct parser *p, struct fields *f, struct lk_buf *text) {
    if (*p->at != '{') return fail(p, "a record begins with {");
    p->at++;
    skip_space(p);
    bool empty = p->at < p->end && *p->at == '}';
    if (empty) p->at++;
    while (!empty) {
        int code = member(p, f, text);
        if (code) return code;
        skip_space(p);
        if (p->at == p->end) return fail(p, "the line ends in a record");
        char c = *p->at++;
        if (c == '}') break;
        if (c == ',') continue;
        p->at--;
        return fail(p, "a comma is missing");
    }
    skip_space(p);
    return p->at == p->end ? 0 : fail(p, "something stands behind the record");
}

static int take(struct parser *p, const char *value, struct lk_buf *text) {
    p->at = value;
    return string(p, text);
}

/* A list or object with something in it. */
static bool is_filled(struct parser *p, const char *value) {
    if (!value || (*value != '[' && *value != '{')) return false;
    struct parser inside = {value + 1, p->end, NULL};
    skip_space(&inside);
    return inside.at < inside.end && *inside.at != ']' && *inside.at != '}';
}

static int choose(struct parser *p, const struct fields *f, const struct lk__record_keys *keys, struct lk_buf *text,
                  struct lk__record *out) {
    bool pair = f->value[PROMPT] && f->value[RESPONSE];
    if (keys->conversations && (f->value[TEXT] || pair) && is_filled(p, f->value[MESSAGES]))
        return lk_fail(p->err, LK_EINVAL,
                       "it has \"messages\" and also %s: choose the conversation with --messages-key messages, or %s",
                       pair ? "\"prompt\" and \"response\"" : "\"text\"",
                       pair ? "the other two by leaving out --template" : "the text with --text-key text");
    if (f->value[TEXT]) {
        if (f->value[PROMPT] || f->value[RESPONSE])
            return fail(p,
                        "it has \"text\" and also \"prompt\" or \"response\"; a record is the one or the other; --text-key "
                        "text takes the text");
        return 0;
    }
    if (f->value[MESSAGES] && !pair) {
        out->messages = f->value[MESSAGES];
        out->messages_size = (size_t)(f->messages_end - out->messages);
        out->tools = is_filled(p, f->value[TOOLS]);
        return *out->messages == '[' ? 0 : lk_fail(p->err, LK_EINVAL, "\"%s\" is not a list", f->names[MESSAGES]);
    }
    if (keys->text || keys->messages)
        return lk_fail(p->err, LK_EINVAL, "it has no \"%s\"", keys->text ? keys->text : keys->messages);
    if (!pair) return fail(p, "it has neither \"text\" nor \"messages\" nor both of \"prompt\" and \"response\"");
    int code = take(p, f->value[PROMPT], text);
    out->prompt_size = text->size;
    return code ? code : take(p, f->value[RESPONSE], text);
}

int lk__record_parse(const char *line, size_t size, const struct lk__record_keys *keys, struct lk_buf *text,
                     struct lk__record *out, size_t *at, struct lk_err *err) {
    struct parser p = {line, line + size, err};
    struct fields f = {0};
    *out = (struct lk__record){0};
    *at = 0;
    text->size = 0;
    name_fields(&f, keys);
    skip_space(&p);
    if (p.at == p.end) {
        out->blank = true;
        return 0;
    }
    size_t left = (size_t)(p.end - p.at); /* a mark at the begin of a file is dropped before */
    int code = !memcmp(p.at, "\xEF\xBB\xBF", left < 3 ? 1 : 3) ? fail(&p, "a byte order mark inside a file; take it out")
                                                               : object(&p, &f, text);
    *at = (size_t)(p.at - line);
    if (!code && (code = choose(&p, &f, keys, text, out)) == LK_EINVAL) *at = 0;
    lk_buf_release(&f.keys);
    lk_buf_release(&f.key);
    return code;
}

/* --- messages -------------------------------------------------------------------------------------------- */

/* One "key": value of a message. The array is known to be JSON. */
static int message_member(struct parser *p, struct lk_buf *text, struct lk__message *m, bool have[2], size_t number) {
    static const char *const names[] = {"role", "content"};
    skip_space(p);
    const char *key = p->at;
    int code = string(p, NULL), which = 2;
    if (code) return code;
    for (int i = 0; i < 2; i++)
        if ((size_t)(p->at - key) == strlen(names[i]) + 2 && !memcmp(key + 1, names[i], strlen(names[i]))) which = i;
    const char *key_end = p->at;
    skip_space(p);
    p->at++; /* the colon */
    skip_space(p);
    if (which == 2 && is_null(p)) return skip_value(p);
    if (which == 2)
        return lk_fail(p->err, LK_EINVAL, "messages[%zu] has the key %.*s; only \"role\" and \"content\" are known", number,
                       key_end - key > 60 ? 60 : (int)(key_end - key), key);
    if (have[which]) return lk_fail(p->err, LK_EINVAL, "messages[%zu] has \"%s\" twice", number, names[which]);
    have[which] = true;
    if (*p->at != '"') return lk_fail(p->err, LK_EINVAL, "messages[%zu].%s is not a string", number, names[which]);
    size_t begin = text->size;
    if ((code = string(p, text))) return code;
    *(which ? &m->content : &m->role) = begin;
    *(which ? &m->content_size : &m->role_size) = text->size - begin;
    return 0;
}

static int message(struct parser *p, struct lk_buf *text, struct lk_buf *messages, size_t number) {
    struct lk__message m = {0};
    bool have[2] = {false, false};
    if (*p->at != '{') return lk_fail(p->err, LK_EINVAL, "messages[%zu] is not an object", number);
    p->at++;
    skip_space(p);
    bool empty = *p->at == '}';
    if (empty) p->at++;
    while (!empty) {
        int code = message_member(p, text, &m, have, number);
        if (code) return code;
        skip_space(p);
        if (*p->at++ == '}') break; /* else a comma */
    }
    if (!have[0] || !have[1])
        return lk_fail(p->err, LK_EINVAL, "messages[%zu] has no \"%s\"", number, have[0] ? "content" : "role");
    return append(p, messages, (const char *)&m, sizeof m);
}

int lk__messages_parse(const char *array, size_t size, struct lk_buf *text, struct lk_buf *messages, size_t *at,
                       struct lk_err *err) {
    struct parser p = {array + 1, array + size, err};
    size_t number = 0;
    int code = 0;
    text->size = messages->size = 0;
    skip_space(&p);
    while (!code && *p.at != ']') {
        if (*p.at == ',') p.at++;
        skip_space(&p);
        code = message(&p, text, messages, number++);
        skip_space(&p);
    }
    *at = (size_t)(p.at - array);
    return code || number ? code : fail(&p, "\"messages\" is empty");
}
