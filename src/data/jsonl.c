#include "data/jsonl.h"
#include "data/json_values.h"

#define KEYS_MAX 1000 /* keys of one record; they are compared pairwise */

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

static void name_fields(struct fields *f, const struct lk__data_record_keys *keys) {
    static const char *const usual[FIELDS] = {"text", "prompt", "response", "messages", "tools"};
    bool chosen = keys->text || keys->messages;
    for (int i = 0; i < FIELDS; i++) f->names[i] = chosen && i != TOOLS ? NULL : usual[i];
    if (keys->text) f->names[TEXT] = keys->text;
    if (keys->messages) f->names[MESSAGES] = keys->messages;
}

static int note_key(struct lk__data_json *p, struct fields *f) {
    uint32_t size = (uint32_t)f->key.size, other;
    if (size && memchr(f->key.data, 0, size)) return lk__data_json_fail(p, "a zero byte in a key");
    if (++f->key_count > KEYS_MAX) return lk_fail(p->err, LK_EINVAL, "more than %d keys", KEYS_MAX);
    for (size_t at = 0; at < f->keys.size; at += sizeof other + other) {
        memcpy(&other, f->keys.data + at, sizeof other);
        if (other == size && (!size || !memcmp(f->keys.data + at + sizeof other, f->key.data, size)))
            return lk_fail(p->err, LK_EINVAL, "the key \"%.*s\" stands twice", size > 60 ? 60 : (int)size, f->key.data);
    }
    int code = lk__data_json_append(p, &f->keys, (const char *)&size, sizeof size);
    return code ? code : lk__data_json_append(p, &f->keys, f->key.data, size);
}

/* One "key": value of the record. */
static int member(struct lk__data_json *p, struct fields *f, struct lk_buf *text) {
    lk__data_json_space(p);
    if (p->at == p->end || *p->at != '"') return lk__data_json_fail(p, "a key in quotes is missing");
    const char *key_at = p->at;
    f->key.size = 0;
    int code = lk__data_json_string(p, &f->key);
    if (code) return code;
    const char *after = p->at;
    p->at = key_at;
    if ((code = note_key(p, f))) return code;
    p->at = after;
    lk__data_json_space(p);
    if (p->at == p->end || *p->at != ':') return lk__data_json_fail(p, "a colon is missing");
    p->at++;
    lk__data_json_space(p);
    for (int i = 0; i < FIELDS; i++) {
        if (!f->names[i] || f->key.size != strlen(f->names[i]) || memcmp(f->key.data, f->names[i], f->key.size)) continue;
        if (lk__data_json_is_null(p)) break;
        f->value[i] = p->at;
        if (i == TOOLS || i == MESSAGES) { /* whether they count, choose() decides once all keys are known */
            code = lk__data_json_skip(p);
            if (i == MESSAGES) f->messages_end = p->at;
            return code;
        }
        if (p->at == p->end || *p->at != '"') return lk_fail(p->err, LK_EINVAL, "\"%s\" is not a string", f->names[i]);
        if (i == TEXT) return lk__data_json_string(p, text); /* prompt and response are copied by choose(), in that order */
    }
    return lk__data_json_skip(p);
}

static int object(struct lk__data_json *p, struct fields *f, struct lk_buf *text) {
    if (*p->at != '{') return lk__data_json_fail(p, "a record begins with {");
    p->at++;
    lk__data_json_space(p);
    bool empty = p->at < p->end && *p->at == '}';
    if (empty) p->at++;
    while (!empty) {
        int code = member(p, f, text);
        if (code) return code;
        lk__data_json_space(p);
        if (p->at == p->end) return lk__data_json_fail(p, "the line ends in a record");
        char c = *p->at++;
        if (c == '}') break;
        if (c == ',') continue;
        p->at--;
        return lk__data_json_fail(p, "a comma is missing");
    }
    lk__data_json_space(p);
    return p->at == p->end ? 0 : lk__data_json_fail(p, "something stands behind the record");
}

static int take(struct lk__data_json *p, const char *value, struct lk_buf *text) {
    p->at = value;
    return lk__data_json_string(p, text);
}

/* A list or object with something in it. */
static bool is_filled(struct lk__data_json *p, const char *value) {
    if (!value || (*value != '[' && *value != '{')) return false;
    struct lk__data_json inside = {value + 1, p->end, NULL};
    lk__data_json_space(&inside);
    return inside.at < inside.end && *inside.at != ']' && *inside.at != '}';
}

