/* Calls of tools as a grammar: what a template says around a call, its name, and its arguments by the tool's schema. */
#include "serve/calls.h"
#include "serve/grammar/schema.h"
#include <stdio.h>
#include <string.h>

static uint32_t characters(struct lk__grammar_build *b, const char *but) {
    struct lk__grammar_range r[2];
    size_t n = 0;
    for (; *but; but++) r[n++] = (struct lk__grammar_range){(uint8_t)*but, (uint8_t)*but};
    return lk__grammar_class(b, r, n, true);
}
static uint32_t any_text(struct lk__grammar_build *b) {
    return lk__grammar_repeat(b, characters(b, ""), 0, LK__GRAMMAR_UNLIMITED);
}

/* What opens calls, as free text may not say it: the mark that they begin with, or the text up to the first name. */
void lk__serve_calls_mark(const struct lk_chat_calls *how, char out[LK__SERVE_CALLS_OPENING]) {
    const char *mark = how->marks[0];
    snprintf(out, LK__SERVE_CALLS_OPENING, "%s%s", how->open, how->call);
    if (mark && !strncmp(out, mark, strlen(mark))) out[strlen(mark)] = 0;
}

/* Text without `mark`, whose first character c is nowhere else in it. A place in such a text is how much of the mark stands
 * before it, so these are the paths of that automaton as one expression:
 *     clear    characters other than c, and beginnings of the mark that a character other than c ends
 *     begun    c, and beginnings of the mark that another c ends
 * then  clear ( nothing | begun, less than the mark )  is a whole text, and  clear begun the rest of the mark  leads on. */
struct without {
    uint32_t clear, begun, partial;
};
static struct without text_without(struct lk__grammar_build *b, const char *mark) {
    uint32_t again[LK__SERVE_CALLS_OPENING], over[LK__SERVE_CALLS_OPENING], partial[LK__SERVE_CALLS_OPENING];
    size_t size = strlen(mark), n = 0;
    for (; n + 1 < size; n++) {
        char end[3] = {mark[n + 1], mark[0], 0};
        uint32_t part = lk__grammar_literal(b, mark + 1, n);
        again[n] = LK__GRAMMAR_SEQ(b, part, lk__grammar_literal(b, mark, 1));
        over[n] = LK__GRAMMAR_SEQ(b, part, characters(b, end));
        partial[n] = part;
    }
    uint32_t more = lk__grammar_repeat(b, lk__grammar_choice(b, again, n), 0, LK__GRAMMAR_UNLIMITED);
    struct without w;
    w.begun = LK__GRAMMAR_SEQ(b, lk__grammar_literal(b, mark, 1), more);
    uint32_t ended = LK__GRAMMAR_SEQ(b, w.begun, lk__grammar_choice(b, over, n));
    w.clear =
        lk__grammar_repeat(b, LK__GRAMMAR_ANY(b, characters(b, (char[]){mark[0], 0}), ended), 0, LK__GRAMMAR_UNLIMITED);
    w.partial = LK__GRAMMAR_SEQ(b, w.begun, lk__grammar_choice(b, partial, n));
    return w;
}

static uint32_t arguments(struct lk__grammar_schema *s, const json_t *tool, size_t i) {
    const json_t *schema = json_object_get(json_object_get(tool, "function"), "parameters");
    const char *type = json_string_value(json_object_get(schema, "type"));
    char path[64];
    snprintf(path, sizeof path, "$.tools[%zu].function.parameters", i);
    if (!json_object_size(schema)) return lk__grammar_string(s->b, "{}"); /* it takes none */
    uint32_t id = lk__grammar_schema_part(s, schema, path);
    if (!type || strcmp(type, "object") != 0)
        lk__grammar_schema_fail(s, LK_EINVAL, "type", "the parameters of a tool must be an object");
    return id;
}

