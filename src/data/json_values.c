#include "data/json_values.h"
#include "data/tokenizer/pretoken.h"
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#define DEPTH_MAX 2048 /* jansson's */

int lk__data_json_fail(struct lk__data_json *p, const char *what) {
    return lk_fail(p->err, LK_EINVAL, "%s", what);
}

void lk__data_json_space(struct lk__data_json *p) {
    while (p->at < p->end && (*p->at == ' ' || *p->at == '\t' || *p->at == '\r' || *p->at == '\n')) p->at++;
}

/* --- strings --------------------------------------------------------------------------------------------- */

static int hex4(struct lk__data_json *p, uint32_t *out) {
    if (p->end - p->at < 4) return lk__data_json_fail(p, "the line ends in a \\u escape");
    *out = 0;
    for (int i = 0; i < 4; i++, p->at++) {
        char c = *p->at;
        int digit = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
        if (digit < 0) return lk__data_json_fail(p, "\\u wants four hexadecimal digits");
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
static int unicode_escape(struct lk__data_json *p, struct lk_buf *out) {
    uint32_t c, low;
    char bytes[4];
    int code = hex4(p, &c);
    if (code) return code;
    if (c >= 0xDC00 && c < 0xE000) return lk__data_json_fail(p, "a low surrogate without its high one");
    if (c >= 0xD800 && c < 0xDC00) {
        if (p->end - p->at < 2 || p->at[0] != '\\' || p->at[1] != 'u')
            return lk__data_json_fail(p, "a high surrogate without its low one");
        p->at += 2;
        if ((code = hex4(p, &low))) return code;
        if (low < 0xDC00 || low > 0xDFFF) return lk__data_json_fail(p, "a high surrogate without its low one");
        c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
    }
    return lk__data_json_append(p, out, bytes, utf8_encode(c, bytes));
}

static int escape(struct lk__data_json *p, struct lk_buf *out) {
    static const char means[256] = {
        ['"'] = '"', ['\\'] = '\\', ['/'] = '/', ['b'] = '\b', ['f'] = '\f', ['n'] = '\n', ['r'] = '\r', ['t'] = '\t'};
    if (++p->at == p->end) return lk__data_json_fail(p, "the line ends in a string");
    unsigned char c = (unsigned char)*p->at;
    if (c == 'u') {
        p->at++;
        return unicode_escape(p, out);
    }
    if (!means[c]) return lk__data_json_fail(p, "an unknown escape in a string");
    p->at++;
    return lk__data_json_append(p, out, &means[c], 1);
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
        low = x - ones * 0x20; /* a borrow can send a plain byte to the slow loop below, never the other way round */
        if (((quote - ones) | (slash - ones) | low | x) & high) break;
        p += 8;
    }
    while (p < end && is_plain((unsigned char)*p)) p++;
    return p;
}

int lk__data_json_string(struct lk__data_json *p, struct lk_buf *out) {
    p->at++;
    for (;;) {
        const char *run = p->at;
        p->at = plain_end(p->at, p->end);
        while (p->at < p->end && (unsigned char)*p->at >= 0x80) {
            uint32_t c;
            size_t length = lk__tokenizer_utf8_decode((const uint8_t *)p->at, (size_t)(p->end - p->at), &c);
            if (!length) return lk__data_json_fail(p, "not UTF-8");
            p->at += length;
            p->at = plain_end(p->at, p->end);
        }
        int code = lk__data_json_append(p, out, run, (size_t)(p->at - run));
        if (code) return code;
        if (p->at == p->end) return lk__data_json_fail(p, "the line ends in a string");
        if (*p->at == '"') break;
        if (*p->at != '\\') return lk__data_json_fail(p, "a control character in a string; write it as \\u00XX");
        if ((code = escape(p, out))) return code;
    }
    p->at++;
    return 0;
}

/* --- other values ---------------------------------------------------------------------------------------- */

static bool digits(struct lk__data_json *p) {
    const char *from = p->at;
    while (p->at < p->end && *p->at >= '0' && *p->at <= '9') p->at++;
    return p->at > from;
}

static int number(struct lk__data_json *p) {
    if (*p->at == '-') p->at++;
    const char *from = p->at;
    if (!digits(p)) return lk__data_json_fail(p, "a number without digits");
    if (*from == '0' && p->at - from > 1) return lk__data_json_fail(p, "a number that begins with 0");
    if (p->at < p->end && *p->at == '.') {
        p->at++;
        if (!digits(p)) return lk__data_json_fail(p, "a number that ends in a point");
    }
    if (p->at < p->end && (*p->at | 32) == 'e') {
        p->at++;
        if (p->at < p->end && (*p->at == '+' || *p->at == '-')) p->at++;
        if (!digits(p)) return lk__data_json_fail(p, "a number without digits in its exponent");
    }
    return 0;
}

static int word(struct lk__data_json *p) {
    static const char *const words[] = {"true", "false", "null"};
    for (size_t i = 0; i < 3; i++) {
        size_t n = strlen(words[i]);
        if ((size_t)(p->end - p->at) < n || memcmp(p->at, words[i], n)) continue;
        p->at += n;
        return 0;
    }
    return lk__data_json_fail(p, p->at == p->end ? "the line ends too early" : "not JSON");
}

static int scalar(struct lk__data_json *p) {
    if (p->at == p->end) return lk__data_json_fail(p, "the line ends too early");
    if (*p->at == '"') return lk__data_json_string(p, NULL);
    if (*p->at == '-' || (*p->at >= '0' && *p->at <= '9')) return number(p);
    return word(p);
}

/* Inside an object: a key and its colon. */
static int skip_key(struct lk__data_json *p) {
    lk__data_json_space(p);
    if (p->at == p->end || *p->at != '"') return lk__data_json_fail(p, "a key in quotes is missing");
    int code = lk__data_json_string(p, NULL);
    if (code) return code;
    lk__data_json_space(p);
    if (p->at == p->end || *p->at != ':') return lk__data_json_fail(p, "a colon is missing");
    p->at++;
    return 0;
}

/* Without recursion: open[] tells objects from lists. */
int lk__data_json_skip(struct lk__data_json *p) {
    char open[DEPTH_MAX];
    size_t depth = 0;
    for (;;) {
        int code;
        lk__data_json_space(p);
        if (p->at < p->end && (*p->at == '{' || *p->at == '[')) {
            if (depth == DEPTH_MAX - 1) return lk__data_json_fail(p, "nested too deeply");
            char close = *p->at++ == '{' ? '}' : ']';
            open[depth++] = close;
            lk__data_json_space(p);
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
            lk__data_json_space(p);
            if (p->at == p->end) return lk__data_json_fail(p, "the line ends too early");
            char c = *p->at++;
            if (c == open[depth - 1]) {
                depth--;
                continue;
            }
            if (c != ',') {
                p->at--;
                return lk__data_json_fail(p, "a comma is missing");
            }
            if (open[depth - 1] == '}' && (code = skip_key(p))) return code;
            break;
        }
    }
}

bool lk__data_json_is_null(const struct lk__data_json *p) {
    return p->end - p->at >= 4 && !memcmp(p->at, "null", 4);
}
