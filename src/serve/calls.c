/* Calls of tools in the text of an answer, piece by piece. The grammar has made sure of their form, so places are found by
 * fixed texts and brackets. */
#include "calls.h"

#include <stdio.h>
#include <string.h>

enum { AT_BEGIN, IN_TEXT, ALL_TEXT, AT_OPENING, IN_NAME, IN_ARGUMENTS, BEHIND };

/* Tells the first `size` bytes that are held, if any, and drops them and `also` more. */
static int pass(struct lk__serve_calls *c, enum lk__serve_calls_part part, size_t size, size_t also) {
    int code = size ? c->tell(c->arg, part, c->held.data, size) : 0;
    size_t gone = size + also;
    memmove(c->held.data, c->held.data + gone, c->held.size - gone);
    c->held.size -= gone;
    return code;
}
/* What is held and the fixed text a are the same, as far as both go. */
static bool agrees(const struct lk_buf *held, const char *a, size_t size) {
    return !held->size || !memcmp(held->data, a, held->size < size ? held->size : size);
}

static void opening(const struct lk__serve_calls *c, char out[LK__SERVE_CALLS_OPENING]) {
    snprintf(out, LK__SERVE_CALLS_OPENING, "%s%s", c->how->open, c->how->call);
}

/* Where the text ends that is surely none of a call: before a line's end and the mark, or what may become these. */
static size_t sure_text(const struct lk_buf *held, const char *mark, size_t size, bool *found) {
    const char *at = memmem(held->data, held->size, mark, size);
    size_t end = at ? (size_t)(at - held->data) : held->size;
    *found = at != NULL;
    for (size_t k = size < held->size ? size : held->size; !at && k > 0; k--)
        if (!memcmp(held->data + held->size - k, mark, k)) {
            end = held->size - k;
            break;
        }
    return end && held->data[end - 1] == '\n' ? end - 1 : end;
}

static int in_text(struct lk__serve_calls *c, bool *waits) {
    char mark[LK__SERVE_CALLS_OPENING];
    bool found;
    lk__serve_calls_mark(c->how, mark);
    size_t sure = sure_text(&c->held, mark, strlen(mark), &found);
    int code = pass(c, LK__SERVE_CALLS_TEXT, sure, 0);
    if (found) {
        if (*c->held.data == '\n') pass(c, LK__SERVE_CALLS_TEXT, 0, 1);
        c->place = AT_OPENING;
    }
    *waits = !found;
    return code;
}

/* In arguments: how many bytes belong to them; *ended: with them the object ends. */
static size_t object_bytes(struct lk__serve_calls *c, bool *ended) {
    *ended = false;
    for (size_t i = 0; i < c->held.size; i++) {
        char x = c->held.data[i];
        if (c->string) {
            bool escape = x == '\\' && !c->escaped;
            if (x == '"' && !c->escaped) c->string = false;
            c->escaped = escape;
        } else if (x == '"')
            c->string = true;
        else if (x == '{' || x == '[')
            c->depth++;
        else if ((x == '}' || x == ']') && --c->depth == 0) {
            *ended = true;
            return i + 1;
        }
    }
    return c->held.size;
}

/* One step; *waits: it needs more text. */
static int step(struct lk__serve_calls *c, bool *waits) {
    char text[2 * LK__SERVE_CALLS_OPENING];
    const char *at;
    bool ended;
    int code = 0;
    switch (c->place) {
    case AT_BEGIN:
        opening(c, text);
        if (c->anywhere)
            c->place = IN_TEXT;
        else if (agrees(&c->held, text, strlen(text)))
            c->place = AT_OPENING;
        else
            c->place = ALL_TEXT;
        break;
    case IN_TEXT:
        return in_text(c, waits);
    case ALL_TEXT:
        *waits = true;
        return pass(c, LK__SERVE_CALLS_TEXT, c->held.size, 0);
    case AT_OPENING:
        opening(c, text);
        if (!agrees(&c->held, text, strlen(text)))
            c->place = ALL_TEXT;
        else if (c->held.size < strlen(text))
            *waits = true;
        else
            pass(c, LK__SERVE_CALLS_TEXT, 0, strlen(text)), c->place = IN_NAME;
        break;
    case IN_NAME:
        at = memmem(c->held.data, c->held.size, c->how->arguments, strlen(c->how->arguments));
        if (!(*waits = !at)) {
            code = pass(c, LK__SERVE_CALLS_NAME, (size_t)(at - c->held.data), strlen(c->how->arguments));
            c->place = IN_ARGUMENTS, c->depth = 0;
        }
        break;
    case IN_ARGUMENTS:
        code = pass(c, LK__SERVE_CALLS_ARGUMENTS, object_bytes(c, &ended), 0);
        if ((*waits = !ended)) break;
        c->count++, c->place = BEHIND;
        if (!code) code = c->tell(c->arg, LK__SERVE_CALLS_END, NULL, 0);
        break;
    default: /* BEHIND: another call, or what closes them */
        snprintf(text, sizeof text, "%s%s%s", c->how->end, c->how->between, c->how->call);
        if ((*waits = c->held.size < strlen(text) || !agrees(&c->held, text, strlen(text)))) break;
        pass(c, LK__SERVE_CALLS_TEXT, 0, strlen(text)), c->place = IN_NAME;
    }
    return code;
}

int lk__serve_calls_take(struct lk__serve_calls *c, const char *data, size_t size) {
    if (lk_buf_append(&c->held, data, size)) return LK_ENOMEM;
    int code = 0;
    for (bool waits = false; !code && !waits && c->held.size;) code = step(c, &waits);
    return code;
}

int lk__serve_calls_finish(struct lk__serve_calls *c) {
    return c->place <= AT_OPENING && c->held.size ? pass(c, LK__SERVE_CALLS_TEXT, c->held.size, 0) : 0;
}

void lk__serve_calls_release(struct lk__serve_calls *c) {
    lk_buf_release(&c->held);
}
