#include "store/blob/s3_xml.h"
#include "lockstep/base/mem.h"
#include <stdbool.h>
#include <string.h>

#define DEPTH_MOST 8
#define NAME_MOST  128
#define TEXT_MOST  ((size_t)16 << 10)

struct reader {
    const char *at, *end, *begin, *what;
    char path[DEPTH_MOST * (NAME_MOST + 1) + 1];
    size_t ends[DEPTH_MOST]; /* of the path, behind each level */
    struct lk_buf texts[DEPTH_MOST];
    int depth;
    lk__blob_xml_fn *fn;
    void *arg;
    struct lk_err *err;
};

static int fail(struct reader *r, const char *problem) {
    return lk_fail(r->err, LK_ECORRUPT, "%s is not the XML that S3 servers send: %s at byte %zu", r->what, problem,
                   (size_t)(r->at - r->begin));
}

static bool is_space(char c) {
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}
static void skip_space(struct reader *r) {
    while (r->at < r->end && is_space(*r->at)) r->at++;
}
static bool is_next(const struct reader *r, const char *text) {
    size_t n = strlen(text);
    return (size_t)(r->end - r->at) >= n && memcmp(r->at, text, n) == 0;
}
/* Behind the next `text`. */
static bool skip_to(struct reader *r, const char *text) {
    const char *found = memmem(r->at, (size_t)(r->end - r->at), text, strlen(text));
    if (!found) return false;
    r->at = found + strlen(text);
    return true;
}

static bool is_name(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.' ||
           c == ':';
}
/* The name that stands here; its size is 0 where there is none. */
static struct lk_bytes name_here(struct reader *r) {
    const char *from = r->at;
    while (r->at < r->end && is_name(*r->at)) r->at++;
    return lk_bytes(from, (size_t)(r->at - from));
}
static struct lk_bytes without_prefix(struct lk_bytes name) {
    const char *colon = name.size ? memchr(name.data, ':', name.size) : NULL;
    if (!colon) return name;
    return lk_bytes(colon + 1, name.size - (size_t)(colon + 1 - (const char *)name.data));
}

/* --- text ------------------------------------------------------------------------------------------------- */

static int put_character(struct lk_buf *out, unsigned long c) {
    char utf8[4];
    size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const unsigned char lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = n - 1; i > 0; i--, c >>= 6) utf8[i] = (char)(0x80 | (c & 63));
    utf8[0] = (char)(lead[n] | c);
    return lk_buf_append(out, utf8, n);
}