/* NAME arguments OBJECT end, of one of the tools. */
static uint32_t named(struct lk__grammar_schema *s, const struct lk_tools *t) {
    struct lk__grammar_build *b = s->b;
    struct lk__grammar_array kids = {0};
    for (size_t i = 0; i < json_array_size(t->tools) && !b->code; i++) {
        const json_t *tool = json_array_get(t->tools, i);
        const char *name = json_string_value(json_object_get(json_object_get(tool, "function"), "name"));
        if (!name) lk__grammar_fail(b, LK_EINVAL, "$.tools[%zu].function.name is missing", i);
        if (!name || (t->only && strcmp(t->only, name) != 0)) continue;
        uint32_t *room = lk__grammar_room(&kids, 1, sizeof *room);
        if (!room) {
            lk__grammar_fail(b, LK_ENOMEM, "no memory for a grammar");
            break;
        }
        *room = LK__GRAMMAR_SEQ(b, lk__grammar_string(b, name), lk__grammar_string(b, t->how->arguments),
                                arguments(s, tool, i), lk__grammar_string(b, t->how->end));
        kids.count++;
    }
    if (!kids.count) lk__grammar_fail(b, LK_EINVAL, "there is no tool %.64s", t->only ? t->only : "");
    uint32_t id = lk__grammar_choice(b, kids.data, kids.count);
    lk_free(kids.data);
    return id;
}

/* Calls, of whose text the first `said` bytes stand already. */
static uint32_t calls(struct lk__grammar_schema *s, const struct lk_tools *t, size_t said) {
    struct lk__grammar_build *b = s->b;
    const struct lk_chat_calls *how = t->how;
    char begin[LK__SERVE_CALLS_OPENING];
    uint32_t rule = lk__grammar_rule(b, "call", 4, true);
    lk__grammar_body(b, rule, named(s, t));
    uint32_t call = lk__grammar_call(b, rule), more = lk__grammar_string(b, "");
    snprintf(begin, sizeof begin, "%s%s", how->open, how->call);
    if (how->many && t->many)
        more = lk__grammar_repeat(
            b, LK__GRAMMAR_SEQ(b, lk__grammar_string(b, how->between), lk__grammar_string(b, how->call), call), 0,
            LK__GRAMMAR_UNLIMITED);
    return LK__GRAMMAR_SEQ(b, lk__grammar_string(b, begin + said), call, more, lk__grammar_string(b, how->close));
}

/* An answer that calls nothing, or text before calls. */
static uint32_t answer(struct lk__grammar_schema *s, const struct lk_tools *t) {
    struct lk__grammar_build *b = s->b;
    bool never = t->choice == LK_TOOLS_NEVER;
    char mark[LK__SERVE_CALLS_OPENING];
    lk__serve_calls_mark(t->how, mark);
    if (t->answer) {
        uint32_t said = lk__grammar_schema_part(s, t->answer, "$");
        return never ? said : LK__GRAMMAR_ANY(b, said, calls(s, t, 0));
    }
    if (!t->how->text) { /* what begins otherwise */
        uint32_t other = LK__GRAMMAR_SEQ(b, characters(b, (char[]){mark[0], 0}), any_text(b));
        other = lk__grammar_repeat(b, other, 0, 1);
        return never ? other : LK__GRAMMAR_ANY(b, other, calls(s, t, 0));
    }
    struct without w = text_without(b, mark);
    uint32_t kids[3] = {lk__grammar_string(b, ""), w.partial};
    if (!never) kids[2] = LK__GRAMMAR_SEQ(b, w.begun, calls(s, t, 1));
    return LK__GRAMMAR_SEQ(b, w.clear, lk__grammar_choice(b, kids, never ? 2 : 3));
}

int lk_grammar_from_tools(const struct lk_tools *t, struct lk_grammar **out, struct lk_err *err) {
    struct lk__grammar_build b;
    *out = NULL;
    lk__grammar_build_init(&b, err);
    struct lk__grammar_schema s = {.b = &b};
    uint32_t root = lk__grammar_rule(&b, "root", 4, false);
    lk__grammar_body(&b, root, t->choice == LK_TOOLS_ALWAYS ? calls(&s, t, 0) : answer(&s, t));
    int code = lk__grammar_compile(&b, root, out);
    lk__grammar_schema_release(&s);
    lk__grammar_build_release(&b);
    return code;
}
