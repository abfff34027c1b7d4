#include "lockstep/base/ini.h"
#include "lockstep/base/file.h"
#include <ini.h>
#include <pthread.h>
#include <string.h>

#define LINE_MAX_BYTES    4096
#define FILE_MAX_BYTES    ((size_t)1 << 20)
#define ENTRIES_MAX       4096 /* keeps the search for a key given twice short, whatever the file holds */
#define SECTION_MAX_BYTES 48   /* inih cuts longer ones without a word */

/* inih reads through next_line() below, so that lines are counted, and refused before inih could cut them. */
struct reader {
    const char *text, *end;
    const char *line; /* the line given out last, and its size without the line end */
    size_t line_size;
    int number;
    struct lk_ini *out;
    int code;
    struct lk_err *err;
};

/* Debian's inih has these as variables. A line has to fit with its line end and a zero byte. */
static void configure(void) {
    ini_max_line = LINE_MAX_BYTES + 8;
    ini_allow_multiline = false;
    ini_allow_inline_comments = false; /* a value is the whole rest of its line: nothing is cut without a word */
}

/* What is quoted of a line in a message: its first 60 bytes. */
static int fail_line(struct reader *r, const char *problem) {
    int shown = r->line_size < 60 ? (int)r->line_size : 60;
    return r->code = lk_fail(r->err, LK_EINVAL, "%s:%d: %s: \"%.*s%s\"", r->out->name, r->number, problem, shown, r->line,
                             r->line_size > 60 ? "..." : "");
}

/* A section line must be "[name]" and then nothing but a comment; inih ignores what follows. */
static int check_section(struct reader *r, const char *s, size_t n) {
    const char *close = memchr(s, ']', n);
    if (!close) return fail_line(r, "a section needs a closing ']'");
    if (close - s - 1 > SECTION_MAX_BYTES) return fail_line(r, "the name of a section is longer than 48 bytes");
    if (close == s + 1) return fail_line(r, "the name of a section is empty");
    if (s[1] == ' ' || s[1] == '\t' || close[-1] == ' ' || close[-1] == '\t')
        return fail_line(r, "no space may stand inside the [ ] of a section");
    const char *p = close + 1;
    while (p < s + n && (*p == ' ' || *p == '\t')) p++;
    if (p < s + n && *p != ';' && *p != '#') return fail_line(r, "only a comment may follow the ']'");
    return 0;
}

static int check_line(struct reader *r, const char *s, size_t n) {
    for (size_t i = 0; i < r->line_size; i++) {
        unsigned char c = (unsigned char)r->line[i];
        if (c >= 0x20 || c == '\t') continue;
        char problem[96];
        if (c)
            snprintf(problem, sizeof problem, "control character 0x%02x at byte %zu of the line", c, i + 1);
        else
            snprintf(problem, sizeof problem, "zero byte at byte %zu of the line (UTF-16? write it as UTF-8)", i + 1);
        return fail_line(r, problem);
    }
    if (r->line_size > LINE_MAX_BYTES) return fail_line(r, "the line is longer than 4,096 bytes");
    return n && *s == '[' ? check_section(r, s, n) : 0;
}

static char *next_line(char *buffer, int size, void *stream) {
    struct reader *r = stream;
    if (r->code != 0 || r->text == r->end) return NULL;
    const char *feed = memchr(r->text, '\n', (size_t)(r->end - r->text));
    const char *stop = feed ? feed : r->end;
    r->line = r->text;
    r->text = feed ? feed + 1 : r->end;
    r->number++;
    if (r->number == 1 && r->line < stop) r->line += lk_skip_bom(r->line, (size_t)(stop - r->line));
    if (stop > r->line && stop[-1] == '\r') stop--;
    r->line_size = (size_t)(stop - r->line);
    /* Without its indent, so that no build of inih takes the line for the rest of the value before. */
    const char *s = r->line;
    while (s < stop && (*s == ' ' || *s == '\t')) s++;
    size_t n = (size_t)(stop - s);
    if (check_line(r, s, n) != 0) return NULL;
    if (n + 2 > (size_t)size) {
        fail_line(r, "the line is longer than this build of inih takes");
        return NULL;
    }
    memcpy(buffer, s, n);
    memcpy(buffer + n, "\n", 2);
    return buffer;
}

/* --- entries --------------------------------------------------------------------------------------------- */

static struct lk_ini_entry *find(const struct lk_ini *ini, const char *section, const char *key) {
    for (size_t i = 0; i < ini->count; i++) {
        struct lk_ini_entry *e = &ini->entries[i];
        if (strcmp(e->key, key) == 0 && strcmp(e->section, section) == 0) return e;
    }
    return NULL;
}

const struct lk_ini_entry *lk_ini_find(const struct lk_ini *ini, const char *section, const char *key) {
    return find(ini, section, key);
}

static void entry_release(struct lk_ini_entry *e) {
    lk_free(e->section);
    lk_free(e->key);
    lk_free(e->value);
    lk_free((char *)(uintptr_t)e->where);
}