static int read_entity(struct reader *r, struct lk_buf *out) {
    static const struct {
        const char *name;
        char c;
    } known[] = {{"&amp;", '&'}, {"&lt;", '<'}, {"&gt;", '>'}, {"&quot;", '"'}, {"&apos;", '\''}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (is_next(r, known[i].name)) {
            r->at += strlen(known[i].name);
            return lk_buf_append(out, &known[i].c, 1);
        }
    if (!is_next(r, "&#")) return fail(r, "an entity that is none of the five");
    const char *p = r->at + 2;
    bool hex = p < r->end && *p == 'x';
    unsigned long c = 0;
    int digits = 0;
    for (p += hex; p < r->end && digits < 8; p++, digits++) {
        int digit = *p >= '0' && *p <= '9'          ? *p - '0'
                    : hex && *p >= 'a' && *p <= 'f' ? *p - 'a' + 10
                    : hex && *p >= 'A' && *p <= 'F' ? *p - 'A' + 10
                                                    : -1;
        if (digit < 0) break;
        c = c * (hex ? 16 : 10) + (unsigned long)digit;
    }
    if (!digits || p == r->end || *p != ';' || !c || c > 0x10ffff || c >> 11 == 0x1b)
        return fail(r, "a numbered character that is none");
    r->at = p + 1;
    return put_character(out, c);
}

static int read_text(struct reader *r) {
    struct lk_buf *out = &r->texts[r->depth - 1];
    while (r->at < r->end && *r->at != '<') {
        int code = 0;
        if (*r->at == '&') {
            code = read_entity(r, out);
        } else {
            const char *from = r->at;
            while (r->at < r->end && *r->at != '<' && *r->at != '&') r->at++;
            code = lk_buf_append(out, from, (size_t)(r->at - from));
        }
        if (code) return code == LK_ENOMEM ? lk_fail(r->err, code, "out of memory reading %s", r->what) : code;
        if (out->size > TEXT_MOST) return fail(r, "a text over 16 KiB");
    }
    return 0;
}

/* --- elements --------------------------------------------------------------------------------------------- */

static int end_element(struct reader *r) {
    struct lk_buf *text = &r->texts[r->depth - 1];
    if (lk_buf_append(text, "", 0) != 0) return lk_fail(r->err, LK_ENOMEM, "out of memory reading %s", r->what);
    int code = r->fn(r->arg, r->path, text->data, text->size);
    text->size = 0;
    r->depth--;
    r->path[r->depth ? r->ends[r->depth - 1] : 0] = 0;
    return code;
}

/* Of a start tag, behind its name; *empty: it ends the element too. */
static int read_attributes(struct reader *r, bool *empty) {
    for (;;) {
        bool space = r->at < r->end && is_space(*r->at);
        skip_space(r);
        if ((*empty = is_next(r, "/>"))) return r->at += 2, 0;
        if (is_next(r, ">")) return r->at++, 0;
        if (!space || !name_here(r).size) return fail(r, "a start tag without an end");
        skip_space(r);
        if (!is_next(r, "=")) return fail(r, "an attribute without a value");
        r->at++;
        skip_space(r);
        char quote[2] = {r->at < r->end ? *r->at : 0, 0};
        if (*quote != '"' && *quote != '\'') return fail(r, "an attribute's value without quotes");
        r->at++;
        if (!skip_to(r, quote)) return fail(r, "an attribute's value without an end");
    }
}

static int start_element(struct reader *r) {
    r->at++;
    struct lk_bytes name = without_prefix(name_here(r));
    if (!name.size) return fail(r, "a tag without a name");
    if (name.size > NAME_MOST) return fail(r, "a name over 128 bytes");
    if (r->depth == DEPTH_MOST) return fail(r, "more than 8 levels");
    size_t from = r->depth ? r->ends[r->depth - 1] : 0;
    if (from) r->path[from++] = '/';
    memcpy(r->path + from, name.data, name.size);
    r->path[from + name.size] = 0;
    r->ends[r->depth++] = from + name.size;
    bool empty;
    int code = read_attributes(r, &empty);
    return code == 0 && empty ? end_element(r) : code;
}

static int read_end_tag(struct reader *r) {
    r->at += 2;
    struct lk_bytes name = without_prefix(name_here(r));
    skip_space(r);
    if (!r->depth) return fail(r, "an end tag too many");
    size_t from = r->depth > 1 ? r->ends[r->depth - 2] + 1 : 0, size = r->ends[r->depth - 1] - from;
    if (name.size != size || memcmp(name.data, r->path + from, size) != 0) return fail(r, "an end tag of another element");
    if (!is_next(r, ">")) return fail(r, "an end tag without an end");
    r->at++;
    return end_element(r);
}

/* Space and comments outside of the outermost element. */
static int read_around(struct reader *r) {
    for (;;) {
        skip_space(r);
        if (!is_next(r, "<!--")) return 0;
        if (!skip_to(r, "-->")) return fail(r, "a comment without an end");
    }
}

static int read_all(struct reader *r) {
    if (is_next(r, "\xef\xbb\xbf")) r->at += 3;
    skip_space(r);
    if (is_next(r, "<?xml") && !skip_to(r, "?>")) return fail(r, "a declaration without an end");
    int code = read_around(r);
    if (!code && (!is_next(r, "<") || is_next(r, "</"))) code = fail(r, "no element");
    do {
        if (code) return code;
        if (is_next(r, "<!--"))
            code = skip_to(r, "-->") ? 0 : fail(r, "a comment without an end");
        else if (is_next(r, "</"))
            code = read_end_tag(r);
        else if (is_next(r, "<"))
            code = start_element(r);
        else
            code = r->at < r->end ? read_text(r) : fail(r, "an end too early");
    } while (!code && r->depth);
    if (!code) code = read_around(r);
    return !code && r->at != r->end ? fail(r, "something behind the outermost element") : code;
}

int lk__blob_xml_read(const char *xml, size_t size, const char *what, lk__blob_xml_fn *fn, void *arg, struct lk_err *err) {
    struct reader r = {.at = xml, .begin = xml, .end = xml + size, .what = what, .fn = fn, .arg = arg, .err = err};
    int code = read_all(&r);
    for (int i = 0; i < DEPTH_MOST; i++) lk_buf_release(&r.texts[i]);
    return code;
}