static int choose(struct lk__data_json *p, const struct fields *f, const struct lk__data_record_keys *keys,
                  struct lk_buf *text, struct lk__data_record *out) {
    bool pair = f->value[PROMPT] && f->value[RESPONSE];
    if (keys->conversations && (f->value[TEXT] || pair) && is_filled(p, f->value[MESSAGES]))
        return lk_fail(p->err, LK_EINVAL,
                       "it has \"messages\" and also %s: choose the conversation with --messages-key messages, or %s",
                       pair ? "\"prompt\" and \"response\"" : "\"text\"",
                       pair ? "the other two by leaving out --template" : "the text with --text-key text");
    if (f->value[TEXT]) {
        if (f->value[PROMPT] || f->value[RESPONSE])
            return lk__data_json_fail(
                p, "it has \"text\" and also \"prompt\" or \"response\"; a record is the one or the other; --text-key "
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
    if (!pair)
        return lk__data_json_fail(p, "it has neither \"text\" nor \"messages\" nor both of \"prompt\" and \"response\"");
    int code = take(p, f->value[PROMPT], text);
    out->prompt_size = text->size;
    return code ? code : take(p, f->value[RESPONSE], text);
}

int lk__data_record_parse(const char *line, size_t size, const struct lk__data_record_keys *keys, struct lk_buf *text,
                          struct lk__data_record *out, size_t *at, struct lk_err *err) {
    struct lk__data_json p = {line, line + size, err};
    struct fields f = {0};
    *out = (struct lk__data_record){0};
    *at = 0;
    text->size = 0;
    name_fields(&f, keys);
    lk__data_json_space(&p);
    if (p.at == p.end) {
        out->blank = true;
        return 0;
    }
    size_t left = (size_t)(p.end - p.at); /* a file's own mark was dropped by the stream */
    int code = !memcmp(p.at, "\xEF\xBB\xBF", left < 3 ? 1 : 3)
                   ? lk__data_json_fail(&p, "a byte order mark inside a file; take it out")
                   : object(&p, &f, text);
    *at = (size_t)(p.at - line);
    if (!code && (code = choose(&p, &f, keys, text, out)) == LK_EINVAL) *at = 0;
    lk_buf_release(&f.keys);
    lk_buf_release(&f.key);
    return code;
}

/* --- messages -------------------------------------------------------------------------------------------- */

/* One "key": value of a message. The array is known to be JSON. */
static int message_member(struct lk__data_json *p, struct lk_buf *text, struct lk__data_message *m, bool have[2],
                          size_t number) {
    static const char *const names[] = {"role", "content"};
    lk__data_json_space(p);
    const char *key = p->at;
    int code = lk__data_json_string(p, NULL), which = 2;
    if (code) return code;
    for (int i = 0; i < 2; i++)
        if ((size_t)(p->at - key) == strlen(names[i]) + 2 && !memcmp(key + 1, names[i], strlen(names[i]))) which = i;
    const char *key_end = p->at;
    lk__data_json_space(p);
    p->at++; /* the colon */
    lk__data_json_space(p);
    if (which == 2 && lk__data_json_is_null(p)) return lk__data_json_skip(p);
    if (which == 2)
        return lk_fail(p->err, LK_EINVAL, "messages[%zu] has the key %.*s; only \"role\" and \"content\" are known", number,
                       key_end - key > 60 ? 60 : (int)(key_end - key), key);
    if (have[which]) return lk_fail(p->err, LK_EINVAL, "messages[%zu] has \"%s\" twice", number, names[which]);
    have[which] = true;
    if (*p->at != '"') return lk_fail(p->err, LK_EINVAL, "messages[%zu].%s is not a string", number, names[which]);
    size_t begin = text->size;
    if ((code = lk__data_json_string(p, text))) return code;
    *(which ? &m->content : &m->role) = begin;
    *(which ? &m->content_size : &m->role_size) = text->size - begin;
    return 0;
}

static int message(struct lk__data_json *p, struct lk_buf *text, struct lk_buf *messages, size_t number) {
    struct lk__data_message m = {0};
    bool have[2] = {false, false};
    if (*p->at != '{') return lk_fail(p->err, LK_EINVAL, "messages[%zu] is not an object", number);
    p->at++;
    lk__data_json_space(p);
    bool empty = *p->at == '}';
    if (empty) p->at++;
    while (!empty) {
        int code = message_member(p, text, &m, have, number);
        if (code) return code;
        lk__data_json_space(p);
        if (*p->at++ == '}') break; /* else a comma */
    }
    if (!have[0] || !have[1])
        return lk_fail(p->err, LK_EINVAL, "messages[%zu] has no \"%s\"", number, have[0] ? "content" : "role");
    return lk__data_json_append(p, messages, (const char *)&m, sizeof m);
}

int lk__data_messages_parse(const char *array, size_t size, struct lk_buf *text, struct lk_buf *messages, size_t *at,
                            struct lk_err *err) {
    struct lk__data_json p = {array + 1, array + size, err};
    size_t number = 0;
    int code = 0;
    text->size = messages->size = 0;
    lk__data_json_space(&p);
    while (!code && *p.at != ']') {
        if (*p.at == ',') p.at++;
        lk__data_json_space(&p);
        code = message(&p, text, messages, number++);
        lk__data_json_space(&p);
    }
    *at = (size_t)(p.at - array);
    return code || number ? code : lk__data_json_fail(&p, "\"messages\" is empty");
}