/* Takes where over, also when it fails. */
static int add(struct lk_ini *ini, const char *section, const char *key, const char *value, int line, char *where) {
    struct lk_ini_entry e = {lk_strdup(section), lk_strdup(key), lk_strdup(value), line, where};
    struct lk_ini_entry *grown = NULL;
    if (e.section && e.key && e.value && e.where) grown = lk_realloc(ini->entries, (ini->count + 1) * sizeof e);
    if (!grown) {
        entry_release(&e);
        return LK_ENOMEM;
    }
    ini->entries = grown;
    ini->entries[ini->count++] = e;
    return 0;
}

static int on_entry(void *user, const char *section, const char *key, const char *value) {
    struct reader *r = user;
    if (r->code != 0) return 0;
    if (!*section) return fail_line(r, "a key needs a [section] before it"), 0;
    if (!*key) return fail_line(r, "the key before '=' is empty"), 0;
    const struct lk_ini_entry *old = find(r->out, section, key);
    if (old) {
        r->code = lk_fail(r->err, LK_EINVAL, "%s:%d: %s.%s is given twice, first in line %d", r->out->name, r->number,
                          section, key, old->line);
        return 0;
    }
    if (r->out->count == ENTRIES_MAX) return fail_line(r, "more than 4,096 keys"), 0;
    char *where = lk_asprintf("%s:%d", r->out->name, r->number);
    if (add(r->out, section, key, value, r->number, where) == 0) return 1;
    r->code = lk_fail(r->err, LK_ENOMEM, "out of memory reading %s", r->out->name);
    return 0;
}

int lk_ini_parse(const char *text, size_t size, const char *name, struct lk_ini *out, struct lk_err *err) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, configure);
    *out = (struct lk_ini){.name = lk_strdup(name)};
    if (!out->name) return lk_fail(err, LK_ENOMEM, "out of memory reading %s", name);
    struct reader r = {.text = text, .end = text + size, .out = out, .err = err};
    int bad = ini_parse_stream(next_line, &r, on_entry, &r);
    if (r.code == 0 && bad < 0) r.code = lk_fail(err, LK_ENOMEM, "out of memory reading %s", name);
    if (r.code == 0 && bad > 0) {
        /* Lines were given out one by one, so inih's number is ours; find the line again to quote it. */
        const char *s = text;
        for (int i = 1; i < bad; i++) s = (const char *)memchr(s, '\n', (size_t)(text + size - s)) + 1;
        const char *stop = memchr(s, '\n', (size_t)(text + size - s));
        r.line = s;
        r.line_size = (size_t)((stop ? stop : text + size) - s);
        r.number = bad;
        fail_line(&r, "not a [section], a key = value or a comment");
    }
    if (r.code != 0) lk_ini_release(out);
    return r.code;
}

int lk_ini_read(const char *path, struct lk_ini *out, struct lk_err *err) {
    struct lk_buf text = LK_BUF_INIT;
    *out = (struct lk_ini){0};
    int code = lk_file_read(path, FILE_MAX_BYTES, &text, err);
    if (code == 0) code = lk_ini_parse(text.data, text.size, path, out, err);
    lk_buf_release(&text);
    return code;
}

int lk_ini_override(struct lk_ini *ini, const char *assignment, struct lk_err *err) {
    const char *equal = strchr(assignment, '=');
    const char *dot = equal ? memchr(assignment, '.', (size_t)(equal - assignment)) : NULL;
    if (!equal || equal == assignment || dot == assignment || (dot && dot + 1 == equal))
        return lk_fail(err, LK_EINVAL, "on the command line: \"%.200s\" is not of the form section.key=value", assignment);
    /* Without a section: the reader of keys knows best which one was meant. */
    const char *name = dot ? dot + 1 : assignment;
    char *section = lk_strndup(assignment, dot ? (size_t)(dot - assignment) : 0);
    char *key = lk_strndup(name, (size_t)(equal - name));
    char *where = lk_strdup("on the command line"), *value = NULL;
    struct lk_ini_entry *old = section && key ? find(ini, section, key) : NULL;
    int code = LK_ENOMEM;
    if (section && key && where && !old) {
        code = add(ini, section, key, equal + 1, 0, where);
        where = NULL;
    } else if (old && where && (value = lk_strdup(equal + 1))) {
        lk_free(old->value);
        lk_free((char *)(uintptr_t)old->where);
        old->value = value;
        old->where = where;
        old->line = 0;
        where = NULL;
        code = 0;
    }
    lk_free(section);
    lk_free(key);
    lk_free(where);
    return code == 0 ? 0 : lk_fail(err, code, "out of memory setting %.200s", assignment);
}

void lk_ini_release(struct lk_ini *ini) {
    for (size_t i = 0; i < ini->count; i++) entry_release(&ini->entries[i]);
    lk_free(ini->entries);
    lk_free(ini->name);
    *ini = (struct lk_ini){0};
}
